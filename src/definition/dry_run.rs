//! What a workflow would do, without doing it: its steps in an order in which they can run, with every expression worked out
//! that looks at nothing but the arguments.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::expression::{Expression, TEXT_MARK, marked};
use crate::domain::{Declared, DependsOn, Graph, Node, Phase};

/// A step as it would run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DryStep {
    /// Its id.
    pub id: String,
    /// What it does, as a graph's `type` has it.
    #[serde(rename = "type")]
    pub kind: String,
    /// When its time comes.
    pub phase: Phase,
    /// What it waits for: `fetch`, `fetch (failure)`, `choose (branch large)`.
    pub after: Vec<String>,
    /// Its condition, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// Whether it would run; null where that depends on what others give.
    pub runs: Option<bool>,
    /// Everything else that the graph says of it, with what is known filled in.
    pub says: Map<String, Value>,
    /// Expressions that depend on what others give; they stand in `says` as they are.
    pub open: Vec<String>,
    /// Expressions that would fail, with the reason.
    pub wrong: Vec<String>,
}

/// The steps of a workflow for these arguments, which have been checked; and its result as far as it is known.
#[must_use]
pub fn dry_run(workflow: &Declared, arguments: &Map<String, Value>) -> (Vec<DryStep>, Option<Value>) {
    let Some(graph) = &workflow.graph else {
        let mut says = Map::new();
        says.insert("use".to_owned(), json!(workflow.name));
        says.insert("inputs".to_owned(), json!(arguments));
        let step = DryStep {
            id: "main".to_owned(),
            kind: "python".to_owned(),
            phase: Phase::Main,
            after: Vec::new(),
            when: None,
            runs: Some(true),
            says,
            open: Vec::new(),
            wrong: Vec::new(),
        };
        return (vec![step], None);
    };
    let ids: Vec<&str> = graph.nodes.iter().map(|node| node.id.as_str()).collect();
    let known = json!({"inputs": arguments});
    let mut order = graph.order().0;
    // Stable: within a phase the order stays.
    order.sort_by_key(|place| graph.nodes[*place].phase);
    let steps = order
        .iter()
        .map(|place| step(graph, &graph.nodes[*place], &ids, &known))
        .collect();
    let mut notes = (Vec::new(), Vec::new());
    let output = graph
        .output
        .as_ref()
        .map(|output| filled_in(output, &ids, &known, &mut notes));
    (steps, output)
}

fn step(graph: &Graph, node: &Node, ids: &[&str], known: &Value) -> DryStep {
    let mut says = match serde_json::to_value(node) {
        Ok(Value::Object(says)) => says,
        _ => Map::new(),
    };
    let kind = says
        .remove("type")
        .and_then(|kind| kind.as_str().map(str::to_owned))
        .unwrap_or_default();
    if let Some(given) = node.given() {
        says.insert("inputs".to_owned(), Value::Object(given));
    }
    for name in node.work.own_inputs() {
        if let Some(fed) = node.fed.get(*name) {
            says.insert((*name).to_owned(), fed.clone());
        }
    }
    for said in ["id", "when", "phase", "label", "position"] {
        says.remove(said);
    }
    // Shown as people read them; what `sh` gets is another form of it.
    for text in ["command", "template"] {
        if let Some(Value::String(written)) = says.get(text)
            && written.contains("{{")
        {
            let template = json!({TEXT_MARK: written});
            says.insert(text.to_owned(), template);
        }
    }
    for (name, usual) in [("join", json!("all")), ("onFailure", json!("fail"))] {
        if says.get(name) == Some(&usual) {
            says.remove(name);
        }
    }
    let mut notes = (Vec::new(), Vec::new());
    let runs = match &node.when {
        None => Some(true),
        Some(text) => match Expression::parse(text, ids).map_err(|error| error.to_string()) {
            Ok(read) if is_open(&read) => None,
            Ok(read) => match read.truth(known) {
                Ok(truth) => Some(truth),
                Err(error) => {
                    notes.1.push(error.to_string());
                    None
                }
            },
            Err(error) => {
                notes.1.push(error);
                None
            }
        },
    };
    let says = says
        .iter()
        .map(|(name, value)| (name.clone(), filled_in(value, ids, known, &mut notes)))
        .collect();
    let after = graph.edges.iter().filter(|edge| edge.to == node.id);
    DryStep {
        id: node.id.clone(),
        kind,
        phase: node.phase,
        after: after
            .map(|edge| match (&edge.branch, edge.on) {
                (Some(branch), _) => format!("{} (branch {branch})", edge.from),
                (None, DependsOn::Success) => edge.from.clone(),
                (None, on) => format!("{} ({})", edge.from, json!(on).as_str().unwrap_or_default()),
            })
            .collect(),
        when: node.when.clone(),
        runs,
        says,
        open: notes.0,
        wrong: notes.1,
    }
}

