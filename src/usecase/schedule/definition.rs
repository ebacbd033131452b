//! A schedule as somebody has written it → one that can be kept, or everything that is wrong with it.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::super::{Context, Error, Result, provide_data, resolve};
use crate::authz::Origin;
use crate::definition::validate;
use crate::domain::{CatchUp, Cron, Dst, Overlap, Timestamp, Timing, Zone};
use crate::error::{Coded as _, Finding, Kind};
use crate::store::repo::schedules::Definition;
use crate::tenancy::Scope;

/// Most bytes of the arguments, as JSON.
const MAX_ARGUMENTS: usize = 30_000;
/// Most missed fire times that are made up for at once.
const MAX_CATCH_UP: u32 = 100;
/// How old they may be at most.
const MAX_CATCH_UP_SECONDS: u32 = 7 * 24 * 3600;
/// By how much a fire time is put off at most.
const MAX_JITTER_SECONDS: u32 = 900;

/// What can be written.
const MEMBERS: [&str; 12] = [
    "name",
    "workflow",
    "arguments",
    "cron",
    "timeZone",
    "dst",
    "overlap",
    "catchUp",
    "catchUpAtMost",
    "catchUpWithinSeconds",
    "jitterSeconds",
    "enabled",
];
/// What an answer has beside that: it may be sent back, and says nothing.
const ANSWERED: [&str; 15] = [
    "id",
    "createdBy",
    "createdAt",
    "updatedBy",
    "updatedAt",
    "nextFireAt",
    "nextFireLocal",
    "waitingFireAt",
    "lastFireAt",
    "lastRun",
    "lastOutcome",
    "failures",
    "disabledReason",
    "recent",
    "links",
];

/// Reads a schedule, and checks it against the workflow that it names.
///
/// # Errors
/// All findings at once; when the workspace can't be used.
pub(super) async fn checked(
    cx: &Arc<Context>,
    scope: &Scope,
    origin: &Origin,
    written: &Map<String, Value>,
) -> Result<(Definition, Timing)> {
    let mut reader = Reader {
        written,
        findings: Vec::new(),
    };
    for name in written.keys() {
        if !MEMBERS.contains(&name.as_str()) && !ANSWERED.contains(&name.as_str()) {
            reader.find(name, "unknown", format!("a schedule has no `{name:.60}`"), || {
                format!("it has {}", MEMBERS.map(|known| format!("`{known}`")).join(", "))
            });
        }
    }
    let name = reader.text("name", None);
    if let Some(text) = &name
        && text.parse::<crate::domain::DisplayName>().is_err()
    {
        let message = "`name` must have 1 to 255 characters, none of them a control character";
        reader.find("name", "invalid", message.to_owned(), || {
            "give it a name to show".to_owned()
        });
    }
    let workflow = reader.text("workflow", None);
    let arguments = reader.arguments();
    if let Some(workflow) = &workflow {
        reader.fits(cx, scope, origin, workflow, arguments.as_ref()).await?;
    }
    let cron = reader.text("cron", None);
    let time_zone = reader.text("timeZone", Some("UTC"));
    let dst = reader.choice("dst", Dst::default(), Dst::parse, || words(Dst::ALL, Dst::as_str));
    let overlap = reader.choice("overlap", Overlap::default(), Overlap::parse, || {
        words(Overlap::ALL, Overlap::as_str)
    });
    let catch_up = reader.choice("catchUp", CatchUp::default(), CatchUp::parse, || {
        words(CatchUp::ALL, CatchUp::as_str)
    });
    let catch_up_at_most = reader.number("catchUpAtMost", 10, 1, MAX_CATCH_UP);
    let catch_up_within_seconds = reader.number("catchUpWithinSeconds", 3600, 0, MAX_CATCH_UP_SECONDS);
    let jitter_seconds = reader.number("jitterSeconds", 0, 0, MAX_JITTER_SECONDS);
    let enabled = match written.get("enabled") {
        None | Some(Value::Null) => true,
        Some(Value::Bool(enabled)) => *enabled,
        Some(_) => {
            let message = "`enabled` must be true or false".to_owned();
            reader.find("enabled", "wrong_type", message, || "leave it out for true".to_owned());
            true
        }
    };
    let timing = match (&cron, &time_zone) {
        (Some(cron), Some(zone)) => match timing_of(cron, zone, Some(dst.as_str()), cx.clock.now()) {
            Ok(timing) => Some(timing),
            Err(findings) => {
                reader.findings.extend(findings);
                None
            }
        },
        _ => None,
    };
    match (name, workflow, arguments, timing) {
        (Some(name), Some(workflow), Some(arguments), Some(timing)) if reader.findings.is_empty() => {
            let definition = Definition {
                name: name.trim().to_owned(),
                workflow,
                arguments,
                cron: timing.cron.as_str().to_owned(),
                time_zone: timing.zone.name().to_owned(),
                dst,
                overlap,
                catch_up,
                catch_up_at_most,
                catch_up_within_seconds,
                jitter_seconds,
                enabled,
            };
            Ok((definition, timing))
        }
        _ => Err(Error::invalid(
            "schedule_invalid",
            format!("the schedule has {} finding(s)", reader.findings.len()),
            "mend them all; `POST /api/schedules/preview` tries a cron expression without keeping anything",
            reader.findings,
        )),
    }
}

