//! Nodes that call something again and again: maps, once for each item of a list, and loops, until an expression says so.

use serde_json::{Map, Value};

use super::members::{Object, Reader};
use crate::definition::expression;
use crate::domain::{Calls, DEFAULT_AT_ONCE, ItemFailure, MAX_ACTIVE, MAX_ITEMS, MAX_ITERATIONS, NodeWork};

/// What only maps have.
pub(super) const MAP: &[&str] = &["use", "workflow", "settings", "items", "atOnce", "onItemFailure"];
/// What only loops have.
pub(super) const LOOP: &[&str] = &["use", "workflow", "settings", "until", "most"];

impl Reader {
    pub(super) fn map(&mut self, object: &Object<'_>) -> NodeWork {
        NodeWork::Map {
            calls: self.calls(object),
            settings: self.settings(object),
            items: self.items(object),
            at_once: self
                .number(object, "atOnce", 1..=u64::from(MAX_ACTIVE))
                .unwrap_or(DEFAULT_AT_ONCE),
            on_item_failure: self.item_failure(object),
        }
    }

    /// A loop, whose own name is a word of Rust.
    pub(super) fn repeat(&mut self, object: &Object<'_>) -> NodeWork {
        NodeWork::Loop {
            calls: self.calls(object),
            settings: self.settings(object),
            until: self.needed_text(object, "until", "an expression that ends it, as `output.done`"),
            most: {
                if object.get("most").is_none() {
                    self.missing(object, "most", "the number of iterations after which it fails");
                }
                self.number(object, "most", 1..=u64::from(MAX_ITERATIONS)).unwrap_or(1)
            },
        }
    }

    fn calls(&mut self, object: &Object<'_>) -> Calls {
        match (object.get("use"), object.get("workflow")) {
            (None, Some(_)) => Calls::Workflow(self.text(object, "workflow").unwrap_or_default()),
            (Some(_), None) => self.used(object),
            (None, None) => {
                self.missing(
                    object,
                    "use",
                    "the name of a function, a node type of the library as `shout@1.2.0`, or `workflow` that of a workflow",
                );
                Calls::Function(String::new())
            }
            (Some(_), Some(_)) => {
                let message = format!("{} has `use` and `workflow`", object.what);
                self.add(
                    object.pointer("workflow"),
                    "unknown_member",
                    message,
                    "take one of them out",
                );
                self.used(object)
            }
        }
    }

    /// The function or node type that a map or loop calls.
    fn used(&mut self, object: &Object<'_>) -> Calls {
        match self.text(object, "use").unwrap_or_default() {
            // No function has such a name.
            version if version.contains('@') => Calls::Version(version),
            function => Calls::Function(function),
        }
    }

    /// What the node type is set to that a map or loop calls.
    fn settings(&mut self, object: &Object<'_>) -> Map<String, Value> {
        let settings = self.values(object, "settings");
        let is_version = object
            .get("use")
            .and_then(Value::as_str)
            .is_some_and(|used| used.contains('@'));
        if !settings.is_empty() && !is_version {
            let message = format!("{} has `settings`, and calls no node type of the library", object.what);
            let hint = "name the node type in `use`, with its exact version as `shout@1.2.0`; what a function or a workflow is \
                        given stands in `inputs`";
            self.add(object.pointer("settings"), "unknown_member", message, hint);
        }
        settings
    }

    fn items(&mut self, object: &Object<'_>) -> Value {
        let items = self.needed_value(object, "items", "a list, or an expression that gives one");
        match &items {
            Value::Array(list) if list.len() > MAX_ITEMS as usize => {
                let message = format!(
                    "`items` of {} has {} items; a map takes at most {MAX_ITEMS}",
                    object.what,
                    list.len()
                );
                self.add(
                    object.pointer("items"),
                    "too_many_items",
                    message,
                    "map over parts of the list",
                );
            }
            Value::Array(_) => {}
            other if expression::marked(other).is_some() || !object.members.contains_key("items") => {}
            Value::Null if self.is_fed(object, "items") => {}
            _ => {
                let message = format!("`items` of {} is no list", object.what);
                let hint = "write a list, or an expression: `{\"$\": \"steps.fetch.output.lines\"}`";
                self.add(object.pointer("items"), "items_not_a_list", message, hint);
            }
        }
        items
    }

    fn item_failure(&mut self, object: &Object<'_>) -> ItemFailure {
        match object.get("onItemFailure") {
            None => ItemFailure::Fail,
            Some(Value::Object(members)) => {
                let inner = object.inner("onItemFailure", members);
                self.known(&inner, &["at_most"]);
                if inner.get("at_most").is_none() {
                    self.missing(&inner, "at_most", "how many items may fail");
                }
                let most = self.number(&inner, "at_most", 0..=u64::from(MAX_ITEMS));
                most.map_or(ItemFailure::Fail, ItemFailure::AtMost)
            }
            Some(_) => self
                .choice(object, "onItemFailure", &["fail", "continue"])
                .unwrap_or_default(),
        }
    }
}
