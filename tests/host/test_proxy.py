"""Raw mode: headers, repeats, streaming, idle limit."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from apps import QUICK, golden, http, make_app, running
from standin import HOST_VERSION, proxy
from waiting import soon


def app_root(tmp_path: Path, **host_json: Any) -> Path:
    return make_app(tmp_path / "app", {"api": http()}, host_json)


def test_header_rules_by_golden_request() -> None:
    case = golden("40")
    seen = proxy.request_headers(
        case["from"]["headers"].items(), port=7, peer="10.1.2.3", scheme="https", invocation="GUID"
    )
    wanted = {}
    for name, value in case["request"]["headers"].items():
        value = (
            value.replace("{port}", "7")
            .replace("{peer}", "10.1.2.3")
            .replace("4.1052.200.26400", HOST_VERSION)
        )
        wanted[name] = value.replace(case["expect"]["invocationId"], "GUID")
    assert dict(seen) == wanted
    assert len(seen) == len(wanted)
    names = {name.lower() for name, _ in seen}
    assert not names & {name.lower() for name in case["expect"]["absent"]}


async def test_what_the_handler_sees(tmp_path: Path) -> None:
    case = golden("40")["from"]
    async with running(app_root(tmp_path), trust_forwarded_proto=True) as app:
        sent = {**case["headers"], "TE": "trailers", "Proxy-Authorization": "x", "X-Forwarded-Prefix": "/p"}
        async with app.request("POST", case["target"], data=case["body"], headers=sent) as response:
            assert response.status == 200
            assert (await response.json())["target"] == case["target"]
        (call,) = app.calls()
        assert call["body"] == case["body"]
        seen = {name.lower(): value for name, value in call["headers"]}
        assert seen["host"] == f"127.0.0.1:{app.host.process.port}"
        assert seen["x-forwarded-for"] == "127.0.0.1"
        assert seen["x-forwarded-host"] == "app.azurewebsites.net"
        assert seen["x-forwarded-proto"] == "https"
        assert seen["x-azure-functions-invocationid"] == seen["x-ms-invocation-id"] != "forged"
        assert seen["x-functions-key"] == "bogus"
        assert seen["user-agent"] == "curl/8"
        for name in ("connection", "te", "proxy-authorization", "forwarded", "x-forwarded-prefix", "accept"):
            # The test's own client adds Accept; everything else must be gone.
            assert (name in seen) == (name == "accept"), name


async def test_scheme_is_not_believed_by_default(tmp_path: Path) -> None:
    async with running(app_root(tmp_path)) as app:
        await app.status("GET", "/api/x", headers={"X-Forwarded-Proto": "https"})
        assert dict(app.calls()[0]["headers"])["X-Forwarded-Proto"] == "http"


async def test_only_routes_of_the_app_reach_the_handler(tmp_path: Path) -> None:
    async with running(app_root(tmp_path)) as app:
        for target in ("/drive_run", "/api/../drive_run", "/api/%2e%2e/drive_run", "/apix", "//api/x"):
            async with app.request("POST", target, data=b"{}") as response:
                assert (response.status, await response.read()) == (404, b""), target
        assert await app.status("GET", "/") == 200
        assert app.calls() == []


async def test_response_passes_but_for_hop_by_hop_headers(tmp_path: Path) -> None:
    async with running(app_root(tmp_path)) as app:
        async with app.request("GET", "/api/odd") as response:
            assert response.status == 302
            assert response.headers["Location"] == "/elsewhere"
            assert response.headers.getall("Set-Cookie") == ["a=1", "b=2"]
            assert response.headers["X-Own"] == "yes"
            assert "Alt-Svc" not in response.headers
        async with app.request("GET", "/api/empty") as response:
            assert response.status == 204
            assert "Content-Type" not in response.headers
        async with app.request("HEAD", "/api/x") as response:
            assert response.status == 200
            assert int(response.headers["Content-Length"]) > 0
            assert await response.read() == b""


async def test_bodyless_requests_are_repeated_with_the_same_id(tmp_path: Path) -> None:
    async with running(app_root(tmp_path)) as app:
        assert await app.status("GET", "/api/drop?times=3") == 200
        calls = app.calls()
        assert len(calls) == 4
        assert len({dict(call["headers"])["X-Azure-Functions-InvocationId"] for call in calls}) == 1


async def test_the_host_gives_up_after_ten_attempts(tmp_path: Path) -> None:
    async with running(app_root(tmp_path)) as app:
        assert await app.status("DELETE", "/api/drop?times=99") == 500
        assert len(app.calls()) == proxy.MAX_ATTEMPTS


async def test_requests_with_a_body_are_not_repeated(tmp_path: Path) -> None:
    async with running(app_root(tmp_path)) as app:
        assert await app.status("POST", "/api/drop?times=1", data=b"x") == 500
        assert len(app.calls()) == 1


async def test_chunked_bodies_arrive_whole(tmp_path: Path) -> None:
    async def pieces() -> Any:
        for _ in range(20):
            yield b"y" * 50_000

    async with running(app_root(tmp_path)) as app, app.request("POST", "/api/x", data=pieces()) as response:
        assert json.loads(await response.read())["length"] == 1_000_000


async def test_large_bodies_are_refused_by_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "BODY_LIMIT", 1000)
    async with running(app_root(tmp_path)) as app:
        assert await app.status("POST", "/api/x", data=b"z" * 1001) == 413
        assert app.calls() == []


async def test_responses_are_streamed(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with running(app_root(tmp_path)) as app, app.request("GET", f"/api/stream?path={gate}") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        assert "Keep-Alive" not in response.headers
        assert await response.content.readany() == b"event: a\ndata: 1\n\n"
        gate.touch()
        assert await response.content.read() == b"event: done\ndata: {}\n\n"


async def test_a_lost_stream_cuts_the_client_off(tmp_path: Path) -> None:
    async with running(app_root(tmp_path)) as app, app.request("GET", "/api/stream?cut=1") as response:
        assert response.status == 200
        with pytest.raises(aiohttp.ClientError):
            await response.content.read()


async def test_idle_handlers_are_given_up_on(tmp_path: Path) -> None:
    async with running(app_root(tmp_path), times=replace(QUICK, proxy_idle=0.3)) as app:
        assert await app.status("GET", "/api/stall") == 500
        assert len(app.calls()) == 1
        async with app.request("GET", "/api/stream?stall=1") as response:
            with pytest.raises(aiohttp.ClientError):
                await response.content.read()


async def test_a_client_that_leaves_is_noticed(tmp_path: Path) -> None:
    async with running(app_root(tmp_path)) as app:
        request = asyncio.create_task(app.status("GET", "/api/stall"))
        await soon(app.calls, "request at the handler")
        request.cancel()
        await asyncio.gather(request, return_exceptions=True)
        await soon(lambda: not app.host.invocations.active, "invocation abandoned")
        assert app.host.invocations.finished[-1].status == "abandoned"


async def test_disabled_functions_are_not_found(tmp_path: Path) -> None:
    async with running(app_root(tmp_path), {"AzureWebJobs.api.Disabled": "true"}) as app:
        assert await app.status("GET", "/api/x") == 404
        assert app.calls() == []
