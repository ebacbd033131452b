//! Options of fields, from real workers and from the engine: what a form is told, pages, dependent inputs, what is kept for whom,
//! and runs that insist on an option.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;
use weft::testing::app::Builder;
use weft::testing::{Answer, TestApp};
use weft::usecase::seed::DEVELOPMENT_KEY;

const PROVIDERS: &str = r#"
import os
from weft import Context, data_provider

@data_provider(description="Cities of a country.", cache_ttl_seconds=60)
def cities(ctx: Context, country: str, least: int = 0) -> list:
    known = {"de": [("b", "Berlin", 3), ("m", "Munich", 1)], "at": [("w", "Vienna", 2)]}
    if country not in known:
        raise ValueError(f"no country {country}")
    drawn = os.urandom(8).hex()
    return [{"value": value, "label": label, "description": ctx.organization.id, "metadata": drawn}
            for value, label, size in known[country] if size >= least]

@data_provider(cache_ttl_seconds=60)
def numbers() -> list:
    return list(range(120))

@data_provider(cache_ttl_seconds=0)
def fresh() -> list:
    return [os.urandom(8).hex()]

@data_provider(cache_ttl_seconds=60, uses_caller=True)
def mine(ctx: Context) -> list:
    return [ctx.caller.name + os.urandom(8).hex()]

@data_provider(cache_ttl_seconds=60)
def whose(ctx: Context) -> list:
    return [ctx.caller.name]

@data_provider
def people(search: str = "") -> list:
    return [f"found {search}"]

@data_provider
def wrong() -> dict:
    return {"a": 1}

@data_provider
def lost() -> list:
    raise FileNotFoundError(f"no table beside {__file__} or {os.__file__}")
"#;

const WORKFLOWS: &str = r#"
from typing import Annotated
from weft import Options, workflow

@workflow
def trip(
    country: Annotated[str, Options("fresh")],
    city: Annotated[str, Options("cities", {"country": "country"}, strict=True)],
    also: Annotated[list, Options("cities", {"country": "country"}, strict=True)] = (),
    zone: Annotated[str, Options("weft.time_zones", strict=True)] = "UTC",
) -> str:
    return city
"#;

const GRAPH: &str = r#"
name: visit
inputs:
  country: {type: string, data_provider: fresh}
  city: {type: string, options: {provider: cities, inputs: {country: country}}}
steps:
  - {id: said, type: compute, value: "{{ inputs.city }}"}
"#;

struct World {
    app: TestApp,
    _workspace: TempDir,
}

impl World {
    async fn with(files: &[(&str, &str)]) -> Self {
        let workspace = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = workspace.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let app = Builder::default().python().workspace(workspace.path()).start().await;
        Self {
            app,
            _workspace: workspace,
        }
    }

    async fn new() -> Self {
        Self::with(&[
            ("data_providers/all.py", PROVIDERS),
            ("workflows/trip.py", WORKFLOWS),
            ("workflows/visit.yaml", GRAPH),
        ])
        .await
    }

    async fn get_in(&self, organization: &str, path: &str) -> Answer {
        let request = self.app.request("GET", path).key(DEVELOPMENT_KEY);
        request.organization(organization).send().await
    }

    /// The answer of a provider for the first organization.
    async fn options(&self, path: &str) -> Value {
        let answer = self.get_in("contoso", &format!("/api/data-providers/{path}")).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        answer.json()
    }

    async fn refused(&self, path: &str) -> (u16, Value) {
        let answer = self.get_in("contoso", &format!("/api/data-providers/{path}")).await;
        (answer.status, answer.json())
    }

    async fn start(&self, arguments: &Value) -> Answer {
        let request = self.app.request("POST", "/api/workflows/trip/execute");
        let request = request.key(DEVELOPMENT_KEY).organization("contoso");
        request.json(arguments).send().await
    }
}

