"""Which modules the bundle's own code may import: lists of the administrators, told in words.

Like the guard a signpost, not a wall: a module that does harm would meet the walls of the process. Only what
the bundle's code itself asks for counts; what an allowed module imports in turn is its own affair.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from .loader import BundleLoader

_ALWAYS = ("weft", "__future__")


class ModuleRules:
    """`allow`: the only names, or None for all; `deny`: never these. A name covers everything below it."""

    def __init__(self, allow: Sequence[str] | None, deny: Sequence[str]) -> None:
        self._allow = None if allow is None else frozenset((*allow, *_ALWAYS))
        self._deny = frozenset(deny)

    @property
    def matter(self) -> bool:
        """Whether anything is refused."""
        return self._allow is not None or bool(self._deny)

    def refusal(self, name: str) -> str | None:
        """Why a module may not be imported, or None."""
        parts = name.split(".")
        above = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
        if any(one in self._deny for one in above):
            return f"import of `{name}` refused: an administrator excluded it here"
        if self._allow is None or any(one in self._allow for one in above):
            return None
        # `import os.path` where `os.path` alone is listed: its parent comes along unseen.
        if any(one.startswith(name + ".") for one in self._allow):
            return None
        return (
            f"import of `{name}` refused: code that is not trusted may import {len(self._allow)} listed "
            "modules, and this is none of them; an administrator can add it to the list, or trust the code"
        )

    def install(self) -> None:
        """Ask for every import statement of the bundle's code from here on."""
        original = builtins.__import__
        refusal = self.refusal

        def checked(
            name: str,
            globals: Mapping[str, Any] | None = None,
            locals: Mapping[str, Any] | None = None,
            fromlist: Sequence[str] | None = (),
            level: int = 0,
        ) -> ModuleType:
            # A statement says whose it is, a plain call of `__import__` doesn't.
            asking = sys._getframe(1).f_globals if globals is None else globals
            if level == 0 and isinstance(asking.get("__loader__"), BundleLoader):
                first = name.partition(".")[0]
                loaded = sys.modules.get(first)
                own = loaded is not None and isinstance(getattr(loaded, "__loader__", None), BundleLoader)
                if not own and not _is_of_bundle(first):
                    submodules = (f"{name}.{part}" for part in fromlist or ())
                    for one in (name, *(one for one in submodules if one in sys.modules)):
                        reason = refusal(one)
                        if reason is not None:
                            raise ImportError(reason, name=one)
            return original(name, globals, locals, fromlist or (), level)

        builtins.__import__ = checked


def _is_of_bundle(name: str) -> bool:
    for finder in sys.meta_path:
        find = getattr(finder, "find_in_bundle", None)
        if find is not None and find(name):
            return True
    return False
