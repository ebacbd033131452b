"""What is in force where not every layer is to be had: one that can't be entered takes no other with it, and is
said to be missing. And the filter that goes with what is left."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from handler import KERNEL_LAYERS, Handler, filters
from weft_runtime.jail.cell import Cell, Walls
from weft_runtime.jail.kernel import Kernel
from weft_runtime.jail.landlock import Landlock
from weft_runtime.jail.process import Process
from weft_runtime.jail.world import World

NAMESPACES = [layer for layer in KERNEL_LAYERS if layer.endswith("_namespace")]
MODULE = """
import ctypes, errno, os, socket
from weft import workflow

def number_of(attempt) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

def watches() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.inotify_init1(0) < 0:
        raise OSError(ctypes.get_errno(), "inotify_init1")

@workflow
def tries() -> dict:
    open("file", "w").close()
    return {
        "chmod": number_of(lambda: os.chmod("file", 0o600)),
        "utime": number_of(lambda: os.utime("file")),
        "watch": number_of(watches),
        "unix": number_of(lambda: socket.socket(socket.AF_UNIX).close()),
    }
"""


def off(*names: str) -> Any:
    return Handler(jail={"off": list(names)})


def has_landlock_scopes() -> bool:
    return Landlock(Kernel()).scopes_sockets


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes the user")
def test_an_unreachable_folder_costs_the_user_number_alone(tmp_path: Path) -> None:
    place = tmp_path / "scratch"
    place.mkdir(mode=0o700)
    with Handler(jail={"off": NAMESPACES, "scratch": str(place)}) as handler:
        posture = handler.ready["posture"]
    assert "chdir" in posture["missing"]["own_uid"]
    assert "own_uid" not in posture["layers"]
    assert {"landlock", "seccomp", "network_notify"} <= set(posture["layers"]), posture
    assert posture["tier"] == "confined"
    assert os.listdir(place) == []


def test_every_layer_holds_or_is_said_to_be_missing() -> None:
    for names in ([], ["mount_namespace"], ["seccomp"], ["own_uid"], ["own_uid", "landlock"], KERNEL_LAYERS):
        with off(*names) as handler:
            posture = handler.ready["posture"]
        told = {*posture["layers"], *posture["missing"]}
        assert {*KERNEL_LAYERS, "tmpfs_quota", "network_notify", "no_capabilities"} <= told, (names, posture)
        assert ("tmpfs_quota" in posture["layers"]) == ("mount_namespace" in posture["layers"])
        assert "seccomp" in posture["layers"] or "network_notify" not in posture["layers"]
        assert not set(names) & set(posture["layers"])
        assert all(posture["missing"].values())


def test_a_filter_that_stops_everything_takes_no_other_layer_along() -> None:
    everything = dict.fromkeys(filters(), "BgAAAAEABQA=")
    with off("seccomp") as without, Handler(jail={"filters": everything}) as stopped:
        layers, found = without.ready["posture"]["layers"], stopped.ready["posture"]
    assert found["layers"] == layers
    assert found["missing"]["seccomp"] and found["missing"]["network_notify"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["mount_namespace", "own_uid"], ["EPERM", "EPERM", "ENOSYS", "EACCES"]),
        (["landlock"], ["done", "done", "ENOSYS", "EACCES"]),
        ([], ["done", "done", "done", "done"] if has_landlock_scopes() else []),
    ],
)
def test_the_filter_goes_with_the_walls(bundle: Any, names: list[str], expected: list[str]) -> None:
    root = bundle(MODULE)
    with off(*names) as handler:
        there = set(handler.ready["posture"]["layers"])
        if "seccomp" not in there or (("mount_namespace" in there) == ("mount_namespace" in names)):
            pytest.skip(f"not these walls here: {handler.ready['posture']['missing']}")
        found = handler.attempt(root, "workflows.main", "tries").value
    assert expected in ([], list(found.values()))


def test_names_of_filters() -> None:
    kernel = Kernel()
    process = Process(kernel)
    landlock = Landlock(kernel)
    names = set(filters())

    def name(*, root: bool, abi: int | None, uid: int | None, trusted: bool, network: str) -> str:
        world = World(kernel, process)
        landlock.abi = abi or 0
        walls = Walls(kernel, process, world, landlock if abi else None, None, None, [], [], [])
        if root:
            world.root = object()  # type: ignore[assignment]
        proxy = "http://127.0.0.1:1" if network == "_proxy" else None
        cell = Cell(trusted, bool(network), "/b", (), "/s", 1, 1, uid, proxy)
        return walls.filter_name(cell)

    for trusted, network in [(False, ""), (True, ""), (True, "_network"), (True, "_proxy")]:
        plain = ("trusted" if trusted else "restricted") + network
        for uid in (None, 60_000):
            shared = "_shared" if uid is None else ""
            for root, abi, flavour in [
                (True, 6, "" if network == "_proxy" else "_unix"),
                (True, 5, ""),
                (True, None, ""),
                (False, 7, shared),
                (False, None, shared),
            ]:
                found = name(root=root, abi=abi, uid=uid, trusted=trusted, network=network)
                assert found == plain + flavour
                assert found in names
