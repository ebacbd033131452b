//! A transition in the making: what the files of `lifecycle/` are written with.
//!
//! Every event changes one thing, and then [`Draft::settled`] lets follow what follows: steps that may begin, begin; steps that
//! can't, are left out; phases end and begin; the run ends.

use serde_json::{Value, json};

use super::effect::NAMED;
use super::plan::GRACE_MS;
use super::readiness::{self, Readiness};
use super::state::{Activity, Doing, Many, Slot, Unit};
use super::transition::Ended;
use super::{Action, Effect, Fact, LEGAL, Output, Plan, RunState, StepPlan, Transition, Work};
use crate::domain::{
    AttemptId, DependsOn, ItemFailure, MAX_ACTIVE, MAX_ITEMS, OnFailure, Phase, RunId, Status, StepError, Timestamp,
    sha256_hex,
};

pub(super) struct Draft<'a> {
    pub(super) plan: &'a Plan,
    pub(super) state: RunState,
    pub(super) now: Timestamp,
    before: Status,
    ended: Vec<Ended>,
    facts: Vec<Fact>,
    effects: Vec<Effect>,
    evaluations: Vec<Slot>,
    concludes: bool,
    /// How many more steps and items may begin.
    room: i64,
    /// Whether something could have begun, had there been room.
    held: bool,
    /// Whether the owner has looked at the time, after it had looked at what people have decided.
    wakes: bool,
}

impl<'a> Draft<'a> {
    pub(super) fn of(plan: &'a Plan, state: &RunState, now: Timestamp) -> Self {
        Self {
            plan,
            state: state.clone(),
            now,
            before: state.status,
            ended: Vec::new(),
            facts: Vec::new(),
            effects: Vec::new(),
            evaluations: Vec::new(),
            concludes: false,
            room: room(plan, state),
            held: false,
            wakes: false,
        }
    }

    /// The same, which ends the wait for people whose time is over. Whatever else happens leaves that to the next look at the
    /// time: a decision that was made before may lie in the inbox.
    pub(super) const fn waking(mut self) -> Self {
        self.wakes = true;
        self
    }

    /// Whether a step may begin now: there is room, and time.
    pub(super) fn has_room(&self) -> bool {
        self.room > 0 && !self.is_closed()
    }

    /// Whether nothing begins now. At its deadline a run has ended, or goes on to its next phase; and one whose owner is about
    /// to let go waits for the next.
    fn is_closed(&self) -> bool {
        self.state.yields || self.now >= self.state.deadline
    }

    pub(super) fn tell(&mut self, fact: Fact) {
        self.facts.push(fact);
    }

    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(super) fn has_changed(&self, before: &RunState) -> bool {
        self.state != *before || !self.evaluations.is_empty() || self.concludes
    }

    /// The transition as it is.
    pub(super) fn finish(mut self) -> Transition {
        debug_assert!(
            self.before == self.state.status || LEGAL.contains(&(self.before, self.state.status)),
            "{:?} → {:?} is not a legal move",
            self.before,
            self.state.status
        );
        self.state.sequence += 1;
        let told = (self.ended, self.facts, self.effects);
        Transition::new(self.now, self.state, told, self.evaluations, self.concludes)
    }

    // ── the run ────────────────────────────────────────────────────────────────────────────────────────────────────────

    pub(super) fn move_to(&mut self, status: Status) {
        if self.state.status == status {
            return;
        }
        self.state.status = status;
        self.facts.push(Fact::RunStatus { status });
        if matches!(status, Status::Running | Status::Waiting) {
            self.state.started_at = self.state.started_at.or(Some(self.now));
        }
        if status.is_terminal() {
            self.state.finished_at = Some(self.now);
            self.state.owner = None;
            self.state.lease_until = None;
            self.state.yields = false;
            self.effects.push(Effect::Finished);
        }
    }

