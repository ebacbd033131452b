"""The kernel's calls that Python has no function for, bound once, with errors that name the layer."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
from typing import Any

CLONE_NEWNS = 0x0002_0000
CLONE_NEWUTS = 0x0400_0000
CLONE_NEWIPC = 0x0800_0000
CLONE_NEWUSER = 0x1000_0000
CLONE_NEWPID = 0x2000_0000
CLONE_NEWNET = 0x4000_0000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x4_0000
MNT_DETACH = 2

AT_FDCWD = -100
AT_RECURSIVE = 0x8000
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4

_NUMBERS = {
    # name: (x86_64, aarch64); from the kernel's tables.
    "pivot_root": (155, 41),
    "capset": (126, 91),
    "seccomp": (317, 277),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "mount_setattr": (442, 442),
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446),
}
_MACHINES = {"x86_64": 0, "aarch64": 1}


class LayerError(Exception):
    """A layer can't be entered: which, by which call, and the kernel's reason."""

    def __init__(self, layer: str, call: str, number: int | None = None) -> None:
        self.layer = layer
        name = "" if number is None else f": {errno.errorcode.get(number, number)}, {os.strerror(number)}"
        self.reason = f"{call}{name}"
        super().__init__(f"{layer}: {self.reason}")


class Kernel:
    """libc with the prototypes that are needed. `available` is false where there is no such kernel."""

    def __init__(self) -> None:
        column = _MACHINES.get(platform.machine())
        self.available = sys.platform == "linux" and column is not None
        if not self.available or column is None:
            return
        self._numbers = {name: numbers[column] for name, numbers in _NUMBERS.items()}
        libc: Any = ctypes.CDLL(None, use_errno=True)
        text, long, unsigned = ctypes.c_char_p, ctypes.c_long, ctypes.c_ulong
        self._syscall = libc.syscall
        self._syscall.argtypes = (long,) * 7
        self._syscall.restype = long
        self._prctl = libc.prctl
        self._prctl.argtypes = (ctypes.c_int, unsigned, unsigned, unsigned, unsigned)
        self._unshare = libc.unshare
        self._unshare.argtypes = (ctypes.c_int,)
        self._setns = libc.setns
        self._setns.argtypes = (ctypes.c_int, ctypes.c_int)
        self._mount = libc.mount
        self._mount.argtypes = (text, text, text, unsigned, text)
        self._umount = libc.umount2
        self._umount.argtypes = (text, ctypes.c_int)
        # struct mount_attr of linux/mount.h: set, clear, propagation, user namespace.
        self._read_only = (ctypes.c_uint64 * 4)(
            MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, 0, 0, 0
        )
        self._here = ctypes.create_string_buffer(b".")
        # capset's header (version 3, this thread) and no capability at all.
        self._capabilities_header = (ctypes.c_uint32 * 2)(0x2008_0522, 0)
        self._no_capabilities = (ctypes.c_uint32 * 6)()

    def syscall(self, layer: str, name: str, *args: int) -> int:
        """One system call by name; LayerError unless it succeeds. Pointers are given as addresses."""
        result: int = self._syscall(self._numbers[name], *args, *((0,) * (6 - len(args))))
        if result < 0:
            raise LayerError(layer, name, ctypes.get_errno())
        return result

    def errno_of(self, name: str, *args: int) -> int:
        """0, or the error of a call that is made to see whether it is refused."""
        result = self._syscall(self._numbers[name], *args, *((0,) * (6 - len(args))))
        return 0 if result >= 0 else ctypes.get_errno()

    def prctl(self, layer: str, option: int, value: int = 0, third: int = 0) -> int:
        """Ask something about this process."""
        result: int = self._prctl(option, value, third, 0, 0)
        if result < 0:
            raise LayerError(layer, f"prctl({option}, {value})", ctypes.get_errno())
        return result

    def unshare(self, layer: str, flags: int) -> None:
        """Enter new namespaces."""
        if self._unshare(flags) != 0:
            raise LayerError(layer, f"unshare({flags:#x})", ctypes.get_errno())

    def setns(self, layer: str, fd: int, flag: int) -> None:
        """Enter a namespace that exists."""
        if self._setns(fd, flag) != 0:
            raise LayerError(layer, "setns", ctypes.get_errno())

    def mount(
        self, layer: str, source: str, target: str, kind: str | None, flags: int, options: str = ""
    ) -> None:
        """Mount a file system, or a folder at a second place."""
        encode = os.fsencode
        if self._mount(
            encode(source),
            encode(target),
            None if kind is None else encode(kind),
            flags,
            encode(options) if options else None,
        ):
            raise LayerError(layer, f"mount {kind or 'bind'} on {target}", ctypes.get_errno())

    def unmount(self, layer: str, target: str) -> None:
        """umount2(2), lazily: whoever still uses it keeps it."""
        if self._umount(os.fsencode(target), MNT_DETACH) != 0:
            raise LayerError(layer, f"umount {target}", ctypes.get_errno())

    def make_read_only(self, layer: str, path: str, *, below: bool = True) -> None:
        """Read-only, no set-uid, no devices: the mount at `path`, and with `below` those under it."""
        name = ctypes.create_string_buffer(os.fsencode(path))
        flags = AT_RECURSIVE if below else 0
        attributes = ctypes.addressof(self._read_only)
        self.syscall(
            layer,
            "mount_setattr",
            AT_FDCWD,
            ctypes.addressof(name),
            flags,
            attributes,
            ctypes.sizeof(self._read_only),
        )

    def enter_root(self, layer: str) -> None:
        """Make the working directory the root of this mount namespace, and let the old one go."""
        here = ctypes.addressof(self._here)
        # Onto itself: the old root is then on top of the new one, and unmounting "." removes it.
        self.syscall(layer, "pivot_root", here, here)
        self.unmount(layer, ".")

    def drop_capabilities(self, layer: str) -> None:
        """Give up every capability of this thread, for good together with no_new_privs."""
        self.syscall(
            layer,
            "capset",
            ctypes.addressof(self._capabilities_header),
            ctypes.addressof(self._no_capabilities),
        )
