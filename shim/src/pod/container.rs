//! A container: made, started, ended, forgotten.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use a3s_box_proto::{
    agent::{
        self, CreateContainerRequest, OverlayRootfs, SharedRootfs, User, UserLookup,
        create_container_request::Rootfs as RootfsMessage,
    },
    ids::{ContainerId, ExecId},
    ports::SHARE_ROOTFS,
};
use tracing::{info, warn};

use super::{
    Pod,
    container_spec::{self, ContainerSpec},
    exec::Exec,
    exit::Exit,
    process::{DRAIN_BOUND, KILL, Process, State},
    sandbox::Sandbox,
};
use crate::{
    agent::ProcessRef,
    error::{Error, Result, Step},
    io::{
        self, Opened, Stdio,
        cri_log::LogFile,
        hub::{Hub, Input},
    },
    rootfs::{
        layers::{self, MOST_LAYERS},
        mounted::{self, RootMount},
    },
    volume::{
        self, Shown,
        bind::{Forbidden, look_up},
        mirror::Limits,
        release::release,
    },
};

/// The most mounts of host paths and images of one container.
const MOST_VOLUMES: usize = 1024;

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
    pub(super) held: tokio::sync::Mutex<Option<Held>>,
}

/// What a container holds in the shared directory.
#[derive(Debug, Default)]
pub(super) struct Held {
    layers: Vec<String>,
    volumes: Vec<String>,
    /// The units of its block devices.
    blocks: Vec<u8>,
    /// A root filesystem that the host mounts.
    mounted: bool,
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
        let mut held = Held::default();
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
                give_back(sandbox, &wanted.id, held).await;
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
        let exit = tokio::select! {
            // The agent's calls end with the VM as well.
            biased;
            message = sandbox.died() => Exit::with_sandbox(message),
            told = sandbox.agent.wait(&self.process.reference) => match told {
                Ok(exit) => Exit::from_guest(exit, started),
                Err(error) => Exit::unknown(error.to_string()),
            },
        };
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
        give_back(sandbox, &self.id, held).await;
    }

    /// Forgets a container that does not run; answers how it ended.
    ///
    /// # Errors
    /// It runs, or the agent fails.
    pub async fn delete(&self, sandbox: &Sandbox) -> Result<Option<Exit>> {
        let exit = match self.process.state() {
            State::Created => None,
            State::Exited(_, exit) => Some(exit),
            State::Starting | State::Running(_) => return Err(self.process.wrong_state("delete")),
        };
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
    held: &mut Held,
) -> Result<User> {
    sandbox.allow(&wanted.id, spec.cpuset().clone()).await?;
    sandbox.weigh(&wanted.id, Some(spec.oom_score_adj())).await;
    let rootfs = attach_rootfs(pod, sandbox, wanted, held).await?;
    let volumes = attach_volumes(pod, sandbox, &wanted.id, &spec, held).await?;
    let images = attach_images(pod, sandbox, &wanted.id, &spec, held).await?;
    let disks = plug_disks(pod, sandbox, &spec, held).await?;
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

async fn attach_rootfs(
    pod: &Pod,
    sandbox: &Sandbox,
    wanted: &Wanted,
    held: &mut Held,
) -> Result<RootfsMessage> {
    let object = || format!("the root filesystem of container {}", wanted.id);
    match &wanted.rootfs {
        Rootfs::Layers(files) => {
            let layers = attach_layers(pod, sandbox, &object(), files, held).await?;
            Ok(RootfsMessage::Overlay(OverlayRootfs { layers, ..OverlayRootfs::default() }))
        }
        Rootfs::Mounts(mounts) => {
            held.mounted = true;
            let place = sandbox.share.rootfs(wanted.id.as_str());
            let mounted = mounted::attach(&pod.host, mounts.clone(), place).await;
            mounted.step(|| format!("mounting {}", object()))?;
            Ok(RootfsMessage::Shared(SharedRootfs {
                path: format!("{SHARE_ROOTFS}/{}", wanted.id),
                ..SharedRootfs::default()
            }))
        }
    }
}

/// Attaches the layers of one image; answers their names in the shared directory, in the same order.
async fn attach_layers(
    pod: &Pod,
    sandbox: &Sandbox,
    object: &str,
    files: &[PathBuf],
    held: &mut Held,
) -> Result<Vec<String>> {
    if files.is_empty() || files.len() > MOST_LAYERS {
        let reason = format!("it has {} layers: 1 to {MOST_LAYERS} are accepted", files.len());
        return Err(Error::invalid(object, reason));
    }
    let step = || format!("attaching {object}");
    let before = held.layers.len();
    // A disk that hangs here holds up no other container.
    let opened = layers::open(&pod.host, files).await.step(step)?;
    let attached = sandbox.layers.lock().await.attach(&sandbox.share, opened, &mut held.layers).await;
    attached.step(step)?;
    Ok(held.layers[before..].to_vec())
}

/// Attaches the images that a container mounts as volumes; answers the names of each one's layers.
async fn attach_images(
    pod: &Pod,
    sandbox: &Sandbox,
    id: &ContainerId,
    spec: &ContainerSpec,
    held: &mut Held,
) -> Result<Vec<Vec<String>>> {
    let object = format!("an image volume of container {id}");
    let mut images = Vec::new();
    for files in spec.images() {
        images.push(attach_layers(pod, sandbox, &object, files, held).await?);
    }
    Ok(images)
}

/// Attaches the host paths that a container mounts; answers what of the guest each mount shows.
async fn attach_volumes(
    pod: &Pod,
    sandbox: &Sandbox,
    id: &ContainerId,
    spec: &ContainerSpec,
    held: &mut Held,
) -> Result<Vec<Shown>> {
    if spec.binds().len() + spec.images().len() > MOST_VOLUMES {
        return Err(Error::invalid(format!("container {id}"), format!("more than {MOST_VOLUMES} mounts")));
    }
    let forbidden = Forbidden {
        directories: vec![pod.config.state_dir.clone(), pod.config.root_dir.clone()],
        except: pod.layout.run.clone(),
    };
    let limits = Limits::from(&pod.config.volumes);
    let mut shown = Vec::new();
    for bind in spec.binds() {
        // One that hangs holds up no other container.
        let found = look_up(&pod.host, bind.clone(), limits, &forbidden).await?;
        shown.push(sandbox.volumes.lock().await.attach(found, bind, &mut held.volumes).await?);
    }
    Ok(shown)
}

/// Plugs the block devices that a container uses.
async fn plug_disks(
    pod: &Pod,
    sandbox: &Sandbox,
    spec: &ContainerSpec,
    held: &mut Held,
) -> Result<Vec<agent::Disk>> {
    let mut disks = Vec::new();
    for block in spec.blocks() {
        let lun = sandbox.blocks.lock().await.plug(&pod.host, block, &mut held.blocks).await?;
        let (major, minor) = block.number;
        disks.push(agent::Disk { lun: lun.into(), major, minor, ..Default::default() });
    }
    Ok(disks)
}

async fn give_back(sandbox: &Sandbox, id: &ContainerId, held: Held) {
    sandbox.disallow(id).await;
    sandbox.weigh(id, None).await;
    let unused = sandbox.volumes.lock().await.let_go(&held.volumes);
    if !unused.is_empty() {
        if let Err(error) = sandbox.agent.release_volumes(unused.clone()).await {
            warn!(container = %id, %error, "the guest did not let go of its volumes");
        }
        volume::give_back(&sandbox.share, &unused).await;
    }
    if !held.blocks.is_empty() {
        sandbox.blocks.lock().await.release(&held.blocks).await;
    }
    if held.mounted
        && let Err(error) = release(sandbox.share.rootfs(id.as_str())).await
    {
        warn!(container = %id, %error, "the root filesystem is still in use");
    }
    sandbox.layers.lock().await.release(&sandbox.share, &held.layers).await;
}
