//! `weft user`: people, their identities and memberships.

use std::process::ExitCode;
use std::str::FromStr;

use clap::{ArgAction, Args, Subcommand};
use serde_json::{Value, json};

use super::{Failure, Outcome, Places, block_on, output, prepare};
use crate::boot;
use crate::domain::{DisplayName, Email, Identity, OrgId, UserId};
use crate::tenancy;
use crate::usecase::Context;
use crate::usecase::person::{self, NewUser, Person, Written};

/// What to do with people.
#[derive(Debug, Subcommand)]
pub(super) enum User {
    /// Make a person and print the id
    Create(Create),
    /// Show a person with identities and memberships
    Show(Show),
    /// Let a person in again
    Activate(Switch),
    /// Keep a person out from now on, whatever they are a member of
    Deactivate(Switch),
    /// As whom identity providers know a person
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// Make a person a member of an organization, or give a member another role
    Member(Member),
    /// End a person's membership of an organization
    Leave(Leave),
}

/// Flags of `weft user create`.
#[derive(Debug, Args)]
pub(super) struct Create {
    /// Name that people see
    name: DisplayName,
    /// E-mail address, which no other person has; nobody signs in by it
    #[arg(long, value_name = "EMAIL")]
    email: Option<Email>,
    /// Make the person a platform administrator, who may cross into every organization
    #[arg(long)]
    administrator: bool,
    /// Who says so, and as whom: `swa:aad USERID` behind Static Web Apps, `entra:TENANT OBJECTID` behind App Service
    /// authentication; may be given several times
    #[arg(long = "identity", value_names = ["ISSUER", "SUBJECT"], num_args = 2, action = ArgAction::Append)]
    identities: Vec<String>,
    #[command(flatten)]
    places: Places,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A person, by id or e-mail address.
#[derive(Debug, Clone)]
enum Who {
    Id(UserId),
    Email(Email),
}

impl FromStr for Who {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('@') {
            text.parse().map(Self::Email).map_err(|error| error.to_string())
        } else {
            text.parse().map(Self::Id).map_err(|error| error.to_string())
        }
    }
}

/// Flags of `weft user show`.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// The person's id or e-mail address
    #[arg(value_name = "ID|EMAIL")]
    who: Who,
    #[command(flatten)]
    places: Places,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Flags of `weft user activate` and `weft user deactivate`.
