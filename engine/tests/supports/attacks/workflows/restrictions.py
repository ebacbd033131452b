"""What only a trusted step may do: other processes, sockets, files. Run as a restricted one. See weft's `attacking`.

The names of modules are hygiene; what counts is what the kernel lets the step do once it has them.
"""

from attacking import Aim, Loot, armed, attack, child, reach, run_program, syscall, write

os = armed("os")


@attack
def modules(aim: Aim, loot: Loot) -> None:
    """Modules outside of the list, by import statements: other ways to them are no wall, and tried by all attackers."""
    for name in (
        "subprocess",
        "socket",
        "ctypes",
        "multiprocessing",
        "_posixsubprocess",
        "_socket",
        "_ctypes",
        "pty",
        "urllib.request",
        "http.client",
        "pathlib",
        "os",
        "sys",
        "gc",
        "importlib",
    ):
        loot.attempt(name, lambda name=name: exec(f"import {name}", globals()) or "imported")


@attack
def forks(aim: Aim, loot: Loot) -> None:
    """A process of its own, by every call."""
    loot.attempt("fork", lambda: os.waitpid(child(lambda: None), 0))
    loot.attempt("spawn", lambda: os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0))
    loot.attempt("clone", lambda: _cloned(17))
    loot.attempt("vfork", lambda: _cloned(17 | 0x4000))


def _cloned(flags: int) -> int:
    pid = syscall("clone", flags, 0, 0, 0, 0)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


@attack
def runs_programs(aim: Aim, loot: Loot) -> None:
    """Programs."""
    for command in (
        ("/bin/sh", "-c", "echo in"),
        ("/usr/bin/id",),
        ("/usr/bin/env",),
        ("/lib64/ld-linux-x86-64.so.2", "/usr/bin/id"),
    ):
        loot.attempt(command[0], run_program, *command)


@attack
def becomes_program(aim: Aim, loot: Loot) -> None:
    """execve in place: what comes out of it is the find, and the suite looks for it in the output."""
    for path in ("/bin/sh", "/usr/bin/python3"):
        try:
            os.execv(
                path,
                [
                    path,
                    "-c",
                    "echo CANARY-0123456789abcdef"
                    if path.endswith("sh")
                    else "print('CANARY-0123456789abcdef')",
                ],
            )
        except OSError:
            continue


@attack
def sockets(aim: Aim, loot: Loot) -> None:
    """Sockets of any family but AF_UNIX, which reaches nobody where it is there."""
    for family in (2, 10, 16, 17, 40):
        loot.attempt(
            f"family {family}",
            lambda family=family: reach("socket").socket(family, 1 if family != 17 else 3).fileno(),
        )
        loot.attempt(f"raw family {family}", lambda family=family: syscall("socket", family, 1, 0))


@attack
def writes(aim: Aim, loot: Loot) -> None:
    """Files outside of its own folder."""
    for folder in ("/tmp", "/var/tmp", "/dev/shm", "/", os.path.dirname(os.getcwd())):
        try:
            path = write(f"{folder}/weft-attack-{aim.token}-restricted")
        except Exception:
            continue
        # Its own /tmp is its folder by another name.
        if not os.path.exists(os.path.basename(path)):
            loot.got("written", path)


@attack
def own_code(aim: Aim, loot: Loot) -> None:
    """Machine code of its own, from a file."""
    try:
        write("code.so", b"\x7fELF")
        reach("ctypes").CDLL(os.path.abspath("code.so"))
    except OSError as error:
        if "file too short" in str(error) and False:
            loot.got("a library of its own is read", str(error))
    except Exception:
        return
