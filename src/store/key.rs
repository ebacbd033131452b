//! Every name in storage is formed here: tables, containers, queues, partition keys, row keys and blob paths.
//!
//! `docs/storage-layout.md` says why each is as it is. Callers hand in typed values, so no text of a caller's becomes a name
//! unless it is checked or hashed here. Row keys that list newest first start with [`Timestamp::reversed`].

use super::port::{BlobPath, ContainerName, Key, QueueName, TableName};
use crate::domain::{
    ArtifactId, AttemptId, BundleDigest, HookId, KeyId, NodeTypeName, NodeUse, OrgId, QueueTriggerId, RecordId, RunId,
    ScheduleId, SecretName, Slug, Timestamp, UserId, sha256_hex,
};

/// Formed from checked parts, so a refusal is a defect of this file.
fn key(text: String) -> Key {
    Key::new(text).expect("keys are formed from key-safe parts")
}

fn table(text: &str) -> TableName {
    TableName::new(text).expect("table names are formed from checked parts")
}

fn container(text: &str) -> ContainerName {
    ContainerName::new(text).expect("container names are formed from checked parts")
}

fn path(text: String) -> BlobPath {
    BlobPath::new(text).expect("blob paths are formed from checked parts")
}

/// Tables that belong to the platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlatformTable {
    /// Organizations, and the guards of their slugs.
    Organizations,
    /// Users, identities, memberships.
    Identities,
    /// Function keys, by the hash of the key.
    Keys,
    /// Which organization a webhook belongs to.
    Hooks,
    /// Which queues start runs, and whose they are.
    QueueTriggers,
    /// Published code, and which of it is active.
    Bundles,
    /// Configuration that all organizations inherit.
    Config,
    /// Audit records that belong to no organization.
    Audit,
    /// What must be looked at again, and when.
    Due,
    /// Messages to the owner of a run.
    Signals,
    /// The node library.
    NodeTypes,
}

/// Every platform table, for creating them.
pub const PLATFORM_TABLES: [PlatformTable; 11] = [
    PlatformTable::Organizations,
    PlatformTable::Identities,
    PlatformTable::Keys,
    PlatformTable::Hooks,
    PlatformTable::QueueTriggers,
    PlatformTable::Bundles,
    PlatformTable::Config,
    PlatformTable::Audit,
    PlatformTable::Due,
    PlatformTable::Signals,
    PlatformTable::NodeTypes,
];

impl PlatformTable {
    /// Its name.
    #[must_use]
    pub fn name(self) -> TableName {
        table(match self {
            Self::Organizations => "WeftOrganizations",
            Self::Identities => "WeftIdentities",
            Self::Keys => "WeftKeys",
            Self::Hooks => "WeftHooks",
            Self::QueueTriggers => "WeftQueueTriggers",
            Self::Bundles => "WeftBundles",
            Self::Config => "WeftConfig",
            Self::Audit => "WeftAudit",
            Self::Due => "WeftDue",
            Self::Signals => "WeftSignals",
            Self::NodeTypes => "WeftNodeTypes",
        })
    }
}

/// Queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    /// Runs to drive; served by the function `drive_run`.
    Runs,
    /// Attempts to make; served by `attempt_step`.
    Attempts,
    /// Messages about runs that failed too often.
    RunsPoison,
    /// Messages about attempts that failed too often.
    AttemptsPoison,
}

/// Every queue, for creating them.
pub const QUEUES: [Queue; 4] = [Queue::Runs, Queue::Attempts, Queue::RunsPoison, Queue::AttemptsPoison];

impl Queue {
    /// Its name; the host appends `-poison` itself.
    #[must_use]
    pub fn name(self) -> QueueName {
        QueueName::new(match self {
            Self::Runs => "weft-runs",
            Self::Attempts => "weft-attempts",
            Self::RunsPoison => "weft-runs-poison",
            Self::AttemptsPoison => "weft-attempts-poison",
        })
        .expect("queue names are constants")
    }
}

/// The container of code bundles.
#[must_use]
pub fn bundles_container() -> ContainerName {
    container("weft-bundles")
}

/// The container of the node library.
#[must_use]
pub fn library_container() -> ContainerName {
    container("weft-library")
}

/// An organization's own table.
#[must_use]
pub fn org_table(org: &OrgId) -> TableName {
    table(&format!("org{org}"))
}

/// An organization's own container.
#[must_use]
pub fn org_container(org: &OrgId) -> ContainerName {
    container(&format!("org-{org}"))
}

// ── WeftOrganizations ──────────────────────────────────────────────────────────────────────────────────────────────────

/// The partition of organization records.
#[must_use]
pub fn organizations() -> Key {
    key("org".into())
}

/// An organization's row in it.
#[must_use]
pub fn organization_row(org: &OrgId) -> Key {
    key(org.to_string())
}

/// The row that keeps a slug unique, in the same partition, so that both change in one transaction. Sorts after every
/// organization, whose ids are letters and digits.
#[must_use]
pub fn organization_slug_row(slug: &Slug) -> Key {
    key(format!("{ORGANIZATIONS_END}slug:{slug}"))
}

