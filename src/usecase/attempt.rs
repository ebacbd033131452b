//! One attempt: its context, its run in a worker, and its log. What it asks for is answered by its [`Broker`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::admission::{Awaited, Purpose, WorkerSlot};
use super::broker::{Asker, Bound, Broker};
use super::policy::{Asked, Ceilings, Reason};
use super::recording::{self, Record};
use super::watch::Making;
use super::{Context, Error, Result, node_type};
use crate::authz::Origin;
use crate::definition::{check_outputs, check_values};
use crate::domain::{
    AttemptId, LibraryVersion, Outcome, RECORDING_SCHEMA, RecordedEntry, Recording, Rights, RunId, SecurityProfile,
    StepError, Timestamp, Trust,
};
use crate::error::{Coded as _, Finding};
use crate::runner::environments::EnvironmentRef;
use crate::runner::{AttemptReport, AttemptSpec, BundleRef, Entry, LogLine, RunnerError, RunnerTimings, WorkerMessage};
use crate::scheduler::{Code, Slot};
use crate::secrets::mask::Masker;
use crate::store;
use crate::store::repo::configs::Merged;
use crate::store::repo::runs::{Parent, Requester, StoredRun};
use crate::tenancy::Scope;

/// Messages of a worker that wait for the broker; a worker that floods waits.
const WAITING_MESSAGES: usize = 256;
/// How many lines are written to the log at once.
const LINES_AT_ONCE: usize = 512;
/// How many bytes of lines are written to the log at once; an append takes 4 MiB.
const BYTES_AT_ONCE: usize = 512 * 1024;
/// How long a worker is tried to be started for an attempt.
const STARTING: Duration = Duration::from_secs(30);
/// For how long the end of a log is tried to be written while storage is away. The end of the attempt waits for it, because
/// its log is told before; and it could not be written itself meanwhile.
const KEEP_CLOSING: Duration = Duration::from_secs(30);
/// Longest time that a line waits for company.
const FLUSH_AFTER: Duration = Duration::from_millis(500);
/// The same while somebody watches the run.
const FLUSH_WATCHED_AFTER: Duration = Duration::from_millis(100);
/// When it is looked again at an attempt that does not stand in line yet.
const SOON: Duration = Duration::from_millis(50);
/// Most bytes of configuration that a worker is handed unasked.
const CONFIG_BYTES: usize = 32 * 1024;

/// Everything about an attempt that is known before it begins.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) cx: Arc<Context>,
    pub(super) scope: Scope,
    pub(super) origin: Origin,
    pub(super) run: RunId,
    pub(super) workflow: String,
    pub(super) parent: Option<Parent>,
    pub(super) requester: Requester,
    pub(super) arguments: Value,
    pub(super) deadline: Timestamp,
    pub(super) slot: Slot,
    /// The step's id.
    pub(super) step: String,
    /// What is called.
    pub(super) code: Code,
    pub(super) attempt: AttemptId,
    pub(super) number: u32,
    /// The digest of the code.
    pub(super) bundle: String,
    /// The digest of the packages that it needs.
    pub(super) environment: Option<String>,
    /// The security profile that was asked for.
    pub(super) profile: Option<SecurityProfile>,
    /// The plan that the run is held to.
    pub(super) plan: Option<String>,
    pub(super) stop: CancellationToken,
    door: Door,
}

/// How an attempt comes to a worker's slot.
#[derive(Debug)]
enum Door {
    /// It stands in line; for those who wait for its run here, where somebody does or did.
    Line(Arc<Turn>, Option<Arc<Awaited>>),
    /// It has one, until it is dropped.
    Open { slot: WorkerSlot },
}

/// Where an attempt is that stands in line for a slot. Until it has begun, other instances may be asked to make it.
#[derive(Debug)]
pub(super) struct Turn(Mutex<Stage>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Not in line yet.
    Before,
    /// In line, since then.
    InLine(Instant),
    /// It has had a slot, or has said something already.
    Begun,
    /// Others were asked, so whoever claims it makes it.
    Offered,
}

