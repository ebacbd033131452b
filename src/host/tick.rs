//! Every minute: function `tick`, timer.

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};

use super::envelope::Answer;
use super::{GateState, context, failed};
use crate::http::problem::ApiError;
use crate::usecase;

pub(super) async fn invoke(State(gate): GateState) -> Response {
    let cx = match context(&gate).await {
        Ok(cx) => cx,
        Err(response) => return response,
    };
    match usecase::tick::tick(&cx).await {
        Ok(ticked) => Answer::done(&format!(
            "did {} of {} that were due, sealed {} chains of {} organizations",
            ticked.due,
            ticked.due + ticked.left,
            ticked.sealed,
            ticked.organizations
        ))
        .into_response(),
        Err(error) => failed(&ApiError::from(error), ""),
    }
}
