//! The QEMU process: started with everything it will ever need, and watched.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdStream},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use a3s_box_proto::config;
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

/// A running QEMU.
#[derive(Debug)]
pub(super) struct Qemu {
    process: Supervised,
    qmp: Qmp,
    console: Console,
    connector: Connector,
}

/// Starts QEMU, which keeps the guest's console in a file. It runs; whether its guest comes up is another question.
///
/// # Errors
/// The program or a descriptor cannot be made.
pub async fn start(
    config: &config::Vm,
    plan: &Plan,
    devices: Devices,
    console_file: PathBuf,
) -> io::Result<Arc<dyn Vm>> {
    let step = |step| move |error: io::Error| io::Error::new(error.kind(), format!("{step}: {error}"));
    let (console, console_end) = channel().map_err(step("making the console's socket"))?;
    let (qmp, qmp_end) = channel().map_err(step("making the monitor's socket"))?;
    let mut program = Program::new("qemu-system", &config.qemu).map_err(step("opening QEMU"))?;
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
    let kept = usize::try_from(config.console_kb).unwrap_or(usize::MAX).saturating_mul(1024);
    let console = Console::read(console, console_file, kept);
    let qmp = Qmp::begin(qmp).await.map_err(step("greeting QEMU's monitor"))?;
    Ok(Arc::new(Qemu { process, qmp, console, connector: devices.connector }))
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
}

#[async_trait]
impl Vm for Qemu {
    fn process(&self) -> Identity {
        self.process.identity()
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

    async fn last_words(&self) -> String {
        self.console.last_words().await
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
