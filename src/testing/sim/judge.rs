//! What a graph means, once more and apart from the scheduler: a small model that is told how each step has ended and what it
//! left, and says what of that can't be. It reads the graph as it was drawn, and not the plan that was made of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::history::MOST_SKEW;
use super::process::Process;
use super::tally::Tally;
use crate::definition::TEXT_MARK;
use crate::domain::{
    Called, DependsOn, Edge, Graph, ItemFailure, Join, Node, NodeWork, OnFailure, OnFalse, Payload, Phase, Status,
    Timestamp,
};
use crate::store::repo::runs::{AttemptRecord, StoredItem, StoredRun, StoredStep};
use crate::tenancy::Scope;

/// How many runs back what was not done again is looked for.
const RESUMED: usize = 20;

/// A run that has ended, with everything that it left.
pub(super) struct Case<'a> {
    graph: &'a Graph,
    run: &'a StoredRun,
    /// Time limit of the installation.
    run_limit: Duration,
    /// How long what may begin waits at most.
    patience: Duration,
    inputs: Value,
    result: Value,
    steps: BTreeMap<&'a str, Seen>,
}

/// How a step has ended.
struct Seen {
    status: Status,
    omitted: bool,
    carried: bool,
    attempts: u32,
    branch: Option<String>,
    stored: StoredStep,
    /// Of a map the list of what its items left, of a loop what the last iteration did.
    output: Value,
    error: Value,
    items: Vec<(StoredItem, Value)>,
}

impl Seen {
    /// Whether its time came: it began, or was skipped by its own `when`.
    fn is_decided(&self) -> bool {
        !(self.status == Status::Skipped && self.omitted)
    }

    fn has_failed(&self) -> bool {
        matches!(self.status, Status::Failed | Status::TimedOut)
    }

    fn error_is(&self, kind: &str) -> bool {
        self.error["type"] == kind
    }
}

impl<'a> Case<'a> {
    /// Reads all that a run has left.
    ///
    /// # Panics
    /// When storage fails for somebody for whom it can't.
    pub(super) async fn read(
        auditor: &Process,
        scope: &Scope,
        run: &'a StoredRun,
        graph: &'a Graph,
        (run_limit, patience): (Duration, Duration),
    ) -> Self {
        let runs = &auditor.cx.runs;
        let mut steps = BTreeMap::new();
        for node in &graph.nodes {
            let Some(place) = run.new.plan.position(&node.id) else {
                continue;
            };
            let state = &run.state.steps[place];
            let mut from = run.clone();
            for _ in 0..RESUMED {
                match &from.new.resumes {
                    Some(before) if from.state.steps[place].carried => {
                        let before = runs.get(scope, before).await.expect("nothing fails here");
                        from = before.expect("what is resumed is there");
                    }
                    _ => break,
                }
            }
            let stored = runs.steps(scope, &from).await.expect("nothing fails here");
            let mut items = Vec::new();
            if matches!(node.work, NodeWork::Map { .. } | NodeWork::Loop { .. }) {
                let mut cursor = None;
                loop {
                    let page = runs.items(scope, &from, place, 100, cursor).await;
                    let (page, next) = page.expect("nothing fails here");
                    for item in page {
                        let left = runs.left(scope, &from, (place, Some(item.item))).await;
                        let output = resolved(auditor, scope, &left.expect("nothing fails here").output).await;
                        items.push((item, output));
                    }
                    cursor = next;
                    if cursor.is_none() {
                        break;
                    }
                }
            }
            let left = runs
                .left(scope, &from, (place, None))
                .await
                .expect("nothing fails here");
            let output = match &node.work {
                NodeWork::Map { .. } => {
                    let outputs = runs
                        .item_outputs(scope, &from, place)
                        .await
                        .expect("nothing fails here");
                    let mut list = Vec::with_capacity(outputs.len());
                    for output in &outputs {
                        list.push(match output {
                            Some(output) => resolved(auditor, scope, output).await,
                            None => Value::Null,
                        });
                    }
                    Value::Array(list)
                }
                NodeWork::Loop { .. } => {
                    // One that was stopped amid an iteration has nothing of it.
                    let rounds = from.state.steps[place].attempts;
                    let last = items.last().filter(|(item, _)| item.item + 1 == rounds);
                    last.map_or(Value::Null, |(_, output)| output.clone())
                }
                _ => resolved(auditor, scope, &left.output).await,
            };
            let seen = Seen {
                status: state.status,
                omitted: state.omitted,
                carried: state.carried,
                attempts: from.state.steps[place].attempts,
                branch: state.branch.clone(),
                stored: stored[place].clone(),
                output,
                error: left.error,
                items,
            };
            steps.insert(node.id.as_str(), seen);
        }
        Self {
            graph,
            run,
            run_limit,
            patience,
            inputs: resolved(auditor, scope, &run.new.arguments).await,
            result: resolved(auditor, scope, &run.result).await,
            steps,
        }
    }

