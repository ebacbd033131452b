//! The head of a host's answer to a request that went through the proxy: it must say that the connection ends with it.
//!
//! The proxy serves one request for one connection. Not every server repeats the `Connection: close` that it is asked for, and a
//! client that isn't told may send its next request into the connection just before it sees it end.

use std::borrow::Cow;

/// The largest head that is looked at; a larger one goes through as it is.
const HEAD_BYTES: usize = 64 << 10;

/// What has been read of it so far.
#[derive(Debug, Default)]
pub struct AnswerHead {
    held: Vec<u8>,
    passed: bool,
}

impl AnswerHead {
    /// What may go on to the client of what has come from the host.
    pub fn pass<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if self.passed {
            return Cow::Borrowed(bytes);
        }
        self.held.extend_from_slice(bytes);
        let mut out = Vec::new();
        while !self.passed {
            let Some(end) = self.held.windows(4).position(|window| window == b"\r\n\r\n") else {
                self.passed = self.held.len() > HEAD_BYTES || !could_be_http(&self.held);
                break;
            };
            let head: Vec<u8> = self.held.drain(..end + 4).collect();
            match status(&head) {
                // Another head follows.
                Some(100 | 102..=199) => out.extend_from_slice(&head),
                Some(200..) => {
                    out.extend_from_slice(&closing(&head));
                    self.passed = true;
                }
                // The connection is no longer one of HTTP, or never was.
                _ => {
                    out.extend_from_slice(&head);
                    self.passed = true;
                }
            }
        }
        if self.passed {
            out.append(&mut self.held);
        }
        Cow::Owned(out)
    }

    /// What was held back when the host ended in the midst of a head.
    pub fn rest(self) -> Vec<u8> {
        self.held
    }
}

fn could_be_http(bytes: &[u8]) -> bool {
    bytes.iter().zip(b"HTTP/1.").all(|(one, other)| one == other)
}

fn status(head: &[u8]) -> Option<u16> {
    let text = head.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The head without what says that the connection goes on, and with what says that it ends.
fn closing(head: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(head.len() + 24);
    for line in head[..head.len() - 2].split_inclusive(|byte| *byte == b'\n') {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        let of_connection = ["connection", "proxy-connection", "keep-alive"];
        if !of_connection
            .iter()
            .any(|one| name.eq_ignore_ascii_case(one.as_bytes()))
        {
            kept.extend_from_slice(line);
        }
    }
    kept.extend_from_slice(b"Connection: close\r\n\r\n");
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Handed over in pieces that end at these places.
    fn passed(bytes: &[u8], cuts: &[usize]) -> Vec<u8> {
        let mut head = AnswerHead::default();
        let mut out = Vec::new();
        let mut from = 0;
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        for end in ends {
            out.extend_from_slice(&head.pass(&bytes[from..end]));
            from = end;
        }
        out.extend_from_slice(&head.rest());
        out
    }

    const ANSWERS: [(&str, &str); 6] = [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=5\r\nConnection: keep-alive\r\n\r\nhi",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 404 No\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 404 No\r\nConnection: close\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
        ),
        (
            "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\n\r\n\x01\x02",
            "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\n\r\n\x01\x02",
        ),
        ("SSH-2.0-x\r\n", "SSH-2.0-x\r\n"),
        ("HTTP/1.1 200 OK\r\nConte", "HTTP/1.1 200 OK\r\nConte"),
        ("", ""),
    ];

    proptest! {
        #[test]
        fn an_answer_says_that_its_connection_ends(
            at in 0..ANSWERS.len(), cuts in proptest::collection::vec(0_usize..200, 0..6)
        ) {
            let (from, to) = ANSWERS[at];
            prop_assert_eq!(passed(from.as_bytes(), &cuts), to.as_bytes());
        }

        #[test]
        fn nothing_else_is_lost(
            bytes in proptest::collection::vec(any::<u8>(), 0..300), cuts in proptest::collection::vec(0_usize..300, 0..6)
        ) {
            prop_assert_eq!(passed(&bytes, &cuts), bytes);
        }
    }

    #[test]
    fn a_head_without_end_is_not_kept() {
        let mut head = AnswerHead::default();
        let line = [b"HTTP/1.1 200 OK\r\n".as_slice(), &[b'x'; HEAD_BYTES]].concat();
        assert_eq!(&*head.pass(&line), line);
        assert_eq!(&*head.pass(b"more"), b"more");
    }
}
