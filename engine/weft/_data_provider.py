"""`@data_provider`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from ._declaration import declare, number, text

F = TypeVar("F", bound=Callable[..., Any])


@overload
def data_provider(function: F, /) -> F: ...


@overload
def data_provider(
    *,
    name: str | None = None,
    description: str | None = None,
    category: str = "General",
    cache_ttl_seconds: float = 300,
    uses_caller: bool = False,
) -> Callable[[F], F]: ...


def data_provider(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    category: str = "General",
    cache_ttl_seconds: float = 300,
    uses_caller: bool = False,
) -> Any:
    """Declare a function, sync or async, that returns the options of a form field.

    It returns a list of `{"value": …, "label": …}`, with `"description"` and `"metadata"` where wanted, or of
    single values. A parameter `search: str = ""` is given what somebody types into the field; without it the
    engine searches the list.

    cache_ttl_seconds: for how long an answer may be given again, 0 to 86400; per organization, inputs,
    configuration and version of the code.
    uses_caller: whether the answer depends on who asks. Then it is kept for that caller alone; otherwise
    `ctx.caller` is not available.

    Raises DeclarationError, which says what to change.
    """
    options = {
        "name": name,
        "description": text(description, "@data_provider: description") if description is not None else None,
        "category": text(category, "@data_provider: category"),
        "uses_caller": bool(uses_caller),
        "cache_ttl_seconds": number(cache_ttl_seconds, "@data_provider: cache_ttl_seconds", 0, 86400),
    }

    def decorate(target: F) -> F:
        declare(target).set_kind("data_provider", options)
        return target

    return decorate if function is None else decorate(function)
