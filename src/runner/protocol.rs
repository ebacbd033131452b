//! The frames and control messages of `docs/runner-protocol.md`: their shapes, and the reading of bytes that a worker may
//! have made up. What they lead to is decided elsewhere.

use bytes::{Buf, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::jail::Jail;
use super::jail::posture::Posture;
use super::jail::setup::Setup;
use super::{Entry, Refusal};
use crate::domain::{StepError, Timestamp};

/// The version of the protocol that this side speaks.
pub const VERSION: u32 = 1;
/// The largest control message, in bytes.
pub const CONTROL_BYTES: usize = 64 << 10;
/// How many calls of one worker may wait for an answer.
pub const OPEN_CALLS: usize = 32;
/// The largest data of a checkpoint and the largest `variables`, in bytes of JSON.
pub const SMALL_JSON_BYTES: usize = 32 << 10;
/// The longest log message and the longest line of output, in bytes.
pub const LINE_BYTES: usize = 8 << 10;

const HEADER: usize = 4;
const NAME_BYTES: usize = 256;
const CUT_MARK_BYTES: usize = 64;

/// What a worker sent that it must not send; ends its attempt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

impl Violation {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Collects bytes and hands out whole frames.
#[derive(Debug)]
pub struct FrameBuffer {
    bytes: BytesMut,
    limit: usize,
}

impl FrameBuffer {
    /// A buffer that takes frames of 1 to `limit` bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self {
            bytes: BytesMut::new(),
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
        }
    }

    /// Adds what was read.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether nothing is waiting, not even a part of a frame.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The next whole frame, without its length.
    ///
    /// # Errors
    /// When the announced length is 0 or over the limit. Nothing after that can be trusted.
    pub fn take(&mut self) -> Result<Option<Bytes>, Violation> {
        let Some(header) = self.bytes.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*header)).unwrap_or(usize::MAX);
        if length == 0 || length > self.limit {
            return Err(Violation(format!(
                "a frame of {length} bytes was announced; 1 to {} are allowed",
                self.limit
            )));
        }
        if self.bytes.len() < HEADER + length {
            return Ok(None);
        }
        self.bytes.advance(HEADER);
        Ok(Some(self.bytes.split_to(length).freeze()))
    }
}

/// What a worker says.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerFrame {
    /// The module is imported.
    Ready {
        /// Importing it, in milliseconds.
        import_ms: f64,
        /// Setting the worker up, in milliseconds.
        boot_ms: f64,
    },
    /// `ctx.log`.
    Log {
        /// `debug`, `info`, `warning` or `error`.
        level: String,
        /// The text.
        message: String,
        /// What was given beside it: an object.
        fields: Option<Value>,
        /// When it was said, by the worker's clock.
        at: Timestamp,
    },
    /// `ctx.checkpoint`.
    Checkpoint {
        /// Its name.
        name: String,
        /// At most 32 KiB.
        data: Value,
    },
    /// A request to the broker.
    Call {
        /// Counts up from 1.
        id: u64,
        /// As `config.get`.
        name: String,
        /// An object.
        args: Value,
    },
    /// The last frame of an attempt that returned.
    Succeeded {
        /// What it returned.
        value: Value,
        /// The function's time in milliseconds.
        user_ms: f64,
        /// `ctx.variables`: an object.
        variables: Value,
    },
    /// The last frame of an attempt that raised, or of a worker that could not import its module.
    Failed {
        /// The exception.
        error: StepError,
        /// The function's time in milliseconds.
        user_ms: f64,
        /// `ctx.variables`: an object.
        variables: Value,
    },
    /// What one file declares; the frame without its `t`.
    Described(Value),
    /// The last frame of a description.
    DescribedAll {
        /// Files looked at.
        files: u64,
        /// Milliseconds.
        ms: f64,
    },
}

/// `error` of a `failed` frame. Not [`StepError`] itself, whose `step` is not the worker's to say.
#[derive(Debug, Deserialize)]
struct Raised {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    traceback: Option<String>,
    #[serde(default)]
    retriable: Option<bool>,
    #[serde(default)]
    data: Option<Value>,
}

