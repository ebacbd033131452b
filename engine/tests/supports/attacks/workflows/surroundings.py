"""Attacks on what a process shows of itself: environments and /proc, of this one and of others. See weft's `attacking`."""

from attacking import CANARY, Aim, Loot, armed, attack, ctypes, entries, others, read, run_program

os = armed("os")

re = armed("re")

_HARMLESS = {"PATH", "HOME", "TMPDIR", "LANG", "LC_ALL", "RES_OPTIONS", "PYTHONHASHSEED", "LC_CTYPE"}
_HARMLESS |= {
    name for one in ("http_proxy", "https_proxy", "all_proxy", "no_proxy") for name in (one, one.upper())
}


@attack
def environ(aim: Aim, loot: Loot) -> None:
    """Variables that a step has no need of."""
    for name in set(os.environ) - _HARMLESS:
        loot.got(f"variable {name}", os.environ[name])


@attack
def environ_of_libc(aim: Aim, loot: Loot) -> None:
    """The block that the kernel and libc keep, whatever Python's dictionary says."""

    def own() -> list[str]:
        names = {
            line.partition(b"=")[0].decode(errors="replace")
            for line in read("/proc/self/environ").split(b"\0")
        }
        return sorted(names - _HARMLESS - {""})

    loot.attempt("/proc/self/environ", own)

    def block() -> list[str]:
        types = ctypes()
        pointer = types.POINTER(types.c_char_p).in_dll(types.CDLL(None), "environ")
        found = []
        while pointer and pointer[len(found)]:
            found.append(pointer[len(found)].partition(b"=")[0].decode())
        return sorted(set(found) - _HARMLESS)

    loot.attempt("libc's environ", block)


def _file_of_others(name: str, aim: Aim, loot: Loot) -> None:
    for who, pid in others(aim).items():
        for base in ("/proc", "/proc/self/root/proc"):
            loot.attempt(f"{name} of {who} ({base})", read, f"{base}/{pid}/{name}", 512)


@attack
def environ_of_others(aim: Aim, loot: Loot) -> None:
    """Where app settings are."""
    _file_of_others("environ", aim, loot)


@attack
def cmdline_of_others(aim: Aim, loot: Loot) -> None:
    """Arguments of others."""
    _file_of_others("cmdline", aim, loot)


@attack
def maps_of_others(aim: Aim, loot: Loot) -> None:
    """Where their memory is."""
    for name in ("maps", "smaps", "auxv", "stack", "syscall", "pagemap"):
        _file_of_others(name, aim, loot)


@attack
def stat_of_others(aim: Aim, loot: Loot) -> None:
    """What they are and how they fare."""
    for name in ("status", "stat", "comm", "io", "mountinfo", "cgroup", "limits", "net/tcp", "net/unix"):
        _file_of_others(name, aim, loot)


@attack
def memory_of_others(aim: Aim, loot: Loot) -> None:
    """/proc/PID/mem, read at the first mapping."""
    for who, pid in others(aim).items():

        def first(pid: int = pid) -> bytes:
            fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
            try:
                start = int(read(f"/proc/{pid}/maps", 64).partition(b"-")[0], 16)
                return os.pread(fd, 16, start)
            finally:
                os.close(fd)

        loot.attempt(f"memory of {who}", first)


@attack
def descriptors_of_others(aim: Aim, loot: Loot) -> None:
    """Their open files, and those files opened again."""
    for who, pid in others(aim).items():
        names = loot.attempt(f"descriptors of {who}", entries, f"/proc/{pid}/fd") or ()
        for name in names:
            loot.attempt(f"descriptor {name} of {who}", os.readlink, f"/proc/{pid}/fd/{name}")
            loot.attempt(f"what is behind {name} of {who}", read, f"/proc/{pid}/fd/{name}", 64)


@attack
def folders_of_others(aim: Aim, loot: Loot) -> None:
    """Their root and working directory."""
    for who, pid in others(aim).items():
        for name in ("root", "cwd", "exe"):
            loot.attempt(f"{name} of {who}", os.readlink, f"/proc/{pid}/{name}")
        loot.attempt(f"files below root of {who}", entries, f"/proc/{pid}/root/")
        loot.attempt(f"files in cwd of {who}", entries, f"/proc/{pid}/cwd/")


@attack
def all_processes(aim: Aim, loot: Loot) -> None:
    """Whoever /proc lists beside this one, or answers without being listed."""
    own = {os.getpid()}
    try:
        listed = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        listed = []
    if listed and set(listed) - own:
        loot.got("processes listed", sorted(set(listed) - own)[:8])
    hidden = []
    for pid in [*range(1, 600), *others(aim).values()]:
        if pid not in own and pid not in listed and not os.path.exists(f"/proc/self/task/{pid}"):
            # That a number is in use is no secret; what can be read of it would be.
            try:
                hidden.append((pid, os.listdir(f"/proc/{pid}")[:2]))
            except OSError:
                continue
    if hidden:
        loot.got("processes that aren't listed", hidden[:8])


@attack
def ps(aim: Aim, loot: Loot) -> None:
    """What a program would see."""

    def seen() -> str:
        text = run_program("/bin/ps", "-eo", "args")
        return "; ".join(
            line for line in text.splitlines() if "weft" in line and "zygote" in line and os.getpid() != 1
        )[:150]

    loot.attempt("ps", seen)


@attack
def machine(aim: Aim, loot: Loot) -> None:
    """What /proc and /sys tell of the machine's network, keys, kernel log and configuration."""
    for path in (
        "/proc/net/tcp", "/proc/net/tcp6", "/proc/net/unix", "/proc/net/arp", "/proc/net/route", "/proc/keys",
        "/proc/kcore", "/proc/kallsyms", "/proc/kmsg", "/dev/kmsg", "/dev/mem", "/dev/vda", "/dev/sda",
        "/proc/1/environ", "/proc/1/cmdline", "/proc/sysrq-trigger", "/proc/timer_list", "/proc/sched_debug",
        "/proc/config.gz", "/proc/cmdline", "/sys/kernel/debug/.", "/sys/class/net/eth0/address",
    ):  # fmt: skip
        if path.startswith("/proc/1/") and os.getpid() == 1:
            continue
        if path.startswith("/proc/net/"):
            # In an empty network namespace these hold their heading alone.
            loot.attempt(path, lambda path=path: read(path).splitlines()[1:3])
        else:
            loot.attempt(path, read, path, 64)
    loot.attempt("/sys/class/net", lambda: [name for name in entries("/sys/class/net") if name != "lo"])


@attack
def canaries_around(aim: Aim, loot: Loot) -> None:
    """Planted secrets in any file of /proc/self."""
    for name in (
        "environ",
        "cmdline",
        "maps",
        "mountinfo",
        "mounts",
        "cgroup",
        "stat",
        "status",
        "numa_maps",
    ):
        loot.attempt(
            f"in /proc/self/{name}", lambda name=name: re.findall(CANARY, read(f"/proc/self/{name}"))
        )
    for line in (loot_free(read, "/proc/self/mountinfo") or b"").decode(errors="replace").splitlines():
        for known in (aim.data, aim.home):
            if known and known in line and "/scratch/" not in line and "/bundles/" not in line:
                loot.got("a mount shows where data is", line)


def loot_free(action, *arguments):  # type: ignore[no-untyped-def]
    """The answer, or nothing."""
    try:
        return action(*arguments)
    except OSError:
        return None
