"""The commands: data on stdout, the rest on stderr, exit codes 0, 1 and 2, JSON that can be read."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from weft import WORKSPACE, Weft, copy_workspace, problem, until, weft

COMMANDS: list[list[str]] = [
    [],
    ["dev"],
    ["serve"],
    ["seed"],
    ["keys"],
    ["keys", "create"],
    ["keys", "list"],
    ["keys", "revoke"],
    ["keys", "rotate"],
    ["org"],
    ["org", "create"],
    ["org", "list"],
    ["org", "activate"],
    ["org", "deactivate"],
    ["user"],
    ["user", "create"],
    ["user", "show"],
    ["user", "activate"],
    ["user", "deactivate"],
    ["user", "identity"],
    ["user", "identity", "add"],
    ["user", "identity", "remove"],
    ["user", "member"],
    ["user", "leave"],
    ["entry"],
    ["entry", "set"],
    ["entry", "get"],
    ["entry", "list"],
    ["entry", "delete"],
    ["check"],
    ["config"],
    ["config", "show"],
    ["config", "explain"],
    ["config", "template"],
    ["config", "validate"],
    ["run"],
    ["simulate"],
    ["doctor"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(command: list[str]) -> None:
    for flag in ("--help", "-h"):
        done = weft(*command, flag)
        assert (done.status, done.stderr) == (0, "")
        assert "Usage: weft" in done.stdout
        assert not re.search(r"^ +--[a-z-]+( <[A-Z]+>)?$\n\n", done.stdout, re.MULTILINE), (
            "a flag without a word on it"
        )
    listed = weft("--help").stdout
    if command:
        assert re.search(rf"^  {command[0]} +\w", listed, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Usage"),
        (["explode"], "unrecognized subcommand"),
        (["dev", "--port", "70000"], "70000"),
        (["dev", "--port", "x"], "invalid value"),
        (["dev", "--nonsense"], "unexpected argument"),
        (["keys", "create", "robot"], "--scope"),
        (
            ["keys", "create", "robot", "--scope", "nonsense"],
            r"`nonsense` is not a scope; scopes are .*workflow:run",
        ),
        (["keys", "create", "robot", "--scope", "*", "-o", "No Such"], "invalid value"),
        (["keys", "create", "robot", "--scope", "*", "--expires-in-days", "0"], "1..=3650"),
        (["keys", "revoke", "nonsense"], "key id"),
        (["keys", "rotate"], "required"),
    ],
)
def test_wrong_usage_is_2(arguments: list[str], words: str) -> None:
    done = weft(*arguments)
    assert (done.status, done.stdout) == (2, ""), done
    assert re.search(words, done.stderr), done.stderr


def test_the_version() -> None:
    done = weft("--version")
    assert done.status == 0
    assert re.fullmatch(r"weft \d+\.\d+\.\d+\n", done.stdout)


def test_seeding_twice_changes_nothing(tmp_path: Path) -> None:
    first = weft("seed", "--json", "--data", tmp_path / "data")
    again = weft("seed", "--json", "--data", tmp_path / "data")
    assert (first.status, again.status) == (0, 0), (first, again)
    assert first.json["created"] > 0
    assert (again.json["created"], again.json["changed"], again.json["unchanged"]) == (
        0,
        0,
        first.json["created"],
    )
    assert first.json["people"] == again.json["people"]
    in_words = weft("seed", "--data", tmp_path / "data")
    assert re.search(r"0 created, 0 changed, \d+ as they were, in \d", in_words.stdout)
    assert weft("seed", "--data", tmp_path / "data", environment={"WEBSITE_INSTANCE_ID": "x"}).status == 1


def test_the_life_of_a_key(shared: Weft) -> None:
    places = ["--data", str(shared.data)]
    done = weft(
        "keys",
        "create",
        "robot",
        "-o",
        "contoso",
        "-s",
        "workflow:*",
        "--expires-in-days",
        "30",
        "--json",
        *places,
    )
    assert done.status == 0, done
    made = done.json
    assert re.fullmatch(r"weft_[A-Za-z0-9_-]{40,}", made["key"]), made
    assert (made["name"], made["organizations"], made["scopes"]) == ("robot", ["contoso"], ["workflow:*"])
    assert made["expiresAt"] > made["createdAt"]
    assert shared.execute("echo", {"value": 1}, x_functions_key=made["key"]).status == 200
    plain = weft("keys", "create", "plain", "-s", "*", *places)
    assert re.fullmatch(r"weft_\S+\n", plain.stdout), plain
    assert "shown this once" in plain.stderr

    def state(key: str) -> dict[str, Any]:
        listed = weft("keys", "list", "--json", *places).json
        return next(item for item in listed if item["id"] == key)

    assert "key" not in state(made["id"])
    rotated = weft("keys", "rotate", made["id"], "--overlap-hours", "1", "--json", *places)
    assert rotated.status == 0, rotated
    successor = rotated.json
    assert (successor["name"], successor["scopes"]) == ("robot", ["workflow:*"])
    assert successor["key"] != made["key"]
    assert state(made["id"])["replacedBy"] == successor["id"]
    # Both are good for an hour.
    assert shared.execute("echo", {"value": 1}, x_functions_key=made["key"]).status == 200
    assert shared.execute("echo", {"value": 1}, x_functions_key=successor["key"]).status == 200
    twice = weft("keys", "rotate", made["id"], "--json", *places)
    assert (twice.status, twice.stdout) == (1, "")
    assert re.search(r"^error: .+\nhint: create a new key\n", twice.stderr), twice
    revoked = weft("keys", "revoke", successor["id"], "--json", *places)
    assert revoked.status == 0
    assert revoked.json["revokedAt"]
    assert state(successor["id"])["revokedAt"] == revoked.json["revokedAt"]
    assert "revoked" in weft("keys", "list", *places).stdout
    again = weft("keys", "revoke", successor["id"], "--json", *places)
    assert again.status in (0, 1)
    # Instances that have it in memory refuse it within 30 seconds; one that starts does at once.


def test_a_revoked_key_is_refused_by_a_running_instance(make: Any) -> None:
    one = make().start()
    made = weft("keys", "create", "brief", "-s", "*", "--json", "--data", one.data).json
    assert weft("keys", "revoke", made["id"], "--data", one.data).status == 0
    problem(one.call("GET", "/runs", x_functions_key=made["key"]), 401, "key_revoked")


def test_keys_that_are_not_there(tmp_path: Path) -> None:
    for command in ("revoke", "rotate"):
        done = weft("keys", command, "key_01m7xwwbt0cyyf0fwctb5fygxk", "--json", "--data", tmp_path)
        assert (done.status, done.stdout) == (1, "")
        assert re.search(
            "^error: key `key_01m7xwwbt0cyyf0fwctb5fygxk` does not exist\nhint: .*weft keys list", done.stderr
        ), done
    done = weft("keys", "create", "x", "-s", "*", "-o", "nobody", "--data", tmp_path)
    assert (done.status, done.stderr) == (
        1,
        "error: organization `nobody` does not exist\nhint: check the id\n",
    )
    assert weft("keys", "list", "--json", "--data", tmp_path).json == []


def test_check_of_a_good_workspace(tmp_path: Path) -> None:
    done = weft("check", "--workspace", WORKSPACE, "--data", tmp_path)
    assert (done.status, done.stdout) == (0, ""), done
    assert re.search(r"\d+ files, \d+ workflows, 0 data providers, 0 findings", done.stderr)
    as_json = weft("check", "--json", "--workspace", WORKSPACE, "--data", tmp_path)
    assert as_json.status == 0
    assert as_json.json["findings"] == []
    missing = weft("check", "--workspace", tmp_path / "nowhere", "--data", tmp_path)
    assert missing.status == 1
    assert re.search(r"^error: .*nowhere", missing.stderr, re.MULTILINE), missing


def test_doctor(tmp_path: Path) -> None:
    places = ["--workspace", str(WORKSPACE), "--data", str(tmp_path / "data")]
    good = weft("doctor", "--json", *places)
    assert good.status == 0, good
    assert [(check["what"], check["ok"]) for check in good.json] == [
        ("configuration", True),
        ("engine", True),
        ("protection", True),
        ("python", True),
        ("storage", True),
        ("runs", True),
        ("isolation", True),
        ("workspace", True),
    ]
    workspace = copy_workspace(tmp_path / "workspace")
    (workspace / "workflows" / "bad.py").write_text("import weft_runtime\n")
    bad = weft(
        "doctor",
        "--json",
        "--workspace",
        workspace,
        "--data",
        "/dev/null/x",
        environment={"WEFT_PYTHON": "/nowhere"},
    )
    assert bad.status == 1
    checks = {check["what"]: check for check in bad.json}
    assert (checks["python"]["ok"], checks["storage"]["ok"]) == (False, False), checks
    for check in checks.values():
        assert check["ok"] or check["remedy"], check
        expected = {"ok", "warning"} if check["what"] == "protection" else {"ok"}
        assert check["status"] in (expected if check["ok"] else {"failed"}), check
    # In words: one line each, with the hint below.
    words = weft("doctor", "--workspace", workspace, "--data", tmp_path / "data")
    assert words.status == 1
    assert re.search(r"^FAIL workspace", words.stdout, re.MULTILINE), words
    assert "weft check" in words.stdout
    report = tmp_path / "report.json"
    settings = weft("doctor", "--json", "--output", report, environment={"WEFT_WORKER_SLOTS": "0"})
    assert settings.status == 1
    assert "WEFT_WORKER_SLOTS" in settings.json[0]["detail"]
    assert json.loads(report.read_text()) == settings.json
    more = weft("doctor", "-v", *places, environment={"WEFT_NONSENSE": "1"})
    assert more.status == 0, more
    assert re.search(r"^warn configuration .* ms\)$", more.stdout, re.MULTILINE), more
    assert "WEFT_NONSENSE" in more.stdout


def test_config_show_names_origins() -> None:
    done = weft("config", "show", environment={"WEFT_MAX_BODY_BYTES": "2048", "WEFT_NONSENSE": "1"})
    assert done.status == 0, done
    assert done.json["http"]["maxBodyBytes"] == {"value": 2048, "origin": "WEFT_MAX_BODY_BYTES"}
    assert "WEFT_NONSENSE" in done.stderr
    assert weft("config", "show", environment={"WEFT_MAX_BODY_BYTES": "x"}).status == 1


def test_a_closed_pipe_is_no_panic(shared: Weft) -> None:
    import subprocess

    from weft import clean_environment, program

    done = subprocess.run(
        [
            "sh",
            "-c",
            '"$0" check --json --workspace "$1" --data "$2" | head -c 10; exit 0',
            program(),
            WORKSPACE,
            shared.data,
        ],
        env=clean_environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert "panicked" not in done.stderr, done.stderr
    until(lambda: shared.call("GET", "/health").status == 200, "alive")
