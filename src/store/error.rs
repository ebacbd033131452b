//! What can go wrong below the ports, named by the caller's next move; a backend's own error stays below as the source.

use crate::domain::RunId;
use crate::error::{Coded, Kind};

/// The cause in the backend's words, for the log only.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// A failed storage operation. `Display` never contains a value, a key's secret part or a connection string.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The table, queue or container does not exist. (A missing row or blob is `None`, not an error.)
    #[error("`{what}` does not exist")]
    NotFound {
        /// The name that was looked for.
        what: String,
    },
    /// An insert met something that is there already.
    #[error("`{what}` exists already")]
    AlreadyExists {
        /// The row or blob.
        what: String,
        /// The operation of the batch that met it.
        index: usize,
    },
    /// The ETag did not match: somebody else wrote first, or the row is gone.
    #[error("`{what}` was changed by somebody else")]
    PreconditionFailed {
        /// The row, blob or message.
        what: String,
        /// The operation of the batch that met it.
        index: usize,
    },
    /// Over a limit of the storage service; found before anything is sent.
    #[error("{what} is {size} {unit}, over the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: String,
        /// How large it is.
        size: usize,
        /// How large it may be.
        limit: usize,
        /// `bytes`, `operations`, `properties`.
        unit: &'static str,
    },
    /// A name or key that the storage service refuses; found before anything is sent.
    #[error("`{what}` is not a possible {expected}")]
    Malformed {
        /// The text.
        what: String,
        /// What was expected.
        expected: &'static str,
    },
    /// The service asks for fewer requests.
    #[error("storage is throttling requests")]
    Throttled {
        /// The backend's error.
        #[source]
        source: Source,
    },
    /// The service can't be reached, answers with a server error, or the disk is full.
    #[error("storage is unavailable ({what})")]
    Unavailable {
        /// The operation, without any value.
        what: String,
        /// The backend's error.
        #[source]
        source: Source,
    },
    /// The service refuses our credential.
    #[error("storage refuses the credential ({what})")]
    Forbidden {
        /// The operation, without any value.
        what: String,
        /// The backend's error.
        #[source]
        source: Source,
    },
    /// What was stored can't be read: a wrong type, a missing property, a digest that differs.
    #[error("stored data can't be read: {what}")]
    Corrupt {
        /// What is wrong with it.
        what: String,
    },
    /// There is a run, and what is stored of it can't be read.
    #[error("run `{run}` can't be read: {what}")]
    Unreadable {
        /// The run.
        run: RunId,
        /// What is wrong with it.
        what: String,
    },
}

impl Error {
    /// Whether a row or blob was already there.
    #[must_use]
    pub const fn is_conflict(&self) -> bool {
        matches!(self, Self::AlreadyExists { .. } | Self::PreconditionFailed { .. })
    }

    /// An error of unreadable data.
    pub fn corrupt(what: impl Into<String>) -> Self {
        Self::Corrupt { what: what.into() }
    }

    /// What can't be read is a run's, so that nobody can go on with it.
    #[must_use]
    pub fn of_run(self, run: &RunId) -> Self {
        match self {
            Self::Corrupt { what } => Self::Unreadable { run: run.clone(), what },
            other => other,
        }
    }
}

impl Coded for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::NotFound { .. } | Self::Malformed { .. } | Self::Corrupt { .. } => Kind::Internal,
            Self::AlreadyExists { .. } | Self::Unreadable { .. } => Kind::Conflict,
            Self::PreconditionFailed { .. } => Kind::PreconditionFailed,
            Self::TooLarge { .. } => Kind::TooLarge,
            Self::Throttled { .. } => Kind::Throttled,
            Self::Unavailable { .. } | Self::Forbidden { .. } => Kind::Unavailable,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NotFound { .. } => "storage_not_prepared",
            Self::Malformed { .. } | Self::Corrupt { .. } => "internal",
            Self::AlreadyExists { .. } | Self::PreconditionFailed { .. } => "conflict",
            Self::TooLarge { .. } => "too_large",
            Self::Unreadable { .. } => "run_unreadable",
            Self::Throttled { .. } => "storage_throttled",
            Self::Unavailable { .. } => "storage_unavailable",
            Self::Forbidden { .. } => "storage_forbidden",
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { .. } => Some("run `weft seed` (development) or create the organization first".into()),
            Self::Throttled { .. } | Self::Unavailable { .. } => Some("repeat the request after `Retry-After`".into()),
            Self::Forbidden { .. } => Some(
                "check the storage account's key, SAS or role assignments, or those of the key vault: `weft doctor`"
                    .into(),
            ),
            Self::Unreadable { run, .. } => Some(format!(
                "end it with `POST /api/runs/{run}/cancel`; or, when what is stored was mended or a newer version is back, let it \
                 go on with `POST /api/runs/{run}/requeue`"
            )),
            _ => None,
        }
    }
}
