//! A graph as somebody authored it: nodes, edges, and what they say of each other. What reads and checks it is in `definition`,
//! what executes it is a plan of the scheduler.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::{
    DependsOn, ItemFailure, Join, OnCrash, OnFailure, Parameter, Phase, PortType, RetryPolicy, SecurityProfile,
};

/// Most nodes of a graph.
pub const MAX_NODES: usize = 1_000;
/// Most edges of a graph.
pub const MAX_EDGES: usize = 10_000;
/// Most steps and items of one run that have begun and not ended; the others wait for room. Bounds what one transition
/// writes and what a checkpoint holds.
pub const MAX_ACTIVE: u32 = 64;
/// The same where a graph says nothing.
pub const DEFAULT_ACTIVE: u32 = 32;
/// Most items of a map.
pub const MAX_ITEMS: u32 = 10_000;
/// Items of a map at once where it says nothing.
pub const DEFAULT_AT_ONCE: u32 = 10;
/// Most iterations of a loop.
pub const MAX_ITERATIONS: u32 = 1_000;
/// Longest pause, and longest time limit of a step, in seconds: 30 days.
pub const MAX_STEP_SECONDS: u32 = 30 * 86_400;
/// Longest time limit of a run that a graph may ask for, in seconds: 90 days. The installation's own holds as well.
pub const MAX_RUN_SECONDS: u32 = 90 * 86_400;
/// Most people whose agreement an approval may need.
pub const MAX_NEEDED: u32 = 20;
/// Most notes of a graph.
pub const MAX_NOTES: usize = 200;
/// Longest label of a node, in characters.
pub const MAX_LABEL: usize = 200;
/// The largest number of a position, to either side, and of a size.
pub const FARTHEST: f64 = 1_000_000.0;
/// For how long people may decide where an approval says nothing, in seconds: 7 days.
pub const DEFAULT_WITHIN_SECONDS: u32 = 7 * 86_400;

/// A graph.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Graph {
    /// The workflow's name, unique in the bundle.
    pub name: String,
    /// The author's own version of it, a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// One sentence.
    pub description: String,
    /// For lists.
    pub category: String,
    /// For search.
    pub tags: Vec<String>,
    /// Inputs.
    pub parameters: Vec<Parameter>,
    /// Its steps.
    pub nodes: Vec<Node>,
    /// How they follow each other.
    pub edges: Vec<Edge>,
    /// The result: a value with expressions in it. None for the output of the only node that nothing follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Most steps and items at once, at most [`MAX_ACTIVE`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<u32>,
    /// Time limit of the run, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_seconds: Option<f64>,
    /// The security profile that it asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub security_profile: Option<SecurityProfile>,
    /// What stands beside its nodes where it is drawn.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<Note>,
}

/// A place where a graph is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Position {
    /// To the right.
    pub x: f64,
    /// Downwards.
    pub y: f64,
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        two(serializer, "Position", ("x", self.x), ("y", self.y))
    }
}

/// How large something is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Size {
    /// From left to right.
    pub width: f64,
    /// From top to bottom.
    pub height: f64,
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        two(serializer, "Size", ("width", self.width), ("height", self.height))
    }
}

