//! Graphs as somebody might draw them, made by chance, in the form in which the product takes them: they are written into the
//! simulated workspace as files, so that reading, checking and planning them is part of what is simulated.

use serde_json::{Map, Value, json};

use super::random::Random;
use crate::definition::read_graph;
use crate::domain::{
    Backoff, Branch, Calls, DependsOn, Edge, Graph, ItemFailure, Join, Node, NodeWork, OnCrash, OnFailure, Parameter,
    ParameterType, Phase, RetryPolicy,
};

/// How often another graph is made where the compiler refuses one: branches that can never meet.
const TRIES: usize = 40;

/// What a graph may call.
#[derive(Debug, Clone, Copy)]
pub(super) struct Callable<'a> {
    /// Functions.
    pub(super) functions: &'a [String],
    /// Workflows, none of which starts this one.
    pub(super) workflows: &'a [String],
}

/// A graph that the compiler takes, with about so many nodes.
pub(super) fn graph(name: &str, random: &mut Random, callable: Callable<'_>, size: u64) -> Graph {
    for _ in 0..TRIES {
        let drawn = Drawing {
            random: &mut *random,
            callable,
            graph: Graph {
                name: name.to_owned(),
                category: "Simulated".to_owned(),
                parameters: vec![number("n", 3)],
                ..Graph::default()
            },
        }
        .draw(size);
        if read_graph(&text(&drawn)).findings.is_empty() {
            return drawn;
        }
    }
    Graph {
        name: name.to_owned(),
        category: "Simulated".to_owned(),
        parameters: vec![number("n", 3)],
        nodes: vec![Node::new(
            "only",
            NodeWork::Python {
                function: callable.functions[0].clone(),
            },
        )],
        ..Graph::default()
    }
}

/// The file of a graph.
pub(super) fn text(graph: &Graph) -> String {
    serde_json::to_string(graph).expect("a graph is JSON")
}

/// A whole number with a default.
pub(super) fn number(name: &str, default: i64) -> Parameter {
    Parameter {
        name: name.to_owned(),
        kind: ParameterType::Integer,
        default: json!(default),
        has_default: true,
        ..Parameter::default()
    }
}

fn expression(text: impl Into<String>) -> Value {
    json!({"$": text.into()})
}

struct Drawing<'a> {
    random: &'a mut Random,
    callable: Callable<'a>,
    graph: Graph,
}

