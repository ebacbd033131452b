//! Which system calls a worker may make: programs for the kernel to check each call by.
//!
//! Calls are named; what is not named does not exist for a worker (ENOSYS, so that libraries fall back), and what is known
//! and refused fails with EPERM or EACCES. `docs/seccomp.txt` says all of it in words.
//!
//! A program is for one of three kinds of workers. The plain ones are for workers that own no file of anybody else's.
//! `_unix` ones have Unix sockets and watches on files as well, and are for workers that see no file and reach no socket of
//! others. `_shared` ones are for workers that are the handler's own user among the handler's own files: Landlock keeps them
//! from opening those, and has nothing to say about modes, owners, times and attributes, which are refused here.
//!
//! Two things are not a filter's to stop, because it sees numbers and no memory. Addresses: `bind` and `connect` of a
//! program with Unix sockets (`_unix`) work for Internet sockets too as far as it is concerned, so these programs are for
//! workers in an empty network namespace only, where such a call leads nowhere. And receivers of signals: whom `kill` reaches
//! is decided by the process namespace, or by Landlock.
//!
//! Where `connect` is answered by the handler (`_network`) and Unix sockets are there as well, the handler looks at the
//! address and lets the kernel go on for AF_UNIX alone. The worker can exchange the address between the look and the call.
//! It gains nothing: the socket that goes on is the one of its own, empty network namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::bpf::{self, Action, Condition, Instruction, Rule};
use super::syscalls::NUMBERS;

const EPERM: u16 = 1;
const EACCES: u16 = 13;
const EINVAL: u16 = 22;
const ENOSYS: u16 = 38;
const ENOPROTOOPT: u16 = 92;

const AF_UNIX: u32 = 1;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;
const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const SOCK_SEQPACKET: u32 = 5;
/// Of a socket's type, what is not a flag.
const SOCK_KIND: u32 = 0xf;
const IPPROTO_TCP: u32 = 6;
const MSG_FASTOPEN: u32 = 0x2000_0000;

const CLONE_PARENT: u32 = 0x8000;
const CLONE_THREAD: u32 = 0x1_0000;
/// `CLONE_NEW*`: mount, cgroup, uts, ipc, user, pid and network namespace.
const NAMESPACES: u32 = 0x7e02_0000;

/// What there are programs for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Arch {
    /// x86-64.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

impl Arch {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// That of this program, if it is one of them and the system is Linux.
    #[must_use]
    pub const fn here() -> Option<Self> {
        if !cfg!(target_os = "linux") {
            None
        } else if cfg!(target_arch = "x86_64") {
            Some(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Aarch64)
        } else {
            None
        }
    }

    /// As the kernel's `uname -m` says it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// `AUDIT_ARCH_*`.
    #[must_use]
    pub const fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// The number of a call; none where there is no such call.
    #[must_use]
    pub fn number(self, call: &str) -> Option<u32> {
        let at = NUMBERS.binary_search_by(|(name, ..)| (*name).cmp(call)).ok()?;
        let (_, x86_64, aarch64) = NUMBERS[at];
        match self {
            Self::X86_64 => x86_64,
            Self::Aarch64 => aarch64,
        }
    }
}

/// One of the programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Filter {
    /// No child, no program, no socket but pairs.
    Restricted,
    /// As `Restricted`, with Unix sockets and watches on files.
    RestrictedUnix,
    /// As `Restricted`, without changing by its path what a file is.
    RestrictedShared,
    /// Children and programs; no socket but pairs.
    Trusted,
    /// As `Trusted`, with Unix sockets and watches on files.
    TrustedUnix,
    /// As `Trusted`, without changing by its path what a file is.
    TrustedShared,
    /// As `Trusted`, with TCP connections that the handler makes.
    TrustedNetwork,
    /// As `TrustedUnix`, with TCP connections that the handler makes.
    TrustedNetworkUnix,
    /// As `TrustedShared`, with TCP connections that the handler makes.
    TrustedNetworkShared,
    /// As `Trusted`, with TCP connections of its own, for a worker that Landlock lets connect to the handler's proxy alone.
    TrustedProxy,
    /// As `TrustedShared`, with TCP connections of its own, likewise.
    TrustedProxyShared,
}

