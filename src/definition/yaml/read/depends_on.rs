//! What a step waits for → edges, also where it stands in a branch or handles a failure.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Reader;
use crate::definition::yaml::compose::{Kind, Tree};
use crate::definition::yaml::step_types::As;

/// An item of `depends_on`, and what an edge calls it.
const EDGE: [(&str, &str); 5] = [
    ("step", "from"),
    ("on", "on"),
    ("branch", "branch"),
    ("output", "output"),
    ("input", "input"),
];

impl Reader {
    /// The edges that lead to a step. `first` is the edge to what stands in a branch or handles a failure, with the ids of the
    /// steps beside it: a step begins there whatever else it waits for, so what waits only for steps outside has that edge too.
    pub(super) fn waits(&mut self, tree: &Tree, id: &str, first: Option<(&Value, &BTreeSet<&str>)>) {
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
}
