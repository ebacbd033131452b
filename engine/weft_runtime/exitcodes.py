"""Exit codes of zygote and workers; the handler turns them into outcomes."""

from __future__ import annotations

OK = 0
"""A last frame was sent (worker); the control socket ended (zygote)."""

REFUSED = 3
"""Zygote: the handler speaks a version of the protocol that this engine doesn't."""

SETUP_FAILED = 70
"""Worker: the set-up failed before any user code; the reason is on stderr."""

HANDLER_GONE = 71
"""Worker: the handler closed the socket."""

OUT_OF_ORDER = 72
"""Worker: the handler sent what the protocol doesn't allow at that point."""
