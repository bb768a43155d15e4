//! How a container is named and stopped, and the least that a request must say.

use super::*;

#[test]
fn the_stop_signal_is_the_requests_the_images_or_term() {
    let signal = |asked: i32, of_image: Value| {
        with(|request| {
            request.container.stop_signal = asked;
            request.image = image(&json!({ "StopSignal": of_image }));
        })
        .stop_signal
    };
    assert_eq!(signal(cri::Signal::Sigusr1.into(), json!("SIGQUIT")), 10);
    assert_eq!((signal(0, json!("SIGQUIT")), signal(0, Value::Null)), (3, 15));
    refused(&["stop_signal"], |request| request.container.stop_signal = 99);
}

#[test]
fn tools_find_the_pod_in_the_annotations() {
    let spec = with(|_| {});
    let annotations = spec.spec.annotations().clone().unwrap();
    for (key, value) in [
        ("container-type", "container"),
        ("sandbox-id", "5a"),
        ("sandbox-name", "pod"),
        ("sandbox-namespace", "default"),
        ("sandbox-uid", "u-1"),
        ("container-name", "web"),
        ("image-name", "example.com/web:1"),
    ] {
        assert_eq!(annotations[&format!("io.kubernetes.cri.{key}")], value);
    }
}

#[test]
fn a_request_that_says_next_to_nothing_is_enough() {
    let mut request = Request::new();
    request.container = cri::ContainerConfig { command: vec!["/bin/true".into()], ..Default::default() };
    request.sandbox = cri::PodSandboxConfig::default();
    let spec = request.spec().unwrap();
    assert_eq!(spec.user, UserLookup::default());
    let json = serde_json::to_value(&spec.spec).unwrap();
    assert_eq!(json["ociVersion"], "1.2.0");
    assert_eq!(json["process"].get("rlimits"), None);
    assert_eq!(json.get("hostname"), None);
}
