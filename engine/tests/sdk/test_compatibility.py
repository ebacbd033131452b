"""The SDK's surface is versioned: nothing of it goes or changes without another version.

`surface.json` beside this file is the surface of a version. After additions, or with a new version:
`python engine/tests/sdk/test_compatibility.py bless`.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

import weft
import weft.testing

GOLDEN = Path(__file__).parent / "surface.json"

Surface = dict[str, Any]


def _called(value: Any) -> list[str] | None:
    """The parameters, as a caller writes them; None for what is not called."""
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return None
    shown = []
    for one in parameters:
        star = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
        only = {one.KEYWORD_ONLY: "=", one.POSITIONAL_ONLY: "/"}.get(one.kind, "")
        optional = "?" if one.default is not one.empty else ""
        shown.append(f"{star}{one.name}{only}{optional}")
    return shown


def surface() -> Surface:
    """Every public name with its parameters, and of classes those of their public methods."""
    found: Surface = {}
    context = type(weft.testing.fake_context())
    parts = {
        name: type(getattr(weft.testing.fake_context(), name))
        for name in (*context.__slots__, "kv", "artifacts", "runs", "data")
        if not name.startswith("_")
    }
    modules = [
        ("weft", {name: getattr(weft, name) for name in weft.__all__ if name != "__version__"}),
        ("weft.testing", {name: getattr(weft.testing, name) for name in weft.testing.__all__}),
        ("ctx", parts),
    ]
    for module, names in modules:
        for name, value in names.items():
            place = f"{module}.{name}"
            found[place] = _called(value) if module != "ctx" else []
            if inspect.isclass(value):
                for member, method in inspect.getmembers(value):
                    if not member.startswith("_") or member == "__call__":
                        if member == "__call__" and "__call__" not in vars(value):
                            continue
                        found[f"{place}.{member}"] = _called(method) if callable(method) else []
    return found


def fits(before: Any, now: Any) -> bool:
    """Whether every call that was right still is: what is new is optional and given by name."""
    if not isinstance(before, list) or not isinstance(now, list):
        return bool(before == now)
    return [one for one in now if one in before] == before and all(
        one.endswith("=?") for one in now if one not in before
    )


def test_nothing_goes_or_changes_within_a_version() -> None:
    golden = json.loads(GOLDEN.read_text())
    now = surface()
    if golden["version"] != weft.__version__:
        raise AssertionError(f"version {weft.__version__} has no surface on record yet; bless it: {__doc__}")
    gone = sorted(set(golden["names"]) - set(now))
    known = golden["names"]
    changed = sorted(name for name in set(known) & set(now) if not fits(known[name], now[name]))
    new = sorted(name for name in now if name not in known or known[name] != now[name])
    assert not gone, f"gone without another version: {gone}"
    assert not changed, f"changed without another version: {changed}"
    assert not new, f"new; bless them: {new}"


def test_what_would_break_a_call_does_not_fit() -> None:
    before = ["function/?", "name=?", "url"]
    assert fits(before, [*before, "more=?"]) and fits(None, None)
    for now in (
        None,
        before[:2],
        [*before, "more"],
        [*before, "more="],
        ["url", *before[:2]],
        ["x?", *before],
    ):
        assert not fits(before, now), now


def test_what_is_gone_would_be_seen() -> None:
    now = surface()
    assert len(now) > 100
    assert now["ctx.kv.set"] == ["self", "key", "value", "ttl_seconds?"]
    assert now["weft.Retry"][0] == "attempts?"
    assert now["weft.testing.run"][0] == "function/"
    assert "ctx.log.__call__" in now


def bless() -> None:
    """Write the surface of this version; refuses to take something out of a version that is on record."""
    if GOLDEN.exists():
        before = json.loads(GOLDEN.read_text())
        now = surface()
        lost = [name for name, known in before["names"].items() if not fits(known, now.get(name, "gone"))]
        if lost and before["version"] == weft.__version__:
            sys.exit(f"raise weft.__version__ first; gone or changed: {lost}")
    GOLDEN.write_text(json.dumps({"version": weft.__version__, "names": surface()}, indent=1) + "\n")


if __name__ == "__main__" and sys.argv[1:] == ["bless"]:
    bless()
