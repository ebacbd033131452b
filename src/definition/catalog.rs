//! The description of a bundle, as workflows, data providers and nodes by name; and its graph files, which are workflows too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use super::graph::{Offer, ReadGraph, check_against, connect, cycles_of_children, inexact};
use super::options::{PAGING, SEARCH, check_options};
use super::source::Source;
use super::time_limits::Longest;
use crate::domain::{Called, Declared, DeclaredAs, Graph, Limits, Parameter, ParameterType};
use crate::error::Finding;

/// Everything that one bundle offers, and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalog {
    /// The bundle's digest.
    pub digest: String,
    /// Workflows by name.
    pub workflows: BTreeMap<String, Declared>,
    /// Data providers by name.
    pub data_providers: BTreeMap<String, Declared>,
    /// Nodes by name: functions that only graphs call.
    pub nodes: BTreeMap<String, Declared>,
    /// Everything that is wrong, sorted by place. A file with a finding offers nothing: it is quarantined.
    pub findings: Vec<Finding>,
    /// What is declared above what counts, sorted by place; it keeps nothing out.
    pub noticed: Vec<Finding>,
    /// What counts, where that is known.
    longest: Option<Longest>,
    /// Of node types of the library the newest version by name, as far as it is known: for hints.
    pub newest: BTreeMap<String, String>,
    /// How many files were looked at.
    pub files: u64,
    /// How long that took, in milliseconds.
    pub ms: f64,
}

impl Catalog {
    /// From `described` frames of the runner protocol.
    #[must_use]
    pub fn from_description(digest: &str, modules: &[Value], findings: Vec<Finding>, files: u64, ms: f64) -> Self {
        let mut catalog = Self {
            digest: digest.to_owned(),
            findings,
            files,
            ms,
            ..Self::default()
        };
        for module in modules {
            let text = |name: &str| module.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (module_name, path) = (text("module"), text("path"));
            catalog.collect(module, DeclaredAs::Workflow, &module_name, &path);
            catalog.collect(module, DeclaredAs::DataProvider, &module_name, &path);
            catalog.collect(module, DeclaredAs::Node, &module_name, &path);
        }
        catalog.check_options();
        catalog
    }

    /// Leaves out what takes the options of a field from where there are none.
    fn check_options(&mut self) {
        let providers = self.data_providers.clone();
        let findings = &mut self.findings;
        let mut is_good = |_: &String, declared: &mut Declared| {
            let wrong = check_options(&declared.parameters, &providers);
            let is_good = wrong.is_empty();
            findings.extend(wrong.into_iter().map(|finding| Finding {
                pointer: format!("{}:{}:1", declared.path, declared.line),
                ..finding
            }));
            is_good
        };
        self.workflows.retain(&mut is_good);
        self.nodes.retain(&mut is_good);
        self.data_providers.retain(&mut is_good);
    }

    /// The function of a name that graphs may call: one with `@workflow`, else one with `@node`.
    #[must_use]
    pub fn function(&self, name: &str) -> Option<&Declared> {
        let workflow = self.workflows.get(name).filter(|declared| declared.graph.is_none());
        workflow.or_else(|| self.nodes.get(name))
    }

