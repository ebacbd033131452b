"""One Weft for all tests that don't harm it, and others for those that do."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import test_crash
import test_events
import test_kill_campaign
from campaign import Campaign
from weft import OWN_FILES, OWN_PROCESSES, Weft, adopt_orphans, weft_at

Start = Callable[..., Weft]

LEASES = {"crash", "small_campaign", "killed_drivers"}
"""Fixtures that wait for the end of a lease: begun before all other tests, which pass meanwhile."""


def pytest_configure() -> None:
    adopt_orphans()
    # Who runs in the background may have to ignore Ctrl-C, and what it starts would do so too.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that wait for the end of a lease come last."""
    items.sort(key=lambda item: bool(LEASES.intersection(getattr(item, "fixturenames", ()))))


@pytest.fixture(scope="session", autouse=True)
def _crash(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Begun before all other tests, where there are tests that need it."""
    if not any("crash" in getattr(item, "fixturenames", ()) for item in request.session.items):
        yield None
        return
    folder = tmp_path_factory.mktemp("crash")
    with weft_at(folder) as one:
        yield test_crash.begin(one, folder)


@pytest.fixture
def crash(_crash: test_crash.Crash) -> test_crash.Crash:
    """The killed instance, started again."""
    return _crash


@pytest.fixture(scope="session", autouse=True)
def _campaign(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Rages before all other tests, so that they pass while it comes to rest."""
    if not any("small_campaign" in getattr(item, "fixturenames", ()) for item in request.session.items):
        yield None
        return
    campaign = test_kill_campaign.small(tmp_path_factory.mktemp("campaign"))
    try:
        yield campaign
    finally:
        campaign.end()


@pytest.fixture
def small_campaign(_campaign: Campaign) -> Campaign:
    """A campaign of which everything that was killed has been started again."""
    return _campaign


@pytest.fixture(scope="session", autouse=True)
def _killed_drivers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """Killed before all other tests, where there are tests that need it."""
    if not any("killed_drivers" in getattr(item, "fixturenames", ()) for item in request.session.items):
        yield None
        return
    with test_events.drivers_killed(tmp_path_factory.mktemp("drivers")) as scenes:
        yield scenes


@pytest.fixture
def killed_drivers(_killed_drivers: list[test_events.Scene]) -> list[test_events.Scene]:
    """Instances that were killed while they drove a run, started again, and who listens to the runs."""
    return _killed_drivers


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weft]:
    """Runs for the whole session. What a test does to it, the next must not notice."""
    with weft_at(tmp_path_factory.mktemp("shared")) as one:
        one.start()
        yield one
        assert one.stop(signal.SIGINT) == 0, one.said()


@pytest.fixture(scope="session")
def unjailed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weft]:
    """The same for tests whose steps leave marks in files, or signal each other by the machine's numbers."""
    off = {"WEFT_ISOLATION_OFF": f"{OWN_FILES},{OWN_PROCESSES}"}
    with weft_at(tmp_path_factory.mktemp("unjailed"), environment=off) as one:
        one.start()
        yield one
        assert one.stop(signal.SIGINT) == 0, one.said()


@pytest.fixture(params=["shared", "unjailed"])
def either(request: pytest.FixtureRequest) -> Weft:
    """What holds with the jail and without it, where other means see to it."""
    one: Weft = request.getfixturevalue(request.param)
    return one


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
