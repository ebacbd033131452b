//! `/api/policy` and `/api/platform/policy`: what steps are allowed to do.

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};

use super::if_match;
use crate::domain::{Chosen, ChosenBy, Limits, Network, Programs, Rights, SecurityProfile, Tier, Trust};
use crate::error::Kind;
use crate::http::extract::{Admitted, Caller, JsonObject, Query};
use crate::http::problem::{ApiError, Problem};
use crate::usecase::policy::{self, Change, Effective, Policy, Reason, StoredPolicy, Subject};

/// What a step may do.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RightsView {
    /// How far its code is trusted.
    pub trust: Trust,
    /// What it may reach.
    pub network: NetworkView,
    /// The isolation below which it is refused.
    pub minimum: Tier,
    /// What it may import.
    pub modules: ModulesView,
}

/// What a step may reach.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct NetworkView {
    /// `none`, `allowlist` or `open`.
    pub mode: String,
    /// With `allowlist`, the hosts.
    pub hosts: Vec<String>,
}

/// What a step may import.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ModulesView {
    /// The only modules beside the bundle's own and `weft`; null for whatever is installed.
    pub allow: Option<Vec<String>>,
    /// Never these.
    pub deny: Vec<String>,
}

impl From<&Rights> for RightsView {
    fn from(rights: &Rights) -> Self {
        Self {
            trust: rights.trust,
            network: NetworkView {
                mode: rights.network.mode().to_owned(),
                hosts: match &rights.network {
                    Network::Allowlist(hosts) => hosts.clone(),
                    Network::None | Network::Open => Vec::new(),
                },
            },
            minimum: rights.minimum,
            modules: ModulesView {
                allow: rights.modules.allow.clone(),
                deny: rights.modules.deny.clone(),
            },
        }
    }
}

/// What steps of a workflow are allowed, and why.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveAnswer {
    /// The workflow; null for workspace code that declares nothing.
    pub workflow: Option<String>,
    /// Whether a run of it is started. Otherwise `reasons` has what is refused.
    pub startable: bool,
    /// The security profile that holds, the strictest that was chosen.
    pub profile: ProfileView,
    /// What the code declares.
    pub declared: RightsView,
    /// What a step may do.
    pub rights: RightsView,
    /// What an attempt may use.
    #[schema(value_type = Object)]
    pub limits: Limits,
    /// Why that is less than what the code declares and the installation offers.
    pub reasons: Vec<ReasonView>,
}

/// A security profile, and who has chosen it.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProfileView {
    /// Its name.
    pub name: SecurityProfile,
    /// Who has chosen it, the first of several.
    pub chosen_by: ChosenBy,
    /// In one sentence.
    pub description: String,
    /// How long a run may last under it, in seconds.
    pub run_seconds: u64,
    /// How many runs of an organization may be under way at once under it.
    pub concurrent_runs: u32,
    /// How many characters a text among the arguments may have.
    pub input_chars: usize,
    /// The programs that shell steps may start; null for any.
    pub programs: Option<Vec<String>>,
}

impl From<Chosen> for ProfileView {
    fn from(chosen: Chosen) -> Self {
        let figures = chosen.profile.figures();
        Self {
            name: chosen.profile,
            chosen_by: chosen.by,
            description: figures.description.to_owned(),
            run_seconds: figures.run_seconds,
            concurrent_runs: figures.concurrent_runs,
            input_chars: figures.input_chars,
            programs: match figures.programs {
                Programs::None => Some(Vec::new()),
                Programs::Listed(names) => Some(names.iter().map(|name| (*name).to_owned()).collect()),
                Programs::Any => None,
            },
        }
    }
}

/// Why something is less.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ReasonView {
    /// Whose ceiling: `platform`, `organization` or `profile`.
    pub policy: String,
    /// About what.
    pub subject: Subject,
    /// A stable code.
    pub code: String,
    /// Whether it keeps a run from being started.
    pub refused: bool,
    /// In one sentence.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl From<&Reason> for ReasonView {
    fn from(reason: &Reason) -> Self {
        Self {
            policy: reason.holder.kind().to_owned(),
            subject: reason.subject,
            code: reason.code.to_owned(),
            refused: reason.refused,
            message: reason.message.clone(),
            hint: reason.remedy.clone(),
        }
    }
}

