"""A command of Weft whose steps wait for a debugger."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

from weft import clean_environment, program, until


class Debugged:
    """A command with `--debug` under way."""

    def __init__(self, folder: Path, command: list[str], off: str = "") -> None:
        assert importlib.util.find_spec("debugpy"), "debugpy is missing: tests/requirements.txt names it"
        self.errors = folder / "stderr"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [program(), *command, "--debug", "--debug-port", "0"],
                env=clean_environment({"WEFT_PYTHON": sys.executable, "WEFT_ISOLATION_OFF": off}),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def said(self) -> str:
        """What it has said beside its data."""
        return self.errors.read_text()

    def port(self, step: str) -> int:
        """Where this step waits for a debugger."""
        pattern = rf"^{step} waits for a debugger at 127\.0\.0\.1:(\d+)$"

        def found() -> int | None:
            match = re.search(pattern, self.said(), re.MULTILINE)
            assert match or self.process.poll() is None, self.said()
            return int(match[1]) if match else None

        return until(found, f"{step} waits", 60)

    def end(self) -> tuple[int, str]:
        """Its exit code and its data."""
        out, _ = self.process.communicate(timeout=60)
        return self.process.returncode, out

    def kill(self) -> None:
        """Leave nothing of it."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()
