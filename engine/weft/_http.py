"""`ctx.http`: requests that the engine makes, so that a secret can be on them which the step never sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._errors import InvalidInput, WeftError
from ._json import check, encode
from ._secrets import Handle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._context import Link

BODY_BYTES = 512 * 1024


class HttpError(WeftError):
    """`Response.raise_for_status`: the answer has a status from 400 on. `status` is that."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message, data={"status": status})
        self.status = status


class Headers:
    """The headers of an answer; names in any case. `get_all` for those that come more than once."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = [(name.lower(), value) for name, value in pairs]

    def get(self, name: str, default: str | None = None) -> str | None:
        """The first value of `name`, or `default`."""
        return next(iter(self.get_all(name)), default)

    def get_all(self, name: str) -> list[str]:
        """Every value of `name`."""
        wanted = name.lower()
        return [value for known, value in self._pairs if known == wanted]

    def items(self) -> list[tuple[str, str]]:
        """Names in lower case with their values, in the order of the answer."""
        return list(self._pairs)

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.get_all(name))

    def __repr__(self) -> str:
        return f"Headers({[name for name, _ in self._pairs]})"


class Response:
    """An answer: `status`, `url`, `headers`, `body` (bytes, at most 4 MiB). A status from 400 on is no
    exception unless you call `raise_for_status`."""

    __slots__ = ("body", "headers", "status", "url")

    def __init__(self, status: int, url: str, headers: Headers, body: bytes) -> None:
        self.status = status
        self.url = url
        self.headers = headers
        self.body = body

    @property
    def ok(self) -> bool:
        """Whether the status is below 400."""
        return self.status < 400

    @property
    def text(self) -> str:
        """The body as text in its charset, else UTF-8; what can't be read is replaced."""
        kind = (self.headers.get("content-type") or "").lower()
        charset = kind.partition("charset=")[2].partition(";")[0].strip(" \"'") or "utf-8"
        try:
            return self.body.decode(charset, "replace")
        except LookupError:
            return self.body.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON; raises ValueError where it is none."""
        from json import loads

        return loads(self.body)

    def raise_for_status(self) -> Response:
        """Itself, or HttpError where the status is 400 or above."""
        if self.ok:
            return self
        raise HttpError(f"{self.url} answered {self.status}", self.status)

    def __repr__(self) -> str:
        return f"Response({self.status}, {len(self.body)} bytes)"


class Http:
    """Makes requests through the engine. The step's own `network=` says where they may go; with `auth` the
    secret's own hosts do as well."""

    __slots__ = ("_link",)

    def __init__(self, link: Link) -> None:
        self._link = link

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        body: bytes | str | None = None,
        auth: Handle | None = None,
        auth_as: str | None = None,
        timeout: float = 30,
    ) -> Response:
        """Make a request and wait for the answer; in async code, `await asyncio.to_thread(ctx.http.get, url)`
        lets other tasks go on meanwhile.

        json or body: what is sent, at most 512 KiB. auth: a secret's handle. auth_as: how the secret is sent
        where that isn't as whoever wrote it said: `bearer`, `basic` (its value is `user:password`),
        `header:NAME`. timeout: in seconds, at most 300. Redirects are followed within the same scheme, host
        and port.

        Raises Denied for a place that the step or the secret may not reach, Unavailable where nobody answers,
        TooLarge over a limit.
        """
        from base64 import b64decode, b64encode

        sent = dict(headers or {})
        if auth is not None and not isinstance(auth, Handle):
            raise TypeError("auth must be a handle, as ctx.secrets.handle(name) gives it")
        if json is not None:
            if body is not None:
                raise InvalidInput("give json or body, not both")
            check(json, "json")
            body = encode(json)
            if not any(name.lower() == "content-type" for name in sent):
                sent["Content-Type"] = "application/json"
        data = body.encode() if isinstance(body, str) else body
        if data is not None and len(data) > BODY_BYTES:
            raise InvalidInput(f"the body has {len(data)} bytes; the limit is {BODY_BYTES}")
        answer = self._link.call(
            "http.request",
            {
                "method": method,
                "url": url,
                "headers": [[name, value] for name, value in sent.items()],
                "body_base64": None if data is None else b64encode(data).decode(),
                "auth": None if auth is None else auth._id,
                "auth_as": auth_as,
                "timeout": timeout,
            },
        )
        pieces = [b64decode(answer["body_base64"])]
        more = answer.get("more")
        while more is not None:
            rest = self._link.call("http.read", {"id": more})
            pieces.append(b64decode(rest["body_base64"]))
            more = rest.get("more")
        pairs = [(name, value) for name, value in answer["headers"]]
        return Response(answer["status"], answer["url"], Headers(pairs), b"".join(pieces))

    def get(self, url: str, **options: Any) -> Response:
        """`request("GET", …)`."""
        return self.request("GET", url, **options)

    def post(self, url: str, **options: Any) -> Response:
        """`request("POST", …)`."""
        return self.request("POST", url, **options)

    def __repr__(self) -> str:
        return "Http()"
