"""A siege for each posture, and the matrix of what attackers got at the end.

Postures where the handler is root and those where it isn't are tried at the same time: a child of the test process takes
the latter, in a network of its own, and tells what became of each test. Nothing that is counted by user is shared.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
import threading
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from _pytest import runner

import outside
import postures
from siege import BUNDLE, Siege, attacks, groups, python_for
from weft import adopt_orphans

RECORD: list[tuple[str, str, str, list[str], str]] = []


def pytest_configure() -> None:
    adopt_orphans()
    if os.geteuid() == 0 and postures.unavailable("root") is None:
        outside.leave_network()


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Two halves at a time, where there is something for both."""
    mine = [item for item in session.items if not _is_for_child(item)]
    others = [item for item in session.items if _is_for_child(item)]
    config = session.config
    if not mine or not others or config.option.collectonly or config.option.usepdb or config.option.maxfail:
        return None
    reading, writing = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _be_child(session, others, writing)
    os.close(writing)
    waiting: list[dict[str, object]] = []
    told = threading.Thread(target=_listen, args=(reading, waiting), daemon=True)
    told.start()
    for item, after in zip(mine, [*mine[1:], None], strict=True):
        config.hook.pytest_runtest_protocol(item=item, nextitem=after)
        _tell(session, waiting)
    told.join()
    _tell(session, waiting)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 0:
        raise session.Failed(f"the child that tried the postures without root ended with {status}")
    if session.testsfailed:
        raise session.Failed(f"{session.testsfailed} failed")
    return True


def _is_for_child(item: pytest.Item) -> bool:
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return any(
        one in postures.POSTURES and not postures.POSTURES[one].root
        for one in parameters
        if isinstance(one, str)
    )


def _be_child(session: pytest.Session, items: list[pytest.Item], writing: int) -> None:
    """Run these, write each report, and end."""
    status = 1
    try:
        if os.geteuid() == 0 and postures.unavailable("root") is None:
            outside.leave_network()
        hook = session.config.hook
        with os.fdopen(writing, "wb") as file:
            for item, after in zip(items, [*items[1:], None], strict=True):
                for report in runner.runtestprotocol(item, log=False, nextitem=after):
                    pickle.dump(
                        hook.pytest_report_to_serializable(config=session.config, report=report), file
                    )
                file.flush()
            pickle.dump({"record": RECORD}, file)
        status = 0
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(status)


def _listen(reading: int, waiting: list[dict[str, object]]) -> None:
    with os.fdopen(reading, "rb") as file:
        while True:
            try:
                waiting.append(pickle.load(file))
            except EOFError:
                return


def _tell(session: pytest.Session, waiting: list[dict[str, object]]) -> None:
    """Hand on what the child has reported so far."""
    hook = session.config.hook
    while waiting:
        one = waiting.pop(0)
        if "record" in one:
            RECORD.extend(one["record"])  # type: ignore[arg-type]
            continue
        report = hook.pytest_report_from_serializable(config=session.config, data=one)
        if report.when == "setup":
            hook.pytest_runtest_logstart(nodeid=report.nodeid, location=report.location)
        hook.pytest_runtest_logreport(report=report)
        if report.when == "teardown":
            hook.pytest_runtest_logfinish(nodeid=report.nodeid, location=report.location)


@pytest.fixture(scope="module", params=list(postures.POSTURES))
def siege(request: pytest.FixtureRequest) -> Iterator[Siege]:
    """A handler under one posture. Its minimum is what the platform can give at most, so that nothing less is served."""
    posture = postures.POSTURES[request.param]
    with siege_under(posture, minimum=posture.tier) as one:
        one.install_victim()
        yield one
        RECORD.extend((posture.name, trust, haul.name, haul.got, haul.outcome) for trust, haul in one.record)


def siege_under(
    posture: postures.Posture, *, minimum: str, workspace: Path = BUNDLE, more: dict[str, str] | None = None
) -> Siege:
    """One, or the reason why there is none."""
    reason = postures.unavailable(posture.name)
    if reason:
        pytest.skip(reason)
    python = python_for(posture)
    if python is None:
        pytest.skip(f"no Python 3.11 or newer that user {postures.UID} may execute; install python3")
    return Siege(posture, python, minimum=minimum, workspace=workspace, more=more)


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
