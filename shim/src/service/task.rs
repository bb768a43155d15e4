//! `containerd.task.v3.Task`: the pod's containers and what runs in them.

mod decode;
mod encode;

use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim_protos::{
    api::{
        CheckpointTaskRequest, CloseIORequest, ConnectRequest, ConnectResponse, CreateTaskRequest,
        CreateTaskResponse, DeleteRequest, DeleteResponse, Empty, ExecProcessRequest, KillRequest,
        PauseRequest, PidsRequest, PidsResponse, ProcessInfo, ResizePtyRequest, ResumeRequest,
        ShutdownRequest, StartRequest, StartResponse, StateRequest, StateResponse, StatsRequest,
        StatsResponse, UpdateTaskRequest, WaitRequest, WaitResponse,
    },
    shim_async::Task,
};
use protobuf::MessageField;
use ttrpc::asynchronous::TtrpcContext;

use super::{metrics, unbroken};
use crate::{
    error::{Error, Result},
    pod::{
        Pod,
        container::Container,
        exec::Exec,
        process::{Process, State},
        tasks::Task as PodTask,
    },
};

/// What containerd is told of our version of the protocol.
const PROTOCOL: &str = "3";

/// The service.
pub struct TaskService(pub Arc<Pod>);

/// What a request with a container's id and perhaps an exec's speaks of.
enum Target {
    Pause,
    Container(Arc<Container>),
    Exec(Arc<Container>, Arc<Exec>),
}

impl Target {
    fn find(pod: &Pod, id: &str, exec: &str) -> Result<Self> {
        match pod.task(id)? {
            PodTask::Pause if exec.is_empty() => Ok(Self::Pause),
            PodTask::Pause => Err(Error::NotFound(format!("exec {exec} of container {id}"))),
            PodTask::Container(container) if exec.is_empty() => Ok(Self::Container(container)),
            PodTask::Container(container) => {
                let exec = container.exec(exec)?;
                Ok(Self::Exec(container, exec))
            }
        }
    }

    fn process(&self) -> Option<&Process> {
        match self {
            Self::Pause => None,
            Self::Container(container) => Some(&container.process),
            Self::Exec(_, exec) => Some(&exec.process),
        }
    }

    /// A process that runs, to do something with it.
    fn running(&self, action: &'static str) -> Result<&Process> {
        let process = self.process().ok_or_else(|| Error::State {
            object: "the pod's own task".into(),
            state: "no process".into(),
            action,
        })?;
        match process.state() {
            State::Running(_) => Ok(process),
            // containerd's word for what has ended.
            State::Exited(..) => Err(Error::NotFound(format!("the process of {}", process.object()))),
            State::Created | State::Starting => Err(process.wrong_state(action)),
        }
    }
}

impl TaskService {
    fn pid(&self) -> u32 {
        self.0.sandbox().map(|sandbox| sandbox.pid).unwrap_or_default()
    }

    async fn kill(pod: Arc<Pod>, request: KillRequest) -> Result<Empty> {
        let target = Target::find(&pod, &request.id, &request.exec_id)?;
        if matches!(target, Target::Pause) {
            if encode::pause_state(&pod).1.is_some() {
                return Err(Error::NotFound(format!("the process of container {}", request.id)));
            }
            pod.stop(std::time::Duration::ZERO).await?;
            return Ok(Empty::new());
        }
        let sandbox = pod.sandbox()?;
        match &target {
            Target::Container(container) if container.process.state() == State::Created => {
                container.signal_unstarted(&sandbox, request.signal, request.all).await?;
            }
            _ => {
                let process = target.running("signal it")?;
                sandbox.agent.signal(&process.reference, request.signal, request.all).await?;
            }
        }
        Ok(Empty::new())
    }

    async fn delete(pod: Arc<Pod>, request: DeleteRequest) -> Result<DeleteResponse> {
        let (exit, pid) = match Target::find(&pod, &request.id, &request.exec_id)? {
            Target::Pause => {
                let Some(exit) = encode::pause_state(&pod).1 else {
                    let object = format!("container {}", request.id);
                    return Err(Error::State { object, state: "running".into(), action: "delete" });
                };
                pod.forget(&request.id.parse()?);
                (Some(exit), 0)
            }
            Target::Exec(container, _) => {
                let sandbox = pod.sandbox()?;
                (container.delete_exec(&sandbox, &request.exec_id).await?, sandbox.pid)
            }
            Target::Container(container) => {
                let sandbox = pod.sandbox()?;
                let exit = container.delete(&sandbox).await?;
                pod.forget(&container.id);
                (exit, sandbox.pid)
            }
        };
        Ok(encode::deleted(exit, pid))
    }
}

#[async_trait]
impl Task for TaskService {
    async fn state(&self, _: &TtrpcContext, request: StateRequest) -> ttrpc::Result<StateResponse> {
        let target = Target::find(&self.0, &request.id, &request.exec_id)?;
        let mut response = match &target {
            Target::Pause => encode::pause(&self.0),
            Target::Container(container) => encode::process(&container.process),
            Target::Exec(_, exec) => encode::process(&exec.process),
        };
        if let Target::Container(container) | Target::Exec(container, _) = &target {
            response.bundle = container.bundle.to_string_lossy().into_owned();
        }
        response.pid = self.pid();
        response.id = request.id;
        response.exec_id = request.exec_id;
        Ok(response)
    }

