"""Runs as their callers see them: waiting or not, cancelled, listed, repeated, and never somebody else's."""

import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from weft import Weft, problem, until


def counted(path: Path) -> list[str]:
    """A line for each attempt that was made."""
    return path.read_text().splitlines() if path.exists() else []


def settled(run: dict[str, Any]) -> dict[str, Any]:
    """A run without the time that storing it took, which the first answer knows better."""
    return {**run, "timings": {**run["timings"], "storeMs": 0}}


@pytest.mark.parametrize(
    "prefer", ["respond-async", "respond-async, wait=10", "wait=0", "Respond-Async; foo"]
)
def test_not_waiting(unjailed: Weft, prefer: str, tmp_path: Path) -> None:
    answer = unjailed.execute("counts", {"path": str(tmp_path / "n"), "seconds": 0.5}, Prefer=prefer)
    assert answer.status == 202, answer
    assert answer.seconds < 5
    body = answer.json
    assert answer.headers["Location"] == f"/api/runs/{body['runId']}"
    assert body["links"]["self"] == answer.headers["Location"]
    assert body["status"] in ("pending", "running")
    run = unjailed.ended(body["runId"])
    assert (run["status"], run["result"]["attempt"]) == ("succeeded", 1), run
    assert "cancel" not in run["links"]
    assert len(counted(tmp_path / "n")) == 1


def test_waiting_shorter_than_the_run_takes(unjailed: Weft, tmp_path: Path) -> None:
    answer = unjailed.execute("counts", {"path": str(tmp_path / "n"), "seconds": 2}, Prefer="wait=1")
    assert answer.status == 202, answer
    assert 0.9 < answer.seconds < 5
    assert answer.json["status"] == "running"
    # The caller's patience has ended, the run has not.
    assert unjailed.ended(answer.json["runId"])["status"] == "succeeded"
    assert len(counted(tmp_path / "n")) == 1


def test_a_caller_that_goes_away_ends_nothing(unjailed: Weft, tmp_path: Path) -> None:
    path = tmp_path / "n"
    with pytest.raises(OSError, match="timed out"):
        unjailed.call(
            "POST",
            "/workflows/counts/execute",
            {"path": str(path), "seconds": 1.5},
            timeout=0.7,
            Prefer="wait=30",
        )
    run = until(lambda: counted(path), "its first line")[0].split()[0]
    assert unjailed.ended(run)["status"] == "succeeded"
    assert len(counted(path)) == 1


def test_a_queued_run_says_why_it_waits(shared: Weft) -> None:
    run = shared.begin("hangs")
    until(lambda: shared.get(f"/runs/{run}")["status"] == "running", "it runs")
    stored = shared.get(f"/runs/{run}")
    assert (stored["finishedAt"], stored["result"], stored["error"]) == (None, None, None)
    assert stored["links"]["cancel"] == f"/api/runs/{run}/cancel"
    shared.call("POST", f"/runs/{run}/cancel")


@pytest.mark.parametrize("how", ["respond-async", "wait=1"])
def test_cancelling_ends_run_and_process_within_a_second(either: Weft, how: str) -> None:
    run = either.execute("hangs", Prefer=how).json["runId"]
    said = until(lambda: [line["message"] for line in either.log(run)], "it has begun")
    # Those of other tests, cancelled too, may need a moment.
    until(lambda: len(either.named("weft-hangs")) == 1, "it runs alone")
    [process] = either.named("weft-hangs")
    answer = either.call("POST", f"/runs/{run}/cancel")
    assert answer.status == 200, answer
    assert answer.seconds < 1, answer.seconds
    assert (answer.json["status"], answer.json["result"]) == ("cancelled", None), answer
    until(lambda: not process.alive, "its process has ended", 1)
    assert either.get(f"/runs/{run}")["status"] == "cancelled"
    [step] = either.get(f"/runs/{run}/steps")["items"]
    assert step["status"] == "cancelled"
    [attempt] = step["attempts"]
    assert (attempt["outcome"], attempt["number"]) == ("cancelled", 1)
    assert step["startedAt"] <= attempt["startedAt"] <= attempt["finishedAt"]
    problem(
        either.call("POST", f"/runs/{run}/cancel"),
        409,
        "run_ended",
        hint="nothing is left",
        detail="cancelled",
    )
    page = either.get(f"/runs/{run}/logs")
    assert [line["message"] for line in page["items"]] == said
    until(lambda: either.get(f"/runs/{run}/logs?after={page['nextCursor']}")["ended"], "the log has ended", 5)
    until(lambda: either.get("/status")["liveRuns"] == 0, "nobody drives it", 5)


