//! Logs: one line for each record, on the stream that the command does not use for data.
//!
//! Under the Functions host that is stdout, where the host takes each line for one record; on stderr it would guess the
//! severity from the words. In commands that a person calls it is stderr.

pub mod field;
mod line;

use std::io::{self, IsTerminal as _, Write};
use std::panic::PanicHookInfo;

use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::{FilterFn, ParseError, Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::Registry;

use line::{Lines, Style};

/// The stream that logs are written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// Under the Functions host.
    Stdout,
    /// Where stdout carries data.
    Stderr,
}

/// How to log.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// A level, or levels by module as `info,weft::http=debug`.
    pub filter: &'a str,
    /// JSON instead of text.
    pub json: bool,
    /// Whether colours are welcome; they are used on a terminal only.
    pub color: bool,
    /// Where to.
    pub sink: Sink,
}

/// Why logging was not set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not one.
    #[error("the log filter can't be read")]
    Filter(#[from] ParseError),
    /// There is one subscriber in a process.
    #[error("logging is already set up")]
    Repeated(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// Sends all records of this process to the sink, panics included.
///
/// # Errors
/// The filter can't be read, or logging is already set up.
pub fn init(options: &Options<'_>) -> Result<(), Error> {
    let (terminal, out): (bool, Box<dyn Write + Send>) = match options.sink {
        Sink::Stdout => (io::stdout().is_terminal(), Box::new(io::stdout())),
        Sink::Stderr => (io::stderr().is_terminal(), Box::new(io::stderr())),
    };
    let style = if options.json {
        Style::Json
    } else {
        Style::Text {
            color: options.color && terminal,
        }
    };
    tracing::subscriber::set_global_default(subscriber(options.filter, style, out)?)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn subscriber(
    filter: &str,
    style: Style,
    out: impl Write + Send + 'static,
) -> Result<impl Subscriber + Send + Sync, ParseError> {
    let levels: Targets = filter.parse()?;
    Ok(Registry::default()
        .with(levels)
        .with(no_credentials())
        .with(Lines::new(style, out)))
}

/// Below `warn`, HTTP and Azure libraries log requests with their `Authorization`; no filter can ask for that.
fn no_credentials() -> FilterFn {
    const LIBRARIES: [&str; 9] = [
        "azure_", "typespec", "hyper", "h2", "reqwest", "rustls", "tower", "axum", "tonic",
    ];
    filter_fn(|metadata: &Metadata<'_>| {
        *metadata.level() <= LevelFilter::WARN
            || !LIBRARIES.iter().any(|library| metadata.target().starts_with(library))
    })
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let backtrace = std::backtrace::Backtrace::capture();
    let captured = backtrace.status() == std::backtrace::BacktraceStatus::Captured;
    tracing::error!(
        { field::PANIC_LOCATION } = location,
        { field::PANIC_THREAD } = thread.name().unwrap_or("unnamed"),
        { field::PANIC_BACKTRACE } = captured.then(|| backtrace.to_string()),
        "panicked: {}",
        message_of(panic),
    );
}

fn message_of<'p>(panic: &'p PanicHookInfo<'_>) -> &'p str {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("not poisoned").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(filter: &str, style: Style, body: impl FnOnce()) -> Vec<String> {
        let buffer = Buffer::default();
        tracing::subscriber::with_default(subscriber(filter, style, buffer.clone()).expect("a filter"), body);
        let text = String::from_utf8(buffer.0.lock().expect("not poisoned").clone()).expect("UTF-8");
        text.lines().map(str::to_owned).collect()
    }

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] io::Error);

    #[test]
    fn json_has_dotted_names_and_the_fields_of_spans() {
        let lines = logged("info", Style::Json, || {
            let span = tracing::info_span!(
                "run",
                { field::RUN_ID } = "run_1",
                { field::RUN_STATUS } = tracing::field::Empty
            );
            let _entered = span.enter();
            span.record(field::RUN_STATUS, "running");
            let error = Outer(io::Error::other("inner"));
            tracing::warn!(
                { field::DURATION_MS } = 12_u64,
                { field::ERROR } = &error as &dyn std::error::Error,
                level = "forged",
                "two\nlines"
            );
        });
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        let record: Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(record["message"], "two\nlines");
        assert_eq!(record["level"], "warn");
        assert_eq!(record["run.id"], "run_1");
        assert_eq!(record["run.status"], "running");
        assert_eq!(record["duration_ms"], 12);
        assert_eq!(record["error"], "outer: inner");
    }

    #[test]
    fn text_is_one_line_without_control_characters() {
        let lines = logged("info", Style::Text { color: false }, || {
            tracing::info!({ field::STEP_NAME } = "a b\x1b[2J", "evil\r\n\x1b[31m");
            tracing::debug!("not asked for");
        });
        let [line] = lines.as_slice() else { panic!("{lines:?}") };
        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(
            line.contains(r#"info  evil\r\n\u{1b}[31m step.name="a b\u{1b}[2J""#),
            "{line}"
        );
    }

    #[test]
    fn no_filter_shows_requests_of_libraries() {
        let lines = logged("trace,azure_core=trace,hyper::proto=debug", Style::Json, || {
            tracing::debug!(target: "azure_core::http::policies", "authorization: SharedKey");
            tracing::trace!(target: "hyper::proto", "authorization: SharedKey");
            tracing::info!(target: "typespec_client_core::http", "authorization: SharedKey");
            tracing::warn!(target: "azure_core::http", "slow");
            tracing::debug!(target: "weft::store", "ours");
        });
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(!lines.concat().contains("SharedKey"));
    }

    #[test]
    fn a_filter_by_module() {
        let lines = logged("warn,weft::http=debug", Style::Json, || {
            tracing::debug!(target: "weft::http::api", "shown");
            tracing::info!(target: "weft::store", "hidden");
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
    }
}
