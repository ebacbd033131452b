//! What was authored → what can be run. Pure: it doesn't know where a definition came from.

mod authored;
mod catalog;
mod difference;
mod dry_run;
mod expression;
mod graph;
mod node_kinds;
mod node_type;
mod options;
mod parameters;
mod policy;
mod shell;
mod source;
mod template;
mod time_limits;
mod yaml;

pub use authored::{
    Authored, Offers, calls_of, digest_of, is_graph, is_workflow_name, nodes_of, read_authored, sorted,
};
pub use catalog::Catalog;
pub use difference::{Change, ChangeKind, difference};
pub use dry_run::{DryStep, dry_run};
pub use expression::{
    DEEPEST, Expression, ExpressionError, MARK, Marked, SECRET_MARK, StepIds, TEXT_MARK, expressions, filled,
    is_too_deep, marked,
};
pub use graph::{
    INEXACT, Library, Offer, ReadGraph, check_against, check_library, connect, cycles_of_children, inexact, place_of,
    read_graph,
};
pub use node_kinds::built_in_kinds;
pub use node_type::{
    MAX_CODE_BYTES, MAX_PORTS, MAX_SETTINGS, check_outputs, check_setting, check_values, parse_document,
};
pub use options::{BUILT_IN_PROVIDERS, PAGING, SEARCH, built_in_providers, check_options, check_setting_options};
pub use parameters::{json_schema, validate};
pub use policy::parse_policy;
pub use source::Source;
pub use time_limits::Longest;
pub use yaml::{ReadYaml, json_schema_of_yaml, read_yaml, to_yaml};
