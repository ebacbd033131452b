//! Arguments that must be one of the options which a data provider offers when the run starts.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::option::same;
use super::{Asked, DataOption, all};
use crate::authz::Origin;
use crate::domain::{Declared, OptionsFrom};
use crate::error::{Coded as _, Finding};
use crate::tenancy::Scope;
use crate::usecase::{Context, Error, Result, start_run};

/// Looks whether arguments are among the options of parameters that are declared `strict`.
///
/// # Errors
/// `arguments_invalid` with a finding for each that is not; what the provider fails with.
pub(in crate::usecase) async fn options_hold(
    cx: &Arc<Context>,
    scope: &Scope,
    origin: &Origin,
    workflow: &Declared,
    arguments: &Map<String, Value>,
) -> Result<()> {
    // A simulation calls no code.
    if !cx.pauses {
        return Ok(());
    }
    let mut findings = Vec::new();
    for parameter in &workflow.parameters {
        let Some(from) = parameter.options_from().filter(|from| from.strict) else {
            continue;
        };
        let chosen: &[Value] = match arguments.get(&parameter.name) {
            None | Some(Value::Null) => continue,
            Some(Value::Array(items)) => items,
            Some(value) => std::slice::from_ref(value),
        };
        let pointer = format!("/{}", parameter.name);
        let options = match ask(cx, scope, origin, &from, arguments).await {
            Ok(options) => options,
            Err(error) if error.code() == "arguments_invalid" => {
                let message = format!(
                    "whether `{}` is one of the options of `{}` can't be looked up: {error}",
                    parameter.name, from.provider
                );
                let depends: Vec<_> = from.depends_on().into_iter().map(|name| format!("`{name}`")).collect();
                let hint = format!("give the arguments that it depends on as well: {}", depends.join(", "));
                findings.push(Finding::new(pointer, "not_an_option", message).hint(hint));
                continue;
            }
            Err(error) => return Err(error),
        };
        for value in chosen
            .iter()
            .filter(|value| !options.iter().any(|option| same(&option.value, value)))
        {
            let message = format!(
                "`{}` is {:.80}, which is none of the options of data provider `{}`",
                parameter.name,
                value.to_string(),
                from.provider
            );
            let hint = format!("`GET /api/data-providers/{}` lists them", from.provider);
            findings.push(Finding::new(pointer.clone(), "not_an_option", message).hint(hint));
        }
    }
    if findings.is_empty() {
        Ok(())
    } else {
        Err(start_run::wrong_arguments(workflow, findings))
    }
}

async fn ask(
    cx: &Arc<Context>,
    scope: &Scope,
    origin: &Origin,
    from: &OptionsFrom,
    arguments: &Map<String, Value>,
) -> Result<Vec<DataOption>> {
    let inputs = from.inputs.iter().filter_map(|(input, source)| {
        let value = arguments.get(source).filter(|value| !value.is_null())?;
        Some((input.clone(), value.clone()))
    });
    let asked = Asked {
        provider: from.provider.clone(),
        inputs: inputs.collect(),
        search: None,
    };
    let options = all(cx, scope, origin, asked).await;
    options.map_err(|error| match error {
        Error::Request {
            kind,
            code,
            detail,
            hint: _,
            findings,
        } if code == "data_provider_failed" => Error::Request {
            kind,
            code,
            detail,
            hint: Some(
                "the run was not started, as its arguments must be among the options: mend the provider's code"
                    .to_owned(),
            ),
            findings,
        },
        error => error,
    })
}
