"""Settings from files, variables and flags: what wins, what is refused, and what says so."""

import json
import re
from pathlib import Path

import pytest

from weft import weft


def test_later_places_win(tmp_path: Path) -> None:
    home = tmp_path / "home" / "weft"
    home.mkdir(parents=True)
    (home / "config.yaml").write_text("port: 1001\nlog: warn\n")
    (tmp_path / "weft.yaml").write_text("port: 1002\n")
    (tmp_path / "named.yaml").write_text("# named\nport: 1003\n")
    own = {"XDG_CONFIG_HOME": str(tmp_path / "home")}

    def port(*flags: str, **more: str) -> tuple[str, str, list[str]]:
        done = weft("config", "explain", "port", "--json", *flags, environment={**own, **more}, at=tmp_path)
        assert done.status == 0, done
        one = done.json
        return one["value"], one["origin"], [other["value"] for other in one["overrides"]]

    assert port() == ("1002", f"{tmp_path}/weft.yaml:1:1", ["1001"])
    named = f"{tmp_path}/named.yaml:2:1"
    assert port("--config", "named.yaml") == ("1003", named, ["1002", "1001"])
    assert port(WEFT_CONFIG_FILE="named.yaml") == ("1003", named, ["1002", "1001"])
    assert port(CLAUDE_CONFIG_FILE="named.yaml") == ("1003", named, ["1002", "1001"])
    assert port(WEFT_PORT="1004") == ("1004", "WEFT_PORT", ["1002", "1001"])
    shown = weft("config", "show", environment=own, at=tmp_path)
    assert shown.json["telemetry"]["filter"] == {"value": "warn", "origin": f"{home}/config.yaml:2:1"}
    words = weft("config", "explain", environment=own, at=tmp_path)
    assert re.search(rf"^port +1002 +{tmp_path}/weft.yaml:1:1$", words.stdout, re.MULTILINE), words
    assert f"project file {tmp_path}/weft.yaml: read" in words.stderr


def test_older_names_are_read_and_give_way() -> None:
    older = {"CLAUDE_MAX_CONCURRENT_WORKFLOWS": "7", "CLAUDE_ENABLE_DEBUG": "true"}
    one = weft("config", "explain", "max_concurrent_runs", environment=older)
    assert "max_concurrent_runs = 7\n" in one.stdout
    assert "CLAUDE_MAX_CONCURRENT_WORKFLOWS, older name of WEFT_MAX_CONCURRENT_RUNS" in one.stdout
    both = weft("config", "show", environment={**older, "WEFT_MAX_CONCURRENT_RUNS": "8"}).json
    assert both["limits"]["concurrentRuns"]["value"] == 8
    assert both["telemetry"]["debug"]["value"] is True
    wrong = weft("config", "show", environment={"CLAUDE_MAX_MEMORY_MB": "much"})
    assert wrong.status == 1
    assert "`CLAUDE_MAX_MEMORY_MB` is `much`" in wrong.stderr


def test_a_file_is_checked_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "environment: development\nprot: 1\nport: http\ncleanup_temp_files: false\nallowed_domains: [github.com]\n"
    )
    done = weft("config", "validate", file, environment={"WEFT_PORT": "1"})
    assert done.status == 1
    assert [line.split(": ", 1)[1].split(" ")[0] for line in done.stdout.splitlines()] == [
        "unknown_key",
        "not_an_integer",
        "not_possible",
    ]
    assert done.stdout.startswith(f"{file}:2:1: unknown_key `prot`")
    assert "did you mean `port`?" in done.stderr
    as_json = weft("config", "validate", file, "--json")
    assert (as_json.status, as_json.json["valid"], len(as_json.json["findings"])) == (1, False, 3)
    as_project = weft("config", "validate", file, "--project")
    assert "project_may_not_weaken" in as_project.stdout
    assert "not_for_projects" in as_project.stdout
    file.write_text("port: 8080\n")
    assert weft("config", "validate", file).status == 0
    assert weft("config", "validate", tmp_path / "nowhere.yaml").status == 1


