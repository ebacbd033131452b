//! What is done, and that it is on record: first the record, then the change.
//!
//! [`recorded`] is how a use case changes something. [`keep`] is for what is no change: a refusal, a look, a use, and for a change
//! that is written with its record or can be repeated; `tests/it/architecture.rs` has the list of those that may call it.

use super::{Context, Result};
use crate::audit::{Outcome, Record};
use crate::error::Coded as _;
use crate::store::repo::audit_log::Within;

/// Makes a change of which there is a record before it is made. What is refused has a second record, which says so; where it is
/// not known whether the change was made, the first stands.
pub(super) async fn recorded<'a, T>(
    cx: &Context,
    within: impl Into<Within<'a>> + Send,
    record: impl Fn() -> Record + Send,
    change: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    let within = within.into();
    keep(cx, within, record()).await?;
    let made = change.await;
    if let Err(error) = &made
        && !error.kind().retriable()
        && let Err(unsaid) = keep(cx, within, record().outcome(Outcome::Failed)).await
    {
        tracing::warn!(error = %unsaid, "a change that was not made is on record as made");
    }
    made
}

/// Appends a record and lists it.
pub(super) async fn keep<'a>(cx: &Context, within: impl Into<Within<'a>> + Send, record: Record) -> Result<()> {
    let within = within.into();
    let linked = cx.audit.append(within, record).await?;
    cx.audit.index(within, &[linked]).await?;
    Ok(())
}
