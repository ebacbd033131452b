//! The short list of verbs and of things they apply to.

use serde::{Deserialize, Serialize};

macro_rules! closed_list {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant),+
        }

        impl $name {
            /// All of them, in the order of the policy table.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// As written in key scopes and audit records.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

closed_list!(
    /// A verb.
    Action {
        /// Look at one.
        Read = "read",
        /// Look at many.
        List = "list",
        /// Make one.
        Create = "create",
        /// Change one.
        Modify = "modify",
        /// Remove one.
        Delete = "delete",
        /// Let it happen: start a run, call a data provider.
        Run = "run",
        /// Everything about its settings and keys.
        Administer = "administer",
    }
);

closed_list!(
    /// A kind of thing.
    Resource {
        /// Workflows and their revisions: writing drafts and publishing is `modify`, beginning one `create`, archiving `delete`;
        /// `administer` says how far the commands of one are trusted.
        Workflow = "workflow",
        /// What starts workflows at certain times; firing one by hand is `run`.
        Schedule = "schedule",
        /// Runs with their steps, logs and results; cancelling is `modify`.
        Run = "run",
        /// Data providers.
        DataProvider = "data_provider",
        /// Audit records.
        Audit = "audit",
        /// Configuration entries.
        Config = "config",
        /// What steps are allowed to do.
        Policy = "policy",
        /// Secrets: their names. Nobody reads a value through the API.
        Secret = "secret",
        /// Webhooks; a new secret for one is `modify`. Nobody reads a secret.
        Hook = "hook",
        /// What starts a workflow for each message of a queue; sending one through the API is `run`, an address for senders is
        /// `modify`.
        QueueTrigger = "queue_trigger",
        /// Node types of the library, which belong to the platform; trying the code of one is `run`.
        NodeType = "node_type",
        /// Members of the organization.
        Member = "member",
        /// The organization itself.
        Organization = "organization",
        /// Function keys.
        Key = "key",
        /// Published code; to choose which of it runs is `modify`.
        Bundle = "bundle",
        /// The installation: status, every organization.
        Platform = "platform",
    }
);
