//! The text of a YAML file → a tree in which everything has its place, or what keeps it from being one.
//!
//! YAML 1.2, core schema. What is refused, each with its place: keys that stand twice, keys that are no plain texts, tags, merge
//! keys, further documents, large files, and anchors whose use makes a file much larger or deeper than it is written.

use std::collections::{BTreeMap, BTreeSet};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};
use serde_json::{Value, json};

use crate::error::Finding;

/// Most values of a file, those that aliases repeat counted each time.
const MOST_NODES: usize = 50_000;
/// Largest file, in bytes.
const LARGEST: usize = 1 << 20;
/// Most bytes of text that anchors and aliases may keep and repeat.
const MOST_REPEATED: usize = 4 << 20;
/// How deep a file may be nested, aliases followed.
const DEEPEST: usize = 60;

/// Line and column, from 1.
pub(super) type Place = (usize, usize);

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tree {
    pub(super) place: Place,
    pub(super) kind: Kind,
}

/// What it is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    /// A text, and whether it stands without quotes.
    Scalar(String, bool),
    /// A list.
    List(Vec<Tree>),
    /// Names, each with its place, and values.
    Map(Vec<(String, Place, Tree)>),
}

impl Tree {
    /// The member of a mapping.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        match &self.kind {
            Kind::Map(members) => members
                .iter()
                .find(|(known, ..)| known == name)
                .map(|(.., value)| value),
            _ => None,
        }
    }

    /// The text as it is written, where it is a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Scalar(text, _) => Some(text),
            _ => None,
        }
    }

    /// Whether it is nothing: an empty value, `~` or `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar(text, true) if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The value that a scalar is, by the core schema: what stands in quotes is a text.
    pub(super) fn scalar(&self) -> Option<Value> {
        let Kind::Scalar(text, plain) = &self.kind else {
            return None;
        };
        if !plain {
            return Some(json!(text));
        }
        Some(match text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Value::Null,
            "true" | "True" | "TRUE" => json!(true),
            "false" | "False" | "FALSE" => json!(false),
            _ => number(text).unwrap_or_else(|| json!(text)),
        })
    }
}

fn number(text: &str) -> Option<Value> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if let Some(octal) = text.strip_prefix("0o") {
        return in_digits(octal, 8);
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return in_digits(hex, 16);
    }
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') || digits == "." {
        return None;
    }
    if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        let plain = text.strip_prefix('+').unwrap_or(text);
        if let Ok(number) = plain.parse::<i64>() {
            return Some(json!(number));
        }
        return plain.parse::<u64>().ok().map(|number| json!(number));
    }
    let is_number = digits
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'-' | b'+'));
    // A number that is beyond all is left a text, and so of the wrong type where a number is meant.
    let number = is_number.then(|| text.parse::<f64>().ok()).flatten()?;
    number.is_finite().then(|| json!(number))
}

fn in_digits(text: &str, radix: u32) -> Option<Value> {
    // The library would take a sign.
    let all = text.chars().all(|c| c.is_digit(radix));
    u64::from_str_radix(text, radix)
        .ok()
        .filter(|_| all)
        .map(|number| json!(number))
}

struct Composer<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    findings: Vec<(Place, Finding)>,
    anchors: BTreeMap<usize, Tree>,
    nodes: usize,
    repeated: usize,
}

/// Reads a file.
pub(super) fn compose(text: &str) -> (Option<Tree>, Vec<(Place, Finding)>) {
    if text.len() > LARGEST {
        let message = format!("the file has {} bytes, more than {LARGEST}", text.len());
        let hint =
            "write less; data belongs into a file or a store of its own, and a part of the workflow can be a workflow";
        return (None, vec![((1, 1), finding("too_large", message, hint))]);
    }
    let mut composer = Composer {
        parser: Parser::new_from_str(text),
        findings: Vec::new(),
        anchors: BTreeMap::new(),
        nodes: 0,
        repeated: 0,
    };
    let tree = match composer.document() {
        Ok(tree) => tree,
        Err(wrong) => {
            composer.findings.push(wrong);
            None
        }
    };
    (tree, composer.findings)
}

type Step<T> = Result<T, (Place, Finding)>;

fn place(at: Marker) -> Place {
    (at.line().max(1), at.col() + 1)
}

fn finding(code: &str, message: impl Into<String>, hint: impl Into<String>) -> Finding {
    Finding::new("", code, message).hint(hint)
}

impl<'a> Composer<'a> {
    fn add(&mut self, at: Place, code: &str, message: impl Into<String>, hint: impl Into<String>) {
        self.findings.push((at, finding(code, message, hint)));
    }

