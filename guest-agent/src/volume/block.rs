//! Disks that the host plugs in for a container.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::error::{Failed, Step};

/// The kernel looks at a new disk by itself, in the background.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(2);

/// A block device of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Disk {
    /// Its unit on the SCSI controller.
    pub lun: u8,
    /// Its number on the host.
    pub host: (i64, i64),
}

impl Disk {
    /// Waits for it; answers its number here.
    pub fn appeared(self) -> Result<(i64, i64), Failed> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(number) = self.number()? {
                return Ok(number);
            }
            if Instant::now() > deadline {
                let step = format!("look for block device {}:{} of the host", self.host.0, self.host.1);
                return Err(Failed::because(step, format!("no disk at SCSI unit {}", self.lun)));
            }
            super::pause(POLL);
        }
    }

    fn number(self) -> Result<Option<(i64, i64)>, Failed> {
        // One controller, one channel, one target.
        let directory = PathBuf::from(format!("/sys/bus/scsi/devices/0:0:0:{}/block", self.lun));
        let Ok(mut names) = fs::read_dir(&directory) else { return Ok(None) };
        let Some(Ok(name)) = names.next() else { return Ok(None) };
        let file = name.path().join("dev");
        let text = fs::read_to_string(&file).step(|| format!("read {}", file.display()))?;
        let number = text
            .trim()
            .split_once(':')
            .and_then(|(major, minor)| Some((major.parse::<i64>().ok()?, minor.parse::<i64>().ok()?)));
        number.map(Some).ok_or_else(|| {
            Failed::because(format!("read {}", file.display()), format!("{text:?} is no number"))
        })
    }
}
