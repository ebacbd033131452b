//! Where recordings of runs come from: the data of this machine, a server, or a file.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::run::LOCAL;
use super::{Failure, output};
use crate::boot;
use crate::config::{Backend, Config, Environment, env_var, may_be_told_a_key};
use crate::domain::{OrgId, RECORDING_SCHEMA, RecordedRun, RunId};
use crate::tenancy::{self, Scope, operator_in};
use crate::usecase::organization;
use crate::usecase::query_run::{self, RunQuery};
use crate::usecase::{Context, recording};

/// Most bytes of a file or an answer.
const LARGEST: u64 = 64 << 20;
/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Runs on one page of a list.
const PAGE: usize = 50;

/// Flags that say where recordings are.
#[derive(Debug, Clone, Args)]
pub(super) struct Records {
    /// File with a recording, as `weft replay RUN --export FILE` writes it
    #[arg(long, value_name = "FILE", conflicts_with_all = ["server", "organization"])]
    from: Vec<PathBuf>,
    /// Server that has the run, as `https://weft.example.com`; the data of this machine when missing. The key for it is
    /// `WEFT_SERVER_KEY`
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Organization of the run; `local` when missing
    #[arg(long, short = 'o', value_name = "ORG")]
    organization: Option<OrgId>,
}

/// Where they are read.
pub(super) enum Source {
    /// In files, read already.
    Files(Vec<RecordedRun>),
    /// From a server.
    Server {
        client: reqwest::Client,
        base: String,
        key: String,
        organization: OrgId,
    },
    /// On this machine.
    Here {
        base: Box<boot::Base>,
        cx: Box<Context>,
        scope: Scope,
    },
}

impl Records {
    /// Opens it.
    ///
    /// # Errors
    /// When a file is none, the server has no key, or the data can't be opened.
    pub(super) async fn open(&self, environment: &Environment, config: &Config) -> Result<Source, Failure> {
        if !self.from.is_empty() {
            let runs: Result<_, _> = self
                .from
                .iter()
                .map(|path| read_file(&environment.current_dir().join(path)))
                .collect();
            return Ok(Source::Files(runs?));
        }
        let local = || {
            LOCAL
                .parse::<OrgId>()
                .map_err(|error| Failure::new(format!("`{LOCAL}` is no organization: {error}")))
        };
        if let Some(server) = &self.server {
            if !may_be_told_a_key(server) {
                return Err(Failure::new("`--server` is not the address of an installation")
                    .hint("give `https://HOST`; `http://` is for this machine only, since a key is sent"));
            }
            let key = environment.get(&env_var::WEFT_SERVER_KEY).ok_or_else(|| {
                Failure::new(format!("there is no key for `{server}`")).hint(
                    "set `WEFT_SERVER_KEY` to a function key with the scope `run:read`; `weft keys create` makes one",
                )
            })?;
            let client = reqwest::Client::builder().timeout(PATIENCE).build();
            return Ok(Source::Server {
                client: client.map_err(|error| Failure::new(format!("no requests can be made: {error}")))?,
                base: server.trim_end_matches('/').to_owned(),
                key: key.to_owned(),
                organization: self.organization.clone().map_or_else(local, Ok)?,
            });
        }
        if self.organization.is_none() && config.storage.backend != Backend::Sqlite {
            return Err(
                Failure::new("no organization is named, and the store is not this machine's own")
                    .hint("name one with `--organization`; `weft org list` shows them"),
            );
        }
        let base = boot::base(config.clone())?;
        let cx = boot::opened(&base).await?;
        let platform = tenancy::operator();
        let org = organization::get(&cx, &platform, &self.organization.clone().map_or_else(local, Ok)?)
            .await?
            .id;
        Ok(Source::Here {
            scope: operator_in(&platform, &org),
            base: Box::new(base),
            cx: Box::new(cx),
        })
    }
}

impl Source {
    /// A run's recording.
    ///
    /// # Errors
    /// When there is none, or it can't be read.
    pub(super) async fn run(&self, id: &RunId) -> Result<RecordedRun, Failure> {
        let run = match self {
            Self::Files(runs) => runs.iter().find(|run| run.run == *id).cloned().ok_or_else(|| {
                let names: Vec<_> = runs.iter().map(|run| run.run.as_str()).collect();
                Failure::new(format!("run {id} is in none of the files"))
                    .hint(format!("they hold {}", names.join(", ")))
            })?,
            Self::Server { .. } => self.recording(id).await?,
            Self::Here { cx, scope, .. } => recording::of_run(cx, scope, id, None).await?,
        };
        if recording::is_missing(&run) {
            return Err(Failure::new(format!("nothing was recorded of run {id}")).hint(
                "attempts are recorded as `WEFT_RECORD_ATTEMPTS` says; runs of before it, and steps that ran no code, have no recording",
            ));
        }
        if !run.left_out.is_empty() {
            output::note(&format!(
                "warning: {} recordings of run {id} are left out: all of them are too large for one answer",
                run.left_out.len()
            ));
        }
        Ok(run)
    }

    /// The one run of a file, where no run was named.
    pub(super) fn only(&self) -> Option<RecordedRun> {
        match self {
            Self::Files(runs) if runs.len() == 1 => runs.first().cloned(),
            _ => None,
        }
    }