    /// Everything that can't be.
    pub(super) fn judged(&self, tally: &mut Tally) -> Vec<String> {
        let mut wrong = Vec::new();
        let status = self.run.state.status;
        if self.steps.len() != self.graph.nodes.len() || self.run.new.plan.steps.len() != self.graph.nodes.len() {
            return vec!["has other steps than its graph".to_owned()];
        }
        for node in &self.graph.nodes {
            let seen = &self.steps[node.id.as_str()];
            let kind = match (&node.work, node.work.called()) {
                (NodeWork::Map { .. } | NodeWork::Loop { .. }, Some(Called::Workflow(_))) => {
                    format!("{} of runs", node.work.kind())
                }
                _ => node.work.kind().to_owned(),
            };
            let end = match seen.status {
                Status::Succeeded if seen.carried => "carried",
                Status::Skipped if seen.omitted => "left out",
                other => other.as_str(),
            };
            tally.add(format!("{kind}: {end}"));
            let mut add = |what: String| wrong.push(format!("step `{}` ({kind}, {end}) {what}", node.id));
            if !seen.status.is_terminal() {
                add("has not ended with its run".to_owned());
            }
            if seen.carried {
                if self.run.new.resumes.is_none() {
                    add("was not done, and no run was resumed".to_owned());
                }
                continue;
            }
            self.turn(node, seen, &mut add);
            if status == Status::Succeeded && seen.status == Status::Cancelled {
                add("was stopped in a run that has succeeded".to_owned());
            }
            if seen.is_decided() && self.condition(node, seen, &mut add) {
                self.work(node, seen, &mut add);
            }
        }
        self.verdict(&mut wrong);
        if status == Status::Succeeded {
            self.output(&mut wrong);
        }
        wrong
    }

    // ── when a step's time comes ───────────────────────────────────────────────────────────────────────────────────────

    fn came(&self, edge: &Edge) -> bool {
        let seen = &self.steps[edge.from.as_str()];
        let continues = self
            .graph
            .nodes
            .iter()
            .any(|node| node.id == edge.from && node.on_failure == OnFailure::Continue);
        match (edge.on, &edge.branch) {
            (DependsOn::End, _) => true,
            (DependsOn::Failure, _) => seen.has_failed(),
            (DependsOn::Success, Some(_)) => seen.status == Status::Succeeded && seen.branch == edge.branch,
            (DependsOn::Success, None) => {
                seen.status == Status::Succeeded
                    || (seen.status == Status::Skipped && !seen.omitted)
                    || (seen.has_failed() && continues)
            }
        }
    }

    /// Whether the run went on beyond the time that it had at first.
    fn was_late(&self) -> bool {
        let begins = self.run.new.ask.not_before.map_or(self.run.new.created_at, |at| {
            if at > self.run.new.created_at {
                at
            } else {
                self.run.new.created_at
            }
        });
        let own = self.graph.deadline_seconds.map(Duration::from_secs_f64);
        // What a graph says of itself counts from when the run was asked for.
        let first = begins.plus(self.run_limit);
        let first = own.map_or(first, |own| first.min(self.run.new.created_at.plus(own)));
        let ended = self.run.state.finished_at.unwrap_or(first);
        ended.plus(MOST_SKEW) >= first
    }

