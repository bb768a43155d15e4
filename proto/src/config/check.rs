//! What a value must be beyond its type.

use std::path::Path;

use super::{CONVERTER_UIDS, Config};
use crate::ports::MOST_INTERFACES;

/// A wrong key and what is wrong with it.
type Wrong = (&'static str, String);

/// The longest socket path that the kernel takes is 107 bytes (`sun_path`); ours below the state directory add
/// `/pods/`, an id of at most 76 characters, and a name of at most 9.
const LONGEST_STATE_DIR: usize = 107 - "/pods/".len() - crate::ids::MAX_ID_LENGTH - "/123456789".len();

/// One interface is every pod's.
const MOST_SPARE: usize = MOST_INTERFACES - 1;

/// Checks all that one key's type cannot say.
pub(super) fn check(config: &Config) -> Result<(), Wrong> {
    paths(config)?;
    vm(config)?;
    limits(config)?;
    if config.streaming.tls_cert.as_os_str().is_empty() != config.streaming.tls_key.as_os_str().is_empty() {
        return Err(("streaming.tls_key", "a certificate and its key go together: give both or none".into()));
    }
    if config.cri.handlers.is_empty() {
        return Err(("cri.handlers", "name at least one handler".into()));
    }
    Ok(())
}

fn paths(config: &Config) -> Result<(), Wrong> {
    let absolute: [(&'static str, &Path); 14] = [
        ("root_dir", &config.root_dir),
        ("state_dir", &config.state_dir),
        ("netns_dir", &config.netns_dir),
        ("cri.socket", &config.cri.socket),
        ("cri.shim", &config.cri.shim),
        ("vm.qemu", &config.vm.qemu),
        ("vm.kernel", &config.vm.kernel),
        ("vm.initramfs", &config.vm.initramfs),
        ("helpers.virtiofsd", &config.helpers.virtiofsd),
        ("helpers.vhost_device_vsock", &config.helpers.vhost_device_vsock),
        ("helpers.mkfs_erofs", &config.helpers.mkfs_erofs),
        ("helpers.mkfs_ext4", &config.helpers.mkfs_ext4),
        ("network.conf_dir", &config.network.conf_dir),
        ("network.cache_dir", &config.network.cache_dir),
    ];
    for (key, path) in absolute {
        if !path.is_absolute() {
            return Err((key, format!("{path:?} must be an absolute path")));
        }
    }
    for (key, path, longest) in
        [("state_dir", &config.state_dir, LONGEST_STATE_DIR), ("cri.socket", &config.cri.socket, 107)]
    {
        let length = path.as_os_str().len();
        if length > longest {
            let reason = format!("{path:?} has {length} bytes, and socket paths leave room for {longest}");
            return Err((key, reason));
        }
    }
    Ok(())
}

fn vm(config: &Config) -> Result<(), Wrong> {
    let vm = &config.vm;
    at_least("vm.default_vcpus", u64::from(vm.default_vcpus), 1)?;
    at_least("vm.default_memory_mb", vm.default_memory_mb, 64)?;
    at_least("vm.boot_timeout_s", vm.boot_timeout_s, 1)?;
    at_least("vm.console_kb", vm.console_kb, 16)?;
    at_least("vm.uid_first", u64::from(vm.uid_first), 1000)?;
    at_least("vm.uid_count", u64::from(vm.uid_count), 1)?;
    // TCG cannot run with less; more than QEMU's own default is of no use.
    at_least("vm.tcg_code_buffer_mb", vm.tcg_code_buffer_mb, 16)?;
    at_most("vm.tcg_code_buffer_mb", vm.tcg_code_buffer_mb, "1023", 1023)?;
    at_most("vm.default_vcpus", vm.default_vcpus.into(), "vm.max_vcpus", vm.max_vcpus.into())?;
    at_most("vm.default_memory_mb", vm.default_memory_mb, "vm.max_memory_mb", vm.max_memory_mb)?;
    // (uid_t)-1 means "no change" to the kernel.
    let Some(end) = vm.uid_first.checked_add(vm.uid_count) else {
        return Err(("vm.uid_count", "the range must end below 4294967295".into()));
    };
    if vm.uid_first < CONVERTER_UIDS.end && CONVERTER_UIDS.start < end {
        let (first, last) = (CONVERTER_UIDS.start, CONVERTER_UIDS.end - 1);
        return Err(("vm.uid_first", format!("the range has some of {first} to {last}, who convert images")));
    }
    Ok(())
}

fn limits(config: &Config) -> Result<(), Wrong> {
    at_least("scratch.default_mb", config.scratch.default_mb, 16)?;
    at_most("scratch.default_mb", config.scratch.default_mb, "scratch.max_mb", config.scratch.max_mb)?;
    at_least("cri.max_containers", config.cri.max_containers as u64, 1)?;
    at_least("pids.default", config.pids.default, 1)?;
    at_most("pids.default", config.pids.default, "pids.max", config.pids.max)?;
    at_least("streaming.idle_timeout_s", config.streaming.idle_timeout_s, 1)?;
    at_least("network.plugin_timeout_s", config.network.plugin_timeout_s, 1)?;
    if config.network.spare_interfaces > MOST_SPARE {
        let reason = format!("{} is too large: at most {MOST_SPARE}", config.network.spare_interfaces);
        return Err(("network.spare_interfaces", reason));
    }
    at_least("images.parallel_layers", config.images.parallel_layers as u64, 1)?;
    let conversions = config.images.parallel_conversions as u64;
    at_least("images.parallel_conversions", conversions, 1)?;
    // Twice: also for those that are made again.
    let most = CONVERTER_UIDS.len() as u64 / 2;
    at_most("images.parallel_conversions", conversions, "the number of user ids for them", most)?;
    at_least("images.progress_timeout_s", config.images.progress_timeout_s, 1)?;
    at_least("images.max_convert_s", config.images.max_convert_s, 1)?;
    at_least("images.max_layers", config.images.max_layers as u64, 1)?;
    // What the kernel takes.
    at_most("images.max_path_bytes", config.images.max_path_bytes as u64, "PATH_MAX - 1", 4095)?;
    at_most("images.max_xattr_bytes", config.images.max_xattr_bytes as u64, "XATTR_SIZE_MAX", 65_536)?;
    Ok(())
}

fn at_least(key: &'static str, value: u64, least: u64) -> Result<(), Wrong> {
    if value < least {
        return Err((key, format!("{value} is too small: at least {least}")));
    }
    Ok(())
}

fn at_most(key: &'static str, value: u64, limit: &str, most: u64) -> Result<(), Wrong> {
    if value > most {
        return Err((key, format!("{value} is above {limit} ({most})")));
    }
    Ok(())
}
