//! Arguments of a workflow as a command line gives them: `--inputs JSON`, and `--input name=value` typed as declared.

use std::path::Path;

use clap::Args;
use serde_json::{Map, Value};

use super::Failure;
use crate::definition::validate;
use crate::domain::{Declared, Parameter, ROUNDED_HINT, read_json, rounded};
use crate::error::Finding;

/// Most bytes of a file of arguments.
const LARGEST: u64 = 16 << 20;

/// Flags that give arguments.
#[derive(Debug, Clone, Args)]
pub(super) struct Inputs {
    /// One argument; its value is read as the parameter's type says. May be given several times
    #[arg(long = "input", short = 'i', value_name = "NAME=VALUE")]
    input: Vec<String>,
    /// Arguments as a JSON object, or `@FILE` with one; `@-` is stdin
    #[arg(long, value_name = "JSON")]
    inputs: Option<String>,
}

/// The arguments of a workflow.
pub(super) struct Arguments {
    /// As they were given.
    pub(super) given: Map<String, Value>,
    /// With defaults.
    pub(super) whole: Map<String, Value>,
}

impl Inputs {
    /// The arguments of a workflow as they are given, and with its defaults.
    ///
    /// # Errors
    /// What can't be read, or everything that does not fit its parameters.
    pub(super) fn of(&self, workflow: &Declared) -> Result<Arguments, Failure> {
        let given = self.read(&workflow.parameters)?;
        match validate(&workflow.parameters, &given) {
            Ok(whole) => Ok(Arguments { given, whole }),
            Err(findings) => {
                let count = findings.len();
                let mut failure = Failure::new(format!("the arguments of `{}` have {count} finding(s)", workflow.name));
                failure.findings = findings;
                Err(failure)
            }
        }
    }

    /// The arguments; those of `--input` come before those of `--inputs`. Whether they fit is for the start of the run to say.
    ///
    /// # Errors
    /// What can't be read, all at once.
    pub(super) fn read(&self, parameters: &[Parameter]) -> Result<Map<String, Value>, Failure> {
        let mut arguments = match &self.inputs {
            Some(text) => object(text)?,
            None => Map::new(),
        };
        let mut findings = Vec::new();
        for pair in &self.input {
            let Some((name, text)) = pair.split_once('=') else {
                let finding = Finding::new("--input", "no_value", format!("`{pair}` has no `=`"));
                findings.push(finding.hint("write `--input name=value`"));
                continue;
            };
            let kind = parameters.iter().find(|parameter| parameter.name == name);
            match typed(kind.map_or("string", |parameter| parameter.kind.as_str()), text) {
                Ok(value) => {
                    arguments.insert(name.to_owned(), value);
                }
                Err(wanted) => {
                    let message = format!("`{name}` is `{text:.80}`, which is not {wanted}");
                    findings.push(Finding::new(format!("/{name}"), "wrong_type", message));
                }
            }
        }
        if findings.is_empty() {
            return Ok(arguments);
        }
        let mut failure = Failure::new(format!("the arguments have {} finding(s)", findings.len()));
        failure.findings = findings;
        Err(failure)
    }
}

/// A text as a value of a type; else what it should have been.
fn typed(kind: &str, text: &str) -> Result<Value, &'static str> {
    const LOSSLESS: &str = "JSON without whole numbers beyond 64 bits and without members that stand twice";
    let read = read_json(text.as_bytes()).ok();
    let is_whole = |repeated: &Vec<String>| repeated.is_empty() && rounded(text.as_bytes()).is_none();
    if read.as_ref().is_some_and(|(_, repeated)| !is_whole(repeated))
        && matches!(
            kind,
            "integer" | "number" | "object" | "file" | "array" | "json" | "any"
        )
    {
        return Err(LOSSLESS);
    }
    let json = || read.map(|(value, _)| value);
    match kind {
        "integer" => json().filter(Value::is_number).ok_or("a whole number"),
        "number" => json().filter(Value::is_number).ok_or("a number"),
        "boolean" => match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Ok(Value::Bool(true)),
            "false" | "0" => Ok(Value::Bool(false)),
            _ => Err("`true` or `false`"),
        },
        "object" | "file" => json().filter(Value::is_object).ok_or("a JSON object"),
        "array" => json().filter(Value::is_array).ok_or("a JSON array"),
        // Whatever is no JSON is meant as text.
        "json" | "any" => Ok(json().unwrap_or_else(|| Value::String(text.to_owned()))),
        _ => Ok(Value::String(text.to_owned())),
    }
}

