//! A revision's graph → what is executed: steps in an order that respects their dependencies.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::{
    DEFAULT_ACTIVE, Declared, DeclaredAs, DependsOn, ItemFailure, Join, Limits, OnCrash, OnFailure, OnFalse, Phase,
    RetryPolicy, Rights, SecurityProfile, Trust, WorkflowRevision,
};

/// A call of a Python function in a worker of its own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Code {
    /// The declaration that it is called by.
    pub name: String,
    /// Of which kind that is.
    #[serde(default)]
    pub declared_as: DeclaredAs,
    /// The module in the bundle.
    pub module: String,
    /// The function in the module.
    pub function: String,
    /// What an attempt may use.
    pub limits: Limits,
    /// What an attempt may do.
    #[serde(default)]
    pub rights: Rights,
    /// Secrets that an attempt may ask for, by name.
    #[serde(default)]
    pub secrets: Vec<String>,
    /// Of code of the node library, the digest of its version; it is no module of the bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// Of a step that starts programs, which; none where they can't be told.
    #[serde(default, skip_serializing_if = "Starts::is_nothing")]
    pub starts: Starts,
}

/// The programs that a step starts by its definition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Starts {
    /// None: it is no command.
    #[default]
    Nothing,
    /// These.
    Programs(Vec<String>),
    /// What can't be told before it runs.
    Unknown,
}

impl Starts {
    const fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }
}

/// The module of steps that are built in.
pub const BUILT_IN: &str = "weft._steps";

/// What is done once, or once for each item or iteration, and may be tried again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A Python function.
    Code(Box<Code>),
    /// A run of another workflow, which the step waits for.
    Child {
        /// The workflow.
        workflow: String,
    },
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// An action.
    Once(Action),
    /// An action for each item of a list.
    Map {
        /// The action.
        action: Action,
        /// The list: a value with expressions in it.
        items: Value,
        /// Items at once.
        at_once: u32,
        /// What the failure of an item does.
        failure: ItemFailure,
    },
    /// An action again and again.
    Loop {
        /// The action.
        action: Action,
        /// An expression that is looked at after each iteration; true ends the loop.
        until: String,
        /// Most iterations; a loop that has not ended by then fails.
        most: u32,
    },
    /// The first branch whose expression is true, by name.
    Choose {
        /// Name and expression.
        branches: Vec<(String, String)>,
        /// The branch that is taken when none is true.
        otherwise: Option<String>,
    },
    /// Something that must be so.
    Assert {
        /// An expression.
        condition: String,
        /// What is said when it isn't: a value with expressions in it.
        message: Value,
        /// What that means.
        on_false: OnFalse,
    },
    /// A value with expressions in it, worked out.
    Compute {
        /// The value.
        value: Value,
    },
    /// Nothing, for a while.
    Delay {
        /// Seconds, or an expression that gives them.
        seconds: Value,
    },
    /// Wait for people.
    Approval {
        /// How many must agree.
        needed: u32,
        /// How long they have, in milliseconds.
        within_ms: u64,
        /// What they are asked: a value with expressions in it.
        question: Value,
    },
}

impl Work {
    /// As written in a graph's `type`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Once(Action::Code(code)) => code.kind(),
            Self::Assert { .. } => "assert",
            Self::Once(Action::Child { .. }) => "workflow",
            Self::Map { .. } => "map",
            Self::Loop { .. } => "loop",
            Self::Choose { .. } => "choose",
            Self::Compute { .. } => "compute",
            Self::Delay { .. } => "delay",
            Self::Approval { .. } => "approval",
        }
    }

    /// The workflow of the child runs that it waits for.
    #[must_use]
    pub fn child(&self) -> Option<&String> {
        match self {
            Self::Once(Action::Child { workflow })
            | Self::Map {
                action: Action::Child { workflow },
                ..
            }
            | Self::Loop {
                action: Action::Child { workflow },
                ..
            } => Some(workflow),
            _ => None,
        }
    }

    /// Whether it does something once, and not for items or iterations.
    #[must_use]
    pub const fn is_once(&self) -> bool {
        !matches!(self, Self::Map { .. } | Self::Loop { .. })
    }

    /// What is tried, where there is something to try.
    #[must_use]
    pub const fn action(&self) -> Option<&Action> {
        match self {
            Self::Once(action) | Self::Map { action, .. } | Self::Loop { action, .. } => Some(action),
            _ => None,
        }
    }

    /// The code that is called, if code is.
    #[must_use]
    pub fn code(&self) -> Option<&Code> {
        match self.action() {
            Some(Action::Code(code)) => Some(code),
            _ => None,
        }
    }

    /// As [`Work::code`], to be changed.
    pub fn code_mut(&mut self) -> Option<&mut Code> {
        match self {
            Self::Once(Action::Code(code))
            | Self::Map {
                action: Action::Code(code),
                ..
            }
            | Self::Loop {
                action: Action::Code(code),
                ..
            } => Some(code),
            _ => None,
        }
    }
}

