"""The walls of a worker, as far as the kernel here has them: what is seen inside, what is refused, and that
ordinary work goes on. Attacks have a suite of their own."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from handler import CONTEXT, KERNEL_LAYERS, Handler, alive, filters

MODULE = """
import errno, os, socket, subprocess, sys
from weft import workflow

@workflow
def look() -> dict:
    return {
        "pid": os.getpid(), "ids": {*os.getresuid(), *os.getresgid()} == {os.getuid()}, "root": os.getuid() == 0,
        "cwd": os.getcwd(), "home": os.environ["HOME"], "temporary": os.environ["TMPDIR"],
        "processes": [entry for entry in os.listdir("/proc") if entry.isdigit()],
        "capabilities": [line.split()[1] for line in open("/proc/self/status") if line[:6] in ("CapEff", "CapPrm")],
    }

@workflow
def nothing_special() -> str:
    return "done"

@workflow
def refused() -> list:
    tries = {
        "other files": lambda: os.stat("/var/log"), "the root": lambda: os.listdir("/"),
        "writing": lambda: open("/usr/x", "w"), "writing beside the code": lambda: open(__file__ + ".x", "w"),
        "sockets": lambda: socket.socket(), "passwords": lambda: open("/etc/shadow"),
        "renouncing": lambda: os.setuid(0), "another root": lambda: os.chroot("/"),
    }
    done = []
    for name, attempt in tries.items():
        try:
            attempt()
        except OSError:
            continue
        done.append(name)
    return done

@workflow
def leaves() -> list:
    found = sorted(os.listdir(".")) + sorted(os.listdir("/dev/shm"))
    open("kept", "w").write("x")
    open("/tmp/temporary", "w").write("x")
    open("/dev/shm/shared", "w").write("x")
    return found

@workflow
def fills(path: str) -> str:
    try:
        with open(path, "wb") as file:
            for _ in range(64):
                file.write(bytes(1 << 20))
    except OSError as error:
        return errno.errorcode[error.errno]
    return "everything was written"

@workflow
def daemons(name: str) -> list:
    import ctypes
    # PR_SET_NAME, which what is forked keeps.
    assert ctypes.CDLL(None).prctl(15, name.encode(), 0, 0, 0) == 0
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                import time
                time.sleep(600)
            os._exit(0)
    return sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit())

@workflow
def works() -> list:
    import asyncio, json, multiprocessing, sqlite3, tempfile, threading, zoneinfo
    done = []
    with multiprocessing.get_context("fork").Pool(2) as pool:
        done.append(pool.map(abs, [-1, -2]))
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"x")
    sqlite3.connect("a.db").execute("create table a (b)").close()
    async def answer():
        await asyncio.sleep(0)
        process = await asyncio.create_subprocess_exec("/bin/echo", "hi", stdout=-1)
        return (await process.communicate())[0].decode()
    done.append(asyncio.run(answer()))
    thread = threading.Thread(target=done.append, args=("thread",))
    thread.start()
    thread.join()
    done.append(subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, text=True).stdout)
    done.append(zoneinfo.ZoneInfo("Europe/Berlin").key)
    return done

@workflow
def reaches(host: str) -> None:
    socket.create_connection((host, 80))

@workflow
def runs_a_program() -> None:
    subprocess.run(["/bin/true"])

@workflow
def writes() -> None:
    open("/tmp/x", "w")

@workflow
def multiplies() -> None:
    os.fork()
