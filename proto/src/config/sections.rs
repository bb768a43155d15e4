//! The sections of the configuration. What each key means to a user stands in `packaging/config/config.toml`.

use std::{net::SocketAddr, ops::Range, path::PathBuf};

use serde::Deserialize;

/// How the guest's processor is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// KVM where the processor virtualizes; else TCG if allowed, or not ready.
    Auto,
    /// KVM or an error.
    Kvm,
    /// QEMU's emulation.
    Tcg,
}

/// Who makes cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupDriver {
    /// systemd where it runs, else cgroupfs.
    Auto,
    /// systemd slices.
    Systemd,
    /// Plain directories.
    Cgroupfs,
}

/// The CRI endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cri {
    /// The unix socket for kubelet and crictl, mode 0660 and owned by root.
    pub socket: PathBuf,
    /// The shim's binary.
    pub shim: PathBuf,
    /// The runtime handlers that RunPodSandbox accepts, besides the empty one.
    pub handlers: Vec<String>,
    /// "systemd", "cgroupfs" or "auto": what kubelet is told, and how cgroup parents are read.
    pub cgroup_driver: CgroupDriver,
    /// The most containers in a pod, those that have exited included.
    pub max_containers: usize,
}

impl Default for Cri {
    fn default() -> Self {
        Self {
            socket: "/run/a3s-box/a3s-box.sock".into(),
            shim: "/usr/bin/a3s-box-shim".into(),
            handlers: vec!["a3s-box".into()],
            cgroup_driver: CgroupDriver::Auto,
            max_containers: 256,
        }
    }
}

/// The server of exec, attach and port-forward.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Streaming {
    /// Where it listens; port 0 is any free one.
    pub address: SocketAddr,
    /// A session in which nothing happens ends after this time.
    pub idle_timeout_s: u64,
    /// PEM file of the certificate with its chain; empty is plain HTTP.
    pub tls_cert: PathBuf,
    /// PEM file of the certificate's key.
    pub tls_key: PathBuf,
}

impl Default for Streaming {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 18_800)),
            idle_timeout_s: 14_400,
            tls_cert: PathBuf::new(),
            tls_key: PathBuf::new(),
        }
    }
}

/// The MicroVM.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Vm {
    /// "auto": KVM, or not ready with the reason. "kvm". "tcg": emulation, which QEMU does not call a security boundary.
    pub accelerator: Accelerator,
    /// Lets "auto" fall back to TCG where KVM is absent.
    pub allow_tcg: bool,
    /// TCG's code buffer, MiB for each VM.
    pub tcg_code_buffer_mb: u64,
    /// QEMU's system emulator.
    pub qemu: PathBuf,
    /// The guest kernel, a PVH vmlinux.
    pub kernel: PathBuf,
    /// The guest's initramfs, which holds the agent.
    pub initramfs: PathBuf,
    /// Versions and digests of the guest image, shown by Status.
    pub manifest: PathBuf,
    /// The size of a VM whose pod declares no limits.
    pub default_vcpus: u32,
    /// Memory of such a VM, MiB.
    pub default_memory_mb: u64,
    /// Added to the pod's memory limit for the guest's kernel and agent.
    pub guest_overhead_mb: u64,
    /// What VMM, helpers and shim take of the host besides the guest's memory and TCG's buffer.
    pub host_overhead_mb: u64,
    /// No pod gets more, whatever it asks for.
    pub max_vcpus: u32,
    /// The most memory of a VM, MiB.
    pub max_memory_mb: u64,
    /// From the VMM's start to the agent's word that it is ready.
    pub boot_timeout_s: u64,
    /// A guest that has not answered for so long is ended, and its pod with it; 0 waits for ever.
    pub unresponsive_timeout_s: u64,
    /// The guest's console is kept to this many KiB.
    pub console_kb: u64,
    /// Each VM runs under a uid of its own from this range.
    pub uid_first: u32,
    /// Length of that range.
    pub uid_count: u32,
}

impl Default for Vm {
    fn default() -> Self {
        Self {
            accelerator: Accelerator::Auto,
            allow_tcg: false,
            tcg_code_buffer_mb: 64,
            qemu: "/usr/bin/qemu-system-x86_64".into(),
            kernel: "/usr/lib/a3s-box/vmlinux".into(),
            initramfs: "/usr/lib/a3s-box/initramfs.cpio".into(),
            manifest: "/usr/lib/a3s-box/guest.json".into(),
            default_vcpus: 1,
            default_memory_mb: 256,
            guest_overhead_mb: 64,
            host_overhead_mb: 48,
            max_vcpus: 32,
            max_memory_mb: 65_536,
            boot_timeout_s: 30,
            unresponsive_timeout_s: 120,
            console_kb: 256,
            uid_first: 2_000_000_000,
            uid_count: 10_000,
        }
    }
}

/// Programs that are run beside QEMU.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Helpers {
    /// The virtio-fs daemon.
    pub virtiofsd: PathBuf,
    /// The vsock backend.
    pub vhost_device_vsock: PathBuf,
    /// mkfs.erofs, 1.8 or newer.
    pub mkfs_erofs: PathBuf,
    /// mkfs.ext4.
    pub mkfs_ext4: PathBuf,
}

impl Default for Helpers {
    fn default() -> Self {
        Self {
            virtiofsd: "/usr/lib/a3s-box/virtiofsd".into(),
            vhost_device_vsock: "/usr/lib/a3s-box/vhost-device-vsock".into(),
            mkfs_erofs: "/usr/lib/a3s-box/mkfs.erofs".into(),
            mkfs_ext4: "/sbin/mkfs.ext4".into(),
        }
    }
}

