//! A debugger for steps: one port of this machine, and behind it whichever attempt is being debugged.
//!
//! A worker that is debugged gets no network for it and loses no wall: it speaks on a socket that it was forked with, and what
//! a client says at the port is carried there. For development: whoever reaches the port runs code in the step.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Mutex, MutexGuard};

use super::AttemptSpec;

/// How every message of a debugger's client begins. A page in a browser can send requests to ports of its machine, and what
/// it sends would be read as messages otherwise.
const BEGINNING: &[u8] = b"Content-Length:";
/// How long a client may take for that.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the last words of a worker to its client may take to be carried.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(500);
/// The time limit of an attempt that is debugged: nobody is hurried who stands at a breakpoint.
pub(super) const UNTIMED: Duration = Duration::from_secs(7 * 24 * 3600);
/// What is written beside the layers of an attempt that was debugged.
pub(super) const MARK: &str = "debugger";

/// What a debugger says to whoever has started it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// An attempt waits for a client.
    Waiting {
        /// The step.
        step: String,
        /// Where.
        address: SocketAddr,
    },
    /// A client is there.
    Attached {
        /// The step.
        step: String,
    },
    /// Something connected that is no client.
    Strange,
}

/// Which attempts are debugged, and where.
pub struct Debugger {
    listener: TcpListener,
    address: SocketAddr,
    step: Option<String>,
    workspace: PathBuf,
    turn: Mutex<()>,
    tell: Box<dyn Fn(Said) + Send + Sync>,
}

impl fmt::Debug for Debugger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Debugger")
            .field("address", &self.address)
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

impl Debugger {
    /// Listens on a port of the loopback, 0 for a free one, for attempts of `step`, or of all steps. `workspace` is where the
    /// developer edits the code.
    ///
    /// # Errors
    /// When the port is taken or may not be used, or the workspace is not there.
    pub async fn listen(
        port: u16,
        step: Option<String>,
        workspace: &Path,
        tell: impl Fn(Said) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            step,
            workspace: workspace.canonicalize()?,
            turn: Mutex::new(()),
            tell: Box::new(tell),
        })
    }

    /// Where clients connect.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The folder that code says it is from.
    pub(super) fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// The step of an attempt that is to be debugged.
    pub(super) fn wants(&self, spec: &AttemptSpec) -> Option<String> {
        let step = spec.context.pointer("/run/step").and_then(Value::as_str)?;
        let is_wanted = spec.entry.kind != "data_provider" && self.step.as_deref().is_none_or(|wanted| wanted == step);
        is_wanted.then(|| step.to_owned())
    }

    /// One attempt after the other.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Waits for a client, and carries what it and the worker say until one of them is gone.
    pub(super) async fn relay(&self, step: &str, worker: UnixStream) {
        (self.tell)(Said::Waiting {
            step: step.to_owned(),
            address: self.address,
        });
        let client = loop {
            let Ok((client, _)) = self.listener.accept().await else {
                // Out of descriptors, at most: the attempt waits on, and can be cancelled.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            if begins_well(&client).await {
                break client;
            }
            (self.tell)(Said::Strange);
        };
        (self.tell)(Said::Attached { step: step.to_owned() });
        drop(client.set_nodelay(true));
        let (mut said, mut to_client) = client.into_split();
        let (mut answered, mut to_worker) = worker.into_split();
        let listen = async {
            // Either of them may just go. A client that is gone lets the step go on.
            drop(copy(&mut said, &mut to_worker).await);
            drop(to_worker.shutdown().await);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            _ = copy(&mut answered, &mut to_client) => {}
            () = listen => {}
        }
        drop(to_client.shutdown().await);
    }
}

/// Whether what connected speaks as a client does.
async fn begins_well(client: &TcpStream) -> bool {
    let mut first = [0; BEGINNING.len()];
    let peek = async {
        loop {
            match client.peek(&mut first).await {
                Ok(0) | Err(_) => return false,
                Ok(length) if length == first.len() => return first.eq_ignore_ascii_case(BEGINNING),
                Ok(length) if !first[..length].eq_ignore_ascii_case(&BEGINNING[..length]) => return false,
                Ok(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, peek).await.unwrap_or(false)
}

/// Whether debugpy is among packages that lie in these folders.
#[must_use]
pub fn is_installed(folders: &[PathBuf]) -> bool {
    folders
        .iter()
        .any(|folder| folder.join("debugpy/__init__.py").is_file())
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn a_request_of_a_browser_is_no_client_and_the_next_one_is() {
        let (said, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let tell = move |what| drop(said.send(what));
        let here = std::env::temp_dir();
        let debugger = Debugger::listen(0, None, &here, tell).await.unwrap();
        let address = debugger.address();
        let (ours, mut worker) = UnixStream::pair().unwrap();
        let relay = debugger.relay("main", ours);
        let client = async {
            let mut browser = TcpStream::connect(address).await.unwrap();
            browser
                .write_all(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
                .await
                .unwrap();
            let mut rest = Vec::new();
            // Closed without a word; what it had sent may be a reset for it.
            drop(browser.read_to_end(&mut rest).await);
            assert_eq!(rest, b"");
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(b"Content-Length: 2\r\n\r\n{}").await.unwrap();
            let mut got = [0; 23];
            worker.read_exact(&mut got).await.unwrap();
            assert!(got.ends_with(b"{}"), "{got:?}");
            worker.write_all(b"hello").await.unwrap();
            drop(worker);
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"hello");
        };
        tokio::join!(relay, client);
        assert!(matches!(heard.recv().await, Some(Said::Waiting { step, .. }) if step == "main"));
        assert_eq!(heard.recv().await, Some(Said::Strange));
        assert!(matches!(heard.recv().await, Some(Said::Attached { .. })));
    }
}
