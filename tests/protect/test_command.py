"""The command itself: usage, exit statuses, what GitHub is told, and the time that it takes."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from conftest import Upstream
from repository import SCRIPT, SHELL, Repository, allowed, refused, unjudged


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SHELL, SCRIPT, *arguments],
        cwd=folder,
        env=Repository(folder).environment | variables,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_help_says_how_it_is_called(tmp_path: Path) -> None:
    done = run(tmp_path, "--help")
    assert done.returncode == 0
    assert "usage: scripts/protect-engine BASE HEAD" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["HEAD"],
        ["HEAD", "HEAD", "HEAD"],
        ["--release", "1.0.0"],
        ["--key", "key"],
        ["--release"],
        ["--release", "", "--key", "key"],
        ["--release", "1.0.0", "--key"],
        ["--release", "1.0.0", "--key", "key", "HEAD"],
        ["--force", "HEAD", "HEAD"],
        ["HEAD", "HEAD", "--force"],
        ["--", "HEAD", "HEAD"],
    ],
)
def test_wrong_usage_is_status_2(fork: Repository, arguments: list[str]) -> None:
    done = run(fork.path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")


def test_no_repository_is_status_2(tmp_path: Path) -> None:
    for arguments in (["HEAD", "HEAD"], ["a" * 40, "b" * 40]):
        done = run(tmp_path, *arguments, GIT_CEILING_DIRECTORIES=str(tmp_path.parent))
        assert (done.returncode, done.stdout) == (2, "")


@pytest.mark.parametrize(
    "tool", ["git", "awk", "sed", "sort", "ssh-keygen", "sha256sum", "cmp", "mktemp", "grep", "tr", "xargs"]
)
def test_a_tool_that_fails_is_no_allowance(fork: Repository, tmp_path: Path, tool: str) -> None:
    """Each tool in turn is missing, fails, or says nothing and claims to be done."""
    base = fork.head
    edited = fork.commit_with({"engine/loader.py": "import os\n"})
    fork.git("reset", "-q", "--hard", base)
    fork.git("merge", "-q", "--no-edit", "v1.1.0")
    spoilt = fork.commit_with({"engine/loader.py": "import os\n"})
    fakes = tmp_path / "fakes"
    fakes.mkdir()
    fake = fakes / tool
    bodies = ["exit 1", "exit 127", "kill -9 $$"]
    # `cmp` that says "the same" is the judgement itself.
    bodies += ["exit 0"] if tool != "cmp" else []
    for body in bodies:
        fake.write_text(f"#!/bin/sh\n{body}\n")
        fake.chmod(0o755)
        for head in (edited, spoilt):
            verdict = fork.judge(base, head, PATH=f"{fakes}:{fork.environment['PATH']}")
            assert verdict.status in (1, 2), f"{tool} with {body}: {verdict.text}"
            assert verdict.out == ""


def test_nothing_is_left_behind(fork: Repository, tmp_path: Path) -> None:
    left = tmp_path / "left"
    left.mkdir()
    base = fork.head
    before = {path: path.stat().st_mtime_ns for path in fork.path.rglob("*")}
    head = fork.git("rev-parse", "v1.1.0")
    fork.judge(base, head, TMPDIR=str(left))
    fork.judge(base, base, TMPDIR=str(left))
    fork.judge(base, "nothing", TMPDIR=str(left))
    assert list(left.iterdir()) == []
    assert {path: path.stat().st_mtime_ns for path in fork.path.rglob("*")} == before


def test_a_temporary_folder_with_an_odd_name_will_do(fork: Repository, tmp_path: Path) -> None:
    odd = tmp_path / "a b'c\"$d"
    odd.mkdir()
    base = fork.head
    fork.git("merge", "-q", "--no-edit", "v1.1.0")
    allowed(fork.judge(base, fork.head, TMPDIR=str(odd)))
    unjudged(fork.judge(base, fork.head, TMPDIR=str(tmp_path / "missing")), "no temporary folder")


def test_github_is_told(fork: Repository, tmp_path: Path) -> None:
    base = fork.head
    blob = fork.blob(b"x")
    names = [
        b"engine/a%0A::error::x,y:z",
        b"engine/<b>&.py",
        b"engine/##[error]x",
        b"engine/\n::error::y",
        b"engine/plain.py",
    ]
    head = fork.commit_entries([("100644", blob, name) for name in names])
    summary = tmp_path / "summary.md"
    variables = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_STEP_SUMMARY": str(summary),
        "GITHUB_REPOSITORY": "fork/weft",
    }
    verdict = fork.judge(base, head, **variables)
    refused(verdict)
    commands = [line for line in verdict.err.splitlines() if line.lstrip().startswith("::")]
    assert len(commands) == len(names)
    assert all(line.startswith("::error title=protect-engine") for line in commands)
    assert any(
        line.startswith("::error title=protect-engine,file=engine/plain.py::engine/plain.py: added. ")
        for line in commands
    )
    assert "##[" not in verdict.err
    assert "a%250A" in verdict.err
    text = summary.read_text()
    assert "### This change of the engine is refused" in text
    assert "engine/&lt;b&gt;&amp;.py: added" in text
    assert "<b>" not in text
    assert "git fetch" in text

    summary.unlink()
    unjudged(fork.judge("f" * 40, head, **variables), "::error title=protect-engine::")
    assert "could not judge" in summary.read_text()
    summary.unlink()
    refused(fork.judge(base, head, **variables | {"GITHUB_STEP_SUMMARY": str(tmp_path / "no" / "folder")}))
    allowed(fork.judge(base, base, **variables))
    assert not summary.exists()


def test_outside_of_github_there_are_no_commands(fork: Repository, tmp_path: Path) -> None:
    base = fork.head
    summary = tmp_path / "summary.md"
    verdict = fork.judge(base, fork.commit_with({"engine/x": ""}), GITHUB_STEP_SUMMARY=str(summary))
    refused(verdict)
    assert "::" not in verdict.err
    assert not summary.exists()


def test_upstream_itself_is_not_judged(fork: Repository) -> None:
    base = fork.head
    head = fork.commit_with({"engine/loader.py": "import os\n"})
    here = {
        "GITHUB_ACTIONS": "true",
        "GITHUB_SERVER_URL": "https://github.com",
        "GITHUB_REPOSITORY": "weft/weft",
    }
    verdict = fork.judge(base, head, **here)
    allowed(verdict)
    assert "this is upstream itself" in verdict.out
    refused(fork.judge(base, head, GITHUB_REPOSITORY="weft/weft"))
    refused(fork.judge(base, head, **here | {"GITHUB_REPOSITORY": "fork/weft"}))
    refused(fork.judge(base, head, **here | {"GITHUB_REPOSITORY": ""}))
    refused(fork.judge(base, head, **here | {"GITHUB_SERVER_URL": "https://git.example.com"}))
    renamed = fork.commit_with({".github/upstream": "https://github.com/fork/weft\n"})
    refused(
        fork.judge(base, renamed, **here | {"GITHUB_REPOSITORY": "fork/weft"}), ".github/upstream: changed"
    )


@pytest.mark.parametrize(
    ("content", "skipped"),
    [
        ("weft/weft\n", True),
        ("# where it is made\n\n  https://github.com/weft/weft  \r\n", True),
        ("", False),
        ("# weft/weft\n", False),
        ("*\n", False),
        ("weft\n", False),
        ("https://github.com/\n", False),
        ("other/weft\nweft/weft\n", False),
    ],
)
def test_upstream_s_name_is_one_line(fork: Repository, content: str, skipped: bool) -> None:
    base = fork.commit_with({".github/upstream": content})
    head = fork.commit_with({"engine/loader.py": "import os\n"})
    verdict = fork.judge(base, head, GITHUB_ACTIONS="true", GITHUB_REPOSITORY="weft/weft")
    (allowed if skipped else refused)(verdict)


def test_an_engine_that_was_changed_past_the_check_stays_visible(fork: Repository) -> None:
    base = fork.commit_with({"engine/loader.py": "import os\n"})
    verdict = fork.judge(base, fork.commit_with({"workspace/x.py": ""}))
    allowed(verdict)
    assert "warning: the engine in the base itself is not as the release" in verdict.err
    assert "engine/loader.py: other content than in release 1.0.0" in verdict.err


def test_10_000_files_take_seconds(upstream: Upstream, capsys: pytest.CaptureFixture[str]) -> None:
    one = upstream.repository
    for number in range(10_000):
        one.write(f"engine/many/{number % 100:02}/{number}.py", f"NUMBER = {number}\n" * 20)
    base = one.release("2.0.0", upstream.key)
    honest = one.commit_with({"workspace/x.py": ""})
    edited = one.commit_with({"engine/many/00/0.py": ""})
    for number in range(0, 10_000, 2):
        one.write(f"engine/many/{number % 100:02}/{number}.py", "")
    released = one.release("2.1.0", upstream.key)
    spoilt = one.commit_with({"engine/many/00/0.py": "import os\n"})
    times = []
    for name, head, judged in (
        ("workspace", honest, allowed),
        ("edit", edited, refused),
        ("release", released, allowed),
        ("spoilt release", spoilt, refused),
    ):
        start = time.monotonic()
        verdict = one.judge(base, head)
        seconds = time.monotonic() - start
        judged(verdict)
        times.append(f"{name} {seconds:.2f} s")
        assert seconds < 60
    with capsys.disabled():
        print(f"\n10,000 files: {', '.join(times)}")
