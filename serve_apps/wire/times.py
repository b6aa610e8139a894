"""Times on the wire: RFC 3339 with milliseconds, in UTC (GL-11)."""

from __future__ import annotations

from fleet.events.codec import rfc3339


def at(ms: int) -> str:
    """The time that a number of milliseconds since 1970 stands for."""
    return rfc3339(ms)


def at_or_none(ms: int | None) -> str | None:
    """As `at`; None stays None."""
    return None if ms is None else rfc3339(ms)
