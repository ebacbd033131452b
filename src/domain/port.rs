//! Types of ports: what each takes, which fits to which, and how a value of one becomes a value of another.
//!
//! There is one table, [`assignable`], and one function that follows it, [`coerce`]. A coercion keeps everything: what another
//! type can't say exactly is refused, never rounded, cut or guessed. `tests/golden/ports/coercions.json` is the table with examples,
//! for clients that show it.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::ArtifactId;

/// Longest `url`, in bytes.
pub const MAX_URL_BYTES: usize = 2_048;
/// Most bytes of a `binary`, and of a `file` that is given as data. Larger ones are artifacts.
pub const MAX_INLINE_BYTES: usize = 512 << 10;
/// Longest name, and media type, of a `file`, in characters.
const MAX_FILE_NAME: usize = 200;
/// Whole numbers beyond are not exact once they are a number with a fraction.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// Longest text that is read as a number, in bytes.
const MAX_NUMBER_BYTES: usize = 400;

/// The type of a port.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum PortType {
    /// Text.
    String,
    /// A whole number of 64 bits.
    Integer,
    /// A finite number.
    Number,
    /// True or false.
    Boolean,
    /// A list.
    Array,
    /// An object.
    Object,
    /// Any value.
    Json,
    /// An artifact of the run, or a small file as data.
    File,
    /// An absolute address, `http` or `https`.
    Url,
    /// Bytes, as base64.
    Binary,
    /// Any value; nothing is promised of it.
    #[default]
    Any,
}

impl PortType {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::String,
        Self::Integer,
        Self::Number,
        Self::Boolean,
        Self::Array,
        Self::Object,
        Self::Json,
        Self::File,
        Self::Url,
        Self::Binary,
        Self::Any,
    ];

    /// As written in files and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Array => "array",
            Self::Object => "object",
            Self::Json => "json",
            Self::File => "file",
            Self::Url => "url",
            Self::Binary => "binary",
            Self::Any => "any",
        }
    }

    /// The type of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// What a value of it looks like, in one sentence.
    #[must_use]
    pub const fn form(self) -> &'static str {
        match self {
            Self::String => "a text",
            Self::Integer => "a whole number of 64 bits",
            Self::Number => "a finite number",
            Self::Boolean => "true or false",
            Self::Array => "a list",
            Self::Object => "an object",
            Self::Json | Self::Any => "any value",
            Self::File => {
                "an object with `artifact` (the id of an artifact of the run) or `data` (base64, up to 512 KiB), and as wanted \
                 `name`, `media_type`, `size` and `sha256`"
            }
            Self::Url => {
                "a text that is an absolute `http` or `https` address of up to 2048 bytes, without user and password"
            }
            Self::Binary => "a text that is base64 with padding, of up to 512 KiB",
        }
    }

    /// Whether it takes whatever comes.
    #[must_use]
    pub const fn takes_everything(self) -> bool {
        matches!(self, Self::Json | Self::Any)
    }

    /// A value of it as it is passed on: whole numbers with a fraction of nothing become integers.
    ///
    /// # Errors
    /// In words, when it is none.
    pub fn check(self, value: &Value) -> Result<Value, String> {
        let wrong = || Err(format!("{} is needed, and this is {}", short(self), described(value)));
        match (self, value) {
            (Self::Json | Self::Any, _)
            | (Self::String, Value::String(_))
            | (Self::Number, Value::Number(_))
            | (Self::Boolean, Value::Bool(_))
            | (Self::Array, Value::Array(_))
            | (Self::Object, Value::Object(_)) => Ok(value.clone()),
            (Self::Integer, Value::Number(number)) if number.is_i64() || number.is_u64() => Ok(value.clone()),
            (Self::Integer, Value::Number(number)) => whole(number),
            (Self::Url, Value::String(text)) => is_url(text).map(|()| value.clone()),
            (Self::Binary, Value::String(text)) => bytes_of(text).map(|_| value.clone()),
            (Self::File, Value::Object(members)) => is_file(members).map(|()| value.clone()),
            _ => wrong(),
        }
    }
}

const fn short(kind: PortType) -> &'static str {
    match kind {
        PortType::File => "a file",
        PortType::Url => "an address",
        PortType::Binary => "base64",
        PortType::Integer => "a whole number",
        PortType::Number => "a number",
        other => other.form(),
    }
}

