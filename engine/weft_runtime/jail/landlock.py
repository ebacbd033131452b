"""Landlock: which files may be read, run and written; no TCP port; no signal and no abstract socket outside.

A ruleset names files by inode, so one that the zygote has prepared serves every worker of the same bundle,
in whatever mount namespace. Each worker enters a domain of its own: workers in one domain could trace
each other.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

from .kernel import Kernel, LayerError

LAYER = "landlock"

_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_RULE_NET_PORT = 2

_EXECUTE = 1 << 0
_WRITE_FILE = 1 << 1
_READ_FILE = 1 << 2
_READ_DIR = 1 << 3
_FILE_RIGHTS_SINCE = {3: 1 << 14, 5: 1 << 15}
"""TRUNCATE, IOCTL_DEV: version of the interface → what it adds for files."""
_DIR_RIGHTS_V1 = 0x1FFF
_REFER = 1 << 13
_CONNECT_TCP = 1 << 1
_BIND_TCP = 1 << 0
_SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0
_SCOPE_SIGNAL = 1 << 1
_SCOPES_SINCE = 6
"""The version of the interface from which on there are scopes."""

_LOWEST_FD = 10

READ = _READ_FILE | _READ_DIR
"""To read files and list folders."""
RUN = READ | _EXECUTE
"""To execute programs as well."""
_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | (1 << 14) | (1 << 15)


class Landlock:
    """The version that this kernel speaks, and what it can be asked for."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.abi = 0
        self.reason = ""
        if not kernel.available:
            self.reason = "no Linux on x86_64 or aarch64"
            return
        try:
            self.abi = kernel.syscall(LAYER, "landlock_create_ruleset", 0, 0, _CREATE_RULESET_VERSION)
        except LayerError as error:
            self.reason = error.reason
        rights = _DIR_RIGHTS_V1
        if self.abi >= 2:
            rights |= _REFER
        for version, right in _FILE_RIGHTS_SINCE.items():
            if self.abi >= version:
                rights |= right
        self.everything = rights
        """Every right on files that this version knows: what scratch folders get."""
        self.write = _WRITE_FILE | (self.everything & (1 << 14))
        """To write into files that exist, such as /dev/null."""

    @property
    def scopes_sockets(self) -> bool:
        """Whether abstract sockets of processes outside of the own domain are out of reach."""
        return self.abi >= _SCOPES_SINCE

    def ruleset(self, rules: list[tuple[str, int]], *, connect_port: int | None = None) -> int:
        """A descriptor of a ruleset that allows `rules` (path, rights) and nothing else. Paths that don't
        exist are left out. With `connect_port`, TCP connections to that port, of any address. Raises
        LayerError."""
        network = _CONNECT_TCP | _BIND_TCP if self.abi >= 4 else 0
        scope = _SCOPE_ABSTRACT_UNIX_SOCKET | _SCOPE_SIGNAL if self.abi >= _SCOPES_SINCE else 0
        fields = struct.pack("=QQQ", self.everything, network, scope)
        # Older kernels know a shorter structure; what they don't know is zero and could be sent all the same.
        size = 24 if self.abi >= _SCOPES_SINCE else 16 if self.abi >= 4 else 8
        attributes = ctypes.create_string_buffer(fields[:size], size)
        ruleset = self._kernel.syscall(
            LAYER, "landlock_create_ruleset", ctypes.addressof(attributes), size, 0
        )
        try:
            for path, rights in rules:
                self._allow(ruleset, path, rights)
            if connect_port is not None and self.abi >= 4:
                rule = ctypes.create_string_buffer(struct.pack("=QQ", _CONNECT_TCP, connect_port), 16)
                self._kernel.syscall(
                    LAYER, "landlock_add_rule", ruleset, _RULE_NET_PORT, ctypes.addressof(rule), 0
                )
            # Out of the way of the descriptors that a worker gives a meaning.
            return fcntl.fcntl(ruleset, fcntl.F_DUPFD_CLOEXEC, _LOWEST_FD)
        finally:
            os.close(ruleset)

    def _allow(self, ruleset: int, path: str, rights: int) -> None:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return
        try:
            if not os.path.isdir(path):
                rights &= _FILE
            rule = ctypes.create_string_buffer(struct.pack("=Qi", rights & self.everything, fd), 12)
            self._kernel.syscall(
                LAYER, "landlock_add_rule", ruleset, _RULE_PATH_BENEATH, ctypes.addressof(rule), 0
            )
        finally:
            os.close(fd)

    def enter(self, ruleset: int) -> None:
        """Restrict this thread, and all that it will start, to a ruleset. There is no way back."""
        self._kernel.syscall(LAYER, "landlock_restrict_self", ruleset, 0)
