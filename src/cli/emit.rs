//! `weft emit`: files of this repository that are generated from the program. `--check` fails when one is stale.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{Failure, Outcome, output};
use crate::domain::modules;
use crate::runner::jail::seccomp::{self, Arch, Filter};
use crate::{authz, codes, config, definition, http};

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
pub fn files() -> Vec<(PathBuf, Vec<u8>)> {
    let description = serde_json::to_string_pretty(&http::openapi::description()).unwrap_or_default();
    let mut files = vec![
        (
            PathBuf::from("docs/env-vars.md"),
            config::env_var::markdown().into_bytes(),
        ),
        (
            PathBuf::from("docs/workflow.schema.json"),
            (serde_json::to_string_pretty(&definition::json_schema_of_yaml()).unwrap_or_default() + "\n").into_bytes(),
        ),
        (PathBuf::from("docs/authz-matrix.txt"), authz::matrix().into_bytes()),
        (PathBuf::from("docs/modules.md"), modules::markdown().into_bytes()),
        (PathBuf::from("docs/openapi.json"), (description + "\n").into_bytes()),
        (PathBuf::from("docs/seccomp.txt"), seccomp::listing().into_bytes()),
    ];
    files.extend(codes::ALL.iter().map(|code| {
        let path = PathBuf::from(format!("docs/errors/{}.md", code.code));
        (path, code.page().into_bytes())
    }));
    // What the runtime's own tests install in workers, and what a change of the rules changes.
    for arch in Arch::ALL {
        files.extend(Filter::ALL.map(|filter| {
            let path = PathBuf::from(format!("tests/golden/jail/{}-{}.bpf", arch.as_str(), filter.as_str()));
            (path, filter.bytes(arch))
        }));
    }
    files
}

impl Emit {
    pub(super) fn run(self) -> Outcome {
        let mut stale = 0;
        for (path, bytes) in files() {
            let path = self.root.join(path);
            if std::fs::read(&path).is_ok_and(|there| there == bytes) {
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
            std::fs::write(&path, bytes).map_err(fail)?;
            output::data(&format!("wrote {}", path.display()));
        }
        Ok(if self.check && stale > 0 {
            ExitCode::from(1)
        } else {
            ExitCode::SUCCESS
        })
    }
}
