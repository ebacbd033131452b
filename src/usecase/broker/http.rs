//! `http.*`: a request that the engine makes for an attempt, so that a secret can be put on it that the attempt never sees.
//!
//! The attempt's rights say where it may go, and with a secret the secret's own hosts do as well. Names are resolved here,
//! addresses are judged here, and the connection goes to one that was judged. Redirects are followed within the same scheme,
//! host and port only; others are the answer. An answer is searched for secrets before it is handed over, in pieces that
//! fit into frames.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt as _;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use url::Url;

use super::{Answer, Broker, args, refusal, secrets};
use crate::audit::Event as AuditEvent;
use crate::domain::{Network, Trust};
use crate::egress::policy::{Pattern, Policy, Target};
use crate::runner::Refusal;
use crate::usecase::secret::{self, Presented, StoredSecret};

/// Most bytes of an answer's body.
const ANSWER_BYTES: usize = 4 << 20;
/// Most bytes of an answer's headers.
const HEADER_BYTES: usize = 16 << 10;
/// Bytes of a body in one frame, beside the headers.
const PIECE_BYTES: usize = 24 << 10;
/// Requests of one attempt that are made at the same time.
const AT_ONCE: usize = 4;
/// Answers of one attempt of which the rest waits to be read.
const WAITING: usize = 16;
/// Redirects that are followed.
const REDIRECTS: usize = 5;
/// How long a request takes when the attempt says nothing.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it may take at most.
const MOST_PATIENCE: f64 = 300.0;
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Headers that are the connection's, not the step's.
const OURS: [&str; 9] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
    "trailer",
    "expect",
    "proxy-authorization",
];

/// Answers of one attempt that are not read yet.
#[derive(Debug)]
pub(super) struct Answers {
    at_once: Semaphore,
    bodies: Mutex<BTreeMap<u64, Bytes>>,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            at_once: Semaphore::new(AT_ONCE),
            bodies: Mutex::default(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    method: String,
    url: String,
    #[serde(default)]
    headers: Vec<(String, String)>,
    body_base64: Option<String>,
    auth: Option<String>,
    auth_as: Option<String>,
    timeout: Option<f64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    id: u64,
}

pub(super) async fn call(broker: &Broker, verb: &str, args: Value) -> Answer {
    match verb {
        "request" => {
            let request: Request = args::read("http.request", args)?;
            let Ok(_turn) = broker.answers.at_once.acquire().await else {
                return Err(refusal("unavailable", "the attempt is over"));
            };
            Box::pin(perform(broker, request)).await
        }
        "read" => {
            let Read { id } = args::read("http.read", args)?;
            let mut bodies = broker.answers.bodies.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(mut body) = bodies.remove(&id) else {
                return Err(refusal(
                    "not_found",
                    "there is no answer of this id that is still to be read",
                ));
            };
            let piece = body.split_to(body.len().min(PIECE_BYTES));
            let more = (!body.is_empty()).then_some(id);
            if more.is_some() {
                bodies.insert(id, body);
            }
            Ok(json!({"body_base64": STANDARD.encode(&piece), "more": more}))
        }
        _ => Err(broker.not_available(&format!("http.{verb}"))),
    }
}

fn invalid(message: impl Into<String>) -> Refusal {
    refusal("invalid", message)
}

async fn perform(broker: &Broker, request: Request) -> Answer {
    let mut url =
        Url::parse(&request.url).map_err(|_| invalid("`url` is no address as `https://api.example.com/v1`"))?;
    let mut method = Method::from_bytes(request.method.to_ascii_uppercase().as_bytes())
        .ok()
        .filter(|method| *method != Method::CONNECT && *method != Method::TRACE)
        .ok_or_else(|| invalid("`method` is no method of HTTP"))?;
    let mut body = match request.body_base64.map(|text| STANDARD.decode(text)) {
        None => None,
        Some(Ok(bytes)) => Some(Bytes::from(bytes)),
        Some(Err(_)) => return Err(invalid("`body_base64` is not base64")),
    };
    let mut headers = own_headers(&request.headers)?;
    let secret = match &request.auth {
        Some(handle) => Some(secrets::behind(broker, handle)?),
        None => None,
    };
    let patience = request.timeout.map_or(PATIENCE, |seconds| {
        Duration::from_secs_f64(if seconds.is_finite() {
            seconds.clamp(0.1, MOST_PATIENCE)
        } else {
            MOST_PATIENCE
        })
    });
    let place = destination(broker, &url, secret.as_ref()).await?;
    if let Some(secret) = &secret {
        put_on(&mut headers, secret, request.auth_as.as_deref())?;
        let name = &secret.record.name;
        let how = format!("sent to {}", place.target);
        secrets::recorded(broker, AuditEvent::SecretUsed, name.as_str(), &how).await?;
        secret::note_use(&broker.bound.cx, &broker.bound.scope, name).await;
    }
    let client = client(&place)?;
    let whole = async {
        for _ in 0..=REDIRECTS {
            let mut sent = client.request(method.clone(), url.clone()).headers(headers.clone());
            if let Some(body) = &body {
                sent = sent.body(body.clone());
            }
            let answer = sent.send().await.map_err(|error| failed(&place, &error))?;
            let Some(next) = within_origin(&url, &answer) else {
                return taken(broker, &url, answer, secret.is_some()).await;
            };
            if changes_method(answer.status(), &method) {
                method = Method::GET;
                body = None;
                headers.remove(reqwest::header::CONTENT_TYPE);
            }
            url = next;
        }
        Err(refusal(
            "unavailable",
            format!("{} redirects more than {REDIRECTS} times", place.target),
        ))
    };
    tokio::time::timeout(patience, whole).await.unwrap_or_else(|_| {
        let seconds = patience.as_secs_f64();
        Err(refusal(
            "unavailable",
            format!("{} has not answered within {seconds} s", place.target),
        ))
    })
}

fn own_headers(given: &[(String, String)]) -> Result<HeaderMap, Refusal> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let shown: String = name.chars().take(60).collect();
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| invalid(format!("`{shown}` can't be the name of a header")))?;
        if OURS.contains(&name.as_str()) {
            return Err(invalid(format!("the header `{name}` is the engine's to set")));
        }
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
            invalid(format!(
                "the value of the header `{name}` has characters that can't stand there"
            ))
        })?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// Puts a secret on a request, as the call says, else as the secret does.
