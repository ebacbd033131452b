//! `secrets.*`: values that a workflow declares, handed out or, better, kept by the engine and put on a request (`http.rs`).
//!
//! The attempt's masker learns a value before anybody else does. The audit log gets the first use of each secret, and
//! refusals up to a bound.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Asker, Broker, args, refusal, refusal_of};
use crate::audit::Event as AuditEvent;
use crate::domain::SecretName;
use crate::runner::Refusal;
use crate::usecase::on_record::keep;
use crate::usecase::secret::{self, StoredSecret};

/// How many handles an attempt may have.
const HANDLES: usize = 100;
/// How many uses and refusals of an attempt are recorded one by one.
const RECORDED: usize = 50;

/// What one attempt holds of secrets.
#[derive(Debug, Default)]
pub(super) struct Held {
    handles: Mutex<BTreeMap<String, StoredSecret>>,
    recorded: Mutex<BTreeSet<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

pub(super) async fn call(broker: &Broker, verb: &str, args: Value) -> Answer {
    let Asker::Step { .. } = &broker.bound.asker else {
        return Err(broker.not_available(&format!("secrets.{verb}")));
    };
    match verb {
        "get" => {
            let Named { name } = args::read("secrets.get", args)?;
            let found = granted(broker, &name).await?;
            recorded(
                broker,
                AuditEvent::SecretUsed,
                found.record.name.as_str(),
                "handed to the step",
            )
            .await?;
            secret::note_use(&broker.bound.cx, &broker.bound.scope, &found.record.name).await;
            Ok(Value::from(found.value.expose()))
        }
        "handle" => {
            let Named { name } = args::read("secrets.handle", args)?;
            let found = granted(broker, &name).await?;
            let random: [u8; 16] = broker.bound.cx.entropy.bytes();
            let handle = random
                .iter()
                .fold(String::from("hdl_"), |text, byte| format!("{text}{byte:02x}"));
            let mut handles = broker.secrets.handles.lock().unwrap_or_else(PoisonError::into_inner);
            if handles.len() >= HANDLES {
                return Err(refusal(
                    "denied",
                    format!("an attempt may have {HANDLES} handles, and this one has; use the same one again"),
                ));
            }
            handles.insert(handle.clone(), found);
            Ok(Value::from(handle))
        }
        _ => Err(broker.not_available(&format!("secrets.{verb}"))),
    }
}

/// The secret behind a handle of this attempt.
pub(super) fn behind(broker: &Broker, handle: &str) -> Result<StoredSecret, Refusal> {
    let handles = broker.secrets.handles.lock().unwrap_or_else(PoisonError::into_inner);
    handles.get(handle).cloned().ok_or_else(|| {
        refusal(
            "not_found",
            "`auth` is no handle of this attempt; get one by `ctx.secrets.handle(name)`",
        )
    })
}

/// A secret that the workflow declares; known to the masker from here on.
async fn granted(broker: &Broker, name: &str) -> Result<StoredSecret, Refusal> {
    let name: SecretName = name
        .parse()
        .map_err(|error: crate::domain::TextError| refusal("invalid", error.to_string()))?;
    let declared = |other: &String| other.parse::<SecretName>().is_ok_and(|other| other.same(&name));
    if !broker.bound.secrets.iter().any(declared) {
        recorded(broker, AuditEvent::SecretRefused, name.as_str(), "not declared").await?;
        return Err(refusal(
            "denied",
            format!("the workflow does not declare the secret `{name}`; add it in `@workflow`: `secrets=[\"{name}\"]`"),
        ));
    }
    let found = secret::find(&broker.bound.cx, &broker.bound.scope, &name)
        .await
        .map_err(|error| refusal_of(&error))?;
    let Some(found) = found else {
        return Err(refusal(
            "not_found",
            format!(
                "the organization has no secret `{name}`; an administrator of it writes one with `weft secrets set`"
            ),
        ));
    };
    broker.masker.learn(&found.value);
    Ok(found)
}

/// Writes the first use, or the first refusal, of each kind. What can't be written is not done.
pub(super) async fn recorded(broker: &Broker, event: AuditEvent, name: &str, how: &str) -> Result<(), Refusal> {
    {
        let mut known = broker.secrets.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        let what = format!("{} {} {how}", event.as_str(), name.to_ascii_lowercase());
        if known.len() >= RECORDED || !known.insert(what) {
            return Ok(());
        }
    }
    let bound = &broker.bound;
    let mut detail = json!({"how": how, "attempt": bound.attempt});
    if let Asker::Step {
        run, workflow, step, ..
    } = &bound.asker
    {
        detail["run"] = json!(run);
        detail["workflow"] = json!(workflow);
        detail["step"] = json!(step);
    }
    let record = bound
        .cx
        .audit
        .by(&bound.scope, event)
        .came_from(&bound.origin)
        .resource("secret", name)
        .detail(&detail);
    keep(&bound.cx, &bound.scope, record)
        .await
        .map_err(|error| refusal_of(&error))
}
