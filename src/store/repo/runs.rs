//! Runs: each in one partition, each transition one entity-group transaction fenced by the header's ETag.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::audit_log::{index_operations, rows_for_run};
use super::damage::{known, noted};
use super::history;
use crate::audit::{Head, LinkedRecord, SealedRecord};
use crate::domain::{
    Ask, AttemptId, ClaimCheck, LogLine, NetworkUse, OrgId, Outcome, Payload, Rights, RunId, Status, StepError,
    Timestamp, WorkflowRevision, sha256_hex,
};
use crate::scheduler::{
    self, Action, Counts, Decision, Ended, Output, Plan, RunState, Slot, StepPlan, Transition, Work,
};
use crate::store::claim_check::{self, Coming};
use crate::store::error::Error;
use crate::store::key;
use crate::store::port::{
    Comparison, Continuation, ETag, Entity, Filter, Key, Match, Operation, Ports, Properties, Query, Result, Value,
};
use crate::tenancy::Scope;

/// The shape of the rows that this build writes.
pub(super) const SCHEMA: i64 = 2;
/// Longest text that stays in a property of its own, in UTF-16 units, with a margin below what one holds.
pub(super) const TEXT_UNITS: usize = 30_000;

/// Where a run's time went, in milliseconds, summed over its attempts.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Timings {
    /// From the request to the first take.
    pub queue_ms: f64,
    /// Waiting for a worker.
    pub boot_ms: f64,
    /// Importing the module; overlaps nothing when the worker was forked ahead.
    pub import_ms: f64,
    /// The user's code.
    pub user_ms: f64,
    /// Storage.
    pub store_ms: f64,
}

/// Who asked for a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requester {
    /// `user`, `service`, `system`, `operator`.
    pub kind: String,
    /// The principal's id.
    pub id: String,
    /// A name to show.
    pub name: String,
    /// The user that a key's caller claimed to act for.
    pub claimed_user: Option<String>,
}

/// Which step started a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parent {
    /// Its run.
    pub run: RunId,
    /// The step.
    pub step: String,
    /// How deep the new run is below one that nobody's step has started.
    pub depth: u32,
    /// What of the step waits for its end; none when the step's code started it by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaited: Option<Awaited>,
}

/// What of a step waits for the end of a child run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Awaited {
    /// The step's place in the plan.
    pub place: usize,
    /// The item or iteration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
}

/// What a run is, from its first commit on.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRun {
    /// Its id.
    pub run: RunId,
    /// The workflow.
    pub workflow: String,
    /// What is executed.
    pub plan: Arc<Plan>,
    /// The arguments, defaults included.
    pub arguments: Payload,
    /// Who asked.
    pub requester: Requester,
    /// When.
    pub created_at: Timestamp,
    /// Of which request.
    pub request_id: String,
    /// Digest of the arguments as given, to tell a repeat from another request with the same idempotency key.
    pub arguments_digest: String,
    /// Whether it came with an idempotency key.
    pub idempotent: bool,
    /// The step that started it, if one did.
    pub parent: Option<Parent>,
    /// The run that it resumes, if it does: what that has done is not done again.
    pub resumes: Option<RunId>,
    /// When it may begin, and before which others.
    pub ask: Ask,
}

/// A stored run: its header, and the version to fence with.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRun {
    /// What it is.
    pub new: NewRun,
    /// Where it is.
    pub state: RunState,
    /// What came out.
    pub result: Payload,
    /// `ctx.variables` of its steps.
    pub variables: Payload,
    /// Where its time went.
    pub timings: Timings,
    /// The head of its audit chain.
    pub audit: Head,
    pub(super) etag: ETag,
}

/// What a transition adds beside the state.
#[derive(Debug, Clone, Default)]
pub struct Additions {
    /// The run's result.
    pub result: Option<Payload>,
    /// `ctx.variables`.
    pub variables: Option<Payload>,
    /// The new sums.
    pub timings: Option<Timings>,
    /// Attempts that ended with this transition.
    pub attempts: Vec<AttemptRecord>,
    /// Values of what ended with it.
    pub outputs: Vec<(Slot, Payload)>,
    /// What was taken from the run's inbox, and stays there until this is committed.
    pub taken: Vec<Key>,
    /// Audit records of the transition.
    pub audit: Vec<SealedRecord>,
}

/// One attempt as the step's row keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttemptRecord {
    /// The step.
    pub step: String,
    /// The item of a map, or the iteration of a loop, from 0.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub item: Option<u32>,
    /// Its id.
    #[schema(value_type = String)]
    pub id: AttemptId,
    /// Its number, from 1.
    pub number: u32,
    /// The run whose result was taken, where none was made.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    #[schema(value_type = Option<String>)]
    pub cached: Option<RunId>,
    /// When it began.
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// When it ended.
    #[schema(value_type = String, format = DateTime)]
    pub finished_at: Timestamp,
    /// `succeeded`, `failed`, `timed_out`, `cancelled`.
    pub outcome: String,
    /// Why it failed; without the traceback, which is in the run's error.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<StepError>,
    /// Peak resident memory in KiB.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_rss_kib: Option<u64>,
    /// Bytes of stdout and stderr.
    pub output_bytes: u64,
    /// Whether a part of the output was dropped at the limit.
    pub output_truncated: bool,
    /// Which layers of isolation were in force.
    pub posture: Vec<String>,
    /// What was used of the network, when the attempt had one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub network: Option<NetworkUse>,
}

/// A step with its attempts.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredStep {
    /// Its id.
    pub id: String,
    /// What it does, as a graph's `type` has it.
    pub kind: &'static str,
    /// Its status.
    pub status: Status,
    /// What its attempts may do at most, as the plan has it; none of a step that makes none.
    pub rights: Option<Rights>,
    /// The branch that it chose.
    pub branch: Option<String>,
    /// Of a map or loop that has begun: how far it has come, or came; none when it was stopped.
    pub counts: Option<Counts>,
    /// The runs that it has started and waits or waited for, in order; those of items are the items'.
    pub children: Vec<RunId>,
    /// When it goes on by itself: the end of a pause, the next attempt, its time limit.
    pub due: Option<Timestamp>,
    /// Attempts begun.
    pub attempts_begun: u32,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Ended attempts, in order; the newest hundred.
    pub attempts: Vec<AttemptRecord>,
    /// Why its row can't be read; its attempts and times are not all there then.
    pub unreadable: Option<String>,
}

/// An item of a map, or an iteration of a loop, that has been tried.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredItem {
    /// Which, from 0.
    pub item: u32,
    /// Its status.
    pub status: Status,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The runs that it has started and waits or waited for, in order.
    pub children: Vec<RunId>,
    /// Ended attempts, in order; the newest hundred.
    pub attempts: Vec<AttemptRecord>,
    /// Why its row can't be read; what it says is not all there then, and where it is may be where its step is.
    pub unreadable: Option<String>,
}

