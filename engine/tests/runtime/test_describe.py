"""Discovery: what is described, and every kind of finding."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from handler import ENGINE_DIR, Handler

WORKSPACE = ENGINE_DIR.parent / "workspace"
GOOD = "from weft import workflow\n\n@workflow\ndef {name}(): pass\n"


def described(handler: Handler, root: Path) -> dict[str, dict[str, Any]]:
    frames = handler.describe(root)
    assert frames[-1]["t"] == "described_all", frames[-1]
    assert frames[-1]["files"] == len(frames) - 1
    return {frame["path"].removeprefix("workspace/"): frame for frame in frames[:-1]}


def findings(handler: Handler, root: Path) -> list[tuple[str, str, int]]:
    found = described(handler, root)
    return [
        (finding["code"], finding["path"].removeprefix("workspace/"), finding["line"])
        for frame in found.values()
        for finding in frame["findings"]
    ]


def test_the_sample_workspace(handler: Handler) -> None:
    found = described(handler, WORKSPACE)
    assert list(found) == [
        "data_providers/departments.py",
        "workflows/hello.py",
        "workflows/orders.py",
        "workflows/user_onboarding.py",
        "workflows/webhook_example.py",
    ]
    assert all(frame["findings"] == [] for frame in found.values())
    assert found["workflows/hello.py"]["module"] == "workflows.hello"
    assert found["data_providers/departments.py"]["data_providers"][0]["name"] == "departments"
    onboarding = found["workflows/user_onboarding.py"]["workflows"][0]
    assert onboarding["is_async"] is True
    assert {parameter["name"]: parameter["type"] for parameter in onboarding["parameters"]} == {
        "email": "email",
        "name": "string",
        "department": "string",
        "licenses": "array",
        "send_welcome": "boolean",
    }


def test_descriptions_have_the_keys_of_the_golden_example(handler: Handler, bundle: Any) -> None:
    golden = json.loads((ENGINE_DIR.parent / "tests/golden/protocol/frames/described.json").read_text())[
        "message"
    ]
    root = bundle(
        "from weft import data_provider, node, workflow\n\n@workflow\ndef a(x: int): pass\n\n"
        "@data_provider\ndef b(): pass\n\n@node\ndef c(): pass\n"
    )
    frame = described(handler, root)["workflows/main.py"]
    assert frame.keys() == golden.keys()
    for kind in ("workflows", "data_providers", "nodes"):
        assert frame[kind][0].keys() == golden[kind][0].keys()
    assert frame["workflows"][0]["parameters"][0].keys() == golden["workflows"][0]["parameters"][0].keys()
    assert frame["workflows"][0]["retry"].keys() == golden["workflows"][0]["retry"].keys()
    assert frame["workflows"][0]["line"] == 3


@pytest.mark.parametrize(
    ("line", "column"),
    [
        ("import engine", 8),
        ("import json, engine.x", 14),
        ("from engine.shared.storage import Table", 1),
        ("from shared import x", 1),
        ("import weft_runtime.worker as w", 8),
        ("x = __import__('engine.shared')", 5),
        ("import importlib; importlib.import_module('shared.x')", 19),
        ("from importlib import import_module; import_module('weft_runtime')", 38),
        ("import importlib.util; importlib.util.find_spec('engine')", 24),
        ("from ..engine import x", 1),
        ("from ...weft_runtime import x", 1),
        ("from .. import shared", 1),
        ("if False:\n    import engine", 12),
        ("def f():\n    from shared.a import b", 5),
    ],
)
def test_forbidden_imports_are_found_without_importing(
    handler: Handler, bundle: Any, line: str, column: int
) -> None:
    root = bundle(f"{line}\nraise SystemExit('imported')\n")
    (finding,) = described(handler, root)["workflows/main.py"]["findings"]
    assert finding["code"] == "import_forbidden"
    assert (finding["line"], finding["column"]) == (line.count("\n") + 1, column)
    assert "part of the engine" in finding["message"]
    assert "from weft import" in finding["hint"]
    assert finding["severity"] == "error"


def test_lookalikes_are_no_findings(handler: Handler, bundle: Any) -> None:
    root = bundle(
        {
            "workflows/main.py": (
                "from . import shared\nfrom .engine import x\nfrom workflows.shared import y\n"
                "import engine_tools\n# import engine\ntext = 'import shared'\n" + GOOD.format(name="ok")
            ),
            "workflows/shared.py": "y = 1\n",
            "workflows/engine.py": "x = 1\n",
            "engine_tools.py": "",
        }
    )
    assert findings(handler, root) == []


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("x = 1\ndef broken(:\n", "syntax_error", 2),
        ("x = '\n", "syntax_error", 1),
        ("a = 1\n  b = 2\n", "syntax_error", 2),
        (b"x = 1\n\x00", "syntax_error", 1),
        (b"x = 1\ny = '\xe4'\n", "encoding_error", 2),
        (b"# coding: no-such-codec\nx = 1\n", "encoding_error", 1),
        ("from weft import workflow\nimport no_such_library\n@workflow\ndef f(): pass\n", "import_failed", 2),
        ("from weft import workflow\n@workflow\ndef f(): pass\n\n1 / 0\n", "import_failed", 5),
        ("from weft import workflow\nimport sys\n@workflow\ndef f(): pass\nsys.exit()\n", "import_failed", 5),
        ("from weft import workflow\n@workflow(name='Bad Name')\ndef f(): pass\n", "invalid_declaration", 2),
        ("from weft import workflow\n\n@workflow\ndef f(*a): pass\n", "invalid_declaration", 3),
        ("from weft import param\n@param('a')\ndef f(a): pass\n", "invalid_declaration", 2),
        ("from weft import workflow\n@workflow\ndef f(): pass\nimport helper\n", "import_failed", 4),
    ],
    ids=range(13),
)
def test_findings(handler: Handler, bundle: Any, text: str | bytes, code: str, line: int) -> None:
    root = bundle(
        {"workflows/main.py": text, "helper.py": "import engine\n", "workflows/ok.py": GOOD.format(name="ok")}
    )
    found = described(handler, root)
    (finding,) = found["workflows/main.py"]["findings"]
    assert (finding["code"], finding["line"]) == (code, line), finding
    assert finding["hint"]
    assert [workflow["name"] for workflow in found["workflows/ok.py"]["workflows"]] == ["ok"]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("x = 1\n<<<<<<< HEAD\ny = 1\n=======\ny = 2\n>>>>>>> v2\n", "merge has left a conflict"),
        ("from weft import vanished, workflow\n", "engine/CHANGELOG.md"),
        ("import weft.vanished\n", "engine/CHANGELOG.md"),
        ("import weft\nweft.vanished\n", "engine/CHANGELOG.md"),
        ("from weft import workflow\nworkflow(colour='red')\n", "engine/CHANGELOG.md"),
        ("from weft import Retry\nRetry(colour='red')\n", "engine/CHANGELOG.md"),
        # What is somebody else's is not blamed on the SDK.
        ("import vanished  # weft\n", "requirements.txt"),
        ("from json import vanished  # weft\n", "what is missing in which module"),
        ("import json  # weft\njson.vanished\n", "move work into functions"),
        ("# weft\ndef mine(): pass\nmine(colour='red')\n", "move work into functions"),
    ],
    ids=range(10),
)
def test_hints_name_what_to_do(handler: Handler, bundle: Any, text: str, hint: str) -> None:
    declares = "\n@staticmethod\ndef f(): pass\n"
    root = bundle({"workflows/main.py": text + declares})
    (finding,) = described(handler, root)["workflows/main.py"]["findings"]
    assert hint in finding["hint"], finding


def test_a_name_taken_twice(handler: Handler, bundle: Any) -> None:
    root = bundle(
        {
            "workflows/a.py": GOOD.format(name="same"),
            "workflows/b.py": GOOD.format(name="other") + "\n@workflow(name='same')\ndef third(): pass\n",
            "workflows/c.py": "from weft import data_provider\n@data_provider\ndef same(): pass\n",
        }
    )
    found = described(handler, root)
    (finding,) = found["workflows/b.py"]["findings"]
    assert finding["code"] == "duplicate_name"
    assert "workspace/workflows/a.py:3" in finding["message"]
    assert finding["line"] == 6
    assert [workflow["name"] for workflow in found["workflows/b.py"]["workflows"]] == ["other"]
    assert found["workflows/c.py"]["findings"] == []


def test_a_function_imported_from_elsewhere_is_described_once(handler: Handler, bundle: Any) -> None:
    root = bundle(
        {
            "workflows/a.py": GOOD.format(name="one"),
            "workflows/b.py": "from workflows.a import one\n" + GOOD.format(name="two"),
        }
    )
    found = described(handler, root)
    assert [[w["name"] for w in frame["workflows"]] for frame in found.values()] == [["one"], ["two"]]


def test_what_is_skipped(handler: Handler, bundle: Any) -> None:
    bad = "import engine\n"
    root = bundle(
        {
            "tests/test_a.py": bad,
            "workflows/tests/test_b.py": bad,
            ".venv/lib/x.py": bad,
            ".hidden.py": bad,
            "__pycache__/x.py": bad,
            "notes.txt": bad,
            "workflows/main.py": "x = 1\n",
        }
    )
    assert list(described(handler, root)) == ["workflows/main.py"]


def test_files_without_decorators_are_not_imported(handler: Handler, bundle: Any) -> None:
    assert findings(handler, bundle("import os\nos._exit(9)\n")) == []


def test_a_file_that_cannot_be_read(handler: Handler, bundle: Any) -> None:
    root = bundle("x = 1\n")
    os.symlink("/nowhere/at/all.py", root / "workflows" / "gone.py")
    assert findings(handler, root) == [("not_readable", "workflows/gone.py", 1)]


def test_a_name_of_the_standard_library(handler: Handler, bundle: Any) -> None:
    root = bundle({"json.py": GOOD.format(name="f")})
    (finding,) = described(handler, root)["json.py"]["findings"]
    assert finding["code"] == "import_failed"
    assert "standard library" in finding["message"]


def test_a_package_and_its_modules(handler: Handler, bundle: Any) -> None:
    root = bundle(
        {"flows/__init__.py": GOOD.format(name="a"), "flows/b.py": GOOD.format(name="b"), "c.py": "x = 1\n"}
    )
    assert [frame["module"] for frame in described(handler, root).values()] == ["c", "flows", "flows.b"]


def test_an_empty_bundle(handler: Handler, tmp_path: Path) -> None:
    assert described(handler, tmp_path) == {}


def test_the_root_is_called_what_the_handler_says(handler: Handler, bundle: Any) -> None:
    frames = handler.describe(bundle("import engine\n"), root_name="mine")
    assert frames[0]["path"] == frames[0]["findings"][0]["path"] == "mine/workflows/main.py"


def test_a_module_that_ends_the_process_ends_only_that_worker(handler: Handler, bundle: Any) -> None:
    text = "from weft import workflow\nimport os\n@workflow\ndef f(): pass\nos._exit(3)\n"
    worker = handler.fork(bundle(text), None)
    assert worker.frame() is not None
    worker.send({"t": "describe", "root_name": "workspace"})
    assert worker.frames() == []
    assert handler.hear("exited", worker.id)["code"] == 3


def test_a_description_goes_on_behind_a_file_that_took_its_worker_down(
    handler: Handler, tmp_path: Path
) -> None:
    folder = tmp_path / "workflows"
    folder.mkdir()
    (folder / "a.py").write_text(GOOD.format(name="a"))
    (folder / "b.py").write_text(
        "import os\nfrom weft import workflow\nos._exit(0)\n@workflow\ndef b(): pass\n"
    )
    (folder / "c.py").write_text(GOOD.format(name="c") + "\n@workflow(name='a')\ndef other(): pass\n")
    first = handler.describe(tmp_path)
    assert [frame["path"] for frame in first] == ["workspace/workflows/a.py"]
    resume = {
        "described": 1,
        "reason": "it exited",
        "taken": [["workflow", "a", "workspace/workflows/a.py:3"]],
    }
    rest = handler.describe(tmp_path, resume=resume)
    assert [frame.get("path") for frame in rest] == [
        "workspace/workflows/b.py",
        "workspace/workflows/c.py",
        None,
    ]
    assert [(f["code"], f["message"]) for f in rest[0]["findings"]] == [
        ("import_failed", "importing this file ended the process: it exited")
    ]
    assert [workflow["name"] for workflow in rest[1]["workflows"]] == ["c"]
    assert [finding["code"] for finding in rest[1]["findings"]] == ["duplicate_name"]
    assert rest[2]["files"] == 3
