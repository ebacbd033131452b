//! The node library: what there is, for whoever is in an organization; and drafts, publishing and deprecating, for the platform.
//!
//! A published version never changes and is never deleted, so a graph that uses one stays what it is. What it says of itself is
//! checked here (`definition`), its code in the jail (`trial.rs`). `resolve.rs` makes what a graph uses into a plan.

mod resolve;
mod trial;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::on_record::recorded;
use super::{Context, Error, Result, workflow_assignment};
use crate::audit::Event as AuditEvent;
use crate::authz::{Action, Caller, Principal, Resource};
use crate::definition::{Longest, built_in_kinds, check_setting_options, parse_document};
use crate::domain::{
    BuiltInKind, Declared, LibraryVersion, NodeBody, NodeTypeName, NodeUse, NodeVersion, Trust, edit_distance,
};
use crate::error::{Finding, Kind};
use crate::store;
pub use crate::store::repo::node_types::{Draft, Head, Version};
use crate::store::repo::node_types::{NodeTypes, StoredDraft, StoredHead};
use crate::tenancy::{PlatformScope, Scope, librarian};

pub(super) use resolve::{declared, look, resolve, source, unusable};
pub use trial::{MAX_TRIALS, Trial, Tried, check, test};

/// Most node types of an installation.
pub const MAX_TYPES: usize = 500;
/// Most published versions of a node type.
pub const MAX_VERSIONS: u32 = 100;
/// Longest message of a deprecation, in characters.
const MAX_MESSAGE: usize = 500;

/// Where a node type comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Weft itself.
    BuiltIn,
    /// The library.
    Library,
    /// A function of the workspace.
    Workspace,
}

impl Origin {
    /// As written in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BuiltIn => "built_in",
            Self::Library => "library",
            Self::Workspace => "workspace",
        }
    }
}

/// Something that a node of a graph can be.
#[derive(Debug, Clone)]
pub enum Listed {
    /// A kind of node that is built in.
    BuiltIn(Box<BuiltInKind>),
    /// A type of the library.
    Library(Box<Head>),
    /// A function of the workspace.
    Workspace(Box<Declared>),
}

impl Listed {
    /// Where it comes from.
    #[must_use]
    pub const fn origin(&self) -> Origin {
        match self {
            Self::BuiltIn(_) => Origin::BuiltIn,
            Self::Library(_) => Origin::Library,
            Self::Workspace(_) => Origin::Workspace,
        }
    }

    /// Its name, unique in its origin.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::BuiltIn(kind) => &kind.name,
            Self::Library(head) => head.name.as_str(),
            Self::Workspace(declared) => &declared.name,
        }
    }

    /// Under what it is listed.
    #[must_use]
    pub fn category(&self) -> &str {
        match self {
            Self::BuiltIn(kind) => &kind.category,
            Self::Library(head) => &head.category,
            Self::Workspace(declared) => &declared.category,
        }
    }

    fn says(&self, word: &str) -> bool {
        let (title, description) = match self {
            Self::BuiltIn(kind) => (kind.title.as_str(), kind.description.as_str()),
            Self::Library(head) => (head.title.as_str(), head.description.as_str()),
            Self::Workspace(declared) => ("", declared.description.as_str()),
        };
        [self.name(), title, description, self.category()]
            .iter()
            .any(|text| text.to_lowercase().contains(word))
    }
}

/// What is looked for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Words that must all be there, in whatever case.
    pub search: Option<String>,
    /// The category, in whatever case.
    pub category: Option<String>,
    /// Where from.
    pub origin: Option<Origin>,
}

impl Wanted {
    fn fits(&self, listed: &Listed) -> bool {
        let words = self.search.as_deref().unwrap_or_default().to_lowercase();
        self.origin.is_none_or(|origin| origin == listed.origin())
            && self
                .category
                .as_deref()
                .is_none_or(|category| listed.category().to_lowercase() == category.to_lowercase())
            && words.split_whitespace().all(|word| listed.says(word))
    }
}

