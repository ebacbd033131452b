//! Under which security profile steps run, and how far they are kept apart: what is needed, what is left out to look at it, whose user ids they get.

use serde::Serialize;

use super::env_var as var;
use super::mode::Mode;
use super::read::Reader;
use crate::domain::{LAYERS, SecurityProfile, Tier};

/// How far steps are kept apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Isolation {
    /// The security profile under which everything runs at most.
    pub profile: SecurityProfile,
    /// Below this no step is run.
    pub minimum: Tier,
    /// Layers that are not entered. Empty outside development.
    pub off: Vec<String>,
    /// User ids for steps, where the handler is root.
    #[serde(serialize_with = "as_written")]
    pub uids: UidRange,
}

/// User ids, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UidRange {
    /// The first.
    pub first: u32,
    /// The last.
    pub last: u32,
}

/// System users end here on all distributions in use.
const LOWEST_UID: u32 = 1_000;
/// Fewer than a busy instance has workers would refuse some.
const FEWEST: u32 = 16;

impl Isolation {
    pub(super) fn read(reader: &mut Reader<'_>, mode: &Mode) -> Self {
        let minimum = reader.choice("isolation.minimum", &var::WEFT_ISOLATION_MINIMUM);
        let profile = reader.choice("isolation.profile", &var::WEFT_SECURITY_PROFILE);
        Self {
            profile: profile.unwrap_or(if mode.development {
                SecurityProfile::Elevated
            } else {
                SecurityProfile::Standard
            }),
            minimum: minimum.unwrap_or(if mode.development {
                Tier::Process
            } else {
                Tier::Confined
            }),
            off: off(reader, mode),
            uids: uids(reader),
        }
    }
}

fn off(reader: &mut Reader<'_>, mode: &Mode) -> Vec<String> {
    let variable = &var::WEFT_ISOLATION_OFF;
    if reader.is_set(variable) && !mode.development {
        let message = format!("`{}` is for development only and ignored", variable.name);
        reader.warn(variable.name, "development_only", message, None);
        return Vec::new();
    }
    let mut layers = reader.list_or_default("isolation.off", variable);
    layers.retain(|layer| {
        let is_known = LAYERS.contains(&layer.as_str());
        if !is_known {
            let message = format!("`{}` names `{layer}`, which is no layer of isolation", variable.name);
            let hint = Some("`weft doctor` shows the names of all".to_owned());
            reader.refuse(variable, "unknown_value", message, hint);
        }
        is_known
    });
    layers
}

fn uids(reader: &mut Reader<'_>) -> UidRange {
    let variable = &var::WEFT_STEP_UIDS;
    let text = reader.text_or_default("isolation.uids", variable);
    let range = text.split_once('-').and_then(|(first, last)| {
        let (first, last): (u32, u32) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        // The largest number stands for "no user".
        let is_good = first >= LOWEST_UID && last < u32::MAX && last >= first.saturating_add(FEWEST - 1);
        is_good.then_some(UidRange { first, last })
    });
    range.unwrap_or_else(|| {
        let message = format!("`{}` is `{text}`, which is no range of user ids", variable.name);
        let hint = format!("give two numbers, as `61000-62023`, from {LOWEST_UID} on and {FEWEST} ids at least");
        reader.refuse(variable, "not_a_range", message, Some(hint));
        UidRange { first: 0, last: 0 }
    })
}

fn as_written<S: serde::Serializer>(uids: &UidRange, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{}-{}", uids.first, uids.last))
}
