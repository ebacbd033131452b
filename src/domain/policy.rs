//! What somebody allows steps to do: a ceiling. What an attempt may do is what its code declares, brought below the ceiling of
//! its organization and that of the platform, in any order.
//!
//! Nothing here knows whose ceiling it is but for the words of a reason, so a security profile, a named set of the same values,
//! is one more ceiling.

use serde::{Deserialize, Serialize};

use super::host_pattern::HostSet;
use super::{Chosen, Limits, ModuleRules, Network, OrgId, Rights, SecurityProfile, Tier, Trust, modules};

/// How much of the network may be asked for.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum NetworkMode {
    /// None of it.
    None,
    /// Hosts that are declared.
    Allowlist,
    /// Every public address, where that is granted too.
    #[default]
    Open,
}

impl NetworkMode {
    /// As written in policies and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Allowlist => "allowlist",
            Self::Open => "open",
        }
    }
}

/// What of the network may be declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicy {
    /// The most that may be asked for.
    pub mode: NetworkMode,
    /// Hosts that may be declared: `api.example.com`, `*.example.com`, either with `:port` (80 and 443 without one), or `*`.
    pub domains: Vec<String>,
    /// Whether a declaration of `*` gets the open network. Only a platform administrator sets it.
    pub open_granted: bool,
}

impl Default for NetworkPolicy {
    fn default() -> Self {
        Self {
            mode: NetworkMode::Open,
            domains: vec!["*".to_owned()],
            open_granted: false,
        }
    }
}

/// Which modules may be imported.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ModulePolicy {
    /// The only ones beside the bundle's own and `weft`, for all code; null for whatever is installed.
    pub allow: Option<Vec<String>>,
    /// Never these.
    pub deny: Vec<String>,
}

impl ModulePolicy {
    fn rules(&self) -> ModuleRules {
        ModuleRules {
            allow: self.allow.clone(),
            deny: self.deny.clone(),
        }
    }
}

macro_rules! limit_ceilings {
    ($($(#[$doc:meta])* $field:ident $name:literal;)+) => {
        /// Ceilings of limits; what is missing has none.
        #[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(rename_all = "camelCase", default)]
        pub struct LimitCeilings {
            $($(#[$doc])* #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<u64>),+
        }

        impl LimitCeilings {
            /// The names of all, as in JSON.
            pub const NAMES: &[&str] = &[$($name),+];

            /// Sets one by its name; whether there is one of this name.
            pub fn set(&mut self, name: &str, ceiling: u64) -> bool {
                match name {
                    $($name => self.$field = Some(ceiling),)+
                    _ => return false,
                }
                true
            }

            /// The limits below these ceilings, and which were lowered from what to what.
            #[must_use]
            pub fn restrict(&self, limits: &Limits) -> (Limits, Vec<(&'static str, u64, u64)>) {
                let (mut limits, mut lowered) = (limits.clone(), Vec::new());
                $(if let Some(ceiling) = self.$field && ceiling < limits.$field {
                    lowered.push(($name, limits.$field, ceiling));
                    limits.$field = ceiling;
                })+
                (limits, lowered)
            }
        }
    };
}

limit_ceilings! {
    /// Wall time of an attempt in milliseconds.
    wall_ms "wallMs";
    /// Processor seconds.
    cpu_seconds "cpuSeconds";
    /// Resident memory in bytes.
    memory_bytes "memoryBytes";
    /// Open files of one process.
    open_files "openFiles";
    /// Processes at the same time.
    processes "processes";
    /// Threads at the same time.
    threads "threads";
    /// Bytes in its folder.
    disk_bytes "diskBytes";
    /// Files and folders in its folder.
    disk_files "diskFiles";
    /// Bytes of stdout and of stderr that are kept.
    output_bytes "outputBytes";
    /// Bytes of the result's JSON.
    result_bytes "resultBytes";
    /// Log lines that are kept.
    log_lines "logLines";
}

/// A ceiling of what steps may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    /// Code is trusted no further than this.
    pub trust: Trust,
    /// The network.
    pub network: NetworkPolicy,
    /// Modules, for all code.
    pub modules: ModulePolicy,
    /// What restricted code may import at most. Null is the platform's list, and for the platform itself the default list
    /// (`docs/modules.md`).
    pub restricted_modules: Option<Vec<String>>,
    /// Steps run at no less isolation than this. Raises only.
    pub minimum: Tier,
    /// Limits of an attempt.
    pub limits: LimitCeilings,
    /// The security profile under which everything runs at most; none for no choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<SecurityProfile>,
    /// Bytes of an organization's artifacts together; none for what the installation allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_bytes: Option<u64>,
}

/// Whose ceiling it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holder {
    /// The operator's, by settings.
    Installation,
    /// The platform's.
    Platform,
    /// An organization's.
    Organization {
        /// Its id.
        id: OrgId,
        /// Its name.
        name: String,
    },
    /// A security profile's.
    Profile(Chosen),
}

impl Holder {
    /// `installation`, `platform`, `organization` or `profile`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Installation => "installation",
            Self::Platform => "platform",
            Self::Organization { .. } => "organization",
            Self::Profile(_) => "profile",
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Installation => "the installation".to_owned(),
            Self::Platform => "the platform".to_owned(),
            Self::Organization { name, .. } => name.clone(),
            Self::Profile(chosen) => format!("security profile `{}`", chosen.profile),
        }
    }

    /// Who changes it, and by which route and command. `flags` are those of `weft policy set`.
    fn remedy(&self, what: &str, flags: &str) -> String {
        match self {
            Self::Installation => format!(
                "the operator {what}, by the settings `WEFT_ALLOW_OUTBOUND_REQUESTS` and `WEFT_ALLOWED_DOMAINS`"
            ),
            Self::Platform => {
                format!("a platform administrator {what}: `PUT /api/platform/policy`, or `weft policy set {flags}`")
            }
            Self::Organization { id, name } => format!(
                "an org_admin of {name} {what}: `PUT /api/policy`, or `weft policy set --organization {id} {flags}`"
            ),
            // Its figures are fixed.
            Self::Profile(chosen) => format!(
                "run it under a less strict profile; this one was chosen by {}",
                chosen.by.place()
            ),
        }
    }
}

/// What a reason is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// How far the code is trusted.
    Trust,
    /// The network.
    Network,
    /// Modules.
    Modules,
    /// The least isolation.
    Minimum,
    /// Limits.
    Limits,
}

