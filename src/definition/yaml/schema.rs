//! The JSON Schema of YAML workflows, for editors: completion, and a red line before anything is checked.

use serde_json::{Map, Value, json};

use super::read::{CONDITIONAL, TYPES};

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
            "description": {"type": "string"},
            "category": {"type": "string"},
            "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 50},
            "timeout": {"$ref": "#/$defs/time", "description": "Time limit of a run"},
            "concurrency": {"type": "integer", "minimum": 1, "maximum": 64, "description": "Steps at the same time"},
            "security_profile": {"enum": ["plan_only", "restricted", "standard", "elevated"]},
            "environment": {"type": "object", "description": "Variables of all shell steps"},
            "inputs": {"type": "object", "additionalProperties": {"anyOf": [{"$ref": "#/$defs/type"}, {"$ref": "#/$defs/input"}]}},
            "steps": {"minItems": 1, "$ref": "#/$defs/steps"},
            "on_failure": {"$ref": "#/$defs/steps", "description": "Steps that run when the workflow has failed"},
            "finally": {"$ref": "#/$defs/steps", "description": "Steps that run in any case"},
            "outputs": {"description": "The result, by name: a value, or {from: expression}"},
            "output": {"description": "The result, where it is one value"},
        },
        "$defs": {
            "time": {"type": ["number", "string"], "description": "Seconds, or a number with a unit: 90, 1.5s, 10m, 2h, 1d"},
            "type": {"enum": ["string", "integer", "number", "boolean", "object", "array", "email", "json"]},
            "input": {
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "type": {"$ref": "#/$defs/type"}, "label": {"type": "string"}, "required": {"type": "boolean"}, "default": {},
                    "description": {"type": "string"}, "help": {"type": "string"}, "data_provider": {"type": "string"},
                    "min": {"type": "number"}, "max": {"type": "number"}, "min_length": {"type": "integer"},
                    "max_length": {"type": "integer"}, "pattern": {"type": "string"}, "enum": {"type": "array"},
                    "validation": {"type": "object", "additionalProperties": false, "properties": {
                        "min": {"type": "number"}, "max": {"type": "number"}, "min_length": {"type": "integer"},
                        "max_length": {"type": "integer"}, "pattern": {"type": "string"}, "enum": {"type": "array"},
                    }},
                },
            },
            "steps": steps,
            "depends_on": {"anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"anyOf": [
                    {"type": "string"},
                    {"type": "object", "required": ["step"], "additionalProperties": false, "properties": {
                        "step": {"type": "string"}, "on": {"enum": ["success", "failure", "end"]}, "branch": {"type": "string"},
                    }},
                ]}},
            ]},
            "retry": {"type": "object", "additionalProperties": false, "properties": {
                "attempts": {"type": "integer", "minimum": 1, "maximum": 100}, "delay": {"$ref": "#/$defs/time"},
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
                        members.insert((*member).to_owned(), json!({}));
                    }
                    if tries {
                        for (member, schema) in [
                            ("retry", json!({"$ref": "#/$defs/retry"})), ("timeout", json!({"$ref": "#/$defs/time"})),
                            ("on_crash", json!({"enum": ["retry", "fail"]})), ("cache", json!({})),
                        ] {
                            members.insert(member.to_owned(), schema);
                        }
                    }
                    if takes_inputs {
                        members.insert("inputs".to_owned(), json!({"type": "object"}));
                        members.insert("with".to_owned(), json!({"type": "object"}));
                    }
                    if name == "conditional" {
                        for member in CONDITIONAL {
                            let is_steps = matches!(member, "then" | "else" | "then_steps" | "else_steps");
                            let schema = if is_steps { json!({"$ref": "#/$defs/steps"}) } else { json!({}) };
                            members.insert(member.to_owned(), schema);
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

fn common() -> Map<String, Value> {
    Map::from_iter([
        ("id".to_owned(), json!({})),
        ("type".to_owned(), json!({})),
        ("depends_on".to_owned(), json!({"$ref": "#/$defs/depends_on"})),
        (
            "when".to_owned(),
            json!({"type": ["string", "boolean"], "description": "An expression; false skips the step"}),
        ),
        ("join".to_owned(), json!({"enum": ["all", "any"]})),
        (
            "on_failure".to_owned(),
            json!({"anyOf": [{"enum": ["fail", "continue", "warn"]}, {"$ref": "#/$defs/steps"}]}),
        ),
    ])
}
