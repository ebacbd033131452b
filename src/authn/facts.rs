//! What a request says about who sends it, read once and strictly. Reading never fails: what is wrong is remembered, and
//! `decide.rs` refuses it in its place in the order.

use std::fmt;
use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName};
use url::form_urlencoded;

use super::client_principal::MAX_PRINCIPAL_BYTES;
use super::source::{SourceSettings, source_address};
use super::trust::{WayIn, is_local_host};
use crate::authz::Origin;
use crate::domain::Secret;

/// Most bytes of a function key.
pub const MAX_KEY_BYTES: usize = 256;

const KEY: HeaderName = HeaderName::from_static("x-functions-key");
const PRINCIPAL: HeaderName = HeaderName::from_static("x-ms-client-principal");
const ORGANIZATION: HeaderName = HeaderName::from_static("x-organization-id");
const USER: HeaderName = HeaderName::from_static("x-user-id");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Something that may be given once.
#[derive(Debug, Clone)]
pub enum Given<T> {
    /// Not there.
    Absent,
    /// Once.
    Once(T),
    /// More than once, or twice with different values.
    Ambiguous,
    /// Longer than allowed.
    TooLarge,
    /// Not visible ASCII.
    Unreadable,
}

impl<T> Given<T> {
    /// Whether it is there, in whatever state.
    #[must_use]
    pub const fn is_present(&self) -> bool {
        !matches!(self, Self::Absent)
    }

    const fn state(&self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Once(_) => "once",
            Self::Ambiguous => "ambiguous",
            Self::TooLarge => "too large",
            Self::Unreadable => "unreadable",
        }
    }
}

/// A request, as the HTTP layer hands it in.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path, without the query.
    pub path: &'a str,
    /// Its query, undecoded, without the question mark.
    pub query: Option<&'a str>,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// The other end of the connection.
    pub peer: IpAddr,
    /// Whether the listener is bound to the loopback.
    pub listener_loopback: bool,
    /// How the request is named in answers and records.
    pub request_id: &'a str,
}

impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            method,
            path,
            request_id,
            ..
        } = self;
        f.debug_struct("Request")
            .field("method", method)
            .field("path", path)
            .field("request_id", request_id)
            .finish_non_exhaustive()
    }
}

/// What was read. `Debug` shows in which state each credential is, never its value.
#[derive(Clone)]
pub struct RequestFacts {
    /// The function key, from `x-functions-key` or `code`.
    pub key: Given<Secret>,
    /// `X-MS-CLIENT-PRINCIPAL`, undecoded.
    pub principal: Given<String>,
    /// `X-Organization-Id`.
    pub organization: Given<String>,
    /// `X-User-Id`.
    pub user: Given<String>,
    /// How the request came in.
    pub way: WayIn,
    /// For audit records.
    pub origin: Origin,
}

impl fmt::Debug for RequestFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestFacts")
            .field("key", &self.key.state())
            .field("principal", &self.principal.state())
            .field("organization", &self.organization.state())
            .field("user", &self.user.state())
            .field("way", &self.way)
            .field("request_id", &self.origin.request_id)
            .finish_non_exhaustive()
    }
}

impl RequestFacts {
    /// Reads a request.
    #[must_use]
    pub fn read(request: &Request<'_>, source: &SourceSettings) -> Self {
        let headers = request.headers;
        let address = source_address(headers, request.peer, source);
        let agent = headers
            .get("user-agent")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        Self {
            key: key(headers, request.query),
            principal: header(headers, &PRINCIPAL, MAX_PRINCIPAL_BYTES),
            organization: header(headers, &ORGANIZATION, 256),
            user: header(headers, &USER, 256),
            way: WayIn {
                listener_loopback: request.listener_loopback,
                peer: request.peer,
                host_local: all_local(headers, &HeaderName::from_static("host")),
                forwarded_host_local: all_local(headers, &FORWARDED_HOST),
            },
            origin: Origin {
                address: address.text,
                address_verified: address.verified,
                agent: agent.chars().take(200).collect(),
                request_id: request.request_id.to_owned(),
                endpoint: format!("{} {}", request.method, request.path)
                    .chars()
                    .take(512)
                    .collect(),
            },
        }
    }
}

fn header(headers: &HeaderMap, name: &HeaderName, limit: usize) -> Given<String> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Given::Absent,
        (Some(_), Some(_)) => Given::Ambiguous,
        (Some(value), None) if value.len() > limit => Given::TooLarge,
        (Some(value), None) => value
            .to_str()
            .map_or(Given::Unreadable, |text| Given::Once(text.to_owned())),
    }
}

/// The header counts before the query, as it does for the host; but both at once and different is nobody's intention.
fn key(headers: &HeaderMap, query: Option<&str>) -> Given<Secret> {
    let in_header = match header(headers, &KEY, MAX_KEY_BYTES) {
        Given::Once(text) => Given::Once(Secret::presented(text)),
        Given::Absent => Given::Absent,
        Given::Ambiguous => Given::Ambiguous,
        Given::TooLarge => Given::TooLarge,
        Given::Unreadable => Given::Unreadable,
    };
    let in_query = key_in_query(query.unwrap_or_default());
    match (in_header, in_query) {
        (Given::Absent, query) => query,
        (header, Given::Absent) => header,
        (Given::Ambiguous, _) | (_, Given::Ambiguous) => Given::Ambiguous,
        (Given::Once(header), Given::Once(query)) if header.same(&query) => Given::Once(header),
        (Given::TooLarge, _) | (_, Given::TooLarge) => Given::TooLarge,
        _ => Given::Ambiguous,
    }
}

/// `code`, in upper or lower case as the host reads it.
fn key_in_query(query: &str) -> Given<Secret> {
    let mut values = form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| name.eq_ignore_ascii_case("code"))
        .map(|(_, value)| Secret::presented(value));
    match (values.next(), values.next()) {
        (None, _) => Given::Absent,
        (Some(_), Some(_)) => Given::Ambiguous,
        (Some(value), None) if value.expose().len() > MAX_KEY_BYTES => Given::TooLarge,
        (Some(value), None) => Given::Once(value),
    }
}

/// Whether every value, and every entry of a list in one, names this machine; `None` when there is none.
fn all_local(headers: &HeaderMap, name: &HeaderName) -> Option<bool> {
    let mut found = None;
    for value in headers.get_all(name) {
        let local = value.to_str().is_ok_and(|list| list.split(',').all(is_local_host));
        found = Some(found.unwrap_or(true) && local);
    }
    found
}
