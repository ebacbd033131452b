//! What starts runs without a caller: schedules that are made, fire and are switched off, and hooks to which the same deliveries
//! come again and again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use serde_json::{Map, Value, json};

use super::callers::{Heard, ask, scope, somebody};
use super::random::Random;
use super::simulate::Fleet;
use super::site::{World, lock};
use crate::authz::Origin;
use crate::domain::{HookId, OrgId, RunId, ScheduleId, Secret, Timestamp};
use crate::error::{Coded as _, Kind};
use crate::tenancy::Scope;
use crate::usecase::hook::{self, HookInput};
use crate::usecase::hook_delivery::{self, Delivered, Request};
use crate::usecase::schedule::{self, Change};

/// How often somebody tries who must come through: longer than any fault.
const TRIES: usize = 400;
/// How long after the weather has cleared up schedules still fire: longer than anybody is frozen.
const FIRES_ON: Duration = Duration::from_secs(240);
/// With what senders sign.
const SECRET: &str = "a secret of the simulated sender, long enough";

/// A schedule of a scenario.
#[derive(Debug, Clone)]
pub struct ScheduleStory {
    /// In which organization.
    pub org: usize,
    /// What is run.
    pub workflow: String,
    /// When it is made.
    pub at: Duration,
    /// Every so many minutes.
    pub minutes: u64,
    /// What happens while the run before has not ended.
    pub overlap: &'static str,
    /// Which missed fire times are made up for.
    pub catch_up: &'static str,
}

/// A hook of a scenario.
#[derive(Debug, Clone)]
pub struct HookStory {
    /// In which organization.
    pub org: usize,
    /// What is run.
    pub workflow: String,
    /// When it is made.
    pub at: Duration,
    /// When each delivery comes, for the first time and again.
    pub deliveries: Vec<Vec<Duration>>,
}

impl ScheduleStory {
    pub(super) fn of(random: &mut Random, orgs: usize, workflows: &[String], foul_for: Duration) -> Vec<Self> {
        let count = *random.pick(&[0, 0, 0, 1, 1, 2]);
        (0..count)
            .map(|_| Self {
                org: usize::try_from(random.below(orgs as u64)).unwrap_or_default(),
                workflow: random.pick(workflows).clone(),
                at: random.between(Duration::ZERO, foul_for / 2),
                minutes: *random.pick(&[2, 3, 5, 5]),
                overlap: *random.pick(&["allow", "skip", "queue", "cancel_previous"]),
                catch_up: *random.pick(&["none", "last", "all"]),
            })
            .collect()
    }
}

impl HookStory {
    pub(super) fn of(random: &mut Random, orgs: usize, workflows: &[String], foul_for: Duration) -> Vec<Self> {
        let count = *random.pick(&[0, 0, 1]);
        (0..count)
            .map(|_| Self {
                org: usize::try_from(random.below(orgs as u64)).unwrap_or_default(),
                workflow: random.pick(workflows).clone(),
                at: random.between(Duration::ZERO, foul_for / 4),
                deliveries: (0..=random.below(3))
                    .map(|_| {
                        let first = random.between(Duration::ZERO, foul_for / 2);
                        (0..=random.below(3))
                            .map(|_| {
                                let most = *random.pick(&[5, 5_000, 120_000]);
                                first + random.between(Duration::ZERO, Duration::from_millis(most))
                            })
                            .collect()
                    })
                    .collect(),
            })
            .collect()
    }
}

/// What is known of a schedule from outside.
#[derive(Debug, Clone)]
pub(super) struct Scheduled {
    pub(super) org: OrgId,
    pub(super) id: ScheduleId,
    pub(super) minutes: u64,
    /// When it was first asked for.
    pub(super) asked: Timestamp,
    /// When it was there for certain.
    pub(super) from: Timestamp,
    /// When it was first asked to be switched off.
    pub(super) until: Timestamp,
    /// When it was off for certain.
    pub(super) off: Timestamp,
}

/// What is known of what senders were answered: runs by delivery.
#[derive(Debug, Default)]
pub(super) struct Triggers {
    scheduled: Mutex<Vec<Scheduled>>,
    delivered: Mutex<BTreeMap<(HookId, String), Vec<RunId>>>,
    hooks: Mutex<Vec<(OrgId, HookId)>>,
}