impl Filter {
    /// Every one.
    pub const ALL: [Self; 11] = [
        Self::Restricted,
        Self::RestrictedUnix,
        Self::RestrictedShared,
        Self::Trusted,
        Self::TrustedUnix,
        Self::TrustedShared,
        Self::TrustedNetwork,
        Self::TrustedNetworkUnix,
        Self::TrustedNetworkShared,
        Self::TrustedProxy,
        Self::TrustedProxyShared,
    ];

    /// As `hello` and file names spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Restricted => "restricted",
            Self::RestrictedUnix => "restricted_unix",
            Self::RestrictedShared => "restricted_shared",
            Self::Trusted => "trusted",
            Self::TrustedUnix => "trusted_unix",
            Self::TrustedShared => "trusted_shared",
            Self::TrustedNetwork => "trusted_network",
            Self::TrustedNetworkUnix => "trusted_network_unix",
            Self::TrustedNetworkShared => "trusted_network_shared",
            Self::TrustedProxy => "trusted_proxy",
            Self::TrustedProxyShared => "trusted_proxy_shared",
        }
    }

    const fn is_trusted(self) -> bool {
        !matches!(self, Self::Restricted | Self::RestrictedUnix | Self::RestrictedShared)
    }

    const fn has_unix(self) -> bool {
        matches!(
            self,
            Self::RestrictedUnix | Self::TrustedUnix | Self::TrustedNetworkUnix
        )
    }

    const fn is_shared(self) -> bool {
        matches!(
            self,
            Self::RestrictedShared | Self::TrustedShared | Self::TrustedNetworkShared | Self::TrustedProxyShared
        )
    }

    const fn is_asked_about(self) -> bool {
        matches!(
            self,
            Self::TrustedNetwork | Self::TrustedNetworkUnix | Self::TrustedNetworkShared
        )
    }

    const fn has_tcp(self) -> bool {
        self.is_asked_about() || matches!(self, Self::TrustedProxy | Self::TrustedProxyShared)
    }

    /// What is decided about every call that is named, by name.
    #[must_use]
    pub fn rules(self) -> BTreeMap<&'static str, Rule> {
        let mut rules: BTreeMap<&'static str, Rule> = BTreeMap::new();
        rules.extend(ALLOWED.into_iter().map(|call| (call, Action::Allow.into())));
        rules.extend(REFUSED.into_iter().map(|call| (call, Action::Refuse(EPERM).into())));
        rules.extend(by_argument());
        rules.extend(self.children());
        rules.extend(self.sockets());
        rules.extend(self.files());
        rules
    }

    /// The program.
    #[must_use]
    pub fn program(self, arch: Arch) -> Vec<Instruction> {
        let mut rules: Vec<_> = self
            .rules()
            .into_iter()
            .filter_map(|(call, rule)| Some((arch.number(call)?, rule)))
            .collect();
        rules.sort_by_key(|(number, _)| *number);
        bpf::program(arch.audit(), arch == Arch::X86_64, &rules, Action::Refuse(ENOSYS))
    }

    /// The program as an array of `struct sock_filter`.
    #[must_use]
    pub fn bytes(self, arch: Arch) -> Vec<u8> {
        self.program(arch).into_iter().flat_map(Instruction::to_bytes).collect()
    }

    fn children(self) -> Vec<(&'static str, Rule)> {
        let refuse = Action::Refuse(EPERM);
        let start = if self.is_trusted() { Action::Allow } else { refuse };
        let clone = Rule {
            // A sibling would be nobody's to kill.
            clauses: vec![
                (vec![any(0, NAMESPACES | CLONE_PARENT)], refuse),
                (vec![any(0, CLONE_THREAD)], Action::Allow),
            ],
            otherwise: start,
        };
        let mut rules = vec![("clone", clone)];
        rules.extend(["fork", "vfork", "execve", "execveat"].map(|call| (call, start.into())));
        rules
    }

    fn files(self) -> Vec<(&'static str, Rule)> {
        // Names of files that come and go in folders that are readable for the user, though not for the worker. Watchers
        // look for themselves where the kernel has no such call.
        let watch = if self.has_unix() {
            Action::Allow
        } else {
            Action::Refuse(ENOSYS)
        };
        let mut rules: Vec<_> = WATCHES.map(|call| (call, watch.into())).into();
        let change = if self.is_shared() {
            Action::Refuse(EPERM)
        } else {
            Action::Allow
        };
        rules.extend(CHANGES_BY_PATH.map(|call| (call, change.into())));
        // Without a path it is the file of a descriptor.
        let times = Rule {
            clauses: if self.is_shared() {
                vec![(vec![Condition::Null { argument: 1 }], Action::Allow)]
            } else {
                Vec::new()
            },
            otherwise: change,
        };
        rules.push(("utimensat", times));
        rules
    }

    fn sockets(self) -> Vec<(&'static str, Rule)> {
        let refused = Action::Refuse(EACCES);
        let only = |clauses: Vec<Vec<Condition>>| Rule {
            clauses: clauses.into_iter().map(|clause| (clause, Action::Allow)).collect(),
            otherwise: refused,
        };
        let mut socket = Vec::new();
        if self.has_unix() {
            socket.push(vec![equal(0, &[AF_UNIX]), kind(&[SOCK_STREAM, SOCK_DGRAM])]);
        }
        if self.has_tcp() {
            socket.push(vec![
                equal(0, &[AF_INET, AF_INET6]),
                kind(&[SOCK_STREAM]),
                equal(2, &[0, IPPROTO_TCP]),
            ]);
        }
        // Pairs of datagram sockets can send to any address, which no filter sees in `sendmsg`.
        let pair = if self.has_unix() {
            kind(&[SOCK_STREAM, SOCK_SEQPACKET, SOCK_DGRAM])
        } else {
            kind(&[SOCK_STREAM, SOCK_SEQPACKET])
        };
        let connect = if self.is_asked_about() {
            Action::Notify
        } else if self.has_unix() || self.has_tcp() {
            Action::Allow
        } else {
            refused
        };
        let serve: Rule = if self.has_unix() { Action::Allow } else { refused }.into();
        // Data that goes with the first packet of a connection would go without `connect`.
        let send = |flags| Rule {
            clauses: vec![(vec![any(flags, MSG_FASTOPEN)], refused)],
            otherwise: Action::Allow,
        };
        let mut send_to = send(3);
        if !self.has_unix() {
            send_to
                .clauses
                .push((vec![Condition::Null { argument: 4 }], Action::Allow));
            send_to.otherwise = refused;
        }
        vec![
            ("socket", only(socket)),
            ("socketpair", only(vec![vec![equal(0, &[AF_UNIX]), pair]])),
            ("connect", connect.into()),
            ("bind", serve.clone()),
            ("listen", serve.clone()),
            ("accept", serve.clone()),
            ("accept4", serve),
            ("sendto", send_to),
            ("sendmsg", send(2)),
            ("sendmmsg", send(3)),
        ]
    }
}

