//! What every setting is, where it comes from, and what that overrides.

use serde::Serialize;
use serde_json::{Value, json};

use super::Config;
use super::env_var::{self, Fallback, Section, Variable};
use super::environment::Environment;
use super::secret::MASK;

/// A setting with its origin.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explained {
    /// The variable.
    pub variable: &'static str,
    /// Its key in files, where files may set it.
    pub key: Option<String>,
    /// What holds; masked where it is a secret, null where nothing does.
    pub value: Value,
    /// Where that comes from: `default`, a flag, a variable, or `file:line:column`.
    pub origin: String,
    /// What would hold without that, the strongest first.
    pub overrides: Vec<Overridden>,
    /// What holds where nothing is said, in words.
    pub default: String,
    /// What it does.
    pub meaning: &'static str,
}

/// A value that a stronger one has taken the place of.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Overridden {
    /// Where it stands.
    pub origin: String,
    /// What it is; masked where it is a secret.
    pub value: String,
}

impl Config {
    /// Every setting, in the order of the reference. The environment is the one that this was made of.
    #[must_use]
    pub fn explain(&self, environment: &Environment) -> Vec<Explained> {
        let effective = self.redacted();
        let declared = env_var::ALL
            .iter()
            .filter(|variable| variable.section != Section::Tests);
        declared
            .map(|variable| self.explained(variable, environment, &effective))
            .collect()
    }

    fn explained(&self, variable: &'static Variable, environment: &Environment, effective: &Value) -> Explained {
        let masked = |value: &str| {
            if variable.secret {
                MASK.to_owned()
            } else {
                value.to_owned()
            }
        };
        let mut given = environment.given(variable);
        let field = self.fields.get(variable.name).copied();
        let of_field = || {
            let pointer = format!("/{}/value", field?.replace('.', "/"));
            effective.pointer(&pointer).cloned()
        };
        let (value, origin) = match given.next() {
            None if variable.name == env_var::WEFT_ENVIRONMENT.name => {
                let origin = self.origins.get("mode.development").cloned();
                (json!(self.mode.word()), origin.unwrap_or_else(|| "default".to_owned()))
            }
            Some(given) => (json!(masked(given.value)), given.origin),
            None => {
                let origin = field.and_then(|field| self.origins.get(field));
                let default = match variable.fallback {
                    Fallback::Value(value) => json!(value),
                    Fallback::Unset | Fallback::Words(_) => Value::Null,
                };
                (
                    of_field().unwrap_or(default),
                    origin.cloned().unwrap_or_else(|| "default".to_owned()),
                )
            }
        };
        Explained {
            variable: variable.name,
            key: variable.key(),
            value,
            origin,
            overrides: given
                .map(|given| Overridden {
                    value: masked(given.value),
                    origin: given.origin,
                })
                .collect(),
            default: match variable.fallback {
                Fallback::Unset | Fallback::Value("") => "not set".to_owned(),
                Fallback::Value(value) => value.to_owned(),
                Fallback::Words(words) => words.to_owned(),
            },
            meaning: variable.doc,
        }
    }
}
