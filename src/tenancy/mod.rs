//! Isolation between organizations, as types.
//!
//! A [`Scope`] is the proof that one principal may act in one organization. It has private fields and no public
//! constructor; [`resolve`](resolve::resolve) makes one from an authenticated principal, [`rehydrate`](rehydrate::rehydrate)
//! from a queue message about a run, [`rehydrate_due`](rehydrate::rehydrate_due) from a row that says what is due,
//! [`deliver`](deliver::deliver) from a delivery whose signature was verified. Every repository method takes it first, and every storage name is formed from the
//! organization in it, so code that was handed a scope of one organization has no way to name anything of another.
//! [`PlatformScope`] is a different type, for work across organizations: "all" is never an absent organization.

mod deliver;
mod operator;
mod rehydrate;
mod resolve;
mod scope;

pub use deliver::deliver;
pub use operator::{PlatformScope, librarian, operator, operator_in, platform, publisher, system};
pub use rehydrate::{DueRef, RunRef, rehydrate, rehydrate_due};
pub use resolve::{Membership, Organization, Refused, cross, resolve, resolve_key};
pub use scope::{Denied, Scope};
