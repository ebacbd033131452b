"""`weft check FILE…`, and the schema that editors check workflows with."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from weft import REPOSITORY, weft

GOLDEN = REPOSITORY / "tests" / "golden" / "yaml"

CALLS = """\
name: calls
version: 1.10
steps:
  - id: fetch-it
    type: python
    use: fetch
outputs:
  all: "{{ steps.fetch-it.output }}"
"""

FETCH = '''
from weft import Context, workflow


@workflow(name="fetch")
def fetch(ctx: Context) -> int:
    """Fetches."""
    return 1
'''


class CoreLoader(yaml.SafeLoader):
    """Reads by the core schema of YAML 1.2, as editors and Weft do: `on` and `yes` are texts, and so are dates."""


CoreLoader.yaml_implicit_resolvers = {}
for tag, pattern, first in [
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+.0123456789"),
]:
    CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"^({pattern})$"), list(first))


def read(path: Path) -> Any:
    return yaml.load(path.read_text(), CoreLoader)


@pytest.fixture(scope="module")
def schema() -> jsonschema.Draft202012Validator:
    written = json.loads((REPOSITORY / "docs" / "workflow.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(written)
    return jsonschema.Draft202012Validator(written)


def test_good_files_fit_the_schema(schema: jsonschema.Draft202012Validator) -> None:
    files = sorted(GOLDEN.glob("good/*.yaml")) + sorted((REPOSITORY / "workspace").rglob("*.y*ml"))
    assert len(files) >= 4
    for path in files:
        wrong = [f"{error.json_path}: {error.message}" for error in schema.iter_errors(read(path))]
        assert wrong == [], path


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("a_list", "$"),
        ("approval_without_question", "$.steps[0].needed"),
        ("bad_id", "$.steps[0].id"),
        ("bad_name", "$.name"),
        ("concurrency_too_many", "$.concurrency"),
        ("input_a_list", "$.inputs.name"),
        ("input_unknown_member", "$.inputs.name"),
        ("no_id", "$.steps[0]"),
        ("no_name", "$"),
        ("no_steps", "$"),
        ("no_type", "$.steps[0]"),
        ("profile_unknown", "$.security_profile"),
        ("retry_a_number", "$.steps[0].retry"),
        ("retry_unknown", "$.steps[0].retry"),
        ("shell_command_number", "$.steps[0].command"),
        ("shell_empty_list", "$.steps[0].command"),
        ("step_a_text", "$.steps[0]"),
        ("steps_a_mapping", "$.steps"),
        ("steps_empty", "$.steps"),
        ("unknown_member", "$"),
        ("unknown_step_member", "$.steps[0]"),
        ("unknown_type", "$.steps[0].type"),
        ("version_a_list", "$.version"),
    ],
)
def test_the_schema_shows_where(name: str, place: str, schema: jsonschema.Draft202012Validator) -> None:
    errors = schema.iter_errors(read(GOLDEN / "broken" / f"{name}.yaml"))
    assert place in {error.json_path for error in errors}


def test_every_member_is_described(schema: jsonschema.Draft202012Validator) -> None:
    """What an editor shows beside a completion."""
    step = schema.schema["$defs"]["step"]
    for one in step["allOf"]:
        kind = one["if"]["properties"]["type"]["const"]
        for member, what in one["then"]["properties"].items():
            described = "description" in what or "$ref" in what or "enum" in what
            assert described, f"`{member}` of {kind}: {what}"


def test_samples_name_the_schema() -> None:
    for path in (REPOSITORY / "workspace").rglob("*.yaml"):
        first = path.read_text().splitlines()[0]
        named = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
        assert named, path
        assert (path.parent / named[1]).is_file(), path


def test_a_file_by_itself(tmp_path: Path) -> None:
    # One calls functions of a workspace.
    alone = [path for path in sorted(GOLDEN.glob("good/*.yaml")) if path.stem != "data_edges"]
    good = weft("check", *alone, "--json")
    assert (good.status, good.json["findings"]) == (0, []), good
    assert good.json["workflows"] == ["deploy-application", "everything", "hello-world"]
    file = tmp_path / "w.yaml"
    file.write_text("name: w\nsteps:\n  - {id: ä, type: compute, valu: 1}\n")
    done = weft("check", "w.yaml", at=tmp_path)
    assert done.status == 1
    lines = done.stdout.splitlines()
    assert [line.split(": ", 1)[0] for line in lines] == ["w.yaml:3:5", "w.yaml:3:10", "w.yaml:3:28"], done
    said = done.stderr.splitlines()
    at = said.index("  | " + "                           ^")
    assert said[at - 1] == "  |   - {id: ä, type: compute, valu: 1}"
    assert said[at + 1] == "  hint: did you mean `value`?"
    as_json = weft("check", "w.yaml", "--json", at=tmp_path)
    assert as_json.status == 1
    assert {one["code"] for one in as_json.json["findings"]} == {"bad_id", "missing_member", "unknown_member"}


def test_functions_are_looked_for_in_the_workspace(tmp_path: Path) -> None:
    workflows = tmp_path / "workspace" / "workflows"
    workflows.mkdir(parents=True)
    (workflows / "fetch.py").write_text(FETCH)
    (workflows / "other.yaml").write_text("name: other\n")
    (tmp_path / "calls.yaml").write_text(CALLS)
    alone = weft("check", tmp_path / "calls.yaml")
    assert (alone.status, alone.stdout.count("\n")) == (1, 1), alone
    assert f"{tmp_path}/calls.yaml:6:10: step `fetch-it` uses `fetch`" in alone.stdout
    assert weft("check", tmp_path / "calls.yaml", "--workspace", workflows.parent).status == 0
    (workflows / "calls.yaml").write_text(CALLS)
    inside = weft("check", workflows / "calls.yaml", "--json")
    assert (inside.status, inside.json["workflows"]) == (0, ["calls"]), inside
    # Beside one of the same name, it would not be this file that is checked.
    again = weft("check", tmp_path / "calls.yaml", "--workspace", workflows.parent)
    assert (again.status, again.stdout) == (1, "")
    assert "has a file `workflows/calls.yaml` of its own" in again.stderr
    whole = weft("check", "--workspace", workflows.parent, "--data", tmp_path / "data")
    assert whole.status == 1
    assert re.fullmatch(r"workspace/workflows/other.yaml:1:1: a workflow needs `steps`\n", whole.stdout), (
        whole
    )


def test_what_is_not_read_is_not_called_good(tmp_path: Path) -> None:
    broken = "name: w\nsteps:\n  - {id: a, type: nothing}\n"
    hidden = tmp_path / ".w.yaml"
    hidden.write_text(broken)
    done = weft("check", hidden)
    assert (done.status, done.stdout) == (1, "")
    assert "was not read" in done.stderr
    left_out = tmp_path / "workspace" / "workflows" / "tests" / "w.yaml"
    left_out.parent.mkdir(parents=True)
    left_out.write_text(broken)
    assert "was not read" in weft("check", left_out).stderr
    folder = tmp_path / "w.yaml"
    folder.mkdir()
    assert f"`{folder}` is no file" in weft("check", folder).stderr
    assert weft("check", tmp_path / "nothing.yaml").status == 1
    assert "no workflow file" in weft("check", tmp_path / "nothing.txt").stderr
    odd = tmp_path / "odd.yaml"
    odd.write_bytes(b"name: \xff\n")
    assert f"{odd}:1:1: the file is no UTF-8 text" in weft("check", odd).stdout
    large = tmp_path / "large.yaml"
    large.write_text("#" * (1 << 20) + "\n")
    assert f"{large}:1:1: the file has 1048577 bytes" in weft("check", large).stdout


def test_what_a_terminal_would_obey_is_not_shown_as_it_is(tmp_path: Path) -> None:
    """A terminal does what such a line says."""
    file = tmp_path / "w.yaml"
    file.write_text('name: w\nstepz: "\x1b[31m"\n')
    done = weft("check", file)
    assert done.status == 1
    assert "\x1b" not in done.stdout + done.stderr
    named = tmp_path / "v.yaml"
    named.write_text('name: w\n"st\\e[31mepz": 1\nsteps: []\n')
    done = weft("check", named)
    assert done.status == 1
    assert "\x1b" not in done.stdout + done.stderr, done
    assert "a workflow has no `st\\u{1b}[31mepz`" in done.stdout
    # And a text can't pretend to be a finding of its own, or turn the line.
    file.write_text('name: w\n"x\\na.yaml:1:1: fine \u202e": 1\nsteps: []\n')
    said = weft("check", file)
    assert said.stdout.count("\n") == 2, said
    assert "\u202e" not in said.stdout + said.stderr
    assert "\x1b" not in weft("simulate", named).stderr


def test_texts_stay_texts_and_a_broken_file_runs_nothing(tmp_path: Path) -> None:
    workflows = tmp_path / "workspace" / "workflows"
    workflows.mkdir(parents=True)
    file = workflows / "w.yml"
    for answer in ("on", "007", "1.10"):
        file.write_text(f"name: w\nsteps:\n  - {{id: a-b, type: compute, value: '{answer}'}}\n")
        done = weft("simulate", file)
        assert (done.status, done.json) == (0, answer), done
    file.write_text("name: w\nsteps:\n  - {id: a-b, type: compute, value: }}\n")
    done = weft("simulate", file)
    assert (done.status, done.stdout) == (1, "")
    assert f"{file}:3:" in done.stderr


def test_time_limits_above_those_that_count_are_warned_of(tmp_path: Path) -> None:
    flows = tmp_path / "workflows"
    flows.mkdir()
    (flows / "fetch.py").write_text(FETCH.replace('name="fetch"', 'name="fetch", timeout_seconds=900'))
    (flows / "slow.yaml").write_text(
        'name: slow\ntimeout: 40d\nsteps:\n  - id: one\n    type: shell\n    command: "true"\n    timeout: 301\n'
    )
    checked = weft("check", "--workspace", tmp_path, "--json")
    assert checked.status == 0
    warned = {one["pointer"]: (one["code"], one["message"]) for one in checked.json["warnings"]}
    assert {pointer: code for pointer, (code, _) in warned.items()} == {
        "workspace/workflows/fetch.py:5:1": "timeout_above_ceiling",
        "workspace/workflows/slow.yaml:2:10": "timeout_above_ceiling",
        "workspace/workflows/slow.yaml:7:14": "timeout_above_ceiling",
    }
    assert "at most 300 s" in warned["workspace/workflows/fetch.py:5:1"][1]
    said = weft("check", flows / "slow.yaml")
    assert (said.status, "slow.yaml:7:14: warning: `timeout` of step `one` is 301" in said.stdout) == (
        0,
        True,
    )


def test_a_data_provider_that_declares_a_time_limit_is_left_out(tmp_path: Path) -> None:
    """It has 30 seconds, so nothing is warned of: there is nothing to declare."""
    providers = tmp_path / "data_providers"
    providers.mkdir()
    (providers / "slow.py").write_text(
        "from weft import data_provider\n\n\n@data_provider(timeout_seconds=900)\n"
        "def slow() -> list[str]:\n    return []\n"
    )
    checked = weft("check", "--workspace", tmp_path, "--json")
    assert checked.status == 1
    (error,) = checked.json["findings"]
    assert error["pointer"].startswith("workspace/data_providers/slow.py:4"), error
    assert "timeout_seconds" in error["message"], error
