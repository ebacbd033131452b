"""Webhooks against the real program: made with a key, signed by Python's own hmac, seen as runs."""

import hashlib
import hmac
import json
import threading
import time
from typing import Any

from weft import Answer, Weft, problem, send


def make(one: Weft, **members: Any) -> Any:
    body = {
        "name": "of a test",
        "workflow": "echo",
        "scheme": "weft",
        "arguments": {"wrap": "value"},
        **members,
    }
    answer = one.call("POST", "/triggers/hooks", body)
    assert answer.status == 201, answer
    return answer.json


def sign(secret: str, body: bytes, at: int) -> str:
    return f"t={at},v1={hmac.new(secret.encode(), f'{at}.'.encode() + body, hashlib.sha256).hexdigest()}"


def deliver(one: Weft, hook: Any, body: bytes, at: int | None = None, **headers: str) -> Answer:
    """A delivery as its sender makes it: with nothing of ours but the address and the secret."""
    signed = {"X-Weft-Signature": sign(hook["secret"], body, at or int(time.time()))}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = {"Content-Type": "application/json", **signed, **named}
    return send(one.url, "POST", hook["path"], headers=sent, body=body)


def test_a_signed_delivery_is_a_run(shared: Weft) -> None:
    hook = make(shared)
    body = json.dumps({"order": 7, "customer": "Ädå"}, ensure_ascii=False).encode()
    answer = deliver(shared, hook, body, X_Topic="orders", Authorization="Bearer of-the-sender")
    assert answer.status == 202, answer
    assert answer.json["repeated"] is False
    run = shared.ended(answer.json["runId"])
    assert run["status"] == "succeeded", run
    assert run["requester"]["kind"] == "system"
    assert run["requester"]["id"] == f"hook:{hook['id']}"
    event = run["result"]["value"]
    assert event["body"] == {"order": 7, "customer": "Ädå"}
    assert event["headers"]["x-topic"] == "orders"
    assert "of-the-sender" not in json.dumps(run)
    assert hook["secret"] not in json.dumps(run)
    [record] = shared.audit(f"&event=run.started&resource={run['runId']}")[:1]
    assert record["principal"]["id"] == f"hook:{hook['id']}", record
    latest = shared.get(f"/triggers/hooks/{hook['id']}/deliveries")["items"]
    assert [(line["outcome"], line["runId"]) for line in latest] == [("accepted", run["runId"])]


def test_the_same_at_the_same_time_is_one_run(shared: Weft) -> None:
    hook = make(shared)
    answers: list[Answer] = []
    at = int(time.time())
    threads = [
        threading.Thread(target=lambda: answers.append(deliver(shared, hook, b'{"n":1}', at)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer.status for answer in answers} == {202}, [str(answer) for answer in answers]
    assert len({answer.json["runId"] for answer in answers}) == 1
    assert sorted(answer.json["repeated"] for answer in answers) == [False] + [True] * 7


def test_what_is_not_signed_is_nothing(shared: Weft) -> None:
    hook = make(shared)
    body = b'{"n":1}'
    key = shared.call("POST", "/triggers/hooks", {}).status
    assert key == 400, "the key is good for what is managed"
    detail = "not signed"
    problem(shared.call("POST", f"/hooks/{hook['id']}", {}), 401, "hook_signature_invalid", detail=detail)
    other = {**hook, "secret": "some-other-secret-of-a-sender"}
    problem(deliver(shared, other, body), 401, "hook_signature_invalid", detail=detail)
    old = int(time.time()) - 301
    problem(deliver(shared, hook, body, old), 401, "hook_signature_invalid", detail=detail)
    nowhere = {**hook, "path": "/api/hooks/hook_00000000000000000000000000"}
    problem(deliver(shared, nowhere, body), 404, "hook_not_found")
    rotated = shared.call("POST", f"/triggers/hooks/{hook['id']}/rotate", {"overlapSeconds": 0})
    assert rotated.status == 200, rotated
    problem(deliver(shared, hook, body), 401, "hook_signature_invalid", detail=detail)
    assert deliver(shared, {**hook, "secret": rotated.json["secret"]}, body).status == 202
    assert shared.call("DELETE", f"/triggers/hooks/{hook['id']}").status == 204
    problem(deliver(shared, hook, body), 404, "hook_not_found")
