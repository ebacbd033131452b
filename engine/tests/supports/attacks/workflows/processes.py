"""Attacks on other processes: signals, tracing, their memory, limits and priorities. See weft's `attacking`.

Where one works, something dies or stops; the suite looks for that as well.
"""

from attacking import Aim, Loot, armed, attack, child, ctypes, libc, linger, others, reach, syscall

os = armed("os")

signal, struct, fcntl = armed("signal"), armed("struct"), armed("fcntl")


@attack
def reaches_others(aim: Aim, loot: Loot) -> None:
    """A signal that does nothing, to see who could be killed."""
    for who, pid in others(aim).items():
        loot.attempt(f"signal to {who}", lambda pid=pid: os.kill(pid, 0) or pid)
        loot.attempt(f"signal to the group of {who}", lambda pid=pid: os.killpg(pid, 0) or pid)
        loot.attempt(f"tgkill {who}", lambda pid=pid: syscall("tgkill", pid, pid, 0) == 0 and pid)
        loot.attempt(f"tkill {who}", lambda pid=pid: syscall("tkill", pid, 0) == 0 and pid)
    loot.attempt("signal to everybody", lambda: os.kill(-1, 0) or "sent")


@attack
def kills_by_pidfd(aim: Aim, loot: Loot) -> None:
    """The same, by a descriptor of the process."""
    for who, pid in others(aim).items():

        def by_descriptor(pid: int = pid) -> int:
            pidfd = syscall("pidfd_open", pid, 0)
            syscall("pidfd_send_signal", pidfd, 0, 0, 0)
            return pid

        loot.attempt(f"pidfd signal to {who}", by_descriptor)


@attack
def stops_zygote(aim: Aim, loot: Loot) -> None:
    """A zygote that is stopped forks nobody, and dies of nothing."""
    for who, pid in others(aim).items():
        if who in ("zygote", "parent"):
            loot.attempt(f"stopped {who}", lambda pid=pid: _stopped(pid))


def _stopped(pid: int) -> str:
    os.kill(pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGCONT)
    return "stopped"


@attack
def kills_victim(aim: Aim, loot: Loot) -> None:
    """The other organization's run, and those beside it."""
    for who, pid in others(aim).items():
        if who == "victim" or who.startswith("sibling"):
            loot.attempt(f"killed {who}", lambda pid=pid: os.kill(pid, signal.SIGUSR1) or pid)


@attack
def traces(aim: Aim, loot: Loot) -> None:
    """PTRACE_SEIZE, which does not stop it."""
    for who, pid in others(aim).items():
        loot.attempt(f"traced {who}", lambda pid=pid: syscall("ptrace", 0x4206, pid, 0, 0) == 0 and "seized")


@attack
def lets_itself_be_traced(aim: Aim, loot: Loot) -> None:
    """Anybody may trace this process: PR_SET_PTRACER with any."""
    loot.attempt("PTRACE_TRACEME", lambda: syscall("ptrace", 0, 0, 0, 0) == 0 and "traced by its parent")


@attack
def reads_memory(aim: Aim, loot: Loot) -> None:
    """process_vm_readv and process_vm_writev, at addresses that a fork shares with its zygote."""
    types = ctypes()
    buffer = types.create_string_buffer(16)
    here = types.addressof(types.create_string_buffer(b"x" * 16))
    for who, pid in others(aim).items():
        for address in (here, id(None), types.cast(libc().getpid, types.c_void_p).value):
            local = types.create_string_buffer(struct.pack("=QQ", types.addressof(buffer), 16))
            remote = types.create_string_buffer(struct.pack("=QQ", address, 16))
            loot.attempt(
                f"memory of {who}",
                lambda pid=pid, a=local, b=remote: (
                    syscall("process_vm_readv", pid, a, 1, b, 1, 0) > 0 and bytes(buffer.raw)
                ),
            )
            empty = types.create_string_buffer(struct.pack("=QQ", address, 0))
            loot.attempt(
                f"memory of {who} for writing",
                lambda pid=pid, a=local, b=empty: (
                    syscall("process_vm_writev", pid, a, 1, b, 1, 0) >= 0 and "writable"
                ),
            )


