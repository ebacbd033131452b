//! `weft policy`: what steps are allowed to do, by organizations and by the platform.

use std::io::Read as _;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::{Failure, Outcome, Places, block_on, output, prepare};
use crate::authz::Origin;
use crate::boot;
use crate::domain::{Limits, Network, OrgId, Rights};
use crate::tenancy;
use crate::usecase::Context;
use crate::usecase::policy::{self, Change, Effective, LimitCeilings, Policy, StoredPolicy, Written};

/// What to do with policies.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "A policy is a ceiling of what steps may do: trust, network, modules, isolation, limits. A step may do what its \
                  code declares, below the policy of its organization and that of the platform. docs/policies.md describes \
                  every member."
)]
pub(super) enum PolicyCommand {
    /// Print the policy of the platform, or of an organization
    Show(Show),
    /// Replace or change the policy of the platform, or of an organization
    Set(Set),
    /// Print what a workflow would be allowed in an organization, and why; exits with 1 when it would not be started
    Explain(Explain),
}

/// Flags of `weft policy show`.
#[derive(Debug, Args)]
pub(super) struct Show {
    /// Organization whose policy it is; the platform's when missing
    #[arg(long, short = 'o', value_name = "ORG")]
    organization: Option<OrgId>,
    #[command(flatten)]
    places: Places,
    /// Print the policy as JSON, as `weft policy set` reads it
    #[arg(long)]
    json: bool,
}

