"""Misfortune on request: what a test can make go wrong between the host and the handler."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class KillMidJob:
    """SIGKILL the handler while it works on an invocation."""

    function: str
    after: float = 0.0
    """Seconds after the request was sent."""
    times: int = 1


@dataclass
class Chaos:
    """What is armed. Counters go down as the events happen."""

    start_delay: float = 0.0
    """Seconds before each start of the handler."""
    drop_after_send: int = 0
    """So many proxied requests lose their connection after the whole request was sent."""
    duplicate_delivery: int = 0
    """So many queue messages are delivered twice, at the same time."""
    kill_mid_job: list[KillMidJob] = field(default_factory=list)

    def arm(self, wish: Mapping[str, Any]) -> None:
        """From JSON: the names of the fields; ``kill_mid_job`` is one object and is added to the list."""
        for name, value in wish.items():
            if name == "kill_mid_job":
                self.kill_mid_job.append(KillMidJob(**value))
            elif name in ("start_delay", "drop_after_send", "duplicate_delivery"):
                setattr(self, name, value)
            else:
                raise ValueError(f"no such misfortune: {name}")

    def take_drop(self) -> bool:
        """Whether this request is to lose its connection."""
        if self.drop_after_send <= 0:
            return False
        self.drop_after_send -= 1
        return True

    def take_duplicate(self) -> bool:
        """Whether this message is to be delivered twice."""
        if self.duplicate_delivery <= 0:
            return False
        self.duplicate_delivery -= 1
        return True

    def take_kill(self, function: str) -> KillMidJob | None:
        """The kill armed for an invocation of this function (``*`` for any)."""
        for kill in self.kill_mid_job:
            if kill.times > 0 and kill.function in ("*", function):
                kill.times -= 1
                return kill
        return None


async def send_and_drop(host: str, port: int, request: bytes) -> None:
    """Send a whole request and close the connection without reading."""
    _, writer = await asyncio.open_connection(host, port)
    writer.write(request)
    await writer.drain()
    writer.close()
