"""Decorators: what they leave on a function, what they describe, what they refuse."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import weft
from weft import Context, DeclarationError, Retry, data_provider, node, param, workflow
from weft._declaration import declaration_of


def described(function: Callable[..., Any]) -> dict[str, Any]:
    declaration = declaration_of(function)
    assert declaration is not None
    return declaration.describe(function.__name__)


def test_a_function_stays_the_same_function() -> None:
    def plain(a: int) -> int:
        return a + 1

    assert workflow(plain) is plain
    assert param("a", min=0)(plain) is plain
    assert plain(1) == 2


def test_a_bare_workflow_has_the_defaults() -> None:
    @workflow
    def hello(ctx: Context, name: str = "world") -> None:
        """Greets.

        At length.
        """

    found = described(hello)
    assert found["name"] == found["function"] == "hello"
    assert found["description"] == "Greets."
    assert (found["category"], found["tags"], found["timeout_seconds"]) == ("General", [], 300)
    assert found["retry"] == {
        "attempts": 1,
        "delay_seconds": 2.0,
        "backoff": "exponential",
        "max_delay_seconds": 60.0,
        "jitter": 0.0,
        "retry_on": [],
    }
    assert (found["network"], found["on_crash"], found["is_async"]) == ([], "retry", False)
    assert found["limits"] == {}
    assert [parameter["name"] for parameter in found["parameters"]] == ["name"]


def test_all_options_arrive() -> None:
    @workflow(
        name="sync-users",
        description="Syncs.",
        category="Users",
        tags=("b", "a"),
        timeout_seconds=12.5,
        limits={"processes": 4, "memory_mib": 256},
        retry=Retry(attempts=4, delay_seconds=1, backoff="fixed", jitter=0.5, retry_on=[TimeoutError, "Odd"]),
        network=["API.example.com", "*.contoso.example"],
        on_crash="fail",
    )
    async def work() -> None: ...

    found = described(work)
    assert found["name"] == "sync-users"
    assert found["function"] == "work"
    assert found["tags"] == ["b", "a"]
    assert found["timeout_seconds"] == 12.5
    assert found["limits"] == {"memory_mib": 256, "processes": 4}
    assert found["retry"]["retry_on"] == ["TimeoutError", "Odd"]
    assert found["network"] == ["api.example.com", "*.contoso.example"]
    assert (found["on_crash"], found["is_async"]) == ("fail", True)


@pytest.mark.parametrize(
    ("network", "expected"), [("none", []), ("*", ["*"]), ((), []), (["localhost"], ["localhost"])]
)
def test_network_forms(network: Any, expected: list[str]) -> None:
    assert described(workflow(network=network)(lambda_named("f")))["network"] == expected


HOSTS = json.loads((Path(__file__).parents[3] / "tests/golden/hosts/cases.json").read_text("utf-8"))


@pytest.mark.parametrize("host", HOSTS["good"])
def test_hosts(host: str) -> None:
    assert described(workflow(network=[host])(lambda_named("f")))["network"] == [host.lower()]


@pytest.mark.parametrize("host", HOSTS["bad"])
def test_no_hosts(host: str) -> None:
    with pytest.raises(DeclarationError, match="is no host"):
        workflow(network=[host])


def test_param_may_stand_above_and_below() -> None:
    @param("a", label="First")
    @workflow
    @param("b", label="Second")
    def both(a: int, b: int) -> None: ...

    assert [parameter["label"] for parameter in described(both)["parameters"]] == ["First", "Second"]


def test_a_wrapper_keeps_what_is_below_it() -> None:
    def doubling(function: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(function)
        def wrapper(*args: Any, **named: Any) -> int:
            return 2 * function(*args, **named)

        return wrapper

    @workflow
    @doubling
    @param("a", max=3)
    def inner(a: int) -> int:
        return a

    assert inner(2) == 4
    assert described(inner)["parameters"][0]["max"] == 3


def test_data_provider() -> None:
    @data_provider(description="Options.", cache_ttl_seconds=0)
    def departments(ctx: Context, site: str = "all") -> list[dict[str, str]]:
        return []

    found = described(departments)
    assert found.keys() == {
        "name",
        "function",
        "line",
        "description",
        "category",
        "cache_ttl_seconds",
        "uses_caller",
        "is_async",
        "parameters",
        "doc",
    }
    assert (found["cache_ttl_seconds"], found["uses_caller"]) == (0, False)


def test_node_ports_come_from_parameters_or_as_given() -> None:
    @node(version="2.1", outputs={"body": "string", "status": "integer"}, settings=["mode"], trust="trusted")
    def fetch(url: str, to: weft.Email | None = None, mode: str = "text") -> dict[str, Any]:
        return {}

    @node(inputs={"url": "url"})
    def other(url: str) -> None: ...

    found = described(fetch)
    assert found["inputs"] == [{"name": "url", "type": "string"}, {"name": "to", "type": "string"}]
    assert found["outputs"] == [{"name": "body", "type": "string"}, {"name": "status", "type": "integer"}]
    assert (found["settings"], found["trust"], found["version"]) == (["mode"], "trusted", "2.1")
    assert described(other)["inputs"] == [{"name": "url", "type": "url"}]
    assert described(other)["outputs"] == [{"name": "result", "type": "any"}]


def test_several_edges_may_lead_to_an_input_that_says_so() -> None:
    @node(multiple=["rows"], secrets=["KEY"])
    def gather(rows: list[Any], at: weft.Url, key: weft.Secret) -> None: ...

    assert described(gather)["inputs"] == [
        {"name": "rows", "type": "any", "multiple": True},
        {"name": "at", "type": "url"},
    ]
    assert "multiple" not in described(gather)

    @node(multiple=["n"])
    def no_list(n: int) -> None: ...

    @node(multiple=["other"])
    def unknown(n: int) -> None: ...

    @node(inputs={"key": "string"}, secrets=["KEY"])
    def chosen(key: weft.Secret) -> None: ...

    for wrong, text in ((no_list, "annotate it as list"), (unknown, "no input"), (chosen, "no edge")):
        with pytest.raises(DeclarationError, match=text):
            described(wrong)


def lambda_named(name: str) -> Callable[..., Any]:
    def function(a: int = 0) -> None: ...

    function.__name__ = name
    return function


WRONG: list[tuple[Callable[[], Any], str]] = [
    (lambda: workflow(lambda_named("Hello")), "lower-case letter"),
    (lambda: workflow(name="1st")(lambda_named("f")), "lower-case letter"),
    (lambda: workflow(name="x" * 64)(lambda_named("f")), "to 63"),
    (lambda: workflow(name="a\n")(lambda_named("f")), "lower-case letter"),
    (lambda: workflow(timeout_seconds=0)(lambda_named("f")), "timeout_seconds"),
    (lambda: workflow(timeout_seconds=float("nan")), "timeout_seconds"),
    (lambda: workflow(timeout_seconds=True), "timeout_seconds"),
    (lambda: workflow(limits=["memory_mib"]), "must be a dict"),  # type: ignore[call-overload]
    (lambda: workflow(limits={"memory": 1}), "memory_mib"),
    (lambda: workflow(limits={"memory_mib": 1.5}), "whole number"),  # type: ignore[dict-item]
    (lambda: node(limits={"processes": 0}), "from 1"),
    (lambda: workflow(tags="one"), "list of strings"),
    (lambda: workflow(on_crash="explode"), "on_crash"),
    (lambda: workflow(retry=3), "Retry"),  # type: ignore[call-overload]
    (lambda: workflow(network=["https://api.example.com/x"]), "is no host"),
    (lambda: workflow(network="api.example.com"), "list of strings"),
    (lambda: workflow(workflow(lambda_named("f"))), "already declared as a workflow"),
    (lambda: data_provider(workflow(lambda_named("f"))), "already declared as a workflow"),
    (lambda: workflow(dict), "on a class"),
    (lambda: workflow(staticmethod(lambda_named("f")).__func__.__call__), "function that is defined"),
    (lambda: data_provider(cache_ttl_seconds=-1), "cache_ttl_seconds"),
    (lambda: node(trust="full"), "trust"),
    (lambda: node(version="one"), "version"),
    (lambda: node(settings=["b"])(lambda_named("f")), "no such parameter"),
    (lambda: node(inputs={"b": "string"})(lambda_named("f")), "no such parameter"),
    (lambda: node(outputs={"b": "text"}), "unknown type"),
    (lambda: node(outputs={"B": "string"}), "port's name"),
    (lambda: param("b")(lambda_named("f")), "no such parameter"),
    (lambda: param("a")(param("a")(lambda_named("f"))), "twice"),
    (lambda: param("a", type="text"), "unknown"),
    (lambda: param("a", type=set), "unknown"),
    (lambda: param("a", min=3, max=2), "above"),
    (lambda: param("a", min_length=3, max_length=2), "above"),
    (lambda: param("a", pattern="("), "no regular expression"),
    (lambda: param("a", enum=[]), "enum"),
    (lambda: param("a", enum="abc"), "enum"),
    (lambda: param("a", enum=[{1}]), "is a set"),
    (lambda: Retry(attempts=0), "attempts"),
    (lambda: Retry(backoff="none"), "backoff"),
    (lambda: Retry(jitter=2), "jitter"),
    (lambda: Retry(retry_on="TimeoutError"), "list"),
]


@pytest.mark.parametrize(("declare", "text"), WRONG, ids=[str(index) for index in range(len(WRONG))])
def test_refuses(declare: Callable[[], Any], text: str) -> None:
    with pytest.raises(DeclarationError, match=text):
        declare()


def test_param_alone_is_no_declaration() -> None:
    @param("a", label="A")
    def lonely(a: int) -> None: ...

    with pytest.raises(DeclarationError, match="add @workflow"):
        described(lonely)
