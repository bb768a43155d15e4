//! The node's configuration file, read by the frontend and by each shim: parsed and checked once, at the edge.

mod check;
mod sections;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

pub use sections::{
    Accelerator, Annotations, CONVERTER_UIDS, CgroupDriver, Cri, Helpers, Images, Log, Network, Pids,
    Scratch, Streaming, Vm, Volumes,
};

/// Where the configuration lies where nothing else is said.
pub const DEFAULT_PATH: &str = "/etc/a3s-box/config.toml";
/// The environment variable by which a frontend tells its shims another path.
pub const PATH_VARIABLE: &str = "A3S_BOX_CONFIG";
/// The configuration with every key, its default and its meaning: what `config default` prints.
pub const DEFAULT_TEXT: &str = include_str!("../../../packaging/config/config.toml");

/// A configuration that was checked.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What must outlive a reboot.
    pub root_dir: PathBuf,
    /// Sockets and everything that ends with the machine's uptime.
    pub state_dir: PathBuf,
    /// Where network namespaces are bound.
    pub netns_dir: PathBuf,
    /// The CRI endpoint.
    pub cri: Cri,
    /// The server of exec, attach and port-forward.
    pub streaming: Streaming,
    /// The MicroVM.
    pub vm: Vm,
    /// Helper programs.
    pub helpers: Helpers,
    /// The pods' scratch disks.
    pub scratch: Scratch,
    /// Limits of processes.
    pub pids: Pids,
    /// Volumes.
    pub volumes: Volumes,
    /// Which annotations tenants may use.
    pub annotations: Annotations,
    /// CNI.
    pub network: Network,
    /// Pulls and the image store.
    pub images: Images,
    /// Logging.
    pub log: Log,
}

/// Why there is no configuration: the message names file, key and reason.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("configuration {path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A value that makes no sense.
    #[error("configuration {path}: {key}: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The key, with its section.
        key: &'static str,
        /// What is wrong with the value, and what is accepted.
        reason: String,
    },
}

impl Config {
    /// Reads and checks a file. The default path may be absent: then the defaults hold.
    ///
    /// # Errors
    /// The file cannot be read, has an unknown key, or a value that makes no sense.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && path == Path::new(DEFAULT_PATH) => {
                String::new()
            }
            Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
        };
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        check::check(&config).map_err(|(key, reason)| ConfigError::Invalid {
            path: path.to_owned(),
            key,
            reason,
        })?;
        Ok(config)
    }

    /// The directory of a pod's sockets, pid files and shared directory; gone with the pod or a reboot.
    pub fn pod_state_dir(&self, sandbox: &crate::ids::SandboxId) -> PathBuf {
        self.state_dir.join("pods").join(sandbox.as_str())
    }

    /// The directory of a pod's scratch disk; gone with the pod.
    pub fn pod_root_dir(&self, sandbox: &crate::ids::SandboxId) -> PathBuf {
        self.root_dir.join("pods").join(sandbox.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("/etc/x.toml"), text)
    }

    #[test]
    fn the_documented_defaults_are_the_defaults() {
        assert_eq!(parse(DEFAULT_TEXT).unwrap(), parse("").unwrap());
    }

    #[test]
    fn every_key_is_documented() {
        let documented: toml::Table = DEFAULT_TEXT.parse().unwrap();
        let debug = format!("{:?}", Config::default());
        let known: std::collections::BTreeSet<&str> =
            debug.split([' ', '{', ',']).filter_map(|word| word.strip_suffix(':')).collect();
        let mut names = std::collections::BTreeSet::new();
        for (key, value) in &documented {
            names.insert(key.as_str());
            if let Some(section) = value.as_table() {
                names.extend(section.keys().map(String::as_str));
            }
        }
        assert_eq!(known, names);
        let is_key = |line: &str| line.starts_with(|first: char| first.is_ascii_lowercase());
        let lines: Vec<&str> = DEFAULT_TEXT.lines().collect();
        for pair in lines.windows(2).filter(|pair| is_key(pair[1])) {
            assert!(pair[0].starts_with("# "), "{}: has no comment of its own", pair[1]);
        }
    }

    #[test]
    fn errors_name_file_key_and_reason() {
        for (text, words) in [
            ("rot_dir = '/x'", ["/etc/x.toml", "rot_dir"]),
            ("[vm]\naccelerator = 'hvf'", ["/etc/x.toml", "hvf"]),
            ("[vm]\ndefault_vcpus = 0", ["vm.default_vcpus", "at least 1"]),
            ("[vm]\ndefault_memory_mb = 70000", ["vm.default_memory_mb", "vm.max_memory_mb"]),
            ("[vm]\nuid_first = 1999995000", ["vm.uid_first", "1999999999"]),
            ("[images]\nparallel_conversions = 501", ["images.parallel_conversions", "500"]),
            ("state_dir = 'run'", ["state_dir", "absolute"]),
            ("[cri]\nhandlers = []", ["cri.handlers", "at least one"]),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{text:?}: {error}");
        }
        // With `/pods/`, the longest id and `/shim.sock` it must be a socket's path, of 107 bytes.
        let of = |length: usize| format!("state_dir = '/{}'", "x".repeat(length - 1));
        parse(&of(107 - 6 - 76 - 10)).unwrap();
        assert!(parse(&of(107 - 6 - 76 - 10 + 1)).unwrap_err().to_string().contains("socket"));
    }
}
