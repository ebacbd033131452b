//! One record: what happened, who did it, to what. The part that points at a person is kept apart from the rest.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::redact;
use super::seal::Subject;
use crate::authz::{Caller, Origin, Principal, Tier};
use crate::domain::{IdError, OrgId, RecordId, Timestamp, UserId};

/// Whose records: an organization's are in its own table and go with it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Owner {
    /// No organization's: sign-ins, keys, organizations themselves, callers who never got into one.
    Platform,
    /// One organization's.
    Organization(OrgId),
}

impl fmt::Display for Owner {
    /// `-` or the organization's id, which is never `-`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Platform => f.write_str("-"),
            Self::Organization(org) => org.fmt(f),
        }
    }
}

impl FromStr for Owner {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        if text == "-" {
            Ok(Self::Platform)
        } else {
            text.parse().map(Self::Organization)
        }
    }
}

impl Serialize for Owner {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Owner {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

macro_rules! texts {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant),+
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// As written in records.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// From the text of `as_str`.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == text)
            }
        }
    };
}

texts!(
    /// How much attention a record wants.
    Level {
        /// It belongs to the day's work.
        Info = "info",
        /// It is allowed or refused as it should be, and somebody should know.
        Warning = "warning",
        /// Somebody should look at it now.
        Critical = "critical",
    }
);

texts!(
    /// What came of it.
    Outcome {
        /// It may happen; said before it does.
        Allowed = "allowed",
        /// It may not.
        Denied = "denied",
        /// It was tried and did not come about.
        Failed = "failed",
        /// It has happened.
        Succeeded = "succeeded",
    }
);

