"""The `limits` of a fork message → rlimits of the worker, and the sizes that the worker itself keeps to."""

from __future__ import annotations

import os
import resource
from typing import Any

ADDRESS_SPACE_RESERVE = 2 * 1024**3
"""RLIMIT_AS is a backstop only: interpreters and libraries reserve address space that they never touch."""

CPU_GRACE_SECONDS = 2
"""Between SIGXCPU, which tells the outcome, and the kernel's SIGKILL for who ignores it."""

DEFAULT_RESULT_BYTES = 1024 * 1024
DEFAULT_FRAME_BYTES = 1024 * 1024 + 64 * 1024


def apply(limits: dict[str, Any]) -> None:
    """Set the rlimits; a limit that is absent or null stays as it is. Raises OSError or ValueError."""
    _set(resource.RLIMIT_CORE, 0)
    memory = limits.get("memory_bytes")
    if memory is not None:
        _set(resource.RLIMIT_AS, memory + ADDRESS_SPACE_RESERVE)
    cpu = limits.get("cpu_seconds")
    if cpu is not None:
        _set(resource.RLIMIT_CPU, cpu, CPU_GRACE_SECONDS)
    _set(resource.RLIMIT_NOFILE, limits.get("open_files"))
    _set(resource.RLIMIT_FSIZE, limits.get("disk_bytes"))
    # The kernel exempts uid 0 and counts all processes of a uid together.
    if os.getuid() != 0:
        _set(resource.RLIMIT_NPROC, limits.get("threads"))


def highest_descriptor() -> int:
    """One above what any descriptor can be, unless the limit was lowered while some were open."""
    return max(resource.getrlimit(resource.RLIMIT_NOFILE))


def _set(kind: int, soft: int | None, grace: int = 0) -> None:
    """Both limits, never above what is allowed already."""
    if soft is None:
        return
    _, allowed = resource.getrlimit(kind)
    hard = soft + grace
    if allowed != resource.RLIM_INFINITY:
        hard = min(hard, allowed)
    resource.setrlimit(kind, (min(soft, hard), hard))
