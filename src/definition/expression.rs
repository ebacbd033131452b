//! Expressions over what a run knows: `inputs.amount > 100`, `steps.fetch-order.output.lines | length`.
//!
//! The grammar is that of minijinja's expressions, in strict mode: what is not there is an error that names what is. An
//! expression sees `inputs`, `steps.<id>` (`output`, `status`, `error`), and where it makes sense `item`, `index`, `output` and
//! `error`. Step ids may have hyphens, so an id is taken as long as it fits: `steps.run-tests.output` is the output of
//! `run-tests`. Values are never evaluated again, so nothing that a caller sends becomes an expression.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::LazyLock;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::graph::PORT;
use super::template;
use crate::domain::{PortType, coerce};

/// How much an expression may do; a loop over a list of a thousand takes some thousands. What it makes and what filters look at is
/// counted as well, 64 bytes each.
const FUEL: u64 = 200_000;
/// Longest expression, in bytes.
const LONGEST: usize = 4 * 1024;
/// Largest value that one gives, as bytes of JSON.
const LARGEST: usize = 8 << 20;
/// How deep values may be nested: what is read from storage again must be far from the reader's own limit of 128.
pub const DEEPEST: usize = 100;
/// What an expression may look at, counted once for each name in it, as bytes of JSON. An operation that costs a step may copy
/// all of it.
const LOOKED_AT: usize = 64 << 20;
/// The filter that lets numbers through. It stands on both sides of `*`, which would repeat a list or a text a hundred million
/// times.
const NUMBER: &str = "weft_number";
/// Most bytes that a template with `for` may look at, counted once.
const REPEATED: usize = 2 << 20;
/// The member that makes an object an expression: `{"$": "inputs.amount"}`.
pub const MARK: &str = "$";
/// The member that makes an object a template: `{"$text": "Hello {{ inputs.name }}!"}`.
pub const TEXT_MARK: &str = "$text";
/// The member that makes a variable of a command a secret: `{"$secret": "API_KEY"}`.
pub const SECRET_MARK: &str = "$secret";
/// Longest template, in bytes.
const LONGEST_TEMPLATE: usize = 64 * 1024;

/// An expression that can't be read, or that gives nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expression `{expression:.200}`: {message}")]
pub struct ExpressionError {
    /// The expression.
    pub expression: String,
    /// What is wrong with it.
    pub message: String,
    /// Whether that is a step which there isn't.
    pub names_no_step: bool,
}

/// The ids of a graph's steps.
pub trait StepIds {
    /// Whether there is such a step.
    fn has(&self, id: &str) -> bool;
    /// Some of them, to be named in a message.
    fn some(&self) -> Vec<&str>;
}

/// How many ids a message names.
const NAMED: usize = 20;

impl StepIds for [&str] {
    fn has(&self, id: &str) -> bool {
        self.contains(&id)
    }

    fn some(&self) -> Vec<&str> {
        self.iter().take(NAMED).copied().collect()
    }
}

impl StepIds for HashMap<&str, usize> {
    fn has(&self, id: &str) -> bool {
        self.contains_key(id)
    }

    fn some(&self) -> Vec<&str> {
        let mut ids: Vec<_> = self.iter().map(|(id, place)| (*place, *id)).collect();
        ids.sort_unstable();
        ids.into_iter().take(NAMED).map(|(_, id)| id).collect()
    }
}

/// An expression that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    text: String,
    rewritten: String,
    is_template: bool,
    /// Whether it repeats something.
    repeats: bool,
    /// How many words of it could name something.
    words: usize,
    steps: BTreeSet<String>,
    names: BTreeSet<String>,
}

impl Expression {
    /// Reads an expression of a graph with these steps.
    ///
    /// # Errors
    /// When it is none, or names a step that there isn't.
    pub fn parse(text: &str, ids: &(impl StepIds + ?Sized)) -> Result<Self, ExpressionError> {
        let wrong = |message: String| ExpressionError {
            expression: text.to_owned(),
            message,
            names_no_step: false,
        };
        if text.trim().is_empty() {
            return Err(wrong("it is empty".to_owned()));
        }
        if text.len() > LONGEST {
            return Err(wrong(format!("it is longer than {LONGEST} bytes")));
        }
        let (rewritten, steps) = with_quoted_steps(text, ids).map_err(|(message, names_no_step)| ExpressionError {
            names_no_step,
            ..wrong(message)
        })?;
        let rewritten = with_numbers_multiplied(&rewritten).map_err(wrong)?;
        let strict = &*ENVIRONMENT;
        let compiled = strict
            .compile_expression(&rewritten)
            .map_err(|error| wrong(reason(&error)))?;
        let names: HashSet<String> = compiled.undeclared_variables(true);
        let is_own = |name: &String| !strict.globals().any(|(global, _)| global == name);
        let names = names.into_iter().filter(is_own).collect();
        Ok(Self {
            words: words(text),
            text: text.to_owned(),
            rewritten,
            is_template: false,
            repeats: false,
            steps,
            names,
        })
    }