    /// Lets follow what follows from what has changed.
    pub(super) fn settled(mut self) -> Self {
        loop {
            while self.pass() {}
            if self
                .state
                .steps
                .iter()
                .zip(&self.plan.steps)
                .any(|(step, planned)| planned.phase == self.state.phase && !step.status.is_terminal())
            {
                let working = self.state.running().next().is_some();
                let status = if working || !self.evaluations.is_empty() {
                    Status::Running
                } else {
                    Status::Waiting
                };
                self.move_to(status);
                return self;
            }
            // The time that a later phase is given begins when somebody is there to begin it.
            let mut steps = self.state.steps.iter().zip(&self.plan.steps);
            if self.state.yields
                && steps.any(|(step, planned)| planned.phase > self.state.phase && !step.status.is_terminal())
            {
                self.move_to(Status::Waiting);
                return self;
            }
            let next = match self.state.phase {
                Phase::Main => {
                    if self.state.verdict.is_none()
                        && !self.state.concluded
                        && matches!(self.plan.output, Output::Value(_))
                    {
                        self.concludes = true;
                        self.move_to(Status::Running);
                        return self;
                    }
                    if self.state.verdict.is_some() {
                        Some(Phase::OnFailure)
                    } else {
                        self.leave_out(Phase::OnFailure);
                        Some(Phase::Finally)
                    }
                }
                Phase::OnFailure => Some(Phase::Finally),
                Phase::Finally => None,
            };
            let Some(next) = next else {
                let status = self.state.verdict.unwrap_or(Status::Succeeded);
                self.move_to(status);
                return self;
            };
            self.state.phase = next;
            if self.plan.steps.iter().any(|planned| planned.phase == next) {
                // What comes after a deadline gets a while, and so does what begins shortly before it.
                let grace = self.now.plus(std::time::Duration::from_millis(GRACE_MS));
                self.state.deadline = self.state.deadline.max(grace);
                self.facts.push(Fact::PhaseBegun { phase: next });
            }
        }
    }

    /// Lets nothing begin, since nobody drives the run; but a step that can't be tried again may have ended it.
    pub(super) fn rested(mut self) -> Self {
        let phase = self.state.phase;
        if phase == Phase::Main && self.state.verdict.is_some() {
            self.wind_down();
        }
        let over = self.state.steps.iter().all(|step| step.status.is_terminal());
        let concluded = self.state.concluded || !matches!(self.plan.output, Output::Value(_));
        let status = match self.state.verdict {
            Some(verdict) if over => verdict,
            None if over && concluded => Status::Succeeded,
            _ if self.state.running().next().is_some() => Status::Running,
            _ => Status::Waiting,
        };
        self.move_to(status);
        self
    }

    /// The deadline has passed: what handles it, and what runs in any case, gets a while more.
    pub(super) fn out_of_time(mut self) -> Self {
        let error = StepError::new(
            "time_limit",
            format!(
                "the run had not ended at its deadline, {}; raise `WEFT_RUN_TIMEOUT_SECONDS` or make its steps shorter",
                self.state.deadline
            ),
        );
        self.stop(self.state.phase, Status::TimedOut);
        self.leave_out(self.state.phase);
        if self.state.verdict.is_none() {
            self.state.verdict = Some(Status::TimedOut);
            self.state.error = Some(error);
        }
        self.settled()
    }

    /// Ends everything at once.
    pub(super) fn end_all(&mut self, status: Status) {
        for phase in [Phase::Main, Phase::OnFailure, Phase::Finally] {
            self.stop(phase, status);
            self.leave_out(phase);
        }
        self.move_to(status);
    }