#[derive(Debug, Args)]
pub(super) struct Switch {
    /// The person's id; `weft user show EMAIL` finds it
    id: UserId,
    #[command(flatten)]
    places: Places,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What to do with identities.
#[derive(Debug, Subcommand)]
pub(super) enum IdentityCommand {
    /// Let a person come in by another identity
    Add(OneIdentity),
    /// Take an identity from a person
    Remove(OneIdentity),
}

/// Flags of `weft user identity add` and `weft user identity remove`.
#[derive(Debug, Args)]
pub(super) struct OneIdentity {
    /// The person's id; `weft user show EMAIL` finds it
    id: UserId,
    /// Who says so: `swa:aad` behind Static Web Apps, `entra:TENANT` behind App Service authentication
    issuer: String,
    /// As whom: Static Web Apps' user id, or the object id in the tenant
    subject: String,
    #[command(flatten)]
    places: Places,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Flags of `weft user member`.
#[derive(Debug, Args)]
pub(super) struct Member {
    /// The person's id; `weft user show EMAIL` finds it
    id: UserId,
    /// The organization's id, from `weft org list`
    org: OrgId,
    /// `viewer`, `user`, `manager` or `org_admin`
    role: String,
    #[command(flatten)]
    places: Places,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Flags of `weft user leave`.
#[derive(Debug, Args)]
pub(super) struct Leave {
    /// The person's id; `weft user show EMAIL` finds it
    id: UserId,
    /// The organization's id
    org: OrgId,
    #[command(flatten)]
    places: Places,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl User {
    const fn places(&self) -> &Places {
        match self {
            Self::Create(command) => &command.places,
            Self::Show(command) => &command.places,
            Self::Activate(command) | Self::Deactivate(command) => &command.places,
            Self::Identity(IdentityCommand::Add(command) | IdentityCommand::Remove(command)) => &command.places,
            Self::Member(command) => &command.places,
            Self::Leave(command) => &command.places,
        }
    }

    pub(super) fn run(self) -> Outcome {
        let config = prepare(self.places())?;
        block_on(async move {
            let base = boot::base(config)?;
            let cx = boot::opened(&base).await?;
            match self {
                Self::Create(command) => create(&cx, command).await?,
                Self::Show(command) => show(&cx, &command).await?,
                Self::Activate(command) => switch(&cx, &command, true).await?,
                Self::Deactivate(command) => switch(&cx, &command, false).await?,
                Self::Identity(IdentityCommand::Add(command)) => add_identity(&cx, &command).await?,
                Self::Identity(IdentityCommand::Remove(command)) => remove_identity(&cx, &command).await?,
                Self::Member(command) => member(&cx, &command).await?,
                Self::Leave(command) => leave(&cx, &command).await?,
            }
            Ok(ExitCode::SUCCESS)
        })
    }
}

async fn create(cx: &Context, command: Create) -> Result<(), Failure> {
    let identities = command
        .identities
        .chunks_exact(2)
        .map(|pair| person::identity(&pair[0], &pair[1]))
        .collect::<Result<Vec<Identity>, _>>()?;
    let new = NewUser {
        id: None,
        name: command.name,
        email: command.email,
        administrator: command.administrator,
    };
    let made = person::create(cx, &tenancy::operator(), new, &identities).await?;
    if command.json {
        output::json(&shown(&made));
        return Ok(());
    }
    output::data(made.user.id.as_str());
    output::note(&format!("made user {} ({})", made.user.id, made.user.name));
    if identities.is_empty() {
        output::note("nobody can sign in as this user before `weft user identity add`");
    }
    Ok(())
}

async fn show(cx: &Context, command: &Show) -> Result<(), Failure> {
    let found = match &command.who {
        Who::Id(id) => person::get(cx, &tenancy::operator(), id).await?,
        Who::Email(email) => person::by_email(cx, &tenancy::operator(), email).await?,
    };
    if command.json {
        output::json(&shown(&found));
        return Ok(());
    }
    let user = &found.user;
    output::data(&format!("id             {}", user.id));
    output::data(&format!("name           {}", user.name));
    output::data(&format!(
        "e-mail         {}",
        user.email.as_ref().map_or("-", Email::as_str)
    ));
    output::data(&format!(
        "state          {}",
        if user.active { "active" } else { "inactive" }
    ));
    output::data(&format!(
        "administrator  {}",
        if user.administrator { "yes" } else { "no" }
    ));
    output::data(&format!("created        {}", user.created_at));
    for identity in &found.identities {
        output::data(&format!("identity       {identity}"));
    }
    for one in &found.memberships {
        output::data(&format!("member of      {} as {}", one.org, one.role.as_str()));
    }
    Ok(())
}

async fn switch(cx: &Context, command: &Switch, active: bool) -> Result<(), Failure> {
    let written = person::set_active(cx, &tenancy::operator(), &command.id, active).await?;
    let changed = written != Written::Unchanged;
    if command.json {
        output::json(&json!({"id": command.id, "active": active, "changed": changed}));
        return Ok(());
    }
    let state = if active { "active" } else { "inactive" };
    let verb = if changed { "is now" } else { "was" };
    output::data(&format!("user {} {verb} {state}", command.id));
    soon(changed);
    Ok(())
}

async fn add_identity(cx: &Context, command: &OneIdentity) -> Result<(), Failure> {
    let identity = person::identity(&command.issuer, &command.subject)?;
    let written = person::add_identity(cx, &tenancy::operator(), &command.id, &identity).await?;
    let changed = written != Written::Unchanged;
    let text = if changed {
        format!("user {} can come in as {identity}", command.id)
    } else {
        format!("{identity} was user {}'s", command.id)
    };
    print_identity(command, &identity, changed, &text);
    Ok(())
}

async fn remove_identity(cx: &Context, command: &OneIdentity) -> Result<(), Failure> {
    let identity = person::identity(&command.issuer, &command.subject)?;
    let removed = person::remove_identity(cx, &tenancy::operator(), &command.id, &identity).await?;
    let text = if removed {
        format!("user {} can no longer come in as {identity}", command.id)
    } else {
        format!("{identity} was not user {}'s", command.id)
    };
    print_identity(command, &identity, removed, &text);
    Ok(())
}

fn print_identity(command: &OneIdentity, identity: &Identity, changed: bool, text: &str) {
    if command.json {
        output::json(&json!({
            "id": command.id,
            "issuer": identity.issuer(),
            "subject": identity.subject(),
            "changed": changed,
        }));
    } else {
        output::data(text);
        soon(changed);
    }
}

async fn member(cx: &Context, command: &Member) -> Result<(), Failure> {
    let role = person::role(&command.role)?;
    let written = person::set_member(cx, &tenancy::operator(), &command.id, &command.org, role).await?;
    let changed = written != Written::Unchanged;
    if command.json {
        output::json(&json!({
            "id": command.id,
            "organization": command.org,
            "role": role,
            "changed": changed,
        }));
        return Ok(());
    }
    let verb = if changed { "is now" } else { "was" };
    output::data(&format!(
        "user {} {verb} {} in {}",
        command.id,
        role.as_str(),
        command.org
    ));
    soon(changed);
    Ok(())
}

async fn leave(cx: &Context, command: &Leave) -> Result<(), Failure> {
    let removed = person::remove_member(cx, &tenancy::operator(), &command.id, &command.org).await?;
    if command.json {
        output::json(&json!({"id": command.id, "organization": command.org, "changed": removed}));
        return Ok(());
    }
    let verb = if removed { "is no longer" } else { "was not" };
    output::data(&format!("user {} {verb} a member of {}", command.id, command.org));
    soon(removed);
    Ok(())
}

fn soon(changed: bool) {
    if changed {
        output::note("instances that are running know within 5 seconds");
    }
}

fn shown(person: &Person) -> Value {
    let user = &person.user;
    let identities: Vec<_> = person
        .identities
        .iter()
        .map(|one| json!({"issuer": one.issuer(), "subject": one.subject()}))
        .collect();
    let memberships: Vec<_> = person
        .memberships
        .iter()
        .map(|one| json!({"organization": one.org, "role": one.role}))
        .collect();
    json!({
        "id": user.id,
        "name": user.name,
        "email": user.email,
        "active": user.active,
        "administrator": user.administrator,
        "createdAt": user.created_at,
        "updatedAt": user.updated_at,
        "identities": identities,
        "memberships": memberships,
    })
}
