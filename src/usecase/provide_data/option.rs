//! What a data provider has returned, as options of a field: a value, what a form shows, and what explains it.

use serde_json::Value;

use crate::error::Kind;
use crate::usecase::{Error, Result};

/// Most options of a field.
const MOST: usize = 10_000;

/// A value that may be chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct DataOption {
    /// What is chosen.
    pub value: Value,
    /// What a form shows.
    pub label: String,
    /// What a form explains.
    pub description: Option<String>,
    /// Whatever else the provider says of it.
    pub metadata: Option<Value>,
}

impl DataOption {
    /// One of this value, which speaks for itself.
    pub(super) fn plain(value: &str) -> Self {
        Self {
            value: Value::from(value),
            label: value.to_owned(),
            description: None,
            metadata: None,
        }
    }

    /// Whether a text is in it, in either case; `part` is in lower case.
    pub(super) fn says(&self, part: &str) -> bool {
        let holds = |text: &str| text.to_lowercase().contains(part);
        holds(&self.label) || holds(&shown(&self.value)) || self.description.as_deref().is_some_and(holds)
    }
}

fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The options in an answer.
///
/// # Errors
/// `options_invalid`, which names the provider and the first mistake.
pub(super) fn read(provider: &str, answer: &Value) -> Result<Vec<DataOption>> {
    let wrong = |detail: String| Error::Request {
        kind: Kind::CodeFailed,
        code: "options_invalid",
        detail: format!("data provider `{provider}` has returned no options: {detail}"),
        hint: Some("have it return a list of `{\"value\": …, \"label\": \"…\"}`, or of single values".to_owned()),
        findings: Vec::new(),
    };
    let Some(items) = answer.as_array() else {
        return Err(wrong("what it has returned is no list".to_owned()));
    };
    if items.len() > MOST {
        let detail = format!(
            "it has {}, and a field has at most {MOST}; have it take `search`, and return what fits",
            items.len()
        );
        return Err(wrong(detail));
    }
    items
        .iter()
        .enumerate()
        .map(|(index, item)| one(item).map_err(|error| wrong(format!("item {index} {error}"))))
        .collect()
}

fn one(item: &Value) -> std::result::Result<DataOption, &'static str> {
    let members = match item {
        Value::String(text) => return Ok(DataOption::plain(text)),
        Value::Number(_) | Value::Bool(_) => {
            return Ok(DataOption {
                label: item.to_string(),
                value: item.clone(),
                description: None,
                metadata: None,
            });
        }
        Value::Object(members) => members,
        Value::Null | Value::Array(_) => return Err("is neither an object nor a single value"),
    };
    let get = |name: &str| members.get(name).filter(|member| !member.is_null());
    let value = get("value").ok_or("has no `value`")?;
    let text = |name: &str, wrong| match get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(wrong),
    };
    Ok(DataOption {
        value: value.clone(),
        label: text("label", "has a `label` that is no text")?.unwrap_or_else(|| shown(value)),
        description: text("description", "has a `description` that is no text")?,
        metadata: get("metadata").cloned(),
    })
}

/// Whether two values are the same choice: `3` and `3.0` are.
pub(super) fn same(one: &Value, other: &Value) -> bool {
    one == other || (one.is_number() && other.is_number() && one.as_f64() == other.as_f64())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::Coded as _;

    #[test]
    fn options_are_objects_or_single_values() {
        let answer = json!(["a", 2, true, {"value": "x", "label": "X", "description": "An x", "metadata": {"of": 1}}, {"value": 3}]);
        let options = read("p", &answer).unwrap();
        let labels: Vec<_> = options.iter().map(|option| option.label.as_str()).collect();
        assert_eq!(labels, ["a", "2", "true", "X", "3"]);
        assert_eq!(options[3].metadata, Some(json!({"of": 1})));
        assert!(options[3].says("an x") && options[3].says("x") && !options[3].says("y"));
        assert!(same(&json!(3), &json!(3.0)) && !same(&json!("3"), &json!(3)));
    }

    #[test]
    fn a_mistake_names_the_provider_and_the_item() {
        for (answer, said) in [
            (json!({"data": []}), "is no list"),
            (json!(["a", {"label": "X"}]), "item 1 has no `value`"),
            (json!([null]), "item 0 is neither"),
            (json!([{"value": 1, "label": 1}]), "a `label` that is no text"),
            (json!(vec![1; MOST + 1]), "at most 10000"),
        ] {
            let error = read("cities", &answer).unwrap_err();
            assert_eq!(error.code(), "options_invalid");
            let text = error.to_string();
            assert!(text.contains("`cities`") && text.contains(said), "{text}");
        }
    }
}
