"""A handler under a posture, with all that is worth stealing; attackers among its steps; and what they got."""

from __future__ import annotations

import ast
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import postures
from outside import ADDRESSES, Outside, canary, remove_object, shared_objects
from weft import REPOSITORY, Answer, Weft, clean_environment, descendants, program, until

BUNDLE = REPOSITORY / "engine" / "tests" / "supports" / "attacks"
LEGIT = REPOSITORY / "engine" / "tests" / "supports" / "legit"
CANARY = re.compile(r"CANARY-[0-9a-f]{16}")
ORGANIZATIONS = {"trusted": "contoso", "restricted": "adatum"}
"""Whose steps the attackers are, by the trust that the organization's policy leaves them."""
VICTIM = "fabrikam"
DEMANDING = "woodgrove"
"""Wants its steps confined at least, whatever the installation's minimum."""

# Low enough for an attack on them to be over soon.
MEMORY_MIB, DISK_BYTES, PROCESSES, THREADS, CPU_SECONDS = 256, 16 << 20, 16, 64, 2
OUTPUT_BYTES, LOG_LINES = 256 << 10, 1000
_LIMITS = {
    "WEFT_STEP_MEMORY_MIB": MEMORY_MIB,
    "WEFT_STEP_DISK_BYTES": DISK_BYTES,
    "WEFT_STEP_PROCESSES": PROCESSES,
    "WEFT_STEP_THREADS": THREADS,
    "WEFT_STEP_CPU_SECONDS": CPU_SECONDS,
    "WEFT_MAX_OUTPUT_BYTES": OUTPUT_BYTES,
    "WEFT_MAX_LOG_LINES": LOG_LINES,
}
# What says that an attacker is broken, not beaten.
_BROKEN = re.compile(r"^gave up: (NameError|UnboundLocalError|SyntaxError|IndentationError)|^broken: ")
_BROKEN_ERRORS = (
    "ImportError",
    "ModuleNotFoundError",
    "NameError",
    "SyntaxError",
    "InvalidInput",
    "NotFound",
    "TypeError",
)
# An attacker that was never run was not beaten either; `isolation_insufficient` is an answer.
_NEVER_RUN = ("isolation_failed", "worker_unavailable")


@dataclass
class Haul:
    """What one attacker got, and how it ended."""

    name: str
    got: list[str]
    outcome: str
    broken: str = ""


@cache
def attacks(group: str) -> tuple[str, ...]:
    """The names of the workflows of one file."""
    tree = ast.parse((BUNDLE / "workflows" / f"{group}.py").read_text())
    return tuple(
        f"{group}-{one.name}".replace("_", "-")
        for one in tree.body
        if isinstance(one, ast.FunctionDef)
        and any("attack" in ast.unparse(mark) for mark in one.decorator_list)
    )


def groups() -> list[str]:
    """All files of attackers."""
    return sorted(path.stem for path in (BUNDLE / "workflows").glob("*.py") if path.stem != "victims")


class Jailed(Weft):
    """A `weft dev` under a posture."""

    posture = "root"
    names: Path | None = None
    """A resolv.conf of its own."""

    def launch(self) -> None:
        """Start it and wait for nothing."""
        assert self.process is None
        self.starts += 1
        self.stdout = self.folder / f"stdout-{self.starts}"
        self.stderr = self.folder / f"stderr-{self.starts}"
        arguments: list[str | Path] = [program(), "dev", "--port", str(self.port), "--data", self.data]
        arguments += ["--workspace", self.workspace, *self.arguments]
        with self.stdout.open("wb") as out, self.stderr.open("wb") as err:
            self.process = subprocess.Popen(
                postures.command(self.posture, arguments, self.names),
                env={**clean_environment(), **self.environment},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                process_group=0,
            )
        Weft.running.add(self.process.pid)
        self._seen = set()

    @property
    def pid(self) -> int:
        """The handler, not what it runs in."""
        assert self.process is not None
        found = [one.pid for one in descendants(self.process.pid) if one.name == program().name]
        return found[0] if found else self.process.pid


