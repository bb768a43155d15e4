//! Making, joining, waiting for and signalling processes.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Of linux/sched.h; libc's constant is too narrow for it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of a fork one is on.
#[derive(Debug, PartialEq, Eq)]
pub enum Fork {
    /// The old process, told the new one's id.
    Parent(i32),
    /// The new process.
    Child,
}

/// Copies the calling process.
///
/// # Safety
/// The process must have one thread only: a lock held by another would stay locked in the copy for ever.
pub unsafe fn fork() -> io::Result<Fork> {
    // SAFETY: the caller promises a single thread.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid)),
    }
}

/// Copies the calling process into a cgroup: cheaper than a later move, for which the kernel stops all forks.
///
/// # Safety
/// As [`fork`].
pub unsafe fn fork_into_cgroup(cgroup: &impl AsFd) -> io::Result<Fork> {
    // SAFETY: all-zero is a valid value of this plain structure.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = CLONE_INTO_CGROUP;
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.cgroup = cgroup.as_fd().as_raw_fd() as u64;
    let size = std::mem::size_of::<libc::clone_args>();
    // SAFETY: without CLONE_VM this is a fork; the caller promises a single thread.
    match check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size) })? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid as i32)),
    }
}

/// Ends a forked process without running what its parent has registered for its own end.
pub fn exit(code: i32) -> ! {
    // SAFETY: never returns, touches no memory.
    unsafe { libc::_exit(code) }
}

/// Resets the machine: at once, or not at all.
pub fn reset_machine() {
    // SAFETY: plain integers; every process but PID 1 may end at any moment.
    unsafe { libc::reboot(libc::RB_AUTOBOOT) };
}

/// A handle that never means another process.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain integers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sends a signal by number: real-time signals as well.
pub fn pidfd_signal(process: &impl AsFd, signal: i32) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    let fd = process.as_fd().as_raw_fd();
    // SAFETY: the information may be null.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, no_info, 0) }).map(|_| ())
}

/// Sends a signal to a process by its id.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: plain integers.
    check(libc::c_long::from(unsafe { libc::kill(pid, signal) })).map(|_| ())
}

/// A child's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// Its id.
    pub pid: i32,
    /// Its exit code; 128 + n after death by signal n.
    pub code: u32,
}

/// Takes the status of one child that has ended, if there is one.
/// (nix's own waitid loses a status whose signal is a real-time signal.)
pub fn reap_one() -> io::Result<Option<Ended>> {
    // SAFETY: all-zero is a valid siginfo_t.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is ours.
    let result = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, libc::WEXITED | libc::WNOHANG) };
    match check(libc::c_long::from(result)) {
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(None),
        other => other?,
    };
    // SAFETY: waitid succeeded, so these fields are set; zero where no child has ended.
    let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
    if pid == 0 {
        return Ok(None);
    }
    let code = match info.si_code {
        libc::CLD_EXITED => status as u32 & 0xff,
        _ => 128 + status as u32,
    };
    Ok(Some(Ended { pid, code }))
}

/// Enters namespaces of a process, all in one step.
pub fn join_namespaces(process: &impl AsFd, kinds: i32) -> io::Result<()> {
    if kinds == 0 {
        return Ok(());
    }
    // SAFETY: plain integers.
    check(libc::c_long::from(unsafe { libc::setns(process.as_fd().as_raw_fd(), kinds) })).map(|_| ())
}

/// Sets a signal to be ignored, or to its default.
pub fn set_ignored(signal: i32, ignored: bool) {
    let handler = if ignored { libc::SIG_IGN } else { libc::SIG_DFL };
    // SAFETY: neither disposition runs code of ours.
    unsafe { libc::signal(signal, handler) };
}

