//! A container: made, started, ended, forgotten.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use a3s_box_proto::{
    agent::{CreateContainerRequest, User, UserLookup},
    ids::{ContainerId, ExecId},
};
use tracing::{info, warn};

use super::{
    Pod,
    container_spec::{self, ContainerSpec},
    exec::Exec,
    exit::Exit,
    holdings::{Acquired, Holdings},
    process::{DRAIN_BOUND, KILL, Process},
    sandbox::Sandbox,
};
use crate::{
    agent::ProcessRef,
    error::{Result, Step},
    io::{
        self, Opened, Stdio,
        cri_log::LogFile,
        hub::{Hub, Input},
    },
    rootfs::mounted::RootMount,
};

/// What a container is made of.
#[derive(Debug)]
pub struct Wanted {
    /// Its id.
    pub id: ContainerId,
    /// The directory with its `config.json`, and where its exit is recorded.
    pub bundle: PathBuf,
    /// Its root filesystem.
    pub rootfs: Rootfs,
    /// Its standard streams.
    pub stdio: Stdio,
    /// Where its input comes from when `stdio` names nothing.
    pub input: Input,
    /// Its user by name, where that must be looked up in the container.
    pub user: Option<UserLookup>,
}

/// A root filesystem.
#[derive(Debug)]
pub enum Rootfs {
    /// EROFS files, lowest layer first, below the pod's scratch disk.
    Layers(Vec<PathBuf>),
    /// Mounts that the host makes.
    Mounts(Vec<RootMount>),
}

/// A container.
pub struct Container {
    /// Its id.
    pub id: ContainerId,
    /// Its directory on the host.
    pub bundle: PathBuf,
    /// Its first process.
    pub process: Process,
    /// The processes that were run in it besides.
    pub execs: Mutex<BTreeMap<ExecId, Arc<Exec>>>,
    /// Who its first process is.
    pub user: User,
    /// When it was made.
    pub created: SystemTime,
    /// Who is attached to it.
    pub hub: Hub,
    /// Its log file, where its output goes to one.
    pub log: Option<Arc<LogFile>>,
    /// The open streams, until it starts.
    opened: Mutex<Option<Opened>>,
    pub(super) held: tokio::sync::Mutex<Option<Holdings>>,
}

impl Container {
    /// Makes a container in the guest. After an error nothing of it is left.
    ///
    /// # Errors
    /// Its specification, a volume, a layer or the agent.
    pub async fn create(pod: &Pod, sandbox: &Sandbox, wanted: Wanted) -> Result<Self> {
        let json = container_spec::read(&pod.host, &wanted.bundle).await?;
        let mut spec = ContainerSpec::parse(&json, &pod.id)?;
        if sandbox.caller.is_containerd() {
            spec.add_pod_objects();
        }
        let opened = io::open(&pod.host, &wanted.stdio).await.step(|| format!("container {}", wanted.id))?;
        let (hub, opened) = Hub::join(opened, wanted.input, wanted.stdio.terminal);
        let mut held = Holdings::default();
        match create_in_guest(pod, sandbox, &wanted, spec, &mut held).await {
            Ok(user) => Ok(Self {
                process: Process::new(ProcessRef { container: wanted.id.clone(), exec: None }, wanted.stdio),
                id: wanted.id,
                bundle: wanted.bundle,
                execs: Mutex::default(),
                user,
                created: SystemTime::now(),
                hub,
                log: opened.log.clone(),
                opened: Mutex::new(Some(opened)),
                held: tokio::sync::Mutex::new(Some(held)),
            }),
            Err(error) => {
                held.give_back(sandbox, &wanted.id).await;
                Err(error)
            }
        }
    }

    /// Starts its process, and watches over it.
    ///
    /// # Errors
    /// It was started before; or the program cannot be run: then the container has ended with code 128.
    pub async fn start(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        self.process.begin_start()?;
        if let Some(opened) = self.take_opened() {
            self.process.attach(sandbox, opened);
        }
        if let Err(error) = sandbox.agent.start_container(&self.id).await {
            let exit = match sandbox.death_message() {
                Some(message) => Exit::with_sandbox(message),
                None => Exit::not_started(error.to_string()),
            };
            self.end(sandbox, exit).await;
            return Err(error.into());
        }
        let started = self.process.running();
        info!(container = %self.id, "started");
        tokio::spawn(self.clone().supervise(sandbox.clone(), started));
        Ok(())
    }

