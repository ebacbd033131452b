//! Runs: each in one partition, each transition one entity-group transaction fenced by the header's ETag.

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::audit_log::{index_operations, rows_for_run};
use crate::audit::{Head, LinkedRecord, SealedRecord};
use crate::domain::{
    AttemptId, ClaimCheck, LogLine, NetworkUse, OrgId, Payload, Rights, RunId, Status, StepError, Timestamp, sha256_hex,
};
use crate::scheduler::{Plan, RunState, Transition};
use crate::store::claim_check;
use crate::store::error::Error;
use crate::store::key;
use crate::store::port::{
    Comparison, Continuation, ETag, Entity, Filter, Key, Match, Operation, Ports, Properties, Query, Result, Value,
};
use crate::tenancy::Scope;

/// The shape of the rows that this build writes. Readers convert older ones; there are none yet.
const SCHEMA: i64 = 1;

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
}

/// What a run is, from its first commit on.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRun {
    /// Its id.
    pub run: RunId,
    /// The workflow.
    pub workflow: String,
    /// What is executed.
    pub plan: Plan,
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
    etag: ETag,
}

/// What a transition adds beside the state.
#[derive(Debug, Default)]
pub struct Additions {
    /// The run's result.
    pub result: Option<Payload>,
    /// `ctx.variables`.
    pub variables: Option<Payload>,
    /// The new sums.
    pub timings: Option<Timings>,
    /// Attempts that ended with this transition.
    pub attempts: Vec<AttemptRecord>,
    /// Audit records of the transition.
    pub audit: Vec<SealedRecord>,
}

/// One attempt as the step's row keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttemptRecord {
    /// The step.
    pub step: String,
    /// Its id.
    #[schema(value_type = String)]
    pub id: AttemptId,
    /// Its number, from 1.
    pub number: u32,
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
    /// Its status.
    pub status: Status,
    /// What its attempts may do at most, as the plan has it.
    pub rights: Rights,
    /// Attempts begun.
    pub attempts_begun: u32,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// Ended attempts, in order; the newest hundred.
    pub attempts: Vec<AttemptRecord>,
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
    ports: Ports,
}

impl Runs {
    /// Over these ports.
    #[must_use]
    pub const fn new(ports: Ports) -> Self {
        Self { ports }
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
        additions: Additions,
        etag: Option<ETag>,
    ) -> Result<Committed> {
        run.state = transition.state().clone();
        let partition = key::run(&run.new.run);
        let audit = rows_for_run(scope, &run.new.run, &run.audit, additions.audit);
        run.audit = audit.head;
        run.result = additions.result.unwrap_or(run.result);
        run.variables = additions.variables.unwrap_or(run.variables);
        run.timings = additions.timings.unwrap_or(run.timings);

        let mut operations = vec![match &etag {
            None => Operation::Insert(key::run_header_row(), header(&run)),
            Some(etag) => Operation::Replace(key::run_header_row(), header(&run), Match::Exactly(etag.clone())),
        }];
        for place in transition.changed_steps() {
            let id = &run.new.plan.steps[*place].id;
            let ended = additions.attempts.iter().find(|attempt| attempt.step == *id);
            let kept = match ended {
                Some(_) if run.state.steps[*place].attempts > 1 => self.attempts_of(scope, &run.new.run, id).await?,
                _ => Vec::new(),
            };
            operations.push(step_operation(&run, *place, kept, ended)?);
        }
        if !transition.facts().is_empty() {
            let facts = serde_json::to_string(transition.facts()).map_err(|error| Error::corrupt(error.to_string()))?;
            let properties = Properties::new().with("v", SCHEMA).with("facts", facts);
            operations.push(Operation::Insert(key::event_row(run.state.sequence), properties));
        }
        operations.extend(audit.operations);
        let mut etags = self
            .ports
            .tables
            .commit(&key::org_table(scope.org()), &partition, operations)
            .await?;
        if etags.is_empty() {
            return Err(Error::corrupt("a commit answered no ETag"));
        }
        run.etag = etags.swap_remove(0);
        Ok((run, audit.records))
    }

