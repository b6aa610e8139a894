"""Port: hints that a stream has grown. Never the truth (EV-20)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fleet.ids import StreamId

__all__ = ["Feed", "FeedGroup", "FeedHint", "HintDelivery"]


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


@dataclass(frozen=True, slots=True)
class HintDelivery:
    """A hint handed to one consumer of a group; `receipt` acknowledges it."""

    receipt: str
    hint: FeedHint
    attempts: int


class FeedGroup(Protocol):
    """The hints shared among the consumers of one group, at least once each (EV-7)."""

    async def take(self, consumer: str, *, timeout_s: float) -> list[HintDelivery]:
        """Hints for this consumer, those that a dead one left included; empty when the time is over."""
        ...

    async def acknowledge(self, deliveries: Sequence[HintDelivery]) -> None:
        """These hints are not delivered again."""
        ...
