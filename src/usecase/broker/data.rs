//! `data.get`: what a data provider returns. One level deep: a data provider can't call another.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Answer, Asker, Broker, args, refusal, refusal_of};
use crate::definition::BUILT_IN_PROVIDERS;
use crate::usecase::admission::Purpose;
use crate::usecase::provide_data;

/// How long a call waits until a worker slot may be taken for the data provider beside the step's own.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Get {
    provider: String,
    #[serde(default)]
    inputs: Map<String, Value>,
}

pub(super) async fn call(broker: &Broker, verb: &str, args: Value) -> Answer {
    match (verb, &broker.bound.asker) {
        ("get", Asker::Step { .. }) => {
            let Get { provider, inputs } = args::read("data.get", args)?;
            let bound = &broker.bound;
            if bound.plan.is_some() {
                // It has hosts of its own, which no plan has.
                return Err(refusal(
                    "denied",
                    format!(
                        "the run is held to a plan, in which this step asks no data provider `{provider:.63}`: give the data as an \
                         argument"
                    ),
                ));
            }
            if provider.starts_with(BUILT_IN_PROVIDERS) {
                return Err(refusal(
                    "denied",
                    format!(
                        "`{provider:.63}` is a data provider of the engine, which is for forms: it answers with the rights of whoever \
                         fills one in, and a step has none; give the data as an argument"
                    ),
                ));
            }
            let place = tokio::time::timeout(PATIENCE, bound.cx.waiting.acquire()).await;
            let Ok(Ok(_place)) = place else {
                let message = "every worker slot but one is held by steps that wait; try again later";
                return Err(refusal("unavailable", message));
            };
            let data = provide_data::call(
                &bound.cx,
                &bound.scope,
                &bound.origin,
                (&bound.requester, bound.profile),
                // Its step has a slot, and waits for this.
                Purpose::Inner,
                (&provider, inputs),
            );
            let data = data.await.map_err(|error| refusal_of(&error))?;
            Ok(Arc::unwrap_or_clone(data))
        }
        _ => Err(broker.not_available(&format!("data.{verb}"))),
    }
}
