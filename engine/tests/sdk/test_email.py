"""The step `email` against a real mail server: what arrives, what doesn't, and what is never tried."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import email.policy
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from weft import FatalError, _email
from weft._email import EmailBusy, EmailFailed
from weft._steps import email as step
from weft.testing import fake_context

PASSWORD = "correct horse"


class Post:
    """A mail server's own part: it keeps what it takes, and refuses by the name in front of the @."""

    def __init__(self) -> None:
        self.taken: list[tuple[list[str], EmailMessage]] = []

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address.startswith("nobody"):
            return "550 there is no such person"
        if address.startswith("later"):
            return "451 come back later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        parsed = BytesParser(policy=email.policy.default).parsebytes(envelope.content)
        assert isinstance(parsed, EmailMessage)
        self.taken.append((envelope.rcpt_tos, parsed))
        return "250 taken"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of `localhost` that signs itself, with its key in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(private + made.public_bytes(encoding))
    return file


def authenticate(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    good = isinstance(data, LoginPassword) and (data.login, data.password) == (b"weft", PASSWORD.encode())
    return AuthResult(success=good, handled=False)


@pytest.fixture(params=["starttls", "tls"])
def private(
    request: pytest.FixtureRequest, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Post, dict[str, Any]]]:
    """A server that wants TLS and a password, and what a step says to reach it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    post = Post()
    options: dict[str, Any] = {"authenticator": authenticate}
    if request.param == "tls":
        # It doesn't know of what is around its connection.
        options |= {"implicit": context, "auth_require_tls": False}
    else:
        options |= {"tls_context": context, "require_starttls": True, "auth_required": True}
    with running(post, **options) as port:
        yield post, {"server": f"localhost:{port}", "security": request.param}


@contextlib.contextmanager
def running(post: Post, *, implicit: ssl.SSLContext | None = None, **options: Any) -> Iterator[int]:
    """The port of a server that runs in a thread of its own."""
    loop = asyncio.new_event_loop()

    def made() -> SMTP:
        return SMTP(post, loop=loop, hostname="mail.example.com", **options)

    server = loop.run_until_complete(loop.create_server(made, "127.0.0.1", 0, ssl=implicit))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(_end(server), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end(server: asyncio.Server) -> None:
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@pytest.fixture
def plain() -> Iterator[tuple[Post, str]]:
    post = Post()
    with running(post) as port:
        yield post, f"127.0.0.1:{port}"


MESSAGE = {"from": "Reports <reports@example.com>", "to": "ann@example.com", "subject": "s", "text": "t"}


def send(server: str, security: str = "none", password: str = "", **message: Any) -> dict[str, Any]:
    ctx = fake_context(secrets={"SMTP": password})
    named = {"password": "SMTP"} if password else {}
    given = {name: value for name, value in {**MESSAGE, **message}.items() if value is not None}
    return step(ctx, server, security, {"user": "weft"} if password else {}, named, given)


def test_it_arrives_as_it_was_written(private: tuple[Post, dict[str, Any]]) -> None:
    post, where = private
    told = send(
        **where,
        password=PASSWORD,
        to=['"Ärzte, Ann" <ann@example.com>', "bob@example.com"],
        cc="cleo@example.com",
        bcc=["dan@example.com", "ann@example.com"],
        replyTo="help@example.com",
        subject="Größe ✓",
        text="Grüße\n.\nFrom here",
        html="<p>Grüße</p>",
        attachments=[{"data": "aMOpbGxv", "name": "résumé\r\nX: y.txt", "media_type": "text/plain"}],
    )
    ((recipients, mail),) = post.taken
    everybody = ["ann@example.com", "bob@example.com", "cleo@example.com", "dan@example.com"]
    assert (recipients, told["accepted"], told["refused"]) == (everybody, everybody, [])
    assert mail["to"].addresses[0].display_name == "Ärzte, Ann"
    assert (mail["subject"], mail["cc"], mail["bcc"]) == ("Größe ✓", "cleo@example.com", None)
    assert (mail["reply-to"], mail["x"]) == ("help@example.com", None)
    assert (told["message_id"], mail["message-id"]) == ("<run.test.main@example.com>",) * 2
    text, html = (mail.get_body((kind,)) for kind in ("plain", "html"))
    assert text is not None and text.get_content().replace("\r\n", "\n") == "Grüße\n.\nFrom here\n"
    assert html is not None and html.get_content().strip() == "<p>Grüße</p>"
    (attached,) = mail.iter_attachments()
    assert attached.get_filename() == "résuméX: y.txt"
    assert attached.get_payload(decode=True) == "héllo".encode()


def test_wrong_credentials_are_told_without_them(private: tuple[Post, dict[str, Any]]) -> None:
    post, where = private
    with pytest.raises(EmailFailed, match="did not take the credentials") as failed:
        send(**where, password="wrong horse")
    assert not isinstance(failed.value, EmailBusy)
    assert "horse" not in str(failed.value)
    assert not post.taken


def test_a_certificate_that_nobody_knows_is_refused(
    private: tuple[Post, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    post, where = private
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(EmailFailed, match="certificate"):
        send(**where, password=PASSWORD)
    assert not post.taken


def test_it_never_falls_back_to_a_connection_that_others_read(plain: tuple[Post, str]) -> None:
    post, server = plain
    with pytest.raises(EmailFailed, match="STARTTLS"):
        send(server, "starttls", password=PASSWORD)
    assert not post.taken


def test_what_is_refused_is_told(plain: tuple[Post, str]) -> None:
    post, server = plain
    told = send(server, to=["ann@example.com", "nobody@example.com"])
    assert told["accepted"] == ["ann@example.com"]
    assert told["refused"] == [
        {"address": "nobody@example.com", "status": 550, "reason": "there is no such person"}
    ]
    assert len(post.taken) == 1
    with pytest.raises(EmailFailed, match="no such person") as failed:
        send(server, to="nobody@example.com")
    assert (failed.value.data, isinstance(failed.value, EmailBusy)) == ({"status": 550}, False)
    with pytest.raises(EmailBusy, match="come back later"):
        send(server, to="later@example.com")


def test_a_server_that_is_not_there_may_be_later() -> None:
    with running(Post()) as port:
        pass
    with pytest.raises(EmailBusy, match="can't be reached"):
        send(f"127.0.0.1:{port}")


def test_a_server_that_the_jail_refuses_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("socket.create_connection", refuse)
    with pytest.raises(EmailFailed, match="may reach") as failed:
        send("127.0.0.1:25")
    assert not isinstance(failed.value, EmailBusy)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"to": "ann@example.com\r\nBcc: x@example.com"}, "line break"),
        ({"subject": "a\nBcc: x@example.com"}, "one line"),
        ({"subject": "a\u2028b"}, "one line"),
        ({"subject": "a\x85b"}, "one line"),
        ({"subject": "=?utf-8?q?a=0D=0ABcc:_x@example.com?="}, "encoded word"),
        ({"subject": "=?utf-8?b?DQpCY2M6IHhAeS56?="}, "encoded word"),
        ({"to": "=?utf-8?q?a=0D=0ABcc:_x?= <ann@example.com>"}, "encoded word"),
        ({"to": "(=?utf-8?q?a=0D=0A?=) ann@example.com"}, "encoded word"),
        ({"to": "ann@exa\u2028mple.com"}, "one line"),
        ({"to": "ann@exa mple.com"}, "no address as"),
        ({"to": "ann@example.com NOTIFY=SUCCESS"}, "no address as"),
        ({"to": "ann@example.com\tX"}, "one line"),
        ({"to": "ann@exa_mple..com"}, "no address as"),
        ({"to": []}, "no address"),
        ({"to": "ann"}, "no address as"),
        ({"to": "@"}, "no address as"),
        ({"to": 7}, "must be an address"),
        ({"from": "a@example.com, b@example.com"}, "one address, not 2"),
        ({"to": [f"a{n}@example.com" for n in range(101)]}, "101 recipients"),
        ({"text": 7}, "`text` must be a text"),
        ({"text": "x" * 1_048_577}, "longer than"),
        ({"attachments": ["x"]}, "attachment 1 is no file"),
        ({"attachments": [{"data": "!"}]}, "attachment 1 is no base64"),
    ],
)
def test_what_can_not_be_sent_is_said_before_anything_is(
    plain: tuple[Post, str], message: dict[str, Any], words: str
) -> None:
    post, server = plain
    with pytest.raises(FatalError, match=words):
        send(server, **message)
    assert not post.taken


def test_no_name_of_an_attachment_adds_a_header(plain: tuple[Post, str]) -> None:
    post, server = plain
    word = "=?utf-8?q?=0D=0ABcc:_x@example.com=0D=0A=0D=0Abody?="
    send(
        server,
        subject="is it =? or ?=",
        to="ann@bücher.example",
        attachments=[{"data": "aGk=", "name": word, "media_type": f"text/{word}"}],
    )
    ((recipients, mail),) = post.taken
    assert recipients == ["ann@xn--bcher-kva.example"]
    assert mail["subject"] == "is it =? or ?="
    (attached,) = mail.iter_attachments()
    assert attached.get_content_type() == "application/octet-stream"
    assert sorted(attached.keys()) == [
        "Content-Disposition",
        "Content-Transfer-Encoding",
        "Content-Type",
        "MIME-Version",
    ]
    assert attached.get_payload(decode=True) == b"hi"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"220-more\r\n" * 20_000, "longer than 65536 bytes"),
        (b"SSH-2.0-OpenSSH\r\n", "isn't SMTP"),
    ],
)
def test_a_server_that_says_too_much_or_something_else_is_left(said: bytes, words: str) -> None:
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(said)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with pytest.raises(EmailBusy, match=words):
            send(f"127.0.0.1:{listening.getsockname()[1]}")
    finally:
        thread.join()
        listening.close()


GREETING = b"220 mail.example.com ESMTP\r\n"


@pytest.mark.parametrize(
    ("before", "slow"),
    [
        # The greeting, a byte at a time.
        ([], b"220 " + b"x" * 2_000),
        # The answer to the first command, a line at a time: each by itself is quick.
        ([GREETING], b"250-X\r\n" * 500),
        # The last word on the message.
        ([GREETING, b"250 OK\r\n", b"250 OK\r\n", b"250 OK\r\n", b"354 go\r\n"], b"250 " + b"x" * 2_000),
    ],
)
def test_a_server_that_never_ends_its_answer_is_left(
    before: list[bytes], slow: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_email, "CONNECT_SECONDS", 1)
    monkeypatch.setattr(_email, "TAKING_SECONDS", 1)
    listening = socket.create_server(("127.0.0.1", 0))
    left = threading.Event()

    def answer() -> None:
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            for number, said in enumerate(before):
                # Between answers it waits for a command, but for the greeting.
                if number:
                    connection.recv(8192)
                connection.sendall(said)
            if before:
                connection.recv(8192)
            for byte in slow:
                if left.wait(0.05):
                    return
                connection.sendall(bytes([byte]))

    thread = threading.Thread(target=answer)
    thread.start()
    began = time.monotonic()
    try:
        with pytest.raises(EmailBusy, match="not over after 1 s"):
            send(f"127.0.0.1:{listening.getsockname()[1]}")
        # All that it has said would have taken more than a minute.
        assert time.monotonic() - began < 15
    finally:
        left.set()
        thread.join()
        listening.close()


def test_answers_may_come_in_pieces() -> None:
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            for byte in GREETING:
                connection.sendall(bytes([byte]))
            for said in (
                b"250 OK\r\n",
                b"250 OK\r\n",
                b"250 OK\r\n",
                b"354 go\r\n",
                b"250 tak",
                b"221 bye\r\n",
            ):
                connection.recv(8192)
                connection.sendall(said)
                if said == b"250 tak":
                    connection.sendall(b"en\r\n")

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        told = send(f"127.0.0.1:{listening.getsockname()[1]}")
        assert told["accepted"] == ["ann@example.com"]
    finally:
        thread.join()
        listening.close()


def test_a_server_without_tls_is_not_tried_again(plain: tuple[Post, str]) -> None:
    post, server = plain
    with pytest.raises(EmailFailed, match="doesn't begin with TLS") as failed:
        send(server, "tls")
    assert not isinstance(failed.value, EmailBusy)
    assert not post.taken
