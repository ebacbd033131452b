//! Why a request is not let in: every code of authentication, in one list.

use crate::domain::{KeyId, OrgId, UserId};
use crate::error::{Coded, Finding, Kind};

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $kind:ident, $detail:literal, $hint:literal;)+) => {
        /// The codes of authentication.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $variant),+
        }

        impl Code {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// As callers see it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code),+ }
            }

            /// What the caller can do about it.
            #[must_use]
            pub const fn kind(self) -> Kind {
                match self { $(Self::$variant => Kind::$kind),+ }
            }

            /// What is wrong, where nothing more precise is known.
            #[must_use]
            pub const fn detail(self) -> &'static str {
                match self { $(Self::$variant => $detail),+ }
            }

            /// What to try next.
            #[must_use]
            pub const fn hint(self) -> &'static str {
                match self { $(Self::$variant => $hint),+ }
            }
        }
    };
}

codes! {
    /// Nothing that could authenticate anybody.
    CredentialsMissing = "credentials_missing", Denied,
        "the request carries no credential",
        "send a function key in `x-functions-key`, or sign in";
    /// The same credential twice, or two that differ.
    CredentialAmbiguous = "credential_ambiguous", Unauthenticated,
        "the request carries a credential more than once",
        "send it once: a function key in `x-functions-key` or in `code`, not two different ones";
    /// Longer than any credential is.
    CredentialTooLarge = "credential_too_large", Unauthenticated,
        "the credential is larger than any that is accepted",
        "a function key has at most 256 bytes, a client principal at most 32 KiB";
    /// No such key, or a development key where development isn't trusted: the answer doesn't tell which.
    KeyInvalid = "key_invalid", Unauthenticated,
        "the function key is not valid",
        "check the key with `weft keys list`; a development key works on localhost in development only";
    /// A key whose time is over.
    KeyExpired = "key_expired", Unauthenticated,
        "the function key has expired",
        "use the key that took its place, or create one: `weft keys create`";
    /// A key that was revoked.
    KeyRevoked = "key_revoked", Unauthenticated,
        "the function key was revoked",
        "create a new one: `weft keys create`";
    /// A principal header where nobody vouches for it.
    PrincipalNotTrusted = "principal_not_trusted", Unauthenticated,
        "nothing in front of this installation vouches for `X-MS-CLIENT-PRINCIPAL`",
        "the operator sets `WEFT_PRINCIPAL_SOURCE` to what signs users in; see docs/auth.md";
    /// A principal header that can't be read as one shape.
    PrincipalMalformed = "principal_malformed", Unauthenticated,
        "`X-MS-CLIENT-PRINCIPAL` can't be read",
        "it is the base64 of one JSON object, as Static Web Apps or App Service authentication make it";
    /// A principal in the shape of another source than the trusted one.
    PrincipalWrongShape = "principal_wrong_shape", Unauthenticated,
        "`X-MS-CLIENT-PRINCIPAL` has the shape of another source than the one that is trusted here",
        "the operator sets `WEFT_PRINCIPAL_SOURCE` to what signs users in; see docs/auth.md";
    /// Somebody is signed in whom Weft doesn't know.
    UserUnknown = "user_unknown", Denied,
        "you are signed in, but no user of this installation has your identity",
        "ask an administrator to add you";
    /// A user who is switched off.
    UserInactive = "user_inactive", Denied,
        "this user is switched off",
        "an administrator can switch it on again";
    /// `X-User-Id` that no audit record could show.
    UserHeaderMalformed = "user_header_malformed", Invalid,
        "`X-User-Id` is not 1 to 128 printable ASCII characters, given once",
        "leave it out, or send the id of the user on whose behalf you call";
    /// No organization named.
    OrganizationHeaderMissing = "organization_header_missing", Invalid,
        "the request names no organization",
        "send `X-Organization-Id`";
    /// A name that no organization can have.
    OrganizationHeaderMalformed = "organization_header_malformed", Invalid,
        "`X-Organization-Id` is not an organization id",
        "an organization id is 3 to 40 of a–z and 0–9";
    /// More than one organization named.
    OrganizationHeaderDuplicated = "organization_header_duplicated", Invalid,
        "the request names an organization more than once",
        "send `X-Organization-Id` once";
    /// What must be looked up can't be.
    AuthenticationUnavailable = "authentication_unavailable", Unavailable,
        "whether the caller may come in can't be looked up right now",
        "repeat the request after `Retry-After`";
    /// What was looked up can't be read.
    AuthenticationBroken = "authentication_broken", Internal,
        "what is stored about the caller or the organization can't be read",
        "the operator finds the reason in the log; `weft doctor` checks the storage";
}

