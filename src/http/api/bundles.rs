//! `/api/bundles`: published code, which of it is active, and which was.
//!
//! What changes something asks for a content type that a page of another site can't send unasked, since a browser may add the
//! cookies of whoever stands in front.

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};

use super::{PageOf, flag, if_match};
use crate::authz::Action;
use crate::domain::{BundleDigest, Timestamp};
use crate::error::{Coded as _, Finding, Kind};
use crate::http::extract::{Caller, JsonObject, NoBody, Path, Query, read_up_to};
use crate::http::problem::{ApiError, Problem};
use crate::usecase;
use crate::usecase::bundle::{self, Activation, Active, Diff, FileOf, Side, StoredBundle};

/// How many activations are told without being asked for a number.
const HISTORY: usize = 20;
/// And at most.
const MAX_HISTORY: usize = 200;
/// How many bundles stay when the oldest are deleted, if nobody says so.
const KEEP: usize = 10;

/// A published bundle.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BundleView {
    /// The digest of the names and contents of its files.
    #[schema(value_type = String)]
    pub digest: BundleDigest,
    /// Whether new runs take it.
    pub active: bool,
    /// How many files it has.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The bytes of its archive.
    pub archive_bytes: u64,
    /// When it was published.
    #[schema(value_type = String)]
    pub published_at: Timestamp,
    /// By whom: a user's id, `key:ID` or `operator`.
    pub published_by: String,
    /// What whoever published it says of it.
    pub note: Option<String>,
    /// When it last became active.
    #[schema(value_type = Option<String>)]
    pub activated_at: Option<Timestamp>,
    /// Whether it is signed with the key that this installation has now; one that is not can't be activated.
    pub trusted: bool,
}

impl BundleView {
    /// Of a bundle, under what is active.
    #[must_use]
    pub fn new(stored: StoredBundle, active: Option<&Active>) -> Self {
        let is_active = |active: &Active| active.activation.digest.as_ref() == Some(&stored.digest);
        Self {
            active: active.is_some_and(is_active),
            files: stored.files,
            bytes: stored.bytes,
            archive_bytes: stored.archive_bytes,
            published_at: stored.published_at,
            published_by: stored.published_by,
            note: stored.note,
            activated_at: stored.activated_at,
            trusted: stored.is_trusted,
            digest: stored.digest,
        }
    }
}

/// A file of a bundle.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct FileView {
    /// Its path in the workspace.
    pub path: String,
    /// Its bytes.
    pub bytes: u64,
    /// Their SHA-256.
    pub sha256: String,
}

impl From<FileOf> for FileView {
    fn from(file: FileOf) -> Self {
        Self {
            path: file.path,
            bytes: file.bytes,
            sha256: file.sha256,
        }
    }
}

/// A published bundle with its files.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BundleAnswer {
    /// The bundle.
    #[serde(flatten)]
    pub bundle: BundleView,
    /// Its files, by path.
    pub contents: Vec<FileView>,
}

/// That something became active.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActivationView {
    /// Its number, from 1.
    pub activation: u64,
    /// What became active; null for the deployed folder.
    #[schema(value_type = Option<String>)]
    pub digest: Option<BundleDigest>,
    /// `activated` or `rolled_back`.
    pub act: String,
    /// When.
    #[schema(value_type = String)]
    pub at: Timestamp,
    /// By whom: a user's id, `key:ID` or `operator`.
    pub by: String,
    /// Whether its row is signed with the key that this installation has now.
    pub trusted: bool,
}

impl From<Activation> for ActivationView {
    fn from(activation: Activation) -> Self {
        Self {
            activation: activation.sequence,
            act: activation.act.as_str().to_owned(),
            at: activation.at,
            by: activation.by,
            trusted: activation.is_trusted,
            digest: activation.digest,
        }
    }
}

/// What is active, and what was.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ActiveAnswer {
    /// The bundle that new runs take; null for the deployed folder.
    #[schema(value_type = Option<String>)]
    pub digest: Option<BundleDigest>,
    /// The activations, newest first.
    pub history: Vec<ActivationView>,
    /// Where it was activated just now, what was noticed and kept it from nothing: time limits above those that count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub noticed: Vec<Finding>,
}

/// A file that one side has.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct OneSided {
    /// Its path.
    pub path: String,
    /// Its bytes.
    pub bytes: u64,
}

