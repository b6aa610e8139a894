"""What a run prints: head and tail for people, all of it for the record, never more than its cap in memory."""

from __future__ import annotations

from collections.abc import Collection

from fleet.adapters.sandbox.line_log import MAX_LOG_BYTES, LineLog, StreamName
from fleet.adapters.sandbox.redaction import RedactingBytes, StreamRedactor
from fleet.ids import Digest
from fleet.ports import BlobStore, LogSink
from fleet.tools import OutputStream

__all__ = ["EDGE_BYTES", "RunOutput", "StreamBuffer"]

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


class RunOutput:
    """Both streams of one run, redacted before anything is kept or told.

    Args:
        max_bytes: of both streams together, as the program printed them; `is_over` beyond.
        forms: of the run's secrets, as `forms_in` finds them.
        log: is told every line.
    """

    def __init__(self, max_bytes: int, *, forms: Collection[str] = (), log: LogSink | None = None) -> None:
        kept = min(max_bytes, MAX_LOG_BYTES)
        self.stdout, self.stderr = StreamBuffer(kept), StreamBuffer(kept)
        self._lines = LineLog(log)
        self._redactors: dict[StreamName, StreamRedactor] = {
            "stdout": StreamRedactor(forms),
            "stderr": StreamRedactor(forms),
        }
        self._texts: dict[StreamName, RedactingBytes] = {"stdout": RedactingBytes(), "stderr": RedactingBytes()}
        self._max_bytes = max_bytes
        self._printed_bytes = 0

    def feed(self, stream: StreamName, data: bytes) -> None:
        """The program printed `data`."""
        self._printed_bytes += len(data)
        self._take(stream, self._texts[stream].feed(self._redactors[stream].feed(data)))

    def finish(self) -> None:
        """Nothing more comes: what was held back is kept and told. Idempotent."""
        for stream, redactor in self._redactors.items():
            text = self._texts[stream]
            self._take(stream, text.feed(redactor.flush()) + text.flush())
        self._lines.finish()

    @property
    def is_over(self) -> bool:
        """True when more was printed than the run may print, or its lines are more than are kept (RC-33)."""
        return self._printed_bytes > self._max_bytes or self._lines.is_full

    async def store_log(self, blobs: BlobStore) -> Digest | None:
        """Blob of all lines as NDJSON; None when nothing was printed."""
        return await blobs.put(self._lines.ndjson) if self._lines.ndjson else None

    def _take(self, stream: StreamName, data: bytes) -> None:
        if data:
            (self.stdout if stream == "stdout" else self.stderr).feed(data)
            self._lines.feed(stream, data)