impl Drawing<'_> {
    fn draw(mut self, size: u64) -> Graph {
        let nodes = 1 + self.random.below(size.max(1));
        for number in 0..nodes {
            let (id, edges) = (format!("s{number}"), self.edges_to(number));
            let node = self.node(&id, &edges);
            self.graph.nodes.push(node);
            self.graph.edges.extend(edges);
        }
        if self.chance(350) {
            self.later("mend", Phase::OnFailure);
        }
        if self.chance(450) {
            self.later("tidy", Phase::Finally);
        }
        self.settings();
        self.graph
    }

    fn chance(&mut self, per_mille: u64) -> bool {
        self.random.per_mille(per_mille)
    }

    /// Edges to the node that comes next: none, one, or several.
    fn edges_to(&mut self, number: u64) -> Vec<Edge> {
        let mut edges: Vec<Edge> = Vec::new();
        if number == 0 || self.chance(150) {
            return edges;
        }
        let count = *self.random.pick(&[1, 1, 1, 2, 2, 3]);
        for _ in 0..count {
            let place = if self.chance(500) {
                number - 1
            } else {
                self.random.below(number)
            };
            let from = self.graph.nodes[usize::try_from(place).unwrap_or_default()].clone();
            if edges.iter().any(|edge| edge.from == from.id) {
                continue;
            }
            let branches: Vec<String> = from.work.branches().map(str::to_owned).collect();
            let (mut on, mut branch) = (DependsOn::Success, None);
            if !branches.is_empty() && self.chance(750) {
                branch = Some(self.random.pick(&branches).clone());
            } else if self.chance(220) {
                on = *self
                    .random
                    .pick(&[DependsOn::Failure, DependsOn::Failure, DependsOn::End]);
            }
            edges.push(Edge {
                on,
                branch,
                ..Edge::new(from.id, format!("s{number}"))
            });
        }
        edges
    }

    fn node(&mut self, id: &str, edges: &[Edge]) -> Node {
        let before: Vec<Node> = edges
            .iter()
            .filter_map(|edge| self.graph.nodes.iter().find(|node| node.id == edge.from))
            .cloned()
            .collect();
        let work = self.work(&before);
        let tries = work.called().is_some();
        let mut node = Node::new(id, work);
        if edges.len() > 1 && self.chance(450) {
            node.join = Join::Any;
        }
        if self.chance(150) {
            node.when = Some(self.condition(&before));
        }
        if self.chance(200) {
            node.on_failure = OnFailure::Continue;
        }
        if tries {
            node.inputs = self.inputs(&node.work, &before);
            self.tries(&mut node);
        }
        node
    }

    fn work(&mut self, before: &[Node]) -> NodeWork {
        match self.random.below(100) {
            0..=37 => NodeWork::Python {
                function: self.function(),
            },
            38..=51 => NodeWork::Map {
                calls: self.calls(120),
                items: self.items(before),
                at_once: *self.random.pick(&[1, 2, 3, 10]),
                on_item_failure: *self.random.pick(&[
                    ItemFailure::Fail,
                    ItemFailure::Continue,
                    ItemFailure::AtMost(1),
                    ItemFailure::AtMost(2),
                ]),
                settings: Map::new(),
            },
            52..=60 => {
                let calls = self.calls(150);
                let by_output = matches!(calls, Calls::Function(_)) && self.chance(600);
                NodeWork::Loop {
                    calls,
                    until: if by_output {
                        "output.done".to_owned()
                    } else {
                        format!("iteration >= {}", self.random.below(4))
                    },
                    most: 1 + u32::try_from(self.random.below(4)).unwrap_or_default(),
                    settings: Map::new(),
                }
            }
            61..=69 => NodeWork::Choose {
                branches: (0..1 + self.random.below(2))
                    .map(|number| Branch {
                        name: format!("b{number}"),
                        when: self.condition(before),
                    })
                    .collect(),
                otherwise: self.chance(700).then(|| "other".to_owned()),
            },
            70..=77 => NodeWork::Compute {
                value: json!({"n": self.known_number(before)}),
            },
            78..=84 => NodeWork::Delay {
                seconds: match self.random.below(6) {
                    0 => json!(0),
                    1 => expression("inputs.n"),
                    2 => json!(0.5),
                    3 => json!(3.5),
                    4 => json!(12),
                    _ => json!(70),
                },
            },
            85..=90 => NodeWork::Approval {
                needed: 1 + u32::try_from(self.random.below(2)).unwrap_or_default(),
                within_seconds: *self.random.pick(&[30.0, 120.0, 400.0]),
                question: json!({"n": expression("inputs.n"), "sure": "?"}),
            },
            _ => match self.workflow() {
                Some(workflow) => NodeWork::Workflow { workflow },
                None => NodeWork::Python {
                    function: self.function(),
                },
            },
        }
    }

    fn function(&mut self) -> String {
        self.random.pick(self.callable.functions).clone()
    }

    fn workflow(&mut self) -> Option<String> {
        let workflows = self.callable.workflows;
        (!workflows.is_empty()).then(|| self.random.pick(workflows).clone())
    }

    fn calls(&mut self, workflow: u64) -> Calls {
        let workflow = if self.chance(workflow) { self.workflow() } else { None };
        workflow.map_or_else(|| Calls::Function(self.function()), Calls::Workflow)
    }

    /// A list: written down, or of an earlier step.
    fn items(&mut self, before: &[Node]) -> Value {
        let lists: Vec<&Node> = before
            .iter()
            .filter(|node| matches!(node.work, NodeWork::Python { .. }))
            .collect();
        if !lists.is_empty() && self.chance(700) {
            return expression(format!("steps.{}.output.list", self.random.pick(&lists).id));
        }
        let most = *self.random.pick(&[0, 1, 3, 3, 5, 5, 12]);
        json!((0..most).map(|place| 100 + place).collect::<Vec<_>>())
    }

    /// A number of an earlier step, or of the run.
    fn known_number(&mut self, before: &[Node]) -> Value {
        let numbers: Vec<&Node> = before
            .iter()
            .filter(|node| matches!(node.work, NodeWork::Python { .. } | NodeWork::Compute { .. }))
            .collect();
        if numbers.is_empty() || self.chance(300) {
            return expression("inputs.n");
        }
        expression(format!("steps.{}.output.n", self.random.pick(&numbers).id))
    }

    fn condition(&mut self, before: &[Node]) -> String {
        let mut known: Vec<String> = vec!["inputs.n >= 2".to_owned(), "inputs.n >= 6".to_owned()];
        for node in before {
            known.push(format!("steps.{}.status == 'succeeded'", node.id));
            if matches!(node.work, NodeWork::Python { .. } | NodeWork::Compute { .. }) {
                known.push(format!("steps.{}.output.n >= 5", node.id));
                known.push(format!("steps.{}.output.n >= 3", node.id));
            }
        }
        self.random.pick(&known).clone()
    }

    fn inputs(&mut self, work: &NodeWork, before: &[Node]) -> Option<Map<String, Value>> {
        let calls_workflow = matches!(
            work,
            NodeWork::Workflow { .. }
                | NodeWork::Map {
                    calls: Calls::Workflow(_),
                    ..
                }
                | NodeWork::Loop {
                    calls: Calls::Workflow(_),
                    ..
                }
        );
        // What a graph's own parameters don't fit is given nothing.
        let inputs = match work {
            NodeWork::Map { .. } if calls_workflow => json!({"n": expression("index")}),
            NodeWork::Map { .. } => json!({"item": expression("item"), "index": expression("index")}),
            NodeWork::Loop { .. } => json!({"n": expression("iteration")}),
            _ => json!({"n": self.known_number(before)}),
        };
        inputs.as_object().cloned()
    }

    fn tries(&mut self, node: &mut Node) {
        if self.chance(400) {
            node.retry = Some(RetryPolicy {
                attempts: 2 + u32::try_from(self.random.below(2)).unwrap_or_default(),
                delay_seconds: *self.random.pick(&[0.0, 0.5, 4.0, 25.0]),
                backoff: *self
                    .random
                    .pick(&[Backoff::Fixed, Backoff::Linear, Backoff::Exponential]),
                jitter: *self.random.pick(&[0.0, 0.5]),
                ..RetryPolicy::default()
            });
        }
        if self.chance(250) {
            node.on_crash = Some(OnCrash::Fail);
        }
        if self.chance(150) {
            node.timeout_seconds = Some(*self.random.pick(&[4.0, 30.0, 120.0]));
        }
    }

    /// A node of a later phase, and sometimes one behind it.
    fn later(&mut self, id: &str, phase: Phase) {
        let nodes = 1 + u64::from(self.chance(300));
        for number in 0..nodes {
            let mut node = Node::new(
                format!("{id}{number}"),
                NodeWork::Python {
                    function: self.function(),
                },
            );
            node.phase = phase;
            node.inputs = json!({"n": expression("inputs.n")}).as_object().cloned();
            if self.chance(300) {
                node.on_failure = OnFailure::Continue;
            }
            self.tries(&mut node);
            if number > 0 && self.chance(600) {
                self.graph.edges.push(Edge::new(format!("{id}0"), node.id.clone()));
            }
            self.graph.nodes.push(node);
        }
    }

    fn settings(&mut self) {
        if self.chance(250) {
            self.graph.active = Some(*self.random.pick(&[1, 2, 4]));
        }
        if self.chance(150) {
            self.graph.deadline_seconds = Some(*self.random.pick(&[20.0, 90.0, 400.0]));
        }
        if self.chance(600) {
            let mut output = Map::new();
            output.insert("n".into(), expression("inputs.n"));
            let main: Vec<Node> = self
                .graph
                .nodes
                .iter()
                .filter(|node| node.phase == Phase::Main)
                .cloned()
                .collect();
            for node in main {
                if self.chance(400) {
                    let member = if matches!(node.work, NodeWork::Python { .. }) && self.chance(100) {
                        // Where it was left out or has failed there is none: the result can't be worked out then.
                        ".n"
                    } else {
                        ""
                    };
                    output.insert(node.id.clone(), expression(format!("steps.{}.output{member}", node.id)));
                }
            }
            self.graph.output = Some(Value::Object(output));
        }
    }
}