macro_rules! events {
    ($($(#[$vdoc:meta])* $variant:ident = $text:literal, $level:ident, $outcome:ident;)+) => {
        texts!(
            /// What happened: a closed list, so that a record's meaning doesn't depend on who wrote it. Names stay for ever;
            /// new ones are added at the end of their group.
            Event { $($(#[$vdoc])* $variant = $text),+ }
        );

        impl Event {
            /// The level of its records unless one asks for more.
            #[must_use]
            pub const fn level(self) -> Level {
                match self { $(Self::$variant => Level::$level),+ }
            }

            /// The outcome of its records unless one says another.
            #[must_use]
            pub const fn outcome(self) -> Outcome {
                match self { $(Self::$variant => Outcome::$outcome),+ }
            }
        }
    };
}

events! {
    /// A function key opened the door, past user authentication.
    KeyBypass = "key.bypass", Warning, Allowed;
    /// A caller was refused: no credential, a bad one, a foreign organization, a verb that it may not use.
    AccessDenied = "access.denied", Warning, Denied;
    /// A platform administrator crossed into an organization.
    AccessCrossed = "access.crossed", Warning, Allowed;
    /// Somebody asked too often and was slowed down.
    AccessThrottled = "access.throttled", Warning, Denied;
    /// Somebody signed in.
    SignInSucceeded = "sign_in.succeeded", Info, Succeeded;
    /// Somebody tried to sign in and was refused.
    SignInFailed = "sign_in.failed", Warning, Failed;
    /// A session was ended by its person or by an administrator.
    SessionRevoked = "session.revoked", Info, Succeeded;
    /// A refresh token came back that was used up: somebody else may hold it; the session was ended.
    SessionReused = "session.reused", Critical, Denied;
    /// A password was set or changed.
    PasswordChanged = "password.changed", Info, Succeeded;

    /// A run was started.
    RunStarted = "run.started", Info, Succeeded;
    /// A run came to its end, whatever end.
    RunFinished = "run.finished", Info, Succeeded;
    /// Somebody asked for a run to end.
    RunCancelRequested = "run.cancel_requested", Info, Succeeded;
    /// A run was ended on request.
    RunCancelled = "run.cancelled", Info, Succeeded;
    /// A run was resumed from where it failed.
    RunResumed = "run.resumed", Info, Succeeded;
    /// A run was taken over from an instance that went away.
    RunTakenOver = "run.taken_over", Warning, Succeeded;
    /// A message about a run failed too often and was set aside.
    MessageQuarantined = "message.quarantined", Warning, Failed;
    /// A run was deleted with its results.
    RunDeleted = "run.deleted", Info, Succeeded;
    /// A message about a run that was set aside was put back.
    MessageRequeued = "message.requeued", Info, Succeeded;
    /// A step was not run: its profile's layers, rights or limits don't allow it here.
    StepRefused = "step.refused", Warning, Denied;
    /// A running step asked for something that it may not have.
    StepOverreached = "step.overreached", Warning, Denied;
    /// A person let a waiting step go on.
    StepApproved = "step.approved", Info, Succeeded;
    /// A person refused a waiting step.
    StepRejected = "step.rejected", Info, Succeeded;
    /// A link was made with which somebody decides on a waiting step without signing in.
    ApprovalLinkMade = "approval.link_made", Info, Succeeded;
    /// A run can't be read and was set aside: nobody goes on with it.
    RunSetAside = "run.set_aside", Critical, Failed;
    /// An effect manifest was made without anything being run.
    PlanMade = "plan.made", Info, Succeeded;

    /// Workspace code tries to import what it may not.
    ImportViolation = "import.violation", Warning, Denied;
    /// A protected file differs from its release.
    EngineChanged = "engine.changed", Critical, Failed;
    /// A code bundle was published.
    BundlePublished = "bundle.published", Info, Succeeded;
    /// A code bundle became the one that new runs use.
    BundleActivated = "bundle.activated", Info, Succeeded;
    /// The code that new runs used before was brought back.
    BundleRolledBack = "bundle.rolled_back", Warning, Succeeded;
    /// A code bundle was deleted.
    BundleDeleted = "bundle.deleted", Warning, Succeeded;

    /// An organization was made.
    OrganizationCreated = "organization.created", Info, Succeeded;
    /// An organization was renamed, switched on or off, or given other limits.
    OrganizationChanged = "organization.changed", Warning, Succeeded;
    /// An organization was deleted with everything in it.
    OrganizationDeleted = "organization.deleted", Critical, Succeeded;
    /// A user was made.
    UserCreated = "user.created", Info, Succeeded;
    /// A user was changed.
    UserChanged = "user.changed", Info, Succeeded;
    /// A user was deleted.
    UserDeleted = "user.deleted", Warning, Succeeded;
    /// A person became a platform administrator or stopped being one.
    AdministratorChanged = "administrator.changed", Critical, Succeeded;
    /// A user became a member of an organization.
    MemberAdded = "member.added", Info, Succeeded;
    /// A member got another role.
    MemberChanged = "member.changed", Info, Succeeded;
    /// A user is no longer a member of an organization.
    MemberRemoved = "member.removed", Info, Succeeded;
    /// A user was assigned to a manager.
    AssignmentAdded = "assignment.added", Info, Succeeded;
    /// A user is no longer assigned to a manager.
    AssignmentRemoved = "assignment.removed", Info, Succeeded;

    /// A function key was made.
    KeyCreated = "key.created", Warning, Succeeded;
    /// A function key was used for the first time.
    KeyFirstUsed = "key.first_used", Info, Succeeded;
    /// A function key's name, organizations, scopes or expiry were changed.
    KeyChanged = "key.changed", Warning, Succeeded;
    /// A function key got a successor; both are good for a while.
    KeyRotated = "key.rotated", Warning, Succeeded;
    /// A function key was revoked.
    KeyRevoked = "key.revoked", Warning, Succeeded;

    /// A configuration entry was set.
    ConfigChanged = "config.changed", Info, Succeeded;
    /// A configuration entry was deleted.
    ConfigDeleted = "config.deleted", Info, Succeeded;
    /// A secret was set; its value is nowhere in the record.
    SecretChanged = "secret.changed", Warning, Succeeded;
    /// A secret was deleted.
    SecretDeleted = "secret.deleted", Warning, Succeeded;
    /// A security profile was changed or given to somebody.
    ProfileChanged = "profile.changed", Warning, Succeeded;
    /// A quota was changed.
    QuotaChanged = "quota.changed", Info, Succeeded;
    /// Something was refused because a quota is used up.
    QuotaExceeded = "quota.exceeded", Warning, Denied;
    /// What an organization or the platform allows its steps to do was changed.
    PolicyChanged = "policy.changed", Warning, Succeeded;
    /// A run was not started because its code declares what a policy refuses.
    PolicyRefused = "policy.refused", Warning, Denied;
    /// The code of a run that is held to a plan asked for something that is not in it.
    PlanExceeded = "plan.exceeded", Warning, Denied;
    /// An attempt got a secret's value, or had it sent to a host; the first time of each attempt.
    SecretUsed = "secret.used", Info, Allowed;
    /// An attempt wanted a secret that it may not have, or wanted it sent where it may not go.
    SecretRefused = "secret.refused", Warning, Denied;
    /// Secrets were sealed anew with another key.
    SecretsResealed = "secret.resealed", Warning, Succeeded;

    /// A draft of a workflow was saved.
    WorkflowChanged = "workflow.changed", Info, Succeeded;
    /// A revision of a workflow was published.
    WorkflowPublished = "workflow.published", Info, Succeeded;
    /// A workflow was deleted.
    WorkflowDeleted = "workflow.deleted", Info, Succeeded;
    /// A node type was made or changed.
    NodeTypeChanged = "node_type.changed", Info, Succeeded;
    /// A node type was trusted more or less than before.
    NodeTypeTrusted = "node_type.trusted", Warning, Succeeded;
    /// A schedule was made, changed or deleted.
    ScheduleChanged = "schedule.changed", Info, Succeeded;
    /// A webhook was changed.
    HookChanged = "hook.changed", Info, Succeeded;
    /// A delivery to a webhook was refused: its signature is bad, or it is too old.
    HookRefused = "hook.refused", Warning, Denied;
    /// A webhook was made.
    HookCreated = "hook.created", Warning, Succeeded;
    /// A webhook got another secret; the old one is good for a while.
    HookRotated = "hook.rotated", Warning, Succeeded;
    /// A webhook was deleted.
    HookDeleted = "hook.deleted", Warning, Succeeded;
    /// Fire times of a schedule led to no run, as its policies say: the run before had not ended, or they came too late.
    ScheduleSkipped = "schedule.skipped", Info, Failed;
    /// A fire time of a schedule led to no run because none could be started.
    ScheduleFailed = "schedule.failed", Warning, Failed;
    /// A schedule was switched off because it failed too often.
    ScheduleDisabled = "schedule.disabled", Warning, Succeeded;
    /// A queue trigger was made, with its queue.
    QueueTriggerCreated = "queue_trigger.created", Warning, Succeeded;
    /// A queue trigger was changed.
    QueueTriggerChanged = "queue_trigger.changed", Info, Succeeded;
    /// A queue trigger was deleted, with its queue and all messages in it.
    QueueTriggerDeleted = "queue_trigger.deleted", Warning, Succeeded;
    /// An address was given out at which messages can be sent to a trigger's queue.
    QueueTriggerOpened = "queue_trigger.opened", Warning, Succeeded;
    /// A message was sent to a trigger's queue through the API.
    QueueMessageSent = "queue_message.sent", Info, Succeeded;
    /// A message could not start a run and was set aside.
    QueueMessageSetAside = "queue_message.set_aside", Warning, Failed;
    /// A message that was set aside was put back, and has started its run.
    QueueMessagePutBack = "queue_message.put_back", Info, Succeeded;
    /// A message that was set aside was dropped.
    QueueMessageDropped = "queue_message.dropped", Warning, Succeeded;
    /// A draft of a workflow was thrown away.
    WorkflowDraftDiscarded = "workflow.draft_discarded", Info, Succeeded;
    /// An earlier revision of a workflow was made the one that is called.
    WorkflowRolledBack = "workflow.rolled_back", Warning, Succeeded;
    /// A workflow can't be called any more.
    WorkflowArchived = "workflow.archived", Warning, Succeeded;
    /// A workflow that was archived can be called again.
    WorkflowUnarchived = "workflow.unarchived", Info, Succeeded;
    /// The commands and requests of a workflow's revision are trusted more or less than before.
    WorkflowTrusted = "workflow.trusted", Warning, Succeeded;
    /// A workflow was assigned to somebody, who sees it from then on, and its runs.
    WorkflowAssigned = "workflow.assigned", Info, Succeeded;
    /// A workflow is no longer assigned to somebody.
    WorkflowUnassigned = "workflow.unassigned", Info, Succeeded;
    /// A version of a node type was published; from then on it does not change.
    NodeTypePublished = "node_type.published", Warning, Succeeded;
    /// Users of a version of a node type are told to use something else.
    NodeTypeDeprecated = "node_type.deprecated", Info, Succeeded;
    /// The draft of a node type was deleted.
    NodeTypeDeleted = "node_type.deleted", Info, Succeeded;
    /// Code of a node type was run once to try it.
    NodeTypeTested = "node_type.tested", Info, Allowed;
    /// What is stored of a version of a node type is not what was published; it was not run.
    NodeTypeTampered = "node_type.tampered", Critical, Denied;

    /// The installation's sample data was written.
    SeedApplied = "seed.applied", Info, Succeeded;
    /// Stored data was converted to another version.
    MigrationApplied = "migration.applied", Warning, Succeeded;
    /// What is older than an organization keeps was deleted.
    RetentionApplied = "retention.applied", Info, Succeeded;
    /// Blobs that nothing refers to any more were deleted.
    BlobsCollected = "blobs.collected", Info, Succeeded;
    /// A person's data was exported.
    PersonExported = "person.exported", Warning, Succeeded;
    /// A person's data was erased.
    PersonErased = "person.erased", Warning, Succeeded;
    /// Audit records were exported.
    AuditExported = "audit.exported", Info, Succeeded;
    /// A chain of audit records doesn't verify.
    AuditBroken = "audit.broken", Critical, Failed;

    /// A writer goes on in a new chain; names the last one's head.
    ChainOpened = "chain.opened", Info, Succeeded;
    /// The heads of chains as they were at this time.
    ChainSealed = "chain.sealed", Info, Succeeded;
}

/// Who did it, without what a person could be recognised by: people have their id only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// `user`, `service`, `system`, `operator` or `anonymous`.
    pub kind: String,
    /// The principal's stable id (`usr_…`, `key:key_…`, `system:…`, `operator`), or `anonymous`.
    pub id: String,
    /// By which door; none for who came in by none.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tier: Option<Tier>,
    /// The name of a key or of a part of Weft; a person's is in [`Personal`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub name: Option<String>,
}

/// To what it was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The kind of thing, at most 50 characters.
    pub kind: String,
    /// Which one, at most 200 characters; an id, never an e-mail address.
    pub id: String,
}

/// The part of a record that is stored readable and that stays when a person is erased.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plain {
    /// The record's id.
    pub id: RecordId,
    /// Whose record it is.
    pub owner: Owner,
    /// When it happened, by the clock of the instance that says so.
    pub at: Timestamp,
    /// How much attention it wants.
    pub level: Level,
    /// The event's name. Text, so that a version that doesn't know the event still lists it; see [`Plain::known_event`].
    pub event: String,
    /// What came of it.
    pub outcome: Outcome,
    /// Who did it.
    pub principal: Actor,
    /// The name of the function key, where one was used.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key: Option<String>,
    /// To what.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resource: Option<Target>,
    /// What became what; redacted, at most [`redact::MAX_JSON_BYTES`] as text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub changes: Option<Value>,
    /// What else there is to say; redacted, at most [`redact::MAX_JSON_BYTES`] as text.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<Value>,
    /// The request's id, at most 64 characters.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request_id: Option<String>,
    /// Method and path, at most 200 characters.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub endpoint: Option<String>,
}

impl Plain {
    /// The event, unless it is of a later version.
    #[must_use]
    pub fn known_event(&self) -> Option<Event> {
        Event::parse(&self.event)
    }
}

/// The part of a record that points at the person who acted; stored encrypted with that person's key.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Personal {
    /// The person's name or e-mail address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// For whom a key's caller claims to act, or as whom a refused caller tried to sign in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claimed_user: Option<String>,
    /// The client principal that came along with a key: `issuer subject`, unverified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub also_principal: Option<String>,
    /// The source address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Whether the address is more than a header's word.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub address_verified: bool,
    /// `User-Agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
}

impl Personal {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A record that is not yet sealed. Everything in it is already redacted and bounded.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub(super) plain: Plain,
    pub(super) personal: Personal,
    pub(super) subject: Subject,
    pub(super) about: Option<(Subject, Value)>,
}

impl Record {
    /// A record about what a caller from outside did.
    #[must_use]
    pub fn of(id: RecordId, at: Timestamp, event: Event, caller: &Caller) -> Self {
        let mut record = Self::by(id, at, event, &caller.principal, caller.tier).came_from(&caller.origin);
        record.personal.also_principal = some_line(caller.also_principal.as_deref().unwrap_or_default(), 400);
        record
    }

    /// A record about what a principal did whose request isn't at hand: Weft itself, the command line, a use case that has
    /// only its scope (`scope.principal()`, `scope.tier()`).
    #[must_use]
    pub fn by(id: RecordId, at: Timestamp, event: Event, principal: &Principal, tier: Tier) -> Self {
        let mut actor = Actor {
            kind: principal.kind().to_owned(),
            id: redact::line(&principal.id(), 100),
            tier: Some(tier),
            name: None,
        };
        let mut personal = Personal::default();
        let mut key = None;
        let subject = match principal {
            Principal::User { id, name, .. } => {
                personal.person = some_line(name, 200);
                Subject::user(id)
            }
            Principal::Service {
                key: id,
                name,
                claimed_user,
                ..
            } => {
                actor.name = some_label(name, 100);
                key.clone_from(&actor.name);
                personal.claimed_user = some_line(claimed_user.as_deref().unwrap_or_default(), 200);
                personal
                    .claimed_user
                    .as_deref()
                    .map_or_else(|| Subject::key(id), Subject::claimed)
            }
            Principal::System { .. } | Principal::Hook { .. } | Principal::Operator => {
                actor.name = some_label(principal.name(), 100);
                Subject::unnamed(at)
            }
        };
        Self::with(id, at, event, actor, key, personal, subject)
    }

    /// A record about a caller who never became a principal.
    #[must_use]
    pub fn anonymous(id: RecordId, at: Timestamp, event: Event, origin: &Origin) -> Self {
        let actor = Actor {
            kind: "anonymous".into(),
            id: "anonymous".into(),
            tier: None,
            name: None,
        };
        Self::with(id, at, event, actor, None, Personal::default(), Subject::unnamed(at)).came_from(origin)
    }

    fn with(
        id: RecordId,
        at: Timestamp,
        event: Event,
        principal: Actor,
        key: Option<String>,
        personal: Personal,
        subject: Subject,
    ) -> Self {
        let plain = Plain {
            id,
            owner: Owner::Platform,
            at,
            level: event.level(),
            event: event.as_str().to_owned(),
            outcome: event.outcome(),
            principal,
            key,
            resource: None,
            changes: None,
            detail: None,
            request_id: None,
            endpoint: None,
        };
        Self {
            plain,
            personal,
            subject,
            about: None,
        }
    }

    /// From where, and in which request.
    #[must_use]
    pub fn came_from(mut self, origin: &Origin) -> Self {
        self.personal.address = some_line(&origin.address, 64);
        self.personal.address_verified = self.personal.address.is_some() && origin.address_verified;
        self.personal.agent = some_line(&origin.agent, 200);
        self.plain.request_id = some_label(&origin.request_id, 64);
        self.plain.endpoint = Some(redact::endpoint(&origin.endpoint)).filter(|text| !text.is_empty());
        self
    }

    /// At least this level: an event's own is never lowered.
    #[must_use]
    pub fn level(mut self, level: Level) -> Self {
        self.plain.level = self.plain.level.max(level);
        self
    }

    /// What came of it, where it is not the event's usual outcome.
    #[must_use]
    pub fn outcome(mut self, outcome: Outcome) -> Self {
        self.plain.outcome = outcome;
        self
    }

    /// To what. The id must not be a person's name or address; one that looks so is replaced.
    #[must_use]
    pub fn resource(mut self, kind: &str, id: &str) -> Self {
        self.plain.resource = Some(Target {
            kind: redact::label(kind, 50),
            id: redact::label(id, 200),
        });
        self
    }

    /// What became what: `{"name": {"from": …, "to": …}}` by custom. Redacted and cut.
    #[must_use]
    pub fn changes(mut self, changes: &Value) -> Self {
        self.plain.changes = Some(redact::json(changes));
        self
    }

    /// What else there is to say. Redacted and cut.
    #[must_use]
    pub fn detail(mut self, detail: &Value) -> Self {
        self.plain.detail = Some(redact::json(detail));
        self
    }

    /// What there is to say about a person who is not the one acting: an e-mail address that was changed, a name. It is
    /// encrypted with *that* person's key, and their erasure takes it. Secrets are replaced, personal data stay, and it is
    /// cut at [`redact::MAX_JSON_BYTES`].
    #[must_use]
    pub fn about(mut self, user: &UserId, data: &Value) -> Self {
        self.about = Some((Subject::user(user), redact::json_about(data)));
        self
    }

    /// A person's e-mail address beside the name.
    #[must_use]
    pub fn person(mut self, text: &str) -> Self {
        self.personal.person = some_line(text, 200);
        self
    }

    /// As whom a refused caller tried to sign in.
    #[must_use]
    pub fn claimed(mut self, text: &str) -> Self {
        self.personal.claimed_user = some_line(text, 200);
        self
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> &RecordId {
        &self.plain.id
    }

    /// The readable part. The owner is set when it is sealed.
    #[must_use]
    pub const fn plain(&self) -> &Plain {
        &self.plain
    }

    /// The part that is encrypted.
    #[must_use]
    pub const fn personal(&self) -> &Personal {
        &self.personal
    }

    /// With whose key the personal part is encrypted; nothing when there is none.
    #[must_use]
    pub fn actor_subject(&self) -> Option<&Subject> {
        (!self.personal.is_empty()).then_some(&self.subject)
    }

    /// With whose key the part about another person is encrypted.
    #[must_use]
    pub fn about_subject(&self) -> Option<&Subject> {
        self.about.as_ref().map(|(subject, _)| subject)
    }
}

fn some_line(text: &str, max: usize) -> Option<String> {
    Some(redact::line(text.trim(), max)).filter(|text| !text.is_empty())
}

fn some_label(text: &str, max: usize) -> Option<String> {
    Some(redact::label(text.trim(), max)).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::KeyId;

    fn record_id() -> RecordId {
        RecordId::generate(Timestamp::from_millis(1), [7; 10])
    }

    fn caller() -> Caller {
        let key = KeyId::generate(Timestamp::from_millis(1), [8; 10]);
        Caller {
            principal: Principal::Service {
                key,
                name: "erp".into(),
                scopes: vec![],
                made_by: None,
                claimed_user: Some("ada@example.org".into()),
            },
            tier: Tier::FunctionKey,
            key_organizations: vec![],
            also_principal: Some("https://issuer subject".into()),
            origin: Origin {
                address: "203.0.113.9".into(),
                address_verified: true,
                agent: "curl/8".into(),
                request_id: "req-1".into(),
                endpoint: "POST /api/workflows/hello/execute?code=secret".into(),
            },
        }
    }

    #[test]
    fn names_are_dotted_short_and_unique() {
        let names: std::collections::BTreeSet<_> = Event::ALL.iter().map(|event| event.as_str()).collect();
        assert_eq!(names.len(), Event::ALL.len());
        for name in names {
            assert!(name.len() <= 50 && name.split('.').count() == 2, "{name}");
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_' || b == b'.'),
                "{name}"
            );
            assert_eq!(Event::parse(name).map(Event::as_str), Some(name));
        }
    }

    #[test]
    fn nothing_of_a_person_is_in_the_plain_part() {
        let record = Record::of(record_id(), Timestamp::from_millis(5), Event::KeyBypass, &caller())
            .resource("user", "ada@example.org")
            .changes(&json!({"email": "ada@example.org", "note": "write to ada@example.org"}));
        let plain = serde_json::to_string(record.plain()).unwrap();
        for word in ["ada", "203.0", "curl", "issuer", "secret"] {
            assert!(!plain.contains(word), "{word} in {plain}");
        }
        assert_eq!(record.plain().level, Level::Warning);
        assert_eq!(record.plain().outcome, Outcome::Allowed);
        assert_eq!(record.plain().key.as_deref(), Some("erp"));
        assert_eq!(record.personal().claimed_user.as_deref(), Some("ada@example.org"));
        assert_eq!(record.actor_subject(), Some(&Subject::claimed("ada@example.org")));
    }

    #[test]
    fn the_system_has_no_personal_part() {
        let record = Record::by(
            record_id(),
            Timestamp::from_millis(5),
            Event::RunTakenOver,
            &Principal::System { part: "tick" },
            Tier::Host,
        );
        assert_eq!(record.actor_subject(), None);
    }

    #[test]
    fn a_level_is_raised_and_never_lowered() {
        let at = Timestamp::from_millis(5);
        let record = || Record::anonymous(record_id(), at, Event::AccessDenied, &Origin::default());
        assert_eq!(record().level(Level::Info).plain().level, Level::Warning);
        assert_eq!(record().level(Level::Critical).plain().level, Level::Critical);
    }
}
