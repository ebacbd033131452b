//! The built-in kinds of nodes as editors show them: ports, and settings as fields of a form. What a graph file may say of a kind
//! is in `graph/shape/nodes.rs`; a test holds the two together.

use serde_json::{Value, json};

use crate::domain::{
    BuiltInKind, DEFAULT_AT_ONCE, DEFAULT_WITHIN_SECONDS, MAX_ACTIVE, MAX_ITEMS, MAX_ITERATIONS, MAX_NEEDED,
    MAX_STEP_SECONDS, Port, PortType, Setting, SettingKind, SettingOption, SettingOptions,
};

fn setting(name: &str, kind: SettingKind, help: &str) -> Setting {
    Setting {
        name: name.to_owned(),
        kind,
        help: Some(help.to_owned()),
        ..Setting::default()
    }
}

fn needed(setting: Setting) -> Setting {
    Setting {
        required: true,
        ..setting
    }
}

fn usually(setting: Setting, default: Value) -> Setting {
    Setting {
        default: Some(default),
        ..setting
    }
}

fn within(setting: Setting, min: f64, max: f64) -> Setting {
    Setting {
        min: Some(min),
        max: Some(max),
        ..setting
    }
}

fn one_of(setting: Setting, options: &[(&str, &str)]) -> Setting {
    let option = |(value, label): &(&str, &str)| SettingOption {
        value: json!(value),
        label: Some((*label).to_owned()),
    };
    Setting {
        options: SettingOptions::Listed(options.iter().map(option).collect()),
        ..setting
    }
}

fn called() -> [Setting; 3] {
    [
        setting(
            "use",
            SettingKind::Text,
            "A function with `@workflow` or `@node`, or a node type of the library with its exact version",
        ),
        setting("workflow", SettingKind::Text, "A workflow; instead of a function"),
        setting("settings", SettingKind::Values, "What the node type is set to"),
    ]
}

fn network() -> Setting {
    setting(
        "network",
        SettingKind::List,
        "Hosts that it may reach, as `api.example.com`",
    )
}