/// Organizations' rows sort below this.
pub const ORGANIZATIONS_END: &str = "~";

// ── WeftIdentities ─────────────────────────────────────────────────────────────────────────────────────────────────────

/// A user's partition: profile and memberships.
#[must_use]
pub fn user(user: &UserId) -> Key {
    key(format!("user:{user}"))
}

/// The profile's row in it.
#[must_use]
pub fn profile_row() -> Key {
    key("profile".into())
}

/// The row of a membership in a user's partition.
#[must_use]
pub fn membership_row(org: &OrgId) -> Key {
    key(format!("{MEMBERSHIPS}{org}"))
}

/// The prefix of all memberships in a user's partition.
pub const MEMBERSHIPS: &str = "member:";
/// The prefix of all identities in a user's partition.
pub const IDENTITIES: &str = "identity:";

/// The partition that leads from an identity (issuer and subject) to a user. Hashed: both come from outside. The same text is
/// the identity's row in the user's partition.
#[must_use]
pub fn identity(issuer: &str, subject: &str) -> Key {
    key(format!(
        "{IDENTITIES}{}",
        sha256_hex(format!("{issuer}\n{subject}").as_bytes())
    ))
}

/// The partition that keeps an e-mail address unique. Hashed and in lower case.
#[must_use]
pub fn email(address: &str) -> Key {
    key(format!(
        "email:{}",
        sha256_hex(address.trim().to_lowercase().as_bytes())
    ))
}

/// The only row of a partition that has one.
#[must_use]
pub fn only_row() -> Key {
    key("-".into())
}

/// The partition of an organization's table that lists its members.
#[must_use]
pub fn members() -> Key {
    key("member".into())
}

/// A member's row in it.
#[must_use]
pub fn member_row(user: &UserId) -> Key {
    key(user.to_string())
}

// ── WeftKeys ───────────────────────────────────────────────────────────────────────────────────────────────────────────

/// The partition of key records.
#[must_use]
pub fn keys() -> Key {
    key("key".into())
}

/// A key's row: the SHA-256 of the key, 64 hexadecimal digits.
#[must_use]
pub fn key_row(hash: &str) -> Key {
    key(hash.chars().filter(char::is_ascii_hexdigit).take(64).collect())
}

/// The partition that leads from a key's id to its hash.
#[must_use]
pub fn key_ids() -> Key {
    key("id".into())
}

/// A key id's row in it.
#[must_use]
pub fn key_id_row(id: &KeyId) -> Key {
    key(id.to_string())
}

// ── webhooks: WeftHooks, and organizations' tables ────────────────────────────────────────────────────────────────────

/// The partition of `WeftHooks` that leads from a hook to its organization. One row, [`only_row`].
#[must_use]
pub fn hook_owner(hook: &HookId) -> Key {
    key(hook.to_string())
}

/// The partition of an organization's hooks, in its own table.
#[must_use]
pub fn hooks() -> Key {
    key("hook".into())
}

/// The prefix of all hooks in it.
pub const HOOKS: &str = "hook:";

/// A hook's row in it.
#[must_use]
pub fn hook_row(hook: &HookId) -> Key {
    key(format!("{HOOKS}{hook}"))
}

/// The row of a hook's latest deliveries.
#[must_use]
pub fn hook_deliveries_row(hook: &HookId) -> Key {
    key(format!("deliveries:{hook}"))
}

/// The prefix of the names under which hooks' secrets are kept, among those of the organization. Nobody else's secret is
/// called so.
pub const HOOK_SECRETS: &str = "weft-hook-";

/// The name of one of a hook's secrets.
///
/// # Errors
/// [`super::Error::Malformed`] for a version that is none.
pub fn hook_secret(hook: &HookId, version: &str) -> super::port::Result<SecretName> {
    let random = hook.as_str().trim_start_matches("hook_");
    format!("{HOOK_SECRETS}{random}-{version}")
        .parse()
        .map_err(|_| super::Error::Malformed {
            what: version.chars().take(60).collect(),
            expected: "version of a hook's secret",
        })
}

// ── WeftBundles, and the container of bundles ────────────────────────────────────────────────────────────────────────

/// The partition of published bundles, of what is active and of what was: one, so that none can be deleted while it becomes
/// active.
#[must_use]
pub fn bundles() -> Key {
    key("bundle".into())
}

/// The prefix of all bundles in it.
pub const BUNDLES: &str = "bundle:";
/// The prefix of all activations in it, newest first.
pub const ACTIVATIONS: &str = "activation:";

/// A bundle's row.
#[must_use]
pub fn bundle_row(digest: &BundleDigest) -> Key {
    key(format!("{BUNDLES}{}", digest.hex()))
}

/// The row that says which bundle is active.
#[must_use]
pub fn active_row() -> Key {
    key("active".into())
}

/// The row of an activation, by its number from 1.
#[must_use]
pub fn activation_row(sequence: u64) -> Key {
    key(format!("{ACTIVATIONS}{:020}", u64::MAX - sequence))
}

