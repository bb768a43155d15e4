//! Why a pod has no network.

use std::{io, path::PathBuf, process::ExitStatus, time::Duration};

use a3s_box_proto::ids::SandboxId;

use crate::text::Quoted;

/// Why a network is not usable, or a pod could not be attached or detached.
#[derive(Debug, thiserror::Error)]
pub enum CniError {
    /// The directory holds no configuration.
    #[error("no network configuration in {dir}: it needs a *.conflist, *.conf or *.json file")]
    NoConfig {
        /// The directory that was searched.
        dir: PathBuf,
    },
    /// The configuration that comes first is not usable. A later one is never taken in its place:
    /// pods on the wrong network are worse than pods that wait.
    #[error("network configuration {file}: {reason}")]
    Config {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file or directory of ours or of the administrator's.
    #[error("cannot {step} {path}: {source}")]
    File {
        /// What was tried.
        step: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A plugin that the configuration names is not installed.
    #[error("network {network:?} needs the plugin {plugin:?}, which is not in {dirs}")]
    PluginMissing {
        /// The network's name.
        network: String,
        /// The plugin.
        plugin: String,
        /// Where it was searched.
        dirs: String,
    },
    /// A pod asks for what no plugin of its network takes.
    #[error(
        "network {network:?}: none of its plugins takes {capability:?}, which the pod asks for: its \"capabilities\" must name it"
    )]
    Incapable {
        /// The network's name.
        network: String,
        /// CNI's name of it.
        capability: &'static str,
    },
    /// A plugin failed.
    #[error("network {network:?}: plugin {plugin:?} failed at {command}: {source}")]
    Plugin {
        /// The network's name.
        network: String,
        /// The plugin.
        plugin: String,
        /// ADD, DEL, CHECK, STATUS or GC.
        command: &'static str,
        /// The cause.
        source: Box<PluginError>,
    },
    /// All plugins succeeded, but their result is of no use to a pod.
    #[error("network {network:?}: the plugins' result {reason}")]
    Result {
        /// The network's name.
        network: String,
        /// What is wrong.
        reason: String,
    },
    /// An attachment failed, and taking back what was done failed too. What is left is remembered: DEL can be repeated.
    #[error("{cause}; and what was done could not be undone: {undo}")]
    NotUndone {
        /// Why the attachment failed.
        cause: Box<CniError>,
        /// Why it is still there.
        undo: Box<CniError>,
    },
    /// There are traces of an earlier ADD that was not followed by a DEL.
    #[error(
        "sandbox {sandbox} is attached to network {network:?} already, or was left half attached: detach it first"
    )]
    Attached {
        /// The sandbox.
        sandbox: SandboxId,
        /// The network's name.
        network: String,
    },
    /// What was remembered of an attachment cannot be read.
    #[error("remembered network attachment {path}: {reason}")]
    Cache {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A value that no plugin may be given.
    #[error("sandbox {sandbox}: {value:?} cannot be CNI's {key}: no ';' and no control characters")]
    Argument {
        /// The sandbox.
        sandbox: SandboxId,
        /// The argument's name.
        key: &'static str,
        /// The value.
        value: String,
    },
    /// Our own process is going down.
    #[error("cannot {step}: the runtime is shutting down")]
    ShuttingDown {
        /// What was tried.
        step: &'static str,
    },
}

/// How a plugin failed.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// The plugin could not be started.
    #[error("cannot run {path}: {source}")]
    Spawn {
        /// The program.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The plugin says so itself.
    #[error("{message} (code {code}){}", said(.stderr))]
    Reported {
        /// CNI's error code.
        code: u64,
        /// The plugin's message and details.
        message: String,
        /// The end of what it wrote to stderr.
        stderr: Option<Quoted>,
    },
    /// The plugin ended with an error and did not say which.
    #[error("it ended with {status} and printed {stdout}{}", said(.stderr))]
    Exit {
        /// How it ended.
        status: ExitStatus,
        /// The beginning of its output.
        stdout: Quoted,
        /// The end of what it wrote to stderr.
        stderr: Option<Quoted>,
    },
    /// The plugin was killed after its time was up.
    #[error("killed, with all its children, since it was not done after {after:?}{}", said(.stderr))]
    TimedOut {
        /// The time that it had.
        after: Duration,
        /// The end of what it wrote to stderr.
        stderr: Option<Quoted>,
    },
    /// More output than any result is long.
    #[error("killed, since it printed more than {limit} bytes: {stdout}")]
    TooMuchOutput {
        /// The limit.
        limit: usize,
        /// The beginning.
        stdout: Quoted,
    },
    /// The plugin claims success, but printed no result.
    #[error("it printed no CNI result: {reason}: {stdout}")]
    Garbage {
        /// What is wrong with the output.
        reason: String,
        /// The beginning.
        stdout: Quoted,
    },
    /// The pipes to the plugin broke.
    #[error("cannot talk to it: {0}")]
    Pipe(#[from] io::Error),
}

fn said(stderr: &Option<Quoted>) -> String {
    stderr.as_ref().map(|text| format!("; on stderr: {text}")).unwrap_or_default()
}
