"""What callers get wrong: each mistake has an answer that says which and what to do, and nothing is started."""

import json
import re
import socket
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from weft import Weft, problem, send, until

JSON = "application/json"


@pytest.mark.parametrize(
    ("body", "code", "hint"),
    [
        (b'{"value": ', "body_not_json", "EOF"),
        (b"{'value': 1}", "body_not_json", "key must be a string"),
        (b"value=1", "body_not_json", "expected value"),
        (b'{"value": NaN}', "body_not_json", "expected value"),
        (b'{"value": 1e999}', "body_not_json", "number out of range"),
        (b'{"value": 1} {}', "body_not_json", "trailing"),
        (b'\xef\xbb\xbf{"value": 1}', "body_not_json", "expected value"),
        (b'{"value": "\xff\xfe"}', "body_not_json", "code point"),
        (b'{"value": "\\ud800"}', "body_not_json", "surrogate|escape"),
        (b"\x00", "body_not_json", "expected value"),
        (b"[" * 100_000, "body_not_json", "recursion"),
        (b'{"value":' * 100_000, "body_not_json", "recursion"),
        (b"[1, 2]", "body_not_an_object", "by name"),
        (b'"text"', "body_not_an_object", "by name"),
        (b"null", "body_not_an_object", "by name"),
        (b"12", "body_not_an_object", "by name"),
    ],
)
def test_a_body_that_is_no_json_object(shared: Weft, body: bytes, code: str, hint: str) -> None:
    answer = shared.call("POST", "/workflows/echo/execute", body, Content_Type=JSON)
    said = problem(answer, 400, code, hint=hint, detail=r"JSON")
    if code == "body_not_json":
        assert re.search(r"line \d+, column \d+$", said["detail"]), said


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/xml", "multipart/form-data; boundary=x", "json", ""]
)
def test_a_body_of_another_kind(shared: Weft, kind: str) -> None:
    answer = shared.call("POST", "/workflows/echo/execute", b'{"value": 1}', Content_Type=kind)
    problem(answer, 415, "media_type_unsupported", hint="Content-Type: application/json")


@pytest.mark.parametrize(
    "kind", [JSON, "application/json; charset=utf-8", "application/cloudevents+json", None]
)
def test_a_body_of_a_good_kind(shared: Weft, kind: str | None) -> None:
    answer = shared.call("POST", "/workflows/echo/execute", b'{"value": 1}', Content_Type=kind)
    assert answer.status == 200, answer
    assert answer.json["result"]["value"] == 1


def test_no_body_is_the_empty_object(shared: Weft) -> None:
    answer = shared.call("POST", "/workflows/nothing/execute")
    assert (answer.status, answer.json["status"], answer.json["result"]) == (200, "succeeded", None), answer


LIMIT = 1_048_576


def test_a_body_at_the_limit_and_one_byte_over_it(shared: Weft) -> None:
    # In texts that the security profile takes.
    begin, end, between, most = b'{"value": ["', b'"]}', b'","', 40_000
    inside = b"x" * most
    while len(begin) + len(inside) + len(between) + most + len(end) <= LIMIT:
        inside += between + b"x" * most
    at = begin + inside + b"x" * (LIMIT - len(begin) - len(inside) - len(end)) + end
    assert len(at) == LIMIT
    answer = shared.call("POST", "/workflows/echo/execute", at, Content_Type=JSON)
    # The workflow repeats it, which is over the limit of results: an answer, too.
    assert (answer.status, answer.json["error"]["type"]) == (200, "ResultTooLarge"), answer
    problem(
        shared.call("POST", "/workflows/echo/execute", at + b" ", Content_Type=JSON),
        413,
        "body_too_large",
        hint="WEFT_MAX_BODY_BYTES",
        detail=str(LIMIT),
    )


def raw(one: Weft, sent: bytes, within: float = 10) -> bytes:
    """What comes back for these bytes, until the other side closes or there is a whole head."""
    parts = urlsplit(one.url)
    with socket.create_connection((parts.hostname, parts.port), within) as connection:
        connection.sendall(sent)
        received = b""
        while b"\r\n\r\n" not in received:
            more = connection.recv(65536)
            if not more:
                break
            received += more
        return received


