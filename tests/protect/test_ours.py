"""The list that this repository has itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

from repository import PATHS, ROOT, SCRIPT, SIGNERS, Repository, refused

# What belongs to a fork. Whatever is new beside these is meant to be protected, or to be added here.
FREE = {
    ".editorconfig", ".gitignore", ".vscode", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "benches",
    "clippy.toml", "compose.yml", "docs", "local.settings.json", "pyproject.toml", "rustfmt.toml", "tests", "workspace",
}  # fmt: skip
NOT_KEPT = {
    ".git",
    ".weft",
    "target",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    "__pycache__",
    ".env",
    ".DS_Store",
}


def test_each_name_at_the_top_is_the_engine_s_or_the_fork_s(tmp_path: Path) -> None:
    names = sorted({path.name for path in ROOT.iterdir()} - NOT_KEPT)
    one = Repository.new(tmp_path / "one")
    for name in (PATHS, SIGNERS, "scripts/protect-engine"):
        one.write(name, (ROOT / name).read_bytes())
    base = one.commit()
    head = one.commit_with({(f"{name}/x" if (ROOT / name).is_dir() else name): "" for name in names})
    verdict = one.judge(base, head)
    refused(verdict)
    shown = {
        line.split(": ")[0].strip().split("/")[0]
        for line in verdict.err.splitlines()
        if line.endswith(": added")
    }
    assert shown == {name for name in names if name not in FREE}


def test_what_the_design_protects_is_in_the_list() -> None:
    lines = (ROOT / PATHS).read_text().splitlines()
    functions = {f"{path.parent.name}/" for path in ROOT.glob("*/function.json")}
    assert functions
    wanted = {"engine/", "src/", "host.json", "Cargo.*", "infra/", "scripts/", ".github/"} | functions
    assert wanted <= set(lines)


def test_our_signers_can_be_read() -> None:
    """Comments only, or keys that ssh-keygen knows, and for nothing but releases."""
    lines = [line for line in (ROOT / SIGNERS).read_text().splitlines() if line and not line.startswith("#")]
    for line in lines:
        assert 'namespaces="weft-engine"' in line
        key = line[line.index("ssh-") :] if "ssh-" in line else line.split(" ", 2)[2]
        subprocess.run(["ssh-keygen", "-l", "-f", "-"], input=key.encode(), check=True, capture_output=True)


def test_the_script_may_be_run() -> None:
    assert SCRIPT.stat().st_mode & 0o111
    assert SCRIPT.read_text().startswith("#!/bin/sh\n")
    assert SCRIPT.read_bytes().isascii(), "some shells can read nothing else in the locale C"
