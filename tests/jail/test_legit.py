"""What the jail must not keep anybody from, in every posture; and what is refused where there is too little of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

import expected
import postures
from conftest import siege_under
from siege import DEMANDING, LEGIT, ORGANIZATIONS, Siege

WORK = [
    "legit-" + one.name.replace("_", "-")
    for one in ast.parse((LEGIT / "workflows" / "legit.py").read_text()).body
    if isinstance(one, ast.FunctionDef) and [ast.unparse(mark) for mark in one.decorator_list] == ["legit"]
]


@pytest.fixture(scope="module", params=list(postures.POSTURES))
def team(request: pytest.FixtureRequest) -> Iterator[Siege]:
    """A handler with a team's own work."""
    posture = postures.POSTURES[request.param]
    with siege_under(posture, minimum=posture.tier, workspace=LEGIT) as one:
        yield one


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
