//! Conditionals → nodes that choose: their branches, the steps in these, and where they meet again.

use serde_json::{Map, Value, json};

use super::Reader;
use super::values::bare;
use crate::definition::yaml::compose::{Kind, Place, Tree};
use crate::definition::yaml::step_types::As;

/// Where a conditional's branches meet again.
pub(super) struct Meet {
    id: String,
    place: Place,
    /// Of each branch, its name and the edges from what ends it.
    branches: Vec<(String, Vec<Value>)>,
}

impl Reader {
    /// The branches of a conditional by name, each with its condition.
    pub(super) fn choose(&mut self, tree: &Tree, what: &str, at: &str, node: &mut Map<String, Value>) {
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
    pub(super) fn branches(&mut self, tree: &Tree, id: &str, phase: &str) {
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
    pub(super) fn meet(&mut self) {
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
