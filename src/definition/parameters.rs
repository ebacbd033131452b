//! Arguments against declared parameters: every finding at once, defaults filled in; and the parameters as JSON Schema.

use regex::Regex;
use serde_json::{Map, Value, json};

use crate::domain::{
    MAX_INLINE_BYTES, MAX_URL_BYTES, Parameter, ParameterType, PortType, SecretName, edit_distance, inline_bytes,
};
use crate::error::Finding;

/// Compiles a pattern so that it must match the whole text. Bounded to 1 MiB of compiled program.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    regex::RegexBuilder::new(&format!("^(?:{pattern})$"))
        .size_limit(1 << 20)
        .build()
        .map_err(|error| error.to_string().lines().last().unwrap_or_default().trim().to_owned())
}

/// The arguments with defaults, or everything that is wrong with them.
///
/// # Errors
/// One finding per mistake; the pointer is `/name`.
pub fn validate(parameters: &[Parameter], arguments: &Map<String, Value>) -> Result<Map<String, Value>, Vec<Finding>> {
    let mut findings = Vec::new();
    let mut out = Map::new();
    for parameter in parameters {
        let pointer = format!("/{}", escaped(&parameter.name));
        match arguments.get(&parameter.name) {
            None if parameter.has_default => {
                out.insert(parameter.name.clone(), parameter.default.clone());
            }
            None if parameter.required => {
                findings.push(
                    Finding::new(pointer, "required", format!("argument `{}` is missing", parameter.name))
                        .hint(format!("give {} {}", article(parameter.kind), parameter.kind.as_str())),
                );
            }
            None => {}
            Some(Value::Null) if !parameter.required => {
                out.insert(parameter.name.clone(), Value::Null);
            }
            Some(value) => {
                let before = findings.len();
                check(parameter, &pointer, value, &mut findings);
                if findings.len() == before {
                    out.insert(parameter.name.clone(), normalized(parameter.kind, value));
                }
            }
        }
    }
    for name in arguments.keys() {
        if findings.len() >= MOST_FINDINGS {
            break;
        }
        if !parameters.iter().any(|parameter| parameter.name == *name) {
            let shown: String = name.chars().take(60).collect();
            let finding = Finding::new(
                format!("/{}", escaped(&shown)),
                "unknown_argument",
                format!("there is no parameter `{shown}`"),
            );
            let names = parameters.iter().map(|parameter| parameter.name.as_str());
            findings.push(match nearest(name, names) {
                Some(near) => finding.hint(format!("did you mean `{near}`?")),
                None => finding.hint(known(parameters)),
            });
        }
    }
    if findings.is_empty() { Ok(out) } else { Err(findings) }
}

/// `3.0` for an integer parameter reaches Python as `3`.
fn normalized(kind: ParameterType, value: &Value) -> Value {
    match (kind, value.as_f64()) {
        #[expect(clippy::cast_possible_truncation, reason = "whole and within 53 bits")]
        (ParameterType::Integer, Some(number)) if value.is_f64() && number.abs() < 9e15 => json!(number as i64),
        _ => value.clone(),
    }
}