HEAD = (
    b"POST /api/workflows/echo/execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"x-functions-key: weft-dev-key\r\nX-Organization-Id: contoso\r\n"
)


def test_a_body_that_is_announced_as_too_large_is_refused_unread(shared: Weft) -> None:
    assert raw(shared, HEAD + b"Content-Length: 5000000000\r\n\r\n").startswith(b"HTTP/1.1 413 ")


def test_a_body_in_pieces_is_read_no_further_than_the_limit(shared: Weft) -> None:
    piece = b"%x\r\n" % (LIMIT + 1) + b" " * (LIMIT + 1) + b"\r\n"
    assert raw(shared, HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + piece).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_breaks_off_starts_nothing(shared: Weft) -> None:
    before = shared.get("/runs?workflow=echo&limit=1")["items"]
    parts = urlsplit(shared.url)
    with socket.create_connection((parts.hostname, parts.port), 10) as connection:
        connection.sendall(HEAD + b'Content-Length: 100\r\n\r\n{"value": ')
    shared.run("nothing")
    assert shared.get("/runs?workflow=echo&limit=1")["items"] == before


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /api/health HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /api/health HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /api/health HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /api/health HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
    ],
)
def test_what_is_no_http_is_refused(shared: Weft, sent: bytes) -> None:
    try:
        answer = raw(shared, sent)
    except ConnectionError:
        answer = b""
    assert not answer or re.match(rb"HTTP/1\.[01] 4\d\d ", answer), answer[:200]
    assert shared.call("GET", "/health").status == 200


def test_callers_that_say_nothing_keep_nobody_out(shared: Weft) -> None:
    parts = urlsplit(shared.url)
    silent = [socket.create_connection((parts.hostname, parts.port), 10) for _ in range(100)]
    try:
        for one in silent:
            one.sendall(HEAD + b"Content-Length: 10\r\n\r\n{")
        shared.lives()
    finally:
        for one in silent:
            one.close()


def strict(one: Weft, arguments: Any) -> Any:
    return one.execute("strict", arguments)


@pytest.mark.parametrize(
    ("arguments", "errors"),
    [
        ({}, {"/name": "required"}),
        ({"name": None}, {"/name": "wrong_type"}),
        ({"name": 1}, {"/name": "wrong_type"}),
        ({"name": "a"}, {"/name": "too_short"}),
        ({"name": "a" * 21}, {"/name": "too_long"}),
        ({"name": "Ada"}, {"/name": "pattern"}),
        ({"name": "ada\n"}, {"/name": "pattern"}),
        ({"name": "ada", "count": "1"}, {"/count": "wrong_type"}),
        ({"name": "ada", "count": 1.5}, {"/count": "wrong_type"}),
        ({"name": "ada", "count": True}, {"/count": "wrong_type"}),
        ({"name": "ada", "count": 0}, {"/count": "too_small"}),
        ({"name": "ada", "count": 11}, {"/count": "too_large"}),
        ({"name": "ada", "count": 1e40}, {"/count": "wrong_type"}),
        ({"name": "ada", "ratio": "half"}, {"/ratio": "wrong_type"}),
        ({"name": "ada", "flag": 1}, {"/flag": "wrong_type"}),
        ({"name": "ada", "flag": "true"}, {"/flag": "wrong_type"}),
        ({"name": "ada", "mail": "ada@"}, {"/mail": "not_an_email"}),
        ({"name": "ada", "size": "medium"}, {"/size": "not_one_of"}),
        ({"name": "ada", "items": {}}, {"/items": "wrong_type"}),
        ({"name": "ada", "items": [1, 2, 3, 4]}, {"/items": "too_long"}),
        ({"name": "ada", "options": []}, {"/options": "wrong_type"}),
        ({"name": "ada", "ctx": {}}, {"/ctx": "unknown_argument"}),
        ({"name": "ada", "a/b~c": 1}, {"/a~1b~0c": "unknown_argument"}),
        (
            {"nmae": "ada", "count": 0, "flag": "no", "size": "medium"},
            {
                "/name": "required",
                "/nmae": "unknown_argument",
                "/count": "too_small",
                "/flag": "wrong_type",
                "/size": "not_one_of",
            },
        ),
    ],
)
def test_arguments_that_do_not_fit(shared: Weft, arguments: Any, errors: dict[str, str]) -> None:
    answer = shared.execute("strict", arguments)
    said = problem(
        answer, 400, "arguments_invalid", errors=errors, hint="GET /api/workflows/strict", detail="`strict`"
    )
    for item in said["errors"]:
        assert item["message"], item


