//! What a run's expressions see, and what they say: the values that the scheduler doesn't know.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::resume_run::MOST_RESUMED;
use super::{Context, Error, Result};
use crate::definition::{Expression, ExpressionError, StepIds, expressions, filled};
use crate::domain::{MAX_STEP_SECONDS, OnFalse, Payload, StepError, Timestamp};
use crate::error::Kind;
use crate::scheduler::{Output, Plan, RunState, Slot, Verdict, Work};
use crate::store;
use crate::store::repo::runs::{Left, StoredRun};
use crate::tenancy::Scope;

/// Most bytes of values that a driver keeps, so that the next step need not read them again.
const KEPT_BYTES: usize = 4 << 20;
/// Most bytes of what the items of a map have left, where they are looked at as one list.
const TOGETHER_BYTES: u64 = 16 << 20;
/// Most lists of maps that a driver keeps.
const KEPT_LISTS: usize = 4;
/// Most characters of an assertion's message.
const LONGEST_MESSAGE: usize = 2_000;

/// What a driver knows of what its run's steps have left: what ended under it.
#[derive(Debug, Default)]
pub(super) struct Known {
    left: BTreeMap<Slot, Left>,
    bytes: usize,
    /// Lists that maps go over, so that they are not worked out anew for each item.
    lists: Mutex<BTreeMap<usize, Arc<Value>>>,
    /// The run's arguments, once something has looked at them.
    arguments: Mutex<Option<Arc<Value>>>,
}

impl Known {
    /// Keeps what was just left. Small values are kept, and large ones as references; the oldest go when it is too much.
    pub(super) fn keep(&mut self, slot: Slot, left: Left) {
        self.bytes += size(&left);
        if slot.1.is_none() {
            self.lists
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&slot.0);
        }
        if let Some(before) = self.left.insert(slot, left) {
            self.bytes -= size(&before).min(self.bytes);
        }
    }

    /// Lets go of what is stored, where it has become too much. What is not committed must not go.
    pub(super) fn shrink(&mut self) {
        if self.bytes > KEPT_BYTES {
            self.left.clear();
            self.bytes = 0;
        }
    }
}

/// Works something out while other tasks of this thread go on elsewhere, where there is an elsewhere.
fn aside<T>(is_heavy: bool, work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    let flavor = Handle::try_current().map(|handle| handle.runtime_flavor());
    if is_heavy && matches!(flavor, Ok(RuntimeFlavor::MultiThread)) {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

/// How much a value is as JSON.
fn bytes_of(payload: &Payload) -> u64 {
    match payload {
        Payload::Inline(value) => value.to_string().len() as u64,
        Payload::Claim(check) => check.size,
    }
}

fn size(left: &Left) -> usize {
    match &left.output {
        Payload::Inline(value) => 64 + value.to_string().len(),
        Payload::Claim(_) => 128,
    }
}

/// Values of one run.
pub(super) struct Values<'a> {
    pub(super) cx: &'a Context,
    pub(super) scope: &'a Scope,
    pub(super) run: &'a StoredRun,
    pub(super) state: &'a RunState,
    pub(super) known: &'a Known,
}

/// What values say of a step that may begin, with its own value where it has one.
pub(super) type Said = (Verdict, Option<Value>);

/// The ids of a plan's steps, for expressions.
struct Ids<'a>(&'a Plan);

impl StepIds for Ids<'_> {
    fn has(&self, id: &str) -> bool {
        self.0.position(id).is_some()
    }

    fn some(&self) -> Vec<&str> {
        self.0.steps.iter().take(20).map(|step| step.id.as_str()).collect()
    }
}

