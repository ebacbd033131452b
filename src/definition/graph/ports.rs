//! Data edges: which ports nodes have, what fits to what, and the values with expressions that carry what one node gives to the
//! inputs of another.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::{Value, json};

use super::{Offer, is_full, listed, shown};
use crate::definition::node_kinds::built_in_kinds;
use crate::definition::parameters::nearest;
use crate::domain::{
    BuiltInKind, Called, DependsOn, Edge, FileAction, Fit, Graph, Node, NodeWork, Parameter, Port, PortType, assignable,
};
use crate::error::Finding;

/// The filter that brings a value from one port to another.
pub(in crate::definition) const PORT: &str = "weft_port";

/// The ports of nodes, as far as it is known what they call.
struct Ports<'a> {
    kinds: BTreeMap<String, BuiltInKind>,
    offer: Option<&'a Offer<'a>>,
}

/// The ports at one end of an edge.
#[derive(Clone, Default)]
struct Side {
    ports: Vec<Port>,
    /// Whether there may be others.
    is_open: bool,
}

impl Side {
    fn named(&self, name: &str) -> Option<&Port> {
        self.ports.iter().find(|port| port.name == name)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.ports.iter().map(|port| port.name.as_str())
    }
}

/// The ports of declared parameters.
fn of_parameters(parameters: &[Parameter]) -> Vec<Port> {
    let port = |parameter: &Parameter| {
        Some(Port {
            required: parameter.required && !parameter.has_default,
            ..Port::new(&parameter.name, parameter.kind.port()?)
        })
    };
    parameters.iter().filter_map(port).collect()
}

impl<'a> Ports<'a> {
    fn new(offer: Option<&'a Offer<'a>>) -> Self {
        let kinds = built_in_kinds().into_iter().map(|kind| (kind.name.clone(), kind));
        Self {
            kinds: kinds.collect(),
            offer,
        }
    }

    fn inputs(&self, node: &Node) -> Side {
        let own = self.kinds.get(node.work.kind());
        let mut ports: Vec<Port> = own.map(|kind| kind.inputs.clone()).unwrap_or_default();
        if let NodeWork::File { action, format, .. } = &node.work {
            // The table has what there is of both actions.
            ports = vec![match action {
                FileAction::Write => Port::new("content", format.port()).needed(),
                FileAction::Read => Port::new("file", PortType::File).needed(),
            }];
        }
        let of_callee = match (node.work.called(), self.offer) {
            (None, _) => Some(Vec::new()),
            (Some(Called::Function(name) | Called::Version(name)), Some(offer)) => {
                offer.functions.get(name).map(|one| one.input_ports())
            }
            (Some(Called::Workflow(name)), Some(offer)) => offer.workflows.get(name).map(|all| of_parameters(all)),
            (Some(_), None) => None,
        };
        let is_open = of_callee.is_none();
        let own: HashSet<String> = ports.iter().map(|port| port.name.clone()).collect();
        // What it has of its own goes before a parameter of the same name.
        ports.extend(of_callee.into_iter().flatten().filter(|port| !own.contains(&port.name)));
        Side { ports, is_open }
    }

    fn outputs(&self, node: &Node) -> Side {
        let ports = match (&node.work, node.work.called(), self.offer) {
            (
                NodeWork::Python { .. } | NodeWork::Library { .. },
                Some(Called::Function(name) | Called::Version(name)),
                Some(offer),
            ) => offer
                .functions
                .get(name)
                .map(|one| one.output_ports())
                .unwrap_or_default(),
            (NodeWork::Python { .. } | NodeWork::Workflow { .. } | NodeWork::Library { .. }, ..) => Vec::new(),
            (NodeWork::File { action, format, .. }, ..) => vec![match action {
                FileAction::Write => Port::new("file", PortType::File).all(),
                FileAction::Read => Port::new("content", format.port()).all(),
            }],
            _ => self
                .kinds
                .get(node.work.kind())
                .map(|kind| kind.outputs.clone())
                .unwrap_or_default(),
        };
        let is_open = ports.is_empty() && node.work.called().is_some();
        Side { ports, is_open }
    }
}

/// What an output is of, and whether it is all that the step gives.
fn output<'a>(side: &'a Side, edge: &Edge) -> Result<(PortType, bool), Option<&'a str>> {
    let Some(name) = &edge.output else {
        return match side.ports.as_slice() {
            [] if side.is_open => Ok((PortType::Any, true)),
            // It gives nothing.
            [] => Err(None),
            [one] if one.whole => Ok((one.kind, true)),
            _ => Ok((PortType::Object, true)),
        };
    };
    match side.named(name) {
        Some(port) => Ok((port.kind, port.whole)),
        None if side.is_open => Ok((PortType::Any, false)),
        None => Err(nearest(name, side.names())),
    }
}

