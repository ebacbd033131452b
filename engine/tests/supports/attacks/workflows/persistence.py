"""Attacks that outlive an attempt: what one leaves, another (of another organization) finds. See weft's `attacking`.

The suite runs each `leave_*` for one organization and `find` for others afterwards; `find` gets nothing.
"""

from attacking import Aim, Loot, armed, attack, entries, reach, read, write

sys = armed("sys")

os = armed("os")

_thread, atexit = armed("_thread"), armed("atexit")


def _mark(aim: Aim) -> str:
    return f"weft-attack-{aim.token}-mark"


@attack
def leave_in_modules(aim: Aim, loot: Loot) -> None:
    """Patches of the standard library, of the SDK and of whatever of the runtime can be reached."""
    json = armed("json")

    weft = armed("weft")

    for module in (json, os, sys, weft, *list(sys.modules.values())):
        try:
            module._weft_attack = _mark(aim)
        except Exception:
            continue
    json.dumps = lambda *_, **__: '"patched"'  # type: ignore[assignment]
    sys.modules["weft_attack"] = sys
    os.environ["WEFT_ATTACK"] = _mark(aim)
    sys.path.insert(0, "/tmp")
    gc = reach("gc")
    for one in gc.get_objects():
        space = getattr(one, "__globals__", None)
        if isinstance(space, dict) and str(space.get("__name__", "")).startswith("weft"):
            space["_weft_attack"] = _mark(aim)
    random = reach("random")
    random.seed(1)


@attack
def leave_in_files(aim: Aim, loot: Loot) -> None:
    """Temporary files, bytecode, files in every place for them, files in its own folder."""
    tempfile = reach("tempfile")
    for folder in (None, "/tmp", "/var/tmp", "/dev/shm", "/run/user", "."):
        try:
            fd, _path = tempfile.mkstemp(prefix=_mark(aim), dir=folder)
            os.write(fd, b"mark")
            os.close(fd)
        except Exception:
            continue
    write("here-" + _mark(aim))
    home = os.environ.get("HOME", ".")
    for name in (".bashrc", ".pythonrc", "sitecustomize.py", "usercustomize.py", "json.py"):
        try:
            write(f"{home}/{name}")
        except Exception:
            continue


@attack
def leave_objects(aim: Aim, loot: Loot) -> None:
    """Shared memory by every interface."""

    def shared() -> None:
        memory = reach("multiprocessing.shared_memory").SharedMemory(name=_mark(aim), create=True, size=4096)
        memory.buf[:4] = b"mark"

    for action in (shared, lambda: write(f"/dev/shm/{_mark(aim)}")):
        try:
            action()
        except Exception:
            continue


@attack
def leave_daemon(aim: Aim, loot: Loot) -> None:
    """A process that left group and session, doubly forked, deaf to signals, and one below it."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.setsid()
            signal = reach("signal")
            for number in range(1, 32):
                try:
                    signal.signal(number, signal.SIG_IGN)
                except Exception:
                    continue
            os.closerange(0, 64)
            reach("time").sleep(120)
        os._exit(0)
    reach("time").sleep(0.2)


@attack
def leave_hopping_daemon(aim: Aim, loot: Loot) -> None:
    """One that forks itself anew all the time, to be another process whenever it is looked for."""
    if os.fork() == 0:
        os.setsid()
        for _ in range(2000):
            if os.fork():
                os._exit(0)
            os.setsid()
        reach("time").sleep(120)
    reach("time").sleep(0.1)


@attack
def leave_thread(aim: Aim, loot: Loot) -> None:
    """A thread that goes on after the result."""

    def on() -> None:
        while True:
            try:
                with open(f"thread-{_mark(aim)}", "a") as file:
                    file.write("on\n")
            except Exception:
                pass

    _thread.start_new_thread(on, ())


@attack
def leave_at_exit(aim: Aim, loot: Loot) -> None:
    """Handlers of the interpreter's end, of forks, of collections and of the next signals."""

    def late() -> None:
        write(f"/tmp/late-{_mark(aim)}")

    atexit.register(late)
    os.register_at_fork(before=late, after_in_parent=late, after_in_child=late)
    reach("gc").callbacks.append(lambda *_: late())
    sys.addaudithook(lambda *_: None)


@attack
def leave_deaf(aim: Aim, loot: Loot) -> None:
    """No end at all, in spite of every signal that can be ignored, with a child each second."""
    signal, time = reach("signal"), reach("time")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    if os.fork() == 0:
        os.setsid()
        time.sleep(120)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


@attack
def find(aim: Aim, loot: Loot) -> None:
    """Anything that one of them left."""
    json = armed("json")

    if json.dumps([1]) != "[1]":
        loot.got("the standard library is patched")
    for name, module in list(sys.modules.items()):
        if hasattr(module, "_weft_attack"):
            loot.got("marked module", name)
    if "weft_attack" in sys.modules or "WEFT_ATTACK" in os.environ:
        loot.got("a module or variable of another attempt")
    gc = reach("gc")
    for one in gc.get_objects():
        space = getattr(one, "__globals__", None)
        if isinstance(space, dict) and "_weft_attack" in space:
            loot.got("marked functions", space.get("__name__"))
            break
    up = os.path.dirname(os.getcwd())
    for folder in ("/tmp", "/var/tmp", "/dev/shm", "/run/user", ".", up, os.environ.get("HOME", ".")):
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        left = [name for name in names if str(aim.token) in name]
        if left:
            loot.got(f"left in {folder}", left[:4])
    if os.getcwd() != "/" and os.listdir("."):
        loot.got("the scratch folder is not empty", entries("."))
    loot.attempt("shared memory", lambda: read(f"/dev/shm/{_mark(aim)}"))


@attack
def numbers(aim: Aim, loot: Loot) -> None:
    """Random numbers; the suite compares those of two attempts. They are logged, not loot."""
    random = armed("random")

    values = [random.random(), random.getrandbits(64), str(reach("uuid").uuid4()), os.urandom(8).hex()]
    print("numbers " + repr(values))
