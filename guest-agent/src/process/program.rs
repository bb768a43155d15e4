//! Finding and executing a container's program, and saying in runc's words why that failed: people search for them.

use std::{
    ffi::CString,
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::AtFlags,
    unistd::{AccessFlags, execve, faccessat},
};

/// Where a program without a path is looked for if the environment does not say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a program did not run.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// Not in any directory of PATH.
    #[error("exec: {0:?}: executable file not found in $PATH")]
    NotInPath(String),
    /// Named by its path, and not there.
    #[error("exec: {0:?}: stat {0}: {reason}", reason = describe(*.1))]
    Absent(String, Errno),
    /// There, and refused.
    #[error("exec: {0:?}: {reason}", reason = describe(*.1))]
    Refused(String, Errno),
    /// An argument or a variable that no program can be given.
    #[error("exec: {0:?}: an argument or variable contains a NUL byte")]
    Nul(String),
}

/// The kernel's words in lower case, as Go prints them.
fn describe(errno: Errno) -> String {
    errno.desc().to_lowercase()
}

/// Becomes that program. Returns only if that fails.
pub fn execute(arguments: &[String], environment: &[String]) -> ProgramError {
    let name = arguments.first().map(String::as_str).unwrap_or_default();
    let path = match find(name, environment) {
        Ok(path) => path,
        Err(error) => return error,
    };
    let strings = |texts: &[String]| -> Option<Vec<CString>> {
        texts.iter().map(|text| CString::new(text.as_str()).ok()).collect()
    };
    let file = CString::new(path.as_os_str().as_encoded_bytes()).ok();
    let (Some(file), Some(arguments), Some(environment)) = (file, strings(arguments), strings(environment))
    else {
        return ProgramError::Nul(name.to_owned());
    };
    match execve(&file, &arguments, &environment) {
        Err(errno) => ProgramError::Refused(name.to_owned(), errno),
        Ok(never) => match never {},
    }
}

/// The program's file, by the rules of Go's exec.LookPath, which runc goes by.
pub fn find(name: &str, environment: &[String]) -> Result<PathBuf, ProgramError> {
    if name.contains('/') {
        return check(Path::new(name)).map(|()| name.into()).map_err(|problem| match problem {
            Problem::Absent(errno) => ProgramError::Absent(name.to_owned(), errno),
            Problem::Refused(errno) => ProgramError::Refused(name.to_owned(), errno),
        });
    }
    let path = environment.iter().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let mut refused = None;
    for directory in path.split(':').filter(|directory| directory.starts_with('/') && !name.is_empty()) {
        let candidate = Path::new(directory).join(name);
        match check(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Problem::Refused(errno)) => refused = refused.or(Some(errno)),
            Err(Problem::Absent(_)) => {}
        }
    }
    Err(refused.map_or_else(
        || ProgramError::NotInPath(name.to_owned()),
        |errno| ProgramError::Refused(name.to_owned(), errno),
    ))
}

enum Problem {
    Absent(Errno),
    Refused(Errno),
}

fn check(file: &Path) -> Result<(), Problem> {
    let metadata = std::fs::metadata(file).map_err(|error| errno_of(&error)).map_err(Problem::Absent)?;
    if metadata.is_dir() {
        return Err(Problem::Refused(Errno::EISDIR));
    }
    // root passes the kernel's check where any execute bit is set, but executes nothing that has none.
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(Problem::Refused(Errno::EACCES));
    }
    faccessat(nix::fcntl::AT_FDCWD, file, AccessFlags::X_OK, AtFlags::AT_EACCESS).map_err(Problem::Refused)
}

fn errno_of(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str, environment: &[&str]) -> String {
        let environment: Vec<String> = environment.iter().map(|&variable| variable.to_owned()).collect();
        find(name, &environment).unwrap_err().to_string()
    }

    #[test]
    fn failures_are_told_in_runcs_words() {
        assert_eq!(message("foo", &["PATH=/bin"]), "exec: \"foo\": executable file not found in $PATH");
        assert_eq!(message("", &[]), "exec: \"\": executable file not found in $PATH");
        assert_eq!(message("/no/such", &[]), "exec: \"/no/such\": stat /no/such: no such file or directory");
        assert_eq!(message("/etc/passwd", &[]), "exec: \"/etc/passwd\": permission denied");
        assert_eq!(message("passwd", &["PATH=/etc"]), "exec: \"passwd\": permission denied");
        assert_eq!(message("/etc", &[]), "exec: \"/etc\": is a directory");
    }

    #[test]
    fn a_program_is_found_in_the_order_of_path() {
        let environment = ["PATH=relative:/nowhere:/bin:/usr/bin".to_owned()];
        assert_eq!(find("sh", &environment), Ok("/bin/sh".into()));
        assert_eq!(find("sh", &[]), find("sh", &[format!("PATH={DEFAULT_PATH}")]));
    }
}
