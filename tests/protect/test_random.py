"""Random changes, judged by the script and by a few lines of Python that know nothing of it."""

from __future__ import annotations

import random
import unicodedata

import pytest

from repository import Repository

ROOTS = (
    "src",
    "engine",
    "web",
    "build.rs",
    ".cargo",
    "host.json",
    "api",
    "tick",
    ".ci",
    ".github",
    "infra",
    "scripts",
)
NAMES = [
    "engine/loader.py", "engine/old.py", "engine/a/b.py", "Engine/x.py", "engine./x.py", "engine", "ENGINE", "engines/x.py",
    "src/main.rs", "src/é.rs", "\u017frc/main.rs", "srcs", "host.json", "Host.json", "host.json.bak", "workspace/host.json",
    "workspace/hello.py", "workspace/new\nline", "workspace/engine/x.py", "workspace/function.json", "mine/function.json",
    "mine/more/function.json", "function.json", "docs/x.md", "docs/\u212aelvin", "\u212aelvin/engine", ".github/x.yml",
    ".githu\u200cb/x.yml", "Cargo.toml", "Cargo.lock", "cargo.x/y", "Cargo", "README.md", ".ci", ".cix", "in\ufb01ra/x", "tick/\U0001f9f5",
]  # fmt: skip


def is_protected(name: str) -> bool:
    plain = "".join(letter for letter in name if unicodedata.category(letter) != "Cf")
    parts = [part.rstrip(". ") for part in unicodedata.normalize("NFC", plain).casefold().split("/")]
    return (
        parts[0] in ROOTS or parts[0].startswith("cargo.") or (len(parts) > 1 and parts[1] == "function.json")
    )


def snapshot(one: Repository, commit: str) -> list[str]:
    entries = one.git("ls-tree", "-r", "-z", commit).split("\0")
    return sorted(entry for entry in entries if entry and is_protected(entry.split("\t", 1)[1]))


@pytest.mark.parametrize("seed", range(12))
def test_the_script_and_a_model_agree(fork: Repository, seed: int) -> None:
    chance = random.Random(seed)
    base = fork.head
    head = base
    blobs = [fork.blob(content) for content in (b"", b"x", b"import os\n")]
    blobs += [line.split()[2] for line in fork.git("ls-tree", "-r", "HEAD").splitlines()]
    for _ in range(6):
        entries = []
        for _ in range(chance.choice((1, 1, 1, 3))):
            name = chance.choice(NAMES)
            mode = chance.choice(("100644", "100644", "100755", "120000", "0"))
            entries.append((mode, chance.choice(blobs), name.encode()))
        names = [entry[2].decode() for entry in entries]
        if any(one != two and two.startswith(f"{one}/") for one in names for two in names):
            continue
        head = fork.commit_entries(entries, onto=chance.choice((head, base)))
        verdict = fork.judge(base, head)
        wanted = 0 if snapshot(fork, base) == snapshot(fork, head) else 1
        assert verdict.status == wanted, f"{entries}: {verdict.text}"
