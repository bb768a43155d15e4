//! The last steps of a container's process: from all privileges of the container's root to the program's own. They are
//! the same for an init process and for an exec.
//!
//! libcontainer's own steps are not used: they load the seccomp filter by libseccomp, which takes nearly a second where
//! the processor is emulated, with the two values of masked comparisons exchanged, and before the init process has to
//! wait on a socket, which a strict filter forbids.

use std::{convert::Infallible, ffi::CString, os::fd::OwnedFd};

use nix::{
    sys::stat::{Mode, umask},
    unistd::{Gid, Uid, chdir, setgroups, setresgid, setresuid},
};

use super::message::{During, Failure, Program, Reply, reply};
use crate::{process::program, sys::process};

/// Why no program runs.
pub enum Ending {
    /// A step failed.
    Step(Failure),
    /// There is no such program, or it may not be executed.
    Program(String),
}

impl From<Failure> for Ending {
    fn from(failure: Failure) -> Self {
        Self::Step(failure)
    }
}

impl Ending {
    /// Tells PID 1 and ends the process: nothing else can be done with it.
    pub fn report(self, replies: &OwnedFd) -> ! {
        let answer = match self {
            Self::Step(failure) => Reply::Failed(failure),
            Self::Program(message) => Reply::Program(message),
        };
        let _ = reply(replies, &answer, None);
        process::exit(127)
    }
}

/// Becomes the program. What needs privileges comes before they go.
pub fn become_it(request: &Program) -> Result<Infallible, Ending> {
    join_keyring(&request.keyring);
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
    let name = request.arguments.first().map(String::as_str).unwrap_or_default();
    program::find(name, &request.environment).map_err(|error| Ending::Program(error.to_string()))?;
    process::close_on_exec_from(3).during("close descriptors")?;
    if request.no_new_privileges
        && let Some(filter) = &request.seccomp
    {
        filter.load().during("load the seccomp filter")?;
    }
    Err(Ending::Program(program::execute(&request.arguments, &request.environment).to_string()))
}

/// By its name, as root: the user of an exec may be another than the container's. A container runs without it, too.
fn join_keyring(name: &str) {
    let joined = CString::new(name).map_err(Into::into).and_then(|name| process::join_session_keyring(&name));
    if let Err(error) = joined {
        tracing::warn!("join the session keyring {name}: {error}");
    }
}

fn drop_privileges(request: &Program) -> Result<(), Failure> {
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
