"""Port: hints that a stream has grown. Never the truth (EV-20)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fleet.ids import StreamId

__all__ = ["Feed", "FeedHint"]


@dataclass(frozen=True, slots=True)
class FeedHint:
    """`stream` has reached at least `version`."""

    stream: StreamId
    version: int


class Feed(Protocol):
    """Hints written together with each append; lost, repeated and reordered ones are harmless."""

    async def position(self) -> str:
        """An opaque cursor at the present end of the feed."""
        ...

    async def wait(self, cursor: str, *, timeout_s: float) -> tuple[list[FeedHint], str]:
        """Hints after `cursor` and the next cursor; returns as soon as there is one, or empty when the time is over."""
        ...
