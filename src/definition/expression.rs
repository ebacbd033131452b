//! Expressions over what a run knows: `inputs.amount > 100`, `steps.fetch-order.output.lines | length`.
//!
//! The grammar is that of minijinja's expressions, in strict mode: what is not there is an error that names what is. An
//! expression sees `inputs`, `steps.<id>` (`output`, `status`, `error`), and where it makes sense `item`, `index`, `output` and
//! `error`. Step ids may have hyphens, so an id is taken as long as it fits: `steps.run-tests.output` is the output of
//! `run-tests`. Values are never evaluated again, so nothing that a caller sends becomes an expression.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::LazyLock;

use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Map, Value, json};

/// How much an expression may do; a loop over a list of a thousand takes some thousands.
const FUEL: u64 = 200_000;
/// Longest expression, in bytes.
const LONGEST: usize = 4 * 1024;
/// Largest value that one gives, as bytes of JSON.
const LARGEST: usize = 8 << 20;
/// The member that makes an object an expression: `{"$": "inputs.amount"}`.
pub const MARK: &str = "$";

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
        let compiled = ENVIRONMENT
            .compile_expression(&rewritten)
            .map_err(|error| wrong(reason(&error)))?;
        let names: HashSet<String> = compiled.undeclared_variables(true);
        let is_own = |name: &String| !ENVIRONMENT.globals().any(|(global, _)| global == name);
        let names = names.into_iter().filter(is_own).collect();
        Ok(Self {
            text: text.to_owned(),
            rewritten,
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

    /// Its value for what is known.
    ///
    /// # Errors
    /// When something is not there, or doesn't fit.
    pub fn value(&self, known: &Value) -> Result<Value, ExpressionError> {
        let wrong = |message: String| ExpressionError {
            expression: self.text.clone(),
            message,
            names_no_step: false,
        };
        let compiled = ENVIRONMENT
            .compile_expression(&self.rewritten)
            .map_err(|error| wrong(reason(&error)))?;
        let value = compiled
            .eval(minijinja::value::Serde(known))
            .map_err(|error| wrong(reason(&error)))?;
        if value.is_undefined() {
            return Err(wrong(absent(&self.rewritten, known)));
        }
        let value = serde_json::to_value(&value).map_err(|error| wrong(error.to_string()))?;
        if value.to_string().len() > LARGEST {
            return Err(wrong(format!("its value has more than {LARGEST} bytes")));
        }
        Ok(value)
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

static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL));
    environment
});

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

/// The expression that an object is, if it is one.
#[must_use]
pub fn marked(value: &Value) -> Option<&str> {
    match value {
        Value::Object(members) if members.len() == 1 => members.get(MARK)?.as_str(),
        _ => None,
    }
}

/// The expressions in a value, with where they stand (as a JSON pointer).
#[must_use]
pub fn expressions(value: &Value) -> Vec<(String, &str)> {
    fn walk<'a>(value: &'a Value, pointer: String, found: &mut Vec<(String, &'a str)>) {
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

/// A value with its expressions worked out.
///
/// # Errors
/// The first that can't be.
pub fn filled(value: &Value, ids: &(impl StepIds + ?Sized), known: &Value) -> Result<Value, ExpressionError> {
    if let Some(text) = marked(value) {
        return Expression::parse(text, ids)?.value(known);
    }
    Ok(match value {
        Value::Object(members) => {
            let mut filled_in = Map::new();
            for (name, member) in members {
                filled_in.insert(name.clone(), filled(member, ids, known)?);
            }
            Value::Object(filled_in)
        }
        Value::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| filled(item, ids, known))
                .collect::<Result<_, _>>()?,
        ),
        other => json!(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
