//! The JSON Schema of YAML workflows, for editors: completion, and a red line before anything is checked.

use serde_json::{Map, Value, json};

use super::step_types::{CONDITIONAL, TYPES};
use crate::domain::{FARTHEST, MAX_LABEL, MAX_NOTES, SecurityProfile};

/// The schema (draft 2020-12). It knows the members and their types; what names what is checked by `weft check` alone.
#[must_use]
pub fn json_schema_of_yaml() -> Value {
    let steps = json!({"type": "array", "items": {"$ref": "#/$defs/step"}});
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Weft workflow",
        "description": "A workflow as YAML steps; docs/yaml.md describes it.",
        "type": "object",
        "required": ["name", "steps"],
        "additionalProperties": false,
        "properties": {
            "name": {"type": "string", "pattern": "^[a-z][a-z0-9_-]{0,62}$", "description": "By which it is called"},
            "version": {"type": ["string", "number"], "description": "The author's own version, kept as it is written"},
            "description": {"type": "string", "description": "What the workflow is for"},
            "category": {"type": "string", "description": "Under what it is listed"},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 50, "description": "Words to find it by"},
            "timeout": {"$ref": "#/$defs/time", "description": "Time limit of a run"},
            "concurrency": {"type": "integer", "minimum": 1, "maximum": 64, "description": "Steps at the same time"},
            "security_profile": {
                "enum": SecurityProfile::ALL.map(SecurityProfile::as_str),
                "description": "To what its runs are held; the strictest of all that apply counts",
            },
            "environment": {"type": "object", "description": "Variables of all shell steps"},
            "inputs": {"type": "object", "description": "What the workflow takes, by name", "additionalProperties": {"anyOf": [{"$ref": "#/$defs/type"}, {"$ref": "#/$defs/input"}]}},
            "steps": {"minItems": 1, "$ref": "#/$defs/steps", "description": "Steps that wait for nothing begin at the same time"},
            "on_failure": {"$ref": "#/$defs/steps", "description": "Steps that run when the workflow has failed"},
            "finally": {"$ref": "#/$defs/steps", "description": "Steps that run in any case"},
            "outputs": {"description": "The result, by name: a value, or {from: expression}"},
            "output": {"description": "The result, where it is one value"},
            "notes": notes(),
        },
        "$defs": {
            "position": two(["x", "y"], -FARTHEST, "Where it is drawn"),
            "time": {"type": ["number", "string"], "description": "Seconds, or a number with a unit: 90, 1.5s, 10m, 2h, 1d"},
            "type": {"enum": ["string", "integer", "number", "boolean", "object", "array", "email", "json", "file", "url", "binary", "any", "secret"]},
            "input": {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "type": {"$ref": "#/$defs/type"},
                    "label": {"type": "string", "description": "Shown in forms"},
                    "required": {"type": "boolean", "description": "Whether it must be given; it need not be otherwise"},
                    "default": {"description": "What it is where nothing is given"},
                    "description": {"type": "string", "description": "Shown below the field in forms"},
                    "help": {"type": "string", "description": "Another word for `description`"},
                    "data_provider": {"type": "string", "description": "The data provider that offers its options, where nothing is given to it"},
                    "options": options(),
                    "min": {"type": "number"}, "max": {"type": "number"}, "min_length": {"type": "integer"},
                    "max_length": {"type": "integer"}, "pattern": {"type": "string"}, "enum": {"type": "array"},
                    "validation": validation(),
                },
            },
            "steps": steps,
            "depends_on": {"description": "The steps that must have ended before", "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"anyOf": [
                    {"type": "string"},
                    {"type": "object", "required": ["step"], "additionalProperties": false, "properties": {
                        "step": {"type": "string"}, "on": {"enum": ["success", "failure", "end"]}, "branch": {"type": "string"},
                        "input": {"type": "string", "description": "The input of this step that it feeds"},
                        "output": {"type": "string", "description": "With what of the earlier step; with all that it gives otherwise"},
                    }},
                ]}},
            ]},
            "retry": {"type": "object", "description": "What happens when it fails", "additionalProperties": false, "properties": {
                "attempts": {"type": "integer", "minimum": 1, "maximum": 100, "description": "The first one counted"},
                "delay": {"$ref": "#/$defs/time"},
                "backoff": {"enum": ["fixed", "linear", "exponential"]}, "max_delay": {"$ref": "#/$defs/time"},
                "jitter": {"type": "number", "minimum": 0, "maximum": 1}, "on": {"type": "array", "items": {"type": "string"}},
            }},
            "step": {
                "type": "object",
                "required": ["id", "type"],
                "properties": {"id": {"type": "string", "pattern": "^[a-z0-9_-]{1,63}$"}, "type": {"enum": TYPES.map(|(name, ..)| name)}},
                "allOf": TYPES.map(|(name, _, tries, takes_inputs, own)| {
                    let mut members = common();
                    for (member, ..) in own {
                        members.insert((*member).to_owned(), own_member(name, member));
                    }
                    if tries {
                        for (member, schema) in [
                            ("retry", json!({"$ref": "#/$defs/retry"})), ("timeout", json!({"$ref": "#/$defs/time"})),
                            ("on_crash", json!({"enum": ["retry", "fail"]})), ("cache", json!({
                                "type": ["boolean", "number", "string", "object"],
                                "description": "How long the output is taken again for the same inputs: true for an hour, or a time",
                            })),
                        ] {
                            members.insert(member.to_owned(), schema);
                        }
                    }
                    if takes_inputs {
                        for member in ["inputs", "with"] {
                            let schema = json!({"type": "object", "description": "What it is given, by name"});
                            members.insert(member.to_owned(), schema);
                        }
                    }
                    if name == "conditional" {
                        for member in CONDITIONAL {
                            members.insert(member.to_owned(), own_member(name, member));
                        }
                    }
                    json!({
                        "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
                        "then": {"properties": members, "additionalProperties": false},
                    })
                }),
            },
        },
    })
}

