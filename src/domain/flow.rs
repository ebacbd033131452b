//! How the steps of a graph follow each other: what an edge wants, how many edges count, what a failure means.

use serde::{Deserialize, Serialize};

/// What of the earlier step an edge wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DependsOn {
    /// That it has succeeded, was skipped by its own `when`, or failed where its failure doesn't count.
    #[default]
    Success,
    /// That it has failed or timed out: the later step handles the failure, and the run goes on.
    Failure,
    /// That it has ended, however.
    End,
}

/// How many of a step's edges count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Join {
    /// All: one that can't come any more leaves the step out.
    #[default]
    All,
    /// Whichever come, at least one: where branches meet again.
    Any,
}

/// When a step's time comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// In the ordinary course of the run.
    #[default]
    Main,
    /// After that, when it has failed or timed out.
    OnFailure,
    /// After that, in any case but a cancellation.
    Finally,
}

/// What the failure of a step means for its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailure {
    /// The run fails: nothing new begins, and what runs may end.
    #[default]
    Fail,
    /// The run goes on as if the step had succeeded with nothing.
    Continue,
}

/// What the failure of an item means for its map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ItemFailure {
    /// The map fails, and its other items are stopped.
    #[default]
    Fail,
    /// The item's place in the result is null.
    Continue,
    /// As `continue` up to so many items, as `fail` from then on.
    AtMost(u32),
}
