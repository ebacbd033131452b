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
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ._arguments import bind
from ._context import Context
from ._declaration import declaration_of
from ._errors import DeclarationError, Denied, NotAvailable, NotFound
from ._http import Headers, Response
from ._json import check, encode

__all__ = ["Checkpoint", "LogEntry", "Request", "Result", "fake_context", "response", "run"]

_HANDLE = "handle:"


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


class _Recorder:
    """The link of a fake context: keeps what is emitted, knows no more configuration and secrets than it
    was given."""

    def __init__(
        self,
        secrets: Mapping[str, str] | None,
        http: Callable[[Request], Response] | None,
        declared: list[str] | None = None,
    ) -> None:
        self._secrets = {_canonical(name): value for name, value in (secrets or {}).items()}
        self._declared = None if declared is None else {_canonical(name) for name in declared}
        self._http = http
        self.logs: list[LogEntry] = []
        self.checkpoints: list[Checkpoint] = []

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
        raise NotAvailable(f"{name} is not offered in unit tests")

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
) -> Context:
    """A context for calling functions directly; what is logged through it is dropped.

    organization: its id, or `{"id", "name"}`. config: all of its configuration. secrets: all of its secrets.
    http: answers what `ctx.http` requests, with `response(…)`. caller, run: keys to change,
    as `Context.caller` and `Context.run` name them; instants are ISO 8601 texts.
    """
    return _context(_Recorder(secrets, http), "workflow", organization, config, caller, run)


def run(
    function: Callable[..., Any],
    /,
    *,
    organization: str | dict[str, str] = "test-org",
    config: Mapping[str, Any] | None = None,
    secrets: Mapping[str, str] | None = None,
    http: Callable[[Request], Response] | None = None,
    **arguments: Any,
) -> Result:
    """Call a decorated function, sync or async, with arguments by name.

    organization, config, secrets, http: as in `fake_context`; of the secrets it gets those that it declares.
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
    recorder = _Recorder(secrets, http, declaration.options.get("secrets", []))
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
