"""Frames on the attempt socket and messages on the control socket. Twin of `src/runner/protocol.rs`; the
contract is docs/runner-protocol.md, and `tests/golden/protocol/` holds an example of each.

A frame is four bytes of length, big-endian, and that many bytes of UTF-8 JSON. A control message is one
JSON object per datagram.
"""

from __future__ import annotations

import os
import re
from json import JSONDecoder, JSONEncoder
from typing import Any, TypeAlias

VERSION = 1
CONTROL_BYTES = 64 * 1024
MAX_DEPTH = 128

Buffer: TypeAlias = bytes | bytearray | memoryview
Places: TypeAlias = dict[bytes, tuple[int, int]]
"""Where names stand in a message, between their quotes."""

_encoder = JSONEncoder(ensure_ascii=False, check_circular=False, allow_nan=False, separators=(",", ":"))


class ProtocolError(Exception):
    """The other side sent what the contract doesn't allow."""


class HandlerGone(Exception):
    """The other end of the socket is closed."""


def _refuse_constant(name: str) -> Any:
    raise ProtocolError(f"a frame holds {name}, which JSON doesn't have")


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0.0:
        raise ProtocolError(f"a frame holds {text:.40}, which is beyond a 64-bit number")
    return number


# Between quotes that are part of a string there would be backslashes.
_NAMES = re.compile(rb'("(module|scratch)"\s*:\s*)"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)

_decoder = JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite)


def encode(message: dict[str, Any]) -> bytes:
    """JSON in UTF-8; what UTF-8 can't carry becomes `?`. Raises TypeError, ValueError for non-JSON."""
    return _encoder.encode(message).encode("utf-8", "replace")


def decode(data: Buffer) -> dict[str, Any]:
    """One JSON object. Raises ProtocolError."""
    try:
        # json.loads guesses the encoding of bytes, and would let UTF-16 pass.
        text = str(data, "utf-8")
        message: Any = _decoder.decode(text)
    except RecursionError:
        raise ProtocolError(f"a frame is nested deeper than {MAX_DEPTH}") from None
    except ValueError as error:
        raise ProtocolError(f"a frame is not UTF-8 JSON: {error}") from None
    if type(message) is not dict:
        raise ProtocolError(f"a frame must be a JSON object, not {type(message).__name__}")
    if text.count("[") + text.count("{") > MAX_DEPTH and _deeper(message, MAX_DEPTH):
        raise ProtocolError(f"a frame is nested deeper than {MAX_DEPTH}")
    return message


def without_names(data: Buffer) -> tuple[bytes, Places]:
    """A `fork` message with the names emptied that are the worker's alone, and where they stand. No copy of
    them is made."""
    places: Places = {}

    def empty(match: re.Match[bytes]) -> bytes:
        places[match[2]] = (match.end(1) + 1, match.end() - 1)
        return match[1] + b'""'

    return _NAMES.sub(empty, data), places


def name_at(data: Buffer, place: tuple[int, int]) -> str:
    """One of those names. Much cheaper than to decode the message, for which a worker has to copy many of the
    zygote's pages. Raises ProtocolError."""
    try:
        text = str(data[place[0] : place[1]], "utf-8")
        return text if "\\" not in text else str(_decoder.decode(f'"{text}"'))
    except ValueError as error:
        raise ProtocolError(f"a name is not UTF-8 JSON: {error}") from None


def _deeper(value: Any, levels: int) -> bool:
    """Whether containers nest more than `levels` deep."""
    if isinstance(value, dict):
        return levels == 0 or any(_deeper(item, levels - 1) for item in value.values())
    if isinstance(value, list):
        return levels == 0 or any(_deeper(item, levels - 1) for item in value)
    return False


class FrameSocket:
    """Frames over a blocking stream socket, given as a descriptor. Not thread-safe.

    `os.read` and `os.write` instead of a socket object: workers need no more, and `socket` is a heavy import.
    """

    __slots__ = ("_buffer", "_fd", "_limit")

    def __init__(self, fd: int, frame_bytes: int) -> None:
        self._fd = fd
        self._limit = frame_bytes
        self._buffer = bytearray()

    def send(self, frame: dict[str, Any]) -> None:
        """Raises ProtocolError for a frame over the limit, HandlerGone where nobody reads."""
        self.send_encoded(encode(frame))

    def send_encoded(self, body: bytes) -> None:
        """As `send`, for a body that is JSON already."""
        if len(body) > self._limit:
            raise ProtocolError(f"a frame of {len(body)} bytes is over the limit of {self._limit}")
        data = memoryview(len(body).to_bytes(4, "big") + body)
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except (BrokenPipeError, ConnectionResetError):
                raise HandlerGone from None

    def receive(self) -> dict[str, Any]:
        """The next frame. Raises HandlerGone at the end, ProtocolError for what is no frame."""
        length = int.from_bytes(self._take(4, at_start=True), "big")
        if not 0 < length <= self._limit:
            raise ProtocolError(f"a frame of {length} bytes; it must have 1 to {self._limit}")
        return decode(self._take(length, at_start=False))

    def _take(self, count: int, *, at_start: bool) -> bytes:
        buffer = self._buffer
        while len(buffer) < count:
            try:
                data = os.read(self._fd, max(65536, count - len(buffer)))
            except ConnectionResetError:
                data = b""
            if not data:
                if at_start and not buffer:
                    raise HandlerGone
                raise HandlerGone("in the middle of a frame")
            buffer += data
        taken = bytes(buffer[:count])
        del buffer[:count]
        return taken
