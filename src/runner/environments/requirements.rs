//! What a workspace asks for: `requirements.txt` files → normalised lines, or findings with line numbers.
//!
//! Only names with versions get through, so the resolver is handed no path, no address and no option of the workspace's
//! choosing. What it reads is the normalised text, never the workspace's own files.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::domain::sha256_hex;
use crate::error::Finding;
use crate::runner::environment::ROOT_NAME;
use crate::runner::python::Python;

/// The file that a workspace names its packages in.
pub const FILE: &str = "requirements.txt";

/// Changes whenever environments are made differently from the same lines.
const FORMAT: u32 = 1;
const MAX_FILES: usize = 64;
const MAX_FILE_BYTES: u64 = 256 << 10;
const MAX_LINES: usize = 4_000;

/// What is to be installed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Requirements {
    /// Normalised requirements; never empty.
    pub lines: BTreeSet<String>,
    /// Normalised constraints.
    pub constraints: BTreeSet<String>,
}

impl Requirements {
    /// The name of the environment: 64 hexadecimal digits that stand for the lines and for the interpreter that they are
    /// resolved for.
    #[must_use]
    pub fn digest(&self, python: &Python) -> String {
        let mut minor = python.version.splitn(3, '.');
        let version = [minor.next().unwrap_or_default(), minor.next().unwrap_or_default()].join(".");
        let identity = serde_json::json!([FORMAT, self.lines, self.constraints, version, python.abi]);
        sha256_hex(identity.to_string().as_bytes())
    }
}

/// Reads `requirements.txt` of a workspace and of its node folders (`nodes/<node>/requirements.txt`). They make up one
/// environment. None when they ask for nothing.
///
/// # Errors
/// Everything in them that is not a name with a version.
pub fn read(workspace: &Path) -> Result<Option<Requirements>, Vec<Finding>> {
    let mut reader = Reader {
        root: workspace.canonicalize().unwrap_or_else(|_| workspace.to_owned()),
        wanted: Requirements::default(),
        findings: Vec::new(),
        seen: BTreeSet::new(),
        lines: 0,
    };
    let mut files = vec![workspace.join(FILE)];
    if let Ok(nodes) = std::fs::read_dir(workspace.join("nodes")) {
        files.extend(nodes.flatten().map(|node| node.path().join(FILE)));
    }
    files.sort();
    for file in files {
        // A link is no part of a workspace.
        if std::fs::symlink_metadata(&file).is_ok_and(|meta| meta.is_file()) {
            reader.file(&file, Purpose::Requirement);
        }
    }
    if !reader.findings.is_empty() {
        return Err(reader.findings);
    }
    Ok((!reader.wanted.lines.is_empty()).then_some(reader.wanted))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose {
    Requirement,
    Constraint,
}

struct Reader {
    root: PathBuf,
    wanted: Requirements,
    findings: Vec<Finding>,
    seen: BTreeSet<(Purpose, PathBuf)>,
    lines: usize,
}

impl Reader {
    fn file(&mut self, path: &Path, purpose: Purpose) {
        let shown = self.shown(path);
        if !self.seen.insert((purpose, path.to_owned())) {
            return;
        }
        if self.seen.len() > MAX_FILES {
            self.refuse(
                &shown,
                1,
                "too_many_files",
                format!("more than {MAX_FILES} requirements files"),
                "",
            );
            return;
        }
        let text = match std::fs::metadata(path) {
            Ok(meta) if meta.len() > MAX_FILE_BYTES => Err(format!("it has more than {MAX_FILE_BYTES} bytes")),
            Ok(_) => std::fs::read(path)
                .map_err(|error| error.to_string())
                .and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())),
            Err(error) => Err(error.to_string()),
        };
        let text = match text {
            Ok(text) => text,
            Err(why) => {
                self.refuse(&shown, 1, "unreadable", format!("the file can't be read: {why}"), "");
                return;
            }
        };
        for (number, line) in logical_lines(&text) {
            self.lines += 1;
            if self.lines > MAX_LINES {
                self.refuse(
                    &shown,
                    number,
                    "too_many_lines",
                    format!("more than {MAX_LINES} requirements"),
                    "",
                );
                return;
            }
            self.line(path, &shown, number, &line, purpose);
        }
    }

    fn line(&mut self, path: &Path, shown: &str, number: usize, line: &str, purpose: Purpose) {
        if line.starts_with('-') {
            match included(line) {
                Some((purpose, name)) => self.include(path, shown, number, name, purpose),
                None if is_harmless(line) => {}
                None => {
                    let (code, message, hint) = refused_option(line);
                    self.refuse(shown, number, code, message, hint);
                }
            }
            return;
        }
        match normalised(line) {
            Ok(line) => {
                let lines = match purpose {
                    Purpose::Requirement => &mut self.wanted.lines,
                    Purpose::Constraint => &mut self.wanted.constraints,
                };
                lines.insert(line);
            }
            Err((code, message, hint)) => self.refuse(shown, number, code, message, hint),
        }
    }

    fn include(&mut self, from: &Path, shown: &str, number: usize, name: &str, purpose: Purpose) {
        let path = from.parent().unwrap_or(&self.root).join(name);
        match path.canonicalize() {
            Ok(path) if path.starts_with(&self.root) => self.file(&path, purpose),
            Ok(_) => self.refuse(
                shown,
                number,
                "outside_workspace",
                format!("`{name}` is outside of the workspace"),
                "move the file into the workspace",
            ),
            Err(_) => self.refuse(
                shown,
                number,
                "file_missing",
                format!("there is no file `{name}` beside this one"),
                "",
            ),
        }
    }

    fn shown(&self, path: &Path) -> String {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let relative = path.strip_prefix(&self.root).unwrap_or(&path);
        format!("{ROOT_NAME}/{}", relative.display())
    }

    fn refuse(&mut self, shown: &str, line: usize, code: &str, message: String, hint: &str) {
        let finding = Finding::new(format!("{shown}:{line}:1"), code, message);
        self.findings
            .push(if hint.is_empty() { finding } else { finding.hint(hint) });
    }
}