impl Turn {
    /// Of an attempt that is made here.
    pub(super) fn own() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Stage::Before)))
    }

    /// Of an attempt that others were asked to make.
    pub(super) fn offered() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Stage::Offered)))
    }

    fn stage(&self) -> std::sync::MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether others were asked.
    pub(super) fn is_offered(&self) -> bool {
        *self.stage() == Stage::Offered
    }

    /// When it will have stood in line for so long; none when others can't be asked.
    pub(super) fn offered_at(&self, waited: Duration) -> Option<Instant> {
        match *self.stage() {
            Stage::Before => Some(Instant::now() + waited.max(SOON)),
            Stage::InLine(since) => Some(since + waited),
            Stage::Begun | Stage::Offered => None,
        }
    }

    /// Lets it be made by whoever claims it, when it has stood in line for so long; whether it is so.
    pub(super) fn offer(&self, waited: Duration) -> bool {
        let mut stage = self.stage();
        let waits = matches!(*stage, Stage::InLine(since) if since.elapsed() >= waited);
        if waits {
            *stage = Stage::Offered;
        }
        waits
    }

    fn enter(&self) {
        let mut stage = self.stage();
        if *stage == Stage::Before {
            *stage = Stage::InLine(Instant::now());
        }
    }

    /// It begins here, unless others were asked.
    fn begin(&self) -> bool {
        let mut stage = self.stage();
        if *stage == Stage::Offered {
            return false;
        }
        *stage = Stage::Begun;
        true
    }
}

/// What came of standing in line.
enum Admitted {
    /// It begins; with a slot, unless it has one or is stopped.
    Begins(Option<WorkerSlot>),
    /// It would begin, if nobody else has claimed it.
    Offered(WorkerSlot),
    /// Others were asked, and it need not stand in line any more.
    Gone,
}

/// What came of an attempt.
#[derive(Debug)]
pub(super) enum Made {
    /// It was made here.
    Here(Box<Done>),
    /// It may be made with this slot by whoever claims it.
    Handed(WorkerSlot),
    /// Somebody else sees to it.
    Gone,
}

enum Ran {
    Report(Box<AttemptReport>),
    Handed(WorkerSlot),
    Gone,
}

/// How it ended.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) slot: Slot,
    pub(super) attempt: AttemptId,
    pub(super) number: u32,
    pub(super) started_at: Timestamp,
    pub(super) report: AttemptReport,
}

impl Attempt {
    /// What a driver knows of an attempt that is to be made, with the arguments of its call.
    pub(super) fn prepare(
        cx: &Arc<Context>,
        scope: &Scope,
        origin: &Origin,
        run: &StoredRun,
        (slot, attempt, number): (Slot, AttemptId, u32),
        arguments: Value,
        stop: &CancellationToken,
    ) -> Result<Self> {
        let step = &run.new.plan.steps[slot.0];
        let code = step
            .work
            .code()
            .ok_or_else(|| store::Error::corrupt("an attempt of a step that calls nothing"))?;
        let has_packages =
            code.digest.is_none() || (code.rights.trust == Trust::Trusted && run.new.plan.environment.is_some());
        Ok(Self {
            cx: cx.clone(),
            scope: scope.clone(),
            origin: origin.clone(),
            run: run.new.run.clone(),
            workflow: run.new.workflow.clone(),
            parent: run.new.parent.clone(),
            requester: run.new.requester.clone(),
            arguments,
            deadline: run.state.deadline,
            slot,
            step: step.id.clone(),
            code: code.clone(),
            attempt,
            number,
            bundle: run.new.plan.bundle.clone(),
            // Code of the library has the packages of the workspace where it is trusted.
            environment: run.new.plan.environment.clone().filter(|_| has_packages),
            profile: run.new.plan.profile,
            plan: run.new.ask.plan.clone(),
            stop: stop.child_token(),
            door: Door::Line(Turn::own(), None),
        })
    }

    /// Lets it stand in line in this turn, for those who wait for its run.
    pub(super) fn stands_in_line(&mut self, turn: Arc<Turn>, call: Option<Arc<Awaited>>) {
        self.door = Door::Line(turn, call);
    }

    /// Gives it a slot, and another to stop it.
    pub(super) fn has_place(&mut self, slot: WorkerSlot, stop: CancellationToken) {
        self.door = Door::Open { slot };
        self.stop = stop;
    }

