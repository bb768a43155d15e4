//! A pod's network namespace, bound to a file so that it outlives the process that made it.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use a3s_box_proto::ids::SandboxId;
use rustix::{
    io::Errno,
    mount::{UnmountFlags, mount_bind, unmount},
    thread::{UnshareFlags, unshare_unsafe},
};
use tokio::sync::oneshot;

/// The file system of namespaces, in the kernel's `linux/magic.h`.
const NSFS_MAGIC: u64 = 0x6e73_6673;
/// In every network namespace.
const LOOPBACK_INDEX: u32 = 1;
/// Setting an interface up takes microseconds.
const LOOPBACK_TIMEOUT: Duration = Duration::from_secs(10);
/// More mounts than this on one file are somebody else's doing.
const STACKED_MOUNTS: usize = 16;

/// Why a network namespace could not be made or removed.
#[derive(Debug, thiserror::Error)]
#[error("network namespace {path}: cannot {step}: {source}")]
pub struct NetnsError {
    path: PathBuf,
    step: &'static str,
    source: io::Error,
}

/// A network namespace and the file that it is bound to, `<netns_dir>/a3s-<sandbox id>`.
///
/// Dropping the value leaves the namespace: a pod outlives the frontend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkNamespace {
    path: PathBuf,
}

impl NetworkNamespace {
    /// Makes a new one, with its loopback interface up. Undone where the caller does not wait for it.
    ///
    /// # Errors
    /// The name is taken, or the kernel refuses a step, which the message names.
    pub async fn create(netns_dir: &Path, sandbox: &SandboxId) -> Result<Self, NetnsError> {
        let namespace = Self::at(netns_dir, sandbox);
        let (answer, outcome) = oneshot::channel();
        let (dir, path) = (netns_dir.to_owned(), namespace.path.clone());
        // A thread of its own, since it ends in the new namespace: a pool must not get it back.
        thread::Builder::new()
            .name("netns".into())
            .spawn(move || {
                let made = create_bound(&dir, &path);
                if let Err(Ok(())) = answer.send(made)
                    && let Err(error) = unbind(&path)
                {
                    tracing::warn!(%error, "a network namespace that nobody waits for stays");
                }
            })
            .map_err(|source| namespace.error("start a thread for it", source))?;
        outcome.await.map_err(|_| namespace.error("make it", io::Error::other("the thread died")))??;
        Ok(namespace)
    }

    /// Names a sandbox's namespace, whether or not it exists.
    pub fn at(netns_dir: &Path, sandbox: &SandboxId) -> Self {
        Self { path: netns_dir.join(format!("a3s-{sandbox}")) }
    }

    /// The file that it is bound to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a namespace is bound there. After a reboot of the host none is.
    pub fn exists(&self) -> bool {
        is_namespace(&self.path)
    }

    /// Unbinds it; the kernel frees it with its last process. Nothing to do where it is gone.
    ///
    /// # Errors
    /// The file cannot be unmounted or unlinked.
    pub async fn remove(&self) -> Result<(), NetnsError> {
        let path = self.path.clone();
        let unbound = tokio::task::spawn_blocking(move || unbind(&path)).await;
        unbound.unwrap_or_else(|error| Err(self.error("unbind it", io::Error::other(error))))
    }

    fn error(&self, step: &'static str, source: io::Error) -> NetnsError {
        NetnsError { path: self.path.clone(), step, source }
    }
}

/// Whether a namespace is bound to this file.
pub(crate) fn is_namespace(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| u64::try_from(stat.f_type) == Ok(NSFS_MAGIC))
}

