"""The ``{"Data", "Metadata"}`` body of everything that is not proxied, encoded as the host encodes it.

Objects are embedded; strings, numbers and booleans become a *string holding their JSON text*, so that a
string arrives JSON-encoded twice; times are plain ISO strings; bytes are plain base64.
"""

import base64
import datetime
import json
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

_ISO_DATE = re.compile(r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})?$")
NEVER = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)

Json = dict[str, Any]


def encode(value: Any) -> Any:
    """One value of Data or Metadata."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.datetime):
        return value.astimezone(datetime.UTC).isoformat(timespec="seconds")
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def sys_entry(function: str, now: datetime.datetime | None = None, guid: str | None = None) -> Json:
    """``Metadata.sys``."""
    moment = now or datetime.datetime.now(datetime.UTC)
    utc = moment.astimezone(datetime.UTC)
    return {
        "MethodName": function,
        "UtcNow": utc.strftime("%Y-%m-%dT%H:%M:%S.") + f"{utc.microsecond:06d}0Z",
        "RandGuid": guid or str(uuid.uuid4()),
    }


def _leaked(value: Any) -> Any:
    """A top-level property of a JSON message, as binding data: scalars become text first."""
    if isinstance(value, dict):
        return value
    if isinstance(value, bool):
        return "True" if value else "False"
    if isinstance(value, str) and _ISO_DATE.match(value):
        # Parsed as a date on the way and printed again; the exact form is uncertain.
        return datetime.datetime.fromisoformat(value).strftime("%m/%d/%Y %H:%M:%S")
    return value if isinstance(value, str) else json.dumps(value)


def _object(text: str) -> Json | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def merge_message_properties(metadata: Json, text: str) -> Json:
    """The collision rule: properties of a JSON message override the host's entries, in any case, and keep the
    host's spelling; arrays and nulls stay out."""
    spelling = {key.lower(): key for key in metadata}
    merged = dict(metadata)
    for key, value in (_object(text) or {}).items():
        if value is None or isinstance(value, list):
            continue
        name = spelling.setdefault(key.lower(), key)
        merged[name] = _leaked(value)
    return merged


def metadata(entries: Mapping[str, Any]) -> Json:
    """Encoded Metadata: without nulls and without names that end in "trigger"."""
    return {
        key: encode(value)
        for key, value in entries.items()
        if value is not None and not key.lower().endswith("trigger")
    }


@dataclass(frozen=True)
class QueueMessage:
    """A dequeued message, decoded."""

    id: str
    pop_receipt: str
    dequeue_count: int
    inserted: datetime.datetime
    expires: datetime.datetime
    next_visible: datetime.datetime
    data: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.data.decode(errors="replace")


def queue(function: str, binding: str, message: QueueMessage, sys: Json, binary: bool = False) -> Json:
    """A queue delivery."""
    entries: Json = {
        "QueueTrigger": message.text,
        "DequeueCount": message.dequeue_count,
        "ExpirationTime": message.expires,
        "Id": message.id,
        "InsertionTime": message.inserted,
        "NextVisibleTime": message.next_visible,
        "PopReceipt": message.pop_receipt,
        "sys": sys,
    }
    if not binary:
        entries = merge_message_properties(entries, message.text)
    return {
        "Data": {binding: encode(message.data if binary else message.text)},
        "Metadata": metadata(entries),
    }


@dataclass(frozen=True)
class ScheduleStatus:
    """What the schedule monitor remembers."""

    last: str
    last_updated: str
    next: str


def timer(binding: str, status: ScheduleStatus | None, past_due: bool, sys: Json) -> Json:
    """A timer tick."""
    schedule_status = (
        None
        if status is None
        else {"Last": status.last, "LastUpdated": status.last_updated, "Next": status.next}
    )
    info = {"Schedule": {"AdjustForDST": True}, "ScheduleStatus": schedule_status, "IsPastDue": past_due}
    return {"Data": {binding: encode(info)}, "Metadata": metadata({"sys": sys})}


def blob(
    binding: str, uri: str, path_values: Mapping[str, str], content: bytes, content_type: str, sys: Json
) -> Json:
    """A blob, as text. Only the encoding; this stand-in has no blob listener."""
    entries: Json = {
        "BlobTrigger": uri,
        "Uri": uri,
        "Properties": {"ContentLength": len(content), "ContentType": content_type},
        "Metadata": {},
        **path_values,
        "sys": sys,
    }
    return {"Data": {binding: encode(content.decode(errors="replace"))}, "Metadata": metadata(entries)}


def http(
    binding: str,
    *,
    url: str,
    method: str,
    query: str,
    headers: Iterable[tuple[str, str]],
    route_values: Mapping[str, str | None],
    identities: list[Json],
    body: bytes | None,
    sys: Json,
) -> Json:
    """An HTTP request that is not proxied. The raw key, if one was sent, is in here twice."""
    query_values: dict[str, str] = {}
    for key, value in parse_qsl(query, keep_blank_values=True):
        query_values[key] = f"{query_values[key]},{value}" if key in query_values else value
    header_values: dict[str, list[str]] = {}
    for key, value in headers:
        spelled = next((known for known in header_values if known.lower() == key.lower()), key)
        header_values.setdefault(spelled, []).append(value)
    request: Json = {
        "Url": url,
        "Method": method,
        "Query": query_values,
        "Headers": header_values,
        "Params": dict(route_values),
        "Identities": identities,
    }
    flat = {key: ",".join(values) for key, values in header_values.items()}
    entries: Json = {"Query": query_values, "Headers": flat, "sys": sys}
    if body is not None:
        media_type = next((v for k, v in flat.items() if k.lower() == "content-type"), "").lower()
        if media_type.startswith(("application/octet-stream", "multipart/")):
            request["Body"] = base64.b64encode(body).decode()
        else:
            text = body.decode(errors="replace")
            request["Body"] = text
            if "json" in media_type:
                entries = merge_message_properties(entries, text)
    values: Json = {**query_values, **{k: v for k, v in route_values.items() if v is not None}}
    known = {key.lower() for key in entries}
    entries.update({key: value for key, value in values.items() if key.lower() not in known})
    return {"Data": {binding: request}, "Metadata": metadata(entries)}


def to_bytes(body: Json) -> bytes:
    """The body on the wire."""
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
