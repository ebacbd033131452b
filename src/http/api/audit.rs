//! `/api/audit`: what happened, newest first.

use axum::Json;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{PageOf, limit, time};
use crate::audit::{Event, Level, Opened};
use crate::http::extract::{Admitted, Query};
use crate::http::problem::{ApiError, Problem};
use crate::usecase::audit_log::{self, AuditQuery, Entry};

/// An audit record.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuditItem {
    /// Its id.
    pub id: String,
    /// When.
    pub at: String,
    /// `info`, `warning`, `critical`.
    pub level: String,
    /// What happened, as `key.bypass`.
    pub event: String,
    /// `allowed`, `denied`, `failed`, `succeeded`.
    pub outcome: String,
    /// The organization; null for records of the platform.
    pub organization: Option<String>,
    /// Who: kind, id, tier, name.
    #[schema(value_type = Object)]
    pub principal: Value,
    /// The name of the function key.
    pub key_name: Option<String>,
    /// The user that a key's caller claimed to act for.
    pub claimed_user: Option<String>,
    /// The client principal that came along with a key, unverified.
    pub also_principal: Option<String>,
    /// A person's name or address.
    pub person: Option<String>,
    /// From where.
    pub source_address: Option<String>,
    /// Whether the address is the peer's or the operator's header's; `X-Forwarded-For` is not verified.
    pub source_address_verified: bool,
    /// `User-Agent`.
    pub user_agent: Option<String>,
    /// To what: kind and id.
    #[schema(value_type = Option<Object>)]
    pub resource: Option<Value>,
    /// What became what.
    #[schema(value_type = Option<Object>)]
    pub changes: Option<Value>,
    /// What else there is to say.
    #[schema(value_type = Option<Object>)]
    pub detail: Option<Value>,
    /// The request.
    pub request_id: Option<String>,
    /// Method and path.
    pub endpoint: Option<String>,
    /// `readable`, `absent`, `erased` or `unreadable`: what can be shown of the person.
    pub personal_data: String,
    /// The chain that it is in, and its number there.
    pub chain: String,
    /// Its number in the chain.
    pub sequence: u64,
}

impl From<Entry> for AuditItem {
    fn from(entry: Entry) -> Self {
        let Entry {
            plain,
            personal,
            chain,
            sequence,
            ..
        } = entry;
        let state = match &personal {
            Opened::Readable(_) => "readable",
            Opened::Absent => "absent",
            Opened::Erased => "erased",
            Opened::Unreadable => "unreadable",
        };
        let personal = personal.readable().cloned().unwrap_or_default();
        let organization = match plain.owner.to_string().as_str() {
            "-" => None,
            id => Some(id.to_owned()),
        };
        Self {
            id: plain.id.to_string(),
            at: plain.at.to_string(),
            level: plain.level.as_str().to_owned(),
            event: plain.event,
            outcome: plain.outcome.as_str().to_owned(),
            organization,
            principal: json!(plain.principal),
            key_name: plain.key,
            claimed_user: personal.claimed_user,
            also_principal: personal.also_principal,
            person: personal.person,
            source_address: personal.address,
            source_address_verified: personal.address_verified,
            user_agent: personal.agent,
            resource: plain.resource.map(|resource| json!(resource)),
            changes: plain.changes,
            detail: plain.detail,
            request_id: plain.request_id,
            endpoint: plain.endpoint,
            personal_data: state.to_owned(),
            chain: chain.to_string(),
            sequence,
        }
    }
}

/// Which records.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// From this time on.
    from: Option<String>,
    /// Before this time.
    to: Option<String>,
    /// Of one level.
    level: Option<String>,
    /// Of one event.
    event: Option<String>,
    /// By one principal, by its id.
    principal: Option<String>,
    /// About the thing with this id, as a run's.
    resource: Option<String>,
    /// Items in a page, 1 to 200; 50 by default.
    limit: Option<String>,
    /// `nextCursor` of the page before.
    cursor: Option<String>,
}

/// Audit records of the organization, newest first.
///
/// # Errors
/// Problems as documented.
#[utoipa::path(get, path = "/api/audit", tag = "audit", params(ListQuery, super::OrganizationHeader),
    responses((status = 200, body = PageOf<AuditItem>), (status = "default", body = Problem)))]
pub async fn list(admitted: Admitted, Query(query): Query<ListQuery>) -> Result<Json<PageOf<AuditItem>>, ApiError> {
    let some = |text: Option<String>| text.filter(|text| !text.is_empty());
    let level = some(query.level)
        .map(|text| {
            Level::parse(&text)
                .ok_or_else(|| ApiError::bad_parameter("query:level", "`level` must be one of info, warning, critical"))
        })
        .transpose()?;
    let event = some(query.event)
        .map(|text| {
            Event::parse(&text)
                .ok_or_else(|| ApiError::bad_parameter("query:event", "`event` must be one of those in docs/audit.md"))
        })
        .transpose()?;
    let query = AuditQuery {
        from: time("from", query.from.as_deref())?,
        to: time("to", query.to.as_deref())?,
        level,
        event,
        principal: some(query.principal),
        resource_id: some(query.resource),
        limit: limit(query.limit.as_deref())?,
        cursor: some(query.cursor),
        ..AuditQuery::default()
    };
    let page = audit_log::list(&admitted.app.cx, &admitted.scope, query).await?;
    Ok(Json(PageOf {
        items: page.items.into_iter().map(AuditItem::from).collect(),
        next_cursor: page.next,
    }))
}