    async fn attempts_of(&self, scope: &Scope, run: &RunId, step: &str) -> Result<Vec<AttemptRecord>> {
        let row = self
            .ports
            .tables
            .get(&key::org_table(scope.org()), &key::run(run), &key::step_row(step)?)
            .await?;
        match row {
            Some(row) => parse(&row.properties, "attempts"),
            None => Ok(Vec::new()),
        }
    }

    /// A run, or nothing.
    ///
    /// # Errors
    /// Those of the table store.
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
        row.map(|row| read_header(run, &row)).transpose()
    }

    /// The steps of a run that have begun.
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
        run.new
            .plan
            .steps
            .iter()
            .zip(&run.state.steps)
            .map(|(planned, state)| {
                let attempts = match rows.get(&format!("step:{}", planned.id)) {
                    Some(row) => parse(&row.properties, "attempts")?,
                    None => Vec::new(),
                };
                Ok(StoredStep {
                    id: planned.id.clone(),
                    status: state.status,
                    rights: planned.rights.clone(),
                    attempts_begun: state.attempts,
                    started_at: state.started_at,
                    finished_at: state.finished_at,
                    attempts,
                })
            })
            .collect()
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
        // A run that was just asked for, or was taken in the same moment, is in no list, so it need not be looked for.
        let is_new =
            run.state.sequence == 1 || run.state.sequence == 2 && run.state.started_at == Some(run.new.created_at);
        let mut first = is_new.then(|| Operation::Insert(row.clone(), index_row(run)));
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
                    Some(there) if is_newer(&there, run)? => break,
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
                runs.push(read_index(row)?);
            }
            cursor = page.next;
            if cursor.is_none() || runs.len() >= query.limit || scanned >= LIST_SCAN {
                return Ok((runs, cursor));
            }
        }
    }

    /// Appends lines to an attempt's log; the new end.
    ///
    /// # Errors
    /// Those of the blob store.
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
        let end = at + bytes.len() as u64;
        self.ports
            .blobs
            .append(
                &key::org_container(scope.org()),
                &key::log_blob(run, attempt),
                at,
                bytes.into(),
            )
            .await?;
        Ok(end)
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

fn header(run: &StoredRun) -> Properties {
    let new = &run.new;
    let json = |value: Json| value.to_string();
    let mut properties = Properties::new()
        .with("v", SCHEMA)
        .with("workflow", new.workflow.clone())
        .with("status", run.state.status.as_str())
        .with("createdAt", new.created_at)
        .with("plan", json(json!(new.plan)))
        .with("checkpoint", json(json!(run.state)))
        .with("requester", json(json!(new.requester)))
        .with("requestId", new.request_id.clone())
        .with("argumentsDigest", new.arguments_digest.clone())
        .with("idempotent", new.idempotent)
        .with_some("parent", new.parent.as_ref().map(|parent| json(json!(parent))))
        .with("timings", json(json!(run.timings)))
        .with("auditSequence", i64::try_from(run.audit.sequence).unwrap_or(i64::MAX))
        .with("auditHash", Value::Bytes(run.audit.hash.to_vec()));
    put_payload(&mut properties, "arguments", &new.arguments);
    put_payload(&mut properties, "result", &run.result);
    put_payload(&mut properties, "variables", &run.variables);
    properties
}

