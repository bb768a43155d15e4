//! One more process in a running container.

use std::{
    fs::File,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use a3s_box_proto::ids::ExecId;
use oci_spec::runtime::{LinuxNamespaceType, Process as ProcessSpec};

use super::{Container, Containers, Exec, State, process_spec, start::NotRun, user};
use crate::{
    cgroup,
    error::{Error, For, Object, Step},
    process::{
        Process,
        stdio::{self, Stdio, Streams},
        zygote::{self, Conversation, Reply, Request},
    },
    rootfs::lookup::Root,
};

/// A process that is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// Its name.
    pub id: ExecId,
    /// OCI `process` object, JSON.
    pub process: Vec<u8>,
    /// The streams that the host has.
    pub streams: Streams,
}

impl Containers {
    /// Runs a process; answers its id. Repeated, it answers the same again.
    pub async fn exec(&self, container: &Arc<Container>, wanted: &Wanted) -> Result<i32, Error> {
        let fingerprint = super::fingerprint(wanted);
        let slot = Arc::clone(container.execs().entry(wanted.id.clone()).or_default());
        let making = slot.making.lock().await;
        if let Some(existing) = slot.made.get() {
            return if existing.fingerprint == fingerprint {
                Ok(existing.process.pid())
            } else {
                Err(Error::AlreadyExists(Object::Exec(container.id.clone(), wanted.id.clone())))
            };
        }
        let made = self.make_exec(container, wanted).await.map(|process| {
            let exec = Exec { fingerprint, process: Arc::new(process) };
            slot.made.get_or_init(|| exec).process.pid()
        });
        drop(making);
        match &made {
            Ok(pid) => tracing::debug!(container = %container.id, exec = %wanted.id, pid, "exec"),
            Err(_) => container.tidy_exec(&wanted.id, slot),
        }
        made
    }

    async fn make_exec(&self, container: &Arc<Container>, wanted: &Wanted) -> Result<Process, Error> {
        let object = || Object::Exec(container.id.clone(), wanted.id.clone());
        // Held to the end: meanwhile nobody unmounts what the process will need.
        let state = container.state.read().await;
        if !matches!(*state, State::Started) || container.init.ended().is_some() {
            return Err(container.precondition("it is not running"));
        }
        let base = container.spec.process().as_ref();
        let base = base.ok_or_else(|| container.precondition("it has no process"))?;
        let mut process = process_spec::for_exec(&wanted.process, base)?;
        let resolved = process_spec::user_of(&process);
        process_spec::set_user(&mut process, &resolved, || {
            user::home(&Root::open(&container.root_path()).of(object)?, resolved.uid)
        })?;
        self.run(container, &process, wanted.streams).await.map_err(|why| why.of(object()))
    }

    async fn run(
        &self,
        container: &Container,
        process: &ProcessSpec,
        streams: Streams,
    ) -> Result<Process, NotRun> {
        let (uid, gid) = (process.user().uid(), process.user().gid());
        let terminal = process.terminal().unwrap_or(false);
        let (stdio, ends) = if terminal {
            (None, stdio::placeholders()?)
        } else {
            let (stdio, ends) = stdio::pipes(uid, gid, streams)?;
            (Some(stdio), ends)
        };
        // A container may have moved its init process below its own cgroup, which then takes no processes itself.
        let directory = cgroup::of_process(container.init.pid())?;
        let cgroup: OwnedFd = File::open(&directory).step(|| format!("open {}", directory.display()))?.into();
        let request = Request::Exec(Box::new(request(container, process)));
        let launch = self.reaper.launch();
        let conversation = {
            let [input, output, error] = ends.0.each_ref().map(AsFd::as_fd);
            let fds = [input, output, error, container.init.handle().as_fd(), cgroup.as_fd()];
            self.zygote.ask(&request, &fds)?
        };
        drop(ends);
        let (pid, master) = outcome(&conversation).await?;
        let stdio = stdio.map_or_else(|| Stdio::of_sent_terminal(master, uid, streams.stdin), Ok);
        Ok(Process::adopt(pid, &launch, stdio)?)
    }
}

/// Reads replies to their end, which is the program's beginning. The order of the worker's and its child's is open.
async fn outcome(conversation: &Conversation) -> Result<(i32, Option<OwnedFd>), NotRun> {
    let (mut pid, mut terminal) = (None, None);
    loop {
        match conversation.next().await? {
            Some((Reply::Made(made), _)) => pid = Some(made),
            Some((Reply::Terminal, Some(master))) => terminal = Some(master),
            Some((Reply::Program(message), _)) => return Err(NotRun::Refused(message)),
            None => match pid {
                Some(pid) => return Ok((pid, terminal)),
                None => return Err(zygote::unexpected("make the process", None).into()),
            },
            other => return Err(zygote::unexpected("make the process", other).into()),
        }
    }
}

fn request(container: &Container, process: &ProcessSpec) -> zygote::Exec {
    let size = process.console_size().map(|size| (clamp(size.width()), clamp(size.height())));
    zygote::Exec {
        program: process_spec::program(&container.id, process, container.filter.clone()),
        rlimits: process.rlimits().clone().unwrap_or_default(),
        namespaces: namespaces(container),
        terminal: process.terminal().unwrap_or(false).then_some(zygote::Terminal { size }),
        oom_score_adj: process.oom_score_adj().unwrap_or(0),
    }
}

fn clamp(size: u64) -> u16 {
    u16::try_from(size).unwrap_or(u16::MAX)
}

/// What of the container's is not the agent's.
fn namespaces(container: &Container) -> i32 {
    let linux = container.spec.linux().as_ref();
    let entries = linux.and_then(|linux| linux.namespaces().as_ref()).into_iter().flatten();
    entries.fold(0, |flags, entry| {
        flags
            | match entry.typ() {
                LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
                LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
                LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
                LinuxNamespaceType::User => libc::CLONE_NEWUSER,
                LinuxNamespaceType::Time => 0x80,
                LinuxNamespaceType::Network | LinuxNamespaceType::Ipc | LinuxNamespaceType::Uts => 0,
            }
    })
}
