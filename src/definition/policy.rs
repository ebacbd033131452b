//! A policy as somebody wrote it → a policy, or everything that is wrong with it.

use serde_json::{Map, Value};

use crate::domain::{HostPattern, HostSet, LimitCeilings, NetworkMode, Policy, SecurityProfile, Tier, Trust, modules};
use crate::error::Finding;

/// Most entries of a list.
const MAX_LIST: usize = 500;
/// Most bytes of a policy as JSON; it is one value of one row.
pub const MAX_BYTES: usize = 30_000;

/// Reads a policy. What is missing is as in `base`.
///
/// # Errors
/// One finding for each mistake; the pointer leads into the policy.
pub fn parse_policy(written: &Map<String, Value>, base: Policy) -> Result<Policy, Vec<Finding>> {
    let mut reader = Reader { findings: Vec::new() };
    let mut policy = base;
    for (name, value) in written {
        match name.as_str() {
            "trust" => reader.choice(
                "/trust",
                value,
                &[Trust::Restricted, Trust::Trusted].map(|t| (t.as_str(), t)),
                &mut policy.trust,
            ),
            "network" => reader.object("/network", value, |reader, name, pointer, value| {
                let network = &mut policy.network;
                match name {
                    "mode" => {
                        let modes =
                            [NetworkMode::None, NetworkMode::Allowlist, NetworkMode::Open].map(|m| (m.as_str(), m));
                        reader.choice(pointer, value, &modes, &mut network.mode);
                    }
                    "domains" => reader.hosts(pointer, value, &mut network.domains),
                    "openGranted" => match value {
                        Value::Bool(granted) => network.open_granted = *granted,
                        _ => reader.wrong_type(pointer, "`true` or `false`"),
                    },
                    _ => reader.unknown(pointer, &["mode", "domains", "openGranted"]),
                }
            }),
            "modules" => reader.object("/modules", value, |reader, name, pointer, value| match name {
                "allow" => reader.optional_modules(pointer, value, &mut policy.modules.allow),
                "deny" => reader.modules(pointer, value, &mut policy.modules.deny),
                _ => reader.unknown(pointer, &["allow", "deny"]),
            }),
            "restrictedModules" => {
                reader.optional_modules("/restrictedModules", value, &mut policy.restricted_modules);
            }
            "minimum" => {
                let tiers = [Tier::Process, Tier::Confined, Tier::Namespaces].map(|tier| (tier.as_str(), tier));
                reader.choice("/minimum", value, &tiers, &mut policy.minimum);
            }
            "profile" if value.is_null() => policy.profile = None,
            "profile" => {
                let profiles = SecurityProfile::ALL.map(|profile| (profile.as_str(), Some(profile)));
                reader.choice("/profile", value, &profiles, &mut policy.profile);
            }
            "artifactBytes" if value.is_null() => policy.artifact_bytes = None,
            "artifactBytes" => match value.as_u64().filter(|bytes| i64::try_from(*bytes).is_ok()) {
                Some(bytes) => policy.artifact_bytes = Some(bytes),
                None => reader.wrong_type(
                    "/artifactBytes",
                    "a whole number of bytes; leave it out for no quota of its own",
                ),
            },
            "limits" => reader.object("/limits", value, |reader, name, pointer, value| {
                if !LimitCeilings::NAMES.contains(&name) {
                    return reader.unknown(pointer, LimitCeilings::NAMES);
                }
                match value.as_u64().filter(|ceiling| *ceiling > 0) {
                    Some(ceiling) => {
                        policy.limits.set(name, ceiling);
                    }
                    None => reader.wrong_type(pointer, "a whole number from 1; leave it out for no ceiling"),
                }
            }),
            other => reader.unknown(
                &format!("/{}", escaped(other)),
                &[
                    "trust",
                    "network",
                    "modules",
                    "restrictedModules",
                    "minimum",
                    "limits",
                    "profile",
                    "artifactBytes",
                ],
            ),
        }
    }
    let bytes = serde_json::to_vec(&policy).map_or(0, |text| text.len());
    if bytes > MAX_BYTES {
        let message = format!("the policy has {bytes} bytes and may have {MAX_BYTES}");
        reader.findings.push(
            Finding::new("", "too_large", message)
                .hint("write fewer, wider names: `*.example.com` instead of each host"),
        );
    }
    if reader.findings.is_empty() {
        Ok(policy)
    } else {
        Err(reader.findings)
    }
}

/// A declared host that is none, with the reason.
pub(super) fn bad_host(hosts: &[String]) -> Option<String> {
    hosts
        .iter()
        .find_map(|host| host.parse::<HostPattern>().err().map(|error| error.to_string()))
}

struct Reader {
    findings: Vec<Finding>,
}

impl Reader {
    fn wrong_type(&mut self, pointer: &str, expected: &str) {
        let message = format!(
            "`{}` must be {expected}",
            pointer.trim_start_matches('/').replace('/', ".")
        );
        self.findings.push(Finding::new(pointer, "wrong_type", message));
    }

    fn unknown(&mut self, pointer: &str, known: &[&str]) {
        let name = pointer.rsplit('/').next().unwrap_or_default();
        let known: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
        let finding = Finding::new(pointer, "unknown_member", format!("a policy has no `{name}` here"));
        self.findings
            .push(finding.hint(format!("there are {}", known.join(", "))));
    }

    fn object(&mut self, pointer: &str, value: &Value, mut member: impl FnMut(&mut Self, &str, &str, &Value)) {
        let Value::Object(members) = value else {
            return self.wrong_type(pointer, "an object");
        };
        for (name, value) in members {
            member(self, name, &format!("{pointer}/{}", escaped(name)), value);
        }
    }