/// A kind that calls nothing and tries nothing.
fn kind(name: &str, title: &str, category: &str, description: &str) -> BuiltInKind {
    BuiltInKind {
        name: name.to_owned(),
        title: title.to_owned(),
        description: description.to_owned(),
        category: category.to_owned(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        settings: Vec::new(),
        calls: false,
        tries: false,
    }
}

/// All of them, in the order in which a palette shows them.
#[must_use]
pub fn built_in_kinds() -> Vec<BuiltInKind> {
    let [function, workflow, settings] = called();
    vec![
        BuiltInKind {
            settings: vec![needed(setting(
                "use",
                SettingKind::Text,
                "A function with `@workflow` or `@node`",
            ))],
            calls: true,
            tries: true,
            ..kind("python", "Function", "Code", "Calls a function of the workspace")
        },
        BuiltInKind {
            settings: vec![
                needed(setting(
                    "use",
                    SettingKind::Text,
                    "A node type of the library with its exact version, as `shout@1.2.0`",
                )),
                settings.clone(),
            ],
            tries: true,
            ..kind("node", "Library", "Code", "Runs a node type of the library")
        },
        BuiltInKind {
            settings: vec![needed(workflow.clone())],
            calls: true,
            tries: true,
            ..kind(
                "workflow",
                "Workflow",
                "Code",
                "Starts a run of another workflow and waits for it",
            )
        },
        shell(),
        http(),
        email(),
        file(),
        BuiltInKind {
            inputs: vec![
                Port::new("items", PortType::Array)
                    .needed()
                    .described("The list; each of its items is a call"),
            ],
            outputs: vec![
                Port::new("results", PortType::Array)
                    .all()
                    .described("What the items gave, in their order"),
            ],
            settings: vec![
                function.clone(),
                workflow.clone(),
                settings.clone(),
                within(
                    usually(
                        setting("atOnce", SettingKind::Integer, "Most items at the same time"),
                        json!(DEFAULT_AT_ONCE),
                    ),
                    1.0,
                    f64::from(MAX_ACTIVE),
                ),
                usually(
                    one_of(
                        setting(
                            "onItemFailure",
                            SettingKind::Select,
                            &format!(
                                "What the failure of an item does; `{{\"at_most\": n}}` lets up to n fail, of {MAX_ITEMS}"
                            ),
                        ),
                        &[("fail", "The map fails"), ("continue", "The item's place is null")],
                    ),
                    json!("fail"),
                ),
            ],
            calls: true,
            tries: true,
            ..kind(
                "map",
                "For each",
                "Flow",
                "Calls a function or workflow for each item of a list",
            )
        },
        BuiltInKind {
            outputs: vec![
                Port::new("result", PortType::Any)
                    .all()
                    .described("What the last iteration gave"),
            ],
            settings: vec![
                function,
                workflow,
                settings,
                needed(setting(
                    "until",
                    SettingKind::Expression,
                    "True after an iteration ends it",
                )),
                within(
                    needed(setting("most", SettingKind::Integer, "Iterations after which it fails")),
                    1.0,
                    f64::from(MAX_ITERATIONS),
                ),
            ],
            calls: true,
            tries: true,
            ..kind("loop", "Repeat", "Flow", "Calls a function or workflow again and again")
        },
        BuiltInKind {
            outputs: vec![Port::new("branch", PortType::String).described("The branch that was taken")],
            settings: vec![
                Setting {
                    fields: vec![
                        needed(setting("name", SettingKind::Text, "By which edges name it")),
                        needed(setting("when", SettingKind::Expression, "True takes it")),
                    ],
                    ..needed(setting(
                        "branches",
                        SettingKind::Table,
                        "The first whose expression is true is taken",
                    ))
                },
                setting("otherwise", SettingKind::Text, "The branch that is taken when none is"),
            ],
            ..kind("choose", "Choose", "Flow", "Takes one of several branches")
        },
        BuiltInKind {
            inputs: vec![Port::new("seconds", PortType::Number).needed().described("How long")],
            ..kind(
                "delay",
                "Wait",
                "Flow",
                &format!(
                    "Pauses for up to {} days; no process waits meanwhile",
                    MAX_STEP_SECONDS / 86_400
                ),
            )
        },
        BuiltInKind {
            inputs: vec![
                Port::new("question", PortType::Any)
                    .needed()
                    .described("What people are asked"),
            ],
            outputs: vec![
                Port::new("approved", PortType::Boolean).described("Whether enough have agreed"),
                Port::new("decisions", PortType::Array).described("Who said what"),
            ],
            settings: vec![
                within(
                    usually(setting("needed", SettingKind::Integer, "How many must agree"), json!(1)),
                    1.0,
                    f64::from(MAX_NEEDED),
                ),
                within(
                    usually(
                        setting("withinSeconds", SettingKind::Number, "How long they have"),
                        json!(DEFAULT_WITHIN_SECONDS),
                    ),
                    1.0,
                    f64::from(MAX_STEP_SECONDS),
                ),
            ],
            ..kind("approval", "Approval", "Flow", "Waits for people")
        },
        BuiltInKind {
            inputs: vec![
                Port::new("value", PortType::Any)
                    .needed()
                    .described("A value, with expressions in it"),
            ],
            outputs: vec![Port::new("value", PortType::Any).all().described("The value")],
            ..kind("compute", "Compute", "Data", "Works a value out")
        },
        BuiltInKind {
            outputs: vec![Port::new("text", PortType::String).all().described("The text")],
            settings: vec![needed(setting(
                "template",
                SettingKind::Code,
                "A text with `{{ expressions }}` in it",
            ))],
            ..kind("template", "Text", "Data", "Writes a text")
        },
        BuiltInKind {
            outputs: vec![Port::new("passed", PortType::Boolean).described("Whether it is so")],
            settings: vec![
                needed(setting("condition", SettingKind::Expression, "What must be so")),
                setting("message", SettingKind::Value, "What is said when it isn't"),
                usually(
                    one_of(
                        setting("onFalse", SettingKind::Select, "What it means when it isn't so"),
                        &[
                            ("fail", "The step fails"),
                            ("warn", "The instance's log has a warning"),
                            ("continue", "Nothing"),
                        ],
                    ),
                    json!("fail"),
                ),
            ],
            ..kind("assert", "Check", "Data", "Looks whether something is so")
        },
    ]
}

fn shell() -> BuiltInKind {
    BuiltInKind {
        outputs: vec![
            Port::new("exit_code", PortType::Integer).described("What it ended with"),
            Port::new("stdout", PortType::String).described("What it wrote"),
            Port::new("stderr", PortType::String).described("What it wrote of errors"),
        ],
        settings: vec![
            needed(setting(
                "command",
                SettingKind::Code,
                "A command line, or a list of a program and its arguments",
            )),
            setting(
                "environment",
                SettingKind::Values,
                "Variables; `{\"$secret\": \"NAME\"}` for a secret",
            ),
            setting("workingDirectory", SettingKind::Text, "A folder below the step's own"),
            usually(
                setting("captureOutput", SettingKind::Boolean, "Whether what it writes is kept"),
                json!(true),
            ),
            usually(
                setting("expect", SettingKind::List, "Exit codes that are a success"),
                json!([0]),
            ),
            network(),
        ],
        tries: true,
        ..kind("shell", "Command", "Code", "Runs a command in the jail")
    }
}

fn http() -> BuiltInKind {
    BuiltInKind {
        inputs: vec![
            Port::new("url", PortType::Url).needed().described("Where to"),
            Port::new("body", PortType::Any).described("What is sent: a text as it is, anything else as JSON"),
        ],
        outputs: vec![
            Port::new("status", PortType::Integer).described("The status of the answer"),
            Port::new("headers", PortType::Object).described("Its headers"),
            Port::new("body", PortType::Any).described("Its body; read, where it is JSON"),
        ],
        settings: vec![
            usually(
                one_of(
                    setting("method", SettingKind::Select, "What is asked"),
                    &["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"].map(|method| (method, method)),
                ),
                json!("GET"),
            ),
            setting(
                "query",
                SettingKind::Values,
                "What is put behind the `?` of the address",
            ),
            setting("headers", SettingKind::Values, "Headers"),
            setting(
                "expect",
                SettingKind::List,
                "Statuses that are a success; 200 to 299 without it",
            ),
            network(),
        ],
        tries: true,
        ..kind("http", "Request", "Code", "Makes a request through the engine")
    }
}

fn email() -> BuiltInKind {
    let words = |name: &str, help: &str| setting(name, SettingKind::Text, help);
    BuiltInKind {
        inputs: vec![
            Port::new("to", PortType::Any)
                .needed()
                .described("An address, or a list of them"),
            Port::new("subject", PortType::String)
                .needed()
                .described("What it is about, in one line"),
            Port::new("text", PortType::String).described("What it says"),
            Port::new("html", PortType::String).described("What it says, as HTML"),
            Port::new("attachments", PortType::Array).described("Files that go with it"),
        ],
        outputs: vec![
            Port::new("message_id", PortType::String).described("What the message is known by"),
            Port::new("accepted", PortType::Array).described("Addresses that the server took it for"),
            Port::new("refused", PortType::Array).described("Addresses that it did not, each with its reason"),
        ],
        settings: vec![
            needed(words(
                "server",
                "The mail server, as `smtp.example.com` or `smtp.example.com:587`",
            )),
            usually(
                one_of(
                    setting("security", SettingKind::Select, "How the connection is kept private"),
                    &[
                        ("starttls", "STARTTLS (587)"),
                        ("tls", "TLS (465)"),
                        ("none", "Nothing (25)"),
                    ],
                ),
                json!("starttls"),
            ),
            setting(
                "credentials",
                SettingKind::Values,
                "`user` and `password`; the password is `{\"$secret\": \"NAME\"}`",
            ),
            needed(words("from", "The sender, as `Reports <reports@example.com>`")),
            words("replyTo", "Where answers go"),
            words("cc", "More addresses, which everybody sees"),
            words("bcc", "More addresses, which nobody sees"),
        ],
        tries: true,
        ..kind("email", "E-mail", "Code", "Hands a message to a mail server")
    }
}

fn file() -> BuiltInKind {
    BuiltInKind {
        inputs: vec![
            Port::new("content", PortType::Any).described("What is in a file that is made, as `format` says"),
            Port::new("file", PortType::File).described("The file that is read"),
        ],
        outputs: vec![
            Port::new("file", PortType::File)
                .all()
                .described("The file that was made"),
            Port::new("content", PortType::Any)
                .all()
                .described("What is in the file that was read, as `format` says"),
        ],
        settings: vec![
            needed(one_of(
                setting("action", SettingKind::Select, "What is done"),
                &[("write", "Make a file of a value"), ("read", "Read a file")],
            )),
            usually(
                one_of(
                    setting("format", SettingKind::Select, "As what it is written or read"),
                    &[
                        ("text", "Text"),
                        ("base64", "Bytes as base64"),
                        ("json", "JSON"),
                        ("csv", "Rows of CSV, only read"),
                    ],
                ),
                json!("text"),
            ),
            setting("name", SettingKind::Text, "The name of a file that is made"),
            setting(
                "mediaType",
                SettingKind::Text,
                "Its media type; that of the format without it",
            ),
            usually(
                one_of(
                    setting(
                        "store",
                        SettingKind::Select,
                        "Where the bytes of a file that is made are",
                    ),
                    &[
                        ("artifact", "An artifact of the run"),
                        ("inline", "In the value itself"),
                    ],
                ),
                json!("artifact"),
            ),
            usually(
                setting(
                    "header",
                    SettingKind::Boolean,
                    "Whether the first row of CSV names the columns",
                ),
                json!(true),
            ),
            usually(
                setting("delimiter", SettingKind::Text, "What stands between fields of CSV"),
                json!(","),
            ),
        ],
        tries: true,
        ..kind("file", "File", "Data", "Makes a file of a value, or a value of a file")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::definition::graph::TYPES;

    /// Which members of a kind an edge may feed, as graphs have it.
    fn own_inputs(kind: &str) -> &'static [&'static str] {
        let text = match kind {
            "map" => json!({"id": "a", "type": kind, "use": "f", "items": []}),
            "http" => json!({"id": "a", "type": kind, "url": "https://example.com/"}),
            "email" => json!({
                "id": "a", "type": kind, "server": "smtp.example.com", "from": "a@example.com",
                "to": "b@example.com", "subject": "s", "text": "t",
            }),
            "compute" => json!({"id": "a", "type": kind, "value": 1}),
            "delay" => json!({"id": "a", "type": kind, "seconds": 1}),
            "approval" => json!({"id": "a", "type": kind, "question": "?"}),
            other => json!({"id": "a", "type": other}),
        };
        let read = crate::definition::read_graph(&json!({"name": "g", "nodes": [text]}).to_string());
        read.graph.nodes[0].work.own_inputs()
    }

    #[test]
    fn forms_show_what_a_graph_may_say_and_nothing_else() {
        let kinds = built_in_kinds();
        assert_eq!(kinds.len(), TYPES.len());
        for (name, members, tries) in TYPES {
            let kind = kinds
                .iter()
                .find(|kind| kind.name == name)
                .unwrap_or_else(|| panic!("{name}"));
            let inputs = kind.inputs.iter().map(|port| port.name.as_str());
            let shown: Vec<_> = inputs
                .chain(kind.settings.iter().map(|one| one.name.as_str()))
                .collect();
            let shown_once: BTreeSet<_> = shown.iter().copied().collect();
            assert_eq!(shown.len(), shown_once.len(), "{name}");
            assert_eq!(shown_once, members.iter().copied().collect(), "{name}");
            assert_eq!(kind.tries, tries, "{name}");
            let inputs: Vec<_> = kind.inputs.iter().map(|port| port.name.as_str()).collect();
            assert_eq!(inputs, own_inputs(name), "{name}");
            assert!(
                kind.inputs
                    .iter()
                    .chain(&kind.outputs)
                    .all(|port| port.description.is_some()),
                "{name}"
            );
            assert!(kind.settings.iter().all(|one| one.help.is_some()), "{name}");
            for one in kind.settings.iter().filter(|one| one.kind == SettingKind::Select) {
                let default = one.default.as_ref();
                assert!(
                    default.is_none_or(|default| one.options.listed().iter().any(|option| option.value == *default))
                );
            }
        }
    }
}
