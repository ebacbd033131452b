"""A workflow that takes its time, so that a test can interrupt it."""

import time

from weft import Context, param, workflow


@workflow(description="Waits, then says so.", category="Tests")
@param("seconds", help="How long.")
def slow(ctx: Context, seconds: float = 1.0) -> dict[str, float]:
    """Sleep that long."""
    ctx.log(f"waiting {seconds} s")
    time.sleep(seconds)
    return {"slept": seconds}
