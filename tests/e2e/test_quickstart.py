"""The quick start that users of an earlier system know: its two workflows as written, with Weft's own commands."""

import json
import re
from pathlib import Path

import pytest

from weft import weft

HELLO = """\
name: hello-world
version: 1.0
description: My first secure workflow
inputs:
  name: { type: string, default: "Developer" }
steps:
  - id: greet
    type: shell
    command: "echo 'Hello {{ inputs.name }}!'"
"""

DEPLOY = """\
# my-workflow.yaml
name: deploy-application
version: 1.0
description: Deploy application with security controls

# Define inputs with validation
inputs:
  environment:
    type: string
    required: true
    validation:
      pattern: "^(dev|staging|prod)$"
  version:
    type: string
    default: "latest"

# Secure workflow steps
steps:
  - id: validate-environment
    type: assert
    condition: "inputs.environment in ['dev', 'staging', 'prod']"
    message: "Invalid environment specified"

  - id: run-tests
    type: shell
    command: "npm test"
    timeout: 600  # 10 minutes
    retry:
      attempts: 2
      delay: 30

  - id: deploy
    type: shell
    depends_on: [validate-environment, run-tests]
    command: "kubectl apply -f k8s/{{ inputs.environment }}/"
    when: "steps.run-tests.exit_code == 0"
"""

DONE = {"exit_code": 0, "stdout": "", "stderr": ""}


@pytest.fixture
def hello(tmp_path: Path) -> Path:
    file = tmp_path / "hello-world.yaml"
    file.write_text(HELLO)
    return file


@pytest.fixture
def deploy(tmp_path: Path) -> Path:
    file = tmp_path / "my-workflow.yaml"
    file.write_text(DEPLOY)
    return file


def test_hello_world(hello: Path) -> None:
    assert weft("doctor").status in (0, 1)
    assert weft("check", hello).status == 0
    dry = weft("simulate", hello, "--dry-run")
    assert dry.status == 0, dry
    assert "command: echo 'Hello Developer!'" in dry.stdout
    done = weft("simulate", hello)
    assert done.status == 0, done
    assert done.json == {"exit_code": 0, "stdout": "Hello Developer!\n", "stderr": ""}
    assert "greet | Hello Developer!" in done.stderr
    named = weft("simulate", hello, "--inputs", '{"name": "Ada"}')
    assert named.json["stdout"] == "Hello Ada!\n"


def test_what_is_given_is_never_code(hello: Path) -> None:
    for name in ["'; touch f #", "$(touch f)", "`touch f`", "{{ 1 + 1 }}", '"; echo pwned; "']:
        done = weft("simulate", hello, "--inputs", json.dumps({"name": name}))
        assert done.status == 0, done
        assert done.json["stdout"] == f"Hello {name}!\n"


def test_hello_world_of_a_workspace(hello: Path, tmp_path: Path) -> None:
    workflows = tmp_path / "workspace" / "workflows"
    workflows.mkdir(parents=True)
    hello.rename(workflows / hello.name)
    places = ["--workspace", workflows.parent, "--data", tmp_path / "data"]
    assert weft("check", *places).status == 0
    done = weft("run", "hello-world", *places, "--input", "name=Ada")
    assert done.status == 0, done
    assert done.json["stdout"] == "Hello Ada!\n"


def test_deploy_application(deploy: Path, tmp_path: Path) -> None:
    assert weft("check", deploy).status == 0
    dry = weft("simulate", deploy, "--dry-run", "--json", "--inputs", '{"environment": "staging"}')
    assert dry.status == 0, dry
    steps = {step["id"]: step for step in dry.json["steps"]}
    assert list(steps) == ["validate-environment", "run-tests", "deploy"]
    assert steps["deploy"]["says"]["command"] == "kubectl apply -f k8s/staging/"
    assert sorted(steps["deploy"]["after"]) == ["run-tests", "validate-environment"]
    outcomes = tmp_path / "outcomes.json"
    outcomes.write_text(
        json.dumps(
            {
                "run-tests": [
                    {"failed": {"type": "ShellFailed", "message": "1 failing"}},
                    {"succeeded": DONE},
                ],
                "deploy": {"succeeded": DONE},
            }
        )
    )
    played = weft(
        "simulate", deploy, "--outcomes", outcomes, "--inputs", '{"environment": "staging"}', "--json"
    )
    assert played.status == 0, played
    assert [(step["id"], step["status"], step["attempts"]) for step in played.json["steps"]] == [
        ("validate-environment", "succeeded", 1),
        ("run-tests", "succeeded", 2),
        ("deploy", "succeeded", 1),
    ]
    broken = {"run-tests": {"failed": {"type": "ShellFailed", "message": "1 failing"}}}
    outcomes.write_text(json.dumps(broken))
    stopped = weft(
        "simulate", deploy, "--outcomes", outcomes, "--inputs", '{"environment": "staging"}', "--json"
    )
    assert stopped.status == 1
    assert stopped.json["steps"][2]["status"] == "skipped"
    for inputs in ["{}", '{"environment": "moon"}']:
        wrong = weft("simulate", deploy, "--inputs", inputs)
        assert wrong.status == 1
        assert re.search(r"^  /environment: ", wrong.stderr, re.MULTILINE), wrong
