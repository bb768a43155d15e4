//! Volumes: directories and files of the host that containers see.

pub mod bind;
mod kubelet;
mod memory;
pub mod mirror;
pub mod release;

use std::sync::Arc;

use a3s_box_proto::ports::{GUEST_MIRRORS, GUEST_SHARE, SHARE_VOLUMES};
use rustix::fs::FileType;
use tracing::warn;

use crate::{
    agent::Agent,
    error::{Result, Step},
    rootfs::shared_dir::SharedDir,
    sys::{mount::make_writable, namespace::HostNamespace, thread::blocking},
};
use bind::{Access, Bind, Found, Identity};
use memory::Memories;
use mirror::{Limits, Mirror};

/// The volumes that the guest has: each once for all containers, or the guest would keep two copies of its files, its
/// locks and what is mapped of it.
pub struct Volumes {
    share: SharedDir,
    /// virtiofsd's process: what a guest may write is settled in its mount namespace.
    daemon: u32,
    agent: Arc<Agent>,
    /// How much of a volume is copied into the guest.
    pub limits: Limits,
    /// Names are never used twice: the guest remembers them.
    next: u64,
    attached: Vec<Volume>,
    memories: Memories,
}

/// A volume that is attached to the shared directory.
#[derive(Debug)]
struct Volume {
    identity: Identity,
    name: String,
    /// The guest can write to it. It cannot, as long as no container may.
    writable: bool,
    /// The guest's copy of it.
    mirror: Option<Mirror>,
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
    /// None yet.
    pub fn new(share: SharedDir, daemon: u32, agent: Arc<Agent>, limits: Limits) -> Self {
        let (attached, memories) = (Vec::new(), Memories::default());
        Self { share, daemon, agent, limits, next: 0, attached, memories }
    }

    /// Gives the guest a volume of a container, which is one user more. The name of what is attached for it goes to
    /// `held`, to be given back by [`Volumes::let_go`].
    ///
    /// # Errors
    /// The kernel refuses, or the guest.
    pub async fn attach(&mut self, found: Found, bind: &Bind, held: &mut Vec<String>) -> Result<Shown> {
        let step = || format!("attaching {}", bind.source.display());
        if let Some(memory) = &found.memory {
            let next = &mut self.next;
            if let Some(path) = self.memories.provide(&self.agent, memory, || take(next)).await? {
                return Ok(Shown { path, access: bind.access });
            }
        }
        let access = match (found.identity.is_one_mount(), bind.access) {
            // The guest's mount would take those below it along.
            (false, Access::ReadOnly) => Access::ReadWrite,
            (_, access) => access,
        };
        let index = match self.attached.iter().position(|volume| volume.identity == found.identity) {
            Some(index) => index,
            None => self.attach_new(found, bind).await.step(step)?,
        };
        let volume = &mut self.attached[index];
        volume.users += 1;
        held.push(volume.name.clone());
        if bind.access == Access::ReadWrite && !volume.writable {
            allow_writing(self.daemon, &volume.name).await.step(step)?;
            volume.writable = true;
        }
        let path = match volume.mirror {
            Some(_) => format!("{GUEST_MIRRORS}/{}", volume.name),
            None => format!("{GUEST_SHARE}/{SHARE_VOLUMES}/{}", volume.name),
        };
        Ok(Shown { path, access })
    }

    /// Answers its place in the list; it has no user yet.
    async fn attach_new(&mut self, found: Found, bind: &Bind) -> std::io::Result<usize> {
        let name = take(&mut self.next);
        let place = self.share.volume(&name);
        let Found { kind, identity, tree, .. } = found;
        let directory = place.seen.clone();
        blocking(move || {
            match kind {
                FileType::Directory => place.make_directory()?,
                _ => place.make_file()?,
            }
            tree.attach(&place.seen)
        })
        .await?;
        let writable = bind.access == Access::ReadWrite || identity.is_read_only();
        let mut volume = Volume { identity, name: name.clone(), writable, mirror: None, users: 0 };
        if volume.identity.is_mirrored() {
            let source = mirror::Source { name, directory, limits: self.limits };
            match Mirror::begin(self.agent.clone(), source).await {
                Ok(mirror) => volume.mirror = Some(mirror),
                Err(error) => {
                    warn!(source = %bind.source.display(), %error, "is shared without telling of its changes");
                }
            }
        }
        self.attached.push(volume);
        Ok(self.attached.len() - 1)
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

fn take(next: &mut u64) -> String {
    let name = next.to_string();
    *next += 1;
    name
}

/// The first container that may write comes after others that may not. What the shim's own mount says counts for
/// nothing once virtiofsd has its copy.
async fn allow_writing(daemon: u32, name: &str) -> std::io::Result<()> {
    // There, the shared directory is the root.
    let path = format!("/{SHARE_VOLUMES}/{name}");
    HostNamespace::of(daemon)?.run(move || make_writable(path.as_ref())).await
}

/// Gives volumes back to the host, which can unmount and detach them then.
pub async fn give_back(share: &SharedDir, names: &[String]) {
    for name in names {
        if let Err(error) = release::release(share.volume(name)).await {
            warn!(volume = name, %error, "a volume is still in use");
        }
    }
}
