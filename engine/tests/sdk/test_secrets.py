"""`ctx.secrets` and `ctx.http`: what they ask the engine for, and the fakes of `weft.testing`."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import pytest

from weft import Context, Denied, HttpError, InvalidInput, NotAvailable, NotFound, workflow
from weft.testing import Request, fake_context, response, run


class Engine:
    """A link that answers requests in two pieces."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def emit(self, frame: dict[str, Any]) -> None:
        raise AssertionError(frame)

    def call(self, name: str, args: dict[str, Any]) -> Any:
        self.calls.append((name, args))
        if name == "secrets.handle":
            return "hdl_1"
        if name == "http.read":
            return {"body_base64": b64encode(b"caf\xe9").decode(), "more": None}
        return {
            "status": 404,
            "url": args["url"],
            "headers": [["Content-Type", "text/plain; charset=latin-1"], ["x-a", "1"], ["x-a", "2"]],
            "body_base64": b64encode(b"no ").decode(),
            "more": 5,
        }


def test_requests_are_sent_with_a_handle_and_read_to_their_end() -> None:
    engine = Engine()
    ctx = Context({}, engine)
    handle = ctx.secrets.handle("API_KEY")
    answer = ctx.http.post(
        "https://api.example.com/x", json={"a": 1}, auth=handle, auth_as="header:X-Key", timeout=5
    )
    assert engine.calls[1] == (
        "http.request",
        {
            "method": "POST",
            "url": "https://api.example.com/x",
            "headers": [["Content-Type", "application/json"]],
            "body_base64": b64encode(b'{"a":1}').decode(),
            "auth": "hdl_1",
            "auth_as": "header:X-Key",
            "timeout": 5,
        },
    )
    assert engine.calls[2] == ("http.read", {"id": 5})
    assert (answer.status, answer.ok, answer.text) == (404, False, "no café")
    assert answer.headers["X-A"] == "1"
    assert answer.headers.get_all("x-a") == ["1", "2"]
    assert "x-b" not in answer.headers
    with pytest.raises(HttpError, match="answered 404"):
        answer.raise_for_status()
    assert repr(handle) == "Handle('API_KEY')"


def test_what_can_not_be_sent_is_said_before() -> None:
    ctx = Context({}, Engine())
    with pytest.raises(TypeError, match="handle"):
        ctx.http.get("https://a.example", auth="value")
    with pytest.raises(InvalidInput, match="not both"):
        ctx.http.post("https://a.example", json={}, body=b"")
    with pytest.raises(InvalidInput, match="limit"):
        ctx.http.post("https://a.example", body=b"x" * (512 * 1024 + 1))


@workflow(secrets=["API_KEY", "other-key"], network=["api.example.com"])
def order(ctx: Context) -> dict[str, Any]:
    made = ctx.http.post("https://api.example.com/orders", json={"n": 1}, auth=ctx.secrets.handle("api-key"))
    return {"id": made.raise_for_status().json()["id"], "length": len(ctx.secrets.get("OTHER_KEY"))}


@workflow
def undeclared(ctx: Context) -> str:
    return ctx.secrets.get("API_KEY")


def test_fakes_answer_with_what_the_test_gives() -> None:
    seen: list[Request] = []

    def answer(request: Request) -> Any:
        seen.append(request)
        return response(201, json={"id": 7})

    result = run(order, secrets={"API_KEY": "k", "OTHER_KEY": "four"}, http=answer)
    assert result.value == {"id": 7, "length": 4}
    assert (seen[0].auth, seen[0].body, seen[0].headers["content-type"]) == (
        "api-key",
        b'{"n":1}',
        "application/json",
    )


def test_fakes_refuse_as_the_engine_does() -> None:
    with pytest.raises(Denied, match='secrets=."API_KEY".'):
        run(undeclared, secrets={"API_KEY": "k"})
    with pytest.raises(NotFound, match="no secret `api-key`"):
        run(order)
    with pytest.raises(NotAvailable, match="http="):
        run(order, secrets={"API_KEY": "k"})
    assert fake_context(secrets={"A": "value"}).secrets.get("a") == "value"


@pytest.mark.parametrize("names", [["a b"], ["_a"], ["a__b"], ["1a"], ["a" * 65], "API_KEY"])
def test_names_that_can_not_be(names: Any) -> None:
    from weft import DeclarationError

    with pytest.raises(DeclarationError, match="secrets"):
        workflow(secrets=names)(lambda: None)
