"""Refuses to import the engine from workspace code, with a text that says what to do instead.

This is a signpost, not a wall: the engine's data and rights are in another process. Three layers, because
each covers routes that the others don't see:

- a finder in front of `sys.meta_path`, asked by statements, `importlib`, `find_spec`, `pkgutil` and `runpy`;
- an audit hook on `import` and `open`, which nobody can remove: it stays when `sys.meta_path` is emptied,
  and sees the file when a loader is aimed at it or its text is read for `exec`;
- the runtime's modules leave `sys.modules`, and the engine's directory `sys.path`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from .modules import ModuleRules

FORBIDDEN = ("engine", "shared", "weft_runtime")

_PREFIXES = tuple(name + "." for name in FORBIDDEN)


def is_forbidden(name: str) -> bool:
    """Whether an absolute module name belongs to the engine. `workflows.shared` doesn't."""
    return name.startswith(FORBIDDEN) and (name in FORBIDDEN or name.startswith(_PREFIXES))


def hint() -> str:
    """What to do instead of importing the engine."""
    return (
        "use what `from weft import …` offers (config, log, checkpoint through ctx), and put code that "
        "several workflows share into a module of the workspace, such as workflows/helpers.py"
    )


def refusal(name: str) -> str:
    """Why an import was refused, in one sentence."""
    return f"import of `{name}` refused: it is part of the engine; a workspace imports only `weft` of it"


class Guard:
    """The finder and the audit hook. Made and hidden in the zygote, installed in the worker."""

    def __init__(self, engine_dir: str) -> None:
        self._runtime = os.path.join(engine_dir, "weft_runtime")
        self._below = self._runtime + os.sep
        self._files = {_identity(self._runtime)}
        for folder, _, names in os.walk(self._runtime):
            self._files.update(_identity(os.path.join(folder, name)) for name in names)
        self._engine_dir = engine_dir
        self._hidden: dict[str, ModuleType] = {}
        self._hook = self._make_hook()

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Raises ImportError for the engine's names; never finds anything itself."""
        if name.startswith(FORBIDDEN) and is_forbidden(name):
            raise ImportError(f"{refusal(name)}; {hint()}", name=name)
        return None

    def invalidate_caches(self) -> None:
        """There are none."""

    def hide(self) -> None:
        """In the zygote: take the runtime out of sight. Done once there, because every page that a worker
        writes to is a page copied."""
        sys.path[:] = [entry for entry in sys.path if entry not in ("", self._engine_dir)]
        self._hidden = {name: module for name, module in sys.modules.items() if is_forbidden(name)}
        for name in self._hidden:
            del sys.modules[name]
        # It holds what the command line of the zygote imported.
        sys.modules["__main__"] = ModuleType("__main__")
        sys.path_importer_cache.pop(self._engine_dir, None)
        sys.path_importer_cache.pop(self._runtime, None)

    def import_hidden(self, name: str) -> ModuleType:
        """In a worker that isn't guarded yet: import another module of the runtime, and hide that too."""
        sys.modules.update(self._hidden)
        try:
            return import_module(name)
        finally:
            self.hide()

    def install(self, trusted: bool, network: bool, modules: dict[str, Any]) -> None:
        """In a worker: from here on the engine can't be imported in this process; there is no way back.

        `modules`: `allow`, the only modules that the bundle's own code may import, or null, and `deny`.
        Without `network`, connecting says what to do instead of the kernel's bare refusal."""
        sys.meta_path.insert(0, self)
        sys.addaudithook(self._hook)
        if not network:
            sys.addaudithook(_no_network_hook(trusted))
        rules = ModuleRules(modules.get("allow"), modules.get("deny") or ())
        if rules.matter:
            rules.install()

    def _make_hook(self) -> Callable[[str, tuple[object, ...]], None]:
        # All is bound here: globals and attributes could be replaced by reflection, and are slower.
        files = self._files
        below = self._below
        runtime = self._runtime
        forbidden = FORBIDDEN
        check = is_forbidden
        text = refusal
        more = hint()
        stat = os.stat
        fsdecode = os.fsdecode

        def hook(event: str, args: tuple[object, ...]) -> None:
            if event == "open":
                path = args[0]
                if isinstance(path, (str, bytes)):
                    try:
                        found = stat(path)
                    except (OSError, ValueError):
                        return
                    if (found.st_dev, found.st_ino) in files or fsdecode(path).startswith(below):
                        raise ImportError(f"{text(fsdecode(path))}; {more}")
            elif event == "import":
                name = args[0]
                if isinstance(name, str):
                    if name.startswith(forbidden) and check(name):
                        raise ImportError(f"{text(name)}; {more}", name=name)
                    file = args[1]
                    if isinstance(file, str) and file.startswith(runtime):
                        raise ImportError(f"{text(file)}; {more}", name=name)

        return hook


def _no_network_hook(trusted: bool) -> Callable[[str, tuple[object, ...]], None]:
    what = (
        'declare the hosts that it needs, as in @workflow(network=["{host}"])'
        if trusted
        else "restricted code never has one: let a trusted step fetch what it needs"
    )

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event == "socket.getaddrinfo":
            host = args[0]
        elif event == "socket.connect" and isinstance(args[1], tuple):
            host = args[1][0]
        else:
            return
        if isinstance(host, bytes):
            host = host.decode("utf-8", "replace")
        shown = host if isinstance(host, str) and host else "api.example.com"
        raise PermissionError(
            13, f"this step has no network, so `{shown}` can't be reached; {what.format(host=shown)}"
        )

    return hook


def _identity(path: str) -> tuple[int, int]:
    # Device and inode, so that links, /proc/self/root and relative paths are all the same file.
    found = os.stat(path)
    return found.st_dev, found.st_ino
