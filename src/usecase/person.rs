//! People, their identities and memberships, as the operator manages them.
//!
//! A membership is in the organization's records, everything else in the platform's. Names, addresses and identities are in
//! the part that is encrypted with the person's key.

use serde_json::json;

use super::on_record::recorded;
use super::organization::existing as existing_organization;
use super::{Context, Error, Result};
use crate::audit::{Event as AuditEvent, Record};
use crate::authz::Role;
use crate::domain::{Email, Identity, OrgId, UserId};
use crate::error::Finding;
use crate::store::repo::identity;
pub use crate::store::repo::identity::{NewUser, UserRecord, Written};
use crate::tenancy::{Membership, PlatformScope, operator_in};

/// Everything that there is about a person's access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The person.
    pub user: UserRecord,
    /// As whom identity providers know them.
    pub identities: Vec<Identity>,
    /// Where they are a member.
    pub memberships: Vec<Membership>,
}

/// An identity as sign-ins will name it: issuers and ids are compared byte by byte, so what people copy in another case is
/// brought to the one that `authn` reads, and a form that no sign-in has is refused.
///
/// # Errors
/// When no sign-in could have it.
pub fn identity(issuer: &str, subject: &str) -> Result<Identity> {
    let wrong = |detail: String| {
        let hint = "`swa:aad USERID` behind Static Web Apps, `entra:TENANT OBJECTID` behind App Service \
                    authentication (both GUIDs), `easyauth:PROVIDER SUBJECT` for its other providers";
        Error::invalid("parameter_invalid", detail, hint, Vec::<Finding>::new())
    };
    let issuer = issuer.to_ascii_lowercase();
    let provider = |text: &str| {
        (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    let (issuer, subject) = match issuer.split_once(':') {
        Some(("entra", tenant)) if is_guid(tenant) && is_guid(subject) => (issuer, subject.to_ascii_lowercase()),
        Some(("entra", _)) => {
            return Err(wrong(
                "tenant and object id of an `entra:` identity are GUIDs".to_owned(),
            ));
        }
        Some(("easyauth", "aad")) => {
            return Err(wrong("people of `easyauth:aad` come as `entra:TENANT`".to_owned()));
        }
        Some(("swa" | "easyauth", name)) if provider(name) => (issuer, subject.to_owned()),
        _ => {
            return Err(wrong(format!(
                "`{}` is not an issuer",
                issuer.chars().take(60).collect::<String>()
            )));
        }
    };
    Identity::new(&issuer, &subject).map_err(|error| wrong(error.to_string()))
}

fn is_guid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// A member's role by its name.
///
/// # Errors
/// When members can't have it.
pub fn role(name: &str) -> Result<Role> {
    let members: Vec<_> = Role::ALL.iter().filter(|role| **role != Role::Administrator).collect();
    let names: Vec<_> = members.iter().map(|role| format!("`{}`", role.as_str())).collect();
    match Role::parse(name) {
        Some(Role::Administrator) => Err(Error::invalid(
            "role_not_for_members",
            identity::Error::NotAMembersRole.to_string(),
            format!(
                "roles of members are {}; a platform administrator is made by `weft user create --administrator`",
                names.join(", ")
            ),
            Vec::new(),
        )),
        Some(role) => Ok(role),
        None => Err(Error::invalid(
            "parameter_invalid",
            format!("`{}` is not a role", name.chars().take(60).collect::<String>()),
            format!("roles are {}", names.join(", ")),
            Vec::new(),
        )),
    }
}

/// Makes a person with their identities. All of them are looked at before anything is written.
///
/// # Errors
/// When the address or an identity is somebody else's, or storage fails.
pub async fn create(cx: &Context, platform: &PlatformScope, new: NewUser, identities: &[Identity]) -> Result<Person> {
    for one in identities {
        if let Some(holder) = cx.identities.person(one).await? {
            return Err(taken(one, &holder.id));
        }
    }
    let generated = || UserId::generate(cx.clock.now(), cx.entropy.bytes());
    let id = new.id.clone().unwrap_or_else(generated);
    let about = json!({"name": new.name.as_str(), "email": new.email.as_ref().map(Email::as_str)});
    let administrator = new.administrator;
    let of = |event| cx.audit.by(platform, event).resource("user", id.as_str());
    let record = || {
        of(AuditEvent::UserCreated)
            .detail(&json!({"administrator": administrator}))
            .about(&id, &about)
    };
    let made_administrator =
        || of(AuditEvent::AdministratorChanged).changes(&json!({"administrator": {"from": false, "to": true}}));
    let new = NewUser {
        id: Some(id.clone()),
        ..new
    };
    let create = async {
        match cx.identities.create_user(platform, new).await {
            Err(error @ identity::Error::EmailTaken) => Err(Error::conflict(
                "email_taken",
                error.to_string(),
                "`weft user show EMAIL` says whose it is; use another address, or that user",
            )),
            other => Ok(other?),
        }
    };
    if administrator {
        let create = recorded(cx, platform, made_administrator, create);
        recorded(cx, platform, record, create).await?;
    } else {
        recorded(cx, platform, record, create).await?;
    }
    for one in identities {
        add_identity(cx, platform, &id, one).await?;
    }
    get(cx, platform, &id).await
}

/// A person by id.
///
/// # Errors
/// When there is none, or storage fails.
pub async fn get(cx: &Context, platform: &PlatformScope, id: &UserId) -> Result<Person> {
    let user = existing(cx, platform, id).await?;
    whole(cx, platform, user).await
}

/// A person by e-mail address.
///
/// # Errors
/// When there is none, or storage fails.
pub async fn by_email(cx: &Context, platform: &PlatformScope, email: &Email) -> Result<Person> {
    let found = cx.identities.user_by_email(platform, email).await?;
    let user = found.ok_or_else(|| {
        Error::not_found(
            "user_not_found",
            "no user has this e-mail address",
            "check the address; `weft user create` makes a user",
        )
    })?;
    whole(cx, platform, user).await
}

async fn whole(cx: &Context, platform: &PlatformScope, user: UserRecord) -> Result<Person> {
    Ok(Person {
        identities: cx.identities.list_identities(platform, &user.id).await?,
        memberships: cx.identities.list_memberships(platform, &user.id).await?,
        user,
    })
}

/// Lets a person in, or keeps them out.
///
/// # Errors
/// When there is no such person, or storage fails.
pub async fn set_active(cx: &Context, platform: &PlatformScope, id: &UserId, active: bool) -> Result<Written> {
    let user = existing(cx, platform, id).await?;
    if user.active == active {
        return Ok(Written::Unchanged);
    }
    let record = || {
        cx.audit
            .by(platform, AuditEvent::UserChanged)
            .resource("user", id.as_str())
            .changes(&json!({"active": {"from": !active, "to": active}}))
            .about(id, &json!({"name": user.name.as_str()}))
    };
    let set = async { Ok(cx.identities.set_user_active(platform, id, active).await?) };
    recorded(cx, platform, record, set).await
}

/// Says that an identity is this person's.
///
/// # Errors
/// When there is no such person, the identity is somebody else's, or storage fails.
pub async fn add_identity(cx: &Context, platform: &PlatformScope, id: &UserId, identity: &Identity) -> Result<Written> {
    existing(cx, platform, id).await?;
    let add = async || match cx.identities.add_identity(platform, id, identity).await {
        Err(error @ identity::Error::IdentityTaken { .. }) => Err(match cx.identities.person(identity).await? {
            Some(holder) => taken(identity, &holder.id),
            None => error.into(),
        }),
        other => Ok(other?),
    };
    // Repeated, it mends their list, and is no change; unless they have lost it since it was looked at.
    let is_theirs = cx.identities.holder(platform, identity).await?.as_ref() == Some(id);
    if is_theirs && add().await? == Written::Unchanged {
        return Ok(Written::Unchanged);
    }
    let record = || identity_changed(cx, platform, id, identity, "added");
    recorded(cx, platform, record, add()).await
}

/// Takes an identity from a person; whether it was theirs.
///
/// # Errors
/// When there is no such person, or storage fails.
pub async fn remove_identity(cx: &Context, platform: &PlatformScope, id: &UserId, identity: &Identity) -> Result<bool> {
    existing(cx, platform, id).await?;
    let remove = async || Ok(cx.identities.remove_identity(platform, id, identity).await?);
    // Repeated, it mends their list, and is no change.
    let is_theirs = cx.identities.holder(platform, identity).await?.as_ref() == Some(id);
    if !is_theirs && !remove().await? {
        return Ok(false);
    }
    let record = || identity_changed(cx, platform, id, identity, "removed");
    recorded(cx, platform, record, remove()).await
}

fn identity_changed(cx: &Context, platform: &PlatformScope, id: &UserId, identity: &Identity, what: &str) -> Record {
    cx.audit
        .by(platform, AuditEvent::UserChanged)
        .resource("user", id.as_str())
        .detail(&json!({"identity": what, "issuer": identity.issuer()}))
        .about(id, &json!({"issuer": identity.issuer(), "subject": identity.subject()}))
}

/// Makes a person a member of an organization, or gives a member another role.
///
/// # Errors
/// When there is no such person or organization, or storage fails.
pub async fn set_member(
    cx: &Context,
    platform: &PlatformScope,
    id: &UserId,
    org: &OrgId,
    role: Role,
) -> Result<Written> {
    let user = existing(cx, platform, id).await?;
    existing_organization(cx, platform, org).await?;
    let before = held(cx, platform, id, org).await?;
    let scope = operator_in(platform, org);
    let put = async || Ok(cx.identities.put_member(&scope, id, role).await?);
    // Repeated, it mends the organization's list, and is no change; unless they have lost the role since it was looked at.
    if before == Some(role) && put().await? == Written::Unchanged {
        return Ok(Written::Unchanged);
    }
    let event = match before {
        None => AuditEvent::MemberAdded,
        Some(_) => AuditEvent::MemberChanged,
    };
    let record = || {
        cx.audit
            .by(&scope, event)
            .resource("user", id.as_str())
            .changes(&json!({"role": {"from": before, "to": role}}))
            .about(id, &json!({"name": user.name.as_str()}))
    };
    recorded(cx, &scope, record, put()).await
}

/// Ends a membership; whether there was one.
///
/// # Errors
/// When there is no such person or organization, or storage fails.
pub async fn remove_member(cx: &Context, platform: &PlatformScope, id: &UserId, org: &OrgId) -> Result<bool> {
    let user = existing(cx, platform, id).await?;
    existing_organization(cx, platform, org).await?;
    let before = held(cx, platform, id, org).await?;
    let scope = operator_in(platform, org);
    let remove = async || Ok(cx.identities.remove_member(&scope, id).await?);
    // Repeated, it mends the organization's list, and is no change.
    if before.is_none() && !remove().await? {
        return Ok(false);
    }
    let record = || {
        cx.audit
            .by(&scope, AuditEvent::MemberRemoved)
            .resource("user", id.as_str())
            .changes(&json!({"role": {"from": before, "to": null}}))
            .about(id, &json!({"name": user.name.as_str()}))
    };
    recorded(cx, &scope, record, remove()).await
}

async fn held(cx: &Context, platform: &PlatformScope, id: &UserId, org: &OrgId) -> Result<Option<Role>> {
    let memberships = cx.identities.list_memberships(platform, id).await?;
    Ok(memberships.into_iter().find(|one| one.org == *org).map(|one| one.role))
}

async fn existing(cx: &Context, platform: &PlatformScope, id: &UserId) -> Result<UserRecord> {
    let found = cx.identities.get_user(platform, id).await?;
    found.ok_or_else(|| {
        Error::not_found(
            "user_not_found",
            identity::Error::UserUnknown(id.clone()).to_string(),
            "`weft user show EMAIL` finds a user by address; `weft user create` makes one",
        )
    })
}

fn taken(identity: &Identity, holder: &UserId) -> Error {
    Error::conflict(
        "identity_taken",
        format!("this identity of `{}` belongs to user `{holder}`", identity.issuer()),
        format!("remove it there first: `weft user identity remove {holder} ISSUER SUBJECT`"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Coded as _;

    #[test]
    fn identities_are_those_that_sign_ins_have() {
        let tenant = "72F988BF-0000-4000-8000-00000000C0DE";
        let read = identity(&format!("Entra:{tenant}"), tenant).unwrap();
        let lower = tenant.to_ascii_lowercase();
        assert_eq!((read.issuer(), read.subject()), (&*format!("entra:{lower}"), &*lower));
        let read = identity("swa:AAD", "Abc").unwrap();
        assert_eq!((read.issuer(), read.subject()), ("swa:aad", "Abc"));
        assert!(identity("easyauth:google", "1").is_ok());
        for (issuer, subject) in [
            ("entra:contoso", tenant),
            (&*format!("entra:{tenant}"), "ann@example.com"),
            ("easyauth:aad", tenant),
            ("swa:", "x"),
            ("swa:a b", "x"),
            ("aad", "x"),
            ("swa:aad", ""),
        ] {
            let error = identity(issuer, subject).unwrap_err();
            assert!(error.hint().is_some(), "{issuer} {subject}");
        }
    }

    #[test]
    fn roles_are_those_of_members() {
        assert_eq!(role("org_admin").unwrap(), Role::OrgAdmin);
        assert_eq!(role("administrator").unwrap_err().code(), "role_not_for_members");
        assert!(role("boss").unwrap_err().hint().unwrap().contains("`viewer`"));
    }
}