/// What a step, or one of its items, has left.
#[derive(Debug, Clone, PartialEq)]
pub struct Left {
    /// What came out.
    pub output: Payload,
    /// Why it failed: type and message; null when it hasn't.
    pub error: Json,
}

impl Default for Left {
    fn default() -> Self {
        Self {
            output: Payload::Inline(Json::Null),
            error: Json::Null,
        }
    }
}

/// What others tell a run, whoever drives it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Letter {
    /// A child run has ended.
    ChildEnded {
        /// The child.
        child: RunId,
        /// What waits for it.
        awaited: Awaited,
    },
    /// A person has decided.
    Decided {
        /// The step's place.
        place: usize,
        /// What.
        decision: Decision,
    },
    /// An attempt that any instance may make has ended.
    AttemptEnded {
        /// How.
        reported: Box<Reported>,
    },
}

/// How an attempt has ended, as whoever drives its run has to know it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reported {
    /// The step's place in the plan, with the item or iteration.
    pub slot: Slot,
    /// The attempt, and what it cost.
    pub record: AttemptRecord,
    /// How it ended; without its value.
    pub outcome: Outcome,
    /// What came out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Payload>,
    /// `ctx.variables`, where there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variables: Option<Payload>,
    /// Where its time went.
    pub timings: Timings,
}

/// A row of the list of runs.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedRun {
    /// The run.
    pub run: RunId,
    /// The workflow.
    pub workflow: String,
    /// The bundle.
    pub revision: String,
    /// The revision of the workflow, where the organization has authored it.
    pub workflow_revision: Option<WorkflowRevision>,
    /// Its status when the row was derived.
    pub status: Status,
    /// Who asked for it.
    pub requester: Requester,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// The type of its error.
    pub error_type: Option<String>,
    /// When it may begin, if not at once.
    pub not_before: Option<Timestamp>,
    /// Why nobody goes on with it, where it could not be read: it was set aside.
    pub set_aside: Option<String>,
}

/// What somebody gets to see of the list.
#[derive(Debug, Clone, Default)]
pub struct Visible {
    /// Runs that this principal has asked for.
    pub requester: String,
    /// Runs of these workflows, but for those that try drafts.
    pub workflows: BTreeSet<String>,
}

/// Which runs to list.
#[derive(Debug, Clone, Default)]
pub struct RunQuery {
    /// Of one workflow.
    pub workflow: Option<String>,
    /// In one status.
    pub status: Option<Status>,
    /// Asked for by one principal.
    pub requester: Option<String>,
    /// Only those that try drafts, or none of them.
    pub test: Option<bool>,
    /// Only what somebody gets to see.
    pub visible: Option<Visible>,
    /// Asked for at or after.
    pub from: Option<Timestamp>,
    /// Asked for before.
    pub to: Option<Timestamp>,
    /// At most this many, 1 to 200.
    pub limit: usize,
    /// Where the last page ended.
    pub cursor: Option<Continuation>,
}

/// A run as it was just written, and the audit records of the transition in their places.
pub type Committed = (StoredRun, Vec<LinkedRecord>);

/// How many ended attempts a step's row keeps.
const KEPT_ATTEMPTS: usize = 100;
/// How often the row of a run that goes on is tried against others who write it.
const LIST_TRIES: usize = 4;
/// Most index rows that one listing reads before it returns what it has, so that a narrow filter over a long history
/// answers in bounded time.
const LIST_SCAN: usize = 5_000;

/// Runs of organizations.
#[derive(Debug, Clone)]
pub struct Runs {
    pub(super) ports: Ports,
    plans: Arc<Mutex<Plans>>,
}

/// Plans that are kept as claim checks, the last ones that were read first.
type Plans = VecDeque<(String, Arc<Plan>)>;
/// How many of them.
const KEPT_PLANS: usize = 32;
/// Letters that are read at once; each is a row of the transition that takes it.
pub const INBOX_AT_ONCE: usize = 20;

impl Runs {
    /// Over these ports.
    #[must_use]
    pub fn new(ports: Ports) -> Self {
        Self {
            ports,
            plans: Arc::default(),
        }
    }

    /// Writes a new run with its first transition.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] when there is a run of this id.
    pub async fn create(
        &self,
        scope: &Scope,
        new: NewRun,
        transition: &Transition,
        audit: Vec<SealedRecord>,
    ) -> Result<Committed> {
        let run = StoredRun {
            new,
            state: transition.state().clone(),
            result: Payload::Inline(Json::Null),
            variables: Payload::Inline(Json::Null),
            timings: Timings::default(),
            audit: Head::EMPTY,
            etag: ETag(String::new()),
        };
        self.commit(
            scope,
            run,
            transition,
            Additions {
                audit,
                ..Additions::default()
            },
            None,
        )
        .await
    }

    /// Writes a transition. The header must be as `run` has it.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] when somebody else wrote first: the caller reads again and decides again.
    pub async fn apply(
        &self,
        scope: &Scope,
        run: StoredRun,
        transition: &Transition,
        additions: Additions,
    ) -> Result<Committed> {
        let etag = run.etag.clone();
        self.commit(scope, run, transition, additions, Some(etag)).await
    }

    async fn commit(
        &self,
        scope: &Scope,
        mut run: StoredRun,
        transition: &Transition,
        mut additions: Additions,
        etag: Option<ETag>,
    ) -> Result<Committed> {
        whole_result(&run, &mut additions);
        let running: Vec<_> = run.state.running().map(|(_, attempt)| attempt.clone()).collect();
        run.state = transition.state().clone();
        let partition = key::run(&run.new.run);
        let audit = rows_for_run(scope, &run.new.run, &run.audit, additions.audit);
        run.audit = audit.head;
        let changed = Changed {
            result: additions.result.is_some(),
            variables: additions.variables.is_some(),
        };
        run.result = additions.result.unwrap_or(run.result);
        run.variables = additions.variables.unwrap_or(run.variables);
        run.timings = additions.timings.unwrap_or(run.timings);

        let header_row = key::run_header_row();
        let mut operations = vec![match &etag {
            None => Operation::Insert(header_row, self.header(scope, &run).await?),
            // What a run is doesn't change, and need not be sent again.
            Some(etag) => {
                let properties = self.moving(scope, &run, &changed).await?;
                Operation::Merge(header_row, properties, Match::Exactly(etag.clone()))
            }
        }];
        for row in rows_of(&run, transition, &additions.attempts, additions.outputs) {
            let kept = match (&row.attempt, &row.ended) {
                (Some(attempt), _) if attempt.number > 1 => self.attempts_of(scope, &run, row.slot).await?,
                // It ended between two attempts: those that were made stay in its row.
                (None, Some(ended)) if ended.attempts > 0 => self.attempts_of(scope, &run, row.slot).await?,
                _ => Vec::new(),
            };
            operations.push(slot_operation(&run, row, kept)?);
        }
        operations.extend(history::operation(&running, &run, transition)?);
        operations.extend(
            additions
                .taken
                .into_iter()
                .map(|row| Operation::Delete(row, Match::Any)),
        );
        operations.extend(audit.operations);
        let written = self
            .ports
            .tables
            .commit(&key::org_table(scope.org()), &partition, operations)
            .await;
        let mut etags = written.map_err(|error| match error {
            // The header was as it was read, and rows that only come with it are there: trying again would change nothing.
            Error::AlreadyExists { .. } if etag.is_some() => {
                Error::corrupt("its header is older than its records or its events").of_run(&run.new.run)
            }
            error => error,
        })?;
        if etags.is_empty() {
            return Err(Error::corrupt("a commit answered no ETag"));
        }
        run.etag = etags.swap_remove(0);
        Ok((run, audit.records))
    }

