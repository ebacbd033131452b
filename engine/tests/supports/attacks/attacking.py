"""What attackers share: a way to note what they got, and tools that don't go through Python's own checks.

An attacker is a function ``(aim, loot)``. ``aim`` is all that a well informed attacker could know (process ids, paths,
ports, names of sockets; no secrets). What it got it puts into ``loot``; nothing in there at the end means that it got
nothing. Every find is also logged at once, so that an attacker who is killed in the middle has told what it had.
"""

from __future__ import annotations

from weft import Context, workflow


def _front_door(name: str) -> Any:
    """A module, for whom the list of allowed ones asks nothing: only import statements of a bundle are looked at."""
    return __import__(name, {"__name__": "innocent"}, None, ["*"])


os, sys, time = _front_door("os"), _front_door("sys"), _front_door("time")
Any, Callable = _front_door("typing").Any, _front_door("typing").Callable

CANARY = b"CANARY-[0-9a-f]{16}"
"""What every planted secret looks like."""

EPERM, ENOENT, EACCES, ENOSYS = 1, 2, 13, 38
_REFUSALS = frozenset((EPERM, EACCES, ENOSYS))

_X86 = {
    "read": 0, "write": 1, "mmap": 9, "ioctl": 16, "socket": 41, "connect": 42, "clone": 56, "kill": 62, "shmget": 29,
    "semget": 64, "msgget": 68, "ptrace": 101, "setuid": 105, "setgid": 106, "setpgid": 109, "setresuid": 117,
    "rt_sigqueueinfo": 129, "personality": 135, "setpriority": 141, "sched_setscheduler": 144, "modify_ldt": 154,
    "pivot_root": 155, "prctl": 157, "chroot": 161, "acct": 163, "mount": 165, "umount2": 166, "swapon": 167,
    "sethostname": 170, "iopl": 172, "ioperm": 173, "init_module": 175, "quotactl": 179, "tkill": 200,
    "sched_setaffinity": 203, "clock_settime": 227, "tgkill": 234, "mq_open": 240, "mq_unlink": 241,
    "kexec_load": 246, "add_key": 248, "request_key": 249, "keyctl": 250, "ioprio_set": 251, "openat": 257,
    "migrate_pages": 256, "unshare": 272, "splice": 275, "vmsplice": 278, "move_pages": 279, "fanotify_init": 300,
    "perf_event_open": 298, "prlimit64": 302, "name_to_handle_at": 303, "open_by_handle_at": 304, "setns": 308,
    "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "finit_module": 313, "sched_setattr": 314,
    "seccomp": 317, "memfd_create": 319, "bpf": 321, "userfaultfd": 323, "syslog": 103, "capset": 126,
    "io_uring_setup": 425, "pidfd_send_signal": 424, "open_tree": 428, "move_mount": 429, "fsopen": 430,
    "pidfd_open": 434, "clone3": 435, "openat2": 437, "pidfd_getfd": 438, "process_madvise": 440,
    "mount_setattr": 442, "memfd_secret": 447, "shmat": 30, "shmctl": 31, "lookup_dcookie": 212,
}  # fmt: skip
_ARM = {
    "read": 63, "write": 64, "mmap": 222, "ioctl": 29, "socket": 198, "connect": 203, "clone": 220, "kill": 129,
    "shmget": 194, "semget": 190, "msgget": 186, "ptrace": 117, "setuid": 146, "setgid": 144, "setpgid": 154,
    "setresuid": 147, "rt_sigqueueinfo": 138, "personality": 92, "setpriority": 140, "sched_setscheduler": 119,
    "pivot_root": 41, "prctl": 167, "chroot": 51, "acct": 89, "mount": 40, "umount2": 39, "swapon": 224,
    "sethostname": 161, "init_module": 105, "quotactl": 60, "tkill": 130, "sched_setaffinity": 122,
    "clock_settime": 112, "tgkill": 131, "mq_open": 180, "mq_unlink": 181, "kexec_load": 104, "add_key": 217,
    "request_key": 218, "keyctl": 219, "ioprio_set": 30, "openat": 56, "migrate_pages": 238, "unshare": 97,
    "splice": 76, "vmsplice": 75, "move_pages": 239, "fanotify_init": 262, "perf_event_open": 241, "prlimit64": 261,
    "name_to_handle_at": 264, "open_by_handle_at": 265, "setns": 268, "process_vm_readv": 270,
    "process_vm_writev": 271, "kcmp": 272, "finit_module": 273, "sched_setattr": 274, "seccomp": 277,
    "memfd_create": 279, "bpf": 280, "userfaultfd": 282, "syslog": 116, "capset": 91, "io_uring_setup": 425,
    "pidfd_send_signal": 424, "open_tree": 428, "move_mount": 429, "fsopen": 430, "pidfd_open": 434, "clone3": 435,
    "openat2": 437, "pidfd_getfd": 438, "process_madvise": 440, "mount_setattr": 442, "memfd_secret": 447,
    "shmat": 196, "shmctl": 195, "lookup_dcookie": 18,
}  # fmt: skip
NUMBERS = _X86 if os.uname().machine == "x86_64" else _ARM