/// What a program expects of its signals: Rust ignores SIGPIPE, and an ignored signal stays so through exec.
pub fn default_signals() {
    for signal in 1..=libc::SIGRTMAX() {
        set_ignored(signal, false);
    }
    // SAFETY: all-zero is an empty set, and the old mask is not wanted.
    unsafe {
        let none: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// prctl with one argument.
pub fn prctl(option: i32, argument: libc::c_ulong) -> io::Result<()> {
    let zero: libc::c_ulong = 0;
    // SAFETY: only options that take integers are used with this function.
    check(libc::c_long::from(unsafe { libc::prctl(option, argument, zero, zero, zero) })).map(|_| ())
}

/// prctl with two arguments.
pub fn prctl2(option: i32, first: libc::c_ulong, second: libc::c_ulong) -> io::Result<()> {
    let zero: libc::c_ulong = 0;
    // SAFETY: only options that take integers are used with this function.
    check(libc::c_long::from(unsafe { libc::prctl(option, first, second, zero, zero) })).map(|_| ())
}

/// Joins the session keyring of that name, or makes it. As in runc, further processes of its owner can find it.
pub fn join_session_keyring(name: &CStr) -> io::Result<()> {
    /// `KEY_POS_ALL`, and of `KEY_USR_*` VIEW, READ, SEARCH and LINK (linux/key.h).
    const PERMISSIONS: libc::c_ulong = 0x3f1b_0000;
    // SAFETY: the string lives through the call.
    let keyring =
        check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) })?;
    // SAFETY: plain integers.
    check(unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_SETPERM, keyring, PERMISSIONS) }).map(|_| ())
}

/// The name that `ps` shows.
pub fn set_name(name: &CStr) {
    // SAFETY: the string lives through the call; the kernel copies at most 16 bytes.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Sets effective, permitted and inheritable capabilities, one bit each.
pub fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> io::Result<()> {
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    /// `_LINUX_CAPABILITY_VERSION_3`: two words of 32 bits.
    const VERSION: u32 = 0x2008_0522;
    let header = Header { version: VERSION, pid: 0 };
    let words = |shift: u32| [effective, permitted, inheritable].map(|set| (set >> shift) as u32);
    let data = [words(0), words(32)];
    // SAFETY: header and data have the layout of version 3 and live through the call.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(|_| ())
}

/// Loads a compiled seccomp filter.
pub fn load_seccomp(program: &[libc::sock_filter], flags: u32) -> io::Result<()> {
    /// `SECCOMP_SET_MODE_FILTER`.
    const SET_MODE_FILTER: libc::c_uint = 1;
    let length = u16::try_from(program.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "seccomp filter is too long"))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel only reads the program, which lives through the call.
    check(unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, flags, &raw const program) }).map(|_| ())
}

/// All descriptors from `first` on are closed when a program is executed.
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC as libc::c_int;
    // SAFETY: it only sets a flag, it closes nothing now.
    check(libc::c_long::from(unsafe { libc::close_range(first, u32::MAX, flags) })).map(|_| ())
}

/// Sets a resource limit by its number.
pub fn set_limit(resource: u32, soft: u64, hard: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: the structure lives through the call.
    check(libc::c_long::from(unsafe { libc::setrlimit(resource, &raw const limit) })).map(|_| ())
}

/// Makes the pipe, file or terminal behind a descriptor the process's standard stream.
pub fn duplicate_to(source: &impl AsFd, target: i32) -> io::Result<()> {
    let source = source.as_fd().as_raw_fd();
    if source == target {
        return Ok(());
    }
    // SAFETY: only 0, 1 and 2 are targets, which no owner of this process holds.
    check(libc::c_long::from(unsafe { libc::dup2(source, target) })).map(|_| ())
}

/// Closes all descriptors from `first` on.
///
/// # Safety
/// Nothing that owns one of them may use it afterwards.
pub unsafe fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: the caller promises that nobody uses them any more.
    check(libc::c_long::from(unsafe { libc::close_range(first, u32::MAX, 0) })).map(|_| ())
}
