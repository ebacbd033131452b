//! Where the options of a field come from: a data provider, and what it is asked with.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// A data provider that offers the values of a field of a form.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OptionsFrom {
    /// Its name.
    pub provider: String,
    /// Which other field of the same form gives which of its inputs: the input's name, and the field's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, String>,
    /// Whether a run is refused whose value is none of the options, as they are when it starts.
    #[serde(default, skip_serializing_if = "is_false")]
    pub strict: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
const fn is_false(value: &bool) -> bool {
    !*value
}

impl OptionsFrom {
    /// From this data provider, which nothing is given to.
    #[must_use]
    pub fn provider(name: &str) -> Self {
        Self {
            provider: name.to_owned(),
            ..Self::default()
        }
    }

    /// The fields of the form on which the options depend.
    #[must_use]
    pub fn depends_on(&self) -> BTreeSet<&str> {
        self.inputs.values().map(String::as_str).collect()
    }
}
