//! Queue triggers: each message becomes one run or a visible fact, whatever fails and whoever looks; what is switched off,
//! deleted or another organization's starts nothing; and what all that costs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use weft::authz::Origin;
use weft::boot::{self, Base};
use weft::clock::{Clock, Entropy, ManualClock, SystemClock};
use weft::config::Config;
use weft::domain::{QueueTriggerId, RunId, Timestamp};
use weft::egress::Egress;
use weft::error::{Coded as _, Finding};
use weft::http::Gate;
use weft::runner::scripted::Scripted;
use weft::store::fault::{Call, Fault, Faults, Faulty, Plan, Rule};
use weft::store::key::{self, PlatformTable};
use weft::store::port::{Message, MessageReceipt, Ports, QueueName};
use weft::store::repo::queue_triggers::{MAX_SET_ASIDE, Put, SetAside};
use weft::store::repo::runs::{RunQuery, StoredRun};
use weft::store::sqlite;
use weft::tenancy::{Scope, operator, operator_in};
use weft::testing::app::description;
use weft::testing::sim::memory::Memory;
use weft::testing::{Answer, Request, WORKFLOW};
use weft::usecase::audit_log::AuditQuery;
use weft::usecase::queue_trigger::{self, MAX_DELIVERIES};
use weft::usecase::seed::{self, DEVELOPMENT_KEY};
use weft::usecase::tick::tick;
use weft::usecase::{Context, organization};

/// Instances over one store, each with a hand on the switches of its own.
struct World {
    first: Instance,
    second: Instance,
    ports: Ports,
    clock: Arc<ManualClock>,
    _home: tempfile::TempDir,
}

struct Instance {
    cx: Arc<Context>,
    router: axum::Router,
    faults: Arc<Faults>,
}

fn scope(organization: &str) -> Scope {
    operator_in(&operator(), &organization.parse().unwrap())
}

async fn instance(ports: &Ports, config: &Arc<Config>, clock: Arc<dyn Clock>) -> Instance {
    let (ports, faults) = Faulty::wrap(ports.clone(), Plan::Calm);
    let runner = Arc::new(Scripted::new());
    let parameters = json!([{"name": "event", "type": "json", "required": true}]);
    let listen = json!({"name": "listen", "function": "listen", "line": 9, "parameters": parameters});
    let number = json!([{"name": "number", "type": "integer", "required": true}]);
    let count = json!({"name": "count", "function": "count", "line": 19, "parameters": number});
    runner.describes(description(vec![listen, count]));
    let base = Base {
        egress: Egress::default(),
        config: config.clone(),
        ports,
        runner,
        clock,
        entropy: Arc::new(Entropy::System),
    };
    let cx = Arc::new(boot::context(&base).await.unwrap());
    let gate = Gate::default();
    gate.open(boot::app(&base, cx.clone(), true));
    Instance {
        cx,
        router: boot::router(gate),
        faults,
    }
}

impl World {
    async fn new() -> Self {
        Self::over(|clock| sqlite::open(None, clock).unwrap()).await
    }

    /// Over storage that answers at once, so that nothing but what is waited for takes time.
    async fn in_memory() -> Self {
        Self::over(|clock| Memory::new(clock, 1000).ports()).await
    }

    async fn over(ports: impl FnOnce(Arc<dyn Clock>) -> Ports) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("workspace/workflows")).unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_790_000_000_000)));
        let ports = ports(clock.clone());
        let config = Arc::new(Config::for_testing(home.path()));
        let first = instance(&ports, &config, clock.clone()).await;
        let second = instance(&ports, &config, clock.clone()).await;
        seed::seed(&first.cx, &operator(), |_| {}).await.unwrap();
        Self {
            first,
            second,
            ports,
            clock,
            _home: home,
        }
    }

    fn api(&self, method: &str, path: &str) -> Request {
        let request = Request::new(self.first.router.clone(), method, path);
        request.key(DEVELOPMENT_KEY).organization("contoso")
    }

    async fn made(&self, members: Value) -> Answer {
        self.api("POST", "/api/queue-triggers").json(&members).send().await
    }

    /// A queue trigger of contoso that runs [`WORKFLOW`].
    async fn trigger(&self) -> QueueTriggerId {
        self.trigger_with(json!({"name": "Orders", "workflow": WORKFLOW})).await
    }

    async fn trigger_with(&self, members: Value) -> QueueTriggerId {
        let answer = self.made(members).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["id"].as_str().unwrap().parse().unwrap()
    }

    /// As a sender that knows the queue.
    async fn put(&self, id: &QueueTriggerId, text: &str) -> RunId {
        let queue = key::trigger_queue(id);
        let sent = self.ports.queues.send(&queue, text, Duration::ZERO).await.unwrap();
        weft::store::repo::queue_triggers::message_run(&scope("contoso"), id, &sent.id)
    }

    /// How many messages a tick of the first instance has handled.
    async fn tick(&self) -> usize {
        tick(&self.first.cx).await.unwrap().messages
    }

    async fn run(&self, id: &RunId) -> Option<StoredRun> {
        self.second.cx.runs.get(&scope("contoso"), id).await.unwrap()
    }

    async fn runs(&self, organization: &str) -> BTreeSet<RunId> {
        let mut found = BTreeSet::new();
        let mut cursor = None;
        loop {
            let query = RunQuery {
                limit: 200,
                cursor,
                ..RunQuery::default()
            };
            let page = self.second.cx.runs.list(&scope(organization), &query).await.unwrap();
            found.extend(page.0.into_iter().map(|run| run.run));
            cursor = page.1;
            if cursor.is_none() {
                return found;
            }
        }
    }

    /// How often an event is on record.
    async fn records(&self, event: &str) -> usize {
        let query = AuditQuery {
            event: Some(weft::audit::Event::parse(event).unwrap()),
            limit: 200,
            ..AuditQuery::default()
        };
        let page = self.second.cx.audit.list(&scope("contoso"), query).await.unwrap();
        page.items.len()
    }

    /// What lies in a queue, hidden or not; takes it out.
    async fn left_in(&self, id: &QueueTriggerId) -> Vec<Message> {
        self.clock.advance(Duration::from_secs(2 * 3600));
        let queue = key::trigger_queue(id);
        let hidden = Duration::from_secs(60);
        self.ports.queues.receive(&queue, 32, hidden).await.unwrap()
    }

    async fn set_aside(&self, id: &QueueTriggerId) -> Vec<Value> {
        let path = format!("/api/queue-triggers/{id}/set-aside");
        let answer = self.api("GET", &path).send().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["items"].as_array().unwrap().clone()
    }
}

