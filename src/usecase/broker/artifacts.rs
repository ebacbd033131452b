//! `artifacts.*`: named outputs of the run, written and read in pieces that fit into frames.
//!
//! An upload is bound to the attempt that began it and to the size and digest that it announced; its memory is taken out of a share
//! that all attempts of this process have together. One that is larger than a part of a blob is never held whole: its parts are laid
//! aside under the announced digest as they come, and become a blob when the bytes that came have that digest. So nothing has to be
//! copied to the name that its bytes give it, and nobody ever sees bytes under another digest than theirs.
//!
//! The bytes are sent even where there is a blob of that digest: otherwise a digest would be enough to get what another run of the
//! organization has written.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::{Answer, Asker, Broker, args, refusal, refusal_of};
use crate::audit::Event as AuditEvent;
use crate::domain::{ArtifactId, RunId};
use crate::runner::Refusal;
use crate::store;
use crate::store::port::{self, PART_BYTES};
use crate::store::repo::artifacts::{Artifact, MAX_RUN_ARTIFACTS, Written};
use crate::store::repo::usage::{Room, Taken};
use crate::usecase::artifact::{self, Wanted};
use crate::usecase::policy;

/// Most bytes of a piece; base64 makes a third more of it, and a frame has room for that.
const PIECE: u64 = 512 << 10;
/// Most bytes of an artifact whose digest is not announced, which is held whole.
const MAX_UNANNOUNCED: u64 = 32 << 20;
/// What an upload holds that is laid aside in parts: the part in the making, and the one that is on its way.
const HELD: u64 = 2 * PART_BYTES as u64;
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
    open: HashMap<u64, Arc<tokio::sync::Mutex<Upload>>>,
}

struct Upload {
    name: String,
    media_type: Option<String>,
    size: u64,
    /// Where its parts are laid aside, when it is too large to be held.
    aside: Option<Aside>,
    digest: aws_lc_rs::digest::Context,
    arrived: u64,
    held: BytesMut,
    /// What of the organization's quota it will take; given back when it comes to nothing.
    room: Option<Room>,
    _memory: OwnedSemaphorePermit,
}

#[derive(Debug, Clone)]
struct Aside {
    upload: port::Upload,
    sha256: String,
    until: u64,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload")
            .field("size", &self.size)
            .field("arrived", &self.arrived)
            .field("aside", &self.aside)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Begin {
    name: String,
    size: u64,
    media_type: Option<String>,
    sha256: Option<String>,
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
        "append" => append(broker, run, args::read("artifacts.append", args)?).await,
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
    let Begin {
        name,
        size,
        media_type,
        sha256,
    } = asked;
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
    let sha256 = sha256.map(|text| text.to_ascii_lowercase());
    let good_digest = |text: &String| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if !sha256.as_ref().is_none_or(good_digest) {
        return Err(refusal("invalid", "`sha256` is not a digest of 64 hexadecimal digits"));
    }
    let quota = broker.bound.cx.artifacts.quotas().artifact;
    let limit = if sha256.is_some() {
        quota
    } else {
        quota.min(MAX_UNANNOUNCED)
    };
    if size > limit {
        return Err(refusal(
            "too_large",
            format!("artifact `{name:.60}` has {size} bytes; the limit is {limit}: split it"),
        ));
    }
    let (cx, scope) = (&broker.bound.cx, &broker.bound.scope);
    match cx.artifacts.has_room(scope, run, size).await {
        Ok(true) => {}
        Ok(false) => return Err(full(broker)),
        Err(error) => return Err(refusal_of(&super::Error::Store(error))),
    }
    let crowded = || {
        let message = format!("an attempt may write {OPEN_UPLOADS} artifacts at a time; finish one first");
        refusal("invalid", message)
    };
    if broker.uploads.state(|state| state.open.len()) >= OPEN_UPLOADS {
        return Err(crowded());
    }
    let room = room_for(broker, &name, size).await?;
    let aside = sha256.filter(|_| size > PART_BYTES as u64).map(|sha256| Aside {
        upload: port::Upload(u64::from_le_bytes(cx.entropy.bytes())),
        sha256,
        until: 0,
    });
    let held = if aside.is_some() { size.min(HELD) } else { size };
    let shares = u32::try_from(held.div_ceil(1024)).unwrap_or(u32::MAX);
    let memory = tokio::time::timeout(PATIENCE, cx.uploads.clone().acquire_many_owned(shares)).await;
    let Ok(Ok(memory)) = memory else {
        let message = "too many artifacts are being written on this instance; try again later";
        return Err(refusal("unavailable", message));
    };
    let upload = Upload {
        name,
        media_type,
        size,
        aside,
        digest: aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256),
        arrived: 0,
        held: BytesMut::new(),
        room: Some(room),
        _memory: memory,
    };
    let number = broker.uploads.state(|state| {
        if state.open.len() >= OPEN_UPLOADS {
            return None;
        }
        state.begun += 1;
        state
            .open
            .insert(state.begun, Arc::new(tokio::sync::Mutex::new(upload)));
        Some(state.begun)
    });
    let number = number.ok_or_else(crowded)?;
    Ok(json!({"upload": number, "piece_bytes": PIECE}))
}