    /// Begins what may begin, and leaves out what can't. One pass is enough, since edges point backwards; but not when something
    /// ended in it, and an earlier step could have had its room. Answers whether that is so.
    fn pass(&mut self) -> bool {
        self.evaluations.clear();
        self.concludes = false;
        self.room = room(self.plan, &self.state);
        self.held = false;
        let (phase, closed) = (self.state.phase, self.is_closed());
        if phase == Phase::Main && self.state.verdict.is_some() {
            self.wind_down();
            return false;
        }
        let mut omitted = Vec::new();
        for place in 0..self.plan.steps.len() {
            if self.plan.steps[place].phase != phase {
                continue;
            }
            match self.state.steps[place].status {
                Status::Pending => match readiness::of(self.plan, &self.state, place) {
                    Readiness::Waits => {}
                    Readiness::Never => {
                        let step = &mut self.state.steps[place];
                        (step.status, step.omitted) = (Status::Skipped, true);
                        omitted.push(place);
                        self.leave_unhandled(place);
                    }
                    Readiness::Ready if closed => {}
                    Readiness::Ready if self.room <= 0 => self.held = true,
                    Readiness::Ready if self.plan.steps[place].is_evaluated() => {
                        self.room -= 1;
                        self.evaluations.push((place, None));
                    }
                    Readiness::Ready => self.begin(place),
                },
                Status::Running | Status::Waiting => self.go_on(place),
                _ => {}
            }
            if self.state.verdict.is_some() && phase == Phase::Main {
                // What began has failed at once, or a failure is left without its handler.
                self.tell_ended(Status::Skipped, &omitted);
                self.wind_down();
                return false;
            }
        }
        self.tell_ended(Status::Skipped, &omitted);
        let asked = self.evaluations.iter().filter(|(_, item)| item.is_none()).count();
        self.held && room(self.plan, &self.state) > i64::try_from(asked).unwrap_or(i64::MAX)
    }

    // ── steps ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Begins a step whose values need no look, or were looked at.
    pub(super) fn begin(&mut self, place: usize) {
        let planned = &self.plan.steps[place];
        let until = self.limit(place);
        match &planned.work {
            Work::Once(_) => {
                self.open(place, until, Doing::One(Unit::default()));
                self.try_unit((place, None));
            }
            Work::Loop { .. } => {
                self.open(place, until, Doing::Many(Many::of(None)));
                self.go_on(place);
            }
            Work::Approval { needed, within_ms, .. } => {
                let expires = self.now.plus(std::time::Duration::from_millis(*within_ms));
                let until = until.map_or(expires, |until| until.min(expires));
                self.open(place, Some(until), Doing::Approval(Vec::new()));
                self.state.steps[place].status = Status::Waiting;
                self.facts.push(Fact::ApprovalAsked {
                    step: planned.id.clone(),
                    needed: *needed,
                    until,
                });
            }
            // These begin with what was looked at.
            Work::Map { .. }
            | Work::Choose { .. }
            | Work::Compute { .. }
            | Work::Assert { .. }
            | Work::Delay { .. } => {}
        }
    }

    /// Begins a map.
    pub(super) fn begin_items(&mut self, place: usize, items: u32) {
        let planned = &self.plan.steps[place];
        let until = self.limit(place);
        self.facts.push(Fact::ItemsCounted {
            step: planned.id.clone(),
            items,
        });
        self.open(place, until, Doing::Many(Many::of(Some(items))));
        if items > MAX_ITEMS {
            let message = format!("the list has {items} items; a map takes at most {MAX_ITEMS}");
            self.end_step(
                place,
                Status::Failed,
                Some(StepError::new("too_many_items", message)),
                None,
            );
        } else if items == 0 {
            self.state.steps[place].attempts = 0;
            self.end_step(place, Status::Succeeded, None, None);
        } else {
            self.go_on(place);
        }
    }

    /// Begins a pause.
    pub(super) fn begin_pause(&mut self, place: usize, until: Timestamp) {
        self.facts.push(Fact::Paused {
            step: self.plan.steps[place].id.clone(),
            until,
        });
        // A limit that comes first ends the pause.
        let limit = self.limit(place).filter(|limit| *limit < until);
        self.open(place, limit, Doing::Pause(until));
        self.state.steps[place].status = Status::Waiting;
        self.go_on(place);
    }