/// What kind of credential decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CredentialKind {
    /// None was there.
    None,
    /// A function key.
    FunctionKey,
    /// `X-MS-CLIENT-PRINCIPAL`.
    ClientPrincipal,
    /// A Weft session.
    Session,
}

impl CredentialKind {
    /// As audit records show it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::FunctionKey => "function_key",
            Self::ClientPrincipal => "client_principal",
            Self::Session => "session",
        }
    }
}

/// Who tried, as far as it is known: for the audit record of the denial, never for the answer. Holds no credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempted {
    /// Which credential decided.
    pub credential: CredentialKind,
    /// Why, more openly than the answer says it.
    pub reason: String,
    /// The key, when there is such a one.
    pub key: Option<(KeyId, String)>,
    /// `X-User-Id` of a call with a key.
    pub claimed_user: Option<String>,
    /// The client principal, `issuer subject`; vouched for by nobody unless `user` is set too.
    pub identity: Option<String>,
    /// The user, when one was recognized.
    pub user: Option<UserId>,
    /// The organization that was asked for.
    pub organization: Option<OrgId>,
}

impl Attempted {
    /// Nothing but the kind of credential.
    #[must_use]
    pub const fn with(credential: CredentialKind) -> Self {
        Self {
            credential,
            reason: String::new(),
            key: None,
            claimed_user: None,
            identity: None,
            user: None,
            organization: None,
        }
    }
}

/// A request that is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    /// What the caller can do about it.
    pub kind: Kind,
    /// The public code.
    pub code: &'static str,
    /// What is wrong, in one sentence.
    pub detail: String,
    /// What to try next.
    pub hint: String,
    /// Whether the answer carries `WWW-Authenticate`: exactly when it is 401.
    pub www_authenticate: bool,
    /// The header that is wrong, where one is.
    pub findings: Vec<Finding>,
    /// For the audit record.
    pub audit: Box<Attempted>,
}

impl Refusal {
    /// In the words of the list.
    #[must_use]
    pub fn new(code: Code, audit: Attempted) -> Self {
        Self::saying(code, code.detail(), audit)
    }

    /// In words of one's own. They go to the caller.
    #[must_use]
    pub fn saying(code: Code, detail: impl Into<String>, audit: Attempted) -> Self {
        let detail = detail.into();
        let header = match code {
            Code::UserHeaderMalformed => Some("header:X-User-Id"),
            Code::OrganizationHeaderMissing
            | Code::OrganizationHeaderMalformed
            | Code::OrganizationHeaderDuplicated => Some("header:X-Organization-Id"),
            _ => None,
        };
        let findings = header.map(|at| Finding::new(at, code.as_str(), detail.clone()).hint(code.hint()));
        let mut audit = Box::new(audit);
        if audit.reason.is_empty() {
            audit.reason.clone_from(&detail);
        }
        Self {
            kind: code.kind(),
            code: code.as_str(),
            detail,
            hint: code.hint().to_owned(),
            www_authenticate: code.kind() == Kind::Unauthenticated,
            findings: findings.into_iter().collect(),
            audit,
        }
    }

    /// What another layer refused.
    #[must_use]
    pub fn of(error: &impl Coded, mut audit: Attempted) -> Self {
        audit.reason = error.to_string();
        Self {
            kind: error.kind(),
            code: error.code(),
            detail: error.to_string(),
            hint: error.hint().unwrap_or_default(),
            www_authenticate: error.kind() == Kind::Unauthenticated,
            findings: Vec::new(),
            audit: Box::new(audit),
        }
    }

    /// Storage failed while something was looked up. Nobody is let in then.
    #[must_use]
    pub fn unavailable(error: &impl Coded, mut audit: Attempted) -> Self {
        let code = match (error.kind(), error.code()) {
            (Kind::Internal, "storage_not_prepared") => Code::AuthenticationUnavailable,
            (Kind::Internal, _) => Code::AuthenticationBroken,
            _ => Code::AuthenticationUnavailable,
        };
        audit.reason = format!("{}: {error}", error.code());
        let mut refusal = Self::new(code, audit);
        if let (Code::AuthenticationUnavailable, Some(hint)) = (code, error.hint()) {
            refusal.hint = hint;
        }
        refusal
    }
}

impl Coded for Refusal {
    fn kind(&self) -> Kind {
        self.kind
    }

    fn code(&self) -> &'static str {
        self.code
    }

    fn hint(&self) -> Option<String> {
        (!self.hint.is_empty()).then(|| self.hint.clone())
    }

    fn findings(&self) -> &[Finding] {
        &self.findings
    }
}
