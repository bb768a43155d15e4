//! `mkfs.erofs`, confined: it parses what a registry sent, in C.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd},
        unix::{
            fs::{MetadataExt, OpenOptionsExt, fchown},
            process::ExitStatusExt,
        },
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{LayerError, Limits, confine::confine, space::check_space};
use crate::digest::Digest;

const MAX_MESSAGE: u64 = 2000;
const OUTPUT: &str = "layer.erofs";
const ERRORS: &str = "errors";
/// No file's end within its inode. No checksum of the first block: a guest would verify it at each mount, and the store has a
/// digest of the whole.
const EXTENDED: &str = "-Enoinline_data,nosbcrc";
/// It writes the image when it has all of the stream: so often the free space is looked at meanwhile.
const SPACE_PERIOD: Duration = Duration::from_millis(100);

/// A running converter; killed when dropped.
pub(super) struct Converter {
    child: Child,
    stdin: Option<ChildStdin>,
    directory: PathBuf,
    limits: Limits,
}

impl Converter {
    /// Starts it as a user of its own, in a directory of its own, which must be empty.
    pub(super) fn start(
        program: &Path,
        directory: &Path,
        user: u32,
        limits: Limits,
    ) -> Result<Self, LayerError> {
        let failed = |step| move |source| LayerError::Converter { step, source };
        // Opened before the user changes, because that user may not reach the program's directory.
        let program = File::open(program).map_err(failed("open"))?;
        let work = File::open(directory).map_err(failed("open the working directory of"))?;
        let errors = File::create(directory.join(ERRORS)).map_err(failed("make the error file of"))?;
        let mut command = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
        command
            .args(["--tar=f", "--quiet", EXTENDED, "--sort=none", "-T0", "--mkfs-time", OUTPUT])
            .env_clear()
            .env("TMPDIR", ".")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(errors);
        confine(&mut command, &program, &work, user, limits).map_err(failed("confine"))?;
        let mut child = command.spawn().map_err(failed("start"))?;
        let stdin = child.stdin.take();
        let converter = Self { child, stdin, directory: directory.to_owned(), limits };
        converter.die_first().map_err(failed("confine"))?;
        Ok(converter)
    }

    /// Where memory runs out, a hostile layer's converter goes before any pod: it has inherited the frontend's protection.
    fn die_first(&self) -> io::Result<()> {
        std::fs::write(format!("/proc/{}/oom_score_adj", self.child.id()), "1000")
    }

    /// Where the tar stream goes. To be called once.
    pub(super) fn stdin(&mut self) -> Result<Pipe, LayerError> {
        let failed = |source| LayerError::Converter { step: "write to", source };
        let pipe = self.stdin.take().ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
        rustix::io::ioctl_fionbio(&pipe, true).map_err(|errno| failed(errno.into()))?;
        Ok(Pipe { pipe, limits: self.limits, left: self.limits.convert_time() })
    }

    /// Waits for its end, after the stream's, and gives its file to root. Says the file's digest, too.
    pub(super) fn finish(mut self) -> Result<(PathBuf, Digest), LayerError> {
        let failed = |step| move |source| LayerError::Converter { step, source };
        drop(self.stdin.take());
        let status = self.wait()?;
        if status.signal() == Some(libc::SIGXCPU) {
            return Err(self.limits.time_error());
        }
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
        let (digest, _) = Digest::of_reader(&file).map_err(failed("read the result of"))?;
        file.sync_all().map_err(failed("sync the result of"))?;
        Ok((path, digest))
    }

    fn wait(&mut self) -> Result<ExitStatus, LayerError> {
        let failed = |source| LayerError::Converter { step: "wait for", source };
        let pid = Pid::from_child(&self.child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| failed(errno.into()))?;
        let mut left = self.limits.convert_time();
        loop {
            check_space(&self.directory, 0, self.limits.keep_free)?;
            let period = left.min(SPACE_PERIOD);
            if ready(&pidfd, PollFlags::IN, period).map_err(failed)? {
                return self.child.wait().map_err(failed);
            }
            left -= period;
            if left.is_zero() {
                return Err(self.limits.time_error());
            }
        }
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

/// The pipe to the converter, which may not keep us waiting for ever.
pub(super) struct Pipe {
    pipe: ChildStdin,
    limits: Limits,
    left: Duration,
}

impl Write for Pipe {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        loop {
            match self.pipe.write(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
            let started = Instant::now();
            if !ready(&self.pipe, PollFlags::OUT, self.left)? {
                return Err(self.limits.time_error().into_io());
            }
            self.left = self.left.saturating_sub(started.elapsed());
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pipe.flush()
    }
}

/// Waits until a file is ready. False if it took too long.
fn ready(file: &impl AsFd, events: PollFlags, patience: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
        match poll(&mut [PollFd::new(file, events)], Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result? > 0),
        }
    }
}
