//! Data providers of the engine. They need what workers have no credential for, so they are answered here, for whoever asks and
//! with their rights.

use serde_json::{Map, Value};

use super::DataOption;
use crate::authz::{Action, Resource};
use crate::definition::BUILT_IN_PROVIDERS;
use crate::domain::Zone;
use crate::tenancy::Scope;
use crate::usecase::offer::{self, State};
use crate::usecase::{Context, Result, node_type, secret};

/// Most entries of any list.
const MOST: usize = 10_000;
/// Members that are read at once.
const PAGE: usize = 500;

/// The options of a data provider of the engine, with inputs that are checked.
///
/// # Errors
/// When the scope may not list them, or storage fails.
pub(super) async fn options(
    cx: &Context,
    scope: &Scope,
    name: &str,
    inputs: &Map<String, Value>,
) -> Result<Vec<DataOption>> {
    let input = |name: &str| inputs.get(name).and_then(Value::as_str).map(str::to_owned);
    match name.strip_prefix(BUILT_IN_PROVIDERS).unwrap_or_default() {
        "members" => members(cx, scope).await,
        "node_types" => {
            let wanted = node_type::Wanted {
                category: input("category"),
                ..node_type::Wanted::default()
            };
            let (items, _) = node_type::list(cx, scope, &wanted, None, MOST).await?;
            let options = items.iter().map(|one| match one {
                node_type::Listed::BuiltIn(kind) => option(&kind.name, Some(&kind.title), &kind.description),
                node_type::Listed::Workspace(declared) => option(&declared.name, None, &declared.description),
                node_type::Listed::Library(head) => option(head.name.as_str(), Some(&head.title), ""),
            });
            Ok(options.collect())
        }
        "secrets" => {
            let all = secret::list(cx, scope).await?;
            let options = all
                .iter()
                .map(|one| option(one.record.name.as_str(), None, &one.record.description));
            Ok(options.collect())
        }
        "time_zones" => Ok(Zone::names().iter().map(|name| DataOption::plain(name)).collect()),
        "workflows" => {
            if scope.authorize(Action::Run, Resource::Workflow).is_err() {
                return Ok(Vec::new());
            }
            let wanted = offer::Wanted {
                category: input("category"),
                tag: input("tag"),
                state: Some(State::Published),
                ..offer::Wanted::default()
            };
            let (_, items, _) = offer::list(cx, scope, &wanted, (None, MOST)).await?;
            let callable = items
                .iter()
                .filter(|one| one.findings.is_empty() && one.refused.is_empty());
            let options = callable.map(|one| option(&one.declared.name, None, &one.declared.description));
            Ok(options.collect())
        }
        _ => Ok(Vec::new()),
    }
}

async fn members(cx: &Context, scope: &Scope) -> Result<Vec<DataOption>> {
    scope.authorize(Action::List, Resource::Member)?;
    let (mut options, mut after) = (Vec::new(), None);
    loop {
        let page = cx.identities.list_members(scope, PAGE, after).await?;
        let members = page.items.iter();
        options.extend(members.map(|one| option(&one.user.to_string(), Some(&one.name), one.role.as_str())));
        after = page.next;
        if after.is_none() || options.len() >= MOST {
            break;
        }
    }
    options.truncate(MOST);
    options.sort_by(|one, other| (&one.label, one.value.as_str()).cmp(&(&other.label, other.value.as_str())));
    Ok(options)
}

fn option(value: &str, label: Option<&String>, description: &str) -> DataOption {
    DataOption {
        label: label
            .filter(|label| !label.is_empty())
            .map_or(value, |label| label)
            .to_owned(),
        description: (!description.is_empty()).then(|| description.to_owned()),
        ..DataOption::plain(value)
    }
}
