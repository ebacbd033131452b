//! The text of one file of settings → values of variables with their places, or everything that is wrong with it.
//!
//! A file is one YAML mapping of keys to scalars, and to lists of scalars where a list is meant. There is nothing else that
//! settings need, so anchors, aliases, tags, nesting and further documents are findings, and a file of any shape costs no more
//! than its length.

use std::collections::BTreeMap;
use std::path::Path;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};

use super::env_var::{self, Shape, Variable};
use crate::error::Finding;

/// Largest file, in bytes.
pub(super) const LARGEST: u64 = 64 << 10;
/// Keys of earlier systems that say what is always so here: the only value that they may have, and what to use instead.
const FIXED: [(&str, &str, &str); 2] = [
    (
        "allow_temp_files",
        "each attempt has a temporary folder of its own",
        "`step_disk_bytes` and `step_disk_files` bound what is in it; the security profile `plan_only` runs nothing",
    ),
    (
        "cleanup_temp_files",
        "the folder of an attempt is removed when it ends",
        "`ctx.artifacts` keeps files for longer",
    ),
];

/// What a file says of a variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// The value as a variable would have it.
    pub(super) value: String,
    /// `file:line:column` of the key.
    pub(super) place: String,
    /// The key.
    pub(super) key: String,
}

/// A file that was read.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// By the variables' names.
    pub(super) entries: BTreeMap<&'static str, Entry>,
    /// Everything that is wrong, by place.
    pub(super) findings: Vec<Finding>,
}

/// A value as it is written.
enum Written {
    Scalar(String, ScalarStyle),
    List(Vec<String>),
    /// Said already what is wrong with it.
    Bad,
}

/// Reads the text of a file; `path` is what findings show, and where relative paths start.
pub(super) fn parse(path: &Path, text: &str) -> Parsed {
    let mut reader = Reader {
        path,
        parser: Parser::new_from_str(text),
        parsed: Parsed::default(),
    };
    if let Err(finding) = reader.document() {
        reader.parsed.findings.push(finding);
    }
    reader.parsed
}

struct Reader<'a> {
    path: &'a Path,
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    parsed: Parsed,
}

impl<'a> Reader<'a> {
    fn place(&self, at: Marker) -> String {
        format!("{}:{}:{}", self.path.display(), at.line(), at.col() + 1)
    }

    fn wrong(&mut self, at: Marker, code: &str, message: impl Into<String>, hint: impl Into<String>) {
        let finding = Finding::new(self.place(at), code, message).hint(hint);
        self.parsed.findings.push(finding);
    }

