//! Fields whose options a data provider offers: whether there is that provider, and whether the form can ask it.

use std::collections::{BTreeMap, BTreeSet};

use super::parameters::nearest;
use crate::domain::{Declared, DeclaredAs, OptionsFrom, Parameter, ParameterType, Setting, SettingKind};
use crate::error::Finding;

/// What names of data providers of the engine begin with; none of a workspace can.
pub const BUILT_IN_PROVIDERS: &str = "weft.";
/// Inputs of data providers that the engine itself takes: which page of the options.
pub const PAGING: [&str; 3] = ["limit", "cursor", "code"];
/// The input of a data provider that looks itself for a text that somebody types.
pub const SEARCH: &str = "search";

/// The data providers that the engine has itself, by name.
#[must_use]
pub fn built_in_providers() -> Vec<Declared> {
    let text = |name: &str, help: &str| Parameter {
        name: name.to_owned(),
        kind: ParameterType::String,
        help: Some(help.to_owned()),
        ..Parameter::default()
    };
    let provider = |name: &str, description: &str, parameters: Vec<Parameter>| Declared {
        name: format!("{BUILT_IN_PROVIDERS}{name}"),
        description: description.to_owned(),
        category: "Weft".to_owned(),
        parameters,
        uses_caller: true,
        declared_as: DeclaredAs::DataProvider,
        ..Declared::default()
    };
    vec![
        provider(
            "members",
            "People who belong to the organization, by their id.",
            Vec::new(),
        ),
        provider(
            "node_types",
            "Kinds of nodes that graphs of the organization may have.",
            vec![text("category", "Only those of this category.")],
        ),
        provider(
            "secrets",
            "Names of the organization's secrets; never their values.",
            Vec::new(),
        ),
        provider("time_zones", "Names of time zones, as schedules take them.", Vec::new()),
        provider(
            "workflows",
            "Workflows that the caller may run.",
            vec![
                text("category", "Only those of this category."),
                text("tag", "Only those with this tag."),
            ],
        ),
    ]
}

/// The parameters of a data provider: of the engine's, or of the workspace's.
fn parameters_of(name: &str, providers: &BTreeMap<String, Declared>) -> Option<Vec<Parameter>> {
    if let Some(provider) = providers.get(name) {
        return Some(provider.parameters.clone());
    }
    let built_in = built_in_providers().into_iter().find(|one| one.name == name);
    built_in.map(|one| one.parameters)
}

/// A field of a form, as far as its options go.
struct Field<'a> {
    name: &'a str,
    kind: ParameterType,
    is_listed: bool,
    options: Option<OptionsFrom>,
    /// Below the field's own place.
    pointer: &'static str,
}

/// What is wrong with where the options of parameters come from. Pointers begin with the parameter's place: `/0/options/provider`.
#[must_use]
pub fn check_options(parameters: &[Parameter], providers: &BTreeMap<String, Declared>) -> Vec<Finding> {
    let twice = parameters.iter().enumerate().filter_map(|(index, parameter)| {
        let _both = parameter.options.as_ref().zip(parameter.data_provider.as_ref())?;
        let message = format!("parameter `{}` has both `options` and `data_provider`", parameter.name);
        let finding = Finding::new(format!("/{index}/data_provider"), "options_twice", message);
        Some(finding.hint("keep `options`"))
    });
    let mut findings: Vec<Finding> = twice.collect();
    let fields: Vec<Field<'_>> = parameters
        .iter()
        .map(|parameter| Field {
            name: &parameter.name,
            kind: parameter.kind,
            // A secret is chosen among those that the code declares; the provider may say how they are called.
            is_listed: parameter.values.is_some()
                && parameter.kind != ParameterType::Secret
                && parameter.options.is_some(),
            options: parameter.options_from(),
            pointer: if parameter.options.is_some() {
                "options"
            } else {
                "data_provider"
            },
        })
        .collect();
    findings.extend(check(&fields, "parameter", providers));
    findings
}