def test_cancelling_ends_the_whole_tree(either: Weft) -> None:
    run = either.begin("hangs_with_children")
    until(lambda: either.log(run), "it has begun")
    during = either.named("weft-children")
    assert len(during) == 3, during
    assert either.call("POST", f"/runs/{run}/cancel").status == 200
    until(
        lambda: not any(process.alive for process in during) and not either.named("weft-children"),
        "its children have ended",
        2,
    )
    either.lives()


def test_cancelling_while_somebody_waits(shared: Weft) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(shared.execute, "hangs", {"note": "waited-for"}, Prefer="wait=30")
        listed = "/runs?workflow=hangs&status=running&limit=1"
        run = until(lambda: shared.get(listed)["items"], "it is listed")[0]["runId"]
        until(lambda: shared.log(run), "it has begun")
        assert shared.call("POST", f"/runs/{run}/cancel").status == 200
        answer = waiting.result(10)
    assert (answer.status, answer.json["status"]) == (200, "cancelled"), answer


def test_cancelling_what_has_ended(shared: Weft) -> None:
    run = shared.run("nothing")["runId"]
    problem(
        shared.call("POST", f"/runs/{run}/cancel"),
        409,
        "run_ended",
        detail="succeeded",
        hint="nothing is left",
    )


def test_many_cancel_at_once(shared: Weft) -> None:
    run = shared.begin("hangs")
    until(lambda: shared.log(run), "it has begun")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: shared.call("POST", f"/runs/{run}/cancel"), range(8)))
    assert sorted(answer.status for answer in answers) == [200] + [409] * 7, [
        str(answer) for answer in answers
    ]
    assert len([r for r in shared.audit(f"&resource={run}") if r["event"] == "run.cancelled"]) == 1


def test_steps_and_logs_tell_the_whole_story(shared: Weft) -> None:
    run = shared.run("talks")
    assert run["variables"] == {"lines": 5}
    [step] = shared.get(f"/runs/{run['runId']}/steps")["items"]
    assert (step["id"], step["status"], step["attemptsBegun"]) == ("main", "succeeded", 1)
    [attempt] = step["attempts"]
    assert (attempt["outcome"], attempt["number"], attempt["outputTruncated"]) == ("succeeded", 1, False)
    lines = shared.log(run["runId"])
    assert [line["message"] for line in lines if line["stream"] == "stdout"] == [
        f"line {n}" for n in range(5)
    ]
    assert [line["message"] for line in lines if line["stream"] == "stderr"] == ["to stderr"]
    logged = {line["message"]: line for line in lines if line["stream"] == "log"}
    assert logged["structured"]["fields"] == {"answer": 42}
    assert logged["a warning"]["level"] == "warning"
    [checkpoint] = [line for line in lines if line["stream"] == "checkpoint"]
    assert checkpoint["fields"] == {"checkpoint": "halfway", "data": {"done": 5}}
    assert {(line["step"], line["attempt"]) for line in lines} == {("main", 1)}


def test_a_log_is_read_while_it_is_written(shared: Weft) -> None:
    run = shared.begin("hangs", {"note": "reading"})
    page = until(lambda: (p := shared.get(f"/runs/{run}/logs")) and p["items"] and p, "a line")
    assert page["ended"] is False
    again = shared.get(f"/runs/{run}/logs?after={page['nextCursor']}")
    assert (again["items"], again["ended"], again["nextCursor"]) == ([], False, page["nextCursor"])
    shared.call("POST", f"/runs/{run}/cancel")


