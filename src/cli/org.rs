//! `weft org`: organizations.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Failure, Outcome, Places, block_on, output, prepare};
use crate::boot;
use crate::domain::{DisplayName, OrgId, Slug};
use crate::tenancy;
use crate::usecase::Context;
use crate::usecase::organization::{self, NewOrganization, OrganizationRecord, Written};

/// What to do with organizations.
#[derive(Debug, Subcommand)]
pub(super) enum Org {
    /// Make an organization with its table and container, and print its id
    Create(Create),
    /// List organizations
    List(List),
    /// Let people and keys work in an organization again
    Activate(Switch),
    /// Refuse everybody in an organization from now on; what it has stays
    Deactivate(Switch),
}

/// Flags of `weft org create`.
#[derive(Debug, Args)]
pub(super) struct Create {
    /// Name that people see
    name: DisplayName,
    /// Id, 3 to 40 of a–z and 0–9, never to be changed or used again; generated when missing
    #[arg(long, value_name = "ID")]
    id: Option<OrgId>,
    /// Short name that no other organization has
    #[arg(long, value_name = "SLUG")]
    slug: Option<Slug>,
    #[command(flatten)]
    places: Places,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Flags of `weft org list`.
#[derive(Debug, Args)]
pub(super) struct List {
    #[command(flatten)]
    places: Places,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Flags of `weft org activate` and `weft org deactivate`.
#[derive(Debug, Args)]
pub(super) struct Switch {
    /// The organization's id, from `weft org list`
    id: OrgId,
    #[command(flatten)]
    places: Places,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Org {
    pub(super) fn run(self) -> Outcome {
        let places = match &self {
            Self::Create(command) => &command.places,
            Self::List(command) => &command.places,
            Self::Activate(command) | Self::Deactivate(command) => &command.places,
        };
        let config = prepare(places)?;
        block_on(async move {
            let base = boot::base(config)?;
            let cx = boot::opened(&base).await?;
            match self {
                Self::Create(command) => create(&cx, command).await?,
                Self::List(command) => list(&cx, &command).await?,
                Self::Activate(command) => switch(&cx, &command, true).await?,
                Self::Deactivate(command) => switch(&cx, &command, false).await?,
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

async fn create(cx: &Context, command: Create) -> Result<(), Failure> {
    let new = NewOrganization {
        id: command.id,
        name: command.name,
        slug: command.slug,
    };
    let (written, made) = organization::create(cx, &tenancy::operator(), new).await?;
    if command.json {
        output::json(&shown(&made));
    } else {
        output::data(made.id.as_str());
        output::note(&match written {
            Written::Unchanged => format!("organization {} ({}) was there", made.id, made.name),
            _ => format!("made organization {} ({})", made.id, made.name),
        });
    }
    Ok(())
}

async fn list(cx: &Context, command: &List) -> Result<(), Failure> {
    let mut organizations = Vec::new();
    let mut cursor = None;
    loop {
        let page = organization::list(cx, &tenancy::operator(), 1000, cursor).await?;
        organizations.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    if command.json {
        output::json(&organizations.iter().map(shown).collect::<Vec<_>>());
        return Ok(());
    }
    let rows: Vec<_> = organizations
        .iter()
        .map(|one| {
            vec![
                one.id.to_string(),
                one.name.to_string(),
                one.slug.as_ref().map_or("-", Slug::as_str).to_owned(),
                if one.active { "active" } else { "inactive" }.to_owned(),
                one.created_at.to_string(),
            ]
        })
        .collect();
    output::table(&["ID", "NAME", "SLUG", "STATE", "CREATED"], &rows);
    Ok(())
}

async fn switch(cx: &Context, command: &Switch, active: bool) -> Result<(), Failure> {
    let written = organization::set_active(cx, &tenancy::operator(), &command.id, active).await?;
    let changed = written != Written::Unchanged;
    if command.json {
        output::json(&json!({"id": command.id, "active": active, "changed": changed}));
        return Ok(());
    }
    let state = if active { "active" } else { "inactive" };
    if changed {
        output::data(&format!("organization {} is now {state}", command.id));
        output::note("instances that are running know within 5 seconds");
    } else {
        output::data(&format!("organization {} was {state}", command.id));
    }
    Ok(())
}

fn shown(one: &OrganizationRecord) -> Value {
    json!({
        "id": one.id,
        "name": one.name,
        "slug": one.slug,
        "active": one.active,
        "createdAt": one.created_at,
        "updatedAt": one.updated_at,
    })
}