#[tokio::test]
async fn a_message_becomes_one_run() {
    let world = World::new().await;
    let id = world.trigger().await;
    let path = format!("/api/queue-triggers/{id}/messages");
    let sent = world.api("POST", &path).json(&json!({"name": "Ada"})).send().await;
    assert_eq!(sent.status, 202, "{}", sent.text());
    let run: RunId = sent.json()["runId"].as_str().unwrap().parse().unwrap();
    assert_eq!(world.run(&run).await, None, "it is in the queue");
    // Before it is sent, and with the id that it was given.
    assert_eq!(world.records("queue_message.sent").await, 2);

    assert_eq!(world.tick().await, 1);
    let stored = world.run(&run).await.unwrap();
    assert_eq!(stored.new.workflow, WORKFLOW);
    assert_eq!(
        (stored.new.requester.kind.as_str(), stored.new.requester.id.clone()),
        ("system", format!("queue:{id}"))
    );
    assert_eq!(stored.new.requester.name, "Orders");
    let arguments = format!("{:?}", stored.new.arguments);
    assert!(arguments.contains("Ada"), "{arguments}");
    assert_eq!(world.left_in(&id).await, []);

    // Clients of the queue service send JSON as it is, or in base64.
    for (text, name) in [("{\"name\": \"Bob\"}", "Bob"), ("eyJuYW1lIjoiQ3kifQ==", "Cy")] {
        let run = world.put(&id, text).await;
        assert_eq!(world.tick().await, 1);
        let arguments = format!("{:?}", world.run(&run).await.unwrap().new.arguments);
        assert!(arguments.contains(name), "{arguments}");
    }
    assert_eq!(world.runs("contoso").await.len(), 3);
}

#[tokio::test]
async fn a_message_is_wrapped_where_the_trigger_says_so() {
    let world = World::new().await;
    let wrap = json!({"name": "Events", "workflow": "listen", "arguments": {"wrap": "event"}});
    let id = world.trigger_with(wrap).await;
    let run = world.put(&id, "[1, 2]").await;
    assert_eq!(world.tick().await, 1);
    let arguments = format!("{:?}", world.run(&run).await.unwrap().new.arguments);
    assert!(
        arguments.contains("\"event\": Array [Number(1), Number(2)]"),
        "{arguments}"
    );
}

/// Every call of the way from the queue to the run fails in every way, one after the other, and for once or for good: another
/// instance goes on, and each message has started one run.
#[tokio::test]
async fn whatever_fails_there_is_one_run() {
    let world = World::new().await;
    let id = world.trigger().await;
    let mut expected = BTreeSet::new();
    for fault in [
        Fault::Before,
        Fault::After,
        Fault::Crash,
        Fault::CrashAfter,
        Fault::Throttle,
    ] {
        let mut number = 0;
        loop {
            number += 1;
            let run = world.put(&id, "{\"name\": \"Ada\"}").await;
            expected.insert(run.clone());
            let before = world.first.faults.injected();
            world
                .first
                .faults
                .plan(Plan::Script(vec![Rule::new(fault).only(number)]));
            // What comes of it is looked at below.
            drop(tick(&world.first.cx).await);
            world.first.faults.plan(Plan::Calm);
            world.first.faults.heal();
            let mut looks = 0;
            while world.run(&run).await.is_none() {
                world.clock.advance(Duration::from_secs(20 * 60));
                tick(&world.second.cx).await.unwrap();
                looks += 1;
                assert!(looks < 5, "{fault:?} of call {number}: the message led to nothing");
            }
            if world.first.faults.injected() == before {
                break;
            }
            assert!(number < 200, "a tick makes too many calls");
        }
        assert!(number > 10, "{fault:?}: only {number} calls");
    }
    world.clock.advance(Duration::from_secs(20 * 60));
    tick(&world.second.cx).await.unwrap();
    assert_eq!(world.left_in(&id).await, []);
    assert_eq!(world.set_aside(&id).await, Vec::<Value>::new());
    // Listing them is admission's, and may have been lost; there are no others.
    let listed = world.runs("contoso").await;
    assert!(listed.is_subset(&expected), "{:?}", listed.difference(&expected));
}

#[tokio::test]
async fn two_instances_share_the_messages() {
    let world = World::new().await;
    let id = world.trigger().await;
    let mut expected = BTreeSet::new();
    for _ in 0..50 {
        expected.insert(world.put(&id, "{}").await);
    }
    let mut handled = 0;
    while handled < 50 {
        let (first, second) = tokio::join!(tick(&world.first.cx), tick(&world.second.cx));
        let both = first.unwrap().messages + second.unwrap().messages;
        assert!(both > 0, "{handled} of 50");
        handled += both;
    }
    assert_eq!(world.runs("contoso").await, expected);
    assert_eq!(world.left_in(&id).await, []);
}