/// Why something is less than was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// Whose ceiling.
    pub holder: Holder,
    /// About what.
    pub subject: Subject,
    /// A stable code.
    pub code: &'static str,
    /// Whether something that was declared is refused; otherwise a value is lower than it would be.
    pub refused: bool,
    /// In one sentence.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// Rights and limits below a ceiling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restricted {
    /// What may be done.
    pub rights: Rights,
    /// What may be used.
    pub limits: Limits,
    /// Why it is less than before; empty when it isn't.
    pub reasons: Vec<Reason>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            trust: Trust::Trusted,
            network: NetworkPolicy::default(),
            modules: ModulePolicy::default(),
            restricted_modules: None,
            minimum: Tier::Process,
            limits: LimitCeilings::default(),
            profile: None,
            artifact_bytes: None,
        }
    }
}

impl Policy {
    /// The platform's when nobody has written one: the ceiling of a fresh installation. It lets the open network be granted.
    #[must_use]
    pub fn of_platform() -> Self {
        Self {
            network: NetworkPolicy {
                open_granted: true,
                ..NetworkPolicy::default()
            },
            ..Self::default()
        }
    }

    /// Rights and limits brought below this ceiling. The result is never more than either, and neither how often nor in which
    /// order ceilings are applied changes it. The open network is kept whole or not at all: it never becomes a list.
    #[must_use]
    pub fn restrict(&self, holder: &Holder, rights: &Rights, limits: &Limits) -> Restricted {
        let mut reasons = Vec::new();
        let mut because = |subject, code, refused, message: String, remedy: String| {
            reasons.push(Reason {
                holder: holder.clone(),
                subject,
                code,
                refused,
                message,
                remedy,
            });
        };
        let trust = rights.trust.min(self.trust);
        if trust < rights.trust {
            because(
                Subject::Trust,
                "trust_lowered",
                false,
                format!(
                    "the code runs as `{}`: {} trusts it no further",
                    trust.as_str(),
                    holder.name()
                ),
                "a platform administrator sets `trust` of the policy to `trusted`".to_owned(),
            );
        }
        let network = if trust == Trust::Restricted {
            if rights.network != Network::None {
                because(
                    Subject::Network,
                    "network_not_allowed",
                    true,
                    format!(
                        "restricted code has no network, and {} trusts it no further",
                        holder.name()
                    ),
                    "take `network=` out of the declaration, or have a platform administrator raise `trust`".to_owned(),
                );
            }
            Network::None
        } else {
            self.network.restrict(holder, &rights.network, &mut because)
        };
        let asked = rights.modules.meet(&ModuleRules::default());
        let modules = rights.modules.meet(&self.modules.rules());
        if modules != asked {
            because(
                Subject::Modules,
                "modules_limited",
                false,
                format!("{} limits which modules code may import", holder.name()),
                "a platform administrator changes `modules` of the policy".to_owned(),
            );
        }
        let minimum = rights.minimum.max(self.minimum);
        if minimum > rights.minimum {
            because(
                Subject::Minimum,
                "minimum_raised",
                false,
                format!("{} asks for at least `{}`", holder.name(), minimum.as_str()),
                holder.remedy("lowers `minimum`", "FILE"),
            );
        }
        let (limits, lowered) = self.limits.restrict(limits);
        for (name, from, to) in lowered {
            because(
                Subject::Limits,
                "limit_lowered",
                false,
                format!("`{name}` is {to} and not {from}: {} allows no more", holder.name()),
                holder.remedy(&format!("raises `limits.{name}`"), "FILE"),
            );
        }
        Restricted {
            rights: Rights {
                trust,
                network,
                modules,
                minimum,
            },
            limits,
            reasons,
        }
    }