impl WorkerFrame {
    /// Reads one frame.
    ///
    /// # Errors
    /// When the bytes are not a JSON object of a known kind with fields of the right types, nest deeper than 127 levels
    /// (`serde_json`'s bound), or are over the limit of their kind.
    pub fn parse(bytes: &[u8]) -> Result<Self, Violation> {
        let Strict(value) =
            serde_json::from_slice(bytes).map_err(|e| Violation(format!("a frame is not a JSON object: {e}")))?;
        let Value::Object(fields) = value else {
            return Err(Violation::new("a frame is not a JSON object"));
        };
        let mut frame = Fields(fields);
        let kind = frame.text("t")?;
        Ok(match kind.as_str() {
            "ready" => Self::Ready {
                import_ms: frame.millis("import_ms")?,
                boot_ms: frame.millis("boot_ms")?,
            },
            "log" => {
                let level = frame.text("level")?;
                if !matches!(level.as_str(), "debug" | "info" | "warning" | "error") {
                    return Err(Violation(format!("`{level:.40}` is no log level")));
                }
                let mut message = frame.text("message")?;
                if message.len() > LINE_BYTES + CUT_MARK_BYTES {
                    message.truncate(message.floor_char_boundary_at(LINE_BYTES));
                    message.push_str(" … [cut]");
                }
                let mut fields = frame.object("fields")?;
                if bytes.len() > SMALL_JSON_BYTES && fields.as_ref().is_some_and(|it| json_bytes(it) > SMALL_JSON_BYTES)
                {
                    // Cut like a long message: a line is not worth an attempt.
                    fields = Some(serde_json::json!({"cut": format!("more than {SMALL_JSON_BYTES} bytes")}));
                }
                let at = frame.millis("at")? * 1_000.0;
                #[expect(clippy::cast_possible_truncation, reason = "saturates, and timestamps are clamped")]
                let at = Timestamp::from_millis(at as i64);
                Self::Log {
                    level,
                    message,
                    fields,
                    at,
                }
            }
            "checkpoint" => {
                let mut name = frame.text("name")?;
                if name.len() > NAME_BYTES {
                    name.truncate(name.floor_char_boundary_at(NAME_BYTES));
                    name.push_str(" … [cut]");
                }
                let data = frame.value("data");
                if bytes.len() > SMALL_JSON_BYTES && json_bytes(&data) > SMALL_JSON_BYTES {
                    return Err(Violation(format!(
                        "a checkpoint's data is over {SMALL_JSON_BYTES} bytes"
                    )));
                }
                Self::Checkpoint { name, data }
            }
            "call" => {
                let id = frame.integer("id")?;
                let name = frame.text("name")?;
                if name.len() > NAME_BYTES {
                    return Err(Violation(format!("a call's name is over {NAME_BYTES} bytes")));
                }
                Self::Call {
                    id,
                    name,
                    args: frame.object("args")?.unwrap_or_else(empty),
                }
            }
            "succeeded" => Self::Succeeded {
                value: frame.value("value"),
                user_ms: frame.millis("user_ms")?,
                variables: frame.variables(bytes.len())?,
            },
            "failed" => {
                let raised: Raised = serde_json::from_value(frame.value("error"))
                    .map_err(|e| Violation(format!("`error` of a `failed` frame: {e}")))?;
                let error = StepError {
                    kind: of_user_code(raised.kind),
                    message: raised.message.unwrap_or_default(),
                    step: None,
                    traceback: raised.traceback,
                    retriable: raised.retriable,
                    data: raised.data,
                };
                Self::Failed {
                    error,
                    user_ms: frame.millis("user_ms")?,
                    variables: frame.variables(bytes.len())?,
                }
            }
            "described" => Self::Described(Value::Object(frame.0)),
            "described_all" => Self::DescribedAll {
                files: frame.integer("files")?,
                ms: frame.millis("ms")?,
            },
            _ => return Err(Violation(format!("a frame of the unknown kind `{kind:.40}`"))),
        })
    }

    /// The kind as the protocol spells it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Ready { .. } => "ready",
            Self::Log { .. } => "log",
            Self::Checkpoint { .. } => "checkpoint",
            Self::Call { .. } => "call",
            Self::Succeeded { .. } => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Described(_) => "described",
            Self::DescribedAll { .. } => "described_all",
        }
    }
}

/// What is before a name that only the engine may give.
pub const USER_PREFIX: &str = "user.";

/// The type of an exception, so that nothing that a worker says is taken for what the engine says of it. The engine's own
/// are words in small letters (`time_limit`, `crashed`, `cancelled`); no built-in exception is, and any other has its
/// module before its name.
fn of_user_code(kind: String) -> String {
    let engine_like = kind
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
    if engine_like {
        format!("{USER_PREFIX}{kind}")
    } else {
        kind
    }
}