/// As [`check_options`], of the settings of a node type.
#[must_use]
pub fn check_setting_options(settings: &[Setting], providers: &BTreeMap<String, Declared>) -> Vec<Finding> {
    let strict = settings.iter().enumerate().filter_map(|(index, setting)| {
        setting.options.from().filter(|from| from.strict)?;
        let message = format!("setting `{}` can't be `strict`", setting.name);
        let finding = Finding::new(format!("/{index}/options/strict"), "bad_options", message);
        Some(finding.hint("leave `strict` out: a setting is chosen when the graph is drawn, and no run asks again"))
    });
    let mut findings: Vec<Finding> = strict.collect();
    let fields: Vec<Field<'_>> = settings
        .iter()
        .map(|setting| Field {
            name: &setting.name,
            kind: kind_of(setting.kind),
            is_listed: false,
            options: setting.options.from().cloned(),
            pointer: "options",
        })
        .collect();
    findings.extend(check(&fields, "setting", providers));
    findings
}

/// What a setting gives to an input.
const fn kind_of(kind: SettingKind) -> ParameterType {
    match kind {
        SettingKind::Text | SettingKind::Multiline | SettingKind::Code | SettingKind::Date => ParameterType::String,
        SettingKind::Number => ParameterType::Number,
        SettingKind::Integer => ParameterType::Integer,
        SettingKind::Boolean => ParameterType::Boolean,
        SettingKind::MultiSelect | SettingKind::List | SettingKind::Table => ParameterType::Array,
        SettingKind::File => ParameterType::File,
        SettingKind::Secret => ParameterType::Secret,
        SettingKind::Values => ParameterType::Object,
        SettingKind::Select | SettingKind::Expression | SettingKind::Value => ParameterType::Any,
    }
}

fn check(fields: &[Field<'_>], what: &str, providers: &BTreeMap<String, Declared>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, field) in fields.iter().enumerate() {
        let Some(from) = &field.options else { continue };
        let at = format!("/{index}/{}", field.pointer);
        let inside = |member: &str| match field.pointer {
            "options" => format!("{at}/{member}"),
            _ => at.clone(),
        };
        let whose = format!("{what} `{}`", field.name);
        let mut add = |pointer: String, code: &str, message: String, hint: String| {
            findings.push(Finding::new(pointer, code, message).hint(hint));
        };
        if field.is_listed {
            let message = format!("{whose} has both `enum` and `options`");
            add(at.clone(), "bad_options", message, "keep one of them".to_owned());
        }
        let Some(inputs) = parameters_of(&from.provider, providers) else {
            let message = format!(
                "{whose} takes its options from `{:.80}`, and there is no such data provider",
                from.provider
            );
            add(
                inside("provider"),
                "unknown_provider",
                message,
                known(&from.provider, providers),
            );
            continue;
        };
        let provider = format!("data provider `{}`", from.provider);
        for (input, source) in &from.inputs {
            let pointer = inside(&format!("inputs/{}", input.replace('~', "~0").replace('/', "~1")));
            let taken = inputs.iter().find(|one| one.name == *input);
            let given = fields.iter().find(|one| one.name == *source);
            if taken.is_none() {
                let message = format!("{provider} of {whose} has no input `{input:.80}`");
                let names = inputs.iter().map(|one| one.name.as_str());
                add(
                    pointer.clone(),
                    "unknown_input",
                    message,
                    near_or(input, names, "it takes"),
                );
            }
            if given.is_none() {
                let message = format!("{whose} depends on `{source:.80}`, and there is no such {what}");
                let names = fields.iter().map(|one| one.name);
                add(
                    pointer.clone(),
                    "unknown_field",
                    message,
                    near_or(source, names, "there is"),
                );
            }
            if let (Some(taken), Some(given)) = (taken, given)
                && !fits(taken.kind, given.kind)
            {
                let message = format!(
                    "input `{input}` of {provider} is of type `{}`, and {what} `{source}` is of type `{}`",
                    taken.kind.as_str(),
                    given.kind.as_str()
                );
                let hint = "take another one, or change the type of one of both".to_owned();
                add(pointer, "wrong_type", message, hint);
            }
        }
        let missing = inputs.iter().filter(|one| {
            one.required && !one.has_default && one.name != SEARCH && !from.inputs.contains_key(&one.name)
        });
        for input in missing {
            let message = format!("{provider} of {whose} needs `{}`, which nothing gives", input.name);
            let hint = format!(
                "name the {what} that gives it: `\"inputs\": {{\"{}\": \"…\"}}`",
                input.name
            );
            add(at.clone(), "missing_input", message, hint);
        }
        if from.strict && inputs.iter().any(|one| one.name == SEARCH) {
            let message = format!("{whose} is `strict`, and {provider} gives only what is searched for");
            let hint = "leave `strict` out, or have the provider give all that there is".to_owned();
            add(inside("strict"), "bad_options", message, hint);
        }
    }
    findings.extend(circles(fields, what));
    findings
}

