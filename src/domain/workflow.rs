//! What a bundle declares: workflows, their parameters, data providers, nodes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    DeclaredLimits, Graph, LibraryVersion, OptionsFrom, Port, PortType, RetryPolicy, Rights, SecurityProfile, Trust,
};

/// The type of a parameter, as declared in Python.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ParameterType {
    /// Text.
    String,
    /// A whole number of 64 bits.
    Integer,
    /// A finite number.
    Number,
    /// True or false.
    Boolean,
    /// A JSON object; Python's `dict`.
    Object,
    /// A JSON array; Python's `list`.
    Array,
    /// Text with the form of an e-mail address.
    Email,
    /// Any JSON value.
    Json,
    /// A small file as data; inside of a run also an artifact of it.
    File,
    /// An absolute address, `http` or `https`.
    Url,
    /// Bytes as base64.
    Binary,
    /// Any value.
    Any,
    /// The name of a secret of the organization, one of those that the declaration names; never its value.
    Secret,
}

impl ParameterType {
    /// As written in declarations and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Object => "object",
            Self::Array => "array",
            Self::Email => "email",
            Self::Json => "json",
            Self::File => "file",
            Self::Url => "url",
            Self::Binary => "binary",
            Self::Any => "any",
            Self::Secret => "secret",
        }
    }

    /// The type of a port that feeds it; none for secrets, which nothing that a step gives may choose.
    #[must_use]
    pub const fn port(self) -> Option<PortType> {
        Some(match self {
            Self::String | Self::Email => PortType::String,
            Self::Integer => PortType::Integer,
            Self::Number => PortType::Number,
            Self::Boolean => PortType::Boolean,
            Self::Object => PortType::Object,
            Self::Array => PortType::Array,
            Self::Json => PortType::Json,
            Self::File => PortType::File,
            Self::Url => PortType::Url,
            Self::Binary => PortType::Binary,
            Self::Any => PortType::Any,
            Self::Secret => return None,
        })
    }
}

/// A declared input of a workflow or data provider.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Parameter {
    /// Its name, a Python identifier.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: ParameterType,
    /// What a form shows.
    pub label: Option<String>,
    /// Whether an argument must be given.
    pub required: bool,
    /// What is used when none is given.
    pub default: Value,
    /// Whether there is a default; tells a default of null from none.
    pub has_default: bool,
    /// What a form explains.
    pub help: Option<String>,
    /// Smallest number, included.
    pub min: Option<f64>,
    /// Largest number, included.
    pub max: Option<f64>,
    /// Fewest characters or items.
    pub min_length: Option<u64>,
    /// Most characters or items.
    pub max_length: Option<u64>,
    /// A regular expression that the whole text matches.
    pub pattern: Option<String>,
    /// The only values.
    #[serde(rename = "enum")]
    pub values: Option<Vec<Value>>,
    /// The data provider that offers values, by its name alone.
    pub data_provider: Option<String>,
    /// The data provider that offers values, with what it is asked with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<OptionsFrom>,
}

impl Parameter {
    /// Where its options come from, whichever way that is written.
    #[must_use]
    pub fn options_from(&self) -> Option<OptionsFrom> {
        let short = || self.data_provider.as_deref().map(OptionsFrom::provider);
        self.options.clone().or_else(short)
    }
}

impl Default for Parameter {
    fn default() -> Self {
        Self {
            name: String::new(),
            kind: ParameterType::Json,
            label: None,
            required: false,
            default: Value::Null,
            has_default: false,
            help: None,
            min: None,
            max: None,
            min_length: None,
            max_length: None,
            pattern: None,
            values: None,
            data_provider: None,
            options: None,
        }
    }
}

/// What happens to an attempt whose end nobody saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnCrash {
    /// It is made again, with the same idempotency key.
    #[default]
    Retry,
    /// The step fails.
    Fail,
}

/// By which decorator a function is declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeclaredAs {
    /// `@workflow`.
    #[default]
    Workflow,
    /// `@data_provider`.
    DataProvider,
    /// `@node`.
    Node,
}

impl DeclaredAs {
    /// As the runner's protocol and audit records have it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Workflow => "workflow",
            Self::DataProvider => "data_provider",
            Self::Node => "node",
        }
    }
}

