//! Log-in, and which host is asked.

use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering},
};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    fixture::{Content, Home, layer_of},
    server::{Reply, Request, Server},
};
use crate::{Credentials, ErrorKind};

fn content() -> Content {
    let mut content = Content::default();
    content.image("team/r", "t", &[layer_of("a", b"a")]);
    content
}

fn password() -> Credentials {
    Credentials { username: "user".into(), password: "pass".into(), ..Credentials::default() }
}

/// A token server and registry in one; a token is good for so many requests.
async fn token_registry(uses: usize) -> Server {
    let (content, left, issued) = (content(), AtomicUsize::new(0), AtomicUsize::new(0));
    Server::start(move |request: &Request| {
        let host = request.header("host").unwrap_or_default();
        if request.target.starts_with("/token") {
            let basic = format!("Basic {}", STANDARD.encode("user:pass"));
            let by_password = request.header("authorization") == Some(&basic);
            let by_identity = request.method == "POST" && request.body.contains("refresh_token=refresh%2F");
            if !by_password && !by_identity {
                return Reply::new(401, "");
            }
            left.store(uses, Ordering::SeqCst);
            let number = issued.fetch_add(1, Ordering::SeqCst) + 1;
            return Reply::new(200, format!(r#"{{"token":"good{number}","expires_in":60}}"#));
        }
        let spent =
            || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err();
        let newest = format!("Bearer good{}", issued.load(Ordering::SeqCst));
        if request.header("authorization") == Some("Bearer static")
            || (request.header("authorization") == Some(&newest) && !spent())
        {
            return content.reply(request);
        }
        let challenge =
            format!(r#"Bearer realm="http://{host}/token",service="svc",scope="repository:team/r:pull""#);
        Reply::new(401, "").with("www-authenticate", challenge)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_fetched_used_and_renewed() {
    for uses in [100, 1] {
        let server = token_registry(uses).await;
        let home = Home::new();
        home.open().await.pull(&format!("{}/team/r:t", server.address), Some(password())).await.unwrap();
        let tokens: Vec<_> =
            server.requests().into_iter().filter(|request| request.target.starts_with("/token")).collect();
        assert_eq!(tokens.len(), if uses == 1 { 3 } else { 1 });
        assert!(tokens[0].target.contains("service=svc&scope=repository%3Ateam%2Fr%3Apull"), "{tokens:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_server_that_is_busy_is_asked_again_and_one_that_makes_no_sense_is_not() {
    for (answer, works) in [
        (r#"{"access_token":"good"}"#, true),
        (r#"{"token":["secret"]}"#, false),
        ("\0", false),
        ("{}", false),
    ] {
        let (content, asked) = (content(), AtomicUsize::new(0));
        let server = Server::start(move |request: &Request| {
            if request.target.starts_with("/token") {
                return match asked.fetch_add(1, Ordering::SeqCst) {
                    0 => Reply::new(503, "").with("retry-after", "0"),
                    _ => Reply::new(200, answer),
                };
            }
            if request.header("authorization") == Some("Bearer good") {
                return content.reply(request);
            }
            let host = request.header("host").unwrap_or_default();
            Reply::new(401, "").with("www-authenticate", format!(r#"Bearer realm="http://{host}/token""#))
        })
        .await;
        let home = Home::new();
        let pulled = home.open().await.pull(&format!("{}/team/r:t", server.address), Some(password())).await;
        assert_eq!(pulled.is_ok(), works, "{answer:?}");
        if let Err(error) = pulled {
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            let shown = format!("{error} {error:?}");
            assert!(shown.contains("token server") && !shown.contains("secret"), "{shown}");
        }
        let tokens = server.requests().iter().filter(|request| request.target.starts_with("/token")).count();
        assert_eq!(tokens, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_and_registry_tokens_work() {
    for credentials in [
        Credentials { identity_token: "refresh/".into(), ..Credentials::default() },
        Credentials { registry_token: "static".into(), ..Credentials::default() },
    ] {
        let server = token_registry(100).await;
        let home = Home::new();
        home.open().await.pull(&format!("{}/team/r:t", server.address), Some(credentials)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_an_error_without_them() {
    let server = token_registry(100).await;
    let home = Home::new();
    let store = home.open().await;
    let name = format!("{}/team/r:t", server.address);
    let wrong = Credentials { username: "user".into(), password: "hunter2".into(), ..Credentials::default() };
    for credentials in [None, Some(wrong)] {
        let error = store.pull(&name, credentials).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated, "{error}");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("hunter2") && !shown.contains(&STANDARD.encode("user:hunter2")), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_auth_file_is_used_without_other_credentials() {
    let server = token_registry(100).await;
    let mut home = Home::new();
    home.config.auth_file = home.directory.path().join("config.json");
    let auth = STANDARD.encode("user:pass");
    let text = format!(r#"{{"auths":{{"http://{}/v1/":{{"auth":"{auth}"}}}}}}"#, server.address);
    fs::write(&home.config.auth_file, text).unwrap();
    home.open().await.pull(&format!("{}/team/r:t", server.address), None).await.unwrap();
}

fn hosts_toml(home: &Home, text: &str) {
    let directory = home.config.certs_dir.join("registry.example");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("hosts.toml"), text).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn mirrors_are_asked_in_order_with_their_headers_and_the_name() {
    let empty = Server::start(|_| Reply::new(404, "")).await;
    let full = Server::start(content().serve()).await;
    let home = Home::new();
    hosts_toml(
        &home,
        &format!(
            "server = 'http://127.0.0.1:1'\n[host.'http://{}']\n[host.'http://{}']\n[host.'http://{}'.header]\nx-key = 'k'\n",
            empty.address, full.address, full.address
        ),
    );
    let image = home.open().await.pull("registry.example/team/r:t", None).await.unwrap();
    assert_eq!(image.repo_tags, ["registry.example/team/r:t"]);
    for server in [&empty, &full] {
        let requests = server.requests();
        assert!(!requests.is_empty());
        assert!(
            requests.iter().all(|request| request.target.ends_with("?ns=registry.example")),
            "{requests:?}"
        );
    }
    assert!(full.requests().iter().all(|request| request.header("x-key") == Some("k")));
    assert!(empty.requests().iter().all(|request| request.header("x-key").is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_is_asked_only_what_it_can() {
    let resolver = Server::start(content().serve()).await;
    let puller = Server::start(content().serve()).await;
    let home = Home::new();
    hosts_toml(
        &home,
        &format!(
            "server = 'http://127.0.0.1:1'\ncapabilities = ['push']\n\
             [host.'http://{}']\ncapabilities = ['pull']\n[host.'http://{}']\ncapabilities = ['resolve']\n",
            puller.address, resolver.address
        ),
    );
    home.open().await.pull("registry.example/team/r:t", None).await.unwrap();
    let paths =
        |server: &Server| server.requests().into_iter().map(|request| request.target).collect::<Vec<_>>();
    assert!(paths(&resolver).iter().all(|path| path.contains("/manifests/t")), "{:?}", paths(&resolver));
    assert!(paths(&puller).iter().all(|path| path.contains("sha256:")), "{:?}", paths(&puller));
}
