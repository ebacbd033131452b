//! A delivered queue message: opened, checked, and handed to what it asks for.

use std::sync::Arc;
use std::time::Duration;

use super::attempt_step::{self, Asked};
use super::drive_run::{self, Continued};
use super::{Context, Result, admission, quarantine, unreadable};
use crate::domain::Timestamp;
use crate::store::envelope::{self, Message};
use crate::store::key::Queue;
use crate::tenancy::{RunRef, rehydrate};

/// From which queue a message was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// `weft-runs`.
    Runs,
    /// `weft-attempts`.
    Attempts,
    /// `weft-runs-poison`.
    RunsPoison,
    /// `weft-attempts-poison`.
    AttemptsPoison,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivered {
    /// Done, or nothing to do.
    Done(Continued),
    /// Not a message of ours: it is dropped, since delivering it again would not make it one.
    Refused(envelope::Rejected),
    /// Not finished within the patience; it goes on here, and its lease guards it.
    GoesOn,
}

/// Handles one message. With `patience`, returns after that long while the work goes on in the background.
///
/// # Errors
/// When storage fails: the message must be delivered again.
pub async fn deliver(
    cx: &Arc<Context>,
    from: From,
    text: &str,
    delivered_at: Timestamp,
    patience: Option<Duration>,
) -> Result<Delivered> {
    let message = match envelope::open(&cx.signing, text) {
        Ok(message) => message,
        Err(rejected) => {
            tracing::warn!(queue = ?from, "a queue message was refused: {rejected}");
            return Ok(Delivered::Refused(rejected));
        }
    };
    let mut asked = None;
    let (run, place, reason) = match message {
        Message::DriveRun { run, reason } => {
            tracing::debug!(run.id = %run.run, org.id = %run.org, reason = %reason, "message");
            (run, None, reason)
        }
        Message::Admit { run, place } => (run, Some(place), String::new()),
        Message::Attempt {
            run,
            step,
            item,
            attempt,
            sent_on,
        } => {
            tracing::debug!(run.id = %run.run, org.id = %run.org, attempt.id = %attempt, "message about an attempt");
            asked = Some(Asked {
                slot: (step, item),
                attempt,
                sent_on,
            });
            (run, None, String::new())
        }
    };
    let work = {
        let (cx, run) = (cx.clone(), run.clone());
        async move {
            let queue = match from {
                From::Runs | From::RunsPoison => Queue::Runs,
                From::Attempts | From::AttemptsPoison => Queue::Attempts,
            };
            let is_last = matches!(from, From::RunsPoison | From::AttemptsPoison);
            let done = Box::pin(work_on(&cx, from, &run, (place, asked), &reason, delivered_at)).await;
            match done {
                // To try it again would change nothing.
                Err(error) if unreadable::run_of(&error).is_some_and(|of| is_last || *of == run.run) => {
                    let scope = rehydrate(&run, "drive_run");
                    if unreadable::set_aside(&cx, &scope, &run.run, (queue, &error), is_last).await? {
                        return Ok(Continued::SetAside);
                    }
                    Err(error)
                }
                done => done,
            }
        }
    };
    let Some(patience) = patience else {
        return Box::pin(work).await.map(Delivered::Done);
    };
    match tokio::time::timeout(patience, tokio::spawn(work)).await {
        Ok(Ok(done)) => done.map(Delivered::Done),
        // The work panicked or the handler stops: the message comes again.
        Ok(Err(error)) => Err(super::Error::unavailable(
            "stopping",
            error.to_string(),
            "the message is delivered again",
        )),
        Err(_) => {
            if place.is_some() {
                // Who serves goes on here; with a message under way the host knows that there is work.
                admission::serve_on(cx, &run).await?;
            }
            Ok(Delivered::GoesOn)
        }
    }
}

