//! `/api/secrets`: written and listed, never shown.

use axum::Json;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::PageOf;
use crate::domain::Secret;
use crate::error::Finding;
use crate::http::extract::{Admitted, JsonObject, Path};
use crate::http::problem::{ApiError, Problem};
use crate::usecase::Error;
use crate::usecase::secret::{self, Listed, WriteSecret};

/// A secret, without its value.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretView {
    /// Its name. Names that differ only in case, or in `_` and `-`, are the same.
    pub name: String,
    /// Where Weft may send it on behalf of a step; none means nowhere.
    pub hosts: Vec<String>,
    /// How it is sent: `bearer`, `basic` or `header:NAME`.
    pub sent_as: String,
    /// What it is for.
    pub description: String,
    /// When it was written.
    pub updated_at: String,
    /// The id of who wrote it; empty when it was written past Weft.
    pub updated_by: String,
    /// When an attempt last used it, to the minute.
    pub last_used_at: Option<String>,
    /// Whether it is the platform's.
    pub inherited: bool,
    /// What is better done otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<&'static str>,
}

/// A secret to write. What is left out, but for the value, stays as it is.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretInput {
    /// 4 to 25000 bytes of text; 8 and more are better.
    pub value: String,
    /// Where Weft may send it on behalf of a step, as `api.example.com` or `*.example.com`.
    pub hosts: Option<Vec<String>>,
    /// How it is sent: `bearer` (the default), `basic` or `header:NAME`.
    pub sent_as: Option<String>,
    /// What it is for.
    pub description: Option<String>,
}

impl From<Listed> for SecretView {
    fn from(listed: Listed) -> Self {
        let Listed {
            record,
            last_used_at,
            inherited,
        } = listed;
        Self {
            name: record.name.to_string(),
            hosts: record.hosts,
            sent_as: record.presented.to_string(),
            description: record.description,
            updated_at: record.updated_at.to_string(),
            updated_by: record.updated_by,
            last_used_at: last_used_at.map(|at| at.to_string()),
            inherited,
            advice: None,
        }
    }
}

/// The names of the secrets that workflows of the organization may declare.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/secrets", tag = "secrets", params(super::OrganizationHeader),
    responses((status = 200, body = PageOf<SecretView>), (status = "default", body = Problem)))]
pub async fn list(admitted: Admitted) -> Result<Json<PageOf<SecretView>>, ApiError> {
    let items = secret::list(&admitted.app.cx, &admitted.scope).await?;
    Ok(Json(PageOf {
        items: items.into_iter().map(SecretView::from).collect(),
        next_cursor: None,
    }))
}

/// Write a secret. No answer ever holds its value.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(put, path = "/api/secrets/{name}", tag = "secrets", request_body = SecretInput,
    params(("name" = String, Path, description = "The secret"), super::OrganizationHeader),
    responses((status = 200, body = SecretView), (status = 201, description = "It is new", body = SecretView),
        (status = "default", body = Problem)))]
pub async fn write(
    admitted: Admitted,
    Path(name): Path<String>,
    body: JsonObject,
) -> Result<(StatusCode, Json<SecretView>), ApiError> {
    let new = input(name, body.object);
    let wrote = secret::put(&admitted.app.cx, &admitted.scope, &admitted.origin, new).await?;
    let status = if wrote.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let view = SecretView::from(Listed {
        record: wrote.record,
        last_used_at: None,
        inherited: false,
    });
    Ok((
        status,
        Json(SecretView {
            advice: wrote.advice,
            ..view
        }),
    ))
}

/// The words of a refusal never repeat what was sent: a value may stand in the wrong place.
fn input(name: String, object: Map<String, Value>) -> Result<WriteSecret, Error> {
    let input: SecretInput = serde_json::from_value(Value::Object(object)).map_err(|_| {
        let message =
            "`value` is a text, `hosts` a list of texts, `sentAs` and `description` texts, and there is nothing else";
        Error::invalid(
            "secret_invalid",
            "the body is not a secret to write",
            "send `{\"value\": \"…\", \"hosts\": [\"api.example.com\"]}`",
            vec![Finding::new("", "invalid", message)],
        )
    })?;
    Ok(WriteSecret {
        name,
        value: Secret::value(input.value),
        hosts: input.hosts,
        presented: input.sent_as,
        description: input.description,
    })
}

/// Delete a secret.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(delete, path = "/api/secrets/{name}", tag = "secrets",
    params(("name" = String, Path, description = "The secret"), super::OrganizationHeader),
    responses((status = 204, description = "It is gone"), (status = "default", body = Problem)))]
pub async fn delete(admitted: Admitted, Path(name): Path<String>) -> Result<StatusCode, ApiError> {
    secret::delete(&admitted.app.cx, &admitted.scope, &admitted.origin, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
