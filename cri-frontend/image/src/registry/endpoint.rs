//! Requests to one host: log-in, redirects, retries.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use reqwest::{
    RequestBuilder, Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE, WWW_AUTHENTICATE},
};
use tokio::{sync::Mutex, time::timeout};

use super::{
    RegistryError, auth,
    auth::Login,
    challenge,
    hosts::{Capabilities, Host},
    is_transient, printable, redirect, retry,
    stall::Progress,
};

const TOKEN_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_ERROR_ANSWER: usize = 64 << 10;

/// A host for the images of one repository, in one pull.
pub(super) struct Endpoint {
    host: Host,
    repository: String,
    registry: String,
    login: Login,
    patience: Duration,
    state: Mutex<State>,
}

/// What was learned of the host.
#[derive(Default)]
struct State {
    authorization: Option<HeaderValue>,
    /// Index of the scheme that connected.
    scheme: Option<usize>,
}

/// A GET below the repository.
#[derive(Debug, Clone, Copy)]
pub(super) struct Get<'a> {
    /// `manifests/…` or `blobs/…`.
    pub path: &'a str,
    /// Acceptable types.
    pub accept: &'a str,
    /// The first byte wanted.
    pub offset: u64,
}

/// How much a request may say of us.
#[derive(Clone, Copy)]
enum Trust<'a> {
    /// Nothing: a redirect has led elsewhere.
    Stranger,
    /// The headers that are configured for the host, and the authorization if there is one.
    Host(Option<&'a HeaderValue>),
}

impl Endpoint {
    pub(super) fn new(
        host: Host,
        registry: &str,
        repository: &str,
        login: Login,
        patience: Duration,
    ) -> Self {
        let (registry, repository) = (registry.to_owned(), repository.to_owned());
        Self { host, repository, registry, login, patience, state: Mutex::default() }
    }

    /// `host[:port]`, for messages.
    pub(super) fn name(&self) -> &str {
        &self.host.authority
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        self.host.capabilities
    }

    /// How long it may be silent.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// A successful answer's head, after retries of what may pass.
    pub(super) async fn get(&self, request: Get<'_>) -> Result<Response, RegistryError> {
        retried(self.name(), self.patience, || self.logged_in(request)).await
    }

    /// Answers at most one challenge: a second one means that the answer was not good.
    async fn logged_in(&self, request: Get<'_>) -> Result<Response, RegistryError> {
        let used = self.state.lock().await.authorization.clone();
        let (response, at_host) = self.follow(request, used.clone()).await?;
        if response.status() != StatusCode::UNAUTHORIZED || !at_host {
            return Ok(response);
        }
        let challenges = response.headers().get_all(WWW_AUTHENTICATE);
        let Some(challenge) = challenge::best(challenges.iter().filter_map(|value| value.to_str().ok()))
        else {
            return Ok(response);
        };
        let mut state = self.state.lock().await;
        // Another layer's request may have renewed it meanwhile.
        if state.authorization == used {
            let answer =
                auth::answer(&self.host.client, &self.login, challenge, response.url(), &self.repository)
                    .await?;
            if answer.is_none() || answer == used {
                return Ok(response);
            }
            state.authorization = answer;
        }
        let renewed = state.authorization.clone();
        drop(state);
        Ok(self.follow(request, renewed).await?.0)
    }

    /// Follows redirects; secrets stay with the host. True if the host itself answered.
    async fn follow(
        &self,
        request: Get<'_>,
        authorization: Option<HeaderValue>,
    ) -> Result<(Response, bool), RegistryError> {
        let mut response = self.first(request, authorization.as_ref()).await?;
        let origin = response.url().clone();
        for _ in 0..redirect::MAX_REDIRECTS {
            let same = redirect::same_origin(&origin, response.url());
            if !redirect::is_redirect(response.status()) {
                return Ok((response, same));
            }
            let target = redirect::target(response.url(), response.headers())
                .map_err(|reason| RegistryError::protocol(self.name(), reason))?;
            let trust = if redirect::same_origin(&origin, &target) {
                Trust::Host(authorization.as_ref())
            } else {
                Trust::Stranger
            };
            response = self.send(target, request, trust).await?;
        }
        Err(RegistryError::protocol(self.name(), "redirects in circles"))
    }

