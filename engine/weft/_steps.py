"""The steps that are built in and need a process: `shell`, `http`, `email` and `file`, of graphs and YAML.

They run in a worker as a workspace's functions do, with the same limits, walls and broker; nothing here has a
right that such a function lacks.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any

from ._context import Context
from ._errors import FatalError, RetryableError, TooLarge, Unavailable, WeftError
from ._json import check, encode
from ._node import node

CAPTURED_BYTES = 256 * 1024
"""Most bytes of stdout, and of stderr, that are a part of a command's output; the rest is in the log."""
TAIL_CHARS = 1500
"""How much of what a failed command wrote last its error says."""


INLINE_BYTES = 512 * 1024
"""Most bytes of a file that holds them itself, and of a value of type `binary`."""
READ_BYTES = 4 * 1024 * 1024
"""Most bytes of a file that become a text, a JSON value or rows."""
FILE_ROWS = 10_000
"""Most rows of a CSV file; a map takes as many items."""
FILE_NAME = 200
"""Longest name of a file, in characters."""

_UNFIT = re.compile(r"[/\\\x00-\x1f\x7f-\x9f]")
_MEDIA_TYPES = {
    "text": "text/plain; charset=utf-8",
    "json": "application/json",
    "base64": "application/octet-stream",
}


class ShellFailed(WeftError):
    """A command ended with an exit code that was not expected. `data` has `exit_code`, `stdout`, `stderr`."""


class HttpFailed(WeftError):
    """An answer has a status that was not expected. `data` has `status`."""


class HttpBusy(HttpFailed, RetryableError):
    """The same with a status that another attempt may not get: 408, 425, 429, 500, 502, 503, 504."""


class FileInvalid(WeftError):
    """What a file is made of, or what is in one, is not what `format` says."""

    retriable = False


def as_text(value: Any) -> str:
    """A value as an argument: texts as they are, nothing for null, else JSON."""
    if isinstance(value, str):
        return value
    return "" if value is None else encode(value).decode()


@node
def shell(
    ctx: Context,
    argv: list[Any],
    environment: dict[str, Any],
    secret_environment: dict[str, str],
    working_directory: str,
    capture_output: bool,
    expect: list[int],
) -> dict[str, Any]:
    """Run a program with arguments, without a shell in between."""
    from errno import E2BIG
    from subprocess import DEVNULL, PIPE, Popen

    words = [as_text(word) for word in argv]
    variables = {name: as_text(value) for name, value in environment.items()}
    for what, text in [("an argument", word) for word in words] + list(variables.items()):
        if "\0" in text:
            raise FatalError(f"{what} has a NUL in it, which no program can be given")
    for name, secret in secret_environment.items():
        variables[name] = ctx.secrets.get(secret)
    if not words or not words[0]:
        raise FatalError("the command has no program: the first item of `command` is empty")
    folder = os.getcwd()
    if working_directory:
        folder = os.path.join(folder, working_directory)
        os.makedirs(folder, exist_ok=True)
    pipe = PIPE if capture_output else None
    try:
        # What is started is what the step is for; the walls are the jail.
        child = Popen(  # noqa: S603
            words,
            cwd=folder,
            env={**os.environ, **variables},
            stdin=DEVNULL,
            stdout=pipe,
            stderr=pipe,
        )
    except FileNotFoundError:
        raise FatalError(
            f"there is no program `{words[0]:.100}`: "
            "steps see what is installed on the machine in /usr and /bin"
        ) from None
    except PermissionError as error:
        raise FatalError(f"`{words[0]:.100}` can't be started: {error.strerror}") from None
    except OSError as error:
        if error.errno == E2BIG:
            raise FatalError(
                "the arguments and variables are longer than the system lets them be: "
                "128 KiB each, and about 2 MiB together"
            ) from None
        raise
    captured = _follow(child) if capture_output else (b"", b"")
    code = child.wait()
    sys.stdout.flush()
    sys.stderr.flush()
    stdout, stderr = (data.decode("utf-8", "replace") for data in captured)
    # A signal is what a shell makes of it.
    code = 128 - code if code < 0 else code
    output = {"exit_code": code, "stdout": stdout, "stderr": stderr}
    if code in expect:
        return output
    last = (stderr.strip() or stdout.strip())[-TAIL_CHARS:]
    message = f"the command ended with exit code {code}" + (f": {last}" if last else "")
    data = {"exit_code": code, "stdout": stdout[-TAIL_CHARS:], "stderr": stderr[-TAIL_CHARS:]}
    raise ShellFailed(message, data=data)