/// A JSON object, or the one in a file.
fn object(text: &str) -> Result<Map<String, Value>, Failure> {
    let (text, place) = match text.strip_prefix('@') {
        Some(path) => (read_text(path)?, path.to_owned()),
        None => (text.to_owned(), "--inputs".to_owned()),
    };
    match read_json(text.as_bytes()) {
        Ok((Value::Object(_), repeated)) if !repeated.is_empty() => {
            let shown: Vec<_> = repeated.iter().map(|pointer| format!("`{pointer:.80}`")).collect();
            Err(Failure::new(format!(
                "{place}: these members stand there more than once, and only one of each would count: {}",
                shown.join(", ")
            ))
            .hint("take all but one of them out"))
        }
        Ok((Value::Object(arguments), _)) => match rounded(text.as_bytes()) {
            None => Ok(arguments),
            Some(found) => Err(Failure::new(format!("{place}: {found}")).hint(ROUNDED_HINT)),
        },
        Ok(_) => Err(Failure::new(format!("{place}: the arguments are no JSON object"))
            .hint(r#"write them as `--inputs '{"name": "Ada"}'`"#)),
        Err(error) => Err(Failure::new(format!("{place}: the arguments are no JSON: {error}"))
            .hint(r#"write them as `--inputs '{"name": "Ada"}'`, or name a file as `--inputs @FILE`"#)),
    }
}

/// The text of a file of bounded size; `-` is stdin.
pub(super) fn read_text(path: &str) -> Result<String, Failure> {
    use std::io::Read as _;
    let fail = |error: std::io::Error| Failure::new(format!("`{path}` can't be read: {error}"));
    let mut text = String::new();
    let read = if path == "-" {
        std::io::stdin().lock().take(LARGEST + 1).read_to_string(&mut text)
    } else {
        let file = std::fs::File::open(Path::new(path)).map_err(fail)?;
        file.take(LARGEST + 1).read_to_string(&mut text)
    };
    read.map_err(fail)?;
    if text.len() as u64 > LARGEST {
        return Err(
            Failure::new(format!("`{path}` has more than {LARGEST} bytes")).hint("give less, or a file's address")
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::ParameterType;

    fn read(inputs: &[&str], json: Option<&str>) -> Result<Value, usize> {
        let parameter = |name: &str, kind| Parameter {
            name: name.to_owned(),
            kind,
            ..Parameter::default()
        };
        let parameters = [
            parameter("count", ParameterType::Integer),
            parameter("on", ParameterType::Boolean),
            parameter("tags", ParameterType::Array),
            parameter("any", ParameterType::Json),
            parameter("name", ParameterType::String),
        ];
        let inputs = Inputs {
            input: inputs.iter().map(|text| (*text).to_owned()).collect(),
            inputs: json.map(str::to_owned),
        };
        let read = inputs.read(&parameters);
        read.map(Value::Object).map_err(|failure| failure.findings.len())
    }

    #[test]
    fn values_are_typed_as_declared() {
        let given = ["count=3", "on=true", r#"tags=["a"]"#, "any=x y", "name=3", "other=3"];
        let expected = json!({"count": 3, "on": true, "tags": ["a"], "any": "x y", "name": "3", "other": "3"});
        assert_eq!(read(&given, None), Ok(expected));
        assert_eq!(
            read(&["name=a=b"], Some(r#"{"name": "c", "n": 1}"#)),
            Ok(json!({"name": "a=b", "n": 1}))
        );
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        assert_eq!(read(&["count=x", "on=maybe", "tags=1", "name"], None), Err(4));
        assert_eq!(read(&[], Some("[1]")), Err(0));
        assert_eq!(read(&[], Some("{")), Err(0));
        assert_eq!(read(&[], Some(r#"{"n": {"a": 1, "a": 2}}"#)), Err(0));
        let lost = [
            r#"any={"a": 1, "a": 2}"#,
            "any=18446744073709551616",
            "count=18446744073709551616",
        ];
        assert_eq!(read(&lost, None), Err(3));
        let text = r#"name={"a": 1, "a": 2}"#;
        assert_eq!(read(&[text], None), Ok(json!({"name": r#"{"a": 1, "a": 2}"#})));
    }
}
