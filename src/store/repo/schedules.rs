//! Schedules: one row each in a partition of the organization's table, rewritten under its ETag.
//!
//! A row has what somebody wrote (the definition) and what came of it (the progress). Both change in one write, so whoever fires
//! a schedule and whoever changes it never overwrite each other. Beside the schedules stands their number, which changes in the
//! same transaction as one comes or goes.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use super::super::error::Error;
use super::super::key;
use super::super::port::{Continuation, ETag, Entity, Match, Operation, Ports, Properties, Query, Result};
use crate::domain::{CatchUp, Dst, OrgId, Overlap, RunId, ScheduleId, Timestamp, sha256_hex};
use crate::tenancy::Scope;

/// Most schedules of an organization.
pub const MAX_SCHEDULES: i64 = 1_000;
/// How many fire times a schedule remembers.
pub const REMEMBERED: usize = 20;

const SCHEMA: i64 = 1;
/// How often a write that met another one is tried again.
const TRIES: u32 = 30;

/// What somebody wrote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Definition {
    /// A name to show.
    pub name: String,
    /// What is run.
    pub workflow: String,
    /// With which arguments.
    pub arguments: Map<String, Json>,
    /// At which local times.
    pub cron: String,
    /// Where.
    pub time_zone: String,
    /// What becomes of local times that don't exist.
    pub dst: Dst,
    /// What happens while the run before has not ended.
    pub overlap: Overlap,
    /// Which missed fire times are made up for.
    pub catch_up: CatchUp,
    /// Most of them at once.
    pub catch_up_at_most: u32,
    /// How old they may be.
    pub catch_up_within_seconds: u32,
    /// By how many seconds a fire time is put off at most.
    pub jitter_seconds: u32,
    /// Whether it fires.
    pub enabled: bool,
}

impl Definition {
    /// Names its content: two definitions of the same content have the same tag.
    #[must_use]
    pub fn tag(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        sha256_hex(text.as_bytes()).chars().take(32).collect()
    }

    /// By how much a fire time is put off, in seconds: always the same for the same one.
    #[must_use]
    pub fn jitter(&self, id: &ScheduleId, at: Timestamp) -> u64 {
        let digest = sha256_hex(format!("{id}\n{}", at.millis()).as_bytes());
        let number = digest.get(..8).and_then(|text| u64::from_str_radix(text, 16).ok());
        number.unwrap_or_default() % (u64::from(self.jitter_seconds) + 1)
    }
}

/// What came of a fire time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fire {
    /// The fire time; of several that were missed, the last.
    pub at: Timestamp,
    /// `started`, or a word and why there is no run: `skipped: …`, `missed: …`, `failed: …`, `waiting: …`, `delayed: …`.
    pub outcome: String,
    /// The run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub run: Option<RunId>,
    /// When that was decided.
    pub decided_at: Timestamp,
}

/// Fire times that were missed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissedFires {
    /// How many.
    pub count: u64,
    /// The first.
    pub first: Timestamp,
    /// The last.
    pub last: Timestamp,
}

/// Fire times that somebody is at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firing {
    /// The due row that brought them there.
    pub row: Timestamp,
    /// Those for which a run is to be started, oldest first.
    pub times: Vec<Timestamp>,
    /// Those that come too late for that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub missed: Option<MissedFires>,
    /// Who is at it.
    pub by: String,
    /// Until when nobody else is.
    pub until: Timestamp,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Progress {
    /// The next fire time.
    pub next_fire_at: Option<Timestamp>,
    /// When it is looked at again: at the next fire time with its jitter, or earlier while one waits. There is a due row of it.
    pub due_at: Option<Timestamp>,
    /// Fire times that somebody is at.
    pub firing: Option<Firing>,
    /// A fire time that waits for the end of the last run.
    pub waiting: Option<Timestamp>,
    /// The last fire time for which a run was started.
    pub last_fire_at: Option<Timestamp>,
    /// Its run.
    pub last_run: Option<RunId>,
    /// What came of the last fire time.
    pub last_outcome: Option<String>,
    /// How many failed in a row.
    pub failures: u32,
    /// Why Weft has switched it off.
    pub disabled_reason: Option<String>,
    /// The last fire times, newest first.
    pub recent: Vec<Fire>,
}

