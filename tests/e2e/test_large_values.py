"""Artifacts that are larger than what the handler may hold: to storage, in both stores, and back."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from emulator import Emulator
from weft import DEFAULT, Weft, weft_at

SIZE = int(os.environ.get("WEFT_TEST_ARTIFACT_MIB", "96")) << 20
#: What the peak of the handler's memory may rise by, whatever the size.
GROWTH = 48 << 20

WORKFLOW = """
from weft import Context, workflow


@workflow()
def writes(ctx: Context, size: int) -> dict:
    content = memoryview(bytes(range(251)) * (size // 251 + 1))[:size]
    written = ctx.artifacts.write("large.bin", content, media_type="application/zip")
    return {"id": written.id, "sha256": written.sha256, "size": written.size}
"""


class Memory:
    """The peak of a process's own memory from here on."""

    def __init__(self, pid: int) -> None:
        self.folder = Path("/proc") / str(pid)
        (self.folder / "clear_refs").write_text("5")
        self.before = self._kib("VmRSS")

    def _kib(self, name: str) -> int:
        lines = (self.folder / "status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))

    def grown(self) -> int:
        """In bytes."""
        return (self._kib("VmHWM") - self.before) << 10


@pytest.fixture(params=["sqlite", "azure"])
def one(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Weft]:
    workspace = tmp_path / "workspace"
    (workspace / "workflows").mkdir(parents=True)
    (workspace / "workflows" / "large.py").write_text(WORKFLOW)
    environment = {"WEFT_LOG": "warn", "WEFT_STEP_MEMORY_MIB": "1024"}
    emulator = None
    if request.param == "azure":
        emulator = Emulator(tmp_path / "azurite")
        emulator.start()
        environment |= emulator.environment
    try:
        with weft_at(tmp_path, workspace=workspace, environment=environment) as started:
            yield started.start()
    finally:
        if emulator is not None:
            emulator.stop()


def test_the_handler_holds_no_artifact_as_a_whole(one: Weft) -> None:
    one.run("writes", {"size": 5 << 20})
    memory = Memory(one.pid)
    ended = one.ended(one.begin("writes", {"size": SIZE}), 300)
    up = memory.grown()
    assert ended["status"] == "succeeded", ended
    assert ended["result"]["size"] == SIZE

    memory = Memory(one.pid)
    path = f"/api/runs/{ended['runId']}/artifacts/{ended['result']['id']}"
    digest, came = hashlib.sha256(), 0
    with urlopen(Request(one.url + path, headers=DEFAULT), timeout=300) as answer:
        assert answer.headers["Content-Length"] == str(SIZE)
        assert answer.headers["ETag"] == f'"{ended["result"]["sha256"]}"'
        assert answer.headers["Content-Type"] == "application/zip"
        while block := answer.read(1 << 20):
            digest.update(block)
            came += len(block)
    down = memory.grown()
    assert (came, digest.hexdigest()) == (SIZE, ended["result"]["sha256"])
    print(f"{SIZE >> 20} MiB: the handler's peak grew by {up >> 20} MiB up and {down >> 20} MiB down")
    assert up < GROWTH
    assert down < GROWTH

    part = one.call("GET", path.removeprefix("/api"), Range=f"bytes={SIZE - 5}-")
    assert (part.status, len(part.body)) == (206, 5)
    assert part.headers["Content-Range"] == f"bytes {SIZE - 5}-{SIZE - 1}/{SIZE}"
    listed = one.get(f"/runs/{ended['runId']}/artifacts")["items"]
    assert [(item["size"], item["mediaType"]) for item in listed] == [(SIZE, "application/zip")]


def test_what_is_over_a_quota_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    (workspace / "workflows").mkdir(parents=True)
    (workspace / "workflows" / "large.py").write_text(WORKFLOW)
    environment = {"WEFT_MAX_ARTIFACT_BYTES": "1000000", "WEFT_LOG": "warn"}
    with weft_at(tmp_path, workspace=workspace, environment=environment) as one:
        one.start()
        assert one.run("writes", {"size": 1_000_000})["status"] == "succeeded"
        ended = one.run("writes", {"size": 1_000_001})
        assert (ended["status"], ended["error"]["type"]) == ("failed", "TooLarge"), ended
        assert "the limit is 1000000: split it" in ended["error"]["message"], ended
