//! One forked worker: wait until it is ready, feed it, watch its deadline, collect what it says, see it off.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use super::cgroup::Group;
use super::jail::Jail;
use super::meter::{Exceeded, Meter, Subject, Watch};
use super::outcome;
use super::output::{Allowance, Capture, STDERR, STDOUT};
use super::process::Process;
use super::protocol::{FrameBuffer, HandlerFrame, OPEN_CALLS, Resume, Violation, WorkerFrame, json_bytes};
use super::zygote::{Connection, Ended, Order, WayOut, Zygote};
use super::{AttemptSpec, LogLine, Refusal, WorkerMessage};
use crate::clock::Clock;
use crate::domain::{Limits, Outcome, StepError};
use crate::egress::Gate;

/// The `nice` of an attempt that leaves the processors to others.
const LEAST_URGENT: u8 = 19;
/// How much is read at once.
const CHUNK: usize = 16 << 10;
/// The most that a pipe can hold (`/proc/sys/fs/pipe-max-size` of an unprivileged process).
const PIPE_BYTES: usize = 1 << 20;
/// Messages that may wait for the consumer before no more output and no more frames are read.
const WAITING_MESSAGES: usize = 64;
/// How long a worker without anything left to do may take to end.
const LINGER: Duration = Duration::from_secs(2);
/// How large the description of a bundle may be.
const DESCRIBED_BYTES: usize = 64 << 20;
/// How long describing one file may take.
const FILE_PATIENCE: Duration = Duration::from_secs(10);
/// How long the zygote may take to report the end of a killed worker.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// How long the consumer of messages may leave one untouched after the attempt's end.
const CONSUMER_PATIENCE: Duration = Duration::from_secs(5);

/// What the function's module printed while it was imported is kept within this.
const IMPORT_ALLOWANCE: Allowance = Allowance {
    bytes: 64 << 10,
    lines: 1_000,
};

/// A worker process, seen from here. Dropping it before its end kills it.
#[derive(Debug)]
pub struct Worker {
    id: u64,
    zygote: Arc<Zygote>,
    clock: Arc<dyn Clock>,
    wire: Wire,
    ended: Option<Ended>,
    ending: oneshot::Receiver<Ended>,
    released: bool,
    watch: Watch,
    process: Arc<OnceLock<Process>>,
    /// Where its connections come through, when it may have any.
    pub gate: Option<Gate>,
    /// Where a debugger's client speaks with it, when it is to be debugged.
    pub debug: Option<UnixStream>,
    /// Importing the module, in milliseconds, as the worker says.
    pub import_ms: f64,
}

/// How bringing a worker up went.
#[derive(Debug)]
pub enum BroughtUp {
    /// It waits for its attempt.
    Ready(Box<Worker>),
    /// Its module can't be imported, or it ended before it was ready; and what it had printed.
    Failed(Outcome, Vec<LogLine>),
    /// There is no worker, for a reason that is nobody's code.
    No(String),
}

/// What an attempt ended with; the rest of the report is the pool's.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub outcome: Outcome,
    /// `ctx.variables`.
    pub variables: Value,
    /// The user's function, in milliseconds.
    pub user_ms: f64,
    /// Bytes printed.
    pub output_bytes: u64,
    /// Whether some were dropped.
    pub output_truncated: bool,
    /// Peak memory, when known.
    pub max_rss_kib: Option<u64>,
}

impl Finished {
    /// An end without anything else.
    #[must_use]
    pub fn with(outcome: Outcome) -> Self {
        Self {
            outcome,
            variables: Value::Object(serde_json::Map::new()),
            user_ms: 0.0,
            output_bytes: 0,
            output_truncated: false,
            max_rss_kib: None,
        }
    }
}

