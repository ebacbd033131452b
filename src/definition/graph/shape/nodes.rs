//! The nodes of a graph: what all kinds have in common, and which members each kind has besides. Kinds with more to look at
//! than a member or two have files of their own.

use std::collections::HashSet;

use serde_json::Value;

use super::members::{Object, Reader};
use super::{MAX_TAGS, email, file, http, is_id, repeated, shell};
use crate::definition::expression;
use crate::definition::graph::{listed, shown};
use crate::definition::parameters::nearest;
use crate::domain::{
    DEFAULT_WITHIN_SECONDS, FARTHEST, MAX_NEEDED, MAX_NODES, MAX_STEP_SECONDS, Node, NodeWork, Position, RetryPolicy,
};

const COMMON: [&str; 8] = ["id", "type", "label", "position", "when", "phase", "join", "onFailure"];
/// Of nodes that try something.
const ACTION: [&str; 5] = ["inputs", "retry", "onCrash", "timeoutSeconds", "cacheSeconds"];
/// Node types, with the members that are theirs alone, and whether they try something.
pub(in crate::definition) const TYPES: [(&str, &[&str], bool); 15] = [
    ("python", &["use"], true),
    ("node", &["use", "settings"], true),
    ("workflow", &["workflow"], true),
    ("map", repeated::MAP, true),
    ("loop", repeated::LOOP, true),
    ("shell", shell::MEMBERS, true),
    ("http", http::MEMBERS, true),
    ("email", email::MEMBERS, true),
    ("file", file::MEMBERS, true),
    ("assert", &["condition", "message", "onFalse"], false),
    ("template", &["template"], false),
    ("choose", &["branches", "otherwise"], false),
    ("compute", &["value"], false),
    ("delay", &["seconds"], false),
    ("approval", &["needed", "withinSeconds", "question"], false),
];

const RETRY: [&str; 6] = [
    "attempts",
    "delay_seconds",
    "backoff",
    "max_delay_seconds",
    "jitter",
    "retry_on",
];

impl Reader {
    pub(super) fn nodes(&mut self, whole: &Object<'_>) -> (Vec<Node>, Vec<String>) {
        let items = self.list(whole, "nodes", MAX_NODES, "nodes");
        if items.is_empty() && !self.findings.iter().any(|finding| finding.pointer == "/nodes") {
            let hint = "write at least one node: `{\"id\": \"fetch\", \"type\": \"python\", \"use\": \"fetch_order\"}`";
            self.add("/nodes", "empty_graph", "the graph has no nodes".to_owned(), hint);
        }
        let mut seen = HashSet::new();
        let (mut nodes, mut pointers) = (Vec::with_capacity(items.len()), Vec::with_capacity(items.len()));
        let ids: HashSet<&str> = items.iter().filter_map(|item| item.get("id")?.as_str()).collect();
        for (index, value) in items.iter().enumerate() {
            let number = index.to_string();
            let by_place = if ids.contains(number.as_str()) {
                format!("/nodes/[{number}]")
            } else {
                format!("/nodes/{number}")
            };
            let text = value.get("id").and_then(Value::as_str);
            let id = text.filter(|id| is_id(id));
            let is_new = id.is_some_and(|id| seen.insert(id));
            let at = match id.filter(|_| is_new) {
                Some(id) => format!("/nodes/{id}"),
                None => by_place,
            };
            let what = match text {
                Some(id) => format!("node `{}`", shown(id)),
                None => format!("node {index}"),
            };
            let hint = "write `{\"id\": \"fetch\", \"type\": \"python\", \"use\": \"fetch_order\"}`";
            let Some(object) = self.object(at, what, value, hint) else {
                continue;
            };
            let written = self.needed_text(&object, "id", "an id, by which edges and expressions name it");
            if id.is_none() && text.is_some() {
                self.add(
                    object.pointer("id"),
                    "bad_id",
                    format!("`{}` can't be the id of a node", shown(&written)),
                    "write 1 to 63 lower-case letters, digits, `_` and `-`",
                );
            } else if id.is_some() && !is_new {
                let hint = "give each node an id of its own";
                self.add(
                    object.pointer("id"),
                    "duplicate_id",
                    format!("there are two nodes `{written}`"),
                    hint,
                );
            }
            nodes.push(self.node(written, &object));
            pointers.push(object.at);
        }
        (nodes, pointers)
    }

