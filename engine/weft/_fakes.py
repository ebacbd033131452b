"""What the engine keeps and answers, in memory, for unit tests: the same refusals and the same bounds as the
engine's, as far as they cost nothing. `weft.testing` is what tests import.

`tests/golden/broker_contract.json` holds these fakes and the engine's broker to the same answers.
"""

from __future__ import annotations

from binascii import Error as NotBase64
from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from ._errors import Denied, InvalidInput, NotAvailable, NotFound, TooLarge, WeftError
from ._http import Response
from ._json import encode

CALLS = 10_000
KEY_CHARACTERS = 256
KEY_BYTES = 512
VALUE_BYTES = 32 * 1024
PAIRS = 10_000
LISTED = 1_000
TTL_SECONDS = 10 * 366 * 86_400
PIECE_BYTES = 512 * 1024
ARTIFACT_BYTES = 256 * 1024 * 1024
UNANNOUNCED_BYTES = 32 * 1024 * 1024
RUN_BYTES = 1024 * 1024 * 1024
ARTIFACTS = 1_000
UPLOADS = 4
NAME_CHARACTERS = 200
RUNS = 100
HANDLES = 100
ANSWER_BYTES = 4 * 1024 * 1024

_HANDLE = "handle:"
_HEXADECIMAL = frozenset("0123456789abcdefABCDEF")
_ESCAPED = frozenset("/\\#?~%")
_OURS = frozenset(
    (
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
        "upgrade",
        "te",
        "trailer",
        "expect",
        "proxy-authorization",
    )
)
_ARGUMENTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "config.get": (("key",), ()),
    "variables.set": (("name",), ("value",)),
    "kv.get": (("key",), ()),
    "kv.set": (("key", "value"), ("ttl_seconds",)),
    "kv.compare_and_set": (("key", "value"), ("expected", "ttl_seconds")),
    "kv.delete": (("key",), ()),
    "kv.list": ((), ("prefix", "after", "limit")),
    "artifacts.begin": (("name", "size"), ("media_type", "sha256")),
    "artifacts.append": (("upload", "offset", "data"), ()),
    "artifacts.commit": (("upload", "sha256"), ()),
    "artifacts.read": ((), ("name", "id", "offset")),
    "artifacts.list": ((), ()),
    "runs.start": (("workflow",), ("inputs", "key")),
    "runs.get": (("id",), ()),
    "runs.wait": (("id",), ("timeout_seconds",)),
    "secrets.get": (("name",), ()),
    "secrets.handle": (("name",), ()),
    "http.request": (("method", "url"), ("headers", "body_base64", "auth", "auth_as", "timeout")),
    "data.get": (("provider",), ("inputs",)),
}
"""What each call takes: what it needs, and what it may have. Anything else is refused."""


class FakeClock:
    """The time of the fakes: it stands still until `advance` moves it. `time.time()` is not changed by it."""

    __slots__ = ("_now",)

    def __init__(self, at: str = "2026-01-01T00:00:00Z") -> None:
        self._now = datetime.fromisoformat(at).astimezone(UTC)

    @property
    def now(self) -> datetime:
        """The instant, in UTC."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass: what lives shorter is gone afterwards."""
        if seconds < 0:
            raise ValueError("time does not go back")
        self._now += timedelta(seconds=seconds)

    def text(self) -> str:
        """As the engine writes instants."""
        return self._now.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def __repr__(self) -> str:
        return f"FakeClock({self.text()!r})"


class LogEntry:
    """One call of `ctx.log`: `level`, `message`, `fields`."""

    __slots__ = ("fields", "level", "message")

    def __init__(self, level: str, message: str, fields: dict[str, Any]) -> None:
        self.level = level
        self.message = message
        self.fields = fields

    def __repr__(self) -> str:
        return f"LogEntry({self.level!r}, {self.message!r}, {self.fields!r})"


class Checkpoint:
    """One call of `ctx.checkpoint`: `name`, `data`."""

    __slots__ = ("data", "name")

    def __init__(self, name: str, data: Any) -> None:
        self.name = name
        self.data = data

    def __repr__(self) -> str:
        return f"Checkpoint({self.name!r}, {self.data!r})"


class Request:
    """A request of `ctx.http`, as `http=` gets it: `auth` is the secret's name, and names of headers are in
    lower case."""

    __slots__ = ("auth", "body", "headers", "method", "url")

    def __init__(self, method: str, url: str, headers: dict[str, str], body: bytes, auth: str | None) -> None:
        self.method = method
        self.url = url
        self.headers = headers
        self.body = body
        self.auth = auth

    def __repr__(self) -> str:
        return f"Request({self.method!r}, {self.url!r})"