async fn work_on(
    cx: &Arc<Context>,
    from: From,
    run: &RunRef,
    (place, asked): (Option<u8>, Option<Asked>),
    reason: &str,
    delivered_at: Timestamp,
) -> Result<Continued> {
    if let Some(asked) = asked {
        return match from {
            From::Runs | From::Attempts => {
                let done = Box::pin(attempt_step::arrive(cx, run, asked)).await;
                done.inspect_err(|error| cx.failures.note(&run.run, error))
            }
            From::RunsPoison | From::AttemptsPoison => attempt_step::set_aside(cx, run, &asked, delivered_at).await,
        };
    }
    match (from, place) {
        // Of these none is needed: every run of the backlog has a message of its own.
        (From::RunsPoison | From::AttemptsPoison, Some(_)) => Ok(Continued::Served(0)),
        (_, Some(place)) => Box::pin(admission::serve(cx, run, place)).await,
        (From::Runs | From::Attempts, None) => {
            let done = drive_run::continue_run(cx, run, delivered_at).await;
            match &done {
                Ok(Continued::Unknown) => drive_run::look_again(cx, run, reason).await?,
                Ok(_) => {}
                Err(error) => cx.failures.note(&run.run, error),
            }
            done
        }
        (From::RunsPoison, None) => quarantine::quarantine(cx, run, Queue::Runs, delivered_at).await,
        (From::AttemptsPoison, None) => quarantine::quarantine(cx, run, Queue::Attempts, delivered_at).await,
    }
}

/// Messages about runs that are handled at once where no Functions host delivers them. Who serves an organization takes one, which
/// costs nothing else, so that many organizations may have long runs.
const RUNS_AT_ONCE: usize = 256;
/// And about attempts, of which those that there is no worker for go on to other instances.
const ATTEMPTS_AT_ONCE: usize = 32;
/// For how long a received message is hidden; renewed while it is worked on.
const HIDDEN: Duration = Duration::from_secs(120);
/// Deliveries after which a message is quarantined, as in `host.json`.
pub(super) const MAX_DEQUEUE_COUNT: u32 = 5;

/// Delivers the messages of the queues of runs and of attempts as the Functions host would: several at once, again after a
/// failure, to quarantine after too many. For `weft dev`, which has no host. Never returns; ends when it is dropped.
pub async fn consume(cx: Arc<Context>) {
    tokio::join!(
        drain(cx.clone(), Queue::Runs, [From::Runs, From::RunsPoison], RUNS_AT_ONCE),
        drain(
            cx,
            Queue::Attempts,
            [From::Attempts, From::AttemptsPoison],
            ATTEMPTS_AT_ONCE
        ),
    );
}

async fn drain(cx: Arc<Context>, of: Queue, from: [From; 2], at_once: usize) {
    let slots = Arc::new(tokio::sync::Semaphore::new(at_once));
    let queue = of.name();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            return;
        };
        let received = cx.ports.queues.receive(&queue, 1, HIDDEN).await;
        let message = match received {
            Ok(mut messages) => messages.pop(),
            Err(error) => {
                tracing::warn!(error = %error, "the queue can't be read, trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let Some(message) = message else {
            // Messages of other processes, and of backends that can't tell, are found by looking now and then.
            let _ = tokio::time::timeout(Duration::from_secs(1), cx.ports.queues.sent_here(&queue)).await;
            continue;
        };
        let cx = cx.clone();
        tokio::spawn(async move {
            handle(&cx, of, from, message).await;
            drop(slot);
        });
    }
}

async fn handle(cx: &Arc<Context>, of: Queue, [from, poison]: [From; 2], message: crate::store::port::Message) {
    let queue = of.name();
    let from = if message.dequeue_count > MAX_DEQUEUE_COUNT {
        poison
    } else {
        from
    };
    let delivered_at = cx.clock.now();
    let mut receipt = message.receipt;
    let mut work = Box::pin(deliver(cx, from, &message.text, delivered_at, None));
    let outcome = loop {
        match tokio::time::timeout(HIDDEN / 2, &mut work).await {
            Ok(outcome) => break outcome,
            Err(_) => match cx.ports.queues.extend(&queue, &receipt, HIDDEN).await {
                Ok(newer) => receipt = newer,
                Err(error) => {
                    tracing::warn!(error = %error, "a message could not be kept hidden; its run's lease guards it")
                }
            },
        }
    };
    match outcome {
        Ok(_) => {
            if let Err(error) = cx.ports.queues.delete(&queue, &receipt).await {
                tracing::warn!(error = %error, "a handled message could not be deleted; it will find nothing to do");
            }
        }
        // Visible again after its timeout.
        Err(error) => tracing::warn!(error = %error, "a message failed and will be delivered again"),
    }
}
