//! Disks that come and go while the VM runs: units of its SCSI controller, which needs no PCI.

use std::{io, os::fd::AsFd, time::Duration};

use async_trait::async_trait;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{arguments::SCSI, process::Qemu, qmp::Qmp};
use crate::vm::{Disk, Disks};

/// A guest's last requests to a disk that it used.
const GONE_BOUND: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(10);
/// Descriptor sets 1 and 2 are those of the command line.
const FIRST_SET: u64 = 16;

#[async_trait]
impl Disks for Qemu {
    async fn plug(&self, disk: Disk) -> io::Result<()> {
        let qmp = self.qmp();
        let set = set_of(disk.lun);
        qmp.execute("add-fd", json!({"fdset-id": set}), Some(disk.file.as_fd())).await?;
        let added = add(qmp, &disk, set).await;
        if added.is_err() {
            let _ = qmp.execute("remove-fd", json!({"fdset-id": set}), None).await;
        }
        added
    }

    async fn unplug(&self, lun: u8) -> io::Result<()> {
        let (qmp, name) = (self.qmp(), name_of(lun));
        qmp.execute("device_del", json!({"id": name}), None).await?;
        let deadline = Instant::now() + GONE_BOUND;
        // QEMU's device may stay for a moment, as long as a request is under way.
        while let Err(error) = qmp.execute("blockdev-del", json!({"node-name": name}), None).await {
            if Instant::now() > deadline {
                return Err(error);
            }
            sleep(PAUSE).await;
        }
        qmp.execute("remove-fd", json!({"fdset-id": set_of(lun)}), None).await
    }
}

async fn add(qmp: &Qmp, disk: &Disk, set: u64) -> io::Result<()> {
    let name = name_of(disk.lun);
    let node = json!({
        "driver": "host_device", "node-name": name, "filename": format!("/dev/fdset/{set}"),
        "read-only": disk.read_only, "discard": "unmap",
        // One device may be plugged twice, read-only for one container and writable for another.
        "locking": "off",
    });
    qmp.execute("blockdev-add", node, None).await?;
    let device = json!({
        "driver": "scsi-hd", "id": name, "drive": name, "bus": format!("{SCSI}.0"),
        "channel": 0, "scsi-id": 0, "lun": disk.lun, "share-rw": true,
        "werror": "report", "rerror": "report",
    });
    let plugged = qmp.execute("device_add", device, None).await;
    if plugged.is_err() {
        let _ = qmp.execute("blockdev-del", json!({"node-name": name}), None).await;
    }
    plugged
}

fn set_of(lun: u8) -> u64 {
    FIRST_SET + u64::from(lun)
}

fn name_of(lun: u8) -> String {
    format!("disk-{lun}")
}
