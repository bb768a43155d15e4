//! The pod as a whole: what all its containers share, and its end.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::sync::{Mutex, Notify};

use crate::{
    cgroup::Cgroup,
    container::Containers,
    error::{Error, Failed, For, Object, Step, blocking},
    init::{network, shutdown, sysctl},
    volume,
};

/// How long killed processes may take to go before the guest ends all the same.
const KILL_PATIENCE: Duration = Duration::from_secs(2);

/// What the host says about the pod.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// Devices, routes, neighbours, rules.
    pub network: network::Network,
    /// Kernel parameters.
    pub sysctls: HashMap<String, String>,
    /// Files and shared memory.
    pub files: volume::PodFiles,
}

/// The pod.
#[derive(Debug, Default)]
pub struct Sandbox {
    /// One configuration or shutdown at a time.
    busy: Mutex<()>,
    /// The guest may end.
    done: Notify,
}

impl Sandbox {
    /// Sets everything up. Repeated with the same content it changes nothing.
    pub async fn configure(&self, configuration: Configuration) -> Result<(), Error> {
        let _busy = self.busy.lock().await;
        blocking(move || Ok(set_up(configuration))).await.of(|| Object::Sandbox)??;
        tracing::debug!("sandbox configured");
        Ok(())
    }

    /// Ends all containers: TERM, grace, KILL. Then the guest may end.
    pub async fn shut_down(&self, containers: &Arc<Containers>, grace: Duration) {
        let _busy = self.busy.lock().await;
        containers.terminate(grace).await;
        let ended = blocking(|| {
            Cgroup::of_pod().kill(KILL_PATIENCE)?;
            shutdown::sync_share()
        });
        if let Err(error) = ended.await {
            tracing::error!("shutdown: {error}");
        }
        self.done.notify_one();
    }

    /// Waits for the end of a shutdown.
    pub async fn done(&self) {
        self.done.notified().await;
    }
}

fn set_up(configuration: Configuration) -> Result<(), Error> {
    let Configuration { network, sysctls, files } = configuration;
    let object = || Object::Sandbox;
    network::identify(&network).of(object)?;
    for (name, value) in &network.sysctls {
        // What the host's kernel has, this one may lack; what the pod itself asks for, it must have.
        if let Err(error) = sysctl::set(name, value) {
            tracing::warn!("of the network: {error}");
        }
    }
    sysctl::set_asked(&sysctls)?;
    network::settle(&network).of(object)?;
    name_host(&files.hostname).of(object)?;
    volume::provide(&files).of(object)
}

fn name_host(name: &str) -> Result<(), Failed> {
    if name.is_empty() {
        return Ok(());
    }
    nix::unistd::sethostname(name).step(|| format!("set the host's name to {name:?}"))
}
