"""Work that any team does, which the jail must not keep it from. Each workflow returns "done" when it went well."""

import asyncio
import concurrent.futures
import contextlib
import csv
import ctypes
import ctypes.util
import datetime
import email.message
import getpass
import gzip
import hashlib
import inspect
import io
import locale
import logging
import mmap
import multiprocessing
import os
import pathlib
import pickle
import platform
import queue
import random
import selectors
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zipfile
import zoneinfo
from collections.abc import Callable
from multiprocessing import shared_memory
from typing import Any

from weft import Context, workflow


def legit(function: Callable[[Context], Any]) -> Any:
    """A workflow that says "done" where its body raises nothing."""

    def run(ctx: Context) -> str:
        function(ctx)
        return "done"

    run.__name__ = run.__qualname__ = function.__name__
    run.__module__ = function.__module__
    return workflow(
        name="legit-" + function.__name__.replace("_", "-"),
        description=function.__doc__ or "",
        timeout_seconds=30,
    )(run)


def _square(number: int) -> int:
    return number * number


@legit
def asynchronous(ctx: Context) -> None:
    """Tasks, timeouts, a child process and streams."""

    async def main() -> int:
        async with asyncio.timeout(10):
            slow = await asyncio.gather(*(asyncio.sleep(0.01, n) for n in range(10)))
            child = await asyncio.create_subprocess_exec("/bin/echo", "hello", stdout=asyncio.subprocess.PIPE)
            out, _ = await child.communicate()
            assert out == b"hello\n"
            return sum(slow) + await asyncio.to_thread(_square, 2)

    assert asyncio.run(main()) == 49


@legit
def in_threads(ctx: Context) -> None:
    """A pool, a queue, a lock, and the context from threads."""
    todo: queue.Queue[int] = queue.Queue()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(_square, range(20))) == [n * n for n in range(20)]
        list(pool.map(lambda n: ctx.log(f"thread {n}"), range(8)))
    thread = threading.Thread(target=todo.put, args=(1,))
    thread.start()
    thread.join()
    assert todo.get(timeout=5) == 1


@legit
def in_processes(ctx: Context) -> None:
    """multiprocessing: a pool, a queue, a lock, a manager-less value."""
    kind = multiprocessing.get_context("fork")
    with kind.Pool(3) as pool:
        assert pool.map(_square, range(10)) == [n * n for n in range(10)]
    answers = kind.Queue()
    process = kind.Process(target=answers.put, args=("hello",))
    process.start()
    assert answers.get(timeout=10) == "hello"
    process.join(10)
    assert process.exitcode == 0
    value = kind.Value("i", 1)
    with value.get_lock():
        value.value += 1
    assert value.value == 2


@legit
def in_spawned_processes(ctx: Context) -> None:
    """Other programs of the same interpreter, by pipes alone."""
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        done = list(
            pool.map(
                lambda n: (
                    subprocess.run(
                        [sys.executable, "-I", "-c", f"print({n} ** 2)"],
                        capture_output=True,
                        text=True,
                        check=True,
                    ).stdout
                ),
                range(3),
            )
        )
    assert [int(one) for one in done] == [0, 1, 4]


