"""Starts that can't work say why in one sentence and what to do; ends leave nothing behind."""

import contextlib
import json
import os
import re
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from weft import Weft, copy_workspace, free_port, problem, until, weft


def fails(one: Weft, *words: str, hint: str) -> str:
    """It ends with 1 and an error of one line, followed by a hint."""
    one.launch()
    assert one.wait() == 1, one.said()
    said = one.stderr.read_text()
    # What is logged before is not the message.
    lines = [line for line in said.splitlines() if not line.startswith("{")]
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1, said
    for word in words:
        assert re.search(word, said), said
    hints = [line for line in lines if line.startswith("hint: ")]
    assert len(hints) == 1, said
    assert re.search(hint, hints[0]), said
    assert one.stdout.read_text() == ""
    return said


def test_a_port_that_is_taken(make: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        one = make(port=port)
        fails(
            one,
            rf"^error: port {port} can't be listened on: ",
            hint=rf"another process listens on {port}.*--port",
        )
        # Nothing was written but the lock, and it is free again.
        assert not (one.data / "weft.db").exists()
    one.start()
    assert one.url.endswith(f":{port}")


def test_a_port_of_one_s_own(make: Any) -> None:
    port = free_port()
    assert make(port=port).start().url == f"http://127.0.0.1:{port}"


def fake_python(folder: Path, text: str) -> dict[str, str]:
    """An environment whose only `python3` is this script."""
    folder.mkdir()
    script = folder / "python3"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)
    return {"PATH": str(folder), "WEFT_PYTHON": ""}


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (f"echo {os.sep}usr/bin/python3; echo 3.9.18", r"is Python 3\.9\.18, and 3\.11 or newer is needed"),
        ("echo Python 2.7.18", "does not answer like Python"),
        ("exit 1", "is not a Python 3 interpreter"),
        ("kill -9 $$", "was killed by signal 9 before it answered"),
    ],
)
def test_a_python_that_will_not_do(make: Any, tmp_path: Path, script: str, words: str) -> None:
    one = make(environment=fake_python(tmp_path / "bin", script))
    fails(
        one,
        "^error: python can't be started: ",
        words,
        hint=r"install Python 3\.11 or newer.*WEFT_PYTHON.*doctor",
    )


def test_no_python_at_all(make: Any, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    one = make(environment={"PATH": str(tmp_path / "bin"), "WEFT_PYTHON": ""})
    fails(one, "^error: python can't be started: .*no such program", hint=r"install Python 3\.11 or newer")
    two = make("two", environment={"WEFT_PYTHON": "/nowhere/python3.12"})
    fails(two, "`/nowhere/python3.12` was configured, but there is no such program", hint="WEFT_PYTHON")


def test_a_workspace_that_is_not_there(make: Any, tmp_path: Path) -> None:
    fails(make(workspace=tmp_path / "nowhere"), "^error: .*nowhere", hint="--workspace|WEFT_WORKSPACE")
    file = tmp_path / "file"
    file.write_text("")
    fails(make("two", workspace=file), "^error: ", hint="--workspace|WEFT_WORKSPACE")


def test_an_empty_workspace_is_one(make: Any, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    one = make(workspace=tmp_path / "empty").start()
    assert one.get("/workflows") == {"items": []}
    problem(one.execute("hello"), 404, "workflow_not_found", hint="declares no workflow")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("WEFT_MAX_BODY_BYTES", "lots", "WEFT_MAX_BODY_BYTES"),
        ("WEFT_WORKER_SLOTS", "0", "WEFT_WORKER_SLOTS"),
        ("WEFT_STORE", "mysql", "WEFT_STORE"),
        ("WEFT_LOG", "shout=very", "WEFT_LOG|filter"),
        ("WEFT_SIGNING_KEY", "short", "WEFT_SIGNING_KEY"),
        ("AzureWebJobsStorage", "AccountName=x", "storage|AzureWebJobsStorage"),
    ],
)
def test_settings_that_are_none(make: Any, name: str, value: str, words: str) -> None:
    one = make(environment={name: value})
    one.launch()
    assert one.wait() == 1
    said = one.stderr.read_text()
    assert re.search(words, said), said
    assert "error: " in said
    assert "short" not in said.replace("too short", "").replace("shorter", ""), said


def test_all_settings_that_are_none_at_once(make: Any) -> None:
    environment = {"WEFT_MAX_BODY_BYTES": "lots", "WEFT_WORKER_SLOTS": "0", "WEFT_SYNC_WAIT_SECONDS": "-1"}
    said = fails(
        make(environment=environment), r"has 3 finding\(s\)", *environment, hint="weft config explain"
    )
    assert said.count("error: ") == 1


