//! Secrets from their writing to their use: what is stored, who may have one, what of it can be seen anywhere.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use weft::boot::{self, Base};
use weft::clock::{Clock as _, Entropy, SystemClock};
use weft::config::Config;
use weft::domain::{LogLine, OrgId, Outcome, Rights, Secret, StepError, Tier};
use weft::egress::{Egress, Opened};
use weft::http::Gate;
use weft::runner::Isolation;
use weft::runner::jail::posture::Posture;
use weft::runner::{
    AttemptReport, AttemptSpec, BundleDescription, BundleRef, NodeRunner, Refusal, RunnerError, RunnerTimings,
    WorkerMessage,
};
use weft::secrets::keyring::Keyring;
use weft::secrets::mask::Masker;
use weft::store::repo::secrets::{Secrets, key_file};
use weft::store::secret::{NewSecret, Presented, SecretRecord, SecretStore as _};
use weft::store::sqlite;
use weft::tenancy::{Scope, operator, operator_in};
use weft::testing::Request;
use weft::usecase::audit_log::AuditQuery;
use weft::usecase::seed::{self, DEVELOPMENT_KEY};

const VALUE: &str = "tell\"nobody/+=at all";

/// What a step of these tests may do: ask, and say something.
struct Link(mpsc::Sender<WorkerMessage>);

impl Link {
    async fn call(&self, name: &str, args: Value) -> Result<Value, Refusal> {
        let (reply, answer) = oneshot::channel();
        let name = name.to_owned();
        self.0.send(WorkerMessage::Call { name, args, reply }).await.unwrap();
        answer.await.unwrap()
    }

    async fn code(&self, name: &str, args: Value) -> String {
        self.call(name, args).await.unwrap_err().code
    }

    async fn say(&self, message: &str, fields: Value) {
        let line = LogLine {
            at: SystemClock.now(),
            stream: "stdout".into(),
            level: "info".into(),
            message: message.into(),
            fields: Some(fields),
        };
        self.0.send(WorkerMessage::Line(line)).await.unwrap();
    }

    async fn handle(&self, name: &str) -> Value {
        self.call("secrets.handle", json!({"name": name})).await.unwrap()
    }

    async fn request(&self, url: &str, auth: &Value) -> Result<Value, Refusal> {
        let args = json!({"method": "GET", "url": url, "auth": auth});
        self.call("http.request", args).await
    }
}

type Act = Box<dyn FnOnce(Link) -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send>;

/// A runner whose steps are closures.
struct Acting {
    acts: Mutex<Vec<Act>>,
    network: Vec<String>,
}

impl std::fmt::Debug for Acting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acting")
    }
}

#[async_trait]
impl NodeRunner for Acting {
    async fn run(&self, spec: AttemptSpec, _: CancellationToken) -> Result<AttemptReport, RunnerError> {
        let act = self.acts.lock().unwrap().pop().expect("an act for this attempt");
        let outcome = act(Link(spec.messages)).await;
        Ok(AttemptReport {
            outcome,
            variables: json!({"kept": VALUE}),
            timings: RunnerTimings::default(),
            output_bytes: 0,
            output_truncated: false,
            max_rss_kib: None,
            posture: Arc::new(Vec::new()),
            network: None,
        })
    }

    async fn describe(&self, _: &BundleRef) -> Result<BundleDescription, RunnerError> {
        let workflow = json!({"name": "spender", "function": "spender", "line": 1, "parameters": [],
            "secrets": ["API_KEY", "MISSING", "EVERYBODYS"], "network": self.network});
        Ok(BundleDescription {
            modules: vec![
                json!({"module": "workflows.spender", "path": "workspace/workflows/spender.py",
                "workflows": [workflow], "data_providers": []}),
            ],
            files: 1,
            ..BundleDescription::default()
        })
    }

