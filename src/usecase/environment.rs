//! The environment that the workspace's packages come from.

use super::{Context, Error, Result};
use crate::authz::{Action, Caller};
pub use crate::runner::environments::Report;
use crate::tenancy;

/// Lines of output that are shown.
const TAIL: usize = 100;

/// How the current environment is, for whoever may look at the platform.
///
/// # Errors
/// When the caller may not.
pub async fn current(cx: &Context, caller: &Caller) -> Result<Report> {
    tenancy::platform(caller, Action::Read)?;
    let (environments, workspace) = (cx.catalogs.environments().clone(), cx.catalogs.workspace().to_owned());
    tokio::task::spawn_blocking(move || environments.report(&workspace, TAIL))
        .await
        .map_err(|error| Error::unavailable("workspace_unavailable", error.to_string(), "repeat the request"))
}
