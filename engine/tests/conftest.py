"""A zygote for each test module, and a way to write bundles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from handler import KERNEL_LAYERS, Handler

Writer = Callable[..., Path]


@pytest.fixture(scope="module")
def handler() -> Iterator[Handler]:
    """Without the kernel's layers: what the runtime does by itself, on every platform."""
    with Handler(jail={"off": KERNEL_LAYERS}) as started:
        yield started


@pytest.fixture(scope="module")
def jailed() -> Iterator[Handler]:
    """With every layer that this platform gives."""
    with Handler() as started:
        yield started


@pytest.fixture
def bundle(tmp_path: Path) -> Writer:
    """`bundle({"workflows/a.py": "…"})` or `bundle("the text of workflows/main.py")`: its directory."""

    def write(files: dict[str, str | bytes] | str) -> Path:
        root = tmp_path / "bundle"
        for name, text in ({"workflows/main.py": files} if isinstance(files, str) else files).items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return root

    return write