def test_pages_hold_everything_once(make: Any) -> None:
    one = make().start()
    runs = [one.run("echo" if number % 3 else "nothing")["runId"] for number in range(11)]
    other = one.run("echo", X_Organization_Id="fabrikam")["runId"]
    failed = one.run("exits")["runId"]

    def pages(query: str, limit: int) -> list[str]:
        found: list[str] = []
        cursor = ""
        while True:
            page = one.get(f"/runs?limit={limit}&cursor={cursor}{query}")
            assert len(page["items"]) <= limit
            found += [item["runId"] for item in page["items"]]
            if "nextCursor" not in page:
                return found
            cursor = page["nextCursor"]
            assert re.fullmatch(r"[A-Za-z0-9_-]+", cursor), cursor

    newest_first = [failed, *reversed(runs)]
    for limit in (1, 4, 12, 200, 100000):
        assert pages("", limit) == newest_first
    assert pages("&workflow=nothing", 2) == [run for n, run in reversed(list(enumerate(runs))) if n % 3 == 0]
    assert pages("&status=failed", 5) == [failed]
    assert pages("&status=succeeded&workflow=exits", 5) == []
    requester = one.get(f"/runs/{failed}")["requester"]["id"]
    assert pages(f"&user={requester}", 5) == newest_first
    assert pages("&user=nobody", 5) == []
    middle = one.get(f"/runs/{runs[5]}")["createdAt"]
    assert pages(f"&from={middle}", 3) == [failed, *reversed(runs[5:])]
    assert pages(f"&to={middle}", 3) == list(reversed(runs[:5]))
    assert pages("&from=2030-01-01T00:00:00Z", 3) == []
    assert pages("&from=2026-02-01T00:00:00Z&to=2026-01-01T00:00:00Z", 3) == []
    # A cursor is good for its own organization only.
    cursor = one.get("/runs?limit=1")["nextCursor"]
    answer = one.call("GET", f"/runs?limit=1&cursor={cursor}", X_Organization_Id="fabrikam")
    problem(answer, 400, "parameter_invalid", hint="without a cursor", errors={"query:cursor": "invalid"})
    assert [item["runId"] for item in one.get("/runs", X_Organization_Id="fabrikam")["items"]] == [other]
    # Workflows, too.
    names: list[str] = []
    cursor = ""
    while True:
        page = one.get(f"/workflows?limit=7&cursor={cursor}")
        names += [item["name"] for item in page["items"]]
        cursor = page.get("nextCursor", "")
        if not cursor:
            break
    assert names == sorted(names)
    assert len(names) == len(set(names)) == len(one.get("/status")["workspace"]["workflows"])
    # And audit records.
    ids: list[str] = []
    cursor = ""
    while True:
        page = one.get(f"/audit?limit=9&event=run.finished&cursor={cursor}")
        ids += [item["id"] for item in page["items"]]
        cursor = page.get("nextCursor", "")
        if not cursor:
            break
    assert len(ids) == len(set(ids)) == 12


def test_an_idempotency_key_starts_one_run(unjailed: Weft, tmp_path: Path) -> None:
    path = tmp_path / "n"
    key = {"Idempotency_Key": f"key-{tmp_path.name}"}
    first = unjailed.execute("counts", {"path": str(path)}, **key)
    again = unjailed.execute("counts", {"path": str(path)}, **key)
    assert (first.status, again.status) == (200, 200)
    assert settled(first.json) == settled(again.json)
    assert (first.headers["Idempotency-Replayed"], again.headers["Idempotency-Replayed"]) == (None, "true")
    assert len(counted(path)) == 1
    # With other arguments it is another request under the same name.
    problem(
        unjailed.execute("counts", {"path": str(path), "seconds": 0.1}, **key),
        409,
        "idempotency_key_reused",
        hint="new key",
    )
    # It belongs to the workflow and to the organization.
    other = unjailed.execute("echo", {"value": 1}, **key)
    assert (other.status, other.json["workflow"], other.headers["Idempotency-Replayed"]) == (
        200,
        "echo",
        None,
    )
    foreign = unjailed.run("counts", {"path": str(path)}, X_Organization_Id="fabrikam", **key)
    assert foreign["runId"] != first.json["runId"]
    assert len(counted(path)) == 2


def test_an_idempotency_key_repeats_a_failure_and_a_202(shared: Weft) -> None:
    first = shared.run("exits", {"code": 3}, Idempotency_Key="failing")
    assert settled(shared.run("exits", {"code": 3}, Idempotency_Key="failing")) == settled(first)
    assert first["status"] == "failed"
    pending = [
        shared.execute("hangs", {"note": "key"}, Prefer="respond-async", Idempotency_Key="hanging")
        for _ in range(3)
    ]
    assert {answer.status for answer in pending} == {202}
    [run] = {answer.json["runId"] for answer in pending}
    shared.call("POST", f"/runs/{run}/cancel")


