"""No attack gets anything, in any posture that the default minimum allows; and whoever is attacked never notices."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time

import pytest

import expected
from siege import ORGANIZATIONS, VICTIM, Haul, Siege, attacks, groups, report
from weft import until

TRUSTS = ("trusted", "restricted")
# Where each must see what the one before has done, or would be blamed for it.
ONE_BY_ONE = ("processes", "persistence")
# What reaches its limit in a group of many would be the group's doing.
FEW = ("resources",)


@pytest.mark.parametrize("trust", TRUSTS)
@pytest.mark.parametrize("group", groups())
def test_attackers_get_nothing(siege: Siege, group: str, trust: str) -> None:
    if trust == "restricted" and not siege.restricts:
        pytest.skip("this program has no policies, and so no restricted steps")
    if group in ("restrictions",) if trust == "trusted" else group in ("network_open", "network_listed"):
        pytest.skip(f"not a question for {trust} steps")
    before = siege.zygotes()
    siege.outside.heard()
    names = attacks(group)
    at_once = 1 if group in ONE_BY_ONE else 2 if group in FEW else 3
    with siege.outside.calling():
        hauls = siege.attack_all(names, trust, at_once)
    hauls.append(Haul(group, [*aftermath(siege, before), *heard(siege)], "afterwards"))
    siege.record.append((trust, hauls[-1]))
    broken = [f"{haul.name}: {haul.broken}" for haul in hauls if haul.broken]
    found = [
        f"{haul.name}: {item}"
        for haul in hauls
        for item in haul.got
        if expected.allowed(siege.posture.name, haul.name, item) is None
    ]
    assert not broken, "these attackers are broken, not beaten:\n" + "\n".join(broken)
    assert not found, f"{len(found)} finds:\n" + "\n".join(found)


def aftermath(siege: Siege, zygotes: dict[int, str]) -> list[str]:
    """What is not as it was."""
    found = [f"left at {path}" for path in siege.marks()]
    found += [f"IPC object {one}" for one in siege.left_objects()]
    try:
        until(lambda: not siege.strays(), "no stray process", 2)
    except AssertionError:
        found += [f"process {one}" for one in siege.strays()]
    # A worker that was just forked has the zygote's name until it takes its own.
    with contextlib.suppress(AssertionError):
        until(lambda: siege.zygotes().keys() == zygotes.keys(), "the zygotes of before", 2)
    now = siege.zygotes()
    if set(now) - set(zygotes) or set(zygotes) - set(now):
        found.append(f"zygotes were {sorted(zygotes)} and are {sorted(now)}")
    for pid, state in now.items():
        if state in "tT":
            found.append("a zygote is stopped")
            os.kill(pid, signal.SIGCONT)
    done = siege.one.run("echo", {"value": "whole"})
    if (done["status"], done["result"]) != ("succeeded", {"value": "whole", "organization": "contoso"}):
        found.append(f"the engine does not work as before: {done}")
    wrong = siege.victim_is_well()
    if wrong:
        found.append(f"victim: {wrong}")
        siege.install_victim()
    return found


def heard(siege: Siege) -> list[str]:
    """What arrived outside."""
    time.sleep(0.05)
    return [f"outside heard {one}" for one in siege.outside.heard()[:10]]


def test_two_attempts_have_different_random_numbers(siege: Siege) -> None:
    seen = []
    for _ in range(2):
        run = siege.one.run("persistence-numbers", {"aim": {}})
        seen.append(
            next(
                line
                for line in siege.log(run["runId"], ORGANIZATIONS["trusted"])
                if line.startswith("numbers")
            )
        )
    values = [set(re.findall(r"[0-9a-f.'-]{8,}", one)) for one in seen]
    assert len(values[0]) == 4, seen
    assert not values[0] & values[1], seen


def test_nothing_planted_is_in_what_the_handler_says(siege: Siege) -> None:
    said = siege.one.said()
    shown = {what for secret, what in siege.secrets.items() if secret in said}
    assert not shown
    answers = "".join(
        str(siege.one.call("GET", path)) for path in ("/runs?limit=200", "/audit?limit=200", "/status")
    )
    assert not {what for secret, what in siege.secrets.items() if secret in answers}


def test_the_victim_is_well_to_the_end(siege: Siege) -> None:
    assert not siege.victim_is_well()
    assert siege.one.call("POST", f"/runs/{siege.victim_run}/cancel", X_Organization_Id=VICTIM).status in (
        200,
        202,
    )
    assert siege.one.ended(siege.victim_run, X_Organization_Id=VICTIM)["status"] == "cancelled"


def test_what_is_reported_is_true(siege: Siege) -> None:
    """Comes after the attacks: no layer is said to be in force while an attack that it is there for got something."""
    posture = report(siege.one.get("/status"))
    if posture is None:
        pytest.skip("this program reports no posture")
    layers, missing = set(posture["layers"]), posture["missing"]
    assert posture["tier"] == siege.posture.tier, posture
    assert layers <= set(expected.LAYERS), "a layer that nobody knows"
    assert not layers & set(missing), posture
    assert all(missing.values()), "each missing layer has its reason"
    for layer in expected.impossible(siege.posture):
        assert layer not in layers, f"{layer} is said to be in force, and the platform refuses it"
        assert layer in missing, f"nothing says why there is no {layer}"
    for layer in expected.certain(siege.posture):
        assert layer in layers, f"{layer} could be in force: {missing.get(layer)}"
    broken = {
        layer: found
        for layer in sorted(layers)
        for attack in expected.LAYERS[layer]
        if (found := [item for _, haul in siege.record if haul.name == attack for item in haul.got])
    }
    assert not broken
    doctor = siege.command("doctor", "--json")
    told = report(json.loads(doctor.stdout))
    assert told is not None, doctor.stdout
    assert (told["tier"], set(told["layers"])) == (posture["tier"], layers)
    run = siege.one.run("echo", {"value": 1})
    steps = siege.one.get(f"/runs/{run['runId']}/steps")
    told_with_it = json.dumps([run, steps])
    varying = layers & {
        "landlock",
        "seccomp",
        "own_uid",
        "mount_namespace",
        "pid_namespace",
        "network_namespace",
    }
    assert all(f'"{layer}"' in told_with_it for layer in varying), "a step says in which layers it ran"
