"""Raw mode: an HTTP request handed to the handler as it came, by the host's header rules."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

import aiohttp
from aiohttp import web
from yarl import URL

from . import HOST_VERSION
from .chaos import Chaos, send_and_drop
from .invocations import HandlerClient, Invocation, InvocationFailedError, Invocations
from .process import ADDRESS, HandlerProcess
from .times import Times

MAX_ATTEMPTS = 10
HANDLER_HEADERS = web.ResponseKey("handler_headers", set[str])
"""Marks a streamed answer with the names of the headers that the handler gave."""
BODY_LIMIT = 104_857_600

_HOP_BY_HOP = {
    "connection",
    "transfer-encoding",
    "keep-alive",
    "upgrade",
    "te",
    "alt-svc",
    "http2-settings",
    "upgrade-insecure-requests",
    "security-scheme",
    "alpn",
    "close",
}
_REPLACED = {
    "host",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-prefix",
    "x-azure-functions-hostversion",
    "x-azure-functions-invocationid",
    "x-ms-invocation-id",
}

Headers = list[tuple[str, str]]


class ClientGoneError(Exception):
    """The response was under way when the handler was lost: the client's connection is cut."""


class BodyTooLargeError(Exception):
    """The server's own limit."""


def is_hop_by_hop(name: str) -> bool:
    """Headers that end at each hop."""
    lowered = name.lower()
    return lowered in _HOP_BY_HOP or lowered.startswith(("proxy-", ":"))


def request_headers(
    client: Iterable[tuple[str, str]], *, port: int, peer: str, scheme: str, invocation: str
) -> Headers:
    """What the handler sees: everything but hop-by-hop ones; forwarding and invocation headers *set*."""
    client = list(client)
    headers = [
        (name, value) for name, value in client if not is_hop_by_hop(name) and name.lower() not in _REPLACED
    ]
    original = next((value for name, value in client if name.lower() == "host"), None)
    headers.append(("Host", f"{ADDRESS}:{port}"))
    headers.append(("X-Forwarded-For", peer))
    if original is not None:
        headers.append(("X-Forwarded-Host", original))
    headers.append(("X-Forwarded-Proto", scheme))
    headers.append(("X-Azure-Functions-HostVersion", HOST_VERSION))
    headers.append(("X-Azure-Functions-InvocationId", invocation))
    headers.append(("x-ms-invocation-id", invocation))
    return headers


def response_headers(handler: Iterable[tuple[str, str]]) -> Headers:
    """What the client sees."""
    return [(name, value) for name, value in handler if not is_hop_by_hop(name)]


@dataclass
class Body:
    """A request body: read whole when its length was given, a stream when it was chunked."""

    whole: bytes = b""
    stream: AsyncIterator[bytes] | None = None

    @property
    def present(self) -> bool:
        """Whether a repeat is out of the question."""
        return bool(self.whole) or self.stream is not None


async def read_body(request: web.BaseRequest) -> Body:
    """By the host's rule: Content-Length means the whole body is read before the handler hears of it."""
    if request.headers.get("Transfer-Encoding"):
        return Body(stream=_limited(request))
    length = request.content_length or 0
    if length > BODY_LIMIT:
        raise BodyTooLargeError
    return Body(whole=await request.content.readexactly(length) if length else b"")


async def _limited(request: web.BaseRequest) -> AsyncIterator[bytes]:
    total = 0
    async for piece in request.content.iter_any():
        total += len(piece)
        if total > BODY_LIMIT:
            raise BodyTooLargeError
        yield piece


class Proxy:
    """Forwards requests and streams the answers back."""

    def __init__(
        self,
        process: HandlerProcess,
        client: HandlerClient,
        invocations: Invocations,
        times: Times,
        chaos: Chaos,
    ) -> None:
        self._process = process
        self._client = client
        self._invocations = invocations
        self._times = times
        self._chaos = chaos

    async def forward(
        self, request: web.BaseRequest, target: str, headers: Headers, body: Body, invocation: Invocation
    ) -> web.StreamResponse:
        """One invocation in raw mode. Raises InvocationFailedError while the client can still get a 500."""
        return await self._invocations.run(
            invocation, lambda: self._attempts(request, target, headers, body, invocation)
        )

    async def _attempts(
        self, request: web.BaseRequest, target: str, headers: Headers, body: Body, invocation: Invocation
    ) -> web.StreamResponse:
        while True:
            invocation.attempts += 1
            try:
                return await self._once(request, target, headers, body, invocation)
            except (aiohttp.ClientError, OSError) as error:
                # A timeout is an OSError too, but no transport error to the host.
                if body.present or isinstance(error, TimeoutError) or invocation.attempts >= MAX_ATTEMPTS:
                    raise InvocationFailedError(
                        f"the handler could not be reached ({invocation.attempts} attempts): {error!r}"
                    ) from error
            await asyncio.sleep(random.uniform(self._times.proxy_retry_min, self._times.proxy_retry_max))

    async def _once(
        self, request: web.BaseRequest, target: str, headers: Headers, body: Body, invocation: Invocation
    ) -> web.StreamResponse:
        if self._chaos.take_drop():
            await send_and_drop(
                ADDRESS, self._process.port, _wire(request.method, target, headers, body.whole)
            )
            raise ConnectionResetError("chaos: connection dropped after the request was sent")
        data = body.stream if body.stream is not None else (body.whole or None)
        idle = self._times.proxy_idle
        async with (
            self._invocations.armed_kill(invocation.function) as sent,
            contextlib.AsyncExitStack() as stack,
        ):
            async with asyncio.timeout(idle):
                response = await stack.enter_async_context(
                    self._client.session.request(
                        request.method,
                        URL(f"http://{ADDRESS}:{self._process.port}{target}", encoded=True),
                        headers=[(k, v) for k, v in headers if k.lower() not in ("content-length", "expect")],
                        data=data,
                        allow_redirects=False,
                        trace_request_ctx=sent,
                    )
                )
            return await self._stream(request, response, invocation)

    async def _stream(
        self, request: web.BaseRequest, response: aiohttp.ClientResponse, invocation: Invocation
    ) -> web.StreamResponse:
        answer = web.StreamResponse(status=response.status, reason=response.reason)
        invocation.answer = {"status": response.status, "contentType": response.headers.get("Content-Type")}
        for name, value in response_headers(response.headers.items()):
            answer.headers.add(name, value)
        answer[HANDLER_HEADERS] = {name.lower() for name in answer.headers}
        await answer.prepare(request)
        try:
            while True:
                async with asyncio.timeout(self._times.proxy_idle):
                    piece = await response.content.readany()
                if not piece:
                    break
                await answer.write(piece)
            await answer.write_eof()
        except (aiohttp.ClientError, OSError) as error:
            invocation.status = "failed"
            raise ClientGoneError(repr(error)) from error
        return answer


def _wire(method: str, target: str, headers: Headers, body: bytes) -> bytes:
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in headers if name.lower() != "content-length"]
    if body or method not in ("GET", "HEAD", "DELETE", "OPTIONS"):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape") + body