    fn phase_of(&self, step: &str) -> Option<Phase> {
        let node = self.graph.nodes.iter().find(|node| node.id == step)?;
        Some(node.phase)
    }

    /// Whether the main phase has failed, and not what came after it.
    fn main_has_failed(&self) -> bool {
        let state = &self.run.state;
        let Some(error) = &state.error else { return false };
        matches!(state.status, Status::Failed | Status::TimedOut)
            && match &error.step {
                Some(step) => self.phase_of(step) == Some(Phase::Main),
                None => error.kind == "output_invalid" || error.kind == "time_limit",
            }
    }

    /// When the main phase had ended, at the latest.
    fn main_ended(&self) -> Option<Timestamp> {
        let later = self.graph.nodes.iter().zip(self.seen());
        let later = later.filter(|(node, _)| node.phase != Phase::Main);
        let began = later.filter_map(|(_, seen)| seen.stored.started_at).min();
        began.or(self.run.state.finished_at)
    }

    /// When the first step of the main phase failed for which nobody is there: from then on nothing begins any more.
    fn main_failed(&self) -> Option<Timestamp> {
        let failed = self.graph.nodes.iter().zip(self.seen()).filter(|(node, seen)| {
            let handled = || {
                let mut edges = self.graph.edges.iter();
                edges.any(|edge| edge.from == node.id && edge.on == DependsOn::Failure)
            };
            node.phase == Phase::Main && seen.has_failed() && node.on_failure == OnFailure::Fail && !handled()
        });
        failed.filter_map(|(_, seen)| seen.stored.finished_at).min()
    }

    fn turn(&self, node: &Node, seen: &Seen, add: &mut impl FnMut(String)) {
        let edges: Vec<&Edge> = self.graph.edges.iter().filter(|edge| edge.to == node.id).collect();
        let mut came = edges.iter().map(|edge| self.came(edge));
        let ready = match node.join {
            Join::All => came.all(|came| came),
            Join::Any => edges.is_empty() || came.any(|came| came),
        };
        let status = self.run.state.status;
        let cancelled = status == Status::Cancelled;
        if seen.is_decided() && !ready {
            add("had its turn, and what it waits for did not come".to_owned());
        }
        let excused = match node.phase {
            Phase::Main => status != Status::Succeeded,
            Phase::OnFailure => cancelled || self.was_late() || !self.main_has_failed(),
            Phase::Finally => cancelled || self.was_late(),
        };
        if !seen.is_decided() && ready && !excused {
            add(format!(
                "was left out, and everything that it waits for came; the run is {}",
                status.as_str()
            ));
        }
        if !seen.is_decided() && ready && !cancelled && self.graph.active.is_none() {
            // Then something else has ended the phase; but what may begin, begins, and does not wait for that. Since when it might
            // is known where each earlier step has an end of its own: one that was stopped or left out has none, and an edge that
            // takes any end, or a node that takes any edge, waits for it too.
            let before = || edges.iter().map(|edge| &self.steps[edge.from.as_str()]);
            let known = before().all(|before| before.carried || before.stored.finished_at.is_some());
            let ends = before().filter(|before| !before.carried);
            let since = ends.filter_map(|before| before.stored.finished_at).max();
            let ended = self.main_ended();
            let ended = ended.map(|ended| self.main_failed().map_or(ended, |failed| failed.min(ended)));
            if let (Some(since), Some(ended)) = (since, ended)
                && known
                && node.phase == Phase::Main
                && since.plus(self.patience) < ended
            {
                add(format!("could have begun since {since}, and had not at {ended}"));
            }
        }
        if seen.is_decided() && node.phase == Phase::OnFailure && status == Status::Succeeded {
            add("handles a failure that there wasn't".to_owned());
        }
        if let Some(began) = seen.stored.started_at {
            for edge in edges {
                let before = &self.steps[edge.from.as_str()];
                if before.carried {
                    continue;
                }
                if let Some(ended) = before.stored.finished_at
                    && ended > began.plus(MOST_SKEW)
                {
                    add(format!("began at {began}, and `{}` ended at {ended}", edge.from));
                }
            }
            for (other, before) in self.graph.nodes.iter().zip(self.seen()) {
                if other.phase < node.phase
                    && !before.carried
                    && let Some(ended) = before.stored.finished_at
                    && ended > began.plus(MOST_SKEW)
                {
                    let id = &other.id;
                    add(format!(
                        "began at {began}, and `{id}` of an earlier phase ended at {ended}"
                    ));
                }
            }
        }
    }

