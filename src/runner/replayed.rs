//! A runner that makes attempts again which were recorded: offline, with the answers that they had, and compares.
//!
//! The code runs in the same walls as ever, without a network. What it asks for is answered from the recording, in the
//! recording's order; what is not in it is refused, so nothing outside is read or changed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::jail::posture::Isolation;
use super::{
    AttemptReport, AttemptSpec, BundleDescription, BundleRef, NodeRunner, Refusal, RunnerError, WorkerMessage,
};
use crate::clock::Clock;
use crate::domain::{
    Network, Outcome, RecordedAnswer, RecordedCall, RecordedOutcome, Recording, Rights, Timestamp, reduced,
};

/// Messages of a worker that wait.
const WAITING_MESSAGES: usize = 64;
/// What a secret's value is when there is none: what masking leaves of it, so that what was masked compares.
const NO_SECRET: &str = "***";

/// The first thing in which a replayed attempt is not as it was recorded.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "what")]
pub enum Difference {
    /// Nothing was recorded of such an attempt.
    NotRecorded,
    /// A call is another one; none where it was not made, or was not recorded.
    Call {
        /// Which call, from 1.
        number: usize,
        /// As it was recorded.
        recorded: Option<Value>,
        /// As it is now.
        replayed: Option<Value>,
    },
    /// An answer was too large to be recorded, so what follows from it can't be compared.
    Answer {
        /// Which call, from 1.
        number: usize,
        /// What was asked.
        call: String,
    },
    /// It ended otherwise.
    Outcome {
        /// Where in the value, as a JSON pointer.
        at: String,
        /// As it was recorded.
        recorded: Value,
        /// As it is now.
        replayed: Value,
    },
}

/// A replayed attempt beside its recording.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// The step.
    pub step: String,
    /// The item of a map, or the iteration of a loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
    /// The attempt's number.
    pub number: u32,
    /// How many calls it made.
    pub calls: usize,
    /// How it ended as it was recorded.
    pub recorded: Option<RecordedOutcome>,
    /// How it ended now.
    pub replayed: Outcome,
    /// In what it differs first; nothing where it is as it was.
    pub difference: Option<Difference>,
}

type Place = (String, Option<u32>, u32);

#[derive(Default)]
struct State {
    workflow: String,
    recordings: BTreeMap<Place, Recording>,
    compared: Vec<Comparison>,
}

/// Makes recorded attempts again, in front of a runner that runs code.
pub struct Replayed {
    behind: Arc<dyn NodeRunner>,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

impl fmt::Debug for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replayed").finish_non_exhaustive()
    }
}