/// The archive of a bundle. Both digests: another build may pack the same files into other bytes.
#[must_use]
pub fn bundle_blob(digest: &BundleDigest, archive_sha256: &str) -> BlobPath {
    let archive: String = archive_sha256
        .chars()
        .filter(char::is_ascii_hexdigit)
        .take(64)
        .collect();
    path(format!("bundle/{}/{archive}.tar.gz", digest.hex()))
}

// ── configuration: WeftConfig and organizations' tables ────────────────────────────────────────────────────────────────

/// The partition of configuration entries.
#[must_use]
pub fn config() -> Key {
    key("config".into())
}

/// A configuration entry's row; names are checked by `domain::ConfigName` to be key-safe.
///
/// # Errors
/// [`super::Error::Malformed`] for a name that is no key.
pub fn config_row(name: &str) -> super::port::Result<Key> {
    Key::new(name)
}

/// The partition of the policy: the platform's in `WeftConfig`, an organization's in its own table. One row, [`only_row`].
#[must_use]
pub fn policy() -> Key {
    key("policy".into())
}

/// The partition of what belongs to the installation itself, in `WeftConfig`.
#[must_use]
pub fn installation() -> Key {
    key("installation".into())
}

/// The row of the key with which queue messages are signed.
#[must_use]
pub fn signing_key_row() -> Key {
    key("signing-key".into())
}

/// The row that is written to see whether storage takes writes.
#[must_use]
pub fn write_probe_row() -> Key {
    key("write-probe".into())
}

// ── secrets: WeftConfig, organizations' tables, the key vault ─────────────────────────────────────────────────────────

/// The partition of secrets.
#[must_use]
pub fn secrets() -> Key {
    key("secret".into())
}

/// The prefix of sealed secrets in it.
pub const SECRETS: &str = "secret:";
/// The prefix of the rows that say when a secret was last used.
pub const SECRET_USES: &str = "use:";

/// A sealed secret's row.
#[must_use]
pub fn secret_row(name: &SecretName) -> Key {
    key(format!("{SECRETS}{}", name.canonical()))
}

/// The row that says when a secret was last used.
#[must_use]
pub fn secret_use_row(name: &SecretName) -> Key {
    key(format!("{SECRET_USES}{}", name.canonical()))
}

/// What stands before the name of the platform's own secrets in a key vault. No organization's: those are followed by their
/// id, and an organization of this id has no secrets there.
pub const PLATFORM_IN_VAULT: &str = "platform";

/// A secret's name in a key vault, and without a name what all of an owner's begin with.
#[must_use]
pub fn vault_secret(org: Option<&OrgId>, name: Option<&SecretName>) -> String {
    let owner = org.map_or(PLATFORM_IN_VAULT, OrgId::as_str);
    format!("{owner}--{}", name.map(SecretName::canonical).unwrap_or_default())
}

// ── a run, in the organization's table ─────────────────────────────────────────────────────────────────────────────────

/// A run's partition: everything that changes together.
#[must_use]
pub fn run(run: &RunId) -> Key {
    key(format!("run:{run}"))
}

/// The run's header: status, lease, checkpoint, head of its audit chain.
#[must_use]
pub fn run_header_row() -> Key {
    key("header".into())
}

/// A step's row; step ids are `[a-z0-9_-]`, checked by `definition`.
///
/// # Errors
/// [`super::Error::Malformed`] for an id that is no key.
pub fn step_row(step: &str) -> super::port::Result<Key> {
    Key::new(format!("step:{step}"))
}

/// The prefix of a run's events.
pub const EVENTS: &str = "event:";

/// The n-th event.
#[must_use]
pub fn event_row(sequence: u64) -> Key {
    key(format!("{EVENTS}{sequence:010}"))
}

/// What is told of messages about a run that were set aside: behind all transitions, so that whoever reads on in these reads it
/// with them.
#[must_use]
pub fn run_set_aside_row() -> Key {
    key(format!("{EVENTS}~set-aside"))
}

/// Where a run's events end.
#[must_use]
pub fn events_end() -> Key {
    key("event;".into())
}

/// The row of an item of a map, or of an iteration of a loop.
///
/// # Errors
/// [`super::Error::Malformed`] for an id that is no key.
pub fn item_row(step: &str, item: u32) -> super::port::Result<Key> {
    Key::new(format!("{}{item:06}", item_prefix(step)?))
}

/// The prefix of all items of a step.
///
/// # Errors
/// [`super::Error::Malformed`] for an id that is no key.
pub fn item_prefix(step: &str) -> super::port::Result<String> {
    Ok(Key::new(format!("item:{step}:"))?.as_str().to_owned())
}

/// What others tell the run: a letter each, named by its cause.
#[must_use]
pub fn inbox_row(cause: &str) -> Key {
    key(format!("{INBOX}{}", sha256_hex(cause.as_bytes())))
}

/// The prefix of all letters to a run.
pub const INBOX: &str = "inbox:";

