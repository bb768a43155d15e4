//! Resource limits that processes inherit where their specification states none.

use crate::{
    error::{Failed, Step},
    sys::process::set_limit,
};

/// Open files: what systemd gives containerd on current distributions.
const OPEN_FILES: u64 = 1_048_576;

/// Raises what the kernel sets low for a small machine.
pub fn raise() -> Result<(), Failed> {
    set_limit(libc::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES).step(|| "raise RLIMIT_NOFILE".to_owned())?;
    // Of a small guest's memory the kernel derives a few hundred processes a user; pids.max is what limits here.
    set_limit(libc::RLIMIT_NPROC, libc::RLIM_INFINITY, libc::RLIM_INFINITY)
        .step(|| "raise RLIMIT_NPROC".to_owned())?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    // The kernel's choice in want of memory must be a container.
    std::fs::write("/proc/self/oom_score_adj", "-1000")
        .step(|| "protect PID 1 from the OOM killer".to_owned())
}
