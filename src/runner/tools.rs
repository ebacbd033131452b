//! Python tools that a developer has installed (mypy, pytest), run for a command: with a deadline, their output kept.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// Most bytes of output that are kept, of its end.
const KEPT_BYTES: usize = 64 << 10;

/// How a tool ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// The end of what it printed.
    pub output: String,
}

/// Runs an interpreter with these arguments and variables beside the process's own, and waits.
///
/// # Errors
/// When it can't be started, or takes longer than `patience`; then it is killed.
pub async fn run(
    python: &Path,
    arguments: &[OsString],
    variables: &[(&str, OsString)],
    folder: &Path,
    patience: Duration,
) -> io::Result<Ran> {
    // With the developer's own environment: it is the developer's command, and nothing of a server is there.
    let mut command = Command::new(python);
    command
        .args(arguments)
        .current_dir(folder)
        .envs(variables.iter().map(|(name, value)| (*name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let done = tokio::time::timeout(patience, command.output()).await;
    let done = done.map_err(|_| {
        let seconds = patience.as_secs();
        io::Error::new(io::ErrorKind::TimedOut, format!("it took more than {seconds} s"))
    })??;
    let mut text = done.stdout;
    text.extend_from_slice(&done.stderr);
    let from = text.len().saturating_sub(KEPT_BYTES);
    Ok(Ran {
        code: done.status.code(),
        output: String::from_utf8_lossy(&text[from..]).trim_end().to_owned(),
    })
}
