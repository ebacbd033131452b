//! Workflows as files: export a revision, and make a draft of a file, as JSON or as YAML.

use serde_json::{Value, json};

use super::workflow::{self, Draft, Expected, Save};
use super::{Context, Error, Result, offer, resolve};
use crate::authz::{Action, Origin, Resource};
use crate::definition::{Source, read_authored, to_yaml};
use crate::error::Finding;
use crate::tenancy::Scope;

/// In which form a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A graph, as docs/graphs.md describes it.
    Json,
    /// YAML steps, as docs/yaml.md describes them.
    Yaml,
}

impl Format {
    /// How a file of it ends.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Yaml => "yaml",
        }
    }
}

/// A workflow as a file: a revision of the organization's, the one that is called without a number; or a graph of the workspace.
///
/// # Errors
/// When the scope may not, there is no such workflow or revision, it is a function, or storage fails.
pub async fn export(
    cx: &Context,
    scope: &Scope,
    name: &str,
    (format, revision): (Format, Option<u32>),
) -> Result<String> {
    scope.authorize(Action::Read, Resource::Workflow)?;
    let graph = match revision {
        Some(number) => workflow::get_revision(cx, scope, name, number).await?.1,
        None => {
            let (_, offered) = offer::get(cx, scope, name, None).await?;
            let current = offered.head.as_ref().map(|head| head.current.as_ref());
            match (current, &offered.declared.graph) {
                (Some(Some(current)), _) => {
                    workflow::get_revision(cx, scope, name, current.revision.number)
                        .await?
                        .1
                }
                (None, Some(graph)) => json!(**graph),
                (Some(None), _) => {
                    return Err(Error::conflict(
                        "workflow_not_exported",
                        format!("workflow `{name}` was never published"),
                        "publish it first; `GET /api/workflows/{name}/draft` has the draft's graph",
                    ));
                }
                (None, None) => {
                    return Err(Error::conflict(
                        "workflow_not_exported",
                        format!("workflow `{name}` is a function in {}", offered.declared.path),
                        "only graphs are exported; copy the file",
                    ));
                }
            }
        }
    };
    Ok(match format {
        Format::Json => format!("{graph:#}\n"),
        Format::Yaml => to_yaml(read_authored(name, &graph).graph()),
    })
}

/// Makes a draft of a file, under the name that stands in it; whether the workflow is new. What is wrong with the file itself is
/// refused, with line and column; what doesn't fit to the workspace is a finding of the draft.
///
/// # Errors
/// When the scope may not, the file has findings, there is a workflow of its name that the caller doesn't say they have seen, or as
/// [`workflow::save_draft`].
pub async fn import(
    cx: &Context,
    scope: &Scope,
    origin: &Origin,
    (format, text): (Format, &str),
    expected: Expected,
) -> Result<(bool, String, Draft)> {
    scope.authorize(Action::Modify, Resource::Workflow)?;
    let path = format!("import.{}", format.extension());
    let (read, source) = Source::read(&path, text);
    if !read.findings.is_empty() {
        let mut placed: Vec<_> = read
            .findings
            .into_iter()
            .map(|one| (source.place_of(text, &one.pointer), one))
            .collect();
        placed.sort_by_key(|(place, _)| *place);
        let findings = placed.into_iter().map(|((line, column), finding)| Finding {
            pointer: format!("{path}:{line}:{column}"),
            ..source.in_words(finding)
        });
        return Err(resolve::invalid("import", findings.collect()));
    }
    let name = read.graph.name.clone();
    // JSON stays as it was written.
    let graph = match format {
        Format::Json => serde_json::from_str(text).unwrap_or(Value::Null),
        Format::Yaml => json!(read.graph),
    };
    let stored = cx.workflows.get(scope, &name).await?;
    let expected = match (stored, expected) {
        (Some(stored), Expected::Nothing) => {
            let head = &stored.head;
            return Err(Error::Outdated {
                code: "workflow_changed",
                detail: format!("there is a workflow `{name}` already, last changed at {}", head.updated_at),
                hint: "send the `ETag` of its draft, or of the workflow where it has none, as `If-Match`; or give the file another name"
                    .to_owned(),
                current: Box::new(json!({
                    "etag": format!("\"{}\"", head.draft.as_ref().map_or_else(|| head.tag(), workflow::DraftHead::tag)),
                    "updatedAt": head.updated_at,
                })),
            });
        }
        // What was seen is what is called, of which there is no draft.
        (Some(stored), Expected::Tag(tag)) if stored.head.draft.is_none() && stored.head.tag() == tag => {
            Expected::Nothing
        }
        (_, expected) => expected,
    };
    let save = Save {
        name: name.clone(),
        graph,
        expected,
        clear: false,
    };
    let (is_new, draft) = workflow::save_draft(cx, scope, origin, save).await?;
    Ok((is_new, name, draft))
}
