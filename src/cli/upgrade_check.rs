//! `weft upgrade-check`: a workspace against another engine, before that is synced: what would break.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Failure, Outcome, Places, block_on, load, output, quiet};
use crate::boot;
use crate::config::Config;
use crate::error::Finding;
use crate::runner::tools;

/// How long the workspace's tests, or its type check, may take.
const PATIENCE: Duration = Duration::from_secs(900);
/// How long asking an engine what it offers may take.
const SHORT: Duration = Duration::from_secs(30);
/// Lines of a tool's output that are shown.
const LINES: usize = 40;

/// Says what an engine's SDK offers, and which names of it a workspace imports: without importing anything of the workspace.
const SURFACE: &str = r#"
import ast, json, os, sys
engine, workspace = sys.argv[1:3]
sys.path.insert(0, engine)
import weft, weft.testing
names = sorted(set(weft.__all__) | {n for n in ("testing", "pytest_plugin") if os.path.isfile(os.path.join(engine, "weft", n + ".py"))})
used = []
for folder, folders, files in os.walk(workspace):
    folders[:] = [f for f in folders if f not in ("__pycache__", "node_modules", "venv") and not f.startswith(".")]
    for file in files:
        if not file.endswith(".py"):
            continue
        path = os.path.join(folder, file)
        try:
            tree = ast.parse(open(path, encoding="utf-8").read())
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and not node.level and node.module in ("weft", "weft.testing"):
                used += [[os.path.relpath(path, workspace), node.lineno, node.module, a.name] for a in node.names if a.name != "*"]
print(json.dumps({"version": weft.__version__, "names": names, "testing": sorted(weft.testing.__all__), "used": used}))
"#;

