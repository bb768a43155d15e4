//! A network's plugins, one after the other: forwards to attach, backwards to detach.

use std::{path::PathBuf, time::Duration};

use serde_json::{Map, Value, json};

use crate::{
    CniError, PluginError, PodNetwork,
    attachment::POD_INTERFACE,
    cache::Record,
    config::{NetworkConfig, PluginConfig},
    netns, plugin,
};

/// The capability of forwarding ports of the host.
pub(crate) const PORT_MAPPINGS: &str = "portMappings";
/// The first version in which DEL is given the result of ADD.
const DEL_WITH_RESULT: &str = "0.4.0";

/// What a plugin is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Add,
    Del,
}

impl Command {
    fn name(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
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
            let output = self.run(Command::Add, network, plugin, pod, result.as_ref()).await?;
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
        let result = record.result.as_ref().filter(|_| network.version >= DEL_WITH_RESULT);
        for plugin in network.plugins.iter().rev() {
            self.run(Command::Del, network, plugin, &record.pod, result).await?;
        }
        Ok(())
    }

    /// Finds the program of every plugin of the chain.
    pub fn check(&self, network: &NetworkConfig) -> Result<(), CniError> {
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

    async fn run(
        &self,
        command: Command,
        network: &NetworkConfig,
        plugin: &PluginConfig,
        pod: &PodNetwork,
        previous: Option<&Value>,
    ) -> Result<Vec<u8>, CniError> {
        let program = self.find(network, plugin)?;
        let environment = self.environment(command, pod)?;
        let input = Value::Object(configuration(network, plugin, pod, previous)).to_string();
        let output = plugin::run(&program, &environment, input.as_bytes(), self.timeout).await;
        tracing::debug!(
            sandbox = %pod.sandbox_id, network = network.name, plugin = plugin.kind,
            command = command.name(), ok = output.is_ok(), "CNI plugin ended"
        );
        output.map_err(|source| failed(network, plugin, command, source))
    }

    fn environment(
        &self,
        command: Command,
        pod: &PodNetwork,
    ) -> Result<[(&'static str, String); 6], CniError> {
        // A namespace that is gone, after a reboot for example, has an empty name: DEL then frees what is outside it.
        let gone = command == Command::Del && !netns::is_namespace(&pod.netns);
        let netns = if gone { String::new() } else { pod.netns.display().to_string() };
        Ok([
            ("CNI_COMMAND", command.name().into()),
            ("CNI_CONTAINERID", pod.sandbox_id.to_string()),
            ("CNI_NETNS", netns),
            ("CNI_IFNAME", POD_INTERFACE.into()),
            ("CNI_ARGS", pod.cni_args()?),
            ("CNI_PATH", self.path()),
        ])
    }
}

/// A plugin's configuration, with what the specification adds to it at run time.
fn configuration(
    network: &NetworkConfig,
    plugin: &PluginConfig,
    pod: &PodNetwork,
    previous: Option<&Value>,
) -> Map<String, Value> {
    let mut conf = plugin.conf.clone();
    conf.insert("name".into(), network.name.as_str().into());
    conf.insert("cniVersion".into(), network.version.into());
    let ports = pod.host_ports();
    if plugin.is_capable_of(PORT_MAPPINGS) && !ports.is_empty() {
        conf.insert("runtimeConfig".into(), json!({ PORT_MAPPINGS: ports }));
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
    use crate::{PortMapping, Protocol, pod::tests::pod};

    #[test]
    fn a_plugin_is_told_the_network_the_result_so_far_and_only_what_it_is_capable_of() {
        let list = json!({"name": "n", "cniVersion": "1.0.0", "plugins": [
            {"type": "bridge", "name": "mine"},
            {"type": "portmap", "capabilities": {"portMappings": true, "bandwidth": false}}]});
        let network = NetworkConfig::parse("/x".into(), list).unwrap();
        let mut pod = pod("/run/netns/x");
        pod.port_mappings =
            vec![PortMapping { protocol: Protocol::Tcp, container_port: 80, host_port: 8080, host_ip: None }];

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
