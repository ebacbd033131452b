//! Which files of a workspace are no part of its bundle: caches, hidden files, what usually holds credentials, and what
//! `.weftignore` names.
//!
//! The rule looks at names only, so that a folder, a copy of it and an archive of it give the same bundle.

use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// The file at the top of a workspace with patterns of what is left out, as git's `.gitignore` has them.
pub const FILE: &str = ".weftignore";
/// Most bytes of it.
pub const MAX_BYTES: u64 = 64 << 10;

/// Folders that are no code.
const FOLDERS: [&str; 4] = ["__pycache__", "node_modules", "venv", "tests"];
/// Files that hold credentials where they usually lie; those that begin with a dot, as `.env`, are left out anyway.
const CREDENTIALS: [&str; 7] = [
    "local.settings.json",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "credentials.json",
    "secrets.key",
];
/// And how the names of others end.
const CREDENTIAL_ENDS: [&str; 5] = [".env", ".pfx", ".p12", ".key", ".publishsettings"];

/// The rule for one workspace.
#[derive(Debug, Clone)]
pub struct LeaveOut(Gitignore);

/// A line of `.weftignore` that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of `{FILE}` is no pattern: {reason}")]
pub struct BadPattern {
    /// Which, from 1.
    pub line: usize,
    /// Why.
    pub reason: String,
}

impl LeaveOut {
    /// With the text of `.weftignore`, which is empty where there is none.
    ///
    /// # Errors
    /// The first line that is no pattern.
    pub fn new(patterns: &str) -> Result<Self, BadPattern> {
        let mut builder = GitignoreBuilder::new("");
        for (number, line) in patterns.lines().enumerate() {
            builder.add_line(None, line).map_err(|error| BadPattern {
                line: number + 1,
                reason: error.to_string(),
            })?;
        }
        let built = builder.build().map_err(|error| BadPattern {
            line: 0,
            reason: error.to_string(),
        })?;
        Ok(Self(built))
    }

    /// Whether a file or folder is left out whose folders are not.
    #[must_use]
    pub fn covers(&self, path: &str, is_folder: bool) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        name.starts_with('.')
            || FOLDERS.contains(&name)
            || name.ends_with(".pyc")
            || (!is_folder && is_credential(name))
            || self.0.matched(Path::new(path), is_folder).is_ignore()
    }

    /// Whether a file is left out, or a folder that it is in.
    #[must_use]
    pub fn covers_file(&self, path: &str) -> bool {
        let mut folders = path.match_indices('/').map(|(end, _)| &path[..end]);
        folders.any(|folder| self.covers(folder, true)) || self.covers(path, false)
    }
}

/// Whether a file of this name usually holds credentials.
#[must_use]
pub fn is_credential(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    CREDENTIALS.contains(&name.as_str())
        || name.starts_with(".env")
        || CREDENTIAL_ENDS.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_git() {
        let rule = LeaveOut::new("# data\n/fixtures/\n*.csv\n!keep.csv\nnotes/*.md\n").unwrap();
        for (path, left_out) in [
            ("workflows/hello.py", false),
            ("fixtures/big.json", true),
            ("workflows/fixtures/small.json", false),
            ("data/a.csv", true),
            ("data/keep.csv", false),
            ("fixtures/keep.csv", true),
            ("notes/a.md", true),
            ("notes/deep/a.md", false),
            (".git/config", true),
            ("workflows/.hidden.py", true),
            ("workflows/__pycache__/a.pyc", true),
            ("tests/test_hello.py", true),
            ("workflows/tests.py", false),
        ] {
            assert_eq!(rule.covers_file(path), left_out, "{path}");
        }
        assert_eq!(LeaveOut::new("ok\n{a,b\n").unwrap_err().line, 2);
    }

    #[test]
    fn credentials_never_travel() {
        let rule = LeaveOut::new("!local.settings.json\n!*.key\n!.env\n").unwrap();
        for path in [
            "local.settings.json",
            "deep/Local.Settings.json",
            ".env",
            ".env.production",
            "prod.env",
            "id_ed25519",
            "tls/server.key",
            "cert.PFX",
            "app.publishsettings",
        ] {
            assert!(rule.covers_file(path), "{path}");
        }
        for path in ["ca.pem", "keys.py", "workflows/env.py", "environment.json"] {
            assert!(!rule.covers_file(path), "{path}");
        }
    }
}