impl Values<'_> {
    fn ids(&self) -> Ids<'_> {
        Ids(&self.run.new.plan)
    }

    /// Looks at what a step needs to be looked at for.
    ///
    /// # Errors
    /// When storage fails; wrong values are a verdict.
    pub(super) async fn look(&self, slot: Slot, now: Timestamp) -> Result<Said> {
        match slot.1 {
            None => self.before(slot.0, now).await,
            Some(item) => Ok((self.again(slot.0, item).await?, None)),
        }
    }

    async fn before(&self, place: usize, now: Timestamp) -> Result<Said> {
        let step = &self.run.new.plan.steps[place];
        if let Some(when) = &step.when {
            match self.truth(when, Map::new()).await? {
                Ok(true) => {}
                Ok(false) => return Ok((Verdict::Skip, None)),
                Err(error) => return Ok((wrong(&error), None)),
            }
        }
        let said = match &step.work {
            Work::Once(_) | Work::Loop { .. } | Work::Approval { .. } => (Verdict::Go, None),
            Work::Map { items, .. } => match self.list(place, items).await? {
                Ok(list) => match list.as_array() {
                    Some(list) => {
                        let count = u32::try_from(list.len()).unwrap_or(u32::MAX);
                        (Verdict::Items(count), None)
                    }
                    None => {
                        let message = format!("`items` of map `{}` is {}, and not a list", step.id, kind_of(&list));
                        (Verdict::Wrong(StepError::new("items_not_a_list", message)), None)
                    }
                },
                Err(error) => (wrong(&error), None),
            },
            Work::Choose { branches, otherwise } => {
                for (name, when) in branches {
                    match self.truth(when, Map::new()).await? {
                        Ok(true) => return Ok((Verdict::Branch(Some(name.clone())), None)),
                        Ok(false) => {}
                        Err(error) => return Ok((wrong(&error), None)),
                    }
                }
                (Verdict::Branch(otherwise.clone()), None)
            }
            Work::Assert {
                condition,
                message,
                on_false,
            } => match self.truth(condition, Map::new()).await? {
                Ok(true) => (Verdict::Done, Some(json!({"passed": true}))),
                Ok(false) => {
                    let message = match self.fill(message, Map::new()).await? {
                        Ok(Value::Null) => format!("`{condition}` is not so"),
                        Ok(Value::String(message)) => message,
                        Ok(other) => other.to_string(),
                        Err(error) => return Ok((wrong(&error), None)),
                    };
                    match on_false {
                        OnFalse::Fail => {
                            let message = message.chars().take(LONGEST_MESSAGE).collect::<String>();
                            (Verdict::Wrong(StepError::new("assertion_failed", message)), None)
                        }
                        OnFalse::Warn | OnFalse::Continue => {
                            if *on_false == OnFalse::Warn {
                                // The message is made of values, which are nobody's but the run's.
                                tracing::warn!(run.id = %self.run.new.run, step = %step.id, "an assertion is not so");
                            }
                            (Verdict::Done, Some(json!({"passed": false, "message": message})))
                        }
                    }
                }
                Err(error) => (wrong(&error), None),
            },
            Work::Compute { value } => match self.fill(value, Map::new()).await? {
                Ok(value) => (Verdict::Done, Some(value)),
                Err(error) => (wrong(&error), None),
            },
            Work::Delay { seconds } => match self.fill(seconds, Map::new()).await? {
                Ok(value) => match value.as_f64().and_then(|s| Duration::try_from_secs_f64(s).ok()) {
                    Some(pause) if pause <= Duration::from_secs(MAX_STEP_SECONDS.into()) => {
                        (Verdict::Until(now.plus(pause)), None)
                    }
                    _ => {
                        let shown: String = value.to_string().chars().take(60).collect();
                        let message = format!(
                            "`seconds` of delay `{}` is {shown}, and not a number of seconds from 0 to {MAX_STEP_SECONDS}",
                            step.id
                        );
                        (Verdict::Wrong(StepError::new("delay_invalid", message)), None)
                    }
                },
                Err(error) => (wrong(&error), None),
            },
        };
        Ok(said)
    }

    /// Whether a loop has come to its end.
    async fn again(&self, place: usize, item: u32) -> Result<Verdict> {
        let Work::Loop { until, .. } = &self.run.new.plan.steps[place].work else {
            return Ok(Verdict::Ends(true));
        };
        let mut more = Map::new();
        more.insert("iteration".into(), json!(item));
        more.insert("output".into(), self.output((place, Some(item))).await?);
        Ok(match self.truth(until, more).await? {
            Ok(ends) => Verdict::Ends(ends),
            Err(error) => wrong(&error),
        })
    }

    /// What an action is given.
    ///
    /// # Errors
    /// When storage fails; inside, when the values are wrong.
    pub(super) async fn arguments(&self, slot: Slot) -> Result<std::result::Result<Value, StepError>> {
        let step = &self.run.new.plan.steps[slot.0];
        let mut more = Map::new();
        if let Some(item) = slot.1 {
            match &step.work {
                Work::Map { items, .. } => {
                    let list = match self.list(slot.0, items).await? {
                        Ok(list) => list,
                        Err(error) => return Ok(Err(step_error(&error))),
                    };
                    let value = list.get(item as usize).cloned().unwrap_or_default();
                    more.insert("item".into(), value);
                    more.insert("index".into(), json!(item));
                }
                _ => {
                    more.insert("iteration".into(), json!(item));
                    let before = match item {
                        0 => Value::Null,
                        item => self.output((slot.0, Some(item - 1))).await?,
                    };
                    more.insert("output".into(), before);
                }
            }
        }
        let Some(inputs) = &step.inputs else {
            return Ok(Ok(match more.remove("item") {
                Some(Value::Object(item)) => Value::Object(item),
                Some(item) => json!({"item": item}),
                None => self.run_arguments().await?.as_ref().clone(),
            }));
        };
        Ok(self.fill(inputs, more).await?.map_err(|error| step_error(&error)))
    }

    /// The run's result, where that is worked out.
    ///
    /// # Errors
    /// When storage fails; inside, when the values are wrong.
    pub(super) async fn result(&self) -> Result<std::result::Result<Value, StepError>> {
        let Output::Value(value) = &self.run.new.plan.output else {
            return Ok(Ok(Value::Null));
        };
        let filled = self.fill(value, Map::new()).await?;
        Ok(filled.map_err(|error| StepError::new("output_invalid", error.to_string())))
    }

    /// The list that a map goes over.
    async fn list(&self, place: usize, items: &Value) -> Result<std::result::Result<Arc<Value>, ExpressionError>> {
        let lists = || self.known.lists.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(list) = lists().get(&place) {
            return Ok(Ok(list.clone()));
        }
        let list = match self.fill(items, Map::new()).await? {
            Ok(list) => Arc::new(list),
            Err(error) => return Ok(Err(error)),
        };
        let mut lists = lists();
        if lists.len() >= KEPT_LISTS {
            lists.clear();
        }
        lists.insert(place, list.clone());
        Ok(Ok(list))
    }

    /// A value of the run: without it nobody can go on.
    async fn resolve(&self, payload: &Payload) -> Result<Value> {
        let value = self.cx.runs.resolve(self.scope, payload).await;
        Ok(value.map_err(|error| error.of_run(&self.run.new.run))?)
    }

    async fn run_arguments(&self) -> Result<Arc<Value>> {
        let kept = || self.known.arguments.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(arguments) = kept().as_ref() {
            return Ok(arguments.clone());
        }
        let arguments = Arc::new(self.resolve(&self.run.new.arguments).await?);
        *kept() = Some(arguments.clone());
        Ok(arguments)
    }

    async fn truth(&self, text: &str, more: Map<String, Value>) -> Result<std::result::Result<bool, ExpressionError>> {
        let read = match Expression::parse(text, &self.ids()) {
            Ok(read) => read,
            Err(error) => return Ok(Err(error)),
        };
        let known = self.sees(std::slice::from_ref(&read), more).await?;
        let is_heavy = read.is_heavy();
        Ok(known.and_then(|known| aside(is_heavy, || read.truth(&known))))
    }

    pub(super) async fn fill(
        &self,
        value: &Value,
        more: Map<String, Value>,
    ) -> Result<std::result::Result<Value, ExpressionError>> {
        let ids = self.ids();
        let read: std::result::Result<Vec<_>, _> = expressions(value)
            .into_iter()
            .map(|(_, marked)| marked.parse(&ids))
            .collect();
        let read = match read {
            Ok(read) => read,
            Err(error) => return Ok(Err(error)),
        };
        if read.is_empty() {
            return Ok(Ok(value.clone()));
        }
        let known = self.sees(&read, more).await?;
        let is_heavy = read.iter().any(Expression::is_heavy);
        Ok(known.and_then(|known| aside(is_heavy, || filled(value, &ids, &known))))
    }

    /// What expressions see: only what they name is read.
    async fn sees(
        &self,
        read: &[Expression],
        mut more: Map<String, Value>,
    ) -> Result<std::result::Result<Value, ExpressionError>> {
        let mut steps = Map::new();
        let named: BTreeSet<&String> = read.iter().flat_map(Expression::steps).collect();
        for id in named {
            let Some(place) = self.run.new.plan.position(id) else {
                continue;
            };
            let step = &self.state.steps[place];
            let mut seen = Map::new();
            seen.insert("status".into(), json!(step.status));
            if step.status.is_terminal() {
                let output = match self.output((place, None)).await {
                    Ok(output) => output,
                    // Of no size that an expression may look at.
                    Err(Error::Request { detail, .. }) => {
                        return Ok(Err(ExpressionError {
                            expression: format!("steps.{id}.output"),
                            message: detail,
                            names_no_step: false,
                        }));
                    }
                    Err(error) => return Err(error),
                };
                if self.run.new.plan.steps[place].work.kind() == "shell" {
                    for name in ["exit_code", "stdout", "stderr"] {
                        if let Some(value) = output.get(name) {
                            seen.insert(name.into(), value.clone());
                        }
                    }
                }
                if read.iter().any(Expression::says_outputs) {
                    seen.insert("outputs".into(), output.clone());
                }
                seen.insert("output".into(), output);
                let left = self.left((place, None)).await?;
                seen.insert("error".into(), left.error);
            }
            steps.insert(id.clone(), Value::Object(seen));
        }
        if read.iter().any(|one| one.looks_at("inputs")) {
            more.insert("inputs".into(), self.run_arguments().await?.as_ref().clone());
        }
        more.insert("steps".into(), Value::Object(steps));
        let error = self.state.error.as_ref();
        let error = error.map(|error| json!({"type": error.kind, "message": error.message, "step": error.step}));
        more.insert("error".into(), error.unwrap_or_default());
        more.insert(
            "run".into(),
            json!({"id": self.run.new.run, "workflow": self.run.new.workflow}),
        );
        Ok(Ok(Value::Object(more)))
    }

    /// What came out of a step: of a map the list of what came out of its items, of a loop what came out of the last.
    ///
    /// # Errors
    /// When storage fails, or the items of a map have left more than may be looked at as one list.
    pub(super) async fn output(&self, (place, item): Slot) -> Result<Value> {
        let step = &self.state.steps[place];
        let work = &self.run.new.plan.steps[place].work;
        match (item, work) {
            (None, Work::Map { .. }) => {
                let stored;
                let run = if step.carried {
                    stored = self.before_resuming(place).await?;
                    &stored
                } else {
                    self.run
                };
                let mut outputs = self.cx.runs.item_outputs(self.scope, run, place).await?;
                if !step.carried {
                    outputs.resize(step.attempts as usize, None);
                    for ((_, item), left) in self.known.left.range((place, Some(0))..=(place, Some(u32::MAX))) {
                        if let Some(output) = item.and_then(|item| outputs.get_mut(item as usize))
                            && left.error.is_null()
                        {
                            *output = Some(left.output.clone());
                        }
                    }
                }
                let together: u64 = outputs.iter().flatten().map(bytes_of).sum();
                if together > TOGETHER_BYTES {
                    return Err(Error::Request {
                        kind: Kind::TooLarge,
                        code: "value_too_large",
                        detail: format!(
                            "the items of `{}` have left {together} bytes, and at most {TOGETHER_BYTES} are looked at as one list",
                            self.run.new.plan.steps[place].id
                        ),
                        hint: Some("let each item leave less, or keep what is large as an artifact".to_owned()),
                        findings: Vec::new(),
                    });
                }
                let mut values = Vec::with_capacity(outputs.len());
                for output in outputs {
                    values.push(match output {
                        Some(output) => self.resolve(&output).await?,
                        None => Value::Null,
                    });
                }
                Ok(Value::Array(values))
            }
            (None, Work::Loop { .. }) if step.attempts > 0 => {
                let rounds = if step.carried {
                    self.before_resuming(place).await?.state.steps[place].attempts
                } else {
                    step.attempts
                };
                let left = self.left((place, Some(rounds.saturating_sub(1)))).await?;
                self.resolve(&left.output).await
            }
            _ => {
                let left = self.left((place, item)).await?;
                self.resolve(&left.output).await
            }
        }
    }

    /// What a step, or one of its items, has left.
    ///
    /// # Errors
    /// When storage fails.
    pub(super) async fn left(&self, slot: Slot) -> Result<Left> {
        if let Some(left) = self.known.left.get(&slot) {
            return Ok(left.clone());
        }
        if self.state.steps[slot.0].carried {
            let run = self.before_resuming(slot.0).await?;
            return Ok(self.cx.runs.left(self.scope, &run, slot).await?);
        }
        Ok(self.cx.runs.left(self.scope, self.run, slot).await?)
    }

    /// The run in which a step was done that this run did not do again.
    async fn before_resuming(&self, place: usize) -> Result<StoredRun> {
        let mut before = self.run.new.resumes.clone();
        for _ in 0..MOST_RESUMED {
            let Some(id) = before else { break };
            let Some(run) = self.cx.runs.get(self.scope, &id).await? else {
                break;
            };
            if !run.state.steps.get(place).is_some_and(|step| step.carried) {
                return Ok(run);
            }
            before = run.new.resumes.clone();
        }
        // Nothing deletes such a run, and to go on with null would be worse than to stand still.
        let gone = format!(
            "the run is gone from which step `{}` was taken over",
            self.run.new.plan.steps[place].id
        );
        Err(store::Error::corrupt(gone).of_run(&self.run.new.run).into())
    }
}

fn step_error(error: &ExpressionError) -> StepError {
    StepError::new("expression_failed", error.to_string())
}

fn wrong(error: &ExpressionError) -> Verdict {
    Verdict::Wrong(step_error(error))
}

const fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