    /// When a step that begins now has timed out.
    fn limit(&self, place: usize) -> Option<Timestamp> {
        let timeout = self.plan.steps[place].timeout_ms?;
        Some(self.now.plus(std::time::Duration::from_millis(timeout)))
    }

    fn open(&mut self, place: usize, until: Option<Timestamp>, doing: Doing) {
        self.room -= 1;
        let step = &mut self.state.steps[place];
        step.attempts = 1;
        step.activity = Some(Box::new(Activity {
            since: self.now,
            until,
            doing,
        }));
    }

    /// What is due in a step that has begun: its end, the end of its pause, its next attempt, its next items.
    fn go_on(&mut self, place: usize) {
        let now = self.now;
        if self.expire(place) {
            return;
        }
        // What was due must not begin at the deadline.
        let closed = self.is_closed();
        let Some(activity) = self.state.steps[place].activity.as_deref() else {
            return;
        };
        match &activity.doing {
            Doing::Pause(until) if *until <= now => self.end_step(place, Status::Succeeded, None, None),
            Doing::One(Unit { due: Some(due), .. }) if *due <= now && !closed => self.try_unit((place, None)),
            Doing::Many(many) if !closed => {
                let due: Vec<u32> = many
                    .active
                    .iter()
                    .filter(|(_, unit)| unit.due.is_some_and(|due| due <= now))
                    .map(|(item, _)| *item)
                    .collect();
                for item in due {
                    self.try_unit((place, Some(item)));
                }
                self.fill(place);
                self.refresh(place);
            }
            _ => {}
        }
    }

    /// Ends a step whose time is over. Answers whether it was.
    fn expire(&mut self, place: usize) -> bool {
        let planned = &self.plan.steps[place];
        let Some(activity) = self.state.steps[place].activity.as_deref() else {
            return false;
        };
        if activity.until.is_none_or(|until| until > self.now) {
            return false;
        }
        if matches!(activity.doing, Doing::Approval(_)) && !self.wakes {
            return false;
        }
        let error = match (&activity.doing, planned.timeout_ms) {
            (Doing::Approval(decisions), _) => StepError::new(
                "approval_expired",
                format!(
                    "nobody decided in time on step `{}` ({} agreed)",
                    planned.id,
                    decisions.len()
                ),
            ),
            (_, timeout) => StepError::new(
                "time_limit",
                format!(
                    "step `{}` had not ended after its time limit of {} s; raise its `timeout`",
                    planned.id,
                    timeout.unwrap_or_default() as f64 / 1000.0
                ),
            ),
        };
        self.end_step(place, Status::TimedOut, Some(error), None);
        true
    }

    /// Begins as many items as there may be at once, or asks whether a loop goes round again.
    fn fill(&mut self, place: usize) {
        let at_once = match &self.plan.steps[place].work {
            Work::Map { at_once, .. } => (*at_once).max(1) as usize,
            _ => 1,
        };
        loop {
            let Some(Doing::Many(many)) = self.state.steps[place]
                .activity
                .as_deref()
                .map(|activity| &activity.doing)
            else {
                return;
            };
            match many.total {
                Some(total) if many.next < total && many.active.len() < at_once => {}
                None if many.next == 0 => {}
                None if many.active.is_empty() => {
                    self.evaluations.push((place, Some(many.next - 1)));
                    return;
                }
                _ => return,
            }
            // The first item of a step stands in the step's own room.
            if !many.active.is_empty() && self.room <= 0 {
                self.held = true;
                return;
            }
            self.next_item(place);
        }
    }

    /// Begins the next item or iteration.
    pub(super) fn next_item(&mut self, place: usize) {
        let step = &mut self.state.steps[place];
        if let Some(Doing::Many(many)) = step.activity.as_mut().map(|activity| &mut activity.doing) {
            let item = many.next;
            many.next += 1;
            if !many.active.is_empty() {
                self.room -= 1;
            }
            many.active.insert(item, Unit::default());
            step.attempts = many.next;
            self.try_unit((place, Some(item)));
        }
    }

