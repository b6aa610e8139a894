"""What people and machines ask about budgets and usage; reads come from the log and the day's totals alone (MB-30)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from fleet.context import RowCut
from fleet.errors import InvalidInput, StoryNotFound
from fleet.events import BudgetScope, decode
from fleet.ids import StoryId, StreamId
from fleet.models import QUANTITIES, BudgetLimits, Budgets
from fleet.ports import Clock, DaySpending, EventLog
from fleet.report import USAGE_KEYS, UsageKey, UsageRow, UsageSum, sum_usage, usage_rows
from fleet.services.budgeting import PLATFORM, day_of
from fleet.story import BudgetLine, StoryState, budget_lines, budgets_of, fold

__all__ = ["BudgetDesk", "BudgetView", "parse_key"]


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
        lines: list[BudgetLine] = []
        for scope, limits in scopes:
            lines += await self._day(scope, limits, day)
        return BudgetView(None, day, tuple(lines))

    async def _day(self, scope: BudgetScope, limits: BudgetLimits, day: str) -> list[BudgetLine]:
        totals = await self._spending.totals(scope, day)
        return [
            BudgetLine(scope.kind, scope.id, name, limits.of(name), totals.spent.of(name), totals.reserved.of(name))
            for name in QUANTITIES
            if limits.of(name) is not None or totals.used.of(name)
        ]

    async def _projects(self) -> Sequence[str]:
        found = set[str]()
        for stream in await self._stories():
            first = await self._log.read(stream, limit=1)
            found |= {state.project_id} if (state := fold(first)) is not None else set()
        return sorted(found)

    async def _stories(self) -> list[StreamId]:
        return [stream for stream in await self._log.streams() if stream.startswith("story:")]

    async def rows(self, story_id: StoryId | None = None, *, projects: Collection[str] | None = None) -> list[UsageRow]:
        """The ledger of one story, or of all of them, or of all in these projects. StoryNotFound when there is none."""
        streams = [StreamId.of_story(story_id)] if story_id is not None else await self._stories()
        found: list[UsageRow] = []
        for stream in streams:
            events = await self._log.read(stream)
            if story_id is not None and not events:
                raise StoryNotFound(f"there is no story {story_id}", story_id=story_id)
            first = fold(events[:1])
            if projects is not None and (first is None or first.project_id not in projects):
                continue
            found += usage_rows([(event, decode(event)) for event in events])
        return found

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
