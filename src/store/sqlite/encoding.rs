//! How the properties of an entity lie in a column: a version byte, then for each property its name, a type tag and its
//! value, in the order of the names. Lengths are little-endian: one byte for a name, four for a value.

use std::cmp::Ordering;

use crate::domain::Timestamp;
use crate::store::error::Error;
use crate::store::port::{Comparison, Filter, Properties, Result, Value};

const VERSION: u8 = 1;

const TEXT: u8 = b't';
const INT: u8 = b'i';
const DOUBLE: u8 = b'd';
const FALSE: u8 = b'0';
const TRUE: u8 = b'1';
const TIME: u8 = b'z';
const BYTES: u8 = b'b';

/// The column's content. The properties were checked before: no name is longer than 255 bytes.
pub(super) fn encode(properties: &Properties) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.push(VERSION);
    for (name, value) in properties.iter() {
        out.push(u8::try_from(name.len()).expect("a checked property name has at most 255 bytes"));
        out.extend_from_slice(name.as_bytes());
        match value {
            Value::Text(text) => long(&mut out, TEXT, text.as_bytes()),
            Value::Bytes(bytes) => long(&mut out, BYTES, bytes),
            Value::Int(number) => short(&mut out, INT, number.to_le_bytes()),
            Value::Double(number) => short(&mut out, DOUBLE, number.to_le_bytes()),
            Value::Time(at) => short(&mut out, TIME, at.millis().to_le_bytes()),
            Value::Bool(truth) => out.push(if *truth { TRUE } else { FALSE }),
        }
    }
    out
}

fn long(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend_from_slice(
        &u32::try_from(bytes.len())
            .expect("a checked value is far below 4 GiB")
            .to_le_bytes(),
    );
    out.extend_from_slice(bytes);
}

fn short(out: &mut Vec<u8>, tag: u8, bytes: [u8; 8]) {
    out.push(tag);
    out.extend_from_slice(&bytes);
}

/// A value as it lies in the column.
#[derive(Debug, Clone, Copy)]
enum Raw<'a> {
    Text(&'a str),
    Int(i64),
    Double(f64),
    Bool(bool),
    Time(i64),
    Bytes(&'a [u8]),
}

/// Goes through an encoded column without copying.
struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn new(column: &'a [u8]) -> Result<Self> {
        match column.split_first() {
            Some((&VERSION, rest)) => Ok(Self(rest)),
            Some((version, _)) => Err(Error::corrupt(format!("an entity has encoding {version}"))),
            None => Err(Error::corrupt("an entity is empty")),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or_else(|| Error::corrupt("an entity ends too early"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn eight(&mut self) -> Result<[u8; 8]> {
        Ok(self.take(8)?.try_into().expect("eight bytes were taken"))
    }

    fn long(&mut self) -> Result<&'a [u8]> {
        let length = u32::from_le_bytes(self.take(4)?.try_into().expect("four bytes were taken"));
        self.take(length as usize)
    }

    fn next(&mut self) -> Result<Option<(&'a str, Raw<'a>)>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let not_text = |_| Error::corrupt("an entity holds text that is not UTF-8");
        let length = self.take(1)?[0];
        let name = std::str::from_utf8(self.take(usize::from(length))?).map_err(not_text)?;
        let value = match self.take(1)?[0] {
            TEXT => Raw::Text(std::str::from_utf8(self.long()?).map_err(not_text)?),
            BYTES => Raw::Bytes(self.long()?),
            INT => Raw::Int(i64::from_le_bytes(self.eight()?)),
            DOUBLE => Raw::Double(f64::from_le_bytes(self.eight()?)),
            TIME => Raw::Time(i64::from_le_bytes(self.eight()?)),
            FALSE => Raw::Bool(false),
            TRUE => Raw::Bool(true),
            tag => return Err(Error::corrupt(format!("an entity holds a value of type {tag}"))),
        };
        Ok(Some((name, value)))
    }
}

impl Raw<'_> {
    fn to_value(self) -> Value {
        match self {
            Self::Text(text) => Value::Text(text.to_owned()),
            Self::Int(number) => Value::Int(number),
            Self::Double(number) => Value::Double(number),
            Self::Bool(truth) => Value::Bool(truth),
            Self::Time(at) => Value::Time(Timestamp::from_millis(at)),
            Self::Bytes(bytes) => Value::Bytes(bytes.to_vec()),
        }
    }

    /// Nothing when the types differ.
    fn compare(self, other: &Value) -> Option<Ordering> {
        match (self, other) {
            (Self::Text(left), Value::Text(right)) => Some(left.cmp(right.as_str())),
            (Self::Int(left), Value::Int(right)) => Some(left.cmp(right)),
            (Self::Double(left), Value::Double(right)) => left.partial_cmp(right),
            (Self::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
            (Self::Time(left), Value::Time(right)) => Some(left.cmp(&right.millis())),
            (Self::Bytes(left), Value::Bytes(right)) => Some(left.cmp(right.as_slice())),
            _ => None,
        }
    }
}

/// The properties in a column; only those in `select` when it isn't empty.
pub(super) fn decode(column: &[u8], select: &[String]) -> Result<Properties> {
    let mut cursor = Cursor::new(column)?;
    let mut properties = Properties::new();
    while let Some((name, value)) = cursor.next()? {
        if select.is_empty() || select.iter().any(|wanted| wanted == name) {
            properties.set(name, value.to_value());
        }
    }
    Ok(properties)
}

/// Whether a column satisfies a condition. A property that is missing or has another type satisfies no comparison.
pub(super) fn matches(column: &[u8], filter: &Filter) -> Result<bool> {
    match filter {
        Filter::And(left, right) => Ok(matches(column, left)? && matches(column, right)?),
        Filter::Or(left, right) => Ok(matches(column, left)? || matches(column, right)?),
        Filter::Is(property, comparison, value) => {
            let mut cursor = Cursor::new(column)?;
            while let Some((name, raw)) = cursor.next()? {
                if name == property {
                    return Ok(raw.compare(value).is_some_and(|order| match comparison {
                        Comparison::Equal => order.is_eq(),
                        Comparison::NotEqual => order.is_ne(),
                        Comparison::Less => order.is_lt(),
                        Comparison::LessOrEqual => order.is_le(),
                        Comparison::Greater => order.is_gt(),
                        Comparison::GreaterOrEqual => order.is_ge(),
                    }));
                }
            }
            Ok(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_type() -> Properties {
        Properties::new()
            .with("text", "ü€")
            .with("empty", "")
            .with("int", i64::MIN)
            .with("truth", true)
            .with("lie", false)
            .with("double", Value::Double(-0.0))
            .with("time", Timestamp::from_millis(1_795_219_200_123))
            .with("bytes", Value::Bytes((0..=255).collect()))
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let column = encode(&every_type());
        let back = decode(&column, &[]).unwrap();
        assert_eq!(back, every_type());
        assert!(matches!(back.get("double"), Some(Value::Double(zero)) if zero.is_sign_negative()));
        let some = decode(&column, &["int".into(), "missing".into()]).unwrap();
        assert_eq!(some, Properties::new().with("int", i64::MIN));
    }

    #[test]
    fn a_damaged_column_is_told() {
        let column = encode(&every_type());
        assert!(decode(&[], &[]).is_err());
        assert!(decode(&[2], &[]).is_err());
        for end in 2..column.len() {
            // A cut may fall between two properties; it never panics and never invents one.
            if let Ok(properties) = decode(&column[..end], &[]) {
                assert!(
                    properties
                        .iter()
                        .all(|(name, value)| every_type().get(name) == Some(value))
                );
            }
        }
    }
}
