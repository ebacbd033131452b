//! What differs between two graphs: nodes by their ids, edges by what they join, and everything by JSON pointers. The same two
//! graphs always give the same list.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::graph::escaped;

/// What has happened to a part of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It is gone.
    Removed,
    /// It is another.
    Changed,
    /// Its nodes stand in another order.
    Reordered,
}

/// One difference.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// What has happened.
    pub kind: ChangeKind,
    /// To what: `node`, `edge` or `member` (of the graph itself).
    pub part: &'static str,
    /// The node's id, or the edge as `from -> to`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Where: a JSON pointer in which a node is named by its id (`/nodes/fetch/inputs/id`), and an edge as in `id`.
    pub pointer: String,
    /// What was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub from: Option<Value>,
    /// What is there now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub to: Option<Value>,
}

/// What is to be changed to make one graph of the other: members of the graph by name, then nodes and edges, each in the order
/// of the later graph, with what is gone first.
#[must_use]
pub fn difference(from: &Value, to: &Value) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut members = Found {
        part: "member",
        id: None,
        changes: &mut changes,
    };
    let without_parts = |graph: &Value| {
        let mut members = graph.as_object().cloned().unwrap_or_default();
        members.retain(|name, _| name != "nodes" && name != "edges");
        Value::Object(members)
    };
    members.below("", Some(&without_parts(from)), Some(&without_parts(to)));
    let (before, after) = (named(from, "nodes", node_id), named(to, "nodes", node_id));
    parts("node", "/nodes", &before, &after, &mut changes);
    let common = |all: &[(String, &Value)], others: &[(String, &Value)]| -> Vec<String> {
        let others: BTreeMap<&str, ()> = others.iter().map(|(id, _)| (id.as_str(), ())).collect();
        let stays = all.iter().filter(|(id, _)| others.contains_key(id.as_str()));
        stays.map(|(id, _)| id.clone()).collect()
    };
    if common(&before, &after) != common(&after, &before) {
        let order = |all: &[(String, &Value)]| Value::from(all.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>());
        changes.push(Change {
            kind: ChangeKind::Reordered,
            part: "node",
            id: None,
            pointer: "/nodes".to_owned(),
            from: Some(order(&before)),
            to: Some(order(&after)),
        });
    }
    let (before, after) = (named(from, "edges", edge_id), named(to, "edges", edge_id));
    parts("edge", "/edges", &before, &after, &mut changes);
    changes
}

/// The parts of a list, each with what it is known by; of several that are known by the same, each with its number.
fn named<'a>(graph: &'a Value, list: &str, id: fn(&Value) -> Option<String>) -> Vec<(String, &'a Value)> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let parts = graph.get(list).and_then(Value::as_array).into_iter().flatten();
    parts
        .enumerate()
        .map(|(place, part)| {
            let id = id(part).unwrap_or_else(|| format!("[{place}]"));
            let times = seen.entry(id.clone()).or_default();
            *times += 1;
            let id = if *times > 1 { format!("{id} ({times})") } else { id };
            (id, part)
        })
        .collect()
}

fn node_id(node: &Value) -> Option<String> {
    node.get("id").and_then(Value::as_str).map(str::to_owned)
}

/// An edge by what it joins, and what it wants: two edges of a good graph never have all of it in common.
fn edge_id(edge: &Value) -> Option<String> {
    let text = |name: &str| edge.get(name).and_then(Value::as_str);
    let end = |node: &str, port: &str| {
        let node = text(node)?;
        Some(text(port).map_or_else(|| node.to_owned(), |port| format!("{node}.{port}")))
    };
    let mut id = format!("{} -> {}", end("from", "output")?, end("to", "input")?);
    if let Some(on) = text("on").filter(|on| *on != "success") {
        id = format!("{id} on {on}");
    }
    if let Some(branch) = text("branch") {
        id = format!("{id} branch {branch}");
    }
    Some(id)
}

