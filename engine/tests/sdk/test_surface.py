"""What a workspace may rely on: exactly these names, without side effects, cheaply."""

from __future__ import annotations

import subprocess
import sys

import weft
from handler import ENGINE_DIR

PUBLIC = [
    "Artifact",
    "Binary",
    "Cancelled",
    "Context",
    "DeclarationError",
    "Denied",
    "Email",
    "FatalError",
    "File",
    "Handle",
    "HttpError",
    "InvalidInput",
    "NotAvailable",
    "NotFound",
    "Options",
    "QuotaExceeded",
    "Response",
    "Retry",
    "RetryableError",
    "RunInfo",
    "Secret",
    "TooLarge",
    "Unavailable",
    "Url",
    "WeftError",
    "__version__",
    "data_provider",
    "node",
    "param",
    "workflow",
]


def test_the_surface_is_the_documented_list() -> None:
    assert weft.__all__ == PUBLIC
    assert sorted(weft.__all__) == weft.__all__
    assert all(hasattr(weft, name) for name in PUBLIC)


def test_the_readme_names_all_of_it() -> None:
    readme = (ENGINE_DIR / "README.md").read_text()
    assert [name for name in PUBLIC if f"`{name}`" not in readme] == []


def test_importing_it_loads_neither_the_runtime_nor_heavy_modules() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ENGINE_DIR)!r}); import weft; "
        "print(sorted(m for m in sys.modules if m.split('.')[0] in "
        "('weft_runtime', 'inspect', 'dataclasses', 'asyncio', 'threading', 'socket', 'ast', 'logging', 'datetime')))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_sdk_never_imports_the_runtime() -> None:
    for file in (ENGINE_DIR / "weft").glob("*.py"):
        assert "weft_runtime" not in file.read_text(), file
