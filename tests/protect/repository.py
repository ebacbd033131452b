"""Real repositories: an upstream that releases, forks that follow it, and the script that judges them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "protect-engine"
RELEASE = ".github/engine-release.json"
SIGNATURE = RELEASE + ".sig"
SIGNERS = ".github/engine-signers"
PATHS = ".github/protected-paths"
ZEROS = "0" * 40

# Another shell than the system's may be named, like `busybox sh`; another awk is found by PATH.
SHELL = os.environ.get("PROTECT_SHELL", "sh").split()


def environment(home: Path) -> dict[str, str]:
    """Nothing of the developer's own configuration, and nothing of a runner that these tests may run on."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_AUTHOR_NAME": "Dev",
        "GIT_AUTHOR_EMAIL": "dev@example.com",
        "GIT_COMMITTER_NAME": "Dev",
        "GIT_COMMITTER_EMAIL": "dev@example.com",
        "GIT_EDITOR": "true",
    } | {name: os.environ[name] for name in ("TMPDIR",) if name in os.environ}


@dataclass(frozen=True)
class Verdict:
    """What the script said."""

    status: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return f"exit {self.status}\n{self.out}{self.err}"


@dataclass(frozen=True)
class Key:
    """A pair of keys to sign with, and its line among the signers."""

    private: Path
    name: str

    @property
    def line(self) -> str:
        public = self.private.with_suffix(".pub").read_text().split()
        return f'{self.name} namespaces="weft-engine" {public[0]} {public[1]}\n'


def new_key(folder: Path, name: str) -> Key:
    folder.mkdir(parents=True, exist_ok=True)
    private = folder / name
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", private], check=True, timeout=60
    )
    return Key(private, f"{name}@example.com")


class Repository:
    """A work tree with its repository."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environment = environment(path.parent)

    @classmethod
    def new(cls, path: Path, *options: str) -> Repository:
        path.mkdir(parents=True)
        repository = cls(path)
        repository.git("init", "-q", "--template=", "-b", "main", *options)
        return repository

    def copy(self, path: Path) -> Repository:
        shutil.copytree(self.path, path, symlinks=True)
        return Repository(path)

    def run(
        self, command: Sequence[str | Path], stdin: bytes = b"", **variables: str
    ) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            command,
            cwd=self.path,
            env=self.environment | variables,
            input=stdin,
            capture_output=True,
            timeout=120,
        )

    def git(self, *arguments: str | Path, stdin: bytes = b"", **variables: str) -> str:
        done = self.run(["git", *arguments], stdin, **variables)
        if done.returncode:
            raise AssertionError(f"git {arguments}: {done.stdout.decode()}{done.stderr.decode()}")
        return done.stdout.decode("utf-8", "surrogateescape").strip()

    def write(self, name: str, content: str | bytes) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    def read(self, name: str) -> str:
        return (self.path / name).read_text()

    def commit(self, message: str = "a change") -> str:
        """Everything that is in the work tree; the id of the commit."""
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.head

    def commit_with(self, files: dict[str, str | bytes | None], message: str = "a change") -> str:
        """The files written, or removed where there is None, and committed."""
        for name, content in files.items():
            if content is None:
                (self.path / name).unlink()
            else:
                self.write(name, content)
        return self.commit(message)

    def commit_entries(self, entries: Sequence[tuple[str, str, bytes]], onto: str = "HEAD") -> str:
        """A commit of entries that a work tree may be unable to hold: mode, object, name. Mode 0 removes one."""
        index = str(self.path / ".git" / "made-index")
        self.git("read-tree", onto, GIT_INDEX_FILE=index)
        lines = b"".join(
            b"%s %s\t%s\0"
            % (mode.encode(), (ZEROS[: len(self.head)] if mode == "0" else made).encode(), name)
            for mode, made, name in entries
        )
        self.git("update-index", "-z", "--index-info", stdin=lines, GIT_INDEX_FILE=index)
        tree = self.git("write-tree", GIT_INDEX_FILE=index)
        return self.git("commit-tree", tree, "-p", onto, "-m", "made")

    def blob(self, content: bytes) -> str:
        return self.git("hash-object", "-w", "--stdin", stdin=content)

    @property
    def head(self) -> str:
        return self.git("rev-parse", "HEAD")

    def judge(self, base: str, head: str, **variables: str) -> Verdict:
        done = self.run([*SHELL, SCRIPT, base, head], b"", **variables)
        return Verdict(
            done.returncode,
            done.stdout.decode("utf-8", "surrogateescape"),
            done.stderr.decode("utf-8", "surrogateescape"),
        )

    def make_release(self, version: str, key: Key) -> Verdict:
        done = self.run([*SHELL, SCRIPT, "--release", version, "--key", key.private])
        return Verdict(done.returncode, done.stdout.decode(), done.stderr.decode())

    def release(self, version: str, key: Key) -> str:
        """A release of what is in the work tree, committed and tagged."""
        verdict = self.make_release(version, key)
        assert verdict.status == 0, verdict.text
        commit = self.commit(f"release {version}")
        self.git("tag", f"v{version}")
        return commit

    def sign(self, key: Key, namespace: str = "weft-engine") -> None:
        """Signs the release file as it is now."""
        done = self.run(
            ["ssh-keygen", "-q", "-Y", "sign", "-f", key.private, "-n", namespace],
            (self.path / RELEASE).read_bytes(),
        )
        assert done.returncode == 0, done.stderr
        (self.path / SIGNATURE).write_bytes(done.stdout)

    def released_files(self) -> dict[str, str]:
        files: dict[str, str] = json.loads(self.read(RELEASE))["files"]
        return files


def allowed(verdict: Verdict) -> None:
    assert verdict.status == 0, verdict.text
    assert verdict.out.startswith("allowed: "), verdict.text


def refused(verdict: Verdict, *said: str) -> None:
    assert verdict.status == 1, verdict.text
    assert verdict.out == "", verdict.text
    assert verdict.err.startswith("error: this change is refused"), verdict.text
    for words in said:
        assert words in verdict.err, f"{words!r} is missing: {verdict.text}"


def unjudged(verdict: Verdict, *said: str) -> None:
    assert verdict.status == 2, verdict.text
    assert verdict.out == "", verdict.text
    assert "error: " in verdict.err, verdict.text
    for words in said:
        assert words in verdict.err, f"{words!r} is missing: {verdict.text}"
