"""Signatures and annotations → parameters of a step. Without `inspect`, which costs more than the SDK."""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NewType, Union, get_origin

from ._context import Context
from ._errors import DeclarationError
from ._options import Options

Email = NewType("Email", str)
"""Annotation for a string that must look like an e-mail address."""

Url = NewType("Url", str)
"""Annotation for an absolute `http` or `https` address of at most 2048 bytes, without user and password."""

Binary = NewType("Binary", str)
"""Annotation for bytes as base64 with padding, at most 512 KiB of them."""

File = NewType("File", dict[str, Any])
"""Annotation for a file: `{"data": base64, "name": …}`, or `{"artifact": id}` of the same run.

`ctx.artifacts.content(file)` gives its bytes.
"""

Secret = NewType("Secret", str)
"""Annotation for the name of a secret, one of those in `secrets=` of the decorator; never its value."""

TYPES = (
    "string",
    "integer",
    "number",
    "boolean",
    "object",
    "array",
    "email",
    "json",
    "file",
    "url",
    "binary",
    "any",
    "secret",
)

_BY_CLASS: dict[Any, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    dict: "object",
    list: "array",
    tuple: "array",
    Mapping: "object",
    Sequence: "array",
    Any: "json",
    object: "json",
    Email: "email",
    Url: "url",
    Binary: "binary",
    File: "file",
    Secret: "secret",
}
_ALIASES = {
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "dict": "object",
    "list": "array",
}
_POSITIONAL_REST = 0x04
_NAMED_REST = 0x08
_COROUTINE = 0x80
_CONTEXT_NAMES = ("ctx", "context")
_NO_DEFAULT: Any = object()


class Slot:
    """One parameter as the signature alone tells it. `type` is None where there is no annotation."""

    __slots__ = ("default", "enum", "has_default", "name", "optional", "options", "type")

    def __init__(self, name: str, default: Any) -> None:
        self.name = name
        self.has_default = default is not _NO_DEFAULT
        self.default = default if self.has_default else None
        self.optional = False
        self.type: str | None = None
        self.enum: list[Any] | None = None
        self.options: Options | None = None


class Signature:
    """`slots` in order without the context; `takes_context`: the first parameter is one;
    `takes_rest`: there is a `**name`."""

    __slots__ = ("slots", "takes_context", "takes_rest")

    def __init__(self, slots: list[Slot], takes_context: bool, takes_rest: bool) -> None:
        self.slots = slots
        self.takes_context = takes_context
        self.takes_rest = takes_rest


def unwrap(function: Callable[..., Any]) -> types.FunctionType:
    """The plain function below `functools.wraps` wrappers; DeclarationError where there is none."""
    inner: Any = function
    while hasattr(inner, "__wrapped__"):
        inner = inner.__wrapped__
    if not isinstance(inner, types.FunctionType):
        kind = "class" if isinstance(inner, type) else type(inner).__name__
        raise DeclarationError(
            f"a decorator of weft was put on a {kind}; put it on a function that is defined with `def`"
        )
    return inner


def is_async(function: types.FunctionType) -> bool:
    """Whether it was defined with `async def`."""
    return bool(function.__code__.co_flags & _COROUTINE)


def parameter_names(function: types.FunctionType) -> tuple[str, ...]:
    """Positional and keyword-only names, in order."""
    code = function.__code__
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]


def takes_rest(function: types.FunctionType) -> bool:
    """Whether there is a `**name`."""
    return bool(function.__code__.co_flags & _NAMED_REST)


def type_name(given: object, where: str) -> str:
    """The protocol's name for `type=` of `@param`: one of `TYPES`, a usual alias, or a Python type."""
    if isinstance(given, str):
        name = _ALIASES.get(given, given)
        if name in TYPES:
            return name
    else:
        slot = Slot("", _NO_DEFAULT)
        if _fill(slot, given) and slot.type is not None and slot.enum is None:
            return slot.type
    raise DeclarationError(f"{where}: type={given!r} is unknown; use one of {', '.join(TYPES)}")


