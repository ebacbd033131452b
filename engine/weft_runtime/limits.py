"""The `limits` of a fork message → rlimits of the worker, and the sizes that the worker itself keeps to."""

from __future__ import annotations

import resource
from typing import Any

ADDRESS_SPACE_RESERVE = 2 * 1024**3
"""RLIMIT_AS is a backstop only: interpreters and libraries reserve address space that they never touch."""

CPU_GRACE_SECONDS = 2
"""Between SIGXCPU, which tells the outcome, and the kernel's SIGKILL for who ignores it."""

DEFAULT_DISK_BYTES = 64 * 1024 * 1024
DEFAULT_DISK_FILES = 8192
DEFAULT_RESULT_BYTES = 1024 * 1024
DEFAULT_FRAME_BYTES = 1024 * 1024 + 64 * 1024


SHARED_TASKS = 4096
"""RLIMIT_NPROC where all workers are one user to the kernel, which then counts them together: a backstop. The
handler counts each worker's processes and threads."""


def apply(limits: dict[str, Any], *, counted_alone: bool) -> None:
    """Set the rlimits; a limit that is absent or null stays as it is. `counted_alone`: the kernel counts the
    worker's processes apart from those of others. Raises OSError or ValueError."""
    for kind in (resource.RLIMIT_CORE, resource.RLIMIT_MSGQUEUE, resource.RLIMIT_MEMLOCK):
        _set(kind, 0)
    memory = limits.get("memory_bytes")
    if memory is not None:
        _set(resource.RLIMIT_AS, memory + ADDRESS_SPACE_RESERVE)
    cpu = limits.get("cpu_seconds")
    if cpu is not None:
        _set(resource.RLIMIT_CPU, cpu, CPU_GRACE_SECONDS)
    _set(resource.RLIMIT_NOFILE, limits.get("open_files"))
    _set(resource.RLIMIT_FSIZE, limits.get("disk_bytes"))
    # Root is exempt.
    _set(resource.RLIMIT_NPROC, limits.get("threads") if counted_alone else SHARED_TASKS)


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
