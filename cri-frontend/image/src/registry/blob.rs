//! Streams a blob, going on where a connection broke.

use std::time::Instant;

use bytes::Bytes;
use reqwest::{Response, StatusCode, header::CONTENT_RANGE};
use tokio::{sync::mpsc::Sender, time::timeout};

use super::{
    RegistryError,
    client::Registry,
    endpoint::{Endpoint, Get},
    retry::Rounds,
    stall::{LEAST_BYTES, Progress},
};
use crate::digest::Digest;

/// Sends a blob's bytes in order. Who receives them checks the digest.
///
/// # Errors
/// No host gives all of it, also after new connections that each brought something; or the receiver is gone.
pub(crate) async fn download(
    registry: &Registry,
    digest: &Digest,
    size: u64,
    sender: &Sender<Bytes>,
) -> Result<(), RegistryError> {
    let path = format!("blobs/{digest}");
    let endpoints = registry.pull_endpoints()?;
    let mut blob = Blob { path: &path, size, sent: 0, sender };
    let mut rounds = Rounds::default();
    loop {
        let (before, mut may_pass) = (blob.sent, false);
        let mut last = RegistryError::Abandoned;
        for endpoint in &endpoints {
            let error = match blob.connection(endpoint).await {
                Ok(()) => return Ok(()),
                Err(RegistryError::Abandoned) => return Err(RegistryError::Abandoned),
                Err(error) => error,
            };
            let broke = matches!(error, RegistryError::Connection { .. } | RegistryError::Stalled { .. });
            if broke && blob.sent == size {
                // All of it is there. The end was lost, which says nothing.
                return Ok(());
            }
            tracing::debug!(%error, blob = blob.path, sent = blob.sent, "a blob's connection broke");
            may_pass |= error.may_pass(registry.has_answered(), blob.progressed(before));
            last = error;
        }
        if !may_pass || !rounds.another(blob.progressed(before)).await {
            return Err(last);
        }
    }
}

struct Blob<'a> {
    path: &'a str,
    size: u64,
    sent: u64,
    sender: &'a Sender<Bytes>,
}

impl Blob<'_> {
    /// Whether so much came that it is worth going on: a byte a connection must not hold a pull for ever.
    fn progressed(&self, before: u64) -> bool {
        self.sent - before >= LEAST_BYTES as u64
    }

    /// All that is left, from one host.
    async fn connection(&mut self, endpoint: &Endpoint) -> Result<(), RegistryError> {
        let request = Get { path: self.path, accept: "*/*", offset: self.sent };
        let response = endpoint.get(request).await?;
        let skip = self.start_of(&response, endpoint)?;
        self.body(response, skip, endpoint).await
    }

    /// How many bytes of the answer were sent before: a host may ignore the range.
    fn start_of(&self, response: &Response, endpoint: &Endpoint) -> Result<u64, RegistryError> {
        let wrong = |reason: String| Err(RegistryError::protocol(endpoint.name(), reason));
        if response.status() == StatusCode::PARTIAL_CONTENT {
            let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
            let wanted = format!("bytes {}-", self.sent);
            return match range {
                Some(range) if range.starts_with(&wanted) => Ok(0),
                _ => wrong(format!("{} came in another range than asked for", self.path)),
            };
        }
        match response.content_length() {
            Some(length) if length != self.size => {
                wrong(format!("{} has {length} bytes, and the manifest says {}", self.path, self.size))
            }
            _ => Ok(self.sent),
        }
    }

    async fn body(
        &mut self,
        mut response: Response,
        mut skip: u64,
        endpoint: &Endpoint,
    ) -> Result<(), RegistryError> {
        let mut progress = Progress::new(endpoint.patience());
        loop {
            let started = Instant::now();
            let chunk =
                timeout(progress.patience(), response.chunk()).await.map_err(|_| endpoint.stalled())?;
            let chunk = chunk.map_err(|error| RegistryError::connection(endpoint.name(), error))?;
            let Some(mut chunk) = chunk else { return self.end(endpoint) };
            if !progress.note(started.elapsed(), chunk.len()) {
                return Err(endpoint.stalled());
            }
            let known = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            skip -= chunk.split_to(known).len() as u64;
            if self.sent + chunk.len() as u64 > self.size {
                let reason = format!("{} is longer than the {} bytes of the manifest", self.path, self.size);
                return Err(RegistryError::protocol(endpoint.name(), reason));
            }
            self.sent += chunk.len() as u64;
            if !chunk.is_empty() {
                self.sender.send(chunk).await.map_err(|_| RegistryError::Abandoned)?;
            }
        }
    }

    fn end(&self, endpoint: &Endpoint) -> Result<(), RegistryError> {
        if self.sent == self.size {
            return Ok(());
        }
        // A body without a length ends when the connection does: no sign that it was whole.
        let reason = format!("{} ended after {} of {} bytes", self.path, self.sent, self.size);
        Err(RegistryError::Connection { host: endpoint.name().to_owned(), reason })
    }
}
