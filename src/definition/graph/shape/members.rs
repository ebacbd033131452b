//! Reads members of objects by their types: each method gives what is there, or says what is wrong with it.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::definition::expression;
use crate::definition::graph::{escaped, is_full, listed, shown};
use crate::definition::parameters::nearest;
use crate::error::Finding;

const LONGEST_TEXT: usize = 4_000;

/// An object of the file, with its pointer and what it is.
pub(super) struct Object<'a> {
    /// Where it is, as a JSON pointer.
    pub(super) at: String,
    /// What it is called in messages, as ``node `fetch` ``.
    pub(super) what: String,
    pub(super) members: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    /// A member; null is as good as none.
    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.members.get(name).filter(|value| !value.is_null())
    }

    /// Where a member of it is.
    pub(super) fn pointer(&self, name: &str) -> String {
        format!("{}/{}", self.at, escaped(name))
    }

    /// A member that is an object itself.
    pub(super) fn inner<'b>(&self, name: &str, members: &'b Map<String, Value>) -> Object<'b> {
        Object {
            at: self.pointer(name),
            what: format!("`{name}` of {}", self.what),
            members,
        }
    }
}

/// What is found on the way through a file.
pub(super) struct Reader {
    pub(super) findings: Vec<Finding>,
    /// The inputs that data edges feed, each with its node's id: their members need not be there.
    pub(super) fed: HashSet<(String, String)>,
}

impl Reader {
    /// Adds a finding, as long as there are not too many.
    pub(super) fn add(&mut self, pointer: impl Into<String>, code: &str, message: String, hint: impl Into<String>) {
        if !is_full(&self.findings) {
            self.findings.push(Finding::new(pointer, code, message).hint(hint));
        }
    }

    /// Says which members there are not.
    pub(super) fn known(&mut self, object: &Object<'_>, known: &[&str]) {
        for name in object.members.keys().filter(|name| !known.contains(&name.as_str())) {
            if is_full(&self.findings) {
                return;
            }
            let hint = match nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!(
                    "there is {}",
                    known
                        .iter()
                        .map(|name| format!("`{name}`"))
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            };
            let message = format!("{} has no member `{}`", object.what, shown(name));
            self.add(object.pointer(name), "unknown_member", message, hint);
        }
    }

    /// Says that a member is not there, and what it should be.
    pub(super) fn missing(&mut self, object: &Object<'_>, name: &str, expected: &str) {
        let message = format!("{} needs `{name}`", object.what);
        self.add(
            object.pointer(name),
            "missing_member",
            message,
            format!("give it {expected}"),
        );
    }

    /// Says that a member is of another type than it should be.
    pub(super) fn wrong_type(&mut self, object: &Object<'_>, name: &str, expected: &str) {
        let message = format!("`{name}` of {} must be {expected}", object.what);
        let hint = format!("write {expected}");
        self.add(object.pointer(name), "wrong_type", message, hint);
    }

