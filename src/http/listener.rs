//! Connections of the one listener: accepted, answered, and closed when a caller takes too long to say what it wants. A caller
//! that sends a byte now and then would otherwise hold a connection, and what belongs to it, for ever.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{ConnectInfo, Request};
use futures::FutureExt as _;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

/// How long a caller may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// From the connection, or the answer before, to the end of a request's head. Above the minute for which the Functions
    /// host keeps unused connections, so that it is the host that closes them.
    pub head: Duration,
    /// From there to the end of the body.
    pub body: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(75),
            body: Duration::from_secs(60),
        }
    }
}

/// Answers connections until `stop` fires, and then until the requests that are on their way have been answered.
pub async fn serve(listener: TcpListener, router: Router, patience: Patience, stop: CancellationToken) {
    let connections = TaskTracker::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => {
                let router = router.clone();
                let stop = stop.clone();
                connections.spawn(async move {
                    let service = router.map_request(move |request: Request<Incoming>| {
                        let mut request = request.map(|body| Body::new(TimedBody::new(body, patience.body)));
                        request.extensions_mut().insert(ConnectInfo(peer));
                        request
                    });
                    answer(stream, service, patience.head, &stop).await;
                });
            }
            Err(error) if is_the_callers(&error) => {}
            Err(error) => {
                // Most of all when descriptors are used up: others give theirs back meanwhile.
                tracing::error!(%error, "a connection can't be accepted");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn answer<S>(stream: TcpStream, service: S, head: Duration, stop: &CancellationToken)
where
    S: tower::Service<Request<Incoming>, Response = axum::response::Response, Error = std::convert::Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = pin!(connection);
    let mut stopped = pin!(stop.cancelled().fuse());
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::trace!(%error, "a connection failed");
                }
                return;
            }
            () = &mut stopped => connection.as_mut().graceful_shutdown(),
        }
    }
}

fn is_the_callers(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

/// A body that fails when it is not whole in time.
struct TimedBody {
    body: Incoming,
    patience: Duration,
    /// Most bodies are there with their head: the clock starts with the first wait.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl TimedBody {
    const fn new(body: Incoming, patience: Duration) -> Self {
        Self {
            body,
            patience,
            deadline: None,
        }
    }
}

impl HttpBody for TimedBody {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let patience = this.patience;
        let deadline = this
            .deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        match deadline.as_mut().poll(cx) {
            Poll::Ready(()) => {
                let error = io::Error::new(io::ErrorKind::TimedOut, "the body did not arrive in time");
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use axum::Extension;
    use axum::routing::post;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::mpsc;

    use super::*;
    use crate::http::middleware::{self, HungUp};

    const SHORT: Patience = Patience {
        head: Duration::from_millis(200),
        body: Duration::from_millis(200),
    };

    /// Sends the beginning of a request, then a byte now and then; what is answered until the connection is closed.
    async fn drip(beginning: &str) -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", post(async |body: String| body));
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, router, SHORT, stop.clone()));
        let (mut reading, mut writing) = TcpStream::connect(address).await.unwrap().into_split();
        writing.write_all(beginning.as_bytes()).await.unwrap();
        let dripping = tokio::spawn(async move {
            while writing.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(20), reading.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "the connection stayed open: {beginning:?}");
        dripping.abort();
        stop.cancel();
        server.await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Sends this in one piece, and then hangs up; whether the handler that waits for that hears of it so soon.
    async fn is_heard(request: String, hang_up: impl AsyncFnOnce(TcpStream), soon: Duration) -> bool {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (begun, mut begins) = mpsc::unbounded_channel();
        let (heard, mut hears) = mpsc::unbounded_channel();
        let waiting = move |Extension(HungUp(gone)): Extension<HungUp>, body: String| {
            let (begun, heard) = (begun.clone(), heard.clone());
            async move {
                begun.send(body).unwrap();
                gone.cancelled().await;
                heard.send(()).ok();
            }
        };
        let router = Router::new()
            .route("/", post(waiting))
            .layer(axum::middleware::from_fn(middleware::trace));
        let stop = CancellationToken::new();
        let server = tokio::spawn(serve(listener, router, Patience::default(), stop.clone()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(begins.recv().await.unwrap(), "hi");
        hang_up(stream).await;
        let heard = tokio::time::timeout(soon, hears.recv()).await;
        server.abort();
        heard.is_ok()
    }

    #[tokio::test]
    async fn who_hangs_up_is_heard_of_unless_another_request_was_read() {
        const LONG: Duration = Duration::from_secs(20);
        let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
        assert!(is_heard(request.to_owned(), async |stream| drop(stream), LONG).await);
        let half = async |mut stream: TcpStream| {
            stream.shutdown().await.unwrap();
            // Open in this direction for as long as it is looked.
            tokio::spawn(async move { stream.read_to_end(&mut Vec::new()).await });
        };
        assert!(is_heard(request.to_owned(), half, LONG).await);
        assert!(!is_heard(request.repeat(2), async |stream| drop(stream), SHORT.head).await);
    }

    #[tokio::test]
    async fn who_takes_too_long_is_cut_off() {
        assert_eq!(drip("POST /").await, "");
        assert_eq!(drip("POST / HTTP/1.1\r\nHost: a\r\nX-Long: ").await, "");
        let answer = drip("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
        // What comes in time is answered, and the connection ends when nothing more comes.
        let answer = drip("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hi"), "{answer}");
    }
}
