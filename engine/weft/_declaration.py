"""What decorators leave on a function, and what becomes of it: a description for the engine and rules for
arguments.

A decorator only notes what it was given in `function.__weft__` and checks what can be checked at once. The
whole is put together by `Declaration.resolve`, because decorators may stand in any order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ._errors import DeclarationError
from ._json import check
from ._options import Options
from ._signature import Slot, is_async, parameter_names, read, takes_rest, unwrap

ATTRIBUTE = "__weft__"
TIMEOUT_SECONDS_MAX = 24 * 60 * 60
SECRETS_MAX = 50
DOC_CHARACTERS = 4096

LIMITS = {
    "cpu_seconds": 1,
    "memory_mib": 32,
    "open_files": 32,
    "processes": 1,
    "threads": 1,
    "disk_mib": 1,
    "disk_files": 16,
}
"""What `limits=` may hold, and the least that a worker itself can do with."""

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}\Z")
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(\*\.(?=[^.]+\.))?{_LABEL}(\.{_LABEL})*\Z")
_NUMBER = re.compile(r"([0-9]+|0x[^.]*)\Z")
_IPV4 = re.compile(r"((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])(\.(?!\Z)|\Z)){4}\Z")
_IPV6 = re.compile(r"\[[0-9a-f:.]{2,45}\]\Z")
_SECRET = re.compile(r"[A-Za-z][A-Za-z0-9]*([_-][A-Za-z0-9]+)*\Z")
_PORT_OF = {"email": "string"}
_TEXTS = ("string", "email", "url", "secret")
_WITH_LENGTH = (*_TEXTS, "array", "binary", "file")
_ARTICLES = {"workflow": "a workflow", "data_provider": "a data provider", "node": "a node"}


class Retry:
    """How often and when an attempt that failed is repeated.

    attempts: all tries together, 1 to 100.
    delay_seconds: before the second try.
    backoff: `fixed`, `linear` (delay × tries so far) or `exponential` (doubled each time), never above
    max_delay_seconds.
    jitter: 0 to 1, the share of the delay that is random.
    retry_on: exception classes or their names (`TimeoutError`) to which repeats are limited; empty means any
    that doesn't say otherwise itself.
    """

    __slots__ = ("attempts", "backoff", "delay_seconds", "jitter", "max_delay_seconds", "retry_on")

    def __init__(
        self,
        attempts: int = 3,
        delay_seconds: float = 2.0,
        backoff: str = "exponential",
        max_delay_seconds: float = 60.0,
        jitter: float = 0.0,
        retry_on: Iterable[str | type[BaseException]] = (),
    ) -> None:
        if type(attempts) is not int or not 1 <= attempts <= 100:
            raise DeclarationError(f"Retry: attempts={attempts!r} must be a whole number from 1 to 100")
        if backoff not in ("fixed", "linear", "exponential"):
            raise DeclarationError(f"Retry: backoff={backoff!r} must be fixed, linear or exponential")
        self.attempts = attempts
        self.delay_seconds = number(delay_seconds, "Retry: delay_seconds", 0, TIMEOUT_SECONDS_MAX)
        self.backoff = backoff
        self.max_delay_seconds = number(max_delay_seconds, "Retry: max_delay_seconds", 0, TIMEOUT_SECONDS_MAX)
        self.jitter = number(jitter, "Retry: jitter", 0, 1)
        if isinstance(retry_on, (str, type)):
            raise DeclarationError('Retry: retry_on must be a list, as in retry_on=["TimeoutError"]')
        self.retry_on = [error if isinstance(error, str) else error.__name__ for error in retry_on]

    def to_json(self) -> dict[str, Any]:
        """As the engine reads it."""
        return {
            "attempts": self.attempts,
            "delay_seconds": self.delay_seconds,
            "backoff": self.backoff,
            "max_delay_seconds": self.max_delay_seconds,
            "jitter": self.jitter,
            "retry_on": list(self.retry_on),
        }

    def __repr__(self) -> str:
        return f"Retry({', '.join(f'{key}={value!r}' for key, value in self.to_json().items())})"


class Parameter:
    """A parameter with all that signature and `@param` say. `slots` are the keys of its JSON."""

    __slots__ = (
        "data_provider",
        "default",
        "enum",
        "has_default",
        "help",
        "label",
        "max",
        "max_length",
        "min",
        "min_length",
        "name",
        "options",
        "pattern",
        "required",
        "type",
    )

    def __init__(self, slot: Slot, refined: dict[str, Any]) -> None:
        where = f"parameter `{slot.name}`"
        self.name: str = slot.name
        self.has_default: bool = slot.has_default or "default" in refined
        self.default: Any = refined.get("default", slot.default)
        self.type: str = refined.get("type") or slot.type or _type_of_default(self.default)
        self.enum: list[Any] | None = refined.get("enum", slot.enum)
        self.required: bool = refined.get("required", not (self.has_default or slot.optional))
        self.label: str = refined.get("label") or slot.name.replace("_", " ").strip().capitalize()
        self.help: str | None = refined.get("help")
        self.min: float | None = refined.get("min")
        self.max: float | None = refined.get("max")
        self.min_length: int | None = refined.get("min_length")
        self.max_length: int | None = refined.get("max_length")
        self.pattern: str | None = refined.get("pattern")
        self.data_provider: str | None = refined.get("data_provider")
        options: Options | None = refined.get("options", slot.options)
        if options is not None and self.data_provider is not None:
            raise DeclarationError(
                f"{where} has both Options(…) and data_provider=; leave data_provider out, "
                "which is short for Options without inputs"
            )
        self.options: dict[str, Any] | None = options.to_json() if options is not None else None
        if (self.min is not None or self.max is not None) and self.type not in ("integer", "number"):
            raise DeclarationError(f"{where}: min and max are for numbers, but its type is {self.type}")
        if (self.min_length is not None or self.max_length is not None) and self.type not in _WITH_LENGTH:
            raise DeclarationError(
                f"{where}: min_length and max_length are for strings and arrays, not {self.type}"
            )
        if self.pattern is not None and self.type not in _TEXTS:
            raise DeclarationError(f"{where}: pattern is for strings, but its type is {self.type}")
        try:
            check(self.default, "default")
        except (TypeError, ValueError) as error:
            raise DeclarationError(f"{where}: {error}; or take None and set it in the function") from None

    def to_json(self) -> dict[str, Any]:
        """As the engine reads it."""
        return {key: getattr(self, key) for key in self.__slots__}


class Resolved:
    """A declaration put together: who is called, and with what."""

    __slots__ = ("parameters", "takes_context", "takes_rest")

    def __init__(self, parameters: list[Parameter], takes_context: bool, takes_rest: bool) -> None:
        self.parameters = parameters
        self.takes_context = takes_context
        self.takes_rest = takes_rest


class Declaration:
    """What the decorators of one function said. `kind` is None while only `@param` was seen."""

    __slots__ = ("_resolved", "function", "kind", "options", "refined")

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = unwrap(function)
        self.kind: str | None = None
        self.options: dict[str, Any] = {}
        self.refined: dict[str, dict[str, Any]] = {}
        self._resolved: Resolved | None = None

    @property
    def name(self) -> str:
        """The declared name: `name=`, or the function's."""
        return self.options.get("name") or self.function.__name__

    def set_kind(self, kind: str, options: dict[str, Any]) -> None:
        """Make it a workflow, data provider or node; DeclarationError where it is one already."""
        if self.kind is not None:
            raise DeclarationError(
                f"function `{self.function.__name__}` is already declared as {_ARTICLES[self.kind]}; "
                "use one decorator per function"
            )
        checked_name(options.get("name") or self.function.__name__, kind)
        self.kind = kind
        self.options = options

    def refine(self, name: str, refined: dict[str, Any]) -> None:
        """Note what `@param` says about one parameter; DeclarationError for one that the function lacks."""
        if name not in parameter_names(self.function) and not takes_rest(self.function):
            known = ", ".join(parameter_names(self.function)) or "none"
            raise DeclarationError(
                f"@param names `{name}`, but function `{self.function.__name__}` has no such parameter "
                f"(it has: {known}); correct the name or add the parameter"
            )
        if name in self.refined:
            raise DeclarationError(
                f"function `{self.function.__name__}`: @param names `{name}` twice; put it into one"
            )
        self.refined[name] = refined

    def resolve(self) -> Resolved:
        """Signature and `@param` together. Raises DeclarationError where they are not usable."""
        if self._resolved is None:
            signature = read(self.function)
            parameters = [Parameter(slot, self.refined.get(slot.name, {})) for slot in signature.slots]
            known = {parameter.name for parameter in parameters}
            for name in sorted(self.refined.keys() - known):
                if signature.takes_context and name == parameter_names(self.function)[0]:
                    raise DeclarationError(f"@param names `{name}`, which is the context; remove it")
                parameters.append(Parameter(rest_slot(name), self.refined[name]))
            for parameter in parameters:
                if parameter.type == "secret":
                    self._choose_among_secrets(parameter)
            self._resolved = Resolved(parameters, signature.takes_context, signature.takes_rest)
        return self._resolved

    def _inputs(self, given: list[dict[str, Any]] | None, settings: list[str]) -> list[dict[str, Any]]:
        """The ports of a node: those that it names, else its parameters without settings and secrets."""
        parameters = {parameter.name: parameter for parameter in self.resolve().parameters}
        multiple = self.options["multiple"]
        ports = given
        if ports is None:
            ports = [
                {"name": name, "type": "any" if name in multiple else _PORT_OF.get(one.type, one.type)}
                for name, one in parameters.items()
                if name not in settings and one.type != "secret"
            ]
        where = f"function `{self.function.__name__}`"
        for port in ports:
            one = parameters.get(port["name"])
            if one is not None and one.type == "secret":
                raise DeclarationError(
                    f"{where}: parameter `{one.name}` is a secret, which no edge may choose; "
                    "take it out of inputs"
                )
            if port["name"] in multiple:
                if one is not None and one.type not in ("array", "json", "any"):
                    raise DeclarationError(
                        f"{where}: parameter `{one.name}` takes several edges, so what comes is a list; "
                        "annotate it as list"
                    )
                port["multiple"] = True
        for name in multiple:
            if not any(port["name"] == name for port in ports):
                raise DeclarationError(
                    f"{where}: multiple names `{name}`, which is no input; correct the name"
                )
        return ports

    def _choose_among_secrets(self, parameter: Parameter) -> None:
        """A caller chooses among the secrets that the code declares, and no others."""
        declared = self.options.get("secrets") or []
        chosen = declared if parameter.enum is None else parameter.enum
        if not chosen or not all(name in declared for name in chosen):
            raise DeclarationError(
                f"function `{self.function.__name__}`: parameter `{parameter.name}` chooses a secret, so the "
                'decorator must name those that there are to choose from, as in secrets=["API_KEY"]'
                + (", and enum= only some of these" if declared else "")
            )
        parameter.enum = list(chosen)

    def describe(self, attribute: str) -> dict[str, Any]:
        """The JSON by which the engine knows it; `attribute` is its name in the module."""
        if self.kind is None:
            raise DeclarationError(
                f"function `{self.function.__name__}` has @param, but is no workflow, data provider or node; "
                "add @workflow"
            )
        doc = (self.function.__doc__ or "").strip()[:DOC_CHARACTERS]
        described = {
            "name": self.name,
            "function": attribute,
            "line": self.function.__code__.co_firstlineno,
            **{key: value for key, value in self.options.items() if key != "name"},
            "is_async": is_async(self.function),
            "doc": doc,
            "parameters": [parameter.to_json() for parameter in self.resolve().parameters],
        }
        if self.kind == "node":
            described["inputs"] = self._inputs(described["inputs"], described["settings"])
            described.pop("multiple")
        if not described.get("description"):
            described["description"] = doc.split("\n\n")[0].replace("\n", " ").strip()
        return described