/// That something was told to the run which is told once, and stays there when its letter has been taken.
#[must_use]
pub fn told_row(cause: &str) -> Key {
    key(format!("told:{}", sha256_hex(cause.as_bytes())))
}

/// That another run takes over values of this one.
#[must_use]
pub fn resumed_row(by: &RunId) -> Key {
    key(format!("{RESUMED}{by}"))
}

/// The prefix of all runs that take over values of a run.
pub const RESUMED: &str = "resumed:";

/// Who makes an attempt that any instance may make.
#[must_use]
pub fn claim_row(attempt: &AttemptId) -> Key {
    key(format!("{CLAIMS}{attempt}"))
}

/// The prefix of all claims to attempts of a run.
pub const CLAIMS: &str = "attempt:";

/// The n-th record of a chain; in a run's partition and in a writer's.
#[must_use]
pub fn audit_row(sequence: u64) -> Key {
    key(format!("audit:{sequence:010}"))
}

/// What is known of messages about the run that were set aside.
#[must_use]
pub fn run_quarantine_row() -> Key {
    key("quarantine".into())
}

/// A named output of the run.
#[must_use]
pub fn artifact_row(id: &ArtifactId) -> Key {
    key(format!("{ARTIFACTS}{id}"))
}

/// The prefix of all named outputs of a run.
pub const ARTIFACTS: &str = "artifact:";

/// How many named outputs there are, and how large they are together.
#[must_use]
pub fn artifact_total_row() -> Key {
    key("artifact-total".into())
}

// ── audit chains outside runs: an organization's table, and WeftAudit ─────────────────────────────────────────────────

/// One writer's chain of one day. Writers are process instances; `writer` is 26 characters of an id.
#[must_use]
pub fn audit_chain(day: &str, writer: &str) -> Key {
    key(format!("audit:{}:{}", alphanumeric(day), alphanumeric(writer)))
}

fn alphanumeric(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).take(40).collect()
}

/// The head of a chain.
#[must_use]
pub fn audit_head_row() -> Key {
    key("head".into())
}

/// The partition of the chain into which `tick` seals the heads of all others.
#[must_use]
pub fn audit_seal() -> Key {
    key("audit-seal".into())
}

/// The row, beside the chain of seals, that tells of one writer's chain of one day.
#[must_use]
pub fn audit_writer_row(day: &str, writer: &str) -> Key {
    key(format!("{}{}", audit_writers(day), alphanumeric(writer)))
}

/// The prefix of all such rows of a day.
#[must_use]
pub fn audit_writers(day: &str) -> String {
    format!("writer:{}:", alphanumeric(day))
}

/// The prefix of the records of a chain.
pub const AUDIT_RECORDS: &str = "audit:";

/// The partition of the keys with which a person's data in audit records is encrypted.
#[must_use]
pub fn subjects() -> Key {
    key("subject".into())
}

/// The row that leads from the reference in a record to the subject's key.
#[must_use]
pub fn subject_reference_row(reference: &str) -> Key {
    key(format!("reference:{}", alphanumeric(reference)))
}

/// A subject's row: a hash, since subjects are named from outside.
#[must_use]
pub fn subject_row(subject: &str) -> Key {
    key(sha256_hex(subject.as_bytes()))
}

// ── results that later runs may take, in the organization's table ─────────────────────────────────────────────────────

/// The partition of results.
#[must_use]
pub fn results() -> Key {
    key("result".into())
}

/// A result's row; the digest is of everything that made it.
#[must_use]
pub fn result_row(digest: &str) -> Key {
    key(format!("{RESULTS}{}", alphanumeric_of(digest)))
}

/// The prefix of all results.
pub const RESULTS: &str = "sha256:";

/// How many there are.
#[must_use]
pub fn result_count_row() -> Key {
    key("~count".into())
}

fn alphanumeric_of(digest: &str) -> String {
    digest.chars().filter(char::is_ascii_alphanumeric).take(64).collect()
}

// ── key-value pairs of a workflow, in the organization's table ────────────────────────────────────────────────────────

/// The partition of a workflow's pairs. Workflow names are checked by their declaration; one that is no key is refused.
///
/// # Errors
/// [`super::Error::Malformed`] for a name that is no key.
pub fn pairs(workflow: &str) -> super::port::Result<Key> {
    Key::new(format!("kv:{workflow}"))
}

/// A pair's row. What a row key may not hold, and what would upset its order, is written as `~` and a code; so a prefix of a
/// key is a prefix of its row, and two keys never share one.
///
/// # Errors
/// [`super::Error::Malformed`] when it comes out too long for a row key.
pub fn pair_row(name: &str) -> super::port::Result<Key> {
    use std::fmt::Write as _;
    let mut row = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            '/' => row.push_str("~s"),
            '\\' => row.push_str("~b"),
            '#' => row.push_str("~h"),
            '?' => row.push_str("~q"),
            '~' => row.push_str("~t"),
            '%' => row.push_str("~p"),
            ' '..='}' => row.push(c),
            _ => {
                let _ = write!(row, "~u{:06x}", u32::from(c));
            }
        }
    }
    Key::new(row)
}