/// The pods' scratch disks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scratch {
    /// The disk that holds what a pod's containers write; sparse.
    pub default_mb: u64,
    /// The most that a pod may ask for, MiB.
    pub max_mb: u64,
}

impl Default for Scratch {
    fn default() -> Self {
        Self { default_mb: 10_240, max_mb: 102_400 }
    }
}

/// Limits of processes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Pids {
    /// The most processes in a container whose pod says nothing else.
    pub default: u64,
    /// The most that a pod may ask for.
    pub max: u64,
}

impl Default for Pids {
    fn default() -> Self {
        Self { default: 4096, max: 32_768 }
    }
}

/// Volumes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Volumes {
    /// The largest volume that is mirrored into the guest, KiB.
    pub mirror_kb: u64,
    /// The most files and directories of one.
    pub mirror_entries: u64,
}

impl Default for Volumes {
    fn default() -> Self {
        Self { mirror_kb: 4096, mirror_entries: 4096 }
    }
}

/// Which annotations tenants may use.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Annotations {
    /// The a3s.box/ annotations that tenants may use.
    pub allowed: Vec<String>,
}

impl Default for Annotations {
    fn default() -> Self {
        Self {
            allowed: vec![
                "a3s.box/vcpus".into(),
                "a3s.box/memory-mb".into(),
                "a3s.box/network-mode".into(),
                "a3s.box/scratch-mb".into(),
                "a3s.box/pids-limit".into(),
                "a3s.box/tee".into(),
                "a3s.box/tee-generation".into(),
                "a3s.box/workload-id".into(),
                "a3s.box/pool".into(),
            ],
        }
    }
}

/// CNI.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Where network configurations lie.
    pub conf_dir: PathBuf,
    /// Where plugins lie.
    pub bin_dirs: Vec<PathBuf>,
    /// Where plugins' results are kept.
    pub cache_dir: PathBuf,
    /// For one plugin's run.
    pub plugin_timeout_s: u64,
    /// Interfaces that a pod may get besides its first, where nothing says so of the pod itself.
    pub spare_interfaces: usize,
    /// Plugins are asked to free what belongs to no attachment of the node, when the frontend starts.
    pub gc: bool,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            conf_dir: "/etc/cni/net.d".into(),
            bin_dirs: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
            cache_dir: "/var/lib/cni".into(),
            plugin_timeout_s: 60,
            spare_interfaces: 0,
            gc: true,
        }
    }
}

/// The users of images' converters, one each; no VM has one of them.
pub const CONVERTER_UIDS: Range<u32> = 1_999_999_000..2_000_000_000;

/// Pulls and the image store.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Images {
    /// hosts.toml files, as containerd reads them.
    pub certs_dir: PathBuf,
    /// docker's config.json with credentials by registry, or empty.
    pub auth_file: PathBuf,
    /// Registries reached by plain HTTP besides loopback addresses, as host:port.
    pub insecure_registries: Vec<String>,
    /// Layers fetched at once for one pull.
    pub parallel_layers: usize,
    /// Layers converted at once for all pulls together; as many more that must be made again.
    pub parallel_conversions: usize,
    /// A pull that makes no progress for this long fails.
    pub progress_timeout_s: u64,
    /// Never removed.
    pub pinned: Vec<String>,
    /// Keeps layers also as the registry sent them.
    pub keep_compressed: bool,
    /// The largest manifest or image configuration, KiB.
    pub max_manifest_kb: u64,
    /// The most layers of an image.
    pub max_layers: usize,
    /// One layer as the registry has it, MiB.
    pub max_layer_mb: u64,
    /// One uncompressed layer, MiB.
    pub max_unpacked_layer_mb: u64,
    /// The most entries of a layer.
    pub max_layer_entries: u64,
    /// The longest path in a layer, bytes: the kernel's PATH_MAX without its NUL, or less.
    pub max_path_bytes: usize,
    /// The largest value of an extended attribute, bytes: the kernel's XATTR_SIZE_MAX, or less.
    pub max_xattr_bytes: usize,
    /// Processor time of one layer's conversion, and how long the converter may keep a pull waiting.
    pub max_convert_s: u64,
    /// A pull is refused that would leave less free space than this.
    pub keep_free_mb: u64,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            certs_dir: "/etc/containerd/certs.d".into(),
            auth_file: PathBuf::new(),
            insecure_registries: Vec::new(),
            parallel_layers: 3,
            parallel_conversions: 64,
            progress_timeout_s: 60,
            pinned: Vec::new(),
            keep_compressed: false,
            max_manifest_kb: 4096,
            max_layers: 127,
            max_layer_mb: 16_384,
            max_unpacked_layer_mb: 65_536,
            max_layer_entries: 2_000_000,
            max_path_bytes: 4095,
            max_xattr_bytes: 65_536,
            max_convert_s: 3600,
            keep_free_mb: 1024,
        }
    }
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// tracing's filter: "info", "debug", "a3s_box_cri=debug,warn" …
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".into() }
    }
}

impl Default for super::Config {
    fn default() -> Self {
        Self {
            root_dir: "/var/lib/a3s-box".into(),
            state_dir: "/run/a3s-box".into(),
            netns_dir: "/run/netns".into(),
            cri: Cri::default(),
            streaming: Streaming::default(),
            vm: Vm::default(),
            helpers: Helpers::default(),
            scratch: Scratch::default(),
            pids: Pids::default(),
            volumes: Volumes::default(),
            annotations: Annotations::default(),
            network: Network::default(),
            images: Images::default(),
            log: Log::default(),
        }
    }
}