fn described(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_f64() => "a number",
        Value::Number(_) => "a whole number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

// ── the table ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Whether what comes out of one port may go into another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// As it is.
    Same,
    /// In another form; a value that the other type can't say exactly fails the step.
    Coerce(How),
    /// Never, with the reason.
    No(&'static str),
}

/// How a value is brought into another form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// Nothing is known of it before it comes: it must have the other form already.
    Look,
    /// A number or boolean as its JSON text.
    Write,
    /// A text that is just such a number.
    ReadInteger,
    /// A text that is a number which is kept exactly.
    ReadNumber,
    /// `true` or `false`.
    ReadBoolean,
    /// A text that is an address.
    ReadUrl,
    /// An object that has the members of a file.
    ReadFile,
    /// A number without a fraction.
    Whole,
    /// The text's UTF-8 bytes.
    Encode,
    /// Bytes that are UTF-8.
    Decode,
    /// Bytes as the data of a file without a name.
    AsFile,
}

impl How {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Look,
        Self::Write,
        Self::ReadInteger,
        Self::ReadNumber,
        Self::ReadBoolean,
        Self::ReadUrl,
        Self::ReadFile,
        Self::Whole,
        Self::Encode,
        Self::Decode,
        Self::AsFile,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Look => "look",
            Self::Write => "write",
            Self::ReadInteger => "read_integer",
            Self::ReadNumber => "read_number",
            Self::ReadBoolean => "read_boolean",
            Self::ReadUrl => "read_url",
            Self::ReadFile => "read_file",
            Self::Whole => "whole",
            Self::Encode => "encode",
            Self::Decode => "decode",
            Self::AsFile => "as_file",
        }
    }

    /// What it does, in one sentence.
    #[must_use]
    pub const fn rule(self) -> &'static str {
        match self {
            Self::Look => "the value must have the form of the target already; nothing is converted",
            Self::Write => "written as JSON writes it: `42`, `0.5`, `true`",
            Self::ReadInteger => {
                "a text of decimal digits that would be written just so: `42` and `-1`, not `007`, `+1`, `1.0`, ` 1` or `1e3`"
            }
            Self::ReadNumber => {
                "a text that is a JSON number which 64 bits keep exactly as written; one with more digits than that is refused"
            }
            Self::ReadBoolean => "`true` or `false`; nothing else is taken for one",
            Self::ReadUrl => "the text must be an absolute `http` or `https` address",
            Self::ReadFile => "the object must have the members of a file and no others",
            Self::Whole => "a number without a fraction, up to 2^53 both ways; nothing is rounded",
            Self::Encode => "the text's UTF-8 bytes as base64",
            Self::Decode => "the bytes must be UTF-8; nothing is replaced",
            Self::AsFile => "a file with these bytes as its data, without a name",
        }
    }

    /// The value in the other form.
    ///
    /// # Errors
    /// In words, when the other type can't say it exactly.
    pub fn apply(self, value: &Value, to: PortType) -> Result<Value, String> {
        let text = || {
            value
                .as_str()
                .ok_or_else(|| format!("a text is needed, and this is {}", described(value)))
        };
        match self {
            Self::Look | Self::ReadUrl | Self::ReadFile => to.check(value),
            Self::Write => match value {
                Value::Number(_) | Value::Bool(_) => Ok(json!(value.to_string())),
                other => Err(format!(
                    "a number or boolean is needed, and this is {}",
                    described(other)
                )),
            },
            Self::ReadInteger => {
                let text = text()?;
                integer_of(text)
                    .ok_or_else(|| format!("`{}` is not written as a whole number of 64 bits is", shown(text)))
            }
            Self::ReadNumber => number_of(text()?),
            Self::ReadBoolean => match text()? {
                "true" => Ok(json!(true)),
                "false" => Ok(json!(false)),
                other => Err(format!("`{}` is neither `true` nor `false`", shown(other))),
            },
            Self::Whole => PortType::Integer.check(value),
            Self::Encode => {
                let text = text()?;
                if text.len() > MAX_INLINE_BYTES {
                    return Err(format!(
                        "it has {} bytes, and {MAX_INLINE_BYTES} are allowed",
                        text.len()
                    ));
                }
                Ok(json!(STANDARD.encode(text)))
            }
            Self::Decode => {
                let text = String::from_utf8(bytes_of(text()?)?);
                text.map(|text| json!(text))
                    .map_err(|_| "the bytes are no UTF-8 text".to_owned())
            }
            Self::AsFile => {
                let text = text()?;
                bytes_of(text).map(|_| json!({"data": text}))
            }
        }
    }
}

