"""Reduced platforms: starts a command with less than this machine offers, and proves that what it took away is gone.

    python postures.py POSTURE [NAMES] -- COMMAND…

NAMES is put in the place of /etc/resolv.conf.

Whatever the posture, the command runs in a process and a mount namespace of its own, like a container: an attack that
works (a signal to everybody, say) harms the command and what it started, not the machine. The command is never the first
process of that namespace, because that one is immune to signals. Its exit status is handed on.

Needs root. Linux on x86_64 and aarch64, standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

UID = 60001
"""Who runs the command where it is not root."""

_CLONE_NEWNS, _CLONE_NEWPID, _CLONE_NEWUTS = 0x00020000, 0x20000000, 0x04000000
_CLONE_NEWUSER = 0x10000000
_CLONE_NEW_ANY = 0x7E020000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_CAPBSET_READ, _PR_CAPBSET_DROP = 1, 22, 23, 24
_PR_SET_NO_NEW_PRIVS, _PR_GET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 38, 39, 47, 4
_SECCOMP_MODE_FILTER = 2
_LANDLOCK_VERSION = 1

# What Docker leaves to root: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service,
# net_raw, sys_chroot, mknod, audit_write, setfcap.
_DOCKER_CAPABILITIES = frozenset((0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31))

_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NUMBERS = {
    "x86_64": {
        "clone": 56, "prctl": 157, "pivot_root": 155, "mount": 165, "umount2": 166, "unshare": 272, "setns": 308,
        "seccomp": 317, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
        "fspick": 433, "clone3": 435, "mount_setattr": 442, "landlock_create_ruleset": 444, "landlock_add_rule": 445,
        "landlock_restrict_self": 446, "capset": 126,
    },
    "aarch64": {
        "clone": 220, "prctl": 167, "pivot_root": 41, "mount": 40, "umount2": 39, "unshare": 97, "setns": 268,
        "seccomp": 277, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
        "fspick": 433, "clone3": 435, "mount_setattr": 442, "landlock_create_ruleset": 444, "landlock_add_rule": 445,
        "landlock_restrict_self": 446, "capset": 91,
    },
}  # fmt: skip

_NAMESPACES = {
    **dict.fromkeys(("unshare", "setns", "mount", "umount2", "pivot_root"), errno.EPERM),
    **dict.fromkeys(("open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick"), errno.EPERM),
    "mount_setattr": errno.EPERM,
    "clone3": errno.ENOSYS,
}
_LANDLOCK = dict.fromkeys(
    ("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"), errno.ENOSYS
)


@dataclass(frozen=True)
class Posture:
    """What is taken away."""

    name: str
    root: bool
    namespaces: bool = True
    landlock: bool = True
    seccomp: bool = True

    @property
    def tier(self) -> str:
        """The most that the engine can have here, as it is spelled in its reports."""
        if self.namespaces and self.seccomp:
            return "namespaces"
        return "confined" if self.landlock and self.seccomp else "process"


POSTURES = {
    one.name: one
    for one in (
        Posture("root", root=True),
        Posture("root_no_namespaces", root=True, namespaces=False),
        Posture("root_no_landlock", root=True, landlock=False),
        Posture("no_root", root=False),
        Posture("no_root_no_namespaces", root=False, namespaces=False),
        Posture("no_landlock", root=False, namespaces=False, landlock=False),
        Posture("plain", root=False, namespaces=False, landlock=False, seccomp=False),
    )
}


class NotInForceError(Exception):
    """What was to be taken away is still there."""


_libc = ctypes.CDLL(None, use_errno=True)


def command(
    name: str, arguments: Sequence[str | os.PathLike[str]], names: Path | None = None
) -> list[str | os.PathLike[str]]:
    """The command line that runs ``arguments`` under a posture."""
    return [sys.executable, "-I", __file__, name, *([names] if names else []), "--", *arguments]


def unavailable(name: str) -> str | None:
    """Why a posture can't be made here; None where it can."""
    if sys.platform != "linux" or platform.machine() not in _NUMBERS:
        return "postures are made for Linux on x86_64 and aarch64"
    if os.geteuid() != 0:
        return "postures are made by root alone; run as root, or with sudo"
    failed = _in_child(_can_contain)
    if failed:
        return f"no process and mount namespaces for a test to run in: {failed}"
    failed = _in_child(lambda: _apply(POSTURES[name]))
    return f"the posture `{name}` can't be made here: {failed}" if failed else None


def usable_by(uid: int, paths: Sequence[Path]) -> Path | None:
    """The first path that a user may execute or enter, shown by trying."""
    for path in paths:

        def attempt(path: Path = path) -> None:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            # Not `access`, which knows nothing of the folders on the way through links.
            if not path.exists() or not os.access(path.resolve(), os.X_OK):
                raise NotInForceError(f"{path} is out of reach")

        if not _in_child(attempt):
            return path
    return None


