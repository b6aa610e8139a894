"""In-memory twin of the port SnapshotStore."""

from __future__ import annotations

from fleet.adapters.memory.log import MemoryEventLog
from fleet.adapters.snapshotting import MAX_SNAPSHOT_BYTES, packed
from fleet.ids import StreamId
from fleet.ports import Snapshot

__all__ = ["MemorySnapshotStore"]


class MemorySnapshotStore:
    """Snapshots kept as long as the object. Implements the port SnapshotStore.

    Args:
        log: when given, a stream that it erases, or whose loss it accepts, has no snapshot any more.
        max_bytes: a snapshot that is larger when packed is not kept.
    """

    def __init__(self, log: MemoryEventLog | None = None, *, max_bytes: int = MAX_SNAPSHOT_BYTES) -> None:
        self._held: dict[StreamId, Snapshot] = {}
        self._max_bytes = max_bytes
        if log is not None:
            log.on_erase.append(lambda stream: self._held.pop(stream, None))
            log.on_accept.append(lambda stream: self._held.pop(stream, None))

    async def get(self, stream: StreamId) -> Snapshot | None:
        """The newest snapshot that was put, if it is still there."""
        return self._held.get(stream)

    async def put(self, stream: StreamId, snapshot: Snapshot) -> None:
        """The snapshot replaces one of the same or an older version; a newer one stays."""
        held = self._held.get(stream)
        if packed(snapshot.data, max_bytes=self._max_bytes) is None:
            return
        if held is None or held.version <= snapshot.version:
            self._held[stream] = snapshot

    async def drop(self, stream: StreamId) -> None:
        """There is no snapshot of the stream."""
        self._held.pop(stream, None)
