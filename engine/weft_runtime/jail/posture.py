"""What is in force, in the words of the handler's reports."""

from __future__ import annotations

from typing import Any

ALWAYS = ("own_process", "empty_environment", "closed_descriptors", "rlimits", "process_group")
"""What every worker has on every system."""

_ON_LINUX = ("subreaper",)


def report(held: list[str], missing: dict[str, str], *, is_linux: bool, landlock_abi: int) -> dict[str, Any]:
    """The `posture` of `ready`. `held`: layers that were shown to have an effect."""
    layers = [*ALWAYS, *(_ON_LINUX if is_linux else ()), *held]
    there = set(layers)
    if {"pid_namespace", "mount_namespace", "network_namespace", "seccomp"} <= there:
        tier = "namespaces"
    elif {"landlock", "seccomp"} <= there:
        tier = "confined"
    else:
        tier = "process"
    return {
        "tier": tier,
        "layers": layers,
        "missing": {layer: reason for layer, reason in sorted(missing.items()) if layer not in there},
        "landlock_abi": landlock_abi if "landlock" in there else 0,
        "tree_kill": "pid_namespace"
        if "pid_namespace" in there
        else "subreaper"
        if is_linux
        else "process_group",
        "disk_quota": "tmpfs" if "tmpfs_quota" in there else "none",
    }