const fn equal(argument: u8, values: &'static [u32]) -> Condition {
    Condition::OneOf {
        argument,
        mask: u32::MAX,
        values,
    }
}

const fn any(argument: u8, mask: u32) -> Condition {
    Condition::Any { argument, mask }
}

/// Of a socket, flags left aside.
const fn kind(values: &'static [u32]) -> Condition {
    Condition::OneOf {
        argument: 1,
        mask: SOCK_KIND,
        values,
    }
}

/// The same for every program.
fn by_argument() -> Vec<(&'static str, Rule)> {
    let refused = Action::Refuse(EPERM);
    let only = |conditions| Rule {
        clauses: vec![(conditions, Action::Allow)],
        otherwise: refused,
    };
    let but = |conditions| Rule {
        clauses: vec![(conditions, refused)],
        otherwise: Action::Allow,
    };
    // Its own process only: a filter does not know its number, which stands for others where 0 never does.
    let of_self = || only(vec![equal(0, &[0])]);
    // Plain files and pipes; devices and sockets are nobody's to make.
    let node = |argument| {
        only(vec![Condition::OneOf {
            argument,
            mask: 0o170_000,
            values: &[0, 0o100_000, 0o010_000],
        }])
    };
    let prctl = Rule {
        clauses: vec![
            (vec![equal(0, &[PR_SET_DUMPABLE]), equal(1, &[0])], Action::Allow),
            (vec![equal(0, &PRCTL)], Action::Allow),
            (vec![equal(0, &PRCTL_REFUSED)], refused),
        ],
        otherwise: Action::Refuse(EINVAL),
    };
    let option = |level, values| (vec![equal(1, level), equal(2, values)], Action::Refuse(ENOPROTOOPT));
    let sockopt = Rule {
        clauses: vec![
            (
                vec![equal(1, &[SOL_SOCKET]), equal(2, &SOCKET_BUFFERS)],
                Action::Refuse(EPERM),
            ),
            option(&[SOL_SOCKET], &SOCKET_OPTIONS_REFUSED),
            option(&[IPPROTO_TCP], &TCP_OPTIONS_REFUSED),
        ],
        otherwise: Action::Allow,
    };
    vec![
        // So that glibc falls back to `clone`, whose flags are no pointer.
        ("clone3", Action::Refuse(ENOSYS).into()),
        ("prlimit64", of_self()),
        ("sched_setaffinity", of_self()),
        ("sched_setattr", of_self()),
        ("sched_setparam", of_self()),
        ("sched_setscheduler", of_self()),
        ("setpriority", only(vec![equal(0, &[0]), equal(1, &[0])])),
        ("ioprio_set", only(vec![equal(0, &[1]), equal(1, &[0])])),
        // Everybody at once; whom else it reaches is not a filter's to say.
        ("kill", but(vec![equal(0, &[u32::MAX])])),
        ("personality", only(vec![equal(0, &[0, u32::MAX])])),
        ("prctl", prctl),
        ("ioctl", but(vec![equal(1, &IOCTL_REFUSED)])),
        ("fcntl", but(vec![equal(1, &FCNTL_REFUSED)])),
        ("setsockopt", sockopt),
        ("mknod", node(1)),
        ("mknodat", node(2)),
    ]
}

