"""A kill campaign: runs of many shapes are asked for while handlers, zygotes and workers are killed, storage goes away and all
of it comes back; and afterwards everything that Weft says is compared with what its steps have really done.

What is asked for and what is killed when follows from a seed. Which process a blow meets depends on the machine as well, so
a seed repeats a storm and not a history; the journal, which is printed, has what was met.
"""

from __future__ import annotations

import heapq
import itertools
import json
import os
import random
import re
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from chains import Broken, Rows, verify_day_chains, verify_run
from emulator import Emulator
from weft import HERE, OWN_FILES, TERMINAL, Weft, everything, free_port, processes, streams, until

WORKSPACE = HERE / "campaign_workspace"
SEED = "WEFT_CAMPAIGN_SEED"
"""The environment variable that names the seed of a campaign, to repeat one."""
Mend = tuple[float, Callable[[], None]]
FRAGILE = frozenset({"fragile", "brittle"})
ONCE = frozenset({("fragile", "main"), ("brittle", "once")})
"""Steps that are declared `on_crash="fail"`."""
CALLERS = 8
PATIENCE = 240.0
"""Seconds after the storm within which everything has to end. A run of a dead instance waits for the end of its lease, a
minute, and for a message that comes five seconds later; a message that the dead one had in hand is hidden for two minutes."""
SHAPES = {
    "single": 5,
    "fragile": 3,
    "shaky": 2,
    "remembers": 2,
    "starts": 1,
    "chain": 3,
    "fan": 2,
    "family": 2,
    "forks": 2,
    "pauses": 2,
    "asks": 2,
    "brittle": 2,
}


@dataclass(frozen=True)
class Wish:
    """A run that is asked for."""

    number: int
    at: float
    workflow: str
    seconds: float
    prefer: str
    first: int

    @property
    def key(self) -> str:
        """Its idempotency key."""
        return f"campaign-{self.number}"


@dataclass(frozen=True)
class Blow:
    """Something that is killed, or for storage stopped cleanly, and how long it stays so."""

    at: float
    what: str
    target: int
    place: float
    down: float


@dataclass(frozen=True)
class Plan:
    """All that follows from the seed."""

    seed: int
    wishes: list[Wish]
    blows: list[Blow]

    @classmethod
    def of(
        cls, seed: int, *, runs: int, seconds: float, handlers: int, deaths: int, below: int, outages: int = 0
    ) -> Plan:
        """``deaths`` of handlers, ``below`` of processes below them, and ``outages`` of storage, within ``seconds``."""
        chance = random.Random(seed)
        names, weights = list(SHAPES), list(SHAPES.values())
        # Each shape once at least.
        shapes = [*names, *chance.choices(names, weights, k=max(0, runs - len(names)))][:runs]
        chance.shuffle(shapes)
        wishes = [
            Wish(
                number,
                chance.uniform(0, seconds * 0.9),
                shape,
                round(chance.choice((0.0, 0.0, 0.1, chance.uniform(0, 2))), 3),
                chance.choice(("respond-async", "respond-async", "wait=2", "wait=20")),
                chance.randrange(handlers),
            )
            for number, shape in enumerate(shapes)
        ]
        wishes.sort(key=lambda wish: wish.at)
        kinds = ["handler"] * deaths + ["below"] * below + ["storage"] * outages
        blows = [
            Blow(
                chance.uniform(seconds * 0.05, seconds),
                kind,
                chance.randrange(handlers),
                chance.random(),
                chance.uniform(1, 6) if kind == "storage" else chance.choice((0.0, chance.uniform(0, 5))),
            )
            for kind in kinds
        ]
        return cls(seed, wishes, sorted(blows, key=lambda blow: blow.at))


