"""Figures of context over many stories: from the record where it says them, from those who work where it does not.

What is on record is the same on every replica. What is not (the age of the graph, the packs that were at hand) is
asked of the one place that knows it, and left out with its reason while that place is away (AP-98).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from cachetools import LRUCache

from fleet.context.port import PackActivity, PackFigureSource
from fleet.context.row_cut import RowCut
from fleet.desk.planning import UNREADABLE
from fleet.events.envelope import StoredEvent
from fleet.graph.port import DecisionGraph
from fleet.kernel.errors import StoreError, ToolTimeout
from fleet.kernel.ids import StoryId, StreamId
from fleet.log.port import EventLog
from fleet.report.context_figures import ContextFigures, context_figures, sum_figures

_BATCH = 500
_REMEMBERED = 20_000
"""Stories whose figures are kept at hand."""
_WITHIN_S = 3.0
"""How long the graph or the builder of packs is given: these figures are not worth more waiting."""


CutOf = Callable[[StoryId], Awaitable[RowCut | None]]
"""What of a story is shown to somebody; None for all of it."""


@dataclass(frozen=True, slots=True)
class Away:
    """A figure that cannot be told now, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class GraphLag:
    """Events that are counted and that the decision graph does not hold yet, and of how many stories."""

    events: int
    streams: int


@dataclass(frozen=True, slots=True)
class ContextReport:
    """All figures of some stories together."""

    stories: int
    figures: ContextFigures
    lag: GraphLag | Away
    activity: PackActivity | Away


@dataclass(frozen=True, slots=True)
class _Known:
    """The figures of a story up to a version, and the hash of the event that it ends with."""

    figures: ContextFigures
    version: int
    hash: str
    shown: tuple[int, ...] | None = None
    """Versions of the events that are counted; None for all."""

    def after(self, version: int) -> int:
        """How many of the events that are counted are newer than this version."""
        if self.shown is not None:
            return sum(one > version for one in self.shown)
        return max(0, self.version - version)


class ContextStatistics:
    """Reads over the log of stories that the caller chose.

    Args:
        graph: whose cursors say how far it is.
        builder: the one that builds the packs of role agents.
    """

    def __init__(self, *, log: EventLog, graph: DecisionGraph, builder: PackFigureSource) -> None:
        self._log, self._graph, self._builder = log, graph, builder
        self._known = LRUCache[StoryId, _Known](_REMEMBERED)
        # One reader at a time: others would read the same events again, and put older figures over newer ones.
        self._reading = asyncio.Lock()

    async def of(
        self, stories: Collection[StoryId], *, projects: frozenset[str] | None, cut_of: CutOf | None = None
    ) -> ContextReport:
        """The figures of these stories.

        Args:
            projects: those that the stories belong to; None stands for all there are.
            cut_of: what of each story is counted, None for one from whom nothing is hidden. The builder of packs
                knows whole projects alone, so that nothing of it is told with a cut (CX-16).

        Raises StoreUnavailable when the log does not answer.
        """
        async with self._reading:
            latest = {story: await self._readable(story, cut_of) for story in stories}
            figures_of = {story: figures for story, figures in latest.items() if figures is not None}
        told = _not_told() if cut_of is not None else self._activity(projects)
        lag, activity = await asyncio.gather(self._lag(figures_of), told)
        # Between two events of a large sum others have their turn; see StoryStream.
        figures = await asyncio.to_thread(sum_figures, [each.figures for each in figures_of.values()])
        return ContextReport(len(figures_of), figures, lag, activity)

    async def _readable(self, story: StoryId, cut_of: CutOf | None) -> _Known | None:
        """As `_counted`; None for a story that cannot be read, which must not hide the figures of the others."""
        try:
            return await self._counted(story, cut_of)
        except UNREADABLE:
            return None

    async def _counted(self, story: StoryId, cut_of: CutOf | None) -> _Known | None:
        """The figures of the story, or of what is shown of it; those are not remembered."""
        cut = await cut_of(story) if cut_of is not None else None
        if cut is None:
            return await self._latest(story)
        events = await self._log.read(StreamId.of_story(story))
        if not events:
            return None
        last, seen = events[-1], [event for event in events if cut.takes(event)]
        shown = tuple(event.version for event in seen)
        return _Known(await asyncio.to_thread(context_figures, seen), last.version, last.hash, shown)

    async def _latest(self, story: StoryId) -> _Known | None:
        """The figures of all events of a story: those that are remembered, and of the events since."""
        stream = StreamId.of_story(story)
        head, figures = await self._log.head(stream), self._known.pop(story, None)
        if (
            figures is None
            or head.version < figures.version
            or (head.version == figures.version and head.hash != figures.hash)
        ):
            figures = None
        while figures is None or figures.version < head.version:
            events = await self._log.read(stream, after=figures.version if figures else 0, limit=_BATCH)
            if not events:
                return None
            if figures is not None and events[0].prev_hash != figures.hash:
                # It is another stream than it was: archived, or gone back in time (EV-19).
                figures = None
                continue
            figures = _with(figures, events)
            await asyncio.sleep(0)
        self._known[story] = figures
        return figures

    async def _lag(self, figures_of: Mapping[StoryId, _Known]) -> GraphLag | Away:
        try:
            async with asyncio.timeout(_WITHIN_S):
                cursors = await self._graph.cursors()
        except StoreError as error:
            return Away(error.message)
        except TimeoutError:
            return Away(f"the decision graph did not answer within {_WITHIN_S:g} s")
        streams = {StreamId.of_story(story): figures for story, figures in figures_of.items()}
        behind = [figures.after(cursors[s].version if s in cursors else 0) for s, figures in streams.items()]
        return GraphLag(sum(behind), sum(one > 0 for one in behind))

    async def _activity(self, projects: frozenset[str] | None) -> PackActivity | Away:
        try:
            async with asyncio.timeout(_WITHIN_S):
                return await self._builder.activity(projects)
        except (StoreError, ToolTimeout) as error:
            return Away(error.message)
        except TimeoutError:
            return Away(f"the builder of packs did not answer within {_WITHIN_S:g} s")


async def _not_told() -> Away:
    return Away("what the builder of packs did is told of whole projects, to those who see all of their stories")


def _with(before: _Known | None, events: list[StoredEvent]) -> _Known:
    new, last = context_figures(events), events[-1]
    return _Known(sum_figures([before.figures, new]) if before else new, last.version, last.hash)
