//! `-info`: what containerd wants to know of a runtime before it uses it.

use std::io::{self, Write};

use containerd_shim_protos::types::introspection::{RuntimeInfo, RuntimeVersion};
use protobuf::{Message, MessageField};

/// Prints the information.
///
/// # Errors
/// Standard output is closed.
pub fn run() -> io::Result<()> {
    let version = RuntimeVersion { version: env!("CARGO_PKG_VERSION").into(), ..RuntimeVersion::default() };
    let mut info = RuntimeInfo {
        name: "io.containerd.a3sbox.v2".into(),
        version: MessageField::some(version),
        ..RuntimeInfo::default()
    };
    // Layer files reach the shim as they are, not mounted by containerd.
    info.annotations.insert("containerd.io/runtime-allow-mounts".into(), "erofs".into());
    io::stdout().write_all(&info.write_to_bytes().map_err(io::Error::other)?)
}