#[tokio::test]
async fn a_paused_trigger_keeps_its_messages() {
    let world = World::new().await;
    let id = world.trigger().await;
    let path = format!("/api/queue-triggers/{id}");
    let got = world.api("GET", &path).send().await;
    let tag = got.header("etag").to_owned();
    let mut members = got.json();
    members["enabled"] = json!(false);
    let paused = world
        .api("PUT", &path)
        .header("if-match", &tag)
        .json(&members)
        .send()
        .await;
    assert_eq!(
        (paused.status, &paused.json()["enabled"]),
        (200, &json!(false)),
        "{}",
        paused.text()
    );
    let stale = world
        .api("PUT", &path)
        .header("if-match", &tag)
        .json(&members)
        .send()
        .await;
    assert_eq!((stale.status, stale.code().as_str()), (412, "queue_trigger_changed"));
    let run = world.put(&id, "{}").await;
    assert_eq!(world.tick().await, 0);
    assert_eq!(world.run(&run).await, None);
    members["enabled"] = json!(true);
    assert_eq!(world.api("PUT", &path).json(&members).send().await.status, 200);
    assert_eq!(world.tick().await, 1);
    assert!(world.run(&run).await.is_some());
    assert_eq!(world.records("queue_trigger.changed").await, 2);
}

/// What counts is the trigger, not the list by which its queue is found.
#[tokio::test]
async fn a_list_that_was_not_written_starts_nothing() {
    let world = World::new().await;
    let id = world.trigger().await;
    let run = world.put(&id, "{}").await;
    let list = PlatformTable::QueueTriggers.name();
    let rule = Rule::new(Fault::Crash).calls(&[Call::Commit]).prefix(list.as_str());
    world.first.faults.plan(Plan::Script(vec![rule]));
    let members = json!({"name": "Orders", "workflow": WORKFLOW, "enabled": false});
    let path = format!("/api/queue-triggers/{id}");
    assert_eq!(world.api("PUT", &path).json(&members).send().await.status, 503);
    world.first.faults.plan(Plan::Calm);
    world.first.faults.heal();
    assert_eq!(world.tick().await, 0);
    world.clock.advance(Duration::from_secs(3600));
    assert_eq!(world.tick().await, 0);
    assert_eq!(world.run(&run).await, None);
    assert_eq!(world.left_in(&id).await.len(), 1);
}

#[tokio::test]
async fn a_deleted_trigger_starts_nothing_and_leaves_nothing() {
    let world = World::new().await;
    let id = world.trigger().await;
    world.put(&id, "nonsense").await;
    assert_eq!(world.tick().await, 1);
    let run = world.put(&id, "{}").await;
    let path = format!("/api/queue-triggers/{id}");
    assert_eq!(world.api("DELETE", &path).send().await.status, 204);
    assert_eq!(world.tick().await, 0);
    assert_eq!(world.run(&run).await, None);
    let queue = key::trigger_queue(&id);
    let gone = world.ports.queues.receive(&queue, 1, Duration::from_secs(1)).await;
    assert!(matches!(gone, Err(weft::store::Error::NotFound { .. })), "{gone:?}");
    let (all, _) = world
        .first
        .cx
        .queue_triggers
        .all(&weft::tenancy::system("test"))
        .await
        .unwrap();
    assert_eq!(all, []);
    let contoso = scope("contoso");
    let aside = world.first.cx.queue_triggers.list_aside(&contoso, &id, 10, None).await;
    assert_eq!(aside.unwrap().0, []);
    let again = world.api("DELETE", &path).send().await;
    assert_eq!((again.status, again.code().as_str()), (404, "queue_trigger_not_found"));
    assert_eq!(world.records("queue_trigger.deleted").await, 1);
}

/// Whoever dies while a trigger is made or deleted leaves something behind, which is taken away.
#[tokio::test]
async fn what_is_left_behind_is_taken_away() {
    let world = World::new().await;
    let all = async || {
        let platform = weft::tenancy::system("test");
        world.second.cx.queue_triggers.all(&platform).await.unwrap().0
    };
    for made in [true, false] {
        for number in 1..20 {
            let id = if made { Some(world.trigger().await) } else { None };
            world.first.faults.plan(Plan::Script(vec![
                Rule::new(Fault::Crash)
                    .calls(&[Call::Commit, Call::CreateQueue, Call::DeleteQueue])
                    .only(number),
            ]));
            let injected = world.first.faults.injected();
            let answer = match &id {
                Some(id) => world.api("DELETE", &format!("/api/queue-triggers/{id}")).send().await,
                None => world.made(json!({"name": "Orders", "workflow": WORKFLOW})).await,
            };
            let met = world.first.faults.injected() > injected;
            world.first.faults.plan(Plan::Calm);
            world.first.faults.heal();
            tick(&world.second.cx).await.unwrap();
            world.clock.advance(Duration::from_secs(11 * 60));
            tick(&world.second.cx).await.unwrap();
            // What there is, is whole, and each of it can be deleted.
            for listed in all().await {
                let path = format!("/api/queue-triggers/{}", listed.id);
                assert_eq!(world.api("DELETE", &path).send().await.status, 204);
            }
            assert_eq!(all().await, [], "{made} {number}: {}", answer.text());
            if !met {
                break;
            }
            assert!(number < 19, "too many calls");
        }
    }
}

#[tokio::test]
async fn a_queue_that_was_taken_away_is_made_again() {
    let world = World::new().await;
    let id = world.trigger().await;
    assert_eq!(world.tick().await, 0);
    let queue = key::trigger_queue(&id);
    world.ports.queues.delete_queue(&queue).await.unwrap();
    assert_eq!(world.tick().await, 0);
    let run = world.put(&id, "{}").await;
    assert_eq!(world.tick().await, 1);
    assert!(world.run(&run).await.is_some());
    world.ports.queues.delete_queue(&queue).await.unwrap();
    let path = format!("/api/queue-triggers/{id}/messages");
    assert_eq!(world.api("POST", &path).json(&json!({})).send().await.status, 202);
    assert_eq!(world.tick().await, 1);
}

