"""Trajectories of stories leave the fleet as rows: everything that was asked, done, found, voted and decided.

One event after the other goes through, and one blob at a time is held: memory does not grow with the log. Rows come
only from what a story recorded. So the hidden tests of a benchmark, which no story knows, cannot be in them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fleet.errors import StoryNotFound
from fleet.events import StoredEvent, decode, published
from fleet.ids import StoryId, StreamId
from fleet.ports import BlobStore, TrajectorySink, WrittenTable
from fleet.report import EventRow, TrajectoryRow
from fleet.services.trajectory_councils import CouncilRows
from fleet.services.trajectory_steps import StepRows
from fleet.services.trajectory_story import StorySums
from fleet.services.trajectory_texts import TrajectoryTexts
from fleet.services.whole_log import WholeLog

__all__ = ["ExportProgress", "ExportSummary", "TrajectoryExport"]

_PAGE = 500


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
    tables: Mapping[str, WrittenTable]


class TrajectoryExport:
    """Writes whole stories, archived ones too, in the order of their ids: the same log gives the same rows.

    Args:
        redact: takes secrets out of a text.
        progress: is told after each page of events.
    """

    def __init__(
        self,
        *,
        log: WholeLog,
        blobs: BlobStore,
        sink: TrajectorySink,
        redact: Callable[[str], str],
        progress: Callable[[ExportProgress], None] = lambda _: None,
    ) -> None:
        self._log, self._sink = log, sink
        self._texts = TrajectoryTexts(blobs, redact)
        self._progress = progress

    async def run(self, stories: Sequence[StoryId] = ()) -> ExportSummary:
        """The rows of these stories, or of all, are written; nothing is left when it fails.

        Raises:
            StoryNotFound: a story that was named does not exist; all of them are listed.
            LogCorrupted, UnsupportedSchema: an event cannot be read.
            StoreUnavailable, StoreFull: the log or the sink.
        """
        try:
            chosen = await self._chosen(stories)
            events = 0
            for number, story_id in enumerate(chosen, 1):
                events += await self._story(story_id, number=number, of=len(chosen))
            return ExportSummary(len(chosen), events, self._texts.missing, self._sink.finish())
        finally:
            self._sink.abandon()

    async def _chosen(self, wanted: Sequence[StoryId]) -> list[StoryId]:
        present = {StoryId(s.entity) for s in await self._log.streams() if s.startswith("story:")}
        if unknown := sorted(set(wanted) - present):
            raise StoryNotFound(f"no story has the id {', '.join(unknown)}", story_ids=[str(name) for name in unknown])
        return sorted(set(wanted) or present)

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
