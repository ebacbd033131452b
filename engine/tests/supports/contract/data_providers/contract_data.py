"""What `contract-runs` asks for."""

from weft import data_provider


@data_provider(name="contract-names")
def names(count: int) -> list[str]:
    """So many names."""
    return ["name"] * count


@data_provider(name="contract-broken")
def broken() -> list[str]:
    """Always fails."""
    raise ValueError("no good")
