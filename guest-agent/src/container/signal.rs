//! Signals, window sizes and hang-ups.

use a3s_box_proto::ids::{ContainerId, ExecId};

use super::{Container, Containers};
use crate::{
    cgroup::Cgroup,
    error::{Error, Failed, For, Object},
    process::pty::Pty,
    sys::{process, tty::Size},
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
    pub fn signal_all(&self, signal: i32) {
        for pid in processes(&self.cgroup) {
            // It may have ended since it was listed.
            let _ = process::kill(pid, signal);
        }
    }
}

/// The processes in a cgroup and below it.
fn processes(cgroup: &Cgroup) -> Vec<i32> {
    let mut found = Vec::new();
    let mut directories = vec![cgroup.path().to_owned()];
    while let Some(directory) = directories.pop() {
        let list = std::fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        // 0 stands for a process that cannot be seen from here.
        found.extend(list.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
        let children = std::fs::read_dir(&directory).into_iter().flatten().flatten();
        directories.extend(
            children
                .filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|child| child.path()),
        );
    }
    found
}