def test_no_number_is_rounded_without_a_word(shared: Weft) -> None:
    answer = shared.execute("echo", {"value": [1, 10**40]})
    problem(
        answer, 400, "parameter_invalid", errors={"": "invalid"}, hint="as a text", detail="beyond 64 bits"
    )
    kept = [2**64 - 1, -(2**63)]
    assert shared.run("echo", {"value": kept})["result"]["value"] == kept


def test_a_mistyped_argument_is_recognized(shared: Weft) -> None:
    answer = shared.execute("strict", {"nmae": "ada"})
    hints = {item["pointer"]: item.get("hint") for item in answer.json["errors"]}
    assert hints["/nmae"] == "did you mean `name`?", answer
    unknown = shared.execute("nothing", {"anything": 1}).json["errors"][0]
    assert unknown["hint"] == "this workflow takes no arguments"


def test_whole_numbers_are_integers(shared: Weft) -> None:
    done = shared.run("strict", {"name": "ada", "count": 3.0, "mail": None, "items": None})
    assert (done["status"], done["result"]["count"]) == ("succeeded", 3), done


def test_refused_calls_start_nothing(shared: Weft) -> None:
    shared.execute("strict", {})
    assert shared.get("/runs?workflow=strict&status=failed")["items"] == []


@pytest.mark.parametrize(
    "name",
    [
        "no-such",
        "Echo",
        "echo%20",
        "..%2f..%2fetc",
        "%00",
        "%F0%9F%A7%B5",
        "a" * 2000,
        "'%20OR%201=1",
        "%3Cb%3E",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_workflow_that_does_not_exist(shared: Weft, name: str, method: str) -> None:
    target = f"/workflows/{name}" + ("/execute" if method == "POST" else "")
    said = problem(shared.call(method, target), 404, "workflow_not_found", hint="`echo`|`asks_too_much`")
    assert len(said["detail"]) < 200, said


def test_a_name_that_is_no_text(shared: Weft) -> None:
    problem(
        shared.call("GET", "/workflows/%ff%fe"),
        400,
        "parameter_invalid",
        hint=None,
        errors={"path": "invalid"},
    )


def test_a_data_provider_that_does_not_exist(shared: Weft) -> None:
    problem(shared.call("GET", "/data-providers/no-such"), 404, "data_provider_not_found")


@pytest.mark.parametrize(
    "target", ["/no-such", "/runs/x/no-such", "/workflows/echo/no-such", "//runs", "/runs/"]
)
def test_a_route_that_does_not_exist(shared: Weft, target: str) -> None:
    problem(shared.call("GET", target), 404, "route_not_found", hint="/api/openapi.json")


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("DELETE", "/runs", "GET"),
        ("PUT", "/workflows/echo", "GET"),
        ("GET", "/workflows/echo/execute", "POST"),
        ("BREW", "/me", "GET"),
    ],
)
def test_a_method_that_a_route_does_not_have(shared: Weft, method: str, target: str, allow: str) -> None:
    answer = shared.call(method, target)
    problem(answer, 405, "method_not_allowed", hint="openapi")
    assert allow in answer.headers["Allow"]