impl From<&Effective> for EffectiveAnswer {
    fn from(effective: &Effective) -> Self {
        Self {
            workflow: effective.workflow.clone(),
            startable: effective.startable(),
            profile: effective.chosen.into(),
            declared: RightsView::from(&effective.declared.0),
            rights: RightsView::from(&effective.allowed.rights),
            limits: effective.allowed.limits.clone(),
            reasons: effective.allowed.reasons.iter().map(ReasonView::from).collect(),
        }
    }
}

/// The policy itself, so that what was read can be changed and sent back; its tag is in `ETag`.
fn answer(stored: &StoredPolicy) -> Response {
    let mut response = Json(&stored.policy).into_response();
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", stored.tag())) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn change(headers: &HeaderMap, body: JsonObject) -> Result<Change, ApiError> {
    if body.empty {
        // It would give everything back that the policy takes away.
        return Err(
            ApiError::new(Kind::Invalid, "policy_invalid", "the request has no policy")
                .hint("send the policy as a JSON object; `{}` is the one that nobody has written"),
        );
    }
    Ok(Change {
        written: body.object,
        if_tag: if_match(headers)?,
    })
}

/// The organization's policy: what its steps are allowed, below the platform's. `ETag` names its content.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/policy", tag = "policy", params(super::OrganizationHeader),
    responses((status = 200, body = Policy), (status = "default", body = Problem)))]
pub async fn get(admitted: Admitted) -> Result<Response, ApiError> {
    Ok(answer(&policy::organization(&admitted.app.cx, &admitted.scope).await?))
}

/// Replace the organization's policy. Members that are missing are as in a policy that nobody has written. An `org_admin`
/// narrows it, and adds domains; more trust, modules, open network or bytes of artifacts takes a platform administrator.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(put, path = "/api/policy", tag = "policy",
    params(super::OrganizationHeader, ("If-Match" = Option<String>, Header, description = "The `ETag` of the policy that is replaced")),
    request_body(content = Policy),
    responses((status = 200, body = Policy), (status = "default", body = Problem)))]
pub async fn put(admitted: Admitted, headers: HeaderMap, body: JsonObject) -> Result<Response, ApiError> {
    let change = change(&headers, body)?;
    let (_, stored) = policy::put_organization(&admitted.app.cx, &admitted.scope, &admitted.origin, &change).await?;
    Ok(answer(&stored))
}

/// The platform's policy, above that of every organization. `ETag` names its content.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/platform/policy", tag = "policy",
    responses((status = 200, body = Policy), (status = "default", body = Problem)))]
pub async fn get_platform(caller: Caller) -> Result<Response, ApiError> {
    Ok(answer(&policy::platform_for(&caller.app.cx, &caller.caller).await?))
}

/// Replace the platform's policy. Members that are missing are as in a policy that nobody has written.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(put, path = "/api/platform/policy", tag = "policy",
    params(("If-Match" = Option<String>, Header, description = "The `ETag` of the policy that is replaced")),
    request_body(content = Policy),
    responses((status = 200, body = Policy), (status = "default", body = Problem)))]
pub async fn put_platform(caller: Caller, headers: HeaderMap, body: JsonObject) -> Result<Response, ApiError> {
    let change = change(&headers, body)?;
    let (_, stored) = policy::put_platform_for(&caller.app.cx, &caller.caller, &change).await?;
    Ok(answer(&stored))
}

/// Of which workflow.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EffectiveQuery {
    /// The workflow; without one, what workspace code is allowed that declares nothing.
    workflow: Option<String>,
}

/// What steps of a workflow are allowed now, by whom it is limited, and whether a run would be started.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/policy/effective", tag = "policy", params(EffectiveQuery, super::OrganizationHeader),
    responses((status = 200, body = EffectiveAnswer), (status = "default", body = Problem)))]
pub async fn effective(
    admitted: Admitted,
    Query(query): Query<EffectiveQuery>,
) -> Result<Json<EffectiveAnswer>, ApiError> {
    let workflow = query.workflow.as_deref().filter(|name| !name.is_empty());
    let effective = policy::effective(&admitted.app.cx, &admitted.scope, workflow).await?;
    Ok(Json(EffectiveAnswer::from(&effective)))
}
