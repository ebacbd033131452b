//! Steps that wait for people: what they ask, what was decided, and the links that let somebody decide without signing in.
//!
//! A decision is a letter in the run's inbox, named by who decided, so that nobody decides twice. Its audit record is durable
//! before it counts. A link is for one step of one run and one name, and ends; the word that it carries is that name's, and
//! counts as the voice of who made the link: else whoever makes links could be everybody who is needed. So does a function key as
//! that of who made the key.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::on_record::recorded;
use super::values::{Known, Values};
use super::{Context, Error, Result, children, drive_run, query_run};
use crate::audit::Event as AuditEvent;
use crate::authz::{Action, Origin, Principal, Tier};
use crate::domain::{RunId, Timestamp};
pub use crate::scheduler::Decision;
use crate::scheduler::{Doing, UNKNOWN, Work};
use crate::store::repo::runs::{Letter, StoredRun};
use crate::store::token;
use crate::tenancy::{RunRef, Scope, rehydrate};

/// What links are for, in their signature.
const LINK: &str = "approval";
/// How long a link is good for when nobody says.
const LINK_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// Longest that it can be good for.
const LINK_AT_MOST: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long after a decision the run is looked at, should nobody have been told of it.
const LOOKED_AT_AFTER: Duration = Duration::from_secs(5);
/// Longest name and comment.
const NAME_CHARS: usize = 200;
const COMMENT_CHARS: usize = 2_000;

/// A step that waits for people.
#[derive(Debug)]
pub struct Asked {
    /// The run.
    pub run: StoredRun,
    /// The step.
    pub step: String,
    /// What is asked.
    pub question: Value,
    /// How many must agree.
    pub needed: u32,
    /// Until when.
    pub until: Option<Timestamp>,
    /// What was decided so far.
    pub decisions: Vec<Decision>,
}