@dataclass
class Campaign:
    """A plan, and what becomes of it."""

    plan: Plan
    folder: Path
    handlers: list[Weft]
    emulator: Emulator | None = None
    accepted: dict[int, str] = field(default_factory=dict)
    journal: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    blows: Counter[str] = field(default_factory=Counter)
    known_children: set[str] = field(default_factory=set)
    failed: AssertionError | None = None
    begun_at: float = 0.0
    calm_at: float = 0.0
    calm_since: float = 0.0
    _hit: set[int] = field(default_factory=set)
    _stop: threading.Event = field(default_factory=threading.Event)

    # The storm.

    def note(self, text: str) -> None:
        """A line of the journal."""
        self.journal.append(f"{time.monotonic() - self.begun_at:7.2f}  {text}")

    def storm(self) -> None:
        """Everything up to the moment at which all that was killed is there again."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o777)
        self.begun_at = time.monotonic()
        calls = threading.Thread(target=self._ask_for_all)
        calls.start()
        word = threading.Thread(target=self._decide)
        word.start()
        try:
            order = itertools.count()
            todo = [(blow.at, next(order), partial(self._strike, blow)) for blow in self.plan.blows]
            while todo:
                at, _, act = heapq.heappop(todo)
                self._rest_until(at)
                self._tend()
                mend = act()
                if mend is not None:
                    after, back = mend
                    heapq.heappush(todo, (time.monotonic() - self.begun_at + after, next(order), back))
            self._all_up()
        except BaseException:
            self._stop.set()
            raise
        self.calm_at, self.calm_since = time.time(), time.monotonic()
        self.note("calm")
        calls.join(PATIENCE)
        if calls.is_alive():
            self._stop.set()
            self.wrong.append("not all runs were accepted in time")
        self.note(f"{len(self.accepted)} runs accepted")

    def _rest_until(self, at: float) -> None:
        time.sleep(max(0.0, self.begun_at + at - time.monotonic()))

    def _strike(self, blow: Blow) -> Mend | None:
        """Kill it; how long it stays away and what brings it back, where something has to."""
        if blow.what == "storage":
            if self.emulator is None or self.emulator.process is None:
                return None
            self.note("storage is stopped")
            self.emulator.stop()
            self.blows["storage"] += 1
            return blow.down, self._bring_storage_back
        one = self.handlers[blow.target]
        if one.process is None or one.process.poll() is not None:
            self.note(f"{self._name(blow.target)} is down already")
            return None
        if blow.what == "handler":
            self.note(f"{self._name(blow.target)} is killed, process {one.pid}")
            one.kill(signal.SIGKILL)
            one.wait()
            self.blows["handler"] += 1
            return blow.down, partial(self._launch, blow.target)
        below = [process for process in one.tree() if process.state not in "ZX"]
        if not below:
            self.note(f"{self._name(blow.target)} has nothing below it")
            return None
        # The first is the zygote, which is met in half of all cases.
        met = below[0 if blow.place < 0.5 else int(blow.place * len(below))]
        what = "zygote" if met.parent == one.pid else "worker"
        try:
            os.kill(met.pid, signal.SIGKILL)
        except ProcessLookupError:
            self.note(f"a {what} of {self._name(blow.target)} was gone before the blow")
            return None
        self.note(f"a {what} of {self._name(blow.target)} is killed, `{met.name}`, process {met.pid}")
        self.blows[what] += 1
        self._hit.add(blow.target)
        return None

    def _bring_storage_back(self) -> None:
        assert self.emulator is not None
        self.emulator.start()
        self.note("storage is back")

    def _launch(self, target: int) -> None:
        self._hit.discard(target)
        self.handlers[target].launch()
        self.note(f"{self._name(target)} is started, process {self.handlers[target].pid}")

    def _name(self, target: int) -> str:
        return f"handler {'AB'[target]}"

    def _tend(self) -> None:
        """A handler that finds no storage when it starts ends, and whoever has started it does so again, as the host does."""
        for target, one in enumerate(self.handlers):
            if one.process is None or one.process.poll() is None:
                continue
            status = one.wait()
            self.note(f"{self._name(target)} has ended by itself with {status}")
            # Storage was away, or the child that it had asked about Python was killed.
            is_known = bool(self.blows["storage"]) or target in self._hit
            if status != 1 or not is_known:
                self.wrong.append(f"{self._name(target)} has ended by itself with {status}")
            self._launch(target)

    def _all_up(self) -> None:
        for target, one in enumerate(self.handlers):

            def ready(one: Weft = one) -> bool:
                self._tend()
                return one.call("GET", "/ready").status == 200

            until(ready, f"{self._name(target)} is ready", 90)

    # Callers.

    def arguments(self, wish: Wish) -> dict[str, Any]:
        """What a run is given."""
        return {"folder": str(self.folder), "seconds": wish.seconds}

    def _ask_for_all(self) -> None:
        with ThreadPoolExecutor(CALLERS) as callers:
            for wish in self.plan.wishes:
                callers.submit(self._ask, wish)

    def _ask(self, wish: Wish) -> None:
        """Until somebody has accepted it, as a good client does: with one key, wherever."""
        self._rest_until(wish.at)
        tries = 0
        while not self._stop.is_set():
            one = self.handlers[(wish.first + tries) % len(self.handlers)]
            tries += 1
            try:
                answer = one.execute(
                    wish.workflow, self.arguments(wish), Idempotency_Key=wish.key, Prefer=wish.prefer
                )
            except OSError:
                self._stop.wait(0.1)
                continue
            if answer.status in (200, 202):
                self.accepted[wish.number] = answer.json["runId"]
                return
            if answer.status in (429, 503) and answer.json["retriable"]:
                self._stop.wait(0.1)
                continue
            self.wrong.append(f"run {wish.number} ({wish.workflow}) was refused: {answer}")
            return

    def _decide(self) -> None:
        """Says yes to whatever asks."""
        said: set[int] = set()
        asking = {wish.number for wish in self.plan.wishes if wish.workflow == "asks"}
        turn = 0
        while not self._stop.wait(0.2) and said != asking:
            for number in asking - said:
                run = self.accepted.get(number)
                if run is None:
                    continue
                turn += 1
                one = self.handlers[turn % len(self.handlers)]
                try:
                    if one.get(f"/runs/{run}")["status"] in TERMINAL:
                        said.add(number)
                        continue
                    if one.get(f"/runs/{run}/approvals")["items"]:
                        one.call("POST", f"/runs/{run}/steps/word/decision", {"approved": True})
                except (OSError, AssertionError):
                    continue

    # The calm.

    def settle(self) -> float:
        """Waits until every run has ended; seconds from the end of the storm to the last end."""
        one = self.handlers[0]
        left = max(5.0, PATIENCE - (time.monotonic() - self.calm_since))
        try:
            until(lambda: not self.open_runs(one), "every run has ended", left)
        except AssertionError:
            for run in self.open_runs(one)[:20]:
                now = one.get(f"/runs/{run['runId']}")
                self.wrong.append(
                    f"{run['runId']} ({run['workflow']}) is {now['status']}, waits for {now.get('waitingFor')}, "
                    f"steps {[(step['id'], step['status']) for step in now['steps']]}"
                )
        self._stop.set()
        self.note("all have ended")
        ends = [run["finishedAt"] for run in all_runs(one) if run.get("finishedAt")]
        return max((at(text) for text in ends), default=0.0) - self.calm_at

    def open_runs(self, one: Weft) -> list[dict[str, Any]]:
        """Those that have not ended; asked after the lists have been believed."""
        listed = all_runs(one)
        return [run for run in listed if run["status"] not in TERMINAL]

    def marks(self) -> list[dict[str, Any]]:
        """What the steps have left."""
        path = self.folder / "marks"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def say(self, last: float) -> None:
        """The numbers of the campaign."""
        begun = Counter(mark["what"] for mark in self.marks())
        blows = ", ".join(f"{what} {count}" for what, count in sorted(self.blows.items()))
        print(
            f"campaign of seed {self.plan.seed}: {len(self.accepted)} runs accepted, killed or stopped: {blows}; "
            f"{begun['begun']} attempts begun, {begun['made']} returned; last end {last:.1f} s after the storm"
        )

    def check(self) -> None:
        """Everything that has to hold while somebody can be asked."""
        last = self.settle()
        self.say(last)
        one = self.handlers[0]
        judge = Judge(self, one)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(judge.run, list(self.accepted.items())))
        judge.children()
        judge.lists()
        judge.keys()
        judge.marks_alone()
        for handler in self.handlers:
            try:
                until(partial(idle, handler), "nobody drives", 20)
            except AssertionError as error:
                self.wrong.append(str(error))

    def audit(self, rows: Rows) -> None:
        """The chains as they are stored, when everybody has ended."""
        chains = 0
        for run in [*self.accepted.values(), *self.known_children]:
            try:
                records = verify_run(rows, run)
            except Broken as broken:
                self.wrong.append(f"audit chain of {run}: {broken}")
                continue
            chains += 1
            events = Counter(record["event"] for record in records)
            if (events["run.started"], events["run.finished"]) != (1, 1):
                self.wrong.append(f"audit chain of {run} has {dict(events)}")
        try:
            chains += verify_day_chains(rows)
        except Broken as broken:
            self.wrong.append(f"audit: {broken}")
        print(f"{chains} audit chains verified")

    def stop(self) -> None:
        """Ends everything as a person would; no process is left."""
        self._stop.set()
        for one in self.handlers:
            if one.process is not None:
                status = one.stop(signal.SIGTERM)
                if status not in (0, 143):
                    self.wrong.append(f"a handler ended with {status}")
        orphans = [
            process
            for process in processes()
            if process.parent == os.getpid()
            and process.state not in "ZX"
            and process.name.startswith(("weft", "python"))
            and process.pid not in Weft.running
        ]
        if orphans:
            self.wrong.append(f"processes are left: {orphans}")

    def end(self) -> None:
        """Leaves nothing behind, whatever has happened."""
        self._stop.set()
        for one in self.handlers:
            if one.process is not None:
                # One that has ended by itself is what the test tells of.
                if one.process.poll() is None:
                    one.kill(signal.SIGKILL)
                one.wait()

    def report(self) -> None:
        """Fails with all that was found, and says how to see it again."""
        if not self.wrong:
            return
        text = "\n".join(self.wrong[:60])
        more = f"\n… and {len(self.wrong) - 60} more" if len(self.wrong) > 60 else ""
        raise AssertionError(f"{len(self.wrong)} findings\n{text}{more}")

    def how_to_repeat(self, test: str) -> str:
        """For a failure: the journal, and the line that plays the same storm."""
        lines = "\n".join(self.journal)
        return f"{lines}\nto play this storm again: {SEED}={self.plan.seed} {test}"


def idle(one: Weft) -> bool:
    """Whether it drives nothing."""
    return bool(one.get("/status")["liveRuns"] == 0)


def at(text: str) -> float:
    """A time of the API in seconds."""
    return datetime.fromisoformat(text).timestamp()


def pages(one: Weft, target: str) -> list[dict[str, Any]]:
    """A whole list, page by page."""
    items: list[dict[str, Any]] = []
    joint = "&" if "?" in target else "?"
    cursor = ""
    while True:
        page = one.get(f"{target}{joint}limit=50{cursor}")
        items += page["items"]
        if "nextCursor" not in page:
            return items
        cursor = f"&cursor={page['nextCursor']}"


def all_runs(one: Weft) -> list[dict[str, Any]]:
    """Of all statuses and workflows."""
    return pages(one, "/runs")


class Judge:
    """Compares what is told with what was done."""

    def __init__(self, campaign: Campaign, one: Weft) -> None:
        self.campaign = campaign
        self.one = one
        self.wishes = {wish.number: wish for wish in campaign.plan.wishes}
        #: Numbers of the attempts that were begun, by run, step and key.
        self.begun: dict[tuple[str, str, str], list[int]] = defaultdict(list)
        self.made: dict[tuple[str, str, int], str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        for mark in campaign.marks():
            if mark["what"] == "begun":
                self.begun[mark["run"], mark["step"], mark["key"]].append(mark["attempt"])
            else:
                self.made[mark["run"], mark["key"], mark["attempt"]] = mark["token"]

    def wrong(self, run: str, text: str) -> None:
        """A finding."""
        workflow = self.runs.get(run, {}).get("workflow", "?")
        self.campaign.wrong.append(f"{run} ({workflow}): {text}")

    def run(self, item: tuple[int, str]) -> None:
        """One run that was accepted."""
        number, run = item
        try:
            self.whole(run, self.wishes[number].workflow)
        except Exception as error:
            self.wrong(run, f"{type(error).__name__}: {error}")

    def whole(self, run: str, workflow: str) -> None:
        """A run: its end, its steps, its events, its records."""
        told = self.one.get(f"/runs/{run}")
        self.runs[run] = told
        if told["workflow"] != workflow:
            self.wrong(run, f"is a run of {told['workflow']} instead of {workflow}")
        steps = {step["id"]: step for step in pages(self.one, f"/runs/{run}/steps")}
        if told["status"] == "succeeded":
            self.result(run, workflow, told["result"], steps)
        elif not (workflow in FRAGILE and told["status"] == "failed" and told["error"]["type"] == "crashed"):
            error = {name: text for name, text in (told.get("error") or {}).items() if name != "traceback"}
            self.wrong(run, f"is {told['status']}: {error}")
        items = {
            (step["id"], item["item"]): item
            for step in steps.values()
            if step["kind"] in ("map", "loop")
            for item in pages(self.one, f"/runs/{run}/steps/{step['id']}/items")
        }
        self.events(run, told, steps, items)
        self.records(run, told["status"])

    # Results.

    def output(self, run: str, step: str, item: int | None = None) -> Any:
        query = "" if item is None else f"?item={item}"
        found = self.one.get(f"/runs/{run}/steps/{step}/output{query}")
        return found.get("output")

    def of_attempt(self, run: str, output: Any, where: str) -> str:
        """The token of an output, when it is that of an attempt which really returned it."""
        token: str = output["token"]
        made = self.made.get((run, output["key"], output["attempt"]))
        if made != token:
            self.wrong(run, f"{where} has {output}, and that attempt made {made!r}")
        return token

    def result(self, run: str, workflow: str, result: Any, steps: dict[str, Any]) -> None:
        if workflow in ("single", "fragile", "shaky", "remembers", "starts"):
            self.of_attempt(run, result, "the result")
            [main] = steps.values()
            if main["attemptsBegun"] != result["attempt"]:
                self.wrong(run, f"the result is of attempt {result['attempt']} of {main['attemptsBegun']}")
            if workflow == "shaky" and result["attempt"] < 2:
                self.wrong(run, "the first attempt can't have succeeded")
            if workflow == "remembers" and result["first"] not in {
                attempt["id"] for attempt in main["attempts"]
            }:
                self.wrong(run, f"kept {result['first']}, which is none of its attempts")
            if workflow == "starts":
                self.campaign.known_children.add(result["child"])
                child = self.one.get(f"/runs/{result['child']}")
                if (child["status"], child.get("result")) != ("succeeded", result["value"]):
                    self.wrong(run, f"was told {result['value']} of its child, which is {child}")
            return
        outputs = {
            name: self.output(run, name)
            for name, step in steps.items()
            if step["kind"] == "python" and step["status"] == "succeeded"
        }
        tokens = {name: self.of_attempt(run, output, f"step {name}") for name, output in outputs.items()}

        def given(step: str, value: Any) -> None:
            if outputs[step]["given"] != value:
                self.wrong(run, f"step {step} was given {outputs[step]['given']!r} instead of {value!r}")

        expected: Any
        if workflow == "chain":
            expected = {name: tokens[name] for name in "abc"}
            given("b", tokens["a"])
            given("c", tokens["b"])
            if "tidy" not in tokens:
                self.wrong(run, "was not tidied")
        elif workflow == "fan":
            each = []
            for item in range(5):
                output = self.output(run, "each", item)
                each.append(self.of_attempt(run, output, f"item {item}"))
                if output["given"] != item:
                    self.wrong(run, f"item {item} was given {output['given']}")
            expected = {"first": tokens["first"], "each": each}
        elif workflow == "family":
            [child] = steps["child"]["children"]
            self.campaign.known_children.add(child)
            came = self.one.get(f"/runs/{child}")["result"]
            given("after", came["c"])
            expected = {"before": tokens["before"], "child": came, "after": tokens["after"]}
        elif workflow == "forks":
            way = "low" if tokens["first"] < "8" else "high"
            given(way, tokens["first"])
            given("last", way)
            if set(tokens) != {"first", way, "last"}:
                self.wrong(run, f"has gone {sorted(tokens)}")
            expected = {"first": tokens["first"], "way": way, "last": tokens["last"]}
        elif workflow == "pauses":
            given("after", tokens["before"])
            expected = tokens
        elif workflow == "asks":
            given("after", True)
            expected = tokens
        else:
            given("once", tokens["before"])
            given("after", tokens["once"])
            expected = tokens
        if result != expected:
            self.wrong(run, f"the result is {result} instead of {expected}")

    # Events.

    def events(self, run: str, told: Any, steps: dict[str, Any], items: dict[Any, Any]) -> None:
        """The history is whole: each attempt begins and ends once, in order, and nothing follows the end."""
        events = everything(self.one, run)
        ids = [event["id"] for event in events]
        if len(set(ids)) != len(ids):
            self.wrong(run, "an event was told twice")
        history = [event for event in events if event["type"] not in ("log", "checkpoint")]
        ends = [
            place
            for place, event in enumerate(history)
            if event["type"] == "run.status" and event["status"] in TERMINAL
        ]
        if ends != [len(history) - 1] or history[-1]["status"] != told["status"]:
            self.wrong(run, f"its events end with {history[-2:]}, ends are at {ends} of {len(history)}")
        epochs = [event["epoch"] for event in history if event["type"] == "run.taken_over"]
        if epochs != sorted(set(epochs)):
            self.wrong(run, f"was taken over in epochs {epochs}")
        running: dict[tuple[str, Any], int] = {}
        open_ones: set[tuple[str, Any]] = set()
        over: set[tuple[str, Any]] = set()
        for event in history:
            if event["type"] not in ("step.status", "step.retry_planned"):
                continue
            unit = (event["step"], event.get("item"))
            if unit in over:
                self.wrong(run, f"{unit} goes on after its end: {event}")
            if event["type"] == "step.retry_planned":
                if unit not in open_ones or event["attempt"] != running.get(unit):
                    self.wrong(run, f"{unit} repeats what did not run: {event}")
                open_ones.discard(unit)
            elif event["status"] == "running" and self.is_tried(unit, steps):
                if event["attempt"] != running.get(unit, 0) + 1 or unit in open_ones:
                    self.wrong(run, f"{unit} begins attempt {event['attempt']} after {running.get(unit, 0)}")
                running[unit] = event["attempt"]
                open_ones.add(unit)
            elif event["status"] in TERMINAL:
                over.add(unit)
                open_ones.discard(unit)
            else:
                open_ones.discard(unit)
        if told["status"] == "succeeded" and open_ones:
            self.wrong(run, f"{open_ones} have begun and not ended")
        for name, step in steps.items():
            if step["kind"] != "python":
                continue
            if running.get((name, None), 0) != step["attemptsBegun"]:
                self.wrong(
                    run,
                    f"step {name} has begun {step['attemptsBegun']} attempts, and {running.get((name, None), 0)} are told",
                )
            self.tried(run, name, step, events)
        for (name, number), item in items.items():
            self.tried(run, name, item, events, number)
        self.again(run, events)

    def is_tried(self, unit: tuple[str, Any], steps: dict[str, Any]) -> bool:
        """Whether it has attempts of its own."""
        step = steps[unit[0]]
        return step["kind"] == "python" or (step["kind"] == "map" and unit[1] is not None)

    def tried(self, run: str, name: str, step: Any, events: Iterable[Any], item: int | None = None) -> None:
        """The attempts that are listed, and the last one's words."""
        attempts = step["attempts"]
        numbers = [attempt["number"] for attempt in attempts]
        if len(set(numbers)) != len(numbers):
            self.wrong(run, f"step {name} lists attempts {numbers}")
        good = [attempt for attempt in attempts if attempt["outcome"] == "succeeded"]
        if len(good) != (step["status"] == "succeeded"):
            self.wrong(run, f"step {name} is {step['status']} with {len(good)} attempts that succeeded")
        for attempt in good:
            said = [
                event["message"]
                for event in events
                if event["type"] == "log"
                and event["step"] == name
                and event.get("item") == item
                and event["attempt"] == attempt["number"]
            ]
            begun = [line for line in said if line == f"begun {attempt['id']}"]
            made = [line for line in said if re.fullmatch("made [0-9a-f]{16}", line)]
            if (len(begun), len(made)) != (1, 1):
                self.wrong(run, f"step {name}, item {item}, attempt {attempt['number']} has said {said}")

    def again(self, run: str, events: list[Any]) -> None:
        """Whoever goes on from the middle hears the rest, once."""
        chance = random.Random(f"{self.campaign.plan.seed}{run}")
        place = chance.randrange(len(events))
        rest = everything(self.one, run, events[place]["id"])
        if streams(events[: place + 1] + rest) != streams(events):
            self.wrong(run, f"whoever goes on from event {place} of {len(events)} doesn't hear the rest")

    # Records.

    def records(self, run: str, status: str) -> None:
        """One start and one end. Rows of the list may come a moment after the answer."""

        def listed() -> bool:
            events = Counter(record["event"] for record in pages(self.one, f"/audit?resource={run}"))
            return (events["run.started"], events["run.finished"]) == (1, 1)

        try:
            until(listed, "its records are listed", 20)
        except AssertionError:
            events = Counter(record["event"] for record in pages(self.one, f"/audit?resource={run}"))
            self.wrong(run, f"the audit log lists {dict(events)}")
            return
        # A decision whose caller was told of an error may be recorded all the same; one that was refused is not.
        words = Counter(record["event"] for record in pages(self.one, f"/audit?resource={run}"))[
            "step.approved"
        ]
        most = 1 + self.campaign.blows.total() if self.runs[run]["workflow"] == "asks" else 0
        if words > most:
            self.wrong(run, f"{words} decisions are recorded")

    # All of them.

    def children(self) -> None:
        """Runs that steps have started."""
        for child in sorted(self.campaign.known_children):
            workflow = self.one.get(f"/runs/{child}")["workflow"]
            try:
                self.whole(child, workflow)
            except Exception as error:
                self.wrong(child, f"{type(error).__name__}: {error}")

    def lists(self) -> None:
        """Each run is listed once, as it is; and nothing else is."""
        listed = all_runs(self.one)
        ids = [run["runId"] for run in listed]
        if len(set(ids)) != len(ids):
            self.campaign.wrong.append("a run is listed twice")
        known = set(self.campaign.accepted.values()) | self.campaign.known_children
        if set(ids) - known:
            strangers = [run for run in listed if run["runId"] not in known]
            self.campaign.wrong.append(f"runs that nobody asked for: {strangers[:5]}")
        if known - set(ids):
            self.campaign.wrong.append(f"runs that are not listed: {sorted(known - set(ids))[:5]}")
        for run in listed:
            told = self.runs.get(run["runId"])
            if told is not None and any(
                run[name] != told[name] for name in ("status", "workflow", "finishedAt")
            ):
                self.wrong(
                    run["runId"], f"is listed as {run}, and is {told['status']} since {told['finishedAt']}"
                )
        for name in ("status", "workflow"):
            for value in sorted({run[name] for run in listed}):
                found = {run["runId"] for run in pages(self.one, f"/runs?{name}={value}")}
                if found != {run["runId"] for run in listed if run[name] == value}:
                    self.campaign.wrong.append(f"the list of {name} {value} differs from the whole list")

    def keys(self) -> None:
        """The same request again gives the same run; the same key for something else gives none."""

        def ask(item: tuple[int, str]) -> None:
            number, run = item
            wish = self.wishes[number]
            one = self.campaign.handlers[number % len(self.campaign.handlers)]
            answer = one.execute(
                wish.workflow, self.campaign.arguments(wish), Idempotency_Key=wish.key, Prefer="wait=20"
            )
            if answer.status != 200 or answer.json["runId"] != run:
                self.wrong(run, f"a repeat with its key is answered by {answer}")
            elif answer.json["status"] != self.runs[run]["status"]:
                self.wrong(run, f"a repeat with its key says {answer.json['status']}")

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(ask, list(self.campaign.accepted.items())))

    def marks_alone(self) -> None:
        """No attempt is made twice, and what must not be made again is not."""
        known = set(self.campaign.accepted.values()) | self.campaign.known_children
        for (run, step, key), attempts in self.begun.items():
            if run not in known:
                self.campaign.wrong.append(f"an attempt of {run}, which nobody was told of")
                continue
            workflow = self.runs[run]["workflow"] if run in self.runs else "?"
            if len(set(attempts)) != len(attempts):
                self.wrong(run, f"{key} has made attempts {attempts}")
            if (workflow, step) in ONCE and len(attempts) > 1:
                self.wrong(run, f"{key} must not be made again, and was: {attempts}")


def developing(folder: Path, more: dict[str, str] | None = None) -> Weft:
    """An instance that receives messages, on a port that it keeps. Its steps may write to the test's files."""
    environment = {
        "WEFT_ISOLATION_OFF": OWN_FILES,
        "WEFT_MAX_CONCURRENT_RUNS": "40",
        "WEFT_WORKER_SLOTS": "8",
        **(more or {}),
    }
    one = Weft(folder, workspace=WORKSPACE, environment=environment, port=free_port())
    one.url = f"http://127.0.0.1:{one.port}"
    return one
