"""The live lines of one run on their way to readers: taken at once, published in batches (RC-22, RC-35)."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from itertools import islice

from fleet.errors import FleetError
from fleet.ids import RunKey
from fleet.ports import RunLogs
from fleet.services.known_secrets import KnownSecrets
from fleet.tools import LogLine

__all__ = ["RunLines"]

_KEPT_LINES = 20_000
_BATCH = 500
_PAUSE_S = 0.05
_CLOSE_S = 5.0


class RunLines:
    """Lines between the backend that reads them and the store that readers look at.

    A store that does not answer costs live lines and nothing else: the log of the result has them all.

    Args:
        known: taken out of every line once more; the backend has done so for the secrets of this run.
    """

    def __init__(self, key: RunKey, logs: RunLogs | None, known: KnownSecrets) -> None:
        self._key, self._logs, self._known = key, logs, known
        self._lines: deque[LogLine] = deque(maxlen=_KEPT_LINES)
        self._more = asyncio.Event()

    def take(self, line: LogLine) -> None:
        """The line will be published; called by the backend on the event loop, never blocks and never fails."""
        if self._logs is not None:
            self._lines.append(line)
            self._more.set()

    async def publish(self) -> None:
        """Every line goes to the readers within a moment; runs until it is cancelled."""
        while True:
            await self._more.wait()
            self._more.clear()
            with contextlib.suppress(FleetError):
                await self._flush()
            await asyncio.sleep(_PAUSE_S)

    async def close(self) -> None:
        """The last lines are published, and the end of the run, if the store answers in time."""
        if self._logs is None:
            return
        with contextlib.suppress(FleetError, TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._flush()
                await self._logs.end(self._key)

    async def _flush(self) -> None:
        assert self._logs is not None
        while self._lines:
            batch = list(islice(self._lines, _BATCH))
            await self._logs.append(self._key, [self._redacted(line) for line in batch])
            # Only now: a flush that is cancelled is made again, and the store leaves out what it has.
            while self._lines and self._lines[0].n <= batch[-1].n:
                self._lines.popleft()

    def _redacted(self, line: LogLine) -> LogLine:
        text = self._known.redact(line.line).text
        return line if text == line.line else line.model_copy(update={"line": text})
