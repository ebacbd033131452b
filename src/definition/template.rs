//! The parts of a template: text, comments, and code between `{{ }}` and `{% %}`.

/// A part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'a> {
    /// Text, or a comment, as it stands; of code the braces.
    Text(&'a str),
    /// What stands between `{{` and `}}`.
    Code(&'a str),
    /// What stands between `{%` and `%}`.
    Statement(&'a str),
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
        let code = &text[inside..end];
        if close == "%}" && bare(code) == "raw" {
            // Nothing in it is code.
            at = raw_end(text, end + 2).ok_or("`{% raw %}` is not closed by `{% endraw %}`")?;
            continue;
        }
        let code = if close == "}}" {
            Part::Code(code)
        } else {
            Part::Statement(code)
        };
        parts.extend([Part::Text(&text[from..inside]), code]);
        (from, at) = (end, end + 2);
    }
    parts.push(Part::Text(&text[from..]));
    Ok(parts)
}

/// A statement without what trims spaces around it.
pub(super) fn bare(statement: &str) -> &str {
    statement.trim_matches(|c: char| c.is_whitespace() || matches!(c, '-' | '+'))
}

/// Where `{% endraw %}` ends.
fn raw_end(text: &str, from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        at += text.get(at..)?.find("{%")? + 2;
        let end = at + text[at..].find("%}")?;
        if bare(&text[at..end]) == "endraw" {
            return Some(end + 2);
        }
    }
}

/// What is wrong with a statement of a template; none for one that there is. Templates decide and repeat, and do nothing else.
pub(super) fn wrong_statement(statement: &str) -> Option<String> {
    let words: Vec<_> = bare(statement).split_whitespace().collect();
    let (first, rest) = words.split_first()?;
    match *first {
        "for" if rest.contains(&"recursive") => Some("`for` can't be recursive".to_owned()),
        "if" | "elif" | "else" | "endif" | "for" | "endfor" | "set" | "endset" => None,
        other => {
            let other: String = other.chars().take(30).collect();
            Some(format!(
                "there is no `{{% {other} %}}` in templates; there are `if`, `for`, `set` and `raw`"
            ))
        }
    }
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
        let text = "a {{ '}}' ~ x }}{# {{ #}{% if y %}ü{% endif %}{%- raw -%}{{ z {% a %}{% endraw %}";
        let found = parts(text).unwrap();
        let as_it_stands = |part: &Part<'static>| match *part {
            Part::Text(text) | Part::Code(text) | Part::Statement(text) => text,
        };
        assert_eq!(found.iter().map(as_it_stands).collect::<String>(), text);
        let code: Vec<_> = found
            .iter()
            .filter(|part| !matches!(part, Part::Text(_)))
            .map(as_it_stands)
            .collect();
        assert_eq!(code, [" '}}' ~ x ", " if y ", " endif "]);
        assert!(parts("{{ '}}").is_err() && parts("{# x").is_err() && parts("{% raw %}{%").is_err());
    }

    #[test]
    fn templates_decide_and_repeat() {
        for good in [
            " if x ",
            "- elif not x -",
            " else ",
            " for x in list if x ",
            "+endfor+",
            " set a = 1 ",
        ] {
            assert_eq!(wrong_statement(good), None, "{good}");
        }
        for bad in [
            " macro m() ",
            " include 'x' ",
            " import 'x' as y ",
            " extends 'x' ",
            " call m() ",
            " filter upper ",
            " with a = 1 ",
            " block b ",
            " for x in y recursive ",
            " do x ",
        ] {
            assert!(wrong_statement(bad).is_some(), "{bad}");
        }
    }
}
