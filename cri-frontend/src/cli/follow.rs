//! Following a container's log: the CRI's format back into two streams.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
};

/// One read.
const CHUNK: usize = 64 * 1024;

/// A log that grows.
#[derive(Debug)]
pub struct Follower {
    file: File,
    unfinished: Vec<u8>,
}

impl Follower {
    /// Opens a log from its beginning.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)?, unfinished: Vec::new() })
    }

    /// Writes what has come since the last time.
    pub fn copy(&mut self, stdout: &mut impl Write, stderr: &mut impl Write) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let count = self.file.read(&mut chunk)?;
            if count == 0 {
                break;
            }
            self.unfinished.extend_from_slice(&chunk[..count]);
            let lines_end = self.unfinished.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            for line in self.unfinished[..lines_end].split_inclusive(|byte| *byte == b'\n') {
                write_line(line, stdout, stderr)?;
            }
            self.unfinished.drain(..lines_end);
        }
        stdout.flush()?;
        stderr.flush()
    }
}

/// `<time> <stream> <tag> <text>`: the tag P means that the text's own end of line is still to come.
fn write_line(line: &[u8], stdout: &mut impl Write, stderr: &mut impl Write) -> io::Result<()> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let (_time, stream, tag, text) = (fields.next(), fields.next(), fields.next(), fields.next());
    let (Some(stream), Some(tag), Some(text)) = (stream, tag, text) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a line of the log is not in the CRI's format",
        ));
    };
    let partial = tag.split(|byte| *byte == b':').any(|tag| tag == b"P");
    let text = if partial { text.strip_suffix(b"\n").unwrap_or(text) } else { text };
    if stream == b"stderr" { stderr.write_all(text) } else { stdout.write_all(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_told_apart_and_partial_lines_joined() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = File::create(&path).unwrap();
        let mut follower = Follower::open(&path).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        log.write_all(
            b"2026-01-01T00:00:00Z stdout P one \n2026-01-01T00:00:00Z stderr F oops\n2026-01-01T0",
        )
        .unwrap();
        follower.copy(&mut out, &mut err).unwrap();
        assert_eq!((out.as_slice(), err.as_slice()), (&b"one "[..], &b"oops\n"[..]));
        log.write_all(b"0:00:00Z stdout F line\n2026-01-01T00:00:00Z stdout F \n").unwrap();
        follower.copy(&mut out, &mut err).unwrap();
        assert_eq!(out, b"one line\n\n");
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(write_line(b"hello\n", &mut Vec::new(), &mut Vec::new()).is_err());
    }
}
