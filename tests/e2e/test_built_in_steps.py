"""Commands, assertions, templates and requests as steps, in real workers: what they see, leave and say, and
that no value is read as code."""

import itertools
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from weft import REPOSITORY, Weft, copy_workspace, until, weft_at

CORPUS = REPOSITORY / "tests/golden/injection"
TEXT = {"name": "value", "type": "string", "default": ""}


def graph(name: str, *nodes: dict[str, Any], output: Any = None, edges: Any = ()) -> dict[str, Any]:
    """A graph whose nodes follow each other, unless there are edges."""
    ids = [node["id"] for node in nodes]
    after = [{"from": one, "to": two} for one, two in itertools.pairwise(ids)]
    return {
        "name": name,
        "parameters": [TEXT],
        "nodes": list(nodes),
        "edges": list(edges) or after,
        **({} if output is None else {"output": output}),
    }


def shell(id: str, command: Any, **more: Any) -> dict[str, Any]:
    return {"id": id, "type": "shell", "command": command, **more}


def contexts() -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((CORPUS / "contexts.json").read_text())
    return found


def corpus() -> dict[str, Any]:
    """A graph with a step for each way in which a value can come to a command, a template or an expression."""
    commands = [shell(f"c{place}", context["command"]) for place, context in enumerate(contexts())]
    text = {"$text": "a{{ inputs.value }}b"}
    others = [
        shell("words", ["printf", "[%s]", {"$": "inputs.value"}, text]),
        shell(
            "variable",
            'printf \'[%s]\' "$VALUE" "$TEXT"; ls -A',
            environment={"VALUE": {"$": "inputs.value"}, "TEXT": text},
        ),
        {"id": "text", "type": "template", "template": "{{ inputs.value }}|{{ inputs.value | upper }}"},
        {"id": "value", "type": "compute", "value": {"deep": [{"$": "inputs.value"}], "text": text}},
        {"id": "same", "type": "assert", "condition": "steps.value.output.deep[0] == inputs.value"},
    ]
    output = {
        "printed": [{"$": f"steps.c{place}.stdout"} for place in range(len(commands))],
        **{name: {"$": f"steps.{name}.outputs"} for name in ("words", "variable", "text", "value", "same")},
    }
    # Those after the commands follow all of them; the commands themselves run side by side.
    names = [node["id"] for node in others]
    edges = [{"from": one, "to": two} for one, two in itertools.pairwise(names)]
    return graph("corpus", *commands, *others, output=output, edges=edges)


GRAPHS = [
    corpus(),
    graph("greets", shell("hello", "echo 'Hello {{ inputs.value }}!'"), output={"$": "steps.hello.stdout"}),
    graph(
        "guarded",
        shell("run-tests", "exit {{ inputs.value }}", expect=[0, 3]),
        shell("deploy", ["echo", "deployed"], when="steps.run-tests.exit_code == 0"),
        {
            "id": "sure",
            "type": "assert",
            "condition": "steps.run-tests.exit_code == 0",
            "message": {"$text": "ended with {{ steps.run-tests.exit_code }}"},
            "onFalse": "warn",
        },
        output={"deploy": {"$": "steps.deploy.status"}, "sure": {"$": "steps.sure.output"}},
    ),
    graph("fails", shell("one", "echo out; echo 'no such order' >&2; exit 7")),
    graph(
        "retries",
        shell("one", "exit 1", retry={"attempts": 3, "delay_seconds": 0.01, "backoff": "fixed"}),
    ),
    graph(
        "asserts",
        {
            "id": "one",
            "type": "assert",
            "condition": "inputs.value == 'yes'",
            "message": {"$text": "it is {{ inputs.value }}"},
        },
    ),
    graph("missing", shell("one", ["no-such-program"])),
    graph("named", shell("one", [{"$": "inputs.value"}, "a"])),
    graph(
        "what-it-sees",
        shell("one", 'env | sort; pwd; echo "$0"; cat; ls /proc/1/environ; kill -9 1 2>/dev/null; echo on'),
        output={"$": "steps.one.stdout"},
    ),
    graph("lingers", shell("one", "sleep 300 & echo begun"), output={"$": "steps.one.stdout"}),
    graph("sleeps", shell("one", "sleep 300 & sleep 300", timeoutSeconds=1)),
    graph("folder", shell("one", 'cd .. ; basename "$OLDPWD"', workingDirectory="a/b")),
    graph(
        "much",
        shell("one", "head -c 3000000 /dev/zero | tr '\\0' x"),
        output={"$": "steps.one.stdout | length"},
    ),
    graph("quiet", shell("one", "echo seen", captureOutput=False), output={"$": "steps.one.output"}),
    graph("dies", shell("one", "kill -TERM $$")),
    graph("connects", {"id": "one", "type": "http", "url": "http://127.0.0.1:9/x"}),
    graph(
        "secretive",
        shell("one", 'echo "token: $TOKEN"', environment={"TOKEN": {"$secret": "STEP_TOKEN"}}),
        output={"$": "steps.one.stdout"},
    ),
]


