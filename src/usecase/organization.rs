//! Organizations, as the operator manages them. What happens to one is in its own records.

use serde_json::json;

use super::on_record::recorded;
use super::{Context, Error, Result};
use crate::audit::Event as AuditEvent;
use crate::domain::OrgId;
use crate::store::port::Continuation;
use crate::store::repo::identity;
pub use crate::store::repo::identity::{Listed, NewOrganization, OrganizationRecord, Written};
use crate::tenancy::{PlatformScope, operator_in};

/// Makes an organization with its table and container. One that has this id, name and slug already is left as it is, so that
/// a script may be run twice.
///
/// # Errors
/// When the id or the slug is another organization's, or storage fails.
pub async fn create(
    cx: &Context,
    platform: &PlatformScope,
    new: NewOrganization,
) -> Result<(Written, OrganizationRecord)> {
    if let Some(id) = &new.id
        && let Some(there) = cx.identities.get_organization(platform, id).await?
        && there.name == new.name
        && there.slug == new.slug
    {
        return Ok((Written::Unchanged, there));
    }
    // Its records are in its table, which counts for nothing before its row.
    let id = cx.identities.prepare_organization(platform, new.id.clone()).await?;
    let scope = operator_in(platform, &id);
    let detail = json!({"name": new.name.as_str(), "slug": new.slug});
    let record = || {
        cx.audit
            .by(&scope, AuditEvent::OrganizationCreated)
            .resource("organization", id.as_str())
            .detail(&detail)
    };
    let new = NewOrganization {
        id: Some(id.clone()),
        ..new
    };
    let create = async {
        match cx.identities.create_organization(platform, new).await {
            Err(error @ identity::Error::SlugTaken(_)) => {
                let hint = "choose another, or leave it out; `weft org list` shows whose it is";
                Err(Error::conflict("slug_taken", error.to_string(), hint))
            }
            other => Ok(other?),
        }
    };
    let made = recorded(cx, &scope, record, create).await?;
    Ok((Written::Created, made))
}

/// Some organizations, in the order of their ids.
///
/// # Errors
/// When storage fails.
pub async fn list(
    cx: &Context,
    platform: &PlatformScope,
    limit: usize,
    after: Option<Continuation>,
) -> Result<Listed<OrganizationRecord>> {
    Ok(cx.identities.list_organizations(platform, limit, after).await?)
}

/// Lets people and keys work in an organization, or nobody.
///
/// # Errors
/// When there is no such organization, or storage fails.
pub async fn set_active(cx: &Context, platform: &PlatformScope, id: &OrgId, active: bool) -> Result<Written> {
    if existing(cx, platform, id).await?.active == active {
        return Ok(Written::Unchanged);
    }
    let scope = operator_in(platform, id);
    let record = || {
        cx.audit
            .by(&scope, AuditEvent::OrganizationChanged)
            .resource("organization", id.as_str())
            .changes(&json!({"active": {"from": !active, "to": active}}))
    };
    let set = async { Ok(cx.identities.set_organization_active(platform, id, active).await?) };
    recorded(cx, &scope, record, set).await
}

/// One of them.
///
/// # Errors
/// When there is none of this id, or storage fails.
pub async fn get(cx: &Context, platform: &PlatformScope, id: &OrgId) -> Result<OrganizationRecord> {
    existing(cx, platform, id).await
}

/// One that is there.
pub(super) async fn existing(cx: &Context, platform: &PlatformScope, id: &OrgId) -> Result<OrganizationRecord> {
    let found = cx.identities.get_organization(platform, id).await?;
    found.ok_or_else(|| {
        Error::not_found(
            "organization_not_found",
            identity::Error::OrganizationUnknown(id.clone()).to_string(),
            "`weft org list` shows the ids; `weft org create` makes one",
        )
    })
}
