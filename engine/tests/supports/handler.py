"""The handler's end of the runner protocol, as small as tests need it: starts a real zygote, forks workers,
speaks frames. Every wait has a deadline, so that a broken engine fails a test and hangs none."""

from __future__ import annotations

import array
import base64
import json
import os
import platform
import select
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ENGINE_DIR = Path(__file__).resolve().parents[2]
START = "import sys; sys.path.insert(0, sys.argv[1]); from weft_runtime.__main__ import main; main()"
FILTERS = ENGINE_DIR.parent / "tests" / "golden" / "jail"
UIDS = {"first": 60_710, "count": 64}
KERNEL_LAYERS = [
    "user_namespace",
    "mount_namespace",
    "pid_namespace",
    "network_namespace",
    "ipc_namespace",
    "own_uid",
    "landlock",
    "seccomp",
]
"""What can be switched off, to see what the runtime does by itself."""
PATIENCE_SECONDS = 60
LIMITS = {
    "memory_bytes": 512 * 1024 * 1024,
    "cpu_seconds": 60,
    "open_files": 256,
    "processes": 4096,
    "threads": 4096,
    "disk_files": 8192,
    "disk_bytes": 64 * 1024 * 1024,
    "result_bytes": 1024 * 1024,
    "frame_bytes": 1024 * 1024 + 64 * 1024,
}
CONTEXT = {
    "organization": {"id": "contoso", "name": "Contoso Ltd"},
    "caller": {"kind": "service", "id": "key:dev", "name": "weft-dev", "claimed_user": "ann"},
    "run": {
        "id": "run_1",
        "workflow": "hello",
        "attempt": 1,
        "attempt_id": "att_1",
        "step": "main",
        "idempotency_key": "key-1",
        "started_at": "2026-11-21T00:00:00Z",
        "deadline": "2126-11-21T00:05:00Z",
        "test": False,
    },
    "config": {"greeting": "Hello"},
}


class Worker:
    """One forked worker: its socket, what it printed, its frames."""

    def __init__(
        self, id: int, pid: int, sock: socket.socket, stdout: int, stderr: int, scratch: str
    ) -> None:
        self.id = id
        self.pid = pid
        self.sock = sock
        self.scratch = scratch
        self.streams = {stdout: bytearray(), stderr: bytearray()}
        self._stdout = stdout
        self._stderr = stderr
        self._open = set(self.streams)
        self._buffer = bytearray()
        self._eof = False
        self.printed_bytes = 0
        self.keep_bytes = 1 << 20

    @property
    def stdout(self) -> str:
        return self.streams[self._stdout].decode()

    @property
    def stderr(self) -> str:
        return self.streams[self._stderr].decode()

    def send(self, frame: dict[str, Any]) -> None:
        self.send_bytes(json.dumps(frame).encode())

    def send_bytes(self, body: bytes) -> None:
        self.sock.sendall(len(body).to_bytes(4, "big") + body)

    def frame(self) -> dict[str, Any] | None:
        """The next frame; None at the end of the socket."""
        while not self._eof and not self._complete():
            self._pump()
        if not self._complete():
            return None
        length = int.from_bytes(self._buffer[:4], "big")
        frame: dict[str, Any] = json.loads(bytes(self._buffer[4 : 4 + length]))
        del self._buffer[: 4 + length]
        return frame

    def frames(self) -> list[dict[str, Any]]:
        """All frames up to the end of the socket."""
        found = []
        while (frame := self.frame()) is not None:
            found.append(frame)
        return found

    def drain(self) -> None:
        """Read both pipes to their end."""
        while self._open:
            self._pump()

    def wait_for_output(self, text: str) -> None:
        """Until the worker has printed it."""
        while text not in self.stdout:
            if not self._open:
                raise AssertionError(f"{text!r} was never printed; stderr: {self.stderr}")
            self._pump()

    def close(self) -> None:
        self.sock.close()
        for fd in self.streams:
            os.close(fd)

    def _complete(self) -> bool:
        return len(self._buffer) >= 4 and len(self._buffer) >= 4 + int.from_bytes(self._buffer[:4], "big")

    def _pump(self) -> None:
        wanted: list[Any] = list(self._open) + ([] if self._eof else [self.sock])
        ready, _, _ = select.select(wanted, [], [], PATIENCE_SECONDS)
        if not ready:
            raise TimeoutError(f"worker {self.id} is silent; stderr: {self.stderr}")
        for source in ready:
            if source is self.sock:
                try:
                    data = self.sock.recv(1 << 16)
                except ConnectionResetError:
                    data = b""
                self._buffer += data
                self._eof = not data
            else:
                data = os.read(source, 1 << 16)
                self.printed_bytes += len(data)
                if len(self.streams[source]) < self.keep_bytes:
                    self.streams[source] += data
                if not data:
                    self._open.discard(source)


