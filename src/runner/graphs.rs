//! The graph files of a bundle: every `*.json`, `*.yaml` and `*.yml` below its folder `workflows`.

use std::fs;
use std::io;
use std::path::Path;

use super::BundleRef;
use crate::error::Finding;

/// The folder that they lie below.
const FOLDER: &str = "workflows";
/// Most bytes of a graph file.
pub const MAX_GRAPH_BYTES: u64 = 1 << 20;
/// Most graph files of a bundle.
pub const MAX_GRAPHS: usize = 1_000;

/// Paths and texts of graph files, and what keeps others out.
pub type GraphFiles = (Vec<(String, String)>, Vec<Finding>);

/// Path, as shown to people, and text of each graph file, by path; and what keeps files from being read. A bundle is a copy that
/// nobody changes, without symbolic links.
///
/// # Errors
/// When the bundle can't be read.
pub fn graph_files(bundle: &BundleRef) -> io::Result<GraphFiles> {
    let mut paths = Vec::new();
    walk(&bundle.dir.join(FOLDER), FOLDER, &mut paths)?;
    paths.sort();
    let mut findings = Vec::new();
    if paths.len() > MAX_GRAPHS {
        let message = format!("there are {} graph files, and there may be {MAX_GRAPHS}", paths.len());
        findings.push(
            Finding::new(format!("workspace/{FOLDER}:1:1"), "too_many_files", message)
                .hint("every `*.json` and `*.yaml` below `workflows` is a workflow; data files belong elsewhere in the workspace"),
        );
        paths.truncate(MAX_GRAPHS);
    }
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        let file = bundle.dir.join(&path);
        let shown = format!("workspace/{path}");
        let bytes = fs::metadata(&file)?.len();
        if bytes > MAX_GRAPH_BYTES {
            let message = format!("the file has {bytes} bytes, and a graph may have {MAX_GRAPH_BYTES}");
            let hint = "move a part of it into a workflow of its own; a data file belongs outside of `workflows`";
            findings.push(Finding::new(format!("{shown}:1:1"), "too_large", message).hint(hint));
            continue;
        }
        match String::from_utf8(fs::read(&file)?) {
            Ok(text) => files.push((shown, text)),
            Err(_) => findings.push(
                Finding::new(format!("{shown}:1:1"), "not_text", "the file is no UTF-8 text").hint("save it as UTF-8"),
            ),
        }
    }
    Ok((files, findings))
}

fn walk(folder: &Path, relative: &str, found: &mut Vec<String>) -> io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let entry = entry?;
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
            continue;
        };
        let (kind, path) = (entry.file_type()?, format!("{relative}/{name}"));
        if kind.is_dir() {
            walk(&entry.path(), &path, found)?;
        } else if kind.is_file()
            && Path::new(&name)
                .extension()
                .is_some_and(|extension| extension == "json" || extension == "yaml" || extension == "yml")
        {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graphs_are_found_in_any_folder_and_bounded() {
        let home = tempfile::tempdir().unwrap();
        let bundle = BundleRef {
            digest: "sha256:0".into(),
            dir: home.path().to_owned(),
            environment: None,
        };
        assert_eq!(graph_files(&bundle).unwrap(), (vec![], vec![]));
        fs::create_dir_all(home.path().join("workflows/deep")).unwrap();
        let large = " ".repeat(usize::try_from(MAX_GRAPH_BYTES).unwrap() + 1);
        for (name, text) in [
            ("workflows/deep/b.json", "{}".as_bytes()),
            ("workflows/a.json", b"[]"),
            ("workflows/c.yml", b"name: c"),
            ("workflows/a.py", b"x = 1"),
            ("data.json", b"{}"),
            ("workflows/large.json", large.as_bytes()),
            ("workflows/odd.json", b"\xff"),
        ] {
            fs::write(home.path().join(name), text).unwrap();
        }
        let (files, findings) = graph_files(&bundle).unwrap();
        let paths: Vec<_> = files.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "workspace/workflows/a.json",
                "workspace/workflows/c.yml",
                "workspace/workflows/deep/b.json"
            ]
        );
        let found: Vec<_> = findings
            .iter()
            .map(|one| (one.pointer.as_str(), one.code.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("workspace/workflows/large.json:1:1", "too_large"),
                ("workspace/workflows/odd.json:1:1", "not_text")
            ]
        );
    }
}
