//! The contract of `port.rs` as functions that run against every backend: of tables in `tables.rs`, `writes.rs`, `rows.rs`
//! and `queries.rs`, of blobs in `blobs.rs`, of queues in `queues.rs`. Each makes what it needs under names of its own,
//! asserts only what all backends hold, and removes what it made.

mod blobs;
mod queries;
mod queues;
mod rows;
mod tables;
mod writes;

use std::future::Future;

pub use self::blobs::{
    blobs_are_deleted_as_they_were_seen, blobs_are_listed, blobs_are_made_of_parts, blobs_are_put_and_read,
    blobs_grow_where_expected,
};
pub use self::queries::{
    filters_are_never_syntax, filters_of_every_type, impossible_queries_are_refused, ranges_and_pages,
};
pub use self::queues::{
    Pace, every_message_comes_once, messages_are_delayed, messages_are_hidden_and_come_back, messages_carry_any_text,
    queues_exist_or_not, receipts_go_stale,
};
pub use self::rows::{keys_are_never_syntax, limits_hold_at_the_edge, values_come_back_as_they_were};
pub use self::tables::{partitions_are_apart, tables_exist_or_not};
pub use self::writes::{
    batches_are_all_or_nothing, batches_stay_atomic_under_contention, increments_are_exact,
    rows_are_written_under_conditions,
};
use super::error::Error;
use super::port::Ports;

/// Everything. `unique` is added to all names: at most 20 of a–z and 0–9.
pub async fn all(ports: &Ports, unique: &str, pace: Pace<'_>) {
    Box::pin(async {
        tables_exist_or_not(ports, unique).await;
        rows_are_written_under_conditions(ports, unique).await;
        batches_are_all_or_nothing(ports, unique).await;
        increments_are_exact(ports, unique).await;
        batches_stay_atomic_under_contention(ports, unique).await;
        limits_hold_at_the_edge(ports, unique).await;
        keys_are_never_syntax(ports, unique).await;
        values_come_back_as_they_were(ports, unique).await;
    })
    .await;
    Box::pin(async {
        ranges_and_pages(ports, unique).await;
        filters_of_every_type(ports, unique).await;
        filters_are_never_syntax(ports, unique).await;
        impossible_queries_are_refused(ports, unique).await;
        partitions_are_apart(ports, unique).await;
    })
    .await;
    Box::pin(async {
        blobs_are_put_and_read(ports, unique).await;
        blobs_grow_where_expected(ports, unique).await;
        blobs_are_listed(ports, unique).await;
        blobs_are_made_of_parts(ports, unique).await;
        blobs_are_deleted_as_they_were_seen(ports, unique).await;
    })
    .await;
    Box::pin(async {
        queues_exist_or_not(ports, unique).await;
        messages_are_hidden_and_come_back(ports, unique, pace).await;
        receipts_go_stale(ports, unique, pace).await;
        messages_are_delayed(ports, unique, pace).await;
        messages_carry_any_text(ports, unique).await;
        every_message_comes_once(ports, unique).await;
    })
    .await;
}

#[track_caller]
fn ok<T>(result: Result<T, Error>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("expected success: {error} ({error:?})"),
    }
}

#[track_caller]
fn not_found<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(
        matches!(result, Err(Error::NotFound { .. })),
        "expected NotFound: {result:?}"
    );
}

#[track_caller]
fn malformed<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(
        matches!(result, Err(Error::Malformed { .. })),
        "expected Malformed: {result:?}"
    );
}

#[track_caller]
fn too_large<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(
        matches!(result, Err(Error::TooLarge { .. })),
        "expected TooLarge: {result:?}"
    );
}

#[track_caller]
fn exists_already<T: std::fmt::Debug>(result: Result<T, Error>, at: usize) {
    assert!(
        matches!(result, Err(Error::AlreadyExists { index, .. }) if index == at),
        "expected AlreadyExists by operation {at}: {result:?}"
    );
}

#[track_caller]
fn precondition_failed<T: std::fmt::Debug>(result: Result<T, Error>, at: usize) {
    assert!(
        matches!(result, Err(Error::PreconditionFailed { index, .. }) if index == at),
        "expected PreconditionFailed by operation {at}: {result:?}"
    );
}

/// Runs tasks side by side, and passes a panic on.
async fn in_tasks<F>(count: i64, task: impl Fn(i64) -> F) -> Vec<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let tasks: Vec<_> = (0..count).map(|number| tokio::spawn(task(number))).collect();
    let mut outputs = Vec::new();
    for task in tasks {
        match task.await {
            Ok(output) => outputs.push(output),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    outputs
}
