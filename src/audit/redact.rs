//! What is taken out of a record before it is made: secrets, what points at a person, and whatever is too long.
//!
//! Names are looked at and so are texts: a value is replaced when its name says that it is a secret or a person's datum, a
//! text when it looks like one. Too much is taken rather than too little; the record still says that there was something.

use serde_json::{Map, Value};

use crate::domain::sha256_hex;

/// Most bytes of JSON text that [`json`] leaves.
pub const MAX_JSON_BYTES: usize = 8 * 1024;
/// Stands for a secret.
pub const SECRET: &str = "[redacted]";
/// Stands for something that points at a person.
pub const PERSONAL: &str = "[personal]";

/// The bounds of one pass; a stricter one follows where the result is still too long.
struct Bounds {
    depth: usize,
    items: usize,
    names: usize,
    text: usize,
}

/// Most characters of a member's name; room for the mark of a cut.
const MAX_NAME: usize = 80;

const PASSES: [Bounds; 4] = [
    Bounds {
        depth: 6,
        items: 50,
        names: 100,
        text: 512,
    },
    Bounds {
        depth: 5,
        items: 20,
        names: 40,
        text: 160,
    },
    Bounds {
        depth: 4,
        items: 5,
        names: 20,
        text: 80,
    },
    Bounds {
        depth: 2,
        items: 3,
        names: 10,
        text: 40,
    },
];

/// Anywhere in a name, whatever stands around it.
const SECRET_PARTS: [&str; 14] = [
    "secret",
    "password",
    "passwd",
    "passphrase",
    "token",
    "credential",
    "authorization",
    "apikey",
    "accesskey",
    "privatekey",
    "accountkey",
    "connectionstring",
    "cookie",
    "signature",
];
/// As a whole word of a name.
const SECRET_WORDS: [&str; 10] = ["key", "keys", "code", "codes", "pwd", "pin", "otp", "sas", "jwt", "sig"];
/// Names that have such a word and say nothing secret.
const HARMLESS: [&str; 11] = [
    "keyid",
    "keyname",
    "keyids",
    "keynames",
    "keycount",
    "keyprefixlength",
    "statuscode",
    "errorcode",
    "exitcode",
    "reasoncode",
    "countrycode",
];
/// In a text, in lower case.
const SECRET_MARKS: [&str; 9] = [
    "accountkey=",
    "sharedaccesssignature",
    "sharedaccesskey=",
    "sig=",
    "password=",
    "pwd=",
    "-----begin",
    "?code=",
    "&code=",
];
/// Names of what points at a person.
const PERSONAL_NAMES: [&str; 18] = [
    "email",
    "mail",
    "emailaddress",
    "phone",
    "phonenumber",
    "displayname",
    "fullname",
    "firstname",
    "lastname",
    "givenname",
    "surname",
    "upn",
    "preferredusername",
    "userprincipalname",
    "ip",
    "ipaddress",
    "useragent",
    "birthday",
];

/// A value without secrets and personal data, and at most [`MAX_JSON_BYTES`] long as text. What is cut is marked with its
/// length and the SHA-256 of what it was. Names are sorted, so that equal values give equal text.
#[must_use]
pub fn json(value: &Value) -> Value {
    bounded(value, telling)
}

/// As [`json`], but what points at a person stays: for a part that is encrypted with that person's key.
#[must_use]
pub fn json_about(value: &Value) -> Value {
    bounded(value, secret)
}

