"""Work of restricted code: calculations with modules that it may import, its context, nothing of the machine."""

import collections
import datetime
import decimal
import json
import math
import re
import statistics
import string

from weft import Context, workflow


@workflow(name="modest")
def modest(ctx: Context, rows: list[dict[str, float]] | None = None) -> str:
    """A small report."""
    rows = rows or [{"amount": 1.5}, {"amount": 2.5}]
    total = sum(decimal.Decimal(str(row["amount"])) for row in rows)
    assert total == decimal.Decimal("4.0")
    assert statistics.mean(row["amount"] for row in rows) == 2.0
    assert json.loads(json.dumps(rows)) == rows
    assert re.fullmatch(r"\d+", "42")
    assert collections.Counter("aab")["a"] == 2
    assert math.isclose(math.sqrt(2) ** 2, 2)
    assert datetime.date(2026, 1, 31) + datetime.timedelta(days=1)
    assert string.Template("$a").substitute(a="b") == "b"
    ctx.log("calculated", total=str(total))
    return "done"
