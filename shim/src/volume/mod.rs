//! Volumes: directories and files of the host that containers see, live.

pub mod bind;
pub mod release;

use std::io;

use a3s_box_proto::ports::{GUEST_SHARE, SHARE_VOLUMES};
use rustix::fs::FileType;
use tracing::warn;

use crate::{
    rootfs::shared_dir::{Place, SharedDir},
    sys::{mount::make_writable, namespace::HostNamespace, thread::blocking},
};
use bind::{Access, Bind, Found, Identity};

/// The volumes that are attached to the shared directory: each once for all containers, or the guest would keep two
/// copies of its files, its locks and what is mapped of it.
#[derive(Debug)]
pub struct Volumes {
    /// virtiofsd's process: what a guest may write is settled in its mount namespace.
    daemon: u32,
    /// Names are never used twice: the guest remembers them.
    next: u64,
    attached: Vec<Volume>,
}

#[derive(Debug)]
struct Volume {
    identity: Identity,
    name: String,
    /// The guest can write to it. It cannot, as long as no container may.
    writable: bool,
    users: usize,
}

/// What a container's mount shows, for its specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its path in the guest.
    pub path: String,
    /// What the guest has to forbid by itself.
    pub access: Access,
}

impl Volumes {
    /// Nothing is attached yet to the directory that such a process shares.
    pub fn of(daemon: u32) -> Self {
        Self { daemon, next: 0, attached: Vec::new() }
    }

    /// Attaches a volume of a container, which is one user more: its name goes to `held`, to be given back by
    /// [`Volumes::let_go`].
    ///
    /// # Errors
    /// The kernel refuses.
    pub async fn attach(
        &mut self,
        share: &SharedDir,
        found: Found,
        bind: &Bind,
        held: &mut Vec<String>,
    ) -> io::Result<Shown> {
        let access = match (found.identity.is_one_mount(), bind.access) {
            // The guest's mount would take those below it along.
            (false, Access::ReadOnly) => Access::ReadWrite,
            (_, access) => access,
        };
        let name = match self.attached.iter_mut().find(|volume| volume.identity == found.identity) {
            Some(volume) => {
                volume.users += 1;
                volume.name.clone()
            }
            None => self.attach_new(share, found, bind.access).await?,
        };
        held.push(name.clone());
        if bind.access == Access::ReadWrite {
            self.allow_writing(&name).await?;
        }
        Ok(Shown { path: format!("{GUEST_SHARE}/{SHARE_VOLUMES}/{name}"), access })
    }

    async fn attach_new(&mut self, share: &SharedDir, found: Found, access: Access) -> io::Result<String> {
        let name = self.next.to_string();
        self.next += 1;
        let place = share.volume(&name);
        let Found { kind, identity, tree, .. } = found;
        blocking(move || {
            match kind {
                FileType::Directory => place.make_directory()?,
                _ => place.make_file()?,
            }
            tree.attach(&place.seen)
        })
        .await?;
        let writable = access == Access::ReadWrite || identity.is_read_only();
        self.attached.push(Volume { identity, name: name.clone(), writable, users: 1 });
        Ok(name)
    }

    /// The first container that may write comes after others that may not. What the shim's own mount says counts for
    /// nothing once virtiofsd has its copy.
    async fn allow_writing(&mut self, name: &str) -> io::Result<()> {
        let Some(volume) = self.attached.iter_mut().find(|volume| volume.name == name && !volume.writable)
        else {
            return Ok(());
        };
        // There, the shared directory is the root.
        let path = format!("/{SHARE_VOLUMES}/{name}");
        HostNamespace::of(self.daemon)?.run(move || make_writable(path.as_ref())).await?;
        volume.writable = true;
        Ok(())
    }

    /// A container needs these no more. Answers those that nobody needs: they are no volumes any more, and are to be
    /// given back to the host by [`give_back`] when the guest has let go of them.
    pub fn let_go(&mut self, names: &[String]) -> Vec<String> {
        for name in names {
            if let Some(volume) = self.attached.iter_mut().find(|volume| volume.name == *name) {
                volume.users = volume.users.saturating_sub(1);
            }
        }
        self.attached.extract_if(.., |volume| volume.users == 0).map(|volume| volume.name).collect()
    }
}

/// Gives volumes back to the host, which can unmount and detach them then.
pub async fn give_back(share: &SharedDir, names: &[String]) {
    for name in names {
        let place: Place = share.volume(name);
        if let Err(error) = release::release(place).await {
            warn!(volume = name, %error, "a volume is still in use");
        }
    }
}
