"""The steps that are built in, by themselves: what a request sends, what is made of an answer, and what a
command is given."""

from __future__ import annotations

from typing import Any

import pytest

from weft import FatalError
from weft._steps import HttpBusy, HttpFailed, ShellFailed, http, shell
from weft.testing import fake_context, response, run


def ask(answer: Any, **more: Any) -> tuple[Any, Any]:
    """What comes of a request, and the request."""
    seen: list[Any] = []

    def respond(request: Any) -> Any:
        seen.append(request)
        return answer

    given: dict[str, Any] = {"method": "GET", "url": "https://api.example.com/x", "query": {}, "headers": {}}
    result = run(http, **{**given, "expect": [], **more}, http=respond)
    return result, seen[0]


def test_a_request_sends_its_query_and_reads_json() -> None:
    result, request = ask(
        response(json={"id": 7}, headers={"content-type": "application/json"}),
        url="https://api.example.com/x?a=1#end",
        query={"q": "a&b=c/ü", "n": 2, "tag": ["x", "y"]},
    )
    assert request.url == "https://api.example.com/x?a=1&q=a%26b%3Dc%2F%C3%BC&n=2&tag=x&tag=y#end"
    assert (result.value["status"], result.value["body"]) == (200, {"id": 7})


def test_a_secret_is_put_on_by_the_engine_and_never_here() -> None:
    seen: list[Any] = []

    def respond(request: Any) -> Any:
        seen.append(request)
        return response(json={})

    ctx = fake_context(secrets={"API_KEY": "not for anybody"}, http=respond)
    headers = {"X-Plain": "p"}
    secret = {"secret": "API_KEY", "as": "header:X-Key"}
    http(ctx, "GET", "https://api.example.com/", {}, headers, [], secret_header=secret)
    assert (seen[0].auth, seen[0].headers) == ("API_KEY", {"x-plain": "p"})


@pytest.mark.parametrize(("status", "error"), [(404, HttpFailed), (429, HttpBusy), (503, HttpBusy)])
def test_a_status_that_is_not_expected_is_a_failure(status: int, error: type[HttpFailed]) -> None:
    with pytest.raises(error) as failed:
        ask(response(status=status, body=b"no"))
    assert failed.value.data == {"status": status}
    assert type(failed.value).retriable is (True if error is HttpBusy else None)
    result, _ = ask(response(status=status, body=b"no"), expect=[status])
    assert result.value["body"] == "no"


def command(*argv: Any, **more: Any) -> Any:
    given: dict[str, Any] = {
        "environment": {},
        "secret_environment": {},
        "working_directory": "",
        "expect": [0],
    }
    return run(shell, argv=list(argv), **{**given, "capture_output": True, **more}).value


def test_a_command_gets_texts() -> None:
    printed = command("printf", "[%s]", "a b", 1, True, None, ["x"], {"y": 2.5})
    assert printed["stdout"] == '[a b][1][true][][["x"]][{"y":2.5}]'
    assert command("sh", "-c", 'echo "$A"; echo err >&2; exit 3', environment={"A": "b"}, expect=[3]) == {
        "exit_code": 3,
        "stdout": "b\n",
        "stderr": "err\n",
    }


def test_what_a_command_can_t_be_given_is_told() -> None:
    for wrong, told in [
        (["echo", "a\0b"], "NUL"),
        ([""], "has no program"),
        (["echo", "x" * 200_000], "128 KiB"),
    ]:
        with pytest.raises(FatalError, match=told):
            command(*wrong)
    with pytest.raises(ShellFailed, match="exit code 2: last words"):
        command("sh", "-c", "echo last words >&2; exit 2")


def test_what_lingers_holds_nothing_up() -> None:
    assert command("sh", "-c", "sleep 30 & echo $!")["exit_code"] == 0
