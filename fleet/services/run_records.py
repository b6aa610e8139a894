"""Recorded results of runs, and the lines of their logs (RC-21, RC-22)."""

from __future__ import annotations

from pydantic import ValidationError

from fleet.digest import canonical_json
from fleet.errors import FleetError, LogCorrupted, SandboxUnavailable
from fleet.ids import Digest
from fleet.ports import BlobStore, LogPage
from fleet.tools import LogLine, RunResult

__all__ = ["LOST", "RunRecords", "refused_result"]

LOST = RunResult(status="error", reason="sandbox_lost", exit_code=None)
"""What is recorded for a run whose supervisor died (RC-27)."""


def refused_result(error: FleetError) -> RunResult:
    """The final result of a run that was taken and could not be started; `limits` says why (RC-19)."""
    reason = "sandbox_lost" if isinstance(error, SandboxUnavailable) else "config"
    return RunResult(status="error", reason=reason, exit_code=None, limits={"refused": error.message})


class RunRecords:
    """Results as blobs. The lines of the log that was read last are kept, because its readers come page by page."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._log: tuple[Digest, list[bytes]] | None = None

    async def put(self, result: RunResult) -> Digest:
        """The digest of the stored result."""
        return await self._blobs.put(canonical_json(result))

    async def get(self, digest: Digest) -> RunResult:
        """The result that was stored."""
        return RunResult.model_validate_json(await self._blobs.get(digest))

    async def page(self, digest: Digest, *, after: int, limit: int) -> LogPage:
        """Lines of the run of this result with a number above `after`; `is_over` with the last of them.

        Raises:
            LogCorrupted: the log of the result is no log.
        """
        log = (await self.get(digest)).log
        if log is None:
            return LogPage((), is_over=True)
        lines = await self._lines(log)
        try:
            # Numbers count from 1 without a gap, so a number is a place.
            chosen = tuple(LogLine.model_validate_json(raw) for raw in lines[after : after + limit])
        except ValidationError as error:
            raise LogCorrupted(f"blob {log} is no log of a run: line {after + 1} or a later one", blob=log) from error
        return LogPage(chosen, is_over=after + limit >= len(lines))

    async def _lines(self, log: Digest) -> list[bytes]:
        if self._log is None or self._log[0] != log:
            self._log = (log, (await self._blobs.get(log)).splitlines())
        return self._log[1]