#[tokio::test]
async fn the_queues_of_a_deleted_organization_go_with_it() {
    let world = World::new().await;
    let id = world.trigger().await;
    world.put(&id, "{}").await;
    let contoso = "contoso".parse().unwrap();
    let platform = operator();
    world
        .first
        .cx
        .identities
        .delete_organization(&platform, &contoso)
        .await
        .unwrap();
    world.clock.advance(Duration::from_secs(11 * 60));
    assert_eq!(tick(&world.second.cx).await.unwrap().messages, 0);
    let platform = weft::tenancy::system("test");
    assert_eq!(world.second.cx.queue_triggers.all(&platform).await.unwrap().0, []);
    let queue = key::trigger_queue(&id);
    let gone = world.ports.queues.receive(&queue, 1, Duration::from_secs(1)).await;
    assert!(matches!(gone, Err(weft::store::Error::NotFound { .. })), "{gone:?}");
}

#[tokio::test]
async fn a_foreign_organization_finds_no_trigger() {
    let world = World::new().await;
    let id = world.trigger().await;
    world.put(&id, "nonsense").await;
    world.tick().await;
    let aside = world.set_aside(&id).await[0]["id"].as_str().unwrap().to_owned();
    let one = format!("/api/queue-triggers/{id}");
    let members = json!({"name": "Mine", "workflow": WORKFLOW});
    for (method, path) in [
        ("GET", one.clone()),
        ("PUT", one.clone()),
        ("DELETE", one.clone()),
        ("POST", format!("{one}/messages")),
        ("POST", format!("{one}/access")),
        ("GET", format!("{one}/set-aside")),
        ("GET", format!("{one}/set-aside/{aside}")),
        ("POST", format!("{one}/set-aside/{aside}/put-back")),
        ("DELETE", format!("{one}/set-aside/{aside}")),
    ] {
        let request = Request::new(world.first.router.clone(), method, &path);
        let request = request.key(DEVELOPMENT_KEY).organization("fabrikam");
        let request = if method == "PUT" {
            request.json(&members)
        } else {
            request
        };
        let answer = request.send().await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (404, "queue_trigger_not_found"),
            "{method} {path}"
        );
    }
    assert_eq!(world.set_aside(&id).await.len(), 1);
}

#[tokio::test]
async fn bad_messages_are_set_aside_and_the_others_go_on() {
    let world = World::new().await;
    let members = json!({"name": "Numbers", "workflow": "count"});
    let id = world.trigger_with(members).await;
    world.put(&id, "no json").await;
    world.put(&id, "[1]").await;
    let late = world.put(&id, "{\"number\": \"one\"}").await;
    let good = world.put(&id, "{\"number\": 1}").await;
    assert_eq!(world.tick().await, 4);
    assert!(world.run(&good).await.is_some());
    assert_eq!(world.left_in(&id).await, []);
    let aside = world.set_aside(&id).await;
    let codes: BTreeSet<_> = aside.iter().map(|item| item["code"].as_str().unwrap()).collect();
    let expected = ["arguments_invalid", "body_not_an_object", "queue_message_unreadable"];
    assert_eq!(codes, expected.into());
    assert_eq!(world.records("queue_message.set_aside").await, 3);
    let shown = world
        .api("GET", &format!("/api/queue-triggers/{id}"))
        .send()
        .await
        .json();
    assert_eq!(shown["setAside"], 3);

    let of = |code: &str| {
        let found = aside.iter().find(|item| item["code"] == code).unwrap();
        format!("/api/queue-triggers/{id}/set-aside/{}", found["id"].as_str().unwrap())
    };
    let wrong = of("arguments_invalid");
    let looked = world.api("GET", &wrong).send().await.json();
    assert_eq!(looked["text"], "{\"number\": \"one\"}");
    assert_eq!(looked["errors"][0]["pointer"], "/number");
    assert_eq!(looked["deliveries"], 1);

    // It still can't be, so it stays, and says why.
    let refused = world.api("POST", &format!("{wrong}/put-back")).send().await;
    assert_eq!((refused.status, refused.code().as_str()), (400, "arguments_invalid"));
    assert_eq!(world.set_aside(&id).await.len(), 3);
    let changed = json!({"name": "Numbers", "workflow": "listen", "arguments": {"wrap": "event"}});
    let path = format!("/api/queue-triggers/{id}");
    assert_eq!(world.api("PUT", &path).json(&changed).send().await.status, 200);
    let back = world.api("POST", &format!("{wrong}/put-back")).send().await;
    assert_eq!(back.status, 202, "{}", back.text());
    assert_eq!(
        back.json()["runId"],
        late.as_str(),
        "the run that it would have started"
    );
    assert!(world.run(&late).await.is_some());
    let twice = world.api("POST", &format!("{wrong}/put-back")).send().await;
    assert_eq!((twice.status, twice.code().as_str()), (404, "queue_message_not_found"));

    let dropped = of("queue_message_unreadable");
    assert_eq!(world.api("DELETE", &dropped).send().await.status, 204);
    assert_eq!(world.api("DELETE", &dropped).send().await.status, 404);
    assert_eq!(world.set_aside(&id).await.len(), 1);
    // Each is on record before it is done; what was refused has a second record, which says so.
    assert_eq!(world.records("queue_message.put_back").await, 3);
    assert_eq!(world.records("queue_message.dropped").await, 1);
    assert_eq!(world.runs("contoso").await.len(), 2);
}

/// Putting back fails in every way at every call: there is one run, and in the end the message is no longer set aside.
#[tokio::test]
async fn a_message_is_put_back_once_whatever_fails() {
    let world = World::new().await;
    let id = world
        .trigger_with(json!({"name": "Numbers", "workflow": "count"}))
        .await;
    for number in 1..100 {
        let members = json!({"name": "Numbers", "workflow": "count"});
        let path = format!("/api/queue-triggers/{id}");
        assert_eq!(world.api("PUT", &path).json(&members).send().await.status, 200);
        let run = world.put(&id, "{}").await;
        assert_eq!(world.tick().await, 1);
        let members = json!({"name": "Numbers", "workflow": WORKFLOW});
        assert_eq!(world.api("PUT", &path).json(&members).send().await.status, 200);
        let aside = world.set_aside(&id).await[0]["id"].as_str().unwrap().to_owned();
        let back = format!("/api/queue-triggers/{id}/set-aside/{aside}/put-back");
        let injected = world.first.faults.injected();
        let rule = Rule::new(Fault::CrashAfter).only(number);
        world.first.faults.plan(Plan::Script(vec![rule]));
        drop(world.api("POST", &back).send().await);
        world.first.faults.plan(Plan::Calm);
        world.first.faults.heal();
        let again = world.api("POST", &back).send().await;
        assert!(matches!(again.status, 202 | 404), "{number}: {}", again.text());
        assert!(world.run(&run).await.is_some(), "{number}");
        assert_eq!(world.set_aside(&id).await.len(), 0, "{number}");
        if world.first.faults.injected() == injected {
            assert!(number > 5);
            return;
        }
    }
    panic!("too many calls");
}