/// Two numbers as they are written: 16 and not 16.0.
fn two<S: Serializer>(
    serializer: S,
    name: &'static str,
    one: (&'static str, f64),
    other: (&'static str, f64),
) -> Result<S::Ok, S::Error> {
    let mut written = serializer.serialize_struct(name, 2)?;
    for (name, number) in [one, other] {
        #[expect(clippy::cast_possible_truncation, reason = "whole, and far within 53 bits")]
        if number.fract() == 0.0 && number.abs() <= FARTHEST {
            written.serialize_field(name, &(number as i64))?;
        } else {
            written.serialize_field(name, &number)?;
        }
    }
    written.end()
}

/// A note.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Note {
    /// Its id, unique among the notes.
    pub id: String,
    /// What it says.
    pub text: String,
    /// Where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// How large it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Size>,
}

/// What an e-mail says and whom it goes to.
pub const MESSAGE: [&str; 9] = [
    "from",
    "replyTo",
    "to",
    "cc",
    "bcc",
    "subject",
    "text",
    "html",
    "attachments",
];

/// What a node does.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case", rename_all_fields = "camelCase")]
pub enum NodeWork {
    /// A Python function.
    Python {
        /// Its declared name.
        #[serde(rename = "use")]
        function: String,
    },
    /// A node type of the library.
    #[serde(rename = "node")]
    Library {
        /// Its name and exact version, as `shout@1.2.0`.
        #[serde(rename = "use")]
        node_type: String,
        /// Its settings, each a value, or `{"$secret": "NAME"}`.
        #[serde(skip_serializing_if = "Map::is_empty")]
        settings: Map<String, Value>,
    },
    /// A run of another workflow.
    Workflow {
        /// The workflow.
        workflow: String,
    },
    /// An action for each item of a list.
    Map {
        /// The action.
        #[serde(flatten)]
        calls: Calls,
        /// The list: a value with expressions in it.
        #[serde(skip_serializing_if = "Value::is_null")]
        items: Value,
        /// Items at once.
        at_once: u32,
        /// What the failure of an item does.
        on_item_failure: ItemFailure,
        /// Of a node type of the library, its settings.
        #[serde(skip_serializing_if = "Map::is_empty")]
        settings: Map<String, Value>,
    },
    /// An action again and again.
    Loop {
        /// The action.
        #[serde(flatten)]
        calls: Calls,
        /// An expression; true after an iteration ends the loop.
        until: String,
        /// Most iterations.
        most: u32,
        /// Of a node type of the library, its settings.
        #[serde(skip_serializing_if = "Map::is_empty")]
        settings: Map<String, Value>,
    },
    /// One of several branches.
    Choose {
        /// The first whose expression is true is taken.
        branches: Vec<Branch>,
        /// The branch that is taken when none is true.
        #[serde(skip_serializing_if = "Option::is_none")]
        otherwise: Option<String>,
    },
    /// A command in the jail.
    Shell {
        /// A command line, in which interpolations are parameters; or a program and its arguments, each a value.
        command: Value,
        /// Of a command line, what `sh` gets.
        #[serde(skip)]
        script: Option<Script>,
        /// Variables, each a value, or `{"$secret": "NAME"}`.
        #[serde(skip_serializing_if = "Map::is_empty")]
        environment: Map<String, Value>,
        /// The folder in which it begins, below the step's own; none for that.
        #[serde(skip_serializing_if = "Option::is_none")]
        working_directory: Option<String>,
        /// Whether what it writes is a part of its output.
        capture_output: bool,
        /// Exit codes that are a success.
        expect: Vec<u8>,
        /// Hosts that it may reach.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        network: Vec<String>,
    },
    /// A request.
    Http {
        /// `GET`, `POST`, …
        method: String,
        /// Where to, a value.
        #[serde(skip_serializing_if = "Value::is_null")]
        url: Value,
        /// What is put behind the `?` of the address, each a value.
        #[serde(skip_serializing_if = "Map::is_empty")]
        query: Map<String, Value>,
        /// Headers, each a value.
        #[serde(skip_serializing_if = "Map::is_empty")]
        headers: Map<String, Value>,
        /// What is sent: a text as it is, anything else as JSON.
        #[serde(skip_serializing_if = "Option::is_none")]
        body: Option<Value>,
        /// Statuses that are a success; none for 200 to 299.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        expect: Vec<u16>,
        /// Hosts that it may reach.
        network: Vec<String>,
    },
    /// A message, handed to a mail server.
    Email {
        /// The server with its port, as `smtp.example.com:587`: written, never worked out.
        server: String,
        /// How the connection is kept private: `starttls`, `tls`, `none`.
        security: String,
        /// `user` and `password`, each a value, or `{"$secret": "NAME"}`; empty for a server that asks for none.
        #[serde(skip_serializing_if = "Map::is_empty")]
        credentials: Map<String, Value>,
        /// The members of the message ([`MESSAGE`]), each a value.
        #[serde(flatten)]
        message: Map<String, Value>,
    },
    /// A file of a value, or a value of a file.
    File {
        /// Which of both.
        action: FileAction,
        /// As what the value is written, or the file is read.
        format: FileFormat,
        /// Of one that is made, what is in it: a value.
        #[serde(skip_serializing_if = "Option::is_none")]
        content: Option<Value>,
        /// Of one that is made, its name, a value.
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<Value>,
        /// Of one that is made, its media type; none for that of the format.
        #[serde(skip_serializing_if = "Option::is_none")]
        media_type: Option<String>,
        /// Of one that is made, where its bytes are.
        #[serde(skip_serializing_if = "Option::is_none")]
        store: Option<FileStore>,
        /// The file that is read, a value.
        #[serde(skip_serializing_if = "Option::is_none")]
        file: Option<Value>,
        /// Of CSV, whether its first row names the columns; none for yes.
        #[serde(skip_serializing_if = "Option::is_none")]
        header: Option<bool>,
        /// Of CSV, what stands between fields; none for a comma.
        #[serde(skip_serializing_if = "Option::is_none")]
        delimiter: Option<String>,
    },
    /// Something that must be so.
    Assert {
        /// An expression.
        condition: String,
        /// What is said when it isn't: a value.
        message: Value,
        /// What that means.
        on_false: OnFalse,
    },
    /// A text, worked out.
    Template {
        /// A template.
        template: String,
    },
    /// A value, worked out.
    Compute {
        /// A value with expressions in it.
        value: Value,
    },
    /// Nothing, for a while.
    Delay {
        /// Seconds, or an expression that gives them.
        #[serde(skip_serializing_if = "Value::is_null")]
        seconds: Value,
    },
    /// A wait for people.
    Approval {
        /// How many must agree.
        needed: u32,
        /// How long they have.
        within_seconds: f64,
        /// What they are asked: a value with expressions in it.
        question: Value,
    },
}

/// A command line for `sh -c`, in which nothing is interpolated any more.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Script {
    /// What `sh` reads.
    pub text: String,
    /// The expressions whose values are its parameters, from `$1` on.
    pub parameters: Vec<String>,
    /// The programs that it starts; none where they can't be told.
    pub programs: Option<Vec<String>>,
}

