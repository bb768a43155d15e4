//! `-info`: what containerd wants to know of a runtime before it uses it.

use std::io::{self, Write};

use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use protobuf::{Message, MessageField, well_known_types::any::Any};
use serde_json::json;

/// As containerd names the runtime specification's features.
const FEATURES: &str = "types.containerd.io/opencontainers/runtime-spec/1/features/Features";

/// Prints the information.
///
/// # Errors
/// Standard output is closed.
pub fn run() -> io::Result<()> {
    let version = RuntimeVersion { version: env!("CARGO_PKG_VERSION").into(), ..RuntimeVersion::default() };
    let mut info = RuntimeInfo {
        name: "io.containerd.a3sbox.v2".into(),
        version: MessageField::some(version),
        features: MessageField::some(features()),
        ..RuntimeInfo::default()
    };
    // Layer files reach the shim as they are, not mounted by containerd.
    info.annotations.insert("containerd.io/runtime-allow-mounts".into(), "erofs".into());
    io::stdout().write_all(&info.write_to_bytes().map_err(io::Error::other)?)
}

/// What of the runtime specification is there (features.md). containerd asks for recursively read-only mounts only where
/// they are named, and 2.4 dies of such a request where a runtime names nothing at all.
fn features() -> Any {
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.2.0",
        "mountOptions": ["bind", "rbind", "ro", "rw", "rro", "private", "rprivate", "slave", "rslave"],
        "linux": {"namespaces": ["cgroup", "ipc", "mount", "network", "pid", "uts"], "cgroup": {"v2": true}},
    });
    Any { type_url: FEATURES.into(), value: features.to_string().into_bytes(), ..Any::default() }
}
