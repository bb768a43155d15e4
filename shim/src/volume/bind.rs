//! Attaches a host path to the shared directory.

use std::{
    fs, io,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::fs::{FileType, Mode, OFlags, fstatfs, open};
use tokio::time::timeout;

use crate::{
    error::{Error, Result, Step},
    rootfs::shared_dir::Place,
    sys::{
        mount::{Attributes, Detached},
        namespace::HostNamespace,
        thread::blocking,
    },
};

/// A lookup takes longer only where a file system hangs.
const LOOKUP_BOUND: Duration = Duration::from_secs(20);

/// File systems through which a kernel speaks, whatever the path at which they are mounted: proc, sysfs, cgroup (both
/// versions), debugfs, tracefs, securityfs.
const KERNELS: [i64; 7] =
    [0x9fa0, 0x6265_6572, 0x0027_e0eb, 0x6367_7270, 0x6462_6720, 0x7472_6163, 0x7363_6673];

/// A bind mount of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// The path on the host.
    pub source: PathBuf,
    /// Read-only: the mount itself.
    pub read_only: bool,
    /// Read-only: all below it.
    pub recursive_read_only: bool,
    /// With what is mounted below it.
    pub recursive: bool,
    /// What the host mounts below it later is seen.
    pub follows_host: bool,
}

/// Directories whose content no container may see, with the one below them that it may.
#[derive(Debug, Clone)]
pub struct Forbidden {
    /// Our own state: other pods, records, images.
    pub directories: Vec<PathBuf>,
    /// The pod's own.
    pub except: PathBuf,
}

/// Opens the source where the host's paths mean what the caller meant, and attaches it at the target.
///
/// # Errors
/// The source is not there, forbidden, or neither file nor directory.
pub async fn attach(host: &HostNamespace, bind: Bind, forbidden: Forbidden, place: Place) -> Result<()> {
    let object = format!("mount source {}", bind.source.display());
    let source = bind.source.clone();
    let lookup = host.run(move || {
        let (tree, resolved) = clone(&bind)?;
        Ok((tree.file_type()?, tree, resolved))
    });
    let (kind, tree, resolved) = match timeout(LOOKUP_BOUND, lookup).await {
        Ok(result) => result.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::invalid(&object, "it does not exist"),
            io::ErrorKind::Unsupported => Error::invalid(&object, error.to_string()),
            _ => Error::Host { step: format!("opening {object}"), source: error },
        })?,
        Err(late) => return Err(Error::Host { step: format!("opening {object}"), source: late.into() }),
    };
    if is_forbidden(&resolved, &forbidden) {
        return Err(Error::invalid(object, format!("it is the runtime's own ({})", resolved.display())));
    }
    if !matches!(kind, FileType::Directory | FileType::RegularFile) {
        let reason =
            format!("a {} cannot be shared with a MicroVM: directories and regular files can", name(kind));
        return Err(Error::invalid(object, reason));
    }
    blocking(move || {
        if kind == FileType::Directory {
            place.make_directory()?;
        } else {
            place.make_file()?;
        }
        tree.attach(&place.seen)
    })
    .await
    .step(|| format!("attaching {}", source.display()))
}

/// Clones what the source names, and says where it truly is. The path is looked up once: what is checked is what is
/// attached.
fn clone(bind: &Bind) -> io::Result<(Detached, PathBuf)> {
    let pinned = open(&bind.source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let by_descriptor = format!("/proc/thread-self/fd/{}", pinned.as_raw_fd());
    let resolved = fs::read_link(&by_descriptor)?;
    if KERNELS.contains(&fstatfs(&pinned)?.f_type) {
        let reason =
            format!("it is the host's kernel's ({}), and the container runs on another", resolved.display());
        return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
    }
    let tree = Detached::clone_of(Path::new(&by_descriptor), bind.recursive)?;
    // Never shared with the host: an unmount below the clone would be one on the host.
    let propagation = if bind.follows_host { libc::MS_SLAVE } else { libc::MS_PRIVATE };
    tree.change(Attributes { set: 0, propagation, recursive: true })?;
    if bind.read_only || bind.recursive_read_only {
        let (set, recursive) = (libc::MOUNT_ATTR_RDONLY, bind.recursive_read_only);
        tree.change(Attributes { set, propagation: 0, recursive })?;
    }
    Ok((tree, resolved))
}

fn is_forbidden(resolved: &Path, forbidden: &Forbidden) -> bool {
    forbidden.directories.iter().any(|directory| resolved.starts_with(directory))
        && !resolved.starts_with(&forbidden.except)
}

fn name(kind: FileType) -> &'static str {
    match kind {
        FileType::Socket => "socket",
        FileType::Fifo => "fifo",
        FileType::CharacterDevice | FileType::BlockDevice => "device node",
        _ => "file of this kind",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_sees_its_own_directory_and_no_others() {
        let forbidden = Forbidden {
            directories: vec!["/run/a3s".into(), "/var/lib/a3s".into()],
            except: "/run/a3s/pods/p1".into(),
        };
        let check = |path: &str| is_forbidden(Path::new(path), &forbidden);
        assert!(check("/run/a3s/pods/p2/share") && check("/run/a3s") && check("/var/lib/a3s/images"));
        assert!(check("/run/a3s/pods/p11"));
        assert!(!check("/run/a3s/pods/p1/hosts") && !check("/") && !check("/run/a3sother"));
    }
}
