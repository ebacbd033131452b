"""What the jail must not keep anybody from, in every posture; and what is refused where there is too little of it."""

from __future__ import annotations

import ast
import importlib.util
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import expected
import outside
import postures
import server
from conftest import siege_under
from siege import DEMANDING, LEGIT, ORGANIZATIONS, Siege

WORK = [
    "legit-" + one.name.replace("_", "-")
    for one in ast.parse((LEGIT / "workflows" / "legit.py").read_text()).body
    if isinstance(one, ast.FunctionDef) and [ast.unparse(mark) for mark in one.decorator_list] == ["legit"]
]


@pytest.fixture(scope="module", params=list(postures.POSTURES))
def team(request: pytest.FixtureRequest, workspace: Path) -> Iterator[Siege]:
    """A handler with a team's own work, in an installation that has opened one private address."""
    posture = postures.POSTURES[request.param]
    opened = {"WEFT_EGRESS_PRIVATE": f"{outside.FRIEND}:{outside.FRIEND_PORT}"}
    one = siege_under(posture, minimum=posture.tier, workspace=workspace, more=opened)
    one.one.names = one.folder / "resolv.conf"
    one.one.names.write_text("nameserver 127.0.0.1\n")
    with one:
        yield one


@pytest.fixture(scope="session")
def workspace() -> Iterator[Path]:
    """The team's, with requests beside it: steps see nothing of the tests' own packages."""
    # Below /tmp, where any user can go.
    folder = Path(tempfile.mkdtemp(prefix="weft-jail-", dir="/tmp"))
    folder.chmod(0o755)
    copy = folder / "workspace"
    shutil.copytree(LEGIT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("requests", "urllib3", "idna", "certifi", "charset_normalizer"):
        found = importlib.util.find_spec(name)
        assert found is not None, f"{name} is missing"
        for package in found.submodule_search_locations or ():
            shutil.copytree(package, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    yield copy
    shutil.rmtree(folder)


@pytest.fixture
def friend(team: Siege) -> Iterator[list[str]]:
    """The server that is opened, and the same on a port and at an address that are not; what they were asked."""
    asked: list[str] = []

    class Handler(server.Handler):
        def log_message(self, *what: object) -> None:
            asked.append(f"{self.connection.getsockname()[:2]} {self.requestline}")

    places = [
        (outside.FRIEND, outside.FRIEND_PORT),
        (outside.FRIEND, outside.FRIEND_PORT + 1),
        ("192.168.7.8", outside.FRIEND_PORT),
    ]
    servers = [server.Server(place, Handler) for place in places]
    threads = [threading.Thread(target=one.serve_forever, args=(0.05,)) for one in servers]
    for thread in threads:
        thread.start()
    yield asked
    for one, thread in zip(servers, threads, strict=True):
        one.shutdown()
        thread.join()
        one.server_close()


def done(team: Siege, workflow: str, trust: str = "trusted") -> object:
    """The result of a workflow that went well."""
    run = team.one.run(workflow, X_Organization_Id=ORGANIZATIONS[trust])
    layer = expected.NEEDS.get(workflow)
    if run["status"] != "succeeded" and layer and layer not in team.layers():
        pytest.skip(f"needs {layer}: {run['error']['message'][:200]}")
    assert run["status"] == "succeeded", run["error"]
    return run["result"]


@pytest.mark.parametrize("workflow", WORK)
def test_work_goes_on(team: Siege, workflow: str) -> None:
    assert done(team, workflow) == "done"


def test_large_results_arrive(team: Siege) -> None:
    assert done(team, "legit-large-result") == ["x" * 1000] * 900


def test_restricted_work_goes_on(team: Siege) -> None:
    assert done(team, "modest") == "done"
    if not team.restricts:
        pytest.skip("this program has no policies, and so no restricted steps")
    assert done(team, "modest", "restricted") == "done"


def test_data_libraries_work(team: Siege) -> None:
    if done(team, "data-frames") != "done":
        pytest.skip("pandas is not installed")


def test_declared_hosts_are_reached_and_no_others(team: Siege, friend: list[str]) -> None:
    hello = {host: f"hello, {host}:{outside.FRIEND_PORT}" for host in (outside.FRIEND_NAME, outside.FRIEND)}
    if team.posture.tier == "process" and team.posture.seccomp:
        # Nobody could answer for its connections.
        run = team.one.run("calls")
        assert run["error"]["type"] == "isolation_insufficient", run
        return
    found = done(team, "calls")
    assert isinstance(found, dict)
    refused = found.pop("refused")
    assert found == {
        **dict.fromkeys(("urllib", "engine", "child"), hello[outside.FRIEND_NAME]),
        "by number": hello[outside.FRIEND],
        "requests": list(hello.values()),
        "much": 1_000_000,
        "echo": 300_000,
    }
    if not team.posture.seccomp:
        # Nothing closes the network there.
        return
    assert all(refused), refused
    assert len(friend) == 8, friend
    assert {one.partition(") ")[0] for one in friend} == {f"('{outside.FRIEND}', {outside.FRIEND_PORT}"}


def test_what_is_opened_is_for_those_who_declare_it(team: Siege, friend: list[str]) -> None:
    if not team.posture.seccomp:
        pytest.skip("nothing closes the network without a filter")
    refused = done(team, "calls-nobody")
    assert isinstance(refused, list)
    assert len(refused) == 2, refused
    assert all(refused), refused
    assert not friend


def test_organizations_can_ask_for_more(team: Siege) -> None:
    if not team.restricts:
        pytest.skip("this program has no policies")
    answer = team.one.execute("modest", X_Organization_Id=DEMANDING)
    if team.posture.tier == "process":
        assert "isolation_insufficient" in str(answer), answer
        assert "done" not in str(answer), answer
    else:
        assert answer.json["result"] == "done", answer


@pytest.mark.parametrize("name", [one.name for one in postures.POSTURES.values() if one.tier == "process"])
def test_no_code_runs_below_the_minimum(name: str) -> None:
    """Nor is it described: a development server ends, and says what is missing."""
    siege = siege_under(postures.POSTURES[name], minimum="confined", workspace=LEGIT)
    try:
        siege.one.launch()
        assert siege.one.wait(30) == 1
        said = siege.one.said()
        assert "isolation_insufficient" in said, said
        assert "`confined`" in said, said
    finally:
        siege.__exit__()