/// Whether it looks at anything but the arguments.
fn is_open(expression: &Expression) -> bool {
    !expression.steps().is_empty()
        || expression
            .names()
            .iter()
            .any(|name| name.split('.').next().is_some_and(|root| root != "inputs"))
}

/// A value with what is known filled in. What is open is noted first, what fails second; both stay as they stand.
fn filled_in(value: &Value, ids: &[&str], known: &Value, notes: &mut (Vec<String>, Vec<String>)) -> Value {
    if let Some(marked) = marked(value) {
        match marked.parse(ids) {
            Ok(read) if is_open(&read) => notes.0.push(marked.text().to_owned()),
            Ok(read) => match read.value(known) {
                Ok(value) => return value,
                Err(error) => notes.1.push(error.to_string()),
            },
            Err(error) => notes.1.push(error.to_string()),
        }
        return value.clone();
    }
    match value {
        Value::Object(members) => {
            let filled = members
                .iter()
                .map(|(name, member)| (name.clone(), filled_in(member, ids, known, notes)));
            Value::Object(filled.collect())
        }
        Value::Array(items) => items.iter().map(|item| filled_in(item, ids, known, notes)).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::read_graph;
    use super::*;

    #[test]
    fn what_is_known_is_filled_in_and_what_is_not_stays() {
        let graph = r#"{
            "name": "g",
            "parameters": [{"name": "n", "type": "integer"}],
            "nodes": [
                {"id": "late", "type": "compute", "value": 1, "phase": "finally"},
                {"id": "second", "type": "compute", "value": {"a": {"$": "steps.first.output"}, "b": {"$": "inputs.n + 1"}}},
                {"id": "first", "type": "compute", "value": {"$": "inputs.n"}, "when": "inputs.n > 5"}
            ],
            "edges": [{"from": "first", "to": "second"}],
            "output": {"$": "inputs.n * 2"}
        }"#;
        let read = read_graph(graph);
        assert_eq!(read.findings, []);
        let workflow = Declared {
            graph: Some(Arc::new(read.graph)),
            ..Declared::default()
        };
        let Value::Object(arguments) = json!({"n": 3}) else {
            unreachable!()
        };
        let (steps, output) = dry_run(&workflow, &arguments);
        let shown: Vec<_> = steps.iter().map(|step| (step.id.as_str(), step.runs)).collect();
        assert_eq!(
            shown,
            [("first", Some(false)), ("second", Some(true)), ("late", Some(true))]
        );
        assert_eq!(steps[0].says, *json!({"value": 3}).as_object().expect("an object"));
        assert_eq!(
            steps[1].says["value"],
            json!({"a": {"$": "steps.first.output"}, "b": 4})
        );
        assert_eq!(
            (steps[1].after.as_slice(), steps[1].open.len()),
            (&["first".to_owned()][..], 1)
        );
        assert_eq!(output, Some(json!(6)));
    }
}
