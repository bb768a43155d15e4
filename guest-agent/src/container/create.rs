//! Making a container: root filesystem, specification, streams, init process.

use std::{
    collections::HashMap,
    fs,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex},
    time::Duration,
};

use a3s_box_proto::ids::ContainerId;
use oci_spec::runtime::{Mount, Spec};

use super::{
    Container, Containers, State,
    give_up::{give_up, undo},
    process_spec, spec, user,
};
use crate::{
    cgroup::Cgroup,
    error::{Error, Failed, For, Object, Step, blocking},
    init::sysctl,
    paths,
    process::{
        Process,
        seccomp::Filter,
        stdio::{self, Stdio, Streams},
        zygote::{self, Conversation, Create, Reply, Request},
    },
    rootfs::{self, Rootfs, Storage, lookup::Root},
    volume::{self, block::Disk},
};

/// libcontainer's work, with a large margin for a host that is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A container that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// Its name.
    pub id: ContainerId,
    /// OCI runtime configuration, JSON.
    pub spec: Vec<u8>,
    /// Its root filesystem.
    pub rootfs: rootfs::Wanted,
    /// Where set, it replaces the specification's user.
    pub user: Option<user::Wanted>,
    /// It reads from the host.
    pub stdin: bool,
    /// The block devices that the specification names by their numbers on the host.
    pub disks: Vec<Disk>,
}

/// What has been made of it on the file systems.
struct Prepared {
    spec: Spec,
    rootfs: Rootfs,
    filter: Option<Filter>,
}

impl Containers {
    /// Makes a container, whose init process then waits for the start. Repeated, it answers the same again.
    pub async fn create(&self, wanted: Wanted) -> Result<user::Resolved, Error> {
        let fingerprint = super::fingerprint(&wanted);
        let slot = self.slot(&wanted.id);
        let mut place = slot.lock().await;
        if let Some(existing) = &*place {
            return if existing.fingerprint == fingerprint {
                Ok(existing.user())
            } else {
                Err(Error::AlreadyExists(Object::Container(wanted.id)))
            };
        }
        let id = wanted.id.clone();
        let made = self.make(wanted, fingerprint).await;
        let outcome = match made {
            Ok(container) => {
                let container = Arc::new(container);
                self.map().insert(id.clone(), Arc::clone(&container));
                tracing::debug!(container = %id, pid = container.init.pid(), "created");
                let user = container.user();
                *place = Some(container);
                Ok(user)
            }
            Err(error) => Err(error),
        };
        drop(place);
        drop(slot);
        self.tidy_slot(&id);
        outcome
    }

    async fn make(&self, wanted: Wanted, fingerprint: u64) -> Result<Container, Error> {
        let object = || Object::Container(wanted.id.clone());
        let spec = spec::parse(&wanted.spec)?;
        let pid_namespace = self.pid_namespace(spec::pids(&spec)?).await.map_err(|error| match error {
            Error::Failed { source, .. } => Error::Failed { object: object(), source },
            other => other,
        })?;
        let sysctls = spec.linux().as_ref().and_then(|linux| linux.sysctl().clone()).unwrap_or_default();
        let mut spec = spec::adapt(spec, &wanted.id, pid_namespace)?;
        spec::renumber(&mut spec, &appeared(wanted.disks.clone()).await.of(object)?);
        let storage = Arc::clone(&self.storage);
        let (id, want_rootfs, want_user) = (wanted.id.clone(), wanted.rootfs.clone(), wanted.user.clone());
        let prepare = move || Ok(prepare(&storage, &id, &want_rootfs, want_user.as_ref(), spec, &sysctls));
        let prepared = blocking(prepare).await.of(object)??;
        let oom_kills = Cgroup::of_pod().oom_kills();
        match self.launch(&wanted, &prepared).await.of(object) {
            Ok((init, conversation)) => Ok(Container {
                cgroup: Cgroup::of_container(&wanted.id),
                id: wanted.id,
                fingerprint,
                spec: prepared.spec,
                rootfs: prepared.rootfs,
                init: Arc::new(init),
                filter: prepared.filter,
                execs: Mutex::new(HashMap::new()),
                state: tokio::sync::RwLock::new(State::Created(conversation)),
            }),
            Err(error) => {
                let killed = Cgroup::of_pod().oom_kills() > oom_kills;
                let (storage, id) = (Arc::clone(&self.storage), wanted.id.clone());
                let given_up = blocking(move || {
                    Ok(give_up(&storage, &id, &prepared.rootfs, &prepared.spec, killed, error))
                })
                .await;
                match given_up.of(object) {
                    Ok(error) | Err(error) => Err(error),
                }
            }
        }
    }

