//! A graph → what is executed: its nodes in an order that respects their edges, with the code that they call.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::plan::{Action, Code, Dependency, Output, Plan, Starts, StepPlan, Work};
use crate::domain::{
    Called, Calls, DEFAULT_ACTIVE, Declared, DependsOn, Graph, LibraryVersion, Limits, Node, NodeWork, OnCrash, Phase,
    Port, RetryPolicy, Script, SettingKind,
};

/// A function or a version of a node type that a graph uses and that isn't there; a graph that was checked names none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the graph uses `{0}`, which the workspace doesn't declare")]
pub struct MissingFunction(pub String);

impl Plan {
    /// A graph that was checked. `declared` are the functions that it calls, by name, and the versions of node types, by name and
    /// version; limits of each are the declared ones, below the ceilings of `limits`.
    ///
    /// # Errors
    /// When a function is missing.
    pub fn of_graph(
        bundle: &str,
        graph: &Graph,
        declared: &BTreeMap<&str, &Declared>,
        limits: &Limits,
    ) -> Result<Self, MissingFunction> {
        let (order, _) = graph.order();
        let file_places = graph.places();
        // From the place in the file to the place in the plan.
        let mut planned = vec![usize::MAX; graph.nodes.len()];
        for (place, file) in order.iter().enumerate() {
            planned[*file] = place;
        }
        let mut depends_on: Vec<Vec<Dependency>> = vec![Vec::new(); graph.nodes.len()];
        let mut handled = vec![false; graph.nodes.len()];
        let mut followed = vec![false; graph.nodes.len()];
        for edge in &graph.edges {
            let (Some(from), Some(to)) = (file_places.get(edge.from.as_str()), file_places.get(edge.to.as_str()))
            else {
                continue;
            };
            followed[*from] = true;
            handled[*from] |= edge.on == DependsOn::Failure && graph.nodes[*from].phase == graph.nodes[*to].phase;
            depends_on[*to].push(Dependency {
                step: planned[*from],
                on: edge.on,
                branch: edge.branch.clone(),
            });
        }
        let mut steps = Vec::with_capacity(order.len());
        for file in order {
            let node = &graph.nodes[file];
            let function = match node.work.called() {
                Some(Called::Function(name) | Called::Version(name)) => declared.get(name).copied(),
                _ => None,
            };
            steps.push(StepPlan {
                inputs: inputs(node, function),
                depends_on: std::mem::take(&mut depends_on[file]),
                join: node.join,
                when: node.when.clone(),
                phase: node.phase,
                on_failure: node.on_failure,
                handled: handled[file],
                retry: retry(node, function),
                on_crash: on_crash(node, function),
                timeout_ms: node.timeout_seconds.map(millis),
                cache_seconds: node.cache_seconds,
                ..StepPlan::new(node.id.as_str(), work(graph, node, function, limits)?)
            });
        }
        let mut last = graph.nodes.iter().zip(&followed);
        let mut last = last
            .by_ref()
            .filter(|(node, followed)| !**followed && node.phase == Phase::Main);
        let result = match (&graph.output, last.next(), last.next()) {
            (Some(output), _, _) => output.clone(),
            (None, Some((node, _)), None) => json!({"$": format!("steps.{}.output", node.id)}),
            _ => Value::Null,
        };
        Ok(Self {
            workflow: graph.name.clone(),
            bundle: bundle.to_owned(),
            revision: None,
            environment: None,
            profile: None,
            steps,
            output: Output::Value(result),
            active: graph.active.unwrap_or(DEFAULT_ACTIVE),
            deadline_ms: graph.deadline_seconds.map(millis),
        })
    }
}

/// What the node says goes before what the function declares.
fn retry(node: &Node, function: Option<&Declared>) -> RetryPolicy {
    let declared = || function.map(|declared| declared.retry.clone());
    node.retry.clone().or_else(declared).unwrap_or_default()
}

