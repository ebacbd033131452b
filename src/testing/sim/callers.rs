//! Those who ask: start a run, ask again with the same key, cancel it, look at it; and what they were told, which must stay
//! true.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Map, json};
use tokio_util::sync::CancellationToken;

use super::process::Process;
use super::random::Random;
use super::scenario::{Request, Then};
use super::simulate::Fleet;
use super::site::{World, lock};
use crate::authz::{Origin, Principal, Role, Tier};
use crate::domain::{Ask, Begins, OnConflict, OrgId, Payload, RunId, Status, Timestamp, UserId};
use crate::error::{Coded as _, Kind};
use crate::store::repo::runs::StoredRun;
use crate::tenancy::{Membership, Organization, Scope, resolve};
use crate::usecase::rerun::{self, Rerun, rerun};
use crate::usecase::resume_run::{CodeOf, resume};
use crate::usecase::start_run::{StartRun, start_run};
use crate::usecase::{Error, control_run, query_run};

/// How often somebody asks again who was told that storage is away, or nothing.
const TRIES: usize = 4;
/// How long somebody waits for an answer of a process that has frozen.
const PATIENCE: Duration = Duration::from_secs(230);

/// What somebody was told about a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// The organization.
    pub org: OrgId,
    /// Its status.
    pub status: Status,
    /// Its result.
    pub result: Payload,
}

/// What all callers were told.
#[derive(Debug, Default)]
pub struct Callers {
    told: Mutex<BTreeMap<RunId, Vec<Told>>>,
    by_key: Mutex<BTreeMap<String, Vec<RunId>>>,
    cancelled: Mutex<BTreeSet<RunId>>,
    kinds: Mutex<BTreeMap<RunId, &'static str>>,
}

impl Callers {
    /// By run, in the order in which they were told it.
    #[must_use]
    pub fn told(&self) -> BTreeMap<RunId, Vec<Told>> {
        lock(&self.told).clone()
    }

    /// The runs that answered an idempotency key.
    #[must_use]
    pub fn by_key(&self) -> BTreeMap<String, Vec<RunId>> {
        lock(&self.by_key).clone()
    }

    /// Runs that somebody has asked to cancel.
    #[must_use]
    pub fn cancelled(&self) -> BTreeSet<RunId> {
        lock(&self.cancelled).clone()
    }

    /// What was asked for, where it was something else than a new run.
    #[must_use]
    pub fn kinds(&self) -> BTreeMap<RunId, &'static str> {
        lock(&self.kinds).clone()
    }

    fn hear(&self, org: &OrgId, run: &StoredRun) {
        lock(&self.told).entry(run.new.run.clone()).or_default().push(Told {
            org: org.clone(),
            status: run.state.status,
            result: run.result.clone(),
        });
    }
}

/// A person's scope in an organization.
///
/// # Panics
/// Never: the organization is there and active, and the person is a member.
#[must_use]
pub fn scope(org: &OrgId, person: usize) -> Scope {
    let organization = Organization {
        id: org.clone(),
        name: "Simulated".into(),
        active: true,
    };
    let membership = Membership {
        org: org.clone(),
        role: Role::OrgAdmin,
    };
    let principal = Principal::User {
        id: UserId::derived(Timestamp::from_millis(0), &format!("person {person}")),
        name: format!("Person {person}"),
        administrator: false,
    };
    resolve(
        org,
        Some(&organization),
        Some(&membership),
        principal,
        Tier::ClientPrincipal,
    )
    .expect("a member of an active organization")
}

/// What came of asking a process.
pub(super) enum Heard<T> {
    Answer(T),
    Problem(Error),
    /// The process died, or froze for too long.
    Nothing,
}

pub(super) async fn ask<T>(process: &Process, work: impl Future<Output = Result<T, Error>>) -> Heard<T> {
    tokio::select! {
        biased;
        () = process.site.dead.cancelled() => Heard::Nothing,
        answer = tokio::time::timeout(PATIENCE, work) => match answer {
            Ok(Ok(answer)) => Heard::Answer(answer),
            Ok(Err(error)) => Heard::Problem(error),
            Err(_) => Heard::Nothing,
        }
    }
}

