//! A registry, seen from one pull of one repository.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use a3s_box_proto::config::Images;
use bytes::Bytes;
use reqwest::header::CONTENT_TYPE;

use super::{
    RegistryError,
    auth::Login,
    auth_file,
    endpoint::{Endpoint, Get},
    hosts,
    retry::Rounds,
};
use crate::{Credentials, digest::Digest};

/// Types of manifests that we ask for.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json, */*";

/// A manifest as it came.
#[derive(Debug, Clone)]
pub(crate) struct Fetched {
    /// The exact bytes.
    pub body: Bytes,
    /// Their digest.
    pub digest: Digest,
    /// What the registry calls them.
    pub content_type: String,
}

/// The hosts for one repository.
pub(crate) struct Registry {
    registry: String,
    endpoints: Vec<Endpoint>,
    /// One of them has given what was asked for.
    answered: AtomicBool,
}

impl Registry {
    /// Reads the configuration files, which may change between pulls.
    pub(crate) fn new(
        config: &Images,
        registry: &str,
        repository: &str,
        credentials: Option<&Credentials>,
    ) -> Result<Self, RegistryError> {
        let patience = Duration::from_secs(config.progress_timeout_s);
        let from_file = match credentials {
            Some(_) => None,
            None => auth_file::find(&config.auth_file, registry)?,
        };
        let mut endpoints = Vec::new();
        for host in hosts::hosts(config, registry)? {
            let login = match (credentials, &from_file) {
                (Some(given), _) => Login::new(given, &host.authority)?,
                // A file's entry is for the registry that it names; a mirror may have one of its own.
                (None, Some(found)) if !host.is_mirror => Login::new(found, &host.authority)?,
                (None, _) => match auth_file::find(&config.auth_file, &host.authority)? {
                    Some(found) => Login::new(&found, &host.authority)?,
                    None => Login::Anonymous,
                },
            };
            endpoints.push(Endpoint::new(host, registry, repository, login, patience));
        }
        Ok(Self { registry: registry.to_owned(), endpoints, answered: AtomicBool::new(false) })
    }

    /// Whether a host has given what was asked for.
    pub(super) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// The hosts that serve blobs and manifests by digest.
    pub(super) fn pull_endpoints(&self) -> Result<Vec<&Endpoint>, RegistryError> {
        let able = self.endpoints.iter().filter(|endpoint| endpoint.capabilities().pull).collect();
        self.some(able, "pull")
    }

    fn some<'a>(
        &self,
        endpoints: Vec<&'a Endpoint>,
        capability: &'static str,
    ) -> Result<Vec<&'a Endpoint>, RegistryError> {
        if endpoints.is_empty() {
            return Err(RegistryError::NoHost { registry: self.registry.clone(), capability });
        }
        Ok(endpoints)
    }

    /// What a tag stands for now.
    pub(crate) async fn manifest_by_tag(&self, tag: &str, limit: u64) -> Result<Fetched, RegistryError> {
        let able = self.endpoints.iter().filter(|endpoint| endpoint.capabilities().resolve).collect();
        self.fetch(&self.some(able, "resolve")?, &format!("manifests/{tag}"), None, limit).await
    }

    /// A manifest by its digest, which is checked.
    pub(crate) async fn manifest(&self, digest: &Digest, limit: u64) -> Result<Fetched, RegistryError> {
        self.fetch(&self.pull_endpoints()?, &format!("manifests/{digest}"), Some(digest), limit).await
    }

    /// A blob that fits in memory, checked.
    pub(crate) async fn small_blob(&self, digest: &Digest, limit: u64) -> Result<Bytes, RegistryError> {
        let path = format!("blobs/{digest}");
        Ok(self.fetch(&self.pull_endpoints()?, &path, Some(digest), limit).await?.body)
    }

    /// Asks one host after the other, and all of them again where that may help.
    async fn fetch(
        &self,
        endpoints: &[&Endpoint],
        path: &str,
        digest: Option<&Digest>,
        limit: u64,
    ) -> Result<Fetched, RegistryError> {
        let mut rounds = Rounds::default();
        loop {
            let (mut last, mut may_pass) = (None, false);
            for endpoint in endpoints {
                match fetch_from(endpoint, path, digest, limit).await {
                    Ok(fetched) => {
                        self.answered.store(true, Ordering::Relaxed);
                        return Ok(fetched);
                    }
                    Err(error) => {
                        if endpoints.len() > 1 {
                            tracing::warn!(%error, path, "a registry host failed, trying the next");
                        }
                        may_pass |= error.may_pass(self.has_answered(), false);
                        last = Some(error);
                    }
                }
            }
            if !may_pass || !rounds.another(false).await {
                let none = || RegistryError::NoHost { registry: self.registry.clone(), capability: "pull" };
                return Err(last.unwrap_or_else(none));
            }
        }
    }
}

async fn fetch_from(
    endpoint: &Endpoint,
    path: &str,
    digest: Option<&Digest>,
    limit: u64,
) -> Result<Fetched, RegistryError> {
    let response = endpoint.get(Get { path, accept: MANIFESTS, offset: 0 }).await?;
    let header =
        |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = header(CONTENT_TYPE.as_str());
    let content_type = content_type.split(';').next().unwrap_or_default().trim().to_owned();
    let claimed: Option<Digest> = header("docker-content-digest").parse().ok();
    let body = endpoint.body(response, limit, "a manifest or configuration (images.max_manifest_kb)").await?;
    let actual = Digest::of(&body);
    if let Some(expected) = digest.or(claimed.as_ref()).filter(|expected| **expected != actual) {
        let reason = format!("{path} has digest {actual}, not {expected}");
        return Err(RegistryError::protocol(endpoint.name(), reason));
    }
    Ok(Fetched { body, digest: actual, content_type })
}
