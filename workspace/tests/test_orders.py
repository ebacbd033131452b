"""The functions that the graph `order.json` calls, and that the graph names what there is."""

import json
from pathlib import Path

import pytest

from weft import InvalidInput
from weft.testing import run
from workflows import orders
from workflows.orders import close_order, fetch_order, pack_line, review_order

GRAPH = json.loads((Path(orders.__file__).parent / "order.json").read_text())


def test_an_order_has_lines_and_a_total() -> None:
    order = run(fetch_order, order_id=3).value
    packed = [run(pack_line, line=line, number=number).value for number, line in enumerate(order["lines"])]
    assert [line["quantity"] for line in packed] == [1, 2, 3]
    assert sum(line["amount"] for line in packed) == order["total"] == 485.0


def test_a_line_without_a_known_product_is_refused() -> None:
    with pytest.raises(InvalidInput, match="there is chair, desk, lamp"):
        run(pack_line, line={"product": "table", "quantity": 1})


def test_large_orders_are_reviewed_and_all_are_closed() -> None:
    assert run(review_order, order=5, total=1425.5).value == {"note": "order 5 is worth 1425.50"}
    closed = run(close_order, order=5, failed=True)
    assert (closed.value, closed.messages) == ({"closed": 5, "failed": True}, ["closed"])


def test_the_graph_calls_functions_that_there_are() -> None:
    called = {node["use"] for node in GRAPH["nodes"] if "use" in node}
    assert called == {"fetch_order", "review_order", "pack_line", "close_order"}
    assert all(hasattr(orders, name) for name in called)
