"""What a step is answered, written down call by call: the same for the engine's broker and for `weft.testing`.

`tests/golden/broker_contract.json` is what both must say. A refusal is noted as the exception's name.
"""

from collections.abc import Callable
from typing import Any

from weft import Context, WeftError, workflow


def _said(call: Callable[..., Any], *args: Any, **named: Any) -> Any:
    try:
        return call(*args, **named)
    except WeftError as error:
        return type(error).__name__


@workflow(name="contract-pairs")
def pairs(ctx: Context) -> dict[str, Any]:
    """`ctx.kv`."""
    kv, ask = ctx.kv, ctx._link.call
    found: dict[str, Any] = {"none": _said(kv.get, "a", 7)}
    kv.set("a", {"n": 1})
    found["kept"] = kv.get("a")
    found["swap with another"] = kv.compare_and_set("a", {"n": 2}, 3)
    found["swap"] = kv.compare_and_set("a", {"n": 1}, 3)
    found["swap into nothing"] = kv.compare_and_set("b", None, [1])
    found["swap into something"] = kv.compare_and_set("b", None, [2])
    kv.set("b/ä?", "x", ttl_seconds=60)
    kv.set("c", False)
    found["keys"] = list(kv.list())
    found["keys below"] = list(kv.list("b"))
    found["page"] = ask("kv.list", {"prefix": "", "after": "a", "limit": 1})
    found["delete"] = [kv.delete("a"), kv.delete("a"), kv.get("a"), kv.get("c")]
    for name, call in {
        "null": lambda: kv.set("a", None),
        "large": lambda: kv.set("a", "x" * 32_767),
        "large enough": lambda: kv.set("a", "x" * 32_766),
        "no key": lambda: kv.get(""),
        "long key": lambda: kv.get("k" * 257),
        "long enough key": lambda: kv.get("k" * 256, "none"),
        "wide key": lambda: kv.get("ä" * 65),
        "wide enough key": lambda: kv.get("ä" * 64, "none"),
        "slashes": lambda: kv.get("/" * 256, "none"),
        "no time to live": lambda: kv.set("a", 1, ttl_seconds=0),
        "endless time to live": lambda: kv.set("a", 1, ttl_seconds=1e12),
        "swap for null": lambda: kv.compare_and_set("a", 1, None),
        "whose": lambda: ask("kv.get", {"key": "a", "organization": "fabrikam"}),
        "nothing": lambda: ask("kv.get", {}),
        "unknown": lambda: ask("kv.empty", {}),
        "nobody": lambda: ask("nosuch.call", {}),
    }.items():
        found[name] = _said(call)
    return found


@workflow(name="contract-artifacts")
def artifacts(ctx: Context) -> dict[str, Any]:
    """`ctx.artifacts`."""
    kept, ask = ctx.artifacts, ctx._link.call
    first = kept.write("report ä.txt", b"one", media_type="text/plain")
    again = kept.write("report ä.txt", b"one")
    other = kept.write("report ä.txt", b"two")
    kept.write("empty", b"")
    found: dict[str, Any] = {
        "same": first.id == again.id,
        "other": first.id == other.id,
        "size": first.size,
        "digest": first.sha256,
        "type": first.media_type,
        "step": first.step,
        "newest": kept.read("report ä.txt").decode(),
        "older": kept.read(id=first.id).decode(),
        "empty": kept.read("empty").decode(),
        "listed": [[one.name, one.size] for one in kept.list()],
    }
    begun = [ask("artifacts.begin", {"name": f"n{number}", "size": 2})["upload"] for number in range(4)]
    found["pieces"] = ask("artifacts.append", {"upload": begun[0], "offset": 0, "data": "eA=="})
    for name, call in {
        "fifth": lambda: ask("artifacts.begin", {"name": "n5", "size": 2}),
        "unfinished": lambda: ask("artifacts.commit", {"upload": begun[0], "sha256": "00"}),
        "gap": lambda: ask("artifacts.append", {"upload": begun[1], "offset": 1, "data": "eA=="}),
        "too much": lambda: ask("artifacts.append", {"upload": begun[2], "offset": 0, "data": "eHh4"}),
        "no base64": lambda: ask("artifacts.append", {"upload": begun[3], "offset": 0, "data": "?"}),
        "no upload": lambda: ask("artifacts.append", {"upload": 77, "offset": 0, "data": "eA=="}),
        "path": lambda: kept.write("../x", b""),
        "no name": lambda: kept.write(" ", b""),
        "long name": lambda: kept.write("n" * 201, b""),
        "type with a line": lambda: kept.write("x", b"", media_type="text/plain\n"),
        "huge": lambda: ask("artifacts.begin", {"name": "x", "size": (32 << 20) + 1}),
        "missing": lambda: kept.read("missing"),
        "missing id": lambda: kept.read(id="art_" + "0" * 26),
        "neither": lambda: ask("artifacts.read", {"offset": 0}),
        "both": lambda: ask("artifacts.read", {"name": "a", "id": "b"}),
    }.items():
        found[name] = _said(call)
    return found


