"""``python -m standin`` as it is used from a terminal."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import aiohttp
import pytest

from apps import HERE, http, make_app, timer
from standin import __main__ as command_line
from standin.chaos import KillMidJob
from standin.times import Times
from waiting import soon


def start(root: Path, *arguments: str, **env: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "standin", "--app-root", str(root), "--port", "0", *arguments],
        env={**os.environ, "PYTHONPATH": str(HERE), "FAKE_JOURNAL": str(root / "journal"), **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def test_list_of_functions_ready_line_and_end(tmp_path: Path) -> None:
    root = make_app(
        tmp_path,
        {"api": http(methods=["get", "post"]), "tick": timer("0 0 0 1 1 *"), "wrong": http(route="admin")},
    )
    with start(root) as host:
        assert host.stdout is not None
        lines: list[str] = []
        for line in host.stdout:
            lines.append(line.rstrip("\n"))
            if line.startswith("ready "):
                break
        url = lines[-1].removeprefix("ready ")
        assert f"\tapi: [GET,POST] {url}/api/{{*path}}" in lines
        assert "\ttick: timerTrigger" in lines
        assert any(line.startswith("\twrong: IN ERROR: ") for line in lines)
        async with aiohttp.ClientSession() as session, session.get(f"{url}/api/x") as response:
            assert response.status == 200
        host.send_signal(signal.SIGTERM)
        host.communicate(timeout=20)
        assert host.returncode == 0


async def test_the_code_tells_why_it_ended(tmp_path: Path) -> None:
    root = make_app(tmp_path / "app", {"api": http()})
    with start(root, FAKE_START="exit:1") as gave_up:
        out, _ = gave_up.communicate(timeout=30)
        assert gave_up.returncode == 1
        assert "the host stops" in out
    with start(tmp_path / "app" / "api") as no_app:
        _, error = no_app.communicate(timeout=30)
        assert no_app.returncode == 2
        assert "host.json" in error


async def test_children_of_a_killed_host_are_found_again(tmp_path: Path) -> None:
    import processes

    root = make_app(tmp_path, {"api": http()})
    with start(root) as host:
        assert host.stdout is not None
        assert any(line.startswith("ready ") for line in host.stdout)
        (handler,) = processes.descendants(host.pid)
        host.kill()
        host.wait()
        await soon(lambda: handler.pid in {p.pid for p in processes.descendants(os.getpid())}, "adoption")
        os.kill(handler.pid, signal.SIGKILL)
        os.waitpid(handler.pid, 0)


def test_options() -> None:
    parsed = command_line.parser().parse_args(
        ["--chaos-kill", "work:0.5:2", "--time", "queue-lease=3", "--env", "A=b=c", "--easyauth", "swa"]
    )
    chosen = command_line.options(parsed)
    assert chosen.chaos.kill_mid_job == [KillMidJob("work", 0.5, 2)]
    assert chosen.times == Times(queue_lease=3.0)
    assert chosen.environment["A"] == "b=c"
    assert (chosen.auth, chosen.easyauth) == ("azure", "swa")
    with pytest.raises(ValueError, match="no such time"):
        Times.parse(["lunch=1"])
