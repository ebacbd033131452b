//! What a graph uses of the library → what a plan is made of; and the code of an attempt, as it was published.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::json;

use super::super::catalog::Current;
use super::super::on_record::keep;
use super::super::{Context, Error, Result};
use super::User;
use crate::audit::Event as AuditEvent;
use crate::authz::Origin;
use crate::definition::{Authored, Library, Offers, check_library};
use crate::domain::{
    Declared, DeclaredAs, Graph, LIBRARY_FUNCTION, LIBRARY_MODULE, LibraryVersion, NodeBody, NodeDocument,
    NodeTypeName, NodeUse,
};
use crate::error::{Finding, Kind};
use crate::runner::Source;
use crate::store;
use crate::tenancy::Scope;

fn uses(graph: &Graph) -> BTreeSet<&str> {
    let uses = graph.nodes.iter().filter_map(|node| node.work.version());
    uses.map(|(node_type, _)| node_type).collect()
}

/// Workflows of the organization that a graph calls, by name, as far as they were looked for.
type Others = BTreeMap<String, Arc<Authored>>;

/// The versions that a graph uses, by what its nodes name, as far as they are there; and what is wrong with how it uses them.
///
/// # Errors
/// When storage fails, or what it has is not what was published.
pub(in crate::usecase) async fn look(
    cx: &Context,
    scope: &Scope,
    current: &Current,
    (graph, others): (&Graph, &Others),
) -> Result<(BTreeMap<String, Declared>, Vec<Finding>)> {
    let uses = uses(graph);
    if uses.is_empty() {
        return Ok(Default::default());
    }
    let mut library = Library::default();
    for written in &uses {
        let Ok(named) = written.parse::<NodeUse>() else {
            continue;
        };
        match cx.node_types.published(scope, &named).await {
            Ok(Some(authored)) => {
                library.versions.insert((*written).to_owned(), authored);
            }
            Ok(None) => {}
            Err(error) => return Err(unusable(cx, scope, &Origin::default(), written, error).await),
        }
    }
    if library.versions.len() < uses.len() {
        // Only to say what there is instead.
        for head in cx.node_types.heads(scope).await? {
            if head.newest.is_none() {
                continue;
            }
            let is_used = uses
                .iter()
                .any(|written| written.split('@').next() == Some(head.name.as_str()));
            let versions = if is_used {
                let versions = cx.node_types.versions(scope, &head.name).await?;
                versions.into_iter().map(|version| version.version).collect()
            } else {
                Vec::new()
            };
            library.types.insert(head.name.to_string(), versions);
        }
    }
    let mut findings = check_library(graph, &library);
    let mut declared = BTreeMap::new();
    for (written, authored) in library.versions {
        match of(&authored, current) {
            Ok(version) => {
                declared.insert(written, version);
            }
            Err(function) => {
                let users = graph
                    .nodes
                    .iter()
                    .filter(|node| node.work.version().is_some_and(|(used, _)| used == written));
                findings.extend(users.map(|node| {
                    let message = format!(
                        "node `{}` uses `{written}`, which calls `{function}`, and the workspace doesn't declare that",
                        node.id
                    );
                    Finding::new(format!("/nodes/{}/use", node.id), "unknown_use", message)
                        .hint("deploy a workspace that declares it, or use another version")
                }));
            }
        }
    }
    let offers = Offers {
        catalog: &current.catalog,
        others,
        versions: &declared,
    };
    findings.extend(offers.check_edges(graph));
    Ok((declared, findings))
}

/// The versions that a graph uses, by what its nodes name.
///
/// # Errors
/// With everything that is wrong with how it uses them; or as [`look`].
pub(in crate::usecase) async fn resolve(
    cx: &Context,
    scope: &Scope,
    current: &Current,
    (graph, others): (&Graph, &Others),
) -> Result<BTreeMap<String, Declared>> {
    let (declared, findings) = look(cx, scope, current, (graph, others)).await?;
    if findings.is_empty() {
        return Ok(declared);
    }
    Err(Error::Request {
        kind: Kind::Conflict,
        code: "node_types_unresolved",
        detail: format!(
            "what workflow `{}` uses of the node library has {} finding(s)",
            graph.name,
            findings.len()
        ),
        hint: Some("mend the graph, or publish what it uses; `errors` has each place".to_owned()),
        findings,
    })
}