class StartedRun:
    """One call of `ctx.runs.start`: `workflow`, `inputs`, `key`."""

    __slots__ = ("inputs", "key", "workflow")

    def __init__(self, workflow: str, inputs: dict[str, Any], key: str | None) -> None:
        self.workflow = workflow
        self.inputs = inputs
        self.key = key

    def __repr__(self) -> str:
        return f"StartedRun({self.workflow!r}, {self.inputs!r}, key={self.key!r})"


class _Kept:
    """An artifact that was written."""

    __slots__ = ("at", "content", "id", "media_type", "name", "order")

    def __init__(
        self, id: str, name: str, content: bytes, media_type: str | None, at: str, order: int
    ) -> None:
        self.id = id
        self.name = name
        self.content = content
        self.media_type = media_type
        self.at = at
        self.order = order


class Fakes:
    """What the engine would keep and answer, in memory.

    kv: the pairs that there are. artifacts: content by name. data: by data provider, what it returns, or a
    function of its inputs. runs: by workflow, what a started run returns, or a function of its inputs; an
    exception that it raises is the run's error. http: answers what `ctx.http` requests, with `response(…)`.
    clock: the time that pairs live by. network: hosts that requests may go to, where those are not to count
    that the function declares.

    Afterwards `kv` and `artifacts` are as the step left them, and `started`, `requests`, `logs` and
    `checkpoints` list what it did. Several calls of `run` with the same fakes are steps of one run, or runs
    of one workflow, whichever the test means; `next_attempt` says that the next one repeats the last.
    """

    def __init__(
        self,
        *,
        kv: Mapping[str, Any] | None = None,
        artifacts: Mapping[str, bytes] | None = None,
        data: Mapping[str, Any] | None = None,
        runs: Mapping[str, Any] | None = None,
        http: Callable[[Request], Response] | None = None,
        clock: FakeClock | None = None,
        network: Iterable[str] | None = None,
    ) -> None:
        self.kv: dict[str, Any] = dict(kv or {})
        self.artifacts: dict[str, bytes] = dict(artifacts or {})
        self.data: dict[str, Any] = dict(data or {})
        self.runs: dict[str, Any] = dict(runs or {})
        self.http = http
        self.network = None if network is None else list(network)
        self.clock = clock or FakeClock()
        self.attempt = 1
        self.started: list[StartedRun] = []
        self.requests: list[Request] = []
        self.logs: list[LogEntry] = []
        self.checkpoints: list[Checkpoint] = []
        self._expires: dict[str, datetime] = {}
        self._kept: dict[str, _Kept] = {}
        self._ended: dict[str, dict[str, Any]] = {}
        self._by_key: dict[str | int, tuple[str, StartedRun]] = {}
        self._uploads: dict[int, tuple[str, int, str | None, bytearray]] = {}
        self._begun = 0
        self._calls = 0
        self._started = 0
        self._unkeyed = 0
        self._repeats = False

    def next_attempt(self) -> None:
        """The next call of `run`, or the next context, is another attempt of the step that came before."""
        self.attempt += 1
        self._repeats = True

    def begin(self) -> None:
        """A function is about to be called with these fakes. `run` and `fake_context` do it."""
        if not self._repeats:
            self.attempt = 1
            # Keys are the step's; without one, it is the order that tells, which is the step's as well.
            self._by_key = {key: kept for key, kept in self._by_key.items() if isinstance(key, str)}
        self._repeats = False
        self._calls = self._started = self._unkeyed = 0
        self._uploads.clear()

    def call(self, name: str, args: dict[str, Any]) -> Any:
        """Answer as the engine would."""
        self._calls += 1
        if self._calls > CALLS:
            raise Denied(
                f"an attempt may make {CALLS} calls, and this one has; ask for more at once, and less often"
            )
        method = getattr(self, "_" + name.replace(".", "_"), None)
        if method is None or name not in _ARGUMENTS:
            raise NotAvailable(f"`{name:.60}` is not available in this version of Weft")
        check_arguments(name, args)
        return method(args)

    def _variables_set(self, args: dict[str, Any]) -> None:
        """Accepted and not kept: variables come with the last frame."""

    def _config_get(self, args: dict[str, Any]) -> None:
        """All of the configuration was handed over."""

    def _pair(self, key: str) -> Any:
        until = self._expires.get(key)
        if until is not None and until <= self.clock.now:
            self._expires.pop(key)
            self.kv.pop(key, None)
        return self.kv.get(key)

    def _kv_get(self, args: dict[str, Any]) -> Any:
        _check_key(args["key"])
        return self._pair(args["key"])

    def _kv_set(self, args: dict[str, Any]) -> None:
        self._write_pair(args)

    def _kv_compare_and_set(self, args: dict[str, Any]) -> bool:
        key = args["key"]
        self._check_pair(args)
        if self._pair(key) != args.get("expected"):
            return False
        self._write_pair(args)
        return True

    def _check_pair(self, args: dict[str, Any]) -> float | None:
        key, value = args["key"], args["value"]
        _check_key(key)
        if value is None:
            raise InvalidInput("null is what a missing key reads as; delete the key instead")
        size = len(encode(value))
        if size > VALUE_BYTES:
            raise TooLarge(
                f"the value of `{key:.60}` is {size} bytes of JSON; the limit is {VALUE_BYTES}: write it as "
                "an artifact (`ctx.artifacts.write`) and keep its name"
            )
        seconds = args.get("ttl_seconds")
        if seconds is not None and not (_is_number(seconds) and 0 < seconds <= TTL_SECONDS):
            raise InvalidInput("`ttl_seconds` must be above 0, and at most ten years")
        return seconds

    def _write_pair(self, args: dict[str, Any]) -> None:
        seconds = self._check_pair(args)
        key = args["key"]
        if self._pair(key) is None and key not in self.kv:
            for other in list(self._expires):
                self._pair(other)
            if len(self.kv) >= PAIRS:
                raise TooLarge(
                    f"the workflow keeps {PAIRS} keys, which is the limit; delete some, or let them expire"
                )
        self.kv[key] = args["value"]
        self._expires.pop(key, None)
        if seconds is not None:
            self._expires[key] = self.clock.now + timedelta(seconds=seconds)

    def _kv_delete(self, args: dict[str, Any]) -> bool:
        _check_key(args["key"])
        there = self._pair(args["key"]) is not None
        self.kv.pop(args["key"], None)
        self._expires.pop(args["key"], None)
        return there

    def _kv_list(self, args: dict[str, Any]) -> dict[str, Any]:
        prefix, after = args.get("prefix") or "", args.get("after")
        for text in (prefix, after):
            if text:
                _check_key(text)
        limit = args.get("limit")
        limit = LISTED if limit is None else min(max(int(limit), 1), LISTED)
        found = [
            key
            for key in sorted(self.kv)
            if key.startswith(prefix) and (after is None or key > after) and self._pair(key) is not None
        ]
        return {"keys": found[:limit], "more": len(found) > limit}

    def _artifacts_begin(self, args: dict[str, Any]) -> dict[str, Any]:
        name, size, media_type = args["name"], args["size"], args.get("media_type")
        if (
            not isinstance(name, str)
            or not name.strip()
            or len(name) > NAME_CHARACTERS
            or name in (".", "..")
            or any(c in "/\\" or ord(c) < 32 or 127 <= ord(c) < 160 for c in name)
        ):
            raise InvalidInput(
                f"the name of an artifact has 1 to {NAME_CHARACTERS} characters, without `/`, `\\` and "
                "control characters"
            )
        if media_type is not None and (
            not isinstance(media_type, str)
            or len(media_type) > 100
            or not all(" " <= c <= "~" for c in media_type)
        ):
            raise InvalidInput("`media_type` is not one, as `text/csv` is")
        announced = args.get("sha256")
        if announced is not None and (
            not isinstance(announced, str) or len(announced) != 64 or not _HEXADECIMAL.issuperset(announced)
        ):
            raise InvalidInput("`sha256` is not a digest of 64 hexadecimal digits")
        limit = ARTIFACT_BYTES if announced else min(ARTIFACT_BYTES, UNANNOUNCED_BYTES)
        if size > limit:
            raise TooLarge(f"artifact `{name:.60}` has {size} bytes; the limit is {limit}: split it")
        there = self._artifacts_there()
        if len(there) >= ARTIFACTS or sum(len(kept.content) for kept in there) + size > RUN_BYTES:
            raise _full()
        if len(self._uploads) >= UPLOADS:
            raise InvalidInput(f"an attempt may write {UPLOADS} artifacts at a time; finish one first")
        self._begun += 1
        self._uploads[self._begun] = (name, size, media_type, bytearray())
        return {"upload": self._begun, "piece_bytes": PIECE_BYTES}

    def _artifacts_append(self, args: dict[str, Any]) -> None:
        upload = self._uploads.get(args["upload"])
        try:
            data = a2b_base64(args["data"], strict_mode=True)
        except (NotBase64, ValueError):
            raise InvalidInput("`data` is not base64") from None
        if upload is None:
            raise _no_upload()
        _, size, _, content = upload
        there = len(content)
        if len(data) > PIECE_BYTES or args["offset"] != there or there + len(data) > size:
            del self._uploads[args["upload"]]
            raise InvalidInput(
                f"a piece must begin at {there}, where the last ended, have at most {PIECE_BYTES} bytes, and "
                "fit the size"
            )
        content.extend(data)

    def _artifacts_commit(self, args: dict[str, Any]) -> dict[str, Any]:
        upload = self._uploads.pop(args["upload"], None)
        if upload is None:
            raise _no_upload()
        name, size, media_type, content = upload
        digest = sha256(content).hexdigest()
        if len(content) != size or args["sha256"].lower() != digest:
            raise InvalidInput("the bytes that arrived are not those that were announced")
        self._artifacts_there()
        id = _artifact_id(name, bytes(content))
        # What is written again is the newest again.
        order = len(self._kept) + 1 + max((kept.order for kept in self._kept.values()), default=0)
        self._kept[id] = _Kept(id, name, bytes(content), media_type, self.clock.text(), order)
        self.artifacts[name] = bytes(content)
        return _shown(self._kept[id])

    def _artifacts_there(self) -> list[_Kept]:
        """All of them, those included that the test has put into `artifacts`."""
        for name, content in self.artifacts.items():
            id = _artifact_id(name, content)
            if id not in self._kept:
                self._kept[id] = _Kept(id, name, content, None, self.clock.text(), len(self._kept))
        return sorted(self._kept.values(), key=lambda kept: (kept.name, -kept.order))

    def _artifacts_read(self, args: dict[str, Any]) -> dict[str, Any]:
        name, id, offset = args.get("name"), args.get("id"), args.get("offset") or 0
        if (name is None) == (id is None):
            raise InvalidInput("`artifacts.read` needs a `name` or an `id`")
        for kept in self._artifacts_there():
            if kept.id == id or kept.name == name:
                data = b2a_base64(kept.content[offset : offset + PIECE_BYTES], newline=False)
                return {**_shown(kept), "offset": offset, "data": data.decode("ascii")}
        raise NotFound(f"this run has no artifact `{(name or id)!s:.80}`")

    def _artifacts_list(self, args: dict[str, Any]) -> list[dict[str, Any]]:
        return [_shown(kept) for kept in self._artifacts_there()]

    def _data_get(self, args: dict[str, Any]) -> Any:
        provider = args["provider"]
        if provider not in self.data:
            raise NotFound(f"there is no data provider `{provider}`; give the test one: Fakes(data={{…}})")
        try:
            return _answer(self.data[provider], args.get("inputs") or {})
        except Exception as error:
            raise WeftError(f"data provider `{provider}` failed: {type(error).__name__}: {error}") from error

    def _runs_start(self, args: dict[str, Any]) -> dict[str, Any]:
        workflow, key, inputs = args["workflow"], args.get("key"), args.get("inputs") or {}
        self._started += 1
        if self._started > RUNS:
            raise Denied(f"an attempt may start {RUNS} runs, and this one has")
        if key is not None and not 1 <= len(key) <= KEY_CHARACTERS:
            raise InvalidInput(f"`key` has 1 to {KEY_CHARACTERS} characters")
        known: str | int = self._unkeyed if key is None else key
        if key is None:
            self._unkeyed += 1
        if workflow not in self.runs:
            raise NotFound(f"there is no workflow `{workflow}`; give the test one: Fakes(runs={{…}})")
        if known in self._by_key:
            id, before = self._by_key[known]
            if before.workflow != workflow or (key is not None and before.inputs != inputs):
                raise InvalidInput(
                    f"the key `{key}` was used for a run of `{before.workflow}` with other arguments; "
                    "use one key for each run that the step starts"
                    if key is not None
                    else f"an earlier attempt of this step started `{before.workflow}` where this one starts "
                    f"`{workflow}`; give `runs.start` a key, so that the order doesn't matter"
                )
            return {"id": id, "status": self._ended[id]["status"], "repeated": True}
        started = StartedRun(workflow, inputs, key)
        self.started.append(started)
        id = f"run_test_{len(self.started)}"
        self._by_key[known] = (id, started)
        try:
            ended = {"status": "succeeded", "result": _answer(self.runs[workflow], inputs)}
        except Exception as error:
            ended = {"status": "failed", "error": {"type": type(error).__name__, "message": str(error)}}
        at = self.clock.text()
        times = {"created_at": at, "started_at": at, "finished_at": at}
        self._ended[id] = {"id": id, "workflow": workflow, **ended, **times}
        return {"id": id, "status": ended["status"], "repeated": False}

    def _runs_get(self, args: dict[str, Any]) -> dict[str, Any]:
        id = args["id"]
        if not isinstance(id, str) or not id.startswith("run_"):
            raise InvalidInput(f"`{id!s:.60}` is no id of a run")
        if id not in self._ended:
            raise NotFound(f"there is no run `{id}` that this one may look at")
        return self._ended[id]

    def _runs_wait(self, args: dict[str, Any]) -> dict[str, Any]:
        timeout = args.get("timeout_seconds")
        if timeout is not None and not 0 <= timeout <= 86_400:
            raise InvalidInput("`timeout_seconds` must be from 0 to 86400")
        return self._runs_get(args)


