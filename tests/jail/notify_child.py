"""Runs a script under a filter that has `connect()` answered by somebody else, as jailed workers do.

usage: notify_child.py SOCKET_FD SCRIPT

Installs a seccomp filter whose listener goes over the inherited socket, then runs the script as `__main__`.
"""

import ctypes
import os
import platform
import runpy
import socket
import struct
import sys

PR_SET_NO_NEW_PRIVS = 38
SECCOMP_SET_MODE_FILTER = 1
SECCOMP_FILTER_FLAG_NEW_LISTENER = 8
SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV = 32
SECCOMP_RET_ALLOW = 0x7FFF0000
SECCOMP_RET_USER_NOTIF = 0x7FC00000
BPF_LD_W_ABS = 0x20
BPF_JMP_JEQ_K = 0x15
BPF_RET_K = 0x06
NUMBERS = {"x86_64": (317, 42), "aarch64": (277, 203)}  # seccomp, connect


def install() -> int:
    """The listener's descriptor."""
    seccomp, connect = NUMBERS[platform.machine()]
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (BPF_LD_W_ABS, 0, 0, 0),
            (BPF_JMP_JEQ_K, 0, 1, connect),
            (BPF_RET_K, 0, 0, SECCOMP_RET_USER_NOTIF),
            (BPF_RET_K, 0, 0, SECCOMP_RET_ALLOW),
        )
    )
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
    listener: int = libc.syscall(seccomp, SECCOMP_SET_MODE_FILTER, flags, header)
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return listener


def main() -> None:
    handler = socket.socket(fileno=int(sys.argv[1]))
    listener = install()
    socket.send_fds(handler, [b"l"], [listener])
    os.close(listener)
    handler.close()
    # The system's own name server is somewhere else, but every connection to port 53 is answered.
    os.environ["RES_OPTIONS"] = "use-vc attempts:1"
    script = sys.argv[2]
    sys.argv = sys.argv[2:]
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
