//! Checked texts: names that are shown, slugs, e-mail addresses, identities.

use std::fmt;
use std::str::FromStr;

/// A text that doesn't keep the rule of its kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct TextError {
    /// What was given, shortened.
    pub text: String,
    /// What would have been right.
    pub expected: &'static str,
}

impl TextError {
    fn new(text: &str, expected: &'static str) -> Self {
        Self {
            text: text.chars().filter(|c| !c.is_control()).take(60).collect(),
            expected,
        }
    }
}

macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = TextError;

            fn from_str(text: &str) -> Result<Self, TextError> {
                let check: fn(&str) -> Option<String> = $check;
                check(text).map(Self).ok_or_else(|| TextError::new(text, $expected))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

checked_text!(
    /// A name to show: 1 to 255 characters, trimmed, no control characters.
    DisplayName, "a name (1 to 255 characters, none of them a control character)",
    |text| {
        let text = text.trim();
        let good = (1..=255).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        good.then(|| text.to_owned())
    }
);
checked_text!(
    /// A short name for addresses: 1 to 100 of a–z, 0–9 and single hyphens, no hyphen at either end.
    Slug, "a slug (1 to 100 of a–z, 0–9 and single hyphens)",
    |text| {
        let good = (1..=100).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-')
            && !text.contains("--");
        good.then(|| text.to_owned())
    }
);
checked_text!(
    /// An e-mail address: one `@` between two parts, at most 255 characters, nothing blank. Never an identity.
    Email, "an e-mail address (at most 255 characters)",
    |text| {
        let text = text.trim();
        let parts = text.split_once('@')?;
        let good = !parts.0.is_empty()
            && !parts.1.is_empty()
            && !parts.1.contains('@')
            && text.chars().count() <= 255
            && !text.chars().any(|c| c.is_control() || c.is_whitespace());
        good.then(|| text.to_owned())
    }
);
checked_text!(
    /// A secret's name: at most 64 of letters, digits and single `_` or `-` between them, a letter first. Names that differ
    /// only in case or in `_` and `-` are the same, since a key vault knows neither.
    SecretName, "a secret's name (at most 64 of letters, digits and single `_` or `-` between them, a letter first)",
    |text| {
        let good = (1..=64).contains(&text.len())
            && text.as_bytes()[0].is_ascii_alphabetic()
            && text.split(['_', '-']).all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric()));
        good.then(|| text.to_owned())
    }
);

impl SecretName {
    /// The form under which equal names are equal: lower case, with hyphens.
    #[must_use]
    pub fn canonical(&self) -> String {
        self.0.to_ascii_lowercase().replace('_', "-")
    }

    /// Whether both name the same secret.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        self.canonical() == other.canonical()
    }
}

/// Who an identity provider says that somebody is: the issuer, and the subject within it. Neither is an e-mail address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    issuer: String,
    subject: String,
}

impl Identity {
    /// Checks both parts: 1 to 256 characters, no control characters, and no blanks in the issuer, so that
    /// `issuer subject` reads one way only.
    ///
    /// # Errors
    /// [`TextError`].
    pub fn new(issuer: &str, subject: &str) -> Result<Self, TextError> {
        let good = |text: &str| (1..=256).contains(&text.chars().count()) && !text.chars().any(char::is_control);
        if !good(issuer) || issuer.chars().any(char::is_whitespace) {
            return Err(TextError::new(issuer, "an issuer (1 to 256 characters, no blanks)"));
        }
        if !good(subject) {
            return Err(TextError::new(
                subject,
                "a subject (1 to 256 characters, none of them a control character)",
            ));
        }
        Ok(Self {
            issuer: issuer.to_owned(),
            subject: subject.to_owned(),
        })
    }

    /// Who says so, as `entra:<tenant>` or `swa:aad`.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whom.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.issuer, self.subject)
    }
}

/// Insertions, deletions and replacements of one character between two names: how far a slip is from what was meant.
#[must_use]
pub fn edit_distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, wanted) in from.chars().enumerate() {
        let mut diagonal = line;
        row[0] = line + 1;
        for (column, have) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(wanted != *have);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_narrow() {
        assert_eq!(" Contoso Ltd ".parse::<DisplayName>().unwrap().as_str(), "Contoso Ltd");
        for bad in ["", "  ", "a\nb", &"a".repeat(256)] {
            assert!(bad.parse::<DisplayName>().is_err(), "{bad:?}");
        }
        assert!("contoso-2".parse::<Slug>().is_ok());
        for bad in ["", "-a", "a-", "a--b", "A", "a/b", "ä"] {
            assert!(bad.parse::<Slug>().is_err(), "{bad}");
        }
        assert!("ann@example.com".parse::<Email>().is_ok());
        for bad in ["", "ann", "@b", "a@", "a@b@c", "a b@c"] {
            assert!(bad.parse::<Email>().is_err(), "{bad}");
        }
        assert!(Identity::new("swa:aad", "x").is_ok());
        assert!(Identity::new("swa:aad\nx", "x").is_err());
        assert!(Identity::new("swa aad", "x").is_err());
        assert!(Identity::new("swa:aad", "").is_err());
    }
}