/// What somebody says.
#[derive(Debug, Clone)]
pub struct Word {
    /// Whether they agree.
    pub approved: bool,
    /// Why.
    pub comment: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Link {
    #[serde(flatten)]
    run: RunRef,
    step: String,
    name: String,
    /// The id of who made it.
    #[serde(default = "unknown")]
    made_by: String,
    /// The id of who made the key with which they did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key_made_by: Option<String>,
    until: Timestamp,
}

/// Who made a link that does not say so: they count as one.
fn unknown() -> String {
    UNKNOWN.to_owned()
}

/// Who decides.
struct Voice {
    /// The principal's id, or the name that the link was made for.
    by: String,
    /// Who made the link.
    link_made_by: Option<String>,
    /// Who made the key with which it was done.
    key_made_by: Option<String>,
}

/// Who made the key that the scope is of.
fn key_made_by(scope: &Scope) -> Option<String> {
    match scope.principal() {
        Principal::Service { made_by, .. } => Some(made_by.clone().unwrap_or_else(unknown)),
        _ => None,
    }
}

/// A link that was made.
#[derive(Debug)]
pub struct Made {
    /// What it carries.
    pub token: String,
    /// For whom.
    pub name: String,
    /// Until when.
    pub until: Timestamp,
}

/// The steps of a run that wait for people.
///
/// # Errors
/// When the scope may not, or there is no such run that it may know of.
pub async fn list(cx: &Context, scope: &Scope, id: &RunId) -> Result<Vec<Asked>> {
    let run = query_run::visible(cx, scope, id, Action::Read).await?;
    let mut asked = Vec::new();
    for place in 0..run.state.steps.len() {
        if let Some(one) = asked_by(cx, scope, &run, place).await? {
            asked.push(one);
        }
    }
    Ok(asked)
}

async fn asked_by(cx: &Context, scope: &Scope, run: &StoredRun, place: usize) -> Result<Option<Asked>> {
    let planned = &run.new.plan.steps[place];
    let Some(activity) = run.state.steps[place].activity.as_deref() else {
        return Ok(None);
    };
    let (Work::Approval { needed, question, .. }, Doing::Approval(decisions)) = (&planned.work, &activity.doing) else {
        return Ok(None);
    };
    let known = Known::default();
    let values = Values {
        cx,
        scope,
        run,
        state: &run.state,
        known: &known,
    };
    let question = match values.fill(question, Map::new()).await? {
        Ok(question) => question,
        Err(error) => json!({"error": error.to_string()}),
    };
    Ok(Some(Asked {
        run: run.clone(),
        step: planned.id.clone(),
        question,
        needed: *needed,
        until: activity.until,
        decisions: decisions.clone(),
    }))
}

/// Decides on a step, as who is signed in.
///
/// # Errors
/// When the scope may not, the step doesn't wait, or this principal has decided before.
pub async fn decide(
    cx: &Arc<Context>,
    scope: &Scope,
    origin: &Origin,
    (id, step): (&RunId, &str),
    word: Word,
) -> Result<StoredRun> {
    let run = query_run::visible(cx, scope, id, Action::Modify).await?;
    let voice = Voice {
        by: scope.principal().id(),
        link_made_by: None,
        key_made_by: key_made_by(scope),
    };
    say(cx, scope, origin, run, step, voice, word).await
}

/// Makes a link with which somebody decides on a step without signing in.
///
/// # Errors
/// When the scope may not, the step doesn't wait, or the name or the time is wrong.
pub async fn link(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    (id, step): (&RunId, &str),
    name: &str,
    good_for: Option<Duration>,
) -> Result<Made> {
    let run = query_run::visible(cx, scope, id, Action::Modify).await?;
    let asked = waiting(cx, scope, &run, step).await?;
    let name = name.trim();
    if name.is_empty() || name.chars().count() > NAME_CHARS || name.chars().any(char::is_control) {
        return Err(Error::invalid(
            "parameter_invalid",
            format!("`for` is who decides with the link, in 1 to {NAME_CHARS} characters"),
            "name a person or an address",
            Vec::new(),
        ));
    }
    let good_for = good_for.unwrap_or(LINK_FOR);
    if good_for.is_zero() || good_for > LINK_AT_MOST {
        return Err(Error::invalid(
            "parameter_invalid",
            format!("`expiresInSeconds` is from 1 to {}", LINK_AT_MOST.as_secs()),
            "leave it out for a week",
            Vec::new(),
        ));
    }
    let until = cx.clock.now().plus(good_for);
    let until = asked.until.map_or(until, |end| end.min(until));
    let record = cx
        .audit
        .by(scope, AuditEvent::ApprovalLinkMade)
        .came_from(origin)
        .resource("run", id.as_str())
        .detail(&json!({"step": step, "for": name, "until": until}));
    let linked = cx.audit.append(scope, record).await?;
    cx.audit.index(scope, &[linked]).await?;
    let link = Link {
        run: RunRef {
            org: scope.org().clone(),
            run: id.clone(),
        },
        step: step.to_owned(),
        name: name.to_owned(),
        made_by: scope.principal().id(),
        key_made_by: key_made_by(scope),
        until,
    };
    Ok(Made {
        token: token::seal(&cx.signing, LINK, &link),
        name: name.to_owned(),
        until,
    })
}

/// What a link asks.
///
/// # Errors
/// When it is none of ours, has ended, or nothing waits for it any more.
pub async fn look(cx: &Context, text: &str) -> Result<Asked> {
    let (link, scope) = opened(cx, text)?;
    let run = found(cx, &scope, &link).await?;
    waiting(cx, &scope, &run, &link.step).await
}

/// Decides with a link.
///
/// # Errors
/// When it is none of ours, has ended or was used, or nothing waits for it any more.
pub async fn decide_by_link(cx: &Arc<Context>, origin: &Origin, text: &str, word: Word) -> Result<StoredRun> {
    let (link, scope) = opened(cx, text)?;
    let run = found(cx, &scope, &link).await?;
    let voice = Voice {
        by: format!("link:{}", link.name),
        link_made_by: Some(link.made_by),
        key_made_by: link.key_made_by,
    };
    say(cx, &scope, origin, run, &link.step, voice, word).await
}

/// Decides as somebody who is named, for a simulation on the command line.
///
/// # Errors
/// When the scope is none of the command line, or nothing waits for it.
pub async fn decide_as(
    cx: &Arc<Context>,
    scope: &Scope,
    origin: &Origin,
    (id, step): (&RunId, &str),
    name: &str,
    word: Word,
) -> Result<StoredRun> {
    let run = query_run::visible(cx, scope, id, Action::Modify).await?;
    if scope.tier() != Tier::Terminal {
        return Err(bad_link());
    }
    let voice = Voice {
        by: name.to_owned(),
        link_made_by: None,
        key_made_by: None,
    };
    say(cx, scope, origin, run, step, voice, word).await
}

fn opened(cx: &Context, text: &str) -> Result<(Link, Scope)> {
    let link: Link = token::open(&cx.signing, LINK, text).ok_or_else(bad_link)?;
    if link.until <= cx.clock.now() {
        return Err(Error::conflict(
            "approval_link_expired",
            format!("the link was good until {}", link.until),
            "ask whoever sent it for another one",
        ));
    }
    let scope = rehydrate(&link.run, "approval_link");
    Ok((link, scope))
}

fn bad_link() -> Error {
    Error::not_found(
        "approval_link_invalid",
        "this is no link of this installation",
        "use the whole link, as it was sent",
    )
}

async fn found(cx: &Context, scope: &Scope, link: &Link) -> Result<StoredRun> {
    cx.runs.get(scope, &link.run.run).await?.ok_or_else(bad_link)
}

async fn waiting(cx: &Context, scope: &Scope, run: &StoredRun, step: &str) -> Result<Asked> {
    let place = run.new.plan.position(step).ok_or_else(|| {
        Error::not_found(
            "step_not_found",
            format!("run `{}` has no step `{step:.63}`", run.new.run),
            "`GET /api/runs/{id}/approvals` lists the steps that wait for people",
        )
    })?;
    let asked = asked_by(cx, scope, run, place).await?;
    asked
        .filter(|asked| asked.until.is_none_or(|until| until > cx.clock.now()))
        .ok_or_else(|| {
            Error::conflict(
                "approval_over",
                format!(
                    "step `{step}` does not wait for a decision; it is {}",
                    run.state.steps[place].status.as_str()
                ),
                "`GET /api/runs/{id}/approvals` lists the steps that wait for people",
            )
        })
}

async fn say(
    cx: &Arc<Context>,
    scope: &Scope,
    origin: &Origin,
    run: StoredRun,
    step: &str,
    Voice {
        by,
        link_made_by,
        key_made_by,
    }: Voice,
    word: Word,
) -> Result<StoredRun> {
    let asked = waiting(cx, scope, &run, step).await?;
    let place = run.new.plan.position(step).unwrap_or_default();
    // `bob` and `BOB` are one person: else a quorum of two could be one.
    let one = by.to_lowercase();
    let decided = || {
        Error::conflict(
            "approval_decided",
            format!("`{by}` has decided on step `{step}` already"),
            "a decision can't be taken back; cancel the run instead",
        )
    };
    let decision = Decision {
        by: by.clone(),
        link_made_by: link_made_by.clone(),
        key_made_by: key_made_by.clone(),
        approved: word.approved,
        comment: word.comment.clone(),
        at: cx.clock.now(),
    };
    let voice = decision.voice();
    let counted = || {
        Error::conflict(
            "approval_counted",
            format!(
                "`{voice}` has agreed to step `{step}` already, and who agrees with a link or a function key counts as who made it"
            ),
            "somebody else has to agree: signed in, or with a link or a key that somebody else has made; a refusal counts from everybody",
        )
    };
    let is_same = |earlier: &Decision| earlier.approved && earlier.voice() == voice;
    if asked.decisions.iter().any(|earlier| earlier.by.to_lowercase() == one) {
        return Err(decided());
    }
    if word.approved && asked.decisions.iter().any(is_same) {
        return Err(counted());
    }
    if word
        .comment
        .as_ref()
        .is_some_and(|comment| comment.chars().count() > COMMENT_CHARS)
    {
        return Err(Error::invalid(
            "parameter_invalid",
            format!("`comment` has at most {COMMENT_CHARS} characters"),
            "say it shorter",
            Vec::new(),
        ));
    }
    let id = run.new.run.clone();
    // Named by who decides: the second word of the same person is refused by the row that the first one left, before it is
    // recorded as a decision, and also when a driver has taken the first since the run was read above.
    let mut causes = vec![format!("decision:{step}:{one}")];
    if word.approved {
        // And by whose voice it is.
        causes.push(format!("agreed:{step}:{voice}"));
    }
    if cx.runs.was_told(scope, &id, &causes[0]).await? {
        return Err(decided());
    }
    if word.approved && cx.runs.was_told(scope, &id, &causes[1]).await? {
        return Err(counted());
    }
    let event = if word.approved {
        AuditEvent::StepApproved
    } else {
        AuditEvent::StepRejected
    };
    let record = || {
        let record = cx.audit.by(scope, event).came_from(origin);
        record.resource("run", id.as_str()).detail(&json!({
            "step": step, "by": by, "linkMadeBy": link_made_by, "voice": voice, "workflow": run.new.workflow,
        }))
    };
    let reference = RunRef {
        org: scope.org().clone(),
        run: id.clone(),
    };
    let letter = Letter::Decided { place, decision };
    let told = async {
        // Who decides doesn't ask twice: should this instance die between the letter and the word about it, somebody looks all
        // the same.
        drive_run::send(cx, &reference, "inbox", LOOKED_AT_AFTER).await?;
        if cx.runs.tell_once(scope, &id, &causes, &letter).await? {
            return Ok(());
        }
        let is_repeated = cx.runs.was_told(scope, &id, &causes[0]).await?;
        Err(if is_repeated { decided() } else { counted() })
    };
    recorded(cx, scope, record, told).await?;
    if let Err(error) = children::poke(cx, scope, &id).await {
        tracing::warn!(run.id = %id, error = %error, "the run could not be told of a decision at once; it looks a little later");
    }
    Ok(run)
}
