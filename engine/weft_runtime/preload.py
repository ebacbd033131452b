"""Imports the operator's modules into the zygote, so that every worker has them for nothing.

The zygote must stay single-threaded: a fork copies whatever lock another thread holds at that moment, locked
for ever. Libraries for numbers start threads when they are imported, so they are told not to; and since
threads can't be taken back, each module from outside the standard library is tried in a child first. One that
leaves threads, ends the process or hangs is not imported here.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable
from importlib import import_module

SINGLE_THREADED = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
    "VECLIB_MAXIMUM_THREADS": "1",
}
"""In force while modules are imported; workers don't see them."""

TRIAL_SECONDS = 20.0


def run(names: Iterable[object], paths: Iterable[object], complain: Callable[[str], None]) -> None:
    """Import what can be imported safely; `complain` hears of the rest, which workers import themselves."""
    wanted = [str(name) for name in names]
    before = list(sys.path)
    sys.path.extend(str(path) for path in paths)
    os.environ.update(SINGLE_THREADED)
    try:
        foreign = [name for name in wanted if name.partition(".")[0] not in sys.stdlib_module_names]
        refused = _try_out(foreign) if foreign else {}
        for name in wanted:
            reason = refused.get(name)
            if reason is None:
                try:
                    import_module(name)
                except Exception as error:
                    reason = f"{type(error).__name__}: {error}"
            if reason is not None:
                complain(f"preload of `{name}` failed, workers will import it themselves: {reason}")
    finally:
        for name in SINGLE_THREADED:
            os.environ.pop(name, None)
        sys.path[:] = before


def move(paths: Iterable[object], inside: Callable[[str], str]) -> None:
    """Tell what was imported where workers see `paths`: a package finds its submodules and data there."""
    places = [(str(path), inside(str(path))) for path in paths]
    for before, after in places:
        if before == after:
            continue
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if isinstance(file, str) and file.startswith(before + "/"):
                module.__file__ = after + file[len(before) :]
            search = getattr(module, "__path__", None)
            if isinstance(search, list):
                search[:] = [
                    after + entry[len(before) :] if entry.startswith(before + "/") else entry
                    for entry in search
                ]


def threads() -> int:
    """How many threads this process has; 1 where the system doesn't say."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 1


def _try_out(names: list[str]) -> dict[str, str]:
    """Why modules must not be imported here, by name. Each refusal costs another child."""
    refused: dict[str, str] = {}
    while True:
        left = [name for name in names if name not in refused]
        found = _trial(left) if left else None
        if found is None:
            return refused
        refused[found[0]] = found[1]


def _trial(names: list[str]) -> tuple[str, str] | None:
    """Import them all in a child; the first that does harm, and which. Ordinary errors are for the caller."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _import_all(names, writing)
    os.close(writing)
    # One byte before each module and one after it.
    seen = b""
    end = time.monotonic() + TRIAL_SECONDS
    try:
        while True:
            left = end - time.monotonic()
            if left <= 0 or not select.select([reading], [], [], left)[0]:
                return names[len(seen) // 2 % len(names)], f"it took more than {TRIAL_SECONDS:g} s"
            data = os.read(reading, 4096)
            if not data:
                break
            seen += data
    finally:
        os.close(reading)
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        _, status = os.waitpid(pid, 0)
    if seen[-1:] == b"T":
        return names[(len(seen) - 1) // 2], (
            "it leaves threads running, and a process with threads can't be forked safely"
        )
    if len(seen) == 2 * len(names):
        return None
    how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"
    return names[min(len(seen) // 2, len(names) - 1)], f"importing it ended the process ({how})"


def _import_all(names: list[str], report: int) -> None:
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (1, 2):
            os.dup2(null, fd)
        for name in names:
            os.write(report, b"<")
            try:
                import_module(name)
            except Exception:
                # The zygote meets it again, and says so.
                pass
            if threads() > 1:
                os.write(report, b"T")
                break
            os.write(report, b">")
    finally:
        os._exit(0)
