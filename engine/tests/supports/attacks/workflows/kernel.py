"""Attacks on the kernel's own surface: calls that no step needs and that have been ways out. See weft's `attacking`.

Each is made with arguments that do no harm. It is withstood when it is refused (EPERM, EACCES, ENOSYS) or the process is
killed for it; any other answer means that the kernel's code was reached.
"""

from attacking import NUMBERS, Aim, Loot, armed, attack, child, ctypes, libc, read, syscall

os = armed("os")

struct = armed("struct")

_NAMESPACES = {
    "user": 0x10000000, "mount": 0x20000, "process": 0x20000000, "network": 0x40000000, "ipc": 0x08000000, "uts": 0x04000000,
    "cgroup": 0x02000000, "time": 0x80,
}  # fmt: skip


def _in_child(action) -> str:  # type: ignore[no-untyped-def]
    pid = child(action)
    return "done" if os.waitpid(pid, 0)[1] == 0 else ""


@attack
def namespaces(aim: Aim, loot: Loot) -> None:
    """New namespaces, where all capabilities are had again."""
    for name, flag in _NAMESPACES.items():
        loot.attempt(f"unshare {name}", lambda flag=flag: _in_child(lambda: syscall("unshare", flag)))


@attack
def namespaces_without_fork(aim: Aim, loot: Loot) -> None:
    """The same in this very process."""
    for name, flag in _NAMESPACES.items():
        loot.attempt(f"unshare {name}", lambda flag=flag: syscall("unshare", flag) == 0 and "left")


@attack
def clones(aim: Aim, loot: Loot) -> None:
    """clone() and clone3() with namespaces; clone3's flags can't be seen by a filter, so it must not be there."""
    types = ctypes()
    for name, flag in _NAMESPACES.items():
        if flag >= 0x1000:

            def made(flag: int = flag) -> str:
                pid = syscall("clone", flag | 17, 0, 0, 0, 0)
                if pid == 0:
                    os._exit(0)
                os.waitpid(pid, 0)
                return "made"

            loot.attempt(f"clone {name}", made)
    arguments = types.create_string_buffer(struct.pack("=8Q", 0x10000000, 0, 0, 0, 17, 0, 0, 0))

    def made3() -> str:
        pid = syscall("clone3", arguments, 64)
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        return "made"

    loot.attempt("clone3 user", made3)
    loot.reached("clone3", 0, 0)


@attack
def enters_namespaces(aim: Aim, loot: Loot) -> None:
    """setns into those of others."""
    for pid in (1, aim.handler, aim.zygote):
        for name in ("mnt", "pid", "net", "user", "ipc"):

            def enter(pid: int = pid, name: str = name) -> str:
                fd = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
                return "entered" if syscall("setns", fd, 0) == 0 else ""

            loot.attempt(f"{name} of {pid}", enter)
    loot.reached("setns", 0xFFFFFFFF, 0)


@attack
def surface(aim: Aim, loot: Loot) -> None:
    """Calls with a history."""
    for name, arguments in {
        "io_uring_setup": (0, 0), "bpf": (0, 0, 0), "perf_event_open": (0, 0, -1, -1, 0), "userfaultfd": (0xFFFF,),
        "keyctl": (0xFFFF, 0, 0, 0, 0), "add_key": (0, 0, 0, 0, 0), "request_key": (0, 0, 0, 0), "memfd_secret": (0xFFFF,),
        "fanotify_init": (0xFFFF, 0), "kcmp": (0, 0, 99, 0, 0), "move_pages": (0, 0, 0, 0, 0, 99), "migrate_pages": (0, 0, 0, 0),
        "init_module": (0, 0, 0), "finit_module": (-1, 0, 0xFFFF), "kexec_load": (0, 99, 0, 0), "acct": (1,), "swapon": (0, 0),
        "quotactl": (0xFFFF, 0, 0, 0), "syslog": (99, 0, 0), "process_madvise": (-1, 0, 0, 0, 0), "clock_settime": (99, 0),
        "mount_setattr": (-1, 0, 0xFFFF, 0, 0), "fsopen": (0, 0xFFFF), "lookup_dcookie": (0, 0, 0), "modify_ldt": (99, 0, 0),
        "ptrace": (0xFFFF, 0, 0, 0), "iopl": (99,), "process_vm_readv": (os.getpid(), 0, 0, 0, 0, 99),
    }.items():  # fmt: skip
        if name in NUMBERS:
            loot.reached(name, *arguments)


@attack
def hidden_memory(aim: Aim, loot: Loot) -> None:
    """Memory that no rlimit counts, and programs without a file."""
    loot.attempt("memfd_create", lambda: os.memfd_create("attack") >= 0 and "made")
    loot.attempt("memfd_create, raw", lambda: syscall("memfd_create", b"attack", 0) >= 0 and "made")


