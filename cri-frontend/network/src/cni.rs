//! CNI as the frontend uses it.

use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use a3s_box_proto::{config, ids::SandboxId};
use tokio::sync::RwLock;

use crate::{
    CniError, PodNetwork,
    arguments::Untaken,
    attachment::pod_ips,
    cache::{Cache, Record},
    chain::Runner,
    config::NetworkConfig,
};

/// The node's pod network. The configuration is read anew at each use, so a change needs no restart.
#[derive(Debug, Clone)]
pub struct Cni {
    conf_dir: PathBuf,
    cache: Cache,
    runner: Runner,
    collects: bool,
    /// Whoever attaches shares it; who collects garbage must not take an attachment that is being made for some.
    attaching: Arc<RwLock<()>>,
}

/// What the next pod would be attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSummary {
    /// The configuration's file.
    pub file: PathBuf,
    /// The network's name.
    pub name: String,
}

impl Cni {
    /// Reads nothing yet.
    pub fn new(network: &config::Network) -> Self {
        Self {
            conf_dir: network.conf_dir.clone(),
            collects: network.gc,
            attaching: Arc::default(),
            cache: Cache::new(&network.cache_dir),
            runner: Runner {
                bin_dirs: network.bin_dirs.clone(),
                timeout: Duration::from_secs(network.plugin_timeout_s),
            },
        }
    }

    /// Whether a pod could be attached now: reads a small file, looks for the plugins, and asks them (STATUS) where
    /// their version of the specification has an answer.
    ///
    /// # Errors
    /// There is no configuration, it makes no sense, or a plugin of it is missing or not ready.
    pub async fn status(&self) -> Result<NetworkSummary, CniError> {
        let this = self.clone();
        let network = blocking("read CNI's configuration", move || this.load()).await?;
        self.runner.status(&network).await?;
        Ok(NetworkSummary { file: network.file, name: network.name })
    }

    /// Lets the plugins of the present network free what belongs to no attachment that this node knows of (GC), where
    /// their version of the specification can. No pod is attached meanwhile.
    ///
    /// # Errors
    /// There is no usable network, an attachment is remembered and cannot be read, or a plugin failed.
    pub async fn collect_garbage(&self) -> Result<(), CniError> {
        if !self.collects {
            return Ok(());
        }
        let _alone = self.attaching.write().await;
        let this = self.clone();
        let (network, valid) = blocking("prepare CNI's GC", move || {
            let network = this.load()?;
            let valid = this.cache.valid(&network.name)?;
            Ok((network, valid))
        })
        .await?;
        self.runner.collect_garbage(&network, &valid).await
    }

    /// Whether a pod's attachment is as its ADD left it (CHECK), where its plugins' version of the specification can tell.
    ///
    /// # Errors
    /// A plugin says that it is not, or failed.
    pub async fn check(&self, sandbox: &SandboxId) -> Result<(), CniError> {
        let (cache, sandbox) = (self.cache.clone(), sandbox.clone());
        match blocking("prepare CNI's CHECK", move || cache.load(&sandbox)).await? {
            Some(record) => self.runner.check_attachment(&record).await,
            None => Ok(()),
        }
    }

    /// Attaches a pod. A failure is undone before this returns; dropped half-way, or where the undoing fails too,
    /// what is left is remembered for [`Cni::del`].
    ///
    /// # Errors
    /// There is no usable network, or a plugin failed, hung or printed garbage.
    pub async fn add(&self, pod: &PodNetwork) -> Result<Vec<IpAddr>, CniError> {
        pod.cni_args()?;
        let _no_garbage = self.attaching.read().await;
        let (this, wanted) = (self.clone(), pod.clone());
        let record = blocking("prepare CNI's ADD", move || this.begin(wanted)).await?;
        match self.attach(&record).await {
            Ok(ips) => Ok(ips),
            Err(cause) => match self.detach(record).await {
                Ok(()) => Err(cause),
                Err(undo) => Err(CniError::NotUndone { cause: Box::new(cause), undo: Box::new(undo) }),
            },
        }
    }

    /// Detaches a pod by what was remembered of its ADD, whatever the configuration says now. Nothing to do where
    /// nothing is remembered: a record stands from before the first plugin's ADD to after the last one's DEL.
    ///
    /// # Errors
    /// A plugin failed or is gone. All is still remembered then, and DEL can be repeated.
    pub async fn del(&self, pod: &PodNetwork) -> Result<(), CniError> {
        let (this, wanted) = (self.clone(), pod.clone());
        match blocking("prepare CNI's DEL", move || this.remembered(wanted)).await? {
            Some(record) => self.detach(record).await,
            // An ADD that was killed as it began may have left the draft of a record, of which no plugin knows.
            None => self.forget(pod.sandbox_id.clone()).await,
        }
    }

    fn load(&self) -> Result<NetworkConfig, CniError> {
        let network = NetworkConfig::load(&self.conf_dir)?;
        self.runner.find_all(&network)?;
        Ok(network)
    }

    fn begin(&self, pod: PodNetwork) -> Result<Record, CniError> {
        if let Some(earlier) = self.cache.load(&pod.sandbox_id)? {
            return Err(CniError::Attached { sandbox: pod.sandbox_id, network: earlier.network.name });
        }
        let network = self.load()?;
        untaken(&network, &pod)?;
        let record = Record { network, pod, result: None };
        self.cache.store(&record)?;
        Ok(record)
    }

    /// The record of a pod. One that is damaged must not make the pod immortal: today's network is the best guess then.
    fn remembered(&self, pod: PodNetwork) -> Result<Option<Record>, CniError> {
        match self.cache.load(&pod.sandbox_id) {
            Err(error @ CniError::Cache { .. }) => {
                tracing::warn!(sandbox = %pod.sandbox_id, %error, "detaching by the present configuration");
                Ok(Some(Record { network: self.load()?, pod, result: None }))
            }
            record => record,
        }
    }

    async fn attach(&self, record: &Record) -> Result<Vec<IpAddr>, CniError> {
        let result = self.runner.add(&record.network, &record.pod).await?;
        let ips = pod_ips(&result)
            .map_err(|reason| CniError::Result { network: record.network.name.clone(), reason })?;
        let (cache, finished) = (self.cache.clone(), Record { result: Some(result), ..record.clone() });
        blocking("remember CNI's result", move || cache.store(&finished)).await?;
        tracing::info!(sandbox = %record.pod.sandbox_id, ?ips, "attached to the network");
        Ok(ips)
    }

    async fn detach(&self, record: Record) -> Result<(), CniError> {
        self.runner.del(&record).await?;
        self.forget(record.pod.sandbox_id).await
    }

    async fn forget(&self, sandbox: SandboxId) -> Result<(), CniError> {
        let cache = self.cache.clone();
        blocking("forget CNI's result", move || cache.remove(&sandbox)).await
    }
}

/// What the pod wants and no plugin of its network takes.
fn untaken(network: &NetworkConfig, pod: &PodNetwork) -> Result<(), CniError> {
    for argument in pod.arguments.all() {
        let capability = argument.capability;
        if network.is_capable_of(capability) {
            continue;
        }
        match argument.untaken {
            Untaken::Ignored => {}
            Untaken::Warned => tracing::warn!(
                sandbox = %pod.sandbox_id, network = network.name, capability,
                "the pod wants what no plugin of its network takes"
            ),
            Untaken::Refused => {
                return Err(CniError::Incapable { network: network.name.clone(), capability });
            }
        }
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(
    step: &'static str,
    work: impl FnOnce() -> Result<T, CniError> + Send + 'static,
) -> Result<T, CniError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(CniError::ShuttingDown { step }))
}
