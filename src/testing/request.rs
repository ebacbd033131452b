//! A request to an application in this process, and its answer.

use std::net::{Ipv4Addr, SocketAddr};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use base64::Engine as _;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// A request.
#[derive(Debug, Clone)]
#[must_use = "a request is sent by `send`"]
pub struct Request {
    router: Router,
    method: String,
    path: String,
    headers: HeaderMap,
    body: Bytes,
    peer: SocketAddr,
}

impl Request {
    /// A request to these routes: from this machine, without a credential.
    pub fn new(router: Router, method: &str, path: &str) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("localhost:7071"));
        Self {
            router,
            method: method.to_owned(),
            path: path.to_owned(),
            headers,
            body: Bytes::new(),
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000)),
        }
    }

    /// With a header in place of any of this name.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let (name, value) = pair(name, value);
        self.headers.insert(name, value);
        self
    }

    /// With one more header of this name.
    pub fn also(mut self, name: &str, value: &str) -> Self {
        let (name, value) = pair(name, value);
        self.headers.append(name, value);
        self
    }

    /// With a function key.
    pub fn key(self, key: &str) -> Self {
        self.header("x-functions-key", key)
    }

    /// Of an organization.
    pub fn organization(self, organization: &str) -> Self {
        self.header("x-organization-id", organization)
    }

    /// By a person of the sample, as Static Web Apps would vouch for them.
    pub fn person(self, short: &str) -> Self {
        let principal =
            json!({"identityProvider": "aad", "userId": short, "userDetails": short, "userRoles": ["authenticated"]});
        let text = base64::engine::general_purpose::STANDARD.encode(principal.to_string());
        self.header("x-ms-client-principal", &text)
    }

    /// Under a name that is not this machine's, so that development trust doesn't hold.
    pub fn from_afar(self) -> Self {
        self.header("host", "weft.example")
    }

    /// With a JSON body.
    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }

    /// With a body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends it and waits for the whole answer.
    pub async fn send(self) -> Answer {
        let (parts, body) = self.exchange().await;
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: body.collect().await.expect("the answer has a body").to_bytes(),
        }
    }

    /// Sends it; the status, and how many bytes of the body came before it broke off, if it did.
    pub async fn broken_off(self) -> (u16, Option<usize>) {
        let (parts, mut body) = self.exchange().await;
        let mut came = 0;
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => came += frame.data_ref().map_or(0, Bytes::len),
                Err(_) => return (parts.status.as_u16(), Some(came)),
            }
        }
        (parts.status.as_u16(), None)
    }

    async fn exchange(self) -> (axum::http::response::Parts, Body) {
        let mut request = axum::http::Request::builder()
            .method(self.method.as_str())
            .uri(&self.path)
            .body(Body::from(self.body))
            .expect("the test's request has the form of one");
        *request.headers_mut() = self.headers;
        request.extensions_mut().insert(ConnectInfo(self.peer));
        let response = match self.router.oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        };
        response.into_parts()
    }
}

fn pair(name: &str, value: &str) -> (HeaderName, HeaderValue) {
    let name = HeaderName::try_from(name).expect("the test's header has a good name");
    let value = HeaderValue::try_from(value).expect("the test's header has a good value");
    (name, value)
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The body as JSON; null when it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header; empty when it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The code of a problem; empty when it is none.
    #[must_use]
    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}
