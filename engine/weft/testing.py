"""Run a workflow, data provider or node in a unit test: in this process, with a context that records.

    from weft.testing import run
    from workflows.hello import hello

    def test_greets():
        result = run(hello, name="Ada", organization="contoso", config={"greeting": "Hi"})
        assert result.value["message"] == "Hi, Ada!"

Secrets are what `secrets=` gives, and requests of `ctx.http` are answered by `http=`:

    def answer(request):
        assert request.auth == "API_KEY"
        return response(json={"id": 7})

    result = run(order, secrets={"API_KEY": "test-value"}, http=answer)

Arguments are checked and the value must be JSON by the same rules as in the engine. Exceptions of the
function come through as they are.

What a step finds in the engine, and what it leaves there, is in `Fakes`:

    fakes = Fakes(kv={"cursor": 7}, data={"departments": [{"label": "IT", "value": "it"}]})
    run(import_orders, fakes=fakes)
    assert fakes.kv["cursor"] == 8
    assert fakes.artifacts["orders.csv"].startswith(b"id;")
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

from ._arguments import bind
from ._context import Context
from ._declaration import declaration_of
from ._errors import DeclarationError, Denied, InvalidInput, NotAvailable, NotFound, TooLarge
from ._http import Headers, Response
from ._json import check, encode

__all__ = [
    "Checkpoint",
    "Fakes",
    "LogEntry",
    "Request",
    "Result",
    "StartedRun",
    "fake_context",
    "response",
    "run",
]

_HANDLE = "handle:"
_KEY_CHARACTERS = 256
_VALUE_BYTES = 32 * 1024
_PIECE_BYTES = 512 * 1024


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


class Result:
    """What a function returned (`value`) and did on the way (`logs`, `checkpoints`, `variables`)."""

    __slots__ = ("checkpoints", "logs", "value", "variables")

    def __init__(
        self, value: Any, logs: list[LogEntry], checkpoints: list[Checkpoint], variables: dict[str, Any]
    ) -> None:
        self.value = value
        self.logs = logs
        self.checkpoints = checkpoints
        self.variables = variables

    @property
    def messages(self) -> list[str]:
        """The texts of `logs`."""
        return [entry.message for entry in self.logs]

    def __repr__(self) -> str:
        return f"Result({self.value!r}, {len(self.logs)} logs, {len(self.checkpoints)} checkpoints)"


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


def response(
    status: int = 200,
    *,
    json: Any = None,
    body: bytes | str = b"",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An answer for `http=`."""
    data = encode(json) if json is not None else body.encode() if isinstance(body, str) else body
    return Response(status, "", Headers(list((headers or {}).items())), data)


class StartedRun:
    """One call of `ctx.runs.start`: `workflow`, `inputs`, `key`."""

    __slots__ = ("inputs", "key", "workflow")

    def __init__(self, workflow: str, inputs: dict[str, Any], key: str | None) -> None:
        self.workflow = workflow
        self.inputs = inputs
        self.key = key

    def __repr__(self) -> str:
        return f"StartedRun({self.workflow!r}, {self.inputs!r}, key={self.key!r})"