fn check(parameter: &Parameter, pointer: &str, value: &Value, findings: &mut Vec<Finding>) {
    let name = &parameter.name;
    let mut wrong = |code: &str, message: String| findings.push(Finding::new(pointer, code, message));
    let fits = match parameter.kind {
        ParameterType::String
        | ParameterType::Email
        | ParameterType::Url
        | ParameterType::Binary
        | ParameterType::Secret => value.is_string(),
        ParameterType::Integer => {
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0 && n.abs() < 9e15)
        }
        ParameterType::Number => value.is_number(),
        ParameterType::Boolean => value.is_boolean(),
        ParameterType::Object | ParameterType::File => value.is_object(),
        ParameterType::Array => value.is_array(),
        ParameterType::Json | ParameterType::Any => true,
    };
    if !fits {
        let kind = parameter.kind;
        wrong(
            "wrong_type",
            format!(
                "`{name}` must be {} {}, not {}",
                article(kind),
                kind.as_str(),
                describe(value)
            ),
        );
        return;
    }
    if let Some(values) = &parameter.values
        && !values.contains(value)
    {
        let shown: Vec<_> = values.iter().take(12).map(Value::to_string).collect();
        wrong("not_one_of", format!("`{name}` must be one of {}", shown.join(", ")));
    }
    if let Some(number) = value.as_f64() {
        if parameter.min.is_some_and(|min| number < min) {
            wrong(
                "too_small",
                format!("`{name}` must be at least {}", parameter.min.unwrap_or_default()),
            );
        }
        if parameter.max.is_some_and(|max| number > max) {
            wrong(
                "too_large",
                format!("`{name}` must be at most {}", parameter.max.unwrap_or_default()),
            );
        }
    }
    if let Some((code, error)) = wrong_form(parameter, value) {
        wrong(
            code,
            format!(
                "`{name}` must be {} {}: {error}",
                article(parameter.kind),
                parameter.kind.as_str()
            ),
        );
        return;
    }
    let (length, unit) = match (parameter.kind, value) {
        (ParameterType::Binary | ParameterType::File, value) => (inline_bytes(value), "bytes"),
        (_, Value::String(text)) => (Some(text.chars().count()), "characters"),
        (_, Value::Array(items)) => (Some(items.len()), "items"),
        _ => (None, ""),
    };
    if let Some(length) = length.and_then(|length| u64::try_from(length).ok()) {
        if let Some(min) = parameter.min_length.filter(|min| length < *min) {
            wrong(
                "too_short",
                format!("`{name}` must have at least {min} {unit}, not {length}"),
            );
        }
        if let Some(max) = parameter.max_length.filter(|max| length > *max) {
            wrong(
                "too_long",
                format!("`{name}` must have at most {max} {unit}, not {length}"),
            );
        }
    }
    if let Value::String(text) = value {
        if let Some(pattern) = &parameter.pattern
            && !compile(pattern).is_ok_and(|regex| regex.is_match(text))
        {
            wrong("pattern", format!("`{name}` must match `{pattern}`"));
        }
        if parameter.kind == ParameterType::Email && !is_email(text) {
            wrong("not_an_email", format!("`{name}` must be an e-mail address"));
        }
    }
}

/// What is wrong with the form of a text or object that has the JSON type of its parameter.
fn wrong_form(parameter: &Parameter, value: &Value) -> Option<(&'static str, String)> {
    let (code, port) = match parameter.kind {
        ParameterType::Url => ("not_a_url", PortType::Url),
        ParameterType::Binary => ("not_base64", PortType::Binary),
        ParameterType::File => ("not_a_file", PortType::File),
        ParameterType::Secret => {
            let text = value.as_str().unwrap_or_default();
            return match (text.parse::<SecretName>(), &parameter.values) {
                (Err(error), _) => Some(("not_a_secret", error.to_string())),
                // Which there are to choose from is for whoever declares it to say.
                (Ok(_), None) => Some((
                    "not_a_secret",
                    "its declaration names none that may be chosen".to_owned(),
                )),
                (Ok(_), Some(_)) => None,
            };
        }
        _ => return None,
    };
    port.check(value).err().map(|error| (code, error))
}

/// One `@` with a local part of at most 64 characters before it and a dotted domain after it; whether it exists is for the
/// mail server to say.
fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.rsplit_once('@') else {
        return false;
    };
    let plain = |c: char| !c.is_whitespace() && !c.is_control();
    (1..=64).contains(&local.len())
        && !local.contains('@')
        && local.chars().all(plain)
        && (3..=255).contains(&domain.len())
        && domain.contains('.')
        && domain.split('.').all(|label| {
            !label.is_empty() && label.chars().all(|c| c.is_alphanumeric() || c == '-') && !label.starts_with('-')
        })
}

fn article(kind: ParameterType) -> &'static str {
    match kind {
        ParameterType::Integer
        | ParameterType::Object
        | ParameterType::Array
        | ParameterType::Email
        | ParameterType::Any => "an",
        _ => "a",
    }
}

fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number with a fraction",
        Value::Number(_) => "an integer",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn known(parameters: &[Parameter]) -> String {
    if parameters.is_empty() {
        return "this workflow takes no arguments".to_owned();
    }
    let names: Vec<_> = parameters
        .iter()
        .take(20)
        .map(|parameter| format!("`{}`", parameter.name))
        .collect();
    format!("the parameters are {}", names.join(", "))
}

/// After how many findings no more unknown arguments are looked for.
const MOST_FINDINGS: usize = 200;
/// With how many names one is compared: what it costs grows with them, and callers choose both.
const MOST_COMPARED: usize = 200;

