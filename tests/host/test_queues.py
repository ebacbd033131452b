"""The queue loop on a real storage emulator."""

import base64
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from apps import QUICK, Running, make_app, queue, running
from azurite import Azurite
from standin.storage import Account, QueueClient, StorageError
from waiting import soon


@dataclass
class Bench:
    """A host that reads one queue."""

    app: Running
    client: QueueClient
    queue: str

    async def put(self, order: Any, raw: bool = False) -> str:
        text = order if isinstance(order, str) else json.dumps(order)
        await self.client.put(self.queue, text if raw else base64.b64encode(text.encode()).decode())
        return text

    async def empty(self) -> None:
        async def gone() -> bool:
            return await self.client.count(self.queue) == 0

        await soon(gone, "queue empty")

    async def poisoned(self) -> list[str]:
        return await self.client.peek(f"{self.queue}-poison")

    def finished(self) -> list[Any]:
        return list(self.app.host.invocations.finished)


@contextlib.asynccontextmanager
async def bench(
    root: Path,
    azurite: Azurite,
    host_json: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
    first: list[dict[str, Any]] | None = None,
    **options: Any,
) -> AsyncIterator[Bench]:
    name = f"q-{uuid.uuid4().hex[:12]}"
    functions = {"work": queue(name), **{k: queue(f"{name}-{k}") for k in more or {}}}
    make_app(root, functions, host_json)
    client = QueueClient(Account.parse(azurite.connection_string))
    try:
        await client.create(name)
        for order in first or []:
            await client.put(name, base64.b64encode(json.dumps(order).encode()).decode())
        async with running(root, {"AzureWebJobsStorage": azurite.connection_string}, **options) as app:
            yield Bench(app, client, name)
    finally:
        await client.close()


def queues(**options: Any) -> dict[str, Any]:
    return {"extensions": {"queues": options}}


async def test_a_wrong_key_is_refused_by_the_emulator(azurite: Azurite) -> None:
    account = Account.parse(azurite.connection_string)
    client = QueueClient(replace(account, key=b"wrong"))
    try:
        with pytest.raises(StorageError) as refused:
            await client.create("some-queue")
        assert refused.value.status == 403
    finally:
        await client.close()


def test_connection_strings() -> None:
    emulator = Account.parse("UseDevelopmentStorage=true")
    assert emulator.queue_endpoint == "http://127.0.0.1:10001/devstoreaccount1"
    cloud = Account.parse("DefaultEndpointsProtocol=https;AccountName=a;AccountKey=YQ==;EndpointSuffix=x.net")
    assert (cloud.queue_endpoint, cloud.key) == ("https://a.queue.x.net", b"a")


async def test_success_deletes_the_message(tmp_path: Path, azurite: Azurite) -> None:
    async with bench(tmp_path, azurite) as b:
        text = await b.put({"do": "log", "lines": ["did it"]})
        record = await b.app.host.log.wait_for(lambda r: r.message == "did it", 20)
        assert (record.level, record.category) == ("Information", "Function.work.User")
        await b.empty()
        (call,) = b.app.calls("work")
        assert call["text"] == text
        assert call["envelope"]["Metadata"]["DequeueCount"] == "1"


async def test_failures_are_redelivered_as_new_invocations(tmp_path: Path, azurite: Azurite) -> None:
    async with bench(tmp_path, azurite) as b:
        await b.put({"do": "flaky", "times": 2})
        await b.empty()
        calls = b.app.calls("work")
        assert [call["envelope"]["Metadata"]["DequeueCount"] for call in calls] == ["1", "2", "3"]
        assert len({dict(call["headers"])["X-Azure-Functions-InvocationId"] for call in calls}) == 3
        assert len({call["envelope"]["Metadata"]["Id"] for call in calls}) == 1
        assert await b.poisoned() == []


async def test_visibility_timeout_delays_the_redelivery(tmp_path: Path, azurite: Azurite) -> None:
    async with bench(tmp_path, azurite, queues(visibilityTimeout="00:00:01")) as b:
        await b.put({"do": "flaky", "times": 1})
        await b.empty()
        first, second = b.app.calls("work")
        assert second["time"] - first["time"] >= 0.9


async def test_poison_at_the_last_delivery(tmp_path: Path, azurite: Azurite) -> None:
    async with bench(tmp_path, azurite, queues(maxDequeueCount=3)) as b:
        text = await b.put({"do": "fail"})
        await b.empty()
        assert len(b.app.calls("work")) == 3
        (poison,) = await b.poisoned()
        assert base64.b64decode(poison).decode() == text


