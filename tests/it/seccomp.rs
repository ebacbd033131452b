//! The kernel's filter for steps: what each program answers, read by an interpreter of its own, and real work under each.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::{Command, Stdio};

use proptest::prelude::*;
use weft::runner::jail::bpf::{self, Action, Instruction};
use weft::runner::jail::seccomp::{Arch, Filter, REFUSED};

const EPERM: u32 = Action::Refuse(1).value();
const EACCES: u32 = Action::Refuse(13).value();
const ENOSYS: u32 = Action::Refuse(38).value();
const ALLOW: u32 = Action::Allow.value();
const NOTIFY: u32 = Action::Notify.value();
const KILL: u32 = Action::Kill.value();

/// What the kernel's machine does with one call.
fn answer(program: &[Instruction], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(arch.to_le_bytes());
    data.extend(0x7f00_1234_5678_u64.to_le_bytes());
    arguments.iter().for_each(|it| data.extend(it.to_le_bytes()));
    let (mut at, mut accumulator) = (0, 0_u32);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let branch = |holds| usize::from(if holds { jt } else { jf });
        match code {
            bpf::LOAD => {
                let from = k as usize;
                assert!(from.is_multiple_of(4), "the kernel refuses unaligned loads");
                accumulator = u32::from_le_bytes(data[from..from + 4].try_into().unwrap());
            }
            bpf::AND => accumulator &= k,
            bpf::JUMP => at += k as usize,
            bpf::EQUAL => at += branch(accumulator == k),
            bpf::ANY => at += branch(accumulator & k != 0),
            bpf::AT_LEAST => at += branch(accumulator >= k),
            bpf::RETURN => return k,
            _ => panic!("unknown instruction {code:#x}"),
        }
    }
}

fn of(filter: Filter, arch: Arch, call: &str, arguments: [u64; 6]) -> u32 {
    let number = arch.number(call).unwrap_or_else(|| panic!("{call}"));
    answer(&filter.program(arch), arch.audit(), number, arguments)
}

const WATCHES: [&str; 4] = ["inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch"];
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

fn every() -> impl Iterator<Item = (Filter, Arch)> {
    Filter::ALL
        .into_iter()
        .flat_map(|filter| Arch::ALL.map(|arch| (filter, arch)))
}

#[test]
fn programs_are_ones_that_the_kernel_takes() {
    for (filter, arch) in every() {
        let program = filter.program(arch);
        assert!(program.len() <= 4096, "{filter:?}: {}", program.len());
        for (at, instruction) in program.iter().enumerate() {
            let targets = match instruction.code {
                bpf::RETURN => continue,
                bpf::JUMP => vec![at + 1 + instruction.k as usize],
                _ => vec![
                    at + 1 + usize::from(instruction.jt),
                    at + 1 + usize::from(instruction.jf),
                ],
            };
            assert!(targets.iter().all(|target| *target < program.len()), "{filter:?} {at}");
        }
        assert_eq!(filter.bytes(arch).len(), program.len() * 8);
    }
}

#[test]
fn every_named_call_has_a_number() {
    for filter in Filter::ALL {
        for call in filter.rules().keys() {
            assert!(Arch::ALL.iter().any(|arch| arch.number(call).is_some()), "{call}");
        }
    }
    // The tree of ranges loses nobody: every number is answered as its rule says.
    for (filter, arch) in every() {
        let program = filter.program(arch);
        let rules = filter.rules();
        let named: BTreeSet<u32> = rules.keys().filter_map(|call| arch.number(call)).collect();
        for number in (0..700).filter(|number| !named.contains(number)) {
            assert_eq!(answer(&program, arch.audit(), number, [0; 6]), ENOSYS, "{number}");
        }
        for (call, rule) in rules.iter().filter(|(_, rule)| rule.clauses.is_empty()) {
            let Some(number) = arch.number(call) else { continue };
            assert_eq!(
                answer(&program, arch.audit(), number, [7; 6]),
                rule.otherwise.value(),
                "{filter:?} {call}"
            );
        }
    }
}

