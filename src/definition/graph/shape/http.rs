//! Nodes of type `http`: the request, the host that it goes to, and the secret on it.

use serde_json::{Map, Value};

use super::members::{Object, Reader};
use crate::definition::expression::{self, Marked};
use crate::definition::graph::{escaped, shown};
use crate::domain::NodeWork;

/// What only a node of this type has.
pub(super) const MEMBERS: &[&str] = &["method", "url", "query", "headers", "body", "expect", "network"];

impl Reader {
    pub(super) fn http(&mut self, object: &Object<'_>) -> NodeWork {
        let methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        let url = self.needed_value(object, "url", "an address, as `https://api.example.com/orders`");
        let mut network = self.hosts(object);
        if let Some(host) = self.host_of(object, &url)
            && !network.contains(&host)
        {
            // What stands in the file is what is declared.
            network.push(host);
        }
        match &url {
            Value::String(_) => {}
            other if expression::marked(other).is_some() => self.hosts_needed(object, &network),
            _ if !object.members.contains_key("url") && !self.is_fed(object, "url") => {}
            Value::Null if self.is_fed(object, "url") => self.hosts_needed(object, &network),
            _ => self.wrong_type(object, "url", "a text"),
        }
        let expect = match object.get("expect") {
            None => Vec::new(),
            Some(value) => {
                let statuses = serde_json::from_value::<Vec<u16>>(value.clone()).ok();
                let statuses = statuses.filter(|all| all.iter().all(|one| (100..=599).contains(one)));
                if statuses.is_none() {
                    self.wrong_type(object, "expect", "a list of statuses, each from 100 to 599");
                }
                statuses.unwrap_or_default()
            }
        };
        NodeWork::Http {
            method: self
                .choice(object, "method", &methods)
                .unwrap_or_else(|| "GET".to_owned()),
            url,
            query: self.values(object, "query"),
            headers: self.headers(object),
            body: object.get("body").cloned(),
            expect,
            network,
        }
    }

    /// The headers of a request: one of them may be a secret, which the engine puts on it.
    fn headers(&mut self, object: &Object<'_>) -> Map<String, Value> {
        let headers = self.values(object, "headers");
        let mut secrets = 0;
        for (name, value) in &headers {
            let at = format!("{}/{}", object.pointer("headers"), escaped(name));
            let hows: &[&str] = if name.eq_ignore_ascii_case("authorization") {
                &["bearer", "basic"]
            } else {
                &[]
            };
            if !self.secret(object, "headers", name, value, hows) {
                continue;
            }
            secrets += 1;
            let is_name = (1..=64).contains(&name.len())
                && name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
            if !is_name {
                let message = format!("`{}` can't be a header with a secret", shown(name));
                self.add(at, "bad_name", message, "write letters, digits, `-` and `_`");
            } else if secrets == 2 {
                let message = format!(
                    "{} has two headers that are secrets, and a request takes one",
                    object.what
                );
                self.add(
                    at,
                    "too_many",
                    message,
                    "make the request in a Python step, by `ctx.secrets.get`",
                );
            }
        }
        headers
    }

    /// The host that stands in an address as it is written, with its port where it has one.
    fn host_of(&mut self, object: &Object<'_>, url: &Value) -> Option<String> {
        let written = match (url, expression::marked(url)) {
            (Value::String(text), _) => text.as_str(),
            // What is worked out behind the host can't change it.
            (_, Some(Marked::Template(text))) => {
                let before = text.split('{').next().unwrap_or_default();
                let behind = before.split_once("://").map_or("", |(_, behind)| behind);
                if !behind.contains('/') {
                    return None;
                }
                before
            }
            _ => return None,
        };
        let address = written.parse::<url::Url>().ok();
        let address = address.filter(|address| matches!(address.scheme(), "http" | "https"));
        let host = address
            .as_ref()
            .and_then(|address| Some((address, address.host_str()?)));
        let Some((address, host)) = host else {
            self.wrong_type(object, "url", "an address that begins with `https://` or `http://`");
            return None;
        };
        Some(match address.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        })
    }

    /// The host of a request that is worked out must be one of those that are declared.
    fn hosts_needed(&mut self, object: &Object<'_>, network: &[String]) {
        if network.is_empty() {
            let message = format!(
                "the host of {} is worked out, so `network` must say which there may be",
                object.what
            );
            self.add(
                object.pointer("network"),
                "missing_member",
                message,
                "write `\"network\": [\"api.example.com\"]`",
            );
        }
    }
}
