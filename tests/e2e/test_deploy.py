"""Code that is published to a running installation: by `scripts/deploy-workspace`, as CI does, and by `weft` itself."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from emulator import Emulator
from weft import REPOSITORY, Weft, clean_environment, copy_workspace, problem, until, weft

ANSWERS = """
from weft import Context, workflow

@workflow
def edited(ctx: Context) -> object:
    return {answer!r}
"""
KEY = "weft-dev-key"


@pytest.fixture
def one(make: Any, tmp_path: Path) -> Weft:
    started: Weft = make(workspace=copy_workspace(tmp_path / "workspace")).start()
    return started


@pytest.fixture
def fork(tmp_path: Path) -> Path:
    """A repository of a fork: all that is deployed of it is its workspace."""
    folder = tmp_path / "fork"
    (folder / "workspace" / "workflows").mkdir(parents=True)
    git(folder, "init", "--quiet", "--initial-branch=main")
    return folder


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True)


def commit(fork: Path, text: str) -> None:
    (fork / "workspace" / "workflows" / "edited.py").write_text(text)
    git(fork, "add", "--all")
    git(fork, "commit", "--quiet", "--message", "edit")


def deploy(fork: Path, server: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [REPOSITORY / "scripts" / "deploy-workspace", *arguments],
        cwd=fork,
        env=clean_environment({"WEFT_SERVER": server, "WEFT_KEY": KEY}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_commit_is_published_and_activated_and_taken_back(one: Weft, fork: Path) -> None:
    problem(one.execute("edited"), 404, "workflow_not_found", hint="declares")
    commit(fork, ANSWERS.format(answer=1))
    done = deploy(fork, one.url)
    assert done.returncode == 0, done.stderr
    published, activated = done.stdout.splitlines()
    assert published.removeprefix("published ") == activated.removeprefix("activated ")
    assert one.run("edited")["result"] == 1

    commit(fork, ANSWERS.format(answer=2))
    (fork / "workspace" / "workflows" / "edited.py").write_text(ANSWERS.format(answer="not committed"))
    assert deploy(fork, one.url, "--no-activate").returncode == 0
    assert one.run("edited")["result"] == 1
    assert deploy(fork, one.url).returncode == 0
    assert one.run("edited")["result"] == 2

    remote = {"WEFT_SERVER": one.url, "WEFT_KEY": KEY}
    assert weft("bundles", "rollback", "--json", environment=remote).status == 0
    assert one.run("edited")["result"] == 1
    listed = weft("bundles", "list", "--json", environment=remote)
    assert len(listed.json["items"]) == 2, listed.stdout


def test_what_does_not_pass_changes_nothing(one: Weft, fork: Path) -> None:
    commit(fork, ANSWERS.format(answer=1))
    assert deploy(fork, one.url).returncode == 0
    commit(fork, "def broken(:\n")
    done = deploy(fork, one.url)
    assert done.returncode == 1
    assert "the activation was refused (422)" in done.stderr
    assert "edited.py" in done.stderr
    assert one.run("edited")["result"] == 1
    assert KEY not in done.stdout + done.stderr


def test_a_key_is_sent_nowhere_in_the_clear(fork: Path) -> None:
    commit(fork, ANSWERS.format(answer=1))
    done = deploy(fork, "http://weft.example")
    assert done.returncode == 2
    assert "https://" in done.stderr
    assert deploy(fork, "https://weft.example", "no-such-commit").returncode == 2


def test_weft_publishes_a_folder_to_another_installation(one: Weft, fork: Path) -> None:
    commit(fork, ANSWERS.format(answer="by weft"))
    places: list[Any] = ["--workspace", fork / "workspace", "--activate", "--json"]
    done = weft("publish", *places, environment={"WEFT_SERVER": one.url, "WEFT_KEY": KEY})
    assert done.status == 0, done.stderr
    assert one.run("edited")["result"] == "by weft"


def test_two_instances_over_one_account_follow_each_other(make: Any, fork: Path, tmp_path: Path) -> None:
    emulator = Emulator(tmp_path / "azurite")
    emulator.start()
    try:
        one, other = (
            make(
                name,
                workspace=copy_workspace(tmp_path / f"{name}-workspace"),
                environment=emulator.environment,
            ).start()
            for name in ("a", "b")
        )

        def answers(expected: int) -> bool:
            run = other.execute("edited")
            return run.status == 200 and run.json["result"] == expected

        for answer in (1, 2):
            commit(fork, ANSWERS.format(answer=answer))
            assert deploy(fork, one.url).returncode == 0
            assert one.run("edited")["result"] == answer
            until(lambda answer=answer: answers(answer), "the other instance has it", 30)  # type: ignore[misc]
        # Taken back where it was not activated.
        remote = {"WEFT_SERVER": other.url, "WEFT_KEY": KEY}
        assert weft("bundles", "rollback", "--json", environment=remote).status == 0
        assert other.run("edited")["result"] == 1
        until(lambda: one.run("edited")["result"] == 1, "the first instance follows", 30)
    finally:
        emulator.stop()


@pytest.mark.parametrize(
    ("server", "key"),
    [
        ("http://weft.example", KEY),
        ("https://ann@weft.example", KEY),
        ("http://127.0.0.1:x@weft.example", KEY),
        ("http://localhost:@weft.example", KEY),
        ("https://{a,b}.example", KEY),
        ("https://weft.example", 'abc"\noutput = "leak'),
    ],
)
def test_a_key_goes_nowhere_it_should_not(fork: Path, server: str, key: str) -> None:
    commit(fork, ANSWERS.format(answer="one"))
    script = REPOSITORY / "scripts" / "deploy-workspace"
    told = {**clean_environment(), "WEFT_SERVER": server, "WEFT_KEY": key}
    done = subprocess.run(
        [script], cwd=fork, env=told, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2, done
    assert key not in done.stderr + done.stdout
    assert not (fork / "leak").exists()


@pytest.mark.parametrize("command", [["replay", "run_01m8k891re7m75b6st7vvc5y5t"], ["backtest", "hello"]])
def test_recordings_are_fetched_over_tls_only(command: list[str]) -> None:
    more = ["--server", "http://weft.example", "--organization", "contoso"]
    done = weft(*command, *more, environment={"WEFT_SERVER_KEY": "not-for-the-wire"})
    assert done.status != 0
    assert "`http://` is for this machine only" in done.stderr, done
    assert "not-for-the-wire" not in done.stderr + done.stdout