    /// Makes the next attempt, or starts the next child run.
    fn try_unit(&mut self, slot: Slot) {
        let (place, item) = slot;
        let planned = &self.plan.steps[place];
        let (now, epoch, run) = (self.now, self.state.epoch, self.state.run.clone());
        let Some(unit) = self.state.steps[place].unit_mut(item) else {
            return;
        };
        unit.attempts += 1;
        unit.due = None;
        unit.since = unit.since.or(Some(now));
        let number = unit.attempts;
        match planned.work.action() {
            Some(Action::Code(_)) => {
                // The epoch is part of the cause: the same number begun by another owner is another attempt.
                let of = slot_name(&planned.id, item);
                let attempt = AttemptId::derived(now, &format!("{run}:{of}:{number}:{epoch}"));
                unit.attempt = Some(attempt.clone());
                self.facts.push(Fact::StepStatus {
                    step: planned.id.clone(),
                    item,
                    status: Status::Running,
                    attempt: number,
                });
                self.effects.push(Effect::StartAttempt { slot, attempt, number });
            }
            Some(Action::Child { .. }) => {
                // No epoch and no time in it: whoever starts it again finds it.
                let child = child(&run, &planned.id, item, number);
                unit.child = Some(child.clone());
                self.facts.push(Fact::ChildStarted {
                    step: planned.id.clone(),
                    item,
                    child: child.clone(),
                });
                self.effects.push(Effect::StartChild { slot, child, number });
            }
            None => {}
        }
        if item.is_none() {
            self.state.steps[place].attempts = number;
        }
        self.refresh(place);
    }

    /// A step that tries something runs while an attempt does, and waits otherwise.
    pub(super) fn refresh(&mut self, place: usize) {
        let step = &mut self.state.steps[place];
        if step.activity.is_some() && !step.status.is_terminal() {
            let running = step.units().any(|(_, unit)| unit.attempt.is_some());
            step.status = if running { Status::Running } else { Status::Waiting };
        }
    }

    /// What was tried in a slot has come to its end.
    pub(super) fn end_unit(&mut self, slot: Slot, status: Status, error: Option<StepError>) {
        let (place, item) = slot;
        let Some(item) = item else {
            self.end_step(place, status, error, None);
            return;
        };
        let planned = &self.plan.steps[place];
        let step = &mut self.state.steps[place];
        let Some(Doing::Many(many)) = step.activity.as_mut().map(|activity| &mut activity.doing) else {
            return;
        };
        let Some(unit) = many.active.remove(&item) else { return };
        many.ended += 1;
        let failed = status != Status::Succeeded;
        if failed {
            many.failed += 1;
        }
        let (ended, failures, total, left) = (many.ended, many.failed, many.total, many.active.len());
        self.ended.push(Ended {
            slot,
            status,
            attempts: unit.attempts,
            started_at: unit.since,
            value: None,
            error: error.clone(),
            counts: None,
        });
        self.facts.push(Fact::StepStatus {
            step: planned.id.clone(),
            item: Some(item),
            status,
            attempt: unit.attempts,
        });
        let (bears, of) = match &planned.work {
            Work::Map { failure, .. } => (
                match failure {
                    ItemFailure::Fail => false,
                    ItemFailure::Continue => true,
                    ItemFailure::AtMost(most) => failures <= *most,
                },
                "item",
            ),
            _ => (false, "iteration"),
        };
        if failed && !bears {
            let error = error.map(|error| StepError {
                message: format!("{of} {item}: {}", error.message),
                ..error
            });
            self.end_step(place, status, error, None);
        } else if Some(ended) == total && left == 0 {
            self.end_step(place, Status::Succeeded, None, None);
        } else {
            self.refresh(place);
        }
    }

