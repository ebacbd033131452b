"""The root folder that workers see: the interpreter and the system's libraries, read-only, an `/etc` with
nothing of this machine, and places for what is a worker's own.

Built once, in the zygote's own mount namespace, on a small file system in memory. Paths are those of the
real root, so that a path means the same inside and outside.

A worker's own mounts lie below `/jail/ro` and `/jail/rw`: a Landlock rule on a folder holds for what is
mounted below it as well, so that one ruleset serves all workers although each mounts its own.
"""

from __future__ import annotations

import os

from .kernel import MS_BIND, MS_NODEV, MS_NOSUID, MS_REC, Kernel

LAYER = "mount_namespace"

OWN = "/jail/rw/own"
"""Where a worker mounts its own file system."""
SCRATCH = OWN + "/step"
"""A worker's own folder: working directory, HOME, TMPDIR and /tmp."""
SHARED_MEMORY = OWN + "/shm"
PROC = "/jail/ro/proc"
SEEN = "/jail/seen"
"""Where folders are shown whose own place is taken by a link."""
PROBE = "/jail/outside"
"""A file that no rule names: whoever can read it is not confined."""

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
COPIED = (
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/mime.types",
    "/etc/os-release",
    "/etc/protocols",
    "/etc/services",
)
BOUND = ("/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/pki", "/etc/ca-certificates", "/etc/alternatives")
_DEVICES = ("null", "zero", "full", "random", "urandom")
_LINKS = {
    # Of the new root, where both are a worker's own.
    "/tmp": SCRATCH,  # noqa: S108
    "/proc": PROC,
    "/dev/shm": SHARED_MEMORY,  # noqa: S108
    "/dev/fd": "/proc/self/fd",
    "/dev/stdin": "/proc/self/fd/0",
    "/dev/stdout": "/proc/self/fd/1",
    "/dev/stderr": "/proc/self/fd/2",
}
_WRITTEN = {
    "/etc/passwd": "root:x:0:0:root:/:/usr/sbin/nologin\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
    "/etc/group": "root:x:0:\nnogroup:x:65534:\n",
    "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "/etc/hostname": "step\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
    # Answered by the handler, whatever the address; over TCP, because it answers connections only.
    "/etc/resolv.conf": "nameserver 192.0.2.53\noptions use-vc timeout:10 attempts:1\n",
    PROBE: "outside\n",
}


class Root:
    """The folder under which the new root is put together; seen by the zygote and its children only."""

    _links: dict[str, str]

    def __init__(self, kernel: Kernel, place: str, read: list[str], hidden: list[str]) -> None:
        """Builds it at `place`. `read`: what else is readable; `hidden`: what is never, even below those."""
        self._kernel = kernel
        self.place = place
        kernel.mount(
            LAYER, "weft-root", place, "tmpfs", MS_NOSUID | MS_NODEV, "size=4m,nr_inodes=4096,mode=755"
        )
        for path in (OWN, PROC, SEEN, "/etc", "/dev"):
            self._folder(path)
        shown = [(path, True) for path in (*SYSTEM, *read, *BOUND)]
        # Outer folders first, so that what is hidden in a shown one stays hidden, and the other way round.
        for path, is_shown in sorted(
            shown + [(path, False) for path in hidden], key=lambda entry: len(entry[0])
        ):
            if is_shown:
                self._show(path)
            else:
                self._hide(path)
        for path in COPIED:
            self._copy(path)
        for path, text in _WRITTEN.items():
            self._write(path, text.encode())
        for name in _DEVICES:
            self._device(name)
        # From here on nothing is made below a link: seen from here it leads into the real root.
        self._links = {
            path: target
            for path, target in _LINKS.items()
            if not any(one.startswith(path + "/") for one in read)
        }
        for path, target in self._links.items():
            os.symlink(target, place + path)

    def inside(self, path: str) -> str:
        """Where a worker sees a folder of the real root: at the same path, unless a worker's own folder is
        there."""
        if any(path.startswith(link + "/") for link in self._links):
            return SEEN + path
        return path

    def show(self, path: str) -> None:
        """In a worker's mount namespace: a folder of the real root, read-only. Its mount point has been made
        by `make_room`."""
        target = self.place + self.inside(path)
        self._kernel.mount(LAYER, path, target, None, MS_BIND | MS_REC)
        self._kernel.make_read_only(LAYER, target)

    def make_room(self, path: str) -> None:
        """In the zygote: the mount point for `show`."""
        self._way_to(self.inside(path))

    def own(self) -> list[str]:
        """What Landlock allows to read of what was made here."""
        return [self.place + path for path in ("/etc", "/jail/ro")]

    def devices(self) -> list[str]:
        """What Landlock allows to read and write to."""
        return [self.place + "/dev"]

    def writable(self) -> str:
        """Where Landlock allows everything."""
        return self.place + "/jail/rw"

    def _way_to(self, path: str) -> None:
        """A folder that is mounted over, and those above it: gone through, and not listed by others, so that
        no path of the machine can be read off."""
        before = os.umask(0o066)
        try:
            os.makedirs(self.place + path, mode=0o711, exist_ok=True)
        finally:
            os.umask(before)

    def _folder(self, path: str) -> None:
        os.makedirs(self.place + path, mode=0o755, exist_ok=True)

    def _show(self, path: str) -> None:
        if os.path.islink(path) and path in SYSTEM:
            # Merged /usr: /lib is a link into it.
            os.symlink(os.readlink(path), self.place + path)
            return
        if not os.path.exists(path):
            return
        if os.path.isdir(path):
            self._way_to(path)
        else:
            self._write(path, b"")
        self._kernel.mount(LAYER, path, self.place + path, None, MS_BIND | MS_REC)
        self._kernel.make_read_only(LAYER, self.place + path)

    def _hide(self, path: str) -> None:
        if not os.path.isdir(self.place + path):
            return
        self._kernel.mount(
            LAYER,
            "weft-hidden",
            self.place + path,
            "tmpfs",
            MS_NOSUID | MS_NODEV,
            "size=1m,nr_inodes=1024,mode=755",
        )

    def _copy(self, path: str) -> None:
        try:
            with open(path, "rb") as file:
                self._write(path, file.read(1 << 20))
        except OSError:
            # Conveniences all of them; not every system has each.
            pass

    def _write(self, path: str, content: bytes) -> None:
        self._folder(os.path.dirname(path))
        with open(self.place + path, "wb") as file:
            file.write(content)
        os.chmod(self.place + path, 0o644)

    def _device(self, name: str) -> None:
        self._write("/dev/" + name, b"")
        self._kernel.mount(LAYER, "/dev/" + name, self.place + "/dev/" + name, None, MS_BIND)