"""


@pytest.fixture
def bundle_dir(bundle: Any) -> Path:
    root: Path = bundle(MODULE)
    return root


@pytest.fixture(autouse=True)
def _namespaces(jailed: Handler) -> None:
    if jailed.ready["posture"]["tier"] != "namespaces":
        pytest.skip(f"no namespaces here: {jailed.ready['posture']['missing']}")


def call(handler: Handler, root: Path, function: str, arguments: Any = None, **changes: Any) -> Any:
    return handler.attempt(root, "workflows.main", function, arguments, **changes)


def test_what_a_step_sees(jailed: Handler, bundle_dir: Path) -> None:
    seen = call(jailed, bundle_dir, "look").value
    assert seen == {
        "pid": 1,
        "ids": True,
        "root": False,
        "cwd": "/jail/rw/own/step",
        "home": "/jail/rw/own/step",
        "temporary": "/jail/rw/own/step",
        "processes": ["1"],
        "capabilities": ["0" * 16] * 2,
    }


def test_what_a_step_may_not(jailed: Handler, bundle_dir: Path) -> None:
    assert call(jailed, bundle_dir, "refused").value == []


def test_nothing_is_left_for_the_next(jailed: Handler, bundle_dir: Path) -> None:
    assert [call(jailed, bundle_dir, "leaves").value for _ in range(2)] == [[], []]


@pytest.mark.parametrize("path", ["file", "/dev/shm/file"])
def test_the_disk_has_an_end(jailed: Handler, bundle_dir: Path, path: str) -> None:
    limits = {"disk_bytes": 8 << 20, "file_bytes": 1 << 30}
    result = call(jailed, bundle_dir, "fills", {"path": path}, limits=limits)
    assert result.value in ("ENOSPC", "EFBIG")


def test_everything_ends_with_the_step(jailed: Handler, bundle_dir: Path) -> None:
    # Other installations may be at work on this machine, so these have a name of their own.
    name = f"left-{os.getpid()}"
    result = call(jailed, bundle_dir, "daemons", {"name": name})
    assert len(result.value) >= 4
    assert [pid for pid in processes(name) if alive(pid)] == []


def test_ordinary_work(jailed: Handler, bundle_dir: Path) -> None:
    assert call(jailed, bundle_dir, "works").value == [[1, 2], "hi\n", "thread", "1\n", "Europe/Berlin"]


def test_a_refused_connection_says_what_to_declare(jailed: Handler, bundle_dir: Path) -> None:
    error = call(jailed, bundle_dir, "reaches", {"host": "api.example.com"}).error
    assert error["type"] == "PermissionError"
    assert 'network=["api.example.com"]' in error["message"]


@pytest.mark.parametrize("function", ["runs_a_program", "writes", "multiplies"])
def test_restricted_code_may_less(jailed: Handler, bundle_dir: Path, function: str) -> None:
    restricted = {"trust": "restricted", "network": False}
    error = call(jailed, bundle_dir, function, jail=restricted).error
    assert error["type"] in ("PermissionError", "FileNotFoundError", "BlockingIOError"), error


def test_module_lists(jailed: Handler, bundle: Any) -> None:
    listed = (
        "import json, helper\nfrom weft import workflow\n@workflow\ndef f(): return json.dumps(helper.n)\n"
    )
    root = bundle(
        {
            "workflows/main.py": listed,
            "workflows/other.py": "import os.path\nfrom weft import workflow\n@workflow\ndef f(): return 1\n",
            "helper.py": "n = 1\n",
        }
    )
    allow = {"trust": "restricted", "network": False, "modules": {"allow": ["json"], "deny": []}}
    assert call(jailed, root, "f", jail=allow).value == "1"
    error = jailed.attempt(root, "workflows.other", "f", jail=allow).error
    assert error["type"] == "ImportError" and "os.path" in error["message"]
    deny = {"trust": "trusted", "network": False, "modules": {"allow": None, "deny": ["json"]}}
    assert "excluded" in call(jailed, root, "f", jail=deny).error["message"]


def test_connections_are_asked_for(jailed: Handler, bundle_dir: Path) -> None:
    ours, theirs = socket.socketpair()
    jail = {"trust": "trusted", "network": True}
    worker = jailed.fork(bundle_dir, "workflows.main", jail=jail, extra_fds=(theirs.fileno(),))
    theirs.close()
    assert (worker.frame() or {}).get("t") == "ready"
    _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    assert len(fds) == 1
    assert ours.recv(1) == b"", "the worker keeps no end of it"
    entry = {"kind": "workflow", "name": "reaches", "function": "reaches"}
    worker.send({"t": "attempt", "entry": entry, "arguments": {"host": "192.0.2.7"}, "context": CONTEXT})
    # Nobody will answer.
    os.close(fds[0])
    last = worker.frames()[-1]
    assert last["t"] == "failed" and last["error"]["type"] == "OSError", last
    jailed.hear("exited", worker.id)
    ours.close()


def test_what_is_switched_off_is_said(tmp_path: Path) -> None:
    with Handler(jail={"off": ["landlock", "seccomp"]}) as handler:
        posture = handler.ready["posture"]
    assert posture["tier"] == "process"
    assert posture["missing"]["landlock"] == posture["missing"]["seccomp"] == "switched off"
    with Handler(jail={"off": KERNEL_LAYERS}) as handler:
        assert not set(KERNEL_LAYERS) & set(handler.ready["posture"]["layers"])


def test_a_filter_that_is_none_is_refused_by_the_probe() -> None:
    # "return EPERM for everything": nothing can run behind it, so it isn't counted as a layer.
    everything = "BgAAAAEABQA="
    with Handler(jail={"filters": dict.fromkeys(filters(), everything)}) as handler:
        assert "seccomp" not in handler.ready["posture"]["layers"]
        assert handler.ready["posture"]["tier"] != "namespaces"


def processes(name: str) -> set[int]:
    """Those on this machine that call themselves so."""
    found = set()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "comm").read_text() == f"{name}\n":
                found.add(int(entry.name))
        except OSError:
            continue
    return found


def test_a_process_table_of_its_own_without_own_files(bundle_dir: Path) -> None:
    off = ["mount_namespace", "own_uid", "landlock"]
    with Handler(jail={"off": off}) as handler:
        if "pid_namespace" not in handler.ready["posture"]["layers"]:
            pytest.skip("no process namespace here")
        for _ in range(3):
            assert call(handler, bundle_dir, "nothing_special").value == "done"


def test_a_network_from_the_first_worker_on(bundle_dir: Path) -> None:
    # Nothing but the zygote's own descriptors is open yet, so that low numbers are free for what it prepares.
    with Handler() as handler:
        ours, theirs = socket.socketpair()
        jail = {"trust": "trusted", "network": True}
        worker = handler.fork(bundle_dir, "workflows.main", jail=jail, extra_fds=(theirs.fileno(),))
        theirs.close()
        assert (worker.frame() or {}).get("t") == "ready", worker.stderr
        ours.close()