impl Worker {
    /// Has one forked.
    ///
    /// # Errors
    /// When descriptors run out or the order can't be said.
    pub fn fork(zygote: Arc<Zygote>, clock: Arc<dyn Clock>, meter: &Meter, order: &Order<'_>) -> io::Result<Self> {
        let Connection {
            socket,
            stdout,
            stderr,
            listener,
            debug,
            process,
            ended,
            pid,
        } = zygote.fork(order)?;
        let (killer, id) = (Arc::downgrade(&zygote), order.id);
        let watch = meter.watch(Subject {
            pid,
            limits: order.limits,
            folder: Some(order.scratch.clone()),
            kill: Box::new(move || {
                if let Some(zygote) = killer.upgrade() {
                    zygote.kill(id);
                }
            }),
        });
        let local = matches!(order.way_out, WayOut::Asked { local: true });
        let gate = listener.map(|listener| Gate::new(listener, local)).transpose()?;
        let wire = Wire {
            socket: UnixStream::from_std(socket)?,
            open: true,
            frames: FrameBuffer::new(order.limits.frame_bytes),
            out: BytesMut::new(),
            streams: [
                Some(pipe::Receiver::from_owned_fd(stdout)?),
                Some(pipe::Receiver::from_owned_fd(stderr)?),
            ],
            capture: Capture::new(IMPORT_ALLOWANCE),
            lines: VecDeque::new(),
        };
        Ok(Self {
            id: order.id,
            zygote,
            clock,
            wire,
            ended: None,
            ending: ended,
            released: false,
            watch,
            process,
            gate,
            debug: debug.map(UnixStream::from_std).transpose()?,
            import_ms: 0.0,
        })
    }

    /// Waits until it is ready for its attempt.
    pub async fn bring_up(mut self, module: &str, limits: &Limits, patience: Duration) -> BroughtUp {
        let deadline = tokio::time::sleep(patience);
        tokio::pin!(deadline);
        let outcome = loop {
            let event = tokio::select! {
                biased;
                () = &mut deadline => {
                    self.kill_and_wait().await;
                    if self.ended.is_none() {
                        self.zygote.terminate("it reported neither a worker nor its end");
                        return BroughtUp::No("the zygote did not answer".into());
                    }
                    break outcome::of_import_limit(module, patience);
                }
                exceeded = self.watch.exceeded() => {
                    self.kill_and_wait().await;
                    break outcome::of_meter(exceeded, limits);
                }
                event = self.wire.next(&*self.clock, true, true) => event,
            };
            let frame = match event {
                Event::Frame(bytes) => WorkerFrame::parse(&bytes),
                Event::Malformed(violation) => Err(violation),
                Event::Flushed | Event::Output => continue,
                Event::Closed => {
                    self.wait_or_kill().await;
                    match &self.ended {
                        Some(Ended::Exited(exit)) => break outcome::of_exit(exit, limits),
                        Some(Ended::ForkFailed(error)) => {
                            return BroughtUp::No(format!("it could not be forked: {error}"));
                        }
                        Some(Ended::ZygoteGone) => return BroughtUp::No("the zygote is gone".into()),
                        None if self.process.get().is_none() => {
                            self.zygote.terminate("it reported neither a worker nor its end");
                            return BroughtUp::No("the zygote did not answer".into());
                        }
                        None => break outcome::of_violation(&Violation("it closed its socket and went on".into())),
                    }
                }
            };
            match frame {
                Ok(WorkerFrame::Ready { import_ms, .. }) => {
                    self.import_ms = import_ms;
                    self.watch.set_busy(false);
                    return BroughtUp::Ready(Box::new(self));
                }
                Ok(WorkerFrame::Failed { error, .. }) => {
                    break Outcome::Failed {
                        error: outcome::with_limit_named(error, limits),
                    };
                }
                Ok(frame) => break outcome::of_violation(&out_of_order(&frame)),
                Err(violation) => break outcome::of_violation(&violation),
            }
        };
        let lines = self.drain_lines();
        if matches!(&outcome, Outcome::Failed { error } if error.kind == "isolation_failed") {
            for line in &lines {
                tracing::error!(target: "weft::worker", "{}", line.message);
            }
        }
        BroughtUp::Failed(outcome, lines)
    }

    /// What it comes from.
    #[must_use]
    pub fn zygote(&self) -> Arc<Zygote> {
        Arc::clone(&self.zygote)
    }

