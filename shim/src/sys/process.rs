//! Child processes that die with the shim, and whose end is noticed at once.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::process::ExitStatusExt,
    },
    path::Path,
    process::{ExitStatus, Stdio},
    sync::Arc,
};

use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{
        Gid, Pid, PidfdFlags, Signal, Uid, getpid, getppid, pidfd_open, pidfd_send_signal,
        set_parent_process_death_signal,
    },
    thread::{set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, ChildStderr, Command},
    sync::watch,
};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{socket::through_proc, tail::Tail};

/// How much of a program's error output is kept.
const STDERR_KEPT: usize = 4096;

/// A program to run: its arguments, what it inherits, who it runs as.
#[derive(Debug)]
pub struct Program {
    name: &'static str,
    /// Where the program lies. Closed by the exec itself.
    directory: File,
    command: Command,
    inherited: Vec<OwnedFd>,
    user: Option<u32>,
}

impl Program {
    /// A program with an empty environment; `name` is what errors call it.
    ///
    /// # Errors
    /// Its directory is not there.
    pub fn new(name: &'static str, path: &Path) -> io::Result<Self> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let (Some(directory), Some(file)) = (path.parent(), path.file_name()) else {
            return Err(named(io::ErrorKind::InvalidInput.into()));
        };
        // From its directory's descriptor: the user that it runs as need not reach the directories above.
        let directory = File::open(directory).map_err(named)?;
        let mut command = Command::new(through_proc(&directory).join(file));
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command.arg0(path);
        Ok(Self { name, directory, command, inherited: Vec::new(), user: None })
    }

    /// Adds an argument.
    pub fn arg(&mut self, argument: impl AsRef<OsStr>) -> &mut Self {
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    pub fn args(&mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Self {
        self.command.args(arguments);
        self
    }

    /// Sets the working directory.
    pub fn directory(&mut self, path: &Path) -> &mut Self {
        self.command.current_dir(path);
        self
    }

    /// Gives the program a descriptor, under the number that is returned.
    pub fn inherit(&mut self, descriptor: OwnedFd) -> i32 {
        let number = descriptor.as_raw_fd();
        self.inherited.push(descriptor);
        number
    }

    /// Runs it as a user and group of this number, without other groups and without a way to more privileges.
    pub fn user(&mut self, number: u32) -> &mut Self {
        self.user = Some(number);
        self
    }

    /// Starts the program. Must be called on the main thread: the kernel ends the children of a *thread*.
    ///
    /// # Errors
    /// The program is not there, or may not be run.
    pub fn spawn(mut self) -> io::Result<Supervised> {
        let (name, parent, user) = (self.name, getpid(), self.user);
        let inherited = std::mem::take(&mut self.inherited);
        // SAFETY: between fork and exec only system calls are made; nothing allocates, locks or unwinds.
        unsafe {
            self.command.pre_exec(move || {
                for descriptor in &inherited {
                    fcntl_setfd(descriptor.as_fd(), FdFlags::empty())?;
                }
                if let Some(number) = user {
                    become_user(number)?;
                }
                // After the change of user, which takes the setting back.
                set_parent_process_death_signal(Some(Signal::KILL))?;
                // The shim may have died before the setting took hold.
                if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
            });
        }
        let child = self.command.spawn();
        drop(self.directory);
        let child =
            child.map_err(|error| io::Error::new(error.kind(), format!("running {name}: {error}")))?;
        Supervised::watch(name, child)
    }
}

fn become_user(number: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(number), Gid::from_raw(number));
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    Ok(set_no_new_privs(true)?)
}

/// A process, told from later ones of the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The process id.
    pub pid: i32,
    /// When it started, in clock ticks since the machine did.
    pub started: u64,
}

impl Identity {
    /// The identity of a process that runs now.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { pid, started: start_time(&stat)? })
    }

    /// Kills the process if it is still the same. Whether it was there to be killed.
    pub fn kill(self) -> bool {
        let Some(pid) = Pid::from_raw(self.pid) else { return false };
        // The descriptor comes first: after it, the number cannot pass to another process unnoticed.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
        Self::of(self.pid) == Some(self) && pidfd_send_signal(&process, Signal::KILL).is_ok()
    }
}

