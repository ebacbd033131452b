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

`weft.pytest_plugin` has fixtures for pytest: `weft_context`, `weft_fakes`, `weft_run`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ._arguments import bind
from ._context import Context, NoCaller
from ._declaration import declaration_of
from ._errors import DeclarationError
from ._fakes import Checkpoint, FakeClock, FakeLink, Fakes, LogEntry, Request, StartedRun
from ._http import Headers, Response
from ._json import check, encode

__all__ = [
    "Checkpoint",
    "FakeClock",
    "Fakes",
    "LogEntry",
    "Request",
    "Result",
    "StartedRun",
    "fake_context",
    "options",
    "response",
    "run",
]


OPTIONS_MAX = 10_000
"""Most options of a field."""


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
    """A context for calling functions directly; what is logged through it is in `fakes.logs`.

    organization: its id, or `{"id", "name"}`. config: all of its configuration. secrets: all of its secrets.
    http: answers what `ctx.http` requests, with `response(…)`. caller, run: keys to change,
    as `Context.caller` and `Context.run` name them; instants are ISO 8601 texts.
    fakes: what the engine keeps.
    """
    fakes = fakes or Fakes()
    link = FakeLink(fakes, secrets, http, run_id=str((run or {}).get("id", "run_test")))
    return _context(link, "workflow", organization, config, caller, run)


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
    declares, and requests without a secret go to the hosts that it declares.
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
    link = FakeLink(
        fakes or Fakes(),
        secrets,
        http,
        declaration.options.get("secrets", []),
        declaration.options.get("network", []),
    )
    context = _context(link, declaration.name, organization, config, None, None)
    if declaration.kind == "data_provider" and not declaration.options["uses_caller"]:
        context.caller = NoCaller()
    value = function(context, **named) if resolved.takes_context else function(**named)
    if hasattr(value, "__await__"):
        value = _wait_for(value)
    check(value, "result")
    return Result(value, link.logs, link.checkpoints, context.variables.to_json())


def options(function: Callable[..., Any], /, **arguments: Any) -> list[dict[str, Any]]:
    """The options that a data provider offers, each with `value` and `label`, as a form gets them.

    arguments: as of `run`. Raises what that raises, and ValueError where what it returns are no options.
    """
    answer = run(function, **arguments).value
    if not isinstance(answer, list):
        raise ValueError(f"a data provider returns a list, not {type(answer).__name__}")
    if len(answer) > OPTIONS_MAX:
        raise ValueError(
            f"{len(answer)} options; the limit is {OPTIONS_MAX}: take `search`, return what fits"
        )
    found = []
    for index, item in enumerate(answer):
        option = item if isinstance(item, dict) else {"value": item}
        value = option.get("value")
        if value is None or (item is value and isinstance(value, list)):
            raise ValueError(f"item {index} has no `value`: {item!r:.80}")
        shown = {"value": value, "label": value if isinstance(value, str) else encode(value).decode()}
        for name in ("label", "description"):
            if option.get(name) is not None:
                if not isinstance(option[name], str):
                    raise ValueError(f"item {index} has a `{name}` that is no text: {item!r:.80}")
                shown[name] = option[name]
        if option.get("metadata") is not None:
            shown["metadata"] = option["metadata"]
        found.append(shown)
    return found


def _context(
    link: FakeLink,
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
            "attempt": link.fakes.attempt,
            "attempt_id": "att_test",
            "idempotency_key": "run_test/main",
            "started_at": link.fakes.clock.text(),
            "test": True,
            **(run or {}),
        },
        "config": dict(config or {}),
    }
    return Context(data, link)


def _wait_for(awaitable: Any) -> Any:
    import asyncio

    async def until_done() -> Any:
        return await awaitable

    return asyncio.run(until_done())
