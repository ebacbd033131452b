"""The forked child: set up, import the module, receive one attempt, call the function, send the last frame.

A fork copies page tables, and each page that the child then touches costs some microseconds: more than the
work itself. So this file keeps to few and small modules: `_signal` and `_thread` are what `signal` wraps in
enums and what `threading` surrounds with hooks that run after every fork (measured: 0.9 ms).

Runs on the main thread. Nothing here returns to the zygote's code: every path ends in `os._exit`.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from _signal import (  # type: ignore[import-not-found]
    SIG_DFL,
    SIGCHLD,
    SIGHUP,
    SIGINT,
    SIGTERM,
    default_int_handler,
    set_wakeup_fd,
    signal,
)
from _thread import allocate_lock
from typing import Any, NoReturn, TypeAlias

import weft
from weft._arguments import bind
from weft._context import Context
from weft._declaration import declaration_of
from weft._errors import NotAvailable, NotFound, refusal
from weft._json import check, encode

from . import authored, exitcodes, limits, loader
from .guard import Guard
from .jail.cell import Cell, Walls
from .jail.process import Process
from .protocol import FrameSocket, HandlerGone, Places, ProtocolError, name_at
from .tracebacks import error_json, place

ATTEMPT_FD = 3
LISTENER_FD = 4
"""Where the worker hands over what its connections are asked for at; closed before any code of a
workspace."""
DEBUG_FD = 5
"""What a debugger's client says, where the attempt is debugged."""

# `inspect.CO_COROUTINE`; importing `inspect` for it would make every fork dearer.
_CO_COROUTINE = 0x80


class Link:
    """The worker's socket as `Context` sees it, and the place where frames are kept in order.

    Threads take turns by a lock. A process that the step forked has no part in it: its frames would mix
    with ours.
    """

    __slots__ = ("_calls", "_closed", "_lock", "_pid", "_socket")

    def __init__(self, socket: FrameSocket) -> None:
        self._socket = socket
        self._lock = allocate_lock()
        self._pid = os.getpid()
        self._calls = 0
        self._closed = False

    def emit(self, frame: dict[str, Any]) -> None:
        """Send a notice. After the last frame it is dropped: a thread that goes on has nobody to tell."""
        self._check_process()
        with self._lock:
            if not self._closed:
                self._guarded_send(frame)

    def call(self, name: str, args: dict[str, Any]) -> Any:
        """Ask the handler and wait. Raises a `WeftError` when it refuses."""
        self._check_process()
        check(args, name)
        with self._lock:
            if self._closed:
                raise NotAvailable(f"{name}: the attempt is over")
            self._calls += 1
            self._guarded_send({"t": "call", "id": self._calls, "name": name, "args": args})
            reply = self.receive("reply")
            if reply.get("id") != self._calls:
                leave(exitcodes.OUT_OF_ORDER, f"reply {reply.get('id')!r:.40} where {self._calls} was due")
        error = reply.get("error")
        if error is None:
            return reply.get("value")
        raise refusal(str(error.get("code")), str(error.get("message") or error.get("code")))

    def receive(self, *kinds: str) -> dict[str, Any]:
        """The next frame, which must be of one of these kinds; ends the process where it isn't."""
        try:
            frame = self._socket.receive()
        except HandlerGone:
            leave(exitcodes.HANDLER_GONE)
        except ProtocolError as error:
            leave(exitcodes.OUT_OF_ORDER, str(error))
        if frame.get("t") not in kinds:
            due = " or ".join(f"`{kind}`" for kind in kinds)
            leave(exitcodes.OUT_OF_ORDER, f"frame {frame.get('t')!r:.40} where {due} was due")
        return frame

    def send(self, frame: dict[str, Any]) -> None:
        """Send a frame of the runtime's own."""
        with self._lock:
            self._guarded_send(frame)

    def finish(self, body: bytes) -> NoReturn:
        """Send the last frame and leave. In a process that the step forked: leave without a word."""
        if os.getpid() != self._pid:
            os._exit(0)
        _flush_streams()
        # Not `with`: a thread that holds the lock waits for the handler, which answers or closes.
        self._lock.acquire()
        self._closed = True
        try:
            self._socket.send_encoded(body)
        except HandlerGone:
            os._exit(exitcodes.HANDLER_GONE)
        os._exit(exitcodes.OK)

    def _guarded_send(self, frame: dict[str, Any]) -> None:
        try:
            self._socket.send(frame)
        except HandlerGone:
            leave(exitcodes.HANDLER_GONE)

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise NotAvailable(
                "ctx can be used only in the process that the step started in; "
                "let a child process return its findings to that one, or use threads"
            )


