"""Graphs of the workspace, run by the real program: the sample, one that fails and tidies up, one whose instance is killed, and
one with mistakes."""

import json
from pathlib import Path
from typing import Any

import test_crash
from weft import REPOSITORY, Weft, copy_workspace, problem, until, weft

CODE = """
from weft import Context, FatalError, node, param, workflow

@workflow
def breaks(ctx: Context, text: str) -> None:
    raise FatalError(text, data={"code": 7})

@node
def notes(ctx: Context, what: str, step: str = "?") -> dict:
    ctx.log("noted", what=what, step=step)
    return {"noted": what, "step": step, "key": ctx.run.idempotency_key}
"""

HANDLED: dict[str, Any] = {
    "name": "handled",
    "parameters": [{"name": "handle", "type": "boolean", "default": True}],
    "nodes": [
        {
            "id": "way",
            "type": "choose",
            "branches": [{"name": "yes", "when": "inputs.handle"}],
            "otherwise": "no",
        },
        {"id": "one", "type": "python", "use": "breaks", "inputs": {"text": "first"}},
        {
            "id": "mend",
            "type": "python",
            "use": "notes",
            "inputs": {"what": {"$": "steps.one.error.message"}},
        },
        {"id": "two", "type": "python", "use": "breaks", "inputs": {"text": "second"}},
        {
            "id": "undo",
            "type": "python",
            "use": "notes",
            "phase": "on_failure",
            "inputs": {"what": {"$": "error.message"}, "step": {"$": "error.step"}},
        },
        {"id": "tidy", "type": "python", "use": "notes", "phase": "finally", "inputs": {"what": "tidied"}},
    ],
    "edges": [
        {"from": "way", "to": "one", "branch": "yes"},
        {"from": "one", "to": "mend", "on": "failure"},
        {"from": "way", "to": "two", "branch": "no"},
    ],
    "output": {"$": "steps.mend.output.noted"},
}


def start(make: Any, folder: Path, graph: Any) -> Weft:
    workspace = copy_workspace(folder / "workspace")
    (workspace / "workflows/notes.py").write_text(CODE)
    (workspace / "workflows/handled.json").write_text(json.dumps(graph, indent=2))
    started: Weft = make(workspace=workspace).start()
    return started


def statuses(run: Any) -> dict[str, str]:
    return {step["id"]: step["status"] for step in run["steps"]}


def test_the_sample_graph(make: Any) -> None:
    one = make(workspace=REPOSITORY / "workspace").start()
    small = one.run("order", {"order_id": 3})
    assert small["status"] == "succeeded", small
    assert small["result"] == {"order": 3, "size": "small", "lines": 3, "total": 485.0}
    assert statuses(small)["review"] == "skipped"
    large = one.run("order", {"order_id": 5})
    assert (large["status"], large["result"]["size"]) == ("succeeded", "large")
    assert statuses(large) == dict.fromkeys(["fetch", "size", "review", "pack", "sum", "close"], "succeeded")
    steps = {step["id"]: step for step in one.get(f"/runs/{large['runId']}/steps")["items"]}
    assert (steps["pack"]["kind"], steps["pack"]["itemsTotal"], steps["pack"]["itemsEnded"]) == ("map", 3, 3)
    lines = [(line["step"], line["message"]) for line in one.log(large["runId"])]
    assert ("close", "closed") in lines
    problem(
        one.execute("order", {"order_id": 0}), 400, "arguments_invalid", errors={"/order_id": "too_small"}
    )


def test_failures_are_handled_and_in_any_case_tidied(make: Any, tmp_path: Path) -> None:
    one = start(make, tmp_path, HANDLED)
    run = one.run("handled")
    assert (run["status"], run["result"]) == ("succeeded", "first"), run
    expected = {"way": "succeeded", "one": "failed", "mend": "succeeded", "two": "skipped"}
    assert statuses(run) == {**expected, "undo": "skipped", "tidy": "succeeded"}
    run = one.run("handled", {"handle": False})
    assert (run["status"], run["error"]["step"], run["error"]["message"]) == ("failed", "two", "second"), run
    assert statuses(run)["undo"] == statuses(run)["tidy"] == "succeeded"
    undo = one.get(f"/runs/{run['runId']}/steps/undo/output")["output"]
    assert (undo["noted"], undo["step"]) == ("second", "two")
    assert undo["key"] == f"{run['runId']}:undo"


def test_mistakes_are_all_named_and_keep_only_their_file_out(make: Any, tmp_path: Path) -> None:
    one = start(make, tmp_path, HANDLED)
    broken = json.loads(json.dumps(HANDLED))
    broken["nodes"][1]["use"] = "brakes"
    broken["edges"][1]["on"] = "failing"
    (one.workspace / "workflows/handled.json").write_text(json.dumps(broken, indent=2))
    problem(one.execute("handled"), 404, "workflow_not_found", hint="2 finding")
    one.lives()
    done = weft("check", "--json", "--workspace", str(one.workspace), "--data", str(tmp_path / "check"))
    assert done.status == 1
    found = {finding["code"]: finding for finding in done.json["findings"]}
    assert set(found) == {"unknown_use", "not_one_of"}
    assert found["unknown_use"]["pointer"].startswith("workspace/workflows/handled.json:")
    assert found["unknown_use"]["hint"] == "did you mean `breaks`?"
    (one.workspace / "workflows/handled.json").write_text(json.dumps(HANDLED, indent=2))
    assert one.run("handled")["status"] == "succeeded"


def test_a_graph_goes_on_after_its_instance_was_killed(crash: test_crash.Crash) -> None:
    run = crash.one.ended(crash.graph, 100)
    assert run["status"] == "succeeded", run
    # What had ended was not done again; what ran was.
    assert run["result"] == {"first": 1, "each": [1, 1, 2, 2, 1, 1]}
    counted = {path.name: len(path.read_text().splitlines()) for path in (crash.folder / "graph").iterdir()}
    assert counted == {
        "first": 1,
        "each0": 1,
        "each1": 1,
        "each2": 2,
        "each3": 2,
        "each4": 1,
        "each5": 1,
        "tidy": 1,
    }
    keys = [line.split()[2] for line in (crash.folder / "graph/each2").read_text().splitlines()]
    assert keys == [f"{crash.graph}:each:2"] * 2
    until(
        lambda: crash.one.get(f"/runs/{crash.graph}/steps")["items"][1]["itemsEnded"] == 6, "all are counted"
    )
