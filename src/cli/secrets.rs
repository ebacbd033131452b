//! `weft secrets`: secrets of organizations and of the platform. Values come from a pipe or a file, never from an argument,
//! which every process of the machine could read; and no command shows one.

use std::io::{IsTerminal as _, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{Failure, Outcome, Places, block_on, output, prepare};
use crate::authz::Origin;
use crate::boot;
use crate::config::Config;
use crate::domain::{OrgId, Secret};
use crate::tenancy::{operator, operator_in};
use crate::usecase::Context;
use crate::usecase::secret::{self, Listed, WriteSecret};

/// Most bytes that are read of a value; what is too large is refused afterwards.
const READ: u64 = 1 << 20;

/// What to do with secrets.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "A workflow gets a secret by `ctx.secrets.get(\"NAME\")` when it declares it: `@workflow(secrets=[\"NAME\"])`. \
                  Secrets of the platform are for organizations only where `WEFT_SECRETS_SHARED` names them."
)]
pub(super) enum Secrets {
    /// Write a secret; its value comes from stdin, or from a file
    Set(Set),
    /// List secrets, without their values
    List(List),
    /// Delete a secret
    Delete(Delete),
    /// Seal every secret anew with the current key
    RotateKey(RotateKey),
}

/// Flags of `weft secrets set`.
#[derive(Debug, Args)]
pub(super) struct Set {
    /// Name: letters and digits with single `_` or `-` between them
    name: String,
    /// Organization that it is for; the platform when missing
    #[arg(long, short = 'o', value_name = "ORG")]
    organization: Option<OrgId>,
    /// Take the value from this file, instead of from stdin. A line end at its end is no part of it
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Host to which Weft may send it on behalf of a step, as `api.example.com`; may be repeated
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// How it is sent: `bearer`, `basic` or `header:NAME`
    #[arg(long, value_name = "HOW")]
    sent_as: Option<String>,
    /// What it is for; what stands there stays when missing
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    #[command(flatten)]
    places: Places,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Flags of `weft secrets list`.
#[derive(Debug, Args)]
pub(super) struct List {
    /// Organization whose workflows may declare them; the platform's own when missing
    #[arg(long, short = 'o', value_name = "ORG")]
    organization: Option<OrgId>,
    #[command(flatten)]
    places: Places,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Flags of `weft secrets delete`.
#[derive(Debug, Args)]
pub(super) struct Delete {
    /// Its name
    name: String,
    /// Organization whose own secret it is; the platform's when missing
    #[arg(long, short = 'o', value_name = "ORG")]
    organization: Option<OrgId>,
    #[command(flatten)]
    places: Places,
}

/// Flags of `weft secrets rotate-key`.
#[derive(Debug, Args)]
pub(super) struct RotateKey {
    /// Make a new key first, at the head of the key file
    #[arg(long)]
    new_key: bool,
    #[command(flatten)]
    places: Places,
}

impl Secrets {
    pub(super) fn run(self) -> Outcome {
        let places = match &self {
            Self::Set(command) => &command.places,
            Self::List(command) => &command.places,
            Self::Delete(command) => &command.places,
            Self::RotateKey(command) => &command.places,
        };
        let config = prepare(places)?;
        block_on(async move {
            let new_key = matches!(&self, Self::RotateKey(command) if command.new_key);
            if new_key {
                add_key(&config)?;
            }
            let base = boot::base(config)?;
            let cx = boot::opened(&base).await?;
            match self {
                Self::Set(command) => set(&cx, command).await?,
                Self::List(command) => list(&cx, &command).await?,
                Self::Delete(command) => delete(&cx, &command).await?,
                Self::RotateKey(_) => rotate_key(&cx).await?,
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

fn add_key(config: &Config) -> Result<(), Failure> {
    let Some(file) = &config.secrets.key_file else {
        return Err(Failure::new("there is no key file to which a key could be added").hint(
            "put the new key before the old one in `WEFT_SECRETS_KEY`, with a comma, and leave `--new-key` out",
        ));
    };
    boot::add_secrets_key(file)?;
    output::note(&format!(
        "added a key to {}; instances that are running read it when they need it",
        file.display()
    ));
    Ok(())
}

/// The value, without the line end that editors and `echo` put behind it.
fn value(file: Option<&PathBuf>) -> Result<Secret, Failure> {
    let mut text = String::new();
    let read = match file {
        Some(file) => std::fs::File::open(file).and_then(|file| file.take(READ).read_to_string(&mut text)),
        None => {
            if std::io::stdin().is_terminal() {
                output::note("type the value, and end it with Ctrl-D; what you type is shown");
            }
            std::io::stdin().lock().take(READ).read_to_string(&mut text)
        }
    };
    if let Err(error) = read {
        return Err(Failure::new(format!("the value can't be read: {error}")));
    }
    let end = text.strip_suffix('\n').map_or(text.len(), str::len);
    let end = text[..end].strip_suffix('\r').map_or(end, str::len);
    text.truncate(end);
    Ok(Secret::value(text))
}

async fn set(cx: &Context, command: Set) -> Result<(), Failure> {
    let new = WriteSecret {
        name: command.name,
        value: value(command.file.as_ref())?,
        hosts: (!command.hosts.is_empty()).then_some(command.hosts),
        presented: command.sent_as,
        description: command.description,
    };
    let platform = operator();
    let org = command.organization.as_ref();
    let wrote = match org {
        Some(org) => {
            existing(cx, org).await?;
            secret::put(cx, &operator_in(&platform, org), &Origin::default(), Ok(new)).await?
        }
        None => secret::put_platform(cx, &platform, new).await?,
    };
    if let Some(advice) = wrote.advice {
        output::note(&format!("warning: {advice}"));
    }
    if command.json {
        let listed = Listed {
            record: wrote.record,
            last_used_at: None,
            inherited: false,
        };
        let mut shown = shown(&listed, org);
        shown["created"] = wrote.created.into();
        output::json(&shown);
    } else {
        let verb = if wrote.created { "made" } else { "changed" };
        output::data(&format!("{verb} {} of {}", wrote.record.name, whose(org)));
    }
    Ok(())
}

async fn list(cx: &Context, command: &List) -> Result<(), Failure> {
    let platform = operator();
    let org = command.organization.as_ref();
    let all = match org {
        Some(org) => {
            existing(cx, org).await?;
            secret::list(cx, &operator_in(&platform, org)).await?
        }
        None => secret::list_platform(cx, &platform).await?,
    };
    if command.json {
        let secrets: Vec<_> = all.iter().map(|one| shown(one, org)).collect();
        output::json(&secrets);
        return Ok(());
    }
    let rows: Vec<_> = all
        .iter()
        .map(|one| {
            vec![
                one.record.name.to_string(),
                if one.inherited { "platform" } else { whose(org) }.to_owned(),
                one.record.hosts.join(" "),
                one.record.updated_at.to_string(),
                one.last_used_at.map_or_else(|| "-".to_owned(), |at| at.to_string()),
                one.record.description.clone(),
            ]
        })
        .collect();
    output::table(&["NAME", "OF", "HOSTS", "UPDATED", "LAST USED", "DESCRIPTION"], &rows);
    Ok(())
}

async fn delete(cx: &Context, command: &Delete) -> Result<(), Failure> {
    let platform = operator();
    let org = command.organization.as_ref();
    match org {
        Some(org) => {
            existing(cx, org).await?;
            secret::delete(cx, &operator_in(&platform, org), &Origin::default(), &command.name).await?;
        }
        None => secret::delete_platform(cx, &platform, &command.name).await?,
    }
    output::data(&format!("deleted {} of {}", command.name, whose(org)));
    Ok(())
}

async fn rotate_key(cx: &Context) -> Result<(), Failure> {
    let count = secret::reseal(cx, &operator()).await?;
    output::data(&format!("sealed {count} secrets anew"));
    output::note(
        "the earlier keys open nothing any more, and may be taken out, when every instance knows the current one",
    );
    Ok(())
}

async fn existing(cx: &Context, org: &OrgId) -> Result<(), Failure> {
    crate::usecase::organization::get(cx, &operator(), org).await?;
    Ok(())
}

fn whose(org: Option<&OrgId>) -> &str {
    org.map_or("the platform", OrgId::as_str)
}

/// `organization` is null for a secret of the platform.
fn shown(one: &Listed, org: Option<&OrgId>) -> Value {
    let Listed {
        record,
        last_used_at,
        inherited,
    } = one;
    json!({
        "name": record.name,
        "organization": org.filter(|_| !inherited),
        "hosts": record.hosts,
        "sentAs": record.presented.to_string(),
        "description": record.description,
        "updatedAt": record.updated_at,
        "updatedBy": record.updated_by,
        "lastUsedAt": last_used_at,
    })
}
