//! A network's plugins, one after the other: forwards to attach, backwards to detach.

use std::{path::PathBuf, time::Duration};

use serde_json::{Map, Value, json};

use crate::{
    CniError, PluginError, PodNetwork,
    attachment::POD_INTERFACE,
    cache::{Record, Valid},
    config::{NetworkConfig, PluginConfig},
    netns, plugin,
};

/// The first version in which there is CHECK, and DEL is given the result of ADD.
const CHECK_SINCE: &str = "0.4.0";
/// The first version in which there are GC and STATUS.
const STATUS_SINCE: &str = "1.1.0";
/// A plugin that cannot say by then whether it is ready is not.
const STATUS_TIMEOUT: Duration = Duration::from_secs(10);

/// What a plugin is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Add,
    Del,
    Check,
    Status,
    Gc,
}

impl Command {
    fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
            Self::Status => "STATUS",
            Self::Gc => "GC",
        }
    }
}

/// Where plugins lie and how long each may take.
#[derive(Debug, Clone)]
pub(crate) struct Runner {
    pub bin_dirs: Vec<PathBuf>,
    pub timeout: Duration,
}

impl Runner {
    /// Runs the chain for a new attachment and returns the last plugin's result. Undoes nothing.
    pub async fn add(&self, network: &NetworkConfig, pod: &PodNetwork) -> Result<Value, CniError> {
        let mut result = None;
        for plugin in &network.plugins {
            let output = self.run_for(Command::Add, network, plugin, pod, result.as_ref()).await?;
            let parsed = plugin::parse_result(&output);
            result = Some(parsed.map_err(|source| failed(network, plugin, Command::Add, source))?);
        }
        // A chain has at least one plugin, so this is its result.
        result.ok_or_else(|| CniError::Result { network: network.name.clone(), reason: "is missing".into() })
    }

    /// Runs the chain backwards, as it was recorded. The first failure ends it, so that a repetition finds
    /// the plugins before it as they were.
    pub async fn del(&self, record: &Record) -> Result<(), CniError> {
        let network = &record.network;
        let result = record.result.as_ref().filter(|_| network.version >= CHECK_SINCE);
        for plugin in network.plugins.iter().rev() {
            self.run_for(Command::Del, network, plugin, &record.pod, result).await?;
        }
        Ok(())
    }

    /// Asks the chain whether an attachment is still as ADD left it. Nothing is asked where the network's version knows
    /// no such question, or its configuration forbids it.
    pub async fn check_attachment(&self, record: &Record) -> Result<(), CniError> {
        let network = &record.network;
        let Some(result) = &record.result else { return Ok(()) };
        if network.version < CHECK_SINCE || network.forbids("disableCheck") {
            return Ok(());
        }
        for plugin in &network.plugins {
            self.run_for(Command::Check, network, plugin, &record.pod, Some(result)).await?;
        }
        Ok(())
    }

    /// Asks each plugin whether it could attach a pod now; those of versions that know the question.
    pub async fn status(&self, network: &NetworkConfig) -> Result<(), CniError> {
        if network.version < STATUS_SINCE {
            return Ok(());
        }
        for plugin in &network.plugins {
            let input = common(network, plugin);
            self.run(Command::Status, network, plugin, &self.environment(Command::Status), input).await?;
        }
        Ok(())
    }

