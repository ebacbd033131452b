//! Takes values out of the environment and collects everything that is wrong with them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::env_var::{self, Fallback, Shape, Variable};
use super::environment::Environment;
use super::secret::Secret;
use crate::error::Finding;

/// One pass over the environment. `field` is the dotted path of a value in the printed configuration.
pub(super) struct Reader<'e> {
    pub(super) environment: &'e Environment,
    pub(super) findings: Vec<Finding>,
    pub(super) warnings: Vec<Finding>,
    /// Which value comes from which variable; what is missing here is a default.
    pub(super) origins: BTreeMap<&'static str, String>,
    /// Which variable sets which value.
    pub(super) fields: BTreeMap<&'static str, &'static str>,
}

impl<'e> Reader<'e> {
    pub(super) fn new(environment: &'e Environment) -> Self {
        Self {
            environment,
            findings: Vec::new(),
            warnings: Vec::new(),
            origins: BTreeMap::new(),
            fields: BTreeMap::new(),
        }
    }

    /// Whether it has a value, for variables whose presence alone counts.
    pub(super) fn is_set(&self, variable: &Variable) -> bool {
        self.environment.get(variable).is_some()
    }

    pub(super) fn text(&mut self, field: &'static str, variable: &Variable) -> Option<String> {
        self.fields.insert(variable.name, field);
        if self.environment.is_not_utf8(variable) {
            self.refuse(
                variable,
                "not_utf8",
                format!("`{}` is not valid UTF-8", variable.name),
                None,
            );
            return None;
        }
        let value = self.environment.get(variable)?.to_owned();
        self.origins.insert(field, self.environment.origin(variable));
        Some(value)
    }

    pub(super) fn text_or_default(&mut self, field: &'static str, variable: &Variable) -> String {
        self.text(field, variable)
            .unwrap_or_else(|| default_of(variable).to_owned())
    }

    pub(super) fn secret(&mut self, field: &'static str, variable: &Variable) -> Option<Secret> {
        self.text(field, variable).map(Secret::new)
    }

    /// Absolute; a relative one starts at the working directory.
    pub(super) fn path(&mut self, field: &'static str, variable: &Variable) -> Option<PathBuf> {
        self.text(field, variable)
            .map(|path| self.environment.current_dir().join(path))
    }

    pub(super) fn number(&mut self, field: &'static str, variable: &Variable) -> Option<u64> {
        let Shape::Number(min, max) = variable.shape else {
            unreachable!("`{}` is not a number", variable.name)
        };
        let text = self.text(field, variable)?;
        let hint = format!("give a whole number from {min} to {max}");
        match text.parse::<u64>() {
            Ok(number) if (min..=max).contains(&number) => return Some(number),
            Ok(number) => {
                let message = format!("`{}` is {number}, which is out of range", variable.name);
                self.refuse(variable, "out_of_range", message, Some(hint));
            }
            Err(_) => {
                let message = format!("`{}` is `{text}`, which is not a whole number", variable.name);
                self.refuse(variable, "not_an_integer", message, Some(hint));
            }
        }
        None
    }

    pub(super) fn number_or_default(&mut self, field: &'static str, variable: &Variable) -> u64 {
        self.number(field, variable).unwrap_or_else(|| default_number(variable))
    }

    /// The first of several variables that is set decides; one that a flag has set comes before all. The last one's
    /// default is used when none is.
    pub(super) fn first_number_or_default(&mut self, field: &'static str, variables: &[&Variable]) -> u64 {
        let flag = variables.iter().find(|variable| self.environment.is_flag(variable));
        let set = || variables.iter().find(|variable| self.is_set(variable));
        let Some(chosen) = flag.or_else(set) else {
            return variables.last().map_or(0, |last| default_number(last));
        };
        self.number(field, chosen).unwrap_or_default()
    }

    pub(super) fn choice<T: DeserializeOwned>(&mut self, field: &'static str, variable: &Variable) -> Option<T> {
        let Shape::Choice(words) = variable.shape else {
            unreachable!("`{}` is not a choice", variable.name)
        };
        let text = self.text(field, variable)?;
        let word = text.to_ascii_lowercase();
        if words.contains(&word.as_str()) {
            return serde_json::from_value(Value::String(word)).ok();
        }
        let message = format!("`{}` is `{text}`, which it can't be", variable.name);
        let hint = format!("give one of {}", in_backticks(words));
        self.refuse(variable, "unknown_value", message, Some(hint));
        None
    }

    /// True or false, as declared where nothing is said.
    pub(super) fn switch(&mut self, field: &'static str, variable: &Variable) -> bool {
        let Some(text) = self.text(field, variable) else {
            return variable.fallback == Fallback::Value("true");
        };
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" => true,
            "false" | "0" => false,
            _ => {
                let message = format!("`{}` is `{text}`, which is neither true nor false", variable.name);
                self.refuse(
                    variable,
                    "unknown_value",
                    message,
                    Some("give `true` or `false`".to_owned()),
                );
                false
            }
        }
    }

    pub(super) fn list_or_default(&mut self, field: &'static str, variable: &Variable) -> Vec<String> {
        let text = self.text_or_default(field, variable);
        text.split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    }

    pub(super) fn refuse(&mut self, variable: &Variable, code: &str, message: String, hint: Option<String>) {
        let finding = self.placed(variable.name, code, message, hint);
        self.findings.push(finding);
    }

    pub(super) fn warn(&mut self, name: &str, code: &str, message: String, hint: Option<String>) {
        let finding = self.placed(name, code, message, hint);
        self.warnings.push(finding);
    }

    /// A finding at the place that gives the variable its value, with the name that it has there.
    fn placed(&self, name: &str, code: &str, message: String, hint: Option<String>) -> Finding {
        let given = env_var::find(name).and_then(|variable| self.environment.given(variable).next());
        let Some(given) = given.filter(|given| given.name != name) else {
            return Finding {
                pointer: pointer(name),
                code: code.to_owned(),
                message,
                hint,
            };
        };
        Finding {
            pointer: given.pointer,
            code: code.to_owned(),
            message: message.replace(&format!("`{name}`"), &format!("`{}`", given.name)),
            hint,
        }
    }

    /// Variables that look like ours and are not.
    pub(super) fn warn_of_unknown(&mut self) {
        let environment = self.environment;
        for name in environment.names() {
            if !name.starts_with("WEFT_") || env_var::find(name).is_some() {
                continue;
            }
            let hint = match env_var::nearest(name) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => "docs/env-vars.md lists all variables".to_owned(),
            };
            self.warn(
                name,
                "unknown_variable",
                format!("`{name}` is not a variable that Weft reads"),
                Some(hint),
            );
        }
    }
}

/// The default of a number, as declared.
fn default_number(variable: &Variable) -> u64 {
    default_of(variable)
        .parse()
        .unwrap_or_else(|_| unreachable!("`{}` has a default that is no number", variable.name))
}

fn default_of(variable: &Variable) -> &'static str {
    match variable.fallback {
        Fallback::Value(value) => value,
        Fallback::Unset | Fallback::Words(_) => unreachable!("`{}` has no fixed default", variable.name),
    }
}

fn pointer(name: &str) -> String {
    format!("env:{name}")
}

fn in_backticks(words: &[&str]) -> String {
    words
        .iter()
        .map(|word| format!("`{word}`"))
        .collect::<Vec<_>>()
        .join(", ")
}