Unread: TypeAlias = tuple[memoryview, Places]
"""The message of an order, and where the names stand in it that the worker reads itself."""


class Order:
    """A fork message with its descriptors, as the zygote hands it on: without the names that only the worker
    may have in its memory, until it reads them itself."""

    __slots__ = (
        "bundle_dir",
        "cell",
        "debug",
        "fds",
        "forked_at",
        "limits",
        "module",
        "modules",
        "paths",
        "task",
        "unread",
        "zygote",
    )

    def __init__(self, message: dict[str, Any], fds: tuple[int, ...], unread: Unread) -> None:
        self.unread = unread
        self.task: str = message["task"]
        self.module: str | None = message.get("module")
        self.bundle_dir: str = message["bundle"]["dir"]
        self.limits: dict[str, Any] = message.get("limits") or {}
        self.paths: tuple[str, ...] = tuple(message.get("paths") or ())
        jail = message.get("jail") or {}
        self.modules: dict[str, Any] = jail.get("modules") or {}
        self.cell = Cell(
            # What is not said to be trusted is not.
            trusted=jail.get("trust") == "trusted",
            network=bool(jail.get("network")),
            bundle=self.bundle_dir,
            paths=self.paths,
            scratch=message["scratch"],
            disk_bytes=self.limits.get("disk_bytes") or limits.DEFAULT_DISK_BYTES,
            disk_files=self.limits.get("disk_files") or limits.DEFAULT_DISK_FILES,
            proxy=message.get("proxy"),
        )
        debug = message.get("debug")
        self.debug: str | None = debug if isinstance(debug, str) else None
        """The workspace's folder as its developer knows it, where a debugger is to be waited for."""
        self.fds = fds
        self.zygote = os.getpid()
        self.forked_at = time.perf_counter()

    @property
    def asks(self) -> bool:
        """Whether its connections are asked for at a descriptor that it hands over."""
        return len(self.fds) == (4 if self.debug is None else 5)

    def numbers(self) -> list[int]:
        """Which numbers the descriptors get, in their order."""
        given = [ATTEMPT_FD, 1, 2]
        if self.asks:
            given.append(LISTENER_FD)
        if self.debug is not None:
            given.append(DEBUG_FD)
        return given

    def read_names(self) -> None:
        """In the worker."""
        data, places = self.unread
        if b"module" in places:
            self.module = name_at(data, places[b"module"])
        self.cell.scratch = name_at(data, places[b"scratch"])


def run(order: Order, process: Process, walls: Walls, guard: Guard) -> NoReturn:
    """All of a worker's life. Called right after the fork; never returns."""
    try:
        order.read_names()
        describe = None
        if order.task == "describe":
            # Ahead of guard and walls: it is part of the engine, and no other worker needs it.
            describe = guard.import_hidden(f"{__package__}.describe")
        debug = guard.import_hidden(f"{__package__}.debug") if order.debug is not None else None
        link = _set_up(order, process, walls)
        guard.install(order.cell.trusted, order.cell.network, order.modules)
        finder = loader.install(
            walls.inside(order.bundle_dir),
            [walls.inside(path) for path in order.paths],
            order.debug or loader.DEFAULT_ROOT_NAME,
        )
        weft.__path__ = [walls.inside(path) for path in weft.__path__]
        # As it is called outside too: what the zygote has imported knows its file by that.
        for path in order.paths:
            place(path, "packages")
            place(walls.inside(path), "packages")
        for path in (order.bundle_dir, finder.directory):
            place(path, finder.root_name)
    except BaseException as error:
        leave(exitcodes.SETUP_FAILED, f"weft: the worker's set-up failed: {type(error).__name__}: {error}")
    booted = time.perf_counter()
    boot_ms = _milliseconds(booted - order.forked_at)
    if describe is not None:
        link.send({"t": "ready", "import_ms": 0.0, "boot_ms": boot_ms})
        asked = link.receive("describe")
        finder.root_name = str(asked.get("root_name") or loader.DEFAULT_ROOT_NAME)
        place(finder.directory, finder.root_name)
        try:
            last = describe.run(finder, link.send, asked)
        except BaseException as error:
            link.finish(_failed(error, booted, None))
        link.finish(encode(last))
    try:
        module = loader.load(str(order.module))
        if _has_coroutines(module):
            # Ahead of the attempt, which would wait for the heaviest import of all otherwise.
            import asyncio  # noqa: F401
    except BaseException as error:
        link.finish(_failed(error, booted, None))
    link.send({"t": "ready", "import_ms": _milliseconds(time.perf_counter() - booted), "boot_ms": boot_ms})
    source = None
    if order.module == authored.MODULE:
        source = authored.Source(link.receive("source"))
    attempt = link.receive("attempt")
    if debug is not None:
        try:
            debug.wait_for_client(DEBUG_FD, order.debug)
        except BaseException as error:
            link.finish(_failed(error, time.perf_counter(), None))
    result_bytes = order.limits.get("result_bytes") or limits.DEFAULT_RESULT_BYTES
    body = _attempt(attempt, source or module, link, result_bytes)
    if debug is not None:
        try:
            debug.say_goodbye()
        except BaseException as error:
            # What the attempt came to is not lost for it.
            os.write(2, f"the debugger did not end well: {type(error).__name__}\n".encode())
    link.finish(body)


