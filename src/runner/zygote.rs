//! One zygote: starting it, asking it for workers, hearing how they end. What workers are for is not its business.
//!
//! Two threads of its own, because it needs nothing that async gives: one starts the process, and stays, and hears; the other
//! says, so that a zygote that does not listen stops nobody else.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType,
};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::sync::{oneshot, watch};

use super::BundleRef;
use super::environment::zygote_command;
use super::jail::Jail;
use super::limits::ForkLimits;
use super::protocol::{Answer, CONTROL_BYTES, Exit, Request, RequestBundle, Task, VERSION};
use super::python::Python;

/// What is kept of the zygote's stderr to explain its end.
const LAST_WORDS: usize = 5;
const LOG_LINE_BYTES: usize = 4 << 10;

/// Where a zygote is in its life.
#[derive(Debug, Clone)]
pub enum Phase {
    /// Started, and not heard of.
    Starting,
    /// It speaks our version.
    Ready,
    /// It is gone, and so are its workers.
    Dead {
        /// Why, in words.
        reason: String,
        /// Whether it had been ready before.
        was_ready: bool,
    },
}

/// How a worker's existence ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It was reaped.
    Exited(Exit),
    /// It never was.
    ForkFailed(String),
    /// The zygote is gone, and with it every worker.
    ZygoteGone,
}

/// What a worker is to be.
#[derive(Debug)]
pub struct Order<'a> {
    /// Never used before.
    pub id: u64,
    /// What for.
    pub task: Task,
    /// The code.
    pub bundle: &'a BundleRef,
    /// The module to import.
    pub module: Option<&'a str>,
    /// Its own folder, which does not exist yet.
    pub scratch: PathBuf,
    /// What it may use.
    pub limits: ForkLimits,
    /// Its walls.
    pub jail: &'a Jail,
    /// Folders with packages.
    pub paths: &'a [PathBuf],
}

/// The handler's ends of what a worker is connected by. All close-on-exec.
#[derive(Debug)]
pub struct Connection {
    /// The attempt socket.
    pub socket: UnixStream,
    /// What it prints.
    pub stdout: OwnedFd,
    /// What it prints as an error.
    pub stderr: OwnedFd,
    /// How it ends. Dropped when the zygote is gone.
    pub ended: oneshot::Receiver<Ended>,
}

#[derive(Debug)]
struct Known {
    ended: oneshot::Sender<Ended>,
    scratch: PathBuf,
}

struct Message {
    bytes: Vec<u8>,
    fds: Vec<OwnedFd>,
}

/// A running zygote. Dropping it ends it and everything below it.
#[derive(Debug)]
pub struct Zygote {
    outbox: mpsc::Sender<Message>,
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    control: OwnedFd,
    child: Mutex<Option<Child>>,
    known: Mutex<HashMap<u64, Known>>,
    phase: watch::Sender<Phase>,
    last_words: Mutex<VecDeque<String>>,
    runtime: tokio::runtime::Handle,
    forks: AtomicU64,
    kills: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Zygote {
    /// Starts one and returns at once; what goes wrong is its [`Phase`]. Workers may be asked for right away.
    ///
    /// # Errors
    /// When the handler has no descriptor or thread left, or the preload list is too long.
    pub fn start(
        python: &Python,
        engine_dir: &Path,
        preload: &[String],
        paths: &[PathBuf],
        runtime: &tokio::runtime::Handle,
    ) -> io::Result<Self> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let inner = Arc::new(Inner {
            control: ours,
            child: Mutex::new(None),
            known: Mutex::default(),
            phase: watch::Sender::new(Phase::Starting),
            last_words: Mutex::default(),
            runtime: runtime.clone(),
            forks: AtomicU64::new(0),
            kills: AtomicU64::new(0),
        });
        let (outbox, messages) = mpsc::channel();
        let hello = Request::Hello {
            version: VERSION,
            preload,
            preload_paths: &texts(paths)?,
        }
        .encode()
        .map_err(too_large)?;
        let _ = outbox.send(Message {
            bytes: hello,
            fds: Vec::new(),
        });

        let command = zygote_command(python, engine_dir, Stdio::from(theirs));
        let hearing = Arc::clone(&inner);
        std::thread::Builder::new()
            .name("weft-zygote-in".into())
            .spawn(move || hearing.live(command))?;
        let saying = Arc::clone(&inner);
        std::thread::Builder::new()
            .name("weft-zygote-out".into())
            .spawn(move || saying.say(&messages))?;
        Ok(Self { outbox, inner })
    }

