//! Runs that can't be read: what of them still can, and putting something that can in their place.
//!
//! A run is unreadable when its header, its plan or its checkpoint is not what this build writes: a newer build has written it,
//! something has overwritten it, or a value beside it is gone. Nobody can go on with it then, so it is set aside until somebody
//! has mended storage, or ends it.

use serde_json::json;

use super::audit_log::rows_for_run;
use super::damage::{known, readable};
use super::runs::{
    Committed, NewRun, Requester, Runs, SCHEMA, StoredRun, TEXT_UNITS, Timings, index_row, parse, payload, run_in,
};
use crate::audit::{Head, SealedRecord};
use crate::domain::{Ask, Payload, RunId, Status, StepError, Timestamp};
use crate::scheduler::{Fact, Output, Plan, RunState, StepState};
use crate::store::error::Error;
use crate::store::key;
use crate::store::port::{Entity, Match, Operation, Properties, Query, Result};
use crate::tenancy::Scope;

/// What is left of a run that can't be read.
#[derive(Debug, Clone)]
pub struct Remains {
    /// The run as far as it can be told; what can't is empty. Good for showing, and for nothing else.
    pub run: StoredRun,
    /// What can't be read, in one sentence; none when all can.
    pub why: Option<String>,
    /// Whether a newer build has written it, which may well read it.
    pub is_newer: bool,
    /// Whether it is known what was asked for beside the arguments: its rank, its concurrency key.
    pub has_ask: bool,
    /// Whether it is known to the millisecond when it was asked for, which names its rows in lists.
    pub has_time: bool,
    row: Entity,
}

