"""What the host makes of a handler's answer to ``POST /<function>``."""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Verdict(Enum):
    """How an invocation goes on after its answer."""

    SUCCESS = "success"
    FAILURE = "failure"
    HANG = "hang"
    """The host never completes it: it lasts until functionTimeout, or for ever without one."""


@dataclass(frozen=True)
class Answer:
    """A classified answer."""

    verdict: Verdict
    reason: str = ""
    outputs: Mapping[str, Any] = field(default_factory=dict)
    logs: tuple[str, ...] = ()
    return_value: Any = None


def _member(body: Mapping[str, Any], name: str) -> Any:
    return next((value for key, value in body.items() if key.lower() == name.lower()), None)


def classify(status: int, content_type: str | None, body: bytes) -> Answer:
    """Success needs a 2xx status *and* a JSON object; nothing at all makes the host wait for ever."""
    if not 200 <= status < 300:
        return Answer(Verdict.FAILURE, f"status {status}")
    if status == 204 or not body:
        return Answer(Verdict.HANG, "empty answer")
    media_type = (content_type or "").split(";")[0].strip().lower()
    if media_type not in ("application/json", "text/json"):
        return Answer(Verdict.FAILURE, f"no formatter for media type '{media_type}'")
    text = body.decode("utf-8-sig", errors="replace")
    if not text.strip():
        return Answer(Verdict.HANG, "empty answer")
    try:
        value = json.loads(text)
    except ValueError:
        return Answer(Verdict.FAILURE, "the answer is not JSON")
    if value is None:
        return Answer(Verdict.HANG, "the answer is null")
    if not isinstance(value, dict):
        return Answer(Verdict.FAILURE, "the answer is not a JSON object")
    outputs = _member(value, "outputs")
    logs = _member(value, "logs")
    if (outputs is not None and not isinstance(outputs, dict)) or (
        logs is not None and not isinstance(logs, list)
    ):
        return Answer(Verdict.FAILURE, "Outputs or Logs have the wrong form")
    found = dict(outputs or {})
    return_value = _member(value, "returnvalue")
    if isinstance(return_value, dict):
        found.update(return_value)
    return Answer(Verdict.SUCCESS, "", found, tuple(str(line) for line in logs or ()), return_value)


def output_bytes(value: Any) -> bytes:
    """One value of a non-HTTP output. The trap: text that happens to be valid base64 is decoded first."""
    if not isinstance(value, str):
        return json.dumps(value, separators=(",", ":")).encode()
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return value.encode()


def output_messages(value: Any) -> list[bytes]:
    """An array is one message each."""
    return [output_bytes(item) for item in value] if isinstance(value, list) else [output_bytes(value)]


@dataclass(frozen=True)
class HttpOutput:
    """What the client of an enveloped HTTP function gets."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def http_output(value: Any) -> HttpOutput:
    """From the value of the HTTP output binding: ``statusCode`` or ``status``, ``body``, ``headers``."""
    if not isinstance(value, dict):
        text = value if isinstance(value, str) else json.dumps(value)
        return HttpOutput(200, {"Content-Type": "text/plain; charset=utf-8"}, text.encode())
    status = _member(value, "statusCode")
    if status is None:
        status = _member(value, "status")
    body = _member(value, "body")
    data = b"" if body is None else (body if isinstance(body, str) else json.dumps(body)).encode()
    headers = {str(name): str(text) for name, text in (_member(value, "headers") or {}).items()}
    return HttpOutput(int(status) if status is not None else 200, headers, data)
