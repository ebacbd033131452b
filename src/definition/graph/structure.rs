//! How the nodes of a graph follow each other: edges that lead somewhere, no circles, no node that can never run.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{ReadGraph, is_full, listed, shown};
use crate::definition::parameters::nearest;
use crate::domain::{DependsOn, Edge, Graph, Join, NodeWork, OnFailure, Phase};
use crate::error::Finding;

pub(super) fn check(read: &mut ReadGraph) {
    let ReadGraph { graph, findings, at } = read;
    let places = graph.places();
    let mut good = Vec::new();
    let mut seen = HashSet::new();
    for (index, edge) in graph.edges.iter().enumerate() {
        if is_full(findings) {
            return;
        }
        // What has no name has its finding.
        if edge.from.is_empty() || edge.to.is_empty() {
            continue;
        }
        let before = findings.len();
        check_edge(graph, &places, (index, edge), findings);
        super::ports::check_form(index, edge, findings);
        if !seen.insert((&edge.from, &edge.to, edge.on, &edge.branch, &edge.output, &edge.input)) {
            let message = format!("the edge from `{}` to `{}` is there twice", edge.from, edge.to);
            findings
                .push(Finding::new(format!("/edges/{index}"), "duplicate_edge", message).hint("take one of them out"));
        }
        if findings.len() == before
            && let (Some(from), Some(to)) = (places.get(edge.from.as_str()), places.get(edge.to.as_str()))
        {
            good.push((*from, *to, edge));
        }
    }
    let circles = circles(graph.nodes.len(), &good);
    for circle in &circles {
        let names = circle
            .iter()
            .chain(circle.first())
            .map(|place| graph.nodes[*place].id.as_str());
        let message = format!(
            "nodes wait for each other in a circle: {}",
            names.map(|id| format!("`{id}`")).collect::<Vec<_>>().join(" → ")
        );
        let pointer = circle.first().map_or_else(String::new, |place| at[*place].clone());
        let hint = "take one of these edges out; what is to be done again is a node of type `loop`";
        findings.push(Finding::new(pointer, "cycle", message).hint(hint));
    }
    if circles.is_empty() {
        never_runs(graph, at, &good, findings);
    }
}

fn check_edge(
    graph: &Graph,
    places: &HashMap<&str, usize>,
    (index, edge): (usize, &Edge),
    findings: &mut Vec<Finding>,
) {
    let mut add = |member: &str, code: &str, message: String, hint: String| {
        findings.push(Finding::new(format!("/edges/{index}{member}"), code, message).hint(hint));
    };
    let mut node = |member: &str, id: &str| {
        let found = places.get(id).map(|place| &graph.nodes[*place]);
        if found.is_none() {
            let ids = || {
                graph
                    .nodes
                    .iter()
                    .map(|node| node.id.as_str())
                    .filter(|id| !id.is_empty())
            };
            let hint = match nearest(id, ids()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there is {}", listed(ids())),
            };
            add(
                member,
                "edge_unknown_node",
                format!("edge {index} names node `{}`, which there isn't", shown(id)),
                hint,
            );
        }
        found
    };
    let (from, to) = (node("/from", &edge.from), node("/to", &edge.to));
    if edge.from == edge.to && from.is_some() {
        add(
            "",
            "self_loop",
            format!("node `{}` waits for itself", edge.from),
            "take the edge out; what is to be done again is a node of type `loop`".to_owned(),
        );
    }
    if let (Some(from), Some(to)) = (from, to)
        && from.phase != to.phase
    {
        let message = format!(
            "edge {index} leads from `{}` ({}) to `{}` ({}), and phases follow each other as a whole",
            from.id,
            phase_name(from.phase),
            to.id,
            phase_name(to.phase)
        );
        let hint = "take the edge out: every node of a later phase begins after all of an earlier one".to_owned();
        add("", "edge_between_phases", message, hint);
    }
    let Some(branch) = &edge.branch else { return };
    if edge.on != DependsOn::Success {
        add(
            "/on",
            "branch_needs_success",
            format!("edge {index} names a branch, and wants something else than success"),
            "take `on` or `branch` out: a choice that has failed has taken no branch".to_owned(),
        );
    }
    let Some(from) = from else { return };
    if !matches!(from.work, NodeWork::Choose { .. }) {
        add(
            "/branch",
            "branch_without_choose",
            format!(
                "edge {index} names branch `{}` of `{}`, which doesn't choose",
                shown(branch),
                from.id
            ),
            "take `branch` out, or let the edge begin at a node of type `choose`".to_owned(),
        );
    } else if !from.work.branches().any(|known| known == branch) {
        let hint = match nearest(branch, from.work.branches()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("`{}` has {}", from.id, listed(from.work.branches())),
        };
        let message = format!(
            "edge {index} names branch `{}` of `{}`, which there isn't",
            shown(branch),
            from.id
        );
        add("/branch", "unknown_branch", message, hint);
    }
}

