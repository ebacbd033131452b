//! Webhooks: who is let in by which signature, what a delivery becomes, and what becomes of one that comes again, too late,
//! too often, or to somebody else's hook.

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use axum::Router;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Map, Value, json};
use tracing_subscriber::fmt::MakeWriter;
use weft::boot::{self, Base};
use weft::clock::{Clock as _, Entropy, ManualClock};
use weft::config::Config;
use weft::domain::{DisplayName, HookId, OrgId, RunId, Secret, Timestamp};
use weft::egress::Egress;
use weft::hooks::{ArgumentRule, Deduplicate, Encoding, Generic, Hook, Request as Delivery, SCHEMES, Scheme, verify};
use weft::http::Gate;
use weft::runner::BundleDescription;
use weft::runner::scripted::Scripted;
use weft::store::fault::{Call, Faults, Faulty, Plan};
use weft::store::repo::runs::StoredRun;
use weft::store::sqlite;
use weft::tenancy::{Scope, operator, operator_in};
use weft::testing::{Answer, Request};
use weft::usecase::audit_log::AuditQuery;
use weft::usecase::deliver::{Delivered, From, deliver};
use weft::usecase::seed::{self, DEVELOPMENT_KEY};
use weft::usecase::{Context, organization};

/// Two instances over one store, as they come in by different addresses, and the time.
struct World {
    first: Instance,
    second: Instance,
    clock: Arc<ManualClock>,
    faults: Arc<Faults>,
    home: tempfile::TempDir,
}

struct Instance {
    cx: Arc<Context>,
    router: Router,
}

fn described() -> BundleDescription {
    let parameter = |name: &str, kind: &str| json!({"name": name, "type": kind, "required": false, "default": null, "has_default": true});
    let workflows = json!([
        {"name": "greet", "function": "greet", "line": 1,
         "parameters": [parameter("name", "string"), parameter("id", "string")]},
        {"name": "listen", "function": "listen", "line": 9, "parameters": [parameter("event", "object")]},
    ]);
    BundleDescription {
        modules: vec![
            json!({"module": "workflows.greet", "path": "workspace/workflows/greet.py",
            "workflows": workflows, "data_providers": []}),
        ],
        files: 1,
        ..BundleDescription::default()
    }
}

impl World {
    async fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("workspace/workflows")).unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_790_000_000_000)));
        let ports = sqlite::open(Some(&home.path().join("weft.db")), clock.clone()).unwrap();
        let (ports, faults) = Faulty::wrap(ports, Plan::Calm);
        let config = Arc::new(Config::for_testing(home.path()));
        let instance = async || {
            let runner = Arc::new(Scripted::new());
            runner.describes(described());
            let base = Base {
                egress: Egress::default(),
                config: config.clone(),
                ports: ports.clone(),
                runner,
                clock: clock.clone(),
                entropy: Arc::new(Entropy::System),
            };
            let cx = Arc::new(boot::context(&base).await.unwrap());
            let gate = Gate::default();
            gate.open(boot::app(&base, cx.clone(), true));
            Instance {
                cx,
                router: boot::router(gate),
            }
        };
        let (first, second) = (instance().await, instance().await);
        seed::seed(&first.cx, &operator(), |_| {}).await.unwrap();
        Self {
            first,
            second,
            clock,
            faults,
            home,
        }
    }

    fn now(&self) -> i64 {
        self.clock.now().millis() / 1000
    }

    fn api(&self, method: &str, path: &str, organization: &str) -> Request {
        let request = Request::new(self.first.router.clone(), method, path);
        request.key(DEVELOPMENT_KEY).organization(organization)
    }

    /// A hook of contoso, with its secret.
    async fn hook(&self, members: Value) -> (String, String) {
        let mut body = json!({"name": "Of the tests", "workflow": "greet", "scheme": "weft"});
        body.as_object_mut()
            .unwrap()
            .extend(members.as_object().unwrap().clone());
        let made = self
            .api("POST", "/api/triggers/hooks", "contoso")
            .json(&body)
            .send()
            .await;
        assert_eq!(made.status, 201, "{}", made.text());
        let made = made.json();
        let text = |member: &str| made[member].as_str().unwrap().to_owned();
        assert_eq!(text("path"), format!("/api/hooks/{}", text("id")));
        (text("id"), text("secret"))
    }

    fn to(&self, id: &str) -> Request {
        Request::new(self.first.router.clone(), "POST", &format!("/api/hooks/{id}"))
            .from_afar()
            .header("content-type", "application/json")
    }

    /// A delivery as `weft` signs it now.
    fn signed(&self, request: Request, secret: &str, body: &str) -> Request {
        request
            .header("x-weft-signature", &signature(secret, self.now(), body))
            .body(body.to_owned())
    }

    async fn deliver(&self, id: &str, secret: &str, body: &str) -> Answer {
        self.signed(self.to(id), secret, body).send().await
    }

    async fn run(&self, answer: &Answer) -> StoredRun {
        let id: RunId = answer.json()["runId"].as_str().unwrap().parse().unwrap();
        self.first.cx.runs.get(&scope("contoso"), &id).await.unwrap().unwrap()
    }

    async fn records(&self, organization: &str, event: &str) -> Vec<Value> {
        let query = AuditQuery {
            event: weft::audit::Event::parse(event),
            limit: 200,
            ..AuditQuery::default()
        };
        let page = self.first.cx.audit.list(&scope(organization), query).await.unwrap();
        let told = |entry: weft::usecase::audit_log::Entry| {
            let address = entry.personal.readable().and_then(|personal| personal.address.clone());
            json!({"principal": entry.plain.principal.id, "tier": entry.plain.principal.tier,
                "detail": entry.plain.detail, "address": address})
        };
        page.items.into_iter().map(told).collect()
    }

    async fn lines(&self, id: &str) -> Vec<Value> {
        let path = format!("/api/triggers/hooks/{id}/deliveries");
        let answer = self.api("GET", &path, "contoso").send().await;
        answer.json()["items"].as_array().unwrap().clone()
    }
}

