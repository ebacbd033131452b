//! Who resolves and installs: `uv` where there is one, else the interpreter's `pip`. What they are started with, and what of
//! their output must not be shown.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::runner::python::Python;

/// Where packages come from, as the operator has said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Index {
    /// Variables for the resolver, by the names that `pip` has for them: `PIP_INDEX_URL`, `PIP_EXTRA_INDEX_URL`,
    /// `PIP_FIND_LINKS`, `PIP_NO_INDEX`, `PIP_CERT`, `HTTPS_PROXY`, `NO_PROXY`.
    pub variables: Vec<(&'static str, Hidden)>,
    /// `PATH` of this process, in which `uv` is looked for.
    pub search_path: Option<OsString>,
}

/// A value that may hold a credential.
#[derive(Clone, PartialEq, Eq)]
pub struct Hidden(pub String);

impl std::fmt::Debug for Hidden {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// One that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resolver {
    /// The program.
    Uv(PathBuf),
    /// The interpreter that has it.
    Pip(PathBuf),
}

/// The file with the normalised requirements.
pub const REQUIREMENTS: &str = "requirements.txt";
/// The file with the normalised constraints.
pub const CONSTRAINTS: &str = "constraints.txt";

/// The folders of one build.
#[derive(Debug, Clone)]
pub struct Places {
    /// Holds [`REQUIREMENTS`] and [`CONSTRAINTS`].
    pub dir: PathBuf,
    /// Whether there are constraints.
    pub constrained: bool,
    /// Where packages are unpacked.
    pub lib: PathBuf,
    /// Home and temporary folder of the resolver.
    pub home: PathBuf,
    /// What was downloaded before.
    pub cache: PathBuf,
}

impl Resolver {
    /// The best one that there is.
    #[must_use]
    pub fn find(python: &Python, index: &Index) -> Self {
        let folders = index.search_path.as_deref().map(std::env::split_paths);
        let uv = folders.into_iter().flatten().map(|folder| folder.join("uv"));
        uv.filter(|path| path.is_absolute())
            .find(|path| is_program(path))
            .map_or_else(|| Self::Pip(python.path.clone()), Self::Uv)
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Uv(_) => "uv",
            Self::Pip(_) => "pip",
        }
    }

    /// Tells its version.
    #[must_use]
    pub fn version_command(&self, home: &Path) -> Command {
        let mut command = match self {
            Self::Uv(path) => program(path, home),
            Self::Pip(python) => pip(python, home),
        };
        command.arg("--version").stdin(Stdio::null());
        command
    }

    /// Resolves and unpacks. `lock` becomes its standard input: it is empty, and stays locked while the resolver lives.
    #[must_use]
    pub fn install_command(&self, python: &Python, index: &Index, places: &Places, lock: File) -> Command {
        let mut command = match self {
            Self::Uv(path) => {
                let mut command = program(path, &places.home);
                command.args(["pip", "install", "--no-config", "--no-progress", "--color", "never"]);
                command.args(["--no-build", "--link-mode", "copy"]);
                command.arg("--python").arg(&python.path);
                command.env("UV_CACHE_DIR", &places.cache);
                command.env("UV_PYTHON_DOWNLOADS", "never");
                command
            }
            Self::Pip(path) => {
                let mut command = pip(path, &places.home);
                command.args(["install", "--only-binary", ":all:", "--no-compile", "--no-input"]);
                command.args(["--no-color", "--progress-bar", "off", "--disable-pip-version-check"]);
                command.env("PIP_CACHE_DIR", &places.cache);
                command.env("PIP_ROOT_USER_ACTION", "ignore");
                command
            }
        };
        command.arg("--target").arg(&places.lib);
        // By their names alone, since they are shown.
        command.current_dir(&places.dir).args(["-r", REQUIREMENTS]);
        if places.constrained {
            command.args(["-c", CONSTRAINTS]);
        }
        for (name, Hidden(value)) in &index.variables {
            match (self, *name) {
                // The one that `uv` has no variable for.
                (Self::Uv(_), "PIP_NO_INDEX") => {
                    command.arg("--no-index");
                }
                // Folders and pages are separated by spaces for the one and by commas for the other.
                (Self::Uv(_), "PIP_FIND_LINKS") => {
                    let links: Vec<_> = value.split_whitespace().collect();
                    command.env("UV_FIND_LINKS", links.join(","));
                }
                _ => {
                    command.envs(self.spelt(name).iter().map(|name| (name, value)));
                }
            }
        }
        command.stdin(Stdio::from(lock));
        command
    }

    /// What a variable of pip's is called here.
    fn spelt(&self, name: &'static str) -> &'static [&'static str] {
        match (self, name) {
            (_, "HTTPS_PROXY") => &["HTTPS_PROXY", "HTTP_PROXY"],
            (_, "NO_PROXY") => &["NO_PROXY"],
            (Self::Uv(_), "PIP_INDEX_URL") => &["UV_DEFAULT_INDEX"],
            (Self::Uv(_), "PIP_EXTRA_INDEX_URL") => &["UV_INDEX"],
            (Self::Uv(_), "PIP_CERT") => &["SSL_CERT_FILE"],
            (Self::Pip(_), "PIP_INDEX_URL") => &["PIP_INDEX_URL"],
            (Self::Pip(_), "PIP_EXTRA_INDEX_URL") => &["PIP_EXTRA_INDEX_URL"],
            (Self::Pip(_), "PIP_FIND_LINKS") => &["PIP_FIND_LINKS"],
            (Self::Pip(_), "PIP_NO_INDEX") => &["PIP_NO_INDEX"],
            (Self::Pip(_), "PIP_CERT") => &["PIP_CERT"],
            _ => &[],
        }
    }
}

