//! Blobs that nothing refers to any more: what finds them, and what keeps those that are relied upon.
//!
//! A pass over an organization has two parts. First everything is marked that rows refer to; then blobs are deleted that have no mark of
//! this pass and are older than the pass by a grace time. Why nothing is lost that a row refers to:
//!
//! - Whoever writes a blob, or relies on one that is there, gives it a new version and time ([`claim_check::put_once`],
//!   [`claim_check::rely`]), and writes the row that refers to it within the grace time.
//! - A blob is deleted only in the version that was listed, and only if its time then lay a grace time before the pass began. Whoever
//!   has relied on it since has changed its version, so it isn't deleted. Whoever has relied on it before had written the row when the
//!   pass began, so it is marked.
//! - A reference that moves from row to row of a run (letter, step, header) is looked for in that order, so it can't slip behind.
//!   One that is copied to another run is relied upon anew.
//!
//! So it doesn't matter how long a pass takes, who dies, and how late a deletion arrives. Progress is one row under a lease; what is done
//! twice does no harm.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::domain::{ClaimCheck, Payload, RunId, Timestamp};
use crate::store::claim_check;
use crate::store::error::Error;
use crate::store::key::{self, BlobKind};
use crate::store::port::{
    BlobInfo, BlobPage, Continuation, ETag, Entity, Key, MAX_BATCH_OPERATIONS, Match, Operation, Ports, Properties,
    Query, Result,
};
use crate::tenancy::Scope;

const SCHEMA: i64 = 1;

/// The properties that refer to values, wherever they are: all that `put_payload` and `put_text` write.
pub const CLAIMS: [&str; 9] = [
    "argumentsClaim",
    "checkpointClaim",
    "draftClaim",
    "graphClaim",
    "letterClaim",
    "outputClaim",
    "planClaim",
    "resultClaim",
    "variablesClaim",
];

/// What a pass does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing, until the next begins.
    #[default]
    Idle,
    /// It marks what results for later runs refer to.
    Results,
    /// It marks what workflows refer to.
    Workflows,
    /// It marks what runs refer to.
    Runs,
    /// It deletes artifacts without a mark.
    Artifacts,
    /// It deletes values without a mark.
    Values,
}

/// How far an organization is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Progress {
    /// The number of the pass, from 1; 0 before the first.
    pub pass: u64,
    /// What it does.
    pub phase: Phase,
    /// When it began; while there was none, when one was first thought of.
    pub began_at: Timestamp,
    /// The last row or blob that is done with, where the phase goes by rows or blobs.
    pub after: Option<String>,
    /// Where the list of blobs goes on.
    pub list: Option<String>,
    /// What this pass has found and done.
    pub counts: Counts,
    /// The same of the last whole pass.
    pub last: Option<Counts>,
    /// Until when somebody is at it.
    pub lease: Timestamp,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            pass: 0,
            phase: Phase::Idle,
            began_at: Timestamp::from_millis(0),
            after: None,
            list: None,
            counts: Counts::default(),
            last: None,
            lease: Timestamp::from_millis(0),
        }
    }
}

/// What a pass has found and done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counts {
    /// Runs that were looked at.
    pub runs: u64,
    /// Blobs that stayed.
    pub kept: u64,
    /// Their bytes.
    pub kept_bytes: u64,
    /// Those of artifacts among them.
    pub kept_artifact_bytes: u64,
    /// Blobs that were deleted.
    pub freed: u64,
    /// Their bytes.
    pub freed_bytes: u64,
}

/// A blob that a row refers to, as the row that marks it.
pub type Marks = BTreeSet<Key>;

/// How many calls of storage may still be made.
#[derive(Debug)]
pub struct Budget(u32);

impl Budget {
    /// So many.
    #[must_use]
    pub const fn new(calls: u32) -> Self {
        Self(calls)
    }

