"""`ctx.artifacts`: named outputs of a run, for people and for its later steps."""

from __future__ import annotations

import os
from binascii import a2b_base64, b2a_base64
from typing import TYPE_CHECKING, Any, cast

from ._errors import TooLarge, WeftError

if TYPE_CHECKING:
    from ._context import Link
    from ._signature import File

ARTIFACT_BYTES = 32 * 1024 * 1024


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
    """Named outputs of the run. One has at most 32 MiB, all of a run at most 256 MiB.

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
        """Keep bytes, or the file at a path (a `str` is a path; encode text first), under `name`."""
        if isinstance(content, (str, os.PathLike)):
            size = os.stat(content).st_size
            _check_size(name, size)
            with open(content, "rb") as file:
                data = file.read(ARTIFACT_BYTES + 1)
        else:
            data = bytes(content)
        _check_size(name, len(data))
        # On use: most steps write none, and every fork would pay for it.
        from hashlib import sha256

        begun = self._link.call(
            "artifacts.begin", {"name": name, "size": len(data), "media_type": media_type}
        )
        upload, piece = begun["upload"], begun["piece_bytes"]
        for offset in range(0, len(data), piece):
            text = b2a_base64(data[offset : offset + piece], newline=False).decode("ascii")
            self._link.call("artifacts.append", {"upload": upload, "offset": offset, "data": text})
        digest = sha256(data).hexdigest()
        return Artifact(self._link.call("artifacts.commit", {"upload": upload, "sha256": digest}))

    def read(self, name: str | None = None, *, id: str | None = None) -> bytes:
        """The bytes of the artifact of this name (the newest), or of this id. Raises `NotFound`."""
        from hashlib import sha256

        first = self._link.call("artifacts.read", {"name": name, "id": id, "offset": 0})
        data = bytearray(a2b_base64(first["data"]))
        while len(data) < first["size"]:
            more = self._link.call("artifacts.read", {"id": first["id"], "offset": len(data)})
            piece = a2b_base64(more["data"])
            if not piece:
                break
            data += piece
        if sha256(data).hexdigest() != first["sha256"]:
            raise WeftError(f"artifact {first['name']!r:.80} is not what was written")
        return bytes(data)

    def content(self, file: File | dict[str, Any]) -> bytes:
        """The bytes of a `file`: of the artifact that it names, or those that it has itself."""
        if "data" in file:
            return a2b_base64(file["data"])
        return self.read(id=file["artifact"])

    def list(self) -> _Listed:
        """The artifacts of the run, by name, and of one name the newest first."""
        return [Artifact(data) for data in self._link.call("artifacts.list", {})]


def _check_size(name: str, size: int) -> None:
    if size > ARTIFACT_BYTES:
        raise TooLarge(f"artifact {name!s:.60} has {size} bytes; the limit is {ARTIFACT_BYTES}: split it")
