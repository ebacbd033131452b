"""Keys, principals, timers, admin pages, timeouts and chaos seen from the front."""

import asyncio
import base64
import datetime
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from apps import QUICK, golden, http, make_app, queue, running, timer
from standin import principal
from standin.manifest import ManifestError
from standin.timers import Schedule
from standin.times import Times
from waiting import soon

KEYS = {
    "function key of this function": "own-key",
    "host function key (default)": "host-key",
    "master (_master)": "master-key",
    "system key": "system-key",
    "function key of ANOTHER function": "other-key",
    "none": None,
    "wrong": "no-such-key",
}


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()

    def entry(name: str, value: str) -> dict[str, object]:
        return {"name": name, "value": value, "encrypted": False}

    host = {
        "masterKey": entry("master", "master-key"),
        "functionKeys": [entry("default", "host-key")],
        "systemKeys": [entry("ext", "system-key")],
    }
    (folder / "host.json").write_text(json.dumps(host))
    (folder / "level_function.json").write_text(json.dumps({"keys": [entry("default", "own-key")]}))
    (folder / "level_admin.json").write_text(json.dumps({"keys": [entry("default", "own-admin-key")]}))
    (folder / "other.json").write_text(json.dumps({"keys": [entry("default", "other-key")]}))
    return folder


@pytest.fixture
def keyed(tmp_path: Path) -> Path:
    return make_app(
        tmp_path / "app",
        {
            "level_function": http("function", "function"),
            "level_anonymous": http("anonymous", "anonymous"),
            "level_admin": http("admin", "admin_only".replace("admin", "adm")),
        },
    )


ROUTES = {"function": "/api/function", "anonymous": "/api/anonymous", "admin": "/api/adm_only"}


async def test_key_acceptance_table(keyed: Path, secrets: Path) -> None:
    async with running(keyed, secrets=secrets) as azure, running(keyed, auth="coretools") as core_tools:
        for case in golden("72")["cases"]:
            app = core_tools if case.get("host") == "func start" else azure
            target = ROUTES[case.get("route", "function")]
            if case["key"] == "x-functions-key wrong + code= right":
                got = await app.status("GET", target + "?code=own-key", headers={"x-functions-key": "wrong"})
            else:
                names = case["key"].replace("function or host", "host").split(" or ")
                value = KEYS.get(
                    case["key"], KEYS.get(names[0], "host-key" if "host" in case["key"] else None)
                )
                if case["key"] == "master":
                    value = "master-key"
                got = await app.status("GET", target, headers={"x-functions-key": value} if value else {})
                if value:
                    assert await app.status("GET", f"{target}?code={value}") == got
            assert got == (200 if case["status"] == "handler" else case["status"]), case
        async with azure.request("GET", ROUTES["function"]) as response:
            assert (response.status, await response.read()) == (401, b"")


async def test_without_secrets_no_key_is_right(keyed: Path) -> None:
    async with running(keyed) as app:
        assert await app.status("GET", ROUTES["function"], headers={"x-functions-key": "own-key"}) == 401
        assert await app.status("GET", ROUTES["anonymous"], headers={"x-functions-key": "own-key"}) == 200


async def test_identities_in_the_envelope(tmp_path: Path, secrets: Path) -> None:
    extra = {"type": "queue", "direction": "out", "name": "extra", "queueName": "q"}
    root = make_app(tmp_path / "app", {"level_function": [*http(route="x"), extra]})

    async def identity(app: Any, **headers: str) -> Any:
        await app.status("GET", "/api/x", headers=headers)
        return app.calls()[-1]["envelope"]["Data"]["req"]["Identities"]

    async with running(root, secrets=secrets) as app:
        assert await identity(app) == golden("31")["request"]["body"]["Data"]["req"]["Identities"]
        assert await identity(app, **{"x-functions-key": "bogus"}) == await identity(app)
        (found,) = await identity(app, **{"x-functions-key": "own-key"})
        assert found == golden("30")["request"]["body"]["Data"]["req"]["Identities"][0]
    async with running(root, auth="coretools") as app:
        wanted = golden("33")["request"]["body"]["Data"]["req"]["Identities"]
        assert await identity(app, **{"x-functions-key": "bogus"}) == wanted
        assert (await identity(app))[0]["IsAuthenticated"] is False


async def test_principal_headers_pass_when_nothing_stands_in_front(tmp_path: Path) -> None:
    forged = golden("60")["value"]
    async with running(make_app(tmp_path, {"api": http()})) as app:
        await app.status("GET", "/api/x", headers={"X-MS-CLIENT-PRINCIPAL": forged})
        assert dict(app.calls()[0]["headers"])["X-MS-CLIENT-PRINCIPAL"] == forged


