//! The socket that a worker gets, and the passing on of what goes through it.
//!
//! A worker does not get the connection itself but one end of another that leads here: so that every byte is counted before it goes
//! on, that its closing is seen at once, and that all ends when the attempt does. It is a TCP socket, because
//! libraries set options that no other kind has.

use std::borrow::Cow;
use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use super::answer_head::AnswerHead;
use super::grant::{Direction, Ticket};

/// How much is passed on at once.
const CHUNK: usize = 32 << 10;
/// Two sockets of this machine find each other at once, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(2);

/// Two connected TCP sockets: the worker's and ours.
pub async fn pair() -> io::Result<(std::net::TcpStream, TcpStream)> {
    let pairing = async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let theirs = TcpStream::connect(listener.local_addr()?).await?;
        let own = theirs.local_addr()?;
        loop {
            let (ours, peer) = listener.accept().await?;
            // Anybody on this machine may have been faster.
            if peer == own {
                ours.set_nodelay(true)?;
                return Ok((theirs.into_std()?, ours));
            }
        }
    };
    tokio::time::timeout(PATIENCE, pairing)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Passes on in both directions until both have ended, or one has broken, or the attempt is over. What the host says first goes
/// through `head`, if there is one.
pub async fn pass_on(inside: TcpStream, outside: TcpStream, ticket: Ticket, head: Option<AnswerHead>) {
    let _ = outside.set_nodelay(true);
    let _ = rustix::net::sockopt::set_socket_keepalive(&outside, true);
    let grant = ticket.grant().clone();
    let (from_worker, to_worker) = inside.into_split();
    let (from_host, to_host) = outside.into_split();
    let both = async {
        tokio::try_join!(
            one_way(from_worker, to_host, &ticket, Direction::Sent, None),
            one_way(from_host, to_worker, &ticket, Direction::Received, head),
        )
    };
    tokio::select! {
        () = grant.closed().cancelled() => {}
        _ = both => {}
    }
}

/// Until the end of `from`, which becomes the end of `to`. What breaks on one side is broken off on the other.
async fn one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    ticket: &Ticket,
    direction: Direction,
    mut head: Option<AnswerHead>,
) -> io::Result<()> {
    let mut space = vec![0; CHUNK];
    let ended: io::Result<()> = async {
        loop {
            let length = from.read(&mut space).await?;
            if length == 0 {
                if let Some(head) = head.take() {
                    to.write_all(&head.rest()).await?;
                }
                return to.shutdown().await;
            }
            ticket.spend(direction, length)?;
            let bytes = match &mut head {
                Some(head) => head.pass(&space[..length]),
                None => Cow::Borrowed(&space[..length]),
            };
            to.write_all(&bytes).await?;
        }
    }
    .await;
    if ended.is_err() {
        for socket in [from.as_ref(), to.as_ref()] {
            let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
        }
    }
    ended
}