    /// What keeps it apart, given its walls.
    #[must_use]
    pub fn posture(&self, jail: &Jail) -> Arc<Vec<&'static str>> {
        let posture = self.zygote.posture_so_far();
        posture.map(|posture| posture.of(jail)).unwrap_or_default()
    }

    fn drain_lines(&mut self) -> Vec<LogLine> {
        self.wire.drain_streams(&*self.clock);
        self.wire.capture.finish(self.clock.now(), &mut self.wire.lines);
        self.wire.lines.drain(..).collect()
    }

    /// Whether it has ended while it waited for its attempt.
    pub fn is_gone(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = match self.ending.try_recv() {
                Ok(ended) => Some(ended),
                Err(oneshot::error::TryRecvError::Empty) => None,
                Err(oneshot::error::TryRecvError::Closed) => Some(Ended::ZygoteGone),
            };
        }
        self.ended.is_some()
    }

    /// Its end, when it comes.
    async fn end(&mut self) {
        if self.ended.is_none() {
            self.ended = Some((&mut self.ending).await.unwrap_or(Ended::ZygoteGone));
        }
    }

    async fn wait_or_kill(&mut self) {
        if tokio::time::timeout(LINGER, self.end()).await.is_err() {
            self.kill_and_wait().await;
        }
    }

    /// Kills it and everything below it: itself at once, the rest through the zygote, or with its namespace.
    fn kill(&self) {
        if let Some(process) = self.process.get() {
            process.kill();
        }
        self.zygote.kill(self.id);
    }

    async fn kill_and_wait(&mut self) {
        self.kill();
        if tokio::time::timeout(KILL_PATIENCE, self.end()).await.is_err() {
            tracing::error!(id = self.id, "a killed worker was not reported as ended");
        }
    }

    /// Lets it end by itself, and kills it when it doesn't.
    fn linger(mut self) {
        if self.is_gone() {
            return;
        }
        self.released = true;
        let (_, replacement) = oneshot::channel();
        let ending = std::mem::replace(&mut self.ending, replacement);
        let (zygote, id) = (Arc::clone(&self.zygote), self.id);
        // It is held to its limits until it is gone.
        let watched = self.watch.life();
        tokio::spawn(async move {
            if tokio::time::timeout(LINGER, ending).await.is_err() {
                zygote.kill(id);
            }
            drop(watched);
        });
    }

    /// Runs the attempt to its end. `on_given` is called once, when the worker has all that it needs.
    ///
    /// # Errors
    /// Gives the reason back when the worker turned out to be gone before it was given anything.
    pub async fn run(
        mut self,
        spec: &AttemptSpec,
        cancel: &CancellationToken,
        on_given: impl FnOnce() + Send,
    ) -> Result<Finished, Ended> {
        if let Some(source) = &spec.source {
            let frame = HandlerFrame::Source {
                name: &source.name,
                version: &source.version,
                digest: &source.digest,
                code: &source.code,
            };
            match frame.encode(spec.limits.frame_bytes) {
                Ok(bytes) => self.wire.out.extend_from_slice(&bytes),
                Err(bytes) => {
                    let text = format!(
                        "the code is {bytes} bytes of JSON; the limit is {} bytes (`frame_bytes`)",
                        spec.limits.frame_bytes
                    );
                    let error = StepError::new("CodeTooLarge", text);
                    return Ok(Finished::with(Outcome::Failed { error }));
                }
            }
        }
        let frame = HandlerFrame::Attempt {
            entry: &spec.entry,
            arguments: &spec.arguments,
            context: &spec.context,
            nice: spec.is_nice.then_some(LEAST_URGENT),
        };
        match frame.encode(spec.limits.frame_bytes) {
            Ok(bytes) => self.wire.out.extend_from_slice(&bytes),
            Err(bytes) => {
                let text = format!(
                    "the arguments and the context are {bytes} bytes of JSON; the limit is {} bytes (`frame_bytes`)",
                    spec.limits.frame_bytes
                );
                let error = StepError::new("ArgumentsTooLarge", text);
                return Ok(Finished::with(Outcome::Failed { error }));
            }
        }
        self.wire.capture.allow(Allowance {
            bytes: spec.limits.output_bytes,
            lines: spec.limits.log_lines,
        });
        self.watch.set_busy(true);
        let kills_before = self.zygote.group().map(Group::memory_kills);
        let mut attempt = Attempt {
            worker: &mut self,
            spec,
            given: false,
            messages: VecDeque::new(),
            replies: FuturesUnordered::new(),
            calls: 0,
            last: None,
            broken: false,
            stage: Stage::Running,
            timer: Box::pin(tokio::time::sleep(spec.limits.wall())),
        };
        attempt.drive(cancel, on_given).await;
        let given = attempt.given;
        let last = attempt.last.take();
        if !given && last.is_none() {
            return Err(self.ended.clone().unwrap_or(Ended::ZygoteGone));
        }
        let (outcome, user_ms, variables) = match last {
            Some(Last {
                outcome,
                user_ms,
                variables,
            }) => (outcome, user_ms, variables),
            None => {
                let outcome = match &self.ended {
                    Some(Ended::Exited(exit)) if exit.code == Some(0) && !self.wire.frames.is_empty() => {
                        outcome::of_violation(&Violation("its connection ended within a frame".into()))
                    }
                    Some(Ended::Exited(exit)) => match self.zygote.group() {
                        Some(group) if exit.was_killed() && Some(group.memory_kills()) > kills_before => {
                            outcome::of_shared_memory(group.bounds().memory_bytes)
                        }
                        _ => outcome::of_exit(exit, &spec.limits),
                    },
                    Some(Ended::ForkFailed(error)) => outcome::of_lost_zygote(error),
                    Some(Ended::ZygoteGone) | None => outcome::of_lost_zygote("it ended"),
                };
                (outcome, 0.0, Value::Object(serde_json::Map::new()))
            }
        };
        let max_rss_kib = match &self.ended {
            Some(Ended::Exited(exit)) => exit.max_rss_kib,
            _ => None,
        };
        let finished = Finished {
            outcome,
            variables,
            user_ms,
            output_bytes: self.wire.capture.seen(),
            output_truncated: self.wire.capture.truncated(),
            max_rss_kib,
        };
        self.linger();
        Ok(finished)
    }

    /// Has the bundle described: every `described` frame, then the count and the time.
    ///
    /// # Errors
    /// How it ended instead, with the frames until then.
    pub async fn describe(
        mut self,
        root_name: &str,
        resume: Option<&Resume>,
        limits: &Limits,
    ) -> Result<Description, (Vec<Value>, Outcome)> {
        let mut modules = Vec::new();
        let before = resume.map_or(0, |resume| resume.described);
        let mut described = 0;
        match (HandlerFrame::Describe { root_name, resume }).encode(limits.frame_bytes) {
            Ok(bytes) => self.wire.out.extend_from_slice(&bytes),
            Err(_) => {
                return Err((
                    modules,
                    outcome::of_violation(&Violation("the root's name is too long".into())),
                ));
            }
        }
        let mut file_until = Instant::now() + FILE_PATIENCE;
        loop {
            let event = tokio::select! {
                biased;
                exceeded = self.watch.exceeded() => return Err((modules, outcome::of_meter(exceeded, limits))),
                event = tokio::time::timeout_at(file_until, self.wire.next(&*self.clock, true, true)) => event,
            };
            let Ok(event) = event else {
                self.kill_and_wait().await;
                return Err((modules, outcome::of_import_limit("the file", FILE_PATIENCE)));
            };
            let frame = match event {
                Event::Frame(bytes) => {
                    described += bytes.len();
                    if described > DESCRIBED_BYTES {
                        let text = format!("the description is over {DESCRIBED_BYTES} bytes");
                        return Err((modules, outcome::of_violation(&Violation(text))));
                    }
                    WorkerFrame::parse(&bytes)
                }
                Event::Malformed(violation) => Err(violation),
                Event::Flushed | Event::Output => {
                    self.wire.lines.clear();
                    continue;
                }
                Event::Closed => {
                    self.wait_or_kill().await;
                    let outcome = match &self.ended {
                        Some(Ended::Exited(exit)) => outcome::of_exit(exit, limits),
                        _ => outcome::of_lost_zygote("it ended"),
                    };
                    return Err((modules, outcome));
                }
            };
            match frame {
                Ok(WorkerFrame::Described(module)) => {
                    modules.push(module);
                    file_until = Instant::now() + FILE_PATIENCE;
                }
                // A file that says so while it is imported would hide the others.
                Ok(WorkerFrame::DescribedAll { files, .. }) if files != (before + modules.len()) as u64 => {
                    let text = format!("{} of {files} files were described", before + modules.len());
                    return Err((modules, outcome::of_violation(&Violation(text))));
                }
                Ok(WorkerFrame::DescribedAll { files, ms }) => {
                    self.linger();
                    return Ok(Description { modules, files, ms });
                }
                Ok(WorkerFrame::Failed { error, .. }) => {
                    self.linger();
                    return Err((
                        modules,
                        Outcome::Failed {
                            error: outcome::with_limit_named(error, limits),
                        },
                    ));
                }
                // What a module logs or asks for while it is imported has nobody to go to.
                Ok(WorkerFrame::Log { .. } | WorkerFrame::Checkpoint { .. }) => {}
                Ok(frame) => return Err((modules, outcome::of_violation(&out_of_order(&frame)))),
                Err(violation) => return Err((modules, outcome::of_violation(&violation))),
            }
        }
    }
}

