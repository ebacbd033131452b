"""Every route by which workspace code may try to import the engine ends in a helpful ImportError; what is
legitimate isn't hindered."""

from __future__ import annotations

from typing import Any

import pytest

from handler import ENGINE_DIR, Handler

RUNTIME = ENGINE_DIR / "weft_runtime"
FILE = RUNTIME / "worker.py"
BUILTIN_FINDER = "import sys; from importlib.machinery import PathFinder\n"

ROUTES = {
    "statement": "import engine",
    "submodule": "import engine.shared.storage",
    "from": "from engine.shared.storage import Table",
    "shared": "import shared",
    "shared_below": "from shared.context import Context",
    "runtime": "import weft_runtime",
    "runtime_worker": "from weft_runtime import worker",
    "runtime_zygote": "import weft_runtime.zygote as zygote",
    "star": "from engine import *",
    "dunder": "__import__('engine')",
    "dunder_fromlist": "__import__('engine.shared', fromlist=['storage'])",
    "built_name": "__import__('eng' + 'ine')",
    "import_module": "import importlib; importlib.import_module('shared.x')",
    "import_module_relative": "import importlib; importlib.import_module('.storage', 'engine.shared')",
    "gcd_import": "import importlib; importlib._bootstrap._gcd_import('engine')",
    "find_spec": "import importlib.util; importlib.util.find_spec('weft_runtime')",
    "find_spec_below": "import importlib.util; importlib.util.find_spec('engine.shared')",
    "pkgutil_get_data": "import pkgutil; pkgutil.get_data('weft_runtime', 'worker.py')",
    "pkgutil_resolve": "import pkgutil; pkgutil.resolve_name('weft_runtime.worker:run')",
    "runpy_module": "import runpy; runpy.run_module('weft_runtime')",
    "runpy_path": f"import runpy; runpy.run_path({str(FILE)!r})",
    "spec_from_file": (
        f"import importlib.util as u; s = u.spec_from_file_location('mine', {str(FILE)!r}); "
        "m = u.module_from_spec(s); s.loader.exec_module(m)"
    ),
    "source_file_loader": f"from importlib.machinery import SourceFileLoader as L; L('m', {str(FILE)!r}).load_module()",
    "loader_get_data": f"from importlib.machinery import SourceFileLoader as L; L('m', '').get_data({str(FILE)!r})",
    "exec_open": f"exec(open({str(FILE)!r}).read())",
    "open_code": f"import io; io.open_code({str(FILE)!r})",
    "os_open": f"import os; os.open({str(FILE)!r}, os.O_RDONLY)",
    "open_bytes": f"open({str(FILE).encode()!r})",
    "pathlib": f"import pathlib; pathlib.Path({str(FILE)!r}).read_text()",
    "relative_path": f"import os; os.chdir({str(ENGINE_DIR)!r}); open('weft_runtime/../weft_runtime/worker.py')",
    "proc_root": f"open('/proc/self/root' + {str(FILE)!r})",
    "symlink": f"import os; os.symlink({str(FILE)!r}, 'mine.py'); open('mine.py')",
    "symlink_import": (
        f"import os, sys; os.symlink({str(FILE)!r}, 'mine.py'); sys.path.insert(0, os.getcwd()); import mine"
    ),
    "symlinked_folder": (
        f"import os, sys; os.symlink({str(RUNTIME)!r}, 'theirs'); sys.path.insert(0, os.getcwd()); import theirs.worker"
    ),
    "tokenize": f"import tokenize; tokenize.open({str(FILE)!r})",
    "engine_on_path": f"import sys; sys.path.insert(0, {str(ENGINE_DIR)!r}); import weft_runtime",
    "finders_emptied": f"{BUILTIN_FINDER}sys.path.insert(0, {str(ENGINE_DIR)!r})\nsys.meta_path[:] = [PathFinder]\nimport weft_runtime",
    "finders_emptied_import_module": (
        f"{BUILTIN_FINDER}import importlib\nsys.path.insert(0, {str(ENGINE_DIR)!r})\n"
        "sys.meta_path[:] = [PathFinder]\nimportlib.import_module('weft_runtime.worker')"
    ),
    "path_finder": (
        f"{BUILTIN_FINDER}s = PathFinder.find_spec('worker', [{str(RUNTIME)!r}])\n"
        "import importlib.util as u; s.loader.exec_module(u.module_from_spec(s))"
    ),
    "through_sdk_path": (
        "import os, sys, weft; sys.path.append(os.path.join(os.path.dirname(weft.__path__[0]), 'weft_runtime')); "
        "import tracebacks"
    ),
    "sdk_package_path": f"import weft; weft.__path__.append({str(RUNTIME)!r}); import weft.worker",
    "sys_modules": "import sys; sys.modules['weft_runtime']",
    "sys_modules_below": "import sys; [m for n, m in sys.modules.items() if 'weft_runtime' in n][0]",
    "main_module": "import __main__; __main__.main",
    "unloaded_guard": "import sys; sys.meta_path.pop(0); import weft_runtime",
    "relative_beyond": "from ..engine import x",
    "relative_runtime": "from ...weft_runtime import worker",
    "exec_import": "exec('import engine')",
    "compile_import": "exec(compile('from weft_runtime import worker', 'x', 'exec'))",
    "inside_a_function": "def f():\n    import engine\nf()",
    "multiprocessing": "import sys; sys.modules.pop('weft', None); sys.modules.pop('weft_runtime', None); import weft_runtime",
}
REFLECTION = {"sys_modules": "KeyError", "sys_modules_below": "IndexError", "main_module": "AttributeError"}


