//! The edges of a graph: from where to where, and what they carry.

use super::members::{Object, Reader};
use crate::definition::graph::shown;
use crate::domain::{Edge, MAX_EDGES};

impl Reader {
    pub(super) fn edges(&mut self, whole: &Object<'_>) -> Vec<Edge> {
        let mut edges = Vec::new();
        for (index, value) in self.list(whole, "edges", MAX_EDGES, "edges").iter().enumerate() {
            let at = format!("/edges/{index}");
            let what = format!("edge {index}");
            let hint = "write `{\"from\": \"fetch\", \"to\": \"each\"}`";
            let Some(edge) = self.object(at, what, value, hint) else {
                edges.push(Edge::new("", ""));
                continue;
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
}