    /// Lets each plugin free what belongs to none of these attachments. All are asked, and the first failure is told.
    pub async fn collect_garbage(&self, network: &NetworkConfig, valid: &[Valid]) -> Result<(), CniError> {
        if network.version < STATUS_SINCE || network.forbids("disableGC") {
            return Ok(());
        }
        let mut outcome = Ok(());
        for plugin in &network.plugins {
            let mut input = common(network, plugin);
            // The second is what plugins read that followed a misprint of the specification.
            for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
                input.insert(key.into(), json!(valid));
            }
            let ran = self.run(Command::Gc, network, plugin, &self.environment(Command::Gc), input).await;
            outcome = outcome.and(ran.map(drop));
        }
        outcome
    }

    /// Finds the program of every plugin of the chain.
    pub fn find_all(&self, network: &NetworkConfig) -> Result<(), CniError> {
        network.plugins.iter().try_for_each(|plugin| self.find(network, plugin).map(drop))
    }

    fn find(&self, network: &NetworkConfig, plugin: &PluginConfig) -> Result<PathBuf, CniError> {
        plugin::find(&self.bin_dirs, &plugin.kind).ok_or_else(|| CniError::PluginMissing {
            network: network.name.clone(),
            plugin: plugin.kind.clone(),
            dirs: self.path().replace(':', " or "),
        })
    }

    fn path(&self) -> String {
        self.bin_dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(":")
    }

    /// Runs a plugin for a pod.
    async fn run_for(
        &self,
        command: Command,
        network: &NetworkConfig,
        plugin: &PluginConfig,
        pod: &PodNetwork,
        previous: Option<&Value>,
    ) -> Result<Vec<u8>, CniError> {
        let mut environment = self.environment(command);
        // A namespace that is gone, after a reboot for example, has an empty name: DEL then frees what is outside it.
        let gone = command == Command::Del && !netns::is_namespace(&pod.netns);
        let netns = if gone { String::new() } else { pod.netns.display().to_string() };
        environment.extend([
            ("CNI_CONTAINERID", pod.sandbox_id.to_string()),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", POD_INTERFACE.into()),
            ("CNI_ARGS", pod.cni_args()?),
        ]);
        let input = configuration(network, plugin, pod, previous);
        let output = self.run(command, network, plugin, &environment, input).await;
        tracing::debug!(
            sandbox = %pod.sandbox_id, network = network.name, plugin = plugin.kind,
            command = command.name(), ok = output.is_ok(), "CNI plugin ended"
        );
        output
    }

    async fn run(
        &self,
        command: Command,
        network: &NetworkConfig,
        plugin: &PluginConfig,
        environment: &[(&'static str, String)],
        input: Map<String, Value>,
    ) -> Result<Vec<u8>, CniError> {
        let program = self.find(network, plugin)?;
        let limit = match command {
            Command::Status => self.timeout.min(STATUS_TIMEOUT),
            Command::Add | Command::Del | Command::Check | Command::Gc => self.timeout,
        };
        let input = Value::Object(input).to_string();
        let output = plugin::run(&program, environment, input.as_bytes(), limit).await;
        output.map_err(|source| failed(network, plugin, command, source))
    }

    fn environment(&self, command: Command) -> Vec<(&'static str, String)> {
        vec![("CNI_COMMAND", command.name().into()), ("CNI_PATH", self.path())]
    }
}

/// A plugin's configuration, with what the specification adds to it whatever it is asked to do.
fn common(network: &NetworkConfig, plugin: &PluginConfig) -> Map<String, Value> {
    let mut conf = plugin.conf.clone();
    conf.insert("name".into(), network.name.as_str().into());
    conf.insert("cniVersion".into(), network.version.into());
    conf
}

/// And with what it is told of a pod.
fn configuration(
    network: &NetworkConfig,
    plugin: &PluginConfig,
    pod: &PodNetwork,
    previous: Option<&Value>,
) -> Map<String, Value> {
    let mut conf = common(network, plugin);
    let arguments = pod.arguments.all().into_iter();
    let told: Map<String, Value> = arguments
        .filter(|argument| plugin.is_capable_of(argument.capability))
        .map(|argument| (argument.capability.to_owned(), argument.value))
        .collect();
    if !told.is_empty() {
        conf.insert("runtimeConfig".into(), told.into());
    }
    if let Some(previous) = previous {
        conf.insert("prevResult".into(), previous.clone());
    }
    conf
}

fn failed(network: &NetworkConfig, plugin: &PluginConfig, command: Command, source: PluginError) -> CniError {
    CniError::Plugin {
        network: network.name.clone(),
        plugin: plugin.kind.clone(),
        command: command.name(),
        source: Box::new(source),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bandwidth, PortMapping, Protocol, pod::tests::pod};

    #[test]
    fn a_plugin_is_told_the_network_the_result_so_far_and_only_what_it_is_capable_of() {
        let list = json!({"name": "n", "cniVersion": "1.0.0", "plugins": [
            {"type": "bridge", "name": "mine"},
            {"type": "portmap", "capabilities": {"portMappings": true, "bandwidth": false}}]});
        let network = NetworkConfig::parse("/x".into(), list).unwrap();
        let mut pod = pod("/run/netns/x");
        pod.arguments.port_mappings =
            vec![PortMapping { protocol: Protocol::Tcp, container_port: 80, host_port: 8080, host_ip: None }];
        pod.arguments.bandwidth = Some(Bandwidth { ingress: Some(1000), egress: None });

        let bridge = configuration(&network, &network.plugins[0], &pod, None);
        assert_eq!(Value::Object(bridge), json!({"type": "bridge", "name": "n", "cniVersion": "1.0.0"}));
        let previous = json!({"ips": []});
        let portmap = configuration(&network, &network.plugins[1], &pod, Some(&previous));
        assert_eq!(portmap["prevResult"], previous);
        assert_eq!(
            portmap["runtimeConfig"],
            json!({"portMappings": [{"protocol": "tcp", "containerPort": 80, "hostPort": 8080}]})
        );
    }
}