/// Flags of `weft upgrade-check`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 nothing would break; 1 something would, or it could not be checked; 2 wrong usage."
)]
pub(super) struct UpgradeCheck {
    /// The other engine: a checkout of the repository, or its `engine` folder
    #[arg(long, value_name = "DIR")]
    engine: PathBuf,
    #[command(flatten)]
    places: Places,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What an engine's SDK is.
#[derive(Debug, Deserialize)]
struct Surface {
    version: String,
    names: BTreeSet<String>,
    testing: BTreeSet<String>,
    used: Vec<(String, u32, String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Failed,
    Skipped,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Look {
    name: &'static str,
    status: State,
    detail: String,
    findings: Vec<Finding>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<String>,
}

impl Look {
    fn of(name: &'static str, findings: Vec<Finding>, good: String) -> Self {
        Self {
            name,
            status: if findings.is_empty() { State::Ok } else { State::Failed },
            detail: if findings.is_empty() {
                good
            } else {
                format!("{} finding(s)", findings.len())
            },
            findings,
            output: None,
        }
    }

    fn without(name: &'static str, status: State, detail: String) -> Self {
        Self {
            name,
            status,
            detail,
            findings: Vec::new(),
            output: None,
        }
    }
}

impl UpgradeCheck {
    pub(super) fn run(self) -> Outcome {
        let mut environment = self.places.environment();
        environment.prefer_development("weft upgrade-check");
        let here = environment.current_dir().to_owned();
        let config = load(&environment)?;
        quiet(&config)?;
        let engine = engine_in(&here.join(&self.engine))?;
        block_on(async move {
            let looks = Box::pin(look(&config, &engine)).await?;
            let is_bad = looks.iter().any(|look| look.status == State::Failed);
            if self.json {
                output::json(&json!({"engine": engine, "compatible": !is_bad, "checks": looks}));
            } else {
                for one in &looks {
                    show(one);
                }
                output::note(if is_bad {
                    "the workspace would not work with that engine as it does now"
                } else {
                    "nothing was found that would break"
                });
            }
            Ok(ExitCode::from(u8::from(is_bad)))
        })
    }
}

/// The folder with `weft` and `weft_runtime` in it.
fn engine_in(given: &Path) -> Result<PathBuf, Failure> {
    let found = [given.join("engine"), given.to_owned()];
    let found = found
        .iter()
        .find(|folder| folder.join("weft_runtime").is_dir() && folder.join("weft").is_dir());
    let folder = found.ok_or_else(|| {
        Failure::new(format!("`{}` holds no engine", given.display()))
            .hint("name a checkout of the repository, as `git worktree add ../weft-next upstream/main` makes one")
    })?;
    folder
        .canonicalize()
        .map_err(|error| Failure::new(format!("`{}` can't be read: {error}", folder.display())))
}

async fn look(config: &Config, engine: &Path) -> Result<Vec<Look>, Failure> {
    let python = boot::interpreter(config)?.path;
    let workspace = config.runner.workspace_dir.canonicalize().map_err(|error| {
        Failure::new(format!(
            "`{}` can't be read: {error}",
            config.runner.workspace_dir.display()
        ))
    })?;
    let looks = vec![
        surface(&python, config, engine, &workspace).await?,
        discovery(config, engine).await,
        types(&python, engine, &workspace).await,
        tests(&python, engine, &workspace).await,
    ];
    Ok(looks)
}

/// Names of the SDK that the workspace imports and the other engine lacks.
async fn surface(python: &Path, config: &Config, engine: &Path, workspace: &Path) -> Result<Look, Failure> {
    let now = offered(python, &config.runner.engine_dir, workspace).await?;
    let then = match offered(python, engine, workspace).await {
        Ok(then) => then,
        Err(failure) => return Ok(Look::without("sdk", State::Failed, failure.message)),
    };
    let lacks = |module: &str, name: &str| {
        let names = if module == "weft" { &then.names } else { &then.testing };
        !names.contains(name)
    };
    let findings = then.used.iter().filter(|(_, _, module, name)| lacks(module, name));
    let findings = findings.map(|(file, line, module, name)| {
        let message = format!("`{module}` {} has no `{name}`", then.version);
        let finding = Finding::new(format!("workspace/{file}:{line}:1"), "name_missing", message);
        let known = if module == "weft" { &now.names } else { &now.testing };
        finding.hint(if known.contains(name) {
            format!(
                "version {} has it; engine/CHANGELOG.md there says what to use instead",
                now.version
            )
        } else {
            format!("version {} doesn't have it either", now.version)
        })
    });
    let gone: Vec<_> = now
        .names
        .difference(&then.names)
        .map(|name| format!("`{name}`"))
        .collect();
    let good = if gone.is_empty() {
        format!("{} → {}", now.version, then.version)
    } else {
        format!(
            "{} → {}; gone and not used here: {}",
            now.version,
            then.version,
            gone.join(", ")
        )
    };
    Ok(Look::of("sdk", findings.collect(), good))
}

async fn offered(python: &Path, engine: &Path, workspace: &Path) -> Result<Surface, Failure> {
    let arguments: Vec<OsString> = ["-I", "-B", "-c", SURFACE]
        .into_iter()
        .map(OsString::from)
        .chain([engine.into(), workspace.into()])
        .collect();
    let wrong = |what: String| Failure::new(format!("the SDK in `{}` can't be looked at: {what}", engine.display()));
    let ran = tools::run(python, &arguments, &[], Path::new("/"), SHORT).await;
    let ran = ran.map_err(|error| wrong(error.to_string()))?;
    let last = ran.output.lines().last().unwrap_or_default();
    match ran.code {
        Some(0) => serde_json::from_str(last).map_err(|error| wrong(error.to_string())),
        _ => Err(wrong(output::plain(last))),
    }
}

/// Files, imports, declarations, graphs: as `weft check`, in workers of the other engine.
async fn discovery(config: &Config, engine: &Path) -> Look {
    let mut config = config.clone();
    config.runner.engine_dir = engine.to_owned();
    match boot::check_workspace(config).await {
        Ok(catalog) => {
            let good = format!(
                "{} files, {} workflows, {} data providers",
                catalog.files,
                catalog.workflows.len(),
                catalog.data_providers.len()
            );
            Look::of("discovery", catalog.findings, good)
        }
        Err(error) => Look::without("discovery", State::Failed, output::chain(&error)),
    }
}

async fn types(python: &Path, engine: &Path, workspace: &Path) -> Look {
    let search = joined(engine, workspace);
    let arguments = [
        "-m",
        "mypy",
        "--config-file=",
        "--strict",
        "--explicit-package-bases",
        "--namespace-packages",
        "--cache-dir=/dev/null",
        "--no-error-summary",
        ".",
    ];
    tool(
        python,
        ("types", "mypy"),
        &arguments,
        &[("MYPYPATH", search)],
        workspace,
        1,
    )
    .await
}

async fn tests(python: &Path, engine: &Path, workspace: &Path) -> Look {
    if !workspace.join("tests").is_dir() {
        return Look::without("tests", State::Skipped, "the workspace has no `tests`".to_owned());
    }
    let search = joined(engine, workspace);
    // The repository's own settings would put this engine before the other.
    let arguments = [
        "-B",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
        "--rootdir=.",
        "tests",
    ];
    tool(
        python,
        ("tests", "pytest"),
        &arguments,
        &[("PYTHONPATH", search)],
        workspace,
        5,
    )
    .await
}

fn joined(engine: &Path, workspace: &Path) -> OsString {
    let mut both = engine.as_os_str().to_owned();
    both.push(":");
    both.push(workspace);
    both
}

/// Runs a tool that may be missing. `nothing` is the exit code of one that had nothing to do, where that is no failure.
async fn tool(
    python: &Path,
    (name, module): (&'static str, &str),
    arguments: &[&str],
    variables: &[(&str, OsString)],
    folder: &Path,
    nothing: i32,
) -> Look {
    let arguments: Vec<_> = arguments.iter().map(OsString::from).collect();
    match tools::run(python, &arguments, variables, folder, PATIENCE).await {
        Err(error) => Look::without(name, State::Failed, format!("{module} can't be run: {error}")),
        Ok(ran) if ran.code == Some(0) => {
            let last = ran.output.lines().last().unwrap_or_default();
            Look::without(name, State::Ok, output::plain(last))
        }
        Ok(ran) if ran.output.contains(&format!("No module named {module}")) => Look::without(
            name,
            State::Skipped,
            format!(
                "{module} is not installed: `{} -m pip install -r workspace/requirements-dev.txt`",
                python.display()
            ),
        ),
        Ok(ran) if name == "tests" && ran.code == Some(nothing) => {
            Look::without(name, State::Skipped, "there are no tests".to_owned())
        }
        Ok(ran) => Look {
            output: Some(ran.output),
            ..Look::without(name, State::Failed, format!("{module} found something"))
        },
    }
}

fn show(look: &Look) {
    let word = match look.status {
        State::Ok => "ok  ",
        State::Failed => "FAIL",
        State::Skipped => "skip",
    };
    output::data(&format!("{word} {:<10} {}", look.name, output::plain(&look.detail)));
    for finding in &look.findings {
        output::data(&output::plain(&format!(
            "     {}: {}",
            finding.pointer, finding.message
        )));
        if let Some(hint) = &finding.hint {
            output::note(&output::plain(&format!("       hint: {hint}")));
        }
    }
    let lines: Vec<_> = look.output.iter().flat_map(|text| text.lines()).collect();
    for line in lines.iter().skip(lines.len().saturating_sub(LINES)) {
        output::data(&output::plain(&format!("     {line}")));
    }
}
