"""How a worker is walled in, layer by layer, in the only order that works: mounts while it may still mount,
another user while it may still change, the filters last.

`Walls` is made once, in the zygote, from what the handler says and what the platform gave. `enter` runs in
the worker, before any code of a workspace. Whatever fails there raises, and the worker ends.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from .identity import Slots, become, enter_user_namespace
from .kernel import CLONE_NEWNS, MS_NODEV, MS_NOEXEC, MS_NOSUID, Kernel, LayerError
from .landlock import READ, RUN, Landlock
from .process import Process
from .root import BOUND, COPIED, OWN, PROC, SCRATCH, SHARED_MEMORY, SYSTEM, Root
from .seccomp import Seccomp
from .world import World

_RULESETS = 64
"""How many prepared rulesets are kept; each is a descriptor."""


@dataclass(slots=True)
class Cell:
    """What is particular to one worker."""

    trusted: bool
    network: bool
    bundle: str
    paths: tuple[str, ...]
    scratch: str
    """Where its folder is made when it has no file system of its own; not there yet."""
    disk_bytes: int
    disk_files: int
    uid: int | None = None
    proxy: str | None = None
    """The proxy's address, where connections can't be asked for."""
    ruleset: int = -1
    shown: tuple[str, ...] = ()
    """What of `paths` is there and not visible anyway."""
    home: str = field(default="/", init=False)

    @property
    def proxy_port(self) -> int | None:
        """The only port that may be connected to, where there is a proxy."""
        return None if self.proxy is None else int(self.proxy.rstrip("/").rpartition(":")[2])


class Walls:
    """Everything that workers have in common."""

    def __init__(
        self,
        kernel: Kernel,
        process: Process,
        world: World,
        landlock: Landlock | None,
        seccomp: Seccomp | None,
        slots: Slots | None,
        read: list[str],
        shown: list[str],
        hidden: list[str],
    ) -> None:
        """`read`: system folders beside /usr; `shown`: folders of the engine; `hidden`: what neither
        reveals."""
        self._kernel = kernel
        self._process = process
        self.world = world
        self.landlock = landlock
        self.seccomp = seccomp
        self.slots = slots
        self.has_proc = True
        self._read = read
        self._shown = shown
        self._hidden = hidden
        self._rulesets: dict[tuple[object, ...], int] = {}
        self._rooms: set[str] = set()

    @property
    def home(self) -> str | None:
        """Where trusted workers have their folder, when it is the same place for all."""
        return SCRATCH if self.has_root else None

    @property
    def has_root(self) -> bool:
        """Whether workers have a file system of their own."""
        return self.world.root is not None

    def prepare(self, cell: Cell) -> None:
        """In the zygote, right before the fork. Raises OSError or LayerError."""
        root = self.world.root
        cell.shown = tuple(path for path in cell.paths if not self._is_visible(path) and os.path.isdir(path))
        if root is not None:
            for path in (cell.bundle, *cell.shown, *self._shown):
                if path not in self._rooms:
                    root.make_room(path)
                    self._rooms.add(path)
            if self.landlock is not None:
                cell.ruleset = self._shared_ruleset(root, self.landlock, cell)
        if self.slots is not None:
            cell.uid = self.slots.lend()
        self.world.before_fork()

    def forked(self) -> None:
        """In the zygote, right after the fork, or instead of it."""
        self.world.after_fork()

    def release(self, uid: int) -> None:
        """The worker that had this user is gone, and all that it started."""
        if self.slots is not None:
            self.slots.take_back(uid)

    def filter_name(self, cell: Cell) -> str:
        """The filter for a worker."""
        trust = "trusted" if cell.trusted else "restricted"
        network = "" if not cell.network else "_network" if cell.proxy is None else "_proxy"
        if not self.has_root and cell.uid is None:
            files = "_shared"
        elif self._has_own_sockets and network != "_proxy":
            files = "_unix"
        else:
            files = ""
        return trust + network + files

    @property
    def _has_own_sockets(self) -> bool:
        """Whether Unix sockets lead to nobody else: those of the file system because each has its own; those
        of the network namespace, which workers share, by Landlock."""
        return self.has_root and self.landlock is not None and self.landlock.scopes_sockets

    @property
    def ends_trees(self) -> bool:
        """Whether the kernel ends everything that a worker has started together with it."""
        return "pid_namespace" in self.world.entered

    def inside(self, path: str) -> str:
        """Where a worker sees a folder of the real root."""
        root = self.world.root
        return path if root is None else root.inside(path)

    def counts_alone(self, cell: Cell) -> bool:
        """Whether the kernel counts a worker's processes apart from those of others."""
        return cell.uid is not None or "user_namespace" in self.world.entered

    def enter_files(self, cell: Cell) -> None:
        """In the worker: its view of the file system, and who it is. Descriptors below 10 stay as they
        are."""
        root = self.world.root
        if root is not None:
            self._enter_root(root, cell)
        elif cell.trusted:
            os.mkdir(cell.scratch, 0o700)
            cell.home = cell.scratch
            if cell.uid is not None:
                os.chown(cell.scratch, cell.uid, cell.uid)
        if cell.uid is not None:
            become(cell.uid)
            # The change of user has cleared it.
            self._process.end_with_parent()
        elif "user_namespace" in self.world.entered:
            self._process.set_readable(True)
            enter_user_namespace(self._kernel)
        if self._kernel.available:
            self._kernel.drop_capabilities("no_capabilities")
        # The handler, where it is of the same user, reads addresses of connections and shared memory out of
        # us. Other workers can't: they see no process of ours, or are in another Landlock domain.
        alone = "pid_namespace" in self.world.entered or self.landlock is not None
        self._process.set_readable(cell.uid is None and alone)
        if self.has_root and cell.trusted:
            os.mkdir(SCRATCH, 0o700)
            os.mkdir(SHARED_MEMORY, 0o700)
        try:
            os.chdir(cell.home)
        except PermissionError as error:
            raise LayerError("own_uid", f"chdir {cell.home}", error.errno) from None

    def enter_landlock(self, cell: Cell) -> None:
        """In the worker: which files, ports and processes are out of reach."""
        if self.landlock is not None:
            ruleset = cell.ruleset if cell.ruleset >= 0 else self._own_ruleset(self.landlock, cell)
            self.landlock.enter(ruleset)

    def enter_seccomp(self, cell: Cell, listener_to: int) -> None:
        """In the worker, last: what no call may do any more. The descriptor at which connections are asked
        for goes to the handler through the socket `listener_to`, which is closed."""
        if self.seccomp is None:
            return
        name = self.filter_name(cell)
        if not name.startswith("trusted_network"):
            self.seccomp.enter(name)
            return
        listener = self.seccomp.enter_notified(name)
        with socket.socket(fileno=listener_to) as to_handler:
            socket.send_fds(to_handler, [b"n"], [listener])
        os.close(listener)

    def _enter_root(self, root: Root, cell: Cell) -> None:
        kernel = self._kernel
        kernel.unshare("mount_namespace", CLONE_NEWNS)
        place = root.place
        if cell.trusted:
            uid = os.geteuid() if cell.uid is None else cell.uid
            gid = os.getegid() if cell.uid is None else cell.uid
            options = f"size={cell.disk_bytes},nr_inodes={cell.disk_files},mode=700,uid={uid},gid={gid}"
            kernel.mount("tmpfs_quota", "step", place + OWN, "tmpfs", MS_NOSUID | MS_NODEV, options)
            cell.home = SCRATCH
        if self.has_proc:
            flags = MS_NOSUID | MS_NODEV | MS_NOEXEC
            kernel.mount("mount_namespace", "proc", place + PROC, "proc", flags, "subset=pid")
        for path in (cell.bundle, *cell.shown, *self._shown):
            root.show(path)
        os.chdir(place)
        kernel.enter_root("mount_namespace")
        kernel.make_read_only("mount_namespace", "/", below=False)

    def _shared_ruleset(self, root: Root, landlock: Landlock, cell: Cell) -> int:
        key = (cell.trusted, cell.bundle, cell.shown, cell.proxy_port)
        known = self._rulesets.pop(key, None)
        if known is None:
            rules = self._readable(cell)
            rules += [(path, READ) for path in root.own()]
            rules += [(path, READ | landlock.write) for path in root.devices()]
            if cell.trusted:
                rules.append((root.writable(), landlock.everything))
            made = landlock.ruleset(rules, connect_port=cell.proxy_port)
            try:
                # Descriptors below 10 are those that a worker puts its own in.
                known = fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, 10)
            finally:
                os.close(made)
            if len(self._rulesets) >= _RULESETS:
                os.close(self._rulesets.pop(next(iter(self._rulesets))))
        # Put last: the first is the one that was not used for longest.
        self._rulesets[key] = known
        return known

    def _own_ruleset(self, landlock: Landlock, cell: Cell) -> int:
        rules = self._readable(cell)
        rules += [(path, READ) for path in (*COPIED, *BOUND, *_NAMES, *_PROC_FILES)]
        rules += [(f"/dev/{name}", READ | landlock.write) for name in ("null", "zero", "full")]
        rules += [(f"/dev/{name}", READ) for name in ("random", "urandom")]
        if cell.trusted:
            rules.append((cell.scratch, landlock.everything))
        return landlock.ruleset(rules, connect_port=cell.proxy_port)

    def _readable(self, cell: Cell) -> list[tuple[str, int]]:
        rights = RUN if cell.trusted else READ
        found = []
        for path in (*SYSTEM, *self._read):
            found += [(part, rights) for part in _without(path, self._hidden)]
        return found + [(path, rights) for path in (cell.bundle, *cell.shown, *self._shown)]

    def _is_visible(self, path: str) -> bool:
        """Whether every worker sees a folder: it is of the system or beside it, and not hidden."""
        if not _is_below(path, (*SYSTEM, *self._read)):
            return False
        return not _is_below(os.path.realpath(path), self._hidden)


_NAMES = (
    "/etc/passwd",
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/hostname",
)
_PROC_FILES = (
    *(f"/proc/self/{name}" for name in ("maps", "status", "stat", "statm", "cmdline", "cgroup", "fd")),
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
)
"""Not all of /proc/self: its `net` shows the connections of everybody in the network namespace."""


def _is_below(path: str, folders: Sequence[str]) -> bool:
    return any(path == one or path.startswith(one.rstrip("/") + "/") for one in folders)


def _without(path: str, hidden: list[str]) -> list[str]:
    """`path`, or, where something below it is hidden, everything in it that doesn't lead there."""
    if os.path.islink(path):
        # Its target is allowed, or not, in its own right.
        return []
    inner = [one for one in hidden if one == path or one.startswith(path.rstrip("/") + "/")]
    if not inner:
        return [path]
    if path in inner:
        return []
    found = []
    for name in os.listdir(path):
        found += _without(os.path.join(path, name), inner)
    return found
