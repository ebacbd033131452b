"""An exception as the author of a workspace wants to read it: own frames, display paths, bounded.

Whoever reads it may be a stranger to the machine, so its places are shown by what they are: `workspace/…`,
`packages/…`, `python3.13/…`. See `place`.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from typing import Any

from weft._errors import WeftError
from weft._json import check, encode

TRACEBACK_BYTES = 16 * 1024
MESSAGE_BYTES = 8 * 1024
DATA_BYTES = 32 * 1024

ENGINE_DIR = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_OURS = (
    os.path.join(ENGINE_DIR, "weft") + os.sep,
    os.path.join(ENGINE_DIR, "weft_runtime") + os.sep,
    "<frozen importlib",
    "<frozen runpy",
    "<string>",
)
_PLACES: dict[str, str] = {}
_ELSEWHERE = re.compile(r"(?<![\w.-])/(?:[^\s/'\"`:;,()<>\[\]{}]+/)*((?:site|dist)-packages)(?![\w.-])")


def place(path: str, name: str) -> None:
    """From now on, show a folder of this machine under that name."""
    path = path.rstrip(os.sep)
    if path:
        _PLACES[path] = name


def shown(text: str) -> str:
    """A text with the machine's folders under their names; the packages of other folders too."""
    if os.sep not in text:
        return text
    folders = "|".join(re.escape(path) for path in sorted(_PLACES, key=len, reverse=True))
    text = re.sub(rf"(?<![\w.-])(?:{folders})(?![\w.-])", lambda found: _PLACES[found[0]], text)
    return _ELSEWHERE.sub(r"\1", text)


for _folder in (sys.base_prefix, sys.prefix):
    # These say nothing of a machine, and much else is below them.
    if _folder not in ("/usr", "/usr/local"):
        place(_folder, "python")
place(os.path.dirname(os.__file__), f"python{sys.version_info.major}.{sys.version_info.minor}")
place(ENGINE_DIR, "engine")


def error_json(error: BaseException) -> dict[str, Any]:
    """The `error` object of a `failed` frame. Never raises for what the exception is or holds."""
    return {
        "type": type_name(type(error)),
        "message": message_of(error),
        "traceback": formatted(error),
        "retriable": error.retriable if isinstance(error, WeftError) else None,
        "data": _data_of(error),
    }


def type_name(kind: type[BaseException]) -> str:
    """`ValueError`, `InvalidInput`, `workflows.hello.Trouble`."""
    module = str(kind.__module__)
    if module == "builtins" or module == "weft" or module.startswith("weft."):
        return kind.__qualname__
    return f"{module}.{kind.__qualname__}"


def message_of(error: BaseException) -> str:
    """The exception's text, cut at 8 KiB; SystemExit says with which code."""
    try:
        if isinstance(error, SystemExit):
            return (
                f"the code called sys.exit({error.code!r:.200}); return a value or raise an exception instead"
            )
        message = str(error)
    except (
        BaseException
    ) as broken:  # A hostile `__str__` may raise SystemExit, which must not end the worker.
        return f"(the exception's text can't be made: {type(broken).__name__})"
    if not message and isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return _cut(shown(message), MESSAGE_BYTES, MESSAGE_BYTES)


def formatted(error: BaseException) -> str:
    """The traceback without the engine's frames, cut in the middle at 16 KiB; empty where memory is short."""
    try:
        # Lines are looked up when they are written: those of the engine may not even be read here.
        told = traceback.TracebackException.from_exception(error, lookup_lines=False, compact=True)
        _strip(told, set())
        return _cut(shown("".join(told.format())), TRACEBACK_BYTES, TRACEBACK_BYTES // 4)
    except (Exception, RecursionError, MemoryError):
        error.__traceback__ = None
        return ""


def last_line_in(error: BaseException, path: str) -> int | None:
    """The innermost line of the file with that display path in the exception's traceback."""
    if isinstance(error, SyntaxError) and error.filename == path:
        return error.lineno
    found = None
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code.co_filename == path:
            found = step.tb_lineno
        step = step.tb_next
    return found


def _strip(told: traceback.TracebackException, seen: set[int]) -> None:
    if id(told) in seen:
        return
    seen.add(id(told))
    kept = [frame for frame in told.stack if not frame.filename.startswith(_OURS)]
    told.stack[:] = kept
    for other in (told.__cause__, told.__context__, *(getattr(told, "exceptions", None) or ())):
        if other is not None:
            _strip(other, seen)


def _cut(text: str, limit: int, head: int) -> str:
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return data.decode()
    note = f"\n… [{len(data) - limit} bytes cut] …\n"
    if head >= limit:
        return data[: limit - len(note.encode())].decode("utf-8", "ignore") + note.rstrip("\n")
    tail = limit - head - len(note.encode())
    return data[:head].decode("utf-8", "ignore") + note + data[-tail:].decode("utf-8", "ignore")


def _data_of(error: BaseException) -> Any:
    data = getattr(error, "data", None) if isinstance(error, WeftError) else None
    if data is None:
        return None
    try:
        if check(data, "data") <= DATA_BYTES and len(encode(data)) <= DATA_BYTES:
            return data
        return {"cut": f"the data of the exception was over {DATA_BYTES} bytes"}
    except (TypeError, ValueError) as wrong:
        return {"cut": f"the data of the exception is no JSON: {_cut(str(wrong), 1024, 1024)}"}
