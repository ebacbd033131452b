"""Arguments against a declaration's parameters: the same rules in the engine and in unit tests."""

from __future__ import annotations

import re
from binascii import a2b_base64
from typing import Any

from ._declaration import Parameter, Resolved
from ._errors import InvalidInput

URL_BYTES = 2048
INLINE_BYTES = 512 * 1024
"""Most bytes of a `binary`, and of a `file` that is given as data."""

_URL = re.compile(r"https?://[^\s/?#@\\]+([/?#][^\s\\]*)?\Z", re.IGNORECASE)
_OF_FILES = {"artifact", "data", "name", "media_type", "size", "sha256"}
_EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+\Z")


def bind(resolved: Resolved, arguments: dict[str, Any]) -> dict[str, Any]:
    """What to call the function with.

    An argument that is null counts as absent. Raises InvalidInput naming every mistake; its `data` is
    `{"errors": [{"parameter", "message"}]}`.
    """
    bound: dict[str, Any] = {}
    errors: list[tuple[str, str]] = []
    known = set()
    for parameter in resolved.parameters:
        name = parameter.name
        known.add(name)
        value = arguments.get(name)
        if value is None:
            if parameter.required:
                errors.append((name, "is required"))
            else:
                bound[name] = parameter.default
            continue
        wrong = _mistake(parameter, value)
        if wrong is None:
            bound[name] = value
        else:
            errors.append((name, wrong))
    for name, value in arguments.items():
        if name in known:
            continue
        if resolved.takes_rest:
            bound[name] = value
        else:
            errors.append((name, f"is unknown; known are: {', '.join(sorted(known)) or 'none'}"))
    if errors:
        raise InvalidInput(
            "; ".join(f"argument `{name}` {message}" for name, message in errors),
            data={"errors": [{"parameter": name, "message": message} for name, message in errors]},
        )
    return bound


def _mistake(parameter: Parameter, value: Any) -> str | None:
    kind = parameter.type
    if kind in ("string", "email", "url", "secret"):
        if not isinstance(value, str):
            return f"must be a string, not {_shown(value)}"
        if kind == "url" and (wrong := _url(value)):
            return wrong
        if kind == "email" and not (len(value) <= 254 and _EMAIL.match(value)):
            return "must be an e-mail address"
        if parameter.pattern is not None and not re.search(parameter.pattern, value):
            return f"must match the pattern {parameter.pattern}"
        wrong = _length(parameter, len(value), "characters")
    elif kind in ("integer", "number"):
        wrong = _number(parameter, value)
    elif kind == "boolean":
        wrong = None if isinstance(value, bool) else f"must be true or false, not {_shown(value)}"
    elif kind == "object":
        wrong = None if isinstance(value, dict) else f"must be an object, not {_shown(value)}"
    elif kind == "binary":
        wrong = _binary(parameter, value)
    elif kind == "file":
        wrong = _file(parameter, value)
    elif kind == "array":
        if not isinstance(value, (list, tuple)):
            return f"must be an array, not {_shown(value)}"
        wrong = _length(parameter, len(value), "items")
    else:
        wrong = None
    if wrong is None and parameter.enum is not None and not any(_same(value, one) for one in parameter.enum):
        return f"must be one of {', '.join(str(one) for one in parameter.enum)}"
    return wrong


def _url(value: str) -> str | None:
    if len(value.encode()) > URL_BYTES:
        return f"must have at most {URL_BYTES} bytes"
    if not _URL.match(value):
        return "must be an absolute http or https address without user and password"
    return None


def _binary(parameter: Parameter, value: Any) -> str | None:
    if not isinstance(value, str):
        return f"must be base64, not {_shown(value)}"
    if len(value) > -(-INLINE_BYTES // 3) * 4:
        return f"must have at most {INLINE_BYTES} bytes"
    try:
        data = a2b_base64(value.encode("ascii"), strict_mode=True) if value else b""
    except ValueError:
        return "must be base64 with padding"
    if len(data) > INLINE_BYTES:
        return f"must have at most {INLINE_BYTES} bytes"
    return _length(parameter, len(data), "bytes")


def _file(parameter: Parameter, value: Any) -> str | None:
    if not isinstance(value, dict):
        return f"must be a file, not {_shown(value)}"
    if ("artifact" in value) == ("data" in value) or not value.keys() <= _OF_FILES:
        return (
            "must be a file: an object with either `artifact` or `data`, and as wanted `name`, `media_type`"
        )
    if not all(isinstance(value[key], str) for key in value.keys() - {"size"}):
        return "must be a file, whose members are strings"
    return _binary(parameter, value["data"]) if "data" in value else None


def _number(parameter: Parameter, value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return f"must be a number, not {_shown(value)}"
    if parameter.type == "integer" and value != int(value):
        return f"must be a whole number, not {value}"
    if parameter.min is not None and value < parameter.min:
        return f"must be at least {parameter.min}"
    if parameter.max is not None and value > parameter.max:
        return f"must be at most {parameter.max}"
    return None


def _length(parameter: Parameter, length: int, unit: str) -> str | None:
    if parameter.min_length is not None and length < parameter.min_length:
        return f"must have at least {parameter.min_length} {unit}"
    if parameter.max_length is not None and length > parameter.max_length:
        return f"must have at most {parameter.max_length} {unit}"
    return None


def _same(left: Any, right: Any) -> bool:
    # True == 1 in Python, but not in JSON.
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


def _shown(value: Any) -> str:
    names = {
        bool: "a boolean",
        int: "a number",
        float: "a number",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)
