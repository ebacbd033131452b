//! Keeps audit records: seals them, appends them to chains, lists, verifies and forgets.
//!
//! A record goes either into its run's chain, in the run's own transaction ([`rows_for_run`]), or into this process's chain
//! of the day ([`AuditLog::write`]). Rows for listing are derived from both. What a record is, and the bytes that are
//! hashed and encrypted, is `audit/`; `docs/audit.md` describes rows and promises.

mod keys;
mod row;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value as Json, json};

use self::keys::{Found, Remembered};
use self::writer::{Lanes, head_operation};
use crate::audit::chain::link_all;
use crate::audit::seal::{self, Opened, Subject};
use crate::audit::{
    Break, Broken, Chain, Event, Head, Level, LinkedRecord, Owner, Personal, Plain, Record, SealedRecord, Verifier,
};
use crate::authz::{Caller, Origin, Principal, Tier};
use crate::clock::{Clock, Entropy};
use crate::domain::{RecordId, RunId, Timestamp};
use crate::store::error::Error;
use crate::store::key::{self, PlatformTable};
use crate::store::port::{
    Continuation, ETag, Entity, Filter, Key, MAX_PAGE, Match, Operation, Ports, Query, Result, TableName,
};
use crate::tenancy::{PlatformScope, Scope};

pub use self::row::{from_properties, to_properties};
pub use self::writer::MAX_GROUP;

/// Most records in a page of [`AuditLog::list`].
pub const MAX_LISTED: usize = 200;
/// Most chains whose heads go into one record of the chain of seals.
const MAX_SEALED: usize = 30;
/// How often a change that met another's is tried again.
const ATTEMPTS: usize = 5;

/// In whose records something happens: an organization's, proved by its scope, or the platform's.
#[derive(Debug, Clone, Copy)]
pub enum Within<'a> {
    /// One organization's.
    Organization(&'a Scope),
    /// Those without an organization.
    Platform(&'a PlatformScope),
}

impl Within<'_> {
    /// Whose they are.
    #[must_use]
    pub fn owner(&self) -> Owner {
        match self {
            Self::Organization(scope) => Owner::Organization(scope.org().clone()),
            Self::Platform(_) => Owner::Platform,
        }
    }

    const fn principal(&self) -> (&Principal, Tier) {
        match self {
            Self::Organization(scope) => (scope.principal(), scope.tier()),
            Self::Platform(platform) => match platform.principal() {
                principal @ Principal::Operator => (principal, Tier::Terminal),
                principal => (principal, Tier::Host),
            },
        }
    }
}

impl<'a> From<&'a Scope> for Within<'a> {
    fn from(scope: &'a Scope) -> Self {
        Self::Organization(scope)
    }
}

impl<'a> From<&'a PlatformScope> for Within<'a> {
    fn from(platform: &'a PlatformScope) -> Self {
        Self::Platform(platform)
    }
}

/// The audit records of one process: one writer, one chain a day for each organization that it has something to say about.
/// Cheap to clone; clones are the same writer.
#[derive(Debug, Clone)]
pub struct AuditLog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    ports: Ports,
    clock: Arc<dyn Clock>,
    entropy: Arc<Entropy>,
    writer: String,
    keys: Remembered,
    lanes: Lanes,
}

/// Which records are listed. Every condition that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// From this time on.
    pub from: Option<Timestamp>,
    /// Before this time.
    pub to: Option<Timestamp>,
    /// Of this level.
    pub level: Option<Level>,
    /// Of this event.
    pub event: Option<Event>,
    /// By the principal with this id (`usr_…`, `key:key_…`, `operator`, `anonymous`).
    pub principal: Option<String>,
    /// About this kind of thing.
    pub resource_kind: Option<String>,
    /// About the thing with this id.
    pub resource_id: Option<String>,
    /// With personal data of this person: as the one who acted, or as the one it is about.
    pub subject: Option<Subject>,
    /// At most this many, 1 to [`MAX_LISTED`]; 0 means 50.
    pub limit: usize,
    /// Where an earlier page ended. Good with the same conditions only.
    pub cursor: Option<String>,
}

