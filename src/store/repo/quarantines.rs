//! Messages about runs that failed too often: what is known of them stands beside their run, and in a list of the
//! organization that is derived from it.

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::damage::{known, noted};
use crate::domain::{RunId, Timestamp};
use crate::store::error::Error;
use crate::store::key;
use crate::store::port::{Continuation, ETag, Entity, Filter, Match, Operation, Ports, Properties, Query, Result};
use crate::tenancy::Scope;

/// Most facts that are kept of one run, the newest.
pub const KEPT: usize = 20;
/// How often a change that met another's is tried again.
const TRIES: usize = 5;

/// That a message about a run was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quarantined {
    /// Its number among those of the run, from 1.
    #[serde(default)]
    pub number: u32,
    /// The queue that it was delivered from.
    pub queue: String,
    /// When it was set aside, by the minute: what fails again within one is the same fact.
    pub at: Timestamp,
    /// How often it was delivered before.
    pub deliveries: u32,
    /// How its last delivery failed, as far as the instance that set it aside has seen it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure: Option<String>,
    /// When somebody put it back.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub requeued_at: Option<Timestamp>,
    /// The id of who did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub requeued_by: Option<String>,
}

/// How the failure of a run begins that can't be read.
pub const UNREADABLE: &str = "run_unreadable";

impl Quarantined {
    /// What fails again within a minute is the same fact.
    fn is_same(&self, other: &Self) -> bool {
        self.at == other.at && self.queue == other.queue
    }

    /// Whether the run was set aside because it can't be read, and nobody has put it back since.
    #[must_use]
    pub fn is_about_reading(&self) -> bool {
        self.requeued_at.is_none()
            && self
                .failure
                .as_ref()
                .is_some_and(|failure| failure.starts_with(UNREADABLE))
    }
}

/// A fact in the list of an organization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The run.
    pub run: RunId,
    /// Its workflow.
    pub workflow: String,
    /// Who asked for it.
    pub requester: String,
    /// What is known.
    pub fact: Quarantined,
}

/// What is listed of a run beside the fact.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The run.
    pub run: &'a RunId,
    /// Its workflow.
    pub workflow: &'a str,
    /// The id of who asked for it.
    pub requester: &'a str,
}

/// Facts about messages that were set aside.
#[derive(Debug, Clone)]
pub struct Quarantines {
    ports: Ports,
}

impl Quarantines {
    /// Over these ports.
    #[must_use]
    pub const fn new(ports: Ports) -> Self {
        Self { ports }
    }

