"""Attacks for more rights: other users, capabilities, programs that grant them. See weft's `attacking`."""

from attacking import Aim, Loot, armed, attack, child, ctypes, read, run_program, syscall

os = armed("os")

struct = armed("struct")


@attack
def is_root(aim: Aim, loot: Loot) -> None:
    """Who it is to begin with, as the machine sees it."""
    maps = "0 0 4294967295"
    try:
        maps = " ".join(read("/proc/self/uid_map").decode().split())
    except OSError:
        pass
    if os.geteuid() == 0 and maps.endswith("0 0 4294967295"):
        loot.got("runs as root")
    elif 0 in os.getresuid() and maps.split()[1:2] == ["0"]:
        loot.got("root of the machine by its map", maps)
    if os.getgroups() and 0 in os.getgroups() and maps.endswith("0 0 4294967295"):
        loot.got("groups", os.getgroups())
    if aim.handler_is_root and os.geteuid() == 0:
        loot.got("the handler's user")


@attack
def becomes_others(aim: Aim, loot: Loot) -> None:
    """setuid to root, to the handler's user, to the next slot's."""
    me = os.getuid()
    for uid in {0, aim.uid or 0, me + 1, me - 1, 65534} - {me}:
        for name, call in {
            "setuid": lambda uid=uid: os.setuid(uid),
            "setresuid": lambda uid=uid: os.setresuid(uid, uid, uid),
            "seteuid": lambda uid=uid: os.seteuid(uid),
            "setgid": lambda uid=uid: os.setgid(uid),
            "setgroups": lambda uid=uid: os.setgroups([uid]),
            "raw setuid": lambda uid=uid: syscall("setuid", uid),
        }.items():
            loot.attempt(f"{name} to {uid}", lambda call=call: _in_child(call))


def _in_child(action) -> str:  # type: ignore[no-untyped-def]
    return "done" if os.waitpid(child(action), 0)[1] == 0 else ""


@attack
def becomes_root_itself(aim: Aim, loot: Loot) -> None:
    """The same without a fork."""
    loot.attempt("setuid(0)", lambda: os.getuid() != 0 and (os.setuid(0) or "root"))
    loot.attempt("setgid(0)", lambda: os.getgid() != 0 and (os.setgid(0) or "root's group"))


@attack
def capabilities(aim: Aim, loot: Loot) -> None:
    """Capabilities had, taken, made ambient."""
    types = ctypes()
    # In a user namespace of its own these would mean little; none is what a worker has to have.
    for line in read("/proc/self/status").decode().splitlines():
        if line.startswith(("CapEff", "CapPrm", "CapInh", "CapAmb")) and int(line.split()[1], 16):
            loot.got("has", line)
    header = types.create_string_buffer(struct.pack("=Ii", 0x20080522, 0))
    data = types.create_string_buffer(struct.pack("=6I", 1 << 21, 1 << 21, 1 << 21, 0, 0, 0))
    loot.attempt("capset", lambda: syscall("capset", header, data) == 0 and "set")
    loot.attempt("ambient", lambda: syscall("prctl", 47, 2, 21, 0, 0) == 0 and "raised")
    loot.attempt("securebits", lambda: syscall("prctl", 28, 0x2F, 0, 0, 0) == 0 and "set")
    loot.attempt("keeps them", lambda: syscall("prctl", 8, 1, 0, 0, 0) == 0 and any(_bits()) and "kept")


def _bits() -> list[int]:
    return [
        int(line.split()[1], 16)
        for line in read("/proc/self/status").decode().splitlines()
        if line.startswith("CapPrm")
    ]


@attack
def programs(aim: Aim, loot: Loot) -> None:
    """Programs with the set-user-id bit, which no_new_privs disarms."""
    loot.attempt("su", lambda: "root" in run_program("/bin/su", "root", "-c", "echo root") and "root")
    loot.attempt("sudo", lambda: run_program("/usr/bin/sudo", "-n", "id"))
    loot.attempt("a planted program", lambda: _root_by(aim.suid_program))
    loot.attempt(
        "newuidmap", lambda: run_program("/usr/bin/newuidmap", str(os.getpid()), "0", "0", "1") and "mapped"
    )
    loot.attempt(
        "unshare", lambda: "0" in run_program("/usr/bin/unshare", "-r", "id", "-u") and "root in a namespace"
    )
    loot.attempt("mount", lambda: run_program("/usr/bin/mount", "-t", "tmpfs", "none", ".") or "")
    loot.attempt("pkexec", lambda: run_program("/usr/bin/pkexec", "id"))


def _root_by(program: str | None) -> str:
    """A copy of `id` that belongs to root with the bit set, made by the suite."""
    seen = run_program(program, "-u") if program else ""
    return f"uid {seen}" if seen and seen == "0" != str(os.geteuid()) else ""


@attack
def makes_programs(aim: Aim, loot: Loot) -> None:
    """Bits and capabilities on files of its own, for somebody else to run later."""

    def marked() -> str:
        with open("mine", "wb") as file:
            file.write(b"#!/bin/sh\n")
        os.chmod("mine", 0o4755)
        return (
            "root's set-user-id file"
            if os.stat("mine").st_mode & 0o4000 and os.stat("mine").st_uid == 0 and os.geteuid() == 0
            else ""
        )

    loot.attempt("set-user-id", marked)
    data = struct.pack("=5I", 0x02000001, 1 << 21, 0, 0, 0)
    loot.attempt(
        "file capabilities",
        lambda: (open("mine", "ab").close(), os.setxattr("mine", "security.capability", data), "set")[2],
    )
    loot.attempt("trusted attribute", lambda: os.setxattr("mine", "trusted.attack", b"1") or "set")
    loot.attempt("given away", lambda: os.getuid() != 0 and (os.chown("mine", 0, 0) or "root's"))