    /// Reads a template: text with `{{ expressions }}`, `{% if %}`, `{% for %}` and `{# comments #}` in it. Its value is a text.
    ///
    /// # Errors
    /// When it is none, or names a step that there isn't.
    pub fn parse_template(text: &str, ids: &(impl StepIds + ?Sized)) -> Result<Self, ExpressionError> {
        let wrong = |message: String| ExpressionError {
            expression: text.to_owned(),
            message,
            names_no_step: false,
        };
        if text.len() > LONGEST_TEMPLATE {
            return Err(wrong(format!("it is longer than {LONGEST_TEMPLATE} bytes")));
        }
        let (mut rewritten, mut steps) = (String::with_capacity(text.len()), BTreeSet::new());
        let parts = template::parts(text).map_err(wrong)?;
        let repeats = parts
            .iter()
            .any(|part| matches!(part, template::Part::Statement(code) if template::bare(code).starts_with("for")));
        let mut counted = 0;
        for part in parts {
            let code = match part {
                template::Part::Text(text) => {
                    rewritten.push_str(text);
                    continue;
                }
                template::Part::Code(code) => code,
                template::Part::Statement(code) => match template::wrong_statement(code) {
                    Some(message) => return Err(wrong(message)),
                    None => code,
                },
            };
            counted += words(code);
            let (code, named) = with_quoted_steps(code, ids).map_err(|(message, names_no_step)| ExpressionError {
                names_no_step,
                ..wrong(message)
            })?;
            rewritten.push_str(&with_numbers_multiplied(&code).map_err(wrong)?);
            steps.extend(named);
        }
        let strict = &*ENVIRONMENT;
        let compiled = strict
            .template_from_str(&rewritten)
            .map_err(|error| wrong(reason(&error)))?;
        let names: HashSet<String> = compiled.undeclared_variables(true);
        let is_own = |name: &String| !strict.globals().any(|(global, _)| global == name);
        let names = names.into_iter().filter(is_own).collect();
        Ok(Self {
            text: text.to_owned(),
            rewritten,
            is_template: true,
            repeats,
            words: counted,
            steps,
            names,
        })
    }

    /// What it looks at, with members as far as they are written with dots: `inputs.order.id`. Steps are one name, `steps`.
    #[must_use]
    pub const fn names(&self) -> &BTreeSet<String> {
        &self.names
    }

    /// Whether it looks at something of this name.
    #[must_use]
    pub fn looks_at(&self, root: &str) -> bool {
        self.names.iter().any(|name| name.split('.').next() == Some(root))
    }

    /// The steps whose outcome it looks at.
    #[must_use]
    pub const fn steps(&self) -> &BTreeSet<String> {
        &self.steps
    }

    /// Whether it may call the output of a step its `outputs`, the other name of it.
    #[must_use]
    pub fn says_outputs(&self) -> bool {
        self.text.contains("outputs")
    }

    /// Whether working it out may take longer than looking something up.
    #[must_use]
    pub fn is_heavy(&self) -> bool {
        self.is_template || self.text.contains(['|', '*', '~', '('])
    }

    /// Its value for what is known.
    ///
    /// # Errors
    /// When something is not there, or doesn't fit.
    pub fn value(&self, known: &Value) -> Result<Value, ExpressionError> {
        self.value_within(known, LARGEST).map(|(value, _)| value)
    }