@workflow(name="contract-child")
def child(ctx: Context, name: str) -> dict[str, Any]:
    """What `contract-runs` starts."""
    if name == "fails":
        raise ValueError("no good")
    return {"name": name}


@workflow(name="contract-runs")
def runs(ctx: Context) -> dict[str, Any]:
    """`ctx.runs` and `ctx.data`."""
    start, ask = ctx.runs.start, ctx._link.call
    one = start("contract-child", {"name": "one"}, key="k")
    two = start("contract-child", {"name": "fails"})
    failed = ctx.runs.wait(two)
    return {
        "value": ctx.runs.wait(one).value(),
        "workflow": ctx.runs.get(one).workflow,
        "repeated": ask("runs.start", {"workflow": "contract-child", "inputs": {"name": "one"}, "key": "k"})[
            "repeated"
        ],
        "same": start("contract-child", {"name": "one"}, key="k") == one,
        "failed": [failed.status, failed.error],
        "value of a failed one": _said(failed.value),
        "other inputs": _said(start, "contract-child", {"name": "two"}, key="k"),
        "unknown": _said(start, "nosuch"),
        "no key": _said(start, "contract-child", {"name": "x"}, key=""),
        "long key": _said(start, "contract-child", {"name": "x"}, key="k" * 257),
        "itself": _said(ctx.runs.wait, ctx.run.id),
        "no id": _said(ctx.runs.get, "x"),
        "no run": _said(ctx.runs.get, "run_" + "0" * 26),
        "no time": _said(ask, "runs.wait", {"id": one, "timeout_seconds": -1}),
        "data": ctx.data.get("contract-names", {"count": 2}),
        "unknown data": _said(ctx.data.get, "nosuch"),
        "data that fails": _said(ctx.data.get, "contract-broken"),
    }


@workflow(name="contract-asks", secrets=["API_KEY"], network=["api.example.com", "*.example.org:8443"])
def asks(ctx: Context) -> dict[str, Any]:
    """`ctx.config`, `ctx.secrets`, and what `ctx.http` refuses before it asks anybody."""
    get, ask = ctx.http.get, ctx._link.call
    return {
        "config": ctx.config.get("nosuch", "default"),
        "needed config": _said(lambda: ctx.config["nosuch"]),
        "undeclared secret": _said(ctx.secrets.get, "OTHER"),
        "undeclared handle": _said(ctx.secrets.handle, "OTHER"),
        "missing secret": _said(ctx.secrets.get, "API_KEY"),
        "missing in another spelling": _said(ctx.secrets.get, "api-key"),
        "no name": _said(ctx.secrets.get, "a b"),
        "other host": _said(get, "https://other.example.com/"),
        "other port": _said(get, "https://api.example.com:8443/"),
        "not below": _said(get, "https://example.org:8443/"),
        "no address": _said(get, "api.example.com"),
        "other scheme": _said(get, "ftp://api.example.com/"),
        "user": _said(get, "https://user:word@api.example.com/"),
        "host header": _said(get, "https://api.example.com/", headers={"Host": "x"}),
        "method": _said(ctx.http.request, "CONNECT", "https://api.example.com/"),
        "no handle": _said(
            ask, "http.request", {"method": "GET", "url": "https://api.example.com/", "auth": "x"}
        ),
        "both bodies": _said(ctx.http.post, "https://api.example.com/", json=1, body="x"),
    }


@workflow(name="contract-many")
def many(ctx: Context) -> dict[str, Any]:
    """How many runs an attempt starts, and how many calls it makes."""
    refused = ""
    started = 0
    for number in range(101):
        refused = _said(ctx.runs.start, "contract-child", {"name": "x"}, key=str(number % 3))
        started += refused.startswith("run_")
    count = started + 1
    while True:
        said = _said(ctx._link.call, "config.get", {"key": "x"})
        if said is not None:
            return {"runs": started, "then": refused, "calls": count, "last": said}
        count += 1
