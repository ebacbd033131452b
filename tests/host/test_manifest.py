"""host.json, function folders and routes: what is read, and what is refused."""

import json
import os
from pathlib import Path

import pytest

from apps import http, make_app, queue, timer
from standin import manifest, routing, timespan
from standin.manifest import ManifestError

REPOSITORY = Path(__file__).resolve().parents[2]


def load(root: Path, settings: dict[str, str] | None = None) -> manifest.App:
    return manifest.load(root, settings or {})


def errors(app: manifest.App) -> dict[str, str]:
    return {f.name: f.error for f in app.functions if f.error}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("00:05:00", 300),
        ("00:00:02.5", 2.5),
        ("1.00:00:00", 86400),
        ("-1", -1),
        ("-00:00:01", -1),
        ("01:30", 5400),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert timespan.seconds(text) == seconds


def test_defaults(tmp_path: Path) -> None:
    config = load(make_app(tmp_path, {}, {"functionTimeout": None, "extensions": {"queues": None}})).config
    assert config.function_timeout == 1800
    assert config.route_prefix == "api"
    assert config.initialization_timeout == 30
    assert config.queues == manifest.QueueOptions(16, 8 * (os.cpu_count() or 1), 60.0, 0.0, 5, True)
    assert config.handler.errors_only


def test_no_limit(tmp_path: Path) -> None:
    assert load(make_app(tmp_path, {}, {"functionTimeout": "-1"})).config.function_timeout is None


@pytest.mark.parametrize(
    "host_json",
    [
        {"version": "3.0"},
        {"functionTimeout": "00:00:00.5"},
        {"functionTimeout": "soon"},
        {"extensions": {"queues": {"batchSize": 33}}},
        {"extensions": {"queues": {"maxPollingInterval": "00:00:00.05"}}},
        {"customHandler": {"description": {"defaultExecutablePath": ""}}},
        {"customHandler": {"http": {"routes": [{"route": "{*path}"}]}}},
        {"customHandler": {"enableProxyingHttpRequest": False, "enableForwardingHttpRequest": True}},
        {"retry": {"strategy": "fixedDelay", "maxRetryCount": 2}},
    ],
)
def test_host_json_refused(tmp_path: Path, host_json: dict[str, object]) -> None:
    with pytest.raises(ManifestError):
        load(make_app(tmp_path, {}, host_json))


def test_overrides_by_environment(tmp_path: Path) -> None:
    root = make_app(tmp_path, {})
    config = load(
        root,
        {
            "AzureFunctionsJobHost__extensions__queues__batchSize": "3",
            "AzureFunctionsJobHost__functionTimeout": "00:00:07",
            "AzureFunctionsJobHost__customHandler__description__arguments": '["a b", "%WHO%", "%UNSET%"]',
            "AzureFunctionsJobHost__customHandler__description__useStdErrorStreamForErrorsOnly": "false",
            "WHO": "me",
        },
    ).config
    assert config.queues.batch_size == 3
    assert config.function_timeout == 7
    assert config.handler.arguments == "a b me "
    assert not config.handler.errors_only


def test_executable_below_the_app_root_becomes_absolute(tmp_path: Path) -> None:
    root = make_app(tmp_path, {}, {"customHandler": {"description": {"defaultExecutablePath": "bin/%NAME%"}}})
    (root / "bin").mkdir()
    (root / "bin" / "run").touch()
    assert load(root, {"NAME": "run"}).config.handler.executable == str((root / "bin/run").resolve())
    assert load(root, {"NAME": "other"}).config.handler.executable == "bin/other"


def test_functions_in_error(tmp_path: Path) -> None:
    root = make_app(
        tmp_path,
        {
            "1bad": http(),
            "host": http(),
            "adminish": http(route="administrators"),
            "runtimish": http(route="runtime/x"),
            "binding": [{**http()[0], "name": "under_score"}, http()[1]],
            "two": [http()[0], {**queue("q")[0], "name": "other"}],
            "none": [http()[1]],
            "setting": queue("%NO_SUCH_SETTING%"),
            "level": http("owner", "level"),
            "a": http(route="same", methods=["get", "post"]),
            "b": http(route="SAME", methods=["POST"]),
            "c": http(route="same", methods=["put"]),
            "clock": timer("%WHEN%"),
        },
    )
    (root / "folder").mkdir()
    app = load(root, {"WHEN": "0 * * * * *"})
    assert set(errors(app)) == {
        "1bad",
        "host",
        "adminish",
        "runtimish",
        "binding",
        "two",
        "none",
        "setting",
        "level",
        "b",
    }
    clock = app.function("CLOCK")
    assert clock is not None
    assert clock.trigger.text("schedule") == "0 * * * * *"


