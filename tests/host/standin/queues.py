"""The queue trigger's loop: take, lease, renew, deliver, then delete, release or poison."""

import asyncio
import base64
import binascii
import contextlib
import random
import time

import aiohttp

from . import envelope
from .answer import output_messages
from .chaos import Chaos
from .envelope import QueueMessage
from .hostlog import HostLog
from .invocations import Invocation, InvocationFailedError, Invocations
from .manifest import Function, QueueOptions
from .storage import Dequeued, QueueClient, StorageError
from .times import Times

_STORAGE_TROUBLE = (StorageError, aiohttp.ClientError, OSError)


class UndecodableMessageError(Exception):
    """The text is not base64 although the app says so."""


def decode(message: Dequeued, is_base64: bool) -> QueueMessage:
    """The message as the function gets it."""
    data = message.text.encode()
    if is_base64:
        try:
            data = base64.b64decode(message.text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise UndecodableMessageError(str(error)) from error
    return QueueMessage(
        message.id,
        message.pop_receipt,
        message.dequeue_count,
        message.inserted,
        message.expires,
        message.next_visible,
        data,
    )


class Lease:
    """Keeps a message invisible while it is worked on: renewed at half of what is left."""

    def __init__(
        self, client: QueueClient, queue: str, message: Dequeued, seconds: float, log: HostLog
    ) -> None:
        self._client = client
        self._queue = queue
        self._seconds = seconds
        self._log = log
        self.id = message.id
        self.receipt = message.pop_receipt
        self._until = time.monotonic() + seconds

    async def keep(self) -> None:
        """Renew until cancelled."""
        while True:
            await asyncio.sleep(max(0.0, (self._until - time.monotonic()) / 2))
            try:
                # A cancelled update may already have taken effect, and its receipt would be lost with it.
                await asyncio.shield(self._renew())
            except StorageError as error:
                self._log.error(f"lease of message {self.id} in '{self._queue}' lost: {error}")
                return
            except (aiohttp.ClientError, OSError) as error:
                self._log.warning(f"lease of message {self.id} not renewed, trying again: {error!r}")

    async def _renew(self) -> None:
        receipt = await self._client.update(self._queue, self.id, self.receipt, self._seconds)
        self.receipt = receipt
        self._until = time.monotonic() + self._seconds
        self._log.info(f"lease of message {self.id} in '{self._queue}' renewed")


class QueueListener:
    """One queue function's loop."""

    def __init__(
        self,
        function: Function,
        options: QueueOptions,
        client: QueueClient,
        invocations: Invocations,
        *,
        times: Times,
        log: HostLog,
        chaos: Chaos,
    ) -> None:
        self._function = function
        self._queue = str(function.trigger.text("queueName"))
        self._options = options
        self._client = client
        self._invocations = invocations
        self._times = times
        self._log = log
        self._chaos = chaos
        self._working: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()
        self.most_at_once = 0

    async def listen(self) -> None:
        """Take messages until cancelled; what is under way then is abandoned, as on a host's end."""
        delay = self._times.queue_poll_min
        try:
            while True:
                while len(self._working) > self._options.new_batch_threshold:
                    self._room.clear()
                    await self._room.wait()
                messages: list[Dequeued] = []
                try:
                    messages = await self._client.get(
                        self._queue, self._options.batch_size, self._times.queue_lease
                    )
                except StorageError as error:
                    if error.status != 404:
                        self._log.error(f"queue '{self._queue}': {error}")
                except (aiohttp.ClientError, OSError) as error:
                    self._log.error(f"queue '{self._queue}': {error!r}")
                if not messages:
                    await asyncio.sleep(delay)
                    delay = min(delay * random.uniform(1.5, 2.5), self._options.max_polling_interval)
                    continue
                delay = self._times.queue_poll_min
                for message in messages:
                    task = asyncio.create_task(self._work(message))
                    self._working.add(task)
                    task.add_done_callback(self._done)
                self.most_at_once = max(self.most_at_once, len(self._working))
        finally:
            for task in self._working:
                task.cancel()
            await asyncio.gather(*self._working, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._working.discard(task)
        self._room.set()
        if not task.cancelled() and task.exception() is not None:
            self._log.error(f"queue '{self._queue}': {task.exception()!r}")

    async def _work(self, message: Dequeued) -> None:
        lease = Lease(self._client, self._queue, message, self._times.queue_lease, self._log)
        if message.dequeue_count > self._options.max_dequeue_count:
            await self._poison(message, lease)
            return
        try:
            decoded = decode(message, self._options.base64)
        except UndecodableMessageError as error:
            self._log.error(f"message {message.id} in '{self._queue}' is not base64: {error}")
            await self._poison(message, lease)
            return
        keeper = asyncio.create_task(lease.keep())
        try:
            succeeded = await self._deliver(decoded)
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        try:
            await self._settle(message, lease, succeeded)
        except _STORAGE_TROUBLE as error:
            self._log.error(f"message {message.id} in '{self._queue}' not settled: {error!r}")

    async def _settle(self, message: Dequeued, lease: Lease, succeeded: bool) -> None:
        if succeeded:
            await self._client.delete(self._queue, message.id, lease.receipt)
        elif message.dequeue_count >= self._options.max_dequeue_count:
            await self._poison(message, lease)
        else:
            await self._client.update(
                self._queue, message.id, lease.receipt, self._options.visibility_timeout
            )

    async def _poison(self, message: Dequeued, lease: Lease) -> None:
        poison = f"{self._queue}-poison"
        self._log.warning(f"message {message.id} moves from '{self._queue}' to '{poison}'")
        await self._client.create(poison)
        await self._client.put(poison, message.text)
        await self._client.delete(self._queue, message.id, lease.receipt)

    async def _deliver(self, message: QueueMessage) -> bool:
        if self._chaos.take_duplicate():
            self._log.warning(f"chaos: message {message.id} is delivered twice")
            results = await asyncio.gather(self.invoke(message), self.invoke(message))
            return results[0]
        return await self.invoke(message)

    async def invoke(self, message: QueueMessage) -> bool:
        """Call the function with a message; whether that succeeded."""
        name = self._function.name
        invocation = Invocation(name, detail={"messageId": message.id, "dequeueCount": message.dequeue_count})
        binary = (self._function.trigger.text("dataType") or "").lower() == "binary"
        body = envelope.queue(name, self._function.trigger.name, message, envelope.sys_entry(name), binary)
        try:
            answer = await self._invocations.call(invocation, body)
        except InvocationFailedError:
            return False
        for output in self._function.bindings:
            if output.direction == "out" and output.type.lower() == "queue":
                value = answer.return_value if output.name == "$return" else answer.outputs.get(output.name)
                if value is not None:
                    await self._send(str(output.text("queueName")), output_messages(value))
        return True

    async def _send(self, queue: str, messages: list[bytes]) -> None:
        with contextlib.suppress(StorageError):
            await self._client.create(queue)
        for data in messages:
            text = base64.b64encode(data).decode() if self._options.base64 else data.decode(errors="replace")
            await self._client.put(queue, text)
