//! Signals, window sizes and hang-ups.

use a3s_box_proto::ids::{ContainerId, ExecId};

use super::{Container, Containers};
use crate::{
    error::{Error, Failed, For, Object},
    process::pty::Pty,
    sys::tty::Size,
};

impl Containers {
    /// Sends a signal to a process. One that has ended gets nothing, which is no error: the caller could not know.
    pub fn signal(&self, id: &ContainerId, exec: Option<&ExecId>, signal: i32) -> Result<(), Error> {
        let process = self.process(id, exec)?;
        process.signal(signal).of(|| Object::Container(id.clone()))
    }

    /// Tells a process the size of its terminal.
    pub fn resize(&self, id: &ContainerId, exec: Option<&ExecId>, size: Size) -> Result<(), Error> {
        self.on_terminal(id, exec, |terminal| terminal.resize(size))
    }

    /// Hangs a process's terminal up.
    pub fn hang_up(&self, id: &ContainerId, exec: Option<&ExecId>) -> Result<(), Error> {
        self.on_terminal(id, exec, Pty::hang_up)
    }

    fn on_terminal(
        &self,
        id: &ContainerId,
        exec: Option<&ExecId>,
        action: impl FnOnce(&Pty) -> Result<(), Failed>,
    ) -> Result<(), Error> {
        let process = self.process(id, exec)?;
        let object = || Object::Container(id.clone());
        match &process.stdio.terminal {
            Some(terminal) => action(terminal).of(object),
            None => {
                Err(Error::Precondition { object: object(), why: "the process has no terminal".to_owned() })
            }
        }
    }
}

impl Container {
    /// Sends a signal to every process of the container.
    pub fn signal_all(&self, signal: i32) -> Result<(), Error> {
        self.cgroup.signal(signal).of(|| self.object())
    }
}