/// What is judged.
#[derive(Clone, Copy)]
enum What<'a> {
    /// The name of a member of an object.
    Name(&'a str),
    /// A text, wherever it stands.
    Text(&'a str),
}

/// Says by which mark something is replaced.
type Judge = fn(What<'_>) -> Option<&'static str>;

fn bounded(value: &Value, judge: Judge) -> Value {
    for bounds in &PASSES {
        let out = walk(value, bounds, judge, 0);
        if out.to_string().len() <= MAX_JSON_BYTES {
            return out;
        }
    }
    cut_mark("value", value)
}

/// One line of text: no control characters, at most `max` characters. What is cut is marked by `…`.
#[must_use]
pub fn line(text: &str, max: usize) -> String {
    let mut out: String = text
        .chars()
        .take(max)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(max).is_some() {
        out.pop();
        out.push('…');
    }
    out
}

/// As [`line()`], for a text that must neither be a secret nor point at a person: it is replaced whole where it looks so.
#[must_use]
pub fn label(text: &str, max: usize) -> String {
    match telling(What::Text(text)) {
        Some(mark) => mark.to_owned(),
        None => line(text, max),
    }
}

/// A method and path: no query, and no segment that is long enough to be a secret (signed links carry one).
#[must_use]
pub fn endpoint(text: &str) -> String {
    let path = text.split(['?', '#']).next().unwrap_or_default();
    let segments: Vec<String> = path
        .split('/')
        .map(|segment| {
            if segment.chars().count() > 40 {
                SECRET.to_owned()
            } else {
                label(segment, 40)
            }
        })
        .collect();
    line(&segments.join("/"), 200)
}

fn walk(value: &Value, bounds: &Bounds, judge: Judge, depth: usize) -> Value {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        Value::String(text) => Value::String(shorten(text, bounds.text, judge)),
        Value::Array(_) if depth >= bounds.depth => cut_mark("list", value),
        Value::Object(_) if depth >= bounds.depth => cut_mark("object", value),
        Value::Array(items) => {
            let kept = if items.len() > bounds.items {
                bounds.items - 1
            } else {
                items.len()
            };
            let mut out: Vec<Value> = items[..kept]
                .iter()
                .map(|item| walk(item, bounds, judge, depth + 1))
                .collect();
            if items.len() > kept {
                out.push(Value::String(format!("[cut: {} more]", items.len() - kept)));
            }
            Value::Array(out)
        }
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            names.sort_unstable();
            let kept = if names.len() > bounds.names {
                bounds.names - 1
            } else {
                names.len()
            };
            let mut out = Map::new();
            for name in &names[..kept] {
                let value = match (judge(What::Name(name)), &members[name.as_str()]) {
                    // That there is none, or whether there is one, is no secret.
                    (Some(_), value @ (Value::Null | Value::Bool(_))) => value.clone(),
                    (Some(mark), _) => Value::String(mark.to_owned()),
                    (None, value) => walk(value, bounds, judge, depth + 1),
                };
                let name = unused(&out, shorten(name, MAX_NAME, judge));
                out.insert(name, value);
            }
            if names.len() > kept {
                let name = unused(&out, "[cut]".into());
                out.insert(name, Value::String(format!("[cut: {} more]", names.len() - kept)));
            }
            Value::Object(out)
        }
    }
}

fn unused(taken: &Map<String, Value>, name: String) -> String {
    if !taken.contains_key(&name) {
        return name;
    }
    (2..)
        .map(|n: u32| format!("{name}~{n}"))
        .find(|name| !taken.contains_key(name))
        .unwrap_or(name)
}

