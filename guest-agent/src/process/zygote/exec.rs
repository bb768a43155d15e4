//! One more process in a running container. libcontainer's way for this makes two processes, parses the container's
//! whole configuration and moves the process between cgroups; this one is made in its cgroup.

use std::{
    convert::Infallible,
    fs::File,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use nix::{
    sys::{
        stat::{Mode, umask},
        statfs::fstatfs,
    },
    unistd::{Gid, Uid, chdir, fchown, setgroups, setresgid, setresuid, setsid},
};

use super::{
    create::adjust_oom_score,
    message::{During, Exec, Failure, Reply, reply},
};
use crate::{
    process::program,
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
    match unsafe { process::fork_into_cgroup(&cgroup) }.during("fork into the container's cgroup")? {
        Fork::Parent(pid) => reply(replies, &Reply::Made(pid), None).during("reply"),
        Fork::Child => {
            let joined = process::join_namespaces(&init, cgroup_namespace)
                .during("enter the container's cgroup namespace");
            drop((init, cgroup));
            let become_it = || become_program(request, &stdio, replies);
            let answer = match joined.map_err(Ending::Step).and_then(|()| become_it()) {
                Ok(never) => match never {},
                Err(Ending::Step(failure)) => Reply::Failed(failure),
                Err(Ending::Program(message)) => Reply::Program(message),
            };
            let _ = reply(replies, &answer, None);
            process::exit(127)
        }
    }
}

/// Why no program runs.
enum Ending {
    Step(Failure),
    Program(String),
}

impl From<Failure> for Ending {
    fn from(failure: Failure) -> Self {
        Self::Step(failure)
    }
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
    umask(Mode::from_bits_truncate(request.user.umask().unwrap_or(0o022)));
    // As root first: a user may work in a directory whose parents are closed to him. Where root is refused
    // (NFS with root_squash), he tries himself below.
    let entered = chdir(&request.directory);
    if request.no_new_privileges {
        process::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).during("set no_new_privs")?;
    } else if let Some(filter) = &request.seccomp {
        // Without no_new_privs loading a filter is a privilege.
        filter.load().during("load the seccomp filter")?;
    }
    drop_privileges(request)?;
    if entered.is_err() {
        chdir(&request.directory)
            .during(&format!("chdir to {:?}, the working directory", request.directory.display()))?;
    }
    // The kernel shows a directory outside of the root as "(unreachable)": a way out of the container
    // (CVE-2024-21626).
    std::env::current_dir().during("check that the working directory lies in the container")?;
    program::find(first(&request.arguments), &request.environment)
        .map_err(|error| Ending::Program(error.to_string()))?;
    process::close_on_exec_from(3).during("close descriptors")?;
    if request.no_new_privileges
        && let Some(filter) = &request.seccomp
    {
        filter.load().during("load the seccomp filter")?;
    }
    Err(Ending::Program(program::execute(&request.arguments, &request.environment).to_string()))
}

fn first(arguments: &[String]) -> &str {
    arguments.first().map(String::as_str).unwrap_or_default()
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
    fchown(&peer, Some(request.user.uid().into()), None).during(step)?;
    tty::take_control(&peer).during(step)?;
    reply(replies, &Reply::Terminal, Some(master.as_raw_fd())).during("hand on the terminal")?;
    let copy = || peer.try_clone().during(step);
    Ok([copy()?, copy()?, peer])
}

fn drop_privileges(request: &Exec) -> Result<(), Failure> {
    let sets = request.capabilities.as_ref().map(capabilities::Sets::of);
    if let Some(sets) = &sets {
        sets.limit_bounding().during("drop bounding capabilities")?;
    }
    let groups: Vec<Gid> =
        request.user.additional_gids().iter().flatten().map(|&gid| Gid::from_raw(gid)).collect();
    setgroups(&groups).during("set supplementary groups")?;
    let (uid, gid) = (Uid::from_raw(request.user.uid()), Gid::from_raw(request.user.gid()));
    process::prctl(libc::PR_SET_KEEPCAPS, 1).during("keep capabilities")?;
    setresgid(gid, gid, gid).during("set the group")?;
    setresuid(uid, uid, uid).during("set the user")?;
    process::prctl(libc::PR_SET_KEEPCAPS, 0).during("keep capabilities")?;
    if let Some(sets) = &sets {
        sets.apply().during("set capabilities")?;
    }
    Ok(())
}

mod capabilities {
    //! The five sets, as bits.

    use std::{collections::HashSet, io};

    use libcontainer::capabilities::CapabilityExt;
    use oci_spec::runtime::{Capability, LinuxCapabilities};

    use crate::sys::process;

    /// The sets of a process.
    pub struct Sets {
        bounding: u64,
        effective: u64,
        permitted: u64,
        inheritable: u64,
        ambient: u64,
    }

    fn bits(set: Option<&HashSet<Capability>>) -> u64 {
        set.into_iter().flatten().fold(0, |bits, capability| bits | 1 << capability.to_cap().index())
    }

    impl Sets {
        pub fn of(sets: &LinuxCapabilities) -> Self {
            Self {
                bounding: bits(sets.bounding().as_ref()),
                effective: bits(sets.effective().as_ref()),
                permitted: bits(sets.permitted().as_ref()),
                inheritable: bits(sets.inheritable().as_ref()),
                ambient: bits(sets.ambient().as_ref()),
            }
        }

        pub fn limit_bounding(&self) -> io::Result<()> {
            for capability in (0..64).filter(|capability| self.bounding & (1 << capability) == 0) {
                match process::prctl(libc::PR_CAPBSET_DROP, capability) {
                    // Past the kernel's last capability.
                    Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
                    other => other?,
                }
            }
            Ok(())
        }

        pub fn apply(&self) -> io::Result<()> {
            process::set_capabilities(self.effective, self.permitted, self.inheritable)?;
            // Only what is permitted and inheritable can be ambient; the rest is no error in runc either.
            let ambient = self.ambient & self.permitted & self.inheritable;
            for capability in (0..64).filter(|capability| ambient & (1 << capability) != 0) {
                process::prctl2(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, capability)?;
            }
            Ok(())
        }
    }
}
