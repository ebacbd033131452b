//! A version of a node type as somebody wrote it → a document, or everything that is wrong with it; and values against its ports
//! and settings. Its code is not looked at here: that is done in the jail.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::parameters::{compile, nearest};
use super::policy::bad_host;
use crate::domain::{
    DeclaredLimits, Limits, NodeBody, NodeDocument, NodeTypeName, NodeVersion, Port, SecretName, Setting, SettingKind,
    SettingOption, SettingOptions, Trust,
};
use crate::error::Finding;

/// Largest code, in bytes.
pub const MAX_CODE_BYTES: usize = 256 << 10;
/// Most inputs, and most outputs.
pub const MAX_PORTS: usize = 30;
/// Most settings.
pub const MAX_SETTINGS: usize = 50;
/// Largest version without its code, in bytes of JSON.
const MAX_SHAPE_BYTES: usize = 30_000;
const MAX_OPTIONS: usize = 200;
const MAX_HOSTS: usize = 50;
const MAX_SECRETS: usize = 20;
/// Longest time limit of an attempt, in seconds.
const MAX_TIMEOUT: f64 = 86_400.0;

const MEMBERS: [&str; 17] = [
    "name",
    "version",
    "title",
    "description",
    "category",
    "icon",
    "inputs",
    "outputs",
    "settings",
    "async",
    "code",
    "function",
    "timeoutSeconds",
    "limits",
    "trust",
    "network",
    "secrets",
];
const INPUT: [&str; 5] = ["name", "type", "required", "multiple", "description"];
const OUTPUT: [&str; 4] = ["name", "type", "whole", "description"];
const SETTING: [&str; 12] = [
    "name",
    "kind",
    "label",
    "help",
    "required",
    "default",
    "min",
    "max",
    "minLength",
    "maxLength",
    "pattern",
    "options",
];
/// Kinds of settings that a node type of the library may have.
const KINDS: [(&str, SettingKind); 12] = [
    ("text", SettingKind::Text),
    ("multiline", SettingKind::Multiline),
    ("number", SettingKind::Number),
    ("integer", SettingKind::Integer),
    ("boolean", SettingKind::Boolean),
    ("select", SettingKind::Select),
    ("multi_select", SettingKind::MultiSelect),
    ("date", SettingKind::Date),
    ("file", SettingKind::File),
    ("secret", SettingKind::Secret),
    ("list", SettingKind::List),
    ("code", SettingKind::Code),
];

/// Reads a version of the node type of this name. Limits above `ceilings` are findings.
///
/// # Errors
/// One finding for each mistake; the pointer leads into what was written.
pub fn parse_document(
    name: &NodeTypeName,
    written: &Map<String, Value>,
    ceilings: &Limits,
) -> Result<NodeDocument, Vec<Finding>> {
    let mut reader = Reader { findings: Vec::new() };
    let at = At {
        pointer: "",
        members: written,
    };
    reader.known(&at, &MEMBERS);
    if let Some(other) = at.get("name").filter(|other| other.as_str() != Some(name.as_str())) {
        let message = format!("`name` is {other:.60}, and the path names `{name}`");
        reader.add(
            "/name",
            "wrong_name",
            message,
            "leave `name` out, or write the one of the path",
        );
    }
    let version = reader.text(&at, "version", 40).map(|text| text.parse::<NodeVersion>());
    let version = match version {
        Some(Ok(version)) => Some(version),
        Some(Err(error)) => {
            reader.add(
                "/version",
                "bad_version",
                error.to_string(),
                "write three numbers with dots, as `1.0.0`",
            );
            None
        }
        None if at.get("version").is_none() => {
            let message = "the version has no `version`".to_owned();
            reader.add(
                "/version",
                "missing_member",
                message,
                "write three numbers with dots, as `1.0.0`",
            );
            None
        }
        None => None,
    };
    let body = reader.body(&at);
    let settings = reader.settings(&at);
    let document = NodeDocument {
        name: name.clone(),
        version: version.clone().unwrap_or_else(first_version),
        title: reader.text(&at, "title", 100).unwrap_or_else(|| name.to_string()),
        description: reader.text(&at, "description", 4_000).unwrap_or_default(),
        category: reader.text(&at, "category", 60).unwrap_or_else(|| "General".to_owned()),
        icon: reader.text(&at, "icon", 60).unwrap_or_default(),
        inputs: reader.ports(&at, "inputs", &INPUT),
        outputs: reader.ports(&at, "outputs", &OUTPUT),
        settings,
        is_async: reader.read(&at, "async", "`true` or `false`"),
        body: body.clone().unwrap_or_else(|| NodeBody::Code(String::new())),
        timeout_seconds: reader.timeout(&at),
        limits: reader.limits(&at, ceilings),
        trust: reader
            .read(&at, "trust", "`restricted` or `trusted`")
            .unwrap_or(Trust::Restricted),
        network: reader.hosts(&at),
        secrets: reader.secrets(&at),
    };
    reader.whole(&document);
    let bytes = serde_json::to_vec(&document).map_or(0, |all| all.len()) - body.as_ref().map_or(0, length);
    if bytes > MAX_SHAPE_BYTES + MAX_CODE_BYTES || (body.is_some() && bytes > MAX_SHAPE_BYTES) {
        let message = format!("without its code the version has {bytes} bytes and may have {MAX_SHAPE_BYTES}");
        reader.add("", "too_large", message, "shorten descriptions, helps and options");
    }
    match (version, body) {
        (Some(_), Some(_)) if reader.findings.is_empty() => Ok(document),
        _ => Err(reader.findings),
    }
}