/// A page of what nodes can be: what is built in, then of the library, then of the workspace, each by name. `after` is `origin` and `name` of the last one.
///
/// # Errors
/// When the scope may not, or storage or the workspace can't be read.
pub async fn list(
    cx: &Context,
    scope: &Scope,
    wanted: &Wanted,
    after: Option<(Origin, String)>,
    limit: usize,
) -> Result<(Vec<Listed>, bool)> {
    scope.authorize(Action::List, Resource::NodeType)?;
    let heads = cx.node_types.heads(scope).await?;
    let kinds = built_in_kinds().into_iter();
    let mut all: Vec<Listed> = kinds.map(|kind| Listed::BuiltIn(Box::new(kind))).collect();
    let library = heads
        .into_iter()
        .filter(|head| head.newest.is_some())
        .map(|head| Listed::Library(Box::new(head)));
    all.extend(library);
    if scope.authorize(Action::List, Resource::Workflow).is_ok() {
        let current = cx.catalogs.current().await?;
        let workflows = current.catalog.workflows.values();
        let functions = workflows.filter(|declared| declared.graph.is_none());
        let functions = functions.chain(current.catalog.nodes.values()).cloned();
        all.extend(functions.map(|declared| Listed::Workspace(Box::new(declared))));
    }
    all.retain(|listed| wanted.fits(listed));
    let key = |listed: &Listed| (listed.origin(), listed.name().to_owned());
    all.sort_by_key(key);
    all.retain(|listed| after.as_ref().is_none_or(|after| key(listed) > *after));
    let more = all.len() > limit;
    all.truncate(limit);
    Ok((all, more))
}

/// A type of the library with its published versions, newest last.
///
/// # Errors
/// When the scope may not, there is no such type with a version, or storage fails.
pub async fn get(cx: &Context, scope: &Scope, name: &str) -> Result<(Head, Vec<Version>)> {
    scope.authorize(Action::Read, Resource::NodeType)?;
    let head = found(cx, scope, name).await?;
    let versions = cx.node_types.versions(scope, &head.name).await?;
    Ok((head, versions))
}

/// A type that has a version.
async fn found(cx: &Context, scope: &Scope, name: &str) -> Result<Head> {
    let found = match name.parse::<NodeTypeName>() {
        Ok(name) => cx.node_types.head(scope, &name).await?,
        Err(_) => None,
    };
    match found.filter(|stored| stored.head.newest.is_some()) {
        Some(stored) => Ok(stored.head),
        None => Err(unknown(cx, scope, name).await?),
    }
}

/// A published version, all of it.
///
/// # Errors
/// When the scope may not, there is no such version, or what is stored is not what was published.
pub async fn version(cx: &Context, scope: &Scope, name: &str, version: &str) -> Result<(Version, Arc<LibraryVersion>)> {
    scope.authorize(Action::Read, Resource::NodeType)?;
    let Ok(named) = format!("{name}@{version}").parse::<NodeUse>() else {
        return Err(no_version(name, version));
    };
    let Some(found) = cx.node_types.version(scope, &named).await? else {
        return Err(no_version(name, version));
    };
    match cx.node_types.document(scope, &found.digest).await {
        Ok(authored) => Ok((found, authored)),
        Err(error) => {
            let origin = crate::authz::Origin::default();
            Err(unusable(cx, scope, &origin, &named.to_string(), error).await)
        }
    }
}

/// A node of a graph that uses a type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The workflow.
    pub workflow: String,
    /// The node in it.
    pub node: String,
    /// The version that it uses.
    pub version: String,
}

