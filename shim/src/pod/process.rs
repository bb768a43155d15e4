//! A process in the guest, as the host sees it: a container's first, or an exec's.

use std::time::{Duration, SystemTime};

use a3s_box_proto::agent::Stream;
use tokio::{sync::watch, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{exit::Exit, sandbox::Sandbox};
use crate::{
    agent::{Agent, ProcessRef},
    error::{Error, Result},
    io::{Opened, Stdio, pump},
};

/// The signal that nobody survives.
pub const KILL: u32 = 9;

/// What has an output open after the process's end is waited for so long.
pub const DRAIN_BOUND: Duration = Duration::from_secs(2);

/// What a process is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It waits to be started.
    Created,
    /// It is being started.
    Starting,
    /// It runs since then.
    Running(SystemTime),
    /// It has ended.
    Exited(Option<SystemTime>, Exit),
}

impl State {
    /// The word that errors use.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running(_) => "running",
            Self::Exited(..) => "exited",
        }
    }

    /// When it was started.
    pub fn started(&self) -> Option<SystemTime> {
        match self {
            Self::Created | Self::Starting => None,
            Self::Running(at) => Some(*at),
            Self::Exited(at, _) => *at,
        }
    }
}

/// A process.
#[derive(Debug)]
pub struct Process {
    /// Which.
    pub reference: ProcessRef,
    /// Where its streams go.
    pub stdio: Stdio,
    state: watch::Sender<State>,
    close_stdin: CancellationToken,
    cut_input: CancellationToken,
    cut_outputs: CancellationToken,
    pumps: TaskTracker,
}

impl Process {
    /// A process that is not started yet.
    pub fn new(reference: ProcessRef, stdio: Stdio) -> Self {
        Self {
            reference,
            stdio,
            state: watch::Sender::new(State::Created),
            close_stdin: CancellationToken::new(),
            cut_input: CancellationToken::new(),
            cut_outputs: CancellationToken::new(),
            pumps: TaskTracker::new(),
        }
    }

    /// What errors call it.
    pub fn object(&self) -> String {
        match &self.reference.exec {
            Some(exec) => format!("exec {exec} of container {}", self.reference.container),
            None => format!("container {}", self.reference.container),
        }
    }

    /// What it is doing now.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// An error that says what it is doing.
    pub fn wrong_state(&self, action: &'static str) -> Error {
        Error::State { object: self.object(), state: self.state().name().into(), action }
    }

    /// Takes the right to start it: one caller gets it, once.
    ///
    /// # Errors
    /// It is not waiting to be started.
    pub fn begin_start(&self) -> Result<()> {
        let begun = self.state.send_if_modified(|state| {
            let created = *state == State::Created;
            if created {
                *state = State::Starting;
            }
            created
        });
        if begun { Ok(()) } else { Err(self.wrong_state("start")) }
    }

    /// It runs.
    pub fn running(&self) -> SystemTime {
        let now = SystemTime::now();
        self.state.send_replace(State::Running(now));
        now
    }

    /// It has ended, and all that belongs to that is done: tells whoever waits.
    pub fn exited(&self, exit: Exit) {
        self.cut_input.cancel();
        self.state.send_modify(|state| *state = State::Exited(state.started(), exit));
    }

    /// What it is doing once it is no longer being started: that has its own bound.
    pub async fn settled(&self) -> State {
        let mut state = self.state.subscribe();
        // The sender is this process, which is borrowed.
        let settled = state.wait_for(|state| *state != State::Starting).await;
        settled.map_or_else(|_| self.state(), |state| state.clone())
    }

    /// Waits for the end.
    pub async fn wait(&self) -> Exit {
        let mut state = self.state.subscribe();
        loop {
            if let State::Exited(_, exit) = &*state.borrow_and_update() {
                return exit.clone();
            }
            if state.changed().await.is_err() {
                return Exit::unknown("the process was forgotten".into());
            }
        }
    }

    /// Waits for its end in the guest, or the VM's; says how it ended.
    pub async fn outcome(&self, sandbox: &Sandbox, started: SystemTime) -> Exit {
        tokio::select! {
            // The agent's calls end with the VM as well.
            biased;
            message = sandbox.died() => Exit::with_sandbox(message),
            told = sandbox.agent.wait(&self.reference) => match told {
                Ok(exit) => Exit::from_guest(exit, started),
                Err(error) => Exit::unknown(error.to_string()),
            },
        }
    }

    /// How it ended; none where it was never started.
    ///
    /// # Errors
    /// It runs, and so cannot be deleted.
    pub fn ended(&self) -> Result<Option<Exit>> {
        match self.state() {
            State::Created => Ok(None),
            State::Exited(_, exit) => Ok(Some(exit)),
            State::Starting | State::Running(_) => Err(self.wrong_state("delete")),
        }
    }

    /// Begins to carry its streams.
    pub fn attach(&self, sandbox: &Sandbox, opened: Opened) {
        let agent: &Agent = &sandbox.agent;
        let outputs = [(Stream::STDOUT, opened.stdout), (Stream::STDERR, opened.stderr)];
        for (stream, sink) in outputs {
            let Some(sink) = sink else { continue };
            let pump =
                pump::output(agent.clone(), self.reference.clone(), stream, sandbox.share.bulk(), sink);
            self.pumps.spawn(self.cut_outputs.clone().run_until_cancelled_owned(pump));
        }
        if let Some(source) = opened.stdin {
            let close = self.close_stdin.clone();
            let pump = pump::input(agent.clone(), self.reference.clone(), source, close);
            self.pumps.spawn(self.cut_input.clone().run_until_cancelled_owned(pump));
        }
    }

    /// There is no more input to come.
    pub fn close_stdin(&self) {
        self.close_stdin.cancel();
    }

    /// Waits until its output is handed on, as long as that takes at most; then cuts it off.
    pub async fn drain(&self, bound: Duration) {
        self.cut_input.cancel();
        self.pumps.close();
        let _ = timeout(bound, self.pumps.wait()).await;
        self.cut();
    }

    /// Cuts its streams off.
    pub fn cut(&self) {
        self.cut_input.cancel();
        self.cut_outputs.cancel();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.cut();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> Process {
        let reference = ProcessRef { container: "c1".parse().unwrap(), exec: None };
        Process::new(reference, Stdio::parse("", "", "", false).unwrap())
    }

    #[tokio::test]
    async fn a_process_is_started_once_and_its_end_reaches_late_waiters() {
        let process = process();
        process.begin_start().unwrap();
        let second = process.begin_start().unwrap_err().to_string();
        assert_eq!(second, "container c1 is starting: cannot start");
        let started = process.running();
        process.exited(Exit::with_sandbox("gone".into()));
        assert_eq!(process.wait().await.message, "gone");
        assert_eq!(process.state().started(), Some(started));
    }
}
