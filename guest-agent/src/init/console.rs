//! Where the agent's words go: the VM's serial console, which the host keeps and quotes.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    panic::PanicHookInfo,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use super::shutdown;

/// False in the processes that are forked from PID 1: their end is not the guest's.
static IS_INIT: AtomicBool = AtomicBool::new(true);

/// Tells this module that the calling process is a copy of PID 1.
pub fn not_init() {
    IS_INIT.store(false, Ordering::Relaxed);
}

/// Where a worker keeps a second copy of what it and its children log.
static COPY: OnceLock<File> = OnceLock::new();

/// From now on log lines of this process, and of those that it forks, are written to that file too.
pub fn copy_log_to(file: File) {
    // A worker does this once.
    let _ = COPY.set(file);
}

/// The console by a descriptor of its own: a container's init process writes log lines too, when its stderr is the
/// container's already.
#[derive(Debug)]
struct Lines(File);

impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(mut copy) = COPY.get() {
            copy.write_all(line)?;
        }
        (&self.0).write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes log lines to the console.
pub fn start_logging(level: LevelFilter) -> io::Result<()> {
    let console = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    // libcontainer warns for each container that it was built without seccomp, which is not its business here; a line
    // on an emulated serial port costs milliseconds.
    let targets = Targets::new()
        .with_target("a3s_box_guest", level)
        .with_default(level.min(LevelFilter::ERROR).max(debug_only(level)));
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .without_time()
        .with_target(false)
        .with_writer(Arc::new(Lines(console)));
    // A second subscriber cannot exist: this is called once.
    let _ = tracing_subscriber::registry().with(targets).with(lines).try_init();
    Ok(())
}

/// Libraries speak as loudly as the agent only where everything was asked for.
fn debug_only(level: LevelFilter) -> LevelFilter {
    if level >= LevelFilter::DEBUG { level } else { LevelFilter::OFF }
}

/// Says why on the console and switches the guest off: a PID 1 that hangs is the worst of all ends.
pub fn fatal(reason: &dyn std::fmt::Display) -> ! {
    say(&format!("a3s-box-guest: fatal: {reason}\n"));
    shutdown::power_off()
}

fn say(line: &str) {
    let bytes = line.as_bytes();
    // Before /dev is mounted, only the descriptor that the kernel opened leads to the console.
    if std::io::stderr().write_all(bytes).is_err()
        && let Ok(mut console) = File::options().write(true).open("/dev/console")
    {
        let _ = console.write_all(bytes);
    }
}

/// A bug in PID 1 ends the guest with its reason; in a forked process it ends that process.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info: &PanicHookInfo<'_>| {
        if IS_INIT.load(Ordering::Relaxed) {
            fatal(info);
        }
        say(&format!("a3s-box-guest: helper process: {info}\n"));
        crate::sys::process::exit(125);
    }));
}
