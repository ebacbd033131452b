//! A workflow written as YAML steps ⇄ a graph.
//!
//! A file is read into a tree with places (`compose.rs`), and translated (`read.rs`) into what a graph file says, with the place of
//! each of its members; so everything that is checked of a graph is checked of it too, and said with line and column. `write.rs`
//! goes the other way. `step_types.rs` says which steps there are, `words.rs` says of steps what is said of nodes.

mod compose;
mod read;
mod schema;
mod step_types;
mod words;
mod write;

pub use read::{ReadYaml, read_yaml};
pub use schema::json_schema_of_yaml;
pub use write::to_yaml;

/// What a finding of a graph says, in the words of YAML.
pub(super) fn in_yaml(text: &str) -> String {
    words::of_edges(&words::in_yaml(text))
}
