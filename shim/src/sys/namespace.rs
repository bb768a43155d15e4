//! Mount and network namespaces.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};

use super::{mount, thread::apart};

/// The mount namespace that the shim was started in. Paths of the node (volumes, layers, network namespaces) are
/// looked up there: mounts that are made after the shim's start need not reach the shim's own namespace.
#[derive(Debug, Clone)]
pub struct HostNamespace(Arc<File>);

impl HostNamespace {
    /// Remembers the calling thread's mount namespace.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub fn capture() -> io::Result<Self> {
        Ok(Self(Arc::new(File::open("/proc/thread-self/ns/mnt")?)))
    }

    /// Runs work in that namespace, on a thread of its own.
    ///
    /// # Errors
    /// The namespace cannot be entered, or the work fails.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let namespace = self.0.clone();
        apart("host-mounts", move || {
            enter_mounts(namespace.as_fd())?;
            work()
        })
        .await?
    }

    /// That of another process.
    ///
    /// # Errors
    /// The process is gone.
    pub fn of(pid: u32) -> io::Result<Self> {
        Ok(Self(Arc::new(File::open(format!("/proc/{pid}/ns/mnt"))?)))
    }

    /// Runs work in a copy of that namespace which ends with the work: what it mounts, nobody else sees.
    ///
    /// # Errors
    /// The copy cannot be made, or the work fails.
    pub async fn run_in_copy<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.run(move || {
            unshare(UnshareFlags::NEWNS)?;
            mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
            work()
        })
        .await
    }
}

/// Gives the process a mount namespace of its own, which receives the host's mounts and sends none back. Must run
/// before there are other threads.
///
/// Of the mounts that exist now, only those stay which hold a path of `needed` or belong to the kernel: a copy of a
/// volume's or of another pod's mount would keep its device or network namespace busy after the host unmounted it.
///
/// # Errors
/// The namespace cannot be made.
pub fn enter_own_mounts(needed: &[PathBuf]) -> io::Result<()> {
    unshare(UnshareFlags::NEWNS)?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    let points = mount::table()?;
    let kept = mount::holding(&points, needed);
    for point in points.iter().rev() {
        if !kept.contains(&point.path) && !point.is_of_the_kernel() {
            // A mount below one that went before is gone already.
            let _ = unmount(&point.path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
    }
    Ok(())
}

/// Moves the calling thread to a network namespace.
///
/// # Errors
/// The file is none.
pub fn enter_network(namespace: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?)
}

/// Opens a namespace's file by its path on the node.
///
/// # Errors
/// It is not there.
pub async fn open(host: &HostNamespace, path: &Path) -> io::Result<File> {
    let path = path.to_owned();
    host.run(move || File::open(path)).await
}

fn enter_mounts(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // setns(2) demands that root and working directory are this thread's alone.
    unshare(UnshareFlags::FS)?;
    Ok(move_into_link_name_space(namespace, Some(LinkNameSpaceType::Mount))?)
}

fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: neither flag used in this file (FS, NEWNS) takes the file descriptor table from the thread, which is
    // what the function is unsafe for.
    Ok(unsafe { unshare_unsafe(flags) }?)
}
