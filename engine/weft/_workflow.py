"""`@workflow` and `@param`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, overload

from ._declaration import (
    TIMEOUT_SECONDS_MAX,
    Retry,
    declare,
    hosts,
    number,
    resources,
    secret_names,
    text,
    texts,
)
from ._errors import DeclarationError
from ._json import check
from ._options import Options
from ._signature import type_name

F = TypeVar("F", bound=Callable[..., Any])

_NO_RETRY = Retry(attempts=1)
_UNSET: Any = object()
_PROFILES = ("plan_only", "restricted", "standard", "elevated")


def step_options(
    what: str,
    *,
    name: str | None,
    description: str | None,
    category: str,
    tags: Iterable[str],
    timeout_seconds: float,
    limits: Mapping[str, int] | None,
    retry: Retry | None,
    network: Iterable[str] | str,
    secrets: Iterable[str],
    on_crash: str,
) -> dict[str, Any]:
    """What workflows and nodes have in common, checked, in the form that describes them."""
    if on_crash not in ("retry", "fail"):
        raise DeclarationError(f'{what}: on_crash={on_crash!r} must be "retry" or "fail"')
    if retry is not None and not isinstance(retry, Retry):
        raise DeclarationError(f"{what}: retry must be Retry(…) or None, not {retry!r:.80}")
    return {
        "name": name,
        "description": text(description, f"{what}: description") if description is not None else None,
        "category": text(category, f"{what}: category"),
        "tags": texts(tags, f"{what}: tags"),
        "timeout_seconds": number(timeout_seconds, f"{what}: timeout_seconds", 1, TIMEOUT_SECONDS_MAX),
        "limits": resources(limits, f"{what}: limits"),
        "retry": (retry or _NO_RETRY).to_json(),
        "network": hosts(network, f"{what}: network"),
        "secrets": secret_names(secrets, f"{what}: secrets"),
        "on_crash": on_crash,
    }


@overload
def workflow(function: F, /) -> F: ...


@overload
def workflow(
    *,
    name: str | None = None,
    description: str | None = None,
    category: str = "General",
    tags: Iterable[str] = (),
    timeout_seconds: float = 300,
    limits: Mapping[str, int] | None = None,
    retry: Retry | None = None,
    network: Iterable[str] | str = (),
    secrets: Iterable[str] = (),
    on_crash: str = "retry",
    security_profile: str | None = None,
) -> Callable[[F], F]: ...


def workflow(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    category: str = "General",
    tags: Iterable[str] = (),
    timeout_seconds: float = 300,
    limits: Mapping[str, int] | None = None,
    retry: Retry | None = None,
    network: Iterable[str] | str = (),
    secrets: Iterable[str] = (),
    on_crash: str = "retry",
    security_profile: str | None = None,
) -> Any:
    """Declare a function, sync or async, as a workflow. It stays the same, callable function.

    name: how callers address it, `^[a-z][a-z0-9_-]{0,62}$`; the function's name by default.
    description: one sentence; the docstring's first paragraph by default.
    timeout_seconds: 1 to 86400; an attempt that takes longer is killed.
    limits: what an attempt may use with all that it starts, as in `{"memory_mib": 256, "processes": 4}`; also
    `cpu_seconds`, `threads`, `open_files`, `disk_mib`, `disk_files`. The installation's settings are the
    defaults, and nothing can be above them.
    retry: when a failed attempt is repeated; None never.
    network: hosts that it may reach, as `["api.example.com", "*.example.org", "db.example.net:5432"]`, at
    ports 80 and 443 where none is named; `"none"` by default, `"*"` for any. Policies may refuse some.
    secrets: names of the secrets that it may ask for by `ctx.secrets`.
    on_crash: `retry` an attempt whose machine died, or `fail`, where a second effect would do harm.
    security_profile: `plan_only`, `restricted`, `standard` or `elevated`, to be held to it where the
    installation and the policies would allow more.

    Raises DeclarationError, which says what to change.
    """
    if security_profile is not None and security_profile not in _PROFILES:
        raise DeclarationError(
            f"@workflow: security_profile={security_profile!r:.80} must be one of "
            + ", ".join(f'"{profile}"' for profile in _PROFILES)
        )
    options = step_options(
        "@workflow",
        name=name,
        description=description,
        category=category,
        tags=tags,
        timeout_seconds=timeout_seconds,
        limits=limits,
        retry=retry,
        network=network,
        secrets=secrets,
        on_crash=on_crash,
    )
    if security_profile is not None:
        options["security_profile"] = security_profile

    def decorate(target: F) -> F:
        declare(target).set_kind("workflow", options)
        return target

    return decorate if function is None else decorate(function)


def param(
    name: str,
    *,
    type: object = None,
    label: str | None = None,
    required: bool | None = None,
    default: Any = _UNSET,
    help: str | None = None,
    min: float | None = None,
    max: float | None = None,
    min_length: int | None = None,
    max_length: int | None = None,
    pattern: str | None = None,
    enum: Iterable[Any] | None = None,
    data_provider: str | None = None,
    options: Options | None = None,
) -> Callable[[F], F]:
    """Refine one parameter beyond what its annotation says; above or below `@workflow`.

    type: `string`, `integer`, `number`, `boolean`, `object`, `array`, `email`, `json`, `file`, `url`,
    `binary`, `any`, `secret`, or a Python type.
    min, max: bounds of a number. min_length, max_length: of a string (characters) or array (items).
    pattern: a regular expression that must be found in the string; anchor it with ^ and $.
    enum: the values allowed. options: the data provider that offers values, `Options(…)`; `data_provider`,
    its name alone, where nothing is given to it.

    Raises DeclarationError, which says what to change.
    """
    where = f"@param({name!r})"
    refined: dict[str, Any] = {}
    if type is not None:
        refined["type"] = type_name(type, where)
    for key, value in (("label", label), ("help", help), ("data_provider", data_provider)):
        if value is not None:
            refined[key] = text(value, f"{where}: {key}")
    if options is not None:
        if not isinstance(options, Options):
            raise DeclarationError(f'{where}: options must be Options("…"), not {options!r:.80}')
        refined["options"] = options
    if required is not None:
        refined["required"] = bool(required)
    if default is not _UNSET:
        refined["default"] = default
    for key, bound in (("min", min), ("max", max)):
        if bound is not None:
            refined[key] = number(bound, f"{where}: {key}", -1e300, 1e300)
    for key, length in (("min_length", min_length), ("max_length", max_length)):
        if length is not None:
            refined[key] = int(number(length, f"{where}: {key}", 0, 2**31))
    if min is not None and max is not None and min > max:
        raise DeclarationError(f"{where}: min={min} is above max={max}")
    if min_length is not None and max_length is not None and min_length > max_length:
        raise DeclarationError(f"{where}: min_length={min_length} is above max_length={max_length}")
    if pattern is not None:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise DeclarationError(
                f"{where}: pattern={pattern!r} is no regular expression: {error}"
            ) from None
        refined["pattern"] = pattern
    if enum is not None:
        values = [enum] if isinstance(enum, str) else list(enum)
        if isinstance(enum, str) or not values:
            raise DeclarationError(f'{where}: enum must be a list of values, as in enum=["a", "b"]')
        try:
            check(values, "enum")
        except (TypeError, ValueError) as error:
            raise DeclarationError(f"{where}: {error}") from None
        refined["enum"] = values

    def decorate(target: F) -> F:
        declare(target).refine(name, refined)
        return target

    return decorate
