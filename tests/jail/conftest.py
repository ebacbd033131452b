"""A siege for each posture, and the matrix of what attackers got at the end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import outside
import postures
from siege import BUNDLE, Siege, attacks, groups, python_for
from weft import adopt_orphans

RECORD: list[tuple[str, str, str, list[str], str]] = []


def pytest_configure() -> None:
    adopt_orphans()
    if os.geteuid() == 0 and postures.unavailable("root") is None:
        outside.leave_network()


@pytest.fixture(scope="module", params=list(postures.POSTURES))
def siege(request: pytest.FixtureRequest) -> Iterator[Siege]:
    """A handler under one posture. Its minimum is what the platform can give at most, so that nothing less is served."""
    posture = postures.POSTURES[request.param]
    with siege_under(posture, minimum=posture.tier) as one:
        one.install_victim()
        yield one
        RECORD.extend((posture.name, trust, haul.name, haul.got, haul.outcome) for trust, haul in one.record)


def siege_under(posture: postures.Posture, *, minimum: str, workspace: Path = BUNDLE) -> Siege:
    """One, or the reason why there is none."""
    reason = postures.unavailable(posture.name)
    if reason:
        pytest.skip(reason)
    python = python_for(posture)
    if python is None:
        pytest.skip(f"no Python 3.11 or newer that user {postures.UID} may execute; install python3")
    return Siege(posture, python, minimum=minimum, workspace=workspace)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not RECORD:
        return
    terminalreporter.section("what attackers got (attacks that got something / attacks)")
    columns = list(dict.fromkeys((posture, trust) for posture, trust, *_ in RECORD))
    terminalreporter.write_line(
        f"{'':14}" + "".join(f"{f'{posture} {trust}':>34}" for posture, trust in columns)
    )
    for group in groups():
        row = f"{group:14}"
        for posture, trust in columns:
            own = [
                got
                for one, other, name, got, _ in RECORD
                if (one, other) == (posture, trust) and (name in attacks(group) or name == group)
            ]
            row += f"{f'{sum(map(bool, own))} / {len(own)}' if own else '-':>34}"
        terminalreporter.write_line(row)
    target = os.environ.get("WEFT_TEST_ATTACKS")
    if target:
        Path(target).write_text(json.dumps(RECORD, indent=1))
