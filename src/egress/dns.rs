//! The name server that workers see: it knows the names that they may reach, by placeholder addresses, over TCP only.
//!
//! One question in one frame, one answer in one frame. What does not look like a question ends the connection.

use std::net::IpAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::grant::{Grant, Looked};

/// The longest question that is read.
const MOST_BYTES: usize = 1_024;
/// Questions over one connection.
const MOST_QUESTIONS: usize = 512;
/// How long an answer holds, in seconds. A placeholder holds as long as the attempt.
const TTL: u32 = 60;

const HEADER: usize = 12;
const A: u16 = 1;
const INTERNET: u16 = 1;

/// How a question is answered beside its addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    Good = 0,
    Failed = 2,
    Missing = 3,
    Refused = 5,
}

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
struct Question<'a> {
    id: [u8; 2],
    recursion: bool,
    name: String,
    kind: u16,
    /// The question as it was put, to be repeated in the answer.
    bytes: &'a [u8],
}

/// Reads a question: one, of the internet, without anything before it. What follows it (options) does not matter.
fn read(message: &[u8]) -> Option<Question<'_>> {
    let header: &[u8; HEADER] = message.first_chunk()?;
    let is_query = header[2] & 0xf8 == 0;
    let one_question = header[4..6] == [0, 1] && header[6..10] == [0, 0, 0, 0];
    if !is_query || !one_question {
        return None;
    }
    let mut name = String::new();
    let mut at = HEADER;
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        match length {
            0 => break,
            1..=63 => {
                let label = message.get(at..at + length)?;
                // A dot within a label would make another name of it.
                if !label
                    .iter()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
                {
                    return None;
                }
                if !name.is_empty() {
                    name.push('.');
                }
                name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
                at += length;
            }
            // Compression has nothing to refer to in a question.
            _ => return None,
        }
        if name.len() > 253 {
            return None;
        }
    }
    let rest: &[u8; 4] = message.get(at..)?.first_chunk()?;
    let (kind, class) = (
        u16::from_be_bytes([rest[0], rest[1]]),
        u16::from_be_bytes([rest[2], rest[3]]),
    );
    (class == INTERNET && !name.is_empty()).then(|| Question {
        id: [header[0], header[1]],
        recursion: header[2] & 1 != 0,
        name,
        kind,
        bytes: &message[HEADER..at + 4],
    })
}

/// The answer, with its length in front.
fn write(question: &Question<'_>, code: Code, address: Option<IpAddr>) -> Vec<u8> {
    let address = match address {
        Some(IpAddr::V4(address)) if question.kind == A => Some(address),
        _ => None,
    };
    let mut answer = Vec::with_capacity(HEADER + question.bytes.len() + 18);
    answer.extend(question.id);
    // An answer, by somebody who may answer for it, recursion as asked for and available.
    answer.extend([0x84 | u8::from(question.recursion), 0x80 | code as u8]);
    answer.extend([0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    answer.extend(question.bytes);
    if let Some(address) = address {
        answer.extend([0xc0, 0x0c]);
        answer.extend(A.to_be_bytes());
        answer.extend(INTERNET.to_be_bytes());
        answer.extend(TTL.to_be_bytes());
        answer.extend([0, 4]);
        answer.extend(address.octets());
    }
    let length = u16::try_from(answer.len()).unwrap_or(u16::MAX);
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(answer);
    frame
}

/// Answers until the connection or the attempt ends.
pub async fn serve(mut stream: UnixStream, grant: &Grant) {
    tokio::select! {
        () = grant.closed().cancelled() => {}
        _ = answer_all(&mut stream, grant) => {}
    }
}

async fn answer_all(stream: &mut UnixStream, grant: &Grant) -> std::io::Result<()> {
    let mut message = [0; MOST_BYTES];
    for _ in 0..MOST_QUESTIONS {
        let length = usize::from(stream.read_u16().await?);
        let Some(message) = message.get_mut(..length) else {
            return Ok(());
        };
        stream.read_exact(message).await?;
        let Some(question) = read(message) else {
            return Ok(());
        };
        let (code, address) = if question.kind == A {
            match grant.look_up(&question.name).await {
                Looked::Up(address) => (Code::Good, Some(address)),
                Looked::Refused => (Code::Refused, None),
                Looked::Missing => (Code::Missing, None),
                Looked::Failed => (Code::Failed, None),
            }
        } else if grant.may_look_up(&question.name) {
            // The name is there, and has nothing of this kind.
            (Code::Good, None)
        } else {
            (Code::Refused, None)
        };
        stream.write_all(&write(&question, code, address)).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
        for label in name.split('.') {
            message.push(u8::try_from(label.len()).unwrap());
            message.extend(label.bytes());
        }
        message.push(0);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        // An OPT record, as resolvers send it.
        message.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        message
    }

    #[test]
    fn a_question_and_its_answer() {
        let message = query("API.example.com", A);
        let question = read(&message).unwrap();
        assert_eq!((question.name.as_str(), question.kind), ("api.example.com", A));
        let answer = write(&question, Code::Good, Some([198, 18, 0, 1].into()));
        assert_eq!(
            usize::from(u16::from_be_bytes([answer[0], answer[1]])),
            answer.len() - 2
        );
        assert_eq!(answer[2..14], [7, 9, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert!(answer.ends_with(&[0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 18, 0, 1]));
        let refused = write(&question, Code::Refused, None);
        assert_eq!(refused[5] & 15, 5);
        assert_eq!(read(&query("a.b\0c", A)), None);
        assert_eq!(read(&query("a.b", A)[..20]), None);
        let mut answer_as_question = query("a.b", A);
        answer_as_question[2] |= 0x80;
        assert_eq!(read(&answer_as_question), None);
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
        }

        #[test]
        fn broken_questions_never_panic(place in 0..60_usize, byte: u8, cut in 0..60_usize) {
            let mut message = query("api.example.com", 28);
            if let Some(slot) = message.get_mut(place) {
                *slot = byte;
            }
            message.truncate(cut);
            if let Some(question) = read(&message) {
                let answer = write(&question, Code::Good, Some([198, 18, 0, 1].into()));
                prop_assert_eq!(usize::from(u16::from_be_bytes([answer[0], answer[1]])), answer.len() - 2);
            }
        }
    }
}
