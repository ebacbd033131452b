//! A message that failed too often: a visible fact, not a loss.

use std::sync::Arc;

use serde_json::json;

use super::drive_run::{self, Continued};
use super::{Context, Result};
use crate::audit::Event as AuditEvent;
use crate::authz::Origin;
use crate::domain::Timestamp;
use crate::tenancy::{RunRef, rehydrate};

/// Records that a message about a run was quarantined, and goes on with the run when it is still alive: what made the message
/// fail may be over.
///
/// # Errors
/// When storage fails.
pub async fn quarantine(cx: &Arc<Context>, run: &RunRef, delivered_at: Timestamp) -> Result<Continued> {
    let scope = rehydrate(run, "drive_run_poison");
    let Some(stored) = cx.runs.get(&scope, &run.run).await? else {
        return Ok(Continued::Unknown);
    };
    let origin = Origin {
        request_id: stored.new.request_id.clone(),
        endpoint: "drive_run_poison".to_owned(),
        ..Origin::default()
    };
    let record = cx
        .audit
        .by(&scope, AuditEvent::MessageQuarantined)
        .came_from(&origin)
        .resource("run", run.run.as_str())
        .detail(&json!({"queue": "weft-runs", "status": stored.state.status}));
    let linked = cx.audit.append(&scope, record).await?;
    cx.audit.index(&scope, &[linked]).await?;
    drive_run::continue_run(cx, run, delivered_at).await
}