class Handler:
    """A zygote and the control socket to it."""

    def __init__(
        self,
        *,
        preload: tuple[str, ...] = (),
        preload_paths: tuple[str, ...] = (),
        python: str = sys.executable,
        hello: bool = True,
        jail: dict[str, Any] | None = None,
    ) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(PATIENCE_SECONDS)
        self.errors = tempfile.TemporaryFile()
        self.scratch = tempfile.TemporaryDirectory(prefix="weft-test-")
        # Other users get to what is theirs in it, and see nothing else.
        os.chmod(self.scratch.name, 0o711)
        self.process = subprocess.Popen(
            [os.path.realpath(python), "-I", "-S", "-B", "-c", START, str(ENGINE_DIR), "zygote"],
            stdin=theirs,
            stdout=subprocess.DEVNULL,
            stderr=self.errors,
            env={},
            cwd="/",
        )
        theirs.close()
        self._last_id = 0
        self._waiting: list[dict[str, Any]] = []
        self.workers: list[Worker] = []
        self.ready: dict[str, Any] = {}
        if hello:
            walls = {"scratch": self.scratch.name, "uids": UIDS, "filters": filters(), **(jail or {})}
            imports = {"preload": list(preload), "preload_paths": list(preload_paths)}
            self.say({"op": "hello", "version": 1, **imports, "jail": walls})
            self.ready = self.hear("ready")

    def __enter__(self) -> Handler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def say(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        self.say_bytes(json.dumps(message).encode(), fds)

    def say_bytes(self, data: bytes, fds: tuple[int, ...] = ()) -> None:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.control.sendmsg([data], rights)

    def hear(self, op: str, id: int | None = None) -> dict[str, Any]:
        """The next message of that kind (and id); others wait their turn."""

        def wanted(message: dict[str, Any]) -> bool:
            return message["op"] == op and (id is None or message.get("id") == id)

        for message in self._waiting:
            if wanted(message):
                self._waiting.remove(message)
                return message
        while True:
            data, fds, _, _ = socket.recv_fds(self.control, 1 << 16, 1)
            if not data:
                raise AssertionError(f"the zygote is gone; it wrote: {self.complaints()}")
            message: dict[str, Any] = json.loads(data)
            for fd in fds:
                message["pid"] = _pid_of(fd)
                os.close(fd)
            if wanted(message):
                return message
            self._waiting.append(message)

    def fork(
        self, bundle: Path | str, module: str | None, *, extra_fds: tuple[int, ...] = (), **changes: Any
    ) -> Worker:
        """Ask for a worker and wait for `forked`."""
        self._last_id += 1
        id = self._last_id
        ours, theirs = socket.socketpair()
        # As an asynchronous handler makes it.
        theirs.setblocking(False)
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        scratch = os.path.join(self.scratch.name, f"w{id}")
        limits = {**LIMITS, **changes.pop("limits", {})}
        message = {
            "op": "fork",
            "id": id,
            "task": "attempt" if module else "describe",
            "bundle": {"digest": "sha256:0", "dir": str(bundle)},
            "module": module,
            "scratch": scratch,
            "limits": limits,
            "jail": {"trust": "trusted", "network": False},
            **changes,
        }
        self.say(message, (theirs.fileno(), out_write, err_write, *extra_fds))
        theirs.close()
        os.close(out_write)
        os.close(err_write)
        pid = self.hear("forked", id)["pid"]
        worker = Worker(id, pid, ours, out_read, err_read, scratch)
        self.workers.append(worker)
        return worker

    def attempt(
        self,
        bundle: Path | str,
        module: str,
        function: str,
        arguments: dict[str, Any] | None = None,
        *,
        kind: str = "workflow",
        source: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Result:
        """A whole life: fork, attempt, last frame, `exited`. Calls are answered with null."""
        context = {**CONTEXT, **changes.pop("context", {})}
        worker = self.fork(bundle, module, **changes)
        frames = []
        while (frame := worker.frame()) is not None:
            frames.append(frame)
            if frame["t"] == "ready":
                if source is not None:
                    worker.send({"t": "source", **source})
                entry = {"kind": kind, "name": function, "function": function}
                worker.send(
                    {"t": "attempt", "entry": entry, "arguments": arguments or {}, "context": context}
                )
            elif frame["t"] == "call":
                worker.send({"t": "reply", "id": frame["id"], "value": None})
        exited = self.hear("exited", worker.id)
        worker.drain()
        return Result(worker, frames, exited)

    def describe(
        self,
        bundle: Path | str,
        root_name: str = "workspace",
        *,
        resume: dict[str, Any] | None = None,
        **changes: Any,
    ) -> list[dict[str, Any]]:
        """All frames of a `describe` worker after `ready`."""
        worker = self.fork(bundle, None, **changes)
        ready = worker.frame()
        assert ready is not None and ready["t"] == "ready", (ready, worker.stderr)
        worker.send({"t": "describe", "root_name": root_name, "resume": resume})
        frames = worker.frames()
        self.hear("exited", worker.id)
        return frames

    def complaints(self) -> str:
        """What the zygote wrote to its log."""
        self.errors.seek(0)
        return self.errors.read().decode()

    def close(self) -> int:
        """Close the control socket; the zygote's exit code."""
        self.control.close()
        code: int = self.process.wait(PATIENCE_SECONDS)
        for worker in self.workers:
            worker.close()
        self.workers.clear()
        self.errors.close()
        self.scratch.cleanup()
        return code


class Result:
    """How an attempt ended: `last` is its last frame (or None), `exited` the zygote's message."""

    def __init__(self, worker: Worker, frames: list[dict[str, Any]], exited: dict[str, Any]) -> None:
        self.worker = worker
        self.frames = frames
        self.exited = exited
        self.last = frames[-1] if frames and frames[-1]["t"] in ("succeeded", "failed") else None

    @property
    def value(self) -> Any:
        assert self.last is not None and self.last["t"] == "succeeded", (
            self.last,
            self.exited,
            self.worker.stderr,
        )
        return self.last["value"]

    @property
    def error(self) -> dict[str, Any]:
        assert self.last is not None and self.last["t"] == "failed", (
            self.last,
            self.exited,
            self.worker.stderr,
        )
        found: dict[str, Any] = self.last["error"]
        return found

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [frame for frame in self.frames if frame["t"] == kind]


def filters() -> dict[str, str]:
    """The programs that the handler compiles, as it sends them."""
    machine = platform.machine()
    return {
        path.stem.removeprefix(f"{machine}-"): base64.b64encode(path.read_bytes()).decode()
        for path in FILTERS.glob(f"{machine}-*.bpf")
    }


def _pid_of(pidfd: int) -> int:
    """The process as we number it; the zygote may be in another process namespace."""
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    raise AssertionError("no process descriptor")


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def wait_gone(pid: int) -> bool:
    """Wait until a process that isn't our child is gone."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    try:
        watcher = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        ready, _, _ = select.select([watcher], [], [], max(0.0, deadline - time.monotonic()))
        return bool(ready)
    finally:
        os.close(watcher)