const PR_SET_DUMPABLE: u32 = 4;

/// Options of `prctl` that are a process' own business: names, reading, timer slack, speculation, vector length, memory
/// names, and giving up more rights.
const PRCTL: [u32; 38] = [
    2,
    3,
    5,
    6,
    7,
    9,
    10,
    11,
    12,
    13,
    15,
    16,
    21,
    23,
    25,
    26,
    27,
    29,
    30,
    37,
    38,
    39,
    40,
    41,
    42,
    50,
    51,
    52,
    53,
    54,
    55,
    56,
    63,
    64,
    65,
    66,
    0x4155_5856,
    0x5356_4d41,
];

/// Parent-death signal, dumpable, capabilities, seccomp, securebits, memory map, subreaper, core scheduling, tracer.
const PRCTL_REFUSED: [u32; 11] = [1, PR_SET_DUMPABLE, 8, 22, 24, 28, 35, 36, 47, 62, 0x5961_6d61];

/// Typing into a terminal, the console's menu, line disciplines, the console's output; and whom a descriptor sends signals to
/// (`FIOSETOWN`, `SIOCSPGRP`).
const IOCTL_REFUSED: [u32; 6] = [0x5412, 0x541c, 0x5423, 0x541d, 0x8901, 0x8902];

/// Whom a descriptor sends signals to (`F_SETOWN`, `F_SETOWN_EX`), and how much of the kernel's memory a pipe may take
/// (`F_SETPIPE_SZ`), which no limit counts.
const FCNTL_REFUSED: [u32; 3] = [8, 15, 1031];