@legit
def forked(ctx: Context) -> None:
    """A bare fork with a pipe."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writing, b"child")
        os._exit(0)
    os.close(writing)
    assert os.read(reading, 16) == b"child"
    assert os.waitpid(pid, 0)[1] == 0


@legit
def in_shared_memory(ctx: Context) -> None:
    """multiprocessing.shared_memory, made, seen by a child and unlinked."""
    memory = shared_memory.SharedMemory(create=True, size=4096)
    try:
        pid = os.fork()
        if pid == 0:
            memory.buf[0] = 42
            os._exit(0)
        os.waitpid(pid, 0)
        assert memory.buf[0] == 42
    finally:
        memory.close()
        memory.unlink()


@legit
def by_programs(ctx: Context) -> None:
    """Programs, shells, pipes between them, their input and exit status."""
    assert (
        subprocess.run(["/bin/echo", "hello"], capture_output=True, text=True, check=True).stdout == "hello\n"
    )
    assert (
        subprocess.run(
            "printf 'b\\na\\n' | sort | head -n 1", shell=True, capture_output=True, text=True, check=True
        ).stdout
        == "a\n"
    )
    assert (
        subprocess.run(["/bin/cat"], input=b"through", capture_output=True, check=True).stdout == b"through"
    )
    assert subprocess.run(["/bin/false"], check=False).returncode == 1
    assert shutil.which("sh")


@legit
def in_temporary_files(ctx: Context) -> None:
    """tempfile of every kind, the home folder, the working directory."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "a" / "b.txt"
        path.parent.mkdir()
        path.write_text("hello", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "hello"
        # Not `copy`, which sets the mode by path: see docs/isolation.md.
        shutil.copyfile(path, path.with_suffix(".copy"))
        path.rename(path.with_suffix(".moved"))
        os.symlink("b.moved", path)
        assert path.read_text() == "hello"
    with (
        tempfile.NamedTemporaryFile() as file,
        tempfile.SpooledTemporaryFile(max_size=10) as spooled,
        tempfile.TemporaryFile() as nameless,
    ):
        for one in (file, spooled, nameless):
            one.write(b"x" * 1000)
            one.flush()
        assert os.stat(file.name).st_size == 1000
    pathlib.Path("here.txt").write_text("here")
    pathlib.Path("~/.cache/tool").expanduser().mkdir(parents=True)
    assert os.listdir(".")
    assert os.getcwd() == os.path.realpath(os.environ["HOME"]) or os.environ["HOME"]
    assert shutil.disk_usage(".").total > 0


@legit
def in_a_database(ctx: Context) -> None:
    """sqlite3 with a file, a journal and two connections."""
    with sqlite3.connect("data.db") as one:
        one.execute("PRAGMA journal_mode=WAL")
        one.execute("CREATE TABLE t (n INTEGER)")
        one.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(1000)])
        one.commit()
        other = sqlite3.connect("data.db")
        assert other.execute("SELECT sum(n) FROM t").fetchone() == (499500,)
        other.close()
    one.close()