/// A JSON value in which no object has a key twice: whoever reads the first and whoever reads the last would read two
/// different messages.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> serde::de::Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let Strict(value) = entries.next_value()?;
            if let Some(before) = map.insert(key, value) {
                drop(before);
                return Err(serde::de::Error::custom("an object has a key twice"));
            }
        }
        Ok(Value::Object(map))
    }
}

/// The fields of a frame, taken out one by one. Absent and null mean the same.
struct Fields(Map<String, Value>);

impl Fields {
    fn value(&mut self, name: &str) -> Value {
        self.0.shift_remove(name).unwrap_or(Value::Null)
    }

    fn text(&mut self, name: &str) -> Result<String, Violation> {
        match self.value(name) {
            Value::String(text) => Ok(text),
            _ => Err(Violation(format!("`{name}` of a frame is not a string"))),
        }
    }

    fn object(&mut self, name: &str) -> Result<Option<Value>, Violation> {
        match self.value(name) {
            Value::Null => Ok(None),
            object @ Value::Object(_) => Ok(Some(object)),
            _ => Err(Violation(format!("`{name}` of a frame is not an object"))),
        }
    }

    fn millis(&mut self, name: &str) -> Result<f64, Violation> {
        match self.value(name) {
            Value::Null => Ok(0.0),
            value => value
                .as_f64()
                .ok_or_else(|| Violation(format!("`{name}` of a frame is not a number"))),
        }
    }

    fn integer(&mut self, name: &str) -> Result<u64, Violation> {
        self.value(name)
            .as_u64()
            .ok_or_else(|| Violation(format!("`{name}` of a frame is not a whole number")))
    }

    fn variables(&mut self, frame_bytes: usize) -> Result<Value, Violation> {
        let variables = self.object("variables")?.unwrap_or_else(empty);
        if frame_bytes > SMALL_JSON_BYTES && json_bytes(&variables) > SMALL_JSON_BYTES {
            return Err(Violation(format!("the variables are over {SMALL_JSON_BYTES} bytes")));
        }
        Ok(variables)
    }
}

fn empty() -> Value {
    Value::Object(Map::new())
}

trait FloorBoundary {
    fn floor_char_boundary_at(&self, index: usize) -> usize;
}

impl FloorBoundary for String {
    fn floor_char_boundary_at(&self, index: usize) -> usize {
        (0..=index.min(self.len()))
            .rev()
            .find(|at| self.is_char_boundary(*at))
            .unwrap_or(0)
    }
}

/// How many bytes a value has as JSON without spaces.
#[must_use]
pub fn json_bytes(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    match serde_json::to_writer(&mut count, value) {
        Ok(()) => count.0,
        Err(_) => usize::MAX,
    }
}

/// What the handler says to a worker.
#[derive(Debug, Serialize)]
#[serde(tag = "t", rename_all = "snake_case")]
pub enum HandlerFrame<'a> {
    /// Code that is no part of the bundle, ahead of the attempt.
    Source {
        /// The node type.
        name: &'a str,
        /// Its version.
        version: &'a str,
        /// What it was taken from.
        digest: &'a str,
        /// Python.
        code: &'a str,
    },
    /// The one attempt of this worker.
    Attempt {
        /// What is called.
        entry: &'a Entry,
        /// Keyword arguments.
        arguments: &'a Value,
        /// What `Context` is made of.
        context: &'a Value,
        /// What it gives up of the processors, as of `nice`; absent: no more than any worker does.
        #[serde(skip_serializing_if = "Option::is_none")]
        nice: Option<u8>,
    },
    /// The answer to a call.
    Reply {
        /// Of the call.
        id: u64,
        /// The answer; absent when it was refused.
        #[serde(skip_serializing_if = "Option::is_none")]
        value: Option<Value>,
        /// Why there is none.
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<Refusal>,
    },
    /// Describe the bundle.
    Describe {
        /// What paths in descriptions and tracebacks start with.
        root_name: &'a str,
        /// Where an earlier worker was lost, if one was.
        #[serde(skip_serializing_if = "Option::is_none")]
        resume: Option<&'a Resume>,
    },
}

/// Where to go on with a description: behind the file that took a worker down.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Resume {
    /// How many files are described; the next one is the lost worker's.
    pub described: usize,
    /// What happened to it.
    pub reason: String,
    /// Names that those files declare: kind, name, and `path:line`.
    pub taken: Vec<(String, String, String)>,
    /// How often that has happened; the handler's own count.
    #[serde(skip)]
    pub crashes: u32,
}

