//! What a kind of node is to those who draw graphs: its ports, and its settings as fields of a form.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{OptionsFrom, PortType};

/// A port of a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default)]
pub struct Port {
    /// Its name, by which edges name it.
    pub name: String,
    /// What goes through it; of one that takes several edges, what each brings.
    #[serde(rename = "type")]
    pub kind: PortType,
    /// Of an input: whether something must come.
    #[serde(skip_serializing_if = "is_false")]
    pub required: bool,
    /// Of an input: whether several edges may lead to it. What comes is a list, in the order of the edges.
    #[serde(skip_serializing_if = "is_false")]
    pub multiple: bool,
    /// Of an output: whether it is all that the step gives, and not a member of it.
    #[serde(skip_serializing_if = "is_false")]
    pub whole: bool,
    /// What it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_false(value: &bool) -> bool {
    !*value
}

impl Port {
    /// A port of this name and type.
    #[must_use]
    pub fn new(name: impl Into<String>, kind: PortType) -> Self {
        Self {
            name: name.into(),
            kind,
            ..Self::default()
        }
    }

    /// The same, to which something must come.
    #[must_use]
    pub fn needed(self) -> Self {
        Self { required: true, ..self }
    }

    /// The same, as all that the step gives.
    #[must_use]
    pub fn all(self) -> Self {
        Self { whole: true, ..self }
    }

    /// The same, with what it is for.
    #[must_use]
    pub fn described(self, description: &str) -> Self {
        Self {
            description: Some(description.to_owned()),
            ..self
        }
    }
}

/// By which field of a form a setting is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SettingKind {
    /// A line of text.
    #[default]
    Text,
    /// Lines of text.
    Multiline,
    /// A number.
    Number,
    /// A whole number.
    Integer,
    /// Yes or no.
    Boolean,
    /// One of `options`.
    Select,
    /// Some of `options`: a list.
    MultiSelect,
    /// A day: `2026-11-29`.
    Date,
    /// A file, as a port of type `file` has it.
    File,
    /// The name of a secret of the organization; never its value.
    Secret,
    /// A list of single values.
    List,
    /// Source text.
    Code,
    /// An expression, as it stands.
    Expression,
    /// Any value, with expressions in it.
    Value,
    /// Values with expressions in them, by name.
    Values,
    /// A list of objects, whose members `fields` describes.
    Table,
}

/// A choice of a setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SettingOption {
    /// What is set.
    pub value: Value,
    /// What a form shows; the value, where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

/// What there is to choose from for a setting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum SettingOptions {
    /// These.
    Listed(Vec<SettingOption>),
    /// What a data provider says.
    From(OptionsFrom),
}

impl Default for SettingOptions {
    fn default() -> Self {
        Self::Listed(Vec::new())
    }
}

impl SettingOptions {
    /// Whether there is nothing to choose from.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        matches!(self, Self::Listed(options) if options.is_empty())
    }

    /// Those that are listed.
    #[must_use]
    pub fn listed(&self) -> &[SettingOption] {
        match self {
            Self::Listed(options) => options,
            Self::From(_) => &[],
        }
    }

    /// The data provider that offers them.
    #[must_use]
    pub const fn from(&self) -> Option<&OptionsFrom> {
        match self {
            Self::Listed(_) => None,
            Self::From(from) => Some(from),
        }
    }
}

/// A setting of a node: a field of its form.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Setting {
    /// Its name.
    pub name: String,
    /// The field.
    pub kind: SettingKind,
    /// What a form shows; the name, where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What a form explains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Whether it must be set.
    pub required: bool,
    /// What it is where it isn't set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// Smallest number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Largest number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
    /// Fewest characters or items.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_length: Option<u64>,
    /// Most characters or items.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u64>,
    /// A regular expression that the whole text matches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// What there is to choose from.
    #[serde(skip_serializing_if = "SettingOptions::is_empty")]
    pub options: SettingOptions,
    /// Of a table, what its rows have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(no_recursion)]
    pub fields: Vec<Setting>,
}

/// A kind of node that graphs may have without anybody declaring it.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BuiltInKind {
    /// As written in `type`.
    pub name: String,
    /// What it is called.
    pub title: String,
    /// What it does, in one sentence.
    pub description: String,
    /// Under what it is listed.
    pub category: String,
    /// Its inputs, beside those of what it calls.
    pub inputs: Vec<Port>,
    /// Its outputs; none named where they are those of what it calls.
    pub outputs: Vec<Port>,
    /// Its settings.
    pub settings: Vec<Setting>,
    /// Whether it calls a function or a workflow, whose parameters are inputs of it as well.
    pub calls: bool,
    /// Whether it tries something: it may have `retry`, `timeoutSeconds` and `cacheSeconds`.
    pub tries: bool,
}
