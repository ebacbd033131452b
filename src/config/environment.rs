//! What the process was started with, taken down once, so that configuration is a function of a value.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use super::env_var::{self, Variable};
use super::secret::MASK;

/// A snapshot of the environment and of the few other facts of the process that settings depend on.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<String, String>,
    /// Variables that are given by something stronger, as a command-line flag, and by what.
    flags: BTreeMap<&'static str, String>,
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

    /// Gives a variable a value that is stronger than the environment's; `by` says where it comes from, as `--port`.
    pub fn set(&mut self, variable: &'static Variable, value: impl Into<String>, by: impl Into<String>) {
        self.variables.insert(variable.name.to_owned(), value.into());
        self.not_utf8.remove(variable.name);
        self.flags.insert(variable.name, by.into());
    }

    /// A variable's value; an empty one counts as not set.
    #[must_use]
    pub fn get(&self, variable: &Variable) -> Option<&str> {
        self.variables
            .get(variable.name)
            .map(|value| value.trim())
            .filter(|value| !value.is_empty())
    }

    /// Where a variable's value comes from: the flag that has set it, or its name.
    #[must_use]
    pub fn origin(&self, variable: &Variable) -> &str {
        self.flags.get(variable.name).map_or(variable.name, String::as_str)
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
                let variable = env_var::find(name)?;
                Some((name, if variable.secret { MASK } else { value.as_str() }))
            }))
            .finish()
    }
}
