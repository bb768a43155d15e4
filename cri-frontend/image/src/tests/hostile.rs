//! Registries that break, lie or never end: each pull ends in an error that says why, and leaves nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use sha2::Digest as _;

use super::{
    fixture::{Content, Home, MANIFEST, gzip, layer_of},
    server::{Reply, Request, Server},
};
use crate::{Digest, ErrorKind, ImageError};

fn content() -> Content {
    let mut content = Content::default();
    // Does not compress, so that a blob is as large.
    let data: Vec<u8> = (0..6000_u32)
        .flat_map(|number| <[u8; 32]>::from(sha2::Sha256::digest(number.to_le_bytes())))
        .collect();
    content.image("r", "t", &[layer_of("a", &data), layer_of("b", b"b")]);
    content
}

/// Pulls from a registry whose answers are changed on the way.
async fn pull(
    change: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static,
) -> (Result<(), ImageError>, Vec<Request>) {
    pull_of(content(), change).await
}

async fn pull_of(
    content: Content,
    change: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static,
) -> (Result<(), ImageError>, Vec<Request>) {
    let server = Server::start(move |request| change(request, content.reply(request))).await;
    let home = Home::new();
    let store = home.open().await;
    let result = store.pull(&format!("{}/r:t", server.address), None).await;
    if result.is_err() {
        home.empties().await;
        assert!(store.list().is_empty());
    }
    (result.map(drop), server.requests())
}

async fn fails(
    kind: ErrorKind,
    word: &str,
    change: impl Fn(&Request, Reply) -> Reply + Send + Sync + 'static,
) {
    let error = pull(change).await.0.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(word), "{word:?}: {error}");
}

fn is_blob(request: &Request) -> bool {
    request.target.contains("/blobs/")
}