def run(posture: Posture, arguments: Sequence[str], names: str | None = None) -> NoReturn:
    """Become the parent of a container that runs the command under the posture; exits as the command does."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _call("unshare", _CLONE_NEWPID | _CLONE_NEWNS | _CLONE_NEWUTS)
    first = os.fork()
    if first:
        # Signals are sent to the command itself by whoever wants it to end.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        os._exit(_status(os.waitpid(first, 0)[1]))
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    _mount_own_proc()
    if names:
        target = os.path.realpath("/etc/resolv.conf")
        _call("mount", os.fsencode(names), os.fsencode(target), 0, ctypes.c_ulong(_MS_BIND), 0)
    command = os.fork()
    if command:
        while True:
            pid, status = os.wait()
            if pid == command:
                os._exit(_status(status))
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        _apply(posture)
        if posture.root:
            os.environ.setdefault("USER", "root")
        os.execvp(arguments[0], list(arguments))
    except (OSError, NotInForceError) as error:
        os.write(2, f"posture {posture.name}: {error}\n".encode())
        os._exit(125)


def _apply(posture: Posture) -> None:
    """Take it away from this process, and look whether it is gone. Raises OSError or NotInForceError."""
    rules = {**({} if posture.namespaces else _NAMESPACES), **({} if posture.landlock else _LANDLOCK)}
    if rules or not posture.seccomp:
        _install(_program(rules, seccomp=posture.seccomp, clone=posture.namespaces))
    if not posture.namespaces:
        _drop_capabilities(_DOCKER_CAPABILITIES)
    if not posture.root:
        os.setgroups([])
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)
        _drop_effective(frozenset())
    failed = _in_child(lambda: _check(posture))
    if failed:
        raise NotInForceError(failed)


def _check(posture: Posture) -> None:
    """Every effect of the posture, and that nothing else was taken away."""
    if posture.root:
        _must(os.getresuid() == (0, 0, 0), "uid 0")
    else:
        _must(os.getresuid() == (UID,) * 3 and os.getresgid() == (UID,) * 3, f"uid {UID}")
        _must(not os.getgroups(), "no groups")
        _must(_capabilities() == 0, "no capabilities")
        _must(_refused("setresuid", 0, 0, 0) == errno.EPERM, "no way back to root")
    _must(_prctl(_PR_GET_NO_NEW_PRIVS) == 0, "that no_new_privs is left to the engine")
    if posture.landlock:
        _must(_refused("landlock_create_ruleset", 0, 0, _LANDLOCK_VERSION) == 0, "Landlock")
    else:
        for call in _LANDLOCK:
            _must(_refused(call, 0, 0, _LANDLOCK_VERSION) == errno.ENOSYS, f"{call} away")
    if posture.namespaces:
        kind = _CLONE_NEWNS if posture.root else _CLONE_NEWUSER
        failed = _in_child(lambda: _call("unshare", kind))
        _must(not failed, f"a namespace ({failed})")
    else:
        for flag in (_CLONE_NEWNS, _CLONE_NEWUSER, _CLONE_NEWPID, 0x40000000):
            _must(_refused("unshare", flag) == errno.EPERM, f"unshare({flag:#x}) away")
            _must(
                _refused("clone", flag | signal.SIGCHLD, 0, 0, 0, 0) == errno.EPERM, f"clone({flag:#x}) away"
            )
        _must(_refused("clone3", 0, 0) == errno.ENOSYS, "clone3 away")
        for call in ("setns", "mount", "umount2", "pivot_root", "fsopen", "open_tree"):
            _must(_refused(call, 0, 0, 0, 0, 0) == errno.EPERM, f"{call} away")
        _must(_capabilities() & ~_bits(_DOCKER_CAPABILITIES) == 0, "Docker's capabilities at most")
        _must(_prctl(_PR_CAPBSET_READ, 21) == 0, "CAP_SYS_ADMIN out of the bounding set")
    if posture.seccomp:
        failed = _in_child(_own_filter)
        _must(not failed, f"a filter of its own ({failed})")
    else:
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        filter, keep = _as_program(_program({}, seccomp=True, clone=True))
        _must(
            _refused("prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, filter) == errno.EINVAL,
            "PR_SET_SECCOMP away",
        )
        _must(_refused("seccomp", 1, 0, filter) == errno.EINVAL, "seccomp(2) away")
        del keep


def _own_filter() -> None:
    """Install a filter as the engine would, and see it work."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _install(_program({"mount": errno.EXDEV}, seccomp=True, clone=True))
    # Where two filters answer, the first installed wins among errors; either number is a refusal.
    _must(_refused("mount", 0, 0, 0, 0, 0) in (errno.EXDEV, errno.EPERM), "that its own filter works")


def _must(true: bool, what: str) -> None:
    if not true:
        raise NotInForceError(f"{what} expected, and it is not so")