/// The pair of a row: what [`pair_row`] was made from.
#[must_use]
pub fn pair_name(row: &Key) -> Option<String> {
    let mut name = String::new();
    let mut rest = row.as_str().chars();
    while let Some(c) = rest.next() {
        name.push(match c {
            '~' => match rest.next()? {
                's' => '/',
                'b' => '\\',
                'h' => '#',
                'q' => '?',
                't' => '~',
                'p' => '%',
                'u' => {
                    let code: String = rest.by_ref().take(6).collect();
                    char::from_u32(u32::from_str_radix(&code, 16).ok()?)?
                }
                _ => return None,
            },
            c => c,
        });
    }
    Some(name)
}

/// How many pairs there are; no pair's row is spelled so.
#[must_use]
pub fn pair_count_row() -> Key {
    key("~count".into())
}

// ── schedules, in the organization's table ────────────────────────────────────────────────────────────────────────────

/// The partition of schedules.
#[must_use]
pub fn schedules() -> Key {
    key("schedule".into())
}

/// A schedule's row.
#[must_use]
pub fn schedule_row(id: &ScheduleId) -> Key {
    key(id.to_string())
}

/// The prefix of all schedules.
pub const SCHEDULES: &str = "sch_";

/// How many schedules there are; no schedule's row is spelled so.
#[must_use]
pub fn schedule_count_row() -> Key {
    key("~count".into())
}

// ── workflows that the organization has authored, in its own table ────────────────────────────────────────────────────

/// The partition of workflows, their revisions, and whom they are assigned to: what changes together is in one transaction.
#[must_use]
pub fn workflows() -> Key {
    key("workflow".into())
}

/// The prefix of all workflows in it.
pub const WORKFLOWS: &str = "head:";

/// A workflow's row: its draft, and the revision that is current. Names are checked by `definition`.
///
/// # Errors
/// [`super::Error::Malformed`] for a name that is no key.
pub fn workflow_row(name: &str) -> super::port::Result<Key> {
    Key::new(format!("{WORKFLOWS}{name}"))
}

/// How many workflows there are; no workflow's row is spelled so.
#[must_use]
pub fn workflow_count_row() -> Key {
    key("~count".into())
}

/// The prefix of a workflow's revisions, the newest first.
///
/// # Errors
/// [`super::Error::Malformed`] for a name that is no key.
pub fn workflow_revisions(name: &str) -> super::port::Result<String> {
    Ok(Key::new(format!("revision:{name}:"))?.as_str().to_owned())
}

/// The row of a revision.
///
/// # Errors
/// [`super::Error::Malformed`] for a name that is no key.
pub fn workflow_revision_row(name: &str, number: u32) -> super::port::Result<Key> {
    let falling = u32::MAX - number;
    Key::new(format!("{}{falling:010}", workflow_revisions(name)?))
}

/// The prefix of those to whom a workflow is assigned.
///
/// # Errors
/// [`super::Error::Malformed`] for a name that is no key.
pub fn workflow_assignments(name: &str) -> super::port::Result<String> {
    Ok(Key::new(format!("assignment:{name}:"))?.as_str().to_owned())
}

/// The row that says that a workflow is assigned to somebody, found by the workflow.
///
/// # Errors
/// [`super::Error::Malformed`] for a name that is no key.
pub fn workflow_assignment_row(name: &str, user: &UserId) -> super::port::Result<Key> {
    Key::new(format!("{}{user}", workflow_assignments(name)?))
}

/// The prefix of the workflows that are assigned to somebody.
#[must_use]
pub fn workflows_assigned(user: &UserId) -> String {
    format!("assigned:{user}:")
}

/// The row that says that a workflow is assigned to somebody, found by the person.
///
/// # Errors
/// [`super::Error::Malformed`] for a name that is no key.
pub fn workflow_assigned_row(user: &UserId, name: &str) -> super::port::Result<Key> {
    Key::new(format!("{}{name}", workflows_assigned(user)))
}

// ── queue triggers: WeftQueueTriggers, organizations' tables, and queues of their own ─────────────────────────────────

/// The partition of `WeftQueueTriggers` with every trigger of every organization.
#[must_use]
pub fn all_queue_triggers() -> Key {
    key("all".into())
}

/// A trigger's row, in that partition and in its organization's.
#[must_use]
pub fn queue_trigger_row(id: &QueueTriggerId) -> Key {
    key(id.to_string())
}

/// The partition of an organization's triggers, in its own table.
#[must_use]
pub fn queue_triggers() -> Key {
    key("queue-trigger".into())
}

/// The prefix of all triggers in it.
pub const QUEUE_TRIGGERS: &str = "qtr_";

/// How many there are; no trigger's row is spelled so.
#[must_use]
pub fn queue_trigger_count_row() -> Key {
    key("~count".into())
}

/// The queue of a trigger. Its name is as random as its id, and says nothing of the organization.
#[must_use]
pub fn trigger_queue(id: &QueueTriggerId) -> QueueName {
    let random = id.as_str().trim_start_matches(QUEUE_TRIGGERS);
    QueueName::new(format!("{TRIGGER_QUEUES}{random}")).expect("queue names are formed from checked parts")
}

