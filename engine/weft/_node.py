"""`@node`: a function as a box of the graph editor."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, overload

from ._declaration import Retry, declare, texts
from ._errors import DeclarationError
from ._signature import parameter_names, takes_rest
from ._workflow import step_options

F = TypeVar("F", bound=Callable[..., Any])

PORT_TYPES = (
    "any",
    "array",
    "binary",
    "boolean",
    "file",
    "integer",
    "json",
    "number",
    "object",
    "string",
    "url",
)
_PORT_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")
_VERSION = re.compile(r"\d{1,9}(\.\d{1,9}){0,2}\Z")


@overload
def node(function: F, /) -> F: ...


@overload
def node(
    *,
    name: str | None = None,
    version: str = "1.0.0",
    description: str | None = None,
    category: str = "General",
    tags: Iterable[str] = (),
    inputs: Mapping[str, str] | None = None,
    outputs: Mapping[str, str] | None = None,
    multiple: Iterable[str] = (),
    settings: Iterable[str] = (),
    trust: str = "restricted",
    timeout_seconds: float = 300,
    limits: Mapping[str, int] | None = None,
    retry: Retry | None = None,
    network: Iterable[str] | str = (),
    secrets: Iterable[str] = (),
    on_crash: str = "retry",
) -> Callable[[F], F]: ...


def node(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    version: str = "1.0.0",
    description: str | None = None,
    category: str = "General",
    tags: Iterable[str] = (),
    inputs: Mapping[str, str] | None = None,
    outputs: Mapping[str, str] | None = None,
    multiple: Iterable[str] = (),
    settings: Iterable[str] = (),
    trust: str = "restricted",
    timeout_seconds: float = 300,
    limits: Mapping[str, int] | None = None,
    retry: Retry | None = None,
    network: Iterable[str] | str = (),
    secrets: Iterable[str] = (),
    on_crash: str = "retry",
) -> Any:
    """Declare a function, sync or async, as a node type. The other arguments are those of `@workflow`.

    inputs: port name → port type, for parameters that are fed by edges; by default every parameter that is no
    setting and no secret. outputs: port name → port type; by default one port `result` of type `any`. With
    several, the function returns a dict with these keys; one alone is what it returns. multiple: inputs to
    which several edges may lead; what comes is a list, in the order of the edges. settings: names of the
    parameters that are set in the editor.
    trust: `restricted`, or `trusted`, which an administrator must allow.

    Raises DeclarationError, which says what to change.
    """
    if trust not in ("restricted", "trusted"):
        raise DeclarationError(f'@node: trust={trust!r} must be "restricted" or "trusted"')
    if not isinstance(version, str) or not _VERSION.match(version):
        raise DeclarationError(f'@node: version={version!r} must be numbers with dots, as in "1.2.0"')
    options = step_options(
        "@node",
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
    chosen = texts(settings, "@node: settings")
    ports = _ports(inputs, "inputs") if inputs is not None else None
    options["version"] = version
    options["outputs"] = (
        _ports(outputs, "outputs") if outputs is not None else [{"name": "result", "type": "any"}]
    )
    options["settings"] = chosen
    options["multiple"] = texts(multiple, "@node: multiple")
    options["trust"] = trust

    def decorate(target: F) -> F:
        declaration = declare(target)
        names = parameter_names(declaration.function)
        wanted = chosen + [port["name"] for port in ports or ()]
        for wrong in wanted if not takes_rest(declaration.function) else ():
            if wrong not in names:
                raise DeclarationError(
                    f"@node names `{wrong}`, but function `{declaration.function.__name__}` has no such "
                    "parameter; correct the name or add the parameter"
                )
        declaration.set_kind("node", {**options, "inputs": ports})
        return target

    return decorate if function is None else decorate(function)


def _ports(given: Mapping[str, str], where: str) -> list[dict[str, str]]:
    if not isinstance(given, Mapping):
        raise DeclarationError(f'@node: {where} must be a dict, as in {{"url": "string"}}, not {given!r:.80}')
    for name, kind in given.items():
        if not isinstance(name, str) or not _PORT_NAME.match(name):
            raise DeclarationError(
                f"@node: {where}: {name!r} can't be a port's name; use lower-case letters, digits, _"
            )
        if kind not in PORT_TYPES:
            raise DeclarationError(
                f"@node: {where}: port `{name}` has an unknown type {kind!r}; use {', '.join(PORT_TYPES)}"
            )
    return [{"name": name, "type": kind} for name, kind in given.items()]