fn arguments() -> impl Strategy<Value = [u64; 6]> {
    let one = prop_oneof![
        Just(0),
        Just(u64::MAX),
        0_u64..70,
        any::<u32>().prop_map(u64::from),
        (0_u32..64).prop_map(|bit| 1_u64 << bit),
        any::<u64>(),
    ];
    proptest::array::uniform6(one)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_refused_is_refused_whatever_the_arguments(arguments in arguments()) {
        let children = ["fork", "vfork", "execve", "execveat"];
        for (filter, arch) in every() {
            let program = filter.program(arch);
            let calls = REFUSED.iter().chain(if filter.as_str().starts_with("restricted") { &children[..] } else { &[] });
            for number in calls.filter_map(|call| arch.number(call)) {
                prop_assert_eq!(answer(&program, arch.audit(), number, arguments), EPERM);
                prop_assert_eq!(answer(&program, arch.audit() ^ 1, number, arguments), KILL);
            }
            prop_assert_eq!(answer(&program, arch.audit(), arch.number("clone3").unwrap(), arguments), ENOSYS);
            // The second kind of numbers of x86-64, which would be other calls.
            for number in [0x4000_0000, 0x4000_003b, 0x7fff_ffff, u32::MAX] {
                prop_assert_eq!(answer(&program, arch.audit(), number, arguments), ENOSYS);
            }
        }
    }

    #[test]
    fn no_namespace_no_other_process_and_no_foreign_socket(arguments in arguments()) {
        let namespaces = 0x7e02_0000;
        for (filter, arch) in every() {
            let clone = of(filter, arch, "clone", arguments);
            if arguments[0] & namespaces != 0 || arguments[0] & 0x8000 != 0 {
                prop_assert_eq!(clone, EPERM);
            } else if filter.as_str().starts_with("restricted") {
                prop_assert_eq!(clone == ALLOW, arguments[0] & 0x1_0000 != 0);
            } else {
                prop_assert_eq!(clone, ALLOW);
            }
            for call in ["prlimit64", "sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler"] {
                let own = arguments[0] & 0xffff_ffff == 0;
                prop_assert_eq!(of(filter, arch, call, arguments), if own { ALLOW } else { EPERM });
            }
            let (unix, network) = (filter.as_str().ends_with("_unix"), filter.as_str().contains("_network"));
            let proxy = filter.as_str().contains("_proxy");
            let low = arguments.map(|it| it & 0xffff_ffff);
            let allowed = (unix && low[0] == 1 && matches!(low[1] & 0xf, 1 | 2))
                || ((network || proxy) && matches!(low[0], 2 | 10) && low[1] & 0xf == 1 && matches!(low[2], 0 | 6));
            prop_assert_eq!(of(filter, arch, "socket", arguments), if allowed { ALLOW } else { EACCES });
            let connect = if network { NOTIFY } else if unix || proxy { ALLOW } else { EACCES };
            prop_assert_eq!(of(filter, arch, "connect", arguments), connect);
            let to = of(filter, arch, "sendto", arguments);
            let fast_open = arguments[3] & 0x2000_0000 != 0;
            prop_assert_eq!(to == ALLOW, !fast_open && (unix || arguments[4] == 0));
            let program = filter.program(arch);
            let of = |call| answer(&program, arch.audit(), arch.number(call).unwrap(), arguments);
            for call in WATCHES.into_iter().filter(|call| arch.number(call).is_some()) {
                prop_assert_eq!(of(call), if unix { ALLOW } else { ENOSYS }, "{}", call);
            }
            let shared = filter.as_str().ends_with("_shared");
            for call in CHANGES_BY_PATH.into_iter().filter(|call| arch.number(call).is_some()) {
                prop_assert_eq!(of(call), if shared { EPERM } else { ALLOW }, "{}", call);
            }
            let times = of("utimensat");
            prop_assert_eq!(times, if shared && arguments[1] != 0 { EPERM } else { ALLOW });
            for call in ["fchmod", "fchown", "fsetxattr", "fremovexattr", "ftruncate"] {
                prop_assert_eq!(of(call), ALLOW, "{}", call);
            }
        }
    }
}

