//! The fold of a run's committed transitions: what a checkpoint holds.
//!
//! A checkpoint is written with every transition, so its size must not grow with what has ended: ended steps are a letter
//! each, run-length encoded, and only what is going on has more. When a step began and ended is in its row.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Counts;
use crate::domain::{AttemptId, Phase, RunId, Status, StepError, Timestamp};

/// One try of an action, of a step or of one of its items.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Unit {
    /// Attempts begun, or child runs started.
    #[serde(rename = "n")]
    pub attempts: u32,
    /// The attempt that is running.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<AttemptId>,
    /// Whether any instance may make the attempt, and not only the owner.
    #[serde(rename = "h", default, skip_serializing_if = "std::ops::Not::not")]
    pub handed: bool,
    /// The child run that is waited for.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    pub child: Option<RunId>,
    /// When the next attempt is due, while waiting for it.
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    /// When the first attempt began.
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// Who made a link or a key that does not say so.
pub const UNKNOWN: &str = "unknown";

/// A person's word about a step that waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// The principal's id, or `link:` and the name that the link was made for.
    pub by: String,
    /// The id of who made the link, where one was used. All links that somebody has made, and their own word, are one voice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link_made_by: Option<String>,
    /// The id of who made the function key, where one was used to decide or to make the link; `unknown` where nobody knows. All keys
    /// that somebody has made, and their own word, are one voice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_made_by: Option<String>,
    /// Whether they agree.
    pub approved: bool,
    /// What they said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
}

impl Decision {
    /// Whose voice it is. Whoever makes links or keys can give them to anybody, themselves as well, so what is decided with them
    /// counts as theirs. Keys whose maker nobody knows are one voice together.
    #[must_use]
    pub fn voice(&self) -> String {
        let principal = self.link_made_by.as_deref().unwrap_or(&self.by);
        let maker = match &self.key_made_by {
            Some(maker) => maker,
            None if principal.starts_with("key:") => UNKNOWN,
            None => principal,
        };
        maker.to_lowercase()
    }
}

/// What a step is about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doing {
    /// An action.
    One(Unit),
    /// An action for each item or iteration.
    Many(Many),
    /// Nothing, until then.
    Pause(Timestamp),
    /// Waiting for people.
    Approval(Vec<Decision>),
}

/// Items of a map, or iterations of a loop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Many {
    /// How many there are; a loop doesn't know.
    pub total: Option<u32>,
    /// How many have begun.
    pub next: u32,
    /// How many have ended.
    pub ended: u32,
    /// How many of them have failed.
    pub failed: u32,
    /// What is going on.
    pub active: BTreeMap<u32, Unit>,
}

impl Many {
    /// How far it has come.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        Counts {
            total: self.total,
            ended: self.ended,
            failed: self.failed,
        }
    }
}

/// What is going on in a step that has begun and not ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Activity {
    /// Since when.
    pub since: Timestamp,
    /// When the step as a whole has timed out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// What.
    pub doing: Doing,
}

/// Where one step is.
#[derive(Debug, Clone, PartialEq)]
pub struct StepState {
    /// Its status.
    pub status: Status,
    /// Attempts begun; of a map or loop: items or iterations begun.
    pub attempts: u32,
    /// Whether it was left out because what it waits for didn't come, and so nothing follows it either.
    pub omitted: bool,
    /// Whether it had succeeded in the run that this one resumes.
    pub carried: bool,
    /// The branch that it chose.
    pub branch: Option<String>,
    /// What is going on.
    pub activity: Option<Box<Activity>>,
}

impl StepState {
    /// Not begun.
    #[must_use]
    pub const fn pending() -> Self {
        Self {
            status: Status::Pending,
            attempts: 0,
            omitted: false,
            carried: false,
            branch: None,
            activity: None,
        }
    }

    /// How far a map or loop that goes on has come.
    #[must_use]
    pub fn counts(&self) -> Option<Counts> {
        match &self.activity.as_ref()?.doing {
            Doing::Many(many) => Some(many.counts()),
            _ => None,
        }
    }

    /// What is tried, with the item.
    pub fn units(&self) -> impl Iterator<Item = (Option<u32>, &Unit)> {
        let (one, many) = match self.activity.as_ref().map(|activity| &activity.doing) {
            Some(Doing::One(unit)) => (Some(unit), None),
            Some(Doing::Many(many)) => (None, Some(many)),
            _ => (None, None),
        };
        one.map(|unit| (None, unit)).into_iter().chain(
            many.into_iter()
                .flat_map(|many| many.active.iter().map(|(item, unit)| (Some(*item), unit))),
        )
    }

    /// The one that is tried of an item, or of the step.
    #[must_use]
    pub fn unit(&self, item: Option<u32>) -> Option<&Unit> {
        match (&self.activity.as_ref()?.doing, item) {
            (Doing::One(unit), None) => Some(unit),
            (Doing::Many(many), Some(item)) => many.active.get(&item),
            _ => None,
        }
    }

