//! `weft new`: the first files of a workflow, a node or a data provider, with a test of them.
//!
//! What is written passes `weft check`, the linter and strict type checks as it stands. Nothing that is there is changed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failure, Outcome, Places, block_on, load, output, quiet};
use crate::boot;

/// Longest name. A declaration may have more; the lines that are written here would break.
const LONGEST: usize = 40;
/// Words that no function can be called.
const KEYWORDS: [&str; 35] = [
    "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del", "elif", "else", "except",
    "false", "finally", "for", "from", "global", "if", "import", "in", "is", "lambda", "none", "nonlocal", "not", "or",
    "pass", "raise", "return", "true", "try", "while", "with", "yield",
];
/// Names that the files themselves use.
const USED: [&str; 14] = [
    "data_provider",
    "dict",
    "len",
    "list",
    "name",
    "names",
    "node",
    "param",
    "prefix",
    "run",
    "sorted",
    "str",
    "text",
    "workflow",
];

/// What to write.
#[derive(Debug, Subcommand)]
pub(super) enum New {
    /// A Python workflow: `workflows/NAME.py`
    Workflow(Named),
    /// A box of the graph editor: `nodes/NAME.py`
    Node(Named),
    /// Options of a form field: `data_providers/NAME.py`
    DataProvider(Named),
}

/// Flags of all of them.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 the files are written; 1 nothing is written; 2 wrong usage.")]
pub(super) struct Named {
    /// Small letters, digits, `_` and `-`, a letter first, at most 40
    name: String,
    #[command(flatten)]
    places: Places,
    /// Print what was written as JSON
    #[arg(long)]
    json: bool,
}

/// One kind of declaration.
struct Kind {
    name: &'static str,
    folder: &'static str,
    code: &'static str,
    test: &'static str,
}

const WORKFLOW: Kind = Kind {
    name: "workflow",
    folder: "workflows",
    code: include_str!("templates/workflow.py.txt"),
    test: include_str!("templates/workflow_test.py.txt"),
};
const NODE: Kind = Kind {
    name: "node",
    folder: "nodes",
    code: include_str!("templates/node.py.txt"),
    test: include_str!("templates/node_test.py.txt"),
};
const DATA_PROVIDER: Kind = Kind {
    name: "data provider",
    folder: "data_providers",
    code: include_str!("templates/data_provider.py.txt"),
    test: include_str!("templates/data_provider_test.py.txt"),
};

impl New {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Workflow(named) => named.write(&WORKFLOW),
            Self::Node(named) => named.write(&NODE),
            Self::DataProvider(named) => named.write(&DATA_PROVIDER),
        }
    }
}

