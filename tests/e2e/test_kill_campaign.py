"""Many runs while handlers, zygotes and workers are killed and storage goes away: nothing is lost, doubled or made up.

`campaign.py` says what is done and what is compared. The small campaign rages at the start of the session (`conftest.py`) and
is looked at at its end, since the runs of a dead instance wait for a minute; the large ones are of `scripts/test --nightly`.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from campaign import SEED, Campaign, Plan, developing
from chains import Rows
from emulator import Emulator
from weft import Handler, Weft

nightly = pytest.mark.skipif(
    "WEFT_TEST_NIGHTLY" not in os.environ and SEED not in os.environ,
    reason="a long test: scripts/test --nightly",
)


def seed() -> int:
    """The one that is named, or any."""
    named = os.environ.get(SEED)
    return int(named) if named else random.SystemRandom().randrange(1_000_000)


@contextmanager
def told(campaign: Campaign, test: str) -> Iterator[None]:
    """A failure says what was done when, and how to do it again."""
    try:
        yield
    except BaseException as error:
        error.add_note(campaign.how_to_repeat(f"pytest tests/e2e/test_kill_campaign.py -k {test}"))
        raise


def small(folder: Path) -> Campaign:
    """Forty runs over the embedded store; everything up to the end of the storm."""
    plan = Plan.of(seed(), runs=40, seconds=15, handlers=1, deaths=2, below=6)
    campaign = Campaign(plan, folder / "marks", [developing(folder / "a")])
    try:
        with told(campaign, "small"):
            campaign.handlers[0].start(60)
            campaign.storm()
    except AssertionError as error:
        # All other tests come first.
        campaign.failed = error
    return campaign


def judged(campaign: Campaign, test: str, emulator: Emulator | None = None) -> None:
    """Everything from the end of the storm to the audit of what is stored."""
    with told(campaign, test):
        campaign.check()
        campaign.stop()
        if emulator is None:
            rows = Rows.of_file(campaign.handlers[0].data / "weft.db")
        else:
            emulator.stop()
            rows = Rows.of_azurite(emulator.folder)
        campaign.audit(rows)
        campaign.report()
    for one in campaign.handlers:
        assert "panicked" not in one.said(), one.said()


def rage(campaign: Campaign, test: str, emulator: Emulator | None = None) -> None:
    """A whole campaign; nothing of it is left."""
    try:
        with told(campaign, test):
            for one in campaign.handlers:
                one.start(60)
            campaign.storm()
        judged(campaign, test, emulator)
    finally:
        campaign.end()


def test_a_small_campaign(small_campaign: Campaign) -> None:
    if small_campaign.failed:
        raise small_campaign.failed
    judged(small_campaign, "small")


@nightly
def test_one_handler(tmp_path: Path) -> None:
    plan = Plan.of(seed(), runs=200, seconds=90, handlers=1, deaths=8, below=30)
    rage(Campaign(plan, tmp_path / "marks", [developing(tmp_path / "a")]), "one_handler")


@nightly
def test_two_handlers_over_one_file(tmp_path: Path) -> None:
    plan = Plan.of(seed(), runs=200, seconds=90, handlers=2, deaths=12, below=30)
    one = developing(tmp_path / "a")
    handlers: list[Weft] = [one, Handler(tmp_path / "b", one)]
    rage(Campaign(plan, tmp_path / "marks", handlers), "over_one_file")


@nightly
def test_two_handlers_over_an_emulator(tmp_path: Path) -> None:
    emulator = Emulator(tmp_path / "azurite")
    emulator.start()
    try:
        plan = Plan.of(seed(), runs=200, seconds=120, handlers=2, deaths=10, below=30, outages=3)
        handlers: list[Any] = [developing(tmp_path / name, emulator.environment) for name in ("a", "b")]
        rage(Campaign(plan, tmp_path / "marks", handlers, emulator), "emulator", emulator)
    finally:
        emulator.stop()