    /// Makes the attempt. Never fails: what keeps it from being made is its outcome.
    pub(super) async fn make(&self) -> Made {
        let making = Making::begin(&self.cx, &self.run, &self.attempt);
        let started_at = self.cx.clock.now();
        let mut pause = Duration::from_millis(100);
        let report = loop {
            let report = match self.cx.configs.merged(&self.scope).await {
                Ok(config) => Box::pin(self.run_with(config, started_at)).await,
                Err(error) => Err(Error::from(error)),
            };
            match report {
                // Nothing has run, so trying again is no second attempt. Whatever keeps workers from starting may be
                // somebody else's doing, and must not end this run.
                Err(Error::Runner(RunnerError::NoWorker { .. } | RunnerError::Busy { .. }))
                    if self.cx.clock.now().since(started_at) < STARTING && !self.stop.is_cancelled() =>
                {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
                report => break report,
            }
        };
        let report = match report {
            Ok(Ran::Report(report)) => *report,
            Ok(Ran::Handed(slot)) => {
                making.elsewhere();
                return Made::Handed(slot);
            }
            // Of one that others were asked to make, nothing here is its end.
            Ok(Ran::Gone) => {
                making.elsewhere();
                return Made::Gone;
            }
            Err(_) if !self.begins() => {
                making.elsewhere();
                return Made::Gone;
            }
            Err(error) => not_made(&error),
        };
        Made::Here(Box::new(Done {
            slot: self.slot,
            attempt: self.attempt.clone(),
            number: self.number,
            started_at,
            report,
        }))
    }

    async fn run_with(&self, config: Merged, started_at: Timestamp) -> Result<Ran> {
        let left = u64::try_from(self.deadline.since(started_at).as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        let asked = Asked {
            run: self.profile,
            ..Asked::default()
        };
        let ceilings = Ceilings::of(&self.cx, &self.scope, asked).await?;
        let allowed = ceilings.settled(&self.code.rights, &self.code.limits);
        if let Err(error) = ceilings.attempts(&self.step, &self.code, allowed.rights.trust) {
            let (run, step) = (("run", self.run.as_str()), (self.step.as_str(), &self.attempt));
            super::isolation::record(
                &self.cx,
                &self.scope,
                &self.origin,
                run,
                step,
                error.code(),
                &error.to_string(),
            )
            .await;
            return Err(error);
        }
        let mut limits = allowed.limits;
        limits.wall_ms = limits.wall_ms.min(left);
        // Code of the library sees nothing of the workspace.
        let bundle = if self.code.digest.is_some() && self.environment.is_none() {
            self.cx.catalogs.nothing()?
        } else {
            self.cx.catalogs.pinned(&self.bundle).await?
        };
        let (messages, received) = mpsc::channel(WAITING_MESSAGES);
        let seed = u64::from_be_bytes(self.cx.entropy.bytes()) >> 11;
        let context = self.context(&config, started_at, limits.wall(), seed);
        let kept_context = self.is_recorded().then(|| context.clone());
        let mut spec = AttemptSpec {
            attempt: self.attempt.clone(),
            bundle,
            entry: Entry {
                kind: self.code.declared_as.as_str().to_owned(),
                name: self.code.name.clone(),
                module: self.code.module.clone(),
                function: self.code.function.clone(),
            },
            source: None,
            arguments: self.arguments.clone(),
            context,
            limits,
            rights: allowed.rights,
            is_first: true,
            is_nice: false,
            messages,
        };
        let trusted = spec.rights.trust == Trust::Trusted;
        let authored = self.authored().await?;
        if let Some(authored) = &authored {
            spec.source = Some(node_type::source(&authored.document, &authored.digest));
            match check_values(&authored.document, &self.arguments) {
                Ok(arguments) => spec.arguments = arguments,
                Err(findings) if self.begins() => return Ok(Ran::Report(Box::new(wrong_input(&findings)))),
                Err(_) => return Ok(Ran::Gone),
            }
        }
        let broker = self.broker(config, spec.rights.clone());
        let run = async {
            if let Some(digest) = &self.environment {
                spec.bundle.environment = Some(self.environment(&spec.bundle, digest, &spec.messages).await?);
            }
            if spec.source.is_some() {
                let environment = spec.bundle.environment.take();
                spec.bundle = BundleRef {
                    environment,
                    ..self.cx.catalogs.nothing()?
                };
            }
            let slot = match self.slot().await? {
                Admitted::Begins(slot) => slot,
                Admitted::Offered(slot) => return Ok(Ran::Handed(slot)),
                Admitted::Gone => return Ok(Ran::Gone),
            };
            spec.is_first = match &self.door {
                Door::Open { slot } => slot.is_first(),
                Door::Line(..) => slot.as_ref().is_none_or(WorkerSlot::is_first),
            };
            spec.is_nice = !spec.is_first || self.cx.admission.courtesy.holds_back(self.scope.org());
            Ok(Ran::Report(Box::new(
                self.cx.runner.run(spec, self.stop.clone()).await?,
            )))
        };
        let (ran, mut log): (Result<Ran>, _) = tokio::join!(run, self.serve(received, &broker));
        let report = match ran {
            Ok(Ran::Report(mut report)) => {
                if let (Some(authored), Outcome::Succeeded { value }) = (&authored, &report.outcome)
                    && let Err(wrong) = check_outputs(&authored.document, value)
                {
                    let error = StepError {
                        retriable: Some(false),
                        ..StepError::new("InvalidOutput", wrong)
                    };
                    report.outcome = Outcome::Failed { error };
                }
                Ok(broker.finish(*report).await)
            }
            Ok(elsewhere) => return Ok(elsewhere),
            Err(error) => Err(error),
        };
        for reason in allowed.reasons.iter().filter(|reason| reason.refused) {
            log.add(withdrawn(reason, self.cx.clock.now())).await;
        }
        if let Ok(report) = &report
            && report.output_truncated
        {
            log.add(dropped(report.output_bytes, self.cx.clock.now())).await;
        }
        let recording = match (&report, kept_context) {
            (Ok(report), Some(context)) => self.recording(&broker, report, (context, seed), started_at, trusted),
            _ => None,
        };
        tokio::join!(log.close(), recording::keep(&self.cx, &self.scope, recording));
        let report = report?;
        let Self { cx, scope, origin, .. } = self;
        let (run, step) = (("run", self.run.as_str()), (self.step.as_str(), &self.attempt));
        super::isolation::record_refusal(cx, scope, origin, run, step, &report).await;
        Ok(Ran::Report(Box::new(report)))
    }

    /// Code of the library is not in the bundle that a replay has.
    fn is_recorded(&self) -> bool {
        self.cx.bounds.record != Record::Off && self.code.digest.is_none()
    }

    /// What is kept of it, masked; none where one that ends like this is not kept.
    fn recording(
        &self,
        broker: &Broker,
        report: &AttemptReport,
        (context, seed): (Value, u64),
        started_at: Timestamp,
        trusted: bool,
    ) -> Option<Recording> {
        let (calls, calls_left_out) = broker.recorded()?;
        if !self.cx.bounds.record.wants(&report.outcome) {
            return None;
        }
        let masked = |value: Value| broker.masker().value(value);
        let recording = Recording {
            schema: RECORDING_SCHEMA,
            run: self.run.clone(),
            workflow: self.workflow.clone(),
            step: self.step.clone(),
            item: self.slot.1,
            attempt: self.attempt.clone(),
            number: self.number,
            entry: RecordedEntry {
                kind: self.code.declared_as.as_str().to_owned(),
                name: self.code.name.clone(),
                module: self.code.module.clone(),
                function: self.code.function.clone(),
            },
            bundle: self.bundle.clone(),
            environment: self.environment.clone(),
            trusted,
            secrets: self.code.secrets.clone(),
            seed,
            started_at,
            ended_at: self.cx.clock.now(),
            arguments: recording::bounded(self.arguments.clone()),
            context,
            calls,
            calls_left_out,
            outcome: recording::outcome(&report.outcome),
        };
        // As a whole, so that a secret that was learned late is found in what was said early.
        let whole = serde_json::to_value(recording)
            .map(masked)
            .and_then(serde_json::from_value);
        whole
            .inspect_err(|error| tracing::warn!(run.id = %self.run, error = %error, "an attempt can't be recorded"))
            .ok()
    }

    /// The version of a node type whose code is called, as it was published.
    async fn authored(&self) -> Result<Option<Arc<LibraryVersion>>> {
        let Some(digest) = &self.code.digest else {
            return Ok(None);
        };
        let (cx, scope) = (&self.cx, &self.scope);
        match cx.node_types.document(scope, digest).await {
            Ok(authored) => Ok(Some(authored)),
            Err(error) => Err(node_type::unusable(cx, scope, &self.origin, &self.code.name, error).await),
        }
    }

    /// Whether it is made here from now on, and nowhere else.
    fn begins(&self) -> bool {
        match &self.door {
            Door::Line(turn, _) => turn.begin(),
            Door::Open { .. } => true,
        }
    }

    /// A slot for a worker, as soon as it is the organization's turn; none when the attempt is stopped meanwhile.
    async fn slot(&self) -> Result<Admitted> {
        let Door::Line(turn, call) = &self.door else {
            return Ok(Admitted::Begins(None));
        };
        turn.enter();
        let _waits = self.cx.live.without_slot(&self.run);
        // Who has started this run may have a slot, and wait for its end.
        let purpose = if self.parent.is_some() {
            Purpose::Inner
        } else {
            Purpose::Step
        };
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Ok(if turn.begin() { Admitted::Begins(None) } else { Admitted::Gone }),
            slot = self.cx.admission.gate.slot(self.scope.org(), purpose, call.clone()) => {
                let slot = slot?;
                Ok(if turn.begin() { Admitted::Begins(Some(slot)) } else { Admitted::Offered(slot) })
            }
        }
    }

    /// Answers what the attempt asks for, by the rights that it has now and not by those of the plan.
    fn broker(&self, config: Merged, rights: Rights) -> Broker {
        let bound = Bound {
            cx: self.cx.clone(),
            scope: self.scope.clone(),
            origin: self.origin.clone(),
            requester: self.requester.clone(),
            asker: Asker::Step {
                run: self.run.clone(),
                workflow: self.workflow.clone(),
                step: self.step.clone(),
                parent: self.parent.clone(),
            },
            attempt: self.attempt.clone(),
            rights,
            profile: self.profile,
            plan: self.plan.clone(),
            secrets: self.code.secrets.clone(),
            config,
        };
        let broker = Broker::new(bound, Arc::new(Masker::default()));
        if self.is_recorded() { broker.recording() } else { broker }
    }

    /// The packages that the run is pinned to. Where they are not on this instance they are installed again, and the log
    /// says what the step waits for.
    async fn environment(
        &self,
        bundle: &BundleRef,
        digest: &str,
        messages: &mpsc::Sender<WorkerMessage>,
    ) -> Result<EnvironmentRef> {
        let environments = self.cx.catalogs.environments();
        if let Some(environment) = environments.find(digest) {
            return Ok(environment);
        }
        let line = LogLine {
            at: self.cx.clock.now(),
            stream: "log".into(),
            level: "info".into(),
            message: format!("waiting for the environment `{digest}`, which is being built on this instance"),
            fields: None,
        };
        // What has said something is made here: another instance would not go on behind it in the log.
        if self.begins() {
            // Whoever reads it is there until the attempt's end.
            drop(messages.send(WorkerMessage::Line(line)).await);
        }
        let patience = self.deadline.since(self.cx.clock.now());
        tokio::select! {
            biased;
            environment = self.cx.catalogs.pinned_environment(bundle, digest, patience) => environment,
            () = self.stop.cancelled() => Err(Error::unavailable("stopping", "the handler is stopping", "repeat the request")),
        }
    }

    fn context(&self, config: &Merged, started_at: Timestamp, wall: Duration, seed: u64) -> Value {
        json!({
            "organization": {"id": self.scope.org(), "name": self.scope.org_name()},
            "caller": {
                "kind": self.requester.kind,
                "id": self.requester.id,
                "name": self.requester.name,
                "claimed_user": self.requester.claimed_user,
            },
            "run": {
                "id": self.run,
                "workflow": self.workflow,
                "attempt": self.number,
                "attempt_id": self.attempt,
                "step": self.step,
                "item": self.slot.1,
                "idempotency_key": match self.slot.1 {
                    None => format!("{}:{}", self.run, self.step),
                    Some(item) => format!("{}:{}:{item}", self.run, self.step),
                },
                "started_at": started_at,
                "deadline": started_at.plus(wall),
                "seed": seed,
                "test": false,
            },
            "config": handed_config(config),
        })
    }

    /// Answers the worker and writes what it says, until it has nothing more to say. The log is still open.
    async fn serve(&self, mut received: mpsc::Receiver<WorkerMessage>, broker: &Broker) -> Log<'_> {
        let mut log = Log {
            attempt: self,
            lines: Vec::new(),
            sent: 0,
            bytes: 0,
            end: 0,
            lost: 0,
            since: Instant::now(),
        };
        let mut calls = FuturesUnordered::new();
        loop {
            let message = tokio::select! {
                biased;
                () = log.is_due(), if !log.lines.is_empty() => {
                    log.flush().await;
                    continue;
                }
                Some(()) = calls.next(), if !calls.is_empty() => continue,
                message = received.recv() => message,
            };
            match message {
                None => break,
                Some(WorkerMessage::Line(line)) => log.add(broker.masker().line(line)).await,
                Some(WorkerMessage::Checkpoint { name, data, at }) => {
                    let fields = Some(json!({"checkpoint": name, "data": data}));
                    let message = format!("checkpoint `{name}`");
                    let line = LogLine {
                        at,
                        stream: "checkpoint".into(),
                        level: "info".into(),
                        message,
                        fields,
                    };
                    log.add(broker.masker().line(line)).await;
                }
                Some(WorkerMessage::RefusedConnection(refusal)) => {
                    broker.record_connection(&refusal).await;
                }
                Some(WorkerMessage::Call { name, args, reply }) => calls.push(broker.serve(name, args, reply)),
            }
        }
        log
    }
}

