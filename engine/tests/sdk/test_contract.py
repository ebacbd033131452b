"""The fakes of `weft.testing` against the contract that the engine's broker keeps as well."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from handler import ENGINE_DIR
from weft.testing import Fakes, run

GOLDEN = json.loads((ENGINE_DIR.parent / "tests" / "golden" / "broker_contract.json").read_text())
CONTRACT = Path(__file__).parent.parent / "supports" / "contract"


def fakes() -> Fakes:
    def child(name: str) -> Any:
        if name == "fails":
            raise ValueError("no good")
        return {"name": name}

    def broken() -> Any:
        raise ValueError("no good")

    return Fakes(
        runs={"contract-child": child},
        data={"contract-names": lambda count: ["name"] * count, "contract-broken": broken},
    )


@pytest.fixture(scope="module")
def contract() -> Any:
    path = str(CONTRACT / "workflows")
    sys.path.insert(0, path)
    try:
        import contract as module
    finally:
        sys.path.remove(path)
    return module


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_the_fakes_say_what_the_broker_says(contract: Any, name: str) -> None:
    said = run(getattr(contract, name), fakes=fakes(), secrets={"OTHER": "x"}).value
    assert json.loads(json.dumps(said)) == GOLDEN[name]