    async fn attempts_of(&self, scope: &Scope, run: &StoredRun, slot: Slot) -> Result<Vec<AttemptRecord>> {
        let row = slot_row(run, slot)?;
        let row = self
            .ports
            .tables
            .get(&key::org_table(scope.org()), &key::run(&run.new.run), &row)
            .await?;
        match row {
            Some(row) => parse(&row.properties, "attempts").map_err(|error| error.of_run(&run.new.run)),
            None => Ok(Vec::new()),
        }
    }

    /// All that a header holds, for a new run.
    pub(super) async fn header(&self, scope: &Scope, run: &StoredRun) -> Result<Properties> {
        let new = &run.new;
        let json = |value: Json| value.to_string();
        let mut properties = Properties::new()
            .with("v", SCHEMA)
            .with("workflow", new.workflow.clone())
            .with("createdAt", new.created_at)
            .with("requester", json(json!(new.requester)))
            .with("requestId", new.request_id.clone())
            .with("argumentsDigest", new.arguments_digest.clone())
            .with("idempotent", new.idempotent)
            .with_some("parent", new.parent.as_ref().map(|parent| json(json!(parent))))
            .with_some("ask", (new.ask != Ask::default()).then(|| json(json!(new.ask))))
            .with_some("resumes", new.resumes.as_ref().map(|run| run.as_str().to_owned()));
        self.put_text(scope, &mut properties, "plan", json(json!(*new.plan)))
            .await?;
        put_payload(&mut properties, "arguments", &new.arguments);
        let all = Changed {
            result: true,
            variables: true,
        };
        for (name, value) in self.moving(scope, run, &all).await?.iter() {
            properties.set(name, value.clone());
        }
        Ok(properties)
    }

    /// What of a header changes with transitions.
    async fn moving(&self, scope: &Scope, run: &StoredRun, changed: &Changed) -> Result<Properties> {
        let mut properties = Properties::new()
            .with("status", run.state.status.as_str())
            .with("timings", json!(run.timings).to_string())
            .with("auditSequence", i64::try_from(run.audit.sequence).unwrap_or(i64::MAX))
            .with("auditHash", Value::Bytes(run.audit.hash.to_vec()));
        let checkpoint = serde_json::to_string(&run.state).map_err(|error| Error::corrupt(error.to_string()))?;
        self.put_text(scope, &mut properties, "checkpoint", checkpoint).await?;
        if changed.result {
            put_payload(&mut properties, "result", &run.result);
        }
        if changed.variables {
            put_payload(&mut properties, "variables", &run.variables);
        }
        Ok(properties)
    }

    /// A JSON text, as a claim check where it is too long for a property.
    async fn put_text(&self, scope: &Scope, properties: &mut Properties, name: &str, text: String) -> Result<()> {
        let claim = format!("{name}Claim");
        if text.encode_utf16().count() <= TEXT_UNITS {
            properties.set(&claim, "");
            properties.set(name, text);
            return Ok(());
        }
        let check = claim_check::put(self.ports.blobs.as_ref(), scope, text).await?;
        properties.set(name, "");
        properties.set(&claim, json!(check).to_string());
        Ok(())
    }

    pub(super) async fn text<T: serde::de::DeserializeOwned>(
        &self,
        scope: &Scope,
        row: &Properties,
        name: &str,
    ) -> Result<T> {
        match row.text(&format!("{name}Claim"))? {
            None | Some("") => parse(row, name),
            Some(_) => {
                let check = parse::<ClaimCheck>(row, &format!("{name}Claim"))?;
                let value = claim_check::load(self.ports.blobs.as_ref(), scope, &Payload::Claim(check)).await?;
                serde_json::from_value(value)
                    .map_err(|error| Error::corrupt(format!("property `{name}` can't be read: {error}")))
            }
        }
    }

    /// The plan of a header; one that is kept as a claim check is read once.
    pub(super) async fn plan(&self, scope: &Scope, row: &Properties) -> Result<Arc<Plan>> {
        let claim = row.text("planClaim")?.unwrap_or_default().to_owned();
        if claim.is_empty() {
            return Ok(Arc::new(parse(row, "plan")?));
        }
        let known = |plans: &Plans| {
            plans
                .iter()
                .find(|(known, _)| *known == claim)
                .map(|(_, plan)| plan.clone())
        };
        if let Some(plan) = known(&self.plans.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(plan);
        }
        let plan: Arc<Plan> = Arc::new(self.text(scope, row, "plan").await?);
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        plans.push_front((claim, plan.clone()));
        plans.truncate(KEPT_PLANS);
        Ok(plan)
    }