/// A file that is another on each side.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct TwoSided {
    /// Its path.
    pub path: String,
    /// Its bytes in the bundle.
    pub bytes: u64,
    /// Its bytes on the other side.
    pub before: u64,
}

/// What a bundle has that the other side has not, and the reverse.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct DiffAnswer {
    /// Files that only the bundle has.
    pub added: Vec<OneSided>,
    /// Files that only the other side has.
    pub removed: Vec<OneSided>,
    /// Files that are others.
    pub changed: Vec<TwoSided>,
    /// Whether there are more than are listed: at most 1000 of each.
    pub cut: bool,
}

impl From<Diff> for DiffAnswer {
    fn from(diff: Diff) -> Self {
        let one = |(path, bytes)| OneSided { path, bytes };
        Self {
            added: diff.added.into_iter().map(one).collect(),
            removed: diff.removed.into_iter().map(one).collect(),
            changed: diff
                .changed
                .into_iter()
                .map(|(path, before, bytes)| TwoSided { path, bytes, before })
                .collect(),
            cut: diff.is_cut,
        }
    }
}

/// A bundle that stays.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct KeptView {
    /// Its digest.
    #[schema(value_type = String)]
    pub digest: BundleDigest,
    /// Why.
    pub reason: String,
}

/// What came of deleting the oldest.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct PrunedAnswer {
    /// What was deleted, or would be.
    #[schema(value_type = Vec<String>)]
    pub deleted: Vec<BundleDigest>,
    /// What stays although it is not among the newest.
    pub kept: Vec<KeptView>,
}

impl From<bundle::Pruned> for PrunedAnswer {
    fn from(pruned: bundle::Pruned) -> Self {
        let kept = |(bundle, reason): (StoredBundle, String)| KeptView {
            digest: bundle.digest,
            reason,
        };
        Self {
            deleted: pruned.deleted.into_iter().map(|bundle| bundle.digest).collect(),
            kept: pruned.kept.into_iter().map(kept).collect(),
        }
    }
}

/// What is wrong with a bundle can't be mended by asking in another way.
fn refused(error: usecase::Error) -> ApiError {
    let is_invalid = error.code() == "bundle_invalid";
    let error = ApiError::from(error);
    if is_invalid {
        error.with_status(StatusCode::UNPROCESSABLE_ENTITY)
    } else {
        error
    }
}

/// A content type that only a caller of the API sends.
fn sent_as(headers: &HeaderMap, kinds: &[&str]) -> Result<(), ApiError> {
    let sent = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = sent.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if kinds.iter().any(|kind| essence.eq_ignore_ascii_case(kind)) {
        return Ok(());
    }
    let kind = kinds[0];
    Err(ApiError::new(
        Kind::Invalid,
        "media_type_unsupported",
        format!("the body must be `{kind}`"),
    )
    .with_status(StatusCode::UNSUPPORTED_MEDIA_TYPE)
    .hint(format!("send `Content-Type: {kind}`")))
}

const JSON: &[&str] = &["application/json"];
const ARCHIVE: &[&str] = &["application/gzip", "application/x-gzip", "application/x-tar+gzip"];

fn tagged(active: Option<&Active>, mut response: Response) -> Response {
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", bundle::tag(active))) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A digest in a path; or a word that stands for one.
fn digest(text: &str) -> Result<BundleDigest, ApiError> {
    text.parse()
        .map_err(|error: crate::domain::DigestError| ApiError::bad_parameter("path", error.to_string()))
}

/// Published bundles, newest first. All of them: there are 500 at most.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/bundles", tag = "bundles",
    responses((status = 200, body = PageOf<BundleView>), (status = "default", body = Problem)))]
pub async fn list(caller: Caller) -> Result<Json<PageOf<BundleView>>, ApiError> {
    let cx = &caller.app.cx;
    let platform = bundle::publisher(&caller.caller, Action::List)?;
    let (bundles, active) = bundle::list(cx, &platform).await?;
    Ok(Json(PageOf {
        items: bundles
            .into_iter()
            .map(|stored| BundleView::new(stored, active.as_ref()))
            .collect(),
        next_cursor: None,
    }))
}

/// What is said of a bundle that is published.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PublishQuery {
    /// What to remember of it, as the commit that it was made of. At most 200 characters.
    note: Option<String>,
}

