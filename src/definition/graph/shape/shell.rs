//! Nodes of type `shell`: the command and what it may be made of, its variables, its folder.

use serde_json::Value;

use super::members::{Object, Reader};
use crate::definition::expression;
use crate::definition::graph::{escaped, shown};
use crate::definition::shell::{decides_what_runs, script};
use crate::domain::NodeWork;

/// What only a node of this type has.
pub(super) const MEMBERS: &[&str] = &[
    "command",
    "environment",
    "workingDirectory",
    "captureOutput",
    "expect",
    "network",
];

impl Reader {
    pub(super) fn shell(&mut self, object: &Object<'_>) -> NodeWork {
        let command = self.needed_value(
            object,
            "command",
            "a command line, or a list of a program and its arguments",
        );
        let mut compiled = None;
        match &command {
            Value::String(text) if text.trim().is_empty() => {
                self.missing(object, "command", "a command line");
            }
            Value::String(text) => match script(text) {
                Ok(read) => compiled = Some(read),
                Err(errors) => {
                    let at = object.pointer("command");
                    for error in errors {
                        self.add(at.as_str(), "shell_interpolation", error.message, error.hint);
                    }
                }
            },
            Value::Array(items) if !items.is_empty() => {}
            _ if !object.members.contains_key("command") => {}
            _ => self.wrong_type(object, "command", "a text, or a list of a program and its arguments"),
        }
        let expect = match object.get("expect") {
            None => vec![0],
            Some(value) => match serde_json::from_value::<Vec<u8>>(value.clone()) {
                Ok(codes) if !codes.is_empty() => codes,
                _ => {
                    self.wrong_type(object, "expect", "a list of exit codes, each from 0 to 255");
                    vec![0]
                }
            },
        };
        let working_directory = self.text(object, "workingDirectory");
        if let Some(folder) = &working_directory
            && (folder.starts_with('/') || folder.split('/').any(|part| part == ".."))
        {
            let message = format!("`workingDirectory` of {} leads out of the step's folder", object.what);
            let hint = "name a folder below the step's own; a step begins with an empty one";
            self.add(object.pointer("workingDirectory"), "out_of_range", message, hint);
        }
        let capture_output = match object.get("captureOutput") {
            None => true,
            Some(Value::Bool(captures)) => *captures,
            Some(_) => {
                self.wrong_type(object, "captureOutput", "`true` or `false`");
                true
            }
        };
        let environment = self.values(object, "environment");
        for (name, value) in &environment {
            self.secret(object, "environment", name, value, &[]);
            if decides_what_runs(name) && !expression::expressions(value).is_empty() {
                let message =
                    format!("the value of `{name}`, from which programs take what they run, would be worked out");
                let hint = "write that value, and choose between values with `when`";
                let at = format!("{}/{}", object.pointer("environment"), escaped(name));
                self.add(at, "shell_interpolation", message, hint);
            }
            let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !is_name {
                let message = format!("`{}` can't be the name of a variable", shown(name));
                let hint = "begin with a letter, and write letters, digits and `_`";
                let at = format!("{}/{}", object.pointer("environment"), escaped(name));
                self.add(at, "bad_name", message, hint);
            }
        }
        NodeWork::Shell {
            command,
            script: compiled,
            environment,
            working_directory,
            capture_output,
            expect,
            network: self.hosts(object),
        }
    }
}
