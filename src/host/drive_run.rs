//! Continue a run: function `drive_run`, queue `weft-runs`.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::{GateState, deliver_message};
use crate::usecase::deliver::From;

pub(super) async fn invoke(State(gate): GateState, headers: HeaderMap, body: Bytes) -> Response {
    deliver_message(&gate, &headers, &body, From::Runs, "message").await
}
