"""`weft run` and `weft simulate`: workflows without a server."""

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from weft import Weft, clean_environment, program, weft

EXAMPLES = Path(__file__).resolve().parents[2] / "workspace"

SLOW = '''
import time

from weft import workflow


@workflow(name="slow")
def slow(ctx, seconds: int = 60) -> int:
    """Sleeps."""
    print("sleeping", flush=True)
    time.sleep(seconds)
    return seconds


@workflow(name="bad")
def bad(ctx) -> None:
    """Fails."""
    raise ValueError("no way")
'''

GRAPH: dict[str, Any] = {
    "name": "asked",
    "parameters": [{"name": "n", "type": "integer", "required": True}],
    "nodes": [
        {
            "id": "fetch",
            "type": "python",
            "use": "bad",
            "inputs": {},
            "retry": {"attempts": 2, "delay_seconds": 900},
        },
        {"id": "ask", "type": "approval", "question": "go on?", "needed": 2},
        {
            "id": "sum",
            "type": "compute",
            "value": {"$": "steps.fetch.output + inputs.n"},
            "when": "inputs.n > 0",
        },
    ],
    "edges": [{"from": "fetch", "to": "ask"}, {"from": "ask", "to": "sum"}],
}


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace" / "workflows"
    folder.mkdir(parents=True)
    (folder / "slow.py").write_text(SLOW)
    (folder / "asked.json").write_text(json.dumps(GRAPH))
    return folder.parent


def test_run_shows_steps_and_gives_the_result(tmp_path: Path) -> None:
    places = ["--data", tmp_path / "data", "--workspace", EXAMPLES]
    done = weft("run", "hello", *places, "--input", "name=Ada")
    assert done.status == 0, done
    assert done.json == {"message": "Hello, Ada!", "organization": "local"}
    assert "main succeeded" in done.stderr
    again = weft("run", "hello", *places, "--inputs", '{"name": "Bob"}', "--json")
    assert (again.json["status"], again.json["result"]["message"]) == ("succeeded", "Hello, Bob!")
    assert [step["status"] for step in again.json["steps"]] == ["succeeded"]
    wrong = weft("run", "hello", *places, "-i", "nam=x")
    assert wrong.status == 1
    assert "there is no parameter `nam`" in wrong.stderr
    assert weft("run", "nothing", *places).status == 1
    nobody = weft("run", "hello", *places, "--organization", "nobody")
    assert "weft org list" in nobody.stderr


def test_run_fails_with_the_run(tmp_path: Path, workspace: Path) -> None:
    places = ["--data", tmp_path / "data", "--workspace", workspace]
    done = weft("run", "bad", *places)
    assert (done.status, done.stdout) == (1, "")
    assert "ValueError: no way" in done.stderr
    assert "Traceback" not in done.stderr
    debug = weft("run", "bad", *places, environment={"WEFT_ENABLE_DEBUG_MODE": "true"})
    assert "Traceback" in debug.stderr