/// Which graphs use a type, of those that the organization has.
///
/// # Errors
/// When the scope may not, there is no such type, or the workspace can't be read.
pub async fn used_by(cx: &Context, scope: &Scope, name: &str) -> Result<Vec<User>> {
    scope.authorize(Action::List, Resource::Workflow)?;
    let head = found(cx, scope, name).await?;
    let current = cx.catalogs.current().await?;
    let mut users = Vec::new();
    for workflow in current.catalog.workflows.values() {
        if let Some(graph) = &workflow.graph {
            users.extend(resolve::users(&workflow.name, graph, &head.name));
        }
    }
    // Of the organization's own, what is called; graphs are read of those alone that use it.
    let used = format!("{}@", head.name);
    let given = workflow_assignment::given(cx, scope).await?;
    for workflow in cx.workflows.list(scope).await? {
        if given.as_ref().is_some_and(|given| !given.contains(&workflow.name)) {
            continue;
        }
        let uses = workflow
            .current
            .as_ref()
            .is_some_and(|called| called.functions.iter().any(|name| name.starts_with(&used)));
        if !uses || current.catalog.workflows.contains_key(&workflow.name) {
            continue;
        }
        let stored = cx.workflows.get(scope, &workflow.name).await?;
        let Some((called, stored)) = stored.and_then(|stored| Some((stored.head.current.clone()?, stored))) else {
            continue;
        };
        let graph = cx.workflows.load(scope, &stored.graph).await?;
        let read = cx.read.get(&workflow.name, &called.revision.digest, &graph);
        users.extend(resolve::users(&workflow.name, read.graph(), &head.name));
    }
    Ok(users)
}

async fn unknown(cx: &Context, scope: &Scope, name: &str) -> Result<Error> {
    let heads = cx.node_types.heads(scope).await?;
    let names = heads
        .iter()
        .filter(|head| head.newest.is_some())
        .map(|head| head.name.as_str());
    Ok(not_there(name, names.collect()))
}

fn not_there(name: &str, names: Vec<&str>) -> Error {
    let shown: String = name.chars().take(80).collect();
    let near = names
        .iter()
        .map(|known| (edit_distance(&shown, known), *known))
        .filter(|(distance, _)| *distance <= 2)
        .min();
    let hint = match near {
        Some((_, near)) => format!("did you mean `{near}`?"),
        None => "`GET /api/node-types` lists those that there are".to_owned(),
    };
    Error::not_found(
        "node_type_not_found",
        format!("the library has no node type `{shown}`"),
        hint,
    )
}

fn no_version(name: &str, version: &str) -> Error {
    Error::not_found(
        "node_version_not_found",
        format!("there is no published version `{version:.40}` of `{name:.80}`"),
        "`GET /api/node-types/{name}` lists those that there are",
    )
}

// ── for the platform ───────────────────────────────────────────────────────────────────────────────────────────────────

/// All types, those that are only drafts too.
///
/// # Errors
/// When the caller may not, or storage fails.
pub async fn list_all(cx: &Context, caller: &Caller) -> Result<Vec<Head>> {
    let platform = librarian(caller, Action::List)?;
    Ok(cx.node_types.heads(&platform).await?)
}

/// A draft with all that it says.
///
/// # Errors
/// When the caller may not, there is none, or storage fails.
pub async fn draft(cx: &Context, caller: &Caller, name: &str) -> Result<(Draft, Arc<LibraryVersion>)> {
    let platform = librarian(caller, Action::Read)?;
    let name = named(name)?;
    let (_, stored) = drafted(cx, &platform, &name).await?;
    let authored = cx.node_types.document(&platform, &stored.draft.digest).await?;
    Ok((stored.draft, authored))
}

/// A draft to write.
#[derive(Debug, Clone)]
pub struct Change {
    /// The version as it was written.
    pub written: Map<String, Value>,
    /// The digest of the draft that it is to replace; none to replace any.
    pub if_tag: Option<String>,
    /// Whether there must be no draft yet.
    pub only_new: bool,
}