// ── checks ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// What can be said of a data edge without knowing what is called.
pub(super) fn check_form(index: usize, edge: &Edge, findings: &mut Vec<Finding>) {
    let mut add = |member: &str, code: &str, message: String, hint: &str| {
        findings.push(Finding::new(format!("/edges/{index}/{member}"), code, message).hint(hint));
    };
    if let (Some(output), None) = (&edge.output, &edge.input) {
        add(
            "output",
            "data_edge_half",
            format!(
                "edge {index} takes `{output}` of `{}`, and says not where to",
                shown(&edge.from)
            ),
            "name the input of the later node in `input`, or take `output` out",
        );
    }
    if edge.input.is_some() && edge.on != DependsOn::Success {
        add(
            "on",
            "data_edge_needs_success",
            format!("edge {index} carries a value, and need not have one"),
            "take `on` out: only a step that has succeeded gives something; or look at it in an expression",
        );
    }
}

/// What of the data edges of node types of the library doesn't fit, where it is known what these take and give. Others are looked
/// at with the rest of what a graph calls.
#[must_use]
pub fn check_edges_of_versions(graph: &Graph, offer: &Offer<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let is_version = |node: &Node| node.work.version().is_some();
    let is_meant = |from: &Node, to: &Node| is_version(from) || is_version(to);
    check(graph, offer, is_meant, &mut findings);
    findings
}

/// What of the data edges that are meant doesn't fit to the ports that there are.
pub(super) fn check(
    graph: &Graph,
    offer: &Offer<'_>,
    is_meant: impl Fn(&Node, &Node) -> bool,
    findings: &mut Vec<Finding>,
) {
    if graph.edges.iter().all(|edge| edge.input.is_none()) {
        return;
    }
    let ports = Ports::new(Some(offer));
    let places = graph.places();
    let mut inputs: HashMap<usize, Side> = HashMap::new();
    let mut taken: HashSet<(usize, &str)> = HashSet::new();
    for (index, edge) in graph.edges.iter().enumerate() {
        if is_full(findings) {
            return;
        }
        let (Some(from), Some(to), Some(input)) = (
            places.get(edge.from.as_str()),
            places.get(edge.to.as_str()),
            edge.input.as_deref(),
        ) else {
            continue;
        };
        let mut add = |member: &str, code: &str, message: String, hint: String| {
            findings.push(Finding::new(format!("/edges/{index}{member}"), code, message).hint(hint));
        };
        let (earlier, later) = (&graph.nodes[*from], &graph.nodes[*to]);
        if !is_meant(earlier, later) {
            continue;
        }
        let outputs = ports.outputs(earlier);
        let found = output(&outputs, edge);
        if let Err(near) = &found {
            let name = edge.output.as_deref();
            let message = match name {
                Some(name) => format!("node `{}` has no output `{}`", earlier.id, shown(name)),
                None => format!("node `{}` gives nothing that an edge could carry", earlier.id),
            };
            let hint = match near {
                Some(near) => format!("did you mean `{near}`?"),
                None if outputs.ports.is_empty() => "take `output` and `input` out".to_owned(),
                None if matches!(earlier.work, NodeWork::Python { .. }) => format!(
                    "there is {}; a node declares its outputs: `@node(outputs={{\"rows\": \"array\"}})`",
                    listed(outputs.names())
                ),
                None => format!("there is {}, or all of it without `output`", listed(outputs.names())),
            };
            add(
                if name.is_some() { "/output" } else { "" },
                "port_unknown",
                message,
                hint,
            );
        }
        let side = inputs.entry(*to).or_insert_with(|| ports.inputs(later));
        let Some(port) = side.named(input) else {
            if !side.is_open {
                let (code, message, hint) = no_input(later, input, side, offer);
                add("/input", code, message, hint);
            }
            continue;
        };
        if let Ok((kind, _)) = found
            && let Fit::No(reason) = assignable(kind, port.kind)
        {
            let what = match &edge.output {
                Some(name) => format!("`{name}` of `{}`", earlier.id),
                None => format!("what `{}` gives", earlier.id),
            };
            let message = format!(
                "edge {index} leads from {what}, of type `{}`, to `{input}` of `{}`, of type `{}`",
                kind.as_str(),
                later.id,
                port.kind.as_str()
            );
            add("/input", "port_type", message, reason.to_owned());
        }
        if is_set(later, input) {
            let message = format!("`{input}` of node `{}` is set, and an edge feeds it", later.id);
            let hint = "take the value or the edge out".to_owned();
            add("/input", "port_set_and_fed", message, hint);
        }
        if port.multiple {
            continue;
        }
        if !taken.insert((*to, input)) {
            let message = format!("`{input}` of node `{}` is fed by two edges", later.id);
            let hint = "an input takes one, unless it is declared as `multiple`: take one out, or put the values together with a \
                        node of type `compute`";
            add("/input", "port_fed_twice", message, hint.to_owned());
        }
    }
}