    fn seen(&self) -> impl Iterator<Item = &Seen> {
        self.graph.nodes.iter().map(|node| &self.steps[node.id.as_str()])
    }

    // ── what values say ────────────────────────────────────────────────────────────────────────────────────────────────

    fn known(&self) -> Value {
        let mut steps = Map::new();
        for (id, seen) in &self.steps {
            let step = json!({"status": seen.status, "output": seen.output, "error": seen.error});
            steps.insert((*id).to_owned(), step);
        }
        json!({"inputs": self.inputs, "steps": steps})
    }

    /// Whether it goes on with what the step does: its `when` is true, and was taken so.
    fn condition(&self, node: &Node, seen: &Seen, add: &mut impl FnMut(String)) -> bool {
        let skipped = seen.status == Status::Skipped;
        match node.when.as_ref().map(|when| truth(when, &self.known())) {
            None | Some(Some(true)) if skipped => {
                add("was skipped, and nothing says so".to_owned());
                false
            }
            Some(Some(false)) if !skipped => {
                add(format!("was not skipped, and its `when` is false: {:?}", node.when));
                false
            }
            Some(None) => {
                if !(seen.status == Status::Failed && seen.error_is("expression_failed")) {
                    add(format!("has a `when` that says nothing: {:?}", node.when));
                }
                false
            }
            _ => !skipped,
        }
    }