/// A record with what could be opened of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The readable part.
    pub plain: Plain,
    /// About the person who acted.
    pub personal: Opened<Personal>,
    /// About another person.
    pub about: Opened<Json>,
    /// The chain that it is in.
    pub chain: Chain,
    /// Its number there.
    pub sequence: u64,
}

/// Some records, newest first, and where to go on. May be shorter than asked for while `next` is set.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AuditPage {
    /// The records.
    pub items: Vec<Entry>,
    /// Set while there may be more. Opaque.
    pub next: Option<String>,
}

/// What verifying a chain has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The chain.
    pub chain: Chain,
    /// Its head, or where it is broken first.
    pub result: std::result::Result<Head, Broken>,
}

/// A run's records, linked, ready for the transaction of the run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRows {
    /// The chain's new head, for the run's header.
    pub head: Head,
    /// The records in their places, for [`index_operations`].
    pub records: Vec<LinkedRecord>,
    /// One insert for each, for the run's partition.
    pub operations: Vec<Operation>,
}

/// Links records to a run's chain. `head` is the one in the run's header; the new one goes there in the same transaction,
/// whose ETag is what keeps the chain from forking.
#[must_use]
pub fn rows_for_run(scope: &Scope, run: &RunId, head: &Head, records: Vec<SealedRecord>) -> RunRows {
    let chain = Chain::Run {
        org: scope.org().clone(),
        run: run.clone(),
    };
    let (head, records) = link_all(&chain, head, records);
    let operations = records.iter().map(row::chain_operation).collect();
    RunRows {
        head,
        records,
        operations,
    }
}

/// The rows for listing, for the partition `key::index()`; repeating them changes nothing.
///
/// # Errors
/// [`Error::Corrupt`] when a record's body can't be read.
pub fn index_operations(records: &[LinkedRecord]) -> Result<Vec<Operation>> {
    records.iter().map(row::index_operation).collect()
}

fn table(owner: &Owner) -> TableName {
    match owner {
        Owner::Platform => PlatformTable::Audit.name(),
        Owner::Organization(org) => key::org_table(org),
    }
}

fn partition(chain: &Chain) -> Key {
    match chain {
        Chain::Run { run, .. } => key::run(run),
        Chain::Day { day, writer, .. } => key::audit_chain(day, writer),
        Chain::Seal { .. } => key::audit_seal(),
    }
}

fn contended(what: &str) -> Error {
    Error::Unavailable {
        what: what.to_owned(),
        source: "others changed it each time".into(),
    }
}

impl Inner {
    fn record_id(&self) -> RecordId {
        RecordId::generate(self.clock.now(), self.entropy.bytes())
    }

    async fn stored_head(&self, owner: &Owner, chain: &Chain) -> Result<(Head, Option<ETag>)> {
        match self
            .ports
            .tables
            .get(&table(owner), &partition(chain), &key::audit_head_row())
            .await?
        {
            None => Ok((Head::EMPTY, None)),
            Some(entity) => Ok((row::head(&entity.properties)?, Some(entity.etag))),
        }
    }

    /// All rows of a partition that start with a prefix, page by page.
    async fn each_page(
        &self,
        owner: &Owner,
        mut query: Query,
        mut page: impl FnMut(Vec<Entity>) -> Result<()> + Send,
    ) -> Result<()> {
        loop {
            let got = self.ports.tables.query(&table(owner), query.clone()).await?;
            page(got.entities)?;
            match got.next {
                Some(next) => query.continuation = Some(next),
                None => return Ok(()),
            }
        }
    }
}

impl AuditLog {
    /// A new writer with a random name. The tables must exist.
    #[must_use]
    pub fn new(ports: Ports, clock: Arc<dyn Clock>, entropy: Arc<Entropy>) -> Self {
        let id = RecordId::generate(clock.now(), entropy.bytes());
        let writer = id
            .as_str()
            .chars()
            .rev()
            .take(26)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect();
        let (keys, lanes) = (Remembered::default(), Lanes::default());
        Self {
            inner: Arc::new(Inner {
                ports,
                clock,
                entropy,
                writer,
                keys,
                lanes,
            }),
        }
    }