impl HandlerFrame<'_> {
    /// The frame with its length in front.
    ///
    /// # Errors
    /// When it is over `limit` bytes; the number says how large it is.
    pub fn encode(&self, limit: u64) -> Result<Vec<u8>, u64> {
        let mut bytes = vec![0; HEADER];
        serde_json::to_writer(&mut bytes, self).map_err(|_| u64::MAX)?;
        let length = (bytes.len() - HEADER) as u64;
        match u32::try_from(length) {
            Ok(header) if length <= limit => {
                bytes[..HEADER].copy_from_slice(&header.to_be_bytes());
                Ok(bytes)
            }
            _ => Err(length),
        }
    }
}

/// What the handler says to the zygote.
#[derive(Debug, Serialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request<'a> {
    /// The first message.
    Hello {
        /// [`VERSION`].
        version: u32,
        /// Modules to import once, before any fork.
        preload: &'a [String],
        /// Where they may be found beside the standard library; on `sys.path` while they are imported only.
        preload_paths: &'a [&'a str],
        /// What walls are built of.
        jail: &'a Setup,
    },
    /// Fork a worker; goes with three descriptors, and a fourth where the worker hands over what it asks for connections at.
    Fork {
        /// Chosen by the handler, never used twice.
        id: u64,
        /// `attempt` or `describe`.
        task: Task,
        /// The code.
        bundle: RequestBundle<'a>,
        /// The module to import; null for `describe`.
        module: Option<&'a str>,
        /// The worker's own folder.
        scratch: &'a str,
        /// What it may use.
        limits: super::limits::ForkLimits,
        /// Its walls.
        jail: &'a Jail,
        /// Folders with packages: on `sys.path`, after everything else.
        paths: &'a [&'a str],
        /// Where a worker with a network connects to, where its connections can't be asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        proxy: Option<&'a str>,
        /// The workspace's folder as its developer knows it, where a debugger is to be waited for; one more descriptor.
        #[serde(skip_serializing_if = "Option::is_none")]
        debug: Option<&'a str>,
    },
    /// Kill a worker with everything below it.
    Kill {
        /// Its id.
        id: u64,
    },
}

/// `bundle` of a `fork` message.
#[derive(Debug, Serialize)]
pub struct RequestBundle<'a> {
    /// `sha256:…`
    pub digest: &'a str,
    /// Where it lies.
    pub dir: &'a str,
}

/// What a worker is forked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// To run one attempt.
    Attempt,
    /// To describe a bundle.
    Describe,
}

impl Request<'_> {
    /// The message as one datagram.
    ///
    /// # Errors
    /// When it is over [`CONTROL_BYTES`], with its size.
    pub fn encode(&self) -> Result<Vec<u8>, usize> {
        let bytes = serde_json::to_vec(self).map_err(|_| usize::MAX)?;
        if bytes.len() > CONTROL_BYTES {
            Err(bytes.len())
        } else {
            Ok(bytes)
        }
    }
}

/// What the zygote says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Answer {
    /// To `hello`.
    Ready {
        /// The version that it speaks.
        version: u32,
        /// Its process id.
        pid: u32,
        /// Of the interpreter.
        python: String,
        /// Of the `weft` package.
        sdk: String,
        /// What is in force for workers; an engine may say nothing of it.
        #[serde(default)]
        posture: Option<Posture>,
    },
    /// To a `hello` of a version that it does not speak.
    Refused {
        /// The version that it speaks.
        version: u32,
        /// Why.
        reason: String,
    },
    /// The worker exists. Goes with a descriptor of the process, where the kernel has such.
    Forked {
        /// The id of the `fork` message.
        id: u64,
        /// Its process id, in the zygote's process namespace.
        pid: u32,
    },
    /// It does not.
    ForkFailed {
        /// The id of the `fork` message; none when it could not be read.
        #[serde(default)]
        id: Option<u64>,
        /// Why.
        error: String,
    },
    /// It was reaped, and what it had left running was killed.
    Exited {
        /// The id of the `fork` message.
        id: u64,
        /// How, and what it cost.
        #[serde(flatten)]
        exit: Exit,
    },
}

/// How a worker ended. Exactly one of `code` and `signal` is a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Exit {
    /// Exit code.
    #[serde(default)]
    pub code: Option<i32>,
    /// Signal that killed it.
    #[serde(default)]
    pub signal: Option<i32>,
    /// Peak resident memory.
    #[serde(default)]
    pub max_rss_kib: Option<u64>,
    /// Processor time in milliseconds.
    #[serde(default)]
    pub cpu_ms: Option<u64>,
}

