"""Code that somebody wrote through the API: a text that came over the attempt's socket, no file of a bundle.

It is compiled under a display path (`library/shout@1.2.0.py`), so that tracebacks have its lines, in a module
whose name no import statement can spell. Its imports are held to the same rules as those of a bundle.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from weft._errors import FatalError

from .loader import BundleLoader
from .tracebacks import last_line_in, message_of, type_name

if TYPE_CHECKING:
    import ast
    from collections.abc import Iterator
    from importlib.readers import FileReader

MODULE = "weft._library"
"""The module of workers that are given a source."""
FUNCTION = "run"
PARAMETERS = ("ctx", "inputs", "settings")

_GENERATOR = 0x20
_COROUTINE = 0x80
_ASYNC_GENERATOR = 0x200

Json = dict[str, Any]


class Source:
    """A `source` frame."""

    __slots__ = ("code", "name", "shown")

    def __init__(self, frame: Json) -> None:
        self.name = str(frame.get("name"))
        self.code = str(frame.get("code"))
        self.shown = f"library/{self.name}@{frame.get('version')}.py"


class SourceLoader(BundleLoader):
    """Loads one source. A `BundleLoader`, because that is whose imports the rules are for."""

    def __init__(self, name: str, source: Source) -> None:
        super().__init__(name, None, source.shown)
        self._source = source

    def exec_module(self, module: ModuleType) -> None:
        """Compile and run it in the module."""
        exec(self.get_code(self.name), module.__dict__)

    def get_code(self, name: str) -> CodeType:
        """Compiled under the display path; SyntaxError, ValueError."""
        return compile(self._source.code, self.shown, "exec", dont_inherit=True)

    def get_source(self, name: str) -> str:
        """The text, for tracebacks."""
        return self._source.code

    def get_filename(self, name: str) -> str:
        """The display path: there is no other."""
        return self.shown

    def get_resource_reader(self, name: str) -> FileReader | None:
        """Nothing is beside it."""
        return None

    def is_package(self, name: str) -> bool:
        """It is none."""
        return False


def load(source: Source) -> ModuleType:
    """The source as a module. Raises whatever it raises."""
    name = f"library:{source.name}"
    loader = SourceLoader(name, source)
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, loader, origin=source.shown)  # type: ignore[arg-type]
    module.__loader__ = loader  # type: ignore[assignment]
    module.__file__ = source.shown
    module.__package__ = ""
    # Classes look for their module there.
    sys.modules[name] = module
    loader.exec_module(module)
    return module


def function_of(module: ModuleType) -> Any:
    """`run`, as it must be. Raises FatalError that says what it must be."""
    function = vars(module).get(FUNCTION)
    wrong = _mistake(function)
    if wrong is not None:
        raise FatalError(f"{wrong[1]}; {wrong[2]}")
    return function


def _mistake(function: Any) -> tuple[str, str, str] | None:
    """What is wrong with `run`: code, message, hint."""
    hint = f"write `def {FUNCTION}({', '.join(PARAMETERS)}):`, or the same with `async def`"
    if function is None:
        return "run_missing", f"the code has no function `{FUNCTION}`", hint
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType):
        return "run_missing", f"`{FUNCTION}` is a {type(function).__name__}, and no function", hint
    if code.co_flags & (_GENERATOR | _ASYNC_GENERATOR):
        return "run_signature", f"`{FUNCTION}` is a generator", "return a value instead of yielding some"
    count = code.co_argcount + code.co_kwonlyargcount
    names = code.co_varnames[:count]
    if names != PARAMETERS or code.co_kwonlyargcount or code.co_flags & 0x0C:
        return (
            "run_signature",
            f"`{FUNCTION}` takes {_listed(names)}, and must take {_listed(PARAMETERS)}",
            hint,
        )
    return None


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "nothing"


def check(source: Source, shape: Json) -> Json:
    """What is wrong with a source: syntax, imports, `run`, and the names that it uses of its shape.

    `shape`: `inputs`, `outputs` and `settings` are lists of names, `is_async` true, false or null.
    """
    findings: list[Json] = []

    def report(
        severity: str, code: str, message: str, hint: str, line: int | None, column: int | None
    ) -> None:
        place = {"path": source.shown, "line": line or 1, "column": column or 1}
        findings.append({"severity": severity, "code": code, "message": message, "hint": hint, **place})

    try:
        import ast

        tree = ast.parse(source.code, source.shown)
    except SyntaxError as error:
        report(
            "error",
            "syntax_error",
            f"the code is no Python: {error.msg}",
            "mend the line",
            error.lineno,
            error.offset,
        )
        return {"findings": findings}
    except (ValueError, RecursionError, MemoryError) as error:
        message = f"the code can't be read: {type(error).__name__}: {error}"
        report(
            "error", "syntax_error", message, "take what is no text out of it, and nest it less", None, None
        )
        return {"findings": findings}
    try:
        module = load(source)
    except BaseException as error:
        # Its own end too: a module that leaves the process is as wrong as one that raises.
        refused = isinstance(error, ImportError) and "refused" in str(error)
        code = "import_forbidden" if refused else "import_failed"
        message = f"{type_name(type(error))}: {message_of(error)}"
        hint = (
            "docs/modules.md lists what restricted code may import"
            if refused
            else "keep work out of the top level of the code: it runs whenever the code is loaded"
        )
        report("error", code, message, hint, last_line_in(error, source.shown), None)
        return {"findings": findings}
    function = vars(module).get(FUNCTION)
    wrong = _mistake(function)
    definition = _definition(tree)
    at = (definition.lineno, definition.col_offset + 1) if definition is not None else (None, None)
    if wrong is not None:
        report("error", *wrong, *at)
        return {"findings": findings}
    is_async = bool(function.__code__.co_flags & _COROUTINE) if function is not None else False
    wanted = shape.get("is_async")
    if wanted is not None and bool(wanted) != is_async:
        said, is_it = ("async", "plain") if wanted else ("sync", "async")
        article = "an" if is_async else "a"
        message = f"the node type is declared {said}, and `{FUNCTION}` is {article} {is_it} function"
        hint = f"write `{'async def' if wanted else 'def'} {FUNCTION}`, or change `async` of the node type"
        report("error", "run_not_async" if wanted else "run_is_async", message, hint, *at)
    if definition is not None:
        for what, name, line, column in sorted(_used(definition), key=lambda used: used[2:]):
            known = [str(one) for one in shape.get(what) or ()]
            if name not in known:
                shown = _listed(tuple(known))
                message = f"the code uses `{name}` of its {what}, and the node type declares {shown}"
                hint = f"declare it in `{what}`, or mend the name"
                report("warning", f"unknown_{what}", message, hint, line, column)
    return {"findings": findings, "is_async": is_async}


def _definition(tree: ast.Module) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
    import ast

    found = None
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == FUNCTION:
            found = node
    return found


def _used(definition: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[tuple[str, str, int, int]]:
    """Names that the text of `run` takes of its inputs and settings, and those that it returns."""
    import ast

    for node in ast.walk(definition):
        key: ast.expr | None = None
        owner: ast.expr | None = None
        if isinstance(node, ast.Subscript):
            owner, key = node.value, node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
            owner, key = node.func.value, node.args[0] if node.args else None
        if (
            isinstance(owner, ast.Name)
            and owner.id in PARAMETERS[1:]
            and isinstance(key, ast.Constant)
            and isinstance(key.value, str)
        ):
            yield owner.id, key.value, owner.lineno, owner.col_offset + 1
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Dict):
            for name in node.value.keys:
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    yield "outputs", name.value, name.lineno, name.col_offset + 1
