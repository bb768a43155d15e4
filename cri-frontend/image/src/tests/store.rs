//! What is kept, for how long, and under which names.

use std::{collections::BTreeSet, fs, path::Path};

use super::{
    fixture::{Content, Home, layer_of, layer_with_root},
    server::{Reply, Server},
};
use crate::{Digest, ErrorKind, ImageStore, layer};

async fn open_again(home: &Home, store: ImageStore) -> ImageStore {
    drop(store);
    home.open().await
}

#[tokio::test(flavor = "multi_thread")]
async fn images_survive_a_restart_with_all_their_names() {
    let mut content = Content::default();
    let digest = content.image("r", "one", &[layer_of("a", b"a")]);
    let same = content.by_path["r/manifests/one"].clone();
    content.by_path.insert("r/manifests/two".into(), same);
    let server = Server::start(content.serve()).await;
    let home = Home::new();
    let store = home.open().await;
    let name = |version: &str| format!("{}/r{version}", server.address);
    store.pull(&name(":one"), None).await.unwrap();
    store.pull(&name(":two"), None).await.unwrap();
    store.pull(&name(&format!("@{digest}")), None).await.unwrap();
    let store = open_again(&home, store).await;
    let [image] = store.list().try_into().unwrap();
    assert_eq!(image.repo_tags, [name(":one"), name(":two")]);
    assert_eq!(image.repo_digests, [name(&format!("@{digest}"))]);
    assert_eq!(image.config.config().as_ref().unwrap().cmd().as_ref().unwrap(), &["one"]);
    assert!(image.layers.iter().all(|path| path.exists()));
    for found in [&name(":one"), &name(&format!(":x@{digest}")), &image.id, &image.id[7..20]] {
        assert_eq!(store.find(found).unwrap().unwrap().id, image.id, "{found}");
    }
    assert!(home.files().iter().all(|file| !file.starts_with("tmp/")));
    // As containerd: removed with all its names, by any of them.
    store.remove(&name(":one")).await.unwrap();
    assert!(store.find(&image.id).unwrap().is_none());
    home.empties().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_that_moves_leaves_the_old_image_its_digest() {
    let (mut first, mut second) = (Content::default(), Content::default());
    let old = first.image("r", "t", &[layer_of("a", b"old")]);
    second.image("r", "t", &[layer_of("a", b"new")]);
    let moved = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = moved.clone();
    let server = Server::start(move |request| {
        if seen.load(std::sync::atomic::Ordering::SeqCst) {
            second.reply(request)
        } else {
            first.reply(request)
        }
    })
    .await;
    let home = Home::new();
    let store = home.open().await;
    let name = format!("{}/r:t", server.address);
    let before = store.pull(&name, None).await.unwrap();
    moved.store(true, std::sync::atomic::Ordering::SeqCst);
    let after = store.pull(&name, None).await.unwrap();
    assert_ne!(before.id, after.id);
    assert_eq!(store.find(&name).unwrap().unwrap().id, after.id);
    let before = store.find(&before.id).unwrap().unwrap();
    assert!(before.repo_tags.is_empty());
    assert_eq!(before.repo_digests, [format!("{}/r@{old}", server.address)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_layers_stay_until_their_last_image_goes() {
    let layers: Vec<_> = (0..21).map(|number| layer_of(&format!("f{number}"), &[number])).collect();
    let mut content = Content::default();
    for number in 0..20 {
        content.image("r", &format!("t{number}"), &layers[number..number + 2]);
    }
    let server = Server::start(content.serve()).await;
    let home = Home::new();
    let store = home.open().await;
    let name = |number: usize| format!("{}/r:t{number}", server.address);
    for number in 0..20 {
        store.pull(&name(number), None).await.unwrap();
    }
    let blobs = server.requests().iter().filter(|request| request.target.contains("/blobs/")).count();
    assert_eq!(blobs, 20 + 21, "each configuration and each layer once");
    // All of them, in no order: 7 and 20 have no common divisor.
    for removed in (0..20).map(|number| number * 7 % 20) {
        store.remove(&name(removed)).await.unwrap();
        for image in store.list() {
            assert!(image.layers.iter().all(|path| path.exists()), "{image:?}");
        }
        let kept: std::collections::BTreeSet<_> =
            store.list().into_iter().flat_map(|image| image.layers).collect();
        let on_disk = home.files().iter().filter(|file| file.ends_with(".erofs")).count();
        assert_eq!(on_disk, kept.len());
    }
    assert_eq!(home.files(), [].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_use_stays_until_it_is_released() {
    let mut content = Content::default();
    content.image("r", "t", &[layer_of("a", b"a")]);
    let server = Server::start(content.serve()).await;
    let home = Home::new();
    let store = home.open().await;
    let name = format!("{}/r:t", server.address);
    let image = store.pull(&name, None).await.unwrap();
    store.hold(&image.id, "container").unwrap();
    store.remove(&image.id).await.unwrap();
    assert!(store.find(&name).unwrap().is_none() && store.list().is_empty());
    assert!(store.held("container").unwrap().layers[0].exists());

    let store = open_again(&home, store).await;
    assert!(image.layers[0].exists(), "nobody could hold it again yet");
    store.hold(&image.id, "container").unwrap();
    store.collect().await.unwrap();
    assert!(image.layers[0].exists());
    store.release("container");
    store.collect().await.unwrap();
    home.empties().await;
    assert_eq!(store.hold(&image.id, "other").unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn pinned_images_are_not_removed() {
    let mut content = Content::default();
    content.image("r", "t", &[layer_of("a", b"a")]);
    let server = Server::start(content.serve()).await;
    let mut home = Home::new();
    home.config.pinned = vec![format!("{}/r:t", server.address)];
    let store = home.open().await;
    let image = store.pull(&home.config.pinned[0], None).await.unwrap();
    assert!(image.pinned);
    assert_eq!(store.remove(&image.id).await.unwrap_err().kind(), ErrorKind::FailedPrecondition);
    assert!(store.find(&image.id).unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_refused_and_leftovers_are_removed() {
    let home = Home::new();
    let store = home.open().await;
    let again = ImageStore::open(home.root(), &home.config, "/x".into()).await;
    assert!(again.unwrap_err().to_string().contains("in use"));
    drop(store);
    for left in ["tmp/7/mkfs/layer.erofs", "layers/diff-00/layer.erofs", "manifests/00", "configs/00"] {
        let path = home.root().join(left);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }
    home.open().await;
    assert_eq!(home.files(), [].into());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_index_is_set_aside_and_no_layer_is_lost() {
    let mut content = Content::default();
    content.image("r", "t", &[layer_of("a", b"a")]);
    let server = Server::start(content.serve()).await;
    let home = Home::new();
    let store = home.open().await;
    let name = format!("{}/r:t", server.address);
    let image = store.pull(&name, None).await.unwrap();
    drop(store);
    fs::write(home.root().join("index.json"), "{").unwrap();
    let store = home.open().await;
    assert!(store.list().is_empty() && image.layers[0].exists());
    assert!(home.root().join("index.json.unreadable").exists());
    assert_eq!(store.pull(&name, None).await.unwrap().layers, image.layers);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_damage_is_found_and_nothing_is_changed() {
    let mut content = Content::default();
    let shared = layer_of("a", b"a");
    content.image("r", "one", std::slice::from_ref(&shared));
    content.image("r", "two", &[shared, layer_of("b", b"b")]);
    let server = Server::start(content.serve()).await;
    let home = Home::new();
    let store = home.open().await;
    let name = |tag: &str| format!("{}/r:{tag}", server.address);
    let one = store.pull(&name("one"), None).await.unwrap();
    let two = store.pull(&name("two"), None).await.unwrap();
    // Beside the process that uses the store.
    let whole = crate::verify(&home.root()).unwrap();
    assert_eq!((whole.images, whole.files, whole.damaged), (2, 6, vec![]));

    let both: BTreeSet<String> = [name("one"), name("two")].into();
    let second: BTreeSet<String> = [name("two")].into();
    let config = home.root().join("configs").join(two.id.trim_start_matches("sha256:"));
    let facts = two.layers[1].with_file_name("layer.json");
    flip_last_bit(&one.layers[0]);
    flip_last_bit(&config);
    fs::remove_file(&facts).unwrap();
    let before = home.files();
    let found = crate::verify(&home.root()).unwrap().damaged;
    assert_eq!(home.files(), before);
    assert_eq!(found.len(), 3, "{found:?}");
    for (path, images, word) in
        [(&config, &second, "digest"), (&one.layers[0], &both, "digest"), (&facts, &second, "No such file")]
    {
        let damage = found.iter().find(|damage| damage.path == *path).unwrap();
        assert!(damage.images == *images && damage.reason.contains(word), "{damage:?}");
    }

    fs::write(home.root().join("index.json"), "{").unwrap();
    let found = crate::verify(&home.root()).unwrap().damaged;
    assert!(found.len() == 1 && found[0].path == home.root().join("index.json"), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_blobs_serve_again_are_shared_and_go_with_their_last_image() {
    let mut content = Content::default();
    let shared = layer_of("a", b"a");
    content.image("r", "one", std::slice::from_ref(&shared));
    content.image("r", "two", &[layer_with_root(Some(0o711), "b", b"b"), shared.clone()]);
    let server = Server::start(content.serve()).await;
    let mut home = Home::new();
    home.config.keep_compressed = true;
    let store = home.open().await;
    let name = |tag: &str| format!("{}/r:{tag}", server.address);
    let blob = format!("blobs/{}", Digest::of(&shared.0).hex());
    let fetched = || {
        let target = format!("/v2/r/blobs/{}", Digest::of(&shared.0));
        server.requests().iter().filter(|request| request.target == target).count()
    };
    store.pull(&name("one"), None).await.unwrap();
    assert!(home.files().contains(&blob));
    // Above another root directory the shared layer is made again, and not fetched again.
    let two = store.pull(&name("two"), None).await.unwrap();
    assert_eq!(two.layers.len(), 2);
    assert_eq!(fetched(), 1);
    assert_eq!(crate::verify(&home.root()).unwrap().damaged, []);

    store.remove(&name("one")).await.unwrap();
    let store = open_again(&home, store).await;
    assert!(home.files().contains(&blob));
    // A damaged one is fetched again.
    flip_last_bit(&home.root().join(&blob));
    assert_eq!(crate::verify(&home.root()).unwrap().damaged.len(), 1);
    store.pull(&name("one"), None).await.unwrap();
    assert_eq!(fetched(), 2);
    assert_eq!(crate::verify(&home.root()).unwrap().damaged, []);
    store.remove(&name("one")).await.unwrap();
    store.remove(&name("two")).await.unwrap();
    home.empties().await;
}

fn flip_last_bit(path: &Path) {
    let mut content = fs::read(path).unwrap();
    *content.last_mut().unwrap() ^= 1;
    fs::write(path, content).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_at_once_fetch_each_blob_once_and_survive_a_caller() {
    let mut content = Content::default();
    let shared = layer_of("shared", &[7; 100_000]);
    content.image("r", "a", &[shared.clone(), layer_of("a", b"a")]);
    content.image("r", "b", &[layer_of("b", b"b"), shared]);
    let server = Server::start(content.serve()).await;
    let home = Home::new();
    let store = home.open().await;
    let (a, b) = (format!("{}/r:a", server.address), format!("{}/r:b", server.address));
    let (one, two, three) = tokio::join!(store.pull(&a, None), store.pull(&a, None), store.pull(&b, None));
    assert_eq!(one.unwrap().id, two.unwrap().id);
    three.unwrap();
    let mut blobs: Vec<_> = server
        .requests()
        .into_iter()
        .map(|request| request.target)
        .filter(|path| path.contains("/blobs/"))
        .collect();
    let all = blobs.len();
    blobs.sort();
    blobs.dedup();
    assert_eq!(blobs.len(), all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_nobody_waits_for_stops_and_leaves_nothing() {
    let mut content = Content::default();
    let layer = layer_of("a", &[1; 100_000]);
    let blob = format!("/v2/r/blobs/{}", Digest::of(&layer.0));
    content.image("r", "t", &[layer]);
    let target = blob.clone();
    let server = Server::start(move |request| {
        let reply = content.reply(request);
        if request.target != target {
            return reply;
        }
        Reply { hang: true, length: Some(reply.body.len()), body: reply.body[..50].to_vec(), ..reply }
    })
    .await;
    let home = Home::new();
    let store = home.open().await;
    let name = format!("{}/r:t", server.address);
    tokio::select! {
        pulled = store.pull(&name, None) => panic!("it ended: {pulled:?}"),
        // Its converter runs, too.
        () = async {
            while !server.requests().iter().any(|request| request.target == blob)
                || !home.files().iter().any(|file| file.ends_with("mkfs/errors"))
            {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        } => {}
    }
    home.empties().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_converted_no_more_at_once_than_configured_and_those_that_are_there_wait_for_none() {
    let shared = layer_of("b", b"b");
    let [slow, other] = [layer_of("slow", b""), layer_of("other", b"")];
    let blob = |layer: &(Vec<u8>, Digest)| format!("/v2/r/blobs/{}", Digest::of(&layer.0));
    let (held, waiting) = (blob(&slow), blob(&other));
    let mut content = Content::default();
    content.image("r", "one", std::slice::from_ref(&shared));
    content.image("r", "two", &[shared.clone(), shared.clone()]);
    content.image("r", "slow", &[slow]);
    content.image("r", "other", &[layer_with_root(Some(0o711), "a", b"a"), shared, other]);
    let target = held.clone();
    let server = Server::start(move |request| {
        let reply = content.reply(request);
        if request.target != target {
            return reply;
        }
        Reply { hang: true, length: Some(reply.body.len()), body: reply.body[..10].to_vec(), ..reply }
    })
    .await;
    let asked = |blob: &str| server.requests().iter().any(|request| request.target == blob);
    let mut home = Home::new();
    home.config.parallel_conversions = 1;
    let store = home.open().await;
    let name = |tag: &str| format!("{}/r:{tag}", server.address);
    store.pull(&name("one"), None).await.unwrap();
    let (slow, two, other) = (name("slow"), name("two"), name("other"));
    let mut other = std::pin::pin!(store.pull(&other, None));
    tokio::select! {
        pulled = store.pull(&slow, None) => panic!("it ended: {pulled:?}"),
        () = async {
            while !asked(&held) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            tokio::select! {
                pulled = &mut other => panic!("it did not wait: {pulled:?}"),
                pulled = store.pull(&two, None) => drop(pulled.unwrap()),
            }
            assert!(!asked(&waiting));
        } => {}
    }
    // One of its layers is made again, above the unusual root directory.
    assert_eq!(other.await.unwrap().layers.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_an_image_are_checked_before_it_is_fetched() {
    let layers: Vec<_> = (0..3).map(|number| layer_of("f", &[number])).collect();
    let mut content = Content::default();
    content.image("r", "t", &layers);
    let server = Server::start(content.serve()).await;
    let name = format!("{}/r:t", server.address);
    for (key, change) in [
        ("images.max_layers", (|config| config.max_layers = 2) as fn(&mut a3s_box_proto::config::Images)),
        ("images.max_layer_mb", |config| config.max_layer_mb = 0),
        ("images.keep_free_mb", |config| config.keep_free_mb = 1 << 40),
    ] {
        let mut home = Home::new();
        change(&mut home.config);
        let error = home.open().await.pull(&name, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ResourceExhausted);
        assert!(error.to_string().contains(key), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_that_occurs_twice_is_mounted_once() {
    let (one, two) = (layer_of("a", b"1"), layer_of("a", b"2"));
    let mut content = Content::default();
    content.image("r", "t", &[one.clone(), two.clone(), one]);
    let server = Server::start(content.serve()).await;
    let home = Home::new();
    let image = home.open().await.pull(&format!("{}/r:t", server.address), None).await.unwrap();
    assert_eq!(image.layers.len(), 2);
    assert!(image.layers[0].to_string_lossy().contains(two.1.hex()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shared_layer_does_not_hide_the_root_directory_of_another_image() {
    use std::os::unix::fs::MetadataExt;

    let shared = layer_of("b", b"b");
    let mut content = Content::default();
    content.image("r", "plain", &[layer_of("a", b"a"), shared.clone()]);
    content.image("r", "special", &[layer_with_root(Some(0o711), "a", b"a"), shared.clone()]);
    content.image("r", "both", &[layer_with_root(Some(0o711), "c", b"c"), shared]);
    let server = Server::start(content.serve()).await;
    let home = Home::new();
    let store = home.open().await;
    let mut tops = Vec::new();
    for tag in ["both", "plain", "special"] {
        let image = store.pull(&format!("{}/r:{tag}", server.address), None).await.unwrap();
        let top = image.layers.last().unwrap().clone();
        let modes = [0o755, 0o711].map(|mode| layer::tests::root_mode(&top) == mode);
        assert_eq!(modes, [tag == "plain", tag != "plain"], "{tag}");
        tops.push(fs::metadata(top).unwrap().ino());
    }
    assert!(tops[0] != tops[1] && tops[1] != tops[2] && tops[0] != tops[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_above_an_unusual_root_directory_are_fetched_once() {
    let layers = [
        layer_with_root(Some(0o555), "a", b"a"),
        layer_of("b", b"b"),
        layer_of("c", b"c"),
        layer_of("d", b"d"),
    ];
    let mut content = Content::default();
    content.image("r", "t", &layers);
    content.image("r", "more", &[layers.as_slice(), &[layer_of("e", b"e")]].concat());
    let server = Server::start(content.serve()).await;
    let mut home = Home::new();
    // So that the lowest one is known before the next one ends.
    home.config.parallel_layers = 1;
    let store = home.open().await;
    for (tag, blobs) in [("t", 1 + 4), ("more", 1 + 4 + 1 + 1)] {
        let image = store.pull(&format!("{}/r:{tag}", server.address), None).await.unwrap();
        assert_eq!(layer::tests::root_mode(image.layers.last().unwrap()), 0o555);
        let asked = server.requests().iter().filter(|request| request.target.contains("/blobs/")).count();
        assert_eq!(asked, blobs, "{tag}: configurations, and each layer once");
    }
}

#[test]
fn configurations_as_docker_writes_them_are_read() {
    let text = r#"{"architecture":"amd64","config":{"Hostname":"","Domainname":"","User":"","AttachStdin":false,
        "ExposedPorts":{"80/tcp":{}},"Tty":false,"Env":["PATH=/bin"],"Cmd":null,"Image":"","Volumes":null,
        "WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":null,"ArgsEscaped":true,"StopSignal":"SIGQUIT",
        "Healthcheck":{"Test":["CMD","x"]}},"container":"x","created":"2020-01-01T00:00:00Z","docker_version":"20",
        "history":[{"created":"2020-01-01T00:00:00Z","created_by":"x","empty_layer":true}],"os":"linux",
        "rootfs":{"type":"layers","diff_ids":[]},"variant":"v8"}"#;
    let config: oci_spec::image::ImageConfiguration = serde_json::from_str(text).unwrap();
    assert_eq!(config.config().as_ref().unwrap().stop_signal().as_deref(), Some("SIGQUIT"));
}
