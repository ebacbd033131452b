"""Context, exceptions and JSON: what is sent, what is refused."""

from __future__ import annotations

import datetime
import enum
from typing import Any

import pytest

import weft
from weft import Context, NotFound, TooLarge, WeftError
from weft._errors import refusal
from weft._json import MAX_DEPTH, check, encode


class Recorder:
    def __init__(self, values: dict[str, Any] | None = None) -> None:
        self.frames: list[dict[str, Any]] = []
        self.calls: list[dict[str, Any]] = []
        self.values = values or {}

    def emit(self, frame: dict[str, Any]) -> None:
        self.frames.append(frame)

    def call(self, name: str, args: dict[str, Any]) -> Any:
        self.calls.append({"name": name, "args": args})
        return self.values.get(args["key"])


DATA = {
    "organization": {"id": "contoso", "name": "Contoso Ltd"},
    "caller": {"kind": "user", "id": "u1", "name": "Ann", "claimed_user": None},
    "run": {
        "id": "run_1",
        "attempt": 2,
        "deadline": "2026-11-21T00:05:00Z",
        "started_at": "2026-11-21T00:00:00.5Z",
    },
    "config": {"greeting": "Hello", "empty": None},
}


def test_says_whose_run_it_is() -> None:
    ctx = Context(DATA, Recorder())
    assert (ctx.organization.id, ctx.organization.name) == ("contoso", "Contoso Ltd")
    assert (ctx.caller.kind, ctx.caller.name, ctx.caller.claimed_user) == ("user", "Ann", None)
    assert (ctx.run.id, ctx.run.attempt, ctx.run.step, ctx.run.test) == ("run_1", 2, "main", False)
    assert ctx.run.deadline == datetime.datetime(2026, 11, 21, 0, 5, tzinfo=datetime.UTC)
    assert ctx.run.started_at is not None
    assert "Contoso" in repr(ctx)


def test_seconds_left() -> None:
    assert Context({"run": {"deadline": "2000-01-01T00:00:00Z"}}, Recorder()).run.seconds_left() == 0
    assert Context({}, Recorder()).run.seconds_left() == float("inf")
    assert Context({}, Recorder()).run.deadline is None


def test_config_is_read_here_first_and_asked_for_once() -> None:
    recorder = Recorder({"far": 7})
    config = Context(DATA, recorder).config
    assert config["greeting"] == "Hello"
    assert recorder.calls == []
    assert [config.get("far"), config["far"], config.get("none", 3), config.get("none")] == [7, 7, 3, None]
    assert [call["args"]["key"] for call in recorder.calls] == ["far", "none"]
    assert ("greeting" in config, "none" in config, "empty" in config, 3 in config) == (
        True,
        False,
        False,
        False,
    )
    with pytest.raises(NotFound, match="no `none`"):
        config["none"]
    with pytest.raises(LookupError):
        config["empty"]


def test_log_levels_and_fields() -> None:
    recorder = Recorder()
    log = Context({}, recorder).log
    log("a", count=3)
    log.debug("b")
    log.info("c")
    log.warning("d", level="mine", message="too")
    log.error(ValueError("e"))
    assert [(frame["level"], frame["message"]) for frame in recorder.frames] == [
        ("info", "a"),
        ("debug", "b"),
        ("info", "c"),
        ("warning", "d"),
        ("error", "e"),
    ]
    assert recorder.frames[0]["fields"] == {"count": 3}
    assert "fields" not in recorder.frames[1]
    assert recorder.frames[3]["fields"] == {"level": "mine", "message": "too"}


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_logging_never_fails_a_step() -> None:
    recorder = Recorder()
    log = Context({}, recorder).log
    log("x" * 9000)
    log("\ud800", when=datetime.date(2026, 1, 2), nan=float("nan"), odd=Unshowable())
    log("big", data="x" * 20000)
    long, odd, big = recorder.frames
    assert long["message"].endswith("[cut, 9000 bytes]")
    assert len(long["message"].encode()) < 8300
    assert odd["message"] == "?"
    assert odd["fields"]["when"] == "datetime.date(2026, 1, 2)"
    assert odd["fields"]["nan"] == "nan"
    assert list(big["fields"]) == ["cut"]
    for frame in recorder.frames:
        encode(frame)


