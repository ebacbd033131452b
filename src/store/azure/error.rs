//! From what the service or the transport said to a storage [`Error`].
//!
//! Neither the SDK's errors nor the service's messages go further than this file: the first carry the address with its
//! signature, the second repeat keys and values. What is kept is the status, the service's code and its request id.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use azure_core::Error as SdkError;
use azure_core::error::ErrorKind;
use azure_core::http::headers::{HeaderName, Headers};

use crate::store::error::Error;

/// Why a request did not do what it should; not yet what that means for the operation.
#[derive(Debug)]
pub(super) enum Failure {
    /// The service refused.
    Answer(Answer),
    /// Nothing, or nothing whole, came back.
    Transport(String),
    /// Nothing came back in time.
    Timeout(Duration),
    /// There is no token to send.
    Credential(String),
    /// Something came back that is no answer of the service.
    Unreadable(String),
}

/// A refusal of the service.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// The service's code, as `EntityAlreadyExists`; empty when it gave none.
    pub(super) code: String,
    /// The operation of a batch that it is about.
    pub(super) index: usize,
    pub(super) request_id: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(answer) => {
                write!(f, "status {}", answer.status)?;
                if !answer.code.is_empty() {
                    write!(f, " {}", answer.code)?;
                }
                if !answer.request_id.is_empty() {
                    write!(f, ", request {}", answer.request_id)?;
                }
                Ok(())
            }
            Self::Transport(text) => f.write_str(text),
            Self::Timeout(limit) => write!(f, "no answer within {} s", limit.as_secs()),
            Self::Credential(text) => write!(f, "no token: {text}"),
            Self::Unreadable(text) => write!(f, "the answer can't be read: {text}"),
        }
    }
}

impl StdError for Failure {}

/// What an operation was about, for the words of its error.
#[derive(Debug, Clone, Copy)]
pub(super) struct Target<'a> {
    /// The operation, as `reading a blob`.
    pub(super) operation: &'static str,
    /// The table, container or queue.
    pub(super) container: &'a str,
    /// The row, blob or message; the container itself when empty.
    pub(super) item: &'a str,
}

impl<'a> Target<'a> {
    pub(super) const fn account(operation: &'static str) -> Target<'static> {
        Target {
            operation,
            container: "",
            item: "",
        }
    }

    pub(super) const fn container(operation: &'static str, container: &'a str) -> Self {
        Self {
            operation,
            container,
            item: "",
        }
    }

    pub(super) const fn item(operation: &'static str, container: &'a str, item: &'a str) -> Self {
        Self {
            operation,
            container,
            item,
        }
    }
}

impl Failure {
    /// From an error of the SDK.
    pub(super) fn from_sdk(error: SdkError) -> Self {
        match error.kind() {
            ErrorKind::HttpResponse {
                status,
                error_code,
                raw_response,
            } => {
                let headers = raw_response.as_ref().map(|response| response.headers());
                Self::Answer(Answer {
                    status: u16::from(*status),
                    code: error_code.as_deref().map(code).unwrap_or_default(),
                    index: 0,
                    request_id: headers.map(request_id).unwrap_or_default(),
                })
            }
            ErrorKind::Connection | ErrorKind::Io => Self::Transport(chain(&error)),
            ErrorKind::Credential if is_transport(&error) => Self::Transport(chain(&error)),
            ErrorKind::Credential => Self::Credential(chain(&error)),
            _ => Self::Unreadable(chain(&error)),
        }
    }

    /// The status, when the service answered.
    pub(super) const fn status(&self) -> Option<u16> {
        match self {
            Self::Answer(answer) => Some(answer.status),
            _ => None,
        }
    }

    /// The service's code, or an empty text.
    pub(super) fn code(&self) -> &str {
        match self {
            Self::Answer(answer) => &answer.code,
            _ => "",
        }
    }

    /// Whether this says that the row, blob or message is not there. A missing container is something else.
    pub(super) fn is_missing_item(&self) -> bool {
        self.status() == Some(404) && !self.is_missing_container()
    }