impl Runs {
    /// What is left of a run, whatever of it can be read; nothing when there is no such run.
    ///
    /// # Errors
    /// Those of the stores, but for what can't be read.
    pub async fn remains(&self, scope: &Scope, run: &RunId) -> Result<Option<Remains>> {
        let table = key::org_table(scope.org());
        let row = match self
            .ports
            .tables
            .get(&table, &key::run(run), &key::run_header_row())
            .await
        {
            Ok(Some(row)) => row,
            Ok(None) | Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let properties = &row.properties;
        let mut why = Vec::new();
        let version = known(properties.require_int("v"), &mut why);
        if let Some(version) = version.filter(|version| *version != SCHEMA) {
            why.push(format!("it has schema {version}, this build knows {SCHEMA}"));
        }
        let workflow = known(properties.require_text("workflow").map(str::to_owned), &mut why);
        let created_at = match known(properties.require_time("createdAt"), &mut why) {
            Some(at) => Some(at),
            // It was asked for when its first transition was decided on.
            None => match self.first_event(scope, run).await? {
                Some(event) => known(event.properties.require_time("at"), &mut why),
                None => None,
            },
        };
        let ask = match known(properties.text("ask"), &mut why) {
            Some(Some(_)) => known(parse::<Ask>(properties, "ask"), &mut why),
            Some(None) => Some(Ask::default()),
            None => None,
        };
        let parent = match known(properties.text("parent"), &mut why) {
            Some(Some(_)) => known(parse(properties, "parent"), &mut why),
            _ => None,
        };
        let unknown = || Requester {
            kind: "system".to_owned(),
            id: "unknown".to_owned(),
            name: "unknown".to_owned(),
            claimed_user: None,
        };
        let status = known(properties.require_text("status"), &mut why).and_then(Status::parse);
        let plan = readable(self.plan(scope, properties).await, &mut why)?;
        let state = readable(self.text::<RunState>(scope, properties, "checkpoint").await, &mut why)?;
        let has_time = created_at.is_some();
        let has_ask = ask.is_some();
        // About then; ids that follow from a cause have no time.
        let created_at = created_at.unwrap_or_else(|| run.at());
        let workflow = workflow.unwrap_or_else(|| "unknown".to_owned());
        let plan = plan.unwrap_or_else(|| std::sync::Arc::new(no_plan(&workflow)));
        let is_one = |state: &RunState| state.run == *run && state.steps.len() == plan.steps.len();
        let sequence = self.last(scope, run, key::EVENTS).await?;
        let sequence = sequence.as_ref().and_then(number);
        let state = match state {
            Some(mut state) if is_one(&state) => {
                if sequence.is_some_and(|last| last > state.sequence) {
                    why.push("the header is older than the run's events".to_owned());
                }
                state.sequence = state.sequence.max(sequence.unwrap_or_default());
                state
            }
            read => {
                if let Some(read) = &read
                    && !plan.steps.is_empty()
                {
                    let (steps, planned) = (read.steps.len(), plan.steps.len());
                    why.push(format!(
                        "the checkpoint is of {steps} steps, and the plan has {planned}"
                    ));
                }
                RunState {
                    steps: vec![StepState::pending(); plan.steps.len()],
                    ..read.unwrap_or_else(|| no_state(run, status, created_at, sequence.unwrap_or(0)))
                }
            }
        };
        let audit = match (properties.require_int("auditSequence"), properties.bytes("auditHash")) {
            (Ok(sequence), Ok(Some(hash))) => u64::try_from(sequence).ok().zip(hash.try_into().ok()),
            _ => None,
        };
        let last = self.last_record(scope, run).await?;
        let audit = match audit {
            Some((sequence, hash)) if sequence >= last.sequence => Head { sequence, hash },
            Some(_) => {
                why.push("the header is older than the run's audit records".to_owned());
                last
            }
            None => {
                why.push("the head of the audit chain can't be read".to_owned());
                last
            }
        };
        let new = NewRun {
            run: run.clone(),
            workflow,
            plan,
            arguments: known(payload(properties, "arguments"), &mut why).unwrap_or_else(nothing),
            requester: known(parse(properties, "requester"), &mut why).unwrap_or_else(unknown),
            created_at,
            request_id: known(properties.require_text("requestId"), &mut why)
                .unwrap_or_default()
                .to_owned(),
            arguments_digest: known(properties.require_text("argumentsDigest"), &mut why)
                .unwrap_or_default()
                .to_owned(),
            idempotent: known(properties.flag("idempotent"), &mut why).unwrap_or_default(),
            parent,
            resumes: known(run_in(properties, "resumes"), &mut why).flatten(),
            ask: ask.unwrap_or_default(),
        };
        let stand_in = StoredRun {
            new,
            state,
            result: known(payload(properties, "result"), &mut why).unwrap_or_else(nothing),
            variables: known(payload(properties, "variables"), &mut why).unwrap_or_else(nothing),
            timings: known(parse::<Timings>(properties, "timings"), &mut why).unwrap_or_default(),
            audit,
            etag: row.etag.clone(),
        };
        Ok(Some(Remains {
            run: stand_in,
            why: (!why.is_empty()).then(|| why.join("; ")),
            is_newer: version.is_some_and(|version| version > SCHEMA),
            has_ask,
            has_time,
            row,
        }))
    }

    /// Ends a run that can't be read: what is known of it becomes a run that has ended and can be read. The texts that can't be
    /// read stay in its header, for whoever wants to know.
    ///
    /// # Errors
    /// Those of the table store; [`Error::PreconditionFailed`] when somebody else wrote first.
    pub async fn bury(
        &self,
        scope: &Scope,
        remains: Remains,
        error: StepError,
        at: Timestamp,
        audit: Vec<SealedRecord>,
    ) -> Result<Committed> {
        let Remains { mut run, row, why, .. } = remains;
        let state = &mut run.state;
        if !state.status.is_terminal() {
            state.status = Status::Cancelled;
        }
        state.error.get_or_insert(error);
        (state.epoch, state.sequence) = (state.epoch + 1, state.sequence + 1);
        (state.owner, state.lease_until, state.finished_at) = (None, None, Some(state.finished_at.unwrap_or(at)));
        (state.verdict, state.yields) = (None, false);
        let children = state.steps.iter().flat_map(StepState::units);
        let children: Vec<_> = children.filter_map(|(_, unit)| unit.child.clone()).collect();
        state.orphans.extend(children);
        for step in state.steps.iter_mut().filter(|step| !step.status.is_terminal()) {
            (step.status, step.activity) = (Status::Cancelled, None);
        }
        let fact = json!([Fact::RunStatus { status: state.status }]);
        let event = Properties::new()
            .with("v", 1_i64)
            .with("at", at)
            .with("facts", fact.to_string());
        let event = Operation::Insert(key::event_row(state.sequence), event);
        let audit = rows_for_run(scope, &run.new.run, &run.audit, audit);
        run.audit = audit.head;
        let mut properties = self.header(scope, &run).await?;
        properties.set(
            "unreadable",
            why.unwrap_or_default().chars().take(TEXT_UNITS / 2).collect::<String>(),
        );
        for name in ["plan", "checkpoint", "requester", "ask"] {
            if let Ok(Some(text)) = row.properties.text(name)
                && properties.text(name)? != Some(text)
                && text.encode_utf16().count() <= TEXT_UNITS
            {
                properties.set(&format!("was{}{}", name[..1].to_uppercase(), &name[1..]), text);
            }
        }
        let header = Operation::Replace(key::run_header_row(), properties, Match::Exactly(row.etag));
        let mut operations = vec![header, event];
        operations.extend(audit.operations);
        let table = key::org_table(scope.org());
        let etags = self
            .ports
            .tables
            .commit(&table, &key::run(&run.new.run), operations)
            .await?;
        let etag = etags.into_iter().next();
        run.etag = etag.ok_or_else(|| Error::corrupt("a commit answered no ETag"))?;
        Ok((run, audit.records))
    }

    /// Says in the list of runs that one is set aside, and why.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn list_set_aside(&self, scope: &Scope, remains: &Remains, why: &str) -> Result<()> {
        if !remains.has_time {
            return Ok(());
        }
        let (run, why) = (&remains.run, why.to_owned());
        let row = key::index_run_row(run.new.created_at, &run.new.run);
        let mark = Operation::Merge(row.clone(), Properties::new().with("setAside", why.clone()), Match::Any);
        let table = key::org_table(scope.org());
        match self.ports.tables.commit(&table, &key::index(), vec![mark]).await {
            Err(Error::PreconditionFailed { .. }) => {
                let listed = Operation::Insert(row, index_row(run).with("setAside", why));
                match self.ports.tables.commit(&table, &key::index(), vec![listed]).await {
                    Err(Error::AlreadyExists { .. }) | Ok(_) => Ok(()),
                    Err(error) => Err(error),
                }
            }
            marked => marked.map(drop),
        }
    }