const SOL_SOCKET: u32 = 1;

/// How much of the kernel's memory a socket may take, which no limit counts: `SO_SNDBUF`, `SO_RCVBUF`, and both with `FORCE`.
const SOCKET_BUFFERS: [u32; 4] = [7, 8, 32, 33];

/// Programs attached to sockets: `SO_ATTACH_*`.
const SOCKET_OPTIONS_REFUSED: [u32; 4] = [26, 50, 51, 52];

/// Other protocols over TCP: `TCP_ULP`.
const TCP_OPTIONS_REFUSED: [u32; 1] = [31];

/// What tells about files as they change.
const WATCHES: [&str; 4] = ["inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch"];

/// What changes a file that is named by its path and needs no right to open it, but its owner. `truncate` is here for versions
/// of Landlock before the third.
const CHANGES_BY_PATH: [&str; 16] = [
    "chmod",
    "chown",
    "fchmodat",
    "fchmodat2",
    "fchownat",
    "futimesat",
    "lchown",
    "lremovexattr",
    "lsetxattr",
    "removexattr",
    "removexattrat",
    "setxattr",
    "setxattrat",
    "truncate",
    "utime",
    "utimes",
];

/// What every worker may do, whatever the arguments.
const ALLOWED: [&str; 201] = [
    "access",
    "alarm",
    "arch_prctl",
    "brk",
    "cachestat",
    "capget",
    "chdir",
    "clock_getres",
    "clock_gettime",
    "clock_nanosleep",
    "close",
    "close_range",
    "copy_file_range",
    "creat",
    "dup",
    "dup2",
    "dup3",
    "epoll_create",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "eventfd",
    "eventfd2",
    "exit",
    "exit_group",
    "faccessat",
    "faccessat2",
    "fadvise64",
    "fallocate",
    "fchdir",
    "fchmod",
    "fchown",
    "fdatasync",
    "fgetxattr",
    "flistxattr",
    "flock",
    "fremovexattr",
    "fsetxattr",
    "fstat",
    "fstatfs",
    "fsync",
    "ftruncate",
    "futex",
    "futex_requeue",
    "futex_wait",
    "futex_waitv",
    "futex_wake",
    "get_mempolicy",
    "getcpu",
    "getcwd",
    "getdents",
    "getdents64",
    "getegid",
    "geteuid",
    "getgid",
    "getgroups",
    "getitimer",
    "getpeername",
    "getpgid",
    "getpgrp",
    "getpid",
    "getppid",
    "getpriority",
    "getrandom",
    "getresgid",
    "getresuid",
    "getrlimit",
    "getrusage",
    "getsid",
    "getsockname",
    "getsockopt",
    "gettid",
    "gettimeofday",
    "getuid",
    "getxattr",
    "getxattrat",
    "ioprio_get",
    "lgetxattr",
    "link",
    "linkat",
    "listxattr",
    "listxattrat",
    "llistxattr",
    "lseek",
    "lstat",
    "madvise",
    "map_shadow_stack",
    "mbind",
    "membarrier",
    "mincore",
    "mkdir",
    "mkdirat",
    "mlock",
    "mlock2",
    "mlockall",
    "mmap",
    "mprotect",
    "mremap",
    "mseal",
    "msync",
    "munlock",
    "munlockall",
    "munmap",
    "nanosleep",
    "newfstatat",
    "open",
    "openat",
    "openat2",
    "pause",
    "pidfd_open",
    "pidfd_send_signal",
    "pipe",
    "pipe2",
    "pkey_alloc",
    "pkey_free",
    "pkey_mprotect",
    "poll",
    "ppoll",
    "pread64",
    "preadv",
    "preadv2",
    "pselect6",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "read",
    "readahead",
    "readlink",
    "readlinkat",
    "readv",
    "recvfrom",
    "recvmmsg",
    "recvmsg",
    "rename",
    "renameat",
    "renameat2",
    "restart_syscall",
    "rmdir",
    "rseq",
    "rt_sigaction",
    "rt_sigpending",
    "rt_sigprocmask",
    "rt_sigqueueinfo",
    "rt_sigreturn",
    "rt_sigsuspend",
    "rt_sigtimedwait",
    "rt_tgsigqueueinfo",
    "sched_get_priority_max",
    "sched_get_priority_min",
    "sched_getaffinity",
    "sched_getattr",
    "sched_getparam",
    "sched_getscheduler",
    "sched_rr_get_interval",
    "sched_yield",
    "select",
    "sendfile",
    "set_mempolicy",
    "set_robust_list",
    "set_tid_address",
    "setitimer",
    "setpgid",
    "setrlimit",
    "setsid",
    "shutdown",
    "sigaltstack",
    "signalfd",
    "signalfd4",
    "splice",
    "stat",
    "statfs",
    "statx",
    "symlink",
    "symlinkat",
    "sync_file_range",
    "syncfs",
    "sysinfo",
    "tee",
    "tgkill",
    "time",
    "timer_create",
    "timer_delete",
    "timer_getoverrun",
    "timer_gettime",
    "timer_settime",
    "timerfd_create",
    "timerfd_gettime",
    "timerfd_settime",
    "times",
    "tkill",
    "umask",
    "uname",
    "unlink",
    "unlinkat",
    "vmsplice",
    "wait4",
    "waitid",
    "write",
    "writev",
];