    fn work(&self, node: &Node, seen: &Seen, add: &mut impl FnMut(String)) {
        let known = self.known();
        let succeeded = seen.status == Status::Succeeded;
        match &node.work {
            NodeWork::Python { .. } => {
                let given = node.given().map_or_else(
                    || Some(self.inputs.clone()),
                    |inputs| filled(&Value::Object(inputs), &known),
                );
                if succeeded && Some(&seen.output["got"]) != given.as_ref() {
                    add(format!(
                        "was given {}, and should have been {given:?}",
                        seen.output["got"]
                    ));
                }
                self.tries(node, &seen.stored.attempts, None, add);
            }
            NodeWork::Workflow { .. } => {
                let given = node.given().map(|inputs| filled(&Value::Object(inputs), &known));
                if succeeded && given == Some(None) {
                    add("succeeded, and its inputs can't be worked out".to_owned());
                }
            }
            NodeWork::Map {
                items,
                on_item_failure,
                calls,
                ..
            } => {
                let by_code = matches!(calls, crate::domain::Calls::Function(_));
                self.map(node, seen, filled(items, &known), *on_item_failure, by_code, add);
            }
            NodeWork::Loop { until, most, .. } => self.rounds(seen, until, *most, add),
            NodeWork::Choose { branches, otherwise } => {
                let mut taken = Some(otherwise.clone());
                for branch in branches {
                    match truth(&branch.when, &known) {
                        Some(false) => {}
                        Some(true) => {
                            taken = Some(Some(branch.name.clone()));
                            break;
                        }
                        None => {
                            taken = None;
                            break;
                        }
                    }
                }
                match taken {
                    Some(taken) if !succeeded || seen.branch != taken => {
                        add(format!("took {:?}, and should have taken {taken:?}", seen.branch));
                    }
                    None if succeeded => add(format!("took {:?}, and no branch can be told", seen.branch)),
                    _ => {}
                }
            }
            // Made by the engine's own functions in a worker: what they give is for other tests.
            NodeWork::Shell { .. } | NodeWork::Http { .. } | NodeWork::Email { .. } | NodeWork::File { .. } => {
                self.tries(node, &seen.stored.attempts, None, add);
            }
            NodeWork::Assert {
                condition, on_false, ..
            } => match truth(condition, &known) {
                Some(true) if !succeeded => add(format!("failed, and `{condition}` is so")),
                Some(false) if succeeded == (*on_false == OnFalse::Fail) => {
                    add(format!("is {:?}, and `{condition}` is not so", seen.status));
                }
                None if succeeded => add("asserted what can't be told".to_owned()),
                _ => {}
            },
            NodeWork::Template { template } => match filled(&json!({ TEXT_MARK: template }), &known) {
                Some(text) if !succeeded || seen.output != text => {
                    add(format!("wrote {}, and should have written {text}", seen.output));
                }
                None if succeeded => add("wrote what can't be".to_owned()),
                _ => {}
            },
            NodeWork::Compute { value } => match filled(value, &known) {
                Some(value) if !succeeded || seen.output != value => {
                    add(format!("worked out {}, and should have {value}", seen.output));
                }
                None if succeeded => add("worked out what can't be".to_owned()),
                _ => {}
            },
            NodeWork::Delay { seconds } => {
                let seconds = filled(seconds, &known).and_then(|seconds| seconds.as_f64());
                if let (true, Some(seconds), Some(lasted)) = (succeeded, seconds, lasted(seen))
                    && lasted + MOST_SKEW < Duration::from_secs_f64(seconds)
                {
                    add(format!("paused for {lasted:?} and not for {seconds} s"));
                }
            }
            NodeWork::Approval { needed, .. } => {
                let decisions = seen.output["decisions"].as_array().cloned().unwrap_or_default();
                let agreed = decisions.iter().filter(|one| one["approved"] == true).count();
                if succeeded && (agreed < *needed as usize || agreed != decisions.len()) {
                    add(format!("goes on after {}, and needs {needed}", seen.output));
                }
                if seen.status == Status::Failed && agreed == decisions.len() {
                    add(format!("was refused by nobody: {} {}", seen.output, seen.error));
                }
            }
            // None is drawn: the simulated storage has no library.
            NodeWork::Library { .. } => add("uses a node type, and none was drawn".to_owned()),
        }
    }

    /// Attempts beyond those that a retry policy allows are those whose end nobody saw.
    fn tries(&self, node: &Node, attempts: &[AttemptRecord], item: Option<u32>, add: &mut impl FnMut(String)) {
        let place = self.run.new.plan.position(&node.id).unwrap_or_default();
        let most = self.run.new.plan.steps[place].retry.attempts.max(1);
        let seen = attempts
            .iter()
            .filter(|attempt| attempt.error.as_ref().is_some_and(|error| error.kind != "crashed"))
            .count();
        let succeeded = attempts.iter().filter(|attempt| attempt.outcome == "succeeded").count();
        if seen > most as usize || succeeded > 1 {
            add(format!(
                "failed {seen} times and succeeded {succeeded} times ({item:?}), with {most} attempts"
            ));
        }
        let mut numbers: Vec<u32> = attempts.iter().map(|attempt| attempt.number).collect();
        numbers.dedup();
        if numbers.len() != attempts.len() || !numbers.is_sorted() {
            add(format!("has attempts with the numbers {numbers:?} ({item:?})"));
        }
    }

