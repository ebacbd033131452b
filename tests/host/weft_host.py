"""Weft under a host: the binary, seeded storage, and a stand-in host in a process of its own."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from waiting import eventually

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
DEVELOPMENT_KEY = "weft-dev-key"
MASTER_KEY = "master-key-of-the-tests"
KEY = {"x-functions-key": DEVELOPMENT_KEY, "X-Organization-Id": "contoso"}
FINISHED = {"succeeded", "failed", "cancelled", "timed_out", "skipped"}
DEVELOPMENT = {"WEFT_STORE": "azure", "WEFT_ENVIRONMENT": "development", "FUNCTIONS_WORKER_RUNTIME": "custom"}
PRODUCTION = {**DEVELOPMENT, "WEFT_ENVIRONMENT": "production"}


def binary() -> Path | None:
    """``WEFT_BINARY``, else what cargo has built."""
    named = os.environ.get("WEFT_BINARY")
    if named:
        return Path(named).resolve()
    built = (REPOSITORY / "target" / profile / "weft" for profile in ("debug", "release"))
    return next((path for path in built if path.is_file()), None)


@dataclass
class Answer:
    """An HTTP answer, read whole."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON; the text is shown when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise AssertionError(f"{self.status}, not JSON: {self.body[:500]!r}") from None


def send(
    base: str, method: str, target: str, *, headers: Mapping[str, str] | None = None, body: Any = None
) -> Answer:
    """One request; ``target`` goes on the wire as it is. A body that is not bytes is sent as JSON."""
    parts = urllib.parse.urlsplit(base)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    headers = dict(headers or {})
    data = body
    if body is not None and not isinstance(body, bytes):
        data = json.dumps(body).encode()
        headers.setdefault("Content-Type", "application/json")
    try:
        connection.request(method, target, body=data, headers=headers)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    except http.client.HTTPException as error:
        raise ConnectionError(repr(error)) from error
    finally:
        connection.close()


@dataclass
class Setting:
    """What every host of a test run shares: the storage and the environment that belongs to it."""

    program: Path
    connection_string: str
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        workspace = self.folder / "workspace"
        shutil.copytree(REPOSITORY / "workspace", workspace)
        shutil.copytree(HERE / "workspace", workspace, dirs_exist_ok=True)
        self.environment = {
            "AzureWebJobsStorage": self.connection_string,
            "WEFT_DATA": str(self.folder / "data"),
            "WEFT_WORKSPACE": str(workspace),
            "WEFT_SIGNING_KEY": "a-signing-key-for-the-tests-of-the-host",
            "WEFT_LOG_FORMAT": "text",
        }

    def full_environment(self, mode: Mapping[str, str]) -> dict[str, str]:
        """The environment of a Weft process; nothing of the caller's own settings."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("WEFT_", "AzureWebJobs"))}
        return {**inherited, **self.environment, **mode}

    def seed(self) -> None:
        """``weft seed``: sample organizations and the development key."""
        done = subprocess.run(
            [self.program, "seed"],
            cwd=REPOSITORY,
            env=self.full_environment(DEVELOPMENT),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"weft seed: {done.returncode}\n{done.stdout}\n{done.stderr}"

    def secrets(self) -> Path:
        """A secrets folder with the host's master key, for ``/admin``."""
        folder = self.folder / "secrets"
        folder.mkdir(exist_ok=True)
        master = {"name": "master", "value": MASTER_KEY, "encrypted": False}
        content = {"masterKey": master, "functionKeys": [], "systemKeys": []}
        (folder / "host.json").write_text(json.dumps(content))
        return folder


