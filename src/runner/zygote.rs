//! One zygote: starting it, asking it for workers, hearing how they end. What workers are for is not its business.
//!
//! Two threads of its own, because it needs nothing that async gives: one starts the process, and stays, and hears; the other
//! says, so that a zygote that does not listen stops nobody else.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use tokio::sync::{oneshot, watch};

use super::BundleRef;
use super::cgroup::Group;
use super::environment::{posture, zygote_command};
use super::jail::Jail;
use super::jail::posture::Posture;
use super::jail::setup::Setup;
use super::limits::ForkLimits;
use super::process::Process;
use super::protocol::{Answer, CONTROL_BYTES, Exit, Request, RequestBundle, Task, VERSION};
use super::python::Python;

/// What is kept of the zygote's stderr to explain its end.
const LAST_WORDS: usize = 5;
/// How long the end of its stderr is waited for.
const LAST_WORDS_PATIENCE: Duration = Duration::from_secs(1);
const LOG_LINE_BYTES: usize = 4 << 10;
/// What the zygote and its workers give up of the processors when the engine wants them, as of `nice`.
const NICE: i32 = 10;
/// How often it is looked whether something is owed.
const TICK: Duration = Duration::from_secs(1);
/// For how many ticks in a row nothing may be heard while something is owed: of a zygote that is ready, and of one that is not,
/// which finds out what the platform offers and imports what it was told to. Counted, not timed: a handler that was stopped
/// itself has no reason to blame others.
const PATIENCE: u32 = 10;
const PATIENCE_AT_START: u32 = 60;

/// Where a zygote is in its life.
#[derive(Debug, Clone)]
pub enum Phase {
    /// Started, and not heard of.
    Starting,
    /// It speaks our version, and has found out what keeps its workers apart.
    Ready(Arc<Posture>),
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
    /// How it reaches the network that its walls let it have.
    pub way_out: WayOut<'a>,
    /// The workspace's folder as its developer knows it, where a debugger is to be waited for.
    pub debug: Option<&'a Path>,
}

/// How a worker reaches the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WayOut<'a> {
    /// Not at all, or by nobody's leave.
    None,
    /// Its connections are asked for at a descriptor that it hands over.
    Asked {
        /// Whether it may have `AF_UNIX` connections of its own: with mount and network namespaces of its own only.
        local: bool,
    },
    /// Through a proxy at this address.
    Proxy(&'a str),
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
    /// Where it hands over what its connections are asked for at, with [`WayOut::Asked`].
    pub listener: Option<UnixStream>,
    /// Where a debugger's client speaks with it, when it is to be debugged.
    pub debug: Option<UnixStream>,
    /// The process, once it is there.
    pub process: Arc<OnceLock<Process>>,
    /// How it ends. Dropped when the zygote is gone.
    pub ended: oneshot::Receiver<Ended>,
    /// Its process id as the handler sees it; 0 until it is known.
    pub pid: Arc<AtomicU32>,
}

#[derive(Debug)]
struct Known {
    ended: oneshot::Sender<Ended>,
    pid: Arc<AtomicU32>,
    process: Arc<OnceLock<Process>>,
    scratch: PathBuf,
    /// Whether an answer is expected: to `fork`, or to `kill`.
    is_owed: bool,
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
    group: Option<Arc<Group>>,
    grouped: AtomicBool,
    /// Messages that were heard.
    heard: AtomicU64,
    /// Layers that are not to be entered.
    off: Vec<String>,
}