/// What its action is given.
fn inputs(node: &Node, function: Option<&Declared>) -> Option<Value> {
    match &node.work {
        NodeWork::Library { settings, .. }
        | NodeWork::Map {
            calls: Calls::Version(_),
            settings,
            ..
        }
        | NodeWork::Loop {
            calls: Calls::Version(_),
            settings,
            ..
        } => {
            let authored = function.and_then(|function| function.authored.as_deref())?;
            let settings = set(authored, settings);
            let is_code = authored.document.body.code().is_some();
            let inputs = match node.given() {
                Some(inputs) => Value::Object(inputs),
                None if !matches!(node.work, NodeWork::Map { .. }) => json!({}),
                None if is_code => json!({"$": "item if item is mapping else {'item': item}"}),
                None => Value::Object(authored.document.inputs.iter().map(of_item).collect()),
            };
            Some(match inputs {
                Value::Object(inputs) if !is_code => Value::Object(settings.into_iter().chain(inputs).collect()),
                inputs => json!({"inputs": inputs, "settings": settings}),
            })
        }
        NodeWork::Shell {
            command,
            script,
            environment,
            working_directory,
            capture_output,
            expect,
            ..
        } => {
            let argv = match script {
                Some(script) => {
                    let parameters = script.parameters.iter().map(|code| json!({"$": code}));
                    let before = ["/bin/sh", "-c", &script.text, "sh"].map(|text| json!(text));
                    before.into_iter().chain(parameters).collect()
                }
                None => command.clone(),
            };
            let (secrets, environment) = parted(environment);
            let secrets: BTreeMap<_, _> = secrets
                .into_iter()
                .map(|(name, value)| (name, &value[SECRET]))
                .collect();
            Some(json!({
                "argv": argv,
                "environment": environment,
                "secret_environment": secrets,
                "working_directory": working_directory.as_deref().unwrap_or_default(),
                "capture_output": capture_output,
                "expect": expect,
            }))
        }
        NodeWork::Http {
            method,
            url,
            query,
            headers,
            body,
            expect,
            ..
        } => Some(json!({
            "method": method,
            "url": node.member("url", url),
            "query": query,
            "headers": parted(headers).1,
            "secret_header": secret_header(headers),
            "body": node.fed.get("body").or(body.as_ref()),
            "expect": expect,
        })),
        NodeWork::Email {
            server,
            security,
            credentials,
            message,
        } => {
            let (secrets, credentials) = parted(credentials);
            let secrets: BTreeMap<_, _> = secrets
                .into_iter()
                .map(|(name, value)| (name, &value[SECRET]))
                .collect();
            let fed = node.work.own_inputs().iter();
            let fed = fed.filter_map(|name| Some(((*name).to_owned(), node.fed.get(*name)?.clone())));
            let mut message = message.clone();
            message.extend(fed);
            Some(json!({
                "server": server,
                "security": security,
                "credentials": credentials,
                "secret_credentials": secrets,
                "message": message,
            }))
        }
        NodeWork::File {
            action,
            format,
            content,
            name,
            media_type,
            store,
            file,
            header,
            delimiter,
        } => Some(json!({
            "action": action,
            "format": format,
            "content": node.fed.get("content").or(content.as_ref()),
            "name": name,
            "media_type": media_type,
            "store": store,
            "file": node.fed.get("file").or(file.as_ref()),
            "header": header,
            "delimiter": delimiter,
        })),
        _ => node.given().map(Value::Object),
    }
}

/// What an item of a map gives an input: its member of that name, or itself as `item`.
fn of_item(port: &Port) -> (String, Value) {
    let name = json!(port.name);
    let otherwise = if port.name == "item" {
        "(none if item is mapping else item)"
    } else {
        "none"
    };
    let code = format!("item[{name}] if item is mapping and {name} in item else {otherwise}");
    (port.name.clone(), json!({"$": code}))
}

/// The member that makes a value the name of a secret.
const SECRET: &str = "$secret";

/// The variables of a command, or headers of a request, that are secrets; and the others.
fn parted(values: &Map<String, Value>) -> (BTreeMap<&str, &Value>, BTreeMap<&str, &Value>) {
    let named = values.iter().map(|(name, value)| (name.as_str(), value));
    named.partition(|(_, value)| value.get(SECRET).is_some())
}

/// The secret that a request has in a header: its name, and how it is put on.
fn secret_header(headers: &Map<String, Value>) -> Option<Value> {
    let (name, value) = parted(headers).0.into_iter().next()?;
    let how = match value.get("as").and_then(Value::as_str) {
        Some(how) => how.to_owned(),
        None => format!("header:{name}"),
    };
    Some(json!({"secret": value[SECRET], "as": how}))
}

