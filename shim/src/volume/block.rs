//! Block devices of the host that containers use as such: plugged into the VM as long as one of them does.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    sync::Arc,
};

use rustix::fs::makedev;
use tracing::warn;

use crate::{
    agent::Agent,
    error::{Error, Result, Step},
    sys::namespace::HostNamespace,
    vm::Disk,
};

/// The guest's kernel looks at the units that are plugged in later, but for the first.
const FIRST_LUN: u8 = 1;

/// Major and minor number on the host.
pub type Number = (u32, u32);

/// A block device of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Its number on the host.
    pub number: Number,
    /// Nobody in the guest may write to it.
    pub read_only: bool,
}

/// The devices that are plugged into the VM.
pub struct Blocks {
    agent: Arc<Agent>,
    /// Where the search for a free unit begins.
    next: u8,
    plugged: Vec<Plugged>,
}

struct Plugged {
    block: Block,
    /// Its unit on the guest's SCSI controller.
    lun: u8,
    users: usize,
}

impl Blocks {
    /// None yet.
    pub fn new(agent: Arc<Agent>) -> Self {
        Self { agent, next: FIRST_LUN, plugged: Vec::new() }
    }

    /// Plugs a device of a container, which is one user more: its unit goes to `held`, to be given back by
    /// [`Blocks::release`].
    ///
    /// # Errors
    /// The host has no such device, or the VMM refuses it.
    pub async fn plug(&mut self, host: &HostNamespace, block: Block, held: &mut Vec<u8>) -> Result<u8> {
        if let Some(plugged) = self.plugged.iter_mut().find(|plugged| plugged.block == block) {
            plugged.users += 1;
            held.push(plugged.lun);
            return Ok(plugged.lun);
        }
        let (major, minor) = block.number;
        let object = || format!("block device {major}:{minor}");
        let free = |lun: &u8| self.plugged.iter().all(|plugged| plugged.lun != *lun);
        // In turn: the guest may still be about to forget one that was unplugged a moment ago, and one that QEMU would
        // not let go of is not free.
        let lun = (self.next..=u8::MAX)
            .chain(FIRST_LUN..self.next)
            .find(free)
            .ok_or_else(|| Error::invalid(object(), "the pod has as many as its controller takes"))?;
        self.next = lun.checked_add(1).unwrap_or(FIRST_LUN);
        let file = host.run(move || open(block)).await.step(|| format!("opening {}", object()))?;
        let disk = Disk { lun, file, read_only: block.read_only };
        self.agent.vm().plug(disk).await.step(|| format!("plugging {}", object()))?;
        self.plugged.push(Plugged { block, lun, users: 1 });
        held.push(lun);
        Ok(lun)
    }

    /// A container needs these no more: unplugs those that nobody needs.
    pub async fn release(&mut self, luns: &[u8]) {
        for lun in luns {
            if let Some(plugged) = self.plugged.iter_mut().find(|plugged| plugged.lun == *lun) {
                plugged.users = plugged.users.saturating_sub(1);
            }
        }
        for unused in self.plugged.extract_if(.., |plugged| plugged.users == 0) {
            if let Err(error) = self.agent.vm().unplug(unused.lun).await {
                let (major, minor) = unused.block.number;
                warn!(device = format!("{major}:{minor}"), %error, "a block device stays in the VM");
            }
        }
    }
}

/// By its number, as the specification names it: the kernel knows the node's name.
fn open(block: Block) -> io::Result<File> {
    let (major, minor) = block.number;
    let event = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/uevent"))?;
    let name = event.lines().find_map(|line| line.strip_prefix("DEVNAME="));
    let path = Path::new("/dev").join(name.ok_or_else(|| io::Error::other("the kernel has no name for it"))?);
    let file = OpenOptions::new().read(true).write(!block.read_only).open(&path)?;
    let metadata = file.metadata()?;
    if !metadata.file_type().is_block_device() || metadata.rdev() != makedev(major, minor) {
        return Err(io::Error::other(format!("{} is another device", path.display())));
    }
    Ok(file)
}