    /// A run, or nothing.
    ///
    /// # Errors
    /// Those of the table store; [`Error::Unreadable`] when there is one that can't be read.
    pub async fn get(&self, scope: &Scope, run: &RunId) -> Result<Option<StoredRun>> {
        let table = key::org_table(scope.org());
        let row = match self
            .ports
            .tables
            .get(&table, &key::run(run), &key::run_header_row())
            .await
        {
            Ok(row) => row,
            // A message about an organization that has been deleted since.
            Err(Error::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        match row {
            Some(row) => match self.read_header(scope, run, &row).await {
                Ok(run) => Ok(Some(run)),
                Err(error) => Err(error.of_run(run)),
            },
            None => Ok(None),
        }
    }

    async fn read_header(&self, scope: &Scope, id: &RunId, row: &Entity) -> Result<StoredRun> {
        let properties = &row.properties;
        let version = properties.require_int("v")?;
        if version != SCHEMA {
            return Err(Error::corrupt(format!(
                "run `{id}` has schema {version}, this build knows {SCHEMA}"
            )));
        }
        let plan = self.plan(scope, properties).await?;
        let state: RunState = self.text(scope, properties, "checkpoint").await?;
        // What follows takes one for the other's steps.
        if state.run != *id || state.steps.len() != plan.steps.len() {
            return Err(Error::corrupt("the checkpoint is not one of the run's plan"));
        }
        Ok(StoredRun {
            new: NewRun {
                run: id.clone(),
                workflow: properties.require_text("workflow")?.to_owned(),
                plan,
                arguments: payload(properties, "arguments")?,
                requester: parse(properties, "requester")?,
                created_at: properties.require_time("createdAt")?,
                request_id: properties.require_text("requestId")?.to_owned(),
                arguments_digest: properties.require_text("argumentsDigest")?.to_owned(),
                idempotent: properties.flag("idempotent")?,
                parent: match properties.text("parent")? {
                    Some(_) => Some(parse(properties, "parent")?),
                    None => None,
                },
                resumes: run_in(properties, "resumes")?,
                ask: match properties.text("ask")? {
                    Some(_) => parse(properties, "ask")?,
                    None => Ask::default(),
                },
            },
            state,
            result: payload(properties, "result")?,
            variables: payload(properties, "variables")?,
            timings: parse(properties, "timings")?,
            audit: Head {
                sequence: u64::try_from(properties.require_int("auditSequence")?).unwrap_or_default(),
                hash: properties
                    .bytes("auditHash")?
                    .and_then(|bytes| bytes.try_into().ok())
                    .ok_or_else(|| Error::corrupt("the head of the audit chain can't be read"))?,
            },
            etag: row.etag.clone(),
        })
    }

    /// The steps of a run. Of one whose row can't be read, what its run says.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn steps(&self, scope: &Scope, run: &StoredRun) -> Result<Vec<StoredStep>> {
        let table = key::org_table(scope.org());
        let mut rows = std::collections::BTreeMap::new();
        let mut continuation = None;
        loop {
            let query = Query::partition(key::run(&run.new.run))
                .prefix("step:")?
                .after(continuation);
            let page = self.ports.tables.query(&table, query).await?;
            rows.extend(page.entities.into_iter().map(|row| (row.row.as_str().to_owned(), row)));
            continuation = page.next;
            if continuation.is_none() {
                break;
            }
        }
        let steps = run.new.plan.steps.iter().zip(&run.state.steps);
        Ok(steps
            .map(|(planned, state)| {
                let row = rows.get(&format!("step:{}", planned.id));
                let mut why = Vec::new();
                let attempts = row.and_then(|row| known(parse(&row.properties, "attempts"), &mut why));
                let mut at = |name: &str| known(row?.properties.time(name), &mut why).flatten();
                let (started_at, finished_at) = (at("startedAt"), at("finishedAt"));
                let mut number = |name: &str| {
                    let number = known(row?.properties.int(name), &mut why).flatten();
                    number.map(|number| u32::try_from(number).unwrap_or_default())
                };
                let kept = number("itemsEnded").map(|ended| Counts {
                    total: number("itemsTotal"),
                    ended,
                    failed: number("itemsFailed").unwrap_or_default(),
                });
                row.and_then(|row| known(has_left(&row.properties), &mut why));
                let since = state.activity.as_ref().map(|activity| activity.since);
                StoredStep {
                    id: planned.id.clone(),
                    kind: planned.work.kind(),
                    status: state.status,
                    rights: planned.work.code().map(|code| code.rights.clone()),
                    branch: state.branch.clone(),
                    counts: state.counts().or(kept),
                    children: children(run, (planned, None), state.attempts),
                    due: state.due(),
                    attempts_begun: state.attempts,
                    started_at: started_at.or(since),
                    finished_at,
                    attempts: attempts.unwrap_or_default(),
                    unreadable: row.and_then(|row| noted(row, &why)),
                }
            })
            .collect())
    }

    /// What came out of a step, or of one of its items; none when it has left nothing.
    ///
    /// # Errors
    /// Those of the table store; [`Error::Unreadable`] when its row can't be read.
    pub async fn left(&self, scope: &Scope, run: &StoredRun, slot: Slot) -> Result<Left> {
        let row = self
            .ports
            .tables
            .get(
                &key::org_table(scope.org()),
                &key::run(&run.new.run),
                &slot_row(run, slot)?,
            )
            .await?;
        let mut left = Left::default();
        if let Some(row) = &row {
            let read = || {
                let output = payload(&row.properties, "output")?;
                let error = match row.properties.text("error")? {
                    Some(_) => parse(&row.properties, "error")?,
                    None => Json::Null,
                };
                Ok(Left { output, error })
            };
            left = read().map_err(|error| of_row(error, run, row))?;
        }
        if slot.1.is_none() && run.new.plan.output == Output::Step(slot.0) {
            left.output = run.result.clone();
        }
        Ok(left)
    }

    /// What came out of the items of a map, in their order; none for one that left nothing.
    ///
    /// # Errors
    /// Those of the table store; [`Error::Unreadable`] when the row of an item can't be read.
    pub async fn item_outputs(&self, scope: &Scope, run: &StoredRun, place: usize) -> Result<Vec<Option<Payload>>> {
        let count = run.state.steps[place].attempts as usize;
        let mut outputs = vec![None; count];
        let prefix = key::item_prefix(&run.new.plan.steps[place].id)?;
        let mut continuation = None;
        loop {
            let query = Query::partition(key::run(&run.new.run))
                .prefix(&prefix)?
                .after(continuation);
            let page = self.ports.tables.query(&key::org_table(scope.org()), query).await?;
            for row in &page.entities {
                let item: Option<usize> = row.row.as_str()[prefix.len()..].parse().ok();
                let Some(output) = item.and_then(|item| outputs.get_mut(item)) else {
                    continue;
                };
                let read = || {
                    let has_succeeded = status_of(&row.properties)? == Status::Succeeded;
                    has_succeeded.then(|| payload(&row.properties, "output")).transpose()
                };
                *output = read().map_err(|error| of_row(error, run, row))?;
            }
            continuation = page.next;
            if continuation.is_none() {
                return Ok(outputs);
            }
        }
    }

    /// A page of the items of a map, or the iterations of a loop, that have ended or been tried, in their order.
    ///
    /// # Errors
    /// Those of the table store; [`Error::Malformed`] for a cursor that is not one.
    pub async fn items(
        &self,
        scope: &Scope,
        run: &StoredRun,
        place: usize,
        limit: usize,
        cursor: Option<Continuation>,
    ) -> Result<(Vec<StoredItem>, Option<Continuation>)> {
        let prefix = key::item_prefix(&run.new.plan.steps[place].id)?;
        let query = Query::partition(key::run(&run.new.run))
            .prefix(&prefix)?
            .limit(limit)
            .after(cursor);
        let page = self.ports.tables.query(&key::org_table(scope.org()), query).await?;
        let planned = &run.new.plan.steps[place];
        let items = page.entities.iter().filter_map(|row| {
            let (properties, mut why) = (&row.properties, Vec::new());
            let Ok(item) = row.row.as_str()[prefix.len()..].parse() else {
                noted(row, &["its name is no item's".to_owned()]);
                return None;
            };
            let begun = known(properties.require_int("attemptsBegun"), &mut why).unwrap_or_default();
            let status = known(status_of(properties), &mut why).unwrap_or(run.state.steps[place].status);
            let mut at = |name: &str| known(properties.time(name), &mut why).flatten();
            let (started_at, finished_at) = (at("startedAt"), at("finishedAt"));
            let attempts = known(parse(properties, "attempts"), &mut why);
            known(has_left(properties), &mut why);
            Some(StoredItem {
                item,
                children: children(run, (planned, Some(item)), u32::try_from(begun).unwrap_or_default()),
                status,
                started_at,
                finished_at,
                attempts: attempts.unwrap_or_default(),
                unreadable: noted(row, &why),
            })
        });
        Ok((items.collect(), page.next))
    }

    /// Puts something into a run's inbox, for whoever drives it; whether it was not there. It is named by its cause, so that a
    /// repeat changes nothing.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn tell(&self, scope: &Scope, run: &RunId, cause: &str, letter: &Letter) -> Result<bool> {
        let operation = Operation::Insert(key::inbox_row(cause), self.letter(scope, letter).await?);
        let table = key::org_table(scope.org());
        match self.ports.tables.commit(&table, &key::run(run), vec![operation]).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// As [`Runs::tell`], once in the life of the run for each of its causes, which are at least one: a repeat is refused also when
    /// the letter has been taken meanwhile.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn tell_once(&self, scope: &Scope, run: &RunId, causes: &[String], letter: &Letter) -> Result<bool> {
        let told = |cause: &String| Operation::Insert(key::told_row(cause), Properties::new().with("v", SCHEMA));
        let mut operations: Vec<_> = causes.iter().map(told).collect();
        if let Some(cause) = causes.first() {
            operations.push(Operation::Insert(
                key::inbox_row(cause),
                self.letter(scope, letter).await?,
            ));
        }
        let table = key::org_table(scope.org());
        match self.ports.tables.commit(&table, &key::run(run), operations).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether something with this cause was told by [`Runs::tell_once`].
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn was_told(&self, scope: &Scope, run: &RunId, cause: &str) -> Result<bool> {
        let (table, row) = (key::org_table(scope.org()), key::told_row(cause));
        Ok(self.ports.tables.get(&table, &key::run(run), &row).await?.is_some())
    }

    /// A letter's row; a long one is a claim check.
    pub(super) async fn letter(&self, scope: &Scope, letter: &Letter) -> Result<Properties> {
        let text = serde_json::to_string(letter).map_err(|error| Error::corrupt(error.to_string()))?;
        let mut properties = Properties::new().with("v", SCHEMA);
        self.put_text(scope, &mut properties, "letter", text).await?;
        Ok(properties)
    }

    /// What is in a run's inbox: at most 20 letters, with their rows; decisions in the order in which they were made.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn inbox(&self, scope: &Scope, run: &RunId) -> Result<Vec<(Key, Letter)>> {
        let query = Query::partition(key::run(run)).prefix(key::INBOX)?.limit(INBOX_AT_ONCE);
        let page = self.ports.tables.query(&key::org_table(scope.org()), query).await?;
        let mut letters = Vec::with_capacity(page.entities.len());
        for row in page.entities {
            let letter = self.text(scope, &row.properties, "letter").await;
            letters.push((row.row, letter.map_err(|error| error.of_run(run))?));
        }
        // A refusal counts before the agreement that came after it.
        letters.sort_by_key(|(_, letter)| match letter {
            Letter::Decided { decision, .. } => Some(decision.at),
            _ => None,
        });
        Ok(letters)
    }

