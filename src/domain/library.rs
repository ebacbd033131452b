//! Node types that are written through the API: their names, their exact versions, and what a version is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{DeclaredLimits, Port, SecretName, Setting, Trust, sha256_hex};

/// The module of workers that are given their code over the socket.
pub const LIBRARY_MODULE: &str = "weft._library";
/// The function of that code which is called.
pub const LIBRARY_FUNCTION: &str = "run";

/// The name of a node type: `[a-z][a-z0-9_-]*`, at most 63 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeTypeName(String);

/// A text that is no name, no version, or no pair of both.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct VersionError {
    /// What was given, shortened.
    pub text: String,
    /// What would have been right.
    pub expected: &'static str,
}

fn error(text: &str, expected: &'static str) -> VersionError {
    VersionError {
        text: text.chars().take(60).collect(),
        expected,
    }
}

impl NodeTypeName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeTypeName {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let good = (1..=63).contains(&text.len())
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-'));
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(error(
                text,
                "a name of a node type (a lower-case letter, then up to 62 of a–z, 0–9, `_` and `-`)",
            ))
        }
    }
}

impl fmt::Display for NodeTypeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One exact version: three numbers with dots, and what stands before a release behind a hyphen, as `1.2.0` and `2.0.0-rc1`.
/// What comes before a release sorts before it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct NodeVersion {
    numbers: [u32; 3],
    pre: String,
}

impl NodeVersion {
    /// Whether it is no release yet.
    #[must_use]
    pub fn is_before_release(&self) -> bool {
        !self.pre.is_empty()
    }
}

impl FromStr for NodeVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let wrong = || error(text, "an exact version (three numbers as `1.2.0`, or `2.0.0-rc1`)");
        let (numbers, pre) = text
            .split_once('-')
            .map_or((text, None), |(numbers, pre)| (numbers, Some(pre)));
        let good_pre = |pre: &str| {
            (1..=20).contains(&pre.len()) && pre.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        };
        if pre.is_some_and(|pre| !good_pre(pre)) {
            return Err(wrong());
        }
        let mut read = [0; 3];
        let mut parts = numbers.split('.');
        for number in &mut read {
            let part = parts.next().ok_or_else(wrong)?;
            let good = (1..=6).contains(&part.len())
                && part.bytes().all(|byte| byte.is_ascii_digit())
                && (part == "0" || !part.starts_with('0'));
            *number = part.parse().ok().filter(|_| good).ok_or_else(wrong)?;
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        Ok(Self {
            numbers: read,
            pre: pre.unwrap_or_default().to_owned(),
        })
    }
}

impl fmt::Display for NodeVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor, patch] = self.numbers;
        write!(f, "{major}.{minor}.{patch}")?;
        if self.pre.is_empty() {
            return Ok(());
        }
        write!(f, "-{}", self.pre)
    }
}

impl Ord for NodeVersion {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // A release is behind all that came before it, though the empty text is before every other.
        (self.numbers, self.pre.is_empty(), &self.pre).cmp(&(other.numbers, other.pre.is_empty(), &other.pre))
    }
}

impl PartialOrd for NodeVersion {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// What the `use` of a node names: `shout@1.2.0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeUse {
    /// The node type.
    pub name: NodeTypeName,
    /// Its exact version.
    pub version: NodeVersion,
}

impl FromStr for NodeUse {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let (name, version) = text
            .split_once('@')
            .ok_or_else(|| error(text, "a node type with its version, as `shout@1.2.0`"))?;
        Ok(Self {
            name: name.parse()?,
            version: version.parse()?,
        })
    }
}

impl fmt::Display for NodeUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

macro_rules! as_text {
    ($($name:ident)+) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    )+};
}

as_text!(NodeTypeName NodeVersion NodeUse);

/// What of a version runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeBody {
    /// Python with a function `run(ctx, inputs, settings)`.
    Code(String),
    /// A function of the workspace, by its declared name, which is given inputs and settings by name.
    Function(String),
}

