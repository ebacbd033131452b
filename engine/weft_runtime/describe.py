"""What a bundle declares, and what is wrong with it: one `described` frame per file.

First every file is parsed, none imported: syntax errors, encodings, and imports of the engine that the text
shows. Then each clean file that has decorators is imported, here in this worker, and its declarations are
read. One file's trouble never hides another's: where a file takes the process down, the handler asks a fresh
worker to go on behind it.

Imported in the describing worker only: the zygote stays without `_ast` and without this.
"""

from __future__ import annotations

import ast
import os
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import weft
from weft._declaration import declaration_of
from weft._errors import DeclarationError

from . import guard
from .loader import RESERVED, BundleFinder, load
from .tracebacks import last_line_in, message_of, type_name

_SKIPPED = ("tests", "__pycache__")
_IMPORTING_CALLS = frozenset(("__import__", "import_module", "find_spec", "find_loader", "run_module"))
_CONFLICT = ("<<<<<<<", "=======", ">>>>>>>")
_SUSPECTS = tuple(name.encode() for name in guard.FORBIDDEN)
_LISTS = {"workflow": "workflows", "data_provider": "data_providers", "node": "nodes"}
_TITLES = {"workflow": "workflow", "data_provider": "data provider", "node": "node"}

Json = dict[str, Any]


class File:
    """One file of the bundle: where it is, and what is said of it."""

    __slots__ = ("declares", "findings", "found", "module", "real", "shown")

    def __init__(self, real: str, shown: str, module: str) -> None:
        self.real = real
        self.shown = shown
        self.module = module
        self.declares = False
        self.findings: list[Json] = []
        self.found: dict[str, list[Json]] = {name: [] for name in _LISTS.values()}

    def report(
        self, code: str, message: str, hint: str, line: int | None = None, column: int | None = None
    ) -> None:
        """Note a finding; line and column count from 1."""
        self.findings.append(
            {
                "severity": "error",
                "code": code,
                "message": message,
                "hint": hint,
                "path": self.shown,
                "line": line or 1,
                "column": column or 1,
            }
        )

    def to_json(self) -> Json:
        """The `described` frame."""
        return {
            "t": "described",
            "module": self.module,
            "path": self.shown,
            **self.found,
            "findings": self.findings,
        }


def run(finder: BundleFinder, send: Callable[[Json], None], order: Json) -> Json:
    """Describe the bundle of `finder`, handing each `described` frame to `send`; returns the last frame.

    Where `order` has `resume`, a worker before this one has described the first `described` files and was
    lost with the next: that one is reported and not imported. `taken` are the names that were declared.
    """
    started = time.perf_counter()
    files = list(find_files(finder))
    names: dict[tuple[str, str], str] = {}
    rest = files
    resume = order.get("resume")
    if resume is not None:
        described = int(resume["described"])
        names = {(str(kind), str(name)): str(place) for kind, name, place in resume["taken"]}
        rest = files[described + 1 :]
        for lost in files[described : described + 1]:
            lost.report(
                "import_failed",
                f"importing this file ended the process: {resume['reason']}",
                "a module must come to the end of its import: move work, and what may end the process, "
                "into functions",
            )
            send(lost.to_json())
    for file in rest:
        check_file(file)
    for file in rest:
        if file.declares and not file.findings:
            _import(file, names)
        send(file.to_json())
    return {"t": "described_all", "files": len(files), "ms": round((time.perf_counter() - started) * 1000, 3)}


def find_files(finder: BundleFinder) -> Iterator[File]:
    """Python files in the order of their paths; not in `tests`, `__pycache__` and hidden folders."""
    for real in sorted(_walk(finder.directory)):
        inside = real[len(finder.directory) + 1 :]
        parts = inside[: -len(".py")].split(os.sep)
        if parts[-1] == "__init__" and len(parts) > 1:
            parts.pop()
        yield File(real, finder.shown(real), ".".join(parts))


def _walk(directory: str) -> Iterator[str]:
    with os.scandir(directory) as entries:
        for entry in entries:
            name = entry.name
            if name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                if name not in _SKIPPED:
                    yield from _walk(entry.path)
            elif name.endswith(".py"):
                yield entry.path


def check_file(file: File) -> None:
    """The static pass over one file."""
    try:
        with open(file.real, "rb") as source_file:
            source = source_file.read()
    except OSError as error:
        file.report(
            "not_readable",
            f"the file can't be read: {error.strerror}",
            "check its permissions, or remove it if it is a broken link",
        )
        return
    try:
        tree = ast.parse(source, file.shown)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        _report_unparsable(file, source, error)
        return
    if any(suspect in source for suspect in _SUSPECTS):
        _report_imports(file, tree)
    # A file that never names the SDK declares nothing, and isn't imported.
    file.declares = b"weft" in source and _has_decorators(tree.body)


def _report_unparsable(file: File, source: bytes, error: Exception) -> None:
    if not isinstance(error, SyntaxError):
        message = str(error) or type(error).__name__
        file.report(
            "syntax_error", f"the file can't be parsed: {message}", "it may not be a Python file at all"
        )
        return
    undecodable = _undecodable_line(source)
    message = error.msg or "invalid syntax"
    if undecodable is not None or "encoding" in message or "codec can't decode" in message:
        file.report(
            "encoding_error",
            f"the file isn't valid text: {message}",
            "save it as UTF-8, or name its encoding in the first line: # -*- coding: latin-1 -*-",
            undecodable or error.lineno,
        )
        return
    file.report(
        "syntax_error", f"Python can't parse this: {message}", _place(error.text), error.lineno, error.offset
    )


