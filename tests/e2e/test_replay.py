"""`weft replay` and `weft backtest`: what was recorded of runs, made again without a server, a network or effects."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dap import Client
from debugged import Debugged
from weft import KEY, Done, Weft, weft, weft_at

SECRET = "s3cret-value-of-the-shop"

CODE = '''\
import random
import uuid

from weft import Context, data_provider, workflow


class ShopClosed(Exception):
    """The shop has no such order."""


@data_provider(name="shop")
def shop(ctx: Context, order: int) -> list:
    """What a shop says; it changes its mind."""
    return [{"label": ctx.config.get("shop", "closed"), "value": order}]


@workflow(name="import-order", secrets=["SHOP_KEY"])
def import_order(ctx: Context, order: int) -> dict:
    """Asks a shop, keeps a number, throws dice."""
    key = ctx.secrets.get("SHOP_KEY")
    cursor = ctx.kv.get("cursor", 0)
    said = ctx.data.get("shop", {"order": order})
    ctx.kv.set("cursor", cursor + 1)
    print(f"the key is {key}")
    if order == 7:
        raise ShopClosed(f"no order {order} for {key}")
    dice = [random.randrange(10**9) for _ in range(3)]
    return {"said": said, "cursor": cursor, "dice": dice, "key": key, "shop": ctx.config.get("shop")}


@workflow(name="id")
def make_id(ctx: Context) -> str:
    """Is another one each time."""
    return str(uuid.uuid4())


@workflow(name="double")
def double(ctx: Context, n: int) -> int:
    """Doubles."""
    ctx.kv.set("last", n)
    return n * 2
'''
RAISES = CODE.splitlines().index('        raise ShopClosed(f"no order {order} for {key}")') + 1
GRAPH = {
    "name": "sums",
    "parameters": [{"name": "n", "type": "integer", "required": True}],
    "nodes": [
        {
            "id": "each",
            "type": "map",
            "use": "double",
            "items": {"$": "[inputs.n, inputs.n + 1]"},
            "inputs": {"n": {"$": "item"}},
        },
        {"id": "total", "type": "compute", "value": {"$": "steps.each.output | sum"}},
    ],
    "edges": [{"from": "each", "to": "total"}],
    "output": {"$": "steps.total.output"},
}


class Past:
    """Runs that are over, and where they are kept. What they asked says something else by now."""

    def __init__(self, one: Weft, workspace: Path) -> None:
        self.workspace = workspace
        self.file = workspace / "workflows" / "steps.py"
        self.url = one.url
        self.local: list[Any] = ["--data", one.data, "--workspace", workspace, "--organization", "contoso"]
        opened = weft("entry", "set", "shop", "open", "--organization", "contoso", "--data", str(one.data))
        assert opened.status == 0, opened.stderr
        secret = one.call("PUT", "/secrets/SHOP_KEY", {"value": SECRET})
        assert secret.status < 300, secret.body
        self.good = self.start(one, "import-order", {"order": 5})
        self.bad = self.start(one, "import-order", {"order": 7})
        self.id = self.start(one, "id", {})
        self.sums = [self.start(one, "sums", {"n": n}) for n in (1, 2)]
        assert [run["status"] for run in (self.good, self.bad, self.id)] == [
            "succeeded",
            "failed",
            "succeeded",
        ]
        shut = weft("entry", "set", "shop", "shut", "--organization", "contoso", "--data", str(one.data))
        assert shut.status == 0, shut.stderr

    @staticmethod
    def start(one: Weft, workflow: str, arguments: dict[str, Any]) -> dict[str, Any]:
        answer = one.execute(workflow, arguments)
        assert answer.status == 200, answer.body
        run: dict[str, Any] = answer.json
        return run

    def replay(self, run: dict[str, Any], *more: Any, **how: Any) -> Done:
        return weft("replay", run["runId"], *self.local, *more, **how)

    def rewrite(self, old: str, new: str) -> None:
        """Change the workspace's code."""
        assert old in CODE
        self.file.write_text(CODE.replace(old, new))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    folder = tmp_path_factory.mktemp("past")
    workspace = folder / "workspace"
    (workspace / "workflows").mkdir(parents=True)
    (workspace / "workflows" / "steps.py").write_text(CODE)
    (workspace / "workflows" / "sums.json").write_text(json.dumps(GRAPH))
    with weft_at(folder / "weft", workspace=workspace) as one:
        one.start()
        yield Past(one, workspace)


@pytest.fixture
def past(kept: Past) -> Iterator[Past]:
    yield kept
    kept.file.write_text(CODE)


def test_a_failed_run_fails_the_same_way_offline(past: Past) -> None:
    done = past.replay(past.bad)
    assert done.status == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line == (
        "main attempt 1: as recorded, failed: workflows.steps.ShopClosed: no order 7 for ***, 4 call(s)"
    )
    assert "1 attempt(s), 0 not as recorded" in done.stderr
    assert past.bad["error"]["type"] == "workflows.steps.ShopClosed"


