//! A container's end: first its processes and mounts, so that the host can take its volumes back, then its files.

use std::{
    fs, io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use a3s_box_proto::{
    ids::{ContainerId, ExecId},
    ports::SHARE_ROOTFS,
};
use tokio::time::timeout;

use super::{Container, Containers, State};
use crate::{
    cgroup::Cgroup,
    error::{Error, Failed, For, Object, Step, blocking},
    paths,
    rootfs::{self, Rootfs, Storage},
    volume,
};

/// A killed process that waits for the host (a file of a dead NFS server) cannot be waited for without end.
const PATIENCE: Duration = Duration::from_secs(10);
/// A program begins within milliseconds, or it waits for the host too.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// The kernel takes a container's mounts down in the background after its last process.
const MOUNT_PATIENCE: Duration = Duration::from_secs(5);
const MOUNT_POLL: Duration = Duration::from_millis(2);

impl Containers {
    /// Ends what is left of a container's processes, unmounts all it had, and drops the kernel's references.
    pub async fn release(&self, container: &Arc<Container>) -> Result<(), Error> {
        match timeout(START_PATIENCE, container.state.read()).await.as_deref() {
            Ok(State::Released) => return Ok(()),
            Ok(State::Started) if container.init.ended().is_none() => {
                return Err(container.precondition("it is running"));
            }
            // A start that takes so long hangs: its program's beginning is ended as well.
            Ok(_) | Err(_) => {}
        }
        let cgroup = container.cgroup.clone();
        // Before the state is held for writing: a start or an exec that hangs holds it, until it is killed.
        blocking(move || clear_processes(&cgroup)).await.of(|| container.object())?;
        let mut state = timeout(PATIENCE, container.state.write())
            .await
            .map_err(|_| container.precondition("a start, an exec or another release of it does not end"))?;
        if matches!(*state, State::Released) {
            return Ok(());
        }
        let (id, cgroup) = (container.id.clone(), container.cgroup.clone());
        let work = move || {
            clear_processes(&cgroup)?;
            unmount_all(&id)?;
            volume::drop_dentries()
        };
        blocking(work).await.of(|| container.object())?;
        *state = State::Released;
        tracing::debug!(container = %container.id, "released");
        Ok(())
    }

    /// Forgets a container with its writable layer. One that nobody knows is gone already.
    pub async fn delete(&self, id: &ContainerId) -> Result<(), Error> {
        let slot = self.slot(id);
        let mut place = slot.lock().await;
        let Some(container) = place.clone() else {
            drop(place);
            drop(slot);
            self.tidy_slot(id);
            return Err(Error::NotFound(Object::Container(id.clone())));
        };
        self.release(&container).await?;
        let storage = Arc::clone(&self.storage);
        let gone = Arc::clone(&container);
        blocking(move || remove_files(&storage, &gone.id, &gone.rootfs)).await.of(|| container.object())?;
        self.map().remove(id);
        *place = None;
        drop(place);
        drop(slot);
        self.tidy_slot(id);
        tracing::debug!(container = %id, "deleted");
        Ok(())
    }

    /// Forgets an exec that has ended.
    pub fn delete_exec(&self, id: &ContainerId, exec: &ExecId) -> Result<(), Error> {
        let container = self.get(id)?;
        let process = container.exec(exec)?;
        if process.ended().is_none() {
            let object = Object::Exec(id.clone(), exec.clone());
            return Err(Error::Precondition { object, why: "it is running".to_owned() });
        }
        container.execs().remove(exec);
        Ok(())
    }
}

/// Kills whatever is left in the cgroup.
pub(super) fn clear_processes(cgroup: &Cgroup) -> Result<(), Failed> {
    cgroup.kill(PATIENCE)
}

/// Unmounts what this container alone used.
pub(super) fn unmount_all(id: &ContainerId) -> Result<(), Failed> {
    let target = paths::rootfs(id);
    let deadline = Instant::now() + MOUNT_PATIENCE;
    while !rootfs::unmount(&target)? {
        if Instant::now() > deadline {
            return Err(Failed::because(format!("unmount {}", target.display()), "it is still in use"));
        }
        volume::pause(MOUNT_POLL);
    }
    volume::unmount_below(&Path::new(paths::SHARE).join(SHARE_ROOTFS).join(id.as_str()))
}

/// Removes cgroup, writable layer, libcontainer's state and the bundle.
pub(super) fn remove_files(storage: &Storage, id: &ContainerId, rootfs: &Rootfs) -> Result<(), Failed> {
    Cgroup::of_container(id).remove()?;
    storage.discard(rootfs)?;
    for directory in [Path::new(paths::STATE).join(id.as_str()), paths::bundle(id)] {
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.step(|| format!("remove {}", directory.display()))?,
        }
    }
    Ok(())
}
