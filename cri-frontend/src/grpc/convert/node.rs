//! The node: what Status says of it.

use std::collections::HashMap;

use a3s_box_proto::cri;
use serde_json::{Value, json};

use crate::{
    clock::unix_nanos,
    node::{
        Node,
        health::{Condition, Health},
    },
};

/// The CRI's two conditions.
pub fn status(health: &Health) -> cri::RuntimeStatus {
    let condition = |name: &str, condition: &Condition| cri::RuntimeCondition {
        r#type: name.into(),
        status: condition.met,
        reason: condition.reason.into(),
        message: condition.message.clone(),
    };
    cri::RuntimeStatus {
        conditions: vec![
            condition("RuntimeReady", &health.runtime),
            condition("NetworkReady", &health.network),
        ],
    }
}

/// The handlers that RunPodSandbox takes; the empty name is the default one.
pub fn handlers(node: &Node) -> Vec<cri::RuntimeHandler> {
    let handler = |name: &str| cri::RuntimeHandler {
        name: name.into(),
        features: Some(cri::RuntimeHandlerFeatures {
            recursive_read_only_mounts: true,
            user_namespaces: false,
        }),
    };
    std::iter::once("").chain(node.config.cri.handlers.iter().map(String::as_str)).map(handler).collect()
}

/// What the runtime as a whole can do.
pub fn features() -> cri::RuntimeFeatures {
    cri::RuntimeFeatures {
        supplemental_groups_policy: true,
        user_namespaces_host_network: false,
        mount_options: true,
    }
}

/// The verbose part.
pub fn info(node: &Node, health: &Health, guest: &Value) -> HashMap<String, String> {
    let config = &node.config;
    let versions = json!({
        "frontend": env!("CARGO_PKG_VERSION"),
        "cri": "v1",
        "kernel": config.vm.kernel,
        "qemu": config.vm.qemu,
        "shim": config.cri.shim,
    });
    let accelerator =
        json!({ "configured": format!("{:?}", config.vm.accelerator), "used": health.accelerator });
    HashMap::from([
        ("guest".to_owned(), guest.to_string()),
        ("versions".to_owned(), versions.to_string()),
        ("accelerator".to_owned(), accelerator.to_string()),
        ("time".to_owned(), json!({ "unix_nanos": unix_nanos() }).to_string()),
    ])
}