@attack
def limits_of_others(aim: Aim, loot: Loot) -> None:
    """Their limits, read and lowered (to what they are)."""
    types = ctypes()
    for who, pid in others(aim).items():
        old = types.create_string_buffer(16)
        loot.attempt(
            f"limits of {who}", lambda pid=pid, old=old: syscall("prlimit64", pid, 7, 0, old) == 0 and old.raw
        )
        loot.attempt(
            f"limits of {who} set",
            lambda pid=pid, old=old: syscall("prlimit64", pid, 7, old, 0) == 0 and "set",
        )


@attack
def scheduling_of_others(aim: Aim, loot: Loot) -> None:
    """Priority, policy, processors and input/output class."""
    types = ctypes()
    mask = types.create_string_buffer(b"\xff" * 8, 8)
    zero = types.create_string_buffer(64)
    for who, pid in others(aim).items():
        loot.attempt(
            f"processors of {who}", lambda pid=pid: syscall("sched_setaffinity", pid, 8, mask) == 0 and "set"
        )
        loot.attempt(f"priority of {who}", lambda pid=pid: syscall("setpriority", 0, pid, 0) == 0 and "set")
        loot.attempt(
            f"policy of {who}", lambda pid=pid: syscall("sched_setscheduler", pid, 0, zero) == 0 and "set"
        )
        loot.attempt(f"io class of {who}", lambda pid=pid: syscall("ioprio_set", 1, pid, 0) == 0 and "set")
        loot.attempt(f"group of {who}", lambda pid=pid: syscall("setpgid", pid, 0) == 0 and "set")
        loot.attempt(
            f"pages of {who}", lambda pid=pid: syscall("move_pages", pid, 0, 0, 0, 0, 0) == 0 and "asked"
        )


@attack
def signals_by_ownership(aim: Aim, loot: Loot) -> None:
    """A descriptor owned by somebody else, who is sent a signal of our choice when data arrives: three ways to say so.

    The suite sees who died or stopped.
    """
    socket = reach("socket")
    for who, pid in others(aim).items():
        number = signal.SIGSTOP if who == "zygote" else signal.SIGKILL if who == "victim" else signal.SIGCONT
        for way in ("fcntl", "ioctl", "thread"):
            one, other = socket.socketpair()
            try:
                fcntl.fcntl(one, 10, int(number))
                if way == "fcntl":
                    fcntl.fcntl(one, fcntl.F_SETOWN, pid)
                elif way == "ioctl":
                    fcntl.ioctl(one, 0x8901, struct.pack("=i", pid))
                else:
                    fcntl.fcntl(one, 15, struct.pack("=ii", 0, pid))
                fcntl.fcntl(one, fcntl.F_SETFL, fcntl.fcntl(one, fcntl.F_GETFL) | os.O_ASYNC)
                other.sendall(b"now")
            except Exception:
                continue
    linger(0.1)
    # Who has no say in it gets the signal from itself alone; whether anybody did is seen from outside.


@attack
def queues_signals(aim: Aim, loot: Loot) -> None:
    """The calls that carry a value with the signal."""
    types = ctypes()
    info = types.create_string_buffer(struct.pack("=iii", 0, 0, -1), 128)
    for who, pid in others(aim).items():
        loot.attempt(
            f"queued for {who}", lambda pid=pid: syscall("rt_sigqueueinfo", pid, 0, info) == 0 and pid
        )