/// What a map or a loop does for each item or iteration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Calls {
    /// A Python function, by its declared name.
    #[serde(rename = "use")]
    Function(String),
    /// A node type of the library, by its name and exact version.
    #[serde(rename = "use")]
    Version(String),
    /// A run of another workflow.
    #[serde(rename = "workflow")]
    Workflow(String),
}

/// What a node calls, by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Called<'a> {
    /// A Python function.
    Function(&'a str),
    /// A workflow.
    Workflow(&'a str),
    /// A version of a node type of the library.
    Version(&'a str),
}

impl NodeWork {
    /// As written in `type`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Python { .. } => "python",
            Self::Library { .. } => "node",
            Self::Workflow { .. } => "workflow",
            Self::Map { .. } => "map",
            Self::Loop { .. } => "loop",
            Self::Choose { .. } => "choose",
            Self::Shell { .. } => "shell",
            Self::Http { .. } => "http",
            Self::Email { .. } => "email",
            Self::File { .. } => "file",
            Self::Assert { .. } => "assert",
            Self::Template { .. } => "template",
            Self::Compute { .. } => "compute",
            Self::Delay { .. } => "delay",
            Self::Approval { .. } => "approval",
        }
    }

    /// What it calls, where it calls something.
    #[must_use]
    pub fn called(&self) -> Option<Called<'_>> {
        match self {
            Self::Python { function } => Some(Called::Function(function)),
            Self::Library { node_type, .. } => Some(Called::Version(node_type)),
            Self::Workflow { workflow } => Some(Called::Workflow(workflow)),
            Self::Map { calls, .. } | Self::Loop { calls, .. } => Some(match calls {
                Calls::Function(name) => Called::Function(name),
                Calls::Version(name) => Called::Version(name),
                Calls::Workflow(name) => Called::Workflow(name),
            }),
            _ => None,
        }
    }

    /// The node type of the library that it uses, by name and version, and what that is set to.
    #[must_use]
    pub const fn version(&self) -> Option<(&str, &Map<String, Value>)> {
        match self {
            Self::Library { node_type, settings }
            | Self::Map {
                calls: Calls::Version(node_type),
                settings,
                ..
            }
            | Self::Loop {
                calls: Calls::Version(node_type),
                settings,
                ..
            } => Some((node_type.as_str(), settings)),
            _ => None,
        }
    }

    /// Which of its own members data edges may feed. Other inputs are those of what it calls.
    #[must_use]
    pub const fn own_inputs(&self) -> &'static [&'static str] {
        match self {
            Self::Map { .. } => &["items"],
            Self::Http { .. } => &["url", "body"],
            Self::Email { .. } => &["to", "subject", "text", "html", "attachments"],
            Self::File { .. } => &["content", "file"],
            Self::Compute { .. } => &["value"],
            Self::Delay { .. } => &["seconds"],
            Self::Approval { .. } => &["question"],
            Self::Python { .. }
            | Self::Library { .. }
            | Self::Workflow { .. }
            | Self::Loop { .. }
            | Self::Choose { .. }
            | Self::Shell { .. }
            | Self::Assert { .. }
            | Self::Template { .. } => &[],
        }
    }

    /// The names of its branches, where it chooses.
    pub fn branches(&self) -> impl Iterator<Item = &str> {
        let (branches, otherwise) = match self {
            Self::Choose { branches, otherwise } => (branches.as_slice(), otherwise.as_deref()),
            _ => (&[][..], None),
        };
        branches.iter().map(|branch| branch.name.as_str()).chain(otherwise)
    }
}

