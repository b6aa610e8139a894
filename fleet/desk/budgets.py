"""What people and machines ask about budgets and usage; reads come from the log and the day's totals alone (MB-30)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from fleet.context.row_cut import RowCut
from fleet.desk.planning import UNREADABLE, DamagedStory
from fleet.events.budget import BudgetScope
from fleet.events.codec import decode
from fleet.kernel.clock import Clock
from fleet.kernel.errors import InvalidInput, StoryNotFound
from fleet.kernel.ids import StoryId, StreamId
from fleet.log.port import EventLog
from fleet.models.profiles import Budgets
from fleet.models.routing.budget import QUANTITIES
from fleet.owner.budgets import PLATFORM, day_of
from fleet.owner.spending.port import DaySpending
from fleet.report.usage import USAGE_KEYS, UsageKey, UsageRow, UsageSum, sum_usage, usage_rows
from fleet.story.allowance import BudgetLine, budget_lines
from fleet.story.evolve.story import budgets_of, fold
from fleet.story.state import StoryState


@dataclass(frozen=True, slots=True)
class BudgetView:
    """The budgets of one story, or of the platform and its projects today."""

    story_id: str | None
    day: str
    lines: tuple[BudgetLine, ...]


class BudgetDesk:
    """Limits, usage and what is left. Every figure is the one that the owner of a story decides with."""

    def __init__(self, *, log: EventLog, spending: DaySpending, limits: Budgets, clock: Clock) -> None:
        self._log, self._spending, self._limits, self._clock = log, spending, limits, clock
        self.damaged: tuple[DamagedStory, ...] = ()
        """What the last look at all stories left out, because it cannot be read."""

    async def story(self, story_id: StoryId, cut: RowCut | None = None) -> BudgetView:
        """The budgets of a story and of the scopes in it. StoryNotFound when there is none.

        Args:
            cut: what of the story is counted, as if there were no more of it (CX-16); None for all.
        """
        events = await self._log.read(StreamId.of_story(story_id))
        state = fold(events)
        if state is None:
            raise StoryNotFound(
                f"there is no story {story_id}; `fleet story list` shows those that exist", story_id=story_id
            )
        return self.of(state if cut is None else state.with_(budgets=budgets_of(events, counts=cut.takes)))

    def of(self, state: StoryState) -> BudgetView:
        """As `story`, for a state that is at hand."""
        # Between its steps a story uses no time; while one runs, its owner's clock and ours may differ a little.
        now_ms = self._clock.now_ms()
        return BudgetView(state.story_id, day_of(now_ms), budget_lines(state, self._limits, now_ms=now_ms))

    async def today(self) -> BudgetView:
        """The budgets of the platform and of every project that has stories, for this day (UTC)."""
        day = day_of(self._clock.now_ms())
        scopes = [(PLATFORM, self._limits.platform)]
        scopes += [(BudgetScope(kind="project", id=p), self._limits.project) for p in await self._projects()]
        day_totals = await self._spending.totals([scope for scope, _ in scopes], day)
        lines = [
            BudgetLine(scope.kind, scope.id, name, limits.of(name), totals.spent.of(name), totals.reserved.of(name))
            for (scope, limits), totals in zip(scopes, day_totals, strict=True)
            for name in QUANTITIES
            if limits.of(name) is not None or totals.used.of(name)
        ]
        return BudgetView(None, day, tuple(lines))

    async def _projects(self) -> Sequence[str]:
        projects = set[str]()
        damaged = list[DamagedStory]()
        for stream in await self._stories():
            try:
                state = fold(await self._log.read(stream, limit=1))
            except UNREADABLE as error:
                damaged.append(DamagedStory.of(stream.entity, error))
                continue
            projects |= {state.project_id} if state is not None else set()
        self.damaged = tuple(damaged)
        return sorted(projects)

    async def _stories(self) -> list[StreamId]:
        return [stream for stream in await self._log.streams() if stream.startswith("story:")]

    async def rows(self, story_id: StoryId | None = None, *, projects: Collection[str] | None = None) -> list[UsageRow]:
        """The ledger of one story, or of all of them, or of all in these projects. StoryNotFound when there is none.

        Of all of them those that cannot be read are left out and stand in `damaged`.
        """
        if story_id is not None:
            return await self._ledger(StreamId.of_story(story_id), None)
        rows, damaged = list[UsageRow](), list[DamagedStory]()
        for stream in await self._stories():
            try:
                rows += await self._ledger(stream, projects)
            except UNREADABLE as error:
                damaged.append(DamagedStory.of(stream.entity, error))
            except StoryNotFound:
                continue  # it is being archived
        self.damaged = tuple(damaged)
        return rows

    async def _ledger(self, stream: StreamId, projects: Collection[str] | None) -> list[UsageRow]:
        events = await self._log.read(stream)
        first = fold(events[:1])
        if first is None:
            raise StoryNotFound(f"there is no story {stream.entity}", story_id=stream.entity)
        if projects is not None and first.project_id not in projects:
            return []
        return list(usage_rows([(event, decode(event)) for event in events]))

    async def usage(
        self, story_id: StoryId | None = None, *, by: UsageKey, projects: Collection[str] | None = None
    ) -> tuple[UsageSum, ...]:
        """Usage by one key, of one story or of all of them, or of all in these projects."""
        return sum_usage(await self.rows(story_id, projects=projects), by=by)


def parse_key(text: str) -> UsageKey:
    """The key of the ledger; InvalidInput names those that there are."""
    for key in USAGE_KEYS:
        if key == text:
            return key
    raise InvalidInput(
        f"usage is not grouped by {text!r}: choose one of {', '.join(USAGE_KEYS)}",
        field="group_by",
        value=text,
        allowed=list(USAGE_KEYS),
    )
