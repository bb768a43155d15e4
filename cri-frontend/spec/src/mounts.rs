//! Mounts: the system's, the pod's own objects, and what the container asks for.

use std::path::{Path, PathBuf};

use a3s_box_proto::{
    cri::{self, MountPropagation},
    ports::{IMAGE_MOUNT_TYPE, POD_MEMORY, POD_MOUNT_TYPE, POD_OBJECTS},
};
use oci_spec::runtime::Mount;

use crate::{
    Input, check,
    error::{SpecError, invalid, unsupported},
    image_volume::ImageVolume,
    security::Context,
};

/// Destination, type, options; the type is the source as well.
const SYSTEM: [(&str, &str, &[&str]); 6] = [
    ("/proc", "proc", &["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    ("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ("/sys", "sysfs", &["nosuid", "noexec", "nodev"]),
    ("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime"]),
];
/// Those of [`SYSTEM`] that only a privileged container may write.
const PRIVILEGED: [&str; 2] = ["/sys", "/sys/fs/cgroup"];
/// What a request may add to a mount.
const OPTIONS: [&str; 14] = [
    "nosuid",
    "suid",
    "nodev",
    "dev",
    "noexec",
    "exec",
    "noatime",
    "atime",
    "nodiratime",
    "diratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
];
/// They speak of the host's kernel; the container has the guest's at the same places.
const KERNEL: [&str; 2] = ["/proc", "/sys"];

/// The mounts of a container.
pub(crate) struct Mounts {
    /// In the order in which they are made.
    pub mounts: Vec<Mount>,
    /// Where bind mounts come from on the host.
    pub sources: Vec<PathBuf>,
    /// The root filesystem's propagation, where a mount below it needs one.
    pub propagation: Option<&'static str>,
}

/// The system's first, then all others by the depth of their destination, so that none hides another.
pub(crate) fn mounts(input: &Input<'_>, security: &Context<'_>) -> Result<Mounts, SpecError> {
    let asked: Vec<Asked> =
        input.container.mounts.iter().map(|mount| asked(mount, input)).collect::<Result<_, _>>()?;
    let is_asked_for = |path: &Path| asked.iter().any(|volume| volume.destination == path);
    let below_asked_dev = |path: &Path| is_asked_for(Path::new("/dev")) && path.starts_with("/dev");
    let mut mounts: Vec<Mount> = system(security.privileged)
        .filter(|mount| !is_asked_for(mount.destination()) && !below_asked_dev(mount.destination()))
        .collect();

    let sources = asked.iter().filter_map(|volume| volume.source.host_path()).cloned().collect();
    let slave = asked.iter().any(|volume| volume.propagation == "rslave");
    let pods: Vec<Mount> =
        pod_objects(security.readonly_rootfs).filter(|mount| !is_asked_for(mount.destination())).collect();
    let mut others: Vec<Mount> = asked.into_iter().map(Asked::into_mount).chain(pods).collect();
    others.sort_by_key(|mount| mount.destination().components().count());
    mounts.extend(others);
    Ok(Mounts { mounts, sources, propagation: slave.then_some("rslave") })
}

fn system(privileged: bool) -> impl Iterator<Item = Mount> {
    SYSTEM.into_iter().map(move |(destination, kind, options)| {
        let mut options = options.to_vec();
        if PRIVILEGED.contains(&destination) {
            options.push(if privileged { "rw" } else { "ro" });
        }
        mount(Path::new(destination), kind, Path::new(kind), &options)
    })
}

/// Files of the pod are as writable as the root filesystem; its shared memory always is.
fn pod_objects(readonly_rootfs: bool) -> impl Iterator<Item = Mount> {
    POD_OBJECTS.into_iter().map(move |(destination, name)| {
        let readonly = readonly_rootfs && name != POD_MEMORY;
        let options = ["rbind", "rprivate", if readonly { "ro" } else { "rw" }];
        mount(Path::new(destination), POD_MOUNT_TYPE, Path::new(name), &options)
    })
}

fn mount(destination: &Path, kind: &str, source: &Path, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(destination.to_owned())
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.to_owned()))
        .set_options(Some(options.iter().map(ToString::to_string).collect()));
    mount
}

