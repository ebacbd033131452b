//! Wraps any backend and makes it fail on demand: by a plan, by a switch, or from one call on as after a crash. It counts
//! the calls as well, for tests of budgets and for the benchmark.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::error::Error;
use super::port::{
    BlobPage, BlobPath, BlobStore, ContainerName, Continuation, ETag, Entity, Key, Match, Message, MessageReceipt,
    Operation, Page, Ports, Put, Query, QueueName, QueueStore, Result, TableName, TableStore, Upload,
};
use crate::domain::{Secret, Timestamp};

/// An operation of a port.
#[expect(missing_docs, reason = "the names are those of the operations")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    CreateTable,
    DeleteTable,
    Get,
    Query,
    Commit,
    CreateContainer,
    DeleteContainer,
    PutBlob,
    GetBlob,
    ReadBlob,
    AppendBlob,
    LayAside,
    Assemble,
    ThrowAway,
    TouchBlob,
    DeleteBlob,
    ListBlobs,
    CreateQueue,
    DeleteQueue,
    Send,
    Receive,
    DeleteMessage,
    Extend,
}

impl Call {
    /// Every kind.
    pub const ALL: [Self; 23] = [
        Self::CreateTable,
        Self::DeleteTable,
        Self::Get,
        Self::Query,
        Self::Commit,
        Self::CreateContainer,
        Self::DeleteContainer,
        Self::PutBlob,
        Self::GetBlob,
        Self::ReadBlob,
        Self::AppendBlob,
        Self::LayAside,
        Self::Assemble,
        Self::ThrowAway,
        Self::TouchBlob,
        Self::DeleteBlob,
        Self::ListBlobs,
        Self::CreateQueue,
        Self::DeleteQueue,
        Self::Send,
        Self::Receive,
        Self::DeleteMessage,
        Self::Extend,
    ];

    /// Whether it may change what is stored.
    #[must_use]
    pub const fn writes(self) -> bool {
        !matches!(
            self,
            Self::Get | Self::Query | Self::GetBlob | Self::ReadBlob | Self::ListBlobs
        )
    }
}

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done and [`Error::Unavailable`] is answered.
    Before,
    /// It is done, and [`Error::Unavailable`] is answered all the same: the answer was lost.
    After,
    /// Nothing is done and [`Error::Throttled`] is answered.
    Throttle,
    /// It is done later, by tokio's clock.
    Delay(Duration),
    /// Nothing is done, and this and every later call fails until [`Faults::heal`].
    Crash,
    /// It is done, and this and every later call fails until [`Faults::heal`].
    CrashAfter,
    /// Nothing is done, and neither this nor any later call is ever answered: the process behind these ports is dead.
    Die,
    /// It is done, and neither this nor any later call is ever answered.
    DieAfter,
}

/// A call that a plan is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Moment<'a> {
    /// The operation.
    pub call: Call,
    /// The table, container or queue.
    pub name: &'a str,
    /// Which call of its kind it is, from 1.
    pub of_kind: u64,
    /// Which call of any kind it is, from 1.
    pub overall: u64,
}

/// A line of a script: the fault that befalls some calls.
#[derive(Debug, Clone)]
pub struct Rule {
    calls: Vec<Call>,
    prefix: String,
    from: u64,
    until: u64,
    fault: Fault,
    met: u64,
}

impl Rule {
    /// Befalls every call, until it is narrowed.
    #[must_use]
    pub const fn new(fault: Fault) -> Self {
        Self {
            calls: Vec::new(),
            prefix: String::new(),
            from: 1,
            until: u64::MAX,
            fault,
            met: 0,
        }
    }

    /// Only calls of these kinds.
    #[must_use]
    pub fn calls(mut self, calls: &[Call]) -> Self {
        self.calls = calls.to_vec();
        self
    }

    /// Only calls that may change what is stored.
    #[must_use]
    pub fn writes(self) -> Self {
        let writes: Vec<_> = Call::ALL.into_iter().filter(|call| call.writes()).collect();
        self.calls(&writes)
    }

    /// Only on tables, containers and queues whose name starts so.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.prefix);
        self
    }

    /// Only the call with this number, from 1, of those that the rule is about.
    #[must_use]
    pub const fn only(self, number: u64) -> Self {
        self.range(number, number)
    }

    /// Only the calls with these numbers, both included, from 1, of those that the rule is about.
    #[must_use]
    pub const fn range(mut self, first: u64, last: u64) -> Self {
        (self.from, self.until) = (first, last);
        self
    }

    fn decide(&mut self, moment: &Moment<'_>) -> Option<Fault> {
        let about =
            (self.calls.is_empty() || self.calls.contains(&moment.call)) && moment.name.starts_with(&self.prefix);
        if !about {
            return None;
        }
        self.met += 1;
        (self.from..=self.until).contains(&self.met).then_some(self.fault)
    }
}

