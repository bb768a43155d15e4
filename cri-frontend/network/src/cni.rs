//! CNI as the frontend uses it.

use std::{path::PathBuf, time::Duration};

use a3s_box_proto::{config, ids::SandboxId};

use crate::{
    Attachment, CniError, PodNetwork,
    cache::{Cache, Record},
    chain::{PORT_MAPPINGS, Runner},
    config::NetworkConfig,
};

/// The node's pod network. The configuration is read anew at each use, so a change needs no restart.
#[derive(Debug, Clone)]
pub struct Cni {
    conf_dir: PathBuf,
    cache: Cache,
    runner: Runner,
}

/// What the next pod would be attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSummary {
    /// The configuration's file.
    pub file: PathBuf,
    /// The network's name.
    pub name: String,
    /// The version of the specification that is spoken with its plugins.
    pub cni_version: String,
    /// The plugins' names, in order.
    pub plugins: Vec<String>,
}

impl Cni {
    /// Reads nothing yet.
    pub fn new(network: &config::Network) -> Self {
        Self {
            conf_dir: network.conf_dir.clone(),
            cache: Cache::new(&network.cache_dir),
            runner: Runner {
                bin_dirs: network.bin_dirs.clone(),
                timeout: Duration::from_secs(network.plugin_timeout_s),
            },
        }
    }

    /// Whether a pod could be attached now. Reads a small file and looks for the plugins.
    ///
    /// # Errors
    /// There is no configuration, it makes no sense, or a plugin of it is missing.
    pub fn status(&self) -> Result<NetworkSummary, CniError> {
        let network = self.load()?;
        Ok(NetworkSummary {
            file: network.file,
            name: network.name,
            cni_version: network.version.to_owned(),
            plugins: network.plugins.into_iter().map(|plugin| plugin.kind).collect(),
        })
    }

    /// Attaches a pod. A failure is undone before this returns; dropped half-way, or where the undoing fails too,
    /// what is left is remembered for [`Cni::del`].
    ///
    /// # Errors
    /// There is no usable network, or a plugin failed, hung or printed garbage.
    pub async fn add(&self, pod: &PodNetwork) -> Result<Attachment, CniError> {
        pod.cni_args()?;
        let (this, wanted) = (self.clone(), pod.clone());
        let record = blocking("prepare CNI's ADD", move || this.begin(wanted)).await?;
        match self.attach(&record).await {
            Ok(attachment) => Ok(attachment),
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

    /// The attachment of a sandbox whose ADD has succeeded, also before this process was started.
    pub fn cached(&self, sandbox: &SandboxId) -> Option<Attachment> {
        let record = self.cache.load(sandbox).unwrap_or_else(|error| {
            tracing::warn!(%sandbox, %error, "the sandbox's network attachment is not known");
            None
        })?;
        Attachment::from_result(record.result?).ok()
    }

    fn load(&self) -> Result<NetworkConfig, CniError> {
        let network = NetworkConfig::load(&self.conf_dir)?;
        self.runner.check(&network)?;
        Ok(network)
    }

    fn begin(&self, pod: PodNetwork) -> Result<Record, CniError> {
        if let Some(earlier) = self.cache.load(&pod.sandbox_id)? {
            return Err(CniError::Attached { sandbox: pod.sandbox_id, network: earlier.network.name });
        }
        let network = self.load()?;
        if !pod.host_ports().is_empty() && !network.is_capable_of(PORT_MAPPINGS) {
            // Not refused: some networks, Cilium's for one, serve host ports without being told of them here.
            tracing::warn!(
                sandbox = %pod.sandbox_id, network = network.name,
                "the pod wants host ports, and no plugin of its network takes portMappings"
            );
        }
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

    async fn attach(&self, record: &Record) -> Result<Attachment, CniError> {
        let result = self.runner.add(&record.network, &record.pod).await?;
        let attachment = Attachment::from_result(result.clone())
            .map_err(|reason| CniError::Result { network: record.network.name.clone(), reason })?;
        let (cache, finished) = (self.cache.clone(), Record { result: Some(result), ..record.clone() });
        blocking("remember CNI's result", move || cache.store(&finished)).await?;
        tracing::info!(sandbox = %record.pod.sandbox_id, ips = ?attachment.ips, "attached to the network");
        Ok(attachment)
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

async fn blocking<T: Send + 'static>(
    step: &'static str,
    work: impl FnOnce() -> Result<T, CniError> + Send + 'static,
) -> Result<T, CniError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(CniError::ShuttingDown { step }))
}
