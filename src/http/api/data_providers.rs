//! `/api/data-providers`: code that returns the options of a form field.

use axum::Json;
use axum::http::Uri;
use serde::Serialize;
use serde_json::{Map, Value};

use super::PageOf;
use crate::definition::json_schema;
use crate::domain::ParameterType;
use crate::http::extract::{Admitted, Path};
use crate::http::problem::{ApiError, Problem};
use crate::usecase::provide_data;

/// A data provider.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataProviderView {
    /// Its name.
    pub name: String,
    /// One sentence.
    pub description: String,
    /// For lists.
    pub category: String,
    /// How long an answer may be kept, in seconds.
    pub cache_ttl_seconds: u64,
    /// Its inputs as JSON Schema 2020-12.
    #[schema(value_type = Object)]
    pub parameters: Value,
}

/// The options that a data provider returned.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct DataAnswer {
    /// Usually a list of `{label, value}`.
    #[schema(value_type = Object)]
    pub data: Value,
}

/// The data providers, by name.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/data-providers", tag = "data providers", params(super::OrganizationHeader),
    responses((status = 200, body = PageOf<DataProviderView>), (status = "default", body = Problem)))]
pub async fn list(admitted: Admitted) -> Result<Json<PageOf<DataProviderView>>, ApiError> {
    let items = provide_data::list(&admitted.app.cx, &admitted.scope).await?;
    let items = items
        .into_iter()
        .map(|declared| DataProviderView {
            parameters: json_schema(&declared.parameters),
            name: declared.name,
            description: declared.description,
            category: declared.category,
            cache_ttl_seconds: declared.cache_ttl_seconds,
        })
        .collect();
    Ok(Json(PageOf {
        items,
        next_cursor: None,
    }))
}

/// Call a data provider. Its inputs are query parameters; each is text, or JSON where the declared type is not text.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/data-providers/{name}", tag = "data providers",
    params(("name" = String, Path, description = "The data provider"), super::OrganizationHeader),
    responses((status = 200, body = DataAnswer), (status = "default", body = Problem)))]
pub async fn provide(admitted: Admitted, Path(name): Path<String>, uri: Uri) -> Result<Json<DataAnswer>, ApiError> {
    let app = &admitted.app;
    let declared = provide_data::inputs(&app.cx, &admitted.scope, &name).await?;
    let mut inputs = Map::new();
    for (key, text) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        // The function key may stand in the query; it is no input.
        if key.eq_ignore_ascii_case("code") {
            continue;
        }
        let kind = declared
            .iter()
            .find(|parameter| parameter.name == key)
            .map_or(ParameterType::String, |parameter| parameter.kind);
        let value = match kind {
            ParameterType::String
            | ParameterType::Email
            | ParameterType::Url
            | ParameterType::Binary
            | ParameterType::Secret => Value::from(text.as_ref()),
            _ => serde_json::from_str(&text).unwrap_or_else(|_| Value::from(text.as_ref())),
        };
        inputs.insert(key.into_owned(), value);
    }
    let data = provide_data::provide(&app.cx, &admitted.scope, &admitted.origin, &name, inputs).await?;
    Ok(Json(DataAnswer { data }))
}
