"""The real program in processes of its own: start it, call it, end it, and see that nothing of it is left.

Processes get a clean environment, and output goes to files, so that a test can look at every byte of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
WORKSPACE = HERE / "workspace"
KEY = "weft-dev-key"
DEFAULT = {"x-functions-key": KEY, "X-Organization-Id": "contoso"}
OWN_FILES = "user_namespace,mount_namespace,own_uid,landlock"
"""For `WEFT_ISOLATION_OFF`: what keeps a step from leaving a mark in a file of the test."""
OWN_PROCESSES = "pid_namespace"
"""And what gives it other process numbers than the machine's, and makes it the first of them."""
TERMINAL = frozenset({"succeeded", "failed", "cancelled", "timed_out", "skipped"})
_PR_SET_CHILD_SUBREAPER = 36
_INTERVAL = 0.02

T = TypeVar("T")


def until(probe: Callable[[], T | None], what: str, within: float = 20.0) -> T:
    """The one way to wait: the first true value of ``probe``. A connection that fails counts as "not yet"."""
    end = time.monotonic() + within
    while True:
        last: object
        try:
            value = probe()
            if value:
                return value
            last = value
        except OSError as error:
            last = error
        assert time.monotonic() < end, f"{what}: not within {within:g} s (last: {last!r})"
        time.sleep(_INTERVAL)


def program() -> Path:
    """``WEFT_BINARY``, else what cargo has built."""
    named = os.environ.get("WEFT_BINARY")
    found = Path(named).resolve() if named else REPOSITORY / "target" / "debug" / "weft"
    assert found.is_file(), f"{found} is missing: run `cargo build`, or name the program in WEFT_BINARY"
    return found


def clean_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a process gets: nothing of the machine's own settings but the four that every program needs."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    python = os.environ.get("WEFT_PYTHON")
    own = {"XDG_CONFIG_HOME": "/nowhere"}
    return {**own, **kept, **({"WEFT_PYTHON": python} if python else {}), **(more or {})}


@dataclass(frozen=True)
class Process:
    """A process; its start time tells it from a later one with the same id."""

    pid: int
    started: int
    parent: int
    name: str
    state: str

    @property
    def alive(self) -> bool:
        """Whether it still runs (a zombie does not)."""
        now = _process(self.pid)
        return now is not None and now.started == self.started and now.state not in "ZX"


def _process(pid: int) -> Process | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    head, _, tail = text.rpartition(")")
    fields = tail.split()
    return Process(pid, int(fields[19]), int(fields[1]), head.partition("(")[2], fields[0])


def processes() -> list[Process]:
    """All that there are."""
    return [found for name in os.listdir("/proc") if name.isdigit() and (found := _process(int(name)))]


def descendants(pid: int) -> list[Process]:
    """Everything below a process, nearest first."""
    everything, parents = processes(), {pid}
    below: list[Process] = []
    while True:
        more = [process for process in everything if process.parent in parents and process not in below]
        if not more:
            return below
        below += more
        parents = {process.pid for process in more}


def adopt_orphans() -> None:
    """Make this process the parent of what Weft leaves behind, so that it is found."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, read whole."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    seconds: float

    @property
    def json(self) -> Any:
        """The body as JSON; the text is shown when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise AssertionError(f"{self.status}, not JSON: {self.body[:500]!r}") from None

    def __str__(self) -> str:
        return f"{self.status} {self.body[:2000].decode(errors='replace')}"


