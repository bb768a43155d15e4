//! A container's cgroup (version 2): its figures, and the end of all its processes.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::{
    error::{Failed, Step},
    paths,
    sys::process,
};

/// A cgroup's directory.
#[derive(Debug, Clone)]
pub struct Cgroup {
    path: PathBuf,
}

/// The value of a line `key value`.
pub fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// A limit's file: a number, or `max` for none.
pub fn limit_of(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

impl Cgroup {
    /// The cgroup of a container. It need not exist.
    pub fn of_container(id: &a3s_box_proto::ids::ContainerId) -> Self {
        Self { path: Path::new(paths::POD_CGROUP).join(id.as_str()) }
    }

    /// The cgroup of all containers.
    pub fn of_pod() -> Self {
        Self { path: paths::POD_CGROUP.into() }
    }

    /// A new one beside a container's, to try what the kernel takes. No container has such a name.
    pub fn trial(id: &a3s_box_proto::ids::ContainerId) -> Result<Self, Failed> {
        let path = Path::new(paths::POD_CGROUP).join(format!("{id}+trial"));
        fs::create_dir(&path).step(|| format!("create {}", path.display()))?;
        Ok(Self { path })
    }

    /// Writes a file that the kernel has there.
    pub fn write(&self, file: &str, value: &str) -> io::Result<()> {
        OpenOptions::new().write(true).open(self.path.join(file))?.write_all(value.as_bytes())
    }

    /// A file of the cgroup; empty where a controller is missing or the cgroup has gone.
    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path.join(file)).unwrap_or_default()
    }

    /// How many processes the kernel killed here for want of memory.
    pub fn oom_kills(&self) -> u64 {
        value_of(&self.read("memory.events"), "oom_kill").unwrap_or(0)
    }

    /// All processes in it and below it: a container may have made cgroups of its own.
    pub fn processes(&self) -> Vec<i32> {
        let mut processes = Vec::new();
        let mut pending = vec![self.path.clone()];
        while let Some(path) = pending.pop() {
            let listed = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
            // 0 stands for a process that cannot be seen from here.
            processes
                .extend(listed.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
            let children = fs::read_dir(&path).into_iter().flatten().filter_map(Result::ok);
            pending.extend(
                children
                    .filter(|child| child.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|child| child.path()),
            );
        }
        processes
    }

    /// Sends a signal to all processes. Only SIGKILL reaches those too that are being forked meanwhile.
    pub fn signal(&self, signal: i32) -> Result<(), Failed> {
        if signal == libc::SIGKILL {
            return match fs::write(self.path.join("cgroup.kill"), "1") {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other.step(|| format!("kill the processes of {}", self.path.display())),
            };
        }
        for pid in self.processes() {
            // It may have ended since it was listed.
            let _ = process::kill(pid, signal);
        }
        Ok(())
    }

    /// Kills all processes and waits until none is left. A cgroup that does not exist has none.
    pub fn kill(&self, patience: Duration) -> Result<(), Failed> {
        self.signal(libc::SIGKILL)?;
        self.wait_empty(patience).step(|| format!("wait for the last process of {}", self.path.display()))
    }

    fn wait_empty(&self, patience: Duration) -> io::Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            // Opened anew each time: the read arms the next notification.
            let mut events = match File::open(self.path.join("cgroup.events")) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                other => other?,
            };
            let mut text = String::new();
            events.read_to_string(&mut text)?;
            if value_of(&text, "populated") == Some(0) {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let mut watched = [PollFd::new(events.as_fd(), PollFlags::POLLPRI)];
            match poll(&mut watched, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
                // A child's end may interrupt it.
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Removes it, with what a container made in it.
    pub fn remove(&self) -> Result<(), Failed> {
        remove_tree(&self.path).step(|| format!("remove {}", self.path.display()))
    }
}

/// Removes directories only: the files of a cgroup go with it.
fn remove_tree(path: &Path) -> io::Result<()> {
    let children = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for child in children {
        let child = child?;
        if child.file_type()?.is_dir() {
            remove_tree(&child.path())?;
        }
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The cgroup that a process is in now, as an absolute directory: a container may move its processes around below
/// its own cgroup. Anything outside the pod's is refused.
pub fn of_process(pid: i32) -> Result<PathBuf, Failed> {
    let file = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&file).step(|| format!("read {file}"))?;
    parse_membership(&text)
        .ok_or_else(|| Failed::because(format!("read {file}"), format!("unexpected {text:?}")))
}

fn parse_membership(text: &str) -> Option<PathBuf> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let is_inside = path.starts_with("/pod/") && !path.split('/').any(|component| component == "..");
    is_inside.then(|| PathBuf::from(format!("{}{path}", paths::CGROUPS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyed_files_are_read_by_whole_keys() {
        let events = "low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n";
        assert_eq!(value_of(events, "oom_kill"), Some(1));
        assert_eq!(value_of(events, "oom"), Some(2));
        assert_eq!(value_of(events, "swap"), None);
        assert_eq!(limit_of("max\n"), None);
        assert_eq!(limit_of("4096\n"), Some(4096));
    }

    #[test]
    fn a_process_is_looked_for_in_the_pod_only() {
        assert_eq!(parse_membership("0::/pod/c1/init\n"), Some("/sys/fs/cgroup/pod/c1/init".into()));
        assert_eq!(parse_membership("0::/\n"), None);
        assert_eq!(parse_membership("0::/pod/../x\n"), None);
        assert_eq!(parse_membership("1:name=systemd:/pod/c1\n"), None);
    }
}
