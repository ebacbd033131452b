//! When an organization's backlog gives way to runs of others that somebody waits for.
//!
//! A backlog that is worked off at full speed takes half of every call beside it: what the engine does for a run costs as much
//! as a small step, and can't be told to be nicer. So for an organization that has few such calls under way here, others hold
//! back: one run of a backlog begins every [`PACE`] in the first second of a call, and for [`HOLD`] after one where its calls
//! use to follow each other more closely than that; until [`OFTEN`] after it a backlog takes one part in [`TIMES`] of the time,
//! and until a second after it, only one run of a backlog for every [`SLOTS_FOR_YOUNG`] is in its first moments at once. What
//! has run longer is in its steps, which the operating system holds back. Whoever has more than few calls under way has its
//! share, and nobody holds back for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::domain::OrgId;

/// How often a backlog's next run begins at least, whoever is called for.
const PACE: Duration = Duration::from_millis(60);
/// For how long after a call a backlog leaves most of the time to others: who calls so often is seldom met by one of its runs.
const OFTEN: Duration = Duration::from_millis(250);
/// The time that it leaves: its next run begins when so many times what the last one took have passed since that one began.
const TIMES: u32 = 3;
/// For how long after a call the next one of its organization is expected, where they follow each other so closely.
const HOLD: Duration = Duration::from_millis(8);
/// For how long after its beginning and after its end a call is remembered. One that takes longer is in its steps: it must not
/// slow down others for as long as it lasts.
const REMEMBERED: Duration = Duration::from_secs(1);
/// For how long after its beginning a run is in its first moments.
const YOUNG: Duration = Duration::from_millis(100);
/// One call for so many slots is few.
const SLOTS_FOR_EACH: usize = 4;
/// For so many slots, which is for two processors unless it is set, one run of a backlog may be in its first moments beside
/// calls: it keeps about one processor busy, and a call finds the other free.
const SLOTS_FOR_YOUNG: usize = 8;

/// Runs under way here that somebody waits for.
#[derive(Debug, Clone)]
pub(in crate::usecase) struct Courtesy {
    few: usize,
    /// So many runs of a backlog are in their first moments at once beside calls.
    young: usize,
    lines: Arc<Mutex<BTreeMap<OrgId, Line>>>,
    /// Fires when the last of an organization's has ended.
    ended: Arc<Notify>,
}

/// An organization's.
#[derive(Debug, Default)]
struct Line {
    under_way: usize,
    /// When the last one began.
    begun: Option<Instant>,
    /// When the last one ended.
    ended: Option<Instant>,
    /// About how long it takes from an end to the next beginning.
    pause: Option<Duration>,
}

/// A run that somebody waits for, until it is dropped.
#[derive(Debug)]
pub(super) struct Called {
    courtesy: Courtesy,
    org: OrgId,
}

/// What an organization has begun of its backlog.
#[derive(Debug, Default)]
pub(super) struct Begun {
    /// When the last one was.
    pub(super) last: Option<Instant>,
    /// How long the last one took that has ended.
    pub(super) took: Option<Duration>,
    /// When each was that has not ended.
    pub(super) open: Vec<Instant>,
}

impl Drop for Called {
    fn drop(&mut self) {
        let mut lines = self.courtesy.lines();
        let Some(line) = lines.get_mut(&self.org) else { return };
        line.under_way -= 1;
        line.ended = Some(Instant::now());
        let is_last = line.under_way == 0;
        drop(lines);
        if is_last {
            self.courtesy.ended.notify_waiters();
        }
    }
}

impl Line {
    fn is_remembered(&self, now: Instant) -> bool {
        [self.begun, self.ended]
            .into_iter()
            .flatten()
            .any(|then| then + REMEMBERED > now)
    }

    /// Whether it was called for a moment ago.
    fn is_recent(&self, now: Instant) -> bool {
        [self.begun, self.ended]
            .into_iter()
            .flatten()
            .any(|then| then + OFTEN > now)
    }

    /// Until when it is called for, as far as that is known.
    fn until(&self, now: Instant) -> Option<Instant> {
        if self.under_way > 0 {
            return self.begun.map(|begun| begun + REMEMBERED).filter(|until| *until > now);
        }
        let follows = self.pause.is_some_and(|pause| pause <= HOLD);
        self.ended.filter(|_| follows).map(|ended| ended + HOLD)
    }
}