/// Two numbers that are needed together.
fn two([one, other]: [&str; 2], least: f64, description: &str) -> Value {
    let number = json!({"type": "number", "minimum": least, "maximum": FARTHEST});
    json!({
        "type": "object",
        "description": description,
        "required": [one, other],
        "additionalProperties": false,
        "properties": {one: number, other: number},
    })
}

/// Bounds of an input, in a member of their own.
fn validation() -> Value {
    json!({"type": "object", "additionalProperties": false, "properties": {
        "min": {"type": "number"}, "max": {"type": "number"}, "min_length": {"type": "integer"},
        "max_length": {"type": "integer"}, "pattern": {"type": "string"}, "enum": {"type": "array"},
    }})
}

/// Where the options of an input come from.
fn options() -> Value {
    json!({
        "type": "object",
        "description": "The data provider that offers its options",
        "required": ["provider"],
        "additionalProperties": false,
        "properties": {
            "provider": {"type": "string"},
            "inputs": {"type": "object", "description": "Which other input gives which of the provider's", "additionalProperties": {"type": "string"}},
            "strict": {"type": "boolean", "description": "Whether a run is refused whose value is none of the options"},
        },
    })
}

fn notes() -> Value {
    json!({
        "type": "array",
        "maxItems": MAX_NOTES,
        "description": "What stands beside the steps where they are drawn",
        "items": {
            "type": "object",
            "required": ["id", "text"],
            "additionalProperties": false,
            "properties": {
                "id": {"type": "string", "pattern": "^[a-z0-9_-]{1,63}$"},
                "text": {"type": "string"},
                "position": {"$ref": "#/$defs/position"},
                "size": two(["width", "height"], 0.0, "How large it is drawn"),
            },
        },
    })
}