    /// The same, of at most so many bytes; and how many it has.
    fn value_within(&self, known: &Value, most: usize) -> Result<(Value, usize), ExpressionError> {
        let wrong = |message: String| ExpressionError {
            expression: self.text.clone(),
            message,
            names_no_step: false,
        };
        let names = self.words;
        let most_looked_at = if self.repeats { REPEATED } else { LOOKED_AT };
        let room = (LOOKED_AT / names.max(1)).min(most_looked_at);
        if self.is_heavy() && measured(known, room, usize::MAX).is_err() {
            return Err(wrong(format!(
                "it names {names} things in values of more than {room} bytes; look at less of them, or do it in Python"
            )));
        }
        let strict = &*ENVIRONMENT;
        if self.is_template {
            let text = self.rendered(strict, known, most).map_err(wrong)?;
            let bytes = text.len();
            return Ok((Value::String(text), bytes));
        }
        let compiled = strict
            .compile_expression(&self.rewritten)
            .map_err(|error| wrong(reason(&error)))?;
        let value = compiled
            .eval(minijinja::value::Serde(known))
            .map_err(|error| wrong(reason(&error)))?;
        if value.is_undefined() {
            return Err(wrong(absent(&self.rewritten, known)));
        }
        // Measured before it is built: a list that names another one often is small until then.
        let bytes = measured(&value, most, DEEPEST).map_err(|error| match error {
            Beyond::Bytes => wrong(format!("its value has more than {LARGEST} bytes")),
            Beyond::Depth => wrong(format!("its value is nested more than {DEEPEST} deep")),
            Beyond::Other(message) => wrong(message),
        })?;
        let value = serde_json::to_value(&value).map_err(|error| wrong(error.to_string()))?;
        Ok((value, bytes))
    }

    /// The text of a template, of at most so many bytes.
    fn rendered(&self, strict: &Environment<'_>, known: &Value, most: usize) -> Result<String, String> {
        let compiled = strict
            .template_from_str(&self.rewritten)
            .map_err(|error| reason(&error))?;
        let mut text = Bounded {
            bytes: Vec::new(),
            most,
        };
        let rendered = compiled
            .render_captured_to(minijinja::value::Serde(known), &mut text)
            .map(drop);
        if text.bytes.len() > most {
            return Err(format!("its value has more than {most} bytes"));
        }
        if let Err(error) = rendered {
            // Which one it is the error doesn't say.
            let missing = self.names.iter().find(|name| !is_there(name, known));
            return Err(match (error.kind(), missing) {
                (minijinja::ErrorKind::UndefinedError, Some(name)) => format!("`{name}`: {}", absent(name, known)),
                _ => reason(&error),
            });
        }
        String::from_utf8(text.bytes).map_err(|error| error.to_string())
    }

    /// Its value as a yes or no: null, 0, empty texts and empty lists are no.
    ///
    /// # Errors
    /// As [`Expression::value`].
    pub fn truth(&self, known: &Value) -> Result<bool, ExpressionError> {
        Ok(match self.value(known)? {
            Value::Null => false,
            Value::Bool(truth) => truth,
            Value::Number(number) => number.as_f64() != Some(0.0),
            Value::String(text) => !text.is_empty(),
            Value::Array(items) => !items.is_empty(),
            Value::Object(members) => !members.is_empty(),
        })
    }
}

/// What a template writes, up to an end.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
}

impl std::io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > self.most {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Whether something is known that is written with dots.
fn is_there(name: &str, known: &Value) -> bool {
    let mut at = Some(known);
    for part in name.split('.') {
        at = at.and_then(|at| at.get(part));
    }
    at.is_some()
}

/// Strict, and with so much to do and no more. It costs more than most expressions, so there is one.
static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        environment.set_syntax(syntax);
    }
    environment.add_filter("shell_quote", |value: minijinja::Value| {
        format!("'{}'", value.to_string().replace('\'', "'\\''"))
    });
    environment.add_filter("urlencode", |value: minijinja::Value| url_encoded(&value.to_string()));
    environment.add_filter("tojson", |value: minijinja::Value| {
        serde_json::to_string(&value)
            .map_err(|error| minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, error.to_string()))
    });
    environment.add_filter(PORT, through_port);
    environment.add_filter(NUMBER, |value: minijinja::Value| {
        use minijinja::value::ValueKind::{Bool, Number, Undefined};
        match value.kind() {
            Number | Bool | Undefined => Ok(value),
            kind => {
                let message = format!("`*` multiplies numbers, and this is a {kind}");
                Err(minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, message))
            }
        }
    });
    environment
});

