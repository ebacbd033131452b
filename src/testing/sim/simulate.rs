//! One simulation from its beginning to its verdict.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::callers::{Callers, call};
use super::check::{Told, check};
use super::clock::VirtualClock;
use super::memory::Memory;
use super::people::{self, People};
use super::process::{Ground, Host, Process, random_of};
use super::random::Random;
use super::scenario::Scenario;
use super::site::{Site, World, lock};
use super::tally::Tally;
use super::triggers::{Triggers, keep_hook, keep_schedule};
use crate::boot;
use crate::clock::Entropy;
use crate::store::port::MAX_PAGE;
use crate::store::repo::identity::Identities;
use crate::tenancy;

/// How long virtual time may run on after the last fault until everything must have come to rest: the longest run, the
/// longest that a host hides a message, several times over.
const PATIENCE: Duration = Duration::from_secs(3 * 3600);
/// How often it is looked whether everything has.
const LOOK: Duration = Duration::from_secs(20);

/// What came of a simulation.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The seed.
    pub seed: u64,
    /// Everything that is not as it must be.
    pub violations: Vec<String>,
    /// The digest of everything that happened.
    pub digest: String,
    /// What happened, where it was to be kept.
    pub trace: Vec<String>,
    /// Calls of storage.
    pub calls: u64,
    /// Runs.
    pub runs: usize,
    /// Attempts that were really begun.
    pub attempts: usize,
    /// Attempts that went down with their process.
    pub vanished: usize,
    /// Takes of runs beyond the first.
    pub taken_over: u64,
    /// Processes that were started.
    pub processes: u64,
    /// What was met how often.
    pub met: Tally,
}

/// The processes as they are now.
#[derive(Debug)]
pub struct Fleet {
    slots: Mutex<Vec<Option<Arc<Process>>>>,
}

impl Fleet {
    /// Those that live.
    #[must_use]
    pub fn alive(&self) -> Vec<Arc<Process>> {
        let slots = lock(&self.slots);
        slots
            .iter()
            .flatten()
            .filter(|process| !process.site.dead.is_cancelled())
            .cloned()
            .collect()
    }
}

/// Simulates a scenario, on a runtime of its own.
///
/// # Panics
/// When the runtime can't be made, or what is simulated panics.
#[must_use]
pub fn simulate(ground: &Ground, scenario: &Scenario, keep_trace: bool) -> Verdict {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime can be made");
    runtime.block_on(Box::pin(simulated(ground, scenario, keep_trace)))
}

