"""What `requirements.txt` names is installed, whatever happens meanwhile. Wheels are made here, so no network is needed."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from weft import Weft, clean_environment, copy_workspace, descendants, problem, program, until, weft

USES = """
from weft import Context, workflow
import {package}

@workflow
def packaged(ctx: Context) -> dict[str, object]:
    import os
    writable = os.access(os.path.dirname({package}.__file__), os.W_OK) and os.getuid() != 0
    return {{"version": {package}.VERSION, "file": {package}.__file__, "writable": writable,
             "compiled": os.path.exists({package}.__cached__)}}
"""


def wheel(folder: Path, name: str, version: str, requires: str = "") -> Path:
    """The smallest package that an installer takes."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    files = {
        f"{name}.py": f"VERSION = {version!r}\n",
        f"{name}.pth": "import os; os._exit(9)\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
            record += f"{file},sha256={digest},{len(text)}\n"
            archive.writestr(file, text)
        archive.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    return path


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    wheel(folder, "weftpkg", "1.0")
    wheel(folder, "weftpkg", "2.0")
    wheel(folder, "weftneeds", "1.0", "weftpkg==1.0")
    (folder / "weftsource-1.0.tar.gz").write_bytes(b"not looked into")
    # A wheel may ask for sources by their address; building them would run `setup.py`.
    source = tmp_path / "weftcode-1.0"
    source.mkdir()
    (source / "setup.py").write_text(
        f"import pathlib, setuptools\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
        "setuptools.setup(name='weftcode', version='1.0')\n"
    )
    archive = shutil.make_archive(str(tmp_path / "weftcode-1.0"), "gztar", tmp_path, "weftcode-1.0")
    wheel(folder, "weftevil", "1.0", f"weftcode @ file://{archive}")
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = copy_workspace(tmp_path / "workspace")
    (folder / "requirements.txt").write_text("weftpkg==1.0\n")
    (folder / "workflows" / "packaged.py").write_text(USES.format(package="weftpkg"))
    return folder


@pytest.fixture(params=["pip", "uv"])
def offline(request: pytest.FixtureRequest, wheels: Path) -> dict[str, str]:
    """Settings with which packages come from the folder alone, by one installer and by the other."""
    folders = os.environ["PATH"].split(os.pathsep)
    with_uv = [folder for folder in folders if Path(folder, "uv").exists()]
    if request.param == "uv" and not with_uv:
        pytest.skip("there is no uv on the PATH")
    if request.param == "pip":
        folders = [folder for folder in folders if folder not in with_uv]
    return {"PATH": os.pathsep.join(folders), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}