/// Publish an archive (tar, gzip) of a workspace, of at most 32 MiB. Nothing runs it before it is activated. The same files give
/// the same bundle, whoever has packed them: 201 for one that is new, 200 for one that was there.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/bundles", tag = "bundles", params(PublishQuery),
    request_body(content = Vec<u8>, content_type = "application/gzip"),
    responses((status = 201, body = BundleView), (status = 200, body = BundleView), (status = "default", body = Problem)))]
pub async fn publish(
    caller: Caller,
    Query(query): Query<PublishQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let cx = &caller.app.cx;
    // Before so much is read.
    let platform = bundle::publisher(&caller.caller, Action::Create)?;
    sent_as(&headers, ARCHIVE)?;
    let limit = usize::try_from(bundle::MAX_ARCHIVE_BYTES).unwrap_or(usize::MAX);
    let bytes = read_up_to(body, limit, "a bundle's archive can't be larger").await?;
    let published = bundle::publish(cx, &platform, &caller.caller.origin, bytes, query.note.as_deref()).await;
    let (stored, is_new) = published.map_err(refused)?;
    let location = format!("/api/bundles/{}", stored.digest);
    let (active, _) = bundle::active(cx, &platform, 0).await?;
    let view = Json(BundleView::new(stored, active.as_ref()));
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = (status, view).into_response();
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// How much of the history.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// Most activations, 1 to 200; 20 without it.
    limit: Option<String>,
}

/// What is active, and the newest activations. `ETag` names what is active.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/bundles/active", tag = "bundles", params(HistoryQuery),
    responses((status = 200, body = ActiveAnswer), (status = "default", body = Problem)))]
pub async fn active(caller: Caller, Query(query): Query<HistoryQuery>) -> Result<Response, ApiError> {
    let platform = bundle::publisher(&caller.caller, Action::Read)?;
    let limit = match query.limit.as_deref() {
        None => HISTORY,
        Some(text) => text
            .parse()
            .ok()
            .filter(|limit| (1..=MAX_HISTORY).contains(limit))
            .ok_or_else(|| ApiError::bad_parameter("query:limit", "`limit` is a number from 1 to 200"))?,
    };
    let (active, history) = bundle::active(&caller.app.cx, &platform, limit).await?;
    Ok(answer(active.as_ref(), history, Vec::new()))
}

fn answer(active: Option<&Active>, history: Vec<Activation>, noticed: Vec<Finding>) -> Response {
    let body = ActiveAnswer {
        digest: active.and_then(|active| active.activation.digest.clone()),
        history: history.into_iter().map(ActivationView::from).collect(),
        noticed,
    };
    tagged(active, Json(body).into_response())
}

/// One published bundle with its files.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/bundles/{digest}", tag = "bundles",
    params(("digest" = String, Path, description = "The bundle: `sha256:…`")),
    responses((status = 200, body = BundleAnswer), (status = "default", body = Problem)))]
pub async fn get(caller: Caller, Path(text): Path<String>) -> Result<Json<BundleAnswer>, ApiError> {
    let platform = bundle::publisher(&caller.caller, Action::Read)?;
    let (stored, files, active) = bundle::get(&caller.app.cx, &platform, &digest(&text)?).await?;
    Ok(Json(BundleAnswer {
        bundle: BundleView::new(stored, active.as_ref()),
        contents: files.into_iter().map(FileView::from).collect(),
    }))
}

/// With what a bundle is compared.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DiffQuery {
    /// `active`, `folder` for the deployed folder, or the digest of another bundle. `active` without it.
    against: Option<String>,
}

/// Which files of a bundle differ from those of another, or of the deployed folder.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/bundles/{digest}/diff", tag = "bundles",
    params(("digest" = String, Path, description = "The bundle: `sha256:…`"), DiffQuery),
    responses((status = 200, body = DiffAnswer), (status = "default", body = Problem)))]
pub async fn diff(
    caller: Caller,
    Path(text): Path<String>,
    Query(query): Query<DiffQuery>,
) -> Result<Json<DiffAnswer>, ApiError> {
    let platform = bundle::publisher(&caller.caller, Action::Read)?;
    let against: Side =
        query
            .against
            .as_deref()
            .unwrap_or("active")
            .parse()
            .map_err(|error: crate::domain::DigestError| {
                ApiError::bad_parameter("query:against", format!("{error}; or `active`, or `folder`"))
            })?;
    let diff = bundle::diff(&caller.app.cx, &platform, &digest(&text)?, &against).await?;
    Ok(Json(diff.into()))
}