impl Triggers {
    pub(super) fn scheduled(&self) -> Vec<Scheduled> {
        lock(&self.scheduled).clone()
    }

    pub(super) fn delivered(&self) -> BTreeMap<(HookId, String), Vec<RunId>> {
        lock(&self.delivered).clone()
    }

    pub(super) fn hooks(&self) -> Vec<(OrgId, HookId)> {
        lock(&self.hooks).clone()
    }
}

type Parts = (Arc<World>, Arc<Fleet>, Arc<Triggers>);

fn members(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

/// Makes a schedule, and switches it off when the weather has been good for a while.
pub(super) async fn keep_schedule(
    (world, fleet, triggers): Parts,
    (seed, number): (u64, usize),
    org: OrgId,
    story: ScheduleStory,
    foul_for: Duration,
) {
    let mut random = Random::of(seed, &format!("schedule {number}"));
    let (who, scope) = (format!("sche{number}"), scope(&org, 0));
    let (name, origin) = (format!("schedule {number}"), Origin::default());
    let written = members(json!({
        "name": name, "workflow": story.workflow, "cron": format!("*/{} * * * *", story.minutes), "timeZone": "UTC",
        "overlap": story.overlap, "catchUp": story.catch_up, "arguments": {"n": 5},
    }));
    tokio::time::sleep(story.at).await;
    let (asked, mut made) = (world.now(), None);
    for _ in 0..TRIES {
        let process = somebody(&fleet, &mut random).await;
        // One whose answer was lost may be there.
        let found = match ask(&process, schedule::list(&process.cx, &scope, 100, None)).await {
            Heard::Answer((all, _)) => all.into_iter().find(|one| one.definition.name == name),
            _ => None,
        };
        if let Some(found) = found {
            world.trace.say(&who, &format!("made {}", found.id));
            made = Some(());
            break;
        }
        let work = Box::pin(schedule::create(&process.cx, &scope, &origin, &written));
        if let Heard::Problem(error) = ask(&process, work).await
            && !error.kind().retriable()
        {
            let wrong = format!("{who} could not be made: {error} {:?}", error.findings());
            return world.history.violation(wrong);
        }
        // A call that was given up may arrive up to a minute later.
        tokio::time::sleep(random.between(Duration::from_secs(65), Duration::from_secs(90))).await;
    }
    if made.is_none() {
        return;
    }
    let end = foul_for + FIRES_ON;
    tokio::time::sleep(end.saturating_sub(world.clock.elapsed())).await;
    // One whose maker was given up may have been made after all.
    let mut all = None;
    for _ in 0..TRIES {
        let process = somebody(&fleet, &mut random).await;
        if let Heard::Answer((found, _)) = ask(&process, schedule::list(&process.cx, &scope, 100, None)).await {
            all = Some(found);
            break;
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let all = all.unwrap_or_default();
    for one in all.into_iter().filter(|one| one.definition.name == name) {
        let (id, until) = (one.id, world.now());
        if !end_schedule(&world, &fleet, &mut random, &scope, &id, &written).await {
            return;
        }
        world.trace.say(&who, &format!("switched {id} off"));
        lock(&triggers.scheduled).push(Scheduled {
            org: org.clone(),
            id,
            minutes: story.minutes,
            asked,
            // A call that was given up may have arrived up to a minute later.
            from: one.created_at.plus(Duration::from_secs(65)),
            until,
            off: world.now(),
        });
    }
}

async fn end_schedule(
    world: &World,
    fleet: &Fleet,
    random: &mut Random,
    scope: &Scope,
    id: &ScheduleId,
    written: &Map<String, Value>,
) -> bool {
    let (mut written, origin) = (written.clone(), Origin::default());
    written.insert("enabled".into(), json!(false));
    for _ in 0..TRIES {
        let process = somebody(fleet, random).await;
        let change = Change {
            written: written.clone(),
            if_tag: None,
        };
        let work = Box::pin(schedule::update(&process.cx, scope, &origin, id.as_str(), &change));
        match ask(&process, work).await {
            Heard::Answer(_) => return true,
            Heard::Problem(error) if !error.kind().retriable() => {
                world
                    .history
                    .violation(format!("{id} could not be switched off: {error}"));
                return false;
            }
            Heard::Problem(_) | Heard::Nothing => {}
        }
        tokio::time::sleep(random.between(Duration::from_secs(1), Duration::from_secs(5))).await;
    }
    world.history.violation(format!("{id} could not be switched off"));
    false
}

/// Makes a hook, and sends what its sender sends.
pub(super) async fn keep_hook(parts: Parts, (seed, number): (u64, usize), org: OrgId, story: HookStory) {
    let (world, fleet, triggers) = parts.clone();
    let mut random = Random::of(seed, &format!("hook {number}"));
    let (who, scope, origin) = (format!("hook{number}"), scope(&org, 0), Origin::default());
    tokio::time::sleep(story.at).await;
    let mut made = None;
    for _ in 0..TRIES {
        let process = somebody(&fleet, &mut random).await;
        let input = HookInput {
            members: members(json!({"name": who, "workflow": story.workflow, "scheme": "github"})),
            secret: Some(Secret::value(SECRET)),
        };
        let work = Box::pin(hook::create(&process.cx, &scope, &origin, input));
        match ask(&process, work).await {
            Heard::Answer(hook) => {
                made = Some(hook.stored.hook.id);
                break;
            }
            Heard::Problem(error) if !error.kind().retriable() => {
                let wrong = format!("{who} could not be made: {error} {:?}", error.findings());
                return world.history.violation(wrong);
            }
            Heard::Problem(_) | Heard::Nothing => {}
        }
        tokio::time::sleep(random.between(Duration::from_secs(1), Duration::from_secs(5))).await;
    }
    let Some(id) = made else { return };
    world.trace.say(&who, &format!("made {id}"));
    lock(&triggers.hooks).push((org, id.clone()));
    let mut sending = Vec::new();
    for (delivery, times) in story.deliveries.into_iter().enumerate() {
        for (again, at) in times.into_iter().enumerate() {
            let random = Random::of(seed, &format!("delivery {number} {delivery} {again}"));
            let name = format!("delivery {number}-{delivery}");
            sending.push(tokio::spawn(send(parts.clone(), id.clone(), name, at, random)));
        }
    }
    for one in sending {
        if let Err(error) = one.await {
            world.history.violation(format!("a sender panicked: {error}"));
        }
    }
}

/// Sends a delivery until it is taken, as senders do that are told to come again.
async fn send((world, fleet, triggers): Parts, id: HookId, delivery: String, after: Duration, mut random: Random) {
    tokio::time::sleep(after).await;
    let body = json!({"n": delivery.len() % 10}).to_string();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let tag = hmac::sign(&key, body.as_bytes());
    let signature: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let request = Request {
        headers: vec![
            ("content-type".into(), "application/json".into()),
            ("x-github-delivery".into(), delivery.clone()),
            ("x-hub-signature-256".into(), format!("sha256={signature}")),
        ],
        query: String::new(),
        body: body.into_bytes().into(),
    };
    let origin = Origin {
        address: "198.51.100.7".into(),
        ..Origin::default()
    };
    for _ in 0..TRIES {
        let process = somebody(&fleet, &mut random).await;
        let work = Box::pin(async {
            let door = hook_delivery::knock(&process.cx, id.as_str(), &origin).await?;
            hook_delivery::deliver(&process.cx, &door, &origin, &request).await
        });
        match ask(&process, work).await {
            Heard::Answer(Delivered::Run { run, repeated }) => {
                world.met(if repeated {
                    "delivery: repeated"
                } else {
                    "delivery: taken"
                });
                world
                    .trace
                    .say("sender", &format!("is told of {} for {delivery}", run.new.run));
                let mut delivered = lock(&triggers.delivered);
                delivered.entry((id, delivery)).or_default().push(run.new.run.clone());
                return;
            }
            Heard::Answer(Delivered::Answered(_)) => {
                return world
                    .history
                    .violation(format!("{delivery} was answered as a challenge"));
            }
            Heard::Problem(error) if !error.kind().retriable() && error.kind() != Kind::Throttled => {
                return world.history.violation(format!("{delivery} was refused: {error}"));
            }
            Heard::Problem(_) | Heard::Nothing => {}
        }
        tokio::time::sleep(random.between(Duration::from_secs(1), Duration::from_secs(20))).await;
    }
}
