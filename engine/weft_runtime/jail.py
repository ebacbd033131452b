"""What a process asks of the kernel about itself. Further layers (namespaces, Landlock, seccomp, another
uid) are added here, in `Jail.enter`.

One `Jail` is made in the zygote, so that workers find libc loaded and bound; a worker never loads it anew.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

# A plain number: an enum member costs a worker more.
_SIGKILL = int(signal.SIGKILL)
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38


class Jail:
    """The calls, with the handle that they need. On systems other than Linux the kernel offers none of them,
    and all do nothing; the handler's posture report says so."""

    __slots__ = ("_addresses", "_names", "_prctl")

    def __init__(self) -> None:
        self._prctl = None
        # Kept for as long as the kernel may be handed their addresses.
        self._names = (
            ctypes.create_string_buffer(b"weft-zygote"),
            ctypes.create_string_buffer(b"weft-worker"),
        )
        self._addresses = tuple(ctypes.addressof(name) for name in self._names)
        if sys.platform == "linux":
            prctl = ctypes.CDLL(None, use_errno=True).prctl
            prctl.argtypes = (ctypes.c_int,) + (ctypes.c_ulong,) * 4
            self._prctl = prctl

    def guard_zygote(self) -> None:
        """Name it, adopt orphans below it, and take away what workers are to inherit as taken away."""
        self._rename(0)
        self._ask(_PR_SET_CHILD_SUBREAPER, 1)
        self._ask(_PR_SET_DUMPABLE, 0)
        self._ask(_PR_SET_NO_NEW_PRIVS, 1)

    def follow_parent(self, parent: int) -> bool:
        """Die with the parent, under a worker's name. False where the parent is gone already. Belongs right
        after the fork."""
        self._ask(_PR_SET_PDEATHSIG, _SIGKILL)
        self._rename(1)
        return os.getppid() == parent

    def enter(self) -> None:
        """Close the door behind a worker: the last thing before its module is imported.

        Not dumpable and no_new_privs come from the zygote: the kernel hands both on to every child.
        """
        self._ask(_PR_SET_CHILD_SUBREAPER, 1)

    def _rename(self, which: int) -> None:
        """The name in `ps`, at most 15 bytes."""
        self._ask(_PR_SET_NAME, self._addresses[which])

    def _ask(self, option: int, value: int) -> None:
        if self._prctl is not None and self._prctl(option, value, 0, 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"prctl({option}, {value}): {os.strerror(number)}")
