//! A graph → YAML steps, in the flat form: what a step waits for stands at the step.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::definition::expression::Marked;
use crate::definition::expression::{MARK, TEXT_MARK, marked};
use crate::definition::template::code_end;
use crate::domain::Graph;

/// Members of steps by their names in a graph, where they are called otherwise in YAML.
const NAMES: [(&str, &str); 12] = [
    ("atOnce", "at_once"),
    ("onItemFailure", "on_item_failure"),
    ("onFailure", "on_failure"),
    ("onCrash", "on_crash"),
    ("timeoutSeconds", "timeout"),
    ("cacheSeconds", "cache"),
    ("withinSeconds", "within"),
    ("workingDirectory", "working_directory"),
    ("captureOutput", "capture_output"),
    ("mediaType", "media_type"),
    ("replyTo", "reply_to"),
    ("onFalse", "on_failure"),
];

/// Longest key that is written before a `:` at once, in characters; YAML allows 1,024.
const LONGEST_KEY: usize = 1_000;

/// The graph as a YAML file, which reads as the same graph.
#[must_use]
pub fn to_yaml(graph: &Graph) -> String {
    let whole = serde_json::to_value(graph).unwrap_or_default();
    let mut out = String::new();
    let mut top = Map::new();
    let mut keep = |from: &str, into: &str, usual: &Value| {
        if let Some(value) = whole.get(from).filter(|value| !value.is_null() && *value != usual) {
            top.insert(into.to_owned(), value.clone());
        }
    };
    keep("name", "name", &Value::Null);
    keep("version", "version", &Value::Null);
    keep("description", "description", &json!(""));
    keep("category", "category", &json!("General"));
    keep("tags", "tags", &json!([]));
    keep("deadlineSeconds", "timeout", &Value::Null);
    keep("active", "concurrency", &Value::Null);
    keep("securityProfile", "security_profile", &Value::Null);
    keep("notes", "notes", &Value::Null);
    if !graph.parameters.is_empty() {
        top.insert("inputs".to_owned(), inputs(&whole["parameters"]));
    }
    members(&mut out, &top, 0);
    for (phase, section) in [("main", "steps"), ("on_failure", "on_failure"), ("finally", "finally")] {
        let nodes = whole["nodes"].as_array().into_iter().flatten();
        let steps: Vec<Value> = nodes
            .filter(|node| node["phase"] == phase)
            .map(|node| step(node, &whole["edges"]))
            .collect();
        if !steps.is_empty() {
            let _ = writeln!(out, "{section}:");
            list(&mut out, &steps, 2);
        }
    }
    if let Some(output) = whole.get("output").filter(|output| !output.is_null()) {
        let name = if output.is_object() && marked(output).is_none() && !speaks_of_outputs(output) {
            "outputs"
        } else {
            "output"
        };
        members(&mut out, &Map::from_iter([(name.to_owned(), written(output))]), 0);
    }
    out
}

/// Whether a member of it would be taken for `{from}` or `{value}`.
fn speaks_of_outputs(output: &Value) -> bool {
    let members = output.as_object().into_iter().flatten();
    members
        .into_iter()
        .any(|(_, value)| value.get("from").is_some() || value.get("value").is_some())
}

fn inputs(parameters: &Value) -> Value {
    let mut inputs = Map::new();
    for parameter in parameters.as_array().into_iter().flatten() {
        let has_default = parameter["has_default"] == true;
        let mut input = Map::new();
        for (name, value) in parameter.as_object().into_iter().flatten() {
            let is_usual = value.is_null() || *value == json!([]) || (name == "required" && *value == false);
            match name.as_str() {
                "name" | "has_default" => {}
                "default" if !has_default => {}
                "default" => drop(input.insert(name.clone(), value.clone())),
                _ if is_usual => {}
                _ => drop(input.insert(name.clone(), value.clone())),
            }
        }
        inputs.insert(
            parameter["name"].as_str().unwrap_or_default().to_owned(),
            Value::Object(input),
        );
    }
    Value::Object(inputs)
}

fn step(node: &Value, edges: &Value) -> Value {
    let mut step = Map::new();
    let kind = node["type"].as_str().unwrap_or_default();
    for first in ["id", "type"] {
        step.insert(first.to_owned(), node[first].clone());
    }
    if kind == "delay" {
        step.insert("type".to_owned(), json!("wait"));
    } else if kind == "choose" {
        step.insert("type".to_owned(), json!("conditional"));
    }
    let waits: Vec<Value> = edges
        .as_array()
        .into_iter()
        .flatten()
        .filter(|edge| edge["to"] == node["id"])
        .map(wait)
        .collect();
    if !waits.is_empty() {
        step.insert("depends_on".to_owned(), Value::Array(waits));
    }
    for (name, value) in node.as_object().into_iter().flatten() {
        let usual = match name.as_str() {
            "id" | "type" | "phase" => continue,
            "join" => json!("all"),
            "onFailure" | "onFalse" | "onItemFailure" => json!("fail"),
            "captureOutput" => json!(true),
            "expect" if kind == "shell" => json!([0]),
            "method" => json!("GET"),
            "message" => Value::Null,
            _ => Value::Null,
        };
        let needed = matches!(name.as_str(), "value" | "question" | "items" | "seconds" | "content");
        let is_fed = || {
            let mut edges = edges.as_array().into_iter().flatten();
            edges.any(|edge| edge["to"] == node["id"] && edge["input"] == *name)
        };
        if (*value == usual || value.is_null()) && (!needed || is_fed()) {
            continue;
        }
        let into = NAMES
            .iter()
            .find(|(graph, _)| graph == name)
            .map_or(name.as_str(), |(_, yaml)| yaml);
        let value = match name.as_str() {
            "command" if value.is_string() => value.clone(),
            "label" | "position" | "template" | "when" | "until" | "condition" | "branches" | "use" | "workflow"
            | "network" | "expect" | "workingDirectory" | "mediaType" | "delimiter" | "server" | "security" => {
                value.clone()
            }
            "retry" => retry(value),
            _ => written(value),
        };
        step.insert(into.to_owned(), value);
    }
    Value::Object(step)
}

