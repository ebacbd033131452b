"""What lies outside of the jail, on a network of its own: services that give a planted secret to whoever comes, and remember it.

Addresses that a cloud gives to its metadata service, private ones and the like are set on the loopback interface of a
network namespace that the test process enters. So attacks on them are real, and nothing leaves the machine.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import secrets
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ADDRESSES = (
    "127.0.0.1", "::1", "169.254.169.254", "169.254.170.2", "169.254.169.253", "168.63.129.16", "10.11.12.13",
    "172.16.5.6", "192.168.7.8", "100.64.1.2", "fd00:ec2::254",
)  # fmt: skip
"""All of them forbidden to every step, whatever its network, but for what the operator has opened."""
FRIEND, FRIEND_NAME, FRIEND_PORT = "10.11.12.13", "files.example.com", 8765
"""Where a server is that some steps may reach, by the network that is opened and by what they declare."""

_CLONE_NEWNET, _CLONE_NEWIPC = 0x40000000, 0x08000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFADDR, _SIOCSIFNETMASK = 0x8913, 0x8914, 0x8916, 0x891C
_IPC_CREAT = 0o1000

_libc = ctypes.CDLL(None, use_errno=True)


def canary() -> str:
    """A secret that is recognized wherever it turns up."""
    return f"CANARY-{secrets.token_hex(8)}"


def leave_network() -> None:
    """Enter a network of this process and its children alone, and IPC objects of its own."""
    if _libc.unshare(_CLONE_NEWNET | _CLONE_NEWIPC) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"unshare: {os.strerror(number)}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack("16sH14x", fcntl.ioctl(one, _SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(one, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | 1))
        number = 0
        for address in ADDRESSES:
            if ":" in address or address.startswith("127."):
                continue
            number += 1
            name = f"lo:{number}".encode()
            for request_code, value in ((_SIOCSIFADDR, address), (_SIOCSIFNETMASK, "255.255.255.255")):
                packed = struct.pack("16sHH4s8x", name, socket.AF_INET, 0, socket.inet_aton(value))
                fcntl.ioctl(one, request_code, packed)
    if socket.has_ipv6:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one, suppress(OSError):
            for address in ADDRESSES:
                if ":" in address and address != "::1":
                    index = socket.if_nametoindex("lo")
                    packed = socket.inet_pton(socket.AF_INET6, address) + struct.pack("=Ii", 128, index)
                    fcntl.ioctl(one, _SIOCSIFADDR, packed)


class Outside:
    """The services, and what they heard."""

    def __init__(self, folder: Path, token: str) -> None:
        self.secret = canary()
        self.token = token
        self.path = folder / "outside.socket"
        self.abstract = f"weft-outside-{token}"
        self.key = 0x57EF0000 | int(token[:4], 16)
        self._heard: list[str] = []
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._closing = threading.Event()
        self.port = self._listen_everywhere()
        self.rendezvous = self._free()
        self._listen_locally()
        self._shared = self._make_objects()

    def heard(self) -> list[str]:
        """What came in since it was last asked."""
        with self._lock:
            heard, self._heard = self._heard, []
        return heard

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Call whoever listens inside, for as long as the block lasts."""
        done = threading.Event()

        def call() -> None:
            while not done.wait(0.1):
                for address in ("127.0.0.1", "10.11.12.13"):
                    with suppress(OSError), socket.create_connection((address, self.rendezvous), 0.2) as one:
                        self._note("an attacker's listener answered", one.recv(64))

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def close(self) -> None:
        """Let go of everything."""
        self._closing.set()
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for call, one in self._shared:
            call(one)

    def _listen_everywhere(self) -> int:
        port = 0
        for family, kind, address in (
            (socket.AF_INET, socket.SOCK_STREAM, "0.0.0.0"),
            (socket.AF_INET, socket.SOCK_DGRAM, "0.0.0.0"),
            (socket.AF_INET6, socket.SOCK_STREAM, "::"),
            (socket.AF_INET6, socket.SOCK_DGRAM, "::"),
        ):
            one = socket.socket(family, kind)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((address, port))
            port = one.getsockname()[1]
            self._serve(one, kind, f"port {port} of {address}")
        for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            one = socket.socket(family, socket.SOCK_STREAM)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # A port that needs no naming in a list.
            try:
                one.bind((address, 80))
            except OSError:
                # Another siege has it.
                one.close()
            else:
                self._serve(one, socket.SOCK_STREAM, f"port 80 of {address}")
        names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            names.bind(("0.0.0.0", 53))
        except OSError:
            # Another siege has it.
            names.close()
        else:
            self._serve(names, socket.SOCK_DGRAM, "the name server")
        return port

    def _listen_locally(self) -> None:
        for address in (str(self.path), "\0" + self.abstract):
            stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            stream.bind(address)
            self._serve(stream, socket.SOCK_STREAM, f"local socket {address!r}")
            datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            datagram.bind(address + ".dgram")
            self._serve(datagram, socket.SOCK_DGRAM, f"local datagram socket {address!r}")
        for path in self.path.parent.glob("outside.socket*"):
            path.chmod(0o777)

    def _serve(self, one: socket.socket, kind: int, what: str) -> None:
        self._open.append(one)
        if kind == socket.SOCK_STREAM:
            one.listen(64)

        def serve() -> None:
            while not self._closing.is_set():
                try:
                    if kind == socket.SOCK_STREAM:
                        caller, address = one.accept()
                        with caller:
                            caller.settimeout(0.5)
                            self._note(what, address)
                            caller.sendall(self.secret.encode())
                            with suppress(OSError):
                                caller.recv(4096)
                    else:
                        data, address = one.recvfrom(65536)
                        answer = _answer(data) if what == "the name server" else None
                        if answer:
                            one.sendto(answer, address)
                            continue
                        self._note(what, data[:64])
                        if address:
                            one.sendto(self.secret.encode(), address)
                except OSError:
                    if self._closing.is_set():
                        return

        threading.Thread(target=serve, daemon=True).start()

    def _note(self, what: str, proof: object) -> None:
        with self._lock:
            self._heard.append(f"{what}: {proof!r}"[:160])

    def _make_objects(self) -> list[tuple[object, int]]:
        memory = _libc.shmget(self.key, 4096, _IPC_CREAT | 0o666)
        semaphores = _libc.semget(self.key, 1, _IPC_CREAT | 0o666)
        queue = _libc.msgget(self.key, _IPC_CREAT | 0o666)
        assert min(memory, semaphores, queue) >= 0, os.strerror(ctypes.get_errno())
        return [
            (lambda one: _libc.shmctl(one, 0, None), memory),
            (lambda one: _libc.semctl(one, 0, 0), semaphores),
            (lambda one: _libc.msgctl(one, 0, None), queue),
        ]

    @staticmethod
    def _free() -> int:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            return int(one.getsockname()[1])


