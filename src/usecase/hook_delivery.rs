//! A delivery to a webhook: slowed down, found, verified, and made into a run.
//!
//! Until the signature is verified there is no scope, nothing of the body is parsed, and a refusal costs at most one read of
//! storage, which is then remembered. After it, a delivery is one more way to start a run: its id is derived from the
//! delivery, so that one that comes again, here or elsewhere, finds the run of the first.

mod doors;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use url::form_urlencoded;

pub(super) use self::doors::Doors;
use self::doors::Told;
use super::launch::{self, Launch};
use super::on_record::keep;
use super::{Context, Error, Result, secret, start_run};
use crate::audit::Event as AuditEvent;
use crate::authz::{Action, Origin, Resource};
use crate::domain::{Ask, HookId, ROUNDED_HINT, Secret, Timestamp};
use crate::error::{Coded as _, Kind};
pub use crate::hooks::Request;
use crate::hooks::{self, ALL_SOURCES, Rejected, SameBy, Unreadable, Verified};
use crate::store::key;
use crate::store::repo::hooks::{Delivery, Found, delivered_run};
use crate::store::repo::runs::StoredRun;
use crate::tenancy::{self, Refused, Scope};

/// Generations of a delivery's run that are looked at: it would have to come again in as many windows.
const GENERATIONS: u32 = 100;
/// Most characters of a challenge that is said back.
const MAX_CHALLENGE: usize = 256;

/// A hook that there is, before its delivery has been read.
#[derive(Debug)]
pub struct Door {
    found: Arc<Found>,
}

/// What came of a delivery.
#[derive(Debug)]
pub enum Delivered {
    /// There is a run.
    Run {
        /// The run.
        run: Box<StoredRun>,
        /// Whether an earlier delivery has started it.
        repeated: bool,
    },
    /// The sender has tried the address, and hears this.
    Answered(String),
}

/// Finds the hook of a delivery, before its body is read.
///
/// # Errors
/// When there is no such hook, its sender is too fast, or storage fails.
pub async fn knock(cx: &Context, id: &str, origin: &Origin) -> Result<Door> {
    let now = cx.clock.now();
    let Ok(id) = id.parse::<HookId>() else {
        return Err(unknown(cx, origin).await);
    };
    let platform = tenancy::system("hook");
    if !cx.hooks.is_known(&platform, &id) && !cx.doors.may_look(&origin.address, now) {
        return Err(throttled());
    }
    let Some(found) = cx.hooks.find(&platform, &id).await? else {
        return Err(unknown(cx, origin).await);
    };
    if !cx.doors.may_knock(&found.hook, &origin.address, now) {
        refused(cx, &found, origin, "throttled").await;
        return Err(throttled());
    }
    Ok(Door { found })
}

/// Answers a sender who tries an address by GET, where the hook allows that. Starts nothing.
///
/// # Errors
/// When the hook does not allow it, or the parameter is missing or too long.
pub async fn challenge(cx: &Context, door: &Door, origin: &Origin, query: &str) -> Result<String> {
    let Some(name) = door.found.hook.challenge.as_deref().filter(|_| door.found.hook.enabled) else {
        return Err(unknown(cx, origin).await);
    };
    let mut values = form_urlencoded::parse(query.as_bytes()).filter(|(known, _)| known == name);
    match (values.next(), values.next()) {
        // It is said back, so it must be nothing that a browser could take for a page.
        (Some((_, text)), None)
            if (1..=MAX_CHALLENGE).contains(&text.len())
                && text
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-=+/".contains(&b)) =>
        {
            Ok(text.into_owned())
        }
        _ => Err(Error::invalid(
            "parameter_invalid",
            format!("`{name}` must be there once: letters, digits and `._-=+/`"),
            "the sender puts its challenge there",
            Vec::new(),
        )),
    }
}

