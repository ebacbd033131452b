"""`weft run --debug`: breakpoints in a workspace's code, through debugpy's own protocol."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dap import Client
from debugged import Debugged
from weft import weft

CODE = '''\
from weft import Context, node, workflow


@workflow(name="shout", timeout_seconds=2)
def shout(ctx: Context, name: str) -> dict[str, str]:
    """Shouts."""
    greeting = ctx.config.get("greeting", "Hello")
    loud = (greeting + " " + name).upper()
    ctx.log("shouted", loud=loud)
    return {"said": loud, "organization": ctx.organization.id}


@workflow(name="quiet")
def quiet(ctx: Context) -> int:
    """Says nothing."""
    value = 20
    return value + 1


@node(name="strict", trust="restricted")
def strict(ctx: Context) -> int:
    """Is not trusted."""
    value = 40
    return value + 2
'''
GRAPH = {
    "name": "both",
    "nodes": [
        {"id": "first", "type": "python", "use": "quiet"},
        {"id": "second", "type": "python", "use": "strict"},
    ],
    "edges": [{"from": "first", "to": "second"}],
}
NAMESPACES = "user_namespace,mount_namespace,pid_namespace,network_namespace,ipc_namespace"
"""Without these, steps are kept apart by the kernel's other walls."""
AFTER_GREETING = 9
IN_STRICT = 24


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    (folder / "workflows").mkdir(parents=True)
    (folder / "workflows" / "loud.py").write_text(CODE)
    (folder / "workflows" / "both.json").write_text(json.dumps(GRAPH))
    return folder


@pytest.fixture
def debugged(tmp_path: Path, workspace: Path, request: pytest.FixtureRequest) -> Iterator[Debugged]:
    off, *arguments = request.param
    places = ["--workspace", str(workspace), "--data", str(tmp_path / "data")]
    made = weft("org", "create", "Local", "--id", "local", *places)
    assert made.status == 0, made.stderr
    entry = weft("entry", "set", "greeting", "Servus", "--organization", "local", *places)
    assert entry.status == 0, entry.stderr
    one = Debugged(tmp_path, ["run", *arguments, *places], off=off)
    yield one
    one.kill()


@pytest.fixture
def file(workspace: Path) -> str:
    """As an editor names it."""
    return str((workspace / "workflows" / "loud.py").resolve())


@pytest.mark.parametrize(
    "debugged", [[off, "shout", "--input", "name=Ada", "--json"] for off in ("", NAMESPACES)], indirect=True
)
def test_a_breakpoint_shows_the_real_context(debugged: Debugged, file: str) -> None:
    with closing(Client(debugged.port("main"))) as client:
        look_around(debugged, client, file)
    status, out = debugged.end()
    assert status == 0, debugged.said()
    run = json.loads(out)
    assert run["status"] == "succeeded"
    assert run["result"] == {"said": "SERVUS ADA!", "organization": "local"}
    assert "main has a debugger" in debugged.said()


def look_around(debugged: Debugged, client: Client, file: str) -> None:
    """What a developer does at a breakpoint."""
    client.attach(file, [AFTER_GREETING])
    stopped = client.event("stopped")
    assert stopped["reason"] == "breakpoint"
    frames = client.request("stackTrace", {"threadId": stopped["threadId"]})["stackFrames"]
    assert (frames[0]["name"], frames[0]["line"]) == ("shout", AFTER_GREETING)
    assert frames[0]["source"]["path"] == file
    assert not [frame for frame in frames if "weft_runtime" in frame["source"]["path"]], frames
    scope = next(
        scope
        for scope in client.request("scopes", {"frameId": frames[0]["id"]})["scopes"]
        if scope["name"] == "Locals"
    )
    local = client.variables(scope["variablesReference"])
    assert local["loud"]["value"] == "'SERVUS ADA'", "the organization's own setting"
    context = client.variables(local["ctx"]["variablesReference"])
    assert context["organization"]["value"] == "Organization(id='local', name='local')"
    assert "workflow='shout'" in context["run"]["value"]
    # Its state, and the engine behind it, can be asked; and what it holds can be changed.
    evaluate = {"frameId": frames[0]["id"], "context": "repl"}
    asked = client.request("evaluate", {**evaluate, "expression": "ctx.kv.get('nothing', 'not there')"})
    assert asked["result"] == "'not there'"
    client.request("evaluate", {**evaluate, "expression": "loud = loud + '!'"})
    # Longer than the function may take: who stands at a breakpoint is not hurried.
    with pytest.raises(subprocess.TimeoutExpired):
        debugged.process.wait(3)
    client.request("continue", {"threadId": stopped["threadId"]})


@pytest.mark.parametrize("debugged", [["", "both", "--step", "second"]], indirect=True)
def test_only_the_chosen_step_waits(debugged: Debugged, file: str) -> None:
    port = debugged.port("second")
    # A page in a browser can reach the port, and is not heard.
    with socket.create_connection(("127.0.0.1", port), timeout=10) as browser:
        browser.sendall(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")
        with contextlib.suppress(ConnectionResetError):
            assert browser.recv(100) == b""
    client = Client(port)
    client.attach(file, [IN_STRICT])
    stopped = client.event("stopped")
    # An editor that is closed lets the step go on.
    client.close()
    status, _ = debugged.end()
    assert stopped["reason"] == "breakpoint"
    assert status == 0, debugged.said()
    assert "no debugger" in debugged.said()
    assert "first waits" not in debugged.said()
    assert "first succeeded" in debugged.said()


@pytest.mark.parametrize("debugged", [["", "quiet"]], indirect=True)
def test_who_waits_can_give_up(debugged: Debugged) -> None:
    debugged.port("main")
    debugged.process.send_signal(signal.SIGINT)
    status, out = debugged.end()
    assert (status, out) == (130, ""), debugged.said()


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (
            ["--debug"],
            {"WEFT_ENVIRONMENT": "production"},
            "`--debug` is for development, and this is production",
        ),
        (["--debug", "--no-wait"], {}, "a run that nobody waits for can't be debugged"),
        (["--debug", "--step", "nosuch"], {}, "`quiet` has no step `nosuch`"),
    ],
)
def test_what_is_refused(
    workspace: Path, arguments: list[str], environment: dict[str, str], said: str
) -> None:
    places: list[Any] = ["--workspace", workspace, "--data", workspace.parent / "data", "--debug-port", "0"]
    done = weft("run", "quiet", *arguments, *places, environment=environment)
    assert done.status == 1, done.stderr
    assert said in done.stderr, done.stderr
    assert "hint: " in done.stderr, done.stderr


def test_a_python_without_debugpy_is_named_with_the_command(workspace: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    python = bare / "bin" / "python"
    places: list[Any] = ["--workspace", workspace, "--data", tmp_path / "data", "--debug-port", "0"]
    done = weft("run", "quiet", "--debug", *places, environment={"WEFT_PYTHON": str(python)})
    assert done.status == 1, done.stderr
    assert "`debugpy` is not installed" in done.stderr
    assert f"{python} -m pip install debugpy" in done.stderr
    assert "requirements-dev.txt" in done.stderr
