//! The signal that asks a container to stop.

use a3s_box_proto::cri;

use crate::{
    Input, check,
    error::{SpecError, invalid},
    image_config,
};

/// The first and last signal of the real-time range that a program may use; the C library keeps 32 and 33.
const RTMIN: u32 = 34;
const RTMAX: u32 = 64;

/// The signals with names, also those with two.
const NAMES: [(&str, i32); 34] = [
    ("ABRT", libc::SIGABRT),
    ("ALRM", libc::SIGALRM),
    ("BUS", libc::SIGBUS),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("FPE", libc::SIGFPE),
    ("HUP", libc::SIGHUP),
    ("ILL", libc::SIGILL),
    ("INT", libc::SIGINT),
    ("IO", libc::SIGIO),
    ("IOT", libc::SIGIOT),
    ("KILL", libc::SIGKILL),
    ("PIPE", libc::SIGPIPE),
    ("POLL", libc::SIGPOLL),
    ("PROF", libc::SIGPROF),
    ("PWR", libc::SIGPWR),
    ("QUIT", libc::SIGQUIT),
    ("SEGV", libc::SIGSEGV),
    ("STKFLT", libc::SIGSTKFLT),
    ("STOP", libc::SIGSTOP),
    ("SYS", libc::SIGSYS),
    ("TERM", libc::SIGTERM),
    ("TRAP", libc::SIGTRAP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("VTALRM", libc::SIGVTALRM),
    ("WINCH", libc::SIGWINCH),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
];

/// The request's signal, else the image's, else TERM.
pub(super) fn of(input: &Input<'_>) -> Result<u32, SpecError> {
    let asked = input.container.stop_signal;
    match cri::Signal::try_from(asked) {
        Ok(cri::Signal::RuntimeDefault) => {}
        Ok(signal) => return parse(&of_cri(signal)),
        Err(_) => return Err(invalid("stop_signal", format!("{asked} is no signal of the CRI"))),
    }
    match image_config(input).and_then(|image| image.stop_signal().as_deref()) {
        None | Some("") => parse("TERM"),
        Some(of_image) => parse(of_image),
    }
}

/// `SIGNAL_SIGRTMINPLUS1` is RTMIN+1 in the CRI's words.
fn of_cri(signal: cri::Signal) -> String {
    signal.as_str_name().trim_start_matches("SIGNAL_").replace("PLUS", "+").replace("MINUS", "-")
}

/// The number of a signal: `SIGTERM`, `TERM`, `RTMIN+3`, `SIGRTMAX-1` or `15`.
///
/// # Errors
/// It is none of these.
pub fn parse(name: &str) -> Result<u32, SpecError> {
    let upper = name.trim().to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let named = || NAMES.iter().find(|(known, _)| *known == bare).and_then(|(_, n)| u32::try_from(*n).ok());
    number(bare).or_else(|| real_time(bare)).or_else(named).ok_or_else(|| {
        invalid(
            "stop signal",
            format!("{} is no signal: SIGTERM, TERM, RTMIN+1 or 15 are", check::shown(name)),
        )
    })
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|number| (1..=RTMAX).contains(number))
}

fn real_time(text: &str) -> Option<u32> {
    let number = match (text.strip_prefix("RTMIN"), text.strip_prefix("RTMAX")) {
        (Some(""), _) => RTMIN,
        (_, Some("")) => RTMAX,
        (Some(rest), _) => RTMIN.checked_add(rest.strip_prefix('+')?.parse().ok()?)?,
        (_, Some(rest)) => RTMAX.checked_sub(rest.strip_prefix('-')?.parse().ok()?)?,
        (None, None) => return None,
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_have_names_numbers_and_offsets() {
        for (name, number) in [
            ("SIGTERM", 15),
            ("term", 15),
            ("9", 9),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("SIGRTMAX", 64),
            ("CLD", 17),
        ] {
            assert_eq!(parse(name).unwrap(), number, "{name}");
        }
        for bad in ["", "SIG", "TERMX", "0", "65", "-1", "RTMIN+31", "RTMAX-64", "RTMIN-1", "SIGSIGTERM"] {
            assert!(parse(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn every_signal_of_the_cri_has_a_number() {
        let signals: Vec<u32> =
            (1..=65).map(|signal| parse(&of_cri(cri::Signal::try_from(signal).unwrap())).unwrap()).collect();
        assert_eq!(signals[..4], [6, 14, 7, 17]);
        assert_eq!(signals[34..36], [34, 35]);
        assert_eq!(signals[62..], [62, 63, 64]);
    }
}
