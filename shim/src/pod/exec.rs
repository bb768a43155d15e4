//! Runs one more process in a container.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, SystemTime},
};

use a3s_box_proto::{agent::ExecRequest, ids::ExecId};
use serde_json::{Value, json};
use tracing::debug;

use super::{
    container::Container,
    container_spec::LONGEST_SPEC,
    exit::Exit,
    process::{DRAIN_BOUND, Process, State},
    sandbox::Sandbox,
};
use crate::{
    agent::ProcessRef,
    error::{Error, Result, Step},
    io::{self, Stdio},
};

/// The most execs of a container that are not deleted.
const MOST_EXECS: usize = 4096;

/// An exec that waits to be started.
#[derive(Debug)]
pub struct ExecWanted {
    /// Its id.
    pub id: ExecId,
    /// OCI's `process` object, JSON.
    pub process: Vec<u8>,
    /// Its streams.
    pub stdio: Stdio,
}

/// An exec: the process, and what it shall run.
#[derive(Debug)]
pub struct Exec {
    /// The process.
    pub process: Process,
    spec: Vec<u8>,
}

impl Container {
    /// Takes note of an exec.
    ///
    /// # Errors
    /// The id is taken, the container does not run, or the process object is none.
    pub fn add_exec(&self, wanted: ExecWanted) -> Result<()> {
        if !matches!(self.process.state(), State::Running(_)) {
            return Err(self.process.wrong_state("exec"));
        }
        let spec = adapt(&wanted)?;
        let reference = ProcessRef { container: self.id.clone(), exec: Some(wanted.id.clone()) };
        let exec = Exec { process: Process::new(reference, wanted.stdio), spec };
        let mut execs = self.execs.lock().unwrap_or_else(PoisonError::into_inner);
        if execs.contains_key(&wanted.id) {
            return Err(Error::AlreadyExists(exec.process.object()));
        }
        if execs.len() >= MOST_EXECS {
            let object = format!("container {}", self.id);
            return Err(Error::Full { object, most: MOST_EXECS, what: "execs" });
        }
        execs.insert(wanted.id, Arc::new(exec));
        Ok(())
    }

    /// An exec by its id.
    ///
    /// # Errors
    /// There is none.
    pub fn exec(&self, id: &str) -> Result<Arc<Exec>> {
        let id: ExecId = id.parse()?;
        let execs = self.execs.lock().unwrap_or_else(PoisonError::into_inner);
        execs.get(&id).cloned().ok_or_else(|| Error::NotFound(format!("exec {id} of container {}", self.id)))
    }

    /// All of them.
    pub fn all_execs(&self) -> Vec<Arc<Exec>> {
        self.execs.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Forgets an exec that does not run; answers how it ended.
    ///
    /// # Errors
    /// It runs, or the agent fails.
    pub async fn delete_exec(&self, sandbox: &Sandbox, id: &str) -> Result<Option<Exit>> {
        let exec = self.exec(id)?;
        let exit = exec.process.ended()?;
        // containerd's clients may have read nothing yet of what it wrote last.
        exec.process
            .drain(if sandbox.death_message().is_some() { Duration::ZERO } else { DRAIN_BOUND })
            .await;
        if exit.is_some() && sandbox.death_message().is_none() {
            sandbox.agent.delete(&exec.process.reference).await?;
        }
        let id: ExecId = id.parse()?;
        self.execs.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        Ok(exit)
    }
}

impl Exec {
    /// Starts it, and watches over it.
    ///
    /// # Errors
    /// It was started before; or the program cannot be run: then it has ended with code 128.
    pub async fn start(self: &Arc<Self>, sandbox: &Arc<Sandbox>) -> Result<()> {
        self.process.begin_start()?;
        let opened = io::open(&sandbox.host, &self.process.stdio).await.step(|| self.process.object());
        let started = match opened {
            Ok(opened) => self.run(sandbox).await.map(|()| opened),
            Err(error) => Err(error),
        };
        match started {
            Ok(opened) => {
                let at = self.process.running();
                self.process.attach(sandbox, opened);
                tokio::spawn(self.clone().supervise(sandbox.clone(), at));
                Ok(())
            }
            Err(error) => {
                self.process.exited(Exit::not_started(error.to_string()));
                Err(error)
            }
        }
    }

    async fn run(&self, sandbox: &Sandbox) -> Result<()> {
        let request = ExecRequest {
            process: self.spec.clone(),
            stdin: self.process.stdio.stdin.is_some(),
            stdout: self.process.stdio.stdout.is_some(),
            stderr: self.process.stdio.stderr.is_some(),
            ..ExecRequest::default()
        };
        Ok(sandbox.agent.exec(&self.process.reference, request).await?)
    }

    /// The end is told at once; its output goes on until its streams end.
    async fn supervise(self: Arc<Self>, sandbox: Arc<Sandbox>, started: SystemTime) {
        let exit = self.process.outcome(&sandbox, started).await;
        if sandbox.death_message().is_some() {
            self.process.cut();
        }
        debug!(process = self.process.object(), code = exit.code, "exited");
        self.process.exited(exit);
    }
}

/// The terminal is what the request says: containerd says it twice.
fn adapt(wanted: &ExecWanted) -> Result<Vec<u8>> {
    let object = || format!("exec {}", wanted.id);
    let mut process: Value = serde_json::from_slice(&wanted.process)
        .map_err(|error| Error::invalid(object(), format!("its process: {error}")))?;
    if !process.is_object() {
        return Err(Error::invalid(object(), "its process is no JSON object"));
    }
    process["terminal"] = json!(wanted.stdio.terminal);
    let bytes = process.to_string().into_bytes();
    if bytes.len() > LONGEST_SPEC {
        return Err(Error::invalid(object(), format!("its process has more than {LONGEST_SPEC} bytes")));
    }
    Ok(bytes)
}