impl NodeBody {
    /// The Python text, where it is one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Code(code) => Some(code),
            Self::Function(_) => None,
        }
    }
}

/// All of one version. What is written of it never changes once it is published; its digest names every byte.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeDocument {
    /// The node type.
    pub name: NodeTypeName,
    /// The version.
    pub version: NodeVersion,
    /// What it is called.
    pub title: String,
    /// What it does.
    pub description: String,
    /// Under what it is listed.
    pub category: String,
    /// The name of a picture, for editors; Weft has none.
    pub icon: String,
    /// What it is given.
    pub inputs: Vec<Port>,
    /// What it gives.
    pub outputs: Vec<Port>,
    /// What is set in the editor.
    pub settings: Vec<Setting>,
    /// Whether `run` is `async`; none where that is left to the code.
    #[serde(rename = "async")]
    pub is_async: Option<bool>,
    /// What runs.
    #[serde(flatten)]
    pub body: NodeBody,
    /// Time limit of an attempt, in seconds.
    pub timeout_seconds: f64,
    /// What an attempt may use otherwise.
    pub limits: DeclaredLimits,
    /// How far the code is trusted.
    pub trust: Trust,
    /// Hosts that it may reach.
    pub network: Vec<String>,
    /// Secrets that it asks for by name, whatever its settings say.
    pub secrets: Vec<SecretName>,
}

impl NodeDocument {
    /// The bytes that are kept.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// `sha256:` and the digest of [`NodeDocument::to_bytes`].
    #[must_use]
    pub fn digest(&self) -> String {
        format!("sha256:{}", sha256_hex(&self.to_bytes()))
    }

    /// What a graph names it by.
    #[must_use]
    pub fn named(&self) -> NodeUse {
        NodeUse {
            name: self.name.clone(),
            version: self.version.clone(),
        }
    }
}

/// A version as a plan is made of it.
#[derive(Debug, Clone, PartialEq)]
pub struct LibraryVersion {
    /// Its digest.
    pub digest: String,
    /// The version.
    pub document: NodeDocument,
}

/// What may be done with a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It is being written, and no graph can use it.
    Draft,
    /// It can be used, and never changes.
    Published,
    /// The same, and whoever uses it is told to use something else.
    Deprecated,
}

impl NodeState {
    /// As written in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Published => "published",
            Self::Deprecated => "deprecated",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_exact_and_sort_as_people_expect() {
        let texts = ["0.9.0", "1.0.0-a1", "1.0.0-rc1", "1.0.0", "1.2.0", "1.10.0", "2.0.0"];
        let mut versions: Vec<NodeVersion> = texts.iter().rev().map(|text| text.parse().unwrap()).collect();
        versions.sort();
        let sorted: Vec<_> = versions.iter().map(ToString::to_string).collect();
        assert_eq!(sorted, texts);
        for bad in [
            "",
            "1",
            "1.0",
            "1.x",
            "1.0.x",
            "latest",
            "^1.0.0",
            "01.0.0",
            "1.0.0.0",
            "1.0.0-",
            "1.0.0-RC",
            "1.0.0-a.b",
            "v1.0.0",
            "1.0.1000000",
            " 1.0.0",
            "1.0.0+b",
            "+1.0.0",
        ] {
            assert!(bad.parse::<NodeVersion>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_use_is_a_name_and_an_exact_version() {
        let used: NodeUse = "shout-2@1.2.0".parse().unwrap();
        assert_eq!(
            (used.name.as_str(), used.to_string().as_str()),
            ("shout-2", "shout-2@1.2.0")
        );
        for bad in [
            "shout",
            "shout@",
            "@1.0.0",
            "Shout@1.0.0",
            "2x@1.0.0",
            "a/b@1.0.0",
            "shout@1.0.0@1.0.0",
            "shout@latest",
        ] {
            assert!(bad.parse::<NodeUse>().is_err(), "{bad}");
        }
    }
}