    /// Asks for a worker. Whether there will be one is heard later.
    ///
    /// # Errors
    /// When descriptors run out, or the order does not fit into a message.
    pub fn fork(&self, order: &Order<'_>) -> io::Result<Connection> {
        let (dir, scratch) = (text(&order.bundle.dir)?, text(&order.scratch)?);
        let bytes = Request::Fork {
            id: order.id,
            task: order.task,
            bundle: RequestBundle {
                digest: &order.bundle.digest,
                dir,
            },
            module: order.module,
            scratch,
            limits: order.limits,
            jail: order.jail,
            paths: &texts(order.paths)?,
        }
        .encode()
        .map_err(too_large)?;
        let (socket, worker_socket) = UnixStream::pair()?;
        socket.set_nonblocking(true)?;
        let (stdout, worker_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, worker_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        let (sender, ended) = oneshot::channel();
        lock(&self.inner.known).insert(
            order.id,
            Known {
                ended: sender,
                scratch: order.scratch.clone(),
            },
        );
        self.inner.forks.fetch_add(1, Ordering::Relaxed);
        let fds = vec![OwnedFd::from(worker_socket), worker_stdout, worker_stderr];
        if self.outbox.send(Message { bytes, fds }).is_err() || self.is_dead() {
            lock(&self.inner.known).remove(&order.id);
        }
        Ok(Connection {
            socket,
            stdout,
            stderr,
            ended,
        })
    }

    /// Kills a worker and everything below it, unless it has ended.
    pub fn kill(&self, id: u64) {
        if let Ok(bytes) = (Request::Kill { id }).encode() {
            self.inner.kills.fetch_add(1, Ordering::Relaxed);
            let _ = self.outbox.send(Message { bytes, fds: Vec::new() });
        }
    }

    /// Ends it by force: for one that does not answer. Its workers die with it.
    pub fn terminate(&self, why: &str) {
        tracing::error!(why, "the zygote is killed");
        self.inner.remember(format!("it was killed: {why}"));
        self.inner.kill_child();
    }

    /// Ends it and everything below it, and waits for that; after `patience` by force.
    pub async fn shut_down(&self, patience: Duration) {
        let _ = rustix::net::shutdown(&self.inner.control, Shutdown::Write);
        let mut phase = self.inner.phase.subscribe();
        let dead = phase.wait_for(|phase| matches!(phase, Phase::Dead { .. }));
        if tokio::time::timeout(patience, dead).await.is_err() {
            self.inner.kill_child();
            let dead = phase.wait_for(|phase| matches!(phase, Phase::Dead { .. }));
            let _ = tokio::time::timeout(patience, dead).await;
        }
    }

    /// Where it is in its life.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.inner.phase.borrow().clone()
    }

    /// Whether it is gone.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        matches!(*self.inner.phase.borrow(), Phase::Dead { .. })
    }

    /// Its process id, while it lives.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        lock(&self.inner.child).as_ref().map(Child::id)
    }

    /// Workers asked for and kills asked for, so far.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (
            self.inner.forks.load(Ordering::Relaxed),
            self.inner.kills.load(Ordering::Relaxed),
        )
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.inner.control, Shutdown::Write);
    }
}

impl Inner {
    /// The hearing thread, from the start of the process to its end.
    fn live(self: &Arc<Self>, mut command: std::process::Command) {
        let mut was_ready = false;
        let reason = match command.spawn() {
            Ok(mut child) => {
                // The command holds the zygote's end of the control socket, which must be nowhere but there.
                drop(command);
                let stderr = child.stderr.take();
                *lock(&self.child) = Some(child);
                if let Some(stderr) = stderr {
                    let this = Arc::clone(self);
                    let _ = std::thread::Builder::new()
                        .name("weft-zygote-log".into())
                        .spawn(move || this.log(stderr));
                }
                self.hear(&mut was_ready)
            }
            Err(error) => format!("it can't be started: {error}"),
        };
        self.bury(&reason, was_ready);
    }

    fn hear(self: &Arc<Self>, was_ready: &mut bool) -> String {
        let mut buffer = vec![0; CONTROL_BYTES];
        loop {
            let length = match rustix::net::recv(&self.control, &mut buffer, RecvFlags::empty()) {
                Ok((0, _)) => return String::new(),
                Ok((length, _)) => length,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return format!("its control socket failed: {error}"),
            };
            match Answer::parse(&buffer[..length]) {
                Ok(Answer::Ready {
                    version: VERSION,
                    python,
                    sdk,
                    pid,
                }) => {
                    tracing::info!(pid, python, sdk, "the zygote is ready");
                    *was_ready = true;
                    self.phase.send_replace(Phase::Ready);
                }
                Ok(Answer::Ready { version, .. } | Answer::Refused { version, reason: _ }) if version != VERSION => {
                    return format!(
                        "it speaks version {version} of the runner protocol, and this is version {VERSION}"
                    );
                }
                Ok(Answer::Ready { .. }) => {}
                Ok(Answer::Refused { reason, .. }) => return reason,
                Ok(Answer::Forked { id, pid }) => tracing::trace!(id, pid, "forked"),
                Ok(Answer::ForkFailed { id: Some(id), error }) => self.ended(id, Ended::ForkFailed(error)),
                Ok(Answer::ForkFailed { id: None, error }) => return format!("it could not read a request: {error}"),
                Ok(Answer::Exited { id, exit }) => self.ended(id, Ended::Exited(exit)),
                Err(violation) => return violation.to_string(),
            }
        }
    }

