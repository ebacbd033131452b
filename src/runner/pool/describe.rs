//! Describes a bundle: has a worker import its files, and another go on behind the one that took it down.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::fork::NoFork;
use super::{Shared, TRIES, millis};
use crate::domain::{ModuleRules, Network, Outcome, Rights, StepError, Tier, Trust};
use crate::error::Finding;
use crate::runner::environment::ROOT_NAME;
use crate::runner::jail::Jail;
use crate::runner::limits::ForkLimits;
use crate::runner::protocol::{Resume, Task};
use crate::runner::worker::{BroughtUp, Description};
use crate::runner::{BundleDescription, BundleRef, RunnerError};

const DESCRIBE_PATIENCE: Duration = Duration::from_secs(30);
/// How many bundles are described at once.
pub(super) const DESCRIPTIONS: usize = 2;
/// How many files of a bundle may take their worker down before the rest is left undescribed.
const MAX_CRASHES: u32 = 20;
/// Modules are imported to be described, which is no reason to reach anything.
const DESCRIBING: Rights = Rights {
    trust: Trust::Trusted,
    network: Network::None,
    modules: ModuleRules {
        allow: None,
        deny: Vec::new(),
    },
    minimum: Tier::Process,
};

impl Shared {
    /// What is in a bundle, or what keeps it from being described.
    pub(super) async fn describe(&self, bundle: &BundleRef) -> Result<BundleDescription, RunnerError> {
        let _one = self.descriptions.acquire().await.map_err(|_| RunnerError::Stopping)?;
        let started = Instant::now();
        let described = tokio::time::timeout(DESCRIBE_PATIENCE, self.describe_all(bundle)).await;
        described.unwrap_or_else(|_| {
            let message = format!(
                "the workspace could not be described within {} s: a module of it does not end its import",
                DESCRIBE_PATIENCE.as_secs()
            );
            Ok(BundleDescription {
                findings: vec![
                    Finding::new(ROOT_NAME, "import_failed", message).hint("move work out of the top level of modules"),
                ],
                ms: millis(started.elapsed()),
                ..BundleDescription::default()
            })
        })
    }

    /// All of its modules, by as many workers as that takes.
    async fn describe_all(&self, bundle: &BundleRef) -> Result<BundleDescription, RunnerError> {
        let started = Instant::now();
        let limits = &self.settings.limits;
        let mut lost = RunnerError::Stopping;
        let mut modules = Vec::new();
        let mut resume: Option<Resume> = None;
        let mut failures = 0;
        // How many files a worker had described when it was lost, and how often that was doubted.
        let mut lost_behind = None;
        let mut doubts = 0;
        while failures < TRIES {
            let worker = match self
                .fork(
                    Task::Describe,
                    bundle,
                    None,
                    ForkLimits::from(limits),
                    (&Jail::from(&DESCRIBING), self.settings.isolation.minimum),
                    false,
                )
                .await
            {
                Ok(worker) => worker,
                Err(NoFork::Refused(error)) => return Ok(undescribed(*error)),
                Err(NoFork::Lost(error)) => {
                    lost = error;
                    failures += 1;
                    continue;
                }
            };
            let (described, outcome) = match worker.bring_up(ROOT_NAME, limits, self.settings.import_timeout).await {
                BroughtUp::Ready(worker) => match worker.describe(ROOT_NAME, resume.as_ref(), limits).await {
                    Ok(Description {
                        modules: rest,
                        files,
                        ms,
                    }) => {
                        modules.extend(rest);
                        let ms = if resume.is_none() {
                            ms
                        } else {
                            millis(started.elapsed())
                        };
                        return Ok(description(modules, files, ms));
                    }
                    Err((described, outcome)) => (described, outcome),
                },
                BroughtUp::Failed(outcome, _) => (Vec::new(), outcome),
                BroughtUp::No(reason) => {
                    lost = self.why_lost(&bundle.environment, reason);
                    failures += 1;
                    continue;
                }
            };
            // The next file may have taken it down, or somebody else: the system for want of memory, or with the process that
            // it came from. What a file does it does again, so it is blamed when the next worker ends at the same place.
            if is_crash(&outcome) && lost_behind != Some(described.len()) && doubts < MAX_CRASHES {
                lost_behind = Some(described.len());
                doubts += 1;
                continue;
            }
            lost_behind = None;
            let progress = resume.is_none() || !described.is_empty();
            modules.extend(described);
            if let Outcome::Failed { error } | Outcome::TimedOut { error } = &outcome
                && progress
                && resume.as_ref().is_none_or(|resume| resume.crashes < MAX_CRASHES)
            {
                // Another worker goes on behind the file that took it down.
                resume = Some(behind(&modules, error, resume.map_or(0, |resume| resume.crashes)));
                continue;
            }
            let files = modules.len() as u64;
            let mut description = description(modules, files, millis(started.elapsed()));
            description.findings.push(interrupted(&description.modules, &outcome));
            return Ok(description);
        }
        Err(lost)
    }
}