fn read_header(id: &RunId, row: &Entity) -> Result<StoredRun> {
    let properties = &row.properties;
    let version = properties.require_int("v")?;
    if version != SCHEMA {
        return Err(Error::corrupt(format!(
            "run `{id}` has schema {version}, this build knows {SCHEMA}"
        )));
    }
    Ok(StoredRun {
        new: NewRun {
            run: id.clone(),
            workflow: properties.require_text("workflow")?.to_owned(),
            plan: parse(properties, "plan")?,
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
        },
        state: parse(properties, "checkpoint")?,
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

fn step_operation(
    run: &StoredRun,
    place: usize,
    mut attempts: Vec<AttemptRecord>,
    ended: Option<&AttemptRecord>,
) -> Result<Operation> {
    let state = &run.state.steps[place];
    let mut properties = Properties::new()
        .with("v", SCHEMA)
        .with("status", state.status.as_str())
        .with("attemptsBegun", i64::from(state.attempts))
        .with_some("startedAt", state.started_at)
        .with_some("finishedAt", state.finished_at);
    let row = key::step_row(&run.new.plan.steps[place].id)?;
    let Some(ended) = ended else {
        // What ended attempts left in the row stays; only the first attempt to begin finds none.
        if state.attempts > 1 || (state.attempts == 1 && state.status != Status::Running) {
            return Ok(Operation::Merge(row, properties, Match::Any));
        }
        return Ok(Operation::Upsert(row, properties.with("attempts", "[]")));
    };
    attempts.push(ended.clone());
    if attempts.len() > KEPT_ATTEMPTS {
        attempts.drain(..attempts.len() - KEPT_ATTEMPTS);
    }
    let mut text = serde_json::to_string(&attempts).map_err(|error| Error::corrupt(error.to_string()))?;
    while text.len() > 30_000 && attempts.len() > 1 {
        attempts.remove(0);
        text = serde_json::to_string(&attempts).map_err(|error| Error::corrupt(error.to_string()))?;
    }
    properties.set("attempts", text);
    Ok(Operation::Upsert(row, properties))
}

fn index_row(run: &StoredRun) -> Properties {
    Properties::new()
        .with("v", SCHEMA)
        .with("workflow", run.new.workflow.clone())
        .with("revision", run.new.plan.bundle.clone())
        .with("status", run.state.status.as_str())
        .with("sequence", i64::try_from(run.state.sequence).unwrap_or(i64::MAX))
        .with("requesterId", run.new.requester.id.clone())
        .with("requester", json!(run.new.requester).to_string())
        .with("createdAt", run.new.created_at)
        .with_some("startedAt", run.state.started_at)
        .with_some("finishedAt", run.state.finished_at)
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
        status: Status::parse(properties.require_text("status")?).ok_or_else(|| Error::corrupt("unknown status"))?,
        requester: parse(properties, "requester")?,
        created_at: properties.require_time("createdAt")?,
        started_at: properties.time("startedAt")?,
        finished_at: properties.time("finishedAt")?,
        error_type: properties.text("errorType")?.map(str::to_owned),
    })
}

fn put_payload(properties: &mut Properties, name: &str, value: &Payload) {
    match value {
        Payload::Inline(Json::Null) => {}
        Payload::Inline(value) => properties.set(name, value.to_string()),
        Payload::Claim(check) => properties.set(&format!("{name}Claim"), json!(check).to_string()),
    }
}

fn payload(properties: &Properties, name: &str) -> Result<Payload> {
    if properties.text(name)?.is_some() {
        return Ok(Payload::Inline(parse(properties, name)?));
    }
    let claim = format!("{name}Claim");
    if properties.text(&claim)?.is_some() {
        return Ok(Payload::Claim(parse::<ClaimCheck>(properties, &claim)?));
    }
    Ok(Payload::Inline(Json::Null))
}

fn parse<T: serde::de::DeserializeOwned>(properties: &Properties, name: &str) -> Result<T> {
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

/// The id of the run that a step's call leads to: the same for every attempt of the step.
#[must_use]
pub fn sub_run(org: &OrgId, parent: &Parent, cause: &str) -> RunId {
    let cause = format!("{org}\n{}\n{}\n{cause}", parent.run, parent.step);
    RunId::derived(Timestamp::from_millis(0), &sha256_hex(cause.as_bytes()))
}
