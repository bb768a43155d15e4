//! One more process in a running container. libcontainer's way for this makes two processes, parses the container's
//! whole configuration and moves the process between cgroups; this one is made in its cgroup.

use std::{
    convert::Infallible,
    fs::File,
    io::Read,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use nix::{
    fcntl::{OFlag, openat},
    sys::{stat::Mode, statfs::fstatfs},
    unistd::{fchown, setresgid, setresuid, setsid},
};

use super::{
    become_program::{Ending, become_it},
    create::adjust_oom_score,
    message::{During, Exec, Failure, Reply, reply},
};
use crate::{
    cgroup::limit_of,
    sys::{
        process::{self, Fork},
        tty,
    },
};

/// `DEVPTS_SUPER_MAGIC` of linux/magic.h.
const DEVPTS: i64 = 0x1cd1;

/// Enters the container and makes the process.
pub fn run(request: &Exec, mut fds: impl Iterator<Item = OwnedFd>, replies: &OwnedFd) -> Result<(), Failure> {
    let mut next = || fds.next().ok_or("missing").during("take a descriptor");
    let stdio = [next()?, next()?, next()?];
    let (init, cgroup) = (next()?, next()?);
    // Until the program runs, nobody in the container may look into a process that still holds the agent's memory.
    process::prctl(libc::PR_SET_DUMPABLE, 0).during("hide the process")?;
    adjust_oom_score(request.oom_score_adj);
    // From inside its own cgroup namespace (with nsdelegate) no process can be put into the container's cgroup.
    let cgroup_namespace = request.namespaces & libc::CLONE_NEWCGROUP;
    process::join_namespaces(&init, request.namespaces & !cgroup_namespace)
        .during("enter the container's namespaces")?;
    // SAFETY: a worker has one thread. A second process is needed: only children are in the PID namespace.
    match unsafe { process::fork_into_cgroup(&cgroup) }.map_err(|error| refusal(&error, &cgroup))? {
        Fork::Parent(pid) => reply(replies, &Reply::Made(pid), None).during("reply"),
        Fork::Child => {
            let joined = process::join_namespaces(&init, cgroup_namespace)
                .during("enter the container's cgroup namespace");
            drop((init, cgroup));
            let became = joined.map_err(Ending::from).and_then(|()| become_program(request, &stdio, replies));
            match became {
                Ok(never) => match never {},
                Err(ending) => ending.report(replies),
            }
        }
    }
}

/// Why there is no further process: the kernel's EAGAIN means the container's own limit, or that of all the pod's containers.
fn refusal(error: &std::io::Error, cgroup: &OwnedFd) -> Failure {
    let step = "fork into the container's cgroup";
    if error.raw_os_error() != Some(libc::EAGAIN) {
        return Failure::new(step, error);
    }
    let cause = if is_full(cgroup) {
        "the container has as many processes as it may (pids.max)"
    } else {
        "the pod has as many processes as its guest may (kernel.threads-max)"
    };
    Failure::exhausted(step, &cause)
}

/// By descriptor: paths are the container's by now.
fn is_full(cgroup: &OwnedFd) -> bool {
    let number = |name: &str| {
        let file = openat(cgroup, name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).ok()?;
        let mut text = String::new();
        File::from(file).read_to_string(&mut text).ok()?;
        limit_of(&text)
    };
    number("pids.max").is_some_and(|most| number("pids.current").is_some_and(|now| now >= most))
}

/// In the order of privileges: what needs them comes before they go.
fn become_program(request: &Exec, stdio: &[OwnedFd; 3], replies: &OwnedFd) -> Result<Infallible, Ending> {
    setsid().during("begin a session")?;
    if request.namespaces & libc::CLONE_NEWUSER != 0 {
        setresgid(0.into(), 0.into(), 0.into()).during("become the user namespace's root")?;
        setresuid(0.into(), 0.into(), 0.into()).during("become the user namespace's root")?;
    }
    set_up_stdio(request, stdio, replies)?;
    for limit in &request.rlimits {
        // The type's variants stand in the order of the kernel's numbers.
        let (resource, soft, hard) = (limit.typ() as u32, limit.soft(), limit.hard());
        process::set_limit(resource, soft, hard).during("set a resource limit")?;
    }
    become_it(&request.program)
}

fn set_up_stdio(request: &Exec, stdio: &[OwnedFd; 3], replies: &OwnedFd) -> Result<(), Failure> {
    let ends: [OwnedFd; 3];
    let ends = if request.terminal.is_some() {
        ends = open_terminal(request, replies)?;
        &ends
    } else {
        stdio
    };
    for (end, target) in ends.iter().zip(0..) {
        process::duplicate_to(end, target).during("set up standard streams")?;
    }
    Ok(())
}

/// A terminal of the container's own devpts: programs find its name there.
fn open_terminal(request: &Exec, replies: &OwnedFd) -> Result<[OwnedFd; 3], Failure> {
    let step = "open a terminal";
    let master = File::options().read(true).write(true).open("/dev/ptmx").during(step)?;
    // A container could have put anything there (CVE-2025-52565).
    if fstatfs(master.as_fd()).during(step)?.filesystem_type().0 != DEVPTS {
        return Err(Failure::new(step, &"/dev/ptmx is no pseudo terminal"));
    }
    tty::unlock(&master).during(step)?;
    let peer = tty::peer(&master).during(step)?;
    if let Some(size) = request.terminal_size() {
        tty::resize(&master, size).during(step)?;
    }
    fchown(&peer, Some(request.program.user.uid().into()), None).during(step)?;
    tty::take_control(&peer).during(step)?;
    reply(replies, &Reply::Terminal, Some(master.as_raw_fd())).during("hand on the terminal")?;
    let copy = || peer.try_clone().during(step);
    Ok([copy()?, copy()?, peer])
}
