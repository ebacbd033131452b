//! `/api/me`: who the caller is to Weft.

use axum::Json;
use serde::Serialize;
use serde_json::{Value, json};

use crate::authz::Principal;
use crate::http::extract::Caller;
use crate::http::problem::{ApiError, Problem};
use crate::usecase::me;

/// The caller.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MeAnswer {
    /// `user` or `service`.
    pub kind: String,
    /// The principal's id.
    pub id: String,
    /// A name to show.
    pub name: String,
    /// By which door the request came in.
    #[schema(value_type = String)]
    pub tier: Value,
    /// Whether a platform administrator.
    pub administrator: bool,
    /// Organizations with the role in each; for a key the organizations that it is for, empty when for every one.
    #[schema(value_type = Vec<Object>)]
    pub organizations: Vec<Value>,
    /// What a key may do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
}

/// Who the caller is: identity, organizations, roles or scopes.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/me", tag = "me", responses((status = 200, body = MeAnswer), (status = "default", body = Problem)))]
pub async fn get(caller: Caller) -> Result<Json<MeAnswer>, ApiError> {
    let Caller { app, caller } = caller;
    let mut organizations: Vec<_> = me::memberships(&app.cx, &caller)
        .await?
        .into_iter()
        .map(|membership| json!({"id": membership.org, "role": membership.role}))
        .collect();
    organizations.extend(caller.key_organizations.iter().map(|org| json!({"id": org})));
    let (administrator, scopes) = match &caller.principal {
        Principal::User { administrator, .. } => (*administrator, Vec::new()),
        Principal::Service { scopes, .. } => (false, scopes.iter().map(ToString::to_string).collect()),
        _ => (false, Vec::new()),
    };
    Ok(Json(MeAnswer {
        kind: caller.principal.kind().to_owned(),
        id: caller.principal.id(),
        name: caller.principal.name().to_owned(),
        tier: json!(caller.tier),
        administrator,
        organizations,
        scopes,
    }))
}
