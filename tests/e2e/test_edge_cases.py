"""What docs/edge-cases.md promises and no other test holds whole: engines that are another's, callers with two credentials
or no organization, code that asks for the engine in roundabout ways, and a document that names tests which are there."""

import ast
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from test_audit import by_request, platform_records, principal
from weft import REPOSITORY, Weft, copy_workspace, problem, until, weft

DOCUMENT = REPOSITORY / "docs" / "edge-cases.md"
QUESTIONS = 8


# The document.


def named_tests() -> list[tuple[str, str]]:
    """Every `path::name` in the document."""
    return re.findall(r"`((?:tests|engine/tests)/[\w/.]+)::(\w+)`", DOCUMENT.read_text())


def has_test(text: str, ending: str, name: str) -> bool:
    if ending == ".py":
        return any(isinstance(one, ast.FunctionDef) and one.name == name for one in ast.parse(text).body)
    marked = r"(?m)^ *#\[(?:tokio::)?test\b[^\n]*\]\n(?: *#\[[^\n]*\]\n)* *(?:async )?fn " + name + r"\("
    return re.search(marked, text) is not None


def test_every_test_that_is_named_is_there() -> None:
    for path, name in named_tests():
        file = REPOSITORY / path
        assert file.is_file(), f"docs/edge-cases.md names {path}, which is gone"
        assert name.startswith("test_") or file.suffix == ".rs", f"{name} of {path} is no test"
        assert has_test(file.read_text(), file.suffix, name), (
            f"docs/edge-cases.md names {path}::{name}, which is gone"
        )


def test_every_answer_is_whole() -> None:
    sections = re.split(r"^## ", DOCUMENT.read_text(), flags=re.MULTILINE)[1:]
    assert [section.partition(".")[0] for section in sections] == [str(one + 1) for one in range(QUESTIONS)]
    for section in sections:
        for part in (
            "**What happens.**",
            "**What the developer sees.**",
            "**What to do next.**",
            "**Held by.**",
        ):
            assert part in section, f"{section.splitlines()[0]}: no {part}"
        assert re.search(r"`(?:tests|engine/tests)/[\w/.]+::\w+`", section.partition("**Held by.**")[2]), (
            section
        )


@pytest.mark.parametrize(
    ("ending", "text"),
    [
        (".py", "# def test_one\ndef helper():\n    def test_one(): pass\n"),
        (".rs", "// #[test]\nfn test_one() {}\n"),
        (".rs", "#[test]\nfn test_one_more() {}\n"),
    ],
)
def test_what_only_looks_like_a_test_is_none(ending: str, text: str) -> None:
    assert not has_test(text, ending, "test_one")


