"""The lines of a run: told while it goes on, and kept as NDJSON (RC-22, RC-33, RC-35)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Literal

from fleet.ports import LogSink
from fleet.tools import MAX_LINE_CHARS, LogLine

__all__ = ["MAX_LOG_BYTES", "LineLog", "StreamName"]

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
