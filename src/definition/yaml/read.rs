//! A tree of YAML → what a graph file says, with the place of everything in it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::compose::{Kind, Place, Tree, compose};
use crate::definition::expression::{MARK, TEXT_MARK};
use crate::definition::graph::{MOST_FINDINGS, ReadGraph, read_value};
use crate::definition::parameters::nearest;
use crate::definition::template::code_end;
use crate::domain::MAX_NODES;
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
const INPUT: [&str; 15] = [
    "type",
    "label",
    "required",
    "default",
    "description",
    "help",
    "validation",
    "min",
    "max",
    "min_length",
    "max_length",
    "pattern",
    "enum",
    "data_provider",
    "options",
];
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

/// An item of `depends_on`, and what an edge calls it.
const EDGE: [(&str, &str); 5] = [
    ("step", "from"),
    ("on", "on"),
    ("branch", "branch"),
    ("output", "output"),
    ("input", "input"),
];

/// How a member is translated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum As {
    /// As it stands.
    Plain,
    /// A value: `{{ }}` in its texts are expressions.
    Value,
    /// An expression, with or without `{{ }}` around it.
    Expression,
    /// Seconds, or a text as `10m`.
    Seconds,
    /// A text, or a list of values whose texts are as they are written.
    Command,
    /// Values whose texts are as they are written: `1.10` stays that, as whoever reads it gets a text anyway.
    Written,
}

impl As {
    /// How what is inside of a list or a mapping is translated.
    const fn inside(self) -> Self {
        match self {
            Self::Plain => Self::Plain,
            Self::Command | Self::Written => Self::Written,
            Self::Value | Self::Expression | Self::Seconds => Self::Value,
        }
    }
}

/// A step type: its name here and in a graph, whether it is tried again, whether it is given inputs, its own members here and there.
pub(super) type StepType = (
    &'static str,
    &'static str,
    bool,
    bool,
    &'static [(&'static str, &'static str, As)],
);