/// Why a node has no input of this name that an edge may feed.
fn no_input(node: &Node, input: &str, side: &Side, offer: &Offer<'_>) -> (&'static str, String, String) {
    let parameters = match node.work.called() {
        Some(Called::Function(name)) => offer.functions.get(name).map(|one| one.parameters.as_slice()),
        Some(Called::Workflow(name)) => offer.workflows.get(name).copied(),
        Some(Called::Version(_)) | None => None,
    };
    let parameter = parameters.into_iter().flatten().find(|one| one.name == input);
    match parameter {
        Some(parameter) if parameter.kind.port().is_none() => (
            "port_secret",
            format!("an edge can't choose the secret `{input}` of node `{}`", node.id),
            format!("name it in `inputs`: `\"{input}\": \"API_KEY\"`, or an input of the graph of type `secret`"),
        ),
        Some(_) => (
            "port_unknown",
            format!(
                "`{input}` of node `{}` is a setting, and no input that an edge may feed",
                node.id
            ),
            format!("set it in `inputs`; edges may feed {}", listed(side.names())),
        ),
        None => {
            let hint = match nearest(input, side.names()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if side.ports.is_empty() => {
                    "it takes nothing from edges: name the earlier step in an expression of it, and take `input` out"
                        .to_owned()
                }
                None => format!("there is {}", listed(side.names())),
            };
            let message = format!("node `{}` has no input `{}`", node.id, shown(input));
            ("port_unknown", message, hint)
        }
    }
}

/// Whether an input has a value of its own.
fn is_set(node: &Node, input: &str) -> bool {
    if !node.work.own_inputs().contains(&input) {
        return node.inputs.as_ref().is_some_and(|inputs| inputs.contains_key(input));
    }
    let own = match &node.work {
        NodeWork::Map { items, .. } => items,
        NodeWork::Http { body, .. } if input == "body" => return body.is_some(),
        NodeWork::Http { url, .. } => url,
        NodeWork::Email { message, .. } => return message.contains_key(input),
        NodeWork::File { content, file, .. } => {
            return if input == "content" { content } else { file }.is_some();
        }
        NodeWork::Compute { value } => value,
        NodeWork::Delay { seconds } => seconds,
        NodeWork::Approval { question, .. } => question,
        _ => return false,
    };
    !own.is_null()
}

// ── values ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Gives the inputs that data edges feed their values. Where it isn't known what is called, a value goes through as it is, and
/// is looked at where it arrives.
pub(super) fn feed(graph: &mut Graph, offer: Option<&Offer<'_>>) {
    for node in &mut graph.nodes {
        node.fed.clear();
    }
    if graph.edges.iter().all(|edge| edge.input.is_none()) {
        return;
    }
    let ports = Ports::new(offer);
    let places = graph.places();
    let mut inputs: HashMap<usize, Side> = HashMap::new();
    let mut fed: Vec<(usize, String, Value, bool)> = Vec::new();
    for edge in &graph.edges {
        let (Some(from), Some(to), Some(input)) = (
            places.get(edge.from.as_str()),
            places.get(edge.to.as_str()),
            edge.input.as_deref(),
        ) else {
            continue;
        };
        if from == to {
            continue;
        }
        let unknown = Port::new(input, PortType::Any);
        let side = inputs.entry(*to).or_insert_with(|| ports.inputs(&graph.nodes[*to]));
        let port = side.named(input).unwrap_or(&unknown);
        let earlier = &graph.nodes[*from];
        let taken = output(&ports.outputs(earlier), edge).unwrap_or((PortType::Any, edge.output.is_none()));
        fed.push((
            *to,
            input.to_owned(),
            carried(earlier, edge, taken, port),
            port.multiple,
        ));
    }
    for (to, input, value, is_multiple) in fed {
        let into = &mut graph.nodes[to].fed;
        match into.get_mut(&input) {
            None => drop(into.insert(input, if is_multiple { json!([value]) } else { value })),
            Some(Value::Array(all)) if is_multiple => all.push(value),
            // The second has a finding.
            Some(_) => {}
        }
    }
}

/// What goes along an edge, as an expression.
fn carried(from: &Node, edge: &Edge, (kind, is_whole): (PortType, bool), port: &Port) -> Value {
    let all = format!("steps.{}.output", from.id);
    let member = edge.output.as_ref().filter(|_| !is_whole);
    // What a step that was skipped doesn't give, an input that need not be there isn't given.
    let is_optional = !port.required && !port.multiple;
    let text = match (member, port.kind.takes_everything(), is_optional) {
        (None, true, _) => all,
        (Some(name), true, false) => format!("{all}[{}]", json!(name)),
        (member, ..) => {
            let types = format!(
                "{}>{}{}",
                kind.as_str(),
                port.kind.as_str(),
                if is_optional { "?" } else { "" }
            );
            match member {
                Some(name) => format!("{all}|{PORT}({}, {})", json!(types), json!(name)),
                None => format!("{all}|{PORT}({})", json!(types)),
            }
        }
    };
    json!({"$": text})
}
