//! Workflows that an organization has authored: drafts, published revisions, and which of them is current.
//!
//! A workflow is one row with its draft and a copy of the revision that is current, so that what is called costs one read; its
//! revisions are rows of their own in the same partition, and a publication is one transaction. Beside the workflows stands their
//! number, which changes in the same transaction as one comes or goes. Large graphs are claim checks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cache::Cache;
use super::runs::{payload, put_payload};
use crate::clock::Clock;
use crate::domain::{OrgId, Payload, Timestamp, Trust, UserId};
use crate::store::claim_check;
use crate::store::error::Error;
use crate::store::key;
use crate::store::port::{Continuation, ETag, Entity, Match, Operation, Ports, Properties, Query, Result};
use crate::tenancy::Scope;

/// How long another instance may go on with what was current before.
pub const CACHED_FOR: Duration = Duration::from_secs(10);
/// Most workflows whose current revision is kept in memory.
const CACHED: usize = 512;
/// Most workflows of an organization.
pub const MAX_WORKFLOWS: i64 = 500;
/// Most revisions of a workflow that are kept, beside the one that is current.
pub const KEPT_REVISIONS: u32 = 200;

const SCHEMA: i64 = 1;
/// How often a change of the number is tried against others.
const TRIES: u32 = 30;

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct By {
    /// The principal's id.
    pub id: String,
    /// A name to show.
    pub name: String,
}

/// What lists show of a workflow.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct About {
    /// One sentence.
    pub description: String,
    /// For lists.
    pub category: String,
    /// For search.
    pub tags: Vec<String>,
}

/// A draft, without its graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DraftHead {
    /// How often drafts of the workflow had been saved with it.
    pub save: u64,
    /// Of its graph.
    pub digest: String,
    /// How many nodes it has.
    pub nodes: usize,
    /// When it was saved.
    pub saved_at: Timestamp,
    /// By whom.
    pub saved_by: By,
    /// How many findings it had then.
    pub findings: usize,
    /// The revision that was current when it was begun.
    pub based_on: Option<u32>,
    /// When it was last put on record.
    pub recorded_at: Timestamp,
}

impl DraftHead {
    /// Names this very draft: no other of the workflow, earlier or later, has its tag, unless it is the same.
    #[must_use]
    pub fn tag(&self) -> String {
        format!("{}-{:.12}", self.save, self.digest)
    }
}

/// A revision, without its graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionHead {
    /// Its number, from 1.
    pub number: u32,
    /// Of its graph.
    pub digest: String,
    /// How many nodes it has.
    pub nodes: usize,
    /// When it was published.
    pub published_at: Timestamp,
    /// By whom.
    pub published_by: By,
    /// What they said about it.
    pub message: String,
    /// The tag of the draft that it was.
    pub draft: String,
}

/// Which revision is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Current {
    /// The revision.
    pub revision: RevisionHead,
    /// Since when.
    pub since: Timestamp,
    /// The functions that it calls and the node types that it uses (`shout@1.2.0`), the first of them.
    pub functions: Vec<String>,
    /// What lists show.
    pub about: About,
}

/// A workflow, without its graphs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// Its name.
    pub name: String,
    /// What is called; none of one that was never published.
    pub current: Option<Current>,
    /// The number of the last revision.
    pub last: u32,
    /// The draft, while there is one.
    pub draft: Option<DraftHead>,
    /// What lists show of one that was never published.
    pub about: About,
    /// How often drafts of it were saved.
    pub saves: u64,
    /// How often what is called was changed.
    pub changes: u64,
    /// Since when it is not called any more, and by whom.
    pub archived: Option<(Timestamp, By)>,
    /// The digests of the graphs whose commands and requests are trusted as the workspace's code is, the last ones.
    pub trusted: Vec<String>,
    /// Who made it.
    pub created_by: By,
    /// When.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Head {
    /// Names what is called: changes with each publication, and with whatever else changes what is called.
    #[must_use]
    pub fn tag(&self) -> String {
        format!("w{}-{}", self.changes, self.created_at.millis())
    }

    /// How far the commands and requests of a graph are trusted: what people of the organization write is when an administrator has
    /// looked at it, and not before.
    #[must_use]
    pub fn trust_of(&self, digest: &str) -> Trust {
        if self.trusted.iter().any(|trusted| trusted == digest) {
            Trust::Trusted
        } else {
            Trust::Restricted
        }
    }

    /// The same of what is called.
    #[must_use]
    pub fn trust(&self) -> Trust {
        let current = self.current.as_ref();
        current.map_or(Trust::Restricted, |current| self.trust_of(&current.revision.digest))
    }

    /// What lists show of it.
    #[must_use]
    pub fn shown(&self) -> &About {
        self.current.as_ref().map_or(&self.about, |current| &current.about)
    }
}

