"""The steps that are built in, by themselves: what a request sends, what is made of an answer, what a
command is given, and what files are made of."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from weft import FatalError, NotFound, TooLarge
from weft._steps import FileInvalid, HttpBusy, HttpFailed, ShellFailed, file, http, shell
from weft.testing import Fakes, fake_context, response, run


def ask(answer: Any, **more: Any) -> tuple[Any, Any]:
    """What comes of a request, and the request."""
    seen: list[Any] = []

    def respond(request: Any) -> Any:
        seen.append(request)
        return answer

    given: dict[str, Any] = {"method": "GET", "url": "https://api.example.com/x", "query": {}, "headers": {}}
    result = run(http, **{**given, "expect": [], **more}, http=respond, fakes=Fakes(network=["*"]))
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


def write(content: Any, format: str = "text", **more: Any) -> tuple[Any, Fakes]:
    """A file that is made, and the artifacts that there are then."""
    fakes = Fakes()
    given = {"action": "write", "format": format, "content": content, "name": "a.txt", **more}
    return run(file, **given, fakes=fakes).value, fakes


def read(content: bytes, format: str = "text", **more: Any) -> Any:
    """What is read of a file that holds its bytes itself."""
    data = {"data": base64.b64encode(content).decode(), "name": "a.txt"}
    return run(file, action="read", format=format, file=data, **more).value


def test_files_are_made_of_values_and_read_again() -> None:
    for content, format, data in [
        ("grüße", "text", "grüße".encode()),
        ({"a": [1, "ü"]}, "json", '{"a":[1,"ü"]}'.encode()),
        (None, "json", b"null"),
        (base64.b64encode(b"\0\xff").decode(), "base64", b"\0\xff"),
        ("", "text", b""),
    ]:
        made, fakes = write(content, format)
        assert fakes.artifacts == {"a.txt": data}
        assert (made["name"], made["size"]) == ("a.txt", len(data))
        again = run(file, action="read", format=format, file=made, fakes=fakes).value
        assert again == content
        inline, fakes = write(content, format, store="inline", media_type="x/y")
        assert fakes.artifacts == {} and inline["media_type"] == "x/y"
        assert run(file, action="read", format=format, file=inline).value == content
    assert write({}, "json")[0]["media_type"] == "application/json"


def test_rows_are_read() -> None:
    data = '\ufeffname,note\r\n"a ""b""","two\r\nlines"\r\n\r\nc,\r\n'.encode()
    assert read(data, "csv") == [{"name": 'a "b"', "note": "two\r\nlines"}, {"name": "c", "note": ""}]
    assert read(b"a;b\nc;d", "csv", header=False, delimiter=";") == [["a", "b"], ["c", "d"]]
    assert read(b"", "csv") == [] and read(b"a,b\n", "csv") == []
    assert len(read(b"n\n" + b"1\n" * 10_000, "csv")) == 10_000


@pytest.mark.parametrize(
    ("content", "format", "told"),
    [
        (b"ab\xff", "text", "byte 2"),
        (b'{"a": }', "json", "line 1, column 7"),
        (b"NaN", "json", "NaN"),
        (b"1e999", "json", "content"),
        (b"[" * 200 + b"]" * 200, "json", "nested"),
        (b"[" * 100_000, "json", "no value may have|no JSON"),
        (b'"\\ud800"', "json", "content"),
        (b"1" * 5000, "json", "no value may have"),
        (b"a,b\n1\n", "csv", "1 fields where the header has 2 in line 2"),
        (b"a,a\n1,2\n", "csv", "column `a` is there twice in line 1"),
        (b'a\n"b', "csv", "in line 2"),
        (b'a\n"b"c\n', "csv", "in line 2"),
        (b"a\n" + b"x" * 200_000, "csv", "in line 2"),
    ],
)
def test_what_a_file_is_not_is_told(content: bytes, format: str, told: str) -> None:
    with pytest.raises(FileInvalid, match=told):
        read(content, format)


def test_what_no_file_is_made_of_is_told() -> None:
    for content, format, more, told in [
        (7, "text", {}, "`content` is a number"),
        ({}, "base64", {}, "`content` is an object"),
        ("a", "base64", {}, "no base64"),
        ("YQ", "base64", {}, "no base64"),
        ("a", "text", {"name": "../a"}, "without `/`"),
        ("a", "text", {"name": "a\r\nb"}, "control characters"),
        ("a", "text", {"name": ""}, "1 to 200"),
        ("a", "text", {"name": "n" * 201, "store": "inline"}, "1 to 200"),
    ]:
        with pytest.raises(FileInvalid, match=told):
            write(content, format, **more)
    for wrong in (None, "art_1", {}, {"data": "", "artifact": "x"}, []):
        with pytest.raises(FileInvalid, match="no file"):
            run(file, action="read", format="text", file=wrong)
    with pytest.raises(FileInvalid, match="no base64"):
        run(file, action="read", format="text", file={"data": "?"})


def test_files_have_an_end() -> None:
    for large, format in [(b"x" * (4 << 20) + b"x", "text"), (b"x" * (512 << 10) + b"x", "base64")]:
        with pytest.raises(TooLarge, match="bytes, and as"):
            read(large, format)
    with pytest.raises(TooLarge, match="10000 rows"):
        read(b"n\n" + b"1\n" * 10_001, "csv")
    with pytest.raises(TooLarge, match="inline"):
        write("x" * (512 << 10) + "x", store="inline")
    # By its own word it is too large, so nothing is fetched; by its bytes it is, whatever it says.
    with pytest.raises(TooLarge):
        run(file, action="read", format="text", file={"artifact": "nowhere", "size": 5 << 20})
    with pytest.raises(NotFound):
        run(file, action="read", format="text", file={"artifact": "art_nowhere", "size": 5})
