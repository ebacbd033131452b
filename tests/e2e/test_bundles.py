"""What is wrong with code on the disk or in storage: it is never run, is told with the command that mends it, and is mended by it."""

import http.client
import json
import os
import shutil
import socket
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from weft import DEFAULT, KEY, Weft, copy_workspace, problem, until, weft

ANSWERS = """
from weft import Context, workflow

@workflow
def edited(ctx: Context) -> object:
    return {answer!r}
"""
LIMIT = 32 << 20


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = copy_workspace(tmp_path / "workspace")
    (folder / "workflows" / "edited.py").write_text(ANSWERS.format(answer="as published"))
    return folder


def local(one: Weft, workspace: Path, *command: str) -> Any:
    """A command on the data of an installation."""
    return weft(*command, "--data", one.data, "--workspace", workspace, "--json")


def publish(one: Weft, workspace: Path) -> Any:
    done = local(one, workspace, "publish", "--activate")
    assert done.status == 0, done.stderr
    return done.json["bundle"]


def damage(one: Weft) -> None:
    """Write something else over every archive."""
    with sqlite3.connect(one.data / "weft.db") as database:
        found = "SELECT id FROM blob WHERE path LIKE 'bundle/%'"
        changed = database.execute(f"UPDATE chunk SET bytes = x'00' WHERE blob IN ({found})")
        assert changed.rowcount > 0
    database.close()


def forget(one: Weft) -> None:
    """Have no copy of any code here."""
    for kind in ("bundles", "fetched"):
        shutil.rmtree(one.data / kind, ignore_errors=True)


def test_a_copy_that_was_changed_while_nothing_ran_is_not_run(make: Any, workspace: Path) -> None:
    one: Weft = make(workspace=workspace).start()
    # The folder's copy, and then that of a bundle.
    for kind in ("bundles", "fetched"):
        if kind == "fetched":
            publish(one, workspace)
            one.stop()
            shutil.rmtree(one.data / "bundles")
            one.start()
        assert one.run("edited")["result"] == "as published"
        one.stop()
        copies = list((one.data / kind).glob("*/workflows/edited.py"))
        assert copies
        for copy in copies:
            copy.write_text(ANSWERS.format(answer="changed"))
        one.start()
        assert one.run("edited")["result"] == "as published"
        assert "was changed" in one.said()


def test_an_archive_that_was_damaged_is_told_and_mended_by_publishing(make: Any, workspace: Path) -> None:
    one: Weft = make(workspace=workspace).start()
    publish(one, workspace)
    one.stop()
    damage(one)
    forget(one)
    # It stays, as under the Functions host, and says what to do.
    one.start()
    said = problem(one.execute("edited"), 503, "bundle_damaged", hint="weft publish", retriable=True)
    assert "weft bundles activate" in said["hint"]
    assert "weft publish" in one.said()
    publish(one, workspace)
    until(lambda: one.execute("edited").status == 200, "it is there again", 30)
    assert one.run("edited")["result"] == "as published"
    # The other way out, for an archive that nobody can make again.
    one.stop()
    damage(one)
    forget(one)
    one.start()
    problem(one.execute("edited"), 503, "bundle_damaged", retriable=True)
    done = local(one, workspace, "bundles", "activate", "folder")
    assert done.status == 0, done.stderr
    until(lambda: one.execute("edited").status == 200, "the folder runs", 30)


def test_a_pointer_that_is_gone_is_told_and_mended_by_activating(make: Any, workspace: Path) -> None:
    one: Weft = make(workspace=workspace).start()
    digest = publish(one, workspace)["digest"]
    one.stop()
    with sqlite3.connect(one.data / "weft.db") as database:
        assert (
            database.execute("DELETE FROM entity WHERE partition = 'bundle' AND row = 'active'").rowcount == 1
        )
    database.close()
    (workspace / "workflows" / "edited.py").write_text(ANSWERS.format(answer="edited since"))
    one.start()
    problem(one.execute("edited"), 503, "bundle_untrusted", hint="bundles activate", retriable=True)
    done = local(one, workspace, "bundles", "activate", digest[7:19])
    assert done.status == 0, done.stderr
    until(lambda: one.execute("edited").status == 200, "it is there again", 30)
    assert one.run("edited")["result"] == "as published"


def test_links_are_told_before_anything_is_published(workspace: Path, tmp_path: Path) -> None:
    (workspace / "workflows" / "link.py").symlink_to("edited.py")
    (workspace / "data").symlink_to("/etc")
    os.mkfifo(workspace / "pipe")
    (workspace / "tests").mkdir()
    (workspace / "tests" / "link").symlink_to("/etc")
    places = ["--workspace", workspace, "--data", tmp_path / "data"]
    done = weft("publish", *places)
    assert done.status == 1
    for name in ("workflows/link.py", "data", "pipe"):
        assert f"  {name}: " in done.stderr, done.stderr
    assert "tests" not in done.stderr
    assert ".weftignore" in done.stderr
    checked = weft("check", *places, "--json")
    assert checked.status == 0, checked.stderr
    warned = {warning["pointer"] for warning in checked.json["warnings"]}
    assert warned == {"workspace/workflows/link.py", "workspace/data", "workspace/pipe"}
    (workspace / ".weftignore").write_text("/data\n/pipe\nlink.py\n")
    assert weft("publish", *places).status == 0


def test_a_look_at_the_workspace_leaves_no_copy_behind(workspace: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    edited = workspace / "workflows" / "edited.py"
    for answer in range(3):
        edited.write_text(ANSWERS.format(answer=answer))
        assert weft("check", "--workspace", workspace, "--data", data).status == 0
        assert weft("check", edited, "--data", data).status == 0
        simulated = weft("simulate", edited, "--workspace", workspace)
        assert simulated.status == 0, simulated.stderr
    assert not list(data.glob("bundles/*"))


@pytest.mark.parametrize("chunked", [False, True])
def test_too_large_an_upload_is_answered_and_not_cut(make: Any, workspace: Path, chunked: bool) -> None:
    one: Weft = make(workspace=workspace).start()
    more = LIMIT + (1 << 20)
    kind = {"content-type": "application/gzip", "connection": "close", **DEFAULT}
    port = int(one.url.rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    if chunked:
        pieces = iter([b"x" * (1 << 20)] * (more >> 20))
        connection.request("POST", "/api/bundles", pieces, kind, encode_chunked=True)
    else:
        connection.request("POST", "/api/bundles", b"x" * more, kind)
    # All was sent before anything was read, as most clients do.
    answer = connection.getresponse()
    body = json.loads(answer.read())
    assert (answer.status, body["code"]) == (413, "body_too_large"), body
    assert str(LIMIT) in body["detail"]
    connection.close()
    # And whoever asks first is told before anything is sent.
    with socket.create_connection(("127.0.0.1", port), timeout=20) as raw:
        head = f"POST /api/bundles HTTP/1.1\r\nHost: localhost\r\nx-functions-key: {KEY}\r\n"
        raw.sendall(f"{head}Content-Type: application/gzip\r\nContent-Length: {more}\r\n\r\n".encode())
        assert raw.recv(1000).startswith(b"HTTP/1.1 413")
    one.lives()