/// What a data edge does: `types` are those of its ports, as `string>integer`; with a `?` behind, nothing may come too. `member`
/// is what it takes, where it doesn't take all.
fn through_port(
    value: minijinja::Value,
    types: &str,
    member: Option<&str>,
) -> Result<minijinja::Value, minijinja::Error> {
    let wrong = |message: String| minijinja::Error::new(minijinja::ErrorKind::InvalidOperation, message);
    let (types, is_optional) = types.strip_suffix('?').map_or((types, false), |types| (types, true));
    let named = types.split_once('>');
    let named = named.and_then(|(from, to)| Some((PortType::named(from)?, PortType::named(to)?)));
    let (from, to) = named.ok_or_else(|| wrong(format!("`{types}` are no types of ports")))?;
    if value.is_undefined() {
        return Ok(value);
    }
    let taken = match member {
        None => value,
        Some(_) if value.is_none() && is_optional => return Ok(value),
        Some(name) => {
            let taken = value.get_attr(name).unwrap_or_default();
            if taken.is_undefined() {
                let there: Vec<String> = match (value.kind(), value.try_iter()) {
                    (minijinja::value::ValueKind::Map, Ok(names)) => {
                        names.take(NAMED).map(|name| format!("`{name}`")).collect()
                    }
                    _ => Vec::new(),
                };
                let there = if there.is_empty() {
                    format!("the step gave {}", value.kind())
                } else {
                    format!("there is {}", there.join(", "))
                };
                return Err(wrong(format!("the step gave no `{name}`; {there}")));
            }
            taken
        }
    };
    if taken.is_none() && is_optional {
        return Ok(taken);
    }
    // Large ones are not copied to be looked at.
    match (from, to, taken.kind()) {
        (_, PortType::Any | PortType::Json, _)
        | (_, PortType::Array, minijinja::value::ValueKind::Seq)
        | (PortType::Any | PortType::Json | PortType::Object, PortType::Object, minijinja::value::ValueKind::Map) => {
            return Ok(taken);
        }
        _ => {}
    }
    let value = serde_json::to_value(&taken).map_err(|error| wrong(error.to_string()))?;
    let coerced = coerce(&value, from, to)
        .map_err(|reason| wrong(format!("`{}` → `{}`: {reason}", from.as_str(), to.as_str())))?;
    Ok(minijinja::value::Serde(&coerced).into())
}

/// All but letters, digits, `-`, `.`, `_` and `~` as `%` and two digits (RFC 3986, section 2.3).
fn url_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            byte if byte.is_ascii_alphanumeric() => out.push(char::from(byte)),
            byte => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

/// Why a value is refused.
enum Beyond {
    Bytes,
    Depth,
    Other(String),
}

/// How many bytes a value has as JSON, if these are no more than `most`, and it is nested no deeper than that.
fn measured(value: &impl Serialize, most: usize, deepest: usize) -> Result<usize, Beyond> {
    struct Measure {
        bytes: usize,
        most: usize,
        depth: usize,
        deepest: usize,
        is_text: bool,
        is_escaped: bool,
        is_too_deep: bool,
    }
    impl std::io::Write for Measure {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.bytes += bytes.len();
            for byte in bytes {
                match byte {
                    _ if self.is_escaped => self.is_escaped = false,
                    b'\\' if self.is_text => self.is_escaped = true,
                    b'"' => self.is_text = !self.is_text,
                    b'[' | b'{' if !self.is_text => self.depth += 1,
                    b']' | b'}' if !self.is_text => self.depth -= 1,
                    _ => {}
                }
                self.is_too_deep |= self.depth > self.deepest;
            }
            if self.bytes > self.most || self.is_too_deep {
                return Err(std::io::ErrorKind::FileTooLarge.into());
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut measure = Measure {
        bytes: 0,
        most,
        depth: 0,
        deepest,
        is_text: false,
        is_escaped: false,
        is_too_deep: false,
    };
    match serde_json::to_writer(&mut measure, value) {
        Ok(()) => Ok(measure.bytes),
        Err(_) if measure.is_too_deep => Err(Beyond::Depth),
        Err(_) if measure.bytes > most => Err(Beyond::Bytes),
        Err(error) => Err(Beyond::Other(error.to_string())),
    }
}

/// Whether a value is nested deeper than [`DEEPEST`].
#[must_use]
pub fn is_too_deep(value: &Value) -> bool {
    matches!(measured(value, usize::MAX, DEEPEST), Err(Beyond::Depth))
}

/// How many words a text has that could name something.
fn words(text: &str) -> usize {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with(|c: char| c.is_alphabetic() || c == '_'))
        .count()
}

/// `a * b` → `a |weft_number* b|weft_number`, so that only numbers are multiplied.
fn with_numbers_multiplied(text: &str) -> Result<String, String> {
    let bytes = text.as_bytes();
    let mut places = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' | b'\'' => at = string_end(bytes, at),
            b'*' if bytes.get(at + 1) == Some(&b'*') => at += 2,
            b'*' => {
                let end = operand_end(bytes, at + 1)
                    .ok_or("`*` multiplies numbers: write a name, a number or parentheses behind it")?;
                places.extend([at, end]);
                at += 1;
            }
            _ => at += 1,
        }
    }
    places.sort_unstable();
    let mut out = String::with_capacity(text.len() + places.len() * (NUMBER.len() + 1));
    let mut from = 0;
    for place in places {
        out.push_str(&text[from..place]);
        out.push('|');
        out.push_str(NUMBER);
        from = place;
    }
    out.push_str(&text[from..]);
    Ok(out)
}

