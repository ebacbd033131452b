"""Onboards a person: an account, licences and a welcome, with a checkpoint after each.

The three helpers stand for calls to a directory and a mail service. They are async as such calls are, and use
the run's idempotency key as such calls should: a repeated attempt must not make a second account.
"""

from typing import Any

from weft import Context, Email, FatalError, Retry, param, workflow


@workflow(
    description="Creates an account with licences for a new colleague.",
    category="Users",
    tags=["example", "onboarding"],
    timeout_seconds=120,
    retry=Retry(attempts=3, delay_seconds=5),
)
@param("email", label="E-mail", help="The new colleague's address; it becomes the sign-in name.")
@param("name", label="Full name", min_length=1, max_length=200)
@param("department", data_provider="departments")
@param("licenses", label="Licences", help="Product names; the organization's default where none is given.")
@param("send_welcome", label="Send a welcome message")
async def user_onboarding(
    ctx: Context,
    email: Email,
    name: str,
    department: str,
    licenses: list[str] | None = None,
    send_welcome: bool = True,
) -> dict[str, Any]:
    """Onboard one person and tell what was done."""
    wanted = licenses or ctx.config.get("onboarding.licenses", ["office-basic"])
    ctx.log("onboarding begins", email=email, department=department, licenses=wanted)

    account = await create_account(email, name, department, ctx.run.idempotency_key)
    ctx.checkpoint("account_created", {"account": account["id"]})

    available = ctx.config.get("onboarding.available_licenses")
    assigned = await assign_licenses(wanted, available)
    ctx.checkpoint("licenses_assigned", {"licenses": assigned})
    ctx.log("licences assigned", count=len(assigned))

    if send_welcome:
        await welcome(ctx, email, name)
        ctx.checkpoint("welcome_sent")
    else:
        ctx.log.debug("no welcome message was wanted")

    ctx.variables.set("account_id", account["id"])
    ctx.log("onboarding is done", account=account["id"])
    return {
        "account": account,
        "licenses": assigned,
        "welcomed": send_welcome,
        "organization": ctx.organization.id,
    }


async def create_account(email: str, name: str, department: str, key: str) -> dict[str, str]:
    """The account; the same key gives the same one."""
    return {"id": f"acc-{key or email}", "email": email, "name": name, "department": department}


async def assign_licenses(wanted: list[str], available: list[str] | None) -> list[str]:
    """Those wanted, sorted; FatalError for one that the organization doesn't have."""
    missing = sorted(set(wanted) - set(available)) if available is not None else []
    if missing:
        raise FatalError(
            f"no licence of {', '.join(missing)} is available; choose from {', '.join(available or [])}",
            data={"missing": missing},
        )
    return sorted(set(wanted))


async def welcome(ctx: Context, email: str, name: str) -> None:
    """Tell the new colleague how to sign in."""
    ctx.log("welcome message sent", to=email, subject=f"Welcome to {ctx.organization.name}, {name}!")