def _follow(child: Any) -> tuple[bytes, bytes]:
    """What a program writes, handed on to the log as it comes.

    What it has left running may keep its output open: when it has ended itself, what there is by then is all.
    """
    from selectors import EVENT_READ, DefaultSelector
    from time import monotonic

    kept = {1: bytearray(), 2: bytearray()}
    ended: float | None = None
    with DefaultSelector() as selector:
        for stream, number in ((child.stdout, 1), (child.stderr, 2)):
            os.set_blocking(stream.fileno(), False)
            selector.register(stream, EVENT_READ, number)
        while selector.get_map():
            if ended is None and child.poll() is not None:
                ended = monotonic()
            ready = selector.select(0.1 if ended is None else 0)
            if ended is not None and (not ready or monotonic() - ended > 1):
                break
            for key, _ in ready:
                try:
                    data = os.read(key.fd, 65536)
                except BlockingIOError:
                    continue
                if not data:
                    selector.unregister(key.fileobj)
                    continue
                number = key.data
                room = CAPTURED_BYTES - len(kept[number])
                kept[number] += data[: max(room, 0)]
                _write(number, data)
    child.stdout.close()
    child.stderr.close()
    return bytes(kept[1]), bytes(kept[2])


def _write(number: int, data: bytes) -> None:
    (sys.stdout if number == 1 else sys.stderr).flush()
    while data:
        data = data[os.write(number, data) :]


