//! `weft replay`: makes recorded attempts again, here and offline, with the answers that they had, and says in what they differ.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::debugging::Debugging;
use super::records::{Records, Source};
use super::{Failure, Outcome, Places, block_on, load, output, quiet};
use crate::boot;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::domain::{self, Network, RecordedOutcome, RecordedRun, Recording, Rights, RunId, Tier, Trust};
use crate::runner::replayed::{Comparison, Difference, Replayed};
use crate::runner::{AttemptSpec, Entry, NodeRunner, WorkerMessage};
use crate::usecase::Context;

/// Lines of output that wait to be shown.
const WAITING_LINES: usize = 64;

/// Flags of `weft replay`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 every attempt came to what was recorded, be it a failure; 1 one did not, or nothing could be \
                        replayed; 2 wrong usage."
)]
pub(super) struct Replay {
    /// The run; with one file of `--from`, the one in it
    #[arg(required_unless_present = "from")]
    run: Option<RunId>,
    /// Which attempt of each step, from 1; all of them when missing
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,
    /// Write the recording to a file, and replay nothing
    #[arg(long, value_name = "FILE", conflicts_with = "debug")]
    export: Option<PathBuf>,
    #[command(flatten)]
    records: Records,
    #[command(flatten)]
    debugging: Debugging,
    #[command(flatten)]
    places: Places,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Replay {
    pub(super) fn run(self) -> Outcome {
        let mut environment = self.places.environment();
        environment.prefer_development("weft replay");
        let config = load(&environment)?;
        quiet(&config)?;
        block_on(async move {
            let source = self.records.open(&environment, &config).await?;
            let recorded = self.recorded(&source).await;
            source.close().await;
            let mut recorded = recorded?;
            if let Some(path) = &self.export {
                return export(&environment.current_dir().join(path), &recorded, self.json);
            }
            self.choose(&mut recorded)?;
            Box::pin(self.replay(config, recorded)).await
        })
    }

    async fn recorded(&self, source: &Source) -> Result<RecordedRun, Failure> {
        match &self.run {
            Some(run) => source.run(run).await,
            None => source
                .only()
                .ok_or_else(|| Failure::new("several files are given, and no run").hint("name the run")),
        }
    }

    /// Leaves the attempts that are wanted.
    fn choose(&self, recorded: &mut RecordedRun) -> Result<(), Failure> {
        let known: Vec<_> = recorded
            .attempts
            .iter()
            .map(|one| format!("{} {}", name_of(one), one.number))
            .collect();
        if let Some(step) = self.debugging.step() {
            recorded.attempts.retain(|one| one.step == step);
        }
        if let Some(number) = self.attempt {
            recorded.attempts.retain(|one| one.number == number);
        } else if self.debugging.is_on() {
            // Whoever debugs wants the one that decided.
            let last = |one: &Recording, all: &[Recording]| {
                all.iter()
                    .all(|other| (&other.step, other.item) != (&one.step, one.item) || other.number <= one.number)
            };
            let all = recorded.attempts.clone();
            recorded.attempts.retain(|one| last(one, &all));
        }
        if recorded.attempts.is_empty() {
            return Err(
                Failure::new(format!("run {} has no such attempt on record", recorded.run))
                    .hint(format!("it has {}", known.join(", "))),
            );
        }
        Ok(())
    }

    async fn replay(&self, config: Config, recorded: RecordedRun) -> Outcome {
        let home = tempfile::Builder::new().prefix("weft-replay-").tempdir();
        let home = home.map_err(|error| Failure::new(format!("no temporary folder can be made: {error}")))?;
        let debugger = self.debugging.listen(&config).await?;
        let base = boot::ephemeral(config.clone(), home.path(), |runner| runner, debugger)?;
        let cx = boot::opened(&base).await?;
        let done = async {
            if self.debugging.is_on() {
                self.debugging.check_installed(&config, &cx).await?;
            }
            compare(&cx, base.runner.clone(), &recorded, self.json).await
        };
        let done = done.await;
        cx.leave().await;
        base.runner.shutdown().await;
        let compared = done?;
        let different = compared.iter().filter(|one| one.difference.is_some()).count();
        if self.json {
            output::json(&json!({
                "run": recorded.run,
                "workflow": recorded.workflow,
                "same": different == 0,
                "attempts": compared,
            }));
        } else {
            for one in &compared {
                show(one);
            }
            output::note(&format!("{} attempt(s), {different} not as recorded", compared.len()));
        }
        Ok(ExitCode::from(u8::from(different > 0)))
    }
}

/// Makes the attempts again, with the workspace as it is now.
async fn compare(
    cx: &Context,
    behind: Arc<dyn NodeRunner>,
    recorded: &RecordedRun,
    quiet: bool,
) -> Result<Vec<Comparison>, Failure> {
    let current = cx.catalogs.current().await?;
    if current.bundle.digest != recorded.bundle {
        output::note("note: the workspace is not what it was when this was recorded");
    }
    let environment = current.bundle.environment.as_ref().map(|one| &one.digest);
    if environment != recorded.environment.as_ref() {
        output::note("note: its packages are not what they were when this was recorded");
    }
    let replayed = Replayed::new(behind, Arc::new(SystemClock));
    replayed.load(&recorded.workflow, recorded.attempts.clone());
    for one in &recorded.attempts {
        let Some(arguments) = one.arguments.clone() else {
            return Err(Failure::new(format!(
                "the arguments of {} attempt {} were too large to be recorded",
                name_of(one),
                one.number
            )));
        };
        // The function may have moved since; the engine's own steps are in no catalog.
        let declared = current.catalog.function(&one.entry.name);
        let entry = Entry {
            kind: one.entry.kind.clone(),
            name: one.entry.name.clone(),
            module: declared.map_or_else(|| one.entry.module.clone(), |found| found.module.clone()),
            function: declared.map_or_else(|| one.entry.function.clone(), |found| found.function.clone()),
        };
        let (messages, mut lines) = mpsc::channel(WAITING_LINES);
        let spec = AttemptSpec {
            attempt: one.attempt.clone(),
            bundle: current.bundle.clone(),
            entry,
            source: None,
            arguments,
            context: one.context.clone(),
            limits: cx.bounds.attempt.clone(),
            rights: Rights {
                trust: if one.trusted { Trust::Trusted } else { Trust::Restricted },
                network: Network::None,
                modules: domain::ModuleRules::default(),
                minimum: Tier::Process,
            },
            is_first: true,
            is_nice: false,
            messages,
        };
        let tell = async {
            while let Some(message) = lines.recv().await {
                if let WorkerMessage::Line(line) = message
                    && !quiet
                {
                    output::note(&format!("{} | {}", name_of(one), output::plain(&line.message)));
                }
            }
        };
        let stop = CancellationToken::new();
        let interrupted = async {
            drop(tokio::signal::ctrl_c().await);
            stop.cancel();
            std::future::pending::<()>().await;
        };
        let run = async { tokio::join!(replayed.run(spec, stop.clone()), tell).0 };
        let ran = tokio::select! {
            biased;
            ran = run => ran,
            () = interrupted => return Err(Failure::new("interrupted")),
        };
        ran.map_err(|error| Failure::new(output::chain(&error)))?;
        if stop.is_cancelled() {
            return Err(Failure::new("interrupted"));
        }
    }
    Ok(replayed.take())
}

/// A step, with the item that an attempt is about.
fn name_of(one: &Recording) -> String {
    named(&one.step, one.item)
}

/// As a terminal may show it: a recording says what it likes.
fn named(step: &str, item: Option<u32>) -> String {
    let step = output::plain(step);
    item.map_or_else(|| step.clone(), |item| format!("{step}[{item}]"))
}

fn ended(outcome: &domain::Outcome) -> String {
    match outcome {
        domain::Outcome::Succeeded { .. } => "succeeded".to_owned(),
        domain::Outcome::Failed { error } => {
            let message = error.message.lines().next().unwrap_or_default();
            output::plain(&format!("failed: {}: {message}", error.kind))
        }
        domain::Outcome::TimedOut { .. } => "timed out".to_owned(),
        domain::Outcome::Cancelled => "was cancelled".to_owned(),
    }
}

/// An attempt in a line, and below it what differs first.
pub(super) fn show(one: &Comparison) {
    let name = named(&one.step, one.item);
    let how = if one.difference.is_none() {
        "as recorded"
    } else {
        "NOT as recorded"
    };
    output::data(&format!(
        "{name} attempt {}: {how}, {}, {} call(s)",
        one.number,
        ended(&one.replayed),
        one.calls
    ));
    let Some(difference) = &one.difference else { return };
    let shown = |value: &Option<Value>| match value {
        Some(value) => output::plain(&format!(
            "{} {}",
            value["name"].as_str().unwrap_or_default(),
            value["args"]
        )),
        None => "nothing".to_owned(),
    };
    match difference {
        Difference::NotRecorded => output::data("  nothing was recorded of it, so whatever it asked for was refused"),
        Difference::Answer { number, call } => {
            output::data(&format!(
                "  call {number}: the answer to `{}` was not recorded, or was too large to be",
                output::plain(call)
            ));
        }
        Difference::Call {
            number,
            recorded,
            replayed,
        } => {
            output::data(&format!("  call {number} recorded: {}", shown(recorded)));
            output::data(&format!("  call {number} now:      {}", shown(replayed)));
        }
        Difference::Outcome { at, recorded, replayed } => {
            let at = if at.is_empty() { "its end" } else { at };
            output::data(&output::plain(&format!("  {at} recorded: {recorded}")));
            output::data(&output::plain(&format!("  {at} now:      {replayed}")));
            if let Some(RecordedOutcome::Cut { bytes, .. }) = &one.recorded {
                output::data(&format!("  (its value of {bytes} bytes was too large to be recorded)"));
            }
        }
    }
}

fn export(path: &Path, recorded: &RecordedRun, json: bool) -> Outcome {
    let fail = |error: String| Failure::new(format!("`{}` can't be written: {error}", path.display()));
    let text = serde_json::to_string_pretty(recorded).map_err(|error| fail(error.to_string()))?;
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut file| {
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        file.persist(path).map_err(|error| error.error)
    });
    written.map_err(|error| fail(error.to_string()))?;
    if json {
        output::json(&json!({"run": recorded.run, "file": path, "attempts": recorded.attempts.len()}));
    } else {
        output::data(&path.display().to_string());
        output::note(&format!(
            "{} attempt(s) of run {}; in it is what the code was given and answered, so keep it as you keep the data",
            recorded.attempts.len(),
            recorded.run
        ));
    }
    Ok(ExitCode::SUCCESS)
}
