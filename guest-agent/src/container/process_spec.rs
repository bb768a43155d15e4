//! The `process` object of a specification: checked, completed with the user, and made for an exec.

use a3s_box_proto::ids::ContainerId;
use oci_spec::runtime::Process;
use serde_json::{Value, json};

use super::user::Resolved;
use crate::{
    error::Error,
    process::{seccomp::Filter, zygote::Program},
};

/// Refuses what could never run.
pub fn check(process: &Process) -> Result<(), Error> {
    let wrong = |why: String| Err(Error::invalid("process", why));
    let arguments = process.args().as_deref().unwrap_or_default();
    if arguments.is_empty() {
        return wrong("it has no program".to_owned());
    }
    let variables = process.env().as_deref().unwrap_or_default();
    if let Some(text) = arguments.iter().chain(variables).find(|text| text.contains('\0')) {
        return wrong(format!("{text:?} contains a NUL byte"));
    }
    if let Some(variable) = variables.iter().find(|variable| !variable.contains('=')) {
        return wrong(format!("environment variable {variable:?} has no value"));
    }
    if !process.cwd().is_absolute() {
        return wrong(format!("working directory {:?} is not an absolute path", process.cwd().display()));
    }
    Ok(())
}

/// Gives a process its user, and HOME where its environment has none.
pub fn set_user(
    process: &mut Process,
    user: &Resolved,
    home: impl FnOnce() -> Result<String, Error>,
) -> Result<(), Error> {
    let target = process.user_mut();
    target.set_uid(user.uid);
    target.set_gid(user.gid);
    target.set_additional_gids(Some(user.groups.clone()));
    target.set_username(None);
    set_home(process, home)
}

fn set_home(process: &mut Process, home: impl FnOnce() -> Result<String, Error>) -> Result<(), Error> {
    let has_home = |variable: &String| variable.starts_with("HOME=") && variable != "HOME=";
    if !process.env().iter().flatten().any(has_home) {
        let home = home()?;
        let variables = process.env_mut().get_or_insert_default();
        variables.retain(|variable| variable != "HOME=");
        variables.push(format!("HOME={home}"));
    }
    Ok(())
}

/// What the user of a process is.
pub fn user_of(process: &Process) -> Resolved {
    let user = process.user();
    Resolved { uid: user.uid(), gid: user.gid(), groups: user.additional_gids().clone().unwrap_or_default() }
}

/// What a process becomes in the end.
pub fn program(container: &ContainerId, process: &Process, seccomp: Option<Filter>) -> Program {
    Program {
        arguments: process.args().clone().unwrap_or_default(),
        environment: process.env().clone().unwrap_or_default(),
        directory: process.cwd().clone(),
        user: process.user().clone(),
        capabilities: process.capabilities().clone(),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        keyring: format!("_ses.{container}"),
        seccomp,
    }
}

/// Removes what asks for nothing.
pub fn normalise(process: &mut Process) {
    // There is no such security module in the guest; an empty label asks for none.
    if process.apparmor_profile().as_deref() == Some("") {
        process.set_apparmor_profile(None);
    }
    if process.selinux_label().as_deref() == Some("") {
        process.set_selinux_label(None);
    }
}

/// The process of an exec: what its JSON leaves out is the container's.
pub fn for_exec(json: &[u8], container: &Process) -> Result<Process, Error> {
    let wrong = |error: serde_json::Error| Error::invalid("process", error);
    let mut process: Value = serde_json::from_slice(json).map_err(wrong)?;
    let inherited = serde_json::to_value(container).map_err(wrong)?;
    let object = process.as_object_mut().ok_or_else(|| Error::invalid("process", "it is no JSON object"))?;
    for key in ["user", "env", "cwd", "capabilities", "noNewPrivileges", "rlimits"] {
        if is_empty(object.get(key))
            && let Some(value) = inherited.get(key)
        {
            object.insert(key.to_owned(), value.clone());
        }
    }
    // The score is the container's: a process that is added must not be spared before it.
    object.insert("oomScoreAdj".to_owned(), inherited.get("oomScoreAdj").cloned().unwrap_or(json!(0)));
    let process: Process = serde_json::from_value(process).map_err(wrong)?;
    check(&process)?;
    Ok(process)
}

fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn container() -> Process {
        serde_json::from_value(json!({
            "user": {"uid": 1000, "gid": 100, "additionalGids": [5]},
            "args": ["server"], "cwd": "/srv", "env": ["A=1", "HOME=/home/x"],
            "noNewPrivileges": true, "oomScoreAdj": 900,
            "capabilities": {"bounding": ["CAP_CHOWN"]},
            "rlimits": [{"type": "RLIMIT_CORE", "hard": 0, "soft": 0}]
        }))
        .unwrap()
    }

    fn exec(json: &Value) -> Result<Process, String> {
        for_exec(json.to_string().as_bytes(), &container()).map_err(|error| error.to_string())
    }

    #[test]
    fn an_exec_is_as_its_container_where_it_does_not_say() {
        for json in [
            json!({"args": ["ls"]}),
            json!({"args": ["ls"], "user": {}, "env": [], "cwd": "", "capabilities": null}),
        ] {
            let process = exec(&json).unwrap();
            let mut expected = container();
            expected.set_args(Some(vec!["ls".to_owned()]));
            assert_eq!(process, expected, "{json}");
        }
    }

    #[test]
    fn an_exec_may_be_different() {
        let process =
            exec(&json!({"args": ["ls"], "user": {"uid": 0, "gid": 0}, "env": ["B=2"], "cwd": "/"})).unwrap();
        assert_eq!(process.user().uid(), 0);
        assert_eq!(*process.user().additional_gids(), None);
        assert_eq!(process.env().as_ref().unwrap(), &["B=2"]);
        assert_eq!(process.cwd(), Path::new("/"));
        assert_eq!(process.oom_score_adj(), Some(900));
    }

    #[test]
    fn what_cannot_run_is_refused() {
        for bad in [
            json!({}),
            json!([]),
            json!({"args": []}),
            json!({"args": ["a\u{0}b"]}),
            json!({"args": ["a"], "cwd": "x"}),
            json!({"args": ["a"], "env": ["NAME"]}),
            json!({"args": ["a"], "user": "root"}),
        ] {
            assert!(exec(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn home_is_added_once() {
        let user = Resolved { uid: 7, gid: 8, groups: vec![9] };
        let mut process = container();
        set_user(&mut process, &user, || panic!("HOME is stated")).unwrap();
        assert_eq!(user_of(&process), user);
        process.set_env(Some(vec!["HOME=".to_owned()]));
        set_user(&mut process, &user, || Ok("/h".to_owned())).unwrap();
        assert_eq!(process.env().as_ref().unwrap(), &["HOME=/h"]);
    }
}