@legit
def in_archives(ctx: Context) -> None:
    """zipfile, gzip, csv, pickle, mail."""
    with zipfile.ZipFile("a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("inside.txt", "hello" * 1000)
    with zipfile.ZipFile("a.zip") as archive:
        assert archive.testzip() is None
    assert gzip.decompress(gzip.compress(b"hello")) == b"hello"
    text = io.StringIO()
    csv.writer(text).writerow([1, "two"])
    assert text.getvalue() == "1,two\r\n"
    assert pickle.loads(pickle.dumps({"a": datetime.date(2026, 1, 1)}))
    message = email.message.EmailMessage()
    message.set_content("grüezi")
    assert b"gr" in bytes(message)


@legit
def with_tls(ctx: Context) -> None:
    """A context with the machine's own certificates, no connection."""
    context = ssl.create_default_context()
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.get_ca_certs() or not os.path.exists("/etc/ssl/certs/ca-certificates.crt")
    client, server = ssl.MemoryBIO(), ssl.MemoryBIO()
    handshake = context.wrap_bio(client, server, server_hostname="example.com")
    try:
        handshake.do_handshake()
    except ssl.SSLWantReadError:
        pass
    assert server.pending


@legit
def with_zones(ctx: Context) -> None:
    """Time zones, locales, the calendar."""
    moment = datetime.datetime(2026, 7, 1, 12, tzinfo=zoneinfo.ZoneInfo("Europe/Zurich"))
    assert moment.utcoffset() == datetime.timedelta(hours=2)
    assert len(zoneinfo.available_timezones()) > 100
    locale.setlocale(locale.LC_ALL, "C.UTF-8")
    assert time.localtime().tm_year > 2000
    assert "ü".encode() == b"\xc3\xbc"


@legit
def with_logging(ctx: Context) -> None:
    """logging to stderr and to a file, the context's log, output of every kind."""
    logging.basicConfig(level=logging.INFO, force=True)
    logging.getLogger("legit").info("told by logging")
    handler = logging.FileHandler("legit.log")
    logging.getLogger("legit").addHandler(handler)
    logging.getLogger("legit").warning("kept")
    handler.close()
    assert "kept" in pathlib.Path("legit.log").read_text()
    ctx.log("structured", answer=42)
    ctx.checkpoint("halfway", {"done": 1})
    print("printed", flush=True)


@legit
def with_c(ctx: Context) -> None:
    """ctypes with the mathematical library, found and by name; a callback; mmap."""
    library = ctypes.CDLL("libm.so.6")
    library.cos.restype, library.cos.argtypes = ctypes.c_double, [ctypes.c_double]
    assert library.cos(0.0) == 1.0
    compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
    numbers = (ctypes.c_int * 3)(3, 1, 2)
    ctypes.CDLL(None).qsort(numbers, 3, 4, compare(lambda a, b: a[0] - b[0]))
    assert list(numbers) == [1, 2, 3]
    with mmap.mmap(-1, 1 << 20) as memory:
        memory[:5] = b"hello"
        assert memory[:5] == b"hello"


@legit
def with_the_machine(ctx: Context) -> None:
    """What libraries ask of the machine while they are imported."""
    assert (os.cpu_count() or 0) > 0
    assert len(os.sched_getaffinity(0)) > 0
    assert platform.system() == "Linux"
    assert platform.platform()
    assert os.getpid() > 0
    assert socket.gethostname() is not None
    assert len(os.urandom(16)) == 16
    assert uuid.uuid4() != uuid.uuid4()
    assert hashlib.sha256(b"x").hexdigest()
    assert random.random() != random.random()
    assert os.path.exists("/dev/null")
    with open("/dev/null", "w") as null:
        null.write("x")
    with contextlib.suppress(KeyError):
        # A user without a name is nothing unusual in a container.
        getpass.getuser()
    assert inspect.getsource(_square).startswith("def")
    assert os.sysconf("SC_PAGE_SIZE") > 0
    for name in ("/proc/self/status", "/proc/self/stat"):
        # Libraries that measure themselves live with its absence, and use it where it is.
        if os.path.exists(name):
            open(name).close()


@legit
def with_signals(ctx: Context) -> None:
    """Alarms, handlers, timers, and signals to itself and its own children."""
    seen = []
    signal.signal(signal.SIGALRM, lambda *_: seen.append("alarm"))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    time.sleep(0.2)
    signal.signal(signal.SIGUSR1, lambda *_: seen.append("usr1"))
    os.kill(os.getpid(), signal.SIGUSR1)
    child = subprocess.Popen(["/bin/sleep", "10"])
    child.terminate()
    assert child.wait(5) == -signal.SIGTERM
    assert seen == ["alarm", "usr1"]


@legit
def with_selectors(ctx: Context) -> None:
    """Pairs of sockets, pipes and selectors, as event loops use them."""
    one, other = socket.socketpair()
    with one, other, selectors.DefaultSelector() as selector:
        selector.register(other, selectors.EVENT_READ)
        one.sendall(b"x")
        assert selector.select(5)
        assert other.recv(1) == b"x"


@legit
def with_its_bundle(ctx: Context) -> None:
    """Files beside its code."""
    assert (pathlib.Path(__file__).parent / "beside.txt").read_text().startswith("Read")
    assert ctx.run.id
    assert ctx.organization.id


@legit
def with_much_memory(ctx: Context) -> None:
    """Most of what it may have, and more address space than that."""
    held = bytearray(100 << 20)
    held[::4096] = b"x" * len(held[::4096])
    reserved = mmap.mmap(-1, 1 << 30)
    reserved.close()


@workflow(name="legit-large-result", timeout_seconds=30)
def large_result(ctx: Context) -> list[str]:
    """Nearly as large as it may be."""
    return ["x" * 1000] * 900