/// A plan in code.
pub type Decide = Box<dyn FnMut(&Moment<'_>) -> Option<Fault> + Send>;

/// Decides about each call.
pub enum Plan {
    /// All goes well.
    Calm,
    /// The first rule that fits decides; each rule counts the calls that it is about.
    Script(Vec<Rule>),
    /// Of a thousand calls so many fail, by chance: before, after, throttled, in equal parts. The same seed and the same
    /// order of calls give the same faults.
    Seeded {
        /// Begins the sequence.
        seed: u64,
        /// How many of a thousand calls fail.
        per_mille: u16,
    },
    /// Anything else.
    Custom(Decide),
}

impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Calm => f.write_str("Calm"),
            Self::Script(rules) => f.debug_tuple("Script").field(rules).finish(),
            Self::Seeded { seed, per_mille } => f
                .debug_struct("Seeded")
                .field("seed", seed)
                .field("per_mille", per_mille)
                .finish(),
            Self::Custom(_) => f.write_str("Custom"),
        }
    }
}

impl Plan {
    fn decide(&mut self, moment: &Moment<'_>) -> Option<Fault> {
        match self {
            Self::Calm => None,
            Self::Script(rules) => {
                // Every rule counts, though only the first that fits decides.
                rules.iter_mut().fold(None, |decided, rule| {
                    let fault = rule.decide(moment);
                    decided.or(fault)
                })
            }
            Self::Seeded { seed, per_mille } => {
                let chance = mix(*seed, moment.overall);
                let kinds = [Fault::Before, Fault::After, Fault::Throttle];
                (chance % 1000 < u64::from(*per_mille)).then(|| kinds[(chance / 1000 % 3) as usize])
            }
            Self::Custom(decide) => decide(moment),
        }
    }
}

/// The `number`th of a sequence (splitmix64, Steele, Lea and Flood 2014).
const fn mix(seed: u64, number: u64) -> u64 {
    let mut z = seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[derive(Debug)]
struct State {
    plan: Plan,
    down: bool,
    crashed: bool,
    dead: bool,
    overall: u64,
    calls: BTreeMap<Call, u64>,
    injected: u64,
}

/// The hand on the switches, and the counters.
#[derive(Debug)]
pub struct Faults(Mutex<State>);

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes everything down, or lets it come up: while down, nothing is done and [`Error::Unavailable`] is answered.
    pub fn down(&self, down: bool) {
        self.state().down = down;
    }

    /// Ends the effect of a crash.
    pub fn heal(&self) {
        self.state().crashed = false;
    }

    /// Ends the process behind these ports, as seen from storage: no call is answered any more, and none that has not
    /// reached storage yet is done. It can't be undone.
    pub fn kill(&self) {
        self.state().dead = true;
    }

    /// Whether a crash has happened that isn't healed.
    #[must_use]
    pub fn crashed(&self) -> bool {
        self.state().crashed
    }

    /// Goes on by another plan. Counters go on, those of rules begin anew.
    pub fn plan(&self, plan: Plan) {
        self.state().plan = plan;
    }

    /// How many calls of each kind there were, failed ones included, since the beginning or [`Faults::reset`].
    #[must_use]
    pub fn calls(&self) -> BTreeMap<Call, u64> {
        self.state().calls.clone()
    }

    /// How many calls of one kind.
    #[must_use]
    pub fn count(&self, call: Call) -> u64 {
        self.state().calls.get(&call).copied().unwrap_or(0)
    }

    /// How many calls of all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.state().overall
    }

    /// How many calls met a fault, delays included.
    #[must_use]
    pub fn injected(&self) -> u64 {
        self.state().injected
    }

    /// Counts from zero again.
    pub fn reset(&self) {
        let mut state = self.state();
        state.calls.clear();
        (state.overall, state.injected) = (0, 0);
    }

    fn decide(&self, call: Call, name: &str) -> Option<Fault> {
        let mut state = self.state();
        if state.dead {
            return Some(Fault::Die);
        }
        state.overall += 1;
        let of_kind = state.calls.entry(call).or_default();
        *of_kind += 1;
        let moment = Moment {
            call,
            name,
            of_kind: *of_kind,
            overall: state.overall,
        };
        let fault = if state.down || state.crashed {
            Some(Fault::Before)
        } else {
            state.plan.decide(&moment)
        };
        state.injected += u64::from(fault.is_some());
        state.crashed |= matches!(fault, Some(Fault::Crash | Fault::CrashAfter));
        state.dead |= matches!(fault, Some(Fault::Die | Fault::DieAfter));
        fault
    }

    async fn call<T>(&self, call: Call, name: &str, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let unavailable = || Error::Unavailable {
            what: format!("injected into {call:?}"),
            source: "injected".into(),
        };
        let answer = match self.decide(call, name) {
            None => work.await,
            Some(Fault::Die) => std::future::pending().await,
            Some(Fault::Before | Fault::Crash) => Err(unavailable()),
            Some(Fault::After | Fault::CrashAfter) => {
                drop(work.await);
                Err(unavailable())
            }
            Some(Fault::DieAfter) => work.await,
            Some(Fault::Throttle) => Err(Error::Throttled {
                source: "injected".into(),
            }),
            Some(Fault::Delay(by)) => {
                tokio::time::sleep(by).await;
                if self.state().dead {
                    return std::future::pending().await;
                }
                work.await
            }
        };
        // What was under way when the process died may have been done; nobody hears of it.
        if self.state().dead {
            return std::future::pending().await;
        }
        answer
    }
}

