//! Expressions of a graph: each can be read, names steps that have ended by then, inputs that there are, and nothing else that
//! there isn't.

use std::collections::HashMap;

use serde_json::Value;

use super::structure::{Before, phase_name};
use super::{ReadGraph, escaped, is_full, listed};
use crate::definition::expression::{self, Marked};
use crate::definition::parameters::nearest;
use crate::domain::{Graph, NodeWork, ParameterType, Phase};
use crate::error::Finding;

/// What every expression sees.
const EVERYWHERE: [&str; 4] = ["inputs", "steps", "run", "error"];

pub(super) fn check(read: &mut ReadGraph) {
    let ReadGraph { graph, findings, at } = read;
    let (order, in_circles) = graph.order();
    let checker = Checker {
        graph,
        places: graph.places(),
        before: (order.len() == graph.nodes.len() && in_circles.is_empty()).then(|| Before::of(graph)),
    };
    for (place, node) in graph.nodes.iter().enumerate() {
        if is_full(findings) {
            return;
        }
        let at = &at[place];
        if let NodeWork::Template { template } = &node.work {
            checker.marked(
                &format!("{at}/template"),
                Marked::Template(template),
                Some(place),
                &[],
                findings,
            );
        }
        let mut look = |member: &str, text: &str, more: &[&str]| {
            checker.expression(&format!("{at}/{member}"), text, Some(place), more, findings);
        };
        if let Some(when) = &node.when {
            look("when", when, &[]);
        }
        match &node.work {
            NodeWork::Assert { condition, .. } if !condition.is_empty() => look("condition", condition, &[]),
            NodeWork::Shell {
                script: Some(script), ..
            } => {
                for code in &script.parameters {
                    look("command", code, &[]);
                }
            }
            _ => {}
        }
        let more: &[&str] = match &node.work {
            NodeWork::Choose { branches, .. } => {
                for (index, branch) in branches
                    .iter()
                    .enumerate()
                    .filter(|(_, branch)| !branch.when.is_empty())
                {
                    look(&format!("branches/{index}/when"), &branch.when, &[]);
                }
                &[]
            }
            NodeWork::Loop { until, .. } => {
                let more = &["iteration", "output"];
                if !until.is_empty() {
                    look("until", until, more);
                }
                more
            }
            NodeWork::Map { .. } => &["item", "index"],
            _ => &[],
        };
        let mut look = |member: &str, value: &Value, more: &[&str]| {
            checker.value(&format!("{at}/{member}"), value, Some(place), more, findings);
        };
        match &node.work {
            NodeWork::Map { items, .. } => look("items", items, &[]),
            NodeWork::Compute { value } => look("value", value, &[]),
            NodeWork::Assert { message, .. } => look("message", message, &[]),
            NodeWork::Http {
                url,
                query,
                headers,
                body,
                ..
            } => {
                look("url", url, &[]);
                look("query", &Value::Object(query.clone()), &[]);
                look("headers", &Value::Object(headers.clone()), &[]);
                look("body", body.as_ref().unwrap_or(&Value::Null), &[]);
            }
            NodeWork::Email {
                credentials, message, ..
            } => {
                look("credentials", &Value::Object(credentials.clone()), &[]);
                for (name, value) in message {
                    look(name, value, &[]);
                }
            }
            NodeWork::File {
                content, name, file, ..
            } => {
                for (member, value) in [("content", content), ("name", name), ("file", file)] {
                    look(member, value.as_ref().unwrap_or(&Value::Null), &[]);
                }
            }
            NodeWork::Shell {
                command, environment, ..
            } => {
                look("environment", &Value::Object(environment.clone()), &[]);
                if command.is_array() {
                    look("command", command, &[]);
                }
            }
            NodeWork::Delay { seconds } => look("seconds", seconds, &[]),
            NodeWork::Approval { question, .. } => look("question", question, &[]),
            _ => {}
        }
        if let Some((_, settings)) = node.work.version() {
            look("settings", &Value::Object(settings.clone()), more);
        }
        let (member, secrets) = match &node.work {
            NodeWork::Shell { environment, .. } => ("environment", Some(environment)),
            NodeWork::Http { headers, .. } => ("headers", Some(headers)),
            NodeWork::Email { credentials, .. } => ("credentials", Some(credentials)),
            _ => ("", None),
        };
        for (name, value) in secrets.into_iter().flatten() {
            if let Some(input) = expression::secret_input(value) {
                checker.secret(&format!("{at}/{member}/{}", escaped(name)), input, findings);
            }
        }
        let mut look = |member: &str, value: &Value, more: &[&str]| {
            checker.value(&format!("{at}/{member}"), value, Some(place), more, findings);
        };
        for (name, value) in node.inputs.iter().flatten() {
            look(&format!("inputs/{}", escaped(name)), value, more);
        }
    }
    if let Some(output) = &graph.output {
        checker.value("/output", output, None, &[], findings);
    }
}

