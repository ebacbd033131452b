"""Workflows that misbehave, each in one way."""

from __future__ import annotations

import json
import os
import pathlib
import sys
from typing import Any

from weft import Context, workflow


class Trouble(Exception):
    pass


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


def helper(divisor: int) -> None:
    try:
        1 / divisor
    except ZeroDivisionError as error:
        raise Trouble("deep down") from error


@workflow
def raises() -> None:
    helper(0)


@workflow
def raises_in_library() -> None:
    json.loads("{")


@workflow
def names_places() -> None:
    raise Trouble(
        f"no {__file__}, {os.__file__}: file://{pathlib.Path(__file__).parent}; /x/site-packages/y.py"
    )


@workflow
def raises_in_sdk(ctx: Context) -> None:
    ctx.config["nothing"]


@workflow
def priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


@workflow
def leaves() -> None:
    sys.exit(3)


@workflow
def interrupts() -> None:
    raise KeyboardInterrupt


@workflow
def recurses() -> None:
    def there(depth: int) -> int:
        return back(depth + 1) + len("some text that makes the traceback longer" * 2)

    def back(depth: int) -> int:
        return there(depth + 1) + len("some text that makes the traceback longer" * 2)

    there(0)


@workflow
def groups() -> None:
    raise ExceptionGroup("two things", [ValueError("a"), Trouble("b")])


@workflow
def unprintable() -> None:
    raise Unprintable


@workflow
def eats_memory() -> None:
    held = []
    while True:
        held.append(bytearray(64 * 1024 * 1024))


@workflow
def returns(what: str) -> Any:
    import datetime

    if what == "set":
        return {1, 2}
    if what == "datetime":
        return {"items": [1, 2, 3, {"when": datetime.datetime(2026, 1, 2)}]}
    if what == "nan":
        return {"ratio": float("nan")}
    if what == "key":
        return {1: "one"}
    if what == "surrogate":
        return ["\ud800"]
    if what == "huge":
        return {"text": "x" * 50_000_000}
    if what == "huge_list":
        return [str(number) for number in range(1_000_000)]
    if what == "escapes":
        return "\x00" * 1_000_000
    if what == "exact":
        return "x" * 998
    value: Any = 1
    for _ in range(500):
        value = [value]
    return value


@workflow
def exits_at_once() -> None:
    os._exit(42)


@workflow
def kills_itself(number: int) -> None:
    os.kill(os.getpid(), number)


@workflow
def spins() -> None:
    while True:
        pass


@workflow
def writes_file() -> None:
    with open("big", "wb") as file:
        file.write(b"x" * 10000)


@workflow
def opens_many() -> None:
    held = [open(os.devnull) for _ in range(100)]
    assert held


@workflow
def prints() -> None:
    print("one")
    print("two ä\udc80")
    print("warning", file=sys.stderr)
    print("no newline", end="")


@workflow
def floods() -> None:
    line = "x" * 9999
    for _ in range(10_000):
        print(line)


@workflow
def hangs() -> None:
    import signal

    print("hanging")
    while True:
        signal.pause()


@workflow
def reads_input() -> list[str]:
    found = [sys.stdin.read()]
    try:
        input()
    except EOFError:
        found.append("EOFError")
    return found


@workflow
def environment() -> dict[str, Any]:
    import ctypes
    import gc
    import resource
    import signal

    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    listing = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))
    handlers = [signal.getsignal(number) for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)]
    return {
        "environ": dict(os.environ),
        "cwd": os.getcwd(),
        "mode": os.stat(".").st_mode & 0o777,
        # The last one is the listing's own.
        "fds": listing[:-1],
        "pid": os.getpid(),
        "sid": os.getsid(0),
        "name": status["Name"],
        "core": list(resource.getrlimit(resource.RLIMIT_CORE)),
        "signals": [getattr(handler, "name", None) or handler.__name__ for handler in handlers],
        "no_new_privs": status.get("NoNewPrivs"),
        "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),
        "gc": gc.isenabled(),
    }


@workflow
def randoms() -> list[float]:
    import random

    return [random.random() for _ in range(3)]


@workflow
def forks_and_returns(ctx: Context) -> str:
    pid = os.fork()
    if pid == 0:
        try:
            ctx.log("from the child")
        except Exception:
            pass
        return "child"
    os.waitpid(pid, 0)
    ctx.log("from the parent")
    return "parent"


@workflow
def threads(ctx: Context) -> list[Any]:
    import threading

    answers: list[Any] = []

    def ask(number: int) -> None:
        for turn in range(5):
            ctx.log("asking", number=number)
            answers.append(ctx.config.get(f"key-{number}-{turn}"))

    started = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return answers


@workflow
def leaves_a_thread() -> str:
    import threading

    threading.Thread(target=threading.Event().wait).start()
    return "done"


@workflow
def asks(ctx: Context) -> list[str]:
    from weft import WeftError

    found = []
    for code in ("denied", "not_found", "not_available", "invalid", "too_large", "unavailable"):
        try:
            ctx.config.get(code)
        except WeftError as error:
            assert str(error) == f"it is {code}"
            found.append(type(error).__name__)
    return found


@workflow
def leaves_processes(ctx: Context, how: str, count: int = 1) -> list[int]:
    """Start processes that outlive it, in its own group (`group`), another session (`daemon`), or a chain."""
    import signal

    reading, writing = os.pipe()
    for _ in range(count):
        if os.fork() == 0:
            if how in ("daemon", "chain"):
                os.setsid()
            if how == "chain":
                for _ in range(3):
                    if os.fork() == 0:
                        os.setsid()
                    else:
                        os._exit(0)
            elif how == "daemon" and os.fork() != 0:
                os._exit(0)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.write(writing, f"{os.getpid()}\n".encode())
            while True:
                signal.pause()
    os.close(writing)
    found = b""
    while found.count(b"\n") < count:
        found += os.read(reading, 4096)
    pids = [int(pid) for pid in found.split()]
    print(*pids)
    print("started")
    return pids


@workflow
def leaves_processes_and_hangs(ctx: Context, how: str, count: int = 1) -> None:
    import signal

    leaves_processes(ctx, how, count)
    while True:
        signal.pause()
