"""The built-in step `email`: a message of RFC 5322 made of its values, and how a mail server is given it.

The connection is the worker's own, to the one server that the step names, through the network of the jail.
"""

from __future__ import annotations

import os
import re
import smtplib
import socket
import ssl
import time
import unicodedata
from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping
from email import policy
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import formatdate, getaddresses
from typing import Any

from ._context import Context
from ._errors import FatalError, RetryableError, WeftError

CONNECT_SECONDS = 30
"""Longest time that the server may take for any one answer, from when it is waited for to its last byte."""
TAKING_SECONDS = 240
"""Longest time that it may take to take the message: whoever gives up earlier sends it twice.

RFC 5321 (4.5.3.2.6) asks for ten minutes; a step has five unless its workflow says more."""
RECIPIENTS = 100
"""Most addresses of one message, as RFC 5321 (4.5.3.1.8) has every server take."""
TEXT_BYTES = 1024 * 1024
ATTACHED_BYTES = 20 * 1024 * 1024
"""Most bytes of all attachments together, before they are encoded."""
ANSWER_BYTES = 64 * 1024
"""Most bytes of one answer of the server, over all of its lines."""
_ENCODED_WORD = re.compile(r"=\?[^?]*\?[^?]*\?.*\?=", re.DOTALL)
_DOMAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\]|\[IPv6:[0-9A-Fa-f:.]+\]")
_MEDIA_TYPE = re.compile(r"[A-Za-z]+/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*")


class EmailFailed(WeftError):
    """The message was not taken, and won't be if it is sent again. `data` has `status` where there is one."""


class EmailBusy(EmailFailed, RetryableError):
    """The server could not be reached, or says that it may take the message later (400 to 499)."""


def compose(ctx: Context, message: Mapping[str, Any]) -> tuple[EmailMessage, str, list[str]]:
    """The message, its sender's address and those of all recipients. FatalError for what can't be sent."""
    try:
        return _composed(ctx, message)
    except (ValueError, HeaderParseError) as error:
        raise FatalError(f"the message can't be written: {error}") from None


def _composed(ctx: Context, message: Mapping[str, Any]) -> tuple[EmailMessage, str, list[str]]:
    sender = _addresses(message, "from")
    if len(sender) != 1:
        raise FatalError(f"`from` must be one address, not {len(sender)}")
    mail = EmailMessage()
    recipients: dict[str, None] = {}
    for member, header in (("to", "To"), ("cc", "Cc"), ("bcc", "")):
        found = _addresses(message, member)
        if header and found:
            mail[header] = found
        recipients.update((address.addr_spec, None) for address in found)
    if not _addresses(message, "to"):
        raise FatalError("`to` has no address")
    if len(recipients) > RECIPIENTS:
        raise FatalError(
            f"the message has {len(recipients)} recipients; the limit is {RECIPIENTS}: send it in parts"
        )
    mail["From"] = sender
    if answers := _addresses(message, "replyTo"):
        mail["Reply-To"] = answers
    subject = _text(message, "subject") or ""
    _one_line("subject", subject)
    mail["Subject"] = subject
    mail["Date"] = formatdate()
    # Of all attempts of the step: whoever gets it twice can tell.
    identity = "".join(sign if sign.isalnum() else "." for sign in ctx.run.idempotency_key) or "unknown"
    mail["Message-ID"] = f"<{identity}@{sender[0].domain}>"
    text, html = _text(message, "text"), _text(message, "html")
    if text is not None or html is None:
        mail.set_content(text or "")
    if html is not None and text is None:
        mail.set_content(html, subtype="html")
    elif html is not None:
        mail.add_alternative(html, subtype="html")
    _attach(ctx, mail, message.get("attachments"))
    return mail, sender[0].addr_spec, list(recipients)


