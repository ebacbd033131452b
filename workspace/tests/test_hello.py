"""hello: the greeting, its setting, and the bounds of its argument."""

import pytest

from weft import InvalidInput
from weft.testing import run
from workflows.hello import hello


def test_greets_by_name() -> None:
    result = run(hello, name="Ada", organization="contoso")
    assert result.value == {"message": "Hello, Ada!", "organization": "contoso"}
    assert result.messages == ["greeting Ada"]


def test_greets_the_world_by_default() -> None:
    assert run(hello).value["message"] == "Hello, world!"


def test_uses_the_organizations_greeting() -> None:
    assert run(hello, name="Ada", config={"greeting": "Servus"}).value["message"] == "Servus, Ada!"


def test_refuses_a_name_that_is_too_long() -> None:
    with pytest.raises(InvalidInput, match="at most 100 characters"):
        run(hello, name="x" * 101)
