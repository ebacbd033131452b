//! The parameters of a graph: which there are, and whether their patterns and defaults are any good.

use serde_json::{Map, Value};

use super::members::{Object, Reader};
use crate::definition::graph::shown;
use crate::definition::parameters::{compile, validate};
use crate::domain::{Parameter, ParameterType, SecretName};

const PARAMETER: [&str; 15] = [
    "name",
    "type",
    "label",
    "required",
    "default",
    "has_default",
    "help",
    "min",
    "max",
    "min_length",
    "max_length",
    "pattern",
    "enum",
    "data_provider",
    "options",
];
const MAX_PARAMETERS: usize = 200;

impl Reader {
    pub(super) fn parameters(&mut self, whole: &Object<'_>) -> Vec<Parameter> {
        let mut parameters: Vec<Parameter> = Vec::new();
        for (index, value) in self
            .list(whole, "parameters", MAX_PARAMETERS, "parameters")
            .iter()
            .enumerate()
        {
            let at = format!("/parameters/{index}");
            let what = match value.get("name").and_then(Value::as_str) {
                Some(name) => format!("parameter `{}`", shown(name)),
                None => format!("parameter {index}"),
            };
            let hint = "write `{\"name\": \"order_id\", \"type\": \"integer\"}`";
            let Some(object) = self.object(at, what, value, hint) else {
                continue;
            };
            self.known(&object, &PARAMETER);
            if let Some(parameter) = self.parameter(&object) {
                if parameters.iter().any(|earlier| earlier.name == parameter.name) {
                    let hint = "give each parameter a name of its own";
                    self.add(
                        object.pointer("name"),
                        "duplicate_parameter",
                        format!("{} is there twice", object.what),
                        hint,
                    );
                }
                parameters.push(parameter);
            }
        }
        parameters
    }

    fn parameter(&mut self, object: &Object<'_>) -> Option<Parameter> {
        let name = self.needed_text(object, "name", "a name, as in Python");
        let known: Map<String, Value> = object
            .members
            .iter()
            .filter(|(name, value)| PARAMETER.contains(&name.as_str()) && (!value.is_null() || *name == "default"))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        // As it is written back: `null`, which is no default where `has_default` says so.
        let has_none = known.get("has_default") == Some(&Value::Bool(false));
        let has_default = known.get("default").is_some_and(|value| !(has_none && value.is_null()));
        let mut parameter: Parameter = match serde_json::from_value(Value::Object(known)) {
            Ok(parameter) => parameter,
            Err(error) => {
                let message = format!("{} can't be read: {error}", object.what);
                let hint = "docs/graphs.md lists the members of a parameter with their types";
                self.add(object.at.as_str(), "bad_parameter", message, hint);
                return None;
            }
        };
        parameter.has_default |= has_default;
        let is_identifier = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && name.len() <= 63;
        if !name.is_empty() && !is_identifier {
            let message = format!("`{}` can't be the name of a parameter", shown(&name));
            let hint = "begin with a letter, and write letters, digits and `_`";
            self.add(object.pointer("name"), "bad_parameter", message, hint);
        }
        if let Some(error) = parameter.pattern.as_deref().and_then(|pattern| compile(pattern).err()) {
            let message = format!("the pattern of {} can't be used: {error}", object.what);
            let hint = "use a pattern without look-around and back-references";
            self.add(object.pointer("pattern"), "bad_parameter", message, hint);
            return None;
        }
        if parameter.kind == ParameterType::Secret {
            self.secrets_to_choose_from(object, &parameter);
        }
        if parameter.has_default && (parameter.required || !parameter.default.is_null()) {
            let given = Map::from_iter([(parameter.name.clone(), parameter.default.clone())]);
            for finding in validate(std::slice::from_ref(&parameter), &given)
                .err()
                .unwrap_or_default()
            {
                let message = format!("the default of {} doesn't fit: {}", object.what, finding.message);
                self.add(
                    object.pointer("default"),
                    "bad_parameter",
                    message,
                    "give a default that the parameter takes",
                );
            }
        }
        Some(parameter)
    }

    /// Whoever starts a run chooses among the secrets that stand in the file, and no others.
    fn secrets_to_choose_from(&mut self, object: &Object<'_>, parameter: &Parameter) {
        let are_names = parameter.values.as_ref().is_some_and(|values| {
            !values.is_empty()
                && values
                    .iter()
                    .all(|value| value.as_str().is_some_and(|name| name.parse::<SecretName>().is_ok()))
        });
        if !are_names {
            let message = format!("{} must say which secrets may be chosen", object.what);
            let hint = "write their names: `\"enum\": [\"API_KEY\", \"TEST_API_KEY\"]`";
            self.add(object.pointer("enum"), "bad_parameter", message, hint);
        }
    }
}
