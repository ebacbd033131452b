"""webhook_example: events that are understood, and those that are refused."""

import pytest

from weft import InvalidInput
from weft.testing import run
from workflows.webhook_example import webhook_example


def test_sums_an_event_up() -> None:
    payload = {"event": "user.created", "data": {"id": 7, "email": "ada@contoso.example"}}
    result = run(webhook_example, payload=payload, source="crm")
    assert result.value["summary"] == "user added by crm"
    assert result.value["fields"] == ["email", "id"]


def test_passes_unknown_actions_on() -> None:
    assert run(webhook_example, payload={"event": "disk.full"}).value["summary"] == "disk full by unknown"


@pytest.mark.parametrize("payload", [{}, {"event": ""}, {"event": 3}])
def test_refuses_a_payload_without_event(payload: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="no `event`") as caught:
        run(webhook_example, payload=payload)
    assert caught.value.data["missing"] == "event"