fn scope(organization: &str) -> Scope {
    let org: OrgId = organization.parse().unwrap();
    operator_in(&operator(), &org)
}

fn mac(secret: &[u8], message: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&key, message.as_bytes());
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn signature(secret: &str, at: i64, body: &str) -> String {
    format!("t={at},v1={}", mac(secret.as_bytes(), &format!("{at}.{body}")))
}

fn alike(answer: &Answer) -> (u16, Value) {
    let mut body = answer.json();
    body["requestId"] = Value::Null;
    (answer.status, body)
}

/// Signatures that Python has made.
#[test]
fn every_scheme_takes_what_its_senders_sign_and_nothing_else() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/hooks/vectors.json");
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(folder).unwrap()).unwrap();
    assert!(cases.len() > 60);
    let org: OrgId = "contoso".parse().unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let scheme = match case["scheme"]["kind"].as_str().unwrap() {
            "generic" => Scheme::Generic(Generic {
                header: text(&case["scheme"]["header"]),
                encoding: match case["scheme"]["encoding"].as_str() {
                    Some("base64") => Encoding::Base64,
                    _ => Encoding::Hex,
                },
                prefix: text(&case["scheme"]["prefix"]),
                delivery_header: case["scheme"]["deliveryHeader"].as_str().map(str::to_owned),
            }),
            named => SCHEMES.into_iter().find(|scheme| scheme.as_str() == named).unwrap(),
        };
        seen.insert((scheme.as_str(), case["outcome"] == "ok"));
        let at = Timestamp::from_millis(0);
        let hook = |enabled| Hook {
            id: HookId::generate([1; 16]),
            name: "golden".parse::<DisplayName>().unwrap(),
            workflow: "greet".into(),
            scheme: scheme.clone(),
            arguments: ArgumentRule::Body,
            enabled,
            per_minute: 1,
            deduplicate: Deduplicate {
                by: serde_json::from_value(case["by"].clone()).unwrap(),
                window_seconds: 60,
            },
            challenge: None,
            created_by: "operator".into(),
            created_at: at,
            updated_at: at,
            secrets: Vec::new(),
        };
        let secrets: Vec<_> = case["secrets"]
            .as_array()
            .unwrap()
            .iter()
            .map(text)
            .map(Secret::value)
            .collect();
        let delivery = Delivery {
            headers: case["headers"]
                .as_array()
                .unwrap()
                .iter()
                .map(|pair| (text(&pair[0]), text(&pair[1])))
                .collect(),
            query: String::new(),
            body: STANDARD.decode(text(&case["body"])).unwrap().into(),
        };
        let now = Timestamp::from_millis(case["now"].as_i64().unwrap() * 1000);
        let outcome = verify(&org, &hook(true), &secrets, &delivery, now);
        let said = match &outcome {
            Ok(_) => "ok",
            Err(rejected) => rejected.as_str(),
        };
        assert_eq!(said, case["outcome"], "{name}");
        if let Ok(verified) = outcome {
            assert_eq!(verified.identity(), case["identity"], "{name}");
            assert_eq!(verified.org(), &org);
            let off = verify(&org, &hook(false), &secrets, &delivery, now).unwrap_err();
            assert_eq!(off.as_str(), "disabled", "{name}");
        }
    }
    for scheme in ["weft", "github", "stripe", "slack", "svix", "generic"] {
        assert!(
            seen.contains(&(scheme, true)) && seen.contains(&(scheme, false)),
            "{scheme}"
        );
    }
}