/// What a step does with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileAction {
    /// It is made of a value.
    #[default]
    Write,
    /// A value is made of it.
    Read,
}

/// What is in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileFormat {
    /// A text, as UTF-8.
    #[default]
    Text,
    /// Bytes; their value is base64.
    Base64,
    /// Any value as JSON.
    Json,
    /// Rows.
    Csv,
}

impl FileFormat {
    /// What a file is made of, or what is made of it.
    #[must_use]
    pub const fn port(self) -> PortType {
        match self {
            Self::Text => PortType::String,
            Self::Base64 => PortType::Binary,
            Self::Json => PortType::Any,
            Self::Csv => PortType::Array,
        }
    }
}

/// Where the bytes of a file are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileStore {
    /// They are an artifact of the run.
    Artifact,
    /// They are in the value itself, which other runs can be given.
    Inline,
}

/// What it means when something isn't that must be so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnFalse {
    /// The step fails.
    #[default]
    Fail,
    /// As `continue`, and the log of the instance has a warning.
    Warn,
    /// The step succeeds, and says so: its output has `passed` and the message.
    Continue,
}

/// A branch of a choice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Branch {
    /// Its name, for edges.
    pub name: String,
    /// An expression.
    pub when: String,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its id: `[a-z0-9_-]`, at most 63 characters.
    pub id: String,
    /// What it is called where it is drawn; its id, where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Where it is drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<Position>,
    /// What it does.
    #[serde(flatten)]
    pub work: NodeWork,
    /// What its action is given: values with expressions in them. None gives it the run's arguments, or the item.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Map<String, Value>>,
    /// What data edges give its inputs, as values with expressions in them.
    #[serde(skip)]
    pub fed: Map<String, Value>,
    /// An expression; false skips the step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// When its time comes.
    pub phase: Phase,
    /// How many of its edges count.
    pub join: Join,
    /// What its failure means for the run.
    pub on_failure: OnFailure,
    /// When a failed attempt is made again; none for what the function declares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// What happens to an attempt whose end nobody saw; none for what the function declares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_crash: Option<OnCrash>,
    /// Time limit of the step as a whole, attempts and pauses included, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<f64>,
    /// For how long its result may be taken from an earlier run, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_seconds: Option<u64>,
}

