//! What of isolation is in force here: as the zygote has found out by effect, and whether that is enough.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

use super::Jail;
use crate::domain::{LAYERS, StepError, Tier};

/// The kind of error of a step that was not run because there is too little isolation for it.
pub const INSUFFICIENT: &str = "isolation_insufficient";

/// What makes a tier.
const CONFINED: [&str; 2] = ["landlock", "seccomp"];
const NAMESPACES: [&str; 4] = ["pid_namespace", "mount_namespace", "network_namespace", "seccomp"];

/// What is in force, and what is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all(serialize = "camelCase"), from = "Reported")]
pub struct Posture {
    /// How much it is, all together.
    pub tier: Tier,
    /// What is in force for a worker that may use everything.
    #[serde(serialize_with = "listed")]
    pub layers: Arc<Vec<&'static str>>,
    /// What is not, and why.
    pub missing: BTreeMap<&'static str, String>,
    /// Version of Landlock; 0 without it.
    pub landlock_abi: u32,
    /// By what a worker ends with everything that it has started: `pid_namespace`, `subreaper`, `process_group`.
    pub tree_kill: String,
    /// What bounds a worker's folder: `tmpfs` or `none`.
    pub disk_quota: String,
    /// Whether the engine has said all this; one that says nothing builds no walls.
    #[serde(skip)]
    pub is_said: bool,
}

/// `posture` of a `ready` message.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reported {
    tier: Tier,
    layers: Vec<String>,
    missing: BTreeMap<String, String>,
    landlock_abi: u32,
    tree_kill: String,
    disk_quota: String,
}

impl From<Reported> for Posture {
    fn from(reported: Reported) -> Self {
        let layers: Vec<_> = LAYERS
            .into_iter()
            .filter(|layer| reported.layers.iter().any(|name| name == layer))
            .collect();
        let mut posture = Self {
            tier: reported.tier.min(tier_of(&layers)),
            missing: BTreeMap::new(),
            landlock_abi: reported.landlock_abi,
            tree_kill: reported.tree_kill,
            disk_quota: reported.disk_quota,
            layers: Arc::new(layers),
            is_said: true,
        };
        for layer in LAYERS {
            if let Some(reason) = reported.missing.get(layer)
                && !posture.has(layer)
            {
                posture.missing.insert(layer, reason.clone());
            }
        }
        posture
    }
}

impl Posture {
    /// Of an engine that says nothing of it: these layers, and nothing beside them.
    #[must_use]
    pub fn unsaid(layers: Vec<&'static str>) -> Self {
        Self {
            tier: Tier::Process,
            layers: Arc::new(layers),
            missing: BTreeMap::new(),
            landlock_abi: 0,
            tree_kill: "subreaper".to_owned(),
            disk_quota: "none".to_owned(),
            is_said: false,
        }
    }

    /// Counts a layer that this side keeps up.
    pub fn adds(&mut self, layer: &'static str) {
        if !self.has(layer) {
            Arc::make_mut(&mut self.layers).push(layer);
        }
    }

    /// Says why a layer of this side is not there.
    pub fn lacks(&mut self, layer: &'static str, reason: &str) {
        self.missing.entry(layer).or_insert_with(|| reason.to_owned());
    }

    /// Whether a layer is in force.
    #[must_use]
    pub fn has(&self, layer: &str) -> bool {
        self.layers.contains(&layer)
    }

    /// Why a layer is not in force.
    #[must_use]
    pub fn why_not(&self, layer: &str) -> &str {
        self.missing.get(layer).map_or("not reported", String::as_str)
    }

    /// Says of layers that were switched off that this is why they are missing, where nothing else is known.
    pub fn switched_off(&mut self, off: &[String]) {
        for layer in LAYERS {
            if off.iter().any(|name| name == layer) && !self.has(layer) {
                self.missing.entry(layer).or_insert_with(|| "switched off".to_owned());
            }
        }
    }

