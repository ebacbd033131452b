//! Steps → nodes: lists of them, with those that handle failures, and the members that each type has.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Reader;
use crate::definition::parameters::nearest;
use crate::definition::yaml::compose::{Kind, Tree};
use crate::definition::yaml::step_types::{As, CONDITIONAL, TYPES};
use crate::domain::MAX_NODES;

const COMMON: [&str; 8] = [
    "id",
    "type",
    "label",
    "position",
    "depends_on",
    "when",
    "join",
    "on_failure",
];
const TRIES: [&str; 4] = ["retry", "on_crash", "timeout", "cache"];
const RETRY: [(&str, &str); 6] = [
    ("attempts", "attempts"),
    ("delay", "delay_seconds"),
    ("backoff", "backoff"),
    ("max_delay", "max_delay_seconds"),
    ("jitter", "jitter"),
    ("on", "retry_on"),
];

/// Members of steps of which one is meant.
const SAME: &[(&str, &str)] = &[
    ("use", "function"),
    ("inputs", "with"),
    ("seconds", "duration"),
    ("question", "message"),
    ("then", "then_steps"),
    ("else", "else_steps"),
    ("branches", "condition"),
    ("branches", "then"),
    ("branches", "then_steps"),
    ("branches", "else"),
    ("branches", "else_steps"),
    ("otherwise", "condition"),
];

impl Reader {
    /// Translates a list of steps; the ids of those that nothing in the list follows. `first` is what those begin after that wait
    /// for nothing.
    pub(super) fn steps(&mut self, steps: &Tree, first: Option<&Value>, phase: &str) -> Vec<String> {
        let Kind::List(items) = &steps.kind else {
            if !steps.is_null() {
                self.wrong(
                    steps.place,
                    "wrong_type",
                    "steps are a list",
                    "write each step below a `- `",
                );
            }
            return Vec::new();
        };
        let known: BTreeSet<&str> = items.iter().filter_map(|item| item.get("id")?.text()).collect();
        let mut ids: Vec<String> = Vec::new();
        for item in items {
            // What is beyond is not read: that there are too many is a finding.
            if self.nodes.len() > MAX_NODES {
                break;
            }
            if !matches!(item.kind, Kind::Map(_)) {
                self.wrong(
                    item.place,
                    "wrong_type",
                    "a step must be names with values",
                    "write `- id: fetch` and its type below it",
                );
                continue;
            }
            ids.push(self.step(item, first.map(|edge| (edge, &known)), phase));
        }
        let followed: BTreeSet<&str> = self
            .edges
            .iter()
            .filter(|edge| edge["to"].as_str().is_some_and(|to| known.contains(to)))
            .filter_map(|edge| edge["from"].as_str())
            .collect();
        ids.into_iter().filter(|id| !followed.contains(id.as_str())).collect()
    }

