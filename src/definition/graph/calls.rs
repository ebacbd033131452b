//! What a graph calls: functions and workflows that the workspace declares, with inputs that they take; and graphs that call each
//! other in a circle.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Map;

use super::{ReadGraph, closed, escaped, is_full, listed, ports, shown};
use crate::definition::expression::expressions;
use crate::definition::options::check_options;
use crate::definition::parameters::{nearest, validate};
use crate::domain::{Called, Declared, Graph, Node, NodeWork, Parameter};
use crate::error::Finding;

/// What graphs may call.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// Functions with `@workflow` or `@node`, by name; and versions of node types, where they are known, by name and version.
    pub functions: &'a BTreeMap<&'a str, &'a Declared>,
    /// Workflows, graphs among them, by name, with their parameters.
    pub workflows: &'a BTreeMap<&'a str, &'a [Parameter]>,
    /// Data providers of the workspace, by name.
    pub providers: &'a BTreeMap<String, Declared>,
}

/// What of a graph doesn't fit to what the workspace declares.
#[must_use]
pub fn check_against(read: &ReadGraph, offer: &Offer<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (node, at) in read.graph.nodes.iter().zip(&read.at) {
        if is_full(&findings) {
            break;
        }
        let parameters = match node.work.called() {
            // A node type is looked at where the library is.
            Some(Called::Function("") | Called::Workflow("") | Called::Version(_)) | None => continue,
            Some(Called::Function(name)) => match offer.functions.get(name) {
                Some(declared) => declared.parameters.as_slice(),
                None => {
                    findings.push(unknown_function(node, at, name, offer));
                    continue;
                }
            },
            Some(Called::Workflow(name)) => match offer.workflows.get(name) {
                Some(parameters) => parameters,
                None => {
                    findings.push(unknown_workflow(node, at, name, offer));
                    continue;
                }
            },
        };
        check_inputs(&read.graph, node, at, parameters, &mut findings);
    }
    ports::check(&read.graph, offer, |_, _| true, &mut findings);
    let options = check_options(&read.graph.parameters, offer.providers).into_iter();
    findings.extend(options.map(|finding| Finding {
        pointer: format!("/parameters{}", finding.pointer),
        ..finding
    }));
    closed(&mut findings);
    findings
}

fn unknown_function(node: &Node, at: &str, name: &str, offer: &Offer<'_>) -> Finding {
    let known = || offer.functions.keys().copied();
    let hint = if offer.workflows.contains_key(name) {
        format!("`{name}` is a graph: call it with `workflow`, and not with `use`")
    } else if let Some(near) = nearest(name, known()) {
        format!("did you mean `{near}`?")
    } else if offer.functions.is_empty() {
        "the workspace declares no function with `@workflow` or `@node`".to_owned()
    } else {
        format!("the workspace declares {}", listed(known()))
    };
    let message = format!(
        "node `{}` uses `{}`, which the workspace doesn't declare",
        node.id,
        shown(name)
    );
    Finding::new(format!("{at}/use"), "unknown_use", message).hint(hint)
}

fn unknown_workflow(node: &Node, at: &str, name: &str, offer: &Offer<'_>) -> Finding {
    let known = || offer.workflows.keys().copied();
    let hint = if offer.functions.contains_key(name) {
        format!("`{name}` is a function with `@node`: call it with `use`")
    } else if let Some(near) = nearest(name, known()) {
        format!("did you mean `{near}`?")
    } else {
        format!("there is {}; a file with findings offers nothing", listed(known()))
    };
    let message = format!(
        "node `{}` starts workflow `{}`, which there isn't",
        node.id,
        shown(name)
    );
    Finding::new(format!("{at}/workflow"), "unknown_workflow", message).hint(hint)
}