    fn ended(&self, id: u64, ended: Ended) {
        let Some(known) = lock(&self.known).remove(&id) else {
            return;
        };
        let _ = known.ended.send(ended);
        self.clean(known.scratch);
    }

    /// Removes a scratch folder: most are empty, and the others may hold a million files.
    fn clean(&self, scratch: PathBuf) {
        match std::fs::remove_dir(&scratch) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => {
                self.runtime.spawn_blocking(move || {
                    if let Err(error) = super::remove::remove_tree(&scratch)
                        && error.kind() != io::ErrorKind::NotFound
                    {
                        tracing::debug!(path = %scratch.display(), %error, "a scratch folder stays until the next start");
                    }
                });
            }
        }
    }

    /// The zygote's end: nothing that it owed will come any more.
    fn bury(&self, reason: &str, was_ready: bool) {
        self.kill_child();
        let status = lock(&self.child).take().and_then(|mut child| child.wait().ok());
        let mut words: Vec<String> = lock(&self.last_words).drain(..).collect();
        if !reason.is_empty() {
            words.insert(0, reason.to_owned());
        }
        if words.is_empty() {
            words.push(status.map_or_else(|| "it ended".to_owned(), |status| format!("it ended with {status}")));
        }
        self.phase.send_replace(Phase::Dead {
            reason: words.join("; "),
            was_ready,
        });
        let orphans: Vec<Known> = lock(&self.known).drain().map(|(_, known)| known).collect();
        for known in orphans {
            let _ = known.ended.send(Ended::ZygoteGone);
            self.clean(known.scratch);
        }
    }

    fn kill_child(&self) {
        // Not reaped while it is in here, so its number can't have been given to anybody else.
        if let Some(child) = lock(&self.child).as_mut() {
            let _ = child.kill();
        }
    }

    /// The saying thread.
    fn say(&self, messages: &mpsc::Receiver<Message>) {
        while let Ok(message) = messages.recv() {
            if let Err(error) = self.send(&message) {
                tracing::debug!(%error, "the zygote does not listen any more");
                break;
            }
        }
        let _ = rustix::net::shutdown(&self.control, Shutdown::Write);
    }

    fn send(&self, message: &Message) -> rustix::io::Result<()> {
        let fds: Vec<_> = message.fds.iter().map(AsFd::as_fd).collect();
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() {
                ancillary.push(SendAncillaryMessage::ScmRights(&fds));
            }
            let bytes = [IoSlice::new(&message.bytes)];
            match rustix::net::sendmsg(&self.control, &bytes, &mut ancillary, SendFlags::NOSIGNAL) {
                Err(rustix::io::Errno::INTR) => {}
                other => return other.map(drop),
            }
        }
    }

    fn remember(&self, line: String) {
        let mut words = lock(&self.last_words);
        if words.len() == LAST_WORDS {
            words.pop_front();
        }
        words.push_back(line);
    }

    /// Passes the zygote's stderr on, in lines that are not too long.
    fn log(&self, mut stderr: impl Read) {
        let mut line = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stderr.read(&mut buffer) {
            for byte in &buffer[..length] {
                if *byte != b'\n' && line.len() < LOG_LINE_BYTES {
                    line.push(*byte);
                    continue;
                }
                let text = String::from_utf8_lossy(&line).into_owned();
                if !text.trim().is_empty() {
                    tracing::warn!(target: "weft::zygote", "{text}");
                    self.remember(text);
                }
                line.clear();
            }
        }
    }
}

fn too_large(bytes: usize) -> io::Error {
    io::Error::other(format!("a control message of {bytes} bytes is over {CONTROL_BYTES}"))
}

fn texts(paths: &[PathBuf]) -> io::Result<Vec<&str>> {
    paths.iter().map(|path| text(path)).collect()
}

fn text(path: &Path) -> io::Result<&str> {
    path.to_str().ok_or_else(|| not_utf8(path))
}

fn not_utf8(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("the path {} is not UTF-8", path.display()),
    )
}