    /// Sends a signal to a container that was not started: its process waits, and ends by SIGKILL alone.
    ///
    /// # Errors
    /// The agent fails.
    pub async fn signal_unstarted(
        self: &Arc<Self>,
        sandbox: &Arc<Sandbox>,
        signal: u32,
        all: bool,
    ) -> Result<()> {
        sandbox.agent.signal(&self.process.reference, signal, all).await?;
        // Whoever has begun to start it meanwhile finds that it has ended.
        if signal == KILL && self.process.begin_start().is_ok() {
            tokio::spawn(self.clone().supervise(sandbox.clone(), SystemTime::now()));
        }
        Ok(())
    }

    async fn supervise(self: Arc<Self>, sandbox: Arc<Sandbox>, started: SystemTime) {
        let exit = self.process.outcome(&sandbox, started).await;
        self.end(&sandbox, exit).await;
    }

    fn take_opened(&self) -> Option<Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// All that follows an end, before anybody is told: the log is whole, the record is on disk, volumes are free.
    async fn end(&self, sandbox: &Sandbox, exit: Exit) {
        drop(self.take_opened());
        let drain = if sandbox.death_message().is_some() { Duration::ZERO } else { DRAIN_BOUND };
        self.hub.hurry();
        self.process.drain(drain).await;
        self.hub.end();
        for exec in self.execs.lock().unwrap_or_else(PoisonError::into_inner).values() {
            exec.process.close_stdin();
        }
        if let Err(error) = exit.write(&sandbox.host, &self.bundle).await {
            warn!(container = %self.id, %error, "the exit record was not written");
        }
        self.free(sandbox).await;
        let log_dropped = self.log.as_ref().map_or(0, |log| log.dropped());
        info!(container = %self.id, code = exit.code, reason = exit.reason, log_dropped, "exited");
        if exit.is_out_of_memory() {
            sandbox.caller.out_of_memory(&sandbox.host, &self.id).await;
        }
        self.process.exited(exit);
    }

    /// Gives volumes and layers back. Once is enough.
    pub(super) async fn free(&self, sandbox: &Sandbox) {
        let Some(held) = self.held.lock().await.take() else { return };
        if sandbox.death_message().is_some() {
            // The shared directory goes as a whole, with the VM.
            return;
        }
        if let Err(error) = sandbox.agent.release(&self.id).await {
            warn!(container = %self.id, %error, "the guest did not release the container");
        }
        held.give_back(sandbox, &self.id).await;
    }

    /// Forgets a container that does not run; answers how it ended.
    ///
    /// # Errors
    /// It runs, or the agent fails.
    pub async fn delete(&self, sandbox: &Sandbox) -> Result<Option<Exit>> {
        let exit = self.process.ended()?;
        self.process.cut();
        // Of a container that was never started, the guest has all until now.
        self.free(sandbox).await;
        if sandbox.death_message().is_none() {
            sandbox.agent.delete(&self.process.reference).await?;
        }
        sandbox.layers.lock().await.sweep(&sandbox.share).await;
        Ok(exit)
    }

    /// Whether its volumes may still be in use.
    pub async fn holds_volumes(&self) -> bool {
        self.held.lock().await.is_some()
    }
}

async fn create_in_guest(
    pod: &Pod,
    sandbox: &Sandbox,
    wanted: &Wanted,
    spec: ContainerSpec,
    held: &mut Holdings,
) -> Result<User> {
    let Acquired { rootfs, volumes, images, disks } = held.acquire(pod, sandbox, wanted, &spec).await?;
    let request = CreateContainerRequest {
        spec: spec.finish(&volumes, &images)?,
        rootfs: Some(rootfs),
        user: wanted.user.clone().into(),
        disks,
        stdin: wanted.stdio.stdin.is_some() || wanted.input != Input::None,
        ..CreateContainerRequest::default()
    };
    Ok(sandbox.agent.create_container(&wanted.id, request).await?)
}
