"""`ctx.data`: data providers of the workspace, asked by a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._json import check

if TYPE_CHECKING:
    from ._context import Link


class Data:
    """Data providers. Each call runs the provider's code in a process of its own, at most 30 seconds."""

    __slots__ = ("_link",)

    def __init__(self, link: Link) -> None:
        self._link = link

    def get(self, provider: str, inputs: dict[str, Any] | None = None) -> Any:
        """What the data provider returns. A data provider itself can't ask another one."""
        inputs = dict(inputs or {})
        check(inputs, "inputs")
        return self._link.call("data.get", {"provider": provider, "inputs": inputs})