/// Lines without comments, continued ones joined, with the number of their first.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (index, raw) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let (start, mut line) = open.take().unwrap_or((index + 1, String::new()));
        if let Some(more) = raw.strip_suffix('\\') {
            line.push_str(more);
            open = Some((start, line));
            continue;
        }
        line.push_str(raw);
        lines.push((start, line));
    }
    lines.extend(open);
    for (_, line) in &mut lines {
        let comment = line
            .char_indices()
            .find(|(at, c)| *c == '#' && (*at == 0 || line[..*at].ends_with(char::is_whitespace)));
        if let Some((at, _)) = comment {
            line.truncate(at);
        }
        *line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    lines.retain(|(_, line)| !line.is_empty());
    lines
}

fn included(line: &str) -> Option<(Purpose, &str)> {
    for (option, purpose) in [
        ("--requirement", Purpose::Requirement),
        ("--constraint", Purpose::Constraint),
        ("-r", Purpose::Requirement),
        ("-c", Purpose::Constraint),
    ] {
        if let Some(rest) = line.strip_prefix(option) {
            let name = rest.trim_start_matches([' ', '=']);
            let separated = rest.len() > name.len() || !option.starts_with("--");
            return (separated && !name.is_empty()).then_some((purpose, name));
        }
    }
    None
}

/// What says only what holds anyway.
fn is_harmless(line: &str) -> bool {
    matches!(line, "--prefer-binary" | "--only-binary :all:" | "--only-binary=:all:")
}

fn refused_option(line: &str) -> (&'static str, String, &'static str) {
    let option = line.split([' ', '=']).next().unwrap_or(line);
    match option {
        "-e" | "--editable" => (
            "runs_code",
            format!("`{option}` would run the package's own build"),
            "put the code into the workspace, or publish it as a wheel",
        ),
        "--no-binary" | "--only-binary" | "--config-settings" | "--global-option" | "--no-build-isolation" => (
            "runs_code",
            format!("`{option}` would let packages be built here, which runs their code"),
            "only wheels are installed; choose a version that has one",
        ),
        "-i" | "--index-url" | "--extra-index-url" | "--no-index" | "-f" | "--find-links" | "--trusted-host" => (
            "index_in_workspace",
            format!("`{option}` would choose where packages come from"),
            "that is the operator's to say: set `WEFT_PIP_INDEX_URL`",
        ),
        _ => (
            "unknown_option",
            format!("the option `{option}` is not supported"),
            "only `-r FILE` and `-c FILE` are",
        ),
    }
}