/// Takes a delivery.
///
/// # Errors
/// When it isn't signed by a secret of the hook, the organization is not active, the sender is too fast, it says no arguments
/// that its workflow takes, or storage fails.
pub async fn deliver(cx: &Arc<Context>, door: &Door, origin: &Origin, request: &Request) -> Result<Delivered> {
    let found = &door.found;
    let now = cx.clock.now();
    let secrets = secrets(cx, found, now).await?;
    let verified = match hooks::verify(&found.org, &found.hook, &secrets, request, now) {
        Ok(verified) => verified,
        Err(rejected) => {
            refused(cx, found, origin, rejected.as_str()).await;
            return Err(unsigned(rejected));
        }
    };
    let organization = cx.identities.organization(verified.org()).await?;
    let scope = match tenancy::deliver(&verified, organization.as_ref()) {
        Ok(scope) => scope,
        Err(Refused::Inactive(_)) => return Err(inactive()),
        // Deleted; the hook is gone with it.
        Err(_) => return Err(unknown(cx, origin).await),
    };
    scope.authorize(Action::Run, Resource::Workflow)?;
    if !cx.doors.may_enter(&found.hook, now) {
        refused(cx, found, origin, "throttled").await;
        return Err(throttled());
    }
    let line = |outcome: &str| Delivery {
        at: now,
        outcome: outcome.to_owned(),
        reason: None,
        delivery: verified.delivery().map(|id| id.chars().take(100).collect()),
        run: None,
        count: 1,
    };
    if let Some(answer) = hooks::challenge_of(&found.hook.scheme, request) {
        note(cx, &scope, found, line("answered")).await;
        return Ok(Delivered::Answered(answer));
    }
    match started(cx, &scope, found, &verified, origin, request).await {
        Ok((run, repeated)) => {
            let mut line = line(if repeated { "repeated" } else { "accepted" });
            line.run = Some(run.new.run.clone());
            note(cx, &scope, found, line).await;
            Ok(Delivered::Run {
                run: Box::new(run),
                repeated,
            })
        }
        Err(error) => {
            // What is not the sender's fault will come again.
            if !matches!(error.kind(), Kind::Unavailable | Kind::Internal | Kind::Throttled) {
                let mut line = line("failed");
                line.reason = Some(error.code().to_owned());
                note(cx, &scope, found, line).await;
            }
            Err(error)
        }
    }
}

async fn started(
    cx: &Arc<Context>,
    scope: &Scope,
    found: &Found,
    verified: &Verified,
    origin: &Origin,
    request: &Request,
) -> Result<(StoredRun, bool)> {
    let hook = &found.hook;
    let now = cx.clock.now();
    let window = u64::from(hook.deduplicate.window_seconds);
    // Bodies are the same again and again where they say that nothing has changed: their generations are stretches of time.
    // What has an id comes again seldom: its generations are counted, without any moment in which two could begin one each.
    let stretch = u32::try_from(now.millis().unsigned_abs() / 1000 / window).unwrap_or(u32::MAX);
    let generations: Vec<u32> = match hook.deduplicate.by {
        SameBy::Body => vec![stretch.saturating_sub(1), stretch],
        SameBy::Delivery => (0..GENERATIONS).collect(),
    };
    let mut free = None;
    for generation in generations {
        let id = delivered_run(scope, &hook.id, verified.identity(), generation);
        match cx.runs.get(scope, &id).await? {
            Some(run) if now.since(run.new.created_at) < Duration::from_secs(window) => return Ok((run, true)),
            Some(_) => {}
            None => {
                free = Some(id);
                if hook.deduplicate.by == SameBy::Delivery {
                    break;
                }
            }
        }
    }
    let run = free.ok_or_else(|| {
        Error::conflict(
            "conflict",
            "this delivery has started too many runs",
            "send it under an id of its own",
        )
    })?;
    let arguments = hooks::arguments(&hook.arguments, &hook.scheme, request).map_err(unreadable)?;
    let launch = Launch {
        run,
        prepared: launch::prepare(cx, scope, origin, &hook.workflow, &arguments, None).await?,
        requester: start_run::requester(scope),
        origin,
        ask: Ask::default(),
        parent: None,
        resumes: None,
        cause: json!({"hook": hook.id, "delivery": verified.delivery()}),
    };
    launch::enqueue(cx, scope, launch).await
}

/// The secrets that are good now.
async fn secrets(cx: &Context, found: &Found, now: Timestamp) -> Result<Vec<Secret>> {
    let mut secrets = Vec::new();
    for one in found.hook.good_secrets(now) {
        if let Some(known) = cx.doors.secret(&found.hook.id, &one.version) {
            secrets.push(known);
            continue;
        }
        let platform = tenancy::system("hook");
        let scope = tenancy::operator_in(&platform, &found.org);
        let name = key::hook_secret(&found.hook.id, &one.version)?;
        // Deleted meanwhile: what was just read of the hook is old.
        if let Some(value) = secret::get_of_hook(cx, &scope, &name).await? {
            cx.doors.remember(&found.hook.id, &one.version, value.clone());
            secrets.push(value);
        }
    }
    Ok(secrets)
}

