//! The client of the guest's agent: dials, dials again when the channel breaks, and repeats the call.

mod calls;
mod check;
pub mod connect;

pub use calls::{GuestExit, ProcessRef};

use std::{sync::Arc, time::Duration};

use a3s_box_proto::agent_ttrpc::AgentClient;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;
use ttrpc::{Code, context};

use crate::{sys::tail::printable, vm::Vm};

/// The longest text of the agent's that goes into one of our errors.
const LONGEST_TEXT: usize = 4096;
/// Between two attempts to reach the agent.
const REDIAL_PAUSE: Duration = Duration::from_millis(50);
/// How much longer than we the guest works on a call. Its server ends one that is overdue by the guest's clock, which may
/// be the faster one, and its word for that would pass for an answer.
const GUEST_GOES_ON: Duration = Duration::from_secs(60);

/// Why a call of the agent failed.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The agent answered with an error.
    #[error("{call}: {message}")]
    Refused {
        /// The call.
        call: &'static str,
        /// The agent's code.
        code: Code,
        /// The agent's words: cut, control characters escaped.
        message: String,
    },
    /// The agent did not answer in time.
    #[error("{call}: no answer from the guest within {within:?}: {cause}")]
    TimedOut {
        /// The call.
        call: &'static str,
        /// How long was waited.
        within: Duration,
        /// What the last attempt met.
        cause: String,
    },
    /// The VM ended before the agent answered.
    #[error("{call}: the VM has ended")]
    Gone {
        /// The call.
        call: &'static str,
    },
    /// The agent answered something impossible.
    #[error("{call}: the guest's answer makes no sense: {what}")]
    Nonsense {
        /// The call.
        call: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
}

impl AgentError {
    /// The code for our own caller. What an agent may not blame on the caller is the guest's failure.
    pub fn code(&self) -> Code {
        match self {
            Self::Refused { code, .. } => match code {
                Code::NOT_FOUND
                | Code::INVALID_ARGUMENT
                | Code::FAILED_PRECONDITION
                | Code::ALREADY_EXISTS
                | Code::RESOURCE_EXHAUSTED
                | Code::PERMISSION_DENIED
                | Code::UNIMPLEMENTED => *code,
                _ => Code::INTERNAL,
            },
            Self::TimedOut { .. } => Code::DEADLINE_EXCEEDED,
            Self::Gone { .. } => Code::UNAVAILABLE,
            Self::Nonsense { .. } => Code::INTERNAL,
        }
    }
}

/// The agent of one VM.
#[derive(Clone)]
pub struct Agent {
    vm: Arc<dyn Vm>,
    client: Arc<Mutex<Option<AgentClient>>>,
    /// Cancelled when the VM has ended.
    gone: CancellationToken,
}

impl Agent {
    /// The agent in a VM, whose end `gone` tells. It is dialled when it is first called.
    pub fn new(vm: Arc<dyn Vm>, gone: CancellationToken) -> Self {
        Self { vm, client: Arc::default(), gone }
    }

    /// The VM that it runs in.
    pub fn vm(&self) -> &Arc<dyn Vm> {
        &self.vm
    }

    /// Makes a call, on as many connections as it takes, within a time. All calls of the agent are idempotent.
    async fn call<T, F, Answer>(&self, call: &'static str, within: Duration, make: F) -> Result<T, AgentError>
    where
        F: Fn(AgentClient, context::Context) -> Answer,
        Answer: Future<Output = ttrpc::Result<T>>,
    {
        tokio::select! {
            biased;
            () = self.gone.cancelled() => Err(AgentError::Gone { call }),
            outcome = self.repeat(call, within, make) => outcome,
        }
    }

    async fn repeat<T, F, Answer>(
        &self,
        call: &'static str,
        within: Duration,
        make: F,
    ) -> Result<T, AgentError>
    where
        F: Fn(AgentClient, context::Context) -> Answer,
        Answer: Future<Output = ttrpc::Result<T>>,
    {
        let deadline = Instant::now() + within;
        let mut cause = String::from("it is silent");
        loop {
            let timed_out = |cause| AgentError::TimedOut { call, within, cause };
            let attempt = async {
                let client = self.client().await.map_err(|error| error.to_string())?;
                let left = deadline.saturating_duration_since(Instant::now());
                let context = context::with_duration(left.saturating_add(GUEST_GOES_ON));
                Ok::<_, String>(make(client, context).await)
            };
            match timeout_at(deadline, attempt).await {
                Err(_) => return Err(timed_out(cause)),
                Ok(Ok(Ok(answer))) => return Ok(answer),
                Ok(Ok(Err(ttrpc::Error::RpcStatus(status)))) => {
                    let message = printable(status.message(), LONGEST_TEXT);
                    return Err(AgentError::Refused { call, code: status.code(), message });
                }
                Ok(Ok(Err(broken))) => {
                    cause = broken.to_string();
                    self.client.lock().await.take();
                }
                Ok(Err(unreachable)) => cause = unreachable,
            }
            if timeout_at(deadline, sleep(REDIAL_PAUSE)).await.is_err() {
                return Err(timed_out(cause));
            }
        }
    }

    async fn client(&self) -> std::io::Result<AgentClient> {
        let mut client = self.client.lock().await;
        if let Some(client) = client.as_ref() {
            return Ok(client.clone());
        }
        Ok(client.insert(connect::control(self.vm.as_ref()).await?).clone())
    }
}

#[cfg(test)]
mod tests;