class Loot:
    """What an attacker got."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.items: list[str] = []

    def got(self, what: str, proof: Any = "") -> None:
        """Note a find; the proof is cut."""
        text = f"{what}: {proof!r}"[:200] if proof != "" else what[:200]
        if text not in self.items and len(self.items) < 50:
            self.items.append(text)
            self._ctx.log.warning(f"GOT {text}")

    def attempt(self, what: str, action: Callable[..., Any], *arguments: Any) -> Any:
        """Do it. A true answer is a find, an error is none."""
        try:
            found = action(*arguments)
        except (NameError, SyntaxError) as error:
            self._ctx.log(f"broken: {what}: {error}")
            return None
        except BaseException:
            return None
        if found:
            self.got(what, found)
        return found

    def reached(self, what: str, *arguments: Any) -> None:
        """A system call that must not get as far as the kernel's own code: any error but a refusal is a find."""
        try:
            syscall(what, *arguments)
        except OSError as error:
            if error.errno not in _REFUSALS:
                self.got(f"{what} answers", os.strerror(error.errno or 0))
        except Unarmed:
            return
        else:
            self.got(f"{what} works")


class Aim(type(sys.implementation)):  # type: ignore[misc]
    """What the attacker knows; see the suite's `aim` for the names."""

    def __getattr__(self, name: str) -> Any:
        return None


Attacker = Callable[[Aim, Loot], None]


def attack(function: Attacker | None = None, **more: Any) -> Any:
    """Make an attacker a workflow, named after its file and itself."""

    def make(function: Attacker) -> Any:
        def run(ctx: Context, aim: dict[str, Any] | None = None) -> list[str]:
            loot = Loot(ctx)
            try:
                function(Aim(**(aim or {})), loot)
            except Exception as error:
                ctx.log(f"gave up: {type(error).__name__}: {error}"[:500])
            return loot.items

        group = function.__module__.rpartition(".")[2]
        run.__name__ = run.__qualname__ = function.__name__
        run.__module__ = function.__module__
        run.__doc__ = function.__doc__
        run.attacker = function  # type: ignore[attr-defined]
        more.setdefault("timeout_seconds", 15)
        return workflow(
            name=f"{group}-{function.__name__}".replace("_", "-"),
            description=(function.__doc__ or "").strip().partition("\n")[0],
            **more,
        )(run)

    return make if function is None else make(function)


# Tools.


class Unarmed(Exception):
    """There is no way to a module that the attack needs."""


def reach(name: str) -> Any:
    """A module, by the front door or by any other."""
    for way in (_front_door, _by_import, _by_sys_modules, _by_gc, _by_loader, _by_cleared_finders):
        try:
            found = way(name)
        except BaseException:
            continue
        if found is not None:
            return found
    raise Unarmed(name)


class _Missing:
    """In place of a module that could not be reached: each use of it is an attack that failed."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        raise Unarmed(self._name)


def armed(name: str) -> Any:
    """`reach`, for the top of a file: what can't be reached fails where it is used."""
    try:
        return reach(name)
    except Unarmed:
        return _Missing(name)


def _by_import(name: str) -> Any:
    __import__(name)
    return sys.modules[name]


def _by_sys_modules(name: str) -> Any:
    return sys.modules.get(name)


def _by_gc(name: str) -> Any:
    gc = _front_door("gc")
    kind = type(sys)
    found = [
        one for one in gc.get_objects() if isinstance(one, kind) and getattr(one, "__name__", "") == name
    ]
    for one in gc.get_objects():
        # Names that a hidden module has imported live on in its functions.
        space = getattr(one, "__globals__", None)
        if isinstance(space, dict):
            found += [value for value in space.values() if isinstance(value, kind) and value.__name__ == name]
    return found[0] if found else None


