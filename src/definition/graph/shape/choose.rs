//! Nodes of type `choose`: their branches.

use serde_json::Value;

use super::is_id;
use super::members::{Object, Reader};
use crate::definition::graph::shown;
use crate::domain::{Branch, NodeWork};

const MAX_BRANCHES: usize = 100;

impl Reader {
    pub(super) fn choose(&mut self, object: &Object<'_>) -> NodeWork {
        let mut branches: Vec<Branch> = Vec::new();
        if object.get("branches").is_none() {
            self.missing(object, "branches", "a list of `{\"name\": …, \"when\": …}`");
        }
        let items = self.list(object, "branches", MAX_BRANCHES, "branches");
        if items.is_empty() && object.get("branches").is_some_and(Value::is_array) {
            let message = format!("{} has no branches", object.what);
            let hint = "write at least one: `{\"name\": \"large\", \"when\": \"inputs.total > 100\"}`";
            self.add(object.pointer("branches"), "missing_member", message, hint);
        }
        for (index, value) in items.iter().enumerate() {
            let at = format!("{}/branches/{index}", object.at);
            let what = format!("branch {index} of {}", object.what);
            let hint = "write `{\"name\": \"large\", \"when\": \"inputs.total > 100\"}`";
            let Some(branch) = self.object(at, what, value, hint) else {
                continue;
            };
            self.known(&branch, &["name", "when"]);
            let name = self.needed_text(&branch, "name", "a name, for edges");
            if !name.is_empty() && !is_id(&name) {
                let message = format!("`{}` can't be the name of a branch", shown(&name));
                let hint = "write 1 to 63 lower-case letters, digits, `_` and `-`";
                self.add(branch.pointer("name"), "bad_id", message, hint);
            }
            if branches.iter().any(|earlier| earlier.name == name) {
                let message = format!("{} has two branches `{}`", object.what, shown(&name));
                self.add(
                    branch.pointer("name"),
                    "duplicate_branch",
                    message,
                    "give each branch a name of its own",
                );
            }
            let when = self.needed_text(&branch, "when", "an expression");
            branches.push(Branch { name, when });
        }
        let otherwise = self.text(object, "otherwise");
        if let Some(name) = &otherwise
            && !is_id(name)
        {
            let message = format!("`{}` can't be the name of a branch", shown(name));
            let hint = "write 1 to 63 lower-case letters, digits, `_` and `-`";
            self.add(object.pointer("otherwise"), "bad_id", message, hint);
        }
        NodeWork::Choose { branches, otherwise }
    }
}