def leave(code: int, reason: str = "") -> NoReturn:
    """End the process at once, with a reason on stderr where there is one."""
    _flush_streams()
    if reason:
        try:
            os.write(2, (reason + "\n").encode("utf-8", "replace"))
        except OSError:
            pass
    os._exit(code)


def _set_up(order: Order, process: Process, walls: Walls) -> Link:
    """The order is the contract's; see docs/runner-protocol.md."""
    os.setsid()
    if not process.follow_parent(order.zygote):
        os._exit(exitcodes.HANDLER_GONE)
    process.rename("weft-worker")
    set_wakeup_fd(-1)
    for number in (SIGCHLD, SIGTERM, SIGHUP):
        signal(number, SIG_DFL)
    signal(SIGINT, default_int_handler)
    _move_descriptors(order.numbers(), order.fds)
    process.adopt_orphans()
    cell = order.cell
    walls.enter_files(cell)
    if cell.home != walls.home:
        # The zygote set the rest.
        os.environ["HOME"] = os.environ["TMPDIR"] = cell.home
    if cell.network:
        _name_network(cell, asked=walls.seccomp is not None)
    limits.apply(order.limits, counted_alone=walls.counts_alone(cell))
    _reseed()
    # What was made since the zygote's last collection would be collected at once: half a millisecond of
    # copied pages.
    gc.freeze()
    gc.enable()
    walls.enter_landlock(cell)
    last = LISTENER_FD if order.asks else ATTEMPT_FD
    if order.debug is None:
        os.closerange(last + 1, limits.highest_descriptor())
    else:
        os.closerange(last + 1, DEBUG_FD)
        os.closerange(DEBUG_FD + 1, limits.highest_descriptor())
    walls.enter_seccomp(cell, LISTENER_FD)
    # Closed by then, unless there is no filter to ask.
    os.closerange(LISTENER_FD, LISTENER_FD + 1)
    return Link(FrameSocket(ATTEMPT_FD, order.limits.get("frame_bytes") or limits.DEFAULT_FRAME_BYTES))


def _name_network(cell: Cell, *, asked: bool) -> None:
    if asked:
        # Names are asked for over a connection, because only connections are answered.
        os.environ["RES_OPTIONS"] = "use-vc"
    if cell.proxy is not None:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            os.environ[name] = cell.proxy


def _move_descriptors(numbers: list[int], fds: tuple[int, ...]) -> None:
    """Standard input is /dev/null already. All are above 9, so that none is overwritten unread."""
    for number, fd in zip(numbers, fds, strict=True):
        os.dup2(fd, number, inheritable=number in (1, 2))
        # Non-blocking mode belongs to the open file, so the handler's way of making it may have set it.
        os.set_blocking(number, True)


def _reseed() -> None:
    """The standard library's generator seeds itself after a fork; NumPy's global one doesn't."""
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed(int.from_bytes(os.urandom(4), "big"))


def _seed(run: dict[str, Any]) -> None:
    """Random numbers begin with what is recorded of the attempt, so that it can be made again as it was."""
    seed = run.get("seed")
    random = sys.modules.get("random")
    if random is not None and isinstance(seed, int):
        random.seed(seed)
    numpy = sys.modules.get("numpy.random")
    if numpy is not None and isinstance(seed, int):
        numpy.seed(seed & 0xFFFFFFFF)