    /// Throws letters away that say nothing any more.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn discard(&self, scope: &Scope, run: &RunId, letters: Vec<Key>) -> Result<()> {
        for row in letters {
            let operation = Operation::Delete(row, Match::Any);
            let table = key::org_table(scope.org());
            match self.ports.tables.commit(&table, &key::run(run), vec![operation]).await {
                Ok(_) | Err(Error::PreconditionFailed { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Keeps a value beside a run: inline, or as a claim check.
    ///
    /// # Errors
    /// Those of the blob store.
    pub async fn keep(&self, scope: &Scope, value: Json) -> Result<Payload> {
        claim_check::save(self.ports.blobs.as_ref(), scope, value).await
    }

    /// A kept value.
    ///
    /// # Errors
    /// Those of the blob store.
    pub async fn resolve(&self, scope: &Scope, payload: &Payload) -> Result<Json> {
        claim_check::load(self.ports.blobs.as_ref(), scope, payload).await
    }

    /// The JSON text of a value that is kept outside of rows, as it is taken: [`claim_check::coming`].
    ///
    /// # Errors
    /// Those of the blob store; [`Error::Corrupt`] when the value is gone.
    pub async fn coming(&self, scope: &Scope, check: &ClaimCheck) -> Result<Coming> {
        claim_check::coming(&self.ports.blobs, scope, check.into(), 0..check.size).await
    }

    /// Lets a row refer to a value that another row has referred to until now. Asked before the row is written, so that the value isn't
    /// deleted with the other.
    ///
    /// # Errors
    /// Those of the blob store; [`Error::Corrupt`] when the value is gone.
    pub async fn rely(&self, scope: &Scope, payload: &Payload) -> Result<()> {
        if claim_check::rely(self.ports.blobs.as_ref(), scope, payload).await? {
            return Ok(());
        }
        Err(Error::corrupt("a value that is still referred to is gone"))
    }

    /// Writes the derived rows of a run and of audit records, in one transaction. Repeating it does no harm, and neither does
    /// being late: a run that goes on is not listed over what somebody knew later, for a run's last row is the one that
    /// nobody mends.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn index(&self, scope: &Scope, run: &StoredRun, audit: &[LinkedRecord]) -> Result<()> {
        let row = key::index_run_row(run.new.created_at, &run.new.run);
        let records = index_operations(audit)?;
        if run.state.status.is_terminal() {
            // Nothing can be newer.
            return self
                .list_with(scope, Operation::Upsert(row, index_row(run)), records)
                .await;
        }
        // After its first transition a run is in no list, so it need not be looked for.
        let mut first = (run.state.sequence == 1).then(|| Operation::Insert(row.clone(), index_row(run)));
        for _ in 0..LIST_TRIES {
            let operation = match first.take() {
                Some(operation) => operation,
                None => match self
                    .ports
                    .tables
                    .get(&key::org_table(scope.org()), &key::index(), &row)
                    .await?
                {
                    None => Operation::Insert(row.clone(), index_row(run)),
                    // One that can't be read is written again.
                    Some(there) if is_newer(&there, run).unwrap_or_default() => break,
                    Some(there) => Operation::Replace(row.clone(), index_row(run), Match::Exactly(there.etag)),
                },
            };
            match self.list_with(scope, operation, records.clone()).await {
                Err(error) if error.is_conflict() => {}
                result => return result,
            }
        }
        // Others have listed the run; what is left are the records.
        if records.is_empty() {
            return Ok(());
        }
        self.commit_list(scope, records).await
    }

    async fn list_with(&self, scope: &Scope, run: Operation, records: Vec<Operation>) -> Result<()> {
        let mut operations = vec![run];
        operations.extend(records);
        self.commit_list(scope, operations).await
    }

    async fn commit_list(&self, scope: &Scope, operations: Vec<Operation>) -> Result<()> {
        let table = key::org_table(scope.org());
        self.ports.tables.commit(&table, &key::index(), operations).await?;
        Ok(())
    }

    /// What lists a run that nobody has listed, and records, together with something else in the same partition.
    pub(super) fn list_operations(run: &StoredRun, audit: &[LinkedRecord]) -> Result<Vec<Operation>> {
        let row = key::index_run_row(run.new.created_at, &run.new.run);
        let mut operations = vec![Operation::Insert(row, index_row(run))];
        operations.extend(index_operations(audit)?);
        Ok(operations)
    }

    /// As [`Runs::list_operations`], for a run that is listed.
    pub(super) fn relist_operations(run: &StoredRun, audit: &[LinkedRecord]) -> Result<Vec<Operation>> {
        let row = key::index_run_row(run.new.created_at, &run.new.run);
        let mut operations = vec![Operation::Upsert(row, index_row(run))];
        operations.extend(index_operations(audit)?);
        Ok(operations)
    }

    /// Runs, newest first.
    ///
    /// # Errors
    /// Those of the table store; [`Error::Malformed`] for a cursor that is not one.
    pub async fn list(&self, scope: &Scope, query: &RunQuery) -> Result<(Vec<ListedRun>, Option<Continuation>)> {
        let mut filters = Vec::new();
        filters.extend(
            query
                .workflow
                .as_ref()
                .map(|workflow| Filter::equal("workflow", workflow.clone())),
        );
        filters.extend(query.status.map(|status| Filter::equal("status", status.as_str())));
        filters.extend(
            query
                .requester
                .as_ref()
                .map(|requester| Filter::equal("requesterId", requester.clone())),
        );
        filters.extend(query.test.map(|test| Filter::equal("test", test)));
        filters.extend(
            query
                .from
                .map(|from| Filter::Is("createdAt".into(), Comparison::GreaterOrEqual, from.into())),
        );
        filters.extend(
            query
                .to
                .map(|to| Filter::Is("createdAt".into(), Comparison::Less, to.into())),
        );
        if let Some(visible) = query.visible.as_ref().filter(|visible| visible.is_short()) {
            let own = Filter::equal("requesterId", visible.requester.clone());
            let of = visible
                .workflows
                .iter()
                .map(|name| Filter::equal("workflow", name.clone()));
            let given = of.reduce(Filter::or).map(|of| Filter::equal("test", false).and(of));
            filters.push(given.into_iter().fold(own, Filter::or));
        }
        let mut base = Query::partition(key::index()).prefix(key::INDEX_RUNS)?;
        if let Some(to) = query.to {
            base.from = Some(Key::new(format!("{}{}", key::INDEX_RUNS, to.reversed()))?);
        }
        if let Some(from) = query.from {
            base.until = Some(Key::new(format!("{}{}:\u{fffd}", key::INDEX_RUNS, from.reversed()))?);
        }
        base.filter = filters.into_iter().reduce(Filter::and);

        let table = key::org_table(scope.org());
        let mut runs = Vec::new();
        let mut cursor = query.cursor.clone();
        let mut scanned = 0;
        loop {
            let wanted = query.limit - runs.len();
            let page = self
                .ports
                .tables
                .query(&table, base.clone().limit(wanted).after(cursor))
                .await?;
            scanned += wanted.max(page.entities.len());
            for row in &page.entities {
                let Some(run) = self.listed(scope, row).await? else {
                    continue;
                };
                if query.visible.as_ref().is_none_or(|visible| visible.has(&run)) {
                    runs.push(run);
                }
            }
            cursor = page.next;
            if cursor.is_none() || runs.len() >= query.limit || scanned >= LIST_SCAN {
                return Ok((runs, cursor));
            }
        }
    }

    /// Why a run was set aside as one that can't be read, if nobody has gone on with it since.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn set_aside(&self, scope: &Scope, run: &StoredRun) -> Result<Option<String>> {
        let row = key::index_run_row(run.new.created_at, &run.new.run);
        let table = key::org_table(scope.org());
        let row = self.ports.tables.get(&table, &key::index(), &row).await?;
        Ok(row.and_then(|row| row.properties.text("setAside").ok()?.map(str::to_owned)))
    }

    /// What a row of the list says. One that can't be read is made again from its run, or said to be so far as the run can be read;
    /// none when that is gone: one row must not hide all others.
    async fn listed(&self, scope: &Scope, row: &Entity) -> Result<Option<ListedRun>> {
        let error = match read_index(row) {
            Ok(run) => return Ok(Some(run)),
            Err(error) => error,
        };
        tracing::warn!(row = %row.row, org.id = %scope.org(), error = %error, "a row of the list of runs can't be read");
        let Ok(id) = row.row.as_str().rsplit(':').next().unwrap_or_default().parse() else {
            return Ok(None);
        };
        let mut mended = row.clone();
        let run = match self.get(scope, &id).await {
            Ok(Some(run)) => run,
            Ok(None) => return Ok(None),
            Err(Error::Unreadable { what, .. }) => {
                let Some(remains) = self.remains(scope, &id).await? else {
                    return Ok(None);
                };
                mended.properties = index_row(&remains.run).with("setAside", what);
                return read_index(&mended).map(Some);
            }
            Err(error) => return Err(error),
        };
        mended.properties = index_row(&run);
        let change = Operation::Replace(row.row.clone(), index_row(&run), Match::Exactly(row.etag.clone()));
        match self.list_with(scope, change, Vec::new()).await {
            Err(error) if !error.is_conflict() => return Err(error),
            _ => {}
        }
        read_index(&mended).map(Some)
    }

    /// Appends lines to an attempt's log; the new end. Lines that stand there already are not written twice: whoever has lost
    /// the answer sends the same again.
    ///
    /// # Errors
    /// Those of the blob store; [`Error::PreconditionFailed`] when something else stands there.
    pub async fn append_log(
        &self,
        scope: &Scope,
        run: &RunId,
        attempt: &AttemptId,
        at: u64,
        lines: &[LogLine],
    ) -> Result<u64> {
        let mut bytes = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut bytes, line).map_err(|error| Error::corrupt(error.to_string()))?;
            bytes.push(b'\n');
        }
        let bytes = Bytes::from(bytes);
        let length = bytes.len() as u64;
        let end = at + length;
        let (container, path) = (key::org_container(scope.org()), key::log_blob(run, attempt));
        let blobs = &self.ports.blobs;
        match blobs.append(&container, &path, at, bytes.clone()).await {
            Err(moved @ Error::PreconditionFailed { .. }) => match blobs.read(&container, &path, at, length).await? {
                Some(there) if there == bytes => Ok(end),
                _ => Err(moved),
            },
            done => done.map(|()| end),
        }
    }