#[tokio::test]
async fn a_delivery_starts_one_run_however_often_it_comes() {
    let world = World::new().await;
    let (id, secret) = world.hook(json!({})).await;
    let answer = world.deliver(&id, &secret, r#"{"name":"Ada"}"#).await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    let body = answer.json();
    assert_eq!((&body["status"], &body["repeated"]), (&json!("pending"), &json!(false)));
    assert_eq!(
        body["links"]["self"],
        format!("/api/runs/{}", body["runId"].as_str().unwrap())
    );
    let run = world.run(&answer).await;
    assert_eq!(run.new.workflow, "greet");
    let requester = &run.new.requester;
    assert_eq!(
        (requester.kind.as_str(), requester.id.as_str(), requester.name.as_str()),
        ("system", format!("hook:{id}").as_str(), "Of the tests")
    );

    let again = world.deliver(&id, &secret, r#"{"name":"Ada"}"#).await;
    assert_eq!((again.status, again.json()["repeated"].as_bool()), (202, Some(true)));
    assert_eq!(again.json()["runId"], body["runId"]);
    let other = world.deliver(&id, &secret, r#"{"name":"Bob"}"#).await;
    assert_ne!(other.json()["runId"], body["runId"]);

    // The queue brings it to its end, with the arguments of the body.
    let queue = weft::store::key::Queue::Runs.name();
    let messages = world
        .first
        .cx
        .ports
        .queues
        .receive(&queue, 8, Duration::from_secs(60))
        .await
        .unwrap();
    assert!(!messages.is_empty());
    for message in messages {
        let at = world.clock.now();
        let done = deliver(&world.first.cx, From::Runs, &message.text, at, None)
            .await
            .unwrap();
        assert!(matches!(done, Delivered::Done(_)), "{done:?}");
    }
    let path = format!("/api/runs/{}", body["runId"].as_str().unwrap());
    let run = world.api("GET", &path, "contoso").send().await.json();
    assert_eq!(run["status"], "succeeded", "{run}");
    assert_eq!(run["arguments"]["name"], "Ada");
    assert_eq!(run["requester"]["id"], format!("hook:{id}"));

    let started = world.records("contoso", "run.started").await;
    assert_eq!(started.len(), 2);
    for record in started {
        assert_eq!(
            (&record["principal"], &record["tier"]),
            (&json!(format!("hook:{id}")), &json!("hook"))
        );
        assert_eq!(
            (&record["detail"]["hook"], &record["address"]),
            (&json!(id), &json!("127.0.0.1"))
        );
    }
    let outcomes: Vec<_> = world
        .lines(&id)
        .await
        .iter()
        .map(|line| line["outcome"].clone())
        .collect();
    assert_eq!(outcomes, ["accepted", "repeated", "accepted"]);
    let hook = world
        .api("GET", &format!("/api/triggers/hooks/{id}"), "contoso")
        .send()
        .await
        .json();
    assert_eq!(
        (&hook["deliveries"]["accepted"], &hook["deliveries"]["repeated"]),
        (&json!(2), &json!(1)),
        "{hook}"
    );
    assert!(hook["deliveries"]["lastAcceptedAt"].is_string());
}

#[tokio::test]
async fn the_signature_is_the_only_credential() {
    let world = World::new().await;
    let (id, secret) = world.hook(json!({})).await;
    // A key that may all opens no hook, in the header or in the query.
    let path = format!("/api/hooks/{id}?code={DEVELOPMENT_KEY}");
    for request in [
        world
            .to(&id)
            .key(DEVELOPMENT_KEY)
            .organization("contoso")
            .json(&json!({})),
        world.to(&id).person("ann").organization("contoso").json(&json!({})),
        Request::new(world.first.router.clone(), "POST", &path).json(&json!({})),
    ] {
        let answer = request.send().await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "hook_signature_invalid"));
        assert!(!answer.text().contains(DEVELOPMENT_KEY));
    }
    // And a bad one closes none.
    let bad = world
        .to(&id)
        .key("nonsense")
        .organization("nosuch")
        .header("x-ms-client-principal", "e30=");
    let answer = world.signed(bad, &secret, "{}").send().await;
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert!(
        world
            .records("contoso", "key.bypass")
            .await
            .iter()
            .all(|record| record["tier"] == "function_key")
    );
    // What hooks let in is runs, and nothing else.
    let verbs = [
        ("GET", "/api/runs"),
        ("GET", "/api/triggers/hooks"),
        ("POST", "/api/workflows/greet/execute"),
    ];
    for (method, path) in verbs {
        let request = Request::new(world.first.router.clone(), method, path)
            .from_afar()
            .organization("contoso");
        let answer = world.signed(request, &secret, "{}").send().await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (403, "credentials_missing"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn whatever_is_wrong_the_sender_hears_the_same() {
    let world = World::new().await;
    let (id, secret) = world.hook(json!({})).await;
    let (off, off_secret) = world.hook(json!({"enabled": false})).await;
    let body = r#"{"name":"Ada"}"#;
    let old = world
        .to(&id)
        .header("x-weft-signature", &signature(&secret, world.now() - 301, body))
        .body(body);
    let changed = world
        .to(&id)
        .header("x-weft-signature", &signature(&secret, world.now(), body))
        .body("{}");
    let answers = [
        world.deliver(&id, &off_secret, body).await,
        world.to(&id).body(body).send().await,
        old.send().await,
        changed.send().await,
        world
            .to(&id)
            .header("x-weft-signature", "nonsense")
            .body(body)
            .send()
            .await,
        world.deliver(&off, &off_secret, body).await,
    ];
    for answer in &answers {
        assert_eq!(answer.status, 401);
        assert_eq!(alike(answer), alike(&answers[0]));
    }
    let unknown = HookId::generate([9; 16]);
    for id in [unknown.as_str(), "hook_", "nonsense", "%FF", "..%2F..%2Fsecrets"] {
        let answer = world.deliver(id, &secret, body).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "hook_not_found"), "{id}");
    }
    let mut reasons: Vec<_> = world
        .records("contoso", "hook.refused")
        .await
        .iter()
        .map(|record| record["detail"]["reason"].as_str().unwrap().to_owned())
        .collect();
    reasons.sort();
    assert_eq!(reasons, ["disabled", "malformed", "mismatch", "stale", "unsigned"]);
    // Who was refused started nothing.
    let runs = world.api("GET", "/api/runs", "contoso").send().await.json();
    assert_eq!(runs["items"], json!([]));
    assert!(world.lines(&off).await.iter().all(|line| line["reason"] == "disabled"));
}

#[tokio::test]
async fn two_secrets_overlap_and_no_more() {
    let world = World::new().await;
    let (id, first) = world.hook(json!({})).await;
    let rotate = async |body: Value| {
        let path = format!("/api/triggers/hooks/{id}/rotate");
        let answer = world.api("POST", &path, "contoso").json(&body).send().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let good = async |secret: &str, body: &str| world.deliver(&id, secret, body).await.status == 202;
    let second = rotate(json!({"overlapSeconds": 600})).await;
    assert_eq!(second["secrets"].as_array().unwrap().len(), 2);
    let second = second["secret"].as_str().unwrap().to_owned();
    assert!(good(&first, r#"{"name":"1"}"#).await && good(&second, r#"{"name":"2"}"#).await);
    // The same delivery by the other secret is the same delivery.
    let again = world.deliver(&id, &second, r#"{"name":"1"}"#).await;
    assert_eq!(again.json()["repeated"], true);
    world.clock.advance(Duration::from_secs(600));
    assert!(!good(&first, r#"{"name":"3"}"#).await && good(&second, r#"{"name":"4"}"#).await);

    let third = rotate(json!({"secret": "given by the sender"})).await;
    assert_eq!(third["secret"], "given by the sender");
    assert!(good(&second, r#"{"name":"5"}"#).await && good("given by the sender", r#"{"name":"6"}"#).await);
    let fourth = rotate(json!({})).await["secret"].as_str().unwrap().to_owned();
    assert!(
        !good(&second, r#"{"name":"7"}"#).await,
        "the one before the last ends at once"
    );
    assert!(good("given by the sender", r#"{"name":"8"}"#).await);
    let fifth = rotate(json!({"overlapSeconds": 0})).await;
    assert_eq!(fifth["secrets"].as_array().unwrap().len(), 1);
    assert!(!good(&fourth, r#"{"name":"9"}"#).await);
    // The other instance has heard of all that within seconds.
    world.clock.advance(Duration::from_secs(5));
    let request = Request::new(world.second.router.clone(), "POST", &format!("/api/hooks/{id}"));
    assert_eq!(world.signed(request, &fourth, "{}").send().await.status, 401);
    assert_eq!(world.records("contoso", "hook.rotated").await.len(), 4);
}

#[tokio::test]
async fn a_flood_is_slowed_down_and_costs_nothing() {
    let world = World::new().await;
    let (id, secret) = world.hook(json!({"perMinute": 20})).await;
    assert_eq!(world.deliver(&id, &secret, "{}").await.status, 202);
    world.to(&id).body("{}").send().await;
    world.faults.reset();
    let mut statuses = std::collections::BTreeMap::new();
    for _ in 0..60 {
        let answer = world.to(&id).body("{}").send().await;
        if answer.status == 429 {
            assert!(!answer.header("retry-after").is_empty());
            assert_eq!(answer.code(), "hook_throttled");
        }
        *statuses.entry(answer.status).or_insert(0) += 1;
    }
    assert_eq!(statuses, [(401, 18), (429, 42)].into());
    // One record and one line of the throttling; the refusals had theirs.
    assert!(world.faults.total() < 20, "{:?}", world.faults.calls());
    assert_eq!(world.records("contoso", "hook.refused").await.len(), 1);
    assert_eq!(world.records("contoso", "access.throttled").await.len(), 1);
    // Time gives it back, and the next record says how many there were.
    world.clock.advance(Duration::from_secs(61));
    assert_eq!(world.deliver(&id, &secret, r#"{"name":"1"}"#).await.status, 202);
    world.to(&id).body("{}").send().await;
    let refused = world.records("contoso", "hook.refused").await;
    assert_eq!(refused[0]["detail"]["count"], 19, "{refused:?}");

    // Ids that nobody has: storage is asked a bounded number of times, and one record stands for all.
    world.faults.reset();
    let mut found = std::collections::BTreeMap::new();
    for number in 0..200u8 {
        let answer = world
            .to(HookId::generate([number; 16]).as_str())
            .body("{}")
            .send()
            .await;
        *found.entry(answer.status).or_insert(0) += 1;
    }
    assert_eq!(found, [(404, 60), (429, 140)].into());
    assert!(world.faults.total() < 75, "{:?}", world.faults.calls());
    // A hook that is known is none of them.
    assert_eq!(world.deliver(&id, &secret, r#"{"name":"2"}"#).await.status, 202);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_delivery_at_the_same_time_is_one_run_on_all_instances() {
    let world = World::new().await;
    let (id, secret) = world.hook(json!({"scheme": "github"})).await;
    let body = r#"{"name":"Ada"}"#;
    let signature = format!("sha256={}", mac(secret.as_bytes(), body));
    let deliveries = (0..24).map(|number| {
        let instance = if number % 2 == 0 { &world.first } else { &world.second };
        Request::new(instance.router.clone(), "POST", &format!("/api/hooks/{id}"))
            .header("content-type", "application/json")
            .header("x-hub-signature-256", &signature)
            .header("x-github-delivery", "guid-1")
            .body(body)
            .send()
    });
    let answers = futures::future::join_all(deliveries).await;
    let runs: std::collections::BTreeSet<_> = answers
        .iter()
        .map(|answer| {
            assert_eq!(answer.status, 202, "{}", answer.text());
            answer.json()["runId"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(runs.len(), 1);
    let first = answers
        .iter()
        .filter(|answer| answer.json()["repeated"] == false)
        .count();
    assert_eq!(first, 1, "exactly one has started it");
    let runs = world.api("GET", "/api/runs", "contoso").send().await.json();
    assert_eq!(runs["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_delivery_counts_anew_after_the_window() {
    let world = World::new().await;
    let (id, secret) = world.hook(json!({"scheme": "github"})).await;
    let by_body = json!({"scheme": "github", "deduplicate": {"by": "body", "windowSeconds": 60}});
    let (other, other_secret) = world.hook(by_body).await;
    let body = r#"{"name":"Ada"}"#;
    let send = async |id: &str, secret: &str, delivery: &str| {
        let request = world.to(id).header(
            "x-hub-signature-256",
            &format!("sha256={}", mac(secret.as_bytes(), body)),
        );
        let answer = request.header("x-github-delivery", delivery).body(body).send().await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        let answer = answer.json();
        (answer["runId"].clone(), answer["repeated"] == true)
    };
    let (first, repeated) = send(&id, &secret, "a").await;
    assert!(!repeated);
    assert_ne!(send(&id, &secret, "b").await.0, first, "another id is another delivery");
    world.clock.advance(Duration::from_secs(24 * 3600 - 1));
    assert_eq!(send(&id, &secret, "a").await, (first.clone(), true));
    world.clock.advance(Duration::from_secs(1));
    let (second, repeated) = send(&id, &secret, "a").await;
    assert!(!repeated && second != first);
    assert_eq!(send(&id, &secret, "a").await, (second, true));

    let (first, _) = send(&other, &other_secret, "a").await;
    assert_eq!(
        send(&other, &other_secret, "b").await,
        (first.clone(), true),
        "the body is what counts"
    );
    for _ in 0..5 {
        world.clock.advance(Duration::from_secs(61));
        assert!(!send(&other, &other_secret, "a").await.1);
        assert!(send(&other, &other_secret, "c").await.1);
    }
}

#[tokio::test]
async fn bodies_become_arguments_and_credentials_do_not() {
    let world = World::new().await;
    let (id, secret) = world.hook(json!({})).await;
    let form = |body: &str| {
        let request = world
            .to(&id)
            .header("content-type", "application/x-www-form-urlencoded");
        world.signed(request, &secret, body)
    };
    let run = world.run(&form("name=Ada+L&id=7").send().await).await;
    assert_eq!(arguments(&world, &run).await["name"], "Ada L");
    for (request, expected) in [
        (world.signed(world.to(&id), &secret, "[1]"), (400, "body_not_an_object")),
        (
            world.signed(world.to(&id), &secret, "{\"a\":"),
            (400, "hook_body_unreadable"),
        ),
        (
            world.signed(world.to(&id), &secret, r#"{"name":"a","more":18446744073709551616}"#),
            (400, "hook_body_unreadable"),
        ),
        (
            world.signed(world.to(&id), &secret, r#"{"nobody":1}"#),
            (400, "arguments_invalid"),
        ),
        (form("nobody=1"), (400, "arguments_invalid")),
        (form("name=%ff"), (400, "hook_body_unreadable")),
        (
            world.signed(world.to(&id), &secret, &"x".repeat(2 << 20)),
            (413, "body_too_large"),
        ),
    ] {
        let answer = request.send().await;
        assert_eq!((answer.status, answer.code().as_str()), expected, "{}", answer.text());
    }
    // Senders write their own JSON: of members that stand twice the last counts.
    let twice = world.signed(world.to(&id), &secret, r#"{"name":"a","name":"b"}"#);
    let run = world.run(&twice.send().await).await;
    assert_eq!(arguments(&world, &run).await["name"], "b");
    let failed: Vec<_> = world
        .lines(&id)
        .await
        .iter()
        .map(|line| line["reason"].clone())
        .collect();
    assert!(failed.contains(&json!("arguments_invalid")), "{failed:?}");

    let (id, secret) = world
        .hook(json!({"workflow": "listen", "arguments": {"wrap": "event"}}))
        .await;
    let wrapped = world
        .to(&format!("{id}?topic=a&topic=b&code=a-key"))
        .header("x-shop-topic", "orders")
        .header("authorization", "Bearer abc")
        .header("cookie", "abc")
        .header("x-functions-key", "abc")
        .header("x-ms-token", "abc")
        .header("x-api-key", "abc")
        .header("x-auth-token", "abc")
        .header("x-hub-signature-256", "sha256=abc")
        .header("x-forwarded-for", "abc");
    let run = world
        .run(&world.signed(wrapped, &secret, r#"{"n":[1,2]}"#).send().await)
        .await;
    let event = arguments(&world, &run).await["event"].clone();
    assert_eq!(event["body"], json!({"n": [1, 2]}));
    assert_eq!(event["query"], json!({"topic": ["a", "b"]}));
    assert_eq!(event["headers"]["x-shop-topic"], "orders");
    let said = event.to_string();
    assert!(
        !said.contains("abc") && !said.contains("v1=") && !said.contains("a-key"),
        "{said}"
    );
    let text = world.to(&id).header("content-type", "text/csv");
    let run = world.run(&world.signed(text, &secret, "a,b\n1,2").send().await).await;
    assert_eq!(arguments(&world, &run).await["event"]["body"], "a,b\n1,2");
}

async fn arguments(world: &World, run: &StoredRun) -> Value {
    world
        .first
        .cx
        .runs
        .resolve(&scope("contoso"), &run.new.arguments)
        .await
        .unwrap()
}

#[tokio::test]
async fn senders_that_try_an_address_are_answered_and_start_nothing() {
    let world = World::new().await;
    let (slack, slack_secret) = world.hook(json!({"scheme": "slack"})).await;
    let body = r#"{"type":"url_verification","challenge":"abc.123"}"#;
    let at = world.now();
    let sign = |secret: &str| format!("v0={}", mac(secret.as_bytes(), &format!("v0:{at}:{body}")));
    let request = |secret: &str| {
        let request = world.to(&slack).header("x-slack-signature", &sign(secret));
        request.header("x-slack-request-timestamp", &at.to_string()).body(body)
    };
    let answer = request(&slack_secret).send().await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "abc.123"));
    assert!(answer.header("content-type").starts_with("text/plain"));
    assert_eq!(
        request("it is another").send().await.status,
        401,
        "also the challenge is signed"
    );
    let (github, secret) = world.hook(json!({"scheme": "github"})).await;
    let ping = world.to(&github).header("x-github-event", "ping");
    let ping = ping
        .header(
            "x-hub-signature-256",
            &format!("sha256={}", mac(secret.as_bytes(), "{}")),
        )
        .body("{}");
    assert_eq!(ping.send().await.status, 200);

    let get = async |id: &str, query: &str| {
        let path = format!("/api/hooks/{id}{query}");
        let answer = Request::new(world.first.router.clone(), "GET", &path)
            .from_afar()
            .send()
            .await;
        (answer.status, answer.text())
    };
    assert_eq!(
        get(&github, "?challenge=abc").await.0,
        404,
        "only where the hook says so"
    );
    let (open, _) = world.hook(json!({"challenge": "hub.challenge"})).await;
    assert_eq!(get(&open, "?hub.challenge=12.ab-C").await, (200, "12.ab-C".into()));
    for bad in [
        "",
        "?hub.challenge=",
        "?hub.challenge=%3Cscript%3E",
        "?hub.challenge=a&hub.challenge=b",
    ] {
        assert_eq!(get(&open, bad).await.0, 400, "{bad}");
    }
    let runs = world.api("GET", "/api/runs", "contoso").send().await.json();
    assert_eq!(runs["items"], json!([]));
}

#[tokio::test]
async fn a_hook_belongs_to_its_organization() {
    let world = World::new().await;
    let (id, secret) = world.hook(json!({})).await;
    let path = format!("/api/triggers/hooks/{id}");
    let whole = json!({"name": "Taken", "workflow": "greet", "scheme": "weft"});
    for (method, path, body) in [
        ("GET", path.clone(), None),
        ("PUT", path.clone(), Some(&whole)),
        ("DELETE", path.clone(), None),
        ("POST", format!("{path}/rotate"), None),
        ("GET", format!("{path}/deliveries"), None),
    ] {
        let request = world.api(method, &path, "fabrikam");
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        let answer = request.send().await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (404, "hook_not_found"),
            "{method} {path}"
        );
    }
    let theirs = world.api("GET", "/api/triggers/hooks", "fabrikam").send().await.json();
    assert_eq!(theirs["items"], json!([]));
    assert_eq!(world.deliver(&id, &secret, "{}").await.status, 202);
    let runs = world.api("GET", "/api/runs", "fabrikam").send().await.json();
    assert_eq!(runs["items"], json!([]));

    // Of an organization that is switched off nothing runs.
    let org: OrgId = "contoso".parse().unwrap();
    organization::set_active(&world.first.cx, &operator(), &org, false)
        .await
        .unwrap();
    world.clock.advance(Duration::from_secs(6));
    let answer = world.deliver(&id, &secret, r#"{"name":"1"}"#).await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "organization_inactive"));
    assert!(
        !answer.text().contains("contoso"),
        "a sender needn't know whose hook it is"
    );
    organization::set_active(&world.first.cx, &operator(), &org, true)
        .await
        .unwrap();
    world.clock.advance(Duration::from_secs(6));

    let gone = world.api("DELETE", &path, "contoso").send().await;
    assert_eq!(gone.status, 204);
    assert_eq!(world.deliver(&id, &secret, "{}").await.status, 404);
    world.clock.advance(Duration::from_secs(6));
    let request = Request::new(world.second.router.clone(), "POST", &format!("/api/hooks/{id}"));
    assert_eq!(world.signed(request, &secret, "{}").send().await.status, 404);
    assert_eq!(world.api("DELETE", &path, "contoso").send().await.status, 404);
}

#[tokio::test]
async fn every_mistake_is_found_at_once() {
    let world = World::new().await;
    let body = json!({"name": "", "workflow": "nosuch", "scheme": "generic", "arguments": {"warp": "x"},
        "signature": {"header": "Cookie", "encoding": "rot13", "algorithm": "sha1", "salt": 1},
        "enabled": "yes", "perMinute": 0, "deduplicate": {"by": "luck", "windowSeconds": 1}, "challenge": "a b",
        "nonsense": 1});
    let answer = world
        .api("POST", "/api/triggers/hooks", "contoso")
        .json(&body)
        .send()
        .await;
    assert_eq!((answer.status, answer.code().as_str()), (400, "hook_invalid"));
    let body = answer.json();
    let mut pointers: Vec<_> = body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["pointer"].as_str().unwrap())
        .collect();
    pointers.sort_unstable();
    assert_eq!(
        pointers,
        [
            "/arguments",
            "/challenge",
            "/deduplicate/by",
            "/deduplicate/windowSeconds",
            "/enabled",
            "/name",
            "/nonsense",
            "/perMinute",
            "/signature/algorithm",
            "/signature/encoding",
            "/signature/header",
            "/signature/salt",
            "/workflow",
        ]
    );
    for (members, pointer) in [
        (json!({"secret": "short"}), "/secret"),
        (json!({"secret": 7}), "/secret"),
        (json!({"scheme": "svix", "secret": "whsec_!"}), "/secret"),
        (json!({"scheme": "sha1"}), "/scheme"),
        (json!({"scheme": "generic"}), "/signature"),
        (json!({"signature": {"header": "x"}}), "/signature"),
        (json!({"arguments": {"wrap": "nobody"}}), "/arguments/wrap"),
    ] {
        let mut body = json!({"name": "x", "workflow": "greet", "scheme": "weft"});
        body.as_object_mut()
            .unwrap()
            .extend::<Map<String, Value>>(members.as_object().unwrap().clone());
        let answer = world
            .api("POST", "/api/triggers/hooks", "contoso")
            .json(&body)
            .send()
            .await;
        assert_eq!(
            answer.json()["errors"][0]["pointer"],
            pointer,
            "{members}: {}",
            answer.text()
        );
        assert!(!answer.text().contains("short\""), "the secret is not said back");
    }
    let none = world.api("GET", "/api/triggers/hooks", "contoso").send().await.json();
    assert_eq!(none["items"], json!([]));

    // What was read can be changed and sent back; the scheme and somebody else's version can't be overwritten.
    let (id, _) = world.hook(json!({})).await;
    let path = format!("/api/triggers/hooks/{id}");
    let read = world.api("GET", &path, "contoso").send().await;
    let mut hook = read.json();
    hook["name"] = json!("Renamed");
    let put = world
        .api("PUT", &path, "contoso")
        .header("if-match", read.header("etag"))
        .json(&hook)
        .send()
        .await;
    assert_eq!(
        (put.status, &put.json()["name"]),
        (200, &json!("Renamed")),
        "{}",
        put.text()
    );
    let late = world
        .api("PUT", &path, "contoso")
        .header("if-match", read.header("etag"))
        .json(&hook)
        .send()
        .await;
    assert_eq!((late.status, late.code().as_str()), (412, "hook_changed"));
    hook["scheme"] = json!("github");
    let other = world.api("PUT", &path, "contoso").json(&hook).send().await;
    assert_eq!(other.json()["errors"][0]["pointer"], "/scheme");
    let far = world
        .api("POST", &format!("{path}/rotate"), "contoso")
        .json(&json!({"overlapSeconds": 1_000_000}));
    assert_eq!(far.send().await.json()["errors"][0]["pointer"], "/overlapSeconds");
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn a_secret_is_shown_once_and_is_nowhere_after() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(log.clone())
        .with_max_level(tracing::Level::TRACE)
        .finish();
    // While there is but one, other tests' threads, which have none, decide for it what is worth logging.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let guard = tracing::subscriber::set_default(subscriber);
    let world = World::new().await;
    let given = "given-by-the-sender-1";
    let (id, secret) = world.hook(json!({"secret": given})).await;
    assert_eq!(secret, given);
    let mut said = String::new();
    let mut hear = |answer: Answer| said.push_str(&format!("{:?} {}\n", answer.headers, answer.text()));
    hear(world.deliver(&id, given, r#"{"name":"Ada"}"#).await);
    hear(world.deliver(&id, "some other secret", r#"{"name":"Ada"}"#).await);
    for path in [
        "/api/triggers/hooks",
        &format!("/api/triggers/hooks/{id}"),
        &format!("/api/triggers/hooks/{id}/deliveries"),
        "/api/secrets",
        "/api/audit?limit=200",
        "/api/runs",
    ] {
        let answer = world.api("GET", path, "contoso").send().await;
        assert_eq!(answer.status, 200, "{path}");
        hear(answer);
    }
    let path = format!("/api/triggers/hooks/{id}");
    hear(
        world
            .api("PUT", &path, "contoso")
            .json(&json!({"secret": given}))
            .send()
            .await,
    );
    assert!(!said.contains(given), "{said}");
    assert!(
        !said.to_lowercase().contains("weft-hook-"),
        "secrets of hooks are not in the list of secrets"
    );
    // Nobody reads or writes it by its name among the others.
    let row = {
        let database = world.home.path().join("weft.db");
        let database = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let sql = "SELECT row FROM entity WHERE partition = 'secret' AND row LIKE 'secret:weft-hook-%'";
        database.query_row(sql, [], |row| row.get::<_, String>(0)).unwrap()
    };
    let path = format!("/api/secrets/{}", row.trim_start_matches("secret:"));
    let written = world
        .api("PUT", &path, "contoso")
        .json(&json!({"value": "mine-now"}))
        .send()
        .await;
    assert_eq!((written.status, written.code().as_str()), (400, "parameter_invalid"));
    assert_eq!(world.api("DELETE", &path, "contoso").send().await.status, 400);
    assert_eq!(world.deliver(&id, given, r#"{"name":"Bob"}"#).await.status, 202);
    drop(guard);
    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(log.contains("/api/hooks/"), "the log was read");
    assert!(
        !log.contains(given) && !log.contains("v1="),
        "a log line has a secret or a signature"
    );
    for file in std::fs::read_dir(world.home.path()).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            let found = bytes.windows(given.len()).any(|window| window == given.as_bytes());
            assert!(!found, "{} has the secret", path.display());
        }
    }
}

/// `docs/hooks.md` has these numbers.
#[tokio::test]
async fn what_a_delivery_costs() {
    let world = World::new().await;
    let (id, secret) = world.hook(json!({})).await;
    world.deliver(&id, &secret, r#"{"name":"warm"}"#).await;
    let count = async |body: &str, secret: &str| {
        world.faults.reset();
        world.deliver(&id, secret, body).await;
        (world.faults.total(), format!("{:?}", world.faults.calls()))
    };
    // That the organization has a backlog is said at once, or, where that was said a moment ago, a little later for all that
    // come until then: so it is waited for, or the next count would have it.
    world.faults.reset();
    world.deliver(&id, &secret, r#"{"name":"Ada"}"#).await;
    let patience = tokio::time::Instant::now() + Duration::from_secs(30);
    while world.faults.calls().get(&Call::Send).copied().unwrap_or_default() < 2 {
        assert!(
            tokio::time::Instant::now() < patience,
            "nobody was told: {:?}",
            world.faults.calls()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(world.faults.total(), 7, "{:?}", world.faults.calls());
    let (repeated, calls) = count(r#"{"name":"Ada"}"#, &secret).await;
    assert_eq!(repeated, 3, "{calls}");
    count("{}", "some other secret").await;
    let (refused, calls) = count("{}", "some other secret").await;
    assert_eq!(refused, 0, "{calls}");
    world.clock.advance(Duration::from_secs(6));
    let (refused, calls) = count("{}", "some other secret").await;
    assert_eq!(refused, 1, "{calls}");
}

/// Whoever can't be recorded, and whatever can't be read, is not let in.
#[tokio::test]
async fn without_storage_nothing_is_taken() {
    let world = World::new().await;
    let (id, secret) = world.hook(json!({})).await;
    assert_eq!(world.deliver(&id, &secret, "{}").await.status, 202);
    world.faults.down(true);
    let answer = world.deliver(&id, &secret, r#"{"name":"Ada"}"#).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "storage_unavailable"));
    assert_eq!(
        world.to(&id).body("{}").send().await.status,
        401,
        "what is refused is refused all the same"
    );
    world.faults.down(false);
    let answer = world.deliver(&id, &secret, r#"{"name":"Ada"}"#).await;
    assert_eq!((answer.status, answer.json()["repeated"].as_bool()), (202, Some(false)));
}