impl Progress {
    /// Remembers what came of a fire time.
    pub fn remember(&mut self, fire: Fire) {
        self.last_outcome = Some(fire.outcome.clone());
        if let Some(run) = &fire.run {
            self.last_run = Some(run.clone());
            self.last_fire_at = Some(fire.at);
        }
        // One that waited or was delayed has come to its end.
        self.recent
            .retain(|known| known.at != fire.at || known.outcome.starts_with("missed"));
        self.recent.insert(0, fire);
        self.recent.truncate(REMEMBERED);
    }
}

/// A schedule as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredSchedule {
    /// Its id.
    pub id: ScheduleId,
    /// What somebody wrote.
    pub definition: Definition,
    /// What came of it.
    pub progress: Progress,
    /// The id of who made it.
    pub created_by: String,
    /// When.
    pub created_at: Timestamp,
    /// The id of who changed it last.
    pub updated_by: String,
    /// When.
    pub updated_at: Timestamp,
    etag: ETag,
}

impl StoredSchedule {
    /// One that is not stored yet.
    #[must_use]
    pub fn new(id: ScheduleId, definition: Definition, by: String, now: Timestamp) -> Self {
        Self {
            id,
            definition,
            progress: Progress::default(),
            created_by: by.clone(),
            created_at: now,
            updated_by: by,
            updated_at: now,
            etag: ETag(String::new()),
        }
    }
}

/// Some schedules, and where to go on.
#[derive(Debug, Default)]
pub struct SchedulePage {
    /// In the order in which they were made.
    pub items: Vec<StoredSchedule>,
    /// Set while there may be more.
    pub next: Option<Continuation>,
}

/// Schedules of organizations.
#[derive(Debug, Clone)]
pub struct Schedules {
    ports: Ports,
}

impl Schedules {
    /// Over these ports.
    #[must_use]
    pub const fn new(ports: Ports) -> Self {
        Self { ports }
    }

