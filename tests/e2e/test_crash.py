"""`kill -9` in the middle of runs: after a restart on the same data every run ends, and nothing is lost or doubled.

Runs of a dead instance wait for the end of its lease, a minute: `conftest.py` begins this at the start of the session and
puts these tests last, so that the minute passes beside all others.
"""

import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from weft import OWN_FILES, TERMINAL, Weft, until, weft


@dataclass
class Crash:
    """An instance that was killed and started again, and what it had been doing."""

    one: Weft
    folder: Path
    done: dict[str, Any] = field(default_factory=dict)
    running: list[str] = field(default_factory=list)
    once: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    queued: list[str] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    graph: str = ""
    cut_off: int = 0
    killed_at: float = 0.0

    def lines(self, name: str) -> list[list[str]]:
        """Run, attempt and key of each attempt that was begun."""
        path = self.folder / name
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def begin(one: Weft, folder: Path) -> Crash:
    """Everything up to the restart."""
    crash = Crash(one, folder)
    one.environment["WEFT_WORKER_SLOTS"] = "8"
    one.environment["WEFT_ISOLATION_OFF"] = OWN_FILES
    one.start()
    for number in range(5):
        run = one.run("counts", {"path": str(folder / "done")}, Idempotency_Key=f"done-{number}")
        crash.done[run["runId"]] = run["result"]
    crash.running = [one.begin("counts", {"path": str(folder / "running"), "seconds": 30}) for _ in range(2)]
    crash.once = [one.begin("counts_once", {"path": str(folder / "once"), "seconds": 30})]
    until(lambda: len(crash.lines("running")) == 2 and len(crash.lines("once")) == 1, "they run")
    (folder / "graph").mkdir(mode=0o777)
    crash.graph = one.begin("crashes", {"folder": str(folder / "graph")})
    until(lambda: all((folder / f"graph/each{item}").exists() for item in (2, 3)), "its map is in the midst")
    # A caller that waits when the process dies.
    ended = threading.Event()

    def wait() -> None:
        try:
            one.execute("counts", {"path": str(folder / "waiting"), "seconds": 30}, Idempotency_Key="waiting")
        except OSError:
            crash.cut_off += 1
        ended.set()

    threading.Thread(target=wait).start()
    until(lambda: crash.lines("waiting"), "it runs")
    crash.waiting = [crash.lines("waiting")[0][0]]
    crash.queued = [one.begin("counts", {"path": str(folder / "queued")}) for _ in range(6)]

    # Calls in flight, whose answers may or may not come.
    def fire(number: int) -> None:
        try:
            answer = one.execute("counts", {"path": str(folder / "fired")}, Idempotency_Key=f"fired-{number}")
        except OSError:
            return
        if answer.status in (200, 202):
            crash.acknowledged.append(answer.json["runId"])

    threads = [threading.Thread(target=fire, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    until(lambda: len(crash.acknowledged) + len(crash.lines("fired")) >= 3 or None, "some are in flight")
    one.kill(signal.SIGKILL)
    crash.killed_at = time.monotonic()
    assert one.wait() == -signal.SIGKILL
    for thread in threads:
        thread.join()
    assert ended.wait(10)
    assert crash.cut_off == 1
    one.start()
    return crash


def all_runs(one: Weft) -> list[dict[str, Any]]:
    """Of all statuses."""
    items: list[dict[str, Any]] = one.get("/runs?limit=200")["items"]
    return items


def test_results_that_were_committed_are_as_they_were(crash: Crash) -> None:
    for run, result in crash.done.items():
        stored = crash.one.get(f"/runs/{run}")
        assert (stored["status"], stored["result"]) == ("succeeded", result)
    assert sorted(line[0] for line in crash.lines("done")) == sorted(crash.done)
    # An idempotency key of before still leads to the first answer.
    answer = crash.one.execute("counts", {"path": str(crash.folder / "done")}, Idempotency_Key="done-0")
    assert answer.headers["Idempotency-Replayed"] == "true"
    assert answer.json["runId"] in crash.done
    assert len(crash.lines("done")) == 5


def test_every_run_ends(crash: Crash) -> None:
    wanted = [*crash.done, *crash.running, *crash.once, *crash.waiting, *crash.queued, *crash.acknowledged]
    left = max(5.0, 100 - (time.monotonic() - crash.killed_at))

    def ended() -> bool:
        found = {item["runId"]: item["status"] for item in all_runs(crash.one)}
        assert set(wanted) <= set(found), set(wanted) - set(found)
        return all(status in TERMINAL for status in found.values())

    until(ended, "every run has ended", left)
    statuses = {item["runId"]: item["status"] for item in all_runs(crash.one)}
    for run in [*crash.running, *crash.waiting, *crash.queued, *crash.acknowledged]:
        assert statuses[run] == "succeeded", crash.one.get(f"/runs/{run}")
    for run in crash.once:
        assert statuses[run] == "failed"
    for run, status in statuses.items():
        assert crash.one.get(f"/runs/{run}")["status"] == status
    assert crash.one.get("/status")["liveRuns"] == 0


def test_an_attempt_that_was_cut_off_is_made_again_with_the_same_key(crash: Crash) -> None:
    for name, runs in (("running", crash.running), ("waiting", crash.waiting)):
        for run in runs:
            ended = crash.one.ended(run, 30)
            mine = [line for line in crash.lines(name) if line[0] == run]
            assert [line[1] for line in mine] == ["1", "2"], mine
            assert len({line[2] for line in mine}) == 1
            assert ended["result"] == {"run": run, "attempt": 2}
            [step] = crash.one.get(f"/runs/{run}/steps")["items"]
            assert [attempt["outcome"] for attempt in step["attempts"]] == ["failed", "succeeded"], step
            assert step["attempts"][0]["error"]["type"] == "crashed"


def test_a_step_that_must_not_be_made_again_is_not(crash: Crash) -> None:
    for run in crash.once:
        ended = crash.one.ended(run, 30)
        assert (ended["status"], ended["error"]["type"]) == ("failed", "crashed"), ended
        assert 'on_crash="fail"' in ended["error"]["message"]
        assert len([line for line in crash.lines("once") if line[0] == run]) == 1


def test_no_attempt_is_made_twice(crash: Crash) -> None:
    for name in ("done", "running", "once", "waiting", "queued", "fired"):
        begun = [(run, attempt) for run, attempt, _ in crash.lines(name)]
        assert len(begun) == len(set(begun)), begun
    # Repeating what was in flight makes no second run of what had been begun.
    known = {item["runId"] for item in all_runs(crash.one) if item["workflow"] == "counts"}
    begun_before = {line[0] for line in crash.lines("fired")}
    for number in range(20):
        crash.one.execute("counts", {"path": str(crash.folder / "fired")}, Idempotency_Key=f"fired-{number}")
    assert begun_before <= known
    assert len({line[0] for line in crash.lines("fired")}) == 20
    succeeded: dict[str, int] = {}
    for run in {line[0] for line in crash.lines("fired")}:
        assert crash.one.ended(run, 30)["status"] == "succeeded"
        succeeded[run] = succeeded.get(run, 0) + 1
    assert len(succeeded) == 20


def test_the_audit_log_has_one_start_and_one_end_of_each_run(crash: Crash) -> None:
    for run in [*crash.running, *crash.once, *crash.waiting]:
        events = [record["event"] for record in crash.one.audit(f"&resource={run}")]
        # A run that had rested was nobody's when the instance died.
        assert sorted(set(events) - {"run.taken_over"}) == ["run.finished", "run.started"], events
        assert len(events) == len(set(events)), events
    for run in crash.running:
        events = [record["event"] for record in crash.one.audit(f"&resource={run}")]
        assert "run.taken_over" in events, events


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_stopped_hands_its_runs_over(make: Any, tmp_path: Path, number: int) -> None:
    one = make()
    one.environment["WEFT_ISOLATION_OFF"] = OWN_FILES
    one.start()
    path = tmp_path / "n"
    run = one.begin("counts", {"path": str(path), "seconds": 30})
    once = one.begin("counts_once", {"path": str(path), "seconds": 30})
    until(lambda: path.exists() and len(path.read_text().splitlines()) == 2, "they run")
    begun = time.monotonic()
    assert one.stop(number) == 0
    assert time.monotonic() - begun < 8
    one.start()
    # Not a minute later: the lease was given back.
    ended = one.ended(run, 20)
    assert (ended["status"], ended["result"]["attempt"]) == ("succeeded", 2), ended
    assert one.ended(once, 20)["error"]["type"] == "crashed"
    assert len(path.read_text().splitlines()) == 3


def test_two_commands_on_the_data_of_a_running_instance(crash: Crash) -> None:
    listed = weft("keys", "list", "--json", "--data", crash.one.data)
    assert listed.status == 0, listed
    assert [key["name"] for key in listed.json] == ["weft-dev"]
