//! What a zygote is told about walls when it starts.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;

use super::seccomp::{Arch, Filter};

/// User ids that workers get, each for itself, where the zygote is root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Uids {
    /// The first.
    pub first: u32,
    /// How many.
    pub count: u32,
}

/// `jail` of the `hello` message.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Setup {
    /// Layers that are not to be entered, for a look at what breaks without them.
    pub off: Vec<String>,
    /// Whose a worker may be.
    pub uids: Option<Uids>,
    /// Programs for seccomp, in base64, by name.
    pub filters: BTreeMap<&'static str, String>,
    /// The folder that workers have theirs in.
    pub scratch: String,
    /// Folders that workers may read beside the system's, the interpreter's and their bundle.
    pub read: Vec<String>,
    /// Folders that they see nothing of, wherever they lie.
    pub hide: Vec<String>,
}

/// Every program for this machine, as `hello` has it. Empty where there are none.
#[must_use]
pub fn filters() -> BTreeMap<&'static str, String> {
    let Some(arch) = Arch::here() else {
        return BTreeMap::new();
    };
    Filter::ALL
        .into_iter()
        .map(|filter| (filter.as_str(), BASE64_STANDARD.encode(filter.bytes(arch))))
        .collect()
}
