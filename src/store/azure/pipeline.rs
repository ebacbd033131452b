//! What every request goes through: one transport, one retry policy, one deadline per operation.
//!
//! The SDK's own retries take up to a minute and repeat whatever failed, so they are off. Ours start no try later than
//! [`RETRY_WINDOW`] after the first, and repeat a write that may have arrived only where the operation says that this
//! is harmless.

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use azure_core::Error as SdkError;
use azure_core::error::ErrorKind;
use azure_core::http::headers::{HeaderName, Headers};
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{
    AsyncRawResponse, ClientMethodOptions, ClientOptions, Context, FixedRetryOptions, HttpClient, Method, Request,
    RetryOptions, StatusCode, Transport,
};
use tokio::time::Instant;

use super::credential::{Access, Scheme};
use super::error::Failure;
use crate::clock::Entropy;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_RETRIES: u32 = 3;
/// No try starts later than this after the first; with [`CONNECT_TIMEOUT`] an outage is known after 3 seconds.
const RETRY_WINDOW: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// An operation on tables or queues, tries and pauses included.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(4);
/// What an operation gets in addition for each MiB that it moves.
const TIMEOUT_PER_MIB: Duration = Duration::from_secs(1);
const MAX_OPERATION_TIMEOUT: Duration = Duration::from_secs(120);

/// Says in a request's context whether it may be sent again after it may have arrived. Without it, reads may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Twice is the same as once.
    Harmless,
    /// Twice is not the same as once.
    Never,
}

impl Repeat {
    pub(super) fn context(self) -> Context<'static> {
        Context::new().with_value(self)
    }

    pub(super) fn options(self) -> ClientMethodOptions<'static> {
        ClientMethodOptions {
            context: self.context(),
        }
    }
}

/// Waits for an operation that moves so many bytes, but not for ever.
pub(super) async fn bounded<T>(bytes: u64, operation: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let extra = TIMEOUT_PER_MIB.saturating_mul(u32::try_from(bytes >> 20).unwrap_or(u32::MAX));
    let limit = OPERATION_TIMEOUT.saturating_add(extra).min(MAX_OPERATION_TIMEOUT);
    tokio::time::timeout(limit, operation)
        .await
        .unwrap_or(Err(Failure::Timeout(limit)))
}

/// The transport that the clients share: connections are made, and certificates read, with the first request.
pub(super) fn transport() -> Transport {
    Transport::new(Arc::new(LazyClient::default()))
}

/// Options for a client of one service: no retries of the SDK, then our retries, then the signature.
pub(super) fn client_options(access: &Access, scheme: Scheme, transport: &Transport) -> ClientOptions {
    let mut per_try_policies: Vec<Arc<dyn Policy>> = vec![Arc::new(Retry)];
    per_try_policies.extend(access.signer(scheme));
    ClientOptions {
        per_try_policies,
        retry: RetryOptions::none(),
        transport: Some(transport.clone()),
        ..ClientOptions::default()
    }
}

/// Options for a client that puts its own proof on requests: no retries of the SDK, but ours.
pub(super) fn unsigned_options(transport: &Transport) -> ClientOptions {
    ClientOptions {
        per_try_policies: vec![Arc::new(Retry)],
        retry: RetryOptions::none(),
        transport: Some(transport.clone()),
        ..ClientOptions::default()
    }
}

/// Retries for the identity endpoint, which is next to us and answers at once or not at all.
pub(super) fn identity_retry() -> RetryOptions {
    RetryOptions::fixed(FixedRetryOptions {
        delay: azure_core::time::Duration::milliseconds(200),
        max_retries: MAX_RETRIES,
        max_total_elapsed: azure_core::time::Duration::seconds(1),
    })
}

#[derive(Debug, Default)]
struct LazyClient(OnceLock<reqwest::Client>);

impl LazyClient {
    fn get(&self) -> azure_core::Result<&reqwest::Client> {
        if let Some(client) = self.0.get() {
            return Ok(client);
        }
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            // A stored blob's own encoding is not ours to undo.
            .no_gzip()
            .no_deflate()
            .build()
            .map_err(|error| SdkError::with_error(ErrorKind::Other, error, "no transport can be made"))?;
        Ok(self.0.get_or_init(|| client))
    }
}

#[async_trait]
impl HttpClient for LazyClient {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        self.get()?.execute_request(request).await.map_err(without_url)
    }
}

/// Takes the address out of a transport error: a shared access signature is part of it.
fn without_url(error: SdkError) -> SdkError {
    let kind = error.kind().clone();
    match error.into_downcast::<reqwest::Error>() {
        Ok(inner) => SdkError::with_error(kind, inner.without_url(), "the request failed"),
        Err(error) => error,
    }
}

/// Sends again what did not arrive or was turned away, and what may have arrived when that is harmless.
#[derive(Debug)]
struct Retry;

#[async_trait]
impl Policy for Retry {
    async fn send(&self, ctx: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        let harmless = match ctx.value::<Repeat>() {
            Some(repeat) => *repeat == Repeat::Harmless,
            None => matches!(request.method(), Method::Get | Method::Head),
        };
        let begun = Instant::now();
        let mut retries = 0;
        loop {
            let result = next[0].send(ctx, request, &next[1..]).await;
            let Some(asked) = pause_before_retry(&result, harmless) else {
                return result;
            };
            let pause = asked.max(backoff(retries));
            if retries == MAX_RETRIES || begun.elapsed() + pause > RETRY_WINDOW {
                return result;
            }
            tokio::time::sleep(pause).await;
            retries += 1;
            request.body_mut().reset().await?;
        }
    }
}

/// How long the service wants us to wait, when the try may be repeated at all.
fn pause_before_retry(result: &PolicyResult, harmless: bool) -> Option<Duration> {
    match result {
        Ok(response) => match response.status() {
            StatusCode::TooManyRequests | StatusCode::ServiceUnavailable => Some(retry_after(response.headers())),
            StatusCode::RequestTimeout
            | StatusCode::InternalServerError
            | StatusCode::BadGateway
            | StatusCode::GatewayTimeout
                if harmless =>
            {
                Some(Duration::ZERO)
            }
            _ => None,
        },
        Err(error) => match error.kind() {
            ErrorKind::Connection => Some(Duration::ZERO),
            ErrorKind::Io if harmless => Some(Duration::ZERO),
            _ => None,
        },
    }
}

fn retry_after(headers: &Headers) -> Duration {
    let number = |name| {
        headers
            .get_optional_str(&HeaderName::from_static(name))?
            .parse::<u64>()
            .ok()
    };
    number("x-ms-retry-after-ms")
        .or_else(|| number("retry-after-ms"))
        .map(Duration::from_millis)
        .or_else(|| number("retry-after").map(Duration::from_secs))
        .unwrap_or_default()
}

/// 100, 200, 400 ms, each with up to a quarter more, so that many clients don't come back at once.
fn backoff(retries: u32) -> Duration {
    let pause = FIRST_PAUSE * 2_u32.pow(retries);
    let [jitter] = Entropy::System.bytes::<1>();
    pause + pause * u32::from(jitter) / 1024
}
