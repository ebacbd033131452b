"""`weft upgrade-check`: this engine's workspace against engines that were changed."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from weft import REPOSITORY, Done, weft

EXAMPLES = REPOSITORY / "workspace"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Another checkout, of which the engine is there."""
    left_out = shutil.ignore_patterns("__pycache__", "tests", ".*cache")
    shutil.copytree(REPOSITORY / "engine", tmp_path / "next" / "engine", ignore=left_out)
    return tmp_path / "next"


def change(checkout: Path, file: str, old: str, new: str) -> None:
    path = checkout / "engine" / "weft" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def check(engine: Path, tmp_path: Path, workspace: Path = EXAMPLES) -> Done:
    places: list[Any] = ["--workspace", workspace, "--data", tmp_path / "data", "--json"]
    return weft(
        "upgrade-check",
        "--engine",
        engine,
        *places,
        environment={"WEFT_PYTHON": sys.executable},
        within=300,
    )


def states(done: Done) -> dict[str, str]:
    return {look["name"]: look["status"] for look in done.json["checks"]}


def test_the_same_engine_breaks_nothing(checkout: Path, tmp_path: Path) -> None:
    for place in (checkout, checkout / "engine"):
        done = check(place, tmp_path)
        assert done.status == 0, done.stdout
        assert states(done) == {"sdk": "ok", "discovery": "ok", "types": "ok", "tests": "ok"}


def test_what_is_gone_is_named_with_its_place(checkout: Path, tmp_path: Path) -> None:
    change(checkout, "__init__.py", "from ._declaration import Retry\n", "")
    change(checkout, "__init__.py", '    "Retry",\n', "")
    done = check(checkout, tmp_path)
    assert done.status == 1
    assert states(done) == {"sdk": "failed", "discovery": "failed", "types": "failed", "tests": "failed"}
    sdk, discovery, types, tests = done.json["checks"]
    places = {finding["pointer"].partition(":")[0] for finding in sdk["findings"]}
    assert places == {"workspace/workflows/orders.py", "workspace/workflows/user_onboarding.py"}
    assert all("has no `Retry`" in finding["message"] for finding in sdk["findings"])
    assert {finding["code"] for finding in discovery["findings"]} >= {"import_failed"}
    assert "Retry" in types["output"]
    assert "Retry" in tests["output"]


def test_what_behaves_otherwise_is_found_by_types_and_tests(checkout: Path, tmp_path: Path) -> None:
    change(checkout, "_workflow.py", "    tags: Iterable[str] = (),\n", "    labels: Iterable[str] = (),\n")
    change(checkout, "_workflow.py", "tags=tags", "tags=labels")
    done = check(checkout, tmp_path)
    assert done.status == 1
    found = states(done)
    assert found["sdk"] == "ok"
    assert found["types"] == "failed"
    assert found["discovery"] == "failed"


def test_an_engine_that_speaks_otherwise_is_found(checkout: Path, tmp_path: Path) -> None:
    path = checkout / "engine" / "weft_runtime" / "protocol.py"
    text = path.read_text()
    assert "\nVERSION = 1\n" in text
    path.write_text(text.replace("\nVERSION = 1\n", "\nVERSION = 2\n"))
    done = check(checkout, tmp_path)
    assert done.status == 1
    discovery = next(look for look in done.json["checks"] if look["name"] == "discovery")
    assert discovery["status"] == "failed"
    assert "version" in discovery["detail"]


def test_what_is_no_engine_is_refused(tmp_path: Path) -> None:
    done = check(tmp_path, tmp_path)
    assert done.status == 1
    assert "holds no engine" in done.stderr
    assert "hint: " in done.stderr
