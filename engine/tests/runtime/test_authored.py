"""Code of the node library in a real worker: what it is called with, what its tracebacks say, what it may not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from handler import Handler, Result

RESTRICTED = {"trust": "restricted", "network": False, "modules": {"allow": ["json", "re"], "deny": []}}


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A bundle with nothing in it, as that of library code is."""
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


@pytest.fixture
def run(handler: Handler, empty: Path) -> Callable[..., Result]:
    """`run(code, inputs, settings)`."""

    def call(code: str, inputs: Any = None, settings: Any = None, **changes: Any) -> Result:
        source = {"name": "shout", "version": "1.2.0", "digest": "sha256:0", "code": code}
        arguments = {"inputs": inputs or {}, "settings": settings or {}}
        changes = {"jail": RESTRICTED, "kind": "node", **changes}
        return handler.attempt(empty, "weft._library", "run", arguments, source=source, **changes)

    return call


@pytest.fixture
def check(handler: Handler, empty: Path) -> Callable[..., list[dict[str, Any]]]:
    """`check(code, shape)`: the findings."""

    def call(code: str, **shape: Any) -> list[dict[str, Any]]:
        source = {"name": "shout", "version": "1.2.0", "digest": "sha256:0", "code": code}
        result = handler.attempt(
            empty, "weft._library", "run", shape, source=source, kind="check", jail=RESTRICTED
        )
        findings: list[dict[str, Any]] = result.value["findings"]
        return findings

    return call


@pytest.mark.parametrize("how", ["def", "async def"])
def test_it_is_given_inputs_and_settings(run: Callable[..., Result], how: str) -> None:
    code = f"""
{how} run(ctx, inputs, settings):
    ctx.log.info("here", n=1)
    return {{"text": inputs["text"].upper() + settings["end"], "organization": ctx.organization.id}}
"""
    result = run(code, {"text": "hello"}, {"end": "!"})
    assert result.value == {"text": "HELLO!", "organization": "contoso"}
    assert [line["message"] for line in result.of("log")] == ["here"]


def test_tracebacks_have_its_lines(run: Callable[..., Result]) -> None:
    code = (
        "class Bad(Exception):\n    pass\n\n\ndef run(ctx, inputs, settings):\n    raise Bad('no')  # here\n"
    )
    error = run(code).error
    assert (error["type"], error["message"]) == ("library:shout.Bad", "no")
    assert 'File "library/shout@1.2.0.py", line 6, in run' in error["traceback"]
    assert "raise Bad('no')  # here" in error["traceback"]
    assert "weft_runtime" not in error["traceback"]


def test_what_needs_its_module_finds_it(run: Callable[..., Result]) -> None:
    code = """
from __future__ import annotations
import dataclasses

@dataclasses.dataclass
class Point:
    x: int
    y: int = 2

def run(ctx, inputs, settings):
    return dataclasses.asdict(Point(1))
"""
    assert run(code, jail={"trust": "restricted"}).value == {"x": 1, "y": 2}


@pytest.mark.parametrize("name", ["os", "subprocess", "socket", "sys", "workflows", "weft_runtime", "engine"])
def test_what_restricted_code_may_not_import(run: Callable[..., Result], name: str) -> None:
    for code in (
        f"import {name}\ndef run(ctx, inputs, settings):\n    return 1\n",
        f"def run(ctx, inputs, settings):\n    import {name}\n    return 1\n",
        f"def run(ctx, inputs, settings):\n    return __import__({name!r}) and 1\n",
    ):
        error = run(code).error
        assert error["type"] == "ImportError", error
        assert f"`{name}` refused" in error["message"]
        assert 'File "library/shout@1.2.0.py"' in error["traceback"]


def test_its_name_shadows_nothing(run: Callable[..., Result]) -> None:
    code = """
import json

def run(ctx, inputs, settings):
    return [json.loads("[1]"), __name__]
"""
    assert run(code).value == [[1], "library:shout"]
    error = run("from . import other\ndef run(ctx, inputs, settings): pass\n").error
    assert error["type"] == "ImportError"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1", "the code has no function `run`"),
        ("run = 7", "`run` is a int, and no function"),
        (
            "def run(ctx, inputs): pass",
            "`run` takes `ctx`, `inputs`, and must take `ctx`, `inputs`, `settings`",
        ),
        ("def run(ctx, inputs, settings, *rest): pass", "must take"),
        ("def run(ctx, inputs, settings):\n    yield 1", "is a generator"),
    ],
)
def test_what_run_must_be(run: Callable[..., Result], code: str, message: str) -> None:
    error = run(code).error
    assert error["type"] == "FatalError"
    assert message in error["message"]


def test_a_syntax_error_is_its_own(run: Callable[..., Result]) -> None:
    error = run("def run(ctx, inputs, settings)\n    pass\n").error
    assert error["type"] == "SyntaxError"
    assert "library/shout@1.2.0.py" in error["traceback"]


def test_code_without_a_source_is_out_of_order(handler: Handler, empty: Path) -> None:
    result = handler.attempt(empty, "weft._library", "run", {}, kind="node")
    assert result.last is None
    assert result.exited["code"] == 72
    assert "`source` was due" in result.worker.stderr


def test_a_good_source_has_no_findings(check: Callable[..., list[dict[str, Any]]]) -> None:
    code = """
async def run(ctx, inputs, settings):
    return {"text": inputs["text"] + settings.get("end", "")}
"""
    shape = {"inputs": ["text"], "settings": ["end"], "outputs": ["text"], "is_async": True}
    assert check(code, **shape) == []


@pytest.mark.parametrize(
    ("code", "finding", "line", "column"),
    [
        ("x = (\n", "syntax_error", 1, 5),
        ("\nx = 1\x00", "syntax_error", 1, 1),
        ("\nimport subprocess\ndef run(ctx, inputs, settings): pass", "import_forbidden", 2, 1),
        ("\n\n1 / 0\n", "import_failed", 3, 1),
        ("raise SystemExit(3)", "import_failed", 1, 1),
        ("\ndef ran(ctx): pass", "run_missing", 1, 1),
        ("\n\ndef run(context, inputs, settings): pass", "run_signature", 3, 1),
        ("def run(ctx, inputs, settings): pass", "run_not_async", 1, 1),
    ],
)
def test_what_is_wrong_has_its_place(
    check: Callable[..., list[dict[str, Any]]], code: str, finding: str, line: int, column: int
) -> None:
    [found] = check(code, is_async=True)
    assert (found["code"], found["line"], found["column"]) == (finding, line, column), found
    assert found["path"] == "library/shout@1.2.0.py"
    assert found["severity"] == "error"
    assert found["message"] and found["hint"]


def test_names_that_are_not_declared_are_warned_of(check: Callable[..., list[dict[str, Any]]]) -> None:
    code = """def run(ctx, inputs, settings):
    a = inputs["txet"]
    b = settings.get("end")
    return {"out": a, "other": b}
"""
    findings = check(code, inputs=["text"], settings=[], outputs=["out"], is_async=False)
    assert [(one["code"], one["line"], one["column"], one["severity"]) for one in findings] == [
        ("unknown_inputs", 2, 9, "warning"),
        ("unknown_settings", 3, 9, "warning"),
        ("unknown_outputs", 4, 23, "warning"),
    ]
