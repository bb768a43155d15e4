//! `start`: makes the socket, leaves a server behind, and says where it is.

use std::{
    fs::{DirBuilder, File},
    io::{self, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{fs::DirBuilderExt, net::UnixListener, process::CommandExt},
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use a3s_box_proto::{
    config::{Config, PATH_VARIABLE},
    ids::SandboxId,
};
use containerd_shim_protos::{
    TASK_API_VERSION,
    bootstrap_api::{BootstrapParams, BootstrapResult},
};
use protobuf::Message;

use super::Arguments;
use crate::{
    caller::EVENTS_VARIABLE,
    error::{Error, Result, Step},
    pod::layout::Layout,
    sys::{file::absent_is_fine, lock::try_lock},
};

const PROTOCOL: &str = "ttrpc";
/// As containerd bounds it.
const LONGEST_INPUT: u64 = 10 << 20;
/// Of a server that does not come up, so much is passed on.
const LONGEST_WORDS: u64 = 4096;

/// Starts a server for the pod, and prints its address.
///
/// # Errors
/// A shim serves the pod already, or the host fails.
pub fn run(arguments: &Arguments, config: &Config) -> Result<()> {
    let id: SandboxId = arguments.id.parse()?;
    let layout = Layout::new(config, &id);
    let bundle = arguments.bundle().step(|| "finding the bundle".into())?;
    let mut input = Vec::new();
    let stdin = io::stdin();
    stdin.lock().take(LONGEST_INPUT).read_to_end(&mut input).step(|| "reading the parameters".into())?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&layout.run)
        .step(|| format!("making {}", layout.run.display()))?;
    let lock = try_lock(&layout.lock()).step(|| format!("locking {}", layout.lock().display()))?;
    let lock = lock.ok_or_else(|| Error::AlreadyExists(format!("a shim of pod {id}")))?;
    let listener = listen(&layout.socket()).step(|| format!("listening at {}", layout.socket().display()))?;
    leave_server(arguments, &layout, &bundle, listener.into(), lock).step(|| "starting the server".into())?;
    let address = format!("unix://{}", layout.socket().display());
    let answer = answer(&address, speaks_bootstrap(&input, arguments));
    io::stdout().write_all(&answer).step(|| "writing the answer".into())
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    // The lock says that nobody listens there any more.
    absent_is_fine(std::fs::remove_file(path))?;
    UnixListener::bind(path)
}

/// The server inherits the listening socket as its standard input, the lock as its standard output, and an ear for its
/// complaints as its standard error.
fn leave_server(
    arguments: &Arguments,
    layout: &Layout,
    bundle: &Path,
    listener: OwnedFd,
    lock: File,
) -> io::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["-namespace", &arguments.namespace, "-id", &arguments.id]);
    command.arg("-bundle").arg(bundle).arg(if arguments.debug { "-debug=true" } else { "-debug=false" });
    command.arg("serve").current_dir(&layout.run).env_clear();
    for variable in [PATH_VARIABLE, EVENTS_VARIABLE] {
        if let Some(value) = std::env::var_os(variable) {
            command.env(variable, value);
        }
    }
    command.stdin(Stdio::from(listener)).stdout(Stdio::from(lock)).stderr(Stdio::piped());
    // SAFETY: between fork and exec there are two system calls.
    unsafe { command.pre_exec(detach) };
    hear(command.spawn()?)
}

/// Waits until the server serves: its standard error then ends. What it says there before is why it does not.
fn hear(mut server: Child) -> io::Result<()> {
    let mut words = Vec::new();
    if let Some(stderr) = &mut server.stderr {
        stderr.take(LONGEST_WORDS).read_to_end(&mut words)?;
    }
    let words = String::from_utf8_lossy(&words);
    match words.trim_end() {
        "" => Ok(()),
        words => Err(io::Error::other(words.to_owned())),
    }
}

/// The server outlives its parent's session, and holds nothing that the parent left open.
fn detach() -> io::Result<()> {
    rustix::process::setsid()?;
    // SAFETY: marks descriptors above the standard ones to be closed by exec; it closes none that is in use now.
    let marked = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if marked == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// containerd 2.3 and newer send their parameters as a message; older ones send the runtime's options, or nothing,
/// and expect JSON.
fn speaks_bootstrap(input: &[u8], arguments: &Arguments) -> bool {
    BootstrapParams::parse_from_bytes(input).is_ok_and(|params| {
        !input.is_empty() && params.instance_id == arguments.id && params.namespace == arguments.namespace
    })
}

fn answer(address: &str, bootstrap: bool) -> Vec<u8> {
    if bootstrap {
        let result = BootstrapResult {
            version: TASK_API_VERSION,
            address: address.into(),
            protocol: PROTOCOL.into(),
            ..BootstrapResult::default()
        };
        // Encoding into memory does not fail.
        return result.write_to_bytes().unwrap_or_default();
    }
    serde_json::json!({"version": TASK_API_VERSION, "address": address, "protocol": PROTOCOL})
        .to_string()
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments() -> Arguments {
        Arguments { id: "p1".into(), namespace: "k8s.io".into(), ..Arguments::default() }
    }

    #[test]
    fn a_server_serves_when_it_has_nothing_more_to_say() {
        let server = |script: &str| {
            let mut command = Command::new("sh");
            hear(command.args(["-c", script]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        };
        server("exec 2>/dev/null; read forever").unwrap();
        let error = server("echo 'no mounts here' >&2; exit 1").unwrap_err();
        assert_eq!(error.to_string(), "no mounts here");
    }

    #[test]
    fn each_containerd_is_answered_in_its_language() {
        let params = BootstrapParams {
            instance_id: "p1".into(),
            namespace: "k8s.io".into(),
            ..BootstrapParams::default()
        };
        assert!(speaks_bootstrap(&params.write_to_bytes().unwrap(), &arguments()));
        let options = protobuf::well_known_types::any::Any {
            type_url: "containerd.runc.v1.Options".into(),
            value: vec![10, 1, 1],
            ..Default::default()
        };
        assert!(!speaks_bootstrap(&options.write_to_bytes().unwrap(), &arguments()));
        assert!(!speaks_bootstrap(&[], &arguments()));
        let json: serde_json::Value = serde_json::from_slice(&answer("unix:///s", false)).unwrap();
        assert_eq!(json["version"], 3);
        let result = BootstrapResult::parse_from_bytes(&answer("unix:///s", true)).unwrap();
        assert_eq!((result.version, result.address.as_str()), (3, "unix:///s"));
    }
}
