//! Network configurations: which file counts, and what it says.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value, json};

use crate::CniError;

/// The versions of the specification that are spoken, oldest first. Before 0.3.0 results were of another form.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// Endings of configuration files, as libcni has them.
const ENDINGS: [&str; 3] = ["conf", "conflist", "json"];
/// No configuration is longer.
const MAX_FILE: u64 = 1 << 20;

/// A network: a chain of plugins.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NetworkConfig {
    /// The file that it was read from.
    pub file: PathBuf,
    /// The network's name.
    pub name: String,
    /// One of [`VERSIONS`].
    pub version: &'static str,
    /// The chain, in the order of ADD.
    pub plugins: Vec<PluginConfig>,
    /// The configuration as it was written, for DEL.
    pub list: Value,
}

/// One plugin of the chain.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PluginConfig {
    /// The program's name.
    pub kind: String,
    /// Its part of the configuration.
    pub conf: Map<String, Value>,
}

impl PluginConfig {
    /// Whether the configuration lets the plugin have this kind of runtime configuration.
    pub fn is_capable_of(&self, capability: &str) -> bool {
        let capable = self.conf.get("capabilities").and_then(|all| all.get(capability));
        capable.and_then(Value::as_bool).unwrap_or(false)
    }
}

impl NetworkConfig {
    /// Reads the configuration that comes first in the directory, by name, as containerd does.
    pub fn load(dir: &Path) -> Result<Self, CniError> {
        let file = first_file(dir)?.ok_or_else(|| CniError::NoConfig { dir: dir.to_owned() })?;
        let invalid = |reason| CniError::Config { file: file.clone(), reason };
        let value: Value =
            serde_json::from_slice(&read(&file)?).map_err(|error| invalid(format!("no JSON: {error}")))?;
        let is_list = file.extension().is_some_and(|ending| ending == "conflist");
        let list = if is_list { value } else { list_of_one(&value) };
        Self::parse(file.clone(), list).map_err(invalid)
    }

    /// Checks a list, from a file or from the cache.
    pub fn parse(file: PathBuf, list: Value) -> Result<Self, String> {
        let name = list.get("name").and_then(Value::as_str).ok_or("it has no \"name\"")?;
        if !is_name(name) {
            return Err(format!("{name:?} is no name for a network: letters, digits, '.', '_' and '-'"));
        }
        let name = name.to_owned();
        let version = version(&list)?;
        let plugins = list.get("plugins").and_then(Value::as_array).ok_or("it has no list \"plugins\"")?;
        let plugins = plugins.iter().map(plugin).collect::<Result<Vec<_>, _>>()?;
        if plugins.is_empty() {
            return Err("its list \"plugins\" is empty".into());
        }
        Ok(Self { file, name, version, plugins, list })
    }

    /// Whether the configuration forbids a command of the specification, by a key that may be a text.
    pub fn forbids(&self, key: &str) -> bool {
        match self.list.get(key) {
            Some(Value::Bool(forbidden)) => *forbidden,
            Some(Value::String(text)) => text == "true",
            _ => false,
        }
    }

    /// Whether any plugin of the chain may have this kind of runtime configuration.
    pub fn is_capable_of(&self, capability: &str) -> bool {
        self.plugins.iter().any(|plugin| plugin.is_capable_of(capability))
    }
}

fn first_file(dir: &Path) -> Result<Option<PathBuf>, CniError> {
    let failed = |source| CniError::File { step: "read the directory", path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(failed)?,
    };
    let mut first = None;
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        let counts = ending.is_some_and(|ending| ENDINGS.contains(&ending)) && !path.is_dir();
        if counts && first.as_ref().is_none_or(|first| path < *first) {
            first = Some(path);
        }
    }
    Ok(first)
}

