//! The inputs of a workflow → the parameters of a graph.

use serde_json::{Map, Value, json};

use super::Reader;
use crate::definition::yaml::compose::{Kind, Tree};
use crate::definition::yaml::step_types::As;

const INPUT: [&str; 15] = [
    "type",
    "label",
    "required",
    "default",
    "description",
    "help",
    "validation",
    "min",
    "max",
    "min_length",
    "max_length",
    "pattern",
    "enum",
    "data_provider",
    "options",
];

impl Reader {
    pub(super) fn inputs(&mut self, inputs: &Tree) -> Value {
        self.places.insert("/parameters".to_owned(), inputs.place);
        let Kind::Map(members) = &inputs.kind else {
            if !inputs.is_null() {
                self.wrong(
                    inputs.place,
                    "wrong_type",
                    "`inputs` must be names with what they are",
                    "write `name: {type: string}` lines below it",
                );
            }
            return json!([]);
        };
        let mut parameters = Vec::with_capacity(members.len());
        for (index, (name, place, tree)) in members.iter().enumerate() {
            let at = format!("/parameters/{index}");
            self.places.insert(at.clone(), *place);
            self.places.insert(format!("{at}/name"), *place);
            let mut parameter = Map::new();
            parameter.insert("name".to_owned(), json!(name));
            match &tree.kind {
                Kind::Scalar(kind, _) if !tree.is_null() => {
                    self.places.insert(format!("{at}/type"), tree.place);
                    parameter.insert("type".to_owned(), json!(kind));
                }
                Kind::Map(_) => self.input(name, tree, &at, &mut parameter),
                _ => self.wrong(
                    tree.place,
                    "wrong_type",
                    format!("input `{name:.60}` must be a type, or names with values"),
                    "write `{type: string, required: true}`",
                ),
            }
            parameters.push(Value::Object(parameter));
        }
        Value::Array(parameters)
    }

    fn input(&mut self, name: &str, tree: &Tree, at: &str, parameter: &mut Map<String, Value>) {
        let what = format!("input `{name:.60}`");
        self.unknown(&what, tree, &INPUT);
        self.once(&what, tree, &[("description", "help")]);
        let validation = tree.get("validation");
        for name in &INPUT[7..13] {
            if let (Some(_), Some(inner)) = (tree.get(name), validation.and_then(|inner| inner.get(name))) {
                self.wrong(
                    inner.place,
                    "duplicate_key",
                    format!("`{name}` of {what} stands twice"),
                    "take one of them out",
                );
            }
        }
        if let Some(validation) = validation {
            self.unknown(&format!("`validation` of {what}"), validation, &INPUT[7..13]);
            if !matches!(validation.kind, Kind::Map(_)) {
                self.wrong(
                    validation.place,
                    "wrong_type",
                    format!("`validation` of {what} must be names with values"),
                    "write `validation: {pattern: \"^[a-z]+$\"}`",
                );
            }
        }
        for (from, into) in [
            ("type", "type"),
            ("label", "label"),
            ("required", "required"),
            ("default", "default"),
            ("help", "help"),
            ("description", "help"),
            ("min", "min"),
            ("max", "max"),
            ("min_length", "min_length"),
            ("max_length", "max_length"),
            ("pattern", "pattern"),
            ("enum", "enum"),
            ("data_provider", "data_provider"),
            ("options", "options"),
        ] {
            let found = tree
                .get(from)
                .or_else(|| validation.and_then(|validation| validation.get(from)));
            if let Some(member) = found {
                self.put(parameter, at, into, member, As::Plain);
            }
        }
        // A default of a text input is a text, as `latest` and as `1.0`.
        let is_text = parameter.get("type").is_none_or(|kind| {
            ["string", "email", "url", "binary", "secret"]
                .iter()
                .any(|text| kind == text)
        });
        if let (true, Some(Kind::Scalar(text, _))) = (is_text, tree.get("default").map(|default| &default.kind))
            && !tree.get("default").is_some_and(Tree::is_null)
        {
            parameter.insert("default".to_owned(), json!(text));
        }
        let choices = tree
            .get("enum")
            .or_else(|| validation.and_then(|validation| validation.get("enum")));
        if let (true, Some(Kind::List(choices))) = (is_text, choices.map(|choices| &choices.kind))
            && choices.iter().all(|choice| choice.text().is_some())
        {
            let texts = choices.iter().filter_map(Tree::text).map(|text| json!(text));
            parameter.insert("enum".to_owned(), texts.collect());
        }
    }
}
