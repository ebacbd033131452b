"""Azure Queue storage over REST with a shared key: just what the queue trigger and queue output need."""

import base64
import datetime
import email.utils
import hashlib
import hmac
import math
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit
from xml.sax.saxutils import escape

import aiohttp
from yarl import URL

_VERSION = "2021-12-02"
_EMULATOR = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;"
    "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;"
    "QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1"
)


class StorageError(Exception):
    """A storage answer that is not a success."""

    def __init__(self, status: int, code: str, body: str) -> None:
        super().__init__(f"{status} {code}: {body[:200]}")
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Account:
    """From a connection string."""

    name: str
    key: bytes
    queue_endpoint: str

    @classmethod
    def parse(cls, connection: str) -> "Account":
        """Explicit QueueEndpoint, the emulator's short form, or the public endpoint."""
        if connection.strip().rstrip(";").lower() == "usedevelopmentstorage=true":
            connection = _EMULATOR
        parts = dict(part.split("=", 1) for part in connection.split(";") if "=" in part)
        name, key = parts["AccountName"], base64.b64decode(parts["AccountKey"])
        endpoint = parts.get("QueueEndpoint")
        if endpoint is None:
            protocol = parts.get("DefaultEndpointsProtocol", "https")
            suffix = parts.get("EndpointSuffix", "core.windows.net")
            endpoint = f"{protocol}://{name}.queue.{suffix}"
        return cls(name, key, endpoint.rstrip("/"))

    def sign(
        self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], length: int
    ) -> str:
        """The ``Authorization`` value of a request to the queue service."""
        ms_headers = sorted((k.lower(), v) for k, v in headers.items() if k.lower().startswith("x-ms-"))
        content_type = next((v for k, v in headers.items() if k.lower() == "content-type"), "")
        lines = [method, "", "", str(length) if length else "", "", content_type, "", "", "", "", "", ""]
        lines += [f"{name}:{value}" for name, value in ms_headers]
        resource = f"/{self.name}{path}"
        resource += "".join(f"\n{name.lower()}:{value}" for name, value in sorted(query.items()))
        text = "\n".join([*lines, resource])
        digest = hmac.new(self.key, text.encode(), hashlib.sha256).digest()
        return f"SharedKey {self.name}:{base64.b64encode(digest).decode()}"


@dataclass(frozen=True)
class Dequeued:
    """A message as it was received, its text still encoded."""

    id: str
    pop_receipt: str
    dequeue_count: int
    inserted: datetime.datetime
    expires: datetime.datetime
    next_visible: datetime.datetime
    text: str


class QueueClient:
    """One queue service."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))

    async def close(self) -> None:
        """Drop all connections."""
        await self._session.close()

    async def create(self, queue: str) -> None:
        """Create a queue unless it is there."""
        await self._request("PUT", f"/{queue}")

    async def put(self, queue: str, text: str, visibility: float = 0) -> None:
        """Add a message; ``text`` is already encoded."""
        query = {"visibilitytimeout": str(math.ceil(visibility))} if visibility else {}
        await self._request("POST", f"/{queue}/messages", query, _message_xml(text))

    async def get(self, queue: str, count: int, visibility: float) -> list[Dequeued]:
        """Take up to ``count`` messages and hide them."""
        query = {"numofmessages": str(count), "visibilitytimeout": str(math.ceil(visibility))}
        answer, _ = await self._request("GET", f"/{queue}/messages", query)
        return [_parse(item) for item in ET.fromstring(answer).iter("QueueMessage")]

    async def peek(self, queue: str) -> list[str]:
        """The texts of up to 32 visible messages, still encoded; nothing for a queue that is not there."""
        try:
            answer, _ = await self._request(
                "GET", f"/{queue}/messages", {"peekonly": "true", "numofmessages": "32"}
            )
        except StorageError as error:
            if error.status == 404:
                return []
            raise
        return [item.findtext("MessageText") or "" for item in ET.fromstring(answer).iter("QueueMessage")]

    async def count(self, queue: str) -> int:
        """How many messages there are, hidden ones too; nothing for a queue that is not there."""
        try:
            _, headers = await self._request("GET", f"/{queue}", {"comp": "metadata"})
        except StorageError as error:
            if error.status == 404:
                return 0
            raise
        return int(headers["x-ms-approximate-messages-count"])

    async def update(self, queue: str, message_id: str, pop_receipt: str, visibility: float) -> str:
        """Hide a message for that long from now on; the new pop receipt."""
        query = {"popreceipt": pop_receipt, "visibilitytimeout": str(math.ceil(visibility))}
        _, headers = await self._request("PUT", f"/{queue}/messages/{message_id}", query)
        return headers["x-ms-popreceipt"]

    async def delete(self, queue: str, message_id: str, pop_receipt: str) -> None:
        """Remove a message for good."""
        await self._request("DELETE", f"/{queue}/messages/{message_id}", {"popreceipt": pop_receipt})

    async def _request(
        self, method: str, resource: str, query: Mapping[str, str] | None = None, body: bytes = b""
    ) -> tuple[str, Mapping[str, str]]:
        query = query or {}
        base = urlsplit(self._account.queue_endpoint)
        path = base.path + resource
        headers = {"x-ms-version": _VERSION, "x-ms-date": email.utils.formatdate(usegmt=True)}
        if body:
            headers["Content-Type"] = "application/xml"
        headers["Authorization"] = self._account.sign(method, path, query, headers, len(body))
        text = "&".join(f"{key}={quote(value, safe='')}" for key, value in query.items())
        url = f"{base.scheme}://{base.netloc}{path}" + (f"?{text}" if text else "")
        async with self._session.request(
            method,
            URL(url, encoded=True),
            data=body,
            headers=headers,
            skip_auto_headers=("Content-Type",),
        ) as response:
            answer = await response.text()
            if response.status >= 300:
                raise StorageError(response.status, response.headers.get("x-ms-error-code", ""), answer)
            return answer, response.headers


def _message_xml(text: str) -> bytes:
    return f"<QueueMessage><MessageText>{escape(text)}</MessageText></QueueMessage>".encode()


def _parse(item: ET.Element) -> Dequeued:
    def text(name: str) -> str:
        return item.findtext(name) or ""

    def moment(name: str) -> datetime.datetime:
        return email.utils.parsedate_to_datetime(text(name)).astimezone(datetime.UTC)

    return Dequeued(
        text("MessageId"),
        text("PopReceipt"),
        int(text("DequeueCount")),
        moment("InsertionTime"),
        moment("ExpirationTime"),
        moment("TimeNextVisible"),
        text("MessageText"),
    )
