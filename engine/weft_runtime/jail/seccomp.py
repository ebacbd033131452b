"""The filter on system calls. The handler compiles the programs; here they are only handed to the kernel.

The names of programs say for whom they are: `restricted`, `trusted`, `trusted_network` or `trusted_proxy`;
and `_unix` where Unix sockets can't lead anywhere, because the worker has a file system of its own and
Landlock keeps it from abstract sockets, or `_shared` where it is the handler's own user among the handler's
files.
"""

from __future__ import annotations

import base64
import ctypes

from .kernel import Kernel, LayerError

LAYER = "seccomp"

_SET_MODE_FILTER = 1
_FLAG_NEW_LISTENER = 1 << 3
_FLAG_WAIT_KILLABLE = 1 << 5
_INSTRUCTION_BYTES = 8


class _Program(ctypes.Structure):
    """struct sock_fprog of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


class Seccomp:
    """The programs, ready to be handed over."""

    def __init__(self, kernel: Kernel, filters: dict[str, str]) -> None:
        """`filters`: name → instructions in base64. Raises ValueError for what is no program."""
        self._kernel = kernel
        self._programs: dict[str, tuple[int, object]] = {}
        for name, text in filters.items():
            code = base64.b64decode(text, validate=True)
            if not code or len(code) % _INSTRUCTION_BYTES:
                raise ValueError(f"the filter `{name}` has {len(code)} bytes")
            buffer = ctypes.create_string_buffer(code, len(code))
            program = _Program(len(code) // _INSTRUCTION_BYTES, ctypes.addressof(buffer))
            self._programs[name] = (ctypes.addressof(program), (program, buffer))

    def has(self, name: str) -> bool:
        """Whether there is such a program."""
        return name in self._programs

    def enter(self, name: str) -> None:
        """Install a program. There is no way back."""
        self._install(name, 0)

    def enter_notified(self, name: str) -> int:
        """Install a program that asks about some calls; the descriptor is where they are answered."""
        try:
            # Signals don't interrupt a call that is being answered, so that it isn't made twice. Since 5.19.
            return self._install(name, _FLAG_NEW_LISTENER | _FLAG_WAIT_KILLABLE)
        except LayerError as error:
            if "EINVAL" not in error.reason:
                raise
        return self._install(name, _FLAG_NEW_LISTENER)

    def _install(self, name: str, flags: int) -> int:
        known = self._programs.get(name)
        if known is None:
            raise LayerError(LAYER, f"no filter named {name}")
        return self._kernel.syscall(LAYER, "seccomp", _SET_MODE_FILTER, flags, known[0])