# An engine that was changed past the check.


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """An app's folder with the Python side of the engine, and a release file that fits it."""
    app = tmp_path / "app"
    left_out = shutil.ignore_patterns("__pycache__", "tests", ".*cache")
    shutil.copytree(REPOSITORY / "engine", app / "engine", ignore=left_out)
    files = {
        str(path.relative_to(app)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in ("weft", "weft_runtime")
        for path in sorted((app / "engine" / folder).rglob("*"))
        if path.is_file()
    }
    (app / ".github").mkdir()
    release = {"format": 1, "version": "1.0.0", "executable": [], "files": files}
    (app / ".github" / "engine-release.json").write_text(json.dumps(release))
    return app


def test_an_engine_that_was_pushed_past_the_check_is_seen_where_it_starts(
    make: Any, released: Path, tmp_path: Path
) -> None:
    settings = {"FUNCTIONS_APP_ROOT_PATH": str(released)}
    places: list[Any] = ["--data", tmp_path / "data", "--workspace", copy_workspace(tmp_path / "workspace")]
    good = weft("doctor", *places, environment=settings)
    assert re.search(r"^ok +engine +release 1\.0\.0, all \d+ files as released", good.stdout, re.MULTILINE), (
        good
    )
    with (released / "engine" / "weft_runtime" / "loader.py").open("a") as file:
        file.write("import os\n")
    (released / "engine" / "weft" / "mine.py").write_text("")
    bad = weft("doctor", *places, environment=settings)
    assert bad.status == 0, bad
    for line in (
        "engine/weft_runtime/loader.py: changed",
        "engine/weft/mine.py: unexpected",
        "take the release again",
    ):
        assert line in bad.stdout, bad
    # A warning, unless the installation wants none but upstream's.
    one = make(environment=settings).start()
    assert one.get("/status")["engine"]["state"] == "modified"
    one.stop()
    one = make("strict", environment={**settings, "WEFT_REQUIRE_INTACT_ENGINE": "true"})
    one.launch()
    assert one.wait() == 1
    said = one.said()
    assert re.search(
        r"error: .*2 file\(s\) differ from release 1\.0\.0, first `engine/weft/mine\.py`", said
    ), said
    assert "hint: `weft doctor` names every file" in said


def test_placeholders_of_a_fork_are_told(tmp_path: Path) -> None:
    (tmp_path / ".github").mkdir()
    (tmp_path / "engine").symlink_to(REPOSITORY / "engine")
    settings = {"FUNCTIONS_APP_ROOT_PATH": str(tmp_path)}
    places: list[Any] = [
        "--data",
        tmp_path / "data",
        "--workspace",
        copy_workspace(tmp_path / "workspace"),
        "--json",
    ]

    def protection() -> dict[str, Any]:
        done = weft("doctor", *places, environment=settings)
        assert done.status == 0, done
        [found] = [check for check in done.json if check["what"] == "protection"]
        assert isinstance(found, dict)
        return found

    assert protection()["detail"] == "this is no checkout"
    (tmp_path / ".github" / "protected-paths").write_text("engine/\n")
    (tmp_path / ".github" / "upstream").write_text("# The repository.\n\n")
    found = protection()
    assert (found["status"], found["detail"]) == (
        "warning",
        "nothing but the placeholder in `.github/upstream` and `.github/engine-signers`",
    )
    assert "docs/protect-engine.md" in found["remedy"]
    (tmp_path / ".github" / "upstream").write_text("# The repository.\nhttps://github.com/example/weft\n")
    assert protection()["detail"].endswith("in `.github/engine-signers`")
    (tmp_path / ".github" / "engine-signers").write_text("a@example.com ssh-ed25519 AAAA\n")
    assert (protection()["status"], protection()["detail"]) == ("ok", "upstream and its keys are named")


# A key, and an organization that is not there; a key and a principal.


def test_a_key_for_an_organization_that_is_not_there(shared: Weft) -> None:
    before = len(platform_records(shared))
    answer = shared.execute("echo", {"value": 1}, X_Organization_Id="nobody", X_Request_Id="edge-nobody")
    problem(
        answer,
        404,
        "organization_not_found",
        detail="`nobody` does not exist",
        hint="^check `X-Organization-Id`; `weft org list` shows",
    )
    records = until(lambda: by_request(platform_records(shared), "edge-nobody"), "its record")
    assert [record["event"] for record in records] == ["access.denied"]
    assert len(platform_records(shared)) > before
    # What a person is told names no way to find out which there are.
    person = {"x_functions_key": None, "X_MS_CLIENT_PRINCIPAL": principal("ben")}
    answers = [shared.execute("echo", {}, **person, X_Organization_Id=org) for org in ("nobody", "fabrikam")]
    bodies = [problem(answer, 404, "organization_not_found", hint="must be a member") for answer in answers]
    assert len({body["detail"].replace("nobody", "fabrikam") for body in bodies}) == 1
    # The organization's own lists know nothing of it.
    assert not by_request(shared.audit(), "edge-nobody")


def test_a_key_of_one_organization_learns_nothing_of_others(shared: Weft) -> None:
    made = weft("keys", "create", "only-contoso", "-s", "*", "-o", "contoso", "--json", "--data", shared.data)
    assert made.status == 0, made
    key = made.json["key"]
    assert until(lambda: shared.call("GET", "/runs", x_functions_key=key).status == 200, "the key is known")
    bodies = []
    for org in ("nobody", "fabrikam", "northwind"):
        answer = shared.execute("echo", {"value": 1}, x_functions_key=key, X_Organization_Id=org)
        body = problem(answer, 403, "key_not_for_organization", hint="key of this organization")
        bodies.append((body["detail"].replace(org, "ORG"), body["hint"]))
    assert len(set(bodies)) == 1


BOTH = [
    (principal("ann"), "ann"),
    (principal("nobody-we-know"), "nobody-we-know"),
    ("%%%", "malformed"),
    ("", "malformed"),
]


@pytest.mark.parametrize(("header", "recorded"), BOTH, ids=["known", "unknown", "broken", "empty"])
def test_of_key_and_principal_the_key_decides(shared: Weft, header: str, recorded: str) -> None:
    request = f"edge-both-{recorded}-{len(header)}"
    answer = shared.execute("echo", {"value": 1}, X_MS_CLIENT_PRINCIPAL=header, X_Request_Id=request)
    assert answer.status == 200, answer
    requester = answer.json["requester"]
    assert (requester["kind"], requester["name"]) == ("service", "weft-dev")
    [bypass] = [record for record in by_request(shared.audit(), request) if record["event"] == "key.bypass"]
    assert recorded in bypass["alsoPrincipal"], bypass
    assert bypass["principal"]["tier"] == "function_key"


@pytest.mark.parametrize("key", ["wrong", ""])
def test_a_good_principal_saves_no_bad_key(shared: Weft, key: str) -> None:
    good = {"X_MS_CLIENT_PRINCIPAL": principal("ann")}
    assert shared.call("GET", "/runs", x_functions_key=None, **good).status == 200
    problem(
        shared.call("GET", "/runs", x_functions_key=key, **good), 401, "key_invalid", hint="weft keys list"
    )
    problem(shared.call("GET", f"/runs?code={key}", x_functions_key=None, **good), 401, "key_invalid")


def test_a_principal_adds_no_right_to_a_key(shared: Weft) -> None:
    made = weft(
        "keys", "create", "reads-only", "-s", "run:read", "-s", "run:list", "--json", "--data", shared.data
    )
    key = made.json["key"]
    assert until(lambda: shared.call("GET", "/runs", x_functions_key=key).status == 200, "the key is known")
    ann = principal("ann")
    assert shared.execute("echo", {"value": 1}, x_functions_key=None, X_MS_CLIENT_PRINCIPAL=ann).status == 200
    answer = shared.execute("echo", {"value": 1}, x_functions_key=key, X_MS_CLIENT_PRINCIPAL=ann)
    assert answer.status == 403, answer


# Code that asks for the engine in roundabout ways, in the whole product.

DYNAMIC = '''
import sys
from weft import Context, workflow


def tried(what):
    try:
        return repr(what())[:200]
    except BaseException as error:
        return f"{type(error).__name__}: {error}"


def emptied():
    from importlib.machinery import PathFinder
    kept, sys.meta_path[:] = list(sys.meta_path), [PathFinder]
    try:
        return __import__("weft_" + "runtime")
    finally:
        sys.meta_path[:] = kept


def found_by_gc():
    """Objects of the runtime are there, for it runs this; what they hold is looked at below."""
    import gc
    return [one for one in gc.get_objects() if "weft_runtime" in str(getattr(type(one), "__module__", ""))]


def secrets_in_memory():
    """Everything that can be reached from any object, as text, holds no credential."""
    import gc
    texts = [str(value) for one in gc.get_objects() if isinstance(one, dict) for value in list(one.values()) if isinstance(value, str)]
    return [text for text in texts if "AccountKey=" in text or "WEFT_" + "SIGNING" in text or "KEY-OF-THE-TEST" in text]


@workflow
def dynamic(ctx: Context) -> object:
    import importlib.util, os
    return {
        "built": tried(lambda: __import__("eng" + "ine")),
        "exec": tried(lambda: exec("from weft_runtime import worker")),
        "import_module": tried(lambda: importlib.import_module("weft_" + "runtime.worker")),
        "find_spec": tried(lambda: importlib.util.find_spec("weft_" + "runtime")),
        "emptied": tried(emptied),
        "environment": sorted(os.environ),
        "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd")),
        "memory": secrets_in_memory(),
        "found": len(found_by_gc()),
        "other": tried(lambda: open("/proc/1/environ").read()) if os.getpid() != 1 else "none",
    }
'''


def test_dynamic_imports_are_refused_and_reflection_finds_nothing(make: Any, tmp_path: Path) -> None:
    workspace = copy_workspace(tmp_path / "workspace")
    (workspace / "workflows" / "dynamic.py").write_text(DYNAMIC)
    environment = {"WEFT_SIGNING_KEY": "KEY-OF-THE-TEST-" + "0" * 32}
    one = make(workspace=workspace, environment=environment).start()
    run = one.run("dynamic")
    assert run["status"] == "succeeded", run
    got = run["result"]
    for way in ("built", "exec", "import_module", "find_spec", "emptied"):
        assert re.match(
            r"ImportError: import of `(engine|weft_runtime[\w.]*)` refused: it is part of", got[way]
        ), got
        assert "from weft import" in got[way]
    assert not [name for name in got["environment"] if name.startswith(("WEFT_", "Azure", "FUNCTIONS_"))], got
    assert got["memory"] == []
    # Its own three, its socket, and the folder that is being listed.
    assert len(got["descriptors"]) <= 5, got
    # The text that shows an import is found before anything runs.
    (workspace / "workflows" / "shown.py").write_text(DYNAMIC.replace('"eng" + "ine"', '"engine"'))
    done = weft("check", "--json", "--workspace", workspace, "--data", tmp_path / "data")
    assert {item["code"] for item in done.json["findings"]} == {"import_forbidden"}, done


# A workspace that was written for another engine.

OTHER_INTERFACES = {
    "conflict.py": (
        "from weft import workflow\n<<<<<<< HEAD\nx = 1\n=======\nx = 2\n>>>>>>> v1.4.0\n\n\n@workflow\ndef conflict():\n    pass\n",
        "syntax_error",
        ":2",
        "a merge has left a conflict here",
    ),
    "gone.py": (
        "from weft import Vanished, workflow\n\n\n@workflow\ndef gone():\n    pass\n",
        "import_failed",
        ":1",
        "weft upgrade-check",
    ),
    "gone_module.py": (
        "import weft.vanished\nfrom weft import workflow\n\n\n@workflow\ndef gone_module():\n    pass\n",
        "import_failed",
        ":1",
        "weft upgrade-check",
    ),
    "keyword.py": (
        "from weft import workflow\n\n\n@workflow(colour='red')\ndef keyword():\n    pass\n",
        "import_failed",
        ":4",
        "weft upgrade-check",
    ),
    "attribute.py": (
        "import weft\n\n\n@weft.flow\ndef attribute():\n    pass\n",
        "import_failed",
        ":4",
        "weft upgrade-check",
    ),
}


def test_code_for_another_engine_is_named_with_what_to_do(make: Any, tmp_path: Path) -> None:
    workspace = copy_workspace(tmp_path / "workspace")
    for name, (text, *_) in OTHER_INTERFACES.items():
        (workspace / "workflows" / name).write_text(text)
    done = weft("check", "--json", "--workspace", workspace, "--data", tmp_path / "data")
    found = {finding["pointer"]: finding for finding in done.json["findings"]}
    assert len(found) == len(OTHER_INTERFACES), done
    for name, (_, code, line, hint) in OTHER_INTERFACES.items():
        [finding] = [one for at, one in found.items() if at.startswith(f"workspace/workflows/{name}{line}")]
        assert finding["code"] == code, finding
        assert hint in finding["hint"], finding
    # Strict, as everywhere but where it is asked for otherwise: nothing starts. Else the rest is served.
    strict = make("strict", workspace=workspace)
    strict.launch()
    assert strict.wait() == 1
    assert "weft upgrade-check" in strict.stderr.read_text()
    one = make("rest", workspace=workspace, environment={"WEFT_DISCOVERY": "quarantine"}).start()
    one.lives()
    problem(
        one.execute("gone"),
        404,
        "workflow_not_found",
        hint=r"^`workspace/workflows/gone\.py:1(:\d+)?` keeps its file out \(import_failed\); ",
    )


def test_what_is_missed_only_when_it_runs_fails_that_run_alone(make: Any, tmp_path: Path) -> None:
    workspace = copy_workspace(tmp_path / "workspace")
    (workspace / "workflows" / "late.py").write_text(
        "from weft import Context, workflow\n\n\n@workflow\ndef late(ctx: Context) -> object:\n    return ctx.vanished('x')\n"
    )
    one = make(workspace=workspace).start()
    run = one.run("late")
    assert (run["status"], run["error"]["type"]) == ("failed", "AttributeError"), run
    assert "vanished" in run["error"]["message"], run
    assert 'File "workspace/workflows/late.py", line 6, in late' in run["error"]["traceback"], run
    one.lives()
