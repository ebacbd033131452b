"""hello: the greeting, its setting, and the bounds of its argument."""

from collections.abc import Callable

import pytest

from weft import Context, InvalidInput
from weft.testing import Fakes, Result, run
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


def test_can_be_called_directly(weft_context: Context, weft_fakes: Fakes) -> None:
    assert hello(weft_context, "Ada")["organization"] == weft_context.organization.id
    assert [line.message for line in weft_fakes.logs] == ["greeting Ada"]


@pytest.mark.weft(organization="fabrikam", config={"greeting": "Ahoj"})
def test_is_greeted_as_its_organization_wants(weft_run: Callable[..., Result]) -> None:
    assert weft_run(hello, name="Ada").value == {"message": "Ahoj, Ada!", "organization": "fabrikam"}
