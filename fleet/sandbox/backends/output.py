"""What a run prints: head and tail for people, all of it for the record, never more than its cap in memory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection
from typing import Literal

from fleet.kernel.ids import Digest
from fleet.policy.runs.log_lines import MAX_LINE_CHARS, LogLine
from fleet.policy.runs.spec import OutputStream
from fleet.sandbox.backends.redaction import OutputRedactor
from fleet.sandbox.port import LogSink
from fleet.trees.port import BlobStore

StreamName = Literal["stdout", "stderr"]
MAX_LOG_BYTES = 64 << 20
_LEVELS: dict[StreamName, Literal["info", "error"]] = {"stdout": "info", "stderr": "error"}
_quoted = json.JSONEncoder(ensure_ascii=False).encode


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class LineLog:
    """Numbers the lines of both streams together, from 1, in the order in which they were read.

    Args:
        sink: is told every line.
        max_bytes: what is kept; a line beyond is neither kept nor told, and `is_full` says so.
    """

    def __init__(
        self, sink: LogSink | None = None, *, max_bytes: int = MAX_LOG_BYTES, now_ms: Callable[[], int] = _now_ms
    ) -> None:
        self._sink, self._max_bytes, self._now_ms = sink, max_bytes, now_ms
        self._partial: dict[StreamName, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self._kept = bytearray()
        self._count = self._read_ms = 0
        self.is_full = False

    def feed(self, stream: StreamName, data: bytes) -> None:
        """The stream, redacted, went on with `data`."""
        partial = self._partial[stream]
        partial += data
        self._read_ms = self._now_ms()
        if b"\n" in data:
            *lines, rest = bytes(partial).split(b"\n")
            partial[:] = rest
            for line in lines:
                self._add_cut(stream, line)
        if len(partial) > MAX_LINE_CHARS:
            partial[:] = self._add_pieces(stream, bytes(partial))

    def finish(self) -> None:
        """Both streams are over: a last line without its newline is a line too."""
        for stream, partial in self._partial.items():
            if partial:
                self._add_cut(stream, bytes(partial))
                partial.clear()

    @property
    def ndjson(self) -> bytes:
        """All lines, one JSON object each."""
        return bytes(self._kept)

    def _add_cut(self, stream: StreamName, line: bytes) -> None:
        line = line.removesuffix(b"\r")
        self._add(stream, self._add_pieces(stream, line) if len(line) > MAX_LINE_CHARS else line)

    def _add_pieces(self, stream: StreamName, line: bytes) -> bytes:
        """Add what is over the length of a line; the rest. No character is cut in two."""
        while len(line) > MAX_LINE_CHARS:
            end = MAX_LINE_CHARS
            while end > MAX_LINE_CHARS - 4 and line[end] & 0xC0 == 0x80:
                end -= 1
            self._add(stream, line[:end])
            line = line[end:]
        return line

    def _add(self, stream: StreamName, line: bytes) -> None:
        if self.is_full:
            return
        # By hand: a program that prints empty lines makes half a million of them in a second.
        text, level = line.decode(errors="replace"), _LEVELS[stream]
        head = f'{{"n":{self._count + 1},"ts_ms":{self._read_ms},"stream":"{stream}","level":"{level}","line":'
        entry = f"{head}{_quoted(text)}}}\n".encode()
        if len(self._kept) + len(entry) > self._max_bytes:
            self.is_full = True
            return
        self._count += 1
        self._kept += entry
        if self._sink is not None:
            self._sink(LogLine(n=self._count, ts_ms=self._read_ms, stream=stream, level=level, line=text))


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
        self._redactors: dict[StreamName, OutputRedactor] = {
            "stdout": OutputRedactor(forms),
            "stderr": OutputRedactor(forms),
        }
        self._max_bytes = max_bytes
        self._printed_bytes = 0

    def feed(self, stream: StreamName, data: bytes) -> None:
        """The program printed `data`."""
        self._printed_bytes += len(data)
        self._take(stream, self._redactors[stream].feed(data))

    def finish(self) -> None:
        """Nothing more comes: what was held back is kept and told. Idempotent."""
        for stream, redactor in self._redactors.items():
            self._take(stream, redactor.flush())
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
