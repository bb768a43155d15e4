//! vsock ports and guest paths: fixed numbers and names on both sides of the MicroVM's wall.

/// Host port (`<uds>_<port>` at the vsock backend) that the agent dials once to say that it is ready.
pub const READY: u32 = 1024;
/// Guest port of the agent's ttrpc service.
pub const CONTROL: u32 = 1024;
/// Guest port of process streams, one connection a stream.
pub const STREAM: u32 = 1025;

/// The guest's vsock context id. Each pod has a backend of its own, so the number need not differ.
pub const GUEST_CID: u32 = 3;

/// The most network devices of a VM. A microvm has eight places for devices, and five are taken: vsock, share, scratch
/// disk, SCSI controller, random numbers.
pub const MOST_INTERFACES: usize = 3;

/// The virtio-fs tag of the pod's shared directory.
pub const SHARE_TAG: &str = "share";
/// Where the guest mounts the shared directory.
pub const GUEST_SHARE: &str = "/run/a3s/share";
/// Directory of the share that holds the EROFS layer files.
pub const SHARE_LAYERS: &str = "layers";
/// Directory of the share that holds volumes: directories and files of the host, each once for all containers.
pub const SHARE_VOLUMES: &str = "volumes";
/// Where the guest keeps copies of volumes, under the names that they have in [`SHARE_VOLUMES`].
pub const GUEST_MIRRORS: &str = "/run/a3s/mirrors";
/// Where the guest has volumes in its own memory.
pub const GUEST_MEMORY: &str = "/run/a3s/memory";
/// Directory of the share that holds root filesystems mounted by the host.
pub const SHARE_ROOTFS: &str = "rootfs";
/// File of the share, in the host's memory, for outputs that have much to say.
pub const SHARE_STREAMS: &str = "streams";

/// The size of the guest's huge pages, which are the processor's.
pub const HUGEPAGE_BYTES: u64 = 2 << 20;

/// The OCI mount type that names an object of the pod inside the guest (see `CreateContainerRequest.spec`).
pub const POD_MOUNT_TYPE: &str = "pod";
/// The pod's objects: where containers have them, and the names that such mounts have as their sources.
pub const POD_OBJECTS: [(&str, &str); 4] = [
    ("/dev/shm", POD_MEMORY),
    ("/etc/hostname", "hostname"),
    ("/etc/hosts", "hosts"),
    ("/etc/resolv.conf", "resolv.conf"),
];
/// The one of them that is no file.
pub const POD_MEMORY: &str = "shm";

/// The OCI mount type of a volume that is an image: its source is a directory of the image, empty for all of it.
pub const IMAGE_MOUNT_TYPE: &str = "image";
/// Begins an option of such a mount, one a layer, the lowest first: a file of the host for the shim, a name in
/// [`SHARE_LAYERS`] for the agent.
pub const IMAGE_MOUNT_LAYER: &str = "layer=";

/// The path of a PID namespace entry that means "the one that the pod's containers share" (CRI mode POD).
pub const POD_PID_NAMESPACE: &str = "pod:pid";
/// Begins the path of a PID namespace entry that means "the one of that container" (CRI mode TARGET); its id follows.
pub const CONTAINER_PID_NAMESPACE: &str = "container:";