def problem(
    answer: Answer,
    status: int,
    code: str,
    *,
    hint: str | None = "",
    detail: str = "",
    retriable: bool = False,
    errors: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """An answer that is a problem of RFC 9457, complete, and as expected. ``hint`` and ``detail`` are patterns that
    must be found; no hint is None. ``errors`` maps pointers to codes, all of them."""
    assert answer.status == status, answer
    assert answer.headers["Content-Type"] == "application/problem+json", answer
    assert answer.headers["Cache-Control"] == "no-store", answer
    body: dict[str, Any] = answer.json
    assert (body["code"], body["status"], body["retriable"]) == (code, status, retriable), answer
    assert body["type"] == f"/docs/errors/{code}", answer
    assert body["title"], answer
    assert body["detail"], answer
    assert body["requestId"] == answer.headers["X-Request-Id"], answer
    assert (answer.headers["Retry-After"] is not None) == retriable, dict(answer.headers)
    assert (answer.headers["WWW-Authenticate"] is not None) == (status == 401), dict(answer.headers)
    assert re.search(detail, body["detail"]), answer
    if hint is None:
        assert "hint" not in body, answer
    else:
        assert re.search(hint, body["hint"]), answer
    found = {item["pointer"]: item["code"] for item in body.get("errors", [])}
    assert found == dict(errors or {}), answer
    # Neither our own sources nor a stack are anybody's business.
    for inside in (b"src/", b"panicked", b"rusqlite", b"backtrace"):
        assert inside not in answer.body, answer
    return body


def send(
    base: str,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: Any = None,
    timeout: float = 60,
) -> Answer:
    """One request; ``target`` goes on the wire as it is. A body that is not bytes is sent as JSON."""
    parts = urllib.parse.urlsplit(base)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    sent = dict(headers or {})
    data = body
    if body is not None and not isinstance(body, bytes):
        data = json.dumps(body).encode()
        sent.setdefault("Content-Type", "application/json")
    begun = time.monotonic()
    try:
        connection.request(method, target, body=data, headers=sent)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read(), time.monotonic() - begun)
    except http.client.HTTPException as error:
        raise ConnectionError(repr(error)) from error
    finally:
        connection.close()


