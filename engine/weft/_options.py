"""Where the options of a parameter come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ._errors import DeclarationError


class Options:
    """The data provider that offers the values of a parameter, in its annotation or in `@param(options=…)`.

        city: Annotated[str, Options("cities", {"country": "country"})]

    provider: its name: one of the workspace's, or one of the engine's, as `weft.time_zones`.
    inputs: which of its inputs another parameter of the same function gives, as input: parameter. A form asks
    it again when one of these changes.
    strict: whether a run is refused whose value is none of the options, as they are when it starts.
    """

    __slots__ = ("inputs", "provider", "strict")

    def __init__(
        self, provider: str, inputs: Mapping[str, str] | None = None, *, strict: bool = False
    ) -> None:
        if not isinstance(provider, str) or not provider:
            raise DeclarationError(f"Options: provider={provider!r:.80} must be the name of a data provider")
        given = {} if inputs is None else inputs
        if not isinstance(given, Mapping) or not all(
            isinstance(name, str) and isinstance(source, str) for name, source in given.items()
        ):
            raise DeclarationError(
                'Options: inputs must be a dict of names, as in {"country": "country"}, the input and the '
                f"parameter that gives it; not {inputs!r:.80}"
            )
        if not isinstance(strict, bool):
            raise DeclarationError(f"Options: strict={strict!r:.80} must be True or False")
        self.provider = provider
        self.inputs = dict(given)
        self.strict = strict

    def to_json(self) -> dict[str, Any]:
        """As the engine reads it."""
        return {"provider": self.provider, "inputs": self.inputs, "strict": self.strict}

    def __repr__(self) -> str:
        return f"Options({self.provider!r}, {self.inputs!r}, strict={self.strict})"