/// A mount that the container asks for.
struct Asked {
    destination: PathBuf,
    source: Source,
    propagation: &'static str,
    access: &'static str,
    options: Vec<String>,
}

/// What it shows.
enum Source {
    Host(PathBuf),
    Image(ImageVolume),
}

impl Source {
    fn host_path(&self) -> Option<&PathBuf> {
        match self {
            Self::Host(path) => Some(path),
            Self::Image(_) => None,
        }
    }
}

impl Asked {
    fn into_mount(self) -> Mount {
        let mut options = vec!["rbind", self.propagation, self.access];
        options.extend(self.options.iter().map(String::as_str));
        match self.source {
            Source::Host(source) => mount(&self.destination, "bind", &source, &options),
            Source::Image(volume) => {
                let layers = volume.layer_options();
                options.extend(layers.iter().map(String::as_str));
                mount(&self.destination, IMAGE_MOUNT_TYPE, &volume.sub_path, &options)
            }
        }
    }
}

fn asked(asked: &cri::Mount, input: &Input<'_>) -> Result<Asked, SpecError> {
    let destination = check::absolute_path("mounts.container_path", &asked.container_path)?;
    let field = |name: &str| format!("mounts[{}].{name}", check::shown(&asked.container_path));
    if destination == Path::new("/") {
        return Err(invalid(field("container_path"), "the root filesystem itself cannot be mounted over"));
    }
    // Kubelet sends mappings for pods with a user namespace only.
    if !asked.uid_mappings.is_empty() || !asked.gid_mappings.is_empty() {
        return Err(unsupported(field("uidMappings"), "mounts with mapped ids need a user namespace"));
    }
    if let Some(option) = asked.mount_options.iter().find(|option| !OPTIONS.contains(&option.as_str())) {
        let reason = format!("{} is none of {}", check::shown(option), OPTIONS.join(", "));
        return Err(invalid(field("mount_options"), reason));
    }
    let source = match ImageVolume::of(asked, input.image_volumes, field)? {
        Some(volume) => Source::Image(volume),
        None => {
            let source = check::absolute_path(&field("host_path"), &asked.host_path)?;
            check_source(&field("host_path"), &source, input.private_dirs)?;
            Source::Host(source)
        }
    };
    Ok(Asked {
        destination,
        source,
        propagation: propagation(&field("propagation"), asked)?,
        access: access(&field("recursive_read_only"), asked)?,
        options: asked.mount_options.clone(),
    })
}

/// By the letter only: who resolves symbolic links checks again.
fn check_source(field: &str, source: &Path, private_dirs: &[PathBuf]) -> Result<(), SpecError> {
    let shown = || check::shown(&source.to_string_lossy());
    if KERNEL.iter().any(|dir| source.starts_with(dir)) {
        let reason = format!("{} is the host's kernel's, and the container runs on another kernel", shown());
        return Err(unsupported(field, reason));
    }
    if private_dirs.iter().any(|dir| source.starts_with(dir)) {
        return Err(invalid(field, format!("{} is the runtime's own", shown())));
    }
    Ok(())
}

fn propagation(field: &str, asked: &cri::Mount) -> Result<&'static str, SpecError> {
    match MountPropagation::try_from(asked.propagation) {
        Ok(MountPropagation::PropagationPrivate) => Ok("rprivate"),
        Ok(MountPropagation::PropagationHostToContainer) => Ok("rslave"),
        Ok(MountPropagation::PropagationBidirectional) => Err(unsupported(
            field,
            "what a guest mounts cannot appear on the host: a VM has mounts of its own",
        )),
        Err(_) => Err(invalid(field, format!("{} is no propagation", asked.propagation))),
    }
}

fn access(field: &str, asked: &cri::Mount) -> Result<&'static str, SpecError> {
    let private = asked.propagation == i32::from(MountPropagation::PropagationPrivate);
    match (asked.readonly, asked.recursive_read_only) {
        (true, true) if private => Ok("rro"),
        (true, true) => Err(invalid(field, "it needs private propagation")),
        (false, true) => Err(invalid(field, "it contradicts readonly = false")),
        (true, false) => Ok("ro"),
        (false, false) => Ok("rw"),
    }
}