# Filters.


def _program(rules: dict[str, int], *, seccomp: bool, clone: bool) -> bytes:
    """A classic BPF program: these calls fail with these numbers, others are as they were."""
    machine = platform.machine()
    numbers = _NUMBERS[machine]
    out: list[bytes] = []

    def add(code: int, value: int, yes: int = 0, no: int = 0) -> None:
        out.append(struct.pack("=HBBI", code, yes, no, value))

    load, equal, at_least, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, fail = 0x7FFF0000, 0x00050000
    add(load, 4)
    add(equal, _ARCHITECTURES[machine], 1, 0)
    add(answer, fail | errno.ENOSYS)
    add(load, 0)
    if machine == "x86_64":
        # The x32 numbers of the same calls.
        add(at_least, 0x40000000, 0, 1)
        add(answer, fail | errno.ENOSYS)
    for name, number in rules.items():
        add(equal, numbers[name], 0, 1)
        add(answer, fail | number)
    if not clone:
        add(equal, numbers["clone"], 0, 4)
        add(load, 16)
        add(any_bit, _CLONE_NEW_ANY, 0, 1)
        add(answer, fail | errno.EPERM)
        add(answer, allow)
    if not seccomp:
        add(equal, numbers["seccomp"], 0, 1)
        add(answer, fail | errno.EINVAL)
        add(equal, numbers["prctl"], 0, 3)
        add(load, 16)
        add(equal, _PR_SET_SECCOMP, 0, 1)
        add(answer, fail | errno.EINVAL)
    add(answer, allow)
    return b"".join(out)


def _as_program(code: bytes) -> tuple[int, object]:
    """The address of a `struct sock_fprog`, and what must be kept for as long as it is used."""
    text = ctypes.create_string_buffer(code)
    holder = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(text)))
    return ctypes.addressof(holder), (text, holder)


def _install(code: bytes) -> None:
    """Without no_new_privs where root can, because that is the engine's own layer."""
    address, keep = _as_program(code)
    if _libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.c_ulong(address), 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"installing a filter: {os.strerror(number)}")
    del keep


# Capabilities.


def _bits(capabilities: frozenset[int]) -> int:
    return sum(1 << number for number in capabilities)


def _capabilities() -> int:
    """Permitted and effective ones together."""
    found = 0
    for line in Path("/proc/thread-self/status").read_text().splitlines():
        if line.startswith(("CapPrm:", "CapEff:")):
            found |= int(line.split()[1], 16)
    return found


def _drop_capabilities(kept: frozenset[int]) -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for number in range(last + 1):
        if number not in kept and _prctl(_PR_CAPBSET_READ, number) == 1:
            _prctl(_PR_CAPBSET_DROP, number)
    _drop_effective(kept)


def _drop_effective(kept: frozenset[int]) -> None:
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    mask = _bits(kept) & _capabilities()
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0))
    data = ctypes.create_string_buffer(struct.pack("=6I", low, low, 0, high, high, 0))
    _call("capset", header, data)


# Containment, calls, children.


def _can_contain() -> None:
    _call("unshare", _CLONE_NEWPID | _CLONE_NEWNS | _CLONE_NEWUTS)


def _mount_own_proc() -> None:
    _call("mount", b"none", b"/", 0, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), 0)
    _call("mount", b"proc", b"/proc", b"proc", ctypes.c_ulong(14), 0)


def _prctl(option: int, *values: int) -> int:
    padded = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    found: int = _libc.prctl(option, *padded)
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")
    return found


def _call(name: str, *arguments: object) -> int:
    function = getattr(_libc, name)
    found: int = function(*arguments)
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return found


def _refused(name: str, *arguments: int) -> int:
    """The error of a system call; 0 where it did what it was asked."""
    numbers = _NUMBERS[platform.machine()] | {
        "setresuid": {"x86_64": 117, "aarch64": 147}[platform.machine()]
    }
    found = _libc.syscall(ctypes.c_long(numbers[name]), *(ctypes.c_ulong(value) for value in arguments))
    return ctypes.get_errno() if found < 0 else 0


def _in_child(action: Callable[[], object]) -> str:
    """What went wrong in a child that does it; empty where nothing did."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException as error:
            os.write(writing, (str(error) or repr(error)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        said = file.read().decode()
    status = os.waitpid(child, 0)[1]
    return said or (f"it ended with status {status}" if status else "")


def _status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def main() -> None:
    """The command line."""
    if len(sys.argv) < 4 or sys.argv[1] not in POSTURES or "--" not in sys.argv[2:4]:
        sys.exit(f"usage: postures.py ({'|'.join(POSTURES)}) [NAMES] -- COMMAND…")
    dashes = sys.argv.index("--")
    run(POSTURES[sys.argv[1]], sys.argv[dashes + 1 :], sys.argv[2] if dashes == 3 else None)


if __name__ == "__main__":
    main()