/// The names of all secrets that these values may come to name.
fn secrets_of(values: &Map<String, Value>, graph: &Graph) -> Vec<String> {
    let mut names = BTreeSet::new();
    for value in parted(values).0.into_values() {
        let input = value[SECRET].get("$").and_then(Value::as_str);
        let input = input.and_then(|text| text.trim().strip_prefix("inputs."));
        let chosen = graph.parameters.iter().find(|one| Some(one.name.as_str()) == input);
        let may_be = chosen.iter().filter_map(|one| one.values.as_ref()).flatten();
        names.extend(
            may_be
                .chain([&value[SECRET]])
                .filter_map(Value::as_str)
                .map(str::to_owned),
        );
    }
    names.into_iter().collect()
}

/// Settings with their defaults; of a secret, its name.
fn set(authored: &LibraryVersion, written: &Map<String, Value>) -> Map<String, Value> {
    let fields = authored.document.settings.iter();
    let settings = fields.filter_map(|field| {
        let value = written.get(&field.name).filter(|value| !value.is_null());
        let value = match value.or(field.default.as_ref())? {
            value if field.kind == SettingKind::Secret => value.get("$secret").unwrap_or(value),
            value => value,
        };
        Some((field.name.clone(), value.clone()))
    });
    settings.collect()
}

/// The programs that a command starts, as far as they can be told.
fn starts(command: &Value, script: Option<&Script>) -> Starts {
    let program = || match command.get(0) {
        Some(Value::String(program)) if !program.contains('/') => Some(vec![program.clone()]),
        _ => None,
    };
    let programs = script.map_or_else(program, |script| script.programs.clone());
    programs.map_or(Starts::Unknown, Starts::Programs)
}

fn on_crash(node: &Node, function: Option<&Declared>) -> OnCrash {
    let declared = || function.map(|declared| declared.on_crash);
    node.on_crash.or_else(declared).unwrap_or_default()
}

fn work(graph: &Graph, node: &Node, function: Option<&Declared>, limits: &Limits) -> Result<Work, MissingFunction> {
    let action = || match (node.work.called(), function) {
        (Some(Called::Workflow(workflow)), _) => Ok(Action::Child {
            workflow: workflow.to_owned(),
        }),
        (Some(Called::Function(_) | Called::Version(_)), Some(declared)) => {
            let mut code = Code::of(declared, limits);
            code.secrets.extend(secrets(node, declared));
            code.secrets.sort();
            code.secrets.dedup();
            Ok(Action::Code(Box::new(code)))
        }
        (Some(Called::Function(name) | Called::Version(name)), None) => Err(MissingFunction(name.to_owned())),
        (None, _) => Err(MissingFunction(node.id.clone())),
    };
    Ok(match &node.work {
        NodeWork::Python { .. } | NodeWork::Workflow { .. } | NodeWork::Library { .. } => Work::Once(action()?),
        NodeWork::Shell {
            command,
            script,
            environment,
            network,
            ..
        } => {
            let mut code = Code::built_in("shell", limits, network, starts(command, script.as_ref()));
            code.secrets = secrets_of(environment, graph);
            Work::Once(Action::Code(Box::new(code)))
        }
        NodeWork::Http { headers, network, .. } => {
            let mut code = Code::built_in("http", limits, network, Starts::Nothing);
            code.secrets = secrets_of(headers, graph);
            Work::Once(Action::Code(Box::new(code)))
        }
        NodeWork::Email {
            server, credentials, ..
        } => {
            let mut code = Code::built_in("email", limits, std::slice::from_ref(server), Starts::Nothing);
            code.secrets = secrets_of(credentials, graph);
            Work::Once(Action::Code(Box::new(code)))
        }
        NodeWork::File { .. } => {
            let code = Code::built_in("file", limits, &[], Starts::Nothing);
            Work::Once(Action::Code(Box::new(code)))
        }
        NodeWork::Assert {
            condition,
            message,
            on_false,
        } => Work::Assert {
            condition: condition.clone(),
            message: message.clone(),
            on_false: *on_false,
        },
        NodeWork::Template { template } => Work::Compute {
            value: json!({"$text": template}),
        },
        NodeWork::Map {
            items,
            at_once,
            on_item_failure,
            ..
        } => Work::Map {
            action: action()?,
            items: node.member("items", items).clone(),
            at_once: *at_once,
            failure: *on_item_failure,
        },
        NodeWork::Loop { until, most, .. } => Work::Loop {
            action: action()?,
            until: until.clone(),
            most: *most,
        },
        NodeWork::Choose { branches, otherwise } => Work::Choose {
            branches: branches
                .iter()
                .map(|branch| (branch.name.clone(), branch.when.clone()))
                .collect(),
            otherwise: otherwise.clone(),
        },
        NodeWork::Compute { value } => Work::Compute {
            value: node.member("value", value).clone(),
        },
        NodeWork::Delay { seconds } => Work::Delay {
            seconds: node.member("seconds", seconds).clone(),
        },
        NodeWork::Approval {
            needed,
            within_seconds,
            question,
        } => Work::Approval {
            needed: *needed,
            within_ms: millis(*within_seconds),
            question: node.member("question", question).clone(),
        },
    })
}

