//! Signals, which the CRI numbers alphabetically.

use a3s_box_proto::cri::Signal;

/// Linux's numbers 1 to 31, in order.
const NAMED: [Signal; 31] = [
    Signal::Sighup,
    Signal::Sigint,
    Signal::Sigquit,
    Signal::Sigill,
    Signal::Sigtrap,
    Signal::Sigabrt,
    Signal::Sigbus,
    Signal::Sigfpe,
    Signal::Sigkill,
    Signal::Sigusr1,
    Signal::Sigsegv,
    Signal::Sigusr2,
    Signal::Sigpipe,
    Signal::Sigalrm,
    Signal::Sigterm,
    Signal::Sigstkflt,
    Signal::Sigchld,
    Signal::Sigcont,
    Signal::Sigstop,
    Signal::Sigtstp,
    Signal::Sigttin,
    Signal::Sigttou,
    Signal::Sigurg,
    Signal::Sigxcpu,
    Signal::Sigxfsz,
    Signal::Sigvtalrm,
    Signal::Sigprof,
    Signal::Sigwinch,
    Signal::Sigio,
    Signal::Sigpwr,
    Signal::Sigsys,
];
/// The first real-time signal that programs may use; from here on the CRI's order is Linux's.
const SIGRTMIN: u32 = 34;

/// The CRI's name of a Linux signal.
pub fn from_number(number: u32) -> Signal {
    let named = number.checked_sub(1).and_then(|index| NAMED.get(index as usize)).copied();
    let real_time = || {
        let offset = i32::try_from(number.checked_sub(SIGRTMIN)?).ok()?;
        Signal::try_from(Signal::Sigrtmin as i32 + offset).ok()
    };
    named.or_else(real_time).unwrap_or(Signal::RuntimeDefault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_their_names() {
        for (number, signal) in [
            (1, Signal::Sighup),
            (9, Signal::Sigkill),
            (15, Signal::Sigterm),
            (31, Signal::Sigsys),
            (34, Signal::Sigrtmin),
            (37, Signal::Sigrtminplus3),
            (64, Signal::Sigrtmax),
            (0, Signal::RuntimeDefault),
            (32, Signal::RuntimeDefault),
            (65, Signal::RuntimeDefault),
        ] {
            assert_eq!(from_number(number), signal, "{number}");
        }
    }
}
