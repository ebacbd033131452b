"""What of a debugged worker is the runtime's own; the debugger itself is tried in tests/e2e."""

from __future__ import annotations

import socket
import sys
from types import ModuleType
from typing import Any

import pytest

from weft_runtime import debug


@pytest.fixture
def debugger(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands for debugpy; what is asked of it is kept."""
    said: dict[str, Any] = {"steps": []}
    modules = {
        name: ModuleType(name) for name in ("debugpy", "debugpy.server", "debugpy.server.api", "pydevd")
    }
    modules["debugpy"].configure = lambda **options: said["steps"].append(options)  # type: ignore[attr-defined]
    modules["debugpy"].connect = lambda address: said["steps"].append("connect")  # type: ignore[attr-defined]
    modules["debugpy"].wait_for_client = lambda: said["steps"].append("wait")  # type: ignore[attr-defined]
    modules["debugpy"].__path__ = []
    modules["debugpy.server"].__path__ = []
    files = ModuleType("pydevd_file_utils")
    files.exists = lambda path: path == "/there"  # type: ignore[attr-defined]
    modules["pydevd_file_utils"] = files
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("PYDEVD_DISABLE_FILE_VALIDATION", "IDE_PROJECT_ROOTS"):
        monkeypatch.setenv(name, "")
    return said


def test_it_speaks_on_the_socket_that_it_was_given(debugger: dict[str, Any]) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        debug.wait_for_client(theirs.detach(), "/home/ann/workspace/")
        assert debugger["steps"] == [{"subProcess": False}, "connect", "wait"]
        with sys.modules["pydevd"].start_client("127.0.0.1", 1) as connection:
            connection.sendall(b"hello")
            assert ours.recv(10) == b"hello"
    is_there = sys.modules["pydevd_file_utils"].exists
    assert is_there("/home/ann/workspace/workflows/a.py"), "it need not be visible here"
    assert is_there("/there")
    assert not is_there("/home/ann/other.py")


def test_it_says_goodbye_only_where_there_is_somebody(debugger: dict[str, Any]) -> None:
    ended: list[dict[str, Any]] = []

    class Debugger:
        def dispose_and_kill_all_pydevd_threads(self, **options: Any) -> None:
            ended.append(options)

    found: list[Any] = [None, Debugger()]
    sys.modules["pydevd"].get_global_debugger = lambda: found.pop(0)  # type: ignore[attr-defined]
    debug.say_goodbye()
    assert ended == []
    debug.say_goodbye()
    assert ended == [{"wait": True, "timeout": 0.5}]
