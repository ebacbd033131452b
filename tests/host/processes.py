"""Finding and ending processes: only our own, by id, also those whose parent has died.

The test process becomes the reaper of its orphaned descendants, so that everything that was ever started from
here stays findable below it.
"""

import contextlib
import ctypes
import os
import signal
from dataclasses import dataclass
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Process:
    """A process; the start time tells it from a later one with the same id."""

    pid: int
    started: int
    parent: int
    name: str
    state: str

    @property
    def alive(self) -> bool:
        """Whether it still runs (a zombie does not)."""
        now = _read(self.pid)
        return now is not None and now.started == self.started and now.state not in "ZX"


def adopt_orphans() -> None:
    """Make this process the parent of orphaned descendants."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _read(pid: int) -> Process | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return Process(pid, int(fields[19]), int(fields[1]), head.partition("(")[2], fields[0])


def descendants(pid: int) -> list[Process]:
    """Everything below ``pid``, nearest first, zombies included."""
    everything = [p for name in os.listdir("/proc") if name.isdigit() and (p := _read(int(name)))]
    below: list[Process] = []
    parents = {pid}
    while True:
        more = [p for p in everything if p.parent in parents and p not in below]
        if not more:
            return below
        below += more
        parents = {p.pid for p in more}


def sweep(keep: set[int] = frozenset()) -> list[Process]:
    """Kill what is left below this process, and reap it; what was found still running. ``keep`` and what is
    below it stays."""
    keep = keep | {p.pid for kept in keep for p in descendants(kept)}
    left = [p for p in descendants(os.getpid()) if p.pid not in keep and p.state not in "ZX"]
    for process in left:
        if process.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
    for process in descendants(os.getpid()):
        if process.parent == os.getpid() and process.pid not in keep:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, 0 if process in left else os.WNOHANG)
    return left
