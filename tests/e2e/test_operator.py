"""From an empty store to an organization that works, in production mode, by the operator's commands alone."""

import base64
import contextlib
import json
import re
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from weft import (
    REPOSITORY,
    Answer,
    Done,
    clean_environment,
    free_port,
    problem,
    program,
    send,
    until,
    weft,
)

NOBODY = "usr_01m7xwwbt0cyyf0fwctb5fygxk"
TENANT = "72F988BF-0000-4000-8000-00000000C0DE"


class Operator:
    """Commands on one data folder, without any sign of development."""

    def __init__(self, data: Path) -> None:
        self.data = data

    def does(self, *arguments: str) -> Done:
        """A command that is done."""
        done = weft(*arguments, "--data", self.data)
        assert done.status == 0, (arguments, done)
        return done

    def json(self, *arguments: str) -> Any:
        """The data of a command that is done."""
        return self.does(*arguments, "--json").json

    def fails(self, *arguments: str) -> str:
        """What a command says that is not done: one sentence and a hint."""
        done = weft(*arguments, "--json", "--data", self.data)
        assert (done.status, done.stdout) == (1, ""), (arguments, done)
        assert re.fullmatch(r"error: .+\nhint: .+\n", done.stderr), done
        return done.stderr

    def platform_records(self) -> bytes:
        """Every stored byte of the platform's audit records; no route lists them."""
        with contextlib.closing(sqlite3.connect(self.data / "weft.db")) as database:
            rows = database.execute(
                "SELECT props FROM entity JOIN tables ON tables.id = tbl WHERE tables.name = 'WeftAudit'"
            ).fetchall()
        return b"\n".join(bytes(row[0]) for row in rows)


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    return Operator(tmp_path / "data")


