//! Role × resource × action: the only place where a decision about access is written.
//!
//! `docs/authz-matrix.txt` is this table printed, and a test compares the two.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::{Action, KeyScope, Resource};

/// What a person is in an organization, from weakest to strongest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads own results.
    Viewer,
    /// Runs workflows and reads own results.
    User,
    /// Runs workflows and reads results of the organization.
    Manager,
    /// Everything in the organization.
    OrgAdmin,
    /// A platform administrator who has crossed into the organization; every crossing leaves an audit record.
    Administrator,
}

impl Role {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::Viewer,
        Self::User,
        Self::Manager,
        Self::OrgAdmin,
        Self::Administrator,
    ];

    /// As written in records and headers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::User => "user",
            Self::Manager => "manager",
            Self::OrgAdmin => "org_admin",
            Self::Administrator => "administrator",
        }
    }

    /// From the text of [`Role::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|role| role.as_str() == text)
    }
}

/// On how much of a kind of thing a verb may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    /// On none.
    None,
    /// On what the principal started or was given.
    Own,
    /// On all in the organization.
    All,
}

/// What a role may do with a kind of thing.
#[must_use]
pub const fn permitted(role: Role, action: Action, resource: Resource) -> Extent {
    use Action::{Administer, Create, Delete, List, Modify, Read, Run};
    match (role, resource, action) {
        (Role::Administrator, _, _) => Extent::All,
        (_, Resource::Platform | Resource::Bundle, _) => Extent::None,
        (Role::OrgAdmin, Resource::Organization, Create | Delete) => Extent::None,
        // The library is the platform's; whoever is in an organization may know what its graphs can use.
        (_, Resource::NodeType, Read | List) => Extent::All,
        (_, Resource::NodeType, _) => Extent::None,
        (Role::OrgAdmin, _, _) => Extent::All,
        (_, Resource::Organization, Read) => Extent::All,
        (Role::Manager, Resource::Workflow, Read | List | Create | Modify | Delete | Run) => Extent::All,
        (Role::Manager, Resource::DataProvider, Read | List | Run) => Extent::All,
        (Role::Manager, Resource::Schedule, Read | List | Create | Modify | Delete | Run) => Extent::All,
        (Role::Manager, Resource::Run, Read | List | Modify) => Extent::All,
        (Role::Manager, Resource::QueueTrigger, Read | List | Create | Modify | Delete | Run) => Extent::All,
        (Role::Manager, Resource::Hook, Read | List | Create | Modify | Delete) => Extent::All,
        // Whoever may run a workflow may know why it isn't run.
        (Role::Manager | Role::User, Resource::Policy, Read) => Extent::All,
        (Role::Manager, Resource::Member | Resource::Config | Resource::Secret, Read | List) => Extent::All,
        (Role::User, Resource::DataProvider, Read | List | Run) => Extent::All,
        // The workspace's are everybody's; of the organization's own, those that were assigned to them.
        (Role::User, Resource::Workflow, Read | List | Run) => Extent::Own,
        (Role::User, Resource::Run, Read | List | Modify) => Extent::Own,
        (Role::Viewer, Resource::Workflow, Read | List) => Extent::Own,
        (Role::User | Role::Viewer, Resource::Schedule, Read | List) => Extent::All,
        (Role::Viewer, Resource::Run, Read | List) => Extent::Own,
        (_, _, Read | List | Create | Modify | Delete | Run | Administer) => Extent::None,
    }
}

/// What a key with these scopes may do with a kind of thing. Keys are never bound to a person, so there is no "own".
#[must_use]
pub fn permitted_to_key(scopes: &[KeyScope], action: Action, resource: Resource) -> Extent {
    if scopes.iter().any(|scope| scope.covers(action, resource)) {
        Extent::All
    } else {
        Extent::None
    }
}

/// The table as text, one line per resource and action.
#[must_use]
pub fn matrix() -> String {
    let mut out = String::from("resource       action     ");
    for role in Role::ALL {
        let _ = write!(out, " {:<13}", role.as_str());
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    for resource in Resource::ALL {
        for action in Action::ALL {
            let mut line = format!("{:<14} {:<10}", resource.as_str(), action.as_str());
            for role in Role::ALL {
                let extent = match permitted(*role, *action, *resource) {
                    Extent::None => "-",
                    Extent::Own => "own",
                    Extent::All => "all",
                };
                let _ = write!(line, "  {extent:<12}");
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
    }
    out
}