    async fn first_event(&self, scope: &Scope, run: &RunId) -> Result<Option<Entity>> {
        let query = Query::partition(key::run(run)).prefix(key::EVENTS)?.limit(1);
        let page = self.ports.tables.query(&key::org_table(scope.org()), query).await?;
        Ok(page.entities.into_iter().next())
    }

    /// The last row of a run's partition with a prefix.
    async fn last(&self, scope: &Scope, run: &RunId, prefix: &str) -> Result<Option<Entity>> {
        let (mut last, mut after) = (None, None);
        loop {
            let query = Query::partition(key::run(run)).prefix(prefix)?.after(after);
            let page = self.ports.tables.query(&key::org_table(scope.org()), query).await?;
            // Of rows that are numbered, the last; others may stand among them.
            let numbered = |row: &Entity| {
                row.row.as_str()[prefix.len()..]
                    .bytes()
                    .all(|byte| byte.is_ascii_digit())
            };
            last = page.entities.into_iter().rfind(numbered).or(last);
            after = page.next;
            if after.is_none() {
                return Ok(last);
            }
        }
    }

    /// Where the chain of a run's records ends. A record that can't be read keeps its place: what follows it is linked to nothing, as
    /// whoever verifies the chain is told.
    async fn last_record(&self, scope: &Scope, run: &RunId) -> Result<Head> {
        let Some(row) = self.last(scope, run, "audit:").await? else {
            return Ok(Head::EMPTY);
        };
        let hash = row.properties.bytes("hash").ok().flatten();
        Ok(Head {
            sequence: number(&row).unwrap_or_default(),
            hash: hash.and_then(|hash| hash.try_into().ok()).unwrap_or_default(),
        })
    }
}

/// The number that ends a row's name.
fn number(row: &Entity) -> Option<u64> {
    row.row.as_str().rsplit(':').next()?.parse().ok()
}

const fn nothing() -> Payload {
    Payload::Inline(serde_json::Value::Null)
}

fn no_plan(workflow: &str) -> Plan {
    Plan {
        workflow: workflow.to_owned(),
        bundle: String::new(),
        revision: None,
        environment: None,
        profile: None,
        steps: Vec::new(),
        output: Output::Value(serde_json::Value::Null),
        active: 1,
        deadline_ms: None,
    }
}

fn no_state(run: &RunId, status: Option<Status>, created_at: Timestamp, sequence: u64) -> RunState {
    RunState {
        run: run.clone(),
        status: status.unwrap_or(Status::Running),
        epoch: 1,
        owner: None,
        lease_until: None,
        deadline: created_at,
        started_at: None,
        finished_at: None,
        error: None,
        phase: crate::domain::Phase::Main,
        verdict: None,
        concluded: false,
        yields: false,
        orphans: Vec::new(),
        sequence,
        steps: Vec::new(),
    }
}