def declaration_of(function: object) -> Declaration | None:
    """What decorators left on a function, if any did."""
    found = getattr(function, ATTRIBUTE, None)
    return found if isinstance(found, Declaration) else None


def declare(function: Callable[..., Any]) -> Declaration:
    """The function's declaration, begun if there is none yet."""
    found = declaration_of(function)
    if found is None:
        found = Declaration(function)
        setattr(function, ATTRIBUTE, found)
    return found


def rest_slot(name: str) -> Slot:
    """A parameter that only `@param` names, received by `**rest`."""
    slot = Slot(name, None)
    slot.has_default = False
    return slot


def checked_name(name: object, kind: str) -> str:
    """A name as URLs carry it; DeclarationError otherwise."""
    if isinstance(name, str) and _NAME.match(name):
        return name
    raise DeclarationError(
        f"{name!r} can't be the name of {_ARTICLES[kind]}: it must begin with a lower-case letter and have "
        f'up to 63 lower-case letters, digits, `_` and `-`; give one with name="…"'
    )


def text(value: object, where: str) -> str:
    """A string, or DeclarationError."""
    if isinstance(value, str):
        return value
    raise DeclarationError(f"{where} must be a string, not {value!r:.80}")


def texts(value: object, where: str) -> list[str]:
    """A list of strings, or DeclarationError; a single string is a common slip and refused."""
    if isinstance(value, (list, tuple, set, frozenset)) and all(isinstance(item, str) for item in value):
        return sorted(value) if isinstance(value, (set, frozenset)) else list(value)
    raise DeclarationError(f'{where} must be a list of strings, as in ["one", "two"], not {value!r:.80}')


