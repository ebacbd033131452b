"""The one way to wait in these tests: ask again until it is so, or the deadline has passed."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
INTERVAL = 0.02


class DeadlineError(AssertionError):
    """It did not happen in time."""


def eventually(probe: Callable[[], T | None], what: str, within: float = 20.0) -> T:
    """The first true value of ``probe``; connection errors count as "not yet"."""
    end = time.monotonic() + within
    last: object = None
    while True:
        try:
            value = probe()
            if value:
                return value
            last = value
        except OSError as error:
            last = error
        if time.monotonic() > end:
            raise DeadlineError(f"{what}: not within {within:g} s (last: {last!r})")
        time.sleep(INTERVAL)


async def soon(probe: Callable[[], T | None | Awaitable[T | None]], what: str, within: float = 20.0) -> T:
    """The same for async tests; ``probe`` may be a coroutine function."""
    end = time.monotonic() + within
    while True:
        value = probe()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        if time.monotonic() > end:
            raise DeadlineError(f"{what}: not within {within:g} s (last: {value!r})")
        await asyncio.sleep(INTERVAL)
