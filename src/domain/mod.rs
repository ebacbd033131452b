//! The vocabulary: values that cannot be wrong. No I/O, no async. Terms are those of `docs/glossary.md`.

mod admission;
mod api_key;
mod bundle;
mod cron;
mod flow;
mod graph;
mod host_pattern;
mod id;
mod json_text;
mod layer;
mod library;
mod limits;
mod log_line;
pub mod modules;
mod network_use;
mod node_type;
mod options;
mod outcome;
mod payload;
mod policy;
mod port;
mod profile;
mod recording;
mod retry;
mod revision;
mod rights;
mod run;
mod schedule;
mod text;
mod time;
mod workflow;
mod zone;

pub use admission::{Ask, Begins, ConcurrencyKey, OnConflict, Priority};
pub use api_key::{Secret, equal_in_constant_time};
pub use bundle::{BundleDigest, DigestError};
pub use cron::{Cron, CronProblem};
pub use flow::{DependsOn, ItemFailure, Join, OnFailure, Phase};
pub use graph::{
    Branch, Called, Calls, DEFAULT_ACTIVE, DEFAULT_AT_ONCE, DEFAULT_WITHIN_SECONDS, Edge, FARTHEST, FileAction,
    FileFormat, FileStore, Graph, MAX_ACTIVE, MAX_EDGES, MAX_ITEMS, MAX_ITERATIONS, MAX_LABEL, MAX_NEEDED, MAX_NODES,
    MAX_NOTES, MAX_RUN_SECONDS, MAX_STEP_SECONDS, MESSAGE, Node, NodeWork, Note, OnFalse, Position, Script, Size,
};
pub use host_pattern::{HostError, HostPattern, HostSet, WEB_PORTS};
pub use id::{
    ArtifactId, AttemptId, HookId, IdError, KeyId, OrgId, QueueTriggerId, RecordId, RunId, ScheduleId, UserId,
    sha256_hex,
};
pub use json_text::{ROUNDED_HINT, Rounded, read_json, rounded};
pub use layer::LAYERS;
pub use library::{
    LIBRARY_FUNCTION, LIBRARY_MODULE, LibraryVersion, NodeBody, NodeDocument, NodeState, NodeTypeName, NodeUse,
    NodeVersion, VersionError,
};
pub use limits::{DeclaredLimits, Limits};
pub use log_line::LogLine;
pub use network_use::NetworkUse;
pub use node_type::{BuiltInKind, Port, Setting, SettingKind, SettingOption, SettingOptions};
pub use options::OptionsFrom;
pub use outcome::{Outcome, StepError};
pub use payload::{ClaimCheck, INLINE_BYTES, Payload};
pub use policy::{
    Holder, LimitCeilings, ModulePolicy, NetworkMode, NetworkPolicy, Policy, Reason, Restricted, Subject, settle,
};
pub use port::{Fit, How, MAX_INLINE_BYTES, MAX_URL_BYTES, PortType, assignable, coerce, has_artifact, inline_bytes};
pub use profile::{Chosen, ChosenBy, Figures, Programs, SecurityProfile, stricter};
pub use recording::{
    RECORDING_SCHEMA, RecordedAnswer, RecordedCall, RecordedEntry, RecordedOutcome, RecordedRun, Recording, reduced,
};
pub use retry::{Backoff, RetryPolicy};
pub use revision::WorkflowRevision;
pub use rights::{ModuleRules, Network, Rights, Tier, Trust};
pub use run::Status;
pub use schedule::{CatchUp, CatchUpPolicy, Dst, FireTime, Missed, Overlap, Shown, Timing};
pub use text::{DisplayName, Email, Identity, SecretName, Slug, TextError, edit_distance};
pub use time::Timestamp;
pub use workflow::{Declared, DeclaredAs, OnCrash, Parameter, ParameterType};
pub use zone::Zone;
