//! Code of a node type in the jail, outside of any run: looked at when it is written, and called once when somebody tries it.
//!
//! A trial has no organization, so nothing is there that belongs to one: no secrets, no pairs, no artifacts, no requests. Only what
//! it says is kept, and only for the answer.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::super::on_record::keep;
use super::super::{Context, Error, Result};
use super::{drafted, invalid, named, no_version, resolve};
use crate::audit::Event as AuditEvent;
use crate::authz::{Action, Caller};
use crate::definition::{check_outputs, check_values};
use crate::domain::{
    AttemptId, Chosen, ChosenBy, Holder, LIBRARY_FUNCTION, LIBRARY_MODULE, LibraryVersion, Limits, LogLine, NodeUse,
    Outcome, Rights, SecurityProfile, StepError, Trust, settle,
};
use crate::error::{Finding, Kind};
use crate::runner::{AttemptReport, AttemptSpec, BundleRef, Entry, Refusal, WorkerMessage};
use crate::store;
use crate::tenancy::{PlatformScope, librarian};

/// Most trials at once of one instance.
pub const MAX_TRIALS: usize = 2;
/// How long a trial waits for others to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest trial.
const WALL_MS: u64 = 30_000;
/// Longest look at code.
const CHECK_MS: u64 = 10_000;
/// Most lines that a trial prints.
const LINES: u64 = 1_000;
/// Most lines of its log, checkpoints included.
const MOST_LINES: usize = 1_100;
/// Most bytes that it prints.
const OUTPUT_BYTES: u64 = 256 << 10;

/// What is tried.
#[derive(Debug, Clone, Default)]
pub struct Trial {
    /// The published version; none for the draft.
    pub version: Option<String>,
    /// Its inputs, by name.
    pub inputs: Map<String, Value>,
    /// Its settings, by name; of a secret the name.
    pub settings: Map<String, Value>,
}

/// What came of it.
#[derive(Debug)]
pub struct Tried {
    /// The digest of the version whose code has run.
    pub digest: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What it has said, in order.
    pub lines: Vec<LogLine>,
    /// How long its function took, in milliseconds.
    pub user_ms: f64,
    /// Which layers kept it apart.
    pub posture: Arc<Vec<&'static str>>,
}

/// Runs the code of a node type once, as restricted, with these values.
///
/// # Errors
/// When the caller may not, there is no such version or it has no code of its own, the values don't fit, or no worker is free.
/// What the code does is in the answer.
pub async fn test(cx: &Arc<Context>, caller: &Caller, name: &str, trial: Trial) -> Result<Tried> {
    let platform = librarian(caller, Action::Run)?;
    let type_name = named(name)?;
    let digest = match &trial.version {
        None => drafted(cx, &platform, &type_name).await?.1.draft.digest,
        Some(version) => {
            let used = format!("{name}@{version}").parse::<NodeUse>();
            let used = used.map_err(|_| no_version(name, version))?;
            let found = cx.node_types.version(&platform, &used).await?;
            found.ok_or_else(|| no_version(name, version))?.digest
        }
    };
    let authored = match cx.node_types.document(&platform, &digest).await {
        Ok(authored) => authored,
        Err(store::Error::Corrupt { .. }) => return Err(resolve::tampered(name)),
        Err(error) => return Err(error.into()),
    };
    if authored.document.body.code().is_none() {
        return Err(Error::conflict(
            "node_type_without_code",
            format!("`{name}` calls a function of the workspace and has no code of its own"),
            "try it in a workflow that uses it",
        ));
    }
    let given = json!({"inputs": trial.inputs, "settings": trial.settings});
    let arguments = check_values(&authored.document, &given).map_err(|findings| {
        let detail = format!("the values for `{name}` have {} finding(s)", findings.len());
        invalid(detail, findings)
    })?;
    let record = cx
        .audit
        .by(&platform, AuditEvent::NodeTypeTested)
        .came_from(&caller.origin)
        .resource("node_type", name)
        .detail(&json!({"digest": digest}));
    keep(cx, &platform, record).await?;
    let (mut report, lines) = run(
        cx,
        &platform,
        &authored,
        "node",
        arguments,
        (Trust::Restricted, WALL_MS),
    )
    .await?;
    if let Outcome::Succeeded { value } = &report.outcome
        && let Err(wrong) = check_outputs(&authored.document, value)
    {
        let error = StepError::new("InvalidOutput", wrong);
        report.outcome = Outcome::Failed { error };
    }
    Ok(Tried {
        digest,
        outcome: report.outcome,
        lines,
        user_ms: report.timings.user_ms,
        posture: report.posture,
    })
}