impl Exit {
    /// Whether it was SIGKILL that ended it.
    #[must_use]
    pub const fn was_killed(&self) -> bool {
        matches!(self.signal, Some(9))
    }
}

impl Answer {
    /// Reads one datagram.
    ///
    /// # Errors
    /// When it is none of the messages above.
    pub fn parse(bytes: &[u8]) -> Result<Self, Violation> {
        serde_json::from_slice(bytes).map_err(|e| Violation::new(format!("a control message can't be read: {e}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_whole_and_in_order() {
        let mut buffer = FrameBuffer::new(64);
        let sent = HandlerFrame::Describe {
            root_name: "workspace",
            resume: None,
        }
        .encode(64)
        .unwrap();
        for byte in &sent[..sent.len() - 1] {
            buffer.extend(&[*byte]);
            assert_eq!(buffer.take(), Ok(None));
        }
        buffer.extend(&sent[sent.len() - 1..]);
        buffer.extend(&sent);
        assert_eq!(buffer.take().unwrap().unwrap(), sent[4..]);
        assert_eq!(buffer.take().unwrap().unwrap(), sent[4..]);
        assert!(buffer.is_empty());
    }

    #[test]
    fn lengths_are_bounded() {
        for length in [0_u32, 65, u32::MAX] {
            let mut buffer = FrameBuffer::new(64);
            buffer.extend(&length.to_be_bytes());
            assert!(buffer.take().is_err(), "{length}");
        }
        assert_eq!(
            HandlerFrame::Describe {
                root_name: "workspace",
                resume: None,
            }
            .encode(10)
            .unwrap_err(),
            40
        );
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let deep = format!(r#"{{"t":"succeeded","value":{}1{}}}"#, "[".repeat(128), "]".repeat(128));
        let fat = format!(
            r#"{{"t":"checkpoint","name":"n","data":"{}"}}"#,
            "x".repeat(SMALL_JSON_BYTES)
        );
        for bad in [
            "",
            "[]",
            "7",
            "{}",
            r#"{"t":"nonsense"}"#,
            r#"{"t":7}"#,
            r#"{"t":"log","level":"loud","message":"x"}"#,
            r#"{"t":"call","id":-1,"name":"x"}"#,
            r#"{"t":"call","id":1.5,"name":"x"}"#,
            r#"{"t":"call","id":1,"name":"x","args":[]}"#,
            r#"{"t":"failed"}"#,
            r#"{"t":"failed","error":{"type":7}}"#,
            r#"{"t":"succeeded","value":NaN}"#,
            r#"{"t":"succeeded","variables":[]}"#,
            r#"{"t":"succeeded","value":1e999}"#,
            r#"{"t":"succeeded","t":"succeeded"}"#,
            r#"{"t":"call","id":1,"id":2,"name":"x"}"#,
            r#"{"t":"succeeded","value":[{"a":1,"\u0061":2}]}"#,
            r#"{"t":"succeeded"}{"t":"succeeded"}"#,
            &deep,
            &fat,
        ] {
            assert!(WorkerFrame::parse(bad.as_bytes()).is_err(), "{bad:.80}");
        }
        assert!(WorkerFrame::parse(b"{\"t\":\"log\",\"level\":\"info\",\"message\":\"\xff\"}").is_err());
    }

    #[test]
    fn nobody_speaks_in_the_name_of_the_engine() {
        for (said, taken) in [
            ("time_limit", "user.time_limit"),
            ("cancelled", "user.cancelled"),
            ("", "user."),
            ("ValueError", "ValueError"),
            ("workflows.hello.crashed", "workflows.hello.crashed"),
            ("user.crashed", "user.crashed"),
        ] {
            let frame = format!(r#"{{"t":"failed","error":{{"type":"{said}"}}}}"#);
            match WorkerFrame::parse(frame.as_bytes()) {
                Ok(WorkerFrame::Failed { error, .. }) => assert_eq!(error.kind, taken),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn absent_and_null_mean_the_same() {
        let short = WorkerFrame::parse(br#"{"t":"succeeded"}"#).unwrap();
        let long = WorkerFrame::parse(br#"{"t":"succeeded","value":null,"user_ms":null,"variables":null}"#).unwrap();
        assert_eq!(short, long);
    }
}
