"""`ctx.artifacts`: named outputs of a run, for people and for its later steps."""

from __future__ import annotations

import os
from binascii import a2b_base64, b2a_base64
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, cast

from ._errors import WeftError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._context import Link
    from ._signature import File

# What is read of a file at once.
BLOCK = 1024 * 1024


class Artifact:
    """A named output: `id`, `name`, `size`, `sha256`, `media_type`, `step`, `created_at` (ISO 8601)."""

    __slots__ = ("created_at", "id", "media_type", "name", "sha256", "size", "step")

    def __init__(self, data: dict[str, Any]) -> None:
        self.id: str = data["id"]
        self.name: str = data["name"]
        self.size: int = data["size"]
        self.sha256: str = data["sha256"]
        self.media_type: str | None = data.get("media_type")
        self.step: str = data.get("step") or ""
        self.created_at: str = data.get("created_at") or ""

    def as_file(self) -> File:
        """What a step gives to another one as a `file`."""
        file: dict[str, Any] = {
            "artifact": self.id,
            "name": self.name,
            "size": self.size,
            "sha256": self.sha256,
        }
        if self.media_type:
            file["media_type"] = self.media_type
        return cast("File", file)

    def __repr__(self) -> str:
        return f"Artifact({self.name!r}, {self.size} bytes, id={self.id!r})"


# Inside the class, `list` is its method.
_Listed = list[Artifact]


class Artifacts:
    """Named outputs of the run. One has at most 256 MiB, all of a run at most 1 GiB, unless set otherwise.

    Writing the same content under the same name again changes nothing, so a repeated attempt does no harm.
    Another content under the same name is another artifact; reading by name gives the newest.
    """

    __slots__ = ("_link",)

    def __init__(self, link: Link) -> None:
        self._link = link

    def write(
        self,
        name: str,
        content: bytes | bytearray | memoryview | str | os.PathLike[str],
        media_type: str | None = None,
    ) -> Artifact:
        """Keep bytes, or the file at a path (a `str` is a path; encode text first), under `name`.

        A file is read twice, in pieces, and never held as a whole.
        """
        if isinstance(content, (str, os.PathLike)):
            with open(content, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                return self._write(name, media_type, size, file)
        # A view where it can be one: the content is not copied.
        data = memoryview(content)
        data = data.cast("B") if data.contiguous and data.nbytes else memoryview(bytes(data))
        return self._write(name, media_type, data.nbytes, _View(data))

    def _write(self, name: str, media_type: str | None, size: int, source: _Source) -> Artifact:
        # On use: most steps write none, and every fork would pay for it.
        from hashlib import sha256

        digest = sha256()
        while block := source.read(BLOCK):
            digest.update(block)
        sum = digest.hexdigest()
        begun = self._link.call(
            "artifacts.begin", {"name": name, "size": size, "media_type": media_type, "sha256": sum}
        )
        upload, piece = begun["upload"], begun["piece_bytes"]
        source.seek(0)
        offset = 0
        while data := source.read(piece):
            text = b2a_base64(data, newline=False).decode("ascii")
            self._link.call("artifacts.append", {"upload": upload, "offset": offset, "data": text})
            offset += len(data)
        return Artifact(self._link.call("artifacts.commit", {"upload": upload, "sha256": sum}))

    def read(self, name: str | None = None, *, id: str | None = None) -> bytes:
        """The bytes of the artifact of this name (the newest), or of this id. Raises `NotFound`."""
        data = bytearray()
        self._read(name, id, data.extend)
        return bytes(data)

    def save(
        self, path: str | os.PathLike[str], name: str | None = None, *, id: str | None = None
    ) -> Artifact:
        """Write the artifact of this name (the newest), or of this id, to a file, piece by piece.

        Raises `NotFound`. What is at the path is replaced when all of it is there, and else stays.
        """
        part = f"{os.fspath(path)}.part"
        try:
            with open(part, "wb") as file:
                artifact = self._read(name, id, file.write)
            os.replace(part, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(part)
            raise
        return artifact

    def _read(self, name: str | None, id: str | None, take: Callable[[bytes], object]) -> Artifact:
        from hashlib import sha256

        first = piece = self._link.call("artifacts.read", {"name": name, "id": id, "offset": 0})
        digest, there = sha256(), 0
        while data := a2b_base64(piece["data"]):
            digest.update(data)
            take(data)
            there += len(data)
            if there >= first["size"]:
                break
            piece = self._link.call("artifacts.read", {"id": first["id"], "offset": there})
        if digest.hexdigest() != first["sha256"]:
            raise WeftError(f"artifact {first['name']!r:.80} is not what was written")
        return Artifact(first)

    def content(self, file: File | dict[str, Any]) -> bytes:
        """The bytes of a `file`: of the artifact that it names, or those that it has itself."""
        if "data" in file:
            return a2b_base64(file["data"])
        return self.read(id=file["artifact"])

    def list(self) -> _Listed:
        """The artifacts of the run, by name, and of one name the newest first."""
        return [Artifact(data) for data in self._link.call("artifacts.list", {})]


class _Source(Protocol):
    def read(self, size: int, /) -> bytes | memoryview: ...
    def seek(self, offset: int, /) -> int: ...


class _View:
    """A file of bytes that are there, which copies none."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._at = 0

    def read(self, size: int, /) -> memoryview:
        piece = self._data[self._at : self._at + size]
        self._at += len(piece)
        return piece

    def seek(self, offset: int, /) -> int:
        self._at = offset
        return offset
