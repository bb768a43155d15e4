//! What the converter may do. It parses, in C, what a registry sent: a hostile layer that takes it over has a user of
//! its own, its work directory, and nothing else.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    process::Command,
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, Scope,
};

use super::Limits;

/// Its memory grows with the number of entries: about 800 bytes each.
const MAX_MEMORY: u64 = 2 << 30;
/// An image is a little larger than its files.
const METADATA_ROOM: u64 = 4 << 30;
/// The newest rights that we name; an older kernel takes those that it knows.
const RIGHTS: ABI = ABI::V6;
/// Why nothing is converted: without it, whoever takes the converter over reads what everybody can read.
pub(crate) const NO_LANDLOCK: &str = "this kernel has no Landlock, without which no image is converted (Linux 5.13; \
                                      the kernel's parameter lsm= must name landlock where it is given)";
/// Where a distribution's own converter has its libraries; ours has none.
const LIBRARIES: [&str; 5] = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"];

/// Whether the kernel can keep the converter away from all files but its own (Landlock, Linux 5.13).
pub(crate) fn kernel_confines_files() -> bool {
    let ruleset = Ruleset::default().handle_access(AccessFs::from_all(RIGHTS)).and_then(Ruleset::create);
    ruleset.is_ok_and(|ruleset| Option::<OwnedFd>::from(ruleset).is_some())
}

/// Confines a command to its work directory, which it becomes the owner of; for root only in full. No other process and no
/// other file has its user: another converter could end it, and bound it, from the same one.
pub(super) fn confine(
    command: &mut Command,
    program: &File,
    work: &File,
    user: u32,
    limits: Limits,
) -> io::Result<()> {
    use std::os::unix::process::CommandExt;
    let is_root = nix::unistd::geteuid().is_root();
    if is_root {
        std::os::unix::fs::fchown(work, Some(user), Some(user))?;
    }
    let files = files(program.as_fd(), work.as_fd()).map_err(io::Error::other)?;
    let files = files.ok_or_else(|| io::Error::new(io::ErrorKind::Unsupported, NO_LANDLOCK))?;
    let bounds = Bounds {
        work: work.as_raw_fd(),
        file_size: limits.unpacked.saturating_add(METADATA_ROOM),
        cpu_seconds: limits.convert_seconds,
        user: is_root.then_some(user),
    };
    // SAFETY: the closure makes system calls only, on values that it owns or that outlive the fork.
    unsafe { command.pre_exec(move || bounds.apply(files.as_raw_fd())) };
    Ok(())
}

/// The files that it may reach, as Landlock takes them; nothing if the kernel has no Landlock.
fn files(program: BorrowedFd<'_>, work: BorrowedFd<'_>) -> Result<Option<OwnedFd>, RulesetError> {
    let run = AccessFs::ReadFile | AccessFs::Execute;
    let make = AccessFs::from_file(RIGHTS) | AccessFs::MakeReg | AccessFs::RemoveFile | AccessFs::ReadDir;
    let mut ruleset = Ruleset::default()
        .handle_access(AccessFs::from_all(RIGHTS))?
        .handle_access(AccessNet::from_all(RIGHTS))?
        .scope(Scope::from_all(RIGHTS))?
        .create()?
        .add_rule(PathBeneath::new(program, run))?
        .add_rule(PathBeneath::new(work, make & !BitFlags::from(AccessFs::Execute)))?;
    for path in LIBRARIES.iter().filter_map(|path| PathFd::new(path).ok()) {
        ruleset = ruleset.add_rule(PathBeneath::new(path, run))?;
    }
    Ok(ruleset.into())
}

/// What is set between fork and exec.
#[derive(Clone, Copy)]
struct Bounds {
    work: RawFd,
    file_size: u64,
    cpu_seconds: u64,
    user: Option<u32>,
}

impl Bounds {
    /// Privileges go last: what comes before needs them.
    fn apply(self, files: RawFd) -> io::Result<()> {
        // SAFETY: system calls without pointers, but for the rlimits on this stack.
        unsafe {
            check(libc::fchdir(self.work))?;
            // Nothing that this process may have inherited goes on.
            let all = (3_u32, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
            check(libc::close_range(all.0, all.1, all.2 as libc::c_int))?;
            for (resource, soft, hard) in [
                (libc::RLIMIT_AS, MAX_MEMORY, MAX_MEMORY),
                // SIGXCPU at the lower one, which tells this end from a crash.
                (libc::RLIMIT_CPU, self.cpu_seconds, self.cpu_seconds.saturating_add(1)),
                (libc::RLIMIT_FSIZE, self.file_size, self.file_size),
                (libc::RLIMIT_NOFILE, 64, 64),
                (libc::RLIMIT_CORE, 0, 0),
            ] {
                let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
                check(libc::setrlimit(resource, &raw const limit))?;
            }
            // It first tries a file of 2 TiB, full of holes, and does without if that is an error and not its end.
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            if let Some(user) = self.user {
                check(libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWIPC))?;
                check(libc::setgroups(0, std::ptr::null()))?;
                check(libc::setresgid(user, user, user))?;
                check(libc::setresuid(user, user, user))?;
            }
            // It is one process, and nothing of it outlives it. After the change of user, which would count this one.
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            check(libc::setrlimit(libc::RLIMIT_NPROC, &raw const none))?;
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            // Wants no_new_privs of whoever is not root.
            let restricted = libc::syscall(libc::SYS_landlock_restrict_self, files, 0_u32);
            check(restricted as libc::c_int)?;
            // After the change of user, which clears it.
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))
        }
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Output};

    use super::*;
    use crate::layer::tests::limits;

    const USER: u32 = 1_999_999_042;

    /// Runs a program of the host as if it were the converter.
    fn run(program: &str, arguments: &[&str]) -> (tempfile::TempDir, Output) {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("own"), "own").unwrap();
        let work = File::open(directory.path()).unwrap();
        let mut command = Command::new(program);
        command.args(arguments);
        confine(&mut command, &File::open(program).unwrap(), &work, USER, limits()).unwrap();
        let output = command.output().unwrap();
        (directory, output)
    }

    #[test]
    fn the_converter_reaches_its_own_directory_only() {
        assert!(kernel_confines_files(), "this kernel has no Landlock: this test cannot say anything");
        let (_directory, output) = run("/bin/cat", &["own"]);
        assert_eq!(output.stdout, b"own");
        for public in ["/etc/passwd", "/proc/self/status", "/"] {
            let (_directory, output) = run("/bin/cat", &[public]);
            assert!(!output.status.success() && output.stdout.is_empty(), "{public}: {output:?}");
        }
        let (directory, output) = run("/bin/cp", &["own", "made"]);
        assert!(output.status.success() && directory.path().join("made").exists(), "{output:?}");
        let outside = tempfile::tempdir().unwrap();
        fs::set_permissions(outside.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let (_directory, output) = run("/bin/cp", &["own", outside.path().to_str().unwrap()]);
        assert!(!output.status.success(), "{output:?}");
    }

    #[test]
    fn the_converter_is_nobody_and_starts_nothing() {
        let (_directory, output) = run("/usr/bin/id", &["-u"]);
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), USER.to_string(), "{output:?}");
        let (_directory, output) = run("/usr/bin/env", &["/bin/true"]);
        assert!(!output.status.success(), "{output:?}");
        let (_directory, output) = run("/bin/sh", &["-c", "(echo child); true"]);
        assert!(output.stdout.is_empty(), "{output:?}");
    }
}
