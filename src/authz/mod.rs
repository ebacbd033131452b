//! Who may do what: roles and key scopes against one table. Pure.
//!
//! What a refusal looks like is decided by what the caller may know: without a credential 403, with a bad one 401, for an
//! organization or a resource that the caller may not know of 404, for a verb that the caller may not use 403.

mod action;
mod policy;
mod principal;

pub use action::{Action, Resource};
pub use policy::{Extent, Role, matrix, permitted, permitted_to_key};
pub use principal::{Caller, KeyScope, Origin, Principal, ScopeError, Tier};
