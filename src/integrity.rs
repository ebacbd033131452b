//! Whether the engine is as upstream has released it: the files that are here against those of the release file, which
//! `scripts/protect-engine --release` writes and CI verifies with its signature.
//!
//! In a deployed package, which has no sources, what is executed must be there; in a checkout everything must. The program itself
//! is in no release file: it is built from files that are.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::domain::sha256_hex;

/// The release file, in the app's folder.
pub const RELEASE_FILE: &str = ".github/engine-release.json";

/// What tells upstream's releases from others in a fork.
const OF_UPSTREAM: [&str; 2] = [".github/upstream", ".github/engine-signers"];
/// The list of protected paths, which a checkout has and a package has not.
const LIST: &str = ".github/protected-paths";

/// Most bytes of it, as `scripts/protect-engine` has it.
const MAX_RELEASE_BYTES: u64 = 32 << 20;
/// Most bytes of a file that is looked at.
const MAX_FILE_BYTES: u64 = 64 << 20;
/// Folders that Python imports from, where a file too many counts as well.
const IMPORTED: [&str; 2] = ["engine/weft", "engine/weft_runtime"];

/// How the engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it was released.
    Intact,
    /// Otherwise than it was released.
    Modified,
    /// There is nothing to compare it with.
    Unknown,
}

/// What is otherwise about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Otherwise {
    /// Its content.
    Changed,
    /// It is not there.
    Missing,
    /// It is no part of the release.
    Unexpected,
    /// It is no file, or can't be read.
    Unreadable,
}

impl Otherwise {
    /// In a word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Missing => "missing",
            Self::Unexpected => "unexpected",
            Self::Unreadable => "unreadable",
        }
    }
}

/// A file that is otherwise.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Difference {
    /// Its path in the app's folder.
    pub path: String,
    /// What about it.
    pub what: Otherwise,
}

/// What came of a comparison.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// How the engine is.
    pub state: State,
    /// The release that it claims to be.
    pub version: Option<String>,
    /// How many files were compared.
    pub files: usize,
    /// Files that are otherwise, by path.
    pub differences: Vec<Difference>,
    /// Why nothing could be compared.
    pub reason: Option<String>,
}

impl Report {
    fn unknown(reason: impl Into<String>) -> Self {
        Self {
            state: State::Unknown,
            version: None,
            files: 0,
            differences: Vec::new(),
            reason: Some(reason.into()),
        }
    }

