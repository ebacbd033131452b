"""What a step may know and ask for. Everything here comes from the engine, over one link.

A `Context` holds no credential and can't reach anything by itself: the link's other end is bound to one
organization, run and attempt, and decides each request.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from ._artifacts import Artifacts
from ._data import Data
from ._errors import NotAvailable, NotFound, TooLarge
from ._http import Http
from ._json import check, encode
from ._kv import KeyValue
from ._runs import Runs
from ._secrets import Secrets

if TYPE_CHECKING:
    from datetime import datetime

LOG_MESSAGE_BYTES = 8 * 1024
LOG_FIELDS_BYTES = 16 * 1024
CHECKPOINT_BYTES = 32 * 1024
VARIABLES_BYTES = 32 * 1024

_MISSING: Any = object()


class Link(Protocol):
    """The way out of a step: the engine's socket, or a recorder in unit tests."""

    def emit(self, frame: dict[str, Any]) -> None:
        """Send a notice that has no answer."""

    def call(self, name: str, args: dict[str, Any]) -> Any:
        """Ask the engine and wait for the value; raises a `WeftError` when it refuses."""


class Organization:
    """The organization that the run belongs to."""

    __slots__ = ("id", "name")

    def __init__(self, id: str, name: str) -> None:
        self.id = id
        self.name = name

    def __repr__(self) -> str:
        return f"Organization(id={self.id!r}, name={self.name!r})"


class Caller:
    """Who started the run. `kind` is `user`, `service` or `system`; `claimed_user` is what a service
    said about the person behind it, which nobody verified."""

    __slots__ = ("claimed_user", "id", "kind", "name")

    def __init__(self, kind: str, id: str, name: str, claimed_user: str | None = None) -> None:
        self.kind = kind
        self.id = id
        self.name = name
        self.claimed_user = claimed_user

    def __repr__(self) -> str:
        return f"Caller(kind={self.kind!r}, id={self.id!r}, name={self.name!r})"


