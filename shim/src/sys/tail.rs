//! The end of what a program or a guest printed: bounded, and safe to quote in an error.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

/// Keeps the last bytes that were written to it.
#[derive(Debug)]
pub struct Tail {
    limit: usize,
    bytes: Mutex<VecDeque<u8>>,
}

impl Tail {
    /// A tail of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { limit, bytes: Mutex::default() }
    }

    /// Takes more bytes, and forgets the oldest beyond the limit.
    pub fn push(&self, bytes: &[u8]) {
        let mut kept = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(&bytes[bytes.len().saturating_sub(self.limit)..]);
        let excess = kept.len().saturating_sub(self.limit);
        kept.drain(..excess);
    }

    /// All that is kept.
    pub fn bytes(&self) -> Vec<u8> {
        let kept = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().copied().collect()
    }

    /// The last lines, at most `lines`, printable and joined by " | ".
    pub fn quote(&self, lines: usize) -> String {
        self.join(|all| &all[all.len().saturating_sub(lines)..])
    }

    /// The lines from the last one on that has this word, where one has it; else as [`Self::quote`].
    pub fn quote_from(&self, word: &str, lines: usize) -> String {
        self.join(|all| {
            let from = all.iter().rposition(|line| line.contains(word));
            let from = from.unwrap_or(all.len().saturating_sub(lines));
            &all[from..all.len().min(from + lines)]
        })
    }

    fn join(&self, choose: impl for<'a> FnOnce(&'a [&'a str]) -> &'a [&'a str]) -> String {
        let bytes = self.bytes();
        let text = String::from_utf8_lossy(&bytes);
        let all: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        printable(&choose(&all).join(" | "), 4096)
    }
}

/// A text of somebody who is not trusted: cut to `limit` bytes, control characters escaped (terminals obey them).
pub fn printable(text: &str, limit: usize) -> String {
    let mut safe = String::new();
    for character in text.chars() {
        if safe.len() >= limit {
            safe.push('…');
            break;
        }
        if character.is_control() {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_quoted_without_control_characters() {
        let tail = Tail::new(32);
        tail.push(b"this is forgotten because it is old\n");
        tail.push(b"one\r\n\x1b[31mtwo\nthree");
        assert_eq!(tail.quote(2), "\\u{1b}[31mtwo | three");
        assert!(tail.bytes().len() <= 32);
    }

    #[test]
    fn a_word_says_where_to_begin() {
        let tail = Tail::new(1024);
        tail.push(b"one\n[1.0] Kernel panic: why\n[1.0] Kernel panic: again\ncalls\nmore\nend");
        assert_eq!(tail.quote_from("Kernel panic", 2), "[1.0] Kernel panic: again | calls");
        assert_eq!(tail.quote_from("nothing", 2), "more | end");
    }

    #[test]
    fn long_texts_are_cut() {
        assert_eq!(printable(&"x".repeat(10), 4), "xxxx…");
    }
}
