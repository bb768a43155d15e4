//! `run`: a pod by hand, through the frontend that serves here.

use std::{
    fs,
    io::{Write, stderr, stdout},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use a3s_box_proto::{config::Config, cri};
use clap::Args;
use futures::future::select_all;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
    time::sleep,
};
use tonic::Status;

use super::{
    Configured, Failure,
    client::{Client, plain},
    follow::Follower,
    progress::step,
};
use crate::node::ids::new_id;

/// The period of a CPU quota, microseconds.
const CPU_PERIOD: i64 = 100_000;
/// Between two looks at the log and the container.
const POLL: Duration = Duration::from_millis(50);
/// Seconds that a container has between TERM and KILL.
const GRACE: i64 = 10;
/// After the death of a process by a signal, shells add its number to this.
const BY_SIGNAL: i32 = 128;

/// The pod to run.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(flatten)]
    configured: Configured,
    /// CPUs of the pod, also parts of one: 0.5.
    #[arg(long, value_name = "COUNT")]
    cpus: Option<f64>,
    /// Memory of the pod: bytes, or with K, M, G.
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    memory: Option<i64>,
    /// A variable of the environment; may be repeated.
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Forget the pod after it has ended.
    #[arg(long)]
    rm: bool,
    /// bridge: the pod network. none: loopback only.
    #[arg(long, value_name = "MODE")]
    network_mode: Option<String>,
    /// The runtime handler.
    #[arg(long, value_name = "NAME", default_value = "")]
    handler: String,
    /// The image.
    image: String,
    /// The command and its arguments, instead of the image's.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Runs the pod; the exit code is the container's.
pub fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let (_, config) = arguments.configured.load()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        let client = Client::connect(&config).await?;
        let mut pod = Pod::new(client, &config, arguments)?;
        let outcome = tokio::select! {
            outcome = pod.run_to_end() => outcome,
            number = interrupted() => {
                // Its terminal may be gone.
                let _ = writeln!(stderr(), "interrupted");
                pod.arguments.rm = true;
                number.map(|number| BY_SIGNAL + number)
            }
        };
        let cleaned = pod.clean_up(outcome.is_err()).await;
        let code = outcome?;
        cleaned?;
        Ok::<_, Failure>(code)
    })?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// Waits for Ctrl-C, for whoever else asks this process to end, or for its terminal's end; answers the signal's number.
async fn interrupted() -> Result<i32, Failure> {
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let mut signals = kinds.map(signal).into_iter().collect::<Result<Vec<_>, _>>()?;
    let received = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
    let (_, which, _) = select_all(received).await;
    Ok(kinds[which].as_raw_value())
}

struct Pod {
    client: Client,
    arguments: Arguments,
    name: String,
    logs: PathBuf,
    /// RunPodSandbox under way: the frontend makes the pod whether or not we wait for it.
    boot: Option<JoinHandle<Result<String, Status>>>,
    sandbox: Option<String>,
}

impl Pod {
    fn new(client: Client, config: &Config, arguments: Arguments) -> Result<Self, Failure> {
        let mut name = new_id()?;
        name.truncate(8);
        let name = format!("run-{name}");
        let logs = config.state_dir.join("run").join(&name);
        Ok(Self { client, arguments, name, logs, boot: None, sandbox: None })
    }

    async fn run_to_end(&mut self) -> Result<i32, Failure> {
        Box::pin(self.pull()).await?;
        let sandbox = self.sandbox_config();
        let request = cri::RunPodSandboxRequest {
            config: Some(sandbox.clone()),
            runtime_handler: self.arguments.handler.clone(),
        };
        let mut runtime = self.client.runtime.clone();
        self.boot = Some(tokio::spawn(async move {
            Ok(runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
        }));
        let id = step("booting the MicroVM".into(), self.booted()).await?;
        let container = step("starting the container".into(), Box::pin(self.start(&id, sandbox))).await?;
        self.follow(&container).await
    }

    /// The pod, when it is there. Cancel-safe.
    async fn booted(&mut self) -> Result<String, Failure> {
        if let Some(boot) = &mut self.boot {
            let answer = boot.await;
            self.boot = None;
            self.sandbox = Some(answer?.map_err(|status| plain(&status))?);
        }
        self.sandbox.clone().ok_or_else(|| "the pod was not asked for".into())
    }

    async fn pull(&mut self) -> Result<(), Failure> {
        let image = cri::ImageSpec { image: self.arguments.image.clone(), ..Default::default() };
        let known = cri::ImageStatusRequest { image: Some(image.clone()), verbose: false };
        let known = self.client.images.image_status(known).await.map_err(|status| plain(&status))?;
        if known.into_inner().image.is_some() {
            return Ok(());
        }
        let request = cri::PullImageRequest { image: Some(image), ..Default::default() };
        let pulling = self.client.images.pull_image(request);
        step(format!("pulling {}", self.arguments.image), Box::pin(pulling))
            .await
            .map_err(|status| plain(&status))?;
        Ok(())
    }

    fn sandbox_config(&self) -> cri::PodSandboxConfig {
        let mode = self.arguments.network_mode.clone();
        let annotations = mode.map(|mode| ("a3s.box/network-mode".to_owned(), mode));
        cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: self.name.clone(),
                uid: self.name.clone(),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: self.name.clone(),
            log_directory: self.logs.to_string_lossy().into_owned(),
            annotations: annotations.into_iter().collect(),
            linux: Some(cri::LinuxPodSandboxConfig { resources: self.resources(), ..Default::default() }),
            ..Default::default()
        }
    }

