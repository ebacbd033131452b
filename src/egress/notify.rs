//! Serves the calls of one worker and its children that its seccomp filter holds up: `connect()`, and nothing else.
//!
//! A call is read once, from the caller's memory; what was read is judged, and what was judged is connected to. The caller's
//! memory is not looked at again, so changing it meanwhile changes nothing.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, sockopt};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::grant::{Failure, Grant};
use super::kernel::{self, Answer, Notification, Sizes};
use super::{dns, relay};

/// Calls of one worker that are worked on at the same time; more wait in the kernel.
const AT_ONCE: usize = 64;
/// The longest address that is read (`sockaddr_storage`).
const ADDRESS_BYTES: u64 = 128;
/// Where names are asked for, whatever the address.
const DNS_PORT: u16 = 53;

/// How the worker's own `AF_UNIX` connections are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Local {
    /// They are made as they are. Only for a worker with mount and network namespaces of its own: the call is carried out on
    /// what stands in its memory by then, which must be harmless whatever it is.
    Made,
    /// There are none.
    Refused,
}

/// Serves until the last process under the filter is gone. Without a grant, as long as nothing has been granted, everything
/// is refused.
///
/// # Errors
/// When the listener can't be served at all.
pub async fn serve(listener: OwnedFd, grant: watch::Receiver<Option<Arc<Grant>>>, local: Local) -> io::Result<()> {
    let sizes = Sizes::ask()?;
    let listener = kernel::watch(listener)?;
    let mut calls = FuturesUnordered::new();
    loop {
        let received = tokio::select! {
            Some(()) = calls.next(), if !calls.is_empty() => continue,
            received = next(&listener, sizes), if calls.len() < AT_ONCE => received?,
        };
        let Some(call) = received else { return Ok(()) };
        let grant = grant.borrow().clone();
        let listener = &listener;
        calls.push(async move {
            let caller = Caller { listener, call };
            let answer = caller.decide(grant.as_ref(), local).await;
            if let Some(answer) = answer
                && let Err(error) = kernel::answer(listener.as_fd(), sizes, call.id, answer)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, "a worker's call could not be answered");
            }
        });
    }
}

/// The next call; none when there can be no more.
async fn next(listener: &AsyncFd<OwnedFd>, sizes: Sizes) -> io::Result<Option<Notification>> {
    loop {
        let mut ready = listener.readable().await?;
        // Receiving would wait if nothing were there, so readiness is asked of the kernel itself.
        let mut asked = [PollFd::new(listener.get_ref(), PollFlags::IN)];
        poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
        let events = asked[0].revents();
        if events.contains(PollFlags::IN) {
            match kernel::receive(listener.as_fd(), sizes) {
                Ok(call) => return Ok(Some(call)),
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error),
            }
        } else if events.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            return Ok(None);
        } else {
            ready.clear_ready();
        }
    }
}

/// What a call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Internet(SocketAddr),
    Local,
    Other,
}

/// Reads an address as `connect()` does.
fn asked(address: &[u8]) -> Result<Asked, Errno> {
    let family = address.first_chunk::<2>().ok_or(Errno::INVAL)?;
    let family = i32::from(u16::from_ne_bytes(*family));
    let port = |bytes: &[u8]| u16::from_be_bytes([bytes[2], bytes[3]]);
    if family == libc::AF_INET {
        let bytes: &[u8; 16] = address.first_chunk().ok_or(Errno::INVAL)?;
        let [a, b, c, d] = [bytes[4], bytes[5], bytes[6], bytes[7]];
        Ok(Asked::Internet(SocketAddr::new(
            Ipv4Addr::new(a, b, c, d).into(),
            port(bytes),
        )))
    } else if family == libc::AF_INET6 {
        let bytes: &[u8; 24] = address.first_chunk().ok_or(Errno::INVAL)?;
        let mut octets = [0; 16];
        octets.copy_from_slice(&bytes[8..24]);
        Ok(Asked::Internet(SocketAddr::new(
            Ipv6Addr::from(octets).into(),
            port(bytes),
        )))
    } else if family == libc::AF_UNIX {
        Ok(Asked::Local)
    } else {
        Ok(Asked::Other)
    }
}