def deliver(
    mail: EmailMessage,
    sender: str,
    recipients: list[str],
    *,
    server: str,
    security: str,
    user: str | None,
    password: str | None,
) -> list[dict[str, Any]]:
    """Hands a message over; the recipients that the server did not take. Raises EmailBusy or EmailFailed."""
    host, _, port = server.rpartition(":")
    try:
        with _Client(host, int(port), ssl.create_default_context(), implicit=security == "tls") as client:
            if security == "starttls":
                client.starttls(context=client.context)
            if user is not None and password is not None:
                client.login(user, password)
            refused = client.sendmail(sender, recipients, *_written(mail, sender, recipients))
    except smtplib.SMTPRecipientsRefused as error:
        raise _failure("no recipient was taken", *next(iter(error.recipients.values()))) from None
    except smtplib.SMTPAuthenticationError as error:
        # What the server says may repeat what it was given.
        raise _failure("the server did not take the credentials", error.smtp_code, b"") from None
    except smtplib.SMTPServerDisconnected as error:
        raise EmailBusy(f"{server} ended the connection: {error}") from None
    except smtplib.SMTPResponseException as error:
        raise _failure("the server refused", error.smtp_code, error.smtp_error) from None
    except smtplib.SMTPNotSupportedError as error:
        raise EmailFailed(f"{server} can't: {error}") from None
    except ssl.SSLCertVerificationError as error:
        raise EmailFailed(f"the certificate of {server} is not good: {error.verify_message}") from None
    except ssl.SSLError as error:
        if error.reason != "WRONG_VERSION_NUMBER":
            raise EmailBusy(f"{server} can't be reached: {error}") from None
        raise EmailFailed(f"{server} doesn't begin with TLS: `security: {security}` isn't its way") from None
    except PermissionError:
        # The network of the step says which line would let it through.
        raise EmailFailed(f"{server} is nothing that this step may reach") from None
    except (OSError, smtplib.SMTPException) as error:
        raise EmailBusy(f"{server} can't be reached: {error}") from None
    return [
        {"address": address, "status": status, "reason": _words(reason)}
        for address, (status, reason) in refused.items()
    ]


def _written(mail: EmailMessage, sender: str, recipients: list[str]) -> tuple[bytes, list[str]]:
    """What goes over the wire, and what the server must be able to do for it. `send_message` would put a `>`
    before lines that begin with `From`."""
    way, needs = policy.SMTP, []
    if not all(address.isascii() for address in (sender, *recipients)):
        way, needs = policy.SMTPUTF8, ["SMTPUTF8", "BODY=8BITMIME"]
    written = mail.as_bytes(policy=way)
    head = written.partition(b"\r\n\r\n")[0].split(b"\r\n")
    names = [line.partition(b":")[0].decode("ascii", "replace") for line in head if line[:1] not in b" \t"]
    # Whatever the values were: no header but those that were meant.
    if names != list(mail.keys()):
        raise FatalError("the values would change the message's headers")
    return written, needs


class _Client(smtplib.SMTP):
    """SMTP through whatever way to the network the worker has."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext, *, implicit: bool) -> None:
        self.context = context
        self._implicit = implicit
        self._patience = CONNECT_SECONDS
        # The name with which it greets: that of the machine is nobody's business.
        super().__init__(host.strip("[]"), port, local_hostname="weft.invalid", timeout=CONNECT_SECONDS)

    def getreply(self) -> tuple[int, bytes]:
        """As smtplib's, for an answer that has an end."""
        if self.file is None and self.sock is not None:
            self.file = _Answers(self.sock)
        if isinstance(self.file, _Answers):
            self.file.expect(self._patience)
        try:
            return super().getreply()
        finally:
            # What is sent next, or a handshake, has its own time.
            if self.sock is not None:
                self.sock.settimeout(self._patience)

    def data(self, msg: Any) -> tuple[int, bytes]:
        """As smtplib's, with the patience that its answer needs."""
        self._patience = TAKING_SECONDS
        try:
            return super().data(msg)
        finally:
            self._patience = CONNECT_SECONDS

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        proxy = os.environ.get("HTTPS_PROXY")
        if proxy is None:
            connected = socket.create_connection((host, port), timeout)
        else:
            connected = _tunnel(proxy, host, port, timeout)
        return self.context.wrap_socket(connected, server_hostname=host) if self._implicit else connected


class _Answers:
    """The lines of a server, until one answer has too many or takes too long."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._held = b""
        self._left = 0
        self._patience = 0.0
        self._until = 0.0

    def expect(self, seconds: float) -> None:
        """Another answer, which is over in so many seconds however it comes."""
        self._left = ANSWER_BYTES
        self._patience = seconds
        self._until = time.monotonic() + seconds

    def readline(self, most: int) -> bytes:
        while b"\n" not in self._held and len(self._held) < most:
            # A connection's own time limit begins again with each byte.
            remaining = self._until - time.monotonic()
            if remaining <= 0:
                raise TimeoutError(f"its answer was not over after {self._patience} s")
            self._connection.settimeout(remaining)
            try:
                some = self._connection.recv(8192)
            except TimeoutError:
                raise TimeoutError(f"its answer was not over after {self._patience} s") from None
            if not some:
                break
            self._held += some
        end = min(self._held.find(b"\n") + 1 or len(self._held), most)
        line, self._held = self._held[:end], self._held[end:]
        self._left -= len(line)
        if self._left < 0:
            raise OSError(f"its answer is longer than {ANSWER_BYTES} bytes")
        return line

    def close(self) -> None:
        """Nothing: the connection is its client's."""


