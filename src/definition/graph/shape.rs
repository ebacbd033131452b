//! The members of a graph file: which there are, and of which types. What can't be read is left out, so that the rest is still
//! checked.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{ReadGraph, escaped, is_full, listed, shown};
use crate::definition::expression::{self, Marked, SECRET_MARK};
use crate::definition::parameters::{compile, nearest, validate};
use crate::definition::shell::{decides_what_runs, script};
use crate::domain::{
    Branch, Calls, DEFAULT_AT_ONCE, DEFAULT_WITHIN_SECONDS, Edge, FARTHEST, FileAction, FileFormat, Graph, ItemFailure,
    MAX_ACTIVE, MAX_EDGES, MAX_ITEMS, MAX_ITERATIONS, MAX_LABEL, MAX_NEEDED, MAX_NODES, MAX_NOTES, MAX_RUN_SECONDS,
    MAX_STEP_SECONDS, MESSAGE, Node, NodeWork, Note, Parameter, ParameterType, PortType, Position, RetryPolicy,
    SecretName, SecurityProfile, Size,
};
use crate::error::Finding;

const GRAPH: [&str; 13] = [
    "name",
    "description",
    "category",
    "tags",
    "parameters",
    "nodes",
    "edges",
    "output",
    "active",
    "deadlineSeconds",
    "securityProfile",
    "version",
    "notes",
];
const COMMON: [&str; 8] = ["id", "type", "label", "position", "when", "phase", "join", "onFailure"];
/// Of nodes that try something.
const ACTION: [&str; 5] = ["inputs", "retry", "onCrash", "timeoutSeconds", "cacheSeconds"];
/// Node types, with the members that are theirs alone, and whether they try something.
pub(in crate::definition) const TYPES: [(&str, &[&str], bool); 15] = [
    ("python", &["use"], true),
    ("node", &["use", "settings"], true),
    ("workflow", &["workflow"], true),
    (
        "map",
        &["use", "workflow", "settings", "items", "atOnce", "onItemFailure"],
        true,
    ),
    ("loop", &["use", "workflow", "settings", "until", "most"], true),
    (
        "shell",
        &[
            "command",
            "environment",
            "workingDirectory",
            "captureOutput",
            "expect",
            "network",
        ],
        true,
    ),
    (
        "http",
        &["method", "url", "query", "headers", "body", "expect", "network"],
        true,
    ),
    (
        "email",
        &[
            "server",
            "security",
            "credentials",
            "from",
            "replyTo",
            "to",
            "cc",
            "bcc",
            "subject",
            "text",
            "html",
            "attachments",
        ],
        true,
    ),
    (
        "file",
        &[
            "action",
            "format",
            "content",
            "name",
            "mediaType",
            "store",
            "file",
            "header",
            "delimiter",
        ],
        true,
    ),
    ("assert", &["condition", "message", "onFalse"], false),
    ("template", &["template"], false),
    ("choose", &["branches", "otherwise"], false),
    ("compute", &["value"], false),
    ("delay", &["seconds"], false),
    ("approval", &["needed", "withinSeconds", "question"], false),
];
const PARAMETER: [&str; 15] = [
    "name",
    "type",
    "label",
    "required",
    "default",
    "has_default",
    "help",
    "min",
    "max",
    "min_length",
    "max_length",
    "pattern",
    "enum",
    "data_provider",
    "options",
];
const RETRY: [&str; 6] = [
    "attempts",
    "delay_seconds",
    "backoff",
    "max_delay_seconds",
    "jitter",
    "retry_on",
];
const LONGEST_TEXT: usize = 4_000;
const MAX_TAGS: usize = 50;
const MAX_BRANCHES: usize = 100;
const MAX_PARAMETERS: usize = 200;

pub(super) fn read(value: &Value) -> ReadGraph {
    let mut reader = Reader {
        findings: Vec::new(),
        fed: fed(value),
    };
    let Value::Object(members) = value else {
        reader.add(
            "",
            "not_an_object",
            "the file is JSON, and not an object".to_owned(),
            "write a graph as `{\"name\": …, \"nodes\": […], \"edges\": […]}`; data files belong outside of `workflows`",
        );
        return ReadGraph {
            findings: reader.findings,
            ..ReadGraph::default()
        };
    };
    let whole = Object {
        at: "",
        what: "a graph",
        members,
    };
    reader.known(&whole, &GRAPH);
    let name = reader.name(&whole);
    let (nodes, at) = reader.nodes(&whole);
    let graph = Graph {
        name,
        version: reader.text(&whole, "version"),
        description: reader.text(&whole, "description").unwrap_or_default(),
        category: reader.text(&whole, "category").unwrap_or_else(|| "General".to_owned()),
        tags: reader.texts(&whole, "tags", MAX_TAGS).unwrap_or_default(),
        parameters: reader.parameters(&whole),
        nodes,
        edges: reader.edges(&whole),
        output: whole.get("output").cloned(),
        active: reader.number(&whole, "active", 1..=u64::from(MAX_ACTIVE)),
        deadline_seconds: reader.seconds(&whole, "deadlineSeconds", 1.0, f64::from(MAX_RUN_SECONDS)),
        security_profile: reader.choice(
            &whole,
            "securityProfile",
            &SecurityProfile::ALL.map(SecurityProfile::as_str),
        ),
        notes: reader.notes(&whole),
    };
    ReadGraph {
        graph,
        findings: reader.findings,
        at,
    }
}

/// The inputs that data edges feed, each with its node's id: their members need not be there.
fn fed(whole: &Value) -> HashSet<(String, String)> {
    let edges = whole.get("edges").and_then(Value::as_array).into_iter().flatten();
    let text = |edge: &Value, name: &str| edge.get(name).and_then(Value::as_str).map(str::to_owned);
    edges
        .filter_map(|edge| Some((text(edge, "to")?, text(edge, "input")?)))
        .collect()
}

