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
    /// None of one that the VMM may have still, and would not let go of: its unit is not free.
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
        if let Some(plugged) =
            self.plugged.iter_mut().find(|plugged| plugged.users > 0 && plugged.block == block)
        {
            plugged.users += 1;
            held.push(plugged.lun);
            return Ok(plugged.lun);
        }
        let (major, minor) = block.number;
        let object = || format!("block device {major}:{minor}");
        let free = |lun: &u8| self.plugged.iter().all(|plugged| plugged.lun != *lun);
        // In turn: the guest may still be about to forget one that was unplugged a moment ago, and one that the VMM would
        // not let go of is not free.
        let lun = (self.next..=u8::MAX).chain(FIRST_LUN..self.next).find(free).ok_or_else(|| {
            let object = format!("the controller that {} would be plugged into", object());
            Error::Full { object, most: u8::MAX.into(), what: "block devices" }
        })?;
        self.next = lun.checked_add(1).unwrap_or(FIRST_LUN);
        let file = host.run(move || open(block)).await.step(|| format!("opening {}", object()))?;
        let disk = Disk { lun, file, read_only: block.read_only };
        let plugged = self.agent.vm().plug(disk).await;
        match &plugged {
            Ok(()) => self.plugged.push(Plugged { block, lun, users: 1 }),
            // It may come to be there yet.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                self.plugged.push(Plugged { block, lun, users: 0 });
            }
            Err(_) => {}
        }
        plugged.step(|| format!("plugging {}", object()))?;
        held.push(lun);
        Ok(lun)
    }

    /// A container needs these no more: unplugs those that nobody needs.
    pub async fn release(&mut self, luns: &[u8]) {
        for lun in luns {
            let used = |plugged: &Plugged| plugged.lun == *lun && plugged.users > 0;
            let Some(at) = self.plugged.iter().position(used) else { continue };
            let plugged = &mut self.plugged[at];
            plugged.users -= 1;
            if plugged.users > 0 {
                continue;
            }
            let (major, minor) = plugged.block.number;
            match self.agent.vm().unplug(*lun).await {
                Ok(()) => drop(self.plugged.swap_remove(at)),
                Err(error) => {
                    warn!(device = format!("{major}:{minor}"), %error, "a block device stays in the VM");
                }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;
    use tokio::net::UnixStream;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        sys::process::Identity,
        vm::{Disks, Vm},
    };

    /// Lets go of the first unit alone.
    struct Holding;

    #[async_trait]
    impl Disks for Holding {
        async fn plug(&self, _: Disk) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        async fn unplug(&self, lun: u8) -> io::Result<()> {
            if lun == FIRST_LUN { Ok(()) } else { Err(io::ErrorKind::ResourceBusy.into()) }
        }
    }

    #[async_trait]
    impl Vm for Holding {
        fn process(&self) -> Identity {
            Identity { pid: 0, started: 0 }
        }

        async fn connect(&self, _: u32) -> io::Result<UnixStream> {
            Err(io::ErrorKind::Unsupported.into())
        }

        async fn wait(&self) -> String {
            std::future::pending().await
        }

        async fn last_words(&self) -> String {
            String::new()
        }

        async fn stop(&self, _: Duration) {}
    }

    #[tokio::test]
    async fn a_unit_is_free_once_the_vmm_has_let_go_of_it() {
        let mut blocks = Blocks::new(Arc::new(Agent::new(Arc::new(Holding), CancellationToken::new())));
        let block = Block { number: (7, 0), read_only: false };
        blocks.plugged = [1, 2].map(|lun| Plugged { block, lun, users: 2 }).into();
        let taken = |blocks: &Blocks| -> Vec<_> { blocks.plugged.iter().map(|one| one.lun).collect() };
        blocks.release(&[1, 2]).await;
        assert_eq!(taken(&blocks), [1, 2], "each has a user left");
        blocks.release(&[1, 2]).await;
        assert_eq!(taken(&blocks), [2]);
        assert_eq!(blocks.plugged[0].users, 0, "nobody is to be given what was unplugged by half");
    }
}
