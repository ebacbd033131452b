//! Finding a Python interpreter, once: its real executable, not a version manager's shim that costs 60 ms each time.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::RunnerError;

/// The oldest version that the runtime works with.
pub const OLDEST: (u32, u32) = (3, 11);

/// What is tried when none is configured, in this order.
const CANDIDATES: [&str; 5] = ["python3", "python3.14", "python3.13", "python3.12", "python3.11"];
/// Who it is, what its extension modules must be built for, and where packages lie that are installed for it. `-S` leaves
/// the last two of a virtual environment unsaid, so they are worked out here.
const PROBE: &str = "
import _imp, os, site, sys
print(sys.executable)
print('.'.join(map(str, sys.version_info[:3])))
print(sys.implementation.cache_tag, _imp.extension_suffixes()[0], sys.platform, os.uname().machine)
prefixes = [sys.base_prefix]
home = os.path.dirname(os.path.dirname(sys.executable))
try:
    with open(os.path.join(home, 'pyvenv.cfg')) as file:
        shared = 'include-system-site-packages=true' in file.read().lower().replace(' ', '')
    prefixes = [home] + prefixes * shared
except OSError:
    pass
for folder in site.getsitepackages(prefixes):
    if os.path.isdir(folder):
        # Where it really is: that is what a step may read.
        print(os.path.realpath(folder))
";
const PATIENCE: Duration = Duration::from_secs(20);

/// An interpreter that is new enough.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Python {
    /// Its executable.
    pub path: PathBuf,
    /// As `3.11.7`.
    pub version: String,
    /// What its extension modules must be built for: implementation, interface, system, processor.
    pub abi: String,
    /// Folders with packages that are installed for it.
    pub packages: Vec<PathBuf>,
}

enum Found {
    Usable(Python),
    TooOld(Python),
    No(String),
}

/// Finds the interpreter: the configured one, or the first on `PATH` that is new enough. Runs each candidate once and
/// waits for it, 20 s at most, so call it where blocking is allowed.
///
/// # Errors
/// [`RunnerError::NoPython`], naming what was found.
pub fn find(configured: Option<&str>) -> Result<Python, RunnerError> {
    let no = |reason: String| Err(RunnerError::NoPython { reason });
    if let Some(name) = configured {
        return match probe(name) {
            Found::Usable(python) => Ok(python),
            Found::TooOld(python) => no(too_old(&python)),
            Found::No(why) => no(format!("`{name}` was configured, but {why}")),
        };
    }
    let mut old = None;
    for name in CANDIDATES {
        match probe(name) {
            Found::Usable(python) => return Ok(python),
            Found::TooOld(python) => old = old.or(Some(python)),
            Found::No(why) => tracing::debug!(candidate = name, why, "no interpreter"),
        }
    }
    match old {
        Some(python) => no(too_old(&python)),
        None => no("there is no `python3` on the PATH".to_owned()),
    }
}

fn too_old(python: &Python) -> String {
    let (major, minor) = OLDEST;
    tracing::debug!(path = %python.path.display(), version = python.version, "this interpreter is too old");
    // Callers are told of it, who are not to learn where things lie here.
    let name = python.path.file_name().unwrap_or_default().to_string_lossy();
    format!(
        "`{name}` is Python {}, and {major}.{minor} or newer is needed",
        python.version
    )
}

fn probe(name: &str) -> Found {
    // With the handler's environment, because shims need it; `-I` and `-S` keep it from reaching Python itself.
    #[expect(
        clippy::disallowed_methods,
        reason = "asks an interpreter who it is, before any code of a workspace exists"
    )]
    let spawned = Command::new(name)
        .args(["-I", "-S", "-c", PROBE])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Found::No("there is no such program".into());
        }
        Err(error) => return Found::No(format!("it can't be started: {error}")),
    };
    let stdout = child.stdout.take();
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let read = stdout.map(|pipe| pipe.take(16_384).read_to_string(&mut text));
        let _ = sender.send(read.map(|_| text));
    });
    let text = receiver.recv_timeout(PATIENCE);
    if text.is_err() {
        let _ = child.kill();
    }
    let status = child.wait();
    let Ok(Some(text)) = text else {
        return Found::No("it does not answer".into());
    };
    if let Some(signal) = status.as_ref().ok().and_then(ExitStatusExt::signal) {
        return Found::No(format!("it was killed by signal {signal} before it answered"));
    }
    if !status.is_ok_and(|status| status.success()) {
        return Found::No("it is not a Python 3 interpreter".into());
    }
    read_answer(&text).unwrap_or_else(|| Found::No("it does not answer like Python".into()))
}

fn read_answer(text: &str) -> Option<Found> {
    let mut lines = text.lines();
    let path = PathBuf::from(lines.next()?);
    let version = lines.next()?.to_owned();
    let mut numbers = version.split('.').map(str::parse::<u32>);
    let version_pair = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    if !path.is_absolute() {
        return None;
    }
    let abi = lines.next().unwrap_or_default().to_owned();
    let packages = lines.map(PathBuf::from).filter(|path| path.is_absolute()).collect();
    let python = Python {
        path,
        version,
        abi,
        packages,
    };
    Some(if version_pair >= OLDEST {
        Found::Usable(python)
    } else {
        Found::TooOld(python)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        assert!(matches!(
            read_answer("/usr/bin/python3\n3.11.7\n"),
            Some(Found::Usable(_))
        ));
        assert!(matches!(
            read_answer("/usr/bin/python3\n3.14.0\n"),
            Some(Found::Usable(_))
        ));
        assert!(matches!(
            read_answer("/usr/bin/python3\n3.9.2\n"),
            Some(Found::TooOld(_))
        ));
        assert!(read_answer("hello\n").is_none());
        assert!(read_answer("\n3.11.1\n").is_none());
    }

    #[test]
    fn a_missing_one_is_named() {
        let error = find(Some("/nonexistent/python3")).unwrap_err().to_string();
        assert!(
            error.contains("/nonexistent/python3") && error.contains("no such program"),
            "{error}"
        );
        let error = find(Some("true")).unwrap_err().to_string();
        assert!(error.contains("not answer like Python"), "{error}");
    }
}
