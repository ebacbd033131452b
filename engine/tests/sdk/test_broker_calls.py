"""`ctx.kv`, `ctx.artifacts`, `ctx.runs` and `ctx.data` against the fakes that unit tests of a workspace use."""

from __future__ import annotations

from binascii import a2b_base64
from pathlib import Path

import pytest

from weft import Context, InvalidInput, NotFound, TooLarge, WeftError, workflow
from weft.testing import Fakes, fake_context, run


@workflow()
def imports(ctx: Context) -> dict[str, object]:
    cursor = ctx.kv.get("cursor", 0)
    written = ctx.artifacts.write("orders.csv", b"id;name\n", media_type="text/csv")
    child = ctx.runs.wait(ctx.runs.start("notify", {"count": 2}, key="once"))
    ctx.kv.set("cursor", cursor + 1)
    return {"size": written.size, "departments": ctx.data.get("departments"), "child": child.value()}


def test_a_step_finds_and_leaves_what_the_engine_keeps() -> None:
    fakes = Fakes(kv={"cursor": 7}, data={"departments": ["it"]}, runs={"notify": lambda count: count * 2})
    result = run(imports, fakes=fakes)
    assert result.value == {"size": 8, "departments": ["it"], "child": 4}
    assert fakes.kv == {"cursor": 8}
    assert fakes.artifacts == {"orders.csv": b"id;name\n"}
    assert [(started.workflow, started.key) for started in fakes.started] == [("notify", "once")]


def test_pairs() -> None:
    kv = fake_context().kv
    assert kv.get("a") is None
    assert kv.compare_and_set("a", None, 1)
    assert not kv.compare_and_set("a", None, 2)
    assert kv.compare_and_set("a", 1, 2)
    kv.set("b/c", [1])
    assert list(kv.list()) == ["a", "b/c"]
    assert list(kv.list("b/")) == ["b/c"]
    assert kv.delete("a")
    assert not kv.delete("a")
    with pytest.raises(TooLarge):
        kv.set("big", "x" * 33_000)
    with pytest.raises(InvalidInput):
        kv.set("", 1)
    with pytest.raises(TypeError):
        kv.set("set", {1})


def test_artifacts_of_many_pieces_and_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts = fake_context().artifacts
    content = bytes(range(256)) * 5_000
    assert artifacts.write("big.bin", content).size == len(content)
    assert artifacts.read("big.bin") == content
    (tmp_path / "a.txt").write_text("text")
    written = artifacts.write("a.txt", tmp_path / "a.txt")
    assert artifacts.read(id=written.id) == b"text"
    assert artifacts.write("empty", b"").size == 0
    assert artifacts.read("empty") == b""
    assert [artifact.name for artifact in artifacts.list()] == ["a.txt", "big.bin", "empty"]
    with pytest.raises(NotFound):
        artifacts.read("other")
    assert artifacts.write("view", memoryview(content)[1:700_000:3]).size == 233_333
    assert artifacts.read("view") == content[1:700_000:3]
    with monkeypatch.context() as patch:
        patch.setattr("weft._fakes.ARTIFACT_BYTES", 1_000)
        with pytest.raises(TooLarge, match="the limit is 1000"):
            artifacts.write("huge", bytes(1_001))
    with pytest.raises(InvalidInput):
        artifacts._link.call("artifacts.begin", {"name": "a", "size": 1, "sha256": "0" * 63})


def test_artifacts_become_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts = fake_context().artifacts
    content = bytes(range(256)) * 5_000
    written = artifacts.write("big.bin", content, media_type="text/csv")
    path = tmp_path / "there.bin"
    path.write_bytes(b"before")
    with pytest.raises(NotFound):
        artifacts.save(path, "other")
    assert path.read_bytes() == b"before"
    saved = artifacts.save(path, "big.bin")
    assert (saved.id, saved.size, saved.media_type) == (written.id, len(content), "text/csv")
    assert path.read_bytes() == content
    # What isn't what was written takes nobody's place.
    path.write_bytes(b"before")
    monkeypatch.setattr("weft._artifacts.a2b_base64", lambda text: a2b_base64(text)[::-1])
    with pytest.raises(WeftError, match="not what was written"):
        artifacts.save(path, id=written.id)
    assert path.read_bytes() == b"before"
    assert [file.name for file in tmp_path.iterdir()] == ["there.bin"]


def test_files_that_steps_hand_on() -> None:
    artifacts = fake_context().artifacts
    written = artifacts.write("report.txt", b"text", media_type="text/plain")
    file = written.as_file()
    assert {name: file[name] for name in ("name", "size")} == {"name": "report.txt", "size": 4}
    assert artifacts.content(file) == b"text"
    assert artifacts.content({"data": "dGV4dA=="}) == b"text"
    assert file["media_type"] == "text/plain"
    written.media_type = ""
    assert "media_type" not in written.as_file()


def test_runs_that_fail_and_that_are_unknown() -> None:
    def fails() -> None:
        raise ValueError("no good")

    runs = fake_context(fakes=Fakes(runs={"bad": fails})).runs
    info = runs.wait(runs.start("bad"))
    assert (info.status, info.ended, info.succeeded) == ("failed", True, False)
    with pytest.raises(WeftError, match="ValueError: no good"):
        info.value()
    with pytest.raises(NotFound):
        runs.get("run_other")
    with pytest.raises(NotFound):
        runs.start("other")
