"""App folders with the fake handler, and hosts that run them in the test's own process."""

import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from yarl import URL

from standin.host import Options, StandInHost
from standin.times import Times

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parent / "golden" / "host_invocations"

RAW = [
    {"type": "httpTrigger", "direction": "in", "name": "req", "authLevel": "anonymous", "route": "{*path}"},
    {"type": "http", "direction": "out", "name": "res"},
]
QUICK = Times(
    availability_wait=10.0,
    timeout_grace=0.2,
    proxy_retry_min=0.01,
    proxy_retry_max=0.02,
    queue_lease=2.0,
    queue_poll_min=0.02,
)


def http(level: str = "anonymous", route: str = "{*path}", **more: Any) -> list[dict[str, Any]]:
    """The bindings of a raw HTTP function."""
    return [{**RAW[0], "authLevel": level, "route": route, **more}, RAW[1]]


def queue(name: str, **more: Any) -> list[dict[str, Any]]:
    """The bindings of a queue function."""
    trigger = {"type": "queueTrigger", "direction": "in", "name": "message", "queueName": name}
    return [{**trigger, "connection": "AzureWebJobsStorage", **more}]


def timer(schedule: str, **more: Any) -> list[dict[str, Any]]:
    """The bindings of a timer function."""
    return [{"type": "timerTrigger", "direction": "in", "name": "timer", "schedule": schedule, **more}]


def make_app(
    root: Path, functions: Mapping[str, list[dict[str, Any]]], host_json: Mapping[str, Any] | None = None
) -> Path:
    """Write an app folder that runs the fake handler; ``host_json`` is merged over the usual one."""
    base: dict[str, Any] = {
        "version": "2.0",
        "functionTimeout": "00:01:00",
        "extensions": {
            "queues": {"maxPollingInterval": "00:00:00.1", "batchSize": 8, "newBatchThreshold": 4}
        },
        "customHandler": {
            "description": {
                "defaultExecutablePath": sys.executable,
                "arguments": [str(HERE / "fake_handler.py")],
            },
            "enableProxyingHttpRequest": True,
        },
    }
    _merge(base, host_json or {})
    root.mkdir(parents=True, exist_ok=True)
    (root / "host.json").write_text(json.dumps(base))
    for name, bindings in functions.items():
        (root / name).mkdir()
        (root / name / "function.json").write_text(json.dumps({"bindings": bindings}))
    return root


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


@dataclass
class Running:
    """A host under test, with a client that sends paths untouched."""

    host: StandInHost
    session: aiohttp.ClientSession
    journal_path: Path

    def request(self, method: str, target: str, **more: Any) -> Any:
        """As ``session.request``; ``target`` goes on the wire as it is."""
        more.setdefault("allow_redirects", False)
        return self.session.request(method, URL(self.host.url + target, encoded=True), **more)

    async def status(self, method: str, target: str, **more: Any) -> int:
        """Only the status."""
        async with self.request(method, target, **more) as response:
            return int(response.status)

    def journal(self) -> list[dict[str, Any]]:
        """What the handler has written down."""
        if not self.journal_path.exists():
            return []
        return [json.loads(line) for line in self.journal_path.read_text().splitlines()]

    def calls(self, function: str | None = None) -> list[dict[str, Any]]:
        """The requests that were not probes, for one function or all."""
        records = [record for record in self.journal() if "method" in record]
        return [r for r in records if function is None or r.get("function") == function]


@contextlib.asynccontextmanager
async def running(
    root: Path, env: Mapping[str, str] | None = None, ready: bool = True, **options: Any
) -> AsyncIterator[Running]:
    """Run an app folder; with ``ready``, wait until its handler is up."""
    journal = root / "journal.jsonl"
    environment = {**os.environ, "FAKE_JOURNAL": str(journal), **(env or {})}
    options.setdefault("times", QUICK)
    host = StandInHost(Options(root=root, port=0, environment=environment, **options))
    async with (
        host,
        aiohttp.ClientSession(auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()) as session,
    ):
        if ready:
            await host.process.wait_ready(30)
        yield Running(host, session, journal)


def golden(name: str) -> Any:
    """One file of the corpus, by the beginning of its name."""
    (path,) = GOLDEN.glob(f"{name}-*.json")
    return json.loads(path.read_text())
