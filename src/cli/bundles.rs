//! `weft bundles`: published code, and which of it runs.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::site::{At, Site};
use super::{Failure, Outcome, block_on, output};
use crate::usecase::bundle::Side;

/// What to do with published code.
#[derive(Debug, Subcommand)]
#[command(
    after_help = "A bundle is named by its digest, or by the beginning of it that no other has. `folder` is the workspace that was \
                  deployed with the program."
)]
pub(super) enum Bundles {
    /// List what was published, newest first
    List(Plain),
    /// Show one bundle with its files
    Show(One),
    /// Show what is active, and what was
    History(Plain),
    /// Let new runs take a bundle; `folder` for the deployed workspace
    Activate(Activate),
    /// Bring back what was active before; twice goes back two activations
    Rollback(Plain),
    /// Show which files of a bundle differ from those of another
    Diff(DiffFlags),
    /// Delete the oldest, but none that is active or that a kept run is pinned to
    Prune(Prune),
    /// Delete one, under the same conditions
    Delete(One),
}

/// Flags without anything else.
#[derive(Debug, Args)]
pub(super) struct Plain {
    #[command(flatten)]
    at: At,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Flags about one bundle.
#[derive(Debug, Args)]
pub(super) struct One {
    /// The bundle
    bundle: String,
    #[command(flatten)]
    plain: Plain,
}

/// Flags of `weft bundles activate`.
#[derive(Debug, Args)]
pub(super) struct Activate {
    #[command(flatten)]
    one: One,
    /// Let it become active even if it declares no workflow
    #[arg(long)]
    allow_empty: bool,
}

/// Flags of `weft bundles diff`.
#[derive(Debug, Args)]
pub(super) struct DiffFlags {
    /// The bundle
    bundle: String,
    /// With what it is compared: `active`, `folder`, or another bundle
    #[arg(long, value_name = "BUNDLE", default_value = "active")]
    against: String,
    #[command(flatten)]
    plain: Plain,
}

/// Flags of `weft bundles prune`.
#[derive(Debug, Args)]
pub(super) struct Prune {
    /// How many of those that were published or active last stay
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    keep: usize,
    /// Only say what would be deleted
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    plain: Plain,
}

impl Bundles {
    pub(super) fn run(self) -> Outcome {
        let plain = match &self {
            Self::List(plain) | Self::History(plain) | Self::Rollback(plain) => plain,
            Self::Show(one) | Self::Delete(one) => &one.plain,
            Self::Activate(activate) => &activate.one.plain,
            Self::Diff(diff) => &diff.plain,
            Self::Prune(prune) => &prune.plain,
        };
        let (config, as_json) = (plain.at.config()?, plain.json);
        block_on(async move {
            let site = Site::open(config).await?;
            let done = Box::pin(self.ask(&site)).await;
            site.close().await;
            let answer = done?;
            if as_json {
                output::json(&answer);
            } else {
                self.print(&answer);
            }
            Ok(ExitCode::SUCCESS)
        })
    }

    async fn ask(&self, site: &Site) -> Result<Value, Failure> {
        match self {
            Self::List(_) => site.list().await,
            Self::Show(one) => site.get(&site.find(&one.bundle).await?).await,
            Self::History(_) => site.active().await,
            Self::Activate(Activate { one, .. }) if one.bundle == "folder" => site.activate(None, true).await,
            Self::Activate(Activate { one, allow_empty }) => {
                site.activate(Some(&site.find(&one.bundle).await?), *allow_empty).await
            }
            Self::Rollback(_) => site.rollback().await,
            Self::Diff(diff) => {
                let against = match diff.against.as_str() {
                    "active" => Side::Active,
                    "folder" => Side::Folder,
                    other => Side::Bundle(site.find(other).await?),
                };
                site.diff(&site.find(&diff.bundle).await?, &against).await
            }
            Self::Prune(prune) => site.prune(prune.keep, prune.dry_run).await,
            Self::Delete(one) => {
                let digest = site.find(&one.bundle).await?;
                site.delete(&digest).await?;
                Ok(serde_json::json!({"deleted": [digest], "kept": []}))
            }
        }
    }