def _place(text: str | None) -> str:
    if text is None:
        return "python -m py_compile shows the same place"
    if text.startswith(_CONFLICT):
        return (
            "a merge has left a conflict here: choose between its two sides, remove the lines that begin "
            "with <<<<<<<, ======= and >>>>>>>, and commit"
        )
    return f"look at: {text.strip()[:120]}"


def _undecodable_line(source: bytes) -> int | None:
    """The first line that isn't UTF-8, if the file doesn't name another encoding."""
    if b"coding" in b"\n".join(source.split(b"\n", 2)[:2]):
        return None
    try:
        source.decode()
    except UnicodeDecodeError as error:
        return source.count(b"\n", 0, error.start) + 1
    return None


def _has_decorators(body: list[ast.stmt]) -> bool:
    for statement in body:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if statement.decorator_list:
                return True
        elif isinstance(statement, (ast.If, ast.Try, ast.With)):
            inner = list(statement.body)
            inner += getattr(statement, "orelse", [])
            for handler in getattr(statement, "handlers", []):
                inner += handler.body
            if _has_decorators(inner):
                return True
    return False


def _report_imports(file: File, tree: ast.AST) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if guard.is_forbidden(alias.name):
                    _report_import(file, alias.name, alias)
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0:
                if guard.is_forbidden(node.module or ""):
                    _report_import(file, node.module or "", node)
            else:
                _report_relative(file, node)
        elif isinstance(node, ast.Call):
            name = _literal_target(node)
            if name is not None and guard.is_forbidden(name):
                _report_import(file, name, node)


def _report_relative(file: File, node: ast.ImportFrom) -> None:
    package = file.module.split(".")
    if not file.real.endswith(os.sep + "__init__.py"):
        package.pop()
    if node.level <= len(package):
        # It stays below the bundle, where a module may be called `shared`.
        return
    for name in [node.module] if node.module else [alias.name for alias in node.names]:
        if guard.is_forbidden(name):
            _report_import(file, name, node)


def _literal_target(call: ast.Call) -> str | None:
    function = call.func
    name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", None)
    if name not in _IMPORTING_CALLS or not call.args:
        return None
    first = call.args[0]
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None


def _report_import(file: File, name: str, node: ast.AST) -> None:
    line = getattr(node, "lineno", 1)
    column = getattr(node, "col_offset", 0) + 1
    file.report("import_forbidden", guard.refusal(name), guard.hint(), line, column)


def _import(file: File, names: dict[tuple[str, str], str]) -> None:
    top = file.module.partition(".")[0]
    if top in RESERVED:
        file.report(
            "import_failed",
            f"`{top}` is a module of Python's standard library, which a workspace can't replace",
            f"rename {file.shown}, or move it into a folder such as workflows/",
        )
        return
    try:
        module = load(file.module)
    except DeclarationError as error:
        line = last_line_in(error, file.shown)
        file.report("invalid_declaration", str(error), "the message says what to change", line)
        return
    except BaseException as error:
        # SystemExit and the like too: a module that leaves must not take the others along.
        line = last_line_in(error, file.shown)
        file.report("import_failed", f"{type_name(type(error))}: {message_of(error)}", _remedy(error), line)
        return
    for attribute, function in list(vars(module).items()):
        declaration = declaration_of(function)
        if declaration is None or declaration.function.__module__ != file.module:
            continue
        line = declaration.function.__code__.co_firstlineno
        try:
            described = declaration.describe(attribute)
        except DeclarationError as error:
            file.report("invalid_declaration", str(error), "the message says what to change", line)
            continue
        kind = str(declaration.kind)
        former = names.setdefault((kind, declaration.name), f"{file.shown}:{line}")
        if former != f"{file.shown}:{line}":
            file.report(
                "duplicate_name",
                f"the {_TITLES[kind]} name `{declaration.name}` is taken: it is declared in {former}",
                'give this one another name with name="…"',
                line,
            )
            continue
        file.found[_LISTS[kind]].append(described)


def _is_of_the_sdk(error: BaseException) -> bool:
    """Whether it says that the SDK has not what the workspace expects of it."""
    if isinstance(error, ImportError):
        return (error.name or "").partition(".")[0] == "weft"
    if isinstance(error, AttributeError):
        owner = error.obj
        return isinstance(owner, ModuleType) and owner.__name__.partition(".")[0] == "weft"
    if isinstance(error, TypeError):
        # `workflow() got an unexpected …`, or `Retry.__init__() got an unexpected …`.
        called = str(error).partition("(")[0].partition(".")[0]
        return "unexpected keyword argument" in str(error) and called in weft.__all__
    return False


def _remedy(error: BaseException) -> str:
    if _is_of_the_sdk(error):
        return (
            "this engine's `weft` is not the one that this was written for: engine/README.md says what it "
            "offers, engine/CHANGELOG.md what has changed; before the next sync, `weft upgrade-check` names "
            "all such places"
        )
    if isinstance(error, ModuleNotFoundError):
        return (
            "add the library to requirements.txt; modules of the workspace are imported from its top folder, "
            "as in `from workflows.helpers import …`"
        )
    if isinstance(error, ImportError):
        return "the traceback's last line names what is missing in which module"
    if isinstance(error, SystemExit):
        return "a module must not leave the process while it is imported"
    return "the module's top level must run without a context: move work into functions"
