//! Recorded histories of runs: a plan, what happened, and all that followed. A change of the scheduler that changes what follows
//! shows here, event by event. `INSTA_UPDATE=always` writes them again, as it does the snapshots; read what it wrote.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use weft::domain::{Limits, Outcome, Phase, RunId, Status, StepError, Timestamp};
use weft::scheduler::{
    Carried, Decision, Effect, Event, Fact, Plan, Rejected, RunState, Slot, Transition, Verdict, begin, decide,
};

const START: i64 = 1_795_219_200_000;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct History {
    /// What is to be seen in it.
    shows: String,
    /// The run's time limit, in seconds.
    limit: u64,
    /// As the scheduler has it, but `code` is a name only.
    plan: Value,
    /// Steps that an earlier run has done, with the branch that they chose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    carried: Vec<(String, Option<String>)>,
    events: Vec<Line>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    /// Seconds since the run was asked for.
    at: f64,
    event: Happening,
    /// The sender's, when it is not the run's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    #[serde(default)]
    then: Option<Then>,
}

/// A slot is written `step` or `step[item]`; what runs or is waited for in it is what is meant.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Happening {
    TakenBy(String),
    Renewed,
    Answered(String, Said),
    Concluded(Option<String>),
    Succeeded(String),
    Failed(String, String),
    HandedOff(Vec<String>),
    Decided { step: String, by: String, approved: bool },
    Woken,
    Yielding,
    Resumed,
    Released,
    CancelledBy(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Skip,
    Go,
    Done,
    Branch(Option<String>),
    Items(u32),
    Ends(bool),
    Until(f64),
    Wrong(String),
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(untagged)]
enum Then {
    Refused { refused: String },
    Follows(Box<Follows>),
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(deny_unknown_fields)]
struct Follows {
    status: Status,
    phase: Phase,
    epoch: u64,
    /// Of each step: status, and attempts begun.
    steps: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// When something is due that no event announces, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    due: Option<f64>,
    /// Values that must be looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    asks: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    concludes: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    ended: Vec<String>,
    facts: Vec<Fact>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    effects: Vec<String>,
}

fn time(seconds: f64) -> Timestamp {
    Timestamp::from_millis(START).plus(Duration::from_secs_f64(seconds))
}

fn seconds(time: Timestamp) -> f64 {
    time.since(Timestamp::from_millis(START)).as_secs_f64()
}

