"""Which layers have an effect here. A child enters the very walls that workers get, and then tries what they
are to prevent; a layer that can't be entered, or prevents nothing, is left out, said to be missing, and the
rest is tried again.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import select
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from .cell import Cell, Walls
from .kernel import Kernel, LayerError
from .process import Process
from .root import PROBE

_PATIENCE_SECONDS = 10
_QUOTA_BYTES = 256 * 1024
_NO_LAYER = "walls"
_FILTER_IS_NEXT = b"filter"
"""Said by the probe, which then answers, unless it is the filter that keeps it from that."""
_PTRACE_TRACEME = 0

_NOTIFICATION_BYTES = 80
_RECEIVE = 0xC0502100
_SEND = 0xC0182101
"""SECCOMP_IOCTL_NOTIF_RECV and _SEND, with structures of 80 and 24 bytes."""
_ANSWER = errno.EXDEV
"""What no kernel answers to connect(): seen by the caller only if the notification was answered."""

_Answer = tuple[list[str], dict[str, str], str | None, str]
"""Layers that held; layers without an effect, and why; the layer to leave out, and why."""


class Probe:
    """Tries the walls out until what is left holds."""

    def __init__(
        self, kernel: Kernel, process: Process, walls: Walls, scratch: str, outside: str, bundle: str
    ) -> None:
        """`outside`: a file that every user may read, and no worker; `bundle`: a folder to stand for one."""
        self._kernel = kernel
        self._process = process
        self._walls = walls
        self._scratch = scratch
        self._outside = outside
        self._bundle = bundle
        self.missing: dict[str, str] = {}
        self._lacking: dict[str, str] = {}

    def run(self) -> list[str]:
        """The layers that hold, in the order in which a worker enters them."""
        for _ in range(len(_CHECKS) + 4):
            held, lacking, failed, reason = self._try(network=False)
            self._lacking |= lacking
            if failed is None:
                break
            self._leave_out(failed, reason)
        else:
            held = []
            self._lacking |= dict.fromkeys(_CHECKS, f"no worker gets through its walls: {reason}")
        if "seccomp" in held:
            _, _, failed, reason = self._try(network=True)
            if failed is None:
                held.append("network_notify")
            else:
                self.missing["network_notify"] = reason
        for layer, reason in self._lacking.items():
            self.missing.setdefault(layer, reason)
        return held

    def _leave_out(self, layer: str, reason: str) -> None:
        walls = self._walls
        self.missing.setdefault(layer, reason)
        if layer == "landlock":
            walls.landlock = None
        elif layer == "seccomp":
            walls.seccomp = None
        elif layer == "own_uid":
            walls.slots = None
        elif layer == "proc":
            walls.has_proc = False
        elif layer == "tmpfs_quota":
            # Without a folder of its own a worker would have none at all.
            walls.world.leave_out("mount_namespace", reason)
        else:
            walls.world.leave_out(layer, reason)

    def _try(self, *, network: bool) -> _Answer:
        """What held, what has no effect and why; and what else is to be left out, and why."""
        walls = self._walls
        cell = Cell(
            trusted=True,
            network=network,
            bundle=self._bundle,
            paths=(),
            scratch=self._scratch,
            disk_bytes=_QUOTA_BYTES,
            disk_files=64,
        )
        report, child_report = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener, child_listener = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        parent = os.getpid()
        try:
            walls.prepare(cell)
            try:
                pid = os.fork()
                if pid == 0:
                    self._child(cell, parent, child_report, child_listener)
            finally:
                walls.forked()
        except (LayerError, OSError) as error:
            return [], {}, *_blame(error)
        finally:
            child_report.close()
            child_listener.close()
        blamed, why, unreadable = _NO_LAYER, "the probe ended without an answer", ""
        try:
            if network:
                unreadable = _answer_one(self._kernel, listener)
            report.settimeout(_PATIENCE_SECONDS)
            answer = report.recv(1 << 16)
            if answer == _FILTER_IS_NEXT:
                blamed = "seccomp"
                answer = report.recv(1 << 16)
        except OSError as error:
            answer, why = b"", f"the probe did not answer: {error}"
        finally:
            report.close()
            listener.close()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            if cell.uid is not None:
                walls.release(cell.uid)
            if not walls.has_root and os.path.isdir(self._scratch):
                os.rmdir(self._scratch)
        if not answer:
            return [], {}, blamed, why
        held, lacking, failed, reason = json.loads(answer)
        if unreadable and failed:
            reason = unreadable
        return held, lacking, failed, reason

    def _child(self, cell: Cell, parent: int, report: socket.socket, listener: socket.socket) -> NoReturn:
        answer: list[Any]
        try:
            self._process.follow_parent(parent)
            self._walls.enter_files(cell)
            self._walls.enter_landlock(cell)
            report.send(_FILTER_IS_NEXT)
            self._walls.enter_seccomp(cell, os.dup(listener.fileno()))
            answer = [*self._check(cell)]
        except BaseException as error:
            answer = [[], {}, *_blame(error)]
        report.send(json.dumps(answer).encode())
        os._exit(0)

    def _check(self, cell: Cell) -> _Answer:
        if cell.network:
            with socket.socket() as probe:
                number = probe.connect_ex(("192.0.2.1", 9))
            if number != _ANSWER:
                reason = f"connect() was not asked about: {errno.errorcode.get(number, number)}"
                return [], {}, "network_notify", reason
            return [], {}, None, ""
        held: list[str] = []
        lacking: dict[str, str] = {}
        for layer, is_there, why_not in self._checks(cell):
            if not is_there:
                continue
            reason = why_not()
            if not reason:
                held.append(layer)
            elif layer in _ALWAYS_ENTERED:
                lacking[layer] = reason
            else:
                return held, lacking, layer, reason
        return held, lacking, None, ""

    def _checks(self, cell: Cell) -> Iterator[tuple[str, bool, Callable[[], str]]]:
        """Layer, whether it was entered, and a test of its effect that returns what is wrong."""
        walls = self._walls
        entered = walls.world.entered
        for layer, check in _CHECKS.items():
            if layer == "landlock":
                is_there = walls.landlock is not None
            elif layer == "seccomp":
                is_there = walls.seccomp is not None
            elif layer == "own_uid":
                is_there = cell.uid is not None
            elif layer in ("mount_namespace", "tmpfs_quota"):
                is_there = walls.has_root
            elif layer.endswith("_namespace"):
                is_there = layer in entered
            else:
                is_there = self._kernel.available
            yield layer, is_there, lambda check=check: check(self, cell)  # type: ignore[misc]

    def _no_privileges(self, cell: Cell) -> str:
        return "" if self._process.has_renounced() else "not in force"

    def _not_readable(self, cell: Cell) -> str:
        # One of the handler's user is meant to be read by the handler; another worker doesn't get at it.
        return "the process is readable" if self._process.is_readable() and cell.uid is not None else ""

    def _own_files(self, cell: Cell) -> str:
        if os.path.exists(self._outside):
            return f"{self._outside} is still there"
        return _must_fail(
            lambda: os.close(os.open("/written", os.O_CREAT | os.O_WRONLY)), "the root can be written"
        )

    def _quota(self, cell: Cell) -> str:
        try:
            with open("filling", "wb") as file:
                file.write(b"x" * (2 * cell.disk_bytes))
        except OSError as error:
            os.unlink("filling")
            return "" if error.errno == errno.ENOSPC else str(error)
        return "more than the quota was written"

    def _own_processes(self, cell: Cell) -> str:
        if os.getpid() != 1:
            return f"the worker is process {os.getpid()}"
        others = _must_fail(lambda: os.kill(2, 0), "another process can be signalled")
        if not others and self._walls.has_root and self._walls.has_proc:
            seen = [entry for entry in os.listdir("/proc") if entry.isdigit()]
            return "" if seen == ["1"] else f"processes {seen} are seen"
        return others

    def _nothing_to_test(self, cell: Cell) -> str:
        # Its effect was seen by the zygote, and namespaces are inherited.
        return ""

    def _own_user(self, cell: Cell) -> str:
        if os.getresuid() != (cell.uid,) * 3 or os.getresgid() != (cell.uid,) * 3 or os.getgroups():
            return "the user was not changed"
        for path in (os.__file__, self._walls.inside(self._bundle)):
            if not os.access(path, os.R_OK):
                return f"another user can't read {path}: make it readable to all"
        return _must_fail(lambda: os.setuid(0), "root can be had back")

    def _no_capabilities(self, cell: Cell) -> str:
        if os.geteuid() == 0:
            return "the user is root"
        return _must_fail(lambda: os.chroot("/"), "chroot is allowed")

    def _landlock(self, cell: Cell) -> str:
        target = PROBE if self._walls.has_root else self._outside
        try:
            os.close(os.open(target, os.O_RDONLY))
        except PermissionError:
            return ""
        except OSError as error:
            return f"{target}: {error}"
        return f"{target} can be read"

    def _seccomp(self, cell: Cell) -> str:
        if self._kernel.errno_of("ptrace", _PTRACE_TRACEME, 0, 0, 0) == 0:
            return "ptrace is allowed"
        return _must_fail(lambda: socket.socket().close(), "sockets can be made")


_CHECKS: dict[str, Callable[[Probe, Cell], str]] = {
    "user_namespace": Probe._nothing_to_test,
    "mount_namespace": Probe._own_files,
    "tmpfs_quota": Probe._quota,
    "pid_namespace": Probe._own_processes,
    "network_namespace": Probe._nothing_to_test,
    "ipc_namespace": Probe._nothing_to_test,
    "own_uid": Probe._own_user,
    "no_capabilities": Probe._no_capabilities,
    "non_dumpable": Probe._not_readable,
    "no_new_privs": Probe._no_privileges,
    "landlock": Probe._landlock,
    "seccomp": Probe._seccomp,
}
"""In the order in which a worker enters them."""

_ALWAYS_ENTERED = ("no_capabilities", "non_dumpable", "no_new_privs")
"""What nothing can fail because of: where it has no effect, the rest may have its own."""


def _must_fail(attempt: Callable[[], None], complaint: str) -> str:
    try:
        attempt()
    except OSError:
        return ""
    return complaint


def _blame(error: BaseException) -> tuple[str, str]:
    if isinstance(error, LayerError):
        return error.layer, error.reason
    return _NO_LAYER, f"{type(error).__name__}: {error}"


def _answer_one(kernel: Kernel, listener: socket.socket) -> str:
    """Answer the first call that is asked about, as the handler does for its workers; what is in the way."""
    listener.settimeout(_PATIENCE_SECONDS)
    _, fds, _, _ = socket.recv_fds(listener, 1, 1)
    if not fds:
        # It could not be made; the child says why.
        return ""
    try:
        poll = select.poll()
        poll.register(fds[0], select.POLLIN)
        if not poll.poll(_PATIENCE_SECONDS * 1000):
            return "nothing was asked"
        notification = bytearray(_NOTIFICATION_BYTES)
        fcntl.ioctl(fds[0], _RECEIVE, notification)
        # struct seccomp_notif: id, pid, flags, then number, architecture, place and arguments of the call.
        id, pid = struct.unpack_from("=QI", notification)
        (address,) = struct.unpack_from("=Q", notification, 40)
        number = _read_errno(kernel, pid, address)
        if number:
            return f"a worker's memory can't be read: {errno.errorcode.get(number, number)}"
        fcntl.ioctl(fds[0], _SEND, struct.pack("=QqiI", id, 0, -_ANSWER, 0))
        return ""
    finally:
        for fd in fds:
            os.close(fd)


def _read_errno(kernel: Kernel, pid: int, address: int) -> int:
    """0 when the address of a connection can be read out of a process, or the error."""
    into = ctypes.create_string_buffer(16)
    vectors = ctypes.create_string_buffer(struct.pack("=QQQQ", ctypes.addressof(into), 16, address, 16), 32)
    ours = ctypes.addressof(vectors)
    return kernel.errno_of("process_vm_readv", pid, ours, 1, ours + 16, 1, 0)
