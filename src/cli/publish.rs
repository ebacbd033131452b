//! `weft publish`: a workspace as a bundle, in this installation or another, and active there if that is wanted.

use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use super::site::{At, Site};
use super::{Failure, Outcome, block_on, output};
use crate::config::Config;
use crate::domain::BundleDigest;
use crate::runner::archive;
use crate::runner::bundle::{self, BundleError, Files};

/// Flags of `weft publish`.
#[derive(Debug, Args)]
#[command(
    after_help = "Left out: hidden files, caches, `tests`, what usually holds credentials (`local.settings.json`, `.env`, keys), \
                  and what `.weftignore` in the workspace names, as git's `.gitignore` does. docs/bundles.md says more."
)]
pub(super) struct Publish {
    /// Let new runs take it at once, if nothing is wrong with it
    #[arg(long, conflicts_with = "dry_run")]
    activate: bool,
    /// Let it become active even if it declares no workflow
    #[arg(long, requires = "activate")]
    allow_empty: bool,
    /// What to remember of it, as the commit that it is made of
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// Only say what it would be: its digest and its files
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    at: At,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Publish {
    pub(super) fn run(self) -> Outcome {
        let config = self.at.config()?;
        block_on(self.work(config))
    }

    async fn work(self, config: Config) -> Outcome {
        let folder = config.runner.workspace_dir.clone();
        let shown = folder.display().to_string();
        let unreadable =
            |error: BundleError| Failure::new(output::chain(&error)).hint("name another folder with `--workspace`");
        let files = Files::of_workspace(&folder).map_err(unreadable)?;
        let mut findings = bundle::no_files(&folder).map_err(unreadable)?;
        findings.extend(archive::faults(&files));
        if !findings.is_empty() {
            let mut failure = Failure::new(format!("`{shown}` can't be a bundle: {} finding(s)", findings.len()));
            failure.findings = findings;
            return Err(failure);
        }
        let digest = files.digest();
        if self.dry_run {
            self.tell_files(&digest, &files);
            return Ok(ExitCode::SUCCESS);
        }
        let packed =
            archive::pack(&files).map_err(|error| Failure::new(format!("`{shown}` can't be packed: {error}")))?;
        output::progress(&format!("publishing {} files, {} bytes", files.len(), packed.len()));
        let site = Site::open(config).await?;
        let done = Box::pin(self.send(&site, &digest, packed)).await;
        output::progress_done();
        let name = site.name();
        site.close().await;
        let (bundle, is_new, activation) = done?;
        if self.json {
            output::json(&json!({"bundle": bundle, "new": is_new, "activation": activation}));
        } else {
            output::data(&digest.to_string());
            let word = if is_new { "published" } else { "was published already" };
            output::note(&format!("{} files of {shown} {word} in {name}", files.len()));
            match activation {
                Some(activation) => {
                    super::bundles::noticed(&activation);
                    output::note(&format!(
                        "active as number {}; instances that are running take it within half a minute",
                        activation["history"][0]["activation"]
                    ));
                }
                None => output::note(&format!(
                    "new runs take it after `weft bundles activate {}`",
                    &digest.hex()[..12]
                )),
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn send(
        &self,
        site: &Site,
        digest: &BundleDigest,
        packed: Vec<u8>,
    ) -> Result<(Value, bool, Option<Value>), Failure> {
        let (bundle, is_new) = site.publish(packed, self.note.as_deref()).await?;
        if bundle["digest"] != json!(digest) {
            let said = bundle["digest"].as_str().unwrap_or_default().to_owned();
            return Err(
                Failure::new(format!("the bundle came out as `{said}`, and is `{digest}` here"))
                    .hint("the installation may leave out other files: use the same release of Weft on both sides"),
            );
        }
        let activation = if self.activate {
            output::progress("activating");
            Some(site.activate(Some(digest), self.allow_empty).await?)
        } else {
            None
        };
        Ok((bundle, is_new, activation))
    }

    fn tell_files(&self, digest: &BundleDigest, files: &Files) {
        if self.json {
            let files: Vec<_> = files
                .iter()
                .map(|(path, content)| json!({"path": path, "bytes": content.len()}))
                .collect();
            output::json(&json!({"digest": digest, "contents": files}));
            return;
        }
        output::data(&digest.to_string());
        for (path, content) in files.iter() {
            output::note(&format!("  {path} ({} bytes)", content.len()));
        }
        output::note(&format!(
            "{} files, {} bytes; nothing was published",
            files.len(),
            files.bytes()
        ));
    }
}
