//! Steps that wait for people: `/api/runs/{id}/approvals`, and `/api/approvals/{token}` for who decides by a link.

use std::time::Duration;

use axum::Json;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::runs::{accepted, run_id};
use super::{OrganizationHeader, PageOf};
use crate::domain::{RunId, Timestamp};
use crate::http::extract::{Admitted, JsonObject, Linked, Path};
use crate::http::problem::{ApiError, Problem};
use crate::usecase::approval::{self, Asked, Decision, Word};

/// A step that waits for people.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApprovalView {
    /// The run.
    #[schema(value_type = String)]
    pub run_id: RunId,
    /// The workflow.
    pub workflow: String,
    /// The step.
    pub step: String,
    /// What is asked.
    pub question: Value,
    /// How many must agree; one who refuses is enough to end it.
    pub needed: u32,
    /// Until when.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
    /// What was decided so far.
    pub decisions: Vec<Decision>,
}

impl From<Asked> for ApprovalView {
    fn from(asked: Asked) -> Self {
        Self {
            run_id: asked.run.new.run.clone(),
            workflow: asked.run.new.workflow.clone(),
            step: asked.step,
            question: asked.question,
            needed: asked.needed,
            until: asked.until,
            decisions: asked.decisions,
        }
    }
}

/// A decision.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DecisionBody {
    /// Whether the step may go on.
    approved: bool,
    /// Why; at most 2000 characters.
    #[serde(default)]
    comment: Option<String>,
}

/// For whom a link is made.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LinkBody {
    /// Who decides with it: a name or an address, 1 to 200 characters. The decision is recorded as theirs.
    #[serde(rename = "for")]
    name: String,
    /// For how long it is good; a week by default, 90 days at most, and never longer than the step waits.
    #[serde(default)]
    expires_in_seconds: Option<u64>,
}

/// A link that decides on one step, once.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LinkView {
    /// Where it leads: GET shows what is asked, POST decides. Whoever has it decides.
    pub href: String,
    /// For whom it was made.
    #[serde(rename = "for")]
    pub name: String,
    /// Until when it is good.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}

fn body<T: serde::de::DeserializeOwned>(body: JsonObject) -> Result<T, ApiError> {
    serde_json::from_value(Value::Object(body.object))
        .map_err(|error| ApiError::bad_parameter("body", format!("the body is not what is expected: {error}")))
}

impl From<DecisionBody> for Word {
    fn from(body: DecisionBody) -> Self {
        Self {
            approved: body.approved,
            comment: body.comment,
        }
    }
}

/// The steps of a run that wait for people.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/runs/{id}/approvals", tag = "approvals",
    params(("id" = String, Path, description = "The run"), OrganizationHeader),
    responses((status = 200, body = PageOf<ApprovalView>), (status = "default", body = Problem)))]
pub async fn list(admitted: Admitted, Path(id): Path<String>) -> Result<Json<PageOf<ApprovalView>>, ApiError> {
    let asked = approval::list(&admitted.app.cx, &admitted.scope, &run_id(&id)?).await?;
    Ok(Json(PageOf {
        items: asked.into_iter().map(ApprovalView::from).collect(),
        next_cursor: None,
    }))
}

/// Decide on a step that waits for people, as the caller. Counts at once; the run goes on when enough have agreed.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/runs/{id}/steps/{step}/decision", tag = "approvals",
    params(("id" = String, Path, description = "The run"), ("step" = String, Path, description = "The step"),
        OrganizationHeader),
    request_body = DecisionBody,
    responses((status = 202, body = super::runs::Accepted), (status = "default", body = Problem)))]
pub async fn decide(
    admitted: Admitted,
    Path((id, step)): Path<(String, String)>,
    given: JsonObject,
) -> Result<Response, ApiError> {
    let word: DecisionBody = body(given)?;
    let (app, id) = (&admitted.app, run_id(&id)?);
    let run = approval::decide(&app.cx, &admitted.scope, &admitted.origin, (&id, &step), word.into()).await?;
    Ok(accepted(&run))
}

/// Make a link with which somebody decides on a step without signing in.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/runs/{id}/steps/{step}/links", tag = "approvals",
    params(("id" = String, Path, description = "The run"), ("step" = String, Path, description = "The step"),
        OrganizationHeader),
    request_body = LinkBody,
    responses((status = 200, body = LinkView), (status = "default", body = Problem)))]
pub async fn link(
    admitted: Admitted,
    Path((id, step)): Path<(String, String)>,
    given: JsonObject,
) -> Result<Json<LinkView>, ApiError> {
    let asked: LinkBody = body(given)?;
    let good_for = asked.expires_in_seconds.map(Duration::from_secs);
    let (app, id) = (&admitted.app, run_id(&id)?);
    let made = approval::link(
        &app.cx,
        &admitted.scope,
        &admitted.origin,
        (&id, &step),
        &asked.name,
        good_for,
    )
    .await?;
    Ok(Json(LinkView {
        href: format!("/api/approvals/{}", made.token),
        name: made.name,
        expires_at: made.until,
    }))
}

/// What a link asks. Looking decides nothing, so a mail program that opens links does no harm.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/approvals/{token}", tag = "approvals",
    params(("token" = String, Path, description = "The link's end")),
    responses((status = 200, body = ApprovalView), (status = "default", body = Problem)))]
pub async fn look(link: Linked, Path(token): Path<String>) -> Result<Json<ApprovalView>, ApiError> {
    Ok(Json(approval::look(&link.app.cx, &token).await?.into()))
}

/// Decide with a link, once.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(post, path = "/api/approvals/{token}", tag = "approvals",
    params(("token" = String, Path, description = "The link's end")),
    request_body = DecisionBody,
    responses((status = 202, body = super::runs::Accepted), (status = "default", body = Problem)))]
pub async fn decide_by_link(link: Linked, Path(token): Path<String>, given: JsonObject) -> Result<Response, ApiError> {
    let word: DecisionBody = body(given)?;
    let run = approval::decide_by_link(&link.app.cx, &link.origin, &token, word.into()).await?;
    Ok(accepted(&run))
}
