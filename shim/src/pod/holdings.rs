//! What a container holds of its pod: attached when it is made, given back when it has ended.

use std::path::PathBuf;

use a3s_box_proto::{
    agent::{self, OverlayRootfs, SharedRootfs, create_container_request::Rootfs as RootfsMessage},
    ids::ContainerId,
    ports::SHARE_ROOTFS,
};
use tracing::warn;

use super::{
    Pod,
    container::{Rootfs, Wanted},
    container_spec::ContainerSpec,
    sandbox::Sandbox,
};
use crate::{
    error::{Error, Result, Step},
    rootfs::{
        layers::{self, MOST_LAYERS},
        mounted,
    },
    volume::{
        self, Shown,
        bind::{Forbidden, look_up},
        mirror::Limits,
        release::release,
    },
};

/// The most mounts of host paths and images of one container.
const MOST_VOLUMES: usize = 1024;

/// What a container holds, in the shared directory and of the VM's devices.
#[derive(Debug, Default)]
pub(super) struct Holdings {
    layers: Vec<String>,
    volumes: Vec<String>,
    /// The units of its block devices.
    blocks: Vec<u8>,
    /// A root filesystem that the host mounts.
    mounted: bool,
}

/// What the guest makes a container of.
pub(super) struct Acquired {
    pub rootfs: RootfsMessage,
    /// What of the guest each mount of a host path shows.
    pub volumes: Vec<Shown>,
    /// The names of the layers of each image that is mounted.
    pub images: Vec<Vec<String>>,
    pub disks: Vec<agent::Disk>,
}

impl Holdings {
    /// Attaches all that a container's specification names. What was attached is held also after an error: the caller gives
    /// it back.
    ///
    /// # Errors
    /// A volume, a layer, a device, or the host.
    pub async fn acquire(
        &mut self,
        pod: &Pod,
        sandbox: &Sandbox,
        wanted: &Wanted,
        spec: &ContainerSpec,
    ) -> Result<Acquired> {
        sandbox.allow(&wanted.id, spec.cpuset().clone()).await?;
        sandbox.weigh(&wanted.id, Some(spec.oom_score_adj())).await;
        Ok(Acquired {
            rootfs: self.attach_rootfs(pod, sandbox, wanted).await?,
            volumes: self.attach_volumes(pod, sandbox, &wanted.id, spec).await?,
            images: self.attach_images(pod, sandbox, &wanted.id, spec).await?,
            disks: self.plug_disks(pod, sandbox, spec).await?,
        })
    }

    async fn attach_rootfs(
        &mut self,
        pod: &Pod,
        sandbox: &Sandbox,
        wanted: &Wanted,
    ) -> Result<RootfsMessage> {
        let object = || format!("the root filesystem of container {}", wanted.id);
        match &wanted.rootfs {
            Rootfs::Layers(files) => {
                let layers = self.attach_layers(pod, sandbox, &object(), files).await?;
                Ok(RootfsMessage::Overlay(OverlayRootfs { layers, ..OverlayRootfs::default() }))
            }
            Rootfs::Mounts(mounts) => {
                self.mounted = true;
                let place = sandbox.share.rootfs(wanted.id.as_str());
                let mounted = mounted::attach(&pod.host, mounts.clone(), place).await;
                mounted.step(|| format!("mounting {}", object()))?;
                Ok(RootfsMessage::Shared(SharedRootfs {
                    path: format!("{SHARE_ROOTFS}/{}", wanted.id),
                    ..SharedRootfs::default()
                }))
            }
        }
    }

    /// Attaches the layers of one image; answers their names in the shared directory, in the same order.
    async fn attach_layers(
        &mut self,
        pod: &Pod,
        sandbox: &Sandbox,
        object: &str,
        files: &[PathBuf],
    ) -> Result<Vec<String>> {
        if files.is_empty() || files.len() > MOST_LAYERS {
            let reason = format!("it has {} layers: 1 to {MOST_LAYERS} are accepted", files.len());
            return Err(Error::invalid(object, reason));
        }
        let step = || format!("attaching {object}");
        let before = self.layers.len();
        // A disk that hangs here holds up no other container.
        let opened = layers::open(&pod.host, files).await.step(step)?;
        let attached = sandbox.layers.lock().await.attach(&sandbox.share, opened, &mut self.layers).await;
        attached.step(step)?;
        Ok(self.layers[before..].to_vec())
    }

    /// Attaches the images that a container mounts as volumes; answers the names of each one's layers.
    async fn attach_images(
        &mut self,
        pod: &Pod,
        sandbox: &Sandbox,
        id: &ContainerId,
        spec: &ContainerSpec,
    ) -> Result<Vec<Vec<String>>> {
        let object = format!("an image volume of container {id}");
        let mut images = Vec::new();
        for files in spec.images() {
            images.push(self.attach_layers(pod, sandbox, &object, files).await?);
        }
        Ok(images)
    }

    /// Attaches the host paths that a container mounts; answers what of the guest each mount shows.
    async fn attach_volumes(
        &mut self,
        pod: &Pod,
        sandbox: &Sandbox,
        id: &ContainerId,
        spec: &ContainerSpec,
    ) -> Result<Vec<Shown>> {
        if spec.binds().len() + spec.images().len() > MOST_VOLUMES {
            return Err(Error::invalid(
                format!("container {id}"),
                format!("more than {MOST_VOLUMES} mounts"),
            ));
        }
        let forbidden = Forbidden {
            directories: vec![pod.config.state_dir.clone(), pod.config.root_dir.clone()],
            except: pod.layout.run.clone(),
        };
        let limits = Limits::from(&pod.config.volumes);
        let mut shown = Vec::new();
        for bind in spec.binds() {
            // One that hangs holds up no other container.
            let found = look_up(&pod.host, bind.clone(), limits, &forbidden).await?;
            shown.push(sandbox.volumes.lock().await.attach(found, bind, &mut self.volumes).await?);
        }
        Ok(shown)
    }

    /// Plugs the block devices that a container uses.
    async fn plug_disks(
        &mut self,
        pod: &Pod,
        sandbox: &Sandbox,
        spec: &ContainerSpec,
    ) -> Result<Vec<agent::Disk>> {
        let mut disks = Vec::new();
        for block in spec.blocks() {
            let lun = sandbox.blocks.lock().await.plug(&pod.host, block, &mut self.blocks).await?;
            let (major, minor) = block.number;
            disks.push(agent::Disk { lun: lun.into(), major, minor, ..Default::default() });
        }
        Ok(disks)
    }

    /// Gives all back. What fails is logged, and the rest goes on.
    pub async fn give_back(self, sandbox: &Sandbox, id: &ContainerId) {
        sandbox.disallow(id).await;
        sandbox.weigh(id, None).await;
        let unused = sandbox.volumes.lock().await.let_go(&self.volumes);
        if !unused.is_empty() {
            if let Err(error) = sandbox.agent.release_volumes(unused.clone()).await {
                warn!(container = %id, %error, "the guest did not let go of its volumes");
            }
            volume::give_back(&sandbox.share, &unused).await;
        }
        if !self.blocks.is_empty() {
            sandbox.blocks.lock().await.release(&self.blocks).await;
        }
        if self.mounted
            && let Err(error) = release(sandbox.share.rootfs(id.as_str())).await
        {
            warn!(container = %id, %error, "the root filesystem is still in use");
        }
        sandbox.layers.lock().await.release(&sandbox.share, &self.layers).await;
    }
}
