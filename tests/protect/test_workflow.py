"""The step of the workflow, run as the runner would, against a remote repository as GitHub would have it."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from repository import ROOT, ZEROS, Repository, Verdict

WORKFLOW = ROOT / ".github/workflows/protect-engine.yml"
EVIL = "#!/bin/sh\necho 'allowed: by myself'\ntouch \"$RUNNER_TEMP/pwned\"\n"


def step() -> str:
    """What `run:` has, up to the end of the file."""
    return textwrap.dedent(WORKFLOW.read_text().split("        run: |\n")[1])


class Hosted:
    """A fork on a server, with its clone."""

    def __init__(self, fork: Repository, folder: Path) -> None:
        self.fork = fork
        self.folder = folder
        self.remote = folder / "server" / "fork" / "weft"
        fork.git("clone", "-q", "--bare", fork.path, self.remote)
        bare = Repository(self.remote)
        bare.git("config", "uploadpack.allowFilter", "true")
        fork.git("remote", "add", "origin", f"file://{self.remote}")
        self.temp = folder / "runner"
        self.temp.mkdir()

    def push(self, *refs: str) -> None:
        self.fork.git("push", "-q", "--force", "origin", *refs)

    def run(self, event: str, **variables: str) -> Verdict:
        names = ("DEFAULT_BRANCH", "PULL_NUMBER", "PULL_HEAD", "BEFORE", "AFTER")
        done = self.fork.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step()],
            b"",
            **dict.fromkeys(names, "")
            | {
                "EVENT": event,
                "DEFAULT_BRANCH": "main",
                "GITHUB_ACTIONS": "true",
                "GITHUB_TOKEN": "very-secret",
                "GITHUB_REF": "refs/heads/main",
                "GITHUB_SERVER_URL": f"file://{self.folder}/server",
                "GITHUB_REPOSITORY": "fork/weft",
                "RUNNER_TEMP": str(self.temp),
                "PAUSES": "0 0",
            }
            | variables,
        )
        assert not (self.temp / "pwned").exists(), "code of the change was run"
        verdict = Verdict(done.returncode, done.stdout.decode(), done.stderr.decode())
        assert "very-secret" not in verdict.text
        return verdict

    def push_event(self, before: str, after: str, ref: str = "main") -> Verdict:
        return self.run("push", BEFORE=before, AFTER=after, GITHUB_REF=f"refs/heads/{ref}")

    def pull_request(self, topic: str, base: str = "main") -> Verdict:
        """Merges as GitHub does, and tells of it."""
        self.fork.git("checkout", "-q", "--detach", base)
        self.fork.git("merge", "-q", "--no-ff", "--no-edit", topic)
        self.push("HEAD:refs/pull/7/merge", f"{topic}:refs/pull/7/head")
        return self.run("pull_request_target", PULL_NUMBER="7", PULL_HEAD=self.fork.git("rev-parse", topic))


@pytest.fixture
def hosted(fork: Repository, tmp_path: Path) -> Hosted:
    return Hosted(fork, tmp_path)


def judged(verdict: Verdict, status: int, said: str = "") -> None:
    assert verdict.status == status, verdict.text
    assert said in verdict.text, verdict.text
    assert ("allowed: " in verdict.out) == (status == 0), verdict.text


def test_pushes_to_the_default_branch(hosted: Hosted) -> None:
    base = hosted.fork.head
    honest = hosted.fork.commit_with({"workspace/x.py": ""})
    hosted.push("main")
    judged(hosted.push_event(base, honest), 0)
    edited = hosted.fork.commit_with({"engine/loader.py": "import os\n", "scripts/protect-engine": EVIL})
    hosted.push("main")
    judged(hosted.push_event(honest, edited), 1, "engine/loader.py: changed")


def test_a_forced_push_to_the_default_branch(hosted: Hosted) -> None:
    before = hosted.fork.commit_with({"workspace/lost.py": ""})
    hosted.push("main")
    hosted.fork.git("reset", "-q", "--hard", "HEAD~1")
    edited = hosted.fork.commit_with({"engine/loader.py": "import os\n", "scripts/protect-engine": EVIL})
    hosted.push("main")
    judged(hosted.push_event(before, edited), 1, "engine/loader.py: changed")
    hosted.fork.git("reset", "-q", "--hard", "HEAD~1")
    honest = hosted.fork.commit_with({"workspace/x.py": ""})
    hosted.push("main")
    judged(hosted.push_event(before, honest), 0)


def test_a_forced_push_whose_old_tip_is_gone_is_not_allowed(hosted: Hosted) -> None:
    judged(hosted.push_event("d" * 40, hosted.fork.head), 2, "can't be fetched")


def test_the_first_push_is_not_allowed_by_itself(hosted: Hosted) -> None:
    judged(hosted.push_event(ZEROS, hosted.fork.head), 2, "there is nothing to compare it with")


def test_a_sync_is_allowed(hosted: Hosted) -> None:
    base = hosted.fork.head
    hosted.fork.git("merge", "-q", "--no-edit", "v1.2.0")
    hosted.push("main")
    judged(hosted.push_event(base, hosted.fork.head), 0, "1.2.0")


def test_a_new_branch(hosted: Hosted) -> None:
    hosted.fork.git("checkout", "-q", "-b", "topic")
    honest = hosted.fork.commit_with({"workspace/x.py": ""})
    hosted.push("topic")
    judged(hosted.push_event(ZEROS, honest, "topic"), 0)
    edited = hosted.fork.commit_with({"engine/loader.py": "import os\n", "scripts/protect-engine": EVIL})
    more = hosted.fork.commit_with({"workspace/y.py": ""})
    hosted.push("topic")
    judged(hosted.push_event(ZEROS, edited, "topic"), 1)
    judged(hosted.push_event(edited, more, "topic"), 1, "engine/loader.py: changed")


def test_a_branch_that_is_older_than_the_last_sync(hosted: Hosted) -> None:
    hosted.fork.git("checkout", "-q", "-b", "topic")
    honest = hosted.fork.commit_with({"workspace/x.py": ""})
    hosted.fork.git("checkout", "-q", "main")
    hosted.fork.git("merge", "-q", "--no-edit", "v1.2.0")
    hosted.push("topic", "main")
    judged(hosted.push_event(ZEROS, honest, "topic"), 0)
    judged(hosted.pull_request("topic"), 0)


def test_a_branch_from_nothing(hosted: Hosted) -> None:
    hosted.fork.git("checkout", "-q", "--orphan", "topic")
    honest = hosted.fork.commit()
    edited = hosted.fork.commit_with({"engine/loader.py": "import os\n"})
    hosted.push("topic")
    judged(hosted.push_event(ZEROS, honest, "topic"), 0)
    judged(hosted.push_event(ZEROS, edited, "topic"), 1)


def test_a_pull_request(hosted: Hosted) -> None:
    hosted.fork.git("checkout", "-q", "-b", "topic")
    hosted.fork.commit_with({"workspace/x.py": ""})
    judged(hosted.pull_request("topic"), 0)
    hosted.fork.git("checkout", "-q", "topic")
    hosted.fork.commit_with({"engine/loader.py": "import os\n"})
    judged(hosted.pull_request("topic"), 1, "engine/loader.py: changed")


def test_a_pull_request_can_not_edit_its_judge(hosted: Hosted) -> None:
    hosted.fork.git("checkout", "-q", "-b", "topic")
    hosted.fork.commit_with(
        {
            "scripts/protect-engine": EVIL,
            ".github/workflows/protect-engine.yml": "on: push\n",
            ".github/protected-paths": "docs/\n",
            ".github/upstream": "https://github.com/fork/weft\n",
        }
    )
    judged(hosted.pull_request("topic"), 1, "scripts/protect-engine: changed")


def test_a_pull_request_that_takes_a_release(hosted: Hosted) -> None:
    hosted.fork.git("checkout", "-q", "-b", "topic")
    hosted.fork.git("merge", "-q", "--no-edit", "v1.1.0")
    judged(hosted.pull_request("topic"), 0, "1.1.0")


def test_a_pull_request_whose_merge_is_not_made_yet(hosted: Hosted) -> None:
    hosted.fork.git("checkout", "-q", "-b", "topic")
    hosted.fork.commit_with({"workspace/x.py": ""})
    judged(hosted.pull_request("topic"), 0)
    hosted.fork.git("checkout", "-q", "topic")
    head = hosted.fork.commit_with({"engine/loader.py": "import os\n"})
    hosted.push("topic:refs/pull/7/head")
    judged(hosted.run("pull_request_target", PULL_NUMBER="7", PULL_HEAD=head), 2, "solve conflicts")
    judged(hosted.run("pull_request_target", PULL_NUMBER="8", PULL_HEAD=head), 2, "solve conflicts")


def test_a_merge_queue(hosted: Hosted) -> None:
    base = hosted.fork.head
    hosted.fork.git("checkout", "-q", "-b", "queue")
    honest = hosted.fork.commit_with({"workspace/x.py": ""})
    edited = hosted.fork.commit_with({"engine/loader.py": "import os\n", "scripts/protect-engine": EVIL})
    hosted.push("queue")
    judged(hosted.run("merge_group", BEFORE=base, AFTER=honest, GITHUB_REF="refs/heads/queue"), 0)
    judged(hosted.run("merge_group", BEFORE=base, AFTER=edited, GITHUB_REF="refs/heads/queue"), 1)


def test_another_event_is_not_allowed(hosted: Hosted) -> None:
    judged(hosted.run("schedule"), 2, "not one that can be judged")


def test_a_base_without_the_script_is_not_allowed(hosted: Hosted) -> None:
    base = hosted.fork.commit_with({"scripts/protect-engine": None})
    head = hosted.fork.commit_with({"scripts/protect-engine": EVIL})
    hosted.push("main")
    judged(hosted.push_event(base, head), 2, "has no scripts/protect-engine")


def test_the_token_is_for_fetching_only(hosted: Hosted) -> None:
    base = hosted.fork.commit_with({"scripts/protect-engine": "#!/bin/sh\nenv\n"})
    head = hosted.fork.commit_with({"workspace/x.py": ""})
    hosted.push("main")
    assert "GITHUB_REPOSITORY=fork/weft" in hosted.push_event(base, head).out


def test_names_of_branches_are_no_code(hosted: Hosted) -> None:
    name = "$(touch${IFS}$RUNNER_TEMP/pwned)"
    hosted.fork.git("checkout", "-q", "-b", name)
    head = hosted.fork.commit_with({"engine/loader.py": "import os\n"})
    hosted.push(name)
    judged(hosted.push_event(ZEROS, head, name), 1)
    judged(hosted.run("push", AFTER=head, GITHUB_REF="refs/heads/x", DEFAULT_BRANCH=name), 0)


@pytest.mark.parametrize(
    "line",
    ["permissions: {}", "      contents: read", "  pull_request_target:", "    runs-on: ubuntu-latest"],
)
def test_the_workflow_has_no_more_rights_than_it_needs(line: str) -> None:
    lines = [text.split(" #")[0].rstrip() for text in WORKFLOW.read_text().splitlines()]
    assert line in lines
    assert not any("write" in text or "secrets." in text or "uses:" in text for text in lines if text.strip())
    assert "${{" not in step(), "values of the event reach the shell as variables only"
