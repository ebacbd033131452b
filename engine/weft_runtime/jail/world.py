"""The namespaces that the zygote enters once, and its workers inherit: no network, no shared objects, a
process table of their own, and a file system that holds what steps need.

As root they are simply entered; as another user inside a user namespace, where the platform allows one. A
platform that allows neither leaves the other layers.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
from collections.abc import Iterable
from typing import NoReturn

from .identity import enter_user_namespace
from .kernel import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    Kernel,
    LayerError,
)
from .process import Process
from .root import Root

_FLAGS = {
    "mount_namespace": CLONE_NEWNS,
    "network_namespace": CLONE_NEWNET,
    "ipc_namespace": CLONE_NEWIPC,
    "pid_namespace": CLONE_NEWPID,
}
_PROC_FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC


class World:
    """What has been entered. `missing` says why something has not."""

    def __init__(self, kernel: Kernel, process: Process) -> None:
        self._kernel = kernel
        self._process = process
        self.entered: set[str] = set()
        self.missing: dict[str, str] = {}
        self.root: Root | None = None
        self.pid_namespace = -1
        """A descriptor of the zygote's own process namespace, to return to after each fork."""

    def enter(
        self, off: frozenset[str], place: str | None, read: list[str], hidden: list[str], keep_open: list[int]
    ) -> None:
        """Enter what the platform allows and `off` doesn't name, and build the root folder at `place`.

        With a process namespace the caller goes on in a child: the first process of a namespace is a new one.
        The parent stays to be killed, and to pass on how the child ended; it keeps none of `keep_open`.
        """
        if not self._kernel.available:
            self._miss(_FLAGS, "no Linux on x86_64 or aarch64")
            return
        wanted = {name: flag for name, flag in _FLAGS.items() if name not in off}
        self._miss(_FLAGS.keys() - wanted.keys(), "switched off")
        before = _namespaces()
        try:
            self._unshare(wanted, off)
        except LayerError as error:
            self._miss(wanted, error.reason)
            return
        if "pid_namespace" in wanted:
            self._fork(keep_open)
        after = _namespaces()
        for name in wanted:
            if name != "pid_namespace" and before.get(name) == after.get(name):
                self._miss([name], "entered without an effect")
            else:
                self.entered.add(name)
        if "network_namespace" in self.entered and not _has_no_network():
            self._miss(["network_namespace"], "connections don't fail in it")
        if "pid_namespace" in wanted:
            self.pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        if "mount_namespace" in wanted:
            self._build(place, read, hidden)

    def before_fork(self) -> None:
        """The next child is the first process of a namespace of its own."""
        if "pid_namespace" in self.entered:
            self._kernel.unshare("pid_namespace", CLONE_NEWPID)

    def after_fork(self) -> None:
        """In the zygote: back to where another namespace can be made."""
        if "pid_namespace" in self.entered:
            self._kernel.setns("pid_namespace", self.pid_namespace, CLONE_NEWPID)

    def leave_out(self, layer: str, reason: str) -> None:
        """A worker can't use it here."""
        self._miss([layer], reason)
        if layer == "mount_namespace":
            self.root = None

    def _unshare(self, wanted: dict[str, int], off: frozenset[str]) -> None:
        flags = CLONE_NEWUTS
        for flag in wanted.values():
            flags |= flag
        if os.geteuid() == 0:
            self.missing["user_namespace"] = "not needed: root enters the others itself"
            self._kernel.unshare("namespaces", flags)
        elif "user_namespace" in off:
            self.missing["user_namespace"] = "switched off"
            raise LayerError("user_namespace", "switched off, and only root enters namespaces without one")
        else:
            try:
                enter_user_namespace(self._kernel, flags)
            except LayerError as error:
                self.missing["user_namespace"] = error.reason
                raise
            self.entered.add("user_namespace")
        socket.sethostname("step")

    def _fork(self, keep_open: list[int]) -> None:
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            raise LayerError("pid_namespace", "fork", error.errno) from None
        if pid != 0:
            self._keep(pid, keep_open)
        if not self._process.follow_parent(parent):
            os._exit(0)

    def _keep(self, pid: int, keep_open: list[int]) -> NoReturn:
        """All that is left to the process that was started: to be waited for and to be killed."""
        self._process.rename("weft-keeper")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for fd in (*keep_open, 0, 1, 2):
            os.close(fd)
        _, status = os.waitpid(pid, 0)
        if os.WIFSIGNALED(status):
            os.kill(os.getpid(), os.WTERMSIG(status))
            # A signal that does not end us.
            os._exit(128 + os.WTERMSIG(status))
        os._exit(os.WEXITSTATUS(status))

    def _build(self, place: str | None, read: list[str], hidden: list[str]) -> None:
        kernel = self._kernel
        try:
            if place is None:
                raise LayerError("mount_namespace", "no folder was given to build the root in")
            kernel.mount("mount_namespace", "none", "/", None, MS_REC | MS_PRIVATE)
            if "pid_namespace" in self.entered:
                # Shows the processes of our namespace, and lets workers mount theirs.
                kernel.mount("mount_namespace", "proc", "/proc", "proc", _PROC_FLAGS)
            self.root = Root(kernel, place, read, hidden)
        except (LayerError, OSError) as error:
            reason = error.reason if isinstance(error, LayerError) else str(error)
            self.leave_out("mount_namespace", reason)

    def _miss(self, names: Iterable[str], reason: str) -> None:
        for name in names:
            self.entered.discard(name)
            self.missing[name] = reason


def _namespaces() -> dict[str, int]:
    found = {}
    for layer, name in (("mount_namespace", "mnt"), ("network_namespace", "net"), ("ipc_namespace", "ipc")):
        try:
            found[layer] = os.stat(f"/proc/self/ns/{name}").st_ino
        except OSError as error:
            # Without /proc nothing can be told apart; then nothing counts as entered.
            sys.stderr.write(f"weft-zygote: /proc/self/ns/{name}: {error}\n")
    return found


def _has_no_network() -> bool:
    """Neither the own machine nor any other can be connected to."""
    for address in ("127.0.0.1", "198.51.100.1"):
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((address, 9)) not in (errno.ENETUNREACH, errno.EADDRNOTAVAIL):
                return False
    return True
