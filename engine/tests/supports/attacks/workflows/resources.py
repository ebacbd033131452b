"""Attacks by sheer quantity. Each tries to get well past a limit that the suite has set low, and counts as having got
something where it is still there a second later. See weft's `attacking`."""

from attacking import Aim, Loot, armed, attack, child, linger, reach, syscall

sys = armed("sys")

os = armed("os")

time, signal, _thread = armed("time"), armed("signal"), armed("_thread")

_MIB = 1 << 20
_PAGE = b"x" * 4096


def _hold(size: int) -> bytearray:
    held = bytearray(size)
    held[::4096] = b"x" * len(held[::4096])
    return held


def _too_much(aim: Aim) -> int:
    return int((aim.memory or 256 * _MIB) * 1.6)


@attack
def memory_in_one_process(aim: Aim, loot: Loot) -> None:
    """As much as there is, in one process."""
    held = [_hold(16 * _MIB) for _ in range(_too_much(aim) // (16 * _MIB))]
    linger(1.2)
    loot.got("resident bytes", sum(map(len, held)))


@attack
def memory_over_children(aim: Aim, loot: Loot) -> None:
    """Each child keeps below the limit, all of them together don't."""
    count = 4
    share = _too_much(aim) // count
    reading, writing = os.pipe()

    def keep() -> None:
        held = _hold(share)
        os.write(writing, b"x")
        linger(10)
        del held

    pids = [child(keep) for _ in range(count)]
    os.close(writing)
    got = 0
    while got < count and os.read(reading, 1):
        got += 1
    linger(1.2)
    if got == count and all(os.waitpid(pid, os.WNOHANG)[0] == 0 for pid in pids):
        loot.got("resident bytes over children", got * share)


@attack
def memory_in_nameless_files(aim: Aim, loot: Loot) -> None:
    """memfd_create: pages that belong to no process."""
    total = 0
    for number in range(32):
        fd = os.memfd_create(f"held-{number}")
        for _ in range(_too_much(aim) // 32 // _MIB + 1):
            total += os.write(fd, _PAGE * 256)
    linger(1.2)
    if total > _too_much(aim):
        loot.got("bytes in memfd", total)


@attack
def memory_in_shared_folder(aim: Aim, loot: Loot) -> None:
    """/dev/shm, which is memory too."""
    total = 0
    for number in range(32):
        with open(f"/dev/shm/weft-attack-{aim.token}-{os.getpid()}-{number}", "wb", buffering=0) as file:
            for _ in range(max((aim.disk or 0) * 2, 32 * _MIB) // 32 // _MIB + 1):
                total += file.write(_PAGE * 256)
    linger(0.5)
    if total > (aim.disk or 16 * _MIB) * 1.5:
        loot.got("bytes in /dev/shm", total)


@attack
def memory_in_anonymous_sharing(aim: Aim, loot: Loot) -> None:
    """Shared mappings, which are counted nowhere but where they are touched."""
    mmap = reach("mmap")
    held = []
    for _ in range(_too_much(aim) // (16 * _MIB)):
        one = mmap.mmap(-1, 16 * _MIB)
        for at in range(0, 16 * _MIB, 4096):
            one[at] = 1
        held.append(one)
    linger(1.2)
    loot.got("bytes in shared mappings", len(held) * 16 * _MIB)


@attack
def memory_in_system_v(aim: Aim, loot: Loot) -> None:
    """System V segments, which stay when everybody is gone."""
    made = 0
    while made < 16:
        syscall("shmget", 0, 16 * _MIB, 0o1600)
        made += 1
    loot.got("bytes in System V segments", made * 16 * _MIB)


@attack
def memory_in_pipes(aim: Aim, loot: Loot) -> None:
    """Pipes hold up to a megabyte each, in no process's memory."""
    fcntl = reach("fcntl")
    reading, writing = os.pipe()

    def fill() -> None:
        held, total = [], 0
        try:
            while total < _too_much(aim) // 4:
                one, other = os.pipe2(os.O_NONBLOCK)
                held.append((one, other))
                fcntl.fcntl(other, 1031, _MIB)
                while True:
                    try:
                        total += os.write(other, _PAGE * 16)
                    except BlockingIOError:
                        break
        except OSError:
            pass
        os.write(writing, b"x" * (total // _MIB))
        linger(8)

    for _ in range(4):
        child(fill)
    os.close(writing)
    linger(2.0)
    os.set_blocking(reading, False)
    total = len(os.read(reading, 65536)) * _MIB
    if total >= _too_much(aim) * 0.9:
        loot.got("bytes in pipes", total)


@attack
def memory_in_sockets(aim: Aim, loot: Loot) -> None:
    """Buffers of socket pairs."""
    socket = reach("socket")
    total, held = 0, []
    try:
        while total < _too_much(aim):
            one, other = socket.socketpair()
            held.append((one, other))
            for end in (one, other):
                end.setblocking(False)
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * _MIB)
                try:
                    while True:
                        total += end.send(_PAGE * 16)
                except BlockingIOError:
                    continue
    except OSError:
        pass
    linger(0.5)
    if total >= _too_much(aim):
        loot.got("bytes in sockets", total)


@attack
def address_space(aim: Aim, loot: Loot) -> None:
    """Hundreds of gigabytes that are never touched: page tables and the machine's promises."""
    mmap = reach("mmap")
    held = []
    try:
        while len(held) < 256:
            held.append(mmap.mmap(-1, 1 << 30))
    except OSError:
        pass
    if len(held) == 256:
        loot.got("gibibytes of address space", len(held))


@attack
def processes(aim: Aim, loot: Loot) -> None:
    """A fork bomb, of bounded size."""
    made = []
    try:
        for _ in range((aim.processes or 16) * 3):
            made.append(child(lambda: linger(8)))
    except OSError:
        pass
    linger(1.0)
    alive = sum(os.waitpid(pid, os.WNOHANG)[0] == 0 for pid in made)
    if alive > (aim.processes or 16):
        loot.got("processes", alive)


@attack
def fork_bomb(aim: Aim, loot: Loot) -> None:
    """One that grows by itself: each child forks, in sessions of their own. It ends after seven rounds."""
    reading, writing = os.pipe()
    first = os.getpid()
    for _ in range(7):
        try:
            if os.fork():
                os.write(writing, b"x")
            else:
                os.setsid()
        except OSError:
            break
    if os.getpid() != first:
        linger(8)
        os._exit(0)
    linger(1.0)
    os.set_blocking(reading, False)
    count = len(os.read(reading, 4096))
    if count > (aim.processes or 16) * 2:
        loot.got("processes in a bomb", count)


@attack
def zombies(aim: Aim, loot: Loot) -> None:
    """Children that nobody waits for: each is a place in the kernel's table, of which threads are counted as well."""
    # Where the kernel doesn't count them, the handler allows sixteen for each process.
    made, most = 0, max(aim.threads or 64, (aim.processes or 16) * 16)
    try:
        for _ in range(most * 2):
            child(lambda: None)
            made += 1
    except OSError:
        pass
    linger(2)
    if made > most:
        loot.got("zombies", made)


@attack
def threads(aim: Aim, loot: Loot) -> None:
    """Threads without end."""
    made = 0
    try:
        for _ in range((aim.threads or 64) * 3):
            _thread.start_new_thread(linger, (8,))
            made += 1
    except RuntimeError:
        pass
    linger(1.0)
    if made > (aim.threads or 64):
        loot.got("threads", made)


@attack
def threads_over_children(aim: Aim, loot: Loot) -> None:
    """The same number in each of several children."""
    reading, writing = os.pipe()

    def many() -> None:
        made = 0
        try:
            for _ in range((aim.threads or 64) - 8):
                _thread.start_new_thread(linger, (8,))
                made += 1
        except RuntimeError:
            pass
        os.write(writing, b"x" * made)
        linger(8)

    for _ in range(3):
        child(many)
    os.close(writing)
    linger(1.2)
    os.set_blocking(reading, False)
    count = len(os.read(reading, 65536))
    if count > (aim.threads or 64) * 1.5:
        loot.got("threads over children", count)


@attack
def one_large_file(aim: Aim, loot: Loot) -> None:
    """A file above the limit."""
    wanted = (aim.disk or 16 * _MIB) * 2
    with open("large", "wb", buffering=0) as file:
        total = 0
        while total < wanted:
            total += file.write(_PAGE * 256)
    linger(2)
    loot.got("bytes in a file", total)


@attack
def many_files(aim: Aim, loot: Loot) -> None:
    """Files that are small enough, and together are not."""
    wanted, total = (aim.disk or 16 * _MIB) * 2, 0
    for number in range(64):
        with open(f"part-{number}", "wb", buffering=0) as file:
            for _ in range(wanted // 64 // 65536 + 1):
                total += file.write(_PAGE * 16)
    linger(2)
    if total > wanted:
        loot.got("bytes in files", total)


@attack
def deleted_files(aim: Aim, loot: Loot) -> None:
    """The same in files without a name, which no walk over the folder finds."""
    wanted, total, held = (aim.disk or 16 * _MIB) * 2, 0, []
    for number in range(16):
        file = open(f"gone-{number}", "wb", buffering=0)
        held.append(file)
        os.unlink(f"gone-{number}")
        for _ in range(wanted // 16 // 65536 + 1):
            total += file.write(_PAGE * 16)
    linger(2)
    if total > wanted:
        loot.got("bytes in deleted files", total)


@attack
def inodes(aim: Aim, loot: Loot) -> None:
    """Empty files and folders without end."""
    made = 0
    for number in range(20000):
        if number % 2:
            os.close(os.open(f"i{number}", os.O_CREAT | os.O_WRONLY))
        else:
            os.mkdir(f"i{number}")
        made += 1
    linger(2)
    loot.got("inodes", made)


@attack
def sparse_file(aim: Aim, loot: Loot) -> None:
    """A file that is large and takes no room; it takes room where it is copied."""
    with open("sparse", "wb") as file:
        file.truncate(1 << 40)
    linger(2)
    loot.got("a sparse file", os.stat("sparse").st_size)


@attack
def allocated_file(aim: Aim, loot: Loot) -> None:
    """Room taken without a write."""
    total = 0
    for number in range(8):
        fd = os.open(f"room-{number}", os.O_CREAT | os.O_WRONLY)
        os.posix_fallocate(fd, 0, (aim.disk or 16 * _MIB) // 2)
        total += (aim.disk or 16 * _MIB) // 2
    linger(2)
    loot.got("bytes allocated", total)


@attack
def processor_time_in_children(aim: Aim, loot: Loot) -> None:
    """Children that calculate, each below the limit of a process; processor time of the attempt is theirs together."""

    def burn() -> None:
        end = time.process_time() + (aim.cpu or 2) * 0.7
        while time.process_time() < end:
            pass
        os.write(writing, b"x")

    reading, writing = os.pipe()
    for _ in range(4):
        child(burn)
    os.close(writing)
    count = 0
    while os.read(reading, 1):
        count += 1
    linger(0.4)
    if count == 4:
        loot.got("seconds of processor time", count * (aim.cpu or 2) * 0.7)


@attack
def output_flood(aim: Aim, loot: Loot) -> None:
    """Output without end; the suite counts what was kept."""
    for _ in range(512):
        sys.stdout.write("z" * 65536)
        sys.stderr.write("z" * 65536)


@attack
def log_flood(aim: Aim, loot: Loot) -> None:
    """Lines without end; the suite counts what was kept."""
    for number in range(3000):
        loot._ctx.log(f"flood {number} " + "x" * 500)


@attack
def checkpoint_flood(aim: Aim, loot: Loot) -> None:
    """Checkpoints without end."""
    for number in range(500):
        loot._ctx.checkpoint(f"point-{number}", {"x": "y" * 30000})


@attack
def call_flood(aim: Aim, loot: Loot) -> None:
    """Questions without end."""
    for number in range(300):
        loot._ctx.config.get(f"none-{number}")


@attack
def signal_queue(aim: Aim, loot: Loot) -> None:
    """Queued signals and timers are memory of the kernel that counts for a user."""
    made = 0
    types = reach("ctypes")
    timer = types.CDLL(None).timer_create
    try:
        for _ in range(5000):
            event = types.create_string_buffer(64)
            name = types.c_void_p()
            if timer(1, event, types.byref(name)) != 0:
                break
            made += 1
    except Exception:
        pass
    if made == 5000 and aim.counts_timers:
        loot.got("timers", made)


@attack
def watches(aim: Aim, loot: Loot) -> None:
    """inotify instances are counted for a user: taking them all takes them from others of the same one."""
    libc = reach("ctypes").CDLL(None)
    made = 0
    while made < 2048 and libc.inotify_init1(0) >= 0:
        made += 1
    if made >= 2048:
        loot.got("watches", made)