/// Writes out what a call of code is.
fn filled(plan: &mut Value) {
    match plan {
        Value::Object(object) => {
            for (key, value) in object {
                if key == "code" && value.is_string() {
                    *value = json!({
                        "name": value, "module": "workflows.any", "function": value, "limits": Limits::default(),
                    });
                } else {
                    filled(value);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(filled),
        _ => {}
    }
}

fn slot(plan: &Plan, text: &str) -> Slot {
    let (id, item) = match text.strip_suffix(']').and_then(|text| text.split_once('[')) {
        Some((id, item)) => (id, Some(item.parse().unwrap())),
        None => (text, None),
    };
    (
        plan.position(id).unwrap_or_else(|| panic!("there is no step `{id}`")),
        item,
    )
}

fn name(plan: &Plan, (place, item): Slot) -> String {
    let id = &plan.steps[place].id;
    item.map_or_else(|| id.clone(), |item| format!("{id}[{item}]"))
}

fn event(plan: &Plan, state: &RunState, line: &Line) -> Event {
    let (now, epoch) = (time(line.at), line.epoch.unwrap_or(state.epoch));
    let ended = |text: &str, outcome: Outcome| {
        let slot = slot(plan, text);
        let unit = state
            .unit(slot)
            .unwrap_or_else(|| panic!("nothing is tried in `{text}`"));
        let (outcome, sample) = (Box::new(outcome), 0.5);
        match (&unit.attempt, &unit.child) {
            (Some(attempt), _) => Event::AttemptFinished {
                epoch,
                slot,
                attempt: attempt.clone(),
                outcome,
                sample,
            },
            (_, Some(child)) => Event::ChildFinished {
                epoch,
                slot,
                child: child.clone(),
                outcome,
                sample,
            },
            _ => panic!("nothing runs in `{text}`"),
        }
    };
    let wrong = |message: &String| StepError::new("ValueError", message.clone());
    match &line.event {
        Happening::TakenBy(owner) => Event::Taken {
            owner: owner.clone(),
            lease_until: now.plus(Duration::from_secs(60)),
        },
        Happening::Renewed => Event::Renewed {
            epoch,
            lease_until: now.plus(Duration::from_secs(60)),
        },
        Happening::Answered(text, said) => Event::Evaluated {
            epoch,
            slot: slot(plan, text),
            verdict: match said {
                Said::Skip => Verdict::Skip,
                Said::Go => Verdict::Go,
                Said::Done => Verdict::Done,
                Said::Branch(branch) => Verdict::Branch(branch.clone()),
                Said::Items(items) => Verdict::Items(*items),
                Said::Ends(ends) => Verdict::Ends(*ends),
                Said::Until(at) => Verdict::Until(time(*at)),
                Said::Wrong(message) => Verdict::Wrong(wrong(message)),
            },
        },
        Happening::Concluded(error) => Event::Concluded {
            epoch,
            error: error.as_ref().map(wrong),
        },
        Happening::Succeeded(text) => ended(text, Outcome::Succeeded { value: Value::Null }),
        Happening::Failed(text, message) => ended(text, Outcome::Failed { error: wrong(message) }),
        Happening::HandedOff(slots) => Event::HandedOff {
            epoch,
            slots: slots.iter().map(|text| slot(plan, text)).collect(),
        },
        Happening::Decided { step, by, approved } => Event::Decided {
            epoch,
            step: slot(plan, step).0,
            decision: Decision {
                by: by.clone(),
                link_made_by: None,
                key_made_by: None,
                approved: *approved,
                comment: None,
                at: now,
            },
        },
        Happening::Woken => Event::Woken { epoch },
        Happening::Yielding => Event::Yielding { epoch },
        Happening::Resumed => Event::Resumed { epoch },
        Happening::Released => Event::Released { epoch },
        Happening::CancelledBy(by) => Event::CancelRequested { by: by.clone() },
    }
}

fn follows(plan: &Plan, decided: &Result<Transition, Rejected>) -> Then {
    let transition = match decided {
        Ok(transition) => transition,
        Err(rejected) => {
            return Then::Refused {
                refused: rejected.to_string(),
            };
        }
    };
    let state = transition.state();
    let told = |error: &StepError| match &error.step {
        Some(step) => format!("{} in {step}: {}", error.kind, error.message),
        None => format!("{}: {}", error.kind, error.message),
    };
    let steps = plan.steps.iter().zip(&state.steps).map(|(planned, step)| {
        let marks = [(step.omitted, " (left out)"), (step.carried, " (carried)")];
        let mark = marks.iter().find(|(there, _)| *there).map_or("", |(_, mark)| mark);
        format!("{} {}{mark} {}", planned.id, step.status.as_str(), step.attempts)
    });
    Then::Follows(Box::new(Follows {
        status: state.status,
        phase: state.phase,
        epoch: state.epoch,
        steps: steps.collect(),
        error: state.error.as_ref().map(told),
        due: state.next_due().map(seconds),
        asks: transition.evaluations().iter().map(|slot| name(plan, *slot)).collect(),
        concludes: transition.concludes(),
        ended: transition
            .ended()
            .iter()
            .map(|ended| {
                let error = ended.error.as_ref().map(|error| format!(", {}", told(error)));
                let value = ended.value.as_ref().map(|value| format!(", {value}"));
                format!(
                    "{} {} {}{}{}",
                    name(plan, ended.slot),
                    ended.status.as_str(),
                    ended.attempts,
                    error.unwrap_or_default(),
                    value.unwrap_or_default()
                )
            })
            .collect(),
        facts: transition.facts().to_vec(),
        effects: transition
            .effects()
            .iter()
            .map(|effect| match effect {
                Effect::StartAttempt { slot, attempt, number } => {
                    format!("start {} #{number} {attempt}", name(plan, *slot))
                }
                Effect::StartChild { slot, child, number } => {
                    format!("start child of {} #{number} {child}", name(plan, *slot))
                }
                Effect::KillAttempt { slot, attempt, .. } => format!("kill {} {attempt}", name(plan, *slot)),
                Effect::CancelChild { child } => format!("cancel child {child}"),
                Effect::Finished => "finished".to_owned(),
            })
            .collect(),
    }))
}

/// What has room on a line stands on one.
fn written(value: &Value, indent: usize, text: &mut String) {
    let short = value.to_string();
    let rows: Vec<(Option<&String>, &Value)> = match value {
        Value::Object(object) => object.iter().map(|(key, value)| (Some(key), value)).collect(),
        Value::Array(list) => list.iter().map(|value| (None, value)).collect(),
        _ => Vec::new(),
    };
    if rows.is_empty() || short.len() + indent <= 110 {
        return text.push_str(&short);
    }
    let (open, close) = if value.is_array() { ('[', ']') } else { ('{', '}') };
    text.push(open);
    for (at, (key, value)) in rows.iter().enumerate() {
        text.push_str(if at == 0 { "\n" } else { ",\n" });
        text.push_str(&" ".repeat(indent + 2));
        if let Some(key) = key {
            text.push_str(&format!("{}: ", json!(key)));
        }
        written(value, indent + 2, text);
    }
    text.push_str(&format!("\n{}{close}", " ".repeat(indent)));
}

fn replay(file: &str, history: &mut History, rewrite: bool) {
    let mut plan = history.plan.clone();
    filled(&mut plan);
    let plan: Plan = serde_json::from_value(plan).unwrap_or_else(|error| panic!("{file}: {error}"));
    let run = RunId::derived(Timestamp::from_millis(START), file);
    let carried: Vec<_> = history
        .carried
        .iter()
        .map(|(step, branch)| Carried {
            step: slot(&plan, step).0,
            branch: branch.clone(),
        })
        .collect();
    let first = begin(
        &run,
        &plan,
        &carried,
        time(0.0).plus(Duration::from_secs(history.limit)),
        time(0.0),
    );
    let mut state = first.state().clone();
    for (at, line) in history.events.iter_mut().enumerate() {
        let decided = decide(&plan, &state, event(&plan, &state, line), time(line.at));
        let then = Some(follows(&plan, &decided));
        if rewrite {
            line.then = then;
        } else {
            assert_eq!(line.then, then, "{file}: after event {} at {} s", at + 1, line.at);
        }
        if let Ok(transition) = decided {
            state = transition.state().clone();
        }
    }
    assert!(state.status.is_terminal(), "{file}: the run has not come to its end");
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the variable by which snapshots are written again"
)]
fn what_follows_is_what_was_recorded() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/histories");
    let rewrite = std::env::var("INSTA_UPDATE").is_ok_and(|wanted| wanted == "always");
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    assert!(files.len() >= 12, "the histories were not found");
    for path in files {
        let file = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let mut history: History = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        replay(&file, &mut history, rewrite);
        if rewrite {
            let mut text = String::new();
            written(&serde_json::to_value(&history).unwrap(), 0, &mut text);
            std::fs::write(&path, text + "\n").unwrap();
        }
    }
}