fn first_version() -> NodeVersion {
    "0.0.1".parse().expect("it is one")
}

/// How many bytes of JSON it has as a member.
fn length(body: &NodeBody) -> usize {
    serde_json::to_vec(body).map_or(0, |text| text.len())
}

struct At<'a> {
    pointer: &'a str,
    members: &'a Map<String, Value>,
}

impl<'a> At<'a> {
    /// A member; null is as good as none.
    fn get(&self, name: &str) -> Option<&'a Value> {
        self.members.get(name).filter(|value| !value.is_null())
    }

    fn pointer(&self, name: &str) -> String {
        format!("{}/{}", self.pointer, name.replace('~', "~0").replace('/', "~1"))
    }
}

struct Reader {
    findings: Vec<Finding>,
}

impl Reader {
    fn add(&mut self, pointer: impl Into<String>, code: &str, message: String, hint: impl Into<String>) {
        self.findings.push(Finding::new(pointer, code, message).hint(hint));
    }

    fn known(&mut self, at: &At<'_>, known: &[&str]) {
        for name in at.members.keys().filter(|name| !known.contains(&name.as_str())) {
            let hint = match nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there is `{}`", known.join("`, `")),
            };
            let message = format!("there is no member `{name:.60}`");
            self.add(at.pointer(name), "unknown_member", message, hint);
        }
    }

    fn wrong_type(&mut self, pointer: String, expected: &str) {
        self.add(
            pointer,
            "wrong_type",
            format!("it must be {expected}"),
            format!("write {expected}"),
        );
    }

    fn text(&mut self, at: &At<'_>, name: &str, most: usize) -> Option<String> {
        let text = at.get(name)?.as_str();
        let good =
            text.filter(|text| text.chars().count() <= most && !text.chars().any(|c| c.is_control() && c != '\n'));
        if good.is_none() {
            self.wrong_type(at.pointer(name), &format!("a text of at most {most} characters"));
        }
        good.map(str::to_owned)
    }

    fn read<T: DeserializeOwned>(&mut self, at: &At<'_>, name: &str, expected: &str) -> Option<T> {
        let value = at.get(name)?;
        let read = serde_json::from_value(value.clone()).ok();
        if read.is_none() {
            self.wrong_type(at.pointer(name), expected);
        }
        read
    }

    fn list<'a>(&mut self, at: &At<'a>, name: &str, most: usize) -> &'a [Value] {
        match at.get(name) {
            None => &[],
            Some(Value::Array(items)) if items.len() <= most => items,
            Some(_) => {
                self.wrong_type(at.pointer(name), &format!("a list of at most {most}"));
                &[]
            }
        }
    }

    fn body(&mut self, at: &At<'_>) -> Option<NodeBody> {
        match (at.get("code"), at.get("function")) {
            (Some(Value::String(code)), None) if code.trim().is_empty() => {
                let hint = "write `def run(ctx, inputs, settings):`";
                self.add("/code", "missing_member", "the code is empty".to_owned(), hint);
            }
            (Some(Value::String(code)), None) if code.len() > MAX_CODE_BYTES => {
                let message = format!("the code has {} bytes and may have {MAX_CODE_BYTES}", code.len());
                self.add(
                    "/code",
                    "too_large",
                    message,
                    "move what is large into a package or an artifact",
                );
            }
            (Some(Value::String(code)), None) => return Some(NodeBody::Code(code.clone())),
            (None, Some(Value::String(function))) if (1..=200).contains(&function.len()) => {
                return Some(NodeBody::Function(function.clone()));
            }
            (Some(_), None) => self.wrong_type("/code".to_owned(), "Python as a text"),
            (None, Some(_)) => self.wrong_type("/function".to_owned(), "the name of a function of the workspace"),
            (Some(_), Some(_)) => {
                let message = "there are both `code` and `function`".to_owned();
                self.add("/function", "two_bodies", message, "keep one of them");
            }
            (None, None) => {
                let hint = "write Python as `code`, or name a function of the workspace as `function`";
                self.add("/code", "missing_member", "there is nothing that runs".to_owned(), hint);
            }
        }
        None
    }

    /// A member that names something, unlike all before it.
    fn name(&mut self, at: &At<'_>, taken: &mut BTreeSet<String>, what: &str) -> Option<String> {
        let name = at.get("name").and_then(Value::as_str).unwrap_or_default();
        let good = (1..=63).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !good {
            let message = format!("a {what} needs a name, and `{name:.60}` is none");
            self.add(
                at.pointer("name"),
                "bad_name",
                message,
                "begin with a lower-case letter and write up to 63 lower-case letters, digits and `_`",
            );
            return None;
        }
        if !taken.insert(name.to_owned()) {
            let message = format!("there are two {what}s `{name}`");
            self.add(
                at.pointer("name"),
                "duplicate_name",
                message,
                "give each a name of its own",
            );
        }
        Some(name.to_owned())
    }

    fn ports(&mut self, at: &At<'_>, list: &str, known: &[&str]) -> Vec<Port> {
        let mut taken = BTreeSet::new();
        let mut ports = Vec::new();
        let what = if list == "inputs" { "input" } else { "output" };
        for (index, value) in self.list(at, list, MAX_PORTS).iter().enumerate() {
            let pointer = format!("/{list}/{index}");
            let Some(members) = value.as_object() else {
                self.wrong_type(pointer, "an object, as `{\"name\": \"text\", \"type\": \"string\"}`");
                continue;
            };
            let at = At {
                pointer: &pointer,
                members,
            };
            self.known(&at, known);
            let name = self.name(&at, &mut taken, what);
            let port = Port {
                name: name.clone().unwrap_or_default(),
                kind: self
                    .read(&at, "type", "a type of ports; docs/ports.md lists them")
                    .unwrap_or_default(),
                required: self.read(&at, "required", "`true` or `false`").unwrap_or_default(),
                multiple: self.read(&at, "multiple", "`true` or `false`").unwrap_or_default(),
                whole: self.read(&at, "whole", "`true` or `false`").unwrap_or_default(),
                description: self.text(&at, "description", 500),
            };
            if name.is_some() {
                ports.push(port);
            }
        }
        if ports.len() > 1
            && let Some(port) = ports.iter().find(|port| port.whole)
        {
            let message = format!("output `{}` is all that `run` returns, and there are others", port.name);
            let hint = "leave `whole` out: `run` returns an object with a member for each output";
            self.add("/outputs", "whole_of_several", message, hint);
        }
        ports
    }

    fn settings(&mut self, at: &At<'_>) -> Vec<Setting> {
        let mut taken = BTreeSet::new();
        let mut settings = Vec::new();
        for (index, value) in self.list(at, "settings", MAX_SETTINGS).iter().enumerate() {
            let pointer = format!("/settings/{index}");
            let Some(members) = value.as_object() else {
                self.wrong_type(pointer, "an object, as `{\"name\": \"region\", \"kind\": \"text\"}`");
                continue;
            };
            let at = At {
                pointer: &pointer,
                members,
            };
            self.known(&at, &SETTING);
            let before = self.findings.len();
            let name = self.name(&at, &mut taken, "setting");
            let setting = Setting {
                name: name.unwrap_or_default(),
                kind: self.kind(&at),
                label: self.text(&at, "label", 100),
                help: self.text(&at, "help", 1_000),
                required: self.read(&at, "required", "`true` or `false`").unwrap_or_default(),
                default: at.get("default").cloned(),
                min: self.read(&at, "min", "a number"),
                max: self.read(&at, "max", "a number"),
                min_length: self.read(&at, "minLength", "a whole number from 0"),
                max_length: self.read(&at, "maxLength", "a whole number from 0"),
                pattern: self.text(&at, "pattern", 500),
                options: self.options(&at),
                ..Setting::default()
            };
            // What can't be read as it is would only be said twice.
            if self.findings.len() == before {
                self.bounds(&setting, &at);
            }
            if !setting.name.is_empty() {
                settings.push(setting);
            }
        }
        settings
    }

    fn kind(&mut self, at: &At<'_>) -> SettingKind {
        let Some(value) = at.get("kind") else {
            return SettingKind::Text;
        };
        let written = value.as_str().unwrap_or_default();
        if let Some((_, kind)) = KINDS.iter().find(|(name, _)| *name == written) {
            return *kind;
        }
        let names = || KINDS.iter().map(|(name, _)| *name);
        let hint = match nearest(written, names()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there is `{}`", names().collect::<Vec<_>>().join("`, `")),
        };
        let message = format!("there is no kind of setting `{written:.60}`");
        self.add(at.pointer("kind"), "not_one_of", message, hint);
        SettingKind::Text
    }

    fn options(&mut self, at: &At<'_>) -> SettingOptions {
        if at.get("options").is_some_and(Value::is_object) {
            let expected = "a list, or where they come from, as `{\"provider\": \"cities\", \"inputs\": {\"country\": \"country\"}}`";
            return self
                .read(at, "options", expected)
                .map(SettingOptions::From)
                .unwrap_or_default();
        }
        let mut options = Vec::new();
        for (index, value) in self.list(at, "options", MAX_OPTIONS).iter().enumerate() {
            let option = match value {
                Value::Object(_) => serde_json::from_value(value.clone()).ok(),
                single => Some(SettingOption {
                    value: single.clone(),
                    label: None,
                }),
            };
            match option
                .filter(|option| option.value.is_string() || option.value.is_number() || option.value.is_boolean())
            {
                Some(option) => options.push(option),
                None => self.wrong_type(
                    format!("{}/options/{index}", at.pointer),
                    "a single value, or `{\"value\": …, \"label\": \"…\"}`",
                ),
            }
        }
        SettingOptions::Listed(options)
    }

    /// Whether what a setting says of itself goes together.
    fn bounds(&mut self, setting: &Setting, at: &At<'_>) {
        let chooses = matches!(setting.kind, SettingKind::Select | SettingKind::MultiSelect);
        let offers = setting.options.from().is_some() && (chooses || setting.kind == SettingKind::Text);
        if chooses == setting.options.is_empty() && !offers {
            let (message, hint) = if chooses {
                ("there is nothing to choose from", "list the choices in `options`")
            } else {
                (
                    "only `select`, `multi_select` and, from a data provider, `text` have `options`",
                    "leave `options` out",
                )
            };
            self.add(at.pointer("options"), "bad_options", message.to_owned(), hint);
        }
        let is_number = matches!(setting.kind, SettingKind::Number | SettingKind::Integer);
        let has_length = matches!(
            setting.kind,
            SettingKind::Text
                | SettingKind::Multiline
                | SettingKind::Code
                | SettingKind::List
                | SettingKind::MultiSelect
        );
        let has_pattern = matches!(
            setting.kind,
            SettingKind::Text | SettingKind::Multiline | SettingKind::List
        );
        for (member, fits) in [
            ("min", is_number),
            ("max", is_number),
            ("minLength", has_length),
            ("maxLength", has_length),
            ("pattern", has_pattern),
        ] {
            if !fits && at.get(member).is_some() {
                let message = format!("a setting of this kind has no `{member}`");
                self.add(at.pointer(member), "bad_bound", message, "leave it out");
            }
        }
        let crossed = setting.min.zip(setting.max).is_some_and(|(min, max)| min > max)
            || setting
                .min_length
                .zip(setting.max_length)
                .is_some_and(|(min, max)| min > max);
        if crossed {
            let message = "the lower bound is above the upper one".to_owned();
            self.add(at.pointer, "bad_bound", message, "swap them");
        }
        if let Some(error) = setting.pattern.as_deref().and_then(|pattern| compile(pattern).err()) {
            let message = format!("the pattern can't be used: {error}");
            let hint = "use a pattern without look-around and back-references";
            self.add(at.pointer("pattern"), "bad_pattern", message, hint);
            return;
        }
        let Some(default) = &setting.default else { return };
        if setting.kind == SettingKind::Secret {
            let message = "a secret has no default: every organization has secrets of its own".to_owned();
            self.add(at.pointer("default"), "bad_default", message, "leave `default` out");
        } else if let Err(wrong) = check_setting(setting, default) {
            let message = format!("the default doesn't fit: {wrong}");
            self.add(
                at.pointer("default"),
                "bad_default",
                message,
                "give a default that the setting takes",
            );
        }
    }

    fn timeout(&mut self, at: &At<'_>) -> f64 {
        let seconds = self.read::<f64>(at, "timeoutSeconds", "a number of seconds");
        if seconds.is_some_and(|seconds| !(0.001..=MAX_TIMEOUT).contains(&seconds)) {
            let message = format!("`timeoutSeconds` must be from 0.001 to {MAX_TIMEOUT}");
            self.add(
                "/timeoutSeconds",
                "out_of_range",
                message,
                "write a number of seconds within that",
            );
        }
        seconds.unwrap_or(300.0)
    }

    fn limits(&mut self, at: &At<'_>, ceilings: &Limits) -> DeclaredLimits {
        let Some(value) = at.get("limits") else {
            return DeclaredLimits::default();
        };
        let limits: DeclaredLimits = match serde_json::from_value(value.clone()) {
            Ok(limits) => limits,
            Err(error) => {
                let hint = "write whole numbers for `cpu_seconds`, `memory_mib`, `open_files`, `processes`, `threads`, `disk_mib` or \
                            `disk_files`";
                self.add(
                    "/limits",
                    "wrong_type",
                    format!("the limits can't be read: {error}"),
                    hint,
                );
                return DeclaredLimits::default();
            }
        };
        for (limit, declared, allowed) in limits.above(ceilings) {
            let message = format!("`{limit}` is {declared}, and at most {allowed} is allowed here");
            let hint = "declare less, or have the operator raise the setting (`WEFT_STEP_…` in docs/env-vars.md)";
            self.add(format!("/limits/{limit}"), "limit_above_ceiling", message, hint);
        }
        limits
    }

    fn hosts(&mut self, at: &At<'_>) -> Vec<String> {
        let hosts: Vec<String> = self.read(at, "network", "a list of hosts").unwrap_or_default();
        if hosts.len() > MAX_HOSTS {
            self.wrong_type("/network".to_owned(), &format!("a list of at most {MAX_HOSTS} hosts"));
        } else if let Some(error) = bad_host(&hosts) {
            self.add(
                "/network",
                "bad_host",
                error,
                "write hosts as `api.example.com` or `*.example.com`",
            );
        }
        hosts
    }

    fn secrets(&mut self, at: &At<'_>) -> Vec<SecretName> {
        let names: Vec<SecretName> = self
            .read(at, "secrets", "a list of names of secrets")
            .unwrap_or_default();
        if names.len() > MAX_SECRETS {
            self.wrong_type("/secrets".to_owned(), &format!("a list of at most {MAX_SECRETS} names"));
        }
        names
    }

    /// What goes across members.
    fn whole(&mut self, document: &NodeDocument) {
        if matches!(document.body, NodeBody::Function(_)) {
            let names: BTreeSet<&str> = document.inputs.iter().map(|port| port.name.as_str()).collect();
            for (index, setting) in document.settings.iter().enumerate() {
                if names.contains(setting.name.as_str()) {
                    let message = format!(
                        "`{}` is an input as well, and the function takes both by name",
                        setting.name
                    );
                    self.add(
                        format!("/settings/{index}/name"),
                        "duplicate_name",
                        message,
                        "give it another name",
                    );
                }
            }
        } else if document.trust == Trust::Restricted && !document.network.is_empty() {
            let message = "restricted code has no network".to_owned();
            let hint = "leave `network` out, or set `trust` to `trusted`, for which it takes a platform administrator";
            self.add("/network", "network_not_allowed", message, hint);
        }
    }
}

