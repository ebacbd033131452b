//! `weft config show-profile`: what each security profile allows, and what holds on this machine.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::plan::profile;
use super::{Outcome, Settings, load, output};
use crate::domain::{Programs, SecurityProfile};

/// Flags of `weft config show-profile`.
#[derive(Debug, Args)]
pub(super) struct ShowProfile {
    /// `plan_only`, `restricted`, `standard` or `elevated`; all of them when missing
    #[arg(value_parser = profile)]
    name: Option<SecurityProfile>,
    #[command(flatten)]
    settings: Settings,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A figure: its name, what the profile says, what holds here, and where that comes from.
struct Figure(&'static str, Value, Value, &'static str);

impl ShowProfile {
    pub(super) fn run(self) -> Outcome {
        let config = load(&self.settings.environment())?;
        let own = config.isolation.profile;
        let limits = &config.limits;
        let figures = |profile: SecurityProfile| {
            let figures = profile.figures();
            let least = |name, profile_says: u64, installation: u64| {
                let origin = if installation < profile_says {
                    "installation"
                } else {
                    "profile"
                };
                Figure(name, json!(profile_says), json!(profile_says.min(installation)), origin)
            };
            let programs = match figures.programs {
                Programs::None => json!([]),
                Programs::Listed(names) => json!(names),
                Programs::Any => json!("any"),
            };
            vec![
                least(
                    "concurrent runs",
                    figures.concurrent_runs.into(),
                    limits.concurrent_runs.into(),
                ),
                least("seconds of a run", figures.run_seconds, limits.run_seconds),
                least(
                    "seconds of an attempt",
                    figures.step_seconds,
                    limits.attempt.wall_ms / 1_000,
                ),
                least("MiB of memory", figures.memory_mib, limits.attempt.memory_bytes >> 20),
                least("MiB of its folder", figures.disk_mib, limits.attempt.disk_bytes >> 20),
                Figure(
                    "characters of a text input",
                    json!(figures.input_chars),
                    json!(figures.input_chars),
                    "profile",
                ),
                Figure("network", json!(figures.network), json!(figures.network), "profile"),
                Figure(
                    "least isolation",
                    json!(figures.minimum),
                    json!(figures.minimum.max(config.isolation.minimum)),
                    if config.isolation.minimum > figures.minimum {
                        "installation"
                    } else {
                        "profile"
                    },
                ),
                Figure("programs", programs.clone(), programs, "profile"),
            ]
        };
        let shown: Vec<SecurityProfile> = self.name.map_or_else(|| SecurityProfile::ALL.to_vec(), |one| vec![one]);
        if self.json {
            let all: Vec<Value> = shown
                .iter()
                .map(|profile| {
                    let described = profile.figures();
                    let figures = figures(*profile).into_iter().map(|Figure(name, says, holds, origin)| {
                        json!({"name": name, "profile": says, "effective": holds, "origin": origin})
                    });
                    json!({
                        "name": profile,
                        "description": described.description,
                        "audience": described.audience,
                        "runs": *profile > SecurityProfile::PlanOnly,
                        "shell": described.programs != Programs::None,
                        "figures": figures.collect::<Vec<_>>(),
                    })
                })
                .collect();
            output::json(&json!({"installation": own, "profiles": all}));
            return Ok(ExitCode::SUCCESS);
        }
        for profile in shown {
            let described = profile.figures();
            output::data(&format!("{profile}: {}", described.description));
            output::data(&format!("for {}", described.audience));
            let text = |value: &Value| match value {
                Value::String(text) => text.clone(),
                Value::Array(items) if items.is_empty() => "none".to_owned(),
                Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" "),
                other => other.to_string(),
            };
            let (programs, others): (Vec<_>, Vec<_>) =
                figures(profile).into_iter().partition(|figure| figure.0 == "programs");
            let rows = others.into_iter().map(|Figure(name, says, holds, origin)| {
                vec![name.to_owned(), text(&says), text(&holds), origin.to_owned()]
            });
            output::table(&["FIGURE", "PROFILE", "HERE", "ORIGIN"], &rows.collect::<Vec<_>>());
            for Figure(_, says, ..) in programs {
                output::data(&format!("programs of shell steps: {}", text(&says)));
            }
            output::data("");
        }
        output::note(&format!(
            "this installation runs everything under `{own}` at most (`weft config explain security_profile`)"
        ));
        Ok(ExitCode::SUCCESS)
    }
}