fn read(file: &Path) -> Result<Vec<u8>, CniError> {
    let failed = |source| CniError::File { step: "read", path: file.to_owned(), source };
    let mut content = Vec::new();
    File::open(file).and_then(|open| open.take(MAX_FILE + 1).read_to_end(&mut content)).map_err(failed)?;
    if content.len() as u64 > MAX_FILE {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(content)
}

/// A file of a single plugin is a chain of one.
fn list_of_one(conf: &Value) -> Value {
    let mut list = Map::new();
    for key in ["name", "cniVersion"] {
        if let Some(value) = conf.get(key) {
            list.insert(key.into(), value.clone());
        }
    }
    list.insert("plugins".into(), json!([conf]));
    Value::Object(list)
}

fn plugin(conf: &Value) -> Result<PluginConfig, String> {
    let conf = conf.as_object().ok_or("a plugin's configuration is not an object")?;
    let kind = conf.get("type").and_then(Value::as_str).ok_or("a plugin has no \"type\"")?;
    // The type becomes a path.
    if !is_name(kind) {
        return Err(format!("{kind:?} is no plugin's type: letters, digits, '.', '_' and '-'"));
    }
    Ok(PluginConfig { kind: kind.to_owned(), conf: conf.clone() })
}

/// The newest version that the configuration offers and we speak.
fn version(list: &Value) -> Result<&'static str, String> {
    let offered: Vec<&str> = match (list.get("cniVersions"), list.get("cniVersion")) {
        (Some(Value::Array(all)), one) => all.iter().chain(one).filter_map(Value::as_str).collect(),
        (None, Some(Value::String(one))) => vec![one],
        (None, None) => return Err("it has no \"cniVersion\"".into()),
        _ => return Err("its \"cniVersion\" is no text, or its \"cniVersions\" no list".into()),
    };
    VERSIONS.into_iter().rev().find(|version| offered.contains(version)).ok_or_else(|| {
        format!("its version {} is not supported: {} are", offered.join(", "), VERSIONS.join(", "))
    })
}

fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(files: &[(&str, &str)]) -> Result<NetworkConfig, CniError> {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(dir.path().join(name), content).unwrap();
        }
        NetworkConfig::load(dir.path())
    }

    const LIST: &str = r#"{"cniVersion": "1.0.0", "name": "net", "plugins": [
        {"type": "bridge"}, {"type": "portmap", "capabilities": {"portMappings": true}}]}"#;

    #[test]
    fn the_first_file_by_name_counts() {
        let conf = r#"{"cniVersion": "0.4.0", "name": "lone", "type": "ptp", "mtu": 1400}"#;
        let network = load(&[("20-b.conflist", LIST), ("10-a.conf", conf), ("00-c.txt", "?")]).unwrap();
        assert_eq!((network.name.as_str(), network.version), ("lone", "0.4.0"));
        assert_eq!(network.plugins[0].kind, "ptp");
        assert_eq!(network.plugins[0].conf["mtu"], 1400);
        assert!(!network.is_capable_of("portMappings"));

        let network = load(&[("20-b.conflist", LIST), ("30-a.conf", conf)]).unwrap();
        assert_eq!((network.name.as_str(), network.plugins.len()), ("net", 2));
        assert!(network.is_capable_of("portMappings"));
    }

    #[test]
    fn a_bad_file_is_named_and_no_other_taken_in_its_place() {
        for (content, reason) in [
            ("{", "JSON"),
            ("[]", "name"),
            (r#"{"name": "../n"}"#, "name"),
            (r#"{"name": "n", "cniVersion": "0.2.0", "plugins": [{"type": "a"}]}"#, "0.2.0"),
            (r#"{"name": "n", "plugins": [{"type": "a"}]}"#, "cniVersion"),
            (r#"{"name": "n", "cniVersion": "1.0.0", "plugins": []}"#, "empty"),
            (r#"{"name": "n", "cniVersion": "1.0.0", "plugins": [{"type": "../../bin/sh"}]}"#, "type"),
        ] {
            let error = load(&[("10-a.conflist", content), ("20-b.conflist", LIST)]).unwrap_err().to_string();
            assert!(error.contains("10-a.conflist") && error.contains(reason), "{content}: {error}");
        }
    }

    #[test]
    fn the_newest_version_of_several_is_spoken() {
        let list = r#"{"name": "n", "cniVersion": "0.4.0", "cniVersions": ["1.0.0", "1.1.0", "9.9.9"],
                       "plugins": [{"type": "a"}]}"#;
        assert_eq!(load(&[("a.conflist", list)]).unwrap().version, "1.1.0");
    }

    #[test]
    fn a_missing_or_empty_directory_is_named() {
        assert!(load(&[]).unwrap_err().to_string().contains("no network configuration"));
        let error = NetworkConfig::load(Path::new("/nonexistent/net.d")).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/net.d"), "{error}");
    }
}
