//! A file that is a workflow by itself: a graph as JSON, or YAML steps.

use super::graph::{ReadGraph, place_of, read_graph};
use super::yaml::{ReadYaml, in_yaml, read_yaml};
use crate::error::Finding;

/// In which form a workflow is written, with what its findings need to be found again.
#[derive(Debug)]
pub enum Source {
    /// A graph.
    Json,
    /// YAML steps.
    Yaml(Box<ReadYaml>),
}

impl Source {
    /// Reads a file by the ending of its name.
    #[must_use]
    pub fn read(path: &str, text: &str) -> (ReadGraph, Self) {
        if path.ends_with(".yaml") || path.ends_with(".yml") {
            let mut yaml = read_yaml(text);
            let read = std::mem::take(&mut yaml.read);
            return (read, Self::Yaml(Box::new(yaml)));
        }
        (read_graph(text), Self::Json)
    }

    /// A finding in the words of this form.
    #[must_use]
    pub fn in_words(&self, finding: Finding) -> Finding {
        match self {
            Self::Json => finding,
            Self::Yaml(_) => Finding {
                message: in_yaml(&finding.message),
                hint: finding.hint.as_deref().map(in_yaml),
                ..finding
            },
        }
    }

    /// Line and column, from 1, of what a pointer leads to.
    #[must_use]
    pub fn place_of(&self, text: &str, pointer: &str) -> (usize, usize) {
        match self {
            Self::Json => place_of(text, pointer),
            Self::Yaml(yaml) => yaml.place_of(pointer),
        }
    }
}