fn put_on(headers: &mut HeaderMap, secret: &StoredSecret, said: Option<&str>) -> Result<(), Refusal> {
    let presented = match said {
        None => secret.record.presented.clone(),
        Some(text) => {
            Presented::parse(text).ok_or_else(|| invalid("`auth_as` is `bearer`, `basic` or `header:NAME`"))?
        }
    };
    let value = secret.value.expose();
    let (name, text) = match presented {
        Presented::Bearer => (reqwest::header::AUTHORIZATION, format!("Bearer {value}")),
        Presented::Basic => (
            reqwest::header::AUTHORIZATION,
            format!("Basic {}", STANDARD.encode(value)),
        ),
        Presented::Header(name) => {
            let name =
                HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid("the secret's header can't be one"))?;
            (name, value.to_owned())
        }
    };
    if headers.contains_key(&name) {
        return Err(invalid(format!(
            "the header `{name}` is given, and `auth` would set it too; leave one out"
        )));
    }
    let mut text = HeaderValue::from_str(&text).map_err(|_| {
        invalid(format!(
            "the secret `{}` can't stand in a header: it has line ends",
            secret.record.name
        ))
    })?;
    text.set_sensitive(true);
    headers.insert(name, text);
    // What comes back must be readable to be searched.
    headers.insert(reqwest::header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    Ok(())
}

/// Where a request goes: judged by name, port and address.
struct Place {
    target: Target,
    addresses: Vec<SocketAddr>,
}