    /// Lines of an attempt's log from an offset on, and the offset behind the last of them. Reads at most 1 MiB.
    ///
    /// # Errors
    /// Those of the blob store.
    pub async fn read_log(
        &self,
        scope: &Scope,
        run: &RunId,
        attempt: &AttemptId,
        offset: u64,
    ) -> Result<(Vec<LogLine>, u64)> {
        let container = key::org_container(scope.org());
        let bytes = self
            .ports
            .blobs
            .read(&container, &key::log_blob(run, attempt), offset, 1 << 20)
            .await?;
        let bytes = bytes.unwrap_or_default();
        // A line may still be in the making at the end.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
        let lines = bytes[..whole]
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).map_err(|_| Error::corrupt("a log line is not JSON")))
            .collect::<Result<_>>()?;
        Ok((lines, offset + whole as u64))
    }
}

impl Visible {
    /// Whether storage is asked for just these. A filter of the service has at most 15 comparisons, of which five are for what else
    /// may be asked.
    fn is_short(&self) -> bool {
        self.workflows.len() <= 8
    }

    fn has(&self, run: &ListedRun) -> bool {
        let is_test = run.workflow_revision.as_ref().is_some_and(WorkflowRevision::is_draft);
        run.requester.id == self.requester || (!is_test && self.workflows.contains(&run.workflow))
    }
}

