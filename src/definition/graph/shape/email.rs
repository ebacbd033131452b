//! Nodes of type `email`: the mail server, what it is told of who sends, and the message.

use serde_json::Value;

use super::members::{Object, Reader};
use crate::definition::graph::{escaped, shown};
use crate::definition::policy::bad_host;
use crate::domain::{MESSAGE, NodeWork};

/// What only a node of this type has.
pub(super) const MEMBERS: &[&str] = &[
    "server",
    "security",
    "credentials",
    "from",
    "replyTo",
    "to",
    "cc",
    "bcc",
    "subject",
    "text",
    "html",
    "attachments",
];

impl Reader {
    pub(super) fn email(&mut self, object: &Object<'_>) -> NodeWork {
        let security: String = self
            .choice(object, "security", &["starttls", "tls", "none"])
            .unwrap_or_else(|| "starttls".to_owned());
        let mut server = self.needed_text(object, "server", "a mail server, as `smtp.example.com`");
        if object.get("server").is_some_and(Value::is_string) {
            let has_port = server
                .rsplit_once(':')
                .is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0));
            if !has_port {
                server.push_str(match security.as_str() {
                    "tls" => ":465",
                    "none" => ":25",
                    _ => ":587",
                });
            }
            let one = server.clone();
            if one.contains('*') || bad_host(&[one]).is_some() {
                let message = format!("`server` of {} is no host", object.what);
                let hint = "write a name as `smtp.example.com`, or with a port as `smtp.example.com:587`; it can't be \
                            worked out";
                self.add(object.pointer("server"), "not_one_of", message, hint);
            }
        }
        let credentials = self.values(object, "credentials");
        for (name, value) in &credentials {
            let at = || format!("{}/{}", object.pointer("credentials"), escaped(name));
            if !matches!(name.as_str(), "user" | "password") {
                let message = format!("`credentials` of {} has no `{}`", object.what, shown(name));
                self.add(at(), "unknown_member", message, "there is `user` and `password`");
            } else if !self.secret(object, "credentials", name, value, &[]) && name == "password" {
                let message = format!("the password of {} is written where everybody reads it", object.what);
                let hint = "write `{\"$secret\": \"SMTP_PASSWORD\"}`, the name of a secret of the organization";
                self.add(at(), "bad_name", message, hint);
            }
        }
        if credentials.len() == 1 {
            let other = if credentials.contains_key("user") {
                "password"
            } else {
                "user"
            };
            let message = format!("`credentials` of {} has no `{other}`", object.what);
            let hint = "give both, or none for a server that asks for none";
            self.add(object.pointer("credentials"), "missing_member", message, hint);
        }
        if security == "none" && !credentials.is_empty() {
            let message = format!(
                "{} would send its password readable by everybody on the way",
                object.what
            );
            let hint = "write `\"security\": \"starttls\"` or `\"tls\"`, or take `credentials` out";
            self.add(object.pointer("security"), "not_one_of", message, hint);
        }
        for (name, expected) in [
            ("from", "an address, as `Reports <reports@example.com>`"),
            ("to", "an address, or a list of them"),
            ("subject", "a text"),
        ] {
            self.needed_value(object, name, expected);
        }
        if !["text", "html"]
            .iter()
            .any(|name| object.members.contains_key(*name) || self.is_fed(object, name))
        {
            self.missing(object, "text", "what it says, in `text` or in `html` or in both");
        }
        let message = MESSAGE
            .iter()
            .filter_map(|name| Some(((*name).to_owned(), object.get(name)?.clone())))
            .collect();
        NodeWork::Email {
            server,
            security,
            credentials,
            message,
        }
    }
}