async def test_a_poison_function_gets_what_was_poisoned(tmp_path: Path, azurite: Azurite) -> None:
    async with bench(tmp_path, azurite, queues(maxDequeueCount=1), more={"poison": True}) as b:
        text = await b.put({"do": "fail"})
        await soon(lambda: b.app.calls("poison"), "the poison function's call")
        # It fails there too and is poisoned once more.
        assert b.app.calls("poison")[0]["text"] == text


async def test_text_that_is_not_base64_is_poison_at_once(tmp_path: Path, azurite: Azurite) -> None:
    async with bench(tmp_path, azurite) as b:
        await b.put("{not base64}", raw=True)
        await b.empty()
        assert await b.poisoned() == ["{not base64}"]
        assert b.app.calls("work") == []


async def test_plain_text_encoding(tmp_path: Path, azurite: Azurite) -> None:
    async with bench(tmp_path, azurite, queues(messageEncoding="none")) as b:
        await b.put("<a> & b", raw=True)
        await b.empty()
        assert b.app.calls("work")[0]["text"] == "<a> & b"


async def test_the_lease_is_renewed_while_the_function_works(tmp_path: Path, azurite: Azurite) -> None:
    gate = tmp_path / "gate"
    async with bench(tmp_path, azurite) as b:
        await b.put({"do": "gate", "path": str(gate)})
        for _ in range(3):  # Three renewals at half of two seconds are beyond the first lease.
            b.app.host.log.records.clear()
            await b.app.host.log.wait_for(lambda r: "renewed" in r.message, 20)
        gate.touch()
        await b.empty()
        assert len(b.app.calls("work")) == 1


async def test_a_lost_host_leaves_the_message_until_its_lease_ends(tmp_path: Path, azurite: Azurite) -> None:
    gate = tmp_path / "gate"
    async with bench(tmp_path / "one", azurite) as b:
        text = await b.put({"do": "gate", "path": str(gate)})
        await soon(lambda: b.app.calls("work"), "delivery")
        await b.app.host.stop()
        assert await b.client.count(b.queue) == 1
        assert b.finished()[-1].status == "abandoned"
        gate.touch()
        root = make_app(tmp_path / "two", {"work": queue(b.queue)})
        async with running(root, {"AzureWebJobsStorage": azurite.connection_string}) as second:
            await b.empty()
            (call,) = second.calls("work")
            assert call["text"] == text
            assert call["envelope"]["Metadata"]["DequeueCount"] == "2"


async def test_no_more_at_once_than_batch_and_threshold(tmp_path: Path, azurite: Azurite) -> None:
    gate = tmp_path / "gate"
    times = replace(QUICK, queue_lease=60.0)
    # All there before the host is, so that its first batch is a full one.
    orders = [{"do": "gate", "path": str(gate)}] * 9
    options = queues(batchSize=3, newBatchThreshold=1)
    async with bench(tmp_path, azurite, options, times=times, first=orders) as b:
        await soon(lambda: len(b.app.calls("work")) == 3, "a full batch")
        gate.touch()
        await b.empty()
        assert len(b.app.calls("work")) == 9
        assert 3 <= b.app.host.state()["mostAtOnce"]["work"] <= 4


async def test_an_empty_answer_hangs_until_the_function_timeout(tmp_path: Path, azurite: Azurite) -> None:
    host_json = {"functionTimeout": "00:00:01", **queues(maxDequeueCount=2)}
    async with bench(tmp_path, azurite, host_json) as b:
        await b.put({"do": "answer", "status": 200, "contentType": "application/json", "body": "null"})
        await b.empty()
        # The last message leaves the queue before the host has seen its handler die.
        await soon(lambda: b.app.host.process.exits == [137] * 2, "both handlers killed")
        assert [i.status for i in b.finished()] == ["timed_out"] * 2
        assert len(await b.poisoned()) == 1


async def test_an_empty_answer_hangs_for_ever_without_one(tmp_path: Path, azurite: Azurite) -> None:
    async with bench(tmp_path, azurite, {"functionTimeout": "-1"}) as b:
        await b.put({"do": "answer", "status": 204, "contentType": None, "body": ""})
        await b.app.host.log.wait_for(lambda r: "will not complete" in r.message, 20)
        for _ in range(3):
            b.app.host.log.records.clear()
            await b.app.host.log.wait_for(lambda r: "renewed" in r.message, 20)
        assert len(b.app.host.invocations.active) == 1
        assert len(b.app.calls("work")) == 1