async def test_app_service_strips_and_sets_principal_headers(tmp_path: Path) -> None:
    case = golden("61")
    async with running(make_app(tmp_path, {"api": http()}), easyauth="on") as app:
        assert app.journal()[0]["env"]["WEBSITE_AUTH_ENABLED"] == "True"
        forged = {"X-MS-CLIENT-PRINCIPAL": "forged", "x-ms-token-aad-id-token": "forged"}
        await app.status("GET", "/api/x", headers=forged)
        assert not [name for name, _ in app.calls()[-1]["headers"] if name.lower().startswith("x-ms-client")]
        assert "forged" not in dict(app.calls()[-1]["headers"]).values()
        await app.status("GET", "/api/x", headers={**forged, "Cookie": "AppServiceAuthSession=ada"})
        seen = dict(app.calls()[-1]["headers"])
        assert json.loads(base64.b64decode(seen["X-MS-CLIENT-PRINCIPAL"])) == case["decoded"]
        for name, value in case["headers"].items():
            if name != "X-MS-CLIENT-PRINCIPAL":
                assert seen[name] == value


async def test_static_web_apps_set_their_own(tmp_path: Path) -> None:
    case = golden("60")
    people = {"ada": replace(principal.ADA, roles=("runner",))}
    async with running(make_app(tmp_path, {"api": http()}), easyauth="swa", people=people) as app:
        headers = {
            "Cookie": "StaticWebAppsAuthCookie=ada",
            "Authorization": "Bearer mine",
            "x-ms-client-principal": "f",
        }
        await app.status("GET", "/api/x?y=1", headers=headers)
        seen = {name.lower(): value for name, value in app.calls()[-1]["headers"]}
        assert json.loads(base64.b64decode(seen["x-ms-client-principal"])) == case["decoded"]
        assert seen["authorization"] != "Bearer mine"
        assert seen["x-ms-original-url"] == f"{app.host.url}/api/x?y=1"
        assert "x-ms-client-principal-id" not in seen
        await app.status("GET", "/api/x", headers={"x-ms-client-principal": "forged"})
        assert "x-ms-client-principal" not in {name.lower() for name, _ in app.calls()[-1]["headers"]}
        assert await app.status("GET", "/api/x", headers={"X-Standin-Direct": "1"}) == 401


async def test_the_host_itself_fails_on_a_principal_that_is_not_base64(tmp_path: Path) -> None:
    env = {"WEBSITE_AUTH_ENABLED": "true"}
    async with running(make_app(tmp_path, {"api": http()}), env) as app:
        for value, status in (("!!!", 500), (golden("61")["headers"]["X-MS-CLIENT-PRINCIPAL"], 200)):
            assert await app.status("GET", "/api/x", headers={"x-ms-client-principal": value}) == status


def test_parsed_principals() -> None:
    on = {"WEBSITE_AUTH_ENABLED": "True"}
    easyauth = principal.parse_identity(golden("61")["headers"]["X-MS-CLIENT-PRINCIPAL"], on)
    assert easyauth is not None
    assert easyauth["AuthenticationType"] == "aad"
    assert easyauth["Claims"][3]["Value"] == "Runner"
    swa = principal.parse_identity(golden("60")["value"], on)
    assert swa is not None
    assert swa["Name"] == "user@example.com"
    assert principal.parse_identity(golden("60")["value"], {}) is None


# Timers.


@pytest.mark.parametrize(
    ("schedule", "after", "due"),
    [
        ("0 * * * * *", "2026-11-20T23:10:00", "2026-11-20T23:11:00"),
        ("0 */5 * * * *", "2026-11-20T23:58:01", "2026-11-21T00:00:00"),
        ("30 9-17/4 * * mon-fri", "2026-11-20T17:31:00", "2026-11-23T09:30:00"),
        ("0 0 0 1 1 *", "2026-11-20T17:31:00", "2027-01-01T00:00:00"),
        ("5,10 * * * * *", "2026-11-20T17:31:05", "2026-11-20T17:31:10"),
        ("00:02:00", "2026-11-20T17:31:05", "2026-11-20T17:33:05"),
    ],
)
def test_schedules(schedule: str, after: str, due: str) -> None:
    parsed = Schedule.parse(schedule)
    start = datetime.datetime.fromisoformat(after).replace(tzinfo=datetime.UTC)
    assert parsed.after(start).isoformat() == due + "+00:00"


