"""What the jail must not keep anybody from, in every posture; and what is refused where there is too little of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

import expected
import postures
from conftest import siege_under
from siege import LEGIT, ORGANIZATIONS, Siege

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


@pytest.mark.parametrize("name", [one.name for one in postures.POSTURES.values() if one.tier == "process"])
def test_steps_are_refused_below_the_minimum(name: str) -> None:
    with siege_under(postures.POSTURES[name], minimum="confined", workspace=LEGIT) as one:
        answer = one.one.execute("modest")
        assert "isolation_insufficient" in str(answer), answer
        assert one.log(answer.json["runId"], "contoso") == [] if "runId" in answer.json else True
