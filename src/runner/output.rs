//! Bounded capture of stdout and stderr: bytes into lines, what is over a limit counted and dropped.

use super::LogLine;
use super::protocol::LINE_BYTES;
use crate::domain::Timestamp;

/// How much output is kept of one attempt.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    /// Of each stream.
    pub bytes: u64,
    /// Of both streams and `ctx.log` together.
    pub lines: u64,
}

/// Both streams of one worker.
#[derive(Debug)]
pub struct Capture {
    allowance: Allowance,
    lines: u64,
    streams: [Stream; 2],
    truncated: bool,
}

#[derive(Debug)]
struct Stream {
    name: &'static str,
    level: &'static str,
    kept: u64,
    seen: u64,
    partial: Vec<u8>,
}

/// Index of stdout in [`Capture`].
pub const STDOUT: usize = 0;
/// Index of stderr in [`Capture`].
pub const STDERR: usize = 1;

impl Capture {
    /// Nothing captured yet.
    #[must_use]
    pub const fn new(allowance: Allowance) -> Self {
        const fn stream(name: &'static str, level: &'static str) -> Stream {
            Stream {
                name,
                level,
                kept: 0,
                seen: 0,
                partial: Vec::new(),
            }
        }
        Self {
            allowance,
            lines: 0,
            streams: [stream("stdout", "info"), stream("stderr", "warning")],
            truncated: false,
        }
    }

    /// Changes what is kept from now on.
    pub const fn allow(&mut self, allowance: Allowance) {
        self.allowance = allowance;
    }

    /// Whether everything that this stream may still say is dropped.
    #[must_use]
    pub const fn is_full(&self, stream: usize) -> bool {
        self.streams[stream].kept >= self.allowance.bytes || self.lines >= self.allowance.lines
    }

    /// Bytes of both streams so far, dropped ones included.
    #[must_use]
    pub const fn seen(&self) -> u64 {
        self.streams[STDOUT].seen + self.streams[STDERR].seen
    }

    /// Whether anything was dropped.
    #[must_use]
    pub const fn truncated(&self) -> bool {
        self.truncated
    }

    /// Counts a line of `ctx.log`; false when it is to be dropped.
    pub const fn count_line(&mut self) -> bool {
        if self.lines >= self.allowance.lines {
            self.truncated = true;
            return false;
        }
        self.lines += 1;
        true
    }

    /// Takes what was read; whole lines go to `to`.
    pub fn push(&mut self, stream: usize, bytes: &[u8], at: Timestamp, to: &mut impl Extend<LogLine>) {
        let state = &mut self.streams[stream];
        state.seen += bytes.len() as u64;
        let room = usize::try_from(self.allowance.bytes.saturating_sub(state.kept)).unwrap_or(usize::MAX);
        let kept = &bytes[..bytes.len().min(room)];
        if kept.len() < bytes.len() {
            self.truncated = true;
        }
        state.kept += kept.len() as u64;
        let mut rest = kept;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.streams[stream].partial.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            self.line(stream, true, at, to);
        }
        self.streams[stream].partial.extend_from_slice(rest);
        if self.streams[stream].partial.len() > LINE_BYTES {
            self.line(stream, false, at, to);
        }
    }

    /// What is left of a last line without an end.
    pub fn finish(&mut self, at: Timestamp, to: &mut impl Extend<LogLine>) {
        for stream in [STDOUT, STDERR] {
            if !self.streams[stream].partial.is_empty() {
                self.line(stream, true, at, to);
            }
        }
    }

    /// Makes lines of the partial one: pieces of at most [`LINE_BYTES`], and with `whole` the rest too.
    fn line(&mut self, stream: usize, whole: bool, at: Timestamp, to: &mut impl Extend<LogLine>) {
        let mut partial = std::mem::take(&mut self.streams[stream].partial);
        if whole && partial.last() == Some(&b'\r') {
            partial.pop();
        }
        let mut rest = partial.as_slice();
        while rest.len() > LINE_BYTES {
            let (piece, after) = rest.split_at(piece_end(rest));
            self.emit(stream, piece, at, to);
            rest = after;
        }
        if whole {
            self.emit(stream, rest, at, to);
        } else {
            self.streams[stream].partial = rest.to_vec();
        }
    }

    fn emit(&mut self, stream: usize, bytes: &[u8], at: Timestamp, to: &mut impl Extend<LogLine>) {
        if !self.count_line() {
            return;
        }
        let Stream { name, level, .. } = self.streams[stream];
        let message = String::from_utf8_lossy(bytes).into_owned();
        to.extend([LogLine {
            at,
            stream: name.to_owned(),
            level: level.to_owned(),
            message,
            fields: None,
        }]);
    }
}

/// Where to cut a long line: not within a character of UTF-8, when it is UTF-8.
fn piece_end(bytes: &[u8]) -> usize {
    (LINE_BYTES - 3..=LINE_BYTES)
        .rev()
        .find(|at| bytes[*at] & 0xc0 != 0x80)
        .unwrap_or(LINE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(capture: &mut Capture, chunks: &[&[u8]]) -> Vec<String> {
        let mut lines = Vec::new();
        for chunk in chunks {
            capture.push(STDOUT, chunk, Timestamp::from_millis(0), &mut lines);
        }
        capture.finish(Timestamp::from_millis(0), &mut lines);
        lines.into_iter().map(|line| line.message).collect()
    }

    const WIDE: Allowance = Allowance {
        bytes: 1 << 20,
        lines: 1_000,
    };

    #[test]
    fn lines_are_put_together() {
        let mut capture = Capture::new(WIDE);
        assert_eq!(all(&mut capture, &[b"a\nb", b"c\r\n\nd"]), ["a", "bc", "", "d"]);
        assert_eq!(capture.seen(), 8);
        assert!(!capture.truncated());
    }

    #[test]
    fn what_is_not_utf8_is_replaced() {
        assert_eq!(all(&mut Capture::new(WIDE), &[b"\xc3", b"\xa4\xff\n"]), ["ä\u{fffd}"]);
    }

    #[test]
    fn long_lines_come_in_pieces_of_whole_characters() {
        let text = "ä".repeat(LINE_BYTES);
        let lines = all(&mut Capture::new(WIDE), &[text.as_bytes()]);
        assert!(lines.iter().all(|line| line.len() <= LINE_BYTES));
        assert_eq!(lines.concat(), text);
    }

    #[test]
    fn limits_of_bytes_and_lines() {
        let mut capture = Capture::new(Allowance { bytes: 5, lines: 1_000 });
        assert_eq!(all(&mut capture, &[b"abc", b"defgh\n", b"x"]), ["abcde"]);
        assert_eq!(capture.seen(), 10);
        assert!(capture.truncated() && capture.is_full(STDOUT) && !capture.is_full(STDERR));

        let mut capture = Capture::new(Allowance {
            bytes: 1 << 20,
            lines: 2,
        });
        assert_eq!(all(&mut capture, &[b"a\nb\nc\n"]), ["a", "b"]);
        assert!(capture.truncated() && capture.is_full(STDERR));
    }
}