/// Takes room for it in the organization's quota, before its first byte is sent.
async fn room_for(broker: &Broker, name: &str, size: u64) -> Result<Room, Refusal> {
    let (cx, scope) = (&broker.bound.cx, &broker.bound.scope);
    let quota = policy::artifact_bytes(cx, scope).await;
    let (quota, by) = quota.map_err(|error| refusal_of(&error))?;
    match cx.usage.take(scope, size, quota).await.map_err(storage)? {
        Taken::Room(room) => Ok(room),
        Taken::Full { used } => {
            let detail = json!({"quota": "artifactBytes", "limit": quota, "by": by, "used": used, "size": size});
            broker.record_as(AuditEvent::QuotaExceeded, detail).await;
            tracing::warn!(
                org.id = %scope.org(),
                quota.bytes = quota,
                quota.used = used,
                "an artifact was refused: the organization's quota is used up"
            );
            Err(refusal(
                "quota_exceeded",
                format!(
                    "artifact `{name:.60}` has {size} bytes, and the organization's artifacts have {used} of at most {quota}; \
                     nothing was sent: delete runs that nobody needs, or ask an administrator for more (`GET /api/usage`)"
                ),
            ))
        }
    }
}

async fn append(broker: &Broker, run: &RunId, asked: Append) -> Answer {
    let data = STANDARD
        .decode(&asked.data)
        .map_err(|_| refusal("invalid", "`data` is not base64"))?;
    let upload = broker.uploads.state(|state| state.open.get(&asked.upload).cloned());
    let upload = upload.ok_or_else(unknown)?;
    let mut upload = upload.lock().await;
    let there = upload.arrived;
    let end = asked.offset.saturating_add(data.len() as u64);
    let taken = if data.len() as u64 > PIECE || asked.offset != there || end > upload.size {
        Err(refusal(
            "invalid",
            format!(
                "a piece must begin at {there}, where the last ended, have at most {PIECE} bytes, and fit the size"
            ),
        ))
    } else {
        upload.digest.update(&data);
        upload.held.extend_from_slice(&data);
        upload.arrived = end;
        spill(broker, run, &mut upload).await
    };
    if let Err(refused) = taken {
        broker.uploads.state(|state| state.open.remove(&asked.upload));
        give_up(broker, upload.aside.as_ref()).await;
        return Err(refused);
    }
    Ok(Value::Null)
}

/// Lays aside what makes a whole part.
async fn spill(broker: &Broker, run: &RunId, upload: &mut Upload) -> Result<(), Refusal> {
    let Upload { aside, held, size, .. } = upload;
    let Some(aside) = aside else { return Ok(()) };
    while held.len() >= PART_BYTES {
        // Others may have filled the run since this one began.
        if aside.until > 0 {
            let found = broker
                .bound
                .cx
                .artifacts
                .has_room(&broker.bound.scope, run, *size)
                .await;
            if !found.map_err(storage)? {
                return Err(full(broker));
            }
        }
        lay_aside(broker, aside, held.split_to(PART_BYTES).freeze()).await?;
    }
    Ok(())
}

