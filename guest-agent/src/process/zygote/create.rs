//! A container's init process, made by libcontainer.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs::File,
    io::{Read, Seek},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::Path,
    sync::Arc,
};

use libcontainer::{
    container::builder::ContainerBuilder,
    syscall::syscall::SyscallType,
    workload::{Executor, ExecutorError, ExecutorSetEnvsError, ExecutorValidationError},
};
use nix::sys::memfd::{MFdFlags, memfd_create};
use oci_spec::runtime::Spec;

use super::{
    become_program::become_it,
    message::{Create, During, Failure, Program, Reply, reply},
};
use crate::{init::console, paths, sys};

/// Bytes of log lines that are looked at for a cause.
const MAX_CAUSE: u64 = 4096;

/// Makes the container; its init process then waits for the start.
pub fn run(
    request: &Create,
    mut fds: impl Iterator<Item = OwnedFd>,
    replies: &OwnedFd,
) -> Result<(), Failure> {
    let mut stdio = || fds.next().ok_or("missing").during("take a standard stream");
    let (stdin, stdout, stderr) = (stdio()?, stdio()?, stdio()?);
    adjust_oom_score(request.oom_score_adj);
    let console = request.terminal.then(|| Console::listen(&request.bundle)).transpose()?;
    let start = Start {
        program: Arc::new(request.program.clone()),
        replies: Arc::new(replies.try_clone().during("duplicate the replies' socket")?),
    };
    let mut builder = ContainerBuilder::new(request.id.clone(), SyscallType::default())
        .with_executor(start)
        .with_root_path(paths::STATE)
        .during("choose libcontainer's state directory")?;
    builder = match &console {
        Some(console) => builder.with_console_socket(Some(&console.path)),
        None => builder.with_stdin(stdin).with_stdout(stdout).with_stderr(stderr),
    };
    let log = copy_log()?;
    let built = builder.as_init(&request.bundle).with_systemd(false).with_detach(true).build();
    let container = built.map_err(|error| {
        Failure::new("create the container", &innermost(log).unwrap_or_else(|| chain(&error)))
    })?;
    let pid =
        container.pid().ok_or("libcontainer reports no process").during("create the container")?.as_raw();
    hand_over(pid, console, replies).inspect_err(|_| {
        // Who asked has given up, and would never learn of it: it would wait for its start, and hold its volumes, as long as the pod lives.
        let _ = sys::process::kill(pid, libc::SIGKILL);
    })
}

fn hand_over(pid: i32, console: Option<Console>, replies: &OwnedFd) -> Result<(), Failure> {
    if let Some(console) = console {
        let terminal = console.accept()?;
        reply(replies, &Reply::Terminal, Some(terminal.as_raw_fd())).during("hand on the terminal")?;
    }
    reply(replies, &Reply::Made(pid), None).during("reply")
}

/// Writes the score. Where the kernel refuses a negative one, the container runs with the one it has.
pub fn adjust_oom_score(score: i32) {
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", score.to_string()) {
        tracing::warn!(score, "oom_score_adj is left as it is: {error}");
    }
}

/// libcontainer's errors do not bring the cause home from the init process; it logs it there.
fn copy_log() -> Result<File, Failure> {
    let step = "make a file for log lines";
    let file = File::from(memfd_create("log", MFdFlags::MFD_CLOEXEC).during(step)?);
    console::copy_log_to(file.try_clone().during(step)?);
    Ok(file)
}

/// The first error that was logged: the later ones are of those who called.
fn innermost(mut log: File) -> Option<String> {
    log.rewind().ok()?;
    let mut text = String::new();
    log.take(MAX_CAUSE).read_to_string(&mut text).ok()?;
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix("ERROR "))?;
    Some(line.to_owned())
}

/// An error with all its causes: libcontainer's outer ones say little.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            let _ = write!(text, ": {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Where libcontainer sends the terminal's master end.
struct Console {
    listener: UnixListener,
    path: std::path::PathBuf,
}

impl Console {
    fn listen(bundle: &Path) -> Result<Self, Failure> {
        let path = bundle.join("tty");
        let listener = UnixListener::bind(&path).during("listen for the terminal")?;
        Ok(Self { listener, path })
    }

    fn accept(self) -> Result<OwnedFd, Failure> {
        let (stream, _) = self.listener.accept().during("accept the terminal")?;
        let mut name = [0u8; 256];
        let (_, fds) = sys::socket::receive(&stream, &mut name).during("receive the terminal")?;
        let _ = std::fs::remove_file(&self.path);
        fds.into_iter().next().ok_or("no descriptor came").during("receive the terminal")
    }
}

/// Becomes the container's program once the start is allowed, and says so if it cannot.
#[derive(Clone)]
struct Start {
    program: Arc<Program>,
    replies: Arc<OwnedFd>,
}

impl Executor for Start {
    fn exec(&self, _: &Spec) -> Result<(), ExecutorError> {
        // As in runc, also where it lies in a volume. Where it cannot be made, the entering fails and says why.
        let _ = std::fs::create_dir_all(&self.program.directory);
        match become_it(&self.program) {
            Ok(never) => match never {},
            // Back in libcontainer it would only be logged.
            Err(ending) => ending.report(&self.replies),
        }
    }

    /// The start looks for the program: containers may be made before their volumes hold it.
    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        Ok(())
    }

    /// The program gets its environment with execve.
    fn setup_envs(&self, _: HashMap<String, String>) -> Result<(), ExecutorSetEnvsError> {
        Ok(())
    }
}