/// What a `describe` worker found.
#[derive(Debug)]
pub struct Description {
    /// One per file.
    pub modules: Vec<Value>,
    /// Files looked at.
    pub files: u64,
    /// Milliseconds.
    pub ms: f64,
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !self.released && !self.is_gone() {
            self.kill();
        }
    }
}

fn out_of_order(frame: &WorkerFrame) -> Violation {
    Violation(format!("a frame `{}` was out of order", frame.kind()))
}

fn after_the_last() -> Violation {
    Violation("something came after the last frame".into())
}

/// What decided the attempt.
#[derive(Debug)]
struct Last {
    outcome: Outcome,
    user_ms: f64,
    variables: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Frames are read; the timer is the wall deadline.
    Running,
    /// The socket was closed without a last frame; the process is expected to end before the timer.
    Leaving,
    /// Killed; its end is expected before the timer.
    Killed,
    /// Nothing more will come.
    Over,
}

type Reply = Pin<Box<dyn Future<Output = (u64, Result<Value, Refusal>)> + Send>>;

struct Attempt<'a> {
    worker: &'a mut Worker,
    spec: &'a AttemptSpec,
    given: bool,
    messages: VecDeque<WorkerMessage>,
    replies: FuturesUnordered<Reply>,
    calls: u64,
    last: Option<Last>,
    /// It has sent what it must not send.
    broken: bool,
    stage: Stage,
    timer: Pin<Box<Sleep>>,
}