/// Compiles everything below `lib` ahead, as it will be called at `place`.
#[must_use]
pub fn compile_command(python: &Python, lib: &Path, place: &Path, home: &Path) -> Command {
    let mut command = program(&python.path, home);
    command.args(["-I", "-S", "-m", "compileall", "-q", "-j", "0"]);
    command.args(["--invalidation-mode", "unchecked-hash"]);
    command
        .arg("-s")
        .arg(lib)
        .arg("-p")
        .arg(place)
        .arg(lib)
        .stdin(Stdio::null());
    command
}

/// `--only-binary` is about packages of the index: what a wheel itself asks for by address would be built, which runs its
/// code. `uv` refuses that by itself.
const ONLY_WHEELS: &str = "
import runpy, sys
try:
    from pip._internal.distributions.sdist import SourceDistribution
    from pip._internal.exceptions import InstallationError
except ImportError as error:
    sys.exit(f'this pip can not be kept from building packages; install uv ({error})')

def refuse(self, *args, **named):
    raise InstallationError(f'{self.req} is no wheel, and only wheels are installed')

SourceDistribution.prepare_distribution_metadata = refuse
sys.argv[0] = 'pip'
runpy.run_module('pip', run_name='__main__', alter_sys=True)
";

fn pip(python: &Path, home: &Path) -> Command {
    let mut command = program(python, home);
    command.args(["-I", "-c", ONLY_WHEELS]);
    command
}

/// Nothing of this process's environment, no settings of a user or of the machine, a process group of its own.
fn program(path: &Path, home: &Path) -> Command {
    use std::os::unix::process::CommandExt as _;
    #[expect(
        clippy::disallowed_methods,
        reason = "starts the resolver, which runs no code of packages, with an empty environment"
    )]
    let mut command = Command::new(path);
    command
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("LANG", "C.UTF-8")
        .env("HOME", home)
        .env("TMPDIR", home)
        .env("PIP_CONFIG_FILE", "/dev/null")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONUNBUFFERED", "1")
        .current_dir(home)
        .process_group(0);
    command
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Takes credentials out of what is shown.
#[derive(Debug, Clone)]
pub struct Mask {
    secrets: Vec<Hidden>,
}

/// Shorter ones would mask half of the text.
const SHORTEST_SECRET: usize = 4;

impl Mask {
    /// Of everything in these addresses that could be one: user, password, and long parts of the path and the query.
    #[must_use]
    pub fn new(index: &Index) -> Self {
        let mut secrets = Vec::new();
        for (_, Hidden(value)) in &index.variables {
            for address in value.split_whitespace() {
                let Some((_, rest)) = address.split_once("://") else {
                    continue;
                };
                let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
                if let Some((user, _)) = authority.rsplit_once('@') {
                    secrets.extend(user.split(':').map(str::to_owned));
                }
                secrets.extend(
                    path.split(['/', '?', '&', '='])
                        .filter(|part| part.len() >= 16 && part.bytes().any(|b| b.is_ascii_digit()))
                        .map(str::to_owned),
                );
            }
        }
        let decoded: Vec<_> = secrets.iter().map(|secret| percent_decoded(secret)).collect();
        secrets.extend(decoded);
        secrets.retain(|secret| secret.len() >= SHORTEST_SECRET);
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        Self {
            secrets: secrets.into_iter().map(Hidden).collect(),
        }
    }

    /// A line as it may be shown: without credentials and without control characters.
    #[must_use]
    pub fn line(&self, line: &str) -> String {
        let mut shown = without_escapes(line);
        for Hidden(secret) in &self.secrets {
            if shown.contains(secret.as_str()) {
                shown = shown.replace(secret.as_str(), "***");
            }
        }
        without_users(&shown)
    }
}

/// `scheme://user:password@host` of any address, known or not.
fn without_users(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let end = after.find(['/', ' ', '\'', '"', '?', '#']).unwrap_or(after.len());
        let (authority, after) = after.split_at(end);
        match authority.rsplit_once('@') {
            Some((_, host)) => {
                shown.push_str("***@");
                shown.push_str(host);
            }
            None => shown.push_str(authority),
        }
        rest = after;
    }
    shown.push_str(rest);
    shown
}

fn without_escapes(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            // `ESC [ … letter`: a colour or a movement.
            let _ = rest.by_ref().find(char::is_ascii_alphabetic);
        } else if !c.is_control() || c == '\t' {
            shown.push(c);
        }
    }
    shown
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) if first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        let index = Index {
            variables: vec![(
                "PIP_INDEX_URL",
                Hidden("https://me:p%40ssw0rd@pypi.example/aB3dE6gH9jK2mN5p/simple".into()),
            )],
            search_path: None,
        };
        let mask = Mask::new(&index);
        for line in [
            "Looking in indexes: https://me:p%40ssw0rd@pypi.example/aB3dE6gH9jK2mN5p/simple",
            "401 for p@ssw0rd",
            "\u{1b}[31mERROR\u{1b}[0m https://other:p%40ssw0rd@x.example/y and ftp://a:tell-nobody@b/c",
        ] {
            let shown = mask.line(line);
            for secret in ["ssw0rd", "aB3dE6", "tell-nobody", "\u{1b}"] {
                assert!(!shown.contains(secret), "{shown}");
            }
        }
        assert_eq!(
            mask.line("\u{1b}[31mfrom https://pypi.org/simple\u{1b}[0m"),
            "from https://pypi.org/simple"
        );
        assert!(!format!("{index:?} {mask:?}").contains("ssw0rd"));
    }
}
