"""Live events and signals with real processes: two instances over one file, and what happens when one is killed."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from weft import OWN_PROCESSES, Handler, Listener, Weft, everything, problem, streams, until, weft_at


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Weft, Handler]]:
    """An instance that receives messages, and one that only answers."""
    off = {"WEFT_ISOLATION_OFF": OWN_PROCESSES}
    with weft_at(tmp_path / "one", environment=off) as one:
        one.start()
        two = Handler(tmp_path / "two", one)
        two.start()
        try:
            yield one, two
        finally:
            if two.process is not None:
                two.stop(signal.SIGKILL)
        assert "panicked" not in two.said(), two.said()


def test_a_run_is_heard_as_it_goes_on(shared: Weft) -> None:
    run = shared.begin("narrates", {"lines": 20, "seconds": 2})
    listener = Listener(shared, run)
    until(lambda: [event for event in listener.events if event["type"] == "log"], "the first line")
    assert shared.get(f"/runs/{run}")["status"] == "running"
    events = listener.wait()
    assert listener.end == {"status": "succeeded"}
    assert [event["message"] for event in events if event["type"] == "log"] == [
        f"attempt 1, line {number}" for number in range(20)
    ]
    assert events[-1]["type"] == "run.status"
    assert events[-1]["status"] == "succeeded"
    assert streams(events) == streams(everything(shared, run))
    # Whoever comes back after the end is told to stay away.
    again = Listener(shared, run, listener.last)
    assert (again.status, again.wait()) == (204, [])
    found = problem(
        shared.call("GET", f"/runs/{run}/events", Last_Event_ID="1234"),
        400,
        "parameter_invalid",
        hint="begin without one",
        errors={"header:Last-Event-ID": "invalid"},
    )
    assert "cursor" in found["detail"]


def test_a_listener_whose_instance_is_killed_goes_on_elsewhere(pair: tuple[Weft, Handler]) -> None:
    one, two = pair
    run = one.begin("narrates", {"lines": 60, "seconds": 6})
    first = Listener(two, run)
    until(lambda: len([event for event in first.events if event["type"] == "log"]) > 5, "it is heard", 30)
    two.stop(signal.SIGKILL)
    first.wait()
    assert first.end is None
    second = Listener(one, run, first.last)
    time_out = time.monotonic() + 3
    until(lambda: second.events or time.monotonic() > time_out, "more is heard")
    second.close()
    two.start()
    third = Listener(two, run, second.last)
    third.wait(60)
    assert third.end == {"status": "succeeded"}
    assert streams(first.events + second.events + third.events) == streams(everything(two, run))
    assert len(first.events) > 5
    assert third.events


def test_the_driver_is_killed_and_the_run_goes_on(pair: tuple[Weft, Handler]) -> None:
    one, two = pair
    run = one.begin("narrates", {"lines": 2000, "seconds": 200})
    here, there = Listener(one, run), Listener(two, run)
    for listener in (here, there):
        until(lambda heard=listener: len(heard.events) > 8, "it is heard", 30)
    one.stop(signal.SIGKILL)
    here.wait()
    one.start()
    # The lease of the dead instance runs out after a minute; whoever listens elsewhere hears it all.
    again = Listener(one, run, here.last)
    again.wait(110)
    there.wait(20)
    assert (again.end, there.end) == ({"status": "succeeded"}, {"status": "succeeded"})
    expected = streams(everything(two, run))
    assert streams(here.events + again.events) == expected
    assert streams(there.events) == expected
    assert len(expected["main", 2]) == 2000
    assert [event["type"] for event in there.events].count("run.taken_over") == 1


def test_a_run_is_cancelled_through_another_instance(pair: tuple[Weft, Handler]) -> None:
    one, two = pair
    run = one.execute("hangs", Prefer="wait=0").json["runId"]
    until(lambda: one.log(run), "it has begun")
    [process] = one.named("weft-hangs")
    listener = Listener(one, run)
    answer = two.call("POST", f"/runs/{run}/cancel")
    assert (answer.status, answer.json["status"]) == (200, "cancelled"), answer
    # Looked for twice a second; what is allowed beyond that is for a busy machine.
    until(lambda: not process.alive, "its process has ended", 5)
    listener.wait()
    assert listener.end == {"status": "cancelled"}
    until(lambda: one.get("/status")["liveRuns"] == 0, "nobody drives it", 5)
