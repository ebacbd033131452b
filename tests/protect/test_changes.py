"""What developers change: their workspace is theirs, and whatever touches the engine is refused, however it got there."""

from __future__ import annotations

from repository import Repository, allowed, refused


def test_work_in_the_workspace_is_allowed(fork: Repository) -> None:
    base = fork.head
    head = fork.commit_with(
        {"workspace/more.py": "MORE = 1\n", "workspace/hello.py": None, "docs/x.md": "x\n"}
    )
    allowed(fork.judge(base, head))


def test_an_edit_of_the_engine_is_refused(fork: Repository) -> None:
    base = fork.head
    head = fork.commit_with({"engine/loader.py": "import os\n", "workspace/more.py": "MORE = 1\n"})
    verdict = fork.judge(base, head)
    refused(
        verdict,
        "engine/loader.py: changed",
        f"--source={base}",
        "-- engine",
        "git fetch",
        "docs/protect-engine.md",
    )
    assert "workspace/more.py" not in verdict.err


def test_a_release_is_taken_by_merge(fork: Repository) -> None:
    base = fork.head
    fork.git("merge", "-q", "--no-edit", "v1.1.0")
    verdict = fork.judge(base, fork.head)
    allowed(verdict)
    assert "1.1.0" in verdict.out
    assert fork.read("workspace/own.py") == "OWN = 1\n"
