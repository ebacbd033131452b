//! The text forms of the Table service: addresses, filters, rows as JSON, batches, and the continuation that we hand out.
//!
//! Two rules hold everywhere. Every value is written with its Edm type, since the service guesses wrong without it.
//! And a text becomes part of an address or a filter only through [`quoted`] and [`encode`]; names of properties, which go
//! in as they are, are checked first.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::value::RawValue;
use serde_json::{Map, Value as Json};

use super::error::{Answer, Failure, code};
use crate::domain::Timestamp;
use crate::store::error::Error;
use crate::store::port::{
    Comparison, Continuation, ETag, Entity, Filter, Key, Match, Operation, Properties, Query, Result, Value,
    check_query,
};

const TYPE: &str = "@odata.type";
const MAX_CONTINUATION: usize = 4096;

/// Percent-encodes everything but letters, digits and `-._~`.
pub(super) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// A text literal: in quotes, quotes in it doubled.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The part of an address that names a row, percent-encoded.
pub(super) fn row_address(partition: &Key, row: &Key) -> String {
    let (partition, row) = (encode(&quoted(partition.as_str())), encode(&quoted(row.as_str())));
    format!("(PartitionKey={partition},RowKey={row})")
}

/// The parameters of a query, percent-encoded, without the `?`.
pub(super) fn query_parameters(table: &str, query: &Query) -> Result<String> {
    check_query(query)?;
    let mut filter = format!("PartitionKey eq {}", quoted(query.partition.as_str()));
    if let Some(from) = &query.from {
        let _ = write!(filter, " and RowKey ge {}", quoted(from.as_str()));
    }
    if let Some(until) = &query.until {
        let _ = write!(filter, " and RowKey lt {}", quoted(until.as_str()));
    }
    if let Some(condition) = &query.filter {
        let _ = write!(filter, " and ({})", filter_text(condition));
    }
    let mut out = format!("$filter={}&$top={}", encode(&filter), query.limit);
    if !query.select.is_empty() {
        // The ETag is made from the timestamp.
        let mut names = vec!["PartitionKey", "RowKey", "Timestamp"];
        names.extend(query.select.iter().map(String::as_str));
        let _ = write!(out, "&$select={}", encode(&names.join(",")));
    }
    if let Some(continuation) = &query.continuation {
        let [partition, row] = open_continuation(&[table, query.partition.as_str()], continuation)?;
        let _ = write!(out, "&NextPartitionKey={}", encode(&partition));
        if !row.is_empty() {
            let _ = write!(out, "&NextRowKey={}", encode(&row));
        }
    }
    Ok(out)
}

/// A filter in the service's language.
fn filter_text(filter: &Filter) -> String {
    match filter {
        Filter::And(left, right) => format!("({} and {})", filter_text(left), filter_text(right)),
        Filter::Or(left, right) => format!("({} or {})", filter_text(left), filter_text(right)),
        Filter::Is(name, comparison, value) => {
            let literal = literal(value);
            let comparison = match comparison {
                Comparison::Equal => "eq",
                Comparison::Less => "lt",
                Comparison::LessOrEqual => "le",
                Comparison::Greater => "gt",
                Comparison::GreaterOrEqual => "ge",
                // `ne` would match a row without the property in the emulator. Of two unequal values one is less.
                Comparison::NotEqual => {
                    return match value {
                        Value::Bool(truth) => format!("{name} eq {}", !truth),
                        _ => format!("({name} lt {literal} or {name} gt {literal})"),
                    };
                }
            };
            format!("{name} {comparison} {literal}")
        }
    }
}