@pytest.fixture
def slow(tmp_path: Path, wheels: Path) -> dict[str, str]:
    """An installer that says what it does, waits for a file, and then installs by hand."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "uv"
    script.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = --version ]; then echo uv 0.0.1; exit; fi\n'
        f"echo begun >>{tmp_path}/begun\n"
        "echo Fetching https://me:tell-nobody@index.example/simple\n"
        'while [ "$1" != --target ]; do shift; done\n'
        f"while [ ! -e {tmp_path}/go ]; do sleep 0.05; done\n"
        f'cd "$2" && exec python3 -m zipfile -e {wheels}/weftpkg-1.0-py3-none-any.whl .\n'
    )
    script.chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}"}


def status(one: Weft) -> dict[str, Any]:
    found: dict[str, Any] = one.get("/environments/current")
    return found


def test_a_package_is_there_when_the_workflow_is(
    make: Any, workspace: Path, offline: dict[str, str], wheels: Path
) -> None:
    one: Weft = make(workspace=workspace, environment=offline).start()
    result = one.run("packaged")["result"]
    assert result["version"] == "1.0"
    assert result["writable"] is False
    assert result["compiled"] is True
    found = status(one)
    assert found["status"] == "ready"
    assert found["packages"] == [{"name": "weftpkg", "version": "1.0"}]
    lib = one.data / "envs" / found["digest"] / "lib"
    # Where a step sees it, which is elsewhere when the data folder is below /tmp.
    assert result["file"].endswith(str(lib / "weftpkg.py"))
    modes = {path: path.stat().st_mode for path in [lib, *lib.rglob("*")]}
    assert not [path for path, mode in modes.items() if mode & 0o222]

    # An edit is another environment; the old one stays for runs that are pinned to it.
    (workspace / "requirements.txt").write_text("weftpkg>1\n")
    until(lambda: one.run("packaged")["result"]["version"] == "2.0", "the new version")
    assert status(one)["digest"] != found["digest"]
    assert lib.exists()

    # Back again: nothing is installed, and nothing has to be there to install from.
    shutil.rmtree(wheels)
    (workspace / "requirements.txt").write_text("# the same\nweftpkg == 1.0\n")
    assert one.run("packaged")["result"]["version"] == "1.0"
    assert status(one)["digest"] == found["digest"]

    # Nor after a start.
    assert one.stop(signal.SIGINT) == 0
    one.start()
    assert one.run("packaged")["result"]["version"] == "1.0"


def test_a_run_goes_on_with_the_packages_that_it_began_with(
    make: Any, workspace: Path, offline: dict[str, str]
) -> None:
    (workspace / "workflows" / "packaged.py").write_text(
        "import time\n\nimport weftpkg\n\nfrom weft import Context, workflow\n\n\n"
        "@workflow\ndef packaged(ctx: Context) -> str:\n"
        "    if ctx.run.attempt == 1:\n        time.sleep(60)\n"
        "    return weftpkg.VERSION\n"
    )
    one: Weft = make(workspace=workspace, environment=offline).start()
    run = one.begin("packaged")
    until(lambda: one.get(f"/runs/{run}")["status"] == "running", "the first attempt")
    assert one.stop(signal.SIGINT) == 0
    # As on another instance, which never had them, and where the workspace has moved on.
    environments = one.data / "envs"
    for folder in [path for path in environments.rglob("*") if path.is_dir()]:
        folder.chmod(0o755)
    shutil.rmtree(environments)
    (workspace / "requirements.txt").write_text("weftpkg==2.0\n")
    one.start()
    assert one.ended(run)["result"] == "1.0"
    assert any("waiting for the environment" in line["message"] for line in one.log(run))
    newer = [{"name": "weftpkg", "version": "2.0"}]
    until(lambda: status(one)["packages"] == newer, "the environment of the workspace as it is now")


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("weftmissing==1\n", "weftmissing"),
        ("weftsource==1.0\n", "weftsource"),
        ("weftneeds==1.0\nweftpkg==2.0\n", "weftpkg"),
        ("weftevil==1.0\n", "weftcode"),
    ],
    ids=["unknown", "source only", "conflicting", "source by address"],
)
def test_what_can_t_be_installed_says_why(
    make: Any, workspace: Path, offline: dict[str, str], wanted: str, said: str, tmp_path: Path
) -> None:
    (workspace / "requirements.txt").write_text(wanted)
    one: Weft = make(workspace=workspace, environment=offline).start()
    problem(
        one.execute("packaged"), 503, "environment_failed", detail=said, hint="weft env log", retriable=True
    )
    found = status(one)
    assert found["status"] == "failed"
    assert any(said in line for line in found["logTail"])
    assert not (tmp_path / "ran").exists()
    places = ("--workspace", workspace, "--data", one.data)
    assert weft("env", "status", *places, environment=offline).status == 1
    assert said in weft("env", "log", *places, environment=offline).stdout
    built = weft("env", "build", *places, "--json", environment=offline)
    assert (built.status, built.json["status"]) == (1, "failed")

    # Mended while it runs.
    (workspace / "requirements.txt").write_text("weftpkg==1.0\n")
    assert one.run("packaged")["result"]["version"] == "1.0"


def test_what_is_installed_for_the_interpreter_can_be_imported(
    make: Any, workspace: Path, offline: dict[str, str], tmp_path: Path
) -> None:
    (workspace / "requirements.txt").write_text("# nothing\n")
    base = os.environ.get("WEFT_PYTHON") or "python3"
    subprocess.run([base, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (packages,) = (tmp_path / "venv").glob("lib/python3*/site-packages")
    (packages / "weftpkg.py").write_text("VERSION = 'of the image'\n")
    settings = {**offline, "WEFT_PYTHON": str(tmp_path / "venv" / "bin" / "python")}
    one: Weft = make(workspace=workspace, environment=settings).start()
    assert one.run("packaged")["result"]["version"] == "of the image"
    assert status(one)["status"] == "none"
    assert not (one.data / "envs").exists()

    # What the workspace asks for comes first; this interpreter has no installer of its own.
    (workspace / "requirements.txt").write_text("weftpkg==2.0\n")
    if any(Path(folder, "uv").exists() for folder in offline["PATH"].split(os.pathsep)):
        until(lambda: one.run("packaged")["result"]["version"] == "2.0", "the environment")
    else:
        until(lambda: one.execute("packaged").status == 503, "the failure")
        problem(
            one.execute("packaged"),
            503,
            "environment_failed",
            detail="neither `uv`.* nor a `pip`",
            retriable=True,
        )


def test_requirements_that_reach_elsewhere_are_findings(workspace: Path, tmp_path: Path) -> None:
    (workspace / "requirements.txt").write_text("weftpkg\n--index-url https://evil.example\n-e .\n")
    places = ("--workspace", workspace, "--data", tmp_path / "data")
    checked = weft("check", *places, "--json", environment={})
    assert checked.status == 1
    found = {finding["pointer"]: finding["code"] for finding in checked.json["findings"]}
    assert found["workspace/requirements.txt:2:1"] == "index_in_workspace"
    assert found["workspace/requirements.txt:3:1"] == "runs_code"
    built = weft("env", "build", *places, environment={})
    assert (built.status, built.stdout) == (1, "")
    assert "requirements.txt:2:1" in built.stderr
    assert not list((tmp_path / "data").rglob("build.log"))


def test_check_says_that_the_packages_are_missing(
    workspace: Path, tmp_path: Path, offline: dict[str, str]
) -> None:
    places = ("--workspace", workspace, "--data", tmp_path / "data")
    checked = weft("check", *places, "--json", environment=offline)
    findings = checked.json["findings"]
    assert findings[0]["code"] == "environment_missing"
    assert "weft env build" in findings[0]["hint"]
    assert weft("env", "status", *places, environment=offline).status == 1
    built = weft("env", "build", *places, environment=offline)
    assert built.status == 0, built.stderr
    assert "weftpkg 1.0" in built.stdout
    assert weft("env", "status", *places, environment=offline).status == 0
    checked = weft("check", *places, environment=offline)
    assert (checked.status, checked.stdout) == (0, ""), checked


def test_a_start_and_other_work_wait_for_no_package(
    make: Any, workspace: Path, slow: dict[str, str], tmp_path: Path
) -> None:
    one: Weft = make(workspace=workspace, environment=slow).start()
    until(lambda: (tmp_path / "begun").exists(), "the build")
    problem(one.call("GET", "/ready"), 503, "environment_building", hint="env log", retriable=True)
    found = status(one)
    assert found["status"] == "building"
    assert found["logTail"][-1] == "Fetching https://***@index.example/simple"
    (tmp_path / "go").touch()
    assert one.run("packaged")["result"]["version"] == "1.0"
    assert "tell-nobody" not in one.said()
    assert "tell-nobody" not in (one.data / "envs" / found["digest"] / "build.log").read_text()

    # What was offered before stays while a newer environment is made.
    (tmp_path / "go").unlink()
    (workspace / "requirements.txt").write_text("weftpkg<3\n")
    assert one.run("packaged")["result"]["version"] == "1.0"
    until(lambda: status(one)["status"] == "building", "the second build")
    (tmp_path / "go").touch()
    until(lambda: status(one)["status"] == "ready", "the second environment")


def test_two_share_one_build_and_a_killed_one_leaves_nothing(
    workspace: Path, slow: dict[str, str], tmp_path: Path
) -> None:
    arguments = ["env", "build", "--workspace", str(workspace), "--data", str(tmp_path / "data")]

    def start() -> subprocess.Popen[str]:
        given = clean_environment(slow)
        return subprocess.Popen(
            [str(program()), *arguments],
            env=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    begun = tmp_path / "begun"
    first = start()
    until(begun.exists, "the build")
    below = descendants(first.pid)
    first.kill()
    first.communicate()
    assert weft("env", "status", *arguments[2:], environment=slow).status == 1
    # The installer that it left behind keeps the lock: nobody writes beside it.
    second = start()
    third = start()
    orphans = [process for process in below if process.alive]
    assert orphans
    for process in orphans:
        os.kill(process.pid, signal.SIGKILL)
    until(lambda: begun.read_text().count("begun") == 2, "the second build")
    (tmp_path / "go").touch()
    outputs = [one.communicate(timeout=60)[0] for one in (second, third)]
    assert [one.returncode for one in (second, third)] == [0, 0], outputs
    assert begun.read_text().count("begun") == 2
    assert any("another process builds this environment" in output for output in outputs)
    (environment,) = [path for path in (tmp_path / "data" / "envs").iterdir() if len(path.name) == 64]
    left = {path.name for path in environment.iterdir()}
    assert left == {"lib", "manifest.json", "build.log", "started.json", "used.json"}
    assert stat.S_IMODE((environment / "lib").stat().st_mode) == 0o555