@pytest.mark.parametrize("prefer", ["wait=30", "respond-async"])
def test_the_same_key_at_the_same_time_starts_one_run(unjailed: Weft, tmp_path: Path, prefer: str) -> None:
    path = tmp_path / "n"
    together = threading.Barrier(12)

    def ask(_: int) -> Any:
        together.wait()
        return unjailed.execute(
            "counts",
            {"path": str(path), "seconds": 0.3},
            Prefer=prefer,
            Idempotency_Key=f"together-{tmp_path.name}",
        )

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(ask, range(12)))
    assert {answer.status for answer in answers} == {200 if prefer == "wait=30" else 202}, [
        str(a) for a in answers
    ]
    [run] = {answer.json["runId"] for answer in answers}
    assert unjailed.ended(run)["status"] == "succeeded"
    assert len(counted(path)) == 1
    if prefer == "wait=30":
        assert sum(answer.headers["Idempotency-Replayed"] == "true" for answer in answers) == 11
    started = [r for r in unjailed.audit(f"&resource={run}") if r["event"] == "run.started"]
    assert len(started) == 1, started


def test_an_organization_knows_nothing_of_another_s_runs(shared: Weft) -> None:
    run = shared.run("echo", {"value": "only for contoso"})["runId"]
    hanging = shared.begin("hangs")
    until(lambda: shared.log(hanging), "it has begun")
    for method, target in [
        ("GET", f"/runs/{run}"),
        ("GET", f"/runs/{run}/steps"),
        ("GET", f"/runs/{run}/logs"),
        ("POST", f"/runs/{run}/cancel"),
        ("POST", f"/runs/{hanging}/cancel"),
    ]:
        answer = shared.call(method, target, X_Organization_Id="fabrikam")
        said = problem(answer, 404, "run_not_found", hint="X-Organization-Id")
        # The same words as for one that is nowhere.
        nowhere = shared.call(method, target.replace(target.split("/")[2], "run_01m7xwwbv9r8d8dys0ss4qqzy4"))
        assert re.sub(r"run_\w+", "", said["detail"]) == re.sub(r"run_\w+", "", nowhere.json["detail"])
    assert shared.get(f"/runs/{hanging}")["status"] == "running"
    shared.call("POST", f"/runs/{hanging}/cancel")
    listed = shared.get("/runs?limit=200", X_Organization_Id="fabrikam")["items"]
    assert run not in {item["runId"] for item in listed}
    records = shared.audit(f"&resource={run}", X_Organization_Id="fabrikam")
    assert records == []
    assert all(record["organization"] == "fabrikam" for record in shared.audit(X_Organization_Id="fabrikam"))
    own = shared.run("echo", X_Organization_Id="fabrikam")
    assert own["result"]["organization"] == "fabrikam"


def test_async_runs_beyond_the_slots_all_end(unjailed: Weft, tmp_path: Path) -> None:
    path = tmp_path / "n"
    begun = time.monotonic()
    runs = [unjailed.begin("counts", {"path": str(path)}) for _ in range(40)]
    ended = [unjailed.ended(run, 60) for run in runs]
    assert {run["status"] for run in ended} == {"succeeded"}
    assert len(counted(path)) == 40
    assert time.monotonic() - begun < 60
    assert {run["result"]["run"] for run in ended} == set(runs)
    assert all(run["timings"]["queueMs"] >= 0 for run in ended)


def test_a_run_beyond_its_own_time_limit_ends(make: Any) -> None:
    one = make(environment={"WEFT_RUN_TIMEOUT_SECONDS": "1"}).start()
    run = one.run("hangs")
    assert run["status"] == "timed_out", run
    assert run["error"]["message"], run
    assert [line["message"].split()[0] for line in one.log(run["runId"])] == ["hanging"]
    one.lives()


def test_fewer_slots_than_callers(make: Any) -> None:
    one = make(environment={"WEFT_WORKER_SLOTS": "1", "WEFT_WORKERS_AHEAD": "0"}).start()
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda n: one.run("counts", {"path": os.devnull, "seconds": 0.1}), range(6)))
    assert {run["status"] for run in done} == {"succeeded"}
