"""The command line of the runtime: `zygote` is all that it knows."""

from __future__ import annotations

import sys


def main() -> None:
    """Run what the last argument names."""
    if sys.argv[-1] != "zygote":
        sys.exit(
            "weft_runtime is started by the handler, with the argument `zygote` and a socket on descriptor 0"
        )
    from .zygote import main as serve

    serve()


if __name__ == "__main__":
    main()