/// Which values of a header were set with a transition.
struct Changed {
    result: bool,
    variables: bool,
}

/// The value of the step that a run's result comes from is kept once: in the header.
fn whole_result(run: &StoredRun, additions: &mut Additions) {
    if let Output::Step(place) = run.new.plan.output
        && let Some(at) = additions.outputs.iter().position(|(slot, _)| *slot == (place, None))
    {
        additions.result = Some(additions.outputs.swap_remove(at).1);
    }
}

/// What is to be written of a step or item.
struct SlotRow {
    slot: Slot,
    ended: Option<Ended>,
    attempt: Option<AttemptRecord>,
    output: Option<Payload>,
    at: Timestamp,
}

fn rows_of(
    run: &StoredRun,
    transition: &Transition,
    attempts: &[AttemptRecord],
    outputs: Vec<(Slot, Payload)>,
) -> Vec<SlotRow> {
    let mut rows: std::collections::BTreeMap<Slot, SlotRow> = std::collections::BTreeMap::new();
    let at = transition.at();
    let blank = |slot| SlotRow {
        slot,
        ended: None,
        attempt: None,
        output: None,
        at,
    };
    for ended in transition.ended() {
        let row = rows.entry(ended.slot).or_insert_with(|| blank(ended.slot));
        row.output = ended.value.clone().map(Payload::Inline);
        row.ended = Some(ended.clone());
    }
    for attempt in attempts {
        if let Some(place) = run.new.plan.position(&attempt.step) {
            let slot = (place, attempt.item);
            rows.entry(slot).or_insert_with(|| blank(slot)).attempt = Some(attempt.clone());
        }
    }
    for (slot, output) in outputs {
        rows.entry(slot).or_insert_with(|| blank(slot)).output = Some(output);
    }
    rows.into_values().collect()
}

/// The runs that a step, or one of its items, has started with so many tries.
fn children(run: &StoredRun, (step, item): (&StepPlan, Option<u32>), tries: u32) -> Vec<RunId> {
    let waits = match &step.work {
        Work::Once(Action::Child { .. }) => item.is_none(),
        Work::Map {
            action: Action::Child { .. },
            ..
        }
        | Work::Loop {
            action: Action::Child { .. },
            ..
        } => item.is_some(),
        _ => false,
    };
    let tries = if waits { tries } else { 0 };
    (1..=tries)
        .map(|number| scheduler::child(&run.new.run, &step.id, item, number))
        .collect()
}

/// What can't be read is a row of the run.
fn of_row(error: Error, run: &StoredRun, row: &Entity) -> Error {
    match error {
        Error::Corrupt { what } => Error::corrupt(format!("row `{}`: {what}", row.row)).of_run(&run.new.run),
        error => error,
    }
}

fn slot_row(run: &StoredRun, (place, item): Slot) -> Result<Key> {
    let id = &run.new.plan.steps[place].id;
    match item {
        None => key::step_row(id),
        Some(item) => key::item_row(id, item),
    }
}

fn slot_operation(run: &StoredRun, row: SlotRow, mut attempts: Vec<AttemptRecord>) -> Result<Operation> {
    let SlotRow {
        slot,
        ended,
        attempt,
        output,
        at,
    } = row;
    let step = &run.state.steps[slot.0];
    let mut properties = Properties::new().with("v", SCHEMA);
    let has_attempt = attempt.is_some();
    let begun = attempt.as_ref().map(|attempt| attempt.number);
    let since = attempt
        .as_ref()
        .filter(|attempt| attempt.number == 1)
        .map(|attempt| attempt.started_at);
    if let Some(error) = ended.as_ref().and_then(|ended| ended.error.as_ref()) {
        let error = json!({"type": error.kind, "message": error.message});
        properties.set("error", error.to_string());
    }
    match &ended {
        Some(ended) => {
            properties.set("status", ended.status.as_str());
            properties.set("attemptsBegun", i64::from(ended.attempts));
            properties.set("finishedAt", at);
            if let Some(counts) = ended.counts {
                properties.set("itemsEnded", i64::from(counts.ended));
                properties.set("itemsFailed", i64::from(counts.failed));
                if let Some(total) = counts.total {
                    properties.set("itemsTotal", i64::from(total));
                }
            }
            if let Some(started) = ended.started_at.or(since) {
                properties.set("startedAt", started);
            }
        }
        None => {
            properties.set("status", step.status.as_str());
            properties.set("attemptsBegun", i64::from(begun.unwrap_or(step.attempts)));
            if let Some(started) = since {
                properties.set("startedAt", started);
            }
        }
    }
    if let Some(output) = &output {
        put_payload(&mut properties, "output", output);
    }
    let row = slot_row(run, slot)?;
    if !has_attempt && attempts.is_empty() {
        return Ok(Operation::Upsert(row, properties.with("attempts", "[]")));
    }
    attempts.extend(attempt);
    if attempts.len() > KEPT_ATTEMPTS {
        attempts.drain(..attempts.len() - KEPT_ATTEMPTS);
    }
    let mut text = serde_json::to_string(&attempts).map_err(|error| Error::corrupt(error.to_string()))?;
    while text.len() > 30_000 && attempts.len() > 1 {
        attempts.remove(0);
        text = serde_json::to_string(&attempts).map_err(|error| Error::corrupt(error.to_string()))?;
    }
    properties.set("attempts", text);
    if properties.get("startedAt").is_none() {
        // The beginning of the first attempt stays.
        return Ok(Operation::Merge(row, properties, Match::Any));
    }
    Ok(Operation::Upsert(row, properties))
}