/// What is a secret or points at a person.
fn telling(what: What<'_>) -> Option<&'static str> {
    secret(what).or_else(|| personal(what))
}

fn folded(name: &str) -> String {
    name.chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect()
}

/// What is a secret, or looks like one.
fn secret(what: What<'_>) -> Option<&'static str> {
    let found = match what {
        What::Name(name) => secret_name(name),
        What::Text(text) => secret_text(text),
    };
    found.then_some(SECRET)
}

/// What points at a person, or looks as if it did.
fn personal(what: What<'_>) -> Option<&'static str> {
    let found = match what {
        What::Name(name) => PERSONAL_NAMES.contains(&folded(name).as_str()),
        What::Text(text) => has_address(text),
    };
    found.then_some(PERSONAL)
}

fn secret_name(name: &str) -> bool {
    let folded = folded(name);
    if HARMLESS.contains(&folded.as_str()) {
        return false;
    }
    SECRET_PARTS.iter().any(|part| folded.contains(part)) || words(name).any(|w| SECRET_WORDS.contains(&w.as_str()))
}

/// The words of `a_name`, `a-name`, `aName` and `ANAME`, in lower case.
fn words(name: &str) -> impl Iterator<Item = String> {
    let mut out = vec![String::new()];
    let mut lower_before = false;
    for c in name.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && lower_before) {
            out.push(String::new());
        }
        if c.is_alphanumeric()
            && let Some(word) = out.last_mut()
        {
            word.extend(c.to_lowercase());
        }
        lower_before = c.is_lowercase() || c.is_numeric();
    }
    out.into_iter()
}

fn secret_text(text: &str) -> bool {
    let lower = text.to_lowercase();
    let start = lower.trim_start();
    start.starts_with("bearer ")
        || start.starts_with("basic ")
        || SECRET_MARKS.iter().any(|mark| lower.contains(mark))
        || text
            .split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '=' | ','))
            .any(is_jwt)
}

/// Whether there is an e-mail address in it. A link with credentials (`https://user:secret@host.example`) counts too.
fn has_address(text: &str) -> bool {
    text.split(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | ',' | ';' | '"' | '(' | ')'))
        .any(|word| {
            word.split_once('@').is_some_and(|(local, domain)| {
                local.chars().next_back().is_some_and(char::is_alphanumeric)
                    && domain.chars().next().is_some_and(char::is_alphanumeric)
                    && domain.contains('.')
            })
        })
}

fn is_jwt(word: &str) -> bool {
    word.starts_with("eyJ") && word.split('.').count() == 3
}

fn shorten(text: &str, max: usize, judge: Judge) -> String {
    if let Some(mark) = judge(What::Text(text)) {
        return mark.to_owned();
    }
    if text.chars().nth(max).is_none() {
        return text.to_owned();
    }
    // The mark takes at most 56 characters.
    let start: String = text.chars().take(max.saturating_sub(56).max(20)).collect();
    format!(
        "{start}… [cut: {} bytes, sha256 {}]",
        text.len(),
        &sha256_hex(text.as_bytes())[..16]
    )
}

