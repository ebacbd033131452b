//! A revision's graph → what is executed: steps in an order that respects their dependencies.

use serde::{Deserialize, Serialize};

use crate::domain::{Declared, Limits, OnCrash, RetryPolicy, Rights};

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepPlan {
    /// Its id in the graph: `[a-z0-9_-]`, at most 63 characters.
    pub id: String,
    /// The module in the bundle.
    pub module: String,
    /// The function in the module.
    pub function: String,
    /// Steps that must have succeeded, by their place in the plan; always earlier ones.
    pub depends_on: Vec<usize>,
    /// When a failed attempt is made again.
    pub retry: RetryPolicy,
    /// What happens to an attempt whose end nobody saw.
    pub on_crash: OnCrash,
    /// What an attempt may use.
    pub limits: Limits,
    /// What an attempt may do.
    #[serde(default)]
    pub rights: Rights,
    /// Secrets that an attempt may ask for, by name.
    #[serde(default)]
    pub secrets: Vec<String>,
}

/// Everything that is executed for one run; immutable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The workflow.
    pub workflow: String,
    /// The digest of the bundle that the code comes from.
    pub bundle: String,
    /// The digest of the environment that its packages come from; none when it needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The steps; `depends_on` points backwards only.
    pub steps: Vec<StepPlan>,
}

/// The step of a workflow that is one Python function.
pub const MAIN_STEP: &str = "main";

impl Plan {
    /// A decorated Python workflow: one step. Its limits are the declared ones, below the ceilings of `limits`.
    #[must_use]
    pub fn of_python(bundle: &str, declared: &Declared, limits: &Limits) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to a day before"
        )]
        let wall_ms = (declared.timeout_seconds.clamp(0.001, 86_400.0) * 1000.0) as u64;
        let limits = Limits {
            wall_ms: wall_ms.min(limits.wall_ms),
            ..declared.limits.within(limits)
        };
        Self {
            workflow: declared.name.clone(),
            bundle: bundle.to_owned(),
            environment: None,
            steps: vec![StepPlan {
                id: MAIN_STEP.to_owned(),
                module: declared.module.clone(),
                function: declared.function.clone(),
                depends_on: Vec::new(),
                retry: declared.retry.clone(),
                on_crash: declared.on_crash,
                limits,
                rights: Rights::of_workspace(&declared.network),
                secrets: declared.secrets.clone(),
            }],
        }
    }

    /// The same, pinned to an environment.
    #[must_use]
    pub fn in_environment(mut self, digest: Option<String>) -> Self {
        self.environment = digest;
        self
    }

    /// A step's place, by its id.
    #[must_use]
    pub fn position(&self, id: &str) -> Option<usize> {
        self.steps.iter().position(|step| step.id == id)
    }
}