impl Attempt<'_> {
    async fn drive(&mut self, cancel: &CancellationToken, on_given: impl FnOnce() + Send) {
        let mut on_given = Some(on_given);
        while self.stage != Stage::Over {
            self.take_lines();
            let room = self.messages.len() < WAITING_MESSAGES;
            // A worker that asks and does not read its answers is not read either.
            let unread = self.worker.wire.out.len() as u64 > self.spec.limits.frame_bytes;
            let frames = room && !(unread && self.given) && self.stage == Stage::Running;
            let happened = tokio::select! {
                biased;
                () = self.timer.as_mut() => Happened::Time,
                () = cancel.cancelled(), if matches!(self.stage, Stage::Running | Stage::Leaving) => Happened::Cancel,
                exceeded = self.worker.watch.exceeded(), if matches!(self.stage, Stage::Running | Stage::Leaving) => {
                    Happened::Exceeded(exceeded)
                }
                Some((id, reply)) = self.replies.next(), if !self.replies.is_empty() => Happened::Reply(id, reply),
                permit = self.spec.messages.reserve(), if !self.messages.is_empty() => {
                    match (permit, self.messages.pop_front()) {
                        (Ok(permit), Some(message)) => permit.send(message),
                        // Nobody listens: a dropped call is answered `unavailable`.
                        _ => self.messages.clear(),
                    }
                    continue;
                }
                event = self.worker.wire.next(&*self.worker.clock, frames, room), if self.worker.wire.has_more(frames) => {
                    Happened::Event(event)
                }
                ended = &mut self.worker.ending, if self.worker.ended.is_none() => {
                    Happened::End(ended.unwrap_or(Ended::ZygoteGone))
                }
            };
            match happened {
                Happened::Time => self.time_is_up(),
                Happened::Cancel => self.kill(Outcome::Cancelled),
                Happened::Exceeded(exceeded) => self.kill(outcome::of_meter(exceeded, &self.spec.limits)),
                Happened::Reply(id, reply) => self.answer(id, reply),
                Happened::Event(Event::Output) => {}
                Happened::Event(Event::Flushed) => {
                    self.given = true;
                    if let Some(on_given) = on_given.take() {
                        on_given();
                    }
                }
                Happened::Event(Event::Frame(bytes)) => self.frame(&bytes),
                Happened::Event(Event::Malformed(violation)) => self.violated(&violation),
                Happened::Event(Event::Closed) => self.enter(Stage::Leaving, LINGER),
                Happened::End(ended) => self.end(ended),
            }
        }
        let now = self.worker.clock.now();
        self.worker.wire.capture.finish(now, &mut self.worker.wire.lines);
        self.take_lines();
        self.deliver_rest(cancel).await;
    }

    fn enter(&mut self, stage: Stage, patience: Duration) {
        self.stage = stage;
        self.timer.as_mut().reset(Instant::now() + patience);
    }

    fn take_lines(&mut self) {
        self.messages
            .extend(self.worker.wire.lines.drain(..).map(WorkerMessage::Line));
    }

    /// Kills it. What has decided the attempt before stays decided.
    fn kill(&mut self, outcome: Outcome) {
        if self.last.is_none() {
            self.last = Some(Last {
                outcome,
                user_ms: 0.0,
                variables: Value::Object(serde_json::Map::new()),
            });
        }
        if self.worker.ended.is_some() {
            self.stage = Stage::Over;
            return;
        }
        self.worker.kill();
        self.enter(Stage::Killed, KILL_PATIENCE);
    }

    /// Kills it, and takes back what it had said of its end: nothing that it says counts.
    fn violated(&mut self, violation: &Violation) {
        self.last = None;
        self.broken = true;
        self.kill(outcome::of_violation(violation));
    }

    fn time_is_up(&mut self) {
        match self.stage {
            Stage::Running => self.kill(outcome::of_time_limit(&self.spec.limits)),
            Stage::Leaving => self.violated(&Violation("it closed its socket and went on".into())),
            Stage::Killed => {
                tracing::error!(id = self.worker.id, "a killed worker was not reported as ended");
                self.stage = Stage::Over;
            }
            Stage::Over => {}
        }
    }

    /// The process is gone with all that it left; what it had said is in the buffers still.
    fn end(&mut self, ended: Ended) {
        self.worker.ended = Some(ended);
        let frames = self.worker.wire.drain(&*self.worker.clock);
        if matches!(self.stage, Stage::Running) {
            for frame in frames {
                match frame {
                    Ok(bytes) if self.last.is_none() => self.frame(&bytes),
                    Ok(_) => self.violated(&after_the_last()),
                    Err(violation) => self.violated(&violation),
                }
                if self.broken {
                    break;
                }
            }
        }
        self.stage = Stage::Over;
    }

    fn frame(&mut self, bytes: &[u8]) {
        if !self.given {
            // It can't know yet what to do: whatever it says is made up.
            return self.violated(&Violation("a frame came before the attempt was given".into()));
        }
        let limits = &self.spec.limits;
        match WorkerFrame::parse(bytes) {
            Ok(WorkerFrame::Log {
                level,
                message,
                fields,
                at,
            }) => {
                if self.worker.wire.capture.count_line() {
                    let line = LogLine {
                        at,
                        stream: "log".into(),
                        level,
                        message,
                        fields,
                    };
                    self.messages.push_back(WorkerMessage::Line(line));
                }
            }
            Ok(WorkerFrame::Checkpoint { name, data }) => {
                // A checkpoint is a line of the log, and counts as one.
                if self.worker.wire.capture.count_line() {
                    let at = self.worker.clock.now();
                    self.messages.push_back(WorkerMessage::Checkpoint { name, data, at });
                }
            }
            Ok(WorkerFrame::Call { id, name, args }) => self.call(id, name, args),
            Ok(WorkerFrame::Succeeded {
                value,
                user_ms,
                variables,
            }) => {
                let large = bytes.len() as u64 > limits.result_bytes;
                let size = if large { json_bytes(&value) } else { 0 };
                let outcome = if size as u64 > limits.result_bytes {
                    outcome::of_large_result(size, limits)
                } else {
                    Outcome::Succeeded { value }
                };
                self.decided(Last {
                    outcome,
                    user_ms,
                    variables,
                });
            }
            Ok(WorkerFrame::Failed {
                error,
                user_ms,
                variables,
            }) => {
                let error = outcome::with_limit_named(error, limits);
                self.decided(Last {
                    outcome: Outcome::Failed { error },
                    user_ms,
                    variables,
                });
            }
            Ok(frame) => self.violated(&out_of_order(&frame)),
            Err(violation) => self.violated(&violation),
        }
    }

    fn decided(&mut self, last: Last) {
        self.last = Some(last);
        if self.worker.wire.has_unread_frames() {
            return self.violated(&after_the_last());
        }
        // The worker has flushed its streams before its last frame, so all that belongs to the attempt is in the pipes by
        // now: waiting for their end would be waiting for the process to be taken down.
        self.worker.wire.drain_streams(&*self.worker.clock);
        self.stage = Stage::Over;
    }

    fn call(&mut self, id: u64, name: String, args: Value) {
        if id != self.calls + 1 {
            return self.violated(&Violation(format!("call {id} came where {} was due", self.calls + 1)));
        }
        if self.replies.len() >= OPEN_CALLS {
            return self.violated(&Violation(format!("more than {OPEN_CALLS} calls were unanswered")));
        }
        self.calls = id;
        let (reply, answer) = oneshot::channel();
        self.replies.push(Box::pin(async move {
            let refusal = || Refusal {
                code: "unavailable".into(),
                message: "the engine did not answer; try again later".into(),
            };
            (id, answer.await.unwrap_or_else(|_| Err(refusal())))
        }));
        self.messages.push_back(WorkerMessage::Call { name, args, reply });
    }

    fn answer(&mut self, id: u64, reply: Result<Value, Refusal>) {
        let limit = self.spec.limits.frame_bytes;
        let frame = match reply {
            Ok(value) => HandlerFrame::Reply {
                id,
                value: Some(value),
                error: None,
            },
            Err(error) => HandlerFrame::Reply {
                id,
                value: None,
                error: Some(error),
            },
        };
        let bytes = frame.encode(limit).or_else(|bytes| {
            let message = format!("the answer is {bytes} bytes; the limit is {limit}");
            let error = Some(Refusal {
                code: "too_large".into(),
                message,
            });
            HandlerFrame::Reply { id, value: None, error }.encode(limit)
        });
        match bytes {
            Ok(bytes) => self.worker.wire.out.extend_from_slice(&bytes),
            Err(_) => self.violated(&Violation("no answer fits into a frame".into())),
        }
    }

    /// Hands over what the consumer has not taken yet; gives up on one that takes nothing.
    async fn deliver_rest(&mut self, cancel: &CancellationToken) {
        while !self.messages.is_empty() {
            let permit = tokio::select! {
                biased;
                permit = tokio::time::timeout(CONSUMER_PATIENCE, self.spec.messages.reserve()) => permit,
                () = cancel.cancelled() => return,
            };
            let (Ok(Ok(permit)), Some(message)) = (permit, self.messages.pop_front()) else {
                return;
            };
            permit.send(message);
        }
    }
}

