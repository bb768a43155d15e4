//! Program, arguments, environment and working directory.

use std::path::PathBuf;

use oci_spec::{image::Config, runtime::Process};

use crate::{
    Input, check,
    error::{SpecError, invalid},
    image_config,
};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What a process with a terminal is told of it.
pub(crate) const TERM: &str = "TERM=xterm";
/// Linux' MAX_ARG_STRLEN, with the NUL.
const MAX_STRING: usize = 128 * 1024 - 1;
/// A quarter of the usual stack: execve refuses more.
const MAX_TOTAL: usize = 2 * 1024 * 1024;

/// The container's process, without what follows from its security context.
pub(crate) fn process(input: &Input<'_>) -> Result<Process, SpecError> {
    let arguments = arguments(input)?;
    let environment = environment(input)?;
    check_strings(&arguments, &environment)?;
    let mut process = Process::default();
    process
        .set_terminal(Some(input.container.tty))
        .set_args(Some(arguments))
        .set_env(Some(environment))
        .set_cwd(working_dir(input)?)
        // As in containerd: those of the process that starts it.
        .set_rlimits(None);
    Ok(process)
}

/// The command replaces the image's entrypoint and takes its arguments away; arguments replace the image's.
fn arguments(input: &Input<'_>) -> Result<Vec<String>, SpecError> {
    let image = image_config(input);
    let of_image = |part: Option<&Option<Vec<String>>>| part.cloned().flatten().unwrap_or_default();
    let mut command = input.container.command.clone();
    let mut args = input.container.args.clone();
    if command.is_empty() {
        if args.is_empty() {
            args = of_image(image.map(Config::cmd));
        }
        command = of_image(image.map(Config::entrypoint));
        // How some builders write that there is none.
        if command == [""] {
            command.clear();
        }
    }
    command.extend(args);
    if command.is_empty() {
        return Err(invalid("command", "no command specified, neither by the container nor by its image"));
    }
    Ok(command)
}

/// Later sources override earlier ones, each variable at its first place.
fn environment(input: &Input<'_>) -> Result<Vec<String>, SpecError> {
    let mut environment = vec![DEFAULT_PATH.to_owned()];
    if input.container.tty {
        set(&mut environment, TERM.to_owned());
    }
    if !input.sandbox.hostname.is_empty() {
        set(&mut environment, format!("HOSTNAME={}", input.sandbox.hostname));
    }
    for variable in image_config(input).and_then(|image| image.env().as_ref()).into_iter().flatten() {
        set(&mut environment, variable.clone());
    }
    for variable in &input.container.envs {
        let key = &variable.key;
        if key.is_empty() || key.contains('=') {
            return Err(invalid("envs", format!("{} is no variable's name", check::shown(key))));
        }
        // Values may be secret: no message shows them.
        let value = std::str::from_utf8(&variable.value)
            .map_err(|_| invalid(format!("envs[{}]", check::shown(key)), "the value is not UTF-8"))?;
        set(&mut environment, format!("{key}={value}"));
    }
    Ok(environment)
}

/// Sets a variable; one without a '=' is unset, as in containerd.
pub(crate) fn set(environment: &mut Vec<String>, variable: String) {
    let (key, assigns) = match variable.split_once('=') {
        Some((key, _)) => (key, true),
        None => (variable.as_str(), false),
    };
    let place = environment
        .iter()
        .position(|other| other.strip_prefix(key).is_some_and(|rest| rest.starts_with('=')));
    match (place, assigns) {
        (Some(place), true) => environment[place] = variable,
        (Some(place), false) => {
            environment.remove(place);
        }
        (None, true) => environment.push(variable),
        (None, false) => {}
    }
}

fn working_dir(input: &Input<'_>) -> Result<PathBuf, SpecError> {
    let own = input.container.working_dir.as_str();
    if !own.is_empty() {
        return check::absolute_path("working_dir", own);
    }
    match image_config(input).and_then(|image| image.working_dir().as_deref()) {
        None | Some("") => Ok("/".into()),
        Some(of_image) => check::absolute_path("the image's WorkingDir", of_image),
    }
}

/// Refuses what execve would refuse.
pub(crate) fn check_strings(arguments: &[String], environment: &[String]) -> Result<(), SpecError> {
    for argument in arguments {
        check::text("command", argument, MAX_STRING)?;
    }
    for variable in environment {
        let key = variable.split_once('=').map_or(variable.as_str(), |(key, _)| key);
        let field = || format!("envs[{}]", check::shown(key));
        if variable.contains('\0') {
            return Err(invalid(field(), "the variable contains a NUL byte"));
        }
        check::text(&field(), variable, MAX_STRING)?;
    }
    let total: usize = arguments.iter().chain(environment).map(|text| text.len() + 1).sum();
    if total > MAX_TOTAL {
        let reason = format!("arguments and environment have {total} bytes, and Linux takes {MAX_TOTAL}");
        return Err(invalid("command", reason));
    }
    Ok(())
}