    pub(super) fn unit_mut(&mut self, item: Option<u32>) -> Option<&mut Unit> {
        match (&mut self.activity.as_mut()?.doing, item) {
            (Doing::One(unit), None) => Some(unit),
            (Doing::Many(many), Some(item)) => many.active.get_mut(&item),
            _ => None,
        }
    }

    /// When something is due that no event announces.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        let activity = self.activity.as_ref()?;
        let pause = match &activity.doing {
            Doing::Pause(until) => Some(*until),
            _ => None,
        };
        self.units()
            .filter_map(|(_, unit)| unit.due)
            .chain(pause)
            .chain(activity.until)
            .min()
    }
}

/// What is tried: a step, or one of its items.
pub type Slot = (usize, Option<u32>);

/// Where a run is. Steps stand in the plan's order.
#[derive(Debug, Clone, PartialEq)]
pub struct RunState {
    /// The run.
    pub run: RunId,
    /// Its status.
    pub status: Status,
    /// Fencing number: rises at every take-over and at cancellation.
    pub epoch: u64,
    /// The instance that drives it.
    pub owner: Option<String>,
    /// Until when nobody else may.
    pub lease_until: Option<Timestamp>,
    /// When it is ended as timed out.
    pub deadline: Timestamp,
    /// When the first step began.
    pub started_at: Option<Timestamp>,
    /// When it became terminal.
    pub finished_at: Option<Timestamp>,
    /// Why it failed or timed out.
    pub error: Option<StepError>,
    /// Which steps' time has come.
    pub phase: Phase,
    /// As what it will end, once its last steps have, when not as succeeded.
    pub verdict: Option<Status>,
    /// Whether its result has been worked out.
    pub concluded: bool,
    /// Whether its owner is about to let go of it, so that nothing begins.
    pub yields: bool,
    /// Child runs that nothing waits for any more, and that are to be ended. They stay named: whoever had to end them may have
    /// died before it did.
    pub orphans: Vec<RunId>,
    /// Transitions committed so far.
    pub sequence: u64,
    /// Its steps.
    pub steps: Vec<StepState>,
}

impl RunState {
    /// Attempts that are running now, with what they try.
    pub fn running(&self) -> impl Iterator<Item = (Slot, &AttemptId)> {
        self.active()
            .filter_map(|(slot, unit)| unit.attempt.as_ref().map(|attempt| (slot, attempt)))
    }

    /// Attempts that any instance may make, with what they try.
    pub fn handed(&self) -> impl Iterator<Item = (Slot, &AttemptId)> {
        self.active()
            .filter(|(_, unit)| unit.handed)
            .filter_map(|(slot, unit)| unit.attempt.as_ref().map(|attempt| (slot, attempt)))
    }

    /// Everything that is tried, waited for or about to be tried again.
    pub fn active(&self) -> impl Iterator<Item = (Slot, &Unit)> {
        self.steps
            .iter()
            .enumerate()
            .filter(|(_, step)| step.activity.is_some())
            .flat_map(|(place, step)| step.units().map(move |(item, unit)| ((place, item), unit)))
    }

    /// What is tried in a place.
    #[must_use]
    pub fn unit(&self, (place, item): Slot) -> Option<&Unit> {
        self.steps.get(place)?.unit(item)
    }

    /// When the next thing is due that no event announces: a retry, the end of a pause, a time limit, the deadline.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        if self.status.is_terminal() {
            return None;
        }
        self.steps
            .iter()
            .filter_map(StepState::due)
            .chain([self.deadline])
            .min()
    }
}

/// A step's letter in a checkpoint.
const fn letter(step: &StepState) -> u8 {
    match step.status {
        Status::Pending => b'p',
        Status::Running => b'r',
        Status::Waiting => b'w',
        Status::Succeeded if step.carried => b'S',
        Status::Succeeded => b's',
        Status::Failed => b'f',
        Status::Cancelled => b'c',
        Status::TimedOut => b't',
        Status::Skipped if step.omitted => b'o',
        Status::Skipped => b'k',
    }
}

fn of_letter(letter: u8) -> Option<StepState> {
    let status = match letter {
        b'p' => Status::Pending,
        b'r' => Status::Running,
        b'w' => Status::Waiting,
        b's' | b'S' => Status::Succeeded,
        b'f' => Status::Failed,
        b'c' => Status::Cancelled,
        b't' => Status::TimedOut,
        b'k' | b'o' => Status::Skipped,
        _ => return None,
    };
    Some(StepState {
        status,
        omitted: letter == b'o',
        carried: letter == b'S',
        ..StepState::pending()
    })
}

/// `ssssp` → `s4p`.
fn shortened(letters: impl Iterator<Item = u8>) -> String {
    let mut text = String::new();
    let mut letters = letters.peekable();
    while let Some(letter) = letters.next() {
        let mut count = 1_u32;
        while letters.next_if_eq(&letter).is_some() {
            count += 1;
        }
        text.push(char::from(letter));
        if count > 1 {
            text.push_str(&count.to_string());
        }
    }
    text
}

/// Most steps of a plan that a checkpoint is read for; what is above was not written by Weft.
const MOST_STEPS: usize = 100_000;

