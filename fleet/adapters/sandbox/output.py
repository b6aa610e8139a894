"""What a run prints: head and tail for people, all of it for the record, never more than its cap in memory."""

from __future__ import annotations

from fleet.ids import Digest
from fleet.ports import BlobStore
from fleet.tools import OutputStream

__all__ = ["EDGE_BYTES", "StreamBuffer"]

EDGE_BYTES = 32 << 10
"""Bytes of head and of tail that a result carries per stream."""


class StreamBuffer:
    """The bytes of one stream: kept up to `max_bytes`, counted beyond; the last EDGE_BYTES are always known.

    Args:
        max_bytes: how much is kept for the blob.
    """

    def __init__(self, max_bytes: int) -> None:
        self._kept = bytearray()
        self._tail = bytearray()
        self._max_bytes = max_bytes
        self.total_bytes = 0

    def feed(self, data: bytes) -> None:
        """The stream went on with `data`."""
        self.total_bytes += len(data)
        room = self._max_bytes - len(self._kept)
        self._kept += data[:room]
        self._tail = (self._tail + data)[-EDGE_BYTES:]

    @property
    def tail(self) -> bytes:
        """The last EDGE_BYTES bytes."""
        return bytes(self._tail)

    @property
    def last_line(self) -> str:
        """The last line that is not empty, undecodable bytes replaced."""
        lines = self._tail.decode(errors="replace").rstrip().rsplit("\n", 1)
        return lines[-1]

    async def store(self, blobs: BlobStore) -> OutputStream:
        """The stream as a result carries it; all that was kept is a blob (none for an empty stream)."""
        if self.total_bytes <= 2 * EDGE_BYTES and self.total_bytes == len(self._kept):
            head, tail, truncated = bytes(self._kept), b"", False
        else:
            head, tail, truncated = bytes(self._kept[:EDGE_BYTES]), bytes(self._tail), True
        blob: Digest | None = await blobs.put(bytes(self._kept)) if self._kept else None
        return OutputStream(
            head=head.decode(errors="replace"),
            tail=tail.decode(errors="replace"),
            total_bytes=self.total_bytes,
            truncated=truncated,
            blob=blob,
        )