def test_a_template_is_whole_and_never_written_over(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    done = weft("config", "template", file, "--environment", "production")
    assert done.status == 0, done
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    assert "\nenvironment: production\n" in text
    assert "\n#signing_key:" in text
    assert weft("config", "validate", file).status == 0
    shown = weft("config", "show", "--config", file).json
    assert shown["limits"]["runSeconds"]["value"] == 7200
    file.write_text("mine")
    again = weft("config", "template", file)
    assert again.status == 1
    assert "--force" in again.stderr
    assert file.read_text() == "mine"
    assert weft("config", "template", file, "--force").status == 0
    assert weft("config", "template").stdout == file.read_text()


def test_secrets_need_a_file_of_ones_own(tmp_path: Path) -> None:
    key = "k" * 40
    file = tmp_path / "c.yaml"
    file.write_text(f"signing_key: {key}\n")
    file.chmod(0o644)
    open_to_all = weft("config", "show", "--config", file)
    assert open_to_all.status == 1
    assert f"chmod 600 {file}" in open_to_all.stderr
    assert key not in open_to_all.stderr
    file.chmod(0o600)
    closed = weft("config", "show", "--config", file)
    assert closed.status == 0, closed
    assert closed.json["signing"]["key"]["value"] == "***"
    explained = weft("config", "explain", "--config", file)
    assert key not in explained.stdout + explained.stderr
    file.chmod(0o602)
    assert "writable_by_others" in weft("config", "validate", file).stdout


def test_a_project_does_not_weaken_the_machine(tmp_path: Path) -> None:
    (tmp_path / "weft.yaml").write_text("isolation_off: landlock\nstep_memory_mib: 100000\nport: 0\n")
    done = weft("config", "show", at=tmp_path)
    assert done.status == 1
    assert f"{tmp_path}/weft.yaml:1:1: a project's file may not set `isolation_off`" in done.stderr
    assert f"{tmp_path}/weft.yaml:2:1: a project's file may only lower `step_memory_mib`" in done.stderr
    named = weft("config", "show", "--config", "weft.yaml", at=tmp_path)
    assert named.status == 0, named


CODE = """
import random

from weft import workflow


@workflow(name="calls", network=["api.example.com"])
def calls(ctx) -> str:
    print("a word")
    return "called"


@workflow(name="dice")
def dice(ctx) -> float:
    return random.random()
"""
CACHED = {"name": "cached", "nodes": [{"id": "a", "type": "python", "use": "dice", "cacheSeconds": 3600}]}


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    folder = tmp_path / "workspace" / "workflows"
    folder.mkdir(parents=True)
    (folder / "code.py").write_text(CODE)
    (folder / "cached.json").write_text(json.dumps(CACHED))
    return ["--workspace", str(folder.parent), "--data", str(tmp_path / "data")]


def test_the_installation_bounds_the_network(places: list[str]) -> None:
    assert weft("run", "calls", *places).status == 0
    closed = weft("run", "calls", *places, environment={"WEFT_ALLOW_OUTBOUND_REQUESTS": "false"})
    assert closed.status == 1
    assert "the installation allows its steps no network" in closed.stderr
    assert "WEFT_ALLOW_OUTBOUND_REQUESTS" in closed.stderr
    listed = weft("run", "calls", *places, environment={"WEFT_ALLOWED_DOMAINS": "*.example.com,github.com"})
    assert listed.status == 0, listed
    others = weft("run", "calls", *places, environment={"WEFT_ALLOWED_DOMAINS": "github.com"})
    assert others.status == 1
    assert "`api.example.com` is not among the domains that the installation allows" in others.stderr
    wrong = weft("config", "show", environment={"WEFT_ALLOWED_DOMAINS": "http://x"})
    assert "`WEFT_ALLOWED_DOMAINS` names no host" in wrong.stderr


def test_logs_of_steps_may_be_left_out(places: list[str]) -> None:
    assert "| a word" in weft("run", "calls", *places).stderr
    silent = weft("run", "calls", *places, environment={"WEFT_SAVE_EXECUTION_LOGS": "false"})
    assert silent.status == 0, silent
    assert "a word" not in silent.stderr
    assert "main succeeded" in silent.stderr


def test_the_cache_is_bounded(places: list[str]) -> None:
    def dice(**environment: str) -> str:
        done = weft("run", "cached", *places, environment=environment)
        assert done.status == 0, done
        return done.stdout

    first = dice(WEFT_MAX_CACHE_ENTRIES="0")
    second = dice()
    assert first != second
    assert dice() == second


def test_the_profile_may_come_from_anywhere(places: list[str], tmp_path: Path) -> None:
    refused = weft("run", "dice", *places, environment={"CLAUDE_SECURITY_PROFILE": "plan_only"})
    assert refused.status == 1
    assert "plan_only" in refused.stderr
    file = tmp_path / "c.yaml"
    assert weft("config", "template", file, "--profile", "plan_only").status == 0
    assert weft("run", "dice", *places, "--config", file).status == 1
    assert weft("config", "template", "--profile", "nonsense").status == 2
    (tmp_path / "weft.yaml").write_text("security_profile: elevated\n")
    assert "project_may_not_weaken" in weft("config", "validate", tmp_path / "weft.yaml", "--project").stdout
