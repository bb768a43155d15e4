//! The pod's containers: one file for each thing that can be done to one.

pub mod create;
pub mod delete;
pub mod exec;
mod give_up;
mod limits;
mod pid_namespace;
pub mod process_spec;
pub mod signal;
pub mod spec;
pub mod start;
pub mod stats;
pub mod terminate;
pub mod update;
pub mod user;
pub mod wait;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use a3s_box_proto::ids::{ContainerId, ExecId};
use oci_spec::runtime::Spec;

use crate::{
    cgroup::Cgroup,
    error::{Error, Object},
    process::{
        Process,
        reaper::Reaper,
        seccomp::Filter,
        zygote::{Conversation, Zygote},
    },
    rootfs::{Rootfs, Storage},
};

/// What a container is, whatever happens to it.
#[derive(Debug)]
pub struct Container {
    id: ContainerId,
    /// Tells a repeated request from another one of the same name.
    fingerprint: u64,
    /// As it was given to libcontainer, and with its user resolved.
    spec: Spec,
    rootfs: Rootfs,
    cgroup: Cgroup,
    init: Arc<Process>,
    /// Its seccomp profile, compiled.
    filter: Option<Filter>,
    execs: Mutex<HashMap<ExecId, Arc<ExecSlot>>>,
    /// Written by one start, one release, one deletion at a time; read while an exec is being made.
    state: tokio::sync::RwLock<State>,
}

/// What has been done with a container.
#[derive(Debug)]
enum State {
    /// The init process waits; the conversation ends when its program runs.
    Created(Conversation),
    /// It has been started. Whether it runs, its process tells.
    Started,
    /// Its program could not be run, and it never will.
    Failed,
    /// Its mounts are gone.
    Released,
}

/// An exec's name: one call at a time makes the process.
#[derive(Debug, Default)]
struct ExecSlot {
    making: tokio::sync::Mutex<()>,
    made: OnceLock<Exec>,
}

/// One more process.
#[derive(Debug)]
struct Exec {
    fingerprint: u64,
    process: Arc<Process>,
}

/// A name's place: held while a container of that name is being made or removed.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Container>>>>;

/// All containers of the pod, and what makes them.
#[derive(Debug)]
pub struct Containers {
    by_id: Mutex<HashMap<ContainerId, Arc<Container>>>,
    slots: Mutex<HashMap<ContainerId, Slot>>,
    zygote: Zygote,
    reaper: Arc<Reaper>,
    storage: Arc<Storage>,
    /// The init process of the PID namespace that containers share, once one of them asked for it.
    shared_pids: tokio::sync::Mutex<Option<i32>>,
}

impl Containers {
    /// None yet.
    pub fn new(zygote: Zygote, reaper: Arc<Reaper>, storage: Storage) -> Self {
        Self {
            by_id: Mutex::default(),
            slots: Mutex::default(),
            zygote,
            reaper,
            storage: Arc::new(storage),
            shared_pids: tokio::sync::Mutex::default(),
        }
    }

    /// Gets their storage ready, while the host is about to ask for the first of them. What fails here is tried again then,
    /// and is that call's error.
    pub fn get_storage_ready(&self) {
        let storage = Arc::clone(&self.storage);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = storage.prepare() {
                tracing::warn!("prepare for containers: {error}");
            }
        });
    }

    fn map(&self) -> MutexGuard<'_, HashMap<ContainerId, Arc<Container>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place of a name, for whoever is about to make or remove a container.
    fn slot(&self, id: &ContainerId) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.entry(id.clone()).or_default())
    }

    /// Gives a place back that holds nothing and that nobody waits for.
    fn tidy_slot(&self, id: &ContainerId) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let unused = slots.get(id).is_some_and(|slot| {
            Arc::strong_count(slot) == 1 && slot.try_lock().is_ok_and(|held| held.is_none())
        });
        if unused {
            slots.remove(id);
        }
    }

    /// A container by its name.
    pub fn get(&self, id: &ContainerId) -> Result<Arc<Container>, Error> {
        self.map().get(id).cloned().ok_or_else(|| Error::NotFound(Object::Container(id.clone())))
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Container>> {
        self.map().values().cloned().collect()
    }

    /// A container's init process, or one of its execs.
    pub fn process(&self, id: &ContainerId, exec: Option<&ExecId>) -> Result<Arc<Process>, Error> {
        let container = self.get(id)?;
        match exec {
            None => Ok(Arc::clone(&container.init)),
            Some(exec) => container.exec(exec),
        }
    }
}

impl Container {
    fn object(&self) -> Object {
        Object::Container(self.id.clone())
    }

    fn execs(&self) -> MutexGuard<'_, HashMap<ExecId, Arc<ExecSlot>>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn exec(&self, id: &ExecId) -> Result<Arc<Process>, Error> {
        let found =
            self.execs().get(id).and_then(|slot| slot.made.get()).map(|exec| Arc::clone(&exec.process));
        found.ok_or_else(|| Error::NotFound(Object::Exec(self.id.clone(), id.clone())))
    }

    /// Gives the name of an exec back that could not be made, unless somebody else waits to make it.
    fn tidy_exec(&self, id: &ExecId, slot: Arc<ExecSlot>) {
        let mut execs = self.execs();
        drop(slot);
        if execs.get(id).is_some_and(|slot| Arc::strong_count(slot) == 1 && slot.made.get().is_none()) {
            execs.remove(id);
        }
    }

    fn precondition(&self, why: &str) -> Error {
        Error::Precondition { object: self.object(), why: why.to_owned() }
    }

    /// Where the root filesystem is mounted.
    fn root_path(&self) -> PathBuf {
        crate::paths::rootfs(&self.id)
    }
}

/// A number that tells one request from another.
fn fingerprint(request: &impl std::hash::Hash) -> u64 {
    use std::hash::{DefaultHasher, Hasher};
    let mut hasher = DefaultHasher::new();
    request.hash(&mut hasher);
    hasher.finish()
}
