"""weft.testing: the same rules as in the engine, without one."""

from __future__ import annotations

from typing import Any

import pytest

from weft import Context, DeclarationError, InvalidInput, workflow
from weft.testing import fake_context, run


@workflow
def sync_one(ctx: Context, a: int) -> dict[str, Any]:
    ctx.log("working", a=a)
    ctx.checkpoint("half", a)
    ctx.variables.set("seen", a)
    return {"a": a, "organization": ctx.organization.name, "mode": ctx.config.get("mode", "none")}


@workflow
async def async_one(a: int = 2) -> int:
    return a * 2


@workflow
def bad_one() -> Any:
    return {1, 2}


def test_runs_a_sync_function() -> None:
    result = run(sync_one, a=1, organization={"id": "o", "name": "Org"}, config={"mode": "fast"})
    assert result.value == {"a": 1, "organization": "Org", "mode": "fast"}
    assert result.messages == ["working"]
    assert result.logs[0].fields == {"a": 1}
    assert (result.checkpoints[0].name, result.checkpoints[0].data) == ("half", 1)
    assert result.variables == {"seen": 1}


def test_runs_an_async_function_without_context() -> None:
    assert run(async_one).value == 4


def test_refuses_as_the_engine_does() -> None:
    with pytest.raises(InvalidInput, match="`a` must be a number"):
        run(sync_one, a="1")
    with pytest.raises(TypeError, match="result is a set"):
        run(bad_one)
    with pytest.raises(DeclarationError, match="no workflow"):
        run(len)


def test_a_fake_context_lets_functions_be_called_directly() -> None:
    assert sync_one(fake_context(organization="o", run={"attempt": 2}), 3)["organization"] == "o"