    /// Whether this says that the table, container or queue is not there.
    pub(super) fn is_missing_container(&self) -> bool {
        matches!(self.code(), "TableNotFound" | "ContainerNotFound" | "QueueNotFound")
    }

    /// What it means for an operation.
    pub(super) fn into_error(self, target: &Target<'_>) -> Error {
        let item = || {
            if target.item.is_empty() {
                target.container
            } else {
                target.item
            }
            .to_owned()
        };
        let what = target.operation.to_owned();
        let Self::Answer(answer) = &self else {
            return match self {
                Self::Credential(_) => Error::Forbidden {
                    what,
                    source: Box::new(self),
                },
                _ => Error::Unavailable {
                    what,
                    source: Box::new(self),
                },
            };
        };
        let index = answer.index;
        if self.is_missing_container() {
            return Error::NotFound {
                what: target.container.to_owned(),
            };
        }
        match (answer.status, answer.code.as_str()) {
            (_, "EntityAlreadyExists" | "BlobAlreadyExists") => Error::AlreadyExists { what: item(), index },
            (404, _) if target.item.is_empty() => Error::NotFound {
                what: target.container.to_owned(),
            },
            (404 | 412, _) | (_, "PopReceiptMismatch") => Error::PreconditionFailed { what: item(), index },
            (401 | 403, _) => Error::Forbidden {
                what,
                source: Box::new(self),
            },
            (429, _) | (503, "ServerBusy") => Error::Throttled { source: Box::new(self) },
            // Too large for the service although it passed our own checks, which are the stricter ones.
            (413, _) | (_, "EntityTooLarge" | "PropertyValueTooLarge" | "RequestBodyTooLarge") => Error::TooLarge {
                what: item(),
                size: 0,
                limit: 0,
                unit: "bytes",
            },
            // Down (408, 5xx), or being deleted (409).
            (408 | 409 | 500.., _) => Error::Unavailable {
                what,
                source: Box::new(self),
            },
            // A request that we should not have sent, and that will not get better by repeating it.
            _ => Error::Malformed {
                what: format!("{what}: {self}"),
                expected: "storage request",
            },
        }
    }
}

/// A service code, or nothing when the text is not one.
pub(super) fn code(text: &str) -> String {
    if text.len() <= 80 && text.bytes().all(|b| b.is_ascii_alphanumeric()) && !text.bytes().all(|b| b.is_ascii_digit())
    {
        text.to_owned()
    } else {
        String::new()
    }
}

/// The service's name for the request, which its operators can look up.
pub(super) fn request_id(headers: &Headers) -> String {
    let id = headers
        .get_optional_str(&HeaderName::from_static("x-ms-request-id"))
        .unwrap_or_default();
    id.chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .take(64)
        .collect()
}

fn is_transport(error: &SdkError) -> bool {
    let mut source = StdError::source(error);
    while let Some(inner) = source {
        if let Some(inner) = inner.downcast_ref::<SdkError>()
            && matches!(inner.kind(), ErrorKind::Connection | ErrorKind::Io)
        {
            return true;
        }
        source = inner.source();
    }
    false
}

/// An error and its sources in one line, without the query of any address.
fn chain(error: &dyn StdError) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = without_queries(&error.to_string());
        if !texts.iter().any(|earlier| earlier.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ").chars().take(500).collect()
}

/// Cuts every `?…` up to the next blank, quote or bracket: signatures travel in queries.
fn without_queries(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut inside = false;
    for c in text.chars() {
        match c {
            '?' => inside = true,
            ' ' | '\n' | '\t' | '"' | '\'' | ')' | '>' => inside = false,
            _ => {}
        }
        if !inside {
            out.push(if c.is_control() { ' ' } else { c });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_cut() {
        let text = "error sending request for url (http://127.0.0.1:1/x?sv=1&sig=SECRET) because \"/a?b\"";
        assert_eq!(
            without_queries(text),
            "error sending request for url (http://127.0.0.1:1/x) because \"/a\""
        );
    }

    #[test]
    fn codes_are_words() {
        assert_eq!(code("TableNotFound"), "TableNotFound");
        assert_eq!(code("404"), "");
        assert_eq!(code("a b"), "");
    }
}
