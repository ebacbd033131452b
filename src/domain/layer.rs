//! The names of everything that may keep a step apart. What each is and what it costs: `docs/operations.md`.

/// Layers of isolation, in the order in which reports show them.
pub const LAYERS: [&str; 21] = [
    "own_process",
    "empty_environment",
    "closed_descriptors",
    "rlimits",
    "process_group",
    "subreaper",
    "non_dumpable",
    "no_new_privs",
    "user_namespace",
    "mount_namespace",
    "pid_namespace",
    "network_namespace",
    "ipc_namespace",
    "own_uid",
    "no_capabilities",
    "landlock",
    "seccomp",
    "tmpfs_quota",
    "network_notify",
    "cgroup",
    "memory_meter",
];