def test_ctrl_c_cancels_the_run(tmp_path: Path, workspace: Path) -> None:
    command = [program(), "run", "slow", "--json", "--data", tmp_path / "data", "--workspace", workspace]
    with subprocess.Popen(
        command,
        env=clean_environment(),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "sleeping" in line:
                break
        os.kill(process.pid, signal.SIGINT)
        out, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert json.loads(out)["status"] == "cancelled"
    assert "was cancelled" in said


def test_a_run_that_nobody_waits_for_is_left_to_the_next(tmp_path: Path) -> None:
    places = ["--data", tmp_path / "data", "--workspace", EXAMPLES]
    left = weft("run", "hello", *places, "--no-wait")
    assert re.fullmatch(r"run_\w+\n", left.stdout), left
    # The next process on the same data does what is due there.
    assert weft("run", "hello", *places).status == 0


def test_run_beside_a_server(shared: Weft) -> None:
    places = ["--data", shared.data, "--workspace", shared.workspace]
    done = weft("run", "echo", "--organization", "contoso", *places, "--input", "value=1")
    assert done.status == 0, done
    assert done.json == {"value": 1, "organization": "contoso"}
    run = re.search(r"run_\w+", done.stderr)
    assert run is not None
    assert shared.get(f"/runs/{run[0]}")["status"] == "succeeded"


def test_simulate_keeps_nothing(tmp_path: Path) -> None:
    home = tmp_path / "tmp"
    home.mkdir()
    file = EXAMPLES / "workflows" / "hello.py"
    done = weft("simulate", file, "-i", "name=Ada", environment={"TMPDIR": str(home)})
    assert done.status == 0, done
    assert done.json["message"] == "Hello, Ada!"
    assert list(home.iterdir()) == []


def test_simulate_a_file_from_anywhere(tmp_path: Path, workspace: Path) -> None:
    file = tmp_path / "elsewhere.json"
    graph = {
        "name": "elsewhere",
        "nodes": [{"id": "a", "type": "python", "use": "slow", "inputs": {"seconds": 0}}],
    }
    file.write_text(json.dumps(graph))
    alone = weft("simulate", file)
    assert alone.status == 1
    assert f"{file}:1:" in alone.stderr
    assert "`slow`" in alone.stderr
    done = weft("simulate", file, "--workspace", workspace)
    assert (done.status, done.stdout) == (0, "0\n"), done
    several = weft("simulate", workspace / "workflows" / "slow.py")
    assert "--workflow" in several.stderr
    assert weft("simulate", workspace / "workflows" / "slow.py", "--workflow", "bad").status == 1
    assert weft("simulate", tmp_path / "nothing.json").status == 1
    assert "no workflow file" in weft("simulate", tmp_path / "nothing.txt").stderr


def test_a_dry_run_shows_the_steps_in_order(workspace: Path) -> None:
    file = workspace / "workflows" / "asked.json"
    done = weft("simulate", file, "--dry-run", "--json", "-i", "n=0")
    assert done.status == 0, done
    steps = done.json["steps"]
    assert [step["id"] for step in steps] == ["fetch", "ask", "sum"]
    assert [step["runs"] for step in steps] == [True, True, False]
    assert steps[2]["open"] == ["steps.fetch.output + inputs.n"]
    words = weft("simulate", file, "--dry-run", "-i", "n=0")
    assert "3. sum (compute), after ask\n   when: inputs.n > 0 (false: it is skipped)" in words.stdout
    assert "nothing was executed" in words.stderr
    assert weft("simulate", file, "--dry-run", "-i", "n=x").status == 1


def test_outcomes_are_played_without_a_process(tmp_path: Path, workspace: Path) -> None:
    file = workspace / "workflows" / "asked.json"
    outcomes = tmp_path / "outcomes.json"
    outcomes.write_text(
        json.dumps(
            {
                "fetch": [{"failed": {"type": "Flaky", "message": "not yet"}}, {"succeeded": 40}],
                "ask": {"approved": True},
            }
        )
    )
    done = weft("simulate", file, "--outcomes", outcomes, "-i", "n=2")
    assert (done.status, done.stdout) == (0, "42\n"), done
    assert "Flaky: not yet" in done.stderr
    outcomes.write_text('{"fetch": [{"succeeded": 40}], "ask": [{"approved": false}]}')
    refused = weft("simulate", file, "--outcomes", outcomes, "-i", "n=2")
    assert refused.status == 1, refused
    outcomes.write_text("{}")
    missing = weft("simulate", file, "--outcomes", outcomes, "-i", "n=2")
    assert missing.status == 1
    assert "no_outcome" in missing.stderr
    outcomes.write_text('{"fetch": [{"suceeded": 40}]}')
    wrong = weft("simulate", file, "--outcomes", outcomes, "-i", "n=2")
    assert "step `fetch`: unknown variant `suceeded`" in wrong.stderr


def test_a_workspace_with_a_broken_file_runs_the_others(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    shutil.copytree(EXAMPLES, workspace, ignore=shutil.ignore_patterns("__pycache__"))
    (workspace / "workflows" / "broken.json").write_text("{")
    assert weft("simulate", workspace / "workflows" / "hello.py").status == 0
    broken = weft("simulate", workspace / "workflows" / "broken.json")
    assert broken.status == 1
    assert f"{workspace}/workflows/broken.json:1:" in broken.stderr


def test_check_of_single_files(tmp_path: Path, workspace: Path) -> None:
    good = workspace / "workflows" / "asked.json"
    assert weft("check", good).status == 0
    bad = tmp_path / "bad.yaml"
    bad.write_text(
        "name: bad\nsteps:\n  - id: a\n    type: shel\n    command: echo\n  - id: a\n    type: wait\n    seconds: 1\n"
    )
    done = weft("check", bad, good)
    assert done.status == 1
    lines = done.stdout.splitlines()
    assert len(lines) >= 2, done
    for line in lines:
        assert re.match(rf"{re.escape(str(bad))}:\d+:\d+: ", line), line
    assert "|     type: shel\n  |           ^\n" in done.stderr, done
    as_json = weft("check", bad, good, "--json")
    assert len(as_json.json["findings"]) == len(lines)
    # What a file calls is looked for in the workspace that is named.
    calls = tmp_path / "calls.json"
    calls.write_text(
        '{"name": "calls", "nodes": [{"id": "a", "type": "python", "use": "slow", "inputs": {}}]}'
    )
    assert "`slow`" in weft("check", calls).stdout
    assert weft("check", calls, "--workspace", workspace).status == 0
    assert weft("check", tmp_path / "nothing.json").status == 1