def _each(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


@node
def http(
    ctx: Context,
    method: str,
    url: str,
    query: dict[str, Any],
    headers: dict[str, Any],
    expect: list[int],
    body: Any = None,
    secret_header: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Make a request through the engine, which puts the secret on it: here is only its name."""
    sent = {name: as_text(value) for name, value in headers.items()}
    options: dict[str, Any] = {"headers": sent}
    if secret_header:
        options["auth"] = ctx.secrets.handle(secret_header["secret"])
        options["auth_as"] = secret_header["as"]
    if query:
        from urllib.parse import quote

        pairs = [(name, one) for name, value in query.items() for one in _each(value)]
        url, mark, fragment = url.partition("#")
        url += "&" if "?" in url else "?"
        url += "&".join(f"{quote(name, safe='')}={quote(as_text(one), safe='')}" for name, one in pairs)
        url += mark + fragment
    if isinstance(body, str):
        options["body"] = body
    elif body is not None:
        options["json"] = body
    try:
        answer = ctx.http.request(method, url, **options)
    except Unavailable as error:
        raise HttpBusy(str(error)) from None
    kind = (answer.headers.get("content-type") or "").partition(";")[0].strip().lower()
    content: Any = answer.text
    if kind == "application/json" or kind.endswith("+json"):
        try:
            content = answer.json()
        except ValueError:
            content = answer.text
    if answer.status in expect or (not expect and 200 <= answer.status < 300):
        return {"status": answer.status, "headers": dict(answer.headers.items()), "body": content}
    message = f"{method} {url:.200} answered {answer.status}: {answer.text[:300]}"
    busy = answer.status in (408, 425, 429, 500, 502, 503, 504)
    raise (HttpBusy if busy else HttpFailed)(message, data={"status": answer.status})


@node
def email(
    ctx: Context,
    server: str,
    security: str,
    credentials: dict[str, Any],
    secret_credentials: dict[str, str],
    message: dict[str, Any],
) -> dict[str, Any]:
    """Hand a message to a mail server."""
    from . import _email

    mail, sender, recipients = _email.compose(ctx, message)
    known = {name: as_text(value) for name, value in credentials.items()}
    known |= {name: ctx.secrets.get(secret) for name, secret in secret_credentials.items()}
    refused = _email.deliver(
        mail,
        sender,
        recipients,
        server=server,
        security=security,
        user=known.get("user"),
        password=known.get("password"),
    )
    for one in refused:
        print(f"{one['address']} was refused: {one['status']} {one['reason']}", file=sys.stderr)
    left_out = {one["address"] for one in refused}
    return {
        "message_id": str(mail["Message-ID"]),
        "accepted": [address for address in recipients if address not in left_out],
        "refused": refused,
    }


@node
def file(
    ctx: Context,
    action: str,
    format: str,
    content: Any = None,
    name: Any = None,
    media_type: str | None = None,
    store: str | None = None,
    file: Any = None,
    header: bool | None = None,
    delimiter: str | None = None,
) -> Any:
    """Make a file of a value, or a value of a file."""
    if action == "read":
        return _read_file(ctx, format, file, header is not False, delimiter or ",")
    data = _bytes_of(format, content)
    name = as_text(name)
    if not name.strip() or len(name) > FILE_NAME or name in (".", "..") or _UNFIT.search(name):
        raise FileInvalid(
            f"the name of a file has 1 to {FILE_NAME} characters, without `/`, `\\` and control characters"
        )
    media_type = media_type or _MEDIA_TYPES[format]
    if store != "inline":
        return ctx.artifacts.write(name, data, media_type=media_type).as_file()
    if len(data) > INLINE_BYTES:
        raise TooLarge(
            f"file `{name:.60}` has {len(data)} bytes, and one that is kept inline at most {INLINE_BYTES}: "
            "keep it as an artifact"
        )
    from base64 import b64encode

    return {
        "data": b64encode(data).decode(),
        "name": name,
        "media_type": media_type,
        "size": len(data),
    }


def _bytes_of(format: str, content: Any) -> bytes:
    if format == "json":
        return encode(content)
    if not isinstance(content, str):
        raise FileInvalid(
            f"`content` is {_described(content)}, and `format: {format}` takes a text: `format: json` "
            "writes any value"
        )
    if format == "text":
        return content.encode()
    return _decoded(content, "`content`")


def _decoded(text: str, what: str) -> bytes:
    from base64 import b64decode

    try:
        return b64decode(text, validate=True)
    except ValueError as error:
        raise FileInvalid(f"{what} is no base64 with padding: {error}") from None


def _described(value: Any) -> str:
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


def _read_file(ctx: Context, format: str, file: Any, header: bool, delimiter: str) -> Any:
    if not isinstance(file, dict) or ("data" in file) == ("artifact" in file):
        raise FileInvalid(f"`file` is {_described(file)}, and no file: one has either `artifact` or `data`")
    most = INLINE_BYTES if format == "base64" else READ_BYTES
    # What is larger by what it says of itself is not even fetched.
    size = file.get("size")
    if not isinstance(size, int):
        size = 0
    if size <= most:
        if "data" in file:
            data = _decoded(as_text(file["data"]), "`data` of the file")
        else:
            data = ctx.artifacts.read(id=as_text(file["artifact"]))
        size = len(data)
    named = as_text(file.get("name")) or "the file"
    if size > most:
        raise TooLarge(
            f"`{named:.60}` has {size} bytes, and as `{format}` at most {most} are read: read it in a Python "
            "step, `ctx.artifacts.content(file)`"
        )
    if format == "base64":
        from base64 import b64encode

        return b64encode(data).decode()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileInvalid(
            f"`{named:.60}` is no UTF-8 text: byte {error.start} can't be read", data={"byte": error.start}
        ) from None
    if format == "text":
        return text
    return _json(text, named) if format == "json" else _rows(text, named, header, delimiter)


def _json(text: str, named: str) -> Any:
    from json import JSONDecodeError, loads

    def constant(word: str) -> Any:
        raise ValueError(f"{word} is no number of JSON")

    try:
        value = loads(text, parse_constant=constant)
        check(value, "content")
    except JSONDecodeError as error:
        at = {"line": error.lineno, "column": error.colno}
        raise FileInvalid(
            f"`{named:.60}` is no JSON: {error.msg} in line {error.lineno}, column {error.colno}", data=at
        ) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise FileInvalid(f"`{named:.60}` has what no value may have: {error}") from None
    return value


def _rows(text: str, named: str, header: bool, delimiter: str) -> list[Any]:
    import csv
    from io import StringIO

    rows: list[Any] = []
    names: list[str] | None = None
    reader = csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True)

    def wrong(message: str) -> FileInvalid:
        line = {"line": reader.line_num}
        return FileInvalid(f"`{named:.60}` is no CSV: {message} in line {reader.line_num}", data=line)

    try:
        for row in reader:
            if not row:
                continue
            if header and names is None:
                names = row
                twice = [name for place, name in enumerate(row) if name in row[:place]]
                if twice:
                    raise wrong(f"the column `{twice[0]:.60}` is there twice")
                continue
            if names is not None and len(row) != len(names):
                raise wrong(f"{len(row)} fields where the header has {len(names)}")
            if len(rows) >= FILE_ROWS:
                raise TooLarge(
                    f"`{named:.60}` has more than {FILE_ROWS} rows: read it in a Python step, "
                    "`ctx.artifacts.content(file)`"
                )
            rows.append(row if names is None else dict(zip(names, row, strict=True)))
    except csv.Error as error:
        raise wrong(str(error)) from None
    return rows