/// Has the code of a version looked at in the jail: what is wrong with it, and what is merely noticed.
///
/// # Errors
/// When no worker is free, or nothing may run here.
pub async fn check(
    cx: &Arc<Context>,
    platform: &PlatformScope,
    authored: &Arc<LibraryVersion>,
) -> Result<(Vec<Finding>, Vec<Finding>)> {
    let document = &authored.document;
    let shape = json!({
        "inputs": document.inputs.iter().map(|port| &port.name).collect::<Vec<_>>(),
        "outputs": document.outputs.iter().map(|port| &port.name).collect::<Vec<_>>(),
        "settings": document.settings.iter().map(|setting| &setting.name).collect::<Vec<_>>(),
        "is_async": document.is_async,
    });
    let (report, _) = run(cx, platform, authored, "check", shape, (document.trust, CHECK_MS)).await?;
    match report.outcome {
        Outcome::Succeeded { value } => {
            let found = value.get("findings").and_then(Value::as_array);
            let found = found.into_iter().flatten().take(100).map(finding);
            let (wrong, noticed): (Vec<_>, Vec<_>) = found.partition(|(is_wrong, _)| *is_wrong);
            let only = |all: Vec<(bool, Finding)>| all.into_iter().map(|(_, finding)| finding).collect();
            Ok((only(wrong), only(noticed)))
        }
        // It ended the process, or its top level has no end: code that can't be loaded.
        Outcome::Failed { error } | Outcome::TimedOut { error } if !error.kind.starts_with("isolation") => {
            let message = format!("loading the code ended with {}: {:.500}", error.kind, error.message);
            let finding = Finding::new("/code", "import_failed", message)
                .hint("keep work out of the top level of the code: it runs whenever the code is loaded");
            Ok((vec![finding], Vec::new()))
        }
        Outcome::Failed { error } | Outcome::TimedOut { error } => Err(Error::unavailable(
            "worker_unavailable",
            format!("the code can't be looked at here: {}", error.message),
            "the operator looks at `weft doctor`",
        )),
        Outcome::Cancelled => Err(stopping()),
    }
}

/// A finding as the worker says it. Whoever wrote the code may have made it up, and has only himself to deceive.
fn finding(said: &Value) -> (bool, Finding) {
    let text = |name: &str, most: usize| -> String {
        let text = said.get(name).and_then(Value::as_str).unwrap_or_default();
        text.chars().take(most).collect()
    };
    let number = |name: &str| said.get(name).and_then(Value::as_u64).unwrap_or(1);
    let place = format!("{}:{}:{}", text("path", 200), number("line"), number("column"));
    let finding = Finding::new(place, text("code", 60), text("message", 2_000)).hint(text("hint", 1_000));
    (text("severity", 10) != "warning", finding)
}

