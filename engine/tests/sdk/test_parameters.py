"""Signatures → parameters, and arguments against them."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

import pytest

import weft
from weft import Context, DeclarationError, Email, InvalidInput, Options, param, workflow
from weft._arguments import bind
from weft._declaration import Parameter, Resolved, declaration_of

if TYPE_CHECKING:
    from decimal import Decimal


class Person(TypedDict):
    name: str


def resolved(function: Callable[..., Any]) -> Resolved:
    declaration = declaration_of(function)
    assert declaration is not None
    return declaration.resolve()


def parameters(function: Callable[..., Any]) -> dict[str, Parameter]:
    return {parameter.name: parameter for parameter in resolved(function).parameters}


def test_annotations_become_types() -> None:
    @workflow
    def f(
        a: str,
        b: int,
        c: float,
        d: bool,
        e: dict[str, Any],
        f: list[int],
        g: Email,
        h: Any,
        i: int | None,
        j: Literal["x", "y"],
        k: Sequence[str],
        l: Mapping[str, int],
        m: Person,
        n: Annotated[int, "whole"],
        o: int | str,
        p: int | None,
        q: Literal[1, 2] | None = None,
        r=3,
        s=None,
    ) -> None: ...

    found = parameters(f)
    assert {name: parameter.type for name, parameter in found.items()} == {
        "a": "string",
        "b": "integer",
        "c": "number",
        "d": "boolean",
        "e": "object",
        "f": "array",
        "g": "email",
        "h": "json",
        "i": "integer",
        "j": "string",
        "k": "array",
        "l": "object",
        "m": "object",
        "n": "integer",
        "o": "json",
        "p": "integer",
        "q": "integer",
        "r": "integer",
        "s": "json",
    }
    assert found["j"].enum == ["x", "y"]
    assert found["q"].enum == [1, 2]
    optional = {name for name, parameter in found.items() if not parameter.required}
    assert optional == {"i", "p", "q", "r", "s"}
    assert found["a"].has_default is False
    assert (found["r"].has_default, found["r"].default) == (True, 3)


def test_the_context_is_the_first_parameter_or_none() -> None:
    @workflow
    def annotated(c: Context, a: int) -> None: ...

    @workflow
    def dotted(c: weft.Context) -> None: ...

    @workflow
    def named(ctx, a: int): ...

    @workflow
    def without(a: int) -> None: ...

    assert [resolved(f).takes_context for f in (annotated, dotted, named, without)] == [
        True,
        True,
        True,
        False,
    ]
    assert list(parameters(annotated)) == list(parameters(named)) == list(parameters(without)) == ["a"]


def test_param_refines_and_overrides() -> None:
    @workflow
    @param("a", type="email", label="Address", help="Where to", required=False, max_length=50, pattern="@")
    @param("b", default=7, min=1, max=9, data_provider="numbers", enum=[7, 8])
    @param("extra", type=int)
    def f(ctx: Context, a: str, b: int, **rest: Any) -> None: ...

    found = parameters(f)
    assert found["a"].to_json() == {
        "name": "a",
        "type": "email",
        "label": "Address",
        "required": False,
        "default": None,
        "has_default": False,
        "help": "Where to",
        "min": None,
        "max": None,
        "pattern": "@",
        "enum": None,
        "min_length": None,
        "max_length": 50,
        "data_provider": None,
        "options": None,
    }
    assert (found["b"].required, found["b"].default, found["b"].has_default) == (False, 7, True)
    assert found["extra"].type == "integer"


def test_options_come_from_a_data_provider() -> None:
    @workflow
    @param("zone", options=Options("weft.time_zones", strict=True))
    def f(
        country: Annotated[str, Options("countries")],
        city: Annotated[str, Options("cities", {"country": "country"})] | None = None,
        zone: str = "UTC",
    ) -> None: ...

    found = parameters(f)
    assert found["country"].options == {"provider": "countries", "inputs": {}, "strict": False}
    assert found["city"].options == {"provider": "cities", "inputs": {"country": "country"}, "strict": False}
    assert (found["city"].type, found["city"].required) == ("string", False)
    assert found["zone"].to_json()["options"] == {"provider": "weft.time_zones", "inputs": {}, "strict": True}

    for wrong, said in (
        (lambda: Options(""), "name of a data provider"),
        (lambda: Options("a", ["country"]), "inputs must be a dict"),
        (lambda: Options("a", strict="yes"), "strict"),
        (lambda: param("a", options="cities"), 'must be Options("…")'),
    ):
        with pytest.raises(DeclarationError, match=re.escape(said)):
            wrong()

    @workflow
    @param("a", data_provider="one")
    def both(a: Annotated[str, Options("two")]) -> None: ...

    with pytest.raises(DeclarationError, match="both Options"):
        parameters(both)


def test_types_beyond_those_of_python() -> None:
    @workflow(secrets=["API_KEY", "OTHER"])
    @param("either", enum=["OTHER"])
    def f(a: weft.File, b: weft.Url | None, c: weft.Binary, d: weft.Secret, either: weft.Secret, g=None): ...

    found = parameters(f)
    assert [found[name].type for name in "abcd"] == ["file", "url", "binary", "secret"]
    # Those that the code declares, and no others.
    assert (found["d"].enum, found["either"].enum) == (["API_KEY", "OTHER"], ["OTHER"])
    assert [param("x", type=name) and name for name in weft._signature.TYPES]


@pytest.mark.parametrize(("secrets", "enum"), [([], None), ([], ["A"]), (["A"], ["B"]), (["A"], [])])
def test_secrets_are_chosen_among_those_that_are_declared(secrets: list[str], enum: list[str] | None) -> None:
    def f(key: weft.Secret) -> None: ...

    refined = param("key", enum=enum)(f) if enum else f
    if enum == []:
        with pytest.raises(DeclarationError, match="list of values"):
            param("key", enum=enum)(f)
        return
    with pytest.raises(DeclarationError, match="secrets="):
        resolved(workflow(secrets=secrets)(refined))


@pytest.mark.parametrize(
    ("kind", "value", "wrong"),
    [
        ("url", "https://example.com", None),
        ("url", "HTTP://example.com:8080/a?b#c", None),
        ("url", "example.com", "absolute"),
        ("url", "http:example.com", "absolute"),
        ("url", "https://me:word@example.com/", "absolute"),
        ("url", "https://exa mple.com/", "absolute"),
        ("url", "javascript:alert(1)", "absolute"),
        ("url", "https://example.com/" + "a" * 2048, "at most 2048"),
        ("url", 1, "a string"),
        ("binary", "", None),
        ("binary", "w6Q=", None),
        ("binary", "w6Q", "padding"),
        ("binary", "w6Q=\n", "padding"),
        ("binary", "ä", "padding"),
        ("binary", "A" * 699_056, "at most 524288"),
        ("binary", [1], "base64"),
        ("file", {"data": "w6Q=", "name": "a.txt"}, None),
        ("file", {"artifact": "art_1"}, None),
        ("file", {"artifact": "art_1", "data": ""}, "either"),
        ("file", {"path": "/etc/passwd"}, "either"),
        ("file", {"data": "w6Q=", "path": "/etc/passwd"}, "either"),
        ("file", {"data": "w6Q"}, "padding"),
        ("file", {"data": "", "name": 1}, "strings"),
        ("file", "a", "a file"),
        ("any", [1], None),
    ],
)
def test_forms_are_looked_at(kind: str, value: Any, wrong: str | None) -> None:
    @workflow
    @param("a", type=kind)
    def f(a): ...

    if wrong is None:
        assert bind(resolved(f), {"a": value}) == {"a": value}
    else:
        with pytest.raises(InvalidInput, match=wrong):
            bind(resolved(f), {"a": value})


def positional_only(a: int, /) -> None: ...


def many(*a: int) -> None: ...


def dated(a: datetime.date) -> None: ...


def unresolved(a: Decimal) -> None: ...


def late_context(a: int, c: Context) -> None: ...


def odd_default(a: Any = {1, 2}) -> None: ...


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (positional_only, "positional-only"),
        (many, r"\*args"),
        (dated, "JSON can't carry"),
        (unresolved, "outside of `if TYPE_CHECKING`"),
        (late_context, "must be the first parameter"),
        (odd_default, "is a set"),
    ],
)
def test_refuses_signatures(function: Callable[..., Any], text: str) -> None:
    with pytest.raises(DeclarationError, match=text):
        resolved(workflow(function))


@pytest.mark.parametrize(
    ("refined", "text"),
    [
        ({"min": 1}, "for numbers"),
        ({"pattern": "x", "type": "integer"}, "for strings"),
        ({"min_length": 1, "type": "integer"}, "for strings and arrays"),
    ],
)
def test_refuses_bounds_of_another_type(refined: dict[str, Any], text: str) -> None:
    def f(a: str) -> None: ...

    with pytest.raises(DeclarationError, match=text):
        resolved(workflow(param("a", **refined)(f)))


@workflow
@param("name", min_length=2, max_length=5, pattern="^[A-Z]")
@param("count", min=1, max=3)
@param("ratio", max=0.5)
@param("items", max_length=2)
@param("one", enum=[1, "a"])
def target(
    ctx: Context,
    name: str,
    count: int = 2,
    ratio: float = 0.1,
    flag: bool = False,
    items: list[Any] | None = None,
    address: Email | None = None,
    record: dict[str, Any] | None = None,
    one: Any = None,
) -> None: ...


def test_binds_defaults_and_takes_null_as_absent() -> None:
    bound = bind(resolved(target), {"name": "Ada", "count": None})
    assert (bound["name"], bound["count"], bound["flag"], bound["items"]) == ("Ada", 2, False, None)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "`name` is required"),
        ({"name": None}, "`name` is required"),
        ({"name": 3}, "must be a string, not a number"),
        ({"name": "A"}, "at least 2 characters"),
        ({"name": "Adelaide"}, "at most 5 characters"),
        ({"name": "ada"}, "match the pattern"),
        ({"name": "Ada", "count": 1.5}, "whole number"),
        ({"name": "Ada", "count": True}, "must be a number, not a boolean"),
        ({"name": "Ada", "count": 0}, "at least 1"),
        ({"name": "Ada", "count": 4}, "at most 3"),
        ({"name": "Ada", "ratio": 0.6}, "at most 0.5"),
        ({"name": "Ada", "flag": "yes"}, "true or false"),
        ({"name": "Ada", "items": {}}, "must be an array, not an object"),
        ({"name": "Ada", "items": [1, 2, 3]}, "at most 2 items"),
        ({"name": "Ada", "address": "ada"}, "e-mail address"),
        ({"name": "Ada", "address": "ada@contoso"}, "e-mail address"),
        ({"name": "Ada", "record": []}, "must be an object"),
        ({"name": "Ada", "one": True}, "must be one of 1, a"),
        ({"name": "Ada", "nmae": "x"}, "`nmae` is unknown; known are: address"),
    ],
)
def test_refuses_arguments(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        bind(resolved(target), arguments)


def test_names_every_mistake_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        bind(resolved(target), {"count": 9, "other": 1})
    assert [error["parameter"] for error in caught.value.data["errors"]] == ["name", "count", "other"]


def test_passes_unknown_arguments_to_a_rest() -> None:
    @workflow
    def f(a: int = 1, **rest: Any) -> None: ...

    assert bind(resolved(f), {"b": 2}) == {"a": 1, "b": 2}