class Weft:
    """A `weft dev`."""

    #: Those that run, whose processes are not left-overs.
    running: ClassVar[set[int]] = set()

    def __init__(
        self,
        folder: Path,
        *,
        workspace: Path = WORKSPACE,
        environment: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        port: int = 0,
    ) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.workspace = workspace
        self.environment = dict(environment or {})
        self.arguments = list(arguments)
        self.port = port
        self.url = ""
        self.starts = 0
        self.stdout = self.stderr = folder / "not-started"
        self.process: subprocess.Popen[bytes] | None = None
        self._seen: set[Process] = set()

    # Life.

    def command(self) -> list[str | Path]:
        """What is started."""
        command: list[str | Path] = [program(), "dev", "--port", str(self.port), "--data", self.data]
        return [*command, "--workspace", self.workspace, *self.arguments]

    def launch(self) -> None:
        """Start it and wait for nothing."""
        assert self.process is None
        self.starts += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        self.stdout = self.folder / f"stdout-{self.starts}"
        self.stderr = self.folder / f"stderr-{self.starts}"
        command = self.command()
        with self.stdout.open("wb") as out, self.stderr.open("wb") as err:
            # A group of its own: a Ctrl-C at the terminal of the tests is theirs.
            self.process = subprocess.Popen(
                command,
                env=clean_environment(self.environment),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                process_group=0,
            )
        Weft.running.add(self.process.pid)
        self._seen = set()

    def start(self, within: float = 30.0) -> Weft:
        """Start it and wait for its `ready` line."""
        self.launch()

        def ready() -> str | None:
            assert self.process is not None
            lines = self.stdout.read_text().splitlines()
            line = next((line for line in lines if line.startswith("ready http://")), None)
            assert line or self.process.poll() is None, f"it ended: {self.process.returncode}\n{self.said()}"
            return line

        self.url = until(ready, "the ready line", within).removeprefix("ready ")
        return self

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.process is not None
        return self.process.pid

    def tree(self) -> list[Process]:
        """All processes below it."""
        found = descendants(self.pid)
        self._seen.update(found)
        return found

    def named(self, name: str) -> list[Process]:
        """Those that run below it, or have left it, and call themselves so: their numbers in a jail are not ours."""
        orphans = [process for process in processes() if process.parent == os.getpid()]
        found = {process for process in [*self.tree(), *orphans] if process.name == name}
        return [process for process in found if process.state not in "ZX"]

    def kill(self, number: int) -> None:
        """Send it a signal; what it had started is remembered."""
        self.tree()
        os.kill(self.pid, number)

    def wait(self, within: float = 15.0) -> int:
        """Its exit status, when nothing of it is left."""
        assert self.process is not None
        try:
            status = self.process.wait(within)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"it did not end within {within:g} s\n{self.said()}") from None
        finally:
            Weft.running.discard(self.process.pid)
            self.process = None
        until(lambda: not self.left(), "no process is left", 5)
        return status

    def stop(self, number: int = signal.SIGTERM, within: float = 15.0) -> int:
        """End it as a person would."""
        self.kill(number)
        return self.wait(within)

    def left(self) -> list[Process]:
        """Processes of it that outlived it: known ones, and orphans of its kind that nobody else owns."""
        here = os.getpid()
        known = {(process.pid, process.started) for process in self._seen}
        return [
            process
            for process in processes()
            if process.state not in "ZX"
            and (
                (process.pid, process.started) in known
                or (
                    process.parent == here
                    and process.name.startswith("weft")
                    and process.pid not in Weft.running
                )
            )
        ]

    def said(self) -> str:
        """Everything that it has written to stdout and stderr since its first start."""
        files = sorted([*self.folder.glob("stdout-*"), *self.folder.glob("stderr-*")])
        return "".join(f"--- {file.name}\n{file.read_text(errors='replace')}\n" for file in files)

    # Calls.

    def call(
        self, method: str, target: str, body: Any = None, *, timeout: float = 60, **headers: Any
    ) -> Answer:
        """A request below ``/api`` with the development key for contoso. ``X_Some_Header=None`` leaves one out."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        lower = {name.lower() for name in named}
        merged = {name: value for name, value in DEFAULT.items() if name.lower() not in lower} | named
        sent = {name: value for name, value in merged.items() if value is not None}
        return send(self.url, method, f"/api{target}", headers=sent, body=body, timeout=timeout)

    def get(self, target: str, **headers: Any) -> Any:
        """A GET that is expected to work."""
        answer = self.call("GET", target, **headers)
        assert answer.status == 200, answer
        return answer.json

    def execute(self, workflow: str, arguments: Any = None, **headers: Any) -> Answer:
        """Ask for a run."""
        return self.call("POST", f"/workflows/{workflow}/execute", arguments or {}, **headers)

    def run(self, workflow: str, arguments: Any = None, **headers: Any) -> Any:
        """A run to its end, whichever."""
        answer = self.execute(workflow, arguments, **headers)
        assert answer.status == 200, answer
        return answer.json

    def begin(self, workflow: str, arguments: Any = None, **headers: Any) -> str:
        """Start a run without waiting for it; its id."""
        answer = self.execute(workflow, arguments, Prefer="respond-async", **headers)
        assert answer.status == 202, answer
        run: str = answer.json["runId"]
        assert answer.headers["Location"] == f"/api/runs/{run}", dict(answer.headers)
        return run

    def ended(self, run: str, within: float = 20.0, **headers: Any) -> Any:
        """A run that has ended."""

        def probe() -> Any:
            answer = self.call("GET", f"/runs/{run}", **headers)
            if answer.status == 503:
                return None
            assert answer.status == 200, answer
            return answer.json if answer.json["status"] in TERMINAL else None

        return until(probe, f"the end of run {run}", within)

    def log(self, run: str) -> list[dict[str, Any]]:
        """All lines of a run's log so far."""
        lines: list[dict[str, Any]] = []
        after = ""
        while True:
            page = self.get(f"/runs/{run}/logs?after={after}")
            lines += page["items"]
            if not page["items"]:
                return lines
            after = page["nextCursor"]

    def audit(self, query: str = "", **headers: Any) -> list[dict[str, Any]]:
        """The newest audit records of the organization."""
        items: list[dict[str, Any]] = self.get(f"/audit?limit=200{query}", **headers)["items"]
        return items

    def lives(self) -> None:
        """That it still does its work."""
        done = self.run("echo", {"value": "still here"})
        assert (done["status"], done["result"]["value"]) == ("succeeded", "still here"), done


class Handler(Weft):
    """A `weft serve` over the data of a `weft dev` that has run: a second instance of the same installation."""

    def __init__(self, folder: Path, beside: Weft) -> None:
        super().__init__(folder, workspace=beside.workspace, port=free_port())
        self.data = beside.data
        self.url = f"http://127.0.0.1:{self.port}"
        self.environment = {
            **beside.environment,
            "WEFT_ENVIRONMENT": "development",
            "WEFT_STORE": "sqlite",
            "WEFT_DATA": str(beside.data),
            "WEFT_WORKSPACE": str(beside.workspace),
            "WEFT_SCRATCH": str(folder / "scratch"),
            "WEFT_PORT": str(self.port),
        }

    def command(self) -> list[str | Path]:
        return [program(), "serve"]

    def start(self, within: float = 30.0) -> Weft:
        self.launch()
        until(lambda: self.call("GET", "/ready").status == 200, "it is ready", within)
        return self