    /// The first hop, by the scheme that works.
    async fn first(
        &self,
        request: Get<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response, RegistryError> {
        let known = self.state.lock().await.scheme;
        let mut last = None;
        for (index, scheme) in self.host.schemes.iter().enumerate() {
            if known.is_some_and(|known| known != index) {
                continue;
            }
            // Two schemes are for loopback addresses, or where the hosts file says so.
            match self.send(self.url(scheme, request)?, request, Trust::Host(authorization)).await {
                Err(error @ (RegistryError::Unreachable { .. } | RegistryError::Connection { .. })) => {
                    last = Some(error);
                }
                result => {
                    self.state.lock().await.scheme = Some(index);
                    return result;
                }
            }
        }
        Err(last.unwrap_or_else(|| RegistryError::protocol(self.name(), "has no scheme")))
    }

    fn url(&self, scheme: &str, request: Get<'_>) -> Result<Url, RegistryError> {
        let Host { authority, path, is_mirror, .. } = &self.host;
        let text = format!("{scheme}://{authority}{path}/{}/{}", self.repository, request.path);
        let mut url: Url =
            text.parse().map_err(|_| RegistryError::protocol(authority, "is no valid address"))?;
        if *is_mirror {
            url.query_pairs_mut().append_pair("ns", &self.registry);
        }
        Ok(url)
    }

    /// One request.
    async fn send(&self, url: Url, request: Get<'_>, trust: Trust<'_>) -> Result<Response, RegistryError> {
        let mut headers = HeaderMap::new();
        if let Trust::Host(authorization) = trust {
            headers.extend(self.host.headers.clone());
            if let Some(authorization) = authorization {
                headers.insert(AUTHORIZATION, authorization.clone());
            }
        }
        if let Ok(accept) = HeaderValue::from_str(request.accept) {
            headers.insert(ACCEPT, accept);
        }
        let mut builder = self.host.client.get(url).headers(headers);
        if request.offset > 0 {
            builder = builder.header(RANGE, format!("bytes={}-", request.offset));
        }
        match timeout(self.patience, builder.send()).await {
            Ok(result) => result.map_err(|error| RegistryError::connection(self.name(), error)),
            Err(_) => Err(self.stalled()),
        }
    }

    /// No progress within the time allowed.
    pub(super) fn stalled(&self) -> RegistryError {
        RegistryError::Stalled { host: self.name().to_owned(), seconds: self.patience.as_secs() }
    }

    /// Reads a body that is small by nature.
    pub(super) async fn body(
        &self,
        response: Response,
        limit: u64,
        what: &'static str,
    ) -> Result<Bytes, RegistryError> {
        body(response, self.name(), limit, what, self.patience).await
    }
}

/// Sends a request to a token server, again if it is busy, and reads its answer.
pub(super) async fn small_answer(
    request: RequestBuilder,
    host: &str,
    limit: u64,
    what: &'static str,
) -> Result<Bytes, RegistryError> {
    let stalled = || RegistryError::Stalled { host: host.to_owned(), seconds: TOKEN_TIMEOUT.as_secs() };
    let send = || async {
        let same = request.try_clone();
        let same =
            same.ok_or_else(|| RegistryError::protocol(host, "is asked what cannot be asked again"))?;
        let response = timeout(TOKEN_TIMEOUT, same.send()).await.map_err(|_| stalled())?;
        response.map_err(|error| RegistryError::connection(host, error))
    };
    let response = retried(host, TOKEN_TIMEOUT, send).await?;
    body(response, host, limit, what, TOKEN_TIMEOUT).await
}

/// Sends a request until it succeeds, is refused for good, or was sent often enough.
async fn retried<F>(host: &str, patience: Duration, send: impl Fn() -> F) -> Result<Response, RegistryError>
where
    F: Future<Output = Result<Response, RegistryError>>,
{
    let mut attempt = 0;
    loop {
        let response = send().await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let wait = retry::wait_after(attempt, Some(response.headers()), SystemTime::now());
        let error = refusal(response, host, patience).await;
        let Some(wait) = wait.filter(|_| is_transient(status)) else { return Err(error) };
        tracing::debug!(%error, ?wait, "asking again");
        tokio::time::sleep(wait).await;
        attempt += 1;
    }
}

async fn body(
    mut response: Response,
    host: &str,
    limit: u64,
    what: &'static str,
    patience: Duration,
) -> Result<Bytes, RegistryError> {
    let too_large = || RegistryError::TooLarge { host: host.to_owned(), what, limit };
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut progress = Progress::new(patience);
    let mut body = Vec::new();
    loop {
        let started = Instant::now();
        let stalled = || RegistryError::Stalled { host: host.to_owned(), seconds: patience.as_secs() };
        let chunk = timeout(progress.patience(), response.chunk()).await.map_err(|_| stalled())?;
        let Some(chunk) = chunk.map_err(|error| RegistryError::connection(host, error))? else {
            return Ok(body.into());
        };
        if (body.len() + chunk.len()) as u64 > limit {
            return Err(too_large());
        }
        if !progress.note(started.elapsed(), chunk.len()) {
            return Err(stalled());
        }
        body.extend_from_slice(&chunk);
    }
}

/// What an unsuccessful answer says: the registry's own words, if it has any.
async fn refusal(mut response: Response, host: &str, patience: Duration) -> RegistryError {
    let status = response.status();
    let json =
        response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/"));
    let mut text = Vec::new();
    let reading = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            text.extend_from_slice(&chunk);
            if text.len() > MAX_ERROR_ANSWER {
                break;
            }
        }
    };
    // Best effort, and not for long: the status alone is an answer.
    let _ = timeout(patience, reading).await;
    let message = if json { error_message(&text) } else { None };
    let message = message.map_or_else(String::new, |message| format!(": {}", printable(&message)));
    RegistryError::Status { host: host.to_owned(), status, message }
}

/// `{"errors": [{"code": …, "message": …}]}`.
pub(super) fn error_message(body: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    let errors = value.get("errors")?.as_array()?.iter().take(3);
    let texts = errors.filter_map(|error| {
        let text = |key| error.get(key).and_then(serde_json::Value::as_str);
        Some(match (text("code"), text("message")) {
            (Some(code), Some(message)) => format!("{code}: {message}"),
            (one, other) => one.or(other)?.to_owned(),
        })
    });
    Some(texts.collect::<Vec<_>>().join("; ")).filter(|text| !text.is_empty())
}
