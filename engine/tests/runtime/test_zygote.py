"""The zygote: its answers, what it kills, what it doesn't leak."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from handler import CONTEXT, KERNEL_LAYERS, Handler, Worker, alive, wait_gone

VICTIMS = Path(__file__).resolve().parents[1] / "supports" / "victims"


def start(handler: Handler, function: str, arguments: dict[str, Any]) -> Worker:
    worker = handler.fork(VICTIMS, "workflows.victims")
    assert worker.frame() is not None
    entry = {"kind": "workflow", "name": function, "function": function}
    worker.send({"t": "attempt", "entry": entry, "arguments": arguments, "context": CONTEXT})
    return worker


def open_files(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except PermissionError:
        # Only root may look into a process that isn't dumpable; the pipes' ends tell enough then.
        return 0


def test_ready(handler: Handler) -> None:
    assert handler.ready["version"] == 1
    assert handler.ready["pid"] == handler.process.pid
    assert handler.ready["sdk"] == "0.1.0"
    assert handler.ready["python"].startswith("3.")


def test_another_version_is_refused() -> None:
    with Handler(hello=False) as handler:
        handler.say({"op": "hello", "version": 2, "preload": []})
        refused = handler.hear("refused")
        assert refused["version"] == 1
        assert "same release" in refused["reason"]
        assert handler.process.wait(60) == 3


def test_its_end_is_clean() -> None:
    handler = Handler()
    assert handler.close() == 0


@pytest.mark.parametrize("how", ["group", "daemon", "chain"])
def test_nothing_outlives_an_attempt(handler: Handler, how: str) -> None:
    result = handler.attempt(VICTIMS, "workflows.victims", "leaves_processes", {"how": how, "count": 3})
    assert len(result.value) == 3
    assert [pid for pid in result.value if alive(pid)] == []


@pytest.mark.parametrize("how", ["group", "daemon", "chain"])
def test_a_kill_takes_all_along(handler: Handler, how: str) -> None:
    worker = start(handler, "leaves_processes_and_hangs", {"how": how, "count": 3})
    worker.wait_for_output("started\n")
    pids = [int(pid) for pid in worker.stdout.split()[:3]]
    assert all(alive(pid) for pid in pids)
    handler.say({"op": "kill", "id": worker.id})
    assert handler.hear("exited", worker.id)["signal"] == signal.SIGKILL
    assert [pid for pid in pids if alive(pid)] == []


def test_other_workers_live_on(handler: Handler) -> None:
    first = start(handler, "leaves_processes_and_hangs", {"how": "daemon", "count": 2})
    second = start(handler, "hangs", {})
    first.wait_for_output("started\n")
    second.wait_for_output("hanging\n")
    handler.attempt(VICTIMS, "workflows.victims", "leaves_processes", {"how": "daemon"})
    assert alive(second.pid)
    assert all(alive(int(pid)) for pid in first.stdout.split()[:2])
    for worker in (first, second):
        handler.say({"op": "kill", "id": worker.id})
        handler.hear("exited", worker.id)


def test_the_end_of_the_handler_ends_all() -> None:
    handler = Handler(jail={"off": KERNEL_LAYERS})
    worker = start(handler, "leaves_processes_and_hangs", {"how": "chain", "count": 3})
    worker.wait_for_output("started\n")
    pids = [worker.pid, *(int(pid) for pid in worker.stdout.split()[:3])]
    assert handler.close() == 0
    assert [pid for pid in pids if alive(pid)] == []


def test_workers_die_with_the_zygote() -> None:
    with Handler() as handler:
        worker = start(handler, "hangs", {})
        worker.wait_for_output("hanging\n")
        handler.process.kill()
        assert wait_gone(worker.pid)


def test_signals_of_the_terminal_are_the_handlers_business(handler: Handler) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(handler.process.pid, number)
    assert handler.attempt(VICTIMS, "workflows.victims", "randoms").last is not None


def test_a_kill_of_nobody_is_ignored(handler: Handler) -> None:
    for id in (999, -1, None, "7", True):
        handler.say({"op": "kill", "id": id})
    assert handler.attempt(VICTIMS, "workflows.victims", "randoms").last is not None


@pytest.mark.parametrize(
    ("changes", "count", "text"),
    [
        ({}, 2, "2 descriptors"),
        ({}, 0, "0 descriptors"),
        ({}, 4, "4 descriptors"),
        ({"task": "dance"}, 3, "unknown task"),
        ({"module": None}, 3, "needs a module"),
        ({"id": "x"}, 3, "no integer"),
        ({"bundle": {}}, 3, "dir"),
        ({"scratch": ...}, 3, "scratch"),
        ({"bundle": 3}, 3, "TypeError"),
    ],
)
def test_forks_that_fail_leave_no_descriptor(
    handler: Handler, changes: dict[str, Any], count: int, text: str
) -> None:
    before = open_files(handler.process.pid)
    message = {
        "op": "fork",
        "id": 5000,
        "task": "attempt",
        "bundle": {"digest": "sha256:0", "dir": str(VICTIMS)},
        "module": "workflows.victims",
        "scratch": "/nowhere",
        "limits": {},
        **changes,
    }
    message = {key: value for key, value in message.items() if value is not ...}
    pipes = [os.pipe() for _ in range(count)]
    handler.say(message, tuple(writing for _, writing in pipes))
    for reading, writing in pipes:
        os.close(writing)
        # The zygote has closed its copy when this reads the end.
        assert os.read(reading, 1) == b""
        os.close(reading)
    assert text in handler.hear("fork_failed")["error"]
    assert open_files(handler.process.pid) == before


def test_an_id_in_use_is_refused(handler: Handler) -> None:
    worker = start(handler, "hangs", {})
    pipes = [os.pipe() for _ in range(3)]
    message = {
        "op": "fork",
        "id": worker.id,
        "task": "attempt",
        "bundle": {"digest": "sha256:0", "dir": str(VICTIMS)},
        "module": "workflows.victims",
        "scratch": "/nowhere",
        "limits": {},
    }
    handler.say(message, tuple(writing for _, writing in pipes))
    assert "in use" in handler.hear("fork_failed")["error"]
    for pipe in pipes:
        os.close(pipe[0])
        os.close(pipe[1])
    handler.say({"op": "kill", "id": worker.id})
    handler.hear("exited", worker.id)


@pytest.mark.parametrize(
    "data", [b"{", b"[]", b"\xff", b'{"op":"sing"}', b'{"op":7}', b"x" * 65537, b"{" * 60000]
)
def test_messages_that_are_none_are_survived(data: bytes) -> None:
    with Handler() as handler:
        before = open_files(handler.process.pid)
        reading, writing = os.pipe()
        handler.say_bytes(data, (writing,) * 3)
        os.close(writing)
        assert os.read(reading, 1) == b""
        os.close(reading)
        assert handler.attempt(VICTIMS, "workflows.victims", "randoms").last is not None
        assert open_files(handler.process.pid) == before
        assert "weft-zygote: " in handler.complaints()


def test_more_descriptors_than_fit_are_not_leaked() -> None:
    with Handler() as handler:
        before = open_files(handler.process.pid)
        reading, writing = os.pipe()
        handler.say({"op": "kill", "id": 1}, (writing,) * 100)
        os.close(writing)
        assert os.read(reading, 1) == b""
        os.close(reading)
        assert handler.attempt(VICTIMS, "workflows.victims", "randoms").last is not None
        assert open_files(handler.process.pid) == before


def test_many_attempts_leave_nothing(handler: Handler) -> None:
    handler.attempt(VICTIMS, "workflows.victims", "randoms")
    before = open_files(handler.process.pid)
    for _ in range(20):
        handler.attempt(VICTIMS, "workflows.victims", "randoms")
    assert open_files(handler.process.pid) == before
    assert Path(f"/proc/{handler.process.pid}/task/{handler.process.pid}/children").read_text() == ""


def test_many_workers_at_once(handler: Handler) -> None:
    workers = [start(handler, "leaves_processes", {"how": "daemon"}) for _ in range(12)]
    for worker in workers:
        (pid,) = worker.frames()[-1]["value"]
        assert handler.hear("exited", worker.id)["code"] == 0
        assert not alive(pid)


SCANNER = """
import ctypes, os, re
from weft import workflow

