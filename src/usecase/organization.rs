//! Organizations, as the operator manages them. What happens to one is in its own records.

use serde_json::json;

use super::{Context, Error, Result};
use crate::audit::{Event as AuditEvent, Outcome, Record};
use crate::domain::OrgId;
use crate::error::Coded as _;
use crate::store::port::Continuation;
use crate::store::repo::audit_log::Within;
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
    let made = match cx.identities.create_organization(platform, new).await {
        Err(error @ identity::Error::SlugTaken(_)) => {
            let hint = "choose another, or leave it out; `weft org list` shows whose it is";
            return Err(Error::conflict("slug_taken", error.to_string(), hint));
        }
        other => other?,
    };
    let scope = operator_in(platform, &made.id);
    let record = cx
        .audit
        .by(&scope, AuditEvent::OrganizationCreated)
        .resource("organization", made.id.as_str())
        .detail(&json!({"name": made.name.as_str(), "slug": made.slug}));
    keep(cx, &scope, record).await?;
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
    existing(cx, platform, id).await?;
    let written = cx.identities.set_organization_active(platform, id, active).await?;
    if written != Written::Unchanged {
        let scope = operator_in(platform, id);
        let record = cx
            .audit
            .by(&scope, AuditEvent::OrganizationChanged)
            .resource("organization", id.as_str())
            .changes(&json!({"active": {"from": !active, "to": active}}));
        keep(cx, &scope, record).await?;
    }
    Ok(written)
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

/// Makes a change of which there is a record before it is made. What is refused has a second record, which says so; where it is
/// not known whether the change was made, the first stands.
pub(super) async fn recorded<'a, T>(
    cx: &Context,
    within: impl Into<Within<'a>> + Send,
    record: impl Fn() -> Record + Send,
    change: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    let within = within.into();
    keep(cx, within, record()).await?;
    let made = change.await;
    if let Err(error) = &made
        && !error.kind().retriable()
        && let Err(unsaid) = keep(cx, within, record().outcome(Outcome::Failed)).await
    {
        tracing::warn!(error = %unsaid, "a change that was not made is on record as made");
    }
    made
}

/// Appends a record and lists it.
pub(super) async fn keep<'a>(cx: &Context, within: impl Into<Within<'a>> + Send, record: Record) -> Result<()> {
    let within = within.into();
    let linked = cx.audit.append(within, record).await?;
    cx.audit.index(within, &[linked]).await?;
    Ok(())
}