def test_first_match_by_name_not_by_precision(tmp_path: Path) -> None:
    root = make_app(
        tmp_path,
        {
            "app": http(),
            "sys": http("function", "sys/{*path}"),
            "Aa": http(route="items/{id:int}", methods=["get"]),
        },
    )
    functions = load(root).runnable
    assert [f.name for f in functions] == ["Aa", "app", "sys"]

    def name(method: str, path: str) -> str | None:
        found = routing.first_match(functions, method, path)
        return found[0].name if found else None

    assert name("GET", "/api/sys/runs") == "app"
    assert name("GET", "/api/items/7") == "Aa"
    assert name("POST", "/api/items/7") == "app"
    assert name("GET", "/api/items/x") == "app"
    assert name("GET", "/api") == "app"
    assert name("GET", "/API/x") == "app"
    assert name("GET", "/other") is None


@pytest.mark.parametrize(
    ("template", "path", "values"),
    [
        ("api/{*path}", "/api/a/b%2Fc", {"path": "a/b/c"}),
        ("api/{*path}", "/api/", {"path": None}),
        ("api/r/{id?}", "/api/r", {"id": None}),
        ("api/r/{id?}", "/api/r/4", {"id": "4"}),
        ("api/r/{id}", "/api/r", None),
        ("api/r/{id:guid}", "/api/r/x", None),
        ("api/r", "/api/r/x", None),
    ],
)
def test_templates(template: str, path: str, values: dict[str, str | None] | None) -> None:
    assert routing.match(template, path) == values


@pytest.mark.parametrize(
    ("raw", "seen"),
    [
        ("/api/a%20b", "/api/a%20b"),
        ("/api/%61", "/api/a"),
        ("/api/a%2Fb%2fc", "/api/a%2Fb%2fc"),
        ("/api/../drive_run", "/drive_run"),
        ("/api/%2e%2e/drive_run", "/drive_run"),
        ("/api/x/./y/..", "/api/x/"),
        ("/../../x", "/x"),
        ("/api/%252e%252e/x", "/api/%252e%252e/x"),
        ("/api/%252Fx", "/api/%252Fx"),
        ("/api/ü".encode().decode("latin-1"), "/api/%C3%83%C2%BC"),
        ("/api/%ff", "/api/%FF"),
        ("/api//x", "/api//x"),
    ],
)
def test_paths_are_decoded_once(raw: str, seen: str) -> None:
    assert routing.normalise(raw) == seen


def test_raw_means_exactly_two_bindings(tmp_path: Path) -> None:
    extra = {"type": "queue", "direction": "out", "name": "out", "queueName": "q"}
    app = load(make_app(tmp_path, {"raw": http(), "wrapped": [*http(route="w"), extra], "q": queue("q")}))
    assert {f.name for f in app.runnable if f.is_raw_http} == {"raw"}


# The app of this repository.


@pytest.fixture(scope="module")
def weft_app() -> manifest.App:
    return load(REPOSITORY)


def test_weft_has_no_function_in_error(weft_app: manifest.App) -> None:
    assert errors(weft_app) == {}
    assert [f.name for f in weft_app.runnable] == [
        "api",
        "attempt_step",
        "attempt_step_poison",
        "drive_run",
        "drive_run_poison",
        "tick",
    ]


def test_weft_serves_http_raw_and_only_below_its_prefix(weft_app: manifest.App) -> None:
    assert weft_app.config.proxying
    assert weft_app.config.route_prefix == "api"
    api = weft_app.function("api")
    assert api is not None
    assert api.is_raw_http
    assert api.auth_level == "anonymous"
    for function in weft_app.runnable:
        if function.kind != "http":
            assert routing.first_match(weft_app.runnable, "POST", f"/{function.name}") is None


def test_weft_has_a_function_for_every_poison_queue(weft_app: manifest.App) -> None:
    queues = {f.name: f.trigger.text("queueName") for f in weft_app.runnable if f.kind == "queue"}
    assert queues == {
        "drive_run": "weft-runs",
        "attempt_step": "weft-attempts",
        "drive_run_poison": "weft-runs-poison",
        "attempt_step_poison": "weft-attempts-poison",
    }
    options = weft_app.config.queues
    assert (options.batch_size, options.new_batch_threshold) == (8, 4)
    assert (options.visibility_timeout, options.max_dequeue_count) == (5, 5)
    assert options.base64


def test_weft_local_settings_hold_no_secret() -> None:
    values = json.loads((REPOSITORY / "local.settings.json").read_text())["Values"]
    assert values == {
        "AzureWebJobsStorage": "UseDevelopmentStorage=true",
        "FUNCTIONS_WORKER_RUNTIME": "custom",
        "WEFT_STORE": "azure",
        "WEFT_ENVIRONMENT": "development",
    }