    /// Takes as many as are left, at most so many.
    pub fn share(&mut self, calls: u32) -> Self {
        let share = self.0.min(calls);
        self.0 -= share;
        Self(share)
    }

    /// Gives back what a share has left.
    pub const fn give_back(&mut self, share: &Self) {
        self.0 += share.0;
    }

    /// How many are left.
    #[must_use]
    pub const fn left(&self) -> u32 {
        self.0
    }

    const fn spend(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }
}

/// Collectors of organizations.
#[derive(Debug, Clone)]
pub struct Collector {
    ports: Ports,
}

impl Collector {
    /// Over these ports.
    #[must_use]
    pub const fn new(ports: Ports) -> Self {
        Self { ports }
    }

    /// How far an organization is, and the version of that; nothing before anybody has looked.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn progress(&self, scope: &Scope) -> Result<Option<(Progress, ETag)>> {
        let table = key::org_table(scope.org());
        let row = self
            .ports
            .tables
            .get(&table, &key::collector(), &key::collector_row())
            .await?;
        row.map(|row| {
            let progress = serde_json::from_str(row.properties.require_text("progress")?)
                .map_err(|_| Error::corrupt("the progress of a collector can't be read"))?;
            Ok((progress, row.etag))
        })
        .transpose()
    }

    /// Writes how far it is, in place of what was read.
    ///
    /// # Errors
    /// Those of the table store; a conflict when somebody else was faster.
    pub async fn save(&self, scope: &Scope, progress: &Progress, before: Option<ETag>) -> Result<ETag> {
        let text = serde_json::to_string(progress).map_err(|error| Error::corrupt(error.to_string()))?;
        let properties = Properties::new().with("v", SCHEMA).with("progress", text);
        let row = key::collector_row();
        let operation = match before {
            None => Operation::Insert(row, properties),
            Some(etag) => Operation::Replace(row, properties, Match::Exactly(etag)),
        };
        let table = key::org_table(scope.org());
        let mut etags = self
            .ports
            .tables
            .commit(&table, &key::collector(), vec![operation])
            .await?;
        etags.pop().ok_or_else(|| Error::corrupt("a write has no version"))
    }

    /// Marks what rows of a partition refer to, from behind a row on, as far as the budget allows; the last row that is done with, none
    /// when all are.
    ///
    /// # Errors
    /// Those of the stores.
    pub async fn mark_partition(
        &self,
        scope: &Scope,
        partition: Key,
        pass: u64,
        after: Option<String>,
        budget: &mut Budget,
    ) -> Result<Option<String>> {
        let mut after = after;
        while budget.left() > 0 {
            let mut query = Query::partition(partition.clone());
            query.from = from(after.as_deref())?;
            query.select = selected();
            budget.spend();
            let page = self.ports.tables.query(&key::org_table(scope.org()), query).await?;
            let mut marks = Marks::new();
            for row in page.entities.iter().filter(|row| is_behind(row, after.as_deref())) {
                self.refers(scope, row, &mut marks, budget).await?;
            }
            self.mark(scope, pass, &marks, budget).await?;
            if page.next.is_none() {
                return Ok(None);
            }
            if let Some(last) = page.entities.last() {
                after = Some(last.row.to_string());
            }
        }
        Ok(after.or_else(|| Some(String::new())))
    }

    /// Marks what runs refer to, from behind a row of their list on, as far as the budget allows; the last row that is done with, none
    /// when all are, and how many runs there were.
    ///
    /// # Errors
    /// Those of the stores.
    pub async fn mark_runs(
        &self,
        scope: &Scope,
        pass: u64,
        after: Option<String>,
        budget: &mut Budget,
    ) -> Result<(Option<String>, u64)> {
        let (mut after, mut runs) = (after, 0);
        while budget.left() > 0 {
            // A run costs three calls, and its marks one.
            let limit = (budget.left() / 4).clamp(2, 100) as usize;
            let mut query = Query::partition(key::index()).prefix(key::INDEX_RUNS)?.limit(limit);
            if let Some(from) = from(after.as_deref())? {
                query.from = Some(from);
            }
            query.select = vec!["v".to_owned()];
            budget.spend();
            let page = self.ports.tables.query(&key::org_table(scope.org()), query).await?;
            let begin = after.clone();
            for row in page.entities.iter().filter(|row| is_behind(row, begin.as_deref())) {
                if budget.left() == 0 {
                    return Ok((after.or_else(|| Some(String::new())), runs));
                }
                let run = row.row.as_str().rsplit(':').next().unwrap_or_default().parse();
                let run: RunId = run.map_err(|_| Error::corrupt("an index row names no run"))?;
                self.mark_run(scope, pass, &run, budget).await?;
                runs += 1;
                after = Some(row.row.to_string());
            }
            if page.next.is_none() {
                return Ok((None, runs));
            }
        }
        Ok((after.or_else(|| Some(String::new())), runs))
    }

    /// What a run refers to. A reference moves from a letter to a step or the header, so letters come first and the header last.
    async fn mark_run(&self, scope: &Scope, pass: u64, run: &RunId, budget: &mut Budget) -> Result<()> {
        let (table, partition) = (key::org_table(scope.org()), key::run(run));
        let mut marks = Marks::new();
        for (from, until) in [key::run_rows_with_values(), key::run_rows_with_artifacts()] {
            let mut continuation = None;
            loop {
                let mut query = Query::partition(partition.clone()).after(continuation);
                (query.from, query.until) = (Some(from.clone()), Some(until.clone()));
                query.select = selected();
                budget.spend();
                let page = self.ports.tables.query(&table, query).await?;
                for row in &page.entities {
                    self.refers(scope, row, &mut marks, budget).await?;
                }
                continuation = page.next;
                if continuation.is_none() {
                    break;
                }
            }
        }
        budget.spend();
        if let Some(row) = self
            .ports
            .tables
            .get(&table, &partition, &key::run_header_row())
            .await?
        {
            self.refers(scope, &row, &mut marks, budget).await?;
        }
        self.mark(scope, pass, &marks, budget).await
    }

    /// What a row refers to. A letter has references in it, wherever it is kept.
    async fn refers(&self, scope: &Scope, row: &Entity, marks: &mut Marks, budget: &mut Budget) -> Result<()> {
        let name = row.row.as_str();
        if name.starts_with(key::ARTIFACTS) {
            if let Some(sha256) = row.properties.text("sha256")? {
                marks.extend(key::mark_row(BlobKind::Artifact, sha256));
            }
            return Ok(());
        }
        for claim in CLAIMS {
            let Some(text) = row.properties.text(claim)?.filter(|text| !text.is_empty()) else {
                continue;
            };
            let check: ClaimCheck = serde_json::from_str(text)
                .map_err(|_| Error::corrupt(format!("property `{claim}` of row `{name}` can't be read")))?;
            marks.extend(key::mark_row(BlobKind::Value, &check.sha256));
            if claim == "letterClaim" {
                budget.spend();
                match claim_check::load(self.ports.blobs.as_ref(), scope, &Payload::Claim(check)).await {
                    Ok(letter) => within(&letter, marks),
                    Err(error @ Error::Corrupt { .. }) => {
                        tracing::warn!(error = %error, "a letter can't be read, and what it refers to isn't marked");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        if let Some(text) = row.properties.text("letter")?.filter(|text| !text.is_empty()) {
            let letter = serde_json::from_str(text).map_err(|_| Error::corrupt("a letter can't be read"))?;
            within(&letter, marks);
        }
        Ok(())
    }

    async fn mark(&self, scope: &Scope, pass: u64, marks: &Marks, budget: &mut Budget) -> Result<()> {
        let table = key::org_table(scope.org());
        let properties = || {
            Properties::new()
                .with("v", SCHEMA)
                .with("pass", i64::try_from(pass).unwrap_or(i64::MAX))
        };
        let marks: Vec<_> = marks.iter().collect();
        for some in marks.chunks(MAX_BATCH_OPERATIONS) {
            let operations = some.iter().map(|mark| Operation::Upsert((*mark).clone(), properties()));
            budget.spend();
            self.ports
                .tables
                .commit(&table, &key::collector(), operations.collect())
                .await?;
        }
        Ok(())
    }

    /// Some blobs of a kind, in the order of their digests. One call.
    ///
    /// # Errors
    /// Those of the blob store.
    pub async fn blobs(
        &self,
        scope: &Scope,
        kind: BlobKind,
        list: Option<&str>,
        budget: &mut Budget,
    ) -> Result<BlobPage> {
        let after = list.map(|text| Continuation(text.to_owned()));
        budget.spend();
        let container = key::org_container(scope.org());
        self.ports.blobs.list(&container, kind.prefix(), after).await
    }

    /// Marks of blobs of a kind from behind a digest to another, both as paths, or to the last: those of this pass. Older ones are of no
    /// use any more and deleted.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn marked(
        &self,
        scope: &Scope,
        kind: BlobKind,
        (after, last): (Option<&str>, Option<&str>),
        pass: u64,
        budget: &mut Budget,
    ) -> Result<Marks> {
        let table = key::org_table(scope.org());
        let (from, until) = key::mark_rows(kind, after, last)?;
        let (mut marks, mut old) = (Marks::new(), Vec::new());
        let mut continuation = None;
        loop {
            let mut query = Query::partition(key::collector()).after(continuation);
            (query.from, query.until) = (Some(from.clone()), Some(until.clone()));
            budget.spend();
            let page = self.ports.tables.query(&table, query).await?;
            for row in page.entities {
                if u64::try_from(row.properties.require_int("pass")?).unwrap_or_default() >= pass {
                    marks.insert(row.row);
                } else {
                    old.push(Operation::Delete(row.row, Match::Exactly(row.etag)));
                }
            }
            continuation = page.next;
            if continuation.is_none() {
                break;
            }
        }
        for some in old.chunks(MAX_BATCH_OPERATIONS) {
            budget.spend();
            match self.ports.tables.commit(&table, &key::collector(), some.to_vec()).await {
                // Somebody else is at it; the next pass meets them again.
                Ok(_) | Err(Error::PreconditionFailed { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(marks)
    }

    /// Deletes a blob as it was listed; whether it did. One that somebody relies on by now stays.
    ///
    /// # Errors
    /// Those of the blob store.
    pub async fn delete(&self, scope: &Scope, blob: &BlobInfo, budget: &mut Budget) -> Result<bool> {
        let container = key::org_container(scope.org());
        budget.spend();
        let condition = Match::Exactly(blob.etag.clone());
        match self.ports.blobs.delete(&container, &blob.path, condition).await {
            Err(Error::PreconditionFailed { .. }) => Ok(false),
            deleted => deleted,
        }
    }
}

fn selected() -> Vec<String> {
    let more = ["v", "letter", "sha256"];
    CLAIMS.iter().chain(&more).map(|name| (*name).to_owned()).collect()
}

/// Where to go on behind a row: with that row, which is passed over.
fn from(after: Option<&str>) -> Result<Option<Key>> {
    after.filter(|after| !after.is_empty()).map(Key::new).transpose()
}

fn is_behind(row: &Entity, after: Option<&str>) -> bool {
    after != Some(row.row.as_str())
}

/// Every reference in a letter, wherever it is in it.
fn within(value: &Json, marks: &mut Marks) {
    match value {
        Json::Object(fields) => {
            if let Some(sha256) = fields.get("sha256").and_then(Json::as_str) {
                marks.extend(key::mark_row(BlobKind::Value, sha256));
            }
            for value in fields.values() {
                within(value, marks);
            }
        }
        Json::Array(values) => values.iter().for_each(|value| within(value, marks)),
        _ => {}
    }
}