NAMESPACES = "user_namespace,mount_namespace,pid_namespace,network_namespace,ipc_namespace"


@pytest.fixture(scope="module", params=["", NAMESPACES], ids=["all", "without_namespaces"])
def one(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weft]:
    """With every wall that there is here, and as in a container that has no namespaces."""
    folder = tmp_path_factory.mktemp("steps")
    workspace = copy_workspace(folder / "workspace")
    for written in GRAPHS:
        (workspace / f"workflows/{written['name']}.json").write_text(json.dumps(written, indent=1))
    off = {"WEFT_ISOLATION_OFF": request.param} if request.param else {}
    with weft_at(folder, workspace=workspace, environment=off) as made:
        yield made.start()


def values() -> list[str]:
    found: list[str] = json.loads((CORPUS / "values.json").read_text())
    return found


def test_no_value_is_read_as_code(one: Weft) -> None:
    assert len(values()) >= 60
    for value in values():
        run = one.run("corpus", {"value": value})
        assert run["status"] == "succeeded", (value, run)
        assert run["result"] == {
            "printed": [context["prints"].replace("VALUE", value) for context in contexts()],
            "words": {"exit_code": 0, "stdout": f"[{value}][a{value}b]", "stderr": ""},
            "variable": {"exit_code": 0, "stdout": f"[{value}][a{value}b]", "stderr": ""},
            "text": f"{value}|{value.upper()}",
            "value": {"deep": [value], "text": f"a{value}b"},
            "same": {"passed": True},
        }, value


def test_a_nul_is_told(one: Weft) -> None:
    run = one.run("greets", {"value": "a\0b"})
    assert run["status"] == "failed", run
    assert "NUL" in run["error"]["message"], run


def test_a_command_greets_and_guards(one: Weft) -> None:
    assert one.run("greets", {"value": "Developer"})["result"] == "Hello Developer!\n"
    good = one.run("guarded", {"value": "0"})
    assert good["result"] == {"deploy": "succeeded", "sure": {"passed": True}}
    bad = one.run("guarded", {"value": "3"})
    assert bad["result"] == {"deploy": "skipped", "sure": {"passed": False, "message": "ended with 3"}}


def test_failures_say_what_happened(one: Weft) -> None:
    error = one.run("fails")["error"]
    assert error["type"] == "ShellFailed", error
    assert error["message"] == "the command ended with exit code 7: no such order"
    assert error["data"] == {"exit_code": 7, "stdout": "out\n", "stderr": "no such order\n"}
    run = one.run("retries")
    [step] = one.get(f"/runs/{run['runId']}/steps")["items"]
    assert (step["kind"], step["status"], len(step["attempts"])) == ("shell", "failed", 3)
    error = one.run("asserts", {"value": "no"})["error"]
    assert (error["type"], error["message"]) == ("assertion_failed", "it is no")
    assert one.run("asserts", {"value": "yes"})["status"] == "succeeded"
    assert "no program `no-such-program`" in one.run("missing")["error"]["message"]
    assert "has no program" in one.run("named", {"value": ""})["error"]["message"]
    assert one.run("dies")["error"]["data"]["exit_code"] == 128 + 15


def test_a_command_sees_nothing_of_the_engine(one: Weft) -> None:
    lines = one.run("what-it-sees")["result"].splitlines()
    names = {line.partition("=")[0] for line in lines if "=" in line}
    assert names <= {"HOME", "LANG", "PATH", "PWD", "TMPDIR", "OLDPWD", "SHLVL", "_"}, lines
    assert "sh" in lines
    assert lines[-1] == "on"


def test_nothing_of_a_command_outlives_it(one: Weft) -> None:
    assert one.run("lingers")["result"] == "begun\n"
    late = one.run("sleeps")
    assert late["status"] in ("failed", "timed_out"), late

    def nothing_left() -> bool:
        return not [
            process for process in one.tree() if process.name == "sleep" and process.state not in "ZX"
        ]

    # Killed before the run has ended; on a busy machine it takes a moment to die.
    until(nothing_left, "nothing outlives the command", 5)


def test_output_is_bounded_and_goes_to_the_log(one: Weft) -> None:
    assert one.run("much")["result"] == 256 * 1024
    run = one.run("quiet")
    assert run["result"] == {"exit_code": 0, "stdout": "", "stderr": ""}
    assert [line["message"] for line in one.log(run["runId"])] == ["seen"]
    folder = one.run("folder")
    assert folder["result"]["stdout"] == "b\n", folder


def test_requests_go_where_steps_may_go(one: Weft) -> None:
    run = one.run("connects")
    assert run["status"] == "failed", run
    assert run["error"]["type"] == "Denied", run["error"]


def test_a_secret_is_a_variable_and_masked(one: Weft) -> None:
    assert "no secret `STEP_TOKEN`" in one.run("secretive")["error"]["message"]
    value = "s3cret-" + os.urandom(8).hex()
    assert one.call("PUT", "/secrets/STEP_TOKEN", {"value": value}).status in (200, 201)
    run = one.run("secretive")
    assert run["result"] == "token: ***\n", run
    assert value not in json.dumps(one.log(run["runId"]))
