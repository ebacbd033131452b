"""Fixtures for pytest: what `weft.testing` offers, without a line of set-up in each test.

In `tests/conftest.py` of a workspace:

    pytest_plugins = ["weft.pytest_plugin"]

Then a test asks for what it needs, and the marker `weft` says what the context knows:

    @pytest.mark.weft(organization="contoso", config={"greeting": "Hi"}, secrets={"API_KEY": "test-value"})
    def test_greets(weft_run, weft_fakes):
        assert weft_run(hello, name="Ada").value["message"] == "Hi, Ada!"
        assert weft_fakes.logs[0].message == "greeting Ada"
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ._context import Context
from .testing import Fakes, Result, fake_context, run

_OF_RUN = frozenset(("organization", "config", "secrets", "http"))
_OF_CONTEXT = _OF_RUN | {"caller", "run"}
_OF_FAKES = frozenset(("kv", "artifacts", "data", "runs", "clock", "network"))


def pytest_configure(config: pytest.Config) -> None:
    """Say what the marker is for."""
    config.addinivalue_line(
        "markers",
        "weft(organization, config, secrets, http, caller, run, kv, artifacts, data, runs, clock, network): "
        "what the contexts and fakes of weft.pytest_plugin know",
    )


def _marked(request: pytest.FixtureRequest, wanted: frozenset[str]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    # The nearest one comes first, and is stronger than that of the class or the module.
    for marker in request.node.iter_markers("weft"):
        if marker.args:
            raise pytest.UsageError('@pytest.mark.weft takes keywords only, as organization="contoso"')
        for name, value in marker.kwargs.items():
            if name not in _OF_CONTEXT | _OF_FAKES:
                raise pytest.UsageError(
                    f"@pytest.mark.weft has no `{name}`; it has {', '.join(sorted(_OF_CONTEXT | _OF_FAKES))}"
                )
            options.setdefault(name, value)
    return {name: value for name, value in options.items() if name in wanted}


@pytest.fixture
def weft_fakes(request: pytest.FixtureRequest) -> Fakes:
    """What the engine keeps in this test: pairs, artifacts, data, runs, time; and what was logged."""
    return Fakes(**_marked(request, _OF_FAKES))


@pytest.fixture
def weft_context(request: pytest.FixtureRequest, weft_fakes: Fakes) -> Context:
    """A context over `weft_fakes`, for calling functions of a workspace directly."""
    return fake_context(fakes=weft_fakes, **_marked(request, _OF_CONTEXT))


@pytest.fixture
def weft_run(request: pytest.FixtureRequest, weft_fakes: Fakes) -> Callable[..., Result]:
    """`weft.testing.run` over `weft_fakes`; what a call names itself is stronger than the marker."""
    options = {**_marked(request, _OF_RUN), "fakes": weft_fakes}

    def call(function: Callable[..., Any], /, **arguments: Any) -> Result:
        return run(function, **{**options, **arguments})

    return call
