//! The record of a step that was not run: because there is too little isolation for it here, or because of what holds by now.

use serde_json::json;

use super::Context;
use crate::audit::Event as AuditEvent;
use crate::authz::Origin;
use crate::domain::{AttemptId, Outcome, StepError};
use crate::runner::AttemptReport;
use crate::runner::jail::posture::INSUFFICIENT;
use crate::tenancy::Scope;

/// Why the attempt was refused, if it was. User code can name its errors as it likes, but not end without a worker.
fn refusal(report: &AttemptReport) -> Option<&StepError> {
    match &report.outcome {
        Outcome::Failed { error } if error.kind == INSUFFICIENT && report.posture.is_empty() => Some(error),
        _ => None,
    }
}

/// Records a refusal, and does nothing about any other end. Failing to is logged: the step has not run either way.
pub(super) async fn record_refusal(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    resource: (&str, &str),
    (step, attempt): (&str, &AttemptId),
    report: &AttemptReport,
) {
    if let Some(error) = refusal(report) {
        record(
            cx,
            scope,
            origin,
            resource,
            (step, attempt),
            &error.kind,
            &error.message,
        )
        .await;
    }
}

/// Records that a step was not run. Failing to is logged: the step has not run either way.
pub(super) async fn record(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    resource: (&str, &str),
    (step, attempt): (&str, &AttemptId),
    reason: &str,
    message: &str,
) {
    let record = cx
        .audit
        .by(scope, AuditEvent::StepRefused)
        .came_from(origin)
        .resource(resource.0, resource.1)
        .detail(&json!({"step": step, "attempt": attempt, "reason": reason, "message": message}));
    let recorded = async {
        let linked = cx.audit.append(scope, record).await?;
        cx.audit.index(scope, &[linked]).await
    };
    if let Err(error) = recorded.await {
        tracing::error!(error = %error, "a refused step could not be recorded");
    }
}
