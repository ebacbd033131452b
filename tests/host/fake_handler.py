"""A custom handler that does as it is told, for the tests of the stand-in host itself.

Every request is written to the file named by ``FAKE_JOURNAL``, one JSON object a line. ``FAKE_START`` says
how to behave at the start: ``exit:N``, ``never`` (opens no port) or ``reset`` (drops the first connection).
An HTTP path under ``/api/`` names an action; a queue message or admin input is JSON ``{"do": ..., ...}``.
"""

import asyncio
import json
import os
import signal
import sys
import time
from urllib.parse import parse_qs, urlsplit

from aiohttp import web

JOURNAL = os.environ.get("FAKE_JOURNAL", os.devnull)
OK = {"Outputs": {}, "Logs": [], "ReturnValue": None}
_seen: dict[str, int] = {}
_NO_TYPE = web.RequestKey("no_content_type", bool)


def _note(**record):
    with open(JOURNAL, "a") as journal:
        journal.write(json.dumps({"pid": os.getpid(), "time": time.monotonic(), **record}) + "\n")


def _cut(request):
    request.transport.abort()
    return web.Response()


async def _gate(path):
    while not os.path.exists(path):
        await asyncio.sleep(0.01)


async def _api(request, body, query):
    action = urlsplit(request.raw_path).path.removeprefix("/api").strip("/").split("/")[0]
    if action == "drop":
        # Acts, then loses the connection so many times.
        count = _seen["drop"] = _seen.get("drop", 0) + 1
        if count <= int(query.get("times", "1")):
            return _cut(request)
    elif action == "exit":
        os._exit(int(query["code"]))
    elif action == "stall":
        await asyncio.Event().wait()
    elif action == "print":
        stream = sys.stderr if query["to"] == "stderr" else sys.stdout
        print(body.decode(), file=stream, flush=True)
    elif action == "gate":
        await _gate(query["path"])
    elif action == "stream":
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Keep-Alive": "x"})
        await answer.prepare(request)
        await answer.write(b"event: a\ndata: 1\n\n")
        if "path" in query:
            await _gate(query["path"])
        if "cut" in query:
            return _cut(request)
        if "stall" in query:
            await asyncio.Event().wait()
        await answer.write(b"event: done\ndata: {}\n\n")
        await answer.write_eof()
        return answer
    elif action == "odd":
        headers = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Alt-Svc", "h3"), ("X-Own", "yes")]
        return web.Response(status=302, headers=[("Location", "/elsewhere"), *headers])
    elif action == "empty":
        return web.Response(status=204)
    return web.json_response({"target": request.raw_path, "length": len(body)})


async def _do(request, text):
    try:
        order = json.loads(text)
    except ValueError:
        order = {}
    if not isinstance(order, dict):
        order = {}
    match order.get("do"):
        case "fail":
            return web.json_response(OK, status=500)
        case "flaky":
            # Fails so many times per message, counted across restarts by the journal.
            with open(JOURNAL) as journal:
                before = sum(json.loads(line).get("text") == text for line in journal)
            return web.json_response(OK, status=500 if before <= order["times"] else 200)
        case "answer":
            headers = {"Content-Type": order["contentType"]} if order.get("contentType") else {}
            answer = web.Response(status=order["status"], body=order["body"].encode(), headers=headers)
            if not order.get("contentType"):
                answer.headers.popall("Content-Type", None)
                request[_NO_TYPE] = True
            return answer
        case "hang":
            await asyncio.Event().wait()
        case "gate":
            await _gate(order["path"])
        case "exit":
            os._exit(order["code"])
        case "drop":
            return _cut(request)
        case "redirect":
            return web.Response(status=302, headers={"Location": "/landed"})
        case "log":
            return web.json_response({"Outputs": {}, "Logs": order["lines"], "ReturnValue": None})
        case "output":
            return web.json_response({"Outputs": order["outputs"], "Logs": []})
    return web.json_response(OK)


async def _handle(request):
    body = await request.read()
    path = urlsplit(request.raw_path).path
    if path == "/":
        _note(probe=True, headers=list(request.headers.items()))
        return web.Response(text="up")
    if path == "/landed":
        return web.json_response(OK)
    record = {
        "method": request.method,
        "target": request.raw_path,
        "headers": list(request.headers.items()),
        "body": body.decode("latin-1"),
    }
    if path.startswith("/api/"):
        _note(**record)
        query = {key: values[0] for key, values in parse_qs(urlsplit(request.raw_path).query).items()}
        return await _api(request, body, query)
    envelope = json.loads(body)
    value = next(iter(envelope["Data"].values()))
    text = json.loads(value) if isinstance(value, str) and value.startswith('"') else ""
    if isinstance(value, dict) and "Body" in value:
        text = value["Body"]
    _note(**record, function=path[1:], envelope=envelope, text=text)
    return await _do(request, text)


async def _no_content_type(request, response):
    if request.get(_NO_TYPE):
        response.headers.popall("Content-Type", None)


async def _serve():
    app = web.Application(client_max_size=1 << 28)
    app.router.add_route("*", "/{tail:.*}", _handle)
    app.on_response_prepare.append(_no_content_type)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", int(os.environ["FUNCTIONS_CUSTOMHANDLER_PORT"])).start()
    await asyncio.Event().wait()


async def _reset_once():
    async def drop(_, writer):
        writer.transport.abort()
        dropped.set()

    dropped = asyncio.Event()
    port = int(os.environ["FUNCTIONS_CUSTOMHANDLER_PORT"])
    server = await asyncio.start_server(drop, "127.0.0.1", port)
    await dropped.wait()
    server.close()
    await server.wait_closed()


def main():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _note(start=True, env=dict(os.environ), argv=sys.argv[1:], cwd=os.getcwd())
    start = os.environ.get("FAKE_START", "")
    if start.startswith("exit:"):
        print("last words", file=sys.stderr, flush=True)
        sys.exit(int(start.removeprefix("exit:")))
    if start == "never":
        signal.pause()
    if start == "reset":
        asyncio.run(_reset_once())
    asyncio.run(_serve())


if __name__ == "__main__":
    main()
