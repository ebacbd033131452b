//! `/api/node-types`: what nodes of graphs can be, and the node library's drafts, versions and trials.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{PageOf, cursor_in, cursor_out, if_match, limit};
use crate::domain::{BuiltInKind, Declared, NodeState, Outcome, Timestamp, Trust};
use crate::error::{Finding, Kind};
use crate::http::extract::{Admitted, Caller, JsonObject, NoBody, Path, Query};
use crate::http::problem::{ApiError, Problem};
use crate::usecase::node_type::{self, Change, Draft, Head, Listed, Origin, Trial, Tried, Version, Wanted};

/// Something that a node of a graph can be.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeTypeView {
    /// Its name, unique in its origin.
    pub name: String,
    /// `built_in`, `library`, or `workspace`: a function with `@workflow` or `@node`.
    pub origin: &'static str,
    /// What it is called.
    pub title: String,
    /// What it does.
    pub description: String,
    /// Under what it is listed.
    pub category: String,
    /// The name of a picture, for editors.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub icon: String,
    /// How far its code is trusted.
    pub trust: Trust,
    /// What a node writes as `type`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it writes as `use`: of the library, with the newest version.
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    pub used_as: Option<String>,
    /// The newest published version, of a type of the library.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether that one is deprecated.
    pub deprecated: bool,
    /// Of a function of the workspace, its parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub parameters: Option<Value>,
    /// Of what is built in, its ports and settings; of the library each version has its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub built_in: Option<BuiltInKind>,
}

impl From<BuiltInKind> for NodeTypeView {
    fn from(kind: BuiltInKind) -> Self {
        Self {
            name: kind.name.clone(),
            origin: Origin::BuiltIn.as_str(),
            title: kind.title.clone(),
            description: kind.description.clone(),
            category: kind.category.clone(),
            icon: String::new(),
            trust: Trust::Trusted,
            kind: kind.name.clone(),
            used_as: None,
            version: None,
            deprecated: false,
            parameters: None,
            built_in: Some(kind),
        }
    }
}

impl From<Head> for NodeTypeView {
    fn from(head: Head) -> Self {
        let version = node_type::shown(head.newest.as_ref());
        Self {
            kind: "node".to_owned(),
            used_as: version.as_deref().map(|version| format!("{}@{version}", head.name)),
            name: head.name.to_string(),
            origin: Origin::Library.as_str(),
            title: head.title,
            description: head.description,
            category: head.category,
            icon: head.icon,
            trust: head.trust,
            version,
            deprecated: head.deprecated,
            parameters: None,
            built_in: None,
        }
    }
}

impl From<Declared> for NodeTypeView {
    fn from(declared: Declared) -> Self {
        Self {
            origin: Origin::Workspace.as_str(),
            title: declared.name.clone(),
            description: declared.description.clone(),
            category: declared.category.clone(),
            icon: String::new(),
            trust: declared.rights().trust,
            kind: "python".to_owned(),
            used_as: Some(declared.name.clone()),
            version: None,
            deprecated: false,
            parameters: Some(crate::definition::json_schema(&declared.parameters)),
            built_in: None,
            name: declared.name,
        }
    }
}

impl From<Listed> for NodeTypeView {
    fn from(listed: Listed) -> Self {
        match listed {
            Listed::BuiltIn(kind) => (*kind).into(),
            Listed::Library(head) => (*head).into(),
            Listed::Workspace(declared) => (*declared).into(),
        }
    }
}

/// A published version, without what it says.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionView {
    /// The version.
    #[schema(value_type = String)]
    pub version: crate::domain::NodeVersion,
    /// `published` or `deprecated`.
    pub state: NodeState,
    /// What those are told who use a deprecated one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Names every byte of it; a run that uses it is pinned to this.
    pub digest: String,
    /// How far its code is trusted.
    pub trust: Trust,
    /// When it was published.
    #[schema(value_type = String)]
    pub published_at: Timestamp,
    /// By whom.
    pub published_by: String,
}

impl From<Version> for VersionView {
    fn from(version: Version) -> Self {
        Self {
            version: version.version,
            state: version.state,
            message: version.message,
            digest: version.digest,
            trust: version.trust,
            published_at: version.published_at,
            published_by: version.published_by,
        }
    }
}

/// A type of the library with its versions.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeTypeAnswer {
    /// The type.
    #[serde(flatten)]
    pub node_type: NodeTypeView,
    /// Its published versions, oldest first.
    pub versions: Vec<VersionView>,
}

