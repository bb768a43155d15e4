//! Foreign output in our messages: capped, and harmless in a log or on a terminal.

use std::fmt;

/// How much of a plugin's output a message quotes.
const QUOTED: usize = 512;

/// The beginning of a foreign output, in quotes and escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quoted(String);

impl Quoted {
    /// Quotes the first bytes.
    pub(crate) fn start(bytes: &[u8]) -> Self {
        let (shown, rest) = bytes.split_at(bytes.len().min(QUOTED));
        Self(format!("\"{}\"{}", escape(shown), if rest.is_empty() { "" } else { "…" }))
    }

    /// Quotes the last bytes.
    pub(crate) fn end(bytes: &[u8]) -> Self {
        let (rest, shown) = bytes.split_at(bytes.len().saturating_sub(QUOTED));
        Self(format!("{}\"{}\"", if rest.is_empty() { "" } else { "…" }, escape(shown)))
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn escape(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().chars().flat_map(char::escape_debug).collect()
}

/// A foreign text of one line, for a place where quotes would only disturb.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::new();
    for (index, c) in text.trim().chars().enumerate() {
        if index == QUOTED {
            plain.push('…');
            break;
        }
        if c.is_control() {
            plain.extend(c.escape_debug());
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_plugin_prints_can_neither_flood_nor_colour_a_log() {
        let flood = Quoted::start(&vec![b'x'; 100_000]).to_string();
        assert!(flood.len() < QUOTED + 10 && flood.ends_with('…'));
        assert_eq!(Quoted::end(b"a\x1b[31m\xff\n").to_string(), "\"a\\u{1b}[31m\u{fffd}\"");
        assert_eq!(plain("it \"broke\"\r\nbadly"), "it \"broke\"\\r\\nbadly");
    }
}
