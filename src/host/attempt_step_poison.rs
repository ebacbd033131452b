//! Quarantine a message about an attempt: function `attempt_step_poison`, queue `weft-attempts-poison`.

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::{GateState, deliver_message};
use crate::usecase::deliver::From;

pub(super) async fn invoke(State(gate): GateState, headers: HeaderMap, body: Bytes) -> Response {
    deliver_message(&gate, &headers, &body, From::AttemptsPoison, "message").await
}
