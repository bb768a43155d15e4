//! Telling the host that the services listen.

use a3s_box_proto::{
    agent::{Device, Ready},
    ports,
    stream::{Kind, write_frame},
};
use protobuf::Message;
use tokio_vsock::{VMADDR_CID_HOST, VsockAddr, VsockStream};

use crate::{
    error::{Failed, Step},
    sys::device,
};

/// Dials the host once and says so. The connection is to be kept: vhost-device-vsock (0.3) remembers a closed one by
/// its descriptor's number, and takes the host's next connection, which gets that number, for it.
pub async fn announce() -> Result<VsockStream, Failed> {
    let kernel = nix::sys::utsname::uname().step(|| "read the kernel's release".to_owned())?;
    let devices = device::found().step(|| "look for network devices".to_owned())?;
    let told = |device: device::Device| Device {
        index: device.index,
        mac: device.mac.to_vec(),
        ..Default::default()
    };
    let ready = Ready {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel_release: kernel.release().to_string_lossy().into_owned(),
        devices: devices.into_iter().map(told).collect(),
        ..Default::default()
    };
    let payload =
        ready.write_to_bytes().map_err(|error| Failed::because("encode Ready", error.to_string()))?;
    let step = || format!("tell the host (vsock port {}) that the guest is ready", ports::READY);
    let mut host = VsockStream::connect(VsockAddr::new(VMADDR_CID_HOST, ports::READY)).await.step(step)?;
    write_frame(&mut host, Kind::Opened, &payload).await.step(step)?;
    Ok(host)
}
