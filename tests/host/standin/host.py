"""The host itself: puts the parts together and answers HTTP in the order the real one does."""

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from . import envelope, keys, manifest, principal, proxy, routing
from .admin import Admin
from .answer import http_output
from .chaos import Chaos
from .hostlog import HostLog
from .invocations import HandlerClient, Invocation, InvocationFailedError, Invocations
from .manifest import App, Function
from .process import ADDRESS, HandlerProcess, HandlerUnavailableError, State
from .queues import QueueListener
from .storage import Account, QueueClient
from .timers import TimerListener
from .times import Times

_LIMITS = {"auto_decompress": False, "max_line_size": 8192, "max_field_size": 32768}
"""The real host's server takes a request line of 8 KiB and headers of 32 KiB in all."""
_DEFAULT_HEADERS_OF_OURS = ("Content-Type", "Date", "Server")


@dataclass
class Options:
    """How to run an app folder."""

    root: Path
    port: int = 7071
    environment: Mapping[str, str] = field(default_factory=dict)
    """The host's environment, which the handler inherits whole."""
    local_settings: bool = True
    """Take the values of local.settings.json that are not set already."""
    auth: str = "azure"
    easyauth: str = "off"
    secrets: Path | None = None
    trust_forwarded_proto: bool = False
    """As on Azure's Linux plans: the scheme is what the front end says."""
    people: Mapping[str, principal.Person] = field(default_factory=lambda: {"ada": principal.ADA})
    listeners: bool = True
    """Whether queues are read and timers fire; without, only HTTP and ``/admin/functions`` do."""
    times: Times = field(default_factory=Times)
    chaos: Chaos = field(default_factory=Chaos)