class Listener:
    """Somebody who listens to a run's events, in a thread, and remembers them."""

    def __init__(self, one: Weft, run: str, last: str | None = None, query: str = "") -> None:
        self.events: list[dict[str, Any]] = []
        self.last = last
        self.end: dict[str, Any] | None = None
        self.status = 0
        parts = urllib.parse.urlsplit(one.url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        headers = {**DEFAULT, "Accept": "text/event-stream"}
        if last is not None:
            headers["Last-Event-ID"] = last
        self._connection.request("GET", f"/api/runs/{run}/events{query}", headers=headers)
        # A response that is the connection's last takes it along.
        self._socket = self._connection.sock
        self._response = self._connection.getresponse()
        self.status = self._response.status
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        block: dict[str, str] = {}
        # A connection that breaks is what these tests are about.
        with contextlib.suppress(OSError, http.client.HTTPException):
            while line := self._response.readline():
                if text := line.decode().rstrip("\n"):
                    name, _, value = text.partition(":")
                    block[name] = value.removeprefix(" ")
                    continue
                self._hear(block)
                block = {}

    def _hear(self, block: dict[str, str]) -> None:
        # An event that is not whole is not heard, and its id not remembered.
        self.last = block.get("id", self.last)
        if "data" not in block:
            return
        data = json.loads(block["data"])
        if block.get("event") == "end":
            self.end = data
        else:
            assert "event" not in block, block
            assert data["id"] == block["id"]
            self.events.append(data)

    def wait(self, within: float = 20.0) -> list[dict[str, Any]]:
        """Everything, when the connection has ended."""
        self._thread.join(within)
        assert not self._thread.is_alive(), "the stream goes on"
        self.close()
        return self.events

    def close(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._response.close()
        self._connection.close()


def everything(one: Weft, run: str, after: str = "") -> list[dict[str, Any]]:
    """All events of a run that has ended, or those behind ``after``, by long polls."""
    events: list[dict[str, Any]] = []
    while True:
        page = one.get(f"/runs/{run}/events?wait=20&after={after}")
        events += page["items"]
        after = page["nextCursor"]
        if page["ended"]:
            return events


def streams(events: list[dict[str, Any]]) -> dict[tuple[Any, ...], list[str]]:
    """The history, and the log of each attempt: what has an order of its own."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for event in events:
        told = {name: value for name, value in event.items() if name != "id"}
        is_said = event["type"] in ("log", "checkpoint")
        item = [event["item"]] if "item" in event else []
        key = (event["step"], event["attempt"], *item) if is_said else ()
        found.setdefault(key, []).append(json.dumps(told, sort_keys=True))
    return found


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Its data."""
        return json.loads(self.stdout)


def weft(
    *arguments: str | Path,
    environment: Mapping[str, str] | None = None,
    within: float = 60,
    at: Path | None = None,
) -> Done:
    """A command of the program, in a folder of its own or `at` one."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [program(), *arguments],
            env=clean_environment(environment),
            cwd=at or folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=within,
            check=False,
        )
    assert "panicked" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


def copy_workspace(target: Path) -> Path:
    """A workspace of its own for a test that changes it."""
    return Path(shutil.copytree(WORKSPACE, target, ignore=shutil.ignore_patterns("__pycache__")))


@contextlib.contextmanager
def weft_at(folder: Path, **more: Any) -> Iterator[Weft]:
    """A Weft for a block; nothing of it is left afterwards, and it has not panicked."""
    one = Weft(folder, **more)
    try:
        yield one
    except BaseException:
        print(one.said()[-8000:])
        raise
    finally:
        if one.process is not None:
            one.stop(signal.SIGKILL if one.process.poll() is not None else signal.SIGTERM)
    assert "panicked" not in one.said(), one.said()