/// Where an operand ends that begins there: a number, a name or parentheses, with members, calls and filters behind it.
fn operand_end(bytes: &[u8], start: usize) -> Option<usize> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let spaces = |mut at: usize| {
        while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
            at += 1;
        }
        at
    };
    let mut at = spaces(start);
    while matches!(bytes.get(at), Some(b'-' | b'+')) {
        at = spaces(at + 1);
    }
    at = match bytes.get(at)? {
        b'(' => closed(bytes, at)?,
        byte if word(*byte) => {
            at + bytes[at..]
                .iter()
                .take_while(|byte| word(**byte) || **byte == b'.')
                .count()
        }
        _ => return None,
    };
    loop {
        let next = spaces(at);
        at = match bytes.get(next) {
            Some(b'(' | b'[') => closed(bytes, next)?,
            Some(b'.' | b'|') => {
                let name = spaces(next + 1);
                name + bytes[name..].iter().take_while(|byte| word(**byte)).count()
            }
            _ => return Some(at),
        };
    }
}

/// Where the parentheses or brackets end that open there.
fn closed(bytes: &[u8], start: usize) -> Option<usize> {
    let (mut at, mut depth) = (start, 0_usize);
    while at < bytes.len() {
        match bytes[at] {
            b'"' | b'\'' => {
                at = string_end(bytes, at);
                continue;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    None
}

fn reason(error: &minijinja::Error) -> String {
    match error.detail() {
        Some(detail) => detail.to_owned(),
        None => error.kind().to_string(),
    }
}

/// What there is where something was looked for that isn't.
fn absent(expression: &str, known: &Value) -> String {
    let mut at = known;
    let mut path = String::new();
    for name in expression
        .split(['.', '[', ']'])
        .map(|name| name.trim_matches(['"', '\'', ' ']))
    {
        if name.is_empty() {
            continue;
        }
        match at.get(name) {
            Some(next) => {
                at = next;
                path = if path.is_empty() {
                    name.to_owned()
                } else {
                    format!("{path}.{name}")
                };
            }
            None => break,
        }
    }
    let there: Vec<String> = match at {
        Value::Object(members) => members.keys().take(20).map(|name| format!("`{name}`")).collect(),
        _ => Vec::new(),
    };
    let place = if path.is_empty() {
        "at the top".to_owned()
    } else {
        format!("in `{path}`")
    };
    if there.is_empty() {
        format!("there is nothing {place}")
    } else {
        format!("it is not there; {place} there is {}", there.join(", "))
    }
}

/// `steps.run-tests.output` → `steps["run-tests"].output`, with the ids that are named; or what is wrong, and whether that is an
/// id which there isn't.
fn with_quoted_steps(text: &str, ids: &(impl StepIds + ?Sized)) -> Result<(String, BTreeSet<String>), (String, bool)> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len() + 8);
    let mut named = BTreeSet::new();
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if byte == b'"' || byte == b'\'' {
            let end = string_end(bytes, at);
            out.push_str(&text[at..end]);
            at = end;
            continue;
        }
        let starts_word = word(byte) && (at == 0 || !(word(bytes[at - 1]) || bytes[at - 1] == b'.'));
        if !(starts_word && text[at..].starts_with("steps") && !bytes.get(at + 5).copied().is_some_and(word)) {
            let next = text[at..].chars().next().map_or(1, char::len_utf8);
            out.push_str(&text[at..at + next]);
            at += next;
            continue;
        }
        at += 5;
        let rest = &text[at..];
        let (id, length) = if let Some(rest) = rest.strip_prefix('.') {
            let id = longest_id(rest, ids).ok_or_else(|| {
                let wrong: String = rest
                    .chars()
                    .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
                    .collect();
                (unknown(&wrong, ids), true)
            })?;
            (id.to_owned(), 1 + id.len())
        } else if rest.starts_with("[\"") || rest.starts_with("['") {
            let end = string_end(rest.as_bytes(), 1);
            let id = rest.get(2..end.saturating_sub(1)).unwrap_or_default();
            if rest.as_bytes().get(end) != Some(&b']') || !ids.has(id) {
                return Err((unknown(id, ids), true));
            }
            (id.to_owned(), end + 1)
        } else {
            let message = "`steps` is followed by the id of a step: `steps.fetch.output`";
            return Err((message.to_owned(), false));
        };
        out.push_str("steps[\"");
        out.push_str(&id);
        out.push_str("\"]");
        at += length;
        named.insert(id);
    }
    Ok((out, named))
}