    /// An item of a list that must be an object, with its pointer and what it is.
    pub(super) fn object<'a>(&mut self, at: String, what: String, value: &'a Value, hint: &str) -> Option<Object<'a>> {
        let Some(members) = value.as_object() else {
            self.add(at, "wrong_type", format!("{what} must be an object"), hint);
            return None;
        };
        Some(Object { at, what, members })
    }

    /// A text, where there is one.
    pub(super) fn text(&mut self, object: &Object<'_>, name: &str) -> Option<String> {
        match object.get(name)? {
            Value::String(text) if text.len() <= LONGEST_TEXT => Some(text.clone()),
            Value::String(_) => {
                let message = format!("`{name}` of {} is longer than {LONGEST_TEXT} bytes", object.what);
                self.add(object.pointer(name), "out_of_range", message, "shorten it");
                None
            }
            _ => {
                self.wrong_type(object, name, "a text");
                None
            }
        }
    }

    /// A text that must be there; none is the empty one.
    pub(super) fn needed_text(&mut self, object: &Object<'_>, name: &str, expected: &str) -> String {
        if object.get(name).is_none() {
            self.missing(object, name, expected);
        }
        self.text(object, name).unwrap_or_default()
    }

    /// Whether a data edge feeds a member that isn't written; null is as good as none there.
    pub(super) fn is_fed(&self, object: &Object<'_>, name: &str) -> bool {
        let id = object.members.get("id").and_then(Value::as_str).unwrap_or_default();
        object.get(name).is_none() && self.fed.contains(&(id.to_owned(), name.to_owned()))
    }

    /// A value that must be there, where no edge feeds it; none is null.
    pub(super) fn needed_value(&mut self, object: &Object<'_>, name: &str, expected: &str) -> Value {
        if self.is_fed(object, name) {
            return Value::Null;
        }
        // A value of null is a value.
        match object.members.get(name) {
            Some(value) => value.clone(),
            None => {
                self.missing(object, name, expected);
                Value::Null
            }
        }
    }

    /// A list of texts, where there is one.
    pub(super) fn texts(&mut self, object: &Object<'_>, name: &str, most: usize) -> Option<Vec<String>> {
        let list = object.get(name)?.as_array().map(|items| {
            let texts: Option<Vec<_>> = items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
            texts.filter(|texts| texts.len() <= most)
        });
        let list = list.flatten();
        if list.is_none() {
            self.wrong_type(object, name, &format!("a list of at most {most} texts"));
        }
        list
    }

    fn out_of_range(&mut self, object: &Object<'_>, name: &str, low: &str, high: &str) {
        let message = format!("`{name}` of {} must be from {low} to {high}", object.what);
        self.add(
            object.pointer(name),
            "out_of_range",
            message,
            format!("write a number from {low} to {high}"),
        );
    }

    /// A whole number within a range, where there is one.
    pub(super) fn number<T: TryFrom<u64>>(
        &mut self,
        object: &Object<'_>,
        name: &str,
        range: RangeInclusive<u64>,
    ) -> Option<T> {
        let value = object.get(name)?;
        let Some(number) = value.as_f64() else {
            self.wrong_type(object, name, "a whole number");
            return None;
        };
        if number.fract() != 0.0 {
            self.wrong_type(object, name, "a whole number");
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "what is outside is outside of the range too"
        )]
        let whole = if number < 0.0 { None } else { Some(number as u64) };
        let inside = whole.filter(|whole| range.contains(whole));
        if inside.is_none() {
            self.out_of_range(object, name, &range.start().to_string(), &range.end().to_string());
        }
        inside.and_then(|whole| T::try_from(whole).ok())
    }

    /// A number from `low` to `high`, where there is one.
    pub(super) fn seconds(&mut self, object: &Object<'_>, name: &str, low: f64, high: f64) -> Option<f64> {
        let value = object.get(name)?;
        let Some(number) = value.as_f64() else {
            self.wrong_type(object, name, "a number");
            return None;
        };
        if (low..=high).contains(&number) {
            return Some(number);
        }
        self.out_of_range(object, name, &low.to_string(), &high.to_string());
        None
    }

    /// One of the known words, where there is one.
    pub(super) fn choice<T: DeserializeOwned>(&mut self, object: &Object<'_>, name: &str, known: &[&str]) -> Option<T> {
        let value = object.get(name)?;
        let chosen = value.as_str().filter(|text| known.contains(text));
        if chosen.is_none() {
            let message = format!(
                "`{name}` of {} must be one of {}",
                object.what,
                listed(known.iter().copied())
            );
            self.add(
                object.pointer(name),
                "not_one_of",
                message,
                format!("write {}", listed(known.iter().copied())),
            );
        }
        chosen.and_then(|text| serde_json::from_value(json!(text)).ok())
    }

    /// The items of a list, or nothing.
    pub(super) fn list<'a>(&mut self, object: &Object<'a>, name: &str, most: usize, what: &str) -> &'a [Value] {
        match object.get(name) {
            None => &[],
            Some(Value::Array(items)) if items.len() <= most => items,
            Some(Value::Array(items)) => {
                let message = format!("{} has {} {what}, and may have {most}", object.what, items.len());
                let code = if name == "nodes" { "too_many_nodes" } else { "too_many" };
                let hint = "move a part of it into a workflow of its own, and call that with a node of type `workflow`";
                self.add(object.pointer(name), code, message, hint);
                &items[..most]
            }
            Some(_) => {
                self.wrong_type(object, name, "a list");
                &[]
            }
        }
    }

    /// An object of values.
    pub(super) fn values(&mut self, object: &Object<'_>, name: &str) -> Map<String, Value> {
        match object.get(name) {
            None => Map::new(),
            Some(Value::Object(values)) if expression::marked(&Value::Object(values.clone())).is_none() => {
                values.clone()
            }
            Some(_) => {
                self.wrong_type(object, name, "an object of values by name");
                Map::new()
            }
        }
    }
}
