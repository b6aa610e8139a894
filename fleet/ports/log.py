"""Port: the event log. The one truth (docs/design/design.md, section 4, EV-11..EV-21)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fleet.events.envelope import Head, NewEvent, StoredEvent
from fleet.ids import CommandId, Principal, StreamId

__all__ = ["MAX_APPEND_BYTES", "MAX_BODY_BYTES", "MAX_EVENTS", "AppendRequest", "Appended", "Duplicate", "EventLog"]

MAX_BODY_BYTES = 64 * 1024
MAX_APPEND_BYTES = 512 * 1024
MAX_EVENTS = 100


@dataclass(frozen=True, slots=True)
class AppendRequest:
    """Events to append after `expected`, under its epoch. `closes` takes the stream out of the open set."""

    stream: StreamId
    events: Sequence[NewEvent]
    expected: Head
    command_id: CommandId
    actor: Principal
    ts_ms: int
    closes: bool = False


@dataclass(frozen=True, slots=True)
class Appended:
    """Stored now; `head` is the new end of the stream and `events` is what was written."""

    head: Head
    events: tuple[StoredEvent, ...]


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The command id is known; versions `first`..`last` hold its events. Reload: the bytes may differ (EV-15)."""

    first: int
    last: int


class EventLog(Protocol):
    """Append-only streams whose version is gap-free from 1, linked by hashes.

    An acknowledged append is on disk. Duplicate is an outcome, not an error. After a crash nothing is half-written:
    entries, head, command table, open set and feed hint of one append exist together or not at all.
    """

    async def append(self, request: AppendRequest) -> Appended | Duplicate:
        """Store all events of the request after `expected`, or nothing.

        Checks in this order (EV-14): command id known -> Duplicate; epoch differs from the head's -> OwnershipLost;
        version or hash differ -> VersionConflict (details: expected, actual); limits -> PayloadTooLarge.
        A stream that is refused (see `refuse`) -> LogRegressed, right after the check of the command id.
        StoreUnavailable: nothing was sent. CommitUnknown: repeat with the same command id. StoreFull: no room.
        """
        ...

    async def read(self, stream: StreamId, *, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
        """Events with versions `after`+1.. in order, at most `limit`; none for an unknown stream."""
        ...

    async def head(self, stream: StreamId) -> Head:
        """Where the stream ends now; `Head()` for an unknown stream."""
        ...

    async def open_streams(self) -> list[StreamId]:
        """Streams that have events and are not closed, sorted."""
        ...

    async def streams(self) -> list[StreamId]:
        """Every stream that has events, sorted."""
        ...

    async def refuse(self, stream: StreamId, *, reason: str) -> None:
        """The stream takes no appends until `accept_loss`; reads go on. The first reason stays (EV-19)."""
        ...

    async def refused(self) -> dict[StreamId, str]:
        """Streams that take no appends, and why."""
        ...

    async def accept_loss(self, stream: StreamId) -> None:
        """The stream takes appends again, from its present head; nothing happens when it was not refused."""
        ...

    async def commands(self, stream: StreamId) -> dict[CommandId, tuple[int, int]]:
        """Every command id of the stream with the first and last version that it wrote."""
        ...

    async def erase(self, stream: StreamId, *, expected: Head) -> None:
        """Entries, commands, lease and snapshot are gone; VersionConflict unless the head is `expected`.

        Of the head the epoch is left, and no epoch of it is ever granted again (EV-3); the stream is in neither list.
        Only for a stream whose bytes were exported (EV-25). Erasing again does nothing.
        """
        ...