#[test]
fn arguments_decide_where_they_are_looked_at() {
    for (filter, arch) in every() {
        let of = |call, arguments: &[u64]| {
            let mut six = [0; 6];
            six[..arguments.len()].copy_from_slice(arguments);
            of(filter, arch, call, six)
        };
        for (option, value) in [
            (4, 1),
            (1, 9),
            (36, 1),
            (22, 2),
            (35, 1),
            (0x5961_6d61, 1),
            (47, 2),
            (24, 1),
        ] {
            assert_eq!(of("prctl", &[option, value]), EPERM, "prctl {option}");
        }
        assert_eq!(of("prctl", &[4, 0]), ALLOW);
        assert_eq!(of("prctl", &[15, 0x7fff_0000_0000]), ALLOW);
        for request in [0x5412, 0x541c, 0x5423, 0x5412 | 1 << 32] {
            assert_eq!(of("ioctl", &[0, request]), EPERM, "ioctl {request:#x}");
        }
        assert_eq!(of("ioctl", &[1, 0x5401]), ALLOW);
        assert_eq!(of("personality", &[0xffff_ffff]), ALLOW);
        assert_eq!(of("personality", &[0x0004_0000]), EPERM);
        assert_eq!(of("setpriority", &[0, 0, 5]), ALLOW);
        assert_eq!(of("setpriority", &[0, 17, 5]), EPERM);
        assert_eq!(of("setpriority", &[2, 0, 5]), EPERM);
        assert_eq!(of("ioprio_set", &[1, 0, 5]), ALLOW);
        assert_eq!(of("ioprio_set", &[2, 0, 5]), EPERM);
        assert_eq!(of("kill", &[u64::MAX, 9]), EPERM);
        assert_eq!(of("kill", &[1234, 9]), ALLOW);
        for option in [7, 8, 32, 33, 7 | 1 << 32] {
            assert_eq!(of("setsockopt", &[3, 1, option]), EPERM, "SOL_SOCKET {option}");
            assert_eq!(of("setsockopt", &[3, 6, option]), ALLOW, "IPPROTO_TCP {option}");
        }
        assert_eq!(of("setsockopt", &[3, 1, 9]), ALLOW);
        assert_eq!(of("fcntl", &[3, 1031, 1 << 20]), EPERM);
        assert_eq!(of("fcntl", &[3, 1032]), ALLOW);
        assert_eq!(of("socketpair", &[1, 0x8_0001]), ALLOW);
        assert_eq!(of("mknodat", &[0, 0, 0o010_600]), ALLOW);
        assert_eq!(of("mknodat", &[0, 0, 0o020_600]), EPERM);
        let datagrams = of("socketpair", &[1, 2]);
        assert_eq!(datagrams == ALLOW, filter.as_str().ends_with("_unix"));
    }
}

/// Installs the filter that comes on stdin, and works as workflows do.
const WORK: &str = r#"
import asyncio, ctypes, json, os, subprocess, sys, tempfile, threading, time, socket, struct, errno
import concurrent.futures, hashlib, ssl, decimal, random, sqlite3, mmap, signal, resource, shutil

name = sys.argv[1]
bpf = sys.stdin.buffer.read()
libc = ctypes.CDLL(None, use_errno=True)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
code = ctypes.create_string_buffer(bpf, len(bpf))
program = Program(len(bpf) // 8, ctypes.addressof(code))
assert libc.prctl(38, 1, 0, 0, 0) == 0
number = {"x86_64": 317, "aarch64": 277}[os.uname().machine]
flags = 8 if "_network" in name else 0
if libc.syscall(number, 1, flags, ctypes.byref(program)) < 0:
    raise OSError(ctypes.get_errno(), "seccomp")

shared = name.endswith("_shared")
trusted, unix, network = name.startswith("trusted"), name.endswith("_unix"), "_network" in name
tcp_allowed = network or "_proxy" in name
def refused(what, *numbers):
    try:
        what()
    except OSError as error:
        assert error.errno in numbers, error
    else:
        raise AssertionError("not refused")

# Work.
counts = []
threads = [threading.Thread(target=counts.append, args=(i,)) for i in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
assert sorted(counts) == list(range(8))
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    assert list(pool.map(abs, [-1, -2])) == [1, 2]
async def main():
    await asyncio.sleep(0.001)
    return await asyncio.get_running_loop().run_in_executor(None, json.loads, '{"a": [1]}')
assert asyncio.run(main()) == {"a": [1]}
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "file")
    with open(path, "wb") as file:
        file.write(os.urandom(1 << 20)); file.flush(); os.fsync(file.fileno())
    shutil.copyfile(path, path + "2"); os.rename(path + "2", path + "3")
    with open(path, "r+b") as file:
        os.fchmod(file.fileno(), 0o600); os.utime(file.fileno()); os.fchown(file.fileno(), -1, -1)
    by_path = [
        lambda: os.chmod(path, 0o600), lambda: os.utime(path), lambda: os.chown(path, os.getuid(), os.getgid()),
        lambda: os.lchown(path, -1, -1), lambda: os.truncate(path, 1 << 20), lambda: shutil.copy2(path, path + "3"),
        lambda: os.chmod("file", 0o600, dir_fd=parent), lambda: os.utime("file", dir_fd=parent, follow_symlinks=False),
    ]
    parent = os.open(folder, os.O_RDONLY)
    for change in by_path:
        refused(change, errno.EPERM) if shared else change()
    if shared:
        refused(lambda: os.setxattr(path, "user.a", b"b"), errno.EPERM)
        refused(lambda: os.removexattr(path, "user.a", follow_symlinks=False), errno.EPERM)
    os.close(parent)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as view:
        assert hashlib.sha256(view).digest()
    db = sqlite3.connect(os.path.join(folder, "db")); db.execute("create table t (a)"); db.commit(); db.close()
    os.mkfifo(os.path.join(folder, "fifo"))
    assert len(list(os.scandir(folder))) == 4
big = bytearray(64 << 20); del big
left, right = socket.socketpair(); left.sendall(b"x"); assert right.recv(1) == b"x"
ssl.create_default_context(); random.random(); time.sleep(0.001); os.nice(1); os.sched_getaffinity(0)
compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(lambda a, b: 0)
libc.qsort(ctypes.create_string_buffer(b"ba"), 2, 1, compare)
signal.signal(signal.SIGALRM, lambda *_: None); signal.setitimer(signal.ITIMER_REAL, 0.001); time.sleep(0.01)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); resource.getrusage(resource.RUSAGE_SELF)
os.kill(os.getpid(), 0)

