//! All that a pod holds on the host, and how it is given back: in the reverse order, from any point of its making.

use std::{fs, io, sync::Arc, time::Duration};

use tracing::warn;

use super::{layout::Layout, record::Record};
use crate::{
    cgroup::{Cgroup, Origin},
    device::vsock,
    rootfs::shared_dir::SharedDir,
    sys::{file::absent_is_fine, process::Supervised, thread::blocking, uid::Uid},
    vm::Vm,
};

/// A VMM that is asked to end does so in milliseconds, or is killed.
const QUIT_BOUND: Duration = Duration::from_millis(300);

/// What was acquired so far.
pub struct Resources {
    layout: Layout,
    /// The cgroup that this process joined.
    pub cgroup: Option<Cgroup>,
    /// The VMM's user id.
    pub uid: Option<Uid>,
    /// The shared directory, mounted.
    pub share: Option<SharedDir>,
    /// virtiofsd's process id.
    pub share_daemon: Option<u32>,
    /// virtiofsd and the vsock backend.
    pub helpers: Vec<Arc<Supervised>>,
    /// The VMM.
    pub vm: Option<Arc<dyn Vm>>,
}

impl Resources {
    /// Nothing yet.
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            cgroup: None,
            uid: None,
            share: None,
            share_daemon: None,
            helpers: Vec::new(),
            vm: None,
        }
    }

    /// Writes down what `delete` would have to clean up if this process died now.
    ///
    /// # Errors
    /// The file system fails.
    pub fn record(&self) -> io::Result<()> {
        let own = crate::sys::process::Identity::of(std::process::id().cast_signed());
        let helpers = self.helpers.iter().map(|helper| helper.identity());
        let vm = self.vm.iter().map(|vm| vm.process());
        let record = Record {
            processes: own.into_iter().chain(helpers).chain(vm).collect(),
            cgroup: self.cgroup.clone().unwrap_or_default(),
            uid: self.uid.as_ref().map(Uid::number),
        };
        record.write(&self.layout.record())
    }

    /// Ends the pod's processes and waits until they are reaped.
    pub async fn end_processes(&mut self) {
        if let Some(vm) = self.vm.take() {
            vm.stop(QUIT_BOUND).await;
        }
        for helper in std::mem::take(&mut self.helpers) {
            helper.kill().await;
        }
    }

    /// Gives everything back. What fails is logged, and the rest goes on; the record then stays, by which `delete` can try
    /// again.
    pub async fn release(mut self, origin: &Origin) {
        self.end_processes().await;
        let origin = origin.clone();
        let released = blocking(move || {
            let mut clean = self.release_files();
            if let Some(cgroup) = self.cgroup.take() {
                clean &= report("cgroup", cgroup.leave(&origin));
            }
            // After the cgroup, which is empty now: nothing of its user is left.
            drop(self.uid.take());
            if clean {
                report("record", absent_is_fine(fs::remove_file(self.layout.record())));
            }
            Ok(())
        });
        report("resources", released.await);
    }

    /// Whether all are given back.
    fn release_files(&mut self) -> bool {
        let share = self.share.take().map_or(Ok(()), SharedDir::remove);
        let released = [
            report("shared directory", share),
            report("vsock directory", vsock::remove(&self.layout.vsock())),
            report("scratch disk", absent_is_fine(fs::remove_dir_all(&self.layout.disk))),
        ];
        released.into_iter().all(|released| released)
    }
}

/// Whether it was released.
fn report(what: &str, result: io::Result<()>) -> bool {
    let Err(error) = result else { return true };
    warn!(what, %error, "was not released");
    false
}