    /// The functions that a graph calls, by name.
    #[must_use]
    pub fn functions_of<'a>(&'a self, graph: &'a Graph) -> BTreeMap<&'a str, &'a Declared> {
        let called = graph.nodes.iter().filter_map(|node| match node.work.called() {
            Some(Called::Function(name)) => Some((name, self.function(name)?)),
            _ => None,
        });
        called.collect()
    }

    /// With the graphs of these files, each a path as shown to people and a text; one with a finding offers nothing. A name belongs to whoever has it first: to Python,
    /// and then by the files' paths.
    #[must_use]
    pub fn with_graphs(mut self, mut files: Vec<(String, String)>, findings: Vec<Finding>) -> Self {
        files.sort();
        self.files += files.len() as u64;
        let mut findings_of: Vec<Vec<Finding>> = Vec::with_capacity(files.len());
        let mut read: Vec<ReadGraph> = Vec::with_capacity(files.len());
        let mut sources: Vec<Source> = Vec::with_capacity(files.len());
        let mut taken: BTreeMap<String, String> = self
            .workflows
            .iter()
            .map(|(name, declared)| (name.clone(), format!("{}:{}", declared.path, declared.line)))
            .collect();
        for (path, text) in &files {
            let (mut one, source) = Source::read(path, text);
            sources.push(source);
            let mut wrong = std::mem::take(&mut one.findings);
            let name = &one.graph.name;
            if let Some(former) = taken.get(name) {
                let message = format!("the workflow name `{name}` is taken: it is declared in {former}");
                wrong.push(Finding::new("/name", "name_taken", message).hint("give each workflow a name of its own"));
            } else if !name.is_empty() {
                taken.insert(name.clone(), path.clone());
            }
            findings_of.push(wrong);
            read.push(one);
        }
        self.keep_good(&read, &mut findings_of);
        self.connect_good(&mut read, &findings_of);
        let files = files.into_iter().zip(sources);
        for ((((path, text), source), one), mut wrong) in files.zip(read).zip(findings_of) {
            if wrong.is_empty() {
                let above = self.longest.map(|longest| longest.noticed_of_graph(&one.graph));
                self.noticed.extend(above.into_iter().flatten().map(|finding| {
                    let (line, column) = source.place_of(&text, &finding.pointer);
                    Finding {
                        pointer: format!("{path}:{line}:{column}"),
                        ..source.in_words(finding)
                    }
                }));
                let declared = declared(path, one.graph);
                self.workflows.insert(declared.name.clone(), declared);
                continue;
            }
            let mut placed: Vec<_> = wrong
                .drain(..)
                .map(|finding| (source.place_of(&text, &finding.pointer), source.in_words(finding)))
                .collect();
            placed.sort_by_key(|(place, _)| *place);
            self.findings
                .extend(placed.into_iter().map(|((line, column), finding)| Finding {
                    pointer: format!("{path}:{line}:{column}"),
                    ..finding
                }));
        }
        self.findings.extend(findings);
        self
    }

    /// Has the data edges of the graphs that stay convert what they carry.
    fn connect_good(&self, read: &mut [ReadGraph], findings_of: &[Vec<Finding>]) {
        let functions: BTreeMap<&str, &Declared> = self
            .nodes
            .iter()
            .chain(&self.workflows)
            .map(|(name, declared)| (name.as_str(), declared))
            .collect();
        let is_good = |place: usize| findings_of[place].is_empty();
        let mut parameters: BTreeMap<String, Vec<Parameter>> = self
            .workflows
            .iter()
            .map(|(name, declared)| (name.clone(), declared.parameters.clone()))
            .collect();
        let graphs = read.iter().enumerate().filter(|(place, _)| is_good(*place));
        parameters.extend(graphs.map(|(_, one)| (one.graph.name.clone(), one.graph.parameters.clone())));
        let workflows = parameters
            .iter()
            .map(|(name, all)| (name.as_str(), all.as_slice()))
            .collect();
        let offer = Offer {
            functions: &functions,
            workflows: &workflows,
            providers: &self.data_providers,
        };
        for (place, one) in read.iter_mut().enumerate() {
            if is_good(place) {
                connect(&mut one.graph, &offer);
            }
        }
    }

    /// Looks at what graphs call, until no graph calls one that has a finding.
    fn keep_good(&self, read: &[ReadGraph], findings_of: &mut [Vec<Finding>]) {
        let functions: BTreeMap<&str, &Declared> = self
            .nodes
            .iter()
            .chain(&self.workflows)
            .map(|(name, declared)| (name.as_str(), declared))
            .collect();
        let mut checked = BTreeSet::new();
        loop {
            let good: Vec<usize> = (0..read.len()).filter(|place| findings_of[*place].is_empty()).collect();
            let graphs: BTreeMap<&str, &Graph> = good
                .iter()
                .map(|place| (read[*place].graph.name.as_str(), &read[*place].graph))
                .collect();
            let circles = cycles_of_children(&graphs);
            let python = self.workflows.iter();
            let mut workflows: BTreeMap<&str, &[Parameter]> = python
                .map(|(name, declared)| (name.as_str(), declared.parameters.as_slice()))
                .collect();
            workflows.extend(graphs.iter().map(|(name, graph)| (*name, graph.parameters.as_slice())));
            let offer = Offer {
                functions: &functions,
                workflows: &workflows,
                providers: &self.data_providers,
            };
            let mut changed = false;
            for (place, findings) in findings_of.iter_mut().enumerate() {
                let is_good = good.contains(&place);
                // One that is out already is looked at once, so that it says everything at once.
                if !is_good && !checked.insert(place) {
                    continue;
                }
                let mut wrong = check_against(&read[place], &offer);
                wrong.extend(inexact(&read[place], &self.newest));
                if let Some(circle) = circles.get(&read[place].graph.name).filter(|_| is_good) {
                    let names = circle.iter().chain(circle.first()).map(|name| format!("`{name}`"));
                    let message = format!(
                        "workflows start each other in a circle: {}",
                        names.collect::<Vec<_>>().join(" → ")
                    );
                    let hint = "take one of these calls out; what is to be done again is a node of type `loop`";
                    wrong.push(Finding::new("", "workflow_cycle", message).hint(hint));
                }
                if is_good && !wrong.is_empty() {
                    checked.insert(place);
                    changed = true;
                }
                findings.extend(wrong);
            }
            if !changed {
                return;
            }
        }
    }

    /// As one that says what is declared above what counts: of its functions, and of the graphs that it is given later.
    #[must_use]
    pub fn noticing(mut self, longest: Longest) -> Self {
        let functions = self.workflows.values().filter(|declared| declared.graph.is_none());
        let functions = functions.chain(self.nodes.values());
        self.noticed = functions
            .filter_map(|declared| longest.noticed_of_function(declared))
            .collect();
        self.longest = Some(longest);
        self
    }

    /// Without what declares more than the installation allows: it may need that much, so it does not run with less.
    #[must_use]
    pub fn within(mut self, ceilings: &Limits) -> Self {
        let findings = &mut self.findings;
        let mut is_below = |name: &String, declared: &mut Declared| {
            let above = declared.limits.above(ceilings);
            let kind = declared.declared_as.as_str();
            findings.extend(above.iter().map(|(limit, declares, allowed)| {
                let message = format!(
                    "{kind} `{name}` declares {limit}={declares} in `limits`; at most {allowed} is allowed here"
                );
                Finding::new(
                    format!("{}:{}:1", declared.path, declared.line),
                    "limit_above_ceiling",
                    message,
                )
                .hint("declare less, or have the operator raise the setting (`WEFT_STEP_…` in docs/env-vars.md)")
            }));
            above.is_empty()
        };
        self.workflows.retain(&mut is_below);
        self.nodes.retain(&mut is_below);
        self
    }

    fn collect(&mut self, module: &Value, declared_as: DeclaredAs, module_name: &str, path: &str) {
        let list = match declared_as {
            DeclaredAs::Workflow => "workflows",
            DeclaredAs::DataProvider => "data_providers",
            DeclaredAs::Node => "nodes",
        };
        for item in module.get(list).and_then(Value::as_array).into_iter().flatten() {
            let declared = match serde_json::from_value::<Declared>(item.clone()) {
                Ok(declared) => Declared {
                    module: module_name.to_owned(),
                    path: path.to_owned(),
                    declared_as,
                    ..declared
                },
                Err(error) => {
                    self.findings.push(Finding::new(
                        path,
                        "invalid_declaration",
                        format!("the declaration can't be read: {error}"),
                    ));
                    continue;
                }
            };
            let bad = bad_pattern(&declared).or_else(|| bad_host(&declared));
            if let Some(finding) = bad.or_else(|| bad_input(&declared)) {
                self.findings.push(finding);
                continue;
            }
            let into = match declared_as {
                DeclaredAs::Workflow => &mut self.workflows,
                DeclaredAs::DataProvider => &mut self.data_providers,
                DeclaredAs::Node => &mut self.nodes,
            };
            into.entry(declared.name.clone()).or_insert(declared);
        }
    }
}

