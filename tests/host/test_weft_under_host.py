"""The real program under the stand-in host, with real queues, tables and blobs."""

import base64
import http.client
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import processes
from apps import GOLDEN, golden
from azurite import Azurite, free_ports
from standin import answer, envelope
from standin.storage import Account, QueueClient
from waiting import eventually, soon
from weft_host import DEVELOPMENT, KEY, PRODUCTION, REPOSITORY, Host, Setting, binary, send, standin

ENVELOPES = sorted(
    path.stem for path in GOLDEN.glob("*.json") if "answer" in json.loads(path.read_text()).get("expect", {})
)
PLAIN = sorted(
    path.stem
    for path in GOLDEN.glob("*.json")
    if "status" in json.loads(path.read_text()).get("expect", {}) and not path.name.startswith("40-")
)
NOT_HTTP = ["drive_run", "attempt_step", "drive_run_poison", "attempt_step_poison", "tick"]


@pytest.fixture(scope="module")
def setting(azurite: Azurite, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """A seeded storage account. Without the program nothing here can run; under CI that is a failure."""
    program = binary()
    if program is None or not program.is_file():
        reason = "no weft program: build it, or set WEFT_BINARY"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    made = Setting(program, azurite.connection_string, tmp_path_factory.mktemp("weft"))
    made.seed()
    return made


@pytest.fixture(scope="module")
def host(setting: Setting) -> Iterator[Host]:
    """A host for tests that leave it as it was."""
    with standin(setting) as running:
        yield running
        handler = running.state["handler"]
        assert 0 not in handler["exits"]
        assert handler["starts"] == 1, "the handler was restarted"


def items(page: Any) -> list[Any]:
    return page["items"] if isinstance(page, dict) else page


def test_ready_at_once(host: Host) -> None:
    probe = golden("00")
    answered = send(host.handler, "GET", "/")
    assert answered.status in probe["expect"]["status"]
    assert host.send("GET", "/admin/host/status").json["state"] == "Running"


def test_hello_is_answered_run_and_audited(host: Host) -> None:
    answered = host.api("POST", "/workflows/hello/execute", body={"name": "Ada"})
    assert answered.status == 200, answered
    run = answered.json
    assert set(run) >= {
        "runId",
        "workflow",
        "revision",
        "status",
        "result",
        "error",
        "startedAt",
        "finishedAt",
        "durationMs",
        "timings",
    }
    assert (run["workflow"], run["status"].lower(), run["error"]) == ("hello", "succeeded", None)
    assert "Ada" in run["result"]["message"]

    listed = items(host.api("GET", "/runs").json)
    assert run["runId"] in [item.get("runId") or item.get("id") for item in listed]
    assert host.run(run["runId"])["status"] == run["status"]

    records = items(host.api("GET", "/audit").json)
    assert [record for record in records if record["level"].lower() == "warning"], records
    assert "weft-dev-key" not in json.dumps(records)


def test_a_run_nobody_waits_for_is_finished_by_the_queue(host: Host) -> None:
    run = host.wait_finished(host.start("hello", name="Grace"))
    assert run["status"].lower() == "succeeded"
    assert "Grace" in json.dumps(run["result"])
    driven = eventually(lambda: host.finished("drive_run"), "an invocation of drive_run")
    assert {item["status"] for item in driven} == {"succeeded"}


def test_events_pass_the_host_as_they_happen(host: Host) -> None:
    run = host.start("slow", seconds=3)
    parts = urllib.parse.urlsplit(host.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        connection.request("GET", f"/api/runs/{run}/events", headers={**KEY, "Accept": "text/event-stream"})
        response = connection.getresponse()
        assert (response.status, response.headers["Content-Type"]) == (200, "text/event-stream")
        heard: list[str] = []
        while '"type":"step.status"' not in "".join(heard):
            heard.append(response.readline().decode())
        # The answer goes on, and what was said is here already.
        assert host.run(run)["status"] == "running"
        heard += [line.decode() for line in response]
    finally:
        connection.close()
    text = "".join(heard)
    assert text.count("event: end\n") == 1, text
    assert 'data: {"status":"succeeded"}' in text
    assert host.run(run)["status"] == "succeeded"


def test_the_timer_is_answered(host: Host) -> None:
    before = len(host.finished("tick"))
    host.trigger("tick")
    ticked = eventually(lambda: host.finished("tick")[before:], "an invocation of tick")
    assert ticked[0]["status"] == "succeeded", ticked
    assert ticked[0]["answer"]["contentType"].startswith("application/json")


@pytest.mark.parametrize("function", NOT_HTTP)
def test_invocations_can_not_be_forged_from_outside(host: Host, function: str) -> None:
    body = golden("10")["request"]["body"]
    # The host's own timer and queues go on meanwhile, so only the HTTP function is counted.
    before = len(host.finished("api"))
    for target in (f"/{function}", f"/api/../{function}", f"/api/%2e%2e/{function}", f"/api/%2E./{function}"):
        assert host.send("POST", target, body=body).status == 404, target
    assert len(host.finished("api")) == before, "the handler was asked"
    # These are the HTTP function's business, and no invocation to it.
    for target in (
        f"/api/{function}",
        f"/api/..%2F{function}",
        f"/api/%252e%252e/{function}",
        f"/api//{function}",
    ):
        answered = host.send("POST", target, body=body)
        assert answered.status in (400, 401, 403, 404, 405), (target, answered)
        before += 1
        assert len(host.finished("api")) == before, target


def test_a_forged_key_is_refused(host: Host) -> None:
    for forged in ("forged", "weft-dev-key ", "", "x" * 4_000):
        answered = host.send("GET", "/api/runs", headers={**KEY, "x-functions-key": forged + "!"})
        assert answered.status == 401, answered
        assert answered.headers["WWW-Authenticate"]
    answered = host.send("GET", "/api/runs?code=forged", headers={"X-Organization-Id": "contoso"})
    assert answered.status == 401


def test_no_credential_is_403_with_a_problem(host: Host) -> None:
    answered = host.send("GET", "/api/runs", headers={"X-Organization-Id": "contoso"})
    assert answered.status == 403
    assert answered.headers["Content-Type"].startswith("application/problem+json")


def test_a_request_that_is_repeated_by_the_host_starts_one_run(host: Host) -> None:
    before = {item.get("runId") or item.get("id") for item in items(host.api("GET", "/runs").json)}
    host.chaos(drop_after_send=1)
    answered = host.api("POST", "/workflows/hello/execute", body={"name": "Twice"}, Idempotency_Key="k-1")
    assert answered.status == 500  # The host can't repeat a request with a body.
    again = host.api("POST", "/workflows/hello/execute", body={"name": "Twice"}, Idempotency_Key="k-1")
    assert again.status == 200, again
    after = {item.get("runId") or item.get("id") for item in items(host.api("GET", "/runs").json)}
    assert after - before == {again.json["runId"]}


@pytest.mark.parametrize("name", ENVELOPES)
def test_golden_envelopes_are_answered_and_never_hang(host: Host, name: str) -> None:
    case = json.loads((GOLDEN / f"{name}.json").read_text())
    request = case["request"]
    headers = {k: v for k, v in request["headers"].items() if k not in ("Host", "Transfer-Encoding")}
    answered = send(
        host.handler,
        request["method"],
        request["path"],
        headers=headers,
        body=envelope.to_bytes(request["body"]),
    )
    taken = answer.classify(answered.status, answered.headers.get("Content-Type"), answered.body)
    assert taken.verdict is not answer.Verdict.HANG, answered
    if case["expect"]["answer"] == "success":
        assert taken.verdict is answer.Verdict.SUCCESS, (answered, taken)
    if taken.verdict is answer.Verdict.FAILURE:
        assert not 200 <= answered.status < 300, (answered, taken)


@pytest.mark.parametrize("name", PLAIN)
def test_golden_statuses(host: Host, name: str) -> None:
    case = json.loads((GOLDEN / f"{name}.json").read_text())
    request = case["request"]
    body = envelope.to_bytes(request["body"]) if request["body"] is not None else None
    answered = send(host.handler, request["method"], request["path"], body=body)
    assert answered.status in case["expect"]["status"]


@pytest.mark.parametrize("queue", ["weft-runs", "weft-attempts"])
@pytest.mark.parametrize(
    "text", ["not ours", '{"v":1,"p":"e30="}', '{"id":"evil","sys":"pwn"}', "[]", "\x00"]
)
async def test_a_message_that_is_not_ours_is_disposed_of(
    host: Host, azurite: Azurite, queue: str, text: str
) -> None:
    client = QueueClient(Account.parse(azurite.connection_string))
    try:
        await client.create(queue)
        before = len(host.state["finished"])
        await client.put(queue, base64.b64encode(text.encode()).decode())

        async def gone() -> bool:
            counts = [await client.count(name) for name in (queue, f"{queue}-poison")]
            return counts == [0, 0] and not host.state["active"]

        await soon(gone, "message gone from the queue and its poison queue", 60)
        seen = [item for item in host.state["finished"][before:] if item["function"] in NOT_HTTP]
        assert seen
        assert {item["status"] for item in seen} <= {"succeeded", "failed"}, seen
        assert seen[-1]["status"] == "succeeded", seen
        assert await client.count(f"{queue}-poison-poison") == 0
    finally:
        await client.close()


def test_a_forged_principal_is_not_believed_in_production(setting: Setting) -> None:
    with standin(setting, "--easyauth", "off", mode=PRODUCTION) as host:
        for forged in (golden("60")["value"], golden("61")["headers"]["X-MS-CLIENT-PRINCIPAL"], "!!!", ""):
            headers = {"X-MS-CLIENT-PRINCIPAL": forged, "X-Organization-Id": "contoso"}
            answered = host.send("GET", "/api/runs", headers=headers)
            assert answered.status in ((401,) if forged else (401, 403)), (forged, answered)
        # The development key is for development.
        assert host.api("GET", "/runs").status == 401


@pytest.fixture(scope="module")
def left_behind(setting: Setting) -> str:
    """A run in whose middle the host was ended."""
    with standin(setting) as host:
        run_id = host.start("slow", seconds=2)
        eventually(lambda: host.run(run_id)["status"].lower() == "running", "run under way")
    return run_id


# The other run is left behind before, so that the leases of both run out in the same minute.
@pytest.mark.usefixtures("left_behind")
def test_a_handler_killed_in_the_middle_of_a_run_is_restarted_and_the_run_ends(setting: Setting) -> None:
    with standin(setting) as host:
        run_id = host.start("slow", seconds=3)
        eventually(lambda: host.run(run_id)["status"].lower() == "running", "run under way")
        host.send("POST", "/admin/standin/kill")
        eventually(lambda: host.state["handler"]["exits"] == [137], "handler dead")
        host.wait_ready()
        run = host.wait_finished(run_id, 180)
        assert run["status"].lower() == "succeeded", run
        assert host.state["stopReason"] is None


def test_a_handler_killed_while_it_drives_a_run(setting: Setting) -> None:
    with standin(setting) as host:
        host.chaos(kill_mid_job={"function": "drive_run", "after": 0.02})
        run_id = host.start("hello", name="Phoenix")
        run = host.wait_finished(run_id, 180)
        assert run["status"].lower() == "succeeded", run
        assert 0 not in host.state["handler"]["exits"]


def test_duplicate_deliveries_make_one_result(setting: Setting) -> None:
    with standin(setting, "--chaos-duplicate-delivery", "3") as host:
        run_id = host.start("hello", name="Twin")
        assert host.wait_finished(run_id)["status"].lower() == "succeeded"
        eventually(lambda: not host.state["active"], "all invocations over")
        assert all(item["status"] in ("succeeded", "failed") for item in host.state["finished"])


def ours(root: int) -> list[processes.Process]:
    """The Python processes below a handler."""
    return [p for p in processes.descendants(root) if p.name in ("weft-zygote", "weft-worker")]


def test_killing_the_handler_leaves_no_python_behind(setting: Setting) -> None:
    with standin(setting) as host:
        pid = host.state["handler"]["pid"]
        assert host.api("POST", "/workflows/hello/execute", body={}).status == 200
        run_id = host.start("slow", seconds=120)
        eventually(lambda: host.run(run_id)["status"].lower() == "running", "run under way")
        before = eventually(lambda: ours(pid), "a zygote")
        names = {p.name for p in before}
        assert "weft-zygote" in names
        host.send("POST", "/admin/standin/kill")
        eventually(lambda: host.state["handler"]["exits"] == [137], "handler dead")
        eventually(lambda: not [p for p in before if p.alive], f"{sorted(names)} gone", 10)
        host.wait_ready()
        host.api("POST", f"/runs/{run_id}/cancel")
        exits = host.state["handler"]["exits"]
        assert exits == [137]


def test_the_host_killed_leaves_a_store_that_the_next_one_continues(
    setting: Setting, left_behind: str
) -> None:
    with standin(setting) as second:
        assert second.wait_finished(left_behind, 180)["status"].lower() == "succeeded"


@pytest.mark.parametrize("number", ["TERM", "INT"])
def test_the_handler_never_ends_with_zero_under_the_host(setting: Setting, number: str) -> None:
    """A code of 0 would make the host believe in a handler that is gone."""
    with standin(setting) as host:
        pid = host.state["handler"]["pid"]
        os.kill(pid, getattr(signal, f"SIG{number}"))
        if number == "INT":
            # Ctrl-C in a terminal reaches the handler too; it leaves the stopping to the host.
            assert host.api("GET", "/runs").status == 200
            assert host.state["handler"]["exits"] == []
            return
        exits = eventually(lambda: host.state["handler"]["exits"], "handler ended")
        assert 0 not in exits
        host.wait_ready()
        assert host.api("GET", "/runs").status == 200


@pytest.mark.parametrize(
    "program",
    [
        "standin",
        pytest.param(
            "func",
            marks=pytest.mark.skipif(
                shutil.which("func") is None,
                reason="Azure Functions Core Tools (func) are not on PATH; only the stand-in host was used",
            ),
        ),
    ],
)
def test_smoke_as_from_a_terminal(setting: Setting, program: str, tmp_path: Path) -> None:
    if program == "standin":
        with standin(setting, "--auth", "coretools") as host:
            assert host.api("POST", "/workflows/hello/execute", body={"name": "Ada"}).status == 200
        return
    (port,) = free_ports(1)
    environment = {
        **setting.full_environment(DEVELOPMENT),
        "AzureFunctionsJobHost__customHandler__description__defaultExecutablePath": str(setting.program),
    }
    log = tmp_path / "func.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["func", "start", "--port", str(port)],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        host = Host(f"http://127.0.0.1:{port}", log)

        def probe() -> bool:
            assert process.poll() is None, log.read_text(errors="replace")[-4000:]
            return host.api("GET", "/runs").status == 200

        eventually(probe, "func start serving the API", 120)
        answered = host.api("POST", "/workflows/hello/execute", body={"name": "Ada"})
        assert answered.status == 200, answered
        assert "Ada" in answered.json["result"]["message"]
        assert host.wait_finished(host.start("hello", name="Grace"), 120)["status"].lower() == "succeeded"
    finally:
        print(log.read_text(errors="replace")[-6000:])
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def packed(answer: str) -> bytes:
    """A workspace of one workflow, as an archive."""
    text = f"from weft import workflow\n\n\n@workflow\ndef edited() -> str:\n    return {answer!r}\n".encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo("workflows/edited.py")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    return buffer.getvalue()


def test_bundles_are_published_run_and_taken_back_by_two_instances(
    setting: Setting, tmp_path_factory: pytest.TempPathFactory
) -> None:
    second = Setting(setting.program, setting.connection_string, tmp_path_factory.mktemp("second"))

    def activate(host: Host, answer: str) -> str:
        sent = host.api("POST", "/bundles", body=packed(answer), Content_Type="application/gzip")
        assert sent.status in (200, 201), sent
        digest: str = sent.json["digest"]
        assert host.api("POST", f"/bundles/{digest}/activate", body={}).status == 200
        return digest

    def answers(host: Host) -> Any:
        run = host.api("POST", "/workflows/edited/execute", body={})
        return run.json["result"] if run.status == 200 else run.status

    with standin(setting) as one, standin(second) as other:
        try:
            assert answers(one) == answers(other) == 404
            activate(one, "first")
            assert answers(one) == "first"
            eventually(lambda: answers(other) == "first", "the other instance has it", 30)
            pinned = other.api("POST", "/workflows/edited/execute?delay=20", body={}, Prefer="respond-async")
            assert pinned.status == 202, pinned
            activate(other, "second")
            assert answers(other) == "second"
            eventually(lambda: answers(one) == "second", "the first instance follows", 30)
            # It was started before, and begins now.
            assert one.wait_finished(pinned.json["runId"])["result"] == "first"
            assert one.api("POST", "/bundles/rollback", body={}).status == 200
            assert answers(one) == "first"
            eventually(lambda: answers(other) == "first", "the other instance follows", 30)
        finally:
            assert one.api("POST", "/bundles/folder/activate", body={}).status == 200