    /// The next event; a text that is no YAML ends everything.
    fn next(&mut self) -> Result<(Event<'a>, Span), Finding> {
        match self.parser.next() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let message = format!("this is no YAML: {}", error.info());
                Err(Finding::new(self.place(*error.marker()), "not_yaml", message)
                    .hint("write one `key: value` in a line; texts with `:` or `#` in quotes"))
            }
            None => Ok((Event::StreamEnd, Span::empty(Marker::new(0, 1, 0)))),
        }
    }

    fn document(&mut self) -> Result<(), Finding> {
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentStart(_) | Event::Nothing => {}
                Event::MappingStart(..) => break,
                Event::StreamEnd => return Ok(()),
                // A file of comments alone.
                Event::Scalar(text, ScalarStyle::Plain, ..) if text.is_empty() || text == "~" || text == "null" => {
                    return Ok(());
                }
                _ => {
                    let message = "the file is no mapping of keys to values";
                    let hint = "write one `key: value` in a line; `weft config template` makes a file with all of them";
                    return Err(Finding::new(self.place(span.start), "not_a_mapping", message).hint(hint));
                }
            }
        }
        let mut seen: BTreeMap<&'static str, (String, String)> = BTreeMap::new();
        loop {
            let (event, span) = self.next()?;
            let key = match event {
                Event::MappingEnd => break,
                Event::Scalar(key, _, 0, None) => key.into_owned(),
                event => {
                    self.skip(event)?;
                    self.wrong(
                        span.start,
                        "bad_key",
                        "a key must be a plain word",
                        "write it as `port: 7071`",
                    );
                    let (event, _) = self.next()?;
                    self.skip(event)?;
                    continue;
                }
            };
            let value = self.value()?;
            self.entry(span.start, key, value, &mut seen);
        }
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(()),
                Event::DocumentStart(_) => {
                    self.wrong(
                        span.start,
                        "several_documents",
                        "the file has a second document, which would be ignored",
                        "take `---` out, or put it into a file of its own",
                    );
                    return Ok(());
                }
                _ => {}
            }
        }
    }

    /// A key's value: a scalar, or a list of scalars.
    fn value(&mut self) -> Result<Written, Finding> {
        let (event, span) = self.next()?;
        match event {
            Event::Scalar(text, style, 0, None) => Ok(Written::Scalar(text.into_owned(), style)),
            Event::SequenceStart(0, None) => {
                let (mut items, mut is_good) = (Vec::new(), true);
                loop {
                    let (event, span) = self.next()?;
                    match event {
                        Event::SequenceEnd => break,
                        Event::Scalar(text, _, 0, None) => items.push(text.into_owned()),
                        event => {
                            self.skip(event)?;
                            is_good = false;
                            self.wrong(
                                span.start,
                                "wrong_type",
                                "an item of a list must be a plain value",
                                "write one `- value` in a line",
                            );
                        }
                    }
                }
                Ok(if is_good { Written::List(items) } else { Written::Bad })
            }
            event => {
                let (code, message) = match event {
                    Event::Alias(_) => ("alias", "aliases (`*name`) are not followed in files of settings"),
                    Event::MappingStart(0, None) => ("wrong_type", "settings are not nested"),
                    _ => (
                        "anchor",
                        "anchors (`&name`) and tags (`!name`) are not read in files of settings",
                    ),
                };
                self.skip(event)?;
                self.wrong(span.start, code, message, "write the value itself");
                Ok(Written::Bad)
            }
        }
    }

    /// Passes over what an event begins.
    fn skip(&mut self, event: Event<'_>) -> Result<(), Finding> {
        let mut depth = i32::from(matches!(event, Event::MappingStart(..) | Event::SequenceStart(..)));
        while depth > 0 {
            match self.next()?.0 {
                Event::MappingStart(..) | Event::SequenceStart(..) => depth += 1,
                Event::MappingEnd | Event::SequenceEnd => depth -= 1,
                Event::StreamEnd => break,
                _ => {}
            }
        }
        Ok(())
    }

    fn entry(&mut self, at: Marker, key: String, value: Written, seen: &mut BTreeMap<&'static str, (String, String)>) {
        if let Some((_, fact, instead)) = FIXED.iter().find(|(fixed, ..)| *fixed == key) {
            let is_so = matches!(&value, Written::Scalar(text, ScalarStyle::Plain) if text == "true");
            if !is_so {
                let message = format!("`{key}` can't be switched off: {fact}");
                self.wrong(at, "not_possible", message, *instead);
            }
            return;
        }
        let Some(variable) = env_var::of_key(&key) else {
            let shown: String = key.chars().take(60).collect();
            let hint = match env_var::nearest_key(&key) {
                Some(nearest) => format!("did you mean `{nearest}`?"),
                None => match env_var::find(&key) {
                    Some(_) => "it is a variable of the environment, which no file may set".to_owned(),
                    None => "`weft config template` shows all keys".to_owned(),
                },
            };
            self.wrong(at, "unknown_key", format!("`{shown}` is no setting of Weft"), hint);
            return;
        };
        if let Some((before, place)) = seen.get(variable.name) {
            let message = format!("`{key}` is set already, as `{before}` in {place}");
            self.wrong(at, "duplicate_key", message, "take one of them out");
            return;
        }
        seen.insert(variable.name, (key.clone(), self.place(at)));
        if let Some(value) = self.as_variable(at, &key, variable, value) {
            let place = self.place(at);
            self.parsed.entries.insert(variable.name, Entry { value, place, key });
        }
    }

    /// The value as the variable would have it; none for null, which counts as not set, and for what it can't be.
    fn as_variable(&mut self, at: Marker, key: &str, variable: &Variable, value: Written) -> Option<String> {
        match (value, variable.shape) {
            (Written::Bad, _) => None,
            (Written::Scalar(text, ScalarStyle::Plain), _) if text.is_empty() || text == "null" || text == "~" => None,
            (Written::Scalar(text, _), Shape::Path) => Some(self.path_below(variable, text)),
            (Written::Scalar(text, _), _) => Some(text),
            (Written::List(items), Shape::List) => {
                if let Some(item) = items.iter().find(|item| item.contains(',')) {
                    let message = format!("an item of `{key}` has a comma in it: `{item:.60}`");
                    self.wrong(at, "wrong_type", message, "write one item in a line");
                    return None;
                }
                Some(items.join(","))
            }
            (Written::List(_), shape) => {
                let message = format!("`{key}` is a list, and must be {}", env_var::shape_in_words(shape));
                self.wrong(at, "wrong_type", message, "write one value");
                None
            }
        }
    }

    /// Relative paths start at the file's folder. The name of a program stays one.
    fn path_below(&self, variable: &Variable, text: String) -> String {
        let is_bare = variable.name == env_var::WEFT_PYTHON.name && !text.contains('/');
        match self.path.parent() {
            Some(folder) if !is_bare => folder.join(text).display().to_string(),
            _ => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Vec<(String, String)> {
        let parsed = parse(Path::new("/c/weft.yaml"), text);
        let found = parsed.findings.into_iter();
        found.map(|finding| (finding.pointer, finding.code)).collect()
    }

    #[test]
    fn values_are_as_variables_have_them() {
        let text = "# mine\nport: 8080\nworkspace: flows\npython: python3.12\nallowed_domains:\n  - github.com\n  - \
                    \"*.example.com\"\nsave_execution_logs: false\nlog: 'info,weft=debug'\nallow_temp_files: true\ndata:\n";
        let parsed = parse(Path::new("/c/weft.yaml"), text);
        assert_eq!(parsed.findings, []);
        let value = |name: &str| parsed.entries.get(name).map(|entry| entry.value.as_str());
        assert_eq!(value("WEFT_PORT"), Some("8080"));
        assert_eq!(value("WEFT_WORKSPACE"), Some("/c/flows"));
        assert_eq!(value("WEFT_PYTHON"), Some("python3.12"));
        assert_eq!(value("WEFT_ALLOWED_DOMAINS"), Some("github.com,*.example.com"));
        assert_eq!(value("WEFT_SAVE_EXECUTION_LOGS"), Some("false"));
        assert_eq!(value("WEFT_LOG"), Some("info,weft=debug"));
        assert_eq!(value("WEFT_DATA"), None);
        assert_eq!(parsed.entries["WEFT_PORT"].place, "/c/weft.yaml:2:1");
    }

    #[test]
    fn everything_that_is_wrong_is_found_at_once() {
        let text = "prt: 1\nport: 1\nport: 2\nlog: [a, b]\nallowed_domains: {a: 1}\npreload: [json, [x]]\nlog_format: &x \
                    text\ndiscovery: *x\ncleanup_temp_files: false\nWEFT_PORT: 1\n[a, b]: 3\nWEBSITE_INSTANCE_ID: 1\n";
        let expected = [
            ("1:1", "unknown_key"),
            ("3:1", "duplicate_key"),
            ("4:1", "wrong_type"),
            ("5:18", "wrong_type"),
            ("6:17", "wrong_type"),
            ("7:13", "anchor"),
            ("8:12", "alias"),
            ("9:1", "not_possible"),
            ("10:1", "unknown_key"),
            ("11:1", "bad_key"),
            ("12:1", "unknown_key"),
        ];
        let mut found = findings(text);
        found
            .iter_mut()
            .for_each(|(place, _)| *place = place.replace("/c/weft.yaml:", ""));
        let expected = expected.map(|(place, code)| (place.to_owned(), code.to_owned()));
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_no_mapping_is_refused() {
        assert_eq!(findings(""), []);
        assert_eq!(findings("# nothing\n"), []);
        for (text, code) in [
            ("- a\n", "not_a_mapping"),
            ("port", "not_a_mapping"),
            ("port: [1\n", "not_yaml"),
            ("port: 1\n---\nport: 2\n", "several_documents"),
        ] {
            let found: Vec<_> = findings(text).into_iter().map(|(_, code)| code).collect();
            assert_eq!(found, [code], "{text}");
        }
    }

    #[test]
    fn a_bomb_is_a_finding() {
        let mut text = String::from("a: &a [x,x,x,x,x,x,x,x]\n");
        for letter in 'b'..='z' {
            let before = char::from(u8::try_from(u32::from(letter) - 1).expect("a letter"));
            text.push_str(&format!(
                "{letter}: &{letter} [*{before},*{before},*{before},*{before}]\n"
            ));
        }
        assert!(findings(&text).len() >= 26);
        let deep = format!("port: {}", "[".repeat(20_000));
        assert!(!findings(&deep).is_empty());
    }
}
