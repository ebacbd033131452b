"""What the zygote imports ahead, and what it leaves to the workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from handler import Handler, Result

MODULES = {
    "plain_package": "import os\nBLAS = os.environ.get('OPENBLAS_NUM_THREADS')\nPID = os.getpid()\n",
    "starts_threads": "import threading, time\nthreading.Thread(target=time.sleep, args=(99,), daemon=True).start()\n"
    "import os\nPID = os.getpid()\n",
    "ends_process": "import os\nos._exit(7)\n",
    "fails": "1 / 0\n",
}
WORKFLOW = """
from weft import workflow

@workflow
def look(name: str) -> dict[str, object]:
    import os, sys
    module = __import__(name)
    return {
        "pid": module.PID, "own": os.getpid(), "blas": getattr(module, "BLAS", None),
        "environment": sorted(os.environ), "last": sys.path[-1],
    }
"""


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    bundle, packages = tmp_path / "bundle", tmp_path / "packages"
    (bundle / "workflows").mkdir(parents=True)
    (bundle / "workflows" / "look.py").write_text(WORKFLOW)
    packages.mkdir()
    for name, text in MODULES.items():
        (packages / f"{name}.py").write_text(text)
    (packages / "evil.pth").write_text("import os; os._exit(9)\n")
    return bundle, packages


def look(handler: Handler, bundle: Path, packages: Path, name: str) -> Result:
    return handler.attempt(bundle, "workflows.look", "look", {"name": name}, paths=[str(packages)])


def test_packages_are_imported_once_and_those_that_do_harm_are_not(places: tuple[Path, Path]) -> None:
    bundle, packages = places
    with Handler(hello=False) as handler:
        handler.say(
            {
                "op": "hello",
                "version": 1,
                "preload": ["json", "starts_threads", "plain_package", "ends_process", "fails"],
                "preload_paths": [str(packages)],
            }
        )
        zygote = handler.hear("ready")["pid"]
        found = look(handler, bundle, packages, "plain_package").value
        assert found["pid"] == zygote
        assert found["blas"] == "1"
        assert found["last"] == str(packages)
        assert found["environment"] == ["HOME", "LANG", "PATH", "TMPDIR"]
        # Left to the worker, which may have threads.
        found = look(handler, bundle, packages, "starts_threads").value
        assert found["pid"] == found["own"] != zygote
        assert len(list(Path(f"/proc/{zygote}/task").iterdir())) == 1
        said = handler.complaints()
    assert "`starts_threads` failed, workers will import it themselves: it leaves threads running" in said
    assert "`ends_process` failed, workers will import it themselves: importing it ended" in said
    assert "exit code 7" in said
    assert "`fails` failed, workers will import it themselves: ZeroDivisionError" in said
    assert "plain_package" not in said


def test_a_package_is_behind_the_bundle_and_the_standard_library(places: tuple[Path, Path]) -> None:
    bundle, packages = places
    (bundle / "plain_package.py").write_text("PID = 'of the bundle'\n")
    (packages / "string.py").write_text("PID = 'of the package'\n")
    with Handler() as handler:
        assert look(handler, bundle, packages, "plain_package").value["pid"] == "of the bundle"
        assert "has no attribute 'PID'" in look(handler, bundle, packages, "string").error["message"]
