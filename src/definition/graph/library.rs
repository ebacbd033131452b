//! What a graph uses of the node library: exact versions that there are, settings that fit to their fields, inputs that there are
//! ports for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::{ReadGraph, closed, escaped, is_full, listed, shown};
use crate::definition::expression::{SECRET_MARK, expressions};
use crate::definition::node_type::{check_port, check_setting};
use crate::definition::parameters::nearest;
use crate::domain::{Graph, LibraryVersion, Node, NodeUse, NodeVersion, NodeWork, Setting, SettingKind};
use crate::error::Finding;

/// The code of a finding about a version that is not exact.
pub const INEXACT: &str = "node_version_not_exact";

/// As much of the library as a graph needs to be checked.
#[derive(Debug, Clone, Default)]
pub struct Library {
    /// All names, with the versions that can be used, oldest first.
    pub types: BTreeMap<String, Vec<NodeVersion>>,
    /// The versions that the graph uses, as far as they are there, by what `use` names.
    pub versions: BTreeMap<String, Arc<LibraryVersion>>,
}

/// The newest of some versions: a release, where there is one.
fn newest(versions: &[NodeVersion]) -> Option<&NodeVersion> {
    let release = versions.iter().rev().find(|version| !version.is_before_release());
    release.or(versions.last())
}

/// What of a graph names no exact version. `newest` is known for as many names as it is known for.
#[must_use]
pub fn inexact(read: &ReadGraph, newest: &BTreeMap<String, String>) -> Vec<Finding> {
    let nodes = read.graph.nodes.iter().zip(&read.at);
    let wrong = nodes.filter_map(|(node, at)| {
        let (node_type, _) = node.work.version()?;
        not_exact(node, node_type, at, |name| newest.get(name).cloned())
    });
    wrong.collect()
}

fn not_exact(node: &Node, written: &str, at: &str, newest: impl Fn(&str) -> Option<String>) -> Option<Finding> {
    if written.is_empty() || written.parse::<NodeUse>().is_ok() {
        return None;
    }
    let name = written.split('@').next().unwrap_or_default();
    let hint = match newest(name) {
        Some(version) => format!("write an exact version; the newest is `{name}@{version}`"),
        None => "write the name and an exact version, as `shout@1.2.0`; `GET /api/node-types` lists them".to_owned(),
    };
    let message = format!(
        "node `{}` uses `{}`, which names no exact version",
        node.id,
        shown(written)
    );
    Some(Finding::new(format!("{at}/use"), INEXACT, message).hint(hint))
}

/// What of a graph doesn't fit to the library.
#[must_use]
pub fn check_library(graph: &Graph, library: &Library) -> Vec<Finding> {
    let mut findings = Vec::new();
    for node in &graph.nodes {
        if is_full(&findings) {
            break;
        }
        let Some((node_type, settings)) = node.work.version() else {
            continue;
        };
        let at = format!("/nodes/{}", node.id);
        let known = |name: &str| library.types.get(name).and_then(|versions| newest(versions));
        if let Some(finding) = not_exact(node, node_type, &at, |name| known(name).map(ToString::to_string)) {
            findings.push(finding);
            continue;
        }
        let Some(authored) = library.versions.get(node_type) else {
            findings.push(unknown(node, node_type, &at, library));
            continue;
        };
        check_settings(node, settings, authored, &at, &mut findings);
        check_inputs(graph, node, authored, &at, &mut findings);
    }
    closed(&mut findings);
    findings
}

fn unknown(node: &Node, written: &str, at: &str, library: &Library) -> Finding {
    let (name, version) = written.split_once('@').unwrap_or((written, ""));
    let at = format!("{at}/use");
    let Some(versions) = library.types.get(name) else {
        let names = || library.types.keys().map(String::as_str);
        let hint = match nearest(name, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if library.types.is_empty() => "the library has no node types yet".to_owned(),
            None => format!("the library has {}", listed(names())),
        };
        let message = format!("node `{}` uses node type `{}`, which there isn't", node.id, shown(name));
        return Finding::new(at, "node_type_unknown", message).hint(hint);
    };
    let message = format!(
        "node `{}` uses version `{}` of `{name}`, which is not published",
        node.id,
        shown(version)
    );
    let hint = match newest(versions) {
        Some(newest) => format!("the newest is `{name}@{newest}`"),
        None => "none of its versions is published yet".to_owned(),
    };
    Finding::new(at, "node_version_unknown", message).hint(hint)
}

