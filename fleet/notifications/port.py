"""Ports: places outside of the fleet that people hear from, and what each of them is still owed (LC-80)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, Protocol

from pydantic import JsonValue

from fleet.kernel.clock import Clock
from fleet.kernel.ids import StreamId
from fleet.kernel.plugin import Options, Plugin, Secret
from fleet.kernel.types import NoticeKind


@dataclass(frozen=True, slots=True)
class Notification:
    """What one target is told of one event. `delivery_id` is the same each time that it is sent."""

    delivery_id: str
    kind: NoticeKind
    body: Mapping[str, JsonValue]
    """All of it as JSON, the delivery id and the kind included; without secrets."""


class NotificationTarget(Protocol):
    """One place that is told."""

    async def send(self, notification: Notification) -> None:
        """The receiver said that it has the notification; it may have had it before, and knows that by its id.

        Raises:
            ToolFailed: it refused, leads elsewhere, or cannot be reached. What it wrote is not told.
            ToolTimeout: it did not answer in time; whether it has the notification is not known.
            PolicyDenied: its address must not be connected to, or no grant covers the use of its secret.
            NotFound, StoreUnavailable: its secret cannot be had.
        """
        ...


class OwedNotice(NamedTuple):
    """The event that a target has to be told of."""

    stream: StreamId
    version: int


class NotificationBook(Protocol):
    """How far the log was looked through for each target, and what it has not been told yet. Outlives every process.

    Every call may be repeated. StoreUnavailable, CommitUnknown: repeat it.
    """

    async def begin(self, target: str, heads: Mapping[StreamId, int]) -> None:
        """A new target hears of what comes after these versions. Nothing happens when it has begun already."""
        ...

    async def looked(self, target: str) -> dict[StreamId, int] | None:
        """The version up to which each stream was looked through; None when the target has not begun."""
        ...

    async def advance(
        self, target: str, stream: StreamId, *, expected: int, version: int, owed: Sequence[int] = ()
    ) -> bool:
        """The stream was looked through from `expected` to `version`, and the target is owed these versions of it.

        Both or neither; neither, and False, when the book says something else than `expected` (0 for an unknown
        stream): somebody else was first.
        """
        ...

    async def owed(self, target: str) -> list[OwedNotice]:
        """What the target has not been told yet, in the order in which it came to be owed."""
        ...

    async def settle(self, target: str, notice: OwedNotice) -> None:
        """The target is owed this no more; nothing happens when it was not."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetParts:
    """What a notification target is made from."""

    secret: Callable[[], Awaitable[Secret]] | None
    """Reads the secret of the target; to be asked at each sending. None where the configuration names none."""
    clock: Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class NotificationTargetPlugin(Plugin[Options, TargetParts, NotificationTarget], Generic[Options]):
    """What an entry point of the group `swe_fleet.notification_targets` leads to."""