/// Whether a process ended that nobody had told to.
fn is_crash(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Failed { error } if error.kind == "crashed")
}

/// Where to go on after the worker that has described these files was lost.
fn behind(modules: &[Value], error: &StepError, crashes: u32) -> Resume {
    let mut taken = Vec::new();
    for module in modules {
        let path = module["path"].as_str().unwrap_or_default();
        for (list, kind) in [
            ("workflows", "workflow"),
            ("data_providers", "data_provider"),
            ("nodes", "node"),
        ] {
            for declared in module[list].as_array().into_iter().flatten() {
                let name = declared["name"].as_str().unwrap_or_default();
                taken.push((kind.to_owned(), name.to_owned(), format!("{path}:{}", declared["line"])));
            }
        }
    }
    Resume {
        described: modules.len(),
        reason: error.message.clone(),
        taken,
        crashes: crashes + 1,
    }
}

/// The description of a bundle that may not even be imported here.
fn undescribed(error: StepError) -> BundleDescription {
    let message = error
        .message
        .replace("the step was not run", "the workspace was not looked at");
    BundleDescription {
        findings: vec![
            Finding::new(ROOT_NAME, error.kind, message)
                .hint("`WEFT_ISOLATION_MINIMUM` says what is needed; docs/operations.md says what gives it"),
        ],
        ..BundleDescription::default()
    }
}

fn description(mut modules: Vec<Value>, files: u64, ms: f64) -> BundleDescription {
    modules.sort_by(|a, b| text(a, "path").cmp(text(b, "path")));
    let findings = modules
        .iter()
        .flat_map(|module| module["findings"].as_array().into_iter().flatten())
        .map(|finding| {
            let place = |name: &str| finding[name].as_u64().unwrap_or(1);
            let pointer = format!("{}:{}:{}", text(finding, "path"), place("line"), place("column"));
            let mapped = Finding::new(pointer, text(finding, "code"), text(finding, "message"));
            match finding["hint"].as_str() {
                Some(hint) => mapped.hint(hint),
                None => mapped,
            }
        })
        .collect();
    BundleDescription {
        modules,
        findings,
        files,
        ms,
    }
}

/// A description that did not come to its end: a module of the workspace ended the process.
fn interrupted(modules: &[Value], outcome: &Outcome) -> Finding {
    let why = match outcome {
        Outcome::Failed { error } | Outcome::TimedOut { error } => error.message.as_str(),
        Outcome::Succeeded { .. } | Outcome::Cancelled => "it ended",
    };
    let after = modules
        .last()
        .map(|module| format!(" after `{}`", text(module, "path")))
        .unwrap_or_default();
    Finding::new(
        ROOT_NAME,
        "import_failed",
        format!("describing the workspace ended early{after}: {why}"),
    )
    .hint("importing a module must not end the process")
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}
