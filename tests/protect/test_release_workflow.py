"""The step that releases, run as the runner would, against a remote repository; and what a fork makes of its releases."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from conftest import Upstream
from repository import RELEASE, ROOT, SIGNATURE, SIGNERS, Key, Repository, Verdict, allowed, new_key

WORKFLOW = ROOT / ".github/workflows/release.yml"


class Origin:
    """Upstream on a server. Its main branch has no release file; releases are commits of their own."""

    def __init__(self, upstream: Upstream, folder: Path) -> None:
        self.key = upstream.key
        self.folder = folder
        made = upstream.repository
        made.git("rm", "-q", RELEASE, SIGNATURE)
        made.git("tag", "-d", "v1.0.0", "v1.1.0", "v1.2.0")
        made.commit("develop")
        self.work = Repository(folder / "work")
        made.git("clone", "-q", "--bare", made.path, folder / "origin.git")
        made.git("clone", "-q", f"file://{folder}/origin.git", self.work.path)

    def release(self, version: str, key: Key | None) -> Verdict:
        """What the runner does with a fresh checkout."""
        fresh = self.folder / f"runner-{version}"
        self.work.git("clone", "-q", f"file://{self.folder}/origin.git", fresh)
        (fresh / "temp").mkdir()
        done = Repository(fresh).run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step()],
            b"",
            VERSION=version,
            RELEASE_KEY=key.private.read_text() if key else "",
            GITHUB_TOKEN="very-secret",
            GITHUB_ACTIONS="true",
            GITHUB_SERVER_URL="https://github.com",
            GITHUB_REPOSITORY="weft/weft",
            RUNNER_TEMP=str(fresh / "temp"),
        )
        assert list((fresh / "temp").iterdir()) == [], "the key was left behind"
        verdict = Verdict(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "PRIVATE KEY" not in verdict.text
        return verdict

    def develop(self, name: str, content: str) -> None:
        self.work.commit_with({name: content}, f"change {name}")
        self.work.git("push", "-q", "origin", "main")


def step() -> str:
    return textwrap.dedent(WORKFLOW.read_text().split("        run: |\n")[1])


@pytest.fixture
def origin(upstream: Upstream, tmp_path: Path) -> Origin:
    return Origin(upstream, tmp_path)


def test_releases_merge_into_forks_without_conflicts(origin: Origin, tmp_path: Path) -> None:
    assert origin.release("2.0.0", origin.key).status == 0
    fork = Repository(tmp_path / "fork")
    origin.work.git("clone", "-q", "-b", "release", f"file://{tmp_path}/origin.git", fork.path)
    base = fork.commit_with({"workspace/own.py": "OWN = 1\n"})
    for version in ("2.1.0", "2.2.0"):
        origin.develop("engine/loader.py", f"# {version}\n")
        origin.develop("workspace/hello.py", f"# {version}\n")
        verdict = origin.release(version, origin.key)
        assert verdict.status == 0, verdict.text
        fork.git("pull", "-q", "--no-rebase", "--no-edit", "origin", f"v{version}")
        head = fork.head
        judged = fork.judge(base, head)
        allowed(judged)
        assert version in judged.out
        base = fork.commit_with({f"workspace/after-{version}.py": ""})
        allowed(fork.judge(head, base))
    origin.work.git("fetch", "-q", "--tags")
    assert origin.work.git("rev-parse", "origin/release") == origin.work.git("rev-parse", "v2.2.0")
    assert origin.work.git("ls-tree", "origin/main", RELEASE) == ""


def test_a_release_that_forks_would_refuse_is_not_published(origin: Origin, tmp_path: Path) -> None:
    assert origin.release("2.0.0", origin.key).status == 0
    before = origin.work.git("ls-remote", "origin")

    def unpublished(version: str, key: Key | None, said: str) -> None:
        verdict = origin.release(version, key)
        assert verdict.status != 0, verdict.text
        assert said in verdict.text
        assert origin.work.git("ls-remote", "origin") == before

    unpublished("1.9.0", origin.key, "carries release 1.9.0, and the base has 2.0.0 already")
    unpublished("2.1.0", new_key(tmp_path / "stranger", "releases"), "is not signed by a key")
    unpublished("2.2.0", None, "has no secret")
    unpublished("two", origin.key, "is not a version")


def test_a_key_is_replaced_by_a_release_of_the_old_one(origin: Origin, tmp_path: Path) -> None:
    assert origin.release("2.0.0", origin.key).status == 0
    new = new_key(tmp_path / "new", "next")
    origin.develop(SIGNERS, new.line)
    verdict = origin.release("2.1.0", origin.key)
    assert verdict.status == 0, verdict.text
    assert "does not name this key" in verdict.err
    assert origin.release("2.2.0", new).status == 0
    assert origin.release("2.3.0", origin.key).status != 0


def test_a_tag_is_not_moved(origin: Origin) -> None:
    assert origin.release("2.0.0", origin.key).status == 0
    origin.work.git("fetch", "-q", "--tags")
    before = origin.work.git("rev-parse", "v2.0.0")
    origin.develop("engine/loader.py", "# again\n")
    (origin.folder / "runner-2.0.0").rename(origin.folder / "before")
    assert origin.release("2.0.0", origin.key).status != 0
    origin.work.git("fetch", "-q", "--tags")
    assert origin.work.git("rev-parse", "v2.0.0", "origin/release").split() == [before, before]


def test_the_secret_is_reached_through_the_environment_only() -> None:
    text = WORKFLOW.read_text()
    assert "environment: release" in text
    assert text.count("secrets.") == 1
    assert "${{" not in step()
