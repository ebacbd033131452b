"""The departments to choose from, as options of a form field."""

from weft import Context, data_provider

DEFAULT = ["Engineering", "Finance", "Sales", "Support"]


@data_provider(description="Departments of the organization.", category="Users", cache_ttl_seconds=600)
def departments(ctx: Context) -> list[dict[str, str]]:
    """The setting `departments`, a list of names, or a common selection."""
    names = ctx.config.get("departments", DEFAULT)
    return [{"label": name, "value": name.lower().replace(" ", "-")} for name in sorted(names)]
