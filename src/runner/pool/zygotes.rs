//! The processes that workers are forked from: one for each environment, when another is started after one has ended, and
//! which user ids it may lend.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::describe::DESCRIPTIONS;
use super::{Settings, Shared, State};
use crate::runner::RunnerError;
use crate::runner::environments::EnvironmentRef;
use crate::runner::jail::setup::{Setup, Uids};
use crate::runner::zygote::{Phase, Zygote};

/// The time in which [`FAILURES`] ends of a zygote are too many.
const FAILURE_WINDOW: Duration = Duration::from_secs(30);
const FAILURES: usize = 5;
/// The wait before the third start within the window; doubles with each further one.
const BACK_OFF: Duration = Duration::from_millis(50);

impl Shared {
    /// The zygote, a new one when there is none: at once after a first failure, later after longer and longer, and not at
    /// all after too many within a short time.
    pub(super) async fn zygote(&self, environment: &Option<EnvironmentRef>) -> Result<Arc<Zygote>, RunnerError> {
        loop {
            let wait = {
                let mut state = self.state();
                if self.stopping.load(Ordering::SeqCst) {
                    return Err(RunnerError::Stopping);
                }
                let now = Instant::now();
                state.note_death(now);
                state.latest.clone_from(environment);
                if let Some(zygote) = state.zygotes.get(environment) {
                    return Ok(Arc::clone(zygote));
                }
                while state
                    .failures
                    .front()
                    .is_some_and(|at| now.duration_since(*at) > FAILURE_WINDOW)
                {
                    state.failures.pop_front();
                }
                if state.failures.len() >= FAILURES {
                    return Err(state.give_up());
                }
                let due = state.failures.back().map(|last| *last + back_off(state.failures.len()));
                match due.map(|due| due.saturating_duration_since(now)) {
                    Some(wait) if !wait.is_zero() => wait,
                    _ => {
                        let Settings {
                            python,
                            engine_dir,
                            preload,
                            ..
                        } = &self.settings;
                        let paths = self.paths(environment);
                        let uids = state.free_uids()?;
                        let setup = Setup {
                            uids: uids.map_or(self.setup.uids, |(_, uids)| Some(uids)),
                            ..self.setup.clone()
                        };
                        let group = self.group.clone();
                        let started = Zygote::start(python, engine_dir, preload, &paths, group, &setup, &self.runtime);
                        let zygote = started.map_err(|error| RunnerError::NoPython {
                            reason: error.to_string(),
                        })?;
                        let zygote = Arc::new(zygote);
                        if let Some((place, _)) = uids {
                            state.uids[place].1 = Arc::downgrade(&zygote);
                        }
                        state.zygotes.insert(environment.clone(), Arc::clone(&zygote));
                        return Ok(zygote);
                    }
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// A worker was lost: because of the zygote, or for its own reason.
    pub(super) fn why_lost(&self, environment: &Option<EnvironmentRef>, reason: String) -> RunnerError {
        let mut state = self.state();
        if self.stopping.load(Ordering::SeqCst) {
            return RunnerError::Stopping;
        }
        let died = state.zygotes.get(environment).is_some_and(|zygote| zygote.is_dead());
        state.note_death(Instant::now());
        if died {
            state.give_up()
        } else {
            RunnerError::NoWorker { reason }
        }
    }

    /// Where packages are that code of an environment may import: its own first, then those that are installed for the
    /// interpreter.
    pub(super) fn paths(&self, environment: &Option<EnvironmentRef>) -> Vec<PathBuf> {
        let own = environment.iter().map(|environment| environment.lib.clone());
        own.chain(self.settings.python.packages.iter().cloned()).collect()
    }
}

impl State {
    /// User ids for another zygote, with their place in the list; none where no zygote changes its workers' user.
    fn free_uids(&self) -> Result<Option<(usize, Uids)>, RunnerError> {
        if self.uids.is_empty() {
            return Ok(None);
        }
        let mut parts = self.uids.iter().enumerate();
        match parts.find(|(_, (_, owner))| owner.strong_count() == 0) {
            Some((place, (uids, _))) => Ok(Some((place, *uids))),
            None => Err(RunnerError::NoWorker {
                reason: format!(
                    "workers of {} environments use all user numbers, and another environment needs some of its own: \
                     widen `WEFT_STEP_UIDS`",
                    self.uids.len()
                ),
            }),
        }
    }

    fn note_death(&mut self, now: Instant) {
        let dead: Vec<_> = self.zygotes.extract_if(|_, zygote| zygote.is_dead()).collect();
        for (_, zygote) in dead {
            let Phase::Dead { reason, was_ready } = zygote.phase() else {
                continue;
            };
            let (forks, kills) = zygote.counts();
            self.past = (self.past.0 + forks, self.past.1 + kills);
            self.failures.push_back(now);
            tracing::error!(reason, "the process that workers are forked from has ended");
            self.last_failure = Some(if was_ready {
                RunnerError::NoWorker { reason }
            } else {
                RunnerError::NoPython { reason }
            });
        }
    }

    fn give_up(&self) -> RunnerError {
        match &self.last_failure {
            Some(RunnerError::NoPython { reason }) => RunnerError::NoPython { reason: reason.clone() },
            Some(other) => RunnerError::NoWorker {
                reason: other.to_string(),
            },
            None => RunnerError::NoWorker {
                reason: "the zygote ended".into(),
            },
        }
    }
}

/// The user ids in parts that each suffice for all workers that there can be at once, those on their way out included.
pub(super) fn parts_of_uids(settings: &Settings) -> Vec<(Uids, Weak<Zygote>)> {
    let Some(all) = settings.isolation.uids.filter(|_| rustix::process::geteuid().is_root()) else {
        return Vec::new();
    };
    let enough = 2 * (settings.slots + settings.idle + DESCRIPTIONS);
    let parts = parts(all, u32::try_from(enough).unwrap_or(u32::MAX));
    parts.into_iter().map(|uids| (uids, Weak::new())).collect()
}

/// As many parts as can have that many, at least one.
fn parts(all: Uids, enough: u32) -> Vec<Uids> {
    let parts = (all.count / enough).max(1);
    let count = all.count / parts;
    let part = |part| Uids {
        first: all.first + part * count,
        count,
    };
    (0..parts).map(part).collect()
}

fn back_off(failures: usize) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        more => BACK_OFF * (1 << (more - 2).min(5)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_zygotes_lend_the_same_user() {
        let all = Uids {
            first: 61_000,
            count: 1_024,
        };
        let split = parts(all, 100);
        assert_eq!(split.len(), 10);
        let numbers: std::collections::HashSet<_> = split
            .iter()
            .flat_map(|uids| uids.first..uids.first + uids.count)
            .collect();
        assert_eq!(numbers.len(), 1_020);
        assert!(numbers.iter().all(|number| (61_000..62_024).contains(number)));
        assert_eq!(parts(all, 2_000), [all]);
    }
}