@attack
def favours_by_group(aim: Aim, loot: Loot) -> None:
    """Priorities of whole groups and users, and the newer call."""
    types = ctypes()
    plain = types.create_string_buffer(struct.pack("=IIQiI", 48, 0, 0, 0, 0), 48)
    for who, pid in others(aim).items():
        loot.attempt(
            f"attributes of {who}", lambda pid=pid: syscall("sched_setattr", pid, plain, 0) == 0 and "set"
        )
        loot.attempt(
            f"priority of the group of {who}",
            lambda pid=pid: syscall("setpriority", 1, pid, 0) == 0 and "set",
        )
        loot.attempt(
            f"io class of the group of {who}", lambda pid=pid: syscall("ioprio_set", 2, pid, 0) == 0 and "set"
        )
    if os.getuid() == aim.uid:
        loot.attempt(
            "priority of the handler's user", lambda: syscall("setpriority", 2, aim.uid, 0) == 0 and "set"
        )
        loot.attempt(
            "io class of the handler's user", lambda: syscall("ioprio_set", 3, aim.uid, 0) == 0 and "set"
        )


@attack
def better_than_others(aim: Aim, loot: Loot) -> None:
    """More than its share for itself."""
    loot.attempt("nicer", lambda: os.setpriority(os.PRIO_PROCESS, 0, -10) or "set")
    loot.attempt("real time", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)) or "set")
    types = ctypes()
    loot.attempt("io first", lambda: syscall("ioprio_set", 1, 0, 1 << 13) == 0 and "set")
    loot.attempt("locked in memory", lambda: _locked(types))


def _locked(types) -> str:  # type: ignore[no-untyped-def]
    size = 256 << 20
    held = types.create_string_buffer(1)
    del held
    memory = libc().mmap
    memory.restype = types.c_void_p
    at = memory(None, types.c_size_t(size), 3, 0x22, -1, types.c_size_t(0))
    return "locked" if libc().mlock(types.c_void_p(at), types.c_size_t(size)) == 0 else ""


@attack
def compares(aim: Aim, loot: Loot) -> None:
    """kcmp and process_madvise: whether two processes share something."""
    for who, pid in others(aim).items():
        loot.attempt(
            f"compared with {who}", lambda pid=pid: syscall("kcmp", os.getpid(), pid, 1, 0, 0) >= 0 and "told"
        )


@attack
def through_child(aim: Aim, loot: Loot) -> None:
    """The same by a child in a session of its own, which other layers may have forgotten."""

    def from_there() -> None:
        os.setsid()
        for pid in others(aim).values():
            try:
                os.kill(pid, 0)
                os.write(writing, b"%d " % pid)
            except OSError:
                continue

    reading, writing = os.pipe()
    pid = child(from_there)
    os.close(writing)
    os.waitpid(pid, 0)
    own = {pid, os.getpid()}
    loot.attempt("signals", lambda: [one for one in os.read(reading, 256).split() if int(one) not in own])


@attack
def kills_zygote(aim: Aim, loot: Loot) -> None:
    """The parent of everybody, at last."""
    for who, pid in others(aim).items():
        if who in ("zygote", "parent"):
            loot.attempt(f"killed {who}", lambda pid=pid: os.kill(pid, signal.SIGKILL) or pid)
    linger(0.2)


@attack
def kills_handler(aim: Aim, loot: Loot) -> None:
    """And the handler: by a signal that it outlives, because the suite still needs it."""
    if aim.handler:
        loot.attempt("signalled handler", lambda: os.kill(aim.handler, signal.SIGCONT) or aim.handler)


@attack
def kills_all(aim: Aim, loot: Loot) -> None:
    """kill(-1): with SIGCONT, which is refused or allowed like SIGKILL."""
    reached = []
    try:
        os.kill(-1, signal.SIGCONT)
        reached.append("kill(-1) sent")
    except OSError:
        pass
    # In a process namespace of its own it reaches nobody, and says so or not; what counts is who is there.
    if reached and any(_there(pid) for pid in others(aim).values()):
        loot.got(reached[0])


def _there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
