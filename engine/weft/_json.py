"""Which Python values may leave a step: exactly those that are JSON on both sides of the wire.

`json.dumps` alone is too lenient (it turns the key 1 into "1", writes NaN and lone surrogates) and its
errors don't say where the trouble is. `check` walks a value first; `encode` then writes it.
"""

from __future__ import annotations

from json import JSONEncoder
from typing import Any

MAX_DEPTH = 100
"""Containers within containers. Readers stop at 128; a frame adds a few of its own."""

_MIN_INTEGER = -(2**63)
_MAX_INTEGER = 2**64 - 1
_INFINITY = float("inf")
_REMEDIES = {
    "datetime": "convert it with .isoformat()",
    "date": "convert it with .isoformat()",
    "time": "convert it with .isoformat()",
    "timedelta": "convert it with .total_seconds()",
    "Decimal": "convert it with str() or float()",
    "UUID": "convert it with str()",
    "PosixPath": "convert it with str()",
    "bytes": "decode it with .decode(), or use base64.b64encode(...).decode()",
    "bytearray": "decode it with .decode(), or use base64.b64encode(...).decode()",
    "set": "convert it with sorted() or list()",
    "frozenset": "convert it with sorted() or list()",
    "generator": "convert it with list()",
    "dict_keys": "convert it with list()",
    "dict_values": "convert it with list()",
    "coroutine": "await it",
}

_encoder = JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":"))


def encode(value: Any) -> bytes:
    """UTF-8 JSON without spaces. The value must have passed `check`."""
    return _encoder.encode(value).encode()


def check(value: Any, name: str) -> int:
    """Refuse what isn't JSON, with the place in the message: `result.items[3].when is a datetime; …`.

    Returns a lower bound in bytes for the encoded size, found without encoding, so that a huge value is
    known to be too large before memory is spent on it. Raises TypeError or ValueError.
    """
    return _check(value, name, 0)


def _check(value: Any, path: str, depth: int) -> int:
    kind = type(value)
    if kind is str:
        return _check_string(value, path)
    if value is None or kind is bool:
        return 4
    if kind is int:
        return _check_integer(value, path)
    if kind is float:
        return _check_float(value, path)
    if isinstance(value, dict):
        if depth >= MAX_DEPTH:
            raise _too_deep(path)
        size = 1
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(
                    f"{path} has the key {key!r:.60} of type {type(key).__name__}; keys must be strings"
                )
            if item is None or item is True or item is False:
                size += 6 + _check_string(key, path)
            else:
                size += 2 + _check_string(key, path) + _check(item, f"{path}.{key:.60}", depth + 1)
        return size
    if isinstance(value, (list, tuple)):
        if depth >= MAX_DEPTH:
            raise _too_deep(path)
        size = 1
        for index, item in enumerate(value):
            item_kind = type(item)
            if item_kind is str and item.isascii():
                size += 3 + len(item)
            elif item_kind is int and -1_000_000_000 < item < 1_000_000_000:
                size += 2
            else:
                size += 1 + _check(item, f"{path}[{index}]", depth + 1)
        return size
    if isinstance(value, str):
        return _check_string(value, path)
    if isinstance(value, int):
        return _check_integer(value, path)
    if isinstance(value, float):
        return _check_float(value, path)
    article = "an" if kind.__name__[:1].lower() in "aeio" else "a"
    remedy = _REMEDIES.get(kind.__name__, "return dicts, lists, strings, numbers, booleans or None")
    raise TypeError(f"{path} is {article} {kind.__name__}; {remedy}")


def _check_string(value: str, path: str) -> int:
    if not value.isascii():
        try:
            return len(value.encode()) + 2
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{path} holds half of a surrogate pair at position {error.start}, which is no character; "
                'clean it with .encode("utf-8", "replace").decode()'
            ) from None
    return len(value) + 2


def _check_integer(value: int, path: str) -> int:
    if _MIN_INTEGER <= value <= _MAX_INTEGER:
        return 1
    raise ValueError(f"{path} is an integer of more than 64 bits; convert it with str()")


def _check_float(value: float, path: str) -> int:
    if value - value == 0.0:
        return 3
    shown = "NaN" if value != value else "Infinity" if value == _INFINITY else "-Infinity"
    raise ValueError(f"{path} is {shown}, which JSON doesn't have; use None or a string")


def _too_deep(path: str) -> ValueError:
    return ValueError(f"{path[:200]} is nested deeper than {MAX_DEPTH} levels, or contains itself")