/// What the names of all queues of triggers begin with.
pub const TRIGGER_QUEUES: &str = "weft-trigger-";

/// The partition of a trigger's messages that were set aside, in the organization's table.
#[must_use]
pub fn set_aside(id: &QueueTriggerId) -> Key {
    key(format!("queue-trigger:{id}"))
}

/// The prefix of all messages in it.
pub const SET_ASIDE: &str = "message:";

/// A message's row in it, by 32 hexadecimal digits of a hash of its id: that comes from outside.
#[must_use]
pub fn set_aside_row(digest: &str) -> Key {
    let clean: String = digest.chars().filter(char::is_ascii_hexdigit).take(32).collect();
    key(format!("{SET_ASIDE}{clean}"))
}

/// How many there are; no message's row is spelled so.
#[must_use]
pub fn set_aside_count_row() -> Key {
    key("~count".into())
}

// ── derived listing rows, in the organization's table: newest first, repairable from their source ──────────────────────

/// The partition of derived rows.
#[must_use]
pub fn index() -> Key {
    key("index".into())
}

/// A run in the list of runs.
#[must_use]
pub fn index_run_row(started: Timestamp, run: &RunId) -> Key {
    key(format!("{INDEX_RUNS}{}:{run}", started.reversed()))
}

/// Where runs that were asked for before `at` start in the list of runs.
#[must_use]
pub fn index_runs_before(at: Timestamp) -> Key {
    // Behind every run of that very millisecond.
    key(format!("{INDEX_RUNS}{};", at.reversed()))
}

/// An audit record in the list of records.
#[must_use]
pub fn index_audit_row(at: Timestamp, record: &RecordId) -> Key {
    key(format!("{INDEX_AUDIT}{}:{record}", at.reversed()))
}

/// Where audit records of `at` and before start in the list of records.
#[must_use]
pub fn index_audit_since(at: Timestamp) -> Key {
    key(format!("{INDEX_AUDIT}{}", at.reversed()))
}

/// The prefix of all runs in the index.
pub const INDEX_RUNS: &str = "run:";
/// The prefix of all audit records in the index.
pub const INDEX_AUDIT: &str = "audit:";

/// The prefix of all quarantined messages in the index.
pub const INDEX_QUARANTINES: &str = "quarantine:";

/// A quarantined message in the list of those, by the queue that it was set aside from.
#[must_use]
pub fn index_quarantine_row(at: Timestamp, run: &RunId, queue: &str) -> Key {
    let queue = alphanumeric(queue);
    key(format!("{INDEX_QUARANTINES}{}:{run}:{queue}", at.reversed()))
}

// ── admission, in the organization's table ─────────────────────────────────────────────────────────────────────────────

/// The prefix of runs that want a driver, beside the list of runs so that both change in one transaction.
pub const BACKLOG: &str = "backlog:";

/// A run that wants a driver. Sorts by rank (0 to 99, 0 first), then by when it was asked for.
#[must_use]
pub fn backlog_row(rank: u8, asked: Timestamp, run: &RunId) -> Key {
    key(format!("{BACKLOG}{:02}:{:015}:{run}", rank.min(99), asked.millis()))
}

/// A concurrency key in names and in the list of runs. Hashed: it comes from outside.
#[must_use]
pub fn concurrency(name: &str) -> String {
    sha256_hex(name.as_bytes())
}

/// Who holds a concurrency key.
#[must_use]
pub fn concurrency_row(name: &str) -> Key {
    key(format!("concurrency:{}", concurrency(name)))
}

/// The prefix of the runs that wait for a concurrency key.
#[must_use]
pub fn parked(name: &str) -> String {
    format!("parked:{}:", concurrency(name))
}

/// A run that waits for a concurrency key; sorts as in the backlog.
#[must_use]
pub fn parked_row(name: &str, rank: u8, asked: Timestamp, run: &RunId) -> Key {
    key(format!(
        "{}{:02}:{:015}:{run}",
        parked(name),
        rank.min(99),
        asked.millis()
    ))
}

/// The partition of what instances have taken of an organization's limit. One row, [`only_row`].
#[must_use]
pub fn seats() -> Key {
    key("seats".into())
}

// ── WeftNodeTypes, and the container of the library ───────────────────────────────────────────────────────────────────

/// The partition of all node types, so that a type, its draft and a version change in one transaction.
#[must_use]
pub fn node_types() -> Key {
    key("node-type".into())
}

/// The prefix of what the types are, without their versions.
pub const NODE_TYPE_HEADS: &str = "type:";

/// What a type is.
#[must_use]
pub fn node_type_row(name: &NodeTypeName) -> Key {
    key(format!("{NODE_TYPE_HEADS}{name}"))
}

/// A type's draft.
#[must_use]
pub fn node_type_draft_row(name: &NodeTypeName) -> Key {
    key(format!("draft:{name}"))
}

/// A published version.
#[must_use]
pub fn node_type_version_row(named: &NodeUse) -> Key {
    key(format!("{}{}", node_type_versions(&named.name), named.version))
}