@contextlib.contextmanager
def serving(data: Path, folder: Path) -> Iterator[str]:
    """A `weft serve` as the Functions host would start it; its address."""
    port = free_port()
    environment = {
        "FUNCTIONS_CUSTOMHANDLER_PORT": str(port),
        "WEFT_STORE": "sqlite",
        "WEFT_DATA": str(data),
        "WEFT_WORKSPACE": str(REPOSITORY / "workspace"),
        "WEFT_PRINCIPAL_SOURCE": "swa",
    }
    said = folder / "serve"
    with said.open("wb") as out:
        process = subprocess.Popen(
            [program(), "serve"],
            env=clean_environment(environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: send(url, "GET", "/api/ready").status == 200, "ready")
        yield url
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 143, said.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert "panicked" not in said.read_text(), said.read_text()


def hello(url: str, organization: str, **credential: str) -> Answer:
    headers = {name.replace("_", "-"): value for name, value in credential.items()}
    headers["X-Organization-Id"] = organization
    return send(url, "POST", "/api/workflows/hello/execute", headers=headers, body={"name": "Ada"})


def signed_in(user: str) -> str:
    """The header of Static Web Apps."""
    principal = {
        "identityProvider": "aad",
        "userId": user,
        "userDetails": "ann@adatum.example",
        "userRoles": ["anonymous", "authenticated"],
    }
    return base64.b64encode(json.dumps(principal).encode()).decode()


def test_from_nothing_to_an_organization_that_works(operator: Operator, tmp_path: Path) -> None:
    made = operator.does("org", "create", "Adatum Corp", "--id", "adatum", "--slug", "adatum-corp")
    assert made.stdout == "adatum\n"
    other = operator.does("org", "create", "Other").stdout.strip()
    user = operator.json(
        "user", "create", "Ann Archer", "--email", "ann@adatum.example", "--identity", "swa:AAD", "ann-1"
    )
    assert user["identities"] == [{"issuer": "swa:aad", "subject": "ann-1"}], user
    assert operator.json("user", "member", user["id"], "adatum", "user")["changed"] is True
    key = operator.does("keys", "create", "robot", "-o", "adatum", "-s", "*").stdout.strip()
    operator.does("entry", "set", "greeting", "Good day")
    operator.does("entry", "set", "greeting", "Welcome", "--organization", "adatum")
    with serving(operator.data, tmp_path) as url:
        answer = hello(url, "adatum", x_functions_key=key)
        assert answer.status == 200, answer
        assert answer.json["result"] == {"message": "Welcome, Ada!", "organization": "adatum"}
        problem(hello(url, other, x_functions_key=key), 403, "key_not_for_organization")
        person = {"x_ms_client_principal": signed_in("ann-1")}
        answer = hello(url, "adatum", **person)
        assert answer.status == 200, answer
        problem(hello(url, other, **person), 404, "organization_not_found")
        problem(hello(url, "adatum", x_ms_client_principal=signed_in("ben")), 403, "user_unknown")

        # Whatever is changed counts on a running instance within five seconds.
        def soon(credential: dict[str, str], status: int, code: str = "") -> None:
            def probe() -> bool:
                answer = hello(url, "adatum", **credential)
                return answer.status == status and (not code or answer.json["code"] == code)

            until(probe, f"{status} {code}", 10)

        assert "inactive" in operator.does("user", "deactivate", user["id"]).stdout
        soon(person, 403, "user_inactive")
        operator.does("user", "activate", user["id"])
        soon(person, 200)
        operator.does("user", "leave", user["id"], "adatum")
        soon(person, 404, "organization_not_found")
        assert "inactive" in operator.does("org", "deactivate", "adatum").stdout
        soon({"x_functions_key": key}, 403, "organization_inactive")
        operator.does("org", "activate", "adatum")
        soon({"x_functions_key": key}, 200)
        operator.does("entry", "delete", "greeting", "-o", "adatum")

        def inherited() -> bool:
            message: str = hello(url, "adatum", x_functions_key=key).json["result"]["message"]
            return message == "Good day, Ada!"

        until(inherited, "the platform's greeting", 10)

        headers = {"x-functions-key": key, "X-Organization-Id": "adatum"}
        answer = send(url, "GET", "/api/audit?limit=200&principal=operator", headers=headers)
        assert answer.status == 200, answer
        # Newest first.
        records = answer.json["items"][::-1]
    assert [(item["event"], item["resource"]["id"], item["changes"]) for item in records] == [
        ("organization.created", "adatum", None),
        ("member.added", user["id"], {"role": {"from": None, "to": "user"}}),
        ("config.changed", "greeting", {"greeting": {"from": None, "to": "Welcome"}}),
        ("member.removed", user["id"], {"role": {"from": "user", "to": None}}),
        ("organization.changed", "adatum", {"active": {"from": True, "to": False}}),
        ("organization.changed", "adatum", {"active": {"from": False, "to": True}}),
        ("config.deleted", "greeting", {"greeting": {"from": "Welcome", "to": None}}),
    ]
    kept = operator.platform_records()
    for event in (b"user.created", b"user.changed", b"key.created", b"config.changed"):
        assert event in kept, event
    for personal in (b"Ann Archer", b"ann@adatum", b"ann-1"):
        assert personal not in kept, personal


def test_organizations(operator: Operator) -> None:
    first = operator.json("org", "create", "Adatum", "--id", "adatum", "--slug", "a-datum")
    assert (first["id"], first["slug"], first["active"]) == ("adatum", "a-datum", True)
    # The same again is no mistake; something else under the same id is.
    assert operator.json("org", "create", "Adatum", "--id", "adatum", "--slug", "a-datum") == first
    assert "`adatum` is or was in use" in operator.fails("org", "create", "Another", "--id", "adatum")
    assert "`a-datum` belongs to another" in operator.fails("org", "create", "Another", "--slug", "a-datum")
    generated = operator.json("org", "create", "Generated")
    assert re.fullmatch("[a-z0-9]{20}", generated["id"])
    assert operator.json("org", "deactivate", "adatum") == {"id": "adatum", "active": False, "changed": True}
    assert operator.json("org", "deactivate", "adatum")["changed"] is False
    listed = {item["id"]: item["active"] for item in operator.json("org", "list")}
    assert listed == {"adatum": False, generated["id"]: True}
    assert re.search(r"^adatum +Adatum +a-datum +inactive", operator.does("org", "list").stdout, re.MULTILINE)
    for verb in ("activate", "deactivate"):
        assert "hint: `weft org list`" in operator.fails("org", verb, "nobody")


def test_people(operator: Operator) -> None:
    operator.does("org", "create", "Adatum", "--id", "adatum")
    identities = ["--identity", "swa:aad", "eve-1", "--identity", f"entra:{TENANT}", TENANT]
    eve = operator.json(
        "user", "create", "Eve", "--email", "eve@adatum.example", "--administrator", *identities
    )
    assert eve["administrator"] is True
    lower = TENANT.lower()
    assert sorted(one["issuer"] for one in eve["identities"]) == [f"entra:{lower}", "swa:aad"]
    assert b"administrator.changed" in operator.platform_records()
    operator.does("user", "member", eve["id"], "adatum", "viewer")
    operator.does("user", "member", eve["id"], "adatum", "org_admin")
    assert operator.json("user", "member", eve["id"], "adatum", "org_admin")["changed"] is False
    shown = operator.json("user", "show", "EVE@adatum.example")
    assert shown == operator.json("user", "show", eve["id"])
    assert shown["memberships"] == [{"organization": "adatum", "role": "org_admin"}]
    words = operator.does("user", "show", eve["id"]).stdout
    assert re.search(r"^member of +adatum as org_admin$", words, re.MULTILINE), words
    # Others don't get what is hers, and nothing is made of them.
    assert "weft user show EMAIL" in operator.fails("user", "create", "Fay", "--email", "eve@adatum.example")
    said = operator.fails(
        "user", "create", "Fay", "--email", "fay@adatum.example", "--identity", "swa:aad", "eve-1"
    )
    assert eve["id"] in said
    operator.fails("user", "show", "fay@adatum.example")
    fay = operator.does("user", "create", "Fay")
    assert "weft user identity add" in fay.stderr
    fay_id = fay.stdout.strip()
    assert eve["id"] in operator.fails("user", "identity", "add", fay_id, "swa:aad", "eve-1")
    change = ["swa:aad", "eve-1"]
    assert operator.json("user", "identity", "add", eve["id"], *change)["changed"] is False
    assert operator.json("user", "identity", "remove", fay_id, *change)["changed"] is False
    assert operator.json("user", "identity", "remove", eve["id"], *change)["changed"] is True
    assert operator.json("user", "identity", "add", fay_id, *change)["changed"] is True
    assert operator.json("user", "leave", eve["id"], "adatum")["changed"] is True
    assert operator.json("user", "leave", eve["id"], "adatum")["changed"] is False
    assert operator.json("user", "deactivate", eve["id"])["changed"] is True
    assert operator.json("user", "deactivate", eve["id"])["changed"] is False


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["member", "ID", "nobody", "user"], "organization `nobody` does not exist\nhint: `weft org list`"),
        (["member", "ID", "adatum", "boss"], "`boss` is not a role\nhint: .*`org_admin`"),
        (["member", "ID", "adatum", "administrator"], "no role of a member\nhint: .*--administrator"),
        (["member", NOBODY, "adatum", "user"], f"user `{NOBODY}` does not exist\nhint: .*weft user show"),
        (["leave", "ID", "nobody"], "organization `nobody` does not exist\nhint: `weft org list`"),
        (["leave", NOBODY, "adatum"], f"user `{NOBODY}` does not exist"),
        (["show", NOBODY], f"user `{NOBODY}` does not exist"),
        (["show", "ann@adatum.example"], "no user has this e-mail address"),
        (["activate", NOBODY], "does not exist"),
        (["deactivate", NOBODY], "does not exist"),
        (["identity", "add", NOBODY, "swa:aad", "x"], "does not exist"),
        (["identity", "remove", NOBODY, "swa:aad", "x"], "does not exist"),
        (["identity", "add", "ID", "aad", "x"], "`aad` is not an issuer\nhint: `swa:aad USERID`"),
        (["identity", "add", "ID", "entra:contoso", "x"], "GUIDs\nhint: .*entra:TENANT OBJECTID"),
        (["create", "Fay", "--identity", "easyauth:aad", "x"], "entra:TENANT"),
    ],
)
def test_mistakes_about_people(operator: Operator, arguments: list[str], words: str) -> None:
    operator.does("org", "create", "Adatum", "--id", "adatum")
    user = operator.does("user", "create", "Ann").stdout.strip()
    said = operator.fails("user", *[user if word == "ID" else word for word in arguments])
    assert re.search(words, said), said