struct Checker<'a> {
    graph: &'a Graph,
    places: HashMap<&'a str, usize>,
    /// None where nodes are in a circle, and none is before another.
    before: Option<Before>,
}

impl Checker<'_> {
    /// The expressions in a value. `place` is the node that looks; none for the result.
    fn value(&self, pointer: &str, value: &Value, place: Option<usize>, more: &[&str], findings: &mut Vec<Finding>) {
        for (inner, marked) in expression::expressions(value) {
            self.marked(&format!("{pointer}{inner}"), marked, place, more, findings);
        }
    }

    /// What chooses a secret is an input of that type: it says which there are to choose from.
    fn secret(&self, pointer: &str, input: &str, findings: &mut Vec<Finding>) {
        let found = self.graph.parameters.iter().find(|one| one.name == input);
        if found.is_some_and(|one| one.kind != ParameterType::Secret) {
            let message = format!("parameter `{input}` chooses a secret, and is not of type `secret`");
            let hint = "declare it so, with the names that may be chosen in `enum`";
            findings.push(Finding::new(pointer, "not_a_secret", message).hint(hint));
        }
    }

    fn expression(&self, pointer: &str, text: &str, place: Option<usize>, more: &[&str], findings: &mut Vec<Finding>) {
        self.marked(pointer, Marked::Expression(text), place, more, findings);
    }

    fn marked(
        &self,
        pointer: &str,
        marked: Marked<'_>,
        place: Option<usize>,
        more: &[&str],
        findings: &mut Vec<Finding>,
    ) {
        let text = marked.text();
        let read = match marked.parse(&self.places) {
            Ok(read) => read,
            Err(error) => {
                let (code, hint) = if error.names_no_step {
                    (
                        "expression_unknown_step",
                        "write the id of a node of this graph behind `steps.`",
                    )
                } else {
                    let hint =
                        "docs/graphs.md says what an expression may be: names, members, comparisons, `and`, filters";
                    ("expression_unreadable", hint)
                };
                findings.push(Finding::new(pointer, code, error.to_string()).hint(hint));
                return;
            }
        };
        for id in read.steps() {
            if let Some((message, hint)) = self.not_before(id, place) {
                findings.push(Finding::new(pointer, "expression_step_not_before", message).hint(hint));
            }
        }
        for name in read.names() {
            let mut parts = name.split('.');
            let root = parts.next().unwrap_or_default();
            if root == "inputs" {
                let known = || self.graph.parameters.iter().map(|parameter| parameter.name.as_str());
                if let Some(input) = parts.next().filter(|input| !known().any(|known| known == *input)) {
                    let hint = match nearest(input, known()) {
                        Some(near) => format!("did you mean `inputs.{near}`?"),
                        None if self.graph.parameters.is_empty() => {
                            "the graph has no parameters; declare it in `parameters`".to_owned()
                        }
                        None => format!("the parameters are {}", listed(known())),
                    };
                    let message = format!("expression `{text:.200}`: the graph has no parameter `{input}`");
                    findings.push(Finding::new(pointer, "expression_unknown_input", message).hint(hint));
                }
            } else if !EVERYWHERE.contains(&root) && !more.contains(&root) {
                let known = || EVERYWHERE.iter().chain(more).copied();
                let hint = match nearest(root, known()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there is {}", listed(known())),
                };
                let message = format!("expression `{text:.200}`: there is nothing called `{root}` here");
                findings.push(Finding::new(pointer, "expression_unknown_name", message).hint(hint));
            }
        }
    }

    /// Why a step may not have ended when it is looked at.
    fn not_before(&self, id: &str, place: Option<usize>) -> Option<(String, String)> {
        let earlier = *self.places.get(id)?;
        let Some(place) = place else {
            let phase = self.graph.nodes[earlier].phase;
            return (phase != Phase::Main).then(|| {
                let message = format!(
                    "the result names step `{id}` of phase `{}`, which comes after it",
                    phase_name(phase)
                );
                (message, "name steps of the main phase in `output`".to_owned())
            });
        };
        let own = &self.graph.nodes[place].id;
        if self.before.as_ref()?.has_ended(earlier, place) {
            return None;
        }
        let message = format!("node `{own}` looks at step `{id}`, which need not have ended when `{own}` begins");
        let hint = if earlier == place {
            "an expression sees earlier steps only".to_owned()
        } else {
            format!("add an edge from `{id}` to `{own}`, or to a node before it")
        };
        Some((message, hint))
    }
}
