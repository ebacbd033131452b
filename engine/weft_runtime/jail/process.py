"""What a process asks of the kernel about itself: its name, its end with its parent, who may read it."""

from __future__ import annotations

import ctypes
import os
import signal

from .kernel import Kernel

_SIGKILL = int(signal.SIGKILL)
"""A plain number: an enum member costs a worker more."""

_PR_SET_PDEATHSIG = 1
_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_GET_NO_NEW_PRIVS = 39


class Process:
    """The calls, with the names that they hand to the kernel."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        # Kept for as long as the kernel may be handed their addresses; at most 15 bytes each.
        self._names = {
            name: ctypes.create_string_buffer(name.encode())
            for name in ("weft-keeper", "weft-zygote", "weft-worker")
        }
        self._addresses = {name: ctypes.addressof(buffer) for name, buffer in self._names.items()}

    def rename(self, name: str) -> None:
        """The name in `ps`."""
        if self._kernel.available:
            self._kernel.prctl("own_process", _PR_SET_NAME, self._addresses[name])

    def end_with_parent(self) -> None:
        """Be killed when the parent ends. A change of user clears it, so it is asked for again after one."""
        if self._kernel.available:
            self._kernel.prctl("own_process", _PR_SET_PDEATHSIG, _SIGKILL)

    def follow_parent(self, parent: int) -> bool:
        """As `end_with_parent`; false where the parent is gone already. A parent outside of the own process
        namespace has number 0."""
        self.end_with_parent()
        return os.getppid() in (parent, 0)

    def adopt_orphans(self) -> None:
        """What loses its parent below us becomes our child."""
        if self._kernel.available:
            self._kernel.prctl("subreaper", _PR_SET_CHILD_SUBREAPER, 1)

    def set_readable(self, readable: bool) -> None:
        """Whether processes of the same user may read memory and environment. Inherited by forks."""
        if self._kernel.available:
            self._kernel.prctl("non_dumpable", _PR_SET_DUMPABLE, int(readable))

    def renounce_privileges(self) -> None:
        """No program that is executed gives any right that is not there already. Inherited; there is no way
        back."""
        if self._kernel.available:
            self._kernel.prctl("no_new_privs", _PR_SET_NO_NEW_PRIVS, 1)

    def is_readable(self) -> bool:
        """Asked of the kernel."""
        return self._kernel.prctl("non_dumpable", _PR_GET_DUMPABLE) != 0

    def has_renounced(self) -> bool:
        """Asked of the kernel."""
        return self._kernel.prctl("no_new_privs", _PR_GET_NO_NEW_PRIVS) == 1