async fn lay_aside(broker: &Broker, aside: &mut Aside, part: Bytes) -> Result<(), Refusal> {
    broker.pace_writes().await?;
    let (cx, scope) = (&broker.bound.cx, &broker.bound.scope);
    let size = part.len() as u64;
    let laid = cx
        .artifacts
        .lay_aside(scope, &aside.sha256, aside.upload, aside.until, part);
    laid.await.map_err(storage)?;
    aside.until += size;
    Ok(())
}

/// Parts of an upload that comes to nothing. They go by themselves, too, only later.
async fn give_up(broker: &Broker, aside: Option<&Aside>) {
    let Some(aside) = aside.filter(|aside| aside.until > 0) else {
        return;
    };
    let (cx, scope) = (&broker.bound.cx, &broker.bound.scope);
    if let Err(error) = cx.artifacts.throw_away(scope, &aside.sha256, aside.upload).await {
        tracing::warn!(error = %error, "parts of an artifact that was given up stay for a while");
    }
}

async fn commit(broker: &Broker, run: &RunId, step: &str, asked: Commit) -> Answer {
    let upload = broker
        .uploads
        .state(|state| state.open.remove(&asked.upload))
        .ok_or_else(unknown)?;
    let mut upload = upload.lock().await;
    let written = made(broker, run, step, &mut upload, &asked.sha256).await;
    if written.is_err() {
        give_up(broker, upload.aside.as_ref()).await;
    }
    written
}

async fn made(broker: &Broker, run: &RunId, step: &str, upload: &mut Upload, announced: &str) -> Answer {
    let sum = upload.digest.clone().finish();
    let sha256: String = sum.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let begun_with = upload.aside.as_ref().map(|aside| &aside.sha256);
    if upload.arrived != upload.size
        || sha256 != announced.to_ascii_lowercase()
        || begun_with.is_some_and(|begun| *begun != sha256)
    {
        return Err(refusal(
            "invalid",
            "the bytes that arrived are not those that were announced",
        ));
    }
    let rest = std::mem::take(&mut upload.held).freeze();
    if let Some(aside) = &mut upload.aside
        && !rest.is_empty()
    {
        lay_aside(broker, aside, rest.clone()).await?;
    }
    broker.pace_writes().await?;
    let (cx, scope) = (&broker.bound.cx, &broker.bound.scope);
    let artifact = Artifact {
        id: ArtifactId::of(run, &upload.name, &sha256),
        name: upload.name.clone(),
        size: upload.size,
        sha256,
        media_type: upload.media_type.clone(),
        step: step.to_owned(),
        attempt: broker.bound.attempt.clone(),
        created_at: cx.clock.now(),
    };
    let room = upload.room.take().ok_or_else(unknown)?;
    let written = match &upload.aside {
        Some(aside) => cx.artifacts.finish(scope, run, &artifact, (aside.upload, room)).await,
        None => cx.artifacts.put(scope, run, &artifact, (rest, room)).await,
    };
    match written {
        Ok(Written::Done) => Ok(shown(&artifact)),
        Ok(Written::Full) => Err(full(broker)),
        Err(store::Error::PreconditionFailed { .. }) => Err(refusal(
            "unavailable",
            "others have written and deleted the same bytes meanwhile; write the artifact again",
        )),
        Err(error) => Err(storage(error)),
    }
}

async fn read(broker: &Broker, run: &RunId, asked: Read) -> Answer {
    let (cx, scope) = (&broker.bound.cx, &broker.bound.scope);
    let failed = storage;
    let found = match (&asked.id, &asked.name) {
        (Some(id), None) => match id.parse::<ArtifactId>() {
            Ok(id) => artifact::find(cx, scope, run, &Wanted::Id(&id)).await.map_err(failed)?,
            Err(_) => None,
        },
        (None, Some(name)) => artifact::find(cx, scope, run, &Wanted::Name(name))
            .await
            .map_err(failed)?,
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

fn full(broker: &Broker) -> Refusal {
    let bytes = broker.bound.cx.artifacts.quotas().run;
    refusal(
        "too_large",
        format!("the artifacts of a run are at most {MAX_RUN_ARTIFACTS}, and {bytes} bytes together"),
    )
}

fn storage(error: store::Error) -> Refusal {
    refusal_of(&super::Error::Store(error))
}

impl Uploads {
    fn state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