fn check_settings(
    node: &Node,
    settings: &Map<String, Value>,
    authored: &LibraryVersion,
    at: &str,
    findings: &mut Vec<Finding>,
) {
    let fields = &authored.document.settings;
    let named = authored.document.named();
    let names = || fields.iter().map(|field| field.name.as_str());
    for name in settings
        .keys()
        .filter(|name| !names().any(|known| known == name.as_str()))
    {
        let hint = match nearest(name, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if fields.is_empty() => format!("`{named}` has no settings"),
            None => format!("`{named}` has {}", listed(names())),
        };
        let message = format!(
            "node `{}` sets `{}`, which `{named}` doesn't have",
            node.id,
            shown(name)
        );
        findings.push(Finding::new(format!("{at}/settings/{}", escaped(name)), "setting_unknown", message).hint(hint));
    }
    for field in fields {
        let pointer = format!("{at}/settings/{}", escaped(&field.name));
        let value = settings.get(&field.name).filter(|value| !value.is_null());
        let Some(value) = value else {
            if field.required && field.default.is_none() {
                let message = format!("node `{}` doesn't set `{}` of `{named}`", node.id, field.name);
                let hint = format!("add `\"{}\"` to its `settings`", field.name);
                findings.push(Finding::new(format!("{at}/settings"), "setting_missing", message).hint(hint));
            }
            continue;
        };
        if let Err((wrong, hint)) = setting(field, value) {
            let message = format!("node `{}` sets `{}` of `{named}` wrongly: {wrong}", node.id, field.name);
            findings.push(Finding::new(pointer, "setting_invalid", message).hint(hint));
        }
    }
}

fn setting(field: &Setting, value: &Value) -> Result<(), (String, String)> {
    let reference = || "write `{\"$secret\": \"API_KEY\"}`, the name of a secret of the organization".to_owned();
    let is_open = !expressions(value).is_empty();
    if field.kind == SettingKind::Secret {
        return match value.get(SECRET_MARK) {
            // What may be asked for is decided before it runs.
            _ if is_open => Err((
                "which secret it is must be written, not worked out".to_owned(),
                reference(),
            )),
            None => Err((
                "a secret is named, and its value is never written".to_owned(),
                reference(),
            )),
            Some(name) => check_setting(field, name)
                .map(drop)
                .map_err(|wrong| (wrong, reference())),
        };
    }
    if value.get(SECRET_MARK).is_some() {
        let hint = "only a setting of kind `secret` takes one".to_owned();
        return Err(("it is no secret".to_owned(), hint));
    }
    // What an expression gives is seen when it is worked out.
    if is_open {
        return Ok(());
    }
    check_setting(field, value)
        .map(drop)
        .map_err(|wrong| (wrong, "write a value that it takes, or an expression".to_owned()))
}

fn check_inputs(graph: &Graph, node: &Node, authored: &LibraryVersion, at: &str, findings: &mut Vec<Finding>) {
    let ports = &authored.document.inputs;
    let named = authored.document.named();
    let names = || ports.iter().map(|port| port.name.as_str());
    let connected = connected(graph, node);
    // What an item gives is seen when there is one.
    let is_given_items = matches!(node.work, NodeWork::Map { .. }) && node.given().is_none();
    for name in node
        .inputs
        .iter()
        .flat_map(Map::keys)
        .filter(|name| !names().any(|known| known == name.as_str()))
    {
        let hint = match nearest(name, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None if ports.is_empty() => format!("`{named}` takes no inputs"),
            None => format!("`{named}` takes {}", listed(names())),
        };
        let message = format!(
            "node `{}` gives `{named}` an input `{}`, which it doesn't take",
            node.id,
            shown(name)
        );
        findings.push(Finding::new(format!("{at}/inputs/{}", escaped(name)), "input_unknown", message).hint(hint));
    }
    for port in ports {
        let value = node.inputs.as_ref().and_then(|inputs| inputs.get(&port.name));
        let Some(value) = value.filter(|value| !value.is_null()) else {
            if port.required && !is_given_items && !connected.contains(port.name.as_str()) {
                let message = format!("node `{}` doesn't give `{named}` its input `{}`", node.id, port.name);
                let hint = format!(
                    "add `\"{}\"` to its `inputs`; it is of type `{}`",
                    port.name,
                    port.kind.as_str()
                );
                findings.push(Finding::new(format!("{at}/inputs"), "input_missing", message).hint(hint));
            }
            continue;
        };
        if !expressions(value).is_empty() {
            continue;
        }
        if let Err(wrong) = check_port(port, value) {
            let message = format!(
                "node `{}` gives `{named}` a wrong input `{}`: {wrong}",
                node.id, port.name
            );
            let hint = "write a value that it takes, or an expression";
            let pointer = format!("{at}/inputs/{}", escaped(&port.name));
            findings.push(Finding::new(pointer, "input_invalid", message).hint(hint));
        }
    }
}

/// The inputs of a node that edges lead to.
fn connected<'a>(graph: &'a Graph, node: &Node) -> BTreeSet<&'a str> {
    let edges = graph.edges.iter().filter(|edge| edge.to == node.id);
    edges.filter_map(|edge| edge.input.as_deref()).collect()
}