pub(super) const TYPES: [StepType; 16] = [
    (
        "python",
        "python",
        true,
        true,
        &[("use", "use", As::Plain), ("function", "use", As::Plain)],
    ),
    (
        "node",
        "node",
        true,
        true,
        &[("use", "use", As::Plain), ("settings", "settings", As::Value)],
    ),
    (
        "workflow",
        "workflow",
        true,
        true,
        &[("workflow", "workflow", As::Plain)],
    ),
    (
        "map",
        "map",
        true,
        true,
        &[
            ("use", "use", As::Plain),
            ("workflow", "workflow", As::Plain),
            ("settings", "settings", As::Value),
            ("items", "items", As::Value),
            ("at_once", "atOnce", As::Plain),
            ("on_item_failure", "onItemFailure", As::Plain),
        ],
    ),
    (
        "loop",
        "loop",
        true,
        true,
        &[
            ("use", "use", As::Plain),
            ("workflow", "workflow", As::Plain),
            ("settings", "settings", As::Value),
            ("until", "until", As::Expression),
            ("most", "most", As::Plain),
        ],
    ),
    (
        "shell",
        "shell",
        true,
        false,
        &[
            ("command", "command", As::Command),
            ("environment", "environment", As::Written),
            ("working_directory", "workingDirectory", As::Plain),
            ("capture_output", "captureOutput", As::Plain),
            ("expect", "expect", As::Plain),
            ("network", "network", As::Plain),
        ],
    ),
    (
        "http",
        "http",
        true,
        false,
        &[
            ("method", "method", As::Plain),
            ("url", "url", As::Value),
            ("query", "query", As::Value),
            ("headers", "headers", As::Written),
            ("body", "body", As::Value),
            ("expect", "expect", As::Plain),
            ("network", "network", As::Plain),
        ],
    ),
    (
        "email",
        "email",
        true,
        false,
        &[
            ("server", "server", As::Plain),
            ("security", "security", As::Plain),
            ("credentials", "credentials", As::Written),
            ("from", "from", As::Value),
            ("reply_to", "replyTo", As::Value),
            ("to", "to", As::Value),
            ("cc", "cc", As::Value),
            ("bcc", "bcc", As::Value),
            ("subject", "subject", As::Value),
            ("text", "text", As::Value),
            ("html", "html", As::Value),
            ("attachments", "attachments", As::Value),
        ],
    ),
    (
        "file",
        "file",
        true,
        false,
        &[
            ("action", "action", As::Plain),
            ("format", "format", As::Plain),
            ("content", "content", As::Value),
            ("name", "name", As::Written),
            ("media_type", "mediaType", As::Plain),
            ("store", "store", As::Plain),
            ("file", "file", As::Value),
            ("header", "header", As::Plain),
            ("delimiter", "delimiter", As::Plain),
        ],
    ),
    (
        "assert",
        "assert",
        false,
        false,
        &[
            ("condition", "condition", As::Expression),
            ("message", "message", As::Value),
        ],
    ),
    (
        "template",
        "template",
        false,
        false,
        &[("template", "template", As::Plain)],
    ),
    ("compute", "compute", false, false, &[("value", "value", As::Value)]),
    (
        "wait",
        "delay",
        false,
        false,
        &[
            ("seconds", "seconds", As::Seconds),
            ("duration", "seconds", As::Seconds),
        ],
    ),
    (
        "delay",
        "delay",
        false,
        false,
        &[
            ("seconds", "seconds", As::Seconds),
            ("duration", "seconds", As::Seconds),
        ],
    ),
    (
        "approval",
        "approval",
        false,
        false,
        &[
            ("question", "question", As::Value),
            ("message", "question", As::Value),
            ("needed", "needed", As::Plain),
            ("within", "withinSeconds", As::Seconds),
        ],
    ),
    ("conditional", "choose", false, false, &[]),
];
pub(super) const CONDITIONAL: [&str; 7] = [
    "condition",
    "then",
    "else",
    "then_steps",
    "else_steps",
    "branches",
    "otherwise",
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

/// Where a conditional's branches meet again.
struct Meet {
    id: String,
    place: Place,
    /// Of each branch, its name and the edges from what ends it.
    branches: Vec<(String, Vec<Value>)>,
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

    /// Translates a member and keeps its place.
    fn put(&mut self, into: &mut Map<String, Value>, at: &str, name: &str, tree: &Tree, how: As) {
        let pointer = format!("{at}/{name}");
        self.places.insert(pointer.clone(), tree.place);
        let value = self.value(tree, &pointer, how);
        into.insert(name.to_owned(), value);
    }

    fn value(&mut self, tree: &Tree, pointer: &str, how: As) -> Value {
        match (&tree.kind, how) {
            (Kind::Scalar(text, _), As::Expression) => json!(bare(text)),
            (Kind::Scalar(text, _), As::Command) => json!(text),
            (Kind::Scalar(text, _), As::Seconds) => self.seconds(tree, text),
            (Kind::Scalar(text, _), As::Written) => {
                if text.contains("{{") {
                    interpolated(text)
                } else {
                    as_written(tree, text)
                }
            }
            (Kind::Scalar(text, _), As::Value | As::Plain) => {
                if how == As::Value && text.contains("{{") {
                    interpolated(text)
                } else {
                    tree.scalar().unwrap_or_default()
                }
            }
            (Kind::List(items), _) => {
                let how = how.inside();
                let items = items.iter().enumerate().map(|(index, item)| {
                    let pointer = format!("{pointer}/{index}");
                    self.places.insert(pointer.clone(), item.place);
                    self.value(item, &pointer, how)
                });
                Value::Array(items.collect())
            }
            (Kind::Map(members), _) => {
                let how = how.inside();
                let members = members.iter().map(|(name, _, member)| {
                    let pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
                    self.places.insert(pointer.clone(), member.place);
                    // What is an expression in a graph is one here.
                    let how = if matches!(name.as_str(), MARK | TEXT_MARK) {
                        As::Plain
                    } else {
                        how
                    };
                    (name.clone(), self.value(member, &pointer, how))
                });
                Value::Object(members.collect())
            }
        }
    }

    fn seconds(&mut self, tree: &Tree, text: &str) -> Value {
        if text.contains("{{") {
            return interpolated(text);
        }
        if let Some(number @ Value::Number(_)) = tree.scalar() {
            return number;
        }
        let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3_600.0), ("d", 86_400.0)];
        let found = units.iter().find_map(|(unit, seconds)| {
            let number: f64 = text.trim().strip_suffix(unit)?.trim().parse().ok()?;
            (number.is_finite() && number >= 0.0).then_some(number * seconds)
        });
        match found {
            Some(seconds) => json!(seconds),
            None => {
                let shown: String = text.chars().take(40).collect();
                self.wrong(
                    tree.place,
                    "wrong_type",
                    format!("`{shown}` is no length of time"),
                    "write seconds, or a number with a unit: `90`, `1.5s`, `10m`, `2h`, `1d`",
                );
                Value::Null
            }
        }
    }

    // ── inputs and outputs ─────────────────────────────────────────────────────────────────────────────────────────────

    fn inputs(&mut self, inputs: &Tree) -> Value {
        self.places.insert("/parameters".to_owned(), inputs.place);
        let Kind::Map(members) = &inputs.kind else {
            if !inputs.is_null() {
                self.wrong(
                    inputs.place,
                    "wrong_type",
                    "`inputs` must be names with what they are",
                    "write `name: {type: string}` lines below it",
                );
            }
            return json!([]);
        };
        let mut parameters = Vec::with_capacity(members.len());
        for (index, (name, place, tree)) in members.iter().enumerate() {
            let at = format!("/parameters/{index}");
            self.places.insert(at.clone(), *place);
            self.places.insert(format!("{at}/name"), *place);
            let mut parameter = Map::new();
            parameter.insert("name".to_owned(), json!(name));
            match &tree.kind {
                Kind::Scalar(kind, _) if !tree.is_null() => {
                    self.places.insert(format!("{at}/type"), tree.place);
                    parameter.insert("type".to_owned(), json!(kind));
                }
                Kind::Map(_) => self.input(name, tree, &at, &mut parameter),
                _ => self.wrong(
                    tree.place,
                    "wrong_type",
                    format!("input `{name:.60}` must be a type, or names with values"),
                    "write `{type: string, required: true}`",
                ),
            }
            parameters.push(Value::Object(parameter));
        }
        Value::Array(parameters)
    }

    fn input(&mut self, name: &str, tree: &Tree, at: &str, parameter: &mut Map<String, Value>) {
        let what = format!("input `{name:.60}`");
        self.unknown(&what, tree, &INPUT);
        self.once(&what, tree, &[("description", "help")]);
        let validation = tree.get("validation");
        for name in &INPUT[7..13] {
            if let (Some(_), Some(inner)) = (tree.get(name), validation.and_then(|inner| inner.get(name))) {
                self.wrong(
                    inner.place,
                    "duplicate_key",
                    format!("`{name}` of {what} stands twice"),
                    "take one of them out",
                );
            }
        }
        if let Some(validation) = validation {
            self.unknown(&format!("`validation` of {what}"), validation, &INPUT[7..13]);
            if !matches!(validation.kind, Kind::Map(_)) {
                self.wrong(
                    validation.place,
                    "wrong_type",
                    format!("`validation` of {what} must be names with values"),
                    "write `validation: {pattern: \"^[a-z]+$\"}`",
                );
            }
        }
        for (from, into) in [
            ("type", "type"),
            ("label", "label"),
            ("required", "required"),
            ("default", "default"),
            ("help", "help"),
            ("description", "help"),
            ("min", "min"),
            ("max", "max"),
            ("min_length", "min_length"),
            ("max_length", "max_length"),
            ("pattern", "pattern"),
            ("enum", "enum"),
            ("data_provider", "data_provider"),
            ("options", "options"),
        ] {
            let found = tree
                .get(from)
                .or_else(|| validation.and_then(|validation| validation.get(from)));
            if let Some(member) = found {
                self.put(parameter, at, into, member, As::Plain);
            }
        }
        // A default of a text input is a text, as `latest` and as `1.0`.
        let is_text = parameter.get("type").is_none_or(|kind| {
            ["string", "email", "url", "binary", "secret"]
                .iter()
                .any(|text| kind == text)
        });
        if let (true, Some(Kind::Scalar(text, _))) = (is_text, tree.get("default").map(|default| &default.kind))
            && !tree.get("default").is_some_and(Tree::is_null)
        {
            parameter.insert("default".to_owned(), json!(text));
        }
        let choices = tree
            .get("enum")
            .or_else(|| validation.and_then(|validation| validation.get("enum")));
        if let (true, Some(Kind::List(choices))) = (is_text, choices.map(|choices| &choices.kind))
            && choices.iter().all(|choice| choice.text().is_some())
        {
            let texts = choices.iter().filter_map(Tree::text).map(|text| json!(text));
            parameter.insert("enum".to_owned(), texts.collect());
        }
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

    // ── steps ──────────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Translates a list of steps; the ids of those that nothing in the list follows. `first` is what those begin after that wait
    /// for nothing.
    fn steps(&mut self, steps: &Tree, first: Option<&Value>, phase: &str) -> Vec<String> {
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

    /// The edges that lead to a step. `first` is the edge to what stands in a branch or handles a failure, with the ids of the
    /// steps beside it: a step begins there whatever else it waits for, so what waits only for steps outside has that edge too.
    fn waits(&mut self, tree: &Tree, id: &str, first: Option<(&Value, &BTreeSet<&str>)>) {
        let waits = tree.get("depends_on").filter(|tree| !tree.is_null());
        let items: Vec<&Tree> = match waits.map(|waits| (&waits.kind, waits)) {
            Some((Kind::List(items), _)) => items.iter().collect(),
            Some((_, one)) => vec![one],
            None => Vec::new(),
        };
        let is_any = tree.get("join").and_then(Tree::text) == Some("any");
        let (mut inside, mut outside) = (false, None);
        for item in items {
            let mut edge = Map::new();
            let at = format!("/edges/{}", self.edges.len());
            self.places.insert(at.clone(), item.place);
            match &item.kind {
                Kind::Scalar(from, _) => drop(edge.insert("from".to_owned(), json!(from))),
                Kind::Map(_) => {
                    self.unknown("an item of `depends_on`", item, &EDGE.map(|(name, _)| name));
                    for (name, into) in EDGE {
                        if let Some(member) = item.get(name) {
                            self.put(&mut edge, &at, into, member, As::Command);
                        }
                    }
                }
                Kind::List(_) => {
                    self.wrong(
                        item.place,
                        "wrong_type",
                        "an item of `depends_on` is the id of a step",
                        "write `depends_on: [fetch, check]`",
                    );
                    continue;
                }
            }
            let from = edge.get("from").and_then(Value::as_str).unwrap_or_default();
            let is_plain = edge.keys().all(|name| name == "from");
            // A step in a branch waits for its conditional anyway.
            if is_plain && self.within.iter().any(|outer| outer == from) {
                continue;
            }
            let is_same = first.is_some_and(|(first, _)| first.as_object().is_some_and(|first| *first == edge));
            let is_beside = first.is_some_and(|(_, beside)| beside.contains(from));
            if is_same || is_beside && edge.get("on").is_none_or(|on| on == "success") {
                inside = true;
            } else if !(is_beside && edge.get("on").is_some_and(|on| on == "failure")) {
                outside = Some(item.place);
            }
            edge.insert("to".to_owned(), json!(id));
            self.edges.push(Value::Object(edge));
        }
        let Some((first, _)) = first else { return };
        if let (true, Some(place)) = (is_any, outside) {
            self.wrong(
                place,
                "wrong_join",
                format!("step `{id:.63}` would begin by this though its branch isn't taken, as `join` is `any`"),
                "wait for steps beside it only, take `join` out, or move the step out of the branch",
            );
        }
        if !(inside || is_any && self.edges.iter().any(|edge| edge["to"] == id)) {
            let mut edge = first.clone();
            edge["to"] = json!(id);
            self.places.insert(format!("/edges/{}", self.edges.len()), tree.place);
            self.edges.push(edge);
        }
    }

    // ── conditionals ───────────────────────────────────────────────────────────────────────────────────────────────────

    fn choose(&mut self, tree: &Tree, what: &str, at: &str, node: &mut Map<String, Value>) {
        if let Some(branches) = tree.get("branches") {
            let pointer = format!("{at}/branches");
            self.places.insert(pointer.clone(), branches.place);
            let Kind::List(items) = &branches.kind else {
                return self.put(node, at, "branches", branches, As::Plain);
            };
            let mut all = Vec::new();
            for (index, item) in items.iter().enumerate() {
                let pointer = format!("{pointer}/{index}");
                self.places.insert(pointer.clone(), item.place);
                self.unknown(
                    &format!("branch {} of {what}", index + 1),
                    item,
                    &["name", "when", "steps"],
                );
                let mut branch = Map::new();
                if let Some(name) = item.get("name") {
                    self.put(&mut branch, &pointer, "name", name, As::Command);
                }
                if let Some(when) = item.get("when") {
                    self.put(&mut branch, &pointer, "when", when, As::Expression);
                }
                all.push(Value::Object(branch));
            }
            node.insert("branches".to_owned(), Value::Array(all));
            if let Some(otherwise) = tree.get("otherwise") {
                self.put(node, at, "otherwise", otherwise, As::Command);
            }
            return;
        }
        let Some(condition) = tree.get("condition") else {
            self.wrong(
                tree.place,
                "missing_member",
                format!("{what} needs `condition`"),
                "write an expression, as `inputs.total > 100`, and `then:` with steps below it",
            );
            node.insert("branches".to_owned(), json!([{"name": "then", "when": "true"}]));
            return;
        };
        self.places.insert(format!("{at}/branches/0/when"), condition.place);
        let when = bare(condition.text().unwrap_or_default());
        node.insert("branches".to_owned(), json!([{"name": "then", "when": when}]));
        node.insert("otherwise".to_owned(), json!("else"));
    }

    /// The steps in the branches of a conditional.
    fn branches(&mut self, tree: &Tree, id: &str, phase: &str) {
        let mut nested: Vec<(String, Option<&Tree>)> = Vec::new();
        if let Some(Kind::List(items)) = tree.get("branches").map(|branches| &branches.kind) {
            for item in items {
                let name = item.get("name").and_then(Tree::text).unwrap_or_default();
                nested.push((name.to_owned(), item.get("steps")));
            }
            if let Some(otherwise) = tree.get("otherwise").and_then(Tree::text) {
                nested.push((otherwise.to_owned(), None));
            }
        } else {
            nested.push(("then".to_owned(), tree.get("then").or_else(|| tree.get("then_steps"))));
            nested.push(("else".to_owned(), tree.get("else").or_else(|| tree.get("else_steps"))));
        }
        if nested.iter().all(|(_, steps)| steps.is_none()) {
            return;
        }
        let index = self.meets.len();
        self.meets.push(Meet {
            id: id.to_owned(),
            place: tree.place,
            branches: Vec::new(),
        });
        self.within.push(id.to_owned());
        for (branch, steps) in nested {
            let edge = json!({"from": id, "branch": branch});
            let last = steps
                .map(|steps| self.steps(steps, Some(&edge), phase))
                .unwrap_or_default();
            let ends = if last.is_empty() {
                vec![edge]
            } else {
                last.into_iter().map(|last| json!({"from": last})).collect()
            };
            self.meets[index].branches.push((branch, ends));
        }
        self.within.pop();
    }

    /// Whoever waits for a conditional waits for all that is in the branch that is taken. An outer conditional comes before those
    /// in its branches: where it ends, it waits for them.
    fn meet(&mut self) {
        for Meet { id, place, branches } in std::mem::take(&mut self.meets) {
            let inner: Vec<String> = self.inside(&id);
            let waits: Vec<usize> = (0..self.edges.len())
                .filter(|place| {
                    let edge = &self.edges[*place];
                    let to = edge["to"].as_str().unwrap_or_default();
                    edge["from"] == id.as_str()
                        && edge.get("branch").is_none()
                        && edge.get("on").is_none()
                        && !inner.iter().any(|one| one == to)
                })
                .collect();
            if waits.is_empty() {
                continue;
            }
            let phase = self
                .nodes
                .iter()
                .find(|node| node["id"] == id.as_str())
                .and_then(|node| node.get("phase"))
                .cloned();
            let end = self.gather(&format!("{id:.50}-end"), "any", phase.as_ref(), place);
            for wait in waits {
                if self.edges[wait].get("input").is_some() {
                    // What it carries is the conditional's own.
                    let after = json!({"from": end, "to": self.edges[wait]["to"]});
                    let at = self.places.get(&format!("/edges/{wait}")).copied().unwrap_or(place);
                    self.places.insert(format!("/edges/{}", self.edges.len()), at);
                    self.edges.push(after);
                } else {
                    self.edges[wait]["from"] = json!(end);
                }
            }
            for (branch, mut ends) in branches {
                if ends.len() > 1 {
                    let all = self.gather(&format!("{id:.30}-{branch:.20}-end"), "all", phase.as_ref(), place);
                    self.lead(ends, &all, place);
                    ends = vec![json!({"from": all})];
                }
                self.lead(ends, &end, place);
            }
        }
    }

    /// A step that does nothing but wait; its id, which nobody else has.
    fn gather(&mut self, name: &str, join: &str, phase: Option<&Value>, place: Place) -> String {
        let mut id = name.to_owned();
        let mut count = 1;
        while self.nodes.iter().any(|node| node["id"] == id.as_str()) {
            count += 1;
            id = format!("{name}-{count}");
        }
        let mut node = json!({"id": id, "type": "compute", "value": null, "join": join});
        if let Some(phase) = phase {
            node["phase"] = phase.clone();
        }
        self.places.insert(format!("/nodes/{id}"), place);
        self.nodes.push(node);
        id
    }

    fn lead(&mut self, edges: Vec<Value>, to: &str, place: Place) {
        for mut edge in edges {
            edge["to"] = json!(to);
            self.places.insert(format!("/edges/{}", self.edges.len()), place);
            self.edges.push(edge);
        }
    }

    /// The steps that begin in the branches of a conditional.
    fn inside(&self, id: &str) -> Vec<String> {
        let edges = self
            .edges
            .iter()
            .filter(|edge| edge["from"] == id && edge.get("branch").is_some());
        edges
            .filter_map(|edge| edge["to"].as_str().map(str::to_owned))
            .collect()
    }
}

/// A plain scalar where a text is meant: a value only where it would be written just so.
fn as_written(tree: &Tree, text: &str) -> Value {
    match tree.scalar() {
        Some(value @ (Value::Number(_) | Value::Bool(_))) if is_written_as(&value, text) => value,
        _ => json!(text),
    }
}

/// An expression without the braces that may stand around it.
fn bare(text: &str) -> &str {
    whole(text).unwrap_or_else(|| text.trim())
}

/// The expression that a text is, where it is nothing but one interpolation.
fn whole(text: &str) -> Option<&str> {
    let inside = text.trim().strip_prefix("{{")?;
    let end = code_end(inside, 0, "}}")?;
    (end + 2 == inside.len()).then(|| inside[..end].trim())
}

/// A text with interpolations as a graph has it.
fn interpolated(text: &str) -> Value {
    match whole(text) {
        Some(expression) if text.trim() == text => json!({MARK: expression}),
        _ => json!({TEXT_MARK: text}),
    }
}

/// What a finding of a graph says, in the words of YAML.
pub(in crate::definition) fn in_yaml(text: &str) -> String {
    let mut text = text.to_owned();
    for (graph, yaml) in [
        ("`timeoutSeconds`", "`timeout`"),
        ("`cacheSeconds`", "`cache`"),
        ("`deadlineSeconds`", "`timeout`"),
        ("`onFailure`", "`on_failure`"),
        ("`workingDirectory`", "`working_directory`"),
        ("`captureOutput`", "`capture_output`"),
        ("`onItemFailure`", "`on_item_failure`"),
        ("`atOnce`", "`at_once`"),
        ("`withinSeconds`", "`within`"),
        ("`onCrash`", "`on_crash`"),
        ("`onFalse`", "`on_failure`"),
        ("`securityProfile`", "`security_profile`"),
        ("`active`", "`concurrency`"),
        ("`parameters`", "`inputs`"),
        ("`delay_seconds`", "`delay`"),
        ("`max_delay_seconds`", "`max_delay`"),
        ("`retry_on`", "`on`"),
        ("the graph has no parameter", "the workflow has no input"),
        ("the graph has no parameters", "the workflow has no inputs"),
        ("the parameters are", "the inputs are"),
        ("parameter `", "input `"),
        ("a graph ", "a workflow "),
        ("the graph ", "the workflow "),
        ("this graph", "this workflow"),
        ("node `", "step `"),
        ("node of type", "step of type"),
        ("the id of a node", "the id of a step"),
        ("two nodes", "two steps"),
        ("each node", "each step"),
        ("docs/graphs.md", "docs/yaml.md"),
        ("has no nodes", "has no steps"),
        (
            "write at least one node: `{\"id\": \"fetch\", \"type\": \"python\", \"use\": \"fetch_order\"}`",
            "write at least one step: `- {id: fetch, type: python, use: fetch_order}`",
        ),
        ("nodes wait", "steps wait"),
        ("node 0", "step 0"),
        ("take one of these edges out", "take one of these `depends_on` out"),
        ("take the edge out", "take it out of `depends_on`"),
        ("add an edge from", "let it lead by `depends_on` from"),
        ("or to a node before it", "or to a step before it"),
        ("the members of a parameter", "the members of an input"),
        ("the name of a parameter", "the name of an input"),
        ("`\"network\": [\"api.example.com\"]`", "`network: [api.example.com]`"),
        (
            "`{\"$\": \"steps.fetch.output.lines\"}`",
            "`\"{{ steps.fetch.output.lines }}\"`",
        ),
    ] {
        text = text.replace(graph, yaml);
    }
    text
}

/// Whether a value is written just like that.
fn is_written_as(value: &Value, text: &str) -> bool {
    let written = value.to_string();
    written == text
}
