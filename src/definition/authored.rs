//! A workflow that was authored through the API: a graph as it was sent, which may be unfinished.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::catalog::{Catalog, declared};
use super::graph::{
    Offer, ReadGraph, check_against, check_edges_of_versions, connect, cycles_of_children, is_name, read_value,
};
use crate::domain::{Called, Declared, Graph, Parameter, sha256_hex};
use crate::error::Finding;

/// A graph that was authored through the API, read.
#[derive(Debug, Clone, PartialEq)]
pub struct Authored {
    /// As a workflow.
    pub declared: Declared,
    /// SHA-256 of what it says.
    pub digest: String,
    read: ReadGraph,
}

/// Reads a graph that is authored under a name.
#[must_use]
pub fn read_authored(name: &str, graph: &Value) -> Authored {
    let mut read = read_value(graph);
    if read.graph.name != name && is_name(&read.graph.name) {
        let message = format!("the graph is called `{}`, and the workflow `{name}`", read.graph.name);
        let finding = Finding::new("/name", "name_differs", message);
        read.findings
            .push(finding.hint("write the workflow's name; what is to be called otherwise is another workflow"));
    }
    let mut declared = declared(String::new(), read.graph.clone());
    name.clone_into(&mut declared.name);
    Authored {
        declared,
        digest: digest_of(graph),
        read,
    }
}

impl Authored {
    /// The graph.
    #[must_use]
    pub const fn graph(&self) -> &Graph {
        &self.read.graph
    }

    /// What is wrong with the graph by itself.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.read.findings
    }

    /// What of it doesn't fit to the functions that the workspace declares.
    #[must_use]
    pub fn against_functions(&self, catalog: &Catalog) -> Vec<Finding> {
        let findings = self.against(catalog, &BTreeMap::new());
        // Other workflows are looked for when they are started, and options are for forms: no run waits for them.
        findings
            .into_iter()
            .filter(|found| found.code != "unknown_workflow" && !found.pointer.starts_with("/parameters/"))
            .collect()
    }

    /// What of it doesn't fit to what the workspace declares, and to other workflows of the organization: those that it calls,
    /// and what these call in turn.
    #[must_use]
    pub fn against(&self, catalog: &Catalog, others: &BTreeMap<String, Arc<Self>>) -> Vec<Finding> {
        let offers = Offers {
            catalog,
            others,
            versions: &BTreeMap::new(),
        };
        let mut findings = offers.offered(Some(&self.declared), |offer| check_against(&self.read, offer));
        let mut graphs: BTreeMap<&str, &Graph> = others
            .iter()
            .map(|(name, other)| (name.as_str(), other.graph()))
            .collect();
        graphs.insert(&self.declared.name, self.graph());
        if let Some(circle) = cycles_of_children(&graphs).get(&self.declared.name) {
            let names = circle.iter().chain(circle.first()).map(|name| format!("`{name}`"));
            let message = format!(
                "workflows start each other in a circle: {}",
                names.collect::<Vec<_>>().join(" → ")
            );
            let hint = "take one of these calls out; what is to be done again is a node of type `loop`";
            findings.push(Finding::new("", "workflow_cycle", message).hint(hint));
        }
        findings
    }

    /// The functions that it calls, by name, and the node types that it uses, by name and version.
    #[must_use]
    pub fn functions(&self) -> BTreeSet<&str> {
        let called = self.graph().nodes.iter().filter_map(|node| match node.work.called() {
            Some(Called::Function(name) | Called::Version(name)) if !name.is_empty() => Some(name),
            _ => None,
        });
        called.collect()
    }
}

/// What graphs may call.
#[derive(Debug, Clone, Copy)]
pub struct Offers<'a> {
    /// Functions and workflows of the workspace.
    pub catalog: &'a Catalog,
    /// Workflows of the organization, by name.
    pub others: &'a BTreeMap<String, Arc<Authored>>,
    /// Versions of node types, by name and version.
    pub versions: &'a BTreeMap<String, Declared>,
}

impl Offers<'_> {
    /// A graph without findings, whose data edges convert what they carry to what it calls.
    #[must_use]
    pub fn connected(&self, graph: &Graph) -> Graph {
        let mut graph = graph.clone();
        self.offered(None, |offer| connect(&mut graph, offer));
        graph
    }

    /// What of the data edges of node types of the library doesn't fit.
    #[must_use]
    pub fn check_edges(&self, graph: &Graph) -> Vec<Finding> {
        self.offered(None, |offer| check_edges_of_versions(graph, offer))
    }

    fn offered<T>(&self, own: Option<&Declared>, then: impl FnOnce(&Offer<'_>) -> T) -> T {
        let of_workspace = &self.catalog.workflows;
        let functions = of_workspace.iter().filter(|(_, declared)| declared.graph.is_none());
        let functions: BTreeMap<&str, &Declared> = functions
            .chain(&self.catalog.nodes)
            .chain(self.versions)
            .map(|(name, declared)| (name.as_str(), declared))
            .collect();
        let others = self.others.values().map(|other| &other.declared);
        let workflows = others.chain(of_workspace.values()).chain(own);
        let workflows: BTreeMap<&str, &[Parameter]> = workflows
            .map(|declared| (declared.name.as_str(), declared.parameters.as_slice()))
            .collect();
        then(&Offer {
            functions: &functions,
            workflows: &workflows,
            providers: &self.catalog.data_providers,
        })
    }
}

