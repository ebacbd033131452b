//! The files that settings may stand in: which there are, who may have written them, what a project's may say.
//!
//! From the weakest to the strongest: the user's, the system's, the project's, one that is named. A project's file comes with
//! code that somebody else may have written, so it may not weaken the machine: [`Files`] says what it may set.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::env_var::{self, Fallback, Files, Shape, Variable};
use super::environment::Environment;
use super::file::{self, Parsed};
use crate::error::Finding;

/// The file of a project, in the working directory.
pub const PROJECT_FILE: &str = "weft.yaml";

/// Whose file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The user's: `weft/config.yaml` in `XDG_CONFIG_HOME`, which is `~/.config` where nothing is said.
    User,
    /// The system's: [`super::environment::SYSTEM_FILE`].
    System,
    /// The project's: [`PROJECT_FILE`].
    Project,
    /// One that a flag or a variable names; it must be there.
    Named,
}

impl Kind {
    /// In one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::System => "system",
            Self::Project => "project",
            Self::Named => "named",
        }
    }
}

impl Environment {
    /// The places where files of settings are looked for, the weakest first.
    #[must_use]
    pub fn setting_files(&self) -> Vec<(Kind, PathBuf)> {
        let absolute = |variable| self.get(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        let folder =
            absolute(&env_var::XDG_CONFIG_HOME).or_else(|| absolute(&env_var::HOME).map(|home| home.join(".config")));
        let named = self
            .get(&env_var::WEFT_CONFIG_FILE)
            .map(|path| self.current_dir().join(path));
        let project = self.current_dir().join(PROJECT_FILE);
        // Naming it says that it is trusted.
        let is_named = named.as_ref().is_some_and(|named| same(named, &project));
        let mut files = Vec::new();
        files.extend(folder.map(|folder| (Kind::User, folder.join("weft/config.yaml"))));
        files.extend(self.system_file.clone().map(|path| (Kind::System, path)));
        files.extend((!is_named).then_some((Kind::Project, project)));
        files.extend(named.map(|path| (Kind::Named, path)));
        files
    }

    /// Reads them. What is wrong with them is said together with everything else by [`super::Config::from_env`].
    pub fn read_files(&mut self) {
        for (kind, path) in self.setting_files() {
            self.read_file(kind, &path);
        }
    }

    /// Reads one, as stronger than those before it. A missing one is a finding where it was named.
    pub fn read_file(&mut self, kind: Kind, path: &Path) {
        let parsed = match read(path) {
            Ok(Some((text, mode))) => checked(kind, path, mode, file::parse(path, &text), self),
            Ok(None) if kind != Kind::Named => return,
            Ok(None) => Parsed {
                findings: vec![
                    Finding::new(
                        path.display().to_string(),
                        "config_file_missing",
                        format!("the file of settings `{}` is not there", path.display()),
                    )
                    .hint("correct `--config` or `WEFT_CONFIG_FILE`, or make it with `weft config template FILE`"),
                ],
                ..Parsed::default()
            },
            Err(finding) => Parsed {
                findings: vec![*finding],
                ..Parsed::default()
            },
        };
        self.files.push(parsed.entries);
        self.findings.extend(parsed.findings);
    }
}

fn same(one: &Path, other: &Path) -> bool {
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// A file's text and mode, if it is there.
fn read(path: &Path) -> Result<Option<(String, u32)>, Box<Finding>> {
    let wrong = |code: &str, message: String, hint: &str| {
        Box::new(Finding::new(path.display().to_string(), code, message).hint(hint))
    };
    let unreadable = |error: &std::io::Error| {
        let message = format!("the file of settings `{}` can't be read: {error}", path.display());
        wrong(
            "config_file_unreadable",
            message,
            "let this user read it, or take it away",
        )
    };
    let found = match std::fs::metadata(path) {
        Ok(found) => found,
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(unreadable(&error)),
    };
    if !found.is_file() {
        let message = format!("`{}` is no file", path.display());
        return Err(wrong(
            "config_file_unreadable",
            message,
            "put a file with settings there, or nothing",
        ));
    }
    if found.len() > file::LARGEST {
        let message = format!(
            "`{}` has {} bytes; at most {} are read",
            path.display(),
            found.len(),
            file::LARGEST
        );
        return Err(wrong(
            "too_large",
            message,
            "settings are short; is this the right file?",
        ));
    }
    let bytes = std::fs::read(path).map_err(|error| unreadable(&error))?;
    let text = String::from_utf8(bytes).map_err(|_| {
        let message = format!("`{}` is not valid UTF-8", path.display());
        wrong("not_utf8", message, "save it as UTF-8")
    })?;
    Ok(Some((text, found.permissions().mode())))
}

/// Without what a file of this kind, with this mode, may not say.
fn checked(kind: Kind, path: &Path, mode: u32, mut parsed: Parsed, below: &Environment) -> Parsed {
    if kind != Kind::Project && mode & 0o002 != 0 {
        let message = format!("everybody on this machine may write `{}`", path.display());
        let hint = format!("chmod o-w {}", path.display());
        let finding = Finding::new(path.display().to_string(), "writable_by_others", message).hint(hint);
        parsed.findings.insert(0, finding);
        parsed.entries.clear();
        return parsed;
    }
    let findings = &mut parsed.findings;
    parsed.entries.retain(|name, entry| {
        let Some(variable) = env_var::find(name) else { return false };
        let mut refuse = |code: &str, message: String, hint: String| {
            findings.push(Finding::new(entry.place.clone(), code, message).hint(hint));
            false
        };
        if kind == Kind::Project {
            let elsewhere = "set it in the file of the user or of the system, in the environment, or name this file with `--config`";
            match variable.files {
                Files::Machine | Files::Never => {
                    let message = format!("a project's file may not set `{}`: it could weaken the machine", entry.key);
                    return refuse("not_for_projects", message, elsewhere.to_owned());
                }
                Files::Lower | Files::Higher if !is_stricter(variable, &entry.value, below) => {
                    let way = if variable.files == Files::Lower { "lower" } else { "raise" };
                    let message = format!("a project's file may only {way} `{}`", entry.key);
                    return refuse("project_may_not_weaken", message, elsewhere.to_owned());
                }
                Files::Any | Files::Lower | Files::Higher => {}
            }
        }
        if variable.secret && mode & 0o077 != 0 {
            let message = format!("`{}` is a secret, and others may read this file", entry.key);
            return refuse("readable_by_others", message, format!("chmod 600 {}", path.display()));
        }
        true
    });
    parsed
}

/// Whether a value is no weaker than what weaker files say, or else the default. What can't be compared is: there is nothing
/// to be weaker than, or a finding says what is wrong with it.
fn is_stricter(variable: &Variable, value: &str, below: &Environment) -> bool {
    let rank = |text: &str| match variable.shape {
        Shape::Choice(words) => words
            .iter()
            .position(|word| word.eq_ignore_ascii_case(text))
            .map(|at| at as u64),
        Shape::Switch => Some(u64::from(!matches!(text.to_ascii_lowercase().as_str(), "false" | "0"))),
        _ => text.parse().ok(),
    };
    let before = below.files.iter().rev().find_map(|file| file.get(variable.name));
    let before = match (before, variable.fallback) {
        (Some(entry), _) => Some(entry.value.as_str()),
        (None, Fallback::Value(value)) => Some(value),
        // What holds where nobody develops.
        (None, _) if variable.name == env_var::WEFT_SECURITY_PROFILE.name => Some("standard"),
        // It depends on something else; of words, the strictest is taken.
        (None, Fallback::Words(_) | Fallback::Unset) => match (variable.shape, variable.files) {
            (Shape::Choice(words), Files::Lower) => words.first().copied(),
            (Shape::Choice(words), _) => words.last().copied(),
            _ => None,
        },
    };
    match (rank(value), before.and_then(rank)) {
        (Some(value), Some(before)) if variable.files == Files::Lower => value <= before,
        (Some(value), Some(before)) => value >= before,
        _ => true,
    }
}
