//! `artifacts.*`: named outputs of the run, written and read in pieces that fit into frames.
//!
//! An upload is bound to the attempt that began it and to the size that it announced; its memory is taken out of a share
//! that all attempts of this process have together.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::{Answer, Asker, Broker, args, refusal, refusal_of};
use crate::domain::{ArtifactId, RunId, sha256_hex};
use crate::runner::Refusal;
use crate::store::repo::artifacts::{Artifact, MAX_BYTES, MAX_RUN_ARTIFACTS, MAX_RUN_BYTES, Written};

/// Most bytes of a piece; base64 makes a third more of it, and a frame has room for that.
const PIECE: u64 = 512 << 10;
/// How many uploads an attempt may have begun.
const OPEN_UPLOADS: usize = 4;
/// How long an upload waits for its share of memory.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most characters of a name.
const NAME_CHARS: usize = 200;

/// The uploads of one attempt.
#[derive(Debug, Default)]
pub(super) struct Uploads(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    begun: u64,
    open: HashMap<u64, Upload>,
}

#[derive(Debug)]
struct Upload {
    name: String,
    media_type: Option<String>,
    size: u64,
    bytes: Vec<u8>,
    _memory: OwnedSemaphorePermit,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    name: String,
    size: u64,
    media_type: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Append {
    upload: u64,
    offset: u64,
    data: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Commit {
    upload: u64,
    sha256: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    name: Option<String>,
    id: Option<String>,
    #[serde(default)]
    offset: u64,
}

pub(super) async fn call(broker: &Broker, verb: &str, args: Value) -> Answer {
    let Asker::Step { run, step, .. } = &broker.bound.asker else {
        return Err(broker.not_available(&format!("artifacts.{verb}")));
    };
    match verb {
        "begin" => begin(broker, run, args::read("artifacts.begin", args)?).await,
        "append" => append(broker, args::read("artifacts.append", args)?),
        "commit" => commit(broker, run, step, args::read("artifacts.commit", args)?).await,
        "read" => read(broker, run, args::read("artifacts.read", args)?).await,
        "list" => {
            let found = broker.bound.cx.artifacts.list(&broker.bound.scope, run).await;
            let found = found.map_err(|error| refusal_of(&super::Error::Store(error)))?;
            Ok(Value::Array(found.iter().map(shown).collect()))
        }
        _ => Err(broker.not_available(&format!("artifacts.{verb}"))),
    }
}

fn shown(artifact: &Artifact) -> Value {
    json!({
        "id": artifact.id,
        "name": artifact.name,
        "size": artifact.size,
        "sha256": artifact.sha256,
        "media_type": artifact.media_type,
        "step": artifact.step,
        "created_at": artifact.created_at,
    })
}

async fn begin(broker: &Broker, run: &RunId, asked: Begin) -> Answer {
    let Begin { name, size, media_type } = asked;
    let bad = |c: char| c.is_control() || matches!(c, '/' | '\\');
    if name.trim().is_empty()
        || name.chars().count() > NAME_CHARS
        || name.chars().any(bad)
        || matches!(&*name, "." | "..")
    {
        return Err(refusal(
            "invalid",
            format!(
                "the name of an artifact has 1 to {NAME_CHARS} characters, without `/`, `\\` and control characters"
            ),
        ));
    }
    let good_type = |text: &String| text.len() <= 100 && text.bytes().all(|b| (b' '..=b'~').contains(&b));
    if !media_type.as_ref().is_none_or(good_type) {
        return Err(refusal("invalid", "`media_type` is not one, as `text/csv` is"));
    }
    if size > MAX_BYTES {
        return Err(refusal(
            "too_large",
            format!("artifact `{name:.60}` has {size} bytes; the limit is {MAX_BYTES}: split it"),
        ));
    }
    let (cx, scope) = (&broker.bound.cx, &broker.bound.scope);
    match cx.artifacts.has_room(scope, run, size).await {
        Ok(true) => {}
        Ok(false) => return Err(full()),
        Err(error) => return Err(refusal_of(&super::Error::Store(error))),
    }
    let crowded = || {
        let message = format!("an attempt may write {OPEN_UPLOADS} artifacts at a time; finish one first");
        refusal("invalid", message)
    };
    if broker.uploads.state(|state| state.open.len()) >= OPEN_UPLOADS {
        return Err(crowded());
    }
    let shares = u32::try_from(size.div_ceil(1024)).unwrap_or(u32::MAX);
    let memory = tokio::time::timeout(PATIENCE, cx.uploads.clone().acquire_many_owned(shares)).await;
    let Ok(Ok(memory)) = memory else {
        let message = "too many artifacts are being written on this instance; try again later";
        return Err(refusal("unavailable", message));
    };
    let upload = Upload {
        name,
        media_type,
        size,
        bytes: Vec::new(),
        _memory: memory,
    };
    let number = broker.uploads.state(|state| {
        if state.open.len() >= OPEN_UPLOADS {
            return None;
        }
        state.begun += 1;
        state.open.insert(state.begun, upload);
        Some(state.begun)
    });
    let number = number.ok_or_else(crowded)?;
    Ok(json!({"upload": number, "piece_bytes": PIECE}))
}

fn append(broker: &Broker, asked: Append) -> Answer {
    let data = STANDARD
        .decode(&asked.data)
        .map_err(|_| refusal("invalid", "`data` is not base64"))?;
    broker.uploads.state(|state| {
        let upload = state.open.get_mut(&asked.upload).ok_or_else(unknown)?;
        let end = asked.offset.saturating_add(data.len() as u64);
        if data.len() as u64 > PIECE || asked.offset != upload.bytes.len() as u64 || end > upload.size {
            let there = upload.bytes.len();
            state.open.remove(&asked.upload);
            return Err(refusal(
                "invalid",
                format!(
                    "a piece must begin at {there}, where the last ended, have at most {PIECE} bytes, and fit the size"
                ),
            ));
        }
        upload.bytes.extend_from_slice(&data);
        Ok(Value::Null)
    })
}

async fn commit(broker: &Broker, run: &RunId, step: &str, asked: Commit) -> Answer {
    let upload = broker
        .uploads
        .state(|state| state.open.remove(&asked.upload))
        .ok_or_else(unknown)?;
    let sha256 = sha256_hex(&upload.bytes);
    if upload.bytes.len() as u64 != upload.size || sha256 != asked.sha256.to_ascii_lowercase() {
        return Err(refusal(
            "invalid",
            "the bytes that arrived are not those that were announced",
        ));
    }
    broker.pace_writes().await?;
    let (cx, scope) = (&broker.bound.cx, &broker.bound.scope);
    let artifact = Artifact {
        id: ArtifactId::of(run, &upload.name, &sha256),
        name: upload.name,
        size: upload.size,
        sha256,
        media_type: upload.media_type,
        step: step.to_owned(),
        attempt: broker.bound.attempt.clone(),
        created_at: cx.clock.now(),
    };
    match cx.artifacts.put(scope, run, &artifact, upload.bytes.into()).await {
        Ok(Written::Done) => Ok(shown(&artifact)),
        Ok(Written::Full) => Err(full()),
        Err(error) => Err(refusal_of(&super::Error::Store(error))),
    }
}

async fn read(broker: &Broker, run: &RunId, asked: Read) -> Answer {
    let (cx, scope) = (&broker.bound.cx, &broker.bound.scope);
    let failed = |error| refusal_of(&super::Error::Store(error));
    let found = match (&asked.id, &asked.name) {
        (Some(id), None) => match id.parse::<ArtifactId>() {
            Ok(id) => cx.artifacts.get(scope, run, &id).await.map_err(failed)?,
            Err(_) => None,
        },
        (None, Some(name)) => {
            let all = cx.artifacts.list(scope, run).await.map_err(failed)?;
            all.into_iter().find(|artifact| artifact.name == *name)
        }
        _ => return Err(refusal("invalid", "`artifacts.read` needs a `name` or an `id`")),
    };
    let Some(artifact) = found else {
        if asked.id.is_some() {
            broker.record("artifacts.read", "not_found").await;
        }
        let wanted = asked.id.or(asked.name).unwrap_or_default();
        return Err(refusal("not_found", format!("this run has no artifact `{wanted:.80}`")));
    };
    let bytes = cx
        .artifacts
        .read(scope, &artifact, asked.offset, PIECE)
        .await
        .map_err(failed)?;
    let mut answer = shown(&artifact);
    answer["offset"] = json!(asked.offset);
    answer["data"] = Value::String(STANDARD.encode(&bytes));
    Ok(answer)
}

fn unknown() -> Refusal {
    refusal("invalid", "there is no such upload; `artifacts.begin` begins one")
}

fn full() -> Refusal {
    refusal(
        "too_large",
        format!("the artifacts of a run are at most {MAX_RUN_ARTIFACTS}, and {MAX_RUN_BYTES} bytes together"),
    )
}

impl Uploads {
    fn state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