@attack
def shared_objects(aim: Aim, loot: Loot) -> None:
    """System V shared memory, semaphores and messages, POSIX queues: seen by others, and left behind."""
    key = int(aim.ipc_key or 0x57EF7)
    # Where there is an IPC namespace of its own nobody sees them; the suite looks for what is left.
    for name, arguments in {
        "shmget": (key, 4096, 0o1666),
        "semget": (key, 1, 0o1666),
        "msgget": (key, 0o1666),
    }.items():
        found = None
        try:
            found = syscall(name, *arguments)
        except Exception:
            continue
        if found is not None and aim.shared_ipc:
            loot.got(f"{name} works", found)
    for name, arguments in {
        "shmget": (aim.outside_key, 0, 0),
        "semget": (aim.outside_key, 0, 0),
        "msgget": (aim.outside_key, 0),
    }.items():
        loot.attempt(
            f"{name} of somebody outside",
            lambda name=name, arguments=arguments: syscall(name, *arguments) >= 0 and "found",
        )
    try:
        syscall("mq_open", f"weft-attack-{aim.token}".encode(), os.O_CREAT | os.O_RDWR, 0o666, 0)
    except Exception:
        pass


@attack
def personalities(aim: Aim, loot: Loot) -> None:
    """Another personality: no random addresses, readable means executable, foreign calls."""
    for name, value in {
        "no random addresses": 0x0040000,
        "read implies exec": 0x0400000,
        "svr4": 0x0001 | 0x4000000,
        "bsd": 0x0006,
    }.items():

        def change(value: int = value) -> str:
            before = syscall("personality", 0xFFFFFFFF)
            syscall("personality", value)
            after = syscall("personality", 0xFFFFFFFF)
            syscall("personality", before)
            return hex(after) if after == value else ""

        loot.attempt(name, change)


@attack
def x32(aim: Aim, loot: Loot) -> None:
    """The same calls by their other numbers."""
    if os.uname().machine != "x86_64":
        return
    # 1000 and above are numbers of the x32 table alone; all others are as on x86_64.
    loot.attempt("getpid", lambda: syscall(0x40000000 | 39) == os.getpid() and "answers")
    loot.attempt("socket", lambda: syscall(0x40000000 | 41, 2, 1, 0) >= 0 and "made")
    loot.attempt("unshare", lambda: syscall(0x40000000 | 272, 0) == 0 and "answers")
    loot.attempt("ptrace", lambda: syscall(0x40000000 | 521, 0, 0, 0, 0) == 0 and "answers")


@attack
def old_gate(aim: Aim, loot: Loot) -> None:
    """int 0x80: calls of a 32-bit program from a 64-bit one, which have other numbers (20 is getpid)."""
    if os.uname().machine != "x86_64":
        return
    mmap, types = armed("mmap"), ctypes()
    with mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
        at = types.addressof(types.c_char.from_buffer(page))
        found = types.CFUNCTYPE(types.c_int)(at)()
        if found == os.getpid():
            loot.got("getpid by int 0x80", found)


@attack
def shows_itself(aim: Aim, loot: Loot) -> None:
    """Undo what was set: dumpable again, no_new_privs off, a filter lifted, another parent-death signal."""

    def dumpable() -> str:
        syscall("prctl", 4, 1, 0, 0, 0)
        return "again" if syscall("prctl", 3, 0, 0, 0, 0) == 1 and aim.counts_dumpable else ""

    loot.attempt("dumpable", dumpable)
    loot.attempt("no_new_privs off", lambda: syscall("prctl", 38, 0, 0, 0, 0) == 0 and "off")
    loot.attempt("seccomp off", lambda: syscall("prctl", 22, 0, 0, 0, 0) == 0 and "off")
    loot.attempt(
        "time-stamp counter off for others", lambda: syscall("prctl", 26, 99, 0, 0, 0) == 0 and "off"
    )
    loot.attempt("status", _what_status_shows)


def _what_status_shows() -> list[str]:
    found = []
    for line in read("/proc/self/status").decode().splitlines():
        name, _, value = line.partition(":")
        if (name == "NoNewPrivs" and value.strip() == "0") or (
            name in ("CapEff", "CapPrm", "CapInh", "CapAmb") and int(value, 16)
        ):
            found.append(line)
    return found


@attack
def hostname(aim: Aim, loot: Loot) -> None:
    """The machine's name, changed for all."""
    loot.attempt("sethostname", lambda: libc().sethostname(b"attacked", 8) == 0 and "changed")


@attack
def splices(aim: Aim, loot: Loot) -> None:
    """Write through a read-only file by splice, as the dirty pipe did: the kernel mends it, the file stays."""
    path = os.path.abspath(__file__)
    before = read(path, 32)

    def dirty() -> str:
        fd = os.open(path, os.O_RDONLY)
        reading, writing = os.pipe()
        for _ in range(16):
            os.write(writing, b"x" * 4096)
            os.read(reading, 4096)
        syscall("splice", fd, ctypes().byref(ctypes().c_int64(0)), writing, 0, 1, 0)
        os.write(writing, b"X")
        return "changed" if read(path, 32) != before else ""

    loot.attempt("dirty pipe", dirty)