fn values(answer: &Value) -> Vec<Value> {
    let items = answer["items"].as_array().unwrap();
    items.iter().map(|one| one["value"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_form_is_told_where_options_come_from_and_gets_them() {
    let world = World::new().await;
    for workflow in ["trip", "visit"] {
        let shown = world
            .get_in("contoso", &format!("/api/workflows/{workflow}"))
            .await
            .json();
        let fields = &shown["parameters"]["properties"];
        assert_eq!(fields["country"]["x-options"]["provider"], "fresh", "{shown}");
        assert_eq!(fields["country"]["x-options"]["dependsOn"], json!([]));
        let city = json!({"provider": "cities", "inputs": {"country": "country"}, "dependsOn": ["country"], "strict": workflow == "trip"});
        assert_eq!(fields["city"]["x-options"], city);
        assert_eq!(fields["city"]["x-data-provider"], "cities");
    }
    let german = world.options("cities?country=de").await;
    assert_eq!(values(&german), [json!("b"), json!("m")]);
    assert_eq!(german["items"][0]["label"], "Berlin");
    assert_eq!(german["items"][0]["description"], "contoso");
    assert_eq!(values(&world.options("cities?country=at").await), [json!("w")]);
    assert_eq!(values(&world.options("cities?country=de&least=2").await), [json!("b")]);

    // Pages and searching.
    let first = world.options("numbers?limit=100").await;
    assert_eq!(
        (first["items"].as_array().unwrap().len(), &first["total"]),
        (100, &json!(120))
    );
    let cursor = first["nextCursor"].as_str().unwrap();
    // Good for the same conditions, whatever stands where in the query, and for no other.
    let small = world.options("cities?country=de&least=1&limit=1").await;
    let small = small["nextCursor"].as_str().unwrap().to_owned();
    let same = world
        .options(&format!("cities?least=1&cursor={small}&country=de&limit=2"))
        .await;
    assert_eq!(same["items"].as_array().unwrap().len(), 1);
    for other in [
        "numbers?",
        "cities?country=at&least=1",
        "cities?country=de",
        "cities?country=de&least=1&search=b",
    ] {
        let (status, problem) = world.refused(&format!("{other}&cursor={small}")).await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (400, Some("parameter_invalid")),
            "{other}: {problem}"
        );
        assert_eq!(problem["errors"][0]["pointer"], "query:cursor", "{other}");
    }
    let path = format!("/api/data-providers/numbers?limit=100&cursor={cursor}");
    assert_eq!(
        world.get_in("fabrikam", &path).await.status,
        400,
        "another organization's"
    );
    for made_up in ["MTAw", "100"] {
        let (status, problem) = world.refused(&format!("numbers?cursor={made_up}")).await;
        assert_eq!(
            (status, problem["code"].as_str()),
            (400, Some("parameter_invalid")),
            "{made_up}: {problem}"
        );
    }
    let second = world.options(&format!("numbers?limit=100&cursor={cursor}")).await;
    assert_eq!(second["items"][0]["value"], 100);
    assert!(second.get("nextCursor").is_none());
    assert_eq!(values(&world.options("numbers?search=11").await).len(), 11);
    assert_eq!(
        values(&world.options("cities?country=de&search=MUN").await),
        [json!("m")]
    );
    assert_eq!(values(&world.options("people?search=Ada").await), [json!("found Ada")]);

    // Mistakes name the provider.
    for (path, status, code, said) in [
        ("cities?country=xx", 502, "data_provider_failed", "`cities`"),
        ("cities", 400, "arguments_invalid", "`cities`"),
        ("cities?country=de&nosuch=1", 400, "arguments_invalid", "`cities`"),
        ("wrong", 502, "options_invalid", "`wrong`"),
        ("whose", 502, "data_provider_failed", "uses_caller=True"),
        (
            "lost",
            502,
            "data_provider_failed",
            "no table beside workspace/data_providers/all.py or python3.",
        ),
        ("weft.nosuch", 404, "data_provider_not_found", "`weft.nosuch`"),
        ("numbers?limit=0", 400, "parameter_invalid", "limit"),
        ("numbers?cursor=%2A", 400, "parameter_invalid", "cursor"),
    ] {
        let (found, problem) = world.refused(path).await;
        assert_eq!(
            (found, problem["code"].as_str()),
            (status, Some(code)),
            "{path}: {problem}"
        );
        assert!(problem["detail"].as_str().unwrap().contains(said), "{path}: {problem}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_kept_for_one_organization_and_one_caller() {
    let world = World::new().await;
    let first = world.options("cities?country=de").await;
    assert_eq!(world.options("cities?country=de").await, first);
    // Searching and paging are done with the same answer.
    let found = world.options("cities?country=de&search=berlin").await;
    assert_eq!(found["items"][0], first["items"][0]);
    assert_ne!(world.options("cities?country=de&least=1").await, first);
    let other = world
        .get_in("fabrikam", "/api/data-providers/cities?country=de")
        .await
        .json();
    assert_eq!(other["items"][0]["description"], "fabrikam");
    assert_ne!(other["items"][0]["metadata"], first["items"][0]["metadata"]);
    assert_ne!(world.options("fresh").await, world.options("fresh").await);

    let by = async |user: &str| {
        let request = world.app.request("GET", "/api/data-providers/mine").person(user);
        request.organization("contoso").send().await.json()
    };
    let (ann, key) = (by("ann").await, world.options("mine").await);
    assert_eq!(by("ann").await, ann);
    assert_eq!(world.options("mine").await, key);
    assert_ne!(ann, key);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strict_argument_is_one_of_the_options_when_a_run_starts() {
    let world = World::new().await;
    let good = world
        .start(&json!({"country": "de", "city": "m", "also": ["b", "m"]}))
        .await;
    assert_eq!(good.json()["result"], "m", "{good:?}");
    let wrong = world
        .start(&json!({"country": "at", "city": "m", "also": ["w", "b"], "zone": "Nowhere"}))
        .await;
    assert_eq!(wrong.status, 400, "{wrong:?}");
    let problem = wrong.json();
    assert_eq!(problem["code"], "arguments_invalid");
    let found: Vec<_> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["pointer"].as_str().unwrap(), one["code"].as_str().unwrap()))
        .collect();
    assert_eq!(
        found,
        [
            ("/city", "not_an_option"),
            ("/also", "not_an_option"),
            ("/zone", "not_an_option")
        ]
    );
    let failed = world.start(&json!({"country": "xx", "city": "m"})).await;
    assert_eq!(
        (failed.status, failed.code()),
        (502, "data_provider_failed".to_owned()),
        "{failed:?}"
    );
    // It is looked at where a schedule is written, unless it is paused, and where a message is sent.
    let post = async |path: &str, body: Value| {
        let request = world.app.request("POST", path).key(DEVELOPMENT_KEY);
        request.organization("contoso").json(&body).send().await
    };
    let schedule = |enabled: bool| {
        json!({"name": "s", "workflow": "trip", "cron": "0 6 * * *", "enabled": enabled,
               "arguments": {"country": "at", "city": "m"}})
    };
    let refused = post("/api/schedules", schedule(true)).await;
    assert_eq!(refused.status, 400, "{refused:?}");
    assert_eq!(refused.json()["errors"][0]["pointer"], "/arguments/city", "{refused:?}");
    assert_eq!(post("/api/schedules", schedule(false)).await.status, 201);
    let made = post("/api/queue-triggers", json!({"name": "q", "workflow": "trip"})).await;
    assert_eq!(made.status, 201, "{made:?}");
    let messages = format!("/api/queue-triggers/{}/messages", made.json()["id"].as_str().unwrap());
    let refused = post(&messages, json!({"country": "at", "city": "m"})).await;
    assert_eq!(
        (refused.status, refused.code()),
        (400, "arguments_invalid".to_owned()),
        "{refused:?}"
    );
    assert_eq!(post(&messages, json!({"country": "de", "city": "m"})).await.status, 202);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_has_data_providers_of_its_own() {
    let world = World::new().await;
    let listed = world.get_in("contoso", "/api/data-providers").await.json();
    let built_in: Vec<_> = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["builtIn"] == true)
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        built_in,
        [
            "weft.members",
            "weft.node_types",
            "weft.secrets",
            "weft.time_zones",
            "weft.workflows"
        ]
    );
    let zones = world.options("weft.time_zones?search=berlin").await;
    assert_eq!(values(&zones), [json!("Europe/Berlin")]);
    assert_eq!(
        values(&world.options("weft.workflows").await),
        [json!("trip"), json!("visit")]
    );
    assert_eq!(
        values(&world.options("weft.workflows?tag=nosuch").await),
        [] as [Value; 0]
    );
    assert!(values(&world.options("weft.node_types?limit=200").await).contains(&json!("compute")));
    let members = world.options("weft.members").await;
    assert!(!values(&members).is_empty(), "{members}");

    // Names of secrets are for those who may list them.
    let by = async |user: &str| {
        let request = world
            .app
            .request("GET", "/api/data-providers/weft.secrets")
            .person(user);
        request.organization("contoso").send().await
    };
    let request = world.app.request("PUT", "/api/secrets/API_KEY").key(DEVELOPMENT_KEY);
    let written = request
        .organization("contoso")
        .json(&json!({"value": "not for a form"}));
    assert_eq!(written.send().await.status, 201);
    let secrets = world.options("weft.secrets").await;
    assert_eq!(values(&secrets), ["API_KEY"]);
    assert!(!secrets.to_string().contains("not for a form"));
    assert_eq!(by("cleo").await.status, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_names_no_provider_is_left_out_and_said() {
    let workflows = r#"
from typing import Annotated
from weft import Options, data_provider, workflow

@workflow
def good(name: Annotated[str, Options("weft.workflows")]) -> str:
    return name

@workflow
def unknown(name: Annotated[str, Options("citys")]) -> str:
    return name

@workflow
def circle(a: Annotated[str, Options("cities", {"country": "b"})], b: Annotated[str, Options("cities", {"country": "a"})]) -> str:
    return a

@data_provider
def paged(limit: int = 5) -> list:
    return []
"#;
    let graph = GRAPH.replace("{country: country}", "{country: nation}");
    let world = World::with(&[
        ("data_providers/all.py", PROVIDERS),
        ("workflows/all.py", workflows),
        ("workflows/visit.yaml", &graph),
    ])
    .await;
    let catalog = world.app.cx.catalogs.current().await.unwrap().catalog;
    assert_eq!(catalog.workflows.keys().collect::<Vec<_>>(), ["good"]);
    assert!(!catalog.data_providers.contains_key("paged"));
    let mut codes: Vec<_> = catalog.findings.iter().map(|one| one.code.as_str()).collect();
    codes.sort_unstable();
    assert_eq!(
        codes,
        [
            "invalid_declaration",
            "options_cycle",
            "unknown_field",
            "unknown_provider"
        ]
    );
    let yaml = catalog.findings.iter().find(|one| one.code == "unknown_field").unwrap();
    // The line and the column of the input in the file.
    assert!(yaml.pointer.ends_with("visit.yaml:5:70"), "{yaml:?}");
}
