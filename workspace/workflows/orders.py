"""What the graph `order.json` calls: each function does one thing, and the graph says in which order."""

from typing import Any

from weft import Context, InvalidInput, Retry, param, workflow

PRICES = {"chair": 49.0, "desk": 289.0, "lamp": 24.5}


@workflow(
    description="Looks an order up.",
    category="Orders",
    tags=["example"],
    retry=Retry(attempts=3, delay_seconds=1),
)
@param("order_id", help="The order's number, from 1.", min=1)
def fetch_order(ctx: Context, order_id: int) -> dict[str, Any]:
    """Look an order up; this stands for a call to a shop, and makes the order up from its number."""
    products = sorted(PRICES)
    lines: list[dict[str, Any]] = [
        {"product": products[(order_id + place) % len(products)], "quantity": place + order_id % 3}
        for place in range(1, 4)
    ]
    total = sum(PRICES[line["product"]] * line["quantity"] for line in lines)
    ctx.log(f"order {order_id} has {len(lines)} lines", total=total)
    return {"order": order_id, "lines": lines, "total": total}


@workflow(description="Packs one line of an order.", category="Orders", tags=["example"])
@param("line", help="`product` and `quantity`.")
@param("number", help="Which line it is, from 0.", min=0)
def pack_line(ctx: Context, line: dict[str, Any], number: int = 0) -> dict[str, Any]:
    """Pack a line; InvalidInput for a product that there isn't."""
    product, quantity = line.get("product"), line.get("quantity", 0)
    if product not in PRICES:
        raise InvalidInput(f"there is no product {product!r}; there is {', '.join(sorted(PRICES))}")
    ctx.log(f"line {number}: {quantity} of {product}")
    return {"product": product, "quantity": quantity, "amount": PRICES[product] * quantity}


@workflow(description="Asks for somebody's word on a large order.", category="Orders", tags=["example"])
def review_order(ctx: Context, order: int, total: float) -> dict[str, Any]:
    """Put a note on a large order; this stands for a message to a person."""
    note = f"order {order} is worth {total:.2f}"
    ctx.log.warning(note)
    return {"note": note}


@workflow(description="Closes the books on an order, however it went.", category="Orders", tags=["example"])
def close_order(ctx: Context, order: int, failed: bool = False) -> dict[str, Any]:
    """Tell how it went; runs in any case."""
    ctx.log("closed", order=order, failed=failed)
    return {"closed": order, "failed": failed}
