"""`ctx.secrets`: values that the workflow declares, or handles that stand for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._json import check

if TYPE_CHECKING:
    from ._context import Link


class Handle:
    """Stands for a secret on requests of `ctx.http`, in one attempt; the value stays in the engine."""

    __slots__ = ("_id", "name")

    def __init__(self, name: str, id: str) -> None:
        self.name = name
        self._id = id

    def __repr__(self) -> str:
        return f"Handle({self.name!r})"


class Secrets:
    """The organization's secrets, as far as `@workflow(secrets=[…])` names them."""

    __slots__ = ("_link",)

    def __init__(self, link: Link) -> None:
        self._link = link

    def get(self, name: str) -> str:
        """The value. From here on it is masked in everything that the step says, its result included; a
        `handle` keeps it from the step altogether.

        Raises Denied where the workflow doesn't declare it, NotFound where the organization has none.
        """
        check(name, "the secret's name")
        value: str = self._link.call("secrets.get", {"name": name})
        return value

    def handle(self, name: str) -> Handle:
        """Something to put on requests in place of the value: `ctx.http.request(…, auth=handle)`.

        Raises Denied where the workflow doesn't declare it, NotFound where the organization has none.
        """
        check(name, "the secret's name")
        return Handle(name, self._link.call("secrets.handle", {"name": name}))

    def __repr__(self) -> str:
        return "Secrets()"
