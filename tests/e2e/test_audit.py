"""What leaves a record: every call with a key before anything happens, every refusal, every change; or the call fails."""

import base64
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from weft import Answer, Weft, problem, until, weft


def principal(user: str) -> str:
    """As Static Web Apps sends it."""
    claims = {
        "identityProvider": "aad",
        "userId": user,
        "userDetails": f"{user}@contoso.example",
        "userRoles": ["authenticated"],
    }
    return base64.b64encode(json.dumps(claims).encode()).decode()


def as_user(user: str) -> dict[str, str | None]:
    return {"x_functions_key": None, "X_MS_CLIENT_PRINCIPAL": principal(user)}


def platform_records(one: Weft) -> list[dict[str, Any]]:
    """Records of the platform, which no route shows yet: their plain part, from the database."""
    found = []
    with sqlite3.connect(f"file:{one.data}/weft.db?mode=ro", uri=True) as database:
        rows = database.execute(
            "SELECT props FROM entity JOIN tables ON tables.id = entity.tbl "
            "WHERE tables.name = 'WeftAudit' AND partition LIKE 'audit:%' AND row LIKE 'audit:%' ORDER BY row"
        )
        for (column,) in rows:
            text = column[column.index(b'{"id":"aud_') :].decode(errors="replace")
            found.append(json.JSONDecoder().raw_decode(text)[0])
    return found


def by_request(records: list[dict[str, Any]], request: str) -> list[dict[str, Any]]:
    return [record for record in records if record.get("requestId", record.get("request_id")) == request]


def test_a_key_leaves_a_warning_before_anything_happens(shared: Weft) -> None:
    answer = shared.execute(
        "echo",
        {"value": 1},
        X_User_Id="ada@example.org",
        X_Request_Id="request-of-the-audit-test",
        User_Agent="the-tests/1.0",
        X_MS_CLIENT_PRINCIPAL=principal("ann"),
    )
    assert answer.status == 200, answer
    mine = by_request(shared.audit(), "request-of-the-audit-test")
    assert {record["event"] for record in mine} == {"key.bypass", "run.started", "run.finished"}, mine
    [bypass] = [record for record in mine if record["event"] == "key.bypass"]
    assert (bypass["level"], bypass["outcome"], bypass["organization"]) == ("warning", "allowed", "contoso")
    assert (bypass["keyName"], bypass["claimedUser"]) == ("weft-dev", "ada@example.org")
    assert (bypass["sourceAddress"], bypass["sourceAddressVerified"]) == ("127.0.0.1", True)
    assert bypass["userAgent"] == "the-tests/1.0"
    assert "ann" in bypass["alsoPrincipal"]
    assert bypass["endpoint"] == "POST /api/workflows/echo/execute"
    assert bypass["resource"] == {"kind": "organization", "id": "contoso"}
    started, finished = (
        next(r for r in mine if r["event"] == event) for event in ("run.started", "run.finished")
    )
    assert bypass["at"] <= started["at"] <= finished["at"]
    assert started["claimedUser"] == "ada@example.org"
    assert started["resource"] == {"kind": "run", "id": answer.json["runId"]}
    assert answer.json["requester"]["claimedUser"] == "ada@example.org"


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/runs"),
        ("GET", "/workflows"),
        ("GET", "/audit"),
        ("GET", "/runs/run_01m7xwwbv9r8d8dys0ss4qqzy4"),
    ],
)
def test_every_call_with_a_key_leaves_one(shared: Weft, method: str, target: str) -> None:
    request = f"every-call-{time.monotonic_ns()}"
    shared.call(method, target, X_Request_Id=request)
    [record] = by_request(shared.audit("&event=key.bypass"), request)
    assert (record["level"], record["sourceAddress"], record["keyName"]) == (
        "warning",
        "127.0.0.1",
        "weft-dev",
    )


def test_a_forwarded_address_is_marked_as_unverified(shared: Weft) -> None:
    for header, shown in (("203.0.113.9, 10.0.0.1", "203.0.113.9"), ("<script>", "127.0.0.1")):
        request = f"forwarded-{time.monotonic_ns()}"
        shared.call(
            "GET",
            "/runs",
            X_Request_Id=request,
            X_Forwarded_For=header,
            X_Azure_Functions_InvocationId="7f8d3b1e-0000-4000-8000-000000000001",
        )
        [record] = by_request(shared.audit("&event=key.bypass"), request)
        assert (record["sourceAddress"], record["sourceAddressVerified"]) == (shown, False)
    # Without a host in front, the header is a stranger's claim.
    request = f"forwarded-{time.monotonic_ns()}"
    shared.call("GET", "/runs", X_Request_Id=request, X_Forwarded_For="203.0.113.9")
    [record] = by_request(shared.audit("&event=key.bypass"), request)
    assert (record["sourceAddress"], record["sourceAddressVerified"]) == ("127.0.0.1", True)