/// What no worker may do, whatever the arguments: other processes' memory, namespaces and mounts, the kernel's own settings,
/// identities, memory that no limit counts, and interfaces that go around this list.
pub const REFUSED: [&str; 111] = [
    "acct",
    "add_key",
    "adjtimex",
    "bpf",
    "capset",
    "chroot",
    "clock_adjtime",
    "clock_settime",
    "create_module",
    "delete_module",
    "fanotify_init",
    "fanotify_mark",
    "finit_module",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "get_kernel_syms",
    "get_robust_list",
    "init_module",
    "io_cancel",
    "io_destroy",
    "io_getevents",
    "io_pgetevents",
    "io_setup",
    "io_submit",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kcmp",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "landlock_add_rule",
    "landlock_create_ruleset",
    "landlock_restrict_self",
    "listmount",
    "lookup_dcookie",
    "memfd_create",
    "memfd_secret",
    "migrate_pages",
    "modify_ldt",
    "mount",
    "mount_setattr",
    "move_mount",
    "move_pages",
    "mq_getsetattr",
    "mq_notify",
    "mq_open",
    "mq_timedreceive",
    "mq_timedsend",
    "mq_unlink",
    "msgctl",
    "msgget",
    "msgrcv",
    "msgsnd",
    "name_to_handle_at",
    "nfsservctl",
    "open_by_handle_at",
    "open_tree",
    "open_tree_attr",
    "perf_event_open",
    "pidfd_getfd",
    "pivot_root",
    "process_madvise",
    "process_mrelease",
    "process_vm_readv",
    "process_vm_writev",
    "ptrace",
    "query_module",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "remap_file_pages",
    "request_key",
    "seccomp",
    "semctl",
    "semget",
    "semop",
    "semtimedop",
    "setdomainname",
    "setfsgid",
    "setfsuid",
    "setgid",
    "setgroups",
    "sethostname",
    "setns",
    "setregid",
    "setresgid",
    "setresuid",
    "setreuid",
    "settimeofday",
    "setuid",
    "shmat",
    "shmctl",
    "shmdt",
    "shmget",
    "statmount",
    "swapoff",
    "swapon",
    "sync",
    "sysfs",
    "syslog",
    "umount2",
    "unshare",
    "uselib",
    "userfaultfd",
    "ustat",
    "vhangup",
];