def number(value: object, where: str, low: float, high: float) -> float:
    """A finite number within bounds, or DeclarationError."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise DeclarationError(f"{where}={value!r:.80} must be a number from {low} to {high}")


def resources(value: Mapping[str, int] | None, where: str) -> dict[str, int]:
    """What `limits=` declares, in a fixed order; DeclarationError for names and values that mean nothing."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise DeclarationError(f'{where} must be a dict, as in {{"memory_mib": 256}}, not {value!r:.80}')
    for name, amount in value.items():
        if name not in LIMITS:
            raise DeclarationError(f"{where}: there is no limit {name!r:.80}; there are {', '.join(LIMITS)}")
        if type(amount) is not int or not LIMITS[name] <= amount <= 2**40:
            raise DeclarationError(
                f"{where}: {name}={amount!r:.80} must be a whole number from {LIMITS[name]}"
            )
    return {name: value[name] for name in LIMITS if name in value}


def hosts(value: object, where: str) -> list[str]:
    """Hosts for `network=`: a list, `"none"` or `"*"`; DeclarationError for URLs and the like."""
    if value == "none":
        return []
    if value == "*":
        return ["*"]
    names = [name.lower() for name in texts(value, where)]
    for name in names:
        if name != "*" and (wrong := _wrong_with_host(name)):
            raise DeclarationError(f"{where}: {name!r} is no host: {wrong}")
    return names