    fn warm(&self, _: &BundleRef, _: &str, _: &Rights) {}
    async fn shutdown(&self) {}
    fn slots(&self) -> usize {
        8
    }
    async fn posture(&self) -> Result<Isolation, RunnerError> {
        self.isolation().ok_or(RunnerError::Stopping)
    }
    fn isolation(&self) -> Option<Isolation> {
        Some(Isolation {
            posture: Posture::unsaid(vec!["own_process"]),
            minimum: Tier::Process,
        })
    }
    fn status(&self) -> Value {
        Value::Null
    }
}

/// A server that says back what it was sent, in the forms in which secrets come back; `/away` and `/near` redirect.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let request = String::from_utf8(request).unwrap();
                let path = request.split(' ').nth(1).unwrap();
                let auth = request
                    .lines()
                    .find_map(|line| {
                        line.strip_prefix("authorization: ")
                            .or_else(|| line.strip_prefix("x-key: "))
                    })
                    .unwrap_or("none");
                let (status, location) = match path {
                    "/away" => ("302 Found", format!("Location: http://localhost:{port}/echo\r\n")),
                    "/near" => ("302 Found", "Location: /echo\r\n".to_owned()),
                    _ => ("200 OK", String::new()),
                };
                let body =
                    json!({"auth": auth, "coded": STANDARD.encode(auth), "fill": "x".repeat(60_000)}).to_string();
                let answer = format!(
                    "HTTP/1.1 {status}\r\n{location}X-Seen: {auth}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                drop(stream.write_all(answer.as_bytes()).await);
            });
        }
    });
    port
}

struct World {
    router: axum::Router,
    cx: Arc<weft::usecase::Context>,
    runner: Arc<Acting>,
    home: tempfile::TempDir,
    port: u16,
}

impl World {
    async fn new() -> Self {
        let port = echo().await;
        let home = tempfile::tempdir().unwrap();
        let mut config = Config::for_testing(home.path());
        config.secrets.inherited = vec!["everybodys".into()];
        std::fs::create_dir_all(home.path().join("workspace")).unwrap();
        let network = ["127.0.0.1", "localhost"].map(|host| format!("{host}:{port}")).to_vec();
        let runner = Arc::new(Acting {
            acts: Mutex::default(),
            network,
        });
        let clock = Arc::new(SystemClock);
        let base = Base {
            egress: Egress::default(),
            config: Arc::new(config),
            ports: sqlite::open(Some(&home.path().join("weft.db")), clock.clone()).unwrap(),
            runner: runner.clone(),
            clock,
            entropy: Arc::new(Entropy::System),
        };
        let mut cx = boot::context(&base).await.unwrap();
        cx.egress = Egress {
            opened: Opened::loopback(),
            ..Egress::default()
        };
        let cx = Arc::new(cx);
        seed::seed(&cx, &operator(), |_| {}).await.unwrap();
        let gate = Gate::default();
        gate.open(boot::app(&base, cx.clone(), true));
        Self {
            router: boot::router(gate),
            cx,
            runner,
            home,
            port,
        }
    }

    fn request(&self, method: &str, path: &str, organization: &str) -> Request {
        let request = Request::new(self.router.clone(), method, path);
        request.key(DEVELOPMENT_KEY).organization(organization)
    }

    async fn put(&self, name: &str, body: Value) -> weft::testing::Answer {
        self.request("PUT", &format!("/api/secrets/{name}"), "contoso")
            .json(&body)
            .send()
            .await
    }

    /// Runs one attempt that does this, and answers what the API says of its run and of its log.
    async fn run<F>(&self, organization: &str, act: impl FnOnce(Link) -> F + Send + 'static) -> (Value, String)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let act: Act = Box::new(move |link| Box::pin(act(link)));
        self.runner.acts.lock().unwrap().push(act);
        let path = "/api/workflows/spender/execute";
        let answer = self.request("POST", path, organization).json(&json!({})).send().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let run = answer.json();
        let logs = format!("/api/runs/{}/logs", run["runId"].as_str().unwrap());
        let logs = self.request("GET", &logs, organization).send().await.text();
        (run, logs)
    }