fn lengthened(text: &str) -> Option<Vec<StepState>> {
    let mut steps = Vec::new();
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let step = of_letter(bytes[at])?;
        at += 1;
        let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let count = if digits == 0 {
            1
        } else {
            text[at..at + digits].parse().ok()?
        };
        at += digits;
        if count > MOST_STEPS - steps.len() {
            return None;
        }
        steps.extend(std::iter::repeat_n(step, count));
    }
    Some(steps)
}

#[derive(Serialize, Deserialize)]
struct Checkpoint {
    run: RunId,
    status: Status,
    epoch: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease: Option<Timestamp>,
    deadline: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finished: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<StepError>,
    #[serde(default)]
    phase: Phase,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    verdict: Option<Status>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    concluded: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    yields: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    orphans: Vec<RunId>,
    sequence: u64,
    steps: String,
    /// Where it is not 1 for a step that has begun, and not 0 for one that hasn't.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    attempts: BTreeMap<usize, u32>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    branches: BTreeMap<usize, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    active: BTreeMap<usize, Activity>,
}

/// The attempts of a step that has the usual number of them for its status.
const fn usual_attempts(step: &StepState) -> u32 {
    match step.status {
        Status::Pending | Status::Skipped => 0,
        _ => 1,
    }
}

impl Serialize for RunState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let numbered = || self.steps.iter().enumerate();
        Checkpoint {
            run: self.run.clone(),
            status: self.status,
            epoch: self.epoch,
            owner: self.owner.clone(),
            lease: self.lease_until,
            deadline: self.deadline,
            started: self.started_at,
            finished: self.finished_at,
            error: self.error.clone(),
            phase: self.phase,
            verdict: self.verdict,
            concluded: self.concluded,
            yields: self.yields,
            orphans: self.orphans.clone(),
            sequence: self.sequence,
            steps: shortened(self.steps.iter().map(letter)),
            attempts: numbered()
                .filter(|(_, step)| step.attempts != usual_attempts(step))
                .map(|(place, step)| (place, step.attempts))
                .collect(),
            branches: numbered()
                .filter_map(|(place, step)| Some((place, step.branch.clone()?)))
                .collect(),
            active: numbered()
                .filter_map(|(place, step)| Some((place, step.activity.as_deref()?.clone())))
                .collect(),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RunState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let read = Checkpoint::deserialize(deserializer)?;
        let mut steps = lengthened(&read.steps).ok_or_else(|| D::Error::custom("the steps can't be read"))?;
        for step in &mut steps {
            step.attempts = usual_attempts(step);
        }
        let outside = || D::Error::custom("there is no such step");
        for (place, attempts) in read.attempts {
            steps.get_mut(place).ok_or_else(outside)?.attempts = attempts;
        }
        for (place, branch) in read.branches {
            steps.get_mut(place).ok_or_else(outside)?.branch = Some(branch);
        }
        for (place, activity) in read.active {
            steps.get_mut(place).ok_or_else(outside)?.activity = Some(Box::new(activity));
        }
        Ok(Self {
            run: read.run,
            status: read.status,
            epoch: read.epoch,
            owner: read.owner,
            lease_until: read.lease,
            deadline: read.deadline,
            started_at: read.started,
            finished_at: read.finished,
            error: read.error,
            phase: read.phase,
            verdict: read.verdict,
            concluded: read.concluded,
            yields: read.yields,
            orphans: read.orphans,
            sequence: read.sequence,
            steps,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_of_a_thousand_steps_stays_small() {
        let mut steps = vec![StepState::pending(); 1000];
        for step in &mut steps[..400] {
            *step = StepState {
                status: Status::Succeeded,
                attempts: 1,
                ..StepState::pending()
            };
        }
        steps[7].attempts = 3;
        steps[8].branch = Some("then".into());
        steps[400].status = Status::Running;
        steps[400].attempts = 1;
        steps[400].activity = Some(Box::new(Activity {
            since: Timestamp::from_millis(5),
            until: None,
            doing: Doing::One(Unit {
                attempts: 1,
                attempt: Some(AttemptId::derived(Timestamp::from_millis(5), "a")),
                ..Unit::default()
            }),
        }));
        let state = RunState {
            run: RunId::generate(Timestamp::from_millis(1), [3; 10]),
            status: Status::Running,
            epoch: 1,
            owner: Some("here".into()),
            lease_until: None,
            deadline: Timestamp::from_millis(9),
            started_at: Some(Timestamp::from_millis(2)),
            finished_at: None,
            error: None,
            phase: Phase::Main,
            verdict: None,
            concluded: false,
            yields: false,
            orphans: Vec::new(),
            sequence: 400,
            steps,
        };
        let text = serde_json::to_string(&state).unwrap();
        assert!(text.contains("s400rp599") && text.len() < 700, "{text}");
        assert_eq!(serde_json::from_str::<RunState>(&text).unwrap(), state);
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(lengthened("x"), None);
        assert_eq!(lengthened("p99999999999999999999"), None);
        assert_eq!(lengthened("p99999999"), None);
        assert_eq!(lengthened("pp18446744073709551615"), None);
        assert_eq!(lengthened("s2p").unwrap().len(), 3);
    }
}
