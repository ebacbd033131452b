//! Nodes of type `file`: which members go with what they do, and whether what is written as content fits the format.

use serde_json::Value;

use super::members::{Object, Reader};
use crate::definition::expression;
use crate::definition::graph::shown;
use crate::domain::{FileAction, FileFormat, NodeWork, PortType};

/// What only a node of this type has.
pub(super) const MEMBERS: &[&str] = &[
    "action",
    "format",
    "content",
    "name",
    "mediaType",
    "store",
    "file",
    "header",
    "delimiter",
];

impl Reader {
    pub(super) fn file(&mut self, object: &Object<'_>) -> NodeWork {
        if object.get("action").is_none() {
            self.missing(object, "action", "`write` or `read`");
        }
        let action = self.choice(object, "action", &["write", "read"]);
        let formats: &[&str] = match action {
            Some(FileAction::Write) => &["text", "base64", "json"],
            _ => &["text", "base64", "json", "csv"],
        };
        let format: FileFormat = self.choice(object, "format", formats).unwrap_or_default();
        let (of_write, of_read) = (
            ["content", "name", "mediaType", "store"],
            ["file", "header", "delimiter"],
        );
        let strange: &[&str] = match action {
            Some(FileAction::Write) => &of_read,
            Some(FileAction::Read) if format == FileFormat::Csv => &of_write,
            Some(FileAction::Read) => &["content", "name", "mediaType", "store", "header", "delimiter"],
            None => &[],
        };
        for name in strange.iter().filter(|name| object.members.contains_key(**name)) {
            let message = format!("`{name}` of {} is of no use with what it does", object.what);
            let hint = "`content`, `name`, `mediaType` and `store` are of `write`, `file` of `read`, `header` and `delimiter` of \
                        `read` with `csv`";
            self.add(object.pointer(name), "unknown_member", message, hint);
        }
        let (mut content, mut name, mut file) = (None, None, None);
        let is_fed = |reader: &Self, name: &str| reader.is_fed(object, name);
        match action {
            Some(FileAction::Write) => {
                let written = self.needed_value(object, "content", "what is in the file: a value");
                content = (!is_fed(self, "content") && object.members.contains_key("content")).then_some(written);
                self.fits(object, "content", content.as_ref(), format);
                let written = self.needed_value(object, "name", "the file's name, as `report.json`");
                if !(written.is_string() || expression::marked(&written).is_some())
                    && object.members.contains_key("name")
                {
                    self.wrong_type(object, "name", "a text");
                }
                name = Some(written);
            }
            Some(FileAction::Read) => {
                let written = self.needed_value(object, "file", "a file, as `{\"$\": \"inputs.upload\"}`");
                let is_there = !is_fed(self, "file") && object.members.contains_key("file");
                if is_there && expression::expressions(&written).is_empty() && PortType::File.check(&written).is_err() {
                    self.wrong_type(
                        object,
                        "file",
                        "a file: `{\"data\": …}`, or an expression that gives one",
                    );
                }
                file = is_there.then_some(written);
            }
            None => {}
        }
        NodeWork::File {
            action: action.unwrap_or_default(),
            format,
            content,
            name,
            media_type: self.media_type(object),
            store: self.choice(object, "store", &["artifact", "inline"]),
            file,
            header: match object.get("header") {
                None => None,
                Some(Value::Bool(header)) => Some(*header),
                Some(_) => {
                    self.wrong_type(object, "header", "`true` or `false`");
                    None
                }
            },
            delimiter: self.delimiter(object),
        }
    }

    /// What is written as the content of a file must be what the format takes; what is worked out is looked at then.
    fn fits(&mut self, object: &Object<'_>, name: &str, value: Option<&Value>, format: FileFormat) {
        let Some(value) = value.filter(|value| expression::expressions(value).is_empty()) else {
            return;
        };
        if let Err(wrong) = format.port().check(value) {
            let message = format!("`{name}` of {} is not what its `format` takes: {wrong}", object.what);
            let hint = "write what it takes; `\"format\": \"json\"` takes any value";
            self.add(object.pointer(name), "wrong_type", message, hint);
        }
    }

    fn media_type(&mut self, object: &Object<'_>) -> Option<String> {
        let text = self.text(object, "mediaType")?;
        let is_one = text.len() <= 100
            && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
            && text
                .split_once('/')
                .is_some_and(|(kind, rest)| !kind.is_empty() && !rest.is_empty() && !kind.contains(' '));
        if !is_one {
            let message = format!("`{}` can't be a media type", shown(&text));
            let hint = "write one as `text/csv`, of up to 100 characters";
            self.add(object.pointer("mediaType"), "bad_name", message, hint);
        }
        Some(text)
    }

    fn delimiter(&mut self, object: &Object<'_>) -> Option<String> {
        let text = self.text(object, "delimiter")?;
        let is_one = text.chars().count() == 1 && !text.contains(['"', '\r', '\n', '\0', '\u{feff}']);
        if !is_one {
            self.wrong_type(
                object,
                "delimiter",
                "one character, as `;`, and no quote or end of a line",
            );
        }
        Some(text)
    }
}
