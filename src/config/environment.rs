//! What the process was started with, taken down once, so that configuration is a function of a value.
//!
//! A variable may be given a value in several places. From the weakest to the strongest: the files of the user, of the system,
//! of the project, and one that is named ([`super::files`]); an older name of the variable; its own name; a flag.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use super::env_var::{self, Variable};
use super::file::Entry;
use super::secret::MASK;
use crate::error::Finding;

/// Where settings of the whole system stand.
pub const SYSTEM_FILE: &str = "/etc/weft/config.yaml";

/// One of the places that give a variable a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given<'e> {
    /// The value.
    pub value: &'e str,
    /// Where: a flag, the name of a variable, or `file:line:column`.
    pub origin: String,
    /// The name that it has there.
    pub name: String,
    /// Where a finding about it points.
    pub pointer: String,
}

/// A snapshot of the environment and of the few other facts of the process that settings depend on.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// Variables that are given by something stronger, as a command-line flag: the value, and by what.
    flags: BTreeMap<&'static str, (String, String)>,
    /// What files say, the weakest first.
    pub(super) files: Vec<BTreeMap<&'static str, Entry>>,
    /// What is wrong with them.
    pub(super) findings: Vec<Finding>,
    /// The file of the whole system.
    pub(super) system_file: Option<PathBuf>,
    not_utf8: BTreeSet<String>,
    current_dir: PathBuf,
    executable: Option<PathBuf>,
    processors: usize,
    terminal: bool,
}

impl Environment {
    /// The environment of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let mut environment = Self {
            system_file: Some(PathBuf::from(SYSTEM_FILE)),
            current_dir: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            executable: std::env::current_exe().ok(),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            terminal: std::io::stderr().is_terminal(),
            ..Self::default()
        };
        for (name, value) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            match value.into_string() {
                Ok(value) => {
                    environment.variables.insert(name, value);
                }
                Err(_) => {
                    environment.not_utf8.insert(name);
                }
            }
        }
        environment
    }

    /// An environment of these variables alone: two processors, no terminal, working directory `/`.
    pub fn of<N: Into<String>, V: Into<String>>(variables: impl IntoIterator<Item = (N, V)>) -> Self {
        Self {
            variables: variables
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            current_dir: PathBuf::from("/"),
            processors: 2,
            ..Self::default()
        }
    }

    /// The same with another working directory.
    #[must_use]
    pub fn in_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.current_dir = dir.into();
        self
    }

    /// The same with logs going to a terminal.
    #[must_use]
    pub fn on_terminal(mut self) -> Self {
        self.terminal = true;
        self
    }

    /// The same with another file of the whole system.
    #[must_use]
    pub fn with_system_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.system_file = Some(file.into());
        self
    }

    /// Gives a variable a value that is stronger than the environment's; `by` says where it comes from, as `--port`.
    pub fn set(&mut self, variable: &'static Variable, value: impl Into<String>, by: impl Into<String>) {
        self.not_utf8.remove(variable.name);
        self.flags.insert(variable.name, (value.into(), by.into()));
    }

    /// The same where nothing else says anything.
    pub fn set_default(&mut self, variable: &'static Variable, value: impl Into<String>, by: impl Into<String>) {
        if self.get(variable).is_none() {
            self.set(variable, value, by);
        }
    }

    /// A variable's value; an empty one counts as not set.
    #[must_use]
    pub fn get(&self, variable: &Variable) -> Option<&str> {
        self.given(variable).next().map(|given| given.value)
    }

    /// Every place that gives it a value, the strongest first.
    pub fn given<'e>(&'e self, variable: &Variable) -> impl Iterator<Item = Given<'e>> + use<'e> {
        let name = variable.name;
        let of_process = |value, origin: String, name: &str| Given {
            value,
            origin,
            name: name.to_owned(),
            pointer: format!("env:{name}"),
        };
        let flag = self.flags.get(name);
        let flag = flag.map(|(value, by)| of_process(value.as_str(), by.clone(), name));
        let own = self.variables.get(name);
        let own = own.map(|value| of_process(value.as_str(), name.to_owned(), name));
        let alias = env_var::alias(name).and_then(|alias| {
            let value = self.variables.get(alias)?;
            Some(of_process(
                value.as_str(),
                format!("{alias}, older name of {name}"),
                alias,
            ))
        });
        let files = self
            .files
            .iter()
            .rev()
            .filter_map(|file| file.get(name))
            .map(|entry| Given {
                value: &entry.value,
                origin: entry.place.clone(),
                name: entry.key.clone(),
                pointer: entry.place.clone(),
            });
        let all = flag.into_iter().chain(own).chain(alias).chain(files);
        all.map(|given| Given {
            value: given.value.trim(),
            ..given
        })
        .filter(|given| !given.value.is_empty())
    }

    /// Where a variable's value comes from: the flag that has set it, its name, an older one, or a place in a file.
    #[must_use]
    pub fn origin(&self, variable: &Variable) -> String {
        self.given(variable)
            .next()
            .map_or_else(|| variable.name.to_owned(), |given| given.origin)
    }

    /// Whether a flag has set it.
    #[must_use]
    pub fn is_flag(&self, variable: &Variable) -> bool {
        self.flags.contains_key(variable.name)
    }

    /// Names of all variables.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.keys().chain(&self.not_utf8).map(String::as_str)
    }

    /// Whether the value of this variable was left out because it is not text.
    #[must_use]
    pub fn is_not_utf8(&self, variable: &Variable) -> bool {
        self.not_utf8.contains(variable.name)
            || env_var::alias(variable.name).is_some_and(|alias| self.not_utf8.contains(alias))
    }

    /// The working directory.
    #[must_use]
    pub fn current_dir(&self) -> &Path {
        &self.current_dir
    }

    /// The program's own path.
    #[must_use]
    pub fn executable(&self) -> Option<&Path> {
        self.executable.as_deref()
    }

    /// How many processors may be used.
    #[must_use]
    pub const fn processors(&self) -> usize {
        self.processors
    }

    /// Whether a person looks on.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        self.terminal
    }
}

/// Shows declared variables that are no secrets; of all others, the name alone would say too much.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.variables.iter().filter_map(|(name, value)| {
                let of_alias = env_var::ALIASES.iter().find(|(alias, _)| alias == name);
                let variable = env_var::find(of_alias.map_or(name.as_str(), |(_, of)| *of))?;
                Some((name, if variable.secret { MASK } else { value.as_str() }))
            }))
            .finish()
    }
}
