//! The vocabulary: values that cannot be wrong. No I/O, no async. Terms are those of `docs/glossary.md`.

mod api_key;
mod flow;
mod host_pattern;
mod id;
mod layer;
mod limits;
mod log_line;
pub mod modules;
mod network_use;
mod outcome;
mod payload;
mod policy;
mod retry;
mod rights;
mod run;
mod text;
mod time;
mod workflow;

pub use api_key::{Secret, equal_in_constant_time};
pub use flow::{DependsOn, ItemFailure, Join, OnFailure, Phase};
pub use host_pattern::{HostError, HostPattern, HostSet, WEB_PORTS};
pub use id::{ArtifactId, AttemptId, IdError, KeyId, OrgId, RecordId, RunId, UserId, sha256_hex};
pub use layer::LAYERS;
pub use limits::{DeclaredLimits, Limits};
pub use log_line::LogLine;
pub use network_use::NetworkUse;
pub use outcome::{Outcome, StepError};
pub use payload::{ClaimCheck, INLINE_BYTES, Payload};
pub use policy::{
    Holder, LimitCeilings, ModulePolicy, NetworkMode, NetworkPolicy, Policy, Reason, Restricted, Subject, settle,
};
pub use retry::{Backoff, RetryPolicy};
pub use rights::{ModuleRules, Network, Rights, Tier, Trust};
pub use run::Status;
pub use text::{DisplayName, Email, Identity, SecretName, Slug, TextError};
pub use time::Timestamp;
pub use workflow::{Declared, OnCrash, Parameter, ParameterType};