    /// The writer's name: 26 characters, in the names of its chains.
    #[must_use]
    pub fn writer(&self) -> &str {
        &self.inner.writer
    }

    // ── making records ─────────────────────────────────────────────────────────────────────────────────────────────────

    /// A record, of now, about what a caller from outside did.
    #[must_use]
    pub fn of(&self, event: Event, caller: &Caller) -> Record {
        Record::of(self.inner.record_id(), self.inner.clock.now(), event, caller)
    }

    /// A record, of now, about what the principal of a scope did.
    #[must_use]
    pub fn by<'a>(&self, within: impl Into<Within<'a>>, event: Event) -> Record {
        let within = within.into();
        let (principal, tier) = within.principal();
        Record::by(self.inner.record_id(), self.inner.clock.now(), event, principal, tier)
    }

    /// A record, of now, about a caller who never became a principal.
    #[must_use]
    pub fn anonymous(&self, event: Event, origin: &Origin) -> Record {
        Record::anonymous(self.inner.record_id(), self.inner.clock.now(), event, origin)
    }

    // ── writing ────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Encrypts what points at a person. Costs no storage operation while the person's key is remembered (ten minutes), else
    /// one read, and one transaction more for a person whom these records never met.
    ///
    /// # Errors
    /// Those of storage; nothing was recorded then.
    pub async fn seal<'a>(&self, within: impl Into<Within<'a>> + Send, record: Record) -> Result<SealedRecord> {
        let owner = within.into().owner();
        let inner = &self.inner;
        let mut keys = [None, None];
        for (key, subject) in keys.iter_mut().zip([record.actor_subject(), record.about_subject()]) {
            if let Some(subject) = subject {
                *key = Some(inner.subject_key(&owner, subject).await?);
            }
        }
        let [actor, about] = &keys;
        let with_nonce = |key| (key, inner.entropy.bytes());
        Ok(seal::seal(
            &owner,
            record,
            actor.as_ref().map(with_nonce),
            about.as_ref().map(with_nonce),
        ))
    }

    /// Appends a sealed record to this writer's chain of the day. It is durable when this returns. Costs one transaction,
    /// shared with whoever writes at the same time; the first record of a day costs a row and a read more.
    ///
    /// After [`Error::Unavailable`] it may have been written or not. Whoever repeats hands in the same sealed record: it is
    /// recognised by its id and stands once.
    ///
    /// # Errors
    /// Those of storage; [`Error::Throttled`] when two thousand records of the organization are waiting already;
    /// [`Error::Malformed`] for a record that was sealed for somebody else.
    pub async fn write<'a>(&self, within: impl Into<Within<'a>> + Send, record: SealedRecord) -> Result<LinkedRecord> {
        self.inner.append(&within.into().owner(), record).await
    }

    /// [`AuditLog::seal`] and [`AuditLog::write`]. The row for listing is left to [`AuditLog::index`].
    ///
    /// # Errors
    /// As both.
    pub async fn append<'a>(&self, within: impl Into<Within<'a>> + Send, record: Record) -> Result<LinkedRecord> {
        let within = within.into();
        let sealed = self.seal(within, record).await?;
        self.write(within, sealed).await
    }

    /// Writes the rows for listing. One transaction for every 35 records. May be done after the answer, and again.
    ///
    /// # Errors
    /// Those of storage; what is missing then comes back with [`AuditLog::repair_index`].
    pub async fn index<'a>(&self, within: impl Into<Within<'a>> + Send, records: &[LinkedRecord]) -> Result<()> {
        let owner = within.into().owner();
        for group in records.chunks(MAX_GROUP) {
            // A record that is given twice has one row.
            let rows: BTreeMap<Key, Operation> = index_operations(group)?
                .into_iter()
                .map(|operation| (operation.row().clone(), operation))
                .collect();
            self.inner
                .ports
                .tables
                .commit(&table(&owner), &key::index(), rows.into_values().collect())
                .await?;
        }
        Ok(())
    }

    // ── reading ────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Lists records, newest first, with what can be opened of them. Costs a query, and a read for each person on the page.
    ///
    /// # Errors
    /// Those of storage; [`Error::Malformed`] for a cursor that is none.
    pub async fn list<'a>(&self, within: impl Into<Within<'a>> + Send, query: AuditQuery) -> Result<AuditPage> {
        let owner = within.into().owner();
        let limit = if query.limit == 0 {
            50
        } else {
            query.limit.min(MAX_LISTED)
        };
        let mut filters: Vec<Filter> = [
            ("level", query.level.map(|level| level.as_str().to_owned())),
            ("event", query.event.map(|event| event.as_str().to_owned())),
            ("principal", query.principal),
            ("kind", query.resource_kind),
            ("resource", query.resource_id),
        ]
        .into_iter()
        .filter_map(|(property, value)| Some(Filter::equal(property, value?)))
        .collect();
        if let Some(subject) = &query.subject {
            match self.inner.reference(&owner, subject).await? {
                Some(reference) => {
                    filters.push(Filter::equal("actor", reference.clone()).or(Filter::equal("about", reference)))
                }
                None => return Ok(AuditPage::default()),
            }
        }
        let mut rows = Query::partition(key::index()).prefix(key::INDEX_AUDIT)?;
        rows.filter = filters.into_iter().reduce(Filter::and);
        rows.continuation = query.cursor.as_deref().map(from_cursor).transpose()?;
        let before = |at: Timestamp| Timestamp::from_millis(at.millis() - 1);
        match query.to {
            Some(to) if to.millis() == 0 => return Ok(AuditPage::default()),
            Some(to) => rows.from = Some(key::index_audit_since(before(to))),
            None => {}
        }
        if let Some(from) = query.from.filter(|from| from.millis() > 0) {
            rows.until = Some(key::index_audit_since(before(from)));
        }
        if rows.from >= rows.until {
            return Ok(AuditPage::default());
        }
        let mut records = Vec::new();
        // A filter may leave pages empty; the caller gets control back in any case.
        for _ in 0..20 {
            rows.limit = limit - records.len();
            let page = self.inner.ports.tables.query(&table(&owner), rows.clone()).await?;
            for entity in &page.entities {
                records.push(row::from_index(entity)?);
            }
            rows.continuation = page.next;
            if rows.continuation.is_none() || records.len() >= limit {
                break;
            }
        }
        let items = self.open(&owner, records).await?;
        Ok(AuditPage {
            items,
            next: rows.continuation.as_ref().map(to_cursor),
        })
    }

    /// Records of one chain in their order, from number `after` + 1 on, at most `limit` (up to 1000): what an export writes,
    /// one line of JSON each, and what can be verified without storage.
    ///
    /// # Errors
    /// Those of storage; [`Error::Malformed`] for a chain of somebody else's; [`Error::Corrupt`] for a row that can't be
    /// read, which verifying reports as a broken chain.
    pub async fn chain<'a>(
        &self,
        within: impl Into<Within<'a>> + Send,
        chain: &Chain,
        after: u64,
        limit: usize,
    ) -> Result<Vec<LinkedRecord>> {
        let owner = owned(&within.into(), chain)?;
        let mut query = records_of(chain)?.limit(limit.clamp(1, MAX_PAGE));
        query.from = Some(key::audit_row(after + 1));
        let mut out = Vec::new();
        while out.len() < limit {
            let page = self.inner.ports.tables.query(&table(&owner), query.clone()).await?;
            for entity in &page.entities {
                out.push(from_properties(chain, &entity.properties)?);
            }
            match page.next {
                Some(next) => query.continuation = Some(next),
                None => break,
            }
        }
        out.truncate(limit);
        Ok(out)
    }

    /// The chains of a day outside runs.
    ///
    /// # Errors
    /// Those of storage.
    pub async fn chains<'a>(&self, within: impl Into<Within<'a>> + Send, day: &str) -> Result<Vec<Chain>> {
        let owner = within.into().owner();
        Ok(self
            .writers(&owner, day)
            .await?
            .into_iter()
            .map(|(chain, _, _)| chain)
            .collect())
    }

    /// Opens what can be opened of records, for an export of a person's data.
    ///
    /// # Errors
    /// Those of storage; [`Error::Corrupt`] when a body can't be read.
    pub async fn opened<'a>(
        &self,
        within: impl Into<Within<'a>> + Send,
        records: Vec<LinkedRecord>,
    ) -> Result<Vec<Entry>> {
        self.open(&within.into().owner(), records).await
    }

    async fn open(&self, owner: &Owner, records: Vec<LinkedRecord>) -> Result<Vec<Entry>> {
        let references = records
            .iter()
            .flat_map(|record| [&record.sealed.actor, &record.sealed.about])
            .filter_map(|part| Some(part.as_ref()?.subject.clone()));
        let keys = self.inner.open_keys(owner, references).await?;
        records
            .into_iter()
            .map(
                |LinkedRecord {
                     chain,
                     sequence,
                     sealed,
                     ..
                 }| {
                    let plain = sealed
                        .plain()
                        .map_err(|_| Error::corrupt("the body of an audit record"))?;
                    let found = |part: &Option<seal::SealedPart>| part.as_ref().map(|part| keys.get(&part.subject));
                    let personal = opened(found(&sealed.actor), |key| sealed.open_actor(&plain.id, key));
                    let about = opened(found(&sealed.about), |key| sealed.open_about(&plain.id, key));
                    Ok(Entry {
                        plain,
                        personal,
                        about,
                        chain,
                        sequence,
                    })
                },
            )
            .collect()
    }

    // ── verifying and repairing ────────────────────────────────────────────────────────────────────────────────────────

    /// Verifies a run's chain. `expected` is the head in the run's header.
    ///
    /// # Errors
    /// Those of storage; a broken chain is an answer.
    pub async fn verify_run(&self, scope: &Scope, run: &RunId, expected: Option<&Head>) -> Result<Verdict> {
        let owner = Owner::Organization(scope.org().clone());
        let chain = Chain::Run {
            org: scope.org().clone(),
            run: run.clone(),
        };
        let verifier = self.read(&owner, &chain, |_| {}).await?;
        Ok(Verdict {
            chain,
            result: verifier.finish(expected),
        })
    }

    /// Verifies the chain of seals and every chain of a day: against its own head row, and against what was sealed. Chains
    /// that were sealed and are gone are found.
    ///
    /// # Errors
    /// Those of storage; broken chains are an answer.
    pub async fn verify_day<'a>(&self, within: impl Into<Within<'a>> + Send, day: &str) -> Result<Vec<Verdict>> {
        let owner = within.into().owner();
        let seals = Chain::Seal { owner: owner.clone() };
        let mut sealed: BTreeMap<Chain, Vec<Head>> = BTreeMap::new();
        let result = self
            .verify_chain(&owner, &seals, &[], |record| {
                for (chain, head) in sealed_heads(record) {
                    if matches!(&chain, Chain::Day { day: of, .. } if of == day) {
                        let heads = sealed.entry(chain).or_default();
                        // A chain that is read once more gives the same heads again.
                        if !heads.contains(&head) {
                            heads.push(head);
                        }
                    }
                }
            })
            .await?;
        let mut verdicts = vec![Verdict { chain: seals, result }];
        for (chain, _, _) in self.writers(&owner, day).await? {
            sealed.entry(chain).or_default();
        }
        for (chain, heads) in sealed {
            let result = self.verify_chain(&owner, &chain, &heads, |_| {}).await?;
            verdicts.push(Verdict { chain, result });
        }
        Ok(verdicts)
    }

    async fn verify_chain(
        &self,
        owner: &Owner,
        chain: &Chain,
        sealed: &[Head],
        mut each: impl FnMut(&LinkedRecord) + Send,
    ) -> Result<std::result::Result<Head, Broken>> {
        let mut verdict = Ok(Head::EMPTY);
        for _ in 0..ATTEMPTS {
            let (before, verifier, after) = (
                self.inner.stored_head(owner, chain).await,
                self.read(owner, chain, &mut each).await?,
                self.inner.stored_head(owner, chain).await,
            );
            let (before, after) = match (before, after) {
                (Ok(before), Ok(after)) => (before.0, after.0),
                // A head row that can't be read is one that was edited.
                (Err(Error::Corrupt { .. }), _) | (_, Err(Error::Corrupt { .. })) => {
                    return Ok(verifier.finish(None).and_then(|head| {
                        Err(Broken {
                            sequence: head.sequence.max(1),
                            kind: Break::Edited,
                        })
                    }));
                }
                (Err(error), _) | (_, Err(error)) => return Err(error),
            };
            verdict = verifier.finish(Some(&after)).and_then(|head| {
                for sealed in sealed {
                    match verifier.head_at(sealed.sequence) {
                        Some(stored) if stored == *sealed => {}
                        Some(_) => {
                            return Err(Broken {
                                sequence: sealed.sequence,
                                kind: Break::Edited,
                            });
                        }
                        None => {
                            return Err(Broken {
                                sequence: head.sequence + 1,
                                kind: Break::Truncated,
                            });
                        }
                    }
                }
                Ok(head)
            });
            // Somebody wrote while it was read: what seems broken may be what was just written.
            if verdict.is_ok() || before == after {
                break;
            }
        }
        Ok(verdict)
    }

    async fn read(&self, owner: &Owner, chain: &Chain, mut each: impl FnMut(&LinkedRecord) + Send) -> Result<Verifier> {
        let mut verifier = Verifier::new(chain.clone());
        self.inner
            .each_page(owner, records_of(chain)?, |entities| {
                for entity in &entities {
                    match from_properties(chain, &entity.properties) {
                        Ok(record) => {
                            verifier.push(&record);
                            each(&record);
                        }
                        Err(_) => verifier.push_unreadable(),
                    }
                }
                Ok(())
            })
            .await?;
        Ok(verifier)
    }

    /// Writes the rows for listing anew from a chain, and answers how many. For a day, once for each of
    /// [`AuditLog::chains`].
    ///
    /// # Errors
    /// Those of storage; [`Error::Malformed`] for a chain of somebody else's.
    pub async fn repair_index<'a>(&self, within: impl Into<Within<'a>> + Send, chain: &Chain) -> Result<usize> {
        let within = within.into();
        let mut after = 0;
        let mut count = 0;
        loop {
            let records = self.chain(within, chain, after, MAX_GROUP).await?;
            let Some(last) = records.last() else { return Ok(count) };
            after = last.sequence;
            count += records.len();
            self.index(within, &records).await?;
        }
    }

    /// Writes the rows for listing anew from a run's chain, and answers how many.
    ///
    /// # Errors
    /// Those of storage.
    pub async fn repair_run_index(&self, scope: &Scope, run: &RunId) -> Result<usize> {
        let chain = Chain::Run {
            org: scope.org().clone(),
            run: run.clone(),
        };
        self.repair_index(scope, &chain).await
    }

    // ── forgetting and sealing ─────────────────────────────────────────────────────────────────────────────────────────

    /// Destroys the key of a person's data in these records; whether there was one. Every chain still verifies. Instances
    /// that remember the key stop using it within ten minutes. A person has a key in each organization and one in the
    /// platform's records: the caller goes through them all, and records that it was done.
    ///
    /// # Errors
    /// Those of storage.
    pub async fn erase_subject<'a>(&self, within: impl Into<Within<'a>> + Send, subject: &Subject) -> Result<bool> {
        self.inner.erase(&within.into().owner(), subject).await
    }

    /// Puts the heads of a day's chains, as far as they have moved, into the owner's chain of seals, and answers how many.
    /// Repeating changes nothing, and two at the same time seal each head once.
    ///
    /// # Errors
    /// Those of storage; what was not sealed is sealed by the next call.
    pub async fn seal_heads<'a>(&self, within: impl Into<Within<'a>> + Send, day: &str) -> Result<usize> {
        let within = within.into();
        let (owner, (principal, tier)) = (within.owner(), within.principal());
        let inner = &self.inner;
        let seals = Chain::Seal { owner: owner.clone() };
        let mut done = 0;
        let mut conflicts = 0;
        while conflicts < ATTEMPTS {
            // The head comes first: whatever others seal meanwhile changes it, and the transaction fails.
            let (head, etag) = inner.stored_head(&owner, &seals).await?;
            let mut moved = Vec::new();
            for (chain, row, sealed) in self.writers(&owner, day).await? {
                let (head, _) = inner.stored_head(&owner, &chain).await?;
                if head.sequence > sealed {
                    moved.push((chain, row, head));
                }
                if moved.len() == MAX_SEALED {
                    break;
                }
            }
            if moved.is_empty() {
                return Ok(done);
            }
            let heads: Vec<Json> = moved
                .iter()
                .map(|(chain, _, head)| json!({ "chain": chain, "head": head }))
                .collect();
            let record = Record::by(
                inner.record_id(),
                inner.clock.now(),
                Event::ChainSealed,
                principal,
                tier,
            )
            .detail(&json!({ "heads": heads }));
            let sealed = self.seal(within, record).await?;
            let (head, linked) = crate::audit::link(&seals, &head, sealed);
            let mut operations = vec![row::chain_operation(&linked), head_operation(&head, etag.as_ref())];
            operations.extend(
                moved
                    .iter()
                    .map(|(_, row, head)| Operation::Merge(row.clone(), row::sealed_to(head.sequence), Match::Any)),
            );
            match inner
                .ports
                .tables
                .commit(&table(&owner), &key::audit_seal(), operations)
                .await
            {
                Ok(_) => done += moved.len(),
                Err(error) if error.is_conflict() => conflicts += 1,
                Err(error) => return Err(error),
            }
        }
        Err(contended("the chain of audit seals"))
    }

    /// The chains of a day, their rows beside the chain of seals, and how far they are sealed.
    async fn writers(&self, owner: &Owner, day: &str) -> Result<Vec<(Chain, Key, u64)>> {
        let prefix = key::audit_writers(day);
        let mut out = Vec::new();
        self.inner
            .each_page(
                owner,
                Query::partition(key::audit_seal()).prefix(&prefix)?,
                |entities| {
                    for entity in entities {
                        let writer = entity.row.as_str().strip_prefix(&prefix).unwrap_or_default().to_owned();
                        let chain = Chain::Day {
                            owner: owner.clone(),
                            day: day.to_owned(),
                            writer,
                        };
                        out.push((chain, entity.row, row::sealed(&entity.properties)?));
                    }
                    Ok(())
                },
            )
            .await?;
        Ok(out)
    }
}

