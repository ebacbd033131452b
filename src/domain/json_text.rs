//! What reading JSON would lose: whole numbers that 64 bits don't hold become the nearest that a float has, and of members of one
//! name only the last is kept.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

/// A whole number of a JSON text that would be rounded by reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rounded {
    /// As it is written; of a long one the beginning.
    pub shown: String,
    /// In which line, from 1.
    pub line: usize,
    /// In which column, from 1, in bytes.
    pub column: usize,
}

/// What to do about a number that would be rounded.
pub const ROUNDED_HINT: &str = "send it as a text (`\"…\"`)";

impl fmt::Display for Rounded {
    /// What is wrong, in a sentence.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { shown, line, column } = self;
        write!(
            f,
            "`{shown}` (line {line}, column {column}) is a whole number beyond 64 bits, and would be rounded"
        )
    }
}

/// Most characters of a number that are shown.
const SHOWN: usize = 40;

/// The first whole number in a JSON text that is beyond 64 bits. One with a fraction or an exponent is a float by its form, and
/// is the nearest that there is, as everywhere in JSON. Of a text that is no JSON it says nothing of use.
#[must_use]
pub fn rounded(text: &[u8]) -> Option<Rounded> {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => {
                at += 1;
                while text.get(at).is_some_and(|byte| *byte != b'"') {
                    at += if text[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let is_part = |byte: &u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
                let length = text[at..].iter().take_while(|byte| is_part(byte)).count();
                let literal = std::str::from_utf8(&text[at..at + length]).unwrap_or_default();
                let is_whole = !literal.contains(['.', 'e', 'E']);
                if is_whole && literal.parse::<i64>().is_err() && literal.parse::<u64>().is_err() {
                    let before = &text[..at];
                    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                    return Some(Rounded {
                        shown: literal.chars().take(SHOWN).collect(),
                        line: before.iter().filter(|byte| **byte == b'\n').count() + 1,
                        column: at - line_start + 1,
                    });
                }
                at += length;
            }
            _ => at += 1,
        }
    }
    None
}

/// Most members that are named as standing more than once.
const MOST_REPEATED: usize = 20;

/// A JSON text as a value, and JSON pointers to the members that stand in it more than once, of which the value has the last:
/// at most 20 of them, in the order in which they stand.
///
/// # Errors
/// When it is no JSON.
pub fn read_json(text: &[u8]) -> serde_json::Result<(Value, Vec<String>)> {
    let repeated = RefCell::new(Vec::new());
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = Reader(&repeated).deserialize(&mut reader)?;
    reader.end()?;
    let pointer = |path: Vec<String>| {
        let segments = path.iter().rev();
        segments.fold(String::new(), |pointer, segment| {
            pointer + "/" + &segment.replace('~', "~0").replace('/', "~1")
        })
    };
    Ok((value, repeated.into_inner().into_iter().map(pointer).collect()))
}

/// Paths to members that stand more than once, the innermost name first: whoever has read a value adds where it stood to those that
/// were found in it, so that nothing is written down while there are none.
#[derive(Clone, Copy)]
struct Reader<'a>(&'a RefCell<Vec<Vec<String>>>);

impl Reader<'_> {
    fn count(self) -> usize {
        self.0.borrow().len()
    }

    /// Adds where something stood to what was found in it; how much is found now.
    fn stood_at(self, before: usize, segment: impl FnOnce() -> String) -> usize {
        let now = self.count();
        if now > before {
            let segment = segment();
            for path in &mut self.0.borrow_mut()[before..] {
                path.push(segment.clone());
            }
        }
        now
    }
}

