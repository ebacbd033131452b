//! Names of the fields of log records, with the unit in the name where there is one. A record uses these constants
//! (`info!({ field::RUN_ID } = %run, "the run has started")`), so that one thing has one name in every line.
//!
//! Never logged: bodies, arguments and results, header values, query strings, keys, e-mail addresses.

/// The organization.
pub const ORG_ID: &str = "org.id";
/// The principal, by id.
pub const PRINCIPAL_ID: &str = "principal.id";
/// The workflow, by name.
pub const WORKFLOW_NAME: &str = "workflow.name";
/// The run.
pub const RUN_ID: &str = "run.id";
/// A run's status.
pub const RUN_STATUS: &str = "run.status";
/// The step in its run.
pub const STEP_NAME: &str = "step.name";
/// The attempt.
pub const ATTEMPT_ID: &str = "attempt.id";
/// How many attempts there have been, this one included.
pub const ATTEMPT_NUMBER: &str = "attempt.number";
/// How the attempt ended.
pub const ATTEMPT_OUTCOME: &str = "attempt.outcome";
/// The code's digest.
pub const BUNDLE_DIGEST: &str = "bundle.digest";
/// A Python process of ours.
pub const WORKER_PID: &str = "worker.pid";
/// The request, as the answer's `requestId` says it.
pub const REQUEST_ID: &str = "request.id";
/// The request's method.
pub const HTTP_METHOD: &str = "http.method";
/// The matched route, not the path: a path may hold names of people.
pub const HTTP_ROUTE: &str = "http.route";
/// The answer's status.
pub const HTTP_STATUS: &str = "http.status";
/// The address that is listened on.
pub const HTTP_ADDRESS: &str = "http.address";
/// The function that the host has called.
pub const FUNCTION_NAME: &str = "function.name";
/// The host's id of the invocation.
pub const INVOCATION_ID: &str = "invocation.id";
/// The queue.
pub const QUEUE_NAME: &str = "queue.name";
/// How often a message has been handed out.
pub const QUEUE_DEQUEUES: &str = "queue.dequeues";
/// Which store.
pub const STORE_BACKEND: &str = "store.backend";
/// What the store was asked to do.
pub const STORE_OPERATION: &str = "store.operation";
/// How long it took.
pub const DURATION_MS: &str = "duration_ms";
/// A file.
pub const FILE_PATH: &str = "file.path";
/// An error with its whole chain of causes.
pub const ERROR: &str = "error";
/// An error's public code.
pub const ERROR_CODE: &str = "error.code";
/// Where the program has panicked.
pub const PANIC_LOCATION: &str = "panic.location";
/// The thread that has panicked.
pub const PANIC_THREAD: &str = "panic.thread";
/// Who called whom, where `RUST_BACKTRACE` asks for it.
pub const PANIC_BACKTRACE: &str = "panic.backtrace";
