"""What the zygote imports ahead, and what it leaves to the workers."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest

from handler import Handler, Result

MODULES = {
    "plain_package": "import os\nBLAS = os.environ.get('OPENBLAS_NUM_THREADS')\nMARK = os.urandom(8).hex()\n",
    "starts_threads": "import threading, time\nthreading.Thread(target=time.sleep, args=(99,), daemon=True).start()\n"
    "import os\nMARK = os.urandom(8).hex()\n",
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
        "mark": module.MARK, "blas": getattr(module, "BLAS", None),
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
    wanted = ("json", "starts_threads", "plain_package", "ends_process", "fails")
    with Handler(preload=wanted, preload_paths=(str(packages),)) as handler:
        found, again = (look(handler, bundle, packages, "plain_package").value for _ in range(2))
        assert found["mark"] == again["mark"]
        assert found["blas"] == "1"
        assert found["last"].endswith(str(packages))
        assert found["environment"] == ["HOME", "LANG", "PATH", "TMPDIR"]
        # Left to the workers, which may have threads.
        found, again = (look(handler, bundle, packages, "starts_threads").value for _ in range(2))
        assert found["mark"] != again["mark"]
        assert all(len(list(Path(f"/proc/{pid}/task").iterdir())) == 1 for pid in zygotes(handler))
        said = handler.complaints()
    assert "`starts_threads` failed, workers will import it themselves: it leaves threads running" in said
    assert "`ends_process` failed, workers will import it themselves: importing it ended" in said
    assert "exit code 7" in said
    assert "`fails` failed, workers will import it themselves: ZeroDivisionError" in said
    assert "plain_package" not in said


def zygotes(handler: Handler) -> list[int]:
    """The process that was started, and its child when that is the one that forks."""
    pid = handler.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def test_a_preloaded_package_finds_what_is_its_own(places: tuple[Path, Path]) -> None:
    bundle, packages = places
    package = packages / "tables"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "later.py").write_text("NAME = __name__\n")
    (package / "data.txt").write_text("data")
    (bundle / "workflows" / "look.py").write_text(
        "from weft import workflow\n@workflow\ndef look() -> list:\n    import os, tables\n"
        "    from tables.later import NAME\n"
        "    beside = os.path.join(os.path.dirname(tables.__file__), 'data.txt')\n"
        "    with open(beside) as file:\n        return [NAME, file.read()]\n"
    )
    with Handler(preload=("tables",), preload_paths=(str(packages),)) as handler:
        for jail in ({"trust": "trusted"}, {"trust": "restricted"}):
            result = handler.attempt(bundle, "workflows.look", "look", paths=[str(packages)], jail=jail)
            assert result.value == ["tables.later", "data"]


def test_folders_that_are_not_there_or_visible_anyway_are_no_obstacle(places: tuple[Path, Path]) -> None:
    bundle, packages = places
    paths = [str(packages), str(packages / "missing"), sysconfig.get_path("purelib"), "/usr/lib"]
    with Handler() as handler:
        result = handler.attempt(
            bundle, "workflows.look", "look", {"name": "plain_package"}, paths=[*paths, *paths]
        )
        assert result.value["last"] == "/usr/lib"


def test_a_list_of_modules_holds_for_preloaded_ones(places: tuple[Path, Path]) -> None:
    bundle, packages = places
    text = "from weft import workflow\n@workflow\ndef look() -> str:\n    import plain_package\n    return 'done'\n"
    (bundle / "workflows" / "look.py").write_text(text)
    with Handler(preload=("plain_package",), preload_paths=(str(packages),)) as handler:
        for modules, refused in [
            ({"allow": None, "deny": []}, False),
            ({"allow": None, "deny": ["plain_package"]}, True),
            ({"allow": ["json"], "deny": []}, True),
        ]:
            jail = {"trust": "trusted", "network": False, "modules": modules}
            result = handler.attempt(bundle, "workflows.look", "look", paths=[str(packages)], jail=jail)
            if refused:
                assert "import of `plain_package` refused" in result.error["message"]
            else:
                assert result.value == "done"


def test_a_package_is_behind_the_bundle_and_the_standard_library(places: tuple[Path, Path]) -> None:
    bundle, packages = places
    (bundle / "plain_package.py").write_text("MARK = 'of the bundle'\n")
    (packages / "string.py").write_text("MARK = 'of the package'\n")
    with Handler() as handler:
        assert look(handler, bundle, packages, "plain_package").value["mark"] == "of the bundle"
        assert "has no attribute 'MARK'" in look(handler, bundle, packages, "string").error["message"]
