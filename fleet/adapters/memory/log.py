"""In-memory twin of the port EventLog."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from fleet.adapters.appending import (
    chain,
    fenced,
    moved,
    not_erased,
    oversize,
    regressed,
    require_events,
    require_reason,
    too_large,
)
from fleet.adapters.memory.waiting import Signal
from fleet.events import Head, StoredEvent
from fleet.ids import CommandId, StreamId
from fleet.ports import Appended, AppendRequest, Duplicate, FeedHint

__all__ = ["MemoryEventLog"]


@dataclass(slots=True)
class _Stream:
    head: Head = field(default_factory=Head)
    events: list[StoredEvent] = field(default_factory=list[StoredEvent])
    commands: dict[CommandId, Duplicate] = field(default_factory=dict[CommandId, Duplicate])


class MemoryEventLog:
    """Streams kept as long as the object. Implements the port EventLog.

    MemoryLeaseStore, MemoryFeed and MemorySnapshotStore share it.
    """

    def __init__(self) -> None:
        self._streams: dict[StreamId, _Stream] = {}
        self._open: set[StreamId] = set()
        self._refused: dict[StreamId, str] = {}
        self.hints: list[FeedHint] = []
        """One hint for each append, as MemoryFeed hands them out."""
        self.grown = Signal()
        """Fires after each append."""
        self.on_erase: list[Callable[[StreamId], object]] = []
        """Called for each erased stream by what keeps something about streams beside this log."""
        self.on_accept: list[Callable[[StreamId], object]] = []
        """Called for each stream whose loss was accepted."""

    async def append(self, request: AppendRequest) -> Appended | Duplicate:
        """Store all events of the request after `expected`, or nothing (EV-14)."""
        await asyncio.sleep(0)
        require_events(request)
        stream = self._streams.get(request.stream, _Stream())
        if known := stream.commands.get(request.command_id):
            return known
        if reason := self._refused.get(request.stream):
            raise regressed(request.stream, reason)
        if request.expected.epoch != stream.head.epoch:
            raise fenced(request, epoch=stream.head.epoch)
        if request.expected != stream.head:
            raise moved(request, stream.head)
        if finding := oversize(request):
            raise too_large(request, finding)
        return self._store(request, stream)

    def _store(self, request: AppendRequest, stream: _Stream) -> Appended:
        events = chain(request)
        stream.events.extend(events)
        stream.head = Head(version=events[-1].version, hash=events[-1].hash, epoch=stream.head.epoch)
        stream.commands[request.command_id] = Duplicate(first=events[0].version, last=events[-1].version)
        self._streams[request.stream] = stream
        (self._open.discard if request.closes else self._open.add)(request.stream)
        self.hints.append(FeedHint(stream=request.stream, version=stream.head.version))
        self.grown.notify()
        return Appended(head=stream.head, events=events)

    async def read(self, stream: StreamId, *, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
        """Events with versions `after`+1.. in order, at most `limit`."""
        events = self._streams.get(stream, _Stream()).events[max(after, 0) :]
        return events if limit is None else events[: max(limit, 0)]

    async def head(self, stream: StreamId) -> Head:
        """Where the stream ends now."""
        return self._streams.get(stream, _Stream()).head

    async def open_streams(self) -> list[StreamId]:
        """Streams that have events and are not closed, sorted."""
        return sorted(self._open)

    async def streams(self) -> list[StreamId]:
        """Every stream that has events, sorted."""
        return sorted(name for name, stream in self._streams.items() if stream.events)

    async def refuse(self, stream: StreamId, *, reason: str) -> None:
        """The stream takes no appends until `accept_loss`; the first reason stays (EV-19)."""
        require_reason(stream, reason)
        self._refused.setdefault(stream, reason)

    async def refused(self) -> dict[StreamId, str]:
        """Streams that take no appends, sorted, and why."""
        return dict(sorted(self._refused.items()))

    async def accept_loss(self, stream: StreamId) -> None:
        """The stream takes appends again, from its present head."""
        if self._refused.pop(stream, None) is not None:
            for forget in self.on_accept:
                forget(stream)

    async def commands(self, stream: StreamId) -> dict[CommandId, tuple[int, int]]:
        """Every command id of the stream with the versions that it wrote, by version."""
        known = self._streams.get(stream, _Stream()).commands
        return {command: (found.first, found.last) for command, found in known.items()}

    async def erase(self, stream: StreamId, *, expected: Head) -> None:
        """Entries, commands and lease of the stream are gone; of the head only the epoch is left, as EV-3 wants."""
        actual = await self.head(stream)
        if actual.version == 0:
            return
        if actual != expected:
            raise not_erased(stream, expected=expected, actual=actual)
        self._streams[stream] = _Stream(head=Head(epoch=actual.epoch))
        self._open.discard(stream)
        self._refused.pop(stream, None)
        for forget in self.on_erase:
            forget(stream)

    def raise_epoch(self, stream: StreamId) -> int:
        """The new epoch of the stream's head, one above the old one: what a granted lease does (EV-3)."""
        entry = self._streams.setdefault(stream, _Stream())
        entry.head = replace(entry.head, epoch=entry.head.epoch + 1)
        return entry.head.epoch
