//! A process that is run in a container besides its own.

use oci_spec::runtime::Process;
use serde_json::Value;

use crate::{
    error::{SpecError, invalid},
    process,
};

/// The `process` object of an exec: the container's own, with another command.
///
/// It has no `user`, which the typed form cannot leave out: the container's was looked up in the guest, whereas the
/// specification's says root.
///
/// # Errors
/// There is no command, or one that no kernel takes.
pub fn exec_process(container: &Process, command: &[String], tty: bool) -> Result<Value, SpecError> {
    if command.first().is_none_or(String::is_empty) {
        return Err(invalid("cmd", "no command specified"));
    }
    let mut environment = container.env().clone().unwrap_or_default();
    if tty {
        process::set(&mut environment, process::TERM.to_owned());
    }
    process::check_strings(command, &environment)?;
    let mut process = container.clone();
    process.set_terminal(Some(tty)).set_args(Some(command.to_vec())).set_env(Some(environment));
    let mut process = serde_json::to_value(process).map_err(|error| invalid("process", error.to_string()))?;
    if let Some(fields) = process.as_object_mut() {
        fields.remove("user");
    }
    Ok(process)
}