/// A version as a function; the name of the one that it needs of the workspace, where that has none.
fn of(authored: &Arc<LibraryVersion>, current: &Current) -> std::result::Result<Declared, String> {
    let document = &authored.document;
    match &document.body {
        NodeBody::Code(_) => Ok(Declared {
            name: document.named().to_string(),
            module: LIBRARY_MODULE.to_owned(),
            path: format!("library/{}.py", document.named()),
            line: 1,
            function: LIBRARY_FUNCTION.to_owned(),
            description: document.description.clone(),
            category: document.category.clone(),
            timeout_seconds: document.timeout_seconds,
            limits: document.limits,
            network: document.network.clone(),
            secrets: document.secrets.iter().map(ToString::to_string).collect(),
            trust: Some(document.trust),
            declared_as: DeclaredAs::Node,
            authored: Some(authored.clone()),
            ..Declared::default()
        }),
        NodeBody::Function(function) => match current.catalog.function(function) {
            Some(declared) => Ok(Declared {
                authored: Some(authored.clone()),
                ..declared.clone()
            }),
            None => Err(function.clone()),
        },
    }
}

/// The versions among names of what a graph calls, by name and version, as far as they are there.
///
/// # Errors
/// As [`look`].
pub(in crate::usecase) async fn declared(
    cx: &Context,
    scope: &Scope,
    current: &Current,
    names: &[String],
) -> Result<BTreeMap<String, Declared>> {
    let mut found = BTreeMap::new();
    for written in names {
        let Ok(named) = written.parse::<NodeUse>() else {
            continue;
        };
        match cx.node_types.published(scope, &named).await {
            Ok(Some(version)) => {
                if let Ok(version) = of(&version, current) {
                    found.insert(written.clone(), version);
                }
            }
            Ok(None) => {}
            Err(error) => return Err(unusable(cx, scope, &Origin::default(), written, error).await),
        }
    }
    Ok(found)
}

/// The nodes of a graph that use a type.
pub(super) fn users(workflow: &str, graph: &Graph, name: &NodeTypeName) -> Vec<User> {
    let users = graph.nodes.iter().filter_map(|node| {
        let (used, version) = node.work.version()?.0.split_once('@')?;
        (used == name.as_str()).then(|| User {
            workflow: workflow.to_owned(),
            node: node.id.clone(),
            version: version.to_owned(),
        })
    });
    users.collect()
}

/// What a worker is given of a version.
pub(in crate::usecase) fn source(document: &NodeDocument, digest: &str) -> Arc<Source> {
    Arc::new(Source {
        name: document.name.to_string(),
        version: document.version.to_string(),
        digest: digest.to_owned(),
        code: document.body.code().unwrap_or_default().to_owned(),
    })
}

/// Why a version can't be used. That it is not what was published is on record, and refused like anything that nobody vouches for.
pub(in crate::usecase) async fn unusable(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    named: &str,
    error: store::Error,
) -> Error {
    if !matches!(error, store::Error::Corrupt { .. }) {
        return error.into();
    }
    let reason = error.to_string();
    tracing::error!(node_type = named, error = %error, "a version of a node type is not what was published");
    let record = cx
        .audit
        .by(scope, AuditEvent::NodeTypeTampered)
        .came_from(origin)
        .resource("node_type", named)
        .detail(&json!({"reason": reason}));
    if let Err(error) = keep(cx, scope, record).await {
        tracing::error!(error = %error, "a node type that was tampered with could not be recorded");
    }
    tampered(named)
}

/// That what is stored is not what was published.
pub(super) fn tampered(named: &str) -> Error {
    Error::Request {
        kind: Kind::Conflict,
        code: "node_type_tampered",
        detail: format!("what is stored of `{named:.100}` is not what was published, so it is not run"),
        hint: Some(
            "a platform administrator publishes the code as another version, and finds out who can write to `weft-library`"
                .to_owned(),
        ),
        findings: Vec::new(),
    }
}