enum Happened {
    Time,
    Cancel,
    Exceeded(Exceeded),
    Reply(u64, Result<Value, Refusal>),
    Event(Event),
    End(Ended),
}

/// What came over a worker's socket and pipes.
#[derive(Debug)]
enum Event {
    Frame(Bytes),
    Malformed(Violation),
    /// The socket is at its end, or broken.
    Closed,
    /// All that was to be sent has been.
    Flushed,
    /// There may be new lines.
    Output,
}

/// A worker's socket and pipes, polled together so that none of them can stop another.
#[derive(Debug)]
struct Wire {
    socket: UnixStream,
    open: bool,
    frames: FrameBuffer,
    out: BytesMut,
    streams: [Option<pipe::Receiver>; 2],
    capture: Capture,
    lines: VecDeque<LogLine>,
}

impl Wire {
    /// The next event. `frames`: whether frames are wanted. `output`: whether output that will be kept is; what is to be
    /// dropped is always read. Loses nothing when it is dropped.
    async fn next(&mut self, clock: &dyn Clock, frames: bool, output: bool) -> Event {
        std::future::poll_fn(|cx| self.poll(cx, clock, frames, output)).await
    }

    /// Whether [`Wire::next`] can ever return.
    fn has_more(&self, frames: bool) -> bool {
        (self.open && (frames || !self.out.is_empty())) || !self.streams_closed()
    }

