"""Frames and messages against the golden examples, which the Rust side reads too."""

from __future__ import annotations

import base64
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handler import ENGINE_DIR, Handler
from weft_runtime.protocol import (
    FrameSocket,
    HandlerGone,
    ProtocolError,
    decode,
    encode,
    name_at,
    without_names,
)

GOLDEN = ENGINE_DIR.parent / "tests" / "golden" / "protocol"
FRAMES = sorted(GOLDEN.glob("frames/*.json"))
CONTROL = sorted(GOLDEN.glob("control/*.json"))
BAD = sorted(GOLDEN.glob("bad/*.json"))
KINDS = {
    "ready",
    "log",
    "checkpoint",
    "call",
    "succeeded",
    "failed",
    "described",
    "described_all",
    "attempt",
    "reply",
    "describe",
    "source",
}
OPS = {"hello", "fork", "kill", "ready", "refused", "forked", "fork_failed", "exited"}


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, FrameSocket]]:
    theirs, ours = socket.socketpair()
    with theirs, ours:
        yield theirs, FrameSocket(ours.fileno(), 1114112)


@pytest.mark.parametrize("path", FRAMES + CONTROL, ids=lambda path: path.stem)
def test_every_example_survives_a_round_trip(path: Path) -> None:
    message = load(path)["message"]
    assert decode(encode(message)) == message


def test_there_is_an_example_of_everything() -> None:
    assert {load(path)["message"]["t"] for path in FRAMES} == KINDS
    assert {load(path)["message"]["op"] for path in CONTROL} == OPS


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_bytes_end_the_worker(path: Path, handler: Handler, bundle: Any) -> None:
    example = load(path)
    root = bundle("from weft import workflow\n@workflow\ndef f(): return 1\n")
    worker = handler.fork(root, "workflows.main", limits={"frame_bytes": example["frame_bytes"]})
    ready = worker.frame()
    assert ready is not None
    assert ready["t"] == "ready"
    worker.sock.sendall(base64.b64decode(example["bytes_base64"]))
    worker.sock.shutdown(socket.SHUT_WR)
    assert worker.frames() == []
    expected = 71 if path.stem.startswith("cut_") else 72
    assert handler.hear("exited", worker.id)["code"] == expected


def test_reads_frames_that_arrive_byte_by_byte(pair: tuple[socket.socket, FrameSocket]) -> None:
    theirs, ours = pair
    data = b"".join(len(body).to_bytes(4, "big") + body for body in (b'{"t":"a"}', '{"t":"ä"}'.encode()))
    for byte in data:
        theirs.send(bytes([byte]))
    assert [ours.receive(), ours.receive()] == [{"t": "a"}, {"t": "ä"}]
    theirs.close()
    with pytest.raises(HandlerGone):
        ours.receive()


def test_writes_what_a_reader_understands(pair: tuple[socket.socket, FrameSocket]) -> None:
    theirs, ours = pair
    ours.send({"t": "log", "message": "ä\ud800"})
    data = theirs.recv(1024)
    assert int.from_bytes(data[:4], "big") == len(data) - 4
    assert json.loads(data[4:]) == {"t": "log", "message": "ä?"}
    with pytest.raises(ValueError, match="JSON"):
        ours.send({"t": float("nan")})
    with pytest.raises(ProtocolError, match="over the limit"):
        ours.send({"t": "x" * 1114113})


def test_a_reader_that_left_is_noticed(pair: tuple[socket.socket, FrameSocket]) -> None:
    theirs, ours = pair
    theirs.close()
    with pytest.raises(HandlerGone):
        ours.send({"t": "log"})


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n", " :\t")])
def test_the_zygote_reads_no_names(separators: tuple[str, str]) -> None:
    message = {
        "op": "fork",
        "module": 'a"\\"b\\',
        "scratch": "/s/w7 ä",
        "bundle": {"dir": '/b "module": "kept"'},
        "paths": ["module", ":", "scratch"],
        "jail": {"modules": {"allow": ["scratch"]}},
    }
    data = bytearray(json.dumps(message, ensure_ascii=False, separators=separators).encode())
    readable, places = without_names(data)
    assert decode(readable) == {**message, "module": "", "scratch": ""}
    for name in ("module", "scratch"):
        assert name_at(data, places[name.encode()]) == message[name]
    assert without_names(b'{"module":null,"scratch":3}') == (b'{"module":null,"scratch":3}', {})


def test_nesting() -> None:
    def nested(depth: int) -> bytes:
        return b'{"a":' * depth + b"1" + b"}" * depth

    decode(nested(128))
    with pytest.raises(ProtocolError, match="deeper than 128"):
        decode(nested(130))


def test_the_golden_folder_has_no_stray_files() -> None:
    assert set(os.listdir(GOLDEN)) == {"README.md", "bad", "control", "frames"}
    for path in FRAMES + CONTROL:
        assert load(path)["name"] == path.stem
