"""Trajectories of stories leave the fleet as rows: everything that was asked, done, found, voted and decided.

One event after the other goes through, and one blob at a time is held: memory does not grow with the log. Rows come
only from what a story recorded. So the hidden tests of a benchmark, which no story knows, cannot be in them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass

from fleet.audit.service.whole_log import WholeLog
from fleet.events.codec import decode, published
from fleet.events.envelope import StoredEvent
from fleet.kernel.errors import ArtifactNotFound, LogCorrupted, StoryNotFound, UnsupportedSchema
from fleet.kernel.ids import StoryId, StreamId
from fleet.report.service.trajectories.councils import CouncilRows
from fleet.report.service.trajectories.port import TrajectorySink, WrittenTable
from fleet.report.service.trajectories.rows import EventRow, TrajectoryRow
from fleet.report.service.trajectories.steps import StepRows, TrajectoryTexts
from fleet.report.service.trajectories.story import StorySums
from fleet.secrets.service import KnownSecrets
from fleet.trees.port import BlobStore

_PAGE = 500
_UNREADABLE = (LogCorrupted, UnsupportedSchema, ArtifactNotFound)
"""What one story is damaged by: its log, a newer fleet that wrote it, or the missing file of an archived one."""


@dataclass(frozen=True, slots=True)
class ExportProgress:
    """How far an export is."""

    story_id: StoryId
    number: int
    """Of this story, from 1."""
    stories: int
    events: int
    """Of this story so far."""


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What an export holds."""

    stories: int
    events: int
    missing_blobs: int
    damaged: Mapping[StoryId, str]
    """Stories that were left out because they cannot be read, and why."""
    tables: Mapping[str, WrittenTable]


class TrajectoryExport:
    """Writes whole stories, archived ones too, in the order of their ids: the same log gives the same rows.

    Args:
        secrets: what is taken out of every row.
        progress: is told after each page of events.
    """

    def __init__(
        self,
        *,
        log: WholeLog,
        blobs: BlobStore,
        sink: TrajectorySink,
        secrets: KnownSecrets,
        progress: Callable[[ExportProgress], None] = lambda _: None,
    ) -> None:
        self._log, self._sink = log, sink
        self._texts = TrajectoryTexts(blobs, secrets)
        self._progress = progress

    async def run(self, stories: Sequence[StoryId] = ()) -> ExportSummary:
        """The rows of these stories, or of all that can be read, are written; nothing is left when it fails.

        Raises:
            StoryNotFound: a story that was named does not exist; all of them are listed.
            LogCorrupted, UnsupportedSchema, ArtifactNotFound: an event of a story that was named cannot be read.
            StoreUnavailable, StoreFull: the log or the sink.
        """
        try:
            chosen, events = await self._chosen(stories), 0
            damaged = await self._damage(chosen) if not stories else {}
            chosen = [story_id for story_id in chosen if story_id not in damaged]
            for number, story_id in enumerate(chosen, 1):
                events += await self._story(story_id, number=number, of=len(chosen))
            return ExportSummary(len(chosen), events, self._texts.missing, damaged, self._sink.finish())
        finally:
            self._sink.abandon()

    async def _chosen(self, asked_for: Sequence[StoryId]) -> list[StoryId]:
        present = {StoryId(s.entity) for s in await self._log.streams() if s.startswith("story:")}
        if unknown := sorted(set(asked_for) - present):
            raise StoryNotFound(f"no story has the id {', '.join(unknown)}", story_ids=[str(name) for name in unknown])
        return sorted(set(asked_for) or present)

    async def _damage(self, stories: Sequence[StoryId]) -> dict[StoryId, str]:
        """What is wrong with each story that cannot be read to its end. Rows that were added are not taken back."""
        damage: dict[StoryId, str] = {}
        for story_id in stories:
            stream = StreamId.of_story(story_id)
            try:
                async for event in self._events(stream, (await self._log.head(stream)).version):
                    decode(event)
            except _UNREADABLE as error:
                damage[story_id] = error.message
        return damage

    async def _events(self, stream: StreamId, last: int) -> AsyncIterator[StoredEvent]:
        at = 0
        while at < last and (page := await self._log.read(stream, after=at, limit=min(_PAGE, last - at))):
            for event in page:
                yield event
            at = page[-1].version

    async def _story(self, story_id: StoryId, *, number: int, of: int) -> int:
        stream, missed = StreamId.of_story(story_id), self._texts.missing
        # What is recorded while this reads is for the next export: rows are those of one moment.
        last, at = (await self._log.head(stream)).version, 0
        steps, councils = StepRows(story_id, self._texts), CouncilRows(story_id, self._texts)
        sums = StorySums(story_id)
        while at < last:
            page = await self._log.read(stream, after=at, limit=min(_PAGE, last - at))
            if not page:
                break
            for event in page:
                payload = decode(event)
                sums.take(event, payload)
                self._add(self._event(story_id, event))
                self._add(*await steps.take(event, payload))
                self._add(*await councils.take(event, payload))
            at = page[-1].version
            self._progress(ExportProgress(story_id, number, of, at))
        self._add(*steps.end(), *await councils.end())
        row = sums.row(missing_blobs=self._texts.missing - missed)
        if row is not None:
            self._add(row)
        return at

    def _event(self, story_id: StoryId, event: StoredEvent) -> EventRow:
        return EventRow(
            story_id=story_id,
            version=event.version,
            ts_ms=event.ts_ms,
            type=event.type,
            schema=event.schema,
            actor=event.actor,
            body=self._texts.json(published(event)["body"]),
        )

    def _add(self, *rows: TrajectoryRow) -> None:
        for row in rows:
            self._sink.add(self._texts.cleaned(row))