fn common() -> Map<String, Value> {
    Map::from_iter([
        (
            "id".to_owned(),
            json!({"description": "By which other steps and expressions name it"}),
        ),
        ("type".to_owned(), json!({"description": "What the step does"})),
        (
            "label".to_owned(),
            json!({"type": ["string", "number"], "maxLength": MAX_LABEL, "description": "What it is called where it is drawn, kept as it is written"}),
        ),
        ("position".to_owned(), json!({"$ref": "#/$defs/position"})),
        ("depends_on".to_owned(), json!({"$ref": "#/$defs/depends_on"})),
        (
            "when".to_owned(),
            json!({"type": ["string", "boolean"], "description": "An expression; false skips the step"}),
        ),
        (
            "join".to_owned(),
            json!({"enum": ["all", "any"], "description": "Whether it waits for all that it depends on, or for the first"}),
        ),
        (
            "on_failure".to_owned(),
            json!({"description": "Whether the run fails or goes on, or the steps that handle it", "anyOf": [{"enum": ["fail", "continue", "warn"]}, {"$ref": "#/$defs/steps"}]}),
        ),
    ])
}

/// What a member may be that only this type of step has.
fn own_member(step: &str, member: &str) -> Value {
    match (step, member) {
        ("node", "use") => {
            json!({"type": "string", "description": "A node type of the library with its exact version, as `shout@1.2.0`"})
        }
        ("map" | "loop", "use") => json!({
            "type": "string",
            "description": "A function with `@workflow` or `@node`, or a node type of the library as `shout@1.2.0`",
        }),
        (_, "settings") => json!({"type": "object", "description": "What the node type is set to, by name"}),
        (_, "use" | "function") => json!({"type": "string", "description": "A function with `@workflow` or `@node`"}),
        (_, "workflow") => json!({"type": "string", "description": "The workflow that it starts"}),
        ("map", "items") => json!({"description": "A list, or an expression that gives one; one call for each item"}),
        ("map", "at_once") => json!({"type": "integer", "minimum": 1, "description": "Most items at the same time"}),
        ("map", "on_item_failure") => json!({"description": "Whether the step fails with an item, or goes on"}),
        ("loop", "until") => {
            json!({"type": ["string", "boolean"], "description": "An expression; the loop ends when it is true"})
        }
        ("loop", "most") => json!({"type": "integer", "minimum": 1, "description": "Iterations after which it fails"}),
        ("shell", "command") => json!({
            "type": ["string", "array"],
            "minItems": 1,
            "description": "A line for the shell, or a list of a program and its arguments; values never become code",
        }),
        ("shell", "environment") => json!({"type": "object", "description": "Variables of the command"}),
        ("shell", "working_directory") => {
            json!({"type": "string", "description": "A folder below the step's own, which is empty at first"})
        }
        ("shell", "capture_output") => {
            json!({"type": "boolean", "description": "Whether `stdout` and `stderr` are kept"})
        }
        ("shell", "expect") => json!({
            "type": "array",
            "items": {"type": "integer", "minimum": 0, "maximum": 255},
            "description": "Exit codes that are no failure",
        }),
        ("http", "expect") => json!({
            "type": "array",
            "items": {"type": "integer", "minimum": 100, "maximum": 599},
            "description": "Statuses that are no failure; 200 to 299 without it",
        }),
        (_, "network") => json!({"description": "The hosts that it may reach"}),
        ("http", "method") => json!({"enum": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]}),
        ("http", "url") => json!({"description": "An address that begins with `https://` or `http://`"}),
        ("http", "query") => json!({"type": "object", "description": "What follows `?` in the address, by name"}),
        ("http", "headers") => json!({"type": "object", "description": "Headers of the request"}),
        ("http", "body") => json!({"description": "A text as it is; anything else is sent as JSON"}),
        ("email", "server") => {
            json!({"type": "string", "description": "The mail server, as `smtp.example.com` or `smtp.example.com:587`"})
        }
        ("email", "security") => json!({
            "enum": ["starttls", "tls", "none"],
            "description": "How the connection is kept private",
        }),
        ("email", "credentials") => {
            json!({"type": "object", "description": "`user` and `password`; the password is a secret"})
        }
        ("email", "from") => json!({"description": "The address of the sender"}),
        ("email", "reply_to") => json!({"description": "Where answers go"}),
        ("email", "to") => json!({"description": "An address, or a list of them"}),
        ("email", "cc" | "bcc") => json!({"description": "More addresses; `bcc` are seen by nobody"}),
        ("email", "subject") => json!({"description": "What it is about, in one line"}),
        ("email", "text") => json!({"description": "What it says"}),
        ("email", "html") => json!({"description": "What it says, as HTML"}),
        ("email", "attachments") => json!({"description": "A list of values of type `file`"}),
        ("file", "action") => json!({"enum": ["write", "read"], "description": "Whether a file is made, or read"}),
        ("file", "format") => json!({
            "enum": ["text", "base64", "json", "csv"],
            "description": "As what a value is written or a file is read; `csv` is only read",
        }),
        ("file", "content") => json!({"description": "What is in a file that is made"}),
        ("file", "name") => json!({"type": ["string", "number"], "description": "The name of a file that is made"}),
        ("file", "media_type") => json!({"type": "string", "description": "Of a file that is made, as `text/csv`"}),
        ("file", "store") => json!({
            "enum": ["artifact", "inline"],
            "description": "Whether the bytes of a file that is made are an artifact of the run, or in the value itself",
        }),
        ("file", "file") => json!({"description": "The file that is read"}),
        ("file", "header") => {
            json!({"type": "boolean", "description": "Whether the first row of CSV names the columns"})
        }
        ("file", "delimiter") => {
            json!({"type": "string", "minLength": 1, "maxLength": 1, "description": "What stands between fields of CSV"})
        }
        ("assert" | "conditional", "condition") => {
            json!({"type": ["string", "boolean"], "description": "An expression, as `inputs.total > 100`"})
        }
        ("assert", "message") => json!({"description": "What is said when the condition is not true"}),
        ("template", "template") => {
            json!({"type": "string", "description": "A text with `{{ }}`, `{% if %}` and `{% for %}`"})
        }
        ("compute", "value") => json!({"description": "A value with expressions in it"}),
        (_, "seconds" | "duration") => json!({"$ref": "#/$defs/time", "description": "How long it waits"}),
        ("approval", "question" | "message") => json!({"description": "What people are asked"}),
        ("approval", "needed") => {
            json!({"type": "integer", "minimum": 1, "maximum": 20, "description": "How many people must agree"})
        }
        ("approval", "within") => json!({"$ref": "#/$defs/time", "description": "After which it has failed"}),
        ("conditional", "then" | "then_steps") => {
            json!({"$ref": "#/$defs/steps", "description": "Steps that begin when the condition is true"})
        }
        ("conditional", "else" | "else_steps") => {
            json!({"$ref": "#/$defs/steps", "description": "Steps that begin when it is not"})
        }
        ("conditional", "branches") => json!({
            "type": "array",
            "minItems": 1,
            "description": "The first branch whose expression is true is taken",
            "items": {
                "type": "object",
                "required": ["name", "when"],
                "additionalProperties": false,
                "properties": {
                    "name": {"type": "string"},
                    "when": {"type": ["string", "boolean"]},
                    "steps": {"$ref": "#/$defs/steps"},
                },
            },
        }),
        ("conditional", "otherwise") => {
            json!({"type": "string", "description": "The branch that is taken when none of them is"})
        }
        _ => json!({}),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::domain::ParameterType;

    #[test]
    fn every_type_of_an_input_is_in_the_schema() {
        let refusal = serde_json::from_value::<ParameterType>(json!("?"))
            .unwrap_err()
            .to_string();
        // Unknown variant `?`, expected one of `string`, …
        let known: BTreeSet<&str> = refusal.split('`').skip(3).step_by(2).collect();
        let schema = json_schema_of_yaml();
        let listed = schema["$defs"]["type"]["enum"].as_array().unwrap();
        let listed: BTreeSet<&str> = listed.iter().filter_map(Value::as_str).collect();
        assert_eq!(listed, known);
    }
}
