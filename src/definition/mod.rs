//! What was authored → what can be run. Pure: it doesn't know where a definition came from.

mod catalog;
mod expression;
mod parameters;
mod policy;

pub use catalog::Catalog;
pub use expression::{Expression, ExpressionError, expressions, filled, marked};
pub use parameters::{json_schema, validate};
pub use policy::parse_policy;