/// All of a version, or of a draft.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DocumentAnswer {
    /// `draft`, `published` or `deprecated`.
    pub state: NodeState,
    /// Names every byte of what it says.
    pub digest: String,
    /// What those are told who use a deprecated one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it was last written, or published.
    #[schema(value_type = String)]
    pub at: Timestamp,
    /// By whom.
    pub by: String,
    /// What was noticed about the code, and keeps it from nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub noticed: Vec<Finding>,
    /// What it says: as it was written, with everything that was left out.
    #[schema(value_type = Object)]
    pub definition: Value,
}

/// A type as the platform sees it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlatformView {
    /// The type.
    #[serde(flatten)]
    pub node_type: NodeTypeView,
    /// How many versions are published.
    pub versions: u32,
    /// The version that its draft is to become.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draft: Option<String>,
    /// When something of it was last changed.
    #[schema(value_type = String)]
    pub updated_at: Timestamp,
}

/// A node that uses a type.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct UserView {
    /// The workflow.
    pub workflow: String,
    /// The node in it.
    pub node: String,
    /// The version that it uses.
    pub version: String,
}

/// What came of a trial.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrialAnswer {
    /// `succeeded`, `failed` or `timed_out`.
    pub outcome: String,
    /// What `run` has returned.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub output: Option<Value>,
    /// Why there is none: `type`, `message`, `traceback`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub error: Option<Value>,
    /// What it has said.
    #[schema(value_type = Vec<Object>)]
    pub logs: Value,
    /// How long `run` took, in milliseconds.
    pub duration_ms: f64,
    /// The digest of the version that was tried.
    pub digest: String,
    /// Which layers kept it apart.
    pub isolation: Vec<&'static str>,
}

impl From<Tried> for TrialAnswer {
    fn from(tried: Tried) -> Self {
        let (outcome, output, error) = match tried.outcome {
            Outcome::Succeeded { value } => ("succeeded", Some(value), None),
            Outcome::Failed { error } => ("failed", None, Some(json!(error))),
            Outcome::TimedOut { error } => ("timed_out", None, Some(json!(error))),
            Outcome::Cancelled => ("cancelled", None, None),
        };
        Self {
            outcome: outcome.to_owned(),
            output,
            error,
            logs: json!(tried.lines),
            duration_ms: tried.user_ms,
            digest: tried.digest,
            isolation: tried.posture.to_vec(),
        }
    }
}

/// Which of them.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Items in a page, 1 to 200; 50 by default.
    limit: Option<String>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
    /// Words that name, title, description or category have.
    search: Option<String>,
    /// The category.
    category: Option<String>,
    /// `built_in`, `library` or `workspace`.
    origin: Option<String>,
}

fn origin(text: &str) -> Option<Origin> {
    [Origin::BuiltIn, Origin::Library, Origin::Workspace]
        .into_iter()
        .find(|origin| origin.as_str() == text)
}

/// What nodes of graphs can be: what is built in, published types of the library, then functions of the workspace, each by name.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/node-types", tag = "node types", params(ListQuery, super::OrganizationHeader),
    responses((status = 200, body = PageOf<NodeTypeView>), (status = "default", body = Problem)))]
pub async fn list(admitted: Admitted, Query(query): Query<ListQuery>) -> Result<Json<PageOf<NodeTypeView>>, ApiError> {
    let limit = limit(query.limit.as_deref())?;
    let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
    let bad = || ApiError::bad_parameter("query:origin", "`origin` must be `built_in`, `library` or `workspace`");
    let wanted = Wanted {
        search: filled(query.search),
        category: filled(query.category),
        origin: filled(query.origin)
            .map(|text| origin(&text).ok_or_else(bad))
            .transpose()?,
    };
    let bad = || {
        ApiError::bad_parameter("query:cursor", "`cursor` is not one that a page has given")
            .hint("begin without a cursor, and give each `nextCursor` to the same query")
    };
    let after = cursor_in(query.cursor.as_deref())?
        .map(|text| {
            let (of, name) = text.split_once(' ')?;
            Some((origin(of)?, name.to_owned()))
        })
        .map(|after| after.ok_or_else(bad))
        .transpose()?;
    let (items, more) = node_type::list(&admitted.app.cx, &admitted.scope, &wanted, after, limit).await?;
    let next = items.last().filter(|_| more);
    let next = next.map(|last| format!("{} {}", last.origin().as_str(), last.name()));
    Ok(Json(PageOf {
        items: items.into_iter().map(NodeTypeView::from).collect(),
        next_cursor: cursor_out(next),
    }))
}

/// A type of the library, with its published versions.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/node-types/{name}", tag = "node types",
    params(("name" = String, Path, description = "The node type"), super::OrganizationHeader),
    responses((status = 200, body = NodeTypeAnswer), (status = "default", body = Problem)))]