async fn run(
    cx: &Arc<Context>,
    platform: &PlatformScope,
    authored: &Arc<LibraryVersion>,
    kind: &str,
    arguments: Value,
    (trust, wall_ms): (Trust, u64),
) -> Result<(AttemptReport, Vec<LogLine>)> {
    let document = &authored.document;
    let policy = cx.policies.platform(platform).await?.policy;
    let chosen = Chosen::strictest(cx.bounds.profile, [(ChosenBy::Platform, policy.profile)]);
    if chosen.profile == SecurityProfile::PlanOnly {
        return Err(Error::Request {
            kind: Kind::Denied,
            code: "plan_only",
            detail: "nothing runs under the security profile `plan_only`, and code is looked at by loading it"
                .to_owned(),
            hint: Some(format!("the profile was chosen by {}", chosen.by.place())),
            findings: Vec::new(),
        });
    }
    let limits = document.limits.within(&cx.bounds.attempt).min(&Limits {
        wall_ms,
        output_bytes: OUTPUT_BYTES,
        log_lines: LINES,
        ..cx.bounds.attempt.clone()
    });
    let asked = Rights {
        trust,
        ..Rights::default()
    };
    let allowed = policy.restrict(&Holder::Platform, &asked, &limits);
    let rights = settle(&allowed.rights, &[policy.restricted_modules.as_deref()]);
    let environment = if rights.trust == Trust::Trusted {
        cx.catalogs.current().await?.bundle.environment
    } else {
        None
    };
    let busy = || {
        Error::unavailable(
            "workers_busy",
            format!("{MAX_TRIALS} trials are under way on this instance"),
            "repeat the request when they have ended",
        )
    };
    let _one = match tokio::time::timeout(PATIENCE, cx.trials.acquire()).await {
        Ok(Ok(one)) => one,
        Ok(Err(_)) | Err(_) => return Err(busy()),
    };
    let now = cx.clock.now();
    let attempt = AttemptId::generate(now, cx.entropy.bytes());
    let principal = platform.principal();
    let (messages, mut received) = mpsc::channel(64);
    let spec = AttemptSpec {
        context: json!({
            "organization": {"id": "trial", "name": "Trial"},
            "caller": {"kind": principal.kind(), "id": principal.id(), "name": principal.name(), "claimed_user": null},
            "run": {
                "id": attempt, "workflow": document.name, "attempt": 1, "attempt_id": attempt, "step": document.name,
                "idempotency_key": attempt, "started_at": now, "deadline": now.plus(allowed.limits.wall()), "test": true,
            },
            "config": {},
        }),
        attempt: attempt.clone(),
        bundle: BundleRef {
            environment,
            ..cx.catalogs.nothing()?
        },
        entry: Entry {
            kind: kind.to_owned(),
            name: document.named().to_string(),
            module: LIBRARY_MODULE.to_owned(),
            function: LIBRARY_FUNCTION.to_owned(),
        },
        source: Some(resolve::source(document, &authored.digest)),
        arguments,
        limits: allowed.limits,
        rights,
        // Somebody waits in front of an editor.
        is_first: true,
        is_nice: false,
        messages,
    };
    let serve = async {
        let mut lines = Vec::new();
        while let Some(message) = received.recv().await {
            match message {
                // Lines of output are bounded by the limits; all that it says is by this.
                WorkerMessage::Line(_) | WorkerMessage::Checkpoint { .. } if lines.len() >= MOST_LINES => {}
                WorkerMessage::Line(line) => lines.push(line),
                WorkerMessage::Checkpoint { name, data, at } => lines.push(LogLine {
                    at,
                    stream: "checkpoint".into(),
                    level: "info".into(),
                    message: format!("checkpoint `{name}`"),
                    fields: Some(json!({"checkpoint": name, "data": data})),
                }),
                WorkerMessage::Call { name, reply, .. } => {
                    let refusal = Refusal {
                        code: "not_available".to_owned(),
                        message: format!("{name}: a trial has no organization, so it has nothing that belongs to one"),
                    };
                    // A worker that is gone needs no answer.
                    drop(reply.send(Err(refusal)));
                }
                // It has no network, and the log says so.
                WorkerMessage::RefusedConnection(_) => {}
            }
        }
        lines
    };
    let (report, lines) = tokio::join!(cx.runner.run(spec, CancellationToken::new()), serve);
    let report = report?;
    if matches!(report.outcome, Outcome::Cancelled) {
        return Err(stopping());
    }
    Ok((report, lines))
}

fn stopping() -> Error {
    Error::unavailable("stopping", "the handler is stopping", "repeat the request")
}