/// `docs/seccomp.txt`: all programs in words.
#[must_use]
pub fn listing() -> String {
    let mut text = String::from(
        "What a step's process may ask of the kernel (generated by `weft emit`; the rules are src/runner/jail/seccomp.rs)\n\n\
         Any other call fails with ENOSYS. A call of another architecture ends the process. The first line of a call that\n\
         fits decides. Arguments count from 0.\n",
    );
    let programs = Filter::ALL.map(Filter::rules);
    let names: BTreeSet<&str> = programs.iter().flat_map(BTreeMap::keys).copied().collect();
    // Calls that every program decides alike are one section.
    let mut sections: Vec<(Vec<Option<&Rule>>, Vec<&str>)> = Vec::new();
    for name in names {
        let rules: Vec<_> = programs.iter().map(|program| program.get(name)).collect();
        match sections.iter_mut().find(|(known, _)| *known == rules) {
            Some((_, calls)) => calls.push(name),
            None => sections.push((rules, vec![name])),
        }
    }
    sections.sort_by_key(|(_, calls)| std::cmp::Reverse(calls.len()));
    for (rules, calls) in sections {
        text.push('\n');
        wrap(&mut text, "", &calls.join(" "));
        let mut by_rule: Vec<(&Rule, Vec<&str>)> = Vec::new();
        for (filter, rule) in Filter::ALL.iter().zip(rules) {
            let Some(rule) = rule else { continue };
            match by_rule.iter_mut().find(|(known, _)| *known == rule) {
                Some((_, filters)) => filters.push(filter.as_str()),
                None => by_rule.push((rule, vec![filter.as_str()])),
            }
        }
        for (rule, filters) in by_rule {
            let who = if filters.len() == Filter::ALL.len() {
                "every program".to_owned()
            } else {
                filters.join(", ")
            };
            if rule.clauses.is_empty() {
                let _ = writeln!(text, "    {who}: {}", action_in_words(rule.otherwise));
            } else {
                let _ = writeln!(text, "    {who}:");
                describe(&mut text, rule);
            }
        }
    }
    text
}

fn describe(text: &mut String, rule: &Rule) {
    for (conditions, action) in &rule.clauses {
        let words: Vec<String> = conditions.iter().map(condition_in_words).collect();
        wrap(
            text,
            "        ",
            &format!("{}: {}", words.join(", "), action_in_words(*action)),
        );
    }
    let _ = writeln!(text, "        otherwise: {}", action_in_words(rule.otherwise));
}

/// Adds words in lines of at most 116 bytes, each after `margin`.
fn wrap(text: &mut String, margin: &str, words: &str) {
    let mut width = usize::MAX;
    for word in words.split(' ') {
        if width.saturating_add(1 + word.len()) <= 116 {
            text.push(' ');
            width += 1;
        } else {
            if width != usize::MAX {
                text.push('\n');
            }
            text.push_str(margin);
            width = margin.len();
        }
        text.push_str(word);
        width += word.len();
    }
    text.push('\n');
}

fn action_in_words(action: Action) -> String {
    match action {
        Action::Allow => "allowed".into(),
        Action::Refuse(EPERM) => "refused, EPERM".into(),
        Action::Refuse(EACCES) => "refused, EACCES".into(),
        Action::Refuse(EINVAL) => "refused, EINVAL".into(),
        Action::Refuse(ENOSYS) => "refused, ENOSYS".into(),
        Action::Refuse(ENOPROTOOPT) => "refused, ENOPROTOOPT".into(),
        Action::Refuse(errno) => format!("refused, errno {errno}"),
        Action::Notify => "answered by the handler".into(),
        Action::Kill => "the process ends".into(),
    }
}

fn condition_in_words(condition: &Condition) -> String {
    match condition {
        Condition::OneOf { argument, mask, values } => {
            let bits = if *mask == u32::MAX {
                String::new()
            } else {
                format!(" & {mask:#x}")
            };
            let values: Vec<_> = values.iter().map(|value| format!("{value:#x}")).collect();
            format!("argument {argument}{bits} is {}", values.join(" or "))
        }
        Condition::Any { argument, mask } => format!("argument {argument} has a bit of {mask:#x}"),
        Condition::Null { argument } => format!("argument {argument} is null"),
    }
}
