//! People who are asked by a step: they agree or refuse, late or never, several of them, and some twice.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::callers::{Heard, ask, scope, somebody};
use super::history::Question;
use super::random::Random;
use super::simulate::Fleet;
use super::site::{World, lock};
use crate::authz::Origin;
use crate::domain::{OrgId, RunId};
use crate::error::{Coded as _, Kind};
use crate::usecase::approval::{self, Word};

/// How often it is looked who is asked something.
const LOOK: Duration = Duration::from_secs(3);
/// How often somebody tries to say something who hears nothing, or that storage is away.
const TRIES: usize = 6;

/// A word that was said, and whether anybody has heard it for certain.
#[derive(Debug, Clone)]
pub(super) struct Said {
    /// The run.
    pub(super) run: RunId,
    /// The step.
    pub(super) step: String,
    /// Who.
    pub(super) by: String,
    /// What.
    pub(super) approved: bool,
    /// When it was answered that it counts; none where that is not known.
    pub(super) heard_at: Option<Duration>,
}

/// All words.
#[derive(Debug, Default)]
pub(super) struct People {
    said: Mutex<Vec<Said>>,
}

impl People {
    pub(super) fn said(&self) -> Vec<Said> {
        lock(&self.said).clone()
    }
}

/// Has everybody decide who is asked. Never returns.
pub(super) async fn decide(world: Arc<World>, fleet: Arc<Fleet>, people: Arc<People>, seed: u64, orgs: Vec<OrgId>) {
    let mut asked: BTreeSet<(RunId, String)> = BTreeSet::new();
    loop {
        tokio::time::sleep(LOOK).await;
        for question in world.history.questions() {
            if !asked.insert((question.run.clone(), question.step.clone())) {
                continue;
            }
            let Some(org) = orgs
                .iter()
                .find(|org| crate::store::key::org_table(org) == question.table)
                .cloned()
            else {
                continue;
            };
            let mut random = Random::of(seed, &format!("people {} {}", question.run, question.step));
            for person in 0..random.below(4) {
                let parts = (world.clone(), fleet.clone(), people.clone());
                let random = Random::of(seed, &format!("person {person} {} {}", question.run, question.step));
                let person = usize::try_from(person).unwrap_or_default();
                tokio::spawn(one(parts, org.clone(), question.clone(), person, random));
            }
        }
    }
}

async fn one(
    (world, fleet, people): (Arc<World>, Arc<Fleet>, Arc<People>),
    org: OrgId,
    question: Question,
    person: usize,
    mut random: Random,
) {
    let within = Duration::from_millis(question.within_ms);
    tokio::time::sleep(random.between(Duration::ZERO, within * 5 / 4)).await;
    let scope = scope(&org, person);
    let who = format!("pers{person}");
    let (approved, origin) = (random.per_mille(800), Origin::default());
    let link = if random.per_mille(250) {
        let process = somebody(&fleet, &mut random).await;
        let (name, step) = (format!("guest {person}"), (&question.run, question.step.as_str()));
        let made = approval::link(&process.cx, &scope, &origin, step, &name, None);
        match Box::pin(ask(&process, made)).await {
            Heard::Answer(made) => Some(made),
            _ => None,
        }
    } else {
        None
    };
    let by = match &link {
        Some(link) => format!("link:{}", link.name),
        None => scope.principal().id(),
    };
    // Once, or once more to be sure, or because they have changed their mind.
    let words = if random.per_mille(300) {
        vec![approved, random.per_mille(500) == approved]
    } else {
        vec![approved]
    };
    for (number, approved) in words.into_iter().enumerate() {
        for _ in 0..TRIES {
            let process = somebody(&fleet, &mut random).await;
            let word = Word {
                approved,
                comment: None,
            };
            let at = lock(&people.said).len();
            lock(&people.said).push(Said {
                run: question.run.clone(),
                step: question.step.clone(),
                by: by.clone(),
                approved,
                heard_at: None,
            });
            let heard = match &link {
                Some(link) => {
                    let work = Box::pin(approval::decide_by_link(&process.cx, &origin, &link.token, word));
                    ask(&process, work).await
                }
                None => {
                    let step = (&question.run, question.step.as_str());
                    let work = Box::pin(approval::decide(&process.cx, &scope, &origin, step, word));
                    ask(&process, work).await
                }
            };
            match heard {
                Heard::Answer(_) => {
                    world.met("decision: taken");
                    world.trace.say(
                        &who,
                        &format!("decided on {} {}: {approved}", question.run, question.step),
                    );
                    lock(&people.said)[at].heard_at = Some(world.clock.elapsed());
                    break;
                }
                Heard::Problem(error) if error.kind() == Kind::Conflict => {
                    world.met(if number > 0 {
                        "decision: refused as a second one"
                    } else {
                        "decision: refused as too late"
                    });
                    world.trace.say(&who, &format!("is told: {error}"));
                    break;
                }
                Heard::Problem(error) if error.kind().retriable() => {}
                Heard::Problem(error) => {
                    world
                        .history
                        .violation(format!("{who} could not decide on {}: {error}", question.run));
                    break;
                }
                Heard::Nothing => {}
            }
            tokio::time::sleep(random.between(Duration::from_millis(100), Duration::from_secs(8))).await;
        }
        tokio::time::sleep(random.between(Duration::ZERO, Duration::from_secs(20))).await;
    }
}