class NoCaller:
    """In the place of a `Caller` where who asks isn't told."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        raise NotAvailable(
            f"ctx.caller.{name}: this data provider isn't told who asks, as its answer is for others too; "
            "declare it with @data_provider(uses_caller=True)"
        )

    def __repr__(self) -> str:
        return "NoCaller()"


class Run:
    """The run and the attempt that this step is part of.

    `attempt` counts from 1. `idempotency_key` stays the same over all attempts of a step: hand it to
    other systems so that a repeated attempt doesn't repeat its effect. `test` is true for trial runs.
    """

    __slots__ = (
        "_deadline",
        "_started_at",
        "attempt",
        "attempt_id",
        "id",
        "idempotency_key",
        "step",
        "test",
        "workflow",
    )

    def __init__(self, data: dict[str, Any]) -> None:
        self.id: str = data.get("id") or ""
        self.workflow: str = data.get("workflow") or ""
        self.attempt: int = data.get("attempt") or 1
        self.attempt_id: str = data.get("attempt_id") or ""
        self.step: str = data.get("step") or "main"
        self.idempotency_key: str = data.get("idempotency_key") or ""
        self.test: bool = bool(data.get("test"))
        self._started_at: str | None = data.get("started_at")
        self._deadline: str | None = data.get("deadline")

    @property
    def started_at(self) -> datetime | None:
        """When the run started, in UTC."""
        return _instant(self._started_at)

    @property
    def deadline(self) -> datetime | None:
        """When this attempt is killed, in UTC; None where there is no limit."""
        return _instant(self._deadline)

    def seconds_left(self) -> float:
        """Seconds until the deadline, never below 0; infinity where there is no limit."""
        deadline = self.deadline
        if deadline is None:
            return float("inf")
        return max(0.0, deadline.timestamp() - time.time())

    def __repr__(self) -> str:
        return f"Run(id={self.id!r}, workflow={self.workflow!r}, step={self.step!r}, attempt={self.attempt})"


class Config:
    """The organization's configuration, with the platform's defaults below it. Read-only.

    A value of null counts as not set.
    """

    __slots__ = ("_link", "_values")

    def __init__(self, values: dict[str, Any], link: Link) -> None:
        self._values = values
        self._link = link

    def get(self, key: str, default: Any = None) -> Any:
        """The value of `key`, or `default` where it isn't set."""
        value = self._values.get(key, _MISSING)
        if value is _MISSING:
            value = self._values[key] = self._link.call("config.get", {"key": key})
        return default if value is None else value

    def __getitem__(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            raise NotFound(
                f"the configuration has no `{key}`; set it for the organization, "
                f'or read it with ctx.config.get("{key}", default)'
            )
        return value

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.get(key) is not None

    def __repr__(self) -> str:
        return f"Config({sorted(self._values)})"


class Log:
    """The run's log. Call it (`ctx.log("text", count=3)`, level info) or one of its levels."""

    __slots__ = ("_link",)

    def __init__(self, link: Link) -> None:
        self._link = link

    def __call__(self, message: object, /, **fields: Any) -> None:
        self._write("info", message, fields)

    def debug(self, message: object, /, **fields: Any) -> None:
        """For whoever looks into one run."""
        self._write("debug", message, fields)

    def info(self, message: object, /, **fields: Any) -> None:
        """What happened."""
        self._write("info", message, fields)

    def warning(self, message: object, /, **fields: Any) -> None:
        """Something that a person should look at some day."""
        self._write("warning", message, fields)

    def error(self, message: object, /, **fields: Any) -> None:
        """Something that went wrong, though the step goes on."""
        self._write("error", message, fields)

    def _write(self, level: str, message: object, fields: dict[str, Any]) -> None:
        frame: dict[str, Any] = {"t": "log", "level": level, "message": _cut(str(message)), "at": time.time()}
        if fields:
            frame["fields"] = _loggable(fields)
        self._link.emit(frame)


class Variables:
    """Small JSON values that are kept with the run beside its result, 32 KiB in all.

    They are sent with the attempt's last message: an attempt that is killed keeps none.
    """

    __slots__ = ("_size", "_sizes", "_values")

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._sizes: dict[str, int] = {}
        self._size = 0

    def set(self, name: str, value: Any) -> None:
        """Keep `value` under `name`. Raises TypeError where it isn't JSON, `TooLarge` over 32 KiB in all."""
        if not isinstance(name, str) or not name:
            raise TypeError("the name of a variable must be a string that isn't empty")
        check(name, "name")
        size = check(value, f"variable {name:.60}")
        if size <= VARIABLES_BYTES:
            size = len(encode(value)) + len(encode(name)) + 2
        total = self._size - self._sizes.get(name, 0) + size
        if total > VARIABLES_BYTES:
            raise TooLarge(
                f"the variables would be {total} bytes with `{name:.60}`; the limit is {VARIABLES_BYTES}: "
                "return large values as the result"
            )
        self._values[name] = value
        self._sizes[name] = size
        self._size = total

    def get(self, name: str, default: Any = None) -> Any:
        """What `set` kept under `name` in this attempt, or `default`."""
        return self._values.get(name, default)

    def to_json(self) -> dict[str, Any]:
        """All of them, as the last message carries them."""
        return dict(self._values)

    def __repr__(self) -> str:
        return f"Variables({sorted(self._values)})"


class Context:
    """Handed to a function as its first parameter, where that is annotated `Context` (or called `ctx` or
    `context`). Usable from threads and from async code; not from processes that the step forks."""

    __slots__ = ("_link", "caller", "config", "http", "log", "organization", "run", "secrets", "variables")

    def __init__(self, data: dict[str, Any], link: Link) -> None:
        organization: dict[str, Any] = data.get("organization") or {}
        caller: dict[str, Any] = data.get("caller") or {}
        self.organization = Organization(organization.get("id") or "", organization.get("name") or "")
        self.caller: Any = NoCaller()
        if data.get("caller", caller) is not None:
            self.caller = Caller(
                caller.get("kind") or "system",
                caller.get("id") or "",
                caller.get("name") or "",
                caller.get("claimed_user"),
            )
        self.run = Run(data.get("run") or {})
        self.config = Config(dict(data.get("config") or {}), link)
        self.log = Log(link)
        self.variables = Variables()
        self.secrets = Secrets(link)
        self.http = Http(link)
        self._link = link

    def checkpoint(self, name: str, data: Any = None) -> None:
        """Note that the step got as far as `name`, with up to 32 KiB of JSON that shows its state.

        Raises TypeError where `data` isn't JSON, `TooLarge` over the limit.
        """
        check(name, "the checkpoint's name")
        size = check(data, "data")
        if size <= CHECKPOINT_BYTES:
            size = len(encode(data))
        if size > CHECKPOINT_BYTES:
            raise TooLarge(
                f"the data of checkpoint `{name:.60}` has {size} bytes; the limit is {CHECKPOINT_BYTES}: "
                "keep counts and ids, not whole records"
            )
        self._link.emit({"t": "checkpoint", "name": name, "data": data})

    @property
    def artifacts(self) -> Artifacts:
        """Named outputs of the run: files and bytes."""
        return Artifacts(self._link)

    @property
    def kv(self) -> KeyValue:
        """Small values that the workflow keeps from run to run."""
        return KeyValue(self._link)

    @property
    def runs(self) -> Runs:
        """Other runs: start them, look at them, wait for them."""
        return Runs(self._link)

    @property
    def data(self) -> Data:
        """Data providers of the workspace."""
        return Data(self._link)

    def __repr__(self) -> str:
        return f"Context({self.organization!r}, {self.run!r})"


def _instant(text: str | None) -> datetime | None:
    if not text:
        return None
    # Imported on use: most steps never ask, and every step would pay for it.
    from datetime import datetime

    return datetime.fromisoformat(text)


def _cut(message: str) -> str:
    data = message.encode("utf-8", "replace")
    if len(data) <= LOG_MESSAGE_BYTES:
        return data.decode()
    return data[:LOG_MESSAGE_BYTES].decode("utf-8", "ignore") + f" … [cut, {len(data)} bytes]"


def _shown(value: Any) -> str:
    try:
        return repr(value)
    except Exception as error:
        return f"({type(value).__name__} without a repr: {type(error).__name__})"


def _loggable(fields: dict[str, Any]) -> dict[str, Any]:
    """Logging must never be what fails a step: what isn't JSON is written as its repr."""
    shown: dict[str, Any] = {}
    for key, value in fields.items():
        name = key.encode("utf-8", "replace").decode()
        try:
            check(value, key)
            shown[name] = value
        except (TypeError, ValueError):
            shown[name] = _cut(_shown(value))
    if check(shown, "fields") > LOG_FIELDS_BYTES or len(encode(shown)) > LOG_FIELDS_BYTES:
        return {"cut": f"the fields were over {LOG_FIELDS_BYTES} bytes and were left out"}
    return shown