    /// What of this is more than `other` and only a platform administrator may give: JSON pointers, each with a sentence.
    #[must_use]
    pub fn widens(&self, other: &Self) -> Vec<(&'static str, &'static str)> {
        let mut wider = Vec::new();
        if self.trust > other.trust {
            wider.push(("/trust", "`trust` would be raised"));
        }
        if self.network.mode == NetworkMode::Open && other.network.mode < NetworkMode::Open {
            wider.push(("/network/mode", "`mode` would be raised to `open`"));
        }
        if self.network.open_granted && !other.network.open_granted {
            wider.push(("/network/openGranted", "the open network would be granted"));
        }
        if let Some(before) = other.profile
            && self.profile.is_none_or(|profile| profile > before)
        {
            wider.push(("/profile", "a less strict profile would hold"));
        }
        if let Some(before) = other.artifact_bytes
            && self.artifact_bytes.is_none_or(|bytes| bytes > before)
        {
            wider.push(("/artifactBytes", "more bytes of artifacts could be stored"));
        }
        let (ours, theirs) = (self.modules.rules(), other.modules.rules());
        let met = ours.meet(&theirs);
        let plain = ours.meet(&ModuleRules::default());
        if met.allow != plain.allow {
            wider.push(("/modules/allow", "more modules would be allowed"));
        }
        if met.deny != plain.deny {
            wider.push(("/modules/deny", "fewer modules would be denied"));
        }
        let narrower = match (&self.restricted_modules, &other.restricted_modules) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(ours), Some(theirs)) => modules::meet(ours, theirs) == modules::meet(ours, ours),
        };
        if !narrower {
            wider.push(("/restrictedModules", "restricted code would be allowed more modules"));
        }
        wider
    }
}

impl NetworkPolicy {
    fn restrict(
        &self,
        holder: &Holder,
        asked: &Network,
        because: &mut impl FnMut(Subject, &'static str, bool, String, String),
    ) -> Network {
        let mut refuse = |code, message, remedy| because(Subject::Network, code, true, message, remedy);
        let allowed = HostSet::of(&self.domains);
        let hosts = match asked {
            Network::None => return Network::None,
            Network::Allowlist(hosts) if HostSet::of(hosts) != HostSet::Any => hosts,
            _ if self.mode == NetworkMode::Open && self.open_granted && allowed == HostSet::Any => {
                return Network::Open;
            }
            _ => {
                refuse(
                    "open_not_granted",
                    format!("{} does not grant the open network (`*`)", holder.name()),
                    match holder {
                        Holder::Installation | Holder::Platform => format!(
                            "declare the hosts instead, as `network=[\"api.example.com\"]`; or {}",
                            holder.remedy("grants it", "--grant-open")
                        ),
                        Holder::Profile(_) => format!(
                            "declare the hosts instead, as `network=[\"api.example.com\"]`; or {}",
                            holder.remedy("", "")
                        ),
                        Holder::Organization { id, .. } => format!(
                            "declare the hosts instead, as `network=[\"api.example.com\"]`; or a platform administrator grants \
                             it: `weft policy set --organization {id} --grant-open`"
                        ),
                    },
                );
                return Network::None;
            }
        };
        if self.mode == NetworkMode::None {
            refuse(
                "network_not_allowed",
                format!("{} allows its steps no network", holder.name()),
                holder.remedy("sets `network.mode` to `allowlist`", "FILE"),
            );
            return Network::None;
        }
        for host in hosts {
            let one = HostSet::of(&[host]);
            if one.is_empty() {
                refuse(
                    "host_malformed",
                    format!("`{host}` is no host"),
                    "write hosts as `api.example.com`, `*.example.com` or `api.example.com:8443`".to_owned(),
                );
            } else if !allowed.covers(&one) {
                refuse(
                    "domain_not_allowed",
                    format!("`{host}` is not among the domains that {} allows", holder.name()),
                    holder.remedy("adds it", &format!("--allow-domain {host}")),
                );
            }
        }
        let met = HostSet::of(hosts).meet(&allowed);
        if met.is_empty() {
            Network::None
        } else {
            Network::Allowlist(met.patterns())
        }
    }
}

/// The last step, after every ceiling: restricted code imports what the lists of restricted modules say, each below the one
/// before; the first falls back to the default list.
#[must_use]
pub fn settle(rights: &Rights, restricted_modules: &[Option<&[String]>]) -> Rights {
    let mut settled = rights.clone();
    if rights.trust == Trust::Restricted {
        let first = restricted_modules.first().copied().flatten();
        let mut list = first.map_or_else(modules::restricted, <[String]>::to_vec);
        for further in restricted_modules.iter().skip(1).copied().flatten() {
            list = modules::meet(&list, further);
        }
        settled.modules = settled.modules.meet(&ModuleRules {
            allow: Some(list),
            deny: Vec::new(),
        });
        settled.network = Network::None;
    }
    settled
}
