"""Settle what an owner lost from the engines' own usage logs, and say where ledger and engine differ (MB-23, MB-32)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence

from fleet.events.budget import UsageAdjusted
from fleet.kernel.clock import Clock
from fleet.kernel.errors import FleetError, OwnershipError
from fleet.kernel.ids import StepId, StoryId
from fleet.models.port import FinishedCall
from fleet.models.routing.budget import QUANTITIES, Spend
from fleet.models.service.usage_logs import UsageLogs
from fleet.owner.journal.journal import Journal
from fleet.report.reconcile import EngineUse, UsageDifference, comparable, differences, settlements
from fleet.report.usage import UsageRow, usage_rows

_LOG = logging.getLogger(__name__)
_FIRST_PAUSE_S = 30.0
_PAUSE_S = 600.0
"""How far two looks are apart, once the first ones are done (MB-32)."""


def uses_of(calls: Mapping[str, Iterable[FinishedCall]], story_id: StoryId) -> tuple[EngineUse, ...]:
    """What the engines' logs hold of one story, by engine and step; calls of others are left out.

    Args:
        calls: by engine id.
    """
    by_call: dict[tuple[str, StepId], list[FinishedCall]] = {}
    for engine, ended in calls.items():
        for call in ended:
            # `<story>/<step>#<number of the call>`, as role agents name their calls.
            name, _, _ = call.request_id.partition("#")
            if name.startswith(f"{story_id}/"):
                by_call.setdefault((engine, StepId(name.removeprefix(f"{story_id}/"))), []).append(call)
    return tuple(_use(engine, step, ended) for (engine, step), ended in sorted(by_call.items()))


def _use(engine: str, step_id: StepId, calls: Sequence[FinishedCall]) -> EngineUse:
    return EngineUse(
        engine=engine,
        step_id=step_id,
        calls=len(calls),
        tokens_in=sum(c.usage.tokens_in for c in calls),
        tokens_out=sum(c.usage.tokens_out for c in calls),
        gpu_ms=sum(c.gpu_ms for c in calls),
    )


async def settle_from_engines(
    journal: Journal, calls: Mapping[str, Iterable[FinishedCall]]
) -> tuple[UsageAdjusted, ...]:
    """Calls of the story that the engines ended and nobody recorded are on record. What was held for them is free.

    Only steps whose lost calls have all ended are settled, and none that is under way: its calls are not recorded yet.

    Args:
        calls: read before this was called, so that what ended later is on record rather than taken for lost.
    """
    adjustments = settlements(await _rows(journal), _lost_uses(journal, calls))
    settled: list[UsageAdjusted] = []
    for adjusted in adjustments:
        hold = journal.state.budgets.holds.get(adjusted.step_id)
        # Fewer than were lost: one of them may still be under way, and would be nobody's once the others are settled.
        if hold is None or not hold.lost or adjusted.delta["calls"] < len(hold.lost):
            continue
        if journal.is_asking(adjusted.step_id):
            continue
        actual = Spend(**{k: v for k, v in adjusted.delta.items() if k in QUANTITIES})
        # The day first: it knows its holds by id, so a look that ends in between does no harm when it is repeated.
        await journal.budgeting.settle_lost(journal.state, adjusted.step_id, hold.lost, actual)
        await journal.record(f"{adjusted.step_id}/adjusted/{'-'.join(map(str, hold.lost))}", adjusted)
        settled.append(adjusted)
    return tuple(settled)


async def _rows(journal: Journal) -> tuple[UsageRow, ...]:
    return usage_rows(await journal.history())


def _lost_uses(journal: Journal, calls: Mapping[str, Iterable[FinishedCall]]) -> list[EngineUse]:
    lost = {name for name, hold in journal.state.budgets.holds.items() if hold.lost}
    return [use for use in uses_of(calls, journal.story_id) if use.step_id in lost]


class Reconciler:
    """Looks at the engines' logs for one story: soon after a takeover, every ten minutes, and before it closes.

    It only ever frees what an earlier owner held. An engine that is away, or a store, costs nothing but a later look.
    """

    def __init__(self, journal: Journal, usage: UsageLogs, clock: Clock) -> None:
        self._journal, self._usage, self._clock = journal, usage, clock
        # One look at a time, so that the last one before the end is the last one.
        self._looking = asyncio.Lock()
        self._is_over = False
        self._told: set[UsageDifference] = set()
        self._compared = 0
        """Calls that the engines knew of when ledger and engines were last compared."""

    async def run(self) -> None:
        """Returns when the story is somebody else's, or had its last look."""
        pause_s = _FIRST_PAUSE_S
        while not self._is_over:
            try:
                async with self._looking:
                    if not self._is_over:
                        await self._look()
            except OwnershipError:
                return
            except FleetError:
                pass  # an outage, or the owner was faster: the next look finds the same
            await self._clock.sleep(pause_s)
            pause_s = min(2 * pause_s, _PAUSE_S)

    async def last(self) -> None:
        """Everything that the engines know of is settled, as far as they answer; no look of `run` follows.

        Raises OwnershipError, which ends the work of this owner.
        """
        async with self._looking:
            self._is_over = True
            try:
                await self._look()
            except OwnershipError:
                raise
            except FleetError:
                return  # what is held stays spent: a crash never creates budget (MB-23)

    async def _look(self) -> None:
        journal = self._journal
        if not journal.exists:
            return
        calls = await self._usage.calls_of(journal.story_id)
        if _lost_uses(journal, calls):
            await settle_from_engines(journal, calls)
        count = sum(map(len, calls.values()))
        if count != self._compared:
            await self._compare(calls)
            self._compared = count

    async def _compare(self, calls: Mapping[str, Iterable[FinishedCall]]) -> None:
        """An operator is told of each difference once, with both numbers."""
        journal = self._journal
        unsettled = frozenset(journal.state.budgets.holds)
        rows = await _rows(journal)
        ledger, counted = comparable(rows, uses_of(calls, journal.story_id), besides=unsettled)
        for difference in differences(ledger, counted):
            if difference not in self._told:
                self._told.add(difference)
                _LOG.warning("story %s: %s", journal.story_id, difference.warning)
