"""Workflows that misbehave, each in one way, and a few that behave, to see what goes on beside them."""

import ctypes
import os
import signal
import sys
import time
from typing import Any, Literal

from weft import Context, Email, FatalError, Retry, RetryableError, param, workflow


def called(name: str) -> None:
    """Gives the process, and all that it forks, a name by which a test finds it from outside."""
    if ctypes.CDLL(None).prctl(15, name.encode(), 0, 0, 0) != 0:
        raise RuntimeError("the process can't be renamed")


@workflow(description="Answers with what it was given.")
def echo(ctx: Context, value: Any = None) -> Any:
    """The organization is in the answer, so that a mix-up would show."""
    return {"value": value, "organization": ctx.organization.id}


@workflow(description="One parameter of each kind.")
@param("count", min=1, max=10)
@param("name", min_length=2, max_length=20, pattern="[a-z]+")
@param("items", max_length=3)
def strict(
    ctx: Context,
    name: str,
    count: int = 1,
    ratio: float = 0.5,
    flag: bool = False,
    mail: Email | None = None,
    size: Literal["small", "large"] = "small",
    items: list[Any] | None = None,
    options: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """What arrives is what was checked."""
    return {"name": name, "count": count, "ratio": ratio, "flag": flag, "size": size}


@workflow
def nothing(ctx: Context) -> None:
    """Takes no arguments and returns nothing."""


@workflow
def raises(ctx: Context) -> None:
    """An error with a cause and a text."""
    print("before the error")
    try:
        int("twelve")
    except ValueError as error:
        raise FatalError("the invoice is not a number", data={"field": "invoice"}) from error


@workflow
def raises_much(ctx: Context) -> None:
    """An error whose text is far too long."""
    raise RuntimeError("x" * 5_000_000)


@workflow(retry=Retry(attempts=3, delay_seconds=0.1))
def second_time(ctx: Context) -> int:
    """Works at the second attempt."""
    if ctx.run.attempt < 2:
        raise RetryableError("not yet")
    return int(ctx.run.attempt)


@workflow
def leaves(ctx: Context) -> None:
    """`sys.exit` is no way to end a workflow."""
    sys.exit(3)


@workflow
def prints_much(ctx: Context, megabytes: int = 100) -> str:
    """More output than anybody reads."""
    line = "x" * (1 << 16)
    for _ in range(16 * megabytes):
        print(line)
    return "printed"


@workflow
def prints_one_line(ctx: Context, megabytes: int = 8) -> str:
    """A line without an end."""
    for _ in range(16 * megabytes):
        sys.stdout.write("y" * (1 << 16))
    return "printed"


@workflow
def returns(ctx: Context, what: str) -> Any:
    """Results that are none."""
    if what == "set":
        return {1, 2}
    if what == "nan":
        return {"ratio": float("nan")}
    if what == "key":
        return {1: "one"}
    if what == "surrogate":
        return ["\ud800"]
    if what == "object":
        return object()
    if what == "bytes":
        return b"raw"
    if what == "huge":
        return "x" * 50_000_000
    if what == "huge_number":
        return 10**30
    value: Any = 1
    for _ in range(500):
        value = [value]
    return value


@workflow(timeout_seconds=1)
def overstays(ctx: Context) -> None:
    """Never ends, and says so."""
    print("hanging", flush=True)
    while True:
        time.sleep(60)


@workflow(timeout_seconds=1)
def overstays_deaf(ctx: Context) -> None:
    """Never ends, in spite of every signal that can be ignored."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(60)


@workflow
def hangs(ctx: Context, note: str = "") -> None:
    """Until somebody ends it."""
    called("weft-hangs")
    print(f"hanging {note}", flush=True)
    while True:
        time.sleep(60)


@workflow
def hangs_with_children(ctx: Context) -> None:
    """The same, with a child in the group and one that has left it."""
    called("weft-children")
    for session in (False, True):
        if os.fork() == 0:
            if session:
                os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                time.sleep(60)
    print("hanging with children", flush=True)
    while True:
        time.sleep(60)


@workflow
def kills_itself(ctx: Context, number: int = signal.SIGKILL) -> None:
    """A death by signal, where it is not the first process of a table of its own: that one such a signal passes by."""
    print("about to die", flush=True)
    os.kill(os.getpid(), number)


@workflow
def faults(ctx: Context, how: Literal["read", "abort"] = "read") -> None:
    """A death by a fault, which nobody survives."""
    print("about to die", flush=True)
    if how == "abort":
        os.abort()
    ctypes.string_at(0)


@workflow
def exits(ctx: Context, code: int = 42) -> None:
    """A death by `os._exit`."""
    os._exit(code)


@workflow
def kills_its_parent(ctx: Context) -> str:
    """Ends the process that it was forked from, where the system lets it."""
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(5)
    return "still here"


@workflow
def forks(ctx: Context, count: int = 3) -> int:
    """Leaves processes behind, in its own session and in others, and returns."""
    called("weft-forks")
    for number in range(count):
        if os.fork() == 0:
            if number % 2:
                os.setsid()
            while True:
                time.sleep(60)
    return count


@workflow
def forks_and_both_return(ctx: Context) -> str:
    """Parent and child both return a result."""
    return "child" if os.fork() == 0 else "parent"


@workflow
def eats_memory(ctx: Context) -> None:
    """As much as there is."""
    held = []
    while True:
        held.append(bytearray(64 << 20))


@workflow
def fills_disk(ctx: Context) -> None:
    """A file above the limit."""
    with open("big", "wb") as file:
        while True:
            file.write(b"x" * (1 << 20))


@workflow
def disturbs(ctx: Context) -> None:
    """Writes rubbish to every descriptor that it has."""
    for descriptor in range(3, 64):
        try:
            os.write(descriptor, b"\xff\xff\xff\xffrubbish")
        except OSError:
            continue
    time.sleep(5)


@workflow
def asks_too_much(ctx: Context) -> Any:
    """What it has not declared."""
    return ctx.secrets.get("anything")


@workflow
def counts(ctx: Context, path: str, seconds: float = 0.0) -> dict[str, Any]:
    """Leaves a line for each attempt, so that a test sees how often it ran; the first one takes its time."""
    with open(path, "a") as file:
        file.write(f"{ctx.run.id} {ctx.run.attempt} {ctx.run.idempotency_key}\n")
    print("counted", flush=True)
    time.sleep(seconds if ctx.run.attempt == 1 else 0)
    return {"run": ctx.run.id, "attempt": ctx.run.attempt}


@workflow(on_crash="fail")
def counts_once(ctx: Context, path: str, seconds: float = 0.0) -> dict[str, Any]:
    """The same, and never made again after a crash."""
    with open(path, "a") as file:
        file.write(f"{ctx.run.id} {ctx.run.attempt} {ctx.run.idempotency_key}\n")
    print("counted", flush=True)
    time.sleep(seconds if ctx.run.attempt == 1 else 0)
    return {"run": ctx.run.id, "attempt": ctx.run.attempt}


@workflow
def talks(ctx: Context, lines: int = 5) -> int:
    """Output of every kind."""
    for number in range(lines):
        print(f"line {number}")
    print("to stderr", file=sys.stderr)
    ctx.log("structured", answer=42)
    ctx.log.warning("a warning")
    ctx.checkpoint("halfway", {"done": lines})
    ctx.variables.set("lines", lines)
    return lines


@workflow
def surroundings(ctx: Context) -> dict[str, Any]:
    """All that a step can see of where it is."""
    return {"environ": dict(os.environ), "cwd": os.getcwd(), "argv": sys.argv}


@workflow
def digs(ctx: Context, depth: int = 8000) -> int:
    """A folder tree deeper than a stack, and than any path may be long."""
    for _ in range(depth):
        os.mkdir("d")
        os.chdir("d")
    return depth


@workflow
def logs_much(ctx: Context, lines: int = 1500, size: int = 8000) -> int:
    """Each line and their number are allowed; together they are more than storage takes at once."""
    for number in range(lines):
        ctx.log(f"{number} " + "x" * size)
    return lines


@workflow
def narrates(ctx: Context, lines: int = 10, seconds: float = 1.0) -> int:
    """Says a line now and then; the first attempt takes its time."""
    for number in range(lines):
        print(f"attempt {ctx.run.attempt}, line {number}", flush=True)
        time.sleep(seconds / lines if ctx.run.attempt == 1 else 0)
    return ctx.run.attempt