/// How a bundle becomes active.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
pub struct ActivateQuery {
    /// `true` lets a bundle become active that declares no workflow.
    allow_empty: Option<String>,
}

/// Let new runs take a bundle. Its discovery is run first; when that finds anything, nothing changes and `errors` has it all
/// (422). `folder` in place of a digest is the deployed folder. This instance takes it at once, others within half a minute.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/bundles/{digest}/activate", tag = "bundles",
    params(("digest" = String, Path, description = "The bundle: `sha256:…`, or `folder`"), ActivateQuery,
        ("If-Match" = Option<String>, Header, description = "The `ETag` of what is active")),
    request_body(content = Option<Object>, description = "An empty object", content_type = "application/json"),
    responses((status = 200, body = ActiveAnswer), (status = "default", body = Problem)))]
pub async fn activate(
    caller: Caller,
    Path(text): Path<String>,
    Query(query): Query<ActivateQuery>,
    headers: HeaderMap,
    _: NoBody,
) -> Result<Response, ApiError> {
    let platform = bundle::publisher(&caller.caller, Action::Modify)?;
    sent_as(&headers, JSON)?;
    let chosen = (text != "folder").then(|| digest(&text)).transpose()?;
    let allow_empty = flag("allowEmpty", query.allow_empty.as_deref())?;
    let (cx, origin, tag) = (&caller.app.cx, &caller.caller.origin, if_match(&headers)?);
    let active = bundle::activate(cx, &platform, origin, chosen.as_ref(), tag.as_deref(), allow_empty)
        .await
        .map_err(refused)?;
    let noticed = bundle::noticed(cx, &platform).await;
    Ok(answer(Some(&active), vec![active.activation.clone()], noticed))
}

/// Bring back what was active before. Twice goes back two activations.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/bundles/rollback", tag = "bundles",
    params(("If-Match" = Option<String>, Header, description = "The `ETag` of what is active")),
    request_body(content = Option<Object>, description = "An empty object", content_type = "application/json"),
    responses((status = 200, body = ActiveAnswer), (status = "default", body = Problem)))]
pub async fn rollback(caller: Caller, headers: HeaderMap, _: NoBody) -> Result<Response, ApiError> {
    let platform = bundle::publisher(&caller.caller, Action::Modify)?;
    sent_as(&headers, JSON)?;
    let (cx, origin, tag) = (&caller.app.cx, &caller.caller.origin, if_match(&headers)?);
    let active = bundle::rollback(cx, &platform, origin, tag.as_deref())
        .await
        .map_err(refused)?;
    Ok(answer(Some(&active), vec![active.activation.clone()], Vec::new()))
}

/// What to delete.
#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PruneBody {
    /// How many of those that were published or active last stay; 10 without it.
    pub keep: Option<usize>,
    /// Only say what would be deleted.
    pub dry_run: bool,
}

/// Delete the oldest bundles, but none that is active, and none that a kept run is pinned to.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/bundles/prune", tag = "bundles",
    request_body(content = PruneBody),
    responses((status = 200, body = PrunedAnswer), (status = "default", body = Problem)))]
pub async fn prune(caller: Caller, headers: HeaderMap, body: JsonObject) -> Result<Json<PrunedAnswer>, ApiError> {
    let platform = bundle::publisher(&caller.caller, Action::Delete)?;
    sent_as(&headers, JSON)?;
    let body: PruneBody = serde_json::from_value(body.object.into()).map_err(|_| {
        ApiError::bad_parameter(
            "",
            "the body has `keep`, a number, and `dryRun`, true or false, and nothing else",
        )
    })?;
    let (cx, origin) = (&caller.app.cx, &caller.caller.origin);
    let pruned = bundle::prune(cx, &platform, origin, body.keep.unwrap_or(KEEP), body.dry_run).await?;
    Ok(Json(pruned.into()))
}

/// Delete a bundle that is not active, and that no kept run is pinned to.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(delete, path = "/api/bundles/{digest}", tag = "bundles",
    params(("digest" = String, Path, description = "The bundle: `sha256:…`")),
    responses((status = 204, description = "It is gone"), (status = "default", body = Problem)))]
pub async fn delete(caller: Caller, Path(text): Path<String>) -> Result<StatusCode, ApiError> {
    let platform = bundle::publisher(&caller.caller, Action::Delete)?;
    bundle::delete(&caller.app.cx, &platform, &caller.caller.origin, &digest(&text)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
