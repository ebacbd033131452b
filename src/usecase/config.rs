//! Configuration entries, as the operator manages them: an organization's own, or those of the platform, which every
//! organization inherits.

use serde_json::{Value, json};

use super::on_record::recorded;
use super::organization::existing;
use super::{Context, Error, Result};
use crate::audit::{Event as AuditEvent, Record};
use crate::domain::OrgId;
use crate::error::Kind;
use crate::store;
use crate::store::repo::audit_log::Within;
pub use crate::store::repo::configs::ConfigEntry;
use crate::store::repo::configs::is_name;
pub use crate::store::repo::identity::Written;
use crate::tenancy::{PlatformScope, Scope, operator_in};

/// An entry to write.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEntry {
    /// Its name.
    pub name: String,
    /// Any JSON.
    pub value: Value,
    /// What it is for; what stands there stays when none is given.
    pub description: Option<String>,
}

/// An entry that holds for an organization, or for the platform.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// The entry.
    pub entry: ConfigEntry,
    /// Whether it is the platform's, seen from an organization that has none of this name.
    pub inherited: bool,
}

/// Writes an entry of an organization, or of the platform when none is given.
///
/// # Errors
/// When the name or value can't be, there is no such organization, or storage fails.
pub async fn set(
    cx: &Context,
    platform: &PlatformScope,
    org: Option<&OrgId>,
    new: NewEntry,
) -> Result<(Written, ConfigEntry)> {
    named(&new.name)?;
    let place = Place::of(cx, platform, org).await?;
    let before = place.find(cx, &new.name).await?;
    let entry = ConfigEntry {
        value: new.value,
        description: new
            .description
            .or_else(|| before.as_ref().map(|before| before.description.clone()))
            .unwrap_or_default(),
        name: new.name,
        updated_at: cx.clock.now(),
    };
    let written = match &before {
        Some(before) if before.value == entry.value && before.description == entry.description => {
            return Ok((Written::Unchanged, before.clone()));
        }
        Some(_) => Written::Changed,
        None => Written::Created,
    };
    let changes = changes(&entry.name, before.map(|before| before.value), Some(&entry.value));
    let record = || {
        place
            .record(cx, AuditEvent::ConfigChanged, &entry.name)
            .changes(&changes)
    };
    let put = async {
        match &place {
            Place::Organization(scope) => cx.configs.put(scope, &entry).await,
            Place::Platform(platform) => cx.configs.put_platform(platform, &entry).await,
        }
        .map_err(too_large)
    };
    recorded(cx, place.within(), record, put).await?;
    Ok((written, entry))
}

/// The entries that hold for an organization, its own over the platform's; or the platform's when none is given. By name.
///
/// # Errors
/// When there is no such organization, or storage fails.
pub async fn list(cx: &Context, platform: &PlatformScope, org: Option<&OrgId>) -> Result<Vec<Effective>> {
    let place = Place::of(cx, platform, org).await?;
    let mut all: Vec<_> = place.own(cx).await?.into_iter().map(|entry| (entry, false)).collect();
    if org.is_some() {
        for entry in cx.configs.list_platform(platform).await? {
            if !all.iter().any(|(own, _)| own.name == entry.name) {
                all.push((entry, true));
            }
        }
    }
    all.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    let effective = |(entry, inherited)| Effective { entry, inherited };
    Ok(all.into_iter().map(effective).collect())
}

/// The entry of this name that holds for an organization, or for the platform when none is given.
///
/// # Errors
/// When there is none, there is no such organization, or storage fails.
pub async fn get(cx: &Context, platform: &PlatformScope, org: Option<&OrgId>, name: &str) -> Result<Effective> {
    named(name)?;
    let all = list(cx, platform, org).await?;
    all.into_iter().find(|one| one.entry.name == name).ok_or_else(|| {
        Error::not_found(
            "config_not_found",
            match org {
                Some(org) => format!("neither `{org}` nor the platform has an entry `{name}`"),
                None => format!("the platform has no entry `{name}`"),
            },
            "`weft entry list` shows those that there are, with `--organization ORG` an organization's too",
        )
    })
}

/// Deletes an entry of an organization, or of the platform when none is given; whether there was one.
///
/// # Errors
/// When there is no such organization, or storage fails.
pub async fn delete(cx: &Context, platform: &PlatformScope, org: Option<&OrgId>, name: &str) -> Result<bool> {
    named(name)?;
    let place = Place::of(cx, platform, org).await?;
    let Some(before) = place.find(cx, name).await? else {
        return Ok(false);
    };
    let changes = changes(name, Some(before.value), None);
    let record = || place.record(cx, AuditEvent::ConfigDeleted, name).changes(&changes);
    let delete = async {
        Ok(match &place {
            Place::Organization(scope) => cx.configs.delete(scope, name).await?,
            Place::Platform(platform) => cx.configs.delete_platform(platform, name).await?,
        })
    };
    recorded(cx, place.within(), record, delete).await
}

/// Under the entry's own name, so that a value whose name says that it is a secret stays out of the record.
fn changes(name: &str, from: Option<Value>, to: Option<&Value>) -> Value {
    json!({name: {"from": from, "to": to}})
}

fn named(name: &str) -> Result<()> {
    if is_name(name) {
        return Ok(());
    }
    Err(Error::invalid(
        "parameter_invalid",
        format!("`{}` can't name an entry", name.chars().take(60).collect::<String>()),
        "names are 1 to 128 of letters, digits and `._-`",
        Vec::new(),
    ))
}

fn too_large(error: store::Error) -> Error {
    match error {
        error @ store::Error::TooLarge { .. } => Error::Request {
            kind: Kind::TooLarge,
            code: "too_large",
            detail: error.to_string(),
            hint: Some("an entry holds at most 32 KiB of JSON; keep more of it in several entries".into()),
            findings: Vec::new(),
        },
        error => error.into(),
    }
}

enum Place<'a> {
    Organization(Scope),
    Platform(&'a PlatformScope),
}

impl<'a> Place<'a> {
    async fn of(cx: &Context, platform: &'a PlatformScope, org: Option<&OrgId>) -> Result<Self> {
        match org {
            Some(org) => {
                existing(cx, platform, org).await?;
                Ok(Self::Organization(operator_in(platform, org)))
            }
            None => Ok(Self::Platform(platform)),
        }
    }

    async fn own(&self, cx: &Context) -> Result<Vec<ConfigEntry>> {
        Ok(match self {
            Self::Organization(scope) => cx.configs.list(scope).await?,
            Self::Platform(platform) => cx.configs.list_platform(platform).await?,
        })
    }

    async fn find(&self, cx: &Context, name: &str) -> Result<Option<ConfigEntry>> {
        Ok(self.own(cx).await?.into_iter().find(|entry| entry.name == name))
    }

    fn record(&self, cx: &Context, event: AuditEvent, name: &str) -> Record {
        match self {
            Self::Organization(scope) => cx.audit.by(scope, event),
            Self::Platform(platform) => cx.audit.by(*platform, event),
        }
        .resource("config", name)
    }

    fn within(&self) -> Within<'_> {
        match self {
            Self::Organization(scope) => scope.into(),
            Self::Platform(platform) => (*platform).into(),
        }
    }
}