/// Writes a draft. Its code is checked in the jail first; what is merely noticed about it comes along.
///
/// # Errors
/// When the caller may not, something is wrong with it, it isn't the one that was to be replaced, the library is full, or storage
/// or a worker fails.
pub async fn put_draft(
    cx: &Arc<Context>,
    caller: &Caller,
    name: &str,
    change: &Change,
) -> Result<(Draft, Arc<LibraryVersion>, Vec<Finding>)> {
    let platform = librarian(caller, Action::Modify)?;
    let name = named(name)?;
    let head = cx.node_types.head(&platform, &name).await?;
    let before = cx.node_types.draft(&platform, &name).await?;
    if head.is_none() {
        librarian(caller, Action::Create)?;
        let count = cx.node_types.heads(&platform).await?.len();
        if count >= MAX_TYPES {
            return Err(full(format!(
                "the library has {count} node types, which is as many as it may"
            )));
        }
    }
    let tag = before.as_ref().map(|before| before.draft.digest.as_str());
    if change.only_new && tag.is_some() || change.if_tag.is_some() && change.if_tag.as_deref() != tag {
        return Err(changed(&name));
    }
    let document = parse_document(&name, &change.written, &cx.bounds.attempt).map_err(|findings| {
        let count = findings.len();
        invalid(format!("the draft of `{name}` has {count} finding(s)"), findings)
    })?;
    may_trust(&platform, document.trust)?;
    if cx.node_types.version(&platform, &document.named()).await?.is_some() {
        return Err(version_taken(&document.named()));
    }
    let authored = Arc::new(LibraryVersion {
        digest: document.digest(),
        document,
    });
    let mut noticed = checked(cx, &platform, &authored).await?;
    let longest = Longest::of(&cx.bounds.attempt, cx.bounds.run, cx.bounds.profile);
    noticed.extend(longest.noticed_of_node_type(authored.document.timeout_seconds));
    let put = async {
        let documents = (head.as_ref(), before.as_ref());
        let put = cx.node_types.put_draft(&platform, documents, &authored.document).await;
        put.map_err(|error| lost(error, &name))
    };
    let (trust_before, trust) = (
        head.as_ref().map_or(Trust::Restricted, |head| head.head.trust),
        authored.document.trust,
    );
    let of = |event| {
        let record = cx.audit.by(&platform, event).came_from(&caller.origin);
        record.resource("node_type", name.as_str())
    };
    let detail = json!({"version": authored.document.version, "digest": authored.digest, "was": tag});
    let changed = || of(AuditEvent::NodeTypeChanged).detail(&detail);
    let trusted = || of(AuditEvent::NodeTypeTrusted).changes(&json!({"trust": {"from": trust_before, "to": trust}}));
    let draft = if trust == trust_before {
        recorded(cx, &platform, changed, put).await?
    } else {
        let put = recorded(cx, &platform, trusted, put);
        recorded(cx, &platform, changed, put).await?
    };
    Ok((draft, authored, noticed))
}

/// What of a node type is checked beyond itself: its code in the jail, or that the workspace has its function. Gives back what is
/// merely noticed.
async fn checked(cx: &Arc<Context>, platform: &PlatformScope, authored: &Arc<LibraryVersion>) -> Result<Vec<Finding>> {
    let settings = &authored.document.settings;
    if settings.iter().any(|setting| setting.options.from().is_some()) {
        let current = cx.catalogs.current().await?;
        let wrong = check_setting_options(settings, &current.catalog.data_providers).into_iter();
        let wrong: Vec<_> = wrong
            .map(|finding| Finding {
                pointer: format!("/settings{}", finding.pointer),
                ..finding
            })
            .collect();
        if !wrong.is_empty() {
            let detail = format!(
                "the draft of `{}` has {} finding(s)",
                authored.document.name,
                wrong.len()
            );
            return Err(invalid(detail, wrong));
        }
    }
    match &authored.document.body {
        NodeBody::Code(_) => {
            let (wrong, noticed) = check(cx, platform, authored).await?;
            if wrong.is_empty() {
                return Ok(noticed);
            }
            let detail = format!(
                "the code of `{}` has {} finding(s)",
                authored.document.name,
                wrong.len()
            );
            Err(invalid(detail, wrong.into_iter().chain(noticed).collect()))
        }
        NodeBody::Function(function) => {
            let current = cx.catalogs.current().await?;
            if current.catalog.function(function).is_some() {
                return Ok(Vec::new());
            }
            let message = format!("the workspace declares no function `{function}`");
            let finding = Finding::new("/function", "unknown_use", message);
            let detail = format!("the draft of `{}` has 1 finding(s)", authored.document.name);
            Err(invalid(
                detail,
                vec![finding.hint("name one with `@workflow` or `@node`")],
            ))
        }
    }
}

