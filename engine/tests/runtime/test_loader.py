"""How a bundle's modules are imported: names, packages, paths, precedence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from handler import Handler

HEAD = "from weft import workflow\n\n@workflow\n"


def value_of(handler: Handler, root: Path, module: str = "workflows.main") -> Any:
    return handler.attempt(root, module, "f").value


def test_packages_with_and_without_init(handler: Handler, bundle: Any) -> None:
    root = bundle(
        {
            "workflows/main.py": (
                "from helpers.text import shout\nfrom tools import VERSION\nimport tools.deep.leaf as leaf\n"
                f"from . import sibling\nfrom .sibling import x\n{HEAD}"
                "def f(): return [shout('a'), VERSION, leaf.NAME, sibling.x, x, __name__, __package__]\n"
            ),
            "workflows/sibling.py": "x = 1\n",
            "helpers/text.py": "def shout(t): return t.upper()\n",
            "tools/__init__.py": "from .version import VERSION\n",
            "tools/version.py": "VERSION = '2'\n",
            "tools/deep/leaf.py": "NAME = __name__\n",
        }
    )
    assert value_of(handler, root) == ["A", "2", "tools.deep.leaf", 1, 1, "workflows.main", "workflows"]


def test_a_module_at_the_top(handler: Handler, bundle: Any) -> None:
    root = bundle({"main.py": f"import other\n{HEAD}def f(): return other.x\n", "other.py": "x = 3\n"})
    assert value_of(handler, root, "main") == 3


def test_a_package_as_the_module(handler: Handler, bundle: Any) -> None:
    root = bundle({"flows/__init__.py": f"{HEAD}def f(): return __name__\n"})
    assert value_of(handler, root, "flows") == "flows"


def test_the_standard_library_and_the_sdk_cannot_be_shadowed(handler: Handler, bundle: Any) -> None:
    root = bundle(
        {
            "main.py": f"import json, decimal, weft, csv\n{HEAD}def f(): return [hasattr(m, 'MINE') for m in (json, decimal, weft, csv)]\n",
            "json.py": "MINE = 1\n",
            "decimal.py": "MINE = 1\n",
            "csv/__init__.py": "MINE = 1\n",
            "weft.py": "MINE = 1\n",
        }
    )
    assert value_of(handler, root, "main") == [False] * 4


def test_paths_are_the_authors_and_files_can_be_read(handler: Handler, bundle: Any) -> None:
    root = bundle(
        {
            "workflows/main.py": (
                f"import inspect, os\n{HEAD}def f():\n"
                "    text = open(os.path.join(os.path.dirname(__file__), 'data.txt')).read()\n"
                "    return [f.__code__.co_filename, text, 'def f' in inspect.getsource(f), __file__]\n"
            ),
            "workflows/data.txt": "data",
        }
    )
    found = value_of(handler, root)
    assert found == ["workspace/workflows/main.py", "data", True, str(root / "workflows/main.py")]


def test_nothing_is_written_into_the_bundle(handler: Handler, bundle: Any) -> None:
    root = bundle(f"{HEAD}def f(): return 1\n")
    value_of(handler, root)
    assert sorted(path.name for path in root.rglob("*")) == ["main.py", "workflows"]


def test_the_path_holds_the_standard_library_and_the_bundle(handler: Handler, bundle: Any) -> None:
    root = bundle(f"import sys\n{HEAD}def f(): return sys.path\n")
    path = value_of(handler, root)
    assert path[-1] == str(root)
    assert not any(str(entry).endswith("engine") or entry == "" for entry in path)


def test_encodings_are_honoured(handler: Handler, bundle: Any) -> None:
    text = f"# -*- coding: latin-1 -*-\n{HEAD}def f(): return 'ä'\n".encode("latin-1")
    assert value_of(handler, bundle({"workflows/main.py": text})) == "ä"


def test_future_annotations(handler: Handler, bundle: Any) -> None:
    root = bundle(
        "from __future__ import annotations\nfrom weft import Context, workflow\n\n@workflow\n"
        "def f(c: Context, n: int | None = None) -> int: return n or 5\n"
    )
    assert value_of(handler, root) == 5
