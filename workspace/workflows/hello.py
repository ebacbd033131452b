"""The first workflow: greets somebody, with a greeting that each organization may set."""

from weft import Context, param, workflow


@workflow(description="Greets somebody by name.", category="Examples", tags=["example"])
@param("name", help="Who is to be greeted.", max_length=100)
def hello(ctx: Context, name: str = "world") -> dict[str, str]:
    """Greet somebody; the greeting is the organization's setting `greeting`."""
    greeting = ctx.config.get("greeting", "Hello")
    ctx.log(f"greeting {name}")
    return {"message": f"{greeting}, {name}!", "organization": ctx.organization.id}