/// The workflows that a graph starts, by name.
#[must_use]
pub fn calls_of(graph: &Graph) -> BTreeSet<&str> {
    let called = graph.nodes.iter().filter_map(|node| match node.work.called() {
        Some(Called::Workflow(name)) if !name.is_empty() => Some(name),
        _ => None,
    });
    called.collect()
}

/// Whether a value is a graph at all, however unfinished: an object whose `nodes` are a list.
#[must_use]
pub fn is_graph(value: &Value) -> bool {
    value.get("nodes").is_some_and(Value::is_array)
}

/// How many nodes a graph has.
#[must_use]
pub fn nodes_of(graph: &Value) -> usize {
    graph.get("nodes").and_then(Value::as_array).map_or(0, Vec::len)
}

/// Whether a text can be the name of a workflow.
#[must_use]
pub fn is_workflow_name(text: &str) -> bool {
    is_name(text)
}

/// SHA-256 of a value's text, which doesn't depend on the order of members.
#[must_use]
pub fn digest_of(graph: &Value) -> String {
    sha256_hex(sorted(graph.clone()).to_string().as_bytes())
}

/// With the members of every object in the order of their names, so that the text doesn't depend on who wrote them.
#[must_use]
pub fn sorted(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.into_iter().collect();
            members.sort_by(|(one, _), (other, _)| one.cmp(other));
            Value::Object(
                members
                    .into_iter()
                    .map(|(name, member)| (name, sorted(member)))
                    .collect(),
            )
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn codes(findings: &[Finding]) -> Vec<&str> {
        findings.iter().map(|finding| finding.code.as_str()).collect()
    }

    #[test]
    fn a_graph_is_read_under_its_name() {
        let graph = json!({"name": "a", "nodes": [{"id": "one", "type": "compute", "value": 1}]});
        assert!(read_authored("a", &graph).findings().is_empty());
        assert_eq!(codes(read_authored("b", &graph).findings()), ["name_differs"]);
        assert!(is_graph(&graph) && is_graph(&json!({"nodes": []})));
        assert!(!is_graph(&json!({"nodes": {}})) && !is_graph(&json!({})) && !is_graph(&json!([])));
    }

    #[test]
    fn a_digest_does_not_depend_on_the_order_of_members() {
        let one = json!({"a": {"x": 1, "y": [1, 2]}, "b": 2});
        let other = json!({"b": 2, "a": {"y": [1, 2], "x": 1}});
        assert_eq!(digest_of(&one), digest_of(&other));
        assert_ne!(digest_of(&one), digest_of(&json!({"a": {"x": 1, "y": [2, 1]}, "b": 2})));
    }

    #[test]
    fn data_edges_convert_to_what_others_of_the_organization_take() {
        let child = json!({"name": "child", "parameters": [{"name": "n", "type": "integer", "required": true}],
            "nodes": [{"id": "one", "type": "compute", "value": 1}]});
        let parent = json!({"name": "parent", "nodes": [
                {"id": "say", "type": "template", "template": "7"}, {"id": "call", "type": "workflow", "workflow": "child"}
            ], "edges": [{"from": "say", "to": "call", "input": "n"}]});
        let others = BTreeMap::from([("child".to_owned(), Arc::new(read_authored("child", &child)))]);
        let parent = read_authored("parent", &parent);
        assert_eq!(parent.against(&Catalog::default(), &others), []);
        let given = |graph: &Graph| graph.nodes[1].fed["n"].clone();
        assert_eq!(given(parent.graph()), json!({"$": "steps.say.output"}));
        let offers = Offers {
            catalog: &Catalog::default(),
            others: &others,
            versions: &BTreeMap::new(),
        };
        let connected = offers.connected(parent.graph());
        assert_eq!(
            given(&connected),
            json!({"$": "steps.say.output|weft_port(\"string>integer\")"})
        );
    }

    #[test]
    fn calls_are_looked_for_among_the_organization_s_workflows_too() {
        let calls = |name: &str, child: &str| {
            let graph = json!({"name": name, "nodes": [{"id": "one", "type": "workflow", "workflow": child}]});
            Arc::new(read_authored(name, &graph))
        };
        let (a, b) = (calls("a", "b"), calls("b", "a"));
        let catalog = Catalog::default();
        assert_eq!(codes(&a.against(&catalog, &BTreeMap::new())), ["unknown_workflow"]);
        assert!(a.against_functions(&catalog).is_empty());
        let others = BTreeMap::from([("b".to_owned(), calls("b", "c"))]);
        assert!(a.against(&catalog, &others).is_empty());
        let others = BTreeMap::from([("b".to_owned(), b)]);
        assert_eq!(codes(&a.against(&catalog, &others)), ["workflow_cycle"]);
        assert_eq!(
            codes(&calls("a", "a").against(&catalog, &BTreeMap::new())),
            ["workflow_cycle"]
        );
    }
}