def _by_loader(name: str) -> Any:
    machinery = (
        sys.modules["importlib._bootstrap_external"]
        if "importlib._bootstrap_external" in sys.modules
        else None
    )
    machinery = machinery or sys.modules["_frozen_importlib_external"]
    for folder in list(sys.path):
        for suffix, kind in (
            (".py", "SourceFileLoader"),
            (".cpython-311-x86_64-linux-gnu.so", "ExtensionFileLoader"),
        ):
            for path in (f"{folder}/{name}{suffix}", f"{folder}/{name}/__init__{suffix}"):
                if os.path.exists(path):
                    module = type(sys)(name)
                    module.__path__ = [os.path.dirname(path)]
                    sys.modules[name] = module
                    getattr(machinery, kind)(name, path).exec_module(module)
                    return module
    return None


def _by_cleared_finders(name: str) -> Any:
    finders = list(sys.meta_path)
    sys.meta_path[:] = [finder for finder in finders if isinstance(finder, type)]
    try:
        return _by_import(name)
    finally:
        sys.meta_path[:] = finders


_held: dict[str, Any] = {}


def libc() -> Any:
    """The C library."""
    if "libc" not in _held:
        ctypes = reach("ctypes")
        _held["ctypes"] = ctypes
        _held["libc"] = ctypes.CDLL(None, use_errno=True)
        _held["libc"].syscall.restype = ctypes.c_long
    return _held["libc"]


def ctypes() -> Any:
    """The module, armed."""
    libc()
    return _held["ctypes"]


def syscall(name: str | int, *arguments: Any) -> int:
    """A system call past libc and past audit hooks."""
    library, types = libc(), ctypes()
    number = NUMBERS.get(name) if isinstance(name, str) else name
    if number is None:
        raise Unarmed(str(name))
    ready = [types.c_long(number)]
    for value in arguments:
        if isinstance(value, int):
            value = types.c_ulong(value & 0xFFFFFFFFFFFFFFFF)
        elif isinstance(value, str):
            value = value.encode()
        ready.append(value)
    types.set_errno(0)
    found = library.syscall(*ready)
    if found < 0:
        number = types.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return int(found)


AT_FDCWD = -100


def open_raw(path: str | bytes, flags: int = os.O_RDONLY, mode: int = 0o600, folder: int = AT_FDCWD) -> int:
    """A descriptor, by the system call where there is a way to it."""
    try:
        return syscall("openat", folder, path, flags | os.O_NONBLOCK | os.O_CLOEXEC, mode)
    except Unarmed:
        return os.open(path, flags | os.O_NONBLOCK, mode)


def read(path: str | bytes, size: int = 65536) -> bytes:
    """The beginning of a file. Raises OSError."""
    fd = open_raw(path)
    try:
        return os.read(fd, size)
    finally:
        os.close(fd)


def write(path: str, text: bytes = b"attacked\n", flags: int = os.O_WRONLY | os.O_CREAT) -> str:
    """A file written; its path."""
    fd = open_raw(path, flags)
    try:
        os.write(fd, text)
    finally:
        os.close(fd)
    return path


def entries(path: str) -> list[str]:
    """What is in a folder, at most some."""
    return sorted(os.listdir(path))[:8]


def others(aim: Aim) -> dict[str, int]:
    """The processes that matter, except for what this process is or has made itself."""
    own = {os.getpid()}
    named = {"handler": aim.handler, "zygote": aim.zygote, "victim": aim.victim, "init": 1}
    named.update({f"sibling-{pid}": pid for pid in aim.siblings or ()})
    if os.getppid() > 0:
        named["parent"] = os.getppid()
    return {name: pid for name, pid in named.items() if pid and pid not in own}


def run_program(*command: str) -> str:
    """What a program writes; empty where it fails."""
    subprocess = reach("subprocess")
    done = subprocess.run(command, capture_output=True, timeout=5, stdin=subprocess.DEVNULL)
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""


def child(action: Callable[[], Any]) -> int:
    """A forked process that does it and ends; its id."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return pid


def linger(seconds: float) -> None:
    """Give whoever measures the time to see it."""
    time.sleep(seconds)
