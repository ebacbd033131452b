"""One attempt in a real worker: values, errors, output, and every way to end."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from handler import CONTEXT, Handler

VICTIMS = Path(__file__).resolve().parents[1] / "supports" / "victims"
WORKSPACE = Path(__file__).resolve().parents[3] / "workspace"


def victim(handler: Handler, function: str, arguments: dict[str, Any] | None = None, **changes: Any) -> Any:
    return handler.attempt(VICTIMS, "workflows.victims", function, arguments, **changes)


def test_hello(handler: Handler) -> None:
    result = handler.attempt(WORKSPACE, "workflows.hello", "hello", {"name": "Ada"})
    assert result.value == {"message": "Hello, Ada!", "organization": "contoso"}
    assert [frame["t"] for frame in result.frames] == ["ready", "log", "succeeded"]
    assert (result.exited["code"], result.exited["signal"]) == (0, None)
    assert result.exited["max_rss_kib"] > 0


def test_async_with_checkpoints_and_variables(handler: Handler) -> None:
    arguments = {"email": "ada@contoso.example", "name": "Ada", "department": "engineering"}
    result = handler.attempt(WORKSPACE, "workflows.user_onboarding", "user_onboarding", arguments)
    assert result.value["licenses"] == ["office-basic"]
    assert [frame["name"] for frame in result.of("checkpoint")] == [
        "account_created",
        "licenses_assigned",
        "welcome_sent",
    ]
    assert result.last is not None
    assert result.last["variables"] == {"account_id": "acc-key-1"}


def test_an_exception_of_the_sdk(handler: Handler) -> None:
    result = handler.attempt(WORKSPACE, "workflows.webhook_example", "webhook_example", {"payload": {"a": 1}})
    assert result.error["type"] == "InvalidInput"
    assert result.error["retriable"] is False
    assert result.error["data"] == {"missing": "event", "keys": ["a"]}


def test_a_data_provider(handler: Handler) -> None:
    result = handler.attempt(
        WORKSPACE, "data_providers.departments", "departments", kind="data_provider", context={"config": {}}
    )
    assert {"label": "Sales", "value": "sales"} in result.value


def test_wrong_arguments(handler: Handler) -> None:
    result = handler.attempt(WORKSPACE, "workflows.hello", "hello", {"nmae": "Ada"})
    assert result.error["type"] == "InvalidInput"
    assert "`nmae` is unknown" in result.error["message"]


def test_an_entry_that_is_not_declared(handler: Handler) -> None:
    assert "no workflow function `helper`" in victim(handler, "helper").error["message"]
    assert victim(handler, "missing").error["type"] == "NotFound"
    assert "no data provider" in victim(handler, "environment", kind="data_provider").error["message"]


def test_tracebacks_show_the_workspace_only(handler: Handler) -> None:
    error = victim(handler, "raises").error
    assert error["type"] == "workflows.victims.Trouble"
    assert error["message"] == "deep down"
    assert error["retriable"] is None
    lines = error["traceback"].splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert 'File "workspace/workflows/victims.py"' in lines[1]
    assert "1 / divisor" in lines[2]
    assert "    helper(0)\n" in error["traceback"]
    assert lines[-1] == "workflows.victims.Trouble: deep down"
    assert "The above exception was the direct cause" in error["traceback"]
    assert "weft_runtime" not in error["traceback"]
    assert "_context.py" not in victim(handler, "raises_in_sdk").error["traceback"]


def test_places_of_the_machine_are_shown_by_what_they_are(handler: Handler) -> None:
    library = f"python{sys.version_info.major}.{sys.version_info.minor}"
    traceback = victim(handler, "raises_in_library").error["traceback"]
    assert f'File "{library}/json/decoder.py", line' in traceback
    # The line itself is there all the same.
    assert "raw_decode" in traceback
    assert 'File "/' not in traceback
    error = victim(handler, "names_places").error
    assert error["message"] == (
        f"no workspace/workflows/victims.py, {library}/os.py: file://workspace/workflows; site-packages/y.py"
    )
    assert str(VICTIMS) not in error["traceback"]


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        ("leaves", "SystemExit", "sys.exit(3)"),
        ("interrupts", "KeyboardInterrupt", "interrupted"),
        ("recurses", "RecursionError", "maximum recursion depth"),
        ("groups", "ExceptionGroup", "two things"),
        ("unprintable", "workflows.victims.Unprintable", "can't be made"),
    ],
)
def test_unusual_exceptions(handler: Handler, function: str, kind: str, message: str) -> None:
    result = victim(handler, function)
    assert result.error["type"] == kind
    assert message in result.error["message"]
    assert len(result.error["traceback"].encode()) <= 16 * 1024
    assert result.exited["code"] == 0


def test_out_of_memory(handler: Handler) -> None:
    result = victim(handler, "eats_memory", limits={"memory_bytes": 64 * 1024 * 1024})
    assert result.error["type"] == "MemoryError"


@pytest.mark.parametrize(
    ("what", "place"),
    [
        ("set", "result is a set"),
        ("datetime", "result.items[3].when is a datetime; convert it with .isoformat()"),
        ("nan", "result.ratio is NaN"),
        ("key", "result has the key 1 of type int"),
        ("deep", "deeper than 100 levels"),
        ("surrogate", "surrogate"),
    ],
)
def test_a_result_that_is_not_json(handler: Handler, what: str, place: str) -> None:
    error = victim(handler, "returns", {"what": what}).error
    assert error["type"] == "ResultNotJson"
    assert place in error["message"]
    assert error["retriable"] is False


@pytest.mark.parametrize("what", ["huge", "huge_list", "escapes"])
def test_a_result_that_is_too_large(handler: Handler, what: str) -> None:
    result = victim(handler, "returns", {"what": what})
    assert result.error["type"] == "ResultTooLarge"
    assert "the limit is 1048576" in result.error["message"]
    assert result.exited["code"] == 0


def test_a_result_of_just_the_limit(handler: Handler) -> None:
    result = victim(handler, "returns", {"what": "exact"}, limits={"result_bytes": 1000})
    assert len(result.value) == 998


def test_a_named_exit_code(handler: Handler) -> None:
    result = victim(handler, "exits_at_once")
    assert result.last is None
    assert result.exited["code"] == 42


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_signal_to_itself(handler: Handler, number: int) -> None:
    result = victim(handler, "kills_itself", {"number": int(number)})
    assert result.last is None
    assert (result.exited["code"], result.exited["signal"]) == (None, number)


def test_the_cpu_limit(handler: Handler) -> None:
    result = victim(handler, "spins", limits={"cpu_seconds": 1})
    assert result.exited["signal"] == signal.SIGXCPU


def test_the_file_limit(handler: Handler) -> None:
    assert "File too large" in victim(handler, "writes_file", limits={"disk_bytes": 4096}).error["message"]


def test_the_descriptor_limit(handler: Handler) -> None:
    assert victim(handler, "opens_many", limits={"open_files": 32}).error["type"] == "OSError"


def test_output_is_complete_before_the_last_frame(handler: Handler) -> None:
    result = victim(handler, "prints")
    assert result.worker.stdout == "one\ntwo ä\\udc80\nno newline"
    assert result.worker.stderr == "warning\n"


def test_a_hundred_megabytes_of_output(handler: Handler) -> None:
    worker = handler.fork(VICTIMS, "workflows.victims")
    assert worker.frame() is not None
    entry = {"kind": "workflow", "name": "floods", "function": "floods"}
    worker.send({"t": "attempt", "entry": entry, "arguments": {}, "context": CONTEXT})
    last = worker.frame()
    worker.drain()
    assert last is not None
    assert last["t"] == "succeeded"
    assert worker.printed_bytes == 100 * 1000 * 1000
    assert handler.hear("exited", worker.id)["code"] == 0


def test_output_arrives_while_it_runs(handler: Handler) -> None:
    worker = handler.fork(VICTIMS, "workflows.victims")
    assert worker.frame() is not None
    entry = {"kind": "workflow", "name": "hangs", "function": "hangs"}
    worker.send({"t": "attempt", "entry": entry, "arguments": {}, "context": CONTEXT})
    worker.wait_for_output("hanging\n")
    handler.say({"op": "kill", "id": worker.id})
    assert handler.hear("exited", worker.id)["signal"] == signal.SIGKILL


@pytest.mark.parametrize("nice", [None, 19])
def test_it_gives_way_when_told_to(handler: Handler, nice: int | None) -> None:
    worker = handler.fork(VICTIMS, "workflows.victims")
    assert worker.frame() is not None
    entry = {"kind": "workflow", "name": "priority", "function": "priority"}
    more = {} if nice is None else {"nice": nice}
    worker.send({"t": "attempt", "entry": entry, "arguments": {}, "context": CONTEXT, **more})
    last = worker.frame()
    worker.drain()
    assert last is not None
    assert last["value"] == (os.getpriority(os.PRIO_PROCESS, 0) if nice is None else nice), last
    assert handler.hear("exited", worker.id)["code"] == 0


def test_standard_input_is_at_its_end(handler: Handler) -> None:
    assert victim(handler, "reads_input").value == ["", "EOFError"]


def test_the_process_holds_nothing(handler: Handler) -> None:
    result = victim(handler, "environment")
    found = result.value
    scratch = result.worker.scratch
    assert found["environ"] == {
        "PATH": "/usr/bin:/bin",
        "HOME": scratch,
        "TMPDIR": scratch,
        "LANG": "C.UTF-8",
    }
    assert found["cwd"] == scratch
    assert found["mode"] == 0o700
    assert found["fds"] == [0, 1, 2, 3]
    assert found["sid"] == found["pid"] == result.worker.pid
    assert found["name"] == "weft-worker"
    assert found["core"] == [0, 0]
    assert found["signals"] == ["SIG_DFL", "SIG_DFL", "default_int_handler"]
    if os.path.exists("/proc/self/status"):
        assert found["no_new_privs"] == "1"
        assert found["dumpable"] == 0
    assert found["gc"] is True


def test_two_attempts_share_no_randomness(handler: Handler) -> None:
    assert victim(handler, "randoms").value != victim(handler, "randoms").value


def test_preloaded_randomness_is_not_shared_either() -> None:
    with Handler(preload=("random", "asyncio", "no_such_module")) as handler:
        assert victim(handler, "randoms").value != victim(handler, "randoms").value
        assert "preload of `no_such_module` failed" in handler.complaints()


def test_a_forked_child_that_returns_is_silent(handler: Handler) -> None:
    result = victim(handler, "forks_and_returns")
    assert result.value == "parent"
    assert len(result.of("succeeded")) == 1
    assert len(result.of("log")) == 1


def test_threads_may_log_and_ask(handler: Handler) -> None:
    result = victim(handler, "threads")
    assert result.value == [None] * 40
    assert [frame["id"] for frame in result.of("call")] == list(range(1, 41))
    assert len(result.of("log")) == 40


def test_a_thread_that_goes_on_is_not_waited_for(handler: Handler) -> None:
    assert victim(handler, "leaves_a_thread").value == "done"


def test_refusals_of_the_broker(handler: Handler) -> None:
    worker = handler.fork(VICTIMS, "workflows.victims")
    assert worker.frame() is not None
    entry = {"kind": "workflow", "name": "asks", "function": "asks"}
    worker.send({"t": "attempt", "entry": entry, "arguments": {}, "context": CONTEXT})
    for code in ("denied", "not_found", "not_available", "invalid", "too_large", "unavailable"):
        call = worker.frame()
        assert call is not None
        assert (call["t"], call["name"], call["args"]) == ("call", "config.get", {"key": code})
        worker.send({"t": "reply", "id": call["id"], "error": {"code": code, "message": f"it is {code}"}})
    last = worker.frame()
    assert last is not None
    assert last["value"] == ["Denied", "NotFound", "NotAvailable", "InvalidInput", "TooLarge", "Unavailable"]
    handler.hear("exited", worker.id)


@pytest.mark.parametrize(
    "frame",
    [
        {"t": "reply", "id": 2, "value": 1},
        {"t": "attempt", "entry": {}, "arguments": {}, "context": {}},
        {"t": "describe", "root_name": "workspace"},
    ],
)
def test_frames_out_of_order(handler: Handler, frame: dict[str, Any]) -> None:
    worker = handler.fork(VICTIMS, "workflows.victims")
    assert worker.frame() is not None
    entry = {"kind": "workflow", "name": "asks", "function": "asks"}
    worker.send({"t": "attempt", "entry": entry, "arguments": {}, "context": CONTEXT})
    assert worker.frame() is not None
    worker.send(frame)
    assert handler.hear("exited", worker.id)["code"] == 72
    worker.drain()
    assert "where" in worker.stderr


def test_a_handler_that_leaves(handler: Handler) -> None:
    worker = handler.fork(VICTIMS, "workflows.victims")
    assert worker.frame() is not None
    worker.sock.close()
    assert handler.hear("exited", worker.id)["code"] == 71


def test_a_set_up_that_fails(handler: Handler, tmp_path: Path) -> None:
    worker = handler.fork(VICTIMS, "workflows.victims", scratch=str(tmp_path / "no" / "such"))
    assert worker.frames() == []
    assert handler.hear("exited", worker.id)["code"] == 70
    worker.drain()
    assert "set-up failed: FileNotFoundError" in worker.stderr


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("1 / 0\n", "ZeroDivisionError"),
        ("def broken(:\n", "SyntaxError"),
        ("import sys\nsys.exit(0)\n", "SystemExit"),
        ("import nothing_of_that_name\n", "ModuleNotFoundError"),
        ("import engine.shared.storage\n", "ImportError"),
    ],
)
def test_a_module_that_fails_to_import(handler: Handler, bundle: Any, text: str, kind: str) -> None:
    worker = handler.fork(bundle(text), "workflows.main")
    (failed,) = worker.frames()
    assert failed["error"]["type"] == kind
    assert "workspace/workflows/main.py" in failed["error"]["traceback"]
    assert handler.hear("exited", worker.id)["code"] == 0


def test_a_module_that_is_not_there(handler: Handler, bundle: Any) -> None:
    worker = handler.fork(bundle("x = 1\n"), "workflows.other")
    (failed,) = worker.frames()
    assert failed["error"]["type"] == "ModuleNotFoundError"
    handler.hear("exited", worker.id)