/// Whether an output of type `from` may feed an input of type `to`.
#[must_use]
pub const fn assignable(from: PortType, to: PortType) -> Fit {
    use PortType::{Any, Array, Binary, Boolean, File, Integer, Json, Number, Object, String, Url};
    match (from, to) {
        (_, Any | Json)
        | (String, String)
        | (Integer, Integer | Number)
        | (Number, Number)
        | (Boolean, Boolean)
        | (Array, Array)
        | (Object, Object)
        | (File, File | Object)
        | (Url, Url | String)
        | (Binary, Binary) => Fit::Same,
        (Any | Json, _) => Fit::Coerce(How::Look),
        (Integer | Number | Boolean, String) => Fit::Coerce(How::Write),
        (String, Integer) => Fit::Coerce(How::ReadInteger),
        (String, Number) => Fit::Coerce(How::ReadNumber),
        (String, Boolean) => Fit::Coerce(How::ReadBoolean),
        (String, Url) => Fit::Coerce(How::ReadUrl),
        (String, Binary) => Fit::Coerce(How::Encode),
        (Number, Integer) => Fit::Coerce(How::Whole),
        (Binary, String) => Fit::Coerce(How::Decode),
        (Binary, File) => Fit::Coerce(How::AsFile),
        (Object, File) => Fit::Coerce(How::ReadFile),
        (Boolean, Integer | Number) => Fit::No("true and false are no numbers: write `1 if … else 0` as an expression"),
        (Integer | Number, Boolean) => {
            Fit::No("a number is neither true nor false: write a comparison as an expression")
        }
        (String, Array | Object) => {
            Fit::No("a text is not read as JSON: read it in a Python step, where mistakes can be told")
        }
        (String, File) => {
            Fit::No("a text is not a file: make it one with a node of type `file`, or declare the output as `binary`")
        }
        (Url, File | Binary) => Fit::No("an address is not what it leads to: fetch it with a node of type `http`"),
        (File, String | Url | Binary) => {
            Fit::No("what is in a file is read with a node of type `file`, or in Python: `ctx.artifacts.content(file)`")
        }
        (Array, _) => {
            Fit::No("a list is not one value: take an item of it with an expression, or use a node of type `map`")
        }
        (_, Array) => Fit::No("one value is not a list: write `[…]` as an expression"),
        (Object, _) => Fit::No("an object is not one of its members: name the member in `output`"),
        (_, Object) => Fit::No("one value is not an object: give it a name in `inputs`"),
        (_, File) => Fit::No("only bytes, and objects that say they are files, are files"),
        (_, Url) => Fit::No("only a text can be an address"),
        (_, Binary) => Fit::No("only a text has bytes"),
        (Url | Binary | File, Integer | Number | Boolean) => Fit::No("it is no number, and neither true nor false"),
    }
}

/// What comes out of a port of type `from`, for one of type `to`.
///
/// # Errors
/// In words, when the types don't fit, or the value has no exact form there.
pub fn coerce(value: &Value, from: PortType, to: PortType) -> Result<Value, String> {
    match assignable(from, to) {
        Fit::Same => {
            from.check(value)?;
            to.check(value)
        }
        Fit::Coerce(how) => how.apply(&from.check(value)?, to),
        Fit::No(reason) => Err(reason.to_owned()),
    }
}

// ── values ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(40).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