/// Since when nothing was heard.
#[derive(Debug, Default)]
struct Silence {
    heard: u64,
    ticks: u32,
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
        group: Option<Arc<Group>>,
        jail: &Setup,
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
            group,
            grouped: AtomicBool::new(false),
            heard: AtomicU64::new(0),
            off: jail.off.clone(),
        });
        let (outbox, messages) = mpsc::channel();
        let hello = Request::Hello {
            version: VERSION,
            preload,
            preload_paths: &texts(paths)?,
            jail,
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
            proxy: match order.way_out {
                WayOut::Proxy(address) => Some(address),
                WayOut::None | WayOut::Asked { .. } => None,
            },
            debug: order.debug.map(text).transpose()?,
        }
        .encode()
        .map_err(too_large)?;
        let (socket, worker_socket) = UnixStream::pair()?;
        socket.set_nonblocking(true)?;
        let (stdout, worker_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, worker_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        let mut fds = vec![OwnedFd::from(worker_socket), worker_stdout, worker_stderr];
        let mut listener = None;
        if matches!(order.way_out, WayOut::Asked { .. }) {
            let (ours, theirs) = UnixStream::pair()?;
            listener = Some(ours);
            fds.push(theirs.into());
        }
        let mut debug = None;
        if order.debug.is_some() {
            let (ours, theirs) = UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            debug = Some(ours);
            fds.push(theirs.into());
        }
        let (sender, ended) = oneshot::channel();
        let pid = Arc::new(AtomicU32::new(0));
        let process = Arc::default();
        lock(&self.inner.known).insert(
            order.id,
            Known {
                ended: sender,
                pid: Arc::clone(&pid),
                process: Arc::clone(&process),
                scratch: order.scratch.clone(),
                is_owed: true,
            },
        );
        self.inner.forks.fetch_add(1, Ordering::Relaxed);
        if self.outbox.send(Message { bytes, fds }).is_err() || self.is_dead() {
            lock(&self.inner.known).remove(&order.id);
        }
        Ok(Connection {
            socket,
            stdout,
            stderr,
            listener,
            debug,
            process,
            ended,
            pid,
        })
    }

    /// Kills a worker and everything below it, unless it has ended.
    pub fn kill(&self, id: u64) {
        if let Ok(bytes) = (Request::Kill { id }).encode() {
            self.inner.kills.fetch_add(1, Ordering::Relaxed);
            if let Some(known) = lock(&self.inner.known).get_mut(&id) {
                known.is_owed = true;
            }
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

    /// What keeps its workers apart, once it is ready; none when it is gone instead.
    pub async fn posture(&self) -> Option<Arc<Posture>> {
        let mut phase = self.inner.phase.subscribe();
        match &*phase.wait_for(|phase| !matches!(phase, Phase::Starting)).await.ok()? {
            Phase::Ready(posture) => Some(Arc::clone(posture)),
            Phase::Starting | Phase::Dead { .. } => None,
        }
    }

    /// The same, as far as it is known.
    #[must_use]
    pub fn posture_so_far(&self) -> Option<Arc<Posture>> {
        match &*self.inner.phase.borrow() {
            Phase::Ready(posture) => Some(Arc::clone(posture)),
            Phase::Starting | Phase::Dead { .. } => None,
        }
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

    /// The control group that it is in, as the kernel has confirmed.
    #[must_use]
    pub fn group(&self) -> Option<&Group> {
        let grouped = self.inner.grouped.load(Ordering::Acquire);
        self.inner.group.as_deref().filter(|_| grouped)
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

/// Lets the engine go first where both want a processor: what it has to do is short, and others wait for it.
fn stand_back(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Err(error) = rustix::process::setpriority_process(pid, NICE) {
        tracing::debug!(%error, "the zygote runs at the engine's own priority");
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
        let (logging, logged) = mpsc::channel::<()>();
        let mut was_ready = false;
        let reason = match command.spawn() {
            Ok(mut child) => {
                // The command holds the zygote's end of the control socket, which must be nowhere but there.
                drop(command);
                // Before it has forked anything: Python itself is not up yet.
                stand_back(child.id());
                if let Some(group) = &self.group {
                    match group.add(child.id()) {
                        Ok(()) => self.grouped.store(group.holds(child.id()), Ordering::Release),
                        Err(error) => tracing::warn!(%error, "the zygote can't be put into its control group"),
                    }
                }
                let stderr = child.stderr.take();
                *lock(&self.child) = Some(child);
                if let Some(stderr) = stderr {
                    let this = Arc::clone(self);
                    let _ = std::thread::Builder::new()
                        .name("weft-zygote-log".into())
                        .spawn(move || {
                            let _ends = logging;
                            this.log(stderr);
                        });
                }
                self.hear(&mut was_ready)
            }
            Err(error) => format!("it can't be started: {error}"),
        };
        self.bury(&reason, was_ready, &logged);
    }

    fn hear(self: &Arc<Self>, was_ready: &mut bool) -> String {
        let mut buffer = vec![0; CONTROL_BYTES];
        loop {
            let (length, fd) = match self.receive(&mut buffer) {
                Ok((0, _)) => return String::new(),
                Ok(received) => received,
                // It ended with something unread, which is told once and before what it has still said: why it ended.
                Err(rustix::io::Errno::INTR | rustix::io::Errno::CONNRESET) => continue,
                Err(error) => return format!("its control socket failed: {error}"),
            };
            self.heard.fetch_add(1, Ordering::Relaxed);
            match Answer::parse(&buffer[..length]) {
                Ok(Answer::Ready {
                    version: VERSION,
                    python,
                    sdk,
                    pid,
                    posture: said,
                }) => {
                    let mut found = said.unwrap_or_else(|| Posture::unsaid(posture()));
                    found.switched_off(&self.off);
                    if cfg!(target_os = "linux") {
                        found.adds("memory_meter");
                    }
                    if self.grouped.load(Ordering::Acquire) {
                        found.adds("cgroup");
                    } else {
                        found.lacks("cgroup", "no control group can be made here, or `WEFT_CGROUP` is off");
                    }
                    tracing::info!(pid, python, sdk, tier = found.tier.as_str(), "the zygote is ready");
                    *was_ready = true;
                    self.phase.send_replace(Phase::Ready(Arc::new(found)));
                }
                Ok(Answer::Ready { version, .. } | Answer::Refused { version, reason: _ }) if version != VERSION => {
                    return format!(
                        "it speaks version {version} of the runner protocol, and this is version {VERSION}"
                    );
                }
                Ok(Answer::Ready { .. }) => {}
                Ok(Answer::Refused { reason, .. }) => return reason,
                Ok(Answer::Forked { id, pid }) => self.forked(id, pid, fd),
                Ok(Answer::ForkFailed { id: Some(id), error }) => self.ended(id, Ended::ForkFailed(error)),
                Ok(Answer::ForkFailed { id: None, error }) => return format!("it could not read a request: {error}"),
                Ok(Answer::Exited { id, exit }) => self.ended(id, Ended::Exited(exit)),
                Err(violation) => return violation.to_string(),
            }
        }
    }

    /// One datagram, and the descriptor that came along.
    fn receive(&self, buffer: &mut [u8]) -> rustix::io::Result<(usize, Option<OwnedFd>)> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [IoSliceMut::new(buffer)];
        let message = rustix::net::recvmsg(&self.control, &mut bytes, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        if message.flags.contains(ReturnFlags::TRUNC) {
            return Err(rustix::io::Errno::MSGSIZE);
        }
        let fd = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        Ok((message.bytes, fd))
    }

    fn forked(&self, id: u64, pid: u32, fd: Option<OwnedFd>) {
        let shares_numbers = matches!(&*self.phase.borrow(), Phase::Ready(posture) if !posture.has("pid_namespace"));
        if let Some(known) = lock(&self.known).get_mut(&id) {
            known.is_owed = false;
            let process = Process::new(fd, shares_numbers.then_some(pid));
            tracing::trace!(id, pid = process.pid, "forked");
            known.pid.store(process.pid.unwrap_or(0), Ordering::Release);
            let _ = known.process.set(process);
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
    fn bury(&self, reason: &str, was_ready: bool, logged: &mpsc::Receiver<()>) {
        self.kill_child();
        let status = lock(&self.child).take().and_then(|mut child| child.wait().ok());
        // Nothing is ever said: the other end is dropped when its last words have been read.
        let _ = logged.recv_timeout(LAST_WORDS_PATIENCE);
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
        let mut silence = Silence::default();
        loop {
            let message = if self.is_owing() {
                match messages.recv_timeout(TICK) {
                    Ok(message) => message,
                    Err(mpsc::RecvTimeoutError::Timeout) => {
                        self.tick(&mut silence);
                        continue;
                    }
                    Err(mpsc::RecvTimeoutError::Disconnected) => break,
                }
            } else {
                silence.ticks = 0;
                match messages.recv() {
                    Ok(message) => message,
                    Err(mpsc::RecvError) => break,
                }
            };
            if let Err(error) = self.send(&message, &mut silence) {
                tracing::debug!(%error, "the zygote does not listen any more");
                break;
            }
        }
        let _ = rustix::net::shutdown(&self.control, Shutdown::Write);
    }

    /// Whether an answer is expected.
    fn is_owing(&self) -> bool {
        matches!(*self.phase.borrow(), Phase::Starting) || lock(&self.known).values().any(|known| known.is_owed)
    }

    /// A while has passed. Ends a zygote that owes an answer and has said nothing for too long: one that is stopped would keep
    /// every attempt of this process waiting.
    fn tick(&self, silence: &mut Silence) {
        let heard = self.heard.load(Ordering::Relaxed);
        if heard != silence.heard || !self.is_owing() {
            *silence = Silence { heard, ticks: 0 };
            return;
        }
        silence.ticks += 1;
        let patience = match *self.phase.borrow() {
            Phase::Starting => PATIENCE_AT_START,
            Phase::Ready(_) => PATIENCE,
            Phase::Dead { .. } => return,
        };
        if silence.ticks == patience {
            let why = format!("it did not answer for {patience} s");
            tracing::error!(why, "the zygote is killed");
            self.remember(format!("it was killed: {why}"));
            self.kill_child();
        }
    }

    fn send(&self, message: &Message, silence: &mut Silence) -> rustix::io::Result<()> {
        let fds: Vec<_> = message.fds.iter().map(AsFd::as_fd).collect();
        loop {
            // Not asleep in the call itself, where a zygote that doesn't read would never be missed.
            let mut ready = [PollFd::new(&self.control, PollFlags::OUT)];
            let timeout = Timespec::try_from(TICK).ok();
            match poll(&mut ready, timeout.as_ref()) {
                Ok(0) => {
                    self.tick(silence);
                    continue;
                }
                Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error),
            }
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() {
                ancillary.push(SendAncillaryMessage::ScmRights(&fds));
            }
            let bytes = [IoSlice::new(&message.bytes)];
            match rustix::net::sendmsg(
                &self.control,
                &bytes,
                &mut ancillary,
                SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
            ) {
                Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => {}
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

/// Callers are told of it, who are not to learn where things lie here.
fn not_utf8(path: &Path) -> io::Error {
    tracing::error!(path = %path.display(), "a path is not UTF-8");
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "the path of a folder of this instance is not UTF-8",
    )
}