    /// What is known of a run, newest first.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn of_run(&self, scope: &Scope, run: &RunId) -> Result<Vec<Quarantined>> {
        Ok(self.read(scope, run).await?.0)
    }

    async fn read(&self, scope: &Scope, run: &RunId) -> Result<(Vec<Quarantined>, Option<ETag>)> {
        let table = key::org_table(scope.org());
        let row = self
            .ports
            .tables
            .get(&table, &key::run(run), &key::run_quarantine_row())
            .await?;
        let Some(row) = row else { return Ok((Vec::new(), None)) };
        let mut why = Vec::new();
        let facts = match known(facts(&row), &mut why) {
            Some(facts) => facts,
            // The same was written for those who read events. The next change writes both.
            None => {
                let row = key::run_set_aside_row();
                let copy = self.ports.tables.get(&table, &key::run(run), &row).await?;
                let facts = copy.and_then(|copy| known(facts(&copy), &mut why));
                facts.unwrap_or_default()
            }
        };
        noted(&row, &why);
        Ok((facts, Some(row.etag)))
    }

    /// Whether a fact stands already.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn knows(&self, scope: &Scope, run: &RunId, fact: &Quarantined) -> Result<bool> {
        let facts = self.of_run(scope, run).await?;
        Ok(facts.iter().any(|known| known.is_same(fact)))
    }

    /// Adds a fact; whether it is new.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn add(&self, scope: &Scope, about: About<'_>, fact: &Quarantined) -> Result<bool> {
        let change = |facts: &mut Vec<Quarantined>| {
            if facts.iter().any(|known| known.is_same(fact)) {
                return false;
            }
            let last = facts.iter().map(|known| known.number).max().unwrap_or_default();
            let number = last + 1;
            facts.insert(0, Quarantined { number, ..fact.clone() });
            facts.truncate(KEPT);
            true
        };
        let (facts, new) = self.change(scope, about.run, change).await?;
        // Listed also when it was there: whoever wrote it may have died before the list was.
        let listed = facts.iter().filter(|known| known.at == fact.at).cloned().collect();
        self.list_again(scope, about, listed).await?;
        Ok(new)
    }

    /// Notes of every fact of a run that its message was put back; how many there were that had not been.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn requeued(&self, scope: &Scope, about: About<'_>, at: Timestamp, by: &str) -> Result<usize> {
        let mut count = 0;
        let change = |facts: &mut Vec<Quarantined>| {
            count = 0;
            for fact in facts.iter_mut().filter(|fact| fact.requeued_at.is_none()) {
                fact.requeued_at = Some(at);
                fact.requeued_by = Some(by.to_owned());
                count += 1;
            }
            count > 0
        };
        let (facts, _) = self.change(scope, about.run, change).await?;
        self.list_again(scope, about, facts).await?;
        Ok(count)
    }

    async fn change(
        &self,
        scope: &Scope,
        run: &RunId,
        mut change: impl FnMut(&mut Vec<Quarantined>) -> bool,
    ) -> Result<(Vec<Quarantined>, bool)> {
        let table = key::org_table(scope.org());
        for attempt in 1.. {
            let (mut facts, etag) = self.read(scope, run).await?;
            if !change(&mut facts) {
                return Ok((facts, false));
            }
            let properties = Properties::new()
                .with("v", 1i64)
                .with("facts", json!(facts).to_string());
            let row = key::run_quarantine_row();
            let told = Operation::Upsert(key::run_set_aside_row(), properties.clone());
            let operation = match etag {
                None => Operation::Insert(row, properties),
                Some(etag) => Operation::Replace(row, properties, Match::Exactly(etag)),
            };
            let both = vec![operation, told];
            match self.ports.tables.commit(&table, &key::run(run), both).await {
                Err(error) if error.is_conflict() && attempt < TRIES => {}
                Err(error) => return Err(error),
                Ok(_) => return Ok((facts, true)),
            }
        }
        unreachable!("the last try has answered")
    }

    async fn list_again(&self, scope: &Scope, about: About<'_>, facts: Vec<Quarantined>) -> Result<()> {
        let operations: Vec<_> = facts
            .into_iter()
            .map(|fact| {
                let properties = Properties::new()
                    .with("v", 1i64)
                    .with("run", about.run.as_str())
                    .with("workflow", about.workflow)
                    .with("requesterId", about.requester)
                    .with("fact", json!(fact).to_string());
                Operation::Upsert(key::index_quarantine_row(fact.at, about.run, &fact.queue), properties)
            })
            .collect();
        if operations.is_empty() {
            return Ok(());
        }
        self.ports
            .tables
            .commit(&key::org_table(scope.org()), &key::index(), operations)
            .await?;
        Ok(())
    }

    /// Facts of the organization, newest first, but for rows that can't be read, whose facts stand with their runs; with `requester` of the runs that this principal asked for.
    ///
    /// # Errors
    /// Those of the table store; [`Error::Malformed`] for a cursor that is none.
    pub async fn list(
        &self,
        scope: &Scope,
        requester: Option<&str>,
        limit: usize,
        cursor: Option<Continuation>,
    ) -> Result<(Vec<Listed>, Option<Continuation>)> {
        let mut query = Query::partition(key::index())
            .prefix(key::INDEX_QUARANTINES)?
            .limit(limit);
        if let Some(requester) = requester {
            query = query.filter(Filter::equal("requesterId", requester));
        }
        let page = self
            .ports
            .tables
            .query(&key::org_table(scope.org()), query.after(cursor))
            .await?;
        let items = page.entities.iter().filter_map(|row| {
            let mut why = Vec::new();
            let fact = known(listed(row), &mut why);
            noted(row, &why);
            fact
        });
        Ok((items.collect(), page.next))
    }
}

fn facts(row: &Entity) -> Result<Vec<Quarantined>> {
    serde_json::from_str(row.properties.require_text("facts")?)
        .map_err(|_| Error::corrupt("what was quarantined of a run can't be read"))
}

fn listed(row: &Entity) -> Result<Listed> {
    let properties = &row.properties;
    Ok(Listed {
        run: properties
            .require_text("run")?
            .parse()
            .map_err(|_| Error::corrupt("a quarantined message names no run"))?,
        workflow: properties.require_text("workflow")?.to_owned(),
        requester: properties.require_text("requesterId")?.to_owned(),
        fact: serde_json::from_str(properties.require_text("fact")?)
            .map_err(|_| Error::corrupt("what was quarantined can't be read"))?,
    })
}
