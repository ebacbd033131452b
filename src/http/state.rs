//! What handlers share, and the gate that holds them back until it is there.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::watch;

use super::problem::ApiError;
use crate::authn::Authenticator;
use crate::usecase::Context;

/// What the HTTP layer itself is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Largest request body in bytes.
    pub max_body_bytes: usize,
    /// How long a synchronous caller waits when it doesn't say.
    pub wait: Duration,
    /// How long it waits at most.
    pub max_wait: Duration,
    /// Whether the listener is bound to the loopback.
    pub listener_loopback: bool,
    /// What `/api/status` shows of the configuration and the mode.
    pub about: serde_json::Value,
    /// What it shows of the engine; nothing until its files have been compared.
    pub engine: Arc<OnceLock<serde_json::Value>>,
}

/// Everything behind the routes.
#[derive(Debug)]
pub struct App {
    /// Use cases.
    pub cx: Arc<Context>,
    /// Who is calling.
    pub authenticator: Authenticator,
    /// Settings.
    pub settings: Settings,
}

#[derive(Debug, Clone)]
enum Condition {
    Starting,
    /// It could not be made ready; somebody keeps trying.
    Failing(ApiError),
    Ready(Arc<App>),
}

/// Holds requests back until the application is there.
#[derive(Debug, Clone)]
pub struct Gate(watch::Sender<Condition>);

/// How long a request waits for a start that is under way.
const PATIENCE: Duration = Duration::from_secs(10);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(Condition::Starting))
    }
}

impl Gate {
    /// Lets requests through.
    pub fn open(&self, app: Arc<App>) {
        self.0.send_replace(Condition::Ready(app));
    }

    /// Answers requests with an error until the next try succeeds.
    pub fn failing(&self, error: ApiError) {
        self.0.send_replace(Condition::Failing(error));
    }

    /// The application, when it is ready.
    #[must_use]
    pub fn app(&self) -> Option<Arc<App>> {
        match &*self.0.borrow() {
            Condition::Ready(app) => Some(app.clone()),
            _ => None,
        }
    }

    /// The application, as soon as it is ready.
    ///
    /// # Errors
    /// Why it is not, when it can't be made ready or takes too long.
    pub async fn wait(&self) -> Result<Arc<App>, ApiError> {
        let mut receiver = self.0.subscribe();
        let settled = receiver.wait_for(|condition| !matches!(condition, Condition::Starting));
        match tokio::time::timeout(PATIENCE, settled).await {
            Ok(Ok(condition)) => match &*condition {
                Condition::Ready(app) => Ok(app.clone()),
                Condition::Failing(error) => Err(error.clone()),
                Condition::Starting => Err(ApiError::starting()),
            },
            Ok(Err(_)) | Err(_) => Err(ApiError::starting()),
        }
    }
}