type Refused = (&'static str, String, &'static str);

/// A requirement in one spelling, so that equal ones are equal text.
fn normalised(line: &str) -> Result<String, Refused> {
    let no = |code, message: String, hint| Err((code, message, hint));
    let shown: String = line.chars().take(100).collect();
    let direct = "name the package and a version; only packages of the index are installed";
    if line.contains("://") || line.starts_with("git+") || line.contains(" @ ") {
        return no("direct_reference", format!("`{shown}` is an address"), direct);
    }
    let mut words = line.split(" --");
    let requirement = words.next().unwrap_or_default().trim();
    let mut hashes = BTreeSet::new();
    for word in words {
        match word.trim().strip_prefix("hash=").filter(|hash| is_hash(hash)) {
            Some(hash) => hashes.insert(format!("--hash={hash}")),
            None => {
                return no(
                    "requirement_option",
                    format!("`--{word}` is not supported"),
                    "only `--hash=sha256:…` is",
                );
            }
        };
    }
    let (requirement, marker) = match requirement.split_once(';') {
        Some((requirement, marker)) => (requirement.trim(), marker.trim()),
        None => (requirement, ""),
    };
    if !marker
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || " '\"._-<>=!~(),".contains(c))
    {
        return no("not_a_requirement", format!("`{marker}` is no marker"), "");
    }
    let name_ends = requirement
        .find(|c: char| !(c.is_ascii_alphanumeric() || "._-".contains(c)))
        .unwrap_or(requirement.len());
    let (name, rest) = requirement.split_at(name_ends);
    let is_file = [".whl", ".zip", ".gz", ".bz2"]
        .iter()
        .any(|end| requirement.ends_with(end));
    if requirement.contains(['/', '\\']) || name.starts_with('.') || is_file {
        return no("local_path", format!("`{shown}` is a path"), direct);
    }
    let rest = rest.trim();
    let (extras, versions) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((extras, versions)) => (extras, versions.trim()),
        None => ("", rest),
    };
    let versions = versions
        .strip_prefix('(')
        .and_then(|versions| versions.strip_suffix(')'))
        .unwrap_or(versions);
    let extras: BTreeSet<_> = split(extras).map(canonical).collect();
    let versions: BTreeSet<_> = split(versions)
        .map(|version| version.split_whitespace().collect::<String>())
        .collect();
    let sound = is_name(name) && extras.iter().all(|extra| is_name(extra)) && versions.iter().all(|v| is_specifier(v));
    if !sound {
        return no(
            "not_a_requirement",
            format!("`{shown}` is no requirement"),
            "write one per line, as `httpx==0.28.1` or `pandas>=2,<3`",
        );
    }
    let join = |words: BTreeSet<String>, with| words.into_iter().collect::<Vec<_>>().join(with);
    let mut line = canonical(name);
    if !extras.is_empty() {
        line = format!("{line}[{}]", join(extras, ","));
    }
    line.push_str(&join(versions, ","));
    if !marker.is_empty() {
        line = format!("{line} ; {marker}");
    }
    for hash in hashes {
        line = format!("{line} {hash}");
    }
    Ok(line)
}

fn split(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|word| !word.is_empty())
}

/// A package's name as indexes compare it.
pub(super) fn canonical(name: &str) -> String {
    let words: Vec<_> = name.split(['-', '_', '.']).filter(|word| !word.is_empty()).collect();
    words.join("-").to_ascii_lowercase()
}

fn is_name(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    edge(name.chars().next()) && edge(name.chars().next_back())
}

