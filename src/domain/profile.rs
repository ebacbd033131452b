//! Security profiles: four named ceilings, from one under which nothing runs to one for teams that run platforms.
//!
//! A profile is applied as a policy is ([`Figures::policy`]): it takes away, and never gives. Several may be chosen for one run;
//! the strictest holds.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{LimitCeilings, NetworkMode, NetworkPolicy, Policy, Tier};

/// A profile, the strictest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecurityProfile {
    /// Nothing runs; what would happen is shown.
    PlanOnly,
    /// Listed programs, no network.
    Restricted,
    /// Declared hosts and the usual programs.
    Standard,
    /// Whatever policies allow.
    Elevated,
}

/// Which programs shell steps may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Programs {
    /// None: there are no shell steps.
    None,
    /// These.
    Listed(&'static [&'static str]),
    /// Any that are installed.
    Any,
}

/// What a profile allows at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// One sentence.
    pub description: &'static str,
    /// For whom.
    pub audience: &'static str,
    /// Runs of an organization that are under way at once.
    pub concurrent_runs: u32,
    /// Seconds of a run.
    pub run_seconds: u64,
    /// Seconds of one attempt.
    pub step_seconds: u64,
    /// Resident memory of one attempt, in MiB.
    pub memory_mib: u64,
    /// What the folder of one attempt holds, in MiB; no file is larger.
    pub disk_mib: u64,
    /// Characters of one text among the arguments.
    pub input_chars: usize,
    /// Programs that shell steps start.
    pub programs: Programs,
    /// How much of the network may be asked for.
    pub network: NetworkMode,
    /// Steps are refused at less isolation than this.
    pub minimum: Tier,
}

/// Programs of `restricted`: what the profile names, and what only reads and writes text of the step's own folder.
const RESTRICTED: &[&str] = &[
    "[", "cat", "cut", "date", "echo", "false", "git", "grep", "head", "ls", "mkdir", "npm", "pip", "printf", "pytest",
    "python", "python3", "sed", "seq", "sleep", "sort", "tail", "test", "tr", "true", "uniq", "wc",
];
/// Programs of `standard`: those of `restricted`, and what builds and deploys.
const STANDARD: &[&str] = &[
    "[",
    "awk",
    "base64",
    "basename",
    "bash",
    "cargo",
    "cat",
    "cp",
    "curl",
    "cut",
    "date",
    "diff",
    "dirname",
    "docker",
    "dotnet",
    "echo",
    "env",
    "false",
    "find",
    "git",
    "go",
    "grep",
    "gunzip",
    "gzip",
    "head",
    "java",
    "jq",
    "kubectl",
    "ls",
    "make",
    "mkdir",
    "mv",
    "node",
    "npm",
    "npx",
    "pip",
    "printf",
    "pytest",
    "python",
    "python3",
    "rm",
    "sed",
    "seq",
    "sh",
    "sha256sum",
    "sleep",
    "sort",
    "tail",
    "tar",
    "tee",
    "test",
    "touch",
    "tr",
    "true",
    "uniq",
    "unzip",
    "wc",
    "xargs",
    "zip",
];

impl SecurityProfile {
    /// All of them, the strictest first.
    pub const ALL: [Self; 4] = [Self::PlanOnly, Self::Restricted, Self::Standard, Self::Elevated];

    /// As written in settings, files and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PlanOnly => "plan_only",
            Self::Restricted => "restricted",
            Self::Standard => "standard",
            Self::Elevated => "elevated",
        }
    }

    /// From its name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.as_str() == name)
    }

    /// What it allows at most. The installation's own ceilings and the policies hold beside it.
    #[must_use]
    pub const fn figures(self) -> Figures {
        match self {
            Self::PlanOnly => Figures {
                description: "Nothing runs: workflows are checked and planned, and all of it is recorded",
                audience: "organizations that must see what would happen before anything does",
                concurrent_runs: 5,
                run_seconds: 1_800,
                step_seconds: 300,
                memory_mib: 512,
                disk_mib: 10,
                input_chars: 2_000,
                programs: Programs::None,
                network: NetworkMode::None,
                minimum: Tier::Process,
            },
            Self::Restricted => Figures {
                description: "Listed programs and no network",
                audience: "teams that develop, and work with what others wrote",
                concurrent_runs: 10,
                run_seconds: 3_600,
                step_seconds: 900,
                memory_mib: 1_024,
                disk_mib: 50,
                input_chars: 5_000,
                programs: Programs::Listed(RESTRICTED),
                network: NetworkMode::None,
                minimum: Tier::Confined,
            },
            Self::Standard => Figures {
                description: "Declared hosts and the usual programs",
                audience: "most organizations",
                concurrent_runs: 25,
                run_seconds: 7_200,
                step_seconds: 1_800,
                memory_mib: 2_048,
                disk_mib: 100,
                input_chars: 10_000,
                programs: Programs::Listed(STANDARD),
                network: NetworkMode::Allowlist,
                minimum: Tier::Process,
            },
            Self::Elevated => Figures {
                description: "Whatever the policies allow, with the most generous limits",
                audience: "teams that run platforms and infrastructure",
                concurrent_runs: 50,
                run_seconds: 14_400,
                step_seconds: 3_600,
                memory_mib: 4_096,
                disk_mib: 500,
                input_chars: 50_000,
                programs: Programs::Any,
                network: NetworkMode::Open,
                minimum: Tier::Process,
            },
        }
    }
}