class Siege:
    """Everything for one posture; a context manager."""

    def __init__(
        self,
        posture: postures.Posture,
        python: Path,
        *,
        minimum: str,
        workspace: Path = BUNDLE,
        more: dict[str, str] | None = None,
    ) -> None:
        self.posture = posture
        self.token = secrets.token_hex(6)
        # Below /tmp, where any user can go; the test runner's own folders are closed to others.
        self.folder = Path(tempfile.mkdtemp(prefix="weft-jail-", dir="/tmp"))
        self.uid = 0 if posture.root else postures.UID
        self.secrets: dict[str, str] = {}
        self.shm = set(os.listdir("/dev/shm"))
        self.home = self.folder / "home"
        self.data = self.folder / "handler" / "data"
        self.outside = Outside(self.folder, self.token)
        self.objects = shared_objects()
        self.files = self._plant()
        self.one = Jailed(
            self.folder / "handler",
            workspace=workspace,
            environment={
                "WEFT_PYTHON": str(python),
                "WEFT_ISOLATION_MINIMUM": minimum,
                "WEFT_WORKER_SLOTS": "6",
                "WEFT_WORKERS_AHEAD": "1",
                "WEFT_SIGNING_KEY": self.secret("signing key") + "-and-some-more-of-it",
                "AZURE_CLIENT_SECRET": self.secret("client secret"),
                "IDENTITY_HEADER": self.secret("identity header"),
                "IDENTITY_ENDPOINT": "http://169.254.169.254/msi/token",
                "HOME": str(self.home),
                "PATH": "/usr/bin:/bin",
                "TMPDIR": str(self.folder / "handler"),
                **({name: str(value) for name, value in _LIMITS.items()} if workspace == BUNDLE else {}),
                **(more or {}),
            },
        )
        self.one.posture = posture.name
        self.victim_run = ""
        self.victim_pid = 0
        self.victim_scratch = ""
        self.record: list[tuple[str, Haul]] = []

    def secret(self, what: str) -> str:
        """A new planted secret."""
        self.secrets[canary()] = what
        return next(reversed(self.secrets))

    def __enter__(self) -> Siege:
        try:
            self.one.start()
            self.restricts = self._set_policies()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self.one.process is not None and self.one.process.poll() is None:
                self.one.stop()
            elif self.one.process is not None:
                self.one.wait()
        finally:
            self.outside.close()
            self.sweep()
            shutil.rmtree(self.folder, ignore_errors=True)
        assert "panicked" not in self.one.said()

    def _plant(self) -> dict[str, str]:
        """Files with secrets; those of the handler belong to its user and are closed to others."""
        handler = self.folder / "handler"
        own = {
            "settings": self.folder / "handler" / "local.settings.json",
            "ssh key": self.home / ".ssh" / "id_ed25519",
            "token cache": self.home / ".azure" / "msal_token_cache.json",
            "another bundle": self.data / "bundles" / ("f" * 64) / "workflows" / "other.py",
            "another run's folder": self.data / "scratch" / "other" / "secret.txt",
        }
        open_ones = {
            name: Path(place) / f"weft-outside-{self.token}"
            for name, place in (
                ("outside in /tmp", "/tmp"),
                ("outside in /dev/shm", "/dev/shm"),
                ("outside in /var/tmp", "/var/tmp"),
            )
        }
        for what, path in {**own, **open_ones}.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.secret(what))
        self.folder.chmod(0o755)
        self.home.mkdir(exist_ok=True)
        # As permissive as a handler may leave them: closed files are no merit of the jail.
        for folder in (handler, self.home):
            for path in (folder, *folder.rglob("*")):
                os.chown(path, self.uid, self.uid)
        for path in open_ones.values():
            path.chmod(0o644)
        program = self.folder / "id-of-root"
        shutil.copy("/usr/bin/id", program)
        program.chmod(0o4755)
        return {name: str(path) for name, path in {**own, **open_ones}.items()}

    def command(self, *arguments: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
        """A command of the program on the same data, as the handler's user and under the same posture."""
        return subprocess.run(
            postures.command(self.posture.name, [program(), *arguments, "--data", self.data]),
            env={**clean_environment(), **self.one.environment},
            cwd=self.folder / "handler",
            input=input,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def _set_policies(self) -> bool:
        """An organization whose steps are restricted, and one that may declare the whole public network. Whether there
        are policies in this program."""
        restricted = ORGANIZATIONS["restricted"]
        for name, organization in (("Adatum", restricted), ("Woodgrove", DEMANDING)):
            done = self.command("org", "create", name, "--id", organization)
            assert done.returncode == 0, done.stderr
        for organization, policy in (
            (restricted, {"trust": "restricted"}),
            (DEMANDING, {"minimum": "confined"}),
            (ORGANIZATIONS["trusted"], {"network": {"mode": "open", "openGranted": True}}),
        ):
            done = self.command(
                "policy", "set", "-", "--organization", organization, input=json.dumps(policy)
            )
            if "unrecognized subcommand" in done.stderr:
                return False
            assert done.returncode == 0, done.stderr
        return True

    # The victim.

    def install_victim(self) -> None:
        """A run of another organization, with secrets everywhere; returns when it has them."""
        self.victim_run = self.one.begin(
            "victim",
            {"planted": self.secret("victim's argument"), "token": self.token},
            X_Organization_Id=VICTIM,
        )
        before = {process.pid for process in self.one.tree()}

        def begun() -> re.Match[str] | None:
            for line in self.log(self.victim_run, VICTIM):
                found = re.match(r"victim is (\d+) in (\S+)", line)
                if found:
                    return found
            status = self.one.get(f"/runs/{self.victim_run}", X_Organization_Id=VICTIM)
            assert status["status"] in ("pending", "running", "queued"), status
            return None

        found = until(begun, "the victim's first words", 30)
        self.victim_scratch = found[2]
        named = [process.pid for process in self.one.tree() if process.name == "weft-victim"]
        fresh = [process.pid for process in self.one.tree() if process.pid not in before]
        self.victim_pid = (named or fresh or [0])[0]

    def victim_is_well(self) -> str:
        """What is wrong with it; empty where nothing is."""
        run = self.one.get(f"/runs/{self.victim_run}", X_Organization_Id=VICTIM)
        if run["status"] != "running":
            return f"its run is {run['status']}: {run.get('error')}"
        steps = self.one.get(f"/runs/{self.victim_run}/steps", X_Organization_Id=VICTIM)["items"]
        if [step["attemptsBegun"] for step in steps] != [1]:
            return f"it was begun more than once: {steps}"
        log = self.log(self.victim_run, VICTIM)
        harmed = [line for line in log if "HARMED" in line]
        strange = [line for line in log if not re.match(r"whole|HARMED|victim is", line)]
        return f"{harmed[:1]}{strange[:2]}" if harmed or strange else ""

    # Attackers.

    def aim(self) -> dict[str, Any]:
        """All that a well informed attacker could know."""
        tree = self.one.tree()
        zygotes = [one.pid for one in tree if one.name == "weft-zygote"]
        workers = [one.pid for one in tree if one.name == "weft-worker" and one.pid != self.victim_pid]
        return {
            "token": self.token,
            "uid": self.uid,
            "handler_is_root": self.uid == 0,
            "handler": inner(self.one.pid),
            "zygote": inner(zygotes[0]) if zygotes else 0,
            "victim": inner(self.victim_pid),
            "siblings": [inner(pid) for pid in [*zygotes[1:], *workers][:3]],
            "port": int(self.one.url.rpartition(":")[2].rstrip("/")),
            "addresses": list(ADDRESSES),
            "outside_port": self.outside.port,
            "rendezvous": self.outside.rendezvous,
            "unix_path": str(self.outside.path),
            "abstract": self.outside.abstract,
            "outside_key": self.outside.key,
            "ipc_key": self.outside.key + 1,
            "files": {
                **self.files,
                **self._stores(),
                "another run's secret": f"{self.victim_scratch}/secret.txt",
                "another run's /tmp": f"/tmp/weft-victim-{self.token}",
            },
            "home": str(self.home),
            "data": str(self.data),
            "engine": str(REPOSITORY / "engine"),
            "repository": str(REPOSITORY),
            "workspace": str(self.one.workspace),
            "scratch_of_all": str(self.data / "scratch"),
            "victim_scratch": self.victim_scratch,
            "victim_organization": VICTIM,
            "victim_run": self.victim_run,
            "writable": [str(self.folder), str(self.folder / "handler")],
            "suid_program": str(self.folder / "id-of-root"),
            "memory": MEMORY_MIB << 20,
            "disk": DISK_BYTES,
            "processes": PROCESSES,
            "threads": THREADS,
            "cpu": CPU_SECONDS,
            # Where there is one of its own, nobody else is in it; what is left behind is looked for.
            "shared_ipc": "ipc_namespace" not in self.layers(),
            "shared_network": "network_namespace" not in self.layers(),
        }

    def _stores(self) -> dict[str, str]:
        return {f"store {path.name}": str(path) for path in self.data.glob("*") if path.is_file()}

    def layers(self) -> set[str]:
        """What the handler says is in force."""
        return set((report(self.one.get("/status")) or {}).get("layers", ()))

    def attack(self, name: str, trust: str = "trusted", aim: dict[str, Any] | None = None) -> Haul:
        """Let one attacker try."""
        organization = ORGANIZATIONS[trust]
        answer = self.one.execute(name, {"aim": aim or self.aim()}, X_Organization_Id=organization)
        return self._judge(name, trust, organization, answer)

    def attack_all(self, names: tuple[str, ...], trust: str, at_once: int) -> list[Haul]:
        """Several attackers, some of them at the same time."""
        aim = self.aim()
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(lambda name: self.attack(name, trust, aim), names))

    def _judge(self, name: str, trust: str, organization: str, answer: Answer) -> Haul:
        if answer.status == 202:
            run = self.one.ended(answer.json["runId"], 60, X_Organization_Id=organization)
        elif answer.status == 200:
            run = answer.json
        else:
            return self._note(trust, Haul(name, [], f"refused: {answer}", broken=f"not started: {answer}"))
        lines = self.log(run["runId"], organization)
        got = [line.removeprefix("GOT ") for line in lines if line.startswith("GOT ")]
        result = run["result"]
        if isinstance(result, list):
            got += [str(item) for item in result]
        elif result is not None:
            got.append(f"a result that is none of its own: {result!r}"[:200])
        text = "\n".join(lines) + str(result) + str(run["error"])
        for secret in sorted(set(CANARY.findall(text))):
            what = self.secrets.get(secret) or (
                "an outside service's" if secret == self.outside.secret else "a planted one"
            )
            got.append(f"SECRET {what}")
        error = run["error"] or {}
        broken = next((line for line in lines if _BROKEN.match(line)), "")
        if run["status"] == "failed" and error.get("type") in (*_BROKEN_ERRORS, *_NEVER_RUN):
            broken = f"{error['type']}: {error.get('message')}"
        if str(error.get("message", "")).startswith("FORGED") and re.fullmatch(
            "[a-z_]+", str(error.get("type"))
        ):
            got.append(f"an error of the engine's own kind: {error['type']}")
        kept = sum(map(len, lines))
        if kept > 2 * OUTPUT_BYTES + LOG_LINES * 9000:
            got.append(f"bytes of log: {kept}")
        outcome = run["status"] + (
            f" {error.get('type')}: {str(error.get('message'))[:100]}" if error else ""
        )
        return self._note(trust, Haul(name, sorted(set(got)), outcome, broken))

    def _note(self, trust: str, haul: Haul) -> Haul:
        self.record.append((trust, haul))
        return haul

    def log(self, run: str, organization: str) -> list[str]:
        """What a run has said."""
        said: list[str] = []
        after = ""
        while True:
            page = self.one.get(f"/runs/{run}/logs?after={after}", X_Organization_Id=organization)
            said += [str(line["message"]) for line in page["items"]]
            if not page["items"]:
                return said
            after = page["nextCursor"]

    # Afterwards.

    def marks(self) -> list[str]:
        """Files that attackers left outside of their folders; they are removed."""
        found = []
        name = f"weft-attack-{self.token}"
        places = [
            "/",
            "/usr",
            "/usr/lib",
            "/usr/local",
            "/usr/local/bin",
            "/etc",
            "/etc/cron.d",
            "/opt",
            "/srv",
            "/tmp",
            "/var/tmp",
            "/var/cache",
        ]
        places += [
            "/run",
            "/run/lock",
            "/home",
            "/root",
            "/dev",
            "/dev/shm",
            "/sys/fs/cgroup",
            "/mnt",
            str(REPOSITORY),
            str(REPOSITORY / "engine"),
        ]
        places += [
            str(BUNDLE),
            str(BUNDLE / "workflows"),
            str(self.folder),
            str(self.home),
            str(self.folder / "handler"),
            str(self.data),
        ]
        places += [str(path) for path in (self.data / "bundles").rglob("*") if path.is_dir()] + [
            str(self.data / "scratch")
        ]
        for place in dict.fromkeys(places):
            with suppress(OSError):
                for one in os.listdir(place):
                    if (
                        one.startswith((name, f"weft_attack_{self.token}"))
                        or f"weft-attack-{self.token}" in one
                    ):
                        path = Path(place) / one
                        found.append(str(path))
                        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(
                            missing_ok=True
                        )
        return found

    def left_objects(self) -> list[str]:
        """IPC objects that weren't there at the beginning; those of System V are removed."""
        fresh = shared_objects() - self.objects
        named = set(os.listdir("/dev/shm")) - self.shm - {f"weft-outside-{self.token}"}
        for one in fresh:
            remove_object(one)
        return sorted(fresh) + sorted(one for one in named if self.token in one)

    def strays(self) -> list[str]:
        """Processes of attempts that have ended: whatever is below the zygote beside idle workers and the victim."""
        return [
            f"{one.name} {one.pid}"
            for one in self.one.tree()
            if one.state not in "ZX" and not one.name.startswith("weft") and one.pid != self.victim_pid
        ]

    def zygotes(self) -> dict[int, str]:
        """The zygotes and what they do."""
        return {one.pid: one.state for one in self.one.tree() if one.name == "weft-zygote"}

    def sweep(self) -> None:
        """Remove what was planted outside of its folder."""
        self.marks()
        for place in ("/tmp", "/dev/shm", "/var/tmp"):
            for path in Path(place).glob(f"weft-*-{self.token}*"):
                path.unlink(missing_ok=True)


def report(found: Any) -> dict[str, Any] | None:
    """The posture in an answer, wherever it stands: what has a tier and layers."""
    if isinstance(found, dict) and "tier" in found and "layers" in found:
        return found
    inside = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    return next((one for value in inside if (one := report(value))), None)


def inner(pid: int) -> int:
    """A process id as the handler's own process namespace knows it."""
    if not pid:
        return 0
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                ids = line.split()[1:]
                return int(ids[min(1, len(ids) - 1)])
    except OSError:
        return 0
    return pid


def python_for(posture: postures.Posture) -> Path | None:
    """An interpreter that the handler and all of its workers can execute, whoever they are."""
    named = os.environ.get("WEFT_PYTHON")
    known = [Path(named)] if named and "/" in named else []
    known += [Path(os.path.realpath(sys.executable))]
    known += [
        Path(found)
        for name in ("python3", "python3.13", "python3.12", "python3.11")
        if (found := shutil.which(name, path="/usr/bin:/usr/local/bin"))
    ]
    usable = [one for one in known if _is_new(one)]
    return postures.usable_by(postures.UID, usable)


def _is_new(path: Path) -> bool:
    done = subprocess.run(
        [path, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"], capture_output=True, check=False
    )
    return done.returncode == 0
