"""The parent of all workers: one loop over the control socket, which forks on demand and cleans up after.

Single-threaded, so that a fork copies no locked lock. It never sees a workspace's code or an attempt's data;
both reach the worker over its own socket.

How a worker ends: its zombie is seen first without reaping, so that its process group's number can't have
been given away when the group is killed. What it left in other groups has become our child, because worker
and zygote are subreapers; every child that is no known worker is killed until there is none. Only then is
`exited` sent.
"""

from __future__ import annotations

import array
import fcntl
import gc
import os
import select
import signal
import socket
import sys
from typing import Any, NoReturn

import weft

from . import exitcodes, preload, protocol
from .guard import Guard
from .jail import posture
from .jail.cell import Walls
from .jail.identity import Slots
from .jail.kernel import Kernel, LayerError
from .jail.landlock import Landlock
from .jail.probe import Probe
from .jail.process import Process
from .jail.seccomp import Seccomp
from .jail.world import World
from .tracebacks import ENGINE_DIR
from .worker import Order, Unread, run

_LOWEST_FD = 10
"""Descriptors of the zygote and those that it receives stay above those that a worker gives a meaning."""

_SDK = os.path.join(ENGINE_DIR, "weft")
_ANCILLARY_BYTES = socket.CMSG_SPACE(16 * 4)
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Zygote:
    """State: the control socket, known workers by pid and by id, and ends not yet reported."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._kernel = Kernel()
        self._process = Process(self._kernel)
        self._walls: Walls | None = None
        self._guard = Guard(ENGINE_DIR)
        self._pids: dict[int, int] = {}
        self._ids: dict[int, int] = {}
        self._uids: dict[int, int] = {}
        self._ended: list[dict[str, Any]] = []
        self._wakeup = -1
        self._children = "/proc/thread-self/children"
        self._buffer = memoryview(bytearray(protocol.CONTROL_BYTES))
        """The message that is being answered, and zeros otherwise: every worker has a copy of it."""

    def serve(self) -> NoReturn:
        """Answer messages until the handler closes the socket."""
        self._prepare()
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(self._wakeup, select.POLLIN)
        while True:
            ready = poll.poll()
            for fd, _ in ready:
                if fd == self._wakeup:
                    os.read(self._wakeup, 4096)
                    self._reap()
                elif not self._receive():
                    self._shut_down()

    def _prepare(self) -> None:
        self._process.rename("weft-zygote")
        os.umask(0o022)
        self._wakeup, writing = (_lift(fd) for fd in os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK))
        signal.signal(signal.SIGCHLD, _on_child)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        for number in _IGNORED:
            # A signal to the terminal's process group is meant for the handler, which decides what ends.
            signal.signal(number, signal.SIG_IGN)
        os.environ.clear()
        os.environ.update(PATH="/usr/bin:/bin", LANG="C.UTF-8")
        for stream in (sys.stdout, sys.stderr):
            # By lines, so that what a step printed is seen while it runs and kept when it is killed.
            stream.reconfigure(  # type: ignore[union-attr]
                encoding="utf-8", errors="backslashreplace", line_buffering=True
            )
        # Collections would touch, and so copy, every page that workers share with us.
        gc.disable()

    def _receive(self) -> bool:
        """One message from the handler; False at the end of the socket."""
        fds: list[int] = []
        count = 0
        try:
            try:
                count, ancillary, flags, _ = self._control.recvmsg_into(
                    (self._buffer,), _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC
                )
            except ConnectionResetError:
                return False
            for level, kind, payload in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    received = array.array("i")
                    received.frombytes(payload[: len(payload) - len(payload) % received.itemsize])
                    fds.extend(received)
            if not count:
                return False
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                _complain(
                    "a control message was cut: it has more bytes or descriptors than the protocol allows"
                )
                return True
            try:
                whole = self._buffer[:count]
                # Strings can't be wiped, so what is one worker's alone is never made into one here.
                readable, places = (whole, {}) if self._walls is None else protocol.without_names(whole)
                message = protocol.decode(readable)
            except protocol.ProtocolError as error:
                _complain(str(error))
                return True
            self._answer(message, fds, (whole, places))
            return True
        finally:
            self._buffer[:count] = bytes(count)
            for fd in fds:
                os.close(fd)

    def _answer(self, message: dict[str, Any], fds: list[int], unread: Unread) -> None:
        op = message.get("op")
        if op == "hello":
            self._greet(message)
        elif op == "fork":
            self._fork(message, fds, unread)
        elif op == "kill":
            self._kill(message.get("id"))
        else:
            _complain(f"unknown control message {op!r:.40}")

    def _greet(self, message: dict[str, Any]) -> None:
        if message.get("version") != protocol.VERSION:
            reason = (
                f"this engine speaks version {protocol.VERSION} of the runner protocol, the handler asked "
                f"for {message.get('version')!r:.20}; install handler and engine of the same release"
            )
            self._send({"op": "refused", "version": protocol.VERSION, "reason": reason})
            os._exit(exitcodes.REFUSED)
        jail = message.get("jail") or {}
        world = self._enter_world(jail)
        preload.run(message.get("preload") or (), message.get("preload_paths") or (), _complain)
        self._guard.hide()
        gc.collect()
        gc.freeze()
        self._walls, found = self._raise_walls(jail, world)
        preload.move(message.get("preload_paths") or (), self._walls.inside)
        if self._walls.home is not None:
            os.environ["HOME"] = os.environ["TMPDIR"] = self._walls.home
        version = ".".join(map(str, sys.version_info[:3]))
        self._send(
            {
                "op": "ready",
                "version": protocol.VERSION,
                "pid": os.getpid(),
                "python": version,
                "sdk": weft.__version__,
                "posture": found,
            }
        )

    def _enter_world(self, jail: dict[str, Any]) -> World:
        """The namespaces. In a process namespace we go on as another process: its first."""
        world = World(self._kernel, self._process)
        off = frozenset(jail.get("off") or ())
        hidden = [os.path.realpath(path) for path in jail.get("hide") or ()]
        world.enter(off, jail.get("scratch"), _readable(jail), hidden, [self._control.fileno()])
        for what in (
            self._process.adopt_orphans,
            lambda: self._process.set_readable(False),
            self._process.renounce_privileges,
        ):
            what()
        return world

    def _raise_walls(self, jail: dict[str, Any], world: World) -> tuple[Walls, dict[str, Any]]:
        """What workers will enter, as far as it is shown to have an effect, and the report of it."""
        kernel = self._kernel
        off = frozenset(jail.get("off") or ())
        missing = dict(world.missing)
        scratch = jail.get("scratch")
        if scratch is None:
            # Nowhere to try anything out.
            off |= {"landlock", "seccomp", "own_uid"}
        landlock = Landlock(kernel)
        if not landlock.abi or "landlock" in off:
            missing["landlock"] = landlock.reason or "switched off"
        seccomp = None
        filters = jail.get("filters") or {}
        if kernel.available and filters and "seccomp" not in off:
            seccomp = Seccomp(kernel, filters)
        else:
            missing["seccomp"] = "switched off" if "seccomp" in off else "no filter was given"
        uids = jail.get("uids")
        slots = None
        if kernel.available and os.geteuid() == 0 and uids and "own_uid" not in off:
            slots = Slots(uids["first"], uids["count"])
        else:
            missing["own_uid"] = "switched off" if "own_uid" in off else "only root can change the user"
        hidden = [os.path.realpath(path) for path in jail.get("hide") or ()]
        walls = Walls(
            kernel,
            self._process,
            world,
            None if "landlock" in missing else landlock,
            seccomp,
            slots,
            _readable(jail),
            [_SDK],
            hidden,
        )
        held: list[str] = []
        if kernel.available and scratch is not None:
            # Another zygote of the same handler may be trying at the same time.
            place = os.path.join(scratch, f"probe-{os.urandom(4).hex()}")
            probe = Probe(kernel, self._process, walls, place, os.path.join(ENGINE_DIR, "weft_runtime"), _SDK)
            held = probe.run()
            missing.update(world.missing)
            missing.update(probe.missing)
        missing.setdefault("tmpfs_quota", "it is mounted in a mount namespace, which is missing")
        missing.setdefault("network_notify", "seccomp is not in force")
        is_linux = sys.platform == "linux"
        return walls, posture.report(held, missing, is_linux=is_linux, landlock_abi=landlock.abi)

    def _fork(self, message: dict[str, Any], fds: list[int], unread: Unread) -> None:
        id = message.get("id")
        try:
            order = self._order(message, fds, unread)
            pid = self._fork_worker(order)
        except (KeyError, TypeError, ValueError, OSError, LayerError) as error:
            text = f"{type(error).__name__}: {error}"
            self._send({"op": "fork_failed", "id": id if type(id) is int else None, "error": text})
            return
        self._pids[pid] = order_id = int(message["id"])
        self._ids[order_id] = pid
        if order.cell.uid is not None:
            self._uids[pid] = order.cell.uid
        self._tell_forked(order_id, pid)

    def _fork_worker(self, order: Order) -> int:
        walls = self._walls
        if walls is None:
            raise ValueError("fork before hello")
        try:
            walls.prepare(order.cell)
            try:
                pid = os.fork()
                if pid == 0:
                    run(order, self._process, walls, self._guard)
            finally:
                walls.forked()
        except BaseException:
            if order.cell.uid is not None:
                walls.release(order.cell.uid)
            raise
        return pid

    def _tell_forked(self, id: int, pid: int) -> None:
        """With a descriptor of the process: the number means nothing to the handler where it sees another
        process namespace."""
        message = {"op": "forked", "id": id, "pid": pid}
        try:
            fd = os.pidfd_open(pid)
        except (AttributeError, OSError):
            self._send(message)
            return
        try:
            self._send(message, fd)
        finally:
            os.close(fd)

    def _order(self, message: dict[str, Any], fds: list[int], unread: Unread) -> Order:
        """Checked here, so that a worker fails only by what is the worker's."""
        if type(message["id"]) is not int or message["id"] in self._ids:
            raise ValueError(f"id {message['id']!r:.40} is no integer or in use")
        jail = message.get("jail") or {}
        # Without a filter nothing is closed, and there is nothing to ask for.
        filtered = self._walls is None or self._walls.seccomp is not None
        asks = bool(jail.get("network")) and message.get("proxy") is None and filtered
        debugged = isinstance(message.get("debug"), str)
        if len(fds) != 3 + asks + debugged:
            raise ValueError(
                f"{len(fds)} descriptors came along; attempt socket, stdout and stderr are needed"
                + (", and the socket for what connections are asked for at" if asks else "")
                + (", and the debugger's" if debugged else "")
            )
        if message["task"] not in ("attempt", "describe"):
            raise ValueError(f"unknown task {message['task']!r:.40}")
        if message["task"] == "attempt" and not isinstance(message.get("module"), str):
            raise ValueError("an attempt needs a module")
        for index, fd in enumerate(fds):
            fds[index] = _lift(fd)
        return Order(message, tuple(fds), unread)

    def _kill(self, id: Any) -> None:
        pid = self._ids.get(id) if type(id) is int else None
        if pid is not None:
            # Its own child, not reaped yet: the pid can't mean anybody else.
            _signal_group(pid)
            os.kill(pid, signal.SIGKILL)

    def _reap(self) -> None:
        while True:
            try:
                seen = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                break
            if seen is None:
                break
            pid = seen.si_pid
            if pid in self._pids:
                _signal_group(pid)
            _, status, usage = os.wait4(pid, 0)
            id = self._pids.pop(pid, None)
            if id is not None:
                del self._ids[id]
                self._release_uid(pid)
                self._ended.append(_exited(id, status, usage))
        if self._ended and not self._kill_leftovers():
            for message in self._ended:
                self._send(message)
            self._ended.clear()

    def _release_uid(self, pid: int) -> None:
        uid = self._uids.pop(pid, None)
        if uid is not None and self._walls is not None:
            self._walls.release(uid)

    def _kill_leftovers(self) -> bool:
        """Kill every child that is no worker. True if there was one: its end is another SIGCHLD, and what it
        leaves in turn is found then."""
        found = False
        for pid in self._child_pids():
            if pid not in self._pids:
                found = True
                os.kill(pid, signal.SIGKILL)
        return found

    def _child_pids(self) -> list[int]:
        if self._walls is not None and self._walls.ends_trees:
            # Nothing of a worker outlives it, so there are no others; and /proc may be of another namespace.
            return list(self._pids)
        try:
            with open(self._children, "rb", buffering=0) as file:
                # None of them can vanish meanwhile: only this thread reaps.
                return [int(pid) for pid in (file.readall() or b"").split()]
        except FileNotFoundError:
            return _children_by_scan(os.getpid())

    def _send(self, message: dict[str, Any], fd: int | None = None) -> None:
        try:
            socket.send_fds(self._control, [protocol.encode(message)], [] if fd is None else [fd])
        except (BrokenPipeError, ConnectionResetError):
            self._shut_down()

    def _shut_down(self) -> NoReturn:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for pid in self._pids:
            _signal_group(pid)
        while True:
            for pid in self._child_pids():
                _signal_group(pid)
                os.kill(pid, signal.SIGKILL)
            try:
                pid, _ = os.waitpid(-1, 0)
            except ChildProcessError:
                os._exit(exitcodes.OK)
            self._pids.pop(pid, None)


