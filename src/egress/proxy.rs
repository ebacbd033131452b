//! An HTTP proxy for one worker, for machines where `connect()` can't be answered: `CONNECT`, and requests with a whole URL.
//! The same names, ports and addresses are let through as otherwise, for whoever knows the worker's password.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::answer_head::AnswerHead;
use super::grant::{Failure, Grant};
use super::policy::Target;
use super::relay;
use crate::domain::equal_in_constant_time;

/// The largest head of a request.
const HEAD_BYTES: usize = 32 << 10;
/// How long a request's head may take.
const HEAD_PATIENCE: Duration = Duration::from_secs(30);
/// Connections to the proxy at the same time.
const AT_ONCE: usize = 64;
/// The user's name in the proxy's URL.
const USER: &str = "weft";

/// A proxy that listens.
#[derive(Debug)]
pub struct Proxy {
    listener: TcpListener,
    credential: String,
    /// What the worker is told: its address with user and password.
    pub url: String,
}

impl Proxy {
    /// Listens on a port of its own. `password` is for one worker only, and of letters and digits.
    ///
    /// # Errors
    /// When there is no port.
    pub fn bind(password: &str) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address: SocketAddr = listener.local_addr()?;
        Ok(Self {
            listener: TcpListener::from_std(listener)?,
            credential: format!("Basic {}", STANDARD.encode(format!("{USER}:{password}"))),
            url: format!("http://{USER}:{password}@{address}"),
        })
    }

    /// Serves until it is dropped.
    ///
    /// # Errors
    /// When the port is lost.
    pub async fn serve(self, grant: watch::Receiver<Option<Arc<Grant>>>) -> io::Result<()> {
        let room = Arc::new(Semaphore::new(AT_ONCE));
        let credential: Arc<str> = self.credential.into();
        let mut clients = JoinSet::new();
        loop {
            let (stream, _) = self.listener.accept().await?;
            while clients.try_join_next().is_some() {}
            // Over the bound it is closed at once: whoever has no password can't wait here either.
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
                continue;
            };
            let (grant, credential) = (grant.borrow().clone(), Arc::clone(&credential));
            clients.spawn(async move {
                let _permit = permit;
                let _ = client(stream, grant.as_ref(), &credential).await;
            });
        }
    }
}

/// What a client wants.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    target: Target,
    port: u16,
    /// What is sent on instead of the head; nothing for a tunnel.
    head: Option<Vec<u8>>,
    credential: String,
}

/// Reads the head of a request, with its last empty line.
fn read(head: &[u8]) -> Option<Wanted> {
    let text = std::str::from_utf8(head).ok()?;
    let mut lines = text.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, url, version) = (first.next()?, first.next()?, first.next()?);
    if first.next().is_some() || !version.starts_with("HTTP/1.") {
        return None;
    }
    let mut credential = String::new();
    let mut kept = String::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("proxy-authorization") {
            value.trim().clone_into(&mut credential);
        } else if !name.eq_ignore_ascii_case("proxy-connection") && !name.eq_ignore_ascii_case("connection") {
            kept.push_str(line);
            kept.push_str("\r\n");
        }
    }
    if method == "CONNECT" {
        let (host, port) = url.rsplit_once(':')?;
        return Some(Wanted {
            target: Target::parse(host)?,
            port: port.parse().ok()?,
            head: None,
            credential,
        });
    }
    let url = url::Url::parse(url).ok().filter(|url| url.scheme() == "http")?;
    let path = match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    };
    Some(Wanted {
        target: Target::parse(url.host_str()?)?,
        port: url.port_or_known_default()?,
        // One request for one connection: the next one may be for another host.
        head: Some(format!("{method} {path} {version}\r\n{kept}Connection: close\r\n\r\n").into_bytes()),
        credential,
    })
}