    async fn create(
        &self,
        _: &TtrpcContext,
        request: CreateTaskRequest,
    ) -> ttrpc::Result<CreateTaskResponse> {
        let (pod, wanted) = (self.0.clone(), decode::container(request)?);
        unbroken(async move {
            if !pod.create_pause(&wanted.id, &wanted.bundle).await? {
                pod.create_container(wanted).await?;
            }
            Ok(CreateTaskResponse { pid: pod.sandbox()?.pid, ..CreateTaskResponse::default() })
        })
        .await
    }

    async fn start(&self, _: &TtrpcContext, request: StartRequest) -> ttrpc::Result<StartResponse> {
        let pod = self.0.clone();
        unbroken(async move {
            let pid = match Target::find(&pod, &request.id, &request.exec_id)? {
                Target::Pause => pod.start().await?.pid,
                Target::Container(container) => {
                    let sandbox = pod.ready("start a container")?;
                    container.start(&sandbox).await?;
                    sandbox.pid
                }
                Target::Exec(_, exec) => {
                    let sandbox = pod.ready("start an exec")?;
                    exec.start(&sandbox).await?;
                    sandbox.pid
                }
            };
            Ok(StartResponse { pid, ..StartResponse::default() })
        })
        .await
    }

    async fn delete(&self, _: &TtrpcContext, request: DeleteRequest) -> ttrpc::Result<DeleteResponse> {
        unbroken(Self::delete(self.0.clone(), request)).await
    }

    async fn pids(&self, _: &TtrpcContext, request: PidsRequest) -> ttrpc::Result<PidsResponse> {
        self.0.task(&request.id)?;
        // containerd reads these processes' /proc: only the host's will do.
        let vmm = ProcessInfo { pid: self.pid(), ..ProcessInfo::default() };
        Ok(PidsResponse { processes: vec![vmm], ..PidsResponse::default() })
    }

    async fn pause(&self, _: &TtrpcContext, _: PauseRequest) -> ttrpc::Result<Empty> {
        Err(Error::Unsupported("pausing a container").into())
    }

    async fn resume(&self, _: &TtrpcContext, _: ResumeRequest) -> ttrpc::Result<Empty> {
        Err(Error::Unsupported("resuming a container").into())
    }

    async fn checkpoint(&self, _: &TtrpcContext, _: CheckpointTaskRequest) -> ttrpc::Result<Empty> {
        Err(Error::Unsupported("a checkpoint of a container").into())
    }

    async fn kill(&self, _: &TtrpcContext, request: KillRequest) -> ttrpc::Result<Empty> {
        unbroken(Self::kill(self.0.clone(), request)).await
    }

    async fn exec(&self, _: &TtrpcContext, request: ExecProcessRequest) -> ttrpc::Result<Empty> {
        let container = self.0.container(&request.id, "exec")?;
        container.add_exec(decode::exec(request)?)?;
        Ok(Empty::new())
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: ResizePtyRequest) -> ttrpc::Result<Empty> {
        let target = Target::find(&self.0, &request.id, &request.exec_id)?;
        let process = target.running("resize its terminal")?;
        let agent = &self.0.sandbox()?.agent;
        agent.resize(&process.reference, request.width, request.height).await.map_err(Error::from)?;
        Ok(Empty::new())
    }

    async fn close_io(&self, _: &TtrpcContext, request: CloseIORequest) -> ttrpc::Result<Empty> {
        let target = Target::find(&self.0, &request.id, &request.exec_id)?;
        if let (true, Some(process)) = (request.stdin, target.process()) {
            process.close_stdin();
        }
        Ok(Empty::new())
    }

    async fn update(&self, _: &TtrpcContext, request: UpdateTaskRequest) -> ttrpc::Result<Empty> {
        let container = self.0.container(&request.id, "update")?;
        let resources = decode::resources(request)?;
        let pod = self.0.clone();
        unbroken(async move {
            container.update(&*pod.ready("update a container")?, resources).await?;
            Ok(Empty::new())
        })
        .await
    }

    async fn wait(&self, _: &TtrpcContext, request: WaitRequest) -> ttrpc::Result<WaitResponse> {
        let exit = match Target::find(&self.0, &request.id, &request.exec_id)? {
            Target::Pause => encode::pause_exit(self.0.ended().await.as_ref()),
            Target::Container(container) => container.process.wait().await,
            Target::Exec(_, exec) => exec.process.wait().await,
        };
        Ok(encode::waited(&exit))
    }

    async fn stats(&self, _: &TtrpcContext, request: StatsRequest) -> ttrpc::Result<StatsResponse> {
        let stats = match self.0.task(&request.id)? {
            PodTask::Pause => metrics::of_pod(&self.0).await?,
            PodTask::Container(container) => metrics::of_container(&self.0, &container).await?,
        };
        Ok(StatsResponse { stats: MessageField::some(stats), ..StatsResponse::default() })
    }

    async fn connect(&self, _: &TtrpcContext, request: ConnectRequest) -> ttrpc::Result<ConnectResponse> {
        // containerd also connects with the sandbox's id.
        if request.id != self.0.id.as_str() {
            self.0.task(&request.id)?;
        }
        Ok(ConnectResponse {
            shim_pid: std::process::id(),
            task_pid: self.pid(),
            version: PROTOCOL.into(),
            ..ConnectResponse::default()
        })
    }

    async fn shutdown(&self, _: &TtrpcContext, request: ShutdownRequest) -> ttrpc::Result<Empty> {
        let pod = self.0.clone();
        unbroken(async move {
            // containerd sends this after each container, and where the pause container could not be made; the shim ends
            // with the last, unless it serves a sandbox: then that is what ends it.
            if request.now || (pod.has_no_tasks() && pod.has_no_vm()) {
                pod.shut_down().await?;
            }
            Ok(Empty::new())
        })
        .await
    }
}
