"""Port: a cache of the fold of a stream (EV-6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from fleet.ids import StreamId

__all__ = ["Snapshot", "SnapshotStore"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The fold of versions 1..`version`. Used only if the log has `hash` there and the reader knows `schema`."""

    version: int
    hash: str
    schema: str
    """Names the form of `data`; a reader with another form folds the whole stream."""
    data: bytes


class SnapshotStore(Protocol):
    """At most one snapshot of each stream. Everything in it may be lost at any moment."""

    async def get(self, stream: StreamId) -> Snapshot | None:
        """The newest snapshot that was put, if it is still there."""
        ...

    async def put(self, stream: StreamId, snapshot: Snapshot) -> None:
        """The snapshot replaces an older one; a newer one stays."""
        ...

    async def drop(self, stream: StreamId) -> None:
        """There is no snapshot of the stream."""
        ...
