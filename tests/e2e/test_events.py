"""Live events and signals with real processes: two instances over one file and over an emulator, and what happens when one is
killed."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from emulator import Emulator
from weft import OWN_PROCESSES, Handler, Listener, Weft, everything, problem, streams, until, weft_at

OFF = {"WEFT_ISOLATION_OFF": OWN_PROCESSES}


@contextmanager
def over_one_file(folder: Path) -> Iterator[tuple[Weft, Weft]]:
    """An instance that receives messages, and one that only answers, over the embedded store."""
    with weft_at(folder / "one", environment=OFF) as one:
        one.start()
        two = Handler(folder / "two", one)
        two.start()
        try:
            yield one, two
        finally:
            if two.process is not None:
                two.stop(signal.SIGKILL)
        assert "panicked" not in two.said(), two.said()


@contextmanager
def over_an_emulator(folder: Path) -> Iterator[tuple[Weft, Weft]]:
    """Two instances that both receive messages, over a storage account."""
    emulator = Emulator(folder / "azurite")
    emulator.start()
    try:
        environment = {**OFF, **emulator.environment}
        with (
            weft_at(folder / "three", environment=environment) as three,
            weft_at(folder / "four", environment=environment) as four,
        ):
            yield three.start(60), four.start(60)
    finally:
        emulator.stop()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Weft, Weft]]:
    """An instance that receives messages, and one that only answers."""
    with over_one_file(tmp_path) as both:
        yield both


@dataclass
class Scene:
    """An instance that drives a run and is killed, one beside it, and who listens to them."""

    where: str
    owner: Weft
    other: Weft
    run: str = ""
    heard: dict[str, list[Listener]] = field(default_factory=dict)

    def listen(self, who: str, one: Weft) -> Listener:
        """A listener, who goes on where it was when it has listened before."""
        before = self.heard.setdefault(who, [])
        before.append(Listener(one, self.run, before[-1].last if before else None))
        return before[-1]


@contextmanager
def drivers_killed(folder: Path) -> Iterator[list[Scene]]:
    """Over each kind of storage, an instance that was killed while it drove a run, and started again."""
    with over_one_file(folder) as (one, two), over_an_emulator(folder) as (three, four):
        scenes = [Scene("one file", two, one), Scene("an emulator", three, four)]
        for scene in scenes:
            # A run that somebody waits for is driven where it was asked for.
            answer = scene.owner.execute("narrates", {"lines": 2000, "seconds": 200}, Prefer="wait=1")
            assert answer.status == 202, (scene.where, str(answer))
            scene.run = answer.json["runId"]
            for who, through in (("moves", scene.owner), ("returns", scene.owner), ("stays", scene.other)):
                listener = scene.listen(who, through)
                until(lambda heard=listener: len(heard.events) > 8, f"it is heard over {scene.where}", 30)
        for scene in scenes:
            scene.owner.stop(signal.SIGKILL)
            for who in ("moves", "returns"):
                [listener] = scene.heard[who]
                listener.wait()
                assert listener.end is None, scene.where
            # One goes on through the other instance at once, and one through the first when it is there again.
            scene.listen("moves", scene.other)
            scene.owner.start(60)
            scene.listen("returns", scene.owner)
        yield scenes


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


def test_a_listener_whose_instance_is_killed_goes_on_elsewhere(pair: tuple[Weft, Weft]) -> None:
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


def test_the_driver_is_killed_and_the_run_goes_on(killed_drivers: list[Scene]) -> None:
    # The lease of the dead instance runs out after a minute; whoever listens, wherever, hears it all.
    for scene in killed_drivers:
        expected: dict[tuple[Any, ...], list[str]] = {}
        for who, listeners in scene.heard.items():
            listeners[-1].wait(120)
            assert listeners[-1].end == {"status": "succeeded"}, (scene.where, who)
            expected = expected or streams(everything(scene.other, scene.run))
            events = [event for listener in listeners for event in listener.events]
            assert streams(events) == expected, (scene.where, who)
            assert len({event["id"] for event in events}) == len(events), (scene.where, who)
            assert [event["type"] for event in events].count("run.taken_over") == 1, (scene.where, who)
            ends = [event["status"] for event in events if event["type"] == "run.status"]
            assert (ends[-1], ends.count("succeeded")) == ("succeeded", 1), (scene.where, who, ends)
        assert len(expected["main", 2]) == 2000, scene.where
        assert 0 < len(expected["main", 1]) < 2000, scene.where


def test_a_run_is_cancelled_through_another_instance(pair: tuple[Weft, Weft]) -> None:
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