/// One answer whatever was wrong: who has no secret learns nothing.
fn unsigned(_: Rejected) -> Error {
    Error::Request {
        kind: Kind::Unauthenticated,
        code: "hook_signature_invalid",
        detail: "the delivery is not signed as this hook asks for".to_owned(),
        hint: Some("check the secret, the scheme and the sender's clock; the hook's deliveries say why".to_owned()),
        findings: Vec::new(),
    }
}

/// Senders aren't told which organization it is.
fn inactive() -> Error {
    Error::Request {
        kind: Kind::Denied,
        code: "organization_inactive",
        detail: "the organization of this hook is not active".to_owned(),
        hint: Some("an administrator can activate it again".to_owned()),
        findings: Vec::new(),
    }
}

fn throttled() -> Error {
    Error::Request {
        kind: Kind::Throttled,
        code: "hook_throttled",
        detail: "deliveries come too fast".to_owned(),
        hint: Some("deliver it again after `Retry-After`".to_owned()),
        findings: Vec::new(),
    }
}

fn unreadable(unreadable: Unreadable) -> Error {
    let hint = "a hook with `{\"wrap\": \"NAME\"}` takes every body as one argument";
    let bad = |detail: &str, findings| Error::invalid("hook_body_unreadable", detail, hint, findings);
    match unreadable {
        Unreadable::MediaType => bad("the body is neither JSON, nor a form, nor text", Vec::new()),
        Unreadable::NotJson(finding) => bad("the body is not JSON", vec![finding]),
        Unreadable::Rounded(finding) => {
            let detail = finding.message.clone();
            Error::invalid("hook_body_unreadable", detail, ROUNDED_HINT, vec![finding])
        }
        Unreadable::NotAnObject => {
            let detail = "the body must be a JSON object or a form";
            Error::invalid("body_not_an_object", detail, hint, Vec::new())
        }
    }
}

/// There is no such hook. On record once in a while: ids can't be guessed, so this is a mistake or somebody who tries.
async fn unknown(cx: &Context, origin: &Origin) -> Error {
    if let Some(count) = cx.doors.tell(Told::Unknown, cx.clock.now()) {
        let platform = tenancy::system("hook");
        let record = cx
            .audit
            .anonymous(AuditEvent::AccessDenied, origin)
            .detail(&json!({"problem": "hook_not_found", "count": count}));
        if let Err(error) = keep(cx, &platform, record).await {
            tracing::error!(error = %error, "a refused delivery could not be recorded");
        }
    }
    Error::not_found(
        "hook_not_found",
        "there is no such hook",
        "check the address: `GET /api/triggers/hooks` has it as `path`",
    )
}

/// Records a refusal, at most once a minute for each reason of a hook. The sender is refused whether or not that succeeds.
async fn refused(cx: &Context, found: &Found, origin: &Origin, reason: &'static str) {
    let now = cx.clock.now();
    let Some(count) = cx.doors.tell(Told::Hook(found.hook.id.clone(), reason), now) else {
        return;
    };
    let platform = tenancy::system("hook");
    let scope = tenancy::operator_in(&platform, &found.org);
    let (event, outcome) = match reason {
        "throttled" => (AuditEvent::AccessThrottled, "throttled"),
        _ => (AuditEvent::HookRefused, "refused"),
    };
    let record = cx
        .audit
        .anonymous(event, origin)
        .resource("hook", found.hook.id.as_str())
        .detail(&json!({"reason": reason, "count": count}));
    if let Err(error) = keep(cx, &scope, record).await {
        tracing::error!(error = %error, hook.id = %found.hook.id, reason, "a refused delivery could not be recorded");
    }
    let line = Delivery {
        at: now,
        outcome: outcome.to_owned(),
        reason: Some(reason.to_owned()),
        delivery: None,
        run: None,
        count,
    };
    note(cx, &scope, found, line).await;
}

/// Adds a line to what people see of the hook's deliveries. Whoever writes takes along what others have to add meanwhile, so
/// that a busy hook is not written by many at once.
async fn note(cx: &Context, scope: &Scope, found: &Found, line: Delivery) {
    let id = &found.hook.id;
    let Some(mut writing) = cx.doors.add(id, line) else {
        return;
    };
    while let Some(lines) = writing.next() {
        if let Err(error) = cx.hooks.add_deliveries(scope, id, &lines).await {
            tracing::warn!(error = %error, hook.id = %id, "deliveries could not be noted");
        }
    }
}

/// What a hook takes of all sources together, in a minute.
fn in_all(hook: &hooks::Hook) -> u32 {
    hook.per_minute.saturating_mul(ALL_SOURCES)
}
