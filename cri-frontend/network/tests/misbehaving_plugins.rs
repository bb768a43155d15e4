//! CNI with plugins that fail, hang and print garbage: what a user is told, and what is left afterwards.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{fs, path::PathBuf, time::Duration};

use a3s_box_network::{Cni, CniError, PodNetwork, RuntimeArguments};
use a3s_box_proto::config::Network;

const FAKE_PLUGIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/fake-plugin");

/// A network of fake plugins in a directory of its own.
struct Fixture {
    dir: tempfile::TempDir,
    cni: Cni,
    pod: PodNetwork,
}

impl Fixture {
    /// A chain of plugins, which behave as their names say.
    fn new(chain: &[&str]) -> Self {
        Self::with_timeout(chain, 60)
    }

    fn with_timeout(chain: &[&str], plugin_timeout_s: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["bin", "conf"] {
            fs::create_dir(path(name)).unwrap();
        }
        let plugins: Vec<_> = chain.iter().map(|kind| format!(r#"{{"type": "{kind}"}}"#)).collect();
        for kind in chain {
            std::os::unix::fs::symlink(FAKE_PLUGIN, path("bin").join(kind)).unwrap();
        }
        let list =
            format!(r#"{{"cniVersion": "1.0.0", "name": "test", "plugins": [{}]}}"#, plugins.join(", "));
        fs::write(path("conf/10-test.conflist"), list).unwrap();
        let cni = Cni::new(&Network {
            conf_dir: path("conf"),
            bin_dirs: vec![path("absent"), path("bin")],
            cache_dir: path("cache"),
            plugin_timeout_s,
            gc: true,
            ..Network::default()
        });
        let pod = PodNetwork {
            sandbox_id: "0f3e".parse().unwrap(),
            namespace: "default".into(),
            name: "web".into(),
            uid: "u".into(),
            netns: "/proc/self/ns/net".into(),
            arguments: RuntimeArguments::default(),
        };
        Self { dir, cni, pod }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Puts something else into the configuration.
    fn configure(&self, from: &str, to: &str) {
        let file = self.path("conf/10-test.conflist");
        let list = fs::read_to_string(&file).unwrap();
        fs::write(file, list.replace(from, to)).unwrap();
    }

    /// `ADD first`, `DEL second` …
    fn calls(&self) -> Vec<String> {
        let calls = fs::read_to_string(self.path("bin/calls")).unwrap_or_default();
        calls.lines().map(|line| line.splitn(3, ' ').take(2).collect::<Vec<_>>().join(" ")).collect()
    }

    fn records(&self) -> usize {
        fs::read_dir(self.path("cache/a3s-box")).map_or(0, Iterator::count)
    }

    /// A failing ADD, and what it says.
    async fn refused(&self, words: &[&str]) -> CniError {
        let error = self.cni.add(&self.pod).await.unwrap_err();
        let text = error.to_string();
        for word in words {
            assert!(text.contains(word), "{word:?} is missing in: {text}");
        }
        assert!(text.len() < 2000 && !text.contains(char::is_control), "{text:?}");
        error
    }
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_chain_runs_forwards_to_attach_and_backwards_to_detach() {
    let fixture = Fixture::new(&["first", "second"]);
    assert_eq!(fixture.cni.status().await.unwrap().name, "test");
    let ips = fixture.cni.add(&fixture.pod).await.unwrap();
    assert_eq!(ips, ["10.9.8.7".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(fixture.records(), 1);

    fixture.cni.del(&fixture.pod).await.unwrap();
    fixture.cni.del(&fixture.pod).await.unwrap();
    assert_eq!(fixture.calls(), ["ADD first", "ADD second", "DEL second", "DEL first"]);
    assert_eq!(fixture.records(), 0);
}

#[tokio::test]
async fn detaching_needs_neither_configuration_nor_namespace() {
    let mut fixture = Fixture::new(&["first"]);
    fixture.pod.netns = fixture.path("netns");
    fixture.cni.add(&fixture.pod).await.unwrap();
    fs::remove_file(fixture.path("conf/10-test.conflist")).unwrap();
    assert!(fixture.cni.status().await.unwrap_err().to_string().contains("no network configuration"));
    fixture.cni.del(&fixture.pod).await.unwrap();

    let calls = fs::read_to_string(fixture.path("bin/calls")).unwrap();
    let del = calls.lines().last().unwrap();
    assert!(del.starts_with("DEL first netns= "), "a namespace that is gone has an empty name: {del}");
    assert!(del.contains(r#""prevResult":{"#), "{del}");
}

#[tokio::test]
async fn the_draft_of_an_add_that_was_killed_goes_with_its_pod() {
    let fixture = Fixture::new(&["first"]);
    fs::create_dir_all(fixture.path("cache/a3s-box")).unwrap();
    fs::write(fixture.path("cache/a3s-box/0f3e.json.new"), "{").unwrap();
    fixture.cni.del(&fixture.pod).await.unwrap();
    assert_eq!(fixture.records(), 0);
    assert!(fixture.calls().is_empty(), "no plugin knows of it");
}

#[tokio::test]
async fn a_second_add_without_del_is_refused() {
    let fixture = Fixture::new(&["first"]);
    fixture.cni.add(&fixture.pod).await.unwrap();
    fixture.refused(&["0f3e", "test", "already"]).await;
    assert_eq!(fixture.calls(), ["ADD first"]);
}

#[tokio::test]
async fn a_plugin_that_fails_is_named_with_its_words_and_the_chain_is_undone() {
    let fixture = Fixture::new(&["first", "fail-add", "third"]);
    let words = ["test", "fail-add", "ADD", "says no: try later", "code 11", "is talkative"];
    fixture.refused(&words).await;
    assert_eq!(
        fixture.calls(),
        ["ADD first", "ADD fail-add", "DEL third", "DEL fail-add", "DEL first"],
        "all are asked to undo, as a plugin may have done half its work"
    );
    assert_eq!(fixture.records(), 0);
}

#[tokio::test]
async fn what_cannot_be_undone_is_remembered() {
    let fixture = Fixture::new(&["first", "fail-both"]);
    let error = fixture.refused(&["ADD", "could not be undone", "DEL"]).await;
    assert!(matches!(error, CniError::NotUndone { .. }));
    assert_eq!(fixture.records(), 1);
}

#[tokio::test]
async fn a_failed_del_can_be_repeated_until_it_succeeds() {
    let fixture = Fixture::new(&["first", "fail-del"]);
    fixture.cni.add(&fixture.pod).await.unwrap();
    assert!(fixture.cni.del(&fixture.pod).await.is_err());
    assert_eq!(fixture.records(), 1);
    fs::write(fixture.path("bin/healed"), "").unwrap();
    fixture.cni.del(&fixture.pod).await.unwrap();
    assert_eq!((fixture.calls().len(), fixture.records()), (5, 0));
}

#[tokio::test]
async fn a_plugin_that_hangs_is_killed_with_its_children() {
    let fixture = Fixture::with_timeout(&["hang"], 2);
    fixture.refused(&["hang", "killed", "2s", "still waiting"]).await;
    let child = fs::read_to_string(fixture.path("bin/child")).unwrap();
    let died = until(|| {
        let status = fs::read_to_string(format!("/proc/{}/status", child.trim())).unwrap_or_default();
        status.is_empty() || status.contains("State:\tZ")
    });
    tokio::time::timeout(Duration::from_secs(60), died).await.expect("the plugin's child lives on");
    assert_eq!(fixture.records(), 0);
}

#[tokio::test]
async fn a_plugin_dies_with_the_call_that_wanted_it() {
    let fixture = Fixture::new(&["hang"]);
    let add = fixture.cni.add(&fixture.pod);
    let begun =
        until(|| fs::read_to_string(fixture.path("bin/child")).is_ok_and(|child| child.ends_with('\n')));
    tokio::select! {
        result = add => panic!("a hanging plugin answered {result:?}"),
        () = begun => {}
    }
    assert_eq!(fixture.records(), 1, "what it did is undone by the DEL to come");
    fixture.cni.del(&fixture.pod).await.unwrap();
    assert_eq!((fixture.calls(), fixture.records()), (vec!["ADD hang".into(), "DEL hang".into()], 0));
}

#[tokio::test]
async fn garbage_floods_and_silence_are_errors_that_quote_little() {
    for (plugin, words) in [
        ("garbage", ["no CNI result", "Segmentation\\u{1b}[31m fault"]),
        ("flood", ["1048576 bytes", "y\\ny\\n"]),
        ("silent", ["exit status: 3", "\"\""]),
        ("no-address", ["eth0", "no address"]),
    ] {
        let fixture = Fixture::new(&[plugin]);
        fixture.refused(&words).await;
        assert_eq!((fixture.calls().len(), fixture.records()), (2, 0), "{plugin} was not undone");
    }
}

#[tokio::test]
async fn a_missing_plugin_is_found_out_before_anything_is_done() {
    let fixture = Fixture::new(&["first", "second"]);
    fs::remove_file(fixture.path("bin/second")).unwrap();
    fixture.refused(&["second", "absent", "bin"]).await;
    assert!(fixture.cni.status().await.unwrap_err().to_string().contains("second"));
    assert_eq!((fixture.calls().len(), fixture.records()), (0, 0));
}

#[tokio::test]
async fn a_damaged_record_does_not_make_a_pod_immortal() {
    let fixture = Fixture::new(&["first"]);
    fixture.cni.add(&fixture.pod).await.unwrap();
    fs::write(fixture.path("cache/a3s-box/0f3e.json"), "{").unwrap();
    fixture.cni.del(&fixture.pod).await.unwrap();
    assert_eq!((fixture.calls(), fixture.records()), (vec!["ADD first".into(), "DEL first".into()], 0));
}

#[tokio::test]
async fn plugins_are_asked_what_their_version_of_the_specification_knows() {
    let ours = |fixture: &Fixture, commands: &[&str]| {
        let calls = fixture.calls();
        let asked = |call: &&String| !call.starts_with("ADD") && !call.starts_with("DEL");
        assert_eq!(calls.iter().filter(asked).cloned().collect::<Vec<_>>(), commands);
    };
    for (list, commands) in [
        (r#""1.1.0""#, &["STATUS a", "STATUS b", "CHECK a", "CHECK b", "GC a", "GC b"][..]),
        (r#""1.1.0", "disableCheck": true, "disableGC": "true""#, &["STATUS a", "STATUS b"][..]),
        (r#""1.0.0""#, &["CHECK a", "CHECK b"][..]),
        (r#""0.4.0""#, &["CHECK a", "CHECK b"][..]),
        (r#""0.3.1""#, &[][..]),
    ] {
        let fixture = Fixture::new(&["a", "b"]);
        fixture.configure(r#""1.0.0""#, list);
        fixture.cni.status().await.unwrap();
        fixture.cni.add(&fixture.pod).await.unwrap();
        fixture.cni.check(&fixture.pod.sandbox_id).await.unwrap();
        fixture.cni.collect_garbage().await.unwrap();
        ours(&fixture, commands);
        let log = fs::read_to_string(fixture.path("bin/calls")).unwrap();
        for line in log.lines() {
            let has = |word: &str| line.contains(word);
            assert_eq!(has("prevResult"), line.starts_with("CHECK") || line.starts_with("ADD b"), "{line}");
            let valid = r#""cni.dev/valid-attachments":[{"containerID":"0f3e","ifname":"eth0"}]"#;
            assert_eq!(has(valid), line.starts_with("GC"), "{line}");
        }
    }
}

#[tokio::test]
async fn what_plugins_find_wrong_is_told() {
    let fixture = Fixture::new(&["fail-ask", "second"]);
    fixture.configure("1.0.0", "1.1.0");
    fixture.cni.add(&fixture.pod).await.unwrap();
    let words = |error: CniError, command: &str| {
        let text = error.to_string();
        assert!(["fail-ask", command, "says no"].iter().all(|word| text.contains(word)), "{text}");
    };
    words(fixture.cni.status().await.unwrap_err(), "STATUS");
    words(fixture.cni.check(&fixture.pod.sandbox_id).await.unwrap_err(), "CHECK");
    words(fixture.cni.collect_garbage().await.unwrap_err(), "GC");
    assert_eq!(fixture.calls().last().unwrap(), "GC second", "all are asked");
    fs::write(fixture.path("cache/a3s-box/torn.json"), "{").unwrap();
    assert!(matches!(fixture.cni.collect_garbage().await.unwrap_err(), CniError::Cache { .. }));
}

#[tokio::test]
async fn addresses_that_no_plugin_takes_are_refused() {
    let mut fixture = Fixture::new(&["first"]);
    fixture.pod.arguments.ips = vec!["10.9.8.7".into()];
    let error = fixture.refused(&["test", "ips", "capabilities"]).await;
    assert!(matches!(error, CniError::Incapable { .. }));
    assert_eq!((fixture.calls().len(), fixture.records()), (0, 0));
    fixture.configure(r#""first""#, r#""first", "capabilities": {"ips": true}"#);
    fixture.cni.add(&fixture.pod).await.unwrap();
    let calls = fs::read_to_string(fixture.path("bin/calls")).unwrap();
    assert!(calls.contains(r#""runtimeConfig":{"ips":["10.9.8.7"]}"#), "{calls}");
}