    /// One, or nothing.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn get(&self, scope: &Scope, id: &ScheduleId) -> Result<Option<StoredSchedule>> {
        let table = key::org_table(scope.org());
        let row = self
            .ports
            .tables
            .get(&table, &key::schedules(), &key::schedule_row(id))
            .await?;
        row.map(read).transpose()
    }

    /// A page of at most `limit`.
    ///
    /// # Errors
    /// Those of the table store; [`Error::Malformed`] for a continuation that is none.
    pub async fn list(&self, scope: &Scope, limit: usize, after: Option<Continuation>) -> Result<SchedulePage> {
        let query = Query::partition(key::schedules())
            .prefix(key::SCHEDULES)?
            .limit(limit)
            .after(after);
        let page = self.ports.tables.query(&key::org_table(scope.org()), query).await?;
        Ok(SchedulePage {
            items: page.entities.into_iter().map(read).collect::<Result<_>>()?,
            next: page.next,
        })
    }

    /// Writes a new one: whether there was room.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn insert(&self, scope: &Scope, new: &StoredSchedule) -> Result<bool> {
        let row = key::schedule_row(&new.id);
        let properties = write(new)?;
        self.counted(scope, Operation::Insert(row, properties), 1).await
    }

    /// Writes one in place of what was read.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] when somebody else wrote first, or it is gone.
    pub async fn replace(&self, scope: &Scope, stored: &StoredSchedule) -> Result<StoredSchedule> {
        let row = key::schedule_row(&stored.id);
        let operations = vec![Operation::Replace(
            row,
            write(stored)?,
            Match::Exactly(stored.etag.clone()),
        )];
        let table = key::org_table(scope.org());
        let etags = self.ports.tables.commit(&table, &key::schedules(), operations).await?;
        let etag = etags.into_iter().next();
        Ok(StoredSchedule {
            etag: etag.ok_or_else(|| Error::corrupt("a commit answered no ETag"))?,
            ..stored.clone()
        })
    }

    /// Deletes one as it was read.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] when somebody else wrote first, or it is gone.
    pub async fn delete(&self, scope: &Scope, stored: &StoredSchedule) -> Result<()> {
        let operation = Operation::Delete(key::schedule_row(&stored.id), Match::Exactly(stored.etag.clone()));
        self.counted(scope, operation, -1).await.map(drop)
    }

    /// Does it together with the change of the number; whether there was room.
    async fn counted(&self, scope: &Scope, operation: Operation, by: i64) -> Result<bool> {
        let table = key::org_table(scope.org());
        let (partition, count_row) = (key::schedules(), key::schedule_count_row());
        for _ in 0..TRIES {
            let count = self.ports.tables.get(&table, &partition, &count_row).await?;
            let known = count
                .as_ref()
                .map_or(Ok(0), |row| row.properties.require_int("schedules"))?;
            if by > 0 && known >= MAX_SCHEDULES {
                return Ok(false);
            }
            let properties = Properties::new()
                .with("v", SCHEMA)
                .with("schedules", (known + by).max(0));
            let counting = match count {
                None => Operation::Insert(count_row.clone(), properties),
                Some(row) => Operation::Replace(count_row.clone(), properties, Match::Exactly(row.etag)),
            };
            let operations = vec![operation.clone(), counting];
            match self.ports.tables.commit(&table, &partition, operations).await {
                Ok(_) => return Ok(true),
                // Another one came or went at the same time.
                Err(Error::AlreadyExists { index: 1, .. } | Error::PreconditionFailed { index: 1, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::PreconditionFailed {
            what: count_row.to_string(),
            index: 1,
        })
    }
}

/// The id of the run that a fire time leads to: the same for whoever starts it.
#[must_use]
pub fn fired_run(org: &OrgId, id: &ScheduleId, at: Timestamp) -> RunId {
    RunId::derived(at, &format!("schedule\n{org}\n{id}\n{}", at.millis()))
}

/// The id of the run that a caller's key leads to who fires a schedule by hand.
#[must_use]
pub fn triggered_run(org: &OrgId, id: &ScheduleId, caller: &str, key: &str) -> RunId {
    let cause = format!("trigger\n{org}\n{id}\n{caller}\n{key}");
    RunId::derived(Timestamp::from_millis(0), &sha256_hex(cause.as_bytes()))
}

fn write(schedule: &StoredSchedule) -> Result<Properties> {
    fn json<T: Serialize>(value: &T) -> Result<String> {
        serde_json::to_string(value).map_err(|_| Error::corrupt("a schedule can't be written"))
    }
    Ok(Properties::new()
        .with("v", SCHEMA)
        .with("definition", json(&schedule.definition)?)
        .with("progress", json(&schedule.progress)?)
        .with("createdBy", schedule.created_by.as_str())
        .with("createdAt", schedule.created_at)
        .with("updatedBy", schedule.updated_by.as_str())
        .with("updatedAt", schedule.updated_at))
}

fn read(row: Entity) -> Result<StoredSchedule> {
    let properties = &row.properties;
    let unreadable = |_| Error::corrupt("a schedule can't be read");
    if properties.require_int("v")? != SCHEMA {
        return Err(Error::corrupt("a schedule is of a version that can't be read"));
    }
    Ok(StoredSchedule {
        id: row
            .row
            .as_str()
            .parse()
            .map_err(|_| Error::corrupt("a schedule's id can't be read"))?,
        definition: serde_json::from_str(properties.require_text("definition")?).map_err(unreadable)?,
        progress: serde_json::from_str(properties.require_text("progress")?).map_err(unreadable)?,
        created_by: properties.require_text("createdBy")?.to_owned(),
        created_at: properties.require_time("createdAt")?,
        updated_by: properties.require_text("updatedBy")?.to_owned(),
        updated_at: properties.require_time("updatedAt")?,
        etag: row.etag,
    })
}
