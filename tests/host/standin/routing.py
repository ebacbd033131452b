"""Route templates, and which function a request belongs to."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from .manifest import Function

_CONSTRAINTS = {
    "int": re.compile(r"^[+-]?\d+$"),
    "long": re.compile(r"^[+-]?\d+$"),
    "bool": re.compile(r"^(?i:true|false)$"),
    "alpha": re.compile(r"^[A-Za-z]*$"),
    "guid": re.compile(r"^[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}$"),
}
_PARAMETER = re.compile(r"^\{(\*{0,2})([A-Za-z_][A-Za-z0-9_]*)((?::[^:}?]+)*)(\?)?\}$")
_PATH_SAFE = "/!$&'()*+,;=:@-._~"
_KEPT = {"%2F": "\ud800", "%2f": "\ud801"}
"""The one escape that is not decoded, and stand-ins for it that no decoding can give."""


@dataclass(frozen=True)
class Segment:
    """One piece of a template: text, or a named parameter."""

    literal: str | None = None
    parameter: str = ""
    constraints: tuple[str, ...] = ()
    optional: bool = False
    catch_all: bool = False


def parse(template: str) -> list[Segment]:
    """A template in segments; ValueError for what the host would refuse or the stand-in can't read."""
    segments: list[Segment] = []
    for text in [part for part in template.split("/") if part]:
        if "{" not in text and "}" not in text:
            segments.append(Segment(literal=text))
            continue
        found = _PARAMETER.match(text)
        if found is None:
            raise ValueError(f"the route segment '{text}' can't be read")
        stars, name, constraints, optional = found.groups()
        wanted = tuple(constraint for constraint in constraints.split(":") if constraint)
        unknown = [constraint for constraint in wanted if constraint not in _CONSTRAINTS]
        if unknown:
            raise ValueError(f"the route constraint '{unknown[0]}' is not modelled by this stand-in")
        segments.append(Segment(None, name, wanted, bool(optional), bool(stars)))
    if any(segment.catch_all for segment in segments[:-1]):
        raise ValueError("a catch-all parameter must come last")
    return segments


def match(template: str, path: str) -> dict[str, str | None] | None:
    """The route values when ``path`` (normalised, encoded) fits; optional ones that are absent are None."""
    inner = path.removeprefix("/").removesuffix("/")
    parts = inner.split("/") if inner else []
    values: dict[str, str | None] = {}
    segments = parse(template)
    for index, segment in enumerate(segments):
        if segment.catch_all:
            rest = "/".join(parts[index:])
            values[segment.parameter] = unquote(rest) if rest else None
            return values
        if index >= len(parts):
            if segment.optional:
                values[segment.parameter] = None
                continue
            return None
        text = unquote(parts[index])
        if segment.literal is not None:
            if segment.literal.lower() != text.lower():
                return None
            continue
        if not text or not all(_CONSTRAINTS[name].match(text) for name in segment.constraints):
            return None
        values[segment.parameter] = text
    return values if len(parts) <= len(segments) else None


def first_match(
    functions: Iterable["Function"], method: str, path: str
) -> tuple["Function", dict[str, str | None]] | None:
    """The first function, by name, whose route and methods fit: order decides, not precision."""
    for function in functions:
        if function.template is None or (
            function.methods is not None and method.upper() not in function.methods
        ):
            continue
        values = match(function.template, path)
        if values is not None:
            return function, values
    return None


def normalise(raw_path: str) -> str:
    """The path as the host's server passes it on: decoded once but for ``%2F``, no dot segments, encoded."""
    for written, kept in _KEPT.items():
        raw_path = raw_path.replace(written, kept)
    out: list[str] = []
    parts = unquote(raw_path, errors="surrogateescape").split("/")
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "..":
            if len(out) > 1:
                out.pop()
            if last:
                out.append("")
        elif part == ".":
            if last:
                out.append("")
        else:
            out.append(part)
    # A percent sign that was itself encoded is encoded again, so that nothing is ever decoded twice.
    path = "".join(
        next((written for written, kept in _KEPT.items() if kept == char), "")
        or quote(char, safe=_PATH_SAFE, errors="surrogateescape")
        for char in "/".join(out)
    )
    return path if path.startswith("/") else "/" + path
