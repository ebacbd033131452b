"""The host's own pages under ``/admin``, and the stand-in's switches under ``/admin/standin``.

The latter do not exist on a real host: ``GET /admin/standin/state``, ``POST /admin/standin/chaos`` (arms what
``chaos.Chaos`` describes), ``POST /admin/standin/kill`` (SIGKILL to the handler, seen as a crash).
"""

import asyncio
import datetime
import json
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from . import HOST_VERSION
from .envelope import QueueMessage
from .manifest import Function

if TYPE_CHECKING:
    from .host import StandInHost

_WEEK = datetime.timedelta(days=7)


class Admin:
    """Answers ``/admin/...``."""

    def __init__(self, host: "StandInHost") -> None:
        self._host = host
        self._running: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """Abandon what was triggered here."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def handle(
        self,
        request: web.BaseRequest,
        path: str,
        headers: Mapping[str, str],
        query: Mapping[str, str],
        body: bytes,
    ) -> web.StreamResponse:
        """By path; unknown ones are 404."""
        parts = path.strip("/").split("/")[1:]
        if parts[:1] == ["standin"]:
            return self._standin(request.method, parts[1:], body)
        who = self._host.keys.authenticate(None, headers, query, asked=True)
        if not self._host.keys.allows("admin", who) and not self._internal(parts, headers):
            return web.Response(status=401)
        match request.method, parts:
            case (("GET" | "POST"), ["host", "ping"]):
                return web.Response()
            case "GET", ["host", "status"]:
                return web.json_response(
                    {
                        "id": "standin",
                        "state": "Running" if self._host.process.was_ready else "Starting",
                        "version": HOST_VERSION,
                        "processUptime": int(self._host.uptime * 1000),
                    }
                )
            case "GET", ["functions"]:
                return web.json_response([{"name": f.name} for f in self._host.app.runnable])
            case "POST", ["functions", name]:
                return self._trigger(name, body)
        return web.Response(status=404)

    @staticmethod
    def _internal(parts: list[str], headers: Mapping[str, str]) -> bool:
        """A call that did not come through the platform's front end may read the status without a key."""
        through_front_end = any(name.lower() == "x-arr-log-id" for name in headers)
        return not through_front_end and parts in (["host", "status"], ["host", "ping"])

    def _trigger(self, name: str, body: bytes) -> web.Response:
        """202 at once, whatever becomes of the invocation."""
        function = self._host.app.function(name)
        if function is None:
            return web.Response(status=404)
        try:
            text = str(json.loads(body or b"{}").get("input") or "")
        except (ValueError, AttributeError):
            return web.Response(status=400)
        task = asyncio.create_task(self._fire(function, text))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return web.Response(status=202)

    async def _fire(self, function: Function, text: str) -> None:
        if function.kind == "timer":
            await self._host.timer(function).fire(past_due=False)
        elif function.kind == "queue":
            now = datetime.datetime.now(datetime.UTC)
            message = QueueMessage(str(uuid.uuid4()), "", 1, now, now + _WEEK, now, text.encode())
            await self._host.queue(function).invoke(message)
        else:
            self._host.log.error(f"'{function.name}' can't be triggered without a request")

    def _standin(self, method: str, parts: list[str], body: bytes) -> web.Response:
        match method, parts:
            case "GET", ["state"]:
                return web.json_response(self._host.state())
            case "POST", ["kill"]:
                self._host.process.kill()
                return web.Response(status=202)
            case "POST", ["chaos"]:
                try:
                    self._host.chaos.arm(json.loads(body))
                except (ValueError, TypeError) as error:
                    return web.Response(status=400, text=str(error))
                return web.Response(status=202)
        return web.Response(status=404)