def test_a_run_that_succeeded_comes_to_the_same_with_its_seed_and_its_answers(past: Past) -> None:
    done = past.replay(past.good, "--json")
    assert done.status == 0, done.stdout
    (attempt,) = done.json["attempts"]
    assert attempt["replayed"]["value"] == past.good["result"]
    assert past.good["result"]["said"] == [{"label": "open", "value": 5}], "that of then, not of now"
    assert past.good["result"]["key"] == "***"


def test_nothing_is_changed_by_it(past: Past) -> None:
    before = past.replay(past.good, "--json").json["attempts"][0]["replayed"]["value"]["cursor"]
    assert past.replay(past.good, "--json").json["attempts"][0]["replayed"]["value"]["cursor"] == before == 0


def test_the_first_difference_is_shown(past: Past) -> None:
    past.rewrite('"cursor": cursor, "dice"', '"cursor": cursor + 1, "dice"')
    other = past.replay(past.good)
    assert other.status == 1
    assert "the workspace is not what it was" in other.stderr
    assert other.stdout.splitlines()[1:] == [
        "  /succeeded/cursor recorded: 0",
        "  /succeeded/cursor now:      1",
    ]
    past.rewrite('    ctx.kv.set("cursor", cursor + 1)\n', "")
    fewer = past.replay(past.good, "--json")
    assert fewer.json["attempts"][0]["difference"] == {
        "what": "call",
        "number": 4,
        "recorded": {"name": "kv.set", "args": {"key": "cursor", "value": 1, "ttl_seconds": None}},
        "replayed": None,
    }
    past.rewrite("        raise ShopClosed", "        ctx.artifacts.list()\n        raise ShopClosed")
    more = past.replay(past.bad, "--json").json["attempts"][0]
    assert more["difference"]["number"] == 5
    assert more["difference"]["replayed"] == {"name": "artifacts.list", "args": {}}
    assert more["replayed"]["error"]["type"] == "NotAvailable", "nobody is asked what was not asked then"
    changed = past.replay(past.id)
    assert changed.status == 1
    assert "/succeeded recorded:" in changed.stdout


