"""The exceptions of the SDK: what a workflow raises to say how a failure is to be taken, and what
`Context` raises when it can't do what was asked.

    WeftError                 something failed; the workflow's retry policy decides        retriable = None
    ├── RetryableError        worth another attempt, whatever the policy's `retry_on` says retriable = True
    │   └── Unavailable       something that the step needs doesn't answer at the moment   retriable = True
    ├── FatalError            another attempt would fail alike: never retried              retriable = False
    ├── InvalidInput          an argument or a payload is wrong                            retriable = False
    ├── Cancelled             the step stopped because it was asked to                     retriable = False
    ├── Denied                the run may not do that                                      retriable = False
    ├── NotFound              what was asked for doesn't exist (also a `LookupError`)      retriable = False
    ├── NotAvailable          this version of the engine doesn't offer it                  retriable = False
    ├── TooLarge              a value is over a limit; the message names the limit         retriable = False
    │   └── QuotaExceeded     the organization has stored as much as it may                retriable = False
    └── DeclarationError      a decorator was used wrongly; raised while a module loads    retriable = False

Exceptions of other kinds may be raised too: they count as `retriable = None`.
"""

from __future__ import annotations

from typing import Any, ClassVar


class WeftError(Exception):
    """The root of the tree.

    `data` is any JSON value that a caller or an operator can use (which field, which record); it is
    returned with the error and must hold no secret.
    """

    retriable: ClassVar[bool | None] = None

    def __init__(self, message: str = "", *, data: Any = None) -> None:
        super().__init__(message)
        self.data = data


class RetryableError(WeftError):
    """Another attempt may succeed."""

    retriable = True


class Unavailable(RetryableError):
    """Something that the step needs doesn't answer at the moment."""


class FatalError(WeftError):
    """Never retried."""

    retriable = False


class InvalidInput(WeftError):
    """An argument or a payload is wrong; the same one fails again."""

    retriable = False


class Cancelled(WeftError):
    """The step stopped because it was asked to."""

    retriable = False


class Denied(WeftError):
    """The run has no right to what it asked for."""

    retriable = False


class NotFound(WeftError, LookupError):
    """What was asked for doesn't exist."""

    retriable = False


class NotAvailable(WeftError):
    """What was asked for is not offered by this version of the engine."""

    retriable = False


class TooLarge(WeftError):
    """A value is over a limit; the message names the limit and its unit."""

    retriable = False


class QuotaExceeded(TooLarge):
    """The organization has stored as much as it may; the message says how much. Nothing was stored."""


class DeclarationError(WeftError):
    """A decorator was used wrongly. Raised when the module loads or is described."""

    retriable = False


_BY_CODE: dict[str, type[WeftError]] = {
    "denied": Denied,
    "not_found": NotFound,
    "not_available": NotAvailable,
    "invalid": InvalidInput,
    "too_large": TooLarge,
    "quota_exceeded": QuotaExceeded,
    "unavailable": Unavailable,
}


def refusal(code: str, message: str) -> WeftError:
    """The exception for a refusal `code` of the broker; `WeftError` for a code that it doesn't know."""
    return _BY_CODE.get(code, WeftError)(message)