    fn next(&mut self) -> Step<(Event<'a>, Span)> {
        match self.parser.next() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => {
                let message = format!("this is no YAML: {}", error.info());
                let hint = "look at the indentation here and in the line before; texts with `: ` or ` #` in them stand in quotes";
                Err((place(*error.marker()), finding("not_yaml", message, hint)))
            }
            None => Ok((Event::StreamEnd, Span::empty(Marker::new(0, 1, 0)))),
        }
    }

    fn document(&mut self) -> Step<Option<Tree>> {
        let first = loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(_) | Event::Nothing, _) => {}
                (Event::StreamEnd, _) => return Ok(None),
                other => break other,
            }
        };
        let tree = self.tree(first, 0)?;
        loop {
            match self.next()? {
                (Event::StreamEnd, _) => return Ok(Some(tree)),
                (Event::DocumentStart(_), span) => {
                    self.add(
                        place(span.start),
                        "several_documents",
                        "the file has a second document",
                        "take `---` out, or put it into a file of its own",
                    );
                    return Ok(Some(tree));
                }
                _ => {}
            }
        }
    }

    fn tree(&mut self, (event, span): (Event<'a>, Span), depth: usize) -> Step<Tree> {
        let at = place(span.start);
        self.count(at, 1)?;
        if depth > DEEPEST {
            return Err(too_deep(at));
        }
        if let Event::Scalar(_, _, _, Some(tag))
        | Event::SequenceStart(_, Some(tag))
        | Event::MappingStart(_, Some(tag)) = &event
        {
            let shown = format!("{}{}", tag.handle, tag.suffix);
            self.add(
                at,
                "tag",
                format!("tags (`{shown:.40}`) are not read"),
                "write the value itself; a text stands in quotes",
            );
        }
        match event {
            Event::Alias(id) => match self.anchors.get(&id) {
                Some(tree) => {
                    let measure = Measure::of(tree);
                    if depth + measure.height > DEEPEST {
                        return Err(too_deep(at));
                    }
                    let tree = tree.clone();
                    self.repeat(at, measure)?;
                    Ok(Tree { place: at, ..tree })
                }
                None => Err((
                    at,
                    finding(
                        "alias",
                        "the alias stands inside of what it names",
                        "write the value itself",
                    ),
                )),
            },
            Event::Scalar(text, style, anchor, _) => {
                let kind = Kind::Scalar(text.into_owned(), style == ScalarStyle::Plain);
                self.anchored(anchor, Tree { place: at, kind })
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        other => items.push(self.tree(other, depth + 1)?),
                    }
                }
                let kind = Kind::List(items);
                self.anchored(anchor, Tree { place: at, kind })
            }
            Event::MappingStart(anchor, _) => {
                let kind = Kind::Map(self.members(depth)?);
                self.anchored(anchor, Tree { place: at, kind })
            }
            _ => Err((at, finding("not_yaml", "this is no YAML", "write `name: value` lines"))),
        }
    }

    fn members(&mut self, depth: usize) -> Step<Vec<(String, Place, Tree)>> {
        let mut members: Vec<(String, Place, Tree)> = Vec::new();
        let mut seen: BTreeSet<String> = BTreeSet::new();
        loop {
            let (event, span) = self.next()?;
            let at = place(span.start);
            let is_merge;
            let name = match event {
                Event::MappingEnd => return Ok(members),
                Event::Scalar(name, style, ..) => {
                    is_merge = name == "<<" && style == ScalarStyle::Plain;
                    if is_merge {
                        self.add(
                            at,
                            "merge_key",
                            "merge keys (`<<`) are not read",
                            "write the members themselves",
                        );
                    }
                    name.into_owned()
                }
                other => {
                    self.tree((other, span), depth + 1)?;
                    let value = self.next()?;
                    self.tree(value, depth + 1)?;
                    self.add(
                        at,
                        "bad_key",
                        "a name must be a text",
                        "write it as `name: value`; a text that begins with `{` or `[` stands in quotes",
                    );
                    continue;
                }
            };
            let value = self.next()?;
            let value = self.tree(value, depth + 1)?;
            if is_merge {
                continue;
            }
            if !seen.insert(name.clone()) {
                let shown: String = name.chars().take(60).collect();
                self.add(
                    at,
                    "duplicate_key",
                    format!("`{shown}` stands here twice"),
                    "take one of them out",
                );
                continue;
            }
            members.push((name, at, value));
        }
    }

    /// Keeps what has an anchor. That is a copy, so it counts: an anchor at each level would keep the innermost once for each.
    fn anchored(&mut self, anchor: usize, tree: Tree) -> Step<Tree> {
        if anchor > 0 {
            self.repeat(tree.place, Measure::of(&tree))?;
            self.anchors.insert(anchor, tree.clone());
        }
        Ok(tree)
    }

    fn count(&mut self, at: Place, nodes: usize) -> Step<()> {
        self.nodes += nodes;
        if self.nodes <= MOST_NODES {
            return Ok(());
        }
        let message =
            format!("the file has more than {MOST_NODES} values, those that aliases repeat counted each time");
        Err((
            at,
            finding("too_large", message, "write less, and repeat less by aliases"),
        ))
    }

    fn repeat(&mut self, at: Place, measure: Measure) -> Step<()> {
        self.count(at, measure.nodes)?;
        self.repeated += measure.bytes;
        if self.repeated <= MOST_REPEATED {
            return Ok(());
        }
        let message = format!("anchors and aliases repeat more than {MOST_REPEATED} bytes of text");
        Err((at, finding("too_large", message, "repeat less by aliases")))
    }
}

fn too_deep(at: Place) -> (Place, Finding) {
    let message = format!("the file is nested more than {DEEPEST} deep");
    (
        at,
        finding("too_deep", message, "nest less; a workflow of its own can be a step"),
    )
}

/// What a copy of a tree costs.
#[derive(Clone, Copy)]
struct Measure {
    nodes: usize,
    bytes: usize,
    /// Levels below it.
    height: usize,
}

impl Measure {
    fn of(tree: &Tree) -> Self {
        let mut whole = Self {
            nodes: 1,
            bytes: 0,
            height: 0,
        };
        let mut add = |inner: Self| {
            whole.nodes += inner.nodes;
            whole.bytes += inner.bytes;
            whole.height = whole.height.max(inner.height + 1);
        };
        match &tree.kind {
            Kind::Scalar(text, _) => whole.bytes = text.len(),
            Kind::List(items) => items.iter().for_each(|item| add(Self::of(item))),
            Kind::Map(members) => {
                for (name, _, member) in members {
                    let inner = Self::of(member);
                    add(Self {
                        bytes: inner.bytes + name.len(),
                        ..inner
                    });
                }
            }
        }
        whole
    }
}