def _tunnel(proxy: str, host: str, port: int, timeout: float) -> socket.socket:
    from http.client import HTTPConnection
    from urllib.parse import unquote, urlsplit

    at = urlsplit(proxy)
    connection = HTTPConnection(at.hostname or "", at.port, timeout=timeout)
    known = f"{unquote(at.username or '')}:{unquote(at.password or '')}".encode()
    proof = b2a_base64(known, newline=False).decode()
    connection.set_tunnel(host, port, {"Proxy-Authorization": f"Basic {proof}"})
    connection.connect()
    return connection.sock


def _failure(what: str, status: int, reason: bytes | str) -> EmailFailed:
    if status <= 0:
        return EmailBusy(f"{what}: what it says isn't SMTP")
    said = _words(reason)
    message = f"{what}: {status}" + (f" {said}" if said else "")
    return (EmailBusy if 400 <= status < 500 else EmailFailed)(message, data={"status": status})


def _words(reason: bytes | str) -> str:
    text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
    return " ".join(text.split())[:300]


def _text(message: Mapping[str, Any], member: str) -> str | None:
    value = message.get(member)
    if value is None:
        return None
    if not isinstance(value, str):
        raise FatalError(f"`{member}` must be a text, not {type(value).__name__}")
    if len(value.encode("utf-8", "surrogatepass")) > TEXT_BYTES:
        raise FatalError(f"`{member}` is longer than {TEXT_BYTES} bytes: attach it as a file")
    return value


def _addresses(message: Mapping[str, Any], member: str) -> list[Address]:
    value = message.get(member)
    given = [] if value is None else value if isinstance(value, list) else [value]
    found = []
    for one in given:
        if not isinstance(one, str):
            raise FatalError(f"`{member}` must be an address or a list of them, not {type(one).__name__}")
        _one_line(member, one)
        if not one.strip():
            continue
        for name, address in getaddresses([one]):
            try:
                parsed = Address(name, addr_spec=address)
                # Without what the parser leaves out or joins, and with the domain as mail servers look it up.
                if address not in one or not parsed.username or not parsed.domain:
                    raise ValueError
                ascii_domain = parsed.domain.encode("idna").decode("ascii")
                if not _DOMAIN.fullmatch(ascii_domain):
                    raise ValueError
                found.append(Address(name, parsed.username, ascii_domain))
            except (HeaderParseError, ValueError, IndexError):
                raise FatalError(f"`{member}`: `{one[:100]}` is no address as `ann@example.com`") from None
    return found


def _one_line(member: str, value: str) -> None:
    if any(unicodedata.category(sign) in ("Cc", "Zl", "Zp", "Cs") for sign in value):
        raise FatalError(f"`{member}` has a line break or another control character: it must be one line")
    # The library would decode it, line breaks and all, into the head of the message.
    if _ENCODED_WORD.search(value):
        raise FatalError(f"`{member}` has an encoded word (`=?…?=`): write the text as it is to be read")


def _attach(ctx: Context, mail: EmailMessage, files: Any) -> None:
    if files is None:
        return
    size = 0
    for number, file in enumerate(files if isinstance(files, list) else [files], 1):
        if not isinstance(file, dict) or not ("data" in file or "artifact" in file):
            raise FatalError(f"attachment {number} is no file: give what `file` ports and `as_file()` give")
        try:
            if "data" in file:
                content = a2b_base64(str(file["data"]), strict_mode=True)
            else:
                content = ctx.artifacts.content(file)
        except ValueError:
            raise FatalError(f"attachment {number} is no base64") from None
        size += len(content)
        if size > ATTACHED_BYTES:
            raise FatalError(f"the attachments have more than {ATTACHED_BYTES} bytes: send a link to them")
        kind = str(file.get("media_type") or "").partition(";")[0].strip()
        kind = kind if _MEDIA_TYPE.fullmatch(kind) else "application/octet-stream"
        main, _, sub = kind.partition("/")
        name = str(file.get("name") or f"attachment-{number}")
        # Of an encoded word nothing is left that the library would decode.
        name = "".join(sign for sign in name if sign.isprintable()).replace("=?", "_")[:200]
        mail.add_attachment(content, maintype=main, subtype=sub, filename=name)