    fn map(
        &self,
        node: &Node,
        seen: &Seen,
        list: Option<Value>,
        failure: ItemFailure,
        by_code: bool,
        add: &mut impl FnMut(String),
    ) {
        let succeeded = seen.status == Status::Succeeded;
        let Some(list) = list.as_ref().and_then(Value::as_array) else {
            if seen.status != Status::Failed {
                add("goes over a list that there isn't".to_owned());
            }
            return;
        };
        let failed = seen
            .items
            .iter()
            .filter(|(item, _)| matches!(item.status, Status::Failed | Status::TimedOut))
            .count();
        let done = seen
            .items
            .iter()
            .filter(|(item, _)| item.status == Status::Succeeded)
            .count();
        let bears = match failure {
            ItemFailure::Fail => failed == 0,
            ItemFailure::Continue => true,
            ItemFailure::AtMost(most) => failed <= most as usize,
        };
        if succeeded && (!bears || failed + done != list.len()) {
            add(format!(
                "succeeded with {done} items done and {failed} failed of {}, and bears {failure:?}",
                list.len()
            ));
        }
        if seen.status == Status::Failed && bears {
            add(format!("failed, and bears {failed} failures: {}", seen.error));
        }
        if succeeded && seen.output.as_array().map(Vec::len) != Some(list.len()) {
            add(format!("left {} of {} items", seen.output, list.len()));
        }
        for (item, output) in &seen.items {
            let place = item.item as usize;
            if place >= list.len() {
                add(format!("did item {place} of {}", list.len()));
                continue;
            }
            if by_code {
                self.tries(node, &item.attempts, Some(item.item), add);
            }
            if item.status != Status::Succeeded || !by_code {
                continue;
            }
            let mut known = self.known();
            known["item"] = list[place].clone();
            known["index"] = json!(place);
            let given = node
                .inputs
                .clone()
                .and_then(|inputs| filled(&Value::Object(inputs), &known));
            if Some(&output["got"]) != given.as_ref() {
                let got = &output["got"];
                add(format!("gave item {place} {got}, and should have {given:?}"));
            }
            if succeeded && seen.output[place] != *output {
                add(format!("has something else in place {place} than what its item left"));
            }
        }
    }

    fn rounds(&self, seen: &Seen, until: &str, most: u32, add: &mut impl FnMut(String)) {
        let count = seen.items.len();
        if seen.attempts > most {
            add(format!("went round {} times, at most {most}", seen.attempts));
        }
        for (place, (item, output)) in seen.items.iter().enumerate() {
            if item.item as usize != place {
                add(format!("left out a round before {}", item.item));
            }
            if item.status != Status::Succeeded {
                continue;
            }
            let is_last = place + 1 == count;
            let ends = truth(until, &json!({"iteration": place, "output": output}));
            match ends {
                Some(true) if !is_last => add(format!("went on after round {place}, which ends it")),
                Some(false) if is_last && seen.status == Status::Succeeded => {
                    add(format!("ended after round {place}, which doesn't end it"));
                }
                Some(true) if is_last && seen.status == Status::Failed && !seen.error_is("time_limit") => {
                    add(format!("failed after its last round: {}", seen.error));
                }
                Some(false) if seen.error_is("loop_limit") && is_last && place + 1 != most as usize => {
                    add(format!("has reached its limit of {most} after {count} rounds"));
                }
                _ => {}
            }
        }
        if seen.status == Status::Succeeded && seen.items.iter().any(|(item, _)| item.status != Status::Succeeded) {
            add("succeeded, and a round has not".to_owned());
        }
    }

    // ── the run ────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Whether somebody has handled the failure of a step.
    fn is_handled(&self, node: &Node) -> bool {
        self.graph.edges.iter().any(|edge| {
            edge.from == node.id
                && edge.on == DependsOn::Failure
                && self.phase_of(&edge.to) == Some(node.phase)
                && self.steps[edge.to.as_str()].status != Status::Skipped
        })
    }

