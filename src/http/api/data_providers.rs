//! `/api/data-providers`: code that returns the options of a form field.

use axum::Json;
use axum::http::Uri;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{PageOf, cursor_in, cursor_out, limit};
use crate::definition::{BUILT_IN_PROVIDERS, SEARCH, json_schema};
use crate::domain::{Parameter, ParameterType, read_json, rounded};
use crate::http::extract::{Admitted, Path};
use crate::http::problem::{ApiError, Problem};
use crate::usecase::provide_data::{self, Asked};

/// Longest text that is searched for, in characters.
const LONGEST_SEARCH: usize = 200;

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
    /// Whether it is the engine's own.
    pub built_in: bool,
    /// Whether its answer depends on who asks.
    pub uses_caller: bool,
    /// Whether it looks itself for what is searched for; otherwise its options are searched.
    pub searches: bool,
    /// Its inputs as JSON Schema 2020-12.
    #[schema(value_type = Object)]
    pub parameters: Value,
}

/// A value that may be chosen.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct OptionView {
    /// What is chosen.
    #[schema(value_type = Object)]
    pub value: Value,
    /// What a form shows.
    pub label: String,
    /// What a form explains.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whatever else the provider says of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub metadata: Option<Value>,
}

/// The options that a data provider offers.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OptionsPage {
    /// The options, in the provider's order.
    pub items: Vec<OptionView>,
    /// Give it as `cursor`, with the same inputs and `search`, for the next page; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
    /// How many there are, of those that are searched for.
    pub total: usize,
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
            built_in: declared.name.starts_with(BUILT_IN_PROVIDERS),
            uses_caller: declared.uses_caller,
            searches: declared.parameters.iter().any(|input| input.name == SEARCH),
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

/// The options that a data provider offers. Its inputs are query parameters; each is text, or JSON where the declared type is not
/// text. `search`, `limit` and `cursor` are none: they say which of the options are wanted.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/data-providers/{name}", tag = "data providers",
    params(("name" = String, Path, description = "The data provider"), super::OrganizationHeader,
        ("search" = Option<String>, Query, description = "A text in the label, the value or the description; at most 200 characters"),
        ("limit" = Option<String>, Query, description = "Options in a page, 1 to 200; 50 by default"),
        ("cursor" = Option<String>, Query, description = "`nextCursor` of the page before")),
    responses((status = 200, body = OptionsPage), (status = "default", body = Problem)))]
pub async fn provide(admitted: Admitted, Path(name): Path<String>, uri: Uri) -> Result<Json<OptionsPage>, ApiError> {
    let app = &admitted.app;
    let declared = provide_data::inputs(&app.cx, &admitted.scope, &name).await?;
    let mut inputs = Map::new();
    let (mut search, mut most, mut cursor) = (None, None, None);
    for (key, text) in url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
        match key.as_ref() {
            SEARCH => search = Some(text.into_owned()),
            "limit" => most = Some(text.into_owned()),
            "cursor" => cursor = Some(text.into_owned()),
            // The function key may stand in the query; it is no input.
            other if other.eq_ignore_ascii_case("code") => {}
            _ => {
                let value = input(&declared, &key, &text);
                inputs.insert(key.into_owned(), value);
            }
        }
    }
    if search
        .as_ref()
        .is_some_and(|search| search.chars().count() > LONGEST_SEARCH)
    {
        let message = format!("`search` must have at most {LONGEST_SEARCH} characters");
        return Err(ApiError::bad_parameter("query:search", message));
    }
    let page = (cursor_in(cursor.as_deref())?, limit(most.as_deref())?);
    let asked = Asked {
        provider: name,
        inputs,
        search,
    };
    let options = provide_data::options(&app.cx, &admitted.scope, &admitted.origin, asked, page).await?;
    let items = options.items.into_iter().map(|option| OptionView {
        value: option.value,
        label: option.label,
        description: option.description,
        metadata: option.metadata,
    });
    Ok(Json(OptionsPage {
        items: items.collect(),
        next_cursor: cursor_out(options.next),
        total: options.total,
    }))
}

/// An input as its declared type has it.
fn input(declared: &[Parameter], name: &str, text: &str) -> Value {
    let kind = declared
        .iter()
        .find(|parameter| parameter.name == name)
        .map_or(ParameterType::String, |parameter| parameter.kind);
    match kind {
        ParameterType::String
        | ParameterType::Email
        | ParameterType::Url
        | ParameterType::Binary
        | ParameterType::Secret => Value::from(text),
        // What would lose something by being read is a text, which no such type takes.
        _ => match read_json(text.as_bytes()) {
            Ok((value, repeated)) if repeated.is_empty() && rounded(text.as_bytes()).is_none() => value,
            _ => Value::from(text),
        },
    }
}