impl Courtesy {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            few: (slots / SLOTS_FOR_EACH).max(1),
            young: (slots / SLOTS_FOR_YOUNG).max(1),
            lines: Arc::default(),
            ended: Arc::default(),
        }
    }

    /// Says that a run begins which somebody waits for.
    pub(super) fn call(&self, org: &OrgId) -> Called {
        let now = Instant::now();
        let mut lines = self.lines();
        lines.retain(|_, line| line.under_way > 0 || line.is_remembered(now));
        let line = lines.entry(org.clone()).or_default();
        if let Some(ended) = line.ended.filter(|_| line.under_way == 0) {
            let pause = now - ended;
            line.pause = Some(line.pause.map_or(pause, |mean| (mean * 3 + pause) / 4));
        }
        line.under_way += 1;
        line.begun = Some(now);
        Called {
            courtesy: self.clone(),
            org: org.clone(),
        }
    }

    /// Resolves when an organization is called for no longer; who asks too late is told nothing.
    pub(super) async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Whether steps of an organization hold back for others: it is called for by nobody, and another is, by few.
    pub(in crate::usecase) fn holds_back(&self, org: &OrgId) -> bool {
        let (lines, now) = (self.lines(), Instant::now());
        lines.get(org).is_none_or(|own| own.under_way == 0) && self.others(&lines, org, now).next().is_some()
    }

    /// How long the next run of an organization's backlog is to wait for others.
    pub(super) fn wait(&self, org: &OrgId, begun: &Begun) -> Option<Duration> {
        let now = Instant::now();
        let (lines, mut until) = (self.lines(), now);
        let mut others = self.others(&lines, org, now).peekable();
        others.peek()?;
        let mut young: Vec<Instant> = begun.open.iter().map(|begun| *begun + YOUNG).collect();
        young.retain(|over| *over > now);
        young.sort();
        if let Some(place) = young.len().checked_sub(self.young) {
            until = until.max(young.get(place).copied().unwrap_or(now));
        }
        let Some(last) = begun.last else {
            return (until > now).then(|| until - now);
        };
        let (mut called, mut is_recent) = (None, false);
        for line in others {
            called = called.max(line.until(now));
            is_recent |= line.is_recent(now);
        }
        if let Some(called) = called {
            until = until.max(called.min(last + PACE));
        }
        if let Some(took) = begun.took.filter(|_| is_recent) {
            until = until.max(last + took.saturating_mul(TIMES).min(PACE));
        }
        (until > now).then(|| until - now)
    }

    /// The other organizations that are called for by few, or were within the last second.
    fn others<'a>(
        &self,
        lines: &'a BTreeMap<OrgId, Line>,
        org: &'a OrgId,
        now: Instant,
    ) -> impl Iterator<Item = &'a Line> + use<'a> {
        let few = self.few;
        let others = lines.iter().filter(move |(other, _)| *other != org);
        others
            .map(|(_, line)| line)
            .filter(move |line| line.under_way <= few && line.is_remembered(now))
    }

    /// Whether a run of an organization is under way that somebody waits for.
    #[cfg(test)]
    pub(super) fn is_called_for(&self, org: &OrgId) -> bool {
        self.lines().get(org).is_some_and(|line| line.under_way > 0)
    }

    fn lines(&self) -> MutexGuard<'_, BTreeMap<OrgId, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn org(name: &str) -> OrgId {
        name.parse().unwrap()
    }

    fn begun(open: usize) -> Begun {
        Begun {
            last: (open > 0).then(Instant::now),
            took: None,
            open: vec![Instant::now(); open],
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_run_of_a_backlog_begins_at_each_pace_beside_calls_that_follow_each_other() {
        let courtesy = Courtesy::new(4);
        let (flood, quiet) = (org("flood"), org("quiet"));
        assert_eq!(courtesy.wait(&flood, &begun(3)), None, "nobody else is there");
        let call = courtesy.call(&quiet);
        assert_eq!(courtesy.wait(&flood, &begun(0)), None, "it has waited long enough");
        let last = Begun {
            open: Vec::new(),
            ..begun(1)
        };
        assert_eq!(courtesy.wait(&flood, &last), Some(PACE));
        assert_eq!(courtesy.wait(&quiet, &begun(3)), None, "for itself nobody holds back");
        tokio::time::advance(Duration::from_millis(10)).await;
        drop(call);
        assert_eq!(
            courtesy.wait(&flood, &last),
            None,
            "whether more calls come isn't known"
        );
        tokio::time::advance(Duration::from_millis(1)).await;
        let call = courtesy.call(&quiet);
        tokio::time::advance(Duration::from_millis(1)).await;
        drop(call);
        assert_eq!(
            courtesy.wait(&flood, &last),
            Some(HOLD),
            "they follow each other closely"
        );
        tokio::time::advance(HOLD).await;
        assert_eq!(courtesy.wait(&flood, &last), None, "this time none has come");
        let _call = courtesy.call(&quiet);
        tokio::time::advance(PACE).await;
        assert_eq!(courtesy.wait(&flood, &last), None, "a backlog goes on, slowly");
    }

    #[tokio::test(start_paused = true)]
    async fn most_of_the_time_is_left_to_those_who_call_often() {
        let courtesy = Courtesy::new(8);
        let (flood, often) = (org("flood"), org("often"));
        let ended = Begun {
            took: Some(Duration::from_millis(12)),
            open: Vec::new(),
            ..begun(1)
        };
        assert_eq!(courtesy.wait(&flood, &ended), None, "nobody else is there");
        drop(courtesy.call(&often));
        assert_eq!(courtesy.wait(&flood, &ended), Some(Duration::from_millis(36)));
        let long = Begun {
            took: Some(Duration::from_secs(9)),
            ..ended
        };
        assert_eq!(courtesy.wait(&flood, &long), Some(PACE), "and no longer than that");
        tokio::time::advance(OFTEN).await;
        let ended = Begun {
            last: Some(Instant::now()),
            ..long
        };
        assert_eq!(courtesy.wait(&flood, &ended), None, "it calls seldom");
    }

    #[tokio::test(start_paused = true)]
    async fn few_runs_of_a_backlog_are_in_their_first_moments_where_calls_are_remembered() {
        let courtesy = Courtesy::new(16);
        let (flood, quiet) = (org("flood"), org("quiet"));
        drop(courtesy.call(&quiet));
        assert!(courtesy.holds_back(&flood) && !courtesy.holds_back(&quiet));
        assert_eq!(courtesy.wait(&flood, &begun(1)), None, "two are few for sixteen slots");
        let mut open = begun(2);
        assert_eq!(courtesy.wait(&flood, &open), Some(YOUNG));
        tokio::time::advance(YOUNG / 2).await;
        open.open.push(Instant::now());
        assert_eq!(
            courtesy.wait(&flood, &open),
            Some(YOUNG / 2),
            "until one of them is old enough"
        );
        tokio::time::advance(REMEMBERED).await;
        assert_eq!(courtesy.wait(&flood, &begun(9)), None);
        assert!(!courtesy.holds_back(&flood));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_holds_back_for_who_has_many_calls_or_a_backlog_while_it_is_called_for() {
        let courtesy = Courtesy::new(4);
        let (flood, busy) = (org("flood"), org("busy"));
        let first = courtesy.call(&busy);
        let second = courtesy.call(&busy);
        assert_eq!(courtesy.wait(&flood, &begun(3)), None);
        assert!(!courtesy.holds_back(&flood));
        drop(second);
        assert!(courtesy.wait(&flood, &begun(3)).is_some() && courtesy.holds_back(&flood));
        let _own = courtesy.call(&flood);
        assert!(!courtesy.holds_back(&flood), "its own callers wait for its steps");
        drop(first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_takes_long_slows_nobody_down() {
        let courtesy = Courtesy::new(4);
        let (flood, slow) = (org("flood"), org("slow"));
        let call = courtesy.call(&slow);
        tokio::time::advance(REMEMBERED).await;
        assert_eq!(courtesy.wait(&flood, &begun(3)), None);
        assert!(!courtesy.holds_back(&flood));
        // It is still there when another begins, and both end.
        let second = courtesy.call(&slow);
        drop((call, second));
        assert!(courtesy.wait(&flood, &begun(3)).is_some());
    }
}
