"""Queue triggers against the real program, over an emulated storage account: a sender that has an address and nothing else."""

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from emulator import Emulator
from weft import Weft, problem, until

VERSION = {"x-ms-version": "2021-12-02"}


def ask(method: str, url: str, body: str | None = None) -> int:
    """A request to the storage account as any program makes it: plain HTTP, without a library or a key."""
    data = None if body is None else body.encode()
    request = urllib.request.Request(url, data, VERSION, method=method)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def put(url: str, text: str) -> int:
    return ask("POST", url, f"<QueueMessage><MessageText>{escape(text)}</MessageText></QueueMessage>")


def runs_of(one: Weft, trigger: Any) -> list[Any]:
    items = one.get("/runs?limit=200")["items"]
    return [item for item in items if item["requester"]["id"] == f"queue:{trigger['id']}"]


def test_a_sender_with_an_address_starts_runs(make: Callable[..., Weft], tmp_path: Path) -> None:
    emulator = Emulator(tmp_path / "azurite")
    emulator.start()
    try:
        one = make(environment=emulator.environment)
        one.start()
        made = one.call("POST", "/queue-triggers", {"name": "Orders", "workflow": "echo"})
        assert made.status == 201, made
        trigger = made.json
        path = f"/queue-triggers/{trigger['id']}"
        given = one.call("POST", f"{path}/access", {"validSeconds": 600})
        assert given.status == 200, given
        url = given.json["url"]

        assert put(url, json.dumps({"value": {"order": 7}})) == 201
        assert put(url, base64.b64encode(b'{"value": "b64"}').decode()) == 201
        assert put(url, "this is no JSON") == 201
        until(lambda: len(runs_of(one, trigger)) == 2, "two runs", 60)
        results = [one.ended(item["runId"])["result"] for item in runs_of(one, trigger)]
        assert sorted(json.dumps(result) for result in results) == sorted(
            json.dumps(one.run("echo", {"value": value})["result"]) for value in ({"order": 7}, "b64")
        )

        # It lets send, and nothing else.
        assert ask("GET", url) == 403
        assert ask("DELETE", url) == 403
        assert put(url.replace(trigger["queue"], "weft-runs"), "{}") == 403

        until(lambda: one.get(f"{path}/set-aside")["items"], "the bad one is set aside", 60)
        [aside] = one.get(f"{path}/set-aside")["items"]
        assert aside["code"] == "queue_message_unreadable"
        bad = f"{path}/set-aside/{aside['id']}"
        assert one.get(bad)["text"] == "this is no JSON"
        problem(one.call("POST", f"{bad}/put-back"), 400, "queue_message_unreadable", errors={"": "invalid"})
        assert one.call("DELETE", bad).status == 204

        assert one.call("DELETE", path).status == 204
        assert put(url, "{}") != 201, "its addresses go with it"
        assert len(runs_of(one, trigger)) == 2
    finally:
        emulator.stop()


def test_a_message_through_the_api(shared: Weft) -> None:
    made = shared.call("POST", "/queue-triggers", {"name": "Orders", "workflow": "echo"})
    assert made.status == 201, made
    path = f"/queue-triggers/{made.json['id']}"
    problem(shared.call("POST", f"{path}/access"), 409, "queue_access_unavailable", hint="/messages")
    sent = shared.call("POST", f"{path}/messages", {"value": 1})
    assert sent.status == 202, sent
    until(lambda: shared.call("GET", f"/runs/{sent.json['runId']}").status == 200, "the run")
    run = shared.ended(sent.json["runId"])
    assert (run["status"], run["requester"]["id"]) == ("succeeded", f"queue:{made.json['id']}")
    assert shared.call("DELETE", path).status == 204