/// An edge that leads to a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dependency {
    /// The earlier step's place in the plan.
    pub step: usize,
    /// What of it the edge wants.
    #[serde(default)]
    pub on: DependsOn,
    /// The branch that it must have taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
}

impl Dependency {
    /// On the success of a step.
    #[must_use]
    pub const fn on(step: usize) -> Self {
        Self {
            step,
            on: DependsOn::Success,
            branch: None,
        }
    }
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepPlan {
    /// Its id in the graph: `[a-z0-9_-]`, at most 63 characters.
    pub id: String,
    /// What it does.
    pub work: Work,
    /// What its action is given: a value with expressions in it. None gives it the run's arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Value>,
    /// What it waits for; always earlier steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<Dependency>,
    /// How many of them count.
    #[serde(default)]
    pub join: Join,
    /// An expression; false skips the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// When its time comes.
    #[serde(default)]
    pub phase: Phase,
    /// What its failure means for the run.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Whether a step of its own phase begins when it fails, so that the run goes on.
    #[serde(default)]
    pub handled: bool,
    /// When a failed attempt is made again.
    #[serde(default)]
    pub retry: RetryPolicy,
    /// What happens to an attempt whose end nobody saw.
    #[serde(default)]
    pub on_crash: OnCrash,
    /// Time limit of the step as a whole, attempts and pauses included, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// For how long its result may be taken from an earlier run, in seconds; none for never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_seconds: Option<u64>,
}

impl StepPlan {
    /// A step that does something, with every setting as it is without one.
    #[must_use]
    pub fn new(id: impl Into<String>, work: Work) -> Self {
        Self {
            id: id.into(),
            work,
            inputs: None,
            depends_on: Vec::new(),
            join: Join::All,
            when: None,
            phase: Phase::Main,
            on_failure: OnFailure::Fail,
            handled: false,
            retry: RetryPolicy::default(),
            on_crash: OnCrash::Retry,
            timeout_ms: None,
            cache_seconds: None,
        }
    }

    /// Whether values must be looked at before it begins.
    pub(super) const fn is_evaluated(&self) -> bool {
        self.when.is_some()
            || matches!(
                self.work,
                Work::Map { .. }
                    | Work::Choose { .. }
                    | Work::Compute { .. }
                    | Work::Assert { .. }
                    | Work::Delay { .. }
            )
    }
}

/// Where a run's result comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Output {
    /// From a step.
    Step(usize),
    /// From a value with expressions in it, worked out when all steps have ended.
    Value(Value),
}

/// Everything that is executed for one run; immutable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The workflow.
    pub workflow: String,
    /// The digest of the bundle that the code comes from.
    pub bundle: String,
    /// The revision of the workflow, where the organization has authored it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<WorkflowRevision>,
    /// The digest of the environment that its packages come from; none when it needs none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// The security profile that the workflow, or whoever asked for the run, has asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<SecurityProfile>,
    /// The steps; `depends_on` points backwards only.
    pub steps: Vec<StepPlan>,
    /// The result.
    pub output: Output,
    /// Most steps and items at once, at most [`crate::domain::MAX_ACTIVE`].
    pub active: u32,
    /// Time limit of the run, in milliseconds, where the workflow has one; the installation's own holds as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// The step of a workflow that is one Python function.
pub const MAIN_STEP: &str = "main";