    /// A step has come to its end; whatever is still going on in it is stopped.
    pub(super) fn end_step(&mut self, place: usize, status: Status, error: Option<StepError>, value: Option<Value>) {
        let planned = &self.plan.steps[place];
        self.halt(place);
        let step = &mut self.state.steps[place];
        let counts = step.counts();
        let activity = step.activity.take();
        step.status = status;
        let attempts = step.attempts;
        let value = value.or_else(|| match &planned.work {
            Work::Choose { .. } => Some(json!({"branch": step.branch})),
            _ => None,
        });
        self.ended.retain(|earlier| earlier.slot != (place, None));
        self.ended.push(Ended {
            slot: (place, None),
            status,
            attempts,
            started_at: activity.map(|activity| activity.since),
            value,
            error: error.clone(),
            counts,
        });
        self.facts.push(Fact::StepStatus {
            step: planned.id.clone(),
            item: None,
            status,
            attempt: attempts,
        });
        let failed = matches!(status, Status::Failed | Status::TimedOut);
        if failed && planned.on_failure == OnFailure::Fail && !self.is_handled(place) && self.state.verdict.is_none() {
            self.state.verdict = Some(status);
            self.state.error = error.map(|error| StepError {
                step: Some(planned.id.clone()),
                ..error
            });
        }
    }

    /// Whether a step that waits for the failure of another one has begun, or still may.
    fn is_handled(&self, place: usize) -> bool {
        let waits = |planned: &StepPlan| {
            let mut edges = planned.depends_on.iter();
            edges.any(|edge| edge.step == place && edge.on == DependsOn::Failure)
        };
        let mut steps = self.plan.steps.iter().zip(&self.state.steps);
        self.plan.steps[place].handled && steps.any(|(planned, step)| step.status != Status::Skipped && waits(planned))
    }

    /// A step was skipped or left out: failures that nobody but it would have handled fail the run.
    fn leave_unhandled(&mut self, skipped: usize) {
        let handler = &self.plan.steps[skipped];
        for edge in handler.depends_on.iter().filter(|edge| edge.on == DependsOn::Failure) {
            let (planned, status) = (&self.plan.steps[edge.step], self.state.steps[edge.step].status);
            let counts = matches!(status, Status::Failed | Status::TimedOut) && planned.on_failure == OnFailure::Fail;
            if !counts || self.state.verdict.is_some() || self.is_handled(edge.step) {
                continue;
            }
            let message = format!(
                "`{}` has failed, and `{}`, which handles that, was skipped; the step's own error says why it failed",
                planned.id, handler.id
            );
            self.state.verdict = Some(status);
            self.state.error = Some(StepError {
                step: Some(planned.id.clone()),
                ..StepError::new("not_handled", message)
            });
        }
    }

    /// Ends a step before it has begun: its `when` is false, or its values are wrong.
    pub(super) fn skip(&mut self, place: usize) {
        let step = &mut self.state.steps[place];
        step.status = Status::Skipped;
        self.facts.push(Fact::StepStatus {
            step: self.plan.steps[place].id.clone(),
            item: None,
            status: Status::Skipped,
            attempt: 0,
        });
        self.leave_unhandled(place);
    }

    /// Kills what runs in a step, and ends what it waits for.
    fn halt(&mut self, place: usize) {
        let units: Vec<_> = self.state.steps[place]
            .units()
            .map(|(item, unit)| (item, unit.clone()))
            .collect();
        for (item, unit) in units {
            if let Some(attempt) = &unit.attempt {
                self.effects.push(Effect::KillAttempt {
                    slot: (place, item),
                    attempt: attempt.clone(),
                    handed: unit.handed,
                });
            }
            if let Some(child) = &unit.child {
                self.state.orphans.push(child.clone());
                self.effects.push(Effect::CancelChild { child: child.clone() });
            }
        }
    }