def test_configuration_entries(operator: Operator) -> None:
    operator.does("org", "create", "Adatum", "--id", "adatum")
    set_ = ["entry", "set"]
    first = operator.json(*set_, "limit", "25", "--description", "How many.")
    assert (first["value"], first["organization"], first["changed"]) == (25, None, True)
    assert operator.json(*set_, "limit", "25")["changed"] is False
    operator.does(*set_, "limit", "-5", "-o", "adatum")
    operator.does(*set_, "version", "1.0", "--text")
    operator.does(*set_, "teams", '["a", "b"]', "--organization", "adatum")
    assert operator.does("entry", "get", "limit").stdout == "25\n"
    assert operator.does("entry", "get", "limit", "-o", "adatum").stdout == "-5\n"
    assert operator.does("entry", "get", "version", "-o", "adatum").stdout == '"1.0"\n'
    assert operator.json("entry", "get", "version", "-o", "adatum")["organization"] is None
    listed = operator.json("entry", "list", "-o", "adatum")
    assert [(one["name"], one["value"], one["organization"]) for one in listed] == [
        ("limit", -5, "adatum"),
        ("teams", ["a", "b"], "adatum"),
        ("version", "1.0", None),
    ]
    assert [one["name"] for one in operator.json("entry", "list")] == ["limit", "version"]
    assert re.search(
        r"^limit +25 +platform +How many\.$", operator.does("entry", "list").stdout, re.MULTILINE
    )
    assert operator.json("entry", "delete", "limit", "-o", "adatum")["changed"] is True
    assert operator.json("entry", "delete", "limit", "-o", "adatum")["changed"] is False
    assert operator.does("entry", "get", "limit", "-o", "adatum").stdout == "25\n"
    # A value whose name says what it is stays out of the record.
    operator.does(*set_, "api_token", "hunter2")
    assert b"hunter2" not in operator.platform_records()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["set", "a", "1", "-o", "nobody"], "organization `nobody` does not exist\nhint: `weft org list`"),
        (["list", "-o", "nobody"], "organization `nobody` does not exist"),
        (["delete", "a", "-o", "nobody"], "organization `nobody` does not exist"),
        (["set", "a/b", "1"], "`a/b` can't name an entry\nhint: names are"),
        (["set", "a", '{"b": '], "not JSON: .*\nhint: .*--text"),
        (["set", "a", "x" * 70_000], "over the limit.*\nhint: "),
        (["get", "a"], "the platform has no entry `a`\nhint: `weft entry list`"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_mistakes_about_entries(operator: Operator, arguments: list[str], words: str) -> None:
    said = operator.fails("entry", *arguments)
    assert re.search(words, said), said


def test_the_commands_say_which_configuration_they_mean() -> None:
    assert "weft config explain" in weft("entry", "--help").stdout
    assert re.search(
        r"^  config .*\(What workflows read: `weft\s+entry`\)", weft("--help").stdout, re.MULTILINE
    )
