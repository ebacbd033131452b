//! How a caller says when a run may begin, and before which others: query parameters beside the arguments, which are the body.

use std::time::Duration;

use axum::http::HeaderMap;
use serde::Deserialize;

use crate::domain::{Ask, Begins, ConcurrencyKey, OnConflict, Priority, SecurityProfile, Timestamp};
use crate::error::{Finding, Kind};
use crate::http::problem::ApiError;

/// The furthest time that a run may be put off to: ten years.
const FURTHEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// When a run may begin, and before which others.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
pub struct StartOptions {
    /// The run exists at once and begins at this time. Answered with 202.
    #[param(example = "2026-12-24T18:00:00Z")]
    run_at: Option<String>,
    /// The same, so many seconds from now.
    delay: Option<String>,
    /// `low`, `normal`, `high`, or 0 to 9: which of the organization's waiting runs go first.
    priority: Option<String>,
    /// Of runs with the same key only `concurrencyLimit` are under way at once; 1 to 200 characters.
    concurrency_key: Option<String>,
    /// How many, 1 to 100; 1 by default.
    concurrency_limit: Option<String>,
    /// What happens when there are as many: `queue` (by default) waits, `skip` starts nothing and answers 409,
    /// `cancel_running` cancels the one that has held the key longest.
    on_conflict: Option<String>,
    /// `plan_only`, `restricted`, `standard` or `elevated`: the run is held to this security profile, where that is stricter
    /// than those of the installation, the policies and the workflow.
    security_profile: Option<String>,
    /// The hash of a plan: the run is the one that was planned, or it isn't started (409 `plan_changed`).
    plan: Option<String>,
    /// `true` runs the draft, for those who may edit it; the run is marked as a test.
    draft: Option<String>,
}

/// Under which security profile a run is planned.
#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase")]
pub struct PlanOptions {
    /// As at `execute`.
    security_profile: Option<String>,
    /// As at `execute`.
    draft: Option<String>,
}

impl PlanOptions {
    /// Reads it: the profile, and whether the draft is meant.
    ///
    /// # Errors
    /// A problem where it is no profile.
    pub fn read(self) -> Result<(Option<SecurityProfile>, bool), ApiError> {
        let draft = super::flag("draft", self.draft.as_deref())?;
        let Some(text) = self.security_profile.filter(|text| !text.is_empty()) else {
            return Ok((None, draft));
        };
        SecurityProfile::parse(&text)
            .map(|profile| (Some(profile), draft))
            .ok_or_else(|| {
                let message = "`securityProfile` must be `plan_only`, `restricted`, `standard` or `elevated`";
                ApiError::new(Kind::Invalid, "parameter_invalid", message).findings(vec![Finding::new(
                    "query:securityProfile",
                    "invalid",
                    message,
                )])
            })
    }
}

impl StartOptions {
    /// Whether the draft is meant.
    ///
    /// # Errors
    /// A problem where it says neither.
    pub fn draft(&self) -> Result<bool, ApiError> {
        super::flag("draft", self.draft.as_deref())
    }

