//! Those who ask: start a run, ask again with the same key, cancel it, look at it; and what they were told, which must stay
//! true.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::process::Process;
use super::random::Random;
use super::scenario::Request;
use super::simulate::{Fleet, arguments};
use super::site::{World, lock};
use crate::authz::{Origin, Principal, Role, Tier};
use crate::domain::{Ask, OrgId, Payload, RunId, Status, Timestamp, UserId};
use crate::error::{Coded as _, Kind};
use crate::store::repo::runs::StoredRun;
use crate::tenancy::{Membership, Organization, Scope, resolve};
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
enum Heard<T> {
    Answer(T),
    Problem(Error),
    /// The process died, or froze for too long.
    Nothing,
}

async fn ask<T>(process: &Process, work: impl Future<Output = Result<T, Error>>) -> Heard<T> {
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
async fn somebody(fleet: &Fleet, random: &mut Random) -> Arc<Process> {
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
        let input = StartRun {
            ask: Ask::default(),
            workflow: request.workflow.clone(),
            arguments: arguments(),
            wait: request.wait,
            idempotency_key: request.key.clone(),
            received_at: process.cx.clock.now(),
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
                if let Some(key) = &request.key {
                    let key = format!("{org} {} {} {key}", request.person, request.workflow);
                    lock(&callers.by_key).entry(key).or_default().push(id.clone());
                }
                started = Some(id);
                break;
            }
            Heard::Problem(error) => {
                world.trace.say(&who, &format!("meets a problem: {error}"));
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
    look(&world, &fleet, &callers, &mut random, (&who, &scope, &id)).await;
}

async fn cancel(
    world: &World,
    fleet: &Fleet,
    callers: &Callers,
    random: &mut Random,
    (who, scope, id): (&str, &Scope, &RunId),
) {
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
                if !world
                    .history
                    .runs()
                    .get(id)
                    .is_some_and(|life| life.state.status.is_terminal())
                {
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