pub(super) fn index_row(run: &StoredRun) -> Properties {
    Properties::new()
        .with("v", SCHEMA)
        .with("workflow", run.new.workflow.clone())
        .with("revision", run.new.plan.bundle.clone())
        .with("test", run.new.plan.is_test())
        .with_some(
            "workflowRevision",
            run.new
                .plan
                .revision
                .as_ref()
                .map(|revision| json!(revision).to_string()),
        )
        .with("status", run.state.status.as_str())
        .with("sequence", i64::try_from(run.state.sequence).unwrap_or(i64::MAX))
        .with("requesterId", run.new.requester.id.clone())
        .with("requester", json!(run.new.requester).to_string())
        .with("createdAt", run.new.created_at)
        .with_some("startedAt", run.state.started_at)
        .with_some("finishedAt", run.state.finished_at)
        .with_some("notBefore", run.new.ask.not_before)
        .with_some(
            "concurrency",
            run.new
                .ask
                .concurrency
                .as_ref()
                .map(|asked| key::concurrency(&asked.key)),
        )
        .with_some("errorType", run.state.error.as_ref().map(|error| error.kind.clone()))
}

/// Whether a row of the list is of a later transition than a run that goes on.
fn is_newer(row: &Entity, run: &StoredRun) -> Result<bool> {
    let ended = Status::parse(row.properties.require_text("status")?).is_none_or(Status::is_terminal);
    let sequence = row.properties.int("sequence")?.unwrap_or_default();
    Ok(ended || u64::try_from(sequence).unwrap_or_default() >= run.state.sequence)
}

fn read_index(row: &Entity) -> Result<ListedRun> {
    let properties = &row.properties;
    let id = row.row.as_str().rsplit(':').next().unwrap_or_default();
    Ok(ListedRun {
        run: id.parse().map_err(|_| Error::corrupt("an index row names no run"))?,
        workflow: properties.require_text("workflow")?.to_owned(),
        revision: properties.require_text("revision")?.to_owned(),
        workflow_revision: match properties.text("workflowRevision")? {
            Some(_) => Some(parse(properties, "workflowRevision")?),
            None => None,
        },
        status: status_of(properties)?,
        requester: parse(properties, "requester")?,
        created_at: properties.require_time("createdAt")?,
        started_at: properties.time("startedAt")?,
        finished_at: properties.time("finishedAt")?,
        error_type: properties.text("errorType")?.map(str::to_owned),
        not_before: properties.time("notBefore")?,
        set_aside: properties.text("setAside")?.map(str::to_owned),
    })
}

pub(super) fn put_payload(properties: &mut Properties, name: &str, value: &Payload) {
    match value {
        Payload::Inline(Json::Null) => {}
        // Both, since a merge leaves what it doesn't name.
        Payload::Inline(value) => {
            properties.set(name, value.to_string());
            properties.set(&format!("{name}Claim"), "");
        }
        Payload::Claim(check) => {
            properties.set(name, "");
            properties.set(&format!("{name}Claim"), json!(check).to_string());
        }
    }
}

pub(super) fn payload(properties: &Properties, name: &str) -> Result<Payload> {
    let given = |name: &str| -> Result<bool> { Ok(properties.text(name)?.is_some_and(|text| !text.is_empty())) };
    if given(name)? {
        return Ok(Payload::Inline(parse(properties, name)?));
    }
    let claim = format!("{name}Claim");
    if given(&claim)? {
        return Ok(Payload::Claim(parse::<ClaimCheck>(properties, &claim)?));
    }
    Ok(Payload::Inline(Json::Null))
}

/// The run that a property names, if it is there.
pub(super) fn run_in(properties: &Properties, name: &str) -> Result<Option<RunId>> {
    let text = properties.text(name)?;
    text.map(|text| {
        text.parse()
            .map_err(|_| Error::corrupt(format!("property `{name}` is no run")))
    })
    .transpose()
}

fn status_of(properties: &Properties) -> Result<Status> {
    let status = Status::parse(properties.require_text("status")?);
    status.ok_or_else(|| Error::corrupt("property `status` is none that is known"))
}

/// Whether what a step or an item has left can be read.
fn has_left(properties: &Properties) -> Result<()> {
    for name in ["output", "error"] {
        if properties.text(name)?.is_some_and(|text| !text.is_empty()) {
            parse::<serde::de::IgnoredAny>(properties, name)?;
        }
    }
    Ok(())
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(properties: &Properties, name: &str) -> Result<T> {
    serde_json::from_str(properties.require_text(name)?)
        .map_err(|error| Error::corrupt(format!("property `{name}` can't be read: {error}")))
}

/// The id of the run that an idempotency key leads to. `generation` rises when the key is used again after its answer has
/// expired.
#[must_use]
pub fn idempotent_run(org: &OrgId, workflow: &str, caller: &str, idempotency_key: &str, generation: u32) -> RunId {
    let cause = sha256_hex(format!("{org}\n{workflow}\n{caller}\n{generation}\n{idempotency_key}").as_bytes());
    // No time in it: a repeat must find the same id.
    RunId::derived(Timestamp::from_millis(0), &cause)
}

/// The id of the run that resumes another.
#[must_use]
pub fn resumed_run(scope: &Scope, run: &RunId, cause: &str) -> RunId {
    let cause = format!("{}\n{run}\nresume\n{cause}", scope.org());
    RunId::derived(Timestamp::from_millis(0), &sha256_hex(cause.as_bytes()))
}

/// The id of the run that a step's call leads to: the same for every attempt of the step.
#[must_use]
pub fn sub_run(org: &OrgId, parent: &Parent, cause: &str) -> RunId {
    let cause = format!("{org}\n{}\n{}\n{cause}", parent.run, parent.step);
    RunId::derived(Timestamp::from_millis(0), &sha256_hex(cause.as_bytes()))
}
