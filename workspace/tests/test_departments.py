"""departments: the common selection, and an organization's own."""

from data_providers.departments import departments
from weft.testing import run


def test_offers_a_common_selection() -> None:
    options = run(departments).value
    assert {"label": "Finance", "value": "finance"} in options


def test_offers_what_the_organization_configured() -> None:
    options = run(departments, config={"departments": ["Human Resources"]}).value
    assert options == [{"label": "Human Resources", "value": "human-resources"}]