pub async fn get(admitted: Admitted, Path(name): Path<String>) -> Result<Json<NodeTypeAnswer>, ApiError> {
    let (head, versions) = node_type::get(&admitted.app.cx, &admitted.scope, &name).await?;
    Ok(Json(NodeTypeAnswer {
        node_type: head.into(),
        versions: versions.into_iter().map(VersionView::from).collect(),
    }))
}

/// A published version with its code, ports and settings.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/node-types/{name}/versions/{version}", tag = "node types",
    params(("name" = String, Path, description = "The node type"), ("version" = String, Path, description = "The version"),
        super::OrganizationHeader),
    responses((status = 200, body = DocumentAnswer), (status = "default", body = Problem)))]
pub async fn version(
    admitted: Admitted,
    Path((name, version)): Path<(String, String)>,
) -> Result<Json<DocumentAnswer>, ApiError> {
    let (version, authored) = node_type::version(&admitted.app.cx, &admitted.scope, &name, &version).await?;
    Ok(Json(DocumentAnswer {
        state: version.state,
        digest: version.digest,
        message: version.message,
        at: version.published_at,
        by: version.published_by,
        noticed: Vec::new(),
        definition: json!(authored.document),
    }))
}

/// The nodes of the organization's graphs that use a type.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/node-types/{name}/used-by", tag = "node types",
    params(("name" = String, Path, description = "The node type"), super::OrganizationHeader),
    responses((status = 200, body = PageOf<UserView>), (status = "default", body = Problem)))]
pub async fn used_by(admitted: Admitted, Path(name): Path<String>) -> Result<Json<PageOf<UserView>>, ApiError> {
    let users = node_type::used_by(&admitted.app.cx, &admitted.scope, &name).await?;
    let view = |user: node_type::User| UserView {
        workflow: user.workflow,
        node: user.node,
        version: user.version,
    };
    Ok(Json(PageOf {
        items: users.into_iter().map(view).collect(),
        next_cursor: None,
    }))
}

// ── for the platform ───────────────────────────────────────────────────────────────────────────────────────────────────

/// All types of the library, those that are only drafts too. At most 500.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/platform/node-types", tag = "node types",
    responses((status = 200, body = PageOf<PlatformView>), (status = "default", body = Problem)))]
pub async fn list_all(caller: Caller) -> Result<Json<PageOf<PlatformView>>, ApiError> {
    let heads = node_type::list_all(&caller.app.cx, &caller.caller).await?;
    let view = |head: Head| PlatformView {
        versions: head.versions,
        draft: node_type::shown(head.draft.as_ref()),
        updated_at: head.updated_at,
        node_type: head.into(),
    };
    Ok(Json(PageOf {
        items: heads.into_iter().map(view).collect(),
        next_cursor: None,
    }))
}

fn drafted(status: StatusCode, draft: Draft, definition: Value, noticed: Vec<Finding>) -> Response {
    let tag = format!("\"{}\"", draft.digest);
    let answer = DocumentAnswer {
        state: NodeState::Draft,
        digest: draft.digest,
        message: None,
        at: draft.updated_at,
        by: draft.updated_by,
        noticed,
        definition,
    };
    let mut response = (status, Json(answer)).into_response();
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The draft of a type. `ETag` is its digest.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/node-types/{name}/draft", tag = "node types",
    params(("name" = String, Path, description = "The node type")),
    responses((status = 200, body = DocumentAnswer), (status = "default", body = Problem)))]
pub async fn draft(caller: Caller, Path(name): Path<String>) -> Result<Response, ApiError> {
    let (draft, authored) = node_type::draft(&caller.app.cx, &caller.caller, &name).await?;
    Ok(drafted(StatusCode::OK, draft, json!(authored.document), Vec::new()))
}

/// Write the draft of a type, or begin one. Its shape and its code are checked, the code in the jail; everything that is wrong is
/// said at once. `If-None-Match: *` writes only where there is no draft.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(put, path = "/api/node-types/{name}/draft", tag = "node types",
    params(("name" = String, Path, description = "The node type"),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the draft that is replaced"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: there must be no draft")),
    request_body(content = Object, description = "The version, as docs/node-library.md describes it"),
    responses((status = 200, body = DocumentAnswer), (status = "default", body = Problem)))]
