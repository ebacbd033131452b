//! Where a workflow file lies, and a workspace around it for those that lie in none.

use std::path::{Path, PathBuf};

use super::{Failure, output};
use crate::definition::Catalog;
use crate::domain::Declared;
use crate::error::Finding;
use crate::runner::folders::make_passable;

/// Endings of files that hold workflows.
const WORKFLOW_FILES: [&str; 4] = ["json", "py", "yaml", "yml"];
/// Where workflows lie in a workspace.
const WORKFLOWS: &str = "workflows";

/// Where a workflow file lies.
#[derive(Debug)]
pub(super) struct Place {
    file: PathBuf,
    /// The workspace with what it calls, if there is one.
    workspace: Option<PathBuf>,
    /// The file's path in the workspace, as it will be.
    pub(super) inside: String,
    /// Whether it is there already.
    is_inside: bool,
}

impl Place {
    /// The workspace of a file is the one that is named, else the nearest folder above it in whose `workflows` it lies.
    pub(super) fn find(file: &Path, named: Option<PathBuf>) -> Result<Self, Failure> {
        let shown = file.display();
        let ending = file.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        if !WORKFLOW_FILES.contains(&ending) {
            return Err(Failure::new(format!("`{shown}` is no workflow file"))
                .hint("workflow files end with `.json`, `.yaml`, `.yml` or `.py`"));
        }
        let file = file
            .canonicalize()
            .map_err(|error| Failure::new(format!("`{shown}` can't be read: {error}")))?;
        if !file.is_file() {
            return Err(Failure::new(format!("`{shown}` is no file")).hint("name the files themselves"));
        }
        let workspace = match named {
            Some(folder) => Some(
                folder
                    .canonicalize()
                    .map_err(|error| Failure::new(format!("`{}` can't be read: {error}", folder.display())))?,
            ),
            None => file
                .ancestors()
                .skip(1)
                .find(|folder| folder.file_name().is_some_and(|name| name == WORKFLOWS))
                .and_then(Path::parent)
                .map(Path::to_owned),
        };
        let inside = workspace.as_ref().and_then(|folder| file.strip_prefix(folder).ok());
        let inside = inside
            .filter(|inside| inside.starts_with(WORKFLOWS))
            .map(|inside| inside.display().to_string());
        let name = file
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        Ok(Self {
            is_inside: inside.is_some(),
            inside: inside.unwrap_or_else(|| format!("{WORKFLOWS}/{name}")),
            file,
            workspace,
        })
    }

    /// The folder to take as the workspace: the file's own, or one below `home` with the file in it.
    pub(super) fn lay_out(&self, home: &Path) -> Result<PathBuf, Failure> {
        if let (Some(workspace), true) = (&self.workspace, self.is_inside) {
            return Ok(workspace.clone());
        }
        let folder = home.join("workspace");
        let fail = |error: std::io::Error| Failure::new(format!("`{}` can't be copied: {error}", self.file.display()));
        make_passable(&folder.join(WORKFLOWS)).map_err(fail)?;
        if let Some(workspace) = &self.workspace {
            let bundle = crate::runner::bundle::snapshot(workspace, &home.join("copies"))
                .map_err(|error| Failure::new(output::chain(&error)))?;
            copy(&bundle.dir, &folder).map_err(fail)?;
        }
        let target = folder.join(&self.inside);
        if target.exists() {
            return Err(
                Failure::new(format!("the workspace has a file `{}` of its own", self.inside))
                    .hint("give the file another name, or simulate the one in the workspace"),
            );
        }
        std::fs::copy(&self.file, target).map_err(fail)?;
        Ok(folder)
    }
}

/// Copies files and folders.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            make_passable(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The workflow of the file, or everything that keeps it out.
pub(super) fn chosen<'a>(
    catalog: &'a Catalog,
    inside: &str,
    (file, name): (&Path, Option<&str>),
) -> Result<&'a Declared, Failure> {
    let shown = format!("workspace/{inside}");
    let here: Vec<_> = catalog
        .workflows
        .values()
        .filter(|workflow| workflow.path == shown)
        .collect();
    let found = match (name, here.as_slice()) {
        (Some(name), _) => here.iter().find(|workflow| workflow.name == name).copied(),
        (None, [one]) => Some(*one),
        (None, _) => None,
    };
    if let Some(found) = found {
        return Ok(found);
    }
    let own = |finding: &&Finding| finding.pointer.starts_with(&format!("{shown}:")) || finding.pointer == shown;
    let findings: Vec<_> = catalog
        .findings
        .iter()
        .filter(own)
        .map(|finding| Finding {
            // As the caller has named it.
            pointer: finding.pointer.replacen(&shown, &file.display().to_string(), 1),
            ..finding.clone()
        })
        .collect();
    let file = file.display();
    if !findings.is_empty() {
        let mut failure = Failure::new(format!("`{file}` has {} finding(s)", findings.len()));
        failure.findings = findings;
        return Err(failure);
    }
    let names: Vec<_> = here.iter().map(|workflow| format!("`{}`", workflow.name)).collect();
    Err(match names.as_slice() {
        [] => Failure::new(format!("`{file}` declares no workflow"))
            .hint("a Python file has functions with `@workflow`; `weft check` shows what is in a workspace"),
        _ => Failure::new(format!("`{file}` declares {}", names.join(", "))).hint("choose one with `--workflow NAME`"),
    })
}
