//! Time limits that are declared above what counts: an installation, a policy or a profile holds an attempt or a run to less. Nothing
//! is refused for that, since less time may do; whoever declares it is told what counts.

use std::time::Duration;

use super::graph::escaped;
use crate::domain::{Declared, Graph, Limits, NodeWork, SecurityProfile};
use crate::error::Finding;

/// The code of such a finding.
const CODE: &str = "timeout_above_ceiling";
/// What declarations of functions say where nobody has written anything, in seconds. It can't be told from the same that was written.
const UNSAID: f64 = 300.0;

/// The longest times that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Longest {
    /// Of an attempt.
    pub attempt: Duration,
    /// Of a run.
    pub run: Duration,
}

impl Longest {
    /// Of an installation, or of what policies have made of its limits, and of a profile.
    #[must_use]
    pub fn of(limits: &Limits, run: Duration, profile: SecurityProfile) -> Self {
        let figures = profile.figures();
        Self {
            attempt: limits.wall().min(Duration::from_secs(figures.step_seconds)),
            run: run.min(Duration::from_secs(figures.run_seconds)),
        }
    }

    /// What a function declares above it; the place is for the caller to say.
    #[must_use]
    pub fn noticed_of_function(&self, declared: &Declared) -> Option<Finding> {
        let seconds = declared.timeout_seconds;
        if seconds <= self.attempt.as_secs_f64() || seconds.total_cmp(&UNSAID).is_eq() {
            return None;
        }
        let what = format!(
            "{} `{}` declares timeout_seconds={seconds}",
            declared.declared_as.as_str().replace('_', " "),
            declared.name
        );
        Some(self.attempt(format!("{}:{}:1", declared.path, declared.line.max(1)), &what))
    }

    /// The same of a version of a node type.
    #[must_use]
    pub fn noticed_of_node_type(&self, seconds: f64) -> Option<Finding> {
        let is_above = seconds > self.attempt.as_secs_f64() && seconds.total_cmp(&UNSAID).is_ne();
        is_above.then(|| self.attempt("/timeoutSeconds".to_owned(), &format!("`timeoutSeconds` is {seconds}")))
    }

    /// What a graph says above it, with pointers into the graph.
    #[must_use]
    pub fn noticed_of_graph(&self, graph: &Graph) -> Vec<Finding> {
        let mut noticed = Vec::new();
        if let Some(seconds) = graph.deadline_seconds
            && seconds > self.run.as_secs_f64()
        {
            noticed.push(self.run(
                "/deadlineSeconds".to_owned(),
                &format!("`deadlineSeconds` is {seconds}"),
            ));
        }
        for node in &graph.nodes {
            let Some(seconds) = node.timeout_seconds else { continue };
            let pointer = format!("/nodes/{}/timeoutSeconds", escaped(&node.id));
            let what = format!("`timeoutSeconds` of node `{}` is {seconds}", node.id);
            // A step that is tried again may well need longer than one attempt.
            let is_one_attempt =
                makes_attempts(&node.work) && node.retry.as_ref().is_none_or(|retry| retry.attempts <= 1);
            if is_one_attempt && seconds > self.attempt.as_secs_f64() {
                noticed.push(self.attempt(pointer, &what));
            } else if seconds > self.run.as_secs_f64() {
                noticed.push(self.run(pointer, &what));
            }
        }
        noticed
    }

    fn attempt(&self, pointer: String, what: &str) -> Finding {
        let most = self.attempt.as_secs_f64();
        Finding::new(pointer, CODE, format!("{what}; an attempt has at most {most} s here, and that is what counts")).hint(
            format!(
                "write at most {most}, or have the operator raise `WEFT_STEP_TIMEOUT_SECONDS` or an administrator the policy or \
                 profile; what takes longer can be several steps"
            ),
        )
    }

    fn run(&self, pointer: String, what: &str) -> Finding {
        let most = self.run.as_secs_f64();
        Finding::new(pointer, CODE, format!("{what}; a run has at most {most} s here, and that is what counts")).hint(format!(
            "write at most {most}, or have the operator raise `WEFT_RUN_TIMEOUT_SECONDS` or an administrator the profile"
        ))
    }
}

/// Whether a node is an attempt, and not many of them, a run, or something that waits.
const fn makes_attempts(work: &NodeWork) -> bool {
    matches!(
        work,
        NodeWork::Python { .. }
            | NodeWork::Library { .. }
            | NodeWork::Shell { .. }
            | NodeWork::Http { .. }
            | NodeWork::Email { .. }
            | NodeWork::File { .. }
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::read_authored;
    use super::*;

    fn longest() -> Longest {
        Longest::of(
            &Limits::default(),
            Duration::from_secs(3_600),
            SecurityProfile::Standard,
        )
    }

    #[test]
    fn the_least_counts() {
        assert_eq!(longest().attempt.as_secs(), 300);
        let restricted = Longest::of(
            &Limits {
                wall_ms: 2_000_000,
                ..Limits::default()
            },
            Duration::from_secs(100_000),
            SecurityProfile::Restricted,
        );
        assert_eq!((restricted.attempt.as_secs(), restricted.run.as_secs()), (900, 3_600));
    }

    #[test]
    fn what_is_above_is_told_with_what_counts() {
        let graph = json!({"name": "g", "deadlineSeconds": 90_000, "nodes": [
            {"id": "one", "type": "shell", "command": "true", "timeoutSeconds": 301},
            {"id": "fine", "type": "shell", "command": "true", "timeoutSeconds": 300},
            {"id": "again", "type": "shell", "command": "true", "timeoutSeconds": 900, "retry": {"attempts": 3}},
            {"id": "wait", "type": "workflow", "workflow": "other", "timeoutSeconds": 3_601},
        ]});
        let authored = read_authored("g", &graph);
        assert_eq!(authored.findings(), []);
        let noticed = longest().noticed_of_graph(authored.graph());
        let pointers: Vec<_> = noticed.iter().map(|one| one.pointer.as_str()).collect();
        assert_eq!(
            pointers,
            [
                "/deadlineSeconds",
                "/nodes/one/timeoutSeconds",
                "/nodes/wait/timeoutSeconds"
            ]
        );
        assert!(noticed[0].message.contains("at most 3600 s"), "{}", noticed[0].message);
        assert!(noticed[1].message.contains("at most 300 s"), "{}", noticed[1].message);

        let mut declared = authored.declared;
        for (seconds, is_told) in [(300.0, false), (299.0, false), (301.0, true)] {
            declared.timeout_seconds = seconds;
            assert_eq!(longest().noticed_of_function(&declared).is_some(), is_told, "{seconds}");
        }
    }
}