def test_a_file_is_enough(past: Past, tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    written = past.replay(past.bad, "--export", file)
    assert written.status == 0, written.stderr
    assert written.stdout == f"{file}\n"
    text = file.read_text()
    assert SECRET not in text
    assert "***" in text
    recording = json.loads(text)
    assert recording["run"] == past.bad["runId"]
    (attempt,) = recording["attempts"]
    assert attempt["bundle"] == past.bad["revision"]
    assert attempt["seed"] == attempt["context"]["run"]["seed"]
    names = [call["name"] for call in attempt["calls"]]
    assert names == ["secrets.get", "kv.get", "data.get", "kv.set"]
    assert attempt["calls"][0]["answer"] == "secret"
    elsewhere = ["--workspace", past.workspace, "--data", tmp_path / "empty"]
    done = weft("replay", "--from", file, *elsewhere)
    assert done.status == 0, done.stderr
    assert "as recorded, failed: workflows.steps.ShopClosed" in done.stdout
    broken = tmp_path / "broken.json"
    broken.write_text("{}")
    for given in (broken, tmp_path / "missing.json"):
        refused = weft("replay", "--from", given, *elsewhere)
        assert refused.status == 1
        assert "error: " in refused.stderr


HOSTILE = "\x1b]0;owned\x07\x9b31m\u202estep\nnote: all is well"


def test_what_a_file_says_is_shown_as_text_and_another_shape_is_refused(past: Past, tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    assert past.replay(past.bad, "--export", file).status == 0
    recording = json.loads(file.read_text())
    elsewhere = ["--workspace", past.workspace, "--data", tmp_path / "empty"]
    backtest = ["backtest", "import-order"]
    for change in (
        lambda told: told.update(schema=99),
        lambda told: told.update(schema=0),
        lambda told: told.update(schema="1\x1b[2J"),
        lambda told: told["attempts"][0].update(schema=2),
        lambda told: (told.update(schema=99), told.pop("attempts")),
    ):
        other = json.loads(json.dumps(recording))
        change(other)
        file.write_text(json.dumps(other))
        for command in (["replay"], backtest):
            refused = weft(*command, "--from", file, *elsewhere)
            assert refused.status == 1, refused
            assert "is of shape" in refused.stderr, refused.stderr
            assert "hint: use the version" in refused.stderr, refused.stderr
            assert "\x1b" not in refused.stderr
    attempt = recording["attempts"][0]
    attempt.update(step=HOSTILE)
    attempt["entry"]["name"] = attempt["entry"]["name"] + HOSTILE
    attempt["calls"][0]["name"] = HOSTILE
    attempt["outcome"]["error"]["type"] = HOSTILE
    recording["status"] = "failed"
    recording["error"] = {"type": HOSTILE, "message": HOSTILE}
    file.write_text(json.dumps(recording))
    for command in (
        ["replay"],
        ["replay", "--json"],
        ["replay", "--step", "x"],
        backtest,
        [*backtest, "--json"],
    ):
        done = weft(*command, "--from", file, *elsewhere)
        for text in (done.stdout, done.stderr):
            assert not {c for c in text if ord(c) < 32 or 127 <= ord(c) < 160 or c == "\u202e"} - {"\n"}, (
                command
            )
            assert "\nnote: all is well" not in text, command


def test_a_server_is_asked_with_a_key_that_may(past: Past, tmp_path: Path) -> None:
    places = ["--workspace", past.workspace, "--data", tmp_path / "empty"]
    asked = ["replay", past.bad["runId"], "--server", past.url, "--organization", "contoso", *places]
    done = weft(*asked, environment={"WEFT_SERVER_KEY": KEY})
    assert done.status == 0, done.stderr
    assert "as recorded, failed" in done.stdout
    without = weft(*asked)
    assert without.status == 1
    assert "WEFT_SERVER_KEY" in without.stderr
    wrong = weft(*asked, environment={"WEFT_SERVER_KEY": "wrong" * 8})
    assert wrong.status == 1
    assert " says: " in wrong.stderr
    assert "wrong" * 8 not in wrong.stderr


def test_what_there_is_none_of(past: Past) -> None:
    missing = weft("replay", "run_" + "0" * 26, *past.local)
    assert missing.status == 1
    assert "there is no run" in missing.stderr
    step = past.replay(past.bad, "--debug", "--step", "nosuch", "--debug-port", "0")
    assert step.status == 1
    assert "no such attempt on record" in step.stderr
    assert "main 1" in step.stderr


def test_recording_can_be_switched_off(past: Past, tmp_path: Path) -> None:
    places = ["--workspace", past.workspace, "--data", tmp_path / "data"]
    for switch, recorded in (("off", False), ("failed", False), ("all", True)):
        ran = weft("run", "id", "--json", *places, environment={"WEFT_RECORD_ATTEMPTS": switch})
        assert ran.status == 0, ran.stderr
        done = weft("replay", ran.json["run"], *places)
        assert ("nothing was recorded" not in done.stderr) is recorded, (switch, done.stderr)


def test_a_past_run_stops_at_a_breakpoint(past: Past, tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    assert past.replay(past.bad, "--export", file).status == 0
    one = Debugged(tmp_path, ["replay", "--from", str(file), "--workspace", str(past.workspace)])
    with closing(Client(one.port("main"))) as client:
        client.attach(str(past.file.resolve()), [RAISES])
        stopped = client.event("stopped")
        frame = client.request("stackTrace", {"threadId": stopped["threadId"]})["stackFrames"][0]
        assert frame["line"] == RAISES
        asked = {
            "frameId": frame["id"],
            "context": "repl",
            "expression": "(order, cursor, said[0]['label'], ctx.run.id)",
        }
        said = client.request("evaluate", asked)["result"]
        assert f"'{past.bad['runId']}'" in said
        assert "'open'" in said
        client.request("continue", {"threadId": stopped["threadId"]})
    status, out = one.end()
    one.kill()
    assert status == 0, one.said()
    assert "as recorded, failed: workflows.steps.ShopClosed" in out


def test_a_backtest_says_which_runs_would_differ(past: Past) -> None:
    same = weft("backtest", "sums", "--against", "2", *past.local)
    assert same.status == 0, same.stderr
    assert "2 run(s), 0 would differ" in same.stderr
    past.rewrite("return n * 2", "return n * 2 if n < 3 else n * 3")
    changed = weft("backtest", "sums", "--against", "5", *past.local, "--json")
    assert changed.status == 1, changed.stderr
    told = {run["run"]: run for run in changed.json["runs"]}
    assert changed.json["different"] == 1
    first, second = (told[run["runId"]] for run in past.sums)
    assert first["same"] is True
    assert second["difference"] == {"at": "/result", "recorded": 10, "replayed": 13}
    different = [one for one in second["attempts"] if one["difference"]]
    assert [(one["step"], one["item"]) for one in different] == [("each", 1)]
    # A step that was not there then runs, and asks nobody.
    graph = json.loads(json.dumps(GRAPH))
    graph["nodes"].append({"id": "more", "type": "python", "use": "double", "inputs": {"n": 1}})
    place = past.workspace / "workflows" / "sums.json"
    place.write_text(json.dumps(graph))
    past.file.write_text(CODE)
    added = weft("backtest", "sums", "--against", "1", *past.local, "--json")
    place.write_text(json.dumps(GRAPH))
    (run,) = added.json["runs"]
    assert run["replayed"]["status"] == "failed", added.stderr
    new = next(one for one in run["attempts"] if one["step"] == "more")
    assert new["difference"] == {"what": "not_recorded"}
    none = weft("backtest", "double", *past.local)
    assert none.status == 1
    assert "no run of `double` was recorded" in none.stderr