// ── values ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A value of a setting as the code gets it.
///
/// # Errors
/// In words, when it doesn't fit.
pub fn check_setting(setting: &Setting, value: &Value) -> Result<Value, String> {
    let long = |length: usize, unit: &str| {
        let length = length as u64;
        match (setting.min_length, setting.max_length) {
            (Some(least), _) if length < least => Err(format!("it has {length} {unit}, and needs {least}")),
            (_, Some(most)) if length > most => Err(format!("it has {length} {unit}, and may have {most}")),
            _ => Ok(()),
        }
    };
    let matches = |text: &str| match setting.pattern.as_deref().map(compile) {
        Some(Ok(pattern)) if !pattern.is_match(text) => {
            Err(format!("`{text:.60}` doesn't match `{}`", pattern.as_str()))
        }
        _ => Ok(()),
    };
    let chosen = |value: &Value| {
        // What a data provider offers is for forms: it may be something else by now.
        if setting.options.from().is_some() {
            return match value {
                Value::Object(_) | Value::Array(_) | Value::Null => Err("it must be a single value".to_owned()),
                _ => Ok(()),
            };
        }
        if setting.options.listed().iter().any(|option| option.value == *value) {
            return Ok(());
        }
        let options = setting
            .options
            .listed()
            .iter()
            .take(12)
            .map(|option| option.value.to_string());
        Err(format!("it must be one of {}", options.collect::<Vec<_>>().join(", ")))
    };
    let need = |what: &str| Err(format!("it must be {what}"));
    match setting.kind {
        SettingKind::Text | SettingKind::Multiline | SettingKind::Code | SettingKind::Expression => {
            let Some(text) = value.as_str() else {
                return need("a text");
            };
            if setting.kind == SettingKind::Text && text.contains('\n') {
                return need("one line of text");
            }
            long(text.chars().count(), "characters")?;
            matches(text)?;
        }
        SettingKind::Number | SettingKind::Integer => {
            let Some(number) = value.as_f64() else {
                return need("a number");
            };
            if setting.kind == SettingKind::Integer && number.fract() != 0.0 {
                return need("a whole number");
            }
            if let Some(least) = setting.min.filter(|least| number < *least) {
                return need(&format!("at least {least}"));
            }
            if let Some(most) = setting.max.filter(|most| number > *most) {
                return need(&format!("at most {most}"));
            }
            if setting.kind == SettingKind::Integer && value.is_f64() && number.abs() < 9e15 {
                #[expect(clippy::cast_possible_truncation, reason = "whole and within 53 bits")]
                return Ok(json!(number as i64));
            }
        }
        SettingKind::Boolean if !value.is_boolean() => return need("`true` or `false`"),
        SettingKind::Select => chosen(value)?,
        SettingKind::MultiSelect | SettingKind::List => {
            let Some(items) = value.as_array() else {
                return need("a list");
            };
            long(items.len(), "items")?;
            for (index, item) in items.iter().enumerate() {
                let fits = if setting.kind == SettingKind::MultiSelect {
                    chosen(item)
                } else if item.is_object() || item.is_array() || item.is_null() {
                    Err("it must be a single value".to_owned())
                } else {
                    item.as_str().map_or(Ok(()), matches)
                };
                fits.map_err(|wrong| format!("item {index}: {wrong}"))?;
            }
            let twice = items
                .iter()
                .enumerate()
                .any(|(index, item)| items[..index].contains(item));
            if twice && setting.kind == SettingKind::MultiSelect {
                return need("a list without anything twice");
            }
        }
        SettingKind::Date if !value.as_str().is_some_and(is_date) => return need("a day, as `2026-11-29`"),
        SettingKind::File => return crate::domain::PortType::File.check(value),
        SettingKind::Secret if value.as_str().is_none_or(|name| name.parse::<SecretName>().is_err()) => {
            return need("the name of a secret");
        }
        _ => {}
    }
    Ok(value.clone())
}