/// What should pass is tried again and again, ever more seldom, and then set aside as well.
#[tokio::test]
async fn what_does_not_pass_is_set_aside() {
    let world = World::new().await;
    let id = world.trigger().await;
    let run = world.put(&id, "{}").await;
    let rule = Rule::new(Fault::Before).calls(&[Call::Send]).prefix("weft-runs");
    world.first.faults.plan(Plan::Script(vec![rule]));
    let mut ticks = 0;
    while world.set_aside(&id).await.is_empty() {
        tick(&world.first.cx).await.unwrap();
        world.clock.advance(Duration::from_secs(15 * 60));
        ticks += 1;
        assert!(ticks < 20);
    }
    assert_eq!(ticks, MAX_DELIVERIES);
    let aside = &world.set_aside(&id).await[0];
    assert_eq!(
        (&aside["deliveries"], aside["code"].as_str().unwrap()),
        (&json!(MAX_DELIVERIES), "storage_unavailable")
    );
    world.first.faults.plan(Plan::Calm);
    let path = format!("/api/queue-triggers/{id}/set-aside/{}", aside["id"].as_str().unwrap());
    assert_eq!(world.api("POST", &format!("{path}/put-back")).send().await.status, 202);
    assert!(world.run(&run).await.is_some());
}

/// That there is too much to do is no message's fault, however long it takes: as when an organization has too much waiting.
#[tokio::test]
async fn what_is_too_much_comes_later() {
    let world = World::new().await;
    let id = world.trigger().await;
    let mut expected = BTreeSet::new();
    for _ in 0..40 {
        expected.insert(world.put(&id, "{}").await);
    }
    let rule = Rule::new(Fault::Throttle).calls(&[Call::Send]).prefix("weft-runs");
    world.first.faults.plan(Plan::Script(vec![rule]));
    for _ in 0..MAX_DELIVERIES * 2 {
        let sent = world.first.faults.count(Call::Send);
        assert_eq!(world.tick().await, 0);
        let tried = world.first.faults.count(Call::Send) - sent;
        assert!(
            tried <= 4,
            "{tried} were tried at once, though there was too much to do"
        );
        world.clock.advance(Duration::from_secs(15 * 60));
    }
    world.first.faults.plan(Plan::Calm);
    assert_eq!(world.set_aside(&id).await, Vec::<Value>::new());
    assert_eq!(world.tick().await + world.tick().await, 40);
    assert_eq!(world.runs("contoso").await, expected);
}

#[tokio::test]
async fn an_organization_that_is_switched_off_keeps_its_messages() {
    let world = World::new().await;
    let id = world.trigger().await;
    let run = world.put(&id, "{}").await;
    let contoso = "contoso".parse().unwrap();
    organization::set_active(&world.first.cx, &operator(), &contoso, false)
        .await
        .unwrap();
    for _ in 0..MAX_DELIVERIES * 2 {
        assert_eq!(world.tick().await, 0);
        world.clock.advance(Duration::from_secs(60));
    }
    organization::set_active(&world.first.cx, &operator(), &contoso, true)
        .await
        .unwrap();
    world.clock.advance(Duration::from_secs(60));
    assert_eq!(world.tick().await, 1);
    let stored = world.run(&run).await;
    assert!(stored.is_some());
    assert_eq!(world.set_aside(&id).await, Vec::<Value>::new());
}

#[tokio::test]
async fn no_more_is_set_aside_than_may_be() {
    let world = World::new().await;
    let id = world.trigger().await;
    let triggers = &world.first.cx.queue_triggers;
    let fact = |number: i64| {
        let message = Message {
            receipt: MessageReceipt {
                id: format!("message {number}"),
                pop_receipt: String::new(),
            },
            dequeue_count: 1,
            text: "x".repeat(64 * 1024),
        };
        let at = Timestamp::from_millis(1_790_000_000_000 + number);
        let findings = vec![Finding::new("/x", "bad", "is bad"); 30];
        SetAside::new(&message, at, "arguments_invalid", &"long ".repeat(1000), &findings)
    };
    for number in 0..MAX_SET_ASIDE {
        // Only the first is as large as a message may be.
        let text = if number == 0 {
            "x".repeat(64 * 1024)
        } else {
            "x".to_owned()
        };
        let put = triggers.set_aside(&scope("contoso"), &id, &fact(number), &text).await;
        assert_eq!(put.unwrap(), Put::New, "{number}");
    }
    let again = triggers.set_aside(&scope("contoso"), &id, &fact(1), "x").await;
    assert_eq!(again.unwrap(), Put::Full, "there is no room, and it is not looked for");
    world.put(&id, "nonsense").await;
    let good = world.put(&id, "{}").await;
    assert_eq!(world.tick().await, 1, "the good one");
    assert!(world.run(&good).await.is_some());
    // Page by page, the newest first, each once.
    let mut seen = Vec::new();
    let mut path = format!("/api/queue-triggers/{id}/set-aside?limit=200");
    loop {
        let page = world.api("GET", &path).send().await.json();
        for item in page["items"].as_array().unwrap() {
            assert_eq!(item["errors"].as_array().unwrap().len(), 10);
            seen.push(item["at"].as_str().unwrap().to_owned());
        }
        let Some(next) = page["nextCursor"].as_str() else { break };
        path = format!("/api/queue-triggers/{id}/set-aside?limit=200&cursor={next}");
    }
    assert_eq!(seen.len(), usize::try_from(MAX_SET_ASIDE).unwrap());
    assert!(seen.is_sorted_by(|a, b| a > b));
    // With room for it, the bad one is set aside as well.
    let first = &world.set_aside(&id).await[0];
    let one = format!("/api/queue-triggers/{id}/set-aside/{}", first["id"].as_str().unwrap());
    assert_eq!(world.api("DELETE", &one).send().await.status, 204);
    world.clock.advance(Duration::from_secs(3601));
    assert_eq!(world.tick().await, 1);
    assert_eq!(world.left_in(&id).await, []);
}

