//! How senders sign: each scheme is a row of one table, and verifying reads nothing but the row.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// How the bytes of a signature are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Hexadecimal, in either case.
    Hex,
    /// Base 64, with or without padding.
    Base64,
}

impl Encoding {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hex => "hex",
            Self::Base64 => "base64",
        }
    }
}

/// Who signs, as far as that decides how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Scheme {
    /// Weft's own, for senders that are written for it.
    Weft,
    /// GitHub, and what imitates it.
    Github,
    /// Stripe.
    Stripe,
    /// Slack.
    Slack,
    /// Standard Webhooks, and Svix, from which they come.
    Svix,
    /// Whatever else signs the body.
    Generic(Generic),
}

/// What has to be said about a sender who is in no table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Generic {
    /// The header of the signature, in lower case.
    pub header: String,
    /// How it is written.
    pub encoding: Encoding,
    /// What stands before it in the header; often nothing.
    pub prefix: String,
    /// The header with the delivery's id, in lower case, where there is one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub delivery_header: Option<String>,
}

/// How signatures stand in their header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// One, after a prefix: `sha256=…`.
    Prefixed(Cow<'static, str>),
    /// The time and any number of them, as pairs between commas: `t=…,v1=…,v1=…`.
    Pairs {
        /// The name of the time.
        time: &'static str,
        /// The name of a signature.
        signature: &'static str,
    },
    /// Any number between blanks, each with its version: `v1,… v1,…`.
    Versioned(&'static str),
}

/// A part of what is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// As it stands here.
    Text(&'static str),
    /// The delivery's time, as the sender wrote it.
    Time,
    /// The delivery's id.
    Id,
    /// The body, byte for byte.
    Body,
}

/// Where a delivery's id stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdIn {
    /// In a header; the first of these that is there.
    Header(Vec<Cow<'static, str>>),
    /// In a member of the body, which is a JSON object.
    Member(&'static str),
    /// Nowhere.
    Nowhere,
}

/// What a secret's text means as a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyText {
    /// Its bytes.
    Bytes,
    /// After `whsec_`, base 64 of the key.
    Whsec,
}

/// Everything that verifying has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signing {
    /// The header of the signature; the first of these that is there.
    pub header: Vec<Cow<'static, str>>,
    /// How signatures stand in it.
    pub layout: Layout,
    /// How each is written.
    pub encoding: Encoding,
    /// What is signed, in order.
    pub signed: &'static [Part],
    /// The header of the time, where it isn't in the signature's.
    pub time: &'static [&'static str],
    /// How far the time may be from ours, in seconds; none where there is no time.
    pub tolerance_seconds: Option<u32>,
    /// Where the id stands.
    pub id: IdIn,
    /// What the secret's text means.
    pub key: KeyText,
}

/// The schemes that need nothing but their name.
pub const SCHEMES: [Scheme; 5] = [
    Scheme::Weft,
    Scheme::Github,
    Scheme::Stripe,
    Scheme::Slack,
    Scheme::Svix,
];

const fn one(name: &'static str) -> Cow<'static, str> {
    Cow::Borrowed(name)
}

impl Scheme {
    /// As it is written.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Weft => "weft",
            Self::Github => "github",
            Self::Stripe => "stripe",
            Self::Slack => "slack",
            Self::Svix => "svix",
            Self::Generic(_) => "generic",
        }
    }

    /// The row of the table.
    #[must_use]
    pub fn signing(&self) -> Signing {
        const TIME_AND_BODY: &[Part] = &[Part::Time, Part::Text("."), Part::Body];
        const TOLERANCE: Option<u32> = Some(300);
        let pairs = Layout::Pairs {
            time: "t",
            signature: "v1",
        };
        match self {
            Self::Weft => Signing {
                header: vec![one("x-weft-signature")],
                layout: pairs,
                encoding: Encoding::Hex,
                signed: TIME_AND_BODY,
                time: &[],
                tolerance_seconds: TOLERANCE,
                id: IdIn::Header(vec![one("x-weft-delivery")]),
                key: KeyText::Bytes,
            },
            Self::Github => Signing {
                header: vec![one("x-hub-signature-256")],
                layout: Layout::Prefixed(one("sha256=")),
                encoding: Encoding::Hex,
                signed: &[Part::Body],
                time: &[],
                tolerance_seconds: None,
                id: IdIn::Header(vec![one("x-github-delivery")]),
                key: KeyText::Bytes,
            },
            Self::Stripe => Signing {
                header: vec![one("stripe-signature")],
                layout: pairs,
                encoding: Encoding::Hex,
                signed: TIME_AND_BODY,
                time: &[],
                tolerance_seconds: TOLERANCE,
                id: IdIn::Member("id"),
                key: KeyText::Bytes,
            },
            Self::Slack => Signing {
                header: vec![one("x-slack-signature")],
                layout: Layout::Prefixed(one("v0=")),
                encoding: Encoding::Hex,
                signed: &[Part::Text("v0:"), Part::Time, Part::Text(":"), Part::Body],
                time: &["x-slack-request-timestamp"],
                tolerance_seconds: TOLERANCE,
                id: IdIn::Member("event_id"),
                key: KeyText::Bytes,
            },
            Self::Svix => Signing {
                header: vec![one("webhook-signature"), one("svix-signature")],
                layout: Layout::Versioned("v1"),
                encoding: Encoding::Base64,
                signed: &[Part::Id, Part::Text("."), Part::Time, Part::Text("."), Part::Body],
                time: &["webhook-timestamp", "svix-timestamp"],
                tolerance_seconds: TOLERANCE,
                id: IdIn::Header(vec![one("webhook-id"), one("svix-id")]),
                key: KeyText::Whsec,
            },
            Self::Generic(generic) => Signing {
                header: vec![Cow::Owned(generic.header.clone())],
                layout: Layout::Prefixed(Cow::Owned(generic.prefix.clone())),
                encoding: generic.encoding,
                signed: &[Part::Body],
                time: &[],
                tolerance_seconds: None,
                id: match &generic.delivery_header {
                    Some(header) => IdIn::Header(vec![Cow::Owned(header.clone())]),
                    None => IdIn::Nowhere,
                },
                key: KeyText::Bytes,
            },
        }
    }
}