/// The timing that is meant, or everything that is wrong with it.
///
/// # Errors
/// Findings at `/cron`, `/timeZone` and `/dst`.
pub(super) fn timing_of(
    cron: &str,
    time_zone: &str,
    dst: Option<&str>,
    now: Timestamp,
) -> std::result::Result<Timing, Vec<Finding>> {
    let mut findings = Vec::new();
    let cron = Cron::parse(cron).map_err(|problems| {
        let found = problems
            .into_iter()
            .map(|problem| Finding::new("/cron", problem.finding, problem.message).hint(problem.hint));
        findings.extend(found);
    });
    let zone = Zone::find(time_zone).map_err(|near| {
        let hint = if near.is_empty() {
            "give a name of the IANA database, as `Europe/Berlin` or `UTC`".to_owned()
        } else {
            let near: Vec<_> = near.iter().map(|name| format!("`{name}`")).collect();
            format!("did you mean {}?", near.join(" or "))
        };
        let message = format!("`{time_zone:.60}` is not a time zone");
        findings.push(Finding::new("/timeZone", "unknown_time_zone", message).hint(hint));
    });
    let dst = dst.map_or(Some(Dst::default()), Dst::parse);
    if dst.is_none() {
        let allowed = format!("allowed are {}", words(Dst::ALL, Dst::as_str));
        findings.push(Finding::new("/dst", "unknown", "`dst` is none of its values").hint(allowed));
    }
    let (Ok(cron), Ok(zone), Some(dst)) = (cron, zone, dst) else {
        return Err(findings);
    };
    let timing = Timing { cron, zone, dst };
    if timing.next(now).is_none() {
        let message = format!("`{}` doesn't come within the next 45 years", timing.cron);
        let hint = "give a day that comes".to_owned();
        return Err(vec![Finding::new("/cron", "cron_never", message).hint(hint)]);
    }
    Ok(timing)
}

fn words<T: Copy>(all: &[T], text: impl Fn(T) -> &'static str) -> String {
    let all: Vec<_> = all.iter().map(|one| format!("`{}`", text(*one))).collect();
    all.join(", ")
}

struct Reader<'a> {
    written: &'a Map<String, Value>,
    findings: Vec<Finding>,
}