/// The secrets that a node of the library is set to.
fn secrets(node: &Node, declared: &Declared) -> Vec<String> {
    let (Some((_, settings)), Some(authored)) = (node.work.version(), &declared.authored) else {
        return Vec::new();
    };
    let set = set(authored, settings);
    let fields = authored.document.settings.iter();
    let names = fields
        .filter(|field| field.kind == SettingKind::Secret)
        .filter_map(|field| set.get(&field.name)?.as_str().map(str::to_owned));
    names.collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a checked graph has at most 90 days"
)]
fn millis(seconds: f64) -> u64 {
    (seconds.clamp(0.0, 1e9) * 1000.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Edge;

    fn node(id: &str) -> Node {
        Node::new(id, NodeWork::Compute { value: Value::Null })
    }

    fn edge(from: &str, to: &str, on: DependsOn) -> Edge {
        Edge {
            on,
            ..Edge::new(from, to)
        }
    }

    fn plan(graph: &Graph) -> Plan {
        Plan::of_graph("sha256:0", graph, &BTreeMap::new(), &Limits::default()).unwrap()
    }

    #[test]
    fn steps_stand_behind_what_they_wait_for_and_otherwise_as_in_the_file() {
        let graph = Graph {
            nodes: ["last", "a", "b", "first", "tidy"].map(node).into(),
            edges: vec![
                edge("first", "a", DependsOn::Success),
                edge("a", "last", DependsOn::End),
                edge("b", "last", DependsOn::Failure),
            ],
            ..Graph::default()
        };
        let plan = plan(&graph);
        let ids: Vec<_> = plan.steps.iter().map(|step| step.id.as_str()).collect();
        assert_eq!(ids, ["b", "first", "a", "last", "tidy"]);
        for (place, step) in plan.steps.iter().enumerate() {
            assert!(step.depends_on.iter().all(|edge| edge.step < place));
            assert_eq!(step.handled, step.id == "b", "{}", step.id);
        }
        // Two that nothing follows, and no `output`.
        assert_eq!(plan.output, Output::Value(Value::Null));
    }

    #[test]
    fn the_only_end_gives_the_result() {
        let graph = Graph {
            nodes: vec![
                node("a"),
                node("b"),
                Node {
                    phase: Phase::Finally,
                    ..node("tidy")
                },
            ],
            edges: vec![edge("a", "b", DependsOn::Success)],
            ..Graph::default()
        };
        assert_eq!(plan(&graph).output, Output::Value(json!({"$": "steps.b.output"})));
    }

    #[test]
    fn a_node_goes_before_its_function_and_a_missing_function_is_named() {
        let calls = |id: &str| {
            Node::new(
                id,
                NodeWork::Python {
                    function: "fetch".into(),
                },
            )
        };
        let retry = |attempts| RetryPolicy {
            attempts,
            ..RetryPolicy::default()
        };
        let graph = Graph {
            nodes: vec![
                calls("a"),
                Node {
                    retry: Some(retry(5)),
                    on_crash: Some(OnCrash::Retry),
                    ..calls("b")
                },
            ],
            deadline_seconds: Some(1.5),
            ..Graph::default()
        };
        let fetch = Declared {
            name: "fetch".into(),
            retry: retry(3),
            on_crash: OnCrash::Fail,
            secrets: vec!["token".into()],
            ..Declared::default()
        };
        let declared = BTreeMap::from([("fetch", &fetch)]);
        let plan = Plan::of_graph("sha256:0", &graph, &declared, &Limits::default()).unwrap();
        assert_eq!(plan.deadline_ms, Some(1500));
        let said: Vec<_> = plan
            .steps
            .iter()
            .map(|step| (step.retry.attempts, step.on_crash))
            .collect();
        assert_eq!(said, [(3, OnCrash::Fail), (5, OnCrash::Retry)]);
        assert_eq!(plan.steps[0].work.code().unwrap().secrets, ["token"]);
        let missing = Plan::of_graph("sha256:0", &graph, &BTreeMap::new(), &Limits::default());
        assert_eq!(missing, Err(MissingFunction("fetch".into())));
    }
}
