"""Work with the libraries that data is worked on with, where they are installed."""

import importlib.util
import io

from weft import Context, workflow


@workflow(name="data-frames", timeout_seconds=120)
def frames(ctx: Context) -> str:
    """pandas and NumPy: arithmetic in threads of their own, a join, a file."""
    if importlib.util.find_spec("pandas") is None:
        return "not installed"
    import numpy as np
    import pandas as pd

    matrix = np.random.default_rng(1).random((300, 300))
    assert np.allclose(matrix @ np.linalg.inv(matrix), np.eye(300), atol=1e-6)
    left = pd.DataFrame({"key": range(1000), "a": range(1000)})
    right = pd.DataFrame({"key": range(0, 1000, 2), "b": range(500)})
    joined = left.merge(right, on="key").groupby(lambda n: n % 3)["b"].sum()
    assert joined.sum() == sum(range(500))
    left.to_csv("frame.csv", index=False)
    assert len(pd.read_csv("frame.csv")) == 1000
    assert pd.read_json(io.StringIO('[{"a": 1}]')).a[0] == 1
    assert pd.Timestamp("2026-07-01", tz="Europe/Zurich").utcoffset().total_seconds() == 7200
    return "done"
