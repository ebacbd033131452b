//! `weft emit`: files of this repository that are generated from the program. `--check` fails when one is stale.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{Failure, Outcome, output};
use crate::domain::modules;
use crate::{authz, codes, config, http};

/// Flags of `weft emit`.
#[derive(Debug, Args)]
pub(super) struct Emit {
    /// The repository
    #[arg(long, value_name = "DIR", default_value = ".")]
    root: PathBuf,
    /// Write nothing; exit with 1 when a file is not as it would be written
    #[arg(long)]
    check: bool,
}

/// Every generated file: its path, and what is in it.
#[must_use]
pub fn files() -> Vec<(PathBuf, String)> {
    let description = serde_json::to_string_pretty(&http::openapi::description()).unwrap_or_default();
    let mut files = vec![
        (PathBuf::from("docs/env-vars.md"), config::env_var::markdown()),
        (PathBuf::from("docs/authz-matrix.txt"), authz::matrix()),
        (PathBuf::from("docs/modules.md"), modules::markdown()),
        (PathBuf::from("docs/openapi.json"), description + "\n"),
    ];
    files.extend(
        codes::ALL
            .iter()
            .map(|code| (PathBuf::from(format!("docs/errors/{}.md", code.code)), code.page())),
    );
    files
}

impl Emit {
    pub(super) fn run(self) -> Outcome {
        let mut stale = 0;
        for (path, text) in files() {
            let path = self.root.join(path);
            if std::fs::read_to_string(&path).is_ok_and(|there| there == text) {
                continue;
            }
            stale += 1;
            if self.check {
                output::data(&format!("stale: {}", path.display()));
                continue;
            }
            let fail = |error: std::io::Error| Failure::new(format!("`{}` can't be written: {error}", path.display()));
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent).map_err(fail)?;
            }
            std::fs::write(&path, text).map_err(fail)?;
            output::data(&format!("wrote {}", path.display()));
        }
        Ok(if self.check && stale > 0 {
            ExitCode::from(1)
        } else {
            ExitCode::SUCCESS
        })
    }
}
