"""Attacks by descriptors that a worker may have been left with. See weft's `attacking`."""

from attacking import Aim, Loot, armed, attack, reach, syscall

os = armed("os")

array, fcntl, stat = armed("array"), armed("fcntl"), armed("stat")

_OWN = (0, 1, 2, 3)


@attack
def inherited(aim: Aim, loot: Loot) -> None:
    """Any open descriptor beside the standard ones and the attempt's own socket."""
    for fd in range(4, 4096):
        try:
            flags = fcntl.fcntl(fd, fcntl.F_GETFD)
        except OSError:
            continue
        try:
            what = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            what = oct(os.fstat(fd).st_mode)
        if what.startswith("/proc/") or "eventpoll" in what:
            continue
        loot.got(f"descriptor {fd}", (what, flags))


@attack
def standard_ones(aim: Aim, loot: Loot) -> None:
    """Standard input with something to read, output that can be read back."""
    if not stat.S_ISCHR(os.fstat(0).st_mode):
        loot.got("standard input is not the null device", oct(os.fstat(0).st_mode))
    loot.attempt("read from standard input", lambda: os.read(0, 16))
    for fd in (1, 2):
        os.set_blocking(fd, False)
        loot.attempt(f"read from {fd}", lambda fd=fd: os.read(fd, 4096))
        loot.attempt(f"reopen {fd} for reading", lambda fd=fd: _reopened(fd))
        os.set_blocking(fd, True)


def _reopened(fd: int) -> bytes:
    # The pipe of this attempt alone; what others wrote must not come out of it.
    other = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(other, 4096)
    finally:
        os.close(other)


@attack
def socket_s_other_end(aim: Aim, loot: Loot) -> None:
    """Who is at the other end of the attempt's socket, and its descriptors."""
    socket = reach("socket")
    with socket.socket(fileno=os.dup(3)) as link:
        if link.family != socket.AF_UNIX:
            loot.got("the attempt's socket is no pair", link.family)
        name = link.getpeername()
        if name:
            loot.got("the other end has a name", name)
        link.setblocking(False)
        loot.attempt("descriptors sent along", lambda: link.recvmsg(4096, 4096, socket.MSG_PEEK)[1])


@attack
def peer_by_descriptor(aim: Aim, loot: Loot) -> None:
    """SO_PEERPIDFD: a descriptor of whoever made the attempt's socket, past process namespaces."""
    socket = reach("socket")
    link = socket.socket(fileno=os.dup(3))
    pidfd = link.getsockopt(socket.SOL_SOCKET, 77)
    loot.attempt("signal", lambda: syscall("pidfd_send_signal", pidfd, 0, 0, 0) == 0 and "sent")
    loot.attempt("descriptor", lambda: syscall("pidfd_getfd", pidfd, 0, 0) >= 0 and "fetched")
    for name, flag in {
        "mount": 0x20000,
        "network": 0x40000000,
        "process": 0x20000000,
        "user": 0x10000000,
    }.items():
        loot.attempt(f"{name} namespace", lambda flag=flag: syscall("setns", pidfd, flag) == 0 and "entered")
    for number in range(0xFF01, 0xFF0B):
        # PIDFD_GET_*_NAMESPACE of newer kernels.
        loot.attempt(
            f"namespace descriptor {number:#x}",
            lambda number=number: fcntl.ioctl(pidfd, number) >= 0 and "opened",
        )


@attack
def passed_around(aim: Aim, loot: Loot) -> None:
    """A socket of the attempt sent to whoever listens outside."""
    socket = reach("socket")
    for address in (aim.unix_path, "\0" + str(aim.abstract)):

        def send(address: str = address) -> str:
            with socket.socket(socket.AF_UNIX) as one:
                one.settimeout(1)
                one.connect(address)
                one.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [3]))])
                return "sent"

        loot.attempt(f"sent to {address!r}", send)


@attack
def guessed(aim: Aim, loot: Loot) -> None:
    """Descriptors of others, fetched by pidfd."""
    for who in ("handler", "zygote", "victim"):
        pid = getattr(aim, who)
        if not pid or pid == os.getpid():
            continue

        def fetch(pid: int = pid) -> list[str]:
            pidfd = syscall("pidfd_open", pid, 0)
            return [os.readlink(f"/proc/self/fd/{syscall('pidfd_getfd', pidfd, fd, 0)}") for fd in range(6)]

        loot.attempt(f"descriptors of {who}", fetch)


@attack
def raised_limit(aim: Aim, loot: Loot) -> None:
    """More descriptors than the limit."""
    resource = reach("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft > 4096:
        loot.got("descriptors without a limit", soft)
    loot.attempt(
        "limit raised", lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (hard + 1, hard + 1)) or "raised"
    )
    held = []
    try:
        while len(held) < 8192:
            held.append(os.dup(0))
    except OSError:
        pass
    if len(held) > 4096:
        loot.got("descriptors", len(held))
    for fd in held:
        os.close(fd)