fn check_inputs(graph: &Graph, node: &Node, at: &str, parameters: &[Parameter], findings: &mut Vec<Finding>) {
    let callee = match node.work.called() {
        Some(Called::Function(name) | Called::Workflow(name) | Called::Version(name)) => name,
        None => return,
    };
    let names = || parameters.iter().map(|parameter| parameter.name.as_str());
    let mut unknown = |pointer: String, name: &str, hint: Option<&str>| {
        let hint = match (hint, nearest(name, names())) {
            (Some(hint), _) => hint.to_owned(),
            (None, Some(near)) => format!("did you mean `{near}`?"),
            (None, None) if parameters.is_empty() => format!("`{callee}` takes no inputs"),
            (None, None) => format!("`{callee}` takes {}", listed(names())),
        };
        let message = format!(
            "node `{}` gives `{callee}` an input `{}`, which it doesn't take",
            node.id,
            shown(name)
        );
        findings.push(Finding::new(pointer, "input_unknown", message).hint(hint));
    };
    let own = node.work.own_inputs();
    let fed = || node.fed.keys().map(String::as_str).filter(|name| !own.contains(name));
    let given: BTreeSet<&str> = match &node.inputs {
        // What edges feed is looked at with the edges.
        None if fed().next().is_some() => fed().collect(),
        Some(inputs) => {
            for name in inputs
                .keys()
                .filter(|name| !names().any(|known| known == name.as_str()))
            {
                unknown(format!("{at}/inputs/{}", escaped(name)), name, None);
            }
            inputs.keys().map(String::as_str).chain(fed()).collect()
        }
        // What an item gives is seen when there is one.
        None if matches!(node.work, NodeWork::Map { .. }) => return,
        None => {
            let own = graph.parameters.iter().map(|parameter| parameter.name.as_str());
            for name in own.clone().filter(|name| !names().any(|known| known == *name)) {
                let hint = "without `inputs` a node is given the run's arguments; write `inputs`";
                unknown(at.to_owned(), name, Some(hint));
            }
            own.collect()
        }
    };
    for parameter in parameters
        .iter()
        .filter(|parameter| parameter.required && !parameter.has_default)
    {
        if !given.contains(parameter.name.as_str()) {
            let message = format!(
                "node `{}` doesn't give `{callee}` its input `{}`",
                node.id, parameter.name
            );
            let hint = format!(
                "add `\"{}\"` to its `inputs`, or feed it by an edge; it is of type `{}`",
                parameter.name,
                parameter.kind.as_str()
            );
            findings.push(Finding::new(format!("{at}/inputs"), "input_missing", message).hint(hint));
        }
    }
    for (name, value) in node.inputs.iter().flatten() {
        let Some(parameter) = parameters.iter().find(|parameter| parameter.name == *name) else {
            continue;
        };
        // What an expression gives is seen when it is worked out.
        if !expressions(value).is_empty() {
            continue;
        }
        let one = Map::from_iter([(name.clone(), value.clone())]);
        for finding in validate(std::slice::from_ref(parameter), &one)
            .err()
            .unwrap_or_default()
        {
            let pointer = format!("{at}/inputs/{}", escaped(name));
            let message = format!("node `{}` gives `{callee}` a wrong input: {}", node.id, finding.message);
            let hint = finding
                .hint
                .unwrap_or_else(|| "write a value that it takes, or an expression".to_owned());
            findings.push(Finding::new(pointer, "input_invalid", message).hint(hint));
        }
    }
}

/// Graphs that start each other in a circle, by name: for each graph in one, the names along it from itself on.
#[must_use]
pub fn cycles_of_children(graphs: &BTreeMap<&str, &Graph>) -> BTreeMap<String, Vec<String>> {
    let children: BTreeMap<&str, BTreeSet<&str>> = graphs
        .iter()
        .map(|(name, graph)| {
            let called = graph.nodes.iter().filter_map(|node| match node.work.called() {
                Some(Called::Workflow(child)) => Some(child),
                _ => None,
            });
            (*name, called.filter(|child| graphs.contains_key(child)).collect())
        })
        .collect();
    let mut found = BTreeMap::new();
    for start in graphs.keys() {
        // The shortest way back, breadth first.
        let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
        let mut next = std::collections::VecDeque::from([*start]);
        'search: while let Some(name) = next.pop_front() {
            for child in children.get(name).into_iter().flatten().copied() {
                if child == *start {
                    let mut way = vec![name];
                    while let Some(before) = came_from.get(way[way.len() - 1]) {
                        way.push(before);
                    }
                    way.reverse();
                    found.insert((*start).to_owned(), way.into_iter().map(str::to_owned).collect());
                    break 'search;
                }
                if !came_from.contains_key(child) {
                    came_from.insert(child, name);
                    next.push_back(child);
                }
            }
        }
    }
    found
}
