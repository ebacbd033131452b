"""user_onboarding: what it does, in which order, and what it refuses."""

from typing import Any

import pytest

from weft import FatalError, InvalidInput
from weft.testing import run
from workflows.user_onboarding import user_onboarding

ADA: dict[str, Any] = {"email": "ada@contoso.example", "name": "Ada Lovelace", "department": "engineering"}


def test_onboards_with_the_default_licence() -> None:
    result = run(user_onboarding, organization="contoso", **ADA)
    assert result.value["licenses"] == ["office-basic"]
    assert result.value["account"]["email"] == ADA["email"]
    assert [step.name for step in result.checkpoints] == [
        "account_created",
        "licenses_assigned",
        "welcome_sent",
    ]
    assert result.variables == {"account_id": result.value["account"]["id"]}


def test_leaves_the_welcome_out() -> None:
    result = run(user_onboarding, send_welcome=False, **ADA)
    assert result.value["welcomed"] is False
    assert "welcome message sent" not in result.messages


def test_refuses_a_licence_that_is_not_there() -> None:
    config = {"onboarding.available_licenses": ["office-basic"]}
    with pytest.raises(FatalError, match="cad-pro") as caught:
        run(user_onboarding, licenses=["cad-pro"], config=config, **ADA)
    assert caught.value.data == {"missing": ["cad-pro"]}


def test_refuses_what_is_no_address() -> None:
    with pytest.raises(InvalidInput, match="e-mail address"):
        run(user_onboarding, **{**ADA, "email": "ada"})