impl Named {
    fn write(self, kind: &Kind) -> Outcome {
        let function = function_of(&self.name)?;
        let mut environment = self.places.environment();
        environment.prefer_development("weft new");
        let config = load(&environment)?;
        quiet(&config)?;
        let workspace = config.runner.workspace_dir.clone();
        if !workspace.is_dir() {
            return Err(
                Failure::new(format!("the workspace folder `{}` does not exist", workspace.display()))
                    .hint("name it with `--workspace`, or make it"),
            );
        }
        let files = [
            (
                format!("{}/{function}.py", kind.folder),
                fill(kind.code, &self.name, &function),
            ),
            (
                format!("tests/test_{function}.py"),
                fill(kind.test, &self.name, &function),
            ),
        ];
        let there: Vec<_> = [files[0].0.as_str(), files[1].0.as_str()]
            .into_iter()
            .chain([files[0].0.trim_end_matches(".py")])
            .filter(|path| workspace.join(path).symlink_metadata().is_ok())
            .map(|path| format!("`{path}`"))
            .collect();
        if !there.is_empty() {
            return Err(Failure::new(format!("{} is there already", there.join(", "))).hint("choose another name"));
        }
        if let Some(place) = block_on(declared(config, &self.name, kind))? {
            return Err(
                Failure::new(format!("`{}` is declared already, in `{place}`", self.name)).hint("choose another name"),
            );
        }
        write_all(&workspace, &files)?;
        let shown: Vec<_> = files.iter().map(|(path, _)| workspace.join(path)).collect();
        if self.json {
            output::json(&json!({"kind": kind.name.replace(' ', "_"), "name": self.name, "files": shown}));
        } else {
            for path in &shown {
                output::data(&path.display().to_string());
            }
            output::note(&format!(
                "hint: `weft check` checks it, `python -m pytest {}` tests it",
                shown[1].display()
            ));
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The name of the function and its file.
fn function_of(name: &str) -> Result<String, Failure> {
    let hint = "use small letters, digits, `_` and `-`, a letter first, at most 40 characters";
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(good) || name.len() > LONGEST {
        return Err(Failure::new(format!("`{}` can't be a name", output::plain(name))).hint(hint));
    }
    let function = name.replace('-', "_");
    if KEYWORDS.contains(&function.as_str()) {
        return Err(
            Failure::new(format!("`{name}` can't be a name: it is a word of Python"))
                .hint(format!("choose another, as `{name}_it`")),
        );
    }
    if USED.contains(&function.as_str()) {
        return Err(
            Failure::new(format!("`{name}` can't be a name: Python or `weft` has it already"))
                .hint(format!("choose another, as `my-{name}`")),
        );
    }
    Ok(function)
}

fn fill(template: &str, name: &str, function: &str) -> String {
    let title = function.replace('_', " ");
    let title = format!("{}{}", title[..1].to_ascii_uppercase(), &title[1..]);
    let filled = template
        .replace("@TITLE@", title.trim_end())
        .replace("@FUNCTION@", function)
        .replace("@MODULE@", function)
        .replace("@NAME@", name);
    if name == function {
        return filled.replace("@NAMED@", "");
    }
    filled.replace("@NAMED@", &format!("name=\"{name}\",\n    "))
}

/// Where the name is declared, as far as that can be found out: without Python it can't.
async fn declared(config: crate::config::Config, name: &str, kind: &Kind) -> Result<Option<String>, Failure> {
    let catalog = match boot::check_workspace(config).await {
        Ok(catalog) => catalog,
        Err(error) => {
            output::note(&format!(
                "warning: whether `{name}` is declared already was not looked up: {}",
                output::chain(&error)
            ));
            return Ok(None);
        }
    };
    let found = match kind.folder {
        "data_providers" => catalog.data_providers.get(name),
        // Graphs call both by one name.
        _ => catalog.workflows.get(name).or_else(|| catalog.nodes.get(name)),
    };
    Ok(found.map(|found| found.path.clone()))
}

/// Writes all files, or none.
fn write_all(workspace: &Path, files: &[(String, String)]) -> Result<(), Failure> {
    let mut written: Vec<PathBuf> = Vec::new();
    for (path, text) in files {
        let path = workspace.join(path);
        let done = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| {
            let mut file = std::fs::File::create_new(&path)?;
            written.push(path.clone());
            file.write_all(text.as_bytes())
        });
        if let Err(error) = done {
            for path in &written {
                drop(std::fs::remove_file(path));
            }
            return Err(Failure::new(format!("`{}` can't be written: {error}", path.display()))
                .hint("nothing was written; look at the folder's rights"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_declarations() {
        assert_eq!(function_of("orders-import").ok().as_deref(), Some("orders_import"));
        assert_eq!(function_of("a1").ok().as_deref(), Some("a1"));
        let long = "a".repeat(41);
        for wrong in [
            "",
            "A",
            "1a",
            "a b",
            "../a",
            "a/b",
            "é",
            "class",
            "list",
            "data-provider",
            "_a",
            "-a",
            &long,
        ] {
            assert!(function_of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nothing_of_a_template_is_left_unfilled() {
        for kind in [&WORKFLOW, &NODE, &DATA_PROVIDER] {
            for name in ["orders", "orders-import", "a"] {
                for text in [kind.code, kind.test] {
                    let filled = fill(text, name, &name.replace('-', "_"));
                    assert!(!filled.contains('@') || !filled.contains("@N"), "{filled}");
                    assert!(!filled.contains("NAME@") && !filled.contains("TITLE@"), "{filled}");
                }
            }
        }
    }
}
