"""Places that take spans, and the one without a library: a file with one OTLP document in JSON a line."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan


class SpansRefused(Exception):
    """The place did not take the spans; `reason` is one of a few words. Never leaves this package."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class SpanBatch:
    """Spans of one process in both forms that places take."""

    spans: Sequence[ReadableSpan]
    document: dict[str, Any]
    """See `otlp_document`."""


class BatchSink(Protocol):
    """Takes one batch at a time, from one thread."""

    def put(self, batch: SpanBatch) -> None:
        """The batch is there. SpansRefused when it is not."""
        ...

    def close(self) -> None:
        """Nothing comes any more; what waits to be tried again is given up."""
        ...


class FilePlace:
    """A file of this machine that any number of processes append to; readable by its owner alone."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def put(self, batch: SpanBatch) -> None:
        """See `BatchSink.put`. One write for each line, so that lines of several processes do not mix."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            number = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(number, json.dumps(batch.document).encode() + b"\n")
            finally:
                os.close(number)
        except OSError as error:
            raise SpansRefused("unwritable") from error

    def close(self) -> None:
        """See `BatchSink.close`."""