pub async fn put_draft(
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: JsonObject,
) -> Result<Response, ApiError> {
    let only_new = match headers.get(header::IF_NONE_MATCH).map(HeaderValue::to_str) {
        None => false,
        Some(Ok("*")) => true,
        Some(_) => {
            return Err(ApiError::bad_parameter(
                "header:If-None-Match",
                "`If-None-Match` takes `*` here",
            ));
        }
    };
    let change = Change {
        written: body.object,
        if_tag: if_match(&headers)?,
        only_new,
    };
    let (draft, authored, noticed) = node_type::put_draft(&caller.app.cx, &caller.caller, &name, &change).await?;
    Ok(drafted(StatusCode::OK, draft, json!(authored.document), noticed))
}

/// Delete a draft. Published versions stay.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(delete, path = "/api/node-types/{name}/draft", tag = "node types",
    params(("name" = String, Path, description = "The node type"),
        ("If-Match" = Option<String>, Header, description = "The `ETag` of the draft that is deleted")),
    responses((status = 204, description = "It is gone"), (status = "default", body = Problem)))]
pub async fn delete_draft(
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let tag = if_match(&headers)?;
    node_type::delete_draft(&caller.app.cx, &caller.caller, &name, tag.as_deref()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Publish the draft. From now on it can be used, and it never changes. `If-Match` says which draft is meant.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/node-types/{name}/publish", tag = "node types",
    params(("name" = String, Path, description = "The node type"),
        ("If-Match" = String, Header, description = "The `ETag` of the draft that is published, or `*`")),
    responses((status = 200, body = VersionView), (status = "default", body = Problem)))]
pub async fn publish(
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    _: NoBody,
) -> Result<Json<VersionView>, ApiError> {
    // It can't be undone; and no page of another site can send this header unasked.
    if !headers.contains_key(header::IF_MATCH) {
        return Err(
            ApiError::bad_parameter("header:If-Match", "`If-Match` must say which draft is published")
                .hint("send the `ETag` of the draft, or `*` for whatever it says now"),
        );
    }
    let tag = if_match(&headers)?;
    let version = node_type::publish(&caller.app.cx, &caller.caller, &name, tag.as_deref()).await?;
    Ok(Json(version.into()))
}

/// Why a version is to be used no more.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct DeprecateInput {
    /// What its users are told, as what to use instead.
    pub message: String,
}

/// Tell users of a version to use something else. Whatever uses it goes on to.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/node-types/{name}/versions/{version}/deprecate", tag = "node types",
    params(("name" = String, Path, description = "The node type"), ("version" = String, Path, description = "The version")),
    request_body = DeprecateInput,
    responses((status = 200, body = VersionView), (status = "default", body = Problem)))]
pub async fn deprecate(
    caller: Caller,
    Path((name, version)): Path<(String, String)>,
    headers: HeaderMap,
    body: JsonObject,
) -> Result<Json<VersionView>, ApiError> {
    is_json(&headers)?;
    let message = body.object.get("message").and_then(Value::as_str).unwrap_or_default();
    let version = node_type::deprecate(&caller.app.cx, &caller.caller, &name, &version, message).await?;
    Ok(Json(version.into()))
}

/// What is tried.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[derive(Default)]
pub struct TrialInput {
    /// The published version; the draft without one.
    pub version: Option<String>,
    /// Its inputs, by name.
    #[schema(value_type = Object)]
    pub inputs: Map<String, Value>,
    /// Its settings, by name; of a secret the name.
    #[schema(value_type = Object)]
    pub settings: Map<String, Value>,
}

/// Run the code of a type once, as restricted code without an organization, and show what it does. At most 30 s.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/node-types/{name}/test", tag = "node types",
    params(("name" = String, Path, description = "The node type")), request_body = TrialInput,
    responses((status = 200, body = TrialAnswer), (status = "default", body = Problem)))]
pub async fn test(
    caller: Caller,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: JsonObject,
) -> Result<Json<TrialAnswer>, ApiError> {
    is_json(&headers)?;
    let input: TrialInput = serde_json::from_value(Value::Object(body.object)).map_err(|error| {
        ApiError::new(
            Kind::Invalid,
            "node_type_invalid",
            format!("the body can't be read: {error}"),
        )
        .hint("send `{\"inputs\": {…}, \"settings\": {…}}`, and `version` for a published one")
    })?;
    let trial = Trial {
        version: input.version,
        inputs: input.inputs,
        settings: input.settings,
    };
    let tried = node_type::test(&caller.app.cx, &caller.caller, &name, trial).await?;
    Ok(Json(tried.into()))
}

/// These routes need no organization, so what keeps pages of other sites from sending them unasked is the media type.
fn is_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let essence = kind.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::new(
        Kind::Invalid,
        "media_type_unsupported",
        "the body must be JSON, and say so",
    )
    .with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
    .hint("send `Content-Type: application/json`"))
}