@pytest.mark.parametrize(
    ("target", "pointer", "detail"),
    [
        ("/runs?limit=0", "query:limit", "1 to 200"),
        ("/runs?limit=-1", "query:limit", "1 to 200"),
        ("/runs?limit=many", "query:limit", "1 to 200"),
        ("/runs?status=done", "query:status", "succeeded"),
        ("/runs?from=yesterday", "query:from", "2026-11-21T08:00:00Z"),
        ("/runs?to=2026-13-01T00:00:00Z", "query:to", "2026-11-21T08:00:00Z"),
        ("/runs?cursor=%21", "query:cursor", "a page has given"),
        ("/runs?cursor=_____w", "query:cursor", "a page has given"),
        ("/runs?cursor=bm9uc2Vuc2U", "query:cursor", "a page has given"),
        ("/runs?workflow=a&workflow=b", "query", "query"),
        ("/workflows?limit=0", "query:limit", "1 to 200"),
        ("/workflows?cursor=%21", "query:cursor", "a page has given"),
        ("/audit?level=loud", "query:level", "warning"),
        ("/audit?event=run.exploded", "query:event", "docs/audit.md"),
        ("/audit?cursor=nonsense", "query:cursor", "a page has given"),
        ("/runs/run_1", "path:id", "run"),
        ("/runs/%F0%9F%A7%B5", "path:id", "run"),
        ("/runs/run_1/steps", "path:id", "run"),
        ("/runs/run_1/logs", "path:id", "run"),
    ],
)
def test_parameters_that_can_not_be_read(shared: Weft, target: str, pointer: str, detail: str) -> None:
    answer = shared.call("GET", target)
    hint = "begin without" if pointer == "query:cursor" else None
    problem(answer, 400, "parameter_invalid", hint=hint, detail=detail, errors={pointer: "invalid"})


def test_a_log_position_that_can_not_be_read(shared: Weft) -> None:
    run = shared.run("nothing")["runId"]
    for after in ("x", "1", "-1.0", "1.-1", "99999999999999999999.0"):
        answer = shared.call("GET", f"/runs/{run}/logs?after={after}")
        problem(answer, 400, "parameter_invalid", hint=None, errors={"query:after": "invalid"})
    # Past the end is the end.
    for after in ("0.999999999", "7.0", "18446744073709551615.0", "0.18446744073709551615"):
        page = shared.get(f"/runs/{run}/logs?after={after}")
        assert page["items"] == [], page


@pytest.mark.parametrize(
    ("headers", "pointer"),
    [
        ({"Prefer": "wait=soon"}, "header:Prefer"),
        ({"Prefer": "wait=-1"}, "header:Prefer"),
        ({"Prefer": "wait"}, "header:Prefer"),
        ({"Idempotency_Key": ""}, "header:Idempotency-Key"),
        ({"Idempotency_Key": "k" * 201}, "header:Idempotency-Key"),
    ],
)
def test_headers_that_can_not_be_read(shared: Weft, headers: dict[str, str], pointer: str) -> None:
    problem(
        shared.execute("nothing", **headers), 400, "parameter_invalid", hint=None, errors={pointer: "invalid"}
    )


UNKNOWN_RUN = "run_01m7xwwbv9r8d8dys0ss4qqzy4"


@pytest.mark.parametrize(
    ("method", "more"), [("GET", ""), ("GET", "/steps"), ("GET", "/logs"), ("POST", "/cancel")]
)
def test_a_run_that_does_not_exist(shared: Weft, method: str, more: str) -> None:
    problem(shared.call(method, f"/runs/{UNKNOWN_RUN}{more}"), 404, "run_not_found", hint="X-Organization-Id")


CALLERS = [
    ({"x_functions_key": None}, 403, "credentials_missing", "x-functions-key"),
    ({"x_functions_key": ""}, 401, "key_invalid", ""),
    ({"x_functions_key": "wrong"}, 401, "key_invalid", ""),
    ({"x_functions_key": "k" * 300}, 401, "credential_too_large", ""),
    ({"x_functions_key": None, "X_MS_CLIENT_PRINCIPAL": "%%%"}, 401, "principal_malformed", ""),
    ({"x_functions_key": None, "Authorization": "Bearer abc"}, 403, "credentials_missing", ""),
    ({"Host": "weft.example.com"}, 401, "key_invalid", ""),
    ({"X_Forwarded_Host": "weft.example.com"}, 401, "key_invalid", ""),
    ({"X_User_Id": ""}, 400, "user_header_malformed", ""),
    ({"X_User_Id": "x" * 200}, 400, "user_header_malformed", ""),
    ({"X_Organization_Id": None}, 400, "organization_header_missing", "X-Organization-Id"),
    ({"X_Organization_Id": ""}, 400, "organization_header_malformed", ""),
    ({"X_Organization_Id": "Contoso Ltd"}, 400, "organization_header_malformed", ""),
    ({"X_Organization_Id": "../contoso"}, 400, "organization_header_malformed", ""),
    ({"X_Organization_Id": "nobody"}, 404, "organization_not_found", ""),
    ({"X_Organization_Id": "northwind"}, 403, "organization_inactive", ""),
]


