"""`ctx.kv`: small values that a workflow keeps from run to run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._json import check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._context import Link


class KeyValue:
    """Small JSON values under keys, shared by all runs of a workflow in an organization, and by nobody else.

    A value has at most 32 KiB as JSON, a key at most 256 characters, a workflow at most 10,000 keys. An
    attempt writes at most 100 times a second on the long run; what comes faster is slowed down.
    """

    __slots__ = ("_link",)

    def __init__(self, link: Link) -> None:
        self._link = link

    def get(self, key: str, default: Any = None) -> Any:
        """The value of `key`, or `default` where there is none or it has expired."""
        value = self._link.call("kv.get", {"key": key})
        return default if value is None else value

    def set(self, key: str, value: Any, ttl_seconds: float | None = None) -> None:
        """Keep `value` under `key`, for `ttl_seconds` where given. Raises `TooLarge` over a limit."""
        check(value, f"the value of {key!s:.60}")
        self._link.call("kv.set", {"key": key, "value": value, "ttl_seconds": ttl_seconds})

    def compare_and_set(self, key: str, expected: Any, value: Any, ttl_seconds: float | None = None) -> bool:
        """Keep `value` if the present one is `expected` (None: there is none); whether it was kept.

        Of several runs that do this at the same time with the same `expected`, one succeeds.
        """
        check(expected, "expected")
        check(value, f"the value of {key!s:.60}")
        args = {"key": key, "expected": expected, "value": value, "ttl_seconds": ttl_seconds}
        return bool(self._link.call("kv.compare_and_set", args))

    def delete(self, key: str) -> bool:
        """Remove `key`; whether it was there."""
        return bool(self._link.call("kv.delete", {"key": key}))

    def list(self, prefix: str = "") -> Iterator[str]:
        """The keys that begin with `prefix`, sorted, fetched as they are taken."""
        after: str | None = None
        while True:
            page = self._link.call("kv.list", {"prefix": prefix, "after": after})
            yield from page["keys"]
            if not page["more"]:
                return
            after = page["keys"][-1]
