//! The description of a bundle, as workflows and data providers by name.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::domain::{Declared, Limits, Parameter};
use crate::error::Finding;

/// Everything that one bundle offers, and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Catalog {
    /// The bundle's digest.
    pub digest: String,
    /// Workflows by name.
    pub workflows: BTreeMap<String, Declared>,
    /// Data providers by name.
    pub data_providers: BTreeMap<String, Declared>,
    /// Everything that is wrong, sorted by place. A file with a finding offers nothing: it is quarantined.
    pub findings: Vec<Finding>,
    /// How many files were looked at.
    pub files: u64,
    /// How long that took, in milliseconds.
    pub ms: f64,
}

impl Catalog {
    /// From `described` frames of the runner protocol.
    #[must_use]
    pub fn from_description(digest: &str, modules: &[Value], findings: Vec<Finding>, files: u64, ms: f64) -> Self {
        let mut catalog = Self {
            digest: digest.to_owned(),
            findings,
            files,
            ms,
            ..Self::default()
        };
        for module in modules {
            let text = |name: &str| module.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (module_name, path) = (text("module"), text("path"));
            catalog.collect(module, "workflows", &module_name, &path);
            catalog.collect(module, "data_providers", &module_name, &path);
        }
        catalog
    }

    /// Without what declares more than the installation allows: it may need that much, so it does not run with less.
    #[must_use]
    pub fn within(mut self, ceilings: &Limits) -> Self {
        let findings = &mut self.findings;
        self.workflows.retain(|name, declared| {
            let above = declared.limits.above(ceilings);
            findings.extend(above.iter().map(|(limit, declares, allowed)| {
                let message = format!(
                    "workflow `{name}` declares {limit}={declares} in `limits`; at most {allowed} is allowed here"
                );
                Finding::new(
                    format!("{}:{}:1", declared.path, declared.line),
                    "limit_above_ceiling",
                    message,
                )
                .hint("declare less, or have the operator raise the setting (`WEFT_STEP_…` in docs/env-vars.md)")
            }));
            above.is_empty()
        });
        self
    }

    fn collect(&mut self, module: &Value, list: &str, module_name: &str, path: &str) {
        for item in module.get(list).and_then(Value::as_array).into_iter().flatten() {
            let declared = match serde_json::from_value::<Declared>(item.clone()) {
                Ok(declared) => Declared {
                    module: module_name.to_owned(),
                    path: path.to_owned(),
                    ..declared
                },
                Err(error) => {
                    self.findings.push(Finding::new(
                        path,
                        "invalid_declaration",
                        format!("the declaration can't be read: {error}"),
                    ));
                    continue;
                }
            };
            if let Some(finding) = bad_pattern(&declared).or_else(|| bad_host(&declared)) {
                self.findings.push(finding);
                continue;
            }
            let into = if list == "workflows" {
                &mut self.workflows
            } else {
                &mut self.data_providers
            };
            into.entry(declared.name.clone()).or_insert(declared);
        }
    }
}

/// Patterns are matched by an engine that takes linear time, so look-around and back-references are refused here and not at
/// the first call.
fn bad_pattern(declared: &Declared) -> Option<Finding> {
    declared.parameters.iter().find_map(|Parameter { name, pattern, .. }| {
        let pattern = pattern.as_deref()?;
        let error = super::parameters::compile(pattern).err()?;
        let message = format!("the pattern of parameter `{name}` can't be used: {error}");
        Some(
            Finding::new(
                format!("{}:{}:1", declared.path, declared.line),
                "invalid_declaration",
                message,
            )
            .hint("use a pattern without look-around and back-references"),
        )
    })
}

/// What a worker says of a file is said by code of that file, so hosts are read again here.
fn bad_host(declared: &Declared) -> Option<Finding> {
    let message = super::policy::bad_host(&declared.network)?;
    let place = format!("{}:{}:1", declared.path, declared.line);
    let finding = Finding::new(
        place,
        "invalid_declaration",
        format!("network of `{}`: {message}", declared.name),
    );
    Some(finding.hint(
        "write hosts as `api.example.com`, `*.example.com` or `api.example.com:8443`, or `*` for every public one",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_declares_more_than_is_allowed_is_left_out() {
        let module = serde_json::json!({"module": "workflows.m", "path": "workspace/workflows/m.py", "workflows": [
            {"name": "small", "function": "small", "line": 3, "limits": {"memory_mib": 128}},
            {"name": "large", "function": "large", "line": 9, "limits": {"memory_mib": 4096}},
        ]});
        let catalog = Catalog::from_description("sha256:0", &[module], Vec::new(), 1, 0.0).within(&Limits::default());
        assert_eq!(catalog.workflows.keys().collect::<Vec<_>>(), ["small"]);
        let [finding] = catalog.findings.as_slice() else {
            panic!("{:?}", catalog.findings)
        };
        assert_eq!(
            (finding.pointer.as_str(), finding.code.as_str()),
            ("workspace/workflows/m.py:9:1", "limit_above_ceiling")
        );
        assert!(finding.message.contains("memory_mib=4096") && finding.message.contains("512"));
    }
}
