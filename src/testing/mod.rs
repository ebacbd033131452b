//! A whole application in this process, for tests: the use cases and the routes as `boot.rs` puts them together, over the
//! embedded store, with a runner that plays a script or with real workers.
//!
//! Nothing here is a double of what is tested: [`app`] chooses backends, and [`request`] says a request and reads the answer.

pub mod app;
pub mod request;
pub mod sim;

pub use app::{Builder, DATA_PROVIDER, TestApp, WORKFLOW};
pub use request::{Answer, Request};