async fn destination(broker: &Broker, url: &Url, secret: Option<&StoredSecret>) -> Result<Place, Refusal> {
    let (rights, egress) = (&broker.bound.rights, &broker.bound.cx.egress);
    if !matches!(url.scheme(), "https" | "http") {
        return Err(invalid("`url` begins with `https://` or `http://`"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid(
            "`url` holds a user or a password; put a secret on the request with `auth`",
        ));
    }
    let target = url.host_str().and_then(Target::parse);
    let (Some(target), Some(port)) = (target, url.port_or_known_default()) else {
        return Err(invalid("`url` names no host"));
    };
    // Restricted code has no network, whatever was granted.
    let network = match rights.trust {
        Trust::Trusted => &rights.network,
        Trust::Restricted => &Network::None,
    };
    Policy::read(network)
        .0
        .admits(&target, port)
        .map_err(|refused| refusal("denied", refused.to_string()))?;
    if let Some(secret) = secret {
        let patterns = secret
            .record
            .hosts
            .iter()
            .filter_map(|host| Pattern::parse(host, "hosts").ok());
        if Policy::Listed(patterns.collect()).admits(&target, port).is_err() {
            let name = &secret.record.name;
            let how = format!("not for {target}");
            secrets::recorded(broker, AuditEvent::SecretRefused, name.as_str(), &how).await?;
            return Err(refusal(
                "denied",
                format!(
                    "the secret `{name}` may not be sent to {target}:{port}; who writes it says where it may, in `hosts`"
                ),
            ));
        }
    }
    let found: Vec<IpAddr> = match &target {
        Target::Address(address) => vec![*address],
        Target::Name(name) => egress
            .resolver
            .resolve(name)
            .await
            .map_err(|_| refusal("unavailable", format!("the name {target} could not be resolved")))?,
    };
    let judged = found.into_iter().map(|address| SocketAddr::new(address, port));
    let (mut addresses, mut why) = (Vec::new(), None);
    for address in judged {
        match egress.opened.admit(address) {
            Ok(()) => addresses.push(address),
            Err(refused) => why = Some(refused),
        }
    }
    if addresses.is_empty() {
        let why = why.map(|why| why.to_string()).unwrap_or_default();
        return Err(refusal(
            "denied",
            format!("{target} leads to {why}, which steps may not reach"),
        ));
    }
    // Within a network that the operator has opened a secret may go in clear.
    if secret.is_some() && url.scheme() == "http" && !addresses.iter().all(|address| egress.opened.admits_own(*address))
    {
        return Err(refusal("denied", "a secret is sent by https only"));
    }
    Ok(Place { target, addresses })
}

fn client(place: &Place) -> Result<reqwest::Client, Refusal> {
    let mut builder = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT)
        .pool_max_idle_per_host(1)
        .user_agent(concat!("weft/", env!("CARGO_PKG_VERSION")));
    if let Target::Name(name) = &place.target {
        builder = builder.resolve_to_addrs(name, &place.addresses);
    }
    builder.build().map_err(|error| {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "no client for requests of steps can be made"
        );
        refusal("unavailable", "the engine can't make requests")
    })
}

/// What went wrong below, without the address, in which there may be anything.
fn failed(place: &Place, error: &reqwest::Error) -> Refusal {
    let mut said = String::new();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        said = inner.to_string();
        cause = inner.source();
    }
    refusal("unavailable", format!("the request to {} failed: {said}", place.target))
}

/// Where a redirect leads, if that is at the same scheme, host and port.
fn within_origin(url: &Url, answer: &reqwest::Response) -> Option<Url> {
    if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = answer.headers().get(reqwest::header::LOCATION)?.to_str().ok()?;
    let next = url.join(location).ok()?;
    let plain = next.username().is_empty() && next.password().is_none();
    (plain && next.origin() == url.origin()).then_some(next)
}

fn changes_method(status: StatusCode, method: &Method) -> bool {
    match status.as_u16() {
        303 => *method != Method::HEAD,
        301 | 302 => *method == Method::POST,
        _ => false,
    }
}

/// The answer, without secrets; of its body as much as a frame takes.
async fn taken(broker: &Broker, url: &Url, answer: reqwest::Response, searched: bool) -> Answer {
    let coded = answer.headers().get(reqwest::header::CONTENT_ENCODING);
    if searched && coded.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(refusal(
            "unavailable",
            "the answer is compressed although it was asked not to be, so it can't be searched for the secret",
        ));
    }
    let status = answer.status().as_u16();
    let headers: Vec<(String, String)> = answer
        .headers()
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), broker.masker.text(value))
        })
        .collect();
    if headers
        .iter()
        .map(|(name, value)| name.len() + value.len() + 8)
        .sum::<usize>()
        > HEADER_BYTES
    {
        return Err(refusal(
            "too_large",
            format!("the answer has more than {HEADER_BYTES} bytes of headers"),
        ));
    }
    let mut body = Vec::new();
    let mut stream = answer.bytes_stream();
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|_| refusal("unavailable", "the answer ended before it was whole"))?;
        if body.len() + piece.len() > ANSWER_BYTES {
            return Err(refusal(
                "too_large",
                format!("the answer has more than {ANSWER_BYTES} bytes"),
            ));
        }
        body.extend_from_slice(&piece);
    }
    let mut body = Bytes::from(broker.masker.bytes(body));
    let size = body.len();
    let piece = body.split_to(size.min(PIECE_BYTES));
    let more = if body.is_empty() {
        None
    } else {
        let mut bodies = broker.answers.bodies.lock().unwrap_or_else(PoisonError::into_inner);
        if bodies.len() >= WAITING {
            bodies.pop_first();
        }
        let id = bodies.last_key_value().map_or(1, |(id, _)| id + 1);
        bodies.insert(id, body);
        Some(id)
    };
    Ok(json!({
        "status": status,
        "url": broker.masker.text(url.to_string()),
        "headers": headers,
        "size": size,
        "body_base64": STANDARD.encode(&piece),
        "more": more,
    }))
}