fn cut_mark(kind: &str, value: &Value) -> Value {
    Value::String(format!("[cut: {kind} of {} bytes]", value.to_string().len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn names_decide() {
        for secret in [
            "password",
            "clientSecret",
            "CLIENT_SECRET",
            "apiKey",
            "api-key",
            "x-functions-key",
            "Authorization",
            "refresh_token",
            "code",
            "authCode",
            "key",
            "KEY",
            "credentials",
            "Set-Cookie",
            "max_tokens",
            "idempotencyKey",
            "pin",
        ] {
            assert_eq!(json(&json!({secret: "v"}))[secret], SECRET, "{secret}");
            assert_eq!(json(&json!({secret: {"deep": ["v"]}}))[secret], SECRET, "{secret}");
            assert_eq!(json(&json!({secret: 1234}))[secret], SECRET, "{secret}");
        }
        for plain in [
            "name",
            "keyName",
            "key_id",
            "statusCode",
            "monkey",
            "role",
            "encode",
            "decoder",
            "spin",
        ] {
            assert_eq!(json(&json!({plain: "v"}))[plain], "v", "{plain}");
        }
        for personal in ["email", "e-mail", "displayName", "phone_number", "ip"] {
            assert_eq!(json(&json!({personal: "v"}))[personal], PERSONAL, "{personal}");
        }
        assert_eq!(json(&json!({"password": true}))["password"], true);
    }

    #[test]
    fn texts_decide_too() {
        for text in [
            "Bearer abc",
            "see eyJhbGciOi.eyJzdWIi.sig",
            "DefaultEndpoints;AccountKey=abc",
            "/x?code=1",
            "a?b&sig=x",
        ] {
            assert_eq!(json(&json!([text])), json!([SECRET]), "{text}");
        }
        assert_eq!(json(&json!(["Ada <ada@example.org>"])), json!([PERSONAL]));
        assert_eq!(
            json(&json!({"ada@example.org": 1, "bob@example.org": 2})),
            json!({PERSONAL: 1, "[personal]~2": 2})
        );
        assert_eq!(
            json(&json!(["@daily", "a @ b", "user@host"])),
            json!(["@daily", "a @ b", "user@host"])
        );
    }

    #[test]
    fn endpoints_keep_no_query_and_no_signed_part() {
        assert_eq!(
            endpoint("POST /api/workflows/hello/execute?code=abc"),
            "POST /api/workflows/hello/execute"
        );
        assert_eq!(
            endpoint(&format!("GET /api/approvals/{}", "a".repeat(64))),
            "GET /api/approvals/[redacted]"
        );
        assert_eq!(endpoint("GET /api/users/ada@example.org"), "GET /api/users/[personal]");
        let run = "run_01jd5y3e8v0000000000000000";
        assert!(endpoint(&format!("GET /api/runs/{run}")).contains(run));
    }

    #[test]
    fn lines_are_one_line() {
        assert_eq!(line("a\r\nb\u{0}c", 10), "a  b c");
        assert_eq!(line("abcdef", 3), "ab…");
        assert_eq!(line("abc", 3), "abc");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,40}".prop_map(Value::from),
            "[a-z ]{600,2000}".prop_map(Value::from),
        ];
        leaf.prop_recursive(9, 200, 12, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..12).prop_map(Value::from),
                prop::collection::vec(("\\PC{0,12}", inner), 0..12)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// A value with `secret` somewhere inside under a name that says so.
    fn hidden(secret: String) -> impl Strategy<Value = Value> {
        let name = (
            "[a-zA-Z_-]{0,6}",
            prop::sample::select(vec!["secret", "PASSWORD", "Token", "credential", "Authorization"]),
            "[a-z]{0,6}",
        )
            .prop_map(|(before, word, after)| format!("{before}{word}{after}"));
        let word = prop::sample::select(vec!["key", "Code", "KEY", "x-functions-key", "apiKey", "auth_code"])
            .prop_map(str::to_owned);
        (
            prop_oneof![name, word],
            any_json(),
            prop::collection::vec(any::<bool>(), 0..5),
        )
            .prop_map(move |(name, beside, path)| {
                let start = json!({ name: [secret.clone(), {"deep": secret.clone()}], "beside": beside });
                path.into_iter().fold(start, |inner, list| {
                    if list {
                        json!([inner])
                    } else {
                        json!({ "inner": inner })
                    }
                })
            })
    }

    proptest! {
        #[test]
        fn is_bounded_and_stable(value in any_json()) {
            let out = json(&value);
            prop_assert!(out.to_string().len() <= MAX_JSON_BYTES);
            prop_assert_eq!(json(&value), out);
        }

        #[test]
        fn a_named_secret_never_passes(value in hidden("S3cr3tV4lu3".into())) {
            prop_assert!(!json(&value).to_string().contains("S3cr3tV4lu3"));
        }

        #[test]
        fn an_address_never_passes(before in "[a-z]{1,9}", host in "[a-z]{1,9}", around in "[a-z ]{0,20}") {
            let text = format!("{around} {before}@{host}.org {around}");
            let out = json(&json!({"note": [text]})).to_string();
            prop_assert!(!out.contains('@'), "{}", out);
        }

        #[test]
        fn a_large_value_is_cut_with_a_mark(n in 200_usize..2_000) {
            let out = json(&json!({"items": (0..n).map(|i| format!("item {i} {}", "x".repeat(90))).collect::<Vec<_>>()}));
            prop_assert!(out.to_string().contains("[cut: "));
        }
    }
}