impl fmt::Display for SecurityProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Figures {
    /// The ceiling that it is for an attempt.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy {
            network: NetworkPolicy {
                mode: self.network,
                open_granted: self.network == NetworkMode::Open,
                ..NetworkPolicy::default()
            },
            minimum: self.minimum,
            limits: LimitCeilings {
                wall_ms: Some(self.step_seconds * 1_000),
                memory_bytes: Some(self.memory_mib << 20),
                disk_bytes: Some(self.disk_mib << 20),
                ..LimitCeilings::default()
            },
            ..Policy::default()
        }
    }
}

impl Programs {
    /// Whether a program may be started.
    #[must_use]
    pub fn allow(&self, program: &str) -> bool {
        match self {
            Self::None => false,
            Self::Listed(names) => names.contains(&program),
            Self::Any => true,
        }
    }
}

/// Who has chosen a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChosenBy {
    /// The installation's settings.
    Installation,
    /// The platform's policy.
    Platform,
    /// The organization's policy.
    Organization,
    /// The workflow.
    Workflow,
    /// Whoever asked for the run, or the run that started it.
    Run,
}

impl ChosenBy {
    /// As written in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Installation => "installation",
            Self::Platform => "platform",
            Self::Organization => "organization",
            Self::Workflow => "workflow",
            Self::Run => "run",
        }
    }

    /// Where it is chosen, in words.
    #[must_use]
    pub const fn place(self) -> &'static str {
        match self {
            Self::Installation => "`WEFT_SECURITY_PROFILE` of the installation",
            Self::Platform => "`profile` of the platform's policy",
            Self::Organization => "`profile` of the organization's policy",
            Self::Workflow => "the workflow's own `security_profile`",
            Self::Run => "the request, or the run that started this one",
        }
    }
}

/// The profile that holds, and who has chosen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chosen {
    /// The profile.
    pub profile: SecurityProfile,
    /// The first of those who have chosen it.
    pub by: ChosenBy,
}

impl Chosen {
    /// The strictest of what was chosen; of equals the one that stands first. The installation always chooses.
    #[must_use]
    pub fn strictest(
        installation: SecurityProfile,
        others: impl IntoIterator<Item = (ChosenBy, Option<SecurityProfile>)>,
    ) -> Self {
        let first = Self {
            profile: installation,
            by: ChosenBy::Installation,
        };
        others
            .into_iter()
            .fold(first, |strictest, (by, profile)| match profile {
                Some(profile) if profile < strictest.profile => Self { profile, by },
                _ => strictest,
            })
    }
}

/// Of two choices the stricter, where there is any.
#[must_use]
pub fn stricter(one: Option<SecurityProfile>, other: Option<SecurityProfile>) -> Option<SecurityProfile> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Holder, Limits, Network, Rights, Trust};

    #[test]
    fn each_profile_allows_no_less_than_the_stricter_ones() {
        for pair in SecurityProfile::ALL.windows(2) {
            let (strict, wide) = (pair[0].figures(), pair[1].figures());
            assert!(pair[0] < pair[1]);
            assert!(strict.concurrent_runs < wide.concurrent_runs && strict.run_seconds < wide.run_seconds);
            assert!(strict.step_seconds < wide.step_seconds && strict.memory_mib < wide.memory_mib);
            assert!(strict.disk_mib < wide.disk_mib && strict.input_chars < wide.input_chars);
            assert!(strict.network <= wide.network);
            if let Programs::Listed(names) = strict.programs {
                assert!(names.iter().all(|name| wide.programs.allow(name)), "{}", pair[0]);
            }
        }
        assert_eq!(SecurityProfile::parse("standard"), Some(SecurityProfile::Standard));
        assert_eq!(SecurityProfile::parse("paranoid"), None);
    }

    #[test]
    fn the_strictest_choice_holds_whoever_makes_it() {
        use SecurityProfile::{Elevated, PlanOnly, Restricted, Standard};
        let all = [None, Some(PlanOnly), Some(Restricted), Some(Standard), Some(Elevated)];
        for installation in SecurityProfile::ALL {
            for organization in all {
                for workflow in all {
                    for run in all {
                        let chosen = Chosen::strictest(
                            installation,
                            [
                                (ChosenBy::Organization, organization),
                                (ChosenBy::Workflow, workflow),
                                (ChosenBy::Run, run),
                            ],
                        );
                        let least = [organization, workflow, run].into_iter().flatten().min();
                        assert_eq!(
                            chosen.profile,
                            least.map_or(installation, |least| least.min(installation))
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_profile_is_a_ceiling() {
        let holder = Holder::Platform;
        let rights = Rights::of_workspace(&["api.example.com".to_owned()]);
        let generous = Limits {
            wall_ms: 10_000_000,
            memory_bytes: 64 << 30,
            disk_bytes: 64 << 30,
            ..Limits::default()
        };
        for profile in SecurityProfile::ALL {
            let figures = profile.figures();
            let below = figures.policy().restrict(&holder, &rights, &generous);
            assert_eq!(below.limits.wall_ms, figures.step_seconds * 1_000);
            assert_eq!(below.limits.memory_bytes, figures.memory_mib << 20);
            assert_eq!(below.limits.disk_bytes, figures.disk_mib << 20);
            assert_eq!(below.rights.trust, Trust::Trusted);
            assert_eq!(
                below.rights.network == Network::None,
                profile < SecurityProfile::Standard
            );
            assert!(below.rights.minimum >= figures.minimum);
        }
    }
}