fn whole(number: &serde_json::Number) -> Result<Value, String> {
    let Some(float) = number.as_f64().filter(|float| float.fract() == 0.0) else {
        return Err(format!("{number} is no whole number, and nothing is rounded"));
    };
    if float.abs() > EXACT {
        return Err(format!("{number} is beyond 2^53, where whole numbers are not exact"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "whole and within 53 bits")]
    Ok(json!(float as i64))
}

/// A text as a whole number, where it would be written just so.
fn integer_of(text: &str) -> Option<Value> {
    let signed = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
    let unsigned = || text.parse::<u64>().ok().filter(|number| number.to_string() == text);
    signed
        .map(|number| json!(number))
        .or_else(|| unsigned().map(|number| json!(number)))
}

/// A text as a number, where that is what is written, and not merely near it.
fn number_of(text: &str) -> Result<Value, String> {
    let wrong = || format!("`{}` is not written as a number is", shown(text));
    if text.len() > MAX_NUMBER_BYTES {
        return Err(wrong());
    }
    if let Some(number) = integer_of(text) {
        return Ok(number);
    }
    // The grammar is JSON's: no blanks, no `+`, no leading zeros, no `.5`, no `NaN`.
    let is_bare =
        text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) && text.ends_with(|c: char| c.is_ascii_digit());
    if !is_bare || serde_json::from_str::<&serde_json::value::RawValue>(text).is_err() {
        return Err(wrong());
    }
    let float: f64 = text.parse().map_err(|_| wrong())?;
    // Compared as it will be written: of two texts that are as short and as near, other writers take the other one.
    let number = json!(float);
    if !float.is_finite() || normal(text) != normal(&number.to_string()) {
        return Err(format!("64 bits don't keep `{}` as it is written", shown(text)));
    }
    Ok(number)
}

/// A decimal number as its digits without zeros at the ends, and the power of ten of the last one.
fn normal(text: &str) -> Option<(String, i64)> {
    let text = text.strip_prefix('-').unwrap_or(text);
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let mut exponent: i64 = exponent.strip_prefix('+').unwrap_or(exponent).parse().ok()?;
    let (before, behind) = digits.split_once('.').unwrap_or((digits, ""));
    exponent -= i64::try_from(behind.len()).ok()?;
    let all = format!("{before}{behind}");
    let all = all.trim_start_matches('0');
    let kept = all.trim_end_matches('0');
    exponent += i64::try_from(all.len() - kept.len()).ok()?;
    Some(if kept.is_empty() {
        (String::new(), 0)
    } else {
        (kept.to_owned(), exponent)
    })
}

fn is_url(text: &str) -> Result<(), String> {
    if text.len() > MAX_URL_BYTES {
        return Err(format!(
            "an address may have {MAX_URL_BYTES} bytes, and this has {}",
            text.len()
        ));
    }
    let wrong = || "it is no absolute `http` or `https` address".to_owned();
    // What a reader of addresses would quietly take out, or turn into something else.
    if text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err(wrong());
    }
    let lower = text.get(..8).unwrap_or(text).to_ascii_lowercase();
    let address = text.parse::<url::Url>().map_err(|_| wrong())?;
    let is_web = lower.starts_with("http://") || lower.starts_with("https://");
    if !is_web || address.host_str().is_none_or(str::is_empty) {
        return Err(wrong());
    }
    if !address.username().is_empty() || address.password().is_some() {
        return Err("an address with a user or a password in it would show them: use a secret".to_owned());
    }
    Ok(())
}

/// The bytes that base64 stands for.
fn bytes_of(text: &str) -> Result<Vec<u8>, String> {
    // Four characters for each three bytes: not decoded in vain.
    if text.len() > MAX_INLINE_BYTES.div_ceil(3) * 4 {
        return Err(format!(
            "it has more than {MAX_INLINE_BYTES} bytes: keep it as an artifact"
        ));
    }
    let bytes = STANDARD
        .decode(text)
        .map_err(|_| "it is no base64 with padding (RFC 4648, section 4)".to_owned())?;
    if bytes.len() > MAX_INLINE_BYTES {
        return Err(format!(
            "it has more than {MAX_INLINE_BYTES} bytes: keep it as an artifact"
        ));
    }
    Ok(bytes)
}

/// How many bytes a `binary` has, or the data of a `file`; none for other values.
#[must_use]
pub fn inline_bytes(value: &Value) -> Option<usize> {
    let text = value.as_str().or_else(|| value.get("data")?.as_str())?;
    bytes_of(text).ok().map(|bytes| bytes.len())
}

/// Whether there is a file in a value whose bytes are an artifact of a run.
#[must_use]
pub fn has_artifact(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_artifact),
        Value::Object(members) => {
            let id = members.get("artifact").and_then(Value::as_str);
            id.is_some_and(|id| id.parse::<ArtifactId>().is_ok()) || members.values().any(has_artifact)
        }
        _ => false,
    }
}

