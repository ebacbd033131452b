//! `X-MS-CLIENT-PRINCIPAL`: base64 of one JSON object in exactly one of two shapes. Reading it says nothing about trusting it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::domain::Identity;

/// Most bytes of the base64 text.
pub const MAX_PRINCIPAL_BYTES: usize = 32 * 1024;

/// Who makes a principal of which shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    /// Static Web Apps: `identityProvider, userId, userDetails, userRoles`.
    Swa,
    /// App Service authentication: `auth_typ, name_typ, role_typ, claims`.
    Easyauth,
}

impl Shape {
    /// As `WEFT_PRINCIPAL_SOURCE` names it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Swa => "swa",
            Self::Easyauth => "easyauth",
        }
    }
}

/// A principal that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientPrincipal {
    /// In which shape.
    pub shape: Shape,
    /// Issuer and subject; never the e-mail address.
    pub identity: Identity,
}

/// Why it can't be read. The words go to the caller and repeat nothing of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("`X-MS-CLIENT-PRINCIPAL` {0}")]
pub struct Malformed(pub &'static str);

/// Reads one.
///
/// # Errors
/// [`Malformed`] for anything that isn't exactly one of the two shapes.
pub fn read(value: &str) -> Result<ClientPrincipal, Malformed> {
    if value.is_empty() {
        return Err(Malformed("is empty"));
    }
    if value.len() > MAX_PRINCIPAL_BYTES {
        return Err(Malformed("is larger than 32 KiB"));
    }
    let bytes = STANDARD.decode(value).map_err(|_| Malformed("is not base64"))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| Malformed("is not UTF-8"))?;
    // Only an object: serde would take an array for the fields in their order, too.
    if !text.trim_start().starts_with('{') {
        return Err(Malformed("is not a JSON object"));
    }
    let raw: Raw =
        serde_json::from_str(text).map_err(|_| Malformed("is not one JSON object whose members occur once"))?;
    let swa = [&raw.identity_provider, &raw.user_id, &raw.user_details, &raw.user_roles]
        .iter()
        .any(|v| v.is_some());
    let easyauth = [&raw.auth_typ, &raw.name_typ, &raw.role_typ, &raw.claims]
        .iter()
        .any(|v| v.is_some());
    match (swa, easyauth) {
        (true, true) => Err(Malformed(
            "mixes the shapes of Static Web Apps and App Service authentication",
        )),
        (false, false) => Err(Malformed("has neither shape")),
        (true, false) => read_swa(&raw),
        (false, true) => read_easyauth(&raw),
    }
}

/// The members of both shapes. A member that is `null` is there. Repeated ones are refused by the derived reader.
#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "identityProvider", default, deserialize_with = "present")]
    identity_provider: Option<Value>,
    #[serde(rename = "userId", default, deserialize_with = "present")]
    user_id: Option<Value>,
    #[serde(rename = "userDetails", default, deserialize_with = "present")]
    user_details: Option<Value>,
    #[serde(rename = "userRoles", default, deserialize_with = "present")]
    user_roles: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    auth_typ: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    name_typ: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    role_typ: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    claims: Option<Value>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

fn text_or_nothing(value: Option<&Value>) -> bool {
    matches!(value, None | Some(Value::Null | Value::String(_)))
}

/// A provider's name as it becomes part of an issuer.
fn provider(value: Option<&Value>, wrong: Malformed) -> Result<String, Malformed> {
    let name = value.and_then(Value::as_str).ok_or(wrong)?;
    let good = (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if good {
        Ok(name.to_ascii_lowercase())
    } else {
        Err(wrong)
    }
}

fn read_swa(raw: &Raw) -> Result<ClientPrincipal, Malformed> {
    let provider = provider(
        raw.identity_provider.as_ref(),
        Malformed("has no usable `identityProvider`"),
    )?;
    let subject = raw
        .user_id
        .as_ref()
        .and_then(Value::as_str)
        .ok_or(Malformed("has no usable `userId`"))?;
    if !text_or_nothing(raw.user_details.as_ref()) {
        return Err(Malformed("has a `userDetails` that is no text"));
    }
    let roles = raw
        .user_roles
        .as_ref()
        .and_then(Value::as_array)
        .ok_or(Malformed("has no list of `userRoles`"))?;
    if !roles.iter().all(Value::is_string) {
        return Err(Malformed("has `userRoles` that are no texts"));
    }
    if !roles.iter().any(|role| role == "authenticated") {
        return Err(Malformed("is of somebody who is not signed in"));
    }
    let identity =
        Identity::new(&format!("swa:{provider}"), subject).map_err(|_| Malformed("has no usable `userId`"))?;
    Ok(ClientPrincipal {
        shape: Shape::Swa,
        identity,
    })
}

const TENANT: [&str; 2] = ["http://schemas.microsoft.com/identity/claims/tenantid", "tid"];
const OBJECT: [&str; 2] = ["http://schemas.microsoft.com/identity/claims/objectidentifier", "oid"];
const SUBJECT: [&str; 2] = [
    "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier",
    "sub",
];

fn read_easyauth(raw: &Raw) -> Result<ClientPrincipal, Malformed> {
    let provider = provider(raw.auth_typ.as_ref(), Malformed("has no usable `auth_typ`"))?;
    if !text_or_nothing(raw.name_typ.as_ref()) || !text_or_nothing(raw.role_typ.as_ref()) {
        return Err(Malformed("has a `name_typ` or `role_typ` that is no text"));
    }
    let list = raw
        .claims
        .as_ref()
        .and_then(Value::as_array)
        .ok_or(Malformed("has no list of `claims`"))?;
    let mut claims = Vec::with_capacity(list.len());
    for claim in list {
        let text = |member: &str| claim.get(member).and_then(Value::as_str);
        match (text("typ"), text("val")) {
            (Some(typ), Some(val)) => claims.push((typ, val)),
            _ => return Err(Malformed("has a claim without `typ` and `val`")),
        }
    }
    let identity = if provider == "aad" {
        let tenant = one(&claims, &TENANT, Malformed("has no single tenant id"))?;
        let object = one(&claims, &OBJECT, Malformed("has no single object id"))?;
        let tenant = guid(tenant).ok_or(Malformed("has a tenant id that is no GUID"))?;
        let object = guid(object).ok_or(Malformed("has an object id that is no GUID"))?;
        Identity::new(&format!("entra:{tenant}"), &object)
    } else {
        let subject = one(&claims, &SUBJECT, Malformed("has no single subject"))?;
        Identity::new(&format!("easyauth:{provider}"), subject)
    };
    let identity = identity.map_err(|_| Malformed("has no usable subject"))?;
    Ok(ClientPrincipal {
        shape: Shape::Easyauth,
        identity,
    })
}

/// The one value of a claim under its long or short name. Said twice it must be the same.
fn one<'a>(claims: &[(&str, &'a str)], names: &[&str], wrong: Malformed) -> Result<&'a str, Malformed> {
    let mut values = claims
        .iter()
        .filter(|(typ, _)| names.contains(typ))
        .map(|(_, val)| *val);
    let first = values.next().filter(|value| !value.is_empty()).ok_or(wrong)?;
    if values.all(|value| value == first) {
        Ok(first)
    } else {
        Err(wrong)
    }
}

fn guid(text: &str) -> Option<String> {
    let good = text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        });
    good.then(|| text.to_ascii_lowercase())
}