impl Reader<'_> {
    fn find(&mut self, name: &str, code: &str, message: String, hint: impl FnOnce() -> String) {
        let name: String = name.chars().take(60).collect();
        let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
        self.findings.push(Finding::new(pointer, code, message).hint(hint()));
    }

    fn text(&mut self, name: &str, default: Option<&str>) -> Option<String> {
        match (self.written.get(name), default) {
            (None | Some(Value::Null), Some(default)) => Some(default.to_owned()),
            (None | Some(Value::Null), None) => {
                self.find(name, "required", format!("`{name}` is missing"), || {
                    "give a text".to_owned()
                });
                None
            }
            (Some(Value::String(text)), _) => Some(text.clone()),
            (Some(_), _) => {
                self.find(name, "wrong_type", format!("`{name}` must be a text"), || {
                    "give a text".to_owned()
                });
                None
            }
        }
    }

    fn choice<T>(
        &mut self,
        name: &str,
        default: T,
        parse: impl Fn(&str) -> Option<T>,
        words: impl FnOnce() -> String,
    ) -> T {
        match self.written.get(name) {
            None | Some(Value::Null) => return default,
            Some(Value::String(text)) => {
                if let Some(found) = parse(text) {
                    return found;
                }
                let message = format!("`{text:.40}` is no value of `{name}`");
                self.find(name, "unknown", message, || format!("allowed are {}", words()));
            }
            Some(_) => {
                let message = format!("`{name}` must be a text");
                self.find(name, "wrong_type", message, || format!("allowed are {}", words()));
            }
        }
        default
    }

    fn number(&mut self, name: &str, default: u32, least: u32, most: u32) -> u32 {
        let number = match self.written.get(name) {
            None | Some(Value::Null) => return default,
            Some(value) => value.as_u64().and_then(|number| u32::try_from(number).ok()),
        };
        match number.filter(|number| (least..=most).contains(number)) {
            Some(number) => number,
            None => {
                let message = format!("`{name}` must be a whole number from {least} to {most}");
                self.find(name, "out_of_range", message, || format!("leave it out for {default}"));
                default
            }
        }
    }

    fn arguments(&mut self) -> Option<Map<String, Value>> {
        match self.written.get("arguments") {
            None | Some(Value::Null) => Some(Map::new()),
            Some(Value::Object(arguments)) => {
                let size = Value::Object(arguments.clone()).to_string().len();
                if size > MAX_ARGUMENTS {
                    let message = format!("`arguments` has {size} bytes, over the limit of {MAX_ARGUMENTS}");
                    self.find("arguments", "too_large", message, || {
                        "have the workflow read what is large by itself".to_owned()
                    });
                    return None;
                }
                Some(arguments.clone())
            }
            Some(_) => {
                let message = "`arguments` must be an object".to_owned();
                self.find("arguments", "wrong_type", message, || {
                    "give the arguments by name, as `{\"name\": \"Ada\"}`".to_owned()
                });
                None
            }
        }
    }

    /// Whether there is such a workflow that takes such arguments.
    async fn fits(
        &mut self,
        cx: &Arc<Context>,
        scope: &Scope,
        origin: &Origin,
        workflow: &str,
        arguments: Option<&Map<String, Value>>,
    ) -> Result<()> {
        match resolve::resolve(cx, scope, workflow).await {
            Ok(found) => {
                let declared = found.declared();
                let findings = match arguments.map(|given| validate(&declared.parameters, given)) {
                    None => Vec::new(),
                    Some(Err(findings)) => findings,
                    // Options change; a schedule whose own are gone can be paused all the same.
                    Some(Ok(_)) if self.written.get("enabled") == Some(&Value::Bool(false)) => Vec::new(),
                    Some(Ok(arguments)) => {
                        let held = provide_data::options_hold(cx, scope, origin, declared, &arguments);
                        match Box::pin(held).await {
                            Ok(()) => Vec::new(),
                            Err(Error::Request {
                                code: "arguments_invalid",
                                findings,
                                ..
                            }) => findings,
                            Err(error) => return Err(error),
                        }
                    }
                };
                self.findings.extend(findings.into_iter().map(|finding| Finding {
                    pointer: format!("/arguments{}", finding.pointer),
                    ..finding
                }));
                Ok(())
            }
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Conflict) => {
                let hint = error.hint().unwrap_or_default();
                self.find("workflow", "unknown", error.to_string(), || hint);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}