    fn resources(&self) -> Option<cri::LinuxContainerResources> {
        let Arguments { cpus, memory, .. } = self.arguments;
        if cpus.is_none() && memory.is_none() {
            return None;
        }
        Some(cri::LinuxContainerResources {
            cpu_period: if cpus.is_some() { CPU_PERIOD } else { 0 },
            // A float that is no quota saturates, and the frontend refuses it.
            cpu_quota: cpus.map_or(0, |cpus| (cpus * CPU_PERIOD as f64) as i64),
            memory_limit_in_bytes: memory.unwrap_or_default(),
            ..Default::default()
        })
    }

    async fn start(&mut self, sandbox: &str, pod: cri::PodSandboxConfig) -> Result<String, Failure> {
        let envs = self.arguments.env.iter();
        let envs = envs.map(|(key, value)| cri::KeyValue { key: key.clone(), value: value.clone().into() });
        let config = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: "main".into(), attempt: 0 }),
            image: Some(cri::ImageSpec { image: self.arguments.image.clone(), ..Default::default() }),
            command: self.arguments.command.clone(),
            envs: envs.collect(),
            log_path: "0.log".into(),
            linux: Some(cri::LinuxContainerConfig { resources: self.resources(), ..Default::default() }),
            ..Default::default()
        };
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(pod),
        };
        let runtime = &mut self.client.runtime;
        let created = runtime.create_container(request).await.map_err(|status| plain(&status))?;
        let container_id = created.into_inner().container_id;
        let request = cri::StartContainerRequest { container_id: container_id.clone() };
        runtime.start_container(request).await.map_err(|status| plain(&status))?;
        Ok(container_id)
    }

    async fn follow(&mut self, container: &str) -> Result<i32, Failure> {
        let mut log = Follower::open(&self.logs.join("0.log"))?;
        loop {
            let request = cri::ContainerStatusRequest { container_id: container.to_owned(), verbose: false };
            let answer =
                self.client.runtime.container_status(request).await.map_err(|status| plain(&status))?;
            // The status first: the log is whole when the exit is told.
            log.copy(&mut stdout().lock(), &mut stderr().lock())?;
            let status = answer.into_inner().status.unwrap_or_default();
            if status.state == cri::ContainerState::ContainerExited as i32 {
                if status.reason != "Completed" && status.reason != "Error" {
                    eprintln!("the container ended: {} {}", status.reason, status.message);
                }
                return Ok(status.exit_code);
            }
            sleep(POLL).await;
        }
    }

    async fn clean_up(&mut self, failed: bool) -> Result<(), Failure> {
        let remove = self.arguments.rm || failed;
        if let Some(id) = self.find().await? {
            let runtime = &mut self.client.runtime;
            let containers = cri::ContainerFilter { pod_sandbox_id: id.clone(), ..Default::default() };
            let request = cri::ListContainersRequest { filter: Some(containers) };
            let found = runtime.list_containers(request).await.map_err(|status| plain(&status))?;
            for container in found.into_inner().containers {
                let request = cri::StopContainerRequest { container_id: container.id, timeout: GRACE };
                runtime.stop_container(request).await.map_err(|status| plain(&status))?;
            }
            let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.clone() };
            runtime.stop_pod_sandbox(request).await.map_err(|status| plain(&status))?;
            if remove {
                let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.clone() };
                runtime.remove_pod_sandbox(request).await.map_err(|status| plain(&status))?;
            } else {
                eprintln!("pod {id} is stopped and kept; --rm would have removed it");
            }
        }
        if remove && self.logs.exists() {
            fs::remove_dir_all(&self.logs)?;
        }
        Ok(())
    }

    /// Our pod, also where the answer that named it did not come.
    async fn find(&mut self) -> Result<Option<String>, Failure> {
        // One that is being made is in no list yet.
        if let Ok(id) = self.booted().await {
            return Ok(Some(id));
        }
        let answer = self.client.runtime.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await;
        let pods = answer.map_err(|status| plain(&status))?.into_inner().items;
        let ours =
            pods.into_iter().find(|pod| pod.metadata.as_ref().is_some_and(|name| name.uid == self.name));
        Ok(ours.map(|pod| pod.id))
    }
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("NAME=VALUE is expected".into()),
    }
}

fn memory(text: &str) -> Result<i64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: i64 = number.parse().map_err(|_| format!("{text:?} is no size: 512M, 1G, …"))?;
    let factor = match unit {
        "" => 1,
        "K" | "Ki" | "k" => 1 << 10,
        "M" | "Mi" | "m" => 1 << 20,
        "G" | "Gi" | "g" => 1 << 30,
        _ => return Err(format!("{text:?} is no size: 512M, 1G, …")),
    };
    number.checked_mul(factor).filter(|bytes| *bytes > 0).ok_or_else(|| format!("{text:?} is out of range"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(memory("512M"), Ok(512 << 20));
        assert_eq!(memory("1Gi"), Ok(1 << 30));
        assert_eq!(memory("1000"), Ok(1000));
        for bad in ["", "M", "-1", "1T", "0", "99999999999G"] {
            assert!(memory(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn variables_have_names() {
        assert_eq!(variable("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert!(variable("=x").is_err() && variable("A").is_err());
    }
}
