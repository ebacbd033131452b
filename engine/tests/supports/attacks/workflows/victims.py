"""Who is attacked: a run of another organization with secrets everywhere that a run can have them. Not an attacker."""

import contextlib
import ctypes
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

from weft import Context, workflow


@workflow(name="victim", timeout_seconds=900)
def victim(ctx: Context, planted: str, token: str) -> None:
    """Holds its secret in memory, environment, files, sockets; tells all the time whether everything is as it was."""
    held = [planted] * 8
    os.environ["VICTIM_SECRET"] = planted
    Path("secret.txt").write_text(planted)
    with contextlib.suppress(OSError):
        Path(f"/tmp/weft-victim-{token}").write_text(planted)
    # So that the suite finds its process.
    ctypes.CDLL(None).prctl(15, b"weft-victim", 0, 0, 0)
    listeners = _listen(planted, token)
    begun = os.getpid()
    print(f"victim is {begun} in {os.getcwd()}", flush=True)
    for number in range(100_000):
        whole = (
            held == [planted] * 8
            and Path("secret.txt").read_text() == planted
            and os.environ["VICTIM_SECRET"] == planted
        )
        ctx.log(f"{'whole' if whole else 'HARMED'} {number}", listeners=len(listeners))
        time.sleep(2)


def _listen(planted: str, token: str) -> list[Any]:
    """Sockets of its own, where the jail gives it any."""
    open_ones = []
    for family, address in (
        (socket.AF_UNIX, f"{os.getcwd()}/victim.socket"),
        (socket.AF_UNIX, f"\0weft-victim-{token}"),
    ):
        try:
            one = socket.socket(family, socket.SOCK_STREAM)
            one.bind(address)
            one.listen()
        except OSError:
            continue
        threading.Thread(target=_serve, args=(one, planted), daemon=True).start()
        open_ones.append(one)
    return open_ones


def _serve(listener: Any, planted: str) -> None:
    while True:
        caller, _ = listener.accept()
        with caller:
            caller.sendall(planted.encode())


@workflow(name="echo")
def echo(ctx: Context, value: Any = None) -> Any:
    """That the engine still does its work, and for whom."""
    return {"value": value, "organization": ctx.organization.id}