/// For the `number`th request that fits, counted from 0.
fn nth(fits: impl Fn(&Request) -> bool, number: usize) -> impl Fn(&Request) -> bool {
    let seen = AtomicUsize::new(0);
    move |request| fits(request) && seen.fetch_add(1, Ordering::SeqCst) == number
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_keep_their_kind_and_words() {
    for (status, kind) in [
        (401, ErrorKind::Unauthenticated),
        (403, ErrorKind::PermissionDenied),
        (404, ErrorKind::NotFound),
        (418, ErrorKind::Unavailable),
    ] {
        let body = r#"{"errors":[{"code":"NO","message":"because\u0007 of this"}]}"#;
        fails(kind, "NO: because of this", move |_, _| {
            Reply::new(status, body).with("content-type", "application/json")
        })
        .await;
    }
    fails(ErrorKind::Unauthenticated, "401", |_, _| Reply::new(401, "").with("www-authenticate", "\"Bearer"))
        .await;
    fails(ErrorKind::Unavailable, "token server", |_, _| {
        Reply::new(401, "").with("www-authenticate", "Bearer realm=\"ftp://x/\"")
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_busy_is_asked_again() {
    for status in [429, 500, 503] {
        let first = nth(|_| true, 0);
        let (result, requests) =
            pull(
                move |request, reply| {
                    if first(request) { Reply::new(status, "").with("retry-after", "0") } else { reply }
                },
            )
            .await;
        result.unwrap();
        assert_eq!(requests.len(), 5);
    }
    // Told to come back tomorrow, we say so now.
    fails(ErrorKind::Unavailable, "429", |_, _| Reply::new(429, "").with("retry-after", "86400")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_goes_on_where_it_broke() {
    for honours_range in [true, false] {
        let broken = nth(|_| true, 0);
        let (result, requests) = pull(move |request, reply| {
            if reply.body.len() > 100_000 && request.header("range").is_none() && broken(request) {
                return Reply { cut: Some(1000), ..reply };
            }
            if honours_range || request.header("range").is_none() {
                return reply;
            }
            content().reply(&Request { headers: [].into(), ..request.clone() })
        })
        .await;
        result.unwrap();
        let ranges: Vec<_> = requests.iter().filter_map(|request| request.header("range")).collect();
        assert!(!ranges.is_empty() && ranges.iter().all(|range| range.ends_with('-')), "{ranges:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_always_breaks_is_given_up() {
    fails(ErrorKind::Unavailable, "layer sha256:", |request, reply| {
        if is_blob(request) && reply.body.len() > 100_000 {
            return Reply { cut: Some(0), ..reply };
        }
        reply
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_lengths_and_digests_are_found() {
    let longer = |request: &Request, mut reply: Reply| {
        if is_blob(request) {
            reply.body.push(0);
        }
        reply
    };
    fails(ErrorKind::Unavailable, "digest", longer).await;
    fails(ErrorKind::Unavailable, "bytes", |request, mut reply| {
        if is_blob(request) && reply.body.len() > 100_000 {
            reply.body.push(0);
        }
        reply
    })
    .await;
    fails(ErrorKind::FailedPrecondition, "digest", |request, mut reply| {
        if is_blob(request) && reply.body.len() > 100_000 {
            reply.body[50_000] ^= 1;
        }
        reply
    })
    .await;
    fails(ErrorKind::Unavailable, "digest", |request, reply| {
        if is_blob(request) {
            reply
        } else {
            reply.with("docker-content-digest", Digest::of(b"x").to_string())
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_and_trickles_end_in_time() {
    let silent = |_: &Request| Reply { length: Some(10), hang: true, ..Reply::new(200, "{") };
    let content = content();
    let trickling = move |request: &Request| {
        let reply = content.reply(request);
        if !is_blob(request) || reply.body.len() < 100_000 {
            return reply;
        }
        Reply { length: Some(reply.body.len()), trickle: true, body: reply.body[..1000].to_vec(), ..reply }
    };
    for server in [Server::start(silent).await, Server::start(trickling).await] {
        let mut home = Home::new();
        home.config.progress_timeout_s = 1;
        let error = home.open().await.pull(&format!("{}/r:t", server.address), None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("images.progress_timeout_s"), "{error}");
        home.empties().await;
    }
}

/// Manifest, configuration, two layers.
const REQUESTS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_anywhere_is_made_again() {
    for number in 0..REQUESTS {
        let broken = nth(|_| true, number);
        let (result, requests) =
            pull(move |request, reply| if broken(request) { Reply { cut: Some(5), ..reply } } else { reply })
                .await;
        result.unwrap();
        assert_eq!(requests.len(), REQUESTS + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_speaks_no_http_is_an_error() {
    let pulls = (0..REQUESTS).map(|number| {
        let seen = AtomicUsize::new(0);
        pull(move |_, reply| {
            let garbage = seen.fetch_add(1, Ordering::SeqCst) >= number;
            if garbage { Reply { raw: true, ..Reply::new(0, "\0\u{ff}SSH-2.0\r\n\r\n") } } else { reply }
        })
    });
    for (result, _) in futures::future::join_all(pulls).await {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_is_explained_without_end_is_one_all_the_same() {
    let server =
        Server::start(|_| Reply { length: Some(1 << 20), trickle: true, ..Reply::new(403, "{") }).await;
    let mut home = Home::new();
    home.config.progress_timeout_s = 1;
    let store = home.open().await;
    let name = format!("{}/r:t", server.address);
    let pulled = tokio::time::timeout(Duration::from_secs(10), store.pull(&name, None)).await;
    assert_eq!(pulled.expect("it reads on").unwrap_err().kind(), ErrorKind::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_end_and_stay_on_http() {
    fails(ErrorKind::Unavailable, "circles", |request, _| {
        Reply::new(302, "").with("location", request.target.clone())
    })
    .await;
    fails(ErrorKind::Unavailable, "redirects", |_, _| {
        Reply::new(302, "").with("location", "file:///etc/passwd")
    })
    .await;
    fails(ErrorKind::Unavailable, "redirects", |_, _| Reply::new(307, "")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_that_are_too_large_or_make_no_sense_are_refused() {
    fails(ErrorKind::ResourceExhausted, "max_manifest_kb", |_, reply| Reply {
        body: vec![b' '; 10 << 20],
        ..reply
    })
    .await;
    for (garbage, word) in [("\u{0}\u{1}", "no sense"), ("[]", "no sense"), ("{}", "lacks")] {
        fails(ErrorKind::FailedPrecondition, word, move |_, reply| Reply { body: garbage.into(), ..reply })
            .await;
    }
    let mut content = Content::default();
    let config = content.blob("r", br#"{"rootfs":3}"#);
    let manifest = format!(r#"{{"schemaVersion":2,"config":{{"digest":"{config}","size":12}},"layers":[]}}"#);
    content.manifest("r", "t", MANIFEST, &manifest);
    let error = pull_of(content, |_, reply| reply).await.0.unwrap_err();
    assert!(error.to_string().contains("configuration"), "{error}");
    let mut content = Content::default();
    let large = vec![b' '; (4 << 20) + 1];
    let config = content.blob("r", &large);
    let size = large.len();
    let manifest =
        format!(r#"{{"schemaVersion":2,"config":{{"digest":"{config}","size":{size}}},"layers":[]}}"#);
    content.manifest("r", "t", MANIFEST, &manifest);
    let error = pull_of(content, |_, reply| reply).await.0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResourceExhausted, "{error}");
    assert!(error.to_string().contains("max_manifest_kb"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_and_broken_layers_are_harmless() {
    let bomb = gzip(&vec![0; 4 << 20]);
    for (blob, diff_id, kind) in [
        (bomb, Digest::of(b""), ErrorKind::FailedPrecondition),
        (b"garbage".to_vec(), Digest::of(b"garbage"), ErrorKind::FailedPrecondition),
        (gzip(b"garbage")[..20].to_vec(), Digest::of(b"garbage"), ErrorKind::FailedPrecondition),
        (layer_of("x", b"x").0, Digest::of(b"other"), ErrorKind::FailedPrecondition),
    ] {
        let mut content = Content::default();
        content.image("r", "t", &[layer_of("first", b"1"), (blob, diff_id)]);
        let error = pull_of(content, |_, reply| reply).await.0.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains("layer sha256:"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_do_not_follow_a_redirect_to_another_host() {
    let elsewhere = Server::start(content().serve()).await;
    let target = elsewhere.address.clone();
    let content = Arc::new(content());
    let server = Server::start(move |request| {
        if request.header("authorization").is_none() {
            return Reply::new(401, "").with("www-authenticate", "Basic realm=r");
        }
        if is_blob(request) {
            return Reply::new(307, "").with("location", format!("http://{target}{}", request.target));
        }
        content.reply(request)
    })
    .await;
    let home = Home::new();
    let credentials =
        crate::Credentials { username: "u".into(), password: "secret".into(), ..Default::default() };
    home.open().await.pull(&format!("{}/r:t", server.address), Some(credentials)).await.unwrap();
    let requests = elsewhere.requests();
    assert_eq!(requests.len(), 3);
    assert!(requests.iter().all(|request| request.header("authorization").is_none()));
}