fn literal(value: &Value) -> String {
    match value {
        Value::Text(text) => quoted(text),
        // Without `L` it is a 32-bit literal.
        Value::Int(number) => format!("{number}L"),
        // With a point, since `2` alone is an integer, and without an exponent, which the emulator does not read.
        Value::Double(number) if number.fract() == 0.0 => format!("{number}.0"),
        Value::Double(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::Time(at) => format!("datetime'{at}'"),
        Value::Bytes(bytes) => {
            let mut out = String::from("X'");
            for byte in bytes {
                let _ = write!(out, "{byte:02x}");
            }
            out.push('\'');
            out
        }
    }
}

/// A row as the service takes it.
pub(super) fn row_json(partition: &Key, row: &Key, properties: &Properties) -> Result<String> {
    let mut out = Map::new();
    out.insert("PartitionKey".into(), partition.as_str().into());
    out.insert("RowKey".into(), row.as_str().into());
    for (name, value) in properties.iter() {
        let (kind, json): (Option<&str>, Json) = match value {
            Value::Text(text) => (None, text.as_str().into()),
            Value::Bool(truth) => (None, (*truth).into()),
            Value::Int(number) => (Some("Edm.Int64"), number.to_string().into()),
            // The shortest text that is this number, `-0.0` included (of which the emulator forgets the sign).
            Value::Double(number) => (Some("Edm.Double"), (*number).into()),
            Value::Time(at) => (Some("Edm.DateTime"), at.to_string().into()),
            Value::Bytes(bytes) => (Some("Edm.Binary"), STANDARD.encode(bytes).into()),
        };
        if let Some(kind) = kind {
            out.insert(format!("{name}{TYPE}"), kind.into());
        }
        out.insert(name.to_owned(), json);
    }
    serde_json::to_string(&out).map_err(|error| Error::corrupt(format!("row `{row}`: {error}")))
}

#[derive(serde::Deserialize)]
struct Rows {
    value: Vec<BTreeMap<String, Box<RawValue>>>,
}

/// The rows of a query's answer.
pub(super) fn read_rows(body: &[u8]) -> Result<Vec<Entity>> {
    let rows: Rows = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    rows.value.iter().map(read_fields).collect()
}

/// The row of a get's answer.
pub(super) fn read_row(body: &[u8]) -> Result<Entity> {
    let fields = serde_json::from_slice(body).map_err(|error| unreadable(&error))?;
    read_fields(&fields)
}

/// An error of a JSON reader, by its place only: its words repeat values.
fn unreadable(error: &serde_json::Error) -> Error {
    Error::corrupt(format!(
        "a table answer at line {} column {}",
        error.line(),
        error.column()
    ))
}

fn read_fields(fields: &BTreeMap<String, Box<RawValue>>) -> Result<Entity> {
    let text = |name: &str| -> Result<String> {
        let raw = fields
            .get(name)
            .ok_or_else(|| Error::corrupt(format!("a row without `{name}`")))?;
        serde_json::from_str(raw.get()).map_err(|error| unreadable(&error))
    };
    let mut properties = Properties::new();
    for (name, raw) in fields {
        if name.contains('.') || name.contains('@') || matches!(name.as_str(), "PartitionKey" | "RowKey" | "Timestamp")
        {
            continue;
        }
        let kind: Option<String> = match fields.get(&format!("{name}{TYPE}")) {
            Some(kind) => Some(serde_json::from_str(kind.get()).map_err(|error| unreadable(&error))?),
            None => None,
        };
        // A property that was selected and is missing comes as null.
        if raw.get() != "null" {
            let value = read_value(kind.as_deref(), raw.get());
            properties.set(name, value.ok_or_else(|| Error::corrupt(format!("property `{name}`")))?);
        }
    }
    Ok(Entity {
        partition: Key::new(text("PartitionKey")?)?,
        row: Key::new(text("RowKey")?)?,
        etag: ETag(text("odata.etag")?),
        properties,
    })
}

fn read_value(kind: Option<&str>, raw: &str) -> Option<Value> {
    if raw.starts_with('"') {
        let text: String = serde_json::from_str(raw).ok()?;
        return Some(match kind {
            None | Some("Edm.String" | "Edm.Guid") => Value::Text(text),
            Some("Edm.Int64" | "Edm.Int32") => Value::Int(text.parse().ok()?),
            Some("Edm.Double") => Value::Double(text.parse().ok().filter(|number: &f64| number.is_finite())?),
            Some("Edm.DateTime") => Value::Time(Timestamp::parse(&text).ok()?),
            Some("Edm.Binary") => Value::Bytes(STANDARD.decode(text).ok()?),
            Some("Edm.Boolean") => Value::Bool(text.parse().ok()?),
            Some(_) => return None,
        });
    }
    match raw {
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        // Only a double comes as a bare number, since we never write 32-bit integers. Read from the text, because the
        // JSON reader may be off by the last bit.
        number => match kind {
            Some("Edm.Int32" | "Edm.Int64") => number.parse().ok().map(Value::Int),
            _ => number
                .parse()
                .ok()
                .filter(|number: &f64| number.is_finite())
                .map(Value::Double),
        },
    }
}

/// Wraps what the service calls the place where a page ended, together with what the page was of.
pub(super) fn seal_continuation(scope: &[&str], place: [String; 2]) -> Continuation {
    let [first, second] = place;
    let json = serde_json::json!([scope_mark(scope), first, second]);
    Continuation(URL_SAFE_NO_PAD.encode(json.to_string()))
}

/// The place in a continuation that was made for the same scope. It may still be a forgery, which is harmless: every
/// query names its partition, and every listing its prefix, again.
pub(super) fn open_continuation(scope: &[&str], continuation: &Continuation) -> Result<[String; 2]> {
    let malformed = || Error::Malformed {
        what: continuation.0.chars().take(60).collect(),
        expected: "place to go on from",
    };
    if continuation.0.len() > MAX_CONTINUATION {
        return Err(malformed());
    }
    let json = URL_SAFE_NO_PAD.decode(&continuation.0).map_err(|_| malformed())?;
    let (mark, first, second): (String, String, String) = serde_json::from_slice(&json).map_err(|_| malformed())?;
    let plain = |text: &str| !text.chars().any(char::is_control);
    if mark != scope_mark(scope) || first.is_empty() || !plain(&first) || !plain(&second) {
        return Err(malformed());
    }
    Ok([first, second])
}

fn scope_mark(scope: &[&str]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in scope {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    URL_SAFE_NO_PAD.encode(&context.finish().as_ref()[..9])
}

/// One operation as a request: verb, address of the row or of the table, condition, body.
pub(super) struct RowRequest {
    pub(super) verb: Verb,
    pub(super) address: String,
    pub(super) if_match: Option<String>,
    pub(super) body: Option<String>,
}

/// The verbs of row operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Post,
    Put,
    /// The service's `MERGE`, under its standard name.
    Patch,
    Delete,
}

impl Verb {
    const fn text(self) -> &'static str {
        match self {
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// What one operation sends. `table` is the table's address; `index` is where it stands in its batch.
pub(super) fn row_request(table: &str, partition: &Key, operation: &Operation, index: usize) -> Result<RowRequest> {
    let row = operation.row();
    let address = || format!("{table}{}", row_address(partition, row));
    let json = |properties| row_json(partition, row, properties).map(Some);
    Ok(match operation {
        Operation::Insert(_, properties) => RowRequest {
            verb: Verb::Post,
            address: table.to_owned(),
            if_match: None,
            body: json(properties)?,
        },
        Operation::Replace(_, properties, condition) => RowRequest {
            verb: Verb::Put,
            address: address(),
            if_match: Some(if_match(condition, row, index)?),
            body: json(properties)?,
        },
        Operation::Merge(_, properties, condition) => RowRequest {
            verb: Verb::Patch,
            address: address(),
            if_match: Some(if_match(condition, row, index)?),
            body: json(properties)?,
        },
        Operation::Upsert(_, properties) => RowRequest {
            verb: Verb::Put,
            address: address(),
            if_match: None,
            body: json(properties)?,
        },
        Operation::Delete(_, condition) => RowRequest {
            verb: Verb::Delete,
            address: address(),
            if_match: Some(if_match(condition, row, index)?),
            body: None,
        },
    })
}

/// The condition's header. What can't be an ETag of the service matches nothing, and `*` would match everything.
fn if_match(condition: &Match, row: &Key, index: usize) -> Result<String> {
    match condition {
        Match::Any => Ok("*".into()),
        Match::Exactly(ETag(etag)) => {
            let inner = etag.strip_prefix("W/").unwrap_or(etag);
            let inner = inner.strip_prefix('"').and_then(|inner| inner.strip_suffix('"'));
            if inner.is_some_and(|inner| inner.bytes().all(|b| b.is_ascii_graphic() && b != b'"')) {
                Ok(etag.clone())
            } else {
                Err(Error::PreconditionFailed {
                    what: row.to_string(),
                    index,
                })
            }
        }
    }
}

/// The body of an entity-group transaction.
pub(super) fn batch_body(batch: &str, changeset: &str, requests: &[RowRequest]) -> String {
    let mut out = format!("--{batch}\r\nContent-Type: multipart/mixed; boundary={changeset}\r\n\r\n");
    for (index, request) in requests.iter().enumerate() {
        let _ = write!(
            out,
            "--{changeset}\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\
             Content-ID: {index}\r\n\r\n{} {} HTTP/1.1\r\n\
             Accept: application/json;odata=minimalmetadata\r\nDataServiceVersion: 3.0;\r\n",
            request.verb.text(),
            request.address,
        );
        if request.verb == Verb::Post {
            out.push_str("Prefer: return-no-content\r\n");
        }
        if let Some(etag) = &request.if_match {
            let _ = write!(out, "If-Match: {etag}\r\n");
        }
        match &request.body {
            // No content length: a part ends at the next boundary, and JSON has no line break that could look like one.
            Some(body) => {
                let _ = write!(out, "Content-Type: application/json\r\n\r\n{body}\r\n");
            }
            None => out.push_str("\r\n\r\n"),
        }
    }
    let _ = write!(out, "--{changeset}--\r\n--{batch}--\r\n");
    out
}

/// What became of each operation of a batch, in order: its ETag (empty after a delete), or the refusal of the whole.
pub(super) fn read_batch(content_type: &str, body: &str, expected: usize) -> std::result::Result<Vec<ETag>, Failure> {
    let unreadable = |what: &str| Failure::Unreadable(format!("batch: {what}"));
    let mut answers = Vec::new();
    read_multipart(content_type, body, &mut answers).ok_or_else(|| unreadable("framing"))?;
    let mut etags = Vec::with_capacity(expected);
    for answer in answers {
        if !(200..300).contains(&answer.status) {
            let (code, index) = read_refusal(answer.body.as_bytes());
            // A refusal without an index stands where the operation stood, when it was not the only answer.
            let index = index.unwrap_or(etags.len()).min(expected.saturating_sub(1));
            return Err(Failure::Answer(Answer {
                status: answer.status,
                code,
                index,
                request_id: String::new(),
            }));
        }
        etags.push(ETag(answer.etag));
    }
    if etags.len() == expected {
        Ok(etags)
    } else {
        Err(unreadable("number of answers"))
    }
}

struct PartAnswer<'a> {
    status: u16,
    etag: String,
    body: &'a str,
}

fn read_multipart<'a>(content_type: &str, body: &'a str, answers: &mut Vec<PartAnswer<'a>>) -> Option<()> {
    let boundary = content_type
        .split(';')
        .find_map(|part| part.trim().strip_prefix("boundary="))?;
    let delimiter = format!("--{}", boundary.trim_matches('"'));
    // What stands before the first delimiter is no part, and the last one is followed by `--`.
    for part in body.split(delimiter.as_str()).skip(1) {
        if part.starts_with("--") {
            break;
        }
        let (headers, content) = split_head(part.trim_start())?;
        let kind = header(headers, "content-type")?;
        if kind.starts_with("multipart/mixed") {
            read_multipart(kind, content, answers)?;
        } else {
            let (head, body) = split_head(content.trim_start())?;
            let status = head.split_whitespace().nth(1)?.parse().ok()?;
            let etag = header(head, "etag").unwrap_or_default().to_owned();
            answers.push(PartAnswer {
                status,
                etag,
                body: body.trim(),
            });
        }
    }
    Some(())
}

/// Header lines and what follows the blank line; a part may end with its headers.
fn split_head(text: &str) -> Option<(&str, &str)> {
    text.split_once("\r\n\r\n")
        .or_else(|| text.split_once("\n\n"))
        .or_else(|| {
            let head = text.trim_end();
            (!head.is_empty()).then_some((head, ""))
        })
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(found, _)| found.trim().eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

#[derive(serde::Deserialize)]
struct Refusal {
    #[serde(rename = "odata.error")]
    error: RefusalBody,
}

#[derive(serde::Deserialize)]
struct RefusalBody {
    #[serde(default)]
    code: String,
    message: Option<RefusalMessage>,
}

#[derive(serde::Deserialize)]
struct RefusalMessage {
    #[serde(default)]
    value: String,
}

/// The code in a refusal's body, JSON or (for refused credentials) XML, and the batch index that starts its message.
pub(super) fn read_refusal(body: &[u8]) -> (String, Option<usize>) {
    if let Ok(refusal) = serde_json::from_slice::<Refusal>(body) {
        let message = refusal.error.message.map(|message| message.value).unwrap_or_default();
        let index = message.split_once(':').and_then(|(index, _)| index.trim().parse().ok());
        return (code(&refusal.error.code), index);
    }
    let text = String::from_utf8_lossy(body);
    let inner = text
        .split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"));
    (inner.map(|(inner, _)| code(inner)).unwrap_or_default(), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Key {
        Key::new(text).unwrap()
    }

    #[test]
    fn keys_are_doubled_then_encoded() {
        assert_eq!(
            row_address(&key("it's"), &key("a b+ü%&=')")),
            "(PartitionKey=%27it%27%27s%27,RowKey=%27a%20b%2B%C3%BC%25%26%3D%27%27%29%27)"
        );
    }

    #[test]
    fn filters_are_typed_and_closed() {
        let filter = Filter::equal("a", "x' or PartitionKey ne '").and(Filter::equal("b", 5).or(Filter::Is(
            "c".into(),
            Comparison::NotEqual,
            Value::Double(2.0),
        )));
        assert_eq!(
            filter_text(&filter),
            "(a eq 'x'' or PartitionKey ne ''' and (b eq 5L or (c lt 2.0 or c gt 2.0)))"
        );
        let time = Filter::equal("t", Timestamp::from_millis(1)).and(Filter::equal("f", false));
        assert_eq!(
            filter_text(&time),
            "(t eq datetime'1970-01-01T00:00:00.001Z' and f eq false)"
        );
        let bytes = Filter::Is("d".into(), Comparison::Equal, Value::Bytes(vec![0, 255]));
        assert_eq!(filter_text(&bytes), "d eq X'00ff'");
        let large = Filter::Is("d".into(), Comparison::Less, Value::Double(-1e22));
        assert_eq!(filter_text(&large), "d lt -10000000000000000000000.0");
        let query = |filter| query_parameters("table", &Query::partition(key("p")).filter(filter));
        assert!(query(Filter::equal("a", 1)).is_ok());
        assert!(query(Filter::equal("a eq 1 or b", 1)).is_err());
        assert!(query(Filter::Is("a".into(), Comparison::Less, Value::Double(f64::NAN))).is_err());
    }

    #[test]
    fn values_keep_their_type() {
        let numbers = [
            2.0,
            -0.0,
            f64::MAX,
            f64::MIN_POSITIVE,
            5e-324,
            0.1,
            1e21,
            -123_456_789.123_456_79,
        ];
        let mut properties = Properties::new()
            .with("text", "5")
            .with("int", i64::MIN)
            .with("truth", true)
            .with("at", Timestamp::from_millis(1_795_219_200_123));
        properties.set("bytes", Value::Bytes(vec![0, 1, 255]));
        for (index, number) in numbers.into_iter().enumerate() {
            properties.set(&format!("double{index}"), Value::Double(number));
        }
        let json = row_json(&key("p"), &key("r"), &properties).unwrap();
        let json = json.replacen('{', "{\"odata.etag\":\"W/\\\"1\\\"\",\"gone\":null,", 1);
        let entity = read_row(json.as_bytes()).unwrap();
        assert_eq!(entity.properties, properties);
        let Some(Value::Double(zero)) = entity.properties.get("double1") else {
            panic!("no double")
        };
        assert!(zero.is_sign_negative());
    }

    #[test]
    fn continuations_are_bound_to_their_query() {
        let sealed = seal_continuation(&["table", "p"], ["1!4!YQ--".into(), String::new()]);
        assert_eq!(
            open_continuation(&["table", "p"], &sealed).unwrap(),
            ["1!4!YQ--".to_owned(), String::new()]
        );
        for scope in [["table", "q"], ["tablep", ""], ["other", "p"]] {
            assert!(open_continuation(&scope, &sealed).is_err());
        }
        let long = "A".repeat(MAX_CONTINUATION + 1);
        for text in ["", "x", "W10", long.as_str()] {
            assert!(open_continuation(&["table", "p"], &Continuation(text.into())).is_err());
        }
    }

    #[test]
    fn only_etags_are_conditions() {
        let exactly = |text: &str| if_match(&Match::Exactly(ETag(text.into())), &key("r"), 3);
        assert_eq!(exactly("W/\"datetime'2026'\"").unwrap(), "W/\"datetime'2026'\"");
        for text in ["*", "", "\"", "W/\"a\"\r\nX: \"", "W/\"a\", \"b\""] {
            assert!(
                matches!(exactly(text), Err(Error::PreconditionFailed { index: 3, .. })),
                "{text:?}"
            );
        }
    }

    #[test]
    fn batch_answers() {
        let content_type = "multipart/mixed; boundary=batchresponse_1";
        let part = |content: &str| {
            format!(
                "--batchresponse_1\r\nContent-Type: multipart/mixed; boundary=changesetresponse_2\r\n\r\n{content}\
                 --changesetresponse_2--\r\n--batchresponse_1--\r\n"
            )
        };
        let head =
            "--changesetresponse_2\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n";
        let good = part(&format!(
            "{head}HTTP/1.1 204 No Content\r\nETag: W/\"a\"\r\n\r\n\r\n{head}HTTP/1.1 204 No Content\r\n\r\n\r\n"
        ));
        assert_eq!(
            read_batch(content_type, &good, 2).unwrap(),
            [ETag("W/\"a\"".into()), ETag(String::new())]
        );
        assert!(matches!(
            read_batch(content_type, &good, 3),
            Err(Failure::Unreadable(_))
        ));
        let bad = part(&format!(
            "{head}HTTP/1.1 409 Conflict\r\nContent-Type: application/json\r\n\r\n\
             {{\"odata.error\":{{\"code\":\"EntityAlreadyExists\",\"message\":{{\"lang\":\"en-US\",\"value\":\"1:x\"}}}}}}\r\n"
        ));
        let Err(Failure::Answer(answer)) = read_batch(content_type, &bad, 2) else {
            panic!("no refusal")
        };
        assert_eq!(
            (answer.status, answer.code.as_str(), answer.index),
            (409, "EntityAlreadyExists", 1)
        );
        assert!(matches!(
            read_batch("text/plain", &good, 2),
            Err(Failure::Unreadable(_))
        ));
    }

    #[test]
    fn refusals() {
        let empty = br#"{"odata.error":{"code":"","message":{"value":"no"}}}"#;
        assert_eq!(read_refusal(empty), (String::new(), None));
        let xml = b"<?xml version=\"1.0\"?><Error><Code>AuthorizationFailure</Code><Message>x</Message></Error>";
        assert_eq!(read_refusal(xml), ("AuthorizationFailure".into(), None));
        assert_eq!(read_refusal(b""), (String::new(), None));
    }
}
