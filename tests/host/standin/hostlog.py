"""The host's log: levelled records with a category, kept for tests and printed one per line."""

import asyncio
import datetime
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

INFORMATION = "Information"
WARNING = "Warning"
ERROR = "Error"

CONSOLE = "Host.Function.Console"
SYSTEM_CONSOLE = "Host.Function.Console.System"
TOOLING = "Host.Tooling"
HOST = "Host.General"


@dataclass(frozen=True)
class Record:
    """One line of the log."""

    level: str
    category: str
    message: str


class HostLog:
    """Collects records; whoever waits for one is woken when it arrives."""

    def __init__(self, stream: TextIO | None = None, keep: int = 5000) -> None:
        self._stream = stream
        self.records: deque[Record] = deque(maxlen=keep)
        self._changed = asyncio.Event()

    def write(self, level: str, category: str, message: str) -> None:
        """Add a record."""
        record = Record(level, category, message)
        self.records.append(record)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        if self._stream is not None:
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
            try:
                print(f"[{now}] {level} {category}: {message}", file=self._stream, flush=True)
            except (BrokenPipeError, ValueError):
                self._stream = None

    def info(self, message: str, category: str = HOST) -> None:
        """Add an Information record."""
        self.write(INFORMATION, category, message)

    def warning(self, message: str, category: str = HOST) -> None:
        """Add a Warning record."""
        self.write(WARNING, category, message)

    def error(self, message: str, category: str = HOST) -> None:
        """Add an Error record."""
        self.write(ERROR, category, message)

    async def wait_for(self, match: Callable[[Record], bool], timeout: float) -> Record:
        """The first record, past or coming, that matches."""
        async with asyncio.timeout(timeout):
            while True:
                changed = self._changed
                for record in self.records:
                    if match(record):
                        return record
                await changed.wait()


def to_stdout() -> HostLog:
    """A log that is printed, as a terminal host does."""
    return HostLog(sys.stdout)