    /// The newest runs of a workflow that have ended and of which something was recorded.
    ///
    /// # Errors
    /// When they can't be read.
    pub(super) async fn latest(&self, workflow: &str, count: usize) -> Result<Vec<RecordedRun>, Failure> {
        if let Self::Files(runs) = self {
            let runs = runs.iter().filter(|run| run.workflow == workflow);
            return Ok(runs.take(count).cloned().collect());
        }
        let mut found = Vec::new();
        let mut cursor: Option<String> = None;
        let mut page_after = None;
        loop {
            let ids: Vec<RunId> = match self {
                Self::Files(_) => Vec::new(),
                Self::Server { .. } => {
                    let after = cursor
                        .as_ref()
                        .map(|cursor| format!("&cursor={cursor}"))
                        .unwrap_or_default();
                    let page: Page = self
                        .ask(&format!("/api/runs?workflow={workflow}&limit={PAGE}{after}"))
                        .await?;
                    cursor = page.next_cursor;
                    let ended = |run: &Listed| matches!(run.status.as_str(), "succeeded" | "failed" | "timed_out");
                    page.items.into_iter().filter(ended).map(|run| run.run_id).collect()
                }
                Self::Here { cx, scope, .. } => {
                    let query = RunQuery {
                        workflow: Some(workflow.to_owned()),
                        limit: PAGE,
                        cursor: page_after.take(),
                        ..RunQuery::default()
                    };
                    let (runs, next) = query_run::list(cx, scope, query).await?;
                    page_after = next;
                    runs.into_iter()
                        .filter(|run| run.status.is_terminal())
                        .map(|run| run.run)
                        .collect()
                }
            };
            for id in ids {
                let run = match self {
                    Self::Here { cx, scope, .. } => recording::of_run(cx, scope, &id, None).await?,
                    _ => self.recording(&id).await?,
                };
                if !recording::is_missing(&run) {
                    found.push(run);
                }
                if found.len() >= count {
                    return Ok(found);
                }
            }
            if cursor.is_none() && page_after.is_none() {
                return Ok(found);
            }
        }
    }

    /// Ends what it has started.
    pub(super) async fn close(self) {
        if let Self::Here { base, cx, .. } = self {
            cx.leave().await;
            base.runner.shutdown().await;
        }
    }

    async fn recording(&self, id: &RunId) -> Result<RecordedRun, Failure> {
        let answer: Value = self.ask(&format!("/api/runs/{id}/recording")).await?;
        read(answer, &format!("the recording of run {id}"))
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let Self::Server {
            client,
            base,
            key,
            organization,
        } = self
        else {
            return Err(Failure::new("there is no server to ask"));
        };
        let url = format!("{base}{path}");
        let request = client
            .get(&url)
            .header("x-functions-key", key)
            .header("X-Organization-Id", organization.as_str());
        let failed = |error: reqwest::Error| {
            Failure::new(format!("`{base}` can't be asked: {error}"))
                .hint("check `--server`; `curl …/api/health` shows whether it is there")
        };
        let answer = request.send().await.map_err(failed)?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(failed)?;
        if bytes.len() as u64 > LARGEST {
            return Err(Failure::new(format!(
                "the answer of `{base}` has more than {LARGEST} bytes"
            )));
        }
        if !status.is_success() {
            let problem: Problem = serde_json::from_slice(&bytes).unwrap_or_default();
            let detail = if problem.detail.is_empty() {
                status.to_string()
            } else {
                problem.detail
            };
            let failure = Failure::new(format!("`{base}` says: {}", output::plain(&detail)));
            return Err(match problem.hint {
                Some(hint) => failure.hint(output::plain(&hint)),
                None => failure,
            });
        }
        serde_json::from_slice(&bytes).map_err(|error| {
            Failure::new(format!("what `{base}` answers can't be read: {error}")).hint("is it a Weft of this version?")
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    detail: String,
    hint: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    items: Vec<Listed>,
    next_cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    run_id: RunId,
    status: String,
}

fn read_file(path: &std::path::Path) -> Result<RecordedRun, Failure> {
    let shown = path.display();
    let size = std::fs::metadata(path).map(|about| about.len());
    let text = match size {
        Ok(size) if size > LARGEST => Err(std::io::Error::other(format!("it has more than {LARGEST} bytes"))),
        Ok(_) => std::fs::read(path),
        Err(error) => Err(error),
    };
    let text = text.map_err(|error| Failure::new(format!("`{shown}` can't be read: {error}")))?;
    let value = serde_json::from_slice(&text).map_err(|error| {
        Failure::new(format!("`{shown}` holds no recording: {error}"))
            .hint("`weft replay RUN --export FILE` writes one")
    })?;
    read(value, &format!("`{shown}`"))
}

/// A recording, if it is of a shape that this build knows: of another one it may read what is not meant.
fn read(value: Value, what: &str) -> Result<RecordedRun, Failure> {
    let attempts = value["attempts"].as_array();
    let shapes = std::iter::once(&value).chain(attempts.into_iter().flatten());
    for shape in shapes.filter_map(|part| part.get("schema")) {
        if shape.as_u64() != Some(u64::from(RECORDING_SCHEMA)) {
            return Err(Failure::new(format!(
                "{what} is of shape {}, and this version reads shape {RECORDING_SCHEMA}",
                output::plain(&shape.to_string())
            ))
            .hint(
                "use the version of Weft that has recorded it, or a newer one; `weft --version` shows which this is",
            ));
        }
    }
    serde_json::from_value(value).map_err(|error| {
        Failure::new(format!("{what} holds no recording: {error}")).hint("`weft replay RUN --export FILE` writes one")
    })
}