FORBIDDEN = "import os\n\n\nfrom weft_runtime import loader\nimport engine.weft\n"


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A workspace with two files that break the rules."""
    workspace = copy_workspace(tmp_path / "workspace")
    (workspace / "workflows" / "nosy.py").write_text(FORBIDDEN)
    (workspace / "workflows" / "typo.py").write_text("def typo(:\n")
    return workspace


PLACES = [
    r"workspace/workflows/nosy\.py:4(:\d+)?: .*weft_runtime",
    r"workspace/workflows/nosy\.py:5(:\d+)?: .*engine",
    r"workspace/workflows/typo\.py:1(:\d+)?: ",
]


def test_findings_stop_a_strict_start(make: Any, broken: Path) -> None:
    one = make(workspace=broken)
    fails(
        one,
        r"^error: the workspace has 3 finding\(s\)|error: the workspace has 3 finding\(s\)",
        *PLACES,
        hint="weft check",
    )


def test_check_says_the_same_without_starting(broken: Path, tmp_path: Path) -> None:
    done = weft("check", "--workspace", broken, "--data", tmp_path / "data")
    assert done.status == 1
    for place in PLACES:
        assert re.search(place, done.stdout), done
    listed = weft("check", "--json", "--workspace", broken, "--data", tmp_path / "data")
    assert listed.status == 1
    found = listed.json["findings"]
    assert sorted(item["code"] for item in found) == ["import_forbidden", "import_forbidden", "syntax_error"]
    assert "echo" in listed.json["workflows"]


def test_quarantine_serves_the_rest(make: Any, broken: Path) -> None:
    one = make(workspace=broken, environment={"WEFT_DISCOVERY": "quarantine"}).start()
    assert one.get("/ready") == {"status": "degraded"}
    one.lives()
    findings = one.get("/status")["workspace"]["findings"]
    assert len(findings) == 3
    assert all(finding["pointer"].startswith("workspace/workflows/") for finding in findings)
    problem(
        one.execute("nosy"),
        404,
        "workflow_not_found",
        hint=r"3 finding\(s\) keep files out, see `weft check`",
    )


def test_data_that_was_in_use_before(make: Any) -> None:
    one = make().start()
    run = one.run("echo", {"value": "kept"})
    assert one.stop() == 0
    one.start()
    assert one.get(f"/runs/{run['runId']}")["result"] == run["result"]
    assert "seeded" not in one.stderr.read_text()


def test_a_lock_that_a_dead_one_left(make: Any) -> None:
    one = make()
    one.data.mkdir(parents=True)
    (one.data / "dev.lock").write_text(f"{os.getpid()}\n")
    one.start()
    one.kill(signal.SIGKILL)
    assert one.wait() == -signal.SIGKILL
    assert (one.data / "dev.lock").exists()
    one.start()
    one.lives()


def test_a_lock_that_a_living_one_holds(make: Any) -> None:
    one = make().start()
    two = make("two")
    two.data = one.data
    fails(two, rf"another `weft dev` uses the data folder `{one.data}` \(process {one.pid}\)", hint="--data")
    one.lives()


def test_a_data_folder_that_can_not_be_made(make: Any, tmp_path: Path) -> None:
    one = make()
    (tmp_path / "file").write_text("")
    one.data = tmp_path / "file" / "data"
    fails(one, r"^error: the data folder `.*` can't be used", hint="--data")


ENDINGS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.mark.parametrize("number", [*ENDINGS, signal.SIGKILL], ids=lambda number: signal.Signals(number).name)
def test_nothing_is_left(make: Any, number: int) -> None:
    one = make().start()
    hanging = one.begin("hangs_with_children")
    until(lambda: one.log(hanging), "it runs")
    waiting = one.begin("overstays_deaf")
    until(lambda: one.get(f"/runs/{waiting}")["status"] == "running", "it runs")
    tree = one.tree()
    assert {process.name for process in tree} >= {"weft-zygote", "weft-worker"}, tree
    assert len(tree) >= 5
    begun = time.monotonic()
    # `stop` waits until every process of the tree is gone.
    assert one.stop(number) == (-number if number == signal.SIGKILL else 0)
    assert time.monotonic() - begun < 10
    if number != signal.SIGKILL:
        left = list((one.data / "scratch").rglob("*"))
        assert left == [], left
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", int(one.url.rpartition(":")[2])))
    # What a killed one left in its scratch folder goes with the next.
    one.start()
    assert one.stop() == 0
    assert list((one.data / "scratch").rglob("*")) == []


def test_a_second_interrupt_is_not_patient(make: Any) -> None:
    one = make().start()
    run = one.begin("hangs")
    until(lambda: one.log(run), "it runs")
    one.kill(signal.SIGINT)
    until(lambda: "stopping" in one.stderr.read_text() or one.process is None, "it is stopping", 5)
    begun = time.monotonic()
    with contextlib.suppress(ProcessLookupError):
        one.kill(signal.SIGINT)
    assert one.wait() in (0, 130, -signal.SIGINT)
    assert time.monotonic() - begun < 8


def test_a_signal_while_it_starts(make: Any) -> None:
    for delay in (0.0, 0.05, 0.1, 0.2, 0.3):
        one = make(f"early-{delay}")
        one.launch()
        end = time.monotonic() + delay
        until(lambda end=end: time.monotonic() >= end, "a moment")
        assert one.stop(signal.SIGINT) in (0, 130, -signal.SIGINT)


def test_callers_of_an_ending_one_are_answered(make: Any) -> None:
    one = make().start()
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(one.execute, "hangs", Prefer="wait=30")
        listed = "/runs?workflow=hangs&status=running"
        until(lambda: one.get(listed)["items"] and one.log(one.get(listed)["items"][0]["runId"]), "it runs")
        assert one.stop() == 0
        answer = waiting.result(10)
    # The run goes on elsewhere, or later.
    assert answer.status in (202, 503), answer
    if answer.status == 202:
        assert answer.headers["Location"] == f"/api/runs/{answer.json['runId']}"


def test_ready_line_and_the_curl_that_it_prints(make: Any) -> None:
    import shlex
    import subprocess

    one = make().start()
    until(lambda: one.stdout.read_text().count("\n") >= 2, "both lines")
    command = shlex.split(one.stdout.read_text().splitlines()[1])
    assert command[0] == "curl"
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert json.loads(done.stdout)["status"] in ("succeeded", "failed"), done


def test_no_seed(make: Any) -> None:
    one = make(arguments=["--no-seed"]).start()
    problem(one.call("GET", "/runs"), 401, "key_invalid")