    /// The main phase has failed: nothing begins, nothing is waited for; attempts that run may end, within their step's time.
    fn wind_down(&mut self) {
        self.evaluations.clear();
        let mut stopped = Vec::new();
        for place in 0..self.plan.steps.len() {
            if self.plan.steps[place].phase != Phase::Main || self.state.steps[place].activity.is_none() {
                continue;
            }
            let mut children = Vec::new();
            let step = &mut self.state.steps[place];
            let runs = match step.activity.as_mut().map(|activity| &mut activity.doing) {
                Some(Doing::One(unit)) => unit.attempt.is_some(),
                Some(Doing::Many(many)) => {
                    many.active.retain(|_, unit| {
                        children.extend(unit.child.clone());
                        unit.attempt.is_some()
                    });
                    !many.active.is_empty()
                }
                _ => false,
            };
            self.state.orphans.extend(children.iter().cloned());
            self.effects
                .extend(children.into_iter().map(|child| Effect::CancelChild { child }));
            if !runs {
                stopped.push(place);
            } else {
                self.expire(place);
            }
        }
        self.stop_steps(&stopped, Status::Cancelled);
        self.leave_out(Phase::Main);
    }

    /// Ends every step of a phase that has begun, and kills what runs in it.
    fn stop(&mut self, phase: Phase, status: Status) {
        let places: Vec<usize> = (0..self.plan.steps.len())
            .filter(|place| self.plan.steps[*place].phase == phase && self.state.steps[*place].activity.is_some())
            .collect();
        self.stop_steps(&places, status);
    }

    fn stop_steps(&mut self, places: &[usize], status: Status) {
        for place in places {
            self.halt(*place);
            let step = &mut self.state.steps[*place];
            step.status = status;
            step.activity = None;
        }
        self.tell_ended(status, places);
    }

    /// Steps of a phase that have not begun, and won't.
    fn leave_out(&mut self, phase: Phase) {
        let mut places = Vec::new();
        for (place, step) in self.state.steps.iter_mut().enumerate() {
            if self.plan.steps[place].phase == phase && step.status == Status::Pending {
                (step.status, step.omitted) = (Status::Skipped, true);
                places.push(place);
            }
        }
        self.tell_ended(Status::Skipped, &places);
    }

    fn tell_ended(&mut self, status: Status, places: &[usize]) {
        if places.is_empty() {
            return;
        }
        self.facts.push(Fact::StepsEnded {
            status,
            count: places.len(),
            steps: places
                .iter()
                .take(NAMED)
                .map(|place| self.plan.steps[*place].id.clone())
                .collect(),
        });
    }
}

/// The child run that the n-th try of a step, or of one of its items, starts.
#[must_use]
pub fn child(run: &RunId, step: &str, item: Option<u32>, number: u32) -> RunId {
    let of = slot_name(step, item);
    let cause = sha256_hex(format!("{run}\n{of}\n{number}\nchild").as_bytes());
    RunId::derived(Timestamp::from_millis(0), &cause)
}

fn slot_name(step: &str, item: Option<u32>) -> String {
    item.map_or_else(|| step.to_owned(), |item| format!("{step}[{item}]"))
}

impl Many {
    const fn of(total: Option<u32>) -> Self {
        Self {
            total,
            next: 0,
            ended: 0,
            failed: 0,
            active: std::collections::BTreeMap::new(),
        }
    }
}

/// How many more steps and items may begin. A step that has begun takes one for itself even between two items, so that it never
/// waits for room that others have taken meanwhile.
fn room(plan: &Plan, state: &RunState) -> i64 {
    let open = state.steps.iter().filter_map(|step| step.activity.as_deref());
    let active: usize = open
        .map(|activity| match &activity.doing {
            Doing::Many(many) => many.active.len().max(1),
            _ => 1,
        })
        .sum();
    i64::from(plan.active.clamp(1, MAX_ACTIVE)) - i64::try_from(active).unwrap_or(i64::MAX)
}
