//! Which guests answer. One that was silent is asked again, and nobody waits for it, until it answers.

use std::sync::{Mutex, PoisonError};

/// Whether a guest answered when it was last asked for its figures.
#[derive(Debug, Default)]
pub struct Hearing(Mutex<State>);

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Answers,
    Silent,
    /// Silent, and someone asks again.
    AskedAgain,
}

/// How to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// And wait.
    Now,
    /// And let nobody wait.
    Behind,
    /// It is being asked.
    Not,
}

impl Hearing {
    /// How to ask it now.
    pub fn ask(&self) -> Ask {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *state {
            State::Answers => Ask::Now,
            State::Silent => {
                *state = State::AskedAgain;
                Ask::Behind
            }
            State::AskedAgain => Ask::Not,
        }
    }

    /// It has answered, or was silent for as long as it had.
    pub fn note(&self, answered: bool) {
        let state = if answered { State::Answers } else { State::Silent };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_guest_is_asked_once_at_a_time_and_waited_for_by_nobody() {
        let hearing = Hearing::default();
        assert_eq!(hearing.ask(), Ask::Now);
        hearing.note(false);
        assert_eq!([hearing.ask(), hearing.ask(), hearing.ask()], [Ask::Behind, Ask::Not, Ask::Not]);
        hearing.note(false);
        assert_eq!(hearing.ask(), Ask::Behind);
        hearing.note(true);
        assert_eq!(hearing.ask(), Ask::Now);
    }
}
