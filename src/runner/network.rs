//! The network of one attempt, from its grant to its account: what it reached and what it was refused, as lines of its log.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::jail::Jail;
use super::{AttemptSpec, LogLine, WorkerMessage};
use crate::clock::Clock;
use crate::domain::{NetworkUse, Outcome, StepError};
use crate::egress::{Egress, Gate, Grant, Notice, Refusal};

/// How long a worker that is ready may take to have handed its filter over: it has done so before it said that it was.
const FILTER_PATIENCE: Duration = Duration::from_secs(2);
/// How long the consumer of messages may leave the last lines untouched.
const TELLING_PATIENCE: Duration = Duration::from_secs(5);
/// Hosts whose bytes are told one by one at the end.
const HOSTS: usize = 50;

/// What one attempt may reach, while it runs. Dropping it ends every connection.
#[derive(Debug)]
pub struct AttemptNetwork {
    gate: Gate,
    grant: Arc<Grant>,
    over: CancellationToken,
    telling: JoinHandle<Option<Refusal>>,
    messages: mpsc::Sender<WorkerMessage>,
    clock: Arc<dyn Clock>,
}

impl AttemptNetwork {
    /// Opens a worker's gate for an attempt; nothing for an attempt without network.
    ///
    /// # Errors
    /// The attempt's outcome when it needs a network and there is none.
    pub async fn open(
        gate: Option<Gate>,
        egress: &Egress,
        spec: &AttemptSpec,
        clock: Arc<dyn Clock>,
    ) -> Result<Option<Self>, Outcome> {
        // No worker that may use the network is without a gate, except where nothing keeps any worker from it.
        let (true, Some(gate)) = (Jail::from(&spec.rights).network, gate) else {
            return Ok(None);
        };
        gate.is_served(FILTER_PATIENCE).await.map_err(|why| unavailable(&why))?;
        let (grant, notices) = egress.grant(&spec.rights.network);
        gate.open(Arc::clone(&grant));
        let over = CancellationToken::new();
        let messages = spec.messages.clone();
        let telling = tokio::spawn(tell(notices, over.clone(), messages.clone(), Arc::clone(&clock)));
        Ok(Some(Self {
            gate,
            grant,
            over,
            telling,
            messages,
            clock,
        }))
    }

    /// Ends every connection, and accounts for them. An outcome that may have come of a refused connection says so.
    pub async fn end(self, outcome: &mut Outcome) -> NetworkUse {
        drop(self.gate);
        self.over.cancel();
        let mut telling = self.telling;
        let refused = tokio::time::timeout(TELLING_PATIENCE, &mut telling).await;
        telling.abort();
        let mut hosts = self.grant.used_by_host();
        hosts.sort_by_key(|(_, used)| std::cmp::Reverse(used.bytes_sent + used.bytes_received));
        for (host, used) in hosts.iter().take(HOSTS) {
            let NetworkUse {
                connections,
                bytes_sent,
                bytes_received,
                ..
            } = used;
            let message = format!(
                "{host}: {connections} connection(s), {bytes_sent} bytes sent, {bytes_received} bytes received"
            );
            let line = WorkerMessage::Line(line(&*self.clock, "info", message));
            if !matches!(
                tokio::time::timeout(TELLING_PATIENCE, self.messages.send(line)).await,
                Ok(Ok(()))
            ) {
                break;
            }
        }
        if let (Outcome::Failed { error }, Ok(Ok(Some(refusal)))) = (outcome, refused) {
            error.message = format!("{}\nIn this attempt {refusal}.", error.message);
        }
        self.grant.used()
    }
}

/// Passes notices on as they come, until the attempt is over. Gives back the last refusal.
async fn tell(
    mut notices: UnboundedReceiver<Notice>,
    over: CancellationToken,
    messages: mpsc::Sender<WorkerMessage>,
    clock: Arc<dyn Clock>,
) -> Option<Refusal> {
    let mut last = None;
    loop {
        let notice = tokio::select! {
            biased;
            notice = notices.recv() => notice,
            () = over.cancelled() => None,
        };
        let Some(notice) = notice else { return last };
        let told = match notice {
            Notice::Reached(target) => {
                let line = line(&*clock, "info", format!("connected to {target}"));
                messages.send(WorkerMessage::Line(line)).await
            }
            Notice::Mistake(finding) => {
                let hint = finding.hint.unwrap_or_default();
                let line = line(&*clock, "warning", format!("{}; {hint}", finding.message));
                messages.send(WorkerMessage::Line(line)).await
            }
            Notice::Refused(refusal) => {
                let line = line(&*clock, "warning", refusal.to_string());
                last = Some(refusal.clone());
                match messages.send(WorkerMessage::Line(line)).await {
                    Ok(()) => messages.send(WorkerMessage::RefusedConnection(refusal)).await,
                    gone => gone,
                }
            }
        };
        if told.is_err() {
            return last;
        }
    }
}

fn line(clock: &dyn Clock, level: &str, message: String) -> LogLine {
    LogLine {
        at: clock.now(),
        stream: "network".into(),
        level: level.into(),
        message,
        fields: None,
    }
}

fn unavailable(why: &str) -> Outcome {
    Outcome::Failed {
        error: StepError {
            retriable: Some(false),
            ..StepError::new(
                "network_unavailable",
                format!(
                    "the step may use the network, but {why}; it was not started. `weft doctor` shows which layers this \
                     machine has; steps without `network` run as before"
                ),
            )
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::domain::Network;

    /// What was told before the end is told to its end.
    #[tokio::test]
    async fn notices_become_lines_and_the_last_refusal_is_kept() {
        let (grant, notices) = Egress::default().grant(&Network::declared(&["a.example".into(), "bad/one".into()]));
        assert_eq!(grant.look_up("b.example").await, crate::egress::grant::Looked::Refused);
        let (messages, mut received) = mpsc::channel(8);
        let over = CancellationToken::new();
        over.cancel();
        let last = tell(notices, over, messages, Arc::new(SystemClock)).await.unwrap();
        assert_eq!(last.target, "b.example");
        let mut told = Vec::new();
        while let Some(message) = received.recv().await {
            told.push(match message {
                WorkerMessage::Line(line) => format!("{} {}: {}", line.stream, line.level, line.message),
                WorkerMessage::RefusedConnection(refusal) => format!("record: {}", refusal.target),
                other => format!("{other:?}"),
            });
        }
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told[0].starts_with("network warning: `bad/one` is a URL"), "{told:?}");
        assert!(
            told[1].contains("add it in `@workflow`: `network=[\"b.example\"]`"),
            "{told:?}"
        );
        assert_eq!(told[2], "record: b.example");
    }
}