/// A process to ask; waits until there is one.
pub(super) async fn somebody(fleet: &Fleet, random: &mut Random) -> Arc<Process> {
    loop {
        let alive = fleet.alive();
        if !alive.is_empty() {
            return random.pick(&alive).clone();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Everything that follows from one request.
pub(super) async fn call(
    (world, fleet, callers): (Arc<World>, Arc<Fleet>, Arc<Callers>),
    seed: u64,
    number: usize,
    orgs: Vec<OrgId>,
    request: Request,
) {
    tokio::time::sleep(request.at).await;
    let mut random = Random::of(seed, &format!("caller {number}"));
    let who = format!("call{number}");
    let org = &orgs[request.org];
    let scope = scope(org, request.person);
    let origin = Origin {
        address: "192.0.2.1".into(),
        agent: "simulated".into(),
        request_id: format!("req-{number}"),
        endpoint: format!("POST /api/workflows/{}/execute", request.workflow),
        ..Origin::default()
    };
    let mut started = None;
    for _ in 0..TRIES {
        let process = somebody(&fleet, &mut random).await;
        let now = process.cx.clock.now();
        let input = StartRun {
            draft: false,
            ask: Ask {
                priority: request.priority,
                not_before: request.begins_after.map(|after| now.plus(after)),
                concurrency: request.concurrency.clone(),
                ..Ask::default()
            },
            begins: request.begins_after.map_or(Begins::AtOnce, Begins::After),
            gone: CancellationToken::new(),
            workflow: request.workflow.clone(),
            arguments: Map::from_iter([("n".to_owned(), json!(request.n))]),
            wait: request.wait,
            idempotency_key: request.key.clone(),
            received_at: now,
            origin: origin.clone(),
            unindexed: Vec::new(),
        };
        world
            .trace
            .say(&who, &format!("asks {} for {}", process.site.name, request.workflow));
        let work = Box::pin(start_run(&process.cx, &scope, input));
        match ask(&process, work).await {
            Heard::Answer(answer) => {
                let run = answer.run;
                let (id, status) = (run.new.run.clone(), run.state.status);
                world.trace.say(&who, &format!("is told of {id}: {}", status.as_str()));
                callers.hear(org, &run);
                asked(&world, &request, answer.repeated);
                if let Some(key) = &request.key {
                    let key = format!("{org} {} {} {key}", request.person, request.workflow);
                    lock(&callers.by_key).entry(key).or_default().push(id.clone());
                }
                started = Some(id);
                break;
            }
            Heard::Problem(error) => {
                world.trace.say(&who, &format!("meets a problem: {error}"));
                let skips = request
                    .concurrency
                    .as_ref()
                    .is_some_and(|key| key.on_conflict == OnConflict::Skip);
                if error.code() == "concurrency_key_taken" && skips {
                    world.met("ask: skipped for its concurrency key");
                    return;
                }
                if !error.kind().retriable() {
                    world
                        .history
                        .violation(format!("{who} was refused a run: {error} ({error:?})"));
                    break;
                }
            }
            Heard::Nothing => world.trace.say(&who, "hears nothing"),
        }
        // Without a key nobody knows whether there is a run, so asking again may start a second one.
        if request.key.is_none() {
            break;
        }
        tokio::time::sleep(random.between(Duration::from_millis(100), Duration::from_secs(10))).await;
    }
    let Some(id) = started else { return };
    if let Some(after) = request.cancel_after {
        tokio::time::sleep(after).await;
        cancel(&world, &fleet, &callers, &mut random, (&who, &scope, &id)).await;
    }
    Box::pin(look(&world, &fleet, &callers, &mut random, (&who, &scope, &id))).await;
    if let Some(then) = request.then {
        again(&world, &fleet, &callers, &mut random, (&who, &scope, &id), then).await;
    }
}

/// Counts what was asked for.
fn asked(world: &World, request: &Request, repeated: bool) {
    if repeated {
        world.met("ask: repeated");
    }
    if request.begins_after.is_some() {
        world.met("ask: begins later");
    }
    if request.wait.is_some() {
        world.met("ask: waits");
    }
    if request.priority != crate::domain::Priority::NORMAL {
        world.met("ask: priority");
    }
    if let Some(key) = &request.concurrency {
        world.met(format!("ask: key, {:?}", key.on_conflict));
    }
}

/// Resumes a run that has ended, or runs it again; and asks once more with the same key.
async fn again(
    world: &World,
    fleet: &Fleet,
    callers: &Callers,
    random: &mut Random,
    (who, scope, id): (&str, &Scope, &RunId),
    then: Then,
) {
    while !world.history.has_ended(id) {
        if !world.goes_on() {
            return;
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    let key = format!("again {who}");
    let mut answers = 0;
    for _ in 0..TRIES {
        let process = somebody(fleet, random).await;
        world
            .trace
            .say(who, &format!("asks {} for {then:?} of {id}", process.site.name));
        let origin = Origin::default();
        let cx = &process.cx;
        let heard = match then {
            Then::Resume(pinned) => {
                let code = if pinned { CodeOf::Pinned } else { CodeOf::Current };
                ask(&process, Box::pin(resume(cx, scope, &origin, id, code, Some(&key)))).await
            }
            Then::Rerun(pinned) => {
                let input = Rerun {
                    run: id.clone(),
                    code: if pinned {
                        rerun::Code::Pinned
                    } else {
                        rerun::Code::Current
                    },
                    wait: random.per_mille(300).then(|| Duration::from_secs(60)),
                    idempotency_key: Some(key.clone()),
                    received_at: cx.clock.now(),
                    origin: origin.clone(),
                    gone: CancellationToken::new(),
                    unindexed: Vec::new(),
                };
                let work = Box::pin(async { rerun(cx, scope, input).await.map(|again| (again.run, again.repeated)) });
                ask(&process, work).await
            }
        };
        match heard {
            Heard::Answer((run, repeated)) => {
                let new = run.new.run.clone();
                world.trace.say(who, &format!("is told of {new}"));
                let (kind, met) = match (then, repeated) {
                    (Then::Resume(_), false) => ("resume", "ask: resume"),
                    (Then::Resume(_), true) => ("resume", "ask: resume repeated"),
                    (Then::Rerun(_), false) => ("rerun", "ask: rerun"),
                    (Then::Rerun(_), true) => ("rerun", "ask: rerun repeated"),
                };
                world.met(met);
                callers.hear(scope.org(), &run);
                lock(&callers.kinds).insert(new.clone(), kind);
                let key = format!("{} {key} {kind}", scope.org());
                lock(&callers.by_key).entry(key).or_default().push(new);
                answers += 1;
                if answers > 1 {
                    return;
                }
            }
            Heard::Problem(error) => {
                world.trace.say(who, &format!("meets a problem: {error}"));
                let ends = match error.code() {
                    "run_succeeded" => matches!(then, Then::Resume(_)),
                    "concurrency_key_taken" => true,
                    _ => false,
                };
                if ends {
                    return;
                }
                if !error.kind().retriable() {
                    world
                        .history
                        .violation(format!("{who} could not have {then:?} of {id}: {error} ({error:?})"));
                    return;
                }
            }
            Heard::Nothing => world.trace.say(who, "hears nothing"),
        }
        tokio::time::sleep(random.between(Duration::from_millis(100), Duration::from_secs(5))).await;
    }
}

async fn cancel(
    world: &World,
    fleet: &Fleet,
    callers: &Callers,
    random: &mut Random,
    (who, scope, id): (&str, &Scope, &RunId),
) {
    lock(&callers.cancelled).insert(id.clone());
    for _ in 0..TRIES {
        let process = somebody(fleet, random).await;
        world
            .trace
            .say(who, &format!("asks {} to cancel {id}", process.site.name));
        let origin = Origin::default();
        let work = Box::pin(control_run::cancel(&process.cx, scope, &origin, id));
        match ask(&process, work).await {
            Heard::Answer(run) => {
                world.trace.say(who, "is told that it is cancelled");
                callers.hear(scope.org(), &run);
                return;
            }
            Heard::Problem(error) if error.kind() == Kind::Conflict => {
                world.trace.say(who, &format!("is told: {error}"));
                if !world.history.has_ended(id) {
                    world
                        .history
                        .violation(format!("{who} could not cancel {id}, which has not ended: {error}"));
                }
                return;
            }
            Heard::Problem(error) => {
                world.trace.say(who, &format!("meets a problem: {error}"));
                if !error.kind().retriable() {
                    world.history.violation(format!("{who} could not cancel {id}: {error}"));
                }
            }
            Heard::Nothing => world.trace.say(who, "hears nothing"),
        }
        tokio::time::sleep(random.between(Duration::from_millis(100), Duration::from_secs(5))).await;
    }
}

/// Looks at the run now and then until it has ended, as somebody does who was told 202.
async fn look(
    world: &World,
    fleet: &Fleet,
    callers: &Callers,
    random: &mut Random,
    (who, scope, id): (&str, &Scope, &RunId),
) {
    for _ in 0..6 {
        tokio::time::sleep(random.between(Duration::from_secs(1), Duration::from_secs(90))).await;
        let process = somebody(fleet, random).await;
        match ask(&process, query_run::get(&process.cx, scope, id)).await {
            Heard::Answer(details) => {
                callers.hear(scope.org(), &details.run);
                if details.run.state.status.is_terminal() {
                    return;
                }
            }
            Heard::Problem(error) if error.kind() == Kind::NotFound => {
                world
                    .history
                    .violation(format!("{who} was told of {id}, and then that there is none"));
            }
            Heard::Problem(_) | Heard::Nothing => {}
        }
    }
}