    fn print(&self, answer: &Value) {
        match self {
            Self::List(_) => list(answer),
            Self::Show(_) => show(answer),
            Self::History(_) => {
                history(answer);
                if answer["history"].as_array().is_none_or(Vec::is_empty) {
                    output::note("nothing was ever activated: the deployed folder runs");
                }
            }
            Self::Activate(_) | Self::Rollback(_) => {
                output::data(answer["digest"].as_str().unwrap_or("folder"));
                noticed(answer);
                output::note(&format!(
                    "active as number {}; instances that are running take it within half a minute",
                    answer["history"][0]["activation"]
                ));
            }
            Self::Diff(_) => differences(answer),
            Self::Prune(prune) => pruned(answer, prune.dry_run),
            Self::Delete(_) => pruned(answer, false),
        }
    }
}

/// What was noticed of code that became active.
pub(super) fn noticed(answer: &Value) {
    for finding in answer["noticed"].as_array().into_iter().flatten() {
        let (pointer, message) = (text(&finding["pointer"]), text(&finding["message"]));
        output::note(&format!("warning: {pointer}: {message}"));
    }
}

/// A text of the answer, as one line of a terminal may show it.
fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => output::plain(text),
        other => other.to_string(),
    }
}

fn items<'a>(answer: &'a Value, member: &str) -> impl Iterator<Item = &'a Value> {
    answer[member].as_array().into_iter().flatten()
}

fn list(answer: &Value) {
    let rows: Vec<_> = items(answer, "items")
        .map(|item| {
            let state = match (item["active"] == true, item["trusted"] == true) {
                (true, _) => "active",
                (false, true) => "",
                (false, false) => "untrusted",
            };
            vec![
                short(&item["digest"]),
                state.to_owned(),
                text(&item["files"]),
                text(&item["bytes"]),
                text(&item["publishedAt"]),
                text(&item["publishedBy"]),
                text(&item["note"]),
            ]
        })
        .collect();
    output::table(&["BUNDLE", "", "FILES", "BYTES", "PUBLISHED", "BY", "NOTE"], &rows);
    if rows.is_empty() {
        output::note("nothing is published: `weft publish`");
    }
}

/// Enough of a digest to be told from others.
fn short(digest: &Value) -> String {
    let text = text(digest);
    let hex = text.strip_prefix("sha256:").unwrap_or(&text);
    hex.chars().take(12).collect()
}

fn show(answer: &Value) {
    output::data(&text(&answer["digest"]));
    for member in ["active", "publishedAt", "publishedBy", "note", "activatedAt", "trusted"] {
        output::note(&format!("{member}: {}", text(&answer[member])));
    }
    let rows: Vec<_> = items(answer, "contents")
        .map(|file| vec![text(&file["path"]), text(&file["bytes"]), short(&file["sha256"])])
        .collect();
    output::table(&["FILE", "BYTES", "SHA-256"], &rows);
}

fn history(answer: &Value) {
    let rows: Vec<_> = items(answer, "history")
        .map(|entry| {
            let digest = if entry["digest"].is_null() {
                "folder".to_owned()
            } else {
                short(&entry["digest"])
            };
            vec![
                text(&entry["activation"]),
                digest,
                text(&entry["act"]),
                text(&entry["at"]),
                text(&entry["by"]),
            ]
        })
        .collect();
    output::table(&["NUMBER", "BUNDLE", "ACT", "AT", "BY"], &rows);
}

fn differences(answer: &Value) {
    let mut count = 0;
    for (member, mark) in [("added", '+'), ("removed", '-'), ("changed", '~')] {
        for file in items(answer, member) {
            count += 1;
            output::data(&format!("{mark} {}", text(&file["path"])));
        }
    }
    if answer["cut"] == true {
        output::note("there are more than are shown");
    }
    if count == 0 {
        output::note("they are the same");
    }
}

fn pruned(answer: &Value, dry_run: bool) {
    for digest in items(answer, "deleted") {
        output::data(&text(digest));
    }
    let word = if dry_run { "would be deleted" } else { "deleted" };
    output::note(&format!("{} {word}", items(answer, "deleted").count()));
    for kept in items(answer, "kept") {
        output::note(&format!("{} stays: {}", short(&kept["digest"]), text(&kept["reason"])));
    }
}
