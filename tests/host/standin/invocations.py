"""Invocations in flight: functionTimeout, what a killed handler takes along, the call with an envelope."""

import asyncio
import contextlib
import time
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, TypeVar

import aiohttp

from . import HOST_VERSION, answer, envelope
from .answer import Answer, Verdict
from .chaos import Chaos
from .hostlog import HostLog
from .process import ADDRESS, HandlerProcess, HandlerUnavailableError
from .times import Times

T = TypeVar("T")


class InvocationFailedError(Exception):
    """The invocation is over and did not succeed."""


@dataclass
class Invocation:
    """One call of one function."""

    function: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    started: float = field(default_factory=time.monotonic)
    status: str = "running"
    reason: str = ""
    seconds: float = 0.0
    attempts: int = 0
    """How often the request was sent (raw mode repeats some)."""
    answer: dict[str, Any] | None = None
    detail: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For the state page."""
        return {
            "function": self.function,
            "id": self.id,
            "status": self.status,
            "reason": self.reason,
            "seconds": round(self.seconds, 3),
            "attempts": self.attempts,
            "answer": self.answer,
            **self.detail,
        }


class HandlerClient:
    """The host's HTTP client towards the handler; adds no header of its own."""

    def __init__(self) -> None:
        trace = aiohttp.TraceConfig()
        trace.on_request_headers_sent.append(_headers_sent)
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            trace_configs=[trace],
        )
        # The client's own silent repeat would hide transport errors from the rules that count them.
        self.session._retry_connection = False

    async def close(self) -> None:
        """Drop all connections."""
        await self.session.close()


async def _headers_sent(_: aiohttp.ClientSession, context: SimpleNamespace, __: Any) -> None:
    sent = context.trace_request_ctx
    if isinstance(sent, asyncio.Event):
        sent.set()


class Invocations:
    """Runs invocations under the host's rules and remembers them."""

    def __init__(
        self,
        process: HandlerProcess,
        client: HandlerClient,
        *,
        function_timeout: float | None,
        times: Times,
        log: HostLog,
        chaos: Chaos,
        on_give_up: Callable[[str], None],
    ) -> None:
        self._process = process
        self._client = client
        self._function_timeout = function_timeout
        self._times = times
        self._log = log
        self._chaos = chaos
        self._on_give_up = on_give_up
        self.active: dict[str, Invocation] = {}
        self.finished: deque[Invocation] = deque(maxlen=2000)

    async def run(self, invocation: Invocation, job: Callable[[], Awaitable[T]]) -> T:
        """Run ``job`` as the body of an invocation; raises InvocationFailedError when it did not succeed."""
        self.active[invocation.id] = invocation
        try:
            result = await self._bounded(invocation, job)
            if invocation.status == "running":
                invocation.status = "succeeded"
            return result
        except InvocationFailedError as error:
            if invocation.status == "running":
                invocation.status = "failed"
            invocation.reason = str(error)
            self._log.error(f"'{invocation.function}' ({invocation.id}) failed: {error}")
            raise
        except asyncio.CancelledError:
            invocation.status = "abandoned"
            raise
        finally:
            invocation.seconds = time.monotonic() - invocation.started
            del self.active[invocation.id]
            self.finished.append(invocation)

    async def _bounded(self, invocation: Invocation, job: Callable[[], Awaitable[T]]) -> T:
        await self._wait_for_handler()
        invocation.started = time.monotonic()
        doom = self._process.doom
        task: asyncio.Task[T] = asyncio.ensure_future(_as_coroutine(job))
        try:
            waiting: set[asyncio.Future[Any]] = {task, doom}
            done, _ = await asyncio.wait(
                waiting, timeout=self._function_timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if not done:
                await asyncio.wait(
                    waiting, timeout=self._times.timeout_grace, return_when=asyncio.FIRST_COMPLETED
                )
                if not task.done() and not doom.done():
                    invocation.status = "timed_out"
                    limit = self._function_timeout
                    self._process.kill_and_restart(
                        f"'{invocation.function}' ({invocation.id}) exceeded functionTimeout of {limit:g} s"
                    )
                    raise InvocationFailedError("functionTimeout")
            if task.done():
                return task.result()
            raise InvocationFailedError(f"lost with the handler: {doom.result()}")
        finally:
            if not task.done():
                task.cancel()
            with contextlib.suppress(BaseException):
                await asyncio.gather(task, return_exceptions=True)

    async def _wait_for_handler(self) -> None:
        budget = 4 * self._process.initialization_timeout
        try:
            await self._process.wait_ready(budget)
        except HandlerUnavailableError as error:
            self._on_give_up(str(error))
            raise InvocationFailedError(str(error)) from None

    @contextlib.asynccontextmanager
    async def armed_kill(self, function: str) -> AsyncIterator[asyncio.Event]:
        """An event to set when the request is out; a kill armed for this function follows it."""
        sent = asyncio.Event()
        kill = self._chaos.take_kill(function)
        task: asyncio.Task[None] | None = None
        if kill is not None:
            task = asyncio.create_task(self._kill_after(sent, kill.after))
        try:
            yield sent
        finally:
            if task is not None and not sent.is_set():
                task.cancel()

    async def _kill_after(self, sent: asyncio.Event, delay: float) -> None:
        await sent.wait()
        await asyncio.sleep(delay)
        self._log.warning("chaos: SIGKILL to the handler in the middle of a job")
        self._process.kill()

    async def call(self, invocation: Invocation, body: envelope.Json) -> Answer:
        """POST an envelope and wait for a usable answer, however long the host would wait."""
        return await self.run(invocation, lambda: self._post(invocation, body))

    async def _post(self, invocation: Invocation, body: envelope.Json) -> Answer:
        port = self._process.port
        data = envelope.to_bytes(body)
        limit = None
        if self._function_timeout is not None:
            limit = self._function_timeout + self._times.client_slack
        invocation.attempts += 1
        try:
            async with (
                self.armed_kill(invocation.function) as sent,
                self._client.session.post(
                    f"http://{ADDRESS}:{port}/{invocation.function}",
                    data=_once(data, sent),
                    headers={
                        "Content-Type": "application/json; charset=utf-8",
                        "User-Agent": f"Azure-Functions-Host/{HOST_VERSION}",
                        "X-Azure-Functions-HostVersion": HOST_VERSION,
                        "X-Azure-Functions-InvocationId": invocation.id,
                    },
                    allow_redirects=True,
                    max_redirects=50,
                    timeout=aiohttp.ClientTimeout(total=limit),
                ) as response,
            ):
                content = await response.read()
                content_type = response.headers.get("Content-Type")
                status = response.status
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise InvocationFailedError(f"no answer from the handler: {error!r}") from error
        invocation.answer = {
            "status": status,
            "contentType": content_type,
            "body": content[:100_000].decode(errors="replace"),
        }
        result = answer.classify(status, content_type, content)
        if result.verdict is Verdict.FAILURE:
            raise InvocationFailedError(result.reason)
        if result.verdict is Verdict.HANG:
            invocation.reason = f"hanging: {result.reason}"
            self._log.warning(f"'{invocation.function}' ({invocation.id}) will not complete: {result.reason}")
            await asyncio.get_running_loop().create_future()
        for line in result.logs:
            self._log.info(line, f"Function.{invocation.function}.User")
        return result


async def _as_coroutine(job: Callable[[], Awaitable[T]]) -> T:
    return await job()


async def _once(data: bytes, sent: asyncio.Event) -> AsyncIterator[bytes]:
    yield data
    sent.set()