    /// What is in force for a worker with these walls.
    #[must_use]
    pub fn of(&self, jail: &Jail) -> Arc<Vec<&'static str>> {
        if jail.network || !self.has("network_notify") {
            return Arc::clone(&self.layers);
        }
        let mut layers = Vec::clone(&self.layers);
        layers.retain(|layer| *layer != "network_notify");
        Arc::new(layers)
    }

    /// Why a step that needs this tier is not run here; none where there is enough.
    #[must_use]
    pub fn refusal(&self, needed: Tier) -> Option<StepError> {
        self.shortfall(needed).map(refused)
    }

    /// What is missing for this tier, in words; none where there is enough.
    #[must_use]
    pub fn shortfall(&self, needed: Tier) -> Option<String> {
        if self.tier >= needed {
            return None;
        }
        let wanted = match needed {
            Tier::Process => &[][..],
            Tier::Confined => &CONFINED[..],
            Tier::Namespaces => &NAMESPACES[..],
        };
        let missing: Vec<_> = wanted
            .iter()
            .filter(|layer| !self.has(layer))
            .map(|layer| format!("`{layer}` is missing ({})", self.why_not(layer)))
            .collect();
        let why = if missing.is_empty() {
            "the engine reports no more".to_owned()
        } else {
            missing.join(", ")
        };
        Some(format!(
            "isolation of the tier `{}` is needed, and there is `{}` here: {why}",
            needed.as_str(),
            self.tier.as_str()
        ))
    }

    /// Why a step with a network is not run here; none where connections can be asked for, or nothing is closed anyway.
    #[must_use]
    pub fn refusal_of_network(&self, has_proxy: bool) -> Option<StepError> {
        if has_proxy || self.has("network_notify") || !self.has("seccomp") {
            return None;
        }
        let why = self.why_not("network_notify");
        Some(refused(format!(
            "it may use the network, and can't be given one here: `network_notify` is missing ({why})"
        )))
    }
}

fn refused(why: String) -> StepError {
    StepError {
        retriable: Some(false),
        ..StepError::new(
            INSUFFICIENT,
            format!("the step was not run: {why}; `weft doctor` shows what is in force"),
        )
    }
}

fn listed<S: Serializer>(layers: &[&'static str], serializer: S) -> Result<S::Ok, S::Error> {
    layers.serialize(serializer)
}

fn tier_of(layers: &[&str]) -> Tier {
    let all = |wanted: &[&str]| wanted.iter().all(|layer| layers.contains(layer));
    if all(&NAMESPACES) {
        Tier::Namespaces
    } else if all(&CONFINED) {
        Tier::Confined
    } else {
        Tier::Process
    }
}

/// What is in force, and what there has to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Isolation {
    /// What is in force.
    #[serde(flatten)]
    pub posture: Posture,
    /// Below this no step is run.
    pub minimum: Tier,
}

impl Isolation {
    /// Whether steps are run.
    #[must_use]
    pub fn is_enough(&self) -> bool {
        self.posture.tier >= self.minimum
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Rights;

    fn read(text: &str) -> Posture {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn no_tier_is_believed_without_its_layers() {
        let all =
            r#""layers":["own_process","pid_namespace","mount_namespace","network_namespace","seccomp","landlock"]"#;
        assert_eq!(
            read(&format!(r#"{{"tier":"namespaces",{all}}}"#)).tier,
            Tier::Namespaces
        );
        assert_eq!(read(&format!(r#"{{"tier":"process",{all}}}"#)).tier, Tier::Process);
        let posture =
            read(r#"{"tier":"namespaces","layers":["landlock","seccomp","made_up"],"missing":{"cgroup":"no"}}"#);
        assert_eq!(posture.tier, Tier::Confined);
        assert_eq!(*posture.layers, ["landlock", "seccomp"]);
        assert_eq!(posture.why_not("cgroup"), "no");
        assert_eq!(read("{}").tier, Tier::Process);
    }

    #[test]
    fn refusals_say_what_is_missing_and_why() {
        let posture = read(r#"{"tier":"process","layers":["seccomp"],"missing":{"landlock":"ENOSYS"}}"#);
        assert_eq!(posture.refusal(Tier::Process), None);
        let error = posture.refusal(Tier::Confined).unwrap();
        assert_eq!((error.kind.as_str(), error.retriable), (INSUFFICIENT, Some(false)));
        for part in [
            "`confined`",
            "`process`",
            "`landlock` is missing (ENOSYS)",
            "`weft doctor`",
        ] {
            assert!(error.message.contains(part), "{}", error.message);
        }
        assert!(!error.message.contains("`seccomp`"));
        assert!(posture.refusal_of_network(false).is_some());
        assert_eq!(posture.refusal_of_network(true), None);
    }

    #[test]
    fn what_depends_on_rights_is_there_with_them_only() {
        let posture = read(r#"{"layers":["own_process","seccomp","network_notify"]}"#);
        let alone = Jail::from(&Rights::of_workspace(&[]));
        let connected = Jail::from(&Rights::of_workspace(&["*".to_owned()]));
        assert_eq!(*posture.of(&alone), ["own_process", "seccomp"]);
        assert!(posture.of(&connected).contains(&"network_notify"));
    }
}
