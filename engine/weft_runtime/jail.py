"""What a process asks of the kernel about itself. Further layers (namespaces, Landlock, seccomp, another
uid) are added here, in `Jail.enter`.

One `Jail` is made in the zygote, so that workers find libc loaded and bound; a worker never loads it anew.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38


class Jail:
    """The calls, with the handle that they need. On systems other than Linux the kernel offers none of them,
    and all do nothing; the handler's posture report says so."""

    __slots__ = ("_prctl",)

    def __init__(self) -> None:
        self._prctl = None
        if sys.platform == "linux":
            prctl = ctypes.CDLL(None, use_errno=True).prctl
            prctl.argtypes = (ctypes.c_int,) + (ctypes.c_ulong,) * 4
            self._prctl = prctl

    def guard_zygote(self) -> None:
        """Name it, adopt orphans below it, and take away what workers are to inherit as taken away."""
        self.rename("weft-zygote")
        self._ask(_PR_SET_CHILD_SUBREAPER, 1)
        self._ask(_PR_SET_DUMPABLE, 0)
        self._ask(_PR_SET_NO_NEW_PRIVS, 1)

    def follow_parent(self, parent: int) -> bool:
        """Die with the parent. False where it is gone already. Belongs right after the fork."""
        self._ask(_PR_SET_PDEATHSIG, signal.SIGKILL)
        return os.getppid() == parent

    def rename(self, name: str) -> None:
        """The name in `ps`, at most 15 bytes."""
        if self._prctl is not None:
            self._ask(_PR_SET_NAME, ctypes.cast(ctypes.c_char_p(name.encode()), ctypes.c_void_p).value or 0)

    def enter(self) -> None:
        """Close the door behind a worker: the last thing before its module is imported.

        Not dumpable and no_new_privs come from the zygote: the kernel hands both on to every child.
        """
        self._ask(_PR_SET_CHILD_SUBREAPER, 1)

    def _ask(self, option: int, value: int) -> None:
        if self._prctl is not None and self._prctl(option, value, 0, 0, 0) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"prctl({option}, {value}): {os.strerror(number)}")