/// The prefix of all versions of a type.
#[must_use]
pub fn node_type_versions(name: &NodeTypeName) -> String {
    format!("version:{name}:")
}

/// All of a version, named by its SHA-256; drafts and published versions alike.
#[must_use]
pub fn node_type_blob(sha256: &str) -> BlobPath {
    let clean: String = sha256.chars().filter(char::is_ascii_hexdigit).take(64).collect();
    path(format!("node-type/{clean}"))
}

// ── WeftDue ────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// How many partitions share the due rows.
pub const DUE_BUCKETS: u8 = 4;

/// The partition of what is due for one id: all of its rows are in the same one.
#[must_use]
pub fn due_bucket(org: &OrgId, id: &str) -> Key {
    let digest = sha256_hex(format!("{org}\n{id}").as_bytes());
    due_bucket_number(digest.bytes().next().unwrap_or_default() % DUE_BUCKETS)
}

/// A partition of due rows by number, from 0 to below [`DUE_BUCKETS`].
#[must_use]
pub fn due_bucket_number(bucket: u8) -> Key {
    key(format!("due:{bucket}"))
}

/// A due row: sorts by time, and is the same for the same thing at the same time.
///
/// # Errors
/// [`super::Error::Malformed`] for an id that is no key.
pub fn due_row(at: Timestamp, kind: &str, org: &OrgId, id: &str) -> super::port::Result<Key> {
    Key::new(format!("{:015}:{kind}:{org}:{id}", at.millis()))
}

/// The row key below which everything is due at `at`.
#[must_use]
pub fn due_until(at: Timestamp) -> Key {
    key(format!("{:015}:", at.millis() + 1))
}

// ── WeftSignals ────────────────────────────────────────────────────────────────────────────────────────────────────────

/// The partition of what is sent to an instance. Instances are 26 letters and digits.
#[must_use]
pub fn signals(instance: &str) -> Key {
    key(format!("to:{}", alphanumeric(instance)))
}

/// The row of what a signal is about: a run that has ended, or an attempt.
#[must_use]
pub fn signal_row(about: &About) -> Key {
    key(about.to_string())
}

/// The partition that lists what was sent.
#[must_use]
pub fn sent_signals() -> Key {
    key("sent".into())
}

/// A sent signal's row in it: sorts by time.
#[must_use]
pub fn sent_signal_row(at: Timestamp, instance: &str, about: &About) -> Key {
    key(format!("{:015}:{}:{about}", at.millis(), alphanumeric(instance)))
}

/// To which instance, and about what, a listed signal was sent.
#[must_use]
pub fn sent_signal(row: &Key) -> Option<(String, About)> {
    let mut parts = row.as_str().splitn(3, ':').skip(1);
    Some((parts.next()?.to_owned(), About::parse(parts.next()?)?))
}

/// The row key below which every signal was sent before `at`.
#[must_use]
pub fn sent_signals_until(at: Timestamp) -> Key {
    key(format!("{:015}:", at.millis()))
}

/// What a signal between instances is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum About {
    /// A run that has ended.
    Run(RunId),
    /// An attempt that nobody wants any more.
    Attempt(AttemptId),
}

impl std::fmt::Display for About {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Run(run) => run.fmt(f),
            Self::Attempt(attempt) => attempt.fmt(f),
        }
    }
}

impl About {
    /// Reads it out of a row's name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let run = text.parse().map(Self::Run).ok();
        run.or_else(|| text.parse().map(Self::Attempt).ok())
    }
}

// ── blobs, in the organization's container ─────────────────────────────────────────────────────────────────────────────

/// Blobs that are named by their bytes, and shared by whatever refers to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobKind {
    /// Bytes of artifacts.
    Artifact,
    /// Large values.
    Value,
}

impl BlobKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Artifact => "artifact",
            Self::Value => "value",
        }
    }

    /// What their paths begin with.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Artifact => "artifact/",
            Self::Value => "value/",
        }
    }

    /// The digest in a path.
    #[must_use]
    pub fn digest(self, path: &str) -> &str {
        path.strip_prefix(self.prefix()).unwrap_or_default()
    }
}

/// What an organization has stored.
#[must_use]
pub fn usage() -> Key {
    key("usage".into())
}

/// The sums of it.
#[must_use]
pub fn usage_row() -> Key {
    key("sum".into())
}

/// What an instance has taken for what it stores.
#[must_use]
pub fn usage_hold_row(instance: &str) -> Key {
    let clean: String = instance.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    key(format!("taken:{clean}"))
}

/// How far retention is with the runs of an organization.
#[must_use]
pub fn retention() -> Key {
    key("retention".into())
}

/// The row of it.
#[must_use]
pub fn retention_row() -> Key {
    key("place".into())
}

/// What the collector knows about an organization.
#[must_use]
pub fn collector() -> Key {
    key("collector".into())
}

/// How far it is.
#[must_use]
pub fn collector_row() -> Key {
    key("progress".into())
}

