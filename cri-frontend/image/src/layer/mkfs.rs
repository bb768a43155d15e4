//! `mkfs.erofs`, confined: it parses what a registry sent, in C.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read},
    os::{
        fd::{AsRawFd, RawFd},
        unix::{
            fs::{MetadataExt, OpenOptionsExt, fchown},
            process::CommandExt,
        },
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
};

use super::{LayerError, Limits};

/// The converter's own user: no process or file but its own has it.
const CONVERTER_ID: u32 = 1_999_999_999;
/// Its memory grows with the number of entries: about 800 bytes each.
const MAX_MEMORY: u64 = 2 << 30;
const MAX_CPU_SECONDS: u64 = 600;
/// An image is a little larger than its files.
const METADATA_ROOM: u64 = 4 << 30;
const MAX_MESSAGE: u64 = 2000;
const OUTPUT: &str = "layer.erofs";
const ERRORS: &str = "errors";

/// A running converter; killed when dropped.
pub(super) struct Converter {
    child: Child,
    stdin: Option<ChildStdin>,
    directory: PathBuf,
}

impl Converter {
    /// Starts it in a directory of its own, which must be empty.
    pub(super) fn start(program: &Path, directory: &Path, limits: Limits) -> Result<Self, LayerError> {
        let failed = |step| move |source| LayerError::Converter { step, source };
        // Opened before the user changes, because that user may not reach the program's directory.
        let program = File::open(program).map_err(failed("open"))?;
        let work = File::open(directory).map_err(failed("open the working directory of"))?;
        let errors = File::create(directory.join(ERRORS)).map_err(failed("make the error file of"))?;
        let confined = nix::unistd::geteuid().is_root();
        if confined {
            fchown(&work, Some(CONVERTER_ID), Some(CONVERTER_ID)).map_err(failed("give the directory to"))?;
        }
        let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
        command
            .args(["--tar=f", "--quiet", "-Enoinline_data", "--sort=none", "-T0", "--mkfs-time", OUTPUT])
            .env_clear()
            .env("TMPDIR", ".")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(errors);
        let bounds = Bounds {
            directory: work.as_raw_fd(),
            file_size: limits.unpacked.saturating_add(METADATA_ROOM),
            confined,
        };
        // SAFETY: the closure makes system calls only, on values that it owns.
        unsafe { command.pre_exec(move || bounds.apply()) };
        let mut child = command.spawn().map_err(failed("start"))?;
        let stdin = child.stdin.take();
        Ok(Self { child, stdin, directory: directory.to_owned() })
    }

    /// Where the tar stream goes. To be called once.
    pub(super) fn stdin(&mut self) -> Result<ChildStdin, LayerError> {
        let missing = || LayerError::Converter { step: "write to", source: io::ErrorKind::BrokenPipe.into() };
        self.stdin.take().ok_or_else(missing)
    }

    /// Waits for its end, after the stream's, and gives its file to root.
    pub(super) fn finish(mut self) -> Result<PathBuf, LayerError> {
        let failed = |step| move |source| LayerError::Converter { step, source };
        drop(self.stdin.take());
        let status = self.child.wait().map_err(failed("wait for"))?;
        if !status.success() {
            return Err(LayerError::ConverterFailed { status: status.to_string(), message: self.message() });
        }
        let path = self.directory.join(OUTPUT);
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(&path);
        let file = file.map_err(failed("open the result of"))?;
        let metadata = file.metadata().map_err(failed("look at the result of"))?;
        if !metadata.is_file() || metadata.nlink() != 1 {
            let source = io::Error::new(io::ErrorKind::InvalidData, "it is no plain file");
            return Err(LayerError::Converter { step: "take the result of", source });
        }
        if nix::unistd::geteuid().is_root() {
            fchown(&file, Some(0), Some(0)).map_err(failed("take the result of"))?;
        }
        file.sync_all().map_err(failed("sync the result of"))?;
        Ok(path)
    }

    /// The end of what it wrote to its error output, on one line.
    fn message(&self) -> String {
        let mut text = Vec::new();
        let read = File::open(self.directory.join(ERRORS)).and_then(|mut file| {
            let length = file.metadata()?.len();
            io::Seek::seek(&mut file, io::SeekFrom::Start(length.saturating_sub(MAX_MESSAGE)))?;
            file.take(MAX_MESSAGE).read_to_end(&mut text)
        });
        match read {
            Ok(_) => String::from_utf8_lossy(&text).split_whitespace().collect::<Vec<_>>().join(" "),
            Err(error) => format!("(its messages cannot be read: {error})"),
        }
    }
}

impl Drop for Converter {
    fn drop(&mut self) {
        // Both fail only if it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is set between fork and exec.
#[derive(Clone, Copy)]
struct Bounds {
    directory: RawFd,
    file_size: u64,
    confined: bool,
}

impl Bounds {
    /// Privileges go last: what comes before needs them.
    fn apply(self) -> io::Result<()> {
        // SAFETY: system calls without pointers, but for the rlimits on this stack.
        unsafe {
            check(libc::fchdir(self.directory))?;
            // Nothing that this process may have inherited goes on.
            let all = (3_u32, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
            check(libc::close_range(all.0, all.1, all.2 as libc::c_int))?;
            for (resource, limit) in [
                (libc::RLIMIT_AS, MAX_MEMORY),
                (libc::RLIMIT_CPU, MAX_CPU_SECONDS),
                (libc::RLIMIT_FSIZE, self.file_size),
                (libc::RLIMIT_NOFILE, 64),
                (libc::RLIMIT_CORE, 0),
            ] {
                let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
                check(libc::setrlimit(resource, &raw const limit))?;
            }
            // It first tries a file of 2 TiB, full of holes, and does without if that is an error and not its end.
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            if self.confined {
                check(libc::unshare(libc::CLONE_NEWNET | libc::CLONE_NEWIPC))?;
                check(libc::setgroups(0, std::ptr::null()))?;
                check(libc::setresgid(CONVERTER_ID, CONVERTER_ID, CONVERTER_ID))?;
                check(libc::setresuid(CONVERTER_ID, CONVERTER_ID, CONVERTER_ID))?;
            }
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            // After the change of user, which clears it.
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))
        }
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
