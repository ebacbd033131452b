//! A tree of YAML → what a graph file says, with the place of everything in it.
//!
//! This file has the workflow itself. Its inputs are translated by `inputs.rs`, its steps by `steps.rs` with `depends_on.rs` and
//! `conditionals.rs`, and values wherever they stand by `values.rs`.

mod conditionals;
mod depends_on;
mod inputs;
mod steps;
mod values;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use self::conditionals::Meet;
use self::values::bare;
use super::compose::{Kind, Place, Tree, compose};
use super::step_types::As;
use super::words::in_yaml;
use crate::definition::expression::MARK;
use crate::definition::graph::{MOST_FINDINGS, ReadGraph, read_value};
use crate::definition::parameters::nearest;
use crate::error::Finding;

const WORKFLOW: [&str; 16] = [
    "name",
    "version",
    "description",
    "category",
    "tags",
    "inputs",
    "steps",
    "outputs",
    "output",
    "timeout",
    "concurrency",
    "security_profile",
    "environment",
    "on_failure",
    "finally",
    "notes",
];

/// A YAML file as far as it could be read, and the place of what a pointer of its findings leads to.
#[derive(Debug)]
pub struct ReadYaml {
    /// The graph, with everything that is wrong with it.
    pub read: ReadGraph,
    places: BTreeMap<String, Place>,
}

impl ReadYaml {
    /// Line and column of what a pointer leads to, or of the nearest thing around it.
    #[must_use]
    pub fn place_of(&self, pointer: &str) -> Place {
        let named = self.named_by_place(pointer);
        let mut at = named.as_deref().unwrap_or(pointer);
        loop {
            if let Some(place) = self.places.get(at) {
                return *place;
            }
            match at.rfind('/') {
                Some(end) => at = &at[..end],
                None => return (1, 1),
            }
        }
    }

    /// The pointer into a node without an id of its own, as places are kept.
    fn named_by_place(&self, pointer: &str) -> Option<String> {
        let rest = pointer.strip_prefix("/nodes/")?;
        let (segment, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let is_place = !self.places.contains_key(&format!("/nodes/{segment}"));
        is_place.then(|| format!("/nodes/[{segment}]{rest}"))
    }
}

/// Reads a YAML file.
#[must_use]
pub fn read_yaml(text: &str) -> ReadYaml {
    let (tree, wrong) = compose(text);
    let mut reader = Reader::default();
    for (place, finding) in wrong {
        reader.at(place, finding);
    }
    let whole = match tree {
        Some(tree) if !tree.is_null() => tree,
        _ => {
            if reader.findings.is_empty() {
                reader.wrong(
                    (1, 1),
                    "empty_graph",
                    "the file is empty",
                    "write `name:` and `steps:`; docs/yaml.md has an example",
                );
            }
            return reader.done(None);
        }
    };
    // What can't be told apart is not translated: further findings would be about something that nobody wrote.
    if !matches!(whole.kind, Kind::Map(_)) {
        reader.wrong(
            whole.place,
            "not_an_object",
            "the file is no workflow: it must begin with names, as `name: hello`",
            "write `name:` and `steps:`; data files belong outside of `workflows`",
        );
        return reader.done(None);
    }
    let value = reader.workflow(&whole);
    reader.done(Some(value))
}

#[derive(Default)]
struct Reader {
    findings: Vec<Finding>,
    places: BTreeMap<String, Place>,
    nodes: Vec<Value>,
    edges: Vec<Value>,
    /// The conditionals with steps in their branches, the outer ones first.
    meets: Vec<Meet>,
    /// The steps in whose branches or handlers a step stands, the outermost first.
    within: Vec<String>,
    environment: Map<String, Value>,
}

impl Reader {
    fn done(self, value: Option<Value>) -> ReadYaml {
        let Self {
            findings, mut places, ..
        } = self;
        let mut read = match &value {
            Some(value) => read_value(value),
            None => ReadGraph::default(),
        };
        places.entry(String::new()).or_insert((1, 1));
        for finding in &mut read.findings {
            finding.message = in_yaml(&finding.message);
            finding.hint = finding.hint.as_deref().map(in_yaml);
        }
        let mut all = findings;
        all.append(&mut read.findings);
        read.findings = all;
        ReadYaml { read, places }
    }

    fn at(&mut self, place: Place, finding: Finding) {
        if self.findings.len() >= MOST_FINDINGS {
            return;
        }
        // A pointer of its own, so that it finds its place.
        let pointer = format!("#{}", self.findings.len());
        self.places.insert(pointer.clone(), place);
        self.findings.push(Finding { pointer, ..finding });
    }

    fn wrong(&mut self, place: Place, code: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.at(place, Finding::new("", code, message).hint(hint));
    }