#[tokio::test]
async fn everything_that_is_wrong_is_said_at_once() {
    let world = World::new().await;
    let wrong = json!({"name": "", "workflow": "nosuch", "arguments": {"wrap": ""}, "enabled": "yes", "colour": "red"});
    let answer = world.made(wrong).await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "queue_trigger_invalid"));
    let body = answer.json();
    let pointers: BTreeSet<_> = body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["pointer"].as_str().unwrap())
        .collect();
    let expected = ["/arguments", "/colour", "/enabled", "/name", "/workflow"];
    assert_eq!(pointers, expected.into(), "{body}");

    let id = world
        .trigger_with(json!({"name": "Numbers", "workflow": "count"}))
        .await;
    let path = format!("/api/queue-triggers/{id}/messages");
    let bad = world.api("POST", &path).json(&json!({"number": "one"})).send().await;
    assert_eq!((bad.status, bad.code().as_str()), (400, "arguments_invalid"));
    let large = json!({"number": 1, "more": "x".repeat(48 * 1024)});
    let large = world.api("POST", &path).json(&large).send().await;
    assert_eq!((large.status, large.code().as_str()), (413, "queue_message_too_large"));
    let access = format!("/api/queue-triggers/{id}/access");
    let embedded = world.api("POST", &access).send().await;
    assert_eq!(
        (embedded.status, embedded.code().as_str()),
        (409, "queue_access_unavailable")
    );
    assert!(embedded.text().contains("/messages"), "{}", embedded.text());
    let long = world
        .api("POST", &access)
        .json(&json!({"validSeconds": 700_000}))
        .send()
        .await;
    assert_eq!((long.status, long.code().as_str()), (400, "queue_trigger_invalid"));
    assert_eq!(world.left_in(&id).await, []);
}

// ── looking by itself, on virtual time ─────────────────────────────────────────────────────────────────────────────────

const HOUR: Duration = Duration::from_secs(3600);

/// What is in `docs/storage-layout.md`: what a trigger costs an instance in an hour in which nothing is sent.
#[tokio::test(start_paused = true)]
async fn an_idle_trigger_costs_little() {
    let world = World::in_memory().await;
    let faults = &world.first.faults;
    let listening = tokio::spawn(queue_trigger::listen(Arc::downgrade(&world.first.cx)));
    // Without any trigger: the list, four times a minute.
    tokio::time::sleep(Duration::from_secs(60)).await;
    faults.reset();
    tokio::time::sleep(HOUR).await;
    assert_eq!(faults.count(Call::Query), 240);
    assert_eq!(faults.total(), 240, "{:?}", faults.calls());

    world.trigger().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    faults.reset();
    tokio::time::sleep(HOUR).await;
    let calls = faults.calls();
    assert_eq!(faults.count(Call::Query), 240, "{calls:?}");
    assert!((240..=320).contains(&faults.count(Call::Receive)), "{calls:?}");
    assert_eq!(faults.count(Call::Get), 1, "whether it is still there: {calls:?}");
    assert_eq!(
        faults.total(),
        faults.count(Call::Query) + faults.count(Call::Receive) + 1,
        "{calls:?}"
    );
    // One that is switched off costs a look an hour.
    let (triggers, _) = world
        .first
        .cx
        .queue_triggers
        .list(&scope("contoso"), 9, None)
        .await
        .unwrap();
    let path = format!("/api/queue-triggers/{}", triggers[0].trigger.id);
    let members = json!({"name": "Orders", "workflow": WORKFLOW, "enabled": false});
    assert_eq!(world.api("PUT", &path).json(&members).send().await.status, 200);
    tokio::time::sleep(Duration::from_secs(60)).await;
    faults.reset();
    tokio::time::sleep(HOUR).await;
    assert_eq!(faults.total(), 241, "{:?}", faults.calls());
    // And a tick, where nobody listens: the list, and one look for each.
    listening.abort();
    let ticked = async || {
        let faults = &world.second.faults;
        // What there is to seal is sealed by the first.
        tick(&world.second.cx).await.unwrap();
        faults.reset();
        tick(&world.second.cx).await.unwrap();
        (faults.count(Call::Receive), faults.total())
    };
    let (looks, without) = ticked().await;
    assert_eq!(looks, 0);
    let members = json!({"name": "Orders", "workflow": WORKFLOW});
    assert_eq!(world.api("PUT", &path).json(&members).send().await.status, 200);
    assert_eq!(ticked().await, (1, without + 1));
}

