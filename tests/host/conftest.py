"""Shared by all tests of this folder: async tests, one Azurite, and no process left behind."""

import asyncio
import inspect
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import processes
from azurite import Azurite, AzuriteMissingError

ASYNC_TEST_SECONDS = 120


def pytest_configure() -> None:
    processes.adopt_orphans()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run coroutine tests, each in a loop of its own and with a deadline."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters}

    async def bounded() -> None:
        async with asyncio.timeout(ASYNC_TEST_SECONDS):
            await pyfuncitem.obj(**arguments)

    asyncio.run(bounded())
    return True


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """One emulator for the whole run; tests use queues of their own."""
    emulator = Azurite()
    try:
        emulator.start()
    except AzuriteMissingError as error:
        if os.environ.get("CI"):
            pytest.fail(str(error))
        pytest.skip(str(error))
    except BaseException:
        emulator.stop()
        raise
    try:
        yield emulator
    finally:
        emulator.stop()


@pytest.fixture(autouse=True)
def _no_process_left() -> Iterator[None]:
    """What a test starts, it ends: leftovers are killed and fail it. (Session fixtures come up first.)"""
    before = {p.pid for p in processes.descendants(os.getpid())}
    yield
    # A Python whose handler was killed while it was starting finds that out when it is up.
    end = time.monotonic() + 15
    while time.monotonic() < end and any(
        p.pid not in before and p.state not in "ZX" for p in processes.descendants(os.getpid())
    ):
        time.sleep(0.02)
    left = processes.sweep(before)
    assert not left, f"left running: {left}"
