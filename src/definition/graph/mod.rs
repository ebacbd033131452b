//! A graph file → a graph, or everything that is wrong with it at once.
//!
//! [`read_graph`] looks at the file alone: its shape (`shape.rs`), how its nodes follow each other (`structure.rs`), what its
//! expressions name (`names.rs`). [`check_against`] looks at what the workspace declares besides (`calls.rs`, `ports.rs`),
//! [`check_library`] at the node types that it uses (`library.rs`), and [`connect`] lets data edges convert what they carry to what
//! is declared. Findings point at
//! places as a JSON pointer does, but a node is named by its id: `/nodes/fetch/inputs/id`. A node without a good id of its own
//! is named by its place: `/nodes/[3]/id`. `place.rs` turns such a pointer into line and column.

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

use crate::domain::Graph;
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
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => {
            let message = format!("the file is no JSON: {error}");
            let finding = Finding::new("", "not_json", message).hint("mend it at the line and column that it names");
            return ReadGraph {
                findings: vec![finding],
                ..ReadGraph::default()
            };
        }
    };
    read_value(&value)
}

/// Reads what a graph file says.
#[must_use]
pub(in crate::definition) fn read_value(value: &Value) -> ReadGraph {
    let mut read = shape::read(value);
    ports::feed(&mut read.graph, None);
    structure::check(&mut read);
    names::check(&mut read);
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
