//! `weft keys`: function keys.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Failure, Outcome, Places, block_on, output, prepare};
use crate::authz::KeyScope;
use crate::boot;
use crate::domain::{DisplayName, KeyId, OrgId};
use crate::tenancy;
use crate::usecase::Context;
use crate::usecase::api_key::{self, Created, KeyRecord, NewKey};

/// What to do with function keys.
#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Make a key and print it, this once
    Create(Create),
    /// List keys; the keys themselves are not stored and can't be shown
    List(List),
    /// Refuse a key from now on
    Revoke(Revoke),
    /// Make a successor with the same rights; the old key stays good for a while
    Rotate(Rotate),
}

/// Flags of `weft keys create`.
#[derive(Debug, Args)]
pub(super) struct Create {
    /// Name that audit records show
    name: DisplayName,
    /// Organization that the key is for; may be given several times, none means every one
    #[arg(long = "organization", short = 'o', value_name = "ID")]
    organizations: Vec<OrgId>,
    /// What the key may do: `*`, `workflow:*`, `workflow:run`, `run:read`, …; may be given several times
    #[arg(long = "scope", short = 's', value_name = "SCOPE", required = true)]
    scopes: Vec<KeyScope>,
    /// Days until it expires; never when missing
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    expires_in_days: Option<u32>,
    #[command(flatten)]
    places: Places,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Flags of `weft keys list`.
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    places: Places,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Flags of `weft keys revoke`.
#[derive(Debug, Args)]
pub(super) struct Revoke {
    /// The key's id, from `weft keys list`
    id: KeyId,
    #[command(flatten)]
    places: Places,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Flags of `weft keys rotate`.
#[derive(Debug, Args)]
pub(super) struct Rotate {
    /// The key's id, from `weft keys list`
    id: KeyId,
    /// Hours for which the old key stays good
    #[arg(long, value_name = "HOURS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(0..=720))]
    overlap_hours: u32,
    #[command(flatten)]
    places: Places,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Keys {
    pub(super) fn run(self) -> Outcome {
        let places = match &self {
            Self::Create(command) => &command.places,
            Self::List(command) => &command.places,
            Self::Revoke(command) => &command.places,
            Self::Rotate(command) => &command.places,
        };
        let config = prepare(places)?;
        block_on(async move {
            let base = boot::base(config)?;
            let cx = boot::opened(&base).await?;
            match self {
                Self::Create(command) => create(&cx, command).await?,
                Self::List(command) => list(&cx, &command).await?,
                Self::Revoke(command) => {
                    let record = api_key::revoke(&cx, &tenancy::operator(), &command.id).await?;
                    if command.json {
                        output::json(&shown(&record, None));
                    } else {
                        output::data(&format!("revoked {} ({})", record.id, record.name));
                        output::note("instances that are running refuse it within 30 seconds");
                    }
                }
                Self::Rotate(command) => {
                    let overlap = Duration::from_secs(u64::from(command.overlap_hours) * 3600);
                    let created = api_key::rotate(&cx, &tenancy::operator(), &command.id, overlap).await?;
                    print_created(&created, command.json);
                    output::note(&format!("the old key stays good for {} hours", command.overlap_hours));
                }
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

async fn create(cx: &Context, command: Create) -> Result<(), Failure> {
    for org in &command.organizations {
        if cx
            .identities
            .get_organization(&tenancy::operator(), org)
            .await
            .map_err(crate::usecase::Error::from)?
            .is_none()
        {
            return Err(Failure::new(format!("organization `{org}` does not exist")).hint("check the id"));
        }
    }
    let lifetime = command
        .expires_in_days
        .map(|days| Duration::from_secs(u64::from(days) * 86_400));
    let new = NewKey {
        name: command.name,
        organizations: command.organizations,
        scopes: command.scopes,
        expires_at: lifetime.map(|lifetime| cx.clock.now().plus(lifetime)),
        development: false,
    };
    let created = api_key::create(cx, &tenancy::operator(), new).await?;
    print_created(&created, command.json);
    Ok(())
}

fn print_created(created: &Created, as_json: bool) {
    if as_json {
        output::json(&shown(&created.record, Some(created.secret.expose())));
    } else {
        output::data(created.secret.expose());
        output::note(&format!(
            "made key {} ({}); it is shown this once",
            created.record.id, created.record.name
        ));
    }
}

async fn list(cx: &Context, command: &List) -> Result<(), Failure> {
    let mut keys = Vec::new();
    let mut cursor = None;
    loop {
        let page = api_key::list(cx, &tenancy::operator(), 1000, cursor).await?;
        keys.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    keys.sort_by(|a, b| a.id.cmp(&b.id));
    if command.json {
        output::json(&keys.iter().map(|key| shown(key, None)).collect::<Vec<_>>());
        return Ok(());
    }
    let now = cx.clock.now();
    let rows: Vec<_> = keys
        .iter()
        .map(|key| {
            let state = if key.revoked_at.is_some() {
                "revoked"
            } else if key.expires_at.is_some_and(|at| at <= now) {
                "expired"
            } else if key.development {
                "development only"
            } else {
                "good"
            };
            let organizations: Vec<_> = key.organizations.iter().map(ToString::to_string).collect();
            let scopes: Vec<_> = key.scopes.iter().map(ToString::to_string).collect();
            vec![
                key.id.to_string(),
                key.name.to_string(),
                state.to_owned(),
                if organizations.is_empty() {
                    "every one".to_owned()
                } else {
                    organizations.join(",")
                },
                scopes.join(","),
                key.expires_at.map_or_else(|| "never".to_owned(), |at| at.to_string()),
                key.last_used_at
                    .map_or_else(|| "not yet".to_owned(), |at| at.to_string()),
            ]
        })
        .collect();
    output::table(
        &["ID", "NAME", "STATE", "ORGANIZATIONS", "SCOPES", "EXPIRES", "LAST USED"],
        &rows,
    );
    Ok(())
}

fn shown(key: &KeyRecord, secret: Option<&str>) -> Value {
    let mut value = json!({
        "id": key.id,
        "name": key.name.as_str(),
        "organizations": key.organizations,
        "scopes": key.scopes,
        "madeBy": key.made_by,
        "createdAt": key.created_at,
        "expiresAt": key.expires_at,
        "revokedAt": key.revoked_at,
        "replacedBy": key.replaced_by,
        "lastUsedAt": key.last_used_at,
        "development": key.development,
    });
    if let (Some(object), Some(secret)) = (value.as_object_mut(), secret) {
        object.insert("key".to_owned(), json!(secret));
    }
    value
}
