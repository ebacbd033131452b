//! A file of settings to begin with: every key with what it means, the defaults commented out.

use std::fmt::Write as _;

use super::env_var::{self, Fallback, Section, Shape, Variable};

/// How wide comments are.
const WIDTH: usize = 100;

/// What differs from the defaults.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// `development`, `staging` or `production`.
    pub environment: Option<String>,
    /// A security profile.
    pub profile: Option<String>,
}

/// The text of such a file.
#[must_use]
pub fn template(wanted: &Wanted) -> String {
    let mut text = String::from(
        "# Settings of Weft. Take the `#` away from what is to be said; what is left out has its default.\n\
         # Later ones win: the user's file, /etc/weft/config.yaml, ./weft.yaml, the file that `--config` or\n\
         # `WEFT_CONFIG_FILE` names, the environment, flags. `weft config explain` shows what holds and why,\n\
         # `weft config validate FILE` what is wrong. docs/configuration.md has the rest.\n",
    );
    for section in Section::ALL {
        let mut variables = env_var::ALL
            .iter()
            .filter(|variable| variable.section == section)
            .filter_map(|variable| Some((variable, variable.key()?)))
            .peekable();
        if variables.peek().is_none() {
            continue;
        }
        let _ = write!(text, "\n# ── {} ──\n", section.heading());
        for (variable, key) in variables {
            text.push('\n');
            comment(&mut text, variable.doc);
            comment(&mut text, &allowed(variable));
            let _ = match said(variable, wanted) {
                Some(value) => writeln!(text, "{key}: {value}"),
                None => writeln!(text, "#{key}:{}", shown_default(variable)),
            };
        }
    }
    text
}

/// What the file says, where it says something.
fn said(variable: &Variable, wanted: &Wanted) -> Option<String> {
    let production = wanted.environment.as_deref() == Some("production");
    match variable.name {
        "WEFT_ENVIRONMENT" => wanted.environment.clone(),
        "WEFT_SECURITY_PROFILE" => wanted.profile.clone(),
        "WEFT_RUN_TIMEOUT_SECONDS" if production => Some("7200".to_owned()),
        "WEFT_MAX_CONCURRENT_RUNS" if production => Some("100".to_owned()),
        "WEFT_ENABLE_DEBUG_MODE" | "WEFT_ENABLE_DETAILED_LOGGING" if production => Some("false".to_owned()),
        _ => None,
    }
}

fn allowed(variable: &Variable) -> String {
    let default = match variable.fallback {
        Fallback::Unset | Fallback::Value("") => "not set".to_owned(),
        Fallback::Value(value) => format!("`{value}`"),
        Fallback::Words(words) => words.to_owned(),
    };
    let secret = if variable.secret {
        " A secret: keep this file to yourself (chmod 600), or set the variable instead."
    } else {
        ""
    };
    format!(
        "Value: {}. Default: {default}. Variable: `{}`.{secret}",
        env_var::shape_in_words(variable.shape),
        variable.name
    )
}

/// The default as it would be written; what depends on something else is left open.
fn shown_default(variable: &Variable) -> String {
    match (variable.fallback, variable.shape) {
        (Fallback::Value(""), Shape::List) => " []".to_owned(),
        (Fallback::Value(value), Shape::List) => format!(" [{}]", value.replace(',', ", ")),
        (Fallback::Value(value), _) if !value.is_empty() => format!(" {value}"),
        _ => String::new(),
    }
}

fn comment(text: &mut String, words: &str) {
    let mut line = String::from("#");
    for word in words.split_whitespace() {
        if line.chars().count() + word.chars().count() >= WIDTH {
            text.push_str(&line);
            text.push('\n');
            "#".clone_into(&mut line);
        }
        line.push(' ');
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::file;
    use super::*;

    #[test]
    fn a_template_says_nothing_until_something_is_wanted() {
        let parsed = file::parse(Path::new("/c.yaml"), &template(&Wanted::default()));
        assert_eq!(parsed.findings, []);
        assert!(parsed.entries.is_empty());
        let production = Wanted {
            environment: Some("production".to_owned()),
            profile: None,
        };
        let parsed = file::parse(Path::new("/c.yaml"), &template(&production));
        assert_eq!(parsed.findings, []);
        assert_eq!(parsed.entries["WEFT_ENVIRONMENT"].value, "production");
        assert_eq!(parsed.entries["WEFT_RUN_TIMEOUT_SECONDS"].value, "7200");
    }

    #[test]
    fn every_line_that_is_uncommented_can_be_read() {
        let text = template(&Wanted::default());
        let lines = text.lines().map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase()) => rest,
            _ => line,
        });
        let parsed = file::parse(Path::new("/c.yaml"), &lines.collect::<Vec<_>>().join("\n"));
        assert_eq!(parsed.findings, []);
        assert_eq!(parsed.entries["WEFT_PRELOAD"].value, "json,datetime");
    }
}