/// A workflow, data provider or node as its decorator, or its graph, declares it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Declared {
    /// Its name, unique in the bundle.
    pub name: String,
    /// The module in the bundle.
    pub module: String,
    /// The file, as shown to people.
    pub path: String,
    /// The line of its definition.
    pub line: u64,
    /// The function.
    pub function: String,
    /// One sentence.
    pub description: String,
    /// For lists.
    pub category: String,
    /// For search.
    pub tags: Vec<String>,
    /// The security profile that it asks for.
    pub security_profile: Option<SecurityProfile>,
    /// Time limit of one attempt, in seconds.
    pub timeout_seconds: f64,
    /// What one attempt may use otherwise.
    pub limits: DeclaredLimits,
    /// When a failed attempt is made again.
    pub retry: RetryPolicy,
    /// Hosts that it wants to reach; `*` is every public one.
    pub network: Vec<String>,
    /// Secrets that it may ask for, by name.
    pub secrets: Vec<String>,
    /// What happens to an attempt whose end nobody saw.
    pub on_crash: OnCrash,
    /// Inputs.
    pub parameters: Vec<Parameter>,
    /// For nodes: which parameters edges may feed, and with what; none for all of them.
    pub inputs: Option<Vec<Port>>,
    /// For nodes: what edges may take from it; none that are named for whatever it gives.
    pub outputs: Vec<Port>,
    /// For data providers: how long an answer may be kept, in seconds.
    pub cache_ttl_seconds: u64,
    /// For data providers: whether the answer depends on who asks. Otherwise the code isn't told.
    pub uses_caller: bool,
    /// For nodes: how far their code is trusted.
    pub trust: Option<Trust>,
    /// By which decorator.
    #[serde(skip)]
    pub declared_as: DeclaredAs,
    /// The version of a node type, of one that the library has.
    #[serde(skip)]
    pub authored: Option<Arc<LibraryVersion>>,
    /// The graph, of a workflow that is one; then there is no function.
    #[serde(skip)]
    pub graph: Option<Arc<Graph>>,
}

impl Declared {
    /// What an attempt of it may do, by its declaration alone.
    #[must_use]
    pub fn rights(&self) -> Rights {
        let rights = Rights::of_workspace(&self.network);
        Rights {
            trust: self.trust.unwrap_or(rights.trust),
            ..rights
        }
    }

    /// The inputs that edges may feed.
    #[must_use]
    pub fn input_ports(&self) -> Vec<Port> {
        if let Some(version) = &self.authored {
            return version.document.inputs.clone();
        }
        let is_port = |name: &String| match &self.inputs {
            Some(inputs) => inputs.iter().any(|port| port.name == *name),
            None => true,
        };
        let said = |name: &String| self.inputs.iter().flatten().find(|port| port.name == *name);
        let parameters = self.parameters.iter().filter(|parameter| is_port(&parameter.name));
        parameters
            .filter_map(|parameter| {
                Some(Port {
                    required: parameter.required && !parameter.has_default,
                    description: parameter.help.clone(),
                    ..match said(&parameter.name) {
                        Some(port) => port.clone(),
                        None => Port::new(&parameter.name, parameter.kind.port()?),
                    }
                })
            })
            .filter(|port| {
                self.parameters
                    .iter()
                    .all(|one| one.name != port.name || one.kind.port().is_some())
            })
            .collect()
    }

    /// The outputs that edges may take; none where that is whatever it gives. One alone is all that it gives, of several each is
    /// a member of it.
    #[must_use]
    pub fn output_ports(&self) -> Vec<Port> {
        if let Some(version) = &self.authored {
            return version.document.outputs.clone();
        }
        match self.outputs.as_slice() {
            [one] => vec![one.clone().all()],
            several => several.to_vec(),
        }
    }
}

impl Default for Declared {
    fn default() -> Self {
        Self {
            name: String::new(),
            module: String::new(),
            path: String::new(),
            line: 0,
            function: String::new(),
            description: String::new(),
            category: "General".to_owned(),
            tags: Vec::new(),
            security_profile: None,
            timeout_seconds: 300.0,
            limits: DeclaredLimits::default(),
            retry: RetryPolicy::default(),
            network: Vec::new(),
            secrets: Vec::new(),
            on_crash: OnCrash::Retry,
            parameters: Vec::new(),
            inputs: None,
            outputs: Vec::new(),
            cache_ttl_seconds: 0,
            uses_caller: false,
            trust: None,
            declared_as: DeclaredAs::Workflow,
            authored: None,
            graph: None,
        }
    }
}