def read(function: types.FunctionType) -> Signature:
    """Raises DeclarationError for what can't be called with named JSON values."""
    code = function.__code__
    where = f"function `{function.__name__}`"
    if code.co_flags & _POSITIONAL_REST:
        raise DeclarationError(f"{where} takes *args, but arguments have names; name its parameters")
    names = parameter_names(function)
    annotations = function.__annotations__
    defaults = function.__defaults__ or ()
    first_default = code.co_argcount - len(defaults)
    named_defaults = function.__kwdefaults__ or {}
    context = bool(code.co_argcount) and _is_context(names[0], annotations.get(names[0]), function)
    if code.co_posonlyargcount > (1 if context else 0):
        raise DeclarationError(
            f"{where} has positional-only parameters, but arguments have names; remove the `/`"
        )
    slots = []
    for index, name in enumerate(names):
        if index == 0 and context:
            continue
        if first_default <= index < code.co_argcount:
            default = defaults[index - first_default]
        else:
            default = named_defaults.get(name, _NO_DEFAULT)
        slot = Slot(name, default)
        if name in annotations:
            annotation = _resolve(annotations[name], name, function)
            if annotation is Context:
                raise DeclarationError(f"{where}: the context must be the first parameter, not `{name}`")
            if not _fill(slot, annotation):
                raise DeclarationError(
                    f"{where}: parameter `{name}` is annotated {_shown(annotation)}, which JSON can't carry; "
                    "use str, int, float, bool, dict, list, Email, Url, File, Any, Literal[…] or one of them "
                    "with `| None`, and convert inside the function"
                )
        slots.append(slot)
    return Signature(slots, context, takes_rest(function))


def _is_context(name: str, annotation: Any, function: types.FunctionType) -> bool:
    if annotation is Context or name in _CONTEXT_NAMES:
        return True
    if not isinstance(annotation, str):
        return False
    if annotation.split(".")[-1].strip("'\"") == "Context":
        return True
    try:
        return _resolve(annotation, name, function) is Context
    except DeclarationError:
        return False


def _resolve(annotation: Any, name: str, function: types.FunctionType) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        # The text is the module's own code, which `from __future__ import annotations` only defers.
        resolved = eval(annotation, function.__globals__)
    except Exception as error:
        raise DeclarationError(
            f"function `{function.__name__}`: the annotation `{annotation}` of parameter `{name}` can't be "
            f"resolved ({error}); import what it names outside of `if TYPE_CHECKING`"
        ) from None
    return _resolve(resolved, name, function)


def _fill(slot: Slot, annotation: Any) -> bool:
    """Set type, enum and optional from an annotation; False where JSON can't carry it."""
    try:
        known = _BY_CLASS.get(annotation)
    except TypeError:
        known = None
    if known is not None:
        slot.type = known
        return True
    if annotation is None or annotation is type(None):
        slot.type = "json"
        slot.optional = True
        return True
    origin = get_origin(annotation)
    if origin is Annotated:
        for said in annotation.__metadata__:
            if isinstance(said, Options):
                slot.options = said
        return _fill(slot, annotation.__origin__)
    if origin is Literal:
        return _fill_literal(slot, annotation.__args__)
    if origin is Union or origin is types.UnionType:
        members = [member for member in annotation.__args__ if member is not type(None)]
        slot.optional = slot.optional or len(members) < len(annotation.__args__)
        if len(members) == 1:
            return _fill(slot, members[0])
        slot.type = "json"
        return all(_fill(Slot("", _NO_DEFAULT), member) for member in members)
    if origin is not None:
        return _fill(slot, origin)
    supertype = getattr(annotation, "__supertype__", None)
    if supertype is not None:
        return _fill(slot, supertype)
    if isinstance(annotation, type) and issubclass(annotation, dict):
        slot.type = "object"
        return True
    return False


def _fill_literal(slot: Slot, values: tuple[Any, ...]) -> bool:
    slot.optional = slot.optional or None in values
    chosen = [value for value in values if value is not None]
    kinds = {type(value) for value in chosen}
    if not chosen or not kinds <= {str, int, bool}:
        return False
    slot.enum = chosen
    slot.type = _BY_CLASS[kinds.pop()] if len(kinds) == 1 else "json"
    return True


def _shown(annotation: Any) -> str:
    return getattr(annotation, "__name__", None) or repr(annotation)