    /// Reads all of them: what is asked for at this time, and how its beginning was said.
    ///
    /// # Errors
    /// A problem with every mistake.
    pub fn read(self, headers: &HeaderMap, now: Timestamp) -> Result<(Ask, Begins), ApiError> {
        let mut findings = Vec::new();
        let mut wrong = |name: &str, code: &'static str, message: String| {
            findings.push(Finding::new(format!("query:{name}"), code, message));
        };
        let some = |text: Option<String>| text.filter(|text| !text.is_empty());
        let (run_at, delay) = (some(self.run_at), some(self.delay));
        let begins = match (&run_at, &delay) {
            (Some(_), Some(_)) => {
                wrong("delay", "ambiguous", "give `runAt` or `delay`, not both".to_owned());
                Begins::AtOnce
            }
            (Some(text), None) => match Timestamp::parse(text) {
                Ok(at) if at.since(now) <= FURTHEST => Begins::At(at),
                Ok(_) => {
                    wrong("runAt", "too_far", "`runAt` is more than ten years away".to_owned());
                    Begins::AtOnce
                }
                Err(_) => {
                    wrong(
                        "runAt",
                        "invalid",
                        "`runAt` must be a time like `2026-12-24T18:00:00Z`".to_owned(),
                    );
                    Begins::AtOnce
                }
            },
            (None, Some(text)) => match text.parse::<f64>() {
                Ok(0.0) => Begins::AtOnce,
                Ok(seconds) if seconds > 0.0 && seconds <= FURTHEST.as_secs_f64() => {
                    Begins::After(Duration::from_secs_f64(seconds))
                }
                _ => {
                    let message = format!("`delay` must be a number of seconds from 0 to {}", FURTHEST.as_secs());
                    wrong("delay", "invalid", message);
                    Begins::AtOnce
                }
            },
            (None, None) => Begins::AtOnce,
        };
        let not_before = match begins {
            Begins::AtOnce => None,
            Begins::At(at) => Some(at),
            Begins::After(delay) => Some(now.plus(delay)),
        };
        let priority = match some(self.priority) {
            None => Priority::default(),
            Some(text) => Priority::parse(&text).unwrap_or_else(|| {
                let message = "`priority` must be `low`, `normal`, `high` or a digit from 0 to 9".to_owned();
                wrong("priority", "invalid", message);
                Priority::default()
            }),
        };
        let limit = match some(self.concurrency_limit) {
            None => None,
            Some(text) => match text.parse::<u32>() {
                Ok(number) if (1..=ConcurrencyKey::MOST).contains(&number) => Some(number),
                _ => {
                    let message = format!("`concurrencyLimit` must be a number from 1 to {}", ConcurrencyKey::MOST);
                    wrong("concurrencyLimit", "invalid", message);
                    None
                }
            },
        };
        let on_conflict = match some(self.on_conflict) {
            None => None,
            Some(text) => OnConflict::parse(&text).or_else(|| {
                let message = "`onConflict` must be `queue`, `skip` or `cancel_running`".to_owned();
                wrong("onConflict", "invalid", message);
                None
            }),
        };
        let profile = match some(self.security_profile) {
            None => None,
            Some(text) => SecurityProfile::parse(&text).or_else(|| {
                let message =
                    "`securityProfile` must be `plan_only`, `restricted`, `standard` or `elevated`".to_owned();
                wrong("securityProfile", "invalid", message);
                None
            }),
        };
        let plan = some(self.plan);
        if plan
            .as_ref()
            .is_some_and(|plan| plan.len() != 64 || !plan.bytes().all(|byte| byte.is_ascii_hexdigit()))
        {
            let message = "`plan` is the `hash` of a plan: 64 hexadecimal digits".to_owned();
            wrong("plan", "invalid", message);
        }
        let key = some(self.concurrency_key);
        if let Some(key) = &key
            && (key.chars().count() > ConcurrencyKey::LONGEST || key.chars().any(char::is_control))
        {
            let message = format!(
                "`concurrencyKey` has 1 to {} characters, none of them control characters",
                ConcurrencyKey::LONGEST
            );
            wrong("concurrencyKey", "invalid", message);
        }
        if key.is_none() {
            let given = [
                ("concurrencyLimit", limit.is_some()),
                ("onConflict", on_conflict.is_some()),
            ];
            for (name, _) in given.iter().filter(|(_, given)| *given) {
                wrong(
                    name,
                    "without_key",
                    format!("`{name}` says something about `concurrencyKey`, which is missing"),
                );
            }
        }
        if not_before.is_some_and(|at| at > now) && asks_to_wait(headers) {
            let message = "nobody can wait for a run that begins later".to_owned();
            findings.push(Finding::new("header:Prefer", "wait_for_later", message).hint("leave `Prefer: wait` out"));
        }
        if !findings.is_empty() {
            let detail = format!("the request has {} finding(s)", findings.len());
            return Err(ApiError::new(Kind::Invalid, "parameter_invalid", detail).findings(findings));
        }
        let ask = Ask {
            priority,
            waited_for: false,
            not_before: not_before.filter(|at| *at > now),
            concurrency: key.map(|key| ConcurrencyKey {
                key,
                limit: limit.unwrap_or(1),
                on_conflict: on_conflict.unwrap_or_default(),
            }),
            rerun_of: None,
            profile,
            plan,
        };
        Ok((ask, begins))
    }
}

/// Whether the caller has asked to wait, and not only left it to the default.
fn asks_to_wait(headers: &HeaderMap) -> bool {
    let all = headers.get_all("prefer");
    let mut preferences = all
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    preferences.any(|preference| {
        let name = preference.split(['=', ';']).next().unwrap_or_default();
        name.trim().eq_ignore_ascii_case("wait")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        Timestamp::parse("2026-12-24T18:00:00Z").unwrap()
    }

    #[test]
    fn all_mistakes_are_said_at_once() {
        let options = StartOptions {
            run_at: Some("tomorrow".into()),
            priority: Some("urgent".into()),
            concurrency_limit: Some("0".into()),
            on_conflict: Some("wait".into()),
            concurrency_key: Some("x".repeat(201)),
            security_profile: Some("paranoid".into()),
            plan: None,
            draft: None,
            delay: None,
        };
        let error = options.read(&HeaderMap::new(), now()).unwrap_err();
        assert!(format!("{error:?}").contains("6 finding(s)"), "{error:?}");
    }

    #[test]
    fn what_was_asked_for_is_what_is_asked() {
        let mut headers = HeaderMap::new();
        let options = || StartOptions {
            delay: Some("1.5".into()),
            priority: Some("9".into()),
            concurrency_key: Some("customer-42".into()),
            ..StartOptions::default()
        };
        let (ask, begins) = options().read(&headers, now()).unwrap();
        assert_eq!(begins, Begins::After(Duration::from_millis(1500)));
        assert_eq!(ask.not_before, Some(now().plus(Duration::from_millis(1500))));
        assert_eq!((ask.priority.number(), ask.rank()), (9, 2));
        let concurrency = ask.concurrency.unwrap();
        assert_eq!((concurrency.limit, concurrency.on_conflict), (1, OnConflict::Queue));
        headers.insert("prefer", "wait=5".parse().unwrap());
        assert!(options().read(&headers, now()).is_err());
        let past = StartOptions {
            run_at: Some("2020-01-01T00:00:00Z".into()),
            ..StartOptions::default()
        };
        let at = Timestamp::parse("2020-01-01T00:00:00Z").unwrap();
        assert_eq!(past.read(&headers, now()).unwrap(), (Ask::default(), Begins::At(at)));
    }
}