const fn is_container(value: &Value) -> bool {
    matches!(value, Value::Array(_) | Value::Object(_))
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let (mut items, mut before) = (Vec::new(), self.count());
        while let Some(item) = access.next_element_seed(self)? {
            if is_container(&item) {
                before = self.stood_at(before, || items.len().to_string());
            }
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let (mut members, mut before) = (Map::new(), self.count());
        while let Some(name) = access.next_key::<String>()? {
            let value = access.next_value_seed(self)?;
            if is_container(&value) {
                before = self.stood_at(before, || name.clone());
            }
            match members.entry(name) {
                Entry::Vacant(free) => drop(free.insert(value)),
                Entry::Occupied(mut taken) => {
                    if self.count() < MOST_REPEATED {
                        self.0.borrow_mut().push(vec![taken.key().clone()]);
                        before += 1;
                    }
                    taken.insert(value);
                }
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn members_that_stand_more_than_once_are_found_wherever_they_are() {
        for (text, value, repeated) in [
            (r#"{"a":1,"a":2}"#, json!({"a": 2}), vec!["/a"]),
            (r#"{"a":1,"\u0061":2,"a":3}"#, json!({"a": 3}), vec!["/a", "/a"]),
            (
                r#"{"x": [0, {"b/c": {"~": 1, "~": 2}}], "y": {"x": 1}, "x": [{"k": 1, "k": {"k": 1}}]}"#,
                json!({"x": [{"k": {"k": 1}}], "y": {"x": 1}}),
                vec!["/x/1/b~1c/~0", "/x/0/k", "/x"],
            ),
            (r#"[{"": 1, "": 2}]"#, json!([{"": 2}]), vec!["/0/"]),
            (
                r#"{"a": {"a": {"a": 1}}, "b": [{"a": 1}, {"a": 1}]}"#,
                json!({"a": {"a": {"a": 1}}, "b": [{"a": 1}, {"a": 1}]}),
                vec![],
            ),
        ] {
            let (read, found) = read_json(text.as_bytes()).unwrap();
            assert_eq!(
                (read, found.iter().map(String::as_str).collect()),
                (value, repeated),
                "{text}"
            );
        }
        let many = format!("{{{}\"a\": 1}}", "\"a\": 1, ".repeat(100));
        assert_eq!(read_json(many.as_bytes()).unwrap().1.len(), MOST_REPEATED);
    }

    #[test]
    fn everything_else_is_read_as_it_always_was() {
        for text in [
            "null",
            "-0.0",
            "1e300",
            "18446744073709551615",
            "18446744073709551616",
            r#" {"a": [true, false, null, -1, 1.5, "ä\n\ud83d\ude00"], "": {}, "b": []} "#,
            "\"\"",
        ] {
            let usual: Value = serde_json::from_str(text).unwrap();
            assert_eq!(read_json(text.as_bytes()).unwrap(), (usual, vec![]), "{text}");
        }
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for text in [
            "",
            "{",
            r#"{"a": 1,}"#,
            "1 2",
            "{\"a\" 1}",
            "[1e999]",
            "\"\\ud800\"",
            &deep,
            "nul",
        ] {
            let usual = serde_json::from_str::<Value>(text).unwrap_err();
            let found = read_json(text.as_bytes()).unwrap_err();
            assert_eq!(
                (found.line(), found.column(), found.to_string()),
                (usual.line(), usual.column(), usual.to_string())
            );
        }
        assert!(read_json(b"\"\xff\"").is_err());
    }

    #[test]
    fn whole_numbers_beyond_64_bits_are_found_where_they_stand() {
        for fine in [
            r#"{"a": 18446744073709551615, "b": [-9223372036854775808, 0, -1]}"#,
            r#"{"a": 1.5, "b": 1e300, "c": 123456789012345678901234567890.0}"#,
            r#"{"123456789012345678901234567890": "123456789012345678901234567890", "\"1234567890123456789012345": 1}"#,
            "",
            "\"",
            "\"\\",
        ] {
            assert_eq!(rounded(fine.as_bytes()), None, "{fine}");
        }
        for (text, shown, line, column) in [
            (r#"{"a": 18446744073709551616}"#, "18446744073709551616", 1, 7),
            ("{\n \"a\": [1,\n  -9223372036854775809]}", "-9223372036854775809", 3, 3),
            ("99999999999999999999", "99999999999999999999", 1, 1),
        ] {
            let found = rounded(text.as_bytes()).unwrap();
            assert_eq!((found.shown.as_str(), found.line, found.column), (shown, line, column));
        }
        let long = "9".repeat(5000);
        assert_eq!(rounded(long.as_bytes()).unwrap().shown.len(), SHOWN);
    }
}