/// The name that differs in at most two places (Levenshtein distance), of the first [`MOST_COMPARED`].
pub(super) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > 60 {
        return None;
    }
    known
        .take(MOST_COMPARED)
        // Two characters have eight bytes at most.
        .filter(|known| known.len().abs_diff(name.len()) <= 8)
        .map(|known| (edit_distance(name, known), known))
        .filter(|(distance, near)| *distance <= 2 && *distance < near.chars().count())
        .min()
        .map(|(_, near)| near)
}

fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The parameters as JSON Schema 2020-12, for forms and for callers.
#[must_use]
pub fn json_schema(parameters: &[Parameter]) -> Value {
    let mut properties = Map::new();
    for parameter in parameters {
        let mut schema = Map::new();
        let kind = match parameter.kind {
            ParameterType::Email | ParameterType::Url | ParameterType::Binary | ParameterType::Secret => Some("string"),
            ParameterType::Json | ParameterType::Any => None,
            ParameterType::File => Some("object"),
            other => Some(other.as_str()),
        };
        if let Some(kind) = kind {
            schema.insert("type".into(), json!(kind));
        }
        form_of(parameter.kind, &mut schema);
        let arrays = parameter.kind == ParameterType::Array;
        // Lengths of these are of the bytes, of which the text has a third more.
        let has_length = !matches!(parameter.kind, ParameterType::Binary | ParameterType::File);
        let mut put = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                schema.insert(name.to_owned(), value);
            }
        };
        put("title", parameter.label.as_ref().map(|label| json!(label)));
        put("description", parameter.help.as_ref().map(|help| json!(help)));
        put("default", parameter.has_default.then(|| parameter.default.clone()));
        put("enum", parameter.values.as_ref().map(|values| json!(values)));
        put("minimum", parameter.min.map(|min| json!(min)));
        put("maximum", parameter.max.map(|max| json!(max)));
        put(
            if arrays { "minItems" } else { "minLength" },
            parameter.min_length.filter(|_| has_length).map(|min| json!(min)),
        );
        put(
            if arrays { "maxItems" } else { "maxLength" },
            parameter.max_length.filter(|_| has_length).map(|max| json!(max)),
        );
        put(
            "pattern",
            parameter
                .pattern
                .as_ref()
                .map(|pattern| json!(format!("^(?:{pattern})$"))),
        );
        put(
            "x-data-provider",
            parameter.options_from().map(|from| json!(from.provider)),
        );
        put(
            "x-options",
            parameter.options_from().map(|from| {
                json!({
                    "provider": from.provider,
                    "inputs": from.inputs,
                    "dependsOn": from.depends_on(),
                    "strict": from.strict,
                })
            }),
        );
        properties.insert(parameter.name.clone(), Value::Object(schema));
    }
    let required: Vec<_> = parameters
        .iter()
        .filter(|p| p.required && !p.has_default)
        .map(|parameter| parameter.name.as_str())
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// What JSON Schema says of a type beyond that of JSON; `x-type` is for forms.
fn form_of(kind: ParameterType, schema: &mut Map<String, Value>) {
    let more = match kind {
        ParameterType::Email => json!({"format": "email"}),
        ParameterType::Url => {
            json!({"format": "uri", "pattern": "^[hH][tT][tT][pP][sS]?://", "maxLength": MAX_URL_BYTES})
        }
        ParameterType::Binary => {
            json!({"contentEncoding": "base64", "maxLength": MAX_INLINE_BYTES.div_ceil(3) * 4, "x-type": "binary"})
        }
        ParameterType::Secret => json!({"x-type": "secret"}),
        ParameterType::File => json!({
            "x-type": "file",
            "properties": {
                "data": {"type": "string", "contentEncoding": "base64", "maxLength": MAX_INLINE_BYTES.div_ceil(3) * 4},
                "name": {"type": "string", "minLength": 1, "maxLength": 200},
                "media_type": {"type": "string", "minLength": 1, "maxLength": 200},
                "size": {"type": "integer", "minimum": 0},
                "sha256": {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"},
            },
            "required": ["data"],
            "additionalProperties": false,
        }),
        _ => return,
    };
    if let Value::Object(more) = more {
        schema.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_form_must_have_it() {
        let secret = Parameter {
            values: Some(vec![json!("API_KEY")]),
            ..parameter("key", ParameterType::Secret)
        };
        let parameters = [
            parameter("at", ParameterType::Url),
            Parameter {
                max_length: Some(2),
                ..parameter("bytes", ParameterType::Binary)
            },
            parameter("file", ParameterType::File),
            secret,
            parameter("rest", ParameterType::Any),
        ];
        let good =
            json!({"at": "https://example.com/", "bytes": "w6Q=", "file": {"data": ""}, "key": "API_KEY", "rest": [1]});
        assert_eq!(codes(&parameters, good), []);
        let wrong =
            json!({"at": "example.com", "bytes": "w6Qx", "file": {"path": "/etc"}, "key": "OTHER", "rest": null});
        let expected = [
            ("/at", "not_a_url"),
            ("/bytes", "too_long"),
            ("/file", "not_a_file"),
            ("/key", "not_one_of"),
        ];
        assert_eq!(
            codes(&parameters, wrong),
            expected.map(|(p, c)| (p.to_owned(), c.to_owned()))
        );
        let wrong = json!({"at": 1, "bytes": "w6Q", "file": "a", "key": "a b", "rest": 1});
        let expected = [
            ("/at", "wrong_type"),
            ("/bytes", "not_base64"),
            ("/file", "wrong_type"),
            ("/key", "not_one_of"),
            ("/key", "not_a_secret"),
        ];
        assert_eq!(
            codes(&parameters, wrong),
            expected.map(|(p, c)| (p.to_owned(), c.to_owned()))
        );
        // None that may be chosen: none is.
        let bare = [parameter("key", ParameterType::Secret)];
        assert_eq!(
            codes(&bare, json!({"key": "API_KEY"})),
            [("/key".to_owned(), "not_a_secret".to_owned())]
        );
    }

    fn parameter(name: &str, kind: ParameterType) -> Parameter {
        Parameter {
            name: name.into(),
            kind,
            required: true,
            ..Parameter::default()
        }
    }

    fn codes(parameters: &[Parameter], arguments: Value) -> Vec<(String, String)> {
        let Value::Object(arguments) = arguments else {
            unreachable!("tests give objects")
        };
        match validate(parameters, &arguments) {
            Ok(_) => Vec::new(),
            Err(findings) => findings.into_iter().map(|f| (f.pointer, f.code)).collect(),
        }
    }

    #[test]
    fn every_finding_at_once() {
        let parameters = [
            parameter("email", ParameterType::Email),
            Parameter {
                min: Some(1.0),
                max: Some(5.0),
                ..parameter("count", ParameterType::Integer)
            },
            Parameter {
                pattern: Some("[a-z]+".into()),
                ..parameter("slug", ParameterType::String)
            },
            parameter("options", ParameterType::Object),
        ];
        let found = codes(
            &parameters,
            json!({"email": "nobody", "count": 9, "slug": "a b", "opttions": {}}),
        );
        let expected = [
            ("/email", "not_an_email"),
            ("/count", "too_large"),
            ("/slug", "pattern"),
            ("/options", "required"),
            ("/opttions", "unknown_argument"),
        ];
        assert_eq!(found, expected.map(|(p, c)| (p.to_owned(), c.to_owned())));
    }

    #[test]
    fn types_are_strict_and_a_whole_float_is_an_integer() {
        let parameters = [parameter("n", ParameterType::Integer)];
        assert!(codes(&parameters, json!({"n": 3.0})).is_empty());
        for wrong in [json!(3.5), json!("3"), json!(true), json!(null)] {
            assert_eq!(codes(&parameters, json!({"n": wrong})).len(), 1);
        }
    }

    #[test]
    fn defaults_are_filled_in_and_optional_may_be_absent() {
        let parameters = [
            Parameter {
                required: false,
                has_default: true,
                default: json!("world"),
                ..parameter("name", ParameterType::String)
            },
            Parameter {
                required: false,
                ..parameter("note", ParameterType::String)
            },
        ];
        let out = validate(&parameters, &Map::new()).unwrap();
        assert_eq!(Value::Object(out), json!({"name": "world"}));
    }

    #[test]
    fn patterns_match_whole_texts_only() {
        let parameters = [Parameter {
            pattern: Some("a|b".into()),
            ..parameter("x", ParameterType::String)
        }];
        assert!(codes(&parameters, json!({"x": "a"})).is_empty());
        assert_eq!(codes(&parameters, json!({"x": "ab"})).len(), 1);
    }
}