/// Publishes the draft: from now on it can be used, and never changes.
///
/// # Errors
/// When the caller may not, there is no draft, it isn't the one that was meant, its version is taken, its code doesn't pass, or
/// storage fails.
pub async fn publish(cx: &Arc<Context>, caller: &Caller, name: &str, if_tag: Option<&str>) -> Result<Version> {
    let platform = librarian(caller, Action::Modify)?;
    let name = named(name)?;
    let (head, draft) = drafted(cx, &platform, &name).await?;
    if if_tag.is_some_and(|tag| tag != draft.draft.digest) {
        return Err(changed(&name));
    }
    if head.head.versions >= MAX_VERSIONS {
        let count = head.head.versions;
        return Err(full(format!(
            "`{name}` has {count} versions, which is as many as a node type may"
        )));
    }
    let authored = cx.node_types.document(&platform, &draft.draft.digest).await?;
    may_trust(&platform, authored.document.trust)?;
    let named = authored.document.named();
    if cx.node_types.version(&platform, &named).await?.is_some() {
        return Err(version_taken(&named));
    }
    // What it may import, and what the workspace has, may have changed since it was written.
    checked(cx, &platform, &authored).await?;
    let publish = async {
        let published = cx
            .node_types
            .publish(&platform, (&head, &draft), &authored.document)
            .await;
        published.map_err(|error| lost(error, &name))
    };
    let record = || {
        cx.audit
            .by(&platform, AuditEvent::NodeTypePublished)
            .came_from(&caller.origin)
            .resource("node_type", &named.to_string())
            .detail(&json!({"digest": authored.digest, "trust": authored.document.trust}))
    };
    recorded(cx, &platform, record, publish).await
}

/// Tells users of a version to use something else. Runs use it as before.
///
/// # Errors
/// When the caller may not, there is no such version, the message can't be, or storage fails.
pub async fn deprecate(cx: &Context, caller: &Caller, name: &str, version: &str, message: &str) -> Result<Version> {
    let platform = librarian(caller, Action::Modify)?;
    let message = message.trim();
    if message.is_empty() || message.chars().count() > MAX_MESSAGE || message.chars().any(char::is_control) {
        let text = format!("`message` must be a text of 1 to {MAX_MESSAGE} characters");
        let finding = Finding::new("/message", "invalid", text.as_str());
        return Err(invalid(text, vec![finding.hint("say what to use instead")]));
    }
    let Ok(used) = format!("{name}@{version}").parse::<NodeUse>() else {
        return Err(no_version(name, version));
    };
    let Some(head) = cx.node_types.head(&platform, &used.name).await? else {
        return Err(no_version(name, version));
    };
    if cx.node_types.version(&platform, &used).await?.is_none() {
        return Err(no_version(name, version));
    }
    let deprecate = async {
        let deprecated = cx.node_types.deprecate(&platform, &head, &used, message).await;
        let deprecated = deprecated.map_err(|error| lost(error, &used.name))?;
        deprecated.ok_or_else(|| no_version(name, version))
    };
    let record = || {
        cx.audit
            .by(&platform, AuditEvent::NodeTypeDeprecated)
            .came_from(&caller.origin)
            .resource("node_type", &used.to_string())
            .detail(&json!({"message": message}))
    };
    recorded(cx, &platform, record, deprecate).await
}

/// Deletes a draft, and the type where it has no version.
///
/// # Errors
/// When the caller may not, there is none, it isn't the one that was meant, or storage fails.
pub async fn delete_draft(cx: &Context, caller: &Caller, name: &str, if_tag: Option<&str>) -> Result<()> {
    let platform = librarian(caller, Action::Delete)?;
    let name = named(name)?;
    let (head, draft) = drafted(cx, &platform, &name).await?;
    if if_tag.is_some_and(|tag| tag != draft.draft.digest) {
        return Err(changed(&name));
    }
    let delete = async {
        let deleted = cx.node_types.delete_draft(&platform, &name, (&head, &draft)).await;
        deleted.map_err(|error| lost(error, &name))
    };
    let record = || {
        cx.audit
            .by(&platform, AuditEvent::NodeTypeDeleted)
            .came_from(&caller.origin)
            .resource("node_type", name.as_str())
            .detail(&json!({"version": draft.draft.version, "digest": draft.draft.digest}))
    };
    recorded(cx, &platform, record, delete).await
}