    fn verdict(&self, wrong: &mut Vec<String>) {
        let state = &self.run.state;
        let counts: Vec<&Node> = self
            .graph
            .nodes
            .iter()
            .filter(|node| {
                let seen = &self.steps[node.id.as_str()];
                seen.has_failed() && node.on_failure == OnFailure::Fail && !self.is_handled(node)
            })
            .collect();
        let named: Vec<&str> = counts.iter().map(|node| node.id.as_str()).collect();
        match state.status {
            Status::Succeeded if !named.is_empty() => wrong.push(format!("succeeded, and {named:?} failed")),
            Status::Failed | Status::TimedOut => {
                let Some(error) = &state.error else {
                    wrong.push("failed without a reason".to_owned());
                    return;
                };
                match &error.step {
                    Some(step) => {
                        let is = self.steps.get(step.as_str()).map(|seen| seen.status);
                        if !named.contains(&step.as_str()) || is != Some(state.status) {
                            wrong.push(format!(
                                "ended as {} for `{step}`, which is {is:?}; {named:?} count",
                                state.status.as_str()
                            ));
                        }
                    }
                    None => match error.kind.as_str() {
                        "time_limit" if state.status == Status::TimedOut => {
                            if !self.was_late() {
                                wrong.push(format!("timed out before its time: {error:?}"));
                            }
                        }
                        "output_invalid" if state.status == Status::Failed => {
                            let result = self.graph.output.as_ref();
                            if result.is_some_and(|result| filled(result, &self.known()).is_some()) {
                                wrong.push(format!("has a result that can be worked out: {error:?}"));
                            }
                        }
                        _ => wrong.push(format!("failed for a reason that there isn't: {error:?}")),
                    },
                }
            }
            _ => {}
        }
    }

    fn output(&self, wrong: &mut Vec<String>) {
        let main = |node: &&Node| node.phase == Phase::Main;
        let ends: Vec<&Node> = self
            .graph
            .nodes
            .iter()
            .filter(main)
            .filter(|node| !self.graph.edges.iter().any(|edge| edge.from == node.id))
            .collect();
        let expected = match (&self.graph.output, ends.as_slice()) {
            (Some(output), _) => filled(output, &self.known()),
            (None, [only]) => Some(self.steps[only.id.as_str()].output.clone()),
            (None, _) => Some(Value::Null),
        };
        if expected.as_ref() != Some(&self.result) {
            let result: String = self.result.to_string().chars().take(300).collect();
            let expected: String = format!("{expected:?}").chars().take(300).collect();
            wrong.push(format!("has the result {result}, and should have {expected}"));
        }
    }
}

async fn resolved(auditor: &Process, scope: &Scope, payload: &Payload) -> Value {
    let value = auditor.cx.runs.resolve(scope, payload).await;
    value.expect("nothing fails here")
}

fn lasted(seen: &Seen) -> Option<Duration> {
    let (began, ended): (Timestamp, Timestamp) = (seen.stored.started_at?, seen.stored.finished_at?);
    Some(ended.since(began))
}

/// What a path of names leads to.
fn looked(path: &str, known: &Value) -> Option<Value> {
    path.split('.').try_fold(known, |at, name| at.get(name)).cloned()
}

/// Whether a condition holds, of those that are drawn; none when it looks at what isn't there.
fn truth(text: &str, known: &Value) -> Option<bool> {
    if let Some((path, least)) = text.split_once(" >= ") {
        return Some(looked(path, known)?.as_f64()? >= least.parse().ok()?);
    }
    if let Some((path, word)) = text.split_once(" == ") {
        return Some(looked(path, known)?.as_str()? == word.trim_matches('\''));
    }
    looked(text, known)?.as_bool()
}

/// A value with what its expressions give, of those that are drawn; none when one looks at what isn't there.
fn filled(value: &Value, known: &Value) -> Option<Value> {
    match value {
        Value::Object(members) => match (members.len(), members.get("$").and_then(Value::as_str)) {
            (1, Some(path)) => looked(path, known),
            _ => members
                .iter()
                .map(|(name, value)| Some((name.clone(), filled(value, known)?)))
                .collect::<Option<Map<_, _>>>()
                .map(Value::Object),
        },
        Value::Array(items) => items
            .iter()
            .map(|item| filled(item, known))
            .collect::<Option<Vec<_>>>()
            .map(Value::Array),
        other => Some(other.clone()),
    }
}