    /// Everything that was written below the folder, and every audit record, in any form, is without the value.
    async fn nothing_shows(&self) {
        let masker = Masker::of(&[Secret::value(VALUE)]);
        for entry in std::fs::read_dir(self.home.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let bytes = std::fs::read(&path).unwrap();
                assert_eq!(masker.bytes(&bytes).len(), bytes.len(), "{}", path.display());
            }
        }
        assert!(!self.records("contoso").await.contains("nobody"));
    }

    async fn records(&self, organization: &str) -> String {
        let query = AuditQuery {
            limit: 200,
            ..AuditQuery::default()
        };
        let records = self.cx.audit.list(&scope(organization), query).await.unwrap();
        let line = |plain: &weft::audit::Plain| format!("{} {:?} {:?}\n", plain.event, plain.resource, plain.detail);
        records.items.iter().map(|entry| line(&entry.plain)).collect()
    }
}

fn scope(organization: &str) -> Scope {
    let org: OrgId = organization.parse().unwrap();
    operator_in(&operator(), &org)
}

fn done(value: Value) -> Outcome {
    Outcome::Succeeded { value }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_used_and_never_seen() {
    let world = World::new().await;
    let port = world.port;
    let hosts = json!([format!("127.0.0.1:{port}")]);
    let made = world
        .put(
            "API_KEY",
            json!({"value": VALUE, "hosts": hosts, "description": "for tests"}),
        )
        .await;
    assert_eq!((made.status, made.text().contains("nobody")), (201, false));
    assert_eq!(
        world
            .put("api-key", json!({"value": VALUE, "sentAs": "bearer"}))
            .await
            .status,
        200
    );

    let (run, logs) = world
        .run("contoso", move |link| async move {
            let auth = link.handle("API_KEY").await;
            let base = format!("http://127.0.0.1:{port}");
            // The answer is searched before the step gets it, in every form, in headers and body, to its last piece.
            let answer = link.request(&format!("{base}/near"), &auth).await.unwrap();
            assert_eq!(
                (answer["status"].as_u64(), answer["url"].as_str()),
                (Some(200), Some(&*format!("{base}/echo")))
            );
            let mut body = STANDARD.decode(answer["body_base64"].as_str().unwrap()).unwrap();
            let mut more = answer["more"].clone();
            while !more.is_null() {
                let rest = link.call("http.read", json!({"id": more})).await.unwrap();
                body.extend(STANDARD.decode(rest["body_base64"].as_str().unwrap()).unwrap());
                more = rest["more"].clone();
            }
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["auth"], "Bearer ***");
            assert!(body["coded"].as_str().unwrap().contains("***"));
            assert_eq!(body["fill"].as_str().unwrap().len(), 60_000);
            assert!(answer["headers"].to_string().contains("Bearer ***") && !answer.to_string().contains("nobody"));
            let args = json!({"method": "get", "url": format!("{base}/echo"), "auth": auth, "auth_as": "header:X-Key"});
            assert_eq!(link.call("http.request", args).await.unwrap()["status"], 200);

            // Redirects to elsewhere are not followed; hosts that the secret does not name don't get it.
            assert_eq!(
                link.request(&format!("{base}/away"), &auth).await.unwrap()["status"],
                302
            );
            let refused = link
                .request(&format!("http://localhost:{port}/"), &auth)
                .await
                .unwrap_err();
            assert_eq!(refused.code, "denied");
            assert!(
                refused.message.contains("may not be sent to localhost"),
                "{}",
                refused.message
            );
            for (url, code) in [
                ("https://example.org/", "denied"),
                ("http://169.254.169.254/", "denied"),
                ("ftp://127.0.0.1/", "invalid"),
                ("http://a:b@127.0.0.1/", "invalid"),
            ] {
                assert_eq!(link.request(url, &auth).await.unwrap_err().code, code, "{url}");
            }
            let mut twice = json!({"method": "GET", "url": base, "auth": auth, "headers": [["Authorization", "x"]]});
            assert_eq!(link.code("http.request", twice.clone()).await, "invalid");
            twice["headers"] = json!([["Host", "x"]]);
            assert_eq!(link.code("http.request", twice).await, "invalid");
            assert_eq!(
                link.request(&base, &json!("hdl_0")).await.unwrap_err().code,
                "not_found"
            );

            for (name, code) in [
                ("OTHER", "denied"),
                ("MISSING", "not_found"),
                ("EVERYBODYS", "not_found"),
                ("a b", "invalid"),
            ] {
                assert_eq!(link.code("secrets.get", json!({"name": name})).await, code, "{name}");
                assert_eq!(link.code("secrets.handle", json!({"name": name})).await, code, "{name}");
            }

            // From here on the step has it, and can say it in none of the usual ways.
            let value = link.call("secrets.get", json!({"name": "API_KEY"})).await.unwrap();
            assert_eq!(value, VALUE);
            link.say(
                &format!("it is {VALUE}"),
                json!({"json": json!(VALUE).to_string(), VALUE: [VALUE]}),
            )
            .await;
            link.say(&STANDARD.encode(format!("user:{VALUE}")), json!({})).await;
            done(json!({"value": VALUE, "list": [STANDARD.encode(VALUE)]}))
        })
        .await;
    assert_eq!(run["result"], json!({"value": "***", "list": ["***="]}), "{run}");
    assert!(logs.contains("it is ***"), "{logs}");
    for text in [run.to_string(), logs] {
        assert_eq!(Masker::of(&[Secret::value(VALUE)]).text(&text), text);
    }

    let (failed, _) = world
        .run("contoso", |link| async move {
            link.call("secrets.get", json!({"name": "API_KEY"})).await.unwrap();
            Outcome::Failed {
                error: StepError {
                    traceback: Some(format!("in spender: {VALUE}")),
                    data: Some(json!([VALUE])),
                    ..StepError::new("ValueError", format!("bad key {VALUE}"))
                },
            }
        })
        .await;
    assert_eq!(failed["error"]["message"], "bad key ***", "{failed}");

    let listed = world.request("GET", "/api/secrets", "contoso").send().await;
    let item = &listed.json()["items"][0];
    assert_eq!(
        (&item["name"], &item["description"]),
        (&json!("api-key"), &json!("for tests"))
    );
    assert!(!item["lastUsedAt"].is_null() && !listed.text().contains("nobody"));
    let records = world.records("contoso").await;
    for (event, count) in [("secret.used", 3), ("secret.refused", 2), ("secret.changed", 2)] {
        assert_eq!(
            records.lines().filter(|line| line.starts_with(event)).count(),
            count,
            "{event}:\n{records}"
        );
    }
    world.nothing_shows().await;
    let deleted = world.request("DELETE", "/api/secrets/API-KEY", "contoso").send().await;
    assert_eq!(deleted.status, 204);
    assert_eq!(
        world
            .request("DELETE", "/api/secrets/API-KEY", "contoso")
            .send()
            .await
            .code(),
        "secret_not_found"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn organizations_have_their_own_and_inherit_what_the_operator_names() {
    let world = World::new().await;
    let write = |name: &str, value: &str| weft::usecase::secret::WriteSecret {
        name: name.into(),
        value: Secret::value(value),
        hosts: None,
        presented: None,
        description: None,
    };
    for (name, value) in [("EVERYBODYS", "platform-value"), ("API_KEY", "platform-only")] {
        weft::usecase::secret::put_platform(&world.cx, &operator(), write(name, value))
            .await
            .unwrap();
    }
    assert_eq!(world.put("API_KEY", json!({"value": VALUE})).await.status, 201);
    let get = |link: Link| async move {
        let mut values = Vec::new();
        for name in ["API_KEY", "EVERYBODYS"] {
            let answer = link.call("secrets.get", json!({"name": name})).await;
            // Reversed, a value is not masked.
            values.push(answer.map_or_else(
                |refused| refused.code,
                |value| value.as_str().unwrap().chars().rev().collect(),
            ));
        }
        done(json!(values))
    };
    let reversed = |text: &str| text.chars().rev().collect::<String>();
    let (theirs, _) = world.run("fabrikam", get).await;
    assert_eq!(theirs["result"], json!(["not_found", reversed("platform-value")]));
    assert_eq!(
        world.put("everybodys", json!({"value": "our-own-value"})).await.status,
        201
    );
    let (ours, _) = world.run("contoso", get).await;
    assert_eq!(ours["result"], json!([reversed(VALUE), reversed("our-own-value")]));
    let listed = world.request("GET", "/api/secrets", "fabrikam").send().await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    assert_eq!(
        (&listed["items"][0]["name"], &listed["items"][0]["inherited"]),
        (&json!("EVERYBODYS"), &json!(true))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_kept_is_refused_without_being_repeated() {
    let world = World::new().await;
    for body in [
        json!({"value": "abc"}),
        json!({"value": "tell-nobody".repeat(3000)}),
        json!({"value": "tell-nobody", "hosts": ["https://api.example.com"]}),
        json!({"value": "tell-nobody", "hosts": ["*.com"]}),
        json!({"value": "tell-nobody", "sentAs": "header:Host"}),
        json!({"value": ["tell-nobody"]}),
        json!({"value": "tell-nobody", "tell-nobody": 1}),
        json!({}),
    ] {
        let answer = world.put("KEY", body.clone()).await;
        assert_eq!(
            (answer.status, answer.code()),
            (400, "secret_invalid".to_owned()),
            "{body}"
        );
        assert!(!answer.text().contains("nobody"), "{}", answer.text());
    }
    assert_eq!(
        world.put("a__b", json!({"value": "tell-nobody"})).await.code(),
        "parameter_invalid"
    );
    let short = world.put("KEY", json!({"value": "4444"})).await;
    assert!(short.json()["advice"].is_string());
}

#[tokio::test]
async fn keys_are_changed_without_losing_a_secret() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("keys/secrets.key");
    let entropy = Arc::new(Entropy::System);
    let ports = sqlite::open(None, Arc::new(SystemClock)).unwrap();
    boot::prepare(&ports).await.unwrap();
    let text = key_file::read(&file, true, &entropy).unwrap();
    assert_eq!(
        key_file::read(&file, true, &entropy).unwrap().expose().trim(),
        text.expose().trim()
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let open = |text: &Secret| {
        let keys = Keyring::parse(text).unwrap();
        Secrets::new(ports.clone(), entropy.clone(), keys, Some(file.clone()))
    };
    let before = open(&text);
    let platform = operator();
    let new = |value: &str| NewSecret {
        record: SecretRecord {
            name: "API_KEY".parse().unwrap(),
            hosts: vec!["api.example.com".into(), "*.example.org".into()],
            presented: Presented::Header("X-Key".into()),
            description: String::new(),
            updated_at: SystemClock.now(),
            updated_by: "operator".into(),
        },
        value: Secret::value(value),
    };
    let name = "api-key".parse().unwrap();
    assert!(before.put((&platform).into(), new("first-value")).await.unwrap());
    key_file::add(&file, &entropy).unwrap();
    let both = key_file::read(&file, false, &entropy).unwrap();
    let after = open(&both);
    assert_eq!(after.reseal((&platform).into()).await.unwrap(), 1);
    assert_eq!(after.reseal((&platform).into()).await.unwrap(), 0);
    // One that started earlier reads the file again; one that has only the old key says that it can't.
    let found = before.get((&platform).into(), &name).await.unwrap().unwrap();
    assert_eq!(found.value.expose(), "first-value");
    assert_eq!(
        (found.record.hosts.len(), found.record.presented),
        (2, Presented::Header("X-Key".into()))
    );
    let stale = Secrets::new(ports.clone(), entropy.clone(), Keyring::parse(&text).unwrap(), None);
    let error = stale.get((&platform).into(), &name).await.unwrap_err();
    assert!(error.to_string().contains("not known here"), "{error}");
    assert!(after.delete((&platform).into(), &name).await.unwrap());
    assert!(!after.delete((&platform).into(), &name).await.unwrap());
}
