//! Streams a blob, going on where a connection broke.

use std::time::{Instant, SystemTime};

use bytes::Bytes;
use reqwest::{Response, StatusCode, header::CONTENT_RANGE};
use tokio::{sync::mpsc::Sender, time::timeout};

use super::{
    RegistryError,
    client::Registry,
    endpoint::{Endpoint, Get},
    retry,
    stall::Progress,
};
use crate::digest::Digest;

/// Sends a blob's bytes in order. Who receives them checks the digest.
///
/// # Errors
/// No host gives all of it, or the receiver is gone.
pub(crate) async fn download(
    registry: &Registry,
    digest: &Digest,
    size: u64,
    sender: &Sender<Bytes>,
) -> Result<(), RegistryError> {
    let path = format!("blobs/{digest}");
    let mut blob = Blob { path: &path, size, sent: 0, sender };
    let mut last = RegistryError::Abandoned;
    for endpoint in registry.pull_endpoints()? {
        match blob.from(endpoint).await {
            Ok(()) => return Ok(()),
            Err(RegistryError::Abandoned) => return Err(RegistryError::Abandoned),
            Err(error) => last = error,
        }
    }
    Err(last)
}

struct Blob<'a> {
    path: &'a str,
    size: u64,
    sent: u64,
    sender: &'a Sender<Bytes>,
}

impl Blob<'_> {
    /// All that is left, from one host, with new connections as long as each brings something.
    async fn from(&mut self, endpoint: &Endpoint) -> Result<(), RegistryError> {
        let mut attempt = 0;
        loop {
            let before = self.sent;
            let error = match self.connection(endpoint).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if self.sent > before {
                attempt = 0;
            }
            let Some(wait) =
                retry::wait_after(attempt, None, SystemTime::now()).filter(|_| error.is_transient())
            else {
                return Err(error);
            };
            tracing::debug!(%error, blob = self.path, sent = self.sent, "going on with a blob");
            tokio::time::sleep(wait).await;
            attempt += 1;
        }
    }

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