fn is_file(members: &Map<String, Value>) -> Result<(), String> {
    let mut wrong = String::new();
    for (name, value) in members {
        let fits = match name.as_str() {
            "artifact" => value.as_str().is_some_and(|id| id.parse::<ArtifactId>().is_ok()),
            "data" => match value.as_str().map(bytes_of) {
                Some(Ok(_)) => true,
                Some(Err(error)) => return Err(format!("`data` of a file: {error}")),
                None => false,
            },
            "name" | "media_type" => value.as_str().is_some_and(|text| {
                (1..=MAX_FILE_NAME).contains(&text.chars().count()) && !text.chars().any(char::is_control)
            }),
            "size" => value.is_u64(),
            "sha256" => value
                .as_str()
                .is_some_and(|text| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())),
            _ => return Err(format!("a file has no member `{}`", shown(name))),
        };
        if !fits && wrong.is_empty() {
            let _ = write!(wrong, "`{name}` of a file is not what it must be");
        }
    }
    match (members.contains_key("artifact"), members.contains_key("data")) {
        _ if !wrong.is_empty() => Err(wrong),
        (true, false) | (false, true) => Ok(()),
        _ => Err("a file has either `artifact` or `data`".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values() -> impl Strategy<Value = Value> {
        let texts = prop_oneof![
            any::<String>().prop_map(Value::String),
            any::<i64>().prop_map(|number| json!(number.to_string())),
            any::<f64>().prop_map(|number| json!(number.to_string())),
            "-?[0-9]{1,25}(\\.[0-9]{1,25})?(e-?[0-9]{1,3})?".prop_map(Value::String),
            Just(json!("https://example.com/a?b=c#d")),
            any::<Vec<u8>>().prop_map(|bytes| json!(STANDARD.encode(bytes))),
        ];
        let leaves = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(|number| json!(number)),
            any::<u64>().prop_map(|number| json!(number)),
            any::<f64>().prop_map(|number| json!(number)),
            any::<i32>().prop_map(|number| json!(f64::from(number))),
            any::<Vec<u8>>().prop_map(|bytes| json!({"data": STANDARD.encode(bytes), "name": "a.txt"})),
            Just(json!({"artifact": "art_7zzzzzzzzzzzzzzzzzzzzzzzzz"})),
            texts,
        ];
        leaves.prop_recursive(2, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::btree_map("[a-z]{1,4}", inner, 0..4).prop_map(|all| json!(all)),
            ]
        })
    }

    fn types() -> impl Strategy<Value = PortType> {
        prop::sample::select(PortType::ALL.to_vec())
    }

    /// The way back, where there is one, gives what there was: nothing was lost.
    fn same_again(before: &Value, after: &Value, from: PortType, to: PortType) -> bool {
        let back = match assignable(to, from) {
            Fit::No(_) => return true,
            _ => coerce(after, to, from),
        };
        let numbers = |a: &Value, b: &Value| a.as_f64().is_some() && a.as_f64() == b.as_f64();
        match (from, back) {
            // A number may be written in several ways.
            (PortType::String, Ok(back)) if to == PortType::Number => {
                normal(back.as_str().unwrap_or_default()) == normal(before.as_str().unwrap_or_default())
            }
            (_, Ok(back)) => back == *before || numbers(&back, before),
            (_, Err(_)) => false,
        }
    }

    #[test]
    fn artifacts_are_found_however_deep_they_are() {
        let file = json!({"artifact": "art_7zzzzzzzzzzzzzzzzzzzzzzzzz", "size": 3});
        assert!(has_artifact(&file) && has_artifact(&json!([{"a": {"b": [1, file]}}])));
        assert!(!has_artifact(
            &json!([{"data": "aGk="}, {"artifact": "art_1"}, "art_7zzzzzzzzzzzzzzzzzzzzzzzzz"])
        ));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn a_coerced_value_has_the_type_or_there_is_a_reason(value in values(), from in types(), to in types()) {
            match coerce(&value, from, to) {
                Ok(coerced) => {
                    prop_assert!(!matches!(assignable(from, to), Fit::No(_)));
                    prop_assert!(from.check(&value).is_ok());
                    prop_assert_eq!(to.check(&coerced), Ok(coerced.clone()));
                    // Once there, it stays as it is.
                    prop_assert_eq!(coerce(&coerced, to, to), Ok(coerced.clone()));
                    prop_assert!(same_again(&value, &coerced, from, to), "{} → {}: {value} → {coerced}", from.as_str(), to.as_str());
                }
                Err(reason) => prop_assert!(reason.len() > 10, "{reason}"),
            }
        }

        #[test]
        fn a_text_is_a_number_only_where_the_number_says_all_of_it(text in "-?(0|[1-9][0-9]{0,24})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?") {
            if let Ok(number) = coerce(&json!(text), PortType::String, PortType::Number) {
                prop_assert_eq!(normal(&number.to_string()), normal(&text));
            }
        }
    }

    #[test]
    fn every_type_takes_its_own_and_any_takes_all() {
        for kind in PortType::ALL {
            assert_eq!(assignable(kind, kind), Fit::Same, "{kind:?}");
            assert_eq!(assignable(kind, PortType::Any), Fit::Same, "{kind:?}");
            assert_eq!(assignable(kind, PortType::Json), Fit::Same, "{kind:?}");
            assert!(!matches!(assignable(PortType::Any, kind), Fit::No(_)), "{kind:?}");
            assert_eq!(PortType::named(kind.as_str()), Some(kind));
        }
        assert_eq!(PortType::named("email"), None);
    }

    #[test]
    fn nothing_is_rounded_cut_or_guessed() {
        use PortType::{Binary, Boolean, File, Integer, Number, String, Url};
        let gives = |value: Value, from, to, expected: Value| {
            assert_eq!(coerce(&value, from, to), Ok(expected), "{value}");
        };
        gives(json!("42"), String, Integer, json!(42));
        gives(json!(3.0), Number, Integer, json!(3));
        gives(json!("0.10"), String, Number, json!(0.1));
        gives(json!("18446744073709551615"), String, Number, json!(u64::MAX));
        gives(json!("1e2"), String, Number, json!(100.0));
        gives(json!(0.5), Number, String, json!("0.5"));
        gives(json!("ä"), String, Binary, json!("w6Q="));
        gives(json!("w6Q="), Binary, String, json!("ä"));
        gives(json!("w6Q="), Binary, File, json!({"data": "w6Q="}));
        for (value, from, to) in [
            (json!("007"), String, Integer),
            (json!("+1"), String, Integer),
            (json!(" 1"), String, Integer),
            (json!("1.0"), String, Integer),
            (json!("18446744073709551616"), String, Integer),
            (json!("٣"), String, Integer),
            (json!(3.5), Number, Integer),
            (json!(1e17), Number, Integer),
            (json!("0.1000000000000000055"), String, Number),
            (json!("1e999"), String, Number),
            (json!("1e-999"), String, Number),
            (json!("5e-324000"), String, Number),
            (json!("NaN"), String, Number),
            (json!("1 "), String, Number),
            (json!("0x10"), String, Number),
            (json!("18446744073709551617"), String, Number),
            (json!("yes"), String, Boolean),
            (json!("1"), String, Boolean),
            (json!("/w=="), Binary, String),
            (json!("w6Q"), Binary, File),
            (json!("example.com"), String, Url),
            (json!("http:example.com"), String, Url),
            (json!("https://"), String, Url),
            (json!("https://a b.example/"), String, Url),
            (json!("https://me:secret@example.com/"), String, Url),
            (json!("file:///etc/passwd"), String, Url),
            (json!("javascript:alert(1)"), String, Url),
            (json!({"artifact": "art_1"}), PortType::Object, File),
            (
                json!({"data": "", "artifact": "art_7zzzzzzzzzzzzzzzzzzzzzzzzz"}),
                PortType::Object,
                File,
            ),
            (json!({"path": "/etc/passwd"}), PortType::Object, File),
        ] {
            assert!(coerce(&value, from, to).is_err(), "{value}");
        }
    }

    #[test]
    fn what_is_in_line_is_bounded() {
        let fits = STANDARD.encode(vec![0; MAX_INLINE_BYTES]);
        let too_large = STANDARD.encode(vec![0; MAX_INLINE_BYTES + 1]);
        assert!(PortType::Binary.check(&json!(fits)).is_ok());
        assert!(PortType::Binary.check(&json!(too_large)).is_err());
        assert!(PortType::File.check(&json!({"data": too_large})).is_err());
        let long = format!("https://example.com/{}", "a".repeat(MAX_URL_BYTES));
        assert!(PortType::Url.check(&json!(long)).is_err());
        assert_eq!(inline_bytes(&json!({"data": fits})), Some(MAX_INLINE_BYTES));
    }
}