    fn streams_closed(&self) -> bool {
        self.streams.iter().all(Option::is_none)
    }

    fn poll(&mut self, cx: &mut Context<'_>, clock: &dyn Clock, frames: bool, output: bool) -> Poll<Event> {
        if self.open && !self.out.is_empty() {
            while !self.out.is_empty() {
                match Pin::new(&mut self.socket).poll_write(cx, &self.out) {
                    Poll::Ready(Ok(length)) => self.out.advance(length),
                    // The reading side says what has happened.
                    Poll::Ready(Err(_)) => self.out.clear(),
                    Poll::Pending => break,
                }
                if self.out.is_empty() {
                    return Poll::Ready(Event::Flushed);
                }
            }
        }
        if frames && let Poll::Ready(event) = self.poll_frame(cx) {
            return Poll::Ready(event);
        }
        let mut read = false;
        for stream in [STDOUT, STDERR] {
            while output || self.capture.is_full(stream) {
                match self.poll_stream(cx, clock, stream) {
                    Poll::Ready(more) => {
                        read = true;
                        // What is dropped is read to the end at once, what is kept in turns.
                        if !more || !self.capture.is_full(stream) {
                            break;
                        }
                    }
                    Poll::Pending => break,
                }
            }
        }
        if read {
            Poll::Ready(Event::Output)
        } else {
            Poll::Pending
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            match self.frames.take() {
                Ok(Some(frame)) => return Poll::Ready(Event::Frame(frame)),
                Ok(None) if !self.open => return Poll::Pending,
                Ok(None) => {}
                Err(violation) => {
                    self.open = false;
                    return Poll::Ready(Event::Malformed(violation));
                }
            }
            let mut space = [0; CHUNK];
            let mut buffer = ReadBuf::new(&mut space);
            let result = ready!(Pin::new(&mut self.socket).poll_read(cx, &mut buffer));
            if result.is_err() || buffer.filled().is_empty() {
                self.open = false;
                return Poll::Ready(Event::Closed);
            }
            self.frames.extend(buffer.filled());
        }
    }