/// Flags of `weft policy set`.
#[derive(Debug, Args)]
pub(super) struct Set {
    /// File with the whole policy as JSON; `-` reads it from stdin. Without one, the flags change the policy that there is
    #[arg(value_name = "FILE", conflicts_with_all = ["allow_domain", "remove_domain", "grant_open", "withdraw_open"])]
    file: Option<String>,
    /// Organization whose policy it is; the platform's when missing
    #[arg(long, short = 'o', value_name = "ORG")]
    organization: Option<OrgId>,
    /// Let a host be declared: `api.example.com`, `*.example.com`, `api.example.com:8443`, or `*` for any. May be repeated
    #[arg(long, value_name = "HOST")]
    allow_domain: Vec<String>,
    /// Let a host no longer be declared. May be repeated
    #[arg(long, value_name = "HOST")]
    remove_domain: Vec<String>,
    /// Let `*` be declared: the whole public network
    #[arg(long, conflicts_with = "withdraw_open")]
    grant_open: bool,
    /// No longer let `*` be declared
    #[arg(long)]
    withdraw_open: bool,
    #[command(flatten)]
    places: Places,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Flags of `weft policy explain`.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The workflow; without one, code that declares nothing
    workflow: Option<String>,
    /// Organization in which it would run
    #[arg(long, short = 'o', value_name = "ORG")]
    organization: OrgId,
    #[command(flatten)]
    places: Places,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl PolicyCommand {
    pub(super) fn run(self) -> Outcome {
        let places = match &self {
            Self::Show(command) => &command.places,
            Self::Set(command) => &command.places,
            Self::Explain(command) => &command.places,
        };
        let config = prepare(places)?;
        block_on(async move {
            let base = boot::base(config)?;
            let cx = boot::opened(&base).await?;
            let done = match self {
                Self::Show(command) => show(&cx, &command).await,
                Self::Set(command) => set(&cx, &command).await,
                Self::Explain(command) => explain(&cx, &command).await,
            };
            base.runner.shutdown().await;
            done
        })
    }
}

async fn stored(cx: &Context, organization: Option<&OrgId>) -> Result<StoredPolicy, Failure> {
    let platform = tenancy::operator();
    Ok(match organization {
        None => policy::platform(cx, &platform).await?,
        Some(org) => policy::organization(cx, &policy::operator_scope(cx, &platform, org).await?).await?,
    })
}

async fn show(cx: &Context, command: &Show) -> Outcome {
    let stored = stored(cx, command.organization.as_ref()).await?;
    if command.json {
        output::json(&stored.policy);
    } else {
        print(&stored.policy);
        match stored.updated_at {
            Some(at) => output::note(&format!("written {at}")),
            None => output::note("nobody has written one: this is what holds then"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn set(cx: &Context, command: &Set) -> Outcome {
    let org = command.organization.as_ref();
    let change = match &command.file {
        Some(file) => Change {
            written: read(file)?,
            if_tag: None,
        },
        None => changed_by_flags(&stored(cx, org).await?, command)?,
    };
    let (platform, origin) = (tenancy::operator(), Origin::default());
    let (written, stored) = match org {
        None => policy::put_platform(cx, &platform, &origin, &change).await?,
        Some(org) => {
            let scope = policy::operator_scope(cx, &platform, org).await?;
            policy::put_organization(cx, &scope, &origin, &change).await?
        }
    };
    let changed = written != Written::Unchanged;
    if command.json {
        output::json(&json!({"policy": stored.policy, "organization": org, "changed": changed}));
    } else {
        print(&stored.policy);
        output::note(if changed {
            "instances that are running know within 30 seconds"
        } else {
            "it was so already"
        });
    }
    Ok(ExitCode::SUCCESS)
}

fn read(file: &str) -> Result<Map<String, Value>, Failure> {
    let mut text = String::new();
    if file == "-" {
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(|error| Failure::new(format!("stdin can't be read: {error}")))?;
    } else {
        text =
            std::fs::read_to_string(file).map_err(|error| Failure::new(format!("`{file}` can't be read: {error}")))?;
    }
    match serde_json::from_str(&text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Failure::new("the policy is not a JSON object").hint("`weft policy show --json` prints one")),
        Err(error) => Err(Failure::new(format!("the policy is not JSON: {error}"))),
    }
}

/// The policy that there is with what the flags change, to replace just that one.
fn changed_by_flags(stored: &StoredPolicy, command: &Set) -> Result<Change, Failure> {
    if command.allow_domain.is_empty()
        && command.remove_domain.is_empty()
        && !command.grant_open
        && !command.withdraw_open
    {
        return Err(Failure::new("nothing says what to change")
            .hint("name a file with the whole policy, or `-` for stdin; `--allow-domain`, `--grant-open` and others change one thing"));
    }
    let mut policy = stored.policy.clone();
    let network = &mut policy.network;
    for host in &command.remove_domain {
        let host = host.to_ascii_lowercase();
        if !network.domains.contains(&host) {
            let there = network.domains.join(", ");
            return Err(Failure::new(format!("the policy has no domain `{host}`")).hint(format!("it has {there}")));
        }
        network.domains.retain(|domain| *domain != host);
    }
    network.domains.extend(command.allow_domain.iter().cloned());
    network.open_granted = (network.open_granted || command.grant_open) && !command.withdraw_open;
    match serde_json::to_value(&policy) {
        Ok(Value::Object(written)) => Ok(Change {
            written,
            if_tag: Some(stored.tag()),
        }),
        _ => Err(Failure::new("the policy can't be written as JSON")),
    }
}

fn print(policy: &Policy) {
    let some = |list: &[String], none: &str| {
        if list.is_empty() {
            none.to_owned()
        } else {
            list.join(", ")
        }
    };
    let network = &policy.network;
    let limits = serde_json::to_value(&policy.limits).unwrap_or_default();
    let limits: Vec<_> = LimitCeilings::NAMES
        .iter()
        .filter_map(|name| Some(format!("{name} {}", limits.get(*name)?)))
        .collect();
    let rows = [
        ("trust", policy.trust.as_str().to_owned()),
        ("network.mode", network.mode.as_str().to_owned()),
        ("network.domains", some(&network.domains, "none")),
        ("network.openGranted", network.open_granted.to_string()),
        (
            "modules.allow",
            policy
                .modules
                .allow
                .as_ref()
                .map_or_else(|| "whatever is installed".to_owned(), |list| some(list, "none")),
        ),
        ("modules.deny", some(&policy.modules.deny, "none")),
        (
            "restrictedModules",
            policy
                .restricted_modules
                .as_ref()
                .map_or_else(|| "default".to_owned(), |list| some(list, "none")),
        ),
        ("minimum", policy.minimum.as_str().to_owned()),
        ("limits", some(&limits, "none")),
    ];
    output::table(
        &["MEMBER", "CEILING"],
        &rows.map(|(name, value)| vec![name.to_owned(), value]),
    );
}

async fn explain(cx: &Context, command: &Explain) -> Outcome {
    let scope = policy::operator_scope(cx, &tenancy::operator(), &command.organization).await?;
    let effective = policy::effective(cx, &scope, command.workflow.as_deref()).await?;
    if command.json {
        output::json(&as_json(&effective, &command.organization));
    } else {
        let (declared, allowed) = (&effective.declared, &effective.allowed);
        let mut rows = rows(&declared.0, &declared.1);
        for (row, (_, value)) in rows.iter_mut().zip(rows_of(&allowed.rights, &allowed.limits)) {
            row.push(value);
        }
        output::table(&["", "DECLARED", "ALLOWED"], &rows);
        for reason in &allowed.reasons {
            let word = if reason.refused { "refused" } else { "lowered" };
            output::data(&format!("{word}: {}", reason.message));
            output::note(&format!("  hint: {}", reason.remedy));
        }
    }
    Ok(if effective.startable() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

fn rows(rights: &Rights, limits: &Limits) -> Vec<Vec<String>> {
    rows_of(rights, limits)
        .into_iter()
        .map(|(name, value)| vec![name, value])
        .collect()
}

fn rows_of(rights: &Rights, limits: &Limits) -> Vec<(String, String)> {
    let network = match &rights.network {
        Network::Allowlist(hosts) => hosts.join(", "),
        other => other.mode().to_owned(),
    };
    let modules = match (&rights.modules.allow, rights.modules.deny.len()) {
        (None, 0) => "whatever is installed".to_owned(),
        (None, denied) => format!("whatever is installed but {denied}"),
        (Some(list), 0) => format!("{} names", list.len()),
        (Some(list), denied) => format!("{} names but {denied}", list.len()),
    };
    let mut rows = vec![
        ("trust".to_owned(), rights.trust.as_str().to_owned()),
        ("network".to_owned(), network),
        ("modules".to_owned(), modules),
        ("minimum".to_owned(), rights.minimum.as_str().to_owned()),
    ];
    let limits = serde_json::to_value(limits).unwrap_or_default();
    rows.extend(
        LimitCeilings::NAMES
            .iter()
            .map(|name| ((*name).to_owned(), limits[*name].to_string())),
    );
    rows
}

fn as_json(effective: &Effective, org: &OrgId) -> Value {
    let reasons: Vec<_> = effective
        .allowed
        .reasons
        .iter()
        .map(|reason| {
            json!({
                "policy": reason.holder.kind(),
                "subject": reason.subject,
                "code": reason.code,
                "refused": reason.refused,
                "message": reason.message,
                "hint": reason.remedy,
            })
        })
        .collect();
    json!({
        "organization": org,
        "workflow": effective.workflow,
        "startable": effective.startable(),
        "declared": {"rights": effective.declared.0, "limits": effective.declared.1},
        "allowed": {"rights": effective.allowed.rights, "limits": effective.allowed.limits},
        "reasons": reasons,
    })
}