/// A workflow as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredWorkflow {
    /// What it is.
    pub head: Head,
    /// The graph of the revision that is called; null without one.
    pub graph: Payload,
    /// The graph of the draft; null without one.
    pub draft: Payload,
    etag: ETag,
}

impl StoredWorkflow {
    /// One that is not stored yet.
    #[must_use]
    pub const fn new(head: Head, draft: Payload) -> Self {
        Self {
            head,
            graph: Payload::Inline(Value::Null),
            draft,
            etag: ETag(String::new()),
        }
    }
}

/// What is called under a name.
#[derive(Debug, Clone, PartialEq)]
pub struct Called {
    /// The workflow.
    pub head: Head,
    /// The graph of its current revision; null without one.
    pub graph: Value,
}

/// A revision as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRevision {
    /// What it is.
    pub head: RevisionHead,
    /// Its graph.
    pub graph: Payload,
}

/// That a workflow is assigned to somebody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Assignment {
    /// The workflow.
    pub workflow: String,
    /// To whom.
    pub user: UserId,
    /// By whom.
    pub assigned_by: By,
    /// When.
    pub assigned_at: Timestamp,
}

type Key = (OrgId, String);
/// The workflows that are assigned to somebody of an organization.
type Assigned = Cache<(OrgId, UserId), Arc<BTreeSet<String>>>;

/// Workflows of organizations.
#[derive(Debug, Clone)]
pub struct Workflows {
    ports: Ports,
    clock: Arc<dyn Clock>,
    called: Arc<Cache<Key, Arc<Called>>>,
    assigned: Arc<Assigned>,
}

impl Workflows {
    /// Over these ports.
    #[must_use]
    pub fn new(ports: Ports, clock: Arc<dyn Clock>) -> Self {
        Self {
            ports,
            clock,
            called: Arc::new(Cache::new(CACHED_FOR, CACHED)),
            assigned: Arc::new(Cache::new(CACHED_FOR, CACHED)),
        }
    }

    /// What is called under a name, at most [`CACHED_FOR`] old; what isn't there is looked for every time.
    ///
    /// # Errors
    /// Those of the stores.
    pub async fn called(&self, scope: &Scope, name: &str) -> Result<Option<Arc<Called>>> {
        let key = (scope.org().clone(), name.to_owned());
        let ticket = match self.called.get(&key, self.clock.now()) {
            Ok(called) => return Ok(Some(called)),
            Err(ticket) => ticket,
        };
        let Some(stored) = self.get(scope, name).await? else {
            return Ok(None);
        };
        let graph = self.load(scope, &stored.graph).await?;
        let called = Arc::new(Called {
            head: stored.head,
            graph,
        });
        self.called.put(ticket, key, called.clone());
        Ok(Some(called))
    }

