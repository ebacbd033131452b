"""The SDK of Weft: all that code of a workspace imports.

    from weft import Context, workflow

    @workflow(description="Greets somebody.")
    def hello(ctx: Context, name: str = "world") -> dict[str, str]:
        return {"message": f"Hello, {name}!"}

Importing it has no side effects, and decorators return the function that they were put on. `weft.testing`
runs a workflow in a unit test.
"""

from __future__ import annotations

from ._artifacts import Artifact
from ._context import Context
from ._data_provider import data_provider
from ._declaration import Retry
from ._errors import (
    Cancelled,
    DeclarationError,
    Denied,
    FatalError,
    InvalidInput,
    NotAvailable,
    NotFound,
    QuotaExceeded,
    RetryableError,
    TooLarge,
    Unavailable,
    WeftError,
)
from ._http import HttpError, Response
from ._node import node
from ._options import Options
from ._runs import RunInfo
from ._secrets import Handle
from ._signature import Binary, Email, File, Secret, Url
from ._workflow import param, workflow

__version__ = "0.1.0"

__all__ = [
    "Artifact",
    "Binary",
    "Cancelled",
    "Context",
    "DeclarationError",
    "Denied",
    "Email",
    "FatalError",
    "File",
    "Handle",
    "HttpError",
    "InvalidInput",
    "NotAvailable",
    "NotFound",
    "Options",
    "QuotaExceeded",
    "Response",
    "Retry",
    "RetryableError",
    "RunInfo",
    "Secret",
    "TooLarge",
    "Unavailable",
    "Url",
    "WeftError",
    "__version__",
    "data_provider",
    "node",
    "param",
    "workflow",
]
