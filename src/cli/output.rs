//! What commands print: data on stdout, everything else on stderr.
//!
//! A reader that has gone away (`weft … | head`, a terminal that was closed) needs nothing more: not being able to print is
//! no failure, and no panic.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

use super::Failure;
use crate::error::Finding;

/// A line of data, or several.
pub(super) fn data(text: &str) {
    let mut stdout = std::io::stdout();
    drop(writeln!(stdout, "{}", lines(text)).and_then(|()| stdout.flush()));
}

/// JSON as data. What a terminal would obey is written as JSON escapes it: the same text to whoever reads it as JSON.
pub(super) fn json(value: &impl serde::Serialize) {
    let text = serde_json::to_string_pretty(value).unwrap_or_else(|error| format!("{{\"error\": \"{error}\"}}"));
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) && c != '\n' {
            shown.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            shown.push(c);
        }
    }
    data(&shown);
}

/// Something that a person may want to know.
pub(super) fn note(text: &str) {
    drop(writeln!(std::io::stderr(), "{}", lines(text)));
}

/// A step of long work, when a terminal looks on.
pub(super) fn progress(text: &str) {
    if std::io::stderr().is_terminal() {
        drop(write!(std::io::stderr(), "\r\x1b[2K{text}"));
        drop(std::io::stderr().flush());
    }
}

/// Takes the last progress line away.
pub(super) fn progress_done() {
    if std::io::stderr().is_terminal() {
        drop(write!(std::io::stderr(), "\r\x1b[2K"));
    }
}

/// What would move the cursor, colour, break or turn a line.
fn is_obeyed(c: char) -> bool {
    let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || turns || matches!(c, '\u{2028}' | '\u{2029}')
}

fn shown(text: &str, as_it_is: &[char]) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) && !as_it_is.contains(&c) {
            shown.extend(c.escape_debug());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// A text from elsewhere for one line of a terminal: what would move the cursor, colour, break or turn the line is shown as its code.
pub(super) fn plain(text: &str) -> String {
    shown(text, &[])
}

/// The same for a text of several lines.
fn lines(text: &str) -> String {
    shown(text, &['\n', '\t'])
}

/// Why a command was not done.
pub(super) fn failure(message: &str, hint: Option<&str>, findings: &[Finding]) {
    drop(writeln!(std::io::stderr(), "error: {}", lines(message)));
    for finding in findings {
        drop(writeln!(
            std::io::stderr(),
            "  {}: {}",
            plain(&finding.pointer),
            plain(&finding.message)
        ));
        if let Some(hint) = &finding.hint {
            drop(writeln!(std::io::stderr(), "    hint: {}", plain(hint)));
        }
    }
    if let Some(hint) = hint {
        drop(writeln!(std::io::stderr(), "hint: {}", lines(hint)));
    }
}

/// Every cause of a failure on a line of its own.
pub(super) fn all_causes(causes: &[String]) {
    for (depth, cause) in causes.iter().enumerate() {
        note(&format!("{:indent$}caused by: {cause}", "", indent = 2 * (depth + 1)));
    }
}

/// An error and everything below it, one by one.
pub(super) fn causes(error: &dyn std::error::Error) -> Vec<String> {
    std::iter::successors(Some(error), |error| error.source())
        .map(|error| format!("{error}"))
        .collect()
}

/// An error with everything below it, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Rows under a heading, in columns.
pub(super) fn table(heading: &[&str], rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = heading.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let mut text = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(
                ' ',
                width + 2 - cell.chars().count().min(width + 1),
            ));
        }
        text.trim_end().to_owned()
    };
    data(&line(heading.to_vec()));
    for row in rows {
        data(&line(row.iter().map(String::as_str).collect()));
    }
}

/// Writes a file as a whole or not at all, for this user alone; one that is there is left alone unless `force` says otherwise.
pub(super) fn write_file(path: &Path, bytes: &[u8], force: bool) -> Result<(), Failure> {
    let fail = |error: std::io::Error| Failure::new(format!("`{}` can't be written: {error}", path.display()));
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(fail)?;
    file.write_all(bytes)
        .and_then(|()| file.as_file().sync_all())
        .map_err(fail)?;
    if force {
        return file.persist(path).map(drop).map_err(|error| fail(error.error));
    }
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Failure::new(format!("`{}` is there already", path.display()))
                .hint("name another file, or write over it with `--force`"))
        }
        Err(error) => Err(fail(error.error)),
    }
}