/// The chain's owner, if it is the one whose records are asked for.
fn owned(within: &Within<'_>, chain: &Chain) -> Result<Owner> {
    let owner = within.owner();
    let of = match chain {
        Chain::Run { org, .. } => Owner::Organization(org.clone()),
        Chain::Day { owner, .. } | Chain::Seal { owner } => owner.clone(),
    };
    if of == owner {
        Ok(owner)
    } else {
        Err(Error::Malformed {
            what: chain.to_string(),
            expected: "chain of this owner",
        })
    }
}

fn records_of(chain: &Chain) -> Result<Query> {
    Query::partition(partition(chain)).prefix(key::AUDIT_RECORDS)
}

/// The heads that a record of the chain of seals holds.
fn sealed_heads(record: &LinkedRecord) -> Vec<(Chain, Head)> {
    let Ok(Plain {
        detail: Some(detail), ..
    }) = record.sealed.plain()
    else {
        return Vec::new();
    };
    let one = |entry: &Json| {
        Some((
            entry["chain"].as_str()?.parse().ok()?,
            entry["head"].as_str()?.parse().ok()?,
        ))
    };
    detail["heads"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(one)
        .collect()
}

fn opened<T>(part: Option<Option<&Found>>, open: impl FnOnce(&seal::SubjectKey) -> Option<T>) -> Opened<T> {
    match part {
        None => Opened::Absent,
        Some(Some(Found::Key(key))) => open(key).map_or(Opened::Unreadable, Opened::Readable),
        Some(Some(Found::Erased)) => Opened::Erased,
        Some(Some(Found::Missing) | None) => Opened::Unreadable,
    }
}

fn to_cursor(continuation: &Continuation) -> String {
    URL_SAFE_NO_PAD.encode(&continuation.0)
}

fn from_cursor(text: &str) -> Result<Continuation> {
    URL_SAFE_NO_PAD
        .decode(text)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .map(Continuation)
        .ok_or_else(|| Error::Malformed {
            what: text.chars().take(60).collect(),
            expected: "cursor",
        })
}