/// Ports that fail.
#[derive(Debug)]
pub struct Faulty {
    inner: Ports,
    faults: Arc<Faults>,
}

impl Faulty {
    /// Ports around `ports`, and the hand on their switches.
    #[must_use]
    pub fn wrap(ports: Ports, plan: Plan) -> (Ports, Arc<Faults>) {
        let faults = Arc::new(Faults(Mutex::new(State {
            plan,
            down: false,
            crashed: false,
            dead: false,
            overall: 0,
            calls: BTreeMap::new(),
            injected: 0,
        })));
        let faulty = Arc::new(Self {
            inner: ports,
            faults: Arc::clone(&faults),
        });
        let ports = Ports {
            tables: Arc::clone(&faulty) as Arc<dyn TableStore>,
            blobs: Arc::clone(&faulty) as Arc<dyn BlobStore>,
            queues: faulty,
        };
        (ports, faults)
    }
}

#[async_trait]
impl TableStore for Faulty {
    async fn create_table(&self, table: &TableName) -> Result<()> {
        self.faults
            .call(Call::CreateTable, table.as_str(), self.inner.tables.create_table(table))
            .await
    }

    async fn delete_table(&self, table: &TableName) -> Result<()> {
        self.faults
            .call(Call::DeleteTable, table.as_str(), self.inner.tables.delete_table(table))
            .await
    }

    async fn get(&self, table: &TableName, partition: &Key, row: &Key) -> Result<Option<Entity>> {
        self.faults
            .call(Call::Get, table.as_str(), self.inner.tables.get(table, partition, row))
            .await
    }

    async fn query(&self, table: &TableName, query: Query) -> Result<Page> {
        self.faults
            .call(Call::Query, table.as_str(), self.inner.tables.query(table, query))
            .await
    }

    async fn commit(&self, table: &TableName, partition: &Key, operations: Vec<Operation>) -> Result<Vec<ETag>> {
        self.faults
            .call(
                Call::Commit,
                table.as_str(),
                self.inner.tables.commit(table, partition, operations),
            )
            .await
    }
}

#[async_trait]
impl BlobStore for Faulty {
    async fn create_container(&self, container: &ContainerName) -> Result<()> {
        let work = self.inner.blobs.create_container(container);
        self.faults.call(Call::CreateContainer, container.as_str(), work).await
    }

    async fn delete_container(&self, container: &ContainerName) -> Result<()> {
        let work = self.inner.blobs.delete_container(container);
        self.faults.call(Call::DeleteContainer, container.as_str(), work).await
    }

    async fn put(&self, container: &ContainerName, path: &BlobPath, bytes: Bytes, put: Put) -> Result<()> {
        let work = self.inner.blobs.put(container, path, bytes, put);
        self.faults.call(Call::PutBlob, container.as_str(), work).await
    }

    async fn get(&self, container: &ContainerName, path: &BlobPath, limit: u64) -> Result<Option<Bytes>> {
        self.faults
            .call(
                Call::GetBlob,
                container.as_str(),
                self.inner.blobs.get(container, path, limit),
            )
            .await
    }

    async fn read(
        &self,
        container: &ContainerName,
        path: &BlobPath,
        offset: u64,
        length: u64,
    ) -> Result<Option<Bytes>> {
        let work = self.inner.blobs.read(container, path, offset, length);
        self.faults.call(Call::ReadBlob, container.as_str(), work).await
    }

    async fn append(&self, container: &ContainerName, path: &BlobPath, at: u64, bytes: Bytes) -> Result<()> {
        let work = self.inner.blobs.append(container, path, at, bytes);
        self.faults.call(Call::AppendBlob, container.as_str(), work).await
    }

    async fn lay_aside(
        &self,
        container: &ContainerName,
        path: &BlobPath,
        upload: Upload,
        at: u64,
        bytes: Bytes,
    ) -> Result<()> {
        let work = self.inner.blobs.lay_aside(container, path, upload, at, bytes);
        self.faults.call(Call::LayAside, container.as_str(), work).await
    }