async fn drafted(cx: &Context, platform: &PlatformScope, name: &NodeTypeName) -> Result<(StoredHead, StoredDraft)> {
    let head = cx.node_types.head(platform, name).await?;
    let draft = cx.node_types.draft(platform, name).await?;
    match (head, draft) {
        (Some(head), Some(draft)) => Ok((head, draft)),
        (Some(_), None) => Err(Error::not_found(
            "node_type_not_found",
            format!("`{name}` has no draft"),
            "`PUT /api/node-types/{name}/draft` begins one",
        )),
        (None, _) => {
            let heads = cx.node_types.heads(platform).await?;
            Err(not_there(
                name.as_str(),
                heads.iter().map(|head| head.name.as_str()).collect(),
            ))
        }
    }
}

fn named(name: &str) -> Result<NodeTypeName> {
    name.parse().map_err(|error: crate::domain::VersionError| {
        let finding = Finding::new("path:name", "invalid", error.to_string());
        Error::invalid(
            "parameter_invalid",
            error.to_string(),
            "begin with a lower-case letter and write up to 63 lower-case letters, digits, `_` and `-`",
            vec![finding],
        )
    })
}

/// Code of keys is restricted: that somebody vouches for it takes a person.
fn may_trust(platform: &PlatformScope, trust: Trust) -> Result<()> {
    if trust == Trust::Restricted || !matches!(platform.principal(), Principal::Service { .. }) {
        return Ok(());
    }
    Err(Error::Request {
        kind: Kind::Denied,
        code: "node_type_trust",
        detail: "a key writes node types that are `restricted`, and this one asks for `trusted`".to_owned(),
        hint: Some("leave `trust` out, or have a platform administrator write and publish it".to_owned()),
        findings: Vec::new(),
    })
}

fn invalid(detail: String, findings: Vec<Finding>) -> Error {
    Error::invalid(
        "node_type_invalid",
        detail,
        "mend everything in `errors`; docs/node-library.md describes every member",
        findings,
    )
}

fn full(detail: String) -> Error {
    Error::conflict(
        "node_types_full",
        detail,
        "delete drafts that nobody needs, or begin a type of another name",
    )
}

fn version_taken(named: &NodeUse) -> Error {
    Error::conflict(
        "node_version_taken",
        format!("`{named}` is published, and a published version never changes"),
        "give the draft a higher `version`",
    )
}

fn changed(name: &NodeTypeName) -> Error {
    Error::Request {
        kind: Kind::PreconditionFailed,
        code: "node_type_changed",
        detail: format!("`{name}` is no longer what was to be changed"),
        hint: Some("read it again, apply the change to it, and send its `ETag` as `If-Match`".to_owned()),
        findings: Vec::new(),
    }
}

/// A commit that somebody else was faster than.
fn lost(error: store::Error, name: &NodeTypeName) -> Error {
    match error {
        store::Error::PreconditionFailed { .. } | store::Error::AlreadyExists { .. } => changed(name),
        error => error.into(),
    }
}

/// The newest version of each type, for hints.
pub(super) async fn newest(library: &NodeTypes, platform: &PlatformScope) -> BTreeMap<String, String> {
    match library.heads(platform).await {
        Ok(heads) => {
            let named = heads
                .into_iter()
                .filter_map(|head| Some((head.name.to_string(), head.newest?.to_string())));
            named.collect()
        }
        Err(error) => {
            tracing::debug!(error = %error, "the node library can't be read, so hints name no versions");
            BTreeMap::new()
        }
    }
}

/// A version as text, for lists.
#[must_use]
pub fn shown(version: Option<&NodeVersion>) -> Option<String> {
    version.map(ToString::to_string)
}
