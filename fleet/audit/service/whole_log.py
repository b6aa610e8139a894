"""Every stream that ever was: those of the log, and those that were archived (EV-25)."""

from __future__ import annotations

from collections.abc import Sequence

from fleet.audit.service.stream_export import read_export
from fleet.events.codec import decode
from fleet.events.envelope import Head, StoredEvent
from fleet.events.project import StoryTombstoned
from fleet.kernel.errors import LogCorrupted, UnsupportedSchema
from fleet.kernel.ids import StreamId
from fleet.log.port import EventLog
from fleet.trees.port import BlobStore


class WholeLog:
    """Reads like the log. An archived stream is read from its export, so that a rebuilt graph still has its decisions.

    Args:
        blobs: where exports are; without it an archived stream is known, and its events are not to be had.
    """

    def __init__(self, log: EventLog, blobs: BlobStore | None = None) -> None:
        self._log, self._blobs = log, blobs
        self._tombstones: dict[StreamId, StoryTombstoned] = {}
        self._seen: dict[StreamId, int] = {}
        self._last: tuple[StreamId, Sequence[StoredEvent]] | None = None

    async def streams(self) -> list[StreamId]:
        """Every stream that has events to be read, sorted."""
        present = await self._log.streams()
        archived = await self._archived(present) if self._blobs else {}
        return sorted({*present, *archived})

    async def lost(self, streams: set[StreamId]) -> list[StreamId]:
        """Those of the known streams that vanished from the log without having been archived, sorted."""
        present = await self._log.streams()
        gone = streams - set(present)
        return sorted(gone - (await self._archived(present)).keys()) if gone else []

    async def head(self, stream: StreamId) -> Head:
        """Where the stream ends, or ended when it was archived."""
        head = await self._log.head(stream)
        if head.version == 0 and self._blobs and (tombstone := self._tombstones.get(stream)):
            return Head(tombstone.last_version, tombstone.last_hash, head.epoch)
        return head

    async def read(self, stream: StreamId, *, after: int = 0, limit: int | None = None) -> list[StoredEvent]:
        """Events with versions `after`+1.. in order, at most `limit`.

        Raises ArtifactNotFound or LogCorrupted when an archived stream's export is gone or altered.
        """
        events = await self._log.read(stream, after=after, limit=limit)
        if events or not self._blobs or stream not in self._tombstones or (await self._log.head(stream)).version:
            return events
        if self._last is None or self._last[0] != stream:
            export = read_export(await self._blobs.get(self._tombstones[stream].export_digest))
            self._last = stream, export.events
        return list(self._last[1][after : None if limit is None else after + limit])

    async def refuse(self, stream: StreamId, *, reason: str) -> None:
        """The stream takes no appends until its loss is accepted."""
        await self._log.refuse(stream, reason=reason)

    async def refused(self) -> dict[StreamId, str]:
        """Streams that take no appends, and why."""
        return await self._log.refused()

    async def _archived(self, present: Sequence[StreamId]) -> dict[StreamId, StoryTombstoned]:
        for project in present:
            if project.startswith("project:"):
                await self._look_at(project)
        return self._tombstones

    async def _look_at(self, project: StreamId) -> None:
        """Tombstones that this project's stream got since it was looked at."""
        try:
            for event in await self._log.read(project, after=self._seen.get(project, 0)):
                if event.type == StoryTombstoned.type and isinstance(payload := decode(event), StoryTombstoned):
                    self._tombstones[StreamId.of_story(payload.story_id)] = payload
                self._seen[project] = event.version
        except (LogCorrupted, UnsupportedSchema):
            # The stream itself says so when its turn comes; until then nothing after it counts as archived.
            return