    fn step(&mut self, tree: &Tree, first: Option<(&Value, &BTreeSet<&str>)>, phase: &str) -> String {
        let index = self.nodes.len();
        let id = tree.get("id").and_then(Tree::text).unwrap_or_default().to_owned();
        let (by_id, by_place) = (format!("/nodes/{id}"), format!("/nodes/[{index}]"));
        let mut node = Map::new();
        let what = if id.is_empty() {
            format!("step {}", index + 1)
        } else {
            format!("step `{id:.63}`")
        };
        self.places.entry(by_id.clone()).or_insert(tree.place);
        self.places.insert(by_place.clone(), tree.place);
        let written = tree.get("type").and_then(Tree::text).unwrap_or_default().to_owned();
        let kind = TYPES.iter().find(|(name, ..)| *name == written);
        if let Some(id) = tree.get("id") {
            self.put(&mut node, &by_id, "id", id, As::Command);
            self.places.insert(format!("{by_place}/id"), id.place);
        }
        let Some((_, json_type, tries, takes_inputs, own)) = kind else {
            let place = tree.get("type").map_or(tree.place, |tree| tree.place);
            let names = || TYPES.iter().map(|(name, ..)| *name);
            if written.is_empty() {
                self.wrong(
                    place,
                    "missing_member",
                    format!("{what} needs `type`"),
                    format!(
                        "there is {}",
                        names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
                    ),
                );
            } else {
                let hint = match nearest(&written, names()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!(
                        "there is {}",
                        names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
                    ),
                };
                self.wrong(
                    place,
                    "unknown_node_type",
                    format!("{what} is of type `{written:.60}`, which there isn't"),
                    hint,
                );
            }
            // Others may wait for it.
            node.insert("type".to_owned(), json!("compute"));
            node.insert("value".to_owned(), Value::Null);
            self.nodes.push(Value::Object(node));
            return id;
        };
        let is_conditional = written == "conditional";
        let mut known: Vec<&str> = COMMON.to_vec();
        known.extend(own.iter().map(|(name, ..)| *name));
        if *tries {
            known.extend(TRIES);
        }
        if *takes_inputs {
            known.extend(["inputs", "with"]);
        }
        if is_conditional {
            known.extend(CONDITIONAL);
        }
        self.unknown(&what, tree, &known);
        for (one, other) in SAME {
            if known.contains(one) && known.contains(other) {
                self.once(&what, tree, &[(one, other)]);
            }
        }
        node.insert("type".to_owned(), json!(json_type));
        if let Some(kind) = tree.get("type") {
            self.places.insert(format!("{by_id}/type"), kind.place);
        }
        for (name, into, how) in *own {
            if let Some(member) = tree.get(name) {
                self.put(&mut node, &by_id, into, member, *how);
            }
        }
        for (name, into, how) in [
            ("label", "label", As::Command),
            ("position", "position", As::Plain),
            ("when", "when", As::Expression),
            ("join", "join", As::Plain),
            ("on_crash", "onCrash", As::Plain),
            ("timeout", "timeoutSeconds", As::Seconds),
        ] {
            if let Some(member) = tree.get(name).filter(|_| known.contains(&name)) {
                self.put(&mut node, &by_id, into, member, how);
            }
        }
        for name in ["inputs", "with"] {
            if let Some(member) = tree.get(name).filter(|_| *takes_inputs) {
                self.put(&mut node, &by_id, "inputs", member, As::Value);
            }
        }
        if *tries {
            self.retry(tree, &what, &by_id, &mut node);
            self.cache(tree, &by_id, &mut node);
        }
        if written == "shell" && !self.environment.is_empty() {
            let own = node
                .get("environment")
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default();
            let mut variables = self.environment.clone();
            variables.extend(own);
            node.insert("environment".to_owned(), Value::Object(variables));
        }
        if phase != "main" {
            node.insert("phase".to_owned(), json!(phase));
        }
        let handlers = self.on_failure(tree, &written, &by_id, &mut node);
        self.waits(tree, &id, first);
        if is_conditional {
            self.choose(tree, &what, &by_id, &mut node);
        }
        self.nodes.push(Value::Object(node));
        if is_conditional {
            self.branches(tree, &id, phase);
        }
        if let Some(handlers) = handlers {
            let edge = json!({"from": id, "on": "failure"});
            self.within.push(id.clone());
            self.steps(handlers, Some(&edge), phase);
            self.within.pop();
        }
        id
    }

    fn retry(&mut self, tree: &Tree, what: &str, at: &str, node: &mut Map<String, Value>) {
        let Some(retry) = tree.get("retry") else { return };
        let pointer = format!("{at}/retry");
        self.places.insert(pointer.clone(), retry.place);
        if !matches!(retry.kind, Kind::Map(_)) {
            self.wrong(
                retry.place,
                "wrong_type",
                format!("`retry` of {what} must be names with values"),
                "write `retry: {attempts: 3, delay: 5}`",
            );
            return;
        }
        self.unknown(&format!("`retry` of {what}"), retry, &RETRY.map(|(name, _)| name));
        let mut policy = Map::new();
        for (name, into) in RETRY {
            if let Some(member) = retry.get(name) {
                let how = if into.ends_with("_seconds") {
                    As::Seconds
                } else {
                    As::Plain
                };
                self.put(&mut policy, &pointer, into, member, how);
            }
        }
        node.insert("retry".to_owned(), Value::Object(policy));
    }

    fn cache(&mut self, tree: &Tree, at: &str, node: &mut Map<String, Value>) {
        let Some(cache) = tree.get("cache") else { return };
        let ttl = cache.get("ttl").unwrap_or(cache);
        match ttl.scalar() {
            Some(Value::Bool(true)) => drop(node.insert("cacheSeconds".to_owned(), json!(3_600))),
            Some(Value::Bool(false) | Value::Null) => {}
            _ => {
                self.put(node, at, "cacheSeconds", ttl, As::Seconds);
                // Whole seconds.
                if let Some(seconds) = node.get("cacheSeconds").and_then(Value::as_f64)
                    && seconds.fract() == 0.0
                    && seconds >= 0.0
                {
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "what is beyond is out of range there too"
                    )]
                    node.insert("cacheSeconds".to_owned(), json!(seconds as u64));
                }
            }
        }
    }

    /// `on_failure` of a step: a word, or the steps that handle it.
    fn on_failure<'a>(
        &mut self,
        tree: &'a Tree,
        kind: &str,
        at: &str,
        node: &mut Map<String, Value>,
    ) -> Option<&'a Tree> {
        let found = tree.get("on_failure")?;
        if matches!(found.kind, Kind::List(_)) {
            return Some(found);
        }
        if kind == "assert" {
            let text = found.text().unwrap_or_default();
            self.places.insert(format!("{at}/onFalse"), found.place);
            node.insert("onFalse".to_owned(), json!(text));
            return None;
        }
        self.put(node, at, "onFailure", found, As::Plain);
        None
    }
}