@pytest.mark.parametrize(
    ("headers", "status", "code", "credential"),
    [
        ({"x_functions_key": None}, 403, "credentials_missing", "none"),
        ({"x_functions_key": "wrong"}, 401, "key_invalid", "key"),
        ({"x_functions_key": None, "X_MS_CLIENT_PRINCIPAL": "%%%"}, 401, "principal_malformed", "principal"),
        (as_user("nobody"), 403, "user_unknown", "principal"),
        ({"X_Organization_Id": "nobody"}, 404, "organization_not_found", "key"),
        ({"X_Organization_Id": "northwind"}, 403, "organization_inactive", "key"),
        ({**as_user("ben"), "X_Organization_Id": "fabrikam"}, 404, "organization_not_found", "principal"),
    ],
)
def test_whoever_is_turned_away_is_on_record(
    shared: Weft, headers: dict[str, str | None], status: int, code: str, credential: str
) -> None:
    request = f"turned-away-{time.monotonic_ns()}"
    answer = shared.call("POST", "/workflows/echo/execute", {"value": "no"}, X_Request_Id=request, **headers)
    assert (answer.status, answer.json["code"]) == (status, code), answer
    records = until(lambda: by_request(platform_records(shared), request), "its record")
    [record] = records
    assert (record["event"], record["outcome"], record["level"]) == ("access.denied", "denied", "warning"), (
        record
    )
    assert record["detail"]["problem"] == code
    assert credential in record["detail"]["presented"], record
    assert record["endpoint"] == "POST /api/workflows/echo/execute"


def test_a_right_that_is_missing_is_on_record_in_the_organization(shared: Weft) -> None:
    created = weft(
        "keys",
        "create",
        "reader",
        "-s",
        "run:read",
        "-s",
        "run:list",
        "-o",
        "contoso",
        "--json",
        "--data",
        shared.data,
    ).json
    request = f"may-not-{time.monotonic_ns()}"
    answer = shared.execute("echo", {"value": 1}, x_functions_key=created["key"], X_Request_Id=request)
    problem(answer, 403, "not_permitted")
    events = {record["event"]: record for record in by_request(shared.audit(), request)}
    assert set(events) == {"key.bypass", "access.denied"}, events
    denied = events["access.denied"]
    assert (denied["level"], denied["outcome"], denied["keyName"]) == ("warning", "denied", "reader")
    assert denied["sourceAddress"] == "127.0.0.1"
    assert denied["detail"]["problem"] == "not_permitted"
    problem(
        shared.call("GET", "/status", x_functions_key=created["key"], X_Request_Id=request),
        403,
        "not_permitted",
    )
    platform = {record["event"] for record in by_request(platform_records(shared), request)}
    assert platform == {"key.bypass", "access.denied"}, platform
    assert shared.call("GET", "/runs", x_functions_key=created["key"]).status == 200
    other = shared.call("GET", "/runs", x_functions_key=created["key"], X_Organization_Id="fabrikam")
    problem(other, 403, "key_not_for_organization")


def test_people_leave_no_bypass_and_administrators_a_crossing(shared: Weft) -> None:
    request = f"person-{time.monotonic_ns()}"
    answer = shared.execute("echo", {"value": 1}, X_Request_Id=request, **as_user("ben"))
    assert answer.status == 200, answer
    assert answer.json["requester"]["kind"] == "user"
    assert {r["event"] for r in by_request(shared.audit(), request)} == {"run.started", "run.finished"}
    crossing = f"crossing-{time.monotonic_ns()}"
    assert shared.call("GET", "/runs", X_Request_Id=crossing, **as_user("eve")).status == 200
    [record] = by_request(shared.audit(), crossing)
    assert (record["event"], record["level"]) == ("access.crossed", "warning")
    assert record["person"], record


def test_a_cancellation_says_by_whom(shared: Weft) -> None:
    run = shared.begin("hangs")
    until(lambda: shared.log(run), "it runs")
    assert shared.call("POST", f"/runs/{run}/cancel", X_User_Id="somebody").status == 200
    [record] = shared.audit(f"&resource={run}&event=run.cancelled")
    assert (record["claimedUser"], record["outcome"]) == ("somebody", "succeeded")
    assert record["sourceAddress"] == "127.0.0.1"


@pytest.fixture
def unwritable(make: Any) -> Iterator[Weft]:
    """An instance that can read its data and not write it: another program keeps the write lock."""
    one = make().start()
    one.lives()
    other = sqlite3.connect(one.data / "weft.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield one
    other.execute("ROLLBACK")
    other.close()
    one.lives()


def test_without_its_record_a_call_with_a_key_does_nothing(unwritable: Weft, tmp_path: Path) -> None:
    path = tmp_path / "n"
    asks: list[Callable[[], Answer]] = [
        lambda: unwritable.execute("counts", {"path": str(path)}),
        # Reading would be possible, and is refused all the same.
        lambda: unwritable.call("GET", "/runs"),
        # So is an administrator's step into an organization.
        lambda: unwritable.call("GET", "/runs", **as_user("eve")),
        # A refusal is a refusal, recorded or not.
        lambda: unwritable.call("GET", "/runs", x_functions_key="wrong"),
        # A member who reads leaves no record, and may.
        lambda: unwritable.call("GET", "/runs", **as_user("ben")),
    ]
    with ThreadPoolExecutor(len(asks)) as pool:
        *closed, refused, read = pool.map(lambda ask: ask(), asks)
    for answer in closed:
        problem(answer, 503, "storage_unavailable", retriable=True, hint="Retry-After")
    assert not path.exists()
    problem(refused, 401, "key_invalid")
    assert read.status == 200, read


def test_changes_of_keys_are_on_record(shared: Weft) -> None:
    created = weft("keys", "create", "audited", "-s", "*", "--json", "--data", shared.data).json
    rotated = weft("keys", "rotate", created["id"], "--json", "--data", shared.data).json
    weft("keys", "revoke", rotated["id"], "--data", shared.data)
    mine = [
        r
        for r in platform_records(shared)
        if (r.get("resource") or {}).get("id") in (created["id"], rotated["id"])
    ]
    assert [r["event"] for r in mine] == ["key.created", "key.rotated", "key.revoked"], mine
    assert all(record["principal"]["kind"] == "operator" for record in mine)
    assert created["key"] not in json.dumps(mine)
