"""How lines of the handler's stdout and stderr become log records."""

from . import hostlog
from .hostlog import HostLog

_ERROR_WORDS = ("error", "fail", "severe", "unhandled exception")


def stderr_level(line: str, errors_only: bool) -> str:
    """Stderr is an error unless it speaks of a warning; with ``errors_only`` off, the words decide."""
    lowered = line.lower()
    if "warn" in lowered:
        return hostlog.WARNING
    if errors_only or any(word in lowered for word in _ERROR_WORDS):
        return hostlog.ERROR
    return hostlog.INFORMATION


def category(line: str) -> str:
    """Lines with the host's own prefixes do not go to the user's log."""
    if line.startswith("LanguageWorkerConsoleLog"):
        return hostlog.SYSTEM_CONSOLE
    if line.startswith("azfuncjsonlog:"):
        return hostlog.TOOLING
    return hostlog.CONSOLE


class Console:
    """Takes the handler's lines; remembers the last three errors for the crash message."""

    def __init__(self, log: HostLog, errors_only: bool) -> None:
        self._log = log
        self._errors_only = errors_only
        self.last_errors: list[str] = []

    def stdout(self, line: str) -> None:
        """A line of standard output."""
        self._log.write(hostlog.INFORMATION, category(line), line)

    def stderr(self, line: str) -> None:
        """A line of standard error."""
        level = stderr_level(line, self._errors_only)
        if level == hostlog.ERROR:
            self.last_errors = [*self.last_errors, line][-3:]
        self._log.write(level, category(line), line)
