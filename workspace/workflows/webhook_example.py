"""Takes what another system posts, checks it, and sums it up."""

from typing import Any

from weft import Context, InvalidInput, param, workflow

ACTIONS = {"created": "added", "updated": "changed", "deleted": "removed"}


@workflow(
    description="Handles an event that another system posts.",
    category="Integrations",
    tags=["example", "webhook"],
)
@param("payload", help="The body as the other system sent it; `event` is needed, as in user.created.")
@param("source", help="Which system it is from.", max_length=100)
def webhook_example(ctx: Context, payload: dict[str, Any], source: str = "unknown") -> dict[str, Any]:
    """Check an event and tell what it says."""
    event = payload.get("event")
    if not isinstance(event, str) or not event:
        ctx.log.warning("a payload without an event came in", source=source, keys=sorted(payload))
        raise InvalidInput(
            "the payload has no `event`; send it as a text such as user.created",
            data={"missing": "event", "keys": sorted(payload)},
        )
    subject, _, action = event.partition(".")
    data = payload.get("data") or {}
    ctx.log(f"received {event}", source=source)
    ctx.checkpoint("received", {"event": event, "source": source})
    return {
        "event": event,
        "subject": subject,
        "summary": f"{subject} {ACTIONS.get(action, action or 'seen')} by {source}",
        "fields": sorted(data) if isinstance(data, dict) else [],
        "organization": ctx.organization.id,
    }