/// A graph as a workflow.
pub(super) fn declared(path: String, graph: Graph) -> Declared {
    Declared {
        name: graph.name.clone(),
        path,
        line: 1,
        description: graph.description.clone(),
        category: graph.category.clone(),
        tags: graph.tags.clone(),
        parameters: graph.parameters.clone(),
        security_profile: graph.security_profile,
        graph: Some(Arc::new(graph)),
        ..Declared::default()
    }
}

/// Patterns are matched by an engine that takes linear time, so look-around and back-references are refused here and not at
/// the first call.
fn bad_pattern(declared: &Declared) -> Option<Finding> {
    declared.parameters.iter().find_map(|Parameter { name, pattern, .. }| {
        let pattern = pattern.as_deref()?;
        let error = super::parameters::compile(pattern).err()?;
        let message = format!("the pattern of parameter `{name}` can't be used: {error}");
        Some(
            Finding::new(
                format!("{}:{}:1", declared.path, declared.line),
                "invalid_declaration",
                message,
            )
            .hint("use a pattern without look-around and back-references"),
        )
    })
}

/// Which page of its options is wanted is said beside the inputs of a data provider, and never to it.
fn bad_input(declared: &Declared) -> Option<Finding> {
    if declared.declared_as != DeclaredAs::DataProvider {
        return None;
    }
    let place = format!("{}:{}:1", declared.path, declared.line);
    let finding = |message: String| Finding::new(&place, "invalid_declaration", message);
    let names = declared.parameters.iter().map(|one| one.name.as_str());
    if let Some(name) = names.clone().find(|name| PAGING.contains(name)) {
        let message = format!(
            "data provider `{}` takes `{name}`, which callers could not give it",
            declared.name
        );
        return Some(finding(message).hint(format!(
            "give the parameter another name: `{}` belong to the request",
            PAGING.join("`, `")
        )));
    }
    let mut searching = declared.parameters.iter();
    let wrong = searching.find(|one| one.name == SEARCH && one.kind != ParameterType::String)?;
    let message = format!(
        "`{SEARCH}` of data provider `{}` is of type `{}`",
        declared.name,
        wrong.kind.as_str()
    );
    Some(finding(message).hint("annotate it `str`: it is what somebody types into the field"))
}