    fn choice<T: Copy>(&mut self, pointer: &str, value: &Value, choices: &[(&str, T)], into: &mut T) {
        let found = value
            .as_str()
            .and_then(|text| choices.iter().find(|(name, _)| *name == text));
        match found {
            Some((_, choice)) => *into = *choice,
            None => {
                let names: Vec<_> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
                self.wrong_type(pointer, &format!("one of {}", names.join(", ")));
            }
        }
    }

    fn list(
        &mut self,
        pointer: &str,
        value: &Value,
        mut check: impl FnMut(&str) -> Result<(), String>,
    ) -> Option<Vec<String>> {
        let Value::Array(items) = value else {
            self.wrong_type(pointer, "a list of texts");
            return None;
        };
        if items.len() > MAX_LIST {
            let message = format!("the list has {} entries and may have {MAX_LIST}", items.len());
            self.findings.push(Finding::new(pointer, "too_large", message));
            return None;
        }
        let before = self.findings.len();
        let mut list = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let pointer = format!("{pointer}/{index}");
            match item.as_str() {
                None => self.wrong_type(&pointer, "a text"),
                Some(text) => match check(text) {
                    Ok(()) => list.push(text.to_owned()),
                    Err(message) => self.findings.push(Finding::new(pointer, "invalid", message)),
                },
            }
        }
        (self.findings.len() == before).then_some(list)
    }

    fn hosts(&mut self, pointer: &str, value: &Value, into: &mut Vec<String>) {
        let check = |text: &str| text.parse::<HostPattern>().map(drop).map_err(|error| error.to_string());
        if let Some(list) = self.list(pointer, value, check) {
            *into = HostSet::of(&list).patterns();
        }
    }

    fn modules(&mut self, pointer: &str, value: &Value, into: &mut Vec<String>) {
        let check = |text: &str| {
            modules::is_name(text)
                .then_some(())
                .ok_or_else(|| format!("`{}` names no module", text.chars().take(60).collect::<String>()))
        };
        if let Some(list) = self.list(pointer, value, check) {
            *into = modules::meet(&list, &list);
        }
    }

    fn optional_modules(&mut self, pointer: &str, value: &Value, into: &mut Option<Vec<String>>) {
        if value.is_null() {
            *into = None;
            return;
        }
        let mut list = Vec::new();
        self.modules(pointer, value, &mut list);
        *into = Some(list);
    }
}

fn escaped(name: &str) -> String {
    let shown: String = name.chars().take(60).collect();
    shown.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(value: &Value) -> Result<Policy, Vec<Finding>> {
        parse_policy(value.as_object().unwrap(), Policy::default())
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(parse(&json!({})).unwrap(), Policy::default());
        let full = json!({
            "trust": "restricted",
            "network": {"mode": "allowlist", "domains": ["*.example.com", "api.example.org:8443"], "openGranted": true},
            "modules": {"allow": ["json", "re"], "deny": ["re.sub"]},
            "restrictedModules": ["json"],
            "minimum": "namespaces",
            "limits": {"wallMs": 60_000, "processes": 1},
            "profile": "restricted",
            "artifactBytes": 1_000_000,
        });
        let policy = parse(&full).unwrap();
        assert_eq!(serde_json::to_value(&policy).unwrap(), full);
        assert_eq!(serde_json::from_value::<Policy>(full).unwrap(), policy);
        // As it means: sorted, without what is said twice.
        let policy = parse(&json!({"network": {"domains": ["b.example", "a.b.example", "*.b.example"]}})).unwrap();
        assert_eq!(policy.network.domains, ["*.b.example", "b.example"]);
    }

    #[test]
    fn every_mistake_is_found_at_once() {
        let findings = parse(&json!({
            "trust": "blind",
            "network": {"mode": 1, "domains": ["https://a.example", 7, "b.example"], "open": true},
            "modules": {"allow": "json", "deny": ["a b"]},
            "minimum": null,
            "limits": {"wallMs": 0, "memory": 1},
            "profile": {},
            "artifactBytes": -1,
        }))
        .unwrap_err();
        let places: Vec<_> = findings
            .iter()
            .map(|finding| (finding.pointer.as_str(), finding.code.as_str()))
            .collect();
        assert_eq!(
            places,
            [
                ("/trust", "wrong_type"),
                ("/network/mode", "wrong_type"),
                ("/network/domains/0", "invalid"),
                ("/network/domains/1", "wrong_type"),
                ("/network/open", "unknown_member"),
                ("/modules/allow", "wrong_type"),
                ("/modules/deny/0", "invalid"),
                ("/minimum", "wrong_type"),
                ("/limits/wallMs", "wrong_type"),
                ("/limits/memory", "unknown_member"),
                ("/profile", "wrong_type"),
                ("/artifactBytes", "wrong_type"),
            ]
        );
        let many: Vec<_> = (0..501).map(|n| format!("a{n}.example")).collect();
        assert_eq!(
            parse(&json!({"network": {"domains": many}})).unwrap_err()[0].code,
            "too_large"
        );
        let long: Vec<_> = (0..200)
            .map(|n| format!("a{n}.{}.{}.{}.example", "x".repeat(60), "y".repeat(60), "z".repeat(60)))
            .collect();
        assert_eq!(
            parse(&json!({"network": {"domains": long}})).unwrap_err()[0].code,
            "too_large"
        );
    }
}