/// What is known of the socket that the caller wants connected.
#[derive(Debug)]
struct Socket {
    number: u32,
    close_on_exec: bool,
    non_blocking: bool,
    /// The socket itself, where it may be had.
    itself: Option<OwnedFd>,
}

struct Caller<'a> {
    listener: &'a AsyncFd<OwnedFd>,
    call: Notification,
}

impl Caller<'_> {
    /// Nothing when nobody waits any more.
    async fn decide(&self, grant: Option<&Arc<Grant>>, local: Local) -> Option<Answer> {
        if self.call.call != libc::SYS_connect || self.call.arch != ARCH {
            return Some(Answer::Error(Errno::NOSYS));
        }
        let read = self.address().and_then(|bytes| asked(&bytes));
        let socket = self.socket();
        // Only now is it certain that this was the caller's memory and the caller's socket.
        if !kernel::is_waiting(self.listener.as_fd(), self.call.id) {
            return None;
        }
        let to = match read {
            Ok(Asked::Internet(to)) => to,
            Ok(Asked::Local) if local == Local::Made => return Some(Answer::Continue),
            Ok(Asked::Local) => return Some(Answer::Error(Errno::ACCESS)),
            Ok(Asked::Other) => return Some(Answer::Error(Errno::PERM)),
            Err(error) => return Some(Answer::Error(error)),
        };
        Some(match self.connect(to, socket, grant).await {
            Ok(()) => Answer::Done,
            Err(error) => Answer::Error(error),
        })
    }

    async fn connect(
        &self,
        to: SocketAddr,
        socket: Result<Socket, Errno>,
        grant: Option<&Arc<Grant>>,
    ) -> Result<(), Errno> {
        let socket = socket?;
        if let Some(itself) = &socket.itself {
            check(itself)?;
        }
        let grant = grant.ok_or(Errno::ACCESS)?;
        if to.port() == DNS_PORT {
            let (theirs, ours) = UnixStream::pair().map_err(|error| errno(&error))?;
            ours.set_nonblocking(true).map_err(|error| errno(&error))?;
            let ours = tokio::net::UnixStream::from_std(ours).map_err(|error| errno(&error))?;
            self.give(&socket, &theirs)?;
            let grant = Arc::clone(grant);
            tokio::spawn(async move { dns::serve(ours, &grant).await });
            return Ok(());
        }
        let (outside, ticket) = grant.connect(to).await.map_err(|failure| match failure {
            Failure::Refused(_) => Errno::ACCESS,
            Failure::ConnectionRefused => Errno::CONNREFUSED,
            Failure::TimedOut => Errno::TIMEDOUT,
            Failure::Unreachable => Errno::NETUNREACH,
        })?;
        let (theirs, ours) = relay::pair().await.map_err(|error| errno(&error))?;
        if let Some(itself) = &socket.itself {
            copy_options(itself, &theirs);
        }
        self.give(&socket, &theirs)?;
        tokio::spawn(relay::pass_on(ours, outside, ticket, None));
        Ok(())
    }

    /// Puts a connected socket in the place of the caller's.
    fn give(&self, socket: &Socket, theirs: impl AsFd) -> Result<(), Errno> {
        rustix::io::ioctl_fionbio(&theirs, socket.non_blocking)?;
        kernel::replace(
            self.listener.as_fd(),
            self.call.id,
            theirs.as_fd(),
            socket.number,
            socket.close_on_exec,
        )
        .map_err(|error| errno(&error))
    }

    /// The bytes of the address, from the caller's memory.
    fn address(&self) -> Result<Vec<u8>, Errno> {
        let [_, at, length, ..] = self.call.args;
        // The kernel takes the lower half of it as a signed number.
        let length = length & u64::from(u32::MAX);
        if length > ADDRESS_BYTES {
            return Err(Errno::INVAL);
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| Errno::INVAL)?];
        let memory = File::open(format!("/proc/{}/mem", self.call.thread)).map_err(|error| {
            tracing::error!(%error, "the memory of a worker can't be read, so its connections can't be judged");
            Errno::PERM
        })?;
        memory.read_exact_at(&mut bytes, at).map_err(|_| Errno::FAULT)?;
        Ok(bytes)
    }

    fn socket(&self) -> Result<Socket, Errno> {
        let number = u32::try_from(self.call.args[0] & u64::from(u32::MAX)).map_err(|_| Errno::BADF)?;
        let thread = self.call.thread;
        let info =
            std::fs::read_to_string(format!("/proc/{thread}/fdinfo/{number}")).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Errno::BADF,
                _ => Errno::PERM,
            })?;
        let flags = field(&info, "flags:")
            .and_then(|flags| i32::from_str_radix(flags, 8).ok())
            .ok_or(Errno::BADF)?;
        Ok(Socket {
            number,
            close_on_exec: flags & libc::O_CLOEXEC != 0,
            non_blocking: flags & libc::O_NONBLOCK != 0,
            itself: self.itself(number),
        })
    }

    fn itself(&self, number: u32) -> Option<OwnedFd> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.call.thread)).ok()?;
        let process = field(&status, "Tgid:")?.parse().ok().and_then(Pid::from_raw)?;
        let process = pidfd_open(process, PidfdFlags::empty()).ok()?;
        pidfd_getfd(process, i32::try_from(number).ok()?, PidfdGetfdFlags::empty()).ok()
    }
}