    async fn launch(&self, wanted: &Wanted, prepared: &Prepared) -> Result<(Process, Conversation), Failed> {
        let process =
            prepared.spec.process().as_ref().ok_or_else(|| Failed::because("create", "no process"))?;
        let (uid, gid) = (process.user().uid(), process.user().gid());
        let terminal = process.terminal().unwrap_or(false);
        let (stdio, ends) = if terminal {
            (None, stdio::placeholders()?)
        } else {
            // Who attaches may want the outputs, though nobody else does.
            let streams = Streams { stdin: wanted.stdin, stdout: true, stderr: true };
            let (stdio, ends) = stdio::pipes(uid, gid, streams)?;
            (Some(stdio), ends)
        };
        let request = Request::Create(Box::new(Create {
            id: wanted.id.to_string(),
            bundle: paths::bundle(&wanted.id),
            terminal,
            oom_score_adj: process.oom_score_adj().unwrap_or(0),
            program: process_spec::program(&wanted.id, process, prepared.filter.clone()),
        }));
        let launch = self.reaper.launch();
        let conversation = {
            let fds = ends.0.each_ref().map(AsFd::as_fd);
            self.zygote.ask(&request, &fds)?
        };
        // Only the process's own copies may keep its pipes open.
        drop(ends);
        let made = tokio::time::timeout(PATIENCE, made(&conversation)).await;
        let (pid, master) = made.map_err(|_| {
            Failed::because("create the container's process", format!("no answer within {PATIENCE:?}"))
        })??;
        let stdio = stdio.map_or_else(|| Stdio::of_sent_terminal(master, uid, wanted.stdin), Ok);
        Process::adopt(pid, &launch, stdio).map(|process| (process, conversation))
    }
}

/// Reads replies up to the process's id; a terminal may come first.
async fn made(conversation: &Conversation) -> Result<(i32, Option<OwnedFd>), Failed> {
    let mut terminal = None;
    loop {
        match conversation.next().await? {
            Some((Reply::Terminal, Some(master))) => terminal = Some(master),
            Some((Reply::Made(pid), _)) => return Ok((pid, terminal)),
            other => return Err(zygote::unexpected("create the container's process", other)),
        }
    }
}

/// Waits for disks; answers their numbers here, by those on the host.
async fn appeared(disks: Vec<Disk>) -> Result<HashMap<spec::Number, spec::Number>, Failed> {
    if disks.is_empty() {
        return Ok(HashMap::new());
    }
    blocking(move || disks.into_iter().map(|disk| Ok((disk.host, disk.appeared()?))).collect()).await
}

/// All that waits for disks: mounts, user lookup, the bundle. The kernel parameters are the pod's, whose namespaces the
/// container shares.
fn prepare(
    storage: &Storage,
    id: &ContainerId,
    wanted: &rootfs::Wanted,
    user: Option<&user::Wanted>,
    spec: Spec,
    sysctls: &HashMap<String, String>,
) -> Result<Prepared, Error> {
    let object = || Object::Container(id.clone());
    sysctl::set_asked(sysctls)?;
    let profile = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    let filter = profile.map(Filter::compile).transpose()?;
    let rootfs = match storage.mount(id, wanted) {
        Ok(rootfs) => rootfs,
        Err(error) => {
            let _ = fs::remove_dir_all(paths::bundle(id));
            return Err(error).of(object);
        }
    };
    match complete(storage, id, user, spec) {
        Ok(spec) => Ok(Prepared { spec, rootfs, filter }),
        Err(error) => {
            undo(storage, id, &rootfs).of(object)?;
            Err(error)
        }
    }
}

fn complete(
    storage: &Storage,
    id: &ContainerId,
    user: Option<&user::Wanted>,
    mut spec: Spec,
) -> Result<Spec, Error> {
    let object = || Object::Container(id.clone());
    let root = Root::open(&paths::rootfs(id)).of(object)?;
    if let Some(process) = spec.process_mut() {
        let resolved = match user {
            Some(wanted) => user::resolve(&root, wanted)?,
            None => process_spec::user_of(process),
        };
        process_spec::set_user(process, &resolved, || user::home(&root, resolved.uid))?;
        process_spec::normalise(process);
        // While the image can be written. What lies in a volume is made at the start; what cannot be made, entering it tells.
        let _ = root.create_directories(process.cwd());
    }
    for mount in spec.mounts_mut().iter_mut().flatten() {
        if let Some(volume) = spec::image_volume(mount)? {
            spec::show(mount, storage.image_volume(&volume).of(object)?);
        }
        enter_source(mount).of(object)?;
    }
    let file = paths::bundle(id).join("config.json");
    let json = serde_json::to_vec(&spec::for_libcontainer(&spec))
        .step(|| format!("write {}", file.display()))
        .of(object)?;
    fs::write(&file, json).step(|| format!("write {}", file.display())).of(object)?;
    Ok(spec)
}

/// libcontainer would only say that it could not prepare the root filesystem.
fn enter_source(mount: &Mount) -> Result<(), Failed> {
    if let Some(source) = mount.source()
        && spec::is_bind(mount)
    {
        volume::enter(source)
            .step(|| format!("mount {} at {}", source.display(), mount.destination().display()))?;
    }
    Ok(())
}

impl Container {
    /// Who its init process runs as.
    pub fn user(&self) -> user::Resolved {
        self.spec
            .process()
            .as_ref()
            .map_or(user::Resolved { uid: 0, gid: 0, groups: Vec::new() }, process_spec::user_of)
    }
}