class Fakes:
    """What the engine would keep and answer, in memory.

    kv: the pairs that there are. artifacts: content by name. data: by data provider, what it returns, or a
    function of its inputs. runs: by workflow, what a started run returns, or a function of its inputs; an
    exception that it raises is the run's error. Afterwards `kv` and `artifacts` are as the step left them,
    and `started` lists the runs that it started. Times to live don't pass.
    """

    def __init__(
        self,
        *,
        kv: Mapping[str, Any] | None = None,
        artifacts: Mapping[str, bytes] | None = None,
        data: Mapping[str, Any] | None = None,
        runs: Mapping[str, Any] | None = None,
    ) -> None:
        self.kv: dict[str, Any] = dict(kv or {})
        self.artifacts: dict[str, bytes] = dict(artifacts or {})
        self.data: dict[str, Any] = dict(data or {})
        self.runs: dict[str, Any] = dict(runs or {})
        self.started: list[StartedRun] = []
        self._ended: dict[str, dict[str, Any]] = {}
        self._keys: dict[str, str] = {}
        self._uploads: dict[int, tuple[str, bytearray]] = {}

    def call(self, name: str, args: dict[str, Any]) -> Any:
        """Answer as the engine would."""
        method = getattr(self, "_" + name.replace(".", "_"), None)
        if method is None:
            raise NotAvailable(f"{name} is not offered in unit tests")
        return method(args)

    def _kv_get(self, args: dict[str, Any]) -> Any:
        _check_key(args["key"])
        return self.kv.get(args["key"])

    def _kv_set(self, args: dict[str, Any]) -> None:
        _check_key(args["key"])
        if args["value"] is None:
            raise InvalidInput("null is what a missing key reads as; delete the key instead")
        size = len(encode(args["value"]))
        if size > _VALUE_BYTES:
            raise TooLarge(f"the value has {size} bytes of JSON; the limit is {_VALUE_BYTES}")
        self.kv[args["key"]] = args["value"]

    def _kv_compare_and_set(self, args: dict[str, Any]) -> bool:
        if self._kv_get(args) != args["expected"]:
            return False
        self._kv_set(args)
        return True

    def _kv_delete(self, args: dict[str, Any]) -> bool:
        _check_key(args["key"])
        return self.kv.pop(args["key"], None) is not None

    def _kv_list(self, args: dict[str, Any]) -> dict[str, Any]:
        return {"keys": sorted(key for key in self.kv if key.startswith(args["prefix"])), "more": False}

    def _artifacts_begin(self, args: dict[str, Any]) -> dict[str, Any]:
        number = len(self._uploads) + 1
        self._uploads[number] = (args["name"], bytearray())
        return {"upload": number, "piece_bytes": _PIECE_BYTES}

    def _artifacts_append(self, args: dict[str, Any]) -> None:
        self._uploads[args["upload"]][1].extend(a2b_base64(args["data"]))

    def _artifacts_commit(self, args: dict[str, Any]) -> dict[str, Any]:
        name, content = self._uploads[args["upload"]]
        self.artifacts[name] = bytes(content)
        return self._artifact(name)

    def _artifacts_read(self, args: dict[str, Any]) -> dict[str, Any]:
        wanted = args.get("name")
        if wanted is None:
            wanted = next((name for name in self.artifacts if f"art_{name}" == args.get("id")), None)
        if wanted not in self.artifacts:
            raise NotFound(f"this run has no artifact `{args.get('name') or args.get('id')}`")
        piece = self.artifacts[wanted][args["offset"] : args["offset"] + _PIECE_BYTES]
        return {**self._artifact(wanted), "data": b2a_base64(piece, newline=False).decode("ascii")}

    def _artifacts_list(self, args: dict[str, Any]) -> list[dict[str, Any]]:
        return [self._artifact(name) for name in sorted(self.artifacts)]

    def _artifact(self, name: str) -> dict[str, Any]:
        content = self.artifacts[name]
        return {
            "id": f"art_{name}",
            "name": name,
            "size": len(content),
            "sha256": sha256(content).hexdigest(),
            "step": "main",
        }

    def _data_get(self, args: dict[str, Any]) -> Any:
        if args["provider"] not in self.data:
            raise NotFound(f"there is no data provider `{args['provider']}`; give Fakes(data={{…}}) one")
        return _answer(self.data[args["provider"]], args["inputs"])

    def _runs_start(self, args: dict[str, Any]) -> dict[str, Any]:
        workflow, key = args["workflow"], args["key"]
        if workflow not in self.runs:
            raise NotFound(f"there is no workflow `{workflow}`; give Fakes(runs={{…}}) one")
        if key is not None and key in self._keys:
            return {"id": self._keys[key], "status": "succeeded", "repeated": True}
        self.started.append(StartedRun(workflow, args["inputs"], key))
        id = f"run_test_{len(self.started)}"
        if key is not None:
            self._keys[key] = id
        try:
            ended = {"status": "succeeded", "result": _answer(self.runs[workflow], args["inputs"])}
        except Exception as error:
            ended = {"status": "failed", "error": {"type": type(error).__name__, "message": str(error)}}
        self._ended[id] = {"id": id, "workflow": workflow, **ended}
        return {"id": id, "status": ended["status"], "repeated": False}

    def _runs_get(self, args: dict[str, Any]) -> dict[str, Any]:
        if args["id"] not in self._ended:
            raise NotFound(f"there is no run `{args['id']}` that this one may look at")
        return self._ended[args["id"]]

    _runs_wait = _runs_get


def _check_key(key: Any) -> None:
    if not isinstance(key, str) or not 1 <= len(key) <= _KEY_CHARACTERS:
        raise InvalidInput(f"a key has 1 to {_KEY_CHARACTERS} characters")


def _answer(answer: Any, inputs: dict[str, Any]) -> Any:
    return answer(**inputs) if callable(answer) else answer