@pytest.mark.parametrize("schedule", ["60 * * * * *", "* * *", "x * * * * *"])
def test_bad_schedules(schedule: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Schedule.parse(schedule)


async def test_timers_fire_with_a_status(tmp_path: Path) -> None:
    root = make_app(tmp_path, {"tick": timer("0 * * * * *"), "often": timer("*/10 * * * * *")})
    async with running(root, times=replace(QUICK, timer_unit=0.005)) as app:
        await soon(lambda: len(app.calls("tick")) >= 2 and app.calls("often"), "two ticks")
        first, second = (call["envelope"]["Data"]["timer"] for call in app.calls("tick")[:2])
        assert first["ScheduleStatus"]["Last"].startswith("0001-01-01T00:00:00")
        last = datetime.datetime.fromisoformat(second["ScheduleStatus"]["Last"])
        upcoming = datetime.datetime.fromisoformat(second["ScheduleStatus"]["Next"])
        assert last < upcoming
        assert upcoming.second == 0
        assert second["IsPastDue"] is False
        assert set(app.calls("tick")[0]["envelope"]["Metadata"]) == {"sys"}
        assert app.calls("often")[0]["envelope"]["Data"]["timer"]["ScheduleStatus"] is None


# Admin.


async def test_admin_trigger(tmp_path: Path, azurite: Any, secrets: Path) -> None:
    root = make_app(
        tmp_path / "app", {"api": http(), "work": queue("admin-queue"), "tick": timer("0 0 0 1 1 *")}
    )
    env = {"AzureWebJobsStorage": azurite.connection_string}
    async with running(root, env, secrets=secrets, listeners=False) as app:
        master = {"x-functions-key": "master-key"}

        async def trigger(name: str, text: str, headers: dict[str, str]) -> int:
            return await app.status("POST", f"/admin/functions/{name}", json={"input": text}, headers=headers)

        assert await trigger("work", "hello", {}) == 401
        assert await trigger("work", "hello", {"x-functions-key": "host-key"}) == 401
        assert await trigger("nothing", "", master) == 404
        assert await trigger("work", "hello", master) == 202
        assert await trigger("tick", "", master) == 202
        await soon(lambda: app.calls("work") and app.calls("tick"), "both calls")
        assert app.calls("work")[0]["text"] == "hello"
        assert await trigger("api", "", master) == 202
        await app.host.log.wait_for(lambda r: "can't be triggered" in r.message, 10)


async def test_admin_status(tmp_path: Path) -> None:
    async with running(make_app(tmp_path, {"api": http()})) as app:
        async with app.request("GET", "/admin/host/status") as response:
            assert (await response.json())["state"] == "Running"
        assert await app.status("GET", "/admin/host/status", headers={"X-ARR-LOG-ID": "1"}) == 401
        assert await app.status("GET", "/admin/functions") == 401
        assert app.calls() == []


async def test_a_queue_function_needs_its_connection(tmp_path: Path) -> None:
    root = make_app(tmp_path, {"work": queue("q", connection="NoSuchSetting")})
    with pytest.raises(ManifestError, match="NoSuchSetting"):
        async with running(root):
            pass


# Timeouts and misfortune over HTTP.


async def test_function_timeout_kills_the_handler(tmp_path: Path) -> None:
    root = make_app(tmp_path, {"api": http()}, {"functionTimeout": "00:00:01"})
    async with running(root) as app:
        pid = app.host.process.pid
        async with app.request("GET", f"/api/stream?path={tmp_path / 'never'}") as streaming:
            assert await app.status("GET", "/api/stall") == 500
            with pytest.raises(Exception, match=r"."):
                await streaming.content.read()
        await app.host.process.wait_ready(30)
        assert app.host.process.exits == [137]
        assert app.host.process.pid != pid
        assert {i.status for i in app.host.invocations.finished} == {"timed_out", "failed"}
        assert app.host.stop_reason is None


async def test_the_grace_period_lets_an_invocation_finish(tmp_path: Path) -> None:
    root = make_app(tmp_path, {"api": http()}, {"functionTimeout": "00:00:01"})
    gate = tmp_path / "gate"
    async with running(root, times=replace(QUICK, timeout_grace=20.0)) as app:
        request = asyncio.create_task(app.status("GET", f"/api/gate?path={gate}"))
        await asyncio.wait({request}, timeout=1.3)
        gate.touch()
        assert await request == 200
        assert app.host.process.exits == []


async def test_a_dropped_connection_after_the_request_was_sent(tmp_path: Path) -> None:
    async with running(make_app(tmp_path, {"api": http()})) as app:
        app.host.chaos.arm({"drop_after_send": 1})
        assert await app.status("PUT", "/api/x", data=b"x") == 500
        await soon(lambda: len(app.calls()) == 1, "the request arrived all the same")
        app.host.chaos.arm({"drop_after_send": 1})
        assert await app.status("GET", "/api/y") == 200
        await soon(lambda: len(app.calls()) == 3, "twice")


async def test_killed_while_it_answers_http(tmp_path: Path) -> None:
    async with running(make_app(tmp_path, {"api": http()}), times=Times()) as app:
        app.host.chaos.arm({"kill_mid_job": {"function": "*"}})
        assert await app.status("POST", "/api/stall", data=b"x") == 500
        assert await app.status("GET", "/api/x") == 200
        assert app.host.process.exits == [137]


async def test_a_delayed_start(tmp_path: Path) -> None:
    from standin.chaos import Chaos

    chaos = Chaos(start_delay=0.5)
    async with running(make_app(tmp_path, {"api": http()}), ready=False, chaos=chaos) as app:
        assert app.host.process.pid is None
        assert await app.status("GET", "/api/x") == 200


async def test_unknown_misfortune(tmp_path: Path) -> None:
    async with running(make_app(tmp_path, {"api": http()})) as app:
        assert await app.status("POST", "/admin/standin/chaos", json={"flood": 1}) == 400
        assert await app.status("POST", "/admin/standin/chaos", json={"drop_after_send": 1}) == 202
        assert app.host.chaos.drop_after_send == 1
        assert await app.status("POST", "/admin/standin/kill") == 202
        await soon(lambda: app.host.process.exits == [137], "killed")