/// Whether a text is a day that the calendar has.
fn is_date(text: &str) -> bool {
    let number = |range: std::ops::Range<usize>| text.get(range).and_then(|part| part.parse::<u32>().ok());
    let shaped = text.bytes().enumerate().all(|(at, byte)| match at {
        4 | 7 => byte == b'-',
        _ => byte.is_ascii_digit(),
    });
    let (Some(year), Some(month), Some(day)) = (number(0..4), number(5..7), number(8..10)) else {
        return false;
    };
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if is_leap => 29,
        2 => 28,
        _ => 0,
    };
    text.len() == 10 && shaped && (1..=days).contains(&day)
}

/// What comes to a port as the code gets it.
///
/// # Errors
/// In words, when it doesn't fit.
pub(super) fn check_port(port: &Port, value: &Value) -> Result<Value, String> {
    if !port.multiple {
        return port.kind.check(value);
    }
    let Some(items) = value.as_array() else {
        return Err("it takes several values, so it must be a list".to_owned());
    };
    let items = items
        .iter()
        .enumerate()
        .map(|(index, item)| port.kind.check(item).map_err(|wrong| format!("item {index}: {wrong}")));
    items.collect::<Result<Vec<_>, _>>().map(Value::Array)
}

/// What `run` is given, checked: an object with `inputs` and `settings`, in both of which what is null is left out.
///
/// # Errors
/// One finding for each mistake.
pub fn check_values(document: &NodeDocument, given: &Value) -> Result<Value, Vec<Finding>> {
    let mut findings = Vec::new();
    let empty = Map::new();
    let of = |member: &str| given.get(member).and_then(Value::as_object).unwrap_or(&empty);
    let (mut inputs, mut settings) = (Map::new(), Map::new());
    let mut unknown = |member: &str, known: Vec<&str>| {
        for name in of(member).keys().filter(|name| !known.contains(&name.as_str())) {
            let message = format!("there is no {} `{name:.60}`", member.trim_end_matches('s'));
            let hint = match nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if known.is_empty() => format!("`{}` has no {member}", document.named()),
                None => format!("there is `{}`", known.join("`, `")),
            };
            findings.push(Finding::new(format!("/{member}/{name:.60}"), "unknown_argument", message).hint(hint));
        }
    };
    unknown(
        "inputs",
        document.inputs.iter().map(|port| port.name.as_str()).collect(),
    );
    unknown(
        "settings",
        document.settings.iter().map(|setting| setting.name.as_str()).collect(),
    );
    let mut take = |member: &str,
                    name: &str,
                    required: bool,
                    value: Option<Result<Value, String>>,
                    into: &mut Map<String, Value>| {
        let pointer = format!("/{member}/{name}");
        match value {
            Some(Ok(value)) => {
                into.insert(name.to_owned(), value);
            }
            Some(Err(wrong)) => findings.push(Finding::new(pointer, "invalid", format!("`{name}`: {wrong}"))),
            None if required => {
                let message = format!("`{name}` of `{member}` is missing");
                findings.push(Finding::new(pointer, "required", message));
            }
            None => {}
        }
    };
    for port in &document.inputs {
        let value = of("inputs").get(&port.name).filter(|value| !value.is_null());
        let value = value.map(|value| check_port(port, value));
        take("inputs", &port.name, port.required, value, &mut inputs);
    }
    for setting in &document.settings {
        let value = of("settings").get(&setting.name).filter(|value| !value.is_null());
        let value = value
            .or(setting.default.as_ref())
            .map(|value| check_setting(setting, value));
        take("settings", &setting.name, setting.required, value, &mut settings);
    }
    if findings.is_empty() {
        Ok(json!({"inputs": inputs, "settings": settings}))
    } else {
        Err(findings)
    }
}

