//! The QEMU process: started with everything it will ever need, and watched.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use tokio::{net::UnixStream, time::timeout};

use super::{
    arguments::{Inherited, arguments},
    qmp::Qmp,
};
use crate::{
    device::vsock::Connector,
    sys::process::{Identity, Program, Supervised},
    vm::{Devices, Plan, Vm, console::Console},
};

/// Why QEMU could not be started.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct StartError {
    step: &'static str,
    source: io::Error,
}

impl StartError {
    /// The kind of its cause.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

/// A running QEMU.
#[derive(Debug)]
pub struct Qemu {
    process: Supervised,
    qmp: Qmp,
    console: Console,
    connector: Arc<Connector>,
}

/// Where QEMU and the guest's console's file are.
#[derive(Debug, Clone)]
pub struct Paths {
    /// The emulator.
    pub qemu: PathBuf,
    /// The console's file.
    pub console: PathBuf,
    /// How much of the console is kept, bytes.
    pub console_bytes: usize,
}

/// Starts QEMU. It runs; whether its guest comes up is another question.
///
/// # Errors
/// The program or a descriptor cannot be made.
pub async fn start(
    paths: &Paths,
    plan: &Plan,
    devices: Devices,
    connector: Arc<Connector>,
) -> Result<Qemu, StartError> {
    let step = |step| move |source| StartError { step, source };
    let (console, console_end) = channel().map_err(step("making the console's socket"))?;
    let (qmp, qmp_end) = channel().map_err(step("making the monitor's socket"))?;
    let mut program = Program::new("qemu-system", &paths.qemu).map_err(step("opening QEMU"))?;
    let inherited = Inherited {
        kernel: program.inherit(devices.files.kernel.into()),
        initramfs: program.inherit(devices.files.initramfs.into()),
        kvm: devices.files.kvm.map(|kvm| program.inherit(kvm.into())),
        vsock: program.inherit(devices.vsock),
        share: program.inherit(devices.share),
        scratch: program.inherit(devices.scratch.into()),
        console: program.inherit(console_end),
        qmp: program.inherit(qmp_end),
        nics: devices.nics.into_iter().map(|nic| (program.inherit(nic.tap), nic.mac.to_string())).collect(),
    };
    program.args(arguments(plan, &inherited)).directory(Path::new("/")).user(plan.uid);
    let process = program.spawn().map_err(step("starting QEMU"))?;
    let console = Console::read(console, paths.console.clone(), paths.console_bytes);
    let qmp = Qmp::begin(qmp).await.map_err(step("greeting QEMU's monitor"))?;
    Ok(Qemu { process, qmp, console, connector })
}

fn channel() -> io::Result<(UnixStream, OwnedFd)> {
    let (ours, theirs) = StdStream::pair()?;
    ours.set_nonblocking(true)?;
    Ok((UnixStream::from_std(ours)?, theirs.into()))
}

impl Qemu {
    pub(super) fn qmp(&self) -> &Qmp {
        &self.qmp
    }

    /// The guest's console.
    pub fn console(&self) -> &Console {
        &self.console
    }

    /// Which process it is.
    pub fn identity(&self) -> Identity {
        self.process.identity()
    }
}

#[async_trait]
impl Vm for Qemu {
    fn pid(&self) -> u32 {
        self.process.identity().pid.unsigned_abs()
    }

    async fn connect(&self, port: u32) -> io::Result<UnixStream> {
        self.connector.connect(port).await
    }

    async fn wait(&self) -> String {
        let how = self.process.ended().await;
        match self.qmp.shutdown_reason() {
            Some(reason) => format!("{how} ({reason})"),
            None => how,
        }
    }

    async fn stop(&self, within: Duration) {
        let asked = async {
            // A QEMU that does not listen any more is killed below.
            if self.qmp.quit().await.is_ok() {
                self.process.ended().await;
            }
        };
        let _ = timeout(within, asked).await;
        self.process.kill().await;
    }
}