def _wrong_with_host(text: str) -> str | None:
    """What keeps a text from naming a host, as the engine's HostPattern reads it."""
    if any(sign in text for sign in ("/", "?", "#", "@")):
        return "write it without scheme, path and user, as api.example.com"
    if not text.isascii():
        return "write it in ASCII, as xn--…"
    host, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):
        host = text
    elif not (port.isdecimal() and len(port) < 6 and 0 < int(port) < 65536):
        return "the port must be a number from 1 to 65535; an IPv6 address stands in brackets"
    if _IPV4.match(host) or _IPV6.match(host):
        return None
    name = host.removesuffix(".")
    if len(name) > 253 or _NUMBER.match(name.rpartition(".")[2]) or not _HOST.match(name):
        return "write api.example.com, *.example.com or api.example.com:8443, or * alone for any"
    return None


def secret_names(value: object, where: str) -> list[str]:
    """Names for `secrets=`: a list without doubles; DeclarationError for what can't name a secret."""
    names = texts(value, where)
    for name in names:
        if len(name) > 64 or not _SECRET.match(name):
            raise DeclarationError(
                f"{where}: {name!r:.80} can't name a secret; use letters and digits, with single _ or - "
                "between them"
            )
    if len(names) > SECRETS_MAX:
        raise DeclarationError(f"{where}: {len(names)} secrets; the limit is {SECRETS_MAX}")
    return list(dict.fromkeys(names))


def _type_of_default(default: object) -> str:
    if isinstance(default, bool):
        return "boolean"
    for kind, name in (
        (str, "string"),
        (int, "integer"),
        (float, "number"),
        (dict, "object"),
        (list, "array"),
    ):
        if isinstance(default, kind):
            return name
    return "json"