    /// One as it is stored now, or nothing.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn get(&self, scope: &Scope, name: &str) -> Result<Option<StoredWorkflow>> {
        let (table, row) = (key::org_table(scope.org()), key::workflow_row(name)?);
        let row = self.ports.tables.get(&table, &key::workflows(), &row).await?;
        row.map(|row| read(&row)).transpose()
    }

    /// All of them by name, without their graphs.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn list(&self, scope: &Scope) -> Result<Vec<Head>> {
        let mut heads = Vec::new();
        let mut continuation = None;
        loop {
            let mut query = Query::partition(key::workflows())
                .prefix(key::WORKFLOWS)?
                .after(continuation);
            query.select = ["v", "head"].map(str::to_owned).into();
            let page = self.ports.tables.query(&key::org_table(scope.org()), query).await?;
            for row in &page.entities {
                heads.push(head_of(row)?);
            }
            continuation = page.next;
            if continuation.is_none() {
                return Ok(heads);
            }
        }
    }

    /// Keeps a graph: a large one as a blob.
    ///
    /// # Errors
    /// Those of the blob store.
    pub async fn keep(&self, scope: &Scope, graph: Value) -> Result<Payload> {
        claim_check::save(self.ports.blobs.as_ref(), scope, graph).await
    }

    /// A graph that was kept.
    ///
    /// # Errors
    /// Those of the blob store.
    pub async fn load(&self, scope: &Scope, graph: &Payload) -> Result<Value> {
        claim_check::load(self.ports.blobs.as_ref(), scope, graph).await
    }

    /// Writes a new one; whether there was room.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] when there is one of its name.
    pub async fn create(&self, scope: &Scope, new: &StoredWorkflow) -> Result<bool> {
        let operation = Operation::Insert(key::workflow_row(&new.head.name)?, properties(new)?);
        self.counted(scope, operation, 1).await
    }

    /// Writes one in place of what was read, in which nothing but the draft is another.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] when somebody else wrote first.
    pub async fn save(&self, scope: &Scope, stored: &StoredWorkflow) -> Result<()> {
        let table = key::org_table(scope.org());
        let operations = vec![replacing(stored)?];
        let written = self.ports.tables.commit(&table, &key::workflows(), operations).await;
        written.map(drop)
    }

    /// Writes one in place of what was read.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] when somebody else wrote first.
    pub async fn replace(&self, scope: &Scope, stored: &StoredWorkflow) -> Result<()> {
        self.commit(scope, vec![replacing(stored)?]).await
    }

    /// Writes one in place of what was read, together with a revision of it. The revision that is too old to be kept goes.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] when somebody else wrote first.
    pub async fn publish(&self, scope: &Scope, stored: &StoredWorkflow, revision: &StoredRevision) -> Result<()> {
        let (name, number) = (&stored.head.name, revision.head.number);
        let mut properties = Properties::new()
            .with("v", SCHEMA)
            .with("revision", json(&revision.head)?);
        put_payload(&mut properties, "graph", &revision.graph);
        let mut operations = vec![
            replacing(stored)?,
            Operation::Insert(key::workflow_revision_row(name, number)?, properties),
        ];
        // Each number is here once: one that was current when its time came stays.
        if let Some(old) = number.checked_sub(KEPT_REVISIONS).filter(|old| *old > 0)
            && self.revision(scope, name, old).await?.is_some()
        {
            operations.push(Operation::Delete(key::workflow_revision_row(name, old)?, Match::Any));
        }
        self.commit(scope, operations).await
    }

    /// Deletes one as it was read; its revisions too, of which there are none while it was never published.
    ///
    /// # Errors
    /// [`Error::PreconditionFailed`] when somebody else wrote first.
    pub async fn delete(&self, scope: &Scope, stored: &StoredWorkflow) -> Result<()> {
        let row = key::workflow_row(&stored.head.name)?;
        let operation = Operation::Delete(row, Match::Exactly(stored.etag.clone()));
        self.counted(scope, operation, -1).await.map(drop)
    }

    /// A revision, or nothing.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn revision(&self, scope: &Scope, name: &str, number: u32) -> Result<Option<StoredRevision>> {
        let (table, row) = (key::org_table(scope.org()), key::workflow_revision_row(name, number)?);
        let row = self.ports.tables.get(&table, &key::workflows(), &row).await?;
        row.map(|row| {
            Ok(StoredRevision {
                head: revision_of(&row)?,
                graph: payload(&row.properties, "graph")?,
            })
        })
        .transpose()
    }

    /// A page of a workflow's revisions, the newest first.
    ///
    /// # Errors
    /// Those of the table store; [`Error::Malformed`] for a continuation that is none.
    pub async fn revisions(
        &self,
        scope: &Scope,
        name: &str,
        limit: usize,
        after: Option<Continuation>,
    ) -> Result<(Vec<RevisionHead>, Option<Continuation>)> {
        let mut query = Query::partition(key::workflows())
            .prefix(&key::workflow_revisions(name)?)?
            .limit(limit)
            .after(after);
        query.select = ["v", "revision"].map(str::to_owned).into();
        let page = self.ports.tables.query(&key::org_table(scope.org()), query).await?;
        let heads = page.entities.iter().map(revision_of).collect::<Result<_>>()?;
        Ok((heads, page.next))
    }

    /// Assigns a workflow to somebody; whether it was not.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn assign(&self, scope: &Scope, assignment: &Assignment) -> Result<bool> {
        let Assignment { workflow, user, .. } = assignment;
        let properties = Properties::new()
            .with("v", SCHEMA)
            .with("assignment", json(assignment)?);
        let operations = vec![
            Operation::Insert(key::workflow_assignment_row(workflow, user)?, properties),
            Operation::Upsert(
                key::workflow_assigned_row(user, workflow)?,
                Properties::new().with("v", SCHEMA).with("workflow", workflow.as_str()),
            ),
        ];
        self.assignment_changed(scope, operations).await
    }

    /// Takes a workflow away from somebody; whether it was assigned to them.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn unassign(&self, scope: &Scope, name: &str, user: &UserId) -> Result<bool> {
        let operations = vec![
            Operation::Delete(key::workflow_assignment_row(name, user)?, Match::Any),
            Operation::Delete(key::workflow_assigned_row(user, name)?, Match::Any),
        ];
        self.assignment_changed(scope, operations).await
    }

    async fn assignment_changed(&self, scope: &Scope, operations: Vec<Operation>) -> Result<bool> {
        let table = key::org_table(scope.org());
        let written = self.ports.tables.commit(&table, &key::workflows(), operations).await;
        self.assigned.invalidate();
        match written {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::PreconditionFailed { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a workflow is assigned to somebody, and by whom.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn assignment(&self, scope: &Scope, name: &str, user: &UserId) -> Result<Option<Assignment>> {
        let (table, row) = (key::org_table(scope.org()), key::workflow_assignment_row(name, user)?);
        let row = self.ports.tables.get(&table, &key::workflows(), &row).await?;
        row.as_ref().map(assignment_of).transpose()
    }

    /// A page of those to whom a workflow is assigned.
    ///
    /// # Errors
    /// Those of the table store; [`Error::Malformed`] for a continuation that is none.
    pub async fn assignments(
        &self,
        scope: &Scope,
        name: &str,
        limit: usize,
        after: Option<Continuation>,
    ) -> Result<(Vec<Assignment>, Option<Continuation>)> {
        let query = Query::partition(key::workflows())
            .prefix(&key::workflow_assignments(name)?)?
            .limit(limit)
            .after(after);
        let page = self.ports.tables.query(&key::org_table(scope.org()), query).await?;
        let items = page.entities.iter().map(assignment_of).collect::<Result<_>>()?;
        Ok((items, page.next))
    }

    /// The workflows that are assigned to somebody, at most [`CACHED_FOR`] old.
    ///
    /// # Errors
    /// Those of the table store.
    pub async fn assigned_to(&self, scope: &Scope, user: &UserId) -> Result<Arc<BTreeSet<String>>> {
        let key = (scope.org().clone(), user.clone());
        let ticket = match self.assigned.get(&key, self.clock.now()) {
            Ok(known) => return Ok(known),
            Err(ticket) => ticket,
        };
        let mut names = BTreeSet::new();
        let mut continuation = None;
        loop {
            let query = Query::partition(key::workflows())
                .prefix(&key::workflows_assigned(user))?
                .after(continuation);
            let page = self.ports.tables.query(&key::org_table(scope.org()), query).await?;
            for row in &page.entities {
                known_version(row)?;
                names.insert(row.properties.require_text("workflow")?.to_owned());
            }
            continuation = page.next;
            if continuation.is_none() {
                break;
            }
        }
        let names = Arc::new(names);
        self.assigned.put(ticket, key, names.clone());
        Ok(names)
    }

    async fn commit(&self, scope: &Scope, operations: Vec<Operation>) -> Result<()> {
        let table = key::org_table(scope.org());
        let written = self.ports.tables.commit(&table, &key::workflows(), operations).await;
        // Also after a failure: it may have been written.
        self.called.invalidate();
        written.map(drop)
    }

    /// Does it together with the change of the number; whether there was room.
    async fn counted(&self, scope: &Scope, operation: Operation, by: i64) -> Result<bool> {
        let (table, row) = (key::org_table(scope.org()), key::workflow_count_row());
        for _ in 0..TRIES {
            let count = self.ports.tables.get(&table, &key::workflows(), &row).await?;
            let known = count
                .as_ref()
                .map_or(Ok(0), |row| row.properties.require_int("workflows"))?;
            if by > 0 && known >= MAX_WORKFLOWS {
                return Ok(false);
            }
            let properties = Properties::new()
                .with("v", SCHEMA)
                .with("workflows", (known + by).max(0));
            let counting = match count {
                None => Operation::Insert(row.clone(), properties),
                Some(count) => Operation::Replace(row.clone(), properties, Match::Exactly(count.etag)),
            };
            match self.commit(scope, vec![operation.clone(), counting]).await {
                Ok(()) => return Ok(true),
                // Another one came or went at the same time.
                Err(Error::AlreadyExists { index: 1, .. } | Error::PreconditionFailed { index: 1, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::PreconditionFailed {
            what: row.to_string(),
            index: 1,
        })
    }
}

fn replacing(stored: &StoredWorkflow) -> Result<Operation> {
    let row = key::workflow_row(&stored.head.name)?;
    Ok(Operation::Replace(
        row,
        properties(stored)?,
        Match::Exactly(stored.etag.clone()),
    ))
}

fn json<T: Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|_| Error::corrupt("a workflow can't be written"))
}

fn properties(stored: &StoredWorkflow) -> Result<Properties> {
    let mut properties = Properties::new().with("v", SCHEMA).with("head", json(&stored.head)?);
    put_payload(&mut properties, "graph", &stored.graph);
    put_payload(&mut properties, "draft", &stored.draft);
    Ok(properties)
}

fn known_version(row: &Entity) -> Result<()> {
    if row.properties.require_int("v")? == SCHEMA {
        return Ok(());
    }
    Err(Error::corrupt("a workflow is of a version that can't be read"))
}

fn head_of(row: &Entity) -> Result<Head> {
    known_version(row)?;
    let head: Head = serde_json::from_str(row.properties.require_text("head")?)
        .map_err(|error| Error::corrupt(format!("a workflow can't be read: {error}")))?;
    if key::workflow_row(&head.name)? != row.row {
        return Err(Error::corrupt("a workflow stands in the row of another"));
    }
    Ok(head)
}

fn revision_of(row: &Entity) -> Result<RevisionHead> {
    known_version(row)?;
    serde_json::from_str(row.properties.require_text("revision")?)
        .map_err(|error| Error::corrupt(format!("a revision can't be read: {error}")))
}

fn assignment_of(row: &Entity) -> Result<Assignment> {
    known_version(row)?;
    serde_json::from_str(row.properties.require_text("assignment")?)
        .map_err(|error| Error::corrupt(format!("an assignment can't be read: {error}")))
}

fn read(row: &Entity) -> Result<StoredWorkflow> {
    Ok(StoredWorkflow {
        head: head_of(row)?,
        graph: payload(&row.properties, "graph")?,
        draft: payload(&row.properties, "draft")?,
        etag: row.etag.clone(),
    })
}