CHUNK = 32768

@workflow
def scan(halves: list) -> list:
    "How often both halves of each name stand behind each other in this process' memory."
    counts = [0] * len(halves)
    reading, writing = os.pipe()
    with open("/proc/self/maps") as maps:
        lines = maps.readlines()
    for line in lines:
        place, rights = line.split()[:2]
        at, end = (int(address, 16) for address in place.split("-"))
        while rights.startswith("rw") and at < end:
            try:
                # What is not there any more is an error of the call, and no end of ours.
                size = os.write(writing, (ctypes.c_char * min(CHUNK, end - at)).from_address(at))
            except OSError:
                at += 4096
                continue
            data = os.read(reading, size)
            for number, (head, tail) in enumerate(halves):
                found = re.finditer(head.encode(), data)
                counts[number] += sum(data.startswith(tail.encode(), it.end()) for it in found)
            # A name may lie across the border.
            at += size - 64 if size == CHUNK else size
    return counts
"""


@pytest.mark.parametrize("off", [[], KERNEL_LAYERS])
def test_a_worker_has_no_names_of_others(bundle: Any, off: list[str]) -> None:
    own = "scanner_" + os.urandom(8).hex()
    module, scratch = "canary_" + os.urandom(8).hex(), "canary_" + os.urandom(8).hex()
    root = bundle({f"workflows/{own}.py": SCANNER, "workflows/other.py": ""})
    with Handler(jail={"off": off}) as handler:
        assert set(handler.ready["posture"]["missing"]) >= set(off)
        folder = handler.scratch.name
        # Of several lengths, as the allocator keeps them apart.
        for length in (1, 40, 400, 4000):
            for number in range(3):
                name = f"{folder}/{scratch}{number}{'x' * (length % 200)}"
                worker = handler.fork(root, f"workflows.{module}{'x' * length}", scratch=name)
                worker.frames()
                handler.hear("exited", worker.id)
                worker.close()
                handler.workers.clear()
                if os.path.isdir(name):
                    os.rmdir(name)
        halves = [[name[:15], name[15:]] for name in (own, module, scratch)]
        found = handler.attempt(root, f"workflows.{own}", "scan", {"halves": halves}).value
    assert found[0] > 0, "the scan finds what is there"
    assert found[1:] == [0, 0]


def test_its_name_and_its_single_thread(handler: Handler) -> None:
    status = Path(f"/proc/{handler.process.pid}/status").read_text()
    assert "Name:\tweft-zygote\n" in status
    assert "Threads:\t1\n" in status
