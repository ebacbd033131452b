"""A workspace file is live at the next call, whatever is written into it, and a run keeps the code that it began with."""

import os
from pathlib import Path
from typing import Any

import pytest

from weft import Weft, copy_workspace, problem, until

ANSWERS = """
from weft import Context, workflow

@workflow
def edited(ctx: Context) -> object:
    return {answer!r}
"""


@pytest.fixture
def one(make: Any, tmp_path: Path) -> Weft:
    started: Weft = make(workspace=copy_workspace(tmp_path / "workspace")).start()
    return started


def write(one: Weft, text: str, name: str = "edited.py") -> Path:
    path = one.workspace / "workflows" / name
    path.write_text(text)
    return path


def test_an_edit_is_live_at_the_next_call(one: Weft) -> None:
    problem(one.execute("edited"), 404, "workflow_not_found", hint="declares")
    revisions = set()
    for answer in range(5):
        write(one, ANSWERS.format(answer=answer))
        run = one.run("edited")
        assert run["result"] == answer
        revisions.add(run["revision"])
    assert len(revisions) == 5
    assert one.process is not None
    assert one.process.poll() is None
    assert one.starts == 1


def test_an_edit_of_the_same_length_at_the_same_time_of_day(one: Weft) -> None:
    path = write(one, ANSWERS.format(answer=1))
    assert one.run("edited")["result"] == 1
    stamp = path.stat()
    path.write_text(ANSWERS.format(answer=2))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert one.run("edited")["result"] == 2


def test_an_editor_that_writes_beside_and_renames(one: Weft) -> None:
    write(one, ANSWERS.format(answer="old"))
    assert one.run("edited")["result"] == "old"
    write(one, ANSWERS.format(answer="new"), "edited.py.swp").rename(
        one.workspace / "workflows" / "edited.py"
    )
    assert one.run("edited")["result"] == "new"


def test_a_removed_file_and_a_renamed_one(one: Weft) -> None:
    path = write(one, ANSWERS.format(answer=1))
    assert one.run("edited")["result"] == 1
    path.rename(path.with_name("moved.py"))
    run = one.run("edited")
    assert run["result"] == 1
    assert one.get("/workflows/edited")["source"].startswith("workspace/workflows/moved.py:")
    path.with_name("moved.py").unlink()
    problem(one.execute("edited"), 404, "workflow_not_found")


def test_a_helper_module_is_live_too(one: Weft) -> None:
    write(one, "VALUE = 1\n", "helper.py")
    write(
        one,
        "from weft import Context, workflow\nfrom workflows.helper import VALUE\n\n"
        "@workflow\ndef edited(ctx: Context) -> int:\n    return VALUE\n",
    )
    assert one.run("edited")["result"] == 1
    write(one, "VALUE = 22\n", "helper.py")
    assert one.run("edited")["result"] == 22


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        ("def broken(:\n", "syntax_error", 1),
        ("import weft_runtime\n", "import_forbidden", 1),
        ("import os\nfrom engine import weft\n", "import_forbidden", 2),
        ("from weft import workflow\n1 / 0\n\n\n@workflow\ndef edited():\n    pass\n", "import_failed", 2),
        (
            "import nowhere\nfrom weft import workflow\n\n\n@workflow\ndef edited():\n    pass\n",
            "import_failed",
            1,
        ),
        ("from weft import workflow\n\n\n@workflow\ndef echo():\n    pass\n", "duplicate_name", None),
    ],
)
def test_a_mistake_keeps_only_its_own_file_out(one: Weft, text: str, code: str, line: int | None) -> None:
    one.lives()
    write(one, text)
    assert one.get("/ready") == {"status": "degraded"}
    one.run("nothing")
    findings = one.get("/status")["workspace"]["findings"]
    mine = [finding for finding in findings if finding["code"] == code]
    assert mine, findings
    if line is not None:
        assert mine[0]["pointer"].startswith(f"workspace/workflows/edited.py:{line}"), mine
    # Whoever asks for what it declares is told that something is kept out.
    answer = one.execute("edited")
    hint = r"finding.*weft check"
    if "workflows/edited.py" in mine[0]["pointer"]:
        # And where, first of all.
        hint = rf"^`workspace/workflows/edited\.py:\d+(:\d+)?` keeps its file out \({code}\).*{hint}"
    problem(answer, 404, "workflow_not_found", hint=hint)
    write(one, ANSWERS.format(answer="mended"))
    assert one.run("edited")["result"] == "mended"
    assert one.get("/ready") == {"status": "ok"}