impl Done {
    /// The end of an attempt that could not be made.
    pub(super) fn not_made(slot: Slot, attempt: AttemptId, number: u32, started_at: Timestamp, error: &Error) -> Self {
        Self {
            slot,
            attempt,
            number,
            started_at,
            report: not_made(error),
        }
    }
}

struct Log<'a> {
    attempt: &'a Attempt,
    lines: Vec<LogLine>,
    /// So many of them, the first, were sent to storage, and nobody knows whether they are there. They are sent again as
    /// they were, for then storage can tell.
    sent: usize,
    bytes: usize,
    end: u64,
    lost: usize,
    /// When the first of the lines came, or could not be written.
    since: Instant,
}

impl Log<'_> {
    /// Resolves when the lines have waited for long enough.
    async fn is_due(&self) {
        let wait = if self.attempt.cx.watch.is_heard(&self.attempt.run) {
            FLUSH_WATCHED_AFTER
        } else {
            FLUSH_AFTER
        };
        tokio::time::sleep_until(self.since + wait).await;
    }

    async fn add(&mut self, line: LogLine) {
        // What the platform has done or refused is no output.
        if !self.attempt.cx.bounds.save_logs && !matches!(line.stream.as_str(), "checkpoint" | "network") {
            return;
        }
        if self.lines.is_empty() {
            self.since = Instant::now();
        }
        self.bytes += line_bytes(&line);
        self.lines.push(line);
        if self.lines.len() >= LINES_AT_ONCE || self.bytes >= BYTES_AT_ONCE {
            self.flush().await;
        }
    }

    /// Writes what is left, waiting out an outage of storage unless the attempt was stopped.
    async fn close(mut self) {
        let Attempt {
            cx, run, attempt, stop, ..
        } = self.attempt;
        let begun = Instant::now();
        let mut pause = Duration::from_millis(50);
        while self.flush().await && begun.elapsed() < KEEP_CLOSING {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(Duration::from_secs(2)),
            }
        }
        if self.lines.is_empty() {
            cx.watch.is_silent(run, attempt, self.end);
        }
        let lost = self.lost + self.lines.len();
        if lost > 0 {
            tracing::error!(run.id = %self.attempt.run, lines = lost, "log lines were lost because storage could not be written");
        }
    }

    /// Writes what there is. Whether some of it is left that storage may take later.
    async fn flush(&mut self) -> bool {
        if self.lines.is_empty() {
            return false;
        }
        let Attempt {
            cx,
            scope,
            run,
            attempt,
            ..
        } = self.attempt;
        // What was kept through an outage may be more than one append takes.
        let mut written = 0;
        let mut failed = None;
        while written < self.lines.len() && failed.is_none() {
            let mut bytes = 0;
            let piece = self.lines[written..]
                .iter()
                .take_while(|line| {
                    bytes += line_bytes(line);
                    bytes <= 2 * BYTES_AT_ONCE
                })
                .count()
                .max(1);
            let piece = if self.sent > 0 { self.sent } else { piece };
            self.sent = piece;
            let lines = &self.lines[written..written + piece];
            match cx.runs.append_log(scope, run, attempt, self.end, lines).await {
                Ok(end) => {
                    cx.watch.logged(run, attempt, lines, (self.end, end));
                    self.end = end;
                    self.sent = 0;
                    written += piece;
                }
                Err(error) => failed = Some(error),
            }
        }
        self.lines.drain(..written);
        self.since = Instant::now();
        self.bytes = self.lines.iter().map(line_bytes).sum();
        let Some(error) = failed else {
            return false;
        };
        tracing::warn!(run.id = %run, error = %error, "log lines could not be written, they are kept for another try");
        // Bounded: the newest lines tell more than the oldest about how it ended.
        let keep = 4 * LINES_AT_ONCE;
        if self.lines.len() > keep + self.sent {
            let drop = self.lines.len() - keep - self.sent;
            self.lines.drain(self.sent..self.sent + drop);
            self.lost += drop;
            self.bytes = self.lines.iter().map(line_bytes).sum();
        }
        matches!(error, store::Error::Unavailable { .. } | store::Error::Throttled { .. })
    }
}

