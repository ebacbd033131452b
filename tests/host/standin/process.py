"""The handler process: how it is started, probed, watched and killed."""

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Mapping
from enum import Enum
from typing import IO

from .chaos import Chaos
from .console import Console
from .hostlog import HostLog
from .manifest import HandlerDescription
from .times import Times

ADDRESS = "127.0.0.1"
MAX_STRIKES = 3
RESTART_WANTED = 200


class State(Enum):
    """What the host believes about the handler."""

    STARTING = "starting"
    READY = "ready"
    EXITED_ZERO = "exited_zero"
    """Ended with code 0: the host still believes it to be up and never starts it again."""
    STOPPED = "stopped"


class HandlerUnavailableError(Exception):
    """The handler did not become ready in time, or the host has stopped."""


def free_port() -> int:
    """A port that was free a moment ago; the host has the same small race."""
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])


def split_arguments(line: str) -> list[str]:
    """How the joined argument line falls apart: at blanks, except inside double quotes."""
    words: list[str] = []
    word = ""
    quoted = started = False
    for char in line:
        if char == '"':
            quoted = not quoted
            started = True
        elif char.isspace() and not quoted:
            if started:
                words.append(word)
            word, started = "", False
        else:
            word += char
            started = True
    return [*words, word] if started else words


def environment(inherited: Mapping[str, str], port: int, worker_id: str, root: str) -> dict[str, str]:
    """All of the host's environment, and five variables on top."""
    return {
        **inherited,
        "FUNCTIONS_CUSTOMHANDLER_PORT": str(port),
        "FUNCTIONS_HTTPWORKER_PORT": str(port),
        "FUNCTIONS_CUSTOMHANDLER_WORKER_ID": worker_id,
        "FUNCTIONS_HTTPWORKER_ID": worker_id,
        "FUNCTIONS_APP_ROOT_PATH": root,
    }