impl Replayed {
    /// Without any recordings yet.
    #[must_use]
    pub fn new(behind: Arc<dyn NodeRunner>, clock: Arc<dyn Clock>) -> Self {
        Self {
            behind,
            clock,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From here on attempts are compared with these.
    pub fn load(&self, workflow: &str, recordings: Vec<Recording>) {
        let place = |one: &Recording| (one.step.clone(), one.item, one.number);
        *self.state() = State {
            workflow: workflow.to_owned(),
            recordings: recordings.into_iter().map(|one| (place(&one), one)).collect(),
            compared: Vec::new(),
        };
    }

    /// What came of the attempts since then, in the order of their ends.
    pub fn take(&self) -> Vec<Comparison> {
        std::mem::take(&mut self.state().compared)
    }

    /// The recording of an attempt that a run of the same workflow makes.
    fn recording(&self, context: &Value) -> (Place, Option<Recording>) {
        let run = &context["run"];
        let small = |name: &str| run[name].as_u64().and_then(|number| u32::try_from(number).ok());
        let step = run["step"].as_str().unwrap_or_default().to_owned();
        let place = (step, small("item"), small("attempt").unwrap_or(1));
        let state = self.state();
        let is_same = run["workflow"] == state.workflow.as_str();
        let found = state.recordings.get(&place).filter(|_| is_same).cloned();
        (place, found)
    }
}

/// The context of then; what was left of its time is left of it now.
fn context_of(recording: &Recording, now: Timestamp) -> Value {
    let mut context = recording.context.clone();
    let run = &mut context["run"];
    let time = |value: &Value| value.as_str().and_then(|text| Timestamp::parse(text).ok());
    if let (Some(from), Some(until)) = (time(&run["started_at"]), time(&run["deadline"])) {
        run["deadline"] = json!(now.plus(until.since(from)));
    }
    context
}

/// Answers from a recording, one call after the other.
struct Answers {
    calls: Vec<RecordedCall>,
    used: Vec<bool>,
    made: usize,
    first: Option<Difference>,
}

impl Answers {
    fn new(calls: Vec<RecordedCall>) -> Self {
        Self {
            used: vec![false; calls.len()],
            calls,
            made: 0,
            first: None,
        }
    }

    fn differs(&mut self, difference: Difference) {
        self.first.get_or_insert(difference);
    }

    fn answer(&mut self, name: &str, args: Value) -> Result<Value, Refusal> {
        let args = reduced(name, args);
        self.made += 1;
        let number = self.made;
        let due = self.used.iter().position(|used| !used);
        let is_due = |call: &RecordedCall| call.name == name && call.args == args;
        let place = match due {
            Some(place) if is_due(&self.calls[place]) => Some(place),
            _ => {
                self.differs(Difference::Call {
                    number,
                    recorded: due.map(|place| json!({"name": self.calls[place].name, "args": self.calls[place].args})),
                    replayed: Some(json!({"name": name, "args": args})),
                });
                let others = || (0..self.calls.len()).filter(|place| !self.used[*place]);
                // The same one, later; else the next of its kind, so that the code gets on.
                let same = others().find(|place| is_due(&self.calls[*place]));
                same.or_else(|| others().find(|place| self.calls[*place].name == name))
            }
        };
        let Some(place) = place else {
            return Err(Refusal {
                code: "not_available".to_owned(),
                message: format!("`{name:.60}` was not recorded here, and a replay asks nobody"),
            });
        };
        self.used[place] = true;
        match self.calls[place].answer.clone() {
            RecordedAnswer::Value(value) => Ok(value),
            RecordedAnswer::Refused { code, message } => Err(Refusal { code, message }),
            RecordedAnswer::Secret => Ok(Value::from(NO_SECRET)),
            RecordedAnswer::Cut(_) | RecordedAnswer::Never => {
                self.differs(Difference::Answer {
                    number,
                    call: name.to_owned(),
                });
                Err(Refusal {
                    code: "unavailable".to_owned(),
                    message: format!("the answer to `{name:.60}` was not recorded"),
                })
            }
        }
    }

    /// What is left of the recording when the attempt has ended.
    fn end(&mut self) {
        if let Some(place) = self.used.iter().position(|used| !used) {
            let missing = &self.calls[place];
            let recorded = Some(json!({"name": missing.name, "args": missing.args}));
            let number = self.made + 1;
            self.differs(Difference::Call {
                number,
                recorded,
                replayed: None,
            });
        }
    }
}

/// Where two ends differ, if they do.
fn compare(recorded: &RecordedOutcome, replayed: &Outcome) -> Option<Difference> {
    let said = |outcome: &Outcome| match outcome {
        Outcome::Succeeded { value } => json!({"succeeded": value}),
        Outcome::Failed { error } => json!({"failed": {"type": error.kind, "message": error.message}}),
        Outcome::TimedOut { error } => json!({"timedOut": {"type": error.kind}}),
        Outcome::Cancelled => json!("cancelled"),
    };
    let (then, now) = match recorded {
        RecordedOutcome::Whole(outcome) => (said(outcome), said(replayed)),
        RecordedOutcome::Cut { .. } if matches!(replayed, Outcome::Succeeded { .. }) => return None,
        RecordedOutcome::Cut { .. } => (json!({"succeeded": "…"}), said(replayed)),
    };
    let kind = |value: &Value| value.as_object().and_then(|fields| fields.keys().next().cloned());
    let at = if kind(&then) == kind(&now) {
        first_difference(&then, &now, String::new())?
    } else {
        String::new()
    };
    let part = |value: &Value| value.pointer(&at).cloned().unwrap_or(Value::Null);
    Some(Difference::Outcome {
        recorded: part(&then),
        replayed: part(&now),
        at,
    })
}

/// The first place, as a JSON pointer, in which two values differ.
#[must_use]
pub fn first_difference(one: &Value, other: &Value, at: String) -> Option<String> {
    if one == other {
        return None;
    }
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match (one, other) {
        (Value::Object(these), Value::Object(those)) => {
            let keys = these.keys().chain(those.keys().filter(|key| !these.contains_key(*key)));
            for key in keys {
                let at = format!("{at}/{}", escaped(key));
                match (these.get(key), those.get(key)) {
                    (Some(one), Some(other)) => {
                        if let Some(found) = first_difference(one, other, at) {
                            return Some(found);
                        }
                    }
                    _ => return Some(at),
                }
            }
            None
        }
        (Value::Array(these), Value::Array(those)) => {
            let longest = these.len().max(those.len());
            (0..longest).find_map(|index| match (these.get(index), those.get(index)) {
                (Some(one), Some(other)) => first_difference(one, other, format!("{at}/{index}")),
                _ => Some(format!("{at}/{index}")),
            })
        }
        _ => Some(at),
    }
}

#[async_trait]
impl NodeRunner for Replayed {
    async fn run(&self, mut spec: AttemptSpec, cancel: CancellationToken) -> Result<AttemptReport, RunnerError> {
        let ((step, item, number), recording) = self.recording(&spec.context);
        let (messages, mut received) = mpsc::channel(WAITING_MESSAGES);
        let told = std::mem::replace(&mut spec.messages, messages);
        spec.rights.network = Network::None;
        let calls = match &recording {
            Some(recording) => {
                spec.context = context_of(recording, self.clock.now());
                recording.calls.clone()
            }
            None => Vec::new(),
        };
        let mut answers = Answers::new(calls);
        let serve = async {
            while let Some(message) = received.recv().await {
                match message {
                    // Nobody need be there to answer it.
                    WorkerMessage::Call { name, args, reply } => drop(reply.send(answers.answer(&name, args))),
                    other => drop(told.send(other).await),
                }
            }
        };
        let (report, ()) = tokio::join!(self.behind.run(spec, cancel), serve);
        let report = report?;
        answers.end();
        let (recorded, difference) = match recording {
            None => (None, Some(Difference::NotRecorded)),
            Some(recording) => {
                let first = answers.first.take();
                let difference = first.or_else(|| compare(&recording.outcome, &report.outcome));
                (Some(recording.outcome), difference)
            }
        };
        self.state().compared.push(Comparison {
            step,
            item,
            number,
            calls: answers.made,
            recorded,
            replayed: report.outcome.clone(),
            difference,
        });
        Ok(report)
    }

    async fn describe(&self, bundle: &BundleRef) -> Result<BundleDescription, RunnerError> {
        self.behind.describe(bundle).await
    }

    fn warm(&self, _bundle: &BundleRef, _module: &str, _rights: &Rights) {}

    fn slots(&self) -> usize {
        self.behind.slots()
    }

    async fn shutdown(&self) {
        self.behind.shutdown().await;
    }

    async fn posture(&self) -> Result<Isolation, RunnerError> {
        self.behind.posture().await
    }

    fn isolation(&self) -> Option<Isolation> {
        self.behind.isolation()
    }

    fn status(&self) -> Value {
        json!({"replayed": true})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::StepError;

    fn call(name: &str, key: &str, answer: RecordedAnswer) -> RecordedCall {
        RecordedCall {
            name: name.to_owned(),
            args: json!({"key": key}),
            answer,
        }
    }

    #[test]
    fn answers_come_in_their_order_and_the_first_difference_is_kept() {
        let value = |number: i64| RecordedAnswer::Value(json!(number));
        let mut answers = Answers::new(vec![
            call("kv.get", "a", value(1)),
            call("kv.get", "b", value(2)),
            call("secrets.get", "c", RecordedAnswer::Secret),
            call("kv.get", "d", value(4)),
        ]);
        assert_eq!(answers.answer("kv.get", json!({"key": "a"})), Ok(json!(1)));
        assert_eq!(answers.answer("secrets.get", json!({"key": "c"})), Ok(json!("***")));
        let first = answers.first.clone();
        assert!(matches!(
            &first,
            Some(Difference::Call {
                number: 2,
                recorded: Some(_),
                replayed: Some(_)
            })
        ));
        assert_eq!(
            answers.answer("kv.get", json!({"key": "x"})),
            Ok(json!(2)),
            "the next of its kind"
        );
        assert_eq!(
            answers.answer("http.request", json!({})).unwrap_err().code,
            "not_available"
        );
        answers.end();
        assert_eq!(answers.first, first);
    }

    #[test]
    fn a_secret_is_what_masking_leaves_of_it() {
        assert_eq!(NO_SECRET, crate::secrets::mask::MASK);
    }

    #[test]
    fn what_was_not_asked_is_a_difference() {
        let mut answers = Answers::new(vec![call("kv.get", "a", RecordedAnswer::Cut(9))]);
        assert_eq!(
            answers.answer("kv.get", json!({"key": "a"})).unwrap_err().code,
            "unavailable"
        );
        assert!(matches!(answers.first, Some(Difference::Answer { number: 1, .. })));
        let mut answers = Answers::new(vec![call("kv.get", "a", RecordedAnswer::Never)]);
        answers.end();
        assert!(matches!(
            answers.first,
            Some(Difference::Call {
                number: 1,
                replayed: None,
                ..
            })
        ));
    }

    #[test]
    fn ends_are_compared_to_the_first_difference() {
        let succeeded = |value: Value| Outcome::Succeeded { value };
        let failed = |kind: &str, message: &str| Outcome::Failed {
            error: StepError::new(kind, message),
        };
        let differs = |then: Outcome, now: Outcome| match compare(&RecordedOutcome::Whole(then), &now) {
            Some(Difference::Outcome { at, .. }) => Some(at),
            Some(other) => panic!("{other:?}"),
            None => None,
        };
        let value = json!({"a": [1, {"b/c": 2}]});
        assert_eq!(differs(succeeded(value.clone()), succeeded(value.clone())), None);
        let other = json!({"a": [1, {"b/c": 3}]});
        let at = differs(succeeded(value.clone()), succeeded(other));
        assert_eq!(at.as_deref(), Some("/succeeded/a/1/b~1c"));
        assert_eq!(differs(failed("E", "m"), failed("E", "m")), None);
        assert_eq!(
            differs(failed("E", "m"), failed("E", "n")).as_deref(),
            Some("/failed/message")
        );
        assert_eq!(differs(failed("E", "m"), succeeded(value.clone())).as_deref(), Some(""));
        let cut = RecordedOutcome::Cut {
            outcome: "succeeded".to_owned(),
            bytes: 9,
        };
        assert_eq!(compare(&cut, &succeeded(value)), None);
        assert!(compare(&cut, &failed("E", "m")).is_some());
    }
}
