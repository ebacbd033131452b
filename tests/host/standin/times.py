"""Every duration the real host fixes in code, in one place so that tests can shrink them."""

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Times:
    """Defaults are the real host's, in seconds."""

    probe_interval: float = 0.025
    """Between two readiness probes of the handler."""
    availability_wait: float = 30.0
    """How long an HTTP request waits for a starting host before it gets 503."""
    kill_wait: float = 1.0
    """How long the host waits for a killed handler to be gone."""
    strike_window: float = 30 * 60.0
    """An error older than this no longer counts towards the third."""
    timeout_grace: float = 2.0
    """After functionTimeout, before the handler is killed."""
    proxy_idle: float = 240.0
    """Raw mode: to the response headers, and between two pieces of the body."""
    proxy_retry_min: float = 0.05
    proxy_retry_max: float = 0.25
    queue_lease: float = 600.0
    """How long a message being worked on stays invisible; renewed at half of what is left."""
    queue_poll_min: float = 0.1
    timer_unit: float = 1.0
    """One second of timer schedules; smaller makes timers run faster than the clock."""
    client_slack: float = 60.0
    """What the host's HTTP client waits for an envelope's answer beyond functionTimeout."""

    @classmethod
    def parse(cls, pairs: list[str]) -> "Times":
        """From ``name=seconds`` items of the command line."""
        known = {field.name for field in fields(cls)}
        values: dict[str, float] = {}
        for pair in pairs:
            name, _, value = pair.partition("=")
            name = name.replace("-", "_")
            if name not in known:
                raise ValueError(f"no such time: {name} (known: {', '.join(sorted(known))})")
            values[name] = float(value)
        return cls(**values)
