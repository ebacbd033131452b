"""An upstream with three releases, made once; each test gets copies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from repository import PATHS, ROOT, SIGNERS, Key, Repository, new_key

# One that Weft has not: the real list is tried by itself in test_ours.py.
FILES = {
    "README.md": "# Weft\n",
    "Cargo.toml": '[package]\nname = "weft"\n',
    "host.json": '{"version": "2.0"}\n',
    "api/function.json": "{}\n",
    "src/main.rs": "fn main() {}\n",
    "engine/README.md": "the engine\n",
    "engine/loader.py": "def load() -> None:\n    pass\n\n\ndef keep() -> None:\n    pass\n",
    "engine/runtime/zygote.py": "ZYGOTE = 1\n",
    "engine/old.py": "OLD = 1\n",
    "infra/main.bicep": "param name string\n",
    "workspace/hello.py": "def hello() -> str:\n    return 'hello'\n",
    ".github/upstream": "https://github.com/weft/weft\n",
}


@dataclass(frozen=True)
class Upstream:
    """The repository where the engine is made, at release 1.2.0, and the key of its releases."""

    repository: Repository
    key: Key


@pytest.fixture(scope="session")
def _upstream(tmp_path_factory: pytest.TempPathFactory) -> Upstream:
    folder = tmp_path_factory.mktemp("upstream")
    key = new_key(folder / "keys", "releases")
    one = Repository.new(folder / "upstream")
    for name, content in FILES.items():
        one.write(name, content)
    for name in (PATHS, ".github/workflows/protect-engine.yml", "scripts/protect-engine"):
        one.write(name, (ROOT / name).read_bytes())
    (one.path / "scripts/protect-engine").chmod(0o755)
    one.write(SIGNERS, key.line)
    one.commit("begin")
    one.release("1.0.0", key)
    one.write("engine/loader.py", FILES["engine/loader.py"].replace("load()", "load(name)"))
    one.write("engine/new.py", "NEW = 1\n")
    one.commit("load by name")
    one.release("1.1.0", key)
    (one.path / "engine/old.py").unlink()
    one.write("engine/runtime/zygote.py", "ZYGOTE = 2\n")
    one.write("src/main.rs", 'fn main() { println!("two"); }\n')
    one.commit("remove what is old")
    one.release("1.2.0", key)
    # Fewer files, for all the copies.
    one.git("gc", "-q")
    return Upstream(one, key)


@pytest.fixture
def upstream(_upstream: Upstream, tmp_path: Path) -> Upstream:
    return Upstream(_upstream.repository.copy(tmp_path / "upstream"), _upstream.key)


@pytest.fixture(scope="session")
def _forks(_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Repository]:
    folder = tmp_path_factory.mktemp("forks")
    forks = {}
    for tag in ("v1.0.0", "v1.1.0"):
        path = folder / tag
        _upstream.repository.git("clone", "-q", "--template=", _upstream.repository.path, path)
        forks[tag] = one = Repository(path)
        one.git("remote", "rename", "origin", "upstream")
        one.git("checkout", "-q", "-B", "main", tag)
        one.commit_with({"workspace/own.py": "OWN = 1\n"}, "our own workflow")
        one.git("gc", "-q")
    return forks


@pytest.fixture
def fork_at(_forks: dict[str, Repository], tmp_path: Path) -> Callable[[str], Repository]:
    """A fork of one release, with work of its own in the workspace."""
    return lambda tag: _forks[tag].copy(tmp_path / f"fork-{tag}")


@pytest.fixture
def fork(fork_at: Callable[[str], Repository]) -> Repository:
    """A fork of release 1.0.0."""
    return fork_at("v1.0.0")
