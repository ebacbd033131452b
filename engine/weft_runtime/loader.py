"""Imports a bundle's modules: ahead of everything but the standard library and the SDK, without writing
.pyc files, and with paths in tracebacks that mean something to the author (`workspace/workflows/hello.py`).

`__file__` is the real path, so that a module can read files beside itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.readers import FileReader

DEFAULT_ROOT_NAME = "workspace"
RESERVED = sys.stdlib_module_names | {"weft"}
"""Top-level names that a bundle can't take."""


class BundleLoader:
    """Loads one module of the bundle. `path` is None for a folder without `__init__.py`."""

    def __init__(self, name: str, path: str | None, shown: str) -> None:
        self.name = name
        self.path = path
        self.shown = shown

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """The ordinary module object."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Compile and run the file in the module."""
        if self.path is not None:
            exec(self.get_code(self.name), module.__dict__)

    def get_code(self, name: str) -> CodeType:
        """Compiled under the display path; SyntaxError, OSError."""
        if self.path is None:
            return compile("", self.shown, "exec")
        with open(self.path, "rb") as file:
            source = file.read()
        return compile(source, self.shown, "exec", dont_inherit=True)

    def get_source(self, name: str) -> str:
        """The text, for linecache and so for tracebacks and `inspect`."""
        if self.path is None:
            return ""
        with open(self.path, "rb") as file:
            source = file.read()
        from importlib.util import decode_source

        try:
            return decode_source(source)
        except (SyntaxError, UnicodeDecodeError) as error:
            raise ImportError(f"{self.shown} can't be decoded: {error}", name=self.name) from None

    def get_filename(self, name: str) -> str:
        """The real path."""
        return self.path or ""

    def get_resource_reader(self, name: str) -> FileReader | None:
        """Files beside the module, for `importlib.resources`."""
        if self.path is None:
            return None
        from importlib.readers import FileReader

        return FileReader(self)  # type: ignore[arg-type]

    def is_package(self, name: str) -> bool:
        """Whether it is a folder."""
        return self.path is None or self.path.endswith(os.sep + "__init__.py")


class BundleFinder:
    """Finds modules below one directory, on `sys.meta_path` before the standard library's finders."""

    def __init__(self, directory: str, root_name: str) -> None:
        self.directory = os.path.abspath(directory)
        self.root_name = root_name
        self._below = self.directory + os.sep

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None for what isn't the bundle's; a top-level name of the standard library or `weft` never is."""
        if path is None:
            if name in RESERVED:
                return None
            return self._find_in(self.directory, name, name)
        leaf = name.rpartition(".")[2]
        for entry in path:
            if entry == self.directory or entry.startswith(self._below):
                found = self._find_in(entry, leaf, name)
                if found is not None:
                    return found
        return None

    def find_in_bundle(self, name: str) -> bool:
        """Whether a top-level name is the bundle's own."""
        return self.find_spec(name) is not None

    def _find_in(self, directory: str, leaf: str, name: str) -> ModuleSpec | None:
        base = os.path.join(directory, leaf)
        package = os.path.join(base, "__init__.py")
        if os.path.isfile(package):
            return self._spec(name, package, base)
        module = base + ".py"
        if os.path.isfile(module):
            return self._spec(name, module, None)
        if os.path.isdir(base):
            return self._spec(name, None, base)
        return None

    def _spec(self, name: str, path: str | None, package: str | None) -> ModuleSpec:
        loader = BundleLoader(name, path, self.shown(path or package or ""))
        # BundleLoader has what the import system calls, without the weight of importlib.abc.
        spec = ModuleSpec(name, loader, origin=path, is_package=package is not None)  # type: ignore[arg-type]
        if package is not None:
            spec.submodule_search_locations = [package]
        spec.has_location = path is not None
        return spec

    def shown(self, path: str) -> str:
        """A real path of the bundle as tracebacks show it."""
        return self.root_name + path[len(self.directory) :].replace(os.sep, "/")

    def invalidate_caches(self) -> None:
        """There are none."""


def install(directory: str, paths: Sequence[str] = (), root_name: str = DEFAULT_ROOT_NAME) -> BundleFinder:
    """Make the bundle importable in this process, and after it the packages in `paths`; returns its
    finder."""
    finder = BundleFinder(directory, root_name)
    sys.meta_path.insert(0, finder)
    # The bundle's folder for libraries that look for files on the path; imports of it never get this far.
    for path in (finder.directory, *paths):
        if path not in sys.path:
            sys.path.append(path)
    return finder


def load(module: str) -> ModuleType:
    """Import a module of the bundle by its dotted name. Raises whatever it raises."""
    return import_module(module)
