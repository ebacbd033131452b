"""Storage that goes away: a retriable 503 and nothing half-written meanwhile, and no restart afterwards."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator import Emulator
from weft import OWN_FILES, TERMINAL, WORKSPACE, Handler, Weft, problem, until, weft

CODES = {"storage_unavailable", "authentication_unavailable"}

ASKS: list[tuple[str, str]] = [
    ("POST", "/workflows/echo/execute"),
    ("GET", "/workflows"),
    ("GET", "/runs"),
    ("GET", "/audit"),
    ("GET", "/me"),
    ("GET", "/ready"),
]


def refused(one: Weft) -> None:
    """Everything that needs storage says so; what doesn't, still answers."""
    for method, target in ASKS:
        answer = one.call(method, target, {} if method == "POST" else None)
        assert answer.status == 503, (method, target, str(answer))
        code = answer.json["code"]
        assert code in CODES, answer
        problem(answer, 503, code, retriable=True, hint="epeat|again")
        assert str(one.data).encode() not in answer.body, answer
        assert answer.seconds < 20
    health = one.call("GET", "/health")
    assert (health.status, health.json) == (200, {"status": "ok"})


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def outage(one: Weft, tmp_path: Path, away: Callable[[], None], back: Callable[[], None]) -> None:
    """Runs before, in the middle of, and after an outage."""
    before = one.run("counts", {"path": str(tmp_path / "before")})
    through = one.begin("counts", {"path": str(tmp_path / "through"), "seconds": 2})
    until(lambda: lines(tmp_path / "through"), "it has begun")
    away()
    refused(one)
    answer = one.execute("counts", {"path": str(tmp_path / "during")}, Idempotency_Key="during")
    assert answer.status == 503, answer
    assert lines(tmp_path / "during") == []
    back()
    until(lambda: one.call("GET", "/ready").status == 200, "ready again", 30)
    # What was refused has left nothing, and the same request goes through.
    listed = [item["runId"] for item in one.get("/runs?limit=200")["items"]]
    assert sorted(listed) == sorted([before["runId"], through])
    after = one.run("counts", {"path": str(tmp_path / "during")}, Idempotency_Key="during")
    assert after["status"] == "succeeded"
    assert len(lines(tmp_path / "during")) == 1
    # What ran on through it has ended once, with its result.
    ended = one.ended(through, 60)
    assert (ended["status"], ended["result"]["attempt"]) == ("succeeded", 1), ended
    assert len(lines(tmp_path / "through")) == 1
    assert one.get(f"/runs/{before['runId']}")["result"] == before["result"]
    assert [run["status"] for run in one.get("/runs?limit=200")["items"]] == ["succeeded"] * 3
    one.lives()
    assert one.starts == 1


def sound(one: Weft) -> None:
    """The database, asked by somebody else, when Weft has ended."""
    one.stop()
    with sqlite3.connect(one.data / "weft.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_data_folder_that_goes_away_and_comes_back(make: Any, tmp_path: Path) -> None:
    one = make(environment={"WEFT_ISOLATION_OFF": OWN_FILES}).start()
    elsewhere = tmp_path / "elsewhere"

    def away() -> None:
        one.data.rename(elsewhere)

    def back() -> None:
        shutil.rmtree(one.data, ignore_errors=True)
        elsewhere.rename(one.data)

    outage(one, tmp_path, away, back)
    sound(one)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 6 MiB, where this user may make one; otherwise a folder with a limit on file sizes is no substitute."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=6m", "weft-test", disk], capture_output=True, check=False
    )
    yield disk if made.returncode == 0 else tmp_path / "no-disk"
    if made.returncode == 0:
        subprocess.run(["umount", "--lazy", disk], check=True)


def fill(path: Path) -> None:
    """Until there is no room left."""
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def test_a_disk_that_is_full(make: Any, tmp_path: Path, small_disk: Path) -> None:
    one = make()
    if small_disk.is_dir():
        one.data = small_disk / "data"
    one.start()
    before = one.run("echo", {"value": 1})
    filler = small_disk / "filler"
    if not small_disk.is_dir():
        # Without the right to mount, a database that may not be written stands in for it.
        assert os.geteuid() != 0, "root, and no right to mount: this machine allows neither way"
        for file in [one.data, *one.data.glob("weft.db*")]:
            file.chmod(0o500 if file.is_dir() else 0o400)
    else:
        with pytest.raises(OSError, match="No space"):
            fill(filler)

    # Small writes may still fit into pages that are there; large ones don't.
    def full_now() -> bool:
        answer = one.execute("echo", {"value": ["y" * 40_000] * 5})
        if answer.status == 200:
            return False
        code = answer.json["code"]
        assert code in CODES, answer
        problem(answer, 503, code, retriable=True, hint="epeat|again")
        return True

    until(full_now, "the disk is full")
    assert one.call("GET", "/health").status == 200
    # Reading is still possible where the call itself needs no record, and says 503 where it does.
    assert one.call("GET", f"/runs/{before['runId']}").status in (200, 503)
    if small_disk.is_dir():
        filler.unlink()
    else:
        for file in [one.data, *one.data.glob("weft.db*")]:
            file.chmod(0o700 if file.is_dir() else 0o600)
    until(lambda: one.execute("echo", {"value": 2}).status == 200, "it works again", 30)
    one.lives()
    assert one.get(f"/runs/{before['runId']}")["result"] == before["result"]
    statuses = {item["status"] for item in one.get("/runs?limit=200")["items"]}
    assert statuses <= TERMINAL, statuses
    assert one.starts == 1
    sound(one)


