//! The types of steps: which members each has, what they are called in a graph, and how they are translated into it.

/// How a member is translated.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum As {
    /// As it stands.
    Plain,
    /// A value: `{{ }}` in its texts are expressions.
    Value,
    /// An expression, with or without `{{ }}` around it.
    Expression,
    /// Seconds, or a text as `10m`.
    Seconds,
    /// A text, or a list of values whose texts are as they are written.
    Command,
    /// Values whose texts are as they are written: `1.10` stays that, as whoever reads it gets a text anyway.
    Written,
}

impl As {
    /// How what is inside of a list or a mapping is translated.
    pub(super) const fn inside(self) -> Self {
        match self {
            Self::Plain => Self::Plain,
            Self::Command | Self::Written => Self::Written,
            Self::Value | Self::Expression | Self::Seconds => Self::Value,
        }
    }
}

/// A step type: its name here and in a graph, whether it is tried again, whether it is given inputs, its own members here and there.
pub(super) type StepType = (
    &'static str,
    &'static str,
    bool,
    bool,
    &'static [(&'static str, &'static str, As)],
);

pub(super) const TYPES: [StepType; 16] = [
    (
        "python",
        "python",
        true,
        true,
        &[("use", "use", As::Plain), ("function", "use", As::Plain)],
    ),
    (
        "node",
        "node",
        true,
        true,
        &[("use", "use", As::Plain), ("settings", "settings", As::Value)],
    ),
    (
        "workflow",
        "workflow",
        true,
        true,
        &[("workflow", "workflow", As::Plain)],
    ),
    (
        "map",
        "map",
        true,
        true,
        &[
            ("use", "use", As::Plain),
            ("workflow", "workflow", As::Plain),
            ("settings", "settings", As::Value),
            ("items", "items", As::Value),
            ("at_once", "atOnce", As::Plain),
            ("on_item_failure", "onItemFailure", As::Plain),
        ],
    ),
    (
        "loop",
        "loop",
        true,
        true,
        &[
            ("use", "use", As::Plain),
            ("workflow", "workflow", As::Plain),
            ("settings", "settings", As::Value),
            ("until", "until", As::Expression),
            ("most", "most", As::Plain),
        ],
    ),
    (
        "shell",
        "shell",
        true,
        false,
        &[
            ("command", "command", As::Command),
            ("environment", "environment", As::Written),
            ("working_directory", "workingDirectory", As::Plain),
            ("capture_output", "captureOutput", As::Plain),
            ("expect", "expect", As::Plain),
            ("network", "network", As::Plain),
        ],
    ),
    (
        "http",
        "http",
        true,
        false,
        &[
            ("method", "method", As::Plain),
            ("url", "url", As::Value),
            ("query", "query", As::Value),
            ("headers", "headers", As::Written),
            ("body", "body", As::Value),
            ("expect", "expect", As::Plain),
            ("network", "network", As::Plain),
        ],
    ),
    (
        "email",
        "email",
        true,
        false,
        &[
            ("server", "server", As::Plain),
            ("security", "security", As::Plain),
            ("credentials", "credentials", As::Written),
            ("from", "from", As::Value),
            ("reply_to", "replyTo", As::Value),
            ("to", "to", As::Value),
            ("cc", "cc", As::Value),
            ("bcc", "bcc", As::Value),
            ("subject", "subject", As::Value),
            ("text", "text", As::Value),
            ("html", "html", As::Value),
            ("attachments", "attachments", As::Value),
        ],
    ),
    (
        "file",
        "file",
        true,
        false,
        &[
            ("action", "action", As::Plain),
            ("format", "format", As::Plain),
            ("content", "content", As::Value),
            ("name", "name", As::Written),
            ("media_type", "mediaType", As::Plain),
            ("store", "store", As::Plain),
            ("file", "file", As::Value),
            ("header", "header", As::Plain),
            ("delimiter", "delimiter", As::Plain),
        ],
    ),
    (
        "assert",
        "assert",
        false,
        false,
        &[
            ("condition", "condition", As::Expression),
            ("message", "message", As::Value),
        ],
    ),
    (
        "template",
        "template",
        false,
        false,
        &[("template", "template", As::Plain)],
    ),
    ("compute", "compute", false, false, &[("value", "value", As::Value)]),
    (
        "wait",
        "delay",
        false,
        false,
        &[
            ("seconds", "seconds", As::Seconds),
            ("duration", "seconds", As::Seconds),
        ],
    ),
    (
        "delay",
        "delay",
        false,
        false,
        &[
            ("seconds", "seconds", As::Seconds),
            ("duration", "seconds", As::Seconds),
        ],
    ),
    (
        "approval",
        "approval",
        false,
        false,
        &[
            ("question", "question", As::Value),
            ("message", "question", As::Value),
            ("needed", "needed", As::Plain),
            ("within", "withinSeconds", As::Seconds),
        ],
    ),
    ("conditional", "choose", false, false, &[]),
];
pub(super) const CONDITIONAL: [&str; 7] = [
    "condition",
    "then",
    "else",
    "then_steps",
    "else_steps",
    "branches",
    "otherwise",
];
