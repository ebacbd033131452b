//! The parts of a template: text, comments, and code between `{{ }}` and `{% %}`.

/// A part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// Text, or a comment, as it stands; of code the braces.
    Text(&'a str),
    /// What stands between the braces.
    Code(&'a str),
}

impl<'a> Part<'a> {
    /// As it stands.
    pub(super) const fn text(self) -> &'a str {
        match self {
            Self::Text(text) | Self::Code(text) => text,
        }
    }
}

/// The parts of a text, in order; together they are the text.
///
/// # Errors
/// When something is opened and not closed, in words.
pub(super) fn parts(text: &str) -> Result<Vec<Part<'_>>, String> {
    let mut parts = Vec::new();
    let (mut from, mut at) = (0, 0);
    let bytes = text.as_bytes();
    while at + 1 < bytes.len() {
        let close = match &bytes[at..at + 2] {
            b"{{" => "}}",
            b"{%" => "%}",
            b"{#" => {
                let end = text[at..].find("#}").ok_or("a comment `{#` is not closed by `#}`")?;
                at += end + 2;
                continue;
            }
            _ => {
                at += 1;
                continue;
            }
        };
        let inside = at + 2;
        let end = code_end(text, inside, close).ok_or_else(|| {
            let shown: String = text[at..].chars().take(30).collect();
            format!("`{shown}` is not closed by `{close}`")
        })?;
        parts.extend([Part::Text(&text[from..inside]), Part::Code(&text[inside..end])]);
        (from, at) = (end, end + 2);
    }
    parts.push(Part::Text(&text[from..]));
    Ok(parts)
}

/// Where code ends that begins there; what closes it doesn't count inside of a quoted text.
pub(super) fn code_end(text: &str, start: usize, close: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = start;
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'"' | b'\'') => {
                at += 1;
                while at < bytes.len() && bytes[at] != quote {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            _ if bytes[at..].starts_with(close.as_bytes()) => return Some(at),
            _ => at += 1,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_the_text() {
        let text = "a {{ '}}' ~ x }}{# {{ #}{% if y %}ü{% endif %}";
        let found = parts(text).unwrap();
        assert_eq!(found.iter().map(|part| part.text()).collect::<String>(), text);
        let code: Vec<_> = found
            .iter()
            .filter(|part| matches!(part, Part::Code(_)))
            .map(|part| part.text())
            .collect();
        assert_eq!(code, [" '}}' ~ x ", " if y ", " endif "]);
        assert!(parts("{{ '}}").is_err() && parts("{# x").is_err());
    }
}