/// Runs on a thread that is thrown away afterwards.
fn create_bound(dir: &Path, path: &Path) -> Result<(), NetnsError> {
    let failed = |step| move |source: io::Error| NetnsError { path: path.to_owned(), step, source };
    fs::create_dir_all(dir).map_err(failed("make its directory"))?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(path)
        .map_err(failed("make the file to bind it to"))?;
    let bound = enter_new().and_then(|()| {
        mount_bind("/proc/thread-self/ns/net", path).map_err(|error| ("bind it", error.into()))
    });
    bound.map_err(|(step, source)| {
        if let Err(error) = unbind(path) {
            tracing::warn!(%error, "a half-made network namespace stays");
        }
        failed(step)(source)
    })
}

/// Puts this thread into a new network namespace with loopback up.
fn enter_new() -> Result<(), (&'static str, io::Error)> {
    // SAFETY: only CLONE_FILES could pull file descriptors from under other threads; this is CLONE_NEWNET.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(|error| ("make it", error.into()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| ("start a runtime for netlink", error))?;
    let up = runtime.block_on(async { tokio::time::timeout(LOOPBACK_TIMEOUT, loopback_up()).await });
    up.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(|error| ("bring up loopback", error))
}

async fn loopback_up() -> io::Result<()> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    let serving = tokio::spawn(connection);
    let up = rtnetlink::LinkUnspec::new_with_index(LOOPBACK_INDEX).up().build();
    let changed = handle.link().set(up).execute().await;
    serving.abort();
    changed.map_err(io::Error::other)
}

fn unbind(path: &Path) -> Result<(), NetnsError> {
    let failed = |step, source: Errno| NetnsError { path: path.to_owned(), step, source: source.into() };
    for _ in 0..STACKED_MOUNTS {
        match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // There may be another mount below.
            Ok(()) => continue,
            // Not, or no longer, a mount point.
            Err(Errno::INVAL | Errno::NOENT) => {}
            Err(error) => return Err(failed("unmount it", error)),
        }
        match rustix::fs::unlink(path) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // Somebody bound something there between the two calls.
            Err(Errno::BUSY) => {}
            Err(error) => return Err(failed("unlink it", error)),
        }
    }
    Err(failed("unlink it", Errno::BUSY))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> bool {
        rustix::process::geteuid().is_root()
    }

    fn sandbox() -> SandboxId {
        "pod".parse().unwrap()
    }

    #[tokio::test]
    async fn a_namespace_is_made_with_loopback_up_and_removed_twice() {
        if !root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let netns_dir = dir.path().join("netns");
        let namespace = NetworkNamespace::create(&netns_dir, &sandbox()).await.unwrap();
        assert!(namespace.exists());
        assert_eq!(namespace, NetworkNamespace::at(&netns_dir, &sandbox()));

        let file = fs::File::open(namespace.path()).unwrap();
        let state = thread::spawn(move || {
            let network = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), network).unwrap();
            fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap()
        });
        // ::1 appears with loopback's going up.
        assert!(state.join().unwrap().contains("00000000000000000000000000000001 01"));

        let twice = NetworkNamespace::create(&netns_dir, &sandbox()).await.unwrap_err();
        assert!(twice.to_string().contains("pod") && twice.to_string().contains("exists"), "{twice}");
        assert!(namespace.exists(), "the refusal left the first one alone");

        namespace.remove().await.unwrap();
        assert!(!namespace.exists() && !namespace.path().exists());
        namespace.remove().await.unwrap();
    }

    #[tokio::test]
    async fn stacked_and_stale_files_are_removed_too() {
        if !root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let namespace = NetworkNamespace::create(dir.path(), &sandbox()).await.unwrap();
        mount_bind("/proc/thread-self/ns/net", namespace.path()).unwrap();
        namespace.remove().await.unwrap();
        assert!(!namespace.path().exists());

        fs::write(namespace.path(), "").unwrap();
        assert!(!namespace.exists(), "a plain file, as after a reboot, is no namespace");
        namespace.remove().await.unwrap();
        assert!(!namespace.path().exists());
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_made_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = NetworkNamespace::create(&file.path().join("netns"), &sandbox()).await.unwrap_err();
        assert!(error.to_string().contains("directory"), "{error}");
    }
}
