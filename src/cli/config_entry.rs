//! `weft entry`: configuration entries of organizations and of the platform. Settings of Weft itself are `weft config`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Failure, Outcome, Places, block_on, output, prepare};
use crate::boot;
use crate::domain::OrgId;
use crate::tenancy;
use crate::usecase::Context;
use crate::usecase::config::{self, ConfigEntry, NewEntry, Written};

/// What to do with configuration entries.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Workflows read entries as `ctx.config`: an organization's own, over those of the platform, which every \
                  organization inherits. They are no place for secrets: values are stored, shown and recorded readable. \
                  Settings of Weft itself come from the environment; `weft config explain` shows them."
)]
pub(super) enum Entry {
    /// Write an entry
    Set(Set),
    /// Print an entry's value as JSON
    Get(Get),
    /// List entries; with `--organization` those that it inherits too
    List(List),
    /// Delete an entry
    Delete(Delete),
}

/// Flags of `weft entry set`.
#[derive(Debug, Args)]
pub(super) struct Set {
    /// Name: letters, digits and `._-`
    name: String,
    /// JSON (`25`, `true`, `["a", "b"]`), or a word that is none, which is taken as text
    #[arg(allow_negative_numbers = true)]
    value: String,
    /// Take the value as text, whatever it looks like
    #[arg(long)]
    text: bool,
    /// What it is for; what stands there stays when missing
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Organization that it is for; every one inherits it when missing
    #[arg(long, short = 'o', value_name = "ORG")]
    organization: Option<OrgId>,
    #[command(flatten)]
    places: Places,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Flags of `weft entry get`.
#[derive(Debug, Args)]
pub(super) struct Get {
    /// Its name
    name: String,
    /// Organization for which it holds, inherited or not; the platform's own entry when missing
    #[arg(long, short = 'o', value_name = "ORG")]
    organization: Option<OrgId>,
    #[command(flatten)]
    places: Places,
    /// Print the whole entry as JSON
    #[arg(long)]
    json: bool,
}

/// Flags of `weft entry list`.
#[derive(Debug, Args)]
pub(super) struct List {
    /// Organization for which they hold, inherited or not; the platform's own entries when missing
    #[arg(long, short = 'o', value_name = "ORG")]
    organization: Option<OrgId>,
    #[command(flatten)]
    places: Places,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Flags of `weft entry delete`.
#[derive(Debug, Args)]
pub(super) struct Delete {
    /// Its name
    name: String,
    /// Organization whose own entry it is; the platform's when missing
    #[arg(long, short = 'o', value_name = "ORG")]
    organization: Option<OrgId>,
    #[command(flatten)]
    places: Places,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Entry {
    pub(super) fn run(self) -> Outcome {
        let places = match &self {
            Self::Set(command) => &command.places,
            Self::Get(command) => &command.places,
            Self::List(command) => &command.places,
            Self::Delete(command) => &command.places,
        };
        let config = prepare(places)?;
        block_on(async move {
            let base = boot::base(config)?;
            let cx = boot::opened(&base).await?;
            match self {
                Self::Set(command) => set(&cx, command).await?,
                Self::Get(command) => get(&cx, &command).await?,
                Self::List(command) => list(&cx, &command).await?,
                Self::Delete(command) => delete(&cx, &command).await?,
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

async fn set(cx: &Context, command: Set) -> Result<(), Failure> {
    let value = value_of(command.value, command.text)?;
    let org = command.organization.as_ref();
    let new = NewEntry {
        name: command.name,
        value,
        description: command.description,
    };
    let (written, entry) = config::set(cx, &tenancy::operator(), org, new).await?;
    let changed = written != Written::Unchanged;
    if command.json {
        let mut value = shown(&entry, org);
        value["changed"] = changed.into();
        output::json(&value);
        return Ok(());
    }
    let verb = if changed { "is now" } else { "was" };
    output::data(&format!("{} {verb} {} for {}", entry.name, entry.value, whose(org)));
    soon(changed);
    Ok(())
}

/// What begins like JSON and is none is a mistake, and no text.
fn value_of(text: String, as_text: bool) -> Result<Value, Failure> {
    if as_text {
        return Ok(Value::String(text));
    }
    match serde_json::from_str(&text) {
        Ok(value) => Ok(value),
        Err(error) if text.trim_start().starts_with(['{', '[', '"']) => {
            Err(Failure::new(format!("the value is not JSON: {error}"))
                .hint("mend it, or add `--text` to store it as text"))
        }
        Err(_) => Ok(Value::String(text)),
    }
}

async fn get(cx: &Context, command: &Get) -> Result<(), Failure> {
    let org = command.organization.as_ref();
    let found = config::get(cx, &tenancy::operator(), org, &command.name).await?;
    if command.json {
        output::json(&shown(&found.entry, org.filter(|_| !found.inherited)));
    } else {
        output::data(&found.entry.value.to_string());
    }
    Ok(())
}

async fn list(cx: &Context, command: &List) -> Result<(), Failure> {
    let org = command.organization.as_ref();
    let all = config::list(cx, &tenancy::operator(), org).await?;
    let from = |inherited: bool| org.filter(|_| !inherited);
    if command.json {
        let entries: Vec<_> = all.iter().map(|one| shown(&one.entry, from(one.inherited))).collect();
        output::json(&entries);
        return Ok(());
    }
    let rows: Vec<_> = all
        .iter()
        .map(|one| {
            let value = one.entry.value.to_string();
            vec![
                one.entry.name.clone(),
                if value.chars().count() > 60 {
                    value.chars().take(59).chain(['…']).collect()
                } else {
                    value
                },
                from(one.inherited).map_or("platform", OrgId::as_str).to_owned(),
                one.entry.description.clone(),
            ]
        })
        .collect();
    output::table(&["NAME", "VALUE", "FROM", "DESCRIPTION"], &rows);
    Ok(())
}

async fn delete(cx: &Context, command: &Delete) -> Result<(), Failure> {
    let org = command.organization.as_ref();
    let deleted = config::delete(cx, &tenancy::operator(), org, &command.name).await?;
    if command.json {
        output::json(&json!({"name": command.name, "organization": org, "changed": deleted}));
        return Ok(());
    }
    if deleted {
        output::data(&format!("deleted {} of {}", command.name, whose(org)));
    } else {
        output::data(&format!("there was no {} of {}", command.name, whose(org)));
    }
    soon(deleted);
    Ok(())
}

fn whose(org: Option<&OrgId>) -> &str {
    org.map_or("the platform", OrgId::as_str)
}

fn soon(changed: bool) {
    if changed {
        output::note("instances that are running know within 5 seconds");
    }
}

/// `organization` is null for an entry of the platform.
fn shown(entry: &ConfigEntry, org: Option<&OrgId>) -> Value {
    json!({
        "name": entry.name,
        "value": entry.value,
        "description": entry.description,
        "organization": org,
        "updatedAt": entry.updated_at,
    })
}
