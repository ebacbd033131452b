"""Who a worker is to the kernel: a user of its own, without any capability."""

from __future__ import annotations

import os

from .kernel import CLONE_NEWUSER, Kernel, LayerError

LAYER = "own_uid"

_INNER_ID = 60_000
"""The number that the only user and group of our user namespace have in it. Not 0: no program that checks for
root is to find it."""


class Slots:
    """User numbers of a range, each lent to one worker at a time: what a user may still hold or signal is
    gone before the number is lent again, because it comes back when the worker's whole tree has ended."""

    def __init__(self, first: int, count: int) -> None:
        self._first = first
        self._free = list(range(count - 1, -1, -1))

    def lend(self) -> int:
        """A number that nobody has. Raises OSError when all are lent."""
        if not self._free:
            raise OSError("every user number for workers is in use: widen WEFT_STEP_UIDS")
        return self._first + self._free.pop()

    def take_back(self, uid: int) -> None:
        """The worker and everything below it is gone."""
        self._free.append(uid - self._first)


def become(uid: int) -> None:
    """Turn into that user and its group, for good. Raises LayerError."""
    try:
        os.setgroups(())
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise LayerError(LAYER, "setresuid", error.errno) from None


def enter_user_namespace(kernel: Kernel, extra_flags: int = 0) -> None:
    """A user namespace with one user, ourselves, in which we have every capability until we drop them. The
    kernel counts processes for each such namespace on its own. Together with further namespaces, which it
    then owns. Needs a readable process. Raises LayerError."""
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare("user_namespace", CLONE_NEWUSER | extra_flags)
    try:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{_INNER_ID} {uid} 1"),
            ("gid_map", f"{_INNER_ID} {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    except OSError as error:
        raise LayerError("user_namespace", "uid_map", error.errno) from None
