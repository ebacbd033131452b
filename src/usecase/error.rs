//! What an operation can answer instead of its output.

use crate::error::{Coded, Finding, Kind};
use crate::runner::RunnerError;
use crate::runner::bundle::BundleError;
use crate::runner::environments::EnvironmentError;
use crate::store;
use crate::store::repo::{bundles, identity, keys};
use crate::tenancy;

/// Why an operation was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Storage.
    #[error("storage failed")]
    Store(#[from] store::Error),
    /// Organizations and people.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// Function keys.
    #[error(transparent)]
    Key(#[from] keys::Error),
    /// Python.
    #[error("the workers failed")]
    Runner(#[from] RunnerError),
    /// The scope may not.
    #[error(transparent)]
    Denied(#[from] tenancy::Denied),
    /// There is no scope.
    #[error(transparent)]
    Refused(#[from] tenancy::Refused),
    /// The workspace can't be used.
    #[error("the workspace can't be used")]
    Workspace(#[from] BundleError),
    /// Its packages can't be used.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// Anything that the caller can mend.
    #[error("{detail}")]
    Request {
        /// What to do about it.
        kind: Kind,
        /// The public code.
        code: &'static str,
        /// One sentence.
        detail: String,
        /// The next step.
        hint: Option<String>,
        /// Everything that is wrong.
        findings: Vec<Finding>,
    },
    /// Somebody else changed it first; says what is there now.
    #[error("{detail}")]
    Outdated {
        /// The public code.
        code: &'static str,
        /// One sentence.
        detail: String,
        /// The next step.
        hint: String,
        /// What is there now: its tag, who has written it, when.
        current: Box<serde_json::Value>,
    },
}

impl Error {
    /// Something that does not exist here.
    pub fn not_found(code: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Request {
            kind: Kind::NotFound,
            code,
            detail: detail.into(),
            hint: Some(hint.into()),
            findings: Vec::new(),
        }
    }

    /// A request that is wrong.
    pub fn invalid(
        code: &'static str,
        detail: impl Into<String>,
        hint: impl Into<String>,
        findings: Vec<Finding>,
    ) -> Self {
        Self::Request {
            kind: Kind::Invalid,
            code,
            detail: detail.into(),
            hint: Some(hint.into()),
            findings,
        }
    }

    /// Why a page could not be read. What storage finds malformed there is the cursor, which is the caller's.
    pub(super) fn of_page(error: store::Error, with_cursor: bool) -> Self {
        match error {
            store::Error::Malformed { .. } if with_cursor => {
                let message = "`cursor` is not one that a page has given";
                let finding = Finding::new("query:cursor", "invalid", message);
                let hint = "begin without a cursor, and give each `nextCursor` to the same query";
                Self::invalid("parameter_invalid", message, hint, vec![finding])
            }
            error => error.into(),
        }
    }

    /// A state that forbids it.
    pub fn conflict(code: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Request {
            kind: Kind::Conflict,
            code,
            detail: detail.into(),
            hint: Some(hint.into()),
            findings: Vec::new(),
        }
    }

    /// Something that is not there right now.
    pub fn unavailable(code: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Request {
            kind: Kind::Unavailable,
            code,
            detail: detail.into(),
            hint: Some(hint.into()),
            findings: Vec::new(),
        }
    }
}

impl From<bundles::Error> for Error {
    fn from(error: bundles::Error) -> Self {
        let detail = error.to_string();
        match error {
            bundles::Error::Store(error) => error.into(),
            bundles::Error::Untrusted(_) => Self::unavailable(
                "bundle_untrusted",
                detail,
                "publish it again (`weft publish`), and say anew what is to run (`weft bundles activate BUNDLE`, or `folder`); after a \
                 change of the signing key both are needed",
            ),
            bundles::Error::Damaged(_) => Self::unavailable(
                "bundle_damaged",
                detail,
                "publish the same files again (`weft publish`), which replaces the archive; or let another run: `weft bundles activate \
                 BUNDLE`, or `folder`",
            ),
            bundles::Error::Full => Self::conflict("bundles_full", detail, "delete some: `weft bundles prune`"),
        }
    }
}

impl Coded for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Store(error) => error.kind(),
            Self::Identity(error) => error.kind(),
            Self::Key(error) => error.kind(),
            Self::Runner(error) => error.kind(),
            Self::Denied(error) => error.kind(),
            Self::Refused(error) => error.kind(),
            Self::Workspace(_) => Kind::Unavailable,
            Self::Environment(error) => error.kind(),
            Self::Request { kind, .. } => *kind,
            Self::Outdated { .. } => Kind::PreconditionFailed,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Store(error) => error.code(),
            Self::Identity(error) => error.code(),
            Self::Key(error) => error.code(),
            Self::Runner(error) => error.code(),
            Self::Denied(error) => error.code(),
            Self::Refused(error) => error.code(),
            Self::Workspace(_) => "workspace_unavailable",
            Self::Environment(error) => error.code(),
            Self::Request { code, .. } | Self::Outdated { code, .. } => code,
        }
    }

    fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Identity(error) => error.hint(),
            Self::Key(error) => error.hint(),
            Self::Runner(error) => error.hint(),
            Self::Denied(error) => error.hint(),
            Self::Refused(error) => error.hint(),
            Self::Workspace(error) => Some(format!(
                "{}; the log of the instance says where; `WEFT_WORKSPACE` names another folder",
                error.told()
            )),
            Self::Environment(error) => error.hint(),
            Self::Request { hint, .. } => hint.clone(),
            Self::Outdated { hint, .. } => Some(hint.clone()),
        }
    }

    fn findings(&self) -> &[Finding] {
        match self {
            Self::Request { findings, .. } => findings,
            Self::Environment(error) => error.findings(),
            _ => &[],
        }
    }
}