/// What `run` has returned, against the outputs that are declared; without any it is whatever it is.
///
/// # Errors
/// In words, with everything that doesn't fit.
pub fn check_outputs(document: &NodeDocument, value: &Value) -> Result<(), String> {
    let mut wrong = Vec::new();
    for port in &document.outputs {
        let of_port = if port.whole { Some(value) } else { value.get(&port.name) };
        // Nothing need come out of it.
        if let Some(Err(error)) = of_port
            .filter(|value| !value.is_null())
            .map(|value| port.kind.check(value))
        {
            wrong.push(format!("output `{}`: {error}", port.name));
        }
    }
    let has_members = document.outputs.iter().any(|port| !port.whole);
    if has_members && !value.is_object() {
        let names: Vec<_> = document.outputs.iter().map(|port| format!("`{}`", port.name)).collect();
        wrong.push(format!("`run` must return an object with {}", names.join(", ")));
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(written: Value) -> Result<NodeDocument, Vec<Finding>> {
        let Value::Object(written) = written else {
            panic!("an object")
        };
        parse_document(&"shout".parse().unwrap(), &written, &Limits::default())
    }

    fn codes(written: Value) -> Vec<(String, String)> {
        let findings = parse(written).expect_err("something is wrong");
        findings.into_iter().map(|f| (f.pointer, f.code)).collect()
    }

    fn good() -> Value {
        json!({
            "version": "1.0.0",
            "title": "Shout",
            "inputs": [{"name": "text", "type": "string", "required": true}, {"name": "more", "type": "integer", "multiple": true}],
            "outputs": [{"name": "text", "type": "string"}],
            "settings": [
                {"name": "end", "default": "!", "maxLength": 3},
                {"name": "times", "kind": "integer", "min": 1, "max": 3, "default": 1},
                {"name": "mood", "kind": "select", "options": ["glad", {"value": "sad", "label": "Sad"}]},
                {"name": "tags", "kind": "multi_select", "options": ["a", "b"]},
                {"name": "day", "kind": "date"},
                {"name": "token", "kind": "secret"},
                {"name": "words", "kind": "list", "pattern": "[a-z]+"},
            ],
            "code": "def run(ctx, inputs, settings):\n    return {}\n",
        })
    }

    #[test]
    fn a_version_is_read_and_names_its_bytes() {
        let document = parse(good()).unwrap();
        assert_eq!(document.named().to_string(), "shout@1.0.0");
        let again: NodeDocument = serde_json::from_slice(&document.to_bytes()).unwrap();
        assert_eq!(again, document);
        assert_eq!(again.digest(), document.digest());
        let mut other = good();
        other["code"] = json!("def run(ctx, inputs, settings):\n    return {1}\n");
        assert_ne!(parse(other).unwrap().digest(), document.digest());
    }

    #[test]
    fn every_mistake_is_found_at_once() {
        let found = codes(json!({
            "name": "other",
            "version": "1.x",
            "titel": "Shout",
            "inputs": [{"name": "Text"}, {"name": "a", "type": "strnig"}, {"name": "a"}, 7],
            "outputs": [{"name": "all", "whole": true}, {"name": "b"}],
            "settings": [
                {"name": "a", "kind": "selct"},
                {"name": "b", "kind": "select"},
                {"name": "c", "kind": "integer", "min": 5, "max": 1, "default": 3},
                {"name": "d", "pattern": "(?=x)"},
                {"name": "e", "kind": "secret", "default": "hunter2"},
                {"name": "f", "kind": "number", "minLength": 1},
            ],
            "async": "yes",
            "timeoutSeconds": 0,
            "limits": {"memory_mib": 100_000},
            "network": ["api.example.com"],
            "secrets": ["a b"],
        }));
        let expected = [
            ("/titel", "unknown_member"),
            ("/name", "wrong_name"),
            ("/version", "bad_version"),
            ("/code", "missing_member"),
            ("/settings/0/kind", "not_one_of"),
            ("/settings/1/options", "bad_options"),
            ("/settings/2", "bad_bound"),
            ("/settings/2/default", "bad_default"),
            ("/settings/3/pattern", "bad_pattern"),
            ("/settings/4/default", "bad_default"),
            ("/settings/5/minLength", "bad_bound"),
            ("/inputs/0/name", "bad_name"),
            ("/inputs/1/type", "wrong_type"),
            ("/inputs/2/name", "duplicate_name"),
            ("/inputs/3", "wrong_type"),
            ("/outputs", "whole_of_several"),
            ("/async", "wrong_type"),
            ("/timeoutSeconds", "out_of_range"),
            ("/limits/memory_mib", "limit_above_ceiling"),
            ("/secrets", "wrong_type"),
            ("/network", "network_not_allowed"),
        ];
        assert_eq!(found, expected.map(|(p, c)| (p.to_owned(), c.to_owned())));
    }

    #[test]
    fn values_are_checked_and_defaults_filled_in() {
        let document = parse(good()).unwrap();
        let given = json!({
            "inputs": {"text": "a", "more": [1, 2.0]},
            "settings": {"mood": "sad", "tags": ["b"], "day": "2024-02-29", "token": "API_KEY", "words": ["a", "b"], "times": 2.0},
        });
        assert_eq!(
            check_values(&document, &given).unwrap(),
            json!({
                "inputs": {"text": "a", "more": [1, 2]},
                "settings": {"end": "!", "times": 2, "mood": "sad", "tags": ["b"], "day": "2024-02-29", "token": "API_KEY", "words": ["a", "b"]},
            })
        );
        let given = json!({
            "inputs": {"txet": 1, "more": [1, "x"]},
            "settings": {
                "end": "!!!!", "times": 9, "mood": "bad", "tags": ["a", "a"], "day": "2026-02-29", "token": "a b", "words": ["A"],
            },
        });
        let found: Vec<_> = check_values(&document, &given)
            .unwrap_err()
            .into_iter()
            .map(|finding| finding.pointer)
            .collect();
        assert_eq!(
            found,
            [
                "/inputs/txet",
                "/inputs/text",
                "/inputs/more",
                "/settings/end",
                "/settings/times",
                "/settings/mood",
                "/settings/tags",
                "/settings/day",
                "/settings/token",
                "/settings/words",
            ]
        );
    }

    #[test]
    fn outputs_are_members_or_all() {
        let mut document = parse(good()).unwrap();
        assert!(check_outputs(&document, &json!({"text": "a", "other": 1})).is_ok());
        assert!(check_outputs(&document, &json!({})).is_ok());
        assert!(
            check_outputs(&document, &json!({"text": 1}))
                .unwrap_err()
                .contains("`text`")
        );
        assert!(check_outputs(&document, &json!("a")).unwrap_err().contains("an object"));
        document.outputs[0].whole = true;
        assert!(check_outputs(&document, &json!("a")).is_ok());
        document.outputs.clear();
        assert!(check_outputs(&document, &json!([1])).is_ok());
    }
}
