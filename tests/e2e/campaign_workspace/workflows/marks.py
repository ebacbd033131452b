"""Steps of the kill campaign. Each attempt leaves a line in a file of the test's when it begins, and one with what it is
about to return, so that the test knows what was really done, whatever Weft says."""

import json
import os
import time
from typing import Any

from weft import Context, Retry, RetryableError, workflow

AGAIN = Retry(attempts=20, delay_seconds=0.2, max_delay_seconds=1)


def mark(ctx: Context, folder: str, what: str, token: str = "") -> None:
    """One line, in one write: nothing of another process gets in between."""
    line = {
        "what": what,
        "run": ctx.run.id,
        "step": ctx.run.step,
        "key": ctx.run.idempotency_key,
        "attempt": ctx.run.attempt,
        "id": ctx.run.attempt_id,
        "token": token,
    }
    file = os.open(f"{folder}/marks", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
    finally:
        os.close(file)


def work(ctx: Context, folder: str, seconds: float, given: Any = None) -> dict[str, Any]:
    """What every step does: no two attempts return the same."""
    mark(ctx, folder, "begun")
    print(f"begun {ctx.run.attempt_id}", flush=True)
    time.sleep(seconds)
    token = os.urandom(8).hex()
    print(f"made {token}", flush=True)
    mark(ctx, folder, "made", token)
    return {"token": token, "key": ctx.run.idempotency_key, "attempt": ctx.run.attempt, "given": given}


@workflow(retry=AGAIN)
def single(ctx: Context, folder: str, seconds: float = 0.0) -> dict[str, Any]:
    """One step."""
    return work(ctx, folder, seconds)


@workflow(on_crash="fail")
def fragile(ctx: Context, folder: str, seconds: float = 0.0) -> dict[str, Any]:
    """One step that must not be made again."""
    return work(ctx, folder, seconds)


@workflow(retry=AGAIN)
def shaky(ctx: Context, folder: str, seconds: float = 0.0) -> dict[str, Any]:
    """Fails at first."""
    if ctx.run.attempt < 2:
        mark(ctx, folder, "begun")
        raise RetryableError("not yet")
    return work(ctx, folder, seconds)


@workflow(retry=AGAIN)
def remembers(ctx: Context, folder: str, seconds: float = 0.0) -> dict[str, Any]:
    """What the first attempt has kept is what all others find."""
    key = f"campaign-{ctx.run.id}"
    ctx.kv.compare_and_set(key, None, ctx.run.attempt_id)
    made = work(ctx, folder, seconds)
    return {**made, "first": ctx.kv.get(key)}


@workflow(retry=AGAIN)
def starts(ctx: Context, folder: str, seconds: float = 0.0) -> dict[str, Any]:
    """Starts a run and waits for it."""
    child = ctx.runs.start("single", {"folder": folder, "seconds": seconds}, key="only")
    value = ctx.runs.wait(child).value()
    return {**work(ctx, folder, 0), "child": child, "value": value}


@workflow(retry=AGAIN)
def piece(ctx: Context, folder: str, seconds: float = 0.0, given: Any = None) -> dict[str, Any]:
    """A step of a graph."""
    return work(ctx, folder, seconds, given)


@workflow(on_crash="fail")
def fragile_piece(ctx: Context, folder: str, seconds: float = 0.0, given: Any = None) -> dict[str, Any]:
    """A step of a graph that must not be made again."""
    return work(ctx, folder, seconds, given)