def test_a_file_that_leaves_at_its_import(one: Weft) -> None:
    write(
        one,
        "import sys\nfrom weft import workflow\nsys.exit('not here')\n@workflow\ndef edited():\n    pass\n",
    )
    assert one.get("/ready")["status"] == "degraded"
    one.lives()


def test_a_file_that_ends_its_process_at_its_import(one: Weft) -> None:
    write(one, "import os\nfrom weft import workflow\nos._exit(1)\n@workflow\ndef edited():\n    pass\n")
    assert one.get("/ready")["status"] == "degraded"
    [finding] = one.get("/status")["workspace"]["findings"]
    assert finding["code"] == "import_failed"
    assert "os._exit" in finding["message"], finding
    assert finding["hint"].startswith("a module must come to the end of its import"), finding
    write(one, ANSWERS.format(answer="mended"))
    assert one.run("edited")["result"] == "mended"
    one.lives()


def test_a_run_keeps_the_code_that_it_began_with(one: Weft) -> None:
    slow = (
        "import time\nfrom weft import Context, Retry, RetryableError, workflow\n\n"
        "@workflow(retry=Retry(attempts=2, delay_seconds=1))\n"
        "def edited(ctx: Context) -> str:\n"
        "    if ctx.run.attempt < 2:\n        raise RetryableError('again')\n    return 'WORD'\n"
    )
    write(one, slow.replace("WORD", "old"))
    run = one.begin("edited")
    until(lambda: one.get(f"/runs/{run}")["status"] == "waiting", "the first attempt has failed")
    assert "next attempt" in one.get(f"/runs/{run}")["waitingFor"]["detail"]
    write(one, slow.replace("WORD", "new"))
    assert one.run("edited")["result"] == "new"
    ended = one.ended(run)
    assert (ended["status"], ended["result"]) == ("succeeded", "old")


def test_a_workspace_that_goes_away_and_comes_back(one: Weft) -> None:
    one.lives()
    away = one.workspace.rename(one.workspace.with_name("away"))
    problem(one.execute("echo"), 503, "workspace_unavailable", hint="WEFT_WORKSPACE", retriable=True)
    problem(one.call("GET", "/ready"), 503, "workspace_unavailable", hint="WEFT_WORKSPACE", retriable=True)
    assert one.call("GET", "/health").status == 200
    away.rename(one.workspace)
    one.lives()


def test_a_yaml_file_is_live_and_kept_out_while_it_is_broken(one: Weft) -> None:
    text = "name: edited\nsteps:\n  - {{id: say-it, type: compute, value: {value}}}\noutput: '{{{{ steps.say-it.output }}}}'\n"
    write(one, text.format(value="'yes'"), "edited.yaml")
    assert one.run("edited")["result"] == "yes"
    path = write(one, text.format(value="12"), "edited.yaml")
    assert one.run("edited")["result"] == 12
    write(one, text.format(value="1, valeu: 2"), "edited.yaml")
    problem(one.execute("edited"), 404, "workflow_not_found")
    # The others are there.
    write(one, ANSWERS.format(answer="python").replace("edited", "another"), "another.py")
    assert one.run("another")["result"] == "python"
    write(one, text.format(value="13"), "edited.yaml")
    assert one.run("edited")["result"] == 13
    path.unlink()
    problem(one.execute("edited"), 404, "workflow_not_found")