fn parts(
    part: &'static str,
    at: &str,
    before: &[(String, &Value)],
    after: &[(String, &Value)],
    changes: &mut Vec<Change>,
) {
    let earlier: BTreeMap<&str, &Value> = before.iter().map(|(id, value)| (id.as_str(), *value)).collect();
    let later: BTreeMap<&str, &Value> = after.iter().map(|(id, value)| (id.as_str(), *value)).collect();
    let gone = before.iter().filter(|(id, _)| !later.contains_key(id.as_str()));
    for (id, was, is) in gone.map(|(id, value)| (id, Some(*value), None)).chain(
        after
            .iter()
            .map(|(id, value)| (id, earlier.get(id.as_str()).copied(), Some(*value))),
    ) {
        let mut found = Found {
            part,
            id: Some(id),
            changes,
        };
        found.below(&format!("{at}/{}", escaped(id)), was, is);
    }
}

/// Where differences of one part go.
struct Found<'a> {
    part: &'static str,
    id: Option<&'a String>,
    changes: &'a mut Vec<Change>,
}

impl Found<'_> {
    /// The deepest members that differ. Lists are compared as a whole: what an item is known by, nobody says.
    fn below(&mut self, pointer: &str, from: Option<&Value>, to: Option<&Value>) {
        match (from, to) {
            (Some(Value::Object(from)), Some(Value::Object(to))) => {
                for name in names(from, to) {
                    self.below(&format!("{pointer}/{}", escaped(name)), from.get(name), to.get(name));
                }
            }
            (None, None) => {}
            (Some(from), Some(to)) if from == to => {}
            (from, to) => self.changes.push(Change {
                kind: match (from, to) {
                    (None, _) => ChangeKind::Added,
                    (_, None) => ChangeKind::Removed,
                    _ => ChangeKind::Changed,
                },
                part: self.part,
                id: self.id.cloned(),
                pointer: pointer.to_owned(),
                from: from.cloned(),
                to: to.cloned(),
            }),
        }
    }
}

/// The names of both, each once, sorted.
fn names<'a>(one: &'a Map<String, Value>, other: &'a Map<String, Value>) -> std::collections::BTreeSet<&'a str> {
    one.keys().chain(other.keys()).map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(from: &Value, to: &Value) -> Vec<String> {
        let said = difference(from, to).into_iter().map(|change| {
            let kind = serde_json::to_value(change.kind).unwrap();
            format!("{} {} {}", kind.as_str().unwrap(), change.part, change.pointer)
        });
        said.collect()
    }

    #[test]
    fn nodes_edges_and_members_are_told_by_id_and_pointer() {
        let from = json!({"name": "a", "description": "one", "tags": ["x"],
            "nodes": [{"id": "fetch", "type": "python", "use": "f", "inputs": {"a/b": 1, "c": 2}}, {"id": "old", "type": "compute", "value": 1},
                {"id": "last", "type": "compute", "value": 2}],
            "edges": [{"from": "fetch", "to": "old"}, {"from": "fetch", "to": "last", "on": "failure"}]});
        let to = json!({"name": "a", "tags": ["x", "y"], "active": 4,
            "nodes": [{"id": "last", "value": 2, "type": "compute"},
                {"id": "fetch", "type": "python", "use": "f", "inputs": {"a/b": 9, "c": 2}}, {"id": "new", "type": "compute", "value": 3}],
            "edges": [{"from": "fetch", "to": "last"}, {"from": "fetch", "to": "last", "on": "failure"}]});
        let expected = [
            "added member /active",
            "removed member /description",
            "changed member /tags",
            "removed node /nodes/old",
            "changed node /nodes/fetch/inputs/a~1b",
            "added node /nodes/new",
            "reordered node /nodes",
            "removed edge /edges/fetch -> old",
            "added edge /edges/fetch -> last",
        ];
        assert_eq!(said(&from, &to), expected);
        assert_eq!(said(&from, &from), [""; 0]);
    }

    #[test]
    fn what_has_no_id_is_told_by_its_place_and_doubles_by_their_number() {
        let from = json!({"nodes": [{"type": "compute"}, {"id": "a"}, {"id": "a", "x": 1}]});
        let to = json!({"nodes": [{"type": "delay"}, {"id": "a"}, {"id": "a", "x": 2}]});
        assert_eq!(
            said(&from, &to),
            ["changed node /nodes/[0]/type", "changed node /nodes/a (2)/x"]
        );
    }
}