pub(super) const fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Main => "main",
        Phase::OnFailure => "on_failure",
        Phase::Finally => "finally",
    }
}

/// Circles, at least one where there are any; each as the places along it.
fn circles(nodes: usize, edges: &[(usize, usize, &Edge)]) -> Vec<Vec<usize>> {
    let mut followers = vec![Vec::new(); nodes];
    for (from, to, _) in edges {
        followers[*from].push(*to);
    }
    // 0: not seen, 1: on the path, 2: done.
    let mut mark = vec![0_u8; nodes];
    let mut found = Vec::new();
    for start in 0..nodes {
        if mark[start] != 0 {
            continue;
        }
        // Without recursion: a chain may be a thousand long.
        let mut path = vec![(start, 0)];
        mark[start] = 1;
        while let Some((place, next)) = path.last_mut() {
            let Some(follower) = followers[*place].get(*next).copied() else {
                mark[*place] = 2;
                path.pop();
                continue;
            };
            *next += 1;
            match mark[follower] {
                0 => {
                    mark[follower] = 1;
                    path.push((follower, 0));
                }
                1 => {
                    let along = path.iter().map(|(place, _)| *place);
                    let mut circle: Vec<_> = along.skip_while(|place| *place != follower).collect();
                    // Whichever node it was found from, it begins where it does in the file.
                    if let Some(first) = circle.iter().enumerate().min_by_key(|(_, place)| **place) {
                        let first = first.0;
                        circle.rotate_left(first);
                    }
                    if !found.contains(&circle) {
                        found.push(circle);
                    }
                }
                _ => {}
            }
        }
    }
    found
}

/// What must have come of an earlier node, so that a later one can run.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome<'a> {
    Branch(&'a str),
    Success,
    Failure,
}

type Needs<'a> = BTreeMap<usize, Outcome<'a>>;

/// Nodes whose edges contradict each other, and those behind them.
fn never_runs(graph: &Graph, at: &[String], edges: &[(usize, usize, &Edge)], findings: &mut Vec<Finding>) {
    // Only of nodes that have several outcomes somebody waits for; of others nothing can contradict itself.
    let mut parts = vec![false; graph.nodes.len()];
    let mut before = vec![Vec::new(); graph.nodes.len()];
    for (from, to, edge) in edges {
        parts[*from] |= edge.branch.is_some() || edge.on == DependsOn::Failure;
        before[*to].push((*from, *edge));
    }
    let (order, _) = graph.order();
    // None for one that can't run.
    let mut needs: Vec<Option<Needs<'_>>> = vec![None; graph.nodes.len()];
    for place in order {
        let node = &graph.nodes[place];
        let comes: Vec<Option<Needs<'_>>> = before[place]
            .iter()
            .map(|(from, edge)| {
                // Whatever has not run has ended, too.
                if edge.on == DependsOn::End {
                    return Some(Needs::new());
                }
                let mut needs = needs[*from].clone()?;
                let earlier = &graph.nodes[*from];
                let outcome = match (&edge.branch, edge.on) {
                    (Some(branch), _) => Outcome::Branch(branch),
                    (None, DependsOn::Failure) => Outcome::Failure,
                    _ => Outcome::Success,
                };
                // Where a failure doesn't count, it is a success, too.
                if parts[*from] && earlier.on_failure == OnFailure::Fail {
                    needs.insert(*from, outcome);
                }
                Some(needs)
            })
            .collect();
        match node.join {
            Join::Any if comes.is_empty() => needs[place] = Some(Needs::new()),
            Join::Any => {
                let mut can = comes.into_iter().flatten();
                needs[place] = can.next().map(|first| {
                    can.fold(first, |mut common, other| {
                        common.retain(|place, outcome| other.get(place) == Some(outcome));
                        common
                    })
                });
                if needs[place].is_none() {
                    let message = format!(
                        "node `{}` can never run: it waits only for nodes that never do",
                        node.id
                    );
                    findings.push(Finding::new(&at[place], "never_runs", message).hint("mend those first"));
                }
            }
            Join::All => match together(graph, &before[place], comes) {
                Ok(all) => needs[place] = Some(all),
                Err((why, hint)) => {
                    let message = format!("node `{}` can never run: {why}", node.id);
                    findings.push(Finding::new(&at[place], "never_runs", message).hint(hint));
                }
            },
        }
    }
}