impl Node {
    /// A node with every setting as it is without one.
    #[must_use]
    pub fn new(id: impl Into<String>, work: NodeWork) -> Self {
        Self {
            id: id.into(),
            label: None,
            position: None,
            work,
            inputs: None,
            fed: Map::new(),
            when: None,
            phase: Phase::Main,
            join: Join::All,
            on_failure: OnFailure::Fail,
            retry: None,
            on_crash: None,
            timeout_seconds: None,
            cache_seconds: None,
        }
    }

    /// A member of its own, or what a data edge gives in its place.
    #[must_use]
    pub fn member<'a>(&'a self, name: &str, own: &'a Value) -> &'a Value {
        self.fed.get(name).unwrap_or(own)
    }

    /// What its action is given, data edges included. None gives it the run's arguments, or the item.
    #[must_use]
    pub fn given(&self) -> Option<Map<String, Value>> {
        let to_action = self
            .fed
            .iter()
            .filter(|(name, _)| !self.work.own_inputs().contains(&name.as_str()));
        let fed: Map<String, Value> = to_action.map(|(name, value)| (name.clone(), value.clone())).collect();
        if fed.is_empty() {
            return self.inputs.clone();
        }
        let mut given = self.inputs.clone().unwrap_or_default();
        given.extend(fed);
        Some(given)
    }
}

/// An edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Edge {
    /// The earlier node.
    pub from: String,
    /// The later node.
    pub to: String,
    /// What of the earlier one it wants.
    pub on: DependsOn,
    /// The branch that the earlier one must have taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// Of a data edge, the output of the earlier node; none for all that it gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// Of a data edge, the input of the later node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
}

impl Edge {
    /// An edge that comes when the earlier node has succeeded.
    #[must_use]
    pub fn new(from: impl Into<String>, to: impl Into<String>) -> Self {
        Self {
            from: from.into(),
            to: to.into(),
            on: DependsOn::Success,
            branch: None,
            output: None,
            input: None,
        }
    }
}

impl Graph {
    /// Where each node stands, by its id; of several with one id, the first.
    #[must_use]
    pub fn places(&self) -> HashMap<&str, usize> {
        let mut places = HashMap::with_capacity(self.nodes.len());
        for (place, node) in self.nodes.iter().enumerate() {
            places.entry(node.id.as_str()).or_insert(place);
        }
        places
    }

    /// The places of the nodes so that edges point forwards, otherwise as in the file; and those for which there is no such
    /// place, because they are in a circle or behind one.
    #[must_use]
    pub fn order(&self) -> (Vec<usize>, Vec<usize>) {
        let places = self.places();
        let mut waits = vec![0_usize; self.nodes.len()];
        let mut followers = vec![Vec::new(); self.nodes.len()];
        for edge in &self.edges {
            if let (Some(from), Some(to)) = (places.get(edge.from.as_str()), places.get(edge.to.as_str())) {
                followers[*from].push(*to);
                waits[*to] += 1;
            }
        }
        let mut free: BinaryHeap<Reverse<usize>> = (0..waits.len())
            .filter(|place| waits[*place] == 0)
            .map(Reverse)
            .collect();
        let mut order = Vec::with_capacity(waits.len());
        while let Some(Reverse(place)) = free.pop() {
            order.push(place);
            for follower in &followers[place] {
                waits[*follower] -= 1;
                if waits[*follower] == 0 {
                    free.push(Reverse(*follower));
                }
            }
        }
        let rest = (0..waits.len()).filter(|place| waits[*place] > 0).collect();
        (order, rest)
    }
}