class FakeLink:
    """The link of a fake context: keeps what is emitted, and knows no more secrets than it was given.

    declared: the secrets that the function declares, None for all. network: the hosts that it declares, None
    for all.
    """

    def __init__(
        self,
        fakes: Fakes,
        secrets: Mapping[str, str] | None,
        http: Callable[[Request], Response] | None,
        declared: Iterable[str] | None = None,
        network: Iterable[str] | None = None,
        run_id: str = "run_test",
    ) -> None:
        self._secrets = {_canonical(name): value for name, value in (secrets or {}).items()}
        self._declared = None if declared is None else {_canonical(name) for name in declared}
        own = fakes.network if fakes.network is not None else network
        self._network = None if own is None else list(own)
        self._http = http or fakes.http
        self._handles = 0
        self._run_id = run_id
        self.logs: list[LogEntry] = []
        self.checkpoints: list[Checkpoint] = []
        self.fakes = fakes
        fakes.begin()

    def emit(self, frame: dict[str, Any]) -> None:
        """Keep a line or a checkpoint."""
        if frame["t"] == "log":
            line = LogEntry(frame["level"], frame["message"], frame.get("fields") or {})
            self.logs.append(line)
            self.fakes.logs.append(line)
        else:
            reached = Checkpoint(frame["name"], frame["data"])
            self.checkpoints.append(reached)
            self.fakes.checkpoints.append(reached)

    def call(self, name: str, args: dict[str, Any]) -> Any:
        """Answer as the engine would."""
        if name in ("secrets.get", "secrets.handle"):
            check_arguments(name, args)
            return self._secret(name, args["name"])
        if name == "http.request":
            check_arguments(name, args)
            return self._request(args)
        if name == "runs.wait" and args.get("id") == self._run_id:
            raise InvalidInput("a run can't wait for itself, or for one that may wait for it")
        return self.fakes.call(name, args)

    def _secret(self, call: str, name: str) -> str:
        if not _is_secret_name(name):
            raise InvalidInput(
                f"`{name:.60}` is not a secret's name (at most 64 of letters, digits and single `_` or `-` "
                "between them, a letter first)"
            )
        if self._declared is not None and _canonical(name) not in self._declared:
            raise Denied(
                f"the workflow does not declare the secret `{name}`; add it in `@workflow`: "
                f'secrets=["{name}"]'
            )
        if _canonical(name) not in self._secrets:
            raise NotFound(
                f'the organization has no secret `{name}`; give the test one: secrets={{"{name}": "…"}}'
            )
        if call == "secrets.get":
            return self._secrets[_canonical(name)]
        self._handles += 1
        if self._handles > HANDLES:
            raise Denied(f"an attempt may have {HANDLES} handles, and this one has; use the same one again")
        return _HANDLE + name

    def _request(self, args: dict[str, Any]) -> dict[str, Any]:
        method, url, auth = str(args["method"]).upper(), str(args["url"]), args.get("auth")
        if not method.isalpha() or method in ("CONNECT", "TRACE"):
            raise InvalidInput("`method` is no method of HTTP")
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if "://" not in url:
            raise InvalidInput("`url` is no address as `https://api.example.com/v1`")
        if parts.scheme not in ("http", "https"):
            raise InvalidInput("`url` begins with `https://` or `http://`")
        if not host:
            raise InvalidInput("`url` names no host")
        if parts.username is not None or parts.password is not None:
            raise InvalidInput("`url` holds a user or a password; put a secret on the request with `auth`")
        headers = {str(name).lower(): str(value) for name, value in args.get("headers") or []}
        for name in headers:
            if name in _OURS:
                raise InvalidInput(f"the header `{name}` is the engine's to set")
        if auth is not None and not str(auth).startswith(_HANDLE):
            raise NotFound("`auth` is no handle of this attempt; get one by `ctx.secrets.handle(name)`")
        if (
            auth is not None
            and "authorization" in headers
            and args.get("auth_as") in (None, "bearer", "basic")
        ):
            raise InvalidInput(
                "the header `authorization` is given, and `auth` would set it too; leave one out"
            )
        port = port or (443 if parts.scheme == "https" else 80)
        if self._network is not None and not _is_declared(host, port, self._network):
            raise Denied(
                f"`{host}` is not among the hosts that this step may reach; declare it: "
                f'@workflow(network=["{host}"])'
            )
        request = Request(
            method,
            url,
            headers,
            a2b_base64(args.get("body_base64") or ""),
            None if auth is None else str(auth).removeprefix(_HANDLE),
        )
        self.fakes.requests.append(request)
        if self._http is None:
            raise NotAvailable("nobody answers requests in this test; give it a function: http=…")
        answer = self._http(request)
        if len(answer.body) > ANSWER_BYTES:
            raise TooLarge(f"the answer has more than {ANSWER_BYTES} bytes")
        return {
            "status": answer.status,
            "url": answer.url or request.url,
            "headers": answer.headers.items(),
            "size": len(answer.body),
            "body_base64": b2a_base64(answer.body, newline=False).decode("ascii"),
            "more": None,
        }