async def test_redirects_are_followed(tmp_path: Path, azurite: Azurite) -> None:
    async with bench(tmp_path, azurite) as b:
        await b.put({"do": "redirect"})
        await b.empty()
        assert b.finished()[-1].status == "succeeded"


@pytest.mark.parametrize(
    "order",
    [
        {"do": "drop"},
        {"do": "exit", "code": 200},
        {"do": "answer", "status": 200, "contentType": "text/plain", "body": "ok"},
    ],
)
async def test_bad_answers_fail(tmp_path: Path, azurite: Azurite, order: dict[str, Any]) -> None:
    async with bench(tmp_path, azurite, queues(maxDequeueCount=1)) as b:
        await b.put(order)
        await b.empty()
        assert b.finished()[-1].status == "failed"
        assert len(await b.poisoned()) == 1


async def test_a_handler_that_exited_with_zero_poisons_everything(tmp_path: Path, azurite: Azurite) -> None:
    async with bench(tmp_path, azurite, queues(maxDequeueCount=2)) as b:
        await b.put({"do": "exit", "code": 0})
        await b.empty()
        await b.put({})
        await b.empty()
        assert len(await b.poisoned()) == 2
        assert b.app.host.process.starts == 1


async def test_outputs_are_sent(tmp_path: Path, azurite: Azurite) -> None:
    target = f"out-{uuid.uuid4().hex[:8]}"
    name = f"q-{uuid.uuid4().hex[:8]}"
    output = {"type": "queue", "direction": "out", "name": "out", "queueName": target}
    root = make_app(tmp_path, {"work": [*queue(name), output]})
    client = QueueClient(Account.parse(azurite.connection_string))
    try:
        await client.create(name)
        async with running(root, {"AzureWebJobsStorage": azurite.connection_string}):
            order = {"do": "output", "outputs": {"out": ['{"a":1}', "abcd1234"]}}
            await client.put(name, base64.b64encode(json.dumps(order).encode()).decode())

            async def both() -> list[bytes]:
                found = [base64.b64decode(text) for text in await client.peek(target)]
                return found if len(found) == 2 else []

            assert sorted(await soon(both, "two messages")) == sorted(
                [b'{"a":1}', base64.b64decode("abcd1234")]
            )
    finally:
        await client.close()


# Misfortune.


async def test_duplicate_delivery(tmp_path: Path, azurite: Azurite) -> None:
    async with bench(tmp_path, azurite) as b:
        b.app.host.chaos.arm({"duplicate_delivery": 1})
        await b.put({})
        await b.empty()
        one, two = b.app.calls("work")
        assert one["envelope"]["Metadata"]["Id"] == two["envelope"]["Metadata"]["Id"]
        ids = {dict(call["headers"])["X-Azure-Functions-InvocationId"] for call in (one, two)}
        assert len(ids) == 2


async def test_kill_in_the_middle_of_a_job(tmp_path: Path, azurite: Azurite) -> None:
    async with bench(tmp_path, azurite) as b:
        b.app.host.chaos.arm({"kill_mid_job": {"function": "work", "after": 0.1}})
        gate = tmp_path / "gate"
        await b.put({"do": "gate", "path": str(gate)})
        await soon(lambda: len(b.app.calls("work")) == 2, "redelivery to a new handler")
        gate.touch()
        await b.empty()
        assert [i.status for i in b.finished()] == ["failed", "succeeded"]
        assert b.app.host.process.exits == [137]
        assert b.app.calls("work")[0]["pid"] != b.app.calls("work")[1]["pid"]


async def test_one_slow_function_takes_everything_in_flight_with_it(tmp_path: Path, azurite: Azurite) -> None:
    async with bench(tmp_path, azurite, {"functionTimeout": "00:00:02", **queues(maxDequeueCount=1)}) as b:
        await b.put({"do": "hang"})
        await soon(lambda: b.app.calls("work"), "the slow one")
        await b.put({"do": "gate", "path": str(tmp_path / "never")})
        await b.empty()
        assert sorted(i.status for i in b.finished()) == ["failed", "timed_out"]
        # Killed by the host: restarted, and not counted.
        await b.app.host.process.wait_ready(30)
        assert b.app.host.process.exits == [137]
        assert b.app.host.process.starts == 2