def test_a_database_that_is_none(make: Any) -> None:
    one = make()
    one.data.mkdir(parents=True)
    (one.data / "weft.db").write_bytes(b"This is no database. " * 500)
    one.launch()
    assert one.wait() == 1
    said = one.stderr.read_text()
    assert said.startswith("error: "), said
    assert "not a database" in said
    # It is somebody's file: it is not touched.
    assert (one.data / "weft.db").read_bytes().startswith(b"This is no database.")


def test_a_lock_of_another_program(make: Any) -> None:
    one = make().start()
    with sqlite3.connect(one.data / "weft.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = one.execute("echo", {"value": 1})
        assert answer.status == 503, answer
        problem(answer, 503, answer.json["code"], retriable=True)
        other.execute("ROLLBACK")
    one.lives()
    assert len(one.get("/runs?workflow=echo")["items"]) == 1


def test_the_emulator_stopped_and_started(make: Any, tmp_path: Path) -> None:
    emulator = Emulator(tmp_path / "azurite")
    emulator.start()
    try:
        one = make(environment={**emulator.environment, "WEFT_ISOLATION_OFF": OWN_FILES}).start(60)
        outage(one, tmp_path, emulator.stop, emulator.start)
        text = one.said()
        for secret in (
            emulator.environment["AzureWebJobsStorage"],
            "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6",
        ):
            assert secret not in text
        assert "AccountKey=" not in text
        one.stop()
    finally:
        emulator.stop()


def here(emulator: Emulator) -> str:
    return f"http://127.0.0.1:{emulator.ports['table']}/devstoreaccount1"


def test_storage_that_is_not_there_at_the_start(make: Any, tmp_path: Path) -> None:
    emulator = Emulator(tmp_path / "azurite")
    one = make(environment=emulator.environment)
    one.launch()
    assert one.wait(60) == 1
    said = one.stderr.read_text()
    assert f"error: storage can't be used (`{here(emulator)}` does not answer): " in said, said
    assert (
        "hint: start the storage emulator (`npx azurite`) and try again, or set `WEFT_STORE=sqlite`" in said
    ), said
    assert "AccountKey=" not in said
    assert "Eby8vdM02" not in said
    # Other commands say the same; and what the hint says helps.
    places: list[Any] = ["--workspace", one.workspace, "--data", one.data]
    for command in (["run", "echo"], ["doctor"]):
        done = weft(*command, *places, environment=emulator.environment)
        assert done.status == 1, done
        assert here(emulator) in done.stdout + done.stderr, done
        assert "hint: start the storage emulator" in done.stdout + done.stderr, done
    one.environment["WEFT_STORE"] = "sqlite"
    one.start()
    one.lives()


def test_an_account_that_is_not_there_at_the_start(tmp_path: Path) -> None:
    """An address elsewhere is no emulator that somebody forgot to start."""
    settings = "DefaultEndpointsProtocol=https;AccountName=nobody;AccountKey=AAAA;EndpointSuffix=weft.invalid"
    places: list[Any] = ["--workspace", WORKSPACE, "--data", tmp_path / "data"]
    done = weft("doctor", *places, environment={"WEFT_STORE": "azure", "AzureWebJobsStorage": settings})
    assert done.status == 1, done
    assert "(`https://nobody.table.weft.invalid/` does not answer)" in done.stdout, done
    assert "hint: check the address in `AzureWebJobsStorage`" in done.stdout, done
    assert "azurite" not in done.stdout
    assert "AAAA" not in done.stdout


class Waiting(Handler):
    """A `weft serve` over an emulator, as the Functions host starts one."""

    def __init__(self, folder: Path, emulator: Emulator) -> None:
        super().__init__(folder, Weft(folder, environment=emulator.environment))
        self.environment |= emulator.environment


def test_a_handler_waits_for_the_emulator_and_needs_no_restart(tmp_path: Path) -> None:
    emulator = Emulator(tmp_path / "azurite")
    one = Waiting(tmp_path / "handler", emulator)
    one.launch()
    try:
        until(lambda: one.call("GET", "/health").status == 200, "it listens")
        for method, target in (("GET", "/ready"), ("POST", "/workflows/echo/execute")):
            answer = one.call(method, target, {} if method == "POST" else None)
            problem(answer, 503, answer.json["code"], retriable=True)
        emulator.start()
        until(lambda: one.call("GET", "/ready").status == 200, "ready without a restart", 60)
        assert weft("seed", environment=one.environment).status == 0
        one.lives()
        assert one.starts == 1
    finally:
        if one.process is not None:
            one.stop()
        emulator.stop()