/// Whether a text can be the id of a node, or the name of a branch.
fn is_id(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-'))
}

/// Whether a text can be the name of a workflow.
pub(in crate::definition) fn is_name(text: &str) -> bool {
    is_id(text) && text.starts_with(|c: char| c.is_ascii_lowercase())
}

/// An object of the file, with its pointer and what it is.
struct Object<'a> {
    at: &'a str,
    what: &'a str,
    members: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    /// A member; null is as good as none.
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.members.get(name).filter(|value| !value.is_null())
    }

    fn pointer(&self, name: &str) -> String {
        format!("{}/{}", self.at, escaped(name))
    }
}

struct Reader {
    findings: Vec<Finding>,
    fed: HashSet<(String, String)>,
}

impl Reader {
    fn add(&mut self, pointer: impl Into<String>, code: &str, message: String, hint: impl Into<String>) {
        if !is_full(&self.findings) {
            self.findings.push(Finding::new(pointer, code, message).hint(hint));
        }
    }

    fn known(&mut self, object: &Object<'_>, known: &[&str]) {
        for name in object.members.keys().filter(|name| !known.contains(&name.as_str())) {
            if is_full(&self.findings) {
                return;
            }
            let hint = match nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!(
                    "there is {}",
                    known
                        .iter()
                        .map(|name| format!("`{name}`"))
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            };
            let message = format!("{} has no member `{}`", object.what, shown(name));
            self.add(object.pointer(name), "unknown_member", message, hint);
        }
    }

    fn missing(&mut self, object: &Object<'_>, name: &str, expected: &str) {
        let message = format!("{} needs `{name}`", object.what);
        self.add(
            object.pointer(name),
            "missing_member",
            message,
            format!("give it {expected}"),
        );
    }

    fn wrong_type(&mut self, object: &Object<'_>, name: &str, expected: &str) {
        let message = format!("`{name}` of {} must be {expected}", object.what);
        let hint = format!("write {expected}");
        self.add(object.pointer(name), "wrong_type", message, hint);
    }

    fn text(&mut self, object: &Object<'_>, name: &str) -> Option<String> {
        match object.get(name)? {
            Value::String(text) if text.len() <= LONGEST_TEXT => Some(text.clone()),
            Value::String(_) => {
                let message = format!("`{name}` of {} is longer than {LONGEST_TEXT} bytes", object.what);
                self.add(object.pointer(name), "out_of_range", message, "shorten it");
                None
            }
            _ => {
                self.wrong_type(object, name, "a text");
                None
            }
        }
    }

    fn needed_text(&mut self, object: &Object<'_>, name: &str, expected: &str) -> String {
        if object.get(name).is_none() {
            self.missing(object, name, expected);
        }
        self.text(object, name).unwrap_or_default()
    }

    /// Whether a data edge feeds a member that isn't written; null is as good as none there.
    fn is_fed(&self, object: &Object<'_>, name: &str) -> bool {
        let id = object.members.get("id").and_then(Value::as_str).unwrap_or_default();
        object.get(name).is_none() && self.fed.contains(&(id.to_owned(), name.to_owned()))
    }

    fn needed_value(&mut self, object: &Object<'_>, name: &str, expected: &str) -> Value {
        if self.is_fed(object, name) {
            return Value::Null;
        }
        // A value of null is a value.
        match object.members.get(name) {
            Some(value) => value.clone(),
            None => {
                self.missing(object, name, expected);
                Value::Null
            }
        }
    }

    fn texts(&mut self, object: &Object<'_>, name: &str, most: usize) -> Option<Vec<String>> {
        let list = object.get(name)?.as_array().map(|items| {
            let texts: Option<Vec<_>> = items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
            texts.filter(|texts| texts.len() <= most)
        });
        let list = list.flatten();
        if list.is_none() {
            self.wrong_type(object, name, &format!("a list of at most {most} texts"));
        }
        list
    }

    fn out_of_range(&mut self, object: &Object<'_>, name: &str, low: &str, high: &str) {
        let message = format!("`{name}` of {} must be from {low} to {high}", object.what);
        self.add(
            object.pointer(name),
            "out_of_range",
            message,
            format!("write a number from {low} to {high}"),
        );
    }

