"""What attackers may get, by posture: nothing, but for what is listed here with its reason.

Only postures below `confined`, the default minimum of an installation, may have entries: there the engine refuses to run
steps unless the operator has lowered the minimum, and the suite shows both.
"""

from __future__ import annotations

from fnmatch import fnmatch

ALLOWED: dict[str, dict[str, str]] = {
    # Keys are patterns of `attack: what it got`.
    "no_landlock": {},
    "plain": {},
}


def allowed(posture: str, attack: str, item: str) -> str | None:
    """Why an attacker may get this here; None where it may not."""
    for pattern, reason in ALLOWED.get(posture, {}).items():
        if fnmatch(f"{attack}: {item}", pattern):
            return reason
    return None