/// The 22nd field; the second is a name in parentheses that may itself contain any character.
fn start_time(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// A running child. It is killed when this value is dropped.
#[derive(Debug)]
pub struct Supervised {
    name: &'static str,
    identity: Identity,
    stderr: Arc<Tail>,
    kill: CancellationToken,
    ended: watch::Receiver<Option<ExitStatus>>,
}

impl Supervised {
    fn watch(name: &'static str, mut child: Child) -> io::Result<Self> {
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).unwrap_or_default();
        // Unreaped, the child keeps its number and its entry in /proc even where it has ended already.
        let identity = Identity::of(pid).ok_or_else(|| io::Error::other(format!("{name} left no trace")))?;
        let stderr = Arc::new(Tail::new(STDERR_KEPT));
        if let Some(pipe) = child.stderr.take() {
            tokio::spawn(keep_stderr(name, pipe, stderr.clone()));
        }
        let (sender, ended) = watch::channel(None);
        let kill = CancellationToken::new();
        tokio::spawn(reap(child, kill.clone(), sender));
        Ok(Self { name, identity, stderr, kill, ended })
    }

    /// Which process it is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Waits for the end; says in words how it came, with the last of the program's error output.
    pub async fn ended(&self) -> String {
        let mut ended = self.ended.clone();
        let status = match ended.wait_for(Option::is_some).await {
            Ok(status) => *status,
            Err(_) => None,
        };
        let how = match status.map(|status| (status.code(), status.signal())) {
            Some((Some(code), _)) => format!("{} ended with code {code}", self.name),
            Some((_, Some(signal))) => format!("{} was killed by signal {signal}", self.name),
            _ => format!("{} ended", self.name),
        };
        match self.stderr.quote(3) {
            said if said.is_empty() => how,
            said => format!("{how}: {said}"),
        }
    }

    /// Waits for the end of a program that does one thing.
    ///
    /// # Errors
    /// It failed; the text says how.
    pub async fn finished(&self) -> io::Result<()> {
        let told = self.ended().await;
        let succeeded = self.ended.borrow().is_some_and(|status| status.success());
        if succeeded { Ok(()) } else { Err(io::Error::other(told)) }
    }

    /// Kills it and waits until it is reaped.
    pub async fn kill(&self) {
        self.kill.cancel();
        self.ended().await;
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.kill.cancel();
    }
}

async fn reap(mut child: Child, kill: CancellationToken, ended: watch::Sender<Option<ExitStatus>>) {
    let status = tokio::select! {
        status = child.wait() => status,
        () = kill.cancelled() => {
            // It may have ended by itself just now.
            let _ = child.start_kill();
            child.wait().await
        }
    };
    ended.send_replace(Some(status.unwrap_or_default()));
}

async fn keep_stderr(name: &'static str, pipe: ChildStderr, tail: Arc<Tail>) {
    let mut pipe = BufReader::with_capacity(1024, pipe);
    let mut line = Vec::new();
    // What has no end is taken in pieces.
    while let Ok(1..) = (&mut pipe).take(1024).read_until(b'\n', &mut line).await {
        tail.push(&line);
        debug!(program = name, "{}", String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_time_is_found_behind_any_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000";
        assert_eq!(start_time(stat), Some(98765));
    }

    #[tokio::test]
    async fn a_process_is_killed_by_identity_and_never_by_number_alone() {
        let mut program = Program::new("sleep", Path::new("/bin/sleep")).unwrap();
        program.arg("60");
        let child = program.spawn().unwrap();
        let later = Identity { started: child.identity().started + 1, ..child.identity() };
        assert!(!later.kill());
        assert!(child.identity().kill());
        assert_eq!(child.ended().await, "sleep was killed by signal 9");
        assert!(!child.identity().kill());
    }

    #[tokio::test]
    async fn an_end_is_told_with_the_last_words() {
        let mut program = Program::new("shell", Path::new("/bin/sh")).unwrap();
        program.args(["-c", "echo oh no >&2; exit 3"]);
        let child = program.spawn().unwrap();
        // The error output is read beside the waiting.
        let told = child.ended().await;
        assert!(told.starts_with("shell ended with code 3"), "{told}");
    }
}
