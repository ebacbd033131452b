//! Quarantine a message about a run: function `drive_run_poison`, queue `weft-runs-poison`.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::{GateState, deliver_message};
use crate::usecase::deliver::From;

pub(super) async fn invoke(State(gate): GateState, headers: HeaderMap, body: Bytes) -> Response {
    deliver_message(&gate, &headers, &body, From::RunsPoison, "message").await
}
