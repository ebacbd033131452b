"""`ctx.runs`: other runs of the organization that a step starts, looks at and waits for."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from ._errors import WeftError
from ._json import check

if TYPE_CHECKING:
    from ._context import Link

# Waiting is done in pieces, so that other threads of the step get to speak with the engine in between.
_PIECE_SECONDS = 5.0
_ENDED = frozenset(("succeeded", "failed", "cancelled", "timed_out", "skipped"))


class RunInfo:
    """A run as it was when it was asked for.

    `status` is `pending`, `running`, `waiting`, `succeeded`, `failed`, `cancelled` or `timed_out`; `error`
    is `{"type", "message"}` or None; instants are ISO 8601 texts or None.
    """

    __slots__ = ("created_at", "error", "finished_at", "id", "result", "started_at", "status", "workflow")

    def __init__(self, data: dict[str, Any]) -> None:
        self.id: str = data["id"]
        self.workflow: str = data.get("workflow") or ""
        self.status: str = data["status"]
        self.result: Any = data.get("result")
        self.error: dict[str, Any] | None = data.get("error")
        self.created_at: str | None = data.get("created_at")
        self.started_at: str | None = data.get("started_at")
        self.finished_at: str | None = data.get("finished_at")

    @property
    def ended(self) -> bool:
        """Whether it will not change any more."""
        return self.status in _ENDED

    @property
    def succeeded(self) -> bool:
        """Whether it has returned its result."""
        return self.status == "succeeded"

    def value(self) -> Any:
        """The result; raises `WeftError` where the run has not succeeded."""
        if self.succeeded:
            return self.result
        error = self.error or {}
        reason = f": {error.get('type')}: {error.get('message')}" if error else ""
        raise WeftError(f"run {self.id} of {self.workflow} is {self.status}{reason}")

    def __repr__(self) -> str:
        return f"RunInfo({self.id!r}, workflow={self.workflow!r}, status={self.status!r})"


class Runs:
    """Runs of workflows of the same organization, for the caller of this run."""

    __slots__ = ("_link",)

    def __init__(self, link: Link) -> None:
        self._link = link

    def start(self, workflow: str, inputs: dict[str, Any] | None = None, key: str | None = None) -> str:
        """Start a run of `workflow`; its id.

        A repeated attempt of this step finds the run that the first has started: by `key`, or, without one,
        by the order of the calls. Give keys where the order may differ, as with threads. At most 100 runs
        for each attempt, and 8 deep.
        """
        args = {"workflow": workflow, "inputs": dict(inputs or {}), "key": key}
        check(args["inputs"], "inputs")
        started: dict[str, Any] = self._link.call("runs.start", args)
        return str(started["id"])

    def get(self, id: str) -> RunInfo:
        """A run that this one has started, or that is of the same caller. Raises `NotFound` for any other."""
        return RunInfo(self._link.call("runs.get", {"id": id}))

    def wait(self, id: str, timeout: float | None = None) -> RunInfo:
        """Wait until the run has ended. Raises `TimeoutError` when it has not after `timeout` seconds.

        A step that waits keeps its worker, and its own time limit goes on. Where all workers but one
        wait already, it raises `Unavailable`. For long work, start the run and end.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            left = _PIECE_SECONDS
            if until is not None:
                left = min(left, max(0.0, until - time.monotonic()))
            info = RunInfo(self._link.call("runs.wait", {"id": id, "timeout_seconds": left}))
            if info.ended:
                return info
            if until is not None and time.monotonic() >= until:
                raise TimeoutError(f"run {id} of {info.workflow} is still {info.status} after {timeout} s")