class _Recorder:
    """The link of a fake context: keeps what is emitted, knows no more configuration and secrets than it
    was given."""

    def __init__(
        self,
        secrets: Mapping[str, str] | None,
        http: Callable[[Request], Response] | None,
        declared: list[str] | None = None,
        fakes: Fakes | None = None,
    ) -> None:
        self._secrets = {_canonical(name): value for name, value in (secrets or {}).items()}
        self._declared = None if declared is None else {_canonical(name) for name in declared}
        self._http = http
        self.logs: list[LogEntry] = []
        self.checkpoints: list[Checkpoint] = []
        self.fakes = fakes or Fakes()

    def emit(self, frame: dict[str, Any]) -> None:
        if frame["t"] == "log":
            self.logs.append(LogEntry(frame["level"], frame["message"], frame.get("fields") or {}))
        else:
            self.checkpoints.append(Checkpoint(frame["name"], frame["data"]))

    def call(self, name: str, args: dict[str, Any]) -> Any:
        if name == "config.get":
            return None
        if name in ("secrets.get", "secrets.handle"):
            secret: str = args["name"]
            if self._declared is not None and _canonical(secret) not in self._declared:
                raise Denied(
                    f"the workflow does not declare the secret `{secret}`; add it in `@workflow`: "
                    f'secrets=["{secret}"]'
                )
            if _canonical(secret) not in self._secrets:
                raise NotFound(
                    f'there is no secret `{secret}`; give it to the test: secrets={{"{secret}": "…"}}'
                )
            return self._secrets[_canonical(secret)] if name == "secrets.get" else _HANDLE + secret
        if name == "http.request":
            return self._request(args)
        return self.fakes.call(name, args)

    def _request(self, args: dict[str, Any]) -> dict[str, Any]:
        from base64 import b64decode, b64encode

        if self._http is None:
            raise NotAvailable("nobody answers requests in this test; give it a function: http=…")
        auth = args["auth"]
        request = Request(
            args["method"],
            args["url"],
            {name.lower(): value for name, value in args["headers"]},
            b64decode(args["body_base64"] or ""),
            None if auth is None else auth.removeprefix(_HANDLE),
        )
        answer = self._http(request)
        return {
            "status": answer.status,
            "url": answer.url or request.url,
            "headers": answer.headers.items(),
            "body_base64": b64encode(answer.body).decode(),
            "more": None,
        }


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-")


def fake_context(
    *,
    organization: str | dict[str, str] = "test-org",
    config: Mapping[str, Any] | None = None,
    secrets: Mapping[str, str] | None = None,
    http: Callable[[Request], Response] | None = None,
    caller: dict[str, Any] | None = None,
    run: dict[str, Any] | None = None,
    fakes: Fakes | None = None,
) -> Context:
    """A context for calling functions directly; what is logged through it is dropped.

    organization: its id, or `{"id", "name"}`. config: all of its configuration. secrets: all of its secrets.
    http: answers what `ctx.http` requests, with `response(…)`. caller, run: keys to change,
    as `Context.caller` and `Context.run` name them; instants are ISO 8601 texts.
    fakes: what the engine keeps.
    """
    return _context(_Recorder(secrets, http, fakes=fakes), "workflow", organization, config, caller, run)


def run(
    function: Callable[..., Any],
    /,
    *,
    organization: str | dict[str, str] = "test-org",
    config: Mapping[str, Any] | None = None,
    secrets: Mapping[str, str] | None = None,
    http: Callable[[Request], Response] | None = None,
    fakes: Fakes | None = None,
    **arguments: Any,
) -> Result:
    """Call a decorated function, sync or async, with arguments by name.

    organization, config, secrets, http, fakes: as in `fake_context`; of the secrets it gets those that it
    declares.
    Raises InvalidInput for wrong arguments, TypeError or ValueError for a value that isn't JSON,
    DeclarationError for a function without decorator, and whatever the function raises.
    """
    declaration = declaration_of(function)
    if declaration is None or declaration.kind is None:
        name = getattr(function, "__name__", repr(function))
        raise DeclarationError(
            f"`{name}` is no workflow, data provider or node; decorate it, or just call it"
        )
    resolved = declaration.resolve()
    named = bind(resolved, arguments)
    recorder = _Recorder(secrets, http, declaration.options.get("secrets", []), fakes)
    context = _context(recorder, declaration.name, organization, config, None, None)
    value = function(context, **named) if resolved.takes_context else function(**named)
    if hasattr(value, "__await__"):
        value = _wait_for(value)
    check(value, "result")
    return Result(value, recorder.logs, recorder.checkpoints, context.variables.to_json())


def _context(
    recorder: _Recorder,
    name: str,
    organization: str | dict[str, str],
    config: Mapping[str, Any] | None,
    caller: dict[str, Any] | None,
    run: dict[str, Any] | None,
) -> Context:
    if isinstance(organization, str):
        organization = {"id": organization, "name": organization}
    data = {
        "organization": organization,
        "caller": {"kind": "user", "id": "user:test", "name": "Test", **(caller or {})},
        "run": {
            "id": "run_test",
            "workflow": name,
            "attempt": 1,
            "attempt_id": "att_test",
            "idempotency_key": "run_test/main",
            "started_at": "2026-01-01T00:00:00Z",
            "test": True,
            **(run or {}),
        },
        "config": dict(config or {}),
    }
    return Context(data, recorder)


def _wait_for(awaitable: Any) -> Any:
    import asyncio

    async def until_done() -> Any:
        return await awaitable

    return asyncio.run(until_done())