    fn unknown(&mut self, what: &str, tree: &Tree, known: &[&str]) {
        let Kind::Map(members) = &tree.kind else { return };
        for (name, place, _) in members.iter().filter(|(name, ..)| !known.contains(&name.as_str())) {
            if self.findings.len() >= MOST_FINDINGS {
                return;
            }
            let hint = match nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => {
                    let names: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
                    format!("there is {}", names.join(", "))
                }
            };
            let shown: String = name.chars().take(60).collect();
            self.wrong(*place, "unknown_member", format!("{what} has no `{shown}`"), hint);
        }
    }

    /// Two members of which one is meant: the second would be left unread.
    fn once(&mut self, what: &str, tree: &Tree, pairs: &[(&str, &str)]) {
        let Kind::Map(members) = &tree.kind else { return };
        for (one, other) in pairs {
            let mut found = members.iter().filter(|(name, ..)| name == one || name == other);
            if let (Some(_), Some((_, place, _))) = (found.next(), found.next()) {
                self.wrong(
                    *place,
                    "duplicate_key",
                    format!("`{one}` and `{other}` of {what} say the same"),
                    "take one of them out",
                );
            }
        }
    }

    fn workflow(&mut self, whole: &Tree) -> Value {
        self.unknown("a workflow", whole, &WORKFLOW);
        self.once("the workflow", whole, &[("outputs", "output")]);
        let mut graph = Map::new();
        for (name, into) in [
            ("name", "name"),
            ("description", "description"),
            ("category", "category"),
            ("security_profile", "securityProfile"),
            ("concurrency", "active"),
            ("tags", "tags"),
            ("notes", "notes"),
        ] {
            if let Some(tree) = whole.get(name) {
                self.put(&mut graph, "", into, tree, As::Plain);
            }
        }
        if let Some(version) = whole.get("version") {
            self.places.insert("/version".to_owned(), version.place);
            // As it is written: 1.10 is not 1.1.
            match version.text() {
                Some(text) => drop(graph.insert("version".to_owned(), json!(text))),
                None => self.wrong(
                    version.place,
                    "wrong_type",
                    "`version` of a workflow must be a text",
                    "write `version: \"1.0\"`",
                ),
            }
        }
        if let Some(timeout) = whole.get("timeout") {
            self.put(&mut graph, "", "deadlineSeconds", timeout, As::Seconds);
        }
        if let Some(environment) = whole.get("environment") {
            match self.value(environment, "/environment", As::Written) {
                Value::Object(variables) => self.environment = variables,
                _ => self.wrong(
                    environment.place,
                    "wrong_type",
                    "`environment` must be names with values",
                    "write `NAME: value` lines below it",
                ),
            }
        }
        if let Some(inputs) = whole.get("inputs") {
            let inputs = self.inputs(inputs);
            graph.insert("parameters".to_owned(), inputs);
        }
        match whole.get("steps") {
            Some(steps) => {
                self.places.insert("/nodes".to_owned(), steps.place);
                self.steps(steps, None, "main");
            }
            None => self.wrong(
                whole.place,
                "missing_member",
                "a workflow needs `steps`",
                "write `steps:` and at least one step below it",
            ),
        }
        for phase in ["on_failure", "finally"] {
            if let Some(steps) = whole.get(phase) {
                self.steps(steps, None, phase);
            }
        }
        self.meet();
        graph.insert("nodes".to_owned(), Value::Array(std::mem::take(&mut self.nodes)));
        graph.insert("edges".to_owned(), Value::Array(std::mem::take(&mut self.edges)));
        if let Some(outputs) = whole.get("outputs") {
            self.places.insert("/output".to_owned(), outputs.place);
            let output = self.outputs(outputs);
            graph.insert("output".to_owned(), output);
        } else if let Some(output) = whole.get("output") {
            self.put(&mut graph, "", "output", output, As::Value);
        }
        if graph.get("nodes") == Some(&json!([])) && whole.get("steps").is_none() {
            // It is said already.
            graph.insert(
                "nodes".to_owned(),
                json!([{"id": "nothing", "type": "compute", "value": null}]),
            );
        }
        Value::Object(graph)
    }

    fn outputs(&mut self, outputs: &Tree) -> Value {
        let Kind::Map(members) = &outputs.kind else {
            return self.value(outputs, "/output", As::Value);
        };
        let members = members.iter().map(|(name, _, tree)| {
            let pointer = format!("/output/{}", name.replace('~', "~0").replace('/', "~1"));
            self.places.insert(pointer.clone(), tree.place);
            if tree.get("from").is_some() {
                self.unknown(&format!("output `{name:.60}`"), tree, &["from"]);
            } else if tree.get("value").is_some() {
                self.unknown(&format!("output `{name:.60}`"), tree, &["value"]);
            }
            let value = match tree.get("from").and_then(Tree::text) {
                Some(from) => json!({MARK: bare(from)}),
                None => match tree.get("value") {
                    Some(value) => self.value(value, &pointer, As::Value),
                    None => self.value(tree, &pointer, As::Value),
                },
            };
            (name.clone(), value)
        });
        Value::Object(members.collect())
    }
}
