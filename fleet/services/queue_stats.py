"""What the queue in front of an engine holds and did."""

from __future__ import annotations

from dataclasses import dataclass

from fleet.models import Priority

__all__ = ["QueueStats"]


@dataclass(frozen=True, slots=True)
class QueueStats:
    """What one queue holds and did since it began."""

    running: int = 0
    waiting: int = 0
    waiting_by: tuple[tuple[Priority, str, int], ...] = ()
    """Calls that wait, by priority and tenant."""
    served: int = 0
    """Calls that got their turn."""
    refused: int = 0
    """Calls that were told to come later, those that were displaced included."""
    displaced: int = 0
    timed_out: int = 0
    """Calls whose time ran out before their turn."""
    aborted: int = 0
    """Calls that were ended before their turn."""
    limited: int = 0
    """Calls that were told to come later by a rate cap."""
    queue_ms: int = 0
    """Sum of all waits of calls that were served."""