/// One finding for each circle of fields that wait for each other.
fn circles(fields: &[Field<'_>], what: &str) -> Vec<Finding> {
    let place: BTreeMap<&str, usize> = fields
        .iter()
        .enumerate()
        .map(|(index, field)| (field.name, index))
        .collect();
    let next = |index: usize| -> BTreeSet<usize> {
        let from = fields[index].options.iter();
        let names = from.flat_map(|from| from.inputs.values());
        names.filter_map(|name| place.get(name.as_str()).copied()).collect()
    };
    let mut findings = Vec::new();
    let mut told: BTreeSet<usize> = BTreeSet::new();
    for begin in 0..fields.len() {
        // The shortest way back, by breadth.
        let mut came: BTreeMap<usize, usize> = BTreeMap::new();
        let mut ahead = std::collections::VecDeque::from([begin]);
        while let Some(at) = ahead.pop_front() {
            for to in next(at) {
                if let std::collections::btree_map::Entry::Vacant(place) = came.entry(to) {
                    place.insert(at);
                    ahead.push_back(to);
                }
            }
        }
        if !came.contains_key(&begin) || told.contains(&begin) {
            continue;
        }
        let mut way = vec![begin];
        let mut at = came[&begin];
        while at != begin {
            way.push(at);
            at = came[&at];
        }
        way.push(begin);
        told.extend(&way);
        // Backwards: each depends on the one before it.
        let names: Vec<_> = way
            .iter()
            .rev()
            .map(|index| format!("`{}`", fields[*index].name))
            .collect();
        let message = format!("options depend on each other in a circle: {}", names.join(" → "));
        let hint = format!("have one {what} of the circle depend on none of the others");
        let pointer = format!("/{begin}/{}/inputs", fields[begin].pointer);
        findings.push(Finding::new(pointer, "options_cycle", message).hint(hint));
    }
    findings
}

/// Whether what a field gives can be what an input takes. What a field of any type gives is seen when it is given.
const fn fits(taken: ParameterType, given: ParameterType) -> bool {
    use ParameterType as T;
    const fn is_text(kind: ParameterType) -> bool {
        matches!(kind, T::String | T::Email | T::Url | T::Binary | T::Secret)
    }
    match (taken, given) {
        (T::Any | T::Json, _) | (_, T::Any | T::Json) | (T::Number, T::Integer) => true,
        (T::String, given) => is_text(given),
        (taken, given) => taken as u8 == given as u8 || (is_text(taken) && matches!(given, T::String)),
    }
}

fn known(name: &str, providers: &BTreeMap<String, Declared>) -> String {
    let built_in = built_in_providers();
    let all: Vec<&str> = providers
        .keys()
        .map(String::as_str)
        .chain(built_in.iter().map(|one| one.name.as_str()))
        .collect();
    near_or(name, all.into_iter(), "there is")
}

fn near_or<'a>(name: &str, known: impl Iterator<Item = &'a str>, there: &str) -> String {
    let known: Vec<&str> = known.collect();
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => format!("{there} none"),
        None => format!("{there} `{}`", known[..known.len().min(20)].join("`, `")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parameters(written: Value) -> Vec<Parameter> {
        serde_json::from_value(written).unwrap()
    }

    fn providers() -> BTreeMap<String, Declared> {
        let declared = |name: &str, inputs: Value| {
            let declared = Declared {
                name: name.to_owned(),
                parameters: parameters(inputs),
                ..Declared::default()
            };
            (name.to_owned(), declared)
        };
        BTreeMap::from([
            declared("countries", json!([])),
            declared(
                "cities",
                json!([{"name": "country", "type": "string", "required": true}]),
            ),
            declared(
                "people",
                json!([{"name": "search", "type": "string", "required": true}]),
            ),
        ])
    }

    fn found(written: Value) -> Vec<(String, String)> {
        let findings = check_options(&parameters(written), &providers());
        assert!(findings.iter().all(|finding| finding.hint.is_some()));
        findings.into_iter().map(|one| (one.pointer, one.code)).collect()
    }

    fn one(pointer: &str, code: &str) -> Vec<(String, String)> {
        vec![(pointer.to_owned(), code.to_owned())]
    }

    #[test]
    fn what_fits_has_no_finding() {
        let fields = json!([
            {"name": "country", "type": "string", "options": {"provider": "countries", "strict": true}},
            {"name": "city", "type": "string", "options": {"provider": "cities", "inputs": {"country": "country"}}},
            {"name": "person", "type": "email", "data_provider": "people"},
            {"name": "zone", "type": "string", "options": {"provider": "weft.time_zones"}},
        ]);
        assert_eq!(found(fields), []);
    }

    #[test]
    fn each_mistake_has_a_place() {
        let city = |options: Value| json!([{"name": "country", "type": "array"}, {"name": "city", "type": "string", "options": options}]);
        assert_eq!(
            found(city(json!({"provider": "citys"}))),
            one("/1/options/provider", "unknown_provider")
        );
        assert_eq!(
            found(city(json!({"provider": "weft.cities"}))),
            one("/1/options/provider", "unknown_provider")
        );
        assert_eq!(
            found(city(json!({"provider": "cities"}))),
            one("/1/options", "missing_input")
        );
        let inputs = |inputs: Value| city(json!({"provider": "cities", "inputs": inputs}));
        assert_eq!(
            found(inputs(json!({"country": "country"}))),
            one("/1/options/inputs/country", "wrong_type")
        );
        assert_eq!(
            found(inputs(json!({"country": "nation"}))),
            one("/1/options/inputs/country", "unknown_field")
        );
        let extra = city(json!({"provider": "countries", "inputs": {"x": "country"}}));
        assert_eq!(found(extra), one("/1/options/inputs/x", "unknown_input"));
        let strict = city(json!({"provider": "people", "strict": true}));
        assert_eq!(found(strict), one("/1/options/strict", "bad_options"));
        let short = json!([{"name": "a", "type": "string", "data_provider": "nosuch"}]);
        assert_eq!(found(short), one("/0/data_provider", "unknown_provider"));
        let both = json!([{"name": "a", "type": "string", "data_provider": "countries", "options": {"provider": "countries"}}]);
        assert_eq!(found(both), one("/0/data_provider", "options_twice"));
        let listed = json!([{"name": "a", "type": "string", "enum": ["x"], "options": {"provider": "countries"}}]);
        assert_eq!(found(listed), one("/0/options", "bad_options"));
    }

    #[test]
    fn a_circle_is_told_once_and_shown() {
        let field = |name: &str, on: &str| json!({"name": name, "type": "string", "options": {"provider": "cities", "inputs": {"country": on}}});
        let fields = parameters(json!([
            field("z", "a"),
            field("a", "b"),
            field("b", "c"),
            field("c", "a"),
            field("me", "me")
        ]));
        let findings = check_options(&fields, &providers());
        let said: Vec<_> = findings
            .iter()
            .map(|one| (one.pointer.as_str(), one.message.as_str()))
            .collect();
        assert_eq!(
            said,
            [
                (
                    "/1/options/inputs",
                    "options depend on each other in a circle: `a` → `b` → `c` → `a`"
                ),
                (
                    "/4/options/inputs",
                    "options depend on each other in a circle: `me` → `me`"
                ),
            ]
        );
    }

    #[test]
    fn settings_are_held_to_the_same_and_never_strict() {
        let settings: Vec<Setting> = serde_json::from_value(json!([
            {"name": "country", "kind": "select", "options": {"provider": "countries", "strict": true}},
            {"name": "city", "kind": "select", "options": {"provider": "cities", "inputs": {"country": "country"}}},
            {"name": "town", "kind": "text", "options": {"provider": "towns"}},
        ]))
        .unwrap();
        let findings = check_setting_options(&settings, &providers());
        let found: Vec<_> = findings
            .iter()
            .map(|one| (one.pointer.as_str(), one.code.as_str()))
            .collect();
        assert_eq!(
            found,
            [
                ("/0/options/strict", "bad_options"),
                ("/2/options/provider", "unknown_provider")
            ]
        );
    }

    #[test]
    fn built_in_ones_are_named_as_no_function_can_be() {
        for one in built_in_providers() {
            assert!(one.name.starts_with(BUILT_IN_PROVIDERS) && !super::super::is_workflow_name(&one.name));
            assert!(
                one.parameters
                    .iter()
                    .all(|input| !PAGING.contains(&input.name.as_str()) && input.name != SEARCH)
            );
        }
    }
}
