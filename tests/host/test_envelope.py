"""Encoding of envelopes and classification of answers, against the golden corpus."""

import base64
import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from apps import GOLDEN, golden, http, make_app, queue, running
from standin import answer, envelope, keys
from standin.envelope import QueueMessage, ScheduleStatus

ENVELOPES = sorted(
    path.stem
    for path in GOLDEN.glob("*.json")
    if json.loads(path.read_text()).get("from", {}).get("kind") in ("queue", "timer", "blob", "http")
)
IN_ENVELOPE = [
    *http(route="order/{id?}"),
    {"type": "queue", "direction": "out", "name": "extra", "queueName": "q"},
]


def moment(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


def build(source: dict[str, Any]) -> envelope.Json:
    """The envelope the stand-in makes of a golden file's ``from``."""
    function, binding = source["function"], source["binding"]
    sys = envelope.sys_entry(function, moment(source["sys"]["utcNow"]), source["sys"]["randGuid"])
    match source["kind"]:
        case "queue":
            m = source["message"]
            data = base64.b64decode(m["base64"]) if "base64" in m else m["text"].encode()
            message = QueueMessage(
                m["id"],
                m["popReceipt"],
                m["dequeueCount"],
                moment(m["inserted"]),
                moment(m["expires"]),
                moment(m["nextVisible"]),
                data,
            )
            return envelope.queue(function, binding, message, sys, source.get("dataType") == "binary")
        case "timer":
            s = source["status"]
            status = ScheduleStatus(s["last"], s["lastUpdated"], s["next"]) if s else None
            return envelope.timer(binding, status, source["pastDue"], sys)
        case "blob":
            content = source["text"].encode()
            return envelope.blob(
                binding, source["uri"], source["pathValues"], content, source["contentType"], sys
            )
        case "http":
            who = source["identity"]
            identity = keys.KeyIdentity(who["level"], who["name"]).as_json() if who else keys.NOBODY
            body = source["body"]
            return envelope.http(
                binding,
                url=source["url"],
                method=source["method"],
                query=source["url"].partition("?")[2],
                headers=[(name, value) for name, value in source["headers"]],
                route_values=source["routeValues"],
                identities=[identity],
                body=body.encode() if body is not None else None,
                sys=sys,
            )
    raise AssertionError(source["kind"])


def test_the_corpus_is_there() -> None:
    assert len(ENVELOPES) >= 14


@pytest.mark.parametrize("name", ENVELOPES)
def test_golden_envelope(name: str) -> None:
    case = json.loads((GOLDEN / f"{name}.json").read_text())
    wanted = case["request"]["body"]
    made = json.loads(envelope.to_bytes(build(case["from"])))
    for body in (wanted, made):
        if isinstance(body["Metadata"]["sys"], dict):
            # The host's clock has one digit more than ours.
            body["Metadata"]["sys"]["UtcNow"] = body["Metadata"]["sys"]["UtcNow"][:26]
    assert made == wanted
    if "messageText" in case["expect"]:
        assert json.loads(made["Data"]["message"]) == case["expect"]["messageText"]


def test_leaked_properties() -> None:
    text = json.dumps(
        {"f": False, "n": 1.5, "when": "2026-11-20T10:00:00Z", "none": None, "list": [1], "oTrigger": 1}
    )
    merged = envelope.metadata(envelope.merge_message_properties({"Id": "x"}, text))
    assert merged == {
        "Id": '"x"',
        "f": '"False"',
        "n": '"1.5"',
        "when": '"11/20/2026 10:00:00"',
    }


@pytest.mark.parametrize("text", ["[1,2]", '"text"', "7", "null", "{broken"])
def test_only_objects_leak(text: str) -> None:
    assert envelope.merge_message_properties({"Id": "x"}, text) == {"Id": "x"}


@pytest.mark.parametrize(
    "case", golden("50")["answers"], ids=lambda case: f"{case['status']}-{case['body'][:20]}"
)
def test_answers(case: dict[str, Any]) -> None:
    result = answer.classify(case["status"], case["contentType"], case["body"].encode())
    assert result.verdict.value == case["result"]


def test_the_handlers_answer_is_a_success() -> None:
    case = golden("51")
    result = answer.classify(200, case["contentType"], json.dumps(case["ok"]).encode())
    assert result.verdict is answer.Verdict.SUCCESS


def test_base64_trap() -> None:
    assert answer.output_messages(["0123456789abcdef0123456789abcdef", "abcd1234", "j-2", {"a": 1}]) == [
        base64.b64decode("0123456789abcdef0123456789abcdef"),
        base64.b64decode("abcd1234"),
        b"j-2",
        b'{"a":1}',
    ]


async def test_the_request_on_the_wire(tmp_path: Path, azurite: Any) -> None:
    root = make_app(tmp_path, {"drive_run": queue("wire")})
    async with running(root, {"AzureWebJobsStorage": azurite.connection_string}, listeners=False) as app:
        case = golden("11")
        text = case["from"]["message"]["text"]
        now = moment("2026-11-20T10:00:00+00:00")
        message = QueueMessage("id", "pop", 1, now, now, now, text.encode())
        function = app.host.app.function("drive_run")
        assert function is not None
        assert await app.host.queue(function).invoke(message)
        (call,) = app.calls("drive_run")
        assert (call["method"], call["target"], call["text"]) == ("POST", "/drive_run", text)
        names = [name for name, _ in call["headers"]]
        assert sorted(names) == sorted(case["request"]["headers"])
        sent = dict(call["headers"])
        assert sent["Content-Type"] == "application/json; charset=utf-8"
        assert sent["Transfer-Encoding"] == "chunked"


async def test_http_in_an_envelope(tmp_path: Path) -> None:
    root = make_app(tmp_path, {"order": IN_ENVELOPE})
    async with running(root) as app:
        order = {
            "do": "output",
            "outputs": {"res": {"statusCode": "202", "body": {"a": 1}, "headers": {"X-A": "b"}}},
        }
        async with app.request(
            "POST", "/api/order/7?x=1&x=2&id=9", json=order, headers={"x-functions-key": "bogus"}
        ) as response:
            assert response.status == 202
            assert await response.json(content_type=None) == {"a": 1}
            assert response.headers["X-A"] == "b"
        (call,) = app.calls("order")
        request = call["envelope"]["Data"]["req"]
        assert request["Query"] == {"x": "1,2", "id": "9"}
        assert request["Params"] == {"id": "7"}
        assert request["Headers"]["x-functions-key"] == ["bogus"]
        assert json.loads(request["Body"]) == order
        assert request["Identities"] == [keys.NOBODY]
        assert call["envelope"]["Metadata"]["id"] == '"7"'
        assert call["envelope"]["Metadata"]["do"] == '"output"'
        assert await app.status("POST", "/api/order", json={"do": "fail"}) == 500


async def test_without_proxying_everything_is_an_envelope(tmp_path: Path) -> None:
    root = make_app(tmp_path, {"api": http()}, {"customHandler": {"enableProxyingHttpRequest": False}})
    async with running(root) as app:
        assert await app.status("GET", "/api/x") == 204
        (call,) = app.calls("api")
        assert call["target"] == "/api"
