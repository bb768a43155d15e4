//! The pod's tasks, as containerd calls them: its containers, and the pause container that stands for the pod.

use std::{
    path::Path,
    sync::{Arc, MutexGuard, PoisonError},
};

use a3s_box_proto::ids::ContainerId;

use super::{
    Phase, Pod,
    container::{Container, Wanted},
    container_spec,
    sandbox::Sandbox,
    spec::PodSpec,
};
use crate::error::{Error, Result};

/// The place of a task.
#[derive(Clone)]
pub(super) enum Slot {
    /// Somebody is making a container of this id.
    Reserved,
    /// A container.
    Container(Arc<Container>),
    /// containerd's pause container, of which nothing runs: the pod itself.
    Pause,
}

/// A task.
#[derive(Clone)]
pub enum Task {
    /// A container.
    Container(Arc<Container>),
    /// The pod itself.
    Pause,
}

impl Pod {
    /// The VM, where containers may be made and run.
    ///
    /// # Errors
    /// The pod is not ready.
    pub fn ready(&self, action: &'static str) -> Result<Arc<Sandbox>> {
        match self.phase() {
            Phase::Ready(sandbox) => Ok(sandbox),
            _ => Err(self.wrong_phase(action)),
        }
    }

    /// The VM that a task belongs to, alive or not.
    ///
    /// # Errors
    /// There never was one.
    pub fn sandbox(&self) -> Result<Arc<Sandbox>> {
        match self.phase() {
            Phase::Created(sandbox) | Phase::Ready(sandbox) => Ok(sandbox),
            Phase::Stopped(ended) => {
                ended.sandbox.clone().ok_or_else(|| Error::NotFound(format!("the VM of pod {}", self.id)))
            }
            Phase::New | Phase::Booting => Err(Error::NotFound(format!("the VM of pod {}", self.id))),
        }
    }

    /// Makes a container. Its id is taken from the first moment.
    ///
    /// # Errors
    /// The id is taken, the pod is not ready, or the container cannot be made.
    pub async fn create_container(&self, wanted: Wanted) -> Result<()> {
        let sandbox = self.ready("create a container")?;
        let id = wanted.id.clone();
        self.reserve(&id)?;
        match Container::create(self, &sandbox, wanted).await {
            Ok(container) => {
                self.slots().insert(id, Slot::Container(Arc::new(container)));
                Ok(())
            }
            Err(error) => {
                self.slots().remove(&id);
                Err(error)
            }
        }
    }

    /// Makes the pod where the bundle is that of containerd's pause container, and says whether it was.
    ///
    /// # Errors
    /// The bundle cannot be read, or the pod cannot be made.
    pub async fn create_pause(self: &Arc<Self>, id: &ContainerId, bundle: &Path) -> Result<bool> {
        if id.as_str() != self.id.as_str() {
            return Ok(false);
        }
        let json = container_spec::read(&self.host, bundle).await?;
        let Some(pause) = container_spec::pause(&json)? else { return Ok(false) };
        self.create(PodSpec::from_pause(&pause, &self.config)?).await?;
        self.slots().insert(id.clone(), Slot::Pause);
        Ok(true)
    }

    fn reserve(&self, id: &ContainerId) -> Result<()> {
        let mut slots = self.slots();
        if slots.contains_key(id) {
            return Err(Error::AlreadyExists(format!("container {id}")));
        }
        slots.insert(id.clone(), Slot::Reserved);
        Ok(())
    }

    /// A task by its id.
    ///
    /// # Errors
    /// There is none, or it is not made yet: whoever wants it gone must ask again.
    pub fn task(&self, id: &str) -> Result<Task> {
        let id: ContainerId = id.parse()?;
        let object = format!("container {id}");
        match self.slots().get(&id) {
            Some(Slot::Container(container)) => Ok(Task::Container(container.clone())),
            Some(Slot::Pause) => Ok(Task::Pause),
            Some(Slot::Reserved) => {
                Err(Error::State { object, state: "being made".into(), action: "use it" })
            }
            None => Err(Error::NotFound(object)),
        }
    }

    /// A container by its id.
    ///
    /// # Errors
    /// There is none.
    pub fn container(&self, id: &str, action: &'static str) -> Result<Arc<Container>> {
        match self.task(id)? {
            Task::Container(container) => Ok(container),
            Task::Pause => Err(Error::State {
                object: format!("container {id}"),
                state: "the pod itself".into(),
                action,
            }),
        }
    }

    /// All containers, in the order of their ids.
    pub fn containers(&self) -> Vec<Arc<Container>> {
        let containers = |slot: &Slot| match slot {
            Slot::Container(container) => Some(container.clone()),
            Slot::Reserved | Slot::Pause => None,
        };
        self.slots().values().filter_map(containers).collect()
    }

    /// Whether nothing is left that would need the shim.
    pub fn has_no_tasks(&self) -> bool {
        self.slots().is_empty()
    }

    /// Forgets a task.
    pub fn forget(&self, id: &ContainerId) {
        self.slots().remove(id);
    }

    fn slots(&self) -> MutexGuard<'_, std::collections::BTreeMap<ContainerId, Slot>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
