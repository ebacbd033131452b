//! The members of a graph file: which there are, and of which types. What can't be read is left out, so that the rest is still
//! checked.
//!
//! This file has those of the graph itself. Members in general are read by `members.rs`, those of nodes by `nodes.rs` and by a
//! file for each kind with many.

mod choose;
mod declared;
mod drawn;
mod edges;
mod email;
mod file;
mod http;
mod members;
mod nodes;
mod parameters;
mod repeated;
mod shell;

use std::collections::HashSet;

use serde_json::Value;

use self::members::{Object, Reader};
#[cfg(test)]
pub(in crate::definition) use self::nodes::TYPES;
use super::{ReadGraph, shown};
use crate::domain::{Graph, MAX_ACTIVE, MAX_RUN_SECONDS, SecurityProfile};

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
const MAX_TAGS: usize = 50;

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
        at: String::new(),
        what: "a graph".to_owned(),
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

impl Reader {
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
}