class StandInHost:
    """One host with one handler process. Use as an async context manager, or start() and stop()."""

    def __init__(self, options: Options, log: HostLog | None = None) -> None:
        self.options = options
        self.log = log or HostLog()
        self.times = options.times
        self.chaos = options.chaos
        self.platform = principal.Platform(options.easyauth, options.people)
        self.environment = self._environment()
        self.app: App = manifest.load(options.root, self.environment)
        self.keys = keys.KeyCheck(options.auth, keys.Secrets.load(options.secrets))
        self.admin = Admin(self)
        self.port = options.port
        self.stop_reason: str | None = None
        self.stopped = asyncio.Event()
        self._began = time.monotonic()
        self.client = HandlerClient()
        self.process = HandlerProcess(
            self.app.config.handler,
            str(options.root),
            self.environment,
            initialization_timeout=self.app.config.initialization_timeout,
            port=self.app.config.port,
            times=self.times,
            log=self.log,
            chaos=self.chaos,
            on_give_up=self._give_up,
        )
        self.invocations = Invocations(
            self.process,
            self.client,
            function_timeout=self.app.config.function_timeout,
            times=self.times,
            log=self.log,
            chaos=self.chaos,
            on_give_up=self._give_up,
        )
        self.proxy = proxy.Proxy(self.process, self.client, self.invocations, self.times, self.chaos)
        self._runner: web.AppRunner | None = None
        self._storage: dict[str, QueueClient] = {}
        self._queues: dict[str, QueueListener] = {}
        self._timers: dict[str, TimerListener] = {}
        self._listening: list[asyncio.Task[None]] = []

    # Life.

    def _environment(self) -> dict[str, str]:
        options = self.options
        values = {**options.environment, **self.platform.environment()}
        if options.auth == "coretools":
            values.update(
                {
                    "AzureWebJobsScriptRoot": str(options.root),
                    "WEBSITE_HOSTNAME": f"localhost:{options.port}",
                    "AZURE_FUNCTIONS_ENVIRONMENT": "Development",
                    "FUNCTIONS_CORETOOLS_ENVIRONMENT": "True",
                }
            )
        path = options.root / "local.settings.json"
        if options.local_settings and path.is_file():
            settings = json.loads(path.read_text(encoding="utf-8-sig"))
            for name, value in (settings.get("Values") or {}).items():
                values.setdefault(name, str(value))
        return values

    async def start(self) -> None:
        """Bind, start the handler and the listeners; does not wait for the handler."""
        app = web.Application(handler_args=_LIMITS)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        app.on_response_prepare.append(_only_own_headers)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, ADDRESS, self.options.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self.process.start()
        for function in self.app.runnable:
            if function.kind == "queue":
                self._queues[function.name] = self._queue_listener(function)
            elif function.kind == "timer":
                self._timers[function.name] = TimerListener(function, self.invocations, self.times, self.log)
        self._listening = [asyncio.create_task(self._listen())]

    async def _listen(self) -> None:
        """Listeners begin when the handler is up for the first time."""
        with contextlib.suppress(HandlerUnavailableError):
            await self.process.wait_ready(4 * self.app.config.initialization_timeout)
            if self.options.listeners:
                for function in self.app.runnable:
                    if function.disabled:
                        continue
                    listener = self._queues.get(function.name) or self._timers.get(function.name)
                    if listener is not None:
                        self._listening.append(asyncio.create_task(listener.listen()))
            return
        self._give_up("the handler did not become ready")

    def _queue_listener(self, function: Function) -> QueueListener:
        connection = function.trigger.text("connection") or "AzureWebJobsStorage"
        text = self.environment.get(connection) or self.environment.get(f"AzureWebJobs{connection}")
        if not text:
            raise manifest.ManifestError(f"'{function.name}': no connection string named '{connection}'")
        client = self._storage.get(text)
        if client is None:
            client = self._storage[text] = QueueClient(Account.parse(text))
        return QueueListener(
            function,
            self.app.config.queues,
            client,
            self.invocations,
            times=self.times,
            log=self.log,
            chaos=self.chaos,
        )

    async def stop(self) -> None:
        """The host's end: listeners first, then the handler is killed without a word."""
        for task in self._listening:
            task.cancel()
        await asyncio.gather(*self._listening, return_exceptions=True)
        await self.admin.close()
        await self.process.stop()
        if self._runner is not None:
            await self._runner.cleanup()
        await self.client.close()
        for storage in self._storage.values():
            await storage.close()
        self.stopped.set()

    async def __aenter__(self) -> "StandInHost":
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _give_up(self, why: str) -> None:
        """The host stops itself: nothing is read or proxied any more."""
        if self.stop_reason is None:
            self.stop_reason = why
            self.log.error(f"the host stops: {why}")
            for task in self._listening:
                if task is not asyncio.current_task():
                    task.cancel()
            self.stopped.set()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{ADDRESS}:{self.port}"

    @property
    def uptime(self) -> float:
        """Seconds since it was made."""
        return time.monotonic() - self._began

    def queue(self, function: Function) -> QueueListener:
        """The listener of a queue function."""
        return self._queues[function.name]

    def timer(self, function: Function) -> TimerListener:
        """The listener of a timer function."""
        return self._timers[function.name]

    def state(self) -> dict[str, Any]:
        """What tests want to know."""
        return {
            "handler": {
                "pid": self.process.pid,
                "port": self.process.port,
                "state": self.process.state.value,
                "starts": self.process.starts,
                "exits": self.process.exits,
            },
            "stopReason": self.stop_reason,
            "active": [invocation.as_json() for invocation in self.invocations.active.values()],
            "finished": [invocation.as_json() for invocation in self.invocations.finished],
            "mostAtOnce": {name: listener.most_at_once for name, listener in self._queues.items()},
        }

    # One request.

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        raw_path, _, raw_query = request.raw_path.partition("?")
        if raw_path.startswith("http://"):
            raw_path = "/" + raw_path.split("/", 3)[3] if raw_path.count("/") >= 3 else "/"
        path = routing.normalise(raw_path)
        query = dict(parse_qsl(raw_query, keep_blank_values=True))
        headers = self.platform.apply(list(request.headers.items()), self._url(request, raw_path, raw_query))
        if headers is None:
            return web.Response(status=401)
        by_name = dict(reversed(headers))

        if path.lower() == "/admin" or path.lower().startswith("/admin/"):
            return await self.admin.handle(request, path, by_name, query, await request.read())
        if not await self._available():
            return web.Response(status=503, text="Function host is not running.")

        found = routing.first_match(self.app.runnable, request.method, path)
        if found is None:
            if path == "/":
                return self._homepage()
            return web.Response(status=404)
        function, values = found

        claimed = next((v for n, v in headers if n.lower() == "x-ms-client-principal"), None)
        asked = function.auth_level != "anonymous" or claimed is not None
        who = self.keys.authenticate(function.name, by_name, query, asked)
        try:
            person = principal.parse_identity(claimed, self.environment)
        except (ValueError, KeyError, TypeError):
            return web.Response(status=500)
        if not self.keys.allows(function.auth_level, who):
            return web.Response(status=401)
        if function.disabled and (who is None or who.level != keys.ADMIN):
            return web.Response(status=404)

        try:
            body = await proxy.read_body(request)
        except proxy.BodyTooLargeError:
            return web.Response(status=413)
        except asyncio.IncompleteReadError:
            return web.Response(status=400)
        invocation = Invocation(function.name, detail={"method": request.method, "path": path})
        try:
            if self.app.config.proxying and function.is_raw_http:
                target = path + (f"?{raw_query}" if raw_query else "")
                return await self._proxied(request, target, headers, body, invocation)
            return await self._enveloped(
                request, raw_query, function, values, headers, body, who, person, invocation
            )
        except InvocationFailedError:
            if invocation.answer is not None and function.is_raw_http and self.app.config.proxying:
                return _cut(request)
            return web.Response(status=500)
        except proxy.ClientGoneError as error:
            self.log.error(f"'{function.name}' ({invocation.id}): answer cut off: {error}")
            return _cut(request)

    async def _available(self) -> bool:
        """A host that is starting makes requests wait a while; later the invocation does the waiting."""
        if self.stop_reason is not None or self.process.state is State.STOPPED:
            return False
        if self.process.was_ready:
            return True
        try:
            await self.process.wait_ready(self.times.availability_wait)
        except HandlerUnavailableError:
            return False
        return True

    def _homepage(self) -> web.Response:
        if self.environment.get("AzureWebJobsDisableHomepage", "").lower() == "true":
            return web.Response(status=204)
        return web.Response(
            text="<html><body>The stand-in host is up.</body></html>", content_type="text/html"
        )

    def _scheme(self, request: web.BaseRequest) -> str:
        if self.options.trust_forwarded_proto:
            return request.headers.get("X-Forwarded-Proto", request.scheme)
        return request.scheme

    def _url(self, request: web.BaseRequest, raw_path: str, raw_query: str) -> str:
        host = request.headers.get("Host", f"{ADDRESS}:{self.port}")
        return f"{self._scheme(request)}://{host}{raw_path}" + (f"?{raw_query}" if raw_query else "")

    async def _proxied(
        self,
        request: web.BaseRequest,
        target: str,
        headers: proxy.Headers,
        body: proxy.Body,
        invocation: Invocation,
    ) -> web.StreamResponse:
        handed = proxy.request_headers(
            headers,
            port=self.process.port,
            peer=request.remote or ADDRESS,
            scheme=self._scheme(request),
            invocation=invocation.id,
        )
        return await self.proxy.forward(request, target, handed, body, invocation)

    async def _enveloped(
        self,
        request: web.BaseRequest,
        raw_query: str,
        function: Function,
        values: Mapping[str, str | None],
        headers: proxy.Headers,
        body: proxy.Body,
        who: keys.KeyIdentity | None,
        person: envelope.Json | None,
        invocation: Invocation,
    ) -> web.StreamResponse:
        raw_path = request.raw_path.partition("?")[0]
        identity = who.as_json() if who is not None else (person or keys.NOBODY)
        content = envelope.http(
            function.trigger.name,
            url=self._url(request, raw_path, raw_query),
            method=request.method,
            query=raw_query,
            headers=headers,
            route_values=values,
            identities=[identity],
            body=body.whole or None,
            sys=envelope.sys_entry(function.name),
        )
        answer = await self.invocations.call(invocation, content)
        output = next(
            (b for b in function.bindings if b.direction == "out" and b.type.lower() == "http"), None
        )
        value = None
        if output is not None:
            value = answer.return_value if output.name == "$return" else answer.outputs.get(output.name)
        if value is None:
            return web.Response(status=200 if output is None else 204)
        result = http_output(value)
        return web.Response(status=result.status, body=result.body, headers=result.headers)


async def _only_own_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Streamed answers are the handler's: the server's default headers stay out of them."""
    given = response.get(proxy.HANDLER_HEADERS)
    if given is None:
        return
    for name in _DEFAULT_HEADERS_OF_OURS:
        if name.lower() not in given:
            response.headers.popall(name, None)


def _cut(request: web.BaseRequest) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)