/// The mark of a blob that something refers to; none for what is no digest.
#[must_use]
pub fn mark_row(kind: BlobKind, sha256: &str) -> Option<Key> {
    let is_digest = sha256.len() == 64 && sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest.then(|| key(format!("mark:{}:{sha256}", kind.as_str())))
}

/// Marks of a kind from behind a digest to another, or to the last.
///
/// # Errors
/// [`Error::Malformed`](super::error::Error::Malformed) when a digest can't be part of a key.
pub fn mark_rows(kind: BlobKind, after: Option<&str>, last: Option<&str>) -> super::port::Result<(Key, Key)> {
    let prefix = format!("mark:{}:", kind.as_str());
    let from = after.map_or_else(|| prefix.clone(), |after| format!("{prefix}{after}!"));
    let until = last.map_or_else(|| format!("{prefix}\u{fffd}"), |last| format!("{prefix}{last}!"));
    Ok((Key::new(from)?, Key::new(until)?))
}

/// Rows of a run that have values of letters, items and steps, in this order: the first, and the end.
#[must_use]
pub fn run_rows_with_values() -> (Key, Key) {
    (key(INBOX.into()), key("step:\u{fffd}".into()))
}

/// Rows of a run's artifacts: the first, and the end.
#[must_use]
pub fn run_rows_with_artifacts() -> (Key, Key) {
    (key(ARTIFACTS.into()), key("artifact:\u{fffd}".into()))
}

/// A value that is too large for a row, named by its SHA-256.
#[must_use]
pub fn value_blob(sha256: &str) -> BlobPath {
    let clean: String = sha256.chars().filter(char::is_ascii_hexdigit).take(64).collect();
    path(format!("value/{clean}"))
}

/// A named output's bytes, named by their SHA-256.
#[must_use]
pub fn artifact_blob(sha256: &str) -> BlobPath {
    let clean: String = sha256.chars().filter(char::is_ascii_hexdigit).take(64).collect();
    path(format!("artifact/{clean}"))
}

/// The log of an attempt.
#[must_use]
pub fn log_blob(run: &RunId, attempt: &AttemptId) -> BlobPath {
    path(format!("{}{attempt}{LOG_END}", log_blobs(run)))
}

/// What is kept of an attempt for replaying it: beside its log, and deleted with it.
#[must_use]
pub fn recording_blob(run: &RunId, attempt: &AttemptId) -> BlobPath {
    path(format!("{}{attempt}{RECORDING_END}", log_blobs(run)))
}

/// The attempt that a recording is of.
#[must_use]
pub fn attempt_of_recording(path: &BlobPath) -> Option<AttemptId> {
    let name = path.as_str().rsplit('/').next()?;
    name.strip_suffix(RECORDING_END)?.parse().ok()
}

/// What the paths of all logs of a run begin with.
#[must_use]
pub fn log_blobs(run: &RunId) -> String {
    format!("log/{run}/")
}

/// The attempt that a log is of.
#[must_use]
pub fn attempt_of_log(path: &BlobPath) -> Option<AttemptId> {
    let name = path.as_str().rsplit('/').next()?;
    name.strip_suffix(LOG_END)?.parse().ok()
}

const LOG_END: &str = ".jsonl";
const RECORDING_END: &str = ".recording";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_parts_are_hashed_or_cleaned() {
        let hostile = "x' or PartitionKey ne '/../#?";
        assert_eq!(identity(hostile, hostile).as_str().len(), "identity:".len() + 64);
        assert_eq!(subject_row(hostile).as_str().len(), 64);
        assert!(config_row(hostile).is_err());
        assert!(step_row("a/b").is_err());
        assert_eq!(audit_chain("20261121", "a'b/c").as_str(), "audit:20261121:abc");
    }

    #[test]
    fn pairs_have_rows_of_their_own() {
        let names = ["a", "a/b", "a~sb", "a\\b#?%", "ä\u{1f600}", "~count", "it's", "a b\n"];
        for name in names {
            let row = pair_row(name).unwrap();
            assert_eq!(pair_name(&row).as_deref(), Some(name));
            assert_ne!(row, pair_count_row());
        }
        assert!(
            pair_row("a/b")
                .unwrap()
                .as_str()
                .starts_with(pair_row("a/").unwrap().as_str())
        );
        assert!(pair_row(&"x".repeat(256)).is_ok());
        assert!(pair_row(&"ä".repeat(256)).is_err());
        assert_eq!(pair_name(&pair_count_row()), None);
    }

    #[test]
    fn listing_rows_sort_newest_first() {
        let run = RunId::generate(Timestamp::from_millis(5), [1; 10]);
        let early = index_run_row(Timestamp::from_millis(1_000), &run);
        let late = index_run_row(Timestamp::from_millis(2_000), &run);
        assert!(late < early);
        let due = |at| due_row(Timestamp::from_millis(at), "run", &"abc".parse().unwrap(), run.as_str()).unwrap();
        assert!(due(9) < due_until(Timestamp::from_millis(9)));
        assert!(due(10) >= due_until(Timestamp::from_millis(9)));
    }
}
