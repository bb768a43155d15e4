//! Answers a host's challenge.

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{
    Client, RequestBuilder, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use serde::Deserialize;

use super::{RegistryError, auth_file::same_registry, challenge::Challenge, endpoint};
use crate::Credentials;

const MAX_TOKEN_ANSWER: u64 = 1 << 20;
/// Who asks. Token servers want it, and log it.
const CLIENT_ID: &str = "a3s-box";

/// How we show who we are.
#[derive(Clone)]
pub(super) enum Login {
    /// Not at all.
    Anonymous,
    /// By name and password.
    Password(String, String),
    /// By a token for the token server.
    Identity(String),
    /// By a token for the registry itself.
    Registry(String),
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

impl Login {
    /// What credentials say, if they are meant for this host.
    pub(super) fn new(credentials: &Credentials, host: &str) -> Result<Self, RegistryError> {
        let Credentials { username, password, auth, server_address, identity_token, registry_token } =
            credentials;
        if !server_address.is_empty() && !same_registry(server_address, host) {
            return Ok(Self::Anonymous);
        }
        if !registry_token.is_empty() {
            return Ok(Self::Registry(registry_token.clone()));
        }
        if !username.is_empty() {
            return Ok(Self::Password(username.clone(), password.clone()));
        }
        if !identity_token.is_empty() {
            return Ok(Self::Identity(identity_token.clone()));
        }
        if auth.is_empty() {
            return Ok(Self::Anonymous);
        }
        let bad = |reason| RegistryError::Credentials { host: host.to_owned(), reason };
        let decoded = STANDARD.decode(auth).map_err(|_| bad("auth is not base64"))?;
        let text = String::from_utf8(decoded).map_err(|_| bad("auth is not UTF-8"))?;
        let (username, password) =
            text.split_once(':').ok_or_else(|| bad("auth is not username:password"))?;
        Ok(Self::Password(username.to_owned(), password.trim_end_matches('\0').to_owned()))
    }
}

/// What a host wants to see in `Authorization`, after it sent a challenge.
pub(super) async fn answer(
    client: &Client,
    login: &Login,
    challenge: Challenge,
    from: &Url,
    repository: &str,
) -> Result<Option<HeaderValue>, RegistryError> {
    let host = from.host_str().unwrap_or_default();
    match (challenge, login) {
        (_, Login::Registry(token)) => bearer(host, token).map(Some),
        (Challenge::Basic, Login::Password(username, password)) => basic(host, username, password).map(Some),
        (Challenge::Basic, _) => Ok(None),
        (Challenge::Bearer { realm, service, scope }, login) => {
            let realm = realm_url(&realm, from)?;
            let scope = scope.unwrap_or_else(|| format!("repository:{repository}:pull"));
            let token = token(client, login, realm, service, &scope).await?;
            bearer(host, &token).map(Some)
        }
    }
}

/// Credentials go to the token server that the registry names: not in the clear, if the registry itself is not.
fn realm_url(realm: &str, from: &Url) -> Result<Url, RegistryError> {
    let host = from.host_str().unwrap_or_default();
    let url: Url = from
        .join(realm)
        .map_err(|_| RegistryError::protocol(host, "it names a token server that is no URL"))?;
    match (from.scheme(), url.scheme()) {
        (_, "https") | ("http", "http") => Ok(url),
        _ => Err(RegistryError::protocol(host, "it names a token server that is not reached by https")),
    }
}

async fn token(
    client: &Client,
    login: &Login,
    url: Url,
    service: Option<String>,
    scope: &str,
) -> Result<String, RegistryError> {
    let host = url.host_str().unwrap_or_default().to_owned();
    let service = service.unwrap_or_default();
    let request = match login {
        Login::Identity(refresh) => by_refresh_token(client, url, refresh, &service, scope),
        Login::Password(username, password) => {
            let authorization = basic(&host, username, password)?;
            by_query(client, url, &service, scope).header(AUTHORIZATION, authorization)
        }
        Login::Anonymous | Login::Registry(_) => by_query(client, url, &service, scope),
    };
    let body = endpoint::small_answer(request, &host, MAX_TOKEN_ANSWER, "the token server's answer").await?;
    // No parser's message: it could quote a token.
    let answer: TokenAnswer = serde_json::from_slice(&body)
        .map_err(|_| RegistryError::protocol(&host, "the token server's answer is not what it should be"))?;
    let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
    if token.is_empty() {
        return Err(RegistryError::protocol(&host, "the token server's answer has no token"));
    }
    Ok(token)
}

/// OAuth 2's way.
fn by_refresh_token(client: &Client, url: Url, token: &str, service: &str, scope: &str) -> RequestBuilder {
    let mut form = url.clone();
    form.set_query(None);
    form.query_pairs_mut()
        .append_pair("grant_type", "refresh_token")
        .append_pair("refresh_token", token)
        .append_pair("client_id", CLIENT_ID)
        .append_pair("service", service)
        .append_pair("scope", scope);
    let body = form.query().unwrap_or_default().to_owned();
    client.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
}

/// The older way, for all others.
fn by_query(client: &Client, mut url: Url, service: &str, scope: &str) -> RequestBuilder {
    if !service.is_empty() {
        url.query_pairs_mut().append_pair("service", service);
    }
    url.query_pairs_mut().extend_pairs(scope.split(' ').map(|scope| ("scope", scope)));
    client.get(url)
}

fn basic(host: &str, username: &str, password: &str) -> Result<HeaderValue, RegistryError> {
    secret(host, &format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
}

fn bearer(host: &str, token: &str) -> Result<HeaderValue, RegistryError> {
    secret(host, &format!("Bearer {token}"))
}

fn secret(host: &str, text: &str) -> Result<HeaderValue, RegistryError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| RegistryError::Credentials {
        host: host.to_owned(),
        reason: "a token holds control characters",
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_for_the_registry_they_name() {
        let given = Credentials {
            username: "u".into(),
            password: "p".into(),
            server_address: "https://index.docker.io/v1/".into(),
            ..Credentials::default()
        };
        assert!(matches!(Login::new(&given, "registry-1.docker.io").unwrap(), Login::Password(..)));
        assert!(matches!(Login::new(&given, "evil.example").unwrap(), Login::Anonymous));
    }

    #[test]
    fn the_auth_field_is_name_and_password() {
        let auth = |auth: &str| Login::new(&Credentials { auth: auth.into(), ..Credentials::default() }, "r");
        let encoded = STANDARD.encode("user:pass:word\0");
        assert!(matches!(auth(&encoded).unwrap(), Login::Password(u, p) if u == "user" && p == "pass:word"));
        for bad in ["%%%", &STANDARD.encode("no-colon")] {
            assert!(auth(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn passwords_never_go_to_a_plain_token_server_of_an_encrypted_registry() {
        let url = |text: &str| text.parse::<Url>().unwrap();
        assert!(realm_url("http://auth.example/token", &url("https://r.example/v2/")).is_err());
        assert!(realm_url("https://auth.example/token", &url("https://r.example/v2/")).is_ok());
        assert!(realm_url("http://127.0.0.1:1/token", &url("http://127.0.0.1:2/v2/")).is_ok());
        assert!(realm_url("file:///etc/passwd", &url("http://r/")).is_err());
    }
}
