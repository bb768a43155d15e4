//! The shim's command line, as containerd has it.

pub mod delete;
pub mod info;
mod log;
pub mod serve;
pub mod start;

use std::path::{Path, PathBuf};

use a3s_box_proto::config::{Config, ConfigError, DEFAULT_PATH, PATH_VARIABLE};

/// What stands on the command line: Go's flags, then the action.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    /// The sandbox's id, or for `delete` perhaps a container's.
    pub id: String,
    /// containerd's namespace.
    pub namespace: String,
    /// The bundle, where it is not the working directory.
    pub bundle: Option<PathBuf>,
    /// Whether to log more.
    pub debug: bool,
    /// `start`, `delete`, `serve`, `info`, `version`.
    pub action: String,
}

/// Why a command line makes no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidArguments {
    /// A flag that the shim does not have.
    #[error("unknown flag {0:?}")]
    Unknown(String),
    /// A flag at the end that wants a value.
    #[error("flag {0:?} wants a value")]
    NoValue(String),
}

impl Arguments {
    /// Parses what follows the program's name.
    ///
    /// # Errors
    /// An unknown flag, or one without its value.
    pub fn parse(words: impl IntoIterator<Item = String>) -> Result<Self, InvalidArguments> {
        let mut arguments = Self::default();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                arguments.action = word;
                continue;
            };
            let (name, inline) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            match name {
                "debug" => arguments.debug = inline.is_none_or(|value| value != "false"),
                "info" => arguments.action = "info".into(),
                "v" | "version" => arguments.action = "version".into(),
                "id" | "namespace" | "bundle" | "address" | "publish-binary" | "socket" => {
                    let value = inline.or_else(|| words.next());
                    let value = value.ok_or_else(|| InvalidArguments::NoValue(word.clone()))?;
                    arguments.take(name, value);
                }
                _ => return Err(InvalidArguments::Unknown(word)),
            }
        }
        Ok(arguments)
    }

    fn take(&mut self, name: &str, value: String) {
        match name {
            "id" => self.id = value,
            "namespace" => self.namespace = value,
            "bundle" if !value.is_empty() => self.bundle = Some(value.into()),
            // The address is containerd's gRPC's, and the binary publishes events for shims that do not speak ttrpc.
            _ => {}
        }
    }

    /// The bundle's directory.
    ///
    /// # Errors
    /// The working directory is gone.
    pub fn bundle(&self) -> std::io::Result<PathBuf> {
        match &self.bundle {
            Some(path) => Ok(path.clone()),
            None => std::env::current_dir(),
        }
    }
}

/// The node's configuration: where the frontend says, else at its usual place.
///
/// # Errors
/// It cannot be read, or is wrong.
pub fn config() -> Result<Config, ConfigError> {
    let path = std::env::var_os(PATH_VARIABLE).filter(|path| !path.is_empty());
    Config::load(path.as_deref().map_or(Path::new(DEFAULT_PATH), Path::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, InvalidArguments> {
        Arguments::parse(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn containerds_command_line_is_understood() {
        let arguments =
            parse("-namespace k8s.io -address /run/c.sock -publish-binary /bin/c -id ab12 -debug start");
        let expected = Arguments {
            id: "ab12".into(),
            namespace: "k8s.io".into(),
            bundle: None,
            debug: true,
            action: "start".into(),
        };
        assert_eq!(arguments, Ok(expected));
        assert_eq!(parse("-bundle=/b -id x delete").unwrap().bundle, Some("/b".into()));
        assert_eq!(parse("-info").unwrap().action, "info");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert_eq!(parse("-colour red start"), Err(InvalidArguments::Unknown("-colour".into())));
        assert_eq!(parse("start -id"), Err(InvalidArguments::NoValue("-id".into())));
    }
}