async fn client(mut stream: TcpStream, grant: Option<&Arc<Grant>>, credential: &str) -> io::Result<()> {
    let read_head = read_head(&mut stream);
    let Ok(Ok(Some((bytes, end)))) = tokio::time::timeout(HEAD_PATIENCE, read_head).await else {
        return Ok(());
    };
    let Some(wanted) = read(&bytes[..end]) else {
        return say(&mut stream, 400, "not a request to a proxy").await;
    };
    if !equal_in_constant_time(wanted.credential.as_bytes(), credential.as_bytes()) {
        return say(&mut stream, 407, "the proxy is another step's").await;
    }
    let Some(grant) = grant else {
        return say(&mut stream, 403, "there is no network while modules are imported").await;
    };
    let (mut outside, ticket) = match grant.reach(&wanted.target, wanted.port).await {
        Ok(connected) => connected,
        Err(Failure::Refused(refusal)) => return say(&mut stream, 403, &refusal.to_string()).await,
        Err(Failure::ConnectionRefused) => return say(&mut stream, 502, "connection refused").await,
        Err(Failure::Unreachable) => return say(&mut stream, 502, "no address that can be reached").await,
        Err(Failure::TimedOut) => return say(&mut stream, 504, "no answer in time").await,
    };
    match &wanted.head {
        None => stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?,
        Some(head) => ticket.send(&mut outside, head).await?,
    }
    ticket.send(&mut outside, &bytes[end..]).await?;
    let head = wanted.head.is_some().then(AnswerHead::default);
    relay::pass_on(stream, outside, ticket, head).await;
    Ok(())
}

/// What was read, and where the head in it ends.
async fn read_head(stream: &mut TcpStream) -> io::Result<Option<(Vec<u8>, usize)>> {
    let mut bytes = Vec::with_capacity(1_024);
    while bytes.len() < HEAD_BYTES {
        let before = bytes.len();
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
        let from = before.saturating_sub(3);
        if let Some(at) = bytes[from..].windows(4).position(|window| window == b"\r\n\r\n") {
            return Ok(Some((bytes, from + at + 4)));
        }
    }
    Ok(None)
}

/// Answers with a status, the words both in its line, where clients show them, and in the body.
async fn say(stream: &mut TcpStream, status: u16, words: &str) -> io::Result<()> {
    let line: String = words
        .chars()
        .map(|c| if c.is_ascii_graphic() { c } else { ' ' })
        .take(300)
        .collect();
    let more = if status == 407 {
        "Proxy-Authenticate: Basic realm=\"weft\"\r\n"
    } else {
        ""
    };
    let length = words.len() + 1;
    let answer = format!(
        "HTTP/1.1 {status} {line}\r\n{more}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{words}\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_are_read_and_rewritten() {
        let wanted = read(b"CONNECT API.example.com:443 HTTP/1.1\r\nHost: x\r\nProxy-Authorization: Basic abc\r\n\r\n");
        assert_eq!(
            wanted,
            Some(Wanted {
                target: Target::Name("api.example.com".into()),
                port: 443,
                head: None,
                credential: "Basic abc".into(),
            })
        );
        let wanted = read(
            b"GET http://api.example.com:8080/a%20b?c=d HTTP/1.1\r\nHost: api.example.com:8080\r\nProxy-Connection: keep-alive\r\n\
              Connection: keep-alive\r\nproxy-authorization: Basic abc\r\nAccept: */*\r\n\r\n",
        )
        .unwrap();
        assert_eq!(
            (wanted.target.to_string().as_str(), wanted.port),
            ("api.example.com", 8080)
        );
        assert_eq!(
            String::from_utf8(wanted.head.unwrap()).unwrap(),
            "GET /a%20b?c=d HTTP/1.1\r\nHost: api.example.com:8080\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        );
        for bad in [
            "GET /path HTTP/1.1\r\n\r\n",
            "GET ftp://a.example/ HTTP/1.1\r\n\r\n",
            "CONNECT a.example HTTP/1.1\r\n\r\n",
            "CONNECT a.example:443 HTTP/2\r\n\r\n",
            "CONNECT a.example:99999 HTTP/1.1\r\n\r\n",
            "\r\n\r\n",
        ] {
            assert_eq!(read(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
        }
    }
}
