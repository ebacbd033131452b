//! Where a workflow file lies, and a workspace around it for those that lie in none.

use std::path::{Path, PathBuf};

use super::{Failure, output};
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