def _attempt(attempt: dict[str, Any], code: Any, link: Link, result_bytes: int) -> bytes:
    context = Context(attempt.get("context") or {}, link)
    started = time.perf_counter()
    try:
        nice = attempt.get("nice")
        if nice is not None:
            os.setpriority(os.PRIO_PROCESS, 0, int(nice))
        function, positional, named = _prepare(attempt, code, context)
        _seed((attempt.get("context") or {}).get("run") or {})
        started = time.perf_counter()
        value = function(*positional, **named)
        if hasattr(value, "__await__"):
            value = _wait_for(value)
        user_ms = _milliseconds(time.perf_counter() - started)
        return _succeeded(value, user_ms, context, result_bytes)
    except BaseException as error:
        return _failed(error, started, context)


def _prepare(attempt: dict[str, Any], code: Any, context: Context) -> tuple[Any, list[Any], dict[str, Any]]:
    if isinstance(code, authored.Source):
        return _prepare_authored(attempt, code, context)
    module = code
    entry = attempt.get("entry") or {}
    name = str(entry.get("function"))
    function = getattr(module, name, None)
    declaration = declaration_of(function)
    if declaration is None or declaration.kind != entry.get("kind"):
        kind = str(entry.get("kind")).replace("_", " ")
        raise NotFound(
            f"module {module.__name__} has no {kind} function `{name}`; it may have been renamed since it "
            "was described: check the workspace again"
        )
    resolved = declaration.resolve()
    arguments = bind(resolved, attempt.get("arguments") or {})
    return function, [context] if resolved.takes_context else [], arguments


def _prepare_authored(
    attempt: dict[str, Any], source: authored.Source, context: Context
) -> tuple[Any, list[Any], dict[str, Any]]:
    """Code of the node library. Here it runs for the first time: behind guard, walls and limits."""
    arguments = attempt.get("arguments") or {}
    if (attempt.get("entry") or {}).get("kind") == "check":
        return authored.check, [source, arguments], {}
    function = authored.function_of(authored.load(source))
    return function, [context, arguments.get("inputs") or {}, arguments.get("settings") or {}], {}


def _has_coroutines(module: Any) -> bool:
    codes = (getattr(value, "__code__", None) for value in vars(module).values())
    return any(getattr(code, "co_flags", 0) & _CO_COROUTINE for code in codes)


def _wait_for(awaitable: Any) -> Any:
    # Not at the top: it is the heaviest import of all, and most steps are plain functions. The operator's
    # preload list can put it into the zygote.
    import asyncio

    async def until_done() -> Any:
        return await awaitable

    return asyncio.run(until_done())


def _succeeded(value: Any, user_ms: float, context: Context, result_bytes: int) -> bytes:
    try:
        size = check(value, "result")
    except (TypeError, ValueError) as error:
        return _refused("ResultNotJson", str(error), user_ms, context)
    at_least = "at least "
    if size <= result_bytes:
        encoded = encode(value)
        size = len(encoded)
        at_least = ""
        if size <= result_bytes:
            return b'{"t":"succeeded","value":%b,"user_ms":%b,"variables":%b}' % (
                encoded,
                encode(user_ms),
                encode(context.variables.to_json()),
            )
    return _refused(
        "ResultTooLarge",
        f"the result has {at_least}{size} bytes as JSON; the limit is {result_bytes}: return less, such as a "
        "summary, ids or a page of the data, or write it to storage of your own and return where it is",
        user_ms,
        context,
    )


def _refused(kind: str, message: str, user_ms: float, context: Context) -> bytes:
    error = {"type": kind, "message": message, "traceback": "", "retriable": False, "data": None}
    return encode(
        {"t": "failed", "error": error, "user_ms": user_ms, "variables": context.variables.to_json()}
    )


def _failed(error: BaseException, started: float, context: Context | None) -> bytes:
    user_ms = _milliseconds(time.perf_counter() - started)
    variables = context.variables.to_json() if context is not None else {}
    return encode({"t": "failed", "error": error_json(error), "user_ms": user_ms, "variables": variables})


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BaseException:
            # Closed or replaced by user code, or nobody reads any more. A result is not lost for it.
            pass


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 3)