fn together<'a>(
    graph: &Graph,
    before: &[(usize, &Edge)],
    comes: Vec<Option<Needs<'a>>>,
) -> Result<Needs<'a>, (String, &'static str)> {
    let mut all = Needs::new();
    for ((from, _), needs) in before.iter().zip(comes) {
        let Some(needs) = needs else {
            return Err((
                format!("it waits for `{}`, which never does", graph.nodes[*from].id),
                "mend that first",
            ));
        };
        for (place, outcome) in needs {
            match all.get(&place) {
                // A node that succeeds may take any branch.
                Some(known) if *known != outcome => match (known, &outcome) {
                    (Outcome::Branch(_), Outcome::Success) => {}
                    (Outcome::Success, Outcome::Branch(_)) => {
                        all.insert(place, outcome);
                    }
                    _ => {
                        let id = &graph.nodes[place].id;
                        return Err((
                            format!("of `{id}` it needs {} and {} at once", said(known), said(&outcome)),
                            "where branches meet again, set `\"join\": \"any\"`",
                        ));
                    }
                },
                _ => {
                    all.insert(place, outcome);
                }
            }
        }
    }
    Ok(all)
}

fn said(outcome: &Outcome<'_>) -> String {
    match outcome {
        Outcome::Branch(name) => format!("branch `{name}`"),
        Outcome::Success => "its success".to_owned(),
        Outcome::Failure => "its failure".to_owned(),
    }
}

/// For each node, the nodes that have ended before it begins.
pub(super) struct Before {
    words: usize,
    bits: Vec<u64>,
    phases: Vec<Phase>,
}

impl Before {
    pub(super) fn of(graph: &Graph) -> Self {
        let nodes = graph.nodes.len();
        let words = nodes.div_ceil(64);
        let places = graph.places();
        let mut earlier = vec![Vec::new(); nodes];
        for edge in &graph.edges {
            if let (Some(from), Some(to)) = (places.get(edge.from.as_str()), places.get(edge.to.as_str())) {
                earlier[*to].push(*from);
            }
        }
        let mut bits = vec![0_u64; nodes * words];
        for place in graph.order().0 {
            for from in &earlier[place] {
                for word in 0..words {
                    bits[place * words + word] |= bits[from * words + word];
                }
                bits[place * words + from / 64] |= 1 << (from % 64);
            }
        }
        Self {
            words,
            bits,
            phases: graph.nodes.iter().map(|node| node.phase).collect(),
        }
    }

    /// Whether `earlier` has ended before `place` begins.
    pub(super) fn has_ended(&self, earlier: usize, place: usize) -> bool {
        self.phases[earlier] < self.phases[place]
            || self.bits[place * self.words + earlier / 64] >> (earlier % 64) & 1 == 1
    }
}
