//! A record becomes one line: text for people, JSON for programs.

use std::fmt::{self, Write as _};
use std::io::Write;
use std::sync::Mutex;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    Json,
    Text { color: bool },
}

/// Writes every record as one line, with the fields of the spans around it.
pub(super) struct Lines<W> {
    style: Style,
    out: Mutex<W>,
}

impl<W: Write> Lines<W> {
    pub(super) fn new(style: Style, out: W) -> Self {
        Self {
            style,
            out: Mutex::new(out),
        }
    }

    /// A log that can't be written is no reason to stop, and there is nowhere to say it.
    fn write(&self, line: &str) {
        let mut out = match self.out.lock() {
            Ok(out) => out,
            Err(poisoned) => poisoned.into_inner(),
        };
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    }
}

/// Fields in the order in which they were given; a later one of the same name replaces the earlier.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl<S, W> Layer<S> for Lines<W>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: Write + 'static,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context
            .event_scope(event)
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            if let Some(outer) = span.extensions().get::<Fields>() {
                fields.0.extend(outer.0.clone());
            }
        }
        event.record(&mut fields);
        let message = match fields.0.shift_remove("message") {
            Some(Value::String(message)) => message,
            Some(other) => other.to_string(),
            None => String::new(),
        };
        self.write(&match self.style {
            Style::Json => json_line(event.metadata(), message, fields.0),
            Style::Text { color } => text_line(event.metadata(), &message, &fields.0, color),
        });
    }
}

fn now() -> String {
    let mut now = String::new();
    let _ = SystemTime.format_time(&mut Writer::new(&mut now));
    now
}

fn json_line(metadata: &Metadata<'_>, message: String, fields: Map<String, Value>) -> String {
    let mut record = Map::new();
    record.insert("time".to_owned(), now().into());
    record.insert("level".to_owned(), level_name(*metadata.level()).into());
    record.insert("message".to_owned(), message.into());
    record.insert("target".to_owned(), metadata.target().into());
    for (name, value) in fields {
        // A field can't pass for one of the record's own.
        if !record.contains_key(&name) {
            record.insert(name, value);
        }
    }
    format!("{}\n", Value::Object(record))
}

fn text_line(metadata: &Metadata<'_>, message: &str, fields: &Map<String, Value>, color: bool) -> String {
    let paint = |code: &str, text: &str| {
        if color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    };
    let level = *metadata.level();
    let code = match level {
        Level::ERROR => "31",
        Level::WARN => "33",
        Level::INFO => "32",
        _ => "2",
    };
    let now = now();
    let time = now.get(11..23).unwrap_or(&now);
    let mut line = format!(
        "{} {} ",
        paint("2", time),
        paint(code, &format!("{:5}", level_name(level)))
    );
    push_escaped(&mut line, message);
    for (name, value) in fields {
        let mut text = String::new();
        match value {
            Value::String(value) if value.contains([' ', '"', '=']) => push_escaped(&mut text, &format!("{value:?}")),
            Value::String(value) => push_escaped(&mut text, value),
            other => {
                let _ = write!(text, "{other}");
            }
        }
        let _ = write!(line, " {}{text}", paint("2", &format!("{name}=")));
    }
    line.push('\n');
    line
}

/// One record is one line, and nothing in it can move the cursor of a terminal.
fn push_escaped(line: &mut String, text: &str) {
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
}

const fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    /// The whole chain: no layer's message repeats its cause.
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let causes = std::iter::successors(Some(value), |error| error.source());
        let chain: Vec<String> = causes.map(ToString::to_string).collect();
        self.put(field, chain.join(": "));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}