def test_checkpoints() -> None:
    recorder = Recorder()
    ctx = Context({}, recorder)
    ctx.checkpoint("half", {"done": 3})
    ctx.checkpoint("whole")
    assert recorder.frames == [
        {"t": "checkpoint", "name": "half", "data": {"done": 3}},
        {"t": "checkpoint", "name": "whole", "data": None},
    ]
    with pytest.raises(TooLarge, match="32768"):
        ctx.checkpoint("big", "x" * 40000)
    with pytest.raises(TypeError, match="data.when is a date"):
        ctx.checkpoint("odd", {"when": datetime.date(2026, 1, 2)})


def test_variables_are_bounded_in_all() -> None:
    ctx = Context({}, Recorder())
    ctx.variables.set("a", "x" * 20000)
    ctx.variables.set("a", "x" * 30000)
    with pytest.raises(TooLarge, match="32768"):
        ctx.variables.set("b", "x" * 20000)
    with pytest.raises(TypeError, match="variable c is a set"):
        ctx.variables.set("c", {1})
    with pytest.raises(TypeError, match="name"):
        ctx.variables.set("", 1)
    assert ctx.variables.get("b", 5) == 5
    assert list(ctx.variables.to_json()) == ["a"]


def test_the_tree_of_exceptions() -> None:
    kinds = {name: getattr(weft, name) for name in weft.__all__}
    errors = {
        name: kind for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, Exception)
    }
    assert all(issubclass(kind, WeftError) for kind in errors.values())
    assert {name: kind.retriable for name, kind in errors.items()} == {
        "Cancelled": False,
        "DeclarationError": False,
        "Denied": False,
        "FatalError": False,
        "HttpError": None,
        "InvalidInput": False,
        "NotAvailable": False,
        "NotFound": False,
        "QuotaExceeded": False,
        "RetryableError": True,
        "TooLarge": False,
        "Unavailable": True,
        "WeftError": None,
    }
    assert weft.FatalError("x", data={"a": 1}).data == {"a": 1}
    assert weft.FatalError().data is None
    assert type(refusal("denied", "x")) is weft.Denied
    quota = refusal("quota_exceeded", "x")
    assert type(quota) is weft.QuotaExceeded and isinstance(quota, weft.TooLarge)
    assert type(refusal("new", "x")) is WeftError


class Color(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        1,
        -1.5,
        "ä",
        [],
        {},
        (1, "x"),
        {"a": [{"b": None}]},
        Color.RED,
        Level.LOW,
        2**64 - 1,
        nested(MAX_DEPTH),
    ],
)
def test_what_is_json(value: Any) -> None:
    assert check(value, "result") <= len(encode(value))


class Cycle(list[Any]):
    pass


CYCLE = Cycle()
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (
            {"items": [1, {"when": datetime.datetime(2026, 1, 2)}]},
            r"result\.items\[1\]\.when is a datetime; .*isoformat",
        ),
        ({1: 2}, "result has the key 1 of type int"),
        ({"a": {1, 2}}, r"result\.a is a set; .*list"),
        (b"x", "result is a bytes; decode"),
        ([float("nan")], r"result\[0\] is NaN"),
        (float("-inf"), "result is -Infinity"),
        ("\ud800", "surrogate"),
        ({"\udc00": True}, "surrogate"),
        (2**64, "64 bits"),
        (-(2**63) - 1, "64 bits"),
        (nested(MAX_DEPTH + 1), "deeper than 100"),
        (CYCLE, "contains itself"),
        (object(), "is an object"),
    ],
    ids=range(13),
)
def test_what_is_not_json(value: Any, text: str) -> None:
    with pytest.raises((TypeError, ValueError), match=text):
        check(value, "result")
