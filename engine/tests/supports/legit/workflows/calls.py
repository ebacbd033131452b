"""Work with another machine, through the list of hosts that it declares. The suite has a server there."""

import http.client
import importlib.util
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from typing import Any

from weft import Context, workflow

NAMED, NUMBERED = "http://files.example.com:8765", "http://10.11.12.13:8765"


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def _refused(url: str) -> str:
    """How a host that is not on the list is refused; empty where it is not."""
    try:
        _get(url)
    except (OSError, http.client.HTTPException) as error:
        return str(error)
    return ""


@workflow(name="calls", network=["files.example.com:8765", "10.11.12.13:8765"], timeout_seconds=60)
def calls(ctx: Context) -> dict[str, Any]:
    """By name and by number, with what comes with Python, with requests, by a child, and by the engine."""
    found: dict[str, Any] = {
        "urllib": _get(f"{NAMED}/hello"),
        "by number": _get(f"{NUMBERED}/hello"),
        "much": len(_get(f"{NAMED}/bytes/1000000")),
        "engine": ctx.http.get(f"{NAMED}/hello").text,
    }
    posted = urllib.request.Request(f"{NAMED}/echo", data=b"y" * 300_000, method="POST")
    with urllib.request.urlopen(posted, timeout=10) as answer:
        found["echo"] = len(answer.read())
    code = f"import urllib.request as u; print(u.urlopen('{NAMED}/hello', timeout=10).read().decode())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    found["child"] = child.stdout.strip() or child.stderr
    if importlib.util.find_spec("requests"):
        import requests

        with requests.Session() as session:
            found["requests"] = [session.get(f"{url}/hello", timeout=10).text for url in (NAMED, NUMBERED)]
    found["refused"] = [
        _refused(url)
        for url in (
            "http://files.example.com:8766/hello",
            "http://other.example.com:8765/hello",
            "http://10.11.12.13:8766/hello",
            "http://192.168.7.8:8765/hello",
        )
    ]
    return found


@workflow(name="calls-nobody", timeout_seconds=60)
def calls_nobody(ctx: Context) -> list[str]:
    """The same server without having declared it."""
    socket.setdefaulttimeout(10)
    return [_refused(f"{url}/hello") for url in (NAMED, NUMBERED)]