def check_arguments(name: str, args: dict[str, Any]) -> None:
    """Refuse a call that lacks an argument, or has one that it doesn't take."""
    needed, optional = _ARGUMENTS[name]
    for missing in needed:
        if missing not in args:
            raise InvalidInput(f"the arguments of `{name}`: missing field `{missing}`")
    for unknown in args:
        if unknown not in needed and unknown not in optional:
            raise InvalidInput(f"the arguments of `{name}`: unknown field `{unknown}`")


def _check_key(key: Any) -> None:
    good = isinstance(key, str) and 1 <= len(key) <= KEY_CHARACTERS
    if good and sum(_weight(c) for c in key) <= KEY_BYTES:
        return
    raise InvalidInput(
        f"a key has 1 to {KEY_CHARACTERS} characters, of which those outside ASCII count eightfold within "
        f"{KEY_BYTES}"
    )


def _weight(c: str) -> int:
    return 2 if c in _ESCAPED else 1 if " " <= c <= "}" else 8


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_secret_name(name: Any) -> bool:
    if not isinstance(name, str) or not 1 <= len(name) <= 64 or not name.isascii() or not name[0].isalpha():
        return False
    return all(part.isalnum() for part in name.replace("_", "-").split("-"))


def _is_declared(host: str, port: int, network: list[str]) -> bool:
    for pattern in network:
        if pattern == "*":
            return True
        wanted, colon, digits = pattern.rpartition(":")
        if not colon or not digits.isdigit():
            wanted, digits = pattern, ""
        wanted = wanted.strip("[]").lower()
        if (port != int(digits)) if digits else (port not in (80, 443)):
            continue
        if wanted == host or (wanted.startswith("*.") and host.endswith(wanted[1:])):
            return True
    return False


def _artifact_id(name: str, content: bytes) -> str:
    return "art_" + sha256(name.encode() + b"\0" + content).hexdigest()[:26]


def _shown(kept: _Kept) -> dict[str, Any]:
    return {
        "id": kept.id,
        "name": kept.name,
        "size": len(kept.content),
        "sha256": sha256(kept.content).hexdigest(),
        "media_type": kept.media_type,
        "step": "main",
        "created_at": kept.at,
    }


def _no_upload() -> InvalidInput:
    return InvalidInput("there is no such upload; `artifacts.begin` begins one")


def _full() -> TooLarge:
    return TooLarge(f"the artifacts of a run are at most {ARTIFACTS}, and {RUN_BYTES} bytes together")


def _answer(answer: Any, inputs: dict[str, Any]) -> Any:
    return answer(**inputs) if callable(answer) else answer


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-")
