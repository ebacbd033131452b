"""`weft new`: what it writes can be used as it stands, and nothing that is there is touched."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from weft import REPOSITORY, weft

KINDS = {"workflow": "workflows", "node": "nodes", "data-provider": "data_providers"}
LONG = "a" * 40


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository's top with an empty workspace, as a fork has it."""
    (tmp_path / "workspace").mkdir()
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    shutil.copy(REPOSITORY / "workspace" / "ruff.toml", tmp_path / "workspace")
    (tmp_path / "engine").symlink_to(REPOSITORY / "engine")
    return tmp_path


def tool(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python tool, as a developer runs it in the workspace."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(
        command, cwd=checkout / "workspace", capture_output=True, text=True, timeout=120, check=False
    )


def test_what_is_written_passes_every_check(checkout: Path) -> None:
    places = ["--workspace", str(checkout / "workspace"), "--data", str(checkout / "data")]
    names = ["orders", "orders-import", LONG]
    for number, kind in enumerate(KINDS):
        for name in names:
            name = f"{name[: 40 - 1]}{number}"
            done = weft("new", kind, name, *places)
            assert done.status == 0, done.stderr
            file, test = (Path(line) for line in done.stdout.splitlines())
            function = name.replace("-", "_")
            assert file == checkout / "workspace" / KINDS[kind] / f"{function}.py"
            assert test == checkout / "workspace" / "tests" / f"test_{function}.py"
            assert done.stderr.startswith("hint: `weft check`")
    checked = weft("check", *places, "--json")
    assert checked.status == 0, checked.stdout
    found = json.loads(checked.stdout)
    assert found["findings"] == []
    assert len(found["workflows"]) == len(found["dataProviders"]) == 3
    for command in (
        ["ruff", "check", "--no-cache", "."],
        ["ruff", "format", "--no-cache", "--check", "."],
        ["mypy", "--strict", "--cache-dir", str(checkout / "mypy")],
        ["pytest", "-q", "tests"],
    ):
        done = tool(checkout, *command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    assert "18 passed" in done.stdout


def test_nothing_is_written_over(checkout: Path) -> None:
    workspace = checkout / "workspace"
    places = ["--workspace", str(workspace), "--data", str(checkout / "data")]
    made = weft("new", "workflow", "orders", *places, "--json")
    assert made.status == 0, made.stderr
    assert json.loads(made.stdout) == {
        "kind": "workflow",
        "name": "orders",
        "files": [str(workspace / "workflows" / "orders.py"), str(workspace / "tests" / "test_orders.py")],
    }
    before = {path: path.read_bytes() for path in workspace.rglob("*.py")}
    again = weft("new", "workflow", "orders", *places)
    assert again.status == 1
    assert "`workflows/orders.py`, `tests/test_orders.py` is there" in again.stderr
    same_test = weft("new", "node", "orders", *places)
    assert same_test.status == 1
    assert "`tests/test_orders.py` is there already" in same_test.stderr

    (workspace / "workflows" / "other.py").write_text(
        "from weft import workflow\n\n@workflow(name='taken')\ndef f() -> int:\n    return 1\n"
    )
    before[workspace / "workflows" / "other.py"] = (workspace / "workflows" / "other.py").read_bytes()
    taken = weft("new", "workflow", "taken", *places)
    assert taken.status == 1
    assert "`taken` is declared already, in `workspace/workflows/other.py`" in taken.stderr
    assert {path: path.read_bytes() for path in workspace.rglob("*.py")} == before


@pytest.mark.parametrize("name", ["Orders", "1st", "../orders", "a/b", "class", "list", "a" * 41, "é", ""])
def test_names_that_are_not_allowed(checkout: Path, name: str) -> None:
    done = weft("new", "workflow", name, "--workspace", str(checkout / "workspace"))
    assert done.status == 1
    assert "can't be a name" in done.stderr
    assert "hint: " in done.stderr
    assert list((checkout / "workspace").rglob("*.py")) == []


def test_without_a_workspace_it_says_so(tmp_path: Path) -> None:
    done = weft("new", "node", "orders", "--workspace", str(tmp_path / "nowhere"))
    assert done.status == 1
    assert "does not exist" in done.stderr