class HandlerProcess:
    """Keeps one handler running by the host's rules, on one port for the host's whole life."""

    def __init__(
        self,
        description: HandlerDescription,
        root: str,
        inherited: Mapping[str, str],
        *,
        initialization_timeout: float,
        port: int | None,
        times: Times,
        log: HostLog,
        chaos: Chaos,
        on_give_up: Callable[[str], None],
    ) -> None:
        self._description = description
        self._root = root
        self._inherited = dict(inherited)
        self.initialization_timeout = initialization_timeout
        self.port = port or free_port()
        self._times = times
        self._log = log
        self._chaos = chaos
        self._on_give_up = on_give_up
        self.state = State.STARTING
        self.was_ready = False
        self.starts = 0
        self.exits: list[int] = []
        """Exit codes in order, a death by signal N as 128+N."""
        self._strikes = 0
        self._last_strike = 0.0
        self._host_kill: str | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = asyncio.Event()
        self._doom: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._supervisor: asyncio.Task[None] | None = None
        self._readers: set[asyncio.Task[None]] = set()

    @property
    def pid(self) -> int | None:
        """The running handler's process id."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    @property
    def doom(self) -> "asyncio.Future[str]":
        """Done when the host kills the handler: everything in flight at that moment is lost."""
        return self._doom

    def start(self) -> None:
        """Begin to keep the handler running."""
        self._supervisor = asyncio.create_task(self._supervise(), name="handler")

    async def wait_ready(self, timeout: float) -> None:
        """Until the host believes the handler to be up (which includes one that exited with 0)."""
        self._refuse_when_stopped()
        try:
            async with asyncio.timeout(timeout):
                await self._ready.wait()
        except TimeoutError:
            raise HandlerUnavailableError("the handler did not become ready in time") from None
        self._refuse_when_stopped()

    def _refuse_when_stopped(self) -> None:
        if self.state is State.STOPPED:
            raise HandlerUnavailableError("the host has stopped")

    def kill_and_restart(self, why: str) -> None:
        """The host's own kill (functionTimeout exceeded): not counted, all in flight is lost."""
        if self.pid is None:
            return
        self._log.error(f"killing the handler: {why}")
        self._host_kill = why
        self._ready.clear()
        self.state = State.STARTING
        doom, self._doom = self._doom, asyncio.get_running_loop().create_future()
        if not doom.done():
            doom.set_result(why)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the one pid; children are not looked after. A crash, unless the host asked for it."""
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    async def stop(self) -> None:
        """The host's end: SIGKILL, one second of waiting, no message before."""
        self.state = State.STOPPED
        self._ready.set()
        self._host_kill = "host stop"
        self.kill()
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._times.kill_wait):
                    await asyncio.to_thread(process.wait)
        if self._supervisor is not None and self._supervisor is not asyncio.current_task():
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    # The loop.

    async def _supervise(self) -> None:
        while self.state is not State.STOPPED:
            self.state = State.STARTING
            self._ready.clear()
            self._host_kill = None
            if self._chaos.start_delay:
                await asyncio.sleep(self._chaos.start_delay)
            console = Console(self._log, self._description.errors_only)
            try:
                self._spawn(console)
            except OSError as error:
                if not self._strike(f"the handler could not be started: {error}"):
                    return
                continue
            process = self._process
            assert process is not None
            exited = asyncio.create_task(asyncio.to_thread(process.wait))
            probing = asyncio.create_task(self._probe())
            done, _ = await asyncio.wait(
                {exited, probing}, timeout=self.initialization_timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if probing in done and exited not in done:
                self.state = State.READY
                self.was_ready = True
                self._ready.set()
                self._log.info(f"handler ready, pid {process.pid}, port {self.port}")
            else:
                probing.cancel()
                await asyncio.gather(probing, return_exceptions=True)
            too_slow = not done
            if too_slow:
                self.kill()
            await exited
            code = process.returncode if process.returncode >= 0 else 128 - process.returncode
            self.exits.append(code)
            if not self._after_exit(code, too_slow, console):
                return

    def _after_exit(self, code: int, too_slow: bool, console: Console) -> bool:
        """Whether the handler is to be started again."""
        if self.state is State.STOPPED:
            return False
        if self._host_kill is not None:
            self._log.info("handler killed by the host; restarting")
            return True
        if too_slow:
            return self._strike(
                f"the handler did not open its port within {self.initialization_timeout:g} seconds"
            )
        if code == 0:
            self._log.warning("handler exited with code 0; not restarted")
            self.state = State.EXITED_ZERO
            self._ready.set()
            return False
        if code == RESTART_WANTED:
            self._log.info("handler exited with code 200; restarting")
            return True
        return self._strike("; ".join([f"handler exited with code {code}", *console.last_errors]))

    def _strike(self, message: str) -> bool:
        self._log.error(message)
        now = time.monotonic()
        if now - self._last_strike > self._times.strike_window:
            self._strikes = 0
        self._strikes += 1
        self._last_strike = now
        if self._strikes < MAX_STRIKES:
            return True
        why = f"exceeded handler restart retry count ({MAX_STRIKES}); shutting down"
        self._log.error(why)
        self.state = State.STOPPED
        self._ready.set()
        self._on_give_up(why)
        return False

    def _spawn(self, console: Console) -> None:
        executable = self._description.executable
        if not os.path.isabs(executable):
            executable = shutil.which(executable, path=self._inherited.get("PATH")) or executable
        worker_id = str(uuid.uuid4())
        self.starts += 1
        self._process = subprocess.Popen(
            [executable, *split_arguments(self._description.arguments)],
            cwd=self._description.working_directory,
            env=environment(self._inherited, self.port, worker_id, self._root),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._log.info(f"handler started, pid {self._process.pid}, port {self.port}")
        for stream, sink in ((self._process.stdout, console.stdout), (self._process.stderr, console.stderr)):
            assert stream is not None
            reader = asyncio.create_task(_lines(stream, sink))
            self._readers.add(reader)
            reader.add_done_callback(self._readers.discard)

    async def _probe(self) -> None:
        """GET / until something answers: any status, and also a reset once connected, count as ready."""
        while True:
            try:
                reader, writer = await asyncio.open_connection(ADDRESS, self.port)
            except OSError:
                await asyncio.sleep(self._times.probe_interval)
                continue
            try:
                writer.write(f"GET / HTTP/1.1\r\nHost: {ADDRESS}:{self.port}\r\n\r\n".encode())
                await writer.drain()
                await reader.readline()
            except OSError:
                pass
            finally:
                writer.close()
            return


async def _lines(stream: IO[bytes], sink: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), stream)
    try:
        while True:
            try:
                line = await reader.readline()
            except ValueError:
                continue  # A line over the limit: dropped, as a log sink may.
            if not line:
                return
            text = line.decode(errors="replace").rstrip("\r\n")
            if text:
                sink(text)
    finally:
        transport.close()
