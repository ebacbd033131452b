"""What attackers may get, by posture: nothing, but for what is listed here with its reason.

Postures below `confined`, the default minimum of an installation: there the engine refuses to run steps unless the operator
has lowered the minimum, and the suite shows both. Above it, only what docs/operations.md names as a limit has an entry.
"""

from __future__ import annotations

from fnmatch import fnmatch

from postures import Posture

# What nothing but Landlock or namespaces keeps from whoever is the handler's own user: keys are patterns of
# `attack: what it got`, `group: …` being what was seen afterwards.
_SAME_USER = {
    "surroundings-*": "/proc shows all processes; those of the same user whole",
    "descriptors-peer-by-descriptor: *": "processes of the same user may be looked at and signalled",
    "files-*": "files are open to their user, and world-readable ones to everybody",
    "files: *": "the marks that were left in such folders",
    "processes-reaches-others: *": "a user may signal its own processes",
    "processes-kills-*": "the same",
    "processes-stops-*": "the same",
    "processes-queues-signals: *": "the same",
    "processes-through-child: *": "the same",
    "processes: *": "what died of it",
    "network: victim: *": "a victim that lost its files to an attack of another group",
    "*: victim: *": "the same",
    "persistence-find: *": "/tmp and /dev/shm are everybody's",
    "persistence: *": "the same",
    "kernel-shared-objects: *": "objects of System V are told apart by user alone",
    "resources: *": "/dev/shm is everybody's",
    "resources-memory-in-shared-folder: *": "the same, and no quota counts it",
    "reflection-imports: *": "the engine's files can be read, by another interpreter too; they are no secret",
    "reflection-hooks-removed: *": "the same",
    "restrictions-writes: *": "/tmp and /dev/shm are everybody's",
    "restrictions: left at *": "the same",
}

ALLOWED: dict[str, dict[str, str]] = {
    "root_no_namespaces": {
        "resources-deleted-files: *": "no quota without mounts, and without CAP_SYS_PTRACE the handler can't see them",
    },
    "no_landlock": {
        **_SAME_USER,
        "resources-deleted-files: *": "workers are closed to their user there, so the handler can't see them",
    },
    "plain": {
        **_SAME_USER,
        "descriptors-*": "descriptors of processes of the same user can be had, and sent to whoever listens",
        "descriptors: *": "the same, as the listener heard it",
        "network-*": "without a filter every socket can be had",
        "network: *": "the same, as it was heard outside",
        "network-open-*": "the same, for steps that may have a network",
        "network_open: *": "the same",
        "network-listed-*": "the same",
        "network_listed: *": "the same",
        "kernel-*": "without a filter the kernel's whole interface is there",
        "kernel: *": "objects that were left behind",
        "processes-*": "and so are the calls that reach processes of the same user",
        "resources-*": "and memory that no process has",
        "restrictions-*": "nothing tells restricted steps from others but the list of modules",
        "restrictions: *": "the same",
    },
}


def allowed(posture: str, attack: str, item: str) -> str | None:
    """Why an attacker may get this here; None where it may not."""
    for pattern, reason in ALLOWED.get(posture, {}).items():
        if fnmatch(f"{attack}: {item}", pattern):
            return reason
    return None


# Layers of the posture report, and attacks that get nothing where they are in force.
LAYERS: dict[str, tuple[str, ...]] = {
    "own_process": ("reflection-objects", "reflection-own-memory"),
    "empty_environment": ("surroundings-environ", "surroundings-environ-of-libc"),
    "closed_descriptors": ("descriptors-inherited", "descriptors-standard-ones"),
    "rlimits": ("resources-one-large-file", "resources-sparse-file", "resources-address-space"),
    "process_group": (),
    "subreaper": (),
    # Of the same user only; root reads what it likes.
    "non_dumpable": (),
    "no_new_privs": ("privilege-programs",),
    "user_namespace": (),
    "mount_namespace": (
        "files-secrets-by-path",
        "files-secrets-by-detour",
        "files-listings",
        "files-write-outside",
    ),
    "pid_namespace": ("processes-reaches-others", "processes-kills-zygote", "surroundings-environ-of-others"),
    "network_namespace": (
        "network-private-addresses",
        "network-handler-s-port",
        "network-datagrams",
        "network-listens",
    ),
    "ipc_namespace": ("kernel-shared-objects",),
    "own_uid": ("privilege-is-root", "privilege-becomes-others"),
    "no_capabilities": ("privilege-capabilities",),
    "landlock": (
        "files-secrets-by-path",
        "files-secrets-by-detour",
        "files-write-outside",
        "files-engine-code",
    ),
    "seccomp": ("kernel-surface", "kernel-namespaces", "kernel-hidden-memory", "processes-limits-of-others"),
    "tmpfs_quota": (
        "resources-many-files",
        "resources-deleted-files",
        "resources-inodes",
        "resources-allocated-file",
    ),
    "network_notify": ("network-open-private-addresses", "network-open-handler-s-port"),
    "cgroup": ("resources-memory-over-children", "resources-memory-in-one-process"),
    "memory_meter": ("resources-memory-over-children", "resources-memory-in-one-process"),
}

# Work that needs a layer to be possible: without a /dev/shm of its own nothing is shared through it.
NEEDS = {
    "legit-in-shared-memory": "mount_namespace",
    "legit-in-processes": "mount_namespace",
}


def impossible(posture: Posture) -> list[str]:
    """Layers that the platform refuses."""
    found = []
    if not posture.namespaces:
        found += ["mount_namespace", "pid_namespace", "network_namespace", "ipc_namespace", "tmpfs_quota"]
    if not posture.landlock:
        found.append("landlock")
    if not posture.seccomp:
        found += ["seccomp", "network_notify"]
    if not posture.root:
        found.append("own_uid")
    return found


def certain(posture: Posture) -> list[str]:
    """Layers that it gives to whoever asks."""
    found = [
        "own_process",
        "empty_environment",
        "closed_descriptors",
        "rlimits",
        "no_new_privs",
        "no_capabilities",
    ]
    if posture.namespaces:
        found += ["mount_namespace", "pid_namespace", "network_namespace", "ipc_namespace"]
    if posture.landlock:
        found.append("landlock")
    if posture.seccomp:
        found.append("seccomp")
    if posture.root:
        found.append("own_uid")
    return found