/// About what a line takes in the log; JSON escapes can double it, and the margin below an append's limit takes that.
fn line_bytes(line: &LogLine) -> usize {
    128 + line.message.len() + line.fields.as_ref().map_or(0, |fields| fields.to_string().len())
}

/// What the plan has and a policy took away since.
fn withdrawn(reason: &Reason, at: Timestamp) -> LogLine {
    LogLine {
        at,
        stream: "log".into(),
        level: "warning".into(),
        message: format!(
            "a policy was changed since the run began: {}; {}",
            reason.message, reason.remedy
        ),
        fields: None,
    }
}

/// The last line of a log that is not whole.
fn dropped(bytes: u64, at: Timestamp) -> LogLine {
    LogLine {
        at,
        stream: "log".into(),
        level: "warning".into(),
        message: format!(
            "output over the limit was dropped; {bytes} bytes were written (`WEFT_MAX_OUTPUT_BYTES`, `WEFT_MAX_LOG_LINES`)"
        ),
        fields: None,
    }
}

fn handed_config(config: &Merged) -> Value {
    let mut handed = Map::new();
    let mut bytes = 0;
    for (name, value) in config.iter() {
        bytes += name.len() + value.to_string().len();
        if bytes > CONFIG_BYTES {
            break;
        }
        handed.insert(name.clone(), value.clone());
    }
    Value::Object(handed)
}

/// The end of an attempt whose values don't fit to the ports and settings of its node type.
fn wrong_input(findings: &[Finding]) -> AttemptReport {
    let messages: Vec<_> = findings.iter().map(|finding| finding.message.as_str()).collect();
    let errors = findings
        .iter()
        .map(|finding| json!({"parameter": finding.pointer, "message": finding.message}));
    ended(StepError {
        retriable: Some(false),
        data: Some(json!({"errors": errors.collect::<Vec<_>>()})),
        ..StepError::new("InvalidInput", messages.join("; "))
    })
}

fn not_made(error: &Error) -> AttemptReport {
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    if let Some(hint) = error.hint() {
        message = format!("{message}; {hint}");
    }
    let error = StepError {
        retriable: Some(error.kind().retriable()),
        ..StepError::new(error.code(), message)
    };
    ended(error)
}

/// An end without a worker.
fn ended(error: StepError) -> AttemptReport {
    AttemptReport {
        outcome: Outcome::Failed { error },
        variables: Value::Object(Map::new()),
        timings: RunnerTimings::default(),
        output_bytes: 0,
        output_truncated: false,
        max_rss_kib: None,
        posture: Arc::new(Vec::new()),
        network: None,
    }
}