def _answer(question: bytes) -> bytes | None:
    """The answer of a name server to a question for the one name that it knows; None to all others."""
    name = b"".join(bytes([len(label)]) + label.encode() for label in FRIEND_NAME.split(".")) + b"\0"
    asked = question[12 : 12 + len(name) + 4]
    if asked[: len(name)].lower() != name or len(asked) < len(name) + 4:
        return None
    found = b""
    if asked[len(name) : len(name) + 2] == b"\0\1":
        found = struct.pack(">HHHIH", 0xC00C, 1, 1, 1, 4) + socket.inet_aton(FRIEND)
    return question[:2] + struct.pack(">HHHHH", 0x8580, 1, bool(found), 0, 0) + asked + found


def shared_objects() -> set[str]:
    """System V objects of this process's IPC namespace: kind, id, key."""
    found = set()
    for kind in ("shm", "sem", "msg"):
        for line in Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:]:
            key, number = line.split()[:2]
            found.add(f"{kind} {number} (key {key})")
    return found


def remove_object(named: str) -> None:
    """Remove one, as `shared_objects` names it."""
    kind, number = named.split()[:2]
    if kind == "sem":
        _libc.semctl(int(number), 0, 0)
    else:
        getattr(_libc, f"{kind}ctl")(int(number), 0, None)
