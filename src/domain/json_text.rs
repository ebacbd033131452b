//! What reading JSON would lose: whole numbers that 64 bits don't hold become the nearest that a float has.

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

#[cfg(test)]
mod tests {
    use super::*;

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
