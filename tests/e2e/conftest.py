"""One Weft for all tests that don't harm it, and others for those that do."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from weft import Weft, adopt_orphans, weft_at

Start = Callable[..., Weft]


def pytest_configure() -> None:
    adopt_orphans()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weft]:
    """Runs for the whole session. What a test does to it, the next must not notice."""
    with weft_at(tmp_path_factory.mktemp("shared")) as one:
        one.start()
        yield one
        assert one.stop(signal.SIGINT) == 0, one.said()


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Start]:
    """Makes instances that are ended with the test; nothing of them is left."""
    open_ones: list[Any] = []

    def one(name: str = "weft", **more: Any) -> Weft:
        context = weft_at(tmp_path / name, **more)
        open_ones.append(context)
        made: Weft = context.__enter__()
        return made

    yield one
    for context in reversed(open_ones):
        context.__exit__(None, None, None)
