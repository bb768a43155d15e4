//! What the pod says, as containerd's task responses.

use containerd_shim_protos::api::{DeleteResponse, StateResponse, Status, WaitResponse};

use crate::{
    io::Stdio,
    pod::{
        Ended, Phase, Pod,
        exit::Exit,
        process::{Process, State},
    },
    service::timestamp,
};

pub(super) fn process(process: &Process) -> StateResponse {
    let mut response = StateResponse {
        stdin: Stdio::text(process.stdio.stdin.as_ref()),
        stdout: Stdio::text(process.stdio.stdout.as_ref()),
        stderr: Stdio::text(process.stdio.stderr.as_ref()),
        terminal: process.stdio.terminal,
        ..StateResponse::default()
    };
    match process.state() {
        State::Created | State::Starting => response.status = Status::CREATED.into(),
        State::Running(_) => response.status = Status::RUNNING.into(),
        State::Exited(_, exit) => stopped(&mut response, &exit),
    }
    response
}

/// The pause container's state is the pod's.
pub(super) fn pause(pod: &Pod) -> StateResponse {
    let mut response = StateResponse::default();
    match pause_state(pod) {
        (status, None) => response.status = status.into(),
        (_, Some(exit)) => stopped(&mut response, &exit),
    }
    response
}

pub(super) fn pause_state(pod: &Pod) -> (Status, Option<Exit>) {
    match pod.phase() {
        Phase::New | Phase::Booting | Phase::Created(_) => (Status::CREATED, None),
        Phase::Ready(_) => (Status::RUNNING, None),
        Phase::Stopped(ended) => (Status::STOPPED, Some(pause_exit(&ended))),
    }
}

/// It ends by being killed, whoever does it.
pub(super) fn pause_exit(ended: &Ended) -> Exit {
    Exit { at: ended.at, ..Exit::with_sandbox(ended.message.clone()) }
}

fn stopped(response: &mut StateResponse, exit: &Exit) {
    response.status = Status::STOPPED.into();
    response.exit_status = exit.code;
    response.exited_at = timestamp(exit.at);
}

pub(super) fn waited(exit: &Exit) -> WaitResponse {
    WaitResponse { exit_status: exit.code, exited_at: timestamp(exit.at), ..WaitResponse::default() }
}

pub(super) fn deleted(exit: Option<Exit>, pid: u32) -> DeleteResponse {
    let mut response = DeleteResponse { pid, ..DeleteResponse::default() };
    if let Some(exit) = exit {
        response.exit_status = exit.code;
        response.exited_at = timestamp(exit.at);
    }
    response
}