    fn node(&mut self, id: String, object: &Object<'_>) -> Node {
        let written = self.needed_text(object, "type", "a type");
        let kind = TYPES.iter().find(|(name, ..)| *name == written);
        let Some((_, own, tries)) = kind else {
            if !written.is_empty() {
                let names = || TYPES.iter().map(|(name, ..)| *name);
                let hint = match nearest(&written, names()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there is {}", listed(names())),
                };
                let message = format!("{} is of type `{}`, which there isn't", object.what, shown(&written));
                self.add(object.pointer("type"), "unknown_node_type", message, hint);
            }
            return Node::new(id, NodeWork::Compute { value: Value::Null });
        };
        let has_inputs = *tries && !matches!(written.as_str(), "shell" | "http" | "email" | "file");
        let action: &[&str] = match (*tries, has_inputs) {
            (true, true) => &ACTION,
            (true, false) => &ACTION[1..],
            _ => &[],
        };
        let known: Vec<&str> = COMMON.iter().chain(*own).chain(action).copied().collect();
        self.known(object, &known);
        let mut node = Node::new(id, self.work(&written, object));
        node.label = self.label(object);
        node.position = self
            .two(object, "position", ["x", "y"], -FARTHEST)
            .map(|[x, y]| Position { x, y });
        node.when = self.text(object, "when");
        node.phase = self
            .choice(object, "phase", &["main", "on_failure", "finally"])
            .unwrap_or_default();
        node.join = self.choice(object, "join", &["all", "any"]).unwrap_or_default();
        node.on_failure = self
            .choice(object, "onFailure", &["fail", "continue"])
            .unwrap_or_default();
        if has_inputs {
            node.inputs = match object.get("inputs") {
                None => None,
                Some(Value::Object(inputs)) if expression::marked(&Value::Object(inputs.clone())).is_none() => {
                    Some(inputs.clone())
                }
                Some(_) => {
                    self.wrong_type(object, "inputs", "an object of values by parameter");
                    None
                }
            };
        }
        if *tries {
            node.retry = self.retry(object);
            node.on_crash = self.choice(object, "onCrash", &["retry", "fail"]);
            node.timeout_seconds = self.seconds(object, "timeoutSeconds", 0.001, f64::from(MAX_STEP_SECONDS));
            node.cache_seconds = self.number(object, "cacheSeconds", 0..=u64::from(MAX_STEP_SECONDS));
        }
        node
    }

    fn work(&mut self, kind: &str, object: &Object<'_>) -> NodeWork {
        match kind {
            "python" => NodeWork::Python {
                function: self.needed_text(object, "use", "the name of a function with `@workflow` or `@node`"),
            },
            "node" => NodeWork::Library {
                node_type: self.needed_text(object, "use", "a node type with its version, as `shout@1.2.0`"),
                settings: self.values(object, "settings"),
            },
            "workflow" => NodeWork::Workflow {
                workflow: self.needed_text(object, "workflow", "the name of a workflow"),
            },
            "map" => self.map(object),
            "loop" => self.repeat(object),
            "shell" => self.shell(object),
            "http" => self.http(object),
            "email" => self.email(object),
            "file" => self.file(object),
            "assert" => NodeWork::Assert {
                condition: self.needed_text(object, "condition", "an expression that must be true"),
                message: object.get("message").cloned().unwrap_or_default(),
                on_false: self
                    .choice(object, "onFalse", &["fail", "warn", "continue"])
                    .unwrap_or_default(),
            },
            "template" => {
                let template = self.needed_value(object, "template", "a text with `{{ expressions }}` in it");
                if !template.is_string() && object.members.contains_key("template") {
                    self.wrong_type(object, "template", "a text");
                }
                NodeWork::Template {
                    template: template.as_str().unwrap_or_default().to_owned(),
                }
            }
            "choose" => self.choose(object),
            "compute" => NodeWork::Compute {
                value: self.needed_value(object, "value", "a value with expressions in it"),
            },
            "delay" => self.delay(object),
            _ => NodeWork::Approval {
                needed: self.number(object, "needed", 1..=u64::from(MAX_NEEDED)).unwrap_or(1),
                within_seconds: self
                    .seconds(object, "withinSeconds", 1.0, f64::from(MAX_STEP_SECONDS))
                    .unwrap_or_else(|| f64::from(DEFAULT_WITHIN_SECONDS)),
                question: self.needed_value(object, "question", "what people are asked"),
            },
        }
    }

    fn delay(&mut self, object: &Object<'_>) -> NodeWork {
        let seconds = self.needed_value(
            object,
            "seconds",
            "a number of seconds, or an expression that gives one",
        );
        let is_there = object.members.contains_key("seconds") && !self.is_fed(object, "seconds");
        if is_there && expression::marked(&seconds).is_none() {
            if seconds.is_null() {
                self.wrong_type(object, "seconds", "a number");
            }
            self.seconds(object, "seconds", 0.0, f64::from(MAX_STEP_SECONDS));
        }
        NodeWork::Delay { seconds }
    }

    fn retry(&mut self, object: &Object<'_>) -> Option<RetryPolicy> {
        let value = object.get("retry")?;
        let Value::Object(members) = value else {
            self.wrong_type(object, "retry", "an object, as `{\"attempts\": 3}`");
            return None;
        };
        let retry = object.inner("retry", members);
        self.known(&retry, &RETRY);
        let default = RetryPolicy::default();
        Some(RetryPolicy {
            attempts: self.number(&retry, "attempts", 1..=100).unwrap_or(default.attempts),
            delay_seconds: self
                .seconds(&retry, "delay_seconds", 0.0, 86_400.0)
                .unwrap_or(default.delay_seconds),
            backoff: self
                .choice(&retry, "backoff", &["fixed", "linear", "exponential"])
                .unwrap_or_default(),
            max_delay_seconds: self
                .seconds(&retry, "max_delay_seconds", 0.0, 86_400.0)
                .unwrap_or(default.max_delay_seconds),
            jitter: self.seconds(&retry, "jitter", 0.0, 1.0).unwrap_or(default.jitter),
            retry_on: self.texts(&retry, "retry_on", MAX_TAGS).unwrap_or_default(),
        })
    }
}
