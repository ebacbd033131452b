//! A graph file → a graph, or everything that is wrong with it at once.
//!
//! [`read_graph`] looks at the file alone: its shape (`shape.rs`), how its nodes follow each other (`structure.rs`), what its
//! expressions name (`names.rs`). [`check_against`] looks at what the workspace declares besides (`calls.rs`, `ports.rs`),
//! [`check_library`] at the node types that it uses (`library.rs`), and [`connect`] lets data edges convert what they carry to what
//! is declared. Findings point at
//! places as a JSON pointer does, but a node is named by its id: `/nodes/fetch/inputs/id`. A node without a good id of its own
//! is named by its place: `/nodes/3/id`, or where another node has that for its id, `/nodes/[3]/id`. `place.rs` turns such a pointer into line and column.

mod calls;
mod library;
mod names;
mod place;
mod ports;
mod shape;
mod structure;

use serde_json::Value;

pub use calls::{Offer, check_against, cycles_of_children};
pub use library::{INEXACT, Library, check_library, inexact};
pub use place::place_of;
pub(super) use ports::PORT;
pub use ports::check_edges_of_versions;
#[cfg(test)]
pub(super) use shape::TYPES;
pub(in crate::definition) use shape::is_name;

use super::expression::{DEEPEST, is_too_deep};
use crate::domain::{Graph, ROUNDED_HINT, read_json, rounded};
use crate::error::Finding;

/// A graph file as far as it could be read.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReadGraph {
    /// The graph; where there are findings, only for further findings.
    pub graph: Graph,
    /// Everything that is wrong with the file by itself.
    pub findings: Vec<Finding>,
    /// The pointer of each node.
    pub(super) at: Vec<String>,
}

/// Reads a graph file.
#[must_use]
pub fn read_graph(text: &str) -> ReadGraph {
    let (value, repeated) = match read_json(text.as_bytes()) {
        Ok(read) => read,
        Err(error) => {
            let message = format!("the file is no JSON: {error}");
            let finding = Finding::new("", "not_json", message).hint("mend it at the line and column that it names");
            return ReadGraph {
                findings: vec![finding],
                ..ReadGraph::default()
            };
        }
    };
    let mut read = read_value(&value);
    let twice = repeated.iter().map(|pointer| {
        let name = pointer.rsplit('/').next().unwrap_or_default();
        let message = format!(
            "`{}` stands here twice",
            shown(&name.replace("~1", "/").replace("~0", "~"))
        );
        Finding::new(by_id(pointer, &value), "duplicate_key", message).hint("take one of them out")
    });
    read.findings.splice(0..0, twice);
    read.findings.extend(
        rounded(text.as_bytes()).map(|found| Finding::new("", "invalid", found.to_string()).hint(ROUNDED_HINT)),
    );
    read
}

/// A pointer that names a node by its place, as findings name nodes.
fn by_id(pointer: &str, value: &Value) -> String {
    let Some((place, rest)) = pointer.strip_prefix("/nodes/").map(|rest| match rest.split_once('/') {
        Some((place, rest)) => (place, format!("/{rest}")),
        None => (rest, String::new()),
    }) else {
        return pointer.to_owned();
    };
    let nodes = value.get("nodes").and_then(Value::as_array);
    let id_of = |node: &Value| node.get("id").and_then(Value::as_str).map(str::to_owned);
    let own = place
        .parse::<usize>()
        .ok()
        .and_then(|place| nodes?.get(place).and_then(id_of));
    match own
        .filter(|own| nodes.is_some_and(|nodes| nodes.iter().filter_map(id_of).filter(|id| id == own).count() == 1))
    {
        Some(id) => format!("/nodes/{}{rest}", escaped(&id)),
        None => format!("/nodes/[{place}]{rest}"),
    }
}

/// The most findings that a look at a graph gives; whoever has so many has one mistake many times, and answers for all of them
/// would be as large as their cause.
pub const MOST_FINDINGS: usize = 200;

/// Whether there are enough findings: what comes behind is looked at when these are mended.
const fn is_full(findings: &[Finding]) -> bool {
    findings.len() >= MOST_FINDINGS
}

/// Says that there may be more, where that is so.
fn closed(findings: &mut Vec<Finding>) {
    if is_full(findings) {
        findings.truncate(MOST_FINDINGS);
        let message = format!("more than {MOST_FINDINGS} things are wrong; the rest was not looked at");
        findings.push(Finding::new("", "too_many_findings", message).hint("mend these first"));
    }
}

/// Reads what a graph file says.
#[must_use]
pub(in crate::definition) fn read_value(value: &Value) -> ReadGraph {
    if is_too_deep(value) {
        let message = format!("the graph is nested deeper than {DEEPEST} levels");
        let hint = "nest less: what is kept of a run must be readable again";
        return ReadGraph {
            findings: vec![Finding::new("", "too_deep", message).hint(hint)],
            ..ReadGraph::default()
        };
    }
    let mut read = shape::read(value);
    ports::feed(&mut read.graph, None);
    structure::check(&mut read);
    names::check(&mut read);
    closed(&mut read.findings);
    read
}

/// Has the data edges of a graph without findings convert what they carry to what its nodes take. Without that a value goes
/// through as it is, and what it is called with refuses it where it doesn't fit.
pub fn connect(graph: &mut Graph, offer: &Offer<'_>) {
    ports::feed(graph, Some(offer));
}

/// A member's name as a pointer has it.
pub(in crate::definition) fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// What a caller wrote, cut to what a message bears.
fn shown(text: &str) -> String {
    let mut chars = text.chars();
    let mut shown: String = chars.by_ref().take(60).collect();
    if chars.next().is_some() {
        shown.push('…');
    }
    shown
}

/// `a`, `b` and `c` in backticks, at most twelve.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<_> = names.take(13).map(|name| format!("`{}`", shown(name))).collect();
    if names.len() > 12 {
        names.truncate(12);
        names.push("…".to_owned());
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn deep(levels: usize) -> Value {
        (0..levels).fold(json!(1), |inner, _| json!([inner]))
    }

    #[test]
    fn many_mistakes_cost_little_and_are_told_in_part() {
        let nodes: Vec<_> = (0..1_000)
            .map(|number| json!({"id": format!("node-with-a-long-name-{number:036}"), "type": "compute", "value": 1}))
            .collect();
        let edges: Vec<_> = (0..9_999)
            .map(|number| json!({"from": format!("node-with-a-lost-name-{number:036}"), "to": "y1"}))
            .collect();
        let members: serde_json::Map<_, _> = (0..5_000).map(|number| (format!("m{number}"), json!(1))).collect();
        for graph in [
            json!({"name": "g", "nodes": nodes, "edges": edges}),
            json!({"name": "g", "nodes": [{"id": "a", "type": "compute", "value": members.clone()}], "edges": edges}),
            Value::Object(members),
        ] {
            let findings = read_value(&graph).findings;
            assert_eq!(findings.len(), MOST_FINDINGS + 1);
            assert_eq!(findings.last().unwrap().code, "too_many_findings");
        }
    }

    #[test]
    fn what_could_not_be_read_again_is_refused() {
        let graph = |levels| json!({"name": "g", "nodes": [{"id": "a", "type": "compute", "value": deep(levels)}]});
        assert_eq!(read_value(&graph(90)).findings, []);
        let findings = read_value(&graph(DEEPEST)).findings;
        assert_eq!(
            findings.iter().map(|one| one.code.as_str()).collect::<Vec<_>>(),
            ["too_deep"]
        );
    }
}