@pytest.mark.parametrize(("headers", "status", "code", "hint"), CALLERS)
def test_callers_that_are_not_let_in(
    shared: Weft, headers: dict[str, str | None], status: int, code: str, hint: str
) -> None:
    for method, target in (("POST", "/workflows/echo/execute"), ("GET", "/runs"), ("GET", "/audit")):
        answer = shared.call(method, target, {} if method == "POST" else None, **headers)
        assert answer.status == status, answer
        errors = {item["pointer"]: item["code"] for item in answer.json.get("errors", [])}
        problem(answer, status, code, hint=hint, errors=errors)


def test_credentials_are_judged_before_the_body_and_the_name(shared: Weft) -> None:
    answer = shared.call("POST", "/workflows/no-such/execute", b"{", x_functions_key="wrong")
    problem(answer, 401, "key_invalid")


def test_two_keys_that_differ(shared: Weft) -> None:
    problem(shared.call("GET", "/runs?code=another"), 401, "credential_ambiguous")
    assert shared.call("GET", "/runs?code=weft-dev-key").status == 200
    assert shared.call("GET", "/runs?code=weft-dev-key", x_functions_key=None).status == 200


def test_an_answer_to_head_has_no_body(shared: Weft) -> None:
    answer = send(shared.url, "HEAD", "/api/health")
    assert (answer.status, answer.body) == (200, b"")


def test_a_request_id_is_taken_when_it_is_harmless(shared: Weft) -> None:
    good = shared.call("GET", "/no-such", X_Request_Id="request-of-mine_1")
    assert problem(good, 404, "route_not_found")["requestId"] == "request-of-mine_1"
    for bad in ("short", "x" * 65, "with space in it", "<script>alert(1)"):
        assert (
            problem(shared.call("GET", "/no-such", X_Request_Id=bad), 404, "route_not_found")["requestId"]
            != bad
        )


def test_an_argument_reaches_the_workflow_as_it_is(shared: Weft) -> None:
    values: list[Any] = [
        0, -1, 2**63 - 1, -(2**63), 1.5, 1e300, True, None, "", "\u0000", "🧵", "a\nb", [], {}, [[[]]],
        {"": 1, "__class__": "x", "$ref": 1}, "'; DROP TABLE entity; --", "{{ 7*7 }}", "${PATH}", "\\ud800",
        "x" * 50_000,
    ]  # fmt: skip
    for value in values:
        done = shared.run("echo", {"value": value})
        assert (done["status"], done["result"]["value"]) == ("succeeded", value), done
        assert done["arguments"] == {"value": value}
        assert shared.get(f"/runs/{done['runId']}")["result"]["value"] == value


def test_text_of_callers_is_found_again_by_filters_only_as_text(shared: Weft) -> None:
    for text in ("' or PartitionKey ne '", "%27", "a' or 'a' eq 'a", "\\", "*", "🧵"):
        assert shared.get(f"/runs?workflow={quote(text)}")["items"] == []
        assert shared.get(f"/runs?user={quote(text)}")["items"] == []
        assert shared.get(f"/audit?principal={quote(text)}&resource={quote(text)}")["items"] == []


def test_the_description_is_whole(shared: Weft) -> None:
    answer = send(shared.url, "GET", "/api/openapi.json")
    assert answer.status == 200
    assert json.loads(answer.body)["openapi"].startswith("3.1")


def test_it_has_survived_all_this(shared: Weft) -> None:
    shared.lives()
    until(lambda: shared.call("GET", "/ready").json == {"status": "ok"}, "ready")