@pytest.mark.parametrize("route", ROUTES)
def test_a_route_to_the_engine(route: str, handler: Handler, bundle: Any) -> None:
    body = "".join(f"    {line}\n" for line in ROUTES[route].splitlines() if "import *" not in line)
    top = ROUTES[route] + "\n" if "import *" in ROUTES[route] else ""
    root = bundle(
        {
            "workflows/main.py": f"{top}from weft import workflow\n\n@workflow\ndef attack():\n{body}    return 'got through'\n"
        }
    )
    result = handler.attempt(root, "workflows.main", "attack")
    assert result.error["type"] == REFLECTION.get(route, "ImportError"), result.error
    if route not in REFLECTION and not route.startswith("relative"):
        assert "part of the engine" in result.error["message"]
        assert "from weft import" in result.error["message"]


def test_enough_routes_are_tried() -> None:
    assert len(ROUTES) >= 25


LEGITIMATE = {
    "workspace_shared": "from workflows import shared_helpers; assert shared_helpers.VALUE == 1",
    "workspace_shared_below": "import workflows.shared; assert workflows.shared.VALUE == 2",
    "relative_shared": "from . import shared; from .shared import VALUE; assert VALUE == 2",
    "named_engine_below": "from .engine import VALUE; assert VALUE == 3",
    "longer_name": "import engine_tools; assert engine_tools.VALUE == 4",
    "import_module": "import importlib; assert importlib.import_module('workflows.shared').VALUE == 2",
    "import_module_relative": "import importlib; assert importlib.import_module('.shared', 'workflows').VALUE == 2",
    "sdk": "import weft.testing; from weft import Context, workflow",
    "stdlib": "import sqlite3, decimal, email.message, concurrent.futures, xml.dom.minidom, http.client",
    "stdlib_engine": "import xml.etree.ElementTree",
    "find_spec": "import importlib.util as u; assert u.find_spec('workflows.shared') and u.find_spec('json')",
    "nothing": "import importlib.util as u; assert u.find_spec('nothing_of_that_name') is None",
    "open_write": "open('x.txt', 'w').close(); open('x.txt').close()",
    "open_new": "import os; os.close(os.open('worker.py', os.O_CREAT | os.O_WRONLY))",
    "open_descriptor": "import os; open(os.open(os.devnull, os.O_RDONLY)).close()",
    "subprocess": "import subprocess; assert subprocess.run(['/bin/echo', 'x'], capture_output=True).stdout == b'x\\n'",
    "pickle": "import pickle; from . import shared; assert pickle.loads(pickle.dumps(shared.f)) is shared.f",
}


@pytest.mark.parametrize("case", LEGITIMATE)
def test_what_is_legitimate(case: str, handler: Handler, bundle: Any) -> None:
    root = bundle(
        {
            "workflows/__init__.py": "",
            "workflows/main.py": (
                f"from weft import workflow\n\n@workflow\ndef fine():\n    {LEGITIMATE[case]}\n    return 'fine'\n"
            ),
            "workflows/shared_helpers.py": "VALUE = 1\n",
            "workflows/shared.py": "VALUE = 2\ndef f(): pass\n",
            "workflows/engine/__init__.py": "VALUE = 3\n",
            "engine_tools.py": "VALUE = 4\n",
        }
    )
    assert handler.attempt(root, "workflows.main", "fine").value == "fine"


@pytest.mark.parametrize("name", ["engine", "shared", "weft_runtime"])
def test_a_bundle_cannot_bring_modules_of_these_names(name: str, handler: Handler, bundle: Any) -> None:
    text = f"from weft import workflow\n\n@workflow\ndef f():\n    import {name}\n"
    root = bundle({"workflows/main.py": text, f"{name}/__init__.py": "", f"{name}.py": ""})
    assert "part of the engine" in handler.attempt(root, "workflows.main", "f").error["message"]