/// The longest id that a text begins with and that ends where a word does.
fn longest_id<'a>(text: &'a str, ids: &(impl StepIds + ?Sized)) -> Option<&'a str> {
    let bytes = text.as_bytes();
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let most = bytes.iter().take_while(|byte| word(**byte) || **byte == b'-').count();
    (1..=most)
        .rev()
        .filter(|end| !bytes.get(*end).copied().is_some_and(word))
        .map(|end| &text[..end])
        .find(|id| ids.has(id))
}

fn unknown(id: &str, ids: &(impl StepIds + ?Sized)) -> String {
    let known: Vec<String> = ids.some().into_iter().map(|id| format!("`{id}`")).collect();
    let id: String = id.chars().take(63).collect();
    format!("there is no step `{id}`; there is {}", known.join(", "))
}

fn string_end(bytes: &[u8], start: usize) -> usize {
    let quote = bytes[start];
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// What is worked out in a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marked<'a> {
    /// An expression.
    Expression(&'a str),
    /// A template.
    Template(&'a str),
}

impl<'a> Marked<'a> {
    /// As it is written.
    #[must_use]
    pub const fn text(self) -> &'a str {
        match self {
            Self::Expression(text) | Self::Template(text) => text,
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// As [`Expression::parse`].
    pub fn parse(self, ids: &(impl StepIds + ?Sized)) -> Result<Expression, ExpressionError> {
        match self {
            Self::Expression(text) => Expression::parse(text, ids),
            Self::Template(text) => Expression::parse_template(text, ids),
        }
    }
}

/// The expression or template that an object is, if it is one.
#[must_use]
pub fn marked(value: &Value) -> Option<Marked<'_>> {
    match value {
        Value::Object(members) if members.len() == 1 => match (members.get(MARK), members.get(TEXT_MARK)) {
            (Some(text), _) => text.as_str().map(Marked::Expression),
            (_, Some(text)) => text.as_str().map(Marked::Template),
            _ => None,
        },
        _ => None,
    }
}

/// The parameter that chooses a secret: `{"$secret": {"$": "inputs.key"}}`, and nothing else than such a name.
#[must_use]
pub fn secret_input(value: &Value) -> Option<&str> {
    match marked(value.get(SECRET_MARK)?)? {
        Marked::Expression(text) => text
            .trim()
            .strip_prefix("inputs.")
            .filter(|name| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')),
        Marked::Template(_) => None,
    }
}

/// The expressions in a value, with where they stand (as a JSON pointer).
#[must_use]
pub fn expressions(value: &Value) -> Vec<(String, Marked<'_>)> {
    fn walk<'a>(value: &'a Value, pointer: String, found: &mut Vec<(String, Marked<'a>)>) {
        if let Some(text) = marked(value) {
            found.push((pointer, text));
            return;
        }
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    walk(
                        member,
                        format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1")),
                        found,
                    );
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    walk(item, format!("{pointer}/{index}"), found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(value, String::new(), &mut found);
    found
}

/// A value with its expressions worked out; together they give no more than one may.
///
/// # Errors
/// The first that can't be.
pub fn filled(value: &Value, ids: &(impl StepIds + ?Sized), known: &Value) -> Result<Value, ExpressionError> {
    fn fill(
        value: &Value,
        ids: &(impl StepIds + ?Sized),
        known: &Value,
        left: &mut usize,
    ) -> Result<Value, ExpressionError> {
        if let Some(text) = marked(value) {
            let (value, bytes) = text.parse(ids)?.value_within(known, *left)?;
            *left -= bytes;
            return Ok(value);
        }
        Ok(match value {
            Value::Object(members) => {
                let mut filled_in = Map::new();
                for (name, member) in members {
                    filled_in.insert(name.clone(), fill(member, ids, known, left)?);
                }
                Value::Object(filled_in)
            }
            Value::Array(items) => Value::Array(
                items
                    .iter()
                    .map(|item| fill(item, ids, known, left))
                    .collect::<Result<_, _>>()?,
            ),
            other => json!(other),
        })
    }
    let filled = fill(value, ids, known, &mut { LARGEST })?;
    if is_too_deep(&filled) {
        return Err(ExpressionError {
            expression: String::new(),
            message: format!("with what the expressions give, the value is nested more than {DEEPEST} deep"),
            names_no_step: false,
        });
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_are_multiplied() {
        let known = json!({"inputs": {"n": 3, "list": [1, 2], "text": "ab", "deep": {"n": 4}}});
        let value = |text: &str| Expression::parse(text, &[][..]).and_then(|read| read.value(&known));
        for (text, expected) in [
            ("inputs.n * 2", json!(6)),
            ("2*inputs.deep['n'] * (inputs.n + 1) + 1", json!(33)),
            ("-inputs.n * -2", json!(6)),
            ("2 ** 3 * 2", json!(16)),
            ("2 * 3 ** 2", json!(18)),
            ("'*' + inputs.text", json!("*ab")),
            ("inputs.list | length * 5", json!(10)),
            ("5 * inputs.list | length", json!(10)),
            ("(2 * inputs.n) * 1.5", json!(9.0)),
        ] {
            assert_eq!(value(text), Ok(expected), "{text}");
        }
        for text in [
            "inputs.list * 3",
            "3 * inputs.list",
            "[[inputs.text] * 1000] * 1000 | string | length",
            "2 * ([1] * 2)",
            "inputs.text * 3",
            "3 * 'a'",
            "3 * [1]",
            "(inputs.list + inputs.list) * 2",
            "2 * (inputs.list if true else 1)",
            "2 * 3 * inputs.list",
            "2 * inputs.list | list",
        ] {
            let error = value(text).expect_err(text);
            assert!(error.message.contains("`*` multiplies numbers"), "{text}: {error}");
        }
    }

    #[test]
    fn values_have_an_end() {
        let nested = |deep: usize| (0..deep).fold(json!(1), |inner, _| json!([inner]));
        let known = json!({"inputs": {"large": "x".repeat(1 << 20), "deep": nested(99)}});
        let fill = |value: &Value| filled(value, &[][..], &known);
        let large = json!({"$": "inputs.large"});
        assert!(fill(&json!([large, large])).is_ok());
        let message = fill(&json!(vec![large; 300])).unwrap_err().message;
        assert!(message.contains("more than"), "{message}");
        assert!(fill(&json!([{"$": "inputs.deep"}])).is_ok());
        let message = fill(&json!([[{"$": "inputs.deep"}]])).unwrap_err().message;
        assert!(message.contains("deep"), "{message}");
        let long = format!("({}) | length", vec!["inputs.large"; 200].join(" ~ "));
        let message = Expression::parse(&long, &[][..])
            .unwrap()
            .value(&known)
            .unwrap_err()
            .message;
        assert!(message.contains("look at less"), "{message}");
    }

    const IDS: [&str; 4] = ["a", "run", "run-tests", "b_2"];

    fn parse(text: &str) -> Result<Expression, ExpressionError> {
        Expression::parse(text, IDS.as_slice())
    }

    #[test]
    fn ids_with_hyphens_are_members() {
        let known = json!({"steps": {"run-tests": {"output": {"code": 0}}, "run": {"output": 7}, "a": {"output": 2}}});
        let value = |text: &str| parse(text).unwrap().value(&known).unwrap();
        assert_eq!(value("steps.run-tests.output.code == 0"), json!(true));
        assert_eq!(value("steps.run.output - steps.a.output"), json!(5));
        assert_eq!(value("steps['run-tests'].output.code"), json!(0));
        assert_eq!(value("'steps.nobody' ~ steps.run.output"), json!("steps.nobody7"));
        let read = parse("steps.run-tests.output.code + steps.a.output").unwrap();
        assert_eq!(read.steps().iter().collect::<Vec<_>>(), ["a", "run-tests"]);
    }

    #[test]
    fn what_is_looked_at_is_known() {
        let read = parse("inputs.order.id > range(3) | length and steps.a.output and item is defined").unwrap();
        assert_eq!(
            read.names().iter().collect::<Vec<_>>(),
            ["inputs.order.id", "item", "steps"]
        );
        assert!(read.looks_at("inputs") && read.looks_at("item") && !read.looks_at("order"));
        assert!(parse("steps.nobody").unwrap_err().names_no_step && !parse("1 +").unwrap_err().names_no_step);
    }

    #[test]
    fn what_is_not_there_is_named() {
        let known = json!({"inputs": {"amount": 3}, "steps": {}});
        let error = parse("inputs.amuont").unwrap().value(&known).unwrap_err();
        assert!(error.message.contains("in `inputs` there is `amount`"), "{error}");
        assert!(
            parse("steps.nobody.output")
                .unwrap_err()
                .message
                .contains("there is no step `nobody`")
        );
        assert!(parse("steps").is_err() && parse("1 +").is_err() && parse(" ").is_err());
        assert!(parse("inputs.amount.x.y").unwrap().value(&known).is_err());
    }

    #[test]
    fn what_would_not_end_is_ended() {
        let known = json!({"inputs": {"n": 3}});
        let hungry = format!("[{}]", vec!["inputs.n"; 900].join(","));
        assert!(parse(&hungry).unwrap_err().message.contains("longer"));
        assert!(
            parse("range(100000000) | length")
                .and_then(|read| read.value(&known))
                .is_err()
        );
    }

    #[test]
    fn templates_are_texts_in_which_nothing_is_read_again() {
        let known = json!({
            "inputs": {"name": "Ada", "evil": "{{ inputs.name }}{% for x in range(9) %}", "list": [1, 2], "q": "it's a&b",
                "large": "x".repeat(1_500_000)},
            "steps": {"run-tests": {"output": 3}},
        });
        let value = |text: &str| {
            let read = Expression::parse_template(text, IDS.as_slice());
            read.and_then(|read| read.value(&known))
        };
        for (text, expected) in [
            ("Hello {{ inputs.name }}!\n", "Hello Ada!\n"),
            ("{{ inputs.evil }}", "{{ inputs.name }}{% for x in range(9) %}"),
            ("{{ steps.run-tests.output * 2 }}", "6"),
            ("{% for n in inputs.list %}{{ n }},{% endfor %}{# no #}", "1,2,"),
            (
                "{{ inputs.q | shell_quote }} {{ inputs.q | urlencode }}",
                "'it'\\''s a&b' it%27s%20a%26b",
            ),
            (
                "{{ inputs.list | tojson }} {{ '{{' }} steps.nobody",
                "[1,2] {{ steps.nobody",
            ),
            ("{% if inputs.name == 'Ada' %}yes{% else %}no{% endif %}", "yes"),
            (
                "{% raw %}{{ steps.nobody }}{% endraw %} {{- '|' | lower }}",
                "{{ steps.nobody }}|",
            ),
            (
                "{% for n in inputs.list | reverse %}{{ n | string | length }}{% endfor %}",
                "11",
            ),
        ] {
            assert_eq!(value(text), Ok(json!(expected)), "{text}");
        }
        let read = Expression::parse_template("{{ steps.a.output }} {{ inputs.name }}", IDS.as_slice()).unwrap();
        assert!(read.steps().contains("a") && read.looks_at("inputs"));
        for (text, expected) in [
            ("{{ inputs.nmae }}", "there is `name`"),
            ("{{ steps.nobody.output }}", "no step `nobody`"),
            ("{{ inputs.name", "is not closed"),
            ("{% include 'x' %}", "no `{% include %}`"),
            ("{% macro m() %}x{% endmacro %}", "no `{% macro %}`"),
            (
                "{% for a in range(9999) %}{% if (inputs.large | upper) == 'x' %}y{% endif %}{% endfor %}",
                "out of fuel",
            ),
            (
                "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}",
                "",
            ),
        ] {
            let error = value(text).expect_err(text);
            assert!(error.message.contains(expected), "{text}: {error}");
        }
        let large = json!({"inputs": {"x": "x".repeat(1 << 20), "list": vec![0; 100]}});
        let read = Expression::parse_template("{% for n in inputs.list %}{{ inputs.x }}{% endfor %}", &[][..]).unwrap();
        assert!(read.value(&large).unwrap_err().message.contains("more than"));
    }

    #[test]
    fn values_are_filled_in_and_never_read_again() {
        let known = json!({"inputs": {"evil": {"$": "steps"}, "n": 2}});
        let value =
            json!({"a": [{"$": "inputs.n"}, "{{ inputs.n }}"], "b": {"$": "inputs.evil"}, "c": {"$": 1, "d": 2}});
        assert_eq!(
            filled(&value, IDS.as_slice(), &known).unwrap(),
            json!({"a": [2, "{{ inputs.n }}"], "b": {"$": "steps"}, "c": {"$": 1, "d": 2}})
        );
        assert_eq!(expressions(&value).len(), 2);
    }
}