    fn number<T: TryFrom<u64>>(&mut self, object: &Object<'_>, name: &str, range: RangeInclusive<u64>) -> Option<T> {
        let value = object.get(name)?;
        let Some(number) = value.as_f64() else {
            self.wrong_type(object, name, "a whole number");
            return None;
        };
        if number.fract() != 0.0 {
            self.wrong_type(object, name, "a whole number");
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "what is outside is outside of the range too"
        )]
        let whole = if number < 0.0 { None } else { Some(number as u64) };
        let inside = whole.filter(|whole| range.contains(whole));
        if inside.is_none() {
            self.out_of_range(object, name, &range.start().to_string(), &range.end().to_string());
        }
        inside.and_then(|whole| T::try_from(whole).ok())
    }

    fn seconds(&mut self, object: &Object<'_>, name: &str, low: f64, high: f64) -> Option<f64> {
        let value = object.get(name)?;
        let Some(number) = value.as_f64() else {
            self.wrong_type(object, name, "a number");
            return None;
        };
        if (low..=high).contains(&number) {
            return Some(number);
        }
        self.out_of_range(object, name, &low.to_string(), &high.to_string());
        None
    }

    fn choice<T: DeserializeOwned>(&mut self, object: &Object<'_>, name: &str, known: &[&str]) -> Option<T> {
        let value = object.get(name)?;
        let chosen = value.as_str().filter(|text| known.contains(text));
        if chosen.is_none() {
            let message = format!(
                "`{name}` of {} must be one of {}",
                object.what,
                listed(known.iter().copied())
            );
            self.add(
                object.pointer(name),
                "not_one_of",
                message,
                format!("write {}", listed(known.iter().copied())),
            );
        }
        chosen.and_then(|text| serde_json::from_value(json!(text)).ok())
    }

    /// The items of a list, or nothing.
    fn list<'a>(&mut self, object: &Object<'a>, name: &str, most: usize, what: &str) -> &'a [Value] {
        match object.get(name) {
            None => &[],
            Some(Value::Array(items)) if items.len() <= most => items,
            Some(Value::Array(items)) => {
                let message = format!("{} has {} {what}, and may have {most}", object.what, items.len());
                let code = if name == "nodes" { "too_many_nodes" } else { "too_many" };
                let hint = "move a part of it into a workflow of its own, and call that with a node of type `workflow`";
                self.add(object.pointer(name), code, message, hint);
                &items[..most]
            }
            Some(_) => {
                self.wrong_type(object, name, "a list");
                &[]
            }
        }
    }

    fn name(&mut self, whole: &Object<'_>) -> String {
        let name = self.needed_text(whole, "name", "a name by which it is called");
        if !name.is_empty() && !is_name(&name) {
            self.add(
                "/name",
                "bad_name",
                format!("`{}` can't be the name of a workflow", shown(&name)),
                "begin with a lower-case letter and write up to 63 lower-case letters, digits, `_` and `-`",
            );
        }
        name
    }

    // ── parameters ─────────────────────────────────────────────────────────────────────────────────────────────────────

    fn parameters(&mut self, whole: &Object<'_>) -> Vec<Parameter> {
        let mut parameters: Vec<Parameter> = Vec::new();
        for (index, value) in self
            .list(whole, "parameters", MAX_PARAMETERS, "parameters")
            .iter()
            .enumerate()
        {
            let at = format!("/parameters/{index}");
            let Some(members) = value.as_object() else {
                self.add(
                    at,
                    "wrong_type",
                    format!("parameter {index} must be an object"),
                    "write `{\"name\": \"order_id\", \"type\": \"integer\"}`",
                );
                continue;
            };
            let what = match members.get("name").and_then(Value::as_str) {
                Some(name) => format!("parameter `{}`", shown(name)),
                None => format!("parameter {index}"),
            };
            let object = Object {
                at: &at,
                what: &what,
                members,
            };
            self.known(&object, &PARAMETER);
            if let Some(parameter) = self.parameter(&object) {
                if parameters.iter().any(|earlier| earlier.name == parameter.name) {
                    let hint = "give each parameter a name of its own";
                    self.add(
                        object.pointer("name"),
                        "duplicate_parameter",
                        format!("{what} is there twice"),
                        hint,
                    );
                }
                parameters.push(parameter);
            }
        }
        parameters
    }

    fn parameter(&mut self, object: &Object<'_>) -> Option<Parameter> {
        let name = self.needed_text(object, "name", "a name, as in Python");
        let known: Map<String, Value> = object
            .members
            .iter()
            .filter(|(name, value)| PARAMETER.contains(&name.as_str()) && (!value.is_null() || *name == "default"))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        // As it is written back: `null`, which is no default where `has_default` says so.
        let has_none = known.get("has_default") == Some(&Value::Bool(false));
        let has_default = known.get("default").is_some_and(|value| !(has_none && value.is_null()));
        let mut parameter: Parameter = match serde_json::from_value(Value::Object(known)) {
            Ok(parameter) => parameter,
            Err(error) => {
                let message = format!("{} can't be read: {error}", object.what);
                let hint = "docs/graphs.md lists the members of a parameter with their types";
                self.add(object.at, "bad_parameter", message, hint);
                return None;
            }
        };
        parameter.has_default |= has_default;
        let is_identifier = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && name.len() <= 63;
        if !name.is_empty() && !is_identifier {
            let message = format!("`{}` can't be the name of a parameter", shown(&name));
            let hint = "begin with a letter, and write letters, digits and `_`";
            self.add(object.pointer("name"), "bad_parameter", message, hint);
        }
        if let Some(error) = parameter.pattern.as_deref().and_then(|pattern| compile(pattern).err()) {
            let message = format!("the pattern of {} can't be used: {error}", object.what);
            let hint = "use a pattern without look-around and back-references";
            self.add(object.pointer("pattern"), "bad_parameter", message, hint);
            return None;
        }
        if parameter.kind == ParameterType::Secret {
            self.secrets_to_choose_from(object, &parameter);
        }
        if parameter.has_default && (parameter.required || !parameter.default.is_null()) {
            let given = Map::from_iter([(parameter.name.clone(), parameter.default.clone())]);
            for finding in validate(std::slice::from_ref(&parameter), &given)
                .err()
                .unwrap_or_default()
            {
                let message = format!("the default of {} doesn't fit: {}", object.what, finding.message);
                self.add(
                    object.pointer("default"),
                    "bad_parameter",
                    message,
                    "give a default that the parameter takes",
                );
            }
        }
        Some(parameter)
    }

    /// Whoever starts a run chooses among the secrets that stand in the file, and no others.
    fn secrets_to_choose_from(&mut self, object: &Object<'_>, parameter: &Parameter) {
        let are_names = parameter.values.as_ref().is_some_and(|values| {
            !values.is_empty()
                && values
                    .iter()
                    .all(|value| value.as_str().is_some_and(|name| name.parse::<SecretName>().is_ok()))
        });
        if !are_names {
            let message = format!("{} must say which secrets may be chosen", object.what);
            let hint = "write their names: `\"enum\": [\"API_KEY\", \"TEST_API_KEY\"]`";
            self.add(object.pointer("enum"), "bad_parameter", message, hint);
        }
    }

    // ── nodes ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    fn nodes(&mut self, whole: &Object<'_>) -> (Vec<Node>, Vec<String>) {
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
            let Some(members) = value.as_object() else {
                let hint = "write `{\"id\": \"fetch\", \"type\": \"python\", \"use\": \"fetch_order\"}`";
                self.add(by_place, "wrong_type", format!("node {index} must be an object"), hint);
                continue;
            };
            let id = members.get("id").and_then(Value::as_str).filter(|id| is_id(id));
            let is_new = id.is_some_and(|id| seen.insert(id));
            let at = match id.filter(|_| is_new) {
                Some(id) => format!("/nodes/{id}"),
                None => by_place,
            };
            let what = match members.get("id").and_then(Value::as_str) {
                Some(id) => format!("node `{}`", shown(id)),
                None => format!("node {index}"),
            };
            let object = Object {
                at: &at,
                what: &what,
                members,
            };
            let written = self.needed_text(&object, "id", "an id, by which edges and expressions name it");
            if id.is_none() && members.get("id").is_some_and(Value::is_string) {
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
            pointers.push(at);
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
            "map" => NodeWork::Map {
                calls: self.calls(object),
                settings: self.settings(object),
                items: self.items(object),
                at_once: self
                    .number(object, "atOnce", 1..=u64::from(MAX_ACTIVE))
                    .unwrap_or(DEFAULT_AT_ONCE),
                on_item_failure: self.item_failure(object),
            },
            "loop" => NodeWork::Loop {
                calls: self.calls(object),
                settings: self.settings(object),
                until: self.needed_text(object, "until", "an expression that ends it, as `output.done`"),
                most: {
                    if object.get("most").is_none() {
                        self.missing(object, "most", "the number of iterations after which it fails");
                    }
                    self.number(object, "most", 1..=u64::from(MAX_ITERATIONS)).unwrap_or(1)
                },
            },
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

    fn shell(&mut self, object: &Object<'_>) -> NodeWork {
        let command = self.needed_value(
            object,
            "command",
            "a command line, or a list of a program and its arguments",
        );
        let mut compiled = None;
        match &command {
            Value::String(text) if text.trim().is_empty() => {
                self.missing(object, "command", "a command line");
            }
            Value::String(text) => match script(text) {
                Ok(read) => compiled = Some(read),
                Err(errors) => {
                    let at = object.pointer("command");
                    for error in errors {
                        self.add(at.as_str(), "shell_interpolation", error.message, error.hint);
                    }
                }
            },
            Value::Array(items) if !items.is_empty() => {}
            _ if !object.members.contains_key("command") => {}
            _ => self.wrong_type(object, "command", "a text, or a list of a program and its arguments"),
        }
        let expect = match object.get("expect") {
            None => vec![0],
            Some(value) => match serde_json::from_value::<Vec<u8>>(value.clone()) {
                Ok(codes) if !codes.is_empty() => codes,
                _ => {
                    self.wrong_type(object, "expect", "a list of exit codes, each from 0 to 255");
                    vec![0]
                }
            },
        };
        let working_directory = self.text(object, "workingDirectory");
        if let Some(folder) = &working_directory
            && (folder.starts_with('/') || folder.split('/').any(|part| part == ".."))
        {
            let message = format!("`workingDirectory` of {} leads out of the step's folder", object.what);
            let hint = "name a folder below the step's own; a step begins with an empty one";
            self.add(object.pointer("workingDirectory"), "out_of_range", message, hint);
        }
        let capture_output = match object.get("captureOutput") {
            None => true,
            Some(Value::Bool(captures)) => *captures,
            Some(_) => {
                self.wrong_type(object, "captureOutput", "`true` or `false`");
                true
            }
        };
        let environment = self.values(object, "environment");
        for (name, value) in &environment {
            self.secret(object, "environment", name, value, &[]);
            if decides_what_runs(name) && !expression::expressions(value).is_empty() {
                let message =
                    format!("the value of `{name}`, from which programs take what they run, would be worked out");
                let hint = "write that value, and choose between values with `when`";
                let at = format!("{}/{}", object.pointer("environment"), escaped(name));
                self.add(at, "shell_interpolation", message, hint);
            }
            let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !is_name {
                let message = format!("`{}` can't be the name of a variable", shown(name));
                let hint = "begin with a letter, and write letters, digits and `_`";
                let at = format!("{}/{}", object.pointer("environment"), escaped(name));
                self.add(at, "bad_name", message, hint);
            }
        }
        NodeWork::Shell {
            command,
            script: compiled,
            environment,
            working_directory,
            capture_output,
            expect,
            network: self.hosts(object),
        }
    }

    /// The name of a secret in a variable of a command or a header of a request; whether it is one.
    fn secret(&mut self, object: &Object<'_>, member: &str, name: &str, value: &Value, hows: &[&str]) -> bool {
        let Some(secret) = value.get(SECRET_MARK) else {
            return false;
        };
        let is_name = secret.as_str().is_some_and(|name| name.parse::<SecretName>().is_ok())
            // Of which parameter, and that it is one of secrets, `names.rs` looks at.
            || expression::secret_input(value).is_some();
        let others = value
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, _)| *name != SECRET_MARK);
        let are_known = others
            .clone()
            .all(|(name, how)| name == "as" && how.as_str().is_some_and(|how| hows.contains(&how)));
        if !is_name || !are_known {
            let message = format!("`{}` of `{member}` of {} names no secret", shown(name), object.what);
            let mut hint = "write `{\"$secret\": \"API_KEY\"}`, the name of a secret of the organization, or \
                            `{\"$secret\": {\"$\": \"inputs.key\"}}`"
                .to_owned();
            if !hows.is_empty() {
                hint.push_str("; as wanted with `\"as\": \"bearer\"` or `\"as\": \"basic\"`");
            }
            let at = format!("{}/{}", object.pointer(member), escaped(name));
            self.add(at, "bad_name", message, hint);
        }
        true
    }

    /// The headers of a request: one of them may be a secret, which the engine puts on it.
    fn headers(&mut self, object: &Object<'_>) -> Map<String, Value> {
        let headers = self.values(object, "headers");
        let mut secrets = 0;
        for (name, value) in &headers {
            let at = format!("{}/{}", object.pointer("headers"), escaped(name));
            let hows: &[&str] = if name.eq_ignore_ascii_case("authorization") {
                &["bearer", "basic"]
            } else {
                &[]
            };
            if !self.secret(object, "headers", name, value, hows) {
                continue;
            }
            secrets += 1;
            let is_name = (1..=64).contains(&name.len())
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
            if !is_name {
                let message = format!("`{}` can't be a header with a secret", shown(name));
                self.add(at, "bad_name", message, "write letters, digits, `-` and `_`");
            } else if secrets == 2 {
                let message = format!(
                    "{} has two headers that are secrets, and a request takes one",
                    object.what
                );
                self.add(
                    at,
                    "too_many",
                    message,
                    "make the request in a Python step, by `ctx.secrets.get`",
                );
            }
        }
        headers
    }

    /// The host that stands in an address as it is written, with its port where it has one.
    fn host_of(&mut self, object: &Object<'_>, url: &Value) -> Option<String> {
        let written = match (url, expression::marked(url)) {
            (Value::String(text), _) => text.as_str(),
            // What is worked out behind the host can't change it.
            (_, Some(Marked::Template(text))) => {
                let before = text.split('{').next().unwrap_or_default();
                let behind = before.split_once("://").map_or("", |(_, behind)| behind);
                if !behind.contains('/') {
                    return None;
                }
                before
            }
            _ => return None,
        };
        let address = written.parse::<url::Url>().ok();
        let address = address.filter(|address| matches!(address.scheme(), "http" | "https"));
        let host = address
            .as_ref()
            .and_then(|address| Some((address, address.host_str()?)));
        let Some((address, host)) = host else {
            self.wrong_type(object, "url", "an address that begins with `https://` or `http://`");
            return None;
        };
        Some(match address.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        })
    }

    fn http(&mut self, object: &Object<'_>) -> NodeWork {
        let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        let url = self.needed_value(object, "url", "an address, as `https://api.example.com/orders`");
        let mut network = self.hosts(object);
        if let Some(host) = self.host_of(object, &url)
            && !network.contains(&host)
        {
            // What stands in the file is what is declared.
            network.push(host);
        }
        match &url {
            Value::String(_) => {}
            other if expression::marked(other).is_some() => self.hosts_needed(object, &network),
            _ if !object.members.contains_key("url") && !self.is_fed(object, "url") => {}
            Value::Null if self.is_fed(object, "url") => self.hosts_needed(object, &network),
            _ => self.wrong_type(object, "url", "a text"),
        }
        let expect = match object.get("expect") {
            None => Vec::new(),
            Some(value) => {
                let statuses = serde_json::from_value::<Vec<u16>>(value.clone()).ok();
                let statuses = statuses.filter(|all| all.iter().all(|one| (100..=599).contains(one)));
                if statuses.is_none() {
                    self.wrong_type(object, "expect", "a list of statuses, each from 100 to 599");
                }
                statuses.unwrap_or_default()
            }
        };
        NodeWork::Http {
            method: self
                .choice(object, "method", &methods)
                .unwrap_or_else(|| "GET".to_owned()),
            url,
            query: self.values(object, "query"),
            headers: self.headers(object),
            body: object.get("body").cloned(),
            expect,
            network,
        }
    }

    fn email(&mut self, object: &Object<'_>) -> NodeWork {
        let security: String = self
            .choice(object, "security", &["starttls", "tls", "none"])
            .unwrap_or_else(|| "starttls".to_owned());
        let mut server = self.needed_text(object, "server", "a mail server, as `smtp.example.com`");
        if object.get("server").is_some_and(Value::is_string) {
            let has_port = server
                .rsplit_once(':')
                .is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0));
            if !has_port {
                server.push_str(match security.as_str() {
                    "tls" => ":465",
                    "none" => ":25",
                    _ => ":587",
                });
            }
            let one = server.clone();
            if one.contains('*') || crate::definition::policy::bad_host(&[one]).is_some() {
                let message = format!("`server` of {} is no host", object.what);
                let hint = "write a name as `smtp.example.com`, or with a port as `smtp.example.com:587`; it can't be \
                            worked out";
                self.add(object.pointer("server"), "not_one_of", message, hint);
            }
        }
        let credentials = self.values(object, "credentials");
        for (name, value) in &credentials {
            let at = || format!("{}/{}", object.pointer("credentials"), escaped(name));
            if !matches!(name.as_str(), "user" | "password") {
                let message = format!("`credentials` of {} has no `{}`", object.what, shown(name));
                self.add(at(), "unknown_member", message, "there is `user` and `password`");
            } else if !self.secret(object, "credentials", name, value, &[]) && name == "password" {
                let message = format!("the password of {} is written where everybody reads it", object.what);
                let hint = "write `{\"$secret\": \"SMTP_PASSWORD\"}`, the name of a secret of the organization";
                self.add(at(), "bad_name", message, hint);
            }
        }
        if credentials.len() == 1 {
            let other = if credentials.contains_key("user") {
                "password"
            } else {
                "user"
            };
            let message = format!("`credentials` of {} has no `{other}`", object.what);
            let hint = "give both, or none for a server that asks for none";
            self.add(object.pointer("credentials"), "missing_member", message, hint);
        }
        if security == "none" && !credentials.is_empty() {
            let message = format!(
                "{} would send its password readable by everybody on the way",
                object.what
            );
            let hint = "write `\"security\": \"starttls\"` or `\"tls\"`, or take `credentials` out";
            self.add(object.pointer("security"), "not_one_of", message, hint);
        }
        for (name, expected) in [
            ("from", "an address, as `Reports <reports@example.com>`"),
            ("to", "an address, or a list of them"),
            ("subject", "a text"),
        ] {
            self.needed_value(object, name, expected);
        }
        if !["text", "html"]
            .iter()
            .any(|name| object.members.contains_key(*name) || self.is_fed(object, name))
        {
            self.missing(object, "text", "what it says, in `text` or in `html` or in both");
        }
        let message = MESSAGE
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), object.get(name)?.clone())))
            .collect();
        NodeWork::Email {
            server,
            security,
            credentials,
            message,
        }
    }

    fn file(&mut self, object: &Object<'_>) -> NodeWork {
        if object.get("action").is_none() {
            self.missing(object, "action", "`write` or `read`");
        }
        let action = self.choice(object, "action", &["write", "read"]);
        let formats: &[&str] = match action {
            Some(FileAction::Write) => &["text", "base64", "json"],
            _ => &["text", "base64", "json", "csv"],
        };
        let format: FileFormat = self.choice(object, "format", formats).unwrap_or_default();
        let (of_write, of_read) = (
            ["content", "name", "mediaType", "store"],
            ["file", "header", "delimiter"],
        );
        let strange: &[&str] = match action {
            Some(FileAction::Write) => &of_read,
            Some(FileAction::Read) if format == FileFormat::Csv => &of_write,
            Some(FileAction::Read) => &["content", "name", "mediaType", "store", "header", "delimiter"],
            None => &[],
        };
        for name in strange.iter().filter(|name| object.members.contains_key(**name)) {
            let message = format!("`{name}` of {} is of no use with what it does", object.what);
            let hint = "`content`, `name`, `mediaType` and `store` are of `write`, `file` of `read`, `header` and `delimiter` of \
                        `read` with `csv`";
            self.add(object.pointer(name), "unknown_member", message, hint);
        }
        let (mut content, mut name, mut file) = (None, None, None);
        let is_fed = |reader: &Self, name: &str| reader.is_fed(object, name);
        match action {
            Some(FileAction::Write) => {
                let written = self.needed_value(object, "content", "what is in the file: a value");
                content = (!is_fed(self, "content") && object.members.contains_key("content")).then_some(written);
                self.fits(object, "content", content.as_ref(), format);
                let written = self.needed_value(object, "name", "the file's name, as `report.json`");
                if !(written.is_string() || expression::marked(&written).is_some())
                    && object.members.contains_key("name")
                {
                    self.wrong_type(object, "name", "a text");
                }
                name = Some(written);
            }
            Some(FileAction::Read) => {
                let written = self.needed_value(object, "file", "a file, as `{\"$\": \"inputs.upload\"}`");
                let is_there = !is_fed(self, "file") && object.members.contains_key("file");
                if is_there && expression::expressions(&written).is_empty() && PortType::File.check(&written).is_err() {
                    self.wrong_type(
                        object,
                        "file",
                        "a file: `{\"data\": …}`, or an expression that gives one",
                    );
                }
                file = is_there.then_some(written);
            }
            None => {}
        }
        NodeWork::File {
            action: action.unwrap_or_default(),
            format,
            content,
            name,
            media_type: self.media_type(object),
            store: self.choice(object, "store", &["artifact", "inline"]),
            file,
            header: match object.get("header") {
                None => None,
                Some(Value::Bool(header)) => Some(*header),
                Some(_) => {
                    self.wrong_type(object, "header", "`true` or `false`");
                    None
                }
            },
            delimiter: self.delimiter(object),
        }
    }

    /// What is written as the content of a file must be what the format takes; what is worked out is looked at then.
    fn fits(&mut self, object: &Object<'_>, name: &str, value: Option<&Value>, format: FileFormat) {
        let Some(value) = value.filter(|value| expression::expressions(value).is_empty()) else {
            return;
        };
        if let Err(wrong) = format.port().check(value) {
            let message = format!("`{name}` of {} is not what its `format` takes: {wrong}", object.what);
            let hint = "write what it takes; `\"format\": \"json\"` takes any value";
            self.add(object.pointer(name), "wrong_type", message, hint);
        }
    }

    fn media_type(&mut self, object: &Object<'_>) -> Option<String> {
        let text = self.text(object, "mediaType")?;
        let is_one = text.len() <= 100
            && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
            && text
                .split_once('/')
                .is_some_and(|(kind, rest)| !kind.is_empty() && !rest.is_empty() && !kind.contains(' '));
        if !is_one {
            let message = format!("`{}` can't be a media type", shown(&text));
            let hint = "write one as `text/csv`, of up to 100 characters";
            self.add(object.pointer("mediaType"), "bad_name", message, hint);
        }
        Some(text)
    }

    fn delimiter(&mut self, object: &Object<'_>) -> Option<String> {
        let text = self.text(object, "delimiter")?;
        let is_one = text.chars().count() == 1 && !text.contains(['"', '\r', '\n', '\0', '\u{feff}']);
        if !is_one {
            self.wrong_type(
                object,
                "delimiter",
                "one character, as `;`, and no quote or end of a line",
            );
        }
        Some(text)
    }

    /// The host of a request that is worked out must be one of those that are declared.
    fn hosts_needed(&mut self, object: &Object<'_>, network: &[String]) {
        if network.is_empty() {
            let message = format!(
                "the host of {} is worked out, so `network` must say which there may be",
                object.what
            );
            self.add(
                object.pointer("network"),
                "missing_member",
                message,
                "write `\"network\": [\"api.example.com\"]`",
            );
        }
    }

    /// An object of values.
    fn values(&mut self, object: &Object<'_>, name: &str) -> Map<String, Value> {
        match object.get(name) {
            None => Map::new(),
            Some(Value::Object(values)) if expression::marked(&Value::Object(values.clone())).is_none() => {
                values.clone()
            }
            Some(_) => {
                self.wrong_type(object, name, "an object of values by name");
                Map::new()
            }
        }
    }

    fn hosts(&mut self, object: &Object<'_>) -> Vec<String> {
        let hosts = self.texts(object, "network", MAX_TAGS).unwrap_or_default();
        if let Some(message) = crate::definition::policy::bad_host(&hosts) {
            self.add(
                object.pointer("network"),
                "not_one_of",
                format!("`network` of {}: {message}", object.what),
                "write hosts as `api.example.com`, `*.example.com` or `api.example.com:8443`",
            );
        }
        hosts
    }

    fn calls(&mut self, object: &Object<'_>) -> Calls {
        match (object.get("use"), object.get("workflow")) {
            (None, Some(_)) => Calls::Workflow(self.text(object, "workflow").unwrap_or_default()),
            (Some(_), None) => self.used(object),
            (None, None) => {
                self.missing(
                    object,
                    "use",
                    "the name of a function, a node type of the library as `shout@1.2.0`, or `workflow` that of a workflow",
                );
                Calls::Function(String::new())
            }
            (Some(_), Some(_)) => {
                let message = format!("{} has `use` and `workflow`", object.what);
                self.add(
                    object.pointer("workflow"),
                    "unknown_member",
                    message,
                    "take one of them out",
                );
                self.used(object)
            }
        }
    }

    /// The function or node type that a map or loop calls.
    fn used(&mut self, object: &Object<'_>) -> Calls {
        match self.text(object, "use").unwrap_or_default() {
            // No function has such a name.
            version if version.contains('@') => Calls::Version(version),
            function => Calls::Function(function),
        }
    }

    /// What the node type is set to that a map or loop calls.
    fn settings(&mut self, object: &Object<'_>) -> Map<String, Value> {
        let settings = self.values(object, "settings");
        let is_version = object
            .get("use")
            .and_then(Value::as_str)
            .is_some_and(|used| used.contains('@'));
        if !settings.is_empty() && !is_version {
            let message = format!("{} has `settings`, and calls no node type of the library", object.what);
            let hint = "name the node type in `use`, with its exact version as `shout@1.2.0`; what a function or a workflow is \
                        given stands in `inputs`";
            self.add(object.pointer("settings"), "unknown_member", message, hint);
        }
        settings
    }

    fn items(&mut self, object: &Object<'_>) -> Value {
        let items = self.needed_value(object, "items", "a list, or an expression that gives one");
        match &items {
            Value::Array(list) if list.len() > MAX_ITEMS as usize => {
                let message = format!(
                    "`items` of {} has {} items; a map takes at most {MAX_ITEMS}",
                    object.what,
                    list.len()
                );
                self.add(
                    object.pointer("items"),
                    "too_many_items",
                    message,
                    "map over parts of the list",
                );
            }
            Value::Array(_) => {}
            other if expression::marked(other).is_some() || !object.members.contains_key("items") => {}
            Value::Null if self.is_fed(object, "items") => {}
            _ => {
                let message = format!("`items` of {} is no list", object.what);
                let hint = "write a list, or an expression: `{\"$\": \"steps.fetch.output.lines\"}`";
                self.add(object.pointer("items"), "items_not_a_list", message, hint);
            }
        }
        items
    }

    fn item_failure(&mut self, object: &Object<'_>) -> ItemFailure {
        match object.get("onItemFailure") {
            None => ItemFailure::Fail,
            Some(Value::Object(members)) => {
                let at = object.pointer("onItemFailure");
                let what = format!("`onItemFailure` of {}", object.what);
                let inner = Object {
                    at: &at,
                    what: &what,
                    members,
                };
                self.known(&inner, &["at_most"]);
                if inner.get("at_most").is_none() {
                    self.missing(&inner, "at_most", "how many items may fail");
                }
                let most = self.number(&inner, "at_most", 0..=u64::from(MAX_ITEMS));
                most.map_or(ItemFailure::Fail, ItemFailure::AtMost)
            }
            Some(_) => self
                .choice(object, "onItemFailure", &["fail", "continue"])
                .unwrap_or_default(),
        }
    }

    fn choose(&mut self, object: &Object<'_>) -> NodeWork {
        let mut branches: Vec<Branch> = Vec::new();
        if object.get("branches").is_none() {
            self.missing(object, "branches", "a list of `{\"name\": …, \"when\": …}`");
        }
        let items = self.list(object, "branches", MAX_BRANCHES, "branches");
        if items.is_empty() && object.get("branches").is_some_and(Value::is_array) {
            let message = format!("{} has no branches", object.what);
            let hint = "write at least one: `{\"name\": \"large\", \"when\": \"inputs.total > 100\"}`";
            self.add(object.pointer("branches"), "missing_member", message, hint);
        }
        for (index, value) in items.iter().enumerate() {
            let at = format!("{}/branches/{index}", object.at);
            let what = format!("branch {index} of {}", object.what);
            let Some(members) = value.as_object() else {
                let hint = "write `{\"name\": \"large\", \"when\": \"inputs.total > 100\"}`";
                self.add(at, "wrong_type", format!("{what} must be an object"), hint);
                continue;
            };
            let branch = Object {
                at: &at,
                what: &what,
                members,
            };
            self.known(&branch, &["name", "when"]);
            let name = self.needed_text(&branch, "name", "a name, for edges");
            if !name.is_empty() && !is_id(&name) {
                let message = format!("`{}` can't be the name of a branch", shown(&name));
                let hint = "write 1 to 63 lower-case letters, digits, `_` and `-`";
                self.add(branch.pointer("name"), "bad_id", message, hint);
            }
            if branches.iter().any(|earlier| earlier.name == name) {
                let message = format!("{} has two branches `{}`", object.what, shown(&name));
                self.add(
                    branch.pointer("name"),
                    "duplicate_branch",
                    message,
                    "give each branch a name of its own",
                );
            }
            let when = self.needed_text(&branch, "when", "an expression");
            branches.push(Branch { name, when });
        }
        let otherwise = self.text(object, "otherwise");
        if let Some(name) = &otherwise
            && !is_id(name)
        {
            let message = format!("`{}` can't be the name of a branch", shown(name));
            let hint = "write 1 to 63 lower-case letters, digits, `_` and `-`";
            self.add(object.pointer("otherwise"), "bad_id", message, hint);
        }
        NodeWork::Choose { branches, otherwise }
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
        let at = object.pointer("retry");
        let what = format!("`retry` of {}", object.what);
        let retry = Object {
            at: &at,
            what: &what,
            members,
        };
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

    // ── edges ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    fn edges(&mut self, whole: &Object<'_>) -> Vec<Edge> {
        let mut edges = Vec::new();
        for (index, value) in self.list(whole, "edges", MAX_EDGES, "edges").iter().enumerate() {
            let at = format!("/edges/{index}");
            let what = format!("edge {index}");
            let blank = Edge::new("", "");
            let Some(members) = value.as_object() else {
                let hint = "write `{\"from\": \"fetch\", \"to\": \"each\"}`";
                self.add(at, "wrong_type", format!("{what} must be an object"), hint);
                edges.push(blank);
                continue;
            };
            let edge = Object {
                at: &at,
                what: &what,
                members,
            };
            self.known(&edge, &["from", "to", "on", "branch", "output", "input"]);
            edges.push(Edge {
                from: self.needed_text(&edge, "from", "the id of the earlier node"),
                to: self.needed_text(&edge, "to", "the id of the later node"),
                on: self
                    .choice(&edge, "on", &["success", "failure", "end"])
                    .unwrap_or_default(),
                branch: self.text(&edge, "branch"),
                output: self.port(&edge, "output").filter(|name| !name.is_empty()),
                input: self.port(&edge, "input"),
            });
        }
        edges
    }

    /// The name of a port.
    fn port(&mut self, edge: &Object<'_>, member: &str) -> Option<String> {
        let name = self.text(edge, member)?;
        let is_name = (1..=63).contains(&name.len())
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        // Nothing is all that there is.
        let is_all = name.is_empty() && member == "output";
        if !(is_name || is_all) {
            let message = format!("`{}` can't be the name of a port", shown(&name));
            let hint = "write 1 to 63 letters, digits, `_` and `-`";
            self.add(edge.pointer(member), "bad_name", message, hint);
            return None;
        }
        Some(name)
    }

    // ── where it is drawn ──────────────────────────────────────────────────────────────────────────────────────────────

    fn label(&mut self, object: &Object<'_>) -> Option<String> {
        let label = self.text(object, "label")?;
        if label.chars().count() > MAX_LABEL {
            let message = format!("`label` of {} has more than {MAX_LABEL} characters", object.what);
            let hint = "shorten it; `notes` of the graph take longer texts";
            self.add(object.pointer("label"), "out_of_range", message, hint);
        }
        Some(label)
    }

    /// Two numbers that are needed together.
    fn two(&mut self, object: &Object<'_>, name: &str, names: [&str; 2], least: f64) -> Option<[f64; 2]> {
        let value = object.get(name)?;
        let Value::Object(members) = value else {
            self.wrong_type(
                object,
                name,
                &format!("an object with `{}` and `{}`", names[0], names[1]),
            );
            return None;
        };
        let (at, what) = (object.pointer(name), format!("`{name}` of {}", object.what));
        let inner = Object {
            at: &at,
            what: &what,
            members,
        };
        self.known(&inner, &names);
        let mut numbers = [0.0; 2];
        for (number, name) in numbers.iter_mut().zip(names) {
            if inner.get(name).is_none() {
                self.missing(&inner, name, "a number");
            }
            *number = self.seconds(&inner, name, least, FARTHEST).unwrap_or_default();
        }
        Some(numbers)
    }

    fn notes(&mut self, whole: &Object<'_>) -> Vec<Note> {
        let mut notes: Vec<Note> = Vec::new();
        for (index, value) in self.list(whole, "notes", MAX_NOTES, "notes").iter().enumerate() {
            let (at, what) = (format!("/notes/{index}"), format!("note {index}"));
            let Some(members) = value.as_object() else {
                let hint = "write `{\"id\": \"why\", \"text\": \"…\"}`";
                self.add(at, "wrong_type", format!("{what} must be an object"), hint);
                continue;
            };
            let note = Object {
                at: &at,
                what: &what,
                members,
            };
            self.known(&note, &["id", "text", "position", "size"]);
            let id = self.needed_text(&note, "id", "an id of its own");
            if !id.is_empty() && !is_id(&id) {
                let message = format!("`{}` can't be the id of a note", shown(&id));
                let hint = "write 1 to 63 lower-case letters, digits, `_` and `-`";
                self.add(note.pointer("id"), "bad_id", message, hint);
            } else if !id.is_empty() && notes.iter().any(|earlier| earlier.id == id) {
                let message = format!("there are two notes `{id}`");
                self.add(
                    note.pointer("id"),
                    "duplicate_id",
                    message,
                    "give each note an id of its own",
                );
            }
            if note.get("text").is_none() {
                self.missing(&note, "text", "what it says");
            }
            notes.push(Note {
                id,
                text: self.text(&note, "text").unwrap_or_default(),
                position: self
                    .two(&note, "position", ["x", "y"], -FARTHEST)
                    .map(|[x, y]| Position { x, y }),
                size: self
                    .two(&note, "size", ["width", "height"], 0.0)
                    .map(|[width, height]| Size { width, height }),
            });
        }
        notes
    }
}
