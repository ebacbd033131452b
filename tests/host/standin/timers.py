"""Timer triggers: NCRONTAB schedules (five or six fields) and plain intervals."""

import asyncio
import datetime
import time
from dataclasses import dataclass

from . import envelope, timespan
from .envelope import ScheduleStatus
from .hostlog import HostLog
from .invocations import Invocation, InvocationFailedError, Invocations
from .manifest import Function
from .times import Times

_FIELDS = (
    ("second", 0, 59),
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day", 1, 31),
    ("month", 1, 12),
    ("weekday", 0, 6),
)
_NAMES = {
    "month": ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    "weekday": ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
}
_FIRST = "0001-01-01T00:00:00+00:00"
"""``Last`` before the first tick."""


def _field(text: str, name: str, low: int, high: int) -> frozenset[int]:
    def number(word: str) -> int:
        names = _NAMES.get(name, ())
        if word.lower() in names:
            return names.index(word.lower()) + low
        value = int(word)
        if not low <= value <= high:
            raise ValueError(f"{name}: {word} is not between {low} and {high}")
        return value

    chosen: set[int] = set()
    for item in text.split(","):
        span, _, step = item.partition("/")
        if span == "*":
            first, last = low, high
        elif "-" in span:
            first, last = (number(word) for word in span.split("-", 1))
        else:
            first = number(span)
            last = high if step else first
        chosen.update(range(first, last + 1, int(step or 1)))
    return frozenset(chosen)


@dataclass(frozen=True)
class Schedule:
    """When a timer fires, in UTC."""

    fields: tuple[frozenset[int], ...] = ()
    every: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Schedule":
        """A CRON expression, with or without seconds, or ``hh:mm:ss``."""
        parts = text.split()
        if len(parts) == 1:
            return cls(every=timespan.seconds(text))
        if len(parts) == 5:
            parts = ["0", *parts]
        if len(parts) != 6:
            raise ValueError(f"not a schedule: {text!r}")
        return cls(tuple(_field(part, *definition) for part, definition in zip(parts, _FIELDS, strict=True)))

    def after(self, moment: datetime.datetime) -> datetime.datetime:
        """The next time later than ``moment``."""
        if self.every is not None:
            return moment + datetime.timedelta(seconds=self.every)
        seconds, minutes, hours, days, months, weekdays = self.fields
        at = moment.replace(microsecond=0) + datetime.timedelta(seconds=1)
        end = at.year + 5
        while at.year <= end:
            if at.month not in months or at.day not in days or at.isoweekday() % 7 not in weekdays:
                at = at.replace(hour=0, minute=0, second=0) + datetime.timedelta(days=1)
            elif at.hour not in hours:
                at = at.replace(minute=0, second=0) + datetime.timedelta(hours=1)
            elif at.minute not in minutes:
                at = at.replace(second=0) + datetime.timedelta(minutes=1)
            elif at.second not in seconds:
                at += datetime.timedelta(seconds=1)
            else:
                return at
        raise ValueError("the schedule never fires")

    @property
    def monitored(self) -> bool:
        """The host keeps a status only for what fires at most once a minute."""
        if self.every is not None:
            return self.every >= 60
        return len(self.fields[0]) == 1


def _iso(moment: datetime.datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "0+00:00")


class TimerListener:
    """One timer function's loop: fires at least once a tick, never twice at the same time."""

    def __init__(self, function: Function, invocations: Invocations, times: Times, log: HostLog) -> None:
        self._function = function
        self._schedule = Schedule.parse(str(function.trigger.text("schedule")))
        use_monitor = function.trigger.properties.get("useMonitor", True) is not False
        self._monitored = use_monitor and self._schedule.monitored
        self._invocations = invocations
        self._times = times
        self._log = log
        self._last: datetime.datetime | None = None
        self._began = time.monotonic()
        self._origin = datetime.datetime.now(datetime.UTC)

    def _now(self) -> datetime.datetime:
        elapsed = (time.monotonic() - self._began) / self._times.timer_unit
        return self._origin + datetime.timedelta(seconds=elapsed)

    async def listen(self) -> None:
        """Fire until cancelled."""
        if self._function.trigger.properties.get("runOnStartup") is True:
            await self.fire(past_due=False)
        due = self._schedule.after(self._now())
        while True:
            await asyncio.sleep(max(0.0, (due - self._now()).total_seconds() * self._times.timer_unit))
            await self.fire(past_due=False, due=due)
            due = self._schedule.after(max(due, self._now()))

    async def fire(self, past_due: bool, due: datetime.datetime | None = None) -> bool:
        """Call the function; whether that succeeded."""
        name = self._function.name
        status = None
        if self._monitored:
            now = self._now()
            status = ScheduleStatus(
                _iso(self._last) if self._last else _FIRST,
                _iso(self._last or now),
                _iso(due or self._schedule.after(now)),
            )
        body = envelope.timer(self._function.trigger.name, status, past_due, envelope.sys_entry(name))
        try:
            await self._invocations.call(Invocation(name), body)
        except InvocationFailedError:
            return False
        finally:
            self._last = self._now()
        return True