fn is_specifier(text: &str) -> bool {
    ["===", "==", "~=", "!=", "<=", ">=", "<", ">"]
        .iter()
        .find_map(|operator| text.strip_prefix(operator))
        .is_some_and(|version| {
            !version.is_empty()
                && version
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || "._*+!-".contains(c))
        })
}

fn is_hash(text: &str) -> bool {
    text.split_once(':').is_some_and(|(algorithm, digits)| {
        ["sha256", "sha384", "sha512"].contains(&algorithm) && digits.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_files(files: &[(&str, &str)]) -> Result<Option<Requirements>, Vec<Finding>> {
        let home = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = home.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        read(home.path())
    }

    #[test]
    fn equal_requirements_are_equal_text() {
        let plain = read_files(&[("requirements.txt", "idna>=3,<4\nSix==1.16.0\nuvicorn[standard]==0.30\n")]);
        let odd = read_files(&[
            (
                "requirements.txt",
                "\u{feff}# ours\n-r more/a.txt\nsix  == 1.16.0   # because\n\n",
            ),
            ("more/a.txt", "IDNA \\\n  <4, >=3\n-r ../requirements.txt\n"),
            (
                "nodes/web/requirements.txt",
                "Uvicorn [standard] (==0.30)\n--prefer-binary\n",
            ),
        ]);
        assert_eq!(odd, plain);
        assert!(plain.unwrap().is_some());
        assert_eq!(read_files(&[]), Ok(None));
        assert_eq!(read_files(&[("requirements.txt", "# nothing\n\n")]), Ok(None));
        let constrained = read_files(&[("requirements.txt", "six\n-c pins.txt\n"), ("pins.txt", "six<2\n")]);
        assert_eq!(constrained.unwrap().unwrap().constraints, ["six<2".to_owned()].into());
    }

    #[test]
    fn what_reaches_elsewhere_is_found_with_its_line() {
        for (line, code) in [
            ("-e .", "runs_code"),
            ("--editable=./x", "runs_code"),
            ("--no-binary :all:", "runs_code"),
            ("--only-binary=:none:", "runs_code"),
            ("--index-url https://evil.example", "index_in_workspace"),
            ("-ihttps://evil.example", "unknown_option"),
            ("--trusted-host evil.example", "index_in_workspace"),
            ("-f /tmp", "index_in_workspace"),
            ("-r ../../../../etc/passwd", "outside_workspace"),
            ("-r missing.txt", "file_missing"),
            ("./local", "local_path"),
            ("/opt/x-1.0-py3-none-any.whl", "local_path"),
            ("x-1.0.tar.gz", "local_path"),
            ("git+https://example.com/x.git", "direct_reference"),
            ("x @ file:///etc", "direct_reference"),
            ("x @ ./y", "direct_reference"),
            ("x@./y", "local_path"),
            ("six==1 --global-option=x", "requirement_option"),
            ("six==1 --hash=md5:00", "requirement_option"),
            ("six ${SECRET}", "not_a_requirement"),
            ("six==", "not_a_requirement"),
            ("two words", "not_a_requirement"),
        ] {
            let findings = read_files(&[("requirements.txt", &format!("# first\nidna\n{line}\n"))]).unwrap_err();
            let [finding] = findings.as_slice() else {
                panic!("{line}: {findings:?}")
            };
            assert_eq!(finding.code, code, "{line}: {finding:?}");
            assert_eq!(finding.pointer, "workspace/requirements.txt:3:1", "{line}");
        }
    }

    #[test]
    fn the_interpreter_is_part_of_the_name() {
        let wanted = read_files(&[("requirements.txt", "six")]).unwrap().unwrap();
        let python = |version: &str, abi: &str| Python {
            version: version.into(),
            abi: abi.into(),
            ..Python::default()
        };
        let digest = wanted.digest(&python("3.11.7", "a"));
        assert_eq!(digest, wanted.digest(&python("3.11.9", "a")));
        assert_ne!(digest, wanted.digest(&python("3.12.7", "a")));
        assert_ne!(digest, wanted.digest(&python("3.11.7", "b")));
    }
}
