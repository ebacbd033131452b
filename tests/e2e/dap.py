"""A client of the debug adapter protocol, as an editor is one: requests, their answers, and events."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from typing import Any

Message = dict[str, Any]


class Client:
    """A connection to a debugger."""

    def __init__(self, port: int, within: float = 30) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=within)
        self._stream = self._socket.makefile("rwb")
        self._sent = 0
        self._unread: list[Message] = []
        self._within = within

    def request(self, command: str, arguments: Message | None = None) -> Message:
        """The body of the answer to a request."""
        return self.answer(self.send(command, arguments))

    def send(self, command: str, arguments: Message | None = None) -> int:
        """A request whose answer is not waited for; its number."""
        self._sent += 1
        message = {"seq": self._sent, "type": "request", "command": command, "arguments": arguments or {}}
        body = json.dumps(message).encode()
        self._stream.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self._stream.flush()
        return self._sent

    def answer(self, number: int) -> Message:
        """The body of the answer to a request that was sent."""
        found = self._until(lambda message: message.get("request_seq") == number)
        assert found["success"], found
        body: Message = found.get("body") or {}
        return body

    def event(self, name: str) -> Message:
        """The body of the next event of a kind."""
        return self._until(lambda message: message.get("event") == name).get("body") or {}

    def attach(self, file: str, lines: list[int]) -> None:
        """Everything that an editor does until code runs, with breakpoints in one file."""
        self.request("initialize", {"adapterID": "debugpy", "pathFormat": "path", "linesStartAt1": True})
        attached = self.send("attach", {"justMyCode": True})
        self.event("initialized")
        set_ = self.request(
            "setBreakpoints", {"source": {"path": file}, "breakpoints": [{"line": line} for line in lines]}
        )
        assert [point["verified"] for point in set_["breakpoints"]] == [True] * len(lines), set_
        self.request("configurationDone")
        self.answer(attached)

    def variables(self, reference: int) -> dict[str, Message]:
        """What a scope or a value holds, by name."""
        found = self.request("variables", {"variablesReference": reference})["variables"]
        return {variable["name"]: variable for variable in found}

    def close(self) -> None:
        """Go away without a word."""
        self._stream.close()
        self._socket.close()

    def _until(self, wanted: Callable[[Message], bool]) -> Message:
        for message in self._unread:
            if wanted(message):
                self._unread.remove(message)
                return message
        end = time.monotonic() + self._within
        while time.monotonic() < end:
            message = self._receive()
            if wanted(message):
                return message
            self._unread.append(message)
        raise AssertionError(f"nothing of the kind within {self._within} s: {self._unread}")

    def _receive(self) -> Message:
        length = 0
        while line := self._stream.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        assert length, "the debugger is gone"
        message: Message = json.loads(self._stream.read(length))
        return message
