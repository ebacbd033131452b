"""weft.testing: the same rules as in the engine, without one."""

from __future__ import annotations

from typing import Any

import pytest

import weft.testing
from weft import Context, DeclarationError, InvalidInput, NotAvailable, data_provider, workflow
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


def test_options_are_what_a_form_gets() -> None:
    @data_provider
    def mixed(ctx: Context, search: str = "") -> list[Any]:
        found = [
            "a",
            2,
            {"value": "x", "label": "X", "description": "An x", "metadata": {"of": 1}, "more": 1},
        ]
        return [one for one in found if search in str(one)]

    assert weft.testing.options(mixed) == [
        {"value": "a", "label": "a"},
        {"value": 2, "label": "2"},
        {"value": "x", "label": "X", "description": "An x", "metadata": {"of": 1}},
    ]
    assert weft.testing.options(mixed, search="2") == [{"value": 2, "label": "2"}]
    for answer, said in (
        ({}, "returns a list"),
        ([{"label": "X"}], "item 0 has no `value`"),
        ([[]], "item 0 has no `value`"),
        ([{"value": 1, "label": 2}], "`label` that is no text"),
        ([1] * 10_001, "the limit is 10000"),
    ):

        @data_provider
        def wrong(answer: Any) -> Any:
            return answer

        with pytest.raises(ValueError, match=said):
            weft.testing.options(wrong, answer=answer)


def test_a_data_provider_is_told_who_asks_only_where_it_says_so() -> None:
    @data_provider
    def plain(ctx: Context) -> list[str]:
        return [ctx.caller.name]

    @data_provider(uses_caller=True)
    def told(ctx: Context) -> list[str]:
        return [ctx.caller.name]

    with pytest.raises(NotAvailable, match="uses_caller=True"):
        weft.testing.run(plain)
    assert weft.testing.run(told).value == ["Test"]