def main() -> NoReturn:
    """Take the control socket from descriptor 0 and serve it."""
    control = socket.socket(fileno=_lift(os.dup(0)))
    control.setblocking(True)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(null, 0)
    os.close(null)
    Zygote(control).serve()


def _lift(fd: int) -> int:
    """The same file under a descriptor from 10 up, close-on-exec; the given one is closed."""
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _LOWEST_FD)
    finally:
        os.close(fd)


def _readable(jail: dict[str, Any]) -> list[str]:
    """What steps may read beside the system: the interpreter, and what the handler names. Links resolved,
    nothing twice, never the root itself."""
    executable = os.path.dirname(os.path.realpath(sys.executable))
    places = (
        sys.base_prefix,
        sys.base_exec_prefix,
        sys.prefix,
        executable,
        *(jail.get("read") or ()),
    )
    found: list[str] = []
    for place in sorted({os.path.realpath(place) for place in places}, key=len):
        covered = ("/usr", *found)
        if place != "/" and not any(place == one or place.startswith(one + "/") for one in covered):
            found.append(place)
    return found


def _on_child(number: int, frame: object) -> None:
    """Only there so that the wake-up descriptor is written."""


def _signal_group(pid: int) -> None:
    """SIGKILL to the group that a worker leads; before its setsid there is none."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # PermissionError: all that is left in the group changed its user. The sweep meets it as a child.
        pass


def _exited(id: int, status: int, usage: Any) -> dict[str, Any]:
    signalled = os.WIFSIGNALED(status)
    return {
        "op": "exited",
        "id": id,
        "code": None if signalled else os.WEXITSTATUS(status),
        "signal": os.WTERMSIG(status) if signalled else None,
        "max_rss_kib": usage.ru_maxrss,
        "cpu_ms": round((usage.ru_utime + usage.ru_stime) * 1000),
    }


def _children_by_scan(parent: int) -> list[int]:
    """For kernels without the `children` file: every process whose parent we are."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", "rb") as file:
                    stat = file.read()
            except (FileNotFoundError, ProcessLookupError):
                continue
            # The command, in parentheses, may hold anything; the parent is the second field after it.
            if int(stat.rpartition(b")")[2].split()[1]) == parent:
                found.append(int(entry))
    return found


def _complain(text: str) -> None:
    """One line for the handler's log."""
    try:
        os.write(2, f"weft-zygote: {text}\n".encode("utf-8", "replace"))
    except OSError:
        pass
