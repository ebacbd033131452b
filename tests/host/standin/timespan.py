"""The ``[d.]hh:mm:ss[.fff]`` durations of host.json."""

import re

_FORM = re.compile(r"^(-)?(?:(\d+)\.)?(\d{1,2}):(\d{2})(?::(\d{2})(\.\d+)?)?$")


def seconds(text: str) -> float:
    """The duration in seconds; negative for the forms of "no limit" (``-1``, ``-00:00:01``)."""
    text = text.strip()
    if re.fullmatch(r"-?\d+", text):
        days = int(text)
        return -1.0 if days == -1 else days * 86400.0
    found = _FORM.match(text)
    if found is None:
        raise ValueError(f"not a duration: {text!r}")
    sign, whole_days, hours, minutes, secs, fraction = found.groups()
    value = (
        int(whole_days or 0) * 86400.0
        + int(hours) * 3600
        + int(minutes) * 60
        + int(secs or 0)
        + float(fraction or 0)
    )
    return -value if sign else value