/// How much time steps that handle a failure have at least, and again those that run in any case, however late it has become. A
/// run ends by its deadline and twice this.
pub const GRACE_MS: u64 = 300_000;

impl Code {
    /// A declared function. Its limits are the declared ones, below the ceilings of `limits`.
    #[must_use]
    pub fn of(declared: &Declared, limits: &Limits) -> Self {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to a day before"
        )]
        let wall_ms = (declared.timeout_seconds.clamp(0.001, 86_400.0) * 1000.0) as u64;
        Self {
            name: declared.name.clone(),
            declared_as: declared.declared_as,
            module: declared.module.clone(),
            function: declared.function.clone(),
            limits: Limits {
                wall_ms: wall_ms.min(limits.wall_ms),
                ..declared.limits.within(limits)
            },
            rights: declared.rights(),
            secrets: declared.secrets.clone(),
            digest: declared
                .authored
                .as_ref()
                .filter(|authored| authored.document.body.code().is_some())
                .map(|authored| authored.digest.clone()),
            starts: Starts::Nothing,
        }
    }

    /// A step that is built in, by the name of its function.
    #[must_use]
    pub fn built_in(name: &str, limits: &Limits, network: &[String], starts: Starts) -> Self {
        Self {
            name: name.to_owned(),
            declared_as: DeclaredAs::Node,
            module: BUILT_IN.to_owned(),
            function: name.to_owned(),
            limits: limits.clone(),
            rights: Rights::of_workspace(network),
            secrets: Vec::new(),
            digest: None,
            starts,
        }
    }

    /// As written in a graph's `type`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match (self.module.as_str(), self.name.as_str()) {
            (BUILT_IN, "shell") => "shell",
            (BUILT_IN, "http") => "http",
            (BUILT_IN, "email") => "email",
            (BUILT_IN, "file") => "file",
            _ if self.digest.is_some() => "node",
            _ => "python",
        }
    }
}

impl Plan {
    /// A decorated Python workflow: one step.
    #[must_use]
    pub fn of_python(bundle: &str, declared: &Declared, limits: &Limits) -> Self {
        let code = Code::of(declared, limits);
        Self {
            workflow: declared.name.clone(),
            bundle: bundle.to_owned(),
            revision: None,
            environment: None,
            profile: None,
            steps: vec![StepPlan {
                retry: declared.retry.clone(),
                on_crash: declared.on_crash,
                ..StepPlan::new(MAIN_STEP, Work::Once(Action::Code(Box::new(code))))
            }],
            output: Output::Step(0),
            active: DEFAULT_ACTIVE,
            deadline_ms: None,
        }
    }

    /// The same without any pause: nothing is waited for before an attempt is made again, and delays are over at once. For
    /// simulations, in which nobody wants to wait.
    #[must_use]
    pub fn without_pauses(mut self) -> Self {
        for step in &mut self.steps {
            step.retry.delay_seconds = 0.0;
            if let Work::Delay { seconds } = &mut step.work {
                *seconds = Value::from(0);
            }
        }
        self
    }

    /// The same, in which the run itself has no time limit.
    #[must_use]
    pub const fn without_deadline(mut self) -> Self {
        self.deadline_ms = None;
        self
    }

    /// The same, pinned to an environment.
    #[must_use]
    pub fn in_environment(mut self, digest: Option<String>) -> Self {
        self.environment = digest;
        self
    }

    /// The same, of a revision that the organization has authored: its own commands and requests are trusted that far.
    #[must_use]
    pub fn of_revision(mut self, revision: WorkflowRevision, trust: Trust) -> Self {
        self.revision = Some(revision);
        for step in &mut self.steps {
            if let Some(code) = step.work.code_mut().filter(|code| code.module == BUILT_IN) {
                code.rights.trust = code.rights.trust.min(trust);
            }
        }
        self
    }

    /// Whether it tries a draft.
    #[must_use]
    pub fn is_test(&self) -> bool {
        self.revision.as_ref().is_some_and(WorkflowRevision::is_draft)
    }

    /// A step's place, by its id.
    #[must_use]
    pub fn position(&self, id: &str) -> Option<usize> {
        self.steps.iter().position(|step| step.id == id)
    }
}
