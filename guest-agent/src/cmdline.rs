//! What the kernel's command line says to the agent: words that begin with `a3s.`.

use tracing::level_filters::LevelFilter;

/// The agent's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// `a3s.log=`: off, error, warn, info, debug or trace.
    pub log: LevelFilter,
    /// `a3s.scratch=tmpfs`: writable layers may lie in memory where the VM has no scratch disk.
    pub scratch_in_memory: bool,
}

impl Options {
    /// Reads a command line. What is wrong is left at its default and reported: a VM that boots can say so.
    pub fn parse(line: &str) -> (Self, Vec<String>) {
        let mut options = Self { log: LevelFilter::INFO, scratch_in_memory: false };
        let mut unknown = Vec::new();
        for word in line.split_ascii_whitespace().filter(|word| word.starts_with("a3s.")) {
            match word.split_once('=') {
                Some(("a3s.log", level)) => match level.parse() {
                    Ok(level) => options.log = level,
                    Err(_) => unknown.push(word.to_owned()),
                },
                Some(("a3s.scratch", "tmpfs")) => options.scratch_in_memory = true,
                _ => unknown.push(word.to_owned()),
            }
        }
        (options, unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_mistakes_reported() {
        let (options, unknown) =
            Options::parse("console=ttyS0 a3s.log=debug a3s.scratch=tmpfs a3s.colour=red quiet\n");
        assert_eq!(options, Options { log: LevelFilter::DEBUG, scratch_in_memory: true });
        assert_eq!(unknown, ["a3s.colour=red"]);
        let (options, unknown) = Options::parse("a3s.log=loud a3s.scratch=/dev/vdb");
        assert_eq!(options, Options { log: LevelFilter::INFO, scratch_in_memory: false });
        assert_eq!(unknown.len(), 2);
    }
}