if trusted:
    assert subprocess.run([sys.executable, "-I", "-S", "-c", "print(1)"], capture_output=True, text=True).stdout == "1\n"
    assert subprocess.run("echo $((1+1)) | cat", shell=True, capture_output=True, text=True).stdout == "2\n"
    pid = os.fork()
    if pid == 0: os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    import multiprocessing
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]
    async def child():
        process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
        return (await process.communicate(b"hi"))[0]
    assert asyncio.run(child()) == b"hi"
else:
    refused(os.fork, errno.EPERM)
    refused(lambda: subprocess.run(["true"]), errno.EPERM)
    refused(lambda: os.execv("/bin/true", ["true"]), errno.EPERM)

# No work.
for family, kind in [(2, 2), (10, 2), (16, 3), (17, 3), (38, 5)]:
    refused(lambda: socket.socket(family, kind), errno.EACCES)
if tcp_allowed:
    # Nobody answers, so only what does not wait is tried.
    tcp = socket.socket(); tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    refused(lambda: tcp.sendto(b"x", 0x20000000, ("127.0.0.1", 9)), errno.EACCES)
    if not unix:
        refused(lambda: tcp.bind(("127.0.0.1", 0)), errno.EACCES)
        refused(lambda: tcp.sendto(b"x", ("127.0.0.1", 9)), errno.EACCES)
else:
    refused(socket.socket, errno.EACCES)
if unix:
    server = socket.socket(socket.AF_UNIX); server.bind("\0weft-test-%d" % os.getpid()); server.listen()
    if not network:
        client = socket.socket(socket.AF_UNIX); client.connect(server.getsockname()); server.accept()
else:
    refused(lambda: socket.socket(socket.AF_UNIX), errno.EACCES)
    refused(lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM), errno.EACCES)
watch = libc.inotify_init1(0)
assert watch >= 0 if unix else ctypes.get_errno() == errno.ENOSYS
for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
    refused(lambda: left.setsockopt(socket.SOL_SOCKET, option, 1 << 20), errno.EPERM)
import fcntl
refused(lambda: fcntl.fcntl(os.pipe()[0], 1031, 1 << 20), errno.EPERM)
refused(lambda: os.memfd_create("x"), errno.EPERM)
refused(lambda: os.setuid(os.getuid()), errno.EPERM)
refused(lambda: os.chroot("/"), errno.EPERM)
refused(lambda: resource.prlimit(os.getpid(), resource.RLIMIT_NOFILE), errno.EPERM)
refused(lambda: os.kill(-1, 0), errno.EPERM)
assert libc.unshare(0x10000000) == -1 and ctypes.get_errno() == errno.EPERM
assert libc.prctl(4, 1, 0, 0, 0) == -1 and ctypes.get_errno() == errno.EPERM
print("done")
"#;

#[test]
#[cfg(target_os = "linux")]
#[expect(
    clippy::disallowed_methods,
    reason = "this child has nothing of the program's to hide"
)]
fn real_work_is_done_under_every_program() {
    let Some(arch) = Arch::here() else { return };
    for filter in Filter::ALL {
        let mut child = Command::new("python3")
            .args(["-I", "-c", WORK, filter.as_str()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&filter.bytes(arch)).unwrap();
        let output = child.wait_with_output().unwrap();
        let (said, complained) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        assert!(
            output.status.success() && said == "done\n",
            "{filter:?}: {} {complained}",
            output.status
        );
    }
}