    /// In one sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        let version = self.version.as_deref().unwrap_or("?");
        match self.state {
            State::Intact => format!("release {version}, all {} files as released", self.files),
            State::Modified => format!(
                "{} file(s) differ from release {version}, first `{}`",
                self.differences.len(),
                self.differences.first().map_or("?", |first| first.path.as_str())
            ),
            State::Unknown => self
                .reason
                .clone()
                .unwrap_or_else(|| "nothing to compare with".to_owned()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Release {
    format: u32,
    version: String,
    #[serde(rename = "executable")]
    _executable: Vec<String>,
    files: BTreeMap<String, String>,
}

/// Which of the files that name upstream and its keys say nothing yet, being missing or comment alone. None where this is no
/// checkout.
#[must_use]
pub fn unset(root: &Path) -> Option<Vec<&'static str>> {
    let says_nothing = |path: &&str| {
        let text = std::fs::read_to_string(root.join(path)).unwrap_or_default();
        text.lines()
            .map(str::trim)
            .all(|line| line.is_empty() || line.starts_with('#'))
    };
    root.join(LIST)
        .is_file()
        .then(|| OF_UPSTREAM.into_iter().filter(says_nothing).collect())
}

/// Compares the engine in the app's folder, whose Python side may lie elsewhere. Reads every file of the release that is here.
#[must_use]
pub fn check(root: &Path, engine: &Path) -> Report {
    let file = root.join(RELEASE_FILE);
    let text = match std::fs::metadata(&file) {
        Ok(meta) if meta.len() > MAX_RELEASE_BYTES => return Report::unknown(format!("`{RELEASE_FILE}` is too large")),
        Ok(_) => std::fs::read(&file),
        Err(error) => Err(error),
    };
    let text = match text {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Report::unknown(format!("there is no `{RELEASE_FILE}`: this is no release"));
        }
        Err(error) => return Report::unknown(format!("`{RELEASE_FILE}` can't be read: {error}")),
    };
    let release: Release = match serde_json::from_slice(&text) {
        Ok(release) => release,
        Err(error) => return Report::unknown(format!("`{RELEASE_FILE}` is no release file: {error}")),
    };
    if release.format != 1 || !release.files.keys().all(|path| is_plain(path)) {
        return Report::unknown(format!("`{RELEASE_FILE}` is no release file of a form that is known"));
    }
    let is_checkout = root.join("src").is_dir();
    let mut report = Report {
        state: State::Intact,
        version: Some(release.version),
        files: 0,
        differences: Vec::new(),
        reason: None,
    };
    let place = |path: &str| match path.strip_prefix("engine/") {
        Some(below) => engine.join(below),
        None => root.join(path),
    };
    for (path, digest) in &release.files {
        let what = match content(&place(path)) {
            Ok(Some(bytes)) if sha256_hex(&bytes) == *digest => None,
            Ok(Some(_)) => Some(Otherwise::Changed),
            Ok(None) if is_checkout || is_executed(path) => Some(Otherwise::Missing),
            Ok(None) => continue,
            Err(_) => Some(Otherwise::Unreadable),
        };
        report.files += 1;
        report.differences.extend(what.map(|what| Difference {
            path: path.clone(),
            what,
        }));
    }
    for folder in IMPORTED {
        let mut found = Vec::new();
        below(&place(folder), folder, &mut found);
        let unexpected = found.into_iter().filter(|path| !release.files.contains_key(path));
        report.differences.extend(unexpected.map(|path| Difference {
            path,
            what: Otherwise::Unexpected,
        }));
    }
    report.differences.sort();
    if !report.differences.is_empty() {
        report.state = State::Modified;
    }
    report
}

/// The content of a file; nothing when it is not there. What is no file, as a link, is an error.
fn content(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    match std::fs::symlink_metadata(path) {
        Ok(meta) if meta.is_file() && meta.len() <= MAX_FILE_BYTES => std::fs::read(path).map(Some),
        Ok(_) => Err(std::io::Error::other("no file")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a deployed package must have: what the host and Python read.
fn is_executed(path: &str) -> bool {
    let is_code = path.starts_with("engine/") && !path.starts_with("engine/tests/") && !path.ends_with(".md");
    is_code || path == "host.json" || path.ends_with("/function.json")
}

/// A path below a folder, and nothing else.
fn is_plain(path: &str) -> bool {
    !path.is_empty()
        && Path::new(path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

/// Every file below a folder but what Python itself writes there.
fn below(folder: &Path, shown: &str, found: &mut Vec<String>) {
    let mut folders: Vec<(PathBuf, String)> = vec![(folder.to_owned(), shown.to_owned())];
    while let Some((folder, shown)) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{shown}/{name}");
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if name != "__pycache__" {
                    folders.push((entry.path(), path));
                }
            } else {
                found.push(path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of these files, and a release file for them.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        let mut listed = serde_json::Map::new();
        for (path, text) in files {
            let place = home.path().join(path);
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::write(place, text).unwrap();
            listed.insert((*path).to_owned(), sha256_hex(text.as_bytes()).into());
        }
        let release = serde_json::json!({"format": 1, "version": "1.4.0", "executable": [], "files": listed});
        std::fs::create_dir_all(home.path().join(".github")).unwrap();
        std::fs::write(home.path().join(RELEASE_FILE), release.to_string()).unwrap();
        home
    }

    const FILES: [(&str, &str); 5] = [
        ("engine/weft/__init__.py", "a"),
        ("engine/weft_runtime/guard.py", "b"),
        ("engine/tests/test_a.py", "c"),
        ("host.json", "{}"),
        ("src/main.rs", "fn main() {}"),
    ];

    fn found(home: &Path) -> (State, Vec<(String, &'static str)>) {
        let report = check(home, &home.join("engine"));
        let named = report.differences.into_iter();
        (report.state, named.map(|one| (one.path, one.what.as_str())).collect())
    }

    #[test]
    fn what_was_changed_removed_or_added_is_named() {
        let home = tree(&FILES);
        let at = |path: &str| home.path().join(path);
        assert_eq!(found(home.path()), (State::Intact, vec![]));
        std::fs::create_dir_all(at("engine/weft_runtime/__pycache__")).unwrap();
        std::fs::write(at("engine/weft_runtime/__pycache__/guard.cpython-311.pyc"), "x").unwrap();
        assert_eq!(found(home.path()).0, State::Intact);
        std::fs::write(at("engine/weft_runtime/guard.py"), "pass").unwrap();
        std::fs::write(at("engine/weft/extra.py"), "x").unwrap();
        std::fs::remove_file(at("host.json")).unwrap();
        std::fs::remove_file(at("src/main.rs")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", at("src/main.rs")).unwrap();
        let expected = [
            ("engine/weft/extra.py", "unexpected"),
            ("engine/weft_runtime/guard.py", "changed"),
            ("host.json", "missing"),
            ("src/main.rs", "unreadable"),
        ];
        let expected = expected.map(|(path, what)| (path.to_owned(), what)).to_vec();
        assert_eq!(found(home.path()), (State::Modified, expected));
    }

    #[test]
    fn a_package_need_not_have_what_is_not_executed() {
        let home = tree(&FILES);
        std::fs::remove_dir_all(home.path().join("src")).unwrap();
        std::fs::remove_dir_all(home.path().join("engine/tests")).unwrap();
        assert_eq!(found(home.path()), (State::Intact, vec![]));
        std::fs::remove_file(home.path().join("engine/weft_runtime/guard.py")).unwrap();
        let missing = vec![("engine/weft_runtime/guard.py".to_owned(), "missing")];
        assert_eq!(found(home.path()), (State::Modified, missing));
    }

    #[test]
    fn what_is_no_release_file_says_nothing() {
        let home = tree(&FILES);
        for text in [
            "",
            "{}",
            r#"{"format": 2, "version": "1", "executable": [], "files": {}}"#,
            r#"{"format": 1, "version": "1", "executable": [], "files": {"../up": "00"}}"#,
            r#"{"format": 1, "version": "1", "executable": [], "files": {"/etc/passwd": "00"}}"#,
        ] {
            std::fs::write(home.path().join(RELEASE_FILE), text).unwrap();
            let report = check(home.path(), &home.path().join("engine"));
            assert_eq!(report.state, State::Unknown, "{text}");
            assert!(report.reason.is_some());
        }
        std::fs::remove_dir_all(home.path().join(".github")).unwrap();
        assert_eq!(found(home.path()), (State::Unknown, vec![]));
    }
}