/// What a worker says of a file is said by code of that file, so hosts are read again here.
fn bad_host(declared: &Declared) -> Option<Finding> {
    let message = super::policy::bad_host(&declared.network)?;
    let place = format!("{}:{}:1", declared.path, declared.line);
    let finding = Finding::new(
        place,
        "invalid_declaration",
        format!("network of `{}`: {message}", declared.name),
    );
    Some(finding.hint(
        "write hosts as `api.example.com`, `*.example.com` or `api.example.com:8443`, or `*` for every public one",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_declares_more_than_is_allowed_is_left_out() {
        let module = serde_json::json!({"module": "workflows.m", "path": "workspace/workflows/m.py", "workflows": [
            {"name": "small", "function": "small", "line": 3, "limits": {"memory_mib": 128}},
            {"name": "large", "function": "large", "line": 9, "limits": {"memory_mib": 4096}},
        ]});
        let catalog = Catalog::from_description("sha256:0", &[module], Vec::new(), 1, 0.0).within(&Limits::default());
        assert_eq!(catalog.workflows.keys().collect::<Vec<_>>(), ["small"]);
        let [finding] = catalog.findings.as_slice() else {
            panic!("{:?}", catalog.findings)
        };
        assert_eq!(
            (finding.pointer.as_str(), finding.code.as_str()),
            ("workspace/workflows/m.py:9:1", "limit_above_ceiling")
        );
        assert!(finding.message.contains("memory_mib=4096") && finding.message.contains("512"));
    }
}
