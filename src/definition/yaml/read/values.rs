//! Values of a YAML file → values of a graph: what is an expression, what is a length of time, and what stays as it is
//! written.

use serde_json::{Map, Value, json};

use super::Reader;
use crate::definition::expression::{MARK, TEXT_MARK};
use crate::definition::template::code_end;
use crate::definition::yaml::compose::{Kind, Tree};
use crate::definition::yaml::step_types::As;

impl Reader {
    /// Translates a member and keeps its place.
    pub(super) fn put(&mut self, into: &mut Map<String, Value>, at: &str, name: &str, tree: &Tree, how: As) {
        let pointer = format!("{at}/{name}");
        self.places.insert(pointer.clone(), tree.place);
        let value = self.value(tree, &pointer, how);
        into.insert(name.to_owned(), value);
    }

    /// Translates a value, and keeps the places of what is inside of it.
    pub(super) fn value(&mut self, tree: &Tree, pointer: &str, how: As) -> Value {
        match (&tree.kind, how) {
            (Kind::Scalar(text, _), As::Expression) => json!(bare(text)),
            (Kind::Scalar(text, _), As::Command) => json!(text),
            (Kind::Scalar(text, _), As::Seconds) => self.seconds(tree, text),
            (Kind::Scalar(text, _), As::Written) => {
                if text.contains("{{") {
                    interpolated(text)
                } else {
                    as_written(tree, text)
                }
            }
            (Kind::Scalar(text, _), As::Value | As::Plain) => {
                if how == As::Value && text.contains("{{") {
                    interpolated(text)
                } else {
                    tree.scalar().unwrap_or_default()
                }
            }
            (Kind::List(items), _) => {
                let how = how.inside();
                let items = items.iter().enumerate().map(|(index, item)| {
                    let pointer = format!("{pointer}/{index}");
                    self.places.insert(pointer.clone(), item.place);
                    self.value(item, &pointer, how)
                });
                Value::Array(items.collect())
            }
            (Kind::Map(members), _) => {
                let how = how.inside();
                let members = members.iter().map(|(name, _, member)| {
                    let pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
                    self.places.insert(pointer.clone(), member.place);
                    // What is an expression in a graph is one here.
                    let how = if matches!(name.as_str(), MARK | TEXT_MARK) {
                        As::Plain
                    } else {
                        how
                    };
                    (name.clone(), self.value(member, &pointer, how))
                });
                Value::Object(members.collect())
            }
        }
    }

    fn seconds(&mut self, tree: &Tree, text: &str) -> Value {
        if text.contains("{{") {
            return interpolated(text);
        }
        if let Some(number @ Value::Number(_)) = tree.scalar() {
            return number;
        }
        let units = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3_600.0), ("d", 86_400.0)];
        let found = units.iter().find_map(|(unit, seconds)| {
            let number: f64 = text.trim().strip_suffix(unit)?.trim().parse().ok()?;
            (number.is_finite() && number >= 0.0).then_some(number * seconds)
        });
        match found {
            Some(seconds) => json!(seconds),
            None => {
                let shown: String = text.chars().take(40).collect();
                self.wrong(
                    tree.place,
                    "wrong_type",
                    format!("`{shown}` is no length of time"),
                    "write seconds, or a number with a unit: `90`, `1.5s`, `10m`, `2h`, `1d`",
                );
                Value::Null
            }
        }
    }
}

/// A plain scalar where a text is meant: a value only where it would be written just so.
fn as_written(tree: &Tree, text: &str) -> Value {
    match tree.scalar() {
        Some(value @ (Value::Number(_) | Value::Bool(_))) if is_written_as(&value, text) => value,
        _ => json!(text),
    }
}

/// An expression without the braces that may stand around it.
pub(super) fn bare(text: &str) -> &str {
    whole(text).unwrap_or_else(|| text.trim())
}

/// The expression that a text is, where it is nothing but one interpolation.
fn whole(text: &str) -> Option<&str> {
    let inside = text.trim().strip_prefix("{{")?;
    let end = code_end(inside, 0, "}}")?;
    (end + 2 == inside.len()).then(|| inside[..end].trim())
}

/// A text with interpolations as a graph has it.
fn interpolated(text: &str) -> Value {
    match whole(text) {
        Some(expression) if text.trim() == text => json!({MARK: expression}),
        _ => json!({TEXT_MARK: text}),
    }
}

/// Whether a value is written just like that.
fn is_written_as(value: &Value, text: &str) -> bool {
    let written = value.to_string();
    written == text
}
