"""Workflows that misbehave: each ends as what it is, says why, leaves no process, and the next one runs."""

import os
import re
import signal
from typing import Any

import pytest

from weft import Weft, until


@pytest.fixture(autouse=True)
def _goes_on(shared: Weft) -> Any:
    yield
    shared.lives()


def workers(one: Weft) -> set[int]:
    """Idle workers and the zygote: what is there when nothing runs."""
    return {process.pid for process in one.tree() if process.state not in "ZX"}


def nothing_runs(one: Weft, allowed: int = 64) -> bool:
    """Whether all slots are free and there are no more processes than idle workers."""
    return one.get("/status")["liveRuns"] == 0 and len(workers(one)) <= allowed


def test_an_error_is_told_with_its_cause_and_the_author_s_lines(shared: Weft) -> None:
    run = shared.run("raises")
    assert (run["status"], run["result"]) == ("failed", None)
    error = run["error"]
    assert (error["type"], error["message"]) == ("FatalError", "the invoice is not a number")
    assert (error["step"], error["retriable"], error["data"]) == ("main", False, {"field": "invoice"})
    traceback = error["traceback"]
    assert 'File "workspace/workflows/victims.py", line ' in traceback
    assert "ValueError: invalid literal for int() with base 10: 'twelve'" in traceback
    assert "direct cause" in traceback
    for inside in ("weft_runtime", str(shared.data), "engine/"):
        assert inside not in traceback
    assert [line["message"] for line in shared.log(run["runId"])] == ["before the error"]
    # The stored run says the same.
    stored = shared.get(f"/runs/{run['runId']}")
    assert (stored["status"], stored["error"]) == ("failed", error)
    [step] = shared.get(f"/runs/{run['runId']}/steps")["items"]
    assert (step["status"], step["attempts"][0]["error"]["type"]) == ("failed", "FatalError")


def test_a_message_that_is_far_too_long_is_cut(shared: Weft) -> None:
    error = shared.run("raises_much")["error"]
    assert error["type"] == "RuntimeError"
    assert 1000 < len(error["message"]) < 5000
    assert error["message"].endswith("(cut)")
    assert len(error["traceback"]) < 20_000


def test_a_retriable_error_is_tried_again(shared: Weft) -> None:
    run = shared.run("second_time")
    assert (run["status"], run["result"]) == ("succeeded", 2)
    [step] = shared.get(f"/runs/{run['runId']}/steps")["items"]
    assert [attempt["outcome"] for attempt in step["attempts"]] == ["failed", "succeeded"]
    assert step["attemptsBegun"] == 2


@pytest.mark.parametrize(
    ("workflow", "arguments", "status", "kind", "words"),
    [
        ("leaves", {}, "failed", "SystemExit", "return a value or raise"),
        ("faults", {"how": "read"}, "failed", "crashed", "SIGSEGV"),
        # The first process of a table of its own falls by what `abort` does when its signal has not helped.
        ("faults", {"how": "abort"}, "failed", "crashed", "SIGABRT|SIGSEGV"),
        ("exits", {"code": 42}, "failed", "crashed", "code 42"),
        ("exits", {"code": 0}, "failed", "crashed", "code 0"),
        # The system refuses it, or the meter has counted it first.
        ("eats_memory", {}, "failed", "MemoryError|memory_limit", "limit is 512 MiB"),
        ("fills_disk", {}, "failed", "OSError", "limit is 64 MiB"),
        ("disturbs", {}, "failed", "protocol_violation", "connection to the engine"),
        ("overstays", {}, "timed_out", "time_limit", "time limit of 1 s.*timeout_seconds"),
        ("overstays_deaf", {}, "timed_out", "time_limit", "time limit of 1 s.*timeout_seconds"),
        ("asks_too_much", {}, "failed", "Denied", "does not declare the secret `anything`"),
        ("returns", {"what": "set"}, "failed", "ResultNotJson", "result is a set"),
        ("returns", {"what": "nan"}, "failed", "ResultNotJson", "result.ratio is NaN"),
        ("returns", {"what": "key"}, "failed", "ResultNotJson", "keys must be strings"),
        ("returns", {"what": "surrogate"}, "failed", "ResultNotJson", "surrogate"),
        ("returns", {"what": "object"}, "failed", "ResultNotJson", "result is an object"),
        ("returns", {"what": "bytes"}, "failed", "ResultNotJson", "decode"),
        ("returns", {"what": "huge_number"}, "failed", "ResultNotJson", "64 bits"),
        ("returns", {"what": "deep"}, "failed", "ResultNotJson", "100 levels"),
        (
            "returns",
            {"what": "huge"},
            "failed",
            "ResultTooLarge",
            "50000002 bytes.*limit is 1048576.*return less",
        ),
    ],
)
def test_ends_as_what_it_is(
    shared: Weft, workflow: str, arguments: dict[str, Any], status: str, kind: str, words: str
) -> None:
    run = shared.run(workflow, arguments)
    assert (run["status"], run["result"]) == (status, None), run
    assert re.fullmatch(kind, run["error"]["type"]), run
    assert re.search(words, run["error"]["message"]), run
    assert run["error"]["step"] == "main"
    assert run["finishedAt"] >= run["startedAt"]
    if workflow.startswith("overstays"):
        assert 900 <= run["durationMs"] <= 8000, run


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSEGV", "SIGABRT", "SIGTERM"])
def test_a_step_that_kills_itself(unjailed: Weft, name: str) -> None:
    run = unjailed.run("kills_itself", {"number": signal.Signals[name]})
    assert (run["status"], run["result"], run["error"]["type"]) == ("failed", None, "crashed"), run
    assert name in run["error"]["message"], run
    assert [line["message"] for line in unjailed.log(run["runId"])] == ["about to die"]
    unjailed.lives()