/// Waits on virtual time until something is so; for how long it was not.
async fn until<F: Future<Output = bool>>(what: impl Fn() -> F) -> Duration {
    let begun = tokio::time::Instant::now();
    while !what().await {
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(begun.elapsed() < HOUR, "it never came about");
    }
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn messages_are_found_soon() {
    let world = World::in_memory().await;
    tokio::spawn(queue_trigger::listen(Arc::downgrade(&world.first.cx)));
    tokio::spawn(queue_trigger::listen(Arc::downgrade(&world.second.cx)));
    tokio::time::sleep(Duration::from_secs(60)).await;
    // One that is made here is looked into at once.
    let id = world.trigger().await;
    let run = world.put(&id, "{}").await;
    let took = until(|| async { world.run(&run).await.is_some() }).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    // Sent through the API, here: at once, also after hours of nothing.
    tokio::time::sleep(HOUR * 5).await;
    let path = format!("/api/queue-triggers/{id}/messages");
    let sent = world.api("POST", &path).json(&json!({})).send().await.json();
    let run: RunId = sent["runId"].as_str().unwrap().parse().unwrap();
    let took = until(|| async { world.run(&run).await.is_some() }).await;
    assert!(took < Duration::from_millis(50), "{took:?}");
    // By anybody else: within the longest pause.
    tokio::time::sleep(HOUR).await;
    let run = world.put(&id, "{}").await;
    let took = until(|| async { world.run(&run).await.is_some() }).await;
    assert!(took <= queue_trigger::LONGEST, "{took:?}");
    assert_eq!(world.runs("contoso").await.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_stops_takes_no_more() {
    let world = World::in_memory().await;
    let listening = tokio::spawn(queue_trigger::listen(Arc::downgrade(&world.first.cx)));
    let id = world.trigger().await;
    let run = world.put(&id, "{}").await;
    until(|| async { world.run(&run).await.is_some() }).await;
    world.first.cx.leave().await;
    listening.await.unwrap();
    let later = world.put(&id, "{}").await;
    tokio::time::sleep(HOUR).await;
    assert_eq!(world.tick().await, 0);
    assert_eq!(world.run(&later).await, None);
    assert_eq!(tick(&world.second.cx).await.unwrap().messages, 1);
}

/// Many queues of one organization don't stand before the one of another.
#[tokio::test(start_paused = true)]
async fn organizations_take_turns() {
    let world = World::in_memory().await;
    for _ in 0..10 {
        let id = world.trigger().await;
        for _ in 0..64 {
            world.put(&id, "{}").await;
        }
    }
    let members = json!({"name": "Theirs", "workflow": WORKFLOW});
    let fabrikam = scope("fabrikam");
    let made = queue_trigger::create(
        &world.first.cx,
        &fabrikam,
        &Origin::default(),
        members.as_object().unwrap(),
    )
    .await
    .unwrap();
    let queue = key::trigger_queue(&made.trigger.id);
    world.ports.queues.send(&queue, "{}", Duration::ZERO).await.unwrap();
    // Each call takes a little, so that there is an order to be seen.
    world
        .first
        .faults
        .plan(Plan::Custom(Box::new(|_| Some(Fault::Delay(Duration::from_millis(5))))));
    tokio::spawn(queue_trigger::listen(Arc::downgrade(&world.first.cx)));
    until(|| async { !world.runs("fabrikam").await.is_empty() }).await;
    let others = world.runs("contoso").await.len();
    assert!(others <= 2 * queue_trigger::BATCH, "{others} of 640 went before it");
    until(|| async { world.runs("contoso").await.len() == 640 }).await;
}

// ── the real protocol ──────────────────────────────────────────────────────────────────────────────────────────────────

/// A sender that knows nothing but the address: it may send, as clients of the service do, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_lets_send_and_nothing_else() {
    let Some((_, ports)) = crate::azure::azurite() else {
        return;
    };
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(home.path().join("workspace/workflows")).unwrap();
    let config = Arc::new(Config::for_testing(home.path()));
    let one = instance(&ports, &config, Arc::new(SystemClock)).await;
    seed::seed(&one.cx, &operator(), |_| {}).await.unwrap();
    let api = |method: &str, path: &str| {
        let request = Request::new(one.router.clone(), method, path);
        request.key(DEVELOPMENT_KEY).organization("contoso")
    };
    let members = json!({"name": "Orders", "workflow": WORKFLOW});
    let made = api("POST", "/api/queue-triggers").json(&members).send().await.json();
    let path = format!("/api/queue-triggers/{}", made["id"].as_str().unwrap());
    let given = api("POST", &format!("{path}/access"))
        .json(&json!({"validSeconds": 60}))
        .send()
        .await;
    assert_eq!(given.status, 200, "{}", given.text());
    assert_eq!(given.header("cache-control"), "no-store");
    let url = given.json()["url"].as_str().unwrap().to_owned();
    let client = reqwest::Client::new();
    let send = async |url: &str, text: &str| {
        let body = format!("<QueueMessage><MessageText>{text}</MessageText></QueueMessage>");
        let answer = client
            .post(url)
            .header("x-ms-version", "2021-12-02")
            .body(body)
            .send()
            .await;
        answer.unwrap().status().as_u16()
    };
    assert_eq!(send(&url, "{\"name\": \"Ada\"}").await, 201);
    assert_eq!(send(&url, "eyJuYW1lIjoiQm9iIn0=").await, 201);
    // Neither read, nor delete, nor another queue, nor for longer.
    let get = client
        .get(&url)
        .header("x-ms-version", "2021-12-02")
        .send()
        .await
        .unwrap();
    assert_eq!(get.status().as_u16(), 403);
    let clear = client
        .delete(&url)
        .header("x-ms-version", "2021-12-02")
        .send()
        .await
        .unwrap();
    assert_eq!(clear.status().as_u16(), 403);
    let other = QueueName::new(made["queue"].as_str().unwrap()).unwrap();
    assert_eq!(send(&url.replace(other.as_str(), "weft-runs"), "{}").await, 403);
    let longer = url.replace("se=20", "se=21");
    assert_ne!(longer, url);
    assert_eq!(send(&longer, "{}").await, 403);

    let mut handled = 0;
    for _ in 0..100 {
        handled += tick(&one.cx).await.unwrap().messages;
        if handled == 2 {
            break;
        }
    }
    assert_eq!(handled, 2);
    let requester = Some(format!("queue:{}", made["id"].as_str().unwrap()));
    let query = RunQuery {
        limit: 50,
        requester,
        ..RunQuery::default()
    };
    let runs = one.cx.runs.list(&scope("contoso"), &query).await.unwrap();
    assert_eq!(runs.0.len(), 2);
    assert_eq!(api("DELETE", &path).send().await.status, 204);
    assert_ne!(send(&url, "{}").await, 201, "with the queue its addresses go");
}

/// A message is put back and dropped at the same moment: one of both is done, and the other is told.
async fn one_of_both(ports: Ports, seeds: u64) {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(home.path().join("workspace/workflows")).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let config = Arc::new(Config::for_testing(home.path()));
    let here = instance(&ports, &config, clock.clone()).await;
    let there = instance(&ports, &config, clock.clone()).await;
    let new = organization::NewOrganization {
        id: None,
        name: "Of a race".parse().unwrap(),
        slug: None,
    };
    let org = organization::create(&here.cx, &operator(), new).await.unwrap().1.id;
    let (scope, origin) = (operator_in(&operator(), &org), Origin::default());
    let members = json!({"name": "Orders", "workflow": WORKFLOW});
    let made = queue_trigger::create(&here.cx, &scope, &origin, members.as_object().unwrap()).await;
    let id = made.unwrap().trigger.id;
    let (mut put_back, mut dropped) = (0, 0);
    for seed in 0..seeds {
        let message = Message {
            receipt: MessageReceipt {
                id: format!("message-{seed}"),
                pop_receipt: String::new(),
            },
            dequeue_count: 1,
            text: "{}".to_owned(),
        };
        let fact = SetAside::new(&message, clock.now(), "of_a_test", "for a test", &[]);
        here.cx
            .queue_triggers
            .set_aside(&scope, &id, &fact, "{}")
            .await
            .unwrap();
        for (number, instance) in [&here, &there].into_iter().enumerate() {
            // Up to seven milliseconds before each call, by the seed.
            let mut chance = (seed * 2 + number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            instance.faults.plan(Plan::Custom(Box::new(move |_| {
                chance ^= chance << 13;
                chance ^= chance >> 7;
                chance ^= chance << 17;
                Some(Fault::Delay(Duration::from_millis(chance % 8)))
            })));
        }
        let (back, drop) = tokio::join!(
            queue_trigger::put_back(&here.cx, &scope, &origin, &id, &fact.id),
            queue_trigger::drop_set_aside(&there.cx, &scope, &origin, &id, &fact.id),
        );
        for instance in [&here, &there] {
            instance.faults.plan(Plan::Calm);
        }
        let run = weft::store::repo::queue_triggers::message_run(&scope, &id, &message.receipt.id);
        let run = here.cx.runs.get(&scope, &run).await.unwrap();
        match (back, drop) {
            (Ok(_), Err(error)) => {
                put_back += 1;
                let codes = ["queue_message_put_back", "queue_message_not_found"];
                assert!(codes.contains(&error.code()), "{seed}: {error}");
                assert!(run.is_some(), "{seed}: it was put back");
            }
            (Err(error), Ok(())) => {
                dropped += 1;
                assert_eq!(error.code(), "queue_message_not_found", "{seed}: {error}");
                assert!(run.is_none(), "{seed}: it was dropped");
            }
            (back, drop) => panic!("{seed}: {back:?}, {drop:?}"),
        }
        assert!(
            here.cx
                .queue_triggers
                .get_aside(&scope, &id, &fact.id)
                .await
                .unwrap()
                .is_none()
        );
    }
    assert!(
        put_back > 0 && dropped > 0,
        "{put_back} were put back, {dropped} dropped"
    );
}

#[tokio::test]
async fn a_message_is_put_back_or_dropped_and_not_both() {
    Box::pin(one_of_both(sqlite::open(None, Arc::new(SystemClock)).unwrap(), 60)).await;
}

#[tokio::test]
async fn a_message_is_put_back_or_dropped_and_not_both_in_the_emulator() {
    let Some((_, ports)) = crate::azure::azurite() else {
        return;
    };
    Box::pin(one_of_both(ports, 30)).await;
}

/// Who puts a message back dies before or after its run is there: it can't be dropped meanwhile, and then only if there is none.
#[tokio::test]
async fn what_was_half_put_back_is_dropped_only_without_a_run() {
    let world = World::new().await;
    let id = world
        .trigger_with(json!({"name": "Numbers", "workflow": "count"}))
        .await;
    let path = format!("/api/queue-triggers/{id}");
    let mut kept = BTreeSet::new();
    for number in 1..100 {
        let members = json!({"name": "Numbers", "workflow": "count"});
        assert_eq!(world.api("PUT", &path).json(&members).send().await.status, 200);
        let run = world.put(&id, "{}").await;
        assert_eq!(world.tick().await, 1);
        let members = json!({"name": "Numbers", "workflow": WORKFLOW});
        assert_eq!(world.api("PUT", &path).json(&members).send().await.status, 200);
        let aside = world.set_aside(&id).await[0]["id"].as_str().unwrap().to_owned();
        let of = format!("{path}/set-aside/{aside}");
        let injected = world.first.faults.injected();
        let rule = Rule::new(Fault::Crash).only(number);
        world.first.faults.plan(Plan::Script(vec![rule]));
        let back = world.api("POST", &format!("{of}/put-back")).send().await;
        world.first.faults.plan(Plan::Calm);
        world.first.faults.heal();
        if world.first.faults.injected() == injected {
            assert_eq!(back.status, 202, "{back:?}");
            assert!(number > 5);
            assert_eq!(kept, BTreeSet::from([(true, false), (false, true), (false, false)]));
            return;
        }
        let early = world.api("DELETE", &of).send().await;
        world.clock.advance(Duration::from_secs(121));
        let late = world.api("DELETE", &of).send().await;
        let is_run = world.run(&run).await.is_some();
        if early.status == 204 {
            assert!(!is_run, "{number}");
        } else if early.status == 409 {
            assert_eq!(early.code(), "queue_message_put_back");
            assert_eq!(late.status, if is_run { 409 } else { 204 }, "{number}: {late:?}");
        } else {
            assert_eq!((early.status, is_run), (404, true), "{number}: {early:?}");
        }
        kept.insert((early.status == 204, is_run));
        assert_eq!(world.set_aside(&id).await.len(), 0, "{number}");
    }
    panic!("too many calls");
}
