//! Schedules: each fire time leads to exactly one run or to a reason why there is none, whoever ticks, how often and how late.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use weft::authz::Origin;
use weft::clock::ManualClock;
use weft::domain::{OrgId, RunId, ScheduleId, Status, Timestamp};
use weft::store::fault::{Call, Fault, Plan, Rule};
use weft::store::key::{PlatformTable, due_bucket_number};
use weft::store::port::Query;
use weft::store::repo::due::{DUE_BUCKETS, DueKind};
use weft::store::repo::runs::RunQuery;
use weft::store::repo::schedules::{Definition, StoredSchedule, fired_run};
use weft::tenancy::{RunRef, Scope, operator, operator_in};
use weft::testing::app::Builder;
use weft::testing::{Answer, TestApp, WORKFLOW};
use weft::usecase::audit_log::AuditQuery;
use weft::usecase::schedule::{self, Change};
use weft::usecase::seed::DEVELOPMENT_KEY;
use weft::usecase::tick::tick;
use weft::usecase::{control_run, drive_run, organization};

const MINUTE: u64 = 60;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

struct World {
    app: TestApp,
    clock: Arc<ManualClock>,
    scope: Scope,
}

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn contoso() -> OrgId {
    "contoso".parse().unwrap()
}

impl World {
    /// It is half a minute before noon.
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::new(at("2026-06-01T11:59:30Z")));
        let app = Builder::default().clock(clock.clone()).start().await;
        Self {
            app,
            clock,
            scope: operator_in(&operator(), &contoso()),
        }
    }

    fn pass(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    async fn tick(&self) -> (usize, usize) {
        let ticked = tick(&self.app.cx).await.unwrap();
        (ticked.due, ticked.left)
    }

    async fn call(&self, method: &str, path: &str, body: &Value) -> Answer {
        let request = self
            .app
            .request(method, path)
            .key(DEVELOPMENT_KEY)
            .organization("contoso");
        request.json(body).send().await
    }

    /// A schedule with these members beside those that it must have.
    async fn schedule(&self, more: Value) -> ScheduleId {
        let mut body = json!({"name": "Nightly", "workflow": WORKFLOW, "cron": "0 12 * * *"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = self.call("POST", "/api/schedules", &body).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["id"].as_str().unwrap().parse().unwrap()
    }

    async fn shown(&self, id: &ScheduleId) -> Value {
        let answer = self.call("GET", &format!("/api/schedules/{id}"), &json!({})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    async fn stored(&self, id: &ScheduleId) -> StoredSchedule {
        self.app.cx.schedules.get(&self.scope, id).await.unwrap().unwrap()
    }

    /// The fire times of a schedule for which there are runs, in order.
    async fn fired(&self, id: &ScheduleId, candidates: &[Timestamp]) -> Vec<Timestamp> {
        let mut found = Vec::new();
        for at in candidates {
            let run = fired_run(&contoso(), id, *at);
            if self.app.cx.runs.get(&self.scope, &run).await.unwrap().is_some() {
                found.push(*at);
            }
        }
        found
    }

    /// All runs of schedules.
    async fn runs(&self) -> Vec<RunId> {
        let query = RunQuery {
            limit: 200,
            ..RunQuery::default()
        };
        let (runs, _) = self.app.cx.runs.list(&self.scope, &query).await.unwrap();
        runs.into_iter().map(|listed| listed.run).collect()
    }

    async fn finish(&self, run: &RunId) {
        let reference = RunRef {
            org: contoso(),
            run: run.clone(),
        };
        let cx = &self.app.cx;
        drive_run::continue_run(cx, &reference, self.clock_now()).await.unwrap();
        let run = cx.runs.get(&self.scope, run).await.unwrap().unwrap();
        assert!(run.state.status.is_terminal());
    }

    fn clock_now(&self) -> Timestamp {
        self.app.cx.clock.now()
    }

    /// When something is due, of every bucket.
    async fn due(&self) -> Vec<Timestamp> {
        let mut found = Vec::new();
        for bucket in 0..DUE_BUCKETS {
            let query = Query::partition(due_bucket_number(bucket));
            let page = self
                .app
                .ports
                .tables
                .query(&PlatformTable::Due.name(), query)
                .await
                .unwrap();
            found.extend(
                page.entities
                    .iter()
                    .map(|row| row.properties.require_time("at").unwrap()),
            );
        }
        found.sort_unstable();
        found
    }

    async fn events(&self, event: &str) -> usize {
        let query = AuditQuery {
            limit: 200,
            ..AuditQuery::default()
        };
        let page = self.app.cx.audit.list(&self.scope, query).await.unwrap();
        page.items.iter().filter(|entry| entry.plain.event == event).count()
    }
}

fn outcomes(shown: &Value) -> Vec<String> {
    let recent = shown["recent"].as_array().unwrap().iter();
    recent
        .map(|fire| fire["outcome"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a_fire_time_leads_to_a_run_in_its_minute() {
    let world = World::new().await;
    let id = world
        .schedule(json!({"arguments": {"name": "Ada"}, "timeZone": "Europe/Berlin", "cron": "0 14 * * *"}))
        .await;
    assert_eq!(world.tick().await, (0, 0));
    let noon = at("2026-06-01T12:00:00Z");
    let shown = world.shown(&id).await;
    assert_eq!(shown["nextFireAt"], noon.to_string());
    assert_eq!(shown["nextFireLocal"], "2026-06-01T14:00:00+02:00");
    assert_eq!(world.due().await, [noon]);
    world.pass(30);
    assert_eq!(world.tick().await, (1, 0));
    // Again in the same minute, and in the next: nothing more.
    assert_eq!(world.tick().await, (0, 0));
    world.pass(MINUTE);
    assert_eq!(world.tick().await, (0, 0));
    let run = fired_run(&contoso(), &id, noon);
    assert_eq!(world.runs().await, std::slice::from_ref(&run));
    let stored = world.app.cx.runs.get(&world.scope, &run).await.unwrap().unwrap();
    assert_eq!(stored.new.requester.kind, "system");
    assert_eq!(stored.new.requester.id, format!("schedule:{id}"));
    assert_eq!(stored.new.requester.name, "Nightly");
    assert_eq!(stored.new.created_at, noon);
    let shown = world.shown(&id).await;
    assert_eq!(shown["lastOutcome"], "started");
    assert_eq!(shown["lastRun"], run.as_str());
    assert_eq!(shown["lastFireAt"], noon.to_string());
    assert_eq!(shown["nextFireAt"], "2026-06-02T12:00:00.000Z");
    assert_eq!(world.due().await, [at("2026-06-02T12:00:00Z")]);
    world.finish(&run).await;
    let stored = world.app.cx.runs.get(&world.scope, &run).await.unwrap().unwrap();
    assert_eq!(stored.state.status, Status::Succeeded);
    assert_eq!(world.app.scripted.asked()[0].arguments, json!({"name": "Ada"}));
    assert_eq!(world.events("schedule.changed").await, 1);
    assert_eq!(world.events("run.started").await, 1);
}

#[tokio::test]
async fn a_timer_that_is_a_little_early_is_early_enough() {
    let world = World::new().await;
    let id = world.schedule(json!({})).await;
    world.clock.advance(Duration::from_millis(29_200));
    assert_eq!(world.tick().await, (1, 0));
    assert_eq!(world.shown(&id).await["lastFireAt"], "2026-06-01T12:00:00.000Z");
    world.pass(1);
    assert_eq!(world.tick().await, (0, 0));
    assert_eq!(world.runs().await.len(), 1);
}

#[tokio::test]
async fn many_who_tick_at_once_start_one_run() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(world.schedule(json!({})).await);
    }
    world.pass(30);
    let ticks = (0..6).map(|_| tick(&world.app.cx));
    for ticked in futures::future::join_all(ticks).await {
        ticked.unwrap();
    }
    assert_eq!(world.runs().await.len(), ids.len());
    for id in &ids {
        let stored = world.stored(id).await;
        assert_eq!(stored.progress.firing, None);
        assert_eq!(stored.progress.recent.len(), 1, "{:?}", stored.progress);
        assert_eq!(stored.progress.last_outcome.as_deref(), Some("started"));
    }
    // Whoever met a schedule that somebody else was at has left the row; the next tick finds it done.
    world.pass(MINUTE);
    world.tick().await;
    world.pass(15 * MINUTE);
    world.tick().await;
    assert_eq!(world.due().await, vec![at("2026-06-02T12:00:00Z"); ids.len()]);
    assert_eq!(world.runs().await.len(), ids.len());
}

/// Every write of a tick is the last one that its process makes, or the one whose answer is lost.
#[tokio::test]
async fn a_tick_that_dies_anywhere_loses_and_doubles_nothing() {
    let noon = at("2026-06-01T12:00:00Z");
    let tomorrow = at("2026-06-02T12:00:00Z");
    for fault in [Fault::Crash, Fault::CrashAfter, Fault::Before, Fault::After] {
        let mut reached = 0;
        for number in 1.. {
            let world = World::new().await;
            let id = world.schedule(json!({})).await;
            world.pass(30);
            world.app.faults.reset();
            world
                .app
                .faults
                .plan(Plan::Script(vec![Rule::new(fault).writes().only(number)]));
            // It may fail, or leave what it could not do.
            let ticked = tick(&world.app.cx).await;
            let injected = world.app.faults.injected();
            world.app.faults.plan(Plan::Calm);
            world.app.faults.heal();
            if injected == 0 {
                ticked.unwrap();
                break;
            }
            reached = number;
            let of = format!("{fault:?} at write {number}");
            for _ in 0..2 {
                world.pass(MINUTE);
                world.tick().await;
            }
            assert_eq!(world.fired(&id, &[noon, tomorrow]).await, [noon], "{of}");
            let progress = world.stored(&id).await.progress;
            assert_eq!(progress.firing, None, "{of}");
            assert_eq!(progress.last_fire_at, Some(noon), "{of}");
            assert_eq!(progress.recent.len(), 1, "{of}: {:?}", progress.recent);
            assert!(world.due().await.contains(&tomorrow), "{of}");
            world.finish(&fired_run(&contoso(), &id, noon)).await;
            // The next day is as if nothing had been, and rows that nobody expects are gone.
            world.pass(DAY - 2 * MINUTE);
            world.tick().await;
            assert_eq!(world.fired(&id, &[noon, tomorrow]).await, [noon, tomorrow], "{of}");
            assert_eq!(world.due().await, [at("2026-06-03T12:00:00Z")], "{of}");
        }
        assert!(reached >= 8, "{fault:?} befell {reached} writes only");
    }
}

#[tokio::test]
async fn a_tick_that_comes_late_makes_up_for_what_the_policy_says() {
    // Every ten minutes from 12:00; the next tick is at 13:05.
    let come = |minutes: u64| at("2026-06-01T12:00:00Z").plus(Duration::from_secs(minutes * MINUTE));
    let all: Vec<_> = (0..7).map(|number| come(number * 10)).collect();
    for (policy, expected, missed) in [
        (json!({"catchUp": "none"}), vec![come(60)], 6),
        (json!({"catchUp": "last"}), vec![come(60)], 6),
        (json!({}), vec![come(60)], 6),
        (
            json!({"catchUp": "all"}),
            (1..7).map(|number| come(number * 10)).collect(),
            1,
        ),
        (
            json!({"catchUp": "all", "catchUpAtMost": 3}),
            vec![come(40), come(50), come(60)],
            4,
        ),
        (
            json!({"catchUp": "all", "catchUpWithinSeconds": 1500}),
            vec![come(40), come(50), come(60)],
            4,
        ),
        (json!({"catchUp": "all", "catchUpWithinSeconds": 7200}), all.clone(), 0),
    ] {
        let world = World::new().await;
        let mut more = json!({"cron": "*/10 * * * *", "overlap": "allow"});
        more.as_object_mut()
            .unwrap()
            .extend(policy.as_object().unwrap().clone());
        let id = world.schedule(more).await;
        world.pass(HOUR + 5 * MINUTE + 30);
        world.tick().await;
        assert_eq!(world.fired(&id, &all).await, expected, "{policy}");
        let shown = world.shown(&id).await;
        assert_eq!(shown["nextFireAt"], come(70).to_string(), "{policy}");
        let told: Vec<_> = outcomes(&shown)
            .into_iter()
            .filter(|text| text.starts_with("missed"))
            .collect();
        if missed == 0 {
            assert!(told.is_empty(), "{told:?}");
        } else {
            assert_eq!(told.len(), 1, "{told:?}");
            let count = if missed == 1 {
                "the fire time".to_owned()
            } else {
                format!("{missed} fire times")
            };
            assert!(told[0].contains(&count), "{told:?}");
            assert_eq!(world.events("schedule.skipped").await, 1);
        }
    }
}

#[tokio::test]
async fn what_is_too_old_is_missed_whatever_the_policy() {
    for policy in ["none", "last", "all"] {
        let world = World::new().await;
        let id = world.schedule(json!({"catchUp": policy})).await;
        world.pass(3 * HOUR);
        world.tick().await;
        assert!(world.runs().await.is_empty(), "{policy}");
        let shown = world.shown(&id).await;
        let last = shown["lastOutcome"].as_str().unwrap();
        assert!(
            last.starts_with("missed: the fire time 2026-06-01T12:00:00.000Z"),
            "{last}"
        );
        assert!(last.contains(policy));
        assert_eq!(shown["nextFireAt"], "2026-06-02T12:00:00.000Z");
    }
}

#[tokio::test]
async fn a_week_without_a_tick_is_no_storm() {
    let world = World::new().await;
    let id = world
        .schedule(json!({"cron": "* * * * *", "catchUp": "all", "overlap": "allow"}))
        .await;
    world.pass(7 * DAY);
    world.tick().await;
    assert_eq!(world.runs().await.len(), 10);
    let shown = world.shown(&id).await;
    let told = outcomes(&shown);
    assert!(
        told.last()
            .unwrap()
            .starts_with("missed: 10070 fire times from 2026-06-01T12:00:00.000Z"),
        "{told:?}"
    );
}

#[tokio::test]
async fn an_unfinished_run_decides_by_the_policy_for_overlaps() {
    let noon = at("2026-06-01T12:00:00Z");
    let minute = |number: u64| noon.plus(Duration::from_secs(number * MINUTE));
    for (overlap, expected) in [
        ("skip", "skipped: run `"),
        ("allow", "started"),
        ("cancel_previous", "started"),
        ("queue", "waiting: run `"),
    ] {
        let world = World::new().await;
        let id = world.schedule(json!({"cron": "* * * * *", "overlap": overlap})).await;
        world.pass(30);
        world.tick().await;
        let first = fired_run(&contoso(), &id, noon);
        world.pass(MINUTE);
        world.tick().await;
        let shown = world.shown(&id).await;
        let last = shown["lastOutcome"].as_str().unwrap();
        assert!(last.starts_with(expected), "{overlap}: {last}");
        let fired = world.fired(&id, &[minute(0), minute(1), minute(2)]).await;
        let status = world
            .app
            .cx
            .runs
            .get(&world.scope, &first)
            .await
            .unwrap()
            .unwrap()
            .state
            .status;
        match overlap {
            "skip" => {
                assert_eq!((fired.len(), status), (1, Status::Pending));
                assert_eq!(world.events("schedule.skipped").await, 1);
                // It has ended: the next one is started.
                world.finish(&first).await;
                world.pass(MINUTE);
                world.tick().await;
                assert_eq!(world.fired(&id, &[minute(1), minute(2)]).await, [minute(2)]);
            }
            "allow" => assert_eq!((fired.len(), status), (2, Status::Pending)),
            "cancel_previous" => assert_eq!((fired.len(), status), (2, Status::Cancelled)),
            _ => {
                assert_eq!((fired.len(), status), (1, Status::Pending));
                assert_eq!(shown["waitingFireAt"], minute(1).to_string());
                // One waits; the next is skipped.
                world.pass(MINUTE);
                world.tick().await;
                let told = outcomes(&world.shown(&id).await);
                assert!(told[0].contains("another fire time waits"), "{told:?}");
                assert!(told[1].starts_with("waiting"), "{told:?}");
                // The run has ended: the one that waits is started, and the one that has come waits for it.
                world.finish(&first).await;
                world.pass(MINUTE);
                world.tick().await;
                assert_eq!(world.fired(&id, &[minute(1), minute(2), minute(3)]).await, [minute(1)]);
                let shown = world.shown(&id).await;
                assert_eq!(shown["waitingFireAt"], minute(3).to_string());
                assert_eq!(shown["lastRun"], fired_run(&contoso(), &id, minute(1)).as_str());
            }
        }
    }
}

#[tokio::test]
async fn what_waits_is_started_within_a_minute_of_the_end_and_before_the_next_fire_time() {
    let world = World::new().await;
    let id = world
        .schedule(json!({"cron": "0,1 12 * * *", "overlap": "queue"}))
        .await;
    let noon = at("2026-06-01T12:00:00Z");
    let second = at("2026-06-01T12:01:00Z");
    world.pass(30);
    world.tick().await;
    world.pass(MINUTE);
    world.tick().await;
    // It is looked at again and again, for hours if need be, and is not too old then.
    for _ in 0..90 {
        world.pass(MINUTE);
        world.tick().await;
    }
    assert_eq!(world.fired(&id, &[noon, second]).await, [noon]);
    assert_eq!(world.stored(&id).await.progress.waiting, Some(second));
    world.finish(&fired_run(&contoso(), &id, noon)).await;
    world.pass(MINUTE);
    world.tick().await;
    assert_eq!(world.fired(&id, &[noon, second]).await, [noon, second]);
    let stored = world.stored(&id).await;
    assert_eq!((stored.progress.waiting, stored.progress.firing), (None, None));
    assert_eq!(stored.progress.next_fire_at, Some(at("2026-06-02T12:00:00Z")));
    assert_eq!(outcomes(&world.shown(&id).await), ["started", "started"]);
    world.pass(15 * MINUTE);
    world.tick().await;
    assert_eq!(world.due().await, [at("2026-06-02T12:00:00Z")]);
}

/// A schedule as an earlier version of the workspace allowed it.
async fn of_workflow_that_is_gone(world: &World) -> ScheduleId {
    let definition = Definition {
        name: "Gone".into(),
        workflow: "gone".into(),
        arguments: Map::new(),
        cron: "* * * * *".into(),
        time_zone: "UTC".into(),
        dst: weft::domain::Dst::Shift,
        overlap: weft::domain::Overlap::Skip,
        catch_up: weft::domain::CatchUp::Last,
        catch_up_at_most: 10,
        catch_up_within_seconds: 3600,
        jitter_seconds: 0,
        enabled: true,
    };
    let cx = &world.app.cx;
    let now = cx.clock.now();
    let id = ScheduleId::generate(now, [3; 10]);
    let mut stored = StoredSchedule::new(id.clone(), definition, "operator".into(), now);
    let next = at("2026-06-01T12:00:00Z");
    stored.progress.next_fire_at = Some(next);
    stored.progress.due_at = Some(next);
    cx.due
        .put(&world.scope, DueKind::Schedule, next, id.as_str(), now)
        .await
        .unwrap();
    assert!(cx.schedules.insert(&world.scope, &stored).await.unwrap());
    id
}

#[tokio::test]
async fn what_fails_ten_times_in_a_row_is_switched_off_and_says_why() {
    let world = World::new().await;
    let id = of_workflow_that_is_gone(&world).await;
    world.pass(30);
    for number in 1..=9 {
        world.tick().await;
        let shown = world.shown(&id).await;
        assert_eq!(shown["failures"], number);
        assert_eq!(shown["enabled"], true);
        assert_eq!(shown["lastOutcome"], "failed: there is no workflow `gone`");
        world.pass(MINUTE);
    }
    world.tick().await;
    let shown = world.shown(&id).await;
    assert_eq!(shown["enabled"], false);
    assert_eq!(shown["nextFireAt"], Value::Null);
    let reason = shown["disabledReason"].as_str().unwrap();
    assert!(
        reason.starts_with("10 fire times in a row failed; the last: failed: there is no workflow"),
        "{reason}"
    );
    assert_eq!(world.events("schedule.failed").await, 10);
    assert_eq!(world.events("schedule.disabled").await, 1);
    world.pass(15 * MINUTE);
    world.tick().await;
    assert!(world.runs().await.is_empty());
    assert!(world.due().await.is_empty());
    // Mended and switched on, it goes on.
    let body = json!({"name": "Mended", "workflow": WORKFLOW, "cron": "* * * * *"});
    let answer = world.call("PUT", &format!("/api/schedules/{id}"), &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["disabledReason"], Value::Null);
    assert_eq!(answer.json()["failures"], 0);
    world.pass(MINUTE);
    world.tick().await;
    assert_eq!(world.runs().await.len(), 1);
}

#[tokio::test]
async fn an_organization_that_is_switched_off_starts_nothing() {
    let world = World::new().await;
    let id = world.schedule(json!({})).await;
    organization::set_active(&world.app.cx, &operator(), &contoso(), false)
        .await
        .unwrap();
    world.pass(30);
    world.tick().await;
    assert!(world.runs().await.is_empty());
    let progress = world.stored(&id).await.progress;
    assert_eq!(
        progress.last_outcome.as_deref(),
        Some("skipped: the organization is not active")
    );
    assert_eq!(progress.next_fire_at, Some(at("2026-06-02T12:00:00Z")));
}

/// A due row is believed no further than its own organization's schedules.
#[tokio::test]
async fn a_row_of_another_organization_starts_nothing() {
    let world = World::new().await;
    let id = world.schedule(json!({"enabled": false})).await;
    let fabrikam = operator_in(&operator(), &"fabrikam".parse().unwrap());
    let (cx, now) = (&world.app.cx, world.clock_now());
    for id in [id.as_str(), "nonsense", "~count"] {
        cx.due.put(&fabrikam, DueKind::Schedule, now, id, now).await.unwrap();
    }
    assert_eq!(world.tick().await, (0, 3));
    world.pass(11 * MINUTE);
    assert_eq!(world.tick().await, (3, 0));
    assert!(world.runs().await.is_empty() && world.due().await.is_empty());
    assert!(world.stored(&id).await.progress.recent.is_empty());
}

#[tokio::test]
async fn storage_that_is_away_delays_and_loses_nothing() {
    let world = World::new().await;
    let id = world.schedule(json!({})).await;
    world.pass(30);
    world.app.faults.down(true);
    for _ in 0..3 {
        tick(&world.app.cx).await.unwrap_err();
        world.pass(MINUTE);
    }
    world.app.faults.down(false);
    world.tick().await;
    assert_eq!(world.shown(&id).await["lastOutcome"], "started");
    assert_eq!(world.runs().await.len(), 1);
}

#[tokio::test]
async fn a_schedule_that_is_changed_or_deleted_leaves_no_row_that_fires() {
    let world = World::new().await;
    let id = world.schedule(json!({})).await;
    let path = format!("/api/schedules/{id}");
    let before = world.call("GET", &path, &json!({})).await;
    let tag = before.header("etag").to_owned();
    // What was read can be changed and sent back; the tag is that of what somebody wrote.
    let mut body = before.json();
    body["cron"] = json!("30 12 * * *");
    let put = |tag: &str| {
        let request = world
            .app
            .request("PUT", &path)
            .key(DEVELOPMENT_KEY)
            .organization("contoso");
        request.header("if-match", tag).json(&body).send()
    };
    let answer = put("\"another\"").await;
    assert_eq!((answer.status, answer.code().as_str()), (412, "schedule_changed"));
    let answer = put(&tag).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_ne!(answer.header("etag"), tag);
    assert_eq!(answer.json()["nextFireAt"], "2026-06-01T12:30:00.000Z");
    // The row of noon is there and fires nothing.
    world.pass(30);
    world.tick().await;
    assert!(world.runs().await.is_empty());
    world.pass(30 * MINUTE);
    world.tick().await;
    assert_eq!(world.fired(&id, &[at("2026-06-01T12:30:00Z")]).await.len(), 1);
    // Fired, its tag is the same.
    let tag = answer.header("etag").to_owned();
    let again = world.call("GET", &path, &json!({})).await;
    assert_eq!(again.header("etag"), tag);
    // Switched off, it expects nothing; on again, the next.
    let mut body = again.json();
    body["enabled"] = json!(false);
    let answer = world.call("PUT", &path, &body).await;
    assert_eq!(answer.json()["nextFireAt"], Value::Null);
    body["enabled"] = json!(true);
    let answer = world.call("PUT", &path, &body).await;
    assert_eq!(answer.json()["nextFireAt"], "2026-06-02T12:30:00.000Z");
    let answer = world.call("DELETE", &path, &json!({})).await;
    assert_eq!(answer.status, 204);
    assert_eq!(world.call("GET", &path, &json!({})).await.code(), "schedule_not_found");
    world.pass(2 * DAY);
    world.tick().await;
    assert_eq!(world.runs().await.len(), 1);
    assert!(world.due().await.is_empty());
}

#[tokio::test]
async fn a_change_at_the_moment_of_firing_loses_neither() {
    for _ in 0..10 {
        let world = World::new().await;
        let id = world.schedule(json!({})).await;
        world.pass(30);
        let cx = &world.app.cx;
        let written = json!({"name": "Renamed", "workflow": WORKFLOW, "cron": "0 12 * * *"});
        let change = Change {
            written: written.as_object().unwrap().clone(),
            if_tag: None,
        };
        let origin = Origin::default();
        let changing = schedule::update(cx, &world.scope, &origin, id.as_str(), &change);
        let (ticked, changed) = tokio::join!(tick(cx), changing);
        ticked.unwrap();
        changed.unwrap();
        world.pass(MINUTE);
        world.tick().await;
        let stored = world.stored(&id).await;
        assert_eq!(stored.definition.name, "Renamed");
        assert_eq!(stored.progress.last_outcome.as_deref(), Some("started"));
        assert_eq!(stored.progress.firing, None);
        assert_eq!(world.runs().await.len(), 1);
    }
}

#[tokio::test]
async fn a_creation_that_dies_leaves_a_row_too_many_at_most() {
    let world = World::new().await;
    let body = json!({"name": "Nightly", "workflow": WORKFLOW, "cron": "0 12 * * *"});
    let rule = Rule::new(Fault::Before).calls(&[Call::Commit]).prefix("orgcontoso");
    world.app.faults.plan(Plan::Script(vec![rule]));
    let scope = &world.scope;
    schedule::create(&world.app.cx, scope, &Origin::default(), body.as_object().unwrap())
        .await
        .unwrap_err();
    world.app.faults.plan(Plan::Calm);
    assert_eq!(world.due().await.len(), 1);
    world.pass(30);
    // Somebody might be about to write it.
    assert_eq!(world.tick().await, (0, 1));
    world.pass(10 * MINUTE);
    assert_eq!(world.tick().await, (1, 0));
    assert!(world.due().await.is_empty() && world.runs().await.is_empty());
}

#[tokio::test]
async fn a_fire_time_is_put_off_by_its_jitter_and_no_further() {
    let world = World::new().await;
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(world.schedule(json!({"jitterSeconds": 600, "catchUp": "none"})).await);
    }
    let noon = at("2026-06-01T12:00:00Z");
    let due = world.due().await;
    assert!(
        due.iter().all(|at| (0..=600).contains(&at.since(noon).as_secs())),
        "{due:?}"
    );
    assert!(due.first() != due.last(), "{due:?}");
    world.pass(30);
    let mut started = Vec::new();
    for _ in 0..=10 {
        world.tick().await;
        started.push(world.runs().await.len());
        world.pass(MINUTE);
    }
    // Not all at once, and none of them is late.
    assert!(started[0] < 8, "{started:?}");
    assert_eq!(started.last(), Some(&8), "{started:?}");
    for id in &ids {
        assert_eq!(world.shown(id).await["lastFireAt"], noon.to_string());
    }
}

#[tokio::test]
async fn everything_that_is_wrong_with_a_schedule_is_said_at_once() {
    let world = World::new().await;
    let body = json!({
        "workflow": "helo", "cron": "61 25 * * *", "timeZone": "Europe/Berln", "dst": "maybe", "overlap": 3,
        "catchUp": "some", "catchUpAtMost": 0, "jitterSeconds": 901, "enabled": "yes", "color": "red",
    });
    let answer = world.call("POST", "/api/schedules", &body).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "schedule_invalid"));
    let problem = answer.json();
    let findings = problem["errors"].as_array().unwrap();
    let of = |pointer: &str| -> Vec<&Value> { findings.iter().filter(|one| one["pointer"] == pointer).collect() };
    for pointer in [
        "/name",
        "/workflow",
        "/timeZone",
        "/dst",
        "/overlap",
        "/catchUp",
        "/catchUpAtMost",
        "/jitterSeconds",
        "/enabled",
        "/color",
    ] {
        assert_eq!(of(pointer).len(), 1, "{pointer}: {findings:?}");
    }
    assert_eq!(of("/cron").len(), 2, "{findings:?}");
    assert_eq!(of("/timeZone")[0]["hint"], "did you mean `Europe/Berlin`?");
    assert_eq!(of("/cron")[1]["message"], "hour: `25` is not from 0 to 23");

    for (body, pointer, code) in [
        (
            json!({"name": "n", "workflow": WORKFLOW, "cron": "0 0 30 2 *"}),
            "/cron",
            "cron_never",
        ),
        (
            json!({"name": "n", "workflow": WORKFLOW, "cron": "@daily", "arguments": {"name": 7}}),
            "/arguments/name",
            "wrong_type",
        ),
        (
            json!({"name": "n", "workflow": WORKFLOW, "cron": "@daily", "arguments": {"nam": "Ada"}}),
            "/arguments/nam",
            "unknown_argument",
        ),
        (
            json!({"name": "n", "workflow": WORKFLOW, "cron": "@daily", "arguments": [1]}),
            "/arguments",
            "wrong_type",
        ),
        (
            json!({"name": "n", "workflow": WORKFLOW, "cron": "@daily", "arguments": {"name": "x".repeat(40_000)}}),
            "/arguments",
            "too_large",
        ),
    ] {
        let answer = world.call("POST", "/api/schedules", &body).await;
        assert_eq!(answer.status, 400, "{body}");
        let problem = answer.json();
        let findings = problem["errors"].as_array().unwrap();
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(
            (&findings[0]["pointer"], &findings[0]["code"]),
            (&json!(pointer), &json!(code))
        );
    }
    assert!(world.due().await.is_empty());
    let answer = world.call("GET", "/api/schedules", &json!({})).await;
    assert_eq!(answer.json()["items"], json!([]));
}

#[tokio::test]
async fn a_preview_keeps_nothing() {
    let world = World::new().await;
    let preview = |body: Value| {
        let world = &world;
        async move {
            let answer = world.call("POST", "/api/schedules/preview", &body).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            answer.json()
        }
    };
    let shown = preview(json!({"cron": "0 6 * * 1-5", "timeZone": "Europe/Berlin"})).await;
    assert_eq!(shown["valid"], true);
    assert_eq!(shown["fireTimes"].as_array().unwrap().len(), 5);
    assert_eq!(
        shown["fireTimes"][0],
        json!({"at": "2026-06-02T04:00:00.000Z", "local": "2026-06-02T06:00:00+02:00", "shown": "regular"})
    );
    let shown = preview(json!({"cron": "0 0 31 4 *", "timeZone": "Nowhere"})).await;
    assert_eq!((&shown["valid"], &shown["fireTimes"]), (&json!(false), &json!([])));
    assert_eq!(shown["findings"].as_array().unwrap().len(), 2);
    let answer = world.call("POST", "/api/schedules/preview", &json!({})).await;
    assert_eq!(answer.status, 400);
    assert!(world.due().await.is_empty());
}

#[tokio::test]
async fn a_schedule_is_fired_by_hand() {
    let world = World::new().await;
    let id = world
        .schedule(json!({"arguments": {"name": "Ada"}, "enabled": false}))
        .await;
    let path = format!("/api/schedules/{id}/trigger");
    let trigger = |key: &str| {
        let request = world
            .app
            .request("POST", &path)
            .key(DEVELOPMENT_KEY)
            .organization("contoso");
        request.header("idempotency-key", key).send()
    };
    let first = trigger("a").await;
    assert_eq!(first.status, 202, "{first:?}");
    let again = trigger("a").await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (202, "true"));
    assert_eq!(again.json()["runId"], first.json()["runId"]);
    assert_ne!(trigger("b").await.json()["runId"], first.json()["runId"]);
    let run: RunId = first.json()["runId"].as_str().unwrap().parse().unwrap();
    let stored = world.app.cx.runs.get(&world.scope, &run).await.unwrap().unwrap();
    assert_eq!(stored.new.requester.kind, "service");
    // The caller's own run, and nothing to the schedule.
    assert_eq!(world.stored(&id).await.progress.last_run, None);
    control_run::cancel(&world.app.cx, &world.scope, &Origin::default(), &run)
        .await
        .unwrap();
}

#[tokio::test]
async fn schedules_are_listed_in_pages_and_bounded() {
    let world = World::new().await;
    for number in 0..5 {
        world.schedule(json!({"name": format!("s{number}")})).await;
        world.pass(1);
    }
    let first = world.call("GET", "/api/schedules?limit=3", &json!({})).await.json();
    let cursor = first["nextCursor"].as_str().unwrap();
    let second = world
        .call("GET", &format!("/api/schedules?limit=3&cursor={cursor}"), &json!({}))
        .await
        .json();
    let names: Vec<_> = [&first, &second]
        .iter()
        .flat_map(|page| page["items"].as_array().unwrap().clone())
        .map(|item| item["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["s0", "s1", "s2", "s3", "s4"]);
    assert_eq!(second.get("nextCursor"), None);
    let answer = world.call("GET", "/api/schedules?cursor=bm9uZQ", &json!({})).await;
    assert_eq!(answer.status, 400, "{answer:?}");
}
