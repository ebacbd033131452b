"""Start, probe, exit table and console of the handler process."""

from pathlib import Path

import pytest

from apps import http, make_app, running
from standin import console, hostlog
from standin.process import State, split_arguments
from standin.times import Times
from waiting import soon


async def test_environment_arguments_and_directory(tmp_path: Path) -> None:
    root = make_app(tmp_path / "app", {"api": http()})
    (root / "work").mkdir()
    env = {
        "AzureFunctionsJobHost__customHandler__description__workingDirectory": "work",
        "AzureFunctionsJobHost__customHandler__description__workerArguments": '["one two", "%INHERITED%"]',
        "INHERITED": "kept",
    }
    (root / "local.settings.json").write_text('{"Values": {"INHERITED": "not taken", "LOCAL": "taken"}}')
    async with running(root, env) as app:
        start = app.journal()[0]
        port = str(app.host.process.port)
        assert start["argv"] == ["one", "two", "kept"]
        assert start["cwd"] == str(root / "work")
        seen = start["env"]
        assert seen["FUNCTIONS_CUSTOMHANDLER_PORT"] == seen["FUNCTIONS_HTTPWORKER_PORT"] == port
        assert seen["FUNCTIONS_CUSTOMHANDLER_WORKER_ID"] == seen["FUNCTIONS_HTTPWORKER_ID"]
        assert seen["FUNCTIONS_APP_ROOT_PATH"] == str(root)
        assert (seen["INHERITED"], seen["LOCAL"]) == ("kept", "taken")
        assert "FUNCTIONS_CORETOOLS_ENVIRONMENT" not in seen
        probe = next(record for record in app.journal() if record.get("probe"))
        assert probe["headers"] == [["Host", f"127.0.0.1:{port}"]]


async def test_core_tools_add_their_marks(tmp_path: Path) -> None:
    async with running(make_app(tmp_path, {"api": http()}), auth="coretools") as app:
        seen = app.journal()[0]["env"]
        assert seen["FUNCTIONS_CORETOOLS_ENVIRONMENT"] == "True"
        assert seen["AZURE_FUNCTIONS_ENVIRONMENT"] == "Development"
        assert seen["AzureWebJobsScriptRoot"] == str(tmp_path)
        assert "WEBSITE_AUTH_ENABLED" not in seen


def test_arguments_fall_apart_at_blanks() -> None:
    assert split_arguments('serve  --name "a b" ""') == ["serve", "--name", "a b", ""]


async def test_reset_after_connect_counts_as_ready(tmp_path: Path) -> None:
    async with running(make_app(tmp_path, {"api": http()}), {"FAKE_START": "reset"}, times=Times()) as app:
        assert app.host.process.state is State.READY
        # The port is open a moment later; a bodyless request is repeated until it answers.
        assert await app.status("GET", "/api/x") == 200


async def test_a_request_waits_for_a_starting_handler_and_then_gets_503(tmp_path: Path) -> None:
    root = make_app(tmp_path, {"api": http()})
    times = Times(availability_wait=0.1)
    async with running(root, {"FAKE_START": "never"}, ready=False, times=times) as app:
        async with app.request("GET", "/api/x") as response:
            assert response.status == 503
            assert await response.text() == "Function host is not running."


async def test_exit_zero_is_believed_to_be_up_for_ever(tmp_path: Path) -> None:
    async with running(make_app(tmp_path, {"api": http()})) as app:
        assert await app.status("GET", "/api/exit?code=0") == 500
        await soon(lambda: app.host.process.state is State.EXITED_ZERO, "exit with 0 seen")
        assert await app.status("GET", "/api/x") == 500
        assert app.host.process.starts == 1
        assert app.host.process.exits == [0]


async def test_exit_200_restarts_without_counting(tmp_path: Path) -> None:
    async with running(make_app(tmp_path, {"api": http()})) as app:
        for round_number in range(1, 5):
            # With a body, so that the request is not repeated against the new process.
            assert await app.status("POST", "/api/exit?code=200", data=b"x") == 500
            await soon(lambda n=round_number: app.host.process.starts == n + 1, "restart")
            await app.host.process.wait_ready(30)
        assert app.host.process.exits == [200] * 4
        assert app.host.stop_reason is None
        assert await app.status("GET", "/api/x") == 200


async def test_the_third_error_stops_the_host(tmp_path: Path) -> None:
    async with running(make_app(tmp_path, {"api": http()}), {"FAKE_START": "exit:7"}, ready=False) as app:
        await app.host.stopped.wait()
        assert app.host.process.exits == [7, 7, 7]
        assert "3" in (app.host.stop_reason or "")
        assert any("code 7; last words" in record.message for record in app.host.log.records)
        assert await app.status("GET", "/api/x") == 503


async def test_old_errors_are_forgotten(tmp_path: Path) -> None:
    root = make_app(tmp_path, {"api": http()})
    async with running(root, times=Times(strike_window=0.0)) as app:
        for round_number in range(1, 5):
            app.host.process.kill()
            await soon(lambda n=round_number: app.host.process.starts == n + 1, "restart")
            await app.host.process.wait_ready(30)
        assert app.host.process.exits == [137] * 4


async def test_not_opening_the_port_counts_as_an_error(tmp_path: Path) -> None:
    root = make_app(tmp_path, {"api": http()}, {"customHandler": {"initializationTimeout": "00:00:00.2"}})
    async with running(root, {"FAKE_START": "never"}, ready=False) as app:
        await app.host.stopped.wait()
        assert app.host.process.exits == [137] * 3


async def test_a_missing_executable_stops_the_host(tmp_path: Path) -> None:
    root = make_app(
        tmp_path, {}, {"customHandler": {"description": {"defaultExecutablePath": "no-such-thing"}}}
    )
    async with running(root, ready=False) as app:
        await app.host.stopped.wait()
        assert app.host.process.exits == []


@pytest.mark.parametrize(
    ("line", "errors_only", "level"),
    [
        ("all is well", True, hostlog.ERROR),
        ("some WARNing", True, hostlog.WARNING),
        ("all is well", False, hostlog.INFORMATION),
        ("an Error", False, hostlog.ERROR),
        ("it failed", False, hostlog.ERROR),
        ("a warning of failure", False, hostlog.WARNING),
    ],
)
def test_level_of_stderr(line: str, errors_only: bool, level: str) -> None:
    assert console.stderr_level(line, errors_only) == level


async def test_console_lines_reach_the_log(tmp_path: Path) -> None:
    async with running(make_app(tmp_path, {"api": http()})) as app:
        text = "LanguageWorkerConsoleLog inner\nan error on stdout"
        await app.status("POST", "/api/print?to=stdout", data=text)
        await app.status("POST", "/api/print?to=stderr", data="plain\nwarned")
        found = []
        for wanted in ("LanguageWorkerConsoleLog inner", "an error on stdout", "plain", "warned"):
            record = await app.host.log.wait_for(lambda r, w=wanted: r.message == w, 10)
            found.append((record.level, record.category))
        assert found == [
            (hostlog.INFORMATION, hostlog.SYSTEM_CONSOLE),
            (hostlog.INFORMATION, hostlog.CONSOLE),
            (hostlog.ERROR, hostlog.CONSOLE),
            (hostlog.WARNING, hostlog.CONSOLE),
        ]