    async fn assemble(&self, container: &ContainerName, path: &BlobPath, upload: Upload, size: u64) -> Result<()> {
        let work = self.inner.blobs.assemble(container, path, upload, size);
        self.faults.call(Call::Assemble, container.as_str(), work).await
    }

    async fn throw_away(&self, container: &ContainerName, path: &BlobPath, upload: Upload) -> Result<()> {
        let work = self.inner.blobs.throw_away(container, path, upload);
        self.faults.call(Call::ThrowAway, container.as_str(), work).await
    }

    async fn touch(&self, container: &ContainerName, path: &BlobPath) -> Result<bool> {
        let work = self.inner.blobs.touch(container, path);
        self.faults.call(Call::TouchBlob, container.as_str(), work).await
    }

    async fn delete(&self, container: &ContainerName, path: &BlobPath, condition: Match) -> Result<bool> {
        let work = self.inner.blobs.delete(container, path, condition);
        self.faults.call(Call::DeleteBlob, container.as_str(), work).await
    }

    async fn list(&self, container: &ContainerName, prefix: &str, after: Option<Continuation>) -> Result<BlobPage> {
        let work = self.inner.blobs.list(container, prefix, after);
        self.faults.call(Call::ListBlobs, container.as_str(), work).await
    }
}

#[async_trait]
impl QueueStore for Faulty {
    async fn create_queue(&self, queue: &QueueName) -> Result<()> {
        self.faults
            .call(Call::CreateQueue, queue.as_str(), self.inner.queues.create_queue(queue))
            .await
    }

    async fn delete_queue(&self, queue: &QueueName) -> Result<()> {
        self.faults
            .call(Call::DeleteQueue, queue.as_str(), self.inner.queues.delete_queue(queue))
            .await
    }

    async fn send(&self, queue: &QueueName, text: &str, delay: Duration) -> Result<MessageReceipt> {
        self.faults
            .call(Call::Send, queue.as_str(), self.inner.queues.send(queue, text, delay))
            .await
    }

    async fn send_once(&self, queue: &QueueName, text: &str) -> Result<MessageReceipt> {
        self.faults
            .call(Call::Send, queue.as_str(), self.inner.queues.send_once(queue, text))
            .await
    }

    async fn receive(&self, queue: &QueueName, max: usize, visibility: Duration) -> Result<Vec<Message>> {
        self.faults
            .call(
                Call::Receive,
                queue.as_str(),
                self.inner.queues.receive(queue, max, visibility),
            )
            .await
    }

    async fn delete(&self, queue: &QueueName, receipt: &MessageReceipt) -> Result<bool> {
        self.faults
            .call(
                Call::DeleteMessage,
                queue.as_str(),
                self.inner.queues.delete(queue, receipt),
            )
            .await
    }

    async fn extend(
        &self,
        queue: &QueueName,
        receipt: &MessageReceipt,
        visibility: Duration,
    ) -> Result<MessageReceipt> {
        self.faults
            .call(
                Call::Extend,
                queue.as_str(),
                self.inner.queues.extend(queue, receipt, visibility),
            )
            .await
    }

    /// Neither counted nor failed: it changes nothing.
    async fn sender_address(&self, queue: &QueueName, now: Timestamp, until: Timestamp) -> Result<Option<Secret>> {
        self.inner.queues.sender_address(queue, now, until).await
    }

    /// Neither counted nor failed: it answers nothing.
    async fn sent_here(&self, queue: &QueueName) {
        self.inner.queues.sent_here(queue).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(plan: &mut Plan, call: Call, name: &str, times: u64) -> Vec<Option<Fault>> {
        (1..=times)
            .map(|number| {
                plan.decide(&Moment {
                    call,
                    name,
                    of_kind: number,
                    overall: number,
                })
            })
            .collect()
    }

    #[test]
    fn a_script_counts_what_it_is_about() {
        let mut plan = Plan::Script(vec![
            Rule::new(Fault::After).calls(&[Call::Commit]).prefix("org").only(2),
            Rule::new(Fault::Throttle).prefix("org").range(3, 4),
        ]);
        assert_eq!(run(&mut plan, Call::Commit, "Weft", 2), [None, None]);
        let expected = [
            None,
            Some(Fault::After),
            Some(Fault::Throttle),
            Some(Fault::Throttle),
            None,
        ];
        assert_eq!(run(&mut plan, Call::Commit, "org1", 5), expected);
    }

    #[test]
    fn chance_repeats() {
        let faults = |seed| run(&mut Plan::Seeded { seed, per_mille: 300 }, Call::Get, "x", 1000);
        assert_eq!(faults(7), faults(7));
        assert_ne!(faults(7), faults(8));
        let failed = faults(7).iter().flatten().count();
        assert!((200..400).contains(&failed), "{failed} of 1000 failed");
    }
}