    /// Reads once; false at the stream's end.
    fn poll_stream(&mut self, cx: &mut Context<'_>, clock: &dyn Clock, stream: usize) -> Poll<bool> {
        let Some(pipe) = &mut self.streams[stream] else {
            return Poll::Pending;
        };
        let mut space = [0; CHUNK];
        let mut buffer = ReadBuf::new(&mut space);
        let result = ready!(Pin::new(pipe).poll_read(cx, &mut buffer));
        if result.is_err() || buffer.filled().is_empty() {
            self.streams[stream] = None;
            return Poll::Ready(false);
        }
        self.capture.push(stream, buffer.filled(), clock.now(), &mut self.lines);
        Poll::Ready(true)
    }

    /// Reads what is in the pipes, without waiting, and closes them. Asks the kernel itself: the runtime learns of readiness by
    /// another way than of frames and ends, and may not know yet. Bounded, because somebody may go on writing.
    fn drain_streams(&mut self, clock: &dyn Clock) {
        let mut space = [0; CHUNK];
        for stream in [STDOUT, STDERR] {
            if let Some(pipe) = self.streams[stream].take() {
                let mut left = PIPE_BYTES;
                while left > 0
                    && let length @ 1.. = read_now(&pipe, &mut space)
                {
                    self.capture
                        .push(stream, &space[..length], clock.now(), &mut self.lines);
                    left = left.saturating_sub(length);
                }
            }
        }
    }

    /// Whether more has come than was taken, also what the kernel still has.
    fn has_unread_frames(&mut self) -> bool {
        let mut space = [0; 1];
        !self.frames.is_empty() || (self.open && read_now(&self.socket, &mut space) > 0)
    }

    /// The same for the socket too, for a worker that has ended: the frames that nobody has read.
    fn drain(&mut self, clock: &dyn Clock) -> Vec<Result<Bytes, Violation>> {
        self.drain_streams(clock);
        let mut space = [0; CHUNK];
        while self.open {
            let length = read_now(&self.socket, &mut space);
            self.frames.extend(&space[..length]);
            self.open = length > 0;
        }
        let mut frames = Vec::new();
        loop {
            match self.frames.take() {
                Ok(Some(frame)) => frames.push(Ok(frame)),
                Ok(None) => return frames,
                Err(violation) => {
                    frames.push(Err(violation));
                    return frames;
                }
            }
        }
    }
}

/// Reads from a non-blocking descriptor; 0 when there is nothing.
fn read_now(from: impl AsFd, space: &mut [u8]) -> usize {
    loop {
        match rustix::io::read(&from, &mut *space) {
            Err(rustix::io::Errno::INTR) => {}
            other => return other.unwrap_or(0),
        }
    }
}