/// A socket that can be connected: TCP, and not connected yet.
fn check(socket: &OwnedFd) -> Result<(), Errno> {
    if !matches!(
        sockopt::socket_domain(socket)?,
        AddressFamily::INET | AddressFamily::INET6
    ) {
        return Err(Errno::AFNOSUPPORT);
    }
    if sockopt::socket_type(socket)? != SocketType::STREAM {
        return Err(Errno::NETUNREACH);
    }
    if rustix::net::getpeername(socket).is_ok() {
        return Err(Errno::ISCONN);
    }
    Ok(())
}

/// What the caller had set on its socket before, as far as it matters to the other end.
fn copy_options(from: &OwnedFd, to: &std::net::TcpStream) {
    if sockopt::tcp_nodelay(from).unwrap_or_default() {
        let _ = sockopt::set_tcp_nodelay(to, true);
    }
    if sockopt::socket_keepalive(from).unwrap_or_default() {
        let _ = sockopt::set_socket_keepalive(to, true);
    }
    for direction in [sockopt::Timeout::Recv, sockopt::Timeout::Send] {
        if let Ok(Some(timeout)) = sockopt::socket_timeout(from, direction) {
            let _ = sockopt::set_socket_timeout(to, direction, Some(timeout));
        }
    }
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// The machine's own kind of system calls; others have other numbers.
#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCH: u32 = 0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_as_the_kernel_reads_them() {
        let mut v4 = vec![0; 16];
        v4[..2].copy_from_slice(&2_u16.to_ne_bytes());
        v4[2..8].copy_from_slice(&[1, 187, 192, 0, 2, 1]);
        assert_eq!(asked(&v4), Ok(Asked::Internet("192.0.2.1:443".parse().unwrap())));
        assert_eq!(asked(&v4[..15]), Err(Errno::INVAL));
        let mut v6 = vec![0; 28];
        v6[..2].copy_from_slice(&10_u16.to_ne_bytes());
        v6[2..4].copy_from_slice(&[0, 80]);
        v6[23] = 1;
        assert_eq!(asked(&v6), Ok(Asked::Internet("[::1]:80".parse().unwrap())));
        assert_eq!(asked(&1_u16.to_ne_bytes()), Ok(Asked::Local));
        assert_eq!(asked(&[0, 0]), Ok(Asked::Other));
        assert_eq!(asked(&[2]), Err(Errno::INVAL));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            let _ = asked(&bytes);
        }
    }

    #[test]
    fn unused_parts_of_an_address_change_nothing() {
        let any = Ipv4Addr::UNSPECIFIED.into();
        let mut bytes = [7; 128];
        bytes[..8].copy_from_slice(&[2, 0, 0, 80, 0, 0, 0, 0]);
        if cfg!(target_endian = "little") {
            assert_eq!(asked(&bytes), Ok(Asked::Internet(SocketAddr::new(any, 80))));
        }
    }
}
