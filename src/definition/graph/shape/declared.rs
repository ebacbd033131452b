//! What nodes declare that they need from outside: secrets of the organization by name, and hosts.

use serde_json::Value;

use super::MAX_TAGS;
use super::members::{Object, Reader};
use crate::definition::expression::{self, SECRET_MARK};
use crate::definition::graph::{escaped, shown};
use crate::definition::policy::bad_host;
use crate::domain::SecretName;

impl Reader {
    /// The name of a secret in a variable of a command or a header of a request; whether it is one.
    pub(super) fn secret(
        &mut self,
        object: &Object<'_>,
        member: &str,
        name: &str,
        value: &Value,
        hows: &[&str],
    ) -> bool {
        let Some(secret) = value.get(SECRET_MARK) else {
            return false;
        };
        let is_name = secret.as_str().is_some_and(|name| name.parse::<SecretName>().is_ok())
            // Of which parameter, and that it is one of secrets, `names.rs` looks at.
            || expression::secret_input(value).is_some();
        let others = value
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, _)| *name != SECRET_MARK);
        let are_known = others
            .clone()
            .all(|(name, how)| name == "as" && how.as_str().is_some_and(|how| hows.contains(&how)));
        if !is_name || !are_known {
            let message = format!("`{}` of `{member}` of {} names no secret", shown(name), object.what);
            let mut hint = "write `{\"$secret\": \"API_KEY\"}`, the name of a secret of the organization, or \
                            `{\"$secret\": {\"$\": \"inputs.key\"}}`"
                .to_owned();
            if !hows.is_empty() {
                hint.push_str("; as wanted with `\"as\": \"bearer\"` or `\"as\": \"basic\"`");
            }
            let at = format!("{}/{}", object.pointer(member), escaped(name));
            self.add(at, "bad_name", message, hint);
        }
        true
    }

    /// The hosts in `network`.
    pub(super) fn hosts(&mut self, object: &Object<'_>) -> Vec<String> {
        let hosts = self.texts(object, "network", MAX_TAGS).unwrap_or_default();
        if let Some(message) = bad_host(&hosts) {
            self.add(
                object.pointer("network"),
                "not_one_of",
                format!("`network` of {}: {message}", object.what),
                "write hosts as `api.example.com`, `*.example.com` or `api.example.com:8443`",
            );
        }
        hosts
    }
}