class Host:
    """A host that is up, by its address and its state page."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self.log = log

    def send(self, method: str, target: str, **more: Any) -> Answer:
        """One request through the host."""
        return send(self.url, method, target, **more)

    def api(self, method: str, target: str, *, body: Any = None, **headers: str) -> Answer:
        """A request below ``/api`` with the development key."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.send(method, f"/api{target}", headers={**KEY, **named}, body=body)

    @property
    def state(self) -> Any:
        """The stand-in's own account."""
        return self.send("GET", "/admin/standin/state").json

    @property
    def handler(self) -> str:
        """The handler's own address, behind the host."""
        return f"http://127.0.0.1:{self.state['handler']['port']}"

    def chaos(self, **wish: Any) -> None:
        """Arm a misfortune."""
        answer = self.send("POST", "/admin/standin/chaos", body=wish)
        assert answer.status == 202, answer

    def trigger(self, function: str, text: str = "") -> None:
        """Fire a function that is not HTTP."""
        headers = {"x-functions-key": MASTER_KEY}
        answer = self.send("POST", f"/admin/functions/{function}", headers=headers, body={"input": text})
        assert answer.status == 202, answer

    def finished(self, function: str) -> list[Any]:
        """The invocations of a function that are over."""
        return [item for item in self.state["finished"] if item["function"] == function]

    def wait_ready(self) -> None:
        """Until the handler answers again."""
        eventually(lambda: self.state["handler"]["state"] == "ready", "handler ready", 60)

    def run(self, run_id: str) -> Any:
        """One run."""
        answer = self.api("GET", f"/runs/{run_id}")
        assert answer.status == 200, answer
        return answer.json

    def wait_finished(self, run_id: str, within: float = 60) -> Any:
        """The run in a terminal status."""

        def probe() -> Any:
            answer = self.api("GET", f"/runs/{run_id}")
            # While the handler is being restarted, the host answers 500 or the storage is being recovered.
            if answer.status >= 500:
                return None
            assert answer.status == 200, answer
            return answer.json if answer.json["status"].lower() in FINISHED else None

        return eventually(probe, f"end of run {run_id}", within)

    def start(self, workflow: str, **arguments: Any) -> str:
        """Start a run without waiting for it; its id."""
        answer = self.api("POST", f"/workflows/{workflow}/execute", body=arguments, Prefer="respond-async")
        assert answer.status == 202, answer
        location = answer.headers["Location"]
        assert location.startswith("/api/runs/"), location
        run_id = location.removeprefix("/api/runs/")
        assert answer.json["runId"] == run_id
        return run_id


@contextlib.contextmanager
def standin(setting: Setting, *arguments: str, mode: Mapping[str, str] = DEVELOPMENT) -> Iterator[Host]:
    """Run the repository's app in a stand-in host, as from a terminal, with short times."""
    log = setting.folder / f"host-{len(list(setting.folder.glob('host-*.log')))}.log"
    environment = {
        **setting.full_environment(mode),
        "PYTHONPATH": str(HERE),
        "PYTHONUNBUFFERED": "1",
        "AzureFunctionsJobHost__customHandler__description__defaultExecutablePath": str(setting.program),
        "AzureFunctionsJobHost__extensions__queues__visibilityTimeout": "00:00:01",
        "AzureFunctionsJobHost__extensions__queues__maxPollingInterval": "00:00:00.2",
    }
    command = [sys.executable, "-m", "standin", "--app-root", str(REPOSITORY), "--port", "0"]
    command += ["--no-local-settings", "--secrets", str(setting.secrets())]
    command += ["--time", "queue_lease=10", *arguments]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield Host(_ready_line(process, log), log)
    finally:
        print(f"--- end of {log.name}\n{log.read_text(errors='replace')[-6000:]}")
        if process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready_line(process: "subprocess.Popen[bytes]", log: Path) -> str:
    def probe() -> str | None:
        text = log.read_text(errors="replace")
        line = next((line for line in text.splitlines() if line.startswith("ready http://")), None)
        if line is None and process.poll() is not None:
            raise AssertionError(f"the host ended with {process.returncode}:\n{text[-4000:]}")
        return line

    return eventually(probe, f"the host's ready line in {log}", 60).removeprefix("ready ")