async fn simulated(ground: &Ground, scenario: &Scenario, keep_trace: bool) -> Verdict {
    let lot = ground.lot(&scenario.files());
    let clock = VirtualClock::new(scenario.base);
    let memory = Memory::with(Arc::new(clock.clone()), scenario.page, scenario.defect);
    prepare(&memory, scenario, &clock).await;
    let world = Arc::new(World::new(
        clock,
        keep_trace,
        scenario.weather,
        scenario.latency,
        scenario.crash_at,
        scenario.slip,
    ));
    let fleet = Arc::new(Fleet {
        slots: Mutex::new(vec![None; scenario.skews_ms.len()]),
    });
    let started = Arc::new(Mutex::new(0));
    // Each slot is kept filled by a task of this one's, since a process is put together from what the test owns.
    let keepers = (0..scenario.skews_ms.len()).map(|slot| {
        let (world, memory, fleet, started, lot) = (&world, &memory, &fleet, &started, &lot);
        async move {
            for generation in 0_u64.. {
                let mut random = random_of(scenario.seed, slot, generation);
                if generation > 0 {
                    // The platform notices, and starts another one; sometimes it takes its time.
                    let most = if random.per_mille(200) { 400 } else { 40 };
                    let rest = random.between(Duration::from_secs(1), Duration::from_secs(most));
                    tokio::time::sleep(rest).await;
                }
                let letter = char::from(b'a' + u8::try_from(slot).unwrap_or_default());
                let name = format!("{letter}{generation}");
                let site = Arc::new(Site::new(name, world.clone(), scenario.skews_ms[slot], random));
                let process = Process::start(
                    lot,
                    site.clone(),
                    memory.ports(),
                    scenario.manners.clone(),
                    &scenario.settings,
                    scenario.host,
                );
                lock(&fleet.slots)[slot] = Some(Arc::new(process));
                *lock(started) += 1;
                site.dead.cancelled().await;
                world.history.vanished(&site.name);
            }
        }
    });
    let keepers = futures::future::join_all(keepers);
    let callers = Arc::new(Callers::default());
    let (people, triggers) = (Arc::new(People::default()), Arc::new(Triggers::default()));
    let story = async {
        let mut requests: Vec<JoinHandle<()>> = scenario
            .requests
            .iter()
            .enumerate()
            .map(|(number, request)| {
                let parts = (world.clone(), fleet.clone(), callers.clone());
                tokio::spawn(call(
                    parts,
                    scenario.seed,
                    number,
                    scenario.orgs.clone(),
                    request.clone(),
                ))
            })
            .collect();
        for (number, story) in scenario.schedules.iter().enumerate() {
            let parts = (world.clone(), fleet.clone(), triggers.clone());
            let (of, org) = ((scenario.seed, number), scenario.orgs[story.org].clone());
            requests.push(tokio::spawn(keep_schedule(
                parts,
                of,
                org,
                story.clone(),
                scenario.foul_for,
            )));
        }
        for (number, story) in scenario.hooks.iter().enumerate() {
            let parts = (world.clone(), fleet.clone(), triggers.clone());
            let (of, org) = ((scenario.seed, number), scenario.orgs[story.org].clone());
            requests.push(tokio::spawn(keep_hook(parts, of, org, story.clone())));
        }
        let decides = tokio::spawn(people::decide(
            world.clone(),
            fleet.clone(),
            people.clone(),
            scenario.seed,
            scenario.orgs.clone(),
        ));
        let strikes = tokio::spawn(strike(
            world.clone(),
            fleet.clone(),
            scenario.seed,
            scenario.strikes_every,
        ));
        tokio::time::sleep(scenario.foul_for).await;
        world.clear_up();
        strikes.abort();
        for request in requests {
            if let Err(error) = request.await {
                world.history.violation(format!("a caller panicked: {error}"));
            }
        }
        come_to_rest(&world, &memory).await;
        decides.abort();
    };
    tokio::select! {
        biased;
        _ = keepers => {}
        () = story => {}
    }
    // Somebody who looks at everything, over a wire on which nothing goes wrong.
    let random = Random::of(scenario.seed, "auditor");
    let auditor = Arc::new(Site::immune("auditor".into(), world.clone(), random));
    let auditor = Process::start(
        &lot,
        auditor,
        memory.ports(),
        scenario.manners.clone(),
        &scenario.settings,
        Host::None,
    );
    let told = Told {
        callers: &callers,
        people: &people,
        triggers: &triggers,
    };
    check(&auditor, &memory, scenario, &told).await;
    let mut met = world.tally();
    met.merge(&world.history.tally());
    let (digest, _, trace) = world.trace.end();
    let runs = world.history.runs();
    let attempts = world.history.attempts();
    let vanished = |begun: &&super::history::Begun| matches!(begun.end, Some((_, super::history::End::Vanished)));
    let processes = *lock(&started);
    Verdict {
        seed: scenario.seed,
        violations: world.history.violations(),
        digest,
        trace,
        calls: world.calls(),
        runs: runs.len(),
        attempts: attempts.len(),
        vanished: attempts.values().filter(vanished).count(),
        taken_over: runs.values().map(|life| life.takes.saturating_sub(1)).sum(),
        processes,
        met,
    }
}

/// Tables, queues and organizations, before anything can go wrong.
async fn prepare(memory: &Memory, scenario: &Scenario, clock: &VirtualClock) {
    let ports = memory.ports();
    boot::prepare(&ports).await.expect("nothing fails yet");
    let entropy = Arc::new(Entropy::seeded(scenario.seed));
    let identities = Identities::new(ports, Arc::new(clock.clone()), entropy);
    for org in &scenario.orgs {
        let name = "Simulated".parse().expect("a good name");
        let slug = org.as_str().parse().expect("a good slug");
        identities
            .upsert_organization(&tenancy::operator(), org, &name, Some(&slug))
            .await
            .expect("nothing fails yet");
    }
}

/// Kills, stops, freezes, cuts off, until the weather clears up.
async fn strike(world: Arc<World>, fleet: Arc<Fleet>, seed: u64, every: Option<Duration>) {
    let Some(every) = every else { return };
    let mut random = Random::of(seed, "strikes");
    let seconds = Duration::from_secs;
    loop {
        tokio::time::sleep(random.between(seconds(1), every * 2)).await;
        let alive = fleet.alive();
        if alive.is_empty() {
            continue;
        }
        let process = random.pick(&alive).clone();
        match random.below(10) {
            0..=3 => process.site.kill(),
            4 => {
                tokio::spawn(async move { process.stop().await });
            }
            5..=7 => {
                // Half of them longer than a lease.
                let most = if random.per_mille(500) { 20 } else { 150 };
                process.site.freeze(random.between(seconds(1), seconds(most)));
            }
            8 => world.outage(random.between(seconds(1), seconds(20))),
            _ => world.outage(random.between(seconds(20), seconds(120))),
        }
    }
}

/// Waits until every run has ended and every queue is empty, or for as long as that may take; not after a broken promise,
/// since nothing more can be learned then.
async fn come_to_rest(world: &World, memory: &Memory) {
    let until = world.clock.elapsed() + PATIENCE;
    while world.clock.elapsed() < until && world.history.violations().is_empty() {
        tokio::time::sleep(LOOK).await;
        if world.history.all_ended() && memory.queues.lying().is_empty() {
            // What was done beside the last commit.
            tokio::time::sleep(Duration::from_secs(90)).await;
            if world.history.all_ended() && memory.queues.lying().is_empty() {
                return;
            }
        }
    }
}

const _: () = assert!(MAX_PAGE >= 1000, "scenarios ask for pages of up to a thousand rows");