def test_what_was_said_before_a_sudden_death_is_kept(shared: Weft) -> None:
    run = shared.run("faults")
    assert run["error"]["type"] == "crashed", run
    assert [line["message"] for line in shared.log(run["runId"])] == ["about to die"]


@pytest.mark.parametrize(("workflow", "megabytes"), [("prints_much", 100), ("prints_one_line", 20)])
def test_output_without_end_is_cut_and_the_step_goes_on(shared: Weft, workflow: str, megabytes: int) -> None:
    run = shared.run(workflow, {"megabytes": megabytes})
    assert (run["status"], run["result"]) == ("succeeded", "printed"), run
    [step] = shared.get(f"/runs/{run['runId']}/steps")["items"]
    [attempt] = step["attempts"]
    assert attempt["outputTruncated"] is True
    assert attempt["outputBytes"] >= megabytes << 20
    lines = shared.log(run["runId"])
    assert 0 < sum(len(line["message"]) for line in lines) <= (2 << 20)
    # The reader is told that there was more.
    assert any("dropped" in line["message"] or "cut" in line["message"] for line in lines), [
        (line["stream"], line["message"][-120:]) for line in lines[-3:]
    ]


def test_children_end_with_the_step(either: Weft) -> None:
    run = either.run("forks", {"count": 4})
    assert (run["status"], run["result"]) == ("succeeded", 4)
    until(lambda: not either.named("weft-forks"), "its children are gone", 5)


def test_a_fork_that_returns_too_is_no_second_result(shared: Weft) -> None:
    run = shared.run("forks_and_both_return")
    assert (run["status"], run["result"]) == ("succeeded", "parent")


def test_whoever_kills_the_zygote_ends_itself(either: Weft) -> None:
    slow = [either.begin("counts", {"path": os.devnull, "seconds": 1}) for _ in range(2)]
    run = either.run("kills_its_parent")
    # Where a layer of the jail keeps it from doing so, it is told so; otherwise it falls with what it felled.
    assert run["status"] in ("failed", "succeeded"), run
    if run["status"] == "failed":
        assert run["error"]["type"] in ("crashed", "PermissionError", "ProcessLookupError"), run
    # Others may have fallen with it; each has ended and says so.
    for other in slow:
        ended = either.ended(other, 30)
        assert ended["status"] in ("succeeded", "failed"), ended
        if ended["status"] == "failed":
            assert ended["error"]["type"] == "crashed", ended


def test_a_step_sees_nothing_of_the_handler_s_environment(either: Weft) -> None:
    seen = either.run("surroundings")["result"]["environ"]
    assert set(seen) == {"PATH", "HOME", "LANG", "TMPDIR"}
    if "mount_namespace" in either.get("/status")["workers"]["isolation"]["layers"]:
        # Its folder has no name outside, and the one that it has inside is the same for every step.
        assert seen["HOME"] == "/jail/rw/own/step", seen
        assert str(either.data) not in str(seen), seen
    else:
        assert seen["HOME"].startswith(str(either.data)), seen
    until(lambda: not os.path.exists(seen["HOME"]), "its folder is removed", 5)


def test_many_at_once_and_half_of_them_bad(shared: Weft) -> None:
    runs = [(shared.begin("exits" if number % 2 else "nothing"), number % 2) for number in range(24)]
    for run, bad in runs:
        assert shared.ended(run, 30)["status"] == ("failed" if bad else "succeeded")
    until(lambda: nothing_runs(shared), "all slots are free")


def test_a_tree_of_folders_of_any_depth_is_cleaned_up(either: Weft) -> None:
    run = either.run("digs")
    assert (run["status"], run["result"]) == ("succeeded", 8000)
    # The handler outlives it, which a step afterwards shows, and the tree goes.
    until(
        lambda: not any(any(folder.glob("*/d/d")) for folder in (either.data / "scratch").iterdir()),
        "the folders are gone",
    )
    either.lives()


def test_a_log_larger_than_one_append_is_kept_whole(shared: Weft) -> None:
    run = shared.run("logs_much")
    assert (run["status"], run["result"]) == ("succeeded", 1500)
    said = [line["message"].split(" ", 1)[0] for line in shared.log(run["runId"])]
    assert said == [str(number) for number in range(1500)]
