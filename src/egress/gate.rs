//! The way out of one worker, from its fork to its end: shut until it is opened for an attempt.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::grant::Grant;
use super::proxy::Proxy;

const NOT_HANDED_OVER: &str = "the worker has handed no filter over";

/// What has become of the worker's filter.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Filter {
    /// It has not been handed over yet.
    Awaited,
    /// Its calls are answered.
    Served,
    /// There is none, for this reason.
    Missing(String),
}

/// Where a worker's connections come through. Dropping it shuts it for good: what is open ends.
#[derive(Debug)]
pub struct Gate {
    grant: watch::Sender<Option<Arc<Grant>>>,
    filter: watch::Receiver<Filter>,
    task: AbortHandle,
    /// The proxy's URL, with the worker's password, where connections come through one.
    proxy: Option<String>,
}

impl Gate {
    /// Waits for the worker to hand its filter over on `socket`, and refuses everything. `local`: whether the worker may have
    /// `AF_UNIX` connections of its own, which is for one with mount and network namespaces of its own only.
    ///
    /// # Errors
    /// When the socket can't be used.
    pub fn new(socket: UnixStream, local: bool) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let socket = tokio::net::UnixStream::from_std(socket)?;
        let grant = watch::Sender::new(None);
        let (filter, seen) = watch::channel(Filter::Awaited);
        let grants = grant.subscribe();
        let task = tokio::spawn(async move {
            let served = match receive(&socket).await {
                Ok(listener) => {
                    drop(socket);
                    filter.send_replace(Filter::Served);
                    serve(listener, grants, local).await
                }
                Err(error) => Err(error),
            };
            if let Err(error) = served {
                filter.send_replace(Filter::Missing(error.to_string()));
            }
        });
        Ok(Self {
            grant,
            filter: seen,
            task: task.abort_handle(),
            proxy: None,
        })
    }

    /// A way out through an HTTP proxy, which refuses everything. `password` is the worker's own, of letters and digits.
    ///
    /// # Errors
    /// When there is no port for it.
    pub fn by_proxy(password: &str) -> io::Result<Self> {
        let proxy = Proxy::bind(password)?;
        let url = proxy.url.clone();
        let grant = watch::Sender::new(None);
        let (_, seen) = watch::channel(Filter::Served);
        let grants = grant.subscribe();
        let task = tokio::spawn(async move {
            if let Err(error) = proxy.serve(grants).await {
                tracing::error!(%error, "the proxy of a worker has ended");
            }
        });
        Ok(Self {
            grant,
            filter: seen,
            task: task.abort_handle(),
            proxy: Some(url),
        })
    }

    /// The proxy's URL, with the worker's password, where connections come through one.
    #[must_use]
    pub fn proxy(&self) -> Option<&str> {
        self.proxy.as_deref()
    }

    /// Whether the worker's calls are answered here.
    ///
    /// # Errors
    /// Why they are not, when the filter has not come within `patience`.
    pub async fn is_served(&self, patience: Duration) -> Result<(), String> {
        let mut filter = self.filter.clone();
        let arrived = filter.wait_for(|filter| *filter != Filter::Awaited);
        match tokio::time::timeout(patience, arrived).await {
            Ok(Ok(filter)) => match &*filter {
                Filter::Missing(why) => Err(why.clone()),
                Filter::Served | Filter::Awaited => Ok(()),
            },
            _ => Err(NOT_HANDED_OVER.to_owned()),
        }
    }

    /// Opens it.
    pub fn open(&self, grant: Arc<Grant>) {
        self.grant.send_replace(Some(grant));
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        if let Some(grant) = self.grant.borrow().as_ref() {
            grant.close();
        }
        self.task.abort();
    }
}

#[cfg(target_os = "linux")]
async fn serve(listener: OwnedFd, grants: watch::Receiver<Option<Arc<Grant>>>, local: bool) -> io::Result<()> {
    use super::notify::{self, Local};
    let local = if local { Local::Made } else { Local::Refused };
    notify::serve(listener, grants, local).await
}

#[cfg(not(target_os = "linux"))]
async fn serve(_: OwnedFd, _: watch::Receiver<Option<Arc<Grant>>>, _: bool) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// The listener's descriptor, which comes beside one byte.
async fn receive(socket: &tokio::net::UnixStream) -> io::Result<OwnedFd> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    socket
        .async_io(tokio::io::Interest::READABLE, || {
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
            let mut ancillary = RecvAncillaryBuffer::new(&mut space);
            let mut byte = [0];
            let received = recvmsg(
                socket,
                &mut [io::IoSliceMut::new(&mut byte)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            )?;
            if received.bytes == 0 {
                return Err(io::Error::other(NOT_HANDED_OVER));
            }
            let mut descriptors = ancillary.drain().filter_map(|message| match message {
                RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
                _ => None,
            });
            descriptors
                .next()
                .and_then(|mut descriptors| descriptors.next())
                .ok_or_else(|| io::Error::other(NOT_HANDED_OVER))
        })
        .await
}