fn wait(edge: &Value) -> Value {
    let (on, branch) = (
        edge["on"].as_str().unwrap_or("success"),
        edge.get("branch").filter(|branch| !branch.is_null()),
    );
    let carries = ["output", "input"].map(|name| (name, edge.get(name)));
    if on == "success" && branch.is_none() && carries.iter().all(|(_, value)| value.is_none()) {
        return edge["from"].clone();
    }
    let mut wait = json!({"step": edge["from"]});
    if on != "success" {
        wait["on"] = json!(on);
    }
    if let Some(branch) = branch {
        wait["branch"] = branch.clone();
    }
    for (name, value) in carries {
        if let Some(value) = value {
            wait[name] = value.clone();
        }
    }
    wait
}

fn retry(policy: &Value) -> Value {
    let mut retry = Map::new();
    for (name, value) in policy.as_object().into_iter().flatten() {
        let into = match name.as_str() {
            "delay_seconds" => "delay",
            "max_delay_seconds" => "max_delay",
            "retry_on" => "on",
            other => other,
        };
        retry.insert(into.to_owned(), value.clone());
    }
    Value::Object(retry)
}

/// A value with its expressions as YAML writes them.
fn written(value: &Value) -> Value {
    match marked(value) {
        Some(Marked::Expression(text)) if text.trim() == text && !text.is_empty() => {
            let closed = format!("{text} }}}}");
            // What would end in the midst of it keeps its own form.
            return match code_end(&closed, 0, "}}") {
                Some(end) if end == text.len() + 1 => json!(format!("{{{{ {text} }}}}")),
                _ => json!({MARK: text}),
            };
        }
        Some(Marked::Template(text)) => {
            let is_one = text.trim() == text
                && text
                    .strip_prefix("{{")
                    .and_then(|inside| code_end(inside, 0, "}}").map(|end| end + 4 == text.len()))
                    == Some(true);
            return if text.contains("{{") && !is_one {
                json!(text)
            } else {
                json!({TEXT_MARK: text})
            };
        }
        Some(marked @ Marked::Expression(_)) => return json!({MARK: marked.text()}),
        None => {}
    }
    match value {
        // As it stands it would be read as a template.
        Value::String(text) if text.contains("{{") => json!({MARK: json!(text).to_string()}),
        Value::Array(items) => items.iter().map(written).collect(),
        Value::Object(all) => Value::Object(
            all.iter()
                .map(|(name, member)| (name.clone(), written(member)))
                .collect(),
        ),
        other => other.clone(),
    }
}

// ── the text ───────────────────────────────────────────────────────────────────────────────────────────────────────────

fn members(out: &mut String, all: &Map<String, Value>, indent: usize) {
    for (name, value) in all {
        let key = key(name);
        // A longer one is no key unless it says that it is one.
        if key.chars().count() > LONGEST_KEY {
            let _ = write!(out, "{:indent$}? {key}\n{:indent$}:", "", "");
        } else {
            let _ = write!(out, "{:indent$}{key}:", "");
        }
        below(out, value, indent);
    }
}

fn below(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(all) if !all.is_empty() => {
            out.push('\n');
            members(out, all, indent + 2);
        }
        Value::Array(items) if items.iter().any(|item| item.is_object() || item.is_array()) => {
            out.push('\n');
            list(out, items, indent + 2);
        }
        scalar => {
            let _ = writeln!(out, " {}", flow(scalar));
        }
    }
}

fn list(out: &mut String, items: &[Value], indent: usize) {
    for item in items {
        match item {
            Value::Object(all) if !all.is_empty() => {
                let mut text = String::new();
                members(&mut text, all, indent + 2);
                let _ = write!(out, "{:indent$}- {}", "", &text[indent + 2..]);
            }
            Value::Array(inner) if inner.iter().any(|item| item.is_object() || item.is_array()) => {
                let _ = writeln!(out, "{:indent$}-", "");
                list(out, inner, indent + 2);
            }
            scalar => {
                let _ = writeln!(out, "{:indent$}- {}", "", flow(scalar));
            }
        }
    }
}

/// In one line. JSON is YAML, but for texts that need no quotes.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

fn key(name: &str) -> String {
    if is_plain(name) {
        name.to_owned()
    } else {
        json!(name).to_string()
    }
}

/// Whether a text is read as itself without quotes, wherever it stands.
fn is_plain(text: &str) -> bool {
    let is_word = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'));
    let means_something = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word));
    is_word && !means_something
}
